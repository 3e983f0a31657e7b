"""The order table, the chains of replacements in it, and what is open on each side of an instrument.

A replacement under way and its order cannot both trade, so a chain counts against the limits with the largest of what its members
may have open. Chains are linked through `replaces` and `replaced_by` and at most CHAIN_MAX long:

    1 (live) ──replaced_by──▶ 2 (pending) ──▶ 3 (pending)        the venue will do the first n of these, in this order

An order's place is its user_ref modulo the table's size: it is free again once that order has ended. A user_ref whose place is taken
is passed over, so one order that rests all day holds up nothing. `ids` leads from a strategy's own number to an open order's user_ref,
which is in one of ID_WAYS places of it.

Others read the table while it is worked on (engine/gateway/open_orders.h says how): what says something together is written between
board_open and board_close, whatever changes alone is one store.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.state import (
    ACKNOWLEDGED,
    ADOPTED,
    ADOPTED_OPEN,
    CANCEL_PENDING,
    CHAIN_MAX,
    ENDED,
    FREE,
    LEGAL,
    LIVE,
    NEXT_REF,
    PARTIALLY_FILLED,
    PENDING_CANCEL,
    PENDING_NEW,
    PENDING_REPLACE,
    PRESUMED_DEAD,
    REF_LAST,
    REJECTED,
    UNKNOWN,
)
from engine.layout import BUY
from engine.risk.hot.own import link, unlink
from engine.risk.hot.reasons import (
    PASSED,
    REASON_ILLEGAL,
    REASON_ORDER_TABLE_FULL,
    REASON_REFS_EXHAUSTED,
    REASON_REPLACE_PENDING,
    REASON_UNKNOWN_ORDER,
)
from engine.risk.hot.reference import NOWHERE, place_of
from engine.risk.hot.stake import position_changed
from shm.hot import board_close, board_open

NOT_FOUND = -1


# Places of open orders that are passed over in search of one for a new order.
SKIP_MAX = 64
# Places of `ids`, all in one cache line, in which an open order's user_ref may be.
ID_WAYS = 8


@njit(cache=True, _nrt=False, forceinline=True)
def is_open(entry):
    """Whether an order may still trade, for all that is known."""
    return entry.state != FREE and entry.state < ENDED


@njit(cache=True, _nrt=False, forceinline=True)
def find_order(table, user_ref):
    """The place of an order, ended or not, or NOT_FOUND: never seen, or ended so long ago that another has its place."""
    index = user_ref & (table.shape[0] - 1)
    if table[index].user_ref == user_ref and table[index].state != FREE:
        return index
    return NOT_FOUND


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def find_open(gateway, order_id):
    """The place of an order that may still trade, by its strategy's number, or NOT_FOUND."""
    ids, table = gateway.ids, gateway.table
    for way in range(ID_WAYS):
        user_ref = np.int64(ids[(order_id ^ way) & (ids.shape[0] - 1)])
        index = user_ref & (table.shape[0] - 1)
        if user_ref != 0 and table[index].order_id == order_id:
            return index
    return NOT_FOUND


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def id_place(ids, order_id, user_ref):
    """The place in `ids` where the order's user_ref is; with user_ref 0 one where it may be put. NOT_FOUND where there is none."""
    for way in range(ID_WAYS):
        place = (order_id ^ way) & (ids.shape[0] - 1)
        if ids[place] == user_ref:
            return place
    return NOT_FOUND


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
def standing_of_new(gateway, order_id):
    """Whether an order may take the place of NEXT_REF in the table: PASSED, or why not."""
    session, table = gateway.session, gateway.table
    if id_place(gateway.ids, np.int64(order_id), np.int64(0)) == NOT_FOUND or gateway.stats[0].open_orders >= table.shape[0]:
        return REASON_ORDER_TABLE_FULL
    for _ in range(SKIP_MAX):
        if session[NEXT_REF] > session[REF_LAST]:
            return REASON_REFS_EXHAUSTED
        if not is_open(table[session[NEXT_REF] & (table.shape[0] - 1)]):
            return PASSED
        session[NEXT_REF] += 1
    return REASON_ORDER_TABLE_FULL


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
def enter(gateway, order, open_qty, executed_qty):
    """Give a new order or replacement the next user_ref and its place, which standing_of_new found free. Returns the place."""
    user_ref = gateway.session[NEXT_REF]
    gateway.session[NEXT_REF] = user_ref + 1
    index = user_ref & (gateway.table.shape[0] - 1)
    entry = gateway.table[index]
    version = board_open(gateway.table, index)
    entry.user_ref = user_ref
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
    entry.strategy = order.strategy
    board_close(gateway.table, index, version)
    gateway.ids[id_place(gateway.ids, np.int64(order.order_id), np.int64(0))] = user_ref
    return index


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def adopt_order(gateway, user_ref, instrument, side, px):
    """An order that an earlier life of this gateway sent takes the place of its user_ref, with nothing open yet. Returns the place, or
    NOT_FOUND where another open order has it. No strategy knows it, so it has no number but the venue's."""
    index = user_ref & (gateway.table.shape[0] - 1)
    entry = gateway.table[index]
    if is_open(entry):
        return NOT_FOUND
    version = board_open(gateway.table, index)
    entry.user_ref = user_ref
    entry.order_id = 0
    entry.px = px
    entry.open = 0
    entry.executed = 0
    entry.sent_tsc = 0
    entry.replaces = 0
    entry.replaced_by = 0
    entry.instrument = instrument
    entry.side = side
    entry.state = PENDING_NEW
    entry.marks = ADOPTED
    entry.tif = 0
    entry.strategy = 0
    board_close(gateway.table, index, version)
    gateway.session[ADOPTED_OPEN] += 1
    gateway.stats[0].adopted += 1
    gateway.stats[0].open_orders += 1
    if place_of(gateway.risk, instrument) != NOWHERE:
        link(gateway.risk, index, instrument, side, px)
    return index


