"""What is at stake: positions and open orders, at the worst side and at the last good quote; and what was lost.

An instrument may come to  long = position + open to buy  or to  short = open to sell - position,  whichever is more. Open is
everything that may still trade: accepted, on its way, being cancelled or replaced, of unknown fate. Each instrument's share of the
totals is kept in its line and put right whenever its position, its open orders or its mark change, so an order is judged by sums.

    gross = sum of max(long, short) x mark      net = the larger of  sum of long x mark,  sum of short x mark
    P&L = sum of cash + position x mark         margin_pct of gross <= credit, less what is lost

A product that would not fit is taken as the largest one, and a P&L that would not fit as a loss of that: both are beyond every limit.
"""

import numpy as np
from numba import njit

from engine.layout import BUY, RISK_REDUCING
from engine.risk.hot.reasons import (
    PASSED,
    REASON_CREDIT,
    REASON_DAILY_LOSS,
    REASON_DRAWDOWN,
    REASON_GROSS_EXPOSURE,
    REASON_GROSS_POSITION,
    REASON_LOSSES_IN_A_ROW,
    REASON_NET_EXPOSURE,
    REASON_POSITION,
    REASON_REDUCING,
)
from engine.risk.hot.rules import state_of, trip
from engine.risk.hot.state import (
    CREDIT_MAX,
    DAILY_LOSS_MAX,
    DRAWDOWN_MAX,
    EXECUTIONS,
    GROSS,
    GROSS_EXPOSURE_MAX,
    GROSS_POSITION_MAX,
    GROSS_QTY,
    LOSSES,
    LOSSES_MAX,
    MARGIN_PCT,
    NET_EXPOSURE_MAX,
    NET_LONG,
    NET_SHORT,
    OFF,
    PEAK,
    PNL,
    POSITION_MAX,
    TRIP_CLEARED,
    TRIP_REASON,
    TRIPS,
    VALUE_SAFE,
)


