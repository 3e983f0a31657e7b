"""The writing end of a ring, as a role that one process holds."""

import time
from typing import TYPE_CHECKING, Any

import numpy as np

from shm import locks
from shm._shim import lib
from shm.face import EMPTY, SLICE_NS, Face, rows_of
from shm.hot import BLOCK_WORDS, DROPPED, LIMIT, POSITION, PRODUCER_POSITION, WAITS, ProducerEnd
from shm.layout import PRODUCER, READER
from shm.roles import Role, decoded, encoded, process_name, role_byte, unsigned, wrapped

if TYPE_CHECKING:
    from shm.ring import Ring

# How long a push waits at a full ring that is not told otherwise.
PATIENCE_S = 1.0

_WHOLE = slice(None)
_push = lib.tp_face_push
_WAITED_FOR = (lib.TP_READER_GATING, lib.TP_READER_JOINING)


class Producer(Role):
    """The one producer of a ring. `end` is what kernels claim and commit on; plain Python calls push and push_many.

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
        self.local[POSITION] = self.local[LIMIT] = position = ring.published_to(int(self.words[PRODUCER_POSITION]))
        # A slot that the last one died in is this one's to write: its mark says that there was room for it.
        if int(self.slots.words().reshape(ring.capacity, -1)[position & (ring.capacity - 1), 0]) == position:
            self.local[LIMIT] = wrapped(position + 1)
        self.local[WAITS] = wrapped(int(self.record["waits"]))
        self.local[DROPPED] = wrapped(int(self.record["dropped"]))
        self.end = ProducerEnd(slots, self.cursors.words().reshape(-1, BLOCK_WORDS)[1:], self.words, self.local)
        self._face = Face(self.end, lib.TP_FACE_WRITES, dtype, self.title)
        self._struct = self._face.struct
        self._payload = self._face.payload
        self._payload_bytes = self._payload.nbytes
        self._when_full = ring.geometry.when_full
        # A record to fill field by field, private until it is pushed.
        self.draft: np.void = self._face.stage[0]

    def push(self, message: Any, timeout: float | None = PATIENCE_S) -> bool:
        """Publish a message: payload bytes (record bytes - 8), `draft`, or any numpy record of the ring's size. Its sequence is not used.

        False where the ring is full, by its own rule: "wait" for `timeout` seconds (None: until there is room), counted in waits;
        "drop" at once, counted; "evict" readers that are dead, else wait, then drop. ValueError for a message of another size;
        SegmentError where this process does not have, or no longer has, the role. Bytes, as struct.pack makes them, are quickest.
        """
        if type(message) is bytes and len(message) == self._payload_bytes:
            self._payload[_WHOLE] = message
        elif message is not self.draft:
            self._stage(message)
        return _push(self._struct) == 1 or self._push_staged(timeout)

    def push_many(self, array: np.ndarray, timeout: float | None = PATIENCE_S) -> int:
        """Publish the records of `array` in order, one call into C for as many as there is room for, and return how many.

        They are contiguous, of the ring's size or that less 8 (no sequence): ValueError for others. A full ring is treated as in `push`;
        "wait" waits until no room has come for `timeout` seconds.
        """
        rows, row_bytes = rows_of(array, self._struct.slot_bytes, writable=False)
        count = len(array)
        done = lib.tp_face_push_many(self._struct, rows, row_bytes, count)
        while done < count and self._make_room(timeout):
            done += lib.tp_face_push_many(self._struct, rows + done * row_bytes, row_bytes, count - done)
        self._give_up(count - done)
        return done

    def _push_staged(self, timeout: float | None) -> bool:
        """What push does where there was no room."""
        while self._make_room(timeout):
            if _push(self._struct) == 1:
                return True
        self._give_up(1)
        return False

    def _give_up(self, count: int) -> None:
        if count and self._when_full != lib.TP_WHEN_FULL_WAIT:
            lib.tp_face_drop(self._struct, count)

    def _make_room(self, timeout: float | None) -> bool:
        """At a full ring: whether there is room after all, by the ring's rule."""
        self._face.check()
        if self._when_full == lib.TP_WHEN_FULL_DROP:
            return False
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            if self._when_full == lib.TP_WHEN_FULL_EVICT:
                self.evict_dead()
            left_ns = SLICE_NS if ends is None else max(0, min(SLICE_NS, int((ends - time.monotonic()) * 1e9)))
            if lib.tp_face_await_room(self._struct, left_ns) != EMPTY:
                # Or the role is lost: the next attempt finds out.
                return True
            if left_ns == 0:
                return False

    def _stage(self, message: Any) -> None:
        """Put a message that is not plain bytes of the right size where C takes it from."""
        raw = message.tobytes() if isinstance(message, np.generic | np.ndarray) else bytes(memoryview(message))
        if len(raw) not in (self._payload_bytes, self._payload_bytes + 8):
            raise ValueError(f"message of bytes={len(raw)}: expected a payload of {self._payload_bytes}, or a record of 8 more")
        self._payload[_WHOLE] = raw[-self._payload_bytes :]

    def evict_dead(self) -> list[str]:
        """Let go of every gating reader that keeps the ring full and whose process is dead, and return their names.

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
                # Looked at again: it may have left, or released more and died since.
                if reader["mode"] in _WAITED_FOR and self._is_held_back_by(reader):
                    reader["epoch"] += 1
                    if reader["mode"] == lib.TP_READER_JOINING:
                        # It may have counted what it lost, and died before it stood behind it: the two words belong together again.
                        reader["lost"] = unsigned(int(reader["base"]) + int(reader["position"]))
                    reader["mode"] = lib.TP_READER_EVICTED
                    self.record["evicted"] += 1
                    gone.append(decoded(reader["name"]))
            finally:
                locks.unlock(self.cursors.fd, byte)
        return gone

    def retire(self) -> None:
        super().retire()
        # An end that outlives the role has no room left, and asks; its epoch is no longer this role's.
        self.local[LIMIT] = self.local[POSITION]

    def _is_held_back_by(self, reader: np.void) -> bool:
        behind = wrapped(self.position - int(reader["position"]))
        return bool(reader["mode"] == lib.TP_READER_JOINING) or behind >= len(self.end.slots)

    def close(self) -> None:
        """Give the role back; what was published stays readable."""
        if hasattr(self, "_face"):
            self._face.close()
        if hasattr(self, "end"):
            del self.end
            self.slots.detach()
        super().close()
