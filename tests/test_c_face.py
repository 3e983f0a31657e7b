"""The C face: every end of a ring in C or C++ against kernels at the other, and what it refuses."""

import contextlib
import errno
import itertools
import json
import os
import random
import subprocess
import sys
from collections import deque
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from shm.hot import FENCED, LOST, LOST_FROM, LOST_NOW, POSITION
from shm.layout import IDENTITY, schema_hash, schema_of
from shm.memory import Memory
from shm.ring import Ring, cursor_name
from shm.segment import SHM, SegmentError
from tests.c.driver import HERE, ROOT, WARNINGS, End, build, compiler
from tests.c.kernels import message, read, watch, write
from tests.private_mounts import in_private_mounts

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
EXAMPLES = ROOT / "shm" / "examples"
QUOTE = np.dtype(
    [("sequence", "u8"), ("number", "u8"), ("bid_price", "i8"), ("ask_price", "i8"), ("bid_quantity", "u4"),
     ("ask_quantity", "u4"), ("sent_tsc", "u8"), ("venue", "u4"), ("flags", "u4"), ("checksum", "u8")]
)  # fmt: skip
MESSAGE = message(64)
SECOND = 1_000_000_000
_COUNTER = itertools.count()

pytestmark = pytest.mark.skipif(compiler("gcc") is None, reason="gcc is not installed")


@pytest.fixture(autouse=True)
def _print_seed() -> None:
    print(f"TICKPATH_SEED={SEED}")


@pytest.fixture
def name() -> str:
    return f"tickpath-test-c-{os.getpid()}-{next(_COUNTER)}"


