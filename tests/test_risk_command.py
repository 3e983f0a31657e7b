"""`tickpath risk`, what it keeps on disk, and what a start makes of it: on the shared memory of an instance, with a gate at it."""

import json
import os
import threading
import uuid
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import msgspec
import pytest
from click.testing import CliRunner, Result

from engine.layout import RISK_HALTED, RISK_REDUCING
from engine.risk import rules
from engine.risk.hot import reasons as hot
from engine.risk.limits import kinds_of_limits, to_dict
from engine.runtime import keeper, standing
from engine.runtime.config import DEFAULT_PATH, RingsConfig, load
from engine.runtime.instance import Instance
from tools.cli import main

PERSON = ("--by", "Ada", "--reason", "less appetite")


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path))
    made = Instance.create(f"test-{uuid.uuid4().hex[:12]}", RingsConfig(ticks=64, orders=64, reports=64))
    yield made
    made.unlink()


class Gate:
    """What takes the rules over, as the gateway's turns do."""

    def __init__(self, shared: Instance) -> None:
        self.shared = shared
        self.over = threading.Event()
        self.thread = threading.Thread(target=self._run)

    def _run(self) -> None:
        seen = -1
        while not self.over.wait(0.0005):
            version = int(self.shared.rules.records[0]["version"])
            if version != seen and version % 2 == 0:
                seen = version
                self.shared.facts.records[0]["rules_read"] += 1

    def __enter__(self) -> "Gate":
        self.thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.over.set()
        self.thread.join()


def begin(shared: Instance, **risk: Any) -> list[str]:
    return keeper.establish(shared, load(DEFAULT_PATH, {"instance": shared.name} | {f"risk.{name}": value for name, value in risk.items()}))


def tickpath(shared: Instance, *arguments: str) -> Result:
    return CliRunner().invoke(main, ["risk", arguments[0], "--instance", shared.name, *arguments[1:]])


def in_force(shared: Instance) -> rules.Rules:
    found = rules.read(shared.rules)
    assert found is not None
    return found


def log_of(shared: Instance) -> list[tuple[Any, ...]]:
    return [(made.what, made.before, made.value, made.by, made.reason) for made in standing.decisions(shared.name)]


@pytest.mark.statement(17)
def test_a_limit_is_changed_by_a_named_person_with_a_reason_and_logged(shared: Instance) -> None:
    begin(shared)
    with Gate(shared):
        done = tickpath(shared, "set", "order_qty_max", "400", *PERSON)
    assert (done.exit_code, done.output) == (0, "order_qty_max: 1000 -> 400; the gate judges by it\n")
    assert in_force(shared).limits.order_qty_max == 400
    assert log_of(shared) == [("order_qty_max", 1000, 400, "Ada", "less appetite")]
    assert "Ada" in tickpath(shared, "log").output
    shown = tickpath(shared, "show").output
    assert "configured 1000; Ada" in shown


def test_config_goes_back_to_what_the_config_says_now(shared: Instance) -> None:
    """Not to what it said when the limit was changed; and a change that says the same as the new config is none any more."""
    begin(shared)
    with Gate(shared):
        tickpath(shared, "set", "order_qty_max", "400", *PERSON)
        tickpath(shared, "set", "position_max", "100", *PERSON)
    begin(shared, order_qty_max=900, position_max=100)
    assert standing.load(shared.name).limits.keys() == {"order_qty_max"}
    assert in_force(shared).limits.order_qty_max == 400
    with Gate(shared):
        done = tickpath(shared, "set", "order_qty_max", "config", *PERSON)
    assert done.output == "order_qty_max: 400 -> 900; the gate judges by it\n"
    assert in_force(shared).limits.order_qty_max == 900
    assert standing.load(shared.name).limits == {}


@pytest.mark.statement(17)
@pytest.mark.parametrize("missing", ["--by", "--reason"])
def test_nobody_changes_a_limit_without_a_name_and_a_reason(shared: Instance, missing: str) -> None:
    begin(shared)
    before = in_force(shared)
    place = PERSON.index(missing)
    without = PERSON[:place] + PERSON[place + 2 :]
    for words in (("set", "order_qty_max", "400"), ("state", "halted"), ("enable", "0")):
        refused = tickpath(shared, *words, *without)
        assert refused.exit_code == 2
        assert missing in refused.output
        empty = tickpath(shared, *words, *without, missing, "  ")
        assert empty.exit_code == 2
        assert f"{missing}='  ': expected" in empty.output
    assert in_force(shared) == before
    assert log_of(shared) == []


