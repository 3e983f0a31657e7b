"""The sweep: when the instance drains or is killed, all that is open is cancelled. It asks nobody, and sends nothing but cancels."""

import numpy as np
from numba import njit

from engine.gateway.hot.orders import is_open, settle
from engine.gateway.hot.state import (
    CANCEL_PENDING,
    CANCEL_SENT,
    DRAIN_SEEN,
    DRAINED,
    KILL_SEEN,
    NEXT_REF,
    OWED,
    PENDING_BYTES,
    SWEEP_END,
    SWEEP_NEXT,
)
from engine.gateway.ouch.hot.encode import CANCEL_AT, CANCEL_BYTES, encode_cancel
from engine.gateway.ouch.hot.session import send
from engine.layout import CONTROL, PHASE_DRAINING
from engine.risk.hot.state import KILL, PHASE
from shm.atomics import load_acquire, store_release

SWEEP_PLACES_PER_STEP = 1024
SWEEP_CANCELS_PER_STEP = 16

DRAINED_WORD = CONTROL.fields["drained"][1] // 8


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def watch_for_sweep(gateway):
    """Draining and the kill switch each cancel, once, all that is open when they are first seen."""
    session = gateway.session
    draining = 1 if load_acquire(gateway.control, PHASE) == PHASE_DRAINING else 0
    killed = 1 if load_acquire(gateway.control, KILL) != 0 else 0
    if draining > session[DRAIN_SEEN] or killed > session[KILL_SEEN]:
        # The user_refs of the last table's length stand for all of its places, whatever older order still has one.
        session[SWEEP_NEXT] = max(session[NEXT_REF] - gateway.table.shape[0], 1)
        session[SWEEP_END] = session[NEXT_REF] - 1
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
        if is_open(entry) and entry.marks & CANCEL_SENT == 0:
            entry.marks |= CANCEL_PENDING | CANCEL_SENT
            settle(gateway.stats, entry)
            encode_cancel(gateway.wire, np.int64(entry.user_ref), 0)
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
