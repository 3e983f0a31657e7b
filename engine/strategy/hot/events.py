"""Around the handlers: what the loop notes of an event before a handler sees it, and measures after.

Time has one line for a strategy: when an event's packet reached this machine (origin_tsc), for a timer when it fell due. now_ns
follows it and never goes back, so a handler that is given the same events again does the same again.
"""

from numba import njit

from engine.layout import BOOK_VALID, BUY, MSG_BROKEN, MSG_EXECUTED, MSG_TIMER, PHASE_STARTING, PHASE_TRADING
from engine.messages.hot.stamp import now_tsc, published_at, ticks_of_ns, wall_ns
from engine.strategy.hot.state import (
    NOW_NS,
    NOWHERE,
    ORIGIN_TSC,
    PHASE,
    POLLED_TSC,
    RECONCILED,
    SENT_TSC,
    SESSION_UP,
    TIMER_NS,
    TIMER_TSC,
    TS_NS,
)
from shm.atomics import fence_acquire, load_acquire
from shm.hot import record

# A turn takes at most so many of each, so that a flood of one never starves the other or the loop around both.
REPORTS_PER_STEP = 64
TICKS_PER_STEP = 64
# How often a line of the positions is read again that is being written. Its writer takes nanoseconds, or is dead, and the run with it.
LOOKS = 1 << 16


@njit(cache=True, forceinline=True, _nrt=False)
def may_quote(control):
    """Whether handlers that could send new orders run at all: not while draining, and not after."""
    phase = load_acquire(control, PHASE)
    return phase in (PHASE_TRADING, PHASE_STARTING)


@njit(cache=True, forceinline=True, _nrt=False)
def is_live(places, place):
    return places[place]["flags"] == BOOK_VALID


@njit(cache=True, forceinline=True, _nrt=False)
def begin(words, clock, origin_tsc, ts_ns):
    """An event: orders sent while it is handled carry its stamps."""
    words[ORIGIN_TSC] = origin_tsc
    words[TS_NS] = ts_ns
    words[NOW_NS] = max(words[NOW_NS], wall_ns(clock, origin_tsc))
    words[SENT_TSC] = 0


@njit(cache=True, forceinline=True, _nrt=False)
def begin_tick(words, clock, tick):
    begin(words, clock, int(tick.origin_tsc), int(tick.ts_ns))
    words[POLLED_TSC] = now_tsc(clock)


@njit(cache=True, forceinline=True, _nrt=False)
def measure_ring(tick_ring, words, tick):
    """Hop 1: how long a quote lay on its ring."""
    published_tsc = published_at(tick)
    if published_tsc >= 0:
        record(tick_ring, words[POLLED_TSC] - published_tsc)


@njit(cache=True, forceinline=True, _nrt=False)
def measure_decision(decision, words):
    """Hop 2: from the poll to the last order that the handler sent, if it sent any."""
    if words[SENT_TSC] != 0:
        record(decision, words[SENT_TSC] - words[POLLED_TSC])


@njit(cache=True, forceinline=True, _nrt=False)
def note_flags(places, place, flags):
    """The book's new flags. True where it has become valid, or ceased to be."""
    line = places[place]
    was_live = line["flags"] == BOOK_VALID
    line["flags"] = flags
    return was_live != (flags == BOOK_VALID)


@njit(cache=True, forceinline=False, _nrt=False)
def note_status(places, place, status):
    line = places[place]
    line["flags"] = status["flags"]
    line.state = status.state
    line.session_event = status.session_event


@njit(cache=True, forceinline=False, _nrt=False)
def status_from_quote(statuses, places, place, quote):
    """The status that a quote implies, for on_status: a book's validity never changes behind a strategy's back."""
    status = statuses[0]
    status.origin_tsc = quote.origin_tsc
    status.ts_ns = quote.ts_ns
    status.age_tsc = quote.age_tsc
    status["flags"] = quote["flags"]
    status.instrument = quote.instrument
    status.state = places[place].state
    status.session_event = places[place].session_event


@njit(cache=True, forceinline=False, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def begin_with_positions(places, words, control, held):
    """The session is up for the first time: what the gateway has reconciled with the venue by now is what we hold. Nothing of ours was
    sent before, so no report of it can be on the way."""
    if load_acquire(control, SESSION_UP) == 0:
        return
    words[RECONCILED] = 1
    for place in range(places.shape[0]):
        if places[place].instrument >= 0:
            places[place].position = held_of(held, places[place].instrument)


@njit(cache=True, forceinline=False, _nrt=False)
def held_of(held, instrument):
    """The position in a line of the gateway's board."""
    if instrument >= held.shape[0]:
        return 0
    for _ in range(LOOKS):
        # SYNC POINT (board_close's release).
        version = load_acquire(held, instrument)
        position = int(held[instrument].position)
        fence_acquire()
        if version & 1 == 0 and load_acquire(held, instrument) == version:
            break
    return position


@njit(cache=True, forceinline=False, _nrt=False)
def note_instrument(places, place_of, instrument, words, held):
    """The venue names an instrument: if it is one of ours, ticks of that number are ours from now on. Until then nothing of it was sent."""
    for place in range(places.shape[0]):
        line = places[place]
        if line.symbol == instrument.symbol:
            if line.instrument >= 0:
                place_of[line.instrument] = NOWHERE
            elif words[RECONCILED] != 0:
                line.position = held_of(held, int(instrument.instrument))
            line.instrument = instrument.instrument
            place_of[instrument.instrument] = place
            # A venue that gives no step or lot leaves ours, which follow from px_decimals of the stage.
            if instrument.tick_px > 0:
                line.tick_px = instrument.tick_px
                line.px_decimals = instrument.px_decimals
            if instrument.lot_qty > 0:
                line.lot_qty = instrument.lot_qty


@njit(cache=True, forceinline=False, _nrt=False)
def note_fill(places, place, report):
    """An execution moves the position before on_report is told; a broken trade moves it back."""
    if report.kind == MSG_EXECUTED:
        change = int(report.qty)
    elif report.kind == MSG_BROKEN:
        change = -int(report.qty)
    else:
        return
    if report.side == BUY:
        places[place].position += change
    else:
        places[place].position -= change


@njit(cache=True, forceinline=True, _nrt=False)
def timer_due(words, clock):
    """Once a period. A period that was missed is not made up for: a late strategy needs no burst."""
    tsc = now_tsc(clock)
    if tsc < words[TIMER_TSC]:
        return False
    period = ticks_of_ns(clock, words[TIMER_NS])
    first = words[TIMER_TSC] == 0
    due = words[TIMER_TSC] + period
    words[TIMER_TSC] = due if due > tsc and not first else tsc + period
    return not first


@njit(cache=True, forceinline=False, _nrt=False)
def set_timer(timers, clock, tsc, instrument, period_ns):
    """Fill what on_timer is given."""
    timer = timers[0]
    timer.origin_tsc = tsc
    timer.ts_ns = wall_ns(clock, tsc)
    timer.kind = MSG_TIMER
    timer.instrument = instrument
    timer.period_ns = period_ns
