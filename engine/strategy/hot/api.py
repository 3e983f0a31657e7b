"""What a handler may call: orders out, and questions about an instrument. engine/strategy/api.py is the trader's view of it.

An order leaves only while the instance trades, the venue's session is up and the instrument's book is valid; a cancel always may.
What does not leave returns 0 and is counted: refused_phase, refused_invalid, refused_full. Ids grow by one from 1.
"""

import numpy as np
from numba import njit

from engine.layout import BOOK_VALID, BUY, MSG_CANCEL, MSG_NEW, MSG_REPLACE, PHASE_TRADING, SELL, TIF_DAY
from engine.messages.hot.stamp import age_at, now_tsc
from engine.strategy.hot.state import (
    FIRST_ORDER_TSC,
    LAST_ID,
    NOW_NS,
    NOWHERE,
    ORIGIN_TSC,
    PHASE,
    RECONCILED,
    SENT_TSC,
    SESSION_UP,
    TS_NS,
)
from shm.atomics import load_acquire, store_release
from shm.hot import FULL, claim, commit


@njit(cache=True, forceinline=True, _nrt=False)
def buy(ctx, instrument, px, qty, tif=TIF_DAY):
    """Bid for `qty` at `px`. The order's id, or 0 if it did not leave."""
    return new_order(ctx, instrument, BUY, whole_px(px), whole_qty(qty), tif)


@njit(cache=True, forceinline=True, _nrt=False)
def sell(ctx, instrument, px, qty, tif=TIF_DAY):
    """Offer `qty` at `px`. The order's id, or 0 if it did not leave."""
    return new_order(ctx, instrument, SELL, whole_px(px), whole_qty(qty), tif)


@njit(cache=True, forceinline=True, _nrt=False)
def replace(ctx, instrument, order_id, px, qty):
    """Put an order at `px` with `qty` open in its place. The id it will have, or 0 if the request did not leave."""
    return replace_order(ctx, instrument, whole_id(order_id), whole_px(px), whole_qty(qty))


@njit(cache=True, forceinline=True, _nrt=False)
def cancel(ctx, instrument, order_id):
    """Take an order off the book. True if the request left; False on a full ring, or for order 0."""
    return cancel_order(ctx, instrument, whole_id(order_id))


@njit(cache=True, forceinline=True, _nrt=False)
def position(ctx, instrument):
    """What we hold: bought less sold in the venue's session, from executions. It begins with what the gateway has reconciled."""
    place = place_at(ctx.place_of, instrument)
    if place == NOWHERE:
        return 0
    return int(ctx.places[place].position)


@njit(cache=True, forceinline=True, _nrt=False)
def tick_px(ctx, instrument):
    """The smallest price step."""
    place = place_at(ctx.place_of, instrument)
    if place == NOWHERE:
        return 1
    return int(ctx.places[place].tick_px)


@njit(cache=True, forceinline=True, _nrt=False)
def lot_qty(ctx, instrument):
    """The round lot."""
    place = place_at(ctx.place_of, instrument)
    if place == NOWHERE:
        return 1
    return int(ctx.places[place].lot_qty)


@njit(cache=True, forceinline=True, _nrt=False)
def is_valid(ctx, instrument):
    """Whether the book may be acted on: not stale, gapped, crossed, halted or closed."""
    place = place_at(ctx.place_of, instrument)
    return place != NOWHERE and ctx.places[place]["flags"] == BOOK_VALID


@njit(cache=True, forceinline=True, _nrt=False)
def now_ns(ctx):
    """When the event being handled reached this machine, in nanoseconds since the epoch. It never goes back."""
    return int(ctx.words[NOW_NS])


