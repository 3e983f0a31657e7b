"""The ring, the board and the histogram as kernels: free functions over arrays, inlined into the loop that calls them.

A ring has one producer. Its handle and a reader's are named tuples of arrays (shm/ring.py makes them):

    Producer(slots, readers, block, local)      Consumer(slots, block, local)

`local` is private to the process, so a cached peer position costs nothing to look at. Full, empty and torn are return values.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from shm.atomics import fence_acquire, fence_release, highest_bit, load_acquire, store_relaxed, store_release

FULL = -1
EMPTY = -1

# Words of `local`, on both sides. A producer may write up to, not including, LIMIT without looking at any reader.
POSITION = 0
LIMIT = 1
WAITS = 2
LOCAL_WORDS = 8

# Words of a cursor block (shm/layout.h, struct tp_producer and struct tp_reader).
BLOCK_WORDS = 16
PRODUCER_POSITION = 1
PRODUCER_HEARTBEAT = 2
PRODUCER_WAITS = 3
READER_POSITION = 0
READER_MODE = 8
READER_HEARTBEAT = 9
GATING = 1


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


@njit(cache=True)
def slowest_reader(readers, position):
    """The lowest position of the gating readers, or `position` where there is none."""
    furthest_behind = 0
    for reader in range(readers.shape[0]):
        block = readers[reader]
        if block[READER_MODE] & 0xFFFFFFFF == GATING:
            # SYNC POINT (reader's release): slots below this position have been read.
            behind = position - load_acquire(block, READER_POSITION)
            if behind > furthest_behind:
                furthest_behind = behind
    return position - furthest_behind


@njit(cache=True)
def has_room(ring, count):
    """Whether `count` slots can be claimed one after another. Looks at the readers only when its cached limit is reached."""
    position = ring.local[POSITION]
    if position + count - ring.local[LIMIT] <= 0:
        return True
    ring.local[LIMIT] = slowest_reader(ring.readers, position) + ring.slots.shape[0]
    if position + count - ring.local[LIMIT] <= 0:
        return True
    ring.local[WAITS] += 1
    ring.block[PRODUCER_WAITS] = ring.local[WAITS]
    return False


@njit(cache=True)
def claim(ring):
    """The index of the next slot to fill, marked as being written, or FULL. Nothing is visible until commit."""
    position = ring.local[POSITION]
    if position - ring.local[LIMIT] >= 0 and not has_room(ring, 1):
        return FULL
    index = position & (ring.slots.shape[0] - 1)
    # SYNC POINT (observer's re-check): whoever copies payload written below this mark sees the mark or what comes after it.
    store_relaxed(ring.slots, index, 0)
    fence_release()
    return index


@njit(cache=True)
def commit(ring, index):
    """Publish the slot that claim returned."""
    position = ring.local[POSITION] + 1
    ring.local[POSITION] = position
    # SYNC POINT (poll's acquire): the payload is visible to whoever reads this sequence.
    store_release(ring.slots, index, position)


@njit(cache=True)
def poll(ring):
    """The index of the next unread slot, or EMPTY. The slot stays readable until release gives it back."""
    position = ring.local[POSITION]
    index = position & (ring.slots.shape[0] - 1)
    # SYNC POINT (commit's release).
    if load_acquire(ring.slots, index) == position + 1:
        return index
    return EMPTY


@njit(cache=True)
def advance(ring):
    """Done with the slot that poll returned; the producer learns of it at the next release."""
    ring.local[POSITION] += 1


@njit(cache=True)
def release(ring):
    """Give everything read so far back to the producer: once per batch, so that its line moves once per batch."""
    # SYNC POINT (slowest_reader's acquire).
    store_release(ring.block, READER_POSITION, ring.local[POSITION])


@njit(cache=True)
def board_open(board, key):
    """Begin to overwrite board[key]. Between open and close its version is odd."""
    version = load_acquire(board, key)
    store_relaxed(board, key, version + 1)
    # SYNC POINT (board_read's second look).
    fence_release()
    return version


@njit(cache=True)
def board_close(board, key, version):
    store_release(board, key, version + 2)


@njit(cache=True)
def board_read(board, key, copy):
    """Copy board[key] into copy[0] and return its version: 0 if it was never written, -1 if the writer was at it."""
    version = load_acquire(board, key)
    if version & 1:
        return -1
    copy[0] = board[key]
    fence_acquire()
    if load_acquire(board, key) != version:
        return -1
    return version


# Words of a histogram (shm/layout.h, struct tp_histogram).
HISTOGRAM_COUNT = 0
HISTOGRAM_SUM = 1
HISTOGRAM_MAXIMUM = 2
HISTOGRAM_MINIMUM = 3
HISTOGRAM_BUCKETS = 8
SUB_BITS = 6
LARGEST_VALUE = (1 << 48) - 1


@njit(cache=True)
def bucket_of(value):
    """The bucket of a value in [0, 2^48): exact below 128, then 64 buckets to each power of two."""
    if value < 1 << (SUB_BITS + 1):
        return value
    shift = highest_bit(value) - SUB_BITS
    return (shift << SUB_BITS) + (value >> shift)


@njit(cache=True)
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
