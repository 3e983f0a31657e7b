"""Tables and boards: shared records by index. A table holds counters of one writer; a board's lines are seqlocked."""

from typing import Self

import numpy as np

from shm import segment
from shm._shim import lib
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
    """A table whose lines are written between board_open and board_close and read with board_read (shm/hot.py)."""

    kind = lib.TP_KIND_BOARD
