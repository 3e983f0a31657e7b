"""One seed of a day with real processes: `tickpath run` before a venue of the test's own, everything that is done to them, the verdict.

python -m tests.live_run SEED [LAST_SEED] [--lives N] [--steps N]      run seeds: what was wrong, and what it came to
"""

import argparse
import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
import uuid
from pathlib import Path
from typing import Any
from unittest import mock

from engine.layout import CONTROL, GATEWAY_STATS, PHASE_TRADING, POSITION, PROCESS
from engine.runtime import kills
from engine.runtime.latch import WHOLE
from shm.ring import Ring
from shm.segment import SegmentError
from shm.table import Board, Table
from tests.live_plan import CUT, DIE, END, KILL, LOOK, SILENCE, STOP, SUPERVISOR, TRADE, VENUE, LivePlan, Step, drawn
from tests.live_venue import HOST, ON_ITS_WAY_S, PASSWORD, SYMBOLS, USERNAME, LiveVenue
from tests.running import Launcher, wait_for, without_exchange
from tests.sim_plan import CLOSED, SILENT

PATIENCE_S = 60.0
GATEWAY = "order_gateway"
# So many orders are refused while it is killed before it is armed again.
REFUSALS = 5
ARMER = {"by": "Ada", "reason": "the test goes on"}


