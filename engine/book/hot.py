"""The order book as kernels: every order of every instrument, in price-time priority. engine/book/book.py makes the arrays.

    ref >> 6 ──table──▶ page ──▶ orders[page * 64 + (ref & 63)] ──level──▶ levels[level] ◀── ids[start .. start + count]

An order's handle is its place in `orders`. Refs that venues hand out are near-dense, so 64 neighbours share a page and finding an
order costs one cache miss; any 64-bit ref works, and a page is recycled when its last order goes. An order holds its level, so
nothing that happens to an existing order searches. Orders of a level are linked in the order of their arrival.

Each side of an instrument is a sorted vector of levels with the best at the back, where most of what happens happens: `keys` are the
prices (negated for asks, so that one comparison serves both sides), `ids` the levels. Vectors live in one arena of power-of-two
chunks. Everything is allocated beforehand; where a capacity is reached an add returns NO_ROOM and changes nothing.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

NOT_FOUND = -1
DUPLICATE = -2
NO_ROOM = -3
REFUSED = -4

# No order: the end of a level's links.
NONE = 0xFFFFFFFF
QTY_MAX = 0xFFFFFFFF

PAGE_SHIFT = 6
PAGE_ORDERS = 1 << PAGE_SHIFT

# Words of Book.counts. Pages and levels below *_USED have been in use; those given back are linked from *_FREE (0: none).
ORDERS_LIVE = 0
LEVELS_LIVE = 1
PAGES_LIVE = 2
PAGES_USED = 3
PAGES_FREE = 4
LEVELS_USED = 5
LEVELS_FREE = 6
ARENA_USED = 7
CAPACITY_DROPS = 8
# One list of free chunks for each size, by the power of two.
CHUNKS_FREE = 16
CHUNK_SHIFT_MIN = 4
CHUNK_SHIFT_MAX = 31
COUNT_WORDS = CHUNKS_FREE + CHUNK_SHIFT_MAX + 1

# Linear look at the best prices before the binary search: most of what happens is near the touch.
NEAR_LEVELS = 8


class Book(NamedTuple):
    """Arrays of a book: records as engine/book/book.py draws them, keys (arena,) int64, ids (arena,) uint32, counts (words,) int64."""

    orders: np.ndarray
    levels: np.ndarray
    table: np.ndarray
    pages: np.ndarray
    sides: np.ndarray
    keys: np.ndarray
    ids: np.ndarray
    counts: np.ndarray


@njit(cache=True, forceinline=True)
def side_row(instrument, side):
    """The row of Book.sides. BUY (66) is even and SELL (83) is odd."""
    return 2 * instrument + (side & 1)


@njit(cache=True, forceinline=True)
def price_key(side, px):
    """What a side is sorted by: greater is better."""
    return -px if side & 1 else px


@njit(cache=True, forceinline=True)
def home_of(table, page):
    """Where a page's entry belongs in the table. Four neighbouring pages share a cache line; the lines are scattered."""
    group = page >> 2
    mixed = ((group ^ (group >> 29)) & 0x7FFFFFFF) * 0x9E3779B1
    return (((mixed >> 28) << 2) | (page & 3)) & (table.shape[0] - 1)


@njit(cache=True, forceinline=True)
def find_page(table, page):
    """The id of a page, or 0. The table is never more than a quarter full, so the search ends soon."""
    at = home_of(table, page)
    while True:
        number = np.int64(table[at].id)
        if number == 0 or table[at].page == page:
            return number
        at = (at + 1) & (table.shape[0] - 1)


@njit(cache=True)
def enter_page(table, page, number):
    at = home_of(table, page)
    while table[at].id != 0:
        at = (at + 1) & (table.shape[0] - 1)
    table[at].page = page
    table[at].id = number


@njit(cache=True)
def forget_page(table, page):
    """Take a page's entry out and move back those that had to make way for it, so that no search passes over a hole."""
    mask = table.shape[0] - 1
    hole = home_of(table, page)
    while table[hole].page != page or table[hole].id == 0:
        hole = (hole + 1) & mask
    at = hole
    while True:
        at = (at + 1) & mask
        if table[at].id == 0:
            break
        # An entry may move into the hole unless its home lies after the hole.
        if ((at - home_of(table, np.int64(table[at].page))) & mask) >= ((at - hole) & mask):
            table[hole] = table[at]
            hole = at
    table[hole].id = 0


