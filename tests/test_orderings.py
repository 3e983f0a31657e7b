"""The orders that the protocol needs, read in what LLVM and gcc made of the kernels and of the C face.

Every check is tried on mutants too: shm/hot.py with one line changed, compiled, and refused by the check.
"""

import re
import shutil
import subprocess
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numba import njit, typeof

from shm import hot
from tests.flow import Flow, Instruction, Operation, assembly_of, flow_of, instructions_of, loops_of
from tests.ring_kernels import MESSAGE

ROOT = Path(__file__).parents[1]
PAYLOAD = 0x7EAD_BEEF
ARRAYS = {"out": ("slots", "readers", "block", "local"), "into": ("slots", "producer", "block", "local")}
LIMIT_BYTE = 8 * hot.PRODUCER_LIMIT
MODE_BYTE = 8 * hot.READER_MODE


def kernels_of(module: Any) -> dict[str, Any]:
    """Callers as a stage has them, compiled against shm.hot or a mutant of it."""

    @njit(_nrt=False)
    def publish(out):
        index = module.claim(out)
        if index >= 0:
            message = out.slots[index]
            message.a = PAYLOAD
            message.g = PAYLOAD
            module.commit(out, index)
        return index

    @njit(_nrt=False)
    def publish_many(out, count):
        sent = 0
        while sent < count:
            index = module.claim(out)
            if index == module.FULL:
                break
            out.slots[index].a = sent
            module.commit(out, index)
            sent += 1
        return sent

    @njit(_nrt=False)
    def publish_too_early(out):
        index = module.claim(out)
        if index >= 0:
            module.commit(out, index)
            out.slots[index].a = PAYLOAD
        return index

    @njit
    def publish_counted(out):
        index = module.claim(out)
        if index >= 0:
            out.slots[index].a = PAYLOAD
            module.commit(out, index)
        return index

    @njit(_nrt=False)
    def ask(out, count):
        return module.has_room(out, count)

    @njit(_nrt=False)
    def take(into):
        index = module.poll(into)
        while index < 0:
            index = module.poll(into)
        value = into.slots[index].g
        module.advance(into)
        module.release(into)
        return value

    @njit(_nrt=False)
    def take_batch(into, count):
        total = 0
        while not module.has_messages(into, count):
            pass
        for _ in range(count):
            total += into.slots[module.poll(into)].a
            module.advance(into)
        module.release(into)
        return total

    @njit(_nrt=False)
    def look(into, copy):
        return module.observe(into, copy)

    @njit(_nrt=False)
    def board_write(board):
        version = module.board_open(board, 0)
        board[0].a = PAYLOAD
        module.board_close(board, 0, version)

    @njit(_nrt=False)
    def board_look(board, copy):
        return module.board_read(board, 0, copy)

    @njit(_nrt=False)
    def measure(histogram, value):
        module.record(histogram, value)

    return {name: kernel for name, kernel in locals().items() if name != "module"}


def slots_of(capacity: int = 8) -> np.recarray:
    return np.zeros(capacity, MESSAGE).view(np.recarray)


def words(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.int64)


def compiled(module: Any, name: str) -> Any:
    """A caller, compiled by a call with a ring in private memory."""
    out = module.ProducerEnd(slots_of(), words(2, hot.BLOCK_WORDS), words(hot.BLOCK_WORDS), words(hot.LOCAL_WORDS))
    into = module.ConsumerEnd(slots_of(), words(hot.BLOCK_WORDS), words(hot.BLOCK_WORDS), words(hot.LOCAL_WORDS))
    into.slots["sequence"] = np.arange(1, 9)
    arguments = {
        "publish": (out,),
        "publish_many": (out, 2),
        "publish_too_early": (out,),
        "publish_counted": (out,),
        "ask": (out, 1),
        "take": (into,),
        "take_batch": (into, 2),
        "look": (into, slots_of(1)),
        "board_write": (slots_of(1),),
        "board_look": (slots_of(1), slots_of(1)),
        "measure": (words(3_000), 5),
    }
    kernel = kernels_of(module)[name]
    kernel.compile(tuple(map(typeof, arguments[name])))
    return kernel


