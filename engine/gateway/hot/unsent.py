"""Orders that were judged and encoded, and then kept by a socket that took no bytes: what may not be sent any more is taken back.

    outbox   | sent ... | begun: has to be completed | not begun | not begun |      a kill or a drain takes out what is not begun

So nothing leaves after a kill but the rest of a message that was under way, and cancels.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import NOT_FOUND, chain_open, change_open, head_of, is_open
from engine.gateway.hot.reports import draft
from engine.gateway.hot.state import CANCELLED, OUTBOX_READY, OWED, PENDING_AT, PENDING_BYTES, REJECTED
from engine.gateway.ouch.hot.encode import OUTBOX_AT, SWEEP_AT
from engine.gateway.ouch.hot.venue import settle_chain
from engine.layout import MSG_CANCELLED, MSG_REJECTED, PHASE_DRAINING, REJECTED_BY_RISK
from engine.messages.hot.stamp import wall_ns
from engine.risk.hot.reasons import REASON_WITHDRAWN
from engine.risk.hot.scopes import covered
from engine.risk.hot.state import KILL, PHASE, SCOPED
from shm.atomics import load_acquire
from shm.hot import commit, has_room


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_send_pending(gateway, clock, tsc):
    """Whether what is pending may go on, once all has been taken back that may not. Not before every such order could be told."""
    session, control = gateway.session, gateway.control
    if session[PENDING_AT] < OUTBOX_AT or session[PENDING_AT] >= SWEEP_AT:
        return 1
    stopped = 1 if load_acquire(control, KILL) != 0 or load_acquire(control, PHASE) == PHASE_DRAINING else 0
    if stopped == 0 and load_acquire(control, SCOPED) == 0:
        return 1
    return recall(gateway, clock, tsc, stopped)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def recall(gateway, clock, tsc, stopped):
    """Take back what is not begun and is stopped, and close the gaps. 0 where something of it has to stay for now."""
    session, wire, batch = gateway.session, gateway.wire, gateway.batch
    told_all = 1
    at = np.int64(OUTBOX_AT)
    to = at
    kept = 0
    for number in range(session[OUTBOX_READY]):
        end, place = batch[number].end, batch[number].place
        size = end - at
        if at >= session[PENDING_AT] and place != NOT_FOUND and is_stopped(gateway, place, stopped) != 0:
            if session[OWED] == 0 and has_room(gateway.reports, 1):
                take_back(gateway, clock, tsc, place)
                session[PENDING_BYTES] -= size
                at = end
                continue
            told_all = 0
        if to != at:
            for byte in range(size):
                wire[to + byte] = wire[at + byte]
        to += size
        batch[kept].end = to
        batch[kept].place = place
        kept += 1
        at = end
    session[OUTBOX_READY] = kept
    return told_all


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_stopped(gateway, place, stopped):
    if stopped != 0:
        return 1
    entry = gateway.table[place]
    symbol = np.int64(gateway.risk.instruments[entry.instrument].symbol)
    return covered(gateway.control, np.int64(entry.strategy), symbol)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_back(gateway, clock, tsc, place):
    """End an order that never left, and say so; one that has ended with the order that it was to replace is told by that."""
    table, stats = gateway.table, gateway.stats
    entry = table[place]
    stats[0].sent -= 1
    stats[0].withdrawn += 1
    if not is_open(entry):
        return
    replaces, open_qty = entry.replaces != 0, entry.open
    head = head_of(table, place)
    before = chain_open(table, head)
    entry.open = 0
    left = settle_chain(gateway, head, place, REJECTED if replaces else CANCELLED)
    change_open(gateway, entry.instrument, entry.side, left - before)
    index = draft(gateway.reports, clock, tsc, wall_ns(clock, tsc), entry.instrument, entry.side, entry.order_id)
    report = gateway.reports.slots[index]
    report.kind = MSG_REJECTED if replaces else MSG_CANCELLED
    report.flags = REJECTED_BY_RISK if replaces else 0
    report.px = entry.px
    report.qty = 0 if replaces else open_qty
    report.reason = REASON_WITHDRAWN
    commit(gateway.reports, index)
