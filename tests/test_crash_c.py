"""A C end that dies after every single store in turn, and what everybody else then sees.

tests/c/driver.c, built with -DCRASH, ends by _exit after its n-th store to the ring or to its own words, opening included. For n = 1, 2,
... until it comes through, the ring's bytes are put back as they were, it is started again, and what is left is asked: by readers and
observers that were there all along, by the next producer and the next reader of that name, whether all of it is an exact prefix.
"""

import contextlib
import itertools
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm.hot import LOST, POSITION
from shm.ring import Ring, cursor_name
from shm.segment import SHM
from tests.c.driver import HERE, build, compiler
from tests.c.kernels import message, read, watch, write

CRASH_CODE = 77
STORES_MAX = 2_000
MODULUS = 1 << 64
_COUNTER = itertools.count()

GATING, EVICTED, JOINING, ABSENT = 1, 3, 4, 0

FIRSTS = ["0", "2^32", "2^64"]
SHAPES = [(2, 64), (4, 64), (64, 64), (2, 192), (4, 192), (64, 192)]
every_ring = [pytest.mark.parametrize("first", FIRSTS), pytest.mark.parametrize(("capacity", "slot_bytes"), SHAPES)]

pytestmark = pytest.mark.skipif(compiler("gcc") is None, reason="gcc is not installed")


