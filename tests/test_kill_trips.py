"""What pulls the kill switch without a person, whom it tells and how soon, and what the supervisor's eyes see of a run's shared memory."""

import contextlib
import json
import os
import sys
import time
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from engine.layout import BOOK_GAPPED, BOOK_STALE, BOOK_VALID, PHASE_DRAINING, PHASE_TRADING, pack_symbol
from engine.risk.hot import reasons as risk
from engine.runtime import keeper, kills, latch, standing
from engine.runtime.accounts import PATIENCE_S
from engine.runtime.alerts import COMMANDS_MAX, Alerts
from engine.runtime.config import DEFAULT_PATH, ConfigError, RingsConfig, load
from engine.runtime.instance import Instance
from engine.runtime.latch import WHOLE, Scope
from engine.runtime.tripwires import Tripwires
from shm.table import Board
from tests.running import wait_for

# One supervisor's tick and what it does in it are far below the five seconds that RTS 6 gives; the wires are looked at once a tick.
LINE = 7


class Desk:
    """The wires of an instance that trades, on a clock that the test moves."""

    def __init__(self, shared: Instance, **kill: Any) -> None:
        self.shared = shared
        self.now_s = 100.0
        options = {"instance": shared.name, "kill.stale_ms": 2_000, "kill.session_down_ms": 1_000} | kill
        self.config = load(DEFAULT_PATH, options)
        keeper.establish(shared, self.config)
        self.control = shared.control.records[0]
        self.control["phase"], self.control["session_up"] = PHASE_TRADING, 1
        shared.instruments.records[LINE]["symbol"] = pack_symbol("AAPL")
        shared.symbols.records[LINE]["validity"] = BOOK_VALID
        shared.feed_stats.records[0]["instruments"] = 1
        self.alerts = Alerts(shared.name, self.config.kill.alert_command)
        self.wires = Tripwires(self.config, shared, self.alerts, lambda: self.now_s)

    def look(self, after_s: float = 0.02) -> list[str]:
        """What is said after this time."""
        self.now_s += after_s
        known = len(self.alerts.said)
        self.wires.look()
        return [text for _, text in self.alerts.said[known:]]

    @property
    def killed(self) -> bool:
        return bool(self.control["kill"])


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path / "state"))
    made = Instance.create(f"test-{uuid.uuid4().hex[:12]}", RingsConfig(ticks=64, orders=64, reports=64))
    yield made
    made.unlink()


def assert_latched(shared: Instance, reason: str) -> None:
    with pytest.raises(latch.Killed, match=r"by tickpath \("):
        latch.check(shared.name)
    made = standing.decisions(shared.name)[-1]
    assert (made.what, made.value, made.by) == ("kill of everything", "killed", "tickpath")
    assert reason in made.reason


@pytest.mark.statement(12)
def test_a_quiet_desk_says_and_does_nothing(shared: Instance) -> None:
    desk = Desk(shared)
    assert [desk.look(10.0) for _ in range(5)] == [[]] * 5
    assert not desk.killed
    assert standing.decisions(shared.name) == []


@pytest.mark.statement(12)
def test_a_session_that_is_down_is_told_at_once_and_kills_after_a_while(shared: Instance) -> None:
    desk = Desk(shared)
    desk.control["session_up"] = 0
    assert desk.look() == ["the session with the venue is down: nothing new is sent"]
    assert desk.look(0.9) == []
    assert not desk.killed
    [said] = desk.look(0.2)
    assert said.startswith("KILLED (everything): the session with the venue was down for 1000 ms (kill.session_down_ms)")
    assert desk.killed
    assert_latched(shared, "session")
    assert desk.look(5.0) == [], "it is said once"


def test_a_session_that_comes_back_in_time_kills_nothing(shared: Instance) -> None:
    desk = Desk(shared)
    for _ in range(4):
        desk.control["session_up"] = 0
        assert len(desk.look(0.8)) == 1
        desk.look(0.8)
        desk.control["session_up"] = 1
        desk.look(0.8)
    assert not desk.killed


