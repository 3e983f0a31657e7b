"""Making a book's arrays, and walking all of them to see that they are whole. The kernels are in engine/book/hot/."""

import contextlib
import mmap
from collections.abc import Iterable

import numpy as np

from engine.book.hot.arena import ARENA_USED, CHUNK_SHIFT_MIN
from engine.book.hot.book import (
    COUNT_WORDS,
    LEVELS_LIVE,
    LEVELS_USED,
    NONE,
    ORDERS_LIVE,
    ORDERS_USED,
    PAGE_REFS,
    PAGE_SHIFT,
    PAGES_LIVE,
    PAGES_USED,
    Book,
    find_entry,
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
)
from engine.layout import BUY, INSTRUMENTS_MAX, SELL

# What the kernels of engine/book/hot/check.py find.
FAULTS = {
    VECTOR_OUTSIDE: "a side has more levels than its memory holds",
    LEVELS_UNSORTED: "the prices of a side are not in order",
    LEVEL_MISPLACED: "a level is listed under another price, side or instrument than its own",
    ORDER_STRAY: "an order without a quantity, or of another level, is linked into a level",
    LINKS_BROKEN: "the orders of a level are not linked from its first to its last",
    SUM_WRONG: "the quantity of a level is not the sum of its orders",
    ORDER_UNFINDABLE: "an order is not found by its ref",
    TOTAL_WRONG: "levels, orders or pages are not as many as are counted",
}

#   0       4       8       12      16           18     19      20      24         28         32
#   +-------+-------+-------+-------+------------+------+-------+-------+----------+----------+
#   | qty   | level | prev  | next  | instrument | side | flags | owner | user_ref | executed |
#   +-------+-------+-------+-------+------------+------+-------+-------+----------+----------+
# qty 0: no order is here. The last three, and flags, are the exchange's to use: 0 after add_order.
ORDER_RECORD = np.dtype(
    [
        ("qty", "u4"), ("level", "u4"), ("prev", "u4"), ("next", "u4"), ("instrument", "u2"), ("side", "u1"), ("flags", "u1"),
        ("owner", "u4"), ("user_ref", "u4"), ("executed", "u4"),
    ]
)  # fmt: skip
#   0      8       16       20      24      28           30     31    32
#   +------+-------+--------+-------+-------+------------+------+-----+
#   | px   | qty   | orders | head  | tail  | instrument | side | pad |
#   +------+-------+--------+-------+-------+------------+------+-----+
LEVEL_RECORD = np.dtype(
    [
        ("px", "i8"), ("qty", "i8"), ("orders", "u4"), ("head", "u4"), ("tail", "u4"), ("instrument", "u2"), ("side", "u1"), ("pad", "u1"),
    ]
)  # fmt: skip
#   0      8    12     16     an entry of the page table: its page number, the page's id (0: none), live orders in it
TABLE_RECORD = np.dtype([("page", "i8"), ("id", "u4"), ("live", "u4")])
#   0       4       8       12     16   one side of an instrument: its chunk of the arena has 2^shift entries (shift 0: none yet)
#   +-------+-------+-------+------+    mark: of the bids the version of the instrument's book, odd while it changes; of the asks the
#   | start | count | shift | mark |    TP_BOOK_* flags that were last told of it
#   +-------+-------+-------+------+
SIDE_RECORD = np.dtype([("start", "u4"), ("count", "u4"), ("shift", "u4"), ("mark", "u4")])

# The page table has at least this many entries for each order there can be, so that a search ends soon.
TABLE_ENTRIES_PER_ORDER = 2
# A side's vector may be half empty, and chunks that it grew out of wait for others to need them.
ARENA_ENTRIES_PER_LEVEL = 4

PAGE_BYTES = 4096
PREFAULT_BYTES = 32 << 20


def make_book(*, orders_max: int, levels_max: int, instruments_max: int = INSTRUMENTS_MAX, shared: bool = False) -> Book:
    """An empty book for instruments 0 to `instruments_max` - 1, with room for `orders_max` live orders on `levels_max` prices.

    The system backs its memory as it is touched; book_bytes says how much there is. `shared`: processes forked from here later see
    it too, in anonymous memory that no size of /dev/shm limits. ValueError for a capacity below 1 or above what 32-bit handles can
    name; OSError where the system does not give so much.
    """
    for name, value, most in (
        ("orders_max", orders_max, (1 << 32 - PAGE_SHIFT) - 2),
        ("levels_max", levels_max, 1 << 28),
        ("instruments_max", instruments_max, INSTRUMENTS_MAX),
    ):
        if not 0 < value <= most:
            raise ValueError(f"{name}={value}: expected 1 to {most}")
    arrays = (_map_shared if shared else _make_private)(_parts(orders_max, levels_max, instruments_max))
    book = Book(
        **{name: array if array.dtype.names is None else array.view(np.recarray) for name, array in arrays.items()},
        marks=arrays["sides"].view(np.int64),
    )
    book.counts[PAGES_USED] = book.counts[ORDERS_USED] = 1
    return book


