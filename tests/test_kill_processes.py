"""The kill switch over real processes that are stopped or killed at bad moments: nothing trades afterwards, and nothing is left behind.

NUMBA_DISABLE_JIT=1 runs it in plain Python, which needs no compiler and takes a little longer.
"""

import os
import re
import signal
import subprocess
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from engine.layout import CONTROL, EXCHANGE_STATS, GATEWAY_STATS
from engine.runtime import standing
from shm.ring import Ring
from shm.table import Table
from tests.running import Launcher, wait_for
from tests.test_run import trading

only_long = pytest.mark.skipif(os.environ.get("TICKPATH_PROOF") != "long", reason="TICKPATH_PROOF=long runs it")


@pytest.fixture
def launcher(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Launcher]:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path / "state"))
    made = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}")
    # So far from the market that nothing trades: what is open stays so until it is cancelled.
    made.replace("[strategy.params]", "[strategy.params]\nedge_ticks = 200.0")
    if os.environ.get("NUMBA_DISABLE_JIT") == "1":
        made.replace("rate_per_s = 20000", "rate_per_s = 200")
        # A lost session is looked for in every place of the order table, which the interpreter takes seconds for.
        made.replace('trader = "TICKPATH"', 'trader = "TICKPATH"\norders_max = 1024')
    yield made
    assert made.segments() == [], "shared memory was left behind"


@dataclass
class Running:
    """A running instance: its processes, and its records, which stay readable when it is gone."""

    launcher: Launcher
    process: subprocess.Popen[str]
    pids: dict[str, int]
    control: Any
    gateway: Any
    exchange: Any
    orders: Ring

    def said(self, *words: str) -> str:
        finished = self.launcher.run(*words, "--instance", self.launcher.instance)
        assert finished.returncode == 0, finished.stderr
        return finished.stdout

    def wait_for_orders(self) -> None:
        wait_for(lambda: self.gateway["open_orders"] > 0, "open orders", 60)

    def assert_nothing_is_open(self) -> None:
        wait_for(lambda: self.gateway["open_orders"] == 0 and self.exchange["open_orders"] == 0, "open orders to be cancelled", 60)

    def assert_nothing_trades(self) -> None:
        sent = int(self.gateway["sent"])
        refused = int(self.gateway["rejected_by_risk"])
        wait_for(lambda: self.gateway["rejected_by_risk"] > refused + 3, "new orders to be refused", 60)
        assert int(self.gateway["sent"]) == sent

    @contextmanager
    def stopped(self, name: str) -> Iterator[None]:
        """With the process stopped at a moment at which something is open."""
        pid = self.pids[name]

        def stop() -> bool:
            os.kill(pid, signal.SIGSTOP)
            wait_for(lambda: Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "T", f"{name} to stop", 20)
            settled = wait_for(lambda: self.settled(name), "what is on its way to arrive", 20)
            if settled == "open":
                return True
            os.kill(pid, signal.SIGCONT)
            return False

        wait_for(stop, f"{name} to stop with open orders", 60)
        try:
            yield
        finally:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)

    def settled(self, name: str) -> str:
        """Whether anything is open, once nothing more can come of a process that is stopped; "" while something can."""
        if name == "strategy" and self.orders.backlog()["gateway"]:
            return ""
        return "open" if self.gateway["open_orders"] > 0 else "nothing"

    def gone(self) -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in self.pids.values())


@contextmanager
def run(launcher: Launcher) -> Iterator[Running]:
    with launcher.background("--seconds", "200") as process:
        pids = trading(launcher)
        tables = [
            Table.attach(f"{launcher.instance}.{name}", dtype, writable=False).records[0]
            for name, dtype in (("control", CONTROL), ("gateway.stats", GATEWAY_STATS), ("exchange.stats", EXCHANGE_STATS))
        ]
        yield Running(launcher, process, pids, *tables, Ring.attach(f"{launcher.instance}.orders"))


def reasons(launcher: Launcher) -> list[tuple[str, str, str]]:
    return [(made.value, made.by, made.reason) for made in standing.decisions(launcher.instance)]


