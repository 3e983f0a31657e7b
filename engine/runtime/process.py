"""One process of an instance, from the fork to its exit code."""

import gc
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
from numba.core import event

from engine.layout import PHASE_STOPPED, STATE_COMPILING, STATE_ENDED, STATE_LOOPING, STATE_READY
from engine.runtime import orphan, settings
from engine.runtime.clock import Calibration
from engine.runtime.config import ConfigError, MachineConfig, ProcessConfig
from engine.runtime.cpus import latency_set
from engine.runtime.hot import STAGE_REASONS, TIME_UP
from engine.runtime.loop import loop_for
from engine.runtime.placement import Place
from engine.runtime.stages import AttendedStage, Run, Stage, build
from engine.strategy.errors import StrategyError
from shm._shim import lib

# How long a kernel keeps the process between two looks at signals and at the parent.
TURN_NS = 5_000_000

EXIT_GOOD, EXIT_MISUSE, EXIT_FAILED = 0, 2, 3

# An exchange that is still being built refuses connections; one that is not there after this long is not coming.
CONNECT_PATIENCE_S = 20.0


@dataclass(frozen=True)
class Words:
    """Pipes to the supervisor: what ended this process, and what it should tell the user but can live with."""

    errors_fd: int
    notes_fd: int


def start(run: Run, slot: int, place: Place, words: Words, supervisor: int) -> None:
    """The child's side of the fork: never returns. What went wrong is written to words.errors_fd for the supervisor to show."""
    code, errors_fd = EXIT_FAILED, words.errors_fd
    try:
        code = _run(run, slot, place, words, supervisor)
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


def _run(run: Run, slot: int, place: Place, words: Words, supervisor: int) -> int:
    leaving = _handle_signals(supervisor)
    tuned = Tuned(run.config.process[slot], run.config.machine, place, words.notes_fd)
    tuned.settle_in()
    line = run.instance.processes.records[slot]
    _introduce(line, place)
    stages: list[Stage] = []
    try:
        line["state"] = STATE_COMPILING
        with event.install_recorder("numba:compile") as recorder:
            stages += _build_all(place.stages, run)
            run.logins.close()
            for stage in stages:
                for sentence in getattr(stage, "shortfalls", ()):
                    _tell(words.notes_fd, f"{sentence}\n")
            turn = _compiled_turn(run, slot, place, stages)
        line["kernels_compiled"] = sum(1 for _, happened in recorder.buffer if happened.is_start)
        gc.collect()
        gc.freeze()
        gc.disable()
        tuned.settle_down(line)
        line["state"] = STATE_READY
        _wait_for_peers(run, leaving)
        line["state"] = STATE_LOOPING
        turn = _attended(_beating(turn, stages), stages)
        reason = _loop(turn, run.calibration, leaving, supervisor, line)
        if os.getppid() != supervisor:
            reason = orphan.settle(run, place.stages, turn, reason)
            orphan.name_what_is_open(run, place.stages)
        line["reason"] = reason
    finally:
        _account(line)
        line["state"] = STATE_ENDED
        for stage in stages:
            stage.close()
    if reason < 0:
        _tell(words.errors_fd, explain(reason, stages))
        return EXIT_FAILED
    return EXIT_GOOD


class Tuned:
    """The process's own settings, in the two steps in which they can be made. ConfigError where one must be and was refused."""

    def __init__(self, process: ProcessConfig, machine: MachineConfig, place: Place, notes_fd: int) -> None:
        self.process = process
        self.machine = machine
        self.place = place
        self.notes_fd = notes_fd
        self.entered = False

    def settle_in(self) -> None:
        """Pin, before anything is touched, so that memory comes from the CPU's own node."""
        try:
            self._enter_latency_set()
            os.sched_setaffinity(0, {self.place.cpu})
        except OSError as error:
            raise ConfigError(
                f"process {self.process.name}: cpu={self.place.cpu}: it cannot be pinned there ({error.strerror}): "
                "the CPU is offline, or a cpuset does not have it"
            ) from None
        self._say(settings.settle(settings.before_memory(self.process, self.machine, self.place.cpu)))

    def settle_down(self, line: np.record) -> None:
        """When all is built: touch, lock, and take the priority; then read everything back into the record."""
        asked = settings.before_loop(self.process, self.machine)
        self._say(settings.settle(asked))
        prefaulted = any(setting.key == "prefault" and setting.got() for setting in asked)
        settings.read_back(line, prefaulted=prefaulted or settings.locked(), latency_set=self.entered)

    def _enter_latency_set(self) -> None:
        found = latency_set()
        if found is not None and self.place.cpu in found.cpus and self.place.cpu not in os.sched_getaffinity(0):
            found.enter()
            self.entered = True

    def _say(self, refused: Iterable[str]) -> None:
        sentences = list(refused)
        if sentences and self.machine.when_refused == "stop":
            raise ConfigError(f"process {self.process.name}: " + "; ".join(sentences) + " (machine.when_refused=stop)")
        for sentence in sentences:
            _tell(self.notes_fd, sentence + "\n")


def _introduce(line: np.record, place: Place) -> None:
    line["pid"] = os.getpid()
    line["cpu"] = place.cpu
    line["idle"] = place.idle
    raw = place.name.encode()
    # What ps, top and `tickpath rings` call it; the kernel keeps 15 bytes.
    Path("/proc/self/comm").write_bytes(raw[:15])
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


def _loop(turn: Callable[[int], int], calibration: Calibration, leaving: Callable[[], bool], supervisor: int, line: np.record) -> int:
    turn_ticks = int(TURN_NS * calibration.hz / 1e9)
    before = resource.getrusage(resource.RUSAGE_SELF)
    reason = TIME_UP
    while reason == TIME_UP:
        reason = turn(lib.tp_rdtsc() + turn_ticks)
        if reason == TIME_UP and (leaving() or os.getppid() != supervisor):
            reason = PHASE_STOPPED
    after = resource.getrusage(resource.RUSAGE_SELF)
    line["loop_minor_faults"] = after.ru_minflt - before.ru_minflt
    line["loop_major_faults"] = after.ru_majflt - before.ru_majflt
    line["loop_waits"] = after.ru_nvcsw - before.ru_nvcsw
    line["loop_forced"] = after.ru_nivcsw - before.ru_nivcsw
    return reason


def _beating(turn: Callable[[int], int], stages: Sequence[Stage]) -> Callable[[int], int]:
    """A turn after which every ring end of this process shows that it lives: one that hangs in a kernel does not."""
    roles = [role for stage in stages for role in stage.roles]

    def beaten(until_tsc: int) -> int:
        reason = turn(until_tsc)
        for role in roles:
            role.beat()
        return reason

    return beaten


def _attended(turn: Callable[[int], int], stages: Sequence[Stage]) -> Callable[[int], int]:
    """A turn after which stages do what only Python can; none of them waits for anything."""
    attends = [stage.attend for stage in stages if isinstance(stage, AttendedStage)]

    def attended(until_tsc: int) -> int:
        reason = turn(until_tsc)
        for attend in attends:
            attend()
        return reason

    return attended if attends else turn


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