def mutant_of(before: str, after: str) -> types.ModuleType:
    """shm.hot with one piece of its text changed."""
    text = Path(hot.__file__).read_text()
    assert before in text, f"shm/hot.py has no longer: {before}"
    module = types.ModuleType("mutant_of_hot")
    # What has no file of its own cannot be cached.
    exec(text.replace(before, after).replace("cache=True, ", ""), module.__dict__)
    return module


# The checks


def check_publish(kernel: Any) -> None:
    flow = flow_of(kernel, ARRAYS)
    marks = flow.having("store", "monotonic", "slots")
    releases = flow.having("store", "release", "slots")
    fences = flow.having("fence", "release")
    payload = flow.having("store", "plain", "slots")
    assert marks, "no mark"
    assert releases, "no release"
    assert payload, "no payload"
    for stored in payload:
        assert flow.always_between(None, marks, stored), "payload before the mark"
        assert all(flow.always_between(mark, fences, stored) for mark in marks), "payload before the fence after the mark"
        assert flow.always_between(stored, releases, None), "payload that is never published"
        assert all(flow.always_between(release, marks, stored) for release in releases), "payload after the release"


def check_the_fence_is_cold(kernel: Any) -> None:
    flow = flow_of(kernel, ARRAYS)
    fences = flow.having("fence", "seq_cst")
    assert len(fences) == 1
    (release,) = flow.having("store", "release", "slots")
    assert flow.reaches(None, release, around=fences), "every message pays for a full fence"


def check_ask(kernel: Any) -> None:
    flow = flow_of(kernel, ARRAYS)
    fences = flow.having("fence", "seq_cst")
    announced = flow.having("store", "monotonic", "block", LIMIT_BYTE)
    looks = flow.having("load", None, "readers")
    assert looks, "no reader is looked at"
    assert {look.order for look in looks} == {"acquire"}, "a reader is looked at without acquire"
    for look in looks:
        assert flow.always_between(None, fences, look), "a reader is looked at before the full fence"
    for fence in fences:
        assert flow.always_between(None, announced, fence), "the limit is not announced before the full fence"


def check_take(kernel: Any) -> None:
    flow = flow_of(kernel, ARRAYS)
    polls = flow.having("load", "acquire", "slots")
    payload = flow.having("load", "plain", "slots")
    releases = flow.having("store", "release", "block", 0)
    assert any(flow.reaches(poll, poll) for poll in polls), "no acquire load in a loop"
    assert payload, "no payload"
    assert releases, "no release"
    for read in payload:
        assert flow.always_between(None, polls, read), "payload before the poll"
        assert not any(flow.reaches(release, read) for release in releases), "payload after it was given back"


def check_copy(kernel: Any, array: str) -> None:
    flow = flow_of(kernel, ARRAYS)
    looks = flow.having("load", "acquire", array)
    fences = flow.having("fence", "acquire")
    copy = flow.having("load", "plain", array)
    assert copy, "nothing is copied"
    for read in copy:
        assert flow.always_between(None, looks, read), "a copy before the first look"
        assert flow.always_between(read, fences, None), "no fence after the copy"
    for fence in fences:
        assert flow.always_between(fence, looks, None), "no second look after the fence"
        assert not any(flow.reaches(fence, read) for read in copy), "copied again after the fence"


def check_board_write(kernel: Any) -> None:
    flow = flow_of(kernel, ARRAYS)
    opened = flow.having("store", "monotonic", "board")
    fences = flow.having("fence", "release")
    closed = flow.having("store", "release", "board")
    payload = flow.having("store", "plain", "board")
    assert payload, "no payload"
    for stored in payload:
        assert flow.always_between(None, opened, stored), "written before the version is odd"
        assert all(flow.always_between(store, fences, stored) for store in opened), "no fence after the odd version"
        assert flow.always_between(stored, closed, None), "not closed with release"


