"""The C face under the sanitizers of gcc and clang.

ThreadSanitizer looks at addresses: the same memory mapped twice is two memories to it. So tests/c/threads.c runs the ends of a ring as
threads over one mapping. It finds what a weaker order lets through between a plain store and a plain load: payload that is read before it
is published, or written over before it was given back. Each order it can see is weakened here in turn, and must be reported.

What it cannot see: fences (it takes every atomic as ordering its own word only), so neither the mark and the second look of an
observer or a board, whose racing copies are made of relaxed atomics for its sake, nor the two full fences of a join. The models in
tests/proof look at those. It cannot see numba's code either.
"""

import contextlib
import itertools
import os
import random
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from shm.ring import Ring, cursor_name
from shm.segment import SHM
from tests.c.driver import HERE, ROOT, End, build, compiler
from tests.c.kernels import message, write

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
MESSAGE = message(64)
MESSAGES = int(os.environ.get("TICKPATH_SANITIZER_MESSAGES", 4_000))
COMPILERS = ["gcc", "clang"]
RINGS = {
    "gate": {"readers": ["reader"], "spare": 1},
    "observe": {"readers": ["reader"], "observers": ["screen", "conflating"]},
    "evict": {"readers": ["reader", "mortal"], "when_full": "evict"},
    "board": {},
}
_COUNTER = itertools.count()


@contextlib.contextmanager
def ring_of(capacity: int, **more: object) -> Iterator[Ring]:
    name = f"tickpath-test-sanitized-{os.getpid()}-{next(_COUNTER)}"
    ring = Ring.create(name, capacity, {"message": MESSAGE}, **more)  # type: ignore[arg-type]
    try:
        yield ring
    finally:
        ring.detach()
        for segment in (name, cursor_name(name)):
            (SHM / segment).unlink(missing_ok=True)


def needs(cc: str, sanitizer: str, folder: Path) -> None:
    """Skip, by name, where the compiler or its runtime library is not installed."""
    if compiler(cc) is None:
        pytest.skip(f"{cc} is not installed")
    source = folder / "empty.c"
    source.write_text("int main(void) { return 0; }\n")
    command = [cc, f"-fsanitize={sanitizer}", str(source), "-o", str(folder / "empty")]
    if subprocess.run(command, capture_output=True, timeout=120).returncode != 0:
        pytest.skip(f"{cc} has no runtime for -fsanitize={sanitizer}")


# ThreadSanitizer


def threads_program(folder: Path, cc: str, headers: Path = ROOT / "shm") -> Path:
    # gcc says that fences are not understood, which this file says too; -O1 keeps the stacks of a report readable.
    quiet = ["-Wno-tsan"] if cc == "gcc" else []
    return build(HERE / "threads.c", folder / f"threads_{cc}", "-O1", "-g", "-fsanitize=thread", "-pthread", *quiet, cc=cc, headers=headers)


