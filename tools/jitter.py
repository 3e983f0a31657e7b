"""`tickpath jitter`: how often, and for how long, each CPU does something else than what a pinned process wants of it.

One pinned process a CPU spins on the TSC and writes down every gap. All CPUs are measured at the same moments. No spinner outlives
the command: each asks the kernel for SIGKILL when its parent dies, and has an alarm of its own.
"""

import errno
import gc
import mmap
import os
import resource
import select
import signal
import sys
import time
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from engine.runtime.clock import Calibration, calibrate
from shm._shim import lib
from shm.histogram import Distribution
from shm.layout import HISTOGRAM
from tools import blame, cpus
from tools.hot.jitter import (
    ERROR,
    LARGEST_KEPT,
    LOST,
    SMALLEST,
    STARTED,
    STATE_WORDS,
    STOP,
    THRESHOLD,
    WATCHED,
    Meter,
    smallest_run,
    watch,
)
from tools.machine import describe

# As in rigtorp's hiccups, a gap is eight times what it takes to look at the clock.
THRESHOLD_DELTAS = 8
# What that takes: the fastest of so many runs of so many readings.
CALIBRATING_RUNS, CALIBRATING_READINGS = 4_000, 64
# A turn of the kernel: how long until a spinner looks whether it should go on, and a bound in readings if the TSC stood still.
TURN_NS = 50_000_000
TURN_READINGS = 1 << 25
# What a spinner may take beyond its time before its own alarm ends it.
GRACE_S = 30
# Of counters of the process itself, in shared words after the state.
PREEMPTED, YIELDED, WAITED_NS, JOINED = range(4)
USAGE_WORDS = 8
UNKNOWN = -1


class MeterError(RuntimeError):
    """A meter did not come to an end; the text says which and why."""


@dataclass(frozen=True)
class Slot:
    """What one meter shares with its parent."""

    cpu: int
    meter: Meter
    usage: np.ndarray


def threshold_of(text: str) -> float | None:
    """--threshold-ns: nanoseconds, or None for auto. ValueError names what was expected."""
    if text == "auto":
        return None
    try:
        threshold_ns = float(text)
    except ValueError:
        threshold_ns = 0.0
    if not 1 <= threshold_ns <= 1e9:
        raise ValueError(f"--threshold-ns={text}: expected auto, or nanoseconds from 1 to 1,000,000,000")
    return threshold_ns


def make_slots(wanted: list[int]) -> list[Slot]:
    """A meter for each CPU, in zeroed memory shared with the processes forked later; it lives as long as the arrays."""
    histogram_words = HISTOGRAM.itemsize // 8
    words = histogram_words + 2 * LARGEST_KEPT + STATE_WORDS + USAGE_WORDS
    every = np.frombuffer(mmap.mmap(-1, len(wanted) * words * 8), np.int64).reshape(len(wanted), words)
    slots = []
    for cpu, row in zip(wanted, every, strict=True):
        histogram, largest, state, usage = np.split(row, np.cumsum([histogram_words, 2 * LARGEST_KEPT, STATE_WORDS]))
        slots.append(Slot(cpu, Meter(histogram, largest.reshape(LARGEST_KEPT, 2), state), usage))
    return slots


def compile_kernels() -> None:
    """Before the forks, so that no child compiles."""
    (slot,) = make_slots([0])
    smallest_run(1, 1)
    watch(slot.meter, 0, 1)


# ---------------------------------------------------------------------------------------------- one meter, in its own process


