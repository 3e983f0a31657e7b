"""The price of a cross against all prices tried one by one."""

import random
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from engine.book.book import make_book
from engine.book.hot.book import add_order
from engine.exchange.hot.auction import NO_INSTRUMENT, clearing_px, reference_px
from engine.layout import BUY, SELL

OWN, SHADOW = 3, 5
# side, px, qty, shadow
Order = tuple[int, int, int, bool]


def book_of(orders: list[Order]) -> Any:
    book = make_book(orders_max=1_000, levels_max=1_000, instruments_max=8)
    for ref, (side, px, qty, in_shadow) in enumerate(orders, start=100):
        assert add_order(book, ref, SHADOW if in_shadow else OWN, side, px, qty) > 0
    return book


def demand_supply(orders: list[Order], px: int) -> tuple[int, int]:
    return (
        sum(qty for side, limit, qty, _ in orders if side == BUY and limit >= px),
        sum(qty for side, limit, qty, _ in orders if side == SELL and limit <= px),
    )


def tried_one_by_one(orders: list[Order], reference: int) -> tuple[int, int]:
    """The rule as it is told, over every limit and every cent between the lowest limit and the highest."""
    limits = {px for _, px, _, _ in orders}
    prices = limits | {px for px in range(min(limits), max(limits) + 1) if px % 100 == 0} if limits else set()
    judged = []
    for px in prices:
        demand, supply = demand_supply(orders, px)
        judged.append((-min(demand, supply), abs(demand - supply), abs(px - reference), px))
    best = min(judged, default=(0, 0, 0, 0))
    return (best[3], -best[0]) if best[0] < 0 else (0, 0)


@pytest.mark.parametrize("step", [100, 25, 1])
def test_the_price_of_a_cross_is_the_best_of_all_prices(step: int) -> None:
    rng = random.Random(step)
    crossed = 0
    for _ in range(400):
        orders = [
            (
                rng.choice([BUY, SELL]),
                10_000 + step * rng.randint(-12, 12),
                rng.choice([1, 5, 100, rng.randint(1, 400)]),
                rng.random() < 0.5,
            )
            for _ in range(rng.randint(0, 14))
        ]
        reference = 10_000 + rng.randint(-1_500, 1_500)
        found = tuple(int(value) for value in clearing_px(book_of(orders), OWN, SHADOW, reference))
        assert found == tried_one_by_one(orders, reference), (orders, reference)
        crossed += found[1] > 0
        # The far price: what is for the cross only.
        alone = [order for order in orders if order[3]]
        assert tuple(int(value) for value in clearing_px(book_of(orders), SHADOW, NO_INSTRUMENT, reference)) == tried_one_by_one(
            alone, reference
        )
    assert crossed > 200


@settings(max_examples=150, deadline=None)
@given(
    orders=st.lists(st.tuples(st.sampled_from([BUY, SELL]), st.integers(1, 700), st.integers(1, 9), st.booleans()), max_size=9),
    reference=st.integers(1, 900),
)
def test_no_price_executes_more_shares(orders: list[Order], reference: int) -> None:
    px, volume = (int(value) for value in clearing_px(book_of(orders), OWN, SHADOW, reference))
    everywhere = [min(demand_supply(orders, each)) for each in range(1, 901)]
    # A price between two cents that no limit names may be the only one at which most trade.
    assert volume <= max(everywhere)
    assert (px, volume) == tried_one_by_one(orders, reference)
    if volume:
        assert min(demand_supply(orders, px)) == volume


@pytest.mark.parametrize(
    ("orders", "reference", "expected"),
    [
        # One price pairs most.
        ([(BUY, 10_200, 100, True), (BUY, 10_100, 100, True), (SELL, 10_100, 150, False)], 10_000, (10_100, 150)),
        # All from 10,000 to 10,200 pair 100 and leave nothing: the reference decides.
        ([(BUY, 10_200, 100, True), (SELL, 10_000, 100, True)], 10_130, (10_100, 100)),
        ([(BUY, 10_200, 100, True), (SELL, 10_000, 100, True)], 10_150, (10_100, 100)),
        ([(BUY, 10_200, 100, True), (SELL, 10_000, 100, True)], 10_160, (10_200, 100)),
        ([(BUY, 10_200, 100, True), (SELL, 10_000, 100, True)], 50_000, (10_200, 100)),
        # The same shares trade at either limit, but only between them nothing is left over.
        ([(BUY, 10_300, 50, True), (BUY, 10_000, 50, True), (SELL, 10_000, 50, True), (SELL, 10_300, 50, True)], 0, (10_100, 50)),
        ([(BUY, 9_900, 100, True), (SELL, 10_000, 100, True)], 10_000, (0, 0)),
        ([], 10_000, (0, 0)),
    ],
)
def test_which_of_several_prices(orders: list[Order], reference: int, expected: tuple[int, int]) -> None:
    assert tuple(int(value) for value in clearing_px(book_of(orders), OWN, SHADOW, reference)) == expected


def test_the_reference_is_the_middle_of_the_displayed_book() -> None:
    book = book_of([(BUY, 9_900, 1, False), (BUY, 9_800, 1, False), (SELL, 10_000, 1, False), (BUY, 12_000, 1, True)])
    assert reference_px(book, OWN, 7) == 9_950
    assert reference_px(book, SHADOW, 7) == 7
    assert reference_px(book_of([(SELL, 10_000, 1, False)]), OWN, np.int64(8)) == 8