@pytest.mark.statement(12)
@pytest.mark.parametrize("flag", [BOOK_STALE, BOOK_GAPPED])
def test_books_that_are_not_proven_for_long_kill(shared: Instance, flag: int) -> None:
    desk = Desk(shared)
    shared.symbols.records[LINE + 1]["validity"] = flag  # an instrument that is not traded
    desk.look()
    desk.look(60.0)
    assert not desk.killed
    shared.symbols.records[LINE]["validity"] = flag
    assert desk.look() == ["books of traded symbols are stale or gapped: nothing new is sent in them"]
    desk.look(1.9)
    assert not desk.killed
    [said] = desk.look(0.2)
    assert "the books of AAPL were stale or gapped for 2000 ms (kill.stale_ms)" in said
    assert_latched(shared, "AAPL")


@pytest.mark.parametrize("off", ["kill.session_down_ms", "kill.stale_ms"])
def test_zero_is_never(shared: Instance, off: str) -> None:
    desk = Desk(shared, **{off: 0})
    desk.control["session_up"] = off != "kill.session_down_ms"
    shared.symbols.records[LINE]["validity"] = BOOK_STALE if off == "kill.stale_ms" else BOOK_VALID
    assert len(desk.look()) == 1, "it is told all the same"
    desk.look(1e6)
    assert not desk.killed


@pytest.mark.statement(12)
@pytest.mark.parametrize("reason", [risk.REASON_DAILY_LOSS, risk.REASON_DRAWDOWN, risk.REASON_LOSSES_IN_A_ROW])
def test_a_loss_kills_where_the_config_says_so(shared: Instance, reason: int) -> None:
    """A capital limit pulls the switch and no mail is waited for (SEC 34-70694)."""
    desk = Desk(shared, **{"kill.on_loss": "kill"})
    shared.facts.records[0]["trip_reason"], shared.facts.records[0]["trips"] = reason, 1
    [said] = desk.look()
    assert "(kill.on_loss)" in said
    assert desk.killed
    assert_latched(shared, "kill.on_loss")
    kills.arm(shared.control, shared.name, WHOLE, "Ada", "looked at it")
    assert desk.look() == [] and not desk.killed, "one trip pulls once"
    shared.facts.records[0]["trips"] = 2
    desk.look()
    assert desk.killed


def test_a_loss_only_reduces_where_the_config_says_so(shared: Instance) -> None:
    desk = Desk(shared, **{"kill.on_loss": "reduce"})
    shared.facts.records[0]["trip_reason"], shared.facts.records[0]["trips"] = risk.REASON_DAILY_LOSS, 1
    assert desk.look() == [] and not desk.killed


def execute(board: Board, qty: int, px: int) -> None:
    """One execution more, as the gateway and the exchange each count it."""
    line = board.records[LINE].copy()
    line["fills"] += 1
    line["position"] += qty
    line["cash"] -= qty * px
    board.write(LINE, line)


@pytest.mark.statement(12)
@pytest.mark.statement(16)
@pytest.mark.parametrize("on_mismatch", ["kill", "alert"])
def test_a_position_that_is_not_the_venues_stops_trading(shared: Instance, on_mismatch: str) -> None:
    desk = Desk(shared, **{"kill.on_mismatch": on_mismatch})
    execute(shared.exchange_positions, 100, 5)
    assert desk.look() == [], "it is on its way"
    execute(shared.positions, 100, 5)
    assert desk.look() == []
    execute(shared.exchange_positions, 7, 5)
    execute(shared.positions, 8, 5)
    said = desk.look()
    assert "AAPL: our position is 108 after executions=2, the venue's 107 after 2 (kill.on_mismatch)" in said[0]
    assert desk.killed == (on_mismatch == "kill")
    assert desk.look() == [], "it is said once"


@pytest.mark.statement(16)
def test_an_execution_at_another_price_than_the_venues_is_a_mismatch(shared: Instance) -> None:
    desk = Desk(shared)
    execute(shared.exchange_positions, 100, 5)
    execute(shared.positions, 100, 6)
    desk.look()
    assert desk.killed