@pytest.mark.parametrize(
    ("name", "text", "sentence"),
    [
        ("order_qty_max", "0", "order_qty_max=0: "),
        ("order_qty_max", "nan", "order_qty_max=nan: "),
        ("order_notional_max", "nan", "order_notional_max=nan: "),
        ("daily_loss_max", "inf", "daily_loss_max=inf: "),
        ("collar_bps", "-5", "collar_bps=-5: "),
        ("collar_bps", "off", "collar_bps=off: "),
        ("order_qty_min", "1001", "expected at most order_qty_max=1000"),
        ("gross_exposure_max", "1e13", "gross_exposure_max=1e13: "),
        ("restricted", "AAPL,AAPL", "restricted=AAPL,AAPL: "),
        ("ordr_qty_max", "5", "limit='ordr_qty_max': expected one of order_qty_min, "),
    ],
)
def test_a_limit_that_a_start_would_refuse_is_refused(shared: Instance, name: str, text: str, sentence: str) -> None:
    begin(shared)
    before = in_force(shared)
    refused = (
        tickpath(shared, "set", name, text, *PERSON) if not text.startswith("-") else tickpath(shared, "set", *PERSON, "--", name, text)
    )
    assert (refused.exit_code, in_force(shared), log_of(shared)) == (2, before, [])
    assert sentence in refused.output
    assert "Traceback" not in refused.output


@pytest.mark.parametrize(
    ("name", "text", "value"),
    [
        ("restricted", "AAPL,MSFT", ("AAPL", "MSFT")),
        ("restricted", "none", ()),
        ("daily_loss_max", "off", "off"),
        ("collar_bps", "2.5", 2.5),
        ("order_qty_step", "lot", "lot"),
    ],
)
def test_every_kind_of_limit_can_be_set(shared: Instance, name: str, text: str, value: Any) -> None:
    begin(shared)
    with Gate(shared):
        assert tickpath(shared, "set", name, text, *PERSON).exit_code == 0
    assert getattr(in_force(shared).limits, name) == value


def test_a_changed_limit_outlives_a_restart_until_it_is_taken_back(shared: Instance) -> None:
    assert begin(shared) == []
    with Gate(shared):
        tickpath(shared, "set", "position_max", "100", *PERSON)
    (note,) = begin(shared)
    assert note.startswith("risk.position_max=100, not 2000 as configured: less appetite (Ada, ")
    assert in_force(shared).limits.position_max == 100
    with Gate(shared):
        tickpath(shared, "set", "position_max", "config", *PERSON)
    assert in_force(shared).limits.position_max == 2000
    assert begin(shared, position_max=1500) == []
    assert in_force(shared).limits.position_max == 1500


def test_a_state_holds_at_once_and_after_a_restart(shared: Instance) -> None:
    begin(shared)
    with Gate(shared):
        assert tickpath(shared, "state", "reducing", *PERSON).output == "state: active -> reducing; the gate judges by it\n"
    assert in_force(shared).state == RISK_REDUCING
    (note,) = begin(shared)
    assert note.startswith("risk: the state is REDUCING: less appetite (Ada, ")
    assert in_force(shared).state == RISK_REDUCING


def test_without_a_gateway_it_says_so(shared: Instance) -> None:
    begin(shared)
    assert "the gate has not taken it over: is the gateway alive?" in tickpath(shared, "state", "halted", *PERSON).output


@pytest.mark.statement(7)
def test_a_disabled_strategy_stays_so_after_a_restart_until_a_named_person_enables_it(shared: Instance) -> None:
    begin(shared)
    watcher = keeper.Keeper(shared)
    watcher.look()
    shared.facts.records[0]["disabled"][0] = 1  # the gate used up its enabling
    watcher.look()
    watcher.look()
    assert [note.split(":")[1] for note in watcher.notes] == [" strategy 0 was disabled"]
    assert log_of(shared)[0][:4] == ("strategy 0", "enabled", "disabled", "the gate")
    shared.facts.records[0]["disabled"][0] = 0  # a new start
    (note,) = begin(shared)
    assert "strategy 0 is disabled" in note
    assert in_force(shared).enabled == {0: 0}
    with Gate(shared):
        assert tickpath(shared, "enable", "0", *PERSON).exit_code == 0
    assert in_force(shared).enabled == {0: 1}
    assert begin(shared) == []
    assert tickpath(shared, "enable", "0", *PERSON).output == "tickpath: strategy=0: it is not disabled\n"


def test_a_strategy_is_enabled_above_what_it_used_up(shared: Instance) -> None:
    begin(shared)
    rules.write(shared.rules, replace(in_force(shared), enabled={0: 4}))
    shared.facts.records[0]["disabled"][0] = 4
    with Gate(shared):
        tickpath(shared, "enable", "0", *PERSON)
    assert in_force(shared).enabled == {0: 5}


def test_a_trip_is_kept_and_cleared_by_a_named_person(shared: Instance) -> None:
    begin(shared)
    watcher = keeper.Keeper(shared)
    shared.facts.records[0]["trips"], shared.facts.records[0]["trip_reason"] = 1, hot.REASON_DAILY_LOSS
    watcher.look()
    watcher.look()
    assert log_of(shared) == [("state", "active", "reducing", "the gate", "more than daily_loss_max is lost")]
    assert watcher.notes == ["risk: the state became REDUCING: more than daily_loss_max is lost; `tickpath risk state active` ends it"]
    assert json.loads(tickpath(shared, "show", "--json").output)["state"] == "reducing"
    with Gate(shared):
        assert tickpath(shared, "state", "active", *PERSON).exit_code == 0
    assert (in_force(shared).trip_cleared, in_force(shared).state) == (1, 0)
    watcher.look()
    assert len(log_of(shared)) == 2