def spin(slot: Slot, calibration: Calibration, seconds: float, threshold_ns: float | None, ready: int, go: int) -> None:
    """Pin, calibrate, wait for the start, and watch until the time is over or somebody says stop."""
    joined = cpus.run_on(slot.cpu)
    slot.usage[JOINED] = joined is not None
    ticks = calibration.hz / 1e9
    state = slot.meter.state
    state[SMALLEST] = max(1, smallest_run(CALIBRATING_READINGS, CALIBRATING_RUNS) // CALIBRATING_READINGS)
    state[THRESHOLD] = THRESHOLD_DELTAS * state[SMALLEST] if threshold_ns is None else max(1, round(threshold_ns * ticks))
    gc.disable()
    os.write(ready, b"+")
    if os.read(go, 1) != b"+":
        return
    before = resource.getrusage(resource.RUSAGE_SELF)
    waited_ns = _waited_ns()
    state[STARTED] = lib.tp_rdtsc()
    end = int(state[STARTED] + seconds * calibration.hz)
    while (now := lib.tp_rdtsc()) < end and watch(slot.meter, min(end, now + int(TURN_NS * ticks)), TURN_READINGS):
        pass
    after = resource.getrusage(resource.RUSAGE_SELF)
    slot.usage[PREEMPTED] = after.ru_nivcsw - before.ru_nivcsw
    slot.usage[YIELDED] = after.ru_nvcsw - before.ru_nvcsw
    slot.usage[WAITED_NS] = UNKNOWN if waited_ns == UNKNOWN else _waited_ns() - waited_ns


def _waited_ns() -> int:
    """How long this process was ready and another had its CPU; UNKNOWN where the kernel does not count it."""
    text = cpus.read_text(Path("/proc/self/schedstat"))
    return int(text.split()[1]) if text and len(text.split()) == 3 else UNKNOWN


def fork_meter(slot: Slot, *arguments: Any, closing: tuple[int, ...]) -> int:
    """The pid of a process that runs `spin` and ends, whatever happens to it or to us."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        lib.tp_die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        # Ctrl-C reaches us as well: the parent tells us to stop, and reports what was measured until then.
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.signal(signal.SIGALRM, signal.SIG_DFL)
        signal.alarm(int(arguments[1]) + GRACE_S)
        for end in closing:
            os.close(end)
        spin(slot, *arguments)
        code = 0
    except OSError as error:
        slot.meter.state[ERROR] = error.errno or errno.EIO
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
    return 0


# ---------------------------------------------------------------------------------------------- all of them


def measure(wanted: list[int], seconds: float, threshold_ns: float | None) -> dict[str, Any]:
    """Measure CPUs at the same time. ValueError: a CPU that we may not use; MeterError: a meter died; ClockError: no TSC to go by.

    Ctrl-C ends it early, with what was measured until then.
    """
    calibration = calibrate()
    compile_kernels()
    slots = make_slots(wanted)
    machine = describe()
    usable = os.sched_getaffinity(0)
    # Leave the measured CPUs alone ourselves, where there is another.
    os.sched_setaffinity(0, usable - set(wanted) or usable)
    ready_read, ready = os.pipe()
    go, go_write = os.pipe()
    pids: list[int] = []
    try:
        for slot in slots:
            pids.append(fork_meter(slot, calibration, seconds, threshold_ns, ready, go, closing=(ready_read, go_write)))
        os.close(ready)
        _await_ready(slots, ready_read)
        before = blame.look()
        os.write(go_write, b"+" * len(slots))
        interrupted = _await_end(slots, pids)
        after = blame.look()
        own = {os.getpid(), *pids}
    finally:
        for pid in pids:
            os.kill(pid, signal.SIGKILL)
        for pid in pids:
            os.waitpid(pid, 0)
        for end in (ready_read, go, go_write):
            os.close(end)
        os.sched_setaffinity(0, usable)
    return {
        "interrupted": interrupted,
        "tsc_hz": round(calibration.hz),
        "cpus": [_one(slot, calibration, blame.between(before, after, slot.cpu, own)) for slot in slots],
        "unknown": after.unknown + _tracers(),
        "at": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "machine": machine,
    }


def _await_ready(slots: list[Slot], ready: int) -> None:
    count = 0
    while count < len(slots):
        signs = os.read(ready, len(slots))
        count += len(signs)
        if not signs:
            break
    for slot in slots:
        if code := int(slot.meter.state[ERROR]):
            raise ValueError(
                f"cpu={slot.cpu}: a meter cannot run there: {os.strerror(code)}; expected a CPU that is online and that this "
                f"process's cpuset allows (taskset -p $$ shows it; a set made by `tune apply` is joined by root only)"
            )
    if count < len(slots):
        raise MeterError("a meter ended before it began: see above")


def _await_end(slots: list[Slot], pids: list[int]) -> bool:
    """Wait for every meter; whether Ctrl-C ended them early. MeterError at once where one died.

    None is reaped here, so that a pid stays that of its meter until the caller has killed and collected them all.
    """
    interrupted = False
    running = {os.pidfd_open(pid): (slot, pid) for slot, pid in zip(slots, pids, strict=True)}
    poll = select.poll()
    for fd in running:
        poll.register(fd, select.POLLIN)
    try:
        while running:
            try:
                for fd, _ in poll.poll():
                    _check_ending(*running[fd])
                    poll.unregister(fd)
                    os.close(fd)
                    del running[fd]
            except KeyboardInterrupt:
                interrupted = True
                for slot in slots:
                    slot.meter.state[STOP] = 1
    finally:
        for fd in running:
            os.close(fd)
    return interrupted


def _check_ending(slot: Slot, pid: int) -> None:
    info = os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    if info is None or (info.si_code, info.si_status) != (os.CLD_EXITED, 0):
        how = "unknown" if info is None else f"{'exit' if info.si_code == os.CLD_EXITED else 'signal'} {info.si_status}"
        raise MeterError(f"the meter on CPU {slot.cpu} (pid {pid}) ended by {how}: nothing is reported")


def _one(slot: Slot, calibration: Calibration, took: dict[str, Any]) -> dict[str, Any]:
    gaps, state = Distribution.of(slot.meter.histogram), slot.meter.state
    watched = int(state[WATCHED])
    largest = sorted((int(ticks), int(at)) for ticks, at in slot.meter.largest if ticks)[::-1]
    waited_ns = int(slot.usage[WAITED_NS])
    return {
        "cpu": slot.cpu,
        "joined_latency_set": bool(slot.usage[JOINED]),
        "smallest_ns": round(calibration.ns(int(state[SMALLEST])), 1),
        "threshold_ns": round(calibration.ns(int(state[THRESHOLD])), 1),
        "watched_s": round(calibration.ns(watched) / 1e9, 6),
        "gaps": gaps.count,
        "gaps_per_s": round(gaps.count / (calibration.ns(watched) / 1e9), 2) if watched else 0.0,
        **{f"{key}_ns": round(calibration.ns(gaps.percentile(share))) for key, share in (("p50", 50), ("p99", 99), ("p999", 99.9))},
        "max_ns": round(calibration.ns(gaps.maximum)),
        "lost_ns": round(calibration.ns(int(state[LOST]))),
        "lost_share": int(state[LOST]) / watched if watched else 0.0,
        "largest": [{"ns": round(calibration.ns(ticks)), "at_s": round(calibration.ns(at - int(state[STARTED])) / 1e9, 6)}
                    for ticks, at in largest],
        "preempted": int(slot.usage[PREEMPTED]),
        "yielded": int(slot.usage[YIELDED]),
        "waited_for_threads_ns": None if waited_ns == UNKNOWN else waited_ns,
        "unseen_ns": _unseen_ns(round(calibration.ns(int(state[LOST]))), waited_ns, took["stolen_ns"]),
        **took,
    }  # fmt: skip


def _unseen_ns(lost_ns: int, waited_ns: int, stolen_ns: int | None) -> int | None:
    """What no other thread and no admitted theft accounts for: interrupts, and what the kernel does not see itself."""
    return None if waited_ns == UNKNOWN or stolen_ns is None else max(0, lost_ns - waited_ns - stolen_ns)


def _tracers() -> list[str]:
    """What would name every single gap, and is not there."""
    tracers = cpus.read_text(Path("/sys/kernel/tracing/available_tracers"))
    if tracers is None:
        return ["no tracefs is mounted here, so no tracer can name single gaps"]
    if "osnoise" not in tracers.split():
        return ["the osnoise tracer is not built into this kernel, so nothing can name single gaps"]
    return []
