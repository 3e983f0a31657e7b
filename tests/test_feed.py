"""The feed handler: packets and files in, ticks out, and everything that a network or a disk can do to it."""

import gzip
import os
import random
import socket
import struct
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_book._core import Session
from numba import config, njit

from engine.book.book import check_invariants
from engine.book.hot.book import worse_level
from engine.feed import itch
from engine.feed.hot.source import READ_FAILED, UNZIPPING_FAILED
from engine.feed.hot.state import EXPECTED, FD, SESSION_HIGH, SESSION_LOW
from engine.feed.hot.step import step
from engine.feed.moldudp64 import END_OF_SESSION
from engine.feed.recovery import Recovery
from engine.layout import (
    BOOK_CLOSED,
    BOOK_CROSSED,
    BOOK_GAPPED,
    BOOK_HALTED,
    BOOK_OVERFLOW,
    BOOK_SUSPECT,
    BOOK_VALID,
    BUY,
    SELL,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW
from engine.runtime.clock import calibrate
from engine.wire.table import Value
from shm.histogram import Distribution
from tests.feed_house import INSTRUMENTS, MIDNIGHT_NS, START_TSC, FeedHouse, feed_house, only
from tests.itch_flow import Flow, end_of_session, frame, heartbeat, in_packets, packet, unframe
from tests.ports import free_port

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "itch"
AAPL = DATA / "aapl_20190130_093000.itch"

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")

HEAD: dict[str, Value] = {"locate": 3, "tracking": 0, "timestamp": 34_200_000_000_007}
TS_NS = MIDNIGHT_NS + 34_200_000_000_007


@pytest.fixture
def house() -> Iterator[FeedHouse]:
    with feed_house() as made:
        yield made


def add(ref: int, side: str, shares: int, px: int, **other: Value) -> bytes:
    return itch.ADD_ORDER.encode(**HEAD | {"ref": ref, "side": side, "shares": shares, "stock": "ABC", "px": px} | other)


def delete(ref: int, **other: Value) -> bytes:
    return itch.ORDER_DELETE.encode(**HEAD | {"ref": ref} | other)


def action(state: str, **other: Value) -> bytes:
    return itch.TRADING_ACTION.encode(**HEAD | {"stock": "ABC", "state": state, "reserved": "", "reason": "LUDP"} | other)


def event(code: str) -> bytes:
    return itch.SYSTEM_EVENT.encode(**HEAD | {"locate": 0, "event": code})


def listing(locate: int, stock: str) -> bytes:
    return itch.STOCK_DIRECTORY.encode(
        locate=locate, tracking=0, timestamp=7, stock=stock, market_category="Q", financial_status="N", round_lot_size=40,
        round_lots_only="N", issue_classification="C", issue_subtype="Z", authenticity="P", short_sale_threshold="N", ipo_flag="N",
        luld_tier="1", etp_flag="N", etp_leverage=0, inverse="N",
    )  # fmt: skip


TOUCH = ("bid_px", "bid_sz", "ask_px", "ask_sz")


# What each message publishes.


def test_a_quote_for_every_change_of_the_best_bid_and_offer_and_for_nothing_else(house: FeedHouse) -> None:
    steps = [
        (add(1, "B", 300, 1_000_000), [(1_000_000, 300, 0, 0)]),
        (add(2, "S", 100, 1_000_300), [(1_000_000, 300, 1_000_300, 100)]),
        (add(3, "B", 50, 999_900), []),
        (add(4, "B", 50, 1_000_000), [(1_000_000, 350, 1_000_300, 100)]),
        (itch.ORDER_CANCEL.encode(**HEAD, ref=1, shares=100), [(1_000_000, 250, 1_000_300, 100)]),
        (delete(3), []),
        (itch.ORDER_REPLACE.encode(**HEAD, ref=2, new_ref=5, shares=70, px=1_000_200), [(1_000_000, 250, 1_000_200, 70)]),
        (itch.ORDER_REPLACE.encode(**HEAD, ref=5, new_ref=6, shares=70, px=1_000_200), []),
        (delete(6), [(1_000_000, 250, 0, 0)]),
    ]
    for sequence, (raw, quotes) in enumerate(steps, 1):
        ticks = house.send(packet(sequence, [raw]))
        assert [(tick["is"], *(tick[name] for name in TOUCH)) for tick in ticks] == [("quote", *quote) for quote in quotes]
        assert [(tick["flags"], tick["instrument"], tick["ts_ns"], tick["origin_tsc"], tick["age_tsc"]) for tick in ticks] == [
            (BOOK_VALID, 3, TS_NS, START_TSC, 0) for _ in quotes
        ]
        if quotes:
            assert house.quote_line(3) == dict(zip(("flags", *TOUCH), (BOOK_VALID, *quotes[-1]), strict=True))
    assert house.counted()["quotes"] == 6
    assert house.control.feed_sequence == len(steps) + 1


def test_a_replacement_that_cannot_be_added_still_takes_the_old_order_away(house: FeedHouse) -> None:
    house.send(packet(1, [add(1, "B", 10, 1_000_100), add(2, "B", 20, 1_000_000)]))
    ticks = house.send(packet(3, [itch.ORDER_REPLACE.encode(**HEAD, ref=1, new_ref=2, shares=5, px=1_000_200)]))
    assert only(ticks, "quote", "bid_px", "bid_sz", "flags") == [(1_000_000, 20, BOOK_SUSPECT)]
    assert only(ticks, "status", "instrument", "flags") == [(3, BOOK_SUSPECT)]
    assert house.counted()["duplicate_orders"] == 1


def test_trades_of_every_kind(house: FeedHouse) -> None:
    messages = [
        add(1, "B", 300, 1_000_000),
        add(2, "S", 300, 1_000_300),
        itch.ORDER_EXECUTED.encode(**HEAD, ref=1, shares=100, match=11),
        itch.ORDER_EXECUTED_PRICE.encode(**HEAD, ref=2, shares=20, match=12, printable="Y", px=1_000_250),
        itch.ORDER_EXECUTED_PRICE.encode(**HEAD, ref=2, shares=30, match=13, printable="N", px=1_000_260),
        itch.TRADE.encode(**HEAD, ref=0, side="B", shares=44, stock="ABC", px=1_000_100, match=14),
        itch.CROSS_TRADE.encode(**HEAD, shares=5_000_000_000, stock="ABC", px=1_000_050, match=15, cross="O"),
        itch.CROSS_TRADE.encode(**HEAD, shares=0, stock="ABC", px=0, match=16, cross="C"),
        itch.BROKEN_TRADE.encode(**HEAD, match=11),
    ]
    ticks = house.send(packet(1, messages))
    assert only(ticks, "trade", "px", "qty", "match_id", "side", "printable", "cross") == [
        (1_000_000, 100, 11, BUY, 1, 0),
        (1_000_250, 20, 12, SELL, 1, 0),
        (1_000_260, 30, 13, SELL, 0, 0),
        (1_000_100, 44, 14, 0, 1, 0),
        (1_000_050, 5_000_000_000, 15, 0, 1, ord("O")),
    ]
    # A trade comes before the quote that it leaves behind.
    assert [tick["is"] for tick in ticks] == ["quote", "quote", *["trade", "quote"] * 3, "trade", "trade"]
    assert house.counted()["trades"] == 5
    assert house.stage is not None
    assert int(house.stage.state.decoder.market[0]["broken_match"]) == 11


def test_the_directory_goes_to_the_ring_and_its_board(house: FeedHouse) -> None:
    ticks = house.send(packet(1, [listing(3, "ABC"), listing(4, "WXYZ.A")]))
    fields = ("instrument", "symbol", "lot_qty", "px_decimals", "tick_px")
    assert only(ticks, "instrument", *fields) == [(3, pack_symbol("ABC"), 40, 4, 100), (4, pack_symbol("WXYZ.A"), 40, 4, 100)]
    for tick in ticks:
        line = house.instruments.records[tick["instrument"]]
        assert {name: int(line[name]) for name in fields} == {name: tick[name] for name in fields}
        assert line["sequence"] == 2
    assert house.counted()["instruments"] == 2


def test_only_symbols_that_are_asked_for_are_published_and_books_are_kept_of_all() -> None:
    with feed_house(symbols=["WXYZ", "NONE"]) as house:
        messages = [listing(3, "ABC"), listing(4, "WXYZ")]
        messages += [add(locate, "B", 100, 1_000_000, locate=locate) for locate in (3, 4, 5)]
        messages += [action("H"), action("H", locate=4), itch.TRADE.encode(**HEAD, ref=0, side="B", shares=1, stock="A", px=1, match=1)]
        ticks = house.send(packet(1, messages))
        assert [(tick["is"], tick["instrument"]) for tick in ticks] == [("instrument", 4), ("quote", 4), ("status", 4)]
        assert house.stage is not None
        assert house.stage.unseen_symbols() == ["NONE"]
        book = house.stage.state.decoder.book
        assert [int(book.sides["count"][2 * locate]) for locate in (3, 4, 5)] == [1, 1, 1]


def test_a_locate_code_that_is_another_symbols_in_the_next_session_is_published_only_where_that_is_asked_for() -> None:
    with feed_house(symbols=["WXYZ"]) as house:
        house.send(packet(1, [listing(3, "ABC"), listing(4, "WXYZ"), add(1, "B", 10, 1_000_000, locate=4)]), end_of_session(4))
        messages = [listing(4, "ABC"), listing(3, "WXYZ"), *[add(ref, "S", 7, 1_000_100, locate=ref) for ref in (3, 4)]]
        house.send(packet(1, messages[:1], session="TEST000002"))
        ticks = house.send(packet(2, messages[1:], session="TEST000002"))
        assert only(ticks, "instrument", "instrument") == [3]
        assert set(only(ticks, "quote", "instrument")) == {3}
        assert house.quote_line(3)["ask_sz"] == 7


def test_levels_rebuild_the_depth_of_the_book() -> None:
    flow = Flow(21)
    with feed_house(publish_levels=True) as house:
        depth: dict[tuple[int, int, int], tuple[int, int]] = {}
        messages = flow.opening() + flow.messages(1_500)
        for raw in in_packets(messages, flow.rng):
            for tick in house.send(raw):
                if tick["is"] == "level":
                    depth[tick["instrument"], tick["side"], tick["px"]] = (tick["qty"], tick["orders"])
        assert {place: rests for place, rests in depth.items() if rests[0]} == book_levels(house)
        assert depth.keys() - book_levels(house).keys(), "no level ever went"
        assert house.counted()["levels"] > 1_000


def book_levels(house: FeedHouse) -> dict[tuple[int, int, int], tuple[int, int]]:
    assert house.stage is not None
    book = house.stage.state.decoder.book
    found = {}
    for instrument in range(INSTRUMENTS):
        for side in (BUY, SELL):
            depth = 0
            while (level := worse_level(book, instrument, side, depth)) >= 0:
                record = book.levels[level]
                found[instrument, side, int(record["px"])] = (int(record["qty"]), int(record["orders"]))
                depth += 1
    return found


# The same ticks whatever the messages come in.


def peer_ticks(messages: list[bytes]) -> tuple[list[tuple[int, ...]], list[tuple[int, ...]]]:
    """itch-book's changes of best bid and offer, without those of the number of orders alone; and its trades."""
    session = Session(tables=["bbo", "trades"], depth=0, symbols=[])
    session.feed(np.frombuffer(frame(messages), np.uint8))
    rows = session.take_bbo()
    known: dict[int, tuple[int, ...]] = {}
    quotes = []
    for row in range(len(rows["locate"])):
        locate, touch = int(rows["locate"][row]), tuple(int(rows[name][row]) for name in TOUCH)
        if known.get(locate, (0,) * 4) != touch:
            quotes.append((locate, *touch))
        known[locate] = touch
    rows = session.take_trades()
    prints = [
        (int(rows["locate"][row]), int(rows["px"][row]), int(rows["size"][row]), int(rows["match"][row]))
        for row in range(len(rows["locate"]))
        if chr(rows["kind"][row]) != "B"
    ]
    return quotes, prints


def assert_peers(ticks: list[dict[str, Any]], messages: list[bytes]) -> None:
    quotes, prints = peer_ticks(messages)
    assert only(ticks, "quote", "instrument", *TOUCH) == quotes
    printed = [tick for tick in ticks if tick["is"] == "trade" and tick["printable"]]
    assert only(printed, "trade", "instrument", "px", "qty", "match_id") == prints
    assert len(quotes) > 100
    assert len(prints) > 10


def flow_without_other_symbols(seed: int, count: int) -> list[bytes]:
    """A flow whose trades and crosses have a quantity: itch-book also tells of those that have none."""
    flow = Flow(seed, symbols=4, first_ref=1 << 26)
    found = flow.opening()
    while len(found) < count:
        raw = flow.next()
        message = itch.BY_CODE[raw[0]]
        if message not in (itch.TRADE, itch.CROSS_TRADE) or message.decode(raw)["shares"]:
            found.append(raw)
    return found


@pytest.mark.parametrize("seed", [31, 32])
def test_packets_give_what_itch_book_gives(seed: int) -> None:
    print(f"seed={seed}")
    messages = flow_without_other_symbols(seed, 2_500)
    with feed_house() as house:
        ticks = house.send(*in_packets(messages, random.Random(seed), most=60))
        assert_peers(ticks, messages)
        assert house.counted()["messages"] == len(messages)
        assert {"lost", "gaps", "malformed", "ring_waits"} & house.counted().keys() == set()
        assert house.stage is not None
        check_invariants(house.stage.state.decoder.book)


@pytest.mark.parametrize("zipped", [False, True])
def test_a_file_gives_what_itch_book_gives(tmp_path: Path, zipped: bool) -> None:
    messages = flow_without_other_symbols(33, 3_000)
    path = tmp_path / ("day.itch.gz" if zipped else "day.itch")
    path.write_bytes(gzip.compress(frame(messages)) if zipped else frame(messages))
    with feed_house(source="file", path=path) as house:
        ticks = all_of_a_file(house)
        assert_peers(ticks, messages)
        assert house.counted()["messages"] == len(messages)
        assert house.counted()["bytes"] == len(frame(messages))
        assert house.control.feed_sequence == len(messages) + 1
        assert house.counted()["ends_of_session"] == 1
        assert "malformed" not in house.counted()


def test_nobody_is_asked_about_a_file(tmp_path: Path) -> None:
    """Whatever is missing in it, or contradicts it, the servers of a config are another day's."""
    path = tmp_path / "day.itch"
    path.write_bytes(frame([listing(1, "ABC"), add(1, "B", 1, 1_000_000), itch.ORDER_DELETE.encode(**HEAD, ref=99)]))
    recovery = Recovery(rewind=[("127.0.0.1", 9)], snapshot=("127.0.0.1", 9))
    with feed_house(source="file", path=path, recovery=recovery) as house:
        all_of_a_file(house)
        assert house.turn() >= 0
        assert house.counted()["suspects"] == 1
        assert int(house.lines_table.records["requests"].sum()) == 0


def all_of_a_file(house: FeedHouse) -> list[dict[str, Any]]:
    ticks = []
    while not house.control.feed_ended:
        done = house.turn()
        assert done >= 0, house.reason(done)
        ticks += house.read()
        if done == 0:
            os.sched_yield()  # The thread that unzips may need the CPU.
    return ticks + house.read()


@needs_data
def test_the_real_file_through_file_and_socket() -> None:
    messages = unframe(AAPL.read_bytes())
    with feed_house(source="file", path=AAPL) as from_file, feed_house() as from_socket:
        first = all_of_a_file(from_file)
        second = from_socket.send(*in_packets(messages, random.Random(1), most=38))
        assert_peers(first, messages)
        assert first == second
        assert from_file.stage is not None
        counts = from_file.stage.counts_by_type
        assert counts == {"A": 7519, "F": 109, "E": 729, "C": 17, "X": 6, "D": 1237, "U": 437, "S": 1, "R": 1}
        assert only(first, "instrument", "symbol") == [pack_symbol("AAPL")]


def test_packets_that_wait_in_the_socket_are_all_taken(house: FeedHouse) -> None:
    for number in range(200):
        house.sender.sendto(packet(1 + number, [add(number, "B", 1, 1_000_000 + number)]), house.address)
    assert len(house.settle()) == 200
    assert house.counted()["packets"] == 200


# Sequence numbers.


def test_a_gap_is_counted_and_every_book_is_stale_from_then_on(house: FeedHouse) -> None:
    opening = [listing(3, "ABC"), listing(4, "WXYZ"), add(1, "B", 10, 1_000_000), add(2, "B", 10, 1_000_000, locate=4)]
    house.send(packet(1, opening))
    assert house.quote_line(4)["flags"] == BOOK_VALID
    ticks = house.send(packet(10, [add(3, "B", 10, 1_000_100)]))
    assert only(ticks, "quote", "flags", "bid_px") == [(BOOK_GAPPED, 1_000_100)]
    assert only(ticks, "status", "instrument", "flags", "lost", "feed_sequence") == [(3, BOOK_GAPPED, 0, 5), (4, BOOK_GAPPED, 0, 5)]
    assert house.quote_line(4) == {"flags": BOOK_GAPPED, "bid_px": 1_000_000, "bid_sz": 10, "ask_px": 0, "ask_sz": 0}
    assert {name: house.counted()[name] for name in ("gaps", "lost", "invalidated")} == {"gaps": 1, "lost": 5, "invalidated": 2}
    ticks = house.send(packet(11, [add(4, "B", 10, 1_000_200)]), packet(14, [event("M")]))
    assert only(ticks, "quote", "flags") == [BOOK_GAPPED]
    assert only(ticks, "status", "instrument", "flags") == [(0, BOOK_GAPPED | BOOK_CLOSED)] + [
        (n, BOOK_GAPPED | BOOK_CLOSED) for n in (3, 4)
    ]
    assert {name: house.counted()[name] for name in ("gaps", "lost", "invalidated")} == {"gaps": 2, "lost": 7, "invalidated": 2}
    assert house.control.feed_sequence == 15


def test_every_known_instrument_hears_of_a_gap_and_no_turn_is_long() -> None:
    with feed_house(ring_capacity=32) as house:
        house.send(*[packet(locate, [listing(locate, f"S{locate}")]) for locate in range(1, INSTRUMENTS)])
        ticks = house.send(heartbeat(500))
        assert only(ticks, "status", "instrument") == list(range(1, INSTRUMENTS))
        assert set(only(ticks, "status", "flags")) == {BOOK_GAPPED}
        assert house.counted()["ring_waits"] > 0
        assert house.counted()["lost"] == 500 - INSTRUMENTS


def test_joining_late_is_a_gap(house: FeedHouse) -> None:
    assert house.send(packet(1_001, [add(1, "B", 10, 1_000_000)])) == []
    ticks = house.send(heartbeat(1_002))
    assert only(ticks, "quote", "flags") == [BOOK_GAPPED]
    assert house.counted()["lost"] == 1_000


def test_a_heartbeat_reveals_a_gap_and_says_nothing_when_there_is_none(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC")]), heartbeat(2), heartbeat(2))
    assert "gaps" not in house.counted()
    ticks = house.send(heartbeat(7))
    assert only(ticks, "status", "flags") == [BOOK_GAPPED]
    assert house.counted()["lost"] == 5
    assert house.counted()["heartbeats"] == 3
    assert house.control.feed_sequence == 7
    house.send(heartbeat(3))
    assert house.counted()["lost"] == 5


def test_what_was_there_before_is_skipped_in_whole_and_in_part(house: FeedHouse) -> None:
    messages = [add(ref, "B", ref, 1_000_000 + ref) for ref in range(1, 7)]
    first = house.send(packet(1, messages[:4]))
    again = house.send(packet(1, messages[:4]), packet(2, messages[1:3]), packet(3, messages[2:6]), packet(1, messages))
    assert only(first + again, "quote", "bid_sz") == [1, 2, 3, 4, 5, 6]
    assert only(again, "quote", "flags") == [BOOK_VALID] * 2
    assert house.counted()["duplicates"] == 4 + 2 + 2 + 6
    assert house.counted()["messages"] == 6
    assert {"gaps", "lost", "malformed"} & house.counted().keys() == set()


def test_a_new_session_begins_with_nothing_of_the_old_one(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC"), add(1, "B", 10, 1_000_000)]), end_of_session(3))
    assert house.control.feed_ended == 1
    first = packet(1, [listing(4, "NEW"), add(1, "S", 7, 1_000_100, locate=4)], session="TEST000002")
    ticks = house.send(first, packet(3, [], session="TEST000002"))
    assert house.control.feed_ended == 0
    assert only(ticks, "quote", "instrument", "flags", *TOUCH) == [(4, BOOK_GAPPED, 0, 0, 1_000_100, 7), (3, BOOK_VALID, 0, 0, 0, 0)]
    assert house.quote_line(3) == {"flags": BOOK_VALID, "bid_px": 0, "bid_sz": 0, "ask_px": 0, "ask_sz": 0}
    assert house.quote_line(4) == {"flags": BOOK_VALID, "bid_px": 0, "bid_sz": 0, "ask_px": 1_000_100, "ask_sz": 7}
    assert house.counted()["session_changes"] == 1
    assert {"lost", "suspects"} & house.counted().keys() == set()
    assert house.control.feed_sequence == 3


def test_bytes_that_are_not_a_packet_do_not_change_the_session(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC")]))
    house.send(
        os.urandom(0), b"x", b"y" * 19, b"z" * 20, b"GET / HTTP/1.1\r\nHost: example\r\n\r\n", packet(1, [b"abc"], session="OTHER")[:-1]
    )
    assert {name: house.counted().get(name, 0) for name in ("malformed", "session_changes", "gaps")} == {
        "malformed": 6, "session_changes": 0, "gaps": 0,
    }  # fmt: skip
    assert only(house.send(packet(2, [add(1, "B", 10, 1_000_000)])), "quote", "flags") == [BOOK_VALID]


def test_the_end_of_the_session(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC")]))
    assert house.control.feed_ended == 0
    house.send(end_of_session(1))
    assert house.control.feed_ended == 0, "it ended before a message that is there"
    house.send(end_of_session(2), end_of_session(2))
    assert house.control.feed_ended == 1
    assert house.counted()["ends_of_session"] == 1
    assert "lost" not in house.counted()


def test_messages_lost_at_the_very_end_are_counted(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC")]))
    ticks = house.send(end_of_session(12))
    assert house.control.feed_ended == 1
    assert house.counted()["lost"] == 10
    assert only(ticks, "status", "flags") == [BOOK_GAPPED]


def test_what_a_cut_packet_still_holds_is_read_and_the_rest_is_lost_when_the_next_shows_it(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC")]))
    whole = packet(2, [add(ref, "B", ref, 1_000_000 + ref) for ref in (1, 2, 3)])
    ticks = house.send(whole[:-5])
    assert only(ticks, "quote", "bid_sz") == [1, 2]
    assert house.control.feed_sequence == 4
    assert house.counted()["malformed"] == 1
    ticks = house.send(packet(5, [add(4, "B", 4, 1_000_004)]))
    assert only(ticks, "quote", "bid_sz", "flags") == [(4, BOOK_GAPPED)]
    assert {name: house.counted()[name] for name in ("gaps", "lost", "malformed")} == {"gaps": 1, "lost": 1, "malformed": 1}


@pytest.mark.parametrize("count", [0, 1, 3, END_OF_SESSION - 1])
def test_a_count_that_is_not_that_of_the_messages(house: FeedHouse, count: int) -> None:
    house.send(packet(1, [add(1, "B", 1, 1_000_000)]))
    house.send(packet(2, [add(2, "B", 1, 1_000_000), add(3, "B", 1, 1_000_000)], count=count))
    read = min(count, 2)
    assert house.control.feed_sequence == 2 + read
    assert house.counted()["messages"] == 1 + read
    if count:
        assert house.counted()["malformed"] == 1


def test_a_packet_larger_than_any_is_cut_and_counted(house: FeedHouse) -> None:
    house.send(packet(1, [event("O")]))
    ticks = house.send(packet(2, [add(ref, "B", ref, 1_000_000 + ref) for ref in range(1, 301)]))
    assert len(only(ticks, "quote", "bid_sz")) == (9216 - 20) // 38
    assert house.counted()["malformed"] == 1


def test_a_sequence_that_is_no_number_of_a_message(house: FeedHouse) -> None:
    for sequence in (0, (1 << 63) + 5, (1 << 63) - 5):
        house.send(packet(sequence, [add(1, "B", 1, 1_000_000)]))
    assert house.counted() == {"packets": 3, "bytes": 3 * 58, "malformed": 3}


# Whatever comes: one house for all examples, since nothing that a packet holds may break it for the next.

SESSIONS = st.sampled_from(["TEST000001", "TEST000002"])
MESSAGES = st.lists(st.binary(max_size=50) | st.sampled_from([add(1, "B", 1, 100), delete(1), event("Q"), action("H"), b""]), max_size=6)
PACKETS = st.builds(
    lambda sequence, messages, session, count, cut, tail: packet(sequence, messages, session=session, count=count)[: -cut or None] + tail,
    st.integers(0, 200) | st.integers(0, (1 << 64) - 1),
    MESSAGES,
    SESSIONS,
    st.none() | st.integers(0, 8) | st.just(END_OF_SESSION),
    st.integers(0, 30),
    st.binary(max_size=4),
)


def session_of(house: FeedHouse) -> tuple[int, ...]:
    """The name of the feed's session, and how many there were before it."""
    assert house.stage is not None
    return (*house.stage.words[[SESSION_HIGH, SESSION_LOW]].tolist(), house.counted().get("session_changes", 0))


@settings(max_examples=150, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow])
@given(st.lists(PACKETS | st.binary(max_size=100), max_size=8))
def test_any_packets_are_survived_and_accounted_for(house: FeedHouse, packets: list[bytes]) -> None:
    assert house.stage is not None
    words = house.stage.words
    before, session, expected = house.counted(), session_of(house), int(words[EXPECTED])
    house.send(*packets)
    after = house.counted()
    assert after.get("packets", 0) - before.get("packets", 0) == len(packets)
    assert after.get("bytes", 0) - before.get("bytes", 0) == sum(map(len, packets))
    if session_of(house) == session:
        moved = int(words[EXPECTED]) - expected
        read = after.get("messages", 0) - before.get("messages", 0)
        assert moved == read + after.get("lost", 0) - before.get("lost", 0)
    check_invariants(house.stage.state.decoder.book)


@needs_data
@pytest.mark.parametrize("path", sorted((DATA / "pcap").glob("*.pcap")), ids=lambda path: path.stem)
def test_real_packets(house: FeedHouse, path: Path) -> None:
    payloads = udp_payloads(path.read_bytes())
    messages = [message for raw in payloads for message in unframe(raw[20:])]
    for raw in payloads:
        after = int.from_bytes(raw[10:18], "big") + int.from_bytes(raw[18:20], "big")
        house.send(raw, packet(after, [], session=raw[:10].decode()))
    assert house.stage is not None
    counts = house.stage.counts_by_type
    assert sum(counts.values()) == house.counted()["messages"] == len(messages)
    assert counts == {chr(code): [raw[0] for raw in messages].count(code) for code in {raw[0] for raw in messages}}
    assert all(len(raw) == itch.BY_CODE[raw[0]].length for raw in messages)
    first = int.from_bytes(payloads[0][10:18], "big")
    assert house.counted()["lost"] >= first - 1
    assert {"malformed", "unknown_types"} & house.counted().keys() == set()
    if path.stem.startswith("Multiple"):
        assert max(len(unframe(raw[20:])) for raw in payloads) == 38


def udp_payloads(raw: bytes) -> list[bytes]:
    """The payloads of UDP packets over IPv4 over Ethernet, with a VLAN tag or without, in a pcap file."""
    found = []
    at = 24
    while at < len(raw):
        (size,) = struct.unpack_from("<I", raw, at + 8)
        captured = raw[at + 16 : at + 16 + size]
        ip = 18 if captured[12:14] == b"\x81\x00" else 14
        udp = ip + (captured[ip] & 15) * 4
        (length,) = struct.unpack_from(">H", captured, udp + 4)
        found.append(captured[udp + 8 : udp + length])
        at += 16 + size
    return found


# Whether a book may be acted on.


def flags_after(house: FeedHouse, sequence: int, *messages: bytes) -> int:
    house.send(packet(sequence, list(messages)))
    return house.quote_line(3)["flags"]


def test_a_halted_book_is_kept_and_not_valid_until_it_trades_again(house: FeedHouse) -> None:
    assert flags_after(house, 1, add(1, "B", 10, 1_000_000)) == BOOK_VALID
    for sequence, state in enumerate("HPQ", 2):
        ticks = house.send(packet(sequence, [action(state)]))
        assert only(ticks, "status", "flags", "state", "instrument", "ts_ns") == [(BOOK_HALTED, ord(state), 3, TS_NS)]
        assert house.quote_line(3) == {"flags": BOOK_HALTED, "bid_px": 1_000_000, "bid_sz": 10, "ask_px": 0, "ask_sz": 0}
    assert flags_after(house, 5, add(2, "B", 10, 1_000_100)) == BOOK_HALTED
    assert flags_after(house, 6, action("T")) == BOOK_VALID
    assert house.quote_line(3)["bid_px"] == 1_000_100


def test_an_operational_halt_lasts_until_its_market_lifts_it(house: FeedHouse) -> None:
    def halt(market: str, what: str) -> bytes:
        return itch.OPERATIONAL_HALT.encode(**HEAD, stock="ABC", market_code=market, action=what)

    assert flags_after(house, 1, halt("Q", "H")) == BOOK_HALTED
    assert flags_after(house, 2, halt("B", "T")) == BOOK_HALTED
    assert flags_after(house, 3, action("T")) == BOOK_HALTED
    assert flags_after(house, 4, halt("Q", "T")) == BOOK_VALID


def test_a_crossed_or_locked_book_is_not_valid(house: FeedHouse) -> None:
    assert flags_after(house, 1, add(1, "B", 10, 1_000_000), add(2, "S", 10, 1_000_100)) == BOOK_VALID
    assert flags_after(house, 2 + 1, add(3, "B", 10, 1_000_100)) == BOOK_CROSSED
    assert flags_after(house, 4, add(4, "B", 10, 1_000_200)) == BOOK_CROSSED
    assert flags_after(house, 5, delete(4), delete(3)) == BOOK_VALID


def test_outside_market_hours_no_book_is_valid(house: FeedHouse) -> None:
    assert flags_after(house, 1, event("O"), listing(3, "ABC"), add(1, "B", 10, 1_000_000)) == BOOK_VALID
    for sequence, code in enumerate("SQMEC", 4):
        ticks = house.send(packet(sequence, [event(code)]))
        told = only(ticks, "status", "instrument", "session_event")
        assert told[0] == (0, ord(code))
        assert told[1:] == ([(3, ord(code))] if code == "M" else [])
        assert house.quote_line(3)["flags"] == (BOOK_VALID if code in "SQ" else BOOK_CLOSED)
    assert flags_after(house, 9, add(2, "B", 10, 1_000_100)) == BOOK_CLOSED


def test_a_book_that_an_order_found_no_room_in_says_so() -> None:
    with feed_house(orders_max=3) as house:
        assert flags_after(house, 1, *[add(ref, "B", 10, 1_000_000) for ref in (1, 2, 3)]) == BOOK_VALID
        ticks = house.send(packet(4, [add(4, "B", 10, 1_000_000)]))
        assert only(ticks, "quote", "flags", "bid_sz") == [(BOOK_OVERFLOW, 30)]
        assert flags_after(house, 5, delete(1)) == BOOK_OVERFLOW
        assert house.counted()["capacity_drops"] == 1


def test_reasons_add_up(house: FeedHouse) -> None:
    house.send(packet(1, [listing(3, "ABC"), add(1, "B", 10, 1_000_000), add(2, "S", 10, 1_000_000), action("H"), event("M")]))
    house.send(heartbeat(100))
    assert house.quote_line(3)["flags"] == BOOK_GAPPED | BOOK_CROSSED | BOOK_HALTED | BOOK_CLOSED


# Backpressure.


@pytest.mark.parametrize("capacity", [4, 8, 64])
def test_a_ring_that_is_full_loses_nothing(capacity: int) -> None:
    """A reader that takes a few ticks at a time, and a feed handler that must stop in the middle of packets."""
    flow = Flow(41)
    messages = flow.opening() + flow.messages(600)
    packets = list(in_packets(messages, random.Random(41), most=30))
    with feed_house(publish_levels=True) as roomy, feed_house(publish_levels=True, ring_capacity=capacity) as tight:
        for raw in packets:
            tight.sender.sendto(raw, tight.address)
        assert without_sequence(tight.settle()) == without_sequence(roomy.send(*packets))
        assert tight.counted()["ring_waits"] > len(messages) / capacity / 2
        ours, theirs = tight.counted(), roomy.counted()
        ours.pop("ring_waits")
        assert ours == theirs
        assert tight.control.feed_sequence == roomy.control.feed_sequence == len(messages) + 1


def without_sequence(ticks: list[dict[str, Any]]) -> list[dict[str, Any]]:
    return [tick | {"sequence": 0} for tick in ticks]


def test_the_feed_sequence_counts_a_packet_when_all_its_ticks_are_out() -> None:
    with feed_house(ring_capacity=4) as house:
        house.sender.sendto(packet(1, [add(ref, "B", ref, 1_000_000 + ref) for ref in range(1, 9)]), house.address)
        seen = []
        while house.turn():
            seen.append((int(house.control.feed_sequence), len(house.read())))
        assert [sequence for sequence, _ in seen[:-1]] == [0] * (len(seen) - 1)
        assert seen[-1][0] == 9
        assert sum(count for _, count in seen) == 8


# The socket.


def test_the_receive_buffer_is_what_was_asked_for_or_what_the_system_gives(house: FeedHouse) -> None:
    limit = int(Path("/proc/sys/net/core/rmem_max").read_text())
    assert house.stage is not None
    assert house.stage.receive_buffer_bytes == (4 << 20 if os.geteuid() == 0 else min(4 << 20, limit))


def test_packets_that_the_kernel_drops_are_counted_and_are_a_gap() -> None:
    with feed_house(receive_buffer_bytes=8192) as house:
        for number in range(300):
            house.sender.sendto(packet(1 + number, [add(number, "B", 1, 1_000_000)]), house.address)
        house.settle()
        house.send(packet(301, [delete(0)]))
        counted = house.counted()
        assert counted["lost"] == counted["socket_drops"] > 0
        assert counted["messages"] + counted["lost"] == 301


def test_a_multicast_group_is_joined() -> None:
    group = "239.81.7.64"
    with feed_house(address=(group, port := free_port()), interface="127.0.0.1") as house:
        house.sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        house.address = (group, port)
        assert only(house.send(packet(1, [add(1, "B", 10, 1_000_000)])), "quote", "bid_sz") == [10]


def test_the_first_hop_is_measured_on_the_real_clock(house: FeedHouse) -> None:
    house.clock = calibrate(1_000_000).clock()
    ticks = house.send(*[packet(number, [add(number, "B", 1, 1_000_000 + number)]) for number in range(1, 51)])
    hop = Distribution.of(house.hops.words()[0])
    assert hop.count == 50
    assert 0 < hop.minimum <= hop.percentile(50) <= hop.maximum
    assert hop.total == sum(only(ticks, "quote", "age_tsc"))
    origins = only(ticks, "quote", "origin_tsc")
    assert origins == sorted(origins)


def test_the_origin_of_all_ticks_of_a_packet_is_when_it_was_received(house: FeedHouse) -> None:
    for number in (1, 2):
        house.clock.words[NOW] = START_TSC + number
        ticks = house.send(packet(2 * number - 1, [add(2 * number, "B", 1, 1_000_000 + number), add(2 * number + 1, "S", 1, 2_000_000)]))
        assert set(only(ticks, "quote", "origin_tsc")) == {START_TSC + number}


# Files.


@needs_data
def test_a_file_that_ends_inside_a_message() -> None:
    with feed_house(source="file", path=DATA / "truncated_head.itch", instruments_max=INSTRUMENTS) as house:
        all_of_a_file(house)
        assert house.counted()["messages"] == 101
        assert house.counted()["malformed"] == 1
        assert house.stage is not None
        assert house.stage.left_over_bytes == 15
        assert house.turn() == 0


@pytest.mark.parametrize("tail", [b"", b"\0", b"\0\x13", b"\0\x13D12345"])
def test_every_byte_of_a_file_is_read_or_left_over(tmp_path: Path, tail: bytes) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(frame([add(1, "B", 10, 1_000_000)]) + tail)
    with feed_house(source="file", path=path) as house:
        all_of_a_file(house)
        assert house.stage is not None
        assert house.stage.left_over_bytes == len(tail)
        assert house.counted().get("malformed", 0) == bool(tail)
        assert house.counted()["messages"] == 1


def test_an_empty_frame_ends_a_file(tmp_path: Path) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(frame([add(1, "B", 10, 1_000_000), b"", add(2, "B", 10, 1_000_100)]))
    with feed_house(source="file", path=path) as house:
        assert only(all_of_a_file(house), "quote", "bid_px") == [1_000_000]
        assert house.counted()["ends_of_session"] == 1


def test_an_empty_file_ends_at_once(tmp_path: Path) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(b"")
    with feed_house(source="file", path=path) as house:
        assert all_of_a_file(house) == []
        assert house.control.feed_ended == 1


def test_a_file_of_many_buffers_with_messages_across_their_ends(tmp_path: Path) -> None:
    """About 11 MB of messages of lengths that no buffer size is a multiple of."""
    rng = random.Random(51)
    messages = [b"?" * rng.choice([1, 499, 4_999, 65_535]) for _ in range(600)]
    path = tmp_path / "day.itch.gz"
    path.write_bytes(gzip.compress(frame(messages), 1))
    with feed_house(source="file", path=path) as house:
        all_of_a_file(house)
        assert house.counted()["messages"] == house.counted()["unknown_types"] == len(messages)
        assert house.counted()["bytes"] == len(frame(messages))


@pytest.mark.parametrize("keep", [20, 0.5, -9, -4])
def test_gzip_that_is_cut_short_is_an_error_that_says_so(tmp_path: Path, keep: float) -> None:
    raw = gzip.compress(frame(Flow(52).messages(3_000)))
    path = tmp_path / "day.itch.gz"
    path.write_bytes(raw[: int(len(raw) * keep) if isinstance(keep, float) else keep])
    with feed_house(source="file", path=path) as house:
        reason = end_of(house)
        assert reason == UNZIPPING_FAILED
        assert "day.itch.gz" in house.reason(reason)
        assert "damaged or cut short" in house.reason(reason)
        assert house.control.feed_ended == 0


def test_damaged_gzip_is_an_error_that_says_so(tmp_path: Path) -> None:
    raw = bytearray(gzip.compress(frame(Flow(53).messages(3_000))))
    raw[len(raw) // 2] ^= 0xFF
    path = tmp_path / "day.itch.gz"
    path.write_bytes(raw)
    with feed_house(source="file", path=path) as house:
        assert end_of(house) == UNZIPPING_FAILED


def end_of(house: FeedHouse) -> int:
    deadline = time.monotonic() + 20
    while True:
        done = house.turn()
        house.read()
        if done < 0:
            return done
        assert not house.control.feed_ended, "it ended as if all were well"
        assert time.monotonic() < deadline
        os.sched_yield()


def test_closing_in_the_middle_of_a_zipped_file_leaves_no_thread(tmp_path: Path) -> None:
    path = tmp_path / "day.itch.gz"
    path.write_bytes(gzip.compress(os.urandom(8 << 20), 1))
    with feed_house(source="file", path=path) as house:
        assert house.stage is not None
        thread = house.stage.file._thread
    assert thread is not None
    assert not thread.is_alive()


def test_a_file_that_cannot_be_read_any_more(tmp_path: Path) -> None:
    path = tmp_path / "day.itch"
    path.write_bytes(b"")
    with feed_house(source="file", path=path) as house:
        assert house.stage is not None
        house.stage.words[FD] = os.open(tmp_path, os.O_RDONLY)
        assert house.turn() == READ_FAILED
        os.close(int(house.stage.words[FD]))
        house.stage.words[FD] = house.stage.file.fd


@pytest.mark.parametrize(
    ("options", "problem"),
    [
        ({"source": "tcp"}, "feed source='tcp': expected 'udp', 'file' or 'pcap'"),
        ({"source": "file", "path": "missing.itch"}, "missing.itch"),
        ({"source": "file", "path": "/"}, "it is a directory"),
        ({"address": ("192.0.2.1", 26400)}, "feed address=192.0.2.1:26400 .* cannot receive there"),
        ({"instruments_max": INSTRUMENTS + 1}, f"lines={INSTRUMENTS}, expected one for each of {INSTRUMENTS + 1} instruments"),
        ({"ring_capacity": 2}, "capacity=2, expected at least 4"),
        ({"symbols": ["TOOLONGSYMBOL"]}, "symbol='TOOLONGSYMBOL'"),
        ({"orders_max": 0}, "orders_max=0: expected 1 to"),
    ],
)
def test_what_cannot_be_used_is_named(options: dict[str, Any], problem: str) -> None:
    with pytest.raises((ValueError, OSError), match=problem):
        FeedHouse(**options)


def test_a_file_that_is_not_gzip_though_its_name_says_so(tmp_path: Path) -> None:
    path = tmp_path / "day.itch.gz"
    path.write_bytes(frame([event("O")]))
    with pytest.raises(ValueError, match=r"day.itch.gz: expected gzip"):
        FeedHouse(source="file", path=path)


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_the_step_that_is_compiled_calls_no_allocator(house: FeedHouse) -> None:
    assert house.stage is not None
    fresh = njit(_nrt=False)(step.py_func)
    assert fresh(house.stage.state, house.clock) == 0
    (text,) = fresh.inspect_llvm().values()
    assert "NRT_Allocate" not in text
    assert "NRT_incref" not in text
