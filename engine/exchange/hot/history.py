"""History as flow: the messages of a real ITCH day, applied to the book in which our clients' orders stand.

History's orders join under their own refs, and what happens to them is published as history told it, under history's times and match
numbers. Its executions become the aggressive orders that they imply:

    history: q shares of order X are executed
      1. client orders that come before X (a better price, or the same and earlier) trade first, each at its own price
      2. X executes what is left of q
      3. what a client took is cancelled from X, for X loses q shares whatever happens

so the book without our clients' orders is always history's. The exception is what our clients' own aggressive orders took away: what
history then says of those shares cannot happen any more. It is clamped to what is there, and counted as diverged.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import DUPLICATE, NO_ROOM, NOT_FOUND, find_order, side_row
from engine.exchange.hot.core import other_side
from engine.exchange.hot.listing import list_symbol
from engine.exchange.hot.market import LENGTHS, publish_cancel, publish_copy, publish_delete, publish_executed, publish_executed_at
from engine.exchange.hot.matching import match, move, submit, take
from engine.exchange.hot.state import NO, NO_OWNER, NOTHING, NOW_NS, YES
from engine.feed.itch import (
    ADD_ORDER,
    ADD_ORDER_MPID,
    ORDER_CANCEL,
    ORDER_DELETE,
    ORDER_EXECUTED,
    ORDER_EXECUTED_PRICE,
    ORDER_REPLACE,
    STOCK_DIRECTORY,
    TRADING_ACTION,
)
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_raw64, get_u16, get_u32, get_u48, get_u64

LOCATE, TRACKING, TIMESTAMP = ADD_ORDER["locate"], ADD_ORDER["tracking"], ADD_ORDER["timestamp"]
HEADER_BYTES = TIMESTAMP + 6

ADD_CODE, ADD_MPID_CODE = ADD_ORDER.code, ADD_ORDER_MPID.code
ADD_SIDE, ADD_SHARES, ADD_STOCK, ADD_PX = ADD_ORDER["side"], ADD_ORDER["shares"], ADD_ORDER["stock"], ADD_ORDER["px"]
ADD_ATTRIBUTION = ADD_ORDER_MPID["attribution"]
# Every message about an order begins with its ref.
REF = ADD_ORDER["ref"]

EXECUTED_CODE, EXECUTED_SHARES, EXECUTED_MATCH = ORDER_EXECUTED.code, ORDER_EXECUTED["shares"], ORDER_EXECUTED["match"]
PRICED_CODE = ORDER_EXECUTED_PRICE.code
PRICED_PRINTABLE, PRICED_PX = ORDER_EXECUTED_PRICE["printable"], ORDER_EXECUTED_PRICE["px"]
CANCEL_CODE, CANCEL_SHARES = ORDER_CANCEL.code, ORDER_CANCEL["shares"]
DELETE_CODE = ORDER_DELETE.code
REPLACE_CODE, REPLACE_NEW_REF = ORDER_REPLACE.code, ORDER_REPLACE["new_ref"]
REPLACE_SHARES, REPLACE_PX = ORDER_REPLACE["shares"], ORDER_REPLACE["px"]
DIRECTORY_CODE, DIRECTORY_STOCK = STOCK_DIRECTORY.code, STOCK_DIRECTORY["stock"]
ACTION_CODE, ACTION_STATE = TRADING_ACTION.code, TRADING_ACTION["state"]


@njit(cache=True, _nrt=False)
def is_whole(source, at, length):
    """Whether there is an ITCH message of `length` bytes at source[at:]: a known type, with that type's length."""
    return length > 0 and LENGTHS[source[at]] == length


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def timestamp_of(source, at):
    return get_u48(source, at + TIMESTAMP)


@njit(cache=True, inline="always", _nrt=False)
def apply_history(venue, source, at, length):
    """Apply the ITCH message at source[at:], which is whole; the venue's time is its timestamp."""
    code = source[at]
    venue.words[NOW_NS] = max(venue.words[NOW_NS], timestamp_of(source, at))
    if code in (ADD_CODE, ADD_MPID_CODE):
        on_add(venue, source, at)
    elif code in (DELETE_CODE, CANCEL_CODE, EXECUTED_CODE, PRICED_CODE, REPLACE_CODE):
        on_order(venue, source, at)
    else:
        if code == DIRECTORY_CODE:
            list_symbol(venue.listing, get_u16(source, at + LOCATE), get_raw64(source, at + DIRECTORY_STOCK))
        elif code == ACTION_CODE:
            venue.listing.states[get_u16(source, at + LOCATE)] = source[at + ACTION_STATE]
        publish_copy(venue.market, source, at, length)
    venue.stats[0].replayed += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def count_refusal(stats, handle):
    """An order of history's that the book did not take: its ref is live already, it has no quantity, or there is no room."""
    if handle == NO_ROOM:
        stats[0].capacity_drops += 1
    elif handle < 0:
        stats[0].diverged += 1


