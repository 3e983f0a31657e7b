"""Trading on paper: by which rule our orders fill beside a real market, what happens where its book is in doubt, and that nothing is
published. The rule is told a second time in plain Python, and both trade the same day.
"""

import random
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from engine.feed import itch
from engine.feed.hot.handover import NOTICE_CLEAR, NOTICE_CLEAR_ONE, NOTICE_VALIDITY
from engine.layout import BOOK_GAPPED, BOOK_STALE, BOOK_SUSPECT, BOOK_VALID, MARKET
from shm.ring import Ring
from tests.exchange_rig import (
    Bench,
    Message,
    Rig,
    add,
    cancel,
    deleted,
    enter,
    executed,
    open_orders,
    reduced,
    replace,
    replaced,
    rig,
)
from tests.itch_flow import unframe
from tests.running import AAPL

PX = 1_500_000
LISTED = itch.STOCK_DIRECTORY.encode(
    locate=1, tracking=0, timestamp=0, stock="AAPL", market_category="Q", financial_status="N", round_lot_size=100, round_lots_only="N",
    issue_classification="C", issue_subtype="Z", authenticity="P", short_sale_threshold="N", ipo_flag="N", luld_tier="1", etp_flag="N",
    etp_leverage=0, inverse="N",
)  # fmt: skip


def market_ring(capacity: int = 4096) -> Ring:
    return Ring.create(f"test-paper-{uuid.uuid4().hex[:12]}.market", capacity, {"market": MARKET}, ["exchange"])


def payload(raw: bytes) -> bytes:
    """What stands in a slot of the ring behind its sequence."""
    return (len(raw).to_bytes(2, "big") + raw).ljust(MARKET.itemsize - 8, b"\0")


def notice(code: int, value: int, locate: int = 1) -> bytes:
    return bytes([code]) + locate.to_bytes(2, "big") + bytes([value])


class PaperBench(Bench):
    """A paper exchange with one client, and a feed handler's end of the market's ring; one thing at a time."""

    def __init__(self, made: Rig, ring: Ring) -> None:
        self.producer = ring.producer(MARKET)
        self.rig = made
        self.client = made.wire_client()
        self.heard = b""
        self.market: list[Message] = []
        self.reports: list[Message] = []
        self._read = 0
        self._fills: list[tuple[int, int, int]] = []

    def happen(self, raw: bytes) -> None:
        assert self.producer.push(payload(raw), timeout=0)
        self._turn()

    def worth(self, flags: int) -> None:
        self.happen(notice(NOTICE_VALIDITY, flags))

    def fills(self) -> list[tuple[int, int, int]]:
        """(user_ref, quantity, price) of every execution so far."""
        new = self.reports[self._read :]
        self._read = len(self.reports)
        self._fills += [(report["user_ref"], report["quantity"], report["px"]) for report in new if report["type"] == "E"]
        return self._fills

    def resting(self) -> list[int]:
        """The user_refs of our open orders."""
        return [order["user_ref"] for order in open_orders(self.rig) if order["user_ref"]]

    def last(self) -> Message:
        return self.reports[-1]


@contextmanager
def paper(folder: Path, *, listed: bool = True, **changes: Any) -> Iterator[PaperBench]:
    ring = market_ring()
    with rig(folder, flow="paper", market=ring, **changes) as made:
        found = PaperBench(made, ring)
        if listed:
            found.happen(LISTED)
        try:
            yield found
        finally:
            found.producer.close()
            ring.unlink()


# The rule, case by case: what was there, what happens then, and what of our order (100 to buy at PX, behind all that was there) fills.

