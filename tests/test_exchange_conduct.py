"""How the simulated exchange treats its clients: latencies and faults by seed, and what neither may do to the order of things."""

import json
import socket
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from engine.exchange.hot.state import HAS_ENDED, LINK, RECEIVED
from engine.exchange.menu import Faults, Latency, from_report
from engine.exchange.stage import Account
from engine.gateway.ouch import v50 as ouch
from engine.messages.hot.stamp import NOW
from engine.runtime.instance import HOPS
from engine.runtime.report import hops as describe_hops
from engine.wire import soupbintcp
from engine.wire.soupbintcp import SEQUENCED, SERVER_HEARTBEAT, UNSEQUENCED
from shm.hot import record
from shm.layout import HISTOGRAM
from tests.exchange_rig import Message, Rig, SoupClient, cancel, decode_ouch, enter, packet, rig, soup_packets

US = 1_000
MS = 1_000_000
SECOND = 1_000_000_000


class Ear:
    """An account's end of a socket pair, and when each report came out of it."""

    def __init__(self, made: Rig, account: int = 0) -> None:
        self.rig = made
        self.socket = made.wire_client(account)
        self.raw = b""
        self.packets: list[tuple[int, int, bytes]] = []
        self.closed = False

    def say(self, *orders: bytes) -> None:
        self.socket.send(b"".join(packet(UNSEQUENCED, raw) for raw in orders))

    def turn(self, after_ns: int = 0) -> None:
        """Let time pass, then turn until there is nothing to do at that moment."""
        self.rig.clock.words[NOW] += after_ns
        self.rig.run()
        try:
            got = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        self.closed = self.closed or not got
        found, self.raw = soup_packets(self.raw + got)
        self.packets += [(int(self.rig.clock.words[NOW]), kind, payload) for kind, payload in found]

    def heard(self) -> list[tuple[int, Message]]:
        return [(at, decode_ouch(payload)) for at, kind, payload in self.packets if kind == SEQUENCED]

    def told(self) -> list[tuple[str, int]]:
        return [(report["type"], report["user_ref"]) for _, report in self.heard()]


def test_a_latency_is_waited_for_to_the_nanosecond_and_what_comes_together_waits_together(tmp_path: Path) -> None:
    with rig(tmp_path, latency=Latency(orders_ns=[MS], reports_ns=[2 * MS])) as made:
        ear = Ear(made)
        start = int(made.clock.words[NOW])
        ear.say(enter(1, "B", 100, 1_000_000), enter(2, "B", 100, 1_000_000))
        ear.turn(0)
        ear.say(enter(3, "B", 100, 1_000_000))
        ear.turn(100 * US)
        ear.turn(900 * US - 1)
        assert made.count("accepted") == 0
        ear.turn(1)
        assert made.count("accepted") == 2
        ear.turn(100 * US)
        assert made.count("accepted") == 3, "a latency, not a queue"
        ear.turn(1_900 * US - 1)
        assert ear.heard() == []
        ear.turn(1)
        ear.turn(100 * US)
        assert [(at - start, report["user_ref"]) for at, report in ear.heard()] == [(3 * MS, 1), (3 * MS, 2), (3_100 * US, 3)]


def run_sampled(folder: Path, seed: int) -> list[tuple[int, int]]:
    with rig(folder, latency=Latency(orders_ns=range(0, 5 * MS, 1_000), reports_ns=range(0, 5 * MS, 1_000), seed=seed)) as made:
        ear = Ear(made)
        start = int(made.clock.words[NOW])
        for number in range(1, 151):
            ear.say(enter(number, "B", 100, 100 * number))
            ear.turn(100 * US)
        for _ in range(150):
            ear.turn(100 * US)
        return [(at - start - 100 * US * report["user_ref"], report["user_ref"]) for at, report in ear.heard()]


