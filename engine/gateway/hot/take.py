"""Orders off their ring, through the gate, onto the wire. take_order is the only place an order is sent from, and check stands before it.

orders ring ──▶ check ──▶ encode ──▶ send          3 order_ring   4 risk_encode   5 send   7 tick_to_order
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import (
    NOT_FOUND,
    chain_open,
    change_open,
    enter,
    find_open,
    head_of,
    settle,
    standing_of_new,
    standing_of_target,
)
from engine.gateway.hot.reports import refuse
from engine.gateway.hot.state import CANCEL_PENDING, CANCEL_SENT, EXECUTIONS, LAST_ID, OWED, PENDING_BYTES
from engine.gateway.ouch.hot.encode import (
    CANCEL_AT,
    CANCEL_BYTES,
    ENTER_AT,
    ENTER_BYTES,
    REPLACE_AT,
    REPLACE_BYTES,
    encode_cancel,
    encode_enter,
    encode_replace,
)
from engine.gateway.ouch.hot.session import send
from engine.layout import MSG_CANCEL, MSG_NEW, MSG_REPLACE
from engine.messages.hot.stamp import now_tsc
from engine.risk.hot.gate import check
from engine.risk.hot.own import link
from engine.risk.hot.reasons import PASSED, REASON_EXECUTIONS_FULL, REASON_UNKNOWN_ORDER
from shm.hot import EMPTY, advance, has_room, poll, record, release

ORDERS_PER_STEP = 16

HOP_ORDER_RING = 3
HOP_RISK_ENCODE = 4
HOP_SEND = 5
HOP_TICK_TO_ORDER = 7

AGE_UNKNOWN = 0xFFFFFFFF


@njit(cache=True, _nrt=False, forceinline=True)
def take_orders(gateway, clock):
    """Take orders off the ring while their reports have room and the socket takes bytes. Returns how many."""
    session = gateway.session
    taken = 0
    while taken < ORDERS_PER_STEP and session[PENDING_BYTES] == 0 and session[OWED] == 0:
        index = poll(gateway.orders)
        if index == EMPTY:
            break
        if not has_room(gateway.reports, 1):
            gateway.stats[0].ring_waits += 1
            break
        take_order(gateway, clock, gateway.orders.slots[index])
        advance(gateway.orders)
        taken += 1
    if taken != 0:
        release(gateway.orders)
    return taken


@njit(cache=True, _nrt=False, forceinline=True)
def take_order(gateway, clock, order):
    """Judge one order and send it, or say why not."""
    session, table, stats = gateway.session, gateway.table, gateway.stats
    polled_tsc = now_tsc(clock)
    origin_tsc = np.int64(order.origin_tsc)
    if order.age_tsc != AGE_UNKNOWN:
        record(gateway.hops[HOP_ORDER_RING], polled_tsc - origin_tsc - np.int64(order.age_tsc))
    stats[0].orders += 1
    target, standing = standing_of(gateway, order)
    counted_qty = 0
    executed_qty = 0
    if target != NOT_FOUND:
        counted_qty = table[target].open if order.kind == MSG_CANCEL else chain_open(table, head_of(table, target))
        executed_qty = table[target].executed
    reason = check(gateway.risk, clock, polled_tsc, order, standing, counted_qty, executed_qty)
    if order.kind != MSG_CANCEL:
        session[LAST_ID] = max(session[LAST_ID], order.order_id)
    if reason != PASSED:
        refuse(gateway.reports, stats, clock, origin_tsc, order, reason, counted_qty if order.kind == MSG_CANCEL else 0)
        return
    at, size, index = encode(gateway, order, target, counted_qty, executed_qty)
    encoded_tsc = now_tsc(clock)
    record(gateway.hops[HOP_RISK_ENCODE], encoded_tsc - polled_tsc)
    send(session, gateway.wire, stats, at, size, encoded_tsc)
    sent_tsc = now_tsc(clock)
    record(gateway.hops[HOP_SEND], sent_tsc - encoded_tsc)
    if origin_tsc > 0:
        record(gateway.hops[HOP_TICK_TO_ORDER], sent_tsc - origin_tsc)
    stats[0].sent += 1
    if order.kind != MSG_CANCEL:
        table[index].sent_tsc = sent_tsc


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def standing_of(gateway, order):
    """The place of the order to replace or cancel (or NOT_FOUND), and what the order table says of this order."""
    session, table = gateway.session, gateway.table
    if order.kind == MSG_CANCEL:
        target = find_open(gateway, np.int64(order.order_id))
        return target, PASSED if target != NOT_FOUND else REASON_UNKNOWN_ORDER
    target = NOT_FOUND
    standing = standing_of_new(gateway, order.order_id)
    if standing == PASSED and session[EXECUTIONS] >= gateway.executions.shape[0] // 4 * 3:
        standing = REASON_EXECUTIONS_FULL
    if order.kind == MSG_REPLACE:
        target = find_open(gateway, np.int64(order.target_id))
        if standing == PASSED:
            standing = standing_of_target(table, target, order.instrument, order.side)
    return target, standing


@njit(cache=True, _nrt=False, forceinline=True)
def encode(gateway, order, target, counted_qty, executed_qty):
    """Note a passed order in the table, and put it into its template: where in `wire`, how long, and its place in the table."""
    wire, table = gateway.wire, gateway.table
    if order.kind == MSG_CANCEL:
        entry = table[target]
        entry.marks |= CANCEL_PENDING
        if order.qty == 0:
            entry.marks |= CANCEL_SENT
        settle(gateway.stats, entry)
        encode_cancel(wire, np.int64(entry.user_ref), order.qty + executed_qty if order.qty != 0 else 0)
        return CANCEL_AT, CANCEL_BYTES, target
    index = enter(gateway, order, order.qty, executed_qty)
    user_ref = np.int64(table[index].user_ref)
    gateway.stats[0].open_orders += 1
    change_open(gateway, order.instrument, order.side, max(order.qty - counted_qty, 0))
    link(gateway.risk, index, order.instrument, order.side, order.px)
    strategy = np.int64(order.strategy)
    if order.kind == MSG_NEW:
        encode_enter(wire, user_ref, order.side, order.qty, gateway.risk.known[order.instrument].symbol, order.px, order.tif, strategy)
        return ENTER_AT, ENTER_BYTES, index
    target_ref = np.int64(table[target].user_ref)
    table[index].replaces = target_ref
    table[target].replaced_by = user_ref
    settle(gateway.stats, table[target])
    encode_replace(wire, target_ref, user_ref, order.qty + executed_qty, order.px, order.tif, strategy)
    return REPLACE_AT, REPLACE_BYTES, index