@pytest.fixture(scope="module")
def mortal(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(HERE / "driver.c", tmp_path_factory.mktemp("crash") / "driver", "-DCRASH")


class Stage:
    """A ring, the ends that live on, and the moment that both are taken back to."""

    def __init__(self, first: str, capacity: int, slot_bytes: int, readers: list[str], *, before: int = 0, **more: Any) -> None:
        """The words that `first` names are crossed two messages after the first `before`."""
        self.name = f"tickpath-test-crash-{os.getpid()}-{next(_COUNTER)}"
        self.dtype = message(slot_bytes)
        self.capacity = capacity
        ends = {"0": 0, "2^32": (1 << 32) - before - 2, "2^64": (1 << 64) - before - 2}
        self.first = ends[first] % MODULUS
        self.ring = Ring.create(self.name, capacity, {"message": self.dtype}, readers, first_position=self.first, **more)
        self.memory = [np.memmap(SHM / name, np.uint8, mode="r+") for name in (self.name, cursor_name(self.name))]
        self.living: list[Any] = []

    def keep(self) -> None:
        """This moment is the one to go back to."""
        self.saved = [memory.copy() for memory in self.memory]
        self.saved_locals = [end.local.copy() for end in self.living]

    def go_back(self) -> None:
        for memory, saved in zip(self.memory, self.saved, strict=True):
            memory[:] = saved
        for end, saved in zip(self.living, self.saved_locals, strict=True):
            end.local[:] = saved

    def deaths(self, program: Path, *arguments: str) -> Iterator[list[str]]:
        """What the end has said when it died, for each store in turn, and at last when it came through."""
        for stores in range(1, STORES_MAX):
            self.go_back()
            environment = {**os.environ, "CRASH_AT": str(stores)}
            finished = subprocess.run([str(program), *arguments], capture_output=True, text=True, timeout=60, env=environment)
            assert finished.returncode in (0, CRASH_CODE), (stores, finished.stdout, finished.stderr)
            yield finished.stdout.splitlines()
            if finished.returncode == 0:
                assert stores > 5, "it stored nothing"
                return
        raise AssertionError("it never came through")

    def count(self, position: int) -> int:
        """A position as the number of messages since the ring began."""
        return (int(position) - self.first) % MODULUS

    @property
    def producer(self) -> np.ndarray:
        return self.memory[1][8192 : 8192 + 128].view(np.uint64)

    def block(self, reader: int) -> np.void:
        return self.ring.readers()[reader]

    def close(self) -> None:
        del self.memory
        self.living.clear()
        self.ring.detach()
        for name in (self.name, cursor_name(self.name)):
            (SHM / name).unlink(missing_ok=True)


@contextlib.contextmanager
def stage_of(*arguments: Any, **more: Any) -> Iterator[Stage]:
    stage = Stage(*arguments, **more)
    try:
        yield stage
    finally:
        stage.close()


def numbers_read(end: Any) -> list[int]:
    numbers = np.zeros(1024, np.int64)
    return numbers[: read(end, numbers)].tolist()


def numbers_seen(end: Any) -> tuple[list[int], int]:
    """What an observer gets, and how many it was told are lost."""
    numbers, lost = np.zeros(1024, np.int64), np.zeros(1, np.int64)
    copy = np.zeros(1, end.slots.dtype)
    return numbers[: watch(end, copy, numbers, lost)].tolist(), int(lost[0])


def said(lines: list[str], what: str) -> list[int]:
    """The numbers that the end gave after a word."""
    return [int(line.split()[1]) for line in lines if line.split()[0] == what]


# The producer


@every_ring[0]
@every_ring[1]
def test_a_producer_that_dies_leaves_an_exact_prefix(mortal: Path, first: str, capacity: int, slot_bytes: int) -> None:
    before = 2 * capacity - 1
    pushes = min(capacity, 3) + (capacity <= 4) * 2
    room = min(pushes, capacity)
    with stage_of(first, capacity, slot_bytes, ["peer"], before=before) as stage:
        peer, seen = stage.ring.consumer("peer", stage.dtype), stage.ring.observer(stage.dtype)
        with stage.ring.producer(stage.dtype) as out:
            for start in range(0, before, capacity):
                write(out.end, start, min(capacity, before - start))
                numbers_read(peer.end)
                numbers_seen(seen.end)
        stage.living = [peer.end, seen.end]
        stage.keep()
        reached, epochs = 0, set()
        script = [f"push {number} 0" for number in range(before, before + pushes)]
        for lines in stage.deaths(mortal, "producer", stage.name, "--", *script):
            got = numbers_read(peer.end)
            assert got == list(range(before, before + len(got))), "an exact prefix, nothing torn, nothing twice"
            assert reached <= len(got) <= reached + 1 and len(got) >= len(said(lines, "pushed"))
            reached = len(got)
            assert numbers_seen(seen.end) == (got, 0)
            epochs.add(int(stage.producer[0]))
            assert int(stage.producer[4]) <= pushes - room
            # The next producer, at the true position, over whatever was half written.
            with stage.ring.producer(stage.dtype) as out:
                assert stage.count(out.position) == before + len(got)
                assert write(out.end, before + len(got), capacity + 1) == capacity
            rest = list(range(before + len(got), before + len(got) + capacity))
            assert numbers_read(peer.end) == rest
            assert numbers_seen(seen.end) == (rest, 0)
        assert reached == room and said(lines, "full") == list(range(before + room, before + pushes))
        assert epochs == {1, 2}


@pytest.mark.parametrize("first", FIRSTS)
def test_a_producer_that_dies_in_the_next_ones_hands_too(mortal: Path, first: str) -> None:
    """Two deaths in a row: in each claim of each, over what the one before left half written."""
    with stage_of(first, 4, 64, ["peer"]) as stage:
        peer = stage.ring.consumer("peer", stage.dtype)
        stage.living = [peer.end]
        stage.keep()
        for dead, _ in enumerate(stage.deaths(mortal, "producer", stage.name, "--", "push 0 0", "push 1 0")):
            done = stage.ring.position() - int(np.int64(np.uint64(stage.first)))
            environment = {**os.environ, "CRASH_AT": str(12 + dead % 12)}
            script = [f"push {number} 0" for number in range(done, 3)]
            subprocess.run([str(mortal), "producer", stage.name, "--", *script], capture_output=True, timeout=60, env=environment)
            with stage.ring.producer(stage.dtype) as out:
                at = stage.count(out.position)
                assert write(out.end, at, 5) == 4 - at
            assert numbers_read(peer.end) == [0, 1, 2, 3]


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 64])
def test_a_producer_that_dies_while_it_drops(mortal: Path, first: str, capacity: int) -> None:
    with stage_of(first, capacity, 64, ["peer"], when_full="drop") as stage:
        peer = stage.ring.consumer("peer", stage.dtype)
        with stage.ring.producer(stage.dtype) as out:
            assert write(out.end, 0, capacity + 1) == capacity
        stage.living = [peer.end]
        stage.keep()
        counted = 0
        for lines in stage.deaths(mortal, "producer", stage.name, "--", "push 7 0", "push 8 0"):
            waits, dropped = (int(word) for word in stage.producer[4:6])
            assert counted <= dropped <= counted + 1 and len(said(lines, "full")) <= dropped <= waits <= 3
            counted = dropped
            with stage.ring.producer(stage.dtype) as out:
                assert write(out.end, capacity, 1) == 0
                assert numbers_read(peer.end) == list(range(capacity))
                assert write(out.end, capacity, 1) == 1
        assert counted == 2


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
def test_a_producer_that_dies_while_it_lets_the_dead_go(mortal: Path, first: str, capacity: int) -> None:
    with stage_of(first, capacity, 64, ["dead", "living", "gone"], when_full="evict") as stage:
        living = stage.ring.consumer("living", stage.dtype)
        with stage.ring.producer(stage.dtype) as out:
            assert write(out.end, 0, capacity) == capacity
        assert numbers_read(living.end) == list(range(capacity))
        stage.living = [living.end]
        stage.keep()
        for lines in stage.deaths(mortal, "producer", stage.name, "--", f"push {capacity} 0"):
            modes = [int(stage.block(k)["mode"]) for k in (0, 2)]
            assert set(modes) <= {GATING, EVICTED}
            let_go = modes.count(EVICTED)
            assert let_go - 1 <= int(stage.producer[6]) <= let_go
            published = stage.count(stage.ring.position())
            assert published == capacity or (published == capacity + 1 and let_go == 2)
            assert published - capacity >= len(said(lines, "pushed"))
            # Both come back while nobody writes: one that was let go is told exactly what it missed.
            for name, mode in zip(("dead", "gone"), modes, strict=True):
                with stage.ring.consumer(name, stage.dtype) as back:
                    begins = stage.count(back.position)
                    assert begins == 0 if mode == GATING else begins == int(back.local[LOST])
                    assert numbers_read(back.end) == list(range(begins, published))
            with stage.ring.producer(stage.dtype) as out:
                assert numbers_read(living.end) == list(range(capacity, published))
                assert write(out.end, published, capacity + 1) == capacity
            assert numbers_read(living.end) == list(range(published, published + capacity))
        assert let_go == 2