@pytest.mark.statement(16)
def test_an_execution_that_the_venue_never_made_is_a_mismatch_at_once(shared: Instance) -> None:
    desk = Desk(shared)
    execute(shared.positions, 100, 5)
    # And one that would make up for it.
    execute(shared.positions, -100, 5)
    desk.look()
    assert desk.killed


@pytest.mark.statement(16)
@pytest.mark.parametrize("on_mismatch", ["kill", "alert"])
def test_an_execution_of_an_order_that_is_not_ours_is_a_mismatch_at_any_venue(shared: Instance, on_mismatch: str) -> None:
    desk = Desk(shared, **{"kill.on_mismatch": on_mismatch})
    desk.wires.accounts = None
    shared.gateway_stats.records[0]["unknown_executions"] = 1
    [said] = desk.look()
    assert "executions=1 of orders that are not ours were told by the venue (kill.on_mismatch)" in said
    assert desk.killed == (on_mismatch == "kill")
    assert desk.look() == [], "it is said once"
    shared.gateway_stats.records[0]["unknown_executions"] = 2
    assert "executions=2" in desk.look()[0]


@pytest.mark.statement(16)
def test_an_execution_that_is_never_reported_is_a_mismatch_after_a_while(shared: Instance) -> None:
    """Executions that come late one after the other are none, however long it goes on; nor is anything while the session is down."""
    desk = Desk(shared)
    execute(shared.exchange_positions, 1, 5)
    for _ in range(10):
        assert desk.look(PATIENCE_S - 1) == []
        execute(shared.exchange_positions, 1, 5)
        execute(shared.positions, 1, 5)
    desk.look(PATIENCE_S - 1)
    assert not desk.killed
    desk.control["session_up"] = 0
    desk.look(0.5)
    desk.control["session_up"] = 1
    desk.look(PATIENCE_S - 1)
    desk.look(PATIENCE_S - 1)
    assert not desk.killed
    desk.look(1.1)
    assert desk.killed


@pytest.mark.statement(12)
def test_a_kill_by_anybody_is_told(shared: Instance) -> None:
    desk = Desk(shared)
    kills.kill(shared.control, shared.name, Scope(strategy=3), "odd fills")
    [said] = desk.look()
    assert said == f"KILLED (strategy 3): odd fills; `tickpath arm --instance {shared.name}` after the cause is found"
    kills.kill(shared.control, shared.name, WHOLE, "all of it")
    assert len(desk.look()) == 1


@pytest.mark.statement(10)
@pytest.mark.parametrize("scope", [WHOLE, Scope(symbol="AAPL")], ids=str)
def test_a_kill_from_an_environment_with_another_state_folder_is_latched_where_this_run_looks(
    shared: Instance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, scope: Scope
) -> None:
    desk = Desk(shared)
    with monkeypatch.context() as elsewhere:
        elsewhere.setenv("TICKPATH_STATE", str(tmp_path / "elsewhere"))
        kills.kill(shared.control, shared.name, scope, "odd fills", "Ada")
    assert not latch.is_latched(shared.name, scope)
    desk.look()
    assert "(odd fills)" in latch.latched(shared.name)[scope]
    # Once it is armed it stays so.
    kills.arm(shared.control, shared.name, scope, "Ada", "go on")
    desk.look()
    assert latch.latched(shared.name) == {}


def test_after_an_arm_what_lasted_must_last_as_long_again(shared: Instance) -> None:
    desk = Desk(shared)
    desk.control["session_up"] = 0
    desk.look()
    desk.look(1.1)
    assert desk.killed
    kills.arm(shared.control, shared.name, WHOLE, "Ada", "it will be back")
    desk.look(0.1)
    desk.look(0.9)
    assert not desk.killed
    desk.look(0.2)
    assert desk.killed


