"""The time stamp counter as a clock: checked, calibrated against the monotonic clock, handed to kernels."""

import time
from dataclasses import dataclass

import numpy as np

from engine.messages.hot.stamp import BASE_NS, BASE_TSC, NOW, SIMULATED, Clock
from shm._shim import lib


class ClockError(RuntimeError):
    """This machine's TSC cannot be used as a clock."""


@dataclass(frozen=True)
class Calibration:
    """Ticks per second, and one moment known on both clocks: TSC ticks and nanoseconds since the epoch."""

    hz: float
    base_tsc: int
    base_ns: int

    def clock(self) -> Clock:
        """The live clock that kernels are given."""
        words = np.zeros(4, np.int64)
        words[BASE_TSC], words[BASE_NS] = self.base_tsc, self.base_ns
        return Clock(words, np.array([1e9 / self.hz]))

    def ns(self, ticks: float) -> float:
        return ticks * 1e9 / self.hz


def simulated_clock(now_tsc: int = 0, base_ns: int = 0, ns_per_tick: float = 1.0) -> Clock:
    """A clock that stands at now_tsc until its NOW word is moved."""
    words = np.zeros(4, np.int64)
    words[SIMULATED], words[NOW], words[BASE_NS] = 1, now_tsc, base_ns
    return Clock(words, np.array([ns_per_tick]))


def calibrate(over_ns: int = 40_000_000) -> Calibration:
    """Measure the TSC's rate. ClockError where it changes with the core's frequency or stops with it."""
    if not lib.tp_tsc_is_invariant():
        raise ClockError(
            "tsc: this CPU does not report an invariant TSC (CPUID 8000_0007h EDX bit 8), so its ticks are no clock; "
            "on a virtual machine ask for constant_tsc and nonstop_tsc to be passed through"
        )
    first_tsc, first_ns = _sample()
    while time.monotonic_ns() - first_ns < over_ns:
        time.sleep(0.005)
    last_tsc, last_ns = _sample()
    hz = (last_tsc - first_tsc) * 1e9 / (last_ns - first_ns)
    if not 1e8 < hz < 2e10:
        raise ClockError(f"tsc_hz={hz:.0f}: expected between 100 MHz and 20 GHz; the TSC and the monotonic clock disagree")
    return Calibration(hz, last_tsc, last_ns + time.time_ns() - time.monotonic_ns())


def _sample() -> tuple[int, int]:
    """One moment on both clocks: of several readings the one the least time passed in."""
    best: tuple[int, int, int] | None = None
    for _ in range(16):
        before = lib.tp_rdtsc()
        now_ns = time.monotonic_ns()
        after = lib.tp_rdtsc()
        if best is None or after - before < best[0]:
            best = (after - before, (before + after) // 2, now_ns)
    assert best is not None
    return best[1], best[2]
