"""A gating reader's end of a ring, as a role that one process holds: the producer never laps it."""

from typing import TYPE_CHECKING

import numpy as np

from shm._shim import lib
from shm.face import Face
from shm.hot import EPOCH, LOST, LOST_FROM, LOST_NOW, POSITION, PRODUCER_EPOCH, PRODUCER_EPOCH_SEEN, READER_POSITION, ConsumerEnd
from shm.layout import READER
from shm.reading import Reading
from shm.roles import Role, decoded, encoded, unsigned, wrapped
from shm.segment import SegmentError

if TYPE_CHECKING:
    from shm.ring import At, Ring

# What the block of a gating reader may say: it gates, was let go when it was found dead, or is about to gate.
GATING_MODES = (lib.TP_READER_GATING, lib.TP_READER_EVICTED, lib.TP_READER_JOINING)


class Consumer(Reading, Role):
    """The one holder of a gating reader's block. `end` is what kernels poll, advance and release on; plain Python polls here (Reading).

    It goes on at the position it last released: what was read but not released comes again (at least once). A reader that was let
    go while its process was dead goes on at the oldest message still there, and what it missed is in `lost`. SegmentError, naming
    the owner, where another process is that reader.
    """

    end: ConsumerEnd

    def __init__(self, ring: "Ring", block: int, dtype: np.dtype, name: str, at: "At | None" = None) -> None:
        super().__init__(ring.open_cursors(), block, READER, f"reader {name} of ring {ring.name}")
        try:
            self._check_block(name, fresh=at is not None)
            self.introduce()
            if self.record["mode"] == lib.TP_READER_GATING:
                self.local[POSITION] = self.words[READER_POSITION]
                self.local[LOST] = wrapped(int(self.record["lost"]))
            else:
                self._prepare_join(ring, at, name)
                self._join(ring, counts=not isinstance(at, str))
            producer = self.blocks[0]
            self.local[PRODUCER_EPOCH_SEEN] = producer[PRODUCER_EPOCH]
            self.end = ConsumerEnd(ring.slots.view(dtype), producer, self.words, self.local)
            self._open_face(Face(self.end, lib.TP_FACE_GATES, dtype, self.title))
        except BaseException:
            self.close()
            raise

    def _check_block(self, name: str, *, fresh: bool) -> None:
        """The block was found before it was locked: what it stands for is looked at again."""
        mode, found = int(self.record["mode"]), decoded(self.record["name"])
        if (fresh and mode == lib.TP_READER_ABSENT) or (found == name and mode in GATING_MODES):
            return
        raise SegmentError(f"{self.title}: its block changed hands this moment; try again")

    def _prepare_join(self, ring: "Ring", at: "At | None", name: str) -> None:
        """Write down where this reader means to begin, so that a join that dies half way can be done again by the next one."""
        if at is not None:
            newest = ring.position()
            self.record["lost"] = 0
            self.words[READER_POSITION] = ring.between(ring.oldest_after(newest - ring.capacity), at, newest, exact=True)
            self.record["name"] = encoded(name)
        elif self.record["mode"] == lib.TP_READER_JOINING:
            return
        self.record["base"] = unsigned(int(self.record["lost"]) - int(self.words[READER_POSITION]))

    def _join(self, ring: "Ring", *, counts: bool) -> None:
        """Begin to gate while the producer runs, where this reader stands or as near to it as is still there."""
        stood = int(self.words[READER_POSITION])
        limit = lib.tp_face_join(self.blocks[0].ctypes.data, self.words.ctypes.data)
        oldest, newest = ring.oldest_after(wrapped(limit - ring.capacity)), ring.position()
        position = ring.between(oldest, stood, newest)
        # The same sum however often a join was begun: what is counted twice in a crash is not a count.
        lost = unsigned(int(self.record["base"]) + position) if counts else 0
        self.local[LOST_FROM], self.local[LOST_NOW], self.local[LOST] = stood, wrapped(position - stood), wrapped(lost)
        self.record["lost"] = lost
        lib.tp_face_gate(self.words.ctypes.data, unsigned(position))
        self.local[POSITION] = position

    def close(self) -> None:
        """Give the role back. The ring still waits for this reader, so that it misses nothing; `leave` ends that too."""
        if hasattr(self, "_face"):
            self._face.close()
        if hasattr(self, "end"):
            del self.end
        super().close()

    def leave(self) -> None:
        """Give the role back, and its block too: the producer no longer waits for this reader. Not where another has the role by now."""
        if int(self.record["epoch"]) == int(self.local[EPOCH]):
            self.record["mode"] = lib.TP_READER_ABSENT
        self.close()
