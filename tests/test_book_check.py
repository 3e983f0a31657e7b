"""The checks that run beside a live book, and what empties one: each fault is found under its own name, and nothing else is."""

import random
from collections.abc import Callable

import numpy as np
import pytest

from engine.book.book import FAULTS, check_invariants, make_book
from engine.book.hot.book import (
    LEVELS_LIVE,
    NO_ROOM,
    NONE,
    ORDERS_LIVE,
    PAGES_LIVE,
    VERSION_AT,
    Book,
    add_order,
    best_level,
    find_order,
    reduce_order,
    worse_level,
)
from engine.book.hot.check import (
    LEVEL_MISPLACED,
    LEVELS_UNSORTED,
    LINKS_BROKEN,
    ORDER_STRAY,
    ORDER_UNFINDABLE,
    SUM_WRONG,
    TOTAL_WRONG,
    VECTOR_OUTSIDE,
    WHOLE,
    check_book,
    check_instrument,
)
from engine.book.hot.clear import clear_book, clear_instrument
from engine.layout import BUY, SELL

INSTRUMENTS = 4
DAMAGED = 2


def make_whole(seed: int = 1, orders: int = 120) -> Book:
    """Three levels and more on either side of every instrument, bids below offers."""
    rng = random.Random(seed)
    book = make_book(orders_max=200, levels_max=200, instruments_max=INSTRUMENTS)
    for ref in range(orders):
        side = rng.choice([BUY, SELL])
        px = 1_000 + (1 if side == SELL else -1) * rng.randrange(1, 8)
        assert add_order(book, ref * 5, ref % INSTRUMENTS, side, px, rng.randrange(1, 100)) > 0
    for ref in rng.sample(range(orders), orders // 4):
        reduce_order(book, find_order(book, ref * 5), 30)
    check_invariants(book)
    return book


def bid(book: Book, depth: int = 0) -> np.record:
    return book.levels[worse_level(book, DAMAGED, BUY, depth)]


def head(book: Book) -> int:
    """The first of the several orders at the best bid that has several."""
    depth = 0
    while bid(book, depth)["orders"] < 3:
        depth += 1
    return int(bid(book, depth)["head"])


def many(book: Book) -> None:
    book.sides["count"][2 * DAMAGED] = 1 << 20


def far(book: Book) -> None:
    book.sides["start"][2 * DAMAGED] = len(book.keys)


def same_price(book: Book) -> None:
    start = int(book.sides["start"][2 * DAMAGED])
    book.keys[start + 1] = book.keys[start]


def swapped(book: Book) -> None:
    start = int(book.sides["start"][2 * DAMAGED])
    for vector in (book.keys, book.ids):
        vector[[start, start + 1]] = vector[[start + 1, start]]


def no_level(book: Book) -> None:
    book.ids[int(book.sides["start"][2 * DAMAGED])] = 0xFFFFFFF0


def other_px(book: Book) -> None:
    bid(book)["px"] += 1


def other_side(book: Book) -> None:
    bid(book)["side"] = SELL


def other_instrument(book: Book) -> None:
    bid(book)["instrument"] = 1


def dead_order(book: Book) -> None:
    book.orders["qty"][head(book)] = 0


def order_elsewhere(book: Book) -> None:
    book.orders["instrument"][head(book)] = 1


def order_of_other_side(book: Book) -> None:
    book.orders["side"][head(book)] = SELL


def order_of_other_level(book: Book) -> None:
    book.orders["level"][head(book)] += 1


def ring_of_orders(book: Book) -> None:
    first = head(book)
    book.orders["next"][int(book.orders["next"][first])] = first


def no_end(book: Book) -> None:
    book.orders["next"][head(book)] = 0xFFFFFF00


def to_the_dead(book: Book) -> None:
    book.orders["next"][head(book)] = 0


def back_link(book: Book) -> None:
    book.orders["prev"][int(book.orders["next"][head(book)])] = NONE


def tail_elsewhere(book: Book) -> None:
    bid(book)["tail"] = NONE


def an_order_more(book: Book) -> None:
    bid(book)["orders"] += 1


def level_sum(book: Book) -> None:
    bid(book)["qty"] -= 1


def order_qty(book: Book) -> None:
    book.orders["qty"][head(book)] += 1


def lost_handle(book: Book) -> None:
    book.handles[int(book.slots[head(book)])] = 0


def slot_outside(book: Book) -> None:
    book.slots[head(book)] = 0xFFFFFFFF


def page_of_another(book: Book) -> None:
    book.pages[int(book.slots[head(book)]) >> 4] += 1_000


def page_without_orders(book: Book) -> None:
    page = int(book.slots[head(book)]) >> 4
    book.table["live"][np.flatnonzero(book.table["id"] == page)[0]] = 0


@pytest.mark.parametrize(
    ("damage", "fault"),
    [
        (many, VECTOR_OUTSIDE), (far, VECTOR_OUTSIDE), (same_price, LEVELS_UNSORTED), (swapped, LEVELS_UNSORTED),
        (no_level, LEVEL_MISPLACED), (other_px, LEVEL_MISPLACED), (other_side, LEVEL_MISPLACED), (other_instrument, LEVEL_MISPLACED),
        (dead_order, ORDER_STRAY), (order_elsewhere, ORDER_STRAY), (order_of_other_side, ORDER_STRAY), (order_of_other_level, ORDER_STRAY),
        (ring_of_orders, LINKS_BROKEN), (no_end, LINKS_BROKEN), (to_the_dead, LINKS_BROKEN), (back_link, LINKS_BROKEN),
        (tail_elsewhere, LINKS_BROKEN), (an_order_more, LINKS_BROKEN), (level_sum, SUM_WRONG), (order_qty, SUM_WRONG),
        (lost_handle, ORDER_UNFINDABLE), (slot_outside, ORDER_UNFINDABLE), (page_of_another, ORDER_UNFINDABLE),
        (page_without_orders, ORDER_UNFINDABLE),
    ],
    ids=lambda value: value.__name__ if callable(value) else FAULTS[value].replace(" ", "_"),
)  # fmt: skip
def test_each_fault_is_found_in_the_instrument_that_has_it(damage: Callable[[Book], None], fault: int) -> None:
    book = make_whole()
    damage(book)
    assert check_instrument(book, DAMAGED) == fault, FAULTS[check_instrument(book, DAMAGED)]
    assert check_book(book)[0] == fault
    # A page may be shared with another instrument; nothing else is.
    if fault != ORDER_UNFINDABLE:
        assert check_book(book) == (fault, DAMAGED)
        assert [check_instrument(book, other) for other in range(INSTRUMENTS) if other != DAMAGED] == [WHOLE] * 3


@pytest.mark.parametrize("word", [LEVELS_LIVE, ORDERS_LIVE, PAGES_LIVE])
@pytest.mark.parametrize("change", [-1, 1])
def test_what_is_counted_must_be_there(word: int, change: int) -> None:
    book = make_whole()
    book.counts[word] += change
    assert check_book(book) == (TOTAL_WRONG, -1)


def test_a_crossed_book_is_whole() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=2)
    add_order(book, 1, 1, BUY, 100, 5)
    add_order(book, 3, 1, SELL, 99, 5)
    assert check_instrument(book, 1) == WHOLE


