"""The matching engine against the obvious one, event by event; and history with our clients in it, case by case."""

import random
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from engine.book.book import check_invariants
from engine.book.hot.book import best_level
from engine.feed import itch
from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, SELL
from tests.exchange_rig import (
    AAPL,
    Bench,
    add,
    bench,
    cancel,
    decode_itch,
    deleted,
    enter,
    executed,
    framed,
    open_orders,
    reduced,
    replace,
    replaced,
)
from tests.slow_exchange import SlowExchange

OURS = 1 << 40
ALIKE = ("ref", "locate", "side", "px", "qty", "user_ref", "executed", "mpid")


@pytest.fixture
def on_bench(tmp_path: Path) -> Iterator[Bench]:
    with bench(tmp_path) as made:
        yield made


class Pair:
    """The exchange and the obvious one, told the same."""

    def __init__(self, made: Bench) -> None:
        self.made = made
        self.slow = SlowExchange()
        # History's orders that our clients took from, and what history replaced those by.
        self.taken_from: set[int] = set()

    def happen(self, raw: bytes) -> None:
        self.made.happen(raw)
        self.slow.happen(raw)
        message = decode_itch(raw)
        if message.get("ref") in self.taken_from and "new_ref" in message:
            self.taken_from.add(message["new_ref"])
        self.compare()

    def say(self, raw: bytes) -> None:
        self.made.say(raw)
        asked = ouch.INBOUND_BY_CODE[raw[0]].decode(raw)
        if raw[0] == ouch.ENTER_ORDER.code:
            self.slow.enter(asked)
        elif raw[0] == ouch.REPLACE_ORDER.code:
            self.slow.replace(asked)
        else:
            self.slow.cancel(asked["user_ref"], asked["quantity"])
        self.compare()

    def compare(self) -> None:
        """What was said since the last time; the obvious exchange forgets it here."""
        assert self.made.market == self.slow.market
        assert self.made.reports == self.slow.reports
        self.taken_from |= {said["ref"] for said in self.slow.market if said.get("match", 0) >= OURS}
        for said in (self.made.market, self.made.reports, self.slow.market, self.slow.reports):
            said.clear()

    def compare_state(self) -> None:
        stage = self.made.rig.stage
        check_invariants(stage.state.venue.book)
        keys = {(order.locate, order.side) for order in self.slow.book}
        ours = [order for key in sorted(keys) for order in self.slow.in_priority(*key)]
        assert open_orders(self.made.rig) == [{name: getattr(order, name) for name in ALIKE} for order in ours]
        clients = [order for order in ours if order.is_clients]
        assert self.made.rig.count("open_orders") == len(clients)
        self.compare_live([order.user_ref for order in clients])
        assert self.made.rig.count("diverged") == self.slow.diverged
        assert stage.ignored == self.slow.ignored
        for locate in {*self.slow.symbols, *self.slow.accounts}:
            line = self.made.rig.positions.records[locate]
            account = self.slow.accounts.get(locate)
            for name in ("position", "bought", "sold", "cash", "fills"):
                assert int(line[name]) == (getattr(account, name) if account else 0), name
            for name, side in (("open_buy", "B"), ("open_sell", "S")):
                assert int(line[name]) == sum(order.qty for order in clients if order.locate == locate and order.side == side), name

    def compare_live(self, user_refs: list[int]) -> None:
        """The client's table and its list of live orders name each other, and nobody else."""
        clients = self.made.rig.stage.state.venue.clients
        live, table = clients.live[0], clients.table[0]
        slots = live[: self.made.rig.count("open_orders")].tolist()
        assert sorted(slots) == sorted(user_refs)
        assert np.flatnonzero(table["handle"]).tolist() == sorted(slots)
        assert table["place"][slots].tolist() == list(range(len(slots)))
        rows = Counter(2 * order.locate + (order.side == "S") for order in self.slow.book if order.is_clients)
        resting = self.made.rig.stage.state.venue.listing.resting
        assert {row: int(resting[row]) for row in np.flatnonzero(resting).tolist()} == rows


