"""Opening and closing crosses, imbalances, halts and pro-rata at the exchange itself, through OUCH and ITCH, against a plain model."""

import random
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.book.book import check_by_python
from engine.book.hot.book import worse_level
from engine.exchange.hot.core import EVENTS
from engine.exchange.hot.schedule import CROSS_ORDERS_PER_STEP, is_crossing
from engine.exchange.hours import Halt, Hours
from engine.exchange.stage import Account
from engine.feed.decoder import make_decoder
from engine.feed.hot.replay import replay as replay_itch
from engine.feed.records import records
from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, FEED_STATS, INSTRUMENTS_MAX, PHASE_DRAINING, SELL
from engine.wire import soupbintcp
from tests.exchange_rig import Message, Rig, cancel, decode_itch, decode_ouch, enter, open_orders, packet, replace, rig, soup_packets
from tests.test_auction import tried_one_by_one

SECOND = 1_000_000_000
LISTED_PX = 1_500_000
OTHERS = (Account("BETA", "TWO"),)
HOURS = Hours(open_auction_s=3, close_auction_s=9, imbalance_s=2)


class Floor:
    """An exchange with two accounts, both connected; what each was told, and what the market was."""

    def __init__(self, made: Rig) -> None:
        self.rig = made
        self.clients = [made.wire_client(account) for account in range(2)]
        self.heard = [b"", b""]
        self.reports: list[list[Message]] = [[], []]
        self.market: list[Message] = []
        self.raw: list[bytes] = []
        self.last = [0, 0]
        self.turn()

    def turn(self, seconds: float = 0.0) -> None:
        self.rig.step(after_ns=round(seconds * SECOND))
        self.rig.run()
        raw = self.rig.messages()
        self.raw += raw
        self.market += [decode_itch(message) for message in raw]
        for account, client in enumerate(self.clients):
            try:
                self.heard[account] += client.recv(1 << 20)
            except BlockingIOError:
                continue
            packets, self.heard[account] = soup_packets(self.heard[account])
            self.reports[account] += [decode_ouch(payload) for kind, payload in packets if kind == soupbintcp.SEQUENCED]

    def pass_time(self, seconds: float) -> None:
        """In steps that leave nobody silent for too long."""
        for _ in range(round(seconds * 2)):
            for client in self.clients:
                client.send(packet(soupbintcp.CLIENT_HEARTBEAT))
            self.turn(0.5)

    def say(self, raw: bytes, account: int = 0) -> None:
        self.clients[account].send(packet(soupbintcp.UNSEQUENCED, raw))
        self.turn()

    def enter(self, side: str, qty: int, px: int, cross: str = "N", *, account: int = 0, symbol: str = "AAPL") -> int:
        """Returns its user_ref."""
        self.last[account] += 1
        self.say(
            ouch.ENTER_ORDER.encode(
                user_ref=self.last[account], side=side, quantity=qty, symbol=symbol, px=px, tif="0", display="Y", capacity="P", sweep="N",
                cross=cross, client_id="", appendage_length=0,
            ),
            account,
        )  # fmt: skip
        return self.last[account]

    def forget(self) -> None:
        self.market.clear()
        for reports in self.reports:
            reports.clear()

    def published(self, kind: str) -> list[Message]:
        return [message for message in self.market if message["type"] == kind]

    def told(self, account: int, kinds: str) -> list[tuple[Any, ...]]:
        names = ("user_ref", "quantity", "px", "liquidity", "reason")
        return [
            (report["type"], *(report[name] for name in names if name in report))
            for report in self.reports[account]
            if report["type"] in kinds
        ]

    def line(self, account: int, instrument: int = 1) -> tuple[int, ...]:
        """position, bought, sold, cash, open_buy, open_sell."""
        record = self.rig.positions.records[account * INSTRUMENTS_MAX + instrument]
        return tuple(int(record[name]) for name in ("position", "bought", "sold", "cash", "open_buy", "open_sell"))


@contextmanager
def floor(folder: Path, hours: Hours = HOURS, **changes: Any) -> Iterator[Floor]:
    with rig(folder, accounts=OTHERS, hours=hours, **changes) as made:
        made.run()
        yield Floor(made)
        check_by_python(made.stage.state.venue.book)


