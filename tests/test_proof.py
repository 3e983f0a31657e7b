"""The ring's protocol in models (tests/proof): each holds, and each mutant of it, the protocol with one thing taken out, is caught.

Relacy tries interleavings and stale reads of the C++ memory model; Spin visits every state of locks, deaths and restarts.
TICKPATH_PROOF=long runs both far longer than a test run has time for.
"""

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

PROOF = Path(__file__).parent / "proof"
LONG = os.environ.get("TICKPATH_PROOF") == "long"
LIMIT_S = 7_200 if LONG else 300

INTERLEAVINGS = 20_000_000 if LONG else 20_000
# A mutant is caught within some ten thousand; most within ten.
INTERLEAVINGS_MAX = 1_000_000

RELACY_IS_THERE = Path("/usr/include/relacy/relacy_std.hpp").exists() and shutil.which("g++") is not None
SPIN_IS_THERE = shutil.which("spin") is not None and shutil.which("gcc") is not None
needs_relacy = pytest.mark.skipif(not RELACY_IS_THERE, reason="relacy is not installed: apt-get install relacy-dev g++")
needs_spin = pytest.mark.skipif(not SPIN_IS_THERE, reason="spin is not installed: apt-get install spin gcc")

# The model that each mutant is caught in.
RELACY_MUTANTS = {
    "gating": [
        "publish_relaxed", "poll_relaxed", "batch_poll_relaxed", "release_relaxed", "release_before_the_read", "leave_relaxed",
        "ask_position_relaxed", "ask_mode_relaxed", "room_for_one_too_many",
    ],
    "joining": [
        "ask_without_fence", "ask_announces_nothing", "ask_trusts_a_joiner", "ask_ignores_joining", "join_without_fence",
        "join_ignores_the_limit", "gate_relaxed", "take_trusts_a_joiner", "restart_forgets_the_mark", "ask_takes_a_limit_back",
    ],
    "observing": [
        "mark_missing", "mark_without_fence", "observe_relaxed", "observe_without_fence", "observe_without_recheck",
        "lap_without_headroom", "restart_trusts_its_word", "restart_counts_the_mark",
    ],
    "board": [
        "open_without_mark", "open_without_fence", "close_relaxed", "read_relaxed", "read_ignores_odd", "read_without_fence",
        "read_without_recheck", "reopen_counts_on",
    ],
}  # fmt: skip
RELACY_PAIRS = [(model, mutant) for model, mutants in RELACY_MUTANTS.items() for mutant in mutants]

# Producers, readers, messages and deaths of the ring's larger models.
LARGER_RINGS = [(1, 2, 3, 1), (2, 1, 5, 3), (2, 1, 6, 3)]
# Cleaners at once.
CLEANERS = [1, 2] if LONG else [1]
# These take a second cleaner to show.
TWO_CLEANERS = {"clean_without_second_look", "create_lets_life_go"}


def run(*command: str, cwd: Path, **environment: str) -> subprocess.CompletedProcess:
    return subprocess.run(command, cwd=cwd, env={**os.environ, **environment}, capture_output=True, text=True, timeout=LIMIT_S, check=False)


def built(*command: str, cwd: Path) -> None:
    made = run(*command, cwd=cwd)
    assert made.returncode == 0, made.stdout + made.stderr


def compiled_relacy(folder: Path, *flags: str) -> Path:
    program = folder / "relacy"
    # Relacy is of 2008, and builds as the C++ of its day only.
    built("g++", "-std=gnu++98", "-O1", "-w", *flags, str(PROOF / "relacy.cpp"), "-o", str(program), cwd=folder)
    return program


def compiled_spin(folder: Path, model: str, **sizes: int) -> Path:
    built("spin", "-a", *[f"-D{name}={value}" for name, value in sizes.items()], str(PROOF / f"{model}.pml"), cwd=folder)
    built("gcc", "-O2", "-w", "-DSAFETY", "-DMEMLIM=6000", "pan.c", "-o", "pan", cwd=folder)
    return folder / "pan"


def spin_mutants(model: str) -> dict[str, int]:
    text = (PROOF / f"{model}.pml").read_text().partition("/* Mutants. */")[2].partition("byte mutant")[0]
    return {name: int(number) for name, number in re.findall(r"#define (\w+) +(\d+)", text)}


def visited(pan: Path, **environment: str) -> tuple[int, int, str]:
    """How many errors and states there are, and what pan said."""
    said = run(str(pan), "-m100000", cwd=pan.parent, **environment).stdout
    found = re.search(r"errors: (\d+)\n\s*(\S+) states, stored", said)
    assert found, said
    assert "max search depth too small" not in said and "reached -DMEMLIM bound" not in said, said
    return int(found[1]), int(float(found[2])), said


