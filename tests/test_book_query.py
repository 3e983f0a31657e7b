"""The questions a strategy asks of a book: answers equal to a dict's, and never of two moments, however fast the feed writes."""

import errno
import mmap
import os
import random
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.book.book import book_bytes, make_book
from engine.book.hot import query
from engine.book.hot.book import (
    NOT_FOUND,
    TABLE_VERSION,
    Book,
    add_order,
    close_book,
    find_order,
    home_of,
    open_book,
    reduce_order,
    tell_flags,
    told_flags,
)
from engine.book.hot.query import (
    NOT_THERE,
    NOT_VALID,
    PROBES_MAX,
    QUEUE_STEPS_MAX,
    REFUSED_QTY,
    SWEEP_LEVELS_MAX,
    SWEEP_QTY_MAX,
    TOLD,
    TOO_LONG,
    TORN,
    best_of,
    copy_levels,
    queue_of,
    sweep_of,
    weighted_mid_of,
)
from engine.layout import BOOK_GAPPED, BOOK_STALE, BOOK_VALID, BUY, SELL
from tests.book_answers import Orders, best, levels, queue, sweep, weighted_mid_milli
from tests.book_writer import Cycle, churn, decoder_for, writing
from tests.itch_flow import frame

ANY = False
VALID_ONLY = True


def assert_answers(book: Book, instrument: int, orders: Orders, rng: random.Random) -> None:
    assert best_of(book, instrument, ANY)[2:] == best(orders)
    for side in (BUY, SELL):
        rows = np.full((5, 3), -1, np.int64)
        told, _, there = copy_levels(book, instrument, side, rows, 64, ANY)
        assert told == TOLD
        assert [tuple(row) for row in rows[:there].tolist()] == levels(orders, side)[:5]
        assert (rows[there:] == -1).all()
        qty = rng.choice([1, 50, 300, 5_000])
        assert sweep_of(book, instrument, side, qty, ANY)[2:] == sweep(orders, side, qty)
    bid_qty, ask_qty = best(orders)[1], best(orders)[4]
    mid = weighted_mid_of(book, instrument, ANY)
    assert (mid.told, mid.px_milli) == ((TOLD, weighted_mid_milli(orders)) if bid_qty and ask_qty else (NOT_THERE, 0))
    for ref in orders:
        assert queue_of(book, instrument, ref, ANY)[2:] == queue(orders, ref)


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_every_answer_is_what_a_dict_gives(seed: int) -> None:
    print(f"seed={seed}")
    rng = random.Random(seed)
    book = make_book(orders_max=100, levels_max=100, instruments_max=3, shared=seed == 2)
    models: list[Orders] = [{}, {}, {}]
    for number in range(500):
        instrument = rng.randrange(3)
        orders = models[instrument]
        if rng.random() < 0.55 and len(orders) < 30:
            side, ref = rng.choice([BUY, SELL]), number * rng.choice([1, 977])
            px = rng.randrange(1, 12) + (10 if side == SELL else 0)
            order = (side, px, rng.randrange(1, 90))
            if add_order(book, ref, instrument, *order) > 0:
                orders[ref] = order
        elif orders:
            ref = rng.choice(list(orders))
            side, px, qty = orders[ref]
            taken = rng.choice([qty, rng.randrange(1, qty + 1)])
            reduce_order(book, find_order(book, ref), taken)
            orders[ref] = (side, px, qty - taken)
            if qty == taken:
                del orders[ref]
                assert queue_of(book, instrument, ref, ANY).told == NOT_THERE
        if number % 10 == 0:
            assert_answers(book, instrument, orders, rng)
    assert queue_of(book, 0, next(iter(models[1])), ANY).told == NOT_THERE


def test_a_mid_is_weighted_towards_the_thinner_side_and_rounded_down() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=1)
    add_order(book, 1, 0, BUY, 100, 3)
    add_order(book, 2, 0, SELL, 103, 1)
    assert weighted_mid_of(book, 0, ANY).px_milli == 102_250
    reduce_order(book, find_order(book, 1), 1)
    assert weighted_mid_of(book, 0, ANY).px_milli == 102_000
    add_order(book, 3, 0, SELL, 103, 4)
    assert weighted_mid_of(book, 0, ANY).px_milli == 100_857


