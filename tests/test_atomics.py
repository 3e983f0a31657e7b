"""Memory ordering, read in what LLVM made of it: the orderings are kept, and a hop is a few moves without a call."""

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit

from shm import atomics, hot
from shm.hot import BLOCK_WORDS, LOCAL_WORDS, Consumer, Producer
from tests.ring_kernels import MESSAGE

ROOT = Path(__file__).parents[1]
PAYLOAD = 0x7EAD_BEEF


def producer(capacity: int = 8) -> Producer:
    """A ring's writing end in private memory."""
    slots = np.zeros(capacity, MESSAGE).view(np.recarray)
    return Producer(slots, np.zeros((1, BLOCK_WORDS), np.int64), np.zeros(BLOCK_WORDS, np.int64), np.zeros(LOCAL_WORDS, np.int64))


def consumer(capacity: int = 8) -> Consumer:
    slots = np.zeros(capacity, MESSAGE).view(np.recarray)
    return Consumer(slots, np.zeros(BLOCK_WORDS, np.int64), np.zeros(LOCAL_WORDS, np.int64))


# Callers as a stage has them: plain, not inlined themselves, and compiled here, since numba shows no cached code.


@njit(_nrt=False)
def publish(out):
    index = hot.claim(out)
    if index >= 0:
        message = out.slots[index]
        message.a = PAYLOAD
        message.g = PAYLOAD
        hot.commit(out, index)
    return index


@njit(_nrt=False)
def publish_many(out, count):
    sent = 0
    while sent < count:
        index = hot.claim(out)
        if index == hot.FULL:
            break
        out.slots[index].a = sent
        hot.commit(out, index)
        sent += 1
    return sent


@njit(_nrt=False)
def take(into):
    index = hot.poll(into)
    while index < 0:
        index = hot.poll(into)
    value = into.slots[index].g
    hot.advance(into)
    hot.release(into)
    return value


@njit(_nrt=False)
def take_batch(into, count):
    total = 0
    while not hot.has_messages(into, count):
        atomics.pause()
    for _ in range(count):
        total += into.slots[hot.poll(into)].a
        hot.advance(into)
    hot.release(into)
    return total


@njit(_nrt=False)
def board_turn(board, copy):
    version = hot.board_open(board, 0)
    board[0].a = PAYLOAD
    hot.board_close(board, 0, version)
    return hot.board_read(board, 0, copy)


@njit(_nrt=False)
def measure(histogram, value):
    hot.record(histogram, value)


@pytest.fixture(scope="module")
def compiled() -> dict[str, Any]:
    out, into = producer(), consumer()
    publish(out)
    publish_many(out, 2)
    into.slots["sequence"] = np.arange(1, 9)
    take(into)
    take_batch(into, 2)
    board_turn(np.zeros(1, MESSAGE).view(np.recarray), np.zeros(1, MESSAGE).view(np.recarray))
    measure(np.zeros(3_000, np.int64), 5)
    return {kernel.py_func.__name__: kernel for kernel in (publish, publish_many, take, take_batch, board_turn, measure)}


def llvm_of(kernel: Any) -> list[str]:
    """The optimized body of a kernel, without its wrapper for Python."""
    (text,) = kernel.inspect_llvm().values()
    bodies = re.findall(r"^define [^\n]*@(\w+)\([^\n]*\{\n(.*?)^\}", text, flags=re.DOTALL | re.MULTILINE)
    name = kernel.py_func.__name__
    (body,) = [body for symbol, body in bodies if name in symbol and "cpython" not in symbol and "cfunc" not in symbol]
    return [line.strip() for line in body.splitlines()]


def assembly_of(kernel: Any) -> list[str]:
    (text,) = kernel.inspect_asm().values()
    functions = re.findall(r"^(_ZN\w+):\n(.*?)^\.Lfunc_end", text, flags=re.DOTALL | re.MULTILINE)
    name = kernel.py_func.__name__
    (body,) = [body for symbol, body in functions if name in symbol and "cpython" not in symbol]
    return [line.strip() for line in body.splitlines()]


