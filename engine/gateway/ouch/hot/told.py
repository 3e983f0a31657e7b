"""What a venue of OUCH 4.2 says: put into the layout of 5.0 behind what was received, and applied there as if 5.0 had said it (venue.py).

A message about a token that is not ours is counted (stats.unknown_reports) and changes nothing; so is what 4.2 alone has, which belongs to
kinds of orders that the gateway does not send. Where it says that shares were traded, it is an execution that our positions lack.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import NOT_FOUND, change_open, find_order, reopen
from engine.gateway.hot.state import (
    ACKNOWLEDGED,
    ADOPTED,
    ANSWERED,
    ASKED,
    ASKED_BEFORE,
    EXPECTED,
    HEAD,
    JUDGING,
    LOOK_NEXT,
    NEXT_REF,
    NEXT_TOLD,
    PRESUMED_DEAD,
    RECONCILE,
)
from engine.gateway.ouch.bridge import END, FROM_BYTES, NAME_FROM, NAME_TO, ORIG_FROM, ORIG_TO, PLANS, REPORTS_TO_50, TO_BYTES
from engine.gateway.ouch.hot.encode import ENTER_42_TOKEN, ENTER_AT
from engine.gateway.ouch.hot.translate import NUMBER_AT, NUMBER_DIGITS, STRATEGY_DIGITS, TRADER_AT, TRADER_BYTES, digits_at, translate
from engine.gateway.ouch.hot.venue import (
    ACCEPTED_CODE,
    ACCEPTED_QTY,
    APPLIED,
    EXECUTED_CODE,
    REJECTED_CODE,
    REPLACED_CODE,
    TOO_SHORT,
    apply,
    is_replaying,
)
from engine.gateway.ouch.v42 import EXECUTED_AT_REFERENCE, TRADE_CORRECTED
from engine.wire.hot.bytes import get_u32, put_u32

# Room for a message behind what is received: the largest of 5.0 has 68 bytes.
SCRATCH_BYTES = 128
NOT_OURS = 0


@njit(cache=True, _nrt=False)
def apply_42(gateway, clock, at, length):
    """Apply the message of OUCH 4.2 of `length` bytes at inbound[at:]. Returns what apply (venue.py) does."""
    session, inbound, stats = gateway.session, gateway.inbound, gateway.stats
    code = np.int64(inbound[at])
    if PLANS[REPORTS_TO_50, code, END] == 0:
        return pass_over(stats, code)
    if length < PLANS[REPORTS_TO_50, code, FROM_BYTES]:
        return TOO_SHORT
    to = inbound.shape[0] - SCRATCH_BYTES
    translate(REPORTS_TO_50, code, inbound, at, inbound, to)
    user_ref = np.int64(NOT_OURS)
    token = at
    if PLANS[REPORTS_TO_50, code, NAME_FROM] != 0:
        token = at + PLANS[REPORTS_TO_50, code, NAME_FROM]
        user_ref = named_by(gateway, token)
        if user_ref == NOT_OURS:
            return pass_over(stats, code)
        put_u32(inbound, to + PLANS[REPORTS_TO_50, code, NAME_TO], user_ref)
        if PLANS[REPORTS_TO_50, code, ORIG_FROM] != 0:
            orig_ref = named_by(gateway, at + PLANS[REPORTS_TO_50, code, ORIG_FROM])
            put_u32(inbound, to + PLANS[REPORTS_TO_50, code, ORIG_TO], orig_ref)
        if code == ACCEPTED_CODE:
            revive(gateway, user_ref, get_u32(inbound, to + ACCEPTED_QTY))
    outcome = apply(gateway, clock, to, PLANS[REPORTS_TO_50, code, TO_BYTES])
    if outcome == APPLIED and user_ref != NOT_OURS:
        note_name(gateway, user_ref, digits_at(inbound, token, np.int64(STRATEGY_DIGITS)))
        if user_ref >= session[ASKED_BEFORE] and code in (ACCEPTED_CODE, REPLACED_CODE, REJECTED_CODE):
            note_answer(session)
    return outcome


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def pass_over(stats, code):
    """Count a message that is not about an order of ours."""
    stats[0].unknown_reports += 1
    if code in (EXECUTED_CODE, EXECUTED_AT_REFERENCE, TRADE_CORRECTED):
        stats[0].unknown_executions += 1
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def named_by(gateway, at):
    """The user_ref in the token at inbound[at:], or NOT_OURS: not in our form, of another trader, or of another strategy than its order."""
    inbound, wire = gateway.inbound, gateway.wire
    strategy = digits_at(inbound, at, np.int64(STRATEGY_DIGITS))
    user_ref = digits_at(inbound, at + NUMBER_AT, np.int64(NUMBER_DIGITS))
    if strategy < 0 or user_ref < 1:
        return np.int64(NOT_OURS)
    for byte in range(TRADER_AT, TRADER_AT + TRADER_BYTES):
        if inbound[at + byte] != wire[ENTER_AT + ENTER_42_TOKEN + byte]:
            return np.int64(NOT_OURS)
    index = find_order(gateway.table, user_ref)
    if index != NOT_FOUND and gateway.table[index].strategy != strategy:
        return np.int64(NOT_OURS)
    return user_ref


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_name(gateway, user_ref, strategy):
    """While the venue tells again: the numbers that it was told are used up, and an order of an earlier life is its strategy's, without
    which its token could not be written."""
    if not is_replaying(gateway.session):
        return
    gateway.session[NEXT_REF] = max(gateway.session[NEXT_REF], user_ref + 1)
    index = find_order(gateway.table, user_ref)
    if index != NOT_FOUND and gateway.table[index].marks & ADOPTED != 0:
        gateway.table[index].strategy = strategy


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_answer(session):
    """The venue has answered what was sent after our cancels of orders that it did not know: it has read those."""
    if session[ASKED] != 0 and session[ANSWERED] == 0:
        session[ANSWERED] = 1
        session[LOOK_NEXT] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def revive(gateway, user_ref, qty):
    """An order that was given up as one that never arrived is accepted after all: what the venue says lives does, and counts."""
    index = find_order(gateway.table, user_ref)
    if index == NOT_FOUND:
        return
    entry = gateway.table[index]
    if entry.marks & PRESUMED_DEAD == 0 or entry.marks & ACKNOWLEDGED != 0:
        return
    entry.marks &= ~PRESUMED_DEAD & 0xFF
    entry.open = qty
    reopen(gateway, index)
    change_open(gateway, entry.instrument, entry.side, qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_replay(session):
    """The venue has nothing more to tell: a heartbeat comes when nothing waits, and what it had when it was last asked has come."""
    if is_replaying(session) and session[EXPECTED] >= session[HEAD]:
        session[NEXT_TOLD] = session[NEXT_REF]
        session[RECONCILE] = JUDGING
        session[LOOK_NEXT] = 0