def run_threads(program: Path, work: str, messages: int = MESSAGES) -> subprocess.CompletedProcess[str]:
    with ring_of(16, **RINGS[work]) as ring:
        # Addresses at random may lie where the sanitizer has its own.
        fixed = ["setarch", "-R"] if shutil.which("setarch") else []
        return subprocess.run([*fixed, str(program), ring.name, work, str(messages)], capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module", params=COMPILERS)
def threads(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"tsan_{request.param}")
    needs(request.param, "thread", folder)
    return threads_program(folder, request.param)


@pytest.mark.parametrize("work", RINGS)
def test_the_ends_of_a_ring_do_not_race(threads: Path, work: str) -> None:
    finished = run_threads(threads, work)
    assert finished.returncode == 0, finished.stderr
    assert "WARNING" not in finished.stderr
    if work == "evict":
        assert int(finished.stdout.split("=")[1]) > 0, "nobody was let go: nothing was looked at"


# What is weakened, where in which file, and the work that shows it.
MUTANTS = {
    "publish": ("tickpath.h", "tp_store_release(slot, position + 1);", "tp_store_relaxed(slot, position + 1);", "gate"),
    "poll": ("tickpath.h", "return tp_load_acquire(slot) == position + 1", "return tp_load_relaxed(slot) == position + 1", "gate"),
    "give back": (
        "tickpath.h",
        "tp_store_release(&end->block->position, end->local[TP_POSITION]);",
        "tp_store_relaxed(&end->block->position, end->local[TP_POSITION]);",
        "gate",
    ),
    "look at readers": (
        "tickpath.h",
        "tp_ahead(position, tp_load_acquire(&readers[k].position))",
        "tp_ahead(position, tp_load_relaxed(&readers[k].position))",
        "gate",
    ),
    "leave": ("tickpath.h", "__atomic_store_n(&block->mode, mode, __ATOMIC_RELEASE)", "__atomic_store_n(&block->mode, mode, 0)", "gate"),
    "racing copy": (
        "tickpath.h",
        "uint64_t word = tp_load_relaxed((const uint8_t *)from + i);",
        "uint64_t word; memcpy(&word, (const uint8_t *)from + i, 8);",
        "observe",
    ),
    "racing write": (
        "tickpath.h",
        "        tp_store_relaxed((uint8_t *)to + i, word);",
        "        memcpy((uint8_t *)to + i, &word, 8);",
        "board",
    ),
}


@pytest.mark.parametrize("weakened", MUTANTS)
def test_a_weaker_order_is_reported(tmp_path: Path, weakened: str) -> None:
    needs("gcc", "thread", tmp_path)
    file, text, weaker, work = MUTANTS[weakened]
    for header in (ROOT / "shm").glob("*.h"):
        shutil.copy(header, tmp_path)
    source = (tmp_path / file).read_text()
    assert source.count(text) == 1, f"{text!r} is not in {file} once"
    (tmp_path / file).write_text(source.replace(text, weaker))
    program = threads_program(tmp_path, "gcc", tmp_path)
    for _ in range(10):
        finished = run_threads(program, work)
        if "WARNING: ThreadSanitizer: data race" in finished.stderr:
            return
    pytest.fail(f"a weaker {weakened} went unseen")


# AddressSanitizer and UndefinedBehaviorSanitizer


@pytest.fixture(scope="module", params=COMPILERS)
def checked(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp(f"asan_{request.param}")
    needs(request.param, "address,undefined", folder)
    return build(HERE / "driver.c", folder / "driver", "-g", "-fsanitize=address,undefined", "-fno-sanitize-recover=all", cc=request.param)


def test_every_role_is_clean(checked: Path) -> None:
    with ring_of(4, readers=["reader"], observers=["screen"], spare=1, when_full="evict", first_position=(1 << 64) - 6) as ring:
        name = ring.name
        with (
            End(checked, "producer", name) as out,
            End(checked, "reader", name, "reader") as into,
            End(checked, "observer", name, "-", "oldest", "0") as anyone,
            End(checked, "observer", name, "screen", "resume", "0") as screen,
            End(checked, "joining", name, "late", "oldest", "0") as late,
        ):
            for number in range(20):
                assert out.tell(f"push {number} 0") == f"pushed {number}"
                assert into.tell("next 1000000") == late.tell("next 1000000") == f"got {number}"
                assert into.tell("release").startswith("released") and late.tell("release").startswith("released")
                assert anyone.tell("observe 0") == f"got {number}"
            assert screen.tell("observe 0").startswith("lapped")
            assert screen.tell("conflate").startswith("skipped")
            assert late.tell("leave") == "left 0" and late.close() == 0
            into.kill()
            assert [out.tell(f"push {number} 1000")[:6] for number in range(20, 25)] == ["pushed"] * 5, "the dead one was let go"
            assert anyone.tell("local").startswith("word")
            assert [end.close() for end in (out, screen)] == [0, 0]


def attempts(driver: Path, name: str) -> list[str]:
    """What each kind of role says to a ring that may be anything. None of them may crash."""
    said = []
    for arguments in (
        ["producer", name],
        ["reader", name, "reader"],
        ["joining", name, "late", "oldest", "0"],
        ["observer", name, "-", "oldest", "0"],
    ):
        finished = subprocess.run([str(driver), *arguments], capture_output=True, text=True, timeout=60)
        assert finished.returncode in (0, 1) and not finished.stderr, (finished.returncode, finished.stderr)
        assert finished.stdout.startswith("ok" if finished.returncode == 0 else "error")
        said.append(finished.stdout)
    return said


@pytest.mark.parametrize("segment", ["", ".cursors"])
def test_no_byte_of_an_identity_makes_it_crash(checked: Path, segment: str) -> None:
    """Every byte of the identity that is looked at before it is believed, to something else; each role opens what results."""
    print(f"TICKPATH_SEED={SEED}")
    chance = random.Random(SEED)
    with ring_of(64, readers=["reader"], spare=1) as ring:
        write(ring.producer(MESSAGE).end, 0, 10)
        name = ring.name
        ring.detach()
        path = SHM / (name + segment)
        whole = path.read_bytes()
        for offset in range(0, 128, 2):
            damaged = bytearray(whole)
            damaged[offset] = chance.choice([0, 1, 0x7F, 0x80, 0xFF, damaged[offset] ^ 0x10])
            path.write_bytes(damaged)
            said = attempts(checked, name)
            if offset < 48 and damaged != whole:
                assert any(answer.startswith("error") for answer in said), f"byte {offset} of the identity was not looked at"
        path.write_bytes(whole)
        for bytes_left in (0, 8, 100, 4096, 8192, len(whole) - 4096, len(whole) + 4096):
            path.write_bytes(whole)
            os.truncate(path, bytes_left)
            assert all(answer.startswith("error") for answer in attempts(checked, name))


def test_no_cursor_makes_it_crash(checked: Path) -> None:
    """Cursor blocks full of anything: positions are masked, modes unknown to nobody, names without an end."""
    print(f"TICKPATH_SEED={SEED}")
    chance = random.Random(SEED)
    with ring_of(4, readers=["reader"], spare=1) as ring:
        path = SHM / cursor_name(ring.name)
        whole = path.read_bytes()
        for _ in range(25):
            damaged = bytearray(whole)
            for offset in range(8192, 8192 + 3 * 128, 4):
                if chance.random() < 0.5:
                    damaged[offset : offset + 4] = chance.choice([b"\xff" * 4, b"\x80" * 4, chance.randbytes(4), b"\x01\0\0\0"])
            path.write_bytes(damaged)
            attempts(checked, ring.name)
            with End(checked, "producer", ring.name) as out:
                for number in range(6):
                    assert out.tell(f"push {number} 1000").split()[0] in ("pushed", "full")
            with End(checked, "observer", ring.name, "-", "oldest", "0") as end:
                for _ in range(6):
                    assert end.tell("observe 0").split()[0] in ("got", "empty", "lapped")
                assert end.tell("conflate").startswith("skipped")
