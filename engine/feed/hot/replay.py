"""Decoding framed messages from memory with nobody listening: every message, every book, nothing published.

What the benchmark times and the tests compare; engine/feed/hot/step.py is the same walk with a ring behind it.
"""

import numpy as np
from numba import njit

from engine.feed.hot.admin import apply_admin
from engine.feed.hot.decoder import (
    AT,
    CODE,
    LENGTH,
    LOCATE,
    LOOK_AHEAD,
    OFFSET_MASK,
    REF,
    ROW_WORDS,
    SIDE,
    TIMESTAMP,
    WINDOW_ROWS,
    fetch_handle,
    fetch_neighbours,
    fetch_order,
    read_frame,
)
from engine.feed.hot.orders import (
    ADD,
    ADD_MPID,
    ADD_PX,
    ADD_SHARES,
    DELETE,
    NEW_PX,
    NEW_REF,
    NEW_SHARES,
    REPLACE,
    TAKEN_SHARES,
    apply_order,
)
from engine.feed.itch import ABOUT_ORDER, LENGTHS
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.wire.hot.bytes import get_u16, get_u32, get_u48, get_u64


@njit(cache=True, _nrt=False)
def replay(decoder, buffer, at, end):
    """Decode and apply every whole message of buffer[at:end]; the offset of the first byte that is not of one."""
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
        number = turn - LOOK_AHEAD
        if 0 <= number < read:
            fetch_handle(decoder, number)
        number -= LOOK_AHEAD
        if 0 <= number < read:
            fetch_order(decoder, number)
        number -= LOOK_AHEAD
        if 0 <= number < read:
            fetch_neighbours(decoder, number)
        number -= LOOK_AHEAD
        if number >= 0:
            if number >= read:
                return at
            apply_message(decoder, number, buffer)
        turn += 1


@njit(cache=True, forceinline=True, _nrt=False)
def apply_message(decoder, number, buffer):
    row = (number & (WINDOW_ROWS - 1)) * ROW_WORDS
    code = decoder.window[row + CODE]
    decoder.counts[code] += 1
    decoder.stats[0].messages += 1
    if LENGTHS[code] != decoder.window[row + LENGTH]:
        if LENGTHS[code] == 0:
            decoder.stats[0].unknown_types += 1
        else:
            decoder.stats[0].malformed += 1
    elif ABOUT_ORDER[code]:
        apply_order(decoder, buffer, decoder.window[row + AT], code)
    else:
        apply_admin(decoder.tops, decoder.states, decoder.market, decoder.stats, buffer, decoder.window[row + AT], code)


@njit(cache=True, _nrt=False)
def decode_only(buffer, at, end):
    """Read every field of every order message of buffer[at:end] and no book: (messages, the sum of all fields), for the benchmark."""
    messages = 0
    total = 0
    while end - at >= LENGTH_BYTES:
        at = at & OFFSET_MASK
        length = get_u16(buffer, at)
        if at + LENGTH_BYTES + length > end:
            break
        at += LENGTH_BYTES
        code = np.int64(buffer[at]) if length > 0 else 0
        if ABOUT_ORDER[code] and LENGTHS[code] == length:
            total += get_u16(buffer, at + LOCATE) + get_u48(buffer, at + TIMESTAMP) + get_u64(buffer, at + REF)
            if code in (ADD, ADD_MPID):
                total += np.int64(buffer[at + SIDE]) + get_u32(buffer, at + ADD_SHARES) + get_u32(buffer, at + ADD_PX)
            elif code == REPLACE:
                total += get_u64(buffer, at + NEW_REF) + get_u32(buffer, at + NEW_SHARES) + get_u32(buffer, at + NEW_PX)
            elif code != DELETE:
                total += get_u32(buffer, at + TAKEN_SHARES)
        messages += 1
        at += length
    return messages, total
