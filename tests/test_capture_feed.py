"""A packet capture as the feed handler's source: the same path as from sockets, in the capture's own order and time."""

import itertools
import random
import struct
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest

from engine.feed import itch, player
from engine.feed.capture import Capture, Lines
from engine.feed.frames import address_of
from engine.feed.hot.capture import CAPTURE_FAILED
from engine.feed.recovery import Recovery
from engine.layout import BOOK_GAPPED, BOOK_STALE, CAPTURE, PHASE_STARTING, PHASE_TRADING
from engine.runtime import logins, stages
from engine.runtime.config import DEFAULT_PATH, load
from shm.table import Table
from tests.capture_files import NS, A, B, pcap, udp_frame
from tests.feed_house import MIDNIGHT_NS, FeedHouse, feed_house, only
from tests.itch_flow import Flow, end_of_session, heartbeat, in_packets, packet, unframe
from tests.running import AAPL, Launcher, wait_for

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
REAL = DATA / "itch" / "pcap" / "Multiple.Packets.pcap"

REORDER_US = 500
PATIENCE_S = 60
BEGAN_NS = MIDNIGHT_NS + 34_200 * NS

Timed = tuple[int, tuple[str, int], bytes]


def written(tmp_path: Path, sent: list[Timed]) -> Path:
    """A capture of (microseconds from the beginning, destination, payload)."""
    path = tmp_path / "feed.pcap"
    path.write_bytes(pcap([(BEGAN_NS + at_us * 1_000, udp_frame(payload, to, vlans=1)) for at_us, to, payload in sent]))
    return path


@contextmanager
def playing(path: Path, *, b: tuple[str, int] | None = B, speed: float = 0.0, **options: Any) -> Iterator[FeedHouse]:
    options = {"ring_capacity": 1 << 14, "recovery": Recovery(reorder_us=REORDER_US)} | options
    with feed_house(source="pcap", path=path, address=A, address_b=b, speed=speed, **options) as house:
        yield house


def played(house: FeedHouse) -> list[dict[str, Any]]:
    """Every tick until the feed has ended."""
    ticks: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_S
    while True:
        ended = bool(house.control.feed_ended)
        done = house.turn()
        assert done >= 0, house.reason(done)
        ticks += house.read()
        if ended and done == 0:
            return ticks
        assert time.monotonic() < deadline, "the capture did not come to its end"


def without_stamps(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{name: value for name, value in tick.items() if not name.endswith("tsc") and name not in ("seq", "sequence")} for tick in ticks]


def test_a_capture_gives_the_ticks_that_the_sockets_give(tmp_path: Path) -> None:
    """Both lines lose packets, never the same, and the second is late: what they have together is everything."""
    for seed in range(3):
        rng = random.Random(seed)
        packets = list(in_packets(Flow(seed).messages(800), rng))
        sent: list[Timed] = []
        for number, raw in enumerate(packets):
            lost = rng.choice([None, None, None, A, B])
            late_us = rng.choice([1, 1, 5, REORDER_US - 100])
            sent += [(number * 100 + (late_us if line == B else 0), line, raw) for line in (A, B) if line != lost]
        sent.sort(key=lambda one: one[0])
        with feed_house(ring_capacity=1 << 14) as sockets:
            wanted = without_stamps(sockets.send(*packets))
            expected = sockets.counted()
        with playing(written(tmp_path, sent)) as house:
            found = without_stamps(played(house))
            counted = house.counted()
        assert found == wanted, seed
        assert counted["messages"] == expected["messages"] == 800, seed
        assert (counted.get("lost", 0), counted["packets"], counted.get("malformed", 0)) == (0, len(sent), 0), seed
        lines = house.lines_table.records
        assert [int(lines[line]["packets"]) for line in (0, 1)] == [sum(one[1] == line for one in sent) for line in (A, B)]
        assert sum(int(lines[line]["first"]) for line in (0, 1)) == 800


def test_a_hole_is_waited_for_by_the_time_of_the_capture(tmp_path: Path) -> None:
    """However fast it is played, and however its packets are batched: the clock of this machine stands still here."""
    raw = Flow(1).messages(40)
    one = [packet(number, [message]) for number, message in enumerate(raw, 1)]
    for late_us, lost in ((REORDER_US - 1, 0), (REORDER_US, 1)):
        sent = [(number, A, one[number]) for number in range(20) if number != 10]
        sent += [(11 + late_us, A, one[20]), (11 + late_us, B, one[10])]
        sent += [(2_000 + number, A, one[number]) for number in range(21, 40)]
        with playing(written(tmp_path, sorted(sent, key=lambda each: each[0]))) as house:
            ticks = played(house)
            counted = house.counted()
        assert (counted.get("lost", 0), counted["messages"], counted["gaps"]) == (lost, 40 - lost, 1), late_us
        gapped = [flags for flags in only(ticks, "status", "flags") if flags & BOOK_GAPPED]
        assert bool(gapped) == bool(lost), late_us


