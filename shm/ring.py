"""A ring in shared memory: one producer, gating readers it never laps, slots of one cache line each.

    ring = Ring.create("demo", capacity=4096, variants={"quote": QUOTE}, readers=["strategy"])
    out = ring.producer(QUOTE)                       # in the producing process
    into = Ring.attach("demo", ...).consumer("strategy", QUOTE)      # in the reading process

and in kernels: shm.hot.claim, commit, poll, advance, release. This file binds segments to arrays; it owns no loop.
"""

from bisect import bisect_left
from collections.abc import Sequence

import numpy as np

from shm import segment
from shm._shim import lib
from shm.hot import BLOCK_WORDS, LIMIT, LOCAL_WORDS, POSITION, PRODUCER_POSITION, READER_POSITION, Consumer, Producer
from shm.layout import LINE_BYTES, PRODUCER, READER, schema_of
from shm.segment import Geometry, Segment, SegmentError

# 4 MiB: room for a burst. One way it is as fast as any size; a round trip takes some 20 ns more than in a ring that fits
# a core's own L2 cache (16,384 slots where that is 1 MiB). perf/bench_ring.py has the table.
RECOMMENDED_CAPACITY = 65_536


def round_up_capacity(slots: int) -> int:
    """The smallest power of two that is at least `slots` and 2."""
    return 1 << max(1, (slots - 1).bit_length())


class Ring:
    """A ring of `capacity` slots, whose slots one or more record layouts (`variants`, by name) share."""

    def __init__(self, slots: Segment, cursors: Segment) -> None:
        self.slots = slots
        self.cursors = cursors
        self.capacity = slots.geometry.capacity
        blocks = cursors.words().reshape(-1, BLOCK_WORDS)
        self.producer_block = blocks[0]
        self.reader_blocks = blocks[1:]

    @classmethod
    def create(
        cls,
        name: str,
        capacity: int,
        variants: dict[str, np.dtype],
        readers: Sequence[str],
        *,
        build_hash: int = 0,
        first_position: int = 0,
    ) -> "Ring":
        """Create the ring and its cursors. Every name in `readers` gates the producer from the first message on.

        Raises ValueError for a capacity that is not a power of two of at least 2, a record that is not whole cache
        lines, or unusable reader names; SegmentError where memory cannot be had.
        """
        _check_shape(capacity, variants, readers)
        record_bytes = next(iter(variants.values())).itemsize
        # Readers are registered before the cursors can be attached to, and the cursors are whole before the slots have a name:
        # whoever attaches too early is told so, and never finds a ring that does not gate.
        schema = schema_of(**variants)
        cursors = segment.create(
            _cursor_geometry(name, len(readers), build_hash), prepare=lambda data: _register(data, readers, first_position)
        )
        try:
            slots = segment.create(Geometry(name, lib.TP_KIND_RING, capacity, record_bytes, schema, build_hash, len(readers)))
        except BaseException:
            cursors.detach()
            segment.unlink(cursors.name)
            raise
        return cls(slots, cursors)

    @classmethod
    def attach(cls, name: str, variants: dict[str, np.dtype], *, build_hash: int = 0) -> "Ring":
        """Attach to a ring that another process created. SegmentError names what does not fit."""
        slots = segment.attach(name, lib.TP_KIND_RING, schema_of(**variants), build_hash=build_hash)
        try:
            return cls(slots, _attach_cursors(name, slots.geometry.readers + 1, build_hash))
        except BaseException:
            slots.detach()
            raise

    def detach(self) -> None:
        del self.producer_block, self.reader_blocks
        self.slots.detach()
        self.cursors.detach()

    def unlink(self) -> None:
        """Remove both names; processes that are attached keep what they have mapped."""
        segment.unlink(self.slots.name)
        segment.unlink(self.cursors.name)

    def view(self, dtype: np.dtype) -> np.recarray:
        """All slots as records of `dtype`, shape (capacity,)."""
        if dtype.itemsize != self.slots.geometry.record_bytes:
            raise ValueError(f"dtype of bytes={dtype.itemsize}, expected {self.slots.geometry.record_bytes}")
        return self.slots.view(dtype)

    def producer(self, dtype: np.dtype) -> Producer:
        """The writing end. A ring has one producer; it continues where the slots show that the last one stopped."""
        local = _private_line()
        local[POSITION] = self.position()
        local[LIMIT] = local[POSITION]
        return Producer(self.view(dtype), self.reader_blocks, self.producer_block, local)

    def consumer(self, reader: str, dtype: np.dtype) -> Consumer:
        """The end of gating reader `reader`, at the position it last gave back. ValueError for a name not registered."""
        names = self.reader_names()
        if reader not in names:
            raise ValueError(f"reader={reader!r} of ring {self.slots.name}: expected one of {names}")
        block = self.reader_blocks[names.index(reader)]
        local = _private_line()
        local[POSITION] = block[READER_POSITION]
        return Consumer(self.view(dtype), block, local)

    def reader_names(self) -> list[str]:
        return [bytes(reader["name"]).rstrip(b"\0").decode() for reader in self._readers()]

    def position(self) -> int:
        """How many messages have been published, modulo 2^64: found from the slots, since the cursor trails by up to a lap.

        Exact while the producer is idle or dead. It looks at one slot for each doubling of the capacity, so a watcher
        does not take the ring's lines away from the processes that trade on it.
        """
        start = int(self.producer_block[PRODUCER_POSITION])
        sequences = self.slots.view(np.dtype(np.int64)).reshape(self.capacity, -1)[:, 0]

        def unpublished(ahead: int) -> bool:
            position = _wrapped(start + ahead)
            return int(sequences[position & (self.capacity - 1)]) != _wrapped(position + 1)

        return _wrapped(start + bisect_left(range(self.capacity), True, key=unpublished))

    def backlog(self) -> dict[str, int]:
        """Messages that each gating reader has yet to give back."""
        positions = [int(block[READER_POSITION]) for block in self.reader_blocks]
        position = self.position()
        return {name: _wrapped(position - at) for name, at in zip(self.reader_names(), positions, strict=True)}

    def _readers(self) -> np.ndarray:
        return self.cursors.data[PRODUCER.itemsize :].view(READER)


