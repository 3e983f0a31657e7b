"""The ring, the board and the histogram as kernels: free functions over arrays, inlined into the loop that calls them.

A ring has one producer. Its end and a reader's are named tuples of arrays (shm/producer.py and shm/consumer.py make them):

    ProducerEnd(slots, readers, block, local)                gating reader: ConsumerEnd(slots, producer, block, local)
                                                             observer:      ObserverEnd(slots, producer, block, local)

`local` is private to the process, so a cached peer position costs nothing to look at. Full, empty, lapped and torn are return
values. The protocol, and why each order is there, is drawn in shm/README.md; tests/proof checks it in models.

_nrt=False compiles a kernel without reference counts, which numba otherwise keeps, with locked instructions, for every array of
a handle at every call with a branch in it (16 of them in one claim). Such a kernel cannot allocate and must not return an array.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from shm.atomics import (
    fence_acquire,
    fence_release,
    fence_seq_cst,
    highest_bit,
    load_acquire,
    pause,
    store_relaxed,
    store_release,
    wrap_add,
    wrap_sub,
)
from shm.layout import HISTOGRAM, HISTOGRAM_SUB_BITS, HISTOGRAM_VALUE_BITS, PRODUCER, READER, READER_GATING, READER_JOINING, word_of

FULL = -1
EMPTY = -1
LAPPED = -2
GOT = 0

# Words of `local`. A producer may write up to, not including, LIMIT without looking at any reader.
POSITION = 0
LIMIT = 1
WAITS = 2
EPOCH = 3
DROPPED = 4
FENCED = 5
# A reader's. What an observer lost last: LOST_NOW messages from position LOST_FROM on; LOST is the sum of all.
LOST_FROM = 1
LOST_NOW = 2
LOST = 4
PRODUCER_EPOCH_SEEN = 6
LOCAL_WORDS = 8

# Words of a cursor block (shm/layout.h, struct tp_producer and struct tp_reader).
BLOCK_WORDS = READER.itemsize // 8
PRODUCER_EPOCH = word_of(PRODUCER, "epoch")
PRODUCER_POSITION = word_of(PRODUCER, "position")
PRODUCER_LIMIT = word_of(PRODUCER, "limit")
PRODUCER_HEARTBEAT = word_of(PRODUCER, "heartbeat")
PRODUCER_WAITS = word_of(PRODUCER, "waits")
PRODUCER_DROPPED = word_of(PRODUCER, "dropped")
READER_POSITION = word_of(READER, "position")
READER_EPOCH = word_of(READER, "epoch")
READER_MODE = word_of(READER, "mode")
READER_HEARTBEAT = word_of(READER, "heartbeat")
READER_LOST = word_of(READER, "lost")
GATING = READER_GATING
JOINING = READER_JOINING

# Tells LLVM that an index is not negative, so that slots[index] needs no test for counting from the end.
INDEX_MAX = (1 << 62) - 1


class ProducerEnd(NamedTuple):
    """The writing end of a ring: slots (capacity,) records; readers (n, 16) and block (16,) int64 words; local (8,) int64."""

    slots: np.ndarray
    readers: np.ndarray
    block: np.ndarray
    local: np.ndarray


class ConsumerEnd(NamedTuple):
    """A gating reader's end: slots (capacity,) read-only records; producer (16,) and block (16,) int64 words; local (8,) int64."""

    slots: np.ndarray
    producer: np.ndarray
    block: np.ndarray
    local: np.ndarray


class ObserverEnd(NamedTuple):
    """An observer's end, shaped as a ConsumerEnd. The block of an observer without a name is private to it."""

    slots: np.ndarray
    producer: np.ndarray
    block: np.ndarray
    local: np.ndarray


@njit(cache=True, _nrt=False)
def slowest_reader(readers, position, capacity):
    """The lowest position of the gating readers, or `position` where there is none. One that joins stands a whole lap behind."""
    furthest_behind = np.int64(0)
    for reader in range(readers.shape[0]):
        block = readers[reader]
        mode = load_acquire(block, READER_MODE) & 0xFFFFFFFF
        if mode == JOINING:
            furthest_behind = capacity
        elif mode == GATING:
            # SYNC POINT (release's store): slots below this position have been read.
            behind = wrap_sub(position, load_acquire(block, READER_POSITION))
            if behind > furthest_behind:
                furthest_behind = behind
    return wrap_sub(position, furthest_behind)


