"""Tables and boards: shared records by index. A table holds counters of one writer; a board's lines are seqlocked."""

from typing import Self

import numpy as np

from shm import segment
from shm._shim import ffi, lib
from shm.layout import LINE_BYTES, schema_of
from shm.segment import Geometry, Memory, Segment


class Table:
    """`capacity` records of `dtype` in shared memory. `records` is the record array; the first 8 bytes of a board line are its version."""

    kind = lib.TP_KIND_TABLE

    def __init__(self, shared: Segment, dtype: np.dtype) -> None:
        self.segment = shared
        self.records = shared.view(dtype)

    @classmethod
    def create(
        cls,
        name: str,
        dtype: np.dtype,
        capacity: int = 1,
        *,
        build_hash: int = 0,
        mode: int = 0o600,
        group: str | int | None = None,
        memory: Memory | None = None,
    ) -> Self:
        """Create `capacity` zeroed records. ValueError for a dtype that is not whole cache lines; SegmentError as shm.segment.create."""
        if dtype.itemsize % LINE_BYTES:
            raise ValueError(f"record of bytes={dtype.itemsize}: expected a multiple of {LINE_BYTES}")
        geometry = Geometry(name, cls.kind, capacity, dtype.itemsize, schema_of(record=dtype), build_hash)
        return cls(segment.create(geometry, mode=mode, group=group, memory=memory), dtype)

    @classmethod
    def attach(cls, name: str, dtype: np.dtype, *, build_hash: int = 0, writable: bool = True) -> Self:
        """Attach to a table of records of `dtype` that another process created. SegmentError names what does not fit."""
        return cls(segment.attach(name, cls.kind, schema_of(record=dtype), build_hash=build_hash, writable=writable), dtype)

    def detach(self) -> None:
        del self.records
        self.segment.detach()

    def unlink(self) -> None:
        """Remove the name; whoever is attached keeps what is mapped. Call it before `detach`."""
        self.segment.unlink()

    def words(self) -> np.ndarray:
        """The records as int64 words, shape (capacity, words per record)."""
        return self.segment.words().reshape(self.segment.geometry.capacity, -1)


class Board(Table):
    """A table of the latest values: each line is read whole or not at all, and its writer waits for nobody. One writer a line.

    Kernels write between board_open and board_close and read with board_read (shm/hot.py); plain Python calls write and read.
    """

    kind = lib.TP_KIND_BOARD

    def write(self, key: int, record: np.void) -> None:
        """Overwrite line `key` with a record of the board's size, whose version is not looked at. ValueError for another size."""
        raw = record.tobytes()
        if len(raw) != self.records.itemsize:
            raise ValueError(f"record of bytes={len(raw)}: expected {self.records.itemsize}")
        lib.tp_face_board_write(self._line(key), raw, len(raw))

    def read(self, key: int) -> np.void | None:
        """A copy of line `key`, its version (even, 2 more for each write) first. None: never written, or its writer died in the middle."""
        copy = np.zeros(1, self.records.dtype)
        found = lib.tp_face_board_read(self._line(key), ffi.from_buffer(copy), copy.nbytes)
        return copy[0] if found else None

    def _line(self, key: int) -> int:
        """The address of a line."""
        if not 0 <= key < len(self.records):
            raise IndexError(f"key={key}: expected 0 to {len(self.records) - 1}")
        return int(self.records.ctypes.data) + key * int(self.records.itemsize)
