"""The soak: every face at either end, and a short one with hundreds of kills. `make soak` is the long one."""

import os
import random
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from perf import soak
from shm.ring import Ring
from tests.children import CHILD_S, child, wait_for_exit

ROOT = Path(__file__).parents[1]
SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
# A small ring changes hands at every few messages, which takes long where a core has much else to do.
COUNT = {2: 300, 64: 2_000}
WAYS = range(4 if shutil.which("gcc") else 3)
NAMES = ("kernel", "python", "python-batch", "c")


@pytest.fixture(autouse=True)
def _print_seed() -> None:
    print(f"TICKPATH_SEED={SEED}")


@pytest.fixture(scope="module")
def steps(tmp_path_factory: pytest.TempPathFactory) -> soak.Steps:
    soak.warm()
    c = soak.CFace(tmp_path_factory.mktemp("soak")) if len(WAYS) == 4 else None
    return soak.Steps(random.Random(SEED), 100, c)


@pytest.fixture(params=[2, 64])
def ring(request: pytest.FixtureRequest, instance: str) -> Iterator[Ring]:
    made = Ring.create(instance, request.param, {"message": soak.MESSAGE}, ["reader"], first_position=(1 << 64) - 100)
    yield made
    made.unlink()
    made.detach()


@pytest.mark.parametrize("read", WAYS, ids=NAMES.__getitem__)
@pytest.mark.parametrize("write", WAYS, ids=NAMES.__getitem__)
def test_any_face_reads_what_any_face_writes(ring: Ring, steps: soak.Steps, write: int, read: int) -> None:
    count = COUNT[ring.capacity]

    def reader() -> bool:
        with ring.consumer("reader", soak.MESSAGE) as into:
            done = 0
            while done < count:
                done += soak.whole(steps.ways_to_read[read](into, min(100, count - done)), into)
                os.sched_yield()
            return True

    with child(reader) as pid, ring.producer(soak.MESSAGE) as out, ring.observer(soak.MESSAGE) as watcher:
        done = seen = 0
        deadline = time.monotonic() + CHILD_S
        while done < count:
            assert time.monotonic() < deadline, f"stuck at {done} of {count}"
            done += steps.ways_to_write[write](out, min(100, count - done))
            seen += soak.whole(steps.ways_to_observe[read](watcher, 100), watcher)
            os.sched_yield()
        while soak.position_of(watcher) != soak.position_of(out):
            assert time.monotonic() < deadline, f"the observer is stuck at {soak.position_of(watcher)}"
            seen += soak.whole(steps.ways_to_observe[read](watcher, 100), watcher)
        assert seen + watcher.lost == count
        assert wait_for_exit(pid) == 0
    assert ring.backlog() == {"reader": 0}


def test_a_few_hundred_kills() -> None:
    tally = soak.soak(seconds=10, seed=SEED, kills=200)
    print(tally)
    assert tally.kills >= 200
    assert tally.messages > 0


def test_the_command_prints_its_seed_and_what_it_saw() -> None:
    command = [sys.executable, "perf/soak.py", "--seconds", "0", "--seed", "5"]
    finished = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=240)
    assert finished.returncode == 0, finished.stderr
    assert finished.stdout.startswith("seed 5\n1 rings, ")


def test_what_is_torn_missing_or_twice_is_a_fault() -> None:
    array = soak.messages((1 << 64) - 3, 6)
    soak.check(array, (1 << 64) - 3, "a reader")
    for wrong in (np.delete(array, 2), np.repeat(array, [1, 1, 2, 1, 1, 1]), array[::-1]):
        with pytest.raises(soak.Fault, match="its numbers in order"):
            soak.check(wrong, (1 << 64) - 3, "a reader")
    for name in "bcdefg":
        torn = array.copy()
        torn[name][3] ^= np.uint64(1)
        with pytest.raises(soak.Fault, match="torn"):
            soak.check(torn, (1 << 64) - 3, "a reader")


def test_a_role_resumes_between_what_was_done_and_what_may_have_been() -> None:
    progress = np.zeros(8, np.uint64)
    soak.resumes("a reader", progress, 7, first=7)
    progress[soak.MAYBE] = 12
    for position in (6, 13):
        with pytest.raises(soak.Fault, match=f"at position {position}: expected 7 to 12"):
            soak.resumes("a reader", progress, position, first=7)
    soak.resumes("a reader", progress, 12, first=7)
    with pytest.raises(soak.Fault, match="expected 12 to 12"):
        soak.resumes("a reader", progress, 11, first=7)
