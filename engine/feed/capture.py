"""The market data in a packet capture: its UDP datagrams, which of them are the feed's two lines, and the messages they carry.

Everything else in the file is counted by what it is (engine/feed/frames.py REFUSALS, datagrams to other addresses), never lost in
silence. The lines are told apart by where a datagram was sent to.
"""

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.feed import itch
from engine.feed.frames import REFUSALS, Datagram, address_of, address_text, datagram_in
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, HEARTBEAT, LENGTH_BYTES, SEQUENCE_AT, SESSION_AT, SESSION_BYTES
from engine.feed.pcap import CaptureFrames

# Where the second line is looked for: behind the first packet of the first line, at most so many datagrams.
LOOKED_AT = 100_000
# Destinations named in a sentence about those that are there.
NAMED_MAX = 6


class Capture(CaptureFrames):
    """A capture as the UDP datagrams in it. `refused` counts the frames that were none, by REFUSALS."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.datagrams = 0
        self.refused: Counter[str] = Counter()

    def read(self) -> Iterator[Datagram]:
        """The datagrams, once, in the file's order."""
        for ts_ns, link, raw, _ in self:
            found = datagram_in(ts_ns, link, raw)
            if isinstance(found, str):
                self.refused[found] += 1
            else:
                self.datagrams += 1
                yield found

    def passed_over(self) -> list[str]:
        """A sentence about each kind of frame that was not read, and about where the file ends too early."""
        said = [f"{count} of {self.frames} packets {REFUSALS[kind]}: skipped" for kind, count in self.refused.most_common()]
        if self.unreadable:
            said.append(f"{self.unreadable} packets contradict their own block, name no interface, or have a time that cannot be: skipped")
        if self.untimed:
            said.append(f"{self.untimed} packets have no time: taken to be as late as the one before")
        return said + [self.torn] * bool(self.torn)


class NotTheFeed(ValueError):
    """A capture of UDP datagrams, none of which is MoldUDP64 with ITCH 5.0. The text names where they went."""


@dataclass(frozen=True)
class Packet:
    """A MoldUDP64 downstream packet. `count` is as it says: 0 a heartbeat, 0xFFFF the session's end."""

    session: str
    sequence: int
    count: int
    messages: list[bytes]


def mold_packet(payload: bytes) -> Packet | None:
    """A payload as MoldUDP64, where it is framed as such to its last byte."""
    if len(payload) < HEADER_BYTES:
        return None
    session = payload[SESSION_AT : SESSION_AT + SESSION_BYTES]
    sequence = int.from_bytes(payload[SEQUENCE_AT:COUNT_AT], "big")
    count = int.from_bytes(payload[COUNT_AT:HEADER_BYTES], "big")
    messages = []
    at = HEADER_BYTES
    for _ in range(0 if count in (HEARTBEAT, END_OF_SESSION) else count):
        length = int.from_bytes(payload[at : at + LENGTH_BYTES], "big")
        at += LENGTH_BYTES + length
        if at > len(payload):
            return None
        messages.append(payload[at - length : at])
    if at != len(payload) or not (session.isascii() and session.decode("ascii").isprintable()):
        return None
    return Packet(session.decode("ascii").rstrip(), sequence, count, messages)


def is_itch(packet: Packet) -> bool:
    """Whether the messages of a packet, if it has any, are ITCH 5.0 as far as their types and lengths can say."""
    known = [itch.BY_CODE.get(raw[0]) if raw else None for raw in packet.messages]
    return not known or any(message is not None and message.length == len(raw) for message, raw in zip(known, packet.messages, strict=True))


@dataclass(frozen=True)
class Lines:
    """The destinations in a capture that are line A and line B (None: there is no second), and the time of its first datagram; the
    session and the lowest number that a line begins with, where they were looked for."""

    a: int
    b: int | None
    first_ns: int
    session: str = ""
    sequence: int = 0

    def of(self, destination: int) -> int:
        """0 for line A, 1 for line B, -1 for neither."""
        return 0 if destination == self.a else 1 if destination == self.b else -1

    def __str__(self) -> str:
        return f"line A is {address_text(self.a)}" + (
            f", line B {address_text(self.b)}" if self.b is not None else ", and there is no line B"
        )


def find_lines(path: Path) -> Lines:
    """The lines of the first MoldUDP64 session with ITCH in a capture: where its first packet was sent to, and the next address after.

    OSError where the file cannot be read, ValueError where it is no capture or holds no such packet.
    """
    seen: Counter[int] = Counter()
    first_ns, session, sequence, a, looked = -1, "", 0, -1, 0
    with Capture(path) as capture:
        for ts_ns, _, destination, payload in capture.read():
            first_ns = ts_ns if first_ns < 0 else first_ns
            seen[destination] += 1
            looked += a >= 0
            if looked > LOOKED_AT:
                break
            if destination == a:
                continue
            packet = mold_packet(payload)
            if packet is None or not is_itch(packet):
                continue
            if a < 0:
                a, session, sequence = destination, packet.session, packet.sequence
            elif packet.session == session:
                return Lines(a, destination, first_ns, session, min(sequence, packet.sequence))
    if a < 0:
        refused = NotTheFeed if seen else ValueError
        raise refused(f"capture={path}: expected MoldUDP64 packets with ITCH 5.0 in them; {_held(capture, seen)}")
    return Lines(a, None, first_ns, session, sequence)


def chosen_lines(path: Path, address: str, address_b: str, keys: tuple[str, str] = ("feed.address", "feed.address_b")) -> Lines:
    """The lines that these addresses name ("" for address_b: there is no line B). ValueError where nothing was sent to one of them;
    `keys` is what the user calls the two."""
    a, b = address_of(address), address_of(address_b) if address_b else None
    if a == b:
        raise ValueError(f"{keys[1]}={address_b}: it is line A's address too; expected another, or none")
    wanted = {a} if b is None else {a, b}
    seen: Counter[int] = Counter()
    first_ns = -1
    with Capture(path) as capture:
        for datagram in capture.read():
            first_ns = datagram.ts_ns if first_ns < 0 else first_ns
            seen[datagram.destination] += 1
            wanted.discard(datagram.destination)
            if not wanted:
                return Lines(a, b, first_ns)
    key, missing = (keys[0], address) if a in wanted else (keys[1], address_b)
    raise ValueError(f"{key}={missing}: nothing in the capture {path} was sent there; {_held(capture, seen)}")


def messages_of(path: Path, lines: Lines) -> Iterator[bytes]:
    """The messages of a capture's two lines, each once, in the order of their numbers; what neither line has is passed over."""
    session, expected = "", 0
    with Capture(path) as capture:
        for datagram in capture.read():
            packet = mold_packet(datagram.payload) if lines.of(datagram.destination) >= 0 else None
            if packet is None or not packet.messages:
                continue
            if packet.session != session:
                session, expected = packet.session, packet.sequence
            yield from packet.messages[max(expected - packet.sequence, 0) :]
            expected = max(expected, packet.sequence + len(packet.messages))


def _held(capture: Capture, seen: Counter[int]) -> str:
    """What a capture holds, for who looked for something else."""
    if not seen:
        return "it holds no UDP datagram: " + ("; ".join(capture.passed_over()) or "it is empty")
    named = [f"{address_text(destination)} ({count})" for destination, count in seen.most_common(NAMED_MAX)]
    more = f" and {len(seen) - NAMED_MAX} others" if len(seen) > NAMED_MAX else ""
    return f"its {capture.datagrams} UDP datagrams went to {', '.join(named)}{more}"
