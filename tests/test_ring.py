"""The ring: against its model, between processes, and at its edges."""

import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm.hot import (
    EMPTY,
    FULL,
    GOT,
    LIMIT,
    POSITION,
    PRODUCER_POSITION,
    PRODUCER_WAITS,
    WAITS,
    advance,
    board_close,
    board_open,
    board_read,
    claim,
    commit,
    has_messages,
    has_room,
    observe,
    poll,
    release,
)
from shm.ring import Ring, cursor_name, round_up_capacity
from shm.segment import SHM, SegmentError, remove_if_dead
from shm.table import Board
from tests.children import CHILD_S, in_child, wait_for_exit
from tests.ring_kernels import MESSAGE, await_word, fill, read_batches, read_board, read_numbers, write_board, write_numbers
from tests.ring_model import compare_with_model

VARIANTS = {"message": MESSAGE}
SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
CAPACITIES = [1 << bits for bits in range(1, 11)]


@pytest.fixture(autouse=True)
def _print_seed() -> None:
    print(f"TICKPATH_SEED={SEED}")


def make_ring(name: str, capacity: int, readers: list[str] | None = None, first_position: int = 0) -> Ring:
    return Ring.create(name, capacity, VARIANTS, ["reader"] if readers is None else readers, first_position=first_position)


def remove(ring: Ring) -> None:
    ring.unlink()
    ring.detach()


# Against the model


@pytest.mark.parametrize("capacity", CAPACITIES)
def test_a_ring_is_a_deque_for_each_reader(instance: str, capacity: int) -> None:
    for readers in (0, 1, 3):
        first_position = random.Random(SEED).randrange(1 << 20)
        done = compare_with_model(instance, SEED, capacity, readers, first_position, operations=1_000 + 40 * capacity)
        assert done.published > 2 * capacity, "the ring never wrapped"


