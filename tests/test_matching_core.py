"""The matching core against plain Python, event by event; and what must hold of its events whatever the engine."""

import json
import random
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from engine.book.book import check_invariants, make_book
from engine.exchange.hot.core import EVENT, TRADED, WALK_WORDS
from engine.layout import BUY, SELL
from perf.bench_matching import main
from perf.hot.matching import ACCEPTED, CANCEL, CANCELED, MODIFIED, MODIFY, NEW, NO_ROOM, ORDER, run
from perf.order_flow import SCENARIOS, make_flow, mix_of
from perf.plain_matching import Event, PlainEngine, told

FIRST_REF = 1_000
KIND, REF, TAKER, PX, QTY, LEFT, NUMBER = range(7)


def matched(orders: np.ndarray, minimum: int, ids: int, levels_max: int = 1 << 12) -> list[Event]:
    book = make_book(orders_max=ids, levels_max=levels_max, instruments_max=2)
    events = np.zeros(4 * len(orders) + 16, EVENT).view(np.recarray)
    handles = np.zeros(ids + 1, np.uint32)
    walk = np.zeros(WALK_WORDS, np.int64)
    count = int(run(book, handles, orders.view(np.recarray), events, walk, FIRST_REF, minimum))
    assert not walk.any(), "it stopped with room for more events"
    check_invariants(book)
    # The live orders are those whose ids have a handle, each its own.
    live = np.flatnonzero(book.orders["qty"])
    assert sorted(handles[handles != 0].tolist()) == live.tolist()
    assert book.orders["user_ref"][handles[handles != 0]].tolist() == np.flatnonzero(handles).tolist()
    return told(events[:count])


def crowded(seed: int, count: int) -> np.ndarray:
    """Orders of all sizes at few prices, so that nearly all of them share a price with many, and large ones sweep several."""
    rng = random.Random(seed)
    made = np.zeros(count, ORDER)
    number = 0
    for order in made:
        kind = rng.choices([NEW, CANCEL, MODIFY], [6, 1, 1])[0] if number else NEW
        number += kind == NEW
        order["kind"], order["id"] = kind, number if kind == NEW else rng.randint(max(1, number - 40), number)
        order["side"], order["px"] = rng.choice([BUY, SELL]), 1_000 + rng.randint(-2, 2)
        order["qty"] = rng.choice([1, rng.randint(1, 9), rng.randint(1, 300), rng.randint(1, 3_000)])
        order["immediate"] = kind == NEW and rng.random() < 0.2
    # A modify keeps its order's side; what is modified may be gone.
    sides = {int(order["id"]): int(order["side"]) for order in made if order["kind"] == NEW}
    made["side"] = [sides[int(number)] for number in made["id"]]
    return made


@pytest.mark.parametrize("scenario", list(SCENARIOS))
def test_the_challenge_s_kind_of_flow_gives_the_events_of_plain_python(scenario: str) -> None:
    orders = make_flow(scenario, 4_000, seed=7)
    assert matched(orders, 0, 4_000) == PlainEngine(FIRST_REF).run(orders)


@pytest.mark.parametrize("minimum", [0, 1, 2, 50])
@pytest.mark.parametrize("seed", [1, 2, 3])
def test_crowded_prices_give_the_events_of_plain_python(seed: int, minimum: int) -> None:
    print(f"{seed=} {minimum=}")
    orders = crowded(seed, 3_000)
    events = matched(orders, minimum, 3_000)
    assert events == PlainEngine(FIRST_REF, minimum).run(orders)
    assert sum(event[KIND] == TRADED for event in events) > 500
    if minimum:
        assert events != PlainEngine(FIRST_REF).run(orders)


@pytest.mark.parametrize("minimum", [0, 2])
def test_no_order_trades_through_its_limit_or_more_than_it_has(minimum: int) -> None:
    """From the events and the orders alone, without an engine: limits, volume, and that nobody with a better price was passed over."""
    orders = crowded(11, 3_000)
    sides = {int(order["id"]): int(order["side"]) for order in orders if order["kind"] == NEW}
    limit: dict[int, int] = {}
    open_qty: dict[int, int] = defaultdict(int)
    for event in matched(orders, minimum, 3_000):
        number = event[NUMBER]
        if event[KIND] in (ACCEPTED, MODIFIED):
            limit[number], open_qty[number] = event[PX], event[QTY]
        elif event[KIND] == CANCELED:
            assert event[QTY] == open_qty.pop(number)
        elif event[KIND] == TRADED:
            taker, maker = event[TAKER], number
            assert event[PX] == limit[maker]
            assert event[PX] <= limit[taker] if sides[taker] == BUY else event[PX] >= limit[taker]
            against = [limit[other] for other, qty in open_qty.items() if qty and sides[other] == sides[maker]]
            assert event[PX] == (max(against) if sides[maker] == BUY else min(against))
            for each in (taker, maker):
                open_qty[each] -= event[QTY]
                assert open_qty[each] >= 0
            assert open_qty[maker] == event[LEFT]


