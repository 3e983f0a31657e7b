"""The messages about orders (A F E C X D U), applied to the book."""

import numpy as np
from numba import njit

from engine.book.hot.book import (
    DUPLICATE,
    PAGE_REFS,
    PAGE_SHIFT,
    add_order,
    close_book,
    find_entry,
    keep_order,
    open_book,
    remove_found,
    side_row,
)
from engine.feed.hot.decoder import LOCATE, OFFSET_MASK, REF, SIDE
from engine.feed.itch import ADD_ORDER, ADD_ORDER_MPID, ORDER_CANCEL, ORDER_DELETE, ORDER_EXECUTED, ORDER_EXECUTED_PRICE, ORDER_REPLACE
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_u16, get_u32, get_u64

ADD = ADD_ORDER.code
ADD_MPID = ADD_ORDER_MPID.code
EXECUTED = ORDER_EXECUTED.code
EXECUTED_PRICE = ORDER_EXECUTED_PRICE.code
CANCEL = ORDER_CANCEL.code
DELETE = ORDER_DELETE.code
REPLACE = ORDER_REPLACE.code

ADD_SHARES = ADD_ORDER["shares"]
ADD_PX = ADD_ORDER["px"]
# Executions and cancels alike.
TAKEN_SHARES = ORDER_EXECUTED["shares"]
NEW_REF = ORDER_REPLACE["new_ref"]
NEW_SHARES = ORDER_REPLACE["shares"]
NEW_PX = ORDER_REPLACE["px"]

# What a message did to the book. OVERFLOWED: its order found no room, and the instrument's book is wrong from here on. DIVERGED: it
# does not fit the book, so one of the two is wrong.
NOTHING = 0
CHANGED = 1
OVERFLOWED = 2
DIVERGED = 3


@njit(cache=True, forceinline=True, _nrt=False)
def apply_order(decoder, buffer, at, code):
    """Apply a message about an order, of the right length: (what it did, instrument, side, px, new_px, traded).

    px and new_px are the levels that changed, 0 for none: px that of the order there was, new_px that of the order added. traded is
    the quantity executed. NOTHING (counted in capacity_drops) is only for an instrument that there are no books for; otherwise
    instrument and side may be used whatever was done. DIVERGED is counted by what was wrong:

        unknown_orders    the order is not live, or not of that instrument
        duplicate_orders  the order to add is live already; where it was to replace another, that one is gone
        malformed         no shares, no price, no side; or more executed or cancelled than there was, and then all of it is gone
    """
    at = at & OFFSET_MASK
    instrument = get_u16(buffer, at + LOCATE)
    if instrument >= decoder.tops.shape[0]:
        decoder.stats[0].capacity_drops += 1
        return NOTHING, 0, 0, 0, 0, 0
    open_book(decoder.book, instrument)
    did, side, px, new_px, traded = change_book(decoder, buffer, at, code, instrument)
    if did >= OVERFLOWED:
        # Nobody may find this book valid in the moment until it is told why it is not.
        decoder.book.sides[side_row(instrument, SELL)].mark = 0
    close_book(decoder.book, instrument)
    return did, instrument, side, px, new_px, traded


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def change_book(decoder, buffer, at, code, instrument):
    """(what it did, side, px, new_px, traded) as apply_order says."""
    book = decoder.book
    stats = decoder.stats[0]
    ref = get_u64(buffer, at + REF)
    px = 0
    traded = 0
    did = CHANGED
    if code in (ADD, ADD_MPID):
        side = np.int64(buffer[at + SIDE])
        shares = get_u32(buffer, at + ADD_SHARES)
        new_px = get_u32(buffer, at + ADD_PX)
        if (side != BUY and side != SELL) or shares == 0 or new_px == 0:
            stats.malformed += 1
            return DIVERGED, BUY, 0, 0, 0
    else:
        entry = find_entry(book.table, ref >> PAGE_SHIFT)
        slot = (np.int64(book.table[entry].id) << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))
        handle = np.int64(book.handles[slot])
        order = book.orders[handle]
        if handle == 0 or order.instrument != instrument:
            stats.unknown_orders += 1
            return DIVERGED, BUY, 0, 0, 0
        side = np.int64(order.side)
        px = np.int64(book.levels[order.level].px)
        left = 0
        shares = 0
        new_px = 0
        if code == REPLACE:
            ref = get_u64(buffer, at + NEW_REF)
            shares = get_u32(buffer, at + NEW_SHARES)
            new_px = get_u32(buffer, at + NEW_PX)
            if shares == 0 or new_px == 0:
                stats.malformed += 1
                return DIVERGED, side, 0, 0, 0
        elif code != DELETE:
            taken = get_u32(buffer, at + TAKEN_SHARES)
            left = np.int64(order.qty) - taken
            if taken == 0 or left < 0:
                stats.malformed += 1
                did = DIVERGED
                if taken == 0:
                    return DIVERGED, side, 0, 0, 0
            traded = taken if code != CANCEL else 0
        if left > 0:
            keep_order(book, handle, left)
        else:
            remove_found(book, handle, entry, slot)
        if code != REPLACE:
            return did, side, px, 0, traded
    added = add_order(book, ref, instrument, side, new_px, shares)
    if added >= 0:
        return CHANGED, side, px, new_px, 0
    if added == DUPLICATE:
        stats.duplicate_orders += 1
        return DIVERGED, side, px, 0, 0
    stats.capacity_drops += 1
    decoder.tops[instrument].overflow = 1
    return OVERFLOWED, side, px, 0, 0
