"""`tickpath kill` and `tickpath arm`: the words that the gateway reads, the latches on disk, the log, and what a start makes of them."""

import fcntl
import os
import uuid
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.layout import KILL_SCOPES, pack_symbol
from engine.runtime import keeper, kills, latch, standing
from engine.runtime.config import DEFAULT_PATH, RingsConfig, load
from engine.runtime.instance import Instance
from engine.runtime.latch import WHOLE, Scope
from tools import killswitch
from tools.cli import main

ADA = ("--by", "Ada", "--reason", "the cause was found")
SCOPES = [
    Scope(strategy=3),
    Scope(symbol="AAPL"),
    Scope(venue="XNAS"),
    Scope(0, "BRK.A", "XNAS"),
    Scope(63, "A=B,C@/%"),
]


@pytest.fixture
def shared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Instance]:
    """The shared memory of an instance whose gateway has swept whatever it is asked to."""
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path / "state"))
    made = Instance.create(f"test-{uuid.uuid4().hex[:12]}", RingsConfig(ticks=64, orders=64, reports=64))
    keeper.establish(made, load(DEFAULT_PATH, {"instance": made.name}))
    made.control.records["tsc_hz"] = 1e9
    made.gateway_stats.records["kill_swept"] = 1 << 40
    yield made
    made.unlink()


def tickpath(name: str, *arguments: str) -> Result:
    return CliRunner().invoke(main, [arguments[0], "--instance", name, *arguments[1:]])


def log_of(name: str) -> list[tuple[str, str, str, str]]:
    return [(made.what, made.value, made.by, made.reason) for made in standing.decisions(name)]


def options(scope: Scope) -> list[str]:
    return [word for name, value in scope.named.items() for word in (f"--{name}", value)]


@pytest.mark.parametrize("scope", SCOPES, ids=str)
def test_a_scoped_kill_holds_over_a_restart_and_until_the_same_is_armed(shared: Instance, scope: Scope) -> None:
    name = shared.name
    assert tickpath(name, "kill", *options(scope), "--reason", "odd fills").exit_code == 0
    assert (kills.held(shared.control), int(shared.control.records[0]["kill"])) == ([scope], 0)
    latch.check(name)  # the instance may start; the part may not trade
    other = Scope(strategy=5)
    kills.put(shared.control, other, "another")
    shared.control.records[0]["scopes"] = shared.control.records[0]["scoped"] = 0
    [note] = kills.establish(shared.control, name)
    assert kills.held(shared.control) == [scope]
    assert f"{scope} stays killed" in note and "(odd fills)" in note and f"arm --instance {name}{scope.options}" in note
    armed = tickpath(name, "arm", *options(scope), *ADA)
    assert (armed.exit_code, armed.output) == (0, f"{name}: armed ({scope})\n")
    assert kills.held(shared.control) == []
    assert int(shared.control.records[0]["scoped"]) == 0
    assert latch.latched(name) == {}
    assert log_of(name) == [
        (f"kill of {scope}", "killed", latch.who(), "odd fills"), (f"kill of {scope}", "armed", "Ada", "the cause was found"),
    ]  # fmt: skip


def test_kills_hold_each_by_itself(shared: Instance) -> None:
    name = shared.name
    for scope in (WHOLE, SCOPES[0], SCOPES[1]):
        tickpath(name, "kill", *options(scope))
    assert kills.held(shared.control) == [WHOLE, SCOPES[0], SCOPES[1]]
    shown = CliRunner().invoke(main, ["risk", "show", "--instance", name])
    assert [line.strip().split(":")[0] for line in shown.output.splitlines() if "KILLED" in line] == [
        "KILLED everything", "KILLED strategy 3", "KILLED symbol AAPL",
    ]  # fmt: skip
    armed = tickpath(name, "arm", *ADA)
    assert armed.output == f"{name}: armed\nstill killed: strategy 3; symbol AAPL\n"
    latch.check(name)
    assert kills.held(shared.control) == [SCOPES[0], SCOPES[1]]
    tickpath(name, "arm", *options(SCOPES[0]))
    assert kills.held(shared.control) == [SCOPES[1]]
    assert int(shared.control.records[0]["scoped"]) > 0


def test_every_kill_has_a_number_of_its_own_and_the_same_scope_one_line(shared: Instance) -> None:
    record = shared.control.records[0]
    numbers = []
    for _ in range(3):
        tickpath(shared.name, "kill", "--strategy", "3")
        numbers.append(int(record["scoped"]))
    assert numbers == [1, 2, 3]
    tickpath(shared.name, "kill")
    assert (int(record["kills"]), int(record["scoped"])) == (4, 3)
    assert kills.held(shared.control) == [WHOLE, SCOPES[0]]
    assert int(record["kill_tsc"]) > 0