class Crowd:
    """A random history and a random client. History's own book (`mirror`) knows nothing of the client and never crosses itself."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.mirror: dict[int, list[Any]] = {}
        self.ref = 100
        self.user_ref = 0
        self.match = 1
        self.now = 0

    def best(self, locate: int, side: str) -> int | None:
        prices = [px for where, which, px, _ in self.mirror.values() if (where, which) == (locate, side)]
        return (max(prices) if side == "B" else min(prices)) if prices else None

    def price(self, locate: int, side: str) -> int:
        """Around 100 dollars; history's orders do not cross one another."""
        px = 1_000_000 + 100 * self.rng.randint(-8, 8)
        other = self.best(locate, "S" if side == "B" else "B")
        if other is not None:
            px = min(px, other - 100) if side == "B" else max(px, other + 100)
        return px

    def history(self) -> bytes:
        self.now += self.rng.randint(0, 5)
        kind = self.rng.choice("AAAAFEEECXDU") if len(self.mirror) > 6 else "A"
        if kind in "AF":
            return self._add(kind)
        ref = self.rng.choice(list(self.mirror))
        locate, side, px, qty = self.mirror[ref]
        at = {"now": self.now, "locate": locate}
        if kind in "EC":
            best = self.best(locate, side)
            ref = min(other for other, line in self.mirror.items() if line[:3] == [locate, side, best])
            return self._execute(kind, ref, at)
        if kind == "X" and qty > 1:
            cut = self.rng.randint(1, qty - 1)
            self.mirror[ref][3] -= cut
            return reduced(ref, cut, **at)
        del self.mirror[ref]
        if kind == "U":
            self.ref += 1
            px, qty = self.price(locate, side), self.rng.randint(1, 300)
            self.mirror[self.ref] = [locate, side, px, qty]
            return replaced(ref, self.ref, qty, px, **at)
        return deleted(ref, **at)

    def _add(self, kind: str) -> bytes:
        self.ref += 1
        locate, side, qty = self.rng.randint(1, 2), self.rng.choice("BS"), self.rng.randint(1, 300)
        px = self.price(locate, side)
        self.mirror[self.ref] = [locate, side, px, qty]
        symbol = {1: "AAPL", 2: "MSFT"}[locate]
        return add(self.ref, side, qty, px, now=self.now, locate=locate, symbol=symbol, mpid="MPID" if kind == "F" else "")

    def _execute(self, kind: str, ref: int, at: dict[str, int]) -> bytes:
        px, qty = self.mirror[ref][2:]
        shares = self.rng.choice([qty, self.rng.randint(1, qty)])
        self.mirror[ref][3] -= shares
        if self.mirror[ref][3] == 0:
            del self.mirror[ref]
        self.match += 1
        return executed(ref, shares, self.match, px=px - 50 if kind == "C" else None, **at)

    def client(self, aggression: int) -> bytes:
        """aggression: how many ticks beyond the middle a client's order may reach."""
        rng = self.rng
        self.user_ref += 1
        user_ref = max(self.user_ref - rng.choice([0] * 40 + [1, 2]), 0)
        target = max(self.user_ref - rng.randint(1, 12), 0)
        side = rng.choice("BS")
        px = 1_000_000 + (1 if side == "B" else -1) * 100 * rng.randint(-8, aggression)
        qty = rng.choice([rng.randint(1, 400)] * 30 + [0, 999_999, 1_000_000])
        tif = rng.choice("00000003" + ("3" if aggression > 0 else "0") + "5" * (rng.random() < 0.1))
        kind = rng.random()
        if kind < 0.5:
            px = rng.choice([px] * 40 + [0, 2_000_000_000, 1 << 63])
            symbol = rng.choice(["AAPL", "MSFT"] * 20 + ["NOPE"])
            return enter(user_ref, rng.choice([side] * 40 + ["T"]), qty, px, symbol=symbol, tif=tif, client_id=f"C{self.user_ref}")
        if kind < 0.75:
            return replace(target, user_ref, qty, px, tif=tif)
        return cancel(target, rng.choice([0, 0, rng.randint(1, 200)]))


