"""Which symbol is which instrument, and whether it trades.

An order for the opening or closing cross rests in the same book as all others, on the sides of a shadow of its instrument that nobody
is shown, and has FOR_CROSS among its flags: so it is found, cancelled and counted like any other, and nothing trades with it until
the cross. Instruments that have crosses are below SHADOWS.
"""

import numpy as np
from numba import njit

TRADING = ord("T")
# Nasdaq's quotation-only period: orders for the cross that ends it are taken.
QUOTING = ord("Q")
HALTED = ord("H")
NOT_TOLD = 0

NOT_LISTED = -1

SHADOWS = 1 << 14
FIRST_SHADOW = 1 << 15
OPENING, CLOSING = np.int64(0), np.int64(1)
# Of an order's flags; what is below is its capacity.
FOR_CROSS = np.int64(0x80)


@njit(cache=True, _nrt=False)
def home_of(lookup, symbol):
    """Where a symbol belongs in the lookup. Symbols differ most in their first bytes, which are the low ones."""
    mixed = ((symbol ^ (symbol >> 29)) & 0x7FFFFFFF) * 0x9E3779B1
    return (mixed >> 20) & (lookup.shape[0] - 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_symbol(listing, symbol):
    """The instrument of a packed symbol, or NOT_LISTED. At most half of the lookup is in use, so a search ends."""
    lookup = listing.lookup
    at = home_of(lookup, symbol)
    while lookup[at] != NOT_LISTED:
        if listing.symbols[lookup[at]] == symbol:
            return np.int64(lookup[at])
        at = (at + 1) & (lookup.shape[0] - 1)
    return NOT_LISTED


@njit(cache=True, _nrt=False)
def list_symbol(listing, instrument, symbol):
    """Name an instrument. The first name stays: a venue does not rename within a day."""
    if listing.symbols[instrument] != 0 or symbol == 0 or find_symbol(listing, symbol) != NOT_LISTED:
        return
    listing.symbols[instrument] = symbol
    lookup = listing.lookup
    at = home_of(lookup, symbol)
    while lookup[at] != NOT_LISTED:
        at = (at + 1) & (lookup.shape[0] - 1)
    lookup[at] = instrument


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_halted(listing, instrument):
    """Whether the last trading action said anything but trading."""
    return listing.states[instrument] != TRADING and listing.states[instrument] != NOT_TOLD


@njit(cache=True, _nrt=False)
def shadow_of(instrument, cross):
    """Where the orders for the OPENING or CLOSING cross of an instrument rest."""
    return FIRST_SHADOW + cross * SHADOWS + instrument


@njit(cache=True, forceinline=True, _nrt=False)
def traded_instrument(instrument, flags):
    """The instrument that is listed, of an order with these flags on the book of `instrument`."""
    return instrument & (SHADOWS - 1) if flags & FOR_CROSS != 0 else instrument