@pytest.mark.parametrize("power", [31, 32, 63])
@pytest.mark.parametrize("capacity", [2, 8, 256])
def test_positions_cross_the_ends_of_words(instance: str, capacity: int, power: int) -> None:
    done = compare_with_model(instance, SEED, capacity, 2, (1 << power) - 5 * capacity // 2, operations=1_000 + 60 * capacity)
    assert done.published > 5 * capacity


def test_plain_python_twins_agree_with_the_model(instance: str) -> None:
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    command = [sys.executable, "-m", "tests.ring_model", instance, str(SEED)]
    root = Path(__file__).parents[1]
    finished = subprocess.run(command, env=environment, cwd=root, capture_output=True, text=True, timeout=120)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout == "agreed\n"


# Between processes


@pytest.mark.parametrize(("capacity", "count", "batch"), [(2, 100_000, 1), (64, 1_000_000, 16), (65_536, 4_000_000, 4_096)])
def test_another_process_reads_every_message_whole_and_in_order(instance: str, capacity: int, count: int, batch: int) -> None:
    ring = make_ring(instance, capacity)
    try:
        child = in_child(lambda: read_numbers(ring.consumer("reader", MESSAGE).end, count, batch) == count)
        assert write_numbers(ring.producer(MESSAGE).end, count) == count
        assert wait_for_exit(child) == 0
        assert ring.backlog() == {"reader": 0}
        assert ring.position() == count
    finally:
        remove(ring)


def test_a_reader_by_batches_reads_every_message(instance: str) -> None:
    ring = make_ring(instance, 1_024)
    count = 1 << 21
    try:
        child = in_child(lambda: read_batches(ring.consumer("reader", MESSAGE).end, count, 256) == count)
        assert write_numbers(ring.producer(MESSAGE).end, count) == count
        assert wait_for_exit(child) == 0
    finally:
        remove(ring)


def test_three_readers_in_three_processes_each_read_everything(instance: str) -> None:
    names, count = ["eager", "steady", "lazy"], 300_000
    ring = make_ring(instance, 128, names)
    try:
        batches = dict(zip(names, (1, 16, 100), strict=True))
        children = [in_child(lambda n=name: read_numbers(ring.consumer(n, MESSAGE).end, count, batches[n]) == count) for name in names]
        assert write_numbers(ring.producer(MESSAGE).end, count) == count
        assert [wait_for_exit(child) for child in children] == [0, 0, 0]
        assert ring.backlog() == dict.fromkeys(names, 0)
    finally:
        remove(ring)


def test_a_ring_is_attached_to_by_its_name_alone(instance: str) -> None:
    """A process that inherited nothing: another interpreter."""
    ring = make_ring(instance, 64)
    program = (
        "import sys, engine\n"
        "from shm.ring import Ring\n"
        "from tests.ring_kernels import MESSAGE, read_numbers\n"
        "ring = Ring.attach(sys.argv[1], {'message': MESSAGE})\n"
        "print(read_numbers(ring.consumer('reader', MESSAGE).end, 10_000, 8))\n"
    )
    try:
        command = [sys.executable, "-c", program, instance]
        with subprocess.Popen(command, cwd=Path(__file__).parents[1], stdout=subprocess.PIPE, text=True) as reader:
            assert write_numbers(ring.producer(MESSAGE).end, 10_000) == 10_000
            output, _ = reader.communicate(timeout=CHILD_S)
        assert output == "10000\n"
    finally:
        remove(ring)


def test_a_kernel_that_spins_on_a_word_sees_it_change(instance: str) -> None:
    ring = make_ring(instance, 2)
    try:
        words = ring.producer(MESSAGE).words[12:]
        child = in_child(lambda: await_word(words, 7) == 0)
        while words[1] == 0:
            os.sched_yield()
        words[0] = 7
        assert wait_for_exit(child) == 0
    finally:
        remove(ring)


# Edges


def test_a_slow_reader_gates_and_what_it_holds_stays_as_it_was(instance: str) -> None:
    ring = make_ring(instance, 8, ["slow", "quick"])
    try:
        role = ring.producer(MESSAGE)
        out, slow, quick = role.end, ring.consumer("slow", MESSAGE).end, ring.consumer("quick", MESSAGE).end
        for number in range(8):
            write_number(out, number)
            advance(quick)
        release(quick)
        assert claim(out) == FULL
        held = poll(slow)
        advance(slow)
        assert claim(out) == FULL, "read, but not given back yet"
        assert slow.slots[held]["a"] == 0
        release(slow)
        assert claim(out) == held
        assert not has_room(out, 2)
        assert role.words[PRODUCER_WAITS] == out.local[WAITS] == 3
        assert ring.backlog() == {"slow": 7, "quick": 0}
    finally:
        remove(ring)


def test_room_is_granted_up_to_the_capacity_and_no_further(instance: str) -> None:
    ring = make_ring(instance, 8)
    try:
        out = ring.producer(MESSAGE).end
        assert [has_room(out, count) for count in (1, 8, 9)] == [True, True, False]
        for number in range(3):
            write_number(out, number)
        assert [has_room(out, count) for count in (5, 6)] == [True, False]
        into = ring.consumer("reader", MESSAGE).end
        assert [has_messages(into, count) for count in (1, 3, 4, 8, 9)] == [True, True, False, False, False]
    finally:
        remove(ring)


def test_the_readers_are_only_looked_at_when_the_limit_is_reached(instance: str) -> None:
    ring = make_ring(instance, 8)
    try:
        role = ring.producer(MESSAGE)
        out, into = role.end, ring.consumer("reader", MESSAGE).end
        write_number(out, 0)
        advance(into)
        release(into)
        write_number(out, 1)
        assert out.local[LIMIT] == 8, "a claim below the limit looked at the reader"
        for number in range(2, 9):
            write_number(out, number)
        assert out.local[LIMIT] == 9
        assert role.words[PRODUCER_POSITION] == 8
    finally:
        remove(ring)


def test_a_producer_follows_one_that_died_inside_a_slot(instance: str) -> None:
    ring = make_ring(instance, 4)

    def die_inside_a_slot() -> None:
        out = ring.producer(MESSAGE).end
        for number in range(3):
            write_number(out, number)
        fill(out.slots[claim(out)], 999)
        os._exit(7)

    try:
        assert wait_for_exit(in_child(die_inside_a_slot)) == 7
        into = ring.consumer("reader", MESSAGE).end
        assert ring.position() == 3
        write_number(ring.producer(MESSAGE).end, 3)
        assert [read_number(into) for _ in range(5)] == [0, 1, 2, 3, EMPTY]
    finally:
        remove(ring)


def test_a_returning_reader_resumes_at_what_it_gave_back(instance: str) -> None:
    ring = make_ring(instance, 8)
    try:
        out, first = ring.producer(MESSAGE).end, ring.consumer("reader", MESSAGE)
        for number in range(5):
            write_number(out, number)
        assert [read_number(first.end) for _ in range(2)] == [0, 1]
        release(first.end)
        assert read_number(first.end) == 2
        first.close()
        again = ring.consumer("reader", MESSAGE).end
        assert [read_number(again) for _ in range(4)] == [2, 3, 4, EMPTY]
    finally:
        remove(ring)


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        ({"capacity": 3}, "capacity=3: expected a power of two, at least 2; the next one is 4"),
        ({"capacity": 1}, "capacity=1"),
        ({"capacity": 0}, "capacity=0"),
        ({"variants": {"odd": np.dtype([("sequence", "u8"), ("x", "u8")])}}, "variant=odd of bytes=16: expected a multiple of 64"),
        ({"readers": ["twice", "twice"]}, "twice"),
        ({"readers": [f"r{n}" for n in range(16)]}, "at most 15"),
        ({"readers": [""]}, "reader=''"),
        ({"readers": ["x" * 24]}, "expected 1 to 23 printable ASCII"),
        ({"readers": ["é"]}, "expected 1 to 23 printable ASCII"),
    ],
)
def test_a_ring_of_an_impossible_shape_is_refused(instance: str, arguments: dict[str, Any], complaint: str) -> None:
    with pytest.raises(ValueError, match=complaint):
        Ring.create(**{"name": instance, "capacity": 4, "variants": VARIANTS, "readers": ["reader"], **arguments})


