"""Looking ahead over small packets that one call brought.

Within a packet of many messages the window reads ahead (engine/feed/hot/decoder.py). A burst of packets with a message or two has nothing
to look ahead to in any of them, and each message would wait for memory three or four times over. So before the first of them is
walked, what all of them will touch is asked for, step by step. Nothing is decided here: who looks wrong has asked for a line in vain.
"""

import numpy as np
from numba import njit

from engine.feed.hot.decoder import WINDOW_ROWS, fetch_handle, fetch_neighbours, fetch_order, read_frame
from engine.feed.hot.receive import packet_at, packet_size
from engine.feed.hot.state import AHEAD, EXPECTED
from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, SEQUENCE_AT
from engine.wire.hot.bytes import get_u16, get_u64
from shm.atomics import wrap_sub

# A packet of more messages looks ahead by itself.
MESSAGES_MAX = 8


@njit(cache=True, _nrt=False)
def look_ahead(feed, line, packet):
    """Ask for the memory of the messages from `packet` on, as many as the window has rows for; AHEAD is the packet after them."""
    filled = feed.sockets.filled[line]
    decoder = feed.decoder
    read = np.int64(0)
    while packet < filled and read <= WINDOW_ROWS - MESSAGES_MAX:
        read = read_small(feed, packet_at(line, packet), packet_size(feed.sockets, line, packet), read)
        packet += 1
    feed.words[AHEAD] = packet
    for number in range(read):
        fetch_handle(decoder, number)
    for number in range(read):
        fetch_order(decoder, number)
    for number in range(read):
        fetch_neighbours(decoder, number)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def read_small(feed, at, size, read):
    """Enter the messages of a small packet that brings something new into the window's rows from `read` on; the rows then in use."""
    if size < HEADER_BYTES or wrap_sub(get_u64(feed.buffer, at + SEQUENCE_AT), feed.words[EXPECTED]) < 0:
        return read
    count = get_u16(feed.buffer, at + COUNT_AT)
    end = at + size
    at += HEADER_BYTES
    if count > MESSAGES_MAX:
        return read
    for _ in range(count):
        at = read_frame(feed.decoder, read, feed.buffer, at, end)
        if at < 0:
            break
        read += 1
    return read
