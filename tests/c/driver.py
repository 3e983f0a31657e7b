"""Compiling the C programs of the tests, and talking to tests/c/driver.c."""

import contextlib
import os
import shutil
import subprocess
import threading
from pathlib import Path
from types import TracebackType
from typing import Self

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
# Where the headers are that are tested: mutated ones, now and then.
HEADERS = Path(os.environ.get("TICKPATH_HEADERS", ROOT / "shm"))
WARNINGS = ["-Wall", "-Wextra", "-Wpedantic", "-Wconversion", "-Wshadow", "-Werror"]
ANSWER_S = 120


def compiler(name: str) -> str | None:
    """The path of a compiler, or None where it is not installed."""
    return shutil.which(name)


def build(source: Path, program: Path, *flags: str, cc: str = "gcc", headers: Path = HEADERS) -> Path:
    """Compile one C or C++ source against the headers. The compiler's words are the failure."""
    standard = "-std=c++17" if source.suffix == ".cpp" else "-std=c11"
    command = [cc, standard, "-O2", *WARNINGS, f"-I{headers}", *flags, str(source), "-o", str(program)]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, f"{' '.join(command)}\n{finished.stderr}"
    return program


class End:
    """A C process that holds one end of a ring and does as it is told. A context manager: the process is gone at the end of it."""

    def __init__(self, program: Path, *arguments: str, expect: dict[str, int] | None = None, wrapper: tuple[str, ...] = ()) -> None:
        environment = {**os.environ, **{name: str(value) for name, value in (expect or {}).items()}}
        self.process = subprocess.Popen(
            [*wrapper, str(program), *arguments, "--"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, env=environment
        )
        # Whoever waits for an answer waits no longer than this.
        self.watch = threading.Timer(ANSWER_S, self.process.kill)
        self.watch.daemon = True
        self.watch.start()
        self.first = self._answer()

    def _answer(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def tell(self, command: str) -> str:
        """The answer to a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command + "\n")
        self.process.stdin.flush()
        return self._answer()

    def local(self) -> list[int]:
        """The end's private words."""
        first = self.tell("local")
        return [int(line.split()[1]) for line in [first, *(self._answer() for _ in range(7))]]

    def kill(self) -> None:
        self.process.kill()
        self.process.wait()

    def close(self) -> int:
        """Let it end by itself; its exit code."""
        try:
            self.process.communicate("close\n", timeout=ANSWER_S)
        except (BrokenPipeError, ValueError):
            self.process.wait(timeout=ANSWER_S)
        return self.process.returncode

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.watch.cancel()
        if self.process.poll() is None:
            self.kill()
        for pipe in (self.process.stdin, self.process.stdout):
            if pipe is not None and not pipe.closed:
                with contextlib.suppress(BrokenPipeError):
                    pipe.close()
