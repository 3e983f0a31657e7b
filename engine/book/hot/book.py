"""The order book as kernels: every order of every instrument, in price-time priority. engine/book/book.py makes the arrays.

    ref >> 4 ──table──▶ page ──▶ handles[page * 16 + (ref & 15)] ──▶ orders[handle] ──▶ levels[level] ◀── ids[start .. start + count]

Refs that venues hand out are near-dense, so the handles of 16 neighbours share a page of one cache line; any 64-bit ref works, and a
page is recycled when its last order goes. Order records are reused last in, first out, so that those in use stay close together. An
order holds its level, so nothing that happens to an existing order searches; orders of a level are linked in the order of arrival.

Each side of an instrument is a sorted vector of levels with the best at the back, where most of what happens happens: `keys` are the
prices (negated for asks, so that one comparison serves both sides), `ids` the levels (engine/book/hot/arena.py). Everything is
allocated beforehand; where a capacity is reached an add returns NO_ROOM and changes nothing.

Where the arrays are shared with other processes, each instrument has a version that is odd while its book changes: who writes calls
open_book and close_book around a change, who reads goes by engine/book/hot/query.py. The exchange, whose book is its own, does not.

Kernels are compiled with _nrt=False: numba then neither counts references, which are atomic instructions and made this book five
times slower, nor lets a kernel compile that allocates.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.book.hot.arena import CHUNK_SHIFT_MAX, CHUNK_SHIFT_MIN, CHUNKS_FREE, find_place, give_chunk, grow_side, move_down, move_up
from engine.layout import SELL
from shm.atomics import fence_release, store_relaxed, store_release, wrap_add

NOT_FOUND = -1
DUPLICATE = -2
NO_ROOM = -3
REFUSED = -4

# No order: the end of a level's links.
NONE = 0xFFFFFFFF
QTY_MAX = 0xFFFFFFFF

PAGE_SHIFT = 4
PAGE_REFS = 1 << PAGE_SHIFT

# Words of Book.counts; others are the arena's. Orders, pages and levels below *_USED have been in use; those given back are linked from
# *_FREE (0: none). TABLE_VERSION is odd while entries of the page table move.
ORDERS_LIVE = 0
ORDERS_USED = 1
ORDERS_FREE = 2
LEVELS_LIVE = 3
LEVELS_USED = 4
LEVELS_FREE = 5
PAGES_LIVE = 6
PAGES_USED = 7
PAGES_FREE = 8
CAPACITY_DROPS = 10
TABLE_VERSION = 11
COUNT_WORDS = CHUNKS_FREE + CHUNK_SHIFT_MAX + 1

# Book.marks are the side records as 8-byte words, two a record. The second has the side's shift below, and above it the version where
# the side is the bids.
MARKS_PER_INSTRUMENT = 4
VERSION_AT = 1
ONE_VERSION = np.int64(1 << 32)


class Book(NamedTuple):
    """Arrays of a book: records as engine/book/book.py draws them.

    orders (n,), levels (n,), table (entries,) and sides (2 x instruments,) records; slots (orders,) uint32: where in handles an order
    stands; handles (pages x 16,) uint32; pages (pages,) int64: their numbers, that is ref >> 4; keys (arena,) int64; ids (arena,)
    uint32; counts (words,) int64; marks (4 x instruments,) int64: sides as words.
    """

    orders: np.ndarray
    levels: np.ndarray
    table: np.ndarray
    handles: np.ndarray
    slots: np.ndarray
    pages: np.ndarray
    sides: np.ndarray
    keys: np.ndarray
    ids: np.ndarray
    marks: np.ndarray
    counts: np.ndarray


@njit(cache=True, forceinline=True, _nrt=False)
def side_row(instrument, side):
    """The row of Book.sides. BUY (66) is even and SELL (83) is odd."""
    return 2 * instrument + (side & 1)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def price_key(side, px):
    """What a side is sorted by: greater is better."""
    return -px if side & 1 else px


@njit(cache=True, forceinline=True, _nrt=False)
def open_book(book, instrument):
    """Begin to change an instrument's book: until close_book its version is odd, and nobody else believes what it reads."""
    at = MARKS_PER_INSTRUMENT * instrument + VERSION_AT
    store_relaxed(book.marks, at, wrap_add(book.marks[at], ONE_VERSION))
    # SYNC POINT (engine/book/hot/query.py, the second look).
    fence_release()


