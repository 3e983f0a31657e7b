"""How plain Python reads a ring: what a Consumer and an Observer have in common."""

import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from shm._shim import lib
from shm.face import EMPTY, REFUSED, SLICE_NS, USED_UP, Face, rows_of
from shm.hot import LOST, ConsumerEnd, ObserverEnd
from shm.segment import SegmentError

_poll = lib.tp_face_poll
_poll_stage = lib.tp_face_poll_stage
_poll_many = lib.tp_face_poll_many
_poll_within = lib.tp_face_poll_within
_poll_stage_within = lib.tp_face_poll_stage_within
_await = lib.tp_face_await


class Reading:
    """Messages of a ring as numpy records, as bytes, or by the array.

    What a call returns is the caller's: nothing overwrites it. The next call gives it back to the producer, as does `release`; whoever
    dies in between is given it again at the next start (at least once). `timeout` is in seconds: 0 looks once, None waits until the end
    is closed. A wait spins for a moment, then sleeps a little between looks; it leaves the GIL to others and hears Ctrl-C.

    Every call raises SegmentError where this process no longer has the role, or never had it, being a child forked from its holder.
    """

    end: ConsumerEnd | ObserverEnd
    _face: Face

    def _open_face(self, face: Face) -> None:
        self._face = face
        self._struct = face.struct
        self._payload = face.payload
        self._rows = face.new_rows()

    def poll(self, timeout: float | None = 0) -> np.void | None:
        """The next message as a record of the ring's dtype, or None."""
        row = _poll(self._struct)
        if row >= 0:
            return self._rows[row]
        if row == EMPTY and timeout == 0:
            return None
        return self._poll_on(row, timeout)

    def poll_bytes(self, timeout: float | None = 0) -> bytes | None:
        """The next message's payload (record bytes - 8), or None."""
        got = _poll_stage(self._struct)
        if got < 0 and (got != EMPTY or timeout != 0):
            got = self._ask(_poll_stage_within, timeout)
        return self._payload.tobytes() if got >= 0 else None

    def poll_many(self, array: np.ndarray, timeout: float | None = 0) -> int:
        """Fill `array` with the messages there are, oldest first, and return how many. One call into C for all of them.

        `array` is contiguous, of records of the ring's size or of that less 8 (no sequence). ValueError for anything else.
        """
        rows, row_bytes = rows_of(array, self._struct.slot_bytes, writable=True)
        count = len(array)
        done = _poll_many(self._struct, rows, row_bytes, count)
        if done == REFUSED or (done == 0 and count and timeout != 0 and self._ask(_await, timeout) != EMPTY):
            self._face.check()
            done = _poll_many(self._struct, rows, row_bytes, count)
        return done

    def messages(self, timeout: float | None = None) -> Iterator[np.void]:
        """Message after message, until none has come for `timeout` seconds, or the end is closed."""
        self._face.check()
        # Should another thread close this end: what C looks at stays mapped for as long as this iterator is.
        end, struct = self.end, self._struct
        while end:
            row = _poll(struct)
            message = self._rows[row] if row >= 0 else self._next(row, timeout)
            if message is None:
                return
            yield message

    def release(self) -> None:
        """Give back what was read so far: the producer may overwrite it, and it does not come again."""
        if not lib.tp_face_release(self._struct):
            self._face.check()

    def conflate(self) -> int:
        """Leave all but the newest message unread, and return how many that were. They count as lost."""
        self._face.check()
        return int(lib.tp_face_conflate(self._struct))

    def restarts(self) -> int:
        """How many times a producer has taken the ring over since this was asked last. To be asked when idle."""
        self._face.check()
        return int(lib.tp_face_restarts(self._struct))

    @property
    def backlog(self) -> int:
        """Messages published and not yet read."""
        self._face.check()
        return int(lib.tp_face_backlog(self._struct))

    @property
    def lost(self) -> int:
        """Messages that this reader never got, in all."""
        return int(self._face.local[LOST])

    @property
    def lost_now(self) -> int:
        """Messages missing just before the (first) one that the last call returned; 0 where it returned none."""
        return int(self._struct.lost_now)

    @property
    def lost_from(self) -> int:
        """The position of the first of the `lost_now` messages, modulo 2^64. A record's sequence is its position plus 1."""
        return int(self._struct.lost_from)

    @property
    def spin_s(self) -> float:
        """How long a wait spins before it begins to sleep. Spinning finds a message within 0.1 us, sleeping within some 100."""
        return self._struct.spin_ns / 1e9

    @spin_s.setter
    def spin_s(self, seconds: float) -> None:
        self._struct.spin_ns = min(int(seconds * 1e9), 1 << 62)

    def _ask(self, question: Callable[[Any, int], int], timeout: float | None) -> int:
        """What C answers within `timeout` seconds, or EMPTY. The interpreter sees to its signals every few milliseconds."""
        ends = None if timeout is None else time.monotonic() + timeout
        while True:
            left_ns = SLICE_NS if ends is None else max(0, min(SLICE_NS, int((ends - time.monotonic()) * 1e9)))
            answer = question(self._struct, left_ns)
            if answer == REFUSED:
                self._face.check()
            if answer != EMPTY or left_ns == 0:
                return answer

    def _poll_on(self, row: int, timeout: float | None) -> np.void | None:
        if row == USED_UP:
            self._rows = self._face.new_rows()
        row = self._ask(_poll_within, timeout)
        return self._rows[row] if row >= 0 else None

    def _next(self, row: int, timeout: float | None) -> np.void | None:
        try:
            return self._poll_on(row, timeout)
        except SegmentError:
            if self._face.is_open:
                raise
            return None
