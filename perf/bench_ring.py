"""The ring beside its physical limit: a bare cache-line ping-pong in C between the same two CPUs, in the same two processes.

    round trip     ping ══ring══▶ pong        one message in flight
                   ping ◀══ring══ pong
    throughput     writer ══ring══▶ reader    as many as fit, the reader in batches

Messages are 64 bytes; all 56 payload bytes are written, and checked where they arrive. Ring and limit take turns in many short
runs, and figures are medians: a machine that wanders (a host that moves a virtual core, a neighbour) wanders under both. Hence
rtt_ratio is the median of each ring run over the limit run beside it.

limit_rtt_ns is one word a line and nothing else, with or without PAUSE in its spin loops, whichever was faster here.
line_rtt_ns writes and checks all 64 bytes of the same two lines over and over. lines_rtt_ns does so on as many lines as the ring has slots,
in turn, as any queue must that holds more than one message: what lies between the two is the caches' share, and the rest is the ring's.
observed_rtt_ratio is rtt_ratio while an observer and a slow gating reader look at every message, from a third CPU where there is one.
"""

import ctypes
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click
import numpy as np
import orjson

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from perf.costs import EXPLAINED, measure_costs
from perf.machine import describe_pair
from perf.peers import PYTHON_CAPACITY, measure_boost, measure_iceoryx2
from perf.tasks import (
    MESSAGE,
    PYTHON_BATCH,
    compile_limit,
    limit_round_trip,
    limit_stream,
    lines_round_trip,
    python_round_trip,
    python_stream,
    ring_round_trip,
    ring_stream,
    watched_round_trip,
    wide_round_trip,
    wide_stream,
)
from perf.turns import GIVE_UP_S, Side, ratio, take_turns
from shm.layout import LINE_BYTES
from shm.ring import RECOMMENDED_CAPACITY
from tools.machine import one_line

CAPACITIES = (256, 1_024, 4_096, 16_384, RECOMMENDED_CAPACITY, 262_144)
PYTHON_CAPACITIES = (4_096, 16_384, RECOMMENDED_CAPACITY)
RECORD_LINES = (2, 3, 4)
# Python is timed in a fraction of the runs: each of its messages takes as long as ten.
PYTHON_SHARE = 4


def measure_round_trip(c: ctypes.CDLL, cpus: Sequence[int], runs: int, rounds: int) -> dict[str, Any]:
    word, polite_word = (limit_round_trip(c, polite, rounds) for polite in (0, 1))
    line, lines = (lines_round_trip(c, count, rounds) for count in (1, RECOMMENDED_CAPACITY))
    ring = ring_round_trip(RECOMMENDED_CAPACITY, rounds)
    watched = watched_round_trip(RECOMMENDED_CAPACITY, rounds, own_cpu=len(cpus) > 2)
    take_turns([word, polite_word, line, lines, ring, watched], cpus, runs)
    limit = min((word, polite_word), key=lambda task: task.typical_ns)
    return {
        "rtt_ns": ring.typical_ns,
        "limit_rtt_ns": limit.typical_ns,
        "rtt_ratio": ratio(ring, limit),
        "line_rtt_ns": line.typical_ns,
        "lines_rtt_ns": lines.typical_ns,
        "lines_rtt_ratio": ratio(ring, lines),
        "rtt_ns_min": min(ring.times_ns),
        "limit_rtt_ns_min": min(limit.times_ns),
        "limit_spin": "plain" if limit is word else "pause",
        "observed_rtt_ns": watched.typical_ns,
        "observed_rtt_ratio": ratio(watched, limit),
        "observed_from": f"CPU {cpus[2]}" if len(cpus) > 2 else "pong's CPU, after each answer",
    }


def measure_distribution(cpus: Sequence[int], runs: int, rounds: int) -> dict[str, Any]:
    """Percentiles of single round trips. Reading the TSC once in each is included."""
    ticks = np.zeros(rounds, np.int64)
    task = ring_round_trip(RECOMMENDED_CAPACITY, rounds, ticks)
    trips: list[np.ndarray] = []
    open_here = task.here

    @contextmanager
    def stamped() -> Iterator[Side]:
        with open_here() as here:

            def run(first: int, size: int) -> Any:
                started_ns = time.perf_counter_ns()
                wrong = here(first, size)
                trips.append(ticks * ((time.perf_counter_ns() - started_ns) / int(ticks.sum())))
                return wrong

            yield run

    task.here = stamped
    take_turns([task], cpus, runs)
    every = np.concatenate(trips[1:])
    shares = {"p50_ns": 50, "p99_ns": 99, "p999_ns": 99.9, "max_ns": 100}
    return {"round_trips": len(every), **{key: float(np.percentile(every, share)) for key, share in shares.items()}}


