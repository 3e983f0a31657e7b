"""The receive benchmark: its packets are the day's, its figures are there, and a wrong book does not pass."""

import json
import subprocess
import sys
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest

from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT
from engine.runtime.clock import calibrate
from perf.bench_receive import TURN_PACKETS, Handler, in_packets
from perf.itch_day import make_day
from tests.itch_flow import unframe

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("messages_per_packet", [1, 4, 38, 200])
def test_packets_hold_the_day(messages_per_packet: int) -> None:
    day = make_day(10_000, symbols=20, seed=3)
    packets = in_packets(day, messages_per_packet)
    raw = packets.raw.tobytes()
    found: list[bytes] = []
    for number in range(packets.count):
        packet = raw[packets.offsets[number] : packets.offsets[number + 1]]
        assert len(packet) <= PACKET_BYTES_MAX
        messages = unframe(packet[HEADER_BYTES:])
        assert 1 <= len(messages) <= messages_per_packet
        assert int.from_bytes(packet[SEQUENCE_AT:COUNT_AT], "big") == len(found) + 1
        assert int.from_bytes(packet[COUNT_AT:HEADER_BYTES], "big") == len(messages)
        found += messages
        assert packets.targets[number] == len(found) + 1
    assert found == unframe(day.tobytes())


def test_a_book_or_counter_that_is_wrong_is_told() -> None:
    day = make_day(10_000, symbols=20, seed=3)
    packets = in_packets(day, 1)
    with closing(Handler(calibrate(1_000_000))) as handler:
        ticks = handler.follow(packets, 0, 1)
        assert (ticks[:, 2] > 0).all()
        assert ((ticks[:, 0] >= 0) & (ticks[:, 0] <= ticks[:, 1]) & (ticks[:, 1] < ticks[:, 2])).all()
        assert 0 < (ticks[:, 0] > 0).sum() < TURN_PACKETS
        assert handler.problems(day, TURN_PACKETS) == []
        (told,) = handler.problems(day, TURN_PACKETS - 1)[:1]
        assert told == f"messages={TURN_PACKETS}, expected {TURN_PACKETS - 1}"
        book = handler.stage.state.decoder.book
        book.levels["qty"] += 1
        assert any("bid_px" in problem for problem in handler.problems(day, TURN_PACKETS))


def test_a_short_run_gives_every_figure() -> None:
    command = [sys.executable, "perf/bench_receive.py", "--quick", "--messages", "10000", "--json", "-"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    rows = figures["days"]["generated"]
    assert [(row["messages_per_packet"], row["waiting"]) for row in rows] == [(1.0, 1), (1.0, 32)]
    for row in rows:
        assert row["problems"] == []
        assert 0 < row["call_ns"] < row["first_quote_ns"] <= row["last_quote_ns"]
        assert row["quote_ratio"] > 1
        assert row["last_quote_ratio"] >= row["quote_ratio"]
        assert row["turn_ratio"] > 1
        assert row["quotes"] > 100
        assert row["turns"] == row["messages"] // TURN_PACKETS - 1
    assert figures["machine"]["cpu"]


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [(["--cpu", "9999"], "--cpu 9999: expected one of"), (["missing.itch"], "missing.itch"), (["--messages", "10"], "x>=10000")],
)
def test_unusable_arguments_are_refused(arguments: list[str], problem: str) -> None:
    run = subprocess.run([sys.executable, "perf/bench_receive.py", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert run.returncode == 2
    assert problem in run.stderr


def test_the_first_message_of_a_day_is_number_one() -> None:
    packets = in_packets(make_day(10_000, symbols=20, seed=3), 7)
    assert packets.raw[SEQUENCE_AT : SEQUENCE_AT + 8].tolist() == [0, 0, 0, 0, 0, 0, 0, 1]
    assert packets.targets[0] == 8
    assert np.all(np.diff(packets.offsets) > HEADER_BYTES)
