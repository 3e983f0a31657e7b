"""The messages of tests/c/driver.c as kernels: all words of a message follow from its number, so any byte that is wrong shows."""

import numpy as np
from numba import njit

from shm.hot import EMPTY, FULL, GOT, LAPPED, LOST_NOW, advance, claim, commit, observe, poll, release

TORN = -(1 << 62)


def message(slot_bytes: int) -> np.dtype:
    """A record of `slot_bytes`: the ring's word, and words that follow from the first of them."""
    return np.dtype([("sequence", "u8"), ("words", "u8", (slot_bytes // 8 - 1,))])


@njit(cache=True, _nrt=False)
def word(number, k):
    if k == 0:
        return np.uint64(number)
    return np.uint64(np.uint64(number) + np.uint64(k)) * np.uint64(0x9E3779B97F4A7C15) ^ np.uint64(k)


@njit(cache=True, _nrt=False)
def fill(words, number):
    for k in range(words.shape[0]):
        words[k] = word(number, k)


@njit(cache=True, _nrt=False)
def number_of(words):
    """The number of a message, or TORN."""
    for k in range(1, words.shape[0]):
        if words[k] != word(words[0], k):
            return np.int64(TORN)
    return np.int64(words[0])


@njit(cache=True, _nrt=False, nogil=True)
def write(out, first, count):
    """Publish numbers from `first` on while there is room; how many."""
    for done in range(count):
        index = claim(out)
        if index == FULL:
            return done
        fill(out.slots[index].words, first + done)
        commit(out, index)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read(into, numbers):
    """Read what is there, at most len(numbers), and give it back; how many."""
    for done in range(numbers.shape[0]):
        index = poll(into)
        if index == EMPTY:
            release(into)
            return done
        numbers[done] = number_of(into.slots[index].words)
        advance(into)
    release(into)
    return numbers.shape[0]


@njit(cache=True, _nrt=False, nogil=True)
def watch(into, copy, numbers, lost):
    """Observe what is there; how many were got. lost[0] grows by those that were overwritten."""
    done = 0
    while done < numbers.shape[0]:
        got = observe(into, copy)
        if got == GOT:
            numbers[done] = number_of(copy[0].words)
            done += 1
        elif got == LAPPED:
            lost[0] += into.local[LOST_NOW]
        else:
            break
    return done