def book_of(*quantities: int) -> np.ndarray:
    """Offers of these quantities at one price, ids from 1 in the order of their arrival."""
    made = np.zeros(len(quantities), ORDER)
    made["id"], made["side"], made["px"], made["qty"] = np.arange(1, len(quantities) + 1), SELL, 500, quantities
    return made


def taken(quantities: tuple[int, ...], wanted: int, minimum: int) -> list[tuple[int, int]]:
    """Who gets what of an order to buy `wanted` of these."""
    aggressor = np.zeros(1, ORDER)
    aggressor["id"], aggressor["side"], aggressor["px"], aggressor["qty"] = 99, BUY, 500, wanted
    events = matched(np.concatenate([book_of(*quantities), aggressor]), minimum, 100)
    return [(event[NUMBER], event[QTY]) for event in events if event[KIND] == TRADED]


def test_shares_are_rounded_down_and_the_rest_goes_to_the_oldest() -> None:
    """The example of CME's notice of 2005-02-07 without its TOP order: 50 of 140, of which a share of one lot is none."""
    assert taken((5, 20, 50, 15, 50), 50, 1) == [(1, 4), (2, 7), (3, 17), (4, 5), (5, 17)]
    # Shares: 5*50/140 = 1 (below the minimum of 2, so 0), 7, 17, 5, 17; 4 are left over, all to the oldest.
    assert taken((5, 20, 50, 15, 50), 50, 2) == [(1, 4), (2, 7), (3, 17), (4, 5), (5, 17)]
    # With a minimum above every share it is price-time priority.
    assert taken((5, 20, 50, 15, 50), 50, 100) == [(1, 5), (2, 20), (3, 25)]


def test_an_order_whose_share_is_below_the_minimum_gets_nothing_before_its_turn() -> None:
    assert taken((100, 1, 100), 20, 2) == [(1, 11), (3, 9)]
    assert taken((1, 100, 100), 20, 2) == [(1, 1), (2, 10), (3, 9)]


def test_a_whole_price_is_taken_in_the_order_of_arrival() -> None:
    assert taken((3, 50, 7), 60, 2) == [(1, 3), (2, 50), (3, 7)]


def test_the_largest_quantities_share_without_overflow() -> None:
    most = 999_999
    assert taken((most, most, most), most, 2) == [(1, 333_333), (2, 333_333), (3, 333_333)]


def test_an_order_for_which_there_is_no_room_is_told() -> None:
    orders = book_of(1, 1, 1)
    orders["px"] = [1, 2, 3]
    assert [event[KIND] for event in matched(orders, 0, 10, levels_max=2)] == [ACCEPTED, ACCEPTED, ACCEPTED, NO_ROOM]


def test_the_flow_is_what_the_challenge_says_of_its_own() -> None:
    """Shares of its method: 15 % immediate, of the others 20 % modified and 95 % cancelled, 2 % of those again; one seed, one flow."""
    orders = make_flow("normal", 50_000, seed=3)
    assert orders.tobytes() == make_flow("normal", 50_000, seed=3).tobytes()
    assert orders.tobytes() != make_flow("normal", 50_000, seed=4).tobytes()
    new = orders[orders["kind"] == NEW]
    assert sorted(new["id"].tolist()) == list(range(1, 50_001))
    immediate = float(new["immediate"].mean())
    limits = 50_000 * (1 - immediate)
    assert immediate == pytest.approx(0.15, abs=0.01)
    assert (orders["kind"] == CANCEL).sum() / limits == pytest.approx(0.95 * 1.02, abs=0.01)
    assert (orders["kind"] == MODIFY).sum() / limits == pytest.approx(0.2 * (1 + 0.95 * 0.02), abs=0.01)
    assert set(np.unique(new["qty"])) == set(range(1, 101))
    assert sum(mix_of(orders).values()) == pytest.approx(1.0, abs=1e-3)
    first = {int(number): at for at, number in reversed(list(enumerate(orders["id"].tolist())))}
    assert all(orders["kind"][at] == NEW for at in first.values())


def test_the_benchmark_s_figures_and_its_verdict(tmp_path: Path) -> None:
    done = CliRunner().invoke(main, ["--orders", "1000", "--passes", "1", "--json", str(tmp_path / "figures.json")])
    assert done.exit_code == 0, done.output
    figures: dict[str, Any] = json.loads((tmp_path / "figures.json").read_text())
    assert [row["scenario"] for row in figures["scenarios"]] == list(SCENARIOS)
    assert figures["worst_mps"] == min(row["mps"] for row in figures["scenarios"])
    assert all(row["differences"] == [] and row["events"] > row["orders"] for row in figures["scenarios"])


def test_the_benchmark_says_where_plain_python_differs(monkeypatch: pytest.MonkeyPatch) -> None:
    say = PlainEngine.tell
    monkeypatch.setattr(PlainEngine, "tell", lambda self, kind, number, qty, px: say(self, kind, number, qty + 1, px))
    done = CliRunner().invoke(main, ["--orders", "1000", "--passes", "1", "--scenario", "normal"])
    assert done.exit_code == 1
    assert "plain Python says otherwise" in done.output
