"""The order book against a model that a reader believes at a glance, and at the edges of what it can hold."""

import ast
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import config, njit

from engine.book.book import check_by_python, check_invariants, make_book
from engine.book.hot.arena import ARENA_USED
from engine.book.hot.book import (
    CAPACITY_DROPS,
    DUPLICATE,
    NO_ROOM,
    NONE,
    NOT_FOUND,
    ORDERS_LIVE,
    PAGE_REFS,
    PAGES_LIVE,
    PAGES_USED,
    REFUSED,
    Book,
    add_order,
    best_level,
    find_order,
    home_of,
    level_at,
    order_ref,
    reduce_order,
    remove_order,
    worse_level,
)
from engine.layout import BUY, SELL

ROOT = Path(__file__).resolve().parent.parent


class Model:
    """Orders in dicts: ref -> (instrument, side, px, qty), in the order of their arrival."""

    def __init__(self) -> None:
        self.orders: dict[int, tuple[int, int, int, int]] = {}

    def add(self, ref: int, instrument: int, side: int, px: int, qty: int) -> None:
        self.orders[ref] = (instrument, side, px, qty)

    def reduce(self, ref: int, qty: int) -> int:
        instrument, side, px, have = self.orders[ref]
        left = have - min(qty, have)
        if left:
            self.orders[ref] = (instrument, side, px, left)
        else:
            del self.orders[ref]
        return left

    def levels(self, instrument: int, side: int) -> list[tuple[int, list[tuple[int, int]]]]:
        """(px, [(ref, qty) first in first out]), best first."""
        by_px: dict[int, list[tuple[int, int]]] = {}
        for ref, (where, which, px, qty) in self.orders.items():
            if (where, which) == (instrument, side):
                by_px.setdefault(px, []).append((ref, qty))
        return sorted(by_px.items(), reverse=side == BUY)


def levels_of(book: Book, instrument: int, side: int) -> list[tuple[int, list[tuple[int, int]]]]:
    """A book's side as Model.levels gives it, through the queries that kernels use."""
    found = []
    depth = 0
    while (level := worse_level(book, instrument, side, depth)) >= 0:
        record = book.levels[level]
        assert level_at(book, instrument, side, int(record["px"])) == level
        orders = []
        handle = int(record["head"])
        while handle != NONE:
            orders.append((order_ref(book, handle), int(book.orders[handle]["qty"])))
            handle = int(book.orders[handle]["next"])
        found.append((int(record["px"]), orders))
        depth += 1
    assert best_level(book, instrument, side) == worse_level(book, instrument, side, 0)
    return found


def assert_equal(book: Book, model: Model, instruments: int) -> None:
    check_invariants(book)
    for instrument in range(instruments):
        for side in (BUY, SELL):
            assert levels_of(book, instrument, side) == model.levels(instrument, side)


REFS: dict[str, Callable[[random.Random, int], int]] = {
    "dense": lambda rng, number: number,
    "gaps": lambda rng, number: number * 37,
    "page_multiples": lambda rng, number: number * PAGE_REFS,
    "any_64_bits": lambda rng, number: rng.getrandbits(64) - (1 << 63),
    "few": lambda rng, number: rng.randrange(40),
}


@pytest.mark.parametrize("refs", REFS)
@pytest.mark.parametrize("seed", [1, 2])
def test_random_operations_give_what_a_dict_gives(refs: str, seed: int) -> None:
    print(f"seed={seed} refs={refs}")
    rng = random.Random(f"{seed} {refs}")
    instruments, orders_max = 3, 150
    book, model = make_book(orders_max=orders_max, levels_max=400, instruments_max=instruments), Model()
    for number in range(3_000):
        draw = rng.random()
        if draw < 0.55:
            ref = REFS[refs](rng, number)
            order = (rng.randrange(instruments), rng.choice([BUY, SELL]), rng.randrange(1, 60), rng.randrange(1, 500))
            handle = add_order(book, ref, *order)
            if ref in model.orders:
                assert handle == DUPLICATE
            elif len(model.orders) == orders_max:
                assert handle == NO_ROOM
            else:
                assert handle > 0
                assert order_ref(book, handle) == ref
                model.add(ref, *order)
        elif model.orders:
            ref = rng.choice(list(model.orders))
            handle = find_order(book, ref)
            assert order_ref(book, handle) == ref
            if draw < 0.8:
                qty = rng.randrange(0, 600)
                assert reduce_order(book, handle, qty) == model.reduce(ref, qty)
            else:
                remove_order(book, handle)
                del model.orders[ref]
            if ref not in model.orders:
                assert find_order(book, ref) == NOT_FOUND
        if number % 150 == 0:
            assert_equal(book, model, instruments)
    assert_equal(book, model, instruments)


