"""Silence, and clocks that run apart: no book may be acted on whose venue is not heard, or is heard too late.

Both are turned off by 0. Silence is measured on all lines together, and ends with the next packet. The age of a message is our clock
less the venue's; no message can be younger than the path is long, so what one is older than the youngest of the session was spent
waiting somewhere, or is how far the two clocks have come apart.
"""

from numba import njit

from engine.feed.hot.decoder import OFFSET_MASK, TIMESTAMP
from engine.feed.hot.state import (
    AGE_KNOWN,
    AGE_LEAST_NS,
    CAPTURE,
    CAPTURE_NS,
    DRIFT_NS_MAX,
    DRIFTED,
    END_AT,
    ENDED,
    FIRST_INSTRUMENT,
    HEARD_TSC,
    MIDNIGHT_NS,
    NEXT_AT,
    ORIGIN_TSC,
    SILENT,
    STALE,
    STALE_AFTER_NS,
    SWEEP_NEXT,
    WATCHED_TSC,
)
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.messages.hot.stamp import now_tsc, ticks_of_ns, wall_ns
from engine.wire.hot.bytes import get_u16, get_u48


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def settle_stale(words, stats):
    """STALE is either reason; where it changed, every instrument is told."""
    stale = words[SILENT] | words[DRIFTED]
    if stale != words[STALE]:
        words[STALE] = stale
        words[SWEEP_NEXT] = FIRST_INSTRUMENT
        stats[0].stales += stale


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_silence(words, stats):
    words[SILENT] = 0
    settle_stale(words, stats)


@njit(cache=True, _nrt=False)
def watch(feed, clock):
    """Look for silence, in a turn in which nothing came. A session that has ended may be silent."""
    words = feed.words
    stats = feed.decoder.stats
    tsc = now_tsc(clock)
    if words[HEARD_TSC] == 0:
        words[HEARD_TSC] = tsc
    if words[STALE]:
        stats[0].stale_ns += int((tsc - words[WATCHED_TSC]) * clock.ns_per_tick[0])
    words[WATCHED_TSC] = tsc
    if words[ENDED]:
        words[SILENT] = 0
    elif words[STALE_AFTER_NS] != 0 and tsc - words[HEARD_TSC] >= ticks_of_ns(clock, words[STALE_AFTER_NS]):
        words[SILENT] = 1
    settle_stale(words, stats)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def watch_age(feed, clock):
    """Compare the time of a packet's first message with that of its arrival."""
    words = feed.words
    at = words[NEXT_AT] & OFFSET_MASK
    if words[END_AT] - at < LENGTH_BYTES + TIMESTAMP + 6 or get_u16(feed.buffer, at) < TIMESTAMP + 6:
        return
    sent_ns = words[MIDNIGHT_NS] + get_u48(feed.buffer, at + LENGTH_BYTES + TIMESTAMP)
    heard_ns = words[CAPTURE_NS] if words[CAPTURE] else wall_ns(clock, words[ORIGIN_TSC])
    age_ns = heard_ns - sent_ns
    if words[AGE_KNOWN] == 0 or age_ns < words[AGE_LEAST_NS]:
        words[AGE_KNOWN] = 1
        words[AGE_LEAST_NS] = age_ns
    words[DRIFTED] = 1 if age_ns - words[AGE_LEAST_NS] > words[DRIFT_NS_MAX] else 0
    settle_stale(words, feed.decoder.stats)
