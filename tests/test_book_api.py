"""What a strategy learns when it asks the book: through the API, in a compiled handler, and of a venue's order by its reference."""

import uuid
from pathlib import Path
from typing import Any

import pytest

from engine.book.book import make_book
from engine.book.hot.book import Book, add_order, open_book, tell_flags, told_flags
from engine.book.hot.query import best_of
from engine.feed import itch
from engine.layout import BOOK_HALTED, BOOK_SUSPECT, BOOK_VALID, BUY, SELL
from engine.strategy.api import NOT_THERE, NOT_VALID, REFUSED_QTY, TOLD, TORN
from engine.strategy.drive import Driver, quote
from engine.strategy.errors import StrategyError
from engine.strategy.load import load
from engine.wire.table import Value
from tests.feed_house import feed_house
from tests.itch_flow import packet
from tests.running import Launcher

STRATEGIES = Path(__file__).resolve().parent / "strategies" / "good"
ASKING = str(STRATEGIES / "asking.py")
PLACING = str(STRATEGIES / "placing.py")
VALID_ONLY = True
INSTRUMENT = 1


def make_asked() -> Book:
    """Offers: 50 and 30 at 101, 200 at 102, 10 at 105. Bids: 70 at 100, 20 at 98."""
    book = make_book(orders_max=16, levels_max=16, instruments_max=3)
    for ref, side, px, qty in (
        (1, SELL, 101, 50),
        (2, SELL, 102, 200),
        (3, SELL, 101, 30),
        (4, SELL, 105, 10),
        (5, BUY, 100, 70),
        (6, BUY, 98, 20),
    ):
        assert add_order(book, ref, INSTRUMENT, side, px, qty) > 0
    tell_flags(book, INSTRUMENT, BOOK_VALID)
    return book


def asked(book: Book | None, **params: int) -> dict[str, Any]:
    """What the strategy kept after one quote, by name."""
    driver = Driver(ASKING, params=params, book=book)
    driver.happen(quote(100, 101))
    state = driver.state()
    assert state["asked"] == 1
    return {name: int(state[name]) for name in state.dtype.names}


def test_a_handler_gets_the_books_answers() -> None:
    state = asked(make_asked(), side=BUY, qty=150, levels=2, ref_id=3)
    told = {name: state[name] for name in ("best_told", "queue_told", "mid_told", "sweep_told")}
    assert told == dict.fromkeys(told, TOLD)
    assert [state[name] for name in ("bid_px", "bid_qty", "bid_orders", "ask_px", "ask_qty", "ask_orders")] == [100, 70, 1, 101, 80, 2]
    assert [state[name] for name in ("there", "last_px", "last_qty", "last_orders")] == [2, 98, 20, 1]
    assert (state["beyond_px"], state["before_px"]) == (0, 0)
    assert [state[name] for name in ("ahead_qty", "ahead_orders", "level_qty")] == [50, 1, 80]
    assert state["px_milli"] == (100 * 80 + 101 * 70) * 1_000 // 150
    # 80 at 101 and 70 at 102, rounded up: a buyer pays at most that.
    assert [state[name] for name in ("average_px", "worst_px", "missing_qty")] == [102, 102, 0]


def test_a_sale_meets_the_bids_and_more_levels_than_there_are_are_not_there() -> None:
    state = asked(make_asked(), side=SELL, qty=100, levels=64, ref_id=5)
    assert [state[name] for name in ("average_px", "worst_px", "missing_qty")] == [99, 98, 10]
    assert [state[name] for name in ("there", "last_px", "last_qty")] == [3, 105, 10]
    assert [state[name] for name in ("ahead_qty", "ahead_orders", "level_qty")] == [0, 0, 70]


@pytest.mark.parametrize(("levels", "there"), [(0, 0), (-1, 0), (1_000_000, 2)])
def test_no_number_of_levels_leads_outside(levels: int, there: int) -> None:
    state = asked(make_asked(), levels=levels)
    assert state["there"] == there
    assert state["beyond_px"] == state["before_px"] == 0


def test_why_there_is_no_answer() -> None:
    assert [asked(None)[name] for name in ("best_told", "queue_told", "mid_told", "sweep_told", "there")] == [NOT_THERE] * 5
    book = make_asked()
    state = asked(book, ref_id=99, qty=0)
    assert (state["queue_told"], state["sweep_told"]) == (NOT_THERE, REFUSED_QTY)
    tell_flags(book, INSTRUMENT, BOOK_SUSPECT)
    state = asked(book)
    assert [state[name] for name in ("best_told", "queue_told", "mid_told", "sweep_told", "there")] == [NOT_VALID] * 5
    assert state["bid_px"] == state["last_px"] == state["px_milli"] == state["average_px"] == 0
    tell_flags(book, INSTRUMENT, BOOK_VALID)
    open_book(book, INSTRUMENT)
    assert [asked(book)[name] for name in ("best_told", "queue_told", "mid_told", "sweep_told", "there")] == [TORN] * 5


@pytest.mark.parametrize(
    ("call", "what"),
    [
        ("sweep_cost(ctx, quote.instrument, BUY, 1.5)", "a quantity is given as"),
        ("queue_ahead(ctx, quote.instrument, 1.5)", "an order's id is given as"),
    ],
)
def test_a_fraction_is_told_before_it_trades(call: str, what: str, tmp_path: Path) -> None:
    path = tmp_path / "mine.py"
    path.write_text(f"from engine.strategy.api import *\n\n\ndef on_book(ctx, params, state, quote):\n    {call}\n")
    with pytest.raises(StrategyError, match=rf"mine\.py:5: .*{what}"):
        Driver(str(path))
    assert load(str(path)).handlers == ("on_book",)


def test_what_the_feed_tells_of_a_book_lies_beside_it() -> None:
    """VALID with the quotes, and the reason with the status."""
    book = make_book(orders_max=16, levels_max=16, instruments_max=3)
    head: dict[str, Value] = {"locate": INSTRUMENT, "tracking": 0, "timestamp": 1, "stock": "ABC"}
    bid = itch.ADD_ORDER.encode(**head, ref=1, side="B", shares=10, px=1_000)
    ask = itch.ADD_ORDER.encode(**head, ref=2, side="S", shares=20, px=1_100)
    with feed_house(book=book, instruments_max=3) as house:
        assert best_of(book, INSTRUMENT, VALID_ONLY).told == NOT_VALID
        house.send(packet(1, [bid, ask]))
        assert best_of(book, INSTRUMENT, VALID_ONLY)[2:] == (1_000, 10, 1, 1_100, 20, 1)
        for sequence, state, flags in ((3, "H", BOOK_HALTED), (4, "T", BOOK_VALID)):
            house.send(packet(sequence, [itch.TRADING_ACTION.encode(**head, state=state, reserved="", reason="LUDP")]))
            assert told_flags(book, INSTRUMENT) == house.quote_line(INSTRUMENT)["flags"] == flags
            assert (best_of(book, INSTRUMENT, VALID_ONLY).told == TOLD) == (flags == BOOK_VALID)


def test_a_running_strategy_finds_its_own_order_in_the_feed_handlers_book(tmp_path: Path) -> None:
    """Three processes and an exchange: the gateway says under which reference an order rests, the shared book where."""
    launcher = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}", {"TICKPATH_STATE": str(tmp_path / "state")})
    launcher.replace('use = "engine.strategy.market_maker"', f'use = "{PLACING}"')
    report, finished = launcher.trade("--seconds", "2")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert report["counters"]["strategy"]["orders"] == 2 * 3
    assert launcher.segments() == []