def lines_with(body: list[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(body) if re.search(pattern, line)]


@pytest.mark.parametrize("name", ["publish", "publish_many", "take", "take_batch", "board_turn", "measure"])
def test_no_call_is_left_in_a_caller(compiled: dict[str, Any], name: str) -> None:
    body = assembly_of(compiled[name])
    assert len(body) > 10
    assert not [line for line in body if line.startswith("call")]
    whole = "\n".join(llvm_of(compiled[name]))
    assert "NRT_" not in whole, "reference counts or allocation on the hot path"
    assert not re.search(r"\bcall\b(?!.* @llvm\.)", whole)


def test_the_payload_is_stored_before_the_sequence_is_released(compiled: dict[str, Any]) -> None:
    body = llvm_of(compiled["publish"])
    (mark,) = lines_with(body, r"store atomic i64 0, .* monotonic, align 8")
    (fence,) = lines_with(body, r"fence release")
    payload = lines_with(body, rf"store i64 {PAYLOAD}, ")
    (release,) = lines_with(body, r"store atomic i64 %.* release, align 8")
    assert len(payload) == 2
    assert mark < fence < min(payload) < max(payload) < release


def test_the_processor_is_given_the_stores_in_that_order(compiled: dict[str, Any]) -> None:
    body = assembly_of(compiled["publish"])
    (mark,) = lines_with(body, r"movq\s+\$0, \(%r\w+,%r\w+\)")
    slot = re.escape(body[mark].partition("(")[2])
    stores = [re.search(rf", (\d*)\({slot}", line) for line in body[mark:]]
    assert [store.group(1) for store in stores if store] == ["", "8", "56", ""], "mark, payload, payload, sequence"


def test_a_poll_loads_with_acquire_in_its_loop(compiled: dict[str, Any]) -> None:
    body = llvm_of(compiled["take"])
    loads = lines_with(body, r"load atomic i64, .* acquire, align 8")
    blocks = {number: line.split(":")[0] for number, line in enumerate(body) if re.match(r"^[\w.\"-]+:", line)}
    spinning = [
        load
        for load in loads
        for start in [max(number for number in blocks if number < load)]
        for end in [min([number for number in blocks if number > load], default=len(body))]
        if any("br " in line and f"%{blocks[start]}" in line for line in body[load:end])
    ]
    assert spinning, "no block both loads with acquire and branches back to itself"
    (payload,) = lines_with(body, r"= load i64, .*, align 1$")
    (release,) = lines_with(body, r"store atomic i64 .* release, align 8")
    assert payload < release, "the slot is given back before its payload is read"


def test_an_index_is_never_tested_for_counting_from_the_end(compiled: dict[str, Any]) -> None:
    """The sign of an index would be spread with sar, or chosen with cmov."""
    publish = assembly_of(compiled["publish"])
    (mark,) = lines_with(publish, r"movq\s+\$0, \(%r\w+,%r\w+\)")
    assert not lines_with(publish[mark:], "^(sar|cmov|test)")
    assert not lines_with(assembly_of(compiled["take"]), "^(sar|cmov|test)")


def test_a_board_is_opened_before_and_closed_after_its_line_is_written(compiled: dict[str, Any]) -> None:
    body = llvm_of(compiled["board_turn"])
    (opened,) = lines_with(body, r"store atomic .* monotonic")
    (fence,) = lines_with(body, "fence release")
    (payload,) = lines_with(body, rf"store i64 {PAYLOAD}, ")
    (closed,) = lines_with(body, r"store atomic .* release")
    (second_fence,) = lines_with(body, "fence acquire")
    first, *_, last = lines_with(body, r"load atomic .* acquire")
    assert first < opened < fence < payload < closed < second_fence < last


def test_kernels_that_use_the_ring_are_cached(tmp_path: Path) -> None:
    """A second process compiles nothing."""
    program = (
        "import sys, engine\n"
        "from numba.core import event\n"
        "from tests.test_atomics import producer, consumer\n"
        "from shm.hot import claim, commit, poll, has_room, has_messages\n"
        "with event.install_recorder('numba:compile') as recorder:\n"
        "    out = producer()\n"
        "    commit(out, claim(out)); poll(consumer()); has_room(out, 2); has_messages(consumer(), 2)\n"
        "print(len([e for _, e in recorder.buffer if e.is_start]))\n"
    )
    environment = {**os.environ, "NUMBA_CACHE_DIR": str(tmp_path)}
    counts = [
        int(subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True).stdout)
        for _ in range(2)
    ]
    assert counts[0] > 0
    assert counts[1] == 0


