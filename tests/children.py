"""Forked children for tests: they die with their parent, or by an alarm, so that none is left spinning; and waiting for a condition."""

import contextlib
import ctypes
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from typing import Any

CHILD_S = 120
_PR_SET_PDEATHSIG = 1
_LIBC = ctypes.CDLL(None)


def in_child(work: Callable[[], Any], *, seconds: int = CHILD_S) -> int:
    """Fork; the child does `work` and exits 0 if it returned something true. It dies by itself if it hangs, or if we die."""
    sys.stdout.flush()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        _LIBC.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        signal.alarm(seconds)
        code = 0 if work() else 1
    except BaseException:
        traceback.print_exc()
    finally:
        os._exit(code)


def wait_for_exit(pid: int) -> int:
    """The exit code of a child; minus the signal that ended it."""
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def kill(pid: int) -> None:
    """End a child, stopped or not, and wait until it is gone."""
    os.kill(pid, signal.SIGKILL)
    wait_for_exit(pid)


@contextlib.contextmanager
def child(work: Callable[[], Any], *, seconds: int = CHILD_S) -> Iterator[int]:
    """A child for the length of a `with`: whatever happens, it is gone afterwards. Its exit code is not looked at."""
    pid = in_child(work, seconds=seconds)
    try:
        yield pid
    finally:
        with contextlib.suppress(ProcessLookupError, ChildProcessError):
            kill(pid)


def until(condition: Callable[[], Any], what: str, *, seconds: float = CHILD_S / 2) -> Any:
    """What `condition` returns once it is true; fails after `seconds`. Other processes run meanwhile."""
    deadline = time.monotonic() + seconds
    while not (answer := condition()):
        assert time.monotonic() < deadline, f"waited {seconds} s: {what}"
        os.sched_yield()
    return answer


def gave_up(pid: int) -> bool:
    """Whether a child has ended by itself, and not well; it is still to be waited for."""
    found = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT)
    return found is not None and found.si_status != 0


def stopped(pid: int) -> bool:
    """Whether a child has stopped (SIGSTOP takes a moment to arrive)."""
    with open(f"/proc/{pid}/stat") as stat:  # noqa: PTH123
        return stat.read().rpartition(")")[2].split()[0] == "T"
