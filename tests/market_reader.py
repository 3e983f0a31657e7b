"""A reader of the simulated exchange that shares no code with it: formats spelled out from the specifications, a book of plain lists.

MoldUDP64 1.00, SoupBinTCP 3.00, Glimpse 5.0 and the order messages of TotalView-ITCH 5.0.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass, field
from typing import NamedTuple

MOLD = struct.Struct(">10sQH")
# Type, locate, tracking, and a time of six bytes, which are left out below.
HEAD = struct.Struct(">cHHHI")
BODIES = {
    b"A": struct.Struct(">QcI8sI"),
    b"F": struct.Struct(">QcI8sI4s"),
    b"E": struct.Struct(">QIQ"),
    b"C": struct.Struct(">QIQcI"),
    b"X": struct.Struct(">QI"),
    b"D": struct.Struct(">Q"),
    b"U": struct.Struct(">QQII"),
}


class Packet(NamedTuple):
    session: bytes
    sequence: int
    count: int
    messages: list[bytes]


class Order(NamedTuple):
    ref: int
    qty: int
    mpid: bytes


def downstream(raw: bytes) -> Packet:
    """A MoldUDP64 packet. AssertionError where its count or its lengths do not fit its size."""
    session, sequence, count = MOLD.unpack_from(raw)
    messages, at = [], MOLD.size
    while at < len(raw):
        (length,) = struct.unpack_from(">H", raw, at)
        assert at + 2 + length <= len(raw), "a message is cut off"
        messages.append(raw[at + 2 : at + 2 + length])
        at += 2 + length
    assert len(messages) == (0 if count == 0xFFFF else count)
    return Packet(session, sequence, count, messages)


def request(session: bytes, sequence: int, count: int) -> bytes:
    return MOLD.pack(session.ljust(10), sequence, count)


def login(username: str, password: str, session: str = "", sequence: str = "1") -> bytes:
    return struct.pack(">Hc", 47, b"L") + f"{username:6}{password:10}{session:10}{sequence:>20}".encode()


def soup_packets(raw: bytes) -> tuple[list[tuple[bytes, bytes]], bytes]:
    """Whole SoupBinTCP packets as type and payload, and what is left."""
    found, at = [], 0
    while len(raw) - at >= 2 and len(raw) - at >= 2 + (size := struct.unpack_from(">H", raw, at)[0]):
        found.append((raw[at + 2 : at + 3], raw[at + 3 : at + 2 + size]))
        at += 2 + size
    return found, raw[at:]


@dataclass
class PlainBook:
    """Orders in their queues: {(locate, side, px): [Order, ...]}, first in line first."""

    queues: dict[tuple[int, bytes, int], list[Order]] = field(default_factory=lambda: defaultdict(list))
    places: dict[int, tuple[int, bytes, int]] = field(default_factory=dict)

    def apply(self, raw: bytes) -> None:
        kind = raw[:1]
        if kind not in BODIES:
            return
        _, locate, *_ = HEAD.unpack_from(raw)
        assert len(raw) == HEAD.size + BODIES[kind].size
        fields = BODIES[kind].unpack_from(raw, HEAD.size)
        ref = fields[0]
        if kind in b"AF":
            _, side, qty, _, px, *mpid = fields
            self._add(Order(ref, qty, mpid[0] if mpid else b""), (locate, side, px))
        elif kind in b"ECX":
            self._reduce(ref, locate, fields[1])
        elif kind == b"D":
            self._remove(ref, locate)
        else:
            _, new_ref, qty, px = fields
            old, (_, side, _) = self._remove(ref, locate)
            self._add(Order(new_ref, qty, old.mpid), (locate, side, px))

    def _add(self, order: Order, place: tuple[int, bytes, int]) -> None:
        assert order.ref not in self.places and order.qty > 0
        self.places[order.ref] = place
        self.queues[place].append(order)

    def _remove(self, ref: int, locate: int) -> tuple[Order, tuple[int, bytes, int]]:
        place = self.places.pop(ref)
        assert place[0] == locate
        queue = self.queues[place]
        order = next(order for order in queue if order.ref == ref)
        queue.remove(order)
        if not queue:
            del self.queues[place]
        return order, place

    def _reduce(self, ref: int, locate: int, qty: int) -> None:
        place = self.places[ref]
        assert place[0] == locate
        queue = self.queues[place]
        at = next(at for at, order in enumerate(queue) if order.ref == ref)
        assert queue[at].qty >= qty
        queue[at] = queue[at]._replace(qty=queue[at].qty - qty)
        if queue[at].qty == 0:
            self._remove(ref, locate)


@dataclass
class Snapshot:
    """What a Glimpse server said: the messages before the end, and where the feed goes on (0: the end has not come)."""

    messages: list[bytes] = field(default_factory=list)
    sequence: int = 0

    def take(self, raw: bytes) -> None:
        assert self.sequence == 0, "something comes after the end of the snapshot"
        if raw[:1] == b"G":
            assert len(raw) == 21 and raw[1:].isdigit()
            self.sequence = int(raw[1:])
        else:
            self.messages.append(raw)

    def book(self) -> PlainBook:
        made = PlainBook()
        for raw in self.messages:
            assert raw[:1] in b"SRHYNhAF"
            made.apply(raw)
        return made