@pytest.fixture
def at_open(tmp_path: Path) -> Iterator[Floor]:
    """Before an opening cross."""
    with floor(tmp_path) as made:
        yield made


@pytest.fixture
def trading(tmp_path: Path) -> Iterator[Floor]:
    """Before a closing cross, with no opening one."""
    with floor(tmp_path, Hours(close_auction_s=9, imbalance_s=2)) as made:
        made.forget()
        yield made


def test_in_the_pre_opening_only_orders_for_the_opening_are_taken(at_open: Floor) -> None:
    assert [(message["stock"], message["state"]) for message in at_open.published("H")] == [("AAPL", "Q"), ("MSFT", "Q")]
    at_open.forget()
    for cross in "NOCHX":
        at_open.enter("B", 100, LISTED_PX, cross)
    assert at_open.told(0, "AJ") == [
        ("J", 1, ouch.REJECT_CLOSED),
        ("A", 2, 100, LISTED_PX),
        ("J", 3, ouch.REJECT_OTHER),
        ("J", 4, ouch.REJECT_OTHER),
        ("J", 5, ouch.REJECT_OTHER),
    ]
    assert at_open.market == [], "what is entered for a cross is not displayed"
    assert at_open.line(0) == (0, 0, 0, 0, 100, 0)


@dataclass
class Entered:
    account: int
    user_ref: int
    side: str
    px: int
    qty: int
    for_cross: bool
    left: int = 0


def held(entered: list[Entered], reference: int) -> tuple[int, int, dict[tuple[int, int], int]]:
    """The cross of these, in the order of their arrival: price, shares, and who trades how much."""
    orders = [(BUY if each.side == "B" else SELL, each.px, each.qty, each.for_cross) for each in entered]
    px, volume = tried_one_by_one(orders, reference)
    traded: dict[tuple[int, int], int] = {}
    for side in "BS":
        left = volume
        queue = [each for each in entered if each.side == side]
        queue.sort(key=lambda each: -each.px if each.side == "B" else each.px)
        for each in queue:
            qty = min(left, each.qty)
            left -= qty
            if qty:
                traded[each.account, each.user_ref] = qty
    return px, volume, traded


def check_cross(at: Floor, entered: list[Entered], letter: str, reference: int) -> None:
    """Everything that was said of a cross of AAPL, and what it left."""
    px, volume, traded = held(entered, reference)
    cross = next(message for message in at.published("Q") if message["stock"] == "AAPL")
    assert (cross["shares"], cross["px"], cross["cross"]) == (volume, px, letter)
    displayed = [each for each in entered if not each.for_cross]
    priced = at.published("C")
    assert sorted(message["shares"] for message in priced) == sorted(
        traded[each.account, each.user_ref] for each in displayed if (each.account, each.user_ref) in traded
    )
    assert all((message["px"], message["printable"], message["match"]) == (px, "N", cross["match"]) for message in priced)
    for account in range(2):
        executed = [report for report in at.reports[account] if report["type"] == "E"]
        assert {report["user_ref"]: report["quantity"] for report in executed} == {
            user_ref: qty for (who, user_ref), qty in traded.items() if who == account
        }
        assert all((report["px"], report["liquidity"], report["match"]) == (px, letter, cross["match"]) for report in executed)
        cancelled = {report["user_ref"]: report["quantity"] for report in at.reports[account] if report["type"] == "C"}
        assert cancelled == {
            each.user_ref: left
            for each in entered
            if each.account == account and each.for_cross and (left := each.qty - traded.get((account, each.user_ref), 0))
        }
        own, rest = {"B": 0, "S": 0}, {"B": 0, "S": 0}
        for each in entered:
            if each.account == account:
                qty = traded.get((account, each.user_ref), 0)
                own[each.side] += qty
                rest[each.side] += 0 if each.for_cross else each.qty - qty
        assert at.line(account) == (own["B"] - own["S"], own["B"], own["S"], (own["S"] - own["B"]) * px, rest["B"], rest["S"])
    still = {(order["user_ref"], order["side"], order["qty"]) for order in open_orders(at.rig)}
    assert still == {
        (each.user_ref, each.side, left) for each in displayed if (left := each.qty - traded.get((each.account, each.user_ref), 0))
    }


