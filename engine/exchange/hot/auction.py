"""Where a cross takes place: the price at which supply and demand in one instrument meet, from the levels of its book.

What takes part in the opening or closing cross rests in two places, which one price brings together:

    the continuous book        displayed, on the instrument's own sides
    orders for the cross       not displayed, on the sides of a shadow of the instrument (hot/listing.py)

The price is, of all limits and whole cents, the one at which most shares trade; of those, the one that leaves the least imbalance; of
those, the nearest to the reference price, and of two equally near the lower. (Nasdaq Rules 4752(d)(2) and 4754(b)(2), but for their
third step, the price at which shares remain unexecuted: a simplification.) The reference is the middle of the continuous book, or where
that has not two sides the last cross's price, or the first price of the listing.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import best_level, side_row
from engine.layout import BUY, SELL

CENT_PX = 100
# No price: nothing can trade.
NO_PX = 0
# An instrument that is never listed.
NO_INSTRUMENT = np.int64(0)
# Above every price.
NOWHERE = np.int64(1 << 62)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def quantity_of(book, instrument, side):
    """All that rests on a side."""
    record = book.sides[side_row(instrument, side)]
    total = 0
    for entry in range(np.int64(record.start), np.int64(record.start) + np.int64(record.count)):
        total += book.levels[book.ids[entry]].qty
    return total


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def quantity_within(book, instrument, side, px):
    """What rests on a side and would trade at px."""
    record = book.sides[side_row(instrument, side)]
    total = 0
    for entry in range(np.int64(record.start), np.int64(record.start) + np.int64(record.count)):
        level = book.levels[book.ids[entry]]
        if (level.px >= px) if side == BUY else (level.px <= px):
            total += level.qty
    return total


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def level_upwards(book, instrument, side, place):
    """The level that is `place` steps above the lowest price of a side, or -1."""
    record = book.sides[side_row(instrument, side)]
    count = np.int64(record.count)
    if place >= count:
        return -1
    # The best is at the back: the highest bid, the lowest offer.
    entry = place if side == BUY else count - 1 - place
    return np.int64(book.ids[np.int64(record.start) + entry])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def px_upwards(book, instrument, side, place):
    level = level_upwards(book, instrument, side, place)
    return np.int64(book.levels[level].px) if level >= 0 else NOWHERE


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def qty_upwards(book, instrument, side, place):
    return np.int64(book.levels[level_upwards(book, instrument, side, place)].qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def lowest_px(book, own, own_bid, own_ask, shadow, shadow_bid, shadow_ask):
    """The lowest limit that is still to come on any of the four sides."""
    px = min(px_upwards(book, own, BUY, own_bid), px_upwards(book, own, SELL, own_ask))
    return min(px, px_upwards(book, shadow, BUY, shadow_bid), px_upwards(book, shadow, SELL, shadow_ask))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_better(px, volume, imbalance, best_px, best_volume, best_imbalance, reference):
    """Whether a price comes before the best so far, and anything trades at it. Prices are tried upwards, so of two equally near the lower
    stays."""
    if volume != best_volume:
        return volume > best_volume
    if volume == 0:
        return False
    if imbalance != best_imbalance:
        return imbalance < best_imbalance
    return abs(px - reference) < abs(best_px - reference)


@njit(cache=True, _nrt=False)
def clearing_px(book, own, shadow, reference):
    """The price and the shares of a cross of two instruments' books, which count as one; (NO_PX, 0) where nothing can trade.

    With `shadow` NO_INSTRUMENT it is of the one book alone.
    """
    # Demand is what is bid at a price or above; supply what is offered there or below.
    demand = quantity_of(book, own, BUY) + quantity_of(book, shadow, BUY)
    supply = 0
    own_bid, own_ask, shadow_bid, shadow_ask = 0, 0, 0, 0
    best_px, best_volume, best_imbalance = np.int64(NO_PX), np.int64(0), np.int64(0)
    px = lowest_px(book, own, own_bid, own_ask, shadow, shadow_bid, shadow_ask)
    while px != NOWHERE:
        if px_upwards(book, own, SELL, own_ask) == px:
            supply += qty_upwards(book, own, SELL, own_ask)
            own_ask += 1
        if px_upwards(book, shadow, SELL, shadow_ask) == px:
            supply += qty_upwards(book, shadow, SELL, shadow_ask)
            shadow_ask += 1
        volume, imbalance = min(demand, supply), abs(demand - supply)
        if is_better(px, volume, imbalance, best_px, best_volume, best_imbalance, reference):
            best_px, best_volume, best_imbalance = px, volume, imbalance
        if px_upwards(book, own, BUY, own_bid) == px:
            demand -= qty_upwards(book, own, BUY, own_bid)
            own_bid += 1
        if px_upwards(book, shadow, BUY, shadow_bid) == px:
            demand -= qty_upwards(book, shadow, BUY, shadow_bid)
            shadow_bid += 1
        above = lowest_px(book, own, own_bid, own_ask, shadow, shadow_bid, shadow_ask)
        # Between this limit and the next one nothing changes; of the cents there the nearest to the reference is the best.
        first, last = (px // CENT_PX + 1) * CENT_PX, (above - 1) // CENT_PX * CENT_PX
        if first <= last:
            volume, imbalance = min(demand, supply), abs(demand - supply)
            low = min(max(reference // CENT_PX * CENT_PX, first), last)
            if is_better(low, volume, imbalance, best_px, best_volume, best_imbalance, reference):
                best_px, best_volume, best_imbalance = low, volume, imbalance
            high = min(low + CENT_PX, last)
            if is_better(high, volume, imbalance, best_px, best_volume, best_imbalance, reference):
                best_px, best_volume, best_imbalance = high, volume, imbalance
        px = above
    return best_px, best_volume


@njit(cache=True, _nrt=False)
def reference_px(book, instrument, otherwise):
    """The middle of an instrument's book, or `otherwise`."""
    bid, ask = best_level(book, instrument, BUY), best_level(book, instrument, SELL)
    if bid < 0 or ask < 0:
        return otherwise
    return (np.int64(book.levels[bid].px) + np.int64(book.levels[ask].px)) // 2
