"""The whole house: real processes, real sockets, real shared memory."""

import json
import os
import signal
import subprocess
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.layout import CONTROL, PHASE_TRADING, PROCESS
from shm.segment import SegmentError
from shm.table import Table
from tests.running import AAPL, Launcher, wait_for

PROCESS_NAMES = ["feed_handler", "strategy", "order_gateway", "exchange"]


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}", {"TICKPATH_STATE": str(tmp_path / "state")})
    yield made
    assert made.segments() == [], "shared memory was left behind"


def trading(launcher: Launcher) -> dict[str, int]:
    """Wait until the instance trades; its processes' pids by name."""

    def look() -> dict[str, int]:
        try:
            control = Table.attach(f"{launcher.instance}.control", CONTROL, writable=False)
            lines = Table.attach(f"{launcher.instance}.processes", PROCESS, writable=False).records
        except SegmentError:
            return {}
        if control.records[0]["phase"] != PHASE_TRADING or not control.records[0]["first_order_tsc"]:
            return {}
        named = {bytes(line["name"]).rstrip(b"\0").decode(): int(line["pid"]) for line in lines}
        return {name: pid for name, pid in named.items() if name}

    return wait_for(look, "the instance to trade")


def assert_good(report: dict[str, Any], finished: subprocess.CompletedProcess[str]) -> None:
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert report["lost"] == 0, report["lost_by"]
    assert report["gaps"] == report["malformed"] == 0
    assert report["failures"] == []
    assert report["positions_agree"] is True, report["positions"]
    assert report["counters"]["exchange"]["messages"] == report["messages"]
    assert report["orders"]["sent"] > 0


def test_a_run_on_generated_flow_loses_nothing_and_agrees_with_the_exchange(launcher: Launcher) -> None:
    report, finished = launcher.trade("--seconds", "3")
    assert_good(report, finished)
    assert report["fills"] > 0
    assert [hop["name"] for hop in report["hops"]][:2] == ["packet_to_tick", "tick_ring"]
    # The kernel stamps packets only where it is asked to, and orders wait only for a pace or a full socket.
    assert [hop["name"] for hop in report["hops"]][-2:] == ["kernel_to_packet", "queue"]
    assert report["hops"][-2]["count"] == 0
    assert all(hop["count"] > 0 and 0 < hop["p50_ns"] <= hop["p99_ns"] <= hop["p999_ns"] <= hop["max_ns"] for hop in report["hops"][:-2])
    assert [process["name"] for process in report["processes"]] == PROCESS_NAMES
    assert all(process["ending"] == "ended with code 0" for process in report["processes"])
    counted = report["counters"]
    assert counted["gateway"]["sent"] == counted["exchange"]["orders"] + counted["exchange"]["replaces"] + counted["exchange"]["cancels"]
    assert counted["gateway"]["executed"] == counted["exchange"]["client_executions"] == report["fills"]
    assert counted["gateway"]["open_orders"] == 0
    assert "lost" in finished.stdout
    assert "tick_to_order" in finished.stdout


def test_a_second_start_compiles_no_kernel(launcher: Launcher) -> None:
    launcher.trade("--seconds", "0.2")
    report, finished = launcher.trade("--seconds", "0.5")
    assert finished.returncode == 0, finished.stderr
    assert report["kernels_compiled"] == 0
    assert [process["kernels_compiled"] for process in report["processes"]] == [0, 0, 0, 0]


def test_warm_compiles_what_a_run_needs(launcher: Launcher) -> None:
    warmed = launcher.run("warm", str(launcher.config))
    assert warmed.returncode == 0, warmed.stderr
    report, _ = launcher.trade("--seconds", "0.2")
    assert report["kernels_compiled"] == 0