def cursor_name(ring: str) -> str:
    return f"{ring}.cursors"


_CURSOR_SCHEMA = schema_of(producer=PRODUCER, reader=READER)


def _cursor_geometry(name: str, readers: int, build_hash: int) -> Geometry:
    return Geometry(cursor_name(name), lib.TP_KIND_CURSORS, readers + 1, READER.itemsize, _CURSOR_SCHEMA, build_hash, readers)


def _wrapped(position: int) -> int:
    """A position as the int64 that holds it: one past 2^63 - 1 is -2^63."""
    return (position + (1 << 63)) % (1 << 64) - (1 << 63)


def _attach_cursors(name: str, blocks: int, build_hash: int) -> Segment:
    cursors = segment.attach(cursor_name(name), lib.TP_KIND_CURSORS, _CURSOR_SCHEMA, build_hash=build_hash)
    if cursors.geometry.capacity != blocks:
        cursors.detach()
        raise SegmentError(f"segment={cursor_name(name)}: blocks={cursors.geometry.capacity}, expected {blocks}, as the ring has readers")
    return cursors


def _register(data: np.ndarray, readers: Sequence[str], first_position: int) -> None:
    """Fill a new cursor segment's payload: the producer and every reader stand at the first position."""
    data[: PRODUCER.itemsize].view(np.int64)[PRODUCER_POSITION] = first_position
    for record, name in zip(data[PRODUCER.itemsize :].view(READER), readers, strict=True):
        record["position"] = first_position
        record["name"][: len(name)] = np.frombuffer(name.encode(), np.uint8)
        record["mode"] = lib.TP_READER_GATING


def _private_line() -> np.ndarray:
    """A zeroed cache line of int64 words that no other allocation shares."""
    words = np.zeros(3 * LOCAL_WORDS, np.int64)
    offset = -(words.ctypes.data // 8) % LOCAL_WORDS
    return words[offset : offset + LOCAL_WORDS]


def _check_shape(capacity: int, variants: dict[str, np.dtype], readers: Sequence[str]) -> None:
    if capacity < 2 or capacity & (capacity - 1):
        raise ValueError(f"capacity={capacity}: expected a power of two, at least 2; the next one is {round_up_capacity(capacity)}")
    for variant, dtype in variants.items():
        if dtype.itemsize % LINE_BYTES:
            raise ValueError(f"variant={variant} of bytes={dtype.itemsize}: expected a multiple of {LINE_BYTES}")
    if len(readers) > lib.TP_READERS_MAX or len(set(readers)) != len(readers):
        raise ValueError(f"readers={list(readers)}: expected at most {lib.TP_READERS_MAX} different names")
    for name in readers:
        if not name.isascii() or not 0 < len(name) < READER["name"].itemsize:
            raise ValueError(f"reader={name!r}: expected 1 to {READER['name'].itemsize - 1} ASCII characters")
