"""Questions about a book that another process is changing: each answer is of one moment, or TORN.

    version ──▶ even? ──▶ read what is needed ──▶ version again ──▶ the same? that is the answer
                 odd: a change is under way         another: once more, TRIES times at most

Nothing that is read is believed before the second look: every index is looked at before it is used, every loop is bounded. An answer
costs its own cache misses and holds up nobody, least of all the feed. All of them are whole numbers; px is the venue's fixed point.

Why an answer is right. There is one writer, and between the looks it has changed nothing of this instrument's:

- its side records, the chunks they name, its levels and its orders are written to only by changes of this instrument. What was once
  its own and went to another (a chunk, a level, an order record) left it in such a change, and is not reached from its side records.
- the page table, pages, handles and slots are everybody's, and an order record that they lead to may be one that another instrument
  takes this moment, with the old words still in it. So what they lead to is only a guess until it has proved to be ours: its level
  is in this instrument's vector, and links lead both ways between it and that level's first order. Such an order has rested here
  all the time, and with it its slot, its page and so its ref cannot have changed.
- that an order is not there is only said if no entry of the table moved meanwhile (TABLE_VERSION): the entry of a page with a live
  order is then where a search ends, whatever pages come beside it, and all that it leads to passes the proof.

The compiler moves no plain load over an acquiring load or a fence, and x86-64 makes loads in their order, stores in theirs. A version
has 31 bits to count with: a reader that stood still for exactly a multiple of 2^31 changes of one book would be deceived.

Every answer begins with `told`, TOLD or why there is none (then all the rest is 0), and `version`, which grows by 2 with each change
of the instrument's book: two answers with the same one are of the same book. With valid_only an answer is of a book that may be acted
on, and NOT_VALID otherwise: the feed's flags lie beside the book and are read with it.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.book.hot.arena import find_place
from engine.book.hot.book import (
    MARKS_PER_INSTRUMENT,
    NONE,
    ONE_VERSION,
    PAGE_REFS,
    PAGE_SHIFT,
    TABLE_VERSION,
    VERSION_AT,
    home_of,
    price_key,
    side_row,
    told_flags,
)
from engine.layout import BOOK_VALID, BUY, SELL
from shm.atomics import fence_acquire, load_acquire, pause

TOLD = 0
# The book changed during every try. Ask again: the next event is as good a moment.
TORN = -1
# There are no books here, none of such an instrument, or no such order in it.
NOT_THERE = -2
# With valid_only: the feed does not say VALID alone of this book, or it locks or crosses this moment.
NOT_VALID = -3
# A walk would be longer than QUEUE_STEPS_MAX orders or SWEEP_LEVELS_MAX levels, or a search longer than PROBES_MAX table entries.
TOO_LONG = -4
# A quantity below 1 or above SWEEP_QTY_MAX, which keeps a cost within 64 bits.
REFUSED_QTY = -5

TRIES = 32
QUEUE_STEPS_MAX = 1 << 16
SWEEP_LEVELS_MAX = 1 << 12
SWEEP_QTY_MAX = 1 << 30
PROBES_MAX = 1 << 10
# What a weighted mid is told in: thousandths of the venue's smallest price.
MID_PARTS = 1_000
LARGEST_PRODUCT = 1 << 62
WIDEST_SPREAD = 1 << 48

# The version of a book that is just being changed.
CHANGING = np.int64(-1)

# In place of a handle, a level or a number of orders: there is no such thing here, or it is too far.
NOWHERE = np.int64(-1)
TOO_FAR = np.int64(-2)

# A walk along a queue looks every so many orders whether it is still worth while.
STEPS_BETWEEN_LOOKS = 64


class Best(NamedTuple):
    """Best bid and offer: price, quantity and number of orders; an empty side has zeros."""

    told: int
    version: int
    bid_px: int
    bid_qty: int
    bid_orders: int
    ask_px: int
    ask_qty: int
    ask_orders: int


class Queue(NamedTuple):
    """Where an order stands: its side, price and open quantity, what is ahead of it at its price, and all that is there with it."""

    told: int
    version: int
    side: int
    px: int
    qty: int
    ahead_qty: int
    ahead_orders: int
    level_qty: int
    level_orders: int


class WeightedMid(NamedTuple):
    """px_milli: the mid weighted by the other side's quantity, in thousandths of the venue's smallest price, rounded down."""

    told: int
    version: int
    px_milli: int


class Sweep(NamedTuple):
    """What taking a quantity at once would come to: how much there is of it and how much is missing, the exact cost (price times
    quantity), the average price (rounded against the taker) and the worst, and how many levels it takes. Zeros where nothing rests."""

    told: int
    version: int
    filled_qty: int
    missing_qty: int
    cost: int
    average_px: int
    worst_px: int
    levels: int


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def has_book(book, instrument):
    return 0 <= instrument < book.sides.shape[0] >> 1


@njit(cache=True, forceinline=True, _nrt=False)
def look(book, instrument):
    """The version to compare with after reading, or CHANGING."""
    # SYNC POINT (close_book's release).
    word = load_acquire(book.marks, MARKS_PER_INSTRUMENT * instrument + VERSION_AT)
    return CHANGING if word & ONE_VERSION else word


@njit(cache=True, forceinline=True, _nrt=False)
def look_again(book, instrument, word):
    """Whether what was read since `look` gave this word is of one moment."""
    # SYNC POINT (open_book's release): who read something of a change sees the odd version before it, or a later one.
    fence_acquire()
    return load_acquire(book.marks, MARKS_PER_INSTRUMENT * instrument + VERSION_AT) == word


@njit(cache=True, forceinline=True, _nrt=False)
def version_of(word):
    return (word >> 32) & 0xFFFFFFFF


@njit(cache=True, forceinline=True, _nrt=False)
def side_vector(book, instrument, side):
    """(start, levels) of a side within the arena, whatever the record says."""
    record = book.sides[side_row(instrument, side)]
    start = np.int64(record.start)
    count = np.int64(record.count)
    if start + count > book.ids.shape[0]:
        return 0, 0
    return start, count


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_answer(book, instrument, valid_only):
    return not valid_only or (told_flags(book, instrument) == BOOK_VALID and not crosses(book, instrument))


@njit(cache=True, forceinline=True, _nrt=False)
def crosses(book, instrument):
    """Whether bids and offers lock or cross: the feed tells of it a moment later."""
    bids, bid_count = side_vector(book, instrument, BUY)
    asks, ask_count = side_vector(book, instrument, SELL)
    if bid_count == 0 or ask_count == 0:
        return False
    return book.keys[bids + bid_count - 1] >= -book.keys[asks + ask_count - 1]


@njit(cache=True, forceinline=True, _nrt=False)
def level_behind(book, start, count, depth):
    """(px, qty, orders) of the level `depth` behind the best of a vector; zeros where there are not so many."""
    if depth < 0 or depth >= count:
        return 0, 0, 0
    level = np.int64(book.ids[start + count - 1 - depth])
    if level >= book.levels.shape[0]:
        return 0, 0, 0
    place = book.levels[level]
    return np.int64(place.px), np.int64(place.qty), np.int64(place.orders)


@njit(cache=True, _nrt=False)
def best_of(book, instrument, valid_only):
    """Best bid and offer: a Best."""
    if not has_book(book, instrument):
        return Best(NOT_THERE, 0, 0, 0, 0, 0, 0, 0)
    for _ in range(TRIES):
        word = look(book, instrument)
        if word != CHANGING:
            start, count = side_vector(book, instrument, BUY)
            bid_px, bid_qty, bid_orders = level_behind(book, start, count, 0)
            start, count = side_vector(book, instrument, SELL)
            ask_px, ask_qty, ask_orders = level_behind(book, start, count, 0)
            valid = may_answer(book, instrument, valid_only)
            if look_again(book, instrument, word):
                if not valid:
                    return Best(NOT_VALID, 0, 0, 0, 0, 0, 0, 0)
                return Best(TOLD, version_of(word), bid_px, bid_qty, bid_orders, ask_px, ask_qty, ask_orders)
        pause()
    return Best(TORN, 0, 0, 0, 0, 0, 0, 0)


@njit(cache=True, _nrt=False)
def copy_levels(book, instrument, side, out, most, valid_only):
    """Copy the `most` best levels of a side into out (n, 3) int64, as (px, qty, orders): (told, version, how many there were)."""
    if not has_book(book, instrument):
        return NOT_THERE, 0, 0
    for _ in range(TRIES):
        word = look(book, instrument)
        if word != CHANGING:
            start, count = side_vector(book, instrument, side)
            there = min(count, max(min(most, out.shape[0]), 0))
            for depth in range(there):
                px, qty, orders = level_behind(book, start, count, depth)
                out[depth, 0] = px
                out[depth, 1] = qty
                out[depth, 2] = orders
            valid = may_answer(book, instrument, valid_only)
            if look_again(book, instrument, word):
                if not valid:
                    return NOT_VALID, 0, 0
                return TOLD, version_of(word), there
        pause()
    return TORN, 0, 0


@njit(cache=True, error_model="numpy", _nrt=False)
def weighted_mid_of(book, instrument, valid_only):
    """(bid x ask quantity + ask x bid quantity) / both quantities of the best bid and offer: a WeightedMid; NOT_THERE without both.

    Exact, but where spread x quantity does not fit 62 bits: then both quantities are halved until it does.
    """
    best = best_of(book, instrument, valid_only)
    if best.told != TOLD:
        return WeightedMid(best.told, 0, 0)
    if best.bid_qty == 0 or best.ask_qty == 0:
        return WeightedMid(NOT_THERE, 0, 0)
    spread = best.ask_px - best.bid_px
    if abs(spread) > WIDEST_SPREAD:
        return WeightedMid(TOLD, best.version, MID_PARTS * (best.bid_px + (spread >> 1)))
    bid_qty = best.bid_qty
    ask_qty = best.ask_qty
    most = LARGEST_PRODUCT // (MID_PARTS * max(abs(spread), 1))
    while bid_qty + ask_qty > most:
        bid_qty >>= 1
        ask_qty >>= 1
    away = MID_PARTS * spread * bid_qty // max(bid_qty + ask_qty, 1)
    return WeightedMid(TOLD, best.version, MID_PARTS * best.bid_px + away)


@njit(cache=True, error_model="numpy", _nrt=False)
def sweep_of(book, instrument, side, qty, valid_only):
    """What an order of `side` for `qty` (1 to SWEEP_QTY_MAX) would meet on the other side, at any price: a Sweep."""
    if not has_book(book, instrument):
        return Sweep(NOT_THERE, 0, 0, 0, 0, 0, 0, 0)
    if qty < 1 or qty > SWEEP_QTY_MAX:
        return Sweep(REFUSED_QTY, 0, 0, 0, 0, 0, 0, 0)
    for _ in range(TRIES):
        word = look(book, instrument)
        if word != CHANGING:
            start, count = side_vector(book, instrument, BUY + SELL - side)
            left = qty
            cost = 0
            worst = 0
            depth = 0
            while left > 0 and depth < min(count, SWEEP_LEVELS_MAX):
                px, there, _orders = level_behind(book, start, count, depth)
                taken = min(left, there)
                cost += px * taken
                left -= taken
                worst = px
                depth += 1
            valid = may_answer(book, instrument, valid_only)
            if look_again(book, instrument, word):
                if not valid:
                    return Sweep(NOT_VALID, 0, 0, 0, 0, 0, 0, 0)
                if left > 0 and depth < count:
                    return Sweep(TOO_LONG, 0, 0, 0, 0, 0, 0, 0)
                filled = qty - left
                parts = max(filled, 1)
                average = (cost + parts - 1 if side == BUY else cost) // parts
                return Sweep(TOLD, version_of(word), filled, left, cost, average, worst, depth)
        pause()
    return Sweep(TORN, 0, 0, 0, 0, 0, 0, 0)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def seek_order(book, ref):
    """A handle as find_order gives it, while others change the table: what it names has yet to prove itself. NOWHERE, TOO_FAR."""
    page = ref >> PAGE_SHIFT
    at = home_of(book.table, page)
    probes = 0
    number = np.int64(book.table[at].id)
    while number != 0 and book.table[at].page != page:
        probes += 1
        if probes == PROBES_MAX:
            return TOO_FAR
        at = (at + 1) & (book.table.shape[0] - 1)
        number = np.int64(book.table[at].id)
    if number >= book.pages.shape[0] or book.pages[number] != page:
        return NOWHERE
    slot = (number << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))
    handle = np.int64(book.handles[slot])
    if handle == 0 or handle >= book.orders.shape[0] or book.slots[handle] != slot:
        return NOWHERE
    return handle


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def level_of(book, instrument, handle):
    """The level that an order names, if it is one of this instrument's book, or NOWHERE."""
    order = book.orders[handle]
    side = np.int64(order.side)
    level = np.int64(order.level)
    if level >= book.levels.shape[0]:
        return NOWHERE
    start, count = side_vector(book, instrument, side)
    place = find_place(book.keys, start, start + count, price_key(side, np.int64(book.levels[level].px)))
    if place == start or np.int64(book.ids[place - 1]) != level:
        return NOWHERE
    return level


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ahead_of(book, instrument, word, level, handle):
    """(quantity, orders) ahead of an order of a level; 0 and NOWHERE where links do not join it to the level's first, or TOO_FAR."""
    ahead_qty = 0
    steps = 0
    behind = handle
    before = np.int64(book.orders[handle].prev)
    while before != NONE:
        if before >= book.orders.shape[0] or np.int64(book.orders[before].next) != behind:
            return 0, NOWHERE
        if steps == QUEUE_STEPS_MAX:
            return 0, TOO_FAR
        ahead_qty += np.int64(book.orders[before].qty)
        steps += 1
        if steps % STEPS_BETWEEN_LOOKS == 0 and not look_again(book, instrument, word):
            return 0, NOWHERE
        behind = before
        before = np.int64(book.orders[before].prev)
    if np.int64(book.levels[level].head) != behind:
        return 0, NOWHERE
    return ahead_qty, steps


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def read_queue(book, instrument, word, ref):
    """A Queue as it looks between two looks: NOT_THERE and TOO_LONG among what it tells."""
    handle = seek_order(book, ref)
    if handle == TOO_FAR:
        return Queue(TOO_LONG, 0, 0, 0, 0, 0, 0, 0, 0)
    level = level_of(book, instrument, handle) if handle != NOWHERE else NOWHERE
    if level == NOWHERE:
        return Queue(NOT_THERE, 0, 0, 0, 0, 0, 0, 0, 0)
    ahead_qty, ahead_orders = ahead_of(book, instrument, word, level, handle)
    if ahead_orders < 0:
        return Queue(TOO_LONG if ahead_orders == TOO_FAR else NOT_THERE, 0, 0, 0, 0, 0, 0, 0, 0)
    place = book.levels[level]
    side = np.int64(book.orders[handle].side)
    qty = np.int64(book.orders[handle].qty)
    px, level_qty, level_orders = np.int64(place.px), np.int64(place.qty), np.int64(place.orders)
    return Queue(TOLD, version_of(word), side, px, qty, ahead_qty, ahead_orders, level_qty, level_orders)


@njit(cache=True, _nrt=False)
def queue_of(book, instrument, ref, valid_only):
    """Where the order with the venue's reference `ref` stands: a Queue. It costs a cache miss for each order ahead."""
    if not has_book(book, instrument):
        return Queue(NOT_THERE, 0, 0, 0, 0, 0, 0, 0, 0)
    for _ in range(TRIES):
        word = look(book, instrument)
        # SYNC POINT (close_page): an entry that is moved while we look for it may be missed.
        table = load_acquire(book.counts, TABLE_VERSION)
        if word != CHANGING:
            answer = read_queue(book, instrument, word, ref)
            valid = may_answer(book, instrument, valid_only)
            if look_again(book, instrument, word):
                if answer.told != NOT_THERE or (table & 1 == 0 and load_acquire(book.counts, TABLE_VERSION) == table):
                    return answer if valid else Queue(NOT_VALID, 0, 0, 0, 0, 0, 0, 0, 0)
        pause()
    return Queue(TORN, 0, 0, 0, 0, 0, 0, 0, 0)
