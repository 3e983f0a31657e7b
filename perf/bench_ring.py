#!/usr/bin/env python
"""The ring beside its physical limit: a bare cache-line ping-pong in C between the same two CPUs, in the same two processes.

    round trip     ping ══ring══▶ pong        one message in flight
                   ping ◀══ring══ pong
    throughput     writer ══ring══▶ reader    as many as fit, the reader in batches

Messages are 64 bytes; all 56 payload bytes are written, and checked where they arrive. Ring and limit take turns in many short
runs, and figures are medians: a machine that wanders (a host that moves a virtual core, a neighbour) wanders under both. Hence
rtt_ratio is the median of each ring run over the limit run beside it.

limit_rtt_ns is one word a line and nothing else, with or without PAUSE in its spin loops, whichever was faster here.
line_rtt_ns writes and checks all 64 bytes of the same two lines over and over: nearer to what a ring does, on lines that never change.
"""

import ctypes
import mmap
import os
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from statistics import median
from typing import Any

import click
import numpy as np
import orjson

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from perf.hot.ring import ping, pong, read_stream, write_stream
from perf.machine import describe_pair
from shm._shim import lib
from shm.layout import LINE_BYTES
from shm.ring import RECOMMENDED_CAPACITY, Ring
from tools.machine import one_line

MESSAGE = np.dtype([("sequence", "u8"), *((name, "i8") for name in "abcdefg")])
CAPACITIES = (256, 1_024, 4_096, 16_384, RECOMMENDED_CAPACITY, 262_144)
CHUNK = 32
GIVE_UP_S = 900
NO_TICKS = np.zeros(0, np.int64)


@dataclass
class Task:
    """What the two processes do at the same time; both return 0 if every byte was right. `start` counts on from run to run."""

    here: Callable[[int, int], Any]
    there: Callable[[int, int], Any]
    size: int
    start: int = 1
    times_ns: list[float] = field(default_factory=list)

    def run(self, side: Callable[[int, int], Any]) -> None:
        first, self.start = self.start, self.start + self.size
        if side(first, self.size):
            raise RuntimeError("a message arrived with a wrong byte")


class Peer:
    """A second process, pinned, which runs its side of a task when told to."""

    def __init__(self, tasks: list[Task], cpus: tuple[int, int]) -> None:
        self.tasks = tasks
        command, self.command = os.pipe()
        self.answer, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.command)
            os.close(self.answer)
            self._serve(command, answer, cpus[1])
        os.close(command)
        os.close(answer)
        os.sched_setaffinity(0, {cpus[0]})

    def _serve(self, command: int, answer: int, cpu: int) -> None:
        code = 1
        try:
            lib.tp_die_with_parent(signal.SIGKILL)
            signal.alarm(GIVE_UP_S)
            os.sched_setaffinity(0, {cpu})
            while number := os.read(command, 1):
                os.write(answer, b"+")
                task = self.tasks[number[0]]
                task.run(task.there)
                os.write(answer, b".")
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def run(self, number: int) -> float:
        """Nanoseconds per unit of one run of a task."""
        task = self.tasks[number]
        os.write(self.command, bytes([number]))
        self._expect(b"+")
        started_ns = time.perf_counter_ns()
        task.run(task.here)
        elapsed_ns = time.perf_counter_ns() - started_ns
        self._expect(b".")
        task.times_ns.append(elapsed_ns / task.size)
        return task.times_ns[-1]

    def _expect(self, sign: bytes) -> None:
        if os.read(self.answer, 1) != sign:
            raise RuntimeError("the second process failed: see above")

    def close(self) -> None:
        os.close(self.command)
        os.close(self.answer)
        os.waitpid(self.pid, 0)


def take_turns(tasks: list[Task], cpus: tuple[int, int], runs: int) -> None:
    """Run the tasks one after another, `runs` times over; the first turn warms up and is not counted."""
    peer = Peer(tasks, cpus)
    try:
        for _ in range(runs + 1):
            for number in range(len(tasks)):
                peer.run(number)
    finally:
        peer.close()
    for task in tasks:
        del task.times_ns[0]