def test_a_mid_of_the_widest_market_of_the_largest_sizes_is_near_enough() -> None:
    book = make_book(orders_max=2_000, levels_max=8, instruments_max=2)
    largest = (1 << 32) - 1
    for ref in range(1_000):
        add_order(book, ref, 0, BUY, 1, largest)
    add_order(book, 5_000, 0, SELL, largest, largest)
    exact = 1_000 * Fraction(largest + largest * 1_000 * largest, 1_001 * largest)
    assert abs(weighted_mid_of(book, 0, ANY).px_milli - exact) < exact / 500_000
    add_order(book, 6_000, 1, BUY, -(1 << 49), 10)
    add_order(book, 6_001, 1, SELL, 1 << 49, 90)
    assert weighted_mid_of(book, 1, ANY).px_milli == 0


def test_what_cannot_be_answered_says_why() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=2)
    add_order(book, 1, 1, BUY, 100, 5)
    rows = np.zeros((2, 3), np.int64)
    for instrument in (-1, 2, 65_535, 1 << 40):
        assert best_of(book, instrument, ANY).told == NOT_THERE
        assert copy_levels(book, instrument, BUY, rows, 64, ANY)[0] == NOT_THERE
        assert weighted_mid_of(book, instrument, ANY).told == NOT_THERE
        assert sweep_of(book, instrument, BUY, 1, ANY).told == NOT_THERE
        assert queue_of(book, instrument, 1, ANY).told == NOT_THERE
    for ref in (0, 2, 1 << 40, -1):
        assert queue_of(book, 1, ref, ANY).told == NOT_THERE
    # Page 0 is closed here: its number is 0, as that of no page, and handle 0 is no order.
    lowest = make_book(orders_max=8, levels_max=8, instruments_max=2)
    add_order(lowest, 16, 1, BUY, 100, 5)
    assert queue_of(lowest, 1, 0, ANY).told == NOT_THERE
    for qty in (0, -1, SWEEP_QTY_MAX + 1):
        assert sweep_of(book, 1, SELL, qty, ANY).told == REFUSED_QTY
    assert sweep_of(book, 1, SELL, SWEEP_QTY_MAX, ANY)[2:] == (5, SWEEP_QTY_MAX - 5, 500, 100, 100, 1)
    assert sweep_of(book, 1, BUY, 1, ANY)[2:] == (0, 1, 0, 0, 0, 0)


def test_a_walk_has_an_end() -> None:
    book = make_book(orders_max=1 << 17, levels_max=1 << 13, instruments_max=2)
    for ref in range(QUEUE_STEPS_MAX + 2):
        add_order(book, ref, 0, BUY, 100, 1)
    assert queue_of(book, 0, QUEUE_STEPS_MAX, ANY)[5:7] == (QUEUE_STEPS_MAX, QUEUE_STEPS_MAX)
    assert queue_of(book, 0, QUEUE_STEPS_MAX + 1, ANY).told == TOO_LONG
    for number in range(SWEEP_LEVELS_MAX + 1):
        add_order(book, 1_000_000 + number, 1, SELL, 1 + number, 1)
    assert sweep_of(book, 1, BUY, SWEEP_LEVELS_MAX, ANY).levels == SWEEP_LEVELS_MAX
    assert sweep_of(book, 1, BUY, SWEEP_LEVELS_MAX + 1, ANY).told == TOO_LONG


def test_a_book_that_is_being_changed_is_not_read() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=2)
    for instrument in (0, 1):
        add_order(book, 10 + instrument, instrument, BUY, 100, 5)
        add_order(book, 20 + instrument, instrument, SELL, 101, 5)
    open_book(book, 1)
    rows = np.zeros((2, 3), np.int64)
    for answer in (
        best_of(book, 1, ANY),
        weighted_mid_of(book, 1, ANY),
        sweep_of(book, 1, BUY, 1, ANY),
        queue_of(book, 1, 11, ANY),
        queue_of(book, 1, 99, ANY),
    ):
        assert answer == (TORN, *[0] * (len(answer) - 1))
    assert copy_levels(book, 1, BUY, rows, 64, ANY)[0] == TORN
    assert best_of(book, 0, ANY).told == TOLD
    close_book(book, 1)
    assert (best_of(book, 1, ANY).told, best_of(book, 1, ANY).version) == (TOLD, 2)


