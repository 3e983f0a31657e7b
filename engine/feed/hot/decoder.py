"""What decoding works on, and the window: messages read ahead so that the memory they will touch is in the cache when they apply.

    frame ─▶ read_frame ─────▶ fetch_handle ────▶ fetch_order ─────▶ fetch_neighbours ──▶ apply
             table line asked   handle line asked  order line asked   level, order before and after asked

Each step of a message needs what the one before asked for, so they are LOOK_AHEAD messages apart: without them each message waits for
memory three or four times over.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, PAGE_REFS, PAGE_SHIFT, Book, home_of, side_row
from engine.feed.itch import ABOUT_ORDER, ADD_ORDER, LENGTHS
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.wire.hot.bytes import get_u16, get_u64
from shm.atomics import prefetch

LOCATE = ADD_ORDER["locate"]
TIMESTAMP = ADD_ORDER["timestamp"]
# Every message about an order has its ref here, and an add its side.
REF = ADD_ORDER["ref"]
SIDE = ADD_ORDER["side"]

# A buffer offset known to be positive saves the compiler a test for each byte, and lets it merge eight of them into one load.
OFFSET_MASK = 0x7FFFFFFF

# Typed: it is handed to a kernel, which would be compiled once more for the literal.
LOOK_AHEAD = np.int64(6)
# A row of the window is a cache line: where the message is, its type, length, ref, home of its page in the table, handle.
WINDOW_ROWS = 32
ROW_WORDS = 8
AT = 0
CODE = 1
LENGTH = 2
ORDER_REF = 3
HOME = 4
HANDLE = 5

# The length in the window of a frame with nothing in it: no message has it.
EMPTY_FRAME = -1


class Decoder(NamedTuple):
    """book; tops and states (instruments,), market and stats (1,) records; counts by type (256,) and window (256,) int64 words."""

    book: Book
    tops: np.ndarray
    states: np.ndarray
    market: np.ndarray
    stats: np.ndarray
    counts: np.ndarray
    window: np.ndarray


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def read_frame(decoder, number, buffer, at, end):
    """Enter the message framed at `at` as the window's `number`, and return the offset after it; -1: it is not whole before `end`."""
    if end - at < LENGTH_BYTES:
        return -1
    at = at & OFFSET_MASK
    length = get_u16(buffer, at)
    after = at + LENGTH_BYTES + length
    if after > end:
        return -1
    at += LENGTH_BYTES
    code = np.int64(buffer[at]) if length > 0 else 0
    ref = 0
    book = decoder.book
    if ABOUT_ORDER[code] and LENGTHS[code] == length:
        ref = get_u64(buffer, at + REF)
        row = side_row(get_u16(buffer, at + LOCATE), 0)
        prefetch(book.sides, row if row < book.sides.shape[0] else 0)
    home = home_of(book.table, ref >> PAGE_SHIFT)
    prefetch(book.table, home)
    window = decoder.window
    row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
    window[row + AT] = at
    window[row + CODE] = code
    window[row + LENGTH] = length if length > 0 else EMPTY_FRAME
    window[row + ORDER_REF] = ref
    window[row + HOME] = home
    return after


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def handle_slot(book, window, row):
    """Where the handle of a row's ref would be, if its page stands at home. A guess, for prefetching."""
    number = np.int64(book.table[window[row + HOME]].id)
    return (number << PAGE_SHIFT) | (window[row + ORDER_REF] & (PAGE_REFS - 1))


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fetch_handle(decoder, number):
    row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
    prefetch(decoder.book.handles, handle_slot(decoder.book, decoder.window, row))


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fetch_order(decoder, number):
    row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
    handle = np.int64(decoder.book.handles[handle_slot(decoder.book, decoder.window, row)])
    decoder.window[row + HANDLE] = handle
    prefetch(decoder.book.orders, handle)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fetch_neighbours(decoder, number):
    """Handle 0, of a ref that is not live (yet), is a dead order without neighbours."""
    handle = decoder.window[(number & (WINDOW_ROWS - 1)) * ROW_WORDS + HANDLE]
    book = decoder.book
    order = book.orders[handle]
    prefetch(book.levels, np.int64(order.level))
    before = np.int64(order.prev)
    after = np.int64(order.next)
    prefetch(book.orders, before if before != NONE else handle)
    prefetch(book.orders, after if after != NONE else handle)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fetch_ahead(decoder, turn, ahead, read):
    """One turn of reading ahead: each step for the message that is as far from the next step's as the module's drawing says, of those
    `read` so far. The number of the message whose turn it is to apply; below 0 there is none yet."""
    number = turn - ahead
    if 0 <= number < read:
        fetch_handle(decoder, number)
    number -= ahead
    if 0 <= number < read:
        fetch_order(decoder, number)
    number -= ahead
    if 0 <= number < read:
        fetch_neighbours(decoder, number)
    return number - ahead


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def count_message(decoder, row):
    """Count the message in a row of the window. Whether it has the length that its type has: what does not is of no further use."""
    code = decoder.window[row + CODE]
    stats = decoder.stats[0]
    decoder.counts[code] += 1
    stats.messages += 1
    if LENGTHS[code] == decoder.window[row + LENGTH]:
        return True
    if LENGTHS[code] == 0:
        stats.unknown_types += 1
    else:
        stats.malformed += 1
    return False