@njit(cache=True, _nrt=False, forceinline=True)
def move_to(stats, entry, state):
    """Pass to another state, if an order may: 1. Else the move is counted and not made: 0."""
    if entry.state == state:
        return 1
    if LEGAL[entry.state, state] == 0:
        stats[0].illegal_moves += 1
        return 0
    if entry.state == UNKNOWN:
        stats[0].unknown_orders -= 1
    elif state == UNKNOWN:
        stats[0].unknown_orders += 1
    entry.state = state
    return 1


@njit(cache=True, _nrt=False, forceinline=True)
def settle(stats, entry):
    """The state of an order that may still trade, from what is under way."""
    state = LIVE
    if entry.marks & ACKNOWLEDGED == 0:
        state = UNKNOWN if entry.state == UNKNOWN else PENDING_NEW
    elif entry.marks & CANCEL_PENDING != 0:
        state = PENDING_CANCEL
    elif entry.replaced_by != 0:
        state = PENDING_REPLACE
    elif entry.executed != 0:
        state = PARTIALLY_FILLED
    move_to(stats, entry, state)


@njit(cache=True, _nrt=False, forceinline=True)
def close(gateway, index, state):
    """An order has come to an end: nobody counts it any more, and its strategy's number leads nowhere."""
    entry, ids = gateway.table[index], gateway.ids
    unlink(gateway.risk, index)
    if is_open(entry):
        gateway.stats[0].open_orders -= 1
        if entry.marks & ADOPTED != 0:
            gateway.session[ADOPTED_OPEN] -= 1
        move_to(gateway.stats, entry, state)
    entry.open = 0
    place = id_place(ids, np.int64(entry.order_id), np.int64(entry.user_ref))
    if place != NOT_FOUND:
        ids[place] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def reopen(gateway, index):
    """A replacement that was presumed dead lives after all: it counts again."""
    entry, ids = gateway.table[index], gateway.ids
    gateway.stats[0].open_orders += 1
    if entry.marks & ADOPTED != 0:
        gateway.session[ADOPTED_OPEN] += 1
    move_to(gateway.stats, entry, UNKNOWN)
    if place_of(gateway.risk, np.int64(entry.instrument)) != NOWHERE:
        link(gateway.risk, index, entry.instrument, entry.side, entry.px)
    place = id_place(ids, np.int64(entry.order_id), np.int64(0))
    if place != NOT_FOUND:
        ids[place] = entry.user_ref


@njit(cache=True, _nrt=False, forceinline=True)
def finish(gateway, index, state):
    """An order that can trade no more. Its replacements die with it, as the venue ignores them. Returns the first's user_ref, or 0."""
    table = gateway.table
    close(gateway, index, state)
    first = table[index].replaced_by
    table[index].replaced_by = 0
    heir = first
    while heir != 0:
        place = heir & (table.shape[0] - 1)
        close(gateway, place, REJECTED)
        table[place].marks |= PRESUMED_DEAD
        heir = table[place].replaced_by
    return first


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def trade_chain(table, index, qty):
    """An execution: what is left of the order, and of everything that is to replace it, as the venue counts it in their quantities."""
    for _ in range(CHAIN_MAX):
        entry = table[index]
        version = board_open(table, index)
        entry.executed += qty
        entry.open = max(entry.open - qty, 0)
        board_close(table, index, version)
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
