"""The life of a hole: messages that no line has brought though later ones came, or a heartbeat told of them.

    waiting ──reorder_us──▶ asking ──all tries spent, too large──▶ snapshot ──none, or failed──▶ passed over
       |                       |                                      |
       +───── filled by the other line, a rewind server ──────────────+──▶ closed

While it is young the books are whole as of the message before it, and only late: a line that is overtaken is no loss. Then every book
is GAPPED until the hole is closed and what waited behind it has been applied. Rewind servers are asked in turn for what is missing at
the front, one request under way at a time: what an answer does not bring is asked for again. A hole that nobody can fill is passed
over and counted lost; the books are then unproven, and stay GAPPED until a snapshot or a new session.
"""

from numba import njit

from engine.feed.hot.mold import become_gapped, end_session, is_agreed
from engine.feed.hot.refresh import clear_some
from engine.feed.hot.snapshot import attend_snapshot
from engine.feed.hot.state import (
    ASKED,
    ASKED_FROM,
    ASKED_TSC,
    BLOCKED,
    CAPTURE,
    CAPTURE_NS,
    CAPTURE_OVER,
    CAPTURE_PLAYING,
    CLEARING,
    END_KNOWN,
    END_SEQUENCE,
    ENDED,
    EXPECTED,
    FEED_SEQUENCE,
    FIRST_INSTRUMENT,
    FRONTIER,
    FRONTIER_TSC,
    GAP,
    GAP_ASKING,
    GAP_MESSAGES_MAX,
    GAP_NONE,
    GAP_SNAPSHOT,
    GAP_WAITING,
    GAPPED,
    HOLE_END,
    HOLE_NS,
    HOLE_TSC,
    INSTRUMENTS_TOLD,
    LINE_REWIND,
    REORDER_NS,
    REQUEST_AT,
    REQUEST_INTERVAL_NS,
    REQUEST_MESSAGES_MAX,
    REQUEST_TIMEOUT_NS,
    REQUEST_TRIES,
    SERVER,
    SERVERS,
    SESSION_HIGH,
    SESSION_LOW,
    SNAPSHOT,
    SNAPSHOT_AVAILABLE,
    SNAPSHOT_FAILURES,
    SNAPSHOT_IDLE,
    SNAPSHOT_TRIES,
    SUSPECTS,
    SWEEP_NEXT,
    TRIES,
    TROUBLE,
    TROUBLE_TSC,
    UNPROVEN,
)
from engine.feed.hot.window import first_held, is_held
from engine.feed.moldudp64 import COUNT_AT, REQUEST_BYTES, SEQUENCE_AT, SESSION_AT
from engine.messages.hot.stamp import now_tsc, ticks_of_ns
from engine.wire.hot.bytes import put_raw64, put_u16, put_u64
from engine.wire.hot.syscalls import send_bytes
from shm.atomics import store_release, wrap_sub


@njit(cache=True, _nrt=False)
def recover(feed, clock):
    """What is to be done about holes, in a turn that begins with no packet half read. How much was done."""
    words = feed.words
    tsc = now_tsc(clock)
    if words[GAPPED] and words[TROUBLE_TSC] != 0:
        feed.decoder.stats[0].gapped_ns += int((tsc - words[TROUBLE_TSC]) * clock.ns_per_tick[0])
    words[TROUBLE_TSC] = tsc if words[GAPPED] else 0
    done = 0
    if words[CLEARING] != 0 and words[SWEEP_NEXT] == INSTRUMENTS_TOLD:
        done += clear_some(feed)
    if words[GAP] == GAP_SNAPSHOT and not words[BLOCKED] and wrap_sub(words[EXPECTED], words[HOLE_END]) >= 0:
        # A line filled the hole late, after all. What waits for a snapshot of it would take EXPECTED back to where the hole ended.
        words[GAP] = GAP_NONE
    done += attend_snapshot(feed, clock, tsc)
    if words[GAP] == GAP_SNAPSHOT and words[SNAPSHOT] == SNAPSHOT_IDLE and words[SNAPSHOT_FAILURES] >= words[SNAPSHOT_TRIES]:
        words[BLOCKED] = 0
        done += pass_over(feed)
    if not words[BLOCKED]:
        done += attend_hole(feed, clock, tsc)
    if words[GAPPED] and words[TROUBLE_TSC] == 0:
        words[TROUBLE_TSC] = tsc
    if not has_trouble(words):
        words[TROUBLE] = 0
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def has_trouble(words):
    if words[EXPECTED] != words[FRONTIER] or words[GAPPED] or words[SNAPSHOT] != SNAPSHOT_IDLE:
        return True
    return words[SUSPECTS] > 0 and words[SNAPSHOT_AVAILABLE] != 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def attend_hole(feed, clock, tsc):
    words = feed.words
    if words[EXPECTED] == words[FRONTIER]:
        return close_hole(feed)
    if is_held(feed.window, words[EXPECTED]) or not is_agreed(words):
        return 0
    done = 0
    if words[GAP] == GAP_NONE or wrap_sub(words[EXPECTED], words[HOLE_END]) >= 0:
        done += open_hole(feed, clock, tsc)
    if words[GAP] == GAP_WAITING and is_old(words, clock, tsc):
        become_gapped(words)
        words[GAP] = GAP_ASKING
        words[TRIES] = 0
        words[ASKED] = 0
        done += 1
    if words[GAP] == GAP_ASKING and not ask(feed, clock, tsc):
        done += give_up(feed)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_due(clock, tsc, since_tsc, after_ns):
    return tsc - since_tsc >= ticks_of_ns(clock, after_ns)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_old(words, clock, tsc):
    """Whether the foremost hole has been waited for long enough: by our clock, or where a capture is played by its own, so that it comes
    to the same however fast that is."""
    if words[CAPTURE] == CAPTURE_PLAYING:
        return words[CAPTURE_NS] - words[HOLE_NS] >= words[REORDER_NS]
    return words[CAPTURE] == CAPTURE_OVER or is_due(clock, tsc, words[HOLE_TSC], words[REORDER_NS])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_hole(feed, clock, tsc):
    """The foremost hole is another than before: how far it goes, and since when it is known."""
    words = feed.words
    window = feed.window
    feed.decoder.stats[0].gaps += 1
    words[GAP] = GAP_WAITING
    words[HOLE_END] = first_held(feed)
    words[HOLE_TSC] = words[FRONTIER_TSC]
    if words[HOLE_END] != words[FRONTIER]:
        words[HOLE_TSC] = window.received[words[HOLE_END] & (window.sequences.shape[0] - 1)]
    words[HOLE_NS] = words[CAPTURE_NS]
    if not is_old(words, clock, tsc):
        lift_gap(words)
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def close_hole(feed):
    """Everything that is known to be there has been applied. How much there was left to do."""
    words = feed.words
    done = lift_gap(words)
    if words[GAP] != GAP_NONE:
        words[GAP] = GAP_NONE
        words[ASKED] = 0
        done += 1
    if words[END_KNOWN] and words[ENDED] == 0 and wrap_sub(words[EXPECTED], words[END_SEQUENCE]) >= 0:
        end_session(words, feed.control, feed.decoder.stats)
        done += 1
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def lift_gap(words):
    """Nothing is missing that is not young: the books are proven again, unless something was passed over. 1 where they were not."""
    if words[GAPPED] == 0 or words[UNPROVEN]:
        return 0
    words[GAPPED] = 0
    words[SWEEP_NEXT] = FIRST_INSTRUMENT
    return 1


