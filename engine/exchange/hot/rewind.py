"""Rewind servers: MoldUDP64 request packets in, the messages that they ask for out, to whoever asked.

A request is answered by one packet of as many messages as were asked for, fit and are there; whoever wants more asks again behind them.
One that is malformed, names another session or begins with what the log does not have is not answered, as the protocol has no way to
say no. Only the count tells.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.archive import copy_to, find_message
from engine.feed.moldudp64 import (
    COUNT_AT,
    HEADER_BYTES,
    LENGTH_BYTES,
    PACKET_BYTES_MAX,
    REQUEST_BYTES,
    SEQUENCE_AT,
    SESSION_AT,
    SESSION_BYTES,
)
from engine.wire.hot.bytes import get_u16, get_u64, put_u16, put_u64
from engine.wire.hot.syscalls import recv_from, send_to

# Of each server in one step.
REQUESTS_PER_STEP = 16


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def serve_rewinds(rewind, archive, stats):
    """Answer some of the requests that have come. Returns how many there were."""
    heard = 0
    for server in range(rewind.fds.shape[0]):
        for _ in range(REQUESTS_PER_STEP):
            size = recv_from(rewind.fds[server], rewind.request, np.int64(0), np.int64(rewind.request.shape[0]), rewind.peer)
            if size < 0:
                break
            heard += 1
            stats[0].rewind_requests += 1
            size = gather(rewind, archive, size)
            if size == 0:
                stats[0].rewind_refused += 1
            elif send_to(rewind.fds[server], rewind.answer, np.int64(0), size, rewind.peer) < 0:
                stats[0].rewind_unsent += 1
            else:
                stats[0].rewind_messages += get_u16(rewind.answer, COUNT_AT)
    return heard


@njit(cache=True, _nrt=False)
def gather(rewind, archive, size):
    """Put what a request of `size` bytes asks for into the answer. Returns the answer's size, 0: nothing is to be said."""
    request, answer = rewind.request, rewind.answer
    if size != REQUEST_BYTES:
        return 0
    for byte in range(SESSION_BYTES):
        if request[SESSION_AT + byte] != answer[SESSION_AT + byte]:
            return 0
    first = get_u64(request, SEQUENCE_AT)
    wanted = get_u16(request, COUNT_AT)
    at = HEADER_BYTES
    count = 0
    while count < wanted:
        found = find_message(archive, first + count)
        if found < 0:
            break
        framed = LENGTH_BYTES + get_u16(archive.log, found)
        if at + framed > PACKET_BYTES_MAX:
            break
        copy_to(answer, at, archive.log, found, framed)
        at += framed
        count += 1
    put_u64(answer, SEQUENCE_AT, first)
    put_u16(answer, COUNT_AT, count)
    return at if count > 0 else 0
