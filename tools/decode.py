"""`tickpath inspect`: what lies on a ring, a board or a table, decoded by nothing but its own schema.

It watches as an anonymous observer does: read-only, never waited for, and told what it missed.
"""

import itertools
import json
import os
import sys
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import orjson

from shm import segment
from shm._shim import ffi, lib
from shm.hot import POSITION
from shm.identity import KIND_NAMES, Geometry
from shm.layout import PRODUCER, dtypes_of, kinds_of
from shm.observer import Observer
from shm.ring import At
from shm.roles import decoded, unsigned, wrapped
from shm.segment import SegmentError
from shm.status import only_watches, printable, watch
from tools import open_orders
from tools.segments import CURSORS, segment_names

BATCH = 1024
# Messages that are shown where nobody says how many.
LAST = 10
# What an idle ring is looked at again after, the first time and at the longest.
NAP_S, NAP_MAX_S = 0.001, 0.02
# A longer array is told to a person by its length.
ARRAY_SHOWN_MAX = 16
# How often a board's line is read again that was being written.
BOARD_LOOKS = 10_000

SEQUENCE = "sequence"


@dataclass(frozen=True)
class Message:
    """One record. `number` is its position on a ring, or its key on a board or a table; `variant` None where no kind says what it is."""

    number: int
    variant: str | None
    fields: dict[str, Any]
    counted: str = "position"

    def to_json(self) -> bytes:
        return orjson.dumps({self.counted: self.number, "variant": self.variant, "fields": self.fields})

    def __str__(self) -> str:
        return " ".join([f"{self.number}", self.variant or "?", *(f"{name}={_shown(value)}" for name, value in self.fields.items())])


@dataclass(frozen=True)
class Event:
    """Something about the ring and not on it: `what`, and its numbers."""

    what: str
    text: str
    values: dict[str, Any]

    def to_json(self) -> bytes:
        return orjson.dumps({"event": self.what, **self.values})

    def __str__(self) -> str:
        return f"-- {self.text}"


class Decoder:
    """Records of one segment as dictionaries, by the schema that it carries. ValueError for a schema that describes nothing."""

    def __init__(self, geometry: Geometry) -> None:
        self.dtypes = {variant: _without_text(dtype) for variant, dtype in dtypes_of(geometry.schema).items()}
        if not self.dtypes:
            raise ValueError(f"segment={geometry.name}: its schema describes no record")
        self.kind_field, self.variants = kinds_of(geometry.schema) or ("", {})
        self.hidden = SEQUENCE if geometry.kind == lib.TP_KIND_RING else ""
        self.common = self._common()
        self.kind_place = dict(self.common.fields or {}).get(self.kind_field)
        if self.variants and self.kind_place is None:
            raise ValueError(f"segment={geometry.name}: kinds by field {self.kind_field!r}, expected one that every variant has")

    def _common(self) -> np.dtype:
        """The fields that every variant has in the same place: all that is known of a record of an unknown kind."""
        first, *others = (dict(dtype.fields or {}) for dtype in self.dtypes.values())
        shared = {name: place for name, place in first.items() if all(each.get(name) == place for each in others)}
        names = list(shared)
        return np.dtype(
            {"names": names, "formats": [shared[name][0] for name in names], "offsets": [shared[name][1] for name in names],
             "itemsize": next(iter(self.dtypes.values())).itemsize,}
        )  # fmt: skip

    def variant_of(self, record: bytes) -> str | None:
        """What a record is; None where its kind is not one that the schema knows."""
        if self.kind_place is None:
            return next(iter(self.dtypes))
        kind = np.frombuffer(record, self.kind_place[0], 1, self.kind_place[1])[0]
        variant = self.variants.get(int(kind))
        return variant if variant in self.dtypes else None

    def fields(self, record: bytes) -> tuple[str | None, dict[str, Any]]:
        """The variant and its fields by name, as plain values."""
        variant = self.variant_of(record)
        dtype = self.common if variant is None else self.dtypes[variant]
        values = np.frombuffer(record, dtype, 1)[0].item()
        named = {name: _plain(value) for name, value in zip(dtype.names or (), values, strict=True) if name != self.hidden}
        return variant, named


def _without_text(dtype: np.dtype) -> np.dtype:
    """The same record with its U fields as bytes: numpy makes Python text of what is no Unicode, which nothing can print."""
    places = dict(dtype.fields or {})
    formats = [(np.void, place[0].itemsize) if place[0].base.kind == "U" else place[0] for place in places.values()]
    offsets = [place[1] for place in places.values()]
    return np.dtype({"names": list(places), "formats": formats, "offsets": offsets, "itemsize": dtype.itemsize})


def position_of(text: str | None) -> At | None:
    """Where to begin, as a user writes it. ValueError for what is neither a position, 'oldest' nor 'newest'."""
    if text is None or text in ("oldest", "newest"):
        return text  # type: ignore[return-value]
    if not text.isascii() or not text.isdecimal() or int(text) >= 1 << 64:
        raise ValueError(f"from={text!r}: expected 'oldest', 'newest' or a position from 0 to 2^64 - 1")
    return int(text)


