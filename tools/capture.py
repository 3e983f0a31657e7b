"""`tickpath capture show`: what is in a packet capture, destination by destination, and how its lines complete each other."""

import datetime
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import Any

from engine.feed import itch
from engine.feed.capture import Capture, is_itch, mold_packet
from engine.feed.frames import REFUSALS, address_text
from engine.feed.moldudp64 import END_OF_SESSION, HEARTBEAT

# Holes in a numbered stream that are remembered, to be filled by packets that come late.
HOLES_MAX = 10_000
# Destinations and sessions looked at one by one; a capture of everything on a network has many more.
STREAMS_MAX = 4_096


@dataclass
class Numbered:
    """Which messages of a session have been seen: from the first number on, less the holes [start, stop)."""

    first: int = 0
    next: int = 0
    messages: int = 0
    duplicates: int = 0
    gaps: int = 0
    given_up: int = 0
    holes: list[tuple[int, int]] = field(default_factory=list)

    def take(self, sequence: int, count: int) -> int:
        """Take `count` messages from `sequence` on, and return how many of them are new."""
        if not self.messages and not self.next:
            self.first = self.next = sequence
        if sequence > self.next:
            self.gaps += 1
            self.holes.append((self.next, sequence))
            if len(self.holes) > HOLES_MAX:
                start, stop = self.holes.pop(0)
                self.given_up += stop - start
        end = sequence + count
        new = max(end - max(self.next, sequence), 0)
        if sequence < self.next:
            new += self._fill(sequence, min(end, self.next))
        self.next = max(self.next, end)
        self.messages += new
        self.duplicates += count - new
        return new

    @property
    def missing(self) -> int:
        return self.given_up + sum(stop - start for start, stop in self.holes)

    def _fill(self, start: int, stop: int) -> int:
        """Fill what of the holes lies in [start, stop): how many messages that are."""
        filled, left = 0, []
        for low, high in self.holes:
            filled += max(0, min(high, stop) - max(low, start))
            left += [(a, b) for a, b in ((low, min(high, start)), (max(low, stop), high)) if a < b]
        self.holes = left
        return filled


@dataclass
class Stream:
    """What went to one destination. `other` counts datagrams that are not MoldUDP64; sessions by name."""

    destination: int
    first_ns: int
    last_ns: int = 0
    packets: int = 0
    payload_bytes: int = 0
    other: int = 0
    not_itch: int = 0
    heartbeats: int = 0
    ends: int = 0
    sessions: dict[str, Numbered] = field(default_factory=dict)

    def take(self, ts_ns: int, payload: bytes, unions: "dict[str, Union]") -> None:
        self.packets += 1
        self.payload_bytes += len(payload)
        self.last_ns = max(self.last_ns, ts_ns)
        packet = mold_packet(payload)
        if packet is None or (packet.session not in self.sessions and len(self.sessions) == STREAMS_MAX):
            self.other += 1
            return
        seen = self.sessions.setdefault(packet.session, Numbered())
        self.not_itch += not is_itch(packet)
        self.heartbeats += packet.count == HEARTBEAT
        self.ends += packet.count == END_OF_SESSION
        if packet.messages or seen.next:
            seen.take(packet.sequence, len(packet.messages))
        union = unions.setdefault(packet.session, Union())
        if packet.messages or union.seen.next:
            union.first[self.destination] += union.seen.take(packet.sequence, len(packet.messages))
        union.types.update(chr(raw[0]) for raw in packet.messages if raw)


@dataclass
class Union:
    """One session over all its lines: each message counts for the line that had it first."""

    seen: Numbered = field(default_factory=Numbered)
    first: Counter[int] = field(default_factory=Counter)
    types: Counter[str] = field(default_factory=Counter)


@dataclass
class Survey:
    """What a whole capture holds."""

    capture: Capture
    streams: dict[int, Stream]
    unions: dict[str, Union]
    first_ns: int
    last_ns: int
    unlisted: int

    def to_dict(self) -> dict[str, Any]:
        capture = self.capture
        return {
            "capture": str(capture.path),
            "format": capture.format,
            "packets": capture.frames,
            "datagrams": capture.datagrams,
            "first_ns": self.first_ns,
            "last_ns": self.last_ns,
            "skipped": {kind: capture.refused[kind] for kind in REFUSALS} | {"unreadable": capture.unreadable},
            "untimed": capture.untimed,
            "torn": capture.torn,
            "unlisted": self.unlisted,
            "destinations": [_stream_dict(stream) for stream in self.streams.values()],
            "sessions": [_union_dict(name, union) for name, union in self.unions.items()],
        }


def survey(path: Path) -> Survey:
    """Read a whole capture. OSError where it cannot be read, ValueError where it is none."""
    streams: dict[int, Stream] = {}
    unions: dict[str, Union] = {}
    first_ns = last_ns = unlisted = 0
    with Capture(path) as capture:
        for ts_ns, _, destination, payload in capture.read():
            first_ns = ts_ns if capture.datagrams == 1 else min(first_ns, ts_ns)
            last_ns = max(last_ns, ts_ns)
            stream = streams.get(destination)
            if stream is None:
                if len(streams) == STREAMS_MAX:
                    unlisted += 1
                    continue
                stream = streams[destination] = Stream(destination, ts_ns)
            stream.take(ts_ns, payload, unions)
    return Survey(capture, streams, unions, first_ns, last_ns, unlisted)