@pytest.mark.parametrize("seed", range(6))
def test_the_opening_cross_is_the_model_s(at_open: Floor, seed: int) -> None:
    print(f"{seed=}")
    rng = random.Random(seed)
    at_open.forget()
    entered = []
    for _ in range(rng.randint(2, 30)):
        account, side = rng.randrange(2), rng.choice("BS")
        px, qty = LISTED_PX + 100 * rng.randint(-9, 9) + rng.choice([0, 0, 50]), rng.choice([100, rng.randint(1, 900)])
        entered.append(Entered(account, at_open.enter(side, qty, px, "O", account=account), side, px, qty, for_cross=True))
    assert [report["type"] for reports in at_open.reports for report in reports] == ["A"] * len(entered)
    for reports in at_open.reports:
        reports.clear()
    at_open.pass_time(3)
    check_cross(at_open, entered, "O", LISTED_PX)
    assert [(message["stock"], message["state"]) for message in at_open.published("H")] == [("AAPL", "T"), ("MSFT", "T")]
    assert [message["shares"] for message in at_open.published("Q") if message["stock"] == "MSFT"] == [0]
    assert at_open.rig.count("open_orders") == 0


@pytest.mark.parametrize("seed", range(6))
def test_the_closing_cross_brings_displayed_and_closing_orders_together(trading: Floor, seed: int) -> None:
    print(f"{seed=}")
    rng = random.Random(100 + seed)
    entered = []
    for number in range(rng.randint(8, 30)):
        account, side, for_cross = rng.randrange(2), rng.choice("BS"), rng.random() < 0.6 and number > 1
        reach = rng.randint(-6, 9) if for_cross else -rng.randint(1, 4)
        px, qty = LISTED_PX + 100 * reach * (1 if side == "B" else -1), rng.choice([100, rng.randint(1, 900)])
        cross = "C" if for_cross else "N"
        entered.append(Entered(account, trading.enter(side, qty, px, cross, account=account), side, px, qty, for_cross))
    assert not [report for reports in trading.reports for report in reports if report["type"] != "A"]
    added = [each for each in entered if not each.for_cross]
    assert [message["shares"] for message in trading.published("A")] == [each.qty for each in added]
    bids, asks = ([each.px for each in added if each.side == side] for side in "BS")
    reference = (max(bids) + min(asks)) // 2 if bids and asks else LISTED_PX
    trading.forget()
    trading.pass_time(9)
    check_cross(trading, entered, "C", reference)
    assert [(message["stock"], message["state"]) for message in trading.published("H")] == [("AAPL", "H"), ("MSFT", "H")]
    assert [message["event"] for message in trading.published("S")] == ["M"]
    trading.enter("B", 100, LISTED_PX)
    trading.enter("B", 100, LISTED_PX, "C")
    assert trading.told(0, "J")[-2:] == [("J", trading.last[0] - 1, ouch.REJECT_CLOSED), ("J", trading.last[0], ouch.REJECT_OTHER)]


def prices(book: Any, instrument: int) -> list[tuple[int, ...]]:
    """A book's levels from the best of each side on: side, price, quantity, orders."""
    found = []
    for side in (BUY, SELL):
        depth = 0
        while (level := worse_level(book, instrument, side, depth)) >= 0:
            found.append((side, *(int(book.levels[level][name]) for name in ("px", "qty", "orders"))))
            depth += 1
    return found


def test_the_feed_handler_s_book_after_a_cross_is_the_exchange_s(trading: Floor) -> None:
    trading.raw.clear()
    for number in range(6):
        trading.enter("S", 100 + number, LISTED_PX + 100 * number, account=1)
        trading.enter("B", 50, LISTED_PX - 100 * (number + 1), account=0)
    trading.enter("B", 260, LISTED_PX + 300, "C")
    trading.enter("B", 70, LISTED_PX, "C", account=1)
    trading.pass_time(9)
    assert len(trading.published("C")) == 3
    decoder = make_decoder(orders_max=1_000, levels_max=1_000, instruments_max=INSTRUMENTS_MAX, stats=records(1, FEED_STATS))
    stream = np.frombuffer(b"".join(len(raw).to_bytes(2, "big") + raw for raw in trading.raw), np.uint8)
    replay_itch(decoder, stream, 0, len(stream))
    assert prices(decoder.book, 1) == prices(trading.rig.stage.state.venue.book, 1)
    assert len(prices(decoder.book, 1)) == 6 + 4
    assert all(int(decoder.stats[0][name]) == 0 for name in ("malformed", "unknown_types", "unknown_orders"))


