"""Kernels that tests run in two processes. They yield where they wait, since test machines have few cores, and give up in the end."""

import numpy as np
from numba import njit

from engine.wire.hot.syscalls import yield_core
from shm.atomics import load_acquire, pause, store_release
from shm.hot import (
    GOT,
    LAPPED,
    LOST_FROM,
    LOST_NOW,
    POSITION,
    advance,
    board_close,
    board_open,
    board_read,
    claim,
    commit,
    has_messages,
    is_fenced,
    observe,
    poll,
    release,
)

# A message with room for seven words, each derived from its number: any byte that is wrong or torn shows.
MESSAGE = np.dtype([("sequence", "u8"), *((name, "i8") for name in "abcdefg")])

# The same by its size: 7 words in one line, 23 in three, each derived from the message's number.
MESSAGE_OF_LINES = {lines: np.dtype([("sequence", "u8"), ("words", "i8", (8 * lines - 1,))]) for lines in (1, 3)}

# For one message. A process that has a core for itself yields so often in five seconds: all the waits of a test with hundreds of deaths
# in it, each a fork, come to that on a slow day, and the other side is then waited for in vain.
PATIENCE_YIELDS = 20_000_000
PATIENCE_LOADS = 100_000_000_000
STUCK = -1
# No test numbers a message so.
TORN = -(1 << 62)


@njit(cache=True, _nrt=False)
def fill(message, number):
    message.a = number
    message.b = number ^ 0x5555555555555555
    message.c = number * 3
    message.d = -number
    message.e = number + (1 << 40)
    message.f = ~number
    message.g = number * number


@njit(cache=True, _nrt=False)
def is_whole(message, number):
    low = message.a == number and message.b == number ^ 0x5555555555555555 and message.c == number * 3 and message.d == -number
    return low and message.e == number + (1 << 40) and message.f == ~number and message.g == number * number


@njit(cache=True, _nrt=False, nogil=True)
def write_numbers(out, count):
    """Publish messages 0 .. count - 1. How many were published: less than `count` means that no reader moved for too long."""
    for number in range(count):
        patience = PATIENCE_YIELDS
        index = claim(out)
        while index < 0:
            yield_core()
            patience -= 1
            if patience == 0:
                return number
            index = claim(out)
        fill(out.slots[index], number)
        commit(out, index)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read_numbers(into, count, batch):
    """Read messages 0 .. count - 1 and give them back every `batch`. How many were whole and in order, up to the first that was not."""
    for number in range(count):
        patience = PATIENCE_YIELDS
        index = poll(into)
        while index < 0:
            yield_core()
            patience -= 1
            if patience == 0:
                return number
            index = poll(into)
        if not is_whole(into.slots[index], number):
            return number
        advance(into)
        if (number + 1) % batch == 0:
            release(into)
    release(into)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read_batches(into, count, batch):
    """As read_numbers, waiting for whole batches. `batch` divides `count`."""
    for first in range(0, count, batch):
        patience = PATIENCE_YIELDS
        while not has_messages(into, batch):
            yield_core()
            patience -= 1
            if patience == 0:
                return first
        for number in range(first, first + batch):
            index = poll(into)
            if index < 0 or not is_whole(into.slots[index], number):
                return number
            advance(into)
        release(into)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def write_board(board, stop):
    """Overwrite line 0 with 1, 2, 3, ... until stop[0] is set; the last number."""
    number = 0
    while load_acquire(stop, 0) == 0:
        number += 1
        version = board_open(board, 0)
        fill(board[0], number)
        board_close(board, 0, version)
        # A line that is open most of the time is seldom read whole.
        for _ in range(number % 32):
            pause()
    return number


@njit(cache=True, _nrt=False, nogil=True)
def read_board(board, copy, reads, seen):
    """Read line 0 `reads` times while it changes. Adds to seen: whole, busy, torn, went back, changed since the last whole one."""
    last_version = 0
    for _ in range(reads):
        version = board_read(board, 0, copy)
        if version < 0:
            seen[1] += 1
            yield_core()
        elif version > 0:
            number = copy[0].a
            if not is_whole(copy[0], number) or version != 2 * number:
                seen[2] += 1
            elif version < last_version:
                seen[3] += 1
            else:
                seen[0] += 1
                seen[4] += version != last_version
                last_version = version


@njit(cache=True, _nrt=False, nogil=True)
def await_word(words, value):
    """Say so in words[1], then spin until words[0] is `value`. 0, or STUCK.

    Nothing in the loop but the load: a plain one would be taken out of it.
    """
    store_release(words, 1, 1)
    for _ in range(PATIENCE_LOADS):
        if load_acquire(words, 0) == value:
            return 0
    return STUCK