def test_unknown_readers_and_records_of_another_size_are_refused(instance: str) -> None:
    ring = make_ring(instance, 4, ["strategy"])
    try:
        with pytest.raises(ValueError, match=r"reader='other' .*: expected one of \['strategy'\]"):
            ring.consumer("other", MESSAGE)
        with pytest.raises(ValueError, match="bytes=128, expected 64"):
            ring.view(np.dtype([("sequence", "u8"), ("rest", "u1", (120,))]))
    finally:
        remove(ring)


def test_a_ring_and_its_cursors_belong_together(instance: str) -> None:
    ring, other = make_ring(instance, 4, ["a"]), make_ring(f"{instance}-other", 4, ["a", "b"])
    try:
        (SHM / cursor_name(instance)).unlink()
        with pytest.raises(SegmentError, match="there is none"):
            Ring.attach(instance, VARIANTS)
        (SHM / cursor_name(f"{instance}-other")).rename(SHM / cursor_name(instance))
        with pytest.raises(SegmentError, match="it belongs to another ring of this name"):
            Ring.attach(instance, VARIANTS)
    finally:
        ring.detach()
        other.detach()
        for left in SHM.glob(f"{instance}*"):
            left.unlink()


def test_the_cursors_of_a_ring_are_removed_after_its_slots(instance: str) -> None:
    """Whoever finds slots finds their own cursors beside them."""
    make_ring(instance, 4).detach()
    assert not remove_if_dead(cursor_name(instance))
    assert remove_if_dead(instance)
    assert remove_if_dead(cursor_name(instance))


