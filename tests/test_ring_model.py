"""The ring against plain Python, driven by hypothesis: producer, gating readers, observers, and the deaths and returns of each.

    python -m tests.test_ring_model NAME SEED         (with NUMBA_DISABLE_JIT=1: the kernels' plain twins)

The model counts messages from 0, whatever position the ring began at. It knows what the protocol promises and nothing of how: where
each reader stands, what it gave back, what it was told is lost. Message n carries n in every word.
"""

import contextlib
import os
import random
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, settings
from hypothesis import seed as seeded
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, initialize, invariant, rule, run_state_machine_as_test

import engine  # noqa: F401  (names the kernel cache before numba is imported)
import shm.consumer
from shm._shim import lib
from shm.consumer import Consumer
from shm.hot import (
    EMPTY,
    FULL,
    LAPPED,
    LOST,
    LOST_FROM,
    LOST_NOW,
    POSITION,
    PRODUCER_LIMIT,
    advance,
    claim,
    conflate,
    drop,
    has_messages,
    has_room,
    is_fenced,
    poll,
    release,
    restarts,
)
from shm.observer import Observer
from shm.producer import Producer
from shm.ring import Ring
from shm.roles import wrapped
from shm.segment import SegmentError
from tests.ring_kernels import MESSAGE_OF_LINES, consume, fill_words, number_of, publish, watch

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
CAPACITIES = [1 << bits for bits in range(1, 11)]
# Positions are int64 in the kernels: the last of these is a little below 2^64.
FIRST_POSITIONS = {"0": 0, "2^32": (1 << 32) - 37, "2^63": (1 << 63) - 37, "2^64": (1 << 64) - 37}

GATING, OBSERVERS = ["early", "late"], ["screen", "recorder"]
JOINERS = ["j0", "j1", "j2"]
SPARE = 2
# Where a reader asks to begin: an int is how far from the newest.
PLACES = st.sampled_from(["newest", "oldest"]) | st.integers(-10, 1) | st.integers(-1100, 3)


# What has happened in all runs together: a model that is never driven into a corner proves nothing of it.
HAPPENED: Counter[str] = Counter()

ABOUT_PRODUCERS = ["dies", "dies inside", "claims", "garbles", "asks", "drops", "is alone", "evicts"]
ABOUT_READERS = ["reads", "reads", "reads on", "asks", "conflates", "hears", "dies", "is let go", "leaves"]
ABOUT_OBSERVERS = ["conflates", "hears", "remembers", "remembers and goes", "goes"]


@dataclass
class ModelReader:
    """A gating reader: where it stands when nobody is it, and while somebody is."""

    released: int
    lost: int = 0
    evicted: bool = False
    # It died on its way in: the producer has no room until somebody finishes it, or it is let go.
    joining: bool = False
    at: int = 0
    seen_producers: int = 0
    role: Consumer | None = None


@dataclass
class ModelObserver:
    at: int
    released: int = 0
    lost: int = 0
    seen_producers: int = 0
    role: Observer | None = None


