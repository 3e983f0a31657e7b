#!/usr/bin/env python
"""A ring under everything at once: every face at every end, in turns, while its processes are stopped and killed at random.

    producer ══ring══▶ reader, reader ...   gating: every message, in order, whole
                  ╚══▶ observer             whole messages, and the losses between them, add up

A message's words follow from its position. A process that dies is started again and must go on exactly where it may: a producer after
the last message that is there, a reader at what it last gave back, no matter between which two instructions it was ended. Under the
policy "evict" a reader may be let go while it is dead; what it then misses must be what it is told.

Each step of each process takes another face (kernel, plain Python by one, by bytes or by the array, C where gcc is), another number
of messages, and another pause. --seed repeats the choices; the kernel's scheduler makes its own.
"""

import ctypes
import mmap
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import click
import numpy as np

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from perf.hot.soak import TORN, observe_some, read_some, write_some
from shm._shim import lib
from shm.hot import READER_POSITION
from shm.private import PrivateRing
from shm.ring import Ring, WhenFull

MESSAGE = np.dtype([("sequence", "u8"), *((name, "u8") for name in "abcdefg")])
WORDS = "abcdefg"
MULTIPLIER = np.uint64(0x9E3779B97F4A7C15)
CAPACITIES = (2, 4, 64, 1_024, 16_384)
SPINS = 200
CALL_S = 0.002
# A process that nothing kills ends within so long after it was told to.
PATIENCE_S = 60
ROUND_S = 5.0

# Words of a process's progress, in memory that outlives it: positions modulo 2^64. What it has certainly done, and may have done.
DONE, MAYBE, STARTED, COUNT, LOST = range(5)


# A face's way to write, read or observe: the role, how many messages at most; how many there were.
Way = Callable[[Any, int], int]


class Fault(Exception):
    """The ring broke a promise."""


def words_of(numbers: np.ndarray) -> dict[str, np.ndarray]:
    """The words of messages by field, shape of `numbers` (uint64)."""
    return {name: (numbers + np.uint64(k)) * MULTIPLIER ^ np.uint64(k) if k else numbers for k, name in enumerate(WORDS)}


def messages(first: int, count: int) -> np.ndarray:
    array = np.zeros(count, MESSAGE)
    for name, words in words_of(np.uint64(first) + np.arange(count, dtype=np.uint64)).items():
        array[name] = words
    return array


def check(array: np.ndarray, first: int, what: str) -> None:
    if array["a"].tolist() != [(first + n) % (1 << 64) for n in range(len(array))]:
        raise Fault(f"{what} at position {first}: expected its numbers in order, found {array['a'].tolist()[:9]}")
    if any(
        not np.array_equal(array[name], words)
        for name, words in words_of(np.uint64(first) + np.arange(len(array), dtype=np.uint64)).items()
    ):
        raise Fault(f"{what} at position {first}: a message is torn")


def position_of(end: Any) -> int:
    """Modulo 2^64."""
    return int(end.local[0]) % (1 << 64)


class CFace:
    """soak.c, compiled, on the ends that this process holds."""

    def __init__(self, folder: Path) -> None:
        library = folder / "soak.so"
        here = Path(__file__).parent
        command = ["gcc", "-O2", "-Wall", "-Werror", "-D_GNU_SOURCE", f"-I{here.parent / 'shm'}", "-shared", "-fPIC"]
        subprocess.run([*command, "-o", str(library), str(here / "soak.c")], check=True)
        self._c = ctypes.CDLL(str(library))
        for name in ("soak_write", "soak_read", "soak_observe"):
            getattr(self._c, name).restype = ctypes.c_int64

    def write(self, role: Any, count: int) -> int:
        end = role.end
        return int(
            self._c.soak_write(_words(end.slots, len(end.slots), 64, end.readers, len(end.readers), end.block, end.local), *_two(count))
        )

    def read(self, role: Any, count: int) -> int:
        end = role.end
        return int(self._c.soak_read(_words(end.slots, len(end.slots), 64, end.producer, end.block, end.local), *_two(count)))

    def observe(self, role: Any, count: int) -> int:
        end = role.end
        words = _words(end.slots, len(end.slots), 64, end.producer, end.block, end.local)
        return int(self._c.soak_observe(words, ctypes.c_int64(count)))


def _words(*values: Any) -> Any:
    """A struct of the C face: addresses and numbers, a word each."""
    return (ctypes.c_uint64 * len(values))(*(value if isinstance(value, int) else value.ctypes.data for value in values))