@njit(cache=True, forceinline=True, _nrt=False)
def close_book(book, instrument):
    """Publish what has changed since open_book."""
    at = MARKS_PER_INSTRUMENT * instrument + VERSION_AT
    # SYNC POINT (engine/book/hot/query.py, the first look).
    store_release(book.marks, at, wrap_add(book.marks[at], ONE_VERSION))


@njit(cache=True, forceinline=True, _nrt=False)
def tell_flags(book, instrument, flags):
    """Put an instrument's TP_BOOK_* flags beside its book, as a change of it: queries that may only answer of a valid one go by them.

    Before a book is cleared or filled anew, tell that it is not valid.
    """
    if told_flags(book, instrument) != flags:
        open_book(book, instrument)
        book.sides[side_row(instrument, SELL)].mark = flags
        close_book(book, instrument)


@njit(cache=True, forceinline=True, _nrt=False)
def told_flags(book, instrument):
    """What tell_flags last put there; 0 where it never did."""
    return np.int64(book.sides[side_row(instrument, SELL)].mark)


@njit(cache=True, forceinline=True, _nrt=False)
def home_of(table, page):
    """Where a page's entry belongs in the table. Four neighbouring pages share a cache line; the lines are scattered."""
    group = page >> 2
    mixed = ((group ^ (group >> 29)) & 0x7FFFFFFF) * 0x9E3779B1
    return (((mixed >> 28) << 2) | (page & 3)) & (table.shape[0] - 1)


