"""Death after every single step: of creating, attaching, taking roles, joining, leaving, letting go and removing, and of every kernel.

Whatever step it was, what is left is free, or whole, or refused by name and then removed by the cleaner; the others go on, and the
operation can be done again. Message n carries its own position in every word.
"""

import os
import random
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from shm import hot, segment
from shm.hot import EMPTY, FULL, GOT, LAPPED, LOST, POSITION, READER_POSITION, advance, claim, commit, observe, poll, release
from shm.layout import READER_GATING, READER_JOINING
from shm.ring import Ring, cursor_name
from shm.roles import wrapped
from shm.segment import SHM, SegmentError
from shm.table import Board
from tests.children import in_child, wait_for_exit
from tests.dying import count_down, deaths, dies_after
from tests.ring_kernels import MESSAGE_OF_LINES, fill_words, number_of

MESSAGE = MESSAGE_OF_LINES[1]
VARIANTS = {"message": MESSAGE}
CAPACITY = 4
# Just below 2^64 is a little below 0 as an int64.
FIRST_POSITIONS = {"0": 0, "2^32": (1 << 32) - 6, "2^64": -6}


def write(out: Any, count: int) -> int:
    """Publish up to `count` messages, each with its own position; how many."""
    for done in range(count):
        index = claim(out)
        if index == FULL:
            return done
        fill_words(out.slots[index], out.local[POSITION])
        commit(out, index)
    return count


def read(into: Any, count: int = 1 << 30) -> int:
    """Read what is there, `count` at most, and give it back; each must be the one that is due, whole. How many."""
    done = 0
    while done < count and (index := poll(into)) != EMPTY:
        assert number_of(into.slots[index]) == into.local[POSITION]
        advance(into)
        done += 1
    release(into)
    return done


def remove(ring: Ring) -> None:
    ring.unlink()
    ring.detach()


@pytest.fixture
def ring(instance: str, request: pytest.FixtureRequest) -> Iterator[Ring]:
    first = getattr(request, "param", 0)
    made = Ring.create(
        instance, CAPACITY, VARIANTS, ["reader", "other"], observers=["screen"], spare=1, when_full="evict", first_position=first
    )
    yield made
    remove(made)


# Segments


def test_dying_while_creating(instance: str) -> None:
    """The names are free, or hold a whole ring, or are refused by name; the cleaner removes what the dead left, all of it."""

    def create() -> Ring:
        # Positions from which slots of zeros would look published: a ring that is seen before it is filled is found out.
        return Ring.create(instance, CAPACITY, VARIANTS, ["reader"], spare=1, first_position=-6)

    outcomes: dict[str, int] = {}
    for _ in deaths(create, instance):
        names = {name for name in (instance, cursor_name(instance)) if (SHM / name).exists()}
        try:
            remaining = Ring.attach(instance, VARIANTS)
        except SegmentError as error:
            assert instance in str(error)
            outcome = f"refused with {len(names)} names"
        else:
            works_from_end_to_end(remaining, ["reader"])
            remaining.detach()
            outcome = "whole"
        outcomes[outcome] = outcomes.get(outcome, 0) + 1
        assert outcome != "whole" or len(names) == 2
        if names:
            with pytest.raises(SegmentError, match="exists already"):
                create()
        assert {name for name in names if (SHM / name).exists()} == names, "a refused creation removed what another one made"
        assert set(segment.remove_dead(instance)) == names
        again = create()
        works_from_end_to_end(again, ["reader"])
        remove(again)
    print(outcomes)
    assert set(outcomes) == {"whole", "refused with 1 names", "refused with 2 names"}


def works_from_end_to_end(ring: Ring, readers: list[str]) -> None:
    with ring.producer(MESSAGE) as out:
        ends = [ring.consumer(reader, MESSAGE) for reader in readers]
        for into in ends:
            read(into.end)
        assert write(out.end, CAPACITY + 1) == CAPACITY
        for into in ends:
            assert read(into.end) == CAPACITY
            into.close()
        assert write(out.end, 1) == 1
    with ring.consumer(readers[0], MESSAGE) as into:
        assert read(into.end) == 1


