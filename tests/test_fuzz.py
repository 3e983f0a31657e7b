"""Every decoder against bytes that nobody meant: none crashes, hangs, or takes more and more memory.

What is compiled runs in a process of its own (fault_fuzz.py), once as it is and once with every index checked, where a read beside an
array is an IndexError instead of luck. What is Python runs here. TICKPATH_PROOF=long tries far more.
"""

import os
import random
import subprocess
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import config

from engine import cache_folder
from engine.feed import itch
from engine.gateway.ouch import v50 as ouch
from engine.runtime.config import DEFAULT_PATH, Config, ConfigError, check, load
from engine.wire.table import Message
from tests.fault_mutate import mutated
from tests.fault_targets import TARGETS

ROOT = Path(__file__).resolve().parents[1]
LONG = os.environ.get("TICKPATH_PROOF") == "long"
# Rounds that take a second or two each.
ROUNDS = 100
LONGER = 200
LIMIT_S = 7_200 if LONG else 300
FIRST_SEED = int(os.environ.get("TICKPATH_SEED", "1"))

compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="kernels are plain Python here: nothing is compiled")


def fuzzed(target: str, folder: Path, rounds: int, **environment: str) -> None:
    """Run a target's fuzzer, and say what replays the round that it died in."""
    last = folder / "last"
    command = [sys.executable, "-m", "tests.fault_fuzz", target]
    try:
        done = subprocess.run(
            [*command, str(FIRST_SEED), str(rounds), str(last)], cwd=ROOT, env=os.environ | environment, capture_output=True, text=True,
            timeout=LIMIT_S, check=False,
        )  # fmt: skip
        code, said = done.returncode, done.stderr
    except subprocess.TimeoutExpired as error:
        code, said = "a hang", str(error.stderr)
    given = " ".join(f"{name}={value}" for name, value in environment.items())
    # A house lives for some rounds: what the round died of may have been left behind by those before it.
    assert code == 0, (
        f"exit {code}; replay: {given} python -m tests.fault_fuzz {target} {FIRST_SEED} {rounds} (round {last.read_text()})\n{said}"
    )


@compiled
@pytest.mark.parametrize("target", TARGETS)
def test_bytes_that_nobody_meant_are_survived(target: str, tmp_path: Path) -> None:
    fuzzed(target, tmp_path, ROUNDS * (LONGER if LONG else 1))


@compiled
@pytest.mark.skipif(not LONG, reason="TICKPATH_PROOF=long runs it: kernels are compiled a second time, with every index checked")
@pytest.mark.parametrize("target", TARGETS)
def test_no_byte_is_read_or_written_beside_an_array(target: str, tmp_path: Path) -> None:
    fuzzed(target, tmp_path, ROUNDS * 20, NUMBA_BOUNDSCHECK="1", NUMBA_CACHE_DIR=f"{cache_folder()}-boundscheck")


# What is Python.

MESSAGES = [*itch.MESSAGES, *ouch.INBOUND_BY_CODE.values(), *ouch.OUTBOUND_BY_CODE.values()]


@settings(deadline=None, max_examples=2_000 if LONG else 200)
@given(st.sampled_from(MESSAGES), st.binary(max_size=80))
def test_a_table_decodes_its_own_messages_and_names_all_else(message: Message, raw: bytes) -> None:
    for given_bytes in (raw, bytes([message.code]) + raw, bytes([message.code]) + raw.ljust(message.length, b"\xff")[: message.length - 1]):
        try:
            values = message.decode(given_bytes)
        except ValueError as error:
            assert message.name in str(error)
        else:
            assert values.keys() == {field.name for field in message.fields} - {"type"}


def test_a_damaged_config_is_a_config_or_one_clear_sentence(tmp_path: Path) -> None:
    whole = DEFAULT_PATH.read_bytes()
    path = tmp_path / "damaged.toml"
    good = 0
    for seed in range(FIRST_SEED, FIRST_SEED + (20_000 if LONG else 300)):
        path.write_bytes(mutated(random.Random(seed), whole))
        try:
            loaded = load(path)
        except ConfigError as error:
            assert str(path) in str(error) and "Traceback" not in str(error), f"seed {seed}: {error}"
        else:
            good += 1
            assert isinstance(loaded, Config)
    assert good > 0, "every one was refused: the damage is so great that it shows nothing"


VALUES: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=6,
)
KEYS = [
    (section, key)
    for section, values in msgspec.toml.decode(DEFAULT_PATH.read_bytes()).items()
    for key in (values if isinstance(values, dict) else [""])
]


@settings(deadline=None, max_examples=5_000 if LONG else 200, suppress_health_check=[HealthCheck.too_slow])
@given(st.sampled_from(KEYS), VALUES)
def test_a_config_with_any_value_anywhere_is_a_config_or_names_it(key: tuple[str, str], value: Any) -> None:
    raw = msgspec.toml.decode(DEFAULT_PATH.read_bytes())
    section, name = key
    if name:
        raw[section][name] = value
    else:
        raw[section] = value
    try:
        check(raw, "here")
    except ConfigError as error:
        assert (name or section) in str(error)
