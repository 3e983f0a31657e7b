"""The kernel that perf/bench_receive.py times: packets wait in the feed handler's socket, it turns until it has taken them."""

from numba import njit

from engine.feed.hot.state import EXPECTED
from engine.feed.hot.step import step
from engine.layout import MSG_QUOTE
from engine.messages.hot.stamp import published_at
from engine.wire.hot.syscalls import send_bytes
from shm.atomics import read_tsc
from shm.hot import EMPTY, advance, poll, release

TURNS_MAX = 100_000
LOST = -100
NOT_SENT = -101
# What is noted of a batch: ticks until its first and its last quote was published (0: none was), and until the turns were over.
FIRST_QUOTE = 0
LAST_QUOTE = 1
ALL = 2
NOTED = 3


@njit(cache=True, _nrt=False)
def follow(feed, reader, clock, sending, packets, offsets, targets, first, count, waiting, ticks):
    """Send packets first to first + count, `waiting` at a time, and turn the feed handler until it expects targets[packet], the sequence
    number behind each. ticks (batches x NOTED,) int64 is filled. 0, or what went wrong below 0."""
    for packet in range(first, first + count, waiting):
        end = min(packet + waiting, first + count)
        for number in range(packet, end):
            if send_bytes(sending, packets, offsets[number], offsets[number + 1] - offsets[number]) < 0:
                return NOT_SENT
        at = (packet - first) // waiting * NOTED
        turns = 0
        began = read_tsc()
        while feed.words[EXPECTED] != targets[end - 1]:
            done = step(feed, clock)
            turns += 1
            if done < 0:
                return done
            if turns == TURNS_MAX:
                return LOST
        ticks[at + ALL] = read_tsc() - began
        take_quotes(reader, ticks, at, began)
    return 0


@njit(cache=True, _nrt=False)
def take_quotes(reader, ticks, at, began):
    """Empty the ring, and note when the first and the last quote on it was published."""
    ticks[at + FIRST_QUOTE] = 0
    ticks[at + LAST_QUOTE] = 0
    index = poll(reader)
    while index != EMPTY:
        if reader.slots[index].kind == MSG_QUOTE:
            after = published_at(reader.slots[index]) - began
            ticks[at + LAST_QUOTE] = after
            if ticks[at + FIRST_QUOTE] == 0:
                ticks[at + FIRST_QUOTE] = after
        advance(reader)
        index = poll(reader)
    release(reader)
