"""The tasks of perf/bench_ring.py: a round trip or a stream over rings, by kernels or by plain Python, and the same in C without a ring."""

import ctypes
import mmap
import os
import subprocess
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager, nullcontext
from itertools import count
from pathlib import Path
from typing import Any

import numpy as np

from perf.hot.ring import look_on, ping, ping_wide, pong, pong_and_look, pong_wide, read_stream, read_wide, write_stream, write_wide
from perf.turns import Opener, Side, Task
from shm.layout import LINE_BYTES
from shm.private import PrivateRing
from shm.ring import Ring

MESSAGE = np.dtype([("sequence", "u8"), *((name, "i8") for name in "abcdefg")])
CHUNK = 32
NO_TICKS = np.zeros(0, np.int64)
# What a run of plain Python moves at a time: as arrays, and as payloads made beforehand.
PYTHON_BATCH = 4_096
PAYLOADS = 256

_NUMBERS = count()
_KEPT: list[mmap.mmap] = []


def wide(lines: int) -> np.dtype:
    """A record of whole lines, all words."""
    return np.dtype([("sequence", "u8"), *((f"w{word}", "i8") for word in range(1, 8 * lines))])


def make_ring(capacity: int, dtype: np.dtype = MESSAGE, readers: Sequence[str] = ("reader",), **options: Any) -> Ring:
    name = f"bench-ring-{os.getpid()}-{next(_NUMBERS)}"
    return Ring.create(name, capacity, {"message": dtype}, list(readers), first_position=1, **options)


def opener(make: Callable[..., Side], *roles: Callable[[], AbstractContextManager[Any]]) -> Opener:
    """Takes the roles in the process that calls it, and makes of them what that process does."""

    @contextmanager
    def open_side() -> Iterator[Side]:
        with ExitStack() as stack:
            yield make(*(stack.enter_context(role()) for role in roles))

    return open_side


def _plain(side: Side) -> Opener:
    return lambda: nullcontext(side)


def words_of(end: Any) -> np.ndarray:
    return np.asarray(end.slots).view(np.int64).reshape(len(end.slots), -1)


# In C, without a ring