def show(name: str, *, follow: bool, last: int | None, start: At | None, seconds: float | None, schema: bool, as_json: bool) -> None:
    """Write to standard output what `tickpath inspect` is asked for. ValueError for what cannot be shown."""
    name = find(name)
    try:
        geometry = segment.describe(name)
        write = _write_json if as_json else _write_text
        if schema:
            _write([json.dumps(json.loads(geometry.schema)).encode()] if as_json else [line.encode() for line in schema_lines(geometry)])
        elif geometry.kind == lib.TP_KIND_RING:
            if last is not None and start is not None:
                raise ValueError("--last and --from: expected one of them")
            with Tail(name) as tail:
                begin = tail.begin(last=LAST if last is None else last, start=start)
                for items in tail.batches(begin, follow=follow or seconds is not None, seconds=seconds):
                    write(items)
        elif follow or last is not None or start is not None or seconds is not None:
            raise ValueError(
                f"segment={printable(name)}: it is a {KIND_NAMES[geometry.kind]}: --follow, --last, --from and --seconds are for rings"
            )
        elif open_orders.is_order_table(geometry):
            _write(open_orders.lines(name, as_json=as_json))
        else:
            written = records(name)
            while group := list(itertools.islice(written, BATCH)):
                write(group)
    except SegmentError as error:
        # What a user named cannot be used; nothing of ours failed.
        raise ValueError(printable(str(error))) from None


def _write_json(items: Iterable["Message | Event"]) -> None:
    _write([item.to_json() for item in items])


def _write_text(items: Iterable["Message | Event"]) -> None:
    _write([str(item).encode() for item in items])


def _write(lines: list[bytes]) -> None:
    if lines:
        sys.stdout.buffer.write(b"\n".join(lines) + b"\n")
        sys.stdout.buffer.flush()


def schema_lines(geometry: Geometry) -> list[str]:
    """The record layout as lines of columns: variant, field, offset, format."""
    described = json.loads(geometry.schema)["variants"]
    kinds = kinds_of(geometry.schema) or ("", {})
    rows = [("variant", "field", "offset", "format")]
    for variant, fields in described.items():
        values = ", ".join(str(value) for value, name in kinds[1].items() if name == variant)
        title = f"{variant} ({kinds[0]}={values})" if values else variant
        rows += [(title, name, str(offset), form) for name, (form, offset) in fields.items()]
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    return [f"{printable(geometry.name)}: {geometry.capacity:,} records of {geometry.record_bytes} bytes", *lines]


def find(name: str) -> str:
    """The segment that is meant by a full name, or by one without its instance. ValueError where it is none, or several."""
    if segment.names(name).count(name):
        return name
    known = [each for each in segment_names() if not each.endswith(CURSORS)]
    meant = [each for each in known if each.partition(".")[2] == name]
    if len(meant) == 1:
        return meant[0]
    if meant:
        raise ValueError(f"segment={printable(name)}: it may be {' or '.join(map(printable, meant))}: give the whole name")
    raise ValueError(f"segment={printable(name)}: there is none; `tickpath rings` lists what there is")


def records(name: str) -> Iterator[Message | Event]:
    """Every record of a board or table that was ever written, by its key. Each is whole on a board, and as it stands on a table."""
    kind = segment.describe(name).kind
    if kind == lib.TP_KIND_CURSORS:
        raise ValueError(f"segment={printable(name)}: it holds the cursors of a ring: `tickpath rings --long` shows them")
    shared = segment.attach(name, kind, writable=False)
    try:
        only_watches(shared)
        decoder = Decoder(shared.geometry)
        words = shared.words().reshape(shared.geometry.capacity, -1)
        keys = np.flatnonzero(words[:, 0] if kind == lib.TP_KIND_BOARD else words.any(axis=1))
        for key in keys.tolist():
            record = _board_record(words[key]) if kind == lib.TP_KIND_BOARD else words[key].tobytes()
            if record is None:
                yield Event("busy", f"key {key} is being written, or its writer died", {"key": key})
            else:
                yield Message(key, *decoder.fields(record), counted="key")
        del words
    finally:
        shared.detach()


def _board_record(line: np.ndarray) -> bytes | None:
    """A board's line, whole; None where its writer is at it all the time."""
    version = ffi.cast("uint64_t *", line.ctypes.data)
    for _ in range(BOARD_LOOKS):
        # SYNC POINT (board_close's release). The second look comes after the copy, since x86-64 keeps loads in order.
        before = lib.tp_load_acquire_u64(version)
        copied = line.tobytes()
        if not before & 1 and lib.tp_load_acquire_u64(version) == before:
            return copied
    return None