@dataclass
class Model:
    """What the ring must be. Every count begins at 0 with the ring's first message."""

    capacity: int
    published: int = 0
    marked: bool = False
    limit: int = 0
    cached_limit: int = 0
    producers: int = 0
    waits: int = 0
    dropped: int = 0
    evicted: int = 0
    readers: dict[str, ModelReader] = field(default_factory=dict)
    named: dict[str, ModelObserver] = field(default_factory=dict)
    anonymous: list[ModelObserver] = field(default_factory=list)

    def gating(self) -> list[ModelReader]:
        return [reader for reader in self.readers.values() if not reader.evicted]

    def ask(self, count: int) -> bool:
        """Whether the producer has room; the readers are looked at where its cached limit does not say so."""
        if self.published + count <= self.cached_limit:
            return True
        stand = [self.published - self.capacity if reader.joining else reader.released for reader in self.gating()]
        # Room that was given once is not taken back.
        self.cached_limit = self.limit = max(self.cached_limit, min(stand, default=self.published) + self.capacity)
        granted = self.published + count <= self.limit
        self.waits += not granted
        HAPPENED["the ring is full"] += not granted
        return granted

    def oldest_safe(self) -> int:
        return max(0, self.limit - self.capacity)

    def oldest_seen(self) -> int:
        """Where an observer that was lapped goes on."""
        return self.published - self.capacity + max(1, self.capacity // 4)

    def is_overwritten(self, number: int) -> bool:
        return number + self.capacity < self.published + self.marked


class RingMachine(RuleBasedStateMachine):
    """Rules are what processes do. Death is the closing of a role: the kernel frees its lock, and nothing else is put in order."""

    def __init__(self, name: str, capacity: int, first: int) -> None:
        super().__init__()
        self.name, self.capacity, self.first = name, capacity, first
        self.ring: Ring | None = None

    observers = Bundle("observers")

    # Beginning and end

    @initialize(lines=st.sampled_from(sorted(MESSAGE_OF_LINES)), readers=st.integers(0, 2), watchers=st.integers(0, 2))
    def create(self, lines: int, readers: int, watchers: int) -> None:
        self.dtype = MESSAGE_OF_LINES[lines]
        names, watching = GATING[:readers], OBSERVERS[:watchers]
        self.ring = Ring.create(
            self.name, self.capacity, {"message": self.dtype}, names, observers=watching, spare=SPARE, first_position=self.first
        )
        # What another process would have: an attachment of its own.
        self.other = Ring.attach(self.name, {"message": self.dtype})
        self.model = Model(self.capacity)
        self.model.readers = {name: ModelReader(0) for name in names}
        self.model.named = {name: ModelObserver(0) for name in watching}
        self.blocks_for_readers = len(names) + SPARE
        self.out: Producer | None = None
        self.ghosts: list[Any] = []
        self.ghost_readers: list[Any] = []

    def teardown(self) -> None:
        if self.ring is not None:
            self.ring.unlink()
            self.ring.detach()
            self.other.detach()

    def position(self, number: int) -> int:
        return wrapped(self.first + number)

    def index(self, number: int) -> int:
        return (self.first + number) % self.capacity

    def at(self, place: str | int) -> str | int:
        return place if isinstance(place, str) else self.position(place + self.model.published)

    def clamped(self, oldest: int, place: str | int) -> int:
        newest = self.model.published
        if isinstance(place, str):
            return oldest if place == "oldest" else newest
        return max(oldest, min(newest, newest + place))

    # The producer

    @rule(count=st.integers(1, 2048))
    def messages_are_written(self, count: int) -> None:
        self.somebody_produces()
        self.write(count)

    @rule(data=st.data(), count=st.integers(1, 1024))
    def the_ring_moves_on(self, data: st.DataObject, count: int) -> None:
        """Whoever is there reads all and gives it back, or leaves; then as much is written as there is room for."""
        self.somebody_produces()
        for name, reader in list(self.model.readers.items()):
            if reader.role is None:
                if data.draw(st.booleans()):
                    continue
                self.take(name, lambda name=name: self.ring.consumer(name, self.dtype))
            self.read_by(reader, 4096, give_back=True)
        self.write(count)

    @rule(
        what=st.sampled_from(ABOUT_PRODUCERS),
        count=st.integers(1, 1024),
    )
    def something_about_the_producer(self, what: str, count: int) -> None:
        self.somebody_produces()
        match what:
            case "dies" | "dies inside":
                self.producer_dies(what == "dies inside")
            case "claims" | "garbles":
                self.claim_only(what == "garbles")
            case "asks":
                self.ask_room(count)
            case "drops":
                self.drop_one()
            case "is alone":
                self.second_producer_is_refused()
            case "evicts":
                self.write(2048)
                self.evict()
        self.ends_of_roles_given_back_write_nothing()

    def somebody_produces(self) -> None:
        if self.out is None:
            self.producer_comes()

    def producer_comes(self) -> None:
        self.out = self.ring.producer(self.dtype)
        self.model.producers += 1
        HAPPENED["a producer follows one that died inside a slot"] += self.model.marked
        HAPPENED["a producer comes while a reader joins"] += any(reader.joining for reader in self.model.readers.values())
        self.model.cached_limit = self.model.published + self.model.marked
        assert self.out.position == self.position(self.model.published)

    def second_producer_is_refused(self) -> None:
        with pytest.raises(SegmentError, match=rf"is taken by pid {os.getpid()} \("):
            self.other.producer(self.dtype)

    def producer_dies(self, inside: bool) -> None:
        """Between two messages, or inside a slot."""
        if inside:
            self.claim_only(True)
        self.ghosts = [self.out.end]
        self.out.close()
        self.out = None

    def write(self, count: int) -> None:
        model = self.model
        count = min(count, 2 * self.capacity)
        expected = 0
        while expected < count and model.ask(1):
            model.published += 1
            model.marked = False
            expected += 1
        HAPPENED["a lap"] += model.published // self.capacity - (model.published - expected) // self.capacity
        done = publish(self.out.end, model.published - expected, count)
        assert done == expected, f"{done} published, expected {expected} of {count}"

    def claim_only(self, fill: bool) -> None:
        index = claim(self.out.end)
        if not self.model.ask(1):
            assert index == FULL
            return
        assert index == self.index(self.model.published)
        self.model.marked = True
        if fill:
            fill_words(self.out.end.slots[index], -1)
        if self.model.published >= self.capacity:
            self.slot_being_written_is_not_seen()

    def slot_being_written_is_not_seen(self) -> None:
        """To an observer that is due to read what the slot held before, that is gone, whatever it holds now."""
        copy = np.zeros(1, self.dtype).view(np.recarray)
        with self.other.observer(self.dtype, at=self.position(self.model.published - self.capacity)) as view:
            assert watch(view.end, copy, np.zeros(1, np.int64)) == LAPPED

    def ask_room(self, count: int) -> None:
        count = min(count, self.capacity)
        assert has_room(self.out.end, count) == self.model.ask(count)

    def drop_one(self) -> None:
        drop(self.out.end)
        self.model.dropped += 1

    def evict(self) -> None:
        """Only the dead that the ring is full because of."""
        full = self.model.published - self.capacity
        gone = [
            name
            for name, reader in self.model.readers.items()
            if reader.role is None and not reader.evicted and (reader.joining or reader.released <= full)
        ]
        assert sorted(self.out.evict_dead()) == sorted(gone)
        for name in gone:
            self.model.readers[name].evicted = True
            self.model.readers[name].joining = False
        self.model.evicted += len(gone)
        HAPPENED["a reader is evicted"] += len(gone)

    def ends_of_roles_given_back_write_nothing(self) -> None:
        for end in self.ghosts:
            assert claim(end) == FULL
            assert is_fenced(end)
        for end in self.ghost_readers:
            advance(end)
            release(end)
            assert is_fenced(end)

    # Gating readers

    @rule(
        data=st.data(),
        what=st.sampled_from(ABOUT_READERS),
        count=st.integers(1, 2048),
    )
    def something_about_a_reader(self, data: st.DataObject, what: str, count: int) -> None:
        if not self.model.readers:
            return
        name = data.draw(st.sampled_from(sorted(self.model.readers)))
        reader = self.model.readers[name]
        if reader.role is None:
            self.take(name, lambda: self.other.consumer(name, self.dtype))
        match what:
            case "reads" | "reads on":
                self.read_by(reader, count, give_back=what == "reads")
            case "asks":
                count = min(count, self.capacity)
                assert has_messages(reader.role.end, count) == (reader.at + count <= self.model.published)
            case "conflates":
                self.conflated(reader)
            case "hears":
                self.told_of_producers(reader)
            case "dies" | "leaves":
                self.reader_goes(name, leaves=what == "leaves")
            case "is let go":
                self.reader_goes(name, leaves=False)
                self.reader_is_let_go(count)

    def take(self, name: str, taking: Callable[[], Consumer]) -> None:
        reader = self.model.readers[name]
        role = taking()
        if reader.evicted or reader.joining:
            stood, reader.released = reader.released, max(reader.released, self.model.oldest_safe())
            reader.lost += reader.released - stood
            HAPPENED["an evicted reader returns, and lost some"] += reader.evicted and reader.released > stood
            HAPPENED["a reader returns that died on its way in"] += reader.joining
            reader.evicted = reader.joining = False
            assert role.local[LOST_NOW] == reader.released - stood
            assert role.local[LOST_FROM] == self.position(stood)
        self.seated(reader, role)

    def seated(self, reader: ModelReader, role: Consumer) -> None:
        reader.role, reader.at, reader.seen_producers = role, reader.released, self.model.producers
        assert role.position == self.position(reader.at)
        assert role.local[LOST] == reader.lost

    @rule(name=st.sampled_from(JOINERS + GATING), place=PLACES)
    def join(self, name: str, place: str | int) -> None:
        model = self.model
        if name in model.readers:
            if model.readers[name].role is None:
                self.take(name, lambda: self.ring.join(name, self.dtype, at=self.at(place)))
            else:
                with pytest.raises(SegmentError, match=f"reader {name} of ring .* is taken by"):
                    self.other.join(name, self.dtype, at=self.at(place))
            return
        if len(model.readers) == self.blocks_for_readers:
            with pytest.raises(SegmentError, match="no spare block"):
                self.ring.join(name, self.dtype, at=self.at(place))
            return
        role = self.ring.join(name, self.dtype, at=self.at(place))
        begins = self.clamped(model.oldest_safe(), place)
        # Whoever asks for a position is told what lies between it and the oldest that is still there.
        lost = 0 if isinstance(place, str) else begins - self.clamped(0, place)
        HAPPENED["a reader joins behind the newest"] += begins < model.published
        model.readers[name] = ModelReader(begins, lost)
        self.seated(model.readers[name], role)

    @rule(name=st.sampled_from(JOINERS + GATING), place=PLACES, early=st.booleans(), asked=st.integers(0, 5))
    def reader_dies_on_its_way_in(self, name: str, place: str | int, early: bool, asked: int) -> None:
        """Right after it said that it joins, or as late as when all is done but to say that it gates."""
        model = self.model
        reader = model.readers.get(name)
        if reader is None and len(model.readers) == self.blocks_for_readers:
            return
        if reader is not None and (reader.role is not None or not (reader.evicted or reader.joining)):
            return
        with dying_in("tp_face_join" if early else "tp_face_gate"), pytest.raises(Died):
            self.ring.join(name, self.dtype, at=self.at(place))
        if reader is None:
            # It means to begin at what was there when it came, and is told what of that is gone by the time it is in.
            oldest = max(0, model.published - self.capacity) if place == "oldest" else 0
            reader = model.readers[name] = ModelReader(self.clamped(oldest, place))
        reader.joining, reader.evicted = True, False
        if asked:
            # The producer looks at its readers meanwhile.
            self.somebody_produces()
            self.ask_room(min(asked, self.capacity))

    def read_by(self, reader: ModelReader, batch: int, *, give_back: bool) -> None:
        numbers = np.full(batch, -7, np.int64)
        expected = list(range(reader.at, min(self.model.published, reader.at + batch)))
        got = consume(reader.role.end, numbers)
        assert numbers[:got].tolist() == expected
        reader.at += got
        if reader.at == self.model.published:
            assert poll(reader.role.end) == EMPTY
        if give_back:
            release(reader.role.end)
            reader.released = reader.at

    def reader_is_let_go(self, count: int) -> None:
        """The others read on until the ring is full because of the dead alone; then as much is written as they leave room for."""
        self.somebody_produces()
        for other in self.model.readers.values():
            if other.role is not None:
                self.read_by(other, 4096, give_back=True)
        self.write(2048)
        self.evict()
        self.write(count)

    def reader_goes(self, name: str, *, leaves: bool) -> None:
        reader = self.model.readers[name]
        self.ghost_readers = [reader.role.end]
        reader.role.leave() if leaves else reader.role.close()
        reader.role = None
        if leaves:
            del self.model.readers[name]

    # Observers

    @rule(target=observers, place=PLACES)
    def observer_comes(self, place: str | int) -> ModelObserver:
        model = self.model
        # Who asks for a position that is overwritten by now begins there, and is lapped.
        oldest = max(0, model.oldest_seen()) if place == "oldest" else 0
        watcher = ModelObserver(self.clamped(oldest, place), seen_producers=model.producers)
        watcher.role = self.other.observer(self.dtype, at=self.at(place))
        assert watcher.role.local[POSITION] == self.position(watcher.at)
        return watcher

    @rule(target=observers, name=st.sampled_from(OBSERVERS))
    def named_observer_comes(self, name: str) -> ModelObserver:
        watcher = self.model.named.get(name)
        if watcher is None:
            with pytest.raises(ValueError, match=f"reader='{name}'"):
                self.other.observer(self.dtype, name)
            return ModelObserver(0)
        if watcher.role is not None:
            with pytest.raises(SegmentError, match=f"observer {name} .* is taken by"):
                self.other.observer(self.dtype, name)
            return watcher
        watcher.role = self.other.observer(self.dtype, name)
        watcher.at, watcher.seen_producers = watcher.released, self.model.producers
        assert watcher.role.local[POSITION] == self.position(watcher.at)
        return watcher

    @rule(watcher=observers, batch=st.integers(1, 2048))
    def observe(self, watcher: ModelObserver, batch: int) -> None:
        if watcher.role is None:
            return
        model, end = self.model, watcher.role.end
        numbers, copy = np.full(batch, -7, np.int64), np.zeros(1, self.dtype).view(np.recarray)
        got = watch(end, copy, numbers)
        if watcher.at == model.published:
            assert got == EMPTY
        elif model.is_overwritten(watcher.at):
            assert got == LAPPED
            HAPPENED["an observer is lapped"] += 1
            self.skipped(watcher, model.oldest_seen() - watcher.at)
        else:
            assert numbers[: max(got, 0)].tolist() == list(range(watcher.at, min(model.published, watcher.at + batch)))
            watcher.at += got
        assert end.local[POSITION] == self.position(watcher.at)

    @rule(watcher=observers, what=st.sampled_from(ABOUT_OBSERVERS))
    def something_about_an_observer(self, watcher: ModelObserver, what: str) -> None:
        if watcher.role is None:
            return
        if what == "conflates":
            self.conflated(watcher)
        if what == "hears":
            self.told_of_producers(watcher)
        if what.startswith("remembers"):
            release(watcher.role.end)
            watcher.released = watcher.at
        if what.endswith("goes"):
            watcher.role.close()
            watcher.role = None

    # What readers and observers share

    def conflated(self, who: ModelReader | ModelObserver) -> None:
        waiting = self.model.published - who.at
        count = max(0, waiting - 1)
        assert conflate(who.role.end) == count
        if count:
            HAPPENED["somebody conflates"] += 1
            self.skipped(who, count)

    def skipped(self, who: ModelReader | ModelObserver, count: int) -> None:
        local = who.role.end.local
        assert (local[LOST_FROM], local[LOST_NOW]) == (self.position(who.at), count)
        who.at += count
        who.lost += count
        assert local[LOST] == who.lost

    def told_of_producers(self, who: ModelReader | ModelObserver) -> None:
        assert restarts(who.role.end) == self.model.producers - who.seen_producers
        who.seen_producers = self.model.producers

    # What anyone can see at any time

    @invariant()
    def words_agree(self) -> None:
        if self.ring is None:
            return
        model = self.model
        assert self.other.position() == self.position(model.published)
        gating = {name: model.published - reader.released for name, reader in model.readers.items() if not reader.evicted}
        assert self.other.backlog() == gating
        assert sorted(self.other.reader_names()) == sorted(model.readers)
        assert self.other.blocks[0][PRODUCER_LIMIT] == self.position(model.limit)
        if self.out is not None:
            record = self.out.record
            assert (record["dropped"], record["evicted"], record["waits"]) == (model.dropped, model.evicted, model.waits)
        lost = {bytes(block["name"]).rstrip(b"\0").decode(): int(block["lost"]) for block in self.other.readers() if block["mode"]}
        assert lost.keys() == model.readers.keys() | model.named.keys()
        certain = [*model.readers.items(), *model.named.items()]
        assert all(lost[name] == who.lost for name, who in certain if not getattr(who, "joining", False))

    @invariant()
    def slots_agree(self) -> None:
        """A gating reader's unreleased messages are where they were, whole."""
        if self.ring is None:
            return
        slots = self.other.view(self.dtype)
        for reader in self.model.gating():
            if reader.joining:
                continue
            for number in {reader.released, self.model.published - 1} & set(range(reader.released, self.model.published)):
                assert number_of(slots[self.index(number)]) == number


class Died(Exception):
    """In place of a death inside a call."""


@contextlib.contextmanager
def dying_in(function: str) -> Iterator[None]:
    """The next call of a function of the C face is the last thing that the one who makes it does; tp_face_join is still done."""

    class Dying:
        def __getattr__(self, name: str) -> Any:
            return getattr(lib, name) if name != function else self.die

        def die(self, *arguments: Any) -> None:
            if function == "tp_face_join":
                lib.tp_face_join(*arguments)
            raise Died

    shm.consumer.lib = Dying()
    try:
        yield
    finally:
        shm.consumer.lib = lib


def run_machine(name: str, capacity: int, first: int, examples: int, steps: int) -> None:
    # One seed would give every capacity the same course of events.
    @seeded(random.Random(f"{SEED} {capacity} {first}").getrandbits(64))
    def machine() -> RingMachine:
        return RingMachine(name, capacity, first)

    run_state_machine_as_test(
        machine,
        settings=settings(
            max_examples=examples,
            stateful_step_count=steps,
            deadline=None,
            database=None,
            print_blob=True,
            report_multiple_bugs=False,
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.parametrize("first", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS)
@pytest.mark.parametrize("capacity", CAPACITIES)
def test_the_ring_is_its_model(instance: str, capacity: int, first: int) -> None:
    print(f"TICKPATH_SEED={SEED}")
    run_machine(instance, capacity, first, examples=20, steps=50)


def test_all_that_matters_has_happened(request: pytest.FixtureRequest) -> None:
    """Not a test of the ring, but of the tests above."""
    print(f"TICKPATH_SEED={SEED} {dict(HAPPENED)}")
    if sum(item.originalname == "test_the_ring_is_its_model" for item in request.session.items) == len(CAPACITIES) * len(FIRST_POSITIONS):
        rare = {what: count for what, count in HAPPENED.items() if count < 20}
        assert len(HAPPENED) == 10 and not rare


def test_plain_python_twins_are_the_model_too(instance: str) -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "tests.test_ring_model", instance, str(SEED)]
    finished = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, f"TICKPATH_SEED={SEED}\n{finished.stdout}{finished.stderr}"
    assert finished.stdout == "agreed\n"


def main() -> None:
    global SEED
    name, SEED = sys.argv[1], int(sys.argv[2])
    for capacity in (2, 4, 64):
        for first in (0, FIRST_POSITIONS["2^63"], FIRST_POSITIONS["2^64"]):
            run_machine(name, capacity, first, examples=4, steps=40)
    print("agreed")


if __name__ == "__main__":
    main()
