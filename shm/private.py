"""Rings and tables in this process's own memory: the same ends, roles and locks, with no name that anyone else could attach to.

For simulations and tests, where producer and readers are one process.
"""

import os
import weakref
from collections.abc import Sequence

import numpy as np

from shm._shim import lib
from shm.layout import LINE_BYTES, READER, schema_of
from shm.memory import Memory
from shm.ring import Ring, mark_slots, register_blocks
from shm.segment import Geometry, Segment
from shm.table import Table


class PrivateSegment(Segment):
    """A segment's payload, a line-aligned array of bytes. The descriptor is of an empty file that roles are locked on."""

    def __init__(self, geometry: Geometry, data: np.ndarray, fd: int, *, writable: bool = True) -> None:
        self.geometry = geometry
        self.data = data.view()
        self.data.flags.writeable = writable
        self.writable = writable
        self.fd = fd
        self.memory = Memory()
        self._close = weakref.finalize(self, os.close, fd)

    @classmethod
    def of(cls, geometry: Geometry) -> "PrivateSegment":
        size = geometry.capacity * geometry.record_bytes
        room = np.zeros(size + LINE_BYTES, np.uint8)
        start = -room.ctypes.data % LINE_BYTES
        return cls(geometry, room[start : start + size], os.memfd_create(geometry.name))

    def again(self, *, writable: bool = True) -> "PrivateSegment":
        """The same bytes, under a descriptor that shares no lock with this one."""
        fd = os.open(f"/proc/self/fd/{self.fd}", os.O_RDWR | os.O_CLOEXEC)
        return PrivateSegment(self.geometry, self.data, fd, writable=writable)

    def detach(self) -> None:
        del self.data
        self._close()


class PrivateTable(Table):
    """A table of this process alone."""

    def __init__(self, dtype: np.dtype, capacity: int = 1) -> None:
        geometry = Geometry("private", lib.TP_KIND_TABLE, capacity, dtype.itemsize, schema_of(record=dtype))
        super().__init__(PrivateSegment.of(geometry), dtype)


class PrivateRing(Ring):
    """A ring of this process alone."""

    def __init__(self, capacity: int, variants: dict[str, np.dtype], readers: Sequence[str]) -> None:
        record_bytes = next(iter(variants.values())).itemsize
        blocks = len(readers)
        self._slots = PrivateSegment.of(Geometry("private", lib.TP_KIND_RING, capacity, record_bytes, schema_of(**variants), 0, blocks))
        self._cursors = PrivateSegment.of(Geometry("private", lib.TP_KIND_CURSORS, blocks + 1, READER.itemsize, "", 0, blocks))
        register_blocks(self._cursors.data, readers, (), 0)
        mark_slots(self._slots.data, capacity, 0)
        super().__init__(self._slots.again(writable=False), self._cursors)

    def open_cursors(self) -> Segment:
        return self._cursors.again()

    def open_slots(self) -> Segment:
        return self._slots.again()