class Tail:
    """The messages of a ring, from a position on, in batches. A context manager."""

    def __init__(self, name: str) -> None:
        self.ring = watch(name)
        try:
            self.decoder = Decoder(self.ring.geometry)
            self.record = np.dtype([(SEQUENCE, "u8"), ("payload", np.void, self.ring.geometry.record_bytes - 8)])
        except BaseException:
            self.ring.detach()
            raise

    def __enter__(self) -> "Tail":
        return self

    def __exit__(self, *_: object) -> None:
        self.ring.detach()

    def oldest(self) -> int:
        """The oldest message still there: a quarter of the ring ahead of what a living producer overwrites next."""
        kept = self.ring.capacity - (self.ring.headroom if self.ring.is_held(0) else 0)
        return self.ring.oldest_after(self.ring.position() - kept)

    def begin(self, *, last: int | None, start: At | None) -> int:
        """Where to begin: at `start`, or at the `last` messages. ValueError for a position that is yet to come."""
        newest, oldest = self.ring.position(), self.oldest()
        if isinstance(start, int):
            if wrapped(start - newest) > 0:
                raise ValueError(f"from={start}: the ring is at {unsigned(newest)}, expected no later position")
            return self.ring.oldest_after(start)
        if start is not None:
            return newest if start == "newest" else oldest
        wanted = wrapped(newest - min(last or 0, self.ring.capacity))
        return oldest if wrapped(wanted - oldest) < 0 else wanted

    def batches(self, begin: int, *, follow: bool, seconds: float | None) -> Iterator[list[Message | Event]]:
        """Lists of what is new, empty ones while nothing is: to what was newest at the start, or on and on with `follow`."""
        end = self.ring.position()
        until = None if seconds is None else time.monotonic() + seconds
        rows = np.empty((BATCH, self.ring.geometry.record_bytes), np.uint8)
        nap = NAP_S
        with self.ring.observer(self.record, at=begin) as observer:
            while until is None or time.monotonic() < until:
                left = BATCH if follow else wrapped(end - int(observer.end.local[POSITION]))
                if left <= 0:
                    return
                items: list[Message | Event] = [*self._restarted(observer)]
                items += self._read(observer, rows[: min(left, BATCH)])
                if items:
                    nap = NAP_S
                    yield items
                    continue
                if not follow and nap == NAP_MAX_S:
                    # Published, and not to be read: no producer does this.
                    at = unsigned(int(observer.end.local[POSITION]))
                    yield [Event("damaged", f"position {at} cannot be read: its slot is damaged", {"from": at})]
                    return
                if self._is_removed():
                    yield [Event("removed", f"{printable(self.ring.name)} was removed", {"ring": printable(self.ring.name)})]
                    return
                yield []
                time.sleep(nap)
                nap = min(2 * nap, NAP_MAX_S)

    def _read(self, observer: Observer, rows: np.ndarray) -> Iterator[Message | Event]:
        got = observer.poll_many(rows)
        if observer.lost_now:
            lost, since = observer.lost_now, observer.lost_from
            yield Event("lost", f"lost {lost:,} messages from position {since} on", {"lost": lost, "from": since})
        for row in rows[:got]:
            record = row.tobytes()
            yield Message(unsigned(int.from_bytes(record[:8], "little") - 1), *self.decoder.fields(record))

    def _restarted(self, observer: Observer) -> Iterator[Event]:
        if observer.restarts():
            producer = self.ring.cursors.data[: PRODUCER.itemsize].view(PRODUCER)[0].copy()
            epoch, pid, name = int(producer["epoch"]), int(producer["pid"]), printable(decoded(producer["name"]))
            what = "started" if epoch == 1 else "restarted"
            yield Event(what, f"producer {what}: epoch {epoch}, pid {pid} ({name})", {"epoch": epoch, "pid": pid, "producer": name})

    def _is_removed(self) -> bool:
        return os.fstat(self.ring.slots.fd).st_nlink == 0


def _plain(value: Any) -> Any:
    """A field as JSON can hold it: bytes that are ASCII text as text, other bytes in hexadecimal."""
    if isinstance(value, np.ndarray):
        return _text(value.tobytes()) if value.dtype == np.uint8 and value.ndim == 1 else [_plain(each) for each in value.tolist()]
    if isinstance(value, bytes):
        return _text(value)
    if isinstance(value, list):
        return [_plain(each) for each in value]
    return value if isinstance(value, int | float | str) else str(value)


def _text(raw: bytes) -> str:
    stripped = raw.rstrip(b"\0 ")
    return stripped.decode("ascii") if all(32 <= byte < 127 for byte in stripped) else f"0x{raw.hex()}"


def _shown(value: Any) -> str:
    """A field as a person reads it."""
    if isinstance(value, list) and len(value) > ARRAY_SHOWN_MAX:
        return f"[{len(value)} values, {sum(map(bool, value))} of them not 0]"
    if isinstance(value, str) and (not value or " " in value):
        return f"'{value}'"
    return f"{value}".replace(", ", ",")