@njit(cache=True)
def take_page(table, pages, counts, page):
    """A page of 64 dead orders under a new number, or 0 where there is none left."""
    number = counts[PAGES_FREE]
    if number != 0:
        counts[PAGES_FREE] = np.int64(pages[number].next)
    else:
        number = counts[PAGES_USED]
        if number == pages.shape[0]:
            return 0
        counts[PAGES_USED] = number + 1
    pages[number].page = page
    pages[number].live = 0
    enter_page(table, page, number)
    counts[PAGES_LIVE] += 1
    return number


@njit(cache=True)
def give_page(table, pages, counts, number):
    forget_page(table, np.int64(pages[number].page))
    pages[number].next = counts[PAGES_FREE]
    counts[PAGES_FREE] = number
    counts[PAGES_LIVE] -= 1


@njit(cache=True, forceinline=True)
def find_place(keys, start, end, key):
    """How far a sorted vector goes up to `key`: the index after the last of keys[start:end] that is not better."""
    near = max(start, end - NEAR_LEVELS)
    place = end
    while place > near and keys[place - 1] > key:
        place -= 1
    if place > near or near == start:
        return place
    low = start
    while low < place:
        middle = (low + place) >> 1
        if keys[middle] > key:
            place = middle
        else:
            low = middle + 1
    return place


@njit(cache=True)
def take_chunk(ids, counts, shift):
    """The start of a chunk of at least 2^shift entries, or -1; its size goes with it only by what the caller remembers."""
    free = counts[CHUNKS_FREE + shift]
    if free != 0:
        counts[CHUNKS_FREE + shift] = np.int64(ids[free - 1])
        return free - 1
    start = counts[ARENA_USED]
    if start + (1 << shift) > ids.shape[0]:
        return -1
    counts[ARENA_USED] = start + (1 << shift)
    return start


@njit(cache=True)
def give_chunk(ids, counts, start, shift):
    ids[start] = counts[CHUNKS_FREE + shift]
    counts[CHUNKS_FREE + shift] = start + 1


@njit(cache=True)
def grow_side(sides, keys, ids, counts, row):
    """Move a full side to a chunk of twice the size. False where the arena has none."""
    side = sides[row]
    shift = max(np.int64(side.shift) + 1, CHUNK_SHIFT_MIN)
    start = take_chunk(ids, counts, shift)
    if start < 0:
        return False
    old = np.int64(side.start)
    for entry in range(np.int64(side.count)):
        keys[start + entry] = keys[old + entry]
        ids[start + entry] = ids[old + entry]
    if side.shift != 0:
        give_chunk(ids, counts, old, np.int64(side.shift))
    side.start = start
    side.shift = shift
    return True


@njit(cache=True, forceinline=True)
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


@njit(cache=True, forceinline=True)
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
    entry = start + count
    while entry > start + place:
        book.keys[entry] = book.keys[entry - 1]
        book.ids[entry] = book.ids[entry - 1]
        entry -= 1
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


@njit(cache=True, forceinline=True)
def drop_level(book, level):
    """Take a level without orders out of its side."""
    gone = book.levels[level]
    side = np.int64(gone.side)
    row = side_row(np.int64(gone.instrument), side)
    record = book.sides[row]
    start = np.int64(record.start)
    last = start + np.int64(record.count) - 1
    entry = find_place(book.keys, start, last + 1, price_key(side, np.int64(gone.px))) - 1
    while entry < last:
        book.keys[entry] = book.keys[entry + 1]
        book.ids[entry] = book.ids[entry + 1]
        entry += 1
    record.count = last - start
    if last == start and np.int64(record.shift) > CHUNK_SHIFT_MIN:
        # An empty side gives a grown chunk back, so that what one busy side once needed serves another.
        give_chunk(book.ids, book.counts, start, np.int64(record.shift))
        record.shift = 0
    gone.head = book.counts[LEVELS_FREE]
    book.counts[LEVELS_FREE] = level + 1
    book.counts[LEVELS_LIVE] -= 1


