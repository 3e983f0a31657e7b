"""Whether a book is whole, as kernels: what no sequence of messages can make wrong, unless this code or this memory is.

They believe nothing they read: every index is looked at before it is used, and a walk along links ends where the level says.
"""

import numpy as np
from numba import njit

from engine.book.hot.arena import ARENA_USED
from engine.book.hot.book import (
    LEVELS_LIVE,
    LEVELS_USED,
    NONE,
    ORDERS_LIVE,
    ORDERS_USED,
    PAGE_REFS,
    PAGE_SHIFT,
    PAGES_LIVE,
    find_entry,
    price_key,
    side_row,
)
from engine.layout import BUY, SELL

# What check_instrument and check_book return; engine/book/book.py has a sentence for each.
WHOLE = 0
VECTOR_OUTSIDE = 1
LEVELS_UNSORTED = 2
LEVEL_MISPLACED = 3
ORDER_STRAY = 4
LINKS_BROKEN = 5
SUM_WRONG = 6
ORDER_UNFINDABLE = 7
TOTAL_WRONG = 8


@njit(cache=True, _nrt=False)
def check_instrument(book, instrument):
    """WHOLE, or what does not hold: the order of levels, links, sums, and that every order is found by its ref."""
    for side in (BUY, SELL):
        found = check_side(book, instrument, side)[0]
        if found != WHOLE:
            return found
    return WHOLE


@njit(cache=True, _nrt=False)
def check_book(book):
    """(WHOLE or what does not hold, of which instrument or -1): every instrument, and that all of them add up to what is counted."""
    levels = 0
    orders = 0
    for instrument in range(book.sides.shape[0] >> 1):
        for side in (BUY, SELL):
            found, side_levels, side_orders = check_side(book, instrument, side)
            if found != WHOLE:
                return found, instrument
            levels += side_levels
            orders += side_orders
    counts = book.counts
    if levels != counts[LEVELS_LIVE] or orders != counts[ORDERS_LIVE] or orders != orders_in_table(book):
        return TOTAL_WRONG, -1
    return WHOLE, -1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def orders_in_table(book):
    """How many orders the page table says are live; -1 where it has another number of pages than is counted."""
    pages = 0
    live = 0
    for entry in range(book.table.shape[0]):
        if book.table[entry].id != 0:
            pages += 1
            live += np.int64(book.table[entry].live)
    return live if pages == book.counts[PAGES_LIVE] else -1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def check_side(book, instrument, side):
    """(WHOLE or what does not hold, levels, orders) of one side."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    count = np.int64(record.count)
    if count > (1 << np.int64(record.shift)) or start + count > book.counts[ARENA_USED] or start + count > book.keys.shape[0]:
        return VECTOR_OUTSIDE, 0, 0
    orders = 0
    for entry in range(start, start + count):
        if entry > start and book.keys[entry] <= book.keys[entry - 1]:
            return LEVELS_UNSORTED, 0, 0
        level = np.int64(book.ids[entry])
        if level >= min(book.counts[LEVELS_USED], book.levels.shape[0]):
            return LEVEL_MISPLACED, 0, 0
        place = book.levels[level]
        if place.instrument != instrument or place.side != side or price_key(side, np.int64(place.px)) != book.keys[entry]:
            return LEVEL_MISPLACED, 0, 0
        found = check_level(book, level)
        if found != WHOLE:
            return found, 0, 0
        orders += np.int64(place.orders)
    return WHOLE, count, orders


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def check_level(book, level):
    place = book.levels[level]
    used = min(book.counts[ORDERS_USED], book.orders.shape[0])
    total = 0
    linked = 0
    before = NONE
    handle = np.int64(place.head)
    while handle != NONE:
        if handle == 0 or handle >= used or linked == place.orders:
            return LINKS_BROKEN
        order = book.orders[handle]
        if order.prev != before:
            return LINKS_BROKEN
        if order.qty == 0 or order.level != level or order.instrument != place.instrument or order.side != place.side:
            return ORDER_STRAY
        if not is_findable(book, handle):
            return ORDER_UNFINDABLE
        total += np.int64(order.qty)
        linked += 1
        before = handle
        handle = np.int64(order.next)
    if place.tail != before or linked != place.orders or linked == 0:
        return LINKS_BROKEN
    return WHOLE if total == place.qty else SUM_WRONG


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_findable(book, handle):
    """Whether a search for an order's ref ends at the order."""
    slot = np.int64(book.slots[handle])
    if slot >= book.handles.shape[0] or book.handles[slot] != handle:
        return False
    page = slot >> PAGE_SHIFT
    entry = find_entry(book.table, book.pages[page])
    live = book.table[entry].live
    return book.table[entry].id == page and live > 0 and live <= PAGE_REFS