@njit(cache=True, _nrt=False)
def fill_words(message, number):
    for word in range(message.words.shape[0]):
        message.words[word] = number * (2 * word + 1) + word


@njit(cache=True, _nrt=False)
def number_of(message):
    """The number that a message was filled with, or TORN where a word of it belongs to another."""
    number = message.words[0]
    for word in range(1, message.words.shape[0]):
        if message.words[word] != number * (2 * word + 1) + word:
            return TORN
    return number


@njit(cache=True, _nrt=False)
def publish(out, first, count):
    """Publish first, first + 1, ... as far as there is room, `count` at most. How many were published."""
    for done in range(count):
        index = claim(out)
        if index < 0:
            return done
        fill_words(out.slots[index], first + done)
        commit(out, index)
    return count


@njit(cache=True, _nrt=False)
def consume(into, numbers):
    """Read what is there, as much as `numbers` holds, without giving it back. How many were read."""
    for done in range(numbers.shape[0]):
        index = poll(into)
        if index < 0:
            return done
        numbers[done] = number_of(into.slots[index])
        advance(into)
    return numbers.shape[0]


@njit(cache=True, _nrt=False)
def watch(view, copy, numbers):
    """Observe what is there, as much as `numbers` holds. How many were seen in a row; LAPPED or EMPTY where the first was not."""
    for done in range(numbers.shape[0]):
        outcome = observe(view, copy)
        if outcome != GOT:
            return done if done else outcome
        numbers[done] = number_of(copy[0])
    return numbers.shape[0]


# Messages that carry their own position: whoever takes a role over knows what comes next, and a reader what it should see.


@njit(cache=True, _nrt=False, nogil=True)
def write_positions(out, count):
    """Publish `count` messages. How many were: fewer where no reader moved for too long, or the role is another's."""
    for done in range(count):
        patience = PATIENCE_YIELDS
        index = claim(out)
        while index < 0:
            yield_core()
            patience -= 1
            if patience == 0 or is_fenced(out):
                return done
            index = claim(out)
        fill_words(out.slots[index], out.local[POSITION])
        commit(out, index)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read_positions(into, count, batch, dwell):
    """Read `count` messages, each of them twice with `dwell` pauses in between, and give them back every `batch`.

    How many were right, up to the first that was not.
    """
    for done in range(count):
        patience = PATIENCE_YIELDS
        index = poll(into)
        while index < 0:
            yield_core()
            patience -= 1
            if patience == 0:
                return done
            index = poll(into)
        position = into.local[POSITION]
        if number_of(into.slots[index]) != position:
            return done
        for _ in range(dwell):
            pause()
        if number_of(into.slots[index]) != position:
            return done
        advance(into)
        if (done + 1) % batch == 0:
            release(into)
    release(into)
    return count


@njit(cache=True, _nrt=False, nogil=True)
def read_to_journal(into, journal, batch):
    """Read, and count each message by its position in journal, until that is full; give back every `batch`. True if all was right."""
    while into.local[POSITION] < journal.shape[0]:
        patience = PATIENCE_YIELDS
        index = poll(into)
        while index < 0:
            yield_core()
            patience -= 1
            if patience == 0:
                return False
            index = poll(into)
        position = into.local[POSITION]
        if number_of(into.slots[index]) != position:
            return False
        journal[position] += 1
        advance(into)
        if (position + 1) % batch == 0:
            release(into)
    release(into)
    return True


# Words of a watcher's tally.
SEEN, LAPS, MISSED, WRONG = range(4)


@njit(cache=True, _nrt=False, nogil=True)
def watch_positions(view, copy, tally, count):
    """Observe until `count` messages were seen or one is not what it must be. Counts into tally: SEEN, LAPS, MISSED, WRONG."""
    patience = PATIENCE_YIELDS
    while tally[SEEN] < count and tally[WRONG] == 0 and patience > 0:
        position = view.local[POSITION]
        outcome = observe(view, copy)
        if outcome == GOT:
            patience = PATIENCE_YIELDS
            tally[SEEN] += 1
            tally[WRONG] += number_of(copy[0]) != position
        elif outcome == LAPPED:
            tally[LAPS] += 1
            tally[MISSED] += view.local[LOST_NOW]
            tally[WRONG] += view.local[LOST_FROM] != position or view.local[POSITION] != position + view.local[LOST_NOW]
        else:
            yield_core()
            patience -= 1
