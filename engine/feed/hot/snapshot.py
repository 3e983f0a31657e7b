"""The snapshot's connection: when one is wanted, its login, its stream, and when what it brought is joined to the feed.

    idle ──▶ wanted ──▶ connecting ──▶ login ──▶ clearing ──▶ loading ──▶ joining ──▶ replaying ──▶ idle
              Python connects          first message arrived   G       the feed is at G

Glimpse 5.0 over SoupBinTCP (engine/feed/glimpse.py). Whatever goes wrong, nothing waits for it longer than the time an attempt is
given; then the next one begins, later each time. While a snapshot for all books is loaded the feed stands still and its messages wait
in the window, where the oldest give way: only those from the snapshot's number on are needed.
"""

import numpy as np
from numba import njit

from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.feed.hot.mold import become_gapped
from engine.feed.hot.refresh import CAUGHT_UP, GONE, abandon_refresh, finish_refresh, has_kept, load_message, replay_kept
from engine.feed.hot.state import (
    BLOCKED,
    CLEAR_BOOKS,
    CLEAR_NEXT,
    CLEAR_SUSPECTS,
    CLEARING,
    EXPECTED,
    FEED_SEQUENCE,
    FRONTIER,
    GAP,
    GAP_SNAPSHOT,
    GAPPED,
    KEEP,
    LINE_SNAPSHOT,
    LOADED_HIGHEST,
    LOGIN_AT,
    LOGIN_BYTES,
    LOGIN_HEARTBEAT_AT,
    REFRESH_NEXT_TSC,
    REFRESH_WAIT_NS,
    REPLAY_NEXT,
    REQUEST_AT,
    SCOPE,
    SCOPE_ALL,
    SCOPE_SUSPECTS,
    SESSION_HIGH,
    SESSION_LOW,
    SNAPSHOT,
    SNAPSHOT_AVAILABLE,
    SNAPSHOT_CLEARING,
    SNAPSHOT_CONNECTING,
    SNAPSHOT_FAILURES,
    SNAPSHOT_FD,
    SNAPSHOT_HEARD_TSC,
    SNAPSHOT_IDLE,
    SNAPSHOT_JOINING,
    SNAPSHOT_LOADING,
    SNAPSHOT_LOGIN,
    SNAPSHOT_NAMED,
    SNAPSHOT_NEXT_TSC,
    SNAPSHOT_REPLAYING,
    SNAPSHOT_SENT_TSC,
    SNAPSHOT_SEQUENCE,
    SNAPSHOT_TIMEOUT_NS,
    SNAPSHOT_TRIES,
    SNAPSHOT_TSC,
    SNAPSHOT_VOID,
    SNAPSHOT_WANTED,
    STREAM_AT,
    STREAM_BEGIN,
    STREAM_BYTES,
    STREAM_END,
    SUSPECTS,
    UNPROVEN,
)
from engine.feed.hot.window import raise_frontier
from engine.feed.moldudp64 import SESSION_BYTES
from engine.messages.hot.stamp import ticks_of_ns
from engine.wire.hot.bytes import get_u16, put_raw64, put_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, close_fd, recv_bytes, send_bytes
from engine.wire.soupbintcp import (
    DEBUG,
    HEARTBEAT_NS,
    LENGTH_BYTES,
    LOGIN_ACCEPTED,
    PAYLOAD_AT,
    SEQUENCED,
    SERVER_HEARTBEAT,
    SILENCE_NS,
    TYPE_AT,
)
from shm.atomics import store_release, wrap_sub

ACCEPTED_CODE = LOGIN_ACCEPTED.code
ACCEPTED_BYTES = LOGIN_ACCEPTED.length
SESSION_AT = LOGIN_ACCEPTED["session"]
SPACE = ord(" ")
END_CODE = END_OF_SNAPSHOT.code
END_BYTES = END_OF_SNAPSHOT.length
DIGITS_AT = END_OF_SNAPSHOT["sequence"]
HEARTBEAT_BYTES = PAYLOAD_AT

# Messages taken off the stream in one turn.
LOADED_PER_STEP = 512
# An attempt whose time is up goes on while there is something to do, but not this many times as long again.
LATE_TIMES = 2
# From failure to next attempt: twice as long each time; where all attempts have failed, at leisure.
RETRY_NS = 50_000_000
RETRY_SHIFT_MAX = 5
LEISURE_NS = 30_000_000_000
# From one refresh of suspects to the next: twice as long each time, until there was none for the longest of these.
REFRESH_NS = 1_000_000_000
REFRESH_NS_MAX = 64_000_000_000

