"""A ring in shared memory: one producer, readers it waits for, observers it does not, slots of whole cache lines.

    ring = Ring.create("demo", 4096, {"quote": QUOTE}, readers=["strategy"])      # once
    out = Ring.attach("demo").producer(QUOTE)                                     # in the producing process
    into = Ring.attach("demo").consumer("strategy", QUOTE)                        # in the reading process

Plain Python pushes and polls on `out` and `into`; kernels take `out.end` and `into.end` (shm.hot: claim, commit, poll, advance,
release); C takes shm/tickpath.h. A Ring itself maps everything read-only: only a role maps what it writes.
"""

import contextlib
import os
import time
from collections.abc import Iterator, Sequence
from dataclasses import replace
from typing import Literal, TypeVar

import numpy as np

from shm import locks, segment
from shm._shim import lib
from shm.consumer import GATING_MODES, Consumer
from shm.hot import BLOCK_WORDS, PRODUCER_LIMIT, PRODUCER_POSITION, READER_POSITION
from shm.layout import LINE_BYTES, PRODUCER, READER, Kinds, dtypes_of, schema_difference, schema_of
from shm.memory import Memory
from shm.observer import Observer
from shm.producer import Producer
from shm.roles import NAME_BYTES_MAX, decoded, encoded, role_byte, unsigned, wrapped
from shm.segment import Geometry, Segment, SegmentError

# 4 MiB: room for a burst. One way it is as fast as any size; a round trip takes some 20 ns more than in a ring that fits
# a core's own L2 cache (16,384 slots where that is 1 MiB). perf/bench_ring.py has the table.
RECOMMENDED_CAPACITY = 65_536

WhenFull = Literal["wait", "drop", "evict"]
WHEN_FULL: dict[str, int] = {"wait": lib.TP_WHEN_FULL_WAIT, "drop": lib.TP_WHEN_FULL_DROP, "evict": lib.TP_WHEN_FULL_EVICT}

# Where a reader begins that joins a running ring: at the next message, at the oldest still there, or at a position.
At = Literal["newest", "oldest"] | int

# The byte of the cursor file whose lock makes joining one at a time. No block begins there.
_JOIN_BYTE = 1
JOIN_PATIENCE_S = 5

Taken = TypeVar("Taken", Producer, Consumer, Observer)


def round_up_capacity(slots: int) -> int:
    """The smallest power of two that is at least `slots` and 2."""
    return 1 << max(1, (slots - 1).bit_length())