# Readers


@every_ring[0]
@every_ring[1]
@pytest.mark.parametrize("batch", [1, 3])
def test_a_reader_that_dies_gave_back_what_it_said_and_no_more(
    mortal: Path, first: str, capacity: int, slot_bytes: int, batch: int
) -> None:
    reads = min(capacity, 4)
    with stage_of(first, capacity, slot_bytes, ["reader"]) as stage:
        out, seen = stage.ring.producer(stage.dtype), stage.ring.observer(stage.dtype)
        assert write(out.end, 0, capacity) == capacity
        stage.living = [out.end, seen.end]
        stage.keep()
        script = []
        for number in range(reads):
            script += ["next 0"] + ["release"] * ((number + 1) % batch == 0)
        for lines in stage.deaths(mortal, "reader", stage.name, "reader", "--", *script):
            got = said(lines, "got")
            assert got == list(range(len(got))) and not said(lines, "torn")
            given_back = stage.count(int(stage.block(0)["position"]))
            answered = [stage.count(position) for position in said(lines, "released")]
            assert max(answered, default=0) <= given_back <= len(got), "at least what it said, at most what it had"
            assert given_back - max(answered, default=0) in (0, batch)
            assert numbers_seen(seen.end) == (list(range(capacity)), 0)
            # The producer has the room that was given back, and the next reader goes on there: what was not comes again.
            assert write(out.end, capacity, capacity) == given_back
            with stage.ring.consumer("reader", stage.dtype) as back:
                assert stage.count(back.position) == given_back
                assert numbers_read(back.end) == list(range(given_back, capacity + given_back))
            assert write(out.end, capacity + given_back, capacity + 1) == capacity
        assert given_back == reads // batch * batch


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
@pytest.mark.parametrize("start", ["oldest", "newest", "at"])
def test_a_reader_that_dies_while_it_joins(mortal: Path, first: str, capacity: int, start: str) -> None:
    before = 2 * capacity + 1
    with stage_of(first, capacity, 64, [], spare=1, before=before) as stage:
        out = stage.ring.producer(stage.dtype)
        assert write(out.end, 0, before) == before
        stage.living = [out.end]
        stage.keep()
        wanted = before - 1
        at = (stage.first + wanted) % MODULUS
        modes = set()
        for _ in stage.deaths(mortal, "joining", stage.name, "late", start, str(at), "--", "next 0", "release"):
            mode = int(stage.block(0)["mode"])
            modes.add(mode)
            assert stage.ring.reader_names() == ([] if mode == ABSENT else ["late"])
            # The producer goes on as far as it may: not at all while one joins, a lap after one that has.
            more = write(out.end, before, 2 * capacity)
            stands = stage.count(int(stage.block(0)["position"]))
            if mode == ABSENT:
                assert more == 2 * capacity
            elif mode == GATING:
                assert more == stands + capacity - before
            published = before + more
            back = stage.ring.join("late", stage.dtype, at="oldest")
            begins = stage.count(back.position)
            assert published - capacity <= begins <= published
            if mode == GATING:
                assert begins == stands
            elif mode == JOINING and start == "at":
                assert int(back.local[LOST]) == begins - wanted, "however often it was begun"
            assert 0 <= int(back.local[LOST]) <= published
            assert numbers_read(back.end) == list(range(begins, published))
            assert write(out.end, published, 2 * capacity) == capacity, "the ring is as usable as ever"
            assert numbers_read(back.end) == list(range(published, published + capacity))
            back.close()
        assert modes == {ABSENT, JOINING, GATING}


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
@pytest.mark.parametrize("successor", ["kernel", "C", "C that asks"])
def test_a_joiner_does_not_begin_in_the_slot_that_a_producer_died_in(mortal: Path, first: str, capacity: int, successor: str) -> None:
    """The producer died inside a slot, a reader dies while it joins, the next producer looks at the readers, and the next reader joins."""
    with stage_of(first, capacity, 64, [], spare=1) as stage:
        with stage.ring.producer(stage.dtype) as out:
            assert write(out.end, 0, capacity) == capacity
        subprocess.run([str(mortal), "producer", stage.name, "--", f"fill {capacity}"], timeout=60, check=True, capture_output=True)
        stage.keep()
        for _ in stage.deaths(mortal, "joining", stage.name, "late", "oldest", "0"):
            done = 0
            if successor == "C":
                script = [f"push {number} 0" for number in range(capacity, 2 * capacity)]
                lines = subprocess.run(
                    [str(mortal), "producer", stage.name, "--", *script], timeout=60, check=True, capture_output=True, text=True
                )
                done = len(said(lines.stdout.splitlines(), "pushed"))
            if successor == "C that asks":
                subprocess.run([str(mortal), "producer", stage.name, "--", "ask"], timeout=60, check=True, capture_output=True)
            with contextlib.ExitStack() as stack:
                back = stack.enter_context(stage.ring.join("late", stage.dtype, at="oldest")) if successor == "C that asks" else None
                out = stack.enter_context(stage.ring.producer(stage.dtype))
                done += write(out.end, capacity + done, capacity - done)
                back = back or stack.enter_context(stage.ring.join("late", stage.dtype, at="oldest"))
                begins = stage.count(back.position)
                assert numbers_read(back.end) == list(range(begins, capacity + done)), "it waits for what will never be there"
                assert write(out.end, capacity + done, capacity + 1) == capacity
                assert numbers_read(back.end) == list(range(capacity + done, 2 * capacity + done))


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
def test_one_that_dies_while_it_joins_holds_nobody_up_who_evicts(mortal: Path, first: str, capacity: int) -> None:
    with stage_of(first, capacity, 64, [], spare=1, when_full="evict") as stage:
        out = stage.ring.producer(stage.dtype)
        assert write(out.end, 0, 2 * capacity) == 2 * capacity
        stage.living = [out.end]
        stage.keep()
        for _ in stage.deaths(mortal, "joining", stage.name, "late", "oldest", "0"):
            was = int(stage.block(0)["mode"])
            done = write(out.end, 2 * capacity, 3 * capacity)
            if was != ABSENT:
                assert done <= capacity
                assert out.evict_dead() == ["late"]
                assert write(out.end, 2 * capacity + done, capacity) == capacity
                assert int(stage.block(0)["mode"]) == EVICTED


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
@pytest.mark.parametrize("in_c", [False, True])
def test_a_reader_that_dies_on_its_way_back_is_told_once_what_it_missed(mortal: Path, first: str, capacity: int, in_c: bool) -> None:
    """The next one is Python, or C and then Python."""
    with stage_of(first, capacity, 64, ["reader"], when_full="evict") as stage:
        out = stage.ring.producer(stage.dtype)
        assert write(out.end, 0, capacity) == capacity and out.evict_dead() == ["reader"]
        published = 3 * capacity + 1
        assert write(out.end, capacity, published - capacity) == published - capacity
        stage.living = [out.end]
        stage.keep()
        modes = set()
        for _ in stage.deaths(mortal, "reader", stage.name, "reader"):
            mode = int(stage.block(0)["mode"])
            modes.add(mode)
            if in_c:
                subprocess.run([str(mortal), "reader", stage.name, "reader"], timeout=60, check=True, capture_output=True)
            with stage.ring.consumer("reader", stage.dtype) as back:
                begins = stage.count(back.position)
                assert published - capacity <= begins <= published
                assert int(back.local[LOST]) == int(stage.block(0)["lost"]) == begins, "nothing is counted twice"
                assert numbers_read(back.end) == list(range(begins, published))
            assert write(out.end, published, capacity + 1) == capacity
        assert modes == {EVICTED, JOINING, GATING}


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
def test_a_reader_that_is_let_go_again_on_its_way_back_counts_nothing_twice(mortal: Path, first: str, capacity: int) -> None:
    with stage_of(first, capacity, 64, ["reader"], when_full="evict") as stage:
        with stage.ring.producer(stage.dtype) as out:
            assert write(out.end, 0, capacity) == capacity and out.evict_dead() == ["reader"]
            assert write(out.end, capacity, 2 * capacity) == 2 * capacity
        stage.keep()
        script = [f"push {number} 0" for number in range(3 * capacity, 5 * capacity)]
        for _ in stage.deaths(mortal, "reader", stage.name, "reader"):
            finished = subprocess.run([str(mortal), "producer", stage.name, "--", *script], capture_output=True, text=True, timeout=60)
            assert said(finished.stdout.splitlines(), "pushed") == list(range(3 * capacity, 5 * capacity)), "it holds nobody up"
            assert int(stage.block(0)["mode"]) == EVICTED
            with stage.ring.consumer("reader", stage.dtype) as back:
                begins = stage.count(back.position)
                assert int(back.local[LOST]) == int(stage.block(0)["lost"]) == begins
                assert numbers_read(back.end) == list(range(begins, 5 * capacity))