def test_while_the_table_moves_nobody_says_that_an_order_is_not_there() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=2)
    add_order(book, 10, 1, BUY, 100, 5)
    for told in (NOT_THERE, TORN, NOT_THERE):
        assert [queue_of(book, 1, ref, ANY).told for ref in (10, 11, 99)] == [TOLD, told, told]
        book.counts[TABLE_VERSION] += 1


def test_a_book_that_may_not_be_acted_on_is_not_told_to_who_would() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=2)
    add_order(book, 10, 1, BUY, 100, 5)
    add_order(book, 20, 1, SELL, 101, 7)
    rows = np.zeros((2, 3), np.int64)

    def asked(valid_only: bool) -> list[int]:
        return [
            best_of(book, 1, valid_only).told,
            weighted_mid_of(book, 1, valid_only).told,
            sweep_of(book, 1, BUY, 1, valid_only).told,
            queue_of(book, 1, 10, valid_only).told,
            queue_of(book, 1, 11, valid_only).told,
            copy_levels(book, 1, BUY, rows, 2, valid_only)[0],
        ]

    there = [TOLD, TOLD, TOLD, TOLD, NOT_THERE, TOLD]
    for flags, expected in ((0, NOT_VALID), (BOOK_VALID, TOLD), (BOOK_GAPPED, NOT_VALID), (BOOK_VALID | BOOK_STALE, NOT_VALID)):
        before = best_of(book, 1, ANY).version
        tell_flags(book, 1, flags)
        assert asked(VALID_ONLY) == (there if expected == TOLD else [NOT_VALID] * 6)
        assert asked(ANY) == there
        assert best_of(book, 1, ANY).version == before + (2 if flags else 0)
        tell_flags(book, 1, flags)
        assert best_of(book, 1, ANY).version == before + (2 if flags else 0)
    tell_flags(book, 1, BOOK_VALID)
    assert best_of(book, 1, VALID_ONLY).told == TOLD
    add_order(book, 30, 1, BUY, 101, 5)
    assert best_of(book, 1, VALID_ONLY).told == weighted_mid_of(book, 1, VALID_ONLY).told == NOT_VALID
    assert best_of(book, 1, ANY).bid_px == 101


def test_a_version_survives_what_shares_its_word_and_wraps() -> None:
    """The size of the bids' memory lies in the same 8 bytes; flags lie in the asks'."""
    book = make_book(orders_max=100, levels_max=100, instruments_max=2)
    book.sides["mark"][2] = (1 << 32) - 4
    tell_flags(book, 1, 129)
    assert best_of(book, 1, ANY).version == (1 << 32) - 2
    for px in range(1, 80):
        open_book(book, 1)
        assert best_of(book, 1, ANY).told == TORN
        add_order(book, px, 1, BUY, px, 1)
        close_book(book, 1)
        assert best_of(book, 1, ANY).version == (2 * px - 2) % (1 << 32)
        assert best_of(book, 1, ANY).bid_px == px
    assert (told_flags(book, 0), told_flags(book, 1)) == (0, 129)


def test_a_book_that_crosses_this_moment_is_not_told_to_who_would_act_on_it() -> None:
    """The feed says VALID until it has seen to the quote."""
    for bid_px, told in ((99, TOLD), (100, NOT_VALID), (101, NOT_VALID)):
        book = make_book(orders_max=8, levels_max=8, instruments_max=2)
        add_order(book, 1, 1, BUY, 98, 5)
        add_order(book, 2, 1, SELL, 100, 5)
        add_order(book, 3, 1, SELL, 102, 5)
        tell_flags(book, 1, BOOK_VALID)
        add_order(book, 4, 1, BUY, bid_px, 5)
        assert best_of(book, 1, VALID_ONLY).told == weighted_mid_of(book, 1, VALID_ONLY).told == told
        assert sweep_of(book, 1, SELL, 1, VALID_ONLY).told == queue_of(book, 1, 1, VALID_ONLY).told == told
        assert copy_levels(book, 1, BUY, np.zeros((1, 3), np.int64), 1, VALID_ONLY)[0] == told
        assert best_of(book, 1, ANY).bid_px == bid_px


