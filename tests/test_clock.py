"""The TSC clock agrees with the monotonic clock, and a machine without one is refused."""

import time

import pytest

from engine.messages.hot.stamp import AGE_MAX, age_at, now_tsc, wall_ns
from engine.runtime import clock as clocks
from shm._shim import lib


def test_an_interval_measured_in_ticks_is_that_of_the_monotonic_clock() -> None:
    calibration = clocks.calibrate()
    first_tsc, first_ns = lib.tp_rdtsc(), time.monotonic_ns()
    while time.monotonic_ns() - first_ns < 50_000_000:
        pass
    measured_ns = calibration.ns(lib.tp_rdtsc() - first_tsc)
    assert measured_ns == pytest.approx(time.monotonic_ns() - first_ns, rel=1e-2)


def test_wall_time_is_the_systems() -> None:
    clock = clocks.calibrate().clock()
    assert abs(wall_ns(clock, lib.tp_rdtsc()) - time.time_ns()) < 1_000_000_000


def test_wall_time_keeps_nanoseconds_over_a_day() -> None:
    clock = clocks.Calibration(hz=2_595_123_456.0, base_tsc=10**15, base_ns=1_700_000_000 * 10**9).clock()
    a_day = int(86_400 * 2_595_123_456.0)
    assert abs(wall_ns(clock, 10**15 + a_day) - (1_700_000_000 + 86_400) * 10**9) <= 16


def test_a_machine_without_an_invariant_tsc_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    class Without:
        tp_rdtsc = staticmethod(lib.tp_rdtsc)

        @staticmethod
        def tp_tsc_is_invariant() -> int:
            return 0

    monkeypatch.setattr(clocks, "lib", Without)
    with pytest.raises(clocks.ClockError, match="does not report an invariant TSC"):
        clocks.calibrate()


def test_a_simulated_clock_stands_until_it_is_moved() -> None:
    clock = clocks.simulated_clock(now_tsc=7)
    assert now_tsc(clock) == now_tsc(clock) == 7
    clock.words[1] = 9
    assert now_tsc(clock) == 9


@pytest.mark.parametrize(("origin", "now", "age"), [(5, 5, 0), (5, 9, 4), (9, 5, 0), (0, 1 << 40, AGE_MAX)])
def test_an_age_is_never_negative_and_never_wraps(origin: int, now: int, age: int) -> None:
    assert age_at(origin, now) == age