@njit(cache=True, forceinline=True, _nrt=False)
def find_entry(table, page):
    """Where a page's entry is, or the empty entry (id 0) where it would go. At most half of the table is in use."""
    at = home_of(table, page)
    while table[at].id != 0 and table[at].page != page:
        at = (at + 1) & (table.shape[0] - 1)
    return at


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_entry(table, hole):
    """Empty an entry, and move back those that had to make way for it, so that no search stops short of them."""
    mask = table.shape[0] - 1
    at = (hole + 1) & mask
    while table[at].id != 0:
        # An entry may move into the hole unless its home lies after the hole.
        if ((at - home_of(table, np.int64(table[at].page))) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
        at = (at + 1) & mask
    table[hole].id = 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_page(book, at, page):
    """Give `page` the empty entry `at`. There is a page for every order there can be, so one is left."""
    number = book.counts[PAGES_FREE]
    if number != 0:
        book.counts[PAGES_FREE] = book.pages[number]
    else:
        number = book.counts[PAGES_USED]
        book.counts[PAGES_USED] = number + 1
    book.pages[number] = page
    entry = book.table[at]
    entry.page = page
    entry.id = number
    entry.live = 0
    book.counts[PAGES_LIVE] += 1
    return number


@njit(cache=True, _nrt=False)
def close_page(table, pages, counts, at):
    number = np.int64(table[at].id)
    # Who looks for another page's entry while it moves does not find it, and has to know that it may be there.
    store_relaxed(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)
    fence_release()
    forget_entry(table, at)
    store_release(counts, TABLE_VERSION, counts[TABLE_VERSION] + 1)
    pages[number] = counts[PAGES_FREE]
    counts[PAGES_FREE] = number
    counts[PAGES_LIVE] -= 1


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_level(levels, counts):
    """An unused level, or -1."""
    level = counts[LEVELS_FREE] - 1
    if level >= 0:
        counts[LEVELS_FREE] = np.int64(levels[level].head)
        return level
    level = counts[LEVELS_USED]
    if level == levels.shape[0]:
        return -1
    counts[LEVELS_USED] = level + 1
    return level


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def make_level(book, instrument, side, px, place):
    """Put an empty level into its side's vector, `place` entries from the vector's start. NO_ROOM changes nothing."""
    row = side_row(instrument, side)
    record = book.sides[row]
    count = np.int64(record.count)
    if record.shift == 0 or count == 1 << np.int64(record.shift):
        if not grow_side(book.sides, book.keys, book.ids, book.counts, row):
            return NO_ROOM
    level = take_level(book.levels, book.counts)
    if level < 0:
        return NO_ROOM
    start = np.int64(record.start)
    entry = start + place
    move_up(book.keys, entry, count - place)
    move_up(book.ids, entry, count - place)
    book.keys[entry] = price_key(side, px)
    book.ids[entry] = level
    record.count = count + 1
    made = book.levels[level]
    made.px = px
    made.qty = 0
    made.orders = 0
    made.head = NONE
    made.tail = NONE
    made.instrument = instrument
    made.side = side
    book.counts[LEVELS_LIVE] += 1
    return level


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def drop_level(book, level):
    """Take a level without orders out of its side."""
    gone = book.levels[level]
    side = np.int64(gone.side)
    row = side_row(np.int64(gone.instrument), side)
    record = book.sides[row]
    start = np.int64(record.start)
    last = start + np.int64(record.count) - 1
    entry = find_place(book.keys, start, last + 1, price_key(side, np.int64(gone.px))) - 1
    move_down(book.keys, entry, last - entry)
    move_down(book.ids, entry, last - entry)
    record.count = last - start
    if last == start and np.int64(record.shift) > CHUNK_SHIFT_MIN:
        # An empty side gives a grown chunk back, so that what one busy side once needed serves another.
        give_chunk(book.ids, book.counts, start, np.int64(record.shift))
        record.shift = 0
    gone.head = book.counts[LEVELS_FREE]
    book.counts[LEVELS_FREE] = level + 1
    book.counts[LEVELS_LIVE] -= 1


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def level_for(book, instrument, side, px):
    """The level of a price, made where there is none, or NO_ROOM."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    key = price_key(side, px)
    place = find_place(book.keys, start, start + np.int64(record.count), key)
    if place > start and book.keys[place - 1] == key:
        return np.int64(book.ids[place - 1])
    return make_level(book, instrument, side, px, place - start)


@njit(cache=True, forceinline=True, _nrt=False)
def find_order(book, ref):
    """The handle of a live order, or NOT_FOUND."""
    number = np.int64(book.table[find_entry(book.table, ref >> PAGE_SHIFT)].id)
    # Page 0 is never handed out, so its handles are 0 for ever, and handle 0 is no order.
    handle = np.int64(book.handles[(number << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))])
    return handle if handle != 0 else NOT_FOUND


@njit(cache=True, forceinline=True, _nrt=False)
def order_ref(book, handle):
    """The ref under which a live order was added."""
    slot = np.int64(book.slots[handle])
    return (book.pages[slot >> PAGE_SHIFT] << PAGE_SHIFT) | (slot & (PAGE_REFS - 1))


@njit(cache=True, forceinline=True, _nrt=False)
def add_order(book, ref, instrument, side, px, qty):
    """Put an order behind all others of its price. Its handle, or DUPLICATE (the ref is live), NO_ROOM, or REFUSED (its qty)."""
    if qty <= 0 or qty > QTY_MAX:
        return REFUSED
    at = find_entry(book.table, ref >> PAGE_SHIFT)
    number = np.int64(book.table[at].id)
    if book.handles[(number << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))] != 0:
        return DUPLICATE
    if book.counts[ORDERS_LIVE] == book.orders.shape[0] - 1 or instrument < 0 or 2 * instrument >= book.sides.shape[0]:
        book.counts[CAPACITY_DROPS] += 1
        return NO_ROOM
    level = level_for(book, instrument, side, px)
    if level < 0:
        book.counts[CAPACITY_DROPS] += 1
        return NO_ROOM
    if number == 0:
        number = open_page(book, at, ref >> PAGE_SHIFT)
    book.table[at].live += np.uint32(1)
    handle = take_order(book)
    slot = (number << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))
    book.handles[slot] = handle
    book.slots[handle] = slot
    append_order(book, handle, level, instrument, side, qty)
    return handle


@njit(cache=True, forceinline=True, _nrt=False)
def take_order(book):
    """An unused order record. The caller has seen that there is one."""
    handle = book.counts[ORDERS_FREE]
    if handle != 0:
        book.counts[ORDERS_FREE] = np.int64(book.orders[handle].next)
    else:
        handle = book.counts[ORDERS_USED]
        book.counts[ORDERS_USED] = handle + 1
    book.counts[ORDERS_LIVE] += 1
    return handle


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def append_order(book, handle, level, instrument, side, qty):
    place = book.levels[level]
    order = book.orders[handle]
    tail = place.tail
    order.qty = qty
    order.level = level
    order.prev = tail
    order.next = NONE
    order.instrument = instrument
    order.side = side
    order.flags = 0
    order.owner = 0
    order.user_ref = 0
    order.executed = 0
    place.tail = handle
    if tail == NONE:
        place.head = handle
    else:
        book.orders[tail].next = handle
    place.orders += np.uint32(1)
    place.qty += qty


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def unlink_order(book, handle):
    """Take a live order out of its level, its level too if it was the last there."""
    order = book.orders[handle]
    level = np.int64(order.level)
    place = book.levels[level]
    before = order.prev
    after = order.next
    if before == NONE:
        place.head = after
    else:
        book.orders[before].next = after
    if after == NONE:
        place.tail = before
    else:
        book.orders[after].prev = before
    place.qty -= np.int64(order.qty)
    place.orders -= np.uint32(1)
    if place.orders == 0:
        drop_level(book, level)
    order.qty = 0
    order.next = book.counts[ORDERS_FREE]
    book.counts[ORDERS_FREE] = handle
    book.counts[ORDERS_LIVE] -= 1


@njit(cache=True, forceinline=True, _nrt=False)
def remove_order(book, handle):
    """Take a live order off the book."""
    remove_found(book, handle, find_entry(book.table, book.pages[np.int64(book.slots[handle]) >> PAGE_SHIFT]), np.int64(book.slots[handle]))


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def remove_found(book, handle, at, slot):
    """remove_order for who has just found the order: `at` is the entry of its page, `slot` its place in handles."""
    unlink_order(book, handle)
    book.handles[slot] = 0
    entry = book.table[at]
    entry.live -= np.uint32(1)
    if entry.live == 0:
        close_page(book.table, book.pages, book.counts, at)


@njit(cache=True, forceinline=True, _nrt=False)
def reduce_order(book, handle, qty):
    """Take `qty` off a live order, at most what it has, and return what is left of it; at 0 it is removed."""
    left = np.int64(book.orders[handle].qty) - max(qty, 0)
    if left <= 0:
        remove_order(book, handle)
        return 0
    keep_order(book, handle, left)
    return left


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def keep_order(book, handle, left):
    """Lower a live order's quantity to `left`, which is not 0; it keeps its place."""
    order = book.orders[handle]
    book.levels[order.level].qty -= np.int64(order.qty) - left
    order.qty = left


@njit(cache=True, forceinline=True, _nrt=False)
def worse_level(book, instrument, side, depth):
    """The level `depth` steps behind the best of a side (0: the best), or -1 where there are not so many."""
    record = book.sides[side_row(instrument, side)]
    count = np.int64(record.count)
    if depth >= count:
        return -1
    return np.int64(book.ids[np.int64(record.start) + count - 1 - depth])


@njit(cache=True, forceinline=True, _nrt=False)
def best_level(book, instrument, side):
    """The best level of a side, or -1 where it is empty."""
    return worse_level(book, instrument, side, 0)


@njit(cache=True, forceinline=True, _nrt=False)
def level_at(book, instrument, side, px):
    """The level of a price, or -1."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    key = price_key(side, px)
    place = find_place(book.keys, start, start + np.int64(record.count), key)
    if place > start and book.keys[place - 1] == key:
        return np.int64(book.ids[place - 1])
    return -1