@njit(cache=True, forceinline=True)
def level_for(book, instrument, side, px):
    """The level of a price, made where there is none, or NO_ROOM."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    key = price_key(side, px)
    place = find_place(book.keys, start, start + np.int64(record.count), key)
    if place > start and book.keys[place - 1] == key:
        return np.int64(book.ids[place - 1])
    return make_level(book, instrument, side, px, place - start)


@njit(cache=True, forceinline=True)
def find_order(book, ref):
    """The handle of a live order, or NOT_FOUND."""
    number = find_page(book.table, ref >> PAGE_SHIFT)
    handle = (number << PAGE_SHIFT) | (ref & (PAGE_ORDERS - 1))
    # Page 0 is never handed out, so its orders are dead for ever.
    if book.orders[handle].qty == 0:
        return NOT_FOUND
    return handle


@njit(cache=True, forceinline=True)
def order_ref(book, handle):
    """The ref under which an order was added."""
    return (np.int64(book.pages[handle >> PAGE_SHIFT].page) << PAGE_SHIFT) | (handle & (PAGE_ORDERS - 1))


@njit(cache=True, forceinline=True)
def add_order(book, ref, instrument, side, px, qty):
    """Put an order behind all others of its price. Its handle, or DUPLICATE (the ref is live), NO_ROOM, or REFUSED (qty)."""
    if qty <= 0 or qty > QTY_MAX:
        return REFUSED
    number = find_page(book.table, ref >> PAGE_SHIFT)
    if book.orders[(number << PAGE_SHIFT) | (ref & (PAGE_ORDERS - 1))].qty != 0:
        return DUPLICATE
    if 2 * instrument >= book.sides.shape[0] or instrument < 0:
        book.counts[CAPACITY_DROPS] += 1
        return NO_ROOM
    fresh = number == 0
    if fresh:
        number = take_page(book.table, book.pages, book.counts, ref >> PAGE_SHIFT)
    level = level_for(book, instrument, side, px) if number != 0 else NO_ROOM
    if level < 0:
        if fresh and number != 0:
            give_page(book.table, book.pages, book.counts, number)
        book.counts[CAPACITY_DROPS] += 1
        return NO_ROOM
    handle = (number << PAGE_SHIFT) | (ref & (PAGE_ORDERS - 1))
    book.pages[number].live += np.uint32(1)
    book.counts[ORDERS_LIVE] += 1
    append_order(book, handle, level, instrument, side, qty)
    return handle


@njit(cache=True, forceinline=True)
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


@njit(cache=True, forceinline=True)
def remove_order(book, handle):
    """Take a live order off the book, its level too if it was the last there, its page too if it was the last there."""
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
    order.qty = 0
    book.counts[ORDERS_LIVE] -= 1
    if place.orders == 0:
        drop_level(book, level)
    page = book.pages[handle >> PAGE_SHIFT]
    page.live -= np.uint32(1)
    if page.live == 0:
        give_page(book.table, book.pages, book.counts, handle >> PAGE_SHIFT)


@njit(cache=True, forceinline=True)
def reduce_order(book, handle, qty):
    """Take `qty` off a live order, at most what it has, and return what is left of it; at 0 it is removed."""
    order = book.orders[handle]
    left = np.int64(order.qty) - max(qty, 0)
    if left <= 0:
        remove_order(book, handle)
        return 0
    book.levels[order.level].qty -= max(qty, 0)
    order.qty = left
    return left


@njit(cache=True, forceinline=True)
def worse_level(book, instrument, side, depth):
    """The level `depth` steps behind the best of a side (0: the best), or -1 where there are not so many."""
    record = book.sides[side_row(instrument, side)]
    count = np.int64(record.count)
    if depth >= count:
        return -1
    return np.int64(book.ids[np.int64(record.start) + count - 1 - depth])


@njit(cache=True, forceinline=True)
def best_level(book, instrument, side):
    """The best level of a side, or -1 where it is empty."""
    return worse_level(book, instrument, side, 0)


@njit(cache=True, forceinline=True)
def level_at(book, instrument, side, px):
    """The level of a price, or -1."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    key = price_key(side, px)
    place = find_place(book.keys, start, start + np.int64(record.count), key)
    if place > start and book.keys[place - 1] == key:
        return np.int64(book.ids[place - 1])
    return -1