@njit(cache=True, _nrt=False)
def ask_readers(readers, block, local, capacity, wanted):
    """Move the cached limit to where the readers are now, and say whether slots below `wanted` are free.

    A producer whose role another one has taken since (its epoch is not ours) is never given room again.
    """
    if load_acquire(block, PRODUCER_EPOCH) != local[EPOCH]:
        local[FENCED] = 1
        return False
    position = local[POSITION]
    # At least once in `capacity` messages, so whoever watches finds the rest by looking at the slots (published_to).
    store_relaxed(block, PRODUCER_POSITION, position)
    # SYNC POINT (a joining reader, shm/consumer.py): either this look sees the reader that joins, or the reader sees the highest
    # limit that this look may end with, and begins where it is safe from it. Needs stores before loads: the one full fence.
    store_relaxed(block, PRODUCER_LIMIT, wrap_add(position, capacity))
    fence_seq_cst()
    limit = wrap_add(slowest_reader(readers, position, capacity), capacity)
    if wrap_sub(limit, local[LIMIT]) < 0:
        # Room that was given is not taken back: there may be a slot begun in it, and a reader that joins must not begin in that one.
        limit = local[LIMIT]
    local[LIMIT] = limit
    store_release(block, PRODUCER_LIMIT, limit)
    if wrap_sub(wanted, limit) <= 0:
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
    position = ring.local[POSITION]
    index = slot_index(ring.slots, position)
    # SYNC POINT (observe's re-check): whoever copies payload written below this mark sees the mark or what comes after it.
    # The mark also asks for the line early: leaving it out made the ring a third slower (perf/bench_ring.py).
    store_relaxed(ring.slots, index, position)
    fence_release()
    return index


@njit(cache=True, _nrt=False, forceinline=True)
def claim_within(ring, spins):
    """claim, tried up to `spins` times with a pause between: FULL when the slowest reader stood still for so long."""
    for _ in range(spins):
        index = claim(ring)
        if index != FULL:
            return index
        pause()
    return FULL


@njit(cache=True, _nrt=False, forceinline=True)
def commit(ring, index):
    """Publish the slot that claim returned."""
    position = wrap_add(ring.local[POSITION], 1)
    ring.local[POSITION] = position
    # SYNC POINT (acquire in poll, has_messages and observe): the payload is visible to whoever reads this sequence.
    store_release(ring.slots, index, position)


@njit(cache=True, _nrt=False, forceinline=True)
def drop(ring):
    """Count a message given up because the ring was full."""
    ring.local[DROPPED] += 1
    store_relaxed(ring.block, PRODUCER_DROPPED, ring.local[DROPPED])


@njit(cache=True, _nrt=False, forceinline=True)
def is_fenced(ring):
    """Whether another process has taken this end's role since; found by a producer at a full ring, by a reader at release."""
    return ring.local[FENCED] != 0


@njit(cache=True, _nrt=False, forceinline=True)
def poll(ring):
    """The index of the next unread slot, or EMPTY. The slot stays readable until release gives it back. Gating readers only."""
    position = ring.local[POSITION]
    index = slot_index(ring.slots, position)
    # SYNC POINT (commit's release).
    if load_acquire(ring.slots, index) == wrap_add(position, 1):
        return index
    return EMPTY


@njit(cache=True, _nrt=False, forceinline=True)
def poll_within(ring, spins):
    """poll, tried up to `spins` times with a pause between."""
    for _ in range(spins):
        index = poll(ring)
        if index != EMPTY:
            return index
        pause()
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
    """Give everything read so far back to the producer: once per batch, so that its line moves once per batch.

    A reader that was let go, or replaced, finds another epoch in its block (in the same line) and gives nothing back.
    An observer that has a name calls this too, to be resumed from and watched.
    """
    if load_acquire(ring.block, READER_EPOCH) != ring.local[EPOCH]:
        ring.local[FENCED] = 1
        return
    # SYNC POINT (slowest_reader's acquire).
    store_release(ring.block, READER_POSITION, ring.local[POSITION])


@njit(cache=True, _nrt=False)
def published_to(slots, start):
    """The position after the newest published message at or after `start`, at most a lap away. `start` was published up to before.

    It looks at one slot for each doubling of the capacity, so it takes few lines away from the processes that trade.
    """
    low = 0
    high = slots.shape[0]
    while low < high:
        middle = (low + high) >> 1
        position = wrap_add(start, middle)
        if wrap_sub(load_acquire(slots, slot_index(slots, position)), wrap_add(position, 1)) >= 0:
            low = middle + 1
        else:
            high = middle
    return wrap_add(start, low)


