"""The loop of `tickpath jitter`: read the TSC again and again; where two readings lie far apart, something else had the CPU.

Costs nothing but the CPU it spins on. A gap that falls into the few nanoseconds in which another one is written down is not seen.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from shm.atomics import load_acquire, read_tsc
from shm.hot import record

# Words of `state`.
THRESHOLD = 0
LOST = 1
WATCHED = 2
SMALLEST = 3
STARTED = 4
STOP = 5
ERROR = 6
STATE_WORDS = 8

LARGEST_KEPT = 16


class Meter(NamedTuple):
    """One CPU's meter: histogram words (shm/layout.h), largest (n, 2) int64 of ticks and when, state (8,) int64."""

    histogram: np.ndarray
    largest: np.ndarray
    state: np.ndarray


@njit(cache=True, _nrt=False)
def smallest_run(readings, runs):
    """The fewest ticks that `readings` of the TSC in a row took, of so many runs.

    The smallest single delta says nothing where the TSC counts in steps: on AMD cores it is often 0, and under a hypervisor that
    scales it now and then 1, while every reading takes 25.
    """
    smallest = 1 << 62
    for _ in range(runs):
        first = read_tsc()
        last = first
        for _ in range(readings):
            last = read_tsc()
        if last - first < smallest:
            smallest = last - first
    return smallest


@njit(cache=True, _nrt=False)
def keep_largest(largest, ticks, at):
    """Put a gap in the place of the smallest kept, if it is larger than that."""
    least = 0
    for place in range(1, largest.shape[0]):
        if largest[place, 0] < largest[least, 0]:
            least = place
    if ticks > largest[least, 0]:
        largest[least, 0] = ticks
        largest[least, 1] = at


@njit(cache=True, _nrt=False)
def watch(meter, until, turns):
    """Write down every gap above the threshold till the TSC is `until`, in `turns` readings at most.

    Returns whether to go on: False once somebody has set the STOP word. The time between two calls is not watched.
    """
    state = meter.state
    threshold = state[THRESHOLD]
    first = read_tsc()
    last = first
    for _ in range(turns):
        now = read_tsc()
        if now - last > threshold:
            record(meter.histogram, now - last)
            keep_largest(meter.largest, now - last, last)
            state[LOST] += now - last
            # What writing it down took is nobody's fault.
            now = read_tsc()
        last = now
        if last >= until:
            break
    state[WATCHED] += last - first
    return load_acquire(state, STOP) == 0