def measure_throughput(c: ctypes.CDLL, cpus: Sequence[int], runs: int, rounds: int, messages: int) -> dict[str, Any]:
    """Million messages a second, one way: medians at the recommended size beside C, and a table by capacity."""
    ring, limit = ring_stream(RECOMMENDED_CAPACITY, messages), limit_stream(c, RECOMMENDED_CAPACITY, messages)
    take_turns([ring, limit], cpus, runs)
    table = []
    for capacity in CAPACITIES:
        one, trip = ring_stream(capacity, messages), ring_round_trip(capacity, rounds)
        take_turns([one, trip], cpus, max(3, runs // 4))
        table.append({"capacity": capacity, "throughput_mps": 1e3 / one.typical_ns, "rtt_ns": trip.typical_ns})
    return {
        "throughput_mps": 1e3 / ring.typical_ns,
        "limit_throughput_mps": 1e3 / limit.typical_ns,
        "throughput_ratio": ratio(limit, ring),
        "throughput_mps_max": 1e3 / min(ring.times_ns),
        "by_capacity": table,
    }


def measure_records(cpus: Sequence[int], runs: int, rounds: int, messages: int) -> list[dict[str, Any]]:
    """Records of several lines, beside those of one, in rings of the same bytes."""
    table = []
    for lines in RECORD_LINES:
        capacity = 1 << (RECOMMENDED_CAPACITY // lines).bit_length() - 1
        one, trip = ring_round_trip(capacity, rounds), wide_round_trip(lines, capacity, rounds)
        single, stream = ring_stream(capacity, messages), wide_stream(lines, capacity, messages)
        take_turns([one, trip, single, stream], cpus, max(3, runs // 4))
        table.append(
            {
                "record_bytes": lines * LINE_BYTES,
                "capacity": capacity,
                "rtt_ns": trip.typical_ns,
                "rtt_of_64_bytes": ratio(trip, one),
                "throughput_mps": 1e3 / stream.typical_ns,
                "throughput_of_64_bytes": ratio(single, stream),
            }
        )
    return table


def measure_python(cpus: Sequence[int], runs: int, rounds: int, messages: int) -> dict[str, Any]:
    """Plain Python at both ends."""
    trip = python_round_trip(PYTHON_CAPACITY, rounds)
    streams = [python_stream(capacity, messages) for capacity in PYTHON_CAPACITIES]
    take_turns([trip, *streams], cpus, max(3, runs // PYTHON_SHARE))
    best = min(streams, key=lambda task: task.typical_ns)
    return {
        "python_rtt_ns": trip.typical_ns,
        "python_rtt_ns_min": min(trip.times_ns),
        "python_batch_mps": 1e3 / best.typical_ns,
        "python_batch_capacity": PYTHON_CAPACITIES[streams.index(best)],
    }


def text(result: dict[str, Any]) -> str:
    """The result for a person."""
    pair = result["machine"]
    lines = [
        f"{one_line(pair)}; CPUs {pair['pair'][0]} and {pair['pair'][1]}: {pair['distance']}",
        f"round trip   {result['rtt_ns']:7.1f} ns   bare ping-pong in C {result['limit_rtt_ns']:.1f} ns   ratio {result['rtt_ratio']:.3f}",
        f"             64 bytes in C, on two lines that never change: {result['line_rtt_ns']:.1f} ns"
        f"   on {result['capacity']:,} in turn: {result['lines_rtt_ns']:.1f} ns   ratio {result['lines_rtt_ratio']:.3f}",
        f"             p50 {result['p50_ns']:.0f}   p99 {result['p99_ns']:.0f}   p99.9 {result['p999_ns']:.0f}"
        f"   max {result['max_ns']:.0f} ns   ({result['round_trips']:,} round trips)",
        f"watched      {result['observed_rtt_ns']:7.1f} ns   by an observer and a slow reader on {result['observed_from']}"
        f"   ratio {result['observed_rtt_ratio']:.3f}",
        f"throughput   {result['throughput_mps']:7.1f} M messages/s   in C {result['limit_throughput_mps']:.1f}"
        f"   ratio {result['throughput_ratio']:.3f}   at {result['capacity']:,} slots",
        "    slots   M messages/s   round trip ns",
    ]
    lines += (f"{row['capacity']:9,} {row['throughput_mps']:14.1f} {row['rtt_ns']:15.1f}" for row in result["by_capacity"])
    lines.append("record bytes   round trip ns (to 64 bytes)   M messages/s (to 64 bytes)")
    lines += (
        f"{row['record_bytes']:12} {row['rtt_ns']:15.1f} {row['rtt_of_64_bytes']:13.2f} {row['throughput_mps']:14.1f}"
        f" {row['throughput_of_64_bytes']:13.2f}"
        for row in result["records"]
    )
    lines.append(
        f"plain Python round trip {result['python_rtt_ns']:.0f} ns, by the array {result['python_batch_mps']:.1f} M messages/s"
        f" at {result['python_batch_capacity']:,} slots"
    )
    lines += (
        f"beside {name}: " + ", ".join(f"{key} {_short(value)}" for key, value in peer.items()) for name, peer in result["peers"].items()
    )
    lines += (f"{key:18} {value:10.4g}   {EXPLAINED[key]}" for key, value in result["costs"].items())
    return "\n".join(lines)


def _short(value: Any) -> str:
    return f"{value:,.4g}" if isinstance(value, float) else str(value)


def choose_cpus(asked: str | None) -> tuple[int, ...]:
    """Different CPUs that this process may use: those asked for, or the first two; and another one to watch from, where there is one."""
    usable = sorted(os.sched_getaffinity(0))
    if asked is None:
        if len(usable) < 2:
            raise click.UsageError(f"cpus={usable}: a hop needs two CPUs, and this process may use one")
        return tuple(usable[:3])
    try:
        cpu, other = (int(number) for number in asked.split(","))
    except ValueError:
        raise click.UsageError(f"--cpus={asked}: expected two numbers, as in 2,3") from None
    if cpu == other or not {cpu, other} <= set(usable):
        raise click.UsageError(f"--cpus={asked}: expected two different CPUs of {usable}")
    return (cpu, other, *[third for third in usable if third not in (cpu, other)][:1])


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--json", "json_path", default=None, help="Write the result here as JSON; '-' is standard output.")
@click.option("--cpus", default=None, help="The two CPUs, as in 2,3. Default: the first two this process may use.")
@click.option("--runs", default=201, show_default=True, type=click.IntRange(3), help="Short runs of each kind.")
@click.option("--rounds", default=2_000, show_default=True, type=click.IntRange(100), help="Round trips in a run.")
@click.option("--messages", default=1 << 19, show_default=True, type=int, help="Messages in a throughput run: a multiple of 32,768.")
@click.option("--quick", is_flag=True, help="As short as can be: to see that it runs.")
def main(json_path: str | None, cpus: str | None, runs: int, rounds: int, messages: int, quick: bool) -> None:
    if quick:
        runs, rounds, messages = 3, 200, max(CAPACITIES) // 8
    chosen = choose_cpus(cpus)
    if messages < 1 or messages % (max(CAPACITIES) // 8):
        raise click.UsageError(f"--messages={messages}: expected a multiple of {max(CAPACITIES) // 8}")
    signal.alarm(GIVE_UP_S)
    machine = describe_pair(*chosen[:2])
    with tempfile.TemporaryDirectory() as folder:
        try:
            c = compile_limit(Path(folder))
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.UsageError(f"pingpong.c cannot be compiled, is gcc installed? {error}") from None
        result = {
            **measure_round_trip(c, chosen, runs, rounds),
            **measure_distribution(chosen, max(3, runs // 4), rounds),
            **measure_throughput(c, chosen, runs, rounds, messages),
            "records": measure_records(chosen, runs, rounds, messages),
            **measure_python(chosen, runs, rounds, messages),
            "costs": measure_costs(max(3, runs // 2)),
            "capacity": RECOMMENDED_CAPACITY,
            "message_bytes": MESSAGE.itemsize,
            "python_batch": PYTHON_BATCH,
            "runs": runs,
            "rounds": rounds,
            "messages": messages,
            "machine": machine,
        }
        best = max(result["by_capacity"], key=lambda row: row["throughput_mps"])["capacity"]
        result["peers"] = {
            "boost": measure_boost(Path(folder), chosen, runs, messages, CAPACITIES, best),
            "iceoryx2": measure_iceoryx2(chosen, max(3, runs // PYTHON_SHARE), rounds),
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