@pytest.mark.parametrize("side", [BUY, SELL])
def test_a_book_with_one_side_does_not_cross(side: int) -> None:
    """Its other side has no first entry to look at; what lies there is another's."""
    book = make_book(orders_max=8, levels_max=8, instruments_max=1)
    add_order(book, 1, 0, side, 100, 5)
    tell_flags(book, 0, BOOK_VALID)
    book.keys[1:] = 1 << 40
    book.keys[-1] = 1 << 40
    assert (best_of(book, 0, VALID_ONLY).told, weighted_mid_of(book, 0, VALID_ONLY).told) == (TOLD, NOT_THERE)
    assert queue_of(book, 0, 1, VALID_ONLY).told == TOLD


def test_a_search_has_an_end_in_a_table_that_is_full_of_others() -> None:
    """No such table comes about: at most half of it is in use."""
    book = make_book(orders_max=1024, levels_max=8, instruments_max=1)
    assert len(book.table) > PROBES_MAX
    # Of a page at home near the table's end, behind which a search goes on at its beginning.
    ref = next(16 * page for page in range(1, 10_000) if home_of(book.table, page) > len(book.table) - 10)
    assert add_order(book, ref, 0, BUY, 100, 1) > 0
    home = int(np.flatnonzero(book.table["id"])[0])
    row = book.table[home].copy()
    book.table["id"] = row["id"]
    for away, told in ((0, TOLD), (PROBES_MAX - 1, TOLD), (PROBES_MAX, TOO_LONG), (len(book.table) - 1, TOO_LONG)):
        book.table["page"] = 99
        book.table[(home + away) & (len(book.table) - 1)] = row
        assert queue_of(book, 0, ref, ANY).told == told


def test_a_record_that_another_instrument_is_just_taking_is_not_told_as_ours() -> None:
    """Moments within an add as another processor may see them: the ref leads to a record in which words of an order that we had still
    stand. It was behind another in its queue; or alone, at a level that we have put to another use."""
    for behind, px in ((True, 100), (False, 101), (False, 102)):
        book = make_book(orders_max=8, levels_max=8, instruments_max=3)
        assert add_order(book, 5, 1, BUY, 100, 7) > 0
        handle = add_order(book, 6, 1, BUY, 100 if behind else 101, 9)
        reduce_order(book, handle, 9)
        dead = book.orders[handle].copy()
        assert add_order(book, 7, 2, BUY, 100, 4) == handle
        assert add_order(book, 8, 1, BUY, px, 4) > 0
        assert queue_of(book, 1, 7, ANY).told == NOT_THERE
        taken = book.orders[handle].copy()
        for count in range(len(taken.dtype.names)):
            book.orders[handle] = dead
            for name in taken.dtype.names[:count]:
                book.orders[name][handle] = taken[name]
            assert queue_of(book, 1, 7, ANY).told == NOT_THERE, f"behind={behind} px={px} words={count}"


def test_no_index_that_is_read_leads_outside() -> None:
    """Whatever a torn read makes of links, levels, chunks and pages: an answer or none, and no fault."""
    for name, field, value in (
        ("orders", "prev", 9), ("orders", "level", 1 << 20), ("orders", "prev", (1 << 32) - 2), ("levels", "head", 9),
        ("sides", "start", (1 << 32) - 1), ("sides", "count", (1 << 32) - 1), ("table", "id", (1 << 32) - 1), ("table", "id", 9),
        ("handles", None, (1 << 32) - 1), ("handles", None, 9), ("slots", None, (1 << 32) - 1), ("pages", None, -1),
        ("ids", None, (1 << 32) - 1), ("ids", None, 8),
    ):  # fmt: skip
        book = make_book(orders_max=8, levels_max=8, instruments_max=2)
        for ref in (5, 6):
            assert add_order(book, ref, 1, BUY, 100, 3) > 0
        array = getattr(book, name)
        (array if field is None else array[field])[:] = value
        assert queue_of(book, 1, 6, ANY).told == NOT_THERE, f"{name} {field} {value}"
        assert best_of(book, 1, ANY).told == sweep_of(book, 1, SELL, 5, ANY).told == TOLD
        assert copy_levels(book, 1, BUY, np.zeros((4, 3), np.int64), 4, VALID_ONLY)[0] == NOT_VALID


