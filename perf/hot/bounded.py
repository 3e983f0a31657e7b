"""A ping-pong over two rings that ends at a given time, whatever the other side does: what a real-time process may spin on."""

from numba import njit

from perf.hot.ring import RELEASE_EVERY, send, wrong_bits
from shm.atomics import pause, read_tsc
from shm.hot import advance, poll, release

WRONG = -1
# Polls between two looks at the clock.
POLLS = 64


@njit(cache=True, _nrt=False, forceinline=True)
def await_until(into, until):
    """The index of the next message, or -1 once the TSC has passed `until`."""
    index = poll(into)
    turns = 0
    while index < 0:
        turns += 1
        if turns % POLLS == 0 and read_tsc() > until:
            return -1
        pause()
        index = poll(into)
    return index


@njit(cache=True, _nrt=False)
def ping_until(out, into, first, ticks, until):
    """A round trip for each of `ticks`, which gets its TSC ticks. Returns how many were made in time, or WRONG: a wrong byte came."""
    last = read_tsc()
    for turn in range(ticks.shape[0]):
        send(out, first + turn)
        index = await_until(into, until)
        if index < 0:
            # The trip that never ended took at least that long.
            ticks[turn] = read_tsc() - last
            return turn
        if wrong_bits(into.slots[index], first + turn) != 0:
            return WRONG
        advance(into)
        if turn % RELEASE_EVERY == 0:
            release(into)
        now = read_tsc()
        ticks[turn] = now - last
        last = now
    release(into)
    return ticks.shape[0]


@njit(cache=True, _nrt=False)
def pong_until(out, into, first, rounds, until):
    """Send `rounds` messages back. Returns how many came in time, or WRONG."""
    for turn in range(rounds):
        index = await_until(into, until)
        if index < 0:
            return turn
        value = first + turn
        if wrong_bits(into.slots[index], value) != 0:
            return WRONG
        send(out, value)
        advance(into)
        if turn % RELEASE_EVERY == 0:
            release(into)
    release(into)
    return rounds
