"""An observer's end of a ring: it sees everything, is never waited for, and is told what it missed."""

from types import TracebackType
from typing import TYPE_CHECKING, Self

import numpy as np

from shm._shim import lib
from shm.face import Face
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
from shm.reading import Reading
from shm.roles import Role, private_words, wrapped

if TYPE_CHECKING:
    from shm.ring import At, Ring


class Observer(Reading):
    """A watcher of a ring. `end` is what kernels observe on; plain Python polls here (Reading).

    It is never waited for. Where it was too slow it goes on a quarter of the ring ahead of what is overwritten next: `lost_now` messages
    from `lost_from` on are missing just before the (first) one that the last call returned, `lost` in all. Batches end at such a gap.

    Without a block it maps everything read-only, holds no role, and anyone may be one. With a block it is a named observer, one
    process at a time: it can be seen in the ring's status, and goes on where it last called `release`.
    """

    end: ObserverEnd

    def __init__(self, ring: "Ring", dtype: np.dtype, at: "At | None" = None, block: int | None = None) -> None:
        self.role = Role(ring.open_cursors(), block, READER, f"observer {ring.block_name(block)} of ring {ring.name}") if block else None
        try:
            self._begin(ring, dtype, at)
        except BaseException:
            self.close()
            raise

    def _begin(self, ring: "Ring", dtype: np.dtype, at: "At | None") -> None:
        if self.role is None:
            words, self.local = private_words(BLOCK_WORDS), private_words(LOCAL_WORDS)
            words[READER_EPOCH] = self.local[EPOCH]
        else:
            self.role.introduce()
            words, self.local = self.role.words, self.role.local
            self.local[LOST] = wrapped(int(self.role.record["lost"]))
        if at is None and self.role is not None:
            self.local[POSITION] = words[READER_POSITION]
        else:
            newest = ring.position()
            oldest = ring.oldest_after(newest - ring.capacity + ring.headroom)
            self.local[POSITION] = ring.between(oldest, "newest" if at is None else at, newest, exact=True)
        producer = ring.blocks[0]
        self.local[PRODUCER_EPOCH_SEEN] = producer[PRODUCER_EPOCH]
        self.end = ObserverEnd(ring.slots.view(dtype), producer, words, self.local)
        title = self.role.title if self.role else f"observer of ring {ring.name}"
        self._open_face(Face(self.end, lib.TP_FACE_OBSERVES, dtype, title))

    def close(self) -> None:
        if hasattr(self, "_face"):
            self._face.close()
        if hasattr(self, "end"):
            del self.end
        if self.role is not None:
            self.role.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
