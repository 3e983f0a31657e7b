"""What a handler may ask of the feed handler's own books, which are shared with it. engine/strategy/api.py is the trader's view of it.

The book is asked as it is this moment, which may be a few messages ahead of the event in hand; and only while the feed says that it
is valid. engine/book/hot/query.py has the answers and what they cost.
"""

from typing import NamedTuple

from numba import njit

from engine.book.hot import query
from engine.book.hot.query import TOLD
from engine.strategy.hot.api import whole_id, whole_qty
from engine.strategy.hot.state import LEVELS_READ

VALID_ONLY = True


class BookLevel(NamedTuple):
    """One price level: zeros where there is none."""

    px: int
    qty: int
    orders: int


@njit(cache=True, forceinline=True, _nrt=False)
def book_best(ctx, instrument):
    """Best bid and offer: told version bid_px bid_qty bid_orders ask_px ask_qty ask_orders."""
    return query.best_of(ctx.book, instrument, VALID_ONLY)


@njit(cache=True, forceinline=True, _nrt=False)
def book_depth(ctx, instrument, side, levels):
    """Read up to 64 best levels of a side at once: how many there were, or why none could be read. Then book_level has them."""
    told, _, there = query.copy_levels(ctx.book, instrument, side, ctx.levels_read, whole_qty(levels), VALID_ONLY)
    ctx.words[LEVELS_READ] = there
    return there if told == TOLD else told


@njit(cache=True, forceinline=True, _nrt=False)
def book_level(ctx, depth):
    """A level that book_depth read last, the best at 0: px qty orders."""
    if depth < 0 or depth >= ctx.words[LEVELS_READ]:
        return BookLevel(0, 0, 0)
    rows = ctx.levels_read
    return BookLevel(int(rows[depth, 0]), int(rows[depth, 1]), int(rows[depth, 2]))


@njit(cache=True, forceinline=True, _nrt=False)
def queue_ahead(ctx, instrument, ref_id):
    """Where an order stands, by the venue's reference: told version side px qty ahead_qty ahead_orders level_qty level_orders."""
    return query.queue_of(ctx.book, instrument, whole_id(ref_id), VALID_ONLY)


@njit(cache=True, forceinline=True, _nrt=False)
def weighted_mid(ctx, instrument):
    """The mid weighted by the other side's quantity: told version px_milli, in thousandths of the smallest price."""
    return query.weighted_mid_of(ctx.book, instrument, VALID_ONLY)


@njit(cache=True, forceinline=True, _nrt=False)
def sweep_cost(ctx, instrument, side, qty):
    """What an order of `side` for qty would come to: told version filled_qty missing_qty cost average_px worst_px levels."""
    return query.sweep_of(ctx.book, instrument, side, whole_qty(qty), VALID_ONLY)
