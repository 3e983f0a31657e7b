"""What holds orders back, and what becomes of those that wait: off the ring into the queue, and out of it again unsent.

orders ring ──▶ let_wait ──▶ queue ──▶ take_order (take.py), when it is its turn
                               └─────▶ withdraw: cancelled before it was sent, or killed, or the session went

Nothing here sends. A waiting order is in no table and counts against no limit: the gate judges it when it is to be sent, by the books,
limits and switches of that moment.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import NOT_FOUND, chain_open, find_open, head_of
from engine.gateway.hot.queue import (
    AGGRESSIVE,
    CANCELS,
    FIRST,
    LANES,
    NOWHERE,
    PASSIVE,
    REDUCING,
    WAITING,
    enqueue,
    leave,
    place_waiting,
)
from engine.gateway.hot.reports import draft, refuse
from engine.gateway.hot.state import LAST_ID
from engine.layout import BUY, MSG_CANCEL, MSG_CANCELLED, MSG_REPLACE, PHASE_TRADING
from engine.messages.hot.stamp import published_at, wall_ns
from engine.risk.hot.reasons import REASON_DUPLICATE_ID, REASON_QUEUE_FULL, REASON_WITHDRAWN
from engine.risk.hot.stake import is_reducing
from engine.risk.hot.state import KILL, PHASE, SESSION_UP
from shm.atomics import load_acquire
from shm.hot import EMPTY, advance, board_read, commit, has_room, poll, record, release

# Orders off the ring, and out of the queue unsent, in one turn.
TENDED_PER_STEP = 64

HOP_ORDER_RING = 3

# What becomes of a cancel (follow_order).
TO_SEND = 0
ON_THE_WAY = 1
DONE = 2


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tend(gateway, clock, tsc):
    """Take in what is on the ring, so that what is urgent overtakes, and let go of what may not be sent any more. Returns how many."""
    done = 0
    control = gateway.control
    if load_acquire(control, KILL) != 0 or load_acquire(control, PHASE) != PHASE_TRADING or load_acquire(control, SESSION_UP) == 0:
        done += withdraw_all(gateway, clock, tsc)
    taken = 0
    while taken < TENDED_PER_STEP:
        index = poll(gateway.orders)
        if index == EMPTY:
            break
        if not has_room(gateway.reports, 1):
            gateway.stats[0].ring_waits += 1
            break
        if let_wait(gateway, clock, gateway.orders.slots[index], tsc) == 0:
            break
        advance(gateway.orders)
        taken += 1
    if taken != 0:
        release(gateway.orders)
    return done + taken


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def let_wait(gateway, clock, order, tsc):
    """Let an order of the ring wait, or say why not. 0 where it has to stay on the ring: a cancel for which there is no place."""
    queue, session, stats = gateway.queue, gateway.session, gateway.stats
    order_id = np.int64(order.order_id)
    if order.kind == MSG_CANCEL:
        place = place_waiting(queue, order_id)
        # What lowers the quantity of an order that waits has to stay behind it.
        lane = np.int64(CANCELS) if place == NOWHERE or order.qty == 0 else np.int64(queue.links[place].lane)
        entered = enqueue(queue, order, lane, tsc)
        if entered == NOWHERE:
            return 0
        while has_room(gateway.reports, 1) and follow_order(gateway, clock, entered, tsc) == ON_THE_WAY:
            pass
    elif order_id <= session[LAST_ID]:
        turn_away(gateway, clock, order, REASON_DUPLICATE_ID)
    else:
        session[LAST_ID] = order_id
        if enqueue(queue, order, lane_of(gateway, order), tsc) == NOWHERE:
            turn_away(gateway, clock, order, REASON_QUEUE_FULL)
    stats[0].orders += 1
    stats[0].waiting_most = max(stats[0].waiting_most, queue.words[WAITING])
    published_tsc = published_at(order)
    if published_tsc >= 0:
        record(gateway.hops[HOP_ORDER_RING], tsc - published_tsc)
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def turn_away(gateway, clock, order, reason):
    """A refusal that needs no look at the order itself."""
    gateway.risk.counts[reason] += 1
    refuse(gateway.reports, gateway.stats, clock, np.int64(order.origin_tsc), order, reason, np.int64(0))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def withdraw(gateway, clock, place, tsc):
    """Take an order out of the queue unsent, and say so. Returns the id that it was to replace, 0 for a new order.

    A new order is told as cancelled. A replace is told as rejected: the order that it was to replace lives on.
    """
    order = gateway.queue.orders[place]
    leave(gateway.queue, place)
    gateway.stats[0].withdrawn += 1
    if order.kind == MSG_REPLACE:
        turn_away(gateway, clock, order, REASON_WITHDRAWN)
        return np.int64(order.target_id)
    gateway.risk.counts[REASON_WITHDRAWN] += 1
    ts_ns = wall_ns(clock, tsc)
    index = draft(gateway.reports, clock, np.int64(order.origin_tsc), ts_ns, order.instrument, order.side, order.order_id)
    report = gateway.reports.slots[index]
    report.kind = MSG_CANCELLED
    report.px = order.px
    report.qty = order.qty
    report.reason = REASON_WITHDRAWN
    commit(gateway.reports, index)
    return np.int64(0)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def withdraw_all(gateway, clock, tsc):
    """No order may be sent: those that wait are done. Cancels wait on, and partial ones keep what is behind them for the next turn."""
    queue = gateway.queue
    gone = 0
    for lane in range(REDUCING, LANES):
        while gone < TENDED_PER_STEP and has_room(gateway.reports, 1):
            place = queue.words[FIRST + lane]
            if place == NOWHERE or queue.orders[place].kind == MSG_CANCEL:
                break
            withdraw(gateway, clock, place, tsc)
            gone += 1
    return gone


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def follow_order(gateway, clock, place, tsc):
    """Where the cancel at this place of the queue is about an order that waits too, that is withdrawn: the cancel is DONE with a new order,
    and ON_THE_WAY to what a replace was to replace. Else it is TO_SEND, as is one of a part of an order."""
    queue = gateway.queue
    target = place_waiting(queue, np.int64(queue.orders[place].order_id))
    if queue.orders[place].qty != 0 or target == NOWHERE:
        return TO_SEND
    target_id = withdraw(gateway, clock, target, tsc)
    if target_id == 0:
        leave(queue, place)
        return DONE
    queue.orders[place].order_id = target_id
    return ON_THE_WAY


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def lane_of(gateway, order):
    """How urgent an order is, by the position and the quote as they are when it comes. One that replaces what waits stays behind it."""
    queue, risk = gateway.queue, gateway.risk
    increase_qty = order.qty
    if order.kind == MSG_REPLACE:
        target_id = np.int64(order.target_id)
        place = place_waiting(queue, target_id)
        if place != NOWHERE:
            return np.int64(queue.links[place].lane)
        target = find_open(gateway, target_id)
        if target != NOT_FOUND:
            increase_qty -= chain_open(gateway.table, head_of(gateway.table, target))
    if order.instrument >= gateway.positions.shape[0] or order.instrument >= risk.quotes.shape[0]:
        return np.int64(PASSIVE)
    if is_reducing(gateway.positions[order.instrument], order.side, increase_qty) != 0:
        return np.int64(REDUCING)
    if board_read(risk.quotes, order.instrument, risk.quote) <= 0:
        return np.int64(PASSIVE)
    quote = risk.quote[0]
    if order.side == BUY:
        crosses = quote.ask_sz > 0 and order.px >= quote.ask_px
    else:
        crosses = quote.bid_sz > 0 and order.px <= quote.bid_px
    return np.int64(AGGRESSIVE) if crosses else np.int64(PASSIVE)
