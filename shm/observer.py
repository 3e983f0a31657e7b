"""An observer's end of a ring: it sees everything, is never waited for, and is told what it missed."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from shm.hot import (
    BLOCK_WORDS,
    EPOCH,
    LOCAL_WORDS,
    LOST,
    POSITION,
    PRODUCER_EPOCH,
    PRODUCER_EPOCH_SEEN,
    READER_EPOCH,
    READER_POSITION,
    ObserverEnd,
)
from shm.layout import READER
from shm.roles import Role, private_words

if TYPE_CHECKING:
    from shm.ring import At, Ring


class Observer:
    """A watcher of a ring. `end` is what kernels observe on.

    Without a block it maps everything read-only, holds no role, and anyone may be one. With a block it is a named observer, one
    process at a time: it can be seen in the ring's status, and goes on where it last called `release`.
    """

    end: ObserverEnd

    def __init__(self, ring: "Ring", dtype: np.dtype, at: "At | None" = None, block: int | None = None) -> None:
        self.ring = ring
        self.role = Role(ring.open_cursors(), block, READER, f"observer {ring.block_name(block)} of ring {ring.name}") if block else None
        if self.role is None:
            words, self.local = private_words(BLOCK_WORDS), private_words(LOCAL_WORDS)
            words[READER_EPOCH] = self.local[EPOCH]
        else:
            self.role.introduce()
            words, self.local = self.role.words, self.role.local
            self.local[LOST] = self.role.record["lost"]
        if at is None and self.role is not None:
            self.local[POSITION] = words[READER_POSITION]
        else:
            newest = ring.position()
            oldest = ring.oldest_after(newest - ring.capacity + ring.headroom)
            self.local[POSITION] = ring.between(oldest, "newest" if at is None else at, newest, exact=True)
        producer = ring.blocks[0]
        self.local[PRODUCER_EPOCH_SEEN] = producer[PRODUCER_EPOCH]
        self.end = ObserverEnd(ring.slots.view(dtype), producer, words, self.local)

    def close(self) -> None:
        if hasattr(self, "end"):
            del self.end
        if self.role is not None:
            self.role.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
