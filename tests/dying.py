"""Dying after every step of an operation that others can see: the first, the second, and so on, each time in a forked child.

A step is a store or a call in one of the package's own files, so also every system call and every call into C. It can be seen by others
if it changed a file in shared memory: its name, its bytes, its mode, or who has locked what of it. Death after a step that changed
nothing is the same death as after the one before; with TICKPATH_EVERY_STEP=1 those are died too.
"""

import dis
import mmap
import os
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np

from shm.segment import SHM
from tests.children import in_child, wait_for_exit

ROOT = str(Path(__file__).parents[1] / "shm") + os.sep
DIED = 77
STEPS_MAX = 10_000

_STEPS = {dis.opmap[name] for name in ("STORE_SUBSCR", "STORE_ATTR", "DELETE_ATTR", "CALL", "CALL_FUNCTION_EX") if name in dis.opmap}


def deaths(operation: Callable[[], Any], prefix: str) -> Iterator[int]:
    """Run `operation` in a child that gets through; then in one that dies after its first step that changed anything of the segments
    whose names begin with `prefix`; then in one that dies after the second; and so on.

    Yields with the child gone, and the number of steps it took: 0 for the one that got through. Whoever calls this puts the segments
    back into a state in which the operation takes the same course.
    """
    changes = _changes(operation, prefix)
    yield 0
    for steps in changes:
        dies_after(operation, steps)
        yield steps


def dies_after(operation: Callable[[], Any], steps: int) -> None:
    """Run `operation` in a child that dies after so many steps, or gets through."""
    code = wait_for_exit(in_child(lambda: _run(operation, count_down(steps))))
    assert code in (0, DIED), f"exit code={code} after {steps} steps, expected {DIED} or 0"


def count_down(steps: int) -> Callable[[], None]:
    """A function to call after every step: the one that makes it so many is the last thing that this process does."""
    left = steps

    def step() -> None:
        nonlocal left
        left -= 1
        if left == 0:
            os._exit(DIED)

    return step


def _changes(operation: Callable[[], Any], prefix: str) -> list[int]:
    """The steps of `operation` after which others can see something that they could not see before. It is run to its end."""
    marks = np.frombuffer(mmap.mmap(-1, 8 * STEPS_MAX), np.int64)

    def look() -> None:
        nonlocal steps, seen
        steps += 1
        now = _visible(prefix)
        marks[steps] = now != seen or "TICKPATH_EVERY_STEP" in os.environ
        seen = now

    steps, seen = 0, _visible(prefix)
    assert wait_for_exit(in_child(lambda: _run(operation, look))) == 0, "it does not get through even where nobody dies"
    changes: list[int] = np.flatnonzero(marks).tolist()
    assert changes, "it changed nothing"
    return changes


def _visible(prefix: str) -> list[Any]:
    """What another process can see of the segments whose names begin with `prefix`."""
    found: list[Any] = []
    inodes = []
    for name in sorted(os.listdir(SHM)):  # noqa: PTH208
        if name.startswith(prefix):
            status = os.stat(SHM / name)  # noqa: PTH116
            inodes.append(f":{status.st_ino} ")
            with open(SHM / name, "rb") as file:  # noqa: PTH123
                found.append((name, status.st_mode, status.st_size, file.read()))
    locks = Path("/proc/locks").read_text().splitlines()
    found.append(sorted(line.partition(":")[2] for line in locks if any(inode in line for inode in inodes)))
    return found


def _run(operation: Callable[[], Any], step: Callable[[], None]) -> bool:
    _follow(step)
    operation()
    sys.settrace(None)
    return True


def _follow(step: Callable[[], None]) -> None:
    """Call `step` after every store and every call that this thread makes in the package's files."""

    def on_opcode(frame: FrameType, event: str, _: Any) -> Any:
        if event == "opcode":
            # What is about to run is at f_lasti; what ran before it is what the last event of this frame saw.
            if before.get(id(frame)) in _STEPS:
                step()
            before[id(frame)] = frame.f_code.co_code[frame.f_lasti]
        elif event == "return":
            before.pop(id(frame), None)
            step()
        return on_opcode

    def on_call(frame: FrameType, _: str, __: Any) -> Any:
        if not frame.f_code.co_filename.startswith(ROOT):
            return None
        frame.f_trace_opcodes = True
        frame.f_trace_lines = False
        return on_opcode

    before: dict[int, int] = {}
    sys.settrace(on_call)
