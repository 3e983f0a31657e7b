"""Work in a forked process that has mounts, or a network, of its own, so that a test may change there what it likes. Takes root."""

import ctypes
import os
import subprocess
import sys
import traceback
from collections.abc import Callable

import pytest

CLONE_NEWNS = 0x00020000
CLONE_NEWNET = 0x40000000
NOT_ALLOWED = 77


def in_private_mounts(*mounts: str, work: Callable[[], object]) -> None:
    """Do the shell commands `mounts`, then `work`, in a child of its own mounts.

    The test fails where `work` does, with what it said, and is skipped where mounting may not be done.
    """
    _in_a_child(CLONE_NEWNS, ("mount --make-rprivate /", *mounts), work)


def in_a_private_network(*commands: str, work: Callable[[], object]) -> None:
    """The same in a child of its own network, which has a loopback interface and nothing else."""
    _in_a_child(CLONE_NEWNET, ("ip link set lo up multicast on", *commands), work)


def _in_a_child(own: int, commands: tuple[str, ...], work: Callable[[], object]) -> None:
    if os.geteuid() != 0:
        pytest.skip("mounts and networks of its own take root")
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        os._exit(_child(own, commands, work))
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    if code == NOT_ALLOWED:
        pytest.skip(f"this machine does not let a test do: {'; '.join(commands)}")
    assert code == 0, f"the child process ended with {code}; what it said is above"


def _child(own: int, commands: tuple[str, ...], work: Callable[[], object]) -> int:
    try:
        if ctypes.CDLL(None).unshare(own) != 0:
            return NOT_ALLOWED
        for command in commands:
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