def check_observe(kernel: Any) -> None:
    check_copy(kernel, "slots")


def check_board_read(kernel: Any) -> None:
    check_copy(kernel, "board")


def check_no_call(kernel: Any) -> None:
    whole = flow_of(kernel, ARRAYS).text
    assert "NRT_" not in whole, "reference counts or allocation on the hot path"
    assert not re.search(r"\bcall\b(?!.* @llvm\.)", whole), "a call is left"
    instructions, _ = instructions_of(assembly_of(kernel))
    assert len(instructions) > 10
    assert not [instruction for instruction in instructions if instruction.name.startswith("call")], "a call is left"


def check_nothing_locked(kernel: Any) -> None:
    instructions, _ = instructions_of(assembly_of(kernel))
    assert not [instruction for instruction in instructions if instruction.is_locked], "a locked instruction on a hot path"


def shared(instructions: list[Instruction]) -> list[Instruction]:
    """Those that name memory which is not the stack's."""
    return [instruction for instruction in instructions if instruction.memory and "%rsp" not in instruction.operands]


def check_spins_on_memory(instructions: list[Instruction], labels: dict[str, int]) -> None:
    """The innermost loops, and the loads in them of something else than the stack: a loop without one never ends."""
    loops = loops_of(instructions, labels)
    assert loops, "no loop"
    for loop in loops:
        assert any(instruction.loads for instruction in shared(loop)), "a loop that looks at no memory"


def check_spin(kernel: Any) -> None:
    check_spins_on_memory(*instructions_of(assembly_of(kernel)))


CHECKS: list[tuple[str, Callable[[Any], None]]] = [
    *[(name, check_publish) for name in ("publish", "publish_many")],
    ("publish", check_the_fence_is_cold),
    ("ask", check_ask),
    ("publish", check_ask),
    *[(name, check_take) for name in ("take", "take_batch")],
    *[(name, check_spin) for name in ("take", "take_batch")],
    ("look", check_observe),
    ("board_write", check_board_write),
    ("board_look", check_board_read),
    *[
        (name, check_no_call)
        for name in ("publish", "publish_many", "ask", "take", "take_batch", "look", "board_write", "board_look", "measure")
    ],
    *[(name, check_nothing_locked) for name in ("take", "take_batch", "look", "board_write", "board_look", "measure")],
]

PUBLISH = "store_release(ring.slots, index, position)"
MARK = "store_relaxed(ring.slots, index, position)\n"
AFTER_THE_MARK = "fence_release()\n    return index"
POLL = "load_acquire(ring.slots, index) == wrap_add"
POLL_PLAIN = "np.int64(ring.slots[index].sequence) == wrap_add"
FULL = "    fence_seq_cst()\n"
ANNOUNCE = "    store_relaxed(block, PRODUCER_LIMIT, wrap_add(position, capacity))\n"
LOOK_AGAIN = "sequence = load_acquire(ring.slots, index)\n"
FENCE_AND_LOOK = "fence_acquire()\n        " + LOOK_AGAIN
GOT = "            return GOT\n"
GIVE_BACK = "store_release(ring.block, READER_POSITION"
OPENED = "fence_release()\n    return version"
CLOSE = "store_release(board, key, version + 2)"
READ_AGAIN = "if load_acquire(board, key) != version:"

