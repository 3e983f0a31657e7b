"""The book benchmark: its inputs are valid days, its figures are there, and a wrong book does not pass."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from itch_book._core import Session

from engine.feed import itch
from engine.feed.hot.replay import replay
from perf import bench_book
from perf.itch_day import make_day
from perf.itch_grow import frame_starts, grow
from tests.itch_flow import Flow, frame, unframe

ROOT = Path(__file__).resolve().parent.parent


def peer_stats(day: np.ndarray) -> dict[str, int]:
    session = Session(tables=[], depth=0, symbols=[])
    session.feed(day)
    stats: dict[str, int] = session.stats()
    return stats


@pytest.mark.parametrize(("messages", "live", "symbols"), [(20_000, None, 50), (20_000, 0, 3), (30_000, 25_000, 200)])
def test_a_generated_day_is_valid_and_as_large_as_asked(messages: int, live: int | None, symbols: int) -> None:
    day = make_day(messages, live=live, symbols=symbols, seed=3)
    stats = peer_stats(day)
    assert abs(stats["messages"] - messages) < messages // 50
    assert stats["live_orders"] == (messages * 6 // 10 if live is None else live)
    wrong = ("unknown", "malformed", "missing_ref", "dup_ref", "rejected", "clamped", "crossed_books", "pending_bytes")
    assert {name: stats[name] for name in wrong} == dict.fromkeys(wrong, 0)
    stamps = [int.from_bytes(raw[5:11], "big") for raw in unframe(day.tobytes())]
    assert stamps == sorted(stamps)
    assert (make_day(messages, live=live, symbols=symbols, seed=3) == day).all(), "the same seed gave another day"


def test_copies_are_of_other_instruments_and_other_orders() -> None:
    flow = Flow(61, symbols=3, first_ref=10**6)
    raw = frame(flow.opening() + flow.messages(2_000))
    messages = unframe(raw)
    day = np.frombuffer(raw + b"\0\x13D12", np.uint8)
    assert len(frame_starts(day)) == len(messages)
    highest = max(int.from_bytes(message[1:3], "big") for message in messages)
    copies = min(4, 65_535 // highest)
    grown = grow(day, copies)
    once, often = peer_stats(np.frombuffer(raw, np.uint8)), peer_stats(grown)
    for name in ("messages", "adds", "executes", "cancels", "deletes", "replaces", "live_orders"):
        assert often[name] == copies * once[name], name
    assert often["missing_ref"] == often["dup_ref"] == 0
    about_orders = [itch.BY_CODE[raw[0]].decode(raw) for raw in unframe(grown.tobytes()) if itch.ABOUT_ORDER[raw[0]]]
    refs = [fields.get("new_ref", fields["ref"]) for fields in about_orders if "side" in fields or "new_ref" in fields]
    assert refs == list(range(1, len(refs) + 1))


def test_more_copies_than_there_are_locate_codes() -> None:
    day = np.frombuffer(frame(Flow(62, symbols=3).opening()), np.uint8)
    with pytest.raises(ValueError, match="copies=30000 of a file with locate codes up to 3: expected at most 21845"):
        grow(day, 30_000)


def test_a_book_that_is_not_the_peers_is_told() -> None:
    flow = Flow(63, first_ref=1)
    raw = frame([message for message in flow.opening() + flow.messages(500) if itch.ABOUT_ORDER[message[0]]])
    given = bench_book.Input(np.frombuffer(raw, np.uint8), len(unframe(raw)), "a flow")
    decoder = bench_book.fresh(given)
    replay(decoder, given.day, 0, len(raw))
    peer = bench_book.peer_touch(given.day)
    assert bench_book.differences(decoder, peer) == []
    locate = next(iter(peer))
    (told,) = bench_book.differences(decoder, peer | {locate: (1, 2, 3, 4, 5, 6)})
    assert told.startswith(f"locate={locate}: ")
    (told,) = bench_book.differences(decoder, peer | {9_999: (1, 2, 3, 0, 0, 0)})
    assert told.startswith("locate=9999: ")


@pytest.mark.parametrize("how", [["perf/bench_book.py"], ["-m", "perf.bench_book"]])
def test_it_runs_and_writes_its_figures(tmp_path: Path, how: list[str]) -> None:
    flow = Flow(64, symbols=2, first_ref=1)
    path = tmp_path / "day.itch"
    path.write_bytes(frame([message for message in flow.opening() + flow.messages(1_000) if message[0] != itch.BROKEN_TRADE.code]))
    command = [sys.executable, *how, str(path), "--passes", "1", "--grow", "3", "--json", "-"]
    run = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 0, run.stderr
    figures = json.loads(run.stdout)
    wanted = {
        "messages",
        "decode_mps",
        "book_mps",
        "peer_book_mps",
        "book_ratio",
        "peer_decode_mps",
        "machine",
        "book_ns",
        "source",
        "as_it_is",
        "walk_ns",
        "read_ns",
        "by_type",
    }
    assert wanted <= figures.keys()
    assert figures["differences"] == []
    assert set("AFECXDU") <= figures["by_type"].keys()
    assert sum(told["messages"] for told in figures["by_type"].values()) == figures["messages"]
    assert figures["messages"] == 3 * figures["as_it_is"]["messages"]
    assert figures["book_ratio"] == pytest.approx(figures["book_mps"] / figures["peer_book_mps"], rel=0.01)
    assert "equal" in run.stderr


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        ([], "give an ITCH file or --generate"),
        (["--generate", "20000", "setup.py"], "give an ITCH file or --generate"),
        (["no-such-file"], "does not exist"),
        (["--generate", "20000", "--live", "20000"], "live=20000"),
        (["--generate", "20000", "--cpu", "9999"], "--cpu 9999: expected one of"),
        (["tests/__init__.py"], "no whole message"),
    ],
)
def test_unusable_arguments_are_named(arguments: list[str], problem: str) -> None:
    run = subprocess.run([sys.executable, "perf/bench_book.py", *arguments], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert run.returncode == 2
    assert problem in run.stderr