def test_sampled_latencies_come_from_the_seed_and_nothing_overtakes(tmp_path: Path) -> None:
    first = run_sampled(tmp_path, 7)
    assert [user_ref for _, user_ref in first] == list(range(1, 151))
    waits = [wait for wait, _ in first]
    assert min(waits) >= 0 and max(waits) <= 10 * MS
    assert len(set(waits)) > 20
    assert run_sampled(tmp_path, 7) == first
    assert run_sampled(tmp_path, 8) != first


def test_orders_under_way_are_done_before_the_end_of_their_connection_counts(tmp_path: Path) -> None:
    with rig(tmp_path, latency=Latency(orders_ns=[MS]), cancel_on_disconnect=False) as made:
        ear = Ear(made)
        for number in range(1, 101):
            ear.say(enter(number, "B", 100, 1_000_000))
        ear.socket.shutdown(socket.SHUT_WR)
        made.run()
        assert (made.count("accepted"), int(made.stage.state.venue.clients.words[0, LINK])) == (0, 1)
        made.step(after_ns=MS)
        made.run()
        assert (made.count("accepted"), made.count("malformed"), int(made.stage.state.venue.clients.words[0, LINK])) == (100, 0, 0)


def test_what_a_client_sends_ahead_is_bounded(tmp_path: Path) -> None:
    """More than the exchange takes into its buffer is left in the socket, and done in its turn."""
    with rig(tmp_path, latency=Latency(orders_ns=[MS])) as made:
        ear = Ear(made)
        wanted = 3_000
        for first in range(1, wanted, 100):
            ear.say(*(enter(number, "B", 1, 100) for number in range(first, first + 100)))
        ear.turn(0)
        received = int(made.stage.state.links.words[:, RECEIVED].max())
        assert received == 1 << 16, "the socket took everything at once: nothing was tested"
        assert made.stage.state.links.words[:, HAS_ENDED].max() == 0
        for _ in range(5):
            ear.turn(MS)
        assert ear.told() == [("A", number) for number in range(1, wanted + 1)]


def test_a_measured_distribution_is_drawn_from_a_report(tmp_path: Path) -> None:
    hops = [
        {"name": "wire", "count": 1_000, "p50_ns": 20_000, "p99_ns": 50_000, "p999_ns": 90_000, "max_ns": 1_000_000, "mean_ns": 1},
        {"name": "idle", "count": 0, "p50_ns": 0, "p99_ns": 0, "p999_ns": 0, "max_ns": 0, "mean_ns": 0},
    ]
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"hops": hops}))
    drawn = sorted(from_report(path, "wire"))
    share = [drawn[round(len(drawn) * at) - 1] for at in (0.5, 0.99, 0.999)]
    assert share == pytest.approx([20_000, 50_000, 90_000], rel=0.02)
    assert drawn[0] == 20_000 and 500_000 < drawn[-1] <= 1_000_000
    for hop in ("idle", "none"):
        with pytest.raises(ValueError, match=rf"hop='{hop}': not measured .*expected one of \['wire'\]"):
            from_report(path, hop)
    for name, raw in (("missing", None), ("text", "hello"), ("list", "[]"), ("other", '{"a": 1}')):
        bad = tmp_path / name
        if raw is not None:
            bad.write_text(raw)
        with pytest.raises(ValueError, match="latency report="):
            from_report(bad, "wire")


def test_latencies_of_our_own_report_are_drawn_as_they_were_measured_below_the_median_too(tmp_path: Path) -> None:
    """Two humps, of which the lower has 60 %: what is drawn has both, and their share, and not one median."""
    chance = np.random.default_rng(5)
    measured = np.concatenate([chance.normal(2_000, 100, 6_000), chance.normal(50_000, 4_000, 3_990), np.full(10, 900_000.0)]).astype(
        np.int64
    )
    words = np.zeros((len(HOPS), HISTOGRAM.itemsize // 8), np.int64)
    for ticks in measured.tolist():
        record(words[1], ticks)
    ns_per_tick = 0.5
    told = describe_hops(SimpleNamespace(hops=SimpleNamespace(words=lambda: words)), ns_per_tick)
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"hops": told}))
    drawn = np.array(sorted(from_report(path, HOPS[1][0])))
    for percent in (1, 5, 10, 30, 50, 70, 90, 95, 99):
        assert np.percentile(drawn, percent) == pytest.approx(np.percentile(measured, percent) * ns_per_tick, rel=0.03), percent
    assert drawn[0] >= measured.min() * ns_per_tick and drawn[-1] <= measured.max() * ns_per_tick
    assert (drawn < 2_000).mean() == pytest.approx(0.6, abs=0.01)
    assert told[0]["percentiles_ns"] == []


