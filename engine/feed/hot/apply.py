"""What one message does: to the book, to what is remembered of its instrument, and to those who listen."""

import numpy as np
from numba import njit

from engine.feed.hot.admin import EVENT, LISTED, STATE_CHANGED, apply_admin
from engine.feed.hot.decoder import AT, CODE, LENGTH, LOCATE, OFFSET_MASK, TIMESTAMP, count_message
from engine.feed.hot.handover import hand_on
from engine.feed.hot.orders import DIVERGED, NOTHING, apply_order
from engine.feed.hot.publish import publish_change, publish_instrument, publish_print, publish_status, settle_validity
from engine.feed.hot.state import (
    CLOSED,
    EXPECTED,
    FIRST_INSTRUMENT,
    HIGHEST,
    KEEP,
    MIDNIGHT_NS,
    PAPER,
    SUSPECTS,
    SWEEP_NEXT,
    TROUBLE,
    UNPROVEN,
)
from engine.feed.hot.window import is_held, put_message
from engine.feed.itch import ABOUT_ORDER, CROSS_TRADE, TRADE
from engine.messages.hot.stamp import wall_ns
from engine.wire.hot.bytes import get_u16, get_u48

PRINT = TRADE.code
CROSS = CROSS_TRADE.code
EVENTS_CLOSING = (ord("M"), ord("E"), ord("C"))
EVENTS_OPENING = (ord("O"), ord("S"), ord("Q"))

# Instrument 0. Typed, since a kernel is compiled once more for every literal that it is called with.
THE_MARKET = np.int64(0)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_message(feed, clock, row, origin):
    """Apply and publish the message in a row of the window."""
    decoder = feed.decoder
    at = decoder.window[row + AT]
    code = decoder.window[row + CODE]
    fits = count_message(decoder, row)
    if feed.words[KEEP] and keep_message(feed, row, origin):
        return
    if feed.words[PAPER] and fits:
        hand_on(feed.market, feed.market_bytes, decoder.stats, feed.buffer, at & OFFSET_MASK, decoder.window[row + LENGTH])
    if not fits:
        if ABOUT_ORDER[code] and decoder.window[row + LENGTH] >= LOCATE + 2:
            if mark_suspect(feed, get_u16(feed.buffer, (at & OFFSET_MASK) + LOCATE)):
                publish_suspect(feed, clock, get_u16(feed.buffer, (at & OFFSET_MASK) + LOCATE), origin)
    elif ABOUT_ORDER[code]:
        change = apply_order(decoder, feed.buffer, at, code)
        if change[0] == DIVERGED:
            become_suspect(feed, clock, at, code, change, origin)
        elif change[0] != NOTHING:
            publish_change(feed, clock, feed.buffer, at, code, change, origin)
    elif code in (PRINT, CROSS):
        publish_print(feed, clock, feed.buffer, at, code, origin)
    else:
        apply_rest(feed, clock, at, code, origin)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def keep_message(feed, row, origin):
    """While a snapshot is under way: keep what is applied, for the snapshot may be older. Whether the message is about an order of an
    instrument whose book is being made anew, and must not be applied to it now."""
    window = feed.decoder.window
    at = window[row + AT] & OFFSET_MASK
    length = max(window[row + LENGTH], 0)
    sequence = feed.words[EXPECTED]
    if not is_held(feed.window, sequence):
        put_message(feed, sequence, at, length, origin)
    if not ABOUT_ORDER[window[row + CODE]] or length < LOCATE + 2:
        return False
    instrument = get_u16(feed.buffer, at + LOCATE)
    return instrument < feed.decoder.tops.shape[0] and feed.decoder.tops[instrument].refreshing != 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def become_suspect(feed, clock, at, code, change, origin):
    """A message about an order did not fit its book. What it changed all the same is told with the book's new validity."""
    instrument = change[1]
    new = mark_suspect(feed, instrument)
    publish_change(feed, clock, feed.buffer, at, code, change, origin)
    if new:
        publish_suspect(feed, clock, instrument, origin)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def mark_suspect(feed, instrument):
    """One of the two is wrong, the message or this instrument's book, and nobody knows since when; the others' books are none the worse
    for it. Where no book is proven anyway, it says nothing new. Whether it was not known before."""
    if instrument >= feed.decoder.tops.shape[0] or feed.words[UNPROVEN]:
        return False
    top = feed.decoder.tops[instrument]
    if top.suspect:
        return False
    top.suspect = 1
    top.suspects += 1
    feed.decoder.stats[0].suspects += 1
    feed.words[SUSPECTS] += 1
    feed.words[TROUBLE] = 1
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_suspect(feed, clock, instrument, origin):
    if feed.decoder.tops[instrument].publish:
        publish_status(feed, clock, instrument, origin, wall_ns(clock, origin))
    else:
        settle_validity(feed, clock, instrument, origin)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_rest(feed, clock, at, code, origin):
    """A message that is neither about an order nor a trade."""
    decoder = feed.decoder
    said = apply_admin(decoder.tops, decoder.states, decoder.market, decoder.stats, feed.buffer, at, code)
    at = at & OFFSET_MASK
    instrument = get_u16(feed.buffer, at + LOCATE)
    ts_ns = feed.words[MIDNIGHT_NS] + get_u48(feed.buffer, at + TIMESTAMP)
    if said == LISTED:
        top = decoder.tops[instrument]
        if feed.wanted.shape[0] > 0:
            # A locate code is another symbol's in another session.
            top.publish = 1 if is_wanted(feed.wanted, np.int64(decoder.states[instrument].symbol)) else 0
        if top.publish:
            feed.words[HIGHEST] = max(feed.words[HIGHEST], instrument)
            publish_instrument(feed, clock, instrument, origin, ts_ns)
    elif said == STATE_CHANGED:
        if decoder.tops[instrument].publish:
            publish_status(feed, clock, instrument, origin, ts_ns)
    elif said == EVENT:
        note_event(feed.words, np.int64(decoder.market[0].event))
        # The market's own events go out once, as of instrument 0, which no stock has.
        publish_status(feed, clock, THE_MARKET, origin, ts_ns)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_wanted(wanted, symbol):
    for packed in wanted:  # noqa: SIM110 - any() of a generator is not for kernels
        if packed == symbol:
            return True
    return False


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_event(words, event):
    """Outside market hours no book may be acted on; a day that begins before they do is open until it says otherwise."""
    closed = words[CLOSED]
    if event in EVENTS_CLOSING:
        words[CLOSED] = 1
    elif event in EVENTS_OPENING:
        words[CLOSED] = 0
    if words[CLOSED] != closed:
        words[SWEEP_NEXT] = FIRST_INSTRUMENT
