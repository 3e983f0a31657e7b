"""Work in a forked process that has mounts of its own, so that a test may mount and fill what it likes. Takes root."""

import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

CLONE_NEWNS = 0x00020000
NOT_ALLOWED = 77


def in_private_mounts(*mounts: str, work: Callable[[], object]) -> None:
    """Do the shell commands `mounts`, then `work`, in a child of its own mounts.

    The test fails where `work` does, with what it said, and is skipped where mounting may not be done.
    """
    if os.geteuid() != 0:
        pytest.skip("mounts of its own take root")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(mounts, work))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == NOT_ALLOWED:
        pytest.skip(f"this machine does not let a test do: {'; '.join(mounts)}")
    assert code == 0, f"the process with mounts of its own ended with {code}; what it said is above"


def _child(mounts: tuple[str, ...], work: Callable[[], object]) -> int:
    try:
        if ctypes.CDLL(None).unshare(CLONE_NEWNS) != 0:
            return NOT_ALLOWED
        for command in ("mount --make-rprivate /", *mounts):
            if subprocess.run(["sh", "-c", command], capture_output=True).returncode != 0:
                return NOT_ALLOWED
        work()
    except BaseException:
        traceback.print_exc()
        return 1
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
    return 0
