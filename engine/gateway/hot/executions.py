"""Unique executions, and the positions that follow from them.

A venue that replays its session tells every execution again: each counts once, by its match number and order. The set is an
open-addressed table with linear search; what it knows of an execution is enough to take it back when the venue breaks the trade.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.state import BROKEN, COUNTED
from engine.layout import BUY
from engine.risk.hot.stake import count_execution, position_changed, uncount_execution
from shm.hot import board_close, board_open

NO_ROOM = -1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_execution(executions, match, user_ref):
    """The place of an execution, or the free place where it belongs (state 0), or NO_ROOM where the table is full without it."""
    mask = executions.shape[0] - 1
    # Match numbers grow by one: neighbours stay neighbours, and the folded upper bits spread any stride that is not one.
    index = (match ^ (match >> 15) ^ (match >> 30)) & mask
    for _ in range(executions.shape[0]):
        entry = executions[index]
        if entry.state == 0 or (entry.match == match and entry.user_ref == user_ref):
            return index
        index = (index + 1) & mask
    return NO_ROOM


@njit(cache=True, _nrt=False)
def remember(entry, match, px, qty, order):
    entry.match = match
    entry.px = px
    entry.user_ref = order.user_ref
    entry.order_id = order.order_id
    entry.qty = qty
    entry.instrument = order.instrument
    entry.side = order.side
    entry.state = COUNTED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def book_execution(risk, positions, instrument, side, qty, px, change_open_qty):
    """Count an execution in its instrument's line, and what it leaves open on its side."""
    version = board_open(positions, instrument)
    line = positions[instrument]
    position, cash = line.position, line.cash
    if side == BUY:
        line.position += qty
        line.bought += qty
        line.cash -= qty * px
        line.open_buy += change_open_qty
    else:
        line.position -= qty
        line.sold += qty
        line.cash += qty * px
        line.open_sell += change_open_qty
    line.fills += 1
    board_close(positions, instrument, version)
    count_execution(risk, instrument, px, position, cash, line.position)
    position_changed(risk, instrument)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def unbook_execution(risk, positions, entry):
    """Take a broken trade out of its instrument's line. What it left open stays gone: a broken trade does not bring an order back."""
    qty, px, instrument = np.int64(entry.qty), entry.px, entry.instrument
    version = board_open(positions, instrument)
    line = positions[instrument]
    if entry.side == BUY:
        line.position -= qty
        line.bought -= qty
        line.cash += qty * px
    else:
        line.position += qty
        line.sold -= qty
        line.cash -= qty * px
    line.fills -= 1
    board_close(positions, instrument, version)
    uncount_execution(risk)
    position_changed(risk, instrument)
    entry.state = BROKEN
