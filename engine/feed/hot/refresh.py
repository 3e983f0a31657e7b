"""Making books anew: emptied, filled from a snapshot, and brought to where the feed is.

    EXPECTED     all books: the feed stands here, at a hole, until it goes on at the snapshot's number
       |                                  |
       +----------------------------------+----▶ numbers          suspects alone: the feed goes on, and these books with it from there on
       G: what was kept from here on is applied to the books again

All books, or those of suspects alone, for which the feed goes on: messages about their orders are kept, and applied when the books
are as of a number. Kept is what the window holds: where that begins after the snapshot's number, the snapshot is too old.
"""

import numpy as np
from numba import njit

from engine.book.hot.clear import clear_book, clear_instrument
from engine.feed.hot.apply import apply_rest
from engine.feed.hot.decoder import LOCATE
from engine.feed.hot.handover import NOTICE_CLEAR, NOTICE_CLEAR_ONE, give_notice, hand_on, may_hand_on
from engine.feed.hot.orders import DIVERGED, OVERFLOWED, apply_order
from engine.feed.hot.publish import RECORDS_PER_MESSAGE, touch_moved
from engine.feed.hot.state import (
    BLOCKED,
    CLEAR_NEXT,
    CLEAR_SESSION,
    CLEAR_SUSPECTS,
    CLEARING,
    EXPECTED,
    FIRST_INSTRUMENT,
    GAP,
    GAP_NONE,
    LOADED_HIGHEST,
    PAPER,
    REPLAY_NEXT,
    SCOPE,
    SCOPE_ALL,
    SLOT_BYTES,
    STAGING_AT,
    SUSPECTS,
    SWEEP_NEXT,
    UNPROVEN,
)
from engine.feed.hot.window import is_held
from engine.feed.itch import ABOUT_ORDER, CROSS_TRADE, LENGTHS, TRADE
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.layout import BUY, SELL
from engine.wire.hot.bytes import get_u16
from shm.atomics import wrap_add, wrap_sub
from shm.hot import has_room

# Orders and instruments cleared in one turn; messages applied again in one turn.
CLEARED_PER_STEP = np.int64(1024)
REPLAYED_PER_STEP = 4096

# top.refreshing: the book is being made anew; or was, and did not come out right.
REFRESHING = 1
SPOILED = 2

PRINTS = (TRADE.code, CROSS_TRADE.code)

