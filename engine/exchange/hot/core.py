"""The matching core: an order against the other side of a book, and what that did as records. It knows no wire and no client's account.

    order ──▶ cross_book ──▶ book
                     └─────▶ events: one record for each resting order that traded

The best price first; there the oldest first, or each by its share (hot/prorata.py); always at the resting order's price. Whoever called
tells those concerned (hot/matching.py), and rests or cancels what is left.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, best_level, keep_order, order_ref, remove_order, worse_level
from engine.exchange.hot.prorata import FIFO, share_of, unshared
from engine.layout import BUY, SELL

#   0     8       16   24    28     32      36         40     41    48
#   +-----+-------+----+-----+------+-------+----------+------+-----+
#   | ref | taker | px | qty | left | owner | user_ref | kind | pad |
#   +-----+-------+----+-----+------+-------+----------+------+-----+
# ref, owner, user_ref, left: the resting order's, left after it; 0 left: it is off the book.
EVENT = np.dtype(
    [
        ("ref", "i8"), ("taker", "i8"), ("px", "i8"), ("qty", "u4"), ("left", "u4"), ("owner", "u4"), ("user_ref", "u4"), ("kind", "u1"),
        ("pad", "u1", 7),
    ]
)  # fmt: skip
TRADED = np.uint8(1)

# Handles are positive, so this one stops nothing.
NOBODY_STOPS = np.int64(-1)

# Events that the exchange has room for: they stay in the cache. What makes more is told of in parts.
EVENTS = 1 << 10

# Words of `walk`: where an order that filled all events goes on, once they have been told. WALK_ON is the handle of the next resting
# order, or NOT_STOPPED, which is none.
WALK_ON = 0
WALK_DEPTH = 1
WALK_WANTED = 2
WALK_POOL = 3
WALK_SPARE = 4
WALK_WORDS = 5
NOT_STOPPED = 0


@njit(cache=True, forceinline=True, _nrt=False)
def crosses(side, px, other_px):
    """Whether an order of `side` at px trades with one of the other side at other_px."""
    return other_px <= px if side == BUY else other_px >= px


@njit(cache=True, forceinline=True, _nrt=False)
def other_side(side):
    return BUY + SELL - side


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_met(book, instrument, side, px):
    """Whether the best of the other side is within px."""
    level = best_level(book, instrument, other_side(side))
    return level >= 0 and crosses(side, px, book.levels[level].px)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def trade_with(book, event, handle, px, qty, taker):
    """A resting order trades `qty`, at most what it has; `event` says so."""
    order = book.orders[handle]
    left = np.int64(order.qty) - qty
    event.ref = order_ref(book, handle)
    event.taker = taker
    event.px = px
    event.qty = qty
    event.left = left
    event.owner = order.owner
    event.user_ref = order.user_ref
    event.kind = TRADED
    order.executed += np.uint32(qty)
    if left == 0:
        remove_order(book, handle)
    else:
        keep_order(book, handle, left)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cross_book(book, events, at, walk, instrument, side, px, qty, taker, minimum, clients_only, stop):
    """Trade up to `qty` for an order of `side` that pays up to px (a sale: asks no less), and write from events[at] on.

    taker: goes into the events. minimum: of the pro-rata rule, or FIFO. clients_only: orders without an owner are passed over.
    stop: the handle of a resting order at px, before which it ends, or NOBODY_STOPS. Both are for price-time priority only.

    Returns how many events there are now, and what is left of qty. Where that is because the events are full, walk[WALK_ON] says where
    it stopped, and the same call with what is left goes on from there, as long as nobody else has touched the book.
    """
    against = other_side(side)
    left = qty
    depth = walk[WALK_DEPTH]
    walk[WALK_DEPTH] = 0
    while left > 0:
        level = worse_level(book, instrument, against, depth)
        if level < 0 or not crosses(side, px, book.levels[level].px):
            break
        level_px = np.int64(book.levels[level].px)
        handle = walk[WALK_ON]
        if handle == NOT_STOPPED:
            handle = np.int64(book.levels[level].head)
            pool = np.int64(book.levels[level].qty)
            wanted = left
            shared = minimum != FIFO and pool > wanted
            spare = unshared(book.orders, handle, wanted, pool, minimum) if shared else np.int64(0)
        else:
            walk[WALK_ON] = NOT_STOPPED
            pool, wanted, spare = walk[WALK_POOL], walk[WALK_WANTED], walk[WALK_SPARE]
            shared = minimum != FIFO and pool > wanted
        while handle != NONE and handle != stop and left > 0:
            if at == events.shape[0]:
                walk[WALK_ON] = handle
                walk[WALK_DEPTH] = depth
                walk[WALK_POOL], walk[WALK_WANTED], walk[WALK_SPARE] = pool, wanted, spare
                return at, left
            after = np.int64(book.orders[handle].next)
            if not clients_only or book.orders[handle].owner != 0:
                there = np.int64(book.orders[handle].qty)
                traded = min(left, there)
                if shared:
                    traded = share_of(there, wanted, pool, minimum)
                    extra = min(spare, there - traded)
                    spare -= extra
                    traded += extra
                if traded > 0:
                    trade_with(book, events[at], handle, level_px, traded, taker)
                    at += 1
                    left -= traded
            handle = after
        # A level that has lost all its orders is gone: the next one has come up to its depth. (Behind the level of `stop` there is
        # none within px, which is that order's own.)
        if book.levels[level].orders != 0:
            depth += 1
    return at, left