def test_imbalances_are_told_each_second_before_a_cross(at_open: Floor) -> None:
    at_open.forget()
    at_open.enter("B", 500, LISTED_PX + 2_000, "O")
    at_open.enter("S", 200, LISTED_PX - 100, "O", account=1)
    at_open.pass_time(2.5)
    told = at_open.published("I")
    assert [(message["stock"], message["timestamp"] - told[0]["timestamp"]) for message in told] == [
        ("AAPL", 0), ("MSFT", 0), ("AAPL", SECOND), ("MSFT", SECOND),
    ]  # fmt: skip
    expected = {"paired": 200, "imbalance": 300, "direction": "B", "far_px": LISTED_PX, "near_px": LISTED_PX, "cross": "O"}
    assert {name: told[0][name] for name in expected} == expected
    assert (told[0]["reference_px"], told[0]["variation"]) == (LISTED_PX, "L")
    nobody = {name: told[1][name] for name in ("paired", "imbalance", "direction", "far_px", "near_px", "variation")}
    assert nobody == {"paired": 0, "imbalance": 0, "direction": "O", "far_px": 0, "near_px": 0, "variation": ""}


def test_an_imbalance_says_how_far_the_price_is_and_where_closing_orders_alone_would_trade(trading: Floor) -> None:
    trading.enter("B", 100, LISTED_PX - 100)
    trading.enter("S", 100, LISTED_PX + 100, account=1)
    trading.enter("S", 300, LISTED_PX - 75_000, "C", account=1)
    trading.enter("B", 200, LISTED_PX - 60_000, "C")
    trading.pass_time(8)
    told = trading.published("I")[0]
    # All: 300 are offered at 1,425,000 and up; bids take 100 down to 1,499,900 and 300 from 1,440,000 down, where nothing is left over.
    assert (told["near_px"], told["far_px"]) == (LISTED_PX - 60_000, LISTED_PX - 60_000)
    assert (told["paired"], told["imbalance"], told["direction"]) == (0, 300, "S")
    assert (told["reference_px"], told["variation"]) == (LISTED_PX, "4")


def test_at_one_price_the_older_trades_first_displayed_or_not(trading: Floor) -> None:
    for cross in "CNC":
        trading.enter("S", 100, LISTED_PX, cross, account=1)
    for cross in "NCN":
        trading.enter("B", 100, LISTED_PX - 100, cross, account=1)
    trading.enter("B", 250, LISTED_PX, "C")
    trading.enter("S", 50, LISTED_PX - 100, "C")
    trading.pass_time(9)
    # 250 are bid at 1,500,000 and 350 offered: the first three sellers but for 50 of the third, whose turn is behind the displayed one.
    px = trading.published("Q")[0]["px"]
    assert px == LISTED_PX
    assert trading.told(1, "E") == [("E", 1, 100, px, "C"), ("E", 2, 100, px, "C")]
    assert trading.told(0, "E") == [("E", 1, 250, px, "C"), ("E", 2, 50, px, "C")]
    assert trading.told(1, "C") == [("C", 5, 100, "I"), ("C", 3, 100, "I")]


def test_the_far_price_is_without_the_displayed_orders(trading: Floor) -> None:
    trading.enter("S", 400, LISTED_PX + 100, account=1)
    trading.enter("S", 100, LISTED_PX + 500, "C", account=1)
    trading.enter("B", 200, LISTED_PX + 900, "C")
    trading.pass_time(8)
    told = trading.published("I")[0]
    assert (told["near_px"], told["far_px"]) == (LISTED_PX + 100, LISTED_PX + 500)