def book_bytes(*, orders_max: int, levels_max: int, instruments_max: int = INSTRUMENTS_MAX) -> int:
    """How many bytes the arrays of such a book have, all of them touched:

        orders_max x (32 + 64 + 4 + 8) + table + levels_max x (32 + 4 x 12) + instruments_max x (2 x 16 x 12 + 32)
        table = 16 x (the power of two from 2 x orders_max on), so 32 to 64 an order

    that is 140 to 172 bytes an order, 80 a level, 416 an instrument, and a few words. A day whose orders have neighbouring refs touches
    less: 64 of an order's bytes are its page, which up to 16 neighbours share.
    """
    return sum(dtype.itemsize * count for dtype, count in _parts(orders_max, levels_max, instruments_max).values())


def _parts(orders_max: int, levels_max: int, instruments_max: int) -> dict[str, tuple[np.dtype, int]]:
    """Every array of a book: its records and how many."""
    # Order 0 and page 0 are never used: 0 means "none".
    orders = pages = orders_max + 1
    arena = levels_max * ARENA_ENTRIES_PER_LEVEL + 2 * instruments_max * (1 << CHUNK_SHIFT_MIN)
    return {
        "orders": (ORDER_RECORD, orders),
        "levels": (LEVEL_RECORD, levels_max),
        "table": (TABLE_RECORD, 1 << (orders_max * TABLE_ENTRIES_PER_ORDER - 1).bit_length()),
        "handles": (np.dtype(np.uint32), pages * PAGE_REFS),
        "slots": (np.dtype(np.uint32), orders),
        "pages": (np.dtype(np.int64), pages),
        "sides": (SIDE_RECORD, 2 * instruments_max),
        "keys": (np.dtype(np.int64), arena),
        "ids": (np.dtype(np.uint32), arena),
        "counts": (np.dtype(np.int64), COUNT_WORDS),
    }


def _make_private(parts: dict[str, tuple[np.dtype, int]]) -> dict[str, np.ndarray]:
    return {name: np.zeros(count, dtype) for name, (dtype, count) in parts.items()}


