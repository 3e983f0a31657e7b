"""What a segment says about itself: written by its creator, checked in full by everyone else, copied out once and never trusted again.

A segment may have been made by another build, cut short, scribbled on, or put there by someone who wants us to crash. Every value in
it is therefore compared with what it must be before it is used, in Python's integers, which do not overflow.
"""

import dataclasses
import json
import math
import mmap
import os
import re
import time
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np

from shm._shim import lib
from shm.layout import IDENTITY, LINE_BYTES, schema_difference, schema_hash

PAGE_BYTES: int = mmap.PAGESIZE
SCHEMA_BYTES_MAX: int = lib.TP_DATA_OFFSET - lib.TP_SCHEMA_OFFSET
KIND_NAMES = {lib.TP_KIND_RING: "ring", lib.TP_KIND_CURSORS: "cursors", lib.TP_KIND_TABLE: "table", lib.TP_KIND_BOARD: "board"}
WHEN_FULL_NAMES = {lib.TP_WHEN_FULL_WAIT: "wait", lib.TP_WHEN_FULL_DROP: "drop", lib.TP_WHEN_FULL_EVICT: "evict"}


# A field's format as shm.layout.schema_of writes it: i8, u1[24], f8[2][3].
_FORMAT = re.compile(r"(?P<base>[biufcSUV])(?P<size>[0-9]{1,4})(?P<shape>(\[[0-9]{1,4}\])*)", re.ASCII)
_INTEGER = re.compile(r"-?[0-9]{1,20}", re.ASCII)


class SegmentError(Exception):
    """A segment that cannot be created or must not be used; the text says which value is wrong and what to do."""


