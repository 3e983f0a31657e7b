"""Running `tickpath rings`, `inspect` and `clean`: in this process, or as a program whose lines are read while it runs."""

import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from click.testing import CliRunner, Result

from tools.cli import main

ROOT = Path(__file__).resolve().parent.parent
PATIENCE_S = 60


def tickpath(*arguments: str) -> Result:
    """The command in this process. Whatever it raises but its exit is a failure."""
    result = CliRunner().invoke(main, arguments)
    assert result.exception is None or isinstance(result.exception, SystemExit), repr(result.exception)
    return result


def said(*arguments: str) -> list[dict[str, Any]]:
    """The JSON lines that the command writes, which must succeed."""
    result = tickpath(*arguments, "--json")
    assert result.exit_code == 0, result.output
    return [json.loads(line) for line in result.stdout.splitlines()]


class Running:
    """A started `tickpath` command."""

    def __init__(self, *arguments: str) -> None:
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli", *arguments], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
        )
        self._lines: queue.Queue[str] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line.rstrip("\n"))

    def line(self) -> str:
        """The next line."""
        try:
            return self._lines.get(timeout=PATIENCE_S)
        except queue.Empty:
            raise AssertionError(f"no line for {PATIENCE_S} s; exit code {self.process.poll()}") from None

    def json(self) -> dict[str, Any]:
        return json.loads(self.line())

    def interrupt(self) -> None:
        self.process.send_signal(signal.SIGINT)

    def end(self) -> tuple[int, list[str], str]:
        """Wait for the end: the exit code, the lines not read yet, and what was written to standard error."""
        code = self.process.wait(PATIENCE_S)
        self._reader.join(PATIENCE_S)
        lines = []
        while not self._lines.empty():
            lines.append(self._lines.get())
        assert self.process.stderr is not None
        return code, lines, self.process.stderr.read()


@contextmanager
def running(*arguments: str) -> Iterator[Running]:
    """A command for the length of a `with`; it is gone afterwards."""
    command = Running(*arguments)
    try:
        yield command
    finally:
        command.process.kill()
        command.process.wait()
        for pipe in (command.process.stderr, command.process.stdout):
            if pipe is not None:
                command._reader.join(PATIENCE_S)
                pipe.close()


def sleeps(pid: int) -> int:
    """How often a process has given up its core to wait."""
    text = Path(f"/proc/{pid}/status").read_text()
    return int(next(line for line in text.splitlines() if line.startswith("voluntary_ctxt_switches")).split()[1])


def wait_until_gone(path: Path) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while os.path.lexists(path):
        assert time.monotonic() < deadline, f"{path} is still there"
        os.sched_yield()