# What replay_kept came to.
BEHIND = 0
CAUGHT_UP = 1
GONE = 2


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def clear_some(feed):
    """Go on with clearing. How much was done; CLEARING is 0 when all is."""
    words = feed.words
    if words[CLEARING] == CLEAR_SUSPECTS:
        return clear_suspects(feed)
    first = words[CLEAR_NEXT]
    of_session = np.int64(words[CLEARING] == CLEAR_SESSION)
    if first == 0 and words[PAPER] and not give_notice(feed.market, feed.market_bytes, NOTICE_CLEAR, np.int64(0), of_session):
        return 0
    book = feed.decoder.book
    words[CLEAR_NEXT] = clear_book(book, first, CLEARED_PER_STEP)
    for instrument in range(first, min(words[CLEAR_NEXT], feed.decoder.tops.shape[0])):
        forget_instrument(feed, instrument, words[CLEARING] == CLEAR_SESSION)
    if words[CLEAR_NEXT] == book.sides.shape[0] >> 1:
        if words[CLEARING] == CLEAR_SESSION:
            words[BLOCKED] = 0
            feed.decoder.stats[0].instruments = 0
        words[CLEARING] = 0
        words[SUSPECTS] = 0
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_instrument(feed, instrument, of_session):
    """Nothing is known of an instrument's trading any more; with its session, its directory entry is of the past as well."""
    top = feed.decoder.tops[instrument]
    if top.validity == 0 and top.known == 0:
        return
    top.state = 0
    top.halts = 0
    top.overflow = 0
    top.suspect = 0
    top.refreshing = 0
    top.reloaded = 1
    top.bid_px = 0
    top.bid_sz = 0
    top.ask_px = 0
    top.ask_sz = 0
    if of_session:
        top.known = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def clear_suspects(feed):
    words = feed.words
    left = CLEARED_PER_STEP
    tops = feed.decoder.tops
    while words[CLEAR_NEXT] < tops.shape[0] and left > 0:
        top = tops[words[CLEAR_NEXT]]
        left -= 1
        if top.suspect:
            if words[PAPER] and top.refreshing == 0 and not tell_cleared(feed, words[CLEAR_NEXT]):
                return 0
            top.refreshing = REFRESHING
            top.overflow = 0
            words[LOADED_HIGHEST] = max(words[LOADED_HIGHEST], words[CLEAR_NEXT])
            gone = clear_instrument(feed.decoder.book, words[CLEAR_NEXT], left + 1)
            left -= gone
            if left < 0:
                return 1
        words[CLEAR_NEXT] += 1
    if words[CLEAR_NEXT] == tops.shape[0]:
        words[CLEARING] = 0
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_cleared(feed, instrument):
    return give_notice(feed.market, feed.market_bytes, NOTICE_CLEAR_ONE, instrument, np.int64(0))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def load_message(feed, clock, at, length, origin):
    """Apply a message of a snapshot at buffer[at:], or one that was applied before, without telling of what it does to a book. False
    where the ring has no room for what else it has to tell."""
    if not may_hand_on(feed):
        return False
    code = np.int64(feed.buffer[at]) if length > 0 else 0
    if ABOUT_ORDER[code] and length >= LOCATE + 2:
        load_order(feed, at, code, length == LENGTHS[code])
    elif length == 0 or LENGTHS[code] != length:
        return True
    elif feed.words[SCOPE] == SCOPE_ALL and code not in PRINTS:
        if not has_room(feed.ticks, RECORDS_PER_MESSAGE):
            return False
        if feed.words[PAPER]:
            hand_on(feed.market, feed.market_bytes, feed.decoder.stats, feed.buffer, at, length)
        apply_rest(feed, clock, at, code, origin)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def load_order(feed, at, code, is_whole):
    """What does not fit even a book that was just made anew, or cannot be read, leaves it suspect."""
    tops = feed.decoder.tops
    instrument = get_u16(feed.buffer, at + LOCATE)
    if instrument >= tops.shape[0]:
        feed.decoder.stats[0].capacity_drops += 1
        return
    if feed.words[SCOPE] != SCOPE_ALL and tops[instrument].refreshing == 0:
        return
    if feed.words[PAPER] and is_whole:
        hand_on(feed.market, feed.market_bytes, feed.decoder.stats, feed.buffer, at, LENGTHS[code])
    did = apply_order(feed.decoder, feed.buffer, at, code)[0] if is_whole else np.int64(DIVERGED)
    if did in (DIVERGED, OVERFLOWED):
        tops[instrument].refreshing = SPOILED
    elif tops[instrument].refreshing == 0:
        tops[instrument].refreshing = REFRESHING
    feed.words[LOADED_HIGHEST] = max(feed.words[LOADED_HIGHEST], instrument)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def has_kept(feed, sequence):
    """Whether every message from `sequence` to before EXPECTED is in the window."""
    if wrap_sub(feed.words[EXPECTED], sequence) > feed.window.sequences.shape[0]:
        return False
    while sequence != feed.words[EXPECTED]:
        if not is_held(feed.window, sequence):
            return False
        sequence = wrap_add(sequence, 1)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def replay_kept(feed, clock, tsc):
    """Apply what was kept from REPLAY_NEXT on to the books that are made anew: CAUGHT_UP where they are where the feed is, BEHIND where
    there is more, GONE where newer messages have taken the next one's place."""
    words = feed.words
    held = feed.window.held
    mask = feed.window.sequences.shape[0] - 1
    for _ in range(REPLAYED_PER_STEP):
        if words[REPLAY_NEXT] == words[EXPECTED]:
            return CAUGHT_UP
        if not is_held(feed.window, words[REPLAY_NEXT]):
            return GONE
        place = (words[REPLAY_NEXT] & mask) * SLOT_BYTES
        length = get_u16(held, place)
        for byte in range(length):
            feed.buffer[STAGING_AT + byte] = held[place + LENGTH_BYTES + byte]
        if not load_message(feed, clock, STAGING_AT, length, tsc):
            return BEHIND
        words[REPLAY_NEXT] = wrap_add(words[REPLAY_NEXT], 1)
    return CAUGHT_UP if words[REPLAY_NEXT] == words[EXPECTED] else BEHIND


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def finish_refresh(feed):
    """The books are where the feed is. Every instrument is told what its book is worth now."""
    words = feed.words
    for instrument in range(words[LOADED_HIGHEST] + 1):
        top = feed.decoder.tops[instrument]
        if top.refreshing != 0:
            words[SUSPECTS] -= np.int64(top.suspect)
            top.suspect = 1 if top.refreshing == SPOILED else 0
            words[SUSPECTS] += np.int64(top.suspect)
            top.refreshing = 0
            top.refreshes += 1
            top.reloaded = 1
            touch_moved(feed.decoder.book, top, instrument, BUY)
            touch_moved(feed.decoder.book, top, instrument, SELL)
    if words[SCOPE] == SCOPE_ALL:
        words[UNPROVEN] = 0
        words[BLOCKED] = 0
        words[GAP] = GAP_NONE
    feed.decoder.stats[0].refreshes += 1
    words[SWEEP_NEXT] = FIRST_INSTRUMENT


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def abandon_refresh(feed):
    """Nothing came of it: the books in hand are what they are, and stay suspect or gapped."""
    words = feed.words
    for instrument in range(words[LOADED_HIGHEST] + 1):
        top = feed.decoder.tops[instrument]
        if top.refreshing != 0:
            top.refreshing = 0
            top.reloaded = 1
            touch_moved(feed.decoder.book, top, instrument, BUY)
            touch_moved(feed.decoder.book, top, instrument, SELL)
    if words[CLEARING] != CLEAR_SESSION:
        words[CLEARING] = 0