def test_the_last_cross_is_the_reference_where_nothing_is_displayed(at_open: Floor) -> None:
    at_open.enter("B", 100, LISTED_PX - 5_000, "O")
    at_open.enter("S", 100, LISTED_PX - 5_000, "O", account=1)
    at_open.pass_time(4)
    at_open.forget()
    at_open.enter("B", 100, LISTED_PX, "O")
    assert at_open.told(0, "AJ") == [("J", 2, ouch.REJECT_OTHER)], "the opening is over"
    at_open.enter("B", 100, LISTED_PX + 1_000, "C")
    at_open.enter("S", 100, LISTED_PX - 9_000, "C", account=1)
    at_open.pass_time(6)
    assert [message["reference_px"] for message in at_open.published("I") if message["stock"] == "AAPL"] == [LISTED_PX - 5_000] * 2
    assert at_open.published("Q")[0]["px"] == LISTED_PX - 5_000


def test_an_order_for_a_cross_can_be_replaced_and_cancelled_and_nobody_sees_it(trading: Floor) -> None:
    trading.enter("B", 100, LISTED_PX)
    trading.forget()
    first = trading.enter("S", 300, LISTED_PX, "C")
    assert trading.told(0, "AE") == [("A", first, 300, LISTED_PX)], "it does not trade before the cross"
    trading.last[0] += 1
    trading.say(replace(first, trading.last[0], 200, LISTED_PX - 100))
    assert [(report["quantity"], report["cross"], report["capacity"]) for report in trading.reports[0] if report["type"] == "U"] == [
        (200, "C", "P")
    ]
    assert trading.line(0)[4:] == (100, 200)
    trading.say(cancel(trading.last[0], 150))
    trading.say(cancel(trading.last[0]))
    assert trading.told(0, "C") == [("C", trading.last[0], 50, "U"), ("C", trading.last[0], 150, "U")]
    assert trading.market == []
    assert trading.line(0)[4:] == (100, 0)


def test_a_mass_cancel_of_a_symbol_takes_its_orders_for_a_cross_too(trading: Floor) -> None:
    for cross, symbol in (("C", "AAPL"), ("N", "AAPL"), ("C", "MSFT")):
        trading.enter("S", 100, 4_000_000, cross, symbol=symbol)
    trading.say(ouch.MASS_CANCEL.encode(user_ref=4, firm="", symbol="AAPL", appendage_length=0))
    assert sorted(trading.told(0, "C")) == [("C", 1, 100, "U"), ("C", 2, 100, "U")]
    assert (trading.line(0)[4:], trading.line(0, 2)[4:]) == ((0, 0), (0, 100))


def test_who_leaves_has_its_orders_for_a_cross_cancelled(trading: Floor) -> None:
    trading.enter("S", 300, LISTED_PX, "C")
    trading.clients[0].close()
    trading.clients.pop()
    trading.clients.clear()
    trading.rig.run()
    assert trading.rig.decoded() == []
    assert trading.line(0)[4:] == (0, 0)
    assert trading.rig.count("open_orders") == 0


def test_halts_begin_and_end_by_the_clock(tmp_path: Path) -> None:
    with floor(tmp_path, Hours(halts=(Halt("AAPL", 2, 1.5), Halt("AAPL", 3.5, 1), Halt("MSFT", 6.25, 1)))) as made:
        first = made.enter("B", 100, LISTED_PX)
        made.forget()
        made.pass_time(2)
        made.enter("B", 100, LISTED_PX)
        made.enter("B", 100, 4_000_000, symbol="MSFT")
        made.say(cancel(first))
        assert made.told(0, "AJC") == [("J", 2, ouch.REJECT_CLOSED), ("A", 3, 100, 4_000_000), ("C", 1, 100, "U")]
        made.pass_time(6)
        made.enter("B", 100, LISTED_PX)
        assert made.told(0, "A")[-1] == ("A", 4, 100, LISTED_PX)
        halts = [(message["stock"], message["state"], message["reason"]) for message in made.published("H")]
        assert halts == [
            ("AAPL", "H", "T1"), ("AAPL", "T", ""), ("AAPL", "H", "T1"), ("AAPL", "T", ""), ("MSFT", "H", "T1"), ("MSFT", "T", ""),
        ]  # fmt: skip
        start = made.published("H")[0]["timestamp"] - 2 * SECOND
        assert [message["timestamp"] - start for message in made.published("H")] == [
            round(at * SECOND) for at in (2, 3.5, 3.5, 4.5, 6.25, 7.25)
        ]  # fmt: skip


