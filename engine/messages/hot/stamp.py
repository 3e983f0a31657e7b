"""Time for kernels: one clock, passed in, so that a simulation can hold it still; and the stamps every record carries."""

from typing import NamedTuple

import numpy as np
from numba import njit

from shm.atomics import read_tsc

# Words of Clock.words. SIMULATED is 0 live; otherwise the clock stands at NOW until somebody moves it.
SIMULATED = 0
NOW = 1
BASE_TSC = 2
BASE_NS = 3

AGE_MAX = 0xFFFFFFFF


class Clock(NamedTuple):
    """words (4,) int64, and ns_per_tick (1,) float64: nanoseconds since the epoch are BASE_NS + (tsc - BASE_TSC) * ns_per_tick."""

    words: np.ndarray
    ns_per_tick: np.ndarray


@njit(cache=True, _nrt=False)
def now_tsc(clock):
    if clock.words[SIMULATED]:
        return clock.words[NOW]
    return read_tsc()


@njit(cache=True, _nrt=False)
def wall_ns(clock, tsc):
    """Nanoseconds since the epoch at TSC `tsc`: a label. A double holds a day's ticks to a fraction of a nanosecond."""
    return clock.words[BASE_NS] + int((tsc - clock.words[BASE_TSC]) * clock.ns_per_tick[0])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def ticks_of_ns(clock, ns):
    return int(ns / clock.ns_per_tick[0])


@njit(cache=True, _nrt=False)
def age_at(origin_tsc, tsc):
    """The age_tsc of a record published at `tsc`."""
    return min(max(tsc - origin_tsc, 0), AGE_MAX)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def published_at(record):
    """When a record was published, or -1 where its age did not fit."""
    if record.age_tsc == AGE_MAX:
        return -1
    # An unsigned word plus a signed one would be a float to numba.
    return np.int64(record.origin_tsc) + np.int64(record.age_tsc)