AHEAD = [add(1, "B", 300, PX), add(2, "B", 200, PX)]
RULE: dict[str, tuple[list[bytes], int]] = {
    "nothing while it trades ahead of us": ([executed(1, 300, 1)], 0),
    "nothing when all that was ahead has traded": ([executed(1, 300, 1), executed(2, 200, 2)], 0),
    "what trades behind us": ([add(3, "B", 50, PX), executed(3, 50, 3)], 50),
    "no more than we have": ([add(3, "B", 500, PX), executed(3, 400, 3)], 100),
    "what trades behind us, with orders still ahead": ([add(3, "B", 50, PX), executed(3, 50, 3)], 50),
    "what trades at a worse price": ([add(3, "B", 70, PX - 100), executed(3, 60, 3)], 60),
    "nothing at a better price": ([add(3, "B", 70, PX + 100), executed(3, 70, 3)], 0),
    "nothing when those ahead are cancelled": ([deleted(1), reduced(2, 150)], 0),
    "what trades behind one that lost its place": ([replaced(1, 11, 300, PX), executed(11, 40, 4)], 40),
    "nothing of one that was reduced and kept its place": ([reduced(1, 100), executed(1, 200, 4)], 0),
    "what crosses us when it comes": ([deleted(1), deleted(2), add(4, "S", 30, PX)], 30),
    "what crosses us by more": ([deleted(1), deleted(2), add(4, "S", 30, PX - 500)], 30),
    "what is replaced across us": ([add(4, "S", 30, PX + 500), replaced(4, 5, 30, PX)], 30),
    "nothing of what does not reach us": ([add(4, "S", 30, PX + 100)], 0),
    "an execution at another price than the order's": ([add(3, "B", 50, PX), executed(3, 50, 3, px=PX - 50)], 50),
    "nothing of a trade against a hidden order": (
        [itch.TRADE.encode(locate=1, tracking=0, timestamp=0, ref=0, side="B", shares=90, stock="AAPL", px=PX, match=9)], 0,
    ),
}  # fmt: skip


@pytest.mark.parametrize("what", RULE)
def test_our_order_fills_by_its_place_in_the_queue(tmp_path: Path, what: str) -> None:
    happening, filled = RULE[what]
    with paper(tmp_path) as bench:
        for raw in AHEAD:
            bench.happen(raw)
        bench.say(enter(1, "B", 100, PX))
        for raw in happening:
            bench.happen(raw)
        assert sum(qty for _, qty, _ in bench.fills()) == filled
        assert all(px == PX for _, _, px in bench.fills()), "a resting order fills at its own price"


