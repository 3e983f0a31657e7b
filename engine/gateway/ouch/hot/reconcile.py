"""Reconciliation: from an accepted login until orders may be sent again.

    REPLAYING   the venue tells what we missed; the account query is asked at once, and its answer stands behind all of that. It says which
                user_ref is next. Orders of an earlier life of this gateway are adopted from what the venue tells of them (venue.py).
    JUDGING     every open order is looked at. One that the venue never spoke of, at or above its next user_ref, never arrived: its strategy
                is told. A cancel that the venue did not act upon until then never will: its strategy is told what stays open.
    CLEARING    what is open of an earlier life is cancelled, and the venue has said so.

An order below the next user_ref of which the venue said nothing stays of unknown fate and goes on counting (stats.unknown_orders): nothing
is guessed, and nothing is sent again.

OUCH 4.2 has no account query. There REPLAYING ends with the first heartbeat of the venue after the sequence has come to HEAD, which a login
before this one asked for (life.py). An order of which nothing was said until then stays UNKNOWN and counts. It is cancelled all the same,
and orders may be sent: the venue ignores a cancel of a token that it does not know. The order is settled (it never arrived) when the venue
answers something that was sent after all those cancels on the same connection; until then, and at the end of a run in which nothing more is
sent, it is reported as one of unknown fate. The next user_ref is the one behind the highest that the venue told.

    proven     nothing that the venue had in its sequence when HEAD was asked for is missed: HEAD is reached. What was sent after the
               cancels and is answered was read after them: TCP and the venue's sequence keep the order. So an order that the venue read
               before those cancels has been spoken of by then.
    assumed    a venue does nothing with bytes of an earlier connection once it has let us in on a later one: without an account query
               nothing rules out that it does. Should it accept an order that was settled, that lives and counts again (told.py); should it
               be one of an earlier life of this process, its token may be used a second time, which the venue ignores.
               A heartbeat says that nothing waits: the venue sends none while it has something else to send.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import NOT_FOUND, chain_open, change_open, head_of, is_open, settle
from engine.gateway.hot.reports import refuse_by_venue
from engine.gateway.hot.state import (
    ACKNOWLEDGED,
    ADOPTED,
    ADOPTED_OPEN,
    ANSWERED,
    ASKED,
    ASKED_BEFORE,
    CANCEL_PENDING,
    CANCEL_SENT,
    CHAIN_MAX,
    CLEARING,
    FAILURES,
    JUDGING,
    LOOK_NEXT,
    NEXT_REF,
    NEXT_TOLD,
    OUCH_42,
    OWED,
    PENDING_BYTES,
    PRESUMED_DEAD,
    PROGRESS_TSC,
    PROTOCOL,
    QUERY_DUE,
    QUESTIONED,
    RECONCILE,
    REJECTED,
    SILENCE_MAX_NS,
    STATE,
    UP,
)
from engine.gateway.ouch.hot.encode import OUTBOX_AT, QUERY_AT, QUERY_BYTES, encode_cancel
from engine.gateway.ouch.hot.life import NOT_RECONCILED, PLACES_PER_STEP, end
from engine.gateway.ouch.hot.send import send
from engine.gateway.ouch.hot.venue import settle_chain
from engine.messages.hot.stamp import ticks_of_ns, wall_ns
from engine.risk.hot.reasons import REASON_NEVER_ARRIVED
from engine.risk.hot.state import SESSION_UP
from shm.atomics import store_release
from shm.hot import has_room


@njit(cache=True, _nrt=False)
def reconcile(gateway, clock, tsc):
    """A turn's work on it. Returns what was done."""
    session = gateway.session
    if session[QUERY_DUE] != 0 and session[PENDING_BYTES] == 0:
        session[QUERY_DUE] = 0
        send(session, gateway.wire, gateway.stats, QUERY_AT, QUERY_BYTES, tsc)
        return 1
    done = 0
    if session[RECONCILE] == JUDGING:
        done = judge_places(gateway, clock, tsc)
        if done != 0:
            session[PROGRESS_TSC] = tsc
        if session[LOOK_NEXT] == gateway.table.shape[0]:
            session[RECONCILE] = CLEARING
    if session[RECONCILE] == CLEARING and session[ADOPTED_OPEN] == 0 and session[OWED] == 0:
        go_live(gateway)
        return done + 1
    if tsc - session[PROGRESS_TSC] > ticks_of_ns(clock, session[SILENCE_MAX_NS]):
        end(gateway, clock, NOT_RECONCILED)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def go_live(gateway):
    """Everything is known: orders may be sent. The sweep sees it too, and begins with what is drained or killed."""
    session = gateway.session
    session[STATE] = UP
    session[FAILURES] = 0
    session[ASKED_BEFORE] = session[NEXT_REF]
    gateway.stats[0].reconciliations += 1
    store_release(gateway.control, SESSION_UP, 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def judge_places(gateway, clock, tsc):
    """Look at the next places of the order table, while what they cause has room. Returns how many."""
    session, table = gateway.session, gateway.table
    looked = 0
    if gateway.stats[0].open_orders == 0:
        session[LOOK_NEXT] = table.shape[0]
    while looked < PLACES_PER_STEP and session[LOOK_NEXT] < table.shape[0]:
        index = session[LOOK_NEXT]
        if is_open(table[index]):
            # One report about the order, and its place in the socket for a cancel of one that was adopted.
            if session[OWED] != 0 or session[PENDING_BYTES] != 0 or not has_room(gateway.reports, 1):
                break
            worst = last_that_never_arrived(session, table, index)
            decide_fate(gateway, clock, tsc, worst if worst != NOT_FOUND else index)
            if worst != NOT_FOUND and worst != index:
                # What it was to replace is looked at next.
                continue
        session[LOOK_NEXT] += 1
        looked += 1
    return looked


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def last_that_never_arrived(session, table, index):
    """The last of the replacements that follow an order, or it itself, if it never arrived: its place, or NOT_FOUND. What follows one that
    never arrived did not arrive either, and each is told for itself."""
    for _ in range(CHAIN_MAX):
        if table[index].replaced_by == 0:
            break
        index = table[index].replaced_by & (table.shape[0] - 1)
    if table[index].marks & ACKNOWLEDGED == 0 and table[index].user_ref >= session[NEXT_TOLD]:
        return index
    return NOT_FOUND


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def decide_fate(gateway, clock, tsc, index):
    """One open order, after all that the venue had to tell."""
    session, table, stats = gateway.session, gateway.table, gateway.stats
    entry = table[index]
    if entry.marks & ACKNOWLEDGED == 0 and entry.user_ref >= session[NEXT_TOLD]:
        give_up(gateway, clock, tsc, index)
        return
    if entry.marks & ACKNOWLEDGED == 0 and session[PROTOCOL] == OUCH_42:
        entry.marks |= QUESTIONED
        session[ASKED] += 1
        cancel_whole(gateway, tsc, index)
        return
    if entry.marks & CANCEL_PENDING != 0:
        entry.marks &= ~(CANCEL_PENDING | CANCEL_SENT) & 0xFF
        refuse_by_venue(gateway.reports, stats, clock, tsc, wall_ns(clock, tsc), entry, REASON_NEVER_ARRIVED, entry.open)
    settle(stats, entry)
    if entry.marks & ADOPTED != 0:
        cancel_whole(gateway, tsc, index)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def give_up(gateway, clock, tsc, index):
    """An order that never arrived: it counts no more, and its strategy is told."""
    session, table, stats = gateway.session, gateway.table, gateway.stats
    entry = table[index]
    head = head_of(table, index)
    before = chain_open(table, head)
    entry.open = 0
    stats[0].never_arrived += 1
    change_open(gateway, entry.instrument, entry.side, settle_chain(gateway, head, index, REJECTED) - before)
    if session[PROTOCOL] == OUCH_42:
        entry.marks |= PRESUMED_DEAD
    refuse_by_venue(gateway.reports, stats, clock, tsc, wall_ns(clock, tsc), entry, REASON_NEVER_ARRIVED, 0)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cancel_whole(gateway, tsc, index):
    """Send a cancel of what is open of an order. Only with nothing pending."""
    entry, wire, stats = gateway.table[index], gateway.wire, gateway.stats
    entry.marks |= CANCEL_PENDING | CANCEL_SENT
    settle(stats, entry)
    size = encode_cancel(wire, OUTBOX_AT, np.int64(entry.user_ref), np.int64(entry.strategy), 0)
    send(gateway.session, wire, stats, OUTBOX_AT, size, tsc)
    stats[0].sent += 1


@njit(cache=True, _nrt=False)
def settle_questioned(gateway, clock, tsc):
    """The venue has answered what came after our cancels of orders that it never spoke of: those that it still has not spoken of never
    arrived. Returns how many places were looked at."""
    session, table = gateway.session, gateway.table
    looked = 0
    while looked < PLACES_PER_STEP and session[LOOK_NEXT] < table.shape[0]:
        entry = table[session[LOOK_NEXT]]
        if entry.marks & QUESTIONED != 0:
            if session[OWED] != 0 or not has_room(gateway.reports, 1):
                break
            entry.marks &= ~QUESTIONED & 0xFF
            if is_open(entry) and entry.marks & ACKNOWLEDGED == 0:
                give_up(gateway, clock, tsc, session[LOOK_NEXT])
        session[LOOK_NEXT] += 1
        looked += 1
    if session[LOOK_NEXT] == table.shape[0]:
        session[ASKED] = 0
        session[ANSWERED] = 0
    return looked
