"""What the cold paths of a ring cost: medians, measured in one process."""

import time
from collections.abc import Callable
from statistics import median
from typing import Any

import numpy as np

from perf.hot.ring import claim_in_vain, write_and_read
from perf.tasks import MESSAGE, make_ring
from shm.ring import RECOMMENDED_CAPACITY, Ring

SPARE = 14
SMALL = 64


def measure_costs(runs: int) -> dict[str, float]:
    """Nanoseconds where a kernel pays, milliseconds where a process comes or goes. Names, and what is measured, in `EXPLAINED`."""
    return {
        "full_claim_ns": _full_claim(runs),
        "absent_readers_ns": _absent_readers(runs),
        "restart_ms": _restart(runs),
        "join_ms": _join(runs),
        "evict_ms": _evict(runs),
    }


EXPLAINED = {
    "full_claim_ns": "a claim that finds the ring full (one reader)",
    "absent_readers_ns": f"{SPARE} absent readers, a message, in a ring of {SMALL} slots",
    "restart_ms": "a producer attaches, takes the role over, and publishes",
    "join_ms": "a reader joins a running ring, and reads",
    "evict_ms": "a push that first lets a dead reader go",
}


def _time_ns(work: Callable[..., Any], *arguments: Any) -> int:
    started = time.perf_counter_ns()
    work(*arguments)
    return time.perf_counter_ns() - started


def _done_with(ring: Ring) -> None:
    ring.unlink()
    ring.detach()


def _full_claim(runs: int) -> float:
    ring, tries = make_ring(SMALL), 10_000
    out = ring.producer(MESSAGE)
    for _ in range(SMALL):
        out.push(bytes(56))
    if claim_in_vain(out.end, 1):
        raise RuntimeError("a full ring gave room")
    times = [_time_ns(claim_in_vain, out.end, tries) for _ in range(runs)]
    _done_with(ring)
    return median(times) / tries


def _absent_readers(runs: int) -> float:
    """Paid once a lap, so it shows in a small ring only."""
    rings = [make_ring(SMALL), make_ring(SMALL, spare=SPARE)]
    ends = [(ring.producer(MESSAGE).end, ring.consumer("reader", MESSAGE).end) for ring in rings]
    messages, added, first = 100 * SMALL, [], 1
    write_and_read(*ends[0], 1, 0)
    for _ in range(runs):
        without, with_them = (_time_ns(write_and_read, *end, first, messages) for end in ends)
        added.append((with_them - without) / messages)
        first += messages
    for ring in rings:
        _done_with(ring)
    return median(added)


def _restart(runs: int) -> float:
    ring = make_ring(RECOMMENDED_CAPACITY, readers=())
    with ring.producer(MESSAGE) as out:
        out.push(bytes(56))

    def take_over() -> None:
        again = Ring.attach(ring.name, {"message": MESSAGE})
        again.producer(MESSAGE).push(bytes(56))
        again.detach()

    times = [_time_ns(take_over) for _ in range(runs)]
    _done_with(ring)
    return median(times) / 1e6


def _join(runs: int) -> float:
    ring = make_ring(RECOMMENDED_CAPACITY, readers=(), spare=1)
    out = ring.producer(MESSAGE)
    out.push(bytes(56))
    times = []
    for _ in range(runs):
        started = time.perf_counter_ns()
        late = ring.join("late", MESSAGE, at="oldest")
        late.poll()
        times.append(time.perf_counter_ns() - started)
        late.leave()
    _done_with(ring)
    return median(times) / 1e6


def _evict(runs: int) -> float:
    """A reader that was never there is as dead as one that was killed: nobody has its lock."""
    ring = make_ring(SMALL, when_full="evict")
    out, times = ring.producer(MESSAGE), []
    for _ in range(runs):
        ring.consumer("reader", MESSAGE).close()
        out.push_many(np.zeros(SMALL - ring.backlog()["reader"], MESSAGE))
        times.append(_time_ns(out.push, bytes(56)))
    if out.record["evicted"] != runs:
        raise RuntimeError("a dead reader was not let go")
    _done_with(ring)
    return median(times) / 1e6
