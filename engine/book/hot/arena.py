"""Sorted vectors of a book's price levels, in one arena of power-of-two chunks: `keys` to search, `ids` beside them.

A chunk that a side grew out of is linked into the list of its size, through the first of its `ids`, for the next side that needs one.
"""

import numpy as np
from numba import njit

# Words of Book.counts that are the arena's: entries ever in use, and one list of free chunks for each size, by the power of two.
ARENA_USED = 9
CHUNKS_FREE = 16
CHUNK_SHIFT_MIN = 4
CHUNK_SHIFT_MAX = 31


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_place(keys, start, end, key):
    """The index after the last of the sorted keys[start:end] that is not better than `key`.

    By halves, and without a branch on what is found: every other one of those would be mispredicted, and cost more than the step.
    """
    place = start
    size = end - start
    while size > 0:
        half = (size + 1) >> 1
        place += half if keys[place + half - 1] <= key else 0
        size -= half
    return place


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_chunk(ids, counts, shift):
    """The start of a chunk of at least 2^shift entries, or -1; its size goes with it only by what the caller remembers."""
    free = counts[CHUNKS_FREE + shift]
    if free != 0:
        counts[CHUNKS_FREE + shift] = np.int64(ids[free - 1])
        return free - 1
    start = counts[ARENA_USED]
    if start + (1 << shift) > ids.shape[0]:
        return -1
    counts[ARENA_USED] = start + (1 << shift)
    return start


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def give_chunk(ids, counts, start, shift):
    ids[start] = counts[CHUNKS_FREE + shift]
    counts[CHUNKS_FREE + shift] = start + 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def grow_side(sides, keys, ids, counts, row):
    """Move a full side to a chunk of twice the size. False where the arena has none."""
    side = sides[row]
    shift = max(np.int64(side.shift) + 1, CHUNK_SHIFT_MIN)
    start = take_chunk(ids, counts, shift)
    if start < 0:
        return False
    old = np.int64(side.start)
    for entry in range(np.int64(side.count)):
        keys[start + entry] = keys[old + entry]
        ids[start + entry] = ids[old + entry]
    if side.shift != 0:
        give_chunk(ids, counts, old, np.int64(side.shift))
    side.start = start
    side.shift = shift
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def move_up(array, at, count):
    """Move array[at:at + count] one up. An unsigned index lets the compiler turn the loop into vector moves."""
    top = np.uint64(at + count)
    for entry in range(count):
        to = top - np.uint64(entry)
        array[to] = array[to - np.uint64(1)]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def move_down(array, at, count):
    """Move array[at + 1:at + 1 + count] one down."""
    bottom = np.uint64(at)
    for entry in range(count):
        to = bottom + np.uint64(entry)
        array[to] = array[to + np.uint64(1)]
