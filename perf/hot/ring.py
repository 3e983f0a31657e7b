"""The kernels that perf/bench_ring.py times: a ping-pong over two rings, and a stream over one. Every payload byte is checked."""

from numba import njit

from shm.atomics import load_acquire, pause, read_tsc
from shm.hot import READER_POSITION, advance, claim, commit, has_messages, has_room, poll, release

# Round trips between two releases: a reader gives slots back once per batch.
RELEASE_EVERY = 64


@njit(cache=True, _nrt=False, forceinline=True)
def fill(message, value):
    message.a = value + 1
    message.b = value + 2
    message.c = value + 3
    message.d = value + 4
    message.e = value + 5
    message.f = value + 6
    message.g = value + 7


@njit(cache=True, _nrt=False, forceinline=True)
def wrong_bits(message, value):
    """0 where all 56 bytes are what `fill` wrote."""
    wrong = (message.a ^ (value + 1)) | (message.b ^ (value + 2)) | (message.c ^ (value + 3)) | (message.d ^ (value + 4))
    return wrong | (message.e ^ (value + 5)) | (message.f ^ (value + 6)) | (message.g ^ (value + 7))


@njit(cache=True, _nrt=False, forceinline=True)
def send(ring, value):
    index = claim(ring)
    while index < 0:
        pause()
        index = claim(ring)
    fill(ring.slots[index], value)
    commit(ring, index)


@njit(cache=True, _nrt=False, forceinline=True)
def await_message(ring):
    index = poll(ring)
    while index < 0:
        pause()
        index = poll(ring)
    return index


@njit(cache=True, _nrt=False, nogil=True)
def ping(out, into, first, rounds, ticks):
    """Round trips first, first + 1, ...; TSC ticks of each into `ticks`, or of none where it is empty. 0: every byte was right."""
    stamped = ticks.shape[0] > 0
    wrong = 0
    last = read_tsc()
    for turn in range(rounds):
        value = first + turn
        send(out, value)
        index = await_message(into)
        wrong |= wrong_bits(into.slots[index], value)
        advance(into)
        if value % RELEASE_EVERY == 0:
            release(into)
        if stamped:
            now = read_tsc()
            ticks[turn] = now - last
            last = now
    release(into)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def pong(out, into, first, rounds):
    """Send every message back, and only then look at its bytes."""
    wrong = 0
    for value in range(first, first + rounds):
        index = await_message(into)
        send(out, into.slots[index].a - 1)
        wrong |= wrong_bits(into.slots[index], value)
        advance(into)
        if value % RELEASE_EVERY == 0:
            release(into)
    release(into)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def write_stream(out, first, count, chunk):
    """`count` messages one way, until the reader has given back the last. `chunk` divides `count`."""
    done = 0
    while done < count:
        while not has_room(out, chunk):
            pause()
        for value in range(first + done, first + done + chunk):
            index = claim(out)
            fill(out.slots[index], value)
            commit(out, index)
        done += chunk
    while load_acquire(out.readers[0], READER_POSITION) != first + count:
        pause()


@njit(cache=True, _nrt=False, nogil=True)
def read_stream(into, first, count, batch):
    """Read `count` messages as they come in batches. `batch` divides `count`."""
    wrong = 0
    done = 0
    while done < count:
        while not has_messages(into, batch):
            pause()
        for value in range(first + done, first + done + batch):
            wrong |= wrong_bits(into.slots[poll(into)], value)
            advance(into)
        release(into)
        done += batch
    return wrong
