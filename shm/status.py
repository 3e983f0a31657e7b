"""What is going on at a ring, seen from outside: who is alive, who hangs, how far behind, what was lost.

Asking costs the processes that trade next to nothing: one look at each cursor block and at one slot for each doubling of the capacity.
Nothing is written, so it needs no more than to be allowed to read the ring.
"""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from shm import locks
from shm._shim import lib
from shm.identity import WHEN_FULL_NAMES
from shm.layout import IDENTITY, PRODUCER
from shm.ring import Ring
from shm.roles import decoded, unsigned, wrapped
from shm.segment import LIFE_BYTE, Placement, Segment, SegmentError

HUNG_AFTER_MS = 1000.0
MODE_NAMES = {
    lib.TP_READER_GATING: "gating",
    lib.TP_READER_OBSERVER: "observer",
    lib.TP_READER_EVICTED: "evicted",
    lib.TP_READER_JOINING: "joining",
}
WAITED_FOR = ("gating", "joining")


@dataclass(frozen=True)
class RoleStatus:
    """Who has an end of a ring, or had it last (pid 0: nobody yet). `process` is that process's name while it runs.

    `alive` is the kernel's word: the role's lock is held. `hung`: it is held, and the last heartbeat is older than it may be. An end
    that never beats is never called hung, nor is any where the TSC's rate is not known; the heartbeat's age is then None.
    """

    pid: int
    process: str | None
    alive: bool
    hung: bool
    epoch: int
    heartbeat_age_ms: float | None

    @property
    def state(self) -> str:
        """absent (never taken), alive, hung, left (given back, by a process that runs) or dead."""
        if self.alive:
            return "hung" if self.hung else "alive"
        return "absent" if not self.pid else "dead" if self.process is None else "left"


@dataclass(frozen=True)
class ProducerStatus(RoleStatus):
    """The writing end. `name` is what its process was called; the counters are those of all producers so far."""

    name: str
    waits: int
    dropped: int
    evicted: int


@dataclass(frozen=True)
class ReaderStatus(RoleStatus):
    """A reader's end. `mode` is gating, joining, observer or evicted; `backlog` is how many messages it has yet to give back."""

    name: str
    mode: str
    position: int
    backlog: int
    lost: int


@dataclass(frozen=True)
class RingStatus:
    """A ring at one moment. Positions are unsigned; times in nanoseconds since the epoch, seconds and milliseconds as named."""

    name: str
    instance: str
    capacity: int
    record_bytes: int
    when_full: str
    position: int
    first_position: int
    created_ns: int
    age_s: float
    creator: int
    creator_alive: bool
    build: str
    page_bytes: int
    producer: ProducerStatus
    readers: list[ReaderStatus] = field(default_factory=list)
    placement: Placement | None = None

    @property
    def slowest(self) -> ReaderStatus | None:
        """The gating reader that is furthest behind: the one that the producer waits for."""
        return max((reader for reader in self.readers if reader.mode in WAITED_FOR), key=lambda reader: reader.backlog, default=None)

    @property
    def lost(self) -> int:
        """What all readers together never read."""
        return sum(reader.lost for reader in self.readers)

    @property
    def trouble(self) -> list[str]:
        """What somebody should look at: ends whose process is dead or hangs, and readers let go of. An observer may come and go."""
        found = [f"producer {self.producer.state}"] if self.producer.state in ("dead", "hung") else []
        for reader in self.readers:
            if reader.mode == "evicted":
                found.append(f"reader {reader.name} evicted")
            elif reader.state == "hung" or (reader.state == "dead" and reader.mode in WAITED_FOR):
                found.append(f"reader {reader.name} {reader.state}")
        return found

    def to_dict(self) -> dict[str, Any]:
        """For a report: plain values, with the state of each end and the trouble spelled out."""
        return {
            **{name: value for name, value in vars(self).items() if name not in ("producer", "readers", "placement")},
            "producer": {"state": self.producer.state, **vars(self.producer)},
            "readers": [{"state": reader.state, **vars(reader)} for reader in self.readers],
            "placement": None if self.placement is None else _placed(self.placement),
            "trouble": self.trouble,
        }

    def __str__(self) -> str:
        """Several lines for a person: the ring, its producer, each reader."""
        return "\n".join(self._lines())

    def _lines(self) -> Iterator[str]:
        made = f"made {_age(self.age_s)} ago by pid {self.creator}" + ("" if self.creator_alive else " (gone)")
        pages = f"pages of {self.page_bytes} bytes" + ("" if self.placement is None else f", {_where(self.placement)}")
        yield f"{self.name}: {self.capacity:,} slots of {self.record_bytes} bytes, when full {self.when_full}, {made}, build {self.build}"
        yield f"  {pages}; position {self.position:,}" + (f", first {self.first_position:,}" if self.first_position else "")
        out = self.producer
        yield f"  producer  {_role(out)}, waits {out.waits:,}, dropped {out.dropped:,}, evicted {out.evicted:,}"
        for reader in self.readers:
            where = f"position {reader.position:,}, {reader.backlog:,} behind, lost {reader.lost:,}"
            yield f"  {reader.mode:<8}  {reader.name}: {_role(reader)}, {where}"


def watch(name: str) -> Ring:
    """Attach to ring `name` to look at it. A watcher keeps no ring alive: what the dead left can be removed, and is then gone here too.

    SegmentError names what does not fit.
    """
    ring = Ring.attach(name)
    only_watches(ring.slots, ring.cursors)
    return ring


def only_watches(*segments: Segment) -> None:
    """Give up the life lock of segments that this process only looks at."""
    for each in segments:
        locks.unlock(each.fd, LIFE_BYTE)


