"""Orders off their ring, through the gate, onto the wire. take_order is the only place an order is judged and encoded, and check stands
before encode; hand_over is the only place orders are sent from.

orders ring ──▶ check ──▶ encode ──┐ (up to 16, one behind the other)
      └──▶ queue ──────────▲       └──▶ send          3 order_ring   4 risk_encode   5 send   7 tick_to_order   9 queue

An order goes straight from the ring to the wire unless the venue's pace, or bytes that the socket has not taken, hold it back: then it
waits in the queue (queue.py), and so does what comes behind it. What a turn finds goes out in one send, which costs more than judging
and encoding all of them.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.held import TO_SEND, follow_order, tend
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
from engine.gateway.hot.pacing import PACE_PER_S, fill_pace, has_token, spend
from engine.gateway.hot.queue import NOWHERE, WAITING, leave, most_urgent
from engine.gateway.hot.reports import refuse
from engine.gateway.hot.state import (
    CANCEL_PENDING,
    CANCEL_SENT,
    EXECUTIONS,
    LAST_ID,
    NEXT_REF,
    OUTBOX_READY,
    OWED,
    PENDING_BYTES,
    PX_LAST,
)
from engine.gateway.ouch.hot.encode import (
    OUTBOX_AT,
    OUTBOX_ORDERS,
    encode_cancel,
    encode_enter,
    encode_replace,
)
from engine.gateway.ouch.hot.session import send
from engine.layout import MSG_CANCEL, MSG_NEW, MSG_REPLACE
from engine.messages.hot.stamp import now_tsc, published_at, wall_ns
from engine.risk.hot.gate import check, expect_order
from engine.risk.hot.own import link
from engine.risk.hot.reasons import (
    PASSED,
    REASON_DUPLICATE_ID,
    REASON_EXECUTIONS_FULL,
    REASON_UNKNOWN_ORDER,
    REASON_VENUE_PRICE,
    REASON_WITHDRAWN,
)
from shm.atomics import prefetch_write
from shm.hot import EMPTY, advance, has_room, poll, record, record_times, release

HOP_ORDER_RING = 3
HOP_RISK_ENCODE = 4
HOP_SEND = 5
HOP_TICK_TO_ORDER = 7
HOP_QUEUE = 9

# How many places ahead of an order the lines are asked for that orders after it will write.
PLACES_AHEAD = 1


@njit(cache=True, _nrt=False, forceinline=True)
def take_orders(gateway, clock):
    """Send what waits and what is on the ring, while reports have room and the socket takes bytes. Returns how much was done."""
    session, queue, orders = gateway.session, gateway.queue, gateway.orders
    index = poll(orders)
    if session[OWED] != 0 or (index == EMPTY and queue.words[WAITING] == 0):
        return 0
    if index != EMPTY:
        expect_order(gateway.risk, orders.slots[index])
        expect_place(gateway, np.int64(0))
    tsc = now_tsc(clock)
    done = 0
    if gateway.pace[PACE_PER_S] != 0:
        fill_pace(gateway.pace, wall_ns(clock, tsc))
    if session[PENDING_BYTES] != 0 or queue.words[WAITING] != 0:
        done = tend(gateway, clock, tsc)
        if session[PENDING_BYTES] != 0:
            return done
        index = poll(orders)
    at = np.int64(OUTBOX_AT)
    ready = 0
    taken = 0
    for _ in range(OUTBOX_ORDERS):
        waiting = queue.words[WAITING] != 0
        place = most_urgent(queue) if waiting else np.int64(NOWHERE)
        if not waiting and index == EMPTY:
            break
        if not has_room(gateway.reports, 1):
            gateway.stats[0].ring_waits += 1
            break
        order = queue.orders[place] if waiting else orders.slots[index]
        if order.kind != MSG_CANCEL and not has_token(gateway.pace):
            break
        done += 1
        if waiting:
            if order.kind == MSG_CANCEL and follow_order(gateway, clock, place, tsc) != TO_SEND:
                continue
            record(gateway.hops[HOP_QUEUE], tsc - queue.links[place].entered_tsc)
        else:
            taken += 1
            advance(orders)
            index = poll(orders)
            if index != EMPTY:
                expect_order(gateway.risk, orders.slots[index])
        published_tsc = np.int64(-1) if waiting else published_at(order)
        size, entered = take_order(gateway, clock, order, waiting, tsc, at)
        if waiting:
            leave(queue, place)
        if size != 0:
            stamps = gateway.batch[ready]
            stamps.origin_tsc = np.int64(order.origin_tsc)
            stamps.published_tsc = published_tsc
            stamps.place = entered
            at += size
            stamps.end = at
            ready += 1
        elif published_tsc >= 0:
            record(gateway.hops[HOP_ORDER_RING], tsc - published_tsc)
    if ready != 0:
        hand_over(gateway, clock, tsc, at - OUTBOX_AT, ready)
    if taken != 0:
        release(orders)
    if index != EMPTY and not has_token(gateway.pace):
        done += tend(gateway, clock, tsc)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def expect_place(gateway, ahead):
    """Ask for the lines of the place that an order will have, so many after the next."""
    place = (gateway.session[NEXT_REF] + ahead) & (gateway.table.shape[0] - 1)
    prefetch_write(gateway.table, place)
    prefetch_write(gateway.risk.own, place)


@njit(cache=True, _nrt=False, forceinline=True)
def take_order(gateway, clock, order, waited, tsc, at):
    """Judge one order, and put it into wire[at:], or say why not: how many bytes it has there (0: none), and its place in the table."""
    session, table, stats = gateway.session, gateway.table, gateway.stats
    target, standing = standing_of(gateway, order, waited)
    counted_qty = 0
    executed_qty = 0
    if target != NOT_FOUND:
        counted_qty = table[target].open if order.kind == MSG_CANCEL else chain_open(table, head_of(table, target))
        executed_qty = table[target].executed
    reason = check(gateway.risk, clock, tsc, order, standing, counted_qty, executed_qty)
    if not waited:
        stats[0].orders += 1
        if order.kind != MSG_CANCEL:
            session[LAST_ID] = max(session[LAST_ID], order.order_id)
    if reason != PASSED:
        kept_qty = counted_qty if order.kind == MSG_CANCEL else 0
        refuse(gateway.reports, stats, clock, np.int64(order.origin_tsc), order, reason, kept_qty)
        return np.int64(0), np.int64(NOT_FOUND)
    spend(gateway.pace, 1)
    return encode(gateway, order, target, counted_qty, executed_qty, at)


@njit(cache=True, _nrt=False, forceinline=True)
def hand_over(gateway, clock, tsc, size, ready):
    """Send the orders in the outbox, which were taken up at `tsc`, and record what all this took."""
    stats, hops = gateway.stats, gateway.hops
    encoded_tsc = now_tsc(clock)
    gateway.session[OUTBOX_READY] = ready
    send(gateway.session, gateway.wire, stats, OUTBOX_AT, size, encoded_tsc)
    sent_tsc = now_tsc(clock)
    stats[0].sent += ready
    stats[0].sends += 1
    record_times(hops[HOP_RISK_ENCODE], encoded_tsc - tsc, ready)
    record(hops[HOP_SEND], sent_tsc - encoded_tsc)
    for number in range(ready):
        stamps = gateway.batch[number]
        if stamps.published_tsc >= 0:
            record(hops[HOP_ORDER_RING], tsc - stamps.published_tsc)
        if stamps.origin_tsc > 0:
            record(hops[HOP_TICK_TO_ORDER], sent_tsc - stamps.origin_tsc)
        if stamps.place != NOT_FOUND:
            gateway.table[stamps.place].sent_tsc = sent_tsc


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def standing_of(gateway, order, waited):
    """The place of the order to replace or cancel (or NOT_FOUND), and what the order table says of this order.

    One that waited was asked for its number when it came, and finds nothing to replace where that was cancelled in the meantime.
    """
    session, table = gateway.session, gateway.table
    if order.kind == MSG_CANCEL:
        target = find_open(gateway, np.int64(order.order_id))
        return target, PASSED if target != NOT_FOUND else REASON_UNKNOWN_ORDER
    target = NOT_FOUND
    standing = standing_of_new(gateway, order.order_id)
    if not waited and order.order_id <= session[LAST_ID]:
        standing = REASON_DUPLICATE_ID
    if standing == PASSED and order.px > session[PX_LAST]:
        standing = REASON_VENUE_PRICE
    if standing == PASSED and session[EXECUTIONS] >= gateway.executions.shape[0] // 4 * 3:
        standing = REASON_EXECUTIONS_FULL
    if order.kind == MSG_REPLACE:
        target = find_open(gateway, np.int64(order.target_id))
        if standing == PASSED:
            standing = standing_of_target(table, target, order.instrument, order.side)
        if standing == PASSED and waited and table[target].marks & CANCEL_SENT != 0:
            standing = REASON_WITHDRAWN
    return target, standing


@njit(cache=True, _nrt=False, forceinline=True)
def encode(gateway, order, target, counted_qty, executed_qty, at):
    """Note a passed order in the table, and put it into wire[at:]: how many bytes, and its place in the table (none for a cancel)."""
    wire, table = gateway.wire, gateway.table
    if order.kind == MSG_CANCEL:
        entry = table[target]
        entry.marks |= CANCEL_PENDING
        if order.qty == 0:
            entry.marks |= CANCEL_SENT
        settle(gateway.stats, entry)
        total_qty = order.qty + executed_qty if order.qty != 0 else 0
        return encode_cancel(wire, at, np.int64(entry.user_ref), np.int64(entry.strategy), total_qty), np.int64(NOT_FOUND)
    index = enter(gateway, order, order.qty, executed_qty)
    user_ref = np.int64(table[index].user_ref)
    expect_place(gateway, np.int64(PLACES_AHEAD))
    gateway.stats[0].open_orders += 1
    change_open(gateway, order.instrument, order.side, max(order.qty - counted_qty, 0))
    link(gateway.risk, index, order.instrument, order.side, order.px)
    strategy = np.int64(order.strategy)
    if order.kind == MSG_NEW:
        symbol = gateway.risk.known[order.instrument].symbol
        return encode_enter(wire, at, user_ref, order.side, order.qty, symbol, order.px, order.tif, strategy), index
    target_ref, target_strategy = np.int64(table[target].user_ref), np.int64(table[target].strategy)
    table[index].replaces = target_ref
    table[target].replaced_by = user_ref
    settle(gateway.stats, table[target])
    total_qty = order.qty + executed_qty
    return encode_replace(wire, at, target_ref, target_strategy, user_ref, total_qty, order.px, order.tif, strategy), index