# One by one


def test_orderings_of_single_operations() -> None:
    @njit(_nrt=False)
    def one_of_each(words):
        loaded = atomics.load_acquire(words, 1)
        atomics.store_relaxed(words, 2, loaded)
        atomics.fence_acquire()
        atomics.fence_release()
        atomics.store_release(words, 3, loaded)
        atomics.pause()
        atomics.prefetch(words, 0)
        atomics.prefetch_write(words, 0)
        return atomics.read_tsc()

    words = np.array([0, -5, 0, 0], np.int64)
    ticks = [one_of_each(words) for _ in range(3)]
    assert words.tolist() == [0, -5, -5, -5]
    assert 0 < ticks[0] < ticks[1] < ticks[2]
    text = "\n".join(llvm_of(one_of_each))
    order = [
        "load atomic i64, .* acquire", "store atomic i64 .* monotonic", "fence acquire", "fence release", "store atomic i64 .* release",
        "llvm.x86.sse2.pause", "llvm.prefetch.*i32 0, i32 3, i32 1", "llvm.prefetch.*i32 1, i32 3, i32 1", "llvm.readcyclecounter",
    ]  # fmt: skip
    assert re.search(".*".join(order), text, flags=re.DOTALL), text


def test_words_may_be_elements_or_the_first_field_of_records() -> None:
    @njit(_nrt=False)
    def swap(words, index):
        value = atomics.load_acquire(words, index)
        atomics.store_release(words, index, value + 1)
        return value

    for words in (np.array([7, 8], np.int64), np.array([7, 8], np.uint64)):
        assert swap(words, 1) == 8
        assert words.tolist() == [7, 9]
    records = np.zeros(2, MESSAGE).view(np.recarray)
    records["sequence"] = [7, (1 << 64) - 1]
    assert swap(records, 1) == -1
    assert records["sequence"].tolist() == [7, 0]


@pytest.mark.parametrize(
    "words",
    [
        np.zeros(2, np.int32),
        np.zeros((2, 2), np.int64),
        np.zeros(2, np.dtype([("half", "u4"), ("word", "u8")])),
        np.zeros(2, np.dtype({"names": ["word"], "formats": ["u8"], "offsets": [8], "itemsize": 16})),
    ],
    ids=["narrow", "two dimensions", "narrow first field", "first field not at 0"],
)
def test_words_of_another_shape_are_refused(words: np.ndarray) -> None:
    @njit(_nrt=False)
    def load(words):
        return atomics.load_acquire(words, 0)

    with pytest.raises(TypeError, match="expected"):
        load(words)


EDGES = [0, 1, 2, 5, 2**31, 2**32, 2**62, 2**63 - 2, 2**63 - 1, -1, -2, -(2**63), -(2**63) + 1]
SUMS = "print([[(wrap_add(a, b), wrap_sub(a, b)) for a in EDGES] for b in EDGES], [highest_bit(v) for v in (1, 2, 3, 1024, 2**62)])"


def test_twins_compute_what_the_kernels_compute() -> None:
    @njit(_nrt=False)
    def add(a, b):
        return atomics.wrap_add(a, b)

    @njit(_nrt=False)
    def sub(a, b):
        return atomics.wrap_sub(a, b)

    @njit(_nrt=False)
    def highest(value):
        return atomics.highest_bit(value)

    for kernel in (add, sub):
        kernel(1, 2)
        assert not lines_with(llvm_of(kernel), r"\b(nsw|nuw)\b"), "undefined where it overflows"
    kernels = f"{[[(add(a, b), sub(a, b)) for a in EDGES] for b in EDGES]} {[highest(v) for v in (1, 2, 3, 1024, 2**62)]}\n"
    program = f"from shm.atomics import wrap_add, wrap_sub, highest_bit\nEDGES = {EDGES}\n{SUMS}"
    environment = {**os.environ, "NUMBA_DISABLE_JIT": "1"}
    twins = subprocess.run([sys.executable, "-c", program], env=environment, cwd=ROOT, capture_output=True, text=True, check=True)
    assert twins.stdout == kernels
    assert add(2**63 - 1, 1) == -(2**63)
    assert sub(-(2**63), 2**63 - 1) == 1
