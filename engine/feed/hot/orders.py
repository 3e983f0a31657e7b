"""The messages about orders (A F E C X D U), applied to the book."""

import numpy as np
from numba import njit

from engine.book.hot import DUPLICATE, PAGE_REFS, PAGE_SHIFT, add_order, find_entry, keep_order, remove_found
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
    the quantity executed. A message that makes no sense (no shares, no price, no side) is counted malformed and ignored, one about
    an order that is not live in its instrument counted in unknown_orders.
    """
    at = at & OFFSET_MASK
    book = decoder.book
    stats = decoder.stats[0]
    instrument = get_u16(buffer, at + LOCATE)
    ref = get_u64(buffer, at + REF)
    px = 0
    if code in (ADD, ADD_MPID):
        side = np.int64(buffer[at + SIDE])
        shares = get_u32(buffer, at + ADD_SHARES)
        new_px = get_u32(buffer, at + ADD_PX)
        if (side != BUY and side != SELL) or shares == 0 or new_px == 0:
            stats.malformed += 1
            return NOTHING, 0, 0, 0, 0, 0
    else:
        entry = find_entry(book.table, ref >> PAGE_SHIFT)
        slot = (np.int64(book.table[entry].id) << PAGE_SHIFT) | (ref & (PAGE_REFS - 1))
        handle = np.int64(book.handles[slot])
        order = book.orders[handle]
        if handle == 0 or order.instrument != instrument:
            stats.unknown_orders += 1
            return NOTHING, 0, 0, 0, 0, 0
        side = np.int64(order.side)
        px = np.int64(book.levels[order.level].px)
        left = 0
        taken = 0
        shares = 0
        new_px = 0
        if code == REPLACE:
            ref = get_u64(buffer, at + NEW_REF)
            shares = get_u32(buffer, at + NEW_SHARES)
            new_px = get_u32(buffer, at + NEW_PX)
            if shares == 0 or new_px == 0:
                stats.malformed += 1
                return NOTHING, 0, 0, 0, 0, 0
        elif code != DELETE:
            taken = get_u32(buffer, at + TAKEN_SHARES)
            left = np.int64(order.qty) - taken
            if taken == 0 or left < 0:
                # More than there is takes what there is: the book cannot owe.
                stats.malformed += 1
                if taken == 0:
                    return NOTHING, 0, 0, 0, 0, 0
        if left > 0:
            keep_order(book, handle, left)
        else:
            remove_found(book, handle, entry, slot)
        if code != REPLACE:
            return CHANGED, instrument, side, px, 0, taken if code != CANCEL else 0
    added = add_order(book, ref, instrument, side, new_px, shares)
    if added >= 0:
        return CHANGED, instrument, side, px, new_px, 0
    if added == DUPLICATE:
        stats.duplicate_orders += 1
        return CHANGED if px else NOTHING, instrument, side, px, 0, 0
    stats.capacity_drops += 1
    if instrument < decoder.tops.shape[0]:
        decoder.tops[instrument].overflow = 1
        return OVERFLOWED, instrument, side, px, 0, 0
    return NOTHING, 0, 0, 0, 0, 0
