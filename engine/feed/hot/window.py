"""The window: messages that came before their turn, whatever line brought them.

    EXPECTED          HOLE_END                        FRONTIER
       |  missing        |  held  held  missing  held    |
       +-----------------+-------------------------------+---------------▶ numbers

A message is kept at its number's last bits, so that looking for one is a comparison. When the hole before it is filled, messages leave
in pieces: copied one behind the other, as in a packet, and walked like one.
"""

from numba import njit

from engine.feed.hot.state import (
    END_AT,
    EXPECTED,
    FRONTIER,
    FRONTIER_TSC,
    GAP,
    GAP_ASKING,
    HELD_BYTES_MAX,
    LEFT,
    LINE,
    LINE_NONE,
    LINE_REWIND,
    NEXT_AT,
    ORIGIN_TSC,
    SLOT_BYTES,
    STAGED_MAX,
    STAGING_AT,
    TROUBLE,
)
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.wire.hot.bytes import get_u16, put_u16
from shm.atomics import wrap_add, wrap_sub


@njit(cache=True, _nrt=False)
def empty_window(window):
    """The number after a place's own never belongs there."""
    for slot in range(window.sequences.shape[0]):
        window.sequences[slot] = slot + 1


@njit(cache=True, forceinline=True, _nrt=False)
def is_held(window, sequence):
    return window.sequences[sequence & (window.sequences.shape[0] - 1)] == sequence


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def raise_frontier(words, sequence, tsc):
    """Numbers below `sequence` are known to be in use."""
    if wrap_sub(sequence, words[FRONTIER]) > 0:
        words[FRONTIER] = sequence
        words[FRONTIER_TSC] = tsc
        words[TROUBLE] = 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_message(feed, sequence, at, length, tsc):
    """Keep the message of `length` bytes at buffer[at:] under its number, in place of whatever was there."""
    window = feed.window
    slot = sequence & (window.sequences.shape[0] - 1)
    kept = min(length, HELD_BYTES_MAX)
    place = slot * SLOT_BYTES
    put_u16(window.held, place, kept)
    for byte in range(kept):
        window.held[place + LENGTH_BYTES + byte] = feed.buffer[at + byte]
    window.sequences[slot] = sequence
    window.received[slot] = tsc


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hold_messages(feed, line, at, end, sequence, count, limit, tsc):
    """Keep the messages of a packet that begin at `at`, but for those from `limit` on. How many were whole, and were looked at."""
    for number in range(count):
        if end - at < LENGTH_BYTES:
            return number
        length = get_u16(feed.buffer, at)
        at += LENGTH_BYTES
        if end - at < length:
            return number
        hold_message(feed, line, wrap_add(sequence, number), at, length, limit, tsc)
        at += length
    return count


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hold_message(feed, line, sequence, at, length, limit, tsc):
    """Keep one message that is not applied yet. One that is there already is a duplicate.

    Where the window is too small, the newest message gives way while its predecessors are asked for, since it can be asked for as well;
    the oldest otherwise, since a snapshot will bring what it did.
    """
    words = feed.words
    stats = feed.decoder.stats[0]
    row = feed.lines[line]
    room = feed.window.sequences.shape[0]
    if wrap_sub(sequence, limit) >= 0:
        row.foreign += 1
        return
    if wrap_sub(sequence, words[EXPECTED]) < 0 or is_held(feed.window, sequence):
        row.duplicates += 1
        stats.duplicates += 1
        return
    raise_frontier(words, wrap_add(sequence, 1), tsc)
    row.first += 1
    if line >= LINE_REWIND:
        stats.recovered += 1
    needs = wrap_sub(sequence, words[EXPECTED]) + 1 if words[GAP] == GAP_ASKING else wrap_sub(words[FRONTIER], sequence)
    if needs > room:
        stats.window_drops += 1
        return
    stats.waited += 1
    there = feed.window.sequences[sequence & (room - 1)]
    if (there & (room - 1)) == (sequence & (room - 1)) and wrap_sub(there, words[EXPECTED]) >= 0:
        stats.window_drops += 1
    put_message(feed, sequence, at, length, tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def stage_held(feed):
    """Let the messages that are next be walked, if they wait in the window and were received together. Whether there are any."""
    words = feed.words
    window = feed.window
    mask = window.sequences.shape[0] - 1
    sequence = words[EXPECTED]
    if not is_held(window, sequence):
        return False
    received = window.received[sequence & mask]
    at = STAGING_AT
    staged = 0
    while staged < STAGED_MAX and is_held(window, sequence) and window.received[sequence & mask] == received:
        place = (sequence & mask) * SLOT_BYTES
        size = LENGTH_BYTES + get_u16(window.held, place)
        for byte in range(size):
            feed.buffer[at + byte] = window.held[place + byte]
        at += size
        staged += 1
        sequence = wrap_add(sequence, 1)
    words[NEXT_AT] = STAGING_AT
    words[END_AT] = at
    words[LEFT] = staged
    words[ORIGIN_TSC] = received
    words[LINE] = LINE_NONE
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def first_held(feed):
    """The first number from EXPECTED on that is held, or FRONTIER where none is. It is one look at the whole window, once a hole."""
    words = feed.words
    room = feed.window.sequences.shape[0]
    sequence = words[EXPECTED]
    ahead = wrap_sub(words[FRONTIER], sequence)
    for number in range(min(ahead, room)):
        if is_held(feed.window, wrap_add(sequence, number)):
            return wrap_add(sequence, number)
    if ahead > room:
        sequence = wrap_sub(words[FRONTIER], room)
        for number in range(room):
            if is_held(feed.window, wrap_add(sequence, number)):
                return wrap_add(sequence, number)
    return words[FRONTIER]