@njit(cache=True, _nrt=False)
def ask(feed, clock, tsc):
    """Ask a rewind server for what is missing at the front, unless an answer or the next moment to ask is waited for. False where no
    server is left to ask."""
    words = feed.words
    size = wrap_sub(words[HOLE_END], words[EXPECTED])
    if words[SERVERS] == 0 or size > words[GAP_MESSAGES_MAX]:
        return False
    if words[ASKED]:
        if words[EXPECTED] != words[ASKED_FROM]:
            words[ASKED] = 0
            words[TRIES] = 0
        elif is_due(clock, tsc, words[ASKED_TSC], words[REQUEST_TIMEOUT_NS]):
            fail_request(feed)
        else:
            return True
    if words[TRIES] >= words[SERVERS] * words[REQUEST_TRIES]:
        return False
    if is_due(clock, tsc, words[ASKED_TSC], words[REQUEST_INTERVAL_NS]):
        send_request(feed, tsc, min(size, words[REQUEST_MESSAGES_MAX]))
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fail_request(feed):
    """No answer, or none that helped: the next server is asked."""
    words = feed.words
    feed.decoder.stats[0].request_failures += 1
    feed.lines[words[SERVER]].failures += 1
    words[ASKED] = 0
    words[TRIES] += 1
    words[SERVER] = LINE_REWIND + (words[SERVER] - LINE_REWIND + 1) % words[SERVERS]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def send_request(feed, tsc, count):
    words = feed.words
    put_raw64(feed.buffer, REQUEST_AT + SESSION_AT, words[SESSION_HIGH])
    put_u16(feed.buffer, REQUEST_AT + SESSION_AT + 8, words[SESSION_LOW])
    put_u64(feed.buffer, REQUEST_AT + SEQUENCE_AT, words[EXPECTED])
    put_u16(feed.buffer, REQUEST_AT + COUNT_AT, count)
    sent = send_bytes(feed.sockets.fds[words[SERVER]], feed.buffer, REQUEST_AT, REQUEST_BYTES)
    feed.decoder.stats[0].requests += 1
    feed.lines[words[SERVER]].requests += 1
    words[ASKED] = 1
    words[ASKED_TSC] = tsc
    words[ASKED_FROM] = words[EXPECTED]
    if sent != REQUEST_BYTES:
        # Nobody is there, which the last request has brought to light; or the socket is full, and the next server may do better.
        fail_request(feed)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def give_up(feed):
    """Nobody can fill the hole: a snapshot may bring what the missing messages did, or it is passed over."""
    words = feed.words
    if words[SNAPSHOT_AVAILABLE] and words[SNAPSHOT_FAILURES] < words[SNAPSHOT_TRIES] and words[UNPROVEN] == 0:
        words[GAP] = GAP_SNAPSHOT
        return 1
    return pass_over(feed)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def pass_over(feed):
    """Go on behind the hole; but first every instrument has to be told that its book is not valid. How much was done."""
    words = feed.words
    if words[SWEEP_NEXT] != INSTRUMENTS_TOLD:
        return 0
    feed.decoder.stats[0].lost += wrap_sub(words[HOLE_END], words[EXPECTED])
    words[EXPECTED] = words[HOLE_END]
    words[UNPROVEN] = 1
    words[GAP] = GAP_NONE
    words[ASKED] = 0
    # SYNC POINT: whoever reads this sequence finds the ticks of every message before it on the ring.
    store_release(feed.control, FEED_SEQUENCE, words[EXPECTED])
    return 1
