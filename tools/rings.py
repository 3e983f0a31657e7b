"""`tickpath rings`: every ring, board and table on this box, one line each, and what somebody should look at."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from shm import segment
from shm._shim import lib
from shm.identity import KIND_NAMES, Geometry
from shm.segment import SegmentError
from shm.status import RingStatus, instance_of, printable, status, watch
from tools.segments import CURSORS, exists, is_foreign, segment_names

LEFT_BEHIND = "left behind"


@dataclass(frozen=True)
class TableStatus:
    """A table or a board (`kind`), and whether anyone is attached to it."""

    name: str
    instance: str
    kind: str
    records: int
    record_bytes: int
    build: str
    trouble: list[str]


@dataclass(frozen=True)
class Unusable:
    """A segment, or what stands where one should, and why it cannot be looked into. `foreign`: it is another user's."""

    name: str
    instance: str
    reason: str
    foreign: bool


@dataclass(frozen=True)
class Survey:
    """What there is. `troubles`: by the name of a ring, what somebody should look at."""

    rings: list[RingStatus]
    troubles: dict[str, list[str]]
    tables: list[TableStatus]
    unusable: list[Unusable]

    @property
    def well(self) -> bool:
        """Whether nobody is dead or hangs, nothing is left behind, and whatever is ours can be looked into."""
        return not any([*self.troubles.values(), *(table.trouble for table in self.tables), *(not each.foreign for each in self.unusable)])

    @property
    def empty(self) -> bool:
        return not (self.rings or self.tables or self.unusable)

    def to_dict(self) -> dict[str, Any]:
        return {
            "rings": [{**ring.to_dict(), "trouble": self.troubles[ring.name]} for ring in self.rings],
            "tables": [vars(table) for table in self.tables],
            "unusable": [vars(each) for each in self.unusable],
            "well": self.well,
        }


def survey(instance: str | None = None, *, hung_after_ms: float, placement: bool = False) -> Survey:
    """Look at every segment on this box, or at those of one instance. What cannot be looked into is told, and raises nothing."""
    tsc_hz = measured_tsc_hz()
    found = Survey([], {}, [], [])
    for name in segment_names(instance):
        if name.endswith(CURSORS) and exists(name.removesuffix(CURSORS)):
            continue
        try:
            geometry = segment.describe(name)
            left = [] if segment.is_attached(name) else [LEFT_BEHIND]
            if geometry.kind == lib.TP_KIND_RING:
                ring = _ring_status(name, tsc_hz, hung_after_ms, placement)
                found.rings.append(ring)
                found.troubles[ring.name] = left or ring.trouble
            else:
                found.tables.append(_table_status(geometry, left))
        except (SegmentError, OSError, ValueError) as error:
            if exists(name):
                found.unusable.append(Unusable(printable(name), printable(instance_of(name)), printable(str(error)), is_foreign(name)))
    return found


def measured_tsc_hz() -> float | None:
    """Ticks per second; None on a machine whose TSC is no clock, where heartbeats cannot be dated."""
    from engine.runtime.clock import ClockError, calibrate

    try:
        return calibrate(over_ns=10_000_000).hz
    except ClockError:
        return None


def table_of(found: Survey) -> list[str]:
    """The survey as lines of columns, for a person."""
    rows: list[tuple[str, ...]] = [
        ("name", "kind", "records", "bytes", "position", "producer", "slowest reader", "waits", "dropped", "lost", "trouble")
    ]
    rows += [_ring_row(ring, found.troubles[ring.name]) for ring in found.rings]
    for table in found.tables:
        blank = ("",) * 6
        rows.append((table.name, table.kind, f"{table.records:,}", f"{table.record_bytes:,}", *blank, ", ".join(table.trouble)))
    head, *body = aligned(rows, right={2, 3, 4, 7, 8, 9}) if len(rows) > 1 else [""]
    return [*([head] if head else []), *sorted(body), *(f"cannot be looked into: {each.reason}" for each in found.unusable)]


def aligned(rows: Iterable[tuple[str, ...]], right: set[int]) -> list[str]:
    """Rows of cells as lines, each column as wide as its widest cell; the columns in `right` flush right."""
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    pads = [str.rjust if number in right else str.ljust for number in range(len(widths))]
    return ["  ".join(pad(cell, width) for pad, cell, width in zip(pads, row, widths, strict=True)).rstrip() for row in cells]


def _ring_row(ring: RingStatus, trouble: list[str]) -> tuple[str, ...]:
    out, slowest = ring.producer, ring.slowest
    producer = "absent" if out.state == "absent" else f"{out.name or '?'} {out.pid}" + ("" if out.alive else f" {out.state}")
    behind = "none" if slowest is None else f"{slowest.name} {slowest.backlog:,} behind" + ("" if slowest.alive else f", {slowest.state}")
    return (
        ring.name, "ring", f"{ring.capacity:,}", str(ring.record_bytes), f"{ring.position:,}", producer, behind,
        f"{out.waits:,}", f"{out.dropped:,}", f"{ring.lost:,}", ", ".join(trouble),
    )  # fmt: skip


def _ring_status(name: str, tsc_hz: float | None, hung_after_ms: float, placement: bool) -> RingStatus:
    ring = watch(name)
    try:
        return status(ring, tsc_hz=tsc_hz, hung_after_ms=hung_after_ms, placement=placement)
    finally:
        ring.detach()


def _table_status(geometry: Geometry, left: list[str]) -> TableStatus:
    if geometry.kind == lib.TP_KIND_CURSORS:
        raise SegmentError(f"segment={geometry.name}: cursors of a ring that is not there; `tickpath clean` removes what the dead left")
    name = printable(geometry.name)
    return TableStatus(
        name, instance_of(name), KIND_NAMES[geometry.kind], geometry.capacity, geometry.record_bytes, f"{geometry.build_hash:016x}", left
    )
