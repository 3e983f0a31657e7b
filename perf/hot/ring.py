"""The kernels that perf/bench_ring.py times: a ping-pong over two rings, and a stream over one. Every payload byte is checked."""

from numba import njit

from shm.atomics import load_acquire, pause, read_tsc
from shm.hot import FULL, READER_POSITION, advance, claim, commit, has_messages, has_room, observe, poll, release, slot_index

# Round trips between two releases: a reader gives slots back once per batch, a slow one once in a while.
RELEASE_EVERY = 64
SLOW_RELEASE_EVERY = 1_024


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


# The ring watched: an observer and a gating reader that is slow to give back


@njit(cache=True, _nrt=False, forceinline=True)
def look(watcher, slow, copy, value):
    """What an observer and a slow reader do with the message that is there. 0 where both have it whole."""
    wrong = observe(watcher, copy)
    wrong |= wrong_bits(copy[0], value)
    wrong |= wrong_bits(slow.slots[await_message(slow)], value)
    advance(slow)
    if value % SLOW_RELEASE_EVERY == 0:
        release(slow)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def pong_and_look(out, into, watcher, slow, copy, first, rounds):
    """As pong; then, from the same CPU, two others look at each message."""
    wrong = 0
    for value in range(first, first + rounds):
        index = await_message(into)
        send(out, into.slots[index].a - 1)
        wrong |= wrong_bits(into.slots[index], value)
        advance(into)
        if value % RELEASE_EVERY == 0:
            release(into)
        wrong |= look(watcher, slow, copy, value)
    release(into)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def look_on(watcher, slow, copy, first, rounds):
    """The two others, on a CPU of their own: both wait for each message where the producer writes it."""
    wrong = 0
    for value in range(first, first + rounds):
        while observe(watcher, copy) != 0:
            pause()
        wrong |= wrong_bits(copy[0], value)
        wrong |= wrong_bits(slow.slots[await_message(slow)], value)
        advance(slow)
        if value % SLOW_RELEASE_EVERY == 0:
            release(slow)
    return wrong


# Records of several lines. `words` are the slots as int64, shape (capacity, words in a record).


@njit(cache=True, _nrt=False, forceinline=True)
def fill_words(words, index, value):
    for word in range(1, words.shape[1]):
        words[index, word] = value + word


@njit(cache=True, _nrt=False, forceinline=True)
def wrong_words(words, index, value):
    wrong = 0
    for word in range(1, words.shape[1]):
        wrong |= words[index, word] ^ (value + word)
    return wrong


@njit(cache=True, _nrt=False, forceinline=True)
def send_words(ring, words, value):
    index = claim(ring)
    while index < 0:
        pause()
        index = claim(ring)
    fill_words(words, index, value)
    commit(ring, index)


@njit(cache=True, _nrt=False, nogil=True)
def ping_wide(out, out_words, into, into_words, first, rounds):
    wrong = 0
    for value in range(first, first + rounds):
        send_words(out, out_words, value)
        wrong |= wrong_words(into_words, await_message(into), value)
        advance(into)
        if value % RELEASE_EVERY == 0:
            release(into)
    release(into)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def pong_wide(out, out_words, into, into_words, first, rounds):
    wrong = 0
    for value in range(first, first + rounds):
        index = await_message(into)
        send_words(out, out_words, into_words[index, 1] - 1)
        wrong |= wrong_words(into_words, index, value)
        advance(into)
        if value % RELEASE_EVERY == 0:
            release(into)
    release(into)
    return wrong


@njit(cache=True, _nrt=False, nogil=True)
def write_wide(out, words, first, count, chunk):
    """As write_stream."""
    done = 0
    while done < count:
        while not has_room(out, chunk):
            pause()
        for value in range(first + done, first + done + chunk):
            index = claim(out)
            fill_words(words, index, value)
            commit(out, index)
        done += chunk
    while load_acquire(out.readers[0], READER_POSITION) != first + count:
        pause()


@njit(cache=True, _nrt=False, nogil=True)
def read_wide(into, words, first, count, batch):
    """As read_stream."""
    wrong = 0
    done = 0
    while done < count:
        while not has_messages(into, batch):
            pause()
        for value in range(first + done, first + done + batch):
            wrong |= wrong_words(words, poll(into), value)
            advance(into)
        release(into)
        done += batch
    return wrong


# Costs


@njit(cache=True, _nrt=False, nogil=True)
def claim_in_vain(out, count):
    """Claims at a full ring. How many found room: none should."""
    found = 0
    for _ in range(count):
        found += claim(out) != FULL
    return found


@njit(cache=True, _nrt=False, nogil=True)
def write_and_read(out, into, first, count):
    """Both ends in one thread, given back once a lap: what the producer's look at the blocks costs shows in it."""
    capacity = out.slots.shape[0]
    wrong = 0
    for value in range(first, first + count):
        send(out, value)
        wrong |= wrong_bits(into.slots[poll(into)], value)
        advance(into)
        if slot_index(out.slots, value) == capacity - 1:
            release(into)
    release(into)
    return wrong
