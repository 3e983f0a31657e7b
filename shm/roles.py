"""Who holds an end of a ring: one process for each role, by a lock that the kernel frees when that process dies.

A role is locked on a descriptor of its own, which no other role and no mapping shares: the lock is free once that is closed, whoever
still has a view of the bytes. A process forked since then has neither the lock nor the role: take roles after a fork.
"""

import os
import weakref
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np

from shm import locks, segment
from shm._shim import lib
from shm.hot import EPOCH, LOCAL_WORDS, POSITION
from shm.layout import BLOCK_BYTES, READER
from shm.segment import Segment, SegmentError

# No role has this epoch: they are counted up from 0.
NO_EPOCH = -1

NAME_BYTES = READER["name"].itemsize
NAME_BYTES_MAX = NAME_BYTES - 1


class Role:
    """A locked block of a cursor segment: the producer's (block 0) or a reader's. A context manager; `close` gives the role back.

    Taking it makes a new epoch, so an end that somebody still holds from before finds out that it is no longer the one.
    """

    def __init__(self, cursors: Segment, block: int, record: np.dtype, title: str) -> None:
        self.title = title
        self.pid = os.getpid()
        self.cursors = cursors
        self.blocks = cursors.words().reshape(-1, BLOCK_BYTES // 8)
        self.words = self.blocks[block]
        self.record = self.words.view(record)[0]
        self.local = private_words(LOCAL_WORDS)
        lock_fd = cursors.open_fd()
        self._unlock = weakref.finalize(self, os.close, lock_fd)
        self._unlock.atexit = False
        if not locks.try_lock(lock_fd, role_byte(block)):
            owner = self.owner()
            self.close()
            raise SegmentError(f"{title} is taken by {owner}: there is one at a time; stop that one, or use another name")
        _HELD.add(self)

    def owner(self) -> str:
        """The process that has, or last had, this role."""
        return described(int(self.record["pid"]))

    def introduce(self) -> None:
        """Begin a new epoch under this process' name."""
        line = self.record
        line["pid"] = self.pid
        line["start"] = segment.process_start(self.pid)
        line["heartbeat"] = 0
        epoch = int(line["epoch"]) + 1
        line["epoch"] = unsigned(epoch)
        self.local[EPOCH] = wrapped(epoch)

    def beat(self) -> None:
        """A sign of life. Whoever gave one is told from one that hangs only as long as it gives more: within a second.

        Plain Python that pushes, polls or waits gives the next ones by itself.
        """
        self.record["heartbeat"] = lib.tp_rdtsc()

    @property
    def position(self) -> int:
        """The position of the next message, as an int64."""
        return int(self.local[POSITION])

    def retire(self) -> None:
        """An end that outlives its role, in a kernel's hands or a view's, finds that it has lost it."""
        self.local[EPOCH] = NO_EPOCH

    def close(self) -> None:
        """Give the role back: the kernel's lock goes with the descriptor."""
        if hasattr(self, "words"):
            self.retire()
            del self.blocks, self.words, self.record
            self.cursors.detach()
            self._unlock()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()


_HELD: "weakref.WeakSet[Role]" = weakref.WeakSet()


def _leave_roles_to_parent() -> None:
    """In a forked child: the parent has the roles, and once it is dead nobody does."""
    for role in _HELD:
        role.retire()
        role._unlock()


os.register_at_fork(after_in_child=_leave_roles_to_parent)


def role_byte(block: int) -> int:
    """The byte of the cursor file that the holder of a block locks: the block's first."""
    return int(lib.TP_DATA_OFFSET) + block * BLOCK_BYTES


def described(pid: int) -> str:
    """A process as `pid 123 (name)`."""
    try:
        return f"pid {pid} ({process_name(pid)})"
    except OSError:
        return f"pid {pid} (not to be seen from here)"


def process_name(pid: int) -> str:
    return Path(f"/proc/{pid}/comm").read_text().strip()


def private_words(count: int) -> np.ndarray:
    """`count` zeroed int64 words, beginning at a cache line, that share no line with another allocation."""
    words = np.zeros(count + 2 * LOCAL_WORDS, np.int64)
    offset = -(words.ctypes.data // 8) % LOCAL_WORDS
    return words[offset : offset + count]


def encoded(name: str) -> np.ndarray:
    """A name as the bytes of a block: at most NAME_BYTES_MAX, zero-filled."""
    raw = name.encode("ascii", "replace")[:NAME_BYTES_MAX]
    return np.frombuffer(raw.ljust(NAME_BYTES, b"\0"), np.uint8)


def decoded(name: np.ndarray) -> str:
    return bytes(name).partition(b"\0")[0].decode("ascii", "replace")


def wrapped(position: int) -> int:
    """A position as the int64 that holds it: one past 2^63 - 1 is -2^63."""
    return (position + (1 << 63)) % (1 << 64) - (1 << 63)


def unsigned(position: int) -> int:
    """A position as the uint64 that holds it."""
    return position % (1 << 64)
