"""An override of the limits: for so many minutes, by two people, logged, and over by itself whatever happens to processes and clocks."""

import json
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from engine.layout import RISK_ACTIVE, RISK_HALTED
from engine.risk import rules
from engine.runtime import keeper, standing
from engine.runtime.config import DEFAULT_PATH, RingsConfig, load
from engine.runtime.instance import Instance
from engine.runtime.keeper import Keeper
from tools import risk as risks
from tools.cli import main

TWO = ("--by", "Ada", "--reason", "a large basket", "--for", "10", "--second", "Bob")


class Clocks:
    """Both clocks of the process, in the test's hand."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.wall_s, self.steady_s = 1_700_000_000.0, 5_000.0
        for module in (standing.time, keeper.time):
            monkeypatch.setattr(module, "time", lambda: self.wall_s)
            monkeypatch.setattr(module, "monotonic", lambda: self.steady_s)

    def pass_s(self, seconds: float) -> None:
        self.wall_s += seconds
        self.steady_s += seconds


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path))
    # No gate is there to take the rules over: the command does not wait for one.
    monkeypatch.setattr(risks, "TAKEN_OVER_S", 0.0)
    made = Instance.create(f"test-{uuid.uuid4().hex[:12]}", RingsConfig(ticks=64, orders=64, reports=64))
    begin(made)
    yield made
    made.unlink()


@pytest.fixture
def clocks(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> Clocks:
    return Clocks(monkeypatch)


def begin(shared: Instance, **risk: Any) -> list[str]:
    return keeper.establish(shared, load(DEFAULT_PATH, {"instance": shared.name} | {f"risk.{name}": value for name, value in risk.items()}))


def tickpath(shared: Instance, *words: str) -> Result:
    return CliRunner().invoke(main, ["risk", words[0], "--instance", shared.name, *words[1:]])


def in_force(shared: Instance) -> rules.Rules:
    found = rules.read(shared.rules)
    assert found is not None
    return found


def log_of(shared: Instance) -> list[tuple[Any, ...]]:
    return [(made.what, made.before, made.value, made.by, made.second) for made in standing.decisions(shared.name)]


@pytest.mark.statement(9)
def test_a_limit_raised_for_a_while_goes_back_by_itself_and_both_are_logged(shared: Instance, clocks: Clocks) -> None:
    watch = Keeper(shared)
    watch.look()
    done = tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    assert done.exit_code == 0, done.output
    assert "order_qty_max: 1000 -> 4000 until " in done.output and "(Ada and Bob, " in done.output
    assert in_force(shared).limits.order_qty_max == 4000
    watch.look()
    clocks.pass_s(599.9)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 4000
    clocks.pass_s(0.2)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 1000
    assert log_of(shared) == [("order_qty_max", 1000, 4000, "Ada", "Bob"), ("order_qty_max", 4000, 1000, "the clock", "")]
    assert watch.notes == ["risk: order_qty_max: 4000 -> 1000: the override of Ada and Bob is over"]
    assert standing.load(shared.name).overrides == {}
    assert watch.ends == {}
    watch.look()
    assert len(watch.notes) == 1


@pytest.mark.statement(9)
def test_a_state_loosened_for_a_while_goes_back_by_itself(shared: Instance, clocks: Clocks) -> None:
    tickpath(shared, "state", "halted", "--by", "Eve", "--reason", "stop")
    watch = Keeper(shared)
    assert tickpath(shared, "state", "active", *TWO).exit_code == 0
    assert in_force(shared).state == RISK_ACTIVE
    watch.look()
    clocks.pass_s(601)
    watch.look()
    assert in_force(shared).state == RISK_HALTED
    assert log_of(shared)[-1] == ("state", "active", "halted", "the clock", "")


@pytest.mark.statement(9)
@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--for", "10"), "expected the name of a second person"),
        (("--for", "10", "--second", " "), "expected the name of a second person"),
        (("--for", "10", "--second", "Ada"), "expected another person than --by"),
        (("--for", "10", "--second", " aDA "), "expected another person than --by"),
        (("--second", "Bob"), "expected only with --for"),
        (("--for", "0", "--second", "Bob"), "0<x<=1440"),
        (("--for", "nan", "--second", "Bob"), "--for=nan: expected minutes above 0"),
    ],
)
def test_an_override_without_a_second_person_or_an_end_is_refused(shared: Instance, words: tuple[str, ...], sentence: str) -> None:
    for what in (("set", "order_qty_max", "4000"), ("state", "active")):
        refused = tickpath(shared, *what, "--by", "Ada", "--reason", "x", *words)
        assert refused.exit_code == 2
        assert sentence in refused.output
    assert in_force(shared).limits.order_qty_max == 1000
    assert log_of(shared) == []


def test_a_clock_that_is_set_back_does_not_prolong_it(shared: Instance, clocks: Clocks) -> None:
    watch = Keeper(shared)
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    watch.look()
    clocks.wall_s -= 86_400
    clocks.pass_s(599)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 4000
    clocks.pass_s(2)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 1000


@pytest.mark.statement(9)
def test_it_survives_a_restart_and_ends_on_time_or_at_the_start_after_it(shared: Instance, clocks: Clocks) -> None:
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    clocks.pass_s(300)
    [note] = begin(shared)
    assert "risk: order_qty_max=4000 instead of 1000 until " in note
    assert in_force(shared).limits.order_qty_max == 4000
    clocks.pass_s(301)
    assert begin(shared) == []
    assert in_force(shared).limits.order_qty_max == 1000
    assert log_of(shared)[-1] == ("order_qty_max", 4000, 1000, "the clock", "")


def test_it_goes_back_to_what_was_changed_for_good_before_it(shared: Instance, clocks: Clocks) -> None:
    watch = Keeper(shared)
    tickpath(shared, "set", "order_qty_max", "700", "--by", "Eve", "--reason", "less")
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    tickpath(shared, "set", "order_qty_max", "5000", *TWO)
    watch.look()
    clocks.pass_s(601)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 700
    assert {name: made.value for name, made in standing.load(shared.name).limits.items()} == {"order_qty_max": 700}


def test_what_is_changed_for_good_during_it_ends_it(shared: Instance, clocks: Clocks) -> None:
    watch = Keeper(shared)
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    watch.look()
    tickpath(shared, "set", "order_qty_max", "300", "--by", "Eve", "--reason", "less")
    watch.look()
    clocks.pass_s(601)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 300
    begin(shared)
    assert in_force(shared).limits.order_qty_max == 300
    tickpath(shared, "set", "order_qty_max", "config", "--by", "Eve", "--reason", "as it was")
    assert in_force(shared).limits.order_qty_max == 1000


def test_a_disk_that_refuses_does_not_prolong_it(shared: Instance, clocks: Clocks, monkeypatch: pytest.MonkeyPatch) -> None:
    watch = Keeper(shared)
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    watch.look()

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing, "append", refuse)
    clocks.pass_s(601)
    watch.look()
    assert in_force(shared).limits.order_qty_max == 1000
    assert any("could not be kept" in note for note in watch.notes)


def test_two_overrides_end_each_at_its_own_time(shared: Instance, clocks: Clocks) -> None:
    watch = Keeper(shared)
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    watch.look()
    clocks.pass_s(300)
    tickpath(shared, "set", "position_max", "9000", *TWO)
    watch.look()
    clocks.pass_s(301)
    watch.look()
    assert (in_force(shared).limits.order_qty_max, in_force(shared).limits.position_max) == (1000, 9000)
    clocks.pass_s(300)
    watch.look()
    assert in_force(shared).limits.position_max == 2000


def test_what_is_shown_says_who_and_until_when(shared: Instance) -> None:
    tickpath(shared, "set", "order_qty_max", "4000", *TWO)
    shown = tickpath(shared, "show").output
    assert "for a while instead of 1000; Ada and Bob" in shown
    told = json.loads(tickpath(shared, "show", "--json").output)["changed"]["order_qty_max"]
    assert (told["second"], told["until_s"] > 0) == ("Bob", True)
    assert "Ada and Bob" in tickpath(shared, "log").output
    assert msgspec.json.decode(tickpath(shared, "log", "--json").output.encode())["second"] == "Bob"