def test_what_is_missing_when_the_capture_ends_is_lost_and_what_waits_behind_it_is_not(tmp_path: Path) -> None:
    raw = Flow(2).messages(30)
    one = [packet(number, [message]) for number, message in enumerate(raw, 1)]
    with playing(
        written(tmp_path, [(number, A, one[number]) for number in range(30) if number not in (7, 28)] + [(30, B, heartbeat(32))])
    ) as house:
        played(house)
        counted = house.counted()
    assert (counted["messages"], counted["lost"], counted["ends_of_session"]) == (28, 3, 1)


def test_a_capture_goes_on_after_the_end_of_a_session(tmp_path: Path) -> None:
    first, second = Flow(3).messages(50), Flow(4).messages(60)
    sent: list[Timed] = [(0, A, packet(1, first)), (1, A, end_of_session(51)), (2, B, end_of_session(51))]
    sent += [
        (10, A, packet(1, second, session="NEXT")),
        (20, B, packet(1, second, session="NEXT")),
        (30, A, packet(61, [first[0]], session="NEXT")),
    ]
    with playing(written(tmp_path, sent)) as house:
        played(house)
        counted = house.counted()
        assert int(house.stage.player._line["ended"]) == 1  # type: ignore[union-attr]
    assert (counted["messages"], counted["session_changes"], counted.get("lost", 0), counted["ends_of_session"]) == (111, 1, 0, 2)
    with playing(written(tmp_path, sent[:3])) as house:
        played(house)
        assert (house.counted()["messages"], house.counted()["ends_of_session"]) == (50, 1)


def test_the_feed_does_not_end_with_a_session_while_more_of_the_capture_is_to_come(tmp_path: Path) -> None:
    hours_us = 3_600_000_000
    with playing(written(tmp_path, [(0, A, end_of_session(1)), (1, B, heartbeat(1)), (hours_us, A, heartbeat(1))]), speed=1.0) as house:

        def ended() -> bool:
            house.turn()
            return bool(house.counted().get("ends_of_session"))

        wait_for(ended, "the session's end", PATIENCE_S)
        assert house.control.feed_ended == 0


def test_everything_in_the_file_is_counted(tmp_path: Path) -> None:
    raw = Flow(5).messages(20)
    frames = [
        udp_frame(packet(1, raw[:10]), A), udp_frame(packet(1, raw[:10]), B), udp_frame(b"elsewhere", ("10.0.0.9", 53)), bytes(60),
        udp_frame(packet(11, raw[10:]), A)[:-1], udp_frame(bytes(9_201), A), udp_frame(packet(11, raw[10:]), A),
        udp_frame(heartbeat(21), B),
    ]  # fmt: skip
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([(BEGAN_NS + number, frame) for number, frame in enumerate(frames)])[:-3])
    with playing(path, capture=(table := Table.create(f"test-capture-{time.time_ns()}", CAPTURE))) as house:
        house.made.append(table)
        played(house)
        line = table.records[0]
        told = {name: int(line[name]) for name in line.dtype.names if line[name]}
        assert house.counted()["messages"] == 20
    assert told == {
        "frames": 7,
        "packets_a": 2,
        "packets_b": 1,
        "elsewhere": 1,
        "too_long": 1,
        "not_ipv4": 1,
        "cut_short": 1,
        "torn": 1,
        "ended": 1,
    }


@pytest.mark.skipif(not REAL.exists(), reason=f"no real market data: {REAL} is absent")
def test_a_real_capture_begins_late_and_no_book_of_it_is_proven() -> None:
    with feed_house(source="pcap", path=REAL, address=A, speed=0.0, instruments_max=INSTRUMENTS_OF_A_DAY) as house:
        ticks = played(house)
        counted = house.counted()
        by_type = house.stage.counts_by_type  # type: ignore[union-attr]
    # The first packet is too far behind the second to wait for what is missing between them: its one message is lost as well.
    assert (counted["messages"], counted["packets"], counted["lost"]) == (38, 2, 19_009_154 - 38)
    assert by_type == {"A": 36, "F": 2}
    assert all(flags & BOOK_GAPPED for flags in only(ticks, "quote", "flags"))


