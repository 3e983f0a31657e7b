"""One turn of the feed handler: packets or a piece of a file, message by message, into books and ticks.

    socket ──recvmmsg──▶ packet ──▶ sequence ──▶ messages ──▶ book ──▶ ticks ring, boards
    file   ──read──────▶ piece ──────────────▶

Before a message is applied there is room in the ring for all that it can publish. Where there is none the turn ends and the next one
begins at that message: nothing is dropped, and the socket's own buffer is what gives.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import ORDERS_LIVE
from engine.feed.hot.admin import EVENT, LISTED, STATE_CHANGED, apply_admin
from engine.feed.hot.decoder import (
    AT,
    CODE,
    EMPTY_FRAME,
    LENGTH,
    LOCATE,
    LOOK_AHEAD,
    OFFSET_MASK,
    ROW_WORDS,
    TIMESTAMP,
    WINDOW_ROWS,
    fetch_handle,
    fetch_neighbours,
    fetch_order,
    read_frame,
)
from engine.feed.hot.mold import end_session
from engine.feed.hot.orders import NOTHING, apply_order
from engine.feed.hot.publish import RECORDS_PER_MESSAGE, publish_change, publish_instrument, publish_print, publish_status
from engine.feed.hot.source import end_file, next_packet, next_piece
from engine.feed.hot.state import (
    CLOSED,
    END_AT,
    EXPECTED,
    FEED_SEQUENCE,
    FILE_READ,
    FIRST_INSTRUMENT,
    HIGHEST,
    INSTRUMENTS_TOLD,
    LEFT,
    MIDNIGHT_NS,
    NEXT_AT,
    ORIGIN_TSC,
    SOURCE,
    SOURCE_FILE,
    SOURCE_UDP,
    STALE,
    SWEEP_NEXT,
)
from engine.feed.itch import ABOUT_ORDER, CROSS_TRADE, LENGTHS, TRADE
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.messages.hot.stamp import now_tsc, wall_ns
from engine.wire.hot.bytes import get_u16, get_u48
from shm.atomics import store_release
from shm.hot import has_room

# Packets, or pieces of a file, in one turn.
PACKETS_PER_STEP = 8
# Instruments told of a new reason in one turn, and looked at for it.
TOLD_PER_STEP = 64
SWEPT_PER_STEP = 4096

PRINT = TRADE.code
CROSS = CROSS_TRADE.code
EVENTS_CLOSING = (ord("M"), ord("E"), ord("C"))
EVENTS_OPENING = (ord("O"), ord("S"), ord("Q"))

# What walking a packet's messages came to.
FULL = 0
WALKED = 1


@njit(cache=True, _nrt=False)
def step(feed, clock):
    """A bounded amount of work: how much was done (0: nothing was there to do), or a reason below 0 (engine/feed/hot/source.py)."""
    words = feed.words
    stats = feed.decoder.stats
    done = 0
    if words[SWEEP_NEXT] != INSTRUMENTS_TOLD:
        done += sweep(feed, clock)
    for _ in range(PACKETS_PER_STEP):
        if words[LEFT] == 0:
            if words[SOURCE] == SOURCE_UDP:
                got = next_packet(words, feed.control, stats, feed.buffer, feed.headers, feed.notes, clock)
            else:
                got = next_piece(words, feed.control, stats, feed.buffer)
            if got <= 0:
                return got if got < 0 else done
            done += 1
        before = words[EXPECTED]
        walked = walk(feed, clock)
        done += words[EXPECTED] - before
        if walked == FULL:
            stats[0].ring_waits += 1
            return done
        if walked < 0:
            return walked
        stats[0].orders_live = feed.decoder.book.counts[ORDERS_LIVE]
        # SYNC POINT: whoever reads this sequence finds the ticks of every message before it on the ring.
        store_release(feed.control, FEED_SEQUENCE, words[EXPECTED])
    return done


@njit(cache=True, forceinline=True, _nrt=False)
def walk(feed, clock):
    """Apply the messages that are left of a packet or piece: WALKED, FULL where the ring has no room for the next, or a reason."""
    words = feed.words
    decoder = feed.decoder
    buffer = feed.buffer
    at = words[NEXT_AT]
    end = words[END_AT]
    left = words[LEFT]
    origin = words[ORIGIN_TSC]
    # In a packet of a few messages there is nothing to look ahead to.
    ahead = min(LOOK_AHEAD, left >> 2)
    read = 0
    turn = 0
    more = True
    while True:
        if more and read < left:
            after = read_frame(decoder, read, buffer, at, end)
            if after < 0:
                more = False
            else:
                read += 1
                at = after
        if ahead > 0:
            number = turn - ahead
            if 0 <= number < read:
                fetch_handle(decoder, number)
            number -= ahead
            if 0 <= number < read:
                fetch_order(decoder, number)
            number -= ahead
            if 0 <= number < read:
                fetch_neighbours(decoder, number)
        number = turn - 4 * ahead
        if number >= 0:
            if number >= read:
                break
            row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
            if not has_room(feed.ticks, RECORDS_PER_MESSAGE):
                words[NEXT_AT] = decoder.window[row + AT] - LENGTH_BYTES
                words[LEFT] = left - number
                return FULL
            if words[SOURCE] == SOURCE_FILE:
                # A file has no packets: each message arrives when its turn comes.
                origin = now_tsc(clock)
                if decoder.window[row + LENGTH] == EMPTY_FRAME:
                    # How a file says that its session ended (NASDAQ BinaryFILE); nothing after it counts.
                    words[NEXT_AT] = end
                    words[LEFT] = 0
                    end_session(words, feed.control, decoder.stats)
                    return WALKED
            apply_message(feed, clock, row, origin)
            words[EXPECTED] += 1
        turn += 1
    words[NEXT_AT] = at
    words[LEFT] = 0
    return finish(feed.words, feed.control, decoder.stats, read == left)


@njit(cache=True, _nrt=False)
def finish(words, control, stats, whole):
    """A packet must end with its last message. A file that ends inside one is at its end; otherwise there is more to read."""
    if words[SOURCE] == SOURCE_UDP:
        if not whole or words[NEXT_AT] != words[END_AT]:
            stats[0].malformed += 1
    elif not whole and words[FILE_READ]:
        ended = end_file(words, control, stats)
        return ended if ended < 0 else WALKED
    return WALKED


@njit(cache=True, forceinline=True, _nrt=False)
def apply_message(feed, clock, row, origin):
    """Apply and publish the message in a row of the window."""
    decoder = feed.decoder
    at = decoder.window[row + AT]
    code = decoder.window[row + CODE]
    stats = decoder.stats[0]
    decoder.counts[code] += 1
    stats.messages += 1
    if LENGTHS[code] != decoder.window[row + LENGTH]:
        if LENGTHS[code] == 0:
            stats.unknown_types += 1
        else:
            stats.malformed += 1
    elif ABOUT_ORDER[code]:
        change = apply_order(decoder, feed.buffer, at, code)
        if change[0] != NOTHING:
            publish_change(feed, clock, feed.buffer, at, code, change, origin)
    elif code in (PRINT, CROSS):
        publish_print(feed, clock, feed.buffer, at, code, origin)
    else:
        apply_rest(feed, clock, at, code, origin)


@njit(cache=True, _nrt=False)
def apply_rest(feed, clock, at, code, origin):
    """A message that is neither about an order nor a trade."""
    decoder = feed.decoder
    said = apply_admin(decoder.tops, decoder.states, decoder.market, decoder.stats, feed.buffer, at, code)
    at = at & OFFSET_MASK
    instrument = get_u16(feed.buffer, at + LOCATE)
    ts_ns = feed.words[MIDNIGHT_NS] + get_u48(feed.buffer, at + TIMESTAMP)
    if said == LISTED:
        top = decoder.tops[instrument]
        if is_wanted(feed.wanted, np.int64(decoder.states[instrument].symbol)):
            top.publish = 1
        if top.publish:
            feed.words[HIGHEST] = max(feed.words[HIGHEST], instrument)
            publish_instrument(feed, clock, instrument, origin, ts_ns)
    elif said == STATE_CHANGED:
        if decoder.tops[instrument].publish:
            publish_status(feed, clock, instrument, origin, ts_ns)
    elif said == EVENT:
        note_event(feed.words, np.int64(decoder.market[0].event))
        # The market's own events go out once, as of instrument 0, which no stock has.
        publish_status(feed, clock, 0, origin, ts_ns)


@njit(cache=True, _nrt=False)
def is_wanted(wanted, symbol):
    for packed in wanted:  # noqa: SIM110 - any() of a generator is not for kernels
        if packed == symbol:
            return True
    return False


@njit(cache=True, _nrt=False)
def note_event(words, event):
    """Outside market hours no book may be acted on; a day that begins before they do is open until it says otherwise."""
    closed = words[CLOSED]
    if event in EVENTS_CLOSING:
        words[CLOSED] = 1
    elif event in EVENTS_OPENING:
        words[CLOSED] = 0
    if words[CLOSED] != closed:
        words[SWEEP_NEXT] = FIRST_INSTRUMENT


@njit(cache=True, _nrt=False)
def sweep(feed, clock):
    """Tell every instrument that is published what its book is worth now: some in each turn, and only while there is room."""
    words = feed.words
    told = 0
    tsc = now_tsc(clock)
    for _ in range(SWEPT_PER_STEP):
        instrument = words[SWEEP_NEXT]
        if instrument > words[HIGHEST]:
            words[SWEEP_NEXT] = INSTRUMENTS_TOLD
            return told
        if told == TOLD_PER_STEP:
            return told
        top = feed.decoder.tops[instrument]
        if top.known or top.validity != 0:
            if top.publish:
                if not has_room(feed.ticks, 1):
                    feed.decoder.stats[0].ring_waits += 1
                    return told
                publish_status(feed, clock, instrument, tsc, wall_ns(clock, tsc))
                told += 1
            if words[STALE] and top.stale == 0:
                top.stale = 1
                feed.decoder.stats[0].books_stale += 1
        words[SWEEP_NEXT] = instrument + 1
    return told
