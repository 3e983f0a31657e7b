"""The market as this feed handler applied it, handed on to a venue that trades against it on paper (engine/exchange/hot/paper.py).

     0          8        10               64      a slot of the ring "market", struct tp_market
     +----------+--------+----------------+
     | sequence | length | message        |       length big-endian, as before a message in a file
     +----------+--------+----------------+

Every message goes on at the moment it is applied, so each stands where it belongs whatever line, rewind server or snapshot brought it.
Between them are notices, in a form that no message of ITCH has: what the books are worth from here on, and that they were cleared.
Without a venue on paper (words[PAPER] 0) all of this is one test a message.
"""

import numpy as np
from numba import njit

from engine.feed.hot.state import PAPER
from engine.wire.hot.bytes import put_u16
from shm.hot import FULL, claim, commit, has_room

SLOT_BYTES = 64
LENGTH_AT = 8
MESSAGE_AT = 10

# A notice: its code, which no type of message is, an instrument, and its value.
NOTICE_VALIDITY = np.int64(1)  # the flags (TP_BOOK_*) of an instrument's book
NOTICE_CLEAR = np.int64(2)  # all books are empty; value 1: a new session, the directory is gone too
NOTICE_CLEAR_ONE = np.int64(3)  # one instrument's book is empty
NOTICE_BYTES = 4
NOTICE_INSTRUMENT = 1
NOTICE_VALUE = 3

# The most that one message hands on: itself, and what its book and the market are worth from then on.
HANDED_PER_MESSAGE = 4


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def may_hand_on(feed):
    """Whether what the next message comes to can be handed on; always where nobody wants it."""
    return feed.words[PAPER] == 0 or has_room(feed.market, HANDED_PER_MESSAGE)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hand_on(ring, raw, stats, buffer, at, length):
    """Copy the message at buffer[at:]. The caller has seen that there is room."""
    index = claim(ring)
    if index == FULL:
        stats[0].capacity_drops += 1
        return
    place = index * SLOT_BYTES
    put_u16(raw, place + LENGTH_AT, length)
    for byte in range(length):
        raw[place + MESSAGE_AT + byte] = buffer[at + byte]
    commit(ring, index)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def give_notice(ring, raw, code, instrument, value):
    """Put a notice between the messages. False where there is no room for it."""
    index = claim(ring)
    if index == FULL:
        return False
    place = index * SLOT_BYTES
    put_u16(raw, place + LENGTH_AT, np.int64(NOTICE_BYTES))
    raw[place + MESSAGE_AT] = code
    put_u16(raw, place + MESSAGE_AT + NOTICE_INSTRUMENT, instrument)
    raw[place + MESSAGE_AT + NOTICE_VALUE] = value
    commit(ring, index)
    return True