@njit(cache=True, inline="always", _nrt=False)
def on_add(venue, source, at):
    instrument = get_u16(source, at + LOCATE)
    list_symbol(venue.listing, instrument, get_raw64(source, at + ADD_STOCK))
    ref = get_u64(source, at + REF)
    side = np.int64(source[at + ADD_SIDE])
    qty = get_u32(source, at + ADD_SHARES)
    px = get_u32(source, at + ADD_PX)
    if (side != BUY and side != SELL) or qty == 0:
        venue.stats[0].malformed += 1
        return
    if find_order(venue.book, ref) != NOT_FOUND:
        count_refusal(venue.stats, np.int64(DUPLICATE))
        return
    attribution = NOTHING
    if source[at] == ADD_MPID_CODE:
        attribution = get_u32(source, at + ADD_ATTRIBUTION)
    tracking = get_u16(source, at + TRACKING)
    handle = submit(venue, ref, instrument, side, px, qty, NO, NO_OWNER, NOTHING, NOTHING, NOTHING, YES, tracking, attribution)
    count_refusal(venue.stats, handle)


@njit(cache=True, inline="always", _nrt=False)
def on_order(venue, source, at):
    """What happens to one of history's orders, if it is still there."""
    code = source[at]
    ref = get_u64(source, at + REF)
    handle = find_order(venue.book, ref)
    if handle == NOT_FOUND or venue.book.orders[handle].owner != NO_OWNER:
        venue.stats[0].diverged += 1
        return
    now_ns = venue.words[NOW_NS]
    instrument = np.int64(venue.book.orders[handle].instrument)
    tracking = get_u16(source, at + TRACKING)
    if code == DELETE_CODE:
        publish_delete(venue.market, now_ns, instrument, ref, tracking)
        take(venue.book, handle, np.int64(venue.book.orders[handle].qty))
    elif code == CANCEL_CODE:
        cancel_shares(venue, handle, ref, get_u32(source, at + CANCEL_SHARES), tracking)
    elif code == REPLACE_CODE:
        on_replace(venue, source, at, handle, ref, tracking)
    else:
        on_executed(venue, source, at, handle, ref, tracking)


@njit(cache=True, _nrt=False)
def clamped(venue, handle, qty):
    """As much of `qty` as the order has; counted as diverged where that is less."""
    there = np.int64(venue.book.orders[handle].qty)
    if qty > there:
        venue.stats[0].diverged += 1
    return min(qty, there)


@njit(cache=True, inline="always", _nrt=False)
def cancel_shares(venue, handle, ref, qty, tracking):
    qty = clamped(venue, handle, qty)
    if qty > 0:
        instrument = np.int64(venue.book.orders[handle].instrument)
        publish_cancel(venue.market, venue.words[NOW_NS], instrument, ref, qty, tracking)
        take(venue.book, handle, qty)


@njit(cache=True, inline="always", _nrt=False)
def on_replace(venue, source, at, handle, ref, tracking):
    """The new order is smaller by what our clients took from the old one: that many shares are really gone."""
    taken = np.int64(venue.book.orders[handle].executed)
    qty = get_u32(source, at + REPLACE_SHARES) - taken
    px = get_u32(source, at + REPLACE_PX)
    new_ref = get_u64(source, at + REPLACE_NEW_REF)
    if taken != 0 or new_ref == ref or find_order(venue.book, new_ref) != NOT_FOUND:
        venue.stats[0].diverged += 1
    if qty <= 0:
        instrument = np.int64(venue.book.orders[handle].instrument)
        publish_delete(venue.market, venue.words[NOW_NS], instrument, ref, tracking)
        take(venue.book, handle, np.int64(venue.book.orders[handle].qty))
        return
    handle = move(venue, handle, new_ref, px, qty, NO, NOTHING, taken, YES, tracking)
    if handle == NO_ROOM:
        venue.stats[0].capacity_drops += 1


@njit(cache=True, inline="always", _nrt=False)
def on_executed(venue, source, at, handle, ref, tracking):
    shares = get_u32(source, at + EXECUTED_SHARES)
    order = venue.book.orders[handle]
    instrument = np.int64(order.instrument)
    side = np.int64(order.side)
    ours = 0
    if venue.listing.resting[side_row(instrument, side)] != 0:
        px = np.int64(venue.book.levels[order.level].px)
        ours = shares - match(venue, instrument, other_side(side), px, shares, NO_OWNER, NOTHING, YES, handle)
    theirs = clamped(venue, handle, shares - ours)
    if theirs > 0:
        number = get_u64(source, at + EXECUTED_MATCH)
        now_ns = venue.words[NOW_NS]
        if source[at] == PRICED_CODE:
            px = get_u32(source, at + PRICED_PX)
            publish_executed_at(venue.market, now_ns, instrument, ref, theirs, number, tracking, source[at + PRICED_PRINTABLE], px)
        else:
            publish_executed(venue.market, now_ns, instrument, ref, theirs, number, tracking)
        venue.stats[0].executions += 1
        left = take(venue.book, handle, theirs)
    else:
        left = np.int64(order.qty)
    if ours > 0 and left > 0:
        cancel_client_share(venue, handle, ref, instrument, ours)
    elif ours > 0:
        venue.stats[0].diverged += 1


@njit(cache=True, inline="always", _nrt=False)
def cancel_client_share(venue, handle, ref, instrument, qty):
    """Take off one of history's orders what our clients' orders executed in its stead."""
    qty = clamped(venue, handle, qty)
    if take(venue.book, handle, qty) == 0:
        publish_delete(venue.market, venue.words[NOW_NS], instrument, ref, NOTHING)
    else:
        publish_cancel(venue.market, venue.words[NOW_NS], instrument, ref, qty, NOTHING)
