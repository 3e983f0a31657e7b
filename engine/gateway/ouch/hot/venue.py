"""What the venue says of our orders: OUCH messages applied to the order table and the positions, and told on the reports ring.

Each function takes a message at inbound[at:] that is at least as long as its table says. The caller has made sure of room for the
two reports that one message can cause at most. Reports come in the venue's own order, so when an order is done nothing after that can
replace it: its replacements are presumed dead and their rejection is told at once (session[OWED]), whether the venue spells it out or not.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.executions import NO_ROOM, book_execution, find_execution, remember, unbook_execution
from engine.gateway.hot.orders import (
    NOT_FOUND,
    chain_open,
    change_open,
    find_order,
    finish,
    head_of,
    reopen,
    settle,
    trade_chain,
)
from engine.gateway.hot.reports import draft, publish, refuse_by_venue
from engine.gateway.hot.state import (
    ACKNOWLEDGED,
    ADOPTED,
    CANCEL_PENDING,
    CANCEL_SENT,
    CANCELLED,
    COUNTED,
    ENDED,
    EXECUTIONS,
    EXPECTED,
    FILLED,
    HEAD,
    JUDGING,
    LATE_ANSWER,
    LOOK_NEXT,
    MIDNIGHT_NS,
    NEXT_REF,
    NEXT_TOLD,
    OWED,
    PRESUMED_DEAD,
    QUERY_DUE,
    RECEIVED_TSC,
    RECONCILE,
    REPORTED,
    STATE,
    UP,
)
from engine.gateway.hot.state import REJECTED as ORDER_REJECTED
from engine.gateway.hot.state import REPLACED as ORDER_REPLACED
from engine.gateway.ouch.hot.adopt import adopt_chain, adopt_told, is_replaying
from engine.gateway.ouch.v50 import (
    ACCEPTED,
    ACCOUNT_QUERY_RESPONSE,
    AIQ_CANCELED,
    BROKEN,
    CANCEL_PENDING_NOTICE,
    CANCEL_REJECTED,
    CANCELED,
    EXECUTED,
    PRIORITY_UPDATE,
    REJECTED,
    REPLACED,
    RESTATED,
    STATE_DEAD,
    SYSTEM_EVENT,
)
from engine.layout import MSG_ACCEPTED, MSG_BROKEN, MSG_CANCELLED, MSG_EXECUTED, MSG_REPLACED
from engine.messages.hot.stamp import wall_ns
from engine.risk.hot.own import relist
from engine.risk.hot.reasons import REASON_DEAD_ON_ARRIVAL, REASON_REPLACED_ORDER_DONE, VENUE_REASONS
from engine.wire.hot.bytes import get_u16, get_u32, get_u64
from shm.hot import board_close, board_open, record

# What applying a message comes to.
APPLIED = 0
TOO_SHORT = 1
SET_FULL = 2
# Or TABLE_FULL or NOT_NAMED_YET (adopt.py).

HOP_EXCHANGE_TO_REPORT = 6

TIMESTAMP = ACCEPTED["timestamp"]

ACCEPTED_CODE, ACCEPTED_BYTES = ACCEPTED.code, ACCEPTED.length
ACCEPTED_ORDER_REF, ACCEPTED_SYMBOL, ACCEPTED_SIDE = ACCEPTED["order_ref"], ACCEPTED["symbol"], ACCEPTED["side"]
ACCEPTED_REF, ACCEPTED_QTY, ACCEPTED_PX, ACCEPTED_STATE = ACCEPTED["user_ref"], ACCEPTED["quantity"], ACCEPTED["px"], ACCEPTED["state"]

REPLACED_CODE, REPLACED_BYTES = REPLACED.code, REPLACED.length
REPLACED_ORIG, REPLACED_REF = REPLACED["orig_user_ref"], REPLACED["user_ref"]
REPLACED_SYMBOL, REPLACED_SIDE = REPLACED["symbol"], REPLACED["side"]
REPLACED_QTY, REPLACED_PX, REPLACED_STATE = REPLACED["quantity"], REPLACED["px"], REPLACED["state"]

CANCELED_CODE, CANCELED_BYTES = CANCELED.code, CANCELED.length
CANCELED_REF, CANCELED_QTY, CANCELED_REASON = CANCELED["user_ref"], CANCELED["quantity"], CANCELED["reason"]
AIQ_CODE, AIQ_BYTES = AIQ_CANCELED.code, AIQ_CANCELED.length

EXECUTED_CODE, EXECUTED_BYTES = EXECUTED.code, EXECUTED.length
EXECUTED_REF, EXECUTED_QTY, EXECUTED_PX = EXECUTED["user_ref"], EXECUTED["quantity"], EXECUTED["px"]
EXECUTED_LIQUIDITY, EXECUTED_MATCH = EXECUTED["liquidity"], EXECUTED["match"]

BROKEN_CODE, BROKEN_BYTES = BROKEN.code, BROKEN.length
BROKEN_REF, BROKEN_MATCH, BROKEN_REASON = BROKEN["user_ref"], BROKEN["match"], BROKEN["reason"]

REJECTED_CODE, REJECTED_BYTES = REJECTED.code, REJECTED.length
REJECTED_REF, REJECTED_REASON = REJECTED["user_ref"], REJECTED["reason"]

CANCEL_REJECTED_CODE, CANCEL_REJECTED_BYTES = CANCEL_REJECTED.code, CANCEL_REJECTED.length
CANCEL_REJECTED_REF = CANCEL_REJECTED["user_ref"]

QUERY_RESPONSE_CODE, QUERY_RESPONSE_BYTES = ACCOUNT_QUERY_RESPONSE.code, ACCOUNT_QUERY_RESPONSE.length
QUERY_RESPONSE_NEXT = ACCOUNT_QUERY_RESPONSE["next_user_ref"]

# Messages that change neither what is open nor what was traded.
SYSTEM_EVENT_CODE = SYSTEM_EVENT.code
CANCEL_PENDING_CODE = CANCEL_PENDING_NOTICE.code
PRIORITY_UPDATE_CODE = PRIORITY_UPDATE.code
RESTATED_CODE = RESTATED.code


@njit(cache=True, _nrt=False)
def apply(gateway, clock, at, length):
    """Apply the OUCH message of `length` bytes at inbound[at:]. APPLIED, TOO_SHORT for its type, or SET_FULL."""
    code = gateway.inbound[at]
    if code == EXECUTED_CODE:
        return on_executed(gateway, clock, at) if length >= EXECUTED_BYTES else TOO_SHORT
    if code == ACCEPTED_CODE:
        return on_accepted(gateway, clock, at) if length >= ACCEPTED_BYTES else TOO_SHORT
    if code == REPLACED_CODE:
        return on_replaced(gateway, clock, at) if length >= REPLACED_BYTES else TOO_SHORT
    if code == CANCELED_CODE:
        return on_canceled(gateway, clock, at) if length >= CANCELED_BYTES else TOO_SHORT
    if code == AIQ_CODE:
        # It begins as a cancel does: order, quantity taken off, reason.
        return on_canceled(gateway, clock, at) if length >= AIQ_BYTES else TOO_SHORT
    if code == REJECTED_CODE:
        return on_rejected(gateway, clock, at) if length >= REJECTED_BYTES else TOO_SHORT
    if code == BROKEN_CODE:
        return on_broken(gateway, clock, at) if length >= BROKEN_BYTES else TOO_SHORT
    if code == CANCEL_REJECTED_CODE:
        return on_cancel_rejected(gateway, at) if length >= CANCEL_REJECTED_BYTES else TOO_SHORT
    if code == QUERY_RESPONSE_CODE:
        return on_query_response(gateway.session, gateway.inbound, at) if length >= QUERY_RESPONSE_BYTES else TOO_SHORT
    if code != SYSTEM_EVENT_CODE and code != CANCEL_PENDING_CODE and code != PRIORITY_UPDATE_CODE and code != RESTATED_CODE:
        gateway.stats[0].unknown_reports += 1
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def venue_ns(session, inbound, at):
    """When the venue says it was, in nanoseconds since the epoch."""
    return session[MIDNIGHT_NS] + get_u64(inbound, at + TIMESTAMP)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def time_first_report(gateway, entry):
    if entry.marks & REPORTED == 0:
        entry.marks |= REPORTED
        if entry.marks & ADOPTED == 0:
            record(gateway.hops[HOP_EXCHANGE_TO_REPORT], gateway.session[RECEIVED_TSC] - entry.sent_tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def draft_for(gateway, clock, at, entry):
    """A draft of the report that the message at inbound[at:] makes about an order: its limit, and what is open of it."""
    session, reports = gateway.session, gateway.reports
    ts_ns = venue_ns(session, gateway.inbound, at)
    index = draft(reports, clock, session[RECEIVED_TSC], ts_ns, entry.instrument, entry.side, entry.order_id)
    reports.slots[index].px = entry.px
    reports.slots[index].qty = entry.open
    return index


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def settle_chain(gateway, head, index, ended):
    """After a message about the order at place `index` of the chain that begins at `head`: what the chain counts for now. With nothing
    open it has come to the end that the message tells."""
    table = gateway.table
    entry = table[index]
    if entry.open > 0:
        settle(gateway.stats, entry)
        return chain_open(table, head)
    if index != head:
        target = table[entry.replaces & (table.shape[0] - 1)]
        target.replaced_by = 0
        settle(gateway.stats, target)
        entry.replaces = 0
    gateway.session[OWED] = finish(gateway, index, ended)
    return chain_open(table, head)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_query_response(session, inbound, at):
    """The venue has told all that it had: no order at or above this number ever arrived. An answer that an earlier life asked for is
    passed over; where it may be one (life.py), that of a second query is waited for."""
    if is_replaying(session) and session[EXPECTED] == session[HEAD]:
        session[QUERY_DUE] = 1
        session[LATE_ANSWER] = 1
    elif not is_replaying(session):
        session[LATE_ANSWER] = 0
    elif session[EXPECTED] > session[HEAD]:
        session[NEXT_TOLD] = get_u32(inbound, at + QUERY_RESPONSE_NEXT)
        session[NEXT_REF] = max(session[NEXT_REF], session[NEXT_TOLD])
        session[RECONCILE] = JUDGING
        session[LOOK_NEXT] = 0
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_listed(gateway, clock, at, index, px, open_qty, kind, ref_id, state):
    """The order stands in the venue's book at this price, with so much open, or did for a moment: into the table, and told."""
    entry = gateway.table[index]
    entry.marks |= ACKNOWLEDGED
    version = board_open(gateway.table, index)
    entry.px = px
    entry.open = open_qty
    board_close(gateway.table, index, version)
    relist(gateway.risk, index, entry.px)
    time_first_report(gateway, entry)
    report = draft_for(gateway, clock, at, entry)
    gateway.reports.slots[report].kind = kind
    gateway.reports.slots[report].ref_id = ref_id
    publish(gateway.reports, report, entry)
    if state == STATE_DEAD:
        tell_dead_on_arrival(gateway, clock, at, entry)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_accepted(gateway, clock, at):
    inbound, table, stats, session = gateway.inbound, gateway.table, gateway.stats, gateway.session
    user_ref = get_u32(inbound, at + ACCEPTED_REF)
    index = find_order(table, user_ref)
    qty = get_u32(inbound, at + ACCEPTED_QTY)
    if index == NOT_FOUND:
        if not is_replaying(session):
            stats[0].unknown_reports += 1
            return APPLIED
        index = adopt_told(gateway, user_ref, at, ACCEPTED_SYMBOL, ACCEPTED_SIDE, ACCEPTED_PX)
        if index < 0:
            return -index
        open_qty = qty
    else:
        open_qty = min(table[index].open, qty)
    entry = table[index]
    if entry.marks & ACKNOWLEDGED != 0 or entry.state >= ENDED:
        stats[0].duplicates += 1
        return APPLIED
    head = head_of(table, index)
    before = chain_open(table, head)
    stats[0].accepted += 1
    if session[STATE] == UP and user_ref >= session[NEXT_TOLD]:
        # Sent after the last query of this session, and answered in turn: no answer is still to come.
        session[LATE_ANSWER] = 0
    px, ref_id, state = get_u64(inbound, at + ACCEPTED_PX), get_u64(inbound, at + ACCEPTED_ORDER_REF), inbound[at + ACCEPTED_STATE]
    tell_listed(gateway, clock, at, index, px, open_qty, np.int64(MSG_ACCEPTED), ref_id, state)
    change_open(gateway, entry.instrument, entry.side, settle_chain(gateway, head, index, CANCELLED) - before)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_dead_on_arrival(gateway, clock, at, entry):
    gateway.stats[0].cancelled += 1
    report = draft_for(gateway, clock, at, entry)
    gateway.reports.slots[report].kind = MSG_CANCELLED
    gateway.reports.slots[report].reason = REASON_DEAD_ON_ARRIVAL
    publish(gateway.reports, report, entry)
    entry.open = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_executed(gateway, clock, at):
    inbound, table, stats = gateway.inbound, gateway.table, gateway.stats
    user_ref = get_u32(inbound, at + EXECUTED_REF)
    match = get_u64(inbound, at + EXECUTED_MATCH)
    place = find_execution(gateway.executions, match, user_ref)
    if place == NO_ROOM:
        return SET_FULL
    if gateway.executions[place].state != 0:
        stats[0].duplicates += 1
        return APPLIED
    index = find_order(table, user_ref)
    if index == NOT_FOUND:
        stats[0].unknown_reports += 1
        stats[0].unknown_executions += 1
        return APPLIED
    entry = table[index]
    qty = get_u32(inbound, at + EXECUTED_QTY)
    px = get_u64(inbound, at + EXECUTED_PX)
    remember(gateway.executions[place], match, px, qty, entry)
    gateway.session[EXECUTIONS] += 1
    change = 0
    if entry.state < ENDED:
        head = head_of(table, index)
        before = chain_open(table, head)
        trade_chain(table, index, qty)
        change = settle_chain(gateway, head, index, FILLED) - before
    book_execution(gateway.risk, gateway.positions, entry.instrument, entry.side, qty, px, change)
    time_first_report(gateway, entry)
    stats[0].executed += 1
    report = draft_for(gateway, clock, at, entry)
    told = gateway.reports.slots[report]
    told.kind = MSG_EXECUTED
    told.px = px
    told.qty = qty
    told.liquidity = inbound[at + EXECUTED_LIQUIDITY]
    told.ref_id = match
    publish(gateway.reports, report, entry)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_canceled(gateway, clock, at):
    inbound, table, stats = gateway.inbound, gateway.table, gateway.stats
    index = find_order(table, get_u32(inbound, at + CANCELED_REF))
    if index == NOT_FOUND:
        stats[0].unknown_reports += 1
        return APPLIED
    entry = table[index]
    if entry.state >= ENDED:
        stats[0].duplicates += 1
        return APPLIED
    head = head_of(table, index)
    before = chain_open(table, head)
    qty = get_u32(inbound, at + CANCELED_QTY)
    entry.open = max(entry.open - qty, 0)
    entry.marks &= ~CANCEL_PENDING & 0xFF
    time_first_report(gateway, entry)
    stats[0].cancelled += 1
    report = draft_for(gateway, clock, at, entry)
    told = gateway.reports.slots[report]
    told.kind = MSG_CANCELLED
    told.qty = qty
    told.reason = VENUE_REASONS + np.int64(inbound[at + CANCELED_REASON])
    publish(gateway.reports, report, entry)
    change_open(gateway, entry.instrument, entry.side, settle_chain(gateway, head, index, CANCELLED) - before)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_replaced(gateway, clock, at):
    inbound, table, stats = gateway.inbound, gateway.table, gateway.stats
    target_ref = get_u32(inbound, at + REPLACED_ORIG)
    target = find_order(table, target_ref)
    target_id = np.int64(table[target].order_id) if target != NOT_FOUND else np.int64(0)
    user_ref = get_u32(inbound, at + REPLACED_REF)
    index = find_order(table, user_ref)
    qty = get_u32(inbound, at + REPLACED_QTY)
    if index == NOT_FOUND:
        if not is_replaying(gateway.session):
            stats[0].unknown_reports += 1
            return APPLIED
        index = adopt_told(gateway, user_ref, at, REPLACED_SYMBOL, REPLACED_SIDE, REPLACED_PX)
        if index < 0:
            return -index
        adopt_chain(table, target, index)
    entry = table[index]
    if entry.marks & ACKNOWLEDGED != 0:
        stats[0].duplicates += 1
        return APPLIED
    before = 0
    open_qty = qty
    if entry.marks & PRESUMED_DEAD != 0:
        # Presumed wrongly: what the venue says lives does, and counts.
        entry.marks &= ~PRESUMED_DEAD & 0xFF
        reopen(gateway, index)
    elif entry.marks & ADOPTED == 0 or entry.replaces != 0:
        if target == NOT_FOUND or entry.replaces != target_ref or table[target].replaces != 0:
            stats[0].unknown_reports += 1
            return APPLIED
        before = chain_open(table, target)
        table[target].replaced_by = 0
        finish(gateway, target, ORDER_REPLACED)
        entry.replaces = 0
        # A venue may name the whole quantity of the chain here, or what is open of it: the smaller one is what is open.
        if entry.marks & ADOPTED == 0:
            open_qty = min(entry.open, qty)
    stats[0].replaced += 1
    px, state = get_u64(inbound, at + REPLACED_PX), inbound[at + REPLACED_STATE]
    tell_listed(gateway, clock, at, index, px, open_qty, np.int64(MSG_REPLACED), target_id, state)
    change_open(gateway, entry.instrument, entry.side, settle_chain(gateway, index, index, CANCELLED) - before)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_rejected(gateway, clock, at):
    inbound, table, stats, session = gateway.inbound, gateway.table, gateway.stats, gateway.session
    index = find_order(table, get_u32(inbound, at + REJECTED_REF))
    if index == NOT_FOUND:
        stats[0].unknown_reports += 1
        return APPLIED
    entry = table[index]
    if entry.marks & PRESUMED_DEAD != 0:
        # Its rejection was told when its order was done.
        entry.marks &= ~PRESUMED_DEAD & 0xFF
        return APPLIED
    if entry.state >= ENDED:
        stats[0].duplicates += 1
        return APPLIED
    if entry.marks & ACKNOWLEDGED != 0:
        # What was accepted can be cancelled or traded, and no longer be rejected.
        stats[0].illegal_moves += 1
        return APPLIED
    time_first_report(gateway, entry)
    head = head_of(table, index)
    before = chain_open(table, head)
    entry.open = 0
    change_open(gateway, entry.instrument, entry.side, settle_chain(gateway, head, index, ORDER_REJECTED) - before)
    reason = VENUE_REASONS + get_u16(inbound, at + REJECTED_REASON)
    refuse_by_venue(gateway.reports, stats, clock, session[RECEIVED_TSC], venue_ns(session, inbound, at), entry, reason, 0)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_cancel_rejected(gateway, at):
    """The venue cannot cancel now: the order lives on."""
    index = find_order(gateway.table, get_u32(gateway.inbound, at + CANCEL_REJECTED_REF))
    if index == NOT_FOUND or gateway.table[index].state >= ENDED:
        gateway.stats[0].unknown_reports += 1
        return APPLIED
    entry = gateway.table[index]
    entry.marks &= ~(CANCEL_PENDING | CANCEL_SENT) & 0xFF
    settle(gateway.stats, entry)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def on_broken(gateway, clock, at):
    inbound, stats, session = gateway.inbound, gateway.stats, gateway.session
    match = get_u64(inbound, at + BROKEN_MATCH)
    place = find_execution(gateway.executions, match, get_u32(inbound, at + BROKEN_REF))
    if place == NO_ROOM or gateway.executions[place].state == 0:
        stats[0].unknown_reports += 1
        return APPLIED
    entry = gateway.executions[place]
    if entry.state != COUNTED:
        stats[0].duplicates += 1
        return APPLIED
    unbook_execution(gateway.risk, gateway.positions, entry)
    stats[0].broken += 1
    ts_ns = venue_ns(session, inbound, at)
    report = draft(gateway.reports, clock, session[RECEIVED_TSC], ts_ns, entry.instrument, entry.side, entry.order_id)
    told = gateway.reports.slots[report]
    told.kind = MSG_BROKEN
    told.px = entry.px
    told.qty = np.int64(entry.qty)
    told.reason = VENUE_REASONS + np.int64(inbound[at + BROKEN_REASON])
    told.ref_id = match
    publish(gateway.reports, report, entry)
    return APPLIED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_owed(gateway, clock):
    """The next rejection that a dead replacement is owed."""
    session, table = gateway.session, gateway.table
    entry = table[session[OWED] & (table.shape[0] - 1)]
    session[OWED] = entry.replaced_by
    entry.replaced_by = 0
    entry.replaces = 0
    tsc = session[RECEIVED_TSC]
    refuse_by_venue(gateway.reports, gateway.stats, clock, tsc, wall_ns(clock, tsc), entry, REASON_REPLACED_ORDER_DONE, 0)
