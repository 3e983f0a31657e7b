"""The life of a session: a connection, a login, what was missed, and all of it again after a loss.

A session that is lost (closed, broken, silent, garbled) is tried again after a wait that doubles, with jitter, until TRIES_MAX tries in a
row led to no session. Only Python can open a connection, so the kernel asks for one (session[WANTED]) and the stage's attend() makes it.
All waits are measured on the kernel's clock.

Everything that was open when the session was lost is of unknown fate and goes on counting against every limit. The next login asks for
the first packet that was not applied, so the venue tells again what we missed (reconcile.py). The first login of a process asks for the
whole day. What was asked before this login stands in the sequence with the answers, so where there may be one that was not read yet (at
the start, and after a reconciliation that was cut short) one more login comes first, which asks only how far the sequence has come
(HEAD): an answer below that is not for us. SoupBinTCP has a venue tell the number of the next packet there; one that tells its last one's
may mean, by HEAD itself, an answer of before. An answer that is just there is not taken for ours, and the query is asked once more.
OUCH 4.2 has no such question, so there each login is preceded by one that asks for HEAD.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import is_open, move_to
from engine.gateway.hot.state import (
    ANSWERED,
    ASKED,
    BROKEN_PIPE,
    CONNECT_BY_TSC,
    CONNECT_NS,
    CONNECTION,
    DOWN,
    ENDING,
    EXPECTED,
    FAILED,
    FAILURES,
    FD,
    HEARD_TSC,
    IN_BEGIN,
    IN_END,
    LATE_ANSWER,
    LOGIN_SENT,
    LOOK_NEXT,
    NOTHING,
    OUCH_42,
    OVER,
    OWED,
    PENDING_BYTES,
    PROBING,
    PROGRESS_TSC,
    PROTOCOL,
    RANDOM,
    RECONCILE,
    RECONCILING,
    REPLAYING,
    RETRY_NS,
    RETRY_NS_MAX,
    RETRY_TSC,
    STATE,
    TRIES_MAX,
    UNKNOWN,
    WANTED,
)
from engine.gateway.ouch.hot.encode import LOGIN_AT, LOGIN_BYTES, LOGOUT_AT, LOGOUT_BYTES
from engine.gateway.ouch.hot.send import send
from engine.gateway.ouch.hot.venue import tell_owed
from engine.messages.hot.stamp import now_tsc, ticks_of_ns
from engine.risk.hot.state import SESSION_UP
from engine.wire.soupbintcp import LOGIN_ACCEPTED, LOGIN_REQUEST, TYPE_AT
from shm.atomics import store_release
from shm.hot import has_room

# Reasons to leave the loop (engine/gateway/stage.py has the sentences), and why a session was lost that is tried again.
SESSION_LOST = -2
LOGIN_NOT_AUTHORIZED = -3
LOGIN_SESSION_UNAVAILABLE = -4
LOGIN_REFUSED = -5
SERVER_SILENT = -6
MALFORMED = -7
SESSION_ENDED = -8
EXECUTIONS_EXHAUSTED = -9
NOT_CONNECTED = -10
REPORTS_LOST = -11
NOT_RECONCILED = -12
ORDERS_EXHAUSTED = -13

SEQUENCE_AT = TYPE_AT + LOGIN_ACCEPTED["sequence"]
SEQUENCE_DIGITS = LOGIN_ACCEPTED.length - LOGIN_ACCEPTED["sequence"]
ASKED_SEQUENCE_AT = LOGIN_AT + TYPE_AT + LOGIN_REQUEST["sequence"]
SPACE = 32
ZERO = 48

FINAL = (LOGIN_NOT_AUTHORIZED, LOGIN_REFUSED, SESSION_ENDED, EXECUTIONS_EXHAUSTED, REPORTS_LOST, ORDERS_EXHAUSTED)

# Places of the order table that are looked at in one turn.
PLACES_PER_STEP = 4096
# Beyond so many doublings the wait is the longest one anyhow, and below it no product can wrap.
DOUBLINGS_MAX = 20


@njit(cache=True, _nrt=False)
def end(gateway, clock, ending):
    """The session is lost: no order can be sent. Tried again after a wait, or OVER, and step says why from now on."""
    session, stats = gateway.session, gateway.stats
    store_release(gateway.control, SESSION_UP, 0)
    if session[STATE] != DOWN:
        if ending == MALFORMED:
            stats[0].malformed += 1
        if ending != SESSION_ENDED:
            stats[0].sessions_lost += 1
    if session[PROTOCOL] == OUCH_42 or (session[STATE] == RECONCILING and session[RECONCILE] == REPLAYING) or session[LATE_ANSWER] != 0:
        # An answer to our query may stand in the sequence, and would end the next reconciliation before its time. With no query there is
        # nothing but HEAD to tell how much is to come.
        session[PROBING] = 1
        session[LATE_ANSWER] = 0
    session[ASKED] = 0
    session[ANSWERED] = 0
    session[ENDING] = ending
    forget_connection(session)
    session[LOOK_NEXT] = 0
    if is_final(session, stats, ending):
        session[STATE] = OVER
        mark_unknown(gateway, gateway.table.shape[0])
        return
    # A Lehmer generator, exact in int64: the wait is between a half and the whole of what is due.
    session[RANDOM] = session[RANDOM] * 48_271 % 2_147_483_647
    due_ns = min(session[RETRY_NS] << min(session[FAILURES], DOUBLINGS_MAX), session[RETRY_NS_MAX])
    wait_ns = due_ns // 2 + session[RANDOM] % (due_ns // 2 + 1)
    session[RETRY_TSC] = now_tsc(clock) + ticks_of_ns(clock, wait_ns)
    session[FAILURES] += 1
    session[STATE] = DOWN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_connection(session):
    """What was under way on it is gone: half a message of ours, half a packet of the venue's. The stage closes the descriptor."""
    session[FD] = -1
    session[PENDING_BYTES] = 0
    session[BROKEN_PIPE] = 0
    session[IN_BEGIN] = 0
    session[IN_END] = 0
    session[WANTED] = NOTHING


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_final(session, stats, ending):
    """Whether it makes no sense to try again. A session that is not available may be once the venue has seen that our old one is dead."""
    if session[FAILURES] >= session[TRIES_MAX]:
        return True
    if ending == LOGIN_SESSION_UNAVAILABLE:
        return stats[0].logins == 0
    return ending in FINAL


