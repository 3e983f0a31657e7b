"""The writing end of a ring, as a role that one process holds."""

from typing import TYPE_CHECKING

import numpy as np

from shm import locks
from shm._shim import lib
from shm.hot import BLOCK_WORDS, DROPPED, LIMIT, POSITION, PRODUCER_POSITION, WAITS, ProducerEnd
from shm.layout import PRODUCER, READER
from shm.roles import Role, decoded, encoded, process_name, role_byte

if TYPE_CHECKING:
    from shm.ring import Ring

_WAITED_FOR = (lib.TP_READER_GATING, lib.TP_READER_JOINING)


class Producer(Role):
    """The one producer of a ring. `end` is what kernels claim and commit on.

    It goes on where the slots show that the last one stopped: what that one had published is there once, and a slot it had only
    begun is written again. SegmentError, naming the owner, where another process is the producer.
    """

    end: ProducerEnd

    def __init__(self, ring: "Ring", dtype: np.dtype) -> None:
        super().__init__(ring.open_cursors(), 0, PRODUCER, f"producer of ring {ring.name}")
        try:
            self.slots = ring.open_slots()
            slots = self.slots.view(dtype)
        except BaseException:
            super().close()
            raise
        self.record["name"] = encoded(process_name(self.pid))
        self.introduce()
        self.local[POSITION] = self.local[LIMIT] = ring.published_to(int(self.words[PRODUCER_POSITION]))
        self.local[WAITS] = self.record["waits"]
        self.local[DROPPED] = self.record["dropped"]
        self.end = ProducerEnd(slots, self.cursors.words().reshape(-1, BLOCK_WORDS)[1:], self.words, self.local)

    def evict_dead(self) -> list[str]:
        """Let go of every gating reader whose process is dead, and return their names. For a ring that is full.

        Its lock is held while it is let go, so a reader that returns at that moment comes before or after, never in between. One
        that merely hangs still holds its lock, may still be inside a slot, and is left alone.
        """
        gone = []
        readers = self.cursors.data[PRODUCER.itemsize :].view(READER)
        for number, reader in enumerate(readers):
            byte = role_byte(1 + number)
            if reader["mode"] not in _WAITED_FOR or not locks.try_lock(self.cursors.fd, byte):
                continue
            try:
                if reader["mode"] in _WAITED_FOR:
                    reader["epoch"] += 1
                    reader["mode"] = lib.TP_READER_EVICTED
                    self.record["evicted"] += 1
                    gone.append(decoded(reader["name"]))
            finally:
                locks.unlock(self.cursors.fd, byte)
        return gone

    def close(self) -> None:
        """Give the role back; what was published stays readable."""
        if hasattr(self, "end"):
            del self.end
            self.slots.detach()
        super().close()
