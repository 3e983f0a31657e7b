"""Plain Python at the ends of a ring: what it pushes and polls, what it does at a full ring, and when it is refused."""

import gc
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm.face import ROWS
from shm.hot import FULL, advance, board_close, board_open, claim, commit, poll, release
from shm.ring import Ring
from shm.segment import SegmentError
from shm.table import Board
from tests.children import child, in_child, kill, stopped, until, wait_for_exit

ROOT = Path(__file__).parents[1]
SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
QUOTE = np.dtype([("sequence", "u8"), ("px", "i8"), ("qty", "i8"), ("rest", "u1", 40)])
PAYLOAD = np.dtype([("px", "i8"), ("qty", "i8"), ("rest", "u1", 40)])

PAIR = np.dtype([("sequence", "u8"), ("a", "u8"), ("rest", "u1", 40), ("b", "u8")])


def wide(lines: int) -> np.dtype:
    return np.dtype([("sequence", "u8"), ("px", "i8"), ("rest", "u1", 64 * lines - 16)])


@pytest.fixture(autouse=True)
def _print_seed() -> None:
    print(f"TICKPATH_SEED={SEED}")


@pytest.fixture
def rings(instance: str) -> Iterator[Any]:
    made: list[Ring] = []

    def make(capacity: int = 8, dtype: np.dtype = QUOTE, readers: Any = ("reader",), **options: Any) -> Ring:
        made.append(Ring.create(f"{instance}-{len(made)}", capacity, {"quote": dtype}, list(readers), **options))
        return made[-1]

    yield make
    for ring in made:
        ring.unlink()
        ring.detach()


def payload(number: int, size: int = 56) -> bytes:
    """Bytes that all follow from a number."""
    return random.Random(number).randbytes(size)


def quote(px: int) -> np.void:
    record = np.zeros(1, QUOTE)[0]
    record["px"] = px
    return record


def quotes(first: int, count: int) -> np.ndarray:
    array = np.zeros(count, QUOTE)
    array["px"] = np.arange(first, first + count)
    return array


# Messages


@pytest.mark.parametrize("lines", [1, 2, 3, 4])
def test_every_form_of_a_message_arrives_as_every_form(rings: Any, lines: int) -> None:
    dtype = wide(lines)
    ring = rings(dtype=dtype)
    out, into, watcher = ring.producer(dtype), ring.consumer("reader", dtype), ring.observer(dtype)
    raw = payload(lines, dtype.itemsize - 8)
    record = np.frombuffer(bytes(8) + raw, dtype)[0]
    for form in (raw, bytearray(raw), memoryview(raw), record, np.array(record), bytes(8) + raw, np.frombuffer(raw, np.uint8)):
        assert out.push(form)
        assert watcher.poll_bytes() == raw
        assert into.poll_bytes() == raw
        assert out.push(form)
        for polled in (into.poll(), watcher.poll()):
            assert polled is not None
            assert polled.dtype == dtype
            assert polled.tobytes()[8:] == raw
            assert int(polled["sequence"]) == out.position
    assert into.poll() is None
    assert into.poll_bytes() is None


