"""A gating reader's end of a ring, as a role that one process holds: the producer never laps it."""

from typing import TYPE_CHECKING

import numpy as np

from shm._shim import lib
from shm.hot import LOST, LOST_FROM, LOST_NOW, POSITION, PRODUCER_EPOCH, PRODUCER_EPOCH_SEEN, READER_POSITION, ConsumerEnd
from shm.layout import READER
from shm.roles import Role, encoded, unsigned, wrapped

if TYPE_CHECKING:
    from shm.ring import At, Ring


class Consumer(Role):
    """The one holder of a gating reader's block. `end` is what kernels poll, advance and release on.

    It goes on at the position it last released: what was read but not released comes again (at least once). A reader that was let
    go while its process was dead goes on at the oldest message still there, and what it missed is in `lost`. SegmentError, naming
    the owner, where another process is that reader.
    """

    end: ConsumerEnd

    def __init__(self, ring: "Ring", block: int, dtype: np.dtype, at: "At | None" = None, name: str = "") -> None:
        super().__init__(ring.open_cursors(), block, READER, f"reader {name or ring.block_name(block)} of ring {ring.name}")
        self.introduce()
        if name:
            self.record["name"] = encoded(name)
        self.local[LOST] = self.record["lost"]
        if self.record["mode"] == lib.TP_READER_GATING:
            self.local[POSITION] = self.words[READER_POSITION]
        else:
            self._join(ring, at)
        producer = self.blocks[0]
        self.local[PRODUCER_EPOCH_SEEN] = producer[PRODUCER_EPOCH]
        self.end = ConsumerEnd(ring.slots.view(dtype), producer, self.words, self.local)

    def _join(self, ring: "Ring", at: "At | None") -> None:
        """Begin to gate while the producer runs, at `at`, or as near to it as is still there; None: where this reader once stood."""
        stood = int(self.words[READER_POSITION])
        limit = lib.tp_face_join(self.blocks[0].ctypes.data, self.words.ctypes.data)
        oldest, newest = ring.oldest_after(wrapped(limit - ring.capacity)), ring.position()
        position = ring.between(oldest, stood if at is None else at, newest)
        if at is None:
            self.local[LOST_FROM] = stood
            self.local[LOST_NOW] = missed = wrapped(position - stood)
            self.local[LOST] += missed
            self.record["lost"] = self.local[LOST]
        lib.tp_face_gate(self.words.ctypes.data, unsigned(position))
        self.local[POSITION] = position

    def close(self) -> None:
        """Give the role back. The ring still waits for this reader, so that it misses nothing; `leave` ends that too."""
        if hasattr(self, "end"):
            del self.end
        super().close()

    def leave(self) -> None:
        """Give the role back, and its block too: the producer no longer waits for this reader."""
        self.record["mode"] = lib.TP_READER_ABSENT
        self.close()