def _two(count: int) -> tuple[ctypes.c_int64, ctypes.c_int64]:
    return ctypes.c_int64(count), ctypes.c_int64(SPINS)


@dataclass
class Steps:
    """What a process does again and again, each time with another face. `size` messages at most a step."""

    dice: random.Random
    size: int
    c: CFace | None

    @property
    def ways_to_write(self) -> list[Way]:
        return [self._write_kernel, self._write_one, self._write_many, *([self.c.write] if self.c else [])]

    @property
    def ways_to_read(self) -> list[Way]:
        return [self._read_kernel, self._read_one, self._read_many, *([self.c.read] if self.c else [])]

    @property
    def ways_to_observe(self) -> list[Way]:
        return [self._observe_kernel, self._observe_many, self._observe_one, *([self.c.observe] if self.c else [])]

    def write(self, out: Any) -> int:
        return self.dice.choice(self.ways_to_write)(out, self.dice.randint(1, self.size))

    def _write_kernel(self, out: Any, count: int) -> int:
        return int(write_some(out.end, count, SPINS))

    def _write_one(self, out: Any, count: int) -> int:
        done = 0
        for record in messages(position_of(out), min(count, 20)):
            form = self.dice.choice([record, record.tobytes()[8:]])
            if not out.push(form, CALL_S):
                break
            done += 1
        return done

    def _write_many(self, out: Any, count: int) -> int:
        return int(out.push_many(messages(position_of(out), count), CALL_S))

    def read(self, into: Any) -> int:
        return whole(self.dice.choice(self.ways_to_read)(into, self.dice.randint(1, self.size)), into)

    def _read_kernel(self, into: Any, count: int) -> int:
        return int(read_some(into.end, count, SPINS))

    def _read_one(self, into: Any, count: int) -> int:
        done = 0
        for _ in range(min(count, 20)):
            position = position_of(into)
            if (payload := into.poll_bytes(CALL_S)) is None:
                break
            check(np.frombuffer(bytes(8) + payload, MESSAGE), position, "a reader")
            done += 1
        into.release()
        return done

    def _read_many(self, into: Any, count: int) -> int:
        array, position = np.zeros(count, MESSAGE), position_of(into)
        done = into.poll_many(array, CALL_S)
        check(array[:done], position, "a reader")
        into.release()
        return int(done)

    def observe(self, watcher: Any) -> int:
        position, lost = position_of(watcher), watcher.lost
        done = whole(self.dice.choice(self.ways_to_observe)(watcher, self.dice.randint(1, self.size)), watcher)
        if (position_of(watcher) - position) % (1 << 64) != done + watcher.lost - lost:
            raise Fault(f"an observer went from {position} to {position_of(watcher)} and saw {done}, yet lost {watcher.lost - lost}")
        return done

    def _observe_kernel(self, watcher: Any, count: int) -> int:
        return int(observe_some(watcher.end, np.zeros(1, MESSAGE).view(np.recarray), count))

    def _observe_many(self, watcher: Any, count: int) -> int:
        array, position = np.zeros(count, MESSAGE), position_of(watcher)
        done = watcher.poll_many(array, CALL_S)
        if done:
            first = (int(array["sequence"][0]) - 1) % (1 << 64)
            check(array[:done], first, "an observer")
            if (first - position) % (1 << 64) > watcher.lost_now:
                raise Fault(f"an observer at position {position} was given {first}, and told of {watcher.lost_now} lost")
        return int(done)

    def _observe_one(self, watcher: Any, count: int) -> int:
        return sum(self._observe_many(watcher, 1) for _ in range(min(count, 20)))

    def pause(self, done: int) -> None:
        if not done:
            os.sched_yield()
        if self.dice.random() < 0.02:
            time.sleep(self.dice.random() * 0.002)


def whole(done: int, role: Any) -> int:
    if done == TORN:
        raise Fault(f"{type(role).__name__} at position {position_of(role)}: a message, or a loss, is not what its position says")
    return done


