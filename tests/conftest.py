"""What every test shares: names in /dev/shm of its own, and the check that it leaves none behind."""

import itertools
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from shm.layout import IDENTITY
from shm.segment import SHM

# Files whose tests change, fill or time what the whole machine has, or keep all its CPUs busy: they are marked `machine`, and run one at a
# time when the others are through (Makefile, target test). The others stay together by file, so that what a module makes is made once.
MACHINE = {
    "test_bench_book",
    "test_bench_receive",
    "test_bench_ring",
    "test_c_face",
    "test_jitter",
    "test_memory",
    "test_prove",
    "test_ring_life",
    "test_soak",
}
SEGMENTS = {"test_hostile", "test_rings_command", "test_segment"}

_COUNTER = itertools.count()
_PREFIX = f"pytest-{os.getpid()}-"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if has_the_machine(item.path):
            item.add_marker("machine")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Whole files to a worker, some of them together. (loadgroup writes its groups where pytest 9.2 does not look any more.)"""
    from xdist.scheduler import LoadScopeScheduling

    class ByGroup(LoadScopeScheduling):
        def _split_scope(self, nodeid: str) -> str:
            return group_of(Path(nodeid.split("::")[0]))

    return ByGroup(config, log)


def group_of(file: Path) -> str:
    return "all segments" if file.stem in SEGMENTS else file.stem


@cache
def has_the_machine(file: Path) -> bool:
    # A module that starts whole runs: two of them at once are eight processes that spin, and those that are waited for come late.
    return file.stem in MACHINE or "Launcher" in file.read_text()


@pytest.fixture
def instance() -> str:
    """A name that no other test, and no other test run on this machine, uses."""
    return f"{_PREFIX}{next(_COUNTER)}"


@pytest.fixture(autouse=True)
def every_cpu_is_given_back() -> Iterator[None]:
    """What pins this process for a benchmark would keep all later tests on one CPU."""
    before = os.sched_getaffinity(0)
    yield
    after = os.sched_getaffinity(0)
    os.sched_setaffinity(0, before)
    assert after == before, "it left this process on other CPUs than it found it on"


@pytest.fixture(autouse=True)
def nothing_left_in_shared_memory() -> Iterator[None]:
    before = set(SHM.iterdir())
    yield
    left = sorted(path for path in set(SHM.iterdir()) - before if _is_ours(path))
    for path in left:
        path.unlink(missing_ok=True)
    assert not left, f"left behind: {[str(path) for path in left]}"


def _is_ours(path: Path) -> bool:
    """Other test runs may work on this machine at the same time; what they make is theirs to remove."""
    if path.name.startswith(_PREFIX):
        return True
    try:
        # Another worker's test may have put anything there: a pipe would be waited for without end.
        with open(path, "rb", opener=lambda name, flags: os.open(name, flags | os.O_NONBLOCK)) as file:
            head = file.read(IDENTITY.itemsize)
    except OSError:
        return False
    return len(head) == IDENTITY.itemsize and int(np.frombuffer(head, IDENTITY)[0]["creator_pid"]) == os.getpid()
