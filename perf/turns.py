"""Tasks that pinned processes work on together, in turns: what a ratio between two figures is made of.

A machine wanders: a host moves a virtual core, a neighbour wakes up. Tasks that take turns in many short runs wander together, and the
median of their ratios stands still. Each process opens its own side of a task after the fork, as roles are taken.
"""

import os
import signal
import time
import traceback
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from dataclasses import dataclass, field
from statistics import median
from typing import Any

from shm._shim import lib
from shm.ring import Ring

GIVE_UP_S = 900

# What one process does in a run: from the first number on, so many of them. It returns 0 or None if every byte was right.
Side = Callable[[int, int], Any]
Opener = Callable[[], AbstractContextManager[Side]]


@dataclass
class Task:
    """What two processes do at the same time, `beside` in a third. `size` units a run; `start` counts on from run to run."""

    here: Opener
    there: Opener
    size: int
    start: int = 1
    rings: Sequence[Ring] = ()
    beside: Opener | None = None
    times_ns: list[float] = field(default_factory=list)

    def next_run(self) -> tuple[int, int]:
        first, self.start = self.start, self.start + self.size
        return first, self.size

    @property
    def typical_ns(self) -> float:
        """Nanoseconds for one unit."""
        return median(self.times_ns)


class Peer:
    """Another process, pinned, which works on its side of a task when told to."""

    def __init__(self, tasks: Sequence[Task], side: str, cpu: int) -> None:
        command, self.command = os.pipe()
        self.answer, answer = os.pipe()
        self.pid = os.fork()
        if self.pid == 0:
            os.close(self.command)
            os.close(self.answer)
            self._serve(command, answer, tasks, side, cpu)
        os.close(command)
        os.close(answer)

    def _serve(self, command: int, answer: int, tasks: Sequence[Task], side: str, cpu: int) -> None:
        code = 1
        try:
            lib.tp_die_with_parent(signal.SIGKILL)
            signal.alarm(GIVE_UP_S)
            os.sched_setaffinity(0, {cpu})
            with ExitStack() as stack:
                openers = [getattr(task, side) for task in tasks]
                sides = [opener and stack.enter_context(opener()) for opener in openers]
                os.write(answer, b"r")
                while number := os.read(command, 1):
                    os.write(answer, b"+")
                    _work(sides[number[0]], tasks[number[0]])
                    os.write(answer, b".")
                del sides
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)

    def tell(self, number: int) -> None:
        os.write(self.command, bytes([number]))
        self.expect(b"+")

    def expect(self, sign: bytes) -> None:
        if os.read(self.answer, 1) != sign:
            raise RuntimeError("another process of the benchmark failed: see above")

    def close(self) -> None:
        os.close(self.command)
        os.close(self.answer)
        os.waitpid(self.pid, 0)


def take_turns(tasks: Sequence[Task], cpus: Sequence[int], runs: int) -> None:
    """Work on the tasks one after another, `runs` times over; the first turn warms up and is not counted. A third CPU is for `beside`."""
    peers = [Peer(tasks, "there", cpus[1])]
    if any(task.beside for task in tasks):
        peers.append(Peer(tasks, "beside", cpus[2]))
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {cpus[0]})
    try:
        for peer in peers:
            peer.expect(b"r")
        with ExitStack() as stack:
            sides = [stack.enter_context(task.here()) for task in tasks]
            for ring in (ring for task in tasks for ring in task.rings):
                ring.unlink()
            for _ in range(runs + 1):
                for number, task in enumerate(tasks):
                    _take_turn(number, task, sides[number], peers)
            del sides
    finally:
        for peer in peers:
            peer.close()
        os.sched_setaffinity(0, usable)
        for ring in (ring for task in tasks for ring in task.rings):
            ring.unlink()
            ring.detach()
    for task in tasks:
        del task.times_ns[0]


def _take_turn(number: int, task: Task, side: Side, peers: Sequence[Peer]) -> None:
    at_it = [peer for index, peer in enumerate(peers) if index == 0 or task.beside]
    for peer in at_it:
        peer.tell(number)
    started_ns = time.perf_counter_ns()
    _work(side, task)
    elapsed_ns = time.perf_counter_ns() - started_ns
    for peer in at_it:
        peer.expect(b".")
    task.times_ns.append(elapsed_ns / task.size)


def _work(side: Side, task: Task) -> None:
    if side(*task.next_run()):
        raise RuntimeError("a message arrived with a wrong byte")


def ratio(task: Task, other: Task) -> float:
    """How many times as long `task` takes as `other`: the median over the runs that stood beside each other."""
    return median(mine / its for mine, its in zip(task.times_ns, other.times_ns, strict=True))