def compile_limit(folder: Path) -> ctypes.CDLL:
    """pingpong.c as a library. Pointers are addresses; every function returns 0 if all bytes were right."""
    library = folder / "pingpong.so"
    source = Path(__file__).with_name("pingpong.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))
    for name in ("tp_ping", "tp_pong"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_uint64] * 2 + [ctypes.c_int]
    for name in ("tp_ping_line", "tp_pong_line"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p] * 2 + [ctypes.c_uint64] * 3
    for name in ("tp_write", "tp_read"):
        getattr(loaded, name).argtypes = [ctypes.c_void_p, ctypes.c_uint64, ctypes.c_void_p] + [ctypes.c_uint64] * 3
    for name in ("tp_ping", "tp_pong", "tp_write"):
        getattr(loaded, name).restype = None
    return loaded


def shared_lines(number: int) -> int:
    """The address of `number` zeroed cache lines, shared with processes forked later. They live as long as the process."""
    mapping = mmap.mmap(-1, number * LINE_BYTES, mmap.MAP_SHARED | mmap.MAP_ANONYMOUS | mmap.MAP_POPULATE)
    _KEPT.append(mapping)
    return ctypes.addressof(ctypes.c_char.from_buffer(mapping))


def limit_round_trip(c: ctypes.CDLL, polite: int, rounds: int) -> Task:
    there = shared_lines(8)
    back = there + 4 * LINE_BYTES
    return Task(
        _plain(lambda first, size: c.tp_ping(there, back, first, size, polite)),
        _plain(lambda first, size: c.tp_pong(there, back, first, size, polite)),
        rounds,
    )


def lines_round_trip(c: ctypes.CDLL, lines: int, rounds: int) -> Task:
    """64 bytes each way over `lines` lines a direction in turn."""
    there = shared_lines(2 * lines + 8)
    back = there + (lines + 4) * LINE_BYTES
    return Task(
        _plain(lambda first, size: c.tp_ping_line(there, back, lines, first, size)),
        _plain(lambda first, size: c.tp_pong_line(there, back, lines, first, size)),
        rounds,
    )


def limit_stream(c: ctypes.CDLL, capacity: int, messages: int) -> Task:
    given_back = shared_lines(capacity + 8)
    lines, batch = given_back + 8 * LINE_BYTES, capacity // 8
    return Task(
        _plain(lambda first, size: c.tp_write(lines, capacity, given_back, first, size, CHUNK)),
        _plain(lambda first, size: c.tp_read(lines, capacity, given_back, first, size, batch)),
        messages,
        start=0,
    )


# By kernels


def ring_round_trip(capacity: int, rounds: int, ticks: np.ndarray = NO_TICKS) -> Task:
    out, back = make_ring(capacity), make_ring(capacity)
    warm = PrivateRing(2, {"message": MESSAGE}, ["reader"])
    ends = warm.producer(MESSAGE).end, warm.consumer("reader", MESSAGE).end
    ping(*ends, 1, 0, ticks)
    pong(*ends, 1, 0)
    return Task(
        opener(
            lambda sender, receiver: lambda first, size: ping(sender.end, receiver.end, first, size, ticks),
            lambda: out.producer(MESSAGE),
            lambda: back.consumer("reader", MESSAGE),
        ),
        opener(
            lambda sender, receiver: lambda first, size: pong(sender.end, receiver.end, first, size),
            lambda: back.producer(MESSAGE),
            lambda: out.consumer("reader", MESSAGE),
        ),
        rounds,
        rings=[out, back],
    )


def watched_round_trip(capacity: int, rounds: int, *, own_cpu: bool) -> Task:
    """The round trip while an observer and a slow gating reader look at each message: on a third CPU, or on pong's once it answered."""
    out, back = make_ring(capacity, readers=["reader", "slow"]), make_ring(capacity)
    warm = PrivateRing(2, {"message": MESSAGE}, ["reader"])
    ends = warm.producer(MESSAGE).end, warm.consumer("reader", MESSAGE).end
    copy = np.zeros(1, MESSAGE).view(np.recarray)
    pong_and_look(*ends, warm.observer(MESSAGE).end, ends[1], copy, 1, 0)
    look_on(warm.observer(MESSAGE).end, ends[1], copy, 1, 0)
    ping_roles = (lambda: out.producer(MESSAGE), lambda: back.consumer("reader", MESSAGE))
    pong_roles = (lambda: back.producer(MESSAGE), lambda: out.consumer("reader", MESSAGE))
    lookers = (lambda: out.observer(MESSAGE), lambda: out.consumer("slow", MESSAGE))

    def quiet(sender: Any, receiver: Any) -> Side:
        return lambda first, size: pong(sender.end, receiver.end, first, size)

    def looking(sender: Any, receiver: Any, watcher: Any, slow: Any) -> Side:
        return lambda first, size: pong_and_look(sender.end, receiver.end, watcher.end, slow.end, copy, first, size)

    return Task(
        opener(lambda sender, receiver: lambda first, size: ping(sender.end, receiver.end, first, size, NO_TICKS), *ping_roles),
        opener(quiet, *pong_roles) if own_cpu else opener(looking, *pong_roles, *lookers),
        rounds,
        rings=[out, back],
        beside=opener(lambda watcher, slow: lambda first, size: look_on(watcher.end, slow.end, copy, first, size), *lookers)
        if own_cpu
        else None,
    )


def ring_stream(capacity: int, messages: int) -> Task:
    ring, batch = make_ring(capacity), capacity // 8
    warm = PrivateRing(2, {"message": MESSAGE}, ["reader"])
    write_stream(warm.producer(MESSAGE).end, 0, 0, CHUNK)
    read_stream(warm.consumer("reader", MESSAGE).end, 0, 0, batch)
    return Task(
        opener(lambda out: lambda first, size: write_stream(out.end, first, size, CHUNK), lambda: ring.producer(MESSAGE)),
        opener(lambda into: lambda first, size: read_stream(into.end, first, size, batch), lambda: ring.consumer("reader", MESSAGE)),
        messages,
        rings=[ring],
    )


def wide_round_trip(lines: int, capacity: int, rounds: int) -> Task:
    dtype = wide(lines)
    out, back = make_ring(capacity, dtype), make_ring(capacity, dtype)
    warm = PrivateRing(2, {"message": dtype}, ["reader"])
    sends, reads = warm.producer(dtype).end, warm.consumer("reader", dtype).end
    for kernel in (ping_wide, pong_wide):
        kernel(sends, words_of(sends), reads, words_of(reads), 1, 0)

    def side(kernel: Callable[..., Any]) -> Callable[[Any, Any], Side]:
        def make(sender: Any, receiver: Any) -> Side:
            arguments = (sender.end, words_of(sender.end), receiver.end, words_of(receiver.end))
            return lambda first, size: kernel(*arguments, first, size)

        return make

    return Task(
        opener(side(ping_wide), lambda: out.producer(dtype), lambda: back.consumer("reader", dtype)),
        opener(side(pong_wide), lambda: back.producer(dtype), lambda: out.consumer("reader", dtype)),
        rounds,
        rings=[out, back],
    )


def wide_stream(lines: int, capacity: int, messages: int) -> Task:
    dtype, batch = wide(lines), capacity // 8
    ring = make_ring(capacity, dtype)
    warm = PrivateRing(2, {"message": dtype}, ["reader"])
    sends, reads = warm.producer(dtype).end, warm.consumer("reader", dtype).end
    write_wide(sends, words_of(sends), 0, 0, CHUNK)
    read_wide(reads, words_of(reads), 0, 0, batch)

    def writer(out: Any) -> Side:
        arguments = (out.end, words_of(out.end))
        return lambda first, size: write_wide(*arguments, first, size, CHUNK)

    def reader(into: Any) -> Side:
        arguments = (into.end, words_of(into.end))
        return lambda first, size: read_wide(*arguments, first, size, batch)

    return Task(
        opener(writer, lambda: ring.producer(dtype)), opener(reader, lambda: ring.consumer("reader", dtype)), messages, rings=[ring]
    )


# By plain Python


def python_round_trip(capacity: int, rounds: int) -> Task:
    """Payloads there and back as bytes, all 56 of them compared; each end polls until something is there."""
    out, back = make_ring(capacity), make_ring(capacity)
    payloads = [np.random.default_rng(number).bytes(MESSAGE.itemsize - 8) for number in range(PAYLOADS)]

    def ping_side(sender: Any, receiver: Any) -> Side:
        push, poll_bytes = sender.push, receiver.poll_bytes

        def run(first: int, size: int) -> int:
            wrong = 0
            for number in range(size):
                payload = payloads[number % PAYLOADS]
                push(payload)
                while (answer := poll_bytes()) is None:
                    pass
                wrong += answer != payload
            return wrong

        return run

    def pong_side(sender: Any, receiver: Any) -> Side:
        push, poll_bytes = sender.push, receiver.poll_bytes

        def run(first: int, size: int) -> None:
            for _ in range(size):
                while (payload := poll_bytes()) is None:
                    pass
                push(payload)

        return run

    return Task(
        opener(ping_side, lambda: out.producer(MESSAGE), lambda: back.consumer("reader", MESSAGE)),
        opener(pong_side, lambda: back.producer(MESSAGE), lambda: out.consumer("reader", MESSAGE)),
        rounds,
        rings=[out, back],
    )


def python_stream(capacity: int, messages: int) -> Task:
    """Arrays of PYTHON_BATCH records pushed, and read into an array. A column of what arrives is compared, and every sequence."""
    ring = make_ring(capacity)

    def write_side(out: Any) -> Side:
        array = np.zeros(PYTHON_BATCH, MESSAGE)
        for word, name in enumerate("abcdefg"):
            array[name] = np.arange(PYTHON_BATCH) + word

        def run(first: int, size: int) -> int:
            done = sum(out.push_many(array, 60) for _ in range(size // PYTHON_BATCH))
            while ring.backlog()["reader"]:
                pass
            return size - done

        return run

    def read_side(into: Any) -> Side:
        array = np.zeros(PYTHON_BATCH, MESSAGE)
        sequences, column = array["sequence"], array["g"]

        def run(first: int, size: int) -> int:
            wrong = done = 0
            while done < size:
                n = into.poll_many(array)
                if n:
                    numbers = np.arange(first + done, first + done + n, dtype=np.uint64)
                    wrong += not np.array_equal(sequences[:n], numbers + np.uint64(1))
                    wrong += not np.array_equal(column[:n], (numbers.view(np.int64) - 1 & PYTHON_BATCH - 1) + 6)
                    done += n
            into.release()
            return wrong

        return run

    return Task(
        opener(write_side, lambda: ring.producer(MESSAGE)),
        opener(read_side, lambda: ring.consumer("reader", MESSAGE)),
        messages,
        rings=[ring],
    )