class Life:
    """One `tickpath run`, from its first order to its end."""

    def __init__(self, launcher: Launcher, venue: LiveVenue, running: subprocess.Popen[str]) -> None:
        self.launcher, self.venue, self.running = launcher, venue, running
        self.attached: list[Any] = []
        self.pids = wait_for(self._pids, "the instance to trade") | {SUPERVISOR: running.pid}
        self.control_table = self._attach(Table, "control", CONTROL, writable=True)
        self.control = self.control_table.records[0]
        self.stats = self._attach(Table, "gateway.stats", GATEWAY_STATS).records[0]
        self.positions = self._attach(Board, "positions", POSITION).records
        self.orders = Ring.attach(f"{launcher.instance}.orders")
        self.attached.append(self.orders)

    def _attach(self, kind: Any, name: str, dtype: Any, *, writable: bool = False) -> Any:
        self.attached.append(kind.attach(f"{self.launcher.instance}.{name}", dtype, writable=writable))
        return self.attached[-1]

    def _pids(self) -> dict[str, int]:
        """The processes by name, once it trades."""
        assert self.running.poll() is None, self.running.communicate()
        try:
            control = Table.attach(f"{self.launcher.instance}.control", CONTROL, writable=False)
            lines = Table.attach(f"{self.launcher.instance}.processes", PROCESS, writable=False)
        except SegmentError:
            return {}
        trades = int(control.records[0]["phase"]) == PHASE_TRADING and int(control.records[0]["session_up"])
        named = {bytes(line["name"]).rstrip(b"\0").decode(): int(line["pid"]) for line in lines.records}
        for table in (control, lines):
            table.detach()
        return {name: pid for name, pid in named.items() if name} if trades else {}

    def close(self) -> None:
        for made in self.attached:
            made.detach()

    # What is done.

    def do(self, step: Step) -> None:
        {TRADE: self.trade, CUT: self.cut, SILENCE: self.fall_silent, STOP: self.stop, KILL: self.kill, LOOK: self.look}[step.do](step)

    def trade(self, step: Step) -> None:
        sent = int(self.stats["sent"])
        self.wait(lambda: int(self.stats["sent"]) >= sent + step.number, f"{step.number} messages after {sent}")

    def wait(self, reached: Any, what: str) -> None:
        def look() -> bool:
            assert self.running.poll() is None, f"it ended while waiting for {what}: {self.running.communicate()}"
            assert not self.venue.problem, self.venue.problem
            return bool(reached())

        wait_for(look, f"{what}; {self.stats}", PATIENCE_S)

    def cut(self, step: Step) -> None:
        losses = int(self.stats["sessions_lost"]) + int(self.stats["connect_failures"])
        if self.venue.do(lambda: self.venue.cut(CLOSED)):
            self.wait(lambda: int(self.stats["sessions_lost"]) + int(self.stats["connect_failures"]) > losses, "the session to be lost")

    def fall_silent(self, step: Step) -> None:
        self.wait(lambda: self.control["session_up"], "a session")
        lost = int(self.stats["sessions_lost"])
        if self.venue.do(lambda: self.venue.cut(SILENT)):
            self.wait(lambda: int(self.stats["sessions_lost"]) > lost, "the session to be given up")

    def stop(self, step: Step) -> None:
        if step.who == VENUE:
            self.venue.do(lambda: self.venue.stall(step.number / 1e3))
            return
        os.kill(self.pids[step.who], signal.SIGSTOP)
        time.sleep(step.number / 1e3)
        os.kill(self.pids[step.who], signal.SIGCONT)

    def kill(self, step: Step) -> None:
        judge = self.venue.judge
        number = kills.kill(self.control_table, self.launcher.instance, WHOLE, "the test", "Ada")
        self.wait(lambda: int(self.stats["kill_swept"]) >= number or not self.control["session_up"], "the kill to be carried out")
        time.sleep(ON_ITS_WAY_S)
        self.venue.do(lambda: setattr(judge, "killed", True))
        refused = int(self.stats["rejected_by_risk"])
        self.wait(lambda: int(self.stats["rejected_by_risk"]) > refused + REFUSALS, "new orders to be refused")
        self.wait(lambda: int(self.stats["kill_swept"]) >= number and int(self.stats["open_orders"]) == 0, "nothing to be open")
        self.wait(lambda: self.venue.do(lambda: not judge.account.orders), "nothing to be open at the venue")
        self.venue.do(lambda: setattr(judge, "killed", False))
        kills.arm(self.control_table, self.launcher.instance, WHOLE, **ARMER)

    def look(self, step: Step) -> None:
        """Nobody asks for anything, nobody else trades: what we believe must become what the venue has."""
        self.wait(lambda: self.control["session_up"], "a session")
        os.kill(self.pids["strategy"], signal.SIGSTOP)
        self.venue.do(lambda: self.venue.flow(on=False))
        try:
            self.wait(self.agrees, "our positions and open orders to be the venue's")
        except AssertionError as error:
            said = self.venue.do(lambda: self.venue.judge.differences(self.positions))
            raise AssertionError(f"{error}: {said}") from None
        finally:
            self.venue.do(lambda: self.venue.flow(on=True))
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pids["strategy"], signal.SIGCONT)

    def agrees(self) -> bool:
        if self.orders.backlog()["gateway"] or not self.control["session_up"]:
            return False
        truth = self.venue.do(lambda: not self.venue.judge.differences(self.positions) and len(self.venue.judge.account.orders))
        return truth is not False and int(self.stats["open_orders"]) == truth

    # How it ends.

    def die(self, step: Step) -> None:
        os.kill(self.pids[step.who], signal.SIGKILL)
        self.running.communicate(timeout=PATIENCE_S)
        wait_for(lambda: not any(Path(f"/proc/{pid}").exists() for pid in self.pids.values()), "every process to end", PATIENCE_S)
        self.venue.do(self.venue.look_at_rings)
        self.venue.do(lambda: self.venue.judge.judge_told(all_of_them=False))
        if step.who == GATEWAY:
            self.judge_named()

    def judge_named(self) -> dict[int, tuple[Any, ...]]:
        """What the report of a run whose gateway was killed says to be open: all that rests at the venue is in it."""
        told = json.loads((self.launcher.folder / "report.json").read_text())["open_orders"]["orders"]
        named = {order["user_ref"]: (order["symbol"], order["side"], order["px"], order["open"]) for order in told}
        for user_ref, rests in self.venue.do(lambda: self.venue.stage.open_orders(0)).items():
            known = named.get(user_ref)
            truth = (rests.symbol, "buy" if rests.side == "B" else "sell", rests.px / 10_000)
            if known is None or known[:3] != truth or known[3] < rests.qty:
                self.venue.judge.say(f"user_ref {user_ref}: {rests} rests at the venue, named was {known}")
            self.venue.judge.counts["named"] += 1
        return named

    def end(self, report: Path) -> None:
        self.running.send_signal(signal.SIGINT)
        said = "".join(self.running.communicate(timeout=PATIENCE_S))
        self.venue.do(self.venue.look_at_rings)
        judge = self.venue.judge
        if not report.exists():
            judge.say(f"it ended with code {self.running.returncode} and without a report: {said}")
            return
        told = json.loads(report.read_text())
        self.venue.do(lambda: (judge.judge_told(all_of_them=True), judge.judge_report(told)))


def play(plan: LivePlan, folder: Path) -> LiveVenue:
    """The whole day; what was wrong is in the judge's `problems`."""
    launcher = Launcher(folder, f"test-{uuid.uuid4().hex[:12]}")
    with mock.patch.dict(os.environ, TICKPATH_STATE=str(folder / "state")):
        return play_at(LiveVenue(plan), plan, launcher)


