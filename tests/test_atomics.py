"""The operations of shm.atomics one by one: the ordering that each has in LLVM, and what its plain twin computes.

What the ring's kernels make of them is in tests/test_orderings.py.
"""

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
from tests.ring_kernels import MESSAGE

ROOT = Path(__file__).parents[1]


def producer(capacity: int = 8) -> hot.ProducerEnd:
    """A ring's writing end in private memory."""
    slots = np.zeros(capacity, MESSAGE).view(np.recarray)
    return hot.ProducerEnd(slots, *(np.zeros(shape, np.int64) for shape in ((1, hot.BLOCK_WORDS), hot.BLOCK_WORDS, hot.LOCAL_WORDS)))


def consumer(capacity: int = 8) -> hot.ConsumerEnd:
    slots = np.zeros(capacity, MESSAGE).view(np.recarray)
    return hot.ConsumerEnd(slots, *(np.zeros(words, np.int64) for words in (hot.BLOCK_WORDS, hot.BLOCK_WORDS, hot.LOCAL_WORDS)))


def llvm_of(kernel: Any) -> list[str]:
    """The optimized body of a kernel, without its wrapper for Python."""
    (text,) = kernel.inspect_llvm().values()
    bodies = re.findall(r"^define [^\n]*@(\w+)\([^\n]*\{\n(.*?)^\}", text, flags=re.DOTALL | re.MULTILINE)
    name = kernel.py_func.__name__
    (body,) = [body for symbol, body in bodies if name in symbol and "cpython" not in symbol and "cfunc" not in symbol]
    return [line.strip() for line in body.splitlines()]


def lines_with(body: list[str], pattern: str) -> list[int]:
    return [number for number, line in enumerate(body) if re.search(pattern, line)]


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
