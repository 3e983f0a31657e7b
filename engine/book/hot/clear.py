"""Emptying books, a bounded piece at a time: for a feed that has to begin one again, or all of them."""

import numpy as np
from numba import njit

from engine.book.hot.book import best_level, close_book, open_book, remove_order
from engine.layout import BUY, SELL


@njit(cache=True, _nrt=False)
def clear_instrument(book, instrument, most):
    """Take up to `most` orders of an instrument off its book, the best first. How many went: fewer than `most` where none is left."""
    gone = 0
    open_book(book, instrument)
    for side in (BUY, SELL):
        while gone < most:
            level = best_level(book, instrument, side)
            if level < 0:
                break
            remove_order(book, np.int64(book.levels[level].head))
            gone += 1
    close_book(book, instrument)
    return gone


@njit(cache=True, _nrt=False)
def clear_book(book, instrument, most):
    """Empty the books of `instrument` and those after it, as far as `most` steps go: an order or an instrument each.

    The instrument to go on with at the next call; the number of instruments there are where all is empty.
    """
    instruments = book.sides.shape[0] >> 1
    left = most
    while instrument < instruments and left > 0:
        if book.sides[2 * instrument].count == 0 and book.sides[2 * instrument + 1].count == 0:
            left -= 1
            instrument += 1
            continue
        left -= clear_instrument(book, instrument, left)
    return instrument
