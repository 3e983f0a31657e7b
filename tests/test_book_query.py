"""The questions a strategy asks of a book: answers equal to a dict's, and never of two moments, however fast the feed writes."""

import errno
import mmap
import os
import random
import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.book.book import book_bytes, make_book
from engine.book.hot import query
from engine.book.hot.book import NOT_FOUND, Book, add_order, close_book, find_order, open_book, reduce_order, tell_flags, told_flags
from engine.book.hot.query import (
    NOT_THERE,
    NOT_VALID,
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
from engine.feed import itch
from engine.feed.hot.replay import replay
from engine.feed.records import records
from engine.feed.stage import make_decoder
from engine.layout import BOOK_GAPPED, BOOK_STALE, BOOK_VALID, BUY, FEED_STATS, SELL
from tests.itch_flow import Flow, frame

ANY = False
VALID_ONLY = True

# ref -> (side, px, qty) of one instrument, in the order of arrival.
Orders = dict[int, tuple[int, int, int]]


def levels(orders: Orders, side: int) -> list[tuple[int, int, int]]:
    """(px, qty, orders), best first."""
    found: dict[int, list[int]] = {}
    for which, px, qty in orders.values():
        if which == side:
            found.setdefault(px, []).append(qty)
    return [(px, sum(found[px]), len(found[px])) for px in sorted(found, reverse=side == BUY)]


def best(orders: Orders) -> tuple[int, ...]:
    return (*(levels(orders, BUY) or [(0, 0, 0)])[0], *(levels(orders, SELL) or [(0, 0, 0)])[0])


def queue(orders: Orders, ref: int) -> tuple[int, ...]:
    side, px, qty = orders[ref]
    there = [(other, size) for other, (which, at, size) in orders.items() if (which, at) == (side, px)]
    ahead = [size for _, size in there[: [other for other, _ in there].index(ref)]]
    return side, px, qty, sum(ahead), len(ahead), sum(size for _, size in there), len(there)


def weighted_mid_milli(orders: Orders) -> int:
    bid_px, bid_qty, _, ask_px, ask_qty, _ = best(orders)
    return int(1000 * Fraction(bid_px * ask_qty + ask_px * bid_qty, bid_qty + ask_qty) // 1)


def sweep(orders: Orders, side: int, qty: int) -> tuple[int, ...]:
    """Share by share, as the definition has it."""
    shares = [(px, at) for at, (px, there, _) in enumerate(levels(orders, BUY + SELL - side)) for _ in range(there)][:qty]
    cost = sum(px for px, _ in shares)
    if not shares:
        return 0, qty, 0, 0, 0, 0
    exact = Fraction(cost, len(shares))
    average = -(-exact.numerator // exact.denominator) if side == BUY else exact.numerator // exact.denominator
    return len(shares), qty - len(shares), cost, average, shares[-1][0], shares[-1][1] + 1


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
    for px in range(1, 80):
        open_book(book, 1)
        assert best_of(book, 1, ANY).told == TORN
        add_order(book, px, 1, BUY, px, 1)
        close_book(book, 1)
        assert best_of(book, 1, ANY).version == (2 * px - 2) % (1 << 32)
        assert best_of(book, 1, ANY).bid_px == px
    assert (told_flags(book, 0), told_flags(book, 1)) == (0, 129)


# What another process is doing meanwhile


class Cycle:
    """One instrument's messages over and over: after each, what rests is known, and the version says after which one it is."""

    instrument = 1

    def __init__(self, seed: int, count: int = 400) -> None:
        flow = Flow(seed, symbols=1)
        self.states: list[Orders] = []
        messages = []
        while len(messages) < count:
            raw = flow.next()
            if itch.ABOUT_ORDER[raw[0]]:
                messages.append(raw)
                self.states.append({ref: (side, px, shares) for ref, (_, side, px, shares) in flow.resting.items()})
        for ref in list(flow.resting):
            messages.append(itch.ORDER_DELETE.encode(locate=self.instrument, tracking=0, timestamp=0, ref=ref))
            del flow.resting[ref]
            self.states.append({other: (side, px, shares) for other, (_, side, px, shares) in flow.resting.items()})
        self.raw = np.frombuffer(frame(messages), np.uint8)

    def after(self, version: int) -> Orders:
        return self.states[(version // 2 - 1) % len(self.states)]


@contextmanager
def writing(cycle: Cycle) -> Iterator[Book]:
    """A book that a child process changes as fast as it can."""
    decoder = make_decoder(orders_max=1_000, levels_max=1_000, instruments_max=2, stats=records(1, FEED_STATS), shared=True)
    # Compiled before the fork; and the book is at version 2 x len(states), whose state is the last.
    replay(decoder, cycle.raw, 0, len(cycle.raw))
    stop = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if child == 0:
        while not stop[0]:
            replay(decoder, cycle.raw, 0, len(cycle.raw))
        os._exit(int(decoder.stats[0]["unknown_orders"] != 0))
    try:
        yield decoder.book
        stop[0] = 1
        assert os.waitpid(child, 0)[1] == 0
    except BaseException:
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        raise


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
    asked, told, torn = 0, 0, 0
    versions = set()
    with writing(cycle) as book:
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


def test_an_order_that_rests_is_found_while_the_table_moves_around_it() -> None:
    """Another instrument's pages come and go in the same part of the table: NOT_THERE would be a lie."""
    decoder = make_decoder(orders_max=64, levels_max=64, instruments_max=3, stats=records(1, FEED_STATS), shared=True)
    book = decoder.book
    resting = [16 * page for page in range(0, 40, 2)]
    head = {"locate": 2, "tracking": 0, "timestamp": 0}
    add = [itch.ADD_ORDER.encode(**head, ref=ref, side="B", shares=1, stock="A", px=1) for ref in range(16, 16 * 40, 32)]
    gone = [itch.ORDER_DELETE.encode(**head, ref=ref) for ref in range(16, 16 * 40, 32)]
    raw = np.frombuffer(frame(add + gone), np.uint8)
    for ref in resting:
        assert add_order(book, ref, 1, BUY, 100, 1) > 0
    replay(decoder, raw, 0, len(raw))
    stop = mmap.mmap(-1, mmap.PAGESIZE)
    child = os.fork()
    if child == 0:
        while not stop[0]:
            replay(decoder, raw, 0, len(raw))
        os._exit(0)
    try:
        told = {TOLD: 0, TORN: 0}
        for number in range(20_000):
            told[queue_of(book, 1, resting[number % len(resting)], ANY).told] += 1
        assert told[TOLD] > 5_000
    finally:
        stop[0] = 1
        os.waitpid(child, 0)


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
    before = set(Path("/dev/shm").iterdir())
    book = make_book(orders_max=100_000, levels_max=1_000, instruments_max=10, shared=True)
    assert set(Path("/dev/shm").iterdir()) == before
    child = os.fork()
    if child == 0:
        os._exit(0 if add_order(book, 5, 3, BUY, 100, 7) > 0 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert best_of(book, 3, ANY)[2:5] == (100, 7, 1)
    assert find_order(book, 6) == NOT_FOUND
    assert query.queue_of(book, 3, 5, ANY).qty == 7