# What another process is doing meanwhile


Answer = tuple[int, ...]


def ask_best(book: Book, rng: random.Random, refs: list[int]) -> tuple[Answer, Callable[[Orders], Answer]]:
    return best_of(book, 1, ANY), best


def ask_queue(book: Book, rng: random.Random, refs: list[int]) -> tuple[Answer, Callable[[Orders], Answer]]:
    ref = rng.choice(refs)
    return queue_of(book, 1, ref, ANY), lambda orders: queue(orders, ref)


def ask_sweep(book: Book, rng: random.Random, refs: list[int]) -> tuple[Answer, Callable[[Orders], Answer]]:
    side, qty = rng.choice([BUY, SELL]), rng.randrange(1, 2_000)
    return sweep_of(book, 1, side, qty, ANY), lambda orders: sweep(orders, side, qty)


def ask_weighted_mid(book: Book, rng: random.Random, refs: list[int]) -> tuple[Answer, Callable[[Orders], Answer]]:
    return weighted_mid_of(book, 1, ANY), lambda orders: (weighted_mid_milli(orders),)


def ask_levels(book: Book, rng: random.Random, refs: list[int]) -> tuple[Answer, Callable[[Orders], Answer]]:
    side, rows = rng.choice([BUY, SELL]), np.zeros((8, 3), np.int64)
    told, version, there = copy_levels(book, 1, side, rows, 64, ANY)
    return (told, version, *rows[:there].ravel().tolist()), lambda orders: tuple(sum(levels(orders, side)[:8], ()))


@pytest.mark.parametrize("ask", [ask_best, ask_queue, ask_sweep, ask_weighted_mid, ask_levels])
def test_no_answer_is_of_two_moments_while_another_process_writes(ask: Any) -> None:
    seed = 20
    cycle = Cycle(seed)
    rng = random.Random(seed)
    refs = sorted({ref for state in cycle.states for ref in state})
    decoder = decoder_for(orders_max=1_000, levels_max=1_000, instruments_max=4)
    book = decoder.book
    asked, told, torn = 0, 0, 0
    versions = set()
    # The book is then at version 2 x len(states), whose state is the last.
    with writing(decoder, cycle.raw):
        while told < 3_000 or len(versions) < 30:
            answer, expected = ask(book, rng, refs)
            asked += 1
            if asked % 64 == 0:
                # On one CPU the writer only writes while we do not ask.
                os.sched_yield()
            if answer[0] == TOLD:
                assert answer[2:] == expected(cycle.after(answer[1])), f"seed={seed} version={answer[1]}"
                told += 1
                versions.add(answer[1])
            else:
                assert answer[0] in (TORN, NOT_THERE)
                torn += answer[0] == TORN
    print(f"seed={seed} told={told} of versions={len(versions)}, torn={torn}")


