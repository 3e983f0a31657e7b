"""The life and death of those at a ring's ends, with real processes that are killed, stopped and continued wherever they happen to be.

Message n carries its own position in every word, so whoever sees it knows whether it is whole, and the one that is due.
"""

import mmap
import os
import random
import signal
import time
from collections.abc import Callable, Iterator

import numpy as np
import pytest

from shm.consumer import Consumer
from shm.hot import (
    EMPTY,
    FULL,
    LIMIT,
    LOST,
    LOST_FROM,
    LOST_NOW,
    POSITION,
    PRODUCER_EPOCH,
    PRODUCER_LIMIT,
    READER_POSITION,
    claim,
    is_fenced,
    poll,
    release,
    restarts,
)
from shm.layout import PRODUCER, word_of
from shm.producer import Producer
from shm.ring import Ring, WhenFull
from shm.roles import process_name
from shm.segment import SegmentError
from tests.children import child, gave_up, in_child, kill, stopped, until, wait_for_exit
from tests.ring_kernels import (
    LAPS,
    MESSAGE_OF_LINES,
    MISSED,
    SEEN,
    WRONG,
    read_positions,
    read_to_journal,
    watch_positions,
    write_positions,
)

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
MESSAGE, WIDE = MESSAGE_OF_LINES[1], MESSAGE_OF_LINES[3]
FOR_EVER = 1 << 60
EVICTED = word_of(PRODUCER, "evicted")


@pytest.fixture(autouse=True)
def chance() -> random.Random:
    print(f"TICKPATH_SEED={SEED}")
    return random.Random(SEED)


MakeRing = Callable[..., Ring]


@pytest.fixture
def make_ring(instance: str) -> Iterator[MakeRing]:
    rings: list[Ring] = []

    def make(
        capacity: int, readers: list[str], *, spare: int = 0, when_full: WhenFull = "wait", lines: int = 1, first_position: int = 0
    ) -> Ring:
        variants = {"message": MESSAGE_OF_LINES[lines]}
        rings.append(Ring.create(instance, capacity, variants, readers, spare=spare, when_full=when_full, first_position=first_position))
        return rings[-1]

    yield make
    for ring in rings:
        ring.unlink()
        ring.detach()


@pytest.fixture(autouse=True, scope="module")
def compiled_kernels() -> None:
    """Compiled before anything is forked, so that a child does in microseconds what it is there for."""
    name = f"tickpath-test-warm-{os.getpid()}"
    for dtype in (MESSAGE, WIDE):
        ring = Ring.create(name, 2, {"message": dtype}, ["reader"])
        try:
            out, into = ring.producer(dtype).end, ring.consumer("reader", dtype).end
            assert write_positions(out, 1) == 1
            assert read_positions(into, 1, 1, 0) == 1
            assert write_positions(out, 1) == 1
            assert read_to_journal(into, np.zeros(2, np.int64), 1)
            watch_positions(ring.observer(dtype).end, np.zeros(1, dtype).view(np.recarray), np.zeros(4, np.int64), 0)
            claim(out), poll(into), release(into), restarts(into), is_fenced(into)
        finally:
            ring.unlink()
            ring.detach()


def write_for_ever(ring: Ring, dtype: np.dtype = MESSAGE) -> bool:
    return bool(write_positions(ring.producer(dtype).end, FOR_EVER))


def shared_words(count: int) -> np.ndarray:
    """Zeroed int64 words that forked children share with us."""
    return np.frombuffer(mmap.mmap(-1, 8 * count), np.int64)


# Producers


def test_a_second_producer_is_refused_and_told_who_is_the_first(make_ring: MakeRing) -> None:
    ring = make_ring(8, [])
    with child(lambda: write_for_ever(ring)) as pid:
        until(lambda: ring.position() > 0, "the first producer writes")
        with pytest.raises(SegmentError, match=rf"producer of ring {ring.name} is taken by pid {pid} \({process_name(pid)}\)"):
            ring.producer(MESSAGE)
        kill(pid)
        with ring.producer(MESSAGE) as out:
            assert out.position == ring.position()


def test_a_second_reader_of_a_name_is_refused_and_told_who_is_the_first(make_ring: MakeRing) -> None:
    ring = make_ring(8, ["a", "b"])
    with child(lambda: read_positions(ring.consumer("a", MESSAGE).end, FOR_EVER, 1, 0)) as pid:
        until(lambda: ring.is_held(1), "the reader takes its block")
        with pytest.raises(SegmentError, match=rf"reader a of ring {ring.name} is taken by pid {pid} \("):
            ring.consumer("a", MESSAGE)
        ring.consumer("b", MESSAGE).close()
        kill(pid)
        ring.consumer("a", MESSAGE).close()


