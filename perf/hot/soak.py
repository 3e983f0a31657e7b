"""The kernels' share of perf/soak.py. A message's words follow from its position, so whoever reads one knows what it must be."""

import numpy as np
from numba import njit

from shm.atomics import wrap_add
from shm.hot import EMPTY, GOT, LAPPED, LOST_FROM, LOST_NOW, POSITION, advance, claim_within, commit, observe, poll_within, release

MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
ONE, TWO, THREE, FOUR, FIVE, SIX = (np.uint64(word) for word in range(1, 7))

TORN = -1


@njit(cache=True, _nrt=False, forceinline=True)
def fill(message, number):
    """The words of message `number`: word_of in perf/soak.py and soak.c is the same."""
    message.a = number
    message.b = (number + ONE) * MULTIPLIER ^ ONE
    message.c = (number + TWO) * MULTIPLIER ^ TWO
    message.d = (number + THREE) * MULTIPLIER ^ THREE
    message.e = (number + FOUR) * MULTIPLIER ^ FOUR
    message.f = (number + FIVE) * MULTIPLIER ^ FIVE
    message.g = (number + SIX) * MULTIPLIER ^ SIX


@njit(cache=True, _nrt=False, forceinline=True)
def is_whole(message, number):
    low = message.a == number and message.b == (number + ONE) * MULTIPLIER ^ ONE and message.c == (number + TWO) * MULTIPLIER ^ TWO
    low = low and message.d == (number + THREE) * MULTIPLIER ^ THREE and message.e == (number + FOUR) * MULTIPLIER ^ FOUR
    return low and message.f == (number + FIVE) * MULTIPLIER ^ FIVE and message.g == (number + SIX) * MULTIPLIER ^ SIX


@njit(cache=True, _nrt=False, nogil=True)
def write_some(out, count, spins):
    """Publish up to `count` messages, and return how many: fewer where the ring stayed full for `spins` looks."""
    for done in range(count):
        index = claim_within(out, spins)
        if index < 0:
            return done
        fill(out.slots[index], np.uint64(out.local[POSITION]))
        commit(out, index)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read_some(into, count, spins):
    """Read up to `count` messages, give them back, and return how many; TORN where one is not what its position says."""
    for done in range(count):
        index = poll_within(into, spins)
        if index < 0:
            release(into)
            return done
        if not is_whole(into.slots[index], np.uint64(into.local[POSITION])):
            return TORN
        advance(into)
    release(into)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def observe_some(watcher, copy, count):
    """Look up to `count` times, and return how many messages were seen; TORN where one, or a loss, is not what its position says."""
    seen = 0
    for _ in range(count):
        position = watcher.local[POSITION]
        answer = observe(watcher, copy)
        if answer == EMPTY:
            return seen
        if answer == GOT:
            if not is_whole(copy[0], np.uint64(position)):
                return TORN
            seen += 1
        elif answer == LAPPED:
            lost = watcher.local[LOST_NOW]
            if lost <= 0 or watcher.local[LOST_FROM] != position or watcher.local[POSITION] != wrap_add(position, lost):
                return TORN
    return seen
