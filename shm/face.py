"""What both ends have in common in plain Python: the struct that C works on, and whether this process may still use it.

A face shares `local` with the kernels' end of the same role, so a program may go from one to the other between two messages.
"""

import os
from typing import Any

import numpy as np

from shm._shim import ffi, lib
from shm.hot import LOST_FROM, LOST_NOW, ConsumerEnd, ObserverEnd, ProducerEnd
from shm.segment import SegmentError

# How long a wait in C lasts at most: the interpreter hears of Ctrl-C in between.
SLICE_S = 0.005
SLICE_NS = int(SLICE_S * 1e9)
# A wait spins for so long before it leaves the core to others, and sleeps at last.
SPIN_NS = 50_000
# Records that polled messages are put into, before new ones are needed.
ROWS = 64

EMPTY: int = lib.TP_FACE_EMPTY
REFUSED: int = lib.TP_FACE_REFUSED
USED_UP: int = lib.TP_FACE_USED_UP


class Face:
    """The struct tp_face of one end (shm/face.h), with the private records that messages go through."""

    def __init__(self, end: ProducerEnd | ConsumerEnd | ObserverEnd, kind: int, dtype: np.dtype, title: str) -> None:
        self.title = title
        self.pid = os.getpid()
        self.is_open = True
        self.dtype = dtype
        self.stage = np.zeros(1, dtype)
        # What a staged record holds but for its sequence, as bytes.
        self.payload = self.stage.view(np.uint8).data[8:]
        self.local = end.local
        self.struct = struct = ffi.new("struct tp_face *")
        struct.slots = end.slots.ctypes.data
        struct.capacity = end.slots.shape[0]
        struct.slot_bytes = dtype.itemsize
        struct.block = end.block.ctypes.data
        struct.local = end.local.ctypes.data
        struct.kind = kind
        struct.stage = self.stage.ctypes.data
        struct.spin_ns = SPIN_NS
        if isinstance(end, ProducerEnd):
            struct.readers = end.readers.ctypes.data
            struct.reader_count = end.readers.shape[0]
        else:
            struct.producer = end.producer.ctypes.data
            struct.pending = int(end.local[LOST_NOW]) if kind == lib.TP_FACE_GATES else 0
            struct.pending_from = int(end.local[LOST_FROM]) % (1 << 64)

    def new_rows(self) -> np.ndarray:
        """Records for the next messages that are polled."""
        rows = np.empty(ROWS, self.dtype)
        self.struct.rows, self.struct.row_count, self.struct.row = rows.ctypes.data, ROWS, 0
        return rows

    def close(self) -> None:
        """Nothing in shared memory is touched after this, whoever still calls."""
        self.is_open = False
        lib.tp_face_close(self.struct)

    def check(self) -> None:
        """SegmentError where this process does not have, or no longer has, the role."""
        if not self.is_open:
            raise SegmentError(f"{self.title}: closed; take the role again")
        if os.getpid() != self.pid:
            raise SegmentError(f"{self.title}: pid={os.getpid()} was forked from {self.pid}, which has the role; take it after the fork")
        if lib.tp_face_is_fenced(self.struct):
            raise SegmentError(f"{self.title}: another process has taken the role since, or this one was let go; take it again")


def rows_of(array: np.ndarray, record_bytes: int, *, writable: bool) -> tuple[Any, int]:
    """The bytes of an array of records, and the size of one: a whole record, or one without its sequence. ValueError for others."""
    row_bytes = array.nbytes // len(array) if len(array) else record_bytes
    fits = row_bytes in (record_bytes, record_bytes - 8)
    if not fits or not array.flags.c_contiguous or (writable and not array.flags.writeable):
        raise ValueError(
            f"array={array.dtype} of bytes={row_bytes}: expected records of {record_bytes} bytes, or {record_bytes - 8} without the "
            f"sequence, contiguous{' and writable' if writable else ''}"
        )
    return ffi.from_buffer(array, require_writable=writable), row_bytes
