"""Orders of an earlier life of this gateway, known from what the venue tells again of the day: they enter the order table, and no strategy
knows them."""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import NOT_FOUND, adopt_order, is_open
from engine.gateway.hot.state import RECONCILE, RECONCILING, REPLAYING, STATE
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_raw64, get_u64
from shm.atomics import load_acquire

# Why one cannot be adopted.
TABLE_FULL = 3  # it has no place in the order table
NOT_NAMED_YET = 4  # it is for a symbol that the feed has not named: to be applied again


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_replaying(session):
    """Whether the venue tells what we missed: orders that we do not know are then those of an earlier life."""
    return session[STATE] == RECONCILING and session[RECONCILE] == REPLAYING


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def adopt_told(gateway, user_ref, at, symbol_at, side_at, px_at):
    """Adopt an order from the message at inbound[at:]. Its place, or -TABLE_FULL or -NOT_NAMED_YET."""
    inbound = gateway.inbound
    instrument = find_instrument(gateway, get_raw64(inbound, at + symbol_at))
    if instrument == NOT_FOUND:
        return -NOT_NAMED_YET
    side = BUY if inbound[at + side_at] == BUY else SELL
    index = adopt_order(gateway, user_ref, instrument, side, get_u64(inbound, at + px_at))
    return index if index != NOT_FOUND else -TABLE_FULL


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def adopt_chain(table, target, index):
    """An adopted order replaces `target`, if that is an open one with nothing else under way."""
    if target == NOT_FOUND or not is_open(table[target]) or table[target].replaced_by != 0:
        return
    table[index].executed = table[target].executed
    table[index].replaces = table[target].user_ref
    table[target].replaced_by = table[index].user_ref


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_instrument(gateway, symbol):
    """The instrument with a symbol, by its line on the board, or NOT_FOUND while the feed has not named it."""
    named, board = gateway.named, gateway.risk.instruments
    place = (symbol ^ (symbol >> 17) ^ (symbol >> 31)) & (named.shape[0] - 1)
    if named[place, 0] == symbol:
        return named[place, 1]
    for index in range(board.shape[0]):
        # A line is named once: its version is even and not 0 from then on, and its symbol stays.
        if np.int64(board[index].symbol) == symbol and load_acquire(board, index) & 1 == 0:
            named[place, 0] = symbol
            named[place, 1] = index
            return np.int64(index)
    return np.int64(NOT_FOUND)