def test_an_observer_leaves_a_slot_alone_that_somebody_scribbled_on(instance: str) -> None:
    ring = make_ring(instance, 8, [])
    try:
        out, view = ring.producer(MESSAGE), ring.observer(MESSAGE)
        copy = np.zeros(1, MESSAGE).view(np.recarray)
        out.end.slots[0]["sequence"] = (1 << 31) - 1
        assert [observe(view.end, copy) for _ in range(3)] == [EMPTY] * 3
        assert view.lost == 0
        assert write_numbers(out.end, 1) == 1
        assert observe(view.end, copy) == GOT
    finally:
        remove(ring)


def test_a_name_that_is_taken_leaves_neither_slots_nor_cursors(instance: str) -> None:
    (SHM / instance).touch()
    try:
        with pytest.raises(SegmentError, match="exists already"):
            make_ring(instance, 4)
        assert not (SHM / cursor_name(instance)).exists()
    finally:
        (SHM / instance).unlink()


@pytest.mark.parametrize(("slots", "capacity"), [(0, 2), (1, 2), (2, 2), (3, 4), (64, 64), (65, 128)])
def test_capacities_are_rounded_up(slots: int, capacity: int) -> None:
    assert round_up_capacity(slots) == capacity


# Boards


def test_a_board_is_never_read_torn(instance: str) -> None:
    board, stop = Board.create(instance, MESSAGE), Board.create(f"{instance}.stop", MESSAGE)
    seen = np.zeros(5, np.int64)
    copy = np.zeros(1, MESSAGE).view(np.recarray)
    try:
        child = in_child(lambda: write_board(board.records, stop.words()[0]) > 0)
        # On a busy machine it takes a while before both run at the same time.
        deadline = time.monotonic() + CHILD_S / 2
        while seen[4] < 1_000 and time.monotonic() < deadline:
            read_board(board.records, copy, 100_000, seen)
        stop.words()[0, 0] = 1
        assert wait_for_exit(child) == 0
    finally:
        board.unlink()
        stop.unlink()
    whole, busy, torn, went_back, changes = seen.tolist()
    print(f"whole={whole} busy={busy} torn={torn} went_back={went_back} changes={changes}")
    assert torn == went_back == 0
    assert changes >= 1_000


def test_versions_of_a_board_line(instance: str) -> None:
    board = Board.create(instance, MESSAGE, 2)
    copy = np.zeros(1, MESSAGE).view(np.recarray)
    try:
        assert board_read(board.records, 1, copy) == 0, "never written"
        version = board_open(board.records, 1)
        assert board_read(board.records, 1, copy) == -1, "being written"
        fill(board.records[1], 5)
        board_close(board.records, 1, version)
        assert board_read(board.records, 1, copy) == 2
        assert copy[0]["a"] == 5
        board_close(board.records, 1, board_open(board.records, 1))
        assert board_read(board.records, 1, copy) == 4
        assert board_read(board.records, 0, copy) == 0
    finally:
        board.unlink()


def test_the_writer_after_one_that_died_in_a_line_makes_it_whole(instance: str) -> None:
    board = Board.create(instance, MESSAGE)
    copy = np.zeros(1, MESSAGE).view(np.recarray)
    try:
        board_open(board.records, 0)
        version = board_open(board.records, 0)
        assert board_read(board.records, 0, copy) == -1, "the successor is writing"
        fill(board.records[0], 8)
        board_close(board.records, 0, version)
        assert board_read(board.records, 0, copy) == 2
        assert copy[0]["a"] == 8
    finally:
        board.unlink()


def write_number(out: Any, number: int) -> None:
    index = claim(out)
    assert index != FULL
    fill(out.slots[index], number)
    commit(out, index)


def read_number(into: Any) -> int:
    index = poll(into)
    if index == EMPTY:
        return EMPTY
    number = int(into.slots[index]["a"])
    advance(into)
    assert into.local[POSITION] == number + 1
    return number