@every_ring[0]
def test_a_reader_that_dies_while_it_leaves(mortal: Path, first: str) -> None:
    with stage_of(first, 4, 64, [], spare=1) as stage:
        out = stage.ring.producer(stage.dtype)
        with stage.ring.join("late", stage.dtype):
            assert write(out.end, 0, 8) == 4
        stage.living = [out.end]
        stage.keep()
        for _ in stage.deaths(mortal, "joining", stage.name, "late", "newest", "0", "--", "next 0", "skip 1", "release", "leave"):
            left = int(stage.block(0)["mode"]) == ABSENT
            given_back = stage.count(int(stage.block(0)["position"]))
            assert given_back in (0, 2)
            assert write(out.end, 4, 8) == (8 if left else given_back)
            with stage.ring.join("late", stage.dtype) as back:
                assert left or numbers_read(back.end) == list(range(given_back, 4 + given_back))
        assert left


@every_ring[0]
@pytest.mark.parametrize("capacity", [2, 4, 64])
def test_an_observer_that_dies_goes_on_where_it_stood(mortal: Path, first: str, capacity: int) -> None:
    with stage_of(first, capacity, 64, [], observers=["screen"]) as stage:
        out = stage.ring.producer(stage.dtype)
        published = 3 * capacity
        assert write(out.end, 0, published) == published
        stage.living = [out.end]
        stage.keep()
        script = ["observe 0", "observe 0", "release", "conflate", "observe 0", "release"]
        for lines in stage.deaths(mortal, "observer", stage.name, "screen", "resume", "0", "--", *script):
            assert not said(lines, "torn")
            lost = int(stage.block(0)["lost"])
            assert 0 <= lost <= published and lost >= sum(said(lines, "lapped") + said(lines, "skipped"))
            stood = stage.count(int(stage.block(0)["position"]))
            assert stood >= max((stage.count(position) for position in said(lines, "released")), default=0)
            with stage.ring.observer(stage.dtype, "screen") as back:
                assert stage.count(int(back.local[POSITION])) == stood
                numbers, missed = numbers_seen(back.end)
                assert numbers == list(range(stood + missed, published))
            assert write(out.end, published, capacity + 1) == capacity + 1, "nobody waits for an observer"
        assert stood == published
