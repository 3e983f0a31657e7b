"""MoldUDP64: whose packet it is, and which of its messages are new.

    expected ───────────────▶ sequence          ahead:  the messages between are lost; every book is stale
    sequence ──▶ expected ──▶ sequence + count  behind: those before expected are duplicates, the rest is new

There is no recovery yet: the re-request and snapshot servers are not asked, and a book that went stale stays stale until the session
ends. A new session name begins again at the sequence its first packet names, with everything stale as well: what the books hold
is of another session.
"""

from numba import njit

from engine.feed.hot.state import (
    END_AT,
    ENDED,
    EXPECTED,
    FEED_ENDED,
    FIRST_INSTRUMENT,
    LEFT,
    NEXT_AT,
    SESSION_HIGH,
    SESSION_KNOWN,
    SESSION_LOW,
    STALE,
    SWEEP_NEXT,
)
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, HEARTBEAT, LENGTH_BYTES, SEQUENCE_AT, SESSION_AT
from engine.wire.hot.bytes import get_raw64, get_u16, get_u64
from shm.atomics import store_release

SESSION_TAIL_AT = SESSION_AT + 8


@njit(cache=True, _nrt=False)
def become_stale(words):
    """No book may be acted on from here; the sweep tells every instrument."""
    if words[STALE] == 0:
        words[STALE] = 1
        words[SWEEP_NEXT] = FIRST_INSTRUMENT


@njit(cache=True, _nrt=False)
def end_session(words, control, stats):
    if words[ENDED] == 0:
        words[ENDED] = 1
        stats[0].ends_of_session += 1
        store_release(control, FEED_ENDED, 1)


@njit(cache=True, _nrt=False)
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


@njit(cache=True, _nrt=False)
def same_session(words, buffer, at):
    return words[SESSION_HIGH] == get_raw64(buffer, at + SESSION_AT) and words[SESSION_LOW] == get_u16(buffer, at + SESSION_TAIL_AT)


@njit(cache=True, _nrt=False)
def enter_session(words, stats, buffer, at):
    """Take a packet's session for ours. The first one begins at message 1; joining it late is a gap like any other."""
    words[SESSION_HIGH] = get_raw64(buffer, at + SESSION_AT)
    words[SESSION_LOW] = get_u16(buffer, at + SESSION_TAIL_AT)
    if words[SESSION_KNOWN]:
        stats[0].session_changes += 1
        words[EXPECTED] = get_u64(buffer, at + SEQUENCE_AT)
        words[ENDED] = 0
        become_stale(words)
    words[SESSION_KNOWN] = 1


@njit(cache=True, _nrt=False)
def open_packet(words, control, stats, buffer, at, size):
    """Look at the header of the packet buffer[at:at + size]: sets LEFT to how many new messages are to be read from NEXT_AT."""
    line = stats[0]
    line.packets += 1
    line.bytes += size
    words[LEFT] = 0
    if size < HEADER_BYTES or get_u64(buffer, at + SEQUENCE_AT) < 1:
        line.malformed += 1
        return
    if not words[SESSION_KNOWN] or not same_session(words, buffer, at):
        if not is_framed(buffer, at, size):
            line.malformed += 1
            return
        enter_session(words, stats, buffer, at)
    sequence = get_u64(buffer, at + SEQUENCE_AT)
    count = get_u16(buffer, at + COUNT_AT)
    ahead = sequence - words[EXPECTED]
    if ahead > 0:
        line.gaps += 1
        line.lost += ahead
        words[EXPECTED] = sequence
        become_stale(words)
    if count == END_OF_SESSION:
        # One that is behind is of an order of packets that the network made up.
        if ahead >= 0:
            end_session(words, control, stats)
    elif count == HEARTBEAT:
        line.heartbeats += 1
    else:
        skip_old(words, stats, buffer, at + HEADER_BYTES, at + size, count, max(-ahead, 0))


@njit(cache=True, _nrt=False)
def skip_old(words, stats, buffer, at, end, count, old):
    """Pass over the messages that were there before: all of a packet, or its first ones."""
    old = min(old, count)
    stats[0].duplicates += old
    if old == count:
        return
    for _ in range(old):
        if end - at < LENGTH_BYTES:
            break
        at += LENGTH_BYTES + get_u16(buffer, at)
    words[NEXT_AT] = min(at, end)
    words[END_AT] = end
    words[LEFT] = count - old