def _map_shared(parts: dict[str, tuple[np.dtype, int]]) -> dict[str, np.ndarray]:
    """All arrays in one mapping, each from a page of its own on; it lives as long as one of them."""
    sizes = {name: -(-dtype.itemsize * count // PAGE_BYTES) * PAGE_BYTES for name, (dtype, count) in parts.items()}
    total = sum(sizes.values())
    try:
        mapping = mmap.mmap(-1, total, flags=mmap.MAP_SHARED | mmap.MAP_ANONYMOUS)
    except OSError as error:
        raise OSError(
            f"books of bytes={total}: the system gives no such memory ({error.strerror}); lower orders_max and levels_max"
        ) from None
    # A wish: where the kernel's shmem_enabled is "advise", pages of 2 MiB spare most of the TLB misses.
    with contextlib.suppress(OSError):
        mapping.madvise(mmap.MADV_HUGEPAGE)
    whole = np.frombuffer(mapping, np.uint8)
    arrays = {}
    at = 0
    for name, (dtype, count) in parts.items():
        arrays[name] = whole[at : at + dtype.itemsize * count].view(dtype)
        at += sizes[name]
    return arrays


def prefault(arrays: Iterable[np.ndarray], bytes_each: int = PREFAULT_BYTES) -> None:
    """Have the system back the first `bytes_each` of zeroed arrays now: the first touch of a page costs up to 0.1 ms, and comes at the
    worst moment otherwise. Pools are used from their beginning, so what is left out is what a quiet day never needs."""
    for array in arrays:
        array.view(np.uint8).reshape(-1)[:bytes_each:PAGE_BYTES] = 0


def check_invariants(book: Book) -> None:
    """Walk everything there is, here and in the kernel that does it at run time: both must come to the same.

    AssertionError names what does not hold: sums, links, order of levels, counts, page table.
    """
    found, instrument = check_book(book)
    assert found == WHOLE, f"instrument={instrument}: {FAULTS[found]}"
    check_by_python(book)


def check_by_python(book: Book) -> None:
    """check_invariants without the kernel, and with more to say."""
    live_levels = _check_sides(book)
    assert len(live_levels) == book.counts[LEVELS_LIVE], f"levels in vectors={len(live_levels)}, counted {book.counts[LEVELS_LIVE]}"
    assert book.counts[LEVELS_LIVE] <= book.counts[LEVELS_USED] <= len(book.levels)
    assert book.counts[ARENA_USED] <= len(book.keys)
    walked = [handle for level in live_levels for handle in _check_level(book, level)]
    live = np.flatnonzero(book.orders["qty"])
    assert sorted(walked) == live.tolist(), f"orders linked from levels={len(walked)}, with a quantity {len(live)}"
    assert len(live) == book.counts[ORDERS_LIVE], f"live orders={len(live)}, counted {book.counts[ORDERS_LIVE]}"
    assert book.counts[ORDERS_LIVE] < book.counts[ORDERS_USED] <= len(book.orders)
    _check_pages(book, live)


def _check_sides(book: Book) -> list[int]:
    levels: list[int] = []
    for row in np.flatnonzero(book.sides["count"]).tolist():
        start, count, shift = (int(book.sides[row][name]) for name in ("start", "count", "shift"))
        assert count <= 1 << shift, f"side row={row}: count={count} in a chunk of {1 << shift}"
        keys = book.keys[start : start + count]
        assert (np.diff(keys) > 0).all(), f"side row={row}: keys are not sorted: {keys.tolist()}"
        for key, level in zip(keys.tolist(), book.ids[start : start + count].tolist(), strict=True):
            record = book.levels[level]
            side, px = int(record["side"]), int(record["px"])
            assert (2 * int(record["instrument"]) + (side == SELL)) == row and side in (BUY, SELL), f"level={level}: in side row={row}"
            assert key == (px if side == BUY else -px), f"level={level}: px={px} under key={key}"
            levels.append(level)
    assert len(set(levels)) == len(levels), "a level is in two places"
    return levels


def _check_level(book: Book, level: int) -> list[int]:
    """The handles of a level's orders in their order, after checking links and sums."""
    record = book.levels[level]
    handles: list[int] = []
    before, handle = NONE, int(record["head"])
    while handle != NONE:
        order = book.orders[handle]
        assert int(order["qty"]) > 0, f"level={level}: order handle={handle} is dead"
        assert int(order["level"]) == level, f"order handle={handle}: level={int(order['level'])}, linked from {level}"
        assert int(order["prev"]) == before, f"order handle={handle}: prev={int(order['prev'])}, expected {before}"
        assert (int(order["instrument"]), int(order["side"])) == (int(record["instrument"]), int(record["side"]))
        handles.append(handle)
        assert len(handles) <= int(record["orders"]), f"level={level}: more orders linked than orders={int(record['orders'])}"
        before, handle = handle, int(order["next"])
    assert int(record["tail"]) == before, f"level={level}: tail={int(record['tail'])}, expected {before}"
    assert len(handles) == int(record["orders"]) > 0, f"level={level}: orders={int(record['orders'])}, linked {len(handles)}"
    total = sum(int(book.orders[handle]["qty"]) for handle in handles)
    assert total == int(record["qty"]), f"level={level}: qty={int(record['qty'])}, orders sum to {total}"
    return handles


def _check_pages(book: Book, live: np.ndarray) -> None:
    slots = np.flatnonzero(book.handles)
    assert sorted(book.handles[slots].tolist()) == live.tolist(), f"handles in pages={len(slots)}, live orders {len(live)}"
    assert (book.slots[book.handles[slots]] == slots).all(), "an order does not know its place in a page"
    entries = np.flatnonzero(book.table["id"])
    numbers, counts = np.unique(slots // PAGE_REFS, return_counts=True)
    ids = book.table["id"][entries]
    assert sorted(ids.tolist()) == numbers.tolist(), f"pages in the table={len(ids)}, with live orders {len(numbers)}"
    assert len(entries) == book.counts[PAGES_LIVE], f"page entries={len(entries)}, counted {book.counts[PAGES_LIVE]}"
    assert len(np.unique(book.table["page"][entries])) == len(entries), "a page number is in the table twice"
    assert (book.pages[ids] == book.table["page"][entries]).all(), "a page's number is not that of its entry"
    held = dict(zip(numbers.tolist(), counts.tolist(), strict=True))
    for entry in entries.tolist():
        record = book.table[entry]
        assert int(record["live"]) == held[int(record["id"])], f"page={int(record['page'])}: live={int(record['live'])}"
        assert find_entry(book.table, int(record["page"])) == entry, f"page={int(record['page'])}: a search does not reach its entry"
