"""The live quote that a price is held against, and the instrument it belongs to.

The reference of the collar is the middle of the live best bid and offer. Without both sides, or on a book whose flags are anything but
VALID, or torn, or older than the limit, there is no reference and the order is refused. The collar over a window holds the price
against every middle that the gate saw within the window, by their lowest and highest: it looks at the quote with every order, and at
each instrument in turn when it has nothing to do. The window is kept in pieces and covers up to one piece more than was asked for.
"""

import numpy as np
from numba import njit

from engine.layout import BOOK_CLOSED, BOOK_HALTED, BOOK_VALID, RESTRICTED_MAX
from engine.risk.hot.reasons import (
    PASSED,
    REASON_BOOK_HALTED,
    REASON_BOOK_NOT_VALID,
    REASON_COLLAR,
    REASON_COLLAR_WINDOW,
    REASON_NO_REFERENCE,
    REASON_REFERENCE_OLD,
)
from engine.risk.hot.state import (
    BOARD_TRIES,
    COLLAR,
    COLLAR_BUCKET_NS,
    COLLAR_UNITS,
    COLLAR_WINDOW,
    LINES,
    OFF,
    PX_MAX,
    REFERENCE_AGE_NS,
    RESTRICTED_AT,
    SWINGS,
    VERSION,
)
from shm.atomics import load_acquire
from shm.hot import board_read

# Where there is no place for an instrument.
NOWHERE = -1


@njit(cache=True, _nrt=False, forceinline=True)
def place_of(risk, instrument):
    """The place of an instrument that may be traded, or NOWHERE. Looked up again whenever its line on the board or the rules change."""
    if instrument >= risk.instruments.shape[0] or instrument >= risk.quotes.shape[0]:
        return np.int64(NOWHERE)
    known = risk.known[instrument]
    if load_acquire(risk.instruments, instrument) != known.version or known.rules != risk.rules[VERSION]:
        look_up(risk, known, instrument)
    if known.symbol == 0:
        return np.int64(NOWHERE)
    return np.int64(known.place) - 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def look_up(risk, known, instrument):
    known.symbol = 0
    known.version = 0
    known.rules = risk.rules[VERSION]
    version = -1
    for _ in range(BOARD_TRIES):
        version = board_read(risk.instruments, instrument, risk.instrument)
        if version >= 0:
            break
    if version <= 0:
        return
    symbol = np.int64(risk.instrument[0].symbol)
    known.version = version
    allowed = 0
    for listed in range(risk.allowed.shape[0]):
        if risk.allowed[listed] == symbol:
            allowed = 1
    if allowed == 0 or (known.place == 0 and new_line(risk, known, instrument) == 0):
        return
    line = risk.lines[known.place - 1]
    line.tick_px = risk.instrument[0].tick_px
    line.lot_qty = np.int64(risk.instrument[0].lot_qty)
    known.restricted = 0
    for word in range(RESTRICTED_MAX):
        if risk.rules[RESTRICTED_AT + word] == symbol:
            known.restricted = 1
    known.symbol = symbol


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def new_line(risk, known, instrument):
    """Give an instrument its line. 1, or 0 when all are taken: what cannot be looked after is not traded."""
    place = risk.facts[LINES]
    if place >= risk.lines.shape[0]:
        return 0
    known.place = place + 1
    line = risk.lines[place]
    line.instrument = instrument
    line.low = 2 * PX_MAX
    line.low_now = 2 * PX_MAX
    for piece in range(SWINGS):
        risk.swings[place, piece] = 2 * PX_MAX
        risk.swings[place, SWINGS + piece] = 0
    risk.facts[LINES] = place + 1
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def read_reference(risk, clock, now_tsc, instrument):
    """Copy the quote into risk.quote: PASSED, or why it is no reference."""
    version = -1
    for _ in range(BOARD_TRIES):
        version = board_read(risk.quotes, instrument, risk.quote)
        if version >= 0:
            break
    if version <= 0:
        return REASON_NO_REFERENCE
    quote = risk.quote[0]
    # By name: in plain Python `quote.flags` is numpy's own attribute of a record and not its field.
    if quote["flags"] != BOOK_VALID:
        return REASON_BOOK_HALTED if quote["flags"] & (BOOK_HALTED | BOOK_CLOSED) != 0 else REASON_BOOK_NOT_VALID
    if quote.bid_sz <= 0 or quote.ask_sz <= 0:
        return REASON_NO_REFERENCE
    if quote.bid_px <= 0 or quote.ask_px <= 0 or quote.bid_px > PX_MAX or quote.ask_px > PX_MAX:
        return REASON_NO_REFERENCE
    age_ticks = now_tsc - np.int64(quote.origin_tsc)
    if age_ticks * clock.ns_per_tick[0] > risk.rules[REFERENCE_AGE_NS]:
        return REASON_REFERENCE_OLD
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_collar(risk, place, px, now_ns):
    """How far the price is from the middle of the quote in risk.quote, and from those of the window."""
    rules, line = risk.rules, risk.lines[place]
    twice_middle = risk.quote[0].bid_px + risk.quote[0].ask_px
    if abs(2 * px - twice_middle) * COLLAR_UNITS > rules[COLLAR] * twice_middle:
        return REASON_COLLAR
    see_middle(risk, place, twice_middle, now_ns)
    if rules[COLLAR_WINDOW] != OFF:
        low, high = min(line.low, line.low_now), max(line.high, line.high_now)
        if (2 * px - low) * COLLAR_UNITS > rules[COLLAR_WINDOW] * low:
            return REASON_COLLAR_WINDOW
        if (high - 2 * px) * COLLAR_UNITS > rules[COLLAR_WINDOW] * high:
            return REASON_COLLAR_WINDOW
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def see_middle(risk, place, twice_middle, now_ns):
    """A good quote's middle: the instrument's mark, and one more of its window."""
    line = risk.lines[place]
    line.mark = twice_middle >> 1
    # A window that was made shorter ends as the new one does.
    line.swing_end_ns = min(line.swing_end_ns, now_ns + risk.rules[COLLAR_BUCKET_NS])
    if now_ns >= line.swing_end_ns:
        roll_swings(risk, place, now_ns)
    line.low_now = min(line.low_now, twice_middle)
    line.high_now = max(line.high_now, twice_middle)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def roll_swings(risk, place, now_ns):
    """Close the current piece of the window, and let go of those that are older than it."""
    line, swings, piece_ns = risk.lines[place], risk.swings[place], risk.rules[COLLAR_BUCKET_NS]
    for _ in range(SWINGS):
        if now_ns < line.swing_end_ns:
            break
        swings[line.swing] = line.low_now
        swings[SWINGS + line.swing] = line.high_now
        line.swing = (line.swing + 1) & (SWINGS - 1)
        line.low_now = 2 * PX_MAX
        line.high_now = 0
        line.swing_end_ns += piece_ns
    if now_ns >= line.swing_end_ns:
        line.swing_end_ns = now_ns + piece_ns
    line.low = 2 * PX_MAX
    line.high = 0
    for piece in range(SWINGS):
        if piece != line.swing:
            line.low = min(line.low, swings[piece])
            line.high = max(line.high, swings[SWINGS + piece])
