"""Others that move messages between two processes, each as its own documentation has it, on the same CPUs and in the same turns.

boost       boost::lockfree::spsc_queue (perf/peer_boost.cpp), compiled here: throughput, each at its best capacity
iceoryx2    its Python package: the round trip of a 64-byte ctypes structure

What is not installed is told, not measured.
"""

import ctypes
import json
import os
import subprocess
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from statistics import median
from typing import Any

from perf.tasks import python_round_trip, ring_stream
from perf.turns import Opener, Side, Task, ratio, take_turns

try:
    import iceoryx2
except ImportError:
    iceoryx2 = None

PYTHON_CAPACITY = 1_024
# Theirs starts processes, so it is timed in a fraction of the runs.
BOOST_SHARE = 20


class Message(ctypes.Structure):
    """64 bytes; type_name is what the service is checked by."""

    _fields_ = [(name, ctypes.c_int64) for name in "abcdefgh"]


def measure_boost(
    folder: Path, cpus: Sequence[int], runs: int, messages: int, capacities: Sequence[int], our_capacity: int
) -> dict[str, Any]:
    """Million messages a second one way, each at its best capacity, and theirs at the best of its ways to be used; in turns."""
    program = folder / "peer_boost"
    source = Path(__file__).with_name("peer_boost.cpp")
    command = ["g++", "-std=c++17", "-O3", "-march=native", str(source), "-o", str(program), "-pthread"]
    try:
        subprocess.run(command, check=True, capture_output=True, text=True)
    except FileNotFoundError:
        return {"absent": "g++ is not installed"}
    except subprocess.CalledProcessError as error:
        missing = "boost/lockfree" in error.stderr
        return {"absent": "boost is not installed (libboost-dev)" if missing else f"peer_boost.cpp: {error.stderr.splitlines()[0]}"}
    theirs = {capacity: _run_boost(program, cpus, capacity, messages) for capacity in capacities}
    their_capacity = max(capacities, key=lambda capacity: theirs[capacity]["best_mps"])
    pairs = []
    for _ in range(max(3, runs // BOOST_SHARE)):
        ours = ring_stream(our_capacity, messages)
        take_turns([ours], cpus, 9)
        pairs.append((1e3 / ours.typical_ns, _run_boost(program, cpus, their_capacity, messages)["best_mps"]))
    return {
        "throughput_mps": median(their for _, their in pairs),
        "way": theirs[their_capacity]["best"],
        "capacity": their_capacity,
        "one_by_one_mps": max(run["single_mps"] for run in theirs.values()),
        "ours_mps": median(mine for mine, _ in pairs),
        "ours_capacity": our_capacity,
        "ratio": median(mine / their for mine, their in pairs),
    }


def _run_boost(program: Path, cpus: Sequence[int], capacity: int, messages: int) -> dict[str, Any]:
    """Million messages a second of each way to use the queue (perf/peer_boost.cpp)."""
    arguments = [str(program), *map(str, cpus[:2]), str(messages), str(capacity)]
    finished = subprocess.run(arguments, capture_output=True, text=True)
    if finished.returncode:
        raise RuntimeError(f"peer_boost: {finished.stderr.strip()}")
    return dict(json.loads(finished.stdout))


def measure_iceoryx2(cpus: Sequence[int], runs: int, rounds: int) -> dict[str, Any]:
    """Plain Python to plain Python, ours beside theirs."""
    if iceoryx2 is None:
        return {"absent": "the iceoryx2 Python package is not installed (requirements-dev.txt)"}
    with tempfile.TemporaryDirectory() as folder:
        prefix = f"bench{os.getpid()}_"
        try:
            theirs, ours = _iceoryx2_round_trip(folder, prefix, rounds), python_round_trip(PYTHON_CAPACITY, rounds)
            take_turns([theirs, ours], cpus, runs)
        finally:
            # A process that ends without ceremony leaves what it shared.
            for left in Path("/dev/shm").glob(f"{prefix}*"):
                left.unlink()
    return {"python_rtt_ns": theirs.typical_ns, "ours_ns": ours.typical_ns, "ratio": ratio(theirs, ours)}


def _iceoryx2_round_trip(folder: str, prefix: str, rounds: int) -> Task:
    iceoryx2.set_log_level(iceoryx2.LogLevel.Fatal)
    config = iceoryx2.config.default()
    config.global_cfg.prefix = iceoryx2.FileName.new(prefix)
    config.global_cfg.root_path = iceoryx2.Path.new(folder)

    def ports(listens_to: str, speaks_to: str) -> tuple[Any, Any, Any]:
        node = iceoryx2.NodeBuilder.new().config(config).create(iceoryx2.ServiceType.Ipc)
        names = (iceoryx2.ServiceName.new(name) for name in (listens_to, speaks_to))
        into, out = (node.service_builder(name).publish_subscribe(Message).open_or_create() for name in names)
        return node, into.subscriber_builder().create(), out.publisher_builder().create()

    def side(listens_to: str, speaks_to: str, work: Any) -> Opener:
        @contextmanager
        def open_side() -> Iterator[Side]:
            _, subscriber, publisher = ports(listens_to, speaks_to)
            yield lambda first, size: work(subscriber, publisher, first, size)
            subscriber = publisher = None

        return open_side

    return Task(side("back", "there", _ping), side("there", "back", _pong), rounds)


def _ping(subscriber: Any, publisher: Any, first: int, size: int) -> int:
    wrong = 0
    message = Message(0, 1, 2, 3, 4, 5, 6, 7)
    for number in range(first, first + size):
        message.a = number
        publisher.loan_uninit().write_payload(message).send()
        while (sample := subscriber.receive()) is None:
            pass
        wrong += sample.payload().contents.a != number
    return wrong


def _pong(subscriber: Any, publisher: Any, first: int, size: int) -> None:
    for _ in range(size):
        while (sample := subscriber.receive()) is None:
            pass
        publisher.loan_uninit().write_payload(sample.payload().contents).send()