@pytest.mark.parametrize(("seed", "aggression"), [(1, 8), (2, 8), (3, 1), (4, -1)])
def test_random_orders_give_the_same_events_as_the_obvious_exchange(on_bench: Bench, seed: int, aggression: int) -> None:
    """Half of them with room for one or two of the core's events, so that nearly all that trade go on in parts."""
    print(f"{seed=}")
    if seed % 2 == 0:
        on_bench.rig.room_for_events(seed // 2)
    crowd = Crowd(random.Random(seed))
    pair = Pair(on_bench)
    for symbol, locate in (("AAPL", 1), ("MSFT", 2)):
        pair.happen(directory(symbol, locate))
    for turn in range(2_500):
        if crowd.rng.random() < 0.5:
            pair.happen(crowd.history())
        else:
            pair.say(crowd.client(aggression))
        if turn % 50 == 0:
            pair.compare_state()
            assert_history_is_whole(pair.slow, crowd)
    pair.compare_state()
    counted = on_bench.rig.count
    assert counted("client_executions") > 100
    assert counted("rejected") > 50
    assert counted("open_orders") < 700


def assert_history_is_whole(slow: SlowExchange, crowd: Crowd) -> None:
    """An order of history's has what history thinks it has, less what clients took from it."""
    for order in slow.book:
        if not order.is_clients:
            locate, side, px, qty = crowd.mirror[order.ref]
            assert (order.locate, order.side, order.px, order.qty) == (locate, side, px, qty - order.executed)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(script=st.lists(st.tuples(st.booleans(), st.integers(0, 1 << 30)), min_size=5, max_size=60))
def test_any_script_gives_the_same_events(tmp_path: Path, script: list[tuple[bool, int]]) -> None:
    with bench(tmp_path) as made:
        pair = Pair(made)
        crowd = Crowd(random.Random(0))
        for symbol, locate in (("AAPL", 1), ("MSFT", 2)):
            pair.happen(directory(symbol, locate))
        for is_history, seed in script:
            crowd.rng.seed(seed)
            if is_history:
                pair.happen(crowd.history())
            else:
                pair.say(crowd.client(8))
        pair.compare_state()


def directory(symbol: str, locate: int) -> bytes:
    return itch.STOCK_DIRECTORY.encode(
        locate=locate, tracking=0, timestamp=0, stock=symbol, market_category="Q", financial_status="N", round_lot_size=100,
        round_lots_only="N", issue_classification="C", issue_subtype="Z", authenticity="P", short_sale_threshold="N", ipo_flag="",
        luld_tier="1", etp_flag="N", etp_leverage=0, inverse="N",
    )  # fmt: skip


# The real file.


def aapl() -> list[bytes]:
    if not AAPL.exists():
        pytest.skip("the shared data folder is not beside the project")
    return framed(AAPL.read_bytes())


class FileBook:
    """The file's own book by order, kept the obvious way."""

    def __init__(self) -> None:
        self.orders: dict[int, list[Any]] = {}
        self.levels: dict[str, Counter[int]] = {"B": Counter(), "S": Counter()}

    def apply(self, message: dict[str, Any]) -> bool:
        """Apply a message. False where it is about an order that was never there."""
        kind = message["type"]
        if kind in "AF":
            self._add(message["ref"], message["side"], message["px"], message["shares"])
        elif kind in "ECXDU":
            if message["ref"] not in self.orders:
                return False
            side, _, qty = self.orders[message["ref"]]
            self._take(message["ref"], qty if kind in "DU" else message["shares"])
            if kind == "U":
                self._add(message["new_ref"], side, message["px"], message["shares"])
        return True

    def _add(self, ref: int, side: str, px: int, qty: int) -> None:
        self.orders[ref] = [side, px, qty]
        self.levels[side][px] += qty

    def _take(self, ref: int, qty: int) -> None:
        side, px, _ = line = self.orders[ref]
        line[2] -= qty
        if line[2] == 0:
            del self.orders[ref]
        self.levels[side][px] -= qty
        if self.levels[side][px] == 0:
            del self.levels[side][px]

    def best(self) -> list[tuple[int, int]]:
        """Price and quantity of the best bid and offer, (0, 0) where a side is empty."""
        prices = (max(self.levels["B"], default=0), min(self.levels["S"], default=0))
        return [(px, self.levels[side][px]) for side, px in zip("BS", prices, strict=True)]


def test_history_without_clients_is_published_as_it_was(on_bench: Bench) -> None:
    """Message by message, but for what happens to orders that the file never added; and the exchange's best prices are the file's."""
    own = FileBook()
    unknown = 0
    book = on_bench.rig.stage.state.venue.book
    for raw in aapl():
        on_bench.happen(raw)
        message = decode_itch(raw)
        known = own.apply(message)
        unknown += not known
        assert on_bench.market == ([message] if known else [])
        on_bench.market.clear()
        assert best_prices(book) == own.best()
    assert on_bench.rig.count("diverged") == unknown
    assert on_bench.rig.count("replayed") == 10_056
    check_invariants(book)


def best_prices(book: Any) -> list[tuple[int, int]]:
    levels = [best_level(book, 14, side) for side in (BUY, SELL)]
    return [(int(book.levels[level].px), int(book.levels[level].qty)) if level >= 0 else (0, 0) for level in levels]


def test_a_client_in_the_real_file_changes_nothing_but_what_it_trades(on_bench: Bench) -> None:
    """A client joins and improves the best prices of the opening burst. Everything said is what the obvious exchange says, and without
    the client's orders the book stays the file's own, less what it took."""
    pair = Pair(on_bench)
    rng = random.Random(7)
    own = FileBook()
    user_ref = 0
    for number, raw in enumerate(aapl()[:4_000]):
        pair.happen(raw)
        own.apply(decode_itch(raw))
        if number > 100 and number % 15 == 0:
            user_ref += 1
            side = rng.choice("BS")
            (bid, _), (ask, _) = own.best()
            improve = rng.choice([0, 0, 100, -300])
            px = bid + improve if side == "B" else ask - improve
            pair.say(enter(user_ref, side, rng.choice([50, 100, 300]), px))
            if user_ref % 3 == 0:
                pair.say(cancel(user_ref - rng.randint(0, 2)))
    pair.compare_state()
    assert on_bench.rig.count("client_executions") > 20
    ours = {order.ref: order for order in pair.slow.book if not order.is_clients}
    for ref, order in ours.items():
        assert [order.side, order.px, order.qty + order.executed] == own.orders[ref]
    assert own.orders.keys() - ours.keys() <= pair.taken_from


# By hand: what history's events do to a client's order. Prices in cents here.


def cents(px: int) -> int:
    return px * 100


def short(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    """Market messages as their type and what they change."""
    return [(m["type"], *(m[name] for name in ("ref", "new_ref", "side", "shares", "px") if name in m)) for m in messages]


def told(reports: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(m["type"], *(m[name] for name in ("user_ref", "quantity", "px", "liquidity", "reason") if name in m)) for m in reports]


def start(made: Bench, *history: bytes, client: tuple[bytes, ...] = ()) -> None:
    made.happen(directory("AAPL", 1))
    for raw in history:
        made.happen(raw)
    for raw in client:
        made.say(raw)
    made.market.clear()
    made.reports.clear()


def test_a_client_behind_the_executed_order_waits(on_bench: Bench) -> None:
    start(on_bench, add(1, "B", 100, cents(5000)), client=(enter(1, "B", 50, cents(5000)),))
    on_bench.happen(executed(1, 60, 9))
    assert short(on_bench.market) == [("E", 1, 60)]
    assert on_bench.reports == []


def test_a_client_before_the_executed_order_is_filled_first(on_bench: Bench) -> None:
    start(on_bench, client=(enter(1, "B", 50, cents(5000)),))
    on_bench.happen(add(1, "B", 100, cents(5000)))
    on_bench.market.clear()
    on_bench.happen(executed(1, 80, 9))
    assert short(on_bench.market) == [("E", OURS, 50), ("E", 1, 30), ("X", 1, 50)]
    assert told(on_bench.reports) == [("E", 1, 50, cents(5000), "A")]
    assert [(order["ref"], order["qty"]) for order in open_orders(on_bench.rig)] == [(1, 20)]


def test_a_client_that_takes_all_of_an_execution_leaves_the_order_cancelled(on_bench: Bench) -> None:
    start(on_bench, client=(enter(1, "S", 500, cents(5000)),))
    on_bench.happen(add(1, "S", 100, cents(5000)))
    on_bench.market.clear()
    on_bench.happen(executed(1, 100, 9))
    assert short(on_bench.market) == [("E", OURS, 100), ("D", 1)]
    assert told(on_bench.reports) == [("E", 1, 100, cents(5000), "A")]
    assert [(order["ref"], order["qty"]) for order in open_orders(on_bench.rig)] == [(OURS, 400)]


def test_a_client_at_a_better_price_is_filled_at_its_own_price(on_bench: Bench) -> None:
    start(on_bench, add(1, "B", 100, cents(5000)), client=(enter(1, "B", 30, cents(5001)), enter(2, "B", 30, cents(4999))))
    on_bench.happen(executed(1, 100, 9))
    assert short(on_bench.market) == [("E", OURS, 30), ("E", 1, 70), ("D", 1)]
    assert told(on_bench.reports) == [("E", 1, 30, cents(5001), "A")]


def test_history_passes_over_its_own_better_orders(on_bench: Bench) -> None:
    """History executed a worse order of its own (an auction, an odd lot): only clients come first."""
    start(on_bench, add(1, "B", 100, cents(5002)), add(2, "B", 100, cents(5000)), client=(enter(1, "B", 10, cents(5001)),))
    on_bench.happen(executed(2, 40, 9))
    assert short(on_bench.market) == [("E", OURS, 10), ("E", 2, 30), ("X", 2, 10)]


def test_an_execution_at_another_price_keeps_its_price(on_bench: Bench) -> None:
    start(on_bench, client=(enter(1, "B", 30, cents(5000)),))
    on_bench.happen(add(1, "B", 100, cents(5000)))
    on_bench.market.clear()
    on_bench.happen(executed(1, 50, 9, px=cents(4998)))
    assert short(on_bench.market) == [("E", OURS, 30), ("C", 1, 20, cents(4998)), ("X", 1, 30)]


def test_a_historical_order_that_meets_a_client_trades_with_it_first(on_bench: Bench) -> None:
    start(on_bench, add(1, "B", 100, cents(4999)), client=(enter(1, "B", 30, cents(5001)), enter(2, "B", 30, cents(5000))))
    on_bench.happen(add(2, "S", 100, cents(5000), mpid="ABCD"))
    assert short(on_bench.market) == [("E", OURS, 30), ("E", OURS + 1, 30), ("F", 2, "S", 40, cents(5000))]
    assert told(on_bench.reports) == [("E", 1, 30, cents(5001), "A"), ("E", 2, 30, cents(5000), "A")]


def test_what_history_says_of_an_order_that_is_gone_is_counted(on_bench: Bench) -> None:
    start(on_bench, add(1, "S", 100, cents(5000)), add(2, "S", 100, cents(5000)), client=(enter(1, "B", 130, cents(5000)),))
    on_bench.market.clear()
    for raw in (executed(1, 100, 9), deleted(1), reduced(1, 10), replaced(1, 3, 100, cents(5001))):
        on_bench.happen(raw)
    assert on_bench.market == []
    assert on_bench.rig.count("diverged") == 4
    on_bench.happen(executed(2, 90, 10))
    assert short(on_bench.market) == [("E", 2, 70)]
    assert on_bench.rig.count("diverged") == 5


def test_history_cannot_touch_a_clients_order(on_bench: Bench) -> None:
    start(on_bench, client=(enter(1, "B", 100, cents(5000)),))
    for raw in (
        executed(OURS, 100, 9),
        deleted(OURS),
        reduced(OURS, 10),
        replaced(OURS, 3, 100, cents(5001)),
        add(OURS, "B", 5, cents(5000)),
    ):
        on_bench.happen(raw)
    assert on_bench.market == on_bench.reports == []
    assert on_bench.rig.count("diverged") == 5


def test_a_replacement_of_an_order_that_a_client_took_from_is_smaller_by_that(on_bench: Bench) -> None:
    start(on_bench, add(1, "S", 100, cents(5000)), client=(enter(1, "B", 30, cents(5000)),))
    on_bench.happen(replaced(1, 2, 80, cents(5001)))
    on_bench.happen(replaced(2, 3, 20, cents(5002)))
    assert short(on_bench.market) == [("U", 1, 2, 50, cents(5001)), ("D", 2)]


def test_a_halted_symbol_takes_no_orders_but_cancels(on_bench: Bench) -> None:
    start(on_bench, client=(enter(1, "B", 30, cents(5000)),))
    on_bench.happen(itch.TRADING_ACTION.encode(locate=1, tracking=0, timestamp=1, stock="AAPL", state="H", reserved="", reason="T1"))
    on_bench.say(enter(2, "B", 30, cents(5000)))
    on_bench.say(replace(1, 3, 40, cents(5000)))
    on_bench.say(cancel(1))
    on_bench.happen(itch.TRADING_ACTION.encode(locate=1, tracking=0, timestamp=1, stock="AAPL", state="T", reserved="", reason=""))
    on_bench.say(enter(4, "B", 30, cents(5000)))
    assert told(on_bench.reports) == [
        ("J", 2, ouch.REJECT_CLOSED),
        ("J", 3, ouch.REJECT_CLOSED),
        ("C", 1, 30, "U"),
        ("A", 4, 30, cents(5000)),
    ]


def test_an_order_sweeps_levels_and_rests(on_bench: Bench) -> None:
    start(on_bench, add(1, "S", 10, cents(5001)), add(2, "S", 10, cents(5000)), add(3, "S", 10, cents(5000)), add(4, "S", 10, cents(5003)))
    on_bench.say(enter(1, "B", 35, cents(5001)))
    assert short(on_bench.market) == [("E", 2, 10), ("E", 3, 10), ("E", 1, 10), ("A", OURS, "B", 5, cents(5001))]
    assert told(on_bench.reports) == [
        ("A", 1, 35, cents(5001)),
        ("E", 1, 10, cents(5000), "R"),
        ("E", 1, 10, cents(5000), "R"),
        ("E", 1, 10, cents(5001), "R"),
    ]
    matches = [message["match"] for message in on_bench.market if message["type"] == "E"]
    assert matches == [report["match"] for report in on_bench.reports if report["type"] == "E"] == [OURS, OURS + 1, OURS + 2]


def test_what_an_immediate_order_does_not_trade_is_cancelled(on_bench: Bench) -> None:
    start(on_bench, add(1, "S", 10, cents(5000)))
    on_bench.say(enter(1, "B", 35, cents(5000), tif="3"))
    assert short(on_bench.market) == [("E", 1, 10)]
    assert told(on_bench.reports) == [("A", 1, 35, cents(5000)), ("E", 1, 10, cents(5000), "R"), ("C", 1, 25, "I")]


def test_a_replace_counts_what_the_chain_has_executed(on_bench: Bench) -> None:
    """OUCH 5.0, section 2.2: to replace 500 of which 100 traded by 500 leaves 400 open."""
    start(on_bench, client=(enter(1, "B", 500, cents(5000)),))
    on_bench.say(enter(2, "S", 100, cents(5000), tif="3"))
    on_bench.market.clear()
    on_bench.reports.clear()
    on_bench.say(replace(1, 3, 500, cents(5001)))
    on_bench.say(cancel(3, 200))
    on_bench.say(replace(3, 4, 100, cents(5001)))
    assert short(on_bench.market) == [("U", OURS, OURS + 2, 400, cents(5001)), ("X", OURS + 2, 300), ("D", OURS + 2)]
    assert told(on_bench.reports) == [("U", 3, 400, cents(5001)), ("C", 3, 300, "U"), ("C", 3, 100, "U")]


def test_a_replaced_order_loses_its_place_and_a_reduced_one_keeps_it(on_bench: Bench) -> None:
    start(on_bench, client=tuple(enter(number, "B", 100, cents(5000)) for number in (1, 2, 3)))
    on_bench.say(replace(1, 4, 100, cents(5000)))
    on_bench.say(cancel(2, 40))
    on_bench.reports.clear()
    on_bench.say(enter(5, "S", 190, cents(5000), tif="3"))
    filled = [
        (report["user_ref"], report["quantity"]) for report in on_bench.reports if report["type"] == "E" and report["liquidity"] == "A"
    ]
    assert filled == [(2, 40), (3, 100), (4, 50)]