@pytest.mark.parametrize("told", [[[50, 9], [99, 8]], [[99, 5], [50, 6]], [[50, 1, 2]], [["x", 1]], 7, None])
def test_percentiles_that_are_none_are_refused_by_name(tmp_path: Path, told: Any) -> None:
    path = tmp_path / "report.json"
    path.write_text(json.dumps({"hops": [{"name": "wire", "count": 3, "percentiles_ns": told}]}))
    with pytest.raises(ValueError, match=r"latency hop='wire': .*does not tell its percentiles in rising order"):
        from_report(path, "wire")


# Faults.


def test_rejections_come_by_chance_and_by_seed(tmp_path: Path) -> None:
    outcomes = []
    for seed in (3, 3, 4):
        with rig(tmp_path, faults=Faults(rates={"reject": 0.3}, seed=seed)) as made:
            ear = Ear(made)
            for number in range(1, 201):
                ear.say(enter(number, "B", 100, 1_000_000), cancel(number))
                ear.turn()
            outcomes.append(ear.told())
            rejected = [report for _, report in ear.heard() if report["type"] == "J"]
            assert {report["reason"] for report in rejected} == {ouch.REJECT_OTHER}
            assert len(rejected) == made.stage.struck["reject"] == made.count("faults") == made.count("rejected")
            # 200 throws of 0.3: five standard deviations either way.
            assert 60 - 33 < len(rejected) < 60 + 33
    assert outcomes[0] == outcomes[1] != outcomes[2]


def test_a_fault_at_a_time_strikes_once_at_the_first_occasion_after_it(tmp_path: Path) -> None:
    with rig(tmp_path, faults=Faults(times=[("reject", 0.5), ("reject", 0.2), ("reject", 9.0)])) as made:
        ear = Ear(made)
        made.step()
        for number in range(1, 11):
            ear.say(enter(number, "B", 100, 1_000_000))
            ear.turn(100 * MS)
        assert [user_ref for kind, user_ref in ear.told() if kind == "J"] == [2, 5]


def test_an_execution_told_twice_is_one_more_packet_and_no_more_position(tmp_path: Path) -> None:
    with rig(tmp_path, faults=Faults(rates={"duplicate": 1.0}), accounts=(Account("BETA", "TWO"),)) as made:
        maker, taker = Ear(made, 0), Ear(made, 1)
        maker.say(enter(1, "S", 100, 1_000_000), enter(2, "S", 100, 1_000_000))
        maker.turn()
        taker.say(enter(1, "B", 150, 1_000_000))
        taker.turn()
        maker.turn()
        assert taker.told() == [("A", 1), *[("E", 1)] * 4]
        told = [report for _, report in taker.heard()]
        assert told[1:3] == told[3:5], "the same to the last field"
        assert maker.told() == [("A", 1), ("A", 2), ("E", 1), ("E", 2), ("E", 1), ("E", 2)]
        assert int(made.positions.records[65_536 + 1]["position"]) == 150
        assert made.count("client_executions") == 4
        back = SoupClient(made)
        made.run()
        back.login("BETA", "TWO")
        assert [(report["type"], report["user_ref"]) for report in back.reports(5)] == taker.told()