def test_a_restart_into_a_trip_reduces(shared: Instance) -> None:
    begin(shared)
    shared.facts.records[0]["trips"], shared.facts.records[0]["trip_reason"] = 1, hot.REASON_DRAWDOWN
    keeper.Keeper(shared).look()
    (note,) = begin(shared)
    assert "the state is REDUCING" in note
    assert in_force(shared).state == RISK_REDUCING


def test_where_it_does_not_run_a_decision_holds_from_the_next_start(shared: Instance) -> None:
    begin(shared)
    with Gate(shared):
        tickpath(shared, "set", "collar_bps", "7.5", *PERSON)
    shared.unlink()
    assert "does not run: it holds from its next start" in tickpath(shared, "state", "halted", *PERSON).output
    shown = json.loads(tickpath(shared, "show", "--json").output)
    assert (shown["running"], shown["state"], shown["limits"]) == (False, "halted", {"collar_bps": 7.5})
    assert "does not run: set risk.collar_bps in its config" in tickpath(shared, "set", "collar_bps", "8", *PERSON).output
    assert tickpath(shared, "set", "collar_bps", "config", *PERSON).exit_code == 0
    again = Instance.create(shared.name, RingsConfig(ticks=64, orders=64, reports=64))
    try:
        assert len(begin(again)) == 1
        assert (in_force(again).limits.collar_bps, in_force(again).state) == (500, RISK_HALTED)
    finally:
        again.unlink()


def test_an_instance_that_never_ran_has_nothing_changed(shared: Instance) -> None:
    shared.unlink()
    assert json.loads(tickpath(shared, "show", "--json").output)["limits"] == {}
    assert tickpath(shared, "set", "collar_bps", "config", *PERSON).exit_code == 2
    assert CliRunner().invoke(main, ["risk", "show", "--instance", "../x"]).exit_code == 2
    assert not list(standing.state_path(shared.name).parent.glob("*.json"))


def test_a_run_in_which_nobody_decides_leaves_nothing_on_disk(shared: Instance, tmp_path: Path) -> None:
    begin(shared)
    keeper.Keeper(shared).look()
    assert not list(tmp_path.iterdir())


def test_what_the_gate_decided_is_told_where_it_cannot_be_kept(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(shared)
    watcher = keeper.Keeper(shared)
    shared.facts.records[0]["disabled"][0] = 1

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing, "append", full)
    watcher.look()
    assert watcher.notes[0].startswith("risk: the following could not be kept for the next start: [Errno 28]")
    assert watcher.notes[1].startswith("risk: strategy 0 was disabled")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root decides for another user")
def test_what_root_decides_the_service_can_go_on_with(shared: Instance, tmp_path: Path) -> None:
    begin(shared)
    os.chown(tmp_path, 12_345, 12_345)
    tickpath(shared, "state", "halted", *PERSON)
    files = {path.name.removeprefix(shared.name): path.stat().st_uid for path in tmp_path.iterdir()}
    assert files == {".risk.json": 12_345, ".risk.log": 12_345, ".risk.lock": 12_345}


@pytest.mark.parametrize("text", ["", "{", '{"state": "sideways"}', '{"limits": {"collar_bps": 5}}', '{"colour": 1}'])
def test_a_file_that_cannot_be_read_is_no_leave_to_start(shared: Instance, text: str) -> None:
    standing.state_path(shared.name).write_text(text)
    with pytest.raises(ValueError, match=str(standing.state_path(shared.name))):
        begin(shared)
    assert rules.read(shared.rules) is None


def test_a_kept_limit_that_no_longer_fits_the_config_stops_the_start(shared: Instance) -> None:
    begin(shared)
    with Gate(shared):
        tickpath(shared, "set", "order_qty_min", "500", *PERSON)
    with pytest.raises(ValueError, match="order_qty_min=500: expected at most order_qty_max=400"):
        begin(shared, order_qty_max=400)


def test_the_log_is_only_appended_to_and_survives_a_torn_line(shared: Instance) -> None:
    begin(shared)
    with Gate(shared):
        tickpath(shared, "set", "position_max", "100", *PERSON)
        path = standing.log_path(shared.name)
        first = path.read_bytes()
        path.write_bytes(first + b'{"at": "20')
        tickpath(shared, "set", "position_max", "200", *PERSON)
    assert path.read_bytes().startswith(first)
    assert [entry[2] for entry in log_of(shared)] == [100, 200]


def test_what_is_decided_is_on_disk_before_it_is_in_force(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    begin(shared)
    before = in_force(shared)

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device", "the log")

    monkeypatch.setattr(standing, "append", full)
    refused = tickpath(shared, "set", "position_max", "100", *PERSON)
    assert (refused.exit_code, in_force(shared)) == (2, before)
    assert standing.load(shared.name).limits == {}


def test_the_shipped_config_has_every_limit(shared: Instance) -> None:
    shipped = to_dict(load(DEFAULT_PATH).risk)
    assert list(shipped) == list(kinds_of_limits())
    raw = msgspec.toml.decode(DEFAULT_PATH.read_bytes())["risk"]
    assert set(raw) == set(shipped)
