"""The ring, the board and the histogram as kernels: free functions over arrays, inlined into the loop that calls them.

A ring has one producer. Its handle and a reader's are named tuples of arrays (shm/ring.py makes them):

    Producer(slots, readers, block, local)      Consumer(slots, block, local)

`local` is private to the process, so a cached peer position costs nothing to look at. Full, empty and torn are return values.

_nrt=False compiles a kernel without reference counts, which numba otherwise keeps, with locked instructions, for every array of
a handle at every call with a branch in it (16 of them in one claim). Such a kernel cannot allocate and must not return an array.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from shm.atomics import fence_acquire, fence_release, highest_bit, load_acquire, store_relaxed, store_release, wrap_add, wrap_sub
from shm.layout import HISTOGRAM, HISTOGRAM_SUB_BITS, HISTOGRAM_VALUE_BITS, PRODUCER, READER, READER_GATING, word_of

FULL = -1
EMPTY = -1

# Words of `local`, on both sides. A producer may write up to, not including, LIMIT without looking at any reader.
POSITION = 0
LIMIT = 1
WAITS = 2
LOCAL_WORDS = 8

# Words of a cursor block (shm/layout.h, struct tp_producer and struct tp_reader).
BLOCK_WORDS = READER.itemsize // 8
PRODUCER_POSITION = word_of(PRODUCER, "position")
PRODUCER_HEARTBEAT = word_of(PRODUCER, "heartbeat")
PRODUCER_WAITS = word_of(PRODUCER, "waits")
READER_POSITION = word_of(READER, "position")
READER_MODE = word_of(READER, "mode")
READER_HEARTBEAT = word_of(READER, "heartbeat")
GATING = READER_GATING

# Tells LLVM that an index is not negative, so that slots[index] needs no test for counting from the end.
INDEX_MAX = (1 << 62) - 1


class Producer(NamedTuple):
    """The writing end of a ring: slots (capacity,) records; readers (n, 16) and block (16,) int64 words; local (8,) int64."""

    slots: np.ndarray
    readers: np.ndarray
    block: np.ndarray
    local: np.ndarray


class Consumer(NamedTuple):
    """A gating reader's end of a ring: slots (capacity,) records; block (16,) int64 words; local (8,) int64."""

    slots: np.ndarray
    block: np.ndarray
    local: np.ndarray


@njit(cache=True, _nrt=False)
def slowest_reader(readers, position):
    """The lowest position of the gating readers, or `position` where there is none."""
    furthest_behind = 0
    for reader in range(readers.shape[0]):
        block = readers[reader]
        if block[READER_MODE] & 0xFFFFFFFF == GATING:
            # SYNC POINT (reader's release): slots below this position have been read.
            behind = wrap_sub(position, load_acquire(block, READER_POSITION))
            if behind > furthest_behind:
                furthest_behind = behind
    return wrap_sub(position, furthest_behind)


@njit(cache=True, _nrt=False)
def ask_readers(readers, block, local, capacity, wanted):
    """Move the cached limit to where the readers are now, and say whether slots below `wanted` are free."""
    position = local[POSITION]
    # At least once in `capacity` messages, so whoever watches finds the rest by looking at the slots (shm/ring.py, Ring.position).
    store_relaxed(block, PRODUCER_POSITION, position)
    local[LIMIT] = wrap_add(slowest_reader(readers, position), capacity)
    if wrap_sub(wanted, local[LIMIT]) <= 0:
        return True
    local[WAITS] += 1
    store_relaxed(block, PRODUCER_WAITS, local[WAITS])
    return False


@njit(cache=True, _nrt=False, forceinline=True)
def has_room(ring, count):
    """Whether `count` slots, at most the capacity, can be claimed in a row. Looks at the readers only at its cached limit."""
    wanted = wrap_add(ring.local[POSITION], count)
    if wrap_sub(wanted, ring.local[LIMIT]) <= 0:
        return True
    return ask_readers(ring.readers, ring.block, ring.local, ring.slots.shape[0], wanted)


@njit(cache=True, _nrt=False, forceinline=True)
def slot_index(slots, position):
    """The index of the slot of a position, in a ring whose capacity is a power of two."""
    return position & ((slots.shape[0] - 1) & INDEX_MAX)


@njit(cache=True, _nrt=False, forceinline=True)
def claim(ring):
    """The index of the next slot to fill, marked as being written, or FULL. Nothing is visible until commit."""
    if not has_room(ring, 1):
        return FULL
    index = slot_index(ring.slots, ring.local[POSITION])
    # SYNC POINT (observer's re-check): whoever copies payload written below this mark sees the mark or what comes after it.
    # The mark also asks for the line early: leaving it out made the ring a third slower (perf/bench_ring.py).
    store_relaxed(ring.slots, index, 0)
    fence_release()
    return index


