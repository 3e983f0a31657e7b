"""What a capture's player puts before each packet (engine/feed/player.py): whose line it is of, and when it was captured.

The packet behind it is then one like any other of that line.
"""

from numba import njit

from engine.feed.hot.mold import hear_end
from engine.feed.hot.state import CAPTURE, CAPTURE_NS, CAPTURE_OVER, ENDED, FEED_ENDED, FRONTIER, LINE_B, ORIGIN_TSC
from engine.wire.hot.bytes import get_raw64
from shm.atomics import store_release

LINE_AT = 0
TIME_AT = 8
PREFIX_BYTES = 16

# In place of a line.
END_OF_CAPTURE = -1
UNREADABLE_CAPTURE = -2

# A reason to leave the loop.
CAPTURE_FAILED = -5


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def captured_line(feed, at, size):
    """The line of the packet buffer[at:at + size]; END_OF_CAPTURE where there is none, and UNREADABLE_CAPTURE where that is a failure."""
    words = feed.words
    if size < PREFIX_BYTES:
        return UNREADABLE_CAPTURE
    line = get_raw64(feed.buffer, at + LINE_AT)
    words[CAPTURE_NS] = get_raw64(feed.buffer, at + TIME_AT)
    if line == END_OF_CAPTURE:
        end_capture(feed)
    elif 0 <= line <= LINE_B:
        feed.lines[line].heard_tsc = words[ORIGIN_TSC]
    else:
        return UNREADABLE_CAPTURE
    return line


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_capture(feed):
    """Nothing follows: what is missing will stay so, and when what waited behind it has been applied, the feed has ended."""
    words = feed.words
    words[CAPTURE] = CAPTURE_OVER
    if words[ENDED]:
        store_release(feed.control, FEED_ENDED, 1)
    else:
        hear_end(feed, words[FRONTIER])