@njit(cache=True, _nrt=False)
def mark_unknown(gateway, places):
    """Nobody knows what became of the orders that are open. Looks at so many places of the table; returns how many."""
    session, table = gateway.session, gateway.table
    if gateway.stats[0].open_orders == 0:
        session[LOOK_NEXT] = table.shape[0]
    looked = min(places, table.shape[0] - session[LOOK_NEXT])
    for index in range(session[LOOK_NEXT], session[LOOK_NEXT] + looked):
        entry = table[index]
        if is_open(entry):
            move_to(gateway.stats, entry, UNKNOWN)
    session[LOOK_NEXT] += looked
    return looked


@njit(cache=True, _nrt=False)
def stay_down(gateway, clock, tsc):
    """Between two connections: mark what is open, tell what is owed, and ask for a connection when it is time. Returns what was done."""
    session = gateway.session
    done = mark_unknown(gateway, PLACES_PER_STEP)
    if session[OWED] != 0 and has_room(gateway.reports, 1):
        tell_owed(gateway, clock)
        done += 1
    if session[WANTED] == FAILED or (session[WANTED] == CONNECTION and tsc > session[CONNECT_BY_TSC]):
        gateway.stats[0].connect_failures += 1
        end(gateway, clock, NOT_CONNECTED)
        return done + 1
    if session[WANTED] == NOTHING and tsc >= session[RETRY_TSC] and session[LOOK_NEXT] == gateway.table.shape[0]:
        session[WANTED] = CONNECTION
        session[CONNECT_BY_TSC] = tsc + ticks_of_ns(clock, session[CONNECT_NS])
        done += 1
    return done


@njit(cache=True, _nrt=False)
def begin(gateway, tsc):
    """Ask to be let in, and for the first packet that was not applied; or only how far the sequence has come."""
    session = gateway.session
    session[HEARD_TSC] = tsc
    session[PROGRESS_TSC] = tsc
    session[STATE] = LOGIN_SENT
    gateway.stats[0].connects += 1
    put_digits(gateway.wire, ASKED_SEQUENCE_AT, 0 if session[PROBING] != 0 else session[EXPECTED])
    send(session, gateway.wire, gateway.stats, LOGIN_AT, LOGIN_BYTES, tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def leave_probe(gateway, tsc):
    """HEAD is known: say goodbye, and come back at once for the day."""
    session = gateway.session
    send(session, gateway.wire, gateway.stats, LOGOUT_AT, LOGOUT_BYTES, tsc)
    forget_connection(session)
    session[PROBING] = 0
    session[STATE] = DOWN
    session[RETRY_TSC] = tsc


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_digits(target, at, value):
    """SEQUENCE_DIGITS of ASCII, padded on the left with spaces."""
    for place in range(SEQUENCE_DIGITS - 1, -1, -1):
        target[at + place] = ZERO + value % 10 if value > 0 or place == SEQUENCE_DIGITS - 1 else SPACE
        value //= 10


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def number_at(inbound, at):
    """SEQUENCE_DIGITS of ASCII digits with spaces around them; -1 where there are others, or none."""
    value = 0
    digits = 0
    for place in range(SEQUENCE_DIGITS):
        byte = np.int64(inbound[at + place])
        if ZERO <= byte <= ZERO + 9 and digits < 18:
            value = value * 10 + (byte - ZERO)
            digits += 1
        elif byte != SPACE:
            return -1
    return value if digits > 0 else -1
