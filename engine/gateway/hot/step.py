"""One turn of the order gateway: orders onto the wire (take.py), the venue's bytes into reports.

    orders ring ──▶ check ──▶ encode ──▶ send
    reports ring ◀── apply ◀── packets ◀── recv        6 exchange_to_report

Orders come first: a turn ends with the socket.
"""

from numba import njit

from engine.gateway.hot.state import (
    ANSWERED,
    CONNECTED,
    DOWN,
    DRAINED,
    ENDING,
    FD,
    HEARD_TSC,
    OVER,
    OWED,
    PENDING_BYTES,
    RECONCILING,
    STATE,
    SWEEP_END,
    SWEEP_NEXT,
    TURN,
    UP,
)
from engine.gateway.hot.sweep import sweep, tell_drained, tell_swept, watch_for_sweep
from engine.gateway.hot.take import take_orders
from engine.gateway.hot.unsent import may_send_pending
from engine.gateway.ouch.hot.life import SESSION_ENDED, begin, stay_down
from engine.gateway.ouch.hot.reconcile import reconcile, settle_questioned
from engine.gateway.ouch.hot.send import send_pending
from engine.gateway.ouch.hot.session import NOT_WHOLE, keep_alive, packet_bytes, read_packets, receive
from engine.messages.hot.stamp import now_tsc
from engine.risk.hot.gate import watch

# In one of so many turns the gate looks at an instrument without an order: a turn with nothing to do takes some 200 ns.
WATCH_TURNS = 16
TURN_MASK = (1 << 62) - 1


@njit(cache=True, _nrt=False)
def step(gateway, clock):
    """Do a bounded amount of work. Returns the number of things done, or the reason (below 0) why the session is over.

    After an end in order it goes on: a strategy that had not heard of the drain in time is told no.
    """
    session = gateway.session
    was_over = session[STATE] == OVER
    if was_over and ending_of(session) < 0:
        return ending_of(session)
    tsc = now_tsc(clock)
    done = 0
    if session[STATE] != UP:
        done = get_up(gateway, clock, tsc)
    elif session[ANSWERED] != 0:
        done = settle_questioned(gateway, clock, tsc)
    if session[PENDING_BYTES] != 0 and may_send_pending(gateway, clock, tsc) != 0:
        done += 1 if send_pending(session, gateway.wire, gateway.stats, tsc) != 0 else 0
    watch_for_sweep(gateway)
    if session[STATE] == UP and session[SWEEP_NEXT] <= session[SWEEP_END]:
        done += sweep(gateway, clock, tsc)
    tell_swept(gateway, clock)
    # With no session the gate refuses them all, and says so.
    done += take_orders(gateway, clock)
    if session[FD] >= 0:
        done += take_in(gateway, clock, tsc)
    if not was_over:
        tell_drained(gateway)
    if session[STATE] == OVER and ending_of(session) < 0:
        return ending_of(session)
    session[TURN] = (session[TURN] + 1) & TURN_MASK
    if session[TURN] % WATCH_TURNS == 0:
        watch(gateway.risk, clock, tsc, session[TURN] // WATCH_TURNS)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def get_up(gateway, clock, tsc):
    """What a session that is not up needs to become so. Returns what was done."""
    session = gateway.session
    if session[STATE] == DOWN:
        return stay_down(gateway, clock, tsc)
    if session[STATE] == CONNECTED:
        begin(gateway, tsc)
        return 1
    if session[STATE] == RECONCILING:
        return reconcile(gateway, clock, tsc)
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def take_in(gateway, clock, tsc):
    """The venue's bytes into reports. Returns what was done."""
    session = gateway.session
    done = 0
    if session[OWED] != 0 or packet_bytes(session, gateway.inbound) != NOT_WHOLE:
        # The reports ring is full: it is we who do not listen, and not the venue that is silent.
        session[HEARD_TSC] = tsc
    elif receive(gateway, clock) != 0:
        done = 1
    done += read_packets(gateway, clock)
    if session[FD] >= 0:
        keep_alive(gateway, clock, now_tsc(clock))
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ending_of(session):
    """The reason to leave the loop; 0 where the instance had drained and the venue said its goodbye in order."""
    if session[ENDING] == SESSION_ENDED and session[DRAINED] != 0:
        return 0
    return session[ENDING]