@dataclass(frozen=True)
class Geometry:
    """What a segment holds: `capacity` records of `record_bytes`, laid out as the JSON text `schema` says.

    `readers` is the number of reader blocks of a ring, `first_position` its first position and `when_full` a TP_WHEN_FULL_*.
    `page_bytes` is what the file is made of and `created_ns` when it was made; whoever creates a segment leaves the first to
    `shm.segment.create`, and the second too, but for two segments that belong together.
    """

    name: str
    kind: int
    capacity: int
    record_bytes: int
    schema: str
    build_hash: int = 0
    readers: int = 0
    first_position: int = 0
    when_full: int = lib.TP_WHEN_FULL_WAIT
    page_bytes: int = PAGE_BYTES
    created_ns: int = dataclasses.field(default=0, compare=False)

    @property
    def payload_bytes(self) -> int:
        return self.capacity * self.record_bytes

    @property
    def total_bytes(self) -> int:
        """The file's size: identity, schema and payload in whole pages."""
        return -(-(lib.TP_DATA_OFFSET + self.payload_bytes) // self.page_bytes) * self.page_bytes


def check_name(name: str) -> None:
    if not name or "/" in name or "\0" in name or name.startswith(".") or len(os.fsencode(name)) > 200:
        raise SegmentError(f"segment={name!r}: expected a name of 1 to 200 characters without '/', not beginning with '.'")


def process_start(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def check_new(geometry: Geometry) -> None:
    """SegmentError for a geometry that no one could attach to."""
    text = geometry.schema.encode()
    if len(text) > SCHEMA_BYTES_MAX:
        raise SegmentError(f"segment={geometry.name}: schema of bytes={len(text)}: expected at most {SCHEMA_BYTES_MAX}")
    problem = _shape_problem(geometry)
    if problem:
        raise SegmentError(f"segment={geometry.name}: {problem}")


def describe_in(mapping: mmap.mmap, geometry: Geometry) -> None:
    """Write schema and identity to a new segment: everything but the magic."""
    text = geometry.schema.encode()
    mapping[lib.TP_SCHEMA_OFFSET : lib.TP_SCHEMA_OFFSET + len(text)] = text
    identity = np.frombuffer(mapping, IDENTITY, count=1)
    values = {
        "layout_version": lib.TP_LAYOUT_VERSION,
        "kind": geometry.kind,
        "total_bytes": geometry.total_bytes,
        "data_offset": lib.TP_DATA_OFFSET,
        "capacity": geometry.capacity,
        "record_bytes": geometry.record_bytes,
        "schema_hash": schema_hash(geometry.schema),
        "build_hash": geometry.build_hash,
        "creator_pid": os.getpid(),
        "creator_start": process_start(os.getpid()),
        "created_ns": geometry.created_ns or time.time_ns(),
        "schema_bytes": len(text),
        "readers": geometry.readers,
        "first_position": geometry.first_position,
        "when_full": geometry.when_full,
        "page_bytes": geometry.page_bytes,
    }
    for field, value in values.items():
        identity[field] = value


def read(name: str, fd: int, page_bytes: int) -> Geometry:
    """The geometry of the open file `fd`, which is made of pages of `page_bytes`. SegmentError names the first value that is wrong.

    Read through the descriptor and not through a mapping: a file that is cut short meanwhile is then a short answer, not a SIGBUS.
    """
    magic = os.pread(fd, 8, 0)
    # SYNC POINT (shm.segment._publish): the magic is looked at, by a call of its own, before anything that it vouches for.
    head = os.pread(fd, lib.TP_DATA_OFFSET, 0)
    size = os.fstat(fd).st_size
    if len(head) < lib.TP_DATA_OFFSET:
        raise SegmentError(
            f"segment={name}: bytes={size}, expected at least {lib.TP_DATA_OFFSET}: "
            "it is still being created, or cut short; try again, then `tickpath clean`"
        )
    if not any(magic):
        raise SegmentError(f"segment={name}: magic=0: it is still being created, or its creator died; try again, then `tickpath clean`")
    fields = np.frombuffer(head, IDENTITY, count=1)[0]
    identity = {field: int(fields[field]) for field in IDENTITY.fields or ()}
    _expect(name, identity, magic=lib.TP_MAGIC, layout_version=lib.TP_LAYOUT_VERSION, data_offset=lib.TP_DATA_OFFSET, page_bytes=page_bytes)
    geometry = Geometry(
        name,
        schema="",
        **{
            field: identity[field]
            for field in (
                *("kind", "capacity", "record_bytes", "build_hash", "readers", "first_position", "when_full", "page_bytes"),
                "created_ns",
            )
        },
    )
    problem = _shape_problem(geometry)
    if problem:
        raise SegmentError(f"segment={name}: {problem}")
    _expect(name, identity, total_bytes=geometry.total_bytes)
    if size != geometry.total_bytes:
        raise SegmentError(f"segment={name}: bytes={size}, expected {geometry.total_bytes}: cut short, or grown")
    return replace(geometry, schema=_schema_text(name, identity, head, geometry.record_bytes))


def expect_kind(geometry: Geometry, kind: int) -> None:
    if geometry.kind != kind:
        raise SegmentError(
            f"segment={geometry.name}: kind={_kind(geometry.kind)}, expected {_kind(kind)}",
        )


def expect_schema(geometry: Geometry, schema: str) -> None:
    if geometry.schema != schema:
        raise SegmentError(f"segment={geometry.name}: schema differs: {schema_difference(geometry.schema, schema)}")


def expect_build(geometry: Geometry, build_hash: int) -> None:
    if build_hash and geometry.build_hash != build_hash:
        raise SegmentError(
            f"segment={geometry.name}: build={geometry.build_hash:#x}, expected {build_hash:#x}: "
            "processes of different builds do not trade together"
        )


def _expect(name: str, identity: dict[str, int], **expected: int) -> None:
    for field, value in expected.items():
        if identity[field] != value:
            show = hex if field == "magic" else str
            raise SegmentError(f"segment={name}: {field}={show(identity[field])}, expected {show(value)}")


def _shape_problem(geometry: Geometry) -> str | None:
    """What about a geometry cannot be, as name=value and what was expected; None where all of it can."""
    kind, capacity, record_bytes, readers = geometry.kind, geometry.capacity, geometry.record_bytes, geometry.readers
    ring = kind == lib.TP_KIND_RING
    if kind not in KIND_NAMES:
        return f"kind={kind}, expected one of {sorted(KIND_NAMES.values())}"
    if record_bytes < LINE_BYTES or record_bytes % LINE_BYTES:
        return f"record_bytes={record_bytes}, expected a multiple of {LINE_BYTES}"
    if not 1 <= capacity < 1 << 63 or geometry.total_bytes >= 1 << 63:
        return f"capacity={capacity} x record_bytes={record_bytes}, expected at least one record, and less than 2^63 bytes in all"
    if ring and (capacity < 2 or capacity & (capacity - 1)):
        return f"capacity={capacity}, expected a power of two, at least 2"
    if not ring and kind != lib.TP_KIND_CURSORS and any((readers, geometry.first_position, geometry.when_full)):
        return f"readers={readers} first_position={geometry.first_position} when_full={geometry.when_full}, expected 0 but for a ring"
    if readers > lib.TP_READERS_MAX:
        return f"readers={readers}, expected at most {lib.TP_READERS_MAX}"
    if kind == lib.TP_KIND_CURSORS and capacity != readers + 1:
        return f"capacity={capacity}, expected {readers + 1} blocks: the producer's and readers={readers}"
    if geometry.when_full not in WHEN_FULL_NAMES:
        return f"when_full={geometry.when_full}, expected one of {sorted(WHEN_FULL_NAMES)}"
    return None


def _kind(kind: int) -> str:
    return KIND_NAMES.get(kind, str(kind))


def _schema_text(name: str, identity: dict[str, int], head: bytes, record_bytes: int) -> str:
    length = identity["schema_bytes"]
    if length > SCHEMA_BYTES_MAX:
        raise SegmentError(f"segment={name}: schema_bytes={length}, expected at most {SCHEMA_BYTES_MAX}")
    raw = head[lib.TP_SCHEMA_OFFSET : lib.TP_SCHEMA_OFFSET + length]
    try:
        text = raw.decode()
    except UnicodeDecodeError as error:
        raise SegmentError(f"segment={name}: schema is not UTF-8 at byte={error.start}: expected JSON text") from None
    if schema_hash(text) != identity["schema_hash"]:
        raise SegmentError(f"segment={name}: schema_hash={identity['schema_hash']:#x} does not belong to its schema text")
    problem = _schema_problem(text, record_bytes)
    if problem:
        raise SegmentError(f"segment={name}: schema: {problem}")
    return text


def _schema_problem(text: str, record_bytes: int) -> str | None:
    """What is wrong with a schema's text, which may be anything: {"bytes": n, "variants": {variant: {field: [format, offset]}}}."""
    try:
        schema = json.loads(text)
    except (ValueError, RecursionError) as error:
        return f"expected JSON: {error}"
    if not isinstance(schema, dict) or set(schema) - {"kinds"} != {"bytes", "variants"} or not isinstance(schema["variants"], dict):
        return 'expected {"bytes": n, "variants": {...}}, and "kinds" or not'
    if type(schema["bytes"]) is not int or schema["bytes"] != record_bytes:
        return f"bytes={_short(schema['bytes'])}, expected record_bytes={record_bytes}"
    for variant, fields in schema["variants"].items():
        if not variant.isprintable() or not isinstance(fields, dict):
            return f"variant {_short(variant)}: expected a printable name, and its fields"
        for field, place in fields.items():
            if not field.isprintable() or _place_end(place) > record_bytes:
                return f"field {_short(field)}={_short(place)}: expected a printable name, and [format, offset] within {record_bytes} bytes"
    return _kinds_problem(schema.get("kinds"), schema["variants"])


def _kinds_problem(kinds: Any, variants: dict[str, Any]) -> str | None:
    """What is wrong with [field, {value: variant}], which says what variant a record is; None where nothing is, or it is not there."""
    match kinds:
        case None:
            return None
        case [str(field), dict(values)] if field.isprintable() and all(
            _INTEGER.fullmatch(value) and isinstance(variant, str) and variant in variants for value, variant in values.items()
        ):
            return None
    return f"kinds={_short(kinds)}: expected [field, {{value: variant}}]"


def _place_end(place: Any) -> float:
    """The byte after a field that is described by [format, offset]; infinite for what describes none."""
    match place:
        case [str(text), int(offset)] if type(offset) is int and offset >= 0 and (found := _FORMAT.fullmatch(text)):
            count = math.prod(int(n) for n in re.findall(r"\[(\d+)\]", found["shape"]))
            return offset + int(found["size"]) * (4 if found["base"] == "U" else 1) * count
    return math.inf


def _short(value: Any) -> str:
    return repr(value)[:60]