# What reading a packet of the stream came to.
TAKEN = 1
WAITS = 0
BROKEN = -1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def attend_snapshot(feed, clock, tsc):
    """Go on with the snapshot, or begin one where there is need. How much was done."""
    words = feed.words
    if words[SNAPSHOT] == SNAPSHOT_IDLE:
        return want_snapshot(feed, clock, tsc)
    if words[SNAPSHOT_VOID] or is_pointless(words):
        end_snapshot(feed)
        abandon_refresh(feed)
        return 1
    done = go_on(feed, clock, tsc)
    late = tsc - words[SNAPSHOT_TSC] - ticks_of_ns(clock, words[SNAPSHOT_TIMEOUT_NS])
    if words[SNAPSHOT] != SNAPSHOT_IDLE and late > 0 and (done == 0 or late > ticks_of_ns(clock, LATE_TIMES * words[SNAPSHOT_TIMEOUT_NS])):
        fail_snapshot(feed, clock, tsc)
        return 1
    return done


@njit(cache=True, _nrt=False)
def go_on(feed, clock, tsc):
    state = feed.words[SNAPSHOT]
    if state == SNAPSHOT_CONNECTING:
        return log_in(feed, clock, tsc)
    if state in (SNAPSHOT_LOGIN, SNAPSHOT_LOADING):
        return read_stream(feed, clock, tsc)
    if state == SNAPSHOT_CLEARING:
        return clear_for_snapshot(feed)
    if state == SNAPSHOT_JOINING:
        return join_feed(feed, clock, tsc)
    if state == SNAPSHOT_REPLAYING:
        came_to = replay_kept(feed, clock, tsc)
        if came_to == CAUGHT_UP:
            succeed(feed, clock, tsc)
        elif came_to == GONE:
            refuse_as_too_old(feed, clock, tsc)
        return 1
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_pointless(words):
    """The hole was filled after all, before a book was touched; or suspects have become everybody's trouble."""
    if words[SCOPE] == SCOPE_ALL:
        return words[BLOCKED] == 0 and words[GAP] != GAP_SNAPSHOT and words[UNPROVEN] == 0
    return words[GAP] == GAP_SNAPSHOT or words[UNPROVEN] != 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def want_snapshot(feed, clock, tsc):
    words = feed.words
    if words[SNAPSHOT_AVAILABLE] == 0 or words[SNAPSHOT_NEXT_TSC] > tsc or words[CLEARING] != 0:
        return 0
    if words[GAP] == GAP_SNAPSHOT or words[UNPROVEN]:
        words[SCOPE] = SCOPE_ALL
    elif words[SUSPECTS] > 0 and words[GAPPED] == 0 and tsc >= words[REFRESH_NEXT_TSC]:
        words[SCOPE] = SCOPE_SUSPECTS
    else:
        return 0
    words[SNAPSHOT] = SNAPSHOT_WANTED
    words[SNAPSHOT_VOID] = 0
    words[SNAPSHOT_NAMED] = 0
    words[SNAPSHOT_TSC] = tsc
    words[SNAPSHOT_FD] = -1
    words[STREAM_BEGIN] = STREAM_AT
    words[STREAM_END] = STREAM_AT
    words[LOADED_HIGHEST] = 0
    words[KEEP] = 1
    feed.lines[LINE_SNAPSHOT].requests += 1
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_snapshot(feed):
    """Let go of the connection; the feed goes on as it was."""
    words = feed.words
    if words[SNAPSHOT_FD] >= 0:
        close_fd(words[SNAPSHOT_FD])
        words[SNAPSHOT_FD] = -1
    words[SNAPSHOT] = SNAPSHOT_IDLE
    words[SNAPSHOT_VOID] = 0
    words[KEEP] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fail_snapshot(feed, clock, tsc):
    """An attempt came to nothing. Where a hole waits for it, the feed stands still for as many attempts as are granted."""
    words = feed.words
    feed.decoder.stats[0].snapshot_failures += 1
    feed.lines[LINE_SNAPSHOT].failures += 1
    words[SNAPSHOT_FAILURES] += 1
    wait_ns = RETRY_NS << min(words[SNAPSHOT_FAILURES] - 1, RETRY_SHIFT_MAX)
    if words[SNAPSHOT_FAILURES] >= words[SNAPSHOT_TRIES]:
        wait_ns = LEISURE_NS
    words[SNAPSHOT_NEXT_TSC] = tsc + ticks_of_ns(clock, wait_ns)
    end_snapshot(feed)
    abandon_refresh(feed)
    if words[SCOPE] == SCOPE_ALL and words[GAP] != GAP_SNAPSHOT:
        words[BLOCKED] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def refuse_as_too_old(feed, clock, tsc):
    """What follows the snapshot's number is no longer all in the window."""
    feed.decoder.stats[0].snapshots_too_old += 1
    fail_snapshot(feed, clock, tsc)


