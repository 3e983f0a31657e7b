"""One turn of the order gateway: orders off their ring, through the gate, onto the wire; the venue's bytes into reports.

    orders ring ──▶ check ──▶ encode ──▶ send          3 order_ring   4 risk_encode   5 send   7 tick_to_order
    reports ring ◀── apply ◀── packets ◀── recv        6 exchange_to_report

Orders come first: a turn ends with the socket. take_order is the only place an order is sent from, and check stands before it; the
sweep, which cancels all that is open when the instance drains or is killed, sends nothing but cancels.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.encode import (
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
from engine.gateway.hot.session import NOT_WHOLE, SESSION_ENDED, begin, keep_alive, packet_bytes, read_packets, receive, send, send_pending
from engine.gateway.hot.state import (
    CANCEL_PENDING,
    CANCEL_SENT,
    CONNECTED,
    DONE,
    DRAIN_SEEN,
    DRAINED,
    ENDING,
    EXECUTIONS,
    FREE,
    HEARD_TSC,
    KILL_SEEN,
    LAST_ID,
    OVER,
    OWED,
    PENDING_BYTES,
    STATE,
    SWEEP_END,
    SWEEP_NEXT,
    TURN,
)
from engine.layout import CONTROL, MSG_CANCEL, MSG_NEW, MSG_REPLACE, PHASE_DRAINING
from engine.messages.hot.stamp import now_tsc
from engine.risk.hot.gate import check, watch
from engine.risk.hot.own import link
from engine.risk.hot.reasons import PASSED, REASON_EXECUTIONS_FULL, REASON_UNKNOWN_ORDER
from engine.risk.hot.state import KILL, PHASE
from shm.atomics import load_acquire, store_release
from shm.hot import EMPTY, advance, has_room, poll, record, release

ORDERS_PER_STEP = 16
SWEEP_PLACES_PER_STEP = 1024
SWEEP_CANCELS_PER_STEP = 16
# In one of so many turns the gate looks at an instrument without an order: a turn with nothing to do takes some 200 ns.
WATCH_TURNS = 16
TURN_MASK = (1 << 62) - 1

HOP_ORDER_RING = 3
HOP_RISK_ENCODE = 4
HOP_SEND = 5
HOP_TICK_TO_ORDER = 7

AGE_UNKNOWN = 0xFFFFFFFF
DRAINED_WORD = CONTROL.fields["drained"][1] // 8


@njit(cache=True, _nrt=False)
def step(gateway, clock):
    """Do a bounded amount of work. Returns the number of things done, or the reason (below 0) why the session is over."""
    session = gateway.session
    if session[STATE] == OVER:
        return ending_of(session)
    tsc = now_tsc(clock)
    done = 0
    if session[STATE] == CONNECTED:
        begin(gateway, tsc)
        done = 1
    if send_pending(session, gateway.wire, gateway.stats, tsc) != 0:
        done += 1
    watch_for_sweep(gateway)
    if session[SWEEP_NEXT] <= session[SWEEP_END]:
        done += sweep(gateway, tsc)
    done += take_orders(gateway, clock)
    if session[OWED] != 0 or packet_bytes(session, gateway.inbound) != NOT_WHOLE:
        # The reports ring is full: it is we who do not listen, and not the venue that is silent.
        session[HEARD_TSC] = tsc
    elif receive(gateway, clock) != 0:
        done += 1
    done += read_packets(gateway, clock)
    if session[STATE] != OVER:
        keep_alive(gateway, clock, now_tsc(clock))
    tell_drained(gateway)
    if session[STATE] == OVER:
        return ending_of(session)
    session[TURN] = (session[TURN] + 1) & TURN_MASK
    if session[TURN] % WATCH_TURNS == 0:
        watch(gateway.risk, clock, tsc, session[TURN] // WATCH_TURNS)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ending_of(session):
    """The reason to leave the loop; 0 where the instance had drained and the venue said its goodbye in order."""
    if session[ENDING] == SESSION_ENDED and session[DRAINED] != 0:
        return 0
    return session[ENDING]


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
        target = find_open(table, order.order_id)
        return target, PASSED if target != NOT_FOUND else REASON_UNKNOWN_ORDER
    target = NOT_FOUND
    standing = standing_of_new(session, table, order.order_id)
    if standing == PASSED and session[EXECUTIONS] >= gateway.executions.shape[0] // 4 * 3:
        standing = REASON_EXECUTIONS_FULL
    if order.kind == MSG_REPLACE:
        target = find_open(table, order.target_id)
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
        settle(entry)
        encode_cancel(wire, order.order_id, order.qty + executed_qty if order.qty != 0 else 0)
        return CANCEL_AT, CANCEL_BYTES, target
    index = enter(table, order, order.qty, executed_qty)
    gateway.stats[0].open_orders += 1
    change_open(gateway, order.instrument, order.side, max(order.qty - counted_qty, 0))
    link(gateway.risk, index, order.instrument, order.side, order.px)
    if order.kind == MSG_NEW:
        encode_enter(wire, order.order_id, order.side, order.qty, gateway.risk.known[order.instrument].symbol, order.px, order.tif)
        return ENTER_AT, ENTER_BYTES, index
    table[index].replaces = order.target_id
    table[target].replaced_by = order.order_id
    settle(table[target])
    encode_replace(wire, order.target_id, order.order_id, order.qty + executed_qty, order.px, order.tif)
    return REPLACE_AT, REPLACE_BYTES, index


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def watch_for_sweep(gateway):
    """Draining and the kill switch each cancel, once, all that is open when they are first seen."""
    session = gateway.session
    draining = 1 if load_acquire(gateway.control, PHASE) == PHASE_DRAINING else 0
    killed = 1 if load_acquire(gateway.control, KILL) != 0 else 0
    if draining > session[DRAIN_SEEN] or killed > session[KILL_SEEN]:
        # Ids older than a table ago have lost their places, and with them are done.
        session[SWEEP_NEXT] = max(session[LAST_ID] - gateway.table.shape[0] + 1, 1)
        session[SWEEP_END] = session[LAST_ID]
    session[DRAIN_SEEN] = draining
    session[KILL_SEEN] = killed


@njit(cache=True, _nrt=False)
def sweep(gateway, tsc):
    """Cancel open orders, some at a time, each once. Returns how many were cancelled."""
    session, table = gateway.session, gateway.table
    cancelled = 0
    for _ in range(SWEEP_PLACES_PER_STEP):
        if session[SWEEP_NEXT] > session[SWEEP_END] or session[PENDING_BYTES] != 0:
            break
        if cancelled == SWEEP_CANCELS_PER_STEP:
            break
        entry = table[session[SWEEP_NEXT] & (table.shape[0] - 1)]
        session[SWEEP_NEXT] += 1
        if entry.state != FREE and entry.state != DONE and entry.marks & CANCEL_SENT == 0:
            entry.marks |= CANCEL_PENDING | CANCEL_SENT
            settle(entry)
            encode_cancel(gateway.wire, entry.order_id, 0)
            send(session, gateway.wire, gateway.stats, CANCEL_AT, CANCEL_BYTES, tsc)
            gateway.stats[0].sent += 1
            gateway.stats[0].cancels_on_drain += 1
            cancelled += 1
    return cancelled


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_drained(gateway):
    """Whether the instance drains and nothing is open, under way or untold any more."""
    session = gateway.session
    drained = 0
    if session[DRAIN_SEEN] != 0 and gateway.stats[0].open_orders == 0 and session[PENDING_BYTES] == 0 and session[OWED] == 0:
        drained = 1
    if drained != session[DRAINED]:
        session[DRAINED] = drained
        store_release(gateway.control, DRAINED_WORD, drained)