@njit(cache=True, _nrt=False, forceinline=True)
def commit(ring, index):
    """Publish the slot that claim returned."""
    position = wrap_add(ring.local[POSITION], 1)
    ring.local[POSITION] = position
    # SYNC POINT (acquire in poll and has_messages): the payload is visible to whoever reads this sequence.
    store_release(ring.slots, index, position)


@njit(cache=True, _nrt=False, forceinline=True)
def poll(ring):
    """The index of the next unread slot, or EMPTY. The slot stays readable until release gives it back."""
    position = ring.local[POSITION]
    index = slot_index(ring.slots, position)
    # SYNC POINT (commit's release).
    if load_acquire(ring.slots, index) == wrap_add(position, 1):
        return index
    return EMPTY


@njit(cache=True, _nrt=False, forceinline=True)
def has_messages(ring, count):
    """Whether the next `count` messages, at most the capacity, are all readable: the last one is, and none is published before another.

    A reader that wants throughput waits for a batch: it looks at one line in `count`, far from the one being written.
    """
    end = wrap_add(ring.local[POSITION], count)
    # SYNC POINT (commit's release).
    return load_acquire(ring.slots, slot_index(ring.slots, wrap_sub(end, 1))) == end


@njit(cache=True, _nrt=False, forceinline=True)
def advance(ring):
    """Done with the slot that poll returned; the producer learns of it at the next release."""
    ring.local[POSITION] = wrap_add(ring.local[POSITION], 1)


@njit(cache=True, _nrt=False, forceinline=True)
def release(ring):
    """Give everything read so far back to the producer: once per batch, so that its line moves once per batch."""
    # SYNC POINT (slowest_reader's acquire).
    store_release(ring.block, READER_POSITION, ring.local[POSITION])


@njit(cache=True, _nrt=False, forceinline=True)
def board_open(board, key):
    """Begin to overwrite board[key], and return what board_close needs. Between the two its version is odd.

    A writer that died in between left an odd version: it stays odd, and the next close makes it even again.
    """
    version = load_acquire(board, key) & ~1
    store_relaxed(board, key, version + 1)
    # SYNC POINT (board_read's second look).
    fence_release()
    return version


@njit(cache=True, _nrt=False, forceinline=True)
def board_close(board, key, version):
    """Publish what was written since board_open returned `version`."""
    # SYNC POINT (board_read's first look).
    store_release(board, key, version + 2)


@njit(cache=True, _nrt=False, forceinline=True)
def board_read(board, key, copy):
    """Copy board[key] into copy[0] and return its version: 0 if it was never written, -1 if the writer was at it."""
    # SYNC POINT (board_close's release).
    version = load_acquire(board, key)
    if version & 1:
        return -1
    copy[0] = board[key]
    # SYNC POINT (board_open's release): whoever copied what was written below the odd version sees it, or what came after it.
    fence_acquire()
    if load_acquire(board, key) != version:
        return -1
    return version


# Words of a histogram (shm/layout.h, struct tp_histogram).
HISTOGRAM_COUNT = word_of(HISTOGRAM, "count")
HISTOGRAM_SUM = word_of(HISTOGRAM, "sum")
HISTOGRAM_MAXIMUM = word_of(HISTOGRAM, "maximum")
HISTOGRAM_MINIMUM = word_of(HISTOGRAM, "minimum")
HISTOGRAM_BUCKETS = word_of(HISTOGRAM, "buckets")
SUB_BITS = HISTOGRAM_SUB_BITS
LARGEST_VALUE = (1 << HISTOGRAM_VALUE_BITS) - 1


@njit(cache=True, _nrt=False)
def bucket_of(value):
    """The bucket of a value in [0, 2^48): exact below 128, then 64 buckets to each power of two."""
    if value < 1 << (SUB_BITS + 1):
        return value
    shift = highest_bit(value) - SUB_BITS
    return (shift << SUB_BITS) + (value >> shift)


@njit(cache=True, _nrt=False)
def record(histogram, value):
    """Count one latency in TSC ticks. Negative values, which clocks of two cores may give, count as 0."""
    value = min(max(value, 0), LARGEST_VALUE)
    if histogram[HISTOGRAM_COUNT] == 0 or value < histogram[HISTOGRAM_MINIMUM]:
        histogram[HISTOGRAM_MINIMUM] = value
    if value > histogram[HISTOGRAM_MAXIMUM]:
        histogram[HISTOGRAM_MAXIMUM] = value
    histogram[HISTOGRAM_BUCKETS + bucket_of(value)] += 1
    histogram[HISTOGRAM_SUM] += value
    histogram[HISTOGRAM_COUNT] += 1