def test_a_pro_rata_symbol_shares_and_another_does_not(tmp_path: Path) -> None:
    with floor(tmp_path, Hours(), pro_rata=("AAPL",), pro_rata_minimum=10) as made:
        for symbol, px in (("AAPL", LISTED_PX), ("MSFT", 4_000_000)):
            made.forget()
            for qty in (100, 300, 5, 195):
                made.enter("S", qty, px, account=1, symbol=symbol)
            made.enter("B", 60, px, symbol=symbol)
            shares = [report["quantity"] for report in made.reports[1] if report["type"] == "E"]
            # 60 of 600: 10, 30, 0 (below the minimum of 10), 19; the one left over goes to the oldest.
            assert shares == ([11, 30, 19] if symbol == "AAPL" else [60])
            assert [message["shares"] for message in made.published("E")] == shares


def test_where_a_price_is_shared_an_owner_s_orders_are_dealt_with_first(tmp_path: Path) -> None:
    """300 of the 400 others' shares are wanted; the owner's 100 behind them do not take part in the sharing."""
    with floor(tmp_path, Hours(), pro_rata=("AAPL",), self_trade="cancel_oldest") as made:
        for qty, account in ((50, 1), (300, 1), (100, 0), (50, 1)):
            made.enter("S", qty, LISTED_PX + 100, account=account)
        made.enter("S", 20, LISTED_PX, account=1)
        made.enter("B", 320, LISTED_PX + 100)
        assert [(report["type"], report["user_ref"]) for report in made.reports[0]] == [
            ("A", 1), ("A", 2), ("E", 2), ("D", 1), ("E", 2), ("E", 2), ("E", 2),
        ]  # fmt: skip
        assert [report["quantity"] for report in made.reports[1] if report["type"] == "E"] == [20, 38, 225, 37]
        assert made.line(0) == (320, 320, 0, -320 * (LISTED_PX + 100) + 20 * 100, 0, 0)


@pytest.mark.parametrize("changes", [{}, {"pro_rata": ("AAPL",)}, {"pro_rata": ("AAPL",), "self_trade": "cancel_oldest"}])
def test_an_order_of_more_events_than_there_is_room_for_does_what_it_does_with_room(tmp_path: Path, changes: dict[str, Any]) -> None:
    said = []
    for room in (1, 3, EVENTS):
        rng = random.Random(8)
        with floor(tmp_path, Hours(), **changes) as made:
            made.rig.room_for_events(room)
            most = 0
            for _ in range(150):
                trades = made.rig.count("executions")
                qty = rng.randint(1, 90) if rng.random() < 0.93 else rng.randint(300, 1_500)
                made.enter(rng.choice("BS"), qty, LISTED_PX + 100 * rng.randint(-1, 1), account=int(rng.random() < 0.8))
                most = max(most, made.rig.count("executions") - trades)
            assert most > 6
            said.append((made.raw, made.reports, made.line(0), made.line(1)))
    assert said[0] == said[1] == said[2]