def compile_limit(folder: Path) -> ctypes.CDLL:
    """pingpong.c as a library. Pointers are addresses; every function returns 0 if all bytes were right."""
    library = folder / "pingpong.so"
    source = Path(__file__).with_name("pingpong.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))
    for name in ("tp_ping", "tp_pong", "tp_ping_line", "tp_pong_line"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_uint64] * 2 + [ctypes.c_int]
    for name in ("tp_write", "tp_read"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p] + [ctypes.c_uint64] * 3
    for name in ("tp_ping", "tp_pong", "tp_write"):
        getattr(loaded, name).restype = None
    return loaded


def shared_lines(count: int) -> int:
    """The address of `count` zeroed cache lines, shared with processes forked later. They live as long as the process."""
    mapping = mmap.mmap(-1, count * LINE_BYTES)
    KEPT.append(mapping)
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


KEPT: list[mmap.mmap] = []


def limit_round_trip(c: ctypes.CDLL, name: str, polite: int, rounds: int) -> Task:
    there = shared_lines(8)
    back = there + 4 * LINE_BYTES
    ping_c, pong_c = getattr(c, f"tp_ping{name}"), getattr(c, f"tp_pong{name}")
    return Task(
        lambda first, size: ping_c(there, back, first, size, polite), lambda first, size: pong_c(there, back, first, size, polite), rounds
    )


def make_ring(capacity: int) -> Ring:
    """A ring without a name by the time anything can go wrong: nothing is left behind."""
    ring = Ring.create(f"bench-ring-{os.getpid()}", capacity, {"message": MESSAGE}, ["reader"], first_position=1)
    ring.unlink()
    return ring


def ring_round_trip(capacity: int, rounds: int, ticks: np.ndarray = NO_TICKS) -> Task:
    out, back = make_ring(capacity), make_ring(capacity)
    out_end, out_reader = out.producer(MESSAGE), out.consumer("reader", MESSAGE)
    back_end, back_reader = back.producer(MESSAGE), back.consumer("reader", MESSAGE)
    ping(out_end, back_reader, 1, 0, ticks)
    pong(back_end, out_reader, 1, 0)
    return Task(
        lambda first, size: ping(out_end, back_reader, first, size, ticks),
        lambda first, size: pong(back_end, out_reader, first, size),
        rounds,
    )


def limit_stream(c: ctypes.CDLL, capacity: int, messages: int) -> Task:
    given_back = shared_lines(capacity + 8)
    lines, batch = given_back + 8 * LINE_BYTES, capacity // 8
    return Task(
        lambda first, size: c.tp_write(lines, capacity, given_back, first, size, CHUNK),
        lambda first, size: c.tp_read(lines, capacity, given_back, first, size, batch),
        messages,
        start=0,
    )


def ring_stream(capacity: int, messages: int) -> Task:
    ring, batch = make_ring(capacity), capacity // 8
    out, into = ring.producer(MESSAGE), ring.consumer("reader", MESSAGE)
    write_stream(out, 1, 0, CHUNK)
    read_stream(into, 1, 0, batch)
    return Task(
        lambda first, size: write_stream(out, first, size, CHUNK), lambda first, size: read_stream(into, first, size, batch), messages
    )


def measure_round_trip(c: ctypes.CDLL, cpus: tuple[int, int], runs: int, rounds: int) -> dict[str, Any]:
    word, polite_word = (limit_round_trip(c, "", polite, rounds) for polite in (0, 1))
    line = limit_round_trip(c, "_line", 1, rounds)
    ring = ring_round_trip(RECOMMENDED_CAPACITY, rounds)
    take_turns([word, polite_word, line, ring], cpus, runs)
    limit = min((word, polite_word), key=lambda task: median(task.times_ns))
    return {
        "rtt_ns": median(ring.times_ns),
        "limit_rtt_ns": median(limit.times_ns),
        "rtt_ratio": median(mine / its for mine, its in zip(ring.times_ns, limit.times_ns, strict=True)),
        "line_rtt_ns": median(line.times_ns),
        "rtt_ns_min": min(ring.times_ns),
        "limit_rtt_ns_min": min(limit.times_ns),
        "limit_spin": "plain" if limit is word else "pause",
    }


def measure_distribution(cpus: tuple[int, int], runs: int, rounds: int) -> dict[str, Any]:
    """Percentiles of single round trips. Reading the TSC once in each is included."""
    ticks = np.zeros(rounds, np.int64)
    task = ring_round_trip(RECOMMENDED_CAPACITY, rounds, ticks)
    trips: list[np.ndarray] = []
    here = task.here

    def stamped(first: int, size: int) -> Any:
        started_ns = time.perf_counter_ns()
        wrong = here(first, size)
        trips.append(ticks * ((time.perf_counter_ns() - started_ns) / int(ticks.sum())))
        return wrong

    task.here = stamped
    take_turns([task], cpus, runs)
    every = np.concatenate(trips[1:])
    shares = {"p50_ns": 50, "p99_ns": 99, "p999_ns": 99.9, "max_ns": 100}
    return {"round_trips": len(every), **{key: float(np.percentile(every, share)) for key, share in shares.items()}}


def measure_throughput(c: ctypes.CDLL, cpus: tuple[int, int], runs: int, rounds: int, messages: int) -> dict[str, Any]:
    """Million messages a second, one way: medians at the recommended size beside C, and a table by capacity."""
    ring, limit = ring_stream(RECOMMENDED_CAPACITY, messages), limit_stream(c, RECOMMENDED_CAPACITY, messages)
    take_turns([ring, limit], cpus, runs)
    table = []
    for capacity in CAPACITIES:
        one, trip = ring_stream(capacity, messages), ring_round_trip(capacity, rounds)
        take_turns([one, trip], cpus, max(3, runs // 4))
        table.append({"capacity": capacity, "throughput_mps": 1e3 / median(one.times_ns), "rtt_ns": median(trip.times_ns)})
    return {
        "throughput_mps": 1e3 / median(ring.times_ns),
        "limit_throughput_mps": 1e3 / median(limit.times_ns),
        "throughput_ratio": median(its / mine for mine, its in zip(ring.times_ns, limit.times_ns, strict=True)),
        "throughput_mps_max": 1e3 / min(ring.times_ns),
        "by_capacity": table,
    }


def text(result: dict[str, Any]) -> str:
    """The result for a person."""
    pair = result["machine"]
    lines = [
        f"{one_line(pair)}; CPUs {pair['pair'][0]} and {pair['pair'][1]}: {pair['distance']}",
        f"round trip   {result['rtt_ns']:7.1f} ns   bare ping-pong in C {result['limit_rtt_ns']:.1f} ns   ratio {result['rtt_ratio']:.3f}",
        f"             (64 bytes over two lines that never change, in C: {result['line_rtt_ns']:.1f} ns)",
        f"             p50 {result['p50_ns']:.0f}   p99 {result['p99_ns']:.0f}   p99.9 {result['p999_ns']:.0f}"
        f"   max {result['max_ns']:.0f} ns   ({result['round_trips']:,} round trips)",
        f"throughput   {result['throughput_mps']:7.1f} M messages/s   in C {result['limit_throughput_mps']:.1f}"
        f"   ratio {result['throughput_ratio']:.3f}   at {result['capacity']:,} slots",
        "    slots   M messages/s   round trip ns",
    ]
    rows = (f"{row['capacity']:9,} {row['throughput_mps']:14.1f} {row['rtt_ns']:15.1f}" for row in result["by_capacity"])
    return "\n".join([*lines, *rows])


def choose_cpus(asked: str | None) -> tuple[int, int]:
    """Two different CPUs that this process may use: those asked for, or the first two."""
    usable = sorted(os.sched_getaffinity(0))
    if asked is None:
        if len(usable) < 2:
            raise click.UsageError(f"cpus={usable}: a hop needs two CPUs, and this process may use one")
        return usable[0], usable[1]
    try:
        cpu, other = (int(number) for number in asked.split(","))
    except ValueError:
        raise click.UsageError(f"--cpus={asked}: expected two numbers, as in 2,3") from None
    if cpu == other or not {cpu, other} <= set(usable):
        raise click.UsageError(f"--cpus={asked}: expected two different CPUs of {usable}")
    return cpu, other


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--json", "json_path", default=None, help="Write the result here as JSON; '-' is standard output.")
@click.option("--cpus", default=None, help="The two CPUs, as in 2,3. Default: the first two this process may use.")
@click.option("--runs", default=201, show_default=True, type=click.IntRange(3), help="Short runs of each kind.")
@click.option("--rounds", default=2_000, show_default=True, type=click.IntRange(100), help="Round trips in a run.")
@click.option("--messages", default=1 << 19, show_default=True, type=int, help="Messages in a throughput run: a multiple of 32,768.")
def main(json_path: str | None, cpus: str | None, runs: int, rounds: int, messages: int) -> None:
    pair = choose_cpus(cpus)
    if messages < 1 or messages % (max(CAPACITIES) // 8):
        raise click.UsageError(f"--messages={messages}: expected a multiple of {max(CAPACITIES) // 8}")
    signal.alarm(GIVE_UP_S)
    machine = describe_pair(*pair)
    with tempfile.TemporaryDirectory() as folder:
        try:
            c = compile_limit(Path(folder))
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.UsageError(f"pingpong.c cannot be compiled, is gcc installed? {error}") from None
        result = {
            **measure_round_trip(c, pair, runs, rounds),
            **measure_distribution(pair, max(3, runs // 4), rounds),
            **measure_throughput(c, pair, runs, rounds, messages),
            "capacity": RECOMMENDED_CAPACITY,
            "message_bytes": MESSAGE.itemsize,
            "runs": runs,
            "rounds": rounds,
            "messages": messages,
            "machine": machine,
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
        print(f"bench_ring: {error}", file=sys.stderr)
        sys.exit(3)