def play_at(venue: LiveVenue, plan: LivePlan, launcher: Launcher) -> LiveVenue:
    try:
        configure(launcher, plan, venue)
        for steps in plan.lives:
            venue.judge.counts["lives"] += 1
            report = launcher.folder / "report.json"
            report.unlink(missing_ok=True)
            with launcher.background("--json", str(report)) as running:
                live(launcher, venue, running, steps)
            if kills.latch.is_latched(launcher.instance):
                kills.arm(None, launcher.instance, WHOLE, **ARMER)
        if left := launcher.segments():
            venue.judge.say(f"left behind in shared memory: {left}")
    finally:
        venue.close()
    assert not venue.problem, venue.problem
    return venue


def rings_of(launcher: Launcher) -> list[Ring]:
    """The strategy's two rings, once they are there."""
    try:
        return [Ring.attach(f"{launcher.instance}.{name}") for name in ("orders", "reports")]
    except SegmentError:
        return []


def live(launcher: Launcher, venue: LiveVenue, running: subprocess.Popen[str], steps: list[Step]) -> None:
    def rings() -> list[Ring]:
        assert running.poll() is None, running.communicate()
        return rings_of(launcher)

    venue.watch(*wait_for(rings, "its rings"))
    life = Life(launcher, venue, running)
    venue.do(lambda: venue.flow(on=True))
    try:
        for step in steps:
            venue.judge.counts[step.do] += 1
            if step.do == DIE:
                life.die(step)
            elif step.do == END:
                life.end(launcher.folder / "report.json")
            else:
                life.do(step)
    finally:
        venue.do(lambda: venue.flow(on=False))
        life.close()


def configure(launcher: Launcher, plan: LivePlan, venue: LiveVenue) -> None:
    """The shipped config before the test's venue, with small tables, tight limits and short patience."""
    text = without_exchange(launcher.config.read_text(), "env", "env")
    for section, key, value in (
        ("feed", "address", f'"{HOST}:{venue.ports["market"]}"'), ("feed", "address_b", '""'), ("feed", "orders_max", "16384"),
        ("feed", "levels_max", "8192"), ("feed", "stale_after_ms", "0"),
        ("feed.recovery", "rewind", f'["{HOST}:{venue.ports["rewind"]}"]'),
        ("feed.recovery", "snapshot", f'"{HOST}:{venue.ports["snapshot"]}"'),
        ("strategy", "use", f'"{Path(__file__).parent / "strategies" / "good" / "dice.py"}"'), ("strategy", "symbols", str(list(SYMBOLS))),
        ("strategy", "timer_ms", "4"), ("gateway", "address", f'"{HOST}:{venue.ports["orders"]}"'), ("gateway", "silence_ms", "1500"),
        ("gateway", "connect_ms", "1000"), ("gateway", "reconnect_ms_max", "200"), ("gateway", "trader", '"TICKPATH"\norders_max = 1024'),
        ("risk", "position_max", str(plan.position_max)), ("risk", "gross_position_max", str(plan.gross_position_max)),
    ):  # fmt: skip
        text = with_value(text, section, key, value)
    text = text.replace("seconds = 10.0", "seconds = 0").replace("[strategy.params]", f"[strategy.params]\nseed = {plan.seed}")
    launcher.config.write_text(text)
    pair = {"USERNAME": USERNAME, "PASSWORD": PASSWORD}
    launcher.variables = {f"TICKPATH_{which}{name}": value for which in ("", "SNAPSHOT_") for name, value in pair.items()}


def with_value(text: str, section: str, key: str, value: str) -> str:
    """The config's text with another value of a key."""
    head, mark, rest = text.partition(f"\n[{section}]\n")
    lines = rest.splitlines(keepends=True)
    place = next(at for at, line in enumerate(lines) if line.startswith(f"{key} = "))
    lines[place] = f"{key} = {value}\n"
    return head + mark + "".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("first", type=int)
    parser.add_argument("last", type=int, nargs="?")
    parser.add_argument("--lives", type=int, default=2)
    parser.add_argument("--steps", type=int, default=3)
    given = parser.parse_args()
    bad = []
    seeds = range(given.first, (given.last or given.first) + 1)
    for seed in seeds:
        plan = drawn(seed, lives=given.lives, steps=given.steps)
        began = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            venue = play(plan, Path(folder))
        print(f"{plan}\n  {time.monotonic() - began:.1f} s {dict(sorted(venue.judge.counts.items()))}", flush=True)
        for problem in venue.judge.problems:
            print(f"  PROBLEM {problem}", flush=True)
        bad += [seed] if venue.judge.problems else []
    print(f"seeds={len(seeds)} bad={bad}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
