#!/usr/bin/env python
"""What real-time scheduling, locked memory and pinning do for the slowest round trips over two rings.

    none     both processes where the scheduler puts them, as ordinary processes
    pinned   each on a CPU of its own
    tuned    pinned, memory locked (mlockall), SCHED_FIFO below the priority of threaded interrupts

Quiet, and beside busy ordinary processes, one for each CPU of ours (`load`): there it shows who has to wait. The kinds take turns
in short runs, each run in two fresh processes, so a machine that wanders wanders under all of them; ratios are of figures of one
call. A run ends after half a second whatever happens, and the processes sleep between runs, so a real-time spinner never has a
CPU for long enough to starve the kernel's own threads; kernel.sched_rt_runtime_us stays as it is.
"""

import mmap
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import orjson

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from engine.runtime.clock import calibrate
from perf.bench_ring import MESSAGE, choose_cpus
from perf.hot.bounded import WRONG, ping_until, pong_until
from perf.machine import describe_pair
from shm._shim import lib
from shm.ring import Ring
from tools import cpus as numbers
from tools.machine import one_line

CAPACITY = 1_024
# Before the clock runs: each slot once, so that no first touch of a page is timed.
WARM_UP = 2 * CAPACITY
RUN_S_MAX = 0.5
BETWEEN_S = 0.01
# Threaded interrupts run at 50: they must get past us.
PRIORITY = 10
GIVE_UP_S = 20


@dataclass(frozen=True)
class Kind:
    """How the two processes of a run are placed."""

    pinned: bool = False
    locked: bool = False
    real_time: bool = False


KINDS = {"none": Kind(), "pinned": Kind(pinned=True), "tuned": Kind(pinned=True, locked=True, real_time=True)}


@dataclass(frozen=True)
class Run:
    """Round trips in TSC ticks, and whether all of them were made in time."""

    ticks: np.ndarray
    whole: bool


def ends(into: Ring, to: Ring) -> tuple[Any, Any]:
    """What kernels read from and write to, taken in the process that uses them."""
    reader, writer = into.consumer("reader", MESSAGE), to.producer(MESSAGE)
    return getattr(reader, "end", reader), getattr(writer, "end", writer)


def run_pair(kind: Kind, cpus: tuple[int, int], rounds: int, hz: float) -> Run:
    """One run in two fresh processes. RuntimeError where one failed, with its reason on stderr."""
    shared = np.frombuffer(mmap.mmap(-1, 8 * (rounds + WARM_UP + 1)), np.int64)
    ticks, done = shared[:-1], shared[-1:]
    rings = [
        Ring.create(f"bench-tuned-{os.getpid()}-{way}", CAPACITY, {"message": MESSAGE}, ["reader"], first_position=1)
        for way in ("out", "back")
    ]
    out, back = rings
    ready_read, ready = os.pipe()
    go, go_write = os.pipe()

    def prepare(cpu: int) -> None:
        if kind.pinned:
            numbers.run_on(cpu)
        if kind.locked and (code := lib.tp_lock_memory()):
            raise PermissionError(code, f"mlockall: {os.strerror(code)}: run as root, or raise the memlock limit")

    def start() -> int:
        os.write(ready, b"+")
        if os.read(go, 1) != b"+":
            os._exit(1)
        if kind.real_time:
            os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(PRIORITY))
        return int(lib.tp_rdtsc() + RUN_S_MAX * hz)

    def ping() -> None:
        prepare(cpus[0])
        into, to = ends(back, out)
        ping_until(to, into, 1, ticks[:0], 0)
        done[0] = ping_until(to, into, 1, ticks, start())

    def pong() -> None:
        prepare(cpus[1])
        into, to = ends(out, back)
        pong_until(to, into, 1, 0, 0)
        if pong_until(to, into, 1, len(ticks), start()) == WRONG:
            raise RuntimeError("a message arrived with a wrong byte")

    children: list[int] = []
    try:
        children += [fork_into(side, (ready_read, go_write)) for side in (ping, pong)]
        os.close(ready)
        ready = -1
        if _read_all(ready_read, 2) == 2:
            for ring in rings:
                ring.unlink()
            os.write(go_write, b"++")
        failed = [os.waitpid(children.pop(0), 0)[1] for _ in range(2)]
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)
        for end in (ready_read, go, go_write, ready):
            if end >= 0:
                os.close(end)
        for ring in rings:
            with suppress(OSError):
                ring.unlink()
            ring.detach()
    if any(failed) or done[0] == WRONG:
        raise RuntimeError("a run failed: see above")
    made = int(done[0])
    # Of a run cut short the last trip counts as long as it was waited for, even if the run never got warm.
    return Run(ticks[min(WARM_UP, made) : made + 1].copy(), made == len(ticks))


def _read_all(fd: int, count: int) -> int:
    got = 0
    while got < count and (signs := os.read(fd, count - got)):
        got += len(signs)
    return got


