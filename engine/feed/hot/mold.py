"""MoldUDP64: whose packet it is, and which of its messages are new.

    expected ───────────────▶ sequence          ahead:  the messages between are missing; these wait in the window
    sequence ──▶ expected ──▶ sequence + count  behind: those before expected are duplicates, the rest is new

Whichever line brings a message first, wins. A packet that begins at or before EXPECTED while nothing is missing is walked where it was
received; anything else goes through the window message by message (engine/feed/hot/window.py).

Another session's name begins a new session, with everything cleared, when a second packet bears it, of another size or number, from
another line, or a heartbeat some time later: one packet may be a stray, and come in copies. What the first one brought is not lost, it
waits beside. A session that was left is not gone back to while the other line may still bring its last packets: only when nothing else
was heard for longer than any venue is silent. The first session of all is taken at its first packet's word, but nothing is asked for or
counted lost before a second one agrees.
"""

import numpy as np
from numba import njit

from engine.feed.hot.lines import forget_counts, forget_lines, note_numbers
from engine.feed.hot.state import (
    AGE_KNOWN,
    ASKED,
    BLOCKED,
    CANDIDATE,
    CANDIDATE_AT,
    CANDIDATE_BYTES,
    CANDIDATE_HIGH,
    CANDIDATE_LINE,
    CANDIDATE_LOW,
    CANDIDATE_NS,
    CANDIDATE_TSC,
    CAPTURE,
    CAPTURE_NS,
    CAPTURE_PLAYING,
    CLEAR_NEXT,
    CLEAR_SESSION,
    CLEARING,
    CLOSED,
    END_AT,
    END_KNOWN,
    END_SEQUENCE,
    ENDED,
    EXPECTED,
    FEED_ENDED,
    FIRST_INSTRUMENT,
    FRONTIER,
    GAP,
    GAP_ASKING,
    GAP_NONE,
    GAPPED,
    HOLE_END,
    LEFT,
    LINE,
    LINE_REWIND,
    NEXT_AT,
    ORIGIN_TSC,
    PREVIOUS_HIGH,
    PREVIOUS_KNOWN,
    PREVIOUS_LOW,
    RETURN_HEARD,
    RETURN_NS,
    RETURN_TSC,
    SESSION_HIGH,
    SESSION_KNOWN,
    SESSION_LOW,
    SLOW_PACKETS,
    SNAPSHOT,
    SNAPSHOT_IDLE,
    SNAPSHOT_VOID,
    SWEEP_NEXT,
    TROUBLE,
    UNPROVEN,
)
from engine.feed.hot.window import empty_window, hold_messages, raise_frontier
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, HEARTBEAT, LENGTH_BYTES, SEQUENCE_AT, SESSION_AT
from engine.messages.hot.stamp import ticks_of_ns
from engine.wire.hot.bytes import get_raw64, get_u16, get_u64
from shm.atomics import store_release, wrap_add, wrap_sub

SESSION_TAIL_AT = SESSION_AT + 8
# Typed, since a kernel is compiled once more for every literal that it is called with.
NONE = np.int64(0)
# Packets without messages are all alike while the market is quiet; what comes again so long after the first is no copy that a network
# made, it is the next heartbeat.
APART_NS = 100_000_000
# Nobody that has a session is silent for so long: heartbeats come once a second.
SILENT_NS = 1_500_000_000
# A number further away than this is not of a stream that anybody sent.
BELIEVED_MAX = 1 << 48


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def become_gapped(words):
    """No book may be acted on from here; the sweep tells every instrument."""
    words[TROUBLE] = 1
    if words[GAPPED] == 0:
        words[GAPPED] = 1
        words[SWEEP_NEXT] = FIRST_INSTRUMENT