@pytest.fixture(scope="module")
def relacy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_relacy(tmp_path_factory.mktemp("relacy"))


@pytest.fixture(scope="module")
def spin_ring(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_spin(tmp_path_factory.mktemp("ring"), "ring", PRODUCERS=2, READERS=1, MESSAGES=4, DEATHS=2)


@pytest.fixture(scope="module")
def spin_clean(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compiled_spin(tmp_path_factory.mktemp("clean"), "clean")


@needs_relacy
@pytest.mark.parametrize("model", RELACY_MUTANTS)
def test_no_interleaving_breaks_the_protocol(relacy: Path, model: str) -> None:
    done = run(str(relacy), model, "none", str(INTERLEAVINGS), cwd=relacy.parent)
    assert done.returncode == 0, done.stdout
    assert f"iterations: {INTERLEAVINGS}\n" in done.stdout


@needs_relacy
@pytest.mark.parametrize(("model", "mutant"), RELACY_PAIRS)
def test_an_order_less_is_caught(relacy: Path, model: str, mutant: str) -> None:
    done = run(str(relacy), model, mutant, str(INTERLEAVINGS_MAX), cwd=relacy.parent)
    assert done.returncode == 1, f"{model} still holds: {done.stdout}"
    assert re.search(r"^(DATA RACE|USER ASSERT FAILED|LIVELOCK)", done.stdout, flags=re.MULTILINE), done.stdout


@needs_relacy
def test_every_mutant_of_relacy_is_tried(relacy: Path) -> None:
    listed = run(str(relacy), cwd=relacy.parent).stdout
    assert sorted(re.findall(r"^mutant (\w+)", listed, flags=re.MULTILINE)) == sorted(["none", *[mutant for _, mutant in RELACY_PAIRS]])
    assert re.findall(r"^model (\w+)", listed, flags=re.MULTILINE) == list(RELACY_MUTANTS)


@needs_relacy
@pytest.mark.skipif(not LONG, reason="TICKPATH_PROOF=long runs it")
@pytest.mark.parametrize("model", ["gating", "joining", "observing"])
def test_no_interleaving_of_a_larger_ring_breaks_the_protocol(tmp_path: Path, model: str) -> None:
    done = run(str(compiled_relacy(tmp_path, "-DCAPACITY=4")), model, "none", str(INTERLEAVINGS), cwd=tmp_path)
    assert done.returncode == 0, done.stdout


@needs_spin
def test_no_death_breaks_the_ring(spin_ring: Path) -> None:
    errors, states, said = visited(spin_ring, MUTANT="0")
    assert errors == 0, said
    assert states > 100_000
    print(f"states={states}")


@needs_spin
@pytest.mark.skipif(not LONG, reason="TICKPATH_PROOF=long runs it")
@pytest.mark.parametrize(("producers", "readers", "messages", "deaths"), LARGER_RINGS)
def test_no_death_breaks_a_larger_ring(tmp_path: Path, producers: int, readers: int, messages: int, deaths: int) -> None:
    pan = compiled_spin(tmp_path, "ring", PRODUCERS=producers, READERS=readers, MESSAGES=messages, DEATHS=deaths)
    errors, states, said = visited(pan, MUTANT="0")
    assert errors == 0, said
    print(f"states={states}")


@needs_spin
@pytest.mark.parametrize("mutant", spin_mutants("ring"))
def test_a_rule_less_for_the_dead_is_caught(spin_ring: Path, mutant: str) -> None:
    errors, _, said = visited(spin_ring, MUTANT=str(spin_mutants("ring")[mutant]))
    assert errors == 1, said
    assert re.search("pan:1: (assertion violated|invalid end state)", said), said


@needs_spin
@pytest.mark.parametrize("cleaners", CLEANERS)
def test_nothing_that_lives_is_removed(spin_clean: Path, cleaners: int) -> None:
    errors, states, said = visited(spin_clean, MUTANT="0", CLEANERS=str(cleaners))
    assert errors == 0, said
    assert states > 100_000
    print(f"states={states}")


@needs_spin
@pytest.mark.parametrize("mutant", spin_mutants("clean"))
def test_a_look_less_at_what_is_removed_is_caught(spin_clean: Path, mutant: str) -> None:
    cleaners = "2" if mutant in TWO_CLEANERS else "1"
    errors, _, said = visited(spin_clean, MUTANT=str(spin_mutants("clean")[mutant]), CLEANERS=cleaners)
    assert errors == 1, said
    assert "pan:1: assertion violated" in said, said