def test_price_then_time_is_the_order_of_orders() -> None:
    book = make_book(orders_max=10, levels_max=10, instruments_max=2)
    for ref, px in ((1, 100), (2, 101), (3, 100), (4, 99), (5, 100)):
        add_order(book, ref, 1, BUY, px, 10 * ref)
        add_order(book, -ref, 1, SELL, px + 100, 10 * ref)
    assert levels_of(book, 1, BUY) == [(101, [(2, 20)]), (100, [(1, 10), (3, 30), (5, 50)]), (99, [(4, 40)])]
    assert levels_of(book, 1, SELL) == [(199, [(-4, 40)]), (200, [(-1, 10), (-3, 30), (-5, 50)]), (201, [(-2, 20)])]
    assert reduce_order(book, find_order(book, 3), 29) == 1
    assert levels_of(book, 1, BUY)[1] == (100, [(1, 10), (3, 1), (5, 50)])
    remove_order(book, find_order(book, 3))
    assert levels_of(book, 1, BUY)[1] == (100, [(1, 10), (5, 50)])
    assert levels_of(book, 0, BUY) == levels_of(book, 0, SELL) == []
    assert worse_level(book, 1, BUY, 3) == level_at(book, 1, BUY, 98) == level_at(book, 0, BUY, 100) == -1


def test_prices_are_64_bits_wide() -> None:
    book = make_book(orders_max=8, levels_max=8, instruments_max=1)
    far = 1 << 62
    for ref, px in enumerate((far, -far, 0, far - 1)):
        add_order(book, ref, 0, BUY, px, 1)
        add_order(book, 100 + ref, 0, SELL, px, 1)
    assert [px for px, _ in levels_of(book, 0, BUY)] == [far, far - 1, 0, -far]
    assert [px for px, _ in levels_of(book, 0, SELL)] == [-far, 0, far - 1, far]
    check_invariants(book)


@pytest.mark.parametrize("qty", [0, -1, 1 << 32, 1 << 40])
def test_a_quantity_that_does_not_fit_is_refused(qty: int) -> None:
    book = make_book(orders_max=4, levels_max=4, instruments_max=1)
    assert add_order(book, 1, 0, BUY, 100, qty) == REFUSED
    assert find_order(book, 1) == NOT_FOUND
    check_invariants(book)


def test_the_largest_quantities_add_up() -> None:
    book = make_book(orders_max=4, levels_max=4, instruments_max=1)
    for ref in range(4):
        add_order(book, ref, 0, SELL, 100, (1 << 32) - 1)
    assert int(book.levels[best_level(book, 0, SELL)]["qty"]) == 4 * ((1 << 32) - 1)
    check_invariants(book)


@pytest.mark.parametrize("negative", [0, -5])
def test_reducing_by_nothing_changes_nothing(negative: int) -> None:
    book = make_book(orders_max=4, levels_max=4, instruments_max=1)
    handle = add_order(book, 1, 0, BUY, 100, 10)
    assert reduce_order(book, handle, negative) == 10
    check_invariants(book)


@pytest.mark.parametrize("step", [1, PAGE_REFS, 12_345_678_901])
def test_pages_are_recycled_however_far_refs_run(step: int) -> None:
    """A window of live orders that moves through the refs of a long day needs no more pages than the window."""
    live = 50
    book = make_book(orders_max=live, levels_max=live, instruments_max=1)
    for number in range(5_000):
        assert add_order(book, number * step, 0, BUY, number % 7, 1) > 0
        if number >= live - 1:
            remove_order(book, find_order(book, (number - live + 1) * step))
    check_invariants(book)
    assert book.counts[PAGES_USED] <= live + 1
    assert book.counts[PAGES_LIVE] <= live
    assert book.counts[CAPACITY_DROPS] == 0