def test_dying_while_attaching(ring: Ring) -> None:
    before = (bytes(ring.slots.data), bytes(ring.cursors.data))
    for _ in deaths(lambda: Ring.attach(ring.name, VARIANTS), ring.name):
        assert (bytes(ring.slots.data), bytes(ring.cursors.data)) == before
    works_from_end_to_end(ring, ["reader", "other"])


def test_dying_while_removing(instance: str) -> None:
    """What is left of the names can be removed again, and is no ring; a new one of that name can be made."""
    ring = Ring.create(instance, CAPACITY, VARIANTS, ["reader"])
    for _ in deaths(ring.unlink, instance):
        names = {name for name in (instance, cursor_name(instance)) if (SHM / name).exists()}
        ring.detach()
        if len(names) == 2:
            Ring.attach(instance, VARIANTS).detach()
        else:
            with pytest.raises(SegmentError, match="there is none"):
                Ring.attach(instance, VARIANTS)
        assert set(segment.remove_dead(instance)) == names
        ring = Ring.create(instance, CAPACITY, VARIANTS, ["reader"])
    remove(ring)


# Roles


@pytest.mark.parametrize("ring", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS, indirect=True)
def test_dying_as_a_producer(ring: Ring) -> None:
    """Taking the role, writing one message, giving the role back: readers get every message, and the next producer goes on."""
    reader, other = (ring.consumer(name, MESSAGE) for name in ("reader", "other"))

    def produce() -> None:
        with ring.producer(MESSAGE) as out:
            assert write(out.end, 1) == 1

    counts = set()
    for _ in deaths(produce, ring.name):
        published = read(reader.end)
        assert published == read(other.end)
        counts.add(published)
        with ring.producer(MESSAGE) as out:
            assert out.position == reader.position
            assert write(out.end, 2) == 2
        assert read(reader.end) == read(other.end) == 2
    assert counts == {0, 1}


@pytest.mark.parametrize("ring", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS, indirect=True)
def test_dying_as_a_reader(ring: Ring) -> None:
    """Taking the role, reading one message of two: the next one goes on where it was given back."""
    out, other = ring.producer(MESSAGE), ring.consumer("other", MESSAGE)
    words = ring.blocks[1]

    def consume() -> None:
        with ring.consumer("reader", MESSAGE) as into:
            assert read(into.end, 1) == 1

    counts = set()
    assert write(out.end, 2) == read(other.end) == 2
    for _ in deaths(consume, ring.name):
        stood = int(words[READER_POSITION])
        assert write(out.end, 2) == 2
        read(other.end)
        with ring.consumer("reader", MESSAGE) as into:
            assert into.position == stood
            counts.add(read(into.end))
        assert write(out.end, 2) == 2
        read(other.end)
    assert len(counts) == 2, "a message that was given back came again, or one that was not did not"


@pytest.mark.parametrize("ring", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS, indirect=True)
def test_dying_as_an_observer(ring: Ring) -> None:
    out = ring.producer(MESSAGE)
    copy = np.zeros(1, MESSAGE).view(np.recarray)
    for name in ("reader", "other"):
        ring.consumer(name, MESSAGE).leave()

    def watch() -> None:
        with ring.observer(MESSAGE, "screen") as view:
            while (outcome := observe(view.end, copy)) == GOT:
                pass
            assert outcome == EMPTY
            release(view.end)

    block = ring.readers()[2]
    for _ in deaths(watch, ring.name):
        with ring.observer(MESSAGE, "screen") as view:
            assert view.end.local[POSITION] == wrapped(int(block["position"]))
            assert view.end.local[LOST] == block["lost"]
            seen = 0
            while (outcome := observe(view.end, copy)) != EMPTY:
                assert outcome == GOT and number_of(copy[0]) == wrapped(int(view.end.local[POSITION]) - 1)
                seen += 1
            assert seen in (0, 2)
            release(view.end)
        assert write(out.end, 2) == 2


# Readers that come and go