@pytest.fixture(scope="module")
def driver(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return build(HERE / "driver.c", tmp_path_factory.mktemp("c") / "driver")


@pytest.fixture(scope="module")
def examples(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("examples")
    command = ["make", "--silent", "-C", str(EXAMPLES), f"BUILD={folder}", f"CFLAGS=-O2 {' '.join(WARNINGS)}"]
    if compiler("g++") is None:
        command += [f"{folder}/{program}" for program in ("producer", "consumer", "observer")]
    finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert finished.returncode == 0, finished.stderr
    return folder


@contextlib.contextmanager
def ring_of(name: str, capacity: int, readers: tuple[str, ...] = ("reader",), dtype: np.dtype = MESSAGE, **more: object) -> Iterator[Ring]:
    ring = Ring.create(name, capacity, {"quote" if dtype is QUOTE else "message": dtype}, readers, **more)  # type: ignore[arg-type]
    try:
        yield ring
    finally:
        ring.detach()
        for segment in (name, cursor_name(name)):
            (SHM / segment).unlink(missing_ok=True)


def numbers_read(end: object, most: int = 1 << 16) -> list[int]:
    numbers = np.zeros(most, np.int64)
    return numbers[: read(end, numbers)].tolist()


# The examples


def run_together(*commands: list[object]) -> list[str]:
    """Run programs at the same time; what each says. They all must end well."""
    running = [
        subprocess.Popen([str(word) for word in command], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        for command in commands
    ]
    try:
        said = [process.communicate(timeout=120)[0] for process in running]
    finally:
        for process in running:
            process.kill()
            process.wait()
    assert [process.returncode for process in running] == [0] * len(running), said
    return said


@pytest.mark.parametrize(
    ("writer", "reader"),
    [("producer", "consumer"), ("producer_cpp", "consumer_cpp"), ("producer", "consumer_cpp"), ("producer_cpp", "consumer")],
)
def test_the_examples_trade_with_each_other(name: str, examples: Path, writer: str, reader: str) -> None:
    if not (examples / writer).exists() or not (examples / reader).exists():
        pytest.skip("g++ is not installed")
    count = 300_000
    with ring_of(name, 1024, ("strategy",), QUOTE) as ring:
        wrote, got, saw = run_together(
            [examples / writer, name, count], [examples / reader, name, "strategy", count], [examples / "observer", name, count - 1]
        )
        assert wrote == f"published={count}\n"
        assert got == f"read={count} wrong=0\n"
        seen = dict(pair.split("=") for pair in saw.split())
        assert seen["wrong"] == "0" and int(seen["last"]) == count - 1
        assert ring.backlog() == {"strategy": 0}


def test_the_examples_record_is_the_one_that_python_creates() -> None:
    text = (EXAMPLES / "quote.h").read_text()
    described = schema_hash(schema_of(quote=QUOTE))
    assert f"#define QUOTE_SCHEMA_HASH {described:#x}u" in text


def test_an_example_is_built_by_the_line_in_its_heading(tmp_path: Path) -> None:
    for source in sorted(EXAMPLES.glob("*.c*")):
        line = next(line for line in source.read_text().splitlines() if " -o " in line)
        command = line.strip(" *").split(" && ")[0].split()
        if compiler(command[0]) is None:
            pytest.skip(f"{command[0]} is not installed")
        command[command.index("-o") + 1] = str(tmp_path / source.name.replace(".", "_"))
        subprocess.run(command, cwd=EXAMPLES, check=True, timeout=300)


@pytest.mark.parametrize("cc", ["gcc", "clang", "g++", "clang++"])
def test_the_header_is_clean_in_every_standard(cc: str, tmp_path: Path) -> None:
    if compiler(cc) is None:
        pytest.skip(f"{cc} is not installed")
    plus = cc.endswith("++")
    source = tmp_path / ("all.cpp" if plus else "all.c")
    source.write_text('#include "tickpath.h"\n#include "tickpath.h"\nint main(void) { return 0; }\n')
    for standard in ("c++17", "c++20") if plus else ("c11", "c17", "gnu17"):
        command = [cc, f"-std={standard}", "-O2", *WARNINGS, "-Wcast-qual", f"-I{ROOT / 'shm'}", str(source), "-o", str(tmp_path / "all")]
        finished = subprocess.run(command, capture_output=True, text=True, timeout=300)
        assert finished.returncode == 0, finished.stderr


def test_the_lines_in_the_readme_compile(tmp_path: Path) -> None:
    lines = (ROOT / "shm" / "README.md").read_text().split("```c\n")[1].split("```")[0].replace('#include "tickpath.h"', "")
    source = tmp_path / "readme.c"
    source.write_text(f'#include "tickpath.h"\nint main(void) {{\n{lines}\nreturn tick != NULL; }}\n')
    build(source, tmp_path / "readme")


def test_a_program_that_hid_the_locks_is_told_how_to_find_them(tmp_path: Path) -> None:
    source = tmp_path / "late.c"
    source.write_text('#include <stdio.h>\n#include "tickpath.h"\nint main(void) { return 0; }\n')
    command = ["gcc", "-std=c11", f"-I{ROOT / 'shm'}", str(source), "-o", str(tmp_path / "late")]
    assert "compile with -D_GNU_SOURCE" in subprocess.run(command, capture_output=True, text=True, timeout=60).stderr
    subprocess.run([*command, "-D_GNU_SOURCE"], check=True, timeout=60)


# C at one end, kernels at the other


@pytest.mark.parametrize("first", [0, (1 << 32) - 5, (1 << 63) - 5, (1 << 64) - 5])
@pytest.mark.parametrize(("capacity", "slot_bytes"), [(2, 64), (8, 64), (8, 192)])
def test_a_c_producer_writes_for_kernels(name: str, driver: Path, capacity: int, slot_bytes: int, first: int) -> None:
    dtype = message(slot_bytes)
    with ring_of(name, capacity, dtype=dtype, first_position=first) as ring, End(driver, "producer", name) as out:
        into, seen = ring.consumer("reader", dtype), ring.observer(dtype)
        written, lost = itertools.count(), np.zeros(1, np.int64)
        for _ in range(5):
            batch = [next(written) for _ in range(capacity)]
            assert [out.tell(f"push {number} 0") for number in batch] == [f"pushed {number}" for number in batch]
            assert out.tell("push 0 1000") == "full 0"
            assert numbers_read(into.end) == batch
            copy, numbers = np.zeros(1, dtype), np.zeros(capacity, np.int64)
            assert numbers[: watch(seen.end, copy, numbers, lost)].tolist() == batch
        assert lost[0] == 0 and out.close() == 0
        assert ring.position() == np.int64(np.uint64((first + 5 * capacity) % (1 << 64)))


@pytest.mark.parametrize("first", [0, (1 << 32) - 5, (1 << 63) - 5, (1 << 64) - 5])
@pytest.mark.parametrize(("capacity", "slot_bytes"), [(2, 64), (8, 64), (8, 192)])
def test_kernels_write_for_c_readers(name: str, driver: Path, capacity: int, slot_bytes: int, first: int) -> None:
    dtype = message(slot_bytes)
    with ring_of(name, capacity, dtype=dtype, first_position=first, observers=["screen"]) as ring:
        out = ring.producer(dtype)
        with (
            End(driver, "reader", name, "reader") as into,
            End(driver, "observer", name, "-", "newest", "0") as anyone,
            End(driver, "observer", name, "screen", "resume", "0") as screen,
        ):
            for lap in range(5):
                batch = range(lap * capacity, (lap + 1) * capacity)
                assert write(out.end, batch[0], capacity + 1) == capacity, "a gating reader in C holds the producer up"
                assert into.tell(f"has {capacity}") == "has 1"
                assert [into.tell("next 0") for _ in batch] == [f"got {number}" for number in batch]
                assert into.tell("poll 1000") == "empty 0"
                assert into.tell("release").startswith("released")
                for end in (anyone, screen):
                    assert [end.tell("observe 0") for _ in batch] == [f"got {number}" for number in batch]
                    assert end.tell("observe 1000") == "empty 0"
                assert screen.tell("release").startswith("released")
            assert into.close() == anyone.close() == screen.close() == 0


def test_a_c_reader_goes_on_at_what_it_gave_back(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring:
        assert write(ring.producer(MESSAGE).end, 0, 6) == 6
        with End(driver, "reader", name, "reader") as first:
            assert [first.tell("next 0") for _ in range(3)] == ["got 0", "got 1", "got 2"]
            first.tell("release")
            assert [first.tell("next 0") for _ in range(2)] == ["got 3", "got 4"]
            first.kill()
        with End(driver, "reader", name, "reader") as second:
            assert [second.tell("next 0") for _ in range(3)] == ["got 3", "got 4", "got 5"]


def test_a_c_producer_goes_on_where_a_kernel_died_and_the_reverse(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring:
        into = ring.consumer("reader", MESSAGE)
        with End(driver, "producer", name) as first:
            assert first.tell("push 0 0") == "pushed 0"
            assert first.tell("fill 1") == "filling 1"
            first.kill()
        with ring.producer(MESSAGE) as second:
            assert write(second.end, 1, 1) == 1
        with End(driver, "producer", name) as third:
            assert third.tell("push 2 0") == "pushed 2"
            assert third.close() == 0
        assert numbers_read(into.end) == [0, 1, 2]
        assert int(ring.blocks[0][0]) == 3, "each producer has an epoch of its own"


def test_a_restart_is_an_event_for_a_c_reader(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring, End(driver, "reader", name, "reader") as into:
        assert into.tell("restarts") == "restarts 0"
        for _ in range(2):
            ring.producer(MESSAGE).close()
        assert into.tell("restarts") == "restarts 2"
        assert into.tell("restarts") == "restarts 0"


def test_an_observer_in_c_is_told_what_it_missed(name: str, driver: Path) -> None:
    with ring_of(name, 16, (), observers=["screen"]) as ring:
        out = ring.producer(MESSAGE)
        with End(driver, "observer", name, "-", "oldest", "0") as anyone, End(driver, "observer", name, "screen", "resume", "0") as screen:
            write(out.end, 0, 40)
            for end in (anyone, screen):
                assert end.tell("observe 0") == "lapped 28", "on at a quarter of the ring ahead of what is overwritten next"
                local = end.local()
                assert (local[LOST_NOW], local[LOST_FROM], local[LOST], local[POSITION]) == (28, 0, 28, 28)
                assert [end.tell("observe 0") for _ in range(12)] == [f"got {number}" for number in range(28, 40)]
            assert int(ring.readers()[0]["lost"]) == 28
            write(out.end, 40, 10)
            assert screen.tell("conflate") == "skipped 9"
            assert screen.tell("observe 0") == "got 49"
            assert int(ring.readers()[0]["lost"]) == 37


@pytest.mark.parametrize(("start", "expected"), [("newest 0", 40), ("oldest 0", 28), ("at 33", 33), ("at 1000", 40), ("at 3", 3)])
def test_where_an_observer_in_c_begins(name: str, driver: Path, start: str, expected: int) -> None:
    with ring_of(name, 16, ()) as ring, ring.producer(MESSAGE) as out:
        write(out.end, 0, 40)
        with End(driver, "observer", name, "-", *start.split()) as end:
            assert end.local()[POSITION] == expected
            same = ring.observer(MESSAGE, at=int(start.split()[1]) if "at" in start else start.split()[0])  # type: ignore[arg-type]
            assert int(same.end.local[POSITION]) == expected, "as in Python"


def test_readers_in_c_join_a_running_ring_and_leave_it(name: str, driver: Path) -> None:
    with ring_of(name, 8, (), spare=2) as ring, ring.producer(MESSAGE) as out:
        assert write(out.end, 0, 100) == 100
        with End(driver, "joining", name, "late", "oldest", "0") as late, End(driver, "joining", name, "later", "newest", "0") as later:
            first = late.local()[POSITION]
            assert 92 <= first <= 100, "what the producer may be about to overwrite is not safe to begin at"
            assert later.local()[POSITION] == 100
            assert set(ring.reader_names()) == {"late", "later"}
            assert write(out.end, 100, 100) == 8 - (100 - first), "the producer now waits for both"
            assert [late.tell("next 0") for _ in range(first, 100)] == [f"got {number}" for number in range(first, 100)]
            with End(driver, "joining", name, "third", "newest", "0") as third:
                assert third.first.startswith(f"error {errno.ENOSPC} ring={name}: no spare block")
            assert late.tell("release") == "released 100"
            assert later.tell("leave") == "left 0"
            assert ring.reader_names() == ["late"]
            late.kill()
        with End(driver, "joining", name, "late", "newest", "0") as again:
            assert again.local()[POSITION] == 100, "a name that gates already goes on where it stood"
        with pytest.raises(ValueError, match="later"):
            ring.consumer("later", MESSAGE)


def test_a_c_producer_gives_no_room_while_one_joins(name: str, driver: Path) -> None:
    with ring_of(name, 4, (), spare=1), End(driver, "producer", name) as out, (SHM / cursor_name(name)).open("r+b") as file:
        cursors = np.memmap(file, np.uint32, mode="r+")
        assert [out.tell(f"push {number} 0") for number in range(6)] == [f"pushed {number}" for number in range(6)]
        mode, position = (8192 + 128 + 64) // 4, (8192 + 128) // 4
        cursors[position] = 6
        cursors[mode] = 4
        assert [out.tell(f"push {number} 0") for number in (6, 7, 8)] == ["pushed 6", "pushed 7", "full 8"], "what it had, and no more"
        cursors[mode] = 1
        assert [out.tell(f"push {number} 0") for number in (8, 9, 10)] == ["pushed 8", "pushed 9", "full 10"]
        cursors[mode] = 0
        assert [out.tell(f"push {number} 0") for number in (10, 11)] == ["pushed 10", "pushed 11"]
        cursors[mode], cursors[position] = 1, 2
        assert [out.tell(f"push {number} 0") for number in (12, 13, 14)] == ["pushed 12", "pushed 13", "full 14"]
        limit = cursors[(8192 + 16) // 4]
        assert limit == 14, "a position that is more than a lap behind takes no room back"
        del cursors


def test_a_block_that_somebody_left_is_new_to_the_next_one(name: str, driver: Path) -> None:
    with ring_of(name, 8, (), spare=1) as ring, ring.producer(MESSAGE) as out:
        with End(driver, "joining", name, "first", "newest", "0") as first:
            assert write(out.end, 0, 4) == 4
            assert first.tell("skip 3") == "skipped 3"
            assert first.tell("leave") == "left 0"
        write(out.end, 4, 100)
        with End(driver, "joining", name, "second", "at", "100") as second:
            assert second.local()[LOST] == 0 and int(ring.readers()[0]["lost"]) == 0
            assert second.local()[POSITION] >= 100


# Plain Python at one end, C at the other


def payload_of(number: int) -> bytes:
    words = [number, *((((number + k) * 0x9E3779B97F4A7C15) % (1 << 64)) ^ k for k in range(1, 7))]
    return np.array(words, np.uint64).tobytes()


def test_plain_python_writes_for_c(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring, End(driver, "reader", name, "reader") as into, End(driver, "observer", name, "-", "newest", "0") as seen:
        out = ring.producer(MESSAGE)
        for lap in range(5):
            batch = range(8 * lap, 8 * lap + 8)
            assert all(out.push(payload_of(number)) for number in batch)
            assert not out.push(payload_of(0), timeout=0)
            assert [into.tell("next 0") for _ in batch] == [seen.tell("observe 0") for _ in batch] == [f"got {number}" for number in batch]
            into.tell("release")


def test_c_writes_for_plain_python(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring, End(driver, "producer", name) as out:
        into, seen = ring.consumer("reader", MESSAGE), ring.observer(MESSAGE)
        for lap in range(5):
            batch = range(8 * lap, 8 * lap + 8)
            assert [out.tell(f"push {number} 0") for number in batch] == [f"pushed {number}" for number in batch]
            assert [into.poll_bytes() for _ in batch] == [payload_of(number) for number in batch]
            assert into.poll_bytes() is None
            into.release()
            rows = np.zeros(16, MESSAGE)
            assert seen.poll_many(rows) == 8 and rows["words"][:8, 0].tolist() == list(batch)


def test_the_c_example_feeds_plain_python(name: str, examples: Path) -> None:
    count = 200_000
    with ring_of(name, 4096, ("strategy",), QUOTE) as ring:
        into = ring.consumer("strategy", QUOTE)
        producer = subprocess.Popen([str(examples / "producer"), name, str(count)], stdout=subprocess.DEVNULL)
        try:
            rows, done = np.zeros(4096, QUOTE), 0
            while done < count:
                got = into.poll_many(rows, timeout=60)
                assert got and (rows["number"][:got] == np.arange(done, done + got, dtype=np.uint64)).all()
                done += got
            into.release()
            assert producer.wait(timeout=60) == 0
        finally:
            producer.kill()
            producer.wait()


# A full ring


def test_a_c_producer_waits_as_long_as_it_is_told(name: str, driver: Path) -> None:
    with ring_of(name, 2) as ring, End(driver, "producer", name) as out:
        into = ring.consumer("reader", MESSAGE)
        assert [out.tell(f"push {number} 0") for number in range(3)] == ["pushed 0", "pushed 1", "full 2"]
        assert out.tell(f"push 2 {SECOND // 100}") == "full 2"
        assert int(ring.blocks[0].view(np.uint64)[4]) >= 2, "counted in waits"
        assert out.process.stdin is not None
        out.process.stdin.write(f"push 2 {60 * SECOND}\n")
        out.process.stdin.flush()
        assert numbers_read(into.end) == [0, 1]
        assert out._answer() == "pushed 2", "the reader's release is seen by one that waits"


def test_a_c_producer_drops_at_once_and_counts(name: str, driver: Path) -> None:
    with ring_of(name, 2, when_full="drop") as ring, End(driver, "producer", name) as out:
        assert [out.tell(f"push {number} {60 * SECOND}") for number in range(4)] == ["pushed 0", "pushed 1", "full 2", "full 3"]
        assert int(ring.blocks[0].view(np.uint64)[5]) == 2


def test_a_c_producer_lets_the_dead_go_and_waits_for_the_living(name: str, driver: Path) -> None:
    with ring_of(name, 4, ("dead", "alive"), when_full="evict") as ring, End(driver, "producer", name) as out:
        with End(driver, "reader", name, "dead") as dead:
            dead.kill()
        with End(driver, "reader", name, "alive") as alive:
            assert [out.tell(f"push {number} 0") for number in range(4)] == [f"pushed {number}" for number in range(4)]
            assert out.tell("push 4 1000") == "full 4", "one that lives is waited for, then the message is dropped"
            assert [int(word) for word in ring.blocks[0].view(np.uint64)[5:7]] == [1, 1]
            assert [alive.tell("next 0") for _ in range(4)] == [f"got {number}" for number in range(4)]
            alive.tell("release")
            assert [out.tell(f"push {number} 0") for number in range(4, 8)] == [f"pushed {number}" for number in range(4, 8)]
        with End(driver, "reader", name, "dead") as back:
            local = back.local()
            assert local[LOST_NOW] == local[LOST] == local[POSITION] >= 4, "it is told what it missed"
            assert int(ring.readers()[0]["lost"]) == local[LOST]


def test_a_reader_that_dies_while_it_is_waited_for_is_let_go(name: str, driver: Path) -> None:
    with ring_of(name, 4, when_full="evict") as ring, End(driver, "producer", name) as out, End(driver, "reader", name, "reader") as into:
        assert [out.tell(f"push {number} 0") for number in range(4)] == [f"pushed {number}" for number in range(4)]
        assert out.process.stdin is not None
        out.process.stdin.write(f"push 4 {60 * SECOND}\n")
        out.process.stdin.flush()
        while int(ring.blocks[0].view(np.uint64)[4]) == 0:
            assert out.process.poll() is None
        into.kill()
        assert out._answer() == "pushed 4"
        assert [int(word) for word in ring.blocks[0].view(np.uint64)[5:7]] == [0, 1], "nothing was dropped"


@pytest.mark.parametrize("slot_bytes", [64, 192])
def test_a_push_of_too_many_bytes_is_refused(name: str, driver: Path, slot_bytes: int) -> None:
    with ring_of(name, 2, dtype=message(slot_bytes)), End(driver, "producer", name) as out:
        assert out.tell(f"bytes {slot_bytes - 7}") == f"too_long {slot_bytes - 7}"
        assert out.tell(f"bytes {slot_bytes - 8}") == f"pushed {slot_bytes - 8}"


# Roles


def test_a_role_is_one_process_at_a_time_whatever_it_is_written_in(name: str, driver: Path) -> None:
    with ring_of(name, 8, observers=["screen"]) as ring:
        with (
            End(driver, "producer", name) as out,
            End(driver, "reader", name, "reader") as into,
            End(driver, "observer", name, "screen", "newest", "0") as screen,
        ):
            for take in (
                lambda: ring.producer(MESSAGE),
                lambda: ring.consumer("reader", MESSAGE),
                lambda: ring.observer(MESSAGE, "screen"),
            ):
                with pytest.raises(SegmentError, match=r"is taken by pid \d+ \(driver\)"):
                    take()
            with End(driver, "producer", name) as second:
                assert second.first == (
                    f"error {errno.EBUSY} producer of ring {name} is taken by pid {out.process.pid} (driver): "
                    "there is one at a time; stop that one, or use another"
                )
            assert [int(ring.blocks[0].view(np.uint32)[14]), *(int(reader["pid"]) for reader in ring.readers())] == [
                out.process.pid, into.process.pid, screen.process.pid,
            ]  # fmt: skip
        with ring.producer(MESSAGE), End(driver, "producer", name) as second:
            assert f"is taken by pid {os.getpid()}" in second.first


def test_a_reader_in_c_that_was_replaced_gives_nothing_back(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring, End(driver, "reader", name, "reader") as into:
        write(ring.producer(MESSAGE).end, 0, 4)
        assert into.tell("next 0") == "got 0"
        with (SHM / cursor_name(name)).open("r+b") as file:
            raw = np.memmap(file, np.uint64, mode="r+")
            raw[(8192 + 128) // 8 + 1] += 1
            del raw
        assert into.tell("release") == "fenced 1"
        assert int(ring.readers()[0]["position"]) == 0


def test_a_producer_in_c_that_was_replaced_gets_no_room(name: str, driver: Path) -> None:
    with ring_of(name, 4) as ring, End(driver, "producer", name) as out:
        into = ring.consumer("reader", MESSAGE)
        assert [out.tell(f"push {number} 0") for number in range(4)] == [f"pushed {number}" for number in range(4)]
        assert numbers_read(into.end) == [0, 1, 2, 3]
        with (SHM / cursor_name(name)).open("r+b") as file:
            raw = np.memmap(file, np.uint64, mode="r+")
            raw[8192 // 8] += 1
            del raw
        assert out.tell(f"push 4 {60 * SECOND}") == "full 4", "at once, although there is room"
        assert out.local()[FENCED] == 1 and numbers_read(into.end) == []


def test_a_wait_beats_for_a_program_that_beats(name: str, driver: Path) -> None:
    with ring_of(name, 2) as ring, End(driver, "producer", name) as out, End(driver, "reader", name, "reader") as into:
        hearts = [lambda: int(ring.blocks[0][3]), lambda: int(ring.readers()[0]["heartbeat"])]
        assert [out.tell(f"push {number} 0") for number in range(2)] == ["pushed 0", "pushed 1"]
        for end, command, heart in ((out, "push 2", hearts[0]), (into, "next", hearts[1])):
            while end is into and into.tell("next 0") != "empty 0":
                pass
            end.tell(f"{command} {SECOND // 10}")
            assert heart() == 0, "one that never beats is never called hung"
            end.tell("beat")
            before = heart()
            end.tell(f"{command} {SECOND // 10}")
            assert heart() > before > 0
        out.kill()
        with End(driver, "producer", name):
            assert hearts[0]() == 0, "the last one's is not the next one's"


def test_unknown_names_are_refused(name: str, driver: Path) -> None:
    with ring_of(name, 8, observers=["screen"]):
        for arguments in (["reader", name, "screen"], ["reader", name, "nobody"], ["observer", name, "reader", "newest", "0"]):
            with End(driver, *arguments) as end:
                assert end.first.startswith(f"error {errno.ENOENT} reader={arguments[2]} of ring {name}")
        with End(driver, "joining", name, "a-name-of-24-characters..", "newest", "0") as end:
            assert end.first.startswith(f"error {errno.EINVAL}")


def test_what_was_expected_is_compared(name: str, driver: Path) -> None:
    schema = schema_hash(schema_of(message=MESSAGE))
    with ring_of(name, 8, build_hash=77):
        with End(driver, "producer", name, expect={"RECORD_BYTES": 64, "SCHEMA_HASH": schema, "BUILD_HASH": 77}) as out:
            assert out.first.startswith("ok")
        for field, value, said in (("RECORD_BYTES", 128, "record_bytes=64, expected 128"), ("BUILD_HASH", 78, "build=0x4d, expected 0x4e"),
                                   ("SCHEMA_HASH", 1, f"schema_hash={schema:#x}, expected 0x1")):  # fmt: skip
            with End(driver, "producer", name, expect={field: value}) as out:
                assert out.first.startswith(f"error {errno.EPROTO} segment={name}: {said}")


# Segments that must not be used


@contextlib.contextmanager
def changed(path: Path, field: str, value: int) -> Iterator[None]:
    """A field of the identity has another value for a while."""
    dtype, offset = IDENTITY.fields[field][:2]  # type: ignore[index]
    with path.open("r+b") as file:
        file.seek(offset)
        was = file.read(dtype.itemsize)
        file.seek(offset)
        file.write(int(value).to_bytes(dtype.itemsize, "little"))
        file.flush()
        try:
            yield
        finally:
            file.seek(offset)
            file.write(was)


HUGE = (1 << 64) - 1
WRONG_IN_A_RING = [
    ("magic", 0), ("magic", 1), ("layout_version", 1), ("kind", 2), ("kind", 99), ("total_bytes", 0), ("total_bytes", HUGE),
    ("data_offset", 0), ("data_offset", 4096), ("capacity", 0), ("capacity", 1), ("capacity", 7), ("capacity", 1 << 63),
    ("capacity", HUGE), ("capacity", 4), ("capacity", 127), ("record_bytes", (1 << 57) + 64),
    ("capacity", 1 << 58), ("record_bytes", 0), ("record_bytes", 8), ("record_bytes", 65), ("record_bytes", 128),
    ("record_bytes", HUGE - 63),
    ("readers", 16), ("readers", 2), ("readers", 1 << 31), ("when_full", 3), ("schema_bytes", 8065), ("schema_bytes", (1 << 32) - 1),
    ("page_bytes", 0), ("page_bytes", 2048), ("page_bytes", HUGE), ("creator_pid", 1), ("creator_start", 1), ("created_ns", 1),
    ("build_hash", 5),
]  # fmt: skip


def test_every_wrong_value_of_an_identity_is_refused(name: str, driver: Path) -> None:
    with ring_of(name, 128):
        for field, value in WRONG_IN_A_RING:
            with changed(SHM / name, field, value), End(driver, "producer", name) as end:
                assert end.first.startswith(f"error {errno.EAGAIN if (field, value) == ('magic', 0) else errno.EPROTO} "), (field, value)
                assert "expected" in end.first or "magic=0" in end.first, (field, end.first)
        for field, value in WRONG_IN_A_RING:
            if field == "when_full" or value == int(np.frombuffer((SHM / cursor_name(name)).read_bytes(), IDENTITY, 1)[0][field]):
                continue
            with changed(SHM / cursor_name(name), field, value), End(driver, "reader", name, "reader") as end:
                assert end.first.startswith("error "), (field, value, end.first)
        with End(driver, "producer", name) as end:
            assert end.first.startswith("ok")


def test_a_file_that_is_cut_short_or_grown_is_refused(name: str, driver: Path) -> None:
    with ring_of(name, 64):
        whole = (SHM / name).read_bytes()
        size = len(whole)
        for bytes_left in (0, 7, 127, 128, 4096, 8191, 8192, size - 4096, size - 1, size + 1, size + 4096):
            (SHM / name).write_bytes(whole)
            os.truncate(SHM / name, bytes_left)
            with End(driver, "producer", name) as end:
                assert end.first.startswith(f"error {errno.EAGAIN if bytes_left < 8192 else errno.EPROTO} segment={name}:"), end.first
        (SHM / name).write_bytes(whole)


def test_names_that_strangers_took_are_refused(name: str, driver: Path, tmp_path: Path) -> None:
    path = SHM / name
    cases = {
        "there is none": lambda: None,
        "it is a symbolic link": lambda: path.symlink_to(SHM / f"{name}-real"),
        "it is not a regular file": lambda: os.mkfifo(path, 0o600),
        "bytes=0": lambda: path.touch(0o600),
    }
    for said, make in cases.items():
        make()
        try:
            with End(driver, "producer", name) as end:
                assert said in end.first, end.first
        finally:
            path.unlink(missing_ok=True)
    for bad in ("", ".hidden", "a/b", "x" * 201):
        with End(driver, "producer", bad) as end:
            assert end.first.startswith(f"error {errno.EINVAL} segment=")


def test_a_file_that_others_may_touch_is_refused(name: str, driver: Path) -> None:
    with ring_of(name, 8):
        path = SHM / name
        for mode in (0o606, 0o660 | 0o004, 0o700, 0o4600):
            path.chmod(mode)
            with End(driver, "producer", name) as end:
                assert end.first.startswith(f"error {errno.EPERM} segment={name}: mode=0o{mode:o} lets others in"), end.first
        path.chmod(0o600)
        os.link(path, SHM / f"{name}-twin")
        try:
            with End(driver, "producer", name) as end:
                assert "links=2, expected 1" in end.first
        finally:
            (SHM / f"{name}-twin").unlink()
        if os.geteuid() == 0:
            os.chown(path, 12345, -1)
            with End(driver, "producer", name) as end:
                assert end.first.startswith(f"error {errno.EPERM} segment={name}: owner uid=12345, expected 0")


HUGE_MOUNT = ["mkdir -p '/mnt/huge pages'", "mount -t hugetlbfs -o pagesize=2M none '/mnt/huge pages'"]


def test_a_ring_of_huge_pages_is_found_by_its_name(name: str, driver: Path) -> None:
    knob = Path("/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages")
    if os.geteuid() != 0 or not os.access(knob, os.W_OK):
        pytest.skip("setting the pool of huge pages takes root, and a kernel that has one")

    def work() -> None:
        ring = Ring.create(name, 8, {"message": MESSAGE}, ["reader"], memory=Memory("huge", strict=True))
        assert not (SHM / name).exists()
        write(ring.producer(MESSAGE).end, 0, 3)
        with End(driver, "reader", name, "reader") as into:
            maps = Path(f"/proc/{into.process.pid}/smaps").read_text()
            assert "KernelPageSize:     2048 kB" in maps
            assert [into.tell("next 0") for _ in range(3)] == ["got 0", "got 1", "got 2"]
        (SHM / name).touch(0o600)
        with End(driver, "reader", name, "reader") as into:
            assert into.first.startswith(f"error {errno.EEXIST} segment={name}: it is in /mnt/huge pages too, and there is no telling")
        (SHM / name).unlink()
        ring.unlink()

    before = knob.read_text()
    used = int(before) - int((knob.parent / "free_hugepages").read_text())
    try:
        knob.write_text(str(used + 1))
        if int((knob.parent / "free_hugepages").read_text()) < 1:
            pytest.skip("this machine has no huge page to give")
        in_private_mounts("mount -t tmpfs none /mnt", *HUGE_MOUNT, work=work)
    finally:
        knob.write_text(before)


def test_c_holds_a_segments_life(name: str, driver: Path) -> None:
    """Whoever is attached in C keeps a cleaner away, and a cleaner that holds byte 0 keeps C away."""
    from shm import locks

    with ring_of(name, 8) as ring:
        ring.detach()
        fds = [os.open(SHM / segment, os.O_RDWR) for segment in (name, cursor_name(name))]
        try:
            with End(driver, "observer", name, "-", "newest", "0"):
                assert not any(locks.try_lock(fd, 0) for fd in fds)
            assert all(locks.try_lock(fd, 0) for fd in fds)
            with End(driver, "observer", name, "-", "newest", "0") as end:
                assert end.first.startswith(f"error {errno.EAGAIN} segment={name}: a process that removes it has stopped half way")
        finally:
            for fd in fds:
                os.close(fd)


def test_an_observer_without_a_name_writes_nothing(name: str, driver: Path) -> None:
    with ring_of(name, 8) as ring:
        write(ring.producer(MESSAGE).end, 0, 4)
        before = [(SHM / segment).read_bytes() for segment in (name, cursor_name(name))]
        with End(driver, "observer", name, "-", "oldest", "0") as end:
            maps = Path(f"/proc/{end.process.pid}/maps").read_text()
            ours = [line.split()[1] for line in maps.splitlines() if name in line]
            assert ours == ["r--s", "r--s"]
            assert [end.tell("observe 0") for _ in range(5)] == [*(f"got {number}" for number in range(4)), "empty 0"]
            assert end.tell("release").startswith("released")
        assert [(SHM / segment).read_bytes() for segment in (name, cursor_name(name))] == before


def test_a_reader_cannot_write_the_slots(name: str, driver: Path) -> None:
    with ring_of(name, 8), End(driver, "reader", name, "reader") as end:
        maps = Path(f"/proc/{end.process.pid}/maps").read_text()
        assert sorted(line.split()[1] for line in maps.splitlines() if name in line) == ["r--s", "rw-s"]


# Against a model: any mixture of ends


@pytest.mark.parametrize("capacity", [2, 4, 16])
def test_c_and_kernel_ends_agree_with_a_model(name: str, driver: Path, capacity: int) -> None:
    chance = random.Random(SEED + capacity)
    first = chance.choice([0, (1 << 32) - 3 * capacity, (1 << 64) - 3 * capacity])
    with (
        ring_of(name, capacity, ("in_c", "kernel"), first_position=first) as ring,
        End(driver, "reader", name, "in_c") as in_c,
        contextlib.ExitStack() as stack,
    ):
        kernel = ring.consumer("kernel", MESSAGE)
        waiting: dict[str, deque[int]] = {"in_c": deque(), "kernel": deque()}
        held, published = 0, 0
        writes_in_c, out = True, stack.enter_context(End(driver, "producer", name))
        for _ in range(400):
            action = chance.randrange(6)
            if action <= 1:
                expected = max(len(waiting["in_c"]) + held, len(waiting["kernel"])) < capacity
                done = (out.tell(f"push {published} 0") == f"pushed {published}") if writes_in_c else write(out.end, published, 1) == 1  # type: ignore[attr-defined]
                assert done == expected
                if done:
                    for queue in waiting.values():
                        queue.append(published)
                    published += 1
            elif action == 2:
                answer = in_c.tell("next 0")
                assert answer == (f"got {waiting['in_c'].popleft()}" if waiting["in_c"] else "empty 0")
                held += answer != "empty 0"
            elif action == 3:
                in_c.tell("release")
                held = 0
            elif action == 4:
                assert numbers_read(kernel.end) == list(waiting["kernel"])
                waiting["kernel"].clear()
            elif chance.random() < 0.2:
                out.close()
                writes_in_c = not writes_in_c
                out = stack.enter_context(End(driver, "producer", name)) if writes_in_c else ring.producer(MESSAGE)  # type: ignore[arg-type]
        assert published > 3 * capacity, "the ring never wrapped"


def test_the_peer_that_the_ring_is_measured_beside(tmp_path: Path) -> None:
    """Built and called as perf/bench_ring.py does; it checks every byte itself."""
    source = ROOT / "perf" / "peer_boost.cpp"
    if compiler("g++") is None:
        pytest.skip("g++ is not installed")
    finished = subprocess.run(
        ["g++", "-std=c++17", "-O3", str(source), "-o", str(tmp_path / "peer"), "-pthread"], capture_output=True, text=True, timeout=300
    )
    if "boost/lockfree" in finished.stderr and "No such file" in finished.stderr:
        pytest.skip("libboost-dev is not installed")
    assert finished.returncode == 0, finished.stderr
    cpus = sorted(os.sched_getaffinity(0))
    said = subprocess.run([str(tmp_path / "peer"), str(cpus[0]), str(cpus[-1]), "2000", "256"], capture_output=True, text=True, timeout=120)
    assert said.returncode == 0, said.stderr
    figures = json.loads(said.stdout)
    ways = {name: value for name, value in figures.items() if name.endswith("_mps") and name != "best_mps"}
    assert (figures["capacity"], figures["messages"]) == (256, 2000)
    assert figures["best_mps"] == max(ways.values()) == ways[f"{figures['best']}_mps"] > 0
    assert subprocess.run([str(tmp_path / "peer"), "0", "1", "10", "100"], capture_output=True, timeout=60).returncode == 2


def test_the_interpreter_is_not_needed_at_run_time(driver: Path) -> None:
    linked = subprocess.run(["ldd", str(driver)], capture_output=True, text=True, timeout=60).stdout
    assert {line.split()[0].split("/")[-1] for line in linked.splitlines()} <= {"linux-vdso.so.1", "libc.so.6", "ld-linux-x86-64.so.2"}, (
        linked
    )
    assert sys.platform == "linux"