class Ring:
    """A ring of `capacity` slots, whose slots one or more record layouts (`variants`, by name) share."""

    def __init__(self, slots: Segment, cursors: Segment) -> None:
        self.slots = slots
        self.cursors = cursors
        # What was asked for: every role maps its own part of the ring, and a lock or huge pages are a mapping's.
        self.memory = slots.memory
        self.geometry = slots.geometry
        self.capacity = slots.geometry.capacity
        # How far from what is overwritten next an observer goes on after it was lapped.
        self.headroom = max(1, self.capacity // 4)
        self.blocks = cursors.words().reshape(-1, BLOCK_WORDS)
        self._roles: list[Producer | Consumer | Observer] = []

    @classmethod
    def create(
        cls,
        name: str,
        capacity: int,
        variants: dict[str, np.dtype],
        readers: Sequence[str] = (),
        *,
        observers: Sequence[str] = (),
        spare: int = 0,
        when_full: WhenFull = "wait",
        build_hash: int = 0,
        mode: int = 0o600,
        group: str | None = None,
        first_position: int = 0,
        memory: Memory | None = None,
        kinds: Kinds | None = None,
    ) -> "Ring":
        """Create the ring and its cursors.

        Every name in `readers` gates the producer from the first message on, its process there or not; `observers` have a block
        to be seen and resumed by; `spare` blocks are for readers that `join` later. `when_full` is what a producer does at a full
        ring. `kinds` names the field that tells the variants apart, for those who decode the ring from its schema. The file's
        `mode` is 0600, or 0660 with the `group` that shares it. `memory` is what it is made of, in this process and in the roles taken
        through this ring; whoever attaches asks for its own mappings.

        Raises ValueError for a capacity that is not a power of two of at least 2, a record that is not whole cache lines, or
        unusable names; SegmentError where memory cannot be had.
        """
        _check_shape(capacity, variants, [*readers, *observers], spare)
        if when_full not in WHEN_FULL:
            raise ValueError(f"when_full={when_full!r}: expected one of {', '.join(WHEN_FULL)}")
        memory = memory or Memory()
        blocks = len(readers) + len(observers) + spare
        first, created_ns = unsigned(first_position), time.time_ns()

        # The cursors are whole before the slots have a name: whoever attaches too early is told so, and never finds a ring that
        # does not gate.
        cursors = segment.create(
            Geometry(
                cursor_name(name),
                lib.TP_KIND_CURSORS,
                blocks + 1,
                READER.itemsize,
                _CURSOR_SCHEMA,
                build_hash,
                blocks,
                created_ns=created_ns,
            ),
            mode=mode,
            group=group,
            memory=cursor_memory(memory),
            prepare=lambda data: register_blocks(data, readers, observers, first),
        )
        try:
            slots = segment.create(
                Geometry(
                    name,
                    lib.TP_KIND_RING,
                    capacity,
                    next(iter(variants.values())).itemsize,
                    schema_of(kinds, **variants),
                    build_hash,
                    blocks,
                    first_position=first,
                    when_full=WHEN_FULL[when_full],
                    created_ns=created_ns,
                ),
                mode=mode,
                group=group,
                prepare=lambda data: mark_slots(data, capacity, first),
                memory=memory,
            )
        except BaseException:
            cursors.unlink()
            cursors.detach()
            raise
        try:
            return cls.attach(name, variants, build_hash=build_hash, memory=memory)
        finally:
            slots.detach()
            cursors.detach()

    @classmethod
    def attach(cls, name: str, variants: dict[str, np.dtype] | None = None, *, build_hash: int = 0, memory: Memory | None = None) -> "Ring":
        """Attach to a ring that exists. SegmentError names what does not fit. Without `variants` its own schema is believed.

        `memory` is asked of this process's mappings: a lock, transparent pages, and what `slots.placement` compares with.
        """
        slots = segment.attach(name, lib.TP_KIND_RING, build_hash=build_hash, writable=False, memory=memory)
        try:
            if variants is not None and (problem := schema_difference(slots.geometry.schema, schema_of(**variants))):
                raise SegmentError(f"segment={name}: schema differs: {problem}")
            return cls(slots, _attach_cursors(slots.geometry, slots.memory, writable=False))
        except BaseException:
            slots.detach()
            raise

    @property
    def name(self) -> str:
        return self.geometry.name

    @property
    def variants(self) -> dict[str, np.dtype]:
        """The record layouts of the ring, by name, as its schema describes them."""
        return dtypes_of(self.geometry.schema)

    def detach(self) -> None:
        """Close every role taken through this ring, and let its memory go. The ring itself stays."""
        for role in self._roles:
            role.close()
        self._roles.clear()
        if hasattr(self, "blocks"):
            del self.blocks
            self.slots.detach()
            self.cursors.detach()

    def unlink(self) -> None:
        """Remove both names, if they still stand for this ring; processes that are attached keep what they have mapped."""
        self.slots.unlink()
        self.cursors.unlink()

    def view(self, dtype: np.dtype) -> np.recarray:
        """All slots as read-only records of `dtype`, shape (capacity,)."""
        self._check_record(dtype)
        return self.slots.view(dtype)

    def producer(self, dtype: np.dtype) -> Producer:
        """Take the writing end. SegmentError, naming the owner, where another process has it."""
        self._check_record(dtype)
        return self._keep(Producer(self, dtype))

    def consumer(self, reader: str, dtype: np.dtype) -> Consumer:
        """Take the end of gating reader `reader`, at the position it last gave back. ValueError for a name not registered."""
        self._check_record(dtype)
        return self._keep(Consumer(self, self._block_of(reader, GATING_MODES), dtype, reader))

    def observer(self, dtype: np.dtype, name: str | None = None, *, at: At | None = None) -> Observer:
        """Watch the ring, from `at` on (newest), or as registered observer `name`, from where it last called release."""
        self._check_record(dtype)
        _check_at(at)
        block = None if name is None else self._block_of(name, (lib.TP_READER_OBSERVER,))
        return self._keep(Observer(self, dtype, at, block))

    def join(self, name: str, dtype: np.dtype, *, at: At = "newest") -> Consumer:
        """Become gating reader `name` of a running ring, in one of its spare blocks, from `at` on or as near to it as is still there.

        A reader that is registered already goes on where it stood. SegmentError where no block is free.
        """
        self._check_record(dtype)
        _check_names([name])
        _check_at(at)
        with self._one_joins():
            if name not in self.reader_names():
                return self._keep(Consumer(self, self._free_block(), dtype, name, at))
            # One that died while it joined goes on where it meant to begin: that is written in its block.
            return self.consumer(name, dtype)

    def reader_names(self) -> list[str]:
        """The gating readers, present or not."""
        return [decoded(reader["name"]) for reader in self.readers() if reader["mode"] in GATING_MODES]

    def readers(self) -> np.ndarray:
        """The readers' blocks as records (shm/layout.h, struct tp_reader), free ones included."""
        return self.cursors.data[PRODUCER.itemsize :].view(READER)

    def block_name(self, block: int) -> str:
        return decoded(self.readers()[block - 1]["name"])

    def is_held(self, block: int) -> bool:
        """Whether a living process has a role: block 0 is the producer's, reader k's is k + 1."""
        return locks.is_locked(self.cursors.fd, role_byte(block))

    def position(self) -> int:
        """How many messages have been published, modulo 2^64 as an int64: found from the slots, since the cursor trails by up to a lap.

        Exact while the producer is idle or dead.
        """
        return self.published_to(int(self.blocks[0][PRODUCER_POSITION]))

    def published_to(self, start: int) -> int:
        """The position after the newest published message at or after `start`, up to which all was published before."""
        slots = self.slots.data.ctypes.data
        return wrapped(lib.tp_face_published_to(slots, self.capacity, self.geometry.record_bytes, unsigned(start)))

    def backlog(self) -> dict[str, int]:
        """Messages that each gating reader has yet to give back."""
        gating = (lib.TP_READER_GATING, lib.TP_READER_JOINING)
        at = {decoded(reader["name"]): int(reader["position"]) for reader in self.readers() if reader["mode"] in gating}
        position = self.position()
        return {name: wrapped(position - stands) for name, stands in at.items()}

    def oldest_after(self, position: int) -> int:
        """`position`, or the ring's first where that is later."""
        first = wrapped(self.geometry.first_position)
        return first if wrapped(position - first) < 0 else wrapped(position)

    def between(self, oldest: int, at: At, newest: int, *, exact: bool = False) -> int:
        """Where a reader begins that asks for `at`: nowhere past newest, and not before oldest unless it asks for that position exactly."""
        wanted = {"oldest": oldest, "newest": newest}[at] if isinstance(at, str) else self.oldest_after(at)
        if wrapped(wanted - newest) > 0:
            wanted = newest
        # The oldest has the last word: what lies before it may be overwritten at any time.
        return oldest if wrapped(wanted - oldest) < 0 and not (exact and isinstance(at, int)) else wanted

    def open_cursors(self) -> Segment:
        """The cursor segment, mapped for writing on a descriptor of its own: what a role is taken on."""
        cursors = _attach_cursors(self.geometry, self.memory, writable=True)
        if os.path.sameopenfile(cursors.fd, self.cursors.fd):
            return cursors
        cursors.detach()
        raise SegmentError(f"ring={self.name}: it was removed and made again since this process attached; attach again")

    def open_slots(self) -> Segment:
        """The slots, mapped for writing."""
        slots = segment.attach(self.name, lib.TP_KIND_RING, self.geometry.schema, writable=True, memory=self.memory)
        if os.path.sameopenfile(slots.fd, self.slots.fd):
            return slots
        slots.detach()
        raise SegmentError(f"ring={self.name}: it was removed and made again since this process attached; attach again")

    def _block_of(self, name: str, modes: Sequence[int]) -> int:
        readers = self.readers()
        for number, reader in enumerate(readers):
            if reader["mode"] in modes and decoded(reader["name"]) == name:
                return number + 1
        known = [decoded(reader["name"]) for reader in readers if reader["mode"] in modes]
        raise ValueError(f"reader={name!r} of ring {self.name}: expected one of {known}")

    def _free_block(self) -> int:
        readers = self.readers()
        for number, reader in enumerate(readers):
            if reader["mode"] == lib.TP_READER_ABSENT and not self.is_held(number + 1):
                return number + 1
        raise SegmentError(f"ring={self.name}: no spare block for another reader; create it with spare=, or let one leave")

    @contextlib.contextmanager
    def _one_joins(self) -> Iterator[None]:
        """Readers join one at a time, so that two of one name do not take two blocks."""
        cursors = self.open_cursors()
        try:
            deadline = time.monotonic() + JOIN_PATIENCE_S
            while not locks.try_lock(cursors.fd, _JOIN_BYTE):
                if time.monotonic() > deadline:
                    raise SegmentError(f"ring={self.name}: another process has been joining it for {JOIN_PATIENCE_S} s: is it stopped?")
                time.sleep(0.001)
            yield
        finally:
            cursors.detach()

    def _check_record(self, dtype: np.dtype) -> None:
        if dtype.itemsize != self.geometry.record_bytes:
            raise ValueError(f"dtype of bytes={dtype.itemsize}, expected {self.geometry.record_bytes}")

    def _keep(self, role: Taken) -> Taken:
        """A role lives as long as the ring it was taken through, so a kernel may hold its end alone."""
        self._roles.append(role)
        return role


def cursor_name(ring: str) -> str:
    return f"{ring}.cursors"


_CURSOR_SCHEMA = schema_of(producer=PRODUCER, reader=READER)


def cursor_memory(slots: Memory) -> Memory:
    """What the cursors of a ring are made of: as its slots are, in pages of the usual size, for they fit in one."""
    return replace(slots, pages="normal")


def _attach_cursors(ring: Geometry, memory: Memory, *, writable: bool) -> Segment:
    name = cursor_name(ring.name)
    cursors = segment.attach(
        name, lib.TP_KIND_CURSORS, _CURSOR_SCHEMA, build_hash=ring.build_hash, writable=writable, memory=cursor_memory(memory)
    )
    problem = None
    if cursors.geometry.created_ns != ring.created_ns:
        problem = f"created_ns={cursors.geometry.created_ns}, expected {ring.created_ns}: it belongs to another ring of this name"
    elif cursors.geometry.capacity != ring.readers + 1:
        problem = f"blocks={cursors.geometry.capacity}, expected {ring.readers + 1}, as the ring has readers"
    if problem:
        cursors.detach()
        raise SegmentError(f"segment={name}: {problem}")
    return cursors


def mark_slots(data: np.ndarray, capacity: int, first_position: int) -> None:
    """Fill a new ring's slots: each as if it had been claimed a lap before its first position, and never published."""
    positions = np.arange(capacity, dtype=np.uint64) + np.uint64(unsigned(first_position - capacity))
    data.view(np.uint64).reshape(capacity, -1)[positions & np.uint64(capacity - 1), 0] = positions


def register_blocks(data: np.ndarray, readers: Sequence[str], observers: Sequence[str], first_position: int) -> None:
    """Fill a new cursor segment's payload: the producer and every reader stand at the first position."""
    producer = data[: PRODUCER.itemsize].view(np.int64)
    producer[PRODUCER_POSITION] = producer[PRODUCER_LIMIT] = wrapped(first_position)
    blocks = data[PRODUCER.itemsize :].view(READER)
    blocks.view(np.int64).reshape(len(blocks), BLOCK_WORDS)[:, READER_POSITION] = wrapped(first_position)
    modes = [(name, lib.TP_READER_GATING) for name in readers] + [(name, lib.TP_READER_OBSERVER) for name in observers]
    for record, (name, mode) in zip(blocks, modes, strict=False):
        record["name"] = encoded(name)
        record["mode"] = mode


def _check_shape(capacity: int, variants: dict[str, np.dtype], names: Sequence[str], spare: int) -> None:
    if capacity < 2 or capacity & (capacity - 1):
        raise ValueError(f"capacity={capacity}: expected a power of two, at least 2; the next one is {round_up_capacity(capacity)}")
    for variant, dtype in variants.items():
        if dtype.itemsize % LINE_BYTES:
            raise ValueError(f"variant={variant} of bytes={dtype.itemsize}: expected a multiple of {LINE_BYTES}")
    if not 0 <= spare <= lib.TP_READERS_MAX - len(names) or len(set(names)) != len(names):
        raise ValueError(f"readers={list(names)}, spare={spare}: expected at most {lib.TP_READERS_MAX} in all, with different names")
    _check_names(names)


def _check_at(at: At | None) -> None:
    if not (at in ("newest", "oldest") if isinstance(at, str) else at is None or isinstance(at, int)):
        raise ValueError(f"at={at!r}: expected 'newest', 'oldest' or a position")


def _check_names(names: Sequence[str]) -> None:
    for name in names:
        if not name.isascii() or not name.isprintable() or not 0 < len(name) <= NAME_BYTES_MAX:
            raise ValueError(f"reader={name!r}: expected 1 to {NAME_BYTES_MAX} printable ASCII characters")