@pytest.mark.parametrize("ring", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS, indirect=True)
@pytest.mark.parametrize("at", ["newest", "oldest", -3])
def test_dying_while_joining(ring: Ring, at: str | int) -> None:
    """Whoever joins under that name next begins where it may, and misses nothing from there on; the producer is never stuck."""
    out = ring.producer(MESSAGE)
    for name in ("reader", "other"):
        ring.consumer(name, MESSAGE).leave()
    assert write(out.end, 2 * CAPACITY) == 2 * CAPACITY
    modes = set()

    def join() -> None:
        place = at if isinstance(at, str) else ring.position() + at
        read(ring.join("joiner", MESSAGE, at=place).end, 1)

    for steps in deaths(join, ring.name):
        block = next((block for block in ring.readers() if b"joiner" in bytes(block["name"])), None)
        modes.add(None if block is None else int(block["mode"]))
        # The producer goes on as far as it may; a reader that is not there is let go.
        written = write(out.end, steps % 3)
        place = at if isinstance(at, str) else out.position + at
        into = ring.join("joiner", MESSAGE, at=place)
        begun = into.position
        assert 0 <= wrapped(out.position - begun) <= CAPACITY
        assert read(into.end) == wrapped(out.position - begun)
        assert write(out.end, CAPACITY + 1) == CAPACITY, f"{written=}"
        assert read(into.end) == CAPACITY
        into.leave()
        # Again, with nobody of that name to come: the producer lets it go by itself.
        dies_after(join, steps or 1)
        write(out.end, 2 * CAPACITY)
        if claim(out.end) == FULL:
            assert out.evict_dead() == ["joiner"]
            assert write(out.end, 2 * CAPACITY) == 2 * CAPACITY
            ring.consumer("joiner", MESSAGE).leave()
        elif "joiner" in ring.reader_names():
            ring.consumer("joiner", MESSAGE).leave()
    assert {READER_GATING, READER_JOINING} <= modes


@pytest.mark.parametrize("ring", FIRST_POSITIONS.values(), ids=FIRST_POSITIONS, indirect=True)
@pytest.mark.parametrize("let_go_again", [False, True])
def test_dying_while_returning_after_an_eviction(ring: Ring, let_go_again: bool) -> None:
    """However often a reader dies on its way back: what it read and what it is told is lost are all there ever was."""
    out = ring.producer(MESSAGE)
    ring.consumer("other", MESSAGE).leave()
    record = ring.readers()[0]
    chance = random.Random(1)
    first = position = wrapped(int(record["position"]))
    taken = 0

    def come_back() -> None:
        ring.consumer("reader", MESSAGE)

    def let_go() -> None:
        while claim(out.end) != FULL:
            write(out.end, 1)
        assert out.evict_dead() == ["reader"]
        assert write(out.end, 3) == 3

    let_go()
    for steps in deaths(come_back, ring.name):
        write(out.end, chance.randrange(3))
        if let_go_again:
            # As one that had not come all the way back.
            write(out.end, 2 * CAPACITY)
            out.evict_dead()
            write(out.end, 2)
        dies_after(come_back, chance.randrange(1, 2 + 2 * steps))
        write(out.end, chance.randrange(3))
        with ring.consumer("reader", MESSAGE) as into:
            taken += read(into.end, 2)
            position = into.position
            assert taken + int(record["lost"]) == wrapped(position - first), f"{steps=}"
            assert into.local[LOST] == record["lost"]
        let_go()
    assert int(record["lost"]) > 0
    assert taken > 0


def test_dying_while_leaving(ring: Ring) -> None:
    out = ring.producer(MESSAGE)
    ring.consumer("other", MESSAGE).leave()
    ring.consumer("reader", MESSAGE).leave()

    def leave() -> None:
        ring.join("joiner", MESSAGE).leave()

    for _ in deaths(leave, ring.name):
        write(out.end, 2 * CAPACITY)
        if claim(out.end) == FULL:
            assert out.evict_dead() == ["joiner"]
            assert write(out.end, CAPACITY) == CAPACITY
        into = ring.join("joiner", MESSAGE, at="oldest")
        waiting = wrapped(out.position - into.position)
        assert read(into.end) == waiting
        into.leave()