# Locate codes of the real day go beyond the house's usual few.
INSTRUMENTS_OF_A_DAY = 64


class StoppedClock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = 5 * NS

    def monotonic_ns(self) -> int:
        # Whoever looks at a clock again and again sees it go on.
        self.now_ns += 1_000
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ns += round(seconds * NS)


@pytest.mark.parametrize("speed", [0.0, 1.0, 10.0, 0.5])
def test_packets_are_handed_over_at_their_own_times(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, speed: float) -> None:
    """A time that lies before the one it follows is played at once; speed 0 waits for nothing."""
    offsets_us = [0, 1_000, 1_020, 900, 700_000, 3_000_000]
    path = written(tmp_path, [(at_us, A, packet(1 + number, [bytes(12)])) for number, at_us in enumerate(offsets_us)])
    clock = StoppedClock()
    monkeypatch.setattr(player, "time", clock)
    handed_ns: list[int] = []
    monkeypatch.setattr(player.CapturePlayer, "_hand_over", lambda *_: handed_ns.append(clock.now_ns), raising=True)
    began_ns = clock.now_ns
    counted = np.zeros(1, CAPTURE)[0]
    lines = Lines(address_of(f"{A[0]}:{A[1]}"), None, 0)
    made = player.CapturePlayer(path, lines, speed, counted, held=lambda: False, on_error=pytest.fail)
    wait_for(lambda: counted["ended"], "the capture's end", PATIENCE_S)
    made.close()
    due_ns = [round(max(offsets_us[: number + 1]) * 1_000 / speed) if speed else 0 for number in range(len(offsets_us))]
    for due, was in zip(due_ns, handed_ns, strict=False):
        assert due - player.SLEEP_NS_MIN <= was - began_ns <= due + 100_000
    assert len(handed_ns) == len(offsets_us) + 1
    # What lies in the past of its predecessor is not late.
    assert bool(counted["late_ns_max"]) == bool(speed)
    assert counted["late_ns_max"] <= 20_000


def test_nothing_is_played_before_trading_begins(tmp_path: Path) -> None:
    path = written(tmp_path, [(0, A, packet(1, Flow(6).messages(10)))])
    with playing(path, b=None, hold=True) as house:
        assert house.control.phase == PHASE_STARTING
        line = house.stage.player._line  # type: ignore[union-attr]
        for _ in range(20):
            assert house.turn() == 0
            time.sleep(0.001)
        assert int(line["packets_a"]) == 0
        house.control["phase"] = PHASE_TRADING
        played(house)
        assert int(line["packets_a"]) == 1


@pytest.mark.parametrize("state", ["held", "waiting for its time", "waiting for the reader"])
def test_a_player_is_closed_wherever_it_is(tmp_path: Path, state: str) -> None:
    far_us = 3_600_000_000 if state == "waiting for its time" else 0
    count = 8_000 if state == "waiting for the reader" else 2
    many = [(far_us * number, A, packet(1 + number, [bytes(1_000)])) for number in range(count)]
    with playing(written(tmp_path, many), b=None, speed=1.0, hold=state == "held") as house:
        thread = house.stage.player._thread  # type: ignore[union-attr]
        line = house.stage.player._line  # type: ignore[union-attr]
        if state == "waiting for its time":
            wait_for(lambda: line["packets_a"] == 1, "the first packet", PATIENCE_S)
        elif state == "waiting for the reader":
            filled = itertools.count()
            wait_for(lambda: line["packets_a"] > 100 and next(filled) > 20, "the socket to be full", PATIENCE_S)
        house.stage.close()  # type: ignore[union-attr]
        assert not thread.is_alive()
        assert int(line["ended"]) == 0


@pytest.mark.parametrize(
    ("error", "told"), [(OSError(5, "Input/output error"), "Input/output error"), (struct.error("too large"), "error('too large')")]
)
def test_a_capture_that_cannot_be_read_on_ends_the_feed_and_says_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, error: Exception, told: str
) -> None:
    def failing(self: Capture) -> Iterator[Any]:
        yield from itertools.islice(whole(self), 1)
        raise error

    whole = Capture.read
    path = written(tmp_path, [(0, A, packet(1, Flow(7).messages(10)))])
    monkeypatch.setattr(player.Capture, "read", failing)
    monkeypatch.setattr("engine.feed.stage.chosen_lines", lambda *_: Lines(address_of(f"{A[0]}:{A[1]}"), None, 0))
    with playing(path, b=None) as house:
        deadline = time.monotonic() + PATIENCE_S
        while (done := house.turn()) >= 0:
            house.read()
            assert time.monotonic() < deadline
        assert done == CAPTURE_FAILED
        assert house.reason(done) == f"feed path={path}: reading the capture failed: {told}"
        assert house.counted()["messages"] == 10


