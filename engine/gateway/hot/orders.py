"""The order table, the chains of replacements in it, and what is open on each side of an instrument.

A replacement under way and its order cannot both trade, so a chain counts against the limits with the largest of what its members
may have open. Chains are linked through `replaces` and `replaced_by` and at most CHAIN_MAX long:

    1 (live) ──replaced_by──▶ 2 (pending) ──▶ 3 (pending)        the venue will do the first n of these, in this order

An order's place is its id modulo the table's size: it is free again once that order is done.
"""

from numba import njit

from engine.gateway.hot.state import (
    ACKNOWLEDGED,
    CANCEL_PENDING,
    CHAIN_MAX,
    DONE,
    FREE,
    LAST_ID,
    LIVE,
    PENDING_CANCEL,
    PENDING_NEW,
    PENDING_REPLACE,
    PRESUMED_DEAD,
)
from engine.layout import BUY
from engine.risk.hot.own import unlink
from engine.risk.hot.reasons import (
    PASSED,
    REASON_DUPLICATE_ID,
    REASON_ILLEGAL,
    REASON_ORDER_TABLE_FULL,
    REASON_REPLACE_PENDING,
    REASON_UNKNOWN_ORDER,
)
from engine.risk.hot.stake import position_changed
from shm.hot import board_close, board_open

NOT_FOUND = -1


@njit(cache=True, _nrt=False, forceinline=True)
def find_order(table, order_id):
    """The place of an order, done or not, or NOT_FOUND: never seen, or so long done that another has its place."""
    index = order_id & (table.shape[0] - 1)
    if table[index].order_id == order_id and table[index].state != FREE:
        return index
    return NOT_FOUND


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def find_open(table, order_id):
    """The place of an order that may still trade, or NOT_FOUND."""
    index = find_order(table, order_id)
    if index != NOT_FOUND and table[index].state == DONE:
        return NOT_FOUND
    return index


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def head_of(table, index):
    """The place of the order at the head of the chain: the one that the venue has, or will have first."""
    for _ in range(CHAIN_MAX):
        if table[index].replaces == 0:
            break
        index = table[index].replaces & (table.shape[0] - 1)
    return index


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def chain_open(table, head):
    """The largest quantity that a member of the chain may have open: what the chain counts for."""
    largest = table[head].open
    for _ in range(CHAIN_MAX):
        if table[head].replaced_by == 0:
            break
        head = table[head].replaced_by & (table.shape[0] - 1)
        largest = max(largest, table[head].open)
    return largest


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def chain_length(table, head):
    length = 1
    while table[head].replaced_by != 0:
        head = table[head].replaced_by & (table.shape[0] - 1)
        length += 1
    return length


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def standing_of_new(session, table, order_id):
    """Whether an order may take its place in the table: PASSED, or why not."""
    if order_id <= session[LAST_ID]:
        return REASON_DUPLICATE_ID
    state = table[order_id & (table.shape[0] - 1)].state
    if state != FREE and state != DONE:
        return REASON_ORDER_TABLE_FULL
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def standing_of_target(table, target, instrument, side):
    """Whether the order at place `target` may be replaced by one for this instrument and side: PASSED, or why not."""
    if target == NOT_FOUND:
        return REASON_UNKNOWN_ORDER
    entry = table[target]
    if entry.instrument != instrument or entry.side != side:
        return REASON_ILLEGAL
    if entry.replaced_by != 0 or chain_length(table, head_of(table, target)) >= CHAIN_MAX:
        return REASON_REPLACE_PENDING
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def enter(table, order, open_qty, executed_qty):
    """Give a new order or replacement its place. Returns the place."""
    index = order.order_id & (table.shape[0] - 1)
    entry = table[index]
    entry.order_id = order.order_id
    entry.px = order.px
    entry.open = open_qty
    entry.executed = executed_qty
    entry.sent_tsc = 0
    entry.replaces = 0
    entry.replaced_by = 0
    entry.instrument = order.instrument
    entry.side = order.side
    entry.state = PENDING_NEW
    entry.marks = 0
    entry.tif = order.tif
    return index


@njit(cache=True, _nrt=False, forceinline=True)
def settle(entry):
    """The state of an order that may still trade, from what is under way."""
    if entry.marks & ACKNOWLEDGED == 0:
        entry.state = PENDING_NEW
    elif entry.marks & CANCEL_PENDING != 0:
        entry.state = PENDING_CANCEL
    elif entry.replaced_by != 0:
        entry.state = PENDING_REPLACE
    else:
        entry.state = LIVE


@njit(cache=True, _nrt=False, forceinline=True)
def finish(gateway, index):
    """An order that can trade no more. Its replacements die with it, as the venue ignores them. Returns the id of the first, or 0."""
    table, stats = gateway.table, gateway.stats
    entry = table[index]
    unlink(gateway.risk, index)
    if entry.state != DONE:
        stats[0].open_orders -= 1
    entry.state = DONE
    entry.open = 0
    first = entry.replaced_by
    entry.replaced_by = 0
    heir = first
    while heir != 0:
        place = heir & (table.shape[0] - 1)
        entry = table[place]
        unlink(gateway.risk, place)
        stats[0].open_orders -= 1
        entry.state = DONE
        entry.open = 0
        entry.marks |= PRESUMED_DEAD
        heir = entry.replaced_by
    return first


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def trade_chain(table, index, qty):
    """An execution: what is left of the order, and of everything that is to replace it, as the venue counts it in their quantities."""
    for _ in range(CHAIN_MAX):
        entry = table[index]
        entry.executed += qty
        entry.open = max(entry.open - qty, 0)
        if entry.replaced_by == 0:
            break
        index = entry.replaced_by & (table.shape[0] - 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def change_open(gateway, instrument, side, change_qty):
    """What is open on one side of an instrument, on the board and at the gate."""
    positions = gateway.positions
    if change_qty == 0:
        return
    version = board_open(positions, instrument)
    line = positions[instrument]
    if side == BUY:
        line.open_buy += change_qty
    else:
        line.open_sell += change_qty
    board_close(positions, instrument, version)
    position_changed(gateway.risk, instrument)