# What is changed in shm/hot.py, into what, and who finds out.
MUTANTS: dict[str, tuple[str, str, str, Callable[[Any], None]]] = {
    "publish relaxed": (PUBLISH, PUBLISH.replace("release", "relaxed"), "publish", check_publish),
    "publish plain": (PUBLISH, "ring.slots[index].sequence = position", "publish", check_publish),
    "no mark": (MARK, "pass\n", "publish", check_publish),
    "mark plain": (MARK, "ring.slots[index].sequence = position\n", "publish", check_publish),
    "no fence after the mark": (AFTER_THE_MARK, "return index", "publish", check_publish),
    "published too early": ("", "", "publish_too_early", check_publish),
    "a full fence for every message": (AFTER_THE_MARK, AFTER_THE_MARK.replace("release", "seq_cst"), "publish", check_the_fence_is_cold),
    "poll plain": (POLL, POLL_PLAIN, "take", check_take),
    "poll hoisted": (POLL, POLL_PLAIN, "take", check_spin),
    "released relaxed": (GIVE_BACK, GIVE_BACK.replace("release(", "relaxed("), "take", check_take),
    "no full fence": (FULL, "", "ask", check_ask),
    "half a fence": (FULL, FULL.replace("seq_cst", "release"), "ask", check_ask),
    "readers looked at plainly": ("load_acquire(block, READER_MODE)", "block[READER_MODE]", "ask", check_ask),
    "nothing announced": (ANNOUNCE, "", "ask", check_ask),
    "no fence before the second look": (FENCE_AND_LOOK, LOOK_AGAIN, "look", check_observe),
    "no second look": (FENCE_AND_LOOK, "fence_acquire()\n", "look", check_observe),
    "copied after the second look": (GOT, "            copy[0] = ring.slots[index]\n" + GOT, "look", check_observe),
    "board opened without fence": (OPENED, "return version", "board_write", check_board_write),
    "board closed relaxed": (CLOSE, CLOSE.replace("release", "relaxed"), "board_write", check_board_write),
    "board read without fence": ("fence_acquire()\n    " + READ_AGAIN, READ_AGAIN, "board_look", check_board_read),
    "board read without second look": (READ_AGAIN, "if version < 0:", "board_look", check_board_read),
    "reference counts": ("_nrt=False", "_nrt=True", "publish_counted", check_no_call),
}


@pytest.fixture(scope="module")
def kernels() -> dict[str, Any]:
    return {name: compiled(hot, name) for name in dict(CHECKS)}


@pytest.mark.parametrize(("name", "check"), CHECKS, ids=[f"{name}-{check.__name__}" for name, check in CHECKS])
def test_what_llvm_made_keeps_the_order(kernels: dict[str, Any], name: str, check: Callable[[Any], None]) -> None:
    check(kernels[name])


@pytest.mark.parametrize("mutant", MUTANTS)
def test_a_kernel_without_an_order_is_refused(mutant: str) -> None:
    before, after, name, check = MUTANTS[mutant]
    kernel = compiled(mutant_of(before, after) if before else hot, name)
    with pytest.raises(AssertionError):
        check(kernel)


def test_the_processor_is_given_the_stores_in_that_order(kernels: dict[str, Any]) -> None:
    instructions, _ = instructions_of(assembly_of(kernels["publish"]))
    (slot,) = {instruction.memory[1] for instruction in instructions if instruction.memory and f"${PAYLOAD}," in instruction.operands}
    stores = [store.memory[0] for store in shared(instructions) if store.stores and store.memory[1] == slot]
    assert stores == ["0", "8", "56", "0"], "mark, payload, payload, sequence"


def test_the_full_fence_is_between_the_announcement_and_the_look(kernels: dict[str, Any]) -> None:
    instructions, _ = instructions_of(assembly_of(kernels["ask"]))
    (fence,) = [instruction.line for instruction in instructions if instruction.is_locked]
    announced = [store.line for store in shared(instructions) if store.stores and store.memory[0] == str(LIMIT_BYTE)]
    assert min(announced) < fence
    looks = [instruction for instruction in shared(instructions) if instruction.loads and instruction.memory[0] == str(MODE_BYTE)]
    assert looks
    assert all(look.line > fence for look in looks)


def test_an_observer_copies_between_its_two_looks(kernels: dict[str, Any]) -> None:
    instructions, _ = instructions_of(assembly_of(kernels["look"]))
    copies = [instruction for instruction in shared(instructions) if instruction.loads and instruction.memory[0] == "56"]
    (slot,) = {copy.memory[1] for copy in copies}
    of_the_slot = [instruction for instruction in instructions if instruction.loads and instruction.memory[1] == slot]
    assert of_the_slot[-1].memory[0] == "0", "the last of the slot that is looked at is its sequence"
    assert len(copies) == 1, "copied twice"


