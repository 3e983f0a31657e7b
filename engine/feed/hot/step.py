"""One turn of the feed handler: packets or a piece of a file, message by message, into books and ticks.

    socket ──recvmmsg──▶ packet ──▶ sequence ──▶ messages ──▶ book ──▶ ticks ring, boards
    file   ──read──────▶ piece ──────────────▶

Before a message is applied there is room in the ring for all that it can publish. Where there is none the turn ends and the next one
begins at that message: nothing is dropped, and the socket's own buffer is what gives.
"""

from numba import njit

from engine.book.hot.book import ORDERS_LIVE
from engine.feed.hot.apply import apply_message
from engine.feed.hot.check import check_touched
from engine.feed.hot.decoder import (
    AT,
    EMPTY_FRAME,
    LENGTH,
    LOOK_AHEAD,
    ROW_WORDS,
    WINDOW_ROWS,
    fetch_ahead,
    read_frame,
)
from engine.feed.hot.handover import may_hand_on
from engine.feed.hot.lines import take_back
from engine.feed.hot.mold import end_session
from engine.feed.hot.publish import (
    RECORDS_PER_MESSAGE,
    publish_quote,
    publish_status,
)
from engine.feed.hot.recovery import recover
from engine.feed.hot.source import end_file, next_packet, next_piece
from engine.feed.hot.state import (
    CAPTURE,
    CHECK_BOOKS,
    DRIFT_NS_MAX,
    END_AT,
    EXPECTED,
    FEED_SEQUENCE,
    FILE_READ,
    FRONTIER,
    GAP,
    GAP_ASKING,
    HIGHEST,
    INSTRUMENTS_TOLD,
    LEFT,
    LINE,
    LINE_NONE,
    NEXT_AT,
    ORIGIN_TSC,
    SOURCE,
    SOURCE_FILE,
    SOURCE_UDP,
    SWEEP_NEXT,
    TROUBLE,
)
from engine.feed.hot.watchdog import watch, watch_age
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.messages.hot.stamp import now_tsc, wall_ns
from shm.atomics import store_release, wrap_add, wrap_sub
from shm.hot import has_room

# Packets, or pieces of a file, in one turn.
PACKETS_PER_STEP = 8
# Instruments told of a new reason in one turn, and looked at for it.
TOLD_PER_STEP = 64
SWEPT_PER_STEP = 4096

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
    if words[TROUBLE] and words[LEFT] == 0:
        done += recover(feed, clock)
    turned = False
    for _ in range(PACKETS_PER_STEP):
        if words[LEFT] == 0:
            if words[CAPTURE] and words[TROUBLE] and (turned or words[GAP] == GAP_ASKING):
                # Holes are looked after between any two packets, and passed over before the next one, so that what comes of a capture
                # does not hang on how fast its packets come.
                return done
            turned = True
            if words[SOURCE] == SOURCE_UDP:
                got = next_packet(feed, clock)
            else:
                got = next_piece(words, feed.control, stats, feed.buffer, clock)
            if got <= 0:
                if done == 0 and got == 0 and words[SOURCE] == SOURCE_UDP:
                    watch(feed, clock)
                return got if got < 0 else done
            done += 1
            if words[LEFT] == 0:
                continue
            if words[DRIFT_NS_MAX] != 0:
                watch_age(feed, clock)
        left = words[LEFT]
        begin = words[NEXT_AT]
        expected = words[EXPECTED]
        walked = walk(feed, clock)
        if words[CHECK_BOOKS]:
            check_touched(feed, clock, begin, wrap_sub(words[EXPECTED], expected))
        done += left - words[LEFT]
        if wrap_sub(words[EXPECTED], words[FRONTIER]) > 0:
            words[FRONTIER] = words[EXPECTED]
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
        number = fetch_ahead(decoder, turn, ahead, read) if ahead > 0 else turn
        if number >= 0:
            if number >= read:
                break
            row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
            if not has_room(feed.ticks, RECORDS_PER_MESSAGE) or not may_hand_on(feed):
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
            words[EXPECTED] = wrap_add(words[EXPECTED], 1)
        turn += 1
    words[NEXT_AT] = at
    words[LEFT] = 0
    return finish(feed, left - read)


@njit(cache=True, _nrt=False)
def finish(feed, unread):
    """A packet must end with its last message; what it did not hold its line did not bring. A file that ends inside a message is at its
    end; otherwise there is more to read."""
    words = feed.words
    stats = feed.decoder.stats
    if words[SOURCE] == SOURCE_FILE:
        if unread and words[FILE_READ]:
            ended = end_file(words, feed.control, stats)
            return ended if ended < 0 else WALKED
    elif (unread or words[NEXT_AT] != words[END_AT]) and words[LINE] != LINE_NONE:
        row = feed.lines[words[LINE]]
        row.first -= unread
        take_back(feed, words[LINE], wrap_add(words[EXPECTED], unread), unread)
        row.malformed += 1
        stats[0].malformed += 1
    return WALKED


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
        if (top.known or top.validity != 0) and top.publish:
            if not has_room(feed.ticks, 2) or not may_hand_on(feed):
                feed.decoder.stats[0].ring_waits += 1
                return told
            if top.reloaded:
                top.reloaded = 0
                publish_quote(feed, clock, instrument, tsc, wall_ns(clock, tsc))
            publish_status(feed, clock, instrument, tsc, wall_ns(clock, tsc))
            told += 1
        words[SWEEP_NEXT] = instrument + 1
    return told
