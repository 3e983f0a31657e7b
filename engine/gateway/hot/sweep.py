"""The sweep: when the instance drains or is killed, what is open is cancelled. It asks nobody, and sends nothing but cancels.

Newest orders first, many cancels in one send: region SWEEP_AT of the wire holds them ready but for the order's number. What the socket does
not take is pending and goes before everything else; without a session the sweep stays due, and is the first thing that a new one does.
"""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import is_open, settle
from engine.gateway.hot.pacing import spend
from engine.gateway.hot.queue import WAITING
from engine.gateway.hot.state import (
    CANCEL_PENDING,
    CANCEL_SENT,
    DRAIN_SEEN,
    DRAINED,
    KILL_SEEN,
    NEXT_REF,
    OWED,
    PENDING_BYTES,
    SCOPED_SEEN,
    STATE,
    SWEEP_ALL,
    SWEEP_CANCELS,
    SWEEP_END,
    SWEEP_KILL,
    SWEEP_NEXT,
    SWEPT_TSC,
    UP,
    UP_SEEN,
)
from engine.gateway.ouch.hot.encode import SWEEP_AT, SWEEP_CANCELS_MAX, name_cancel
from engine.gateway.ouch.hot.session import send
from engine.layout import CONTROL, PHASE_DRAINING
from engine.messages.hot.stamp import now_tsc, wall_ns
from engine.risk.hot.flow import count_cancels
from engine.risk.hot.scopes import covered
from engine.risk.hot.state import KILL, PHASE, SCOPED
from shm.atomics import fence_release, load_acquire, store_release

# Half a table of the usual size, some hundred microseconds: a turn stays short where nothing is open any more.
SWEEP_PLACES_PER_STEP = 1 << 15

DRAINED_WORD = CONTROL.fields["drained"][1] // 8
KILLS = CONTROL.fields["kills"][1] // 8
KILL_TSC = CONTROL.fields["kill_tsc"][1] // 8


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def watch_for_sweep(gateway):
    """Draining and each kill cancel, once, what they are about; a session that comes up begins with what is drained or killed."""
    session, control = gateway.session, gateway.control
    draining = 1 if load_acquire(control, PHASE) == PHASE_DRAINING else 0
    killed = 1 if load_acquire(control, KILL) != 0 else 0
    scoped = load_acquire(control, SCOPED)
    up = 1 if session[STATE] == UP else 0
    due = draining > session[DRAIN_SEEN] or killed > session[KILL_SEEN] or scoped > session[SCOPED_SEEN]
    if due or (up > session[UP_SEEN] and draining + killed + scoped != 0):
        begin_sweep(gateway, draining | killed)
    session[DRAIN_SEEN] = draining
    session[KILL_SEEN] = killed
    session[SCOPED_SEEN] = max(session[SCOPED_SEEN], scoped)
    session[UP_SEEN] = up


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def begin_sweep(gateway, everything):
    """Look at every place of the table from the newest order on. A sweep of everything that is under way goes on as one."""
    session = gateway.session
    if session[SWEEP_NEXT] > session[SWEEP_END]:
        session[SWEEP_ALL] = 0
        session[SWEEP_CANCELS] = 0
    session[SWEEP_ALL] |= everything
    number = load_acquire(gateway.control, KILLS)
    if number > gateway.stats[0].kill_swept:
        session[SWEEP_KILL] = number
    # The user_refs of the last table's length stand for all of its places, whatever older order still has one.
    session[SWEEP_NEXT] = max(session[NEXT_REF] - gateway.table.shape[0], 1)
    session[SWEEP_END] = session[NEXT_REF] - 1


@njit(cache=True, _nrt=False)
def sweep(gateway, clock, tsc):
    """Cancel open orders, a batch at a time, each once. Returns how many were cancelled."""
    session, table, wire = gateway.session, gateway.table, gateway.wire
    if session[STATE] != UP or session[PENDING_BYTES] != 0:
        return 0
    size = np.int64(0)
    cancelled = 0
    for _ in range(SWEEP_PLACES_PER_STEP):
        if session[SWEEP_NEXT] > session[SWEEP_END] or cancelled == SWEEP_CANCELS_MAX:
            break
        entry = table[session[SWEEP_END] & (table.shape[0] - 1)]
        session[SWEEP_END] -= 1
        if is_open(entry) and entry.marks & CANCEL_SENT == 0 and is_swept(gateway, entry) != 0:
            entry.marks |= CANCEL_PENDING | CANCEL_SENT
            settle(gateway.stats, entry)
            size += name_cancel(wire, SWEEP_AT + size, np.int64(entry.user_ref), np.int64(entry.strategy))
            cancelled += 1
    if size == 0:
        return 0
    send(session, wire, gateway.stats, SWEEP_AT, size, tsc)
    # What is pending is written when it is no more: tell_swept sees to that.
    session[SWEPT_TSC] = now_tsc(clock) if session[PENDING_BYTES] == 0 else 0
    spend(gateway.pace, cancelled)
    count_cancels(gateway.risk, cancelled, wall_ns(clock, tsc))
    session[SWEEP_CANCELS] += cancelled
    gateway.stats[0].sent += cancelled
    gateway.stats[0].cancels_on_drain += cancelled
    return cancelled


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_swept(gateway, entry):
    """Whether the sweep is about this order."""
    if gateway.session[SWEEP_ALL] != 0:
        return 1
    symbol = np.int64(gateway.risk.instruments[entry.instrument].symbol)
    return covered(gateway.control, np.int64(entry.strategy), symbol)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_swept(gateway, clock):
    """Once all cancels of a kill are written: how many, and how long after the command's word the last one was."""
    session, stats = gateway.session, gateway.stats
    if session[SWEEP_KILL] == 0 or session[SWEEP_NEXT] <= session[SWEEP_END] or session[PENDING_BYTES] != 0 or session[STATE] != UP:
        return
    if session[SWEPT_TSC] == 0:
        session[SWEPT_TSC] = now_tsc(clock)
    stats[0].kill_cancels = session[SWEEP_CANCELS]
    stats[0].kill_to_last_cancel_tsc = session[SWEPT_TSC] - gateway.control[KILL_TSC] if session[SWEEP_CANCELS] != 0 else 0
    # Whoever waits for the number reads the others after it.
    fence_release()
    stats[0].kill_swept = session[SWEEP_KILL]
    session[SWEEP_KILL] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_drained(gateway):
    """Whether the instance drains and nothing is open, under way or untold any more."""
    session = gateway.session
    drained = 0
    settled = gateway.stats[0].open_orders == 0 and session[PENDING_BYTES] == 0 and session[OWED] == 0
    if session[DRAIN_SEEN] != 0 and settled and gateway.queue.words[WAITING] == 0:
        drained = 1
    if drained != session[DRAINED]:
        session[DRAINED] = drained
        store_release(gateway.control, DRAINED_WORD, drained)
