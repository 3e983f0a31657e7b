"""The busy-poll around the steps: what every generated loop calls once a turn."""

from numba import njit

from engine.layout import CONTROL, IDLE_SLEEP, IDLE_SPIN, IDLE_YIELD
from engine.wire.hot.syscalls import sleep_us, yield_core
from shm.atomics import pause

# What a loop returns. A stage's own reason r (below 0) comes back as r - STAGE_REASONS x its place in the loop.
TIME_UP = 0
STOPPED = 1
STAGE_REASONS = 1_000

IDLE_SLEEP_US = 50

# Word of a control record.
PHASE = CONTROL.fields["phase"][1] // 8


@njit(cache=True, _nrt=False)
def rest(idle):
    """Nothing to do: spin politely, let another run, or sleep."""
    if idle == IDLE_SPIN:
        pause()
    elif idle == IDLE_YIELD:
        yield_core()
    elif idle == IDLE_SLEEP:
        sleep_us(IDLE_SLEEP_US)


@njit(cache=True, _nrt=False)
def beat(process, tsc, work):
    """Stamp the heartbeat of a process's record, and count the turn."""
    line = process[0]
    line.heartbeat_tsc = tsc
    line.loops += 1
    if work > 0:
        line.busy_loops += 1