@pytest.mark.parametrize("most", [1, 7, 1_000])
def test_an_instrument_is_cleared_piece_by_piece_and_no_other_is_touched(most: int) -> None:
    book = make_whole()
    others = [levels_of(book, other) for other in range(INSTRUMENTS) if other != DAMAGED]
    live = int((book.orders["instrument"][book.orders["qty"] > 0] == DAMAGED).sum())
    calls = []
    while not calls or calls[-1] == most:
        version = version_of(book, DAMAGED)
        calls.append(clear_instrument(book, DAMAGED, most))
        assert version_of(book, DAMAGED) == version + 2
        check_invariants(book)
    assert sum(calls) == live
    assert best_level(book, DAMAGED, BUY) == best_level(book, DAMAGED, SELL) == -1
    assert [levels_of(book, other) for other in range(INSTRUMENTS) if other != DAMAGED] == others
    assert clear_instrument(book, DAMAGED, most) == 0


def test_clearing_begins_with_the_best_and_the_first() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=1)
    for ref, px in ((1, 100), (2, 101), (3, 101)):
        add_order(book, ref, 0, BUY, px, 5)
    assert clear_instrument(book, 0, 1) == 1
    assert find_order(book, 2) < 0
    assert (find_order(book, 1) > 0, find_order(book, 3) > 0) == (True, True)


@pytest.mark.parametrize("most", [1, 5, 10_000])
def test_a_whole_book_is_cleared_piece_by_piece_and_takes_a_day_again(most: int) -> None:
    book = make_whole()
    before = int(book.counts[ORDERS_LIVE])
    instrument = 0
    while instrument < INSTRUMENTS:
        live = int(book.counts[ORDERS_LIVE])
        instrument = clear_book(book, instrument, most)
        assert live - int(book.counts[ORDERS_LIVE]) <= most
        check_invariants(book)
    assert before > 0
    assert [int(book.counts[word]) for word in (ORDERS_LIVE, LEVELS_LIVE, PAGES_LIVE)] == [0, 0, 0]
    for ref in range(200):
        assert add_order(book, 7 * ref, ref % INSTRUMENTS, BUY, 10 + ref, 1) > 0
    assert add_order(book, 1, 0, BUY, 10, 1) == NO_ROOM
    check_invariants(book)


def levels_of(book: Book, instrument: int) -> list[tuple[int, int, int]]:
    found = []
    for side in (BUY, SELL):
        depth = 0
        while (level := worse_level(book, instrument, side, depth)) >= 0:
            record = book.levels[level]
            found.append((int(record["px"]), int(record["qty"]), int(record["orders"])))
            depth += 1
    return found


def version_of(book: Book, instrument: int) -> int:
    return int(book.marks[4 * instrument + VERSION_AT]) >> 32