def test_more_scoped_kills_than_there_are_lines_is_a_sentence(shared: Instance) -> None:
    for strategy in range(KILL_SCOPES):
        kills.put(shared.control, Scope(strategy=strategy), "x")
    refused = tickpath(shared.name, "kill", "--strategy", str(KILL_SCOPES))
    assert refused.exit_code == 2
    assert f"scoped kills={KILL_SCOPES} hold already" in refused.output
    assert latch.latched(shared.name) == {}
    assert tickpath(shared.name, "kill").exit_code == 0
    kills.lift(shared.control, Scope(strategy=7))
    assert tickpath(shared.name, "kill", "--strategy", str(KILL_SCOPES)).exit_code == 0


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--symbol", "TOOLONGNAME"), "--symbol='TOOLONGNAME': expected 1 to 8 ASCII characters"),
        (("--symbol", "Ä"), "--symbol='Ä': expected"),
        (("--venue", "nasdaq"), "--venue='nasdaq': expected 1 to 8 capital letters"),
        (("--venue", "XLON"), "trades at XNAS alone"),
        (("--strategy", "64"), "64 is not in the range"),
    ],
)
def test_what_no_order_can_have_is_not_killed(shared: Instance, words: tuple[str, str], sentence: str) -> None:
    shared.control.records["venue"] = int.from_bytes(b"XNAS    ", "little")
    refused = tickpath(shared.name, "kill", *words)
    assert refused.exit_code == 2
    assert sentence in refused.output
    assert kills.held(shared.control) == []
    assert latch.latched(shared.name) == {}


def test_what_is_not_killed_cannot_be_armed(shared: Instance) -> None:
    refused = tickpath(shared.name, "arm", "--strategy", "3")
    assert refused.exit_code == 2
    assert "strategy 3 is not killed; nothing is killed" in refused.output
    tickpath(shared.name, "kill", "--strategy", "3", "--symbol", "AAPL")
    refused = tickpath(shared.name, "arm", "--strategy", "3")
    assert "strategy 3 is not killed; killed: strategy 3, symbol AAPL" in refused.output
    assert tickpath(f"{shared.name}-absent", "arm", "--strategy", "3").exit_code == 3


@pytest.mark.parametrize("by", ["  ", "A\nB"])
def test_nobody_arms_without_a_name(shared: Instance, by: str) -> None:
    tickpath(shared.name, "kill")
    refused = tickpath(shared.name, "arm", "--by", by, "--reason", "x")
    assert refused.exit_code == 2
    assert kills.held(shared.control) == [WHOLE]
    with pytest.raises(latch.Killed):
        latch.check(shared.name)


def test_a_kill_is_not_refused_for_its_wording(shared: Instance) -> None:
    assert tickpath(shared.name, "kill", "--reason", "x" * 500 + "\n\x00ä").exit_code == 0
    assert kills.held(shared.control) == [WHOLE]
    assert log_of(shared.name)[0][3].startswith("xxx")
    assert tickpath(shared.name, "kill", "--reason", "\n").exit_code == 0


def test_a_kill_of_everything_waits_for_no_lock_and_an_arm_says_whose_it_is(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kills, "LOCK_PATIENCE_S", 0.05)
    latch.writable_folder()
    fd = os.open(latch.writable_folder() / f"{shared.name}.kill.lock", os.O_RDWR | os.O_CREAT)
    fcntl.flock(fd, fcntl.LOCK_EX)
    try:
        busy = tickpath(shared.name, "kill", "--strategy", "3")
        assert (busy.exit_code, "another command has held it" in busy.output) == (2, True)
        assert tickpath(shared.name, "kill").exit_code == 0
        assert kills.held(shared.control) == [WHOLE]
        assert tickpath(shared.name, "arm").exit_code == 2
        assert kills.held(shared.control) == [WHOLE]
    finally:
        os.close(fd)