def test_outside_trading_no_wire_is_looked_at(shared: Instance) -> None:
    desk = Desk(shared)
    desk.control["phase"], desk.control["session_up"] = PHASE_DRAINING, 0
    desk.look()
    desk.look(100.0)
    assert not desk.killed


def test_a_kill_that_cannot_be_kept_holds_in_the_run_and_is_told(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    desk = Desk(shared)
    monkeypatch.setattr(latch, "latch", refuse)
    desk.wires.pull("test")
    assert desk.killed
    assert any("No space left" in trouble for trouble in desk.wires.troubles)


# Alerts.


@pytest.mark.statement(12)
def test_an_alert_is_on_standard_error_and_in_the_hands_of_the_command(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    script, heard = tmp_path / "page.py", tmp_path / "heard"
    script.write_text(
        "import json, os, sys, pathlib\n"
        "said = {'words': sys.argv[1:], 'about': [os.environ['TICKPATH_INSTANCE'], os.environ['TICKPATH_ALERT']]}\n"
        f"draft = pathlib.Path({str(heard)!r} + '.draft'); draft.write_text(json.dumps(said)); draft.rename({str(heard)!r})\n"
    )
    sentence = 'it costs $HOME; `rm -rf x` && "quoted" | it\'s over'
    alerts = Alerts("desk", [sys.executable, str(script), "trading desk"])
    alerts.say(sentence)
    assert f" desk: {sentence}\n" in capsys.readouterr().err
    wait_for(heard.exists, "the command", 30)
    assert json.loads(heard.read_text()) == {"words": ["trading desk", sentence], "about": ["desk", sentence]}
    alerts.settle(10)
    assert alerts.troubles == []


def let_go(fifo: Path) -> bool:
    """Whoever reads it now comes to its end. Nobody may be there any more, or not yet."""
    with contextlib.suppress(OSError):
        os.close(os.open(fifo, os.O_WRONLY | os.O_NONBLOCK))
    return False


@pytest.mark.statement(12)
def test_a_command_that_hangs_delays_no_alert_and_is_told(tmp_path: Path) -> None:
    fifo = tmp_path / "never"
    os.mkfifo(fifo)
    alerts = Alerts("desk", ["/bin/cat", str(fifo)])
    began = time.monotonic()
    for number in range(COMMANDS_MAX + 3):
        alerts.say(f"alert {number}")
    assert len(alerts.said) == COMMANDS_MAX + 3
    alerts.settle(0.05)
    assert time.monotonic() - began < 30
    assert sum("was not started for" in trouble for trouble in alerts.troubles) == 3
    assert any(f"{COMMANDS_MAX} still running" in trouble for trouble in alerts.troubles)
    wait_for(lambda: let_go(fifo) or not any(thread.is_alive() for thread in alerts.running), "the commands end")
    alerts.settle(10)


@pytest.mark.parametrize(("command", "trouble"), [(["/no/such/thing"], "No such file"), (["/bin/false"], "ended with code 1")])
def test_a_command_that_does_not_do_its_work_is_told(command: list[str], trouble: str) -> None:
    alerts = Alerts("desk", command)
    alerts.say("x")
    alerts.settle(10)
    assert [trouble in said for said in alerts.troubles] == [True]


@pytest.mark.parametrize(
    ("key", "value", "sentence"),
    [
        ("kill.on_loss", "stop", "kill.on_loss='stop'"),
        ("kill.stale_ms", -1, "kill.stale_ms=-1"),
        ("kill.alert_command", "page now", "kill.alert_command='page now'"),
        ("kill.alert_command", [""], "kill.alert_command"),
        ("kill.on_lose", "kill", "did you mean 'on_loss'?"),
        ("gateway.venue", "nasdaq", "gateway.venue='nasdaq'"),
        ("gateway.trader", "a trader", "gateway.trader='a trader'"),
    ],
)
def test_a_config_that_pulls_nothing_real_is_refused(key: str, value: Any, sentence: str) -> None:
    with pytest.raises(ConfigError) as refused:
        load(DEFAULT_PATH, {key: value})
    assert sentence in str(refused.value)