@pytest.mark.parametrize("speed", ["20", "0"], ids=["20 times faster", "flat out"])
@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_a_run_over_a_real_itch_file(launcher: Launcher, speed: str) -> None:
    report, finished = launcher.trade("--feed", str(AAPL), "--speed", speed)
    assert_good(report, finished)
    assert report["counters"]["exchange"]["replayed"] == 10_056
    assert report["ended"] == "the flow has ended"
    assert report["notes"][0].startswith("trading AAPL")


def test_the_whole_house_runs_as_plain_python_for_a_debugger(launcher: Launcher) -> None:
    launcher.variables["NUMBA_DISABLE_JIT"] = "1"
    launcher.replace("rate_per_s = 20000", "rate_per_s = 200")
    report, finished = launcher.trade("--seconds", "3")
    assert_good(report, finished)
    assert report["fills"] > 0
    assert any("plain Python" in note for note in report["notes"])


LAYOUTS = {
    "feed and gateway share": [["feed", "gateway"], ["strategy"], ["exchange"]],
    "trading in one process": [["feed", "strategy", "gateway"], ["exchange"]],
    "all in one process": [["feed", "strategy", "gateway", "exchange"]],
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_stages_may_share_a_process(launcher: Launcher, layout: list[list[str]]) -> None:
    text = launcher.config.read_text()
    head, rest = text[: text.index("[[process]]")], text[text.index("[rings]") :]
    processes = "".join(f'[[process]]\nname = "p{number}"\nstages = {json.dumps(stages)}\n' for number, stages in enumerate(layout))
    launcher.config.write_text(head + processes + rest)
    report, finished = launcher.trade("--seconds", "1")
    assert_good(report, finished)
    assert report["fills"] > 0
    assert [process["stages"] for process in report["processes"]] == layout


@pytest.mark.parametrize("victim", PROCESS_NAMES)
def test_a_killed_child_stops_trading_and_is_named(launcher: Launcher, victim: str) -> None:
    with launcher.background("--seconds", "60") as running:
        pids = trading(launcher)
        os.kill(pids[victim], signal.SIGKILL)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 3, output + errors
    assert f"{victim} (pid {pids[victim]}) was killed by signal 9 (SIGKILL)" in output
    assert not [pid for pid in pids.values() if Path(f"/proc/{pid}").exists()]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_settles_and_reports(launcher: Launcher, number: signal.Signals) -> None:
    report = launcher.folder / "report.json"
    with launcher.background("--seconds", "60", "--json", str(report)) as running:
        trading(launcher)
        running.send_signal(number)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 0, output + errors
    result = json.loads(report.read_text())
    assert result["ended"] == f"{number.name} received"
    assert result["lost"] == 0, result["lost_by"]
    assert result["positions_agree"] is True
    assert result["counters"]["gateway"]["open_orders"] == 0


def test_a_killed_supervisor_leaves_no_process_and_no_segment(launcher: Launcher) -> None:
    with launcher.background("--seconds", "60") as running:
        pids = trading(launcher)
        running.kill()
        wait_for(lambda: not [pid for pid in pids.values() if alive(pid)], "the children to leave", 20)
        wait_for(lambda: not launcher.segments(), "the segments to go", 20)


def alive(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def test_an_instance_that_runs_is_not_started_twice(launcher: Launcher) -> None:
    with launcher.background("--seconds", "60") as running:
        trading(launcher)
        second = launcher.run("run", str(launcher.config))
        assert second.returncode == 3
        assert f"instance={launcher.instance}: it is running already (pid {running.pid})" in second.stderr
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 0


def test_what_a_dead_instance_left_is_removed_at_start(launcher: Launcher) -> None:
    for name in ("control", "ticks", "ticks.cursors", "hops"):
        Path(f"/dev/shm/{launcher.instance}.{name}").write_bytes(b"\0" * 10_000)
    report, finished = launcher.trade("--seconds", "0.3")
    assert finished.returncode == 0, finished.stderr
    assert report["lost"] == 0


def test_clean_removes_what_the_dead_left_and_nothing_of_the_living(launcher: Launcher) -> None:
    Path(f"/dev/shm/{launcher.instance}.control").write_bytes(b"\0" * 10_000)
    cleaned = launcher.run("clean", "--instance", launcher.instance)
    assert (cleaned.returncode, cleaned.stdout) == (0, f"removed {launcher.instance}.control\n")
    with launcher.background("--seconds", "60") as running:
        trading(launcher)
        assert launcher.run("clean", "--instance", launcher.instance).returncode == 3
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 0


def test_kill_blocks_new_orders_and_arm_lets_them_pass(launcher: Launcher) -> None:
    with launcher.background("--seconds", "60") as running:
        trading(launcher)
        gateway = attached_stats(launcher)
        assert launcher.run("kill", "--instance", launcher.instance, "--reason", "test").returncode == 0
        wait_for(lambda: gateway["open_orders"] == 0, "open orders to be cancelled", 20)
        refused = int(gateway["rejected_by_risk"])
        wait_for(lambda: gateway["rejected_by_risk"] > refused, "a new order to be refused", 20)
        accepted = int(gateway["accepted"])
        assert launcher.run("arm", "--instance", launcher.instance).returncode == 0
        wait_for(lambda: gateway["accepted"] > accepted, "orders to be accepted again", 20)
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert running.returncode == 0


def attached_stats(launcher: Launcher) -> np.record:
    from engine.layout import GATEWAY_STATS

    return Table.attach(f"{launcher.instance}.gateway.stats", GATEWAY_STATS, writable=False).records[0]


def test_a_kill_of_nobody_says_so_and_holds_all_the_same(launcher: Launcher) -> None:
    finished = launcher.run("kill", "--instance", launcher.instance, "--reason", "in between two starts")
    assert finished.returncode == 3
    assert f"{launcher.instance}.control: there is none; is the instance running?" in finished.stderr
    assert "It cannot start now until" in finished.stderr
    refused = launcher.run("run", str(launcher.config))
    assert refused.returncode == 1, refused.stdout + refused.stderr
    assert "(in between two starts)" in refused.stderr
    assert "Traceback" not in refused.stderr
    assert launcher.run("warm", str(launcher.config)).returncode == 0, "compiling ahead is no trading"
    armed = launcher.run("arm", "--instance", launcher.instance)
    assert (armed.returncode, armed.stdout) == (0, f"{launcher.instance}: armed; it does not run, and may start\n")
    assert launcher.run("arm", "--instance", launcher.instance).returncode == 3
    _, finished = launcher.trade("--seconds", "0.2")
    assert finished.returncode == 0, finished.stderr


def test_a_killed_instance_does_not_start_again_until_it_is_armed(launcher: Launcher) -> None:
    with launcher.background("--seconds", "60") as running:
        trading(launcher)
        assert launcher.run("kill", "--instance", launcher.instance, "--reason", "test").returncode == 0
        running.send_signal(signal.SIGTERM)
        running.communicate(timeout=60)
    assert launcher.run("run", str(launcher.config)).returncode == 1
    assert launcher.run("arm", "--instance", launcher.instance).returncode == 0
    _, finished = launcher.trade("--seconds", "0.2")
    assert finished.returncode == 0, finished.stderr


@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_a_symbol_that_the_feed_never_names_is_told(launcher: Launcher) -> None:
    report, finished = launcher.trade("--feed", str(AAPL), "--speed", "0", "--symbols", "AAPL,ZZZZ")
    assert finished.returncode == 0
    assert "ZZZZ: never named by the feed, so never traded" in report["notes"]


@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_a_feed_without_orders_leaves_the_choice_of_symbols_to_the_user(launcher: Launcher) -> None:
    head = AAPL.with_name("truncated_head.itch")
    refused = launcher.run("run", str(launcher.config), "--feed", str(head))
    assert refused.returncode == 2
    assert "name some with --symbols" in refused.stderr
    report, finished = launcher.trade("--feed", str(head), "--speed", "0", "--symbols", "AAPL")
    assert finished.returncode == 0
    assert (report["messages"], report["lost"]) == (101, 0)


UNUSABLE_FEEDS = {
    "missing": (None, "No such file"),
    "empty": (b"", "it is empty"),
    "text": (b"hello, this is not market data at all", "expected NASDAQ ITCH 5.0 messages"),
    "broken gzip": (b"\x1f\x8b\x08\x00garbage", "gzip"),
}


@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_a_feed_file_that_is_cut_short_is_told(launcher: Launcher) -> None:
    cut = launcher.config.with_name("cut.itch")
    cut.write_bytes(AAPL.read_bytes()[:100_001])
    report, finished = launcher.trade("--feed", str(cut), "--speed", "0")
    assert finished.returncode == 0
    assert any(note.startswith(f"{cut}: malformed=1: ") for note in report["notes"])


@pytest.mark.parametrize(("content", "expected"), UNUSABLE_FEEDS.values(), ids=UNUSABLE_FEEDS)
def test_an_unusable_feed_file_is_explained(launcher: Launcher, content: bytes | None, expected: str) -> None:
    path = launcher.folder / "day.itch"
    if content is not None:
        path.write_bytes(content)
    finished = launcher.run("run", str(launcher.config), "--feed", str(path))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert expected in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_bad_config_is_a_sentence_and_code_2(launcher: Launcher) -> None:
    launcher.replace("collar_bps = 500", "collar_bps = 0")
    finished = launcher.run("run", str(launcher.config))
    assert finished.returncode == 2
    assert "risk.collar_bps=0" in finished.stderr
    assert "Traceback" not in finished.stderr


def test_a_mistake_in_a_users_strategy_is_shown_in_their_own_words(launcher: Launcher) -> None:
    (launcher.folder / "mine.py").write_text(
        "from engine.strategy.api import *\n\n\ndef on_book(ctx, params, state, quote):\n    state.seen = {quote.bid_px: 1}\n"
    )
    launcher.replace('"engine.strategy.market_maker"', '"./mine.py"')
    finished = launcher.run("run", str(launcher.config))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "mine.py:5" in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr


def test_a_new_strategy_runs_as_it_is_written(launcher: Launcher) -> None:
    assert launcher.run("strategy", "new", "mine", "--folder", str(launcher.folder)).returncode == 0
    launcher.replace('"engine.strategy.market_maker"', '"./mine.py"')
    report, finished = launcher.trade("--seconds", "1")
    assert_good(report, finished)


@pytest.mark.skipif(os.geteuid() != 0, reason="a private /dev/shm needs root")
def test_a_full_shared_memory_is_an_error_and_not_a_crash(launcher: Launcher) -> None:
    private = ("unshare", "--mount", "sh", "-c", 'mount -t tmpfs -o size=1m none /dev/shm && exec "$@"', "sh")
    finished = launcher.run("run", str(launcher.config), prefix=private)
    assert finished.returncode == 3, finished.stdout + finished.stderr
    assert "cannot allocate bytes=" in finished.stderr
    assert "free bytes=" in finished.stderr


def test_a_venue_that_is_not_there_is_named(launcher: Launcher) -> None:
    text = launcher.config.read_text()
    text = text[: text.index("[exchange]")].replace('[[process]]\nname = "exchange"\nstages = ["exchange"]\n', "")
    launcher.config.write_text(text[: text.rindex("# The simulated exchange.")].replace('credentials = ""', 'credentials = "env"'))
    launcher.variables = {f"TICKPATH_{which}{name}": "A" for which in ("", "SNAPSHOT_") for name in ("USERNAME", "PASSWORD")}
    finished = launcher.run("run", str(launcher.config))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "gateway.address=" in finished.stdout + finished.stderr
    assert "Traceback" not in finished.stdout + finished.stderr
