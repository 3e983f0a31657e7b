"""Latency at the exchange's door: what comes in is done, and what is to be told is sent, only some time after it was there.

A delay line is a row of int64 words: how far a stream has come, and which parts of it are still held.

      0        1         2           3              4
      +--------+---------+-----------+--------------+------------------+------------------+ ...
      | pushed | taken   | released  | last due     | position, due    | position, due    |
      +--------+---------+-----------+--------------+------------------+------------------+ ...

An entry says: up to this position, from then on. No part is due before the one ahead of it, so nothing is ever reordered. What has no
entry left joins the newest one, and is then due with it.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.flow import uniform
from engine.exchange.hot.state import HAS_ENDED, IN_BEGIN, IN_END, RECEIVED
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, recv_bytes

PUSHED = 0
TAKEN = 1
RELEASED = 2
LAST_DUE_NS = 3
ENTRIES_AT = 4
HELD_MAX = 1024
DELAY_WORDS = ENTRIES_AT + 2 * HELD_MAX


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_delays(line):
    line[:ENTRIES_AT] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hold_until(line, position, due_ns):
    """The stream has come to `position`: what is new in it is held until due_ns, or longer."""
    due_ns = max(due_ns, line[LAST_DUE_NS])
    line[LAST_DUE_NS] = due_ns
    if line[PUSHED] - line[TAKEN] < HELD_MAX:
        line[PUSHED] += 1
    at = ENTRIES_AT + 2 * ((line[PUSHED] - 1) % HELD_MAX)
    line[at] = position
    line[at + 1] = due_ns


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def release_due(line, now_ns):
    """How far the stream may be used now."""
    while line[TAKEN] < line[PUSHED]:
        at = ENTRIES_AT + 2 * (line[TAKEN] % HELD_MAX)
        if line[at + 1] > now_ns:
            break
        line[RELEASED] = line[at]
        line[TAKEN] += 1
    return line[RELEASED]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def draw_ns(table, random):
    """A latency: one of the table's, each as likely."""
    if table.shape[0] == 1:
        return table[0]
    return table[int(uniform(random) * table.shape[0])]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def receive_ahead(words, inbound, fd):
    """Read what the socket has behind what is waiting in inbound, as far as there is room. True where something came.

    A connection's end is only noted: it counts when what came before it has been done.
    """
    if words[HAS_ENDED] != 0:
        return False
    waiting = words[IN_END] - words[IN_BEGIN]
    for byte in range(waiting if words[IN_BEGIN] != 0 else 0):
        inbound[byte] = inbound[words[IN_BEGIN] + byte]
    words[IN_BEGIN] = 0
    words[IN_END] = waiting
    if waiting == inbound.shape[0]:
        return False
    got = recv_bytes(fd, inbound, waiting, inbound.shape[0] - waiting)
    if got > 0:
        words[IN_END] += got
        words[RECEIVED] += got
        return True
    words[HAS_ENDED] = 1 if got != AGAIN and got != INTERRUPTED else 0
    return False


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def has_arrived(line, words, size, now_ns):
    """Whether all of the packet of `size` bytes at IN_BEGIN is through the latency."""
    begin = words[RECEIVED] - (words[IN_END] - words[IN_BEGIN])
    return begin + max(np.int64(size), np.int64(1)) <= release_due(line, now_ns)
