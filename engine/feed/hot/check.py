"""Looking for contradictions in the books that a packet touched, while the engine runs: on when feed.check_books is."""

import numpy as np
from numba import njit

from engine.book.hot.check import WHOLE, check_instrument
from engine.feed.hot.apply import mark_suspect, publish_suspect
from engine.feed.hot.decoder import LOCATE, OFFSET_MASK
from engine.feed.hot.state import FIRST_INSTRUMENT, ORIGIN_TSC, SWEEP_NEXT
from engine.feed.itch import ABOUT_ORDER, LENGTHS
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.wire.hot.bytes import get_u16
from shm.hot import has_room


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def check_touched(feed, clock, at, count):
    """Check the books of the `count` whole messages framed at buffer[at:], which have been applied. One that is not whole is counted, and
    suspect from here on."""
    buffer = feed.buffer
    for _ in range(count):
        at = at & OFFSET_MASK
        length = get_u16(buffer, at)
        at += LENGTH_BYTES
        code = np.int64(buffer[at]) if length > 0 else 0
        if ABOUT_ORDER[code] and LENGTHS[code] == length:
            check_book_of(feed, clock, get_u16(buffer, at + LOCATE))
        at += length


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def check_book_of(feed, clock, instrument):
    if instrument >= feed.decoder.tops.shape[0] or check_instrument(feed.decoder.book, instrument) == WHOLE:
        return
    feed.decoder.stats[0].wrong_books += 1
    if mark_suspect(feed, instrument):
        if has_room(feed.ticks, 1):
            publish_suspect(feed, clock, instrument, feed.words[ORIGIN_TSC])
        else:
            feed.words[SWEEP_NEXT] = FIRST_INSTRUMENT