@njit(cache=True, _nrt=False)
def succeed(feed, clock, tsc):
    words = feed.words
    finish_refresh(feed)
    end_snapshot(feed)
    words[SNAPSHOT_FAILURES] = 0
    feed.decoder.stats[0].snapshots += 1
    if words[SCOPE] == SCOPE_SUSPECTS:
        if words[REFRESH_WAIT_NS] == 0 or tsc - words[REFRESH_NEXT_TSC] > ticks_of_ns(clock, REFRESH_NS_MAX):
            words[REFRESH_WAIT_NS] = REFRESH_NS
        words[REFRESH_NEXT_TSC] = tsc + ticks_of_ns(clock, words[REFRESH_WAIT_NS])
        words[REFRESH_WAIT_NS] = min(2 * words[REFRESH_WAIT_NS], REFRESH_NS_MAX)
    # SYNC POINT: whoever reads this sequence finds the ticks of every message before it on the ring.
    store_release(feed.control, FEED_SEQUENCE, words[EXPECTED])


@njit(cache=True, _nrt=False)
def log_in(feed, clock, tsc):
    """Send the login as soon as the connection takes it."""
    words = feed.words
    sent = send_bytes(words[SNAPSHOT_FD], feed.buffer, LOGIN_AT, words[LOGIN_BYTES])
    if sent in (AGAIN, INTERRUPTED):
        return 0
    if sent != words[LOGIN_BYTES]:
        fail_snapshot(feed, clock, tsc)
        return 1
    words[SNAPSHOT] = SNAPSHOT_LOGIN
    words[SNAPSHOT_HEARD_TSC] = tsc
    words[SNAPSHOT_SENT_TSC] = tsc
    return 1


