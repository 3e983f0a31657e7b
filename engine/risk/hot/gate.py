"""The risk gate: an order in, PASSED or the reason to refuse it out. Nothing is sent that this did not pass.

The checks run from cheap to dear and stop at the first that fails; each has its own reason and counter. What they measure against are
words that were checked before they were written (engine/risk/words.py): a limit is off only where somebody wrote "off". All arithmetic is
in int64 and cannot wrap: prices and quantities are bounded before they are multiplied.

A cancel only ever lowers what is at stake: it needs a session and an open order, and neither phase, kill word, state, book nor rate
can hold it up. A replace is held to what it adds to the order it replaces.

The kernels are inlined and compiled without numba's reference counts (_nrt=False), which would cost more than all checks together.
"""

import numpy as np
from numba import njit

from engine.layout import BUY, MSG_CANCEL, MSG_NEW, MSG_REPLACE, PHASE_TRADING, SELL, TIF_DAY, TIF_IOC
from engine.messages.hot.stamp import wall_ns
from engine.risk.hot.flow import count_cancels, expect_sent, judge_flow
from engine.risk.hot.own import crosses_own
from engine.risk.hot.reasons import (
    PASSED,
    REASON_ILLEGAL,
    REASON_KILLED,
    REASON_KILLED_SCOPE,
    REASON_NO_SESSION,
    REASON_PHASE,
    REASON_QUANTITY,
    REASON_RESTRICTED,
    REASON_SELF_TRADE,
    REASON_SIDE,
    REASON_TIME_IN_FORCE,
    REASON_UNKNOWN_INSTRUMENT,
)
from engine.risk.hot.reference import NOWHERE, judge_collar, place_of, read_reference, see_middle
from engine.risk.hot.rules import judge_state, judge_strategy, refresh
from engine.risk.hot.scopes import covered
from engine.risk.hot.size import judge_size
from engine.risk.hot.stake import judge_stake, revalue
from engine.risk.hot.state import KILL, LINES, OFF, PHASE, SCOPED, SELF_TRADE, SESSION_UP
from shm.atomics import load_acquire, prefetch, prefetch_write

# One cancel. Typed, since a kernel is compiled once more for every literal that it is called with.
ONE = np.int64(1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def expect_order(risk, order):
    """This order will be judged next: ask for the lines that it takes, so that they come together. A send leaves few of them near, and the
    checks would wait for one after the other."""
    instrument = np.int64(order.instrument)
    known = risk.known[instrument]
    prefetch(risk.quotes, instrument)
    prefetch(risk.instruments, instrument)
    prefetch_write(risk.positions, instrument)
    prefetch_write(risk.lines, np.int64(known.place) - 1)
    expect_sent(risk, order)


@njit(cache=True, _nrt=False, forceinline=True)
def check(risk, clock, now_tsc, order, standing, counted_qty, executed_qty):
    """Judge an order, and count the verdict.

    standing is what the gateway's order table says of it (a reason, or PASSED). counted_qty is the quantity that already counts
    against the limits: 0 for a new order, for a replace what may be open of the order it replaces, for a cancel what is open.
    executed_qty is what the chain of a replaced order has executed, which the venue counts as part of the new quantity.
    """
    if order.kind == MSG_CANCEL:
        reason = judge_cancel(risk, order, standing, counted_qty)
        if reason == PASSED:
            count_cancels(risk, ONE, wall_ns(clock, now_tsc))
    else:
        reason = judge_standing(risk, order, standing)
        if reason == PASSED:
            reason = judge_order(risk, clock, now_tsc, order, counted_qty, executed_qty)
    risk.counts[reason] += 1
    return reason


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_cancel(risk, order, standing, open_qty):
    if load_acquire(risk.control, SESSION_UP) == 0:
        return REASON_NO_SESSION
    if standing != PASSED:
        return standing
    if order.qty < 0 or order.qty >= open_qty:
        return REASON_QUANTITY
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_standing(risk, order, standing):
    """Whether an order like this may be sent at all now, whatever its price and quantity."""
    if order.kind != MSG_NEW and order.kind != MSG_REPLACE:
        return REASON_ILLEGAL
    if order.side != BUY and order.side != SELL:
        return REASON_SIDE
    if order.tif != TIF_DAY and order.tif != TIF_IOC:
        return REASON_TIME_IN_FORCE
    if load_acquire(risk.control, KILL) != 0:
        return REASON_KILLED
    if load_acquire(risk.control, PHASE) != PHASE_TRADING:
        return REASON_PHASE
    if load_acquire(risk.control, SESSION_UP) == 0:
        return REASON_NO_SESSION
    reason = judge_state(risk)
    if reason != PASSED:
        return reason
    if standing != PASSED:
        return standing
    return judge_strategy(risk, np.int64(order.strategy))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_order(risk, clock, now_tsc, order, counted_qty, executed_qty):
    """The order itself: its instrument, size and price, what it puts at stake, and what it adds to the flow."""
    place = place_of(risk, order.instrument)
    if place == NOWHERE:
        return REASON_UNKNOWN_INSTRUMENT
    known = risk.known[order.instrument]
    if load_acquire(risk.control, SCOPED) != 0 and covered(risk.control, np.int64(order.strategy), known.symbol) != 0:
        return REASON_KILLED_SCOPE
    if known.restricted != 0:
        return REASON_RESTRICTED
    line = risk.lines[place]
    reason = judge_size(risk.rules, line, order.qty, order.px, executed_qty)
    if reason != PASSED:
        return reason
    reason = read_reference(risk, clock, now_tsc, order.instrument)
    if reason != PASSED:
        return reason
    now_ns = wall_ns(clock, now_tsc)
    reason = judge_collar(risk, place, order.px, now_ns)
    # The quote has moved the mark, and with it the P&L, whatever becomes of this order.
    revalue(risk, place)
    if reason != PASSED:
        return reason
    if risk.rules[SELF_TRADE] != OFF and crosses_own(risk, line, order.side, order.px) != 0:
        return REASON_SELF_TRADE
    increase_qty = order.qty - counted_qty
    reason = judge_stake(risk, place, order.instrument, order.side, increase_qty)
    if reason != PASSED:
        return reason
    return judge_flow(risk, order, increase_qty, now_ns)


@njit(cache=True, _nrt=False)
def watch(risk, clock, now_tsc, turn):
    """Look at one instrument that was ordered, in turn: its mark moves the P&L though nothing is ordered. Call it now and then."""
    if refresh(risk) == 0 or risk.facts[LINES] == 0:
        return
    place = turn % risk.facts[LINES]
    now_ns = wall_ns(clock, now_tsc)
    if read_reference(risk, clock, now_tsc, risk.lines[place].instrument) == PASSED:
        see_middle(risk, place, risk.quote[0].bid_px + risk.quote[0].ask_px, now_ns)
    revalue(risk, place)