def test_a_book_at_rest_is_told_the_same_whatever_becomes_of_others() -> None:
    """Two others hand each other chunks, levels, order records and page numbers, in the pages of the orders that rest and beside them.
    The table is small, so that its entries move."""
    rng = random.Random(7)
    decoder = decoder_for(orders_max=125, levels_max=200, instruments_max=4)
    book = decoder.book
    rest: Orders = {}
    for number in range(40):
        side = rng.choice([BUY, SELL])
        rest[16 * number + 3] = (side, rng.randrange(80, 90) + (20 if side == SELL else 0), rng.randrange(1, 90))
        assert add_order(book, 16 * number + 3, 1, *rest[16 * number + 3]) > 0
    theirs = churn(2, [16 * page + 5 for page in range(70)]) + churn(3, [16 * page + 9 for page in range(30, 110)])
    # Page numbers as small as the links of free pages are among them, and one page's order is asked for that is another's.
    absent = [16 * page + at for page in range(120) for at in (3, 5, 9) if 16 * page + at not in rest]
    rows = np.zeros((16, 3), np.int64)
    told = {TOLD: 0, NOT_THERE: 0, TORN: 0}
    with writing(decoder, np.frombuffer(frame(theirs * 10), np.uint8)):
        expected = {ref: queue(rest, ref) for ref in rest}
        costs = {qty: sweep(rest, BUY, qty) for qty in (1, 60, 400)}
        for number in range(20_000):
            ref = rng.choice(absent) if number % 2 else rng.choice(list(rest))
            answer = queue_of(book, 1, ref, ANY)
            told[answer.told] += 1
            if answer.told == TOLD:
                assert answer[2:] == expected[ref]
            else:
                assert ref not in rest or answer.told == TORN
            if number % 10 == 0:
                assert best_of(book, 1, ANY)[2:] == best(rest)
                assert copy_levels(book, 1, SELL, rows, 16, ANY)[2] == len(levels(rest, SELL))
                assert [tuple(row) for row in rows.tolist() if row[1]] == levels(rest, SELL)
                assert all(sweep_of(book, 1, BUY, qty, ANY)[2:] == cost for qty, cost in costs.items())
    print(told)
    assert told[TOLD] > 9_000
    assert told[NOT_THERE] > 1_000


def test_an_order_of_another_is_never_told_as_ours_though_its_record_was_ours() -> None:
    decoder = decoder_for(orders_max=8, levels_max=8, instruments_max=4)
    assert add_order(decoder.book, 1, 1, BUY, 100, 1) > 0
    raw = np.frombuffer(frame((churn(1, [5]) + churn(2, [6, 7]) * 2) * 100), np.uint8)
    with writing(decoder, raw):
        told = [queue_of(decoder.book, 1, 6, ANY).told for _ in range(30_000)]
    assert set(told) <= {NOT_THERE, TORN}


def test_the_memory_of_a_book_is_what_the_formula_says() -> None:
    for sizes in ((10, 10, 1), (1_000, 300, 50), (1 << 16, 5_000, 10_000)):
        capacities = dict(zip(("orders_max", "levels_max", "instruments_max"), sizes, strict=True))
        for shared in (False, True):
            book = make_book(**capacities, shared=shared)
            parts = [array for name, array in zip(book._fields, book, strict=True) if name != "marks"]
            assert sum(array.nbytes for array in parts) == book_bytes(**capacities)
        orders, most_levels, instruments = sizes
        fixed = 80 * most_levels + 416 * instruments
        assert 140 * orders + fixed <= book_bytes(**capacities) <= 172 * (orders + 1) + fixed + 1_000


def test_books_too_large_for_the_system_are_refused_in_a_sentence(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*args: object, **named: object) -> None:
        raise OSError(errno.ENOMEM, os.strerror(errno.ENOMEM))

    monkeypatch.setattr(mmap, "mmap", refuse)
    with pytest.raises(
        OSError, match=r"^books of bytes=\d+: the system gives no such memory \(Cannot .*\); lower orders_max and levels_max$"
    ):
        make_book(orders_max=1_000, levels_max=1_000, instruments_max=1, shared=True)


def test_a_shared_book_outgrows_dev_shm() -> None:
    """An anonymous mapping is no file of a mount, so no size of a mount limits it."""
    maps = Path("/proc/self/maps")
    before = maps.read_text().count("/dev/shm/")
    book = make_book(orders_max=100_000, levels_max=1_000, instruments_max=10, shared=True)
    assert maps.read_text().count("/dev/shm/") == before
    child = os.fork()
    if child == 0:
        os._exit(0 if add_order(book, 5, 3, BUY, 100, 7) > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert best_of(book, 3, ANY)[2:5] == (100, 7, 1)
    assert find_order(book, 6) == NOT_FOUND
    assert query.queue_of(book, 3, 5, ANY).qty == 7