@njit(cache=True, _nrt=False)
def read_stream(feed, clock, tsc):
    """Receive, and take whole packets off the stream."""
    words = feed.words
    if tsc - words[SNAPSHOT_SENT_TSC] >= ticks_of_ns(clock, HEARTBEAT_NS):
        send_bytes(words[SNAPSHOT_FD], feed.buffer, LOGIN_HEARTBEAT_AT, HEARTBEAT_BYTES)
        words[SNAPSHOT_SENT_TSC] = tsc
    done = receive_stream(feed, tsc)
    if done < 0 or tsc - words[SNAPSHOT_HEARD_TSC] > ticks_of_ns(clock, SILENCE_NS):
        fail_snapshot(feed, clock, tsc)
        return 1
    for _ in range(LOADED_PER_STEP):
        taken = take_packet_off(feed, clock, tsc)
        if taken == BROKEN:
            fail_snapshot(feed, clock, tsc)
            return 1
        if taken == WAITS:
            return done
        done += 1
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def receive_stream(feed, tsc):
    """Read what has arrived behind what is there: the bytes; BROKEN where the connection is over and nothing whole can come any more."""
    words = feed.words
    buffer = feed.buffer
    begin = words[STREAM_BEGIN]
    waiting = words[STREAM_END] - begin
    if begin > STREAM_AT and (waiting == 0 or begin - STREAM_AT > STREAM_BYTES >> 1):
        for byte in range(waiting):
            buffer[STREAM_AT + byte] = buffer[begin + byte]
        words[STREAM_BEGIN] = STREAM_AT
        words[STREAM_END] = STREAM_AT + waiting
    room = STREAM_AT + STREAM_BYTES - words[STREAM_END]
    if room == 0:
        return 0
    got = recv_bytes(words[SNAPSHOT_FD], buffer, words[STREAM_END], room)
    if got > 0:
        words[STREAM_END] += got
        words[SNAPSHOT_HEARD_TSC] = tsc
        feed.lines[LINE_SNAPSHOT].bytes += got
        feed.lines[LINE_SNAPSHOT].heard_tsc = tsc
        return got
    if got in (AGAIN, INTERRUPTED) or words[STREAM_END] != words[STREAM_BEGIN]:
        return 0
    return BROKEN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_packet_off(feed, clock, tsc):
    """TAKEN: a packet was dealt with. WAITS: none is whole, or none can be taken now. BROKEN: it is not what a server sends."""
    words = feed.words
    buffer = feed.buffer
    at = words[STREAM_BEGIN]
    waiting = words[STREAM_END] - at
    if words[SNAPSHOT] not in (SNAPSHOT_LOGIN, SNAPSHOT_LOADING) or waiting < PAYLOAD_AT:
        return WAITS
    size = LENGTH_BYTES + get_u16(buffer, at)
    if size < PAYLOAD_AT:
        return BROKEN
    if size > waiting:
        return WAITS
    kind = np.int64(buffer[at + TYPE_AT])
    row = feed.lines[LINE_SNAPSHOT]
    if kind == SEQUENCED:
        if words[SNAPSHOT] == SNAPSHOT_LOGIN:
            begin_clearing(words)
            return WAITS
        payload = at + PAYLOAD_AT
        if buffer[payload] == END_CODE and size - PAYLOAD_AT == END_BYTES:
            return end_stream(feed, payload)
        if not load_message(feed, clock, payload, size - PAYLOAD_AT, tsc):
            return WAITS
        row.messages += 1
        feed.decoder.stats[0].snapshot_messages += 1
    elif kind == SERVER_HEARTBEAT:
        row.heartbeats += 1
    elif kind == ACCEPTED_CODE and size == LENGTH_BYTES + ACCEPTED_BYTES:
        words[SNAPSHOT_NAMED] = is_our_session(words, buffer, at + TYPE_AT + SESSION_AT)
    elif kind != DEBUG:
        # The login was refused, the session ended before the snapshot did, or this is another protocol.
        return BROKEN
    row.packets += 1
    words[STREAM_BEGIN] = at + size
    return TAKEN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_our_session(words, buffer, at):
    """Whether the session of a login is named like the feed's. SoupBinTCP has the name at the right, MoldUDP64 at the left."""
    put_raw64(buffer, REQUEST_AT, words[SESSION_HIGH])
    put_u16(buffer, REQUEST_AT + 8, words[SESSION_LOW])
    ours = 0
    theirs = 0
    for _ in range(SESSION_BYTES):
        while ours < SESSION_BYTES and buffer[REQUEST_AT + ours] == SPACE:
            ours += 1
        while theirs < SESSION_BYTES and buffer[at + theirs] == SPACE:
            theirs += 1
        if ours == SESSION_BYTES or theirs == SESSION_BYTES:
            break
        if buffer[REQUEST_AT + ours] != buffer[at + theirs]:
            return 0
        ours += 1
        theirs += 1
    return 1 if ours == SESSION_BYTES and theirs == SESSION_BYTES else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def begin_clearing(words):
    """The first message is there: whatever the books hold is of no use any more. Until they are empty the stream waits."""
    words[SNAPSHOT] = SNAPSHOT_CLEARING
    words[CLEAR_NEXT] = 0
    if words[SCOPE] == SCOPE_ALL:
        become_gapped(words)
        words[BLOCKED] = 1
        words[CLEARING] = CLEAR_BOOKS
    else:
        words[CLEARING] = CLEAR_SUSPECTS


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def clear_for_snapshot(feed):
    """Once every instrument has been told that its book is not valid, the books are cleared (by recovery.py)."""
    words = feed.words
    if words[CLEARING] != 0:
        return 0
    words[SNAPSHOT] = SNAPSHOT_LOADING
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_stream(feed, payload):
    """The snapshot is whole, and says where the feed goes on."""
    sequence = np.uint64(0)
    for digit in range(END_BYTES - DIGITS_AT):
        value = np.uint64(feed.buffer[payload + DIGITS_AT + digit])
        if value < np.uint64(48) or value > np.uint64(57):
            return BROKEN
        sequence = sequence * np.uint64(10) + (value - np.uint64(48))
    feed.words[SNAPSHOT_SEQUENCE] = np.int64(sequence)
    feed.words[SNAPSHOT] = SNAPSHOT_JOINING
    close_fd(feed.words[SNAPSHOT_FD])
    feed.words[SNAPSHOT_FD] = -1
    return TAKEN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def join_feed(feed, clock, tsc):
    """Where the feed has come to the snapshot's number, and what follows that number is there, the two are one."""
    words = feed.words
    sequence = words[SNAPSHOT_SEQUENCE]
    if words[SCOPE] == SCOPE_ALL and words[SNAPSHOT_NAMED] and wrap_sub(sequence, words[FRONTIER]) < feed.window.sequences.shape[0]:
        # It is of our session, so the numbers that it has and nobody sent us were in use, be the market ever so quiet now.
        raise_frontier(words, sequence, tsc)
    reached = words[FRONTIER] if words[SCOPE] == SCOPE_ALL else words[EXPECTED]
    if wrap_sub(sequence, reached) > 0:
        return 0
    ahead = wrap_sub(sequence, words[EXPECTED])
    if wrap_sub(words[FRONTIER], sequence) > feed.window.sequences.shape[0] or (ahead < 0 and not has_kept(feed, sequence)):
        refuse_as_too_old(feed, clock, tsc)
        return 1
    if ahead > 0:
        feed.decoder.stats[0].lost += ahead
        feed.decoder.stats[0].covered += ahead
        words[EXPECTED] = sequence
    words[REPLAY_NEXT] = sequence
    words[SNAPSHOT] = SNAPSHOT_REPLAYING
    return 1