@pytest.mark.parametrize("drained", [False, True])
def test_a_large_cross_takes_several_turns_and_nobody_is_heard_between_them(trading: Floor, drained: bool) -> None:
    rng = random.Random(4)
    entered = []
    for number in range(3 * CROSS_ORDERS_PER_STEP):
        account, side = number % 2, "BS"[number // 2 % 2]
        px, qty = LISTED_PX + 100 * rng.randint(-1, 3) * (1 if side == "B" else -1), rng.randint(1, 900)
        for_cross = number % 5 != 0
        if not for_cross:
            px = LISTED_PX + (-300 if side == "B" else 300)
        entered.append(Entered(account, trading.enter(side, qty, px, "C" if for_cross else "N", account=account), side, px, qty, for_cross))
    trading.forget()
    trading.pass_time(8.5)
    while trading.rig.count("executions") == 0:
        trading.rig.step(after_ns=SECOND // 100)
    schedule = trading.rig.stage.state.schedule
    assert trading.rig.count("executions") == CROSS_ORDERS_PER_STEP and is_crossing(schedule)
    if drained:
        trading.rig.phase(PHASE_DRAINING)
    # While the instrument trades this would be taken; the cross ends that.
    late = enter(trading.last[0] + 1, "B", 100, LISTED_PX, symbol="AAPL")
    trading.clients[0].send(packet(soupbintcp.UNSEQUENCED, late))
    turns = 0
    while is_crossing(schedule):
        before, open_before = trading.rig.count("executions"), trading.rig.count("open_orders")
        assert trading.rig.step() > 0
        done = max(trading.rig.count("executions") - before, open_before - trading.rig.count("open_orders"))
        assert done <= CROSS_ORDERS_PER_STEP
        turns += 1
    assert turns > 1
    trading.turn()
    assert trading.told(0, "AJ") == [("J", trading.last[0] + 1, ouch.REJECT_CLOSED)]
    check_cross(trading, entered, "C", LISTED_PX)


def test_generated_flow_takes_part_in_both_crosses(tmp_path: Path) -> None:
    prices = {"AAPL": 187.2, "MSFT": 402.5}
    with floor(tmp_path, flow="generated", symbols=prices, rate_per_s=2_000, hours=HOURS._replace(halts=(Halt("MSFT", 5, 1),))) as made:
        made.pass_time(10)
        book: dict[int, list[Any]] = {}
        halted: set[str] = set()
        for number, message in enumerate(made.market):
            kind = message["type"]
            if kind == "A":
                assert number < 300 or message["stock"] not in halted, "an order joined in a halt"
                book[message["ref"]] = [message["locate"], message["side"], message["px"], message["shares"]]
            elif kind in "ECX":
                book[message["ref"]][3] -= message["shares"]
                assert book[message["ref"]][3] >= 0
            elif kind == "D":
                del book[message["ref"]]
            elif kind == "H":
                (halted.discard if message["state"] == "T" else halted.add)(message["stock"])
        crosses = [(message["stock"], message["cross"]) for message in made.published("Q") if message["shares"] > 100]
        assert crosses == [("AAPL", "O"), ("MSFT", "O"), ("AAPL", "C"), ("MSFT", "C")]
        assert {ref for ref, line in book.items() if line[3]} == {order["ref"] for order in open_orders(made.rig)}
        assert made.rig.count("capacity_drops") == 0
        assert len(made.published("E")) > 100


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"hours": Hours(open_auction_s=5, close_auction_s=4)}, "schedule.close_auction_s=4: expected after open_auction_s=5"),
        ({"hours": Hours(halts=(Halt("NOPE", 1, 1),))}, "schedule.halts: symbol='NOPE': expected one of ['AAPL', 'MSFT']"),
        ({"hours": Hours(open_auction_s=5, halts=(Halt("AAPL", 4, 1),))}, "at_s=4: expected from 5 on"),
        ({"hours": Hours(halts=(Halt("AAPL", 4, 2), Halt("AAPL", 5, 2)))}, "at_s=5: expected from 6 on"),
        ({"hours": Hours(close_auction_s=9, halts=(Halt("AAPL", 4, 5),))}, "for_s=5: expected above 0, and its end before"),
        ({"hours": Hours(halts=(Halt("AAPL", 4, 0),))}, "for_s=0: expected above 0"),
        ({"hours": HOURS, "flow": "replay", "path": "day.itch"}, "schedule: flow='replay': expected 'generated' or 'none'"),
        ({"pro_rata": ["NOPE"]}, "pro_rata=['NOPE']: expected symbols of ['AAPL', 'MSFT']"),
        ({"pro_rata": ["AAPL"], "flow": "replay", "path": "day.itch"}, "pro_rata=['AAPL']: expected none with flow='replay'"),
        ({"pro_rata_minimum": 0}, "pro_rata_minimum=0: expected 1"),
    ],
)
def test_what_cannot_be_scheduled_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError, match=re.escape(expected)), rig(tmp_path, **changes):
        pass
