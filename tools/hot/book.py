"""The walk of `tickpath book`: every message applied to the book, and what changed written down as rows of int64 words.

The same walk as engine/feed/hot/replay.py, with tables behind it instead of nobody. The caller hands over no more bytes than there is
room for rows (one for every ROW_BYTES_MIN), so that no kernel has to look whether a table is full.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.book.hot.book import DUPLICATE, add_order, find_order, price_key, remove_order, side_row, worse_level
from engine.feed.hot.admin import DIRECTORY, TRADING_ACTION, apply_admin
from engine.feed.hot.decoder import (
    AT,
    CODE,
    LENGTH,
    LOCATE,
    LOOK_AHEAD,
    OFFSET_MASK,
    REF,
    ROW_WORDS,
    TIMESTAMP,
    WINDOW_ROWS,
    Decoder,
    count_message,
    fetch_ahead,
    read_frame,
)
from engine.feed.hot.orders import (
    ADD,
    ADD_MPID,
    ADD_SHARES,
    CANCEL,
    DELETE,
    EXECUTED,
    NEW_PX,
    NEW_REF,
    NEW_SHARES,
    REPLACE,
    TAKEN_SHARES,
    apply_order,
)
from engine.feed.itch import (
    ABOUT_ORDER,
    ADD_ORDER_MPID,
    BROKEN_TRADE,
    CROSS_TRADE,
    ORDER_EXECUTED_PRICE,
    STOCK_DIRECTORY,
    TRADE,
)
from engine.feed.itch import TRADING_ACTION as ACTION
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_raw64, get_u16, get_u32, get_u48, get_u64

PRINT = TRADE.code
CROSS = CROSS_TRADE.code
BROKEN = BROKEN_TRADE.code
SYMBOL = STOCK_DIRECTORY["stock"]
DIRECTORY_BYTES = STOCK_DIRECTORY.length
ATTRIBUTION = ADD_ORDER_MPID["attribution"]
EXECUTED_MATCH = ORDER_EXECUTED_PRICE["match"]
EXECUTED_PRINTABLE = ORDER_EXECUTED_PRICE["printable"]
EXECUTED_PX = ORDER_EXECUTED_PRICE["px"]
PRINT_SIDE = TRADE["side"]
PRINT_SHARES = TRADE["shares"]
PRINT_PX = TRADE["px"]
PRINT_MATCH = TRADE["match"]
CROSS_SHARES = CROSS_TRADE["shares"]
CROSS_PX = CROSS_TRADE["px"]
CROSS_MATCH = CROSS_TRADE["match"]
CROSS_TYPE = CROSS_TRADE["cross"]
BROKEN_MATCH = BROKEN_TRADE["match"]
ACTION_STATE = ACTION["state"]

# The tables: each is a bit of words[ASKED], and has its count of rows at ROWS + its number.
BBO = 0
TRADES = 1
DEPTH = 2
ORDERS = 3
LOBSTER = 4

# Words of Tape.words. LEVELS: how deep depth and LOBSTER look. ALL: rows of every instrument. SEQUENCE: messages applied so far.
# FROM_NS, TO_NS: LOBSTER rows of this part of the day, since midnight. RENAMING: the walk ended at a message that gives another symbol.
ASKED = 0
LEVELS = 1
ALL = 2
SEQUENCE = 3
FROM_NS = 4
TO_NS = 5
RENAMING = 6
ROWS = 8
TAPE_WORDS = 16

# The first words of every row, and how many there are in a row of each table; depth and LOBSTER have 4 more for each level.
ROW_TS = 0
ROW_SEQUENCE = 1
ROW_LOCATE = 2
ROW_HEAD = 3
BBO_WORDS = 8
TRADE_WORDS = 11
ORDER_WORDS = 11
LOBSTER_HEAD = 8
LEVEL_WORDS = 4

# The fewest bytes for which a row is written: a delete with its length has 21 and one row, a replace 37 and in LOBSTER two.
ROW_BYTES_MIN = 18

# LOBSTER's event types, and what its halts say instead of a price.
NEW_ORDER = 1
CANCELLED = 2
DELETED = 3
EXECUTED_VISIBLE = 4
EXECUTED_HIDDEN = 5
CROSSED = 6
HALT = 7
HALT_BEGINS = -1
HALT_QUOTING = 0
HALT_ENDS = 1
QUOTING_LETTER = ord("Q")
TRADING_LETTER = ord("T")
YES = ord("Y")


class Tape(NamedTuple):
    """What the walk works on. words (16,) int64 as above; chosen (instruments,) uint8: rows are written of it; symbols (n,) int64:
    packed symbols that are chosen when the directory names them; found (n,) uint8: it has; bests (instruments, 4) and depths
    (instruments, 4 x levels) int64: bid px, sz, ask px, sz as last written; a table of rows (capacity, words) int64 for each."""

    decoder: Decoder
    words: np.ndarray
    chosen: np.ndarray
    symbols: np.ndarray
    found: np.ndarray
    bests: np.ndarray
    depths: np.ndarray
    bbo: np.ndarray
    trades: np.ndarray
    depth: np.ndarray
    orders: np.ndarray
    lobster: np.ndarray


@njit(cache=True, nogil=True, _nrt=False)
def walk(tape, buffer, at, end):
    """Apply every whole message of buffer[at:end]; the offset of the first byte that is not of one, or of a message that gives an
    instrument another symbol (words[RENAMING]): what is written down so far has to be handed over under the one that it had."""
    decoder = tape.decoder
    read = 0
    turn = 0
    more = True
    while True:
        if more:
            after = read_frame(decoder, read, buffer, at, end)
            if after < 0:
                more = False
            else:
                read += 1
                at = after
        number = fetch_ahead(decoder, turn, LOOK_AHEAD, read)
        if number >= 0:
            if number >= read:
                return at
            row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
            if decoder.window[row + CODE] == DIRECTORY and renames(tape, row, buffer):
                return decoder.window[row + AT] - LENGTH_BYTES
            tell_message(tape, row, buffer)
        turn += 1


@njit(cache=True, _nrt=False)
def renames(tape, row, buffer):
    """Whether a directory message takes a symbol away from its locate code, said once: the next time it is applied."""
    decoder = tape.decoder
    if tape.words[RENAMING] != 0 or decoder.window[row + LENGTH] != DIRECTORY_BYTES:
        tape.words[RENAMING] = 0
        return False
    at = decoder.window[row + AT] & OFFSET_MASK
    had = np.int64(decoder.states[get_u16(buffer, at + LOCATE)].symbol)
    tape.words[RENAMING] = had != 0 and had != get_raw64(buffer, at + SYMBOL)
    return tape.words[RENAMING] != 0


@njit(cache=True, forceinline=True, _nrt=False)
def tell_message(tape, row, buffer):
    decoder = tape.decoder
    code = decoder.window[row + CODE]
    at = decoder.window[row + AT]
    tape.words[SEQUENCE] += 1
    if not count_message(decoder, row):
        return
    if ABOUT_ORDER[code]:
        tell_order(tape, buffer, at, code)
    else:
        tell_other(tape, buffer, at, code)


@njit(cache=True, forceinline=True, _nrt=False)
def new_row(tape, table, rows, buffer, at):
    """The next row of a table, its head filled."""
    row = tape.words[ROWS + table]
    tape.words[ROWS + table] = row + 1
    rows[row, ROW_TS] = get_u48(buffer, at + TIMESTAMP)
    rows[row, ROW_SEQUENCE] = tape.words[SEQUENCE]
    rows[row, ROW_LOCATE] = get_u16(buffer, at + LOCATE)
    return row


@njit(cache=True, forceinline=True, _nrt=False)
def tell_order(tape, buffer, at, code):
    """A message about an order: to the book, and to the tables of its instrument."""
    at = at & OFFSET_MASK
    words = tape.words
    locate = get_u16(buffer, at + LOCATE)
    asked = words[ASKED] if words[ALL] | np.int64(tape.chosen[locate]) else 0
    before = 0
    if asked & (1 << ORDERS | 1 << LOBSTER):
        handle = find_order(tape.decoder.book, get_u64(buffer, at + REF))
        before = np.int64(tape.decoder.book.orders[handle].qty) if handle >= 0 else 0
        if asked & (1 << LOBSTER) and code == REPLACE and tell_replace(tape, buffer, at, locate, handle, before):
            return
    _, _, side, px, new_px, traded = apply_order(tape.decoder, buffer, at, code)
    if asked == 0 or (px == 0 and new_px == 0):
        return
    if asked & (1 << BBO):
        tell_best(tape, buffer, at, locate, side, px, new_px)
    if asked & (1 << TRADES) and traded > 0:
        tell_execution(tape, buffer, at, code, side, px, traded)
    if asked & (1 << DEPTH) and look_deep(tape, locate, side, px, new_px):
        tell_depth(tape, buffer, at, locate)
    if asked & (1 << ORDERS):
        tell_event(tape, buffer, at, code, side, px, new_px, before)
    if asked & (1 << LOBSTER):
        tell_lobster(tape, buffer, at, code, locate, side, px, new_px, before)


@njit(cache=True, forceinline=True, _nrt=False)
def tell_best(tape, buffer, at, locate, side, px, new_px):
    """A row if the best price of a side, or what rests at it, is no longer what the last row said."""
    book = tape.decoder.book
    row = side_row(locate, side)
    count = np.int64(book.sides[row].count)
    best_px = 0
    best_sz = 0
    if count > 0:
        place = np.int64(book.sides[row].start) + count - 1
        key = book.keys[place]
        # Behind the best as it is now, it was behind the best before: most messages end here, with one line touched.
        if (px == 0 or price_key(side, px) < key) and (new_px == 0 or price_key(side, new_px) < key):
            return
        level = np.int64(book.ids[place])
        best_px = np.int64(book.levels[level].px)
        best_sz = np.int64(book.levels[level].qty)
    first = 2 * (side & 1)
    bests = tape.bests
    if bests[locate, first] == best_px and bests[locate, first + 1] == best_sz:
        return
    bests[locate, first] = best_px
    bests[locate, first + 1] = best_sz
    rows = tape.bbo
    row = new_row(tape, BBO, rows, buffer, at)
    for word in range(LEVEL_WORDS):
        rows[row, ROW_HEAD + word] = bests[locate, word]


@njit(cache=True, _nrt=False)
def tell_execution(tape, buffer, at, code, side, px, traded):
    rows = tape.trades
    row = new_row(tape, TRADES, rows, buffer, at)
    rows[row, 3] = code
    rows[row, 4] = side
    rows[row, 5] = px if code == EXECUTED else get_u32(buffer, at + EXECUTED_PX)
    rows[row, 6] = traded
    rows[row, 7] = get_u64(buffer, at + REF)
    rows[row, 8] = get_u64(buffer, at + EXECUTED_MATCH)
    rows[row, 9] = 1 if code == EXECUTED or buffer[at + EXECUTED_PRINTABLE] == YES else 0
    rows[row, 10] = 0


@njit(cache=True, _nrt=False)
def tell_print(tape, buffer, at, code):
    """A trade that no order of the book took part in: P, Q, or B, which takes one back."""
    rows = tape.trades
    row = new_row(tape, TRADES, rows, buffer, at)
    for word in range(ROW_HEAD, TRADE_WORDS):
        rows[row, word] = 0
    rows[row, 3] = code
    if code == PRINT:
        rows[row, 4] = buffer[at + PRINT_SIDE]
        rows[row, 5] = get_u32(buffer, at + PRINT_PX)
        rows[row, 6] = get_u32(buffer, at + PRINT_SHARES)
        rows[row, 7] = get_u64(buffer, at + REF)
        rows[row, 8] = get_u64(buffer, at + PRINT_MATCH)
        rows[row, 9] = 1
    elif code == CROSS:
        rows[row, 5] = get_u32(buffer, at + CROSS_PX)
        rows[row, 6] = get_u64(buffer, at + CROSS_SHARES)
        rows[row, 8] = get_u64(buffer, at + CROSS_MATCH)
        rows[row, 9] = 1
        rows[row, 10] = buffer[at + CROSS_TYPE]
    else:
        rows[row, 8] = get_u64(buffer, at + BROKEN_MATCH)


@njit(cache=True, _nrt=False)
def tell_event(tape, buffer, at, code, side, px, new_px, before):
    """An order came, changed or went. `before` is what was left of it."""
    rows = tape.orders
    row = new_row(tape, ORDERS, rows, buffer, at)
    rows[row, 3] = code
    rows[row, 4] = side
    rows[row, 5] = get_u64(buffer, at + REF)
    rows[row, 6] = get_u64(buffer, at + NEW_REF) if code == REPLACE else 0
    rows[row, 7] = new_px if new_px != 0 else px
    rows[row, 10] = get_u32(buffer, at + ATTRIBUTION) if code == ADD_MPID else 0
    size = before
    left = 0
    if code in (ADD, ADD_MPID):
        size = get_u32(buffer, at + ADD_SHARES)
        left = size
    elif code == REPLACE:
        size = get_u32(buffer, at + NEW_SHARES)
        left = size
    elif code != DELETE:
        size = min(before, get_u32(buffer, at + TAKEN_SHARES))
        left = before - size
    rows[row, 8] = size
    rows[row, 9] = left


@njit(cache=True, _nrt=False)
def look_deep(tape, locate, side, px, new_px):
    """Bring tape.depths up to date with a side of the book in which px and new_px changed (0: none): whether anything in it is new."""
    book = tape.decoder.book
    levels = tape.words[LEVELS]
    record = book.sides[side_row(locate, side)]
    count = np.int64(record.count)
    if count >= levels:
        key = book.keys[np.int64(record.start) + count - levels]
        if (px == 0 or price_key(side, px) < key) and (new_px == 0 or price_key(side, new_px) < key):
            return False
    depths = tape.depths
    changed = False
    for step in range(levels):
        level = worse_level(book, locate, side, step)
        level_px = np.int64(book.levels[level].px) if level >= 0 else 0
        level_sz = np.int64(book.levels[level].qty) if level >= 0 else 0
        word = LEVEL_WORDS * step + 2 * (side & 1)
        if depths[locate, word] != level_px or depths[locate, word + 1] != level_sz:
            depths[locate, word] = level_px
            depths[locate, word + 1] = level_sz
            changed = True
    return changed


@njit(cache=True, _nrt=False)
def tell_depth(tape, buffer, at, locate):
    rows = tape.depth
    row = new_row(tape, DEPTH, rows, buffer, at)
    for word in range(LEVEL_WORDS * tape.words[LEVELS]):
        rows[row, ROW_HEAD + word] = tape.depths[locate, word]


@njit(cache=True, _nrt=False)
def tell_lobster(tape, buffer, at, code, locate, side, px, new_px, before):
    event = DELETED
    ref = get_u64(buffer, at + REF)
    size = before
    told_px = px
    if code in (ADD, ADD_MPID):
        event = NEW_ORDER
        size = get_u32(buffer, at + ADD_SHARES)
        told_px = new_px
    elif code != DELETE:
        size = min(before, get_u32(buffer, at + TAKEN_SHARES))
        if code != CANCEL:
            event = EXECUTED_VISIBLE
            told_px = px if code == EXECUTED else get_u32(buffer, at + EXECUTED_PX)
        elif size < before:
            event = CANCELLED
    if look_deep(tape, locate, side, px, new_px):
        note_lobster(tape, buffer, at, locate, event, ref, size, told_px, side)


@njit(cache=True, _nrt=False)
def tell_replace(tape, buffer, at, locate, handle, before):
    """LOBSTER has no replace: a deletion and a new order, each with its own book. False: it is no proper one, and nothing was done."""
    book = tape.decoder.book
    shares = get_u32(buffer, at + NEW_SHARES)
    new_px = get_u32(buffer, at + NEW_PX)
    if handle < 0 or book.orders[handle].instrument != locate or shares == 0 or new_px == 0:
        return False
    side = np.int64(book.orders[handle].side)
    px = np.int64(book.levels[book.orders[handle].level].px)
    remove_order(book, handle)
    if look_deep(tape, locate, side, px, 0):
        note_lobster(tape, buffer, at, locate, DELETED, get_u64(buffer, at + REF), before, px, side)
    new_ref = get_u64(buffer, at + NEW_REF)
    added = add_order(book, new_ref, locate, side, new_px, shares)
    if added >= 0:
        if look_deep(tape, locate, side, new_px, 0):
            note_lobster(tape, buffer, at, locate, NEW_ORDER, new_ref, shares, new_px, side)
    elif added == DUPLICATE:
        tape.decoder.stats[0].duplicate_orders += 1
    else:
        tape.decoder.stats[0].capacity_drops += 1
    return True


@njit(cache=True, _nrt=False)
def note_lobster(tape, buffer, at, locate, event, ref, size, px, side):
    """A row of both LOBSTER files, if it lies in the part of the day asked for."""
    words = tape.words
    if words[FROM_NS] <= get_u48(buffer, at + TIMESTAMP) < words[TO_NS]:
        rows = tape.lobster
        row = new_row(tape, LOBSTER, rows, buffer, at)
        rows[row, 3] = event
        rows[row, 4] = ref
        rows[row, 5] = size
        rows[row, 6] = px
        rows[row, 7] = 1 if side == BUY else -1
        for word in range(LEVEL_WORDS * words[LEVELS]):
            rows[row, LOBSTER_HEAD + word] = tape.depths[locate, word]


@njit(cache=True, _nrt=False)
def tell_other(tape, buffer, at, code):
    """A message about no order: who trades under which locate code, trades beside the book, halts."""
    at = at & OFFSET_MASK
    decoder = tape.decoder
    locate = get_u16(buffer, at + LOCATE)
    apply_admin(decoder.tops, decoder.states, decoder.market, decoder.stats, buffer, at, code)
    if code == DIRECTORY:
        choose(tape, locate, get_raw64(buffer, at + SYMBOL))
        return
    asked = tape.words[ASKED] if tape.words[ALL] | np.int64(tape.chosen[locate]) else 0
    if asked & (1 << TRADES) and code in (PRINT, CROSS, BROKEN):
        tell_print(tape, buffer, at, code)
    if asked & (1 << LOBSTER):
        tell_lobster_notice(tape, buffer, at, code, locate)


@njit(cache=True, _nrt=False)
def tell_lobster_notice(tape, buffer, at, code, locate):
    """What changes no level and is in LOBSTER's files all the same; where ITCH names no side, theirs says -1."""
    if code == PRINT:
        side = np.int64(buffer[at + PRINT_SIDE])
        note_lobster(tape, buffer, at, locate, EXECUTED_HIDDEN, 0, get_u32(buffer, at + PRINT_SHARES), get_u32(buffer, at + PRINT_PX), side)
    elif code == CROSS:
        note_lobster(tape, buffer, at, locate, CROSSED, 0, get_u64(buffer, at + CROSS_SHARES), get_u32(buffer, at + CROSS_PX), SELL)
    elif code == TRADING_ACTION:
        state = buffer[at + ACTION_STATE]
        said = HALT_BEGINS
        if state == TRADING_LETTER:
            said = HALT_ENDS
        elif state == QUOTING_LETTER:
            said = HALT_QUOTING
        note_lobster(tape, buffer, at, locate, HALT, 0, 0, said, SELL)


@njit(cache=True, _nrt=False)
def choose(tape, locate, symbol):
    """An instrument is told of from the moment that the directory gives it a symbol that was asked for."""
    tape.chosen[locate] = 0
    for number in range(tape.symbols.shape[0]):
        if tape.symbols[number] == symbol:
            tape.chosen[locate] = 1
            tape.found[number] = 1
