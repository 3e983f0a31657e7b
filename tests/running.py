"""Starting a whole tickpath instance for a test: its own name, its own ports, its own config, and nothing left behind."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from engine.runtime.config import DEFAULT_PATH
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
AAPL = DATA / "itch" / "aapl_20190130_093000.itch"

# The first start on a machine compiles every kernel.
PATIENCE_S = 240


@dataclass
class Launcher:
    """Runs `tickpath` in a folder of the test's own."""

    folder: Path
    instance: str
    config: Path = field(init=False)
    variables: dict[str, str] = field(default_factory=dict)

    def __post_init__(self) -> None:
        text = DEFAULT_PATH.read_text()
        text = text.replace('instance = "tickpath"', f'instance = "{self.instance}"')
        for port, kind in (
            (26400, socket.SOCK_DGRAM), (26401, socket.SOCK_STREAM), (26402, socket.SOCK_DGRAM), (26403, socket.SOCK_DGRAM),
            (26404, socket.SOCK_STREAM),
        ):  # fmt: skip
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port(kind)}")
        self.config = self.folder / "run.toml"
        self.config.write_text(text)

    def replace(self, old: str, new: str) -> None:
        """Change the config's text; the text must be there."""
        text = self.config.read_text()
        assert old in text, f"{old!r} is not in the shipped config"
        self.config.write_text(text.replace(old, new))

    def command(self, *arguments: str) -> list[str]:
        return [sys.executable, "-m", "tools.cli", *arguments]

    def run(self, *arguments: str, prefix: tuple[str, ...] = ()) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [*prefix, *self.command(*arguments)], capture_output=True, text=True, timeout=PATIENCE_S, cwd=ROOT, env=self.environment()
        )

    def trade(self, *arguments: str) -> tuple[dict[str, Any], subprocess.CompletedProcess[str]]:
        """`tickpath run` with the test's config; its JSON report beside the finished process."""
        report = self.folder / "report.json"
        finished = self.run("run", str(self.config), "--json", str(report), *arguments)
        assert report.exists(), f"no report: exit code {finished.returncode}\n{finished.stdout}\n{finished.stderr}"
        return json.loads(report.read_text()), finished

    @contextmanager
    def background(self, *arguments: str) -> Iterator[subprocess.Popen[str]]:
        """`tickpath run` left running; whatever the test does, no process survives it."""
        running = subprocess.Popen(
            self.command("run", str(self.config), *arguments),
            stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, cwd=ROOT, env=self.environment(), start_new_session=True,
        )  # fmt: skip
        try:
            yield running
        finally:
            with suppress(ProcessLookupError):
                os.killpg(running.pid, signal.SIGKILL)
            running.communicate()

    def environment(self) -> dict[str, str]:
        return {**os.environ, "COLUMNS": "200", "TICKPATH_STATE": str(self.folder / "state"), **self.variables}

    def segments(self) -> list[str]:
        return sorted(entry.name for entry in Path("/dev/shm").iterdir() if entry.name.startswith(f"{self.instance}."))


def without_exchange(text: str, credentials: str, snapshot: str) -> str:
    """A config's text with a venue of the user's own."""
    text = re.sub(r"\[exchange\].*", "", text, flags=re.DOTALL)
    text = text.replace('[[process]]\nname = "exchange"\nstages = ["exchange"]', "")
    text = text.replace('\ncredentials = ""', f'\ncredentials = "{credentials}"')
    return text.replace('snapshot_credentials = ""', f'snapshot_credentials = "{snapshot}"')


def wait_for(condition: Any, what: str, patience_s: float = PATIENCE_S) -> Any:
    """The condition's first true value. Fails with `what` if it never comes; looks again every few milliseconds."""
    deadline = time.monotonic() + patience_s
    while not (value := condition()):
        assert time.monotonic() < deadline, f"waited {patience_s:.0f} s for {what}"
        time.sleep(0.01)
    return value