def test_what_we_take_is_withdrawn_and_does_not_trade_again(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        for raw in (add(1, "S", 100, PX), add(2, "S", 100, PX)):
            bench.happen(raw)
        bench.say(enter(1, "B", 150, PX, tif="3"))
        assert bench.fills() == [(1, 100, PX), (1, 50, PX)]
        bench.say(enter(2, "B", 100, PX, tif="3"))
        assert bench.fills()[2:] == [(2, 50, PX)]
        for raw in (executed(1, 100, 1), executed(2, 100, 2)):
            bench.happen(raw)
        assert open_orders(bench.rig) == []
        assert bench.rig.count("diverged") == 2


def test_an_order_that_we_took_from_stays_smaller_when_it_is_replaced(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.happen(add(1, "S", 100, PX))
        bench.say(enter(1, "B", 30, PX, tif="3"))
        bench.happen(replaced(1, 2, 100, PX + 100))
        assert [(order["ref"], order["qty"]) for order in open_orders(bench.rig)] == [(2, 70)]


def test_nothing_is_published(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.happen(add(1, "S", 100, PX))
        bench.say(enter(1, "B", 150, PX))
        bench.say(cancel(1))
        for _ in range(5):
            bench.rig.step(after_ns=2_000_000_000)
        bench.rig.listener.setblocking(False)
        with pytest.raises(BlockingIOError):
            bench.rig.listener.recv(65_536)
        assert (bench.rig.count("packets"), bench.rig.count("replayed")) == (0, 2)


# Doubt


@pytest.mark.parametrize("flags", [BOOK_GAPPED, BOOK_SUSPECT])
def test_nothing_fills_while_the_book_is_not_proven(tmp_path: Path, flags: int) -> None:
    with paper(tmp_path) as bench:
        bench.happen(AHEAD[0])
        bench.say(enter(1, "B", 100, PX))
        bench.say(enter(9, "S", 100, PX + 300))
        bench.worth(flags)
        for raw in (add(3, "B", 500, PX), executed(3, 100, 3), add(4, "S", 30, PX)):
            bench.happen(raw)
        for raw in (add(5, "S", 500, PX + 300), executed(5, 100, 5)):
            bench.happen(raw)
        assert bench.fills() == []
        assert bench.rig.count("doubted") == 5
        bench.say(enter(10, "B", 100, PX - 100))
        assert bench.last()["type"] == "J"
        bench.say(enter(11, "S", 100, PX, tif="3"))
        assert bench.last()["type"] == "J"
        bench.worth(BOOK_VALID)
        # The sale at PX has run over our order: nobody knows what would have become of it.
        assert bench.resting() == [9]
        assert (bench.last()["type"], bench.last()["user_ref"], bench.rig.count("places_lost")) == ("C", 1, 1)
        bench.say(enter(12, "B", 100, PX - 100))
        assert sorted(bench.resting()) == [9, 12]


def test_an_order_that_doubt_has_not_run_over_keeps_its_place(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.happen(AHEAD[0])
        bench.say(enter(1, "B", 100, PX))
        bench.worth(BOOK_GAPPED)
        bench.happen(add(3, "B", 500, PX))
        bench.happen(executed(1, 300, 1))
        bench.worth(BOOK_VALID)
        bench.happen(executed(3, 60, 3))
        assert bench.fills() == [(1, 60, PX)]


def test_a_cancel_passes_while_the_book_is_in_doubt(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.say(enter(1, "B", 100, PX))
        bench.worth(BOOK_GAPPED)
        bench.say(cancel(1))
        assert (bench.last()["type"], bench.resting()) == ("C", [])


def test_a_book_that_is_only_late_takes_no_orders_and_fills_those_it_has(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.say(enter(1, "B", 100, PX))
        bench.worth(BOOK_STALE)
        bench.say(enter(2, "B", 100, PX))
        assert bench.last()["type"] == "J"
        bench.happen(add(3, "B", 500, PX))
        bench.happen(executed(3, 60, 3))
        assert bench.fills() == [(1, 60, PX)]


def action(state: str) -> bytes:
    return itch.TRADING_ACTION.encode(locate=1, tracking=0, timestamp=0, stock="AAPL", state=state, reserved="", reason="")


def test_a_halt_that_is_told_in_doubt_counts_after_it(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.happen(action("T"))
        bench.worth(BOOK_GAPPED)
        bench.happen(action("H"))
        bench.worth(BOOK_VALID)
        bench.say(enter(1, "B", 100, PX))
        assert bench.last()["type"] == "J"
        bench.worth(BOOK_GAPPED)
        bench.happen(action("T"))
        bench.say(enter(2, "B", 100, PX))
        assert bench.last()["type"] == "J"
        bench.worth(BOOK_VALID)
        bench.say(enter(3, "B", 100, PX))
        assert bench.resting() == [3]


@pytest.mark.parametrize("code", [NOTICE_CLEAR, NOTICE_CLEAR_ONE])
def test_a_book_that_is_made_anew_has_lost_our_places(tmp_path: Path, code: int) -> None:
    with paper(tmp_path) as bench:
        for raw in AHEAD:
            bench.happen(raw)
        bench.say(enter(1, "B", 100, PX))
        bench.say(enter(2, "S", 100, PX + 100))
        bench.worth(BOOK_GAPPED)
        bench.happen(notice(int(code), 0))
        assert open_orders(bench.rig) == []
        assert {report["user_ref"] for report in bench.reports if report["type"] == "C"} == {1, 2}
        for raw in AHEAD:
            bench.happen(raw)
        bench.worth(BOOK_VALID)
        bench.say(enter(3, "B", 100, PX))
        assert [order["user_ref"] for order in open_orders(bench.rig)] == [0, 0, 3]


def test_a_new_session_has_another_directory(tmp_path: Path) -> None:
    with paper(tmp_path) as bench:
        bench.happen(notice(int(NOTICE_CLEAR), 1, locate=0))
        bench.say(enter(1, "B", 100, PX))
        assert bench.last()["type"] == "J"
        bench.happen(add(1, "S", 100, PX + 100, locate=7))
        bench.say(enter(2, "B", 100, PX))
        assert [order["locate"] for order in open_orders(bench.rig)] == [7, 7]


# A day, and the rule told a second time


@dataclass
class Resting:
    """An order of the model: history's by its ref, ours by the user_ref below 0."""

    ref: int
    qty: int
    taken: int = 0


@dataclass
class QueueModel:
    """The queue rule as sentences: one list of orders for each side and price, first in, first out."""

    queues: dict[tuple[str, int], list[Resting]] = field(default_factory=dict)
    where: dict[int, tuple[str, int]] = field(default_factory=dict)
    fills: list[tuple[int, int, int]] = field(default_factory=list)

    def prices(self, side: str, limit: int) -> list[int]:
        """Prices of a side that an order against it with this limit reaches, the best first."""
        reached = [px for of, px in self.queues if of == side and (px >= limit if side == "B" else px <= limit)]
        return sorted(reached, reverse=side == "B")

    def put(self, ref: int, side: str, px: int, qty: int, taken: int = 0) -> None:
        self.queues.setdefault((side, px), []).append(Resting(ref, qty, taken))
        self.where[ref] = (side, px)

    def take(self, ref: int, qty: int) -> int:
        """Take up to so much off an order; what it had of it."""
        place = self.where.get(ref)
        if place is None:
            return 0
        queue = self.queues[place]
        order = next(order for order in queue if order.ref == ref)
        got = min(qty, order.qty)
        order.qty -= got
        if order.qty == 0:
            queue.remove(order)
            del self.where[ref]
            if not queue:
                del self.queues[place]
        return got

    def fill_ours(self, side: str, limit: int, qty: int, before: int | None = None) -> int:
        """Fill our orders of a side down to a limit, in their priority, those before order `before` only at its price. What is left."""
        for px in self.prices(side, limit):
            for order in list(self.queues[side, px]):
                if order.ref == before or qty == 0:
                    break
                if order.ref < 0:
                    got = self.take(order.ref, qty)
                    self.fills.append((-order.ref, got, px))
                    qty -= got
        return qty

    def aggress(self, user_ref: int, side: str, px: int, qty: int) -> int:
        """Our order takes what is displayed within its limit. What is left."""
        against = "S" if side == "B" else "B"
        for level in self.prices(against, px):
            for order in list(self.queues.get((against, level), [])):
                if qty == 0:
                    break
                order.taken += min(qty, order.qty)
                got = self.take(order.ref, qty)
                self.fills.append((user_ref, got, level))
                qty -= got
        return qty

    def enter(self, user_ref: int, side: str, px: int, qty: int, *, immediate: bool) -> None:
        left = self.aggress(user_ref, side, px, qty)
        if left and not immediate:
            self.put(-user_ref, side, px, left)

    def arrive(self, ref: int, side: str, px: int, qty: int, taken: int = 0) -> None:
        """One of history's comes, and trades with ours where it crosses them."""
        left = self.fill_ours("S" if side == "B" else "B", px, qty)
        if left:
            self.put(ref, side, px, left, taken + qty - left)

    def apply(self, raw: bytes) -> None:
        message = itch.BY_CODE[raw[0]]
        values: dict[str, Any] = message.decode(raw)
        ref = values.get("ref", 0)
        if message in (itch.ADD_ORDER, itch.ADD_ORDER_MPID):
            self.arrive(ref, values["side"], values["px"], values["shares"])
        elif message in (itch.ORDER_EXECUTED, itch.ORDER_EXECUTED_PRICE) and ref in self.where:
            side, px = self.where[ref]
            self.fill_ours(side, px, values["shares"], ref)
            self.take(ref, values["shares"])
        elif message is itch.ORDER_CANCEL:
            self.take(ref, values["shares"])
        elif message is itch.ORDER_DELETE:
            self.take(ref, 1 << 40)
        elif message is itch.ORDER_REPLACE and ref in self.where:
            side, px = self.where[ref]
            taken = next(order.taken for order in self.queues[side, px] if order.ref == ref)
            self.take(ref, 1 << 40)
            if values["shares"] > taken:
                self.arrive(values["new_ref"], side, values["px"], values["shares"] - taken, taken)

    def book(self) -> list[tuple[str, int, list[tuple[int, int]]]]:
        return sorted((side, px, [(order.ref, order.qty) for order in queue]) for (side, px), queue in self.queues.items())


class Trader:
    """Seeded orders around the touch, sent to the exchange and told to the model alike. Never against an own order."""

    def __init__(self, seed: int, bench: PaperBench, model: QueueModel) -> None:
        self.rng = random.Random(seed)
        self.bench, self.model = bench, model
        self.user_ref = 0
        self.chains: dict[int, int] = {}

    def ours(self) -> list[tuple[int, str, int]]:
        return [(-ref, *self.model.where[ref]) for ref in self.model.where if ref < 0]

    def act(self) -> None:
        ours, rng = self.ours(), self.rng
        kind = rng.choice(("rest", "rest", "take", "cancel", "replace"))
        side = rng.choice("BS")
        bids, asks = self.model.prices("B", 0), self.model.prices("S", 1 << 40)
        if not bids or not asks:
            return
        touch = {"B": bids[0], "S": asks[0]}
        towards = 100 if side == "B" else -100
        px = touch[side] + towards * rng.choice((-3, -2, -1, 0, 0, 1)) if kind != "take" else touch["S" if side == "B" else "B"]
        qty = rng.choice((1, 50, 100, 300, 900))
        if any(of != side and ((px >= at) if side == "B" else (px <= at)) for _, of, at in ours):
            return
        if kind in ("rest", "take"):
            self.user_ref += 1
            immediate = kind == "take" and rng.random() < 0.5
            self.bench.say(enter(self.user_ref, side, qty, px, tif="3" if immediate else "0"))
            self.model.enter(self.user_ref, side, px, qty, immediate=immediate)
        elif ours:
            old, of, _ = rng.choice(ours)
            if kind == "cancel":
                self.bench.say(cancel(old))
                self.model.take(-old, 1 << 40)
            elif of == side:
                self._replace(old, side, px, qty)

    def _replace(self, old: int, side: str, px: int, qty: int) -> None:
        """A replace's quantity counts what its chain has filled; the model is told what is left."""
        filled = sum(got for ref, got, _ in self.model.fills if ref in self.chain(old))
        self.user_ref += 1
        self.bench.say(replace(old, self.user_ref, filled + qty, px))
        self.chains[self.user_ref] = old
        self.model.take(-old, 1 << 40)
        self.model.enter(self.user_ref, side, px, qty, immediate=False)

    def chain(self, user_ref: int) -> set[int]:
        found = {user_ref}
        while user_ref in self.chains:
            user_ref = self.chains[user_ref]
            found.add(user_ref)
        return found


@pytest.mark.skipif(not AAPL.exists(), reason="the data folder is not here")
@pytest.mark.parametrize("seed", [1, 2])
def test_a_real_morning_fills_as_the_rule_says(tmp_path: Path, seed: int) -> None:
    """AAPL on 2019-01-30: seeded orders at and around the touch; every fill, and the book with our orders in it, as the model has them."""
    print(f"seed {seed}")
    messages = [raw for raw in unframe(AAPL.read_bytes()) if itch.BY_CODE[raw[0]].length == len(raw)]
    model = QueueModel()
    with paper(tmp_path, listed=False) as bench:
        trader = Trader(seed, bench, model)
        for number, raw in enumerate(messages):
            bench.happen(raw)
            model.apply(raw)
            if number > 200 and number % 20 == 0:
                trader.act()
            assert len(bench.fills()) == len(model.fills), f"seed {seed}: after message {number}"
        assert bench.fills() == model.fills
        assert len(model.fills) > 100, "hardly anything was tried"
        found: dict[tuple[str, int], list[tuple[int, int]]] = {}
        for order in open_orders(bench.rig):
            found.setdefault((order["side"], order["px"]), []).append((-order["user_ref"] or order["ref"], order["qty"]))
        assert sorted((side, px, queue) for (side, px), queue in found.items()) == model.book()
