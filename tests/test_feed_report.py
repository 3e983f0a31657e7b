"""What the report says of the market data: of counters in shared memory, in JSON and on a terminal."""

import uuid
from collections.abc import Iterator
from typing import Any

import pytest
from rich.console import Console

from engine.feed.hot.state import LINE_A, LINE_B, LINE_REWIND, LINE_SNAPSHOT
from engine.layout import BOOK_CLOSED, BOOK_GAPPED, BOOK_SUSPECT, BOOK_VALID, pack_symbol
from engine.runtime import feed_report
from engine.runtime.config import RingsConfig
from engine.runtime.instance import Instance
from shm._shim import lib
from tools import show


@pytest.fixture
def instance() -> Iterator[Instance]:
    made = Instance.create(f"test-report-{uuid.uuid4().hex[:8]}", RingsConfig(ticks=64, orders=64, reports=64))
    try:
        yield made
    finally:
        made.unlink()


def trade(instance: Instance, index: int, symbol: str, validity: int, **values: int) -> None:
    instance.instruments.records[index]["symbol"] = pack_symbol(symbol)
    record = instance.symbols.records[index]
    for name, value in ({"publish": 1, "validity": validity} | values).items():
        record[name] = value


def test_only_lines_that_were_used_are_told(instance: Instance) -> None:
    for number, packets in ((LINE_A, 7), (LINE_REWIND + 1, 0), (LINE_SNAPSHOT, 3)):
        instance.feed_lines.records[number]["packets"] = packets
        instance.feed_lines.records[number]["requests"] = number
    told = feed_report.lines(instance)
    assert [(line["line"], line["packets"], line["requests"]) for line in told] == [("A", 7, 0), ("rewind 2", 0, 3), ("snapshot", 3, 6)]
    assert feed_report.line_name(LINE_B) == "B"
    assert "heard_tsc" not in told[0]


def test_what_is_not_valid_now_is_told_by_reason(instance: Instance) -> None:
    instance.symbols.records[0]["validity"] = BOOK_CLOSED
    trade(instance, 3, "ABC", BOOK_GAPPED | BOOK_SUSPECT)
    trade(instance, 4, "WXYZ", BOOK_VALID)
    trade(instance, 5, "NEW", 0)
    for index in range(100, 130):
        trade(instance, index, f"S{index}", BOOK_GAPPED)
    told = feed_report.invalid_now(instance)
    assert told["suspect"] == ["ABC"]
    assert told["gapped"][:2] == ["ABC", "S100"]
    assert told["gapped"][-1] == "and 11 more"
    assert len(told["gapped"]) == feed_report.NAMED + 1
    assert told.keys() == {"suspect", "gapped"}


def test_the_busiest_are_told_with_the_time_their_books_were_invalid(instance: Instance) -> None:
    for index in range(1, 15):
        trade(instance, index, f"S{index}", BOOK_VALID, messages=index, quotes=2 * index, invalid_ns=index * 1_000_000)
    trade(instance, 14, "S14", BOOK_GAPPED, invalid_tsc=lib.tp_rdtsc() - 10**9)
    instance.symbols.records[20]["messages"] = 99
    told = feed_report.busiest(instance, 0.5)
    assert [entry["symbol"] for entry in told] == [f"S{index}" for index in range(14, 4, -1)]
    assert told[1] == {
        "symbol": "S13", "messages": 13, "quotes": 26, "trades": 0, "volume": 0, "suspects": 0, "refreshes": 0, "invalidated": 0,
        "invalid_ms": 13.0,
    }  # fmt: skip
    assert told[0]["invalid_ms"] >= 14 + 500


def test_a_person_reads_what_was_missing_and_how_it_came_back(instance: Instance) -> None:
    stats = instance.feed_stats.records[0]
    for name, value in {
        "gaps": 3, "recovered": 1_200, "requests": 40, "snapshots": 1, "lost": 17, "gapped_ns": 2_500_000, "suspects": 2, "refreshes": 1,
        "stale_ns": 7_000_000,
    }.items():  # fmt: skip
        stats[name] = value
    instance.feed_lines.records[LINE_A]["packets"] = 7_654
    trade(instance, 3, "ABC", BOOK_GAPPED)
    text = told_of(feed_report.describe(instance, 0.5))
    assert "7,654" in text
    assert "gaps 3: 1,200 messages from rewind servers (40 requests), 1 snapshots, 17 messages passed over; books gapped for 2.5 ms" in text
    assert "suspect books 2, made anew 1 times" in text
    assert "books stale for 7.0 ms" in text
    assert "not valid now, gapped: ABC" in text


def test_a_feed_without_trouble_says_nothing_of_it(instance: Instance) -> None:
    instance.feed_lines.records[LINE_A]["packets"] = 7
    text = told_of(feed_report.describe(instance, 0.5))
    assert "gap" not in text
    assert "valid" not in text


def told_of(feed: dict[str, Any]) -> str:
    console = Console(width=200, record=True)
    for part in (show.lines_of(feed), *show.troubles_of(feed)):
        console.print(part)
    return console.export_text()