@dataclass
class Worker:
    """A process of the soak, which is started again whenever it was killed."""

    name: str
    work: Callable[[Steps, np.ndarray], None]
    progress: np.ndarray
    pid: int = 0
    starts: int = 0

    def start(self, seed: int, c: CFace | None) -> None:
        self.starts += 1
        sys.stdout.flush()
        self.pid = os.fork()
        if self.pid:
            return
        code = 2
        try:
            lib.tp_die_with_parent(signal.SIGKILL)
            dice = random.Random(f"{seed} {self.name} {self.starts}")
            self.work(Steps(dice, dice.choice([1, 7, 100, 2_000]), c), self.progress)
            code = 0
        except BaseException:
            print(f"soak: {self.name}, start {self.starts}", file=sys.stderr)
            traceback.print_exc()
        finally:
            os._exit(code)

    def kill(self) -> bool:
        """Whether it was alive."""
        os.kill(self.pid, signal.SIGKILL)
        code = os.waitstatus_to_exitcode(os.waitpid(self.pid, 0)[1])
        self.pid = 0
        if code not in (0, -signal.SIGKILL):
            raise Fault(f"{self.name} ended with code {code}: see above")
        return code != 0

    def wait(self) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while (ended := os.waitpid(self.pid, os.WNOHANG)) == (0, 0):
            if time.monotonic() > deadline:
                raise Fault(f"{self.name} did not end within {PATIENCE_S} s")
            time.sleep(0.001)
        self.pid = 0
        if code := os.waitstatus_to_exitcode(ended[1]):
            raise Fault(f"{self.name} ended with code {code}: see above")


@dataclass
class Tally:
    """What a soak has seen."""

    rounds: int = 0
    messages: int = 0
    observed: int = 0
    lost: int = 0
    kills: int = 0
    stops: int = 0
    faces: str = ""


class Round:
    """One ring, its processes, and what happens to them for a few seconds. `stop` and `end` are words that all of them see."""

    def __init__(self, dice: random.Random, c: CFace | None, readers: int) -> None:
        self.seed = dice.randrange(1 << 60)
        self.c = c
        policies: list[WhenFull] = ["wait", "wait", "drop", "evict"]
        self.when_full = dice.choice(policies)
        capacity = dice.choice(CAPACITIES)
        self.first = dice.choice([0, (1 << 64) - 50_000, (1 << 63) - 50_000])
        names = [f"reader{k}" for k in range(readers)]
        self.ring = Ring.create(
            f"tickpath-test-soak-{os.getpid()}-{dice.randrange(1 << 30)}", capacity, {"message": MESSAGE}, names,
            when_full=self.when_full, first_position=self.first,
        )  # fmt: skip
        self.shared = np.frombuffer(mmap.mmap(-1, 4_096), np.uint64)
        self.stop, self.end = self.shared[0:1], self.shared[1:2]
        works = [("producer", self.produce), *((name, self.reading(name)) for name in names), ("observer", self.observe)]
        self.workers = [Worker(name, work, self.shared[8 * k + 8 : 8 * k + 16]) for k, (name, work) in enumerate(works)]
        self.said = f"capacity={capacity} when_full={self.when_full} first={self.first} readers={readers}"

    def produce(self, steps: Steps, progress: np.ndarray) -> None:
        with self.ring.producer(MESSAGE) as out:
            resumes("a producer", progress, position_of(out), self.first)
            while not self.stop[0]:
                position = position_of(out)
                progress[MAYBE] = (position + steps.size) % (1 << 64)
                done = steps.write(out)
                progress[DONE] = position_of(out)
                steps.pause(done)
            self.end[0] = position_of(out)

    def reading(self, name: str) -> Callable[[Steps, np.ndarray], None]:
        def read(steps: Steps, progress: np.ndarray) -> None:
            with self.ring.consumer(name, MESSAGE) as into:
                self._resume(into, progress)
                while not (self.stop[0] == 2 and position_of(into) == self.end[0]):
                    progress[MAYBE] = (position_of(into) + steps.size) % (1 << 64)
                    done = steps.read(into)
                    progress[DONE] = int(into.words[READER_POSITION]) % (1 << 64)
                    steps.pause(done)

        return read

    def _resume(self, into: Any, progress: np.ndarray) -> None:
        """Where it gave back last; or, having been let go, further on by as many as it is told."""
        told = (into.lost - int(progress[LOST])) % (1 << 64)
        if told and self.when_full != "evict":
            raise Fault(f"{into.title} lost {told} messages under the policy {self.when_full}")
        resumes(into.title, progress, (position_of(into) - told) % (1 << 64), self.first)
        progress[DONE] = progress[MAYBE] = position_of(into)
        progress[LOST] = into.lost

    def observe(self, steps: Steps, progress: np.ndarray) -> None:
        with self.ring.observer(MESSAGE, at=steps.dice.choice(["oldest", "newest"])) as watcher:
            lost = 0
            while not (self.stop[0] == 2 and position_of(watcher) == self.end[0]):
                done = steps.observe(watcher)
                progress[COUNT] += np.uint64(done)
                progress[LOST] += np.uint64(watcher.lost - lost)
                lost = watcher.lost
                steps.pause(done)

    def run(self, dice: random.Random, seconds: float, tally: Tally) -> None:
        try:
            for worker in self.workers:
                worker.start(self.seed, self.c)
            until = time.monotonic() + seconds
            while time.monotonic() < until:
                time.sleep(dice.random() * 0.02)
                self._disturb(dice, tally)
            producer, *others = self.workers
            self.stop[0] = 1
            producer.wait()
            self.stop[0] = 2
            for worker in others:
                worker.wait()
            if any(self.ring.backlog().values()) or self.ring.position() % (1 << 64) != self.end[0]:
                raise Fault(f"at the end: backlog={self.ring.backlog()}, position={self.ring.position()}, expected {self.end[0]}")
        finally:
            for worker in self.workers:
                if worker.pid:
                    os.kill(worker.pid, signal.SIGKILL)
                    os.waitpid(worker.pid, 0)
            self.ring.unlink()
            self.ring.detach()
        tally.rounds += 1
        tally.messages += (int(self.end[0]) - self.first) % (1 << 64)
        tally.observed += int(self.workers[-1].progress[COUNT])
        tally.lost += int(self.workers[-1].progress[LOST])

    def _disturb(self, dice: random.Random, tally: Tally) -> None:
        worker = dice.choice(self.workers)
        if dice.random() < 0.3:
            os.kill(worker.pid, signal.SIGSTOP)
            time.sleep(dice.random() * 0.01)
            if dice.random() < 0.5:
                os.kill(worker.pid, signal.SIGCONT)
                tally.stops += 1
                return
        if not worker.kill():
            raise Fault(f"{worker.name} ended before it was told to")
        tally.kills += 1
        worker.start(self.seed, self.c)