def colliding_refs(book: Book, count: int) -> list[int]:
    """Refs of pages that all belong into one entry of the table."""
    found: list[int] = []
    page = 0
    while len(found) < count:
        if home_of(book.table, page) == 4:
            found.append(page * PAGE_REFS)
        page += 1
    return found


def test_pages_that_want_the_same_entry_are_all_found_and_forgotten() -> None:
    rng = random.Random(7)
    book = make_book(orders_max=60, levels_max=60, instruments_max=1)
    refs = colliding_refs(book, 40)
    assert len({home_of(book.table, ref // PAGE_REFS) for ref in refs}) == 1
    live: list[int] = []
    for _ in range(600):
        if len(live) < 40 and (not live or rng.random() < 0.55):
            ref = rng.choice([ref for ref in refs if ref not in live])
            assert add_order(book, ref, 0, BUY, 100 + len(live), 1) > 0
            live.append(ref)
        else:
            ref = live.pop(rng.randrange(len(live)))
            remove_order(book, find_order(book, ref))
        check_invariants(book)
        assert {ref for ref in refs if find_order(book, ref) != NOT_FOUND} == set(live)


def test_a_book_full_of_orders_refuses_the_next_and_takes_it_later() -> None:
    book = make_book(orders_max=20, levels_max=100, instruments_max=1)
    for ref in range(20):
        assert add_order(book, ref * 1_000, 0, BUY, ref, 5) > 0
    before = [array.copy() for array in book[:-1]]
    assert add_order(book, 77, 0, BUY, 50, 5) == NO_ROOM
    assert all((now == then).all() for now, then in zip(book[:-1], before, strict=True)), "NO_ROOM changed something"
    assert book.counts[CAPACITY_DROPS] == 1
    check_invariants(book)
    remove_order(book, find_order(book, 3_000))
    assert add_order(book, 77, 0, BUY, 50, 5) > 0
    check_invariants(book)


def test_a_book_full_of_levels_refuses_a_new_price_and_takes_known_ones() -> None:
    book = make_book(orders_max=100, levels_max=10, instruments_max=2)
    for px in range(10):
        assert add_order(book, px, px % 2, SELL, 100 + px, 5) > 0
    assert add_order(book, 50, 0, SELL, 500, 5) == NO_ROOM
    assert add_order(book, 50, 0, BUY, 100, 5) == NO_ROOM
    assert find_order(book, 50) == NOT_FOUND
    assert book.counts[CAPACITY_DROPS] == 2
    assert add_order(book, 50, 0, SELL, 100, 5) > 0
    remove_order(book, find_order(book, 1))
    assert add_order(book, 51, 0, BUY, 1, 5) > 0
    check_invariants(book)


@pytest.mark.parametrize("instrument", [2, 3, 65_535, -1])
def test_an_instrument_that_there_is_no_room_for(instrument: int) -> None:
    book = make_book(orders_max=4, levels_max=4, instruments_max=2)
    assert add_order(book, 1, instrument, BUY, 100, 5) == NO_ROOM
    assert book.counts[CAPACITY_DROPS] == 1
    check_invariants(book)


def test_a_side_grows_through_every_size_and_gives_its_memory_back() -> None:
    """One side after another takes all levels there are: what an emptied side grew out of serves the next."""
    levels = 300
    book = make_book(orders_max=levels, levels_max=levels, instruments_max=8)
    used = []
    for instrument in range(8):
        rng = random.Random(instrument)
        prices = rng.sample(range(10_000), levels)
        for ref, px in enumerate(prices):
            assert add_order(book, ref, instrument, BUY, px, 1) > 0
        assert [px for px, _ in levels_of(book, instrument, BUY)] == sorted(prices, reverse=True)
        check_invariants(book)
        for ref in rng.sample(range(levels), levels):
            remove_order(book, find_order(book, ref))
        check_invariants(book)
        used.append(int(book.counts[ARENA_USED]))
    assert len(set(used)) == 1, f"arena entries in use after each side={used}"
    assert book.counts[ORDERS_LIVE] == 0


def test_an_arena_that_is_used_up_refuses_and_stays_whole() -> None:
    whole = make_book(orders_max=200, levels_max=200, instruments_max=4)
    book = whole._replace(keys=whole.keys[:64], ids=whole.ids[:64])
    taken = [add_order(book, ref, ref % 4, BUY, ref, 1) for ref in range(150)]
    assert NO_ROOM in taken
    assert book.counts[CAPACITY_DROPS] == taken.count(NO_ROOM)
    check_invariants(book)


@pytest.mark.parametrize(("name", "most"), [("orders_max", 1 << 28), ("levels_max", 1 << 29), ("instruments_max", 65_537)])
@pytest.mark.parametrize("value", [0, -1, None])
def test_unusable_capacities_are_named(name: str, most: int, value: int | None) -> None:
    capacities = {"orders_max": 10, "levels_max": 10, "instruments_max": 10} | {name: most if value is None else value}
    with pytest.raises(ValueError, match=f"{name}={capacities[name]}: expected 1 to"):
        make_book(**capacities)


def damage_level_sum(book: Book) -> None:
    book.levels["qty"][best_level(book, 0, BUY)] += 1


def damage_link(book: Book) -> None:
    book.orders["prev"][find_order(book, 3)] = find_order(book, 3)


def damage_order_of_levels(book: Book) -> None:
    start = int(book.sides[0]["start"])
    book.keys[[start, start + 1]] = book.keys[[start + 1, start]]


def damage_count(book: Book) -> None:
    book.counts[ORDERS_LIVE] += 1


def damage_page(book: Book) -> None:
    book.table["live"][np.flatnonzero(book.table["id"])[0]] += 1


def damage_entry(book: Book) -> None:
    book.table["page"][np.flatnonzero(book.table["id"])[0]] += 1


def damage_handle(book: Book) -> None:
    book.handles[np.flatnonzero(book.handles)[0]] = 0


@pytest.mark.parametrize(
    "damage", [damage_level_sum, damage_link, damage_order_of_levels, damage_count, damage_page, damage_entry, damage_handle]
)
def test_check_invariants_sees(damage: Callable[[Book], Any]) -> None:
    book = make_book(orders_max=10, levels_max=10, instruments_max=1)
    for ref in range(6):
        add_order(book, ref, 0, BUY, 100 + ref // 2, 5)
    check_invariants(book)
    damage(book)
    with pytest.raises(AssertionError):
        check_by_python(book)


def kernels_of(path: Path) -> list[ast.FunctionDef]:
    return [node for node in ast.walk(ast.parse(path.read_text())) if isinstance(node, ast.FunctionDef)]


HOT_FILES = sorted(path.relative_to(ROOT) for room in ("book", "feed") for path in (ROOT / "engine" / room / "hot").glob("*.py"))


@pytest.mark.parametrize("path", HOT_FILES, ids=str)
def test_no_kernel_may_allocate(path: Path) -> None:
    """_nrt=False: a kernel that needs memory does not compile, and none of them counts references."""
    for kernel in kernels_of(ROOT / path):
        options = {keyword.arg: ast.literal_eval(keyword.value) for keyword in kernel.decorator_list[0].keywords}  # type: ignore[attr-defined]
        assert options.get("_nrt") is False, f"{path}: {kernel.name} is compiled with {options}"
        assert options.get("cache") is True, f"{path}: {kernel.name} is compiled with {options}"


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_what_is_compiled_calls_no_allocator() -> None:
    @njit(_nrt=False)
    def everything(book: Book, ref: int) -> int:
        handle = add_order(book, ref, 0, BUY, 100, 5)
        reduce_order(book, find_order(book, ref), 2)
        remove_order(book, handle)
        return worse_level(book, 0, BUY, 0)

    book = make_book(orders_max=4, levels_max=4, instruments_max=1)
    assert everything(book, 1) == -1
    (text,) = everything.inspect_llvm().values()
    assert "NRT_Allocate" not in text
    assert "NRT_incref" not in text
