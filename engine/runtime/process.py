"""One process of an instance, from the fork to its exit code."""

import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence
from types import FrameType
from typing import Any

import numpy as np
from numba.core import event

from engine.layout import PHASE_STOPPED, STATE_COMPILING, STATE_ENDED, STATE_LOOPING, STATE_READY
from engine.runtime.clock import Calibration
from engine.runtime.hot import STAGE_REASONS, TIME_UP
from engine.runtime.loop import loop_for
from engine.runtime.placement import Place
from engine.runtime.stages import Run, Stage, build
from engine.strategy.errors import StrategyError
from shm._shim import lib

# How long a kernel keeps the process between two looks at signals and at the parent.
TURN_NS = 5_000_000

EXIT_GOOD, EXIT_MISUSE, EXIT_FAILED = 0, 2, 3

# An exchange that is still being built refuses connections; one that is not there after this long is not coming.
CONNECT_PATIENCE_S = 20.0


def start(run: Run, slot: int, place: Place, errors_fd: int, supervisor: int) -> None:
    """The child's side of the fork: never returns. What went wrong is written to errors_fd for the supervisor to show."""
    code = EXIT_FAILED
    try:
        code = _run(run, slot, place, errors_fd, supervisor)
    except (StrategyError, ValueError, OSError) as error:
        _tell(errors_fd, str(error))
        code = EXIT_MISUSE
    except BaseException:
        _tell(errors_fd, traceback.format_exc())
    finally:
        if os.getppid() != supervisor:
            run.instance.unlink()
        sys.stdout.flush()
        os._exit(code)


def _run(run: Run, slot: int, place: Place, errors_fd: int, supervisor: int) -> int:
    leaving = _handle_signals(supervisor)
    os.sched_setaffinity(0, {place.cpu})
    line = run.instance.processes.records[slot]
    _introduce(line, place)
    stages: list[Stage] = []
    try:
        line["state"] = STATE_COMPILING
        with event.install_recorder("numba:compile") as recorder:
            stages += _build_all(place.stages, run)
            turn = _compiled_turn(run, slot, place, stages)
        line["kernels_compiled"] = sum(1 for _, happened in recorder.buffer if happened.is_start)
        line["state"] = STATE_READY
        gc.collect()
        gc.freeze()
        gc.disable()
        _wait_for_peers(run, leaving)
        line["state"] = STATE_LOOPING
        reason = _loop(turn, run.calibration, leaving, supervisor)
        line["reason"] = reason
    finally:
        _account(line)
        line["state"] = STATE_ENDED
        for stage in stages:
            stage.close()
    if reason < 0:
        _tell(errors_fd, explain(reason, stages))
        return EXIT_FAILED
    return EXIT_GOOD


def _introduce(line: np.record, place: Place) -> None:
    line["pid"] = os.getpid()
    line["cpu"] = place.cpu
    line["idle"] = place.idle
    raw = place.name.encode()
    line["name"][: len(raw)] = np.frombuffer(raw, np.uint8)


def _build_all(names: Sequence[str], run: Run) -> list[Stage]:
    """The stages in the loop's order. A venue in this process is made first, for the gateway connects to it."""
    built = {name: _build_patiently(name, run) for name in sorted(names, key=lambda name: name != "exchange")}
    return [built[name] for name in names]


def _build_patiently(name: str, run: Run) -> Stage:
    deadline = time.monotonic() + (CONNECT_PATIENCE_S if run.config.exchange is not None else 0)
    while True:
        try:
            return build(name, run)
        except ConnectionError:
            if time.monotonic() > deadline:
                raise
            time.sleep(0.02)


def _compiled_turn(run: Run, slot: int, place: Place, stages: Sequence[Stage]) -> Callable[[int], int]:
    """The loop as a function of the TSC to run until, compiled or loaded from the cache."""
    loop = loop_for([stage.step_module for stage in stages])
    instance = run.instance
    arguments: tuple[Any, ...] = (
        instance.processes.records[slot : slot + 1],
        instance.control.words()[0],
        run.calibration.clock(),
        place.idle,
    )
    states = tuple(stage.state for stage in stages)

    def turn(until_tsc: int) -> int:
        return loop(*arguments, until_tsc, *states)

    turn(0)
    return turn


def _wait_for_peers(run: Run, leaving: Callable[[], bool]) -> None:
    """Until every process is ready: a venue that still compiles would be silent long enough to be given up."""
    lines = run.instance.processes.records[: len(run.config.process)]
    control = run.instance.control.records
    while (lines["state"] < STATE_READY).any() and control["phase"][0] != PHASE_STOPPED and not leaving():
        time.sleep(0.002)


def _loop(turn: Callable[[int], int], calibration: Calibration, leaving: Callable[[], bool], supervisor: int) -> int:
    turn_ticks = int(TURN_NS * calibration.hz / 1e9)
    while True:
        reason = turn(lib.tp_rdtsc() + turn_ticks)
        if reason != TIME_UP:
            return reason
        if leaving() or os.getppid() != supervisor:
            return PHASE_STOPPED


def explain(reason: int, stages: Sequence[Stage]) -> str:
    """A loop's negative return value in words."""
    place, code = divmod(-reason, STAGE_REASONS)
    return stages[place].reasons.get(-code, f"the loop ended with reason={reason}")


def _handle_signals(supervisor: int) -> Callable[[], bool]:
    """Ctrl-C is the supervisor's to handle; SIGTERM, from it or from its death, ends the loop."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, note)
    lib.tp_die_with_parent(signal.SIGTERM)
    if os.getppid() != supervisor:
        asked.append(signal.SIGTERM)
    return lambda: bool(asked)


def _account(line: np.record) -> None:
    usage = resource.getrusage(resource.RUSAGE_SELF)
    line["minor_faults"] = usage.ru_minflt
    line["major_faults"] = usage.ru_majflt


def _tell(fd: int, text: str) -> None:
    os.write(fd, text.encode()[:60_000])