@njit(cache=True, _nrt=False)
def end_session(words, control, stats):
    if words[ENDED] == 0:
        words[ENDED] = 1
        stats[0].ends_of_session += 1
        # A capture may go on with another session: the feed ends with the file.
        if words[CAPTURE] != CAPTURE_PLAYING:
            store_release(control, FEED_ENDED, 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_framed(buffer, at, size):
    """Whether a packet is what its count says: so many framed messages and nothing else. Only then may it change the session."""
    count = get_u16(buffer, at + COUNT_AT)
    end = at + size
    at += HEADER_BYTES
    if count in (HEARTBEAT, END_OF_SESSION):
        return at == end
    for _ in range(count):
        if end - at < LENGTH_BYTES:
            return False
        at += LENGTH_BYTES + get_u16(buffer, at)
    return at == end


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_named(words, high, low, buffer, at):
    """Whether a packet bears the session's name whose words these are."""
    return words[high] == get_raw64(buffer, at + SESSION_AT) and words[low] == get_u16(buffer, at + SESSION_TAIL_AT)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_name(words, high, low, buffer, at):
    words[high] = get_raw64(buffer, at + SESSION_AT)
    words[low] = get_u16(buffer, at + SESSION_TAIL_AT)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def admit(feed, clock, line, at, size):
    """Whether a packet that is not of our session is one to go on with: of the first session there is, or of a new one."""
    words = feed.words
    row = feed.lines[line]
    if not is_framed(feed.buffer, at, size):
        row.malformed += 1
        feed.decoder.stats[0].malformed += 1
        return False
    was_left = words[PREVIOUS_KNOWN] and is_named(words, PREVIOUS_HIGH, PREVIOUS_LOW, feed.buffer, at)
    if was_left and line < LINE_REWIND and is_alone(words, clock):
        change_session(feed, at)
        return True
    if line >= LINE_REWIND or was_left:
        row.foreign += 1
        feed.decoder.stats[0].foreign += 1
        return False
    if not words[SESSION_KNOWN]:
        words[SESSION_KNOWN] = 1
        take_name(words, SESSION_HIGH, SESSION_LOW, feed.buffer, at)
        return True
    if words[CANDIDATE] and is_named(words, CANDIDATE_HIGH, CANDIDATE_LOW, feed.buffer, at) and is_another(feed, clock, line, at, size):
        change_session(feed, at)
        words[CANDIDATE] = 0
        take_packet(feed, words[CANDIDATE_LINE], CANDIDATE_AT, words[CANDIDATE_BYTES], words[CANDIDATE_TSC])
        return True
    row.foreign += 1
    feed.decoder.stats[0].foreign += 1
    propose_session(feed, line, at, size)
    return False


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_another(feed, clock, line, at, size):
    """Whether a packet agrees with the one that first named its session, and is not a copy of it on the same line."""
    words = feed.words
    if line != words[CANDIDATE_LINE] or size != words[CANDIDATE_BYTES]:
        return True
    if get_u64(feed.buffer, at + SEQUENCE_AT) != get_u64(feed.buffer, CANDIDATE_AT + SEQUENCE_AT):
        return True
    return size == HEADER_BYTES and has_passed(words, clock, words[CANDIDATE_TSC], words[CANDIDATE_NS], APART_NS)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def has_passed(words, clock, since_tsc, since_ns, most_ns):
    """Whether so much time is between then and this packet: by our clock, or where a capture is played by its own."""
    if words[CAPTURE] == CAPTURE_PLAYING:
        return words[CAPTURE_NS] - since_ns >= most_ns
    return words[ORIGIN_TSC] - since_tsc >= ticks_of_ns(clock, most_ns)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_alone(words, clock):
    """Whether the session that was left is the only one that is heard since it was heard again: it was left by mistake."""
    heard = words[EXPECTED] + words[SLOW_PACKETS]
    if words[RETURN_TSC] == 0 or words[RETURN_HEARD] != heard:
        words[RETURN_TSC] = words[ORIGIN_TSC]
        words[RETURN_NS] = words[CAPTURE_NS]
        words[RETURN_HEARD] = heard
    return has_passed(words, clock, words[RETURN_TSC], words[RETURN_NS], SILENT_NS)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def propose_session(feed, line, at, size):
    words = feed.words
    if words[CANDIDATE] and is_named(words, CANDIDATE_HIGH, CANDIDATE_LOW, feed.buffer, at):
        return
    words[CANDIDATE] = 1
    take_name(words, CANDIDATE_HIGH, CANDIDATE_LOW, feed.buffer, at)
    words[CANDIDATE_LINE] = line
    words[CANDIDATE_BYTES] = size
    words[CANDIDATE_TSC] = words[ORIGIN_TSC]
    words[CANDIDATE_NS] = words[CAPTURE_NS]
    for byte in range(size):
        feed.buffer[CANDIDATE_AT + byte] = feed.buffer[at + byte]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_agreed(words):
    """Whether more than one packet is of our session: messages were walked, or two packets came that could not be."""
    return words[EXPECTED] != 1 or words[SLOW_PACKETS] > 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def change_session(feed, at):
    """Leave our session for that of a packet. It begins at message 1, when everything of the old one is cleared."""
    words = feed.words
    stats = feed.decoder.stats[0]
    if is_agreed(words):
        stats.session_changes += 1
        stats.lost += wrap_sub(words[FRONTIER], words[EXPECTED])
    else:
        # It was the session of one stray packet.
        stats.waited = 0
        forget_counts(feed)
    words[PREVIOUS_KNOWN] = 1
    words[PREVIOUS_HIGH] = words[SESSION_HIGH]
    words[PREVIOUS_LOW] = words[SESSION_LOW]
    take_name(words, SESSION_HIGH, SESSION_LOW, feed.buffer, at)
    words[EXPECTED] = 1
    words[FRONTIER] = 1
    forget_lines(feed, 1)
    empty_window(feed.window)
    for word in (ENDED, END_KNOWN, UNPROVEN, ASKED, CLOSED, AGE_KNOWN, SLOW_PACKETS, RETURN_TSC):
        words[word] = 0
    words[GAP] = GAP_NONE
    words[SNAPSHOT_VOID] = 1 if words[SNAPSHOT] != SNAPSHOT_IDLE else 0
    feed.decoder.market[0].event = 0
    store_release(feed.control, FEED_ENDED, 0)
    become_gapped(words)
    words[BLOCKED] = 1
    words[CLEARING] = CLEAR_SESSION
    words[CLEAR_NEXT] = 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_packet(feed, clock, line, at, size):
    """Look at the packet buffer[at:at + size]: sets LEFT to how many new messages are to be walked from NEXT_AT."""
    words = feed.words
    row = feed.lines[line]
    stats = feed.decoder.stats[0]
    stats.packets += 1
    stats.bytes += size
    row.packets += 1
    row.bytes += size
    words[LEFT] = 0
    if size < HEADER_BYTES:
        row.malformed += 1
        stats.malformed += 1
        return
    if not words[SESSION_KNOWN] or not is_named(words, SESSION_HIGH, SESSION_LOW, feed.buffer, at):
        if not admit(feed, clock, line, at, size):
            return
    sequence = get_u64(feed.buffer, at + SEQUENCE_AT)
    count = get_u16(feed.buffer, at + COUNT_AT)
    behind = wrap_sub(words[EXPECTED], sequence)
    whole = words[FRONTIER] == words[EXPECTED] and not words[BLOCKED] and line < LINE_REWIND
    if whole and 0 <= behind < BELIEVED_MAX and count != HEARTBEAT and count != END_OF_SESSION and (sequence != 0 or behind == 0):
        if behind == 0:
            note_numbers(feed, line, sequence, count)
            row.first += count
            words[LINE] = line
            words[NEXT_AT] = at + HEADER_BYTES
            words[END_AT] = at + size
            words[LEFT] = count
        else:
            skip_old(feed, line, at + HEADER_BYTES, at + size, sequence, count, min(behind, count))
    else:
        take_packet(feed, line, at, size, words[ORIGIN_TSC])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_packet(feed, line, at, size, tsc):
    """A packet of our session that is not simply the next: its messages wait, and what it says of numbers is noted."""
    words = feed.words
    row = feed.lines[line]
    stats = feed.decoder.stats[0]
    sequence = get_u64(feed.buffer, at + SEQUENCE_AT)
    count = get_u16(feed.buffer, at + COUNT_AT)
    ahead = wrap_sub(sequence, words[EXPECTED])
    words[SLOW_PACKETS] += 1
    # Numbers begin at 1; 0 comes only after the highest of all, and then EXPECTED is about there.
    if not -BELIEVED_MAX < ahead < BELIEVED_MAX or (sequence == 0 and words[EXPECTED] > 0):
        row.malformed += 1
        stats.malformed += 1
    elif line >= LINE_REWIND:
        take_answer(feed, line, at, size, tsc)
    elif count in (HEARTBEAT, END_OF_SESSION):
        if at + HEADER_BYTES != at + size:
            row.malformed += 1
            stats.malformed += 1
        note_numbers(feed, line, sequence, NONE)
        raise_frontier(words, sequence, tsc)
        if count == HEARTBEAT:
            row.heartbeats += 1
            stats.heartbeats += 1
        elif ahead >= 0:
            hear_end(feed, sequence)
    else:
        read = hold_messages(feed, line, at + HEADER_BYTES, at + size, sequence, count, wrap_add(sequence, count), tsc)
        note_numbers(feed, line, sequence, read)
        if read != count:
            row.malformed += 1
            stats.malformed += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_answer(feed, line, at, size, tsc):
    """What a rewind server sends is believed only where it fills the hole that was asked about: it opens none, and ends nothing."""
    words = feed.words
    row = feed.lines[line]
    count = get_u16(feed.buffer, at + COUNT_AT)
    sequence = get_u64(feed.buffer, at + SEQUENCE_AT)
    if count in (HEARTBEAT, END_OF_SESSION) or words[GAP] != GAP_ASKING:
        row.heartbeats += 1
        return
    read = hold_messages(feed, line, at + HEADER_BYTES, at + size, sequence, count, words[HOLE_END], tsc)
    row.messages += read
    if read != count:
        row.malformed += 1
        feed.decoder.stats[0].malformed += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hear_end(feed, sequence):
    """The session ends before `sequence`. Where messages before it are missing, they are asked for first."""
    words = feed.words
    words[END_KNOWN] = 1
    words[END_SEQUENCE] = sequence
    if words[EXPECTED] == sequence and not words[BLOCKED]:
        end_session(words, feed.control, feed.decoder.stats)
    else:
        words[TROUBLE] = 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def skip_old(feed, line, at, end, sequence, count, old):
    """Pass over the messages that were there before: all of a packet, or its first ones."""
    words = feed.words
    row = feed.lines[line]
    whole = 0
    while whole < old and end - at >= LENGTH_BYTES:
        after = at + LENGTH_BYTES + get_u16(feed.buffer, at)
        if after > end:
            break
        at = after
        whole += 1
    feed.decoder.stats[0].duplicates += whole
    row.duplicates += whole
    if whole < old or (old == count and at != end):
        note_numbers(feed, line, sequence, whole)
        row.malformed += 1
        feed.decoder.stats[0].malformed += 1
        return
    note_numbers(feed, line, sequence, count)
    row.first += count - old
    words[LINE] = line
    words[NEXT_AT] = at
    words[END_AT] = end
    words[LEFT] = count - old