def test_an_index_is_never_tested_for_counting_from_the_end(kernels: dict[str, Any]) -> None:
    """The sign of an index would be spread with sar, or chosen with cmov."""
    publish, _ = instructions_of(assembly_of(kernels["publish"]))
    payload = max(instruction.line for instruction in publish if f"${PAYLOAD}," in instruction.operands)
    hot_path = [instruction for instruction in publish if payload - 12 < instruction.line <= payload]
    take, _ = instructions_of(assembly_of(kernels["take"]))
    assert not [instruction for instruction in [*hot_path, *take] if re.match("sar|cmov|test", instruction.name)]


# The C face

# Each in a file of its own: what is called from two places is not always inlined.
C_CALLERS = {
    "publish": """uint64_t publish(struct tp_producer_end *end) {
        uint64_t *slot = tp_claim(end);
        if (!slot) return 0;
        slot[1] = PAYLOAD; slot[7] = PAYLOAD;
        tp_commit(end);
        return 1; }""",
    "publish_too_early": """uint64_t publish_too_early(struct tp_producer_end *end) {
        uint64_t *slot = tp_claim(end);
        if (!slot) return 0;
        tp_commit(end);
        slot[1] = PAYLOAD; slot[7] = PAYLOAD;
        return 1; }""",
    "take": """uint64_t take(struct tp_reader_end *end) {
        const uint64_t *slot;
        do slot = tp_poll(end); while (!slot);
        uint64_t value = slot[7];
        tp_advance(end);
        tp_release(end);
        return value; }""",
    "look": "int look(struct tp_reader_end *end, uint64_t *copy) { return tp_observe(end, copy); }",
    "ask": "int ask(struct tp_producer_end *end, uint64_t count) { return tp_has_room(end, count); }",
    "join": "uint64_t join(struct tp_producer *producer, struct tp_reader *block) { return tp_join(producer, block); }",
}

needs_gcc = pytest.mark.skipif(shutil.which("gcc") is None, reason="gcc is not installed: apt-get install gcc")


def gcc_made(folder: Path, name: str, before: str = "", after: str = "") -> tuple[list[Instruction], dict[str, int]]:
    """The assembly of a caller, with the headers as they are or with one piece of text changed."""
    headers = {header.name: header.read_text() for header in (ROOT / "shm").glob("*.h")}
    assert any(before in text for text in headers.values()), f"no header has: {before}"
    for header, text in headers.items():
        (folder / header).write_text(text.replace(before, after) if before else text)
    (folder / "caller.c").write_text(f'#include "tickpath.h"\n#define PAYLOAD {PAYLOAD}\n{C_CALLERS[name]}\n')
    command = ["gcc", "-std=gnu11", "-O2", "-w", "-fno-asynchronous-unwind-tables", "-fcf-protection=none", "-S", "caller.c", "-o", "-"]
    made = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    functions = dict(re.findall(r"^(\w+):\n(.*?)^\t\.size", made.stdout, flags=re.DOTALL | re.MULTILINE))
    return instructions_of(functions[{"ask": "tp_ask_readers"}.get(name, name)])


def check_gcc_publish(instructions: list[Instruction], labels: dict[str, int]) -> None:
    payload = [instruction for instruction in instructions if f"${PAYLOAD}," in instruction.operands]
    assert [instruction.memory[0] for instruction in payload if instruction.memory] == ["8", "56"]
    slot = payload[0].memory
    assert slot is not None
    stores = [instruction for instruction in instructions if instruction.stores and instruction.memory[0] == "0"]
    before = [store for store in stores if store.line < payload[0].line and store.memory[1] == slot[1]]
    end = min(instruction.line for instruction in instructions if instruction.name == "ret" and instruction.line > payload[-1].line)
    after = [store for store in stores if payload[-1].line < store.line < end]
    assert before, "no mark before the payload"
    assert after, "no sequence after the payload"
    assert not [instruction for instruction in instructions if instruction.is_locked and payload[0].line <= instruction.line < end]


