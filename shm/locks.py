"""Who is alive, answered by the kernel: an open file description lock on one byte of a segment's file.

The kernel frees the lock when the last descriptor of the description is closed, so when its process dies, however it dies. It costs
nothing while it is held. The bytes are not read or written: a lock on byte 0 is a lock on a number.

The lock belongs to the open file description and not to the process. `fork` and `dup` share the description: a child that inherits
the descriptor holds the same lock, can free it for its parent, and keeps it while the parent is dead. That is right for a segment's
life (a supervisor's forked children are attached too) and wrong for a role: whoever takes a role takes it after the fork, on a
descriptor that it opened itself (`shm.segment.open_fd`).
"""

import errno
import fcntl
import os
import struct

_FLOCK = "hhqqi4x"


def try_lock(fd: int, byte: int, *, shared: bool = False) -> bool:
    """Lock `byte` of the file: for writing, against everyone, or `shared`, against writers only. False where another holds it.

    A lock that this description holds already is replaced: shared becomes exclusive, or the reverse. Never waits. OSError where
    the descriptor is not open for it (a write lock takes one open for writing).
    """
    kind = fcntl.F_RDLCK if shared else fcntl.F_WRLCK
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _one_byte(kind, byte))
    except OSError as error:
        if error.errno in (errno.EAGAIN, errno.EACCES):
            return False
        raise
    return True


def unlock(fd: int, byte: int) -> None:
    """Free `byte`, for every process that shares this description. No error where it was not locked."""
    fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _one_byte(fcntl.F_UNLCK, byte))


def is_locked(fd: int, byte: int) -> bool:
    """Whether another description holds `byte`, shared or not: whether a write lock would be refused. Takes nothing.

    A lock that this description holds itself is not seen.
    """
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _one_byte(fcntl.F_WRLCK, byte))
    return int(struct.unpack(_FLOCK, answer)[0]) != fcntl.F_UNLCK


def _one_byte(kind: int, byte: int) -> bytes:
    # The last word, the pid, must be zero for a lock of a description.
    return struct.pack(_FLOCK, kind, os.SEEK_SET, byte, 1, 0)
