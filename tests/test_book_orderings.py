"""The orders that a book's versions need, read in what LLVM made of the kernels that keep them; and each check refuses a mutant."""

from collections.abc import Callable
from typing import Any

import pytest
from numba import config, njit

from engine.book.book import make_book
from engine.book.hot.book import TABLE_VERSION, Book, close_book, close_page, open_book, side_row
from engine.book.hot.query import CHANGING, level_behind, look, look_again, side_vector
from engine.layout import BUY, SELL
from shm.atomics import fence_release, load_acquire, store_relaxed, store_release
from tests.flow import Flow, Operation, flow_of

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: nothing is compiled")


@njit(_nrt=False)
def look_plainly(book, instrument):
    return book.marks[4 * instrument + 1]


@njit(_nrt=False)
def look_without_fence(book, instrument, word):
    return load_acquire(book.marks, 4 * instrument + 1) == word


@njit(_nrt=False)
def open_without_fence(book, instrument):
    store_relaxed(book.marks, 4 * instrument + 1, book.marks[4 * instrument + 1] + (1 << 32))


@njit(_nrt=False)
def open_plainly(book, instrument):
    book.marks[4 * instrument + 1] += 1 << 32
    fence_release()


@njit(_nrt=False)
def close_plainly(book, instrument):
    book.marks[4 * instrument + 1] += 1 << 32


@njit(_nrt=False)
def close_without_release(book, instrument):
    store_relaxed(book.marks, 4 * instrument + 1, book.marks[4 * instrument + 1] + (1 << 32))


@njit(_nrt=False)
def close_page_without_fence(table, pages, counts, at):
    store_relaxed(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)
    table[at].id = 0
    store_release(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)


@njit(_nrt=False)
def close_page_too_early(table, pages, counts, at):
    store_relaxed(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)
    fence_release()
    store_release(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)
    table[at].id = 0


def compiled(kernel: Any, *arguments: Any) -> Flow:
    kernel(*arguments)
    return flow_of(kernel, {"book": Book._fields})


def reading(first: Any, second: Any) -> Flow:
    """What best_of does of one side: the looks, and between them a walk from the side to its best level."""

    @njit(_nrt=False)
    def read(book, instrument):
        word = first(book, instrument)
        if word == CHANGING:
            return 0, 0, 0, False
        start, count = side_vector(book, instrument, BUY)
        px, qty, orders = level_behind(book, start, count, 0)
        return px, qty, orders, second(book, instrument, word)

    return compiled(read, make_book(orders_max=2, levels_max=2, instruments_max=2), 1)


def assert_read_between_looks(flow: Flow) -> None:
    looks = flow.having("load", "acquire", "marks")
    fences = flow.having("fence", "acquire")
    assert len(looks) == 2, "both looks are loads that the compiler must keep"
    reads = [operation for name in ("sides", "ids", "levels") for operation in flow.having("load", "plain", name)]
    assert {operation.array for operation in reads} == {"sides", "ids", "levels"}
    for operation in reads:
        assert not flow.reaches(None, operation, around=looks[:1]), "read before the first look"
        assert flow.always_between(operation, fences, looks[1]), "read, and no fence before the second look"
        assert not flow.reaches(looks[1], operation), "read after the second look"


def changing(opened: Any, closed: Any) -> Flow:
    @njit(_nrt=False)
    def change(book, instrument, value):
        opened(book, instrument)
        book.sides[side_row(instrument, SELL)].mark = value
        book.levels[instrument].px = value
        closed(book, instrument)

    return compiled(change, make_book(orders_max=2, levels_max=2, instruments_max=2), 1, 7)


def assert_changed_while_odd(flow: Flow) -> None:
    writes = [operation for name in ("sides", "levels") for operation in flow.having("store", "plain", name)]
    assert {operation.array for operation in writes} == {"sides", "levels"}
    assert_within(flow, flow.having("store", "monotonic", "marks"), writes, flow.having("store", "release", "marks"))


def closing(close: Any) -> Flow:
    @njit(_nrt=False)
    def change(book, at):
        close(book.table, book.pages, book.counts, at)

    return compiled(change, make_book(orders_max=2, levels_max=2, instruments_max=2), 1)


def assert_moved_while_odd(flow: Flow) -> None:
    at = 8 * TABLE_VERSION
    moves = flow.having("store", "plain", "table")
    assert moves
    odd, even = flow.having("store", "monotonic", "counts", at), flow.having("store", "release", "counts", at)
    assert_within(flow, odd, moves, even)


def assert_within(flow: Flow, odd: list[Operation], writes: list[Operation], even: list[Operation]) -> None:
    fences = flow.having("fence", "release")
    assert (len(odd), len(even)) == (1, 1), "the version is stored twice, the second time with release"
    assert fences and all(flow.always_between(odd[0], fences, write) for write in writes), "no fence behind the odd version"
    assert not any(flow.reaches(None, write, around=odd) for write in writes), "written before the version was odd"
    assert not any(flow.reaches(even[0], write) for write in writes), "written after the version was even again"


CHECKS: list[tuple[Callable[[Flow], None], Callable[..., Flow], tuple[Any, ...], list[tuple[Any, ...]]]] = [
    (assert_read_between_looks, reading, (look, look_again), [(look_plainly, look_again), (look, look_without_fence)]),
    (
        assert_changed_while_odd,
        changing,
        (open_book, close_book),
        [(open_without_fence, close_book), (open_plainly, close_book), (open_book, close_plainly), (open_book, close_without_release)],
    ),
    (assert_moved_while_odd, closing, (close_page,), [(close_page_without_fence,), (close_page_too_early,)]),
]


@pytest.mark.parametrize(("check", "made", "good", "mutants"), CHECKS)
def test_versions_enclose_what_they_stand_for(
    check: Callable[[Flow], None], made: Callable[..., Flow], good: tuple[Any, ...], mutants: list[tuple[Any, ...]]
) -> None:
    check(made(*good))
    for mutant in mutants:
        with pytest.raises(AssertionError):
            check(made(*mutant))