@pytest.mark.statement(10)
def test_strategy_and_gateway_stopped_then_the_supervisor_killed(launcher: Launcher) -> None:
    with run(launcher) as it:
        it.wait_for_orders()
        with it.stopped("strategy"):
            said = it.said("kill", "--reason", "it hangs")
            it.assert_nothing_is_open()
            assert int(it.gateway["kill_cancels"]) > 0
            assert "cancels written, the last " in said
        it.assert_nothing_trades()

        it.said("arm", "--by", "Ada", "--reason", "go on")
        it.wait_for_orders()
        with it.stopped("order_gateway"):
            cancels = int(it.gateway["cancels_on_drain"])
            assert "the gateway has not sent all cancels yet" in it.said("kill", "--reason", "while it is stopped")
            assert int(it.gateway["cancels_on_drain"]) == cancels
        it.assert_nothing_is_open()
        assert int(it.gateway["kill_swept"]) == int(it.control["kills"])
        it.assert_nothing_trades()

        it.said("arm", "--by", "Ada", "--reason", "go on")
        it.wait_for_orders()
        it.process.kill()
        wait_for(it.gone, "every process to end", 60)
        assert (int(it.gateway["open_orders"]), int(it.exchange["open_orders"]), int(it.control["drained"])) == (0, 0, 1)
        _, errors = it.process.communicate(timeout=30)
    assert f"the supervisor (pid {it.process.pid}) died" in errors
    assert errors.count("ALERT") >= 3
    value, by, reason = reasons(launcher)[-1]
    assert (value, by) == ("killed", "tickpath")
    assert reason == f"the supervisor (pid {it.process.pid}) died (kill.on_death)"
    refused = launcher.run("run", str(launcher.config))
    assert (refused.returncode, "the supervisor" in refused.stderr) == (1, True)


@pytest.mark.statement(12)
@pytest.mark.parametrize("victim", ["order_gateway", pytest.param("exchange", marks=only_long)])
def test_a_process_that_is_killed_is_told_and_keeps_the_instance_from_starting(launcher: Launcher, victim: str) -> None:
    heard = launcher.folder / "heard"
    pager = launcher.folder / "page"
    pager.write_text(f'#!/bin/sh\nprintf "%s\\n" "$2" >> {heard}\n')
    pager.chmod(0o700)
    launcher.replace("alert_command = []", f'alert_command = ["{pager}", "trading desk"]')
    with run(launcher) as it:
        it.wait_for_orders()
        os.kill(it.pids[victim], signal.SIGKILL)
        output, errors = it.process.communicate(timeout=120)
    assert it.process.returncode == 3
    death = f"{victim} (pid {it.pids[victim]}) was killed by signal 9 (SIGKILL)"
    assert death in output
    assert f"{launcher.instance}: KILLED (everything): {death}" in errors
    assert death in heard.read_text()
    if victim == "order_gateway":
        assert "orders may be open at the venue" in output
        named = r"may be open at the venue: (AAPL|MSFT|NVDA) (buy|sell) \d+ at \d+\.\d{4} \([a-z ]+, order \d+, user_ref \d+[^)]*\)"
        assert all(re.search(named, " ".join(said.split())) for said in (output, errors, heard.read_text()))
    value, by, reason = reasons(launcher)[-1]
    assert (value, by, death in reason) == ("killed", "tickpath", True)
    assert launcher.run("run", str(launcher.config)).returncode == 1


@pytest.mark.statement(12)
@only_long
def test_a_gateway_that_hangs_is_told_soon_and_ends_the_run_killed(launcher: Launcher) -> None:
    with run(launcher) as it, it.stopped("order_gateway"):
        output, errors = it.process.communicate(timeout=120)
    hangs = f"order_gateway (pid {it.pids['order_gateway']}) hangs: no heartbeat for 10 s"
    assert it.process.returncode == 3
    assert hangs in output
    assert f"order_gateway (pid {it.pids['order_gateway']}) has been silent for 3 s" in errors
    assert f"KILLED (everything): {hangs}" in errors
    assert "orders may be open at the venue" in output
    assert reasons(launcher)[-1][:2] == ("killed", "tickpath")


@pytest.mark.statement(12)
def test_a_venue_that_stops_talking_kills_and_its_return_cancels_what_was_open(launcher: Launcher) -> None:
    """Half open: the connection stands, and nobody answers."""
    launcher.replace("silence_ms = 15000", "silence_ms = 1500")
    launcher.replace("connect_ms = 5000", "connect_ms = 1000")
    launcher.replace("session_down_ms = 30000", "session_down_ms = 300")
    with run(launcher) as it:
        with it.stopped("exchange"):
            wait_for(lambda: not it.control["session_up"], "the session to be given up", 60)
            sent = int(it.gateway["sent"])
            wait_for(lambda: it.control["kill"], "the kill", 60)
            assert it.gateway["open_orders"] > 0, "what is of unknown fate counts as open"
            assert int(it.gateway["sent"]) == sent
        wait_for(lambda: it.control["session_up"], "the session to be back", 60)
        it.assert_nothing_is_open()
        it.assert_nothing_trades()
        it.process.send_signal(signal.SIGTERM)
        _, errors = it.process.communicate(timeout=60)
    assert "the session with the venue is down" in errors
    assert "KILLED (everything): the session with the venue was down for 300 ms" in errors
    assert reasons(launcher)[-1][:2] == ("killed", "tickpath")