# A price, a quantity and an id are whole numbers: `| 0` changes none, and numba (like Python) has no such operation for a float,
# so a handler that passes one does not compile. engine/strategy/explain.py knows these three by name.
@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def whole_px(px):
    return px | 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def whole_qty(qty):
    return qty | 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def whole_id(order_id):
    return order_id | 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def place_at(place_of, instrument):
    """An instrument's place, whatever number a handler came up with."""
    if instrument < 0 or instrument >= place_of.shape[0]:
        return NOWHERE
    return int(place_of[instrument])


@njit(cache=True, forceinline=False, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def new_order(ctx, instrument, side, px, qty, tif):
    if not may_order(ctx, instrument):
        return 0
    index = claim_order(ctx)
    if index == FULL:
        return 0
    order_id = next_id(ctx, side)
    order = ctx.orders.slots[index]
    order.kind = MSG_NEW
    order.px = px
    order.qty = qty
    order.order_id = order_id
    order.target_id = 0
    order.side = side
    order.tif = tif
    ctx.stats[0].orders += 1
    publish(ctx, index, instrument)
    return order_id


@njit(cache=True, forceinline=False, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def replace_order(ctx, instrument, target_id, px, qty):
    if target_id <= 0 or not may_order(ctx, instrument):
        return 0
    index = claim_order(ctx)
    if index == FULL:
        return 0
    side = np.int64(ctx.sides[target_id & (ctx.sides.shape[0] - 1)])
    order_id = next_id(ctx, side)
    order = ctx.orders.slots[index]
    order.kind = MSG_REPLACE
    order.px = px
    order.qty = qty
    order.order_id = order_id
    order.target_id = target_id
    order.side = side
    order.tif = TIF_DAY
    ctx.stats[0].replaces += 1
    publish(ctx, index, instrument)
    return order_id


@njit(cache=True, forceinline=False, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cancel_order(ctx, instrument, order_id):
    if order_id <= 0:
        return False
    index = claim_order(ctx)
    if index == FULL:
        return False
    order = ctx.orders.slots[index]
    order.kind = MSG_CANCEL
    order.px = 0
    order.qty = 0
    order.order_id = order_id
    order.target_id = 0
    order.side = ctx.sides[order_id & (ctx.sides.shape[0] - 1)]
    order.tif = TIF_DAY
    ctx.stats[0].cancels += 1
    publish(ctx, index, instrument)
    return True


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_order(ctx, instrument):
    """Whether an order may leave now; counts the reason where it may not. What it executes must not be among what positions begin with:
    a session that came up within this turn is used from the next one on."""
    if load_acquire(ctx.control, PHASE) != PHASE_TRADING or load_acquire(ctx.control, SESSION_UP) == 0 or ctx.words[RECONCILED] == 0:
        ctx.stats[0].refused_phase += 1
        return False
    if not is_valid(ctx, instrument):
        ctx.stats[0].refused_invalid += 1
        return False
    return True


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def claim_order(ctx):
    index = claim(ctx.orders)
    if index == FULL:
        ctx.stats[0].refused_full += 1
    return index


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def next_id(ctx, side):
    order_id = ctx.words[LAST_ID] + 1
    ctx.words[LAST_ID] = order_id
    ctx.sides[order_id & (ctx.sides.shape[0] - 1)] = side
    return int(order_id)


@njit(cache=True, forceinline=True, _nrt=False)
def publish(ctx, index, instrument):
    """Stamp the claimed order with the event that caused it, and let it go."""
    words = ctx.words
    tsc = now_tsc(ctx.clock)
    order = ctx.orders.slots[index]
    order.origin_tsc = words[ORIGIN_TSC]
    order.ts_ns = words[TS_NS]
    order["flags"] = 0
    order.instrument = instrument
    order.age_tsc = age_at(words[ORIGIN_TSC], tsc)
    order.strategy = 0
    commit(ctx.orders, index)
    words[SENT_TSC] = tsc
    if load_acquire(ctx.control, FIRST_ORDER_TSC) == 0:
        store_release(ctx.control, FIRST_ORDER_TSC, tsc)