def test_dying_while_letting_dead_readers_go(ring: Ring) -> None:
    """The next producer finishes it: each reader is let go once, and told on its return what it lost."""

    def evict() -> None:
        ring.producer(MESSAGE).evict_dead()

    read_by = {"reader": 0, "other": 0}
    with ring.producer(MESSAGE) as out:
        write(out.end, CAPACITY)
    for _ in deaths(evict, ring.name):
        with ring.producer(MESSAGE) as out:
            write(out.end, 2 * CAPACITY)
            gone = [name for name in read_by if name not in ring.backlog()]
            assert sorted(gone + out.evict_dead()) == ["other", "reader"]
            assert write(out.end, 2 * CAPACITY) == 2 * CAPACITY
            for number, name in enumerate(read_by):
                with ring.consumer(name, MESSAGE) as into:
                    read_by[name] += read(into.end)
                    assert read_by[name] + int(ring.readers()[number]["lost"]) == out.position
            assert write(out.end, 1 + CAPACITY) == CAPACITY
    assert all(read_by.values())


# Kernels, as plain Python, in another interpreter


def test_dying_after_every_store_of_a_kernel(instance: str) -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "tests.test_crash_python", instance]
    finished = subprocess.run(command, env=environment, cwd=Path(__file__).parents[1], capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, f"{finished.stdout}{finished.stderr}"
    print(finished.stdout)
    assert finished.stdout.endswith("every death was survived\n")


def store_by_store(work: Any) -> Iterator[int]:
    """As tests.dying.deaths, with the stores of kernels, and of messages, as steps."""
    steps = 0
    while True:
        steps += 1
        code = wait_for_exit(in_child(lambda steps=steps: _work_until(work, steps)))
        assert code in (0, 77), f"exit code={code} after {steps} stores"
        yield steps if code else 0
        if code == 0:
            return


def _work_until(work: Any, steps: int) -> bool:
    step = count_down(steps)

    def dying(store: Any) -> Any:
        def store_and_die(words: Any, index: int, value: int) -> None:
            store(words, index, value)
            step()

        return store_and_die

    hot.store_release, hot.store_relaxed = dying(hot.store_release), dying(hot.store_relaxed)
    work(step)
    return True


def write_word_by_word(out: Any, step: Any) -> int:
    """One message; a step after each word."""
    index = claim(out)
    if index == FULL:
        return FULL
    slot, number = out.slots[index], int(out.local[POSITION])
    for word in range(7):
        slot.words[word] = number * (2 * word + 1) + word
        step()
    commit(out, index)
    return int(index)


def kernels_of_a_producer(ring: Ring) -> int:
    """Claims, commits, looks at the readers, drops: two laps' worth, so that every slot is once full and once half overwritten."""
    reader, other = ring.consumer("reader", MESSAGE), ring.consumer("other", MESSAGE)
    view, copy = ring.observer(MESSAGE), np.zeros(1, MESSAGE).view(np.recarray)
    seen = 0

    def produce(step: Any) -> None:
        out = ring.producer(MESSAGE).end
        while write_word_by_word(out, step) != FULL:
            pass
        hot.drop(out)

    for count, steps in enumerate(store_by_store(produce), 1):
        joined_beside(ring)
        published = read(reader.end)
        assert read(other.end) == published <= CAPACITY
        with ring.producer(MESSAGE) as out:
            assert out.position == reader.position
            dropped = int(out.record["dropped"])
            assert dropped <= (2 if steps == 0 else 1)
            # Half a lap on, so that the next death is in a ring that wraps elsewhere.
            joined_beside(ring)
            assert write(out.end, 1 + count % 3) == 1 + count % 3
        assert read(reader.end) == read(other.end) == 1 + count % 3
        while (outcome := observe(view.end, copy)) != EMPTY:
            seen += outcome == GOT
            assert outcome == LAPPED or number_of(copy[0]) == wrapped(int(view.end.local[POSITION]) - 1)
    assert seen + view.end.local[LOST] == wrapped(reader.position - wrapped(ring.geometry.first_position))
    # Once by the one that died after the very last store, and once by the one that got through.
    assert dropped == 2
    reader.close(), other.close()
    return count


def joined_beside(ring: Ring) -> None:
    """A reader that joins whatever the dead producer left is at a message that is whole, and gets the next ones."""
    into = ring.join("joiner", MESSAGE, at="oldest")
    waiting = wrapped(ring.position() - into.position)
    assert 0 <= waiting <= CAPACITY
    assert read(into.end) == waiting
    into.leave()


def kernels_of_a_reader(ring: Ring) -> int:
    out, other = ring.producer(MESSAGE), ring.consumer("other", MESSAGE)
    words = ring.blocks[1]

    def consume(_: Any) -> None:
        into = ring.consumer("reader", MESSAGE).end
        read(into, 1)
        hot.reader_beat(into, 7)
        read(into, 2)
        hot.conflate(into)
        release(into)

    count = 0
    for _ in store_by_store(consume):
        count += 1
        into = ring.consumer("reader", MESSAGE)
        assert into.position == int(words[READER_POSITION])
        read(into.end)
        into.close()
        assert write(out.end, CAPACITY + 1) == CAPACITY
        read(other.end)
    with ring.consumer("reader", MESSAGE) as into:
        read(into.end)
    out.close(), other.close()
    return count


def kernels_of_an_observer(ring: Ring) -> int:
    """Being lapped, skipping and remembering: the next one of that name goes on where it says, and is told of losses at least once."""
    out = ring.producer(MESSAGE)
    for name in ("reader", "other"):
        ring.consumer(name, MESSAGE).leave()
    block, copy = ring.readers()[2], np.zeros(1, MESSAGE).view(np.recarray)

    def watch(_: Any) -> None:
        view = ring.observer(MESSAGE, "screen").end
        for _ in range(3):
            assert observe(view, copy) in (GOT, LAPPED)
        hot.conflate(view)
        release(view)

    write(out.end, CAPACITY)
    count = 0
    for _ in store_by_store(watch):
        count += 1
        write(out.end, 2 * CAPACITY)
        with ring.observer(MESSAGE, "screen") as view:
            assert view.end.local[POSITION] == wrapped(int(block["position"]))
            stood, lost, seen = int(view.end.local[POSITION]), int(view.end.local[LOST]), 0
            while (outcome := observe(view.end, copy)) != EMPTY:
                seen += outcome == GOT
                assert outcome == LAPPED or number_of(copy[0]) == wrapped(int(view.end.local[POSITION]) - 1)
            assert wrapped(stood + seen + int(view.end.local[LOST]) - lost) == out.position
            release(view.end)
        write(out.end, 2 * CAPACITY)
    out.close()
    return count


def kernels_of_a_board(name: str) -> int:
    board, copy = Board.create(name, MESSAGE), np.zeros(1, MESSAGE).view(np.recarray)

    def overwrite(step: Any) -> None:
        for number in (1, 2):
            version = hot.board_open(board.records, 0)
            for word in range(7):
                board.records[0].words[word] = number * (2 * word + 1) + word
                step()
            hot.board_close(board.records, 0, version)

    count = 0
    for _ in store_by_store(overwrite):
        count += 1
        version = hot.board_read(board.records, 0, copy)
        assert version == -1 or number_of(copy[0]) in (1, 2, 9), "torn"
        version = hot.board_open(board.records, 0)
        assert hot.board_read(board.records, 0, copy) == -1
        fill_words(board.records[0], 9)
        hot.board_close(board.records, 0, version)
        assert hot.board_read(board.records, 0, copy) == version + 2
        assert number_of(copy[0]) == 9
    board.unlink()
    board.detach()
    return count


def main() -> None:
    name = sys.argv[1]
    for label, first in FIRST_POSITIONS.items():
        for kernels in (kernels_of_a_producer, kernels_of_a_reader, kernels_of_an_observer):
            ring = Ring.create(
                name, CAPACITY, VARIANTS, ["reader", "other"], observers=["screen"], spare=1, when_full="drop", first_position=first
            )
            try:
                print(f"{kernels.__name__} from {label}: deaths={kernels(ring)}")
            finally:
                remove(ring)
    print(f"kernels_of_a_board: deaths={kernels_of_a_board(name)}")
    print("every death was survived")


if __name__ == "__main__":
    main()