@pytest.mark.parametrize("capacity", [2, 64])
def test_readers_get_every_message_once_whoever_is_killed_while_writing(make_ring: MakeRing, chance: random.Random, capacity: int) -> None:
    """A producer dies wherever it happens to be, inside a slot or inside taking its role, hundreds of times."""
    ring = make_ring(capacity, ["reader"])
    into, view = ring.consumer("reader", MESSAGE).end, ring.observer(MESSAGE)
    copy, tally = np.zeros(1, MESSAGE).view(np.recarray), np.zeros(4, np.int64)
    deaths, producers = 200, 0
    for _ in range(deaths):
        with child(lambda: write_for_ever(ring)) as pid:
            if chance.random() < 0.9:
                wanted = chance.randrange(1, 500)
                assert read_positions(into, wanted, chance.choice((1, 2, capacity)), 0) == wanted
            else:
                os.sched_yield()
            kill(pid)
        producers += restarts(into)
    with ring.producer(MESSAGE) as out:
        left = out.position - int(into.local[POSITION])
        assert 0 <= left <= capacity
        assert read_positions(into, left, 1, 0) == left
        assert poll(into) == EMPTY
        assert write_positions(out.end, capacity) == capacity
        assert claim(out.end) == FULL
        assert read_positions(into, capacity, 1, 0) == capacity
    watch_positions(view.end, copy, tally, capacity - max(1, capacity // 4))
    assert tally[WRONG] == 0
    assert tally[SEEN] + tally[MISSED] == view.end.local[POSITION]
    assert deaths // 2 < producers <= deaths
    print(f"producers={producers} messages={into.local[POSITION]}")


def test_a_producer_goes_on_where_the_slots_say_that_the_last_one_stopped(make_ring: MakeRing, chance: random.Random) -> None:
    """Its published word may trail by a lap; it is found out at every distance, near the end of the positions' words too."""
    for first in (0, (1 << 32) - 5, (1 << 63) - 5):
        ring = make_ring(8, [], first_position=first)
        for _ in range(40):
            count = chance.randrange(0, 20)
            before = ring.position()

            def write_and_die(count: int = count, ring: Ring = ring) -> None:
                out = ring.producer(MESSAGE).end
                write_positions(out, count)
                claim(out)
                os._exit(0)

            assert wait_for_exit(in_child(write_and_die)) == 0
            with ring.producer(MESSAGE) as out:
                assert (out.position - before) % (1 << 64) == count
        ring.unlink()


# Readers


def test_a_killed_reader_goes_on_at_what_it_gave_back(make_ring: MakeRing, chance: random.Random) -> None:
    """Each message is read at least once, and again only if it had not been given back when its reader died."""
    ring, count, deaths = make_ring(32, ["reader"]), 40_000, 200
    journal = shared_words(count)
    words = ring.blocks[1]
    with child(lambda: write_positions(ring.producer(MESSAGE).end, count) == count) as writer:
        given_back, before = 0, np.zeros(0, np.int64)
        for death in range(deaths):
            batch = chance.choice((1, 5, 16))
            with child(lambda batch=batch: read_to_journal(ring.consumer("reader", MESSAGE).end, journal, batch)) as pid:
                goal = min(count * (death + 1) // deaths, given_back + chance.randrange(200))
                until(lambda goal=goal, pid=pid: words[READER_POSITION] >= goal or gave_up(pid) or gave_up(writer), "the reader gets on")
                assert words[READER_POSITION] >= goal, f"{'the writer' if gave_up(writer) else 'the reader'} gave up"
                kill(pid)
            assert (journal[:given_back] == before).all(), "a message that was given back came again"
            given_back = int(words[READER_POSITION])
            before = journal[:given_back].copy()
            assert (before > 0).all(), "a message was given back and never read"
        assert read_to_journal(ring.consumer("reader", MESSAGE).end, journal, 1)
    assert (journal > 0).all()
    assert (journal[:given_back] == before).all()
    print(f"read again={int((journal > 1).sum())}")


def test_processes_that_are_stopped_and_continued_lose_nothing(make_ring: MakeRing, chance: random.Random) -> None:
    ring, count = make_ring(64, ["reader"]), 3_000_000
    with (
        child(lambda: write_positions(ring.producer(MESSAGE).end, count) == count) as writer,
        child(lambda: read_positions(ring.consumer("reader", MESSAGE).end, count, 16, 0) == count) as reader,
    ):
        until(lambda: ring.position() > 0, "messages flow")
        for _ in range(100):
            for pid in chance.choice(([writer], [reader], [writer, reader])):
                os.kill(pid, signal.SIGSTOP)
                until(lambda pid=pid: stopped(pid) or ring.position() == count, "it stops")
            for _ in range(chance.randrange(20)):
                os.sched_yield()
            for pid in (writer, reader):
                os.kill(pid, signal.SIGCONT)
        assert [wait_for_exit(pid) for pid in (writer, reader)] == [0, 0]
    assert (ring.position(), ring.backlog()) == (count, {"reader": 0})


# Evicting


def test_a_dead_reader_is_let_go_and_a_hung_one_is_not(make_ring: MakeRing) -> None:
    ring = make_ring(8, ["hung", "dead", "absent"], when_full="evict")
    out = ring.producer(MESSAGE)
    with (
        child(lambda: read_positions(ring.consumer("hung", MESSAGE).end, 30, 1, 0) == 30) as hung,
        child(lambda: read_positions(ring.consumer("dead", MESSAGE).end, FOR_EVER, 1, 0)) as dead,
    ):
        until(lambda: ring.is_held(1) and ring.is_held(2), "both take their blocks")
        ring.consumer("absent", MESSAGE).close()
        assert write_positions(out.end, 3) == 3
        until(lambda: ring.backlog() == {"hung": 0, "dead": 0, "absent": 3}, "both read")
        os.kill(hung, signal.SIGSTOP)
        until(lambda: stopped(hung), "it stops")
        kill(dead)
        fill_up(out, 5)
        assert out.evict_dead() == ["absent"], "the other dead one is not in the way yet"
        fill_up(out, 3)
        assert out.evict_dead() == ["dead"]
        assert out.record["evicted"] == 2
        assert claim(out.end) == FULL
        assert out.evict_dead() == [], "a process that is stopped still has its lock"
        assert ring.backlog() == {"hung": 8}
        os.kill(hung, signal.SIGCONT)
        assert write_positions(out.end, 19) == 19
        assert wait_for_exit(hung) == 0
    # What is safe from the producer's last look at its readers on is still theirs.
    oldest = int(out.words[PRODUCER_LIMIT]) - ring.capacity
    assert 22 <= oldest <= 30
    for name, stood in (("absent", 0), ("dead", 3)):
        into = ring.consumer(name, MESSAGE)
        told = [int(into.local[word]) for word in (LOST_FROM, LOST_NOW, LOST, POSITION)]
        assert told == [stood, oldest - stood, oldest - stood, oldest]
        assert read_positions(into.end, 30 - oldest, 1, 0) == 30 - oldest
    assert ring.readers()["lost"].tolist() == [0, oldest - 3, oldest]
    assert ring.backlog() == {"hung": 0, "dead": 0, "absent": 0}


def fill_up(out: Producer, expected: int) -> None:
    for _ in range(expected):
        assert write_positions(out.end, 1) == 1
    assert claim(out.end) == FULL


def test_a_reader_that_is_evicted_again_and_again_accounts_for_everything(make_ring: MakeRing, chance: random.Random) -> None:
    """Killed and let go while the producer runs flat out: what it read and what it was told is lost are all there ever was."""
    ring, count = make_ring(16, ["reader"], when_full="evict"), 1 << 17
    read = shared_words(2)

    def write() -> bool:
        out = ring.producer(MESSAGE)
        while out.position < count:
            if claim(out.end) == FULL:
                out.evict_dead()
            else:
                write_positions(out.end, 1)
        return True

    def read_some(goal: int) -> bool:
        with ring.consumer("reader", MESSAGE) as into:
            begun = into.position
            assert read_positions(into.end, min(goal, count - begun), 1, 0) == min(goal, count - begun)
            read[0] += into.position - begun
        return True

    with child(write) as writer:
        while ring.backlog().get("reader") != 0 or ring.position() < count:
            assert wait_for_exit(in_child(lambda: read_some(chance.randrange(300)))) == 0
            for _ in range(chance.randrange(5)):
                os.sched_yield()
            if int(ring.blocks[0][EVICTED]) == 0 and ring.position() > count // 2:
                # It never happened that the ring was full while nobody read: let it.
                until(lambda: int(ring.blocks[0][EVICTED]) or ring.position() == count, "the dead reader is let go")
        assert wait_for_exit(writer) == 0
    lost = int(ring.readers()["lost"][0])
    assert read[0] + lost == count
    assert lost > 0
    print(f"read={read[0]} lost={lost} evictions={int(ring.blocks[0][EVICTED])}")


# Roles that were lost


def test_a_forked_child_has_no_role_and_keeps_none(make_ring: MakeRing) -> None:
    """Its copies of the ends write nothing; the roles are free once its parent gives them back, though it lives."""
    ring = make_ring(8, ["reader"])
    out, into = ring.producer(MESSAGE), ring.consumer("reader", MESSAGE)
    assert write_positions(out.end, 3) == 3
    answer = shared_words(1)

    def go_on() -> None:
        wrote = write_positions(out.end, 1)
        read = read_positions(into.end, 3, 1, 0)
        answer[0] = 1 if (wrote, read, is_fenced(out.end), is_fenced(into.end)) == (0, 3, True, True) else 2
        signal.pause()

    with child(go_on):
        until(lambda: answer[0], "the child tries")
        assert answer[0] == 1
        assert ring.position() == 3
        assert ring.backlog() == {"reader": 3}
        for take in (lambda: ring.producer(MESSAGE), lambda: ring.consumer("reader", MESSAGE)):
            with pytest.raises(SegmentError, match=rf"is taken by pid {os.getpid()} "):
                take()
        assert write_positions(out.end, 1) == read_positions(into.end, 1, 1, 0) == 1
        out.close()
        into.close()
        ring.producer(MESSAGE).close()
        ring.consumer("reader", MESSAGE).close()


def test_an_end_whose_role_is_anothers_by_now_writes_nothing(make_ring: MakeRing) -> None:
    ring = make_ring(8, ["reader"])
    out, into = ring.producer(MESSAGE), ring.consumer("reader", MESSAGE)
    out_end, into_end = out.end, into.end
    assert write_positions(out_end, 3) == 3
    out.close()
    into.close()
    with ring.producer(MESSAGE) as out, ring.consumer("reader", MESSAGE) as into:
        assert write_positions(out_end, 1) == 0 and is_fenced(out_end)
        assert read_positions(into_end, 3, 1, 0) == 3 and is_fenced(into_end)
        assert ring.position() == 3
        assert ring.backlog() == {"reader": 3}
        assert write_positions(out.end, 1) == 1
        assert read_positions(into.end, 4, 1, 0) == 4


def test_a_producer_that_lost_its_role_stops_at_its_limit(make_ring: MakeRing) -> None:
    """What it had been given room for before may still be written: the lock keeps two from writing, the epoch is the last line."""
    ring = make_ring(8, ["reader"])
    out = ring.producer(MESSAGE)
    assert write_positions(out.end, 3) == 3
    out.record["epoch"] += 1
    assert out.end.local[LIMIT] == 8
    assert write_positions(out.end, 100) == 5
    assert is_fenced(out.end)
    assert claim(out.end) == FULL


def test_a_reader_that_was_let_go_gives_nothing_back_and_does_not_leave(make_ring: MakeRing) -> None:
    ring = make_ring(8, ["reader"])
    out, into = ring.producer(MESSAGE), ring.consumer("reader", MESSAGE)
    write_positions(out.end, 3)
    into.record["epoch"] += 1
    assert read_positions(into.end, 3, 1, 0) == 3
    assert ring.backlog() == {"reader": 3}
    into.leave()
    assert ring.backlog() == {"reader": 3}, "a reader that lost its role took its block with it"


def test_readers_hear_of_each_new_producer(make_ring: MakeRing) -> None:
    ring = make_ring(8, ["reader"])
    into, view = ring.consumer("reader", MESSAGE).end, ring.observer(MESSAGE).end
    assert (restarts(into), restarts(view)) == (0, 0)
    for producer in (1, 2):
        with child(lambda: write_for_ever(ring)) as pid:
            until(lambda producer=producer: ring.blocks[0][PRODUCER_EPOCH] == producer, "it takes its role")
            kill(pid)
    assert (restarts(into), restarts(view)) == (2, 2)
    assert (restarts(into), restarts(view)) == (0, 0)


# Joining


@pytest.mark.parametrize("capacity", [2, 8, 64, 1024])
def test_who_joins_a_running_ring_misses_nothing_from_where_it_begins(make_ring: MakeRing, chance: random.Random, capacity: int) -> None:
    """The producer never stops. Two processes join and leave all the while; each message is looked at twice, in place."""
    ring, joins = make_ring(capacity, [], spare=2, lines=3), 300

    def join_and_leave(name: str, seed: int) -> bool:
        own = random.Random(seed)
        for _ in range(joins):
            at = own.choice(("newest", "oldest", max(0, ring.position() - own.randrange(2 * capacity))))
            into = ring.join(name, WIDE, at=at)
            joined_rightly(into, at)
            count = own.choice((1, capacity, 3 * capacity))
            assert read_positions(into.end, count, own.choice((1, capacity)), own.choice((0, 50))) == count, f"{at=}"
            if own.random() < 0.1:
                # As after a death: the same reader goes on.
                stood = into.position
                into.close()
                into = ring.join(name, WIDE, at="newest")
                assert into.position == stood
            into.leave()
            ring._roles.clear()
        return True

    with child(lambda: write_for_ever(ring, WIDE)) as writer:
        until(lambda: ring.position() > 3 * capacity, "the producer runs")
        other = in_child(lambda: join_and_leave("other", SEED + 1))
        assert join_and_leave("reader", SEED)
        assert wait_for_exit(other) == 0
        kill(writer)
    print(f"messages={ring.position()}")


def joined_rightly(into: Consumer, at: str | int) -> None:
    lost = int(into.local[LOST])
    if isinstance(at, str):
        assert lost == 0
    else:
        assert into.position == at + lost


def test_a_reader_that_dies_while_it_joins_does_not_stop_the_ring(make_ring: MakeRing, chance: random.Random) -> None:
    """Killed anywhere in join, read or leave; the next one of that name, or the producer, puts it right."""
    ring = make_ring(16, [], spare=1, when_full="evict")

    def join_and_leave() -> bool:
        while True:
            into = ring.join("reader", MESSAGE, at=chance.choice(("newest", "oldest")))
            assert read_positions(into.end, 40, 8, 0) == 40
            into.leave()
            ring._roles.clear()

    def write() -> bool:
        out = ring.producer(MESSAGE)
        while True:
            if claim(out.end) == FULL:
                out.evict_dead()
            else:
                write_positions(out.end, 1)

    with child(write):
        for _ in range(150):
            with child(join_and_leave) as joiner:
                until(lambda: ring.is_held(1), "it joins")
                time.sleep(chance.random() * 0.003)
                kill(joiner)
            before = ring.position()
            until(lambda before=before: ring.position() > before + 100, "the producer goes on without it")


def test_of_those_who_join_under_one_name_at_once_one_gets_in(make_ring: MakeRing) -> None:
    ring = make_ring(8, [], spare=3)
    for _ in range(25):
        answers = shared_words(4)

        def join(number: int, answers: np.ndarray = answers) -> bool:
            until(lambda: answers[0], "all are there")
            try:
                into = ring.join("reader", MESSAGE)
            except SegmentError as error:
                answers[number] = 1 if "is taken by" in str(error) else 3
                return True
            answers[number] = 2
            until(lambda: answers[1:].all(), "all have tried")
            into.leave()
            return True

        children = [in_child(lambda number=number: join(number)) for number in (1, 2, 3)]
        answers[0] = 1
        until(lambda answers=answers: answers[1:].all(), "all have tried")
        assert [wait_for_exit(pid) for pid in children] == [0, 0, 0]
        assert sorted(answers[1:].tolist()) == [1, 1, 2]
        assert ring.reader_names() == []


# Observing


LAPS_WANTED = 10


@pytest.mark.parametrize("lines", [1, 3])
@pytest.mark.parametrize(("capacity", "count"), [(2, 100_000), (8, 500_000), (256, 1_500_000)])
def test_an_observer_is_never_given_a_torn_message(make_ring: MakeRing, capacity: int, count: int, lines: int) -> None:
    ring = make_ring(capacity, [], lines=lines)
    dtype = MESSAGE_OF_LINES[lines]
    copy, tally = np.zeros(1, dtype).view(np.recarray), np.zeros(4, np.int64)
    with child(lambda: write_for_ever(ring, dtype)):
        until(lambda: ring.position() > capacity, "the producer runs")
        view = ring.observer(dtype, at="oldest").end
        begun = int(view.local[POSITION])
        watch_positions(view, copy, tally, count)
        # On a machine that is busy elsewhere the producer may seldom get ahead: then it is watched longer.
        while tally[LAPS] <= LAPS_WANTED and tally[WRONG] == 0 and tally[SEEN] < 40 * count:
            watch_positions(view, copy, tally, tally[SEEN] + count)
    print(dict(zip(("seen", "laps", "missed", "wrong"), tally.tolist(), strict=True)))
    assert tally[WRONG] == 0
    assert tally[SEEN] % count == 0
    assert tally[LAPS] > LAPS_WANTED, "it was hardly ever overtaken, which proves little"
    assert view.local[POSITION] - begun == tally[SEEN] + tally[MISSED]
    assert view.local[LOST] == tally[MISSED]