def test_the_clocks_that_are_compared_are_those_of_the_capture(tmp_path: Path) -> None:
    """Messages that come later and later by the capture's own clock make the books stale, though it is played flat out."""
    sent = []
    for number in range(20):
        message = itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=34_200 * NS + number * 1_000_000, event="Q")
        sent.append((number * 1_000 + (0 if number < 10 else 50_000), A, packet(1 + number, [message])))
    for limit_ms, stale in ((40, True), (60, False)):
        with playing(written(tmp_path, sent), b=None, clock_drift_ms_max=limit_ms) as house:
            ticks = played(house)
            assert house.counted().get("stales", 0) == stale
            assert any(flags & BOOK_STALE for flags in only(ticks, "status", "flags")) == stale


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"path": "missing.pcap"}, "missing.pcap"),
        ({"path": "/"}, "it is a directory"),
        ({"address": ("1.2.3.4", 5)}, "feed.address=1.2.3.4:5: nothing in the capture"),
        ({"address_b": ("1.2.3.4", 5)}, "feed.address_b=1.2.3.4:5: nothing in the capture"),
        ({"address_b": A}, "it is line A's address too"),
    ],
)
def test_a_capture_that_cannot_be_used_is_explained(tmp_path: Path, options: dict[str, Any], told: str) -> None:
    path = written(tmp_path, [(0, A, heartbeat(1))])
    with pytest.raises((ValueError, OSError), match=r"feed|capture|missing") as refused:
        FeedHouse(**{"source": "pcap", "path": path, "address": A} | options)
    assert told in str(refused.value)


def test_an_exchange_beside_a_capture_sends_nothing_where_its_packets_went(monkeypatch: pytest.MonkeyPatch) -> None:
    """They went to a real market's groups."""
    changed = {"feed.source": "pcap", "feed.path": "a.pcap", "feed.address": f"{A[0]}:{A[1]}", "feed.address_b": f"{B[0]}:{B[1]}"}
    monkeypatch.setattr(stages, "ExchangeStage", lambda **options: options)
    for source, sent_to in (("pcap", [stages.NOBODY, None]), ("udp", [A, B])):
        config = load(DEFAULT_PATH, changed | {"feed.source": source})
        run: Any = SimpleNamespace(config=config, instance=MagicMock(), midnight_ns=0, logins=logins.find(config))
        options: Any = stages.build_exchange(run)
        assert [options["market_address"], options["market_address_b"]] == sent_to
        assert options["follow_feed"] == (source == "udp")


@pytest.mark.skipif(not AAPL.exists(), reason=f"no real market data: {AAPL} is absent")
def test_a_run_trades_on_a_capture_and_tells_what_it_had(tmp_path: Path) -> None:
    """Each line loses every seventh packet, and neither is of this machine: nothing is sent where the capture's packets went."""
    raw = unframe(AAPL.read_bytes())[:3_000]
    sent: list[Timed] = [(0, ("10.0.0.1", 53), b"a name server")]
    for number in range(0, len(raw), 5):
        payload = packet(1 + number, raw[number : number + 5])
        sent += [(number * 10 + line, (A, B)[line], payload) for line in (0, 1) if number // 5 % 7 != 3 + line]
    launcher = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}", {"TICKPATH_STATE": str(tmp_path / "state")})
    report, finished = launcher.trade("--feed", str(written(tmp_path, sent)), "--speed", "0")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert (report["messages"], report["lost"], report["failures"], report["ended"]) == (3_000, 0, [], "the flow has ended")
    counted = report["capture"]
    assert (counted["packets_a"], counted["packets_b"], counted["elsewhere"], counted["ended"]) == (514, 514, 1, 1)
    assert report["notes"][0] == f"feed.pcap: session TEST000001; line A is {A[0]}:{A[1]}, line B {B[0]}:{B[1]}"
    assert "feed.pcap: 1 datagrams were sent to other addresses: skipped" in report["notes"]
    assert not any("begins with message" in note for note in report["notes"])
    assert report["orders"]["sent"] > 0
    assert report["positions_agree"] is None
    assert launcher.segments() == []