def check_gcc_ask(instructions: list[Instruction], labels: dict[str, int]) -> None:
    fences = [instruction.line for instruction in instructions if instruction.is_locked]
    assert len(fences) == 1, "one full fence"
    announced = [store.line for store in shared(instructions) if store.stores and store.memory[0] == str(LIMIT_BYTE)]
    assert announced, "nothing announced"
    assert min(announced) < fences[0], "announced after the fence"


def check_gcc_join(instructions: list[Instruction], labels: dict[str, int]) -> None:
    (fence,) = [instruction.line for instruction in instructions if instruction.is_locked] or [None]
    assert fence is not None, "no full fence"
    mode = [i.line for i in instructions if i.stores and i.memory[0] == str(MODE_BYTE)]
    limit = [i.line for i in instructions if i.loads and i.memory[0] == str(LIMIT_BYTE)]
    assert mode[0] < fence < limit[0]


def check_gcc_quiet(instructions: list[Instruction], labels: dict[str, int]) -> None:
    calls = [instruction.operands for instruction in instructions if instruction.name.startswith("call")]
    assert set(calls) <= {"tp_lap", "tp_ask_readers"}, "what is not on the hop's path may be a call"
    assert not [instruction for instruction in instructions if instruction.is_locked]


@needs_gcc
@pytest.mark.parametrize(
    ("name", "check"),
    [
        ("publish", check_gcc_publish),
        ("ask", check_gcc_ask),
        ("join", check_gcc_join),
        ("take", check_spins_on_memory),
        ("take", check_gcc_quiet),
        ("look", check_gcc_quiet),
    ],
)
def test_gcc_keeps_the_order(tmp_path: Path, name: str, check: Callable[..., None]) -> None:
    check(*gcc_made(tmp_path, name))


FULL_FENCE = "__atomic_thread_fence(__ATOMIC_SEQ_CST);"
LOAD = "__atomic_load_n((const tp_word *)word, __ATOMIC_ACQUIRE)"
C_MUTANTS: dict[str, tuple[str, str, str, Callable[..., None]]] = {
    "published too early": ("", "", "publish_too_early", check_gcc_publish),
    "no mark": ("tp_store_relaxed(slot, position);", ";", "publish", check_gcc_publish),
    "no full fence in ask": (FULL_FENCE, "", "ask", check_gcc_ask),
    "no full fence in join": (FULL_FENCE, "", "join", check_gcc_join),
    "nothing announced": ("tp_store_relaxed(&end->block->limit, position + end->capacity);", "", "ask", check_gcc_ask),
    "poll plain": (LOAD, "*(const tp_word *)word", "take", check_spins_on_memory),
    "a full fence for every look": ("(__ATOMIC_ACQUIRE);\n        seq", "(__ATOMIC_SEQ_CST);\n        seq", "look", check_gcc_quiet),
}


@needs_gcc
@pytest.mark.parametrize("mutant", C_MUTANTS)
def test_c_without_an_order_is_refused(tmp_path: Path, mutant: str) -> None:
    before, after, name, check = C_MUTANTS[mutant]
    made = gcc_made(tmp_path, name, before, after)
    with pytest.raises(AssertionError):
        check(*made)


def test_a_flow_knows_what_lies_between() -> None:
    """The questions on a flow that is drawn here: a diamond with a loop below it."""
    first, left, right, loop, last = (Operation(block, 0, "store", "plain") for block in ("a", "b", "c", "d", "e"))
    flow = Flow("a", [first, left, right, loop, last], {"a": ["b", "c"], "b": ["d"], "c": ["d"], "d": ["d", "e"], "e": []})
    assert flow.reaches(None, last)
    assert flow.reaches(loop, loop)
    assert not flow.reaches(left, left)
    assert not flow.reaches(left, right)
    assert flow.reaches(first, loop, around=[left])
    assert flow.always_between(first, [left, right], loop)
    assert not flow.always_between(first, [left], loop)
    assert flow.always_between(None, [loop], None)
    assert flow.reaches(last, None)