def lines_of(found: Survey) -> Iterator[str]:
    """A survey for a terminal."""
    capture = found.capture
    span = f", {utc(found.first_ns)} to {utc(found.last_ns)} ({(found.last_ns - found.first_ns) / 1e9:.6f} s)" if capture.datagrams else ""
    yield f"{capture.path.name}: {capture.format}, {_of(capture.frames, 'packet')}, {_of(capture.datagrams, 'UDP datagram')}{span}"
    if found.streams:
        yield f"{'destination':<22}{'packets':>10}{'bytes':>12}  payload"
    for stream in found.streams.values():
        first, *more = _payload(stream)
        yield f"{address_text(stream.destination):<22}{stream.packets:>10}{stream.payload_bytes:>12}  {first}"
        yield from (f"{'':<46}{line}" for line in more)
    for name, union in found.unions.items():
        if len(union.first) > 1 and union.seen.messages:
            shares = ", ".join(f"{address_text(to)} was first with {count}" for to, count in union.first.items())
            yield f"session {name}: its lines together have {_of(union.seen.messages, 'message')}, {union.seen.missing} missing; {shares}"
        if union.types:
            yield f"session {name} by type: " + ", ".join(f"{kind} {count}" for kind, count in union.types.most_common())
    if found.unlisted:
        yield f"{found.unlisted} datagrams to more destinations than {STREAMS_MAX}: not listed"
    yield from capture.passed_over()


def messages(path: Path, count: int) -> Iterator[str]:
    """The first `count` messages of a capture as text, one a line, in the order in which its packets lie in it."""
    with Capture(path) as capture:
        yield from islice(_texts(capture), count)
    yield from capture.passed_over()


def _texts(capture: Capture) -> Iterator[str]:
    for ts_ns, _, destination, payload in capture.read():
        head = f"{utc(ts_ns)} {address_text(destination)}"
        packet = mold_packet(payload)
        if packet is None:
            yield f"{head} {len(payload)} bytes, not MoldUDP64: {payload[:16].hex(' ')}"
        elif packet.count in (HEARTBEAT, END_OF_SESSION):
            yield f"{head} {packet.session} {packet.sequence} {'heartbeat' if packet.count == HEARTBEAT else 'end of session'}"
        else:
            for number, raw in enumerate(packet.messages, packet.sequence):
                yield f"{head} {packet.session} {number} {_message_text(raw)}"


def _message_text(raw: bytes) -> str:
    message = itch.BY_CODE.get(raw[0]) if raw else None
    if message is None or message.length != len(raw):
        return f"{len(raw)} bytes, not ITCH 5.0: {raw[:16].hex(' ')}"
    try:
        values = message.decode(raw)
    except UnicodeDecodeError:
        return f"{message.name}: text that is not ASCII: {raw.hex(' ')}"
    return f"{message.name} " + " ".join(f"{name}={value}" for name, value in values.items())


def utc(ts_ns: int) -> str:
    """A time since the epoch to the nanosecond, in UTC."""
    seconds, fraction = divmod(ts_ns, 1_000_000_000)
    try:
        return f"{datetime.datetime.fromtimestamp(seconds, datetime.UTC):%Y-%m-%dT%H:%M:%S}.{fraction:09d}Z"
    except (OverflowError, ValueError, OSError):
        return f"{ts_ns} ns"


def _payload(stream: Stream) -> list[str]:
    said = []
    for name, seen in stream.sessions.items():
        text = f"MoldUDP64 session {name}: "
        if seen.messages:
            text += f"{_of(seen.messages, 'message')} from {seen.first} to {seen.next - 1}"
            text += f", {seen.missing} missing in {_of(seen.gaps, 'gap')}" if seen.gaps else ", no gap"
            text += f", {_of(seen.duplicates, 'duplicate')}" * bool(seen.duplicates)
        else:
            text += "no message"
        said.append(text)
    for count, what in (
        (stream.heartbeats, "heartbeat"),
        (stream.ends, "end of session"),
        (stream.not_itch, "packet that is not ITCH 5.0"),
    ):
        if count:
            said.append(f"{count} x {what}")
    if stream.other:
        said.append("not MoldUDP64" if stream.other == stream.packets else f"{_of(stream.other, 'datagram')} not MoldUDP64")
    return said


def _of(count: int, what: str) -> str:
    return f"{count} {what}{'s' * (count != 1)}"


def _stream_dict(stream: Stream) -> dict[str, Any]:
    counted = {
        name: getattr(stream, name) for name in ("packets", "payload_bytes", "heartbeats", "ends", "not_itch", "first_ns", "last_ns")
    }
    sessions = {name: _numbered_dict(seen) for name, seen in stream.sessions.items()}
    return {"address": address_text(stream.destination), **counted, "not_mold": stream.other, "sessions": sessions}


def _union_dict(name: str, union: Union) -> dict[str, Any]:
    first = {address_text(to): count for to, count in union.first.items()}
    return {"session": name, **_numbered_dict(union.seen), "first_with": first, "types": dict(union.types)}


def _numbered_dict(seen: Numbered) -> dict[str, int]:
    counted = {name: getattr(seen, name) for name in ("messages", "duplicates", "gaps", "missing")}
    return {"first": seen.first, "last": seen.next - 1, **counted}
