"""Decoding framed messages from memory with nobody listening: every message, every book, nothing published.

What the benchmark times and the tests compare; engine/feed/hot/step.py is the same walk with a ring behind it.
"""

import numpy as np
from numba import njit

from engine.feed.hot.admin import apply_admin
from engine.feed.hot.decoder import (
    AT,
    CODE,
    LOCATE,
    LOOK_AHEAD,
    OFFSET_MASK,
    REF,
    ROW_WORDS,
    TIMESTAMP,
    WINDOW_ROWS,
    count_message,
    fetch_ahead,
    read_frame,
)
from engine.feed.hot.orders import apply_order
from engine.feed.itch import (
    ABOUT_ORDER,
    LETTER_SHIFT,
    NO_PX_SHIFT,
    NO_SHARES_SHIFT,
    ORDER_FIELDS,
    PX_SHIFT,
    SECOND_SHIFT,
    SHARES_SHIFT,
)
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.wire.hot.bytes import get_u16, get_u32, get_u48, get_u64
from shm.atomics import read_tsc

# A message that took longer was interrupted: it is left out of the figures by type, and counted.
INTERRUPTED_TICKS = 50_000
# Columns of what replay_timed keeps by type.
TIMED = 0
TICKS = 1
INTERRUPTED = 2


@njit(cache=True, _nrt=False)
def replay(decoder, buffer, at, end):
    """Decode and apply every whole message of buffer[at:end]; the offset of the first byte that is not of one."""
    return run(decoder, buffer, at, end, decoder.window, False)


@njit(cache=True, _nrt=False)
def replay_timed(decoder, buffer, at, end, by_type):
    """replay, with a look at the TSC before and after each message is applied: added to by_type (256 x 3,) int64 by its type.

    Reading ahead is outside of that, and the two looks inside (look_ticks says how long they take).
    """
    return run(decoder, buffer, at, end, by_type, True)


@njit(cache=True, _nrt=False)
def look_ticks(times):
    """The TSC ticks of two looks with nothing between them: the mean of `times`."""
    total = 0
    for _ in range(times):
        began = read_tsc()
        total += read_tsc() - began
    return total // times


@njit(cache=True, forceinline=True, _nrt=False)
def run(decoder, buffer, at, end, by_type, timed):
    read = 0
    turn = 0
    more = True
    while True:
        if more:
            after = read_frame(decoder, read, buffer, at, end)
            if after < 0:
                more = False
            else:
                read += 1
                at = after
        number = fetch_ahead(decoder, turn, LOOK_AHEAD, read)
        if number >= 0:
            if number >= read:
                return at
            if timed:
                began = read_tsc()
                apply_message(decoder, number, buffer)
                note_ticks(decoder, number, by_type, read_tsc() - began)
            else:
                apply_message(decoder, number, buffer)
        turn += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_ticks(decoder, number, by_type, ticks):
    row = 3 * decoder.window[(number & (WINDOW_ROWS - 1)) * ROW_WORDS + CODE]
    if ticks > INTERRUPTED_TICKS:
        by_type[row + INTERRUPTED] += 1
    else:
        by_type[row + TIMED] += 1
        by_type[row + TICKS] += ticks


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def apply_message(decoder, number, buffer):
    row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
    code = decoder.window[row + CODE]
    if not count_message(decoder, row):
        return
    if ABOUT_ORDER[code]:
        apply_order(decoder, buffer, decoder.window[row + AT], code)
    else:
        apply_admin(decoder.tops, decoder.states, decoder.market, decoder.stats, buffer, decoder.window[row + AT], code)


@njit(cache=True, _nrt=False)
def decode_only(buffer, at, end):
    """Read every field of every order message of buffer[at:end] that says what happens (all but tracking numbers, names and MPIDs), and
    keep no book: (messages, the sum of all fields), for the benchmark.

    Without a branch on the type, which no predictor guesses well: ORDER_FIELDS says where each type has what, and a field that a type
    has not is read from another place and shifted away.
    """
    messages = 0
    total = 0
    while end - at >= LENGTH_BYTES:
        at = at & OFFSET_MASK
        length = get_u16(buffer, at)
        start = at + LENGTH_BYTES
        at = start + length
        if at > end:
            break
        messages += 1
        fields = ORDER_FIELDS[np.int64(buffer[start])] if length > 0 else np.int64(0)
        if fields & 255 == length and length > 0:
            total += get_u16(buffer, start + LOCATE) + get_u48(buffer, start + TIMESTAMP) + get_u64(buffer, start + REF)
            total += get_u32(buffer, start + ((fields >> SHARES_SHIFT) & 255)) >> ((fields >> NO_SHARES_SHIFT) & 63)
            total += get_u32(buffer, start + ((fields >> PX_SHIFT) & 255)) >> ((fields >> NO_PX_SHIFT) & 63)
            total += get_u64(buffer, start + ((fields >> SECOND_SHIFT) & 255)) & (fields >> 63)
            total += np.int64(buffer[start + ((fields >> LETTER_SHIFT) & 255)])
    return messages, total


@njit(cache=True, _nrt=False)
def walk_frames(buffer, at, end):
    """How many whole messages buffer[at:end] has: each one's place is known only when the length before it is read, so no decoder of
    a file in its order is faster."""
    messages = 0
    while end - at >= LENGTH_BYTES:
        at = at & OFFSET_MASK
        at = at + LENGTH_BYTES + get_u16(buffer, at)
        if at > end:
            break
        messages += 1
    return messages