@njit(cache=True, _nrt=False, forceinline=True)
def value_of(qty, px, safe):
    """qty x px, held within [-safe, safe]."""
    product = float(qty) * float(px)
    if product > float(safe):
        return safe
    if product < -float(safe):
        return -safe
    return qty * px


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def revalue(risk, place):
    """Put the totals right after a change of an instrument's position, open orders or mark, and look at the losses."""
    line, facts, safe = risk.lines[place], risk.facts, risk.rules[VALUE_SAFE]
    held = risk.positions[line.instrument]
    long_qty = held.position + held.open_buy
    short_qty = held.open_sell - held.position
    worst_qty = max(long_qty, short_qty)
    gross = value_of(worst_qty, line.mark, safe)
    net_long = value_of(long_qty, line.mark, safe)
    net_short = value_of(short_qty, line.mark, safe)
    facts[GROSS] += gross - line.gross
    facts[NET_LONG] += net_long - line.net_long
    facts[NET_SHORT] += net_short - line.net_short
    facts[GROSS_QTY] += worst_qty - line.gross_qty
    line.gross = gross
    line.net_long = net_long
    line.net_short = net_short
    line.gross_qty = worst_qty
    worth = value_of(held.position, line.mark, safe)
    pnl = held.cash + worth if abs(worth) < safe and abs(held.cash) < safe else -safe
    facts[PNL] += pnl - line.pnl
    line.pnl = pnl
    facts[PEAK] = max(facts[PEAK], facts[PNL])
    judge_losses(risk)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_losses(risk):
    """Trip where what was lost is beyond a limit."""
    rules, facts = risk.rules, risk.facts
    if rules[DAILY_LOSS_MAX] != OFF and facts[PNL] < -rules[DAILY_LOSS_MAX]:
        trip(risk, REASON_DAILY_LOSS)
    elif rules[DRAWDOWN_MAX] != OFF and facts[PEAK] - facts[PNL] > rules[DRAWDOWN_MAX]:
        trip(risk, REASON_DRAWDOWN)
    elif rules[LOSSES_MAX] != OFF and facts[LOSSES] > rules[LOSSES_MAX]:
        trip(risk, REASON_LOSSES_IN_A_ROW)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_stake(risk, place, instrument, side, increase_qty):
    """Whether the account may come to what this order adds. A replace that adds nothing passes the limits, but not REDUCING."""
    rules, facts, line, held = risk.rules, risk.facts, risk.lines[place], risk.positions[instrument]
    if state_of(risk) == RISK_REDUCING and is_reducing(held, side, increase_qty) == 0:
        return facts[TRIP_REASON] if facts[TRIPS] > rules[TRIP_CLEARED] else REASON_REDUCING
    if increase_qty <= 0:
        return PASSED
    if side == BUY:
        reached_qty, other_qty = line_long(held) + increase_qty, line_short(held)
    else:
        reached_qty, other_qty = line_short(held) + increase_qty, line_long(held)
    if reached_qty > rules[POSITION_MAX]:
        return REASON_POSITION
    if reached_qty > other_qty:
        # Only then is more at stake at the worst side than before.
        if rules[GROSS_POSITION_MAX] != OFF and facts[GROSS_QTY] - line.gross_qty + reached_qty > rules[GROSS_POSITION_MAX]:
            return REASON_GROSS_POSITION
        gross = facts[GROSS] - line.gross + value_of(reached_qty, line.mark, rules[VALUE_SAFE])
        if rules[GROSS_EXPOSURE_MAX] != OFF and gross > rules[GROSS_EXPOSURE_MAX]:
            return REASON_GROSS_EXPOSURE
        if rules[CREDIT_MAX] != OFF and gross * rules[MARGIN_PCT] > (rules[CREDIT_MAX] + min(facts[PNL], 0)) * 100:
            return REASON_CREDIT
    if rules[NET_EXPOSURE_MAX] != OFF:
        net = facts[NET_LONG] - line.net_long if side == BUY else facts[NET_SHORT] - line.net_short
        if net + value_of(reached_qty, line.mark, rules[VALUE_SAFE]) > rules[NET_EXPOSURE_MAX]:
            return REASON_NET_EXPOSURE
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def line_long(held):
    return held.position + held.open_buy


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def line_short(held):
    return held.open_sell - held.position


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def is_reducing(held, side, increase_qty):
    """Whether the position comes nearer to zero, and not beyond it, even if everything open on this side trades too."""
    if side == BUY:
        return 1 if held.position + held.open_buy + increase_qty <= 0 else 0
    return 1 if held.open_sell + increase_qty <= held.position else 0


@njit(cache=True, _nrt=False)
def position_changed(risk, instrument):
    """Call it after every change of an instrument's position or open orders that is not an order's own."""
    place = np.int64(risk.known[instrument].place) - 1
    if place >= 0:
        revalue(risk, place)


@njit(cache=True, _nrt=False)
def uncount_execution(risk):
    """A trade that was broken is none, and allows for no messages."""
    risk.facts[EXECUTIONS] -= 1


@njit(cache=True, _nrt=False)
def count_execution(risk, instrument, px, position_before, cash_before, position_after):
    """An execution: one more trade of ours; and where the position was closed, a round trip that was won or lost."""
    risk.facts[EXECUTIONS] += 1
    place = np.int64(risk.known[instrument].place) - 1
    if place < 0:
        return
    line = risk.lines[place]
    if line.mark == 0:
        line.mark = px
    if position_before == 0:
        line.trip_cash = cash_before
    elif position_after == 0 or (position_after > 0) != (position_before > 0):
        cash_at_flat = cash_before + position_before * px
        if cash_at_flat < line.trip_cash:
            risk.facts[LOSSES] += 1
        elif cash_at_flat > line.trip_cash:
            risk.facts[LOSSES] = 0
        line.trip_cash = cash_at_flat
