"""What everybody could see of the venue: its market data, every packet of it before anything is lost, as a book in plain Python.

It knows no accounts. That what each account was told agrees with what was published (tests/sim_judge.py) shows that the venue's truth is
one: an order that rests is shown, what traded was traded with somebody, and who was first was served first.
"""

import struct
from collections import defaultdict
from dataclasses import dataclass
from typing import NamedTuple

from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, SEQUENCE_AT
from tests.exchange_rig import framed

NO_MESSAGES = (0, 0xFFFF)
# ITCH 5.0, behind the header of 11 bytes; all begin with the ref but Q and H.
ADD = struct.Struct(">QcI8sI")
EXECUTED = struct.Struct(">QIQ")
EXECUTED_AT = struct.Struct(">QIQcI")
CANCEL = struct.Struct(">QI")
DELETE = struct.Struct(">Q")
REPLACE = struct.Struct(">QQII")
CROSS = struct.Struct(">Q8sIQc")
ACTION = struct.Struct(">8sc")
HEADER = 11


@dataclass
class Shown:
    locate: int
    side: bytes
    px: int
    qty: int


class Printed(NamedTuple):
    """An execution as it was published. left: what the order had left."""

    ref: int
    qty: int
    px: int
    left: int


class Cross(NamedTuple):
    locate: int
    letter: str
    qty: int
    px: int


class Witness:
    """orders: what is shown, by ref; printed: executions by match number; crosses likewise. shares: the locates that share a price."""

    def __init__(self, shares: set[int]) -> None:
        self.shares = shares
        self.orders: dict[int, Shown] = {}
        self.queues: dict[tuple[int, bytes, int], dict[int, None]] = defaultdict(dict)
        self.printed: dict[int, list[Printed]] = defaultdict(list)
        self.crosses: dict[int, Cross] = {}
        self.actions: dict[str, int] = defaultdict(int)
        self.shared = 0
        self.next = 1
        self.problems: list[str] = []

    def hear(self, raw: bytes) -> None:
        """A MoldUDP64 packet."""
        count = int.from_bytes(raw[COUNT_AT:HEADER_BYTES], "big")
        if count in NO_MESSAGES:
            return
        sequence = int.from_bytes(raw[SEQUENCE_AT:COUNT_AT], "big")
        if sequence != self.next:
            self.problems.append(f"the market's sequence went from {self.next} to {sequence}")
        self.next = sequence + count
        for message in framed(raw[HEADER_BYTES:]):
            self.take(chr(message[0]), int.from_bytes(message[1:3], "big"), message)

    def take(self, code: str, locate: int, raw: bytes) -> None:
        if code in "AF":
            ref, side, qty, _, px = ADD.unpack_from(raw, HEADER)
            self.show(ref, locate, side, px, qty)
        elif code == "E":
            ref, qty, match = EXECUTED.unpack_from(raw, HEADER)
            self.judge_turn(ref)
            self.trade(ref, qty, match, self.orders[ref].px)
        elif code == "C":
            ref, qty, match, _, px = EXECUTED_AT.unpack_from(raw, HEADER)
            self.trade(ref, qty, match, px)
        elif code == "X":
            ref, qty = CANCEL.unpack_from(raw, HEADER)
            self.reduce(ref, qty)
        elif code == "D":
            self.hide(DELETE.unpack_from(raw, HEADER)[0])
        elif code == "U":
            ref, new_ref, qty, px = REPLACE.unpack_from(raw, HEADER)
            old = self.hide(ref)
            self.show(new_ref, old.locate, old.side, px, qty)
        elif code == "Q":
            qty, _, px, match, letter = CROSS.unpack_from(raw, HEADER)
            self.crosses[match] = Cross(locate, letter.decode(), qty, px)
        elif code == "H":
            self.actions[ACTION.unpack_from(raw, HEADER)[1].decode()] += 1

    def show(self, ref: int, locate: int, side: bytes, px: int, qty: int) -> None:
        self.orders[ref] = Shown(locate, side, px, qty)
        self.queues[locate, side, px][ref] = None

    def hide(self, ref: int) -> Shown:
        gone = self.orders.pop(ref)
        queue = self.queues[gone.locate, gone.side, gone.px]
        del queue[ref]
        if not queue:
            del self.queues[gone.locate, gone.side, gone.px]
        return gone

    def reduce(self, ref: int, qty: int) -> None:
        self.orders[ref].qty -= qty
        if self.orders[ref].qty <= 0:
            self.hide(ref)

    def trade(self, ref: int, qty: int, match: int, px: int) -> None:
        self.printed[match].append(Printed(ref, qty, px, self.orders[ref].qty - qty))
        if self.orders[ref].qty < qty:
            self.problems.append(f"order {ref} traded {qty} and had {self.orders[ref]}")
        self.reduce(ref, qty)

    def judge_turn(self, ref: int) -> None:
        """Whether it was this order's turn: of its side the best price, and there the oldest; a shared price goes to all at once."""
        order = self.orders[ref]
        prices = [px for locate, side, px in self.queues if (locate, side) == (order.locate, order.side)]
        if order.px != (max(prices) if order.side == b"B" else min(prices)):
            self.problems.append(f"order {ref} traded at {order.px} though there were better ones: {sorted(set(prices))}")
        first = next(iter(self.queues[order.locate, order.side, order.px]))
        if first != ref and order.locate in self.shares:
            self.shared += 1
        elif first != ref:
            self.problems.append(f"order {ref} traded before order {first}, which was there first")