def status(ring: Ring, *, tsc_hz: float | None = None, hung_after_ms: float = HUNG_AFTER_MS, placement: bool = False) -> RingStatus:
    """What is going on at `ring` now. `placement` asks the kernel about this process's mapping, which takes milliseconds.

    Heartbeats are TSC ticks, so their ages, and who hangs, are known only with the TSC's rate, `tsc_hz`.
    """
    # The readers first: what they have read had been published, so nobody is ahead of the producer.
    blocks = [(number + 1, reader.copy()) for number, reader in enumerate(ring.readers()) if int(reader["mode"]) in MODE_NAMES]
    position = ring.position()
    producer = ring.cursors.data[: PRODUCER.itemsize].view(PRODUCER)[0].copy()
    clock = _Clock(tsc_hz, hung_after_ms)
    geometry, identity = ring.geometry, _identity(ring)
    created_ns = int(identity["created_ns"])
    return RingStatus(
        name=printable(ring.name),
        instance=printable(instance_of(ring.name)),
        capacity=ring.capacity,
        record_bytes=geometry.record_bytes,
        when_full=WHEN_FULL_NAMES[geometry.when_full],
        position=unsigned(position),
        first_position=geometry.first_position,
        created_ns=created_ns,
        age_s=max(0.0, (time.time_ns() - created_ns) / 1e9),
        creator=int(identity["creator_pid"]),
        creator_alive=_running_name(int(identity["creator_pid"]), int(identity["creator_start"])) is not None,
        build=f"{geometry.build_hash:016x}",
        page_bytes=geometry.page_bytes,
        producer=ProducerStatus(
            **clock.role(ring, 0, producer),
            name=printable(decoded(producer["name"])),
            waits=int(producer["waits"]),
            dropped=int(producer["dropped"]),
            evicted=int(producer["evicted"]),
        ),
        readers=[
            ReaderStatus(
                **clock.role(ring, block, reader),
                name=printable(decoded(reader["name"])),
                mode=MODE_NAMES[int(reader["mode"])],
                position=int(reader["position"]),
                backlog=max(0, wrapped(position - int(reader["position"]))),
                lost=int(reader["lost"]),
            )
            for block, reader in blocks
        ],
        placement=ring.slots.placement() if placement else None,
    )


def instance_of(name: str) -> str:
    """The instance that a segment belongs to: its name up to the first dot; empty where it has none."""
    instance, dot, _ = name.partition(".")
    return instance if dot else ""


def printable(text: str) -> str:
    """Text from shared memory or of a file's name, with what would move a terminal's cursor or is not Unicode as escapes."""
    return text if text.isprintable() else ascii(text)[1:-1]


class _Clock:
    """One moment, and what a heartbeat means at it."""

    def __init__(self, tsc_hz: float | None, hung_after_ms: float) -> None:
        self.tsc_hz = tsc_hz
        self.hung_after_ms = hung_after_ms
        self.now = int(lib.tp_rdtsc())

    def role(self, ring: Ring, block: int, record: np.void) -> dict[str, Any]:
        """The fields of a RoleStatus."""
        pid, start, heartbeat = int(record["pid"]), int(record["start"]), int(record["heartbeat"])
        alive = ring.is_held(block)
        # Two cores' counters may be a few ticks apart.
        age_ms = None if self.tsc_hz is None or not heartbeat else max(0, self.now - heartbeat) * 1e3 / self.tsc_hz
        return {
            "pid": pid,
            "process": _running_name(pid, start),
            "alive": alive,
            "hung": alive and age_ms is not None and age_ms > self.hung_after_ms,
            "epoch": int(record["epoch"]),
            "heartbeat_age_ms": age_ms,
        }


def _running_name(pid: int, start: int) -> str | None:
    """The name of the very process that had this pid then; None where it has ended, waited for by its parent or not."""
    try:
        head, _, tail = Path(f"/proc/{pid}/stat").read_text(errors="replace").rpartition(")")
    except OSError:
        return None
    fields = tail.split()
    ended = fields[0] in "ZX" or int(fields[19]) != start
    return None if ended else printable(head.partition("(")[2])


def _identity(ring: Ring) -> np.void:
    raw = os.pread(ring.slots.fd, IDENTITY.itemsize, 0)
    if len(raw) < IDENTITY.itemsize:
        raise SegmentError(f"segment={ring.name}: bytes={len(raw)}, expected an identity of {IDENTITY.itemsize}: cut short")
    return np.frombuffer(raw, IDENTITY)[0]


def _placed(placement: Placement) -> dict[str, Any]:
    nodes = {str(node): size for node, size in placement.nodes.items()}
    return {
        "bytes": placement.bytes,
        "page_bytes": placement.page_bytes,
        "huge_bytes": placement.huge_bytes,
        "resident_bytes": placement.resident_bytes,
        "locked_bytes": placement.locked_bytes,
        "nodes": nodes,
    }


def _where(placement: Placement) -> str:
    nodes = ", ".join(f"{size:,} bytes on node {node}" for node, size in placement.nodes.items())
    return f"{placement.huge_bytes:,} of {placement.bytes:,} bytes huge, {nodes or 'nothing resident'}"


def _role(role: RoleStatus) -> str:
    if role.state == "absent":
        return "absent"
    beat = "" if role.heartbeat_age_ms is None else f", beat {role.heartbeat_age_ms:,.1f} ms ago"
    return f"{role.state}, pid {role.pid} ({role.process or 'gone'}), epoch {role.epoch}{beat}"


def _age(seconds: float) -> str:
    for unit, size in (("d", 86_400), ("h", 3_600), ("min", 60)):
        if seconds >= size:
            return f"{seconds / size:.1f} {unit}"
    return f"{seconds:.1f} s"