def resumes(what: str, progress: np.ndarray, position: int, first: int) -> None:
    """A role goes on no earlier than what its last holder had certainly done, and no later than what it may have done."""
    if not progress[STARTED]:
        progress[STARTED], progress[DONE], progress[MAYBE] = 1, first, first
    done, maybe = int(progress[DONE]), int(progress[MAYBE])
    if (position - done) % (1 << 64) > (maybe - done) % (1 << 64):
        raise Fault(f"{what} went on at position {position}: expected {done} to {maybe}")
    progress[DONE] = progress[MAYBE] = position


def warm() -> None:
    """Compile what the processes will call."""
    ring = PrivateRing(2, {"message": MESSAGE}, ["reader"])
    write_some(ring.producer(MESSAGE).end, 1, 1)
    read_some(ring.consumer("reader", MESSAGE).end, 1, 1)
    observe_some(ring.observer(MESSAGE).end, np.zeros(1, MESSAGE).view(np.recarray), 1)


def soak(seconds: float, seed: int, kills: int = 0) -> Tally:
    """Rounds of random rings until `seconds` are over and so many processes were killed. Fault names the promise that was broken."""
    warm()
    dice, tally, ends = random.Random(seed), Tally(), time.monotonic() + seconds
    with tempfile.TemporaryDirectory() as folder:
        c = CFace(Path(folder)) if shutil.which("gcc") else None
        tally.faces = "kernel, Python" + (", C" if c else " (no gcc: not C)")
        while tally.rounds == 0 or time.monotonic() < ends or tally.kills < kills:
            one = Round(dice, c, dice.choice([1, 1, 2]))
            try:
                one.run(dice, min(ROUND_S, max(0.5, ends - time.monotonic())) * dice.random(), tally)
            except Fault as fault:
                raise Fault(f"seed={seed} round={tally.rounds} {one.said}: {fault}") from None
    return tally


@click.command(help=__doc__.split("\n\n")[0] if __doc__ else None)
@click.option("--seconds", default=600.0, show_default=True, type=click.FloatRange(0), help="How long.")
@click.option("--seed", default=None, type=int, help="Default: a random one, printed.")
def main(seconds: float, seed: int | None) -> None:
    seed = random.SystemRandom().randrange(1 << 32) if seed is None else seed
    click.echo(f"seed {seed}")
    try:
        tally = soak(seconds, seed)
    except Fault as fault:
        click.echo(f"soak: {fault}", err=True)
        sys.exit(1)
    click.echo(
        f"{tally.rounds:,} rings, {tally.messages:,} messages by {tally.faces}; {tally.kills:,} kills, {tally.stops:,} stops; "
        f"observed {tally.observed:,}, lost {tally.lost:,}"
    )


if __name__ == "__main__":
    main()