@njit(cache=True, _nrt=False)
def skip(ring, count):
    """Leave the next `count` messages unread, and account for them as lost."""
    local = ring.local
    local[LOST_FROM] = local[POSITION]
    local[LOST_NOW] = count
    local[LOST] += count
    local[POSITION] = wrap_add(local[POSITION], count)
    store_relaxed(ring.block, READER_LOST, local[LOST])


@njit(cache=True, _nrt=False)
def conflate(ring):
    """Go on to the newest message where more than one waits, and return how many were skipped. For gating readers and observers."""
    position = ring.local[POSITION]
    known = load_acquire(ring.producer, PRODUCER_POSITION)
    # The producer's own word may be a lap old, and an observer may be laps behind: the further of the two is nearer the truth.
    start = known if wrap_sub(known, position) > 0 else position
    waiting = wrap_sub(published_to(ring.slots, start), position)
    if waiting < 2:
        return 0
    skip(ring, waiting - 1)
    return waiting - 1


@njit(cache=True, _nrt=False)
def lap(ring, sequence):
    """An observer was overtaken: go on a quarter of the ring ahead of what is overwritten next, and account for what is lost.

    False where the slot holds no sequence that a producer stores there: somebody scribbled on it, and there is nothing to go on to.
    """
    slots = ring.slots
    capacity = slots.shape[0]
    position = ring.local[POSITION]
    if wrap_sub(sequence, position) & (capacity - 1) > 1:
        return False
    headroom = max(np.int64(1), capacity >> 2)
    missed = wrap_sub(wrap_add(wrap_sub(published_to(slots, sequence), capacity), headroom), position)
    if missed <= 0:
        return False
    skip(ring, missed)
    return True


@njit(cache=True, _nrt=False, forceinline=True)
def observe(ring, copy):
    """Copy the next message into copy[0] and go on: GOT, EMPTY, or LAPPED where messages were overwritten before they were read.

    After LAPPED the observer stands at the oldest message that is safe to read: local[LOST_NOW] were lost from local[LOST_FROM] on.
    """
    position = ring.local[POSITION]
    wanted = wrap_add(position, 1)
    index = slot_index(ring.slots, position)
    # SYNC POINT (commit's release).
    sequence = load_acquire(ring.slots, index)
    if sequence == wanted:
        copy[0] = ring.slots[index]
        # SYNC POINT (claim's mark): whoever copied what was written below a newer mark sees that mark here, or what came after it.
        fence_acquire()
        sequence = load_acquire(ring.slots, index)
        if sequence == wanted:
            ring.local[POSITION] = wanted
            return GOT
    if wrap_sub(sequence, wanted) < 0 or not lap(ring, sequence):
        return EMPTY
    return LAPPED


@njit(cache=True, _nrt=False, forceinline=True)
def restarts(ring):
    """How many times a producer has taken the ring over since a reader last asked. It reads the producer's line: ask when idle."""
    epoch = load_acquire(ring.producer, PRODUCER_EPOCH)
    news = wrap_sub(epoch, ring.local[PRODUCER_EPOCH_SEEN])
    ring.local[PRODUCER_EPOCH_SEEN] = epoch
    return news


@njit(cache=True, _nrt=False, forceinline=True)
def producer_beat(ring, tsc):
    """Sign of life of a producer: what tells one that hangs from one that is idle. Every few microseconds is often enough."""
    store_relaxed(ring.block, PRODUCER_HEARTBEAT, tsc)


@njit(cache=True, _nrt=False, forceinline=True)
def reader_beat(ring, tsc):
    """Sign of life of a reader."""
    store_relaxed(ring.block, READER_HEARTBEAT, tsc)


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
    record_times(histogram, value, np.int64(1))


@njit(cache=True, _nrt=False)
def record_times(histogram, value, times):
    """Count a latency that so many messages had, at least one."""
    value = min(max(value, 0), LARGEST_VALUE)
    if histogram[HISTOGRAM_COUNT] == 0 or value < histogram[HISTOGRAM_MINIMUM]:
        histogram[HISTOGRAM_MINIMUM] = value
    if value > histogram[HISTOGRAM_MAXIMUM]:
        histogram[HISTOGRAM_MAXIMUM] = value
    histogram[HISTOGRAM_BUCKETS + bucket_of(value)] += times
    histogram[HISTOGRAM_SUM] += value * times
    histogram[HISTOGRAM_COUNT] += times