def fork_into(side: Callable[[], None], closing: tuple[int, ...] = ()) -> int:
    """The pid of a process that does `side` and ends, with its parent if not before."""
    parent = os.getpid()
    pid = os.fork()
    if pid:
        return pid
    code = 1
    try:
        lib.tp_die_with_parent(signal.SIGKILL)
        if os.getppid() != parent:
            os._exit(1)
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM):
            signal.signal(number, signal.SIG_DFL)
        signal.alarm(GIVE_UP_S)
        for end in closing:
            os.close(end)
        side()
        code = 0
    except OSError as error:
        print(f"bench_tuned_ring: {error.strerror if isinstance(error, PermissionError) else error}", file=sys.stderr)
    except BaseException:
        traceback.print_exc()
    finally:
        sys.stderr.flush()
        os._exit(code)
    return 0


def end_in_order() -> None:
    """Ended by SIGTERM or SIGHUP, remove the names of the rings as with Ctrl-C."""
    for number in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(number, lambda number, _: sys.exit(128 + number))


@contextmanager
def busy(count: int) -> Iterator[None]:
    """So many ordinary processes that always want a CPU."""
    children: list[int] = []

    def work() -> None:
        signal.alarm(0)
        while True:
            pass

    try:
        for _ in range(count):
            children.append(fork_into(work))
        yield
    finally:
        for child in children:
            os.kill(child, signal.SIGKILL)
            os.waitpid(child, 0)


def figures(runs: list[Run], hz: float) -> dict[str, Any]:
    """Percentiles in nanoseconds over all round trips of all runs. Reading the TSC once in each is included."""
    every = np.concatenate([run.ticks for run in runs]) * (1e9 / hz)
    shares = {"p50_ns": 50, "p99_ns": 99, "p999_ns": 99.9, "max_ns": 100}
    result = {key: round(float(np.percentile(every, share)), 1) for key, share in shares.items()}
    return {"round_trips": len(every), "runs": len(runs), "runs_cut_short": sum(not run.whole for run in runs), **result}


def measure(cpus: tuple[int, int], kinds: dict[str, Kind], turns: int, rounds: int, load: int, hz: float) -> dict[str, Any]:
    """The kinds in turns, beside `load` busy processes; figures of each, and each one's p99.9 over that of the first."""
    runs: dict[str, list[Run]] = {name: [] for name in kinds}
    with busy(load):
        for _ in range(turns):
            for name, kind in kinds.items():
                runs[name].append(run_pair(kind, cpus, rounds, hz))
                time.sleep(BETWEEN_S)
    first = next(iter(kinds))
    result: dict[str, Any] = {name: figures(done, hz) for name, done in runs.items()}
    for name, done in runs.items():
        result[name]["p999_ratio"] = round(result[name]["p999_ns"] / result[first]["p999_ns"], 6)
        single = [_p999(mine) / _p999(other) for mine, other in zip(done, runs[first], strict=True)]
        result[name]["p999_ratio_median_of_runs"] = round(median(single), 6)
    return {"busy_processes": load, **result}


def _p999(run: Run) -> float:
    return float(np.percentile(run.ticks, 99.9))


def text(result: dict[str, Any]) -> str:
    """The result for a person."""
    pair = result["machine"]
    lines = [f"{one_line(pair)}; CPUs {pair['pair'][0]} and {pair['pair'][1]}: {pair['distance']}"]
    for measured in result["measured"]:
        count = measured["busy_processes"]
        lines.append(f"\nround trips over two rings, ns, {f'beside {count} busy processes' if count else 'quiet'}")
        lines.append("              p50        p99      p99.9          max   p99.9 / none   runs cut short")
        for name in KINDS:
            row = measured[name]
            lines.append(
                f"{name:8} {row['p50_ns']:8,.0f} {row['p99_ns']:10,.0f} {row['p999_ns']:10,.0f} {row['max_ns']:12,.0f}"
                f" {row['p999_ratio']:14.5f} {row['runs_cut_short']:10} of {row['runs']}"
            )
    return "\n".join(lines)


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--json", "json_path", default=None, help="Write the result here as JSON; '-' is standard output.")
@click.option("--cpus", default=None, help="The two CPUs, as in 2,3. Default: the first two this process may use.")
@click.option("--turns", default=30, show_default=True, type=click.IntRange(1), help="Runs of each kind.")
@click.option("--rounds", default=10_000, show_default=True, type=click.IntRange(100, 10_000_000), help="Round trips in a run.")
@click.option("--load", type=click.IntRange(0, 1_024), help="Busy processes in the second half. Default: one for each of our CPUs.")
def main(json_path: str | None, cpus: str | None, turns: int, rounds: int, load: int | None) -> None:
    end_in_order()
    first, second = choose_cpus(cpus)[:2]
    pair = (first, second)
    hz = calibrate().hz
    busy_count = len(os.sched_getaffinity(0)) if load is None else load
    result = {
        "measured": [measure(pair, KINDS, turns, rounds, count, hz) for count in dict.fromkeys((0, busy_count))],
        "rounds": rounds,
        "priority": PRIORITY,
        "rt_runtime_us": numbers.read_text(Path("/proc/sys/kernel/sched_rt_runtime_us")),
        "machine": describe_pair(*pair),
    }
    if json_path == "-":
        click.echo(orjson.dumps(result, option=orjson.OPT_INDENT_2))
        return
    if json_path:
        Path(json_path).write_bytes(orjson.dumps(result, option=orjson.OPT_INDENT_2))
    click.echo(text(result))


if __name__ == "__main__":
    try:
        main()
    except RuntimeError as error:
        print(f"bench_tuned_ring: {error}", file=sys.stderr)
        sys.exit(3)