def test_orders_are_blocked_before_the_disk_is_asked_and_though_it_refuses(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> Path:
        assert kills.held(shared.control) == [WHOLE]
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(latch, "latch", refuse)
    failed = tickpath(shared.name, "kill")
    assert failed.exit_code == 2
    assert "new orders are blocked, but the kill could not be kept for the next start" in failed.output
    assert kills.held(shared.control) == [WHOLE]


def test_arming_is_logged_before_anything_passes_again(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    tickpath(shared.name, "kill")

    def refuse(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(standing, "append", refuse)
    assert tickpath(shared.name, "arm", *ADA).exit_code == 2
    assert kills.held(shared.control) == [WHOLE]
    with pytest.raises(latch.Killed):
        latch.check(shared.name)


MOMENTS = [(standing, "append"), (latch, "release"), (latch, "is_latched"), (kills, "lift")]


@pytest.mark.statement(10)
@pytest.mark.parametrize("done", ["whole", "as far as the word"])
@pytest.mark.parametrize("after", [False, True], ids=["before", "after"])
@pytest.mark.parametrize(("owner", "step"), MOMENTS, ids=[step for _, step in MOMENTS])
def test_a_kill_that_comes_while_another_is_being_armed_holds(
    shared: Instance, monkeypatch: pytest.MonkeyPatch, owner: ModuleType, step: str, after: bool, done: str
) -> None:
    """It waits for nobody, so it may come between any two steps of the arm, which knows of the first one only; and its disk may be slow."""
    assert tickpath(shared.name, "kill", "--reason", "the first").exit_code == 0
    come: list[str] = []

    def kill_once() -> None:
        if not come:
            come.append("the second")
            if done == "whole":
                killswitch.set_kill(shared.name, come[0])
            else:
                kills.put(shared.control, WHOLE, come[0])

    def stepped(*arguments: Any) -> Any:
        if not after:
            kill_once()
        returned = real(*arguments)
        kill_once()
        return returned

    lifted, lift = [], kills.lift
    monkeypatch.setattr(kills, "lift", lambda *given: (lifted.append(True), lift(*given))[1])
    real = getattr(owner, step)
    monkeypatch.setattr(owner, step, stepped)
    armed = tickpath(shared.name, "arm", *ADA)
    assert come, "nobody killed: nothing was tested"
    assert bool(lifted) == (step == "lift"), "not even for a moment"
    assert kills.held(shared.control) == [WHOLE]
    with pytest.raises(latch.Killed):
        latch.check(shared.name)
    assert (armed.exit_code, "killed again while it was being armed" in armed.output) == (2, True), armed.output
    monkeypatch.undo()


@pytest.mark.statement(10)
def test_a_latch_that_is_renewed_while_it_is_being_armed_holds_though_nothing_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path / "state"))
    latch.latch("idle", "the first")
    append = standing.append

    def killed_again(*arguments: Any) -> None:
        append(*arguments)
        latch.latch("idle", "the second")

    monkeypatch.setattr(standing, "append", killed_again)
    with pytest.raises(kills.Overtaken, match="instance=idle: it was killed again while it was being armed"):
        kills.arm(None, "idle", WHOLE, "Ada", "go on")
    with pytest.raises(latch.Killed, match="the second"):
        latch.check("idle")


def test_a_symbol_in_other_letters_than_the_venues_is_refused_and_not_killed_in_name_only(shared: Instance) -> None:
    shared.instruments.records[7]["symbol"] = pack_symbol("AAPL")
    refused = tickpath(shared.name, "kill", "--symbol", "aapl")
    assert refused.exit_code == 2
    assert f"--symbol=aapl: instance={shared.name} knows none of that name, but AAPL; expected that" in refused.output
    assert kills.held(shared.control) == []
    assert tickpath(shared.name, "kill", "--symbol", "MSFT").exit_code == 0, "it may still be named"
    assert tickpath(shared.name, "kill", "--symbol", "AAPL").exit_code == 0
    assert kills.held(shared.control) == [Scope(symbol="MSFT"), Scope(symbol="AAPL")]


def test_an_instance_that_starts_during_a_kill_is_killed(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    """It had looked for latches before there was one, and had no memory when the kill looked first."""
    monkeypatch.setattr(killswitch, "running", lambda name: None)
    tickpath(shared.name, "kill", "--symbol", "AAPL")
    assert kills.held(shared.control) == [Scope(symbol="AAPL")]


def test_a_latch_whose_name_is_no_scope_is_no_leave_to_start(shared: Instance) -> None:
    (latch.writable_folder() / f"{shared.name}.killed@strategy=many").write_text("")
    with pytest.raises(ValueError, match="its name is no scope of a kill"):
        kills.establish(shared.control, shared.name)


def test_a_torn_latch_of_a_part_holds(shared: Instance) -> None:
    (latch.writable_folder() / f"{shared.name}.{Scope(strategy=3).suffix}").write_bytes(b'{"at": 1')
    [note] = kills.establish(shared.control, shared.name)
    assert kills.held(shared.control) == [Scope(strategy=3)]
    assert "at an unknown time" in note


def test_the_command_says_how_long_the_last_cancel_took(shared: Instance) -> None:
    stats = shared.gateway_stats.records[0]
    stats["kill_cancels"], stats["kill_to_last_cancel_tsc"] = 1000, 250_000
    assert "1,000 cancels written, the last 250 us after the command's word" in tickpath(shared.name, "kill").output
    stats["kill_cancels"] = 0
    assert "nothing was open" in tickpath(shared.name, "kill").output


def test_the_command_does_not_wait_for_a_gateway_that_hangs(shared: Instance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(killswitch, "SWEPT_PATIENCE_S", 0.02)
    shared.gateway_stats.records["kill_swept"] = 0
    said = tickpath(shared.name, "kill")
    assert (said.exit_code, "has not sent all cancels yet" in said.output) == (0, True)