def test_a_draft_is_filled_field_by_field_and_pushed_as_often_as_wanted(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    out.draft["px"] = 7
    out.draft["qty"] = -1
    assert out.push(out.draft)
    out.draft["px"] = 8
    assert into.poll()["px"] == 7
    assert into.poll() is None, "a draft is private until it is pushed"
    assert out.push(out.draft)
    assert into.poll().tolist()[:3] == (2, 8, -1)


@pytest.mark.parametrize("message", [b"", bytes(55), bytes(57), bytes(65), bytearray(8), np.zeros(2, QUOTE), np.int64(3)])
def test_a_message_of_another_size_is_refused_and_nothing_is_published(rings: Any, message: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    with pytest.raises(ValueError, match=r"message of bytes=\d+: expected a payload of 56, or a record of 8 more"):
        out.push(message)
    with pytest.raises(TypeError):
        out.push(5)
    assert into.poll() is None
    assert ring.position() == 0


def test_what_was_polled_stays_as_it_was(rings: Any) -> None:
    ring = rings(4)
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    kept = []
    for number in range(3 * ROWS + 5):
        assert out.push(quote(number))
        kept.append(into.poll())
    gc.collect()
    assert [int(message["px"]) for message in kept] == list(range(3 * ROWS + 5))


@pytest.mark.parametrize("first_position", [0, (1 << 64) - 9, (1 << 63) - 9, (1 << 32) - 9])
def test_batches_are_the_same_messages_as_single_ones(rings: Any, first_position: int) -> None:
    ring = rings(16, first_position=first_position, readers=["one", "many", "bare"])
    out, one, many, bare = ring.producer(QUOTE), *(ring.consumer(name, QUOTE) for name in ("one", "many", "bare"))
    watcher = ring.observer(QUOTE)
    dice = random.Random(SEED)
    sent, seen = 0, {name: [] for name in ("one", "many", "bare", "watcher")}
    while sent < 500:
        batch = quotes(sent, dice.randrange(1, 17))
        form = dice.choice([batch, np.frombuffer(b"".join(record.tobytes()[8:] for record in batch), PAYLOAD)])
        assert out.push_many(form) == len(batch)
        sent += len(batch)
        while (message := one.poll()) is not None:
            seen["one"].append(int(message["px"]))
        while n := many.poll_many(array := np.zeros(dice.randrange(1, 20), QUOTE)):
            seen["many"] += array["px"][:n].tolist()
            assert array["sequence"][:n].tolist() == [(first_position + px + 1) % (1 << 64) for px in array["px"][:n].tolist()]
        while n := bare.poll_many(array := np.zeros(dice.randrange(1, 20), PAYLOAD)):
            seen["bare"] += array["px"][:n].tolist()
        while n := watcher.poll_many(array := np.zeros(dice.randrange(1, 20), PAYLOAD)):
            seen["watcher"] += array["px"][:n].tolist()
        assert watcher.lost == 0
    assert all(numbers == list(range(sent)) for numbers in seen.values())


@pytest.mark.parametrize(
    "array",
    [np.zeros(4, np.int64), np.zeros(8, QUOTE)[::2], np.zeros(4, wide(2)), np.zeros((4, 48), np.uint8)],
)
def test_arrays_that_are_not_records_in_a_row_are_refused(rings: Any, array: np.ndarray) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    for call in (out.push_many, into.poll_many):
        with pytest.raises(ValueError, match="expected records of 64 bytes, or 56 without the sequence, contiguous"):
            call(array)
    fixed = np.zeros(2, QUOTE)
    fixed.flags.writeable = False
    assert out.push_many(fixed) == 2
    with pytest.raises(ValueError, match="contiguous and writable"):
        into.poll_many(fixed)
    assert into.poll_many(np.zeros(0, QUOTE)) == out.push_many(np.zeros(0, QUOTE)) == 0


def test_rows_of_bytes_are_payloads(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    rows = np.random.default_rng(SEED).integers(0, 256, (5, 56), np.uint8)
    assert out.push_many(rows) == 5
    copy = np.zeros((8, 56), np.uint8)
    assert into.poll_many(copy) == 5
    assert np.array_equal(copy[:5], rows)


def test_a_kernel_and_plain_python_take_turns_at_one_end(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    for number in range(0, 40, 2):
        index = claim(out.end)
        out.end.slots[index]["px"] = number
        commit(out.end, index)
        assert out.push(quote(number + 1))
        assert into.poll()["px"] == number
        assert into.end.slots[poll(into.end)]["px"] == number + 1
        advance(into.end)
        release(into.end)


# At least once


def test_a_message_is_given_back_when_the_next_one_is_asked_for(rings: Any) -> None:
    ring = rings(2)
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    assert out.push_many(quotes(0, 2)) == 2
    assert into.poll()["px"] == 0
    assert not out.push(quote(2), timeout=0), "the reader may still be at it"
    assert into.poll()["px"] == 1
    assert out.push(quote(2), timeout=0)
    into.release()
    assert out.push(quote(3), timeout=0)
    assert ring.backlog() == {"reader": 2} and into.backlog == 2


@pytest.mark.parametrize("form", ["poll", "poll_bytes", "poll_many", "messages"])
def test_what_was_not_given_back_comes_again(rings: Any, form: str) -> None:
    ring = rings()
    out = ring.producer(QUOTE)
    out.push_many(quotes(0, 6))
    with ring.consumer("reader", QUOTE) as into:
        for _ in range(3):
            {
                "poll": into.poll,
                "poll_bytes": into.poll_bytes,
                "poll_many": lambda into=into: into.poll_many(np.zeros(1, QUOTE)),
                "messages": lambda into=into: next(into.messages(0)),
            }[form]()
        assert into.position == 3
    with ring.consumer("reader", QUOTE) as again:
        assert [message["px"] for message in again.messages(0)] == [2, 3, 4, 5]
    with ring.consumer("reader", QUOTE) as done:
        assert done.poll() is None, "an end of silence gave the last one back"


def test_a_reader_that_is_killed_reads_again_what_it_had_not_given_back(rings: Any) -> None:
    ring = rings(64)
    out = ring.producer(QUOTE)
    out.push_many(quotes(0, 40))

    def read_and_hang() -> None:
        into = ring.consumer("reader", QUOTE)
        into.poll_many(np.zeros(10, QUOTE))
        into.poll_many(np.zeros(7, QUOTE))
        signal.pause()

    with child(read_and_hang):
        until(lambda: ring.backlog()["reader"] == 30, "the child reads")
    with ring.consumer("reader", QUOTE) as into:
        assert [message["px"] for message in into.messages(0)] == list(range(10, 40))


# A full ring


def test_wait_is_bounded_and_counted(rings: Any) -> None:
    ring = rings(4)
    out = ring.producer(QUOTE)
    assert out.push_many(quotes(0, 7), timeout=0.01) == 4
    assert not out.push(quote(4), timeout=0)
    assert not out.push(quote(4), timeout=0.02)
    assert (int(out.record["waits"]), int(out.record["dropped"])) == (3, 0), "once for each call that found no room"


@pytest.mark.parametrize("timeout", [10, None])
def test_wait_ends_when_the_reader_gives_back(rings: Any, timeout: float | None) -> None:
    ring = rings(4)

    def read() -> bool:
        into = ring.consumer("reader", QUOTE)
        until(lambda: ring.blocks[0][4] > 0, "the producer waits")
        return [message["px"] for _, message in zip(range(40), into.messages(10), strict=False)] == list(range(40))

    with child(read) as pid:
        out = ring.producer(QUOTE)
        assert out.push_many(quotes(0, 20), timeout) == 20
        assert all(out.push(quote(number), timeout) for number in range(20, 40))
        assert wait_for_exit(pid) == 0


def test_drop_gives_up_at_once_and_counts(rings: Any) -> None:
    ring = rings(4, when_full="drop")
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    assert out.push_many(quotes(0, 7), timeout=None) == 4
    assert not out.push(quote(7), timeout=None)
    assert int(out.record["dropped"]) == 4
    assert [message["px"] for message in into.messages(0)] == [0, 1, 2, 3]
    assert out.push(quote(8))
    out.close()
    again = ring.producer(QUOTE)
    assert again.push_many(quotes(9, 4)) == 3
    assert int(again.record["dropped"]) == 5, "counted on over a restart"


def test_evict_lets_the_dead_go_and_drops_on_the_living(rings: Any) -> None:
    ring = rings(4, when_full="evict", readers=["dead", "hung"])
    with child(lambda: ring.consumer("hung", QUOTE) and signal.pause()) as hung:
        until(lambda: ring.is_held(2), "the child has its role")
        os.kill(hung, signal.SIGSTOP)
        until(lambda: stopped(hung), "the child is stopped")
        out = ring.producer(QUOTE)
        assert out.push_many(quotes(0, 4)) == 4
        assert not out.push(quote(4), timeout=0.02)
        assert (int(out.record["evicted"]), int(out.record["dropped"])) == (1, 1)
        assert ring.backlog() == {"hung": 4}
    assert out.push(quote(5), timeout=0), "nobody is left to wait for"
    assert int(out.record["evicted"]) == 2
    with ring.consumer("dead", QUOTE) as into:
        # With nobody to wait for, the producer had taken a whole lap of room: nothing older is safe.
        assert into.lost == 4
        out.push(quote(6))
        assert into.poll()["px"] == 5
        assert (into.lost_now, into.lost_from) == (4, 0)
        assert [message["px"] for message in into.messages(0)] == [6]
        assert into.lost_now == 0


def test_a_reader_that_dies_while_the_producer_waits_is_let_go(rings: Any) -> None:
    ring = rings(2, when_full="evict")
    pid = in_child(lambda: ring.consumer("reader", QUOTE) and signal.pause())
    until(lambda: ring.is_held(1), "the child has its role")
    out = ring.producer(QUOTE)
    out.push_many(quotes(0, 2))
    killer = threading.Thread(target=lambda: until(lambda: int(out.record["waits"]), "the producer waits") and kill(pid))
    killer.start()
    assert out.push(quote(2), timeout=None)
    killer.join()


# Observers


def test_an_observer_is_told_what_it_missed(rings: Any) -> None:
    ring = rings(8, readers=())
    out, single, many = ring.producer(QUOTE), ring.observer(QUOTE), ring.observer(QUOTE)
    out.push_many(quotes(0, 3))
    assert single.poll()["px"] == 0
    assert single.lost_now == 0
    out.push_many(quotes(3, 20))
    # The newest is 22; the oldest that is still there is 15, and a quarter of the ring ahead of it is 17.
    array = np.zeros(8, QUOTE)
    assert single.poll()["px"] == 17
    assert (single.lost_now, single.lost_from, single.lost) == (16, 1, 16)
    assert many.poll_many(array) == 6
    assert array["px"][:6].tolist() == [17, 18, 19, 20, 21, 22]
    assert (many.lost_now, many.lost_from, many.lost) == (17, 0, 17)
    assert single.poll()["px"] == 18
    assert single.lost_now == 0
    assert many.poll() is None
    assert many.lost_now == 0


def test_an_observer_accounts_for_every_message(rings: Any) -> None:
    dice = random.Random(SEED)
    for capacity in (2, 4, 16):
        ring = rings(capacity, readers=(), first_position=(1 << 64) - 50)
        out, watcher = ring.producer(QUOTE), ring.observer(QUOTE)
        sent = next_one = 0
        for _ in range(400):
            count = dice.choice([0, 1, capacity // 2, capacity, 3 * capacity])
            assert out.push_many(quotes(sent, count)) == count
            sent += count
            array = np.zeros(dice.randrange(1, 2 * capacity), QUOTE)
            n = watcher.poll_many(array)
            assert n == 0 or watcher.lost_from % (1 << 64) == (next_one - 50) % (1 << 64) or watcher.lost_now == 0
            next_one += watcher.lost_now
            assert array["px"][:n].tolist() == list(range(next_one, next_one + n))
            next_one += n
        assert watcher.lost > 0


def test_a_named_observer_goes_on_where_it_gave_back(rings: Any) -> None:
    ring = rings(16, observers=["log"])
    out = ring.producer(QUOTE)
    out.push_many(quotes(0, 9))
    with ring.observer(QUOTE, "log") as log:
        assert log.poll_many(np.zeros(4, QUOTE)) == 4
        log.release()
        assert log.poll()["px"] == 4
    with ring.observer(QUOTE, "log") as log:
        assert [message["px"] for message in log.messages(0)] == [4, 5, 6, 7, 8]


def test_conflating_goes_to_the_newest(rings: Any) -> None:
    ring = rings(16)
    out, into, watcher = ring.producer(QUOTE), ring.consumer("reader", QUOTE), ring.observer(QUOTE)
    out.push_many(quotes(0, 10))
    for reader in (into, watcher):
        assert reader.backlog == 10
        assert reader.conflate() == 9
        assert reader.conflate() == 0
        assert reader.poll()["px"] == 9
        assert (reader.lost_now, reader.lost_from, reader.lost) == (9, 0, 9)
        assert reader.backlog == 0
    out.push_many(quotes(10, 4))
    assert (into.conflate(), watcher.conflate()) == (3, 3)
    out.push_many(quotes(14, 2))
    for reader in (into, watcher):
        assert reader.conflate() == 2
        assert reader.lost_now == 9, "told with the next message"
        assert reader.poll()["px"] == 15
        assert (reader.lost_now, reader.lost_from, reader.lost) == (5, 10, 14)


# Waiting


@pytest.mark.parametrize("form", ["poll", "poll_bytes", "poll_many", "messages", "push"])
def test_a_wait_leaves_the_interpreter_to_other_threads(rings: Any, form: str) -> None:
    """The thread that ends the wait runs in the same interpreter: it could not if the GIL were held."""
    ring = rings(2)
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    into.spin_s = 1e9
    if form == "push":
        out.push_many(quotes(0, 2))
        into.poll()
    other = threading.Timer(0.05, lambda: into.release() if form == "push" else out.push(quote(5)))
    other.start()
    array = np.zeros(2, QUOTE)
    answer = {
        "poll": lambda: into.poll(60)["px"],
        "poll_bytes": lambda: len(into.poll_bytes(60)) == 56 and 5,
        "poll_many": lambda: into.poll_many(array, 60) and array["px"][0],
        "messages": lambda: next(into.messages(60))["px"],
        "push": lambda: out.push(quote(5), 60) and 5,
    }[form]()
    other.join()
    assert answer == 5


def test_silence_ends_the_messages(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    out.push_many(quotes(0, 5))
    began = time.monotonic()
    assert [message["px"] for message in into.messages(0.05)] == [0, 1, 2, 3, 4]
    assert time.monotonic() - began >= 0.05
    assert into.poll(0.01) is None
    assert into.poll_bytes(0.01) is None
    assert into.poll_many(np.zeros(1, QUOTE), 0.01) == 0


def test_closing_ends_the_messages_of_another_thread(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    out.push(quote(0))
    got: list[Any] = []

    def read() -> None:
        got.extend(int(message["px"]) for message in into.messages())
        got.append("ended")

    reading = threading.Thread(target=read)
    reading.start()
    until(lambda: ring.backlog()["reader"] == 0, "the thread waits for more")
    into.close()
    reading.join(60)
    assert not reading.is_alive()
    assert got == [0, "ended"]


@pytest.mark.parametrize("call", ["into.poll(None)", "list(into.messages())", "out.push_many(array, None)"])
def test_ctrl_c_ends_a_wait(rings: Any, call: str) -> None:
    ring = rings(2)

    def wait() -> bool:
        signal.signal(signal.SIGINT, signal.default_int_handler)
        out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
        array = quotes(0, 3)
        ring.open_cursors().words()[8] = 1
        try:
            eval(call, {"out": out, "into": into, "array": array})
        except KeyboardInterrupt:
            return True
        return False

    with child(wait) as pid:
        until(lambda: ring.blocks[0][8] == 1, "the child is about to wait")
        while (ended := os.waitpid(pid, os.WNOHANG)) == (0, 0):
            os.kill(pid, signal.SIGINT)
            time.sleep(0.02)
        assert os.waitstatus_to_exitcode(ended[1]) == 0


# Boards


def test_a_board_line_is_read_as_it_was_written(instance: str) -> None:
    board = Board.create(instance, QUOTE, 3)
    try:
        assert [board.read(key) for key in range(3)] == [None] * 3
        for turn in (1, 2, 3):
            board.write(1, quote(turn))
            read = board.read(1)
            assert (int(read["sequence"]), int(read["px"])) == (2 * turn, turn)
        board.records[1]["px"] = 0
        assert read["px"] == 3, "a copy"
        assert board.read(0) is board.read(2) is None
        version = board_open(board.records, 1)
        assert board.read(1) is None, "its writer is at it"
        board_close(board.records, 1, version)
        assert board.read(1)["sequence"] == 8
        for key in (-1, 3):
            with pytest.raises(IndexError, match=f"key={key}: expected 0 to 2"):
                board.read(key)
        with pytest.raises(ValueError, match="record of bytes=128: expected 64"):
            board.write(0, np.zeros(1, wide(2))[0])
    finally:
        board.unlink()
        board.detach()


def test_a_board_line_is_whole_while_it_changes(instance: str) -> None:
    board, stop = Board.create(instance, PAIR), Board.create(f"{instance}.stop", PAIR)

    def write() -> bool:
        record = np.zeros(1, PAIR)
        while not stop.records[0]["a"]:
            record["a"] += 1
            record["b"] = ~record["a"]
            board.write(0, record[0])
        return True

    try:
        with child(write) as pid:
            seen = set()

            def changes() -> int:
                if (read := board.read(0)) is not None:
                    assert read["b"] == ~read["a"]
                    assert read["sequence"] == 2 * read["a"]
                    seen.add(int(read["a"]))
                return len(seen)

            until(lambda: changes() > 500, "the line changes")
            stop.records[0]["a"] = 1
            assert wait_for_exit(pid) == 0
    finally:
        for made in (board, stop):
            made.unlink()
            made.detach()


# Life and death


def test_both_ends_tell_that_they_live(rings: Any) -> None:
    ring = rings()
    out, into = ring.producer(QUOTE), ring.consumer("reader", QUOTE)
    seen = set()

    def beats_seen() -> int:
        out.push(quote(1))
        into.poll()
        seen.add((int(out.record["heartbeat"]), int(into.record["heartbeat"])))
        return len(seen)

    assert beats_seen() == 1, "an end that never gave a sign of life gives none by itself"
    out.beat()
    into.beat()
    until(lambda: beats_seen() > 9, "heartbeats move")
    assert all(a > 0 and b > 0 for a, b in seen - {(0, 0)})


def test_restarts_are_told(rings: Any) -> None:
    ring = rings()
    out, into, watcher = ring.producer(QUOTE), ring.consumer("reader", QUOTE), ring.observer(QUOTE)
    assert into.restarts() == watcher.restarts() == 0
    for _ in range(2):
        out.close()
        out = ring.producer(QUOTE)
    assert (into.restarts(), watcher.restarts()) == (2, 2)
    assert into.restarts() == 0


@pytest.mark.parametrize(
    "call",
    [
        "out.push(bytes(56))", "out.push_many(array)", "into.poll()", "into.poll(1)", "into.poll_bytes()", "into.poll_bytes(1)",
        "into.poll_many(array)", "into.release()", "into.conflate()", "into.restarts()", "into.backlog", "next(into.messages(1))",
        "watcher.poll()", "watcher.release()",
    ],
)  # fmt: skip
def test_a_closed_end_says_so(rings: Any, call: str) -> None:
    ring = rings(observers=["log"])
    ends = {"out": ring.producer(QUOTE), "into": ring.consumer("reader", QUOTE), "watcher": ring.observer(QUOTE, "log")}
    ends["out"].push_many(quotes(0, 2))
    for end in ends.values():
        end.close()
        end.close()
    with pytest.raises(SegmentError, match=r"of ring .*: closed; take the role again"):
        eval(call, {**ends, "array": quotes(0, 3)})
    assert ring.position() == 2


@pytest.mark.parametrize("call", ["out.push(bytes(56))", "out.push_many(array)", "into.poll()", "into.poll_many(array)", "into.release()"])
def test_an_end_that_was_taken_over_says_so(rings: Any, call: str) -> None:
    """An epoch that is not its own is how an end learns of it; a holder that lives is never taken over, but for a lock that was lost."""
    ring = rings(4)
    ends = {"out": ring.producer(QUOTE), "into": ring.consumer("reader", QUOTE)}
    ends["out"].push_many(quotes(0, 4))
    assert ends["into"].poll()["px"] == 0
    for end in ends.values():
        end.record["epoch"] += 1
    with pytest.raises(SegmentError, match=r"of ring .*: another process has taken the role since"):
        eval(call, {**ends, "array": quotes(0, 3)})
    assert ring.backlog() == {"reader": 4}


@pytest.mark.parametrize("call", ["out.push(bytes(56))", "out.push_many(array)", "into.poll()", "into.poll_many(array)", "into.release()"])
def test_a_forked_child_does_not_have_its_parents_roles(rings: Any, call: str) -> None:
    ring = rings()
    ends = {"out": ring.producer(QUOTE), "into": ring.consumer("reader", QUOTE)}
    ends["out"].push_many(quotes(0, 3))
    ends["into"].poll()

    def misuse() -> bool:
        with pytest.raises(SegmentError, match=rf"was forked from {os.getppid()}, which has the role; take it after the fork"):
            eval(call, {**ends, "array": quotes(0, 3)})
        return claim(ends["out"].end) == FULL

    assert wait_for_exit(in_child(misuse)) == 0
    assert ring.position() == 3 and ring.backlog() == {"reader": 3}
    assert ends["out"].push(quote(3)) and ends["into"].poll()["px"] == 1, "the parent goes on"


def test_a_child_that_outlives_the_holder_keeps_no_lock(rings: Any) -> None:
    ring = rings()
    read_end, write_end = os.pipe()

    def holder() -> None:
        out = ring.producer(QUOTE)
        os.write(write_end, b"%12d" % in_child(lambda: signal.pause()))
        out.push(quote(0))
        signal.pause()

    with child(holder):
        grandchild = int(os.read(read_end, 12))
        until(lambda: ring.position() == 1, "the holder has published")
        assert ring.is_held(0)
    try:
        assert not ring.is_held(0)
        assert ring.producer(QUOTE).push(quote(1))
    finally:
        os.kill(grandchild, signal.SIGKILL)
        os.close(read_end)
        os.close(write_end)


def test_plain_python_compiles_no_kernel(instance: str) -> None:
    program = f"""
import numpy as np, numba
from numba.core.dispatcher import Dispatcher
Dispatcher.compile = lambda *a: (_ for _ in ()).throw(SystemExit("a kernel was compiled"))
from shm.ring import Ring
Q = np.dtype([("sequence", "u8"), ("px", "i8"), ("rest", "u1", 48)])
ring = Ring.create({instance!r}, 4, {{"q": Q}}, ["reader"], spare=1, when_full="evict")
try:
    out, into, watcher, late = ring.producer(Q), ring.consumer("reader", Q), ring.observer(Q), ring.join("late", Q)
    array = np.zeros(9, Q)
    into.close(); late.close()
    print(out.push_many(array, 0), out.push(bytes(56), 0), watcher.poll()["px"], watcher.poll_many(array), watcher.conflate())
    print(ring.consumer("reader", Q).poll_many(array), ring.position(), ring.backlog())
    from shm.hot import claim
    claim(out.end)
finally:
    ring.unlink()
"""
    environment = {**os.environ, "NUMBA_CACHE_DIR": os.devnull}
    finished = subprocess.run([sys.executable, "-c", program], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=120)
    assert (finished.returncode, finished.stderr) == (1, "a kernel was compiled\n"), "not even the kernel at the end"
    assert finished.stdout == "9 True 0 2 0\n2 10 {'reader': 2}\n"