def test_in_a_silence_nothing_is_said_and_then_everything(tmp_path: Path) -> None:
    with rig(tmp_path, faults=Faults(times=[("silence", 0.0)], silence_ms=5_000)) as made:
        ear = Ear(made)
        for number in range(1, 5):
            ear.say(enter(number, "B", 100, 1_000_000))
            ear.turn()
            ear.turn(SECOND)
        ear.turn(SECOND - 1)
        assert ear.packets == [], "not even a heartbeat"
        assert made.count("accepted") == 4, "but it listens"
        ear.turn(1)
        assert ear.told() == [("A", number) for number in range(1, 5)]
        ear.turn(SECOND)
        assert ear.packets[-1][1] == SERVER_HEARTBEAT


def test_a_delayed_report_holds_up_those_behind_it(tmp_path: Path) -> None:
    with rig(tmp_path, faults=Faults(times=[("delay", 0.0)], delay_ms=50)) as made:
        ear = Ear(made)
        ear.say(enter(1, "B", 100, 1_000_000))
        ear.turn()
        ear.say(enter(2, "B", 100, 1_000_000))
        ear.turn(50 * MS - 1)
        assert ear.heard() == []
        ear.turn(1)
        assert ear.told() == [("A", 1), ("A", 2)]


@pytest.mark.parametrize("seed", range(5))
def test_a_connection_is_cut_inside_what_it_is_told_and_the_log_has_it_all(tmp_path: Path, seed: int) -> None:
    with rig(tmp_path, faults=Faults(times=[("disconnect", 0.0)], seed=seed), cancel_on_disconnect=False) as made:
        ear = Ear(made)
        ear.say(*(enter(number, "B", 100, 1_000_000) for number in range(1, 11)))
        ear.turn()
        ear.turn()
        assert ear.closed and made.stage.struck["disconnect"] == 1
        whole = len(ear.told())
        assert whole < 10 and (ear.raw or whole)
        back = SoupClient(made)
        made.run()
        back.login(sequence=whole + 1)
        assert [report["user_ref"] for report in back.reports(10 - whole)] == list(range(whole + 1, 11))


def test_a_black_hole_takes_a_connection_and_says_nothing(tmp_path: Path) -> None:
    with rig(tmp_path, faults=Faults(times=[("blackhole", 0.0)])) as made:
        lost = SoupClient(made)
        made.run()
        asked = soupbintcp.LOGIN_REQUEST.encode(username="TICK", password="PATH", session="", sequence="1")
        lost.send(packet(asked[0], asked[1:]))
        for _ in range(200):
            lost.poll()
        assert (lost.inbox, lost.closed, made.count("clients"), made.count("logins")) == ([], False, 1, 0)
        second = SoupClient(made)
        assert second.login()[0] == soupbintcp.LOGIN_ACCEPTED.code
        made.step(after_ns=15 * SECOND)
        second.send(packet(soupbintcp.CLIENT_HEARTBEAT))
        made.step(after_ns=1)
        lost.wait_closed()


def test_without_latency_and_faults_nothing_is_held(tmp_path: Path) -> None:
    with rig(tmp_path) as made:
        assert made.stage.state.conduct.words[:3].tolist() == [0, 0, 0]
        assert made.stage.struck == dict.fromkeys(("reject", "silence", "delay", "duplicate", "disconnect", "blackhole"), 0)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"latency": Latency(orders_ns=[])}, "latency.orders_ns="),
        ({"latency": Latency(reports_ns=[-1])}, "latency.reports_ns="),
        ({"faults": Faults(rates={"fire": 0.1})}, "faults: 'fire' is none: expected one of"),
        ({"faults": Faults(rates={"delay": 1.1})}, "faults.delay=1.1: expected a probability"),
        ({"faults": Faults(times=[("delay", -1.0)])}, "faults: delay at -1.0 s"),
        ({"faults": Faults(silence_ms=float("nan"))}, "faults.silence_ms=nan"),
        ({"faults": Faults(seed=-1)}, "faults.seed=-1"),
    ],
)
def test_what_cannot_be_is_named(tmp_path: Path, options: dict[str, object], expected: str) -> None:
    with pytest.raises(ValueError, match=expected), rig(tmp_path, **options):
        pass
