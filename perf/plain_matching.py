"""The matching engine in plain Python, a dictionary of queues: what the events of perf/bench_matching.py and tests/ are compared with.

It shares nothing with the kernels but the names of the kinds. `minimum` is the pro-rata rule's (engine/exchange/hot/prorata.py), written
here as the rule is told; 0 is price-time priority.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.layout import BUY, SELL
from perf.hot.matching import ACCEPTED, CANCEL, CANCEL_REJECTED, CANCELED, MODIFIED, MODIFY_REJECTED, NEW

TRADED = 1

# kind, ref, taker, px, qty, left, user_ref
Event = tuple[int, int, int, int, int, int, int]


@dataclass
class Resting:
    ref: int
    number: int
    side: int
    px: int
    qty: int


class PlainEngine:
    def __init__(self, first_ref: int, minimum: int = 0) -> None:
        self.queues: dict[int, dict[int, list[Resting]]] = {BUY: {}, SELL: {}}
        self.by_number: dict[int, Resting] = {}
        self.ref = first_ref
        self.minimum = minimum
        self.events: list[Event] = []

    def run(self, orders: np.ndarray) -> list[Event]:
        columns = [orders[name].tolist() for name in ("kind", "side", "immediate", "qty", "id", "px")]
        for order in zip(*columns, strict=True):
            self.handle(*order)
        return self.events

    def handle(self, kind: int, side: int, immediate: int, qty: int, number: int, px: int) -> None:
        if kind == NEW:
            self.tell(ACCEPTED, number, qty, px)
        else:
            resting = self.by_number.get(number)
            if resting is None:
                self.tell(CANCEL_REJECTED if kind == CANCEL else MODIFY_REJECTED, number, 0, 0)
                return
            self.take_off(resting)
            if kind == CANCEL:
                self.tell(CANCELED, number, resting.qty, px)
                return
            self.tell(MODIFIED, number, qty, px)
        left = self.trade(side, qty, number, px)
        if left and immediate:
            self.tell(CANCELED, number, left, px)
        elif left:
            resting = Resting(self.ref, number, side, px, left)
            self.ref += 1
            self.queues[side].setdefault(px, []).append(resting)
            self.by_number[number] = resting

    def tell(self, kind: int, number: int, qty: int, px: int) -> None:
        self.events.append((kind, number, 0, px, qty, 0, number))

    def trade(self, side: int, qty: int, number: int, px: int) -> int:
        """Returns what is left."""
        queues = self.queues[SELL if side == BUY else BUY]
        while qty and queues:
            best = min(queues) if side == BUY else max(queues)
            if best > px if side == BUY else best < px:
                break
            for resting, traded in self.allocation(list(queues[best]), qty):
                resting.qty -= traded
                qty -= traded
                self.events.append((TRADED, resting.ref, number, best, traded, resting.qty, resting.number))
                if resting.qty == 0:
                    self.take_off(resting)
        return qty

    def allocation(self, queue: list[Resting], qty: int) -> list[tuple[Resting, int]]:
        """Who of one price trades how much of `qty`, in the order of arrival; nobody with 0."""
        pool = sum(resting.qty for resting in queue)
        shares = [0] * len(queue)
        if self.minimum and pool > qty:
            shares = [resting.qty * qty // pool for resting in queue]
            shares = [share if share >= self.minimum else 0 for share in shares]
        spare = qty - sum(shares)
        given = []
        for resting, share in zip(queue, shares, strict=True):
            extra = min(spare, resting.qty - share)
            spare -= extra
            given.append((resting, share + extra))
        return [(resting, traded) for resting, traded in given if traded]

    def take_off(self, resting: Resting) -> None:
        del self.by_number[resting.number]
        queue = self.queues[resting.side][resting.px]
        queue.remove(resting)
        if not queue:
            del self.queues[resting.side][resting.px]


def told(events: Any) -> list[Event]:
    """The kernels' events as the plain engine's."""
    columns = [events[name].tolist() for name in ("kind", "ref", "taker", "px", "qty", "left", "user_ref")]
    return list(zip(*columns, strict=True))
