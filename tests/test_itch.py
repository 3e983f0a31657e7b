"""The ITCH decoder: every message type of the specification, books equal to itch-book's, and input that is not ITCH."""

import csv
import gzip
import os
import random
import subprocess
import sys
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from itch_book._core import Session

from engine.book.book import check_invariants
from engine.book.hot.book import ORDERS_LIVE, best_level, find_order, tell_flags, told_flags, worse_level
from engine.feed import itch
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.hot.orders import CHANGED, DIVERGED, NOTHING, OVERFLOWED, apply_order
from engine.feed.hot.replay import INTERRUPTED_TICKS, decode_only, look_ticks, replay, replay_timed, walk_frames
from engine.feed.records import records
from engine.layout import BOOK_VALID, BUY, FEED_STATS, SELL, pack_symbol
from engine.wire.table import Message, Value
from tests.itch_flow import Flow, frame, random_message, unframe

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "itch"
AAPL = DATA / "aapl_20190130_093000.itch"
BOOK10 = DATA / "aapl_20190130_093000.book10.csv.gz"
AAPL_LOCATE = 14
# Later, orders that rested before the file begins are missing in it: first far from the touch, in the end at it.
TEN_LEVELS_EXACT_TO = 3_138
BEST_EXACT_TO = 9_430

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")


def decoder(instruments: int = 32, orders: int = 20_000) -> Decoder:
    return make_decoder(orders_max=orders, levels_max=orders, instruments_max=instruments, stats=records(1, FEED_STATS))


def feed(into: Decoder, raw: bytes) -> int:
    """Decode framed bytes: how many of them were whole messages."""
    return replay(into, np.frombuffer(raw, np.uint8), 0, len(raw))


def counted(of: Decoder) -> dict[str, int]:
    return {name: int(of.stats[0][name]) for name in FEED_STATS.names or () if of.stats[0][name]}


def touch(of: Decoder, instrument: int) -> tuple[int, ...]:
    """(bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct), an empty side as zeros."""
    found: list[int] = []
    for side in (BUY, SELL):
        level = best_level(of.book, instrument, side)
        record = of.book.levels[level]
        found += [int(record["px"]), int(record["qty"]), int(record["orders"])] if level >= 0 else [0, 0, 0]
    return tuple(found)


def big_endian(text: Value, length: int) -> int:
    return int.from_bytes(str(text).encode().ljust(length), "big")


def letter(text: Value) -> int:
    return ord(str(text))


# Of each type: where every one of its fields (but the header) is after decoding. A field that has no place is in IGNORED, with the reason.
STATES: dict[Message, dict[str, tuple[str, Any]]] = {
    itch.STOCK_DIRECTORY: {
        "stock": ("symbol", lambda value: pack_symbol(str(value))),
        "market_category": ("market_category", letter),
        "financial_status": ("financial_status", letter),
        "round_lot_size": ("lot_qty", int),
        "round_lots_only": ("round_lots_only", letter),
        "issue_classification": ("issue_classification", letter),
        "issue_subtype": ("issue_subtype", lambda value: big_endian(value, 2)),
        "authenticity": ("authenticity", letter),
        "short_sale_threshold": ("short_sale_threshold", letter),
        "ipo_flag": ("ipo_flag", letter),
        "luld_tier": ("luld_tier", letter),
        "etp_flag": ("etp_flag", letter),
        "etp_leverage": ("etp_leverage", int),
        "inverse": ("inverse", letter),
    },
    itch.TRADING_ACTION: {"reason": ("action_reason", lambda value: big_endian(value, 4))},
    itch.REG_SHO: {"action": ("reg_sho", letter)},
    itch.RETAIL_INTEREST: {"interest": ("retail_interest", letter)},
    itch.IPO_QUOTING_PERIOD: {"release_time": ("ipo_release_s", int), "qualifier": ("ipo_qualifier", letter), "px": ("ipo_px", int)},
    itch.LULD_COLLAR: {
        "reference_px": ("luld_reference_px", int),
        "upper_px": ("luld_upper_px", int),
        "lower_px": ("luld_lower_px", int),
        "extension": ("luld_extension", int),
    },
    itch.NET_ORDER_IMBALANCE: {
        "paired": ("noii_paired", int),
        "imbalance": ("noii_imbalance", int),
        "direction": ("noii_direction", letter),
        "far_px": ("noii_far_px", int),
        "near_px": ("noii_near_px", int),
        "reference_px": ("noii_reference_px", int),
        "cross": ("noii_cross", letter),
        "variation": ("noii_variation", letter),
        "timestamp": ("noii_ns", int),
    },
    itch.DIRECT_LISTING: {
        "open_eligible": ("listing_open_eligible", letter),
        "minimum_px": ("listing_minimum_px", int),
        "maximum_px": ("listing_maximum_px", int),
        "near_execution_px": ("listing_near_px", int),
        "near_execution_time": ("listing_near_ns", int),
        "lower_collar_px": ("listing_lower_px", int),
        "upper_collar_px": ("listing_upper_px", int),
    },
}
MARKET: dict[Message, dict[str, tuple[str, Any]]] = {
    itch.SYSTEM_EVENT: {"event": ("event", letter), "timestamp": ("event_ns", int)},
    itch.MWCB_DECLINE_LEVEL: {name: (f"mwcb_{name}", int) for name in ("level_1", "level_2", "level_3")},
    itch.MWCB_STATUS: {"breached_level": ("mwcb_breached", letter)},
    itch.BROKEN_TRADE: {"match": ("broken_match", int)},
    itch.PARTICIPANT_POSITION: {},
}
IN_TOPS = {itch.TRADING_ACTION, itch.OPERATIONAL_HALT}
# The book's own tests below; trades leave no state, and are tested where they are published (tests/test_feed.py).
ELSEWHERE = {
    itch.ADD_ORDER, itch.ADD_ORDER_MPID, itch.ORDER_EXECUTED, itch.ORDER_EXECUTED_PRICE, itch.ORDER_CANCEL, itch.ORDER_DELETE,
    itch.ORDER_REPLACE, itch.TRADE, itch.CROSS_TRADE,
}  # fmt: skip
# Headers, the symbol (the locate code says it), and what the tables above leave out on purpose.
IGNORED = {"type", "locate", "tracking", "timestamp", "stock", "reserved", "mpid", "primary_market_maker", "mode", "state"}


def test_the_tables_above_cover_the_specification() -> None:
    assert set(itch.MESSAGES) == STATES.keys() | MARKET.keys() | IN_TOPS | ELSEWHERE
    for message, fields in {**STATES, **MARKET}.items():
        assert {field.name for field in message.fields} - IGNORED <= fields.keys() | {"state"}, message.name


@pytest.mark.parametrize("message", itch.MESSAGES, ids=lambda message: message.name)
def test_lengths_are_those_of_the_specification(message: Message) -> None:
    lengths = {
        "S": 12, "R": 39, "H": 25, "Y": 20, "L": 26, "V": 35, "W": 12, "K": 28, "J": 35, "h": 21, "A": 36, "F": 40, "E": 31, "C": 36,
        "X": 23, "D": 19, "U": 35, "P": 44, "Q": 40, "B": 19, "I": 50, "N": 20, "O": 48,
    }  # fmt: skip
    assert message.length == itch.LENGTHS[message.code] == lengths[chr(message.code)]


@pytest.mark.parametrize("message", STATES, ids=lambda message: message.name)
def test_a_message_about_an_instrument_is_remembered(message: Message) -> None:
    rng = random.Random(message.name)
    into = decoder()
    for _ in range(50):
        locate = rng.randrange(32)
        others = into.states.copy()
        raw, values = random_message(message, rng, locate=locate)
        assert feed(into, frame([raw])) == len(raw) + 2
        for name, (place, value) in STATES[message].items():
            assert int(into.states[locate][place]) == value(values[name]), f"{name} in {place}"
        others[locate] = into.states[locate]
        assert (into.states == others).all(), "another instrument changed"
    assert into.counts[message.code] == 50
    assert counted(into).keys() <= {"messages", "instruments"}


@pytest.mark.parametrize("message", MARKET, ids=lambda message: message.name)
def test_a_message_about_the_market_is_remembered(message: Message) -> None:
    rng = random.Random(message.name)
    into = decoder()
    for number in range(1, 51):
        raw, values = random_message(message, rng)
        feed(into, frame([raw]))
        for name, (place, value) in MARKET[message].items():
            assert int(into.market[0][place]) == value(values[name]), f"{name} in {place}"
        if message in (itch.BROKEN_TRADE, itch.PARTICIPANT_POSITION):
            assert int(into.market[0]["broken_trades"]) + int(into.market[0]["participant_positions"]) == number
    assert counted(into) == {"messages": 50}


def test_trading_actions_and_operational_halts() -> None:
    into = decoder()
    head: dict[str, Value] = {"locate": 5, "tracking": 0, "timestamp": 1, "stock": "ABC"}
    for state in "HPQT":
        feed(into, frame([itch.TRADING_ACTION.encode(**head, state=state, reserved="", reason="LUDP")]))
        assert chr(into.tops[5]["state"]) == state
    halted = []
    for market, action in (("Q", "H"), ("B", "H"), ("X", "H"), ("Q", "T"), ("X", "T"), ("B", "T")):
        feed(into, frame([itch.OPERATIONAL_HALT.encode(**head, market_code=market, action=action)]))
        halted.append(int(into.tops[5]["halts"]).bit_count())
    assert halted == [1, 2, 3, 2, 1, 0]
    assert into.counts[ord("H")] == 4
    assert into.counts[ord("h")] == 6


ORDER: dict[str, Value] = {"locate": 3, "tracking": 9, "timestamp": 34_200_000_000_001}


def add(ref: int, side: str, shares: int, px: int, **other: Value) -> bytes:
    values = ORDER | {"ref": ref, "side": side, "shares": shares, "stock": "ABC", "px": px} | other
    return (itch.ADD_ORDER_MPID if "attribution" in values else itch.ADD_ORDER).encode(**values)


def test_each_order_message_changes_the_book_as_it_says() -> None:
    into = decoder()
    largest = (1 << 32) - 1
    steps: list[tuple[bytes, tuple[int, ...]]] = [
        (add(1, "B", 300, 1_000_000), (1_000_000, 300, 1, 0, 0, 0)),
        (add(2, "S", largest, largest, attribution="NSDQ"), (1_000_000, 300, 1, largest, largest, 1)),
        (add(3, "B", 200, 1_000_000), (1_000_000, 500, 2, largest, largest, 1)),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=1, shares=100, match=5), (1_000_000, 400, 2, largest, largest, 1)),
        (
            itch.ORDER_EXECUTED_PRICE.encode(**ORDER, ref=3, shares=50, match=6, printable="N", px=999_900),
            (1_000_000, 350, 2, largest, largest, 1),
        ),
        (itch.ORDER_CANCEL.encode(**ORDER, ref=3, shares=50), (1_000_000, 300, 2, largest, largest, 1)),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=4, shares=10, px=1_000_100), (1_000_100, 10, 1, largest, largest, 1)),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=4, shares=10, match=7), (1_000_000, 100, 1, largest, largest, 1)),
        (itch.ORDER_DELETE.encode(**ORDER, ref=2), (1_000_000, 100, 1, 0, 0, 0)),
        (itch.ORDER_CANCEL.encode(**ORDER, ref=3, shares=100), (0, 0, 0, 0, 0, 0)),
    ]
    for raw, expected in steps:
        feed(into, frame([raw]))
        assert touch(into, 3) == expected, chr(raw[0])
        check_invariants(into.book)
    assert counted(into) == {"messages": len(steps)}


def test_a_replaced_order_keeps_its_side_and_loses_its_place() -> None:
    into = decoder()
    replace = itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=9, shares=100, px=1_000_000)
    feed(into, frame([add(1, "S", 100, 1_000_000), add(2, "S", 100, 1_000_000), replace]))
    level = into.book.levels[best_level(into.book, 3, SELL)]
    assert int(level["head"]) == find_order(into.book, 2)
    assert int(level["tail"]) == find_order(into.book, 9)


@pytest.mark.parametrize(
    ("raw", "counter"),
    [
        (itch.ORDER_DELETE.encode(**ORDER, ref=99), "unknown_orders"),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=99, shares=1, match=1), "unknown_orders"),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=99, new_ref=100, shares=1, px=1), "unknown_orders"),
        (itch.ORDER_DELETE.encode(**(ORDER | {"locate": 4}), ref=1), "unknown_orders"),
        # Instrument 0 is what the record of no order says.
        (itch.ORDER_DELETE.encode(**(ORDER | {"locate": 0}), ref=99), "unknown_orders"),
        (add(1, "B", 7, 2_000_000), "duplicate_orders"),
        (add(2, "B", 0, 2_000_000), "malformed"),
        (add(2, "B", 1, 0), "malformed"),
        (add(2, "X", 1, 2_000_000), "malformed"),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=1, shares=0, match=1), "malformed"),
        (itch.ORDER_CANCEL.encode(**ORDER, ref=1, shares=0), "malformed"),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=2, shares=0, px=1), "malformed"),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=2, shares=1, px=0), "malformed"),
        (add(2, "B", 5, 2_000_000, locate=32), "capacity_drops"),
        (itch.REG_SHO.encode(locate=32, tracking=0, timestamp=0, stock="ABC", action="1"), "capacity_drops"),
    ],
)
def test_what_makes_no_sense_is_counted_and_changes_nothing(raw: bytes, counter: str) -> None:
    into = decoder()
    feed(into, frame([add(1, "B", 10, 1_000_000)]))
    feed(into, frame([raw]))
    assert touch(into, 3) == (1_000_000, 10, 1, 0, 0, 0)
    assert into.book.counts[ORDERS_LIVE] == 1
    assert counted(into) == {"messages": 2, counter: 1}
    check_invariants(into.book)


@pytest.mark.parametrize(
    ("raw", "did", "rest"),
    [
        (itch.ORDER_DELETE.encode(**ORDER, ref=99), DIVERGED, (3, BUY, 0, 0, 0)),
        (itch.ORDER_DELETE.encode(**(ORDER | {"locate": 4}), ref=1), DIVERGED, (4, BUY, 0, 0, 0)),
        (add(1, "S", 7, 2_000_000), DIVERGED, (3, SELL, 0, 0, 0)),
        (add(5, "S", 0, 2_000_000), DIVERGED, (3, BUY, 0, 0, 0)),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=2, shares=0, match=1), DIVERGED, (3, SELL, 0, 0, 0)),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=2, shares=21, match=1), DIVERGED, (3, SELL, 1_100_000, 0, 21)),
        (itch.ORDER_CANCEL.encode(**ORDER, ref=2, shares=21), DIVERGED, (3, SELL, 1_100_000, 0, 0)),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=2, new_ref=1, shares=5, px=1), DIVERGED, (3, SELL, 1_100_000, 0, 0)),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=2, new_ref=5, shares=5, px=0), DIVERGED, (3, SELL, 0, 0, 0)),
        (itch.ORDER_DELETE.encode(**(ORDER | {"locate": 32}), ref=1), NOTHING, (0, 0, 0, 0, 0)),
        (itch.ORDER_EXECUTED.encode(**ORDER, ref=2, shares=5, match=1), CHANGED, (3, SELL, 1_100_000, 0, 5)),
        (itch.ORDER_CANCEL.encode(**ORDER, ref=2, shares=5), CHANGED, (3, SELL, 1_100_000, 0, 0)),
        (itch.ORDER_DELETE.encode(**ORDER, ref=1), CHANGED, (3, BUY, 1_000_000, 0, 0)),
        (itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=5, shares=5, px=7), CHANGED, (3, BUY, 1_000_000, 7, 0)),
        (add(5, "S", 7, 2_000_000), CHANGED, (3, SELL, 0, 2_000_000, 0)),
        (add(6, "S", 7, 2_000_000, locate=5), OVERFLOWED, (5, SELL, 0, 0, 0)),
        (itch.ORDER_REPLACE.encode(**(ORDER | {"locate": 5}), ref=3, new_ref=6, shares=5, px=7), CHANGED, (5, BUY, 1_000_000, 7, 0)),
    ],
)
def test_what_a_message_did_is_told(raw: bytes, did: int, rest: tuple[int, ...]) -> None:
    """And of whichever instrument it was, that one's version has moved on by one change; no other's has. Nobody may act on its book any
    more if the message did not fit it."""
    into = decoder(orders=3 if did == OVERFLOWED else 100)
    feed(into, frame([add(1, "B", 10, 1_000_000), add(2, "S", 20, 1_100_000), add(3, "B", 20, 1_000_000, locate=5)]))
    for instrument in range(32):
        tell_flags(into.book, instrument, BOOK_VALID)
    before = versions(into)
    buffer = np.frombuffer(raw, np.uint8)
    assert apply_order(into, buffer, 0, raw[0]) == (did, *rest)
    expected = [0] * 32
    if did != NOTHING:
        expected[rest[0]] = 2
    assert (versions(into) - before).tolist() == expected
    invalid = [rest[0]] if did in (DIVERGED, OVERFLOWED) else []
    assert [instrument for instrument in range(32) if told_flags(into.book, instrument) != BOOK_VALID] == invalid
    assert all(told_flags(into.book, instrument) == 0 for instrument in invalid)
    check_invariants(into.book)


def versions(of: Decoder) -> np.ndarray:
    """By instrument, shape (32,)."""
    return of.book.marks[1::4] >> 32


def test_an_execution_of_more_than_there_is_takes_what_there_is_and_is_counted() -> None:
    into = decoder()
    feed(into, frame([add(1, "B", 10, 1_000_000), itch.ORDER_EXECUTED.encode(**ORDER, ref=1, shares=11, match=1)]))
    assert touch(into, 3) == (0,) * 6
    assert counted(into) == {"messages": 2, "malformed": 1}


def test_a_replacement_whose_new_ref_is_taken_leaves_that_order_alone() -> None:
    into = decoder()
    replace = itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=2, shares=5, px=1_000_000)
    feed(into, frame([add(1, "B", 10, 1_000_000), add(2, "B", 20, 900_000), replace]))
    assert touch(into, 3) == (900_000, 20, 1, 0, 0, 0)
    assert counted(into) == {"messages": 3, "duplicate_orders": 1}


def test_a_replacement_that_finds_no_level_has_taken_the_old_order_away() -> None:
    into = make_decoder(orders_max=10, levels_max=2, instruments_max=32, stats=records(1, FEED_STATS))
    feed(into, frame([add(1, "B", 10, 1_000_000), add(2, "B", 20, 1_000_000), add(3, "B", 30, 900_000)]))
    raw = itch.ORDER_REPLACE.encode(**ORDER, ref=1, new_ref=4, shares=5, px=800_000)
    assert apply_order(into, np.frombuffer(raw, np.uint8), 0, raw[0]) == (OVERFLOWED, 3, BUY, 1_000_000, 0, 0)
    assert touch(into, 3) == (1_000_000, 20, 1, 0, 0, 0)
    assert (counted(into)["capacity_drops"], int(into.tops[3]["overflow"])) == (1, 1)
    check_invariants(into.book)


def test_an_order_that_finds_no_room_marks_its_instrument() -> None:
    into = decoder(orders=2)
    feed(into, frame([add(ref, "B", 10, 1_000_000 + ref, locate=ref) for ref in (1, 2, 3)]))
    assert into.tops["overflow"].tolist()[:5] == [0, 0, 0, 1, 0]
    assert counted(into) == {"messages": 3, "capacity_drops": 1}


def test_unknown_types_and_wrong_lengths_are_skipped_by_their_length() -> None:
    into = decoder()
    messages = [b"", b"?", b"z" * 300, b"A" * 35, b"A" * 37, b"D", b"S" * 11, add(1, "B", 10, 1_000_000), b"a" * 65_535]
    raw = frame(messages)
    assert feed(into, raw) == len(raw)
    assert touch(into, 3) == (1_000_000, 10, 1, 0, 0, 0)
    assert counted(into) == {"messages": 9, "unknown_types": 4, "malformed": 4}
    assert into.counts[ord("A")] == 3
    assert into.counts[ord("z")] == 1


@pytest.mark.parametrize("cut", range(1, 40))
def test_a_message_that_is_not_whole_is_left_where_it_is(cut: int) -> None:
    whole = frame([add(1, "B", 10, 1_000_000), add(2, "B", 10, 1_000_100)])
    into = decoder()
    kept = len(whole) - min(cut, 38)
    assert feed(into, whole[:kept]) == 38 * (kept // 38)
    assert counted(into)["messages"] == kept // 38 if kept >= 38 else True


def surrounded(raw: bytes, filler: int) -> np.ndarray:
    return np.frombuffer(bytes([filler]) * 64 + raw + bytes([filler]) * 64, np.uint8)


LETTERS = st.sampled_from(sorted(itch.BY_CODE))
NEARLY_ITCH = st.tuples(LETTERS, st.binary(max_size=60)).map(lambda pair: bytes([pair[0]]) + pair[1])
RIGHT_LENGTH = LETTERS.flatmap(
    lambda code: st.binary(min_size=itch.BY_CODE[code].length - 1, max_size=itch.BY_CODE[code].length - 1).map(
        lambda rest: bytes([code]) + rest
    )
)
# Refs, locate codes and sides from so few that messages meet.
MEETING = st.tuples(
    st.sampled_from(b"AFECXDU"), st.integers(0, 40), st.integers(0, 6), st.sampled_from(b"BSX"), st.integers(0, 3), st.integers(0, 6)
).map(lambda drawn: meeting_message(*drawn))


def meeting_message(code: int, locate: int, ref: int, side: int, px: int, shares: int) -> bytes:
    values: dict[str, Value] = {"locate": locate, "tracking": 0, "timestamp": 0, "ref": ref, "side": chr(side), "shares": shares, "px": px}
    values |= {"stock": "ABC", "attribution": "MPID", "match": 1, "printable": "Y", "new_ref": ref + px}
    message = itch.BY_CODE[code]
    return message.encode(**{field.name: values[field.name] for field in message.fields[1:]})


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large])
@given(st.lists(NEARLY_ITCH | RIGHT_LENGTH | MEETING, max_size=60), st.binary(max_size=30), st.integers(0, 30))
def test_any_input_is_survived_and_nothing_outside_it_is_read(messages: list[bytes], tail: bytes, cut: int) -> None:
    """Twice with other bytes around: what a decoder made of them would differ if it read one of those."""
    raw = frame(messages)
    raw = raw[: max(0, len(raw) - cut)] + tail
    results = []
    for filler in (0x00, 0xFF):
        into = decoder(instruments=16, orders=10)
        end = replay(into, surrounded(raw, filler), 64, 64 + len(raw))
        check_invariants(into.book)
        assert 64 <= end <= 64 + len(raw)
        results.append((end, counted(into), into.counts.tobytes(), into.states.tobytes(), into.tops.tobytes(), into.market.tobytes()))
        assert sum(into.counts) == into.stats[0]["messages"]
    assert results[0] == results[1]


@settings(max_examples=300, deadline=None)
@given(st.binary(max_size=2_000))
def test_bytes_that_are_no_itch_at_all(raw: bytes) -> None:
    into = decoder(instruments=16, orders=10)
    end = feed(into, raw)
    assert end == sum(len(message) + 2 for message in unframe(raw))
    assert int(into.stats[0]["messages"]) == len(unframe(raw))
    check_invariants(into.book)


GUARDED = """
import ctypes, mmap, numpy as np
from engine.feed import itch
from engine.feed.hot.replay import INTERRUPTED_TICKS, decode_only, look_ticks, replay, replay_timed, walk_frames
from tests.itch_flow import frame
from tests.test_itch import decoder

memory = mmap.mmap(-1, 2 * mmap.PAGESIZE)
address = ctypes.addressof(ctypes.c_char.from_buffer(memory))
assert ctypes.CDLL(None).mprotect(ctypes.c_void_p(address + mmap.PAGESIZE), mmap.PAGESIZE, 0) == 0
whole = np.frombuffer(memory, np.uint8)
into = decoder()
read = 0
for message in itch.MESSAGES:
    for length in range(message.length + 2):
        raw = frame([bytes([message.code] * length)])
        for size in range(len(raw) + 1):
            at = mmap.PAGESIZE - size
            memory[at : mmap.PAGESIZE] = raw[:size]
            replay(into, whole[at : mmap.PAGESIZE], 0, size)
            read += decode_only(whole[at : mmap.PAGESIZE], 0, size)[0]
            read -= walk_frames(whole[at : mmap.PAGESIZE], 0, size)
            read += decode_only(whole[at : mmap.PAGESIZE], 0, size)[0]
print(read)
"""


def test_no_byte_behind_the_last_is_touched() -> None:
    """Every type, cut everywhere, right before a page that nobody may read: a process that did would be killed."""
    run = subprocess.run([sys.executable, "-c", GUARDED], capture_output=True, cwd=ROOT, timeout=120, check=True)
    assert int(run.stdout) == sum(message.length + 2 for message in itch.MESSAGES)


def test_decode_only_reads_what_the_benchmark_says() -> None:
    """Every field but tracking numbers, names and MPIDs; of a type without a letter its own."""
    raw = frame(Flow(3).messages(500))
    messages, total = decode_only(np.frombuffer(raw, np.uint8), 0, len(raw))
    expected = 0
    for message in unframe(raw):
        if itch.ABOUT_ORDER[message[0]]:
            fields = itch.BY_CODE[message[0]].decode(message)
            expected += sum(int(fields[name]) for name in NUMBERS & fields.keys())
            expected += letter(fields.get("side", fields.get("printable", chr(message[0]))))
    assert (messages, total) == (500, expected)
    assert walk_frames(np.frombuffer(raw, np.uint8), 0, len(raw)) == 500


NUMBERS = {"locate", "timestamp", "ref", "shares", "px", "new_ref", "match"}


def test_a_timed_replay_is_a_replay_and_counts_every_message_by_its_type() -> None:
    raw = frame(Flow(4).opening() + Flow(4).messages(2_000))
    buffer = np.frombuffer(raw, np.uint8)
    plain, timed = decoder(), decoder()
    by_type = np.zeros(3 * 256, np.int64)
    assert replay(plain, buffer, 0, len(raw)) == replay_timed(timed, buffer, 0, len(raw), by_type) == len(raw)
    assert fingerprint(timed) == fingerprint(plain)
    rows = by_type.reshape(-1, 3)
    assert (rows[:, 0] + rows[:, 2] == timed.counts).all()
    assert ((rows[:, 1] > 0) == (rows[:, 0] > 0)).all()
    assert 0 < look_ticks(1_000) < INTERRUPTED_TICKS


def peer_after_each(messages: list[bytes]) -> Iterator[dict[int, tuple[int, ...]]]:
    """itch-book's best bid and offer by locate code after each message."""
    session = Session(tables=["bbo"], depth=0, symbols=[])
    known: dict[int, tuple[int, ...]] = {}
    columns = ("bid_px", "bid_sz", "bid_ct", "ask_px", "ask_sz", "ask_ct")
    for message in messages:
        session.feed(np.frombuffer(frame([message]), np.uint8))
        rows = session.take_bbo()
        for row in range(len(rows["locate"])):
            known[int(rows["locate"][row])] = tuple(int(rows[column][row]) for column in columns)
        yield known


def locate_of(message: bytes) -> int:
    return int.from_bytes(message[1:3], "big")


@needs_data
def test_the_real_file_is_itch_books_after_every_message() -> None:
    messages = unframe(AAPL.read_bytes())
    assert len(messages) == 10_056
    into = decoder()
    for number, (message, known) in enumerate(zip(messages, peer_after_each(messages), strict=True)):
        feed(into, frame([message]))
        locate = locate_of(message)
        assert touch(into, locate) == known.get(locate, (0,) * 6), f"after message {number}"
    check_invariants(into.book)
    assert counted(into) == {"messages": 10_056, "instruments": 1}
    expected = {"A": 7519, "F": 109, "E": 729, "C": 17, "X": 6, "D": 1237, "U": 437, "S": 1, "R": 1}
    assert {chr(code): int(into.counts[code]) for code in np.flatnonzero(into.counts)} == expected


@needs_data
def test_the_real_file_in_one_piece_gives_what_single_messages_give() -> None:
    """The window reads 24 messages ahead of the one it applies: it must not matter."""
    assert_the_same_in_one_piece(unframe(AAPL.read_bytes()))


def test_a_generated_flow_in_one_piece_gives_what_single_messages_give() -> None:
    assert_the_same_in_one_piece(Flow(13).messages(500))


def assert_the_same_in_one_piece(messages: list[bytes]) -> None:
    raw = frame(messages)
    whole, single = decoder(), decoder()
    assert feed(whole, raw) == len(raw)
    for message in messages:
        feed(single, frame([message]))
    for name in ("orders", "levels", "sides", "handles", "counts"):
        assert getattr(whole.book, name).tobytes() == getattr(single.book, name).tobytes(), name
    assert counted(whole) == counted(single)


@needs_data
def test_the_real_file_is_another_authors_ten_level_book() -> None:
    messages = unframe(AAPL.read_bytes())
    into = decoder()
    fed = compared = 0
    with gzip.open(BOOK10, "rt") as rows:
        for row in csv.DictReader(rows):
            number = int(row["file_msg_index"])
            if number > BEST_EXACT_TO:
                break
            feed(into, frame(messages[fed : number + 1]))
            fed = number + 1
            for depth in range(10 if number <= TEN_LEVELS_EXACT_TO else 1):
                theirs = tuple(int(row[f"{name}_{depth + 1}"]) for name in ("ask_px", "ask_sz", "bid_px", "bid_sz"))
                assert level_columns(into, depth) == theirs, f"level {depth} after message {number}"
                compared += 1
    assert compared > 9_000 + 9 * 3_000


def level_columns(of: Decoder, depth: int) -> tuple[int, ...]:
    found: list[int] = []
    for side in (SELL, BUY):
        level = of.book.levels[worse_level(of.book, AAPL_LOCATE, side, depth)]
        found += [int(level["px"]), int(level["qty"])]
    return tuple(found)


@pytest.mark.parametrize("crossing", [False, True])
@pytest.mark.parametrize("seed", [11, 12])
def test_generated_flow_is_itch_books_after_every_message(seed: int, crossing: bool) -> None:
    print(f"seed={seed} crossing={crossing}")
    flow = Flow(seed, crossing=crossing, first_ref=1 << 27)
    messages = flow.opening() + flow.messages(3_000)
    into = decoder()
    for number, (message, known) in enumerate(zip(messages, peer_after_each(messages), strict=True)):
        feed(into, frame([message]))
        locate = locate_of(message)
        if locate < 32:
            assert touch(into, locate) == known.get(locate, (0,) * 6), f"after message {number}"
    check_invariants(into.book)
    assert into.book.counts[ORDERS_LIVE] == len(flow.resting)
    for ref, (locate, side, px, shares) in flow.resting.items():
        order = into.book.orders[find_order(into.book, ref)]
        level = into.book.levels[int(order["level"])]
        assert (int(order["instrument"]), int(order["side"]), int(level["px"]), int(order["qty"])) == (locate, side, px, shares)


def test_without_the_compiler_the_same_bytes_give_the_same_book() -> None:
    """NUMBA_DISABLE_JIT=1 in a process of its own: a kernel can be stepped through, and does there what it does here."""
    raw = frame(Flow(5).opening() + Flow(5).messages(400))
    into = decoder()
    feed(into, raw)
    program = (
        "import sys; from tests.test_itch import decoder, feed, counted, fingerprint; into = decoder();"
        "feed(into, sys.stdin.buffer.read()); print(fingerprint(into), counted(into))"
    )
    environment = os.environ | {"NUMBA_DISABLE_JIT": "1"}
    plain = subprocess.run(
        [sys.executable, "-c", program], input=raw, capture_output=True, cwd=ROOT, timeout=120, env=environment, check=True
    )
    assert plain.stdout.decode().strip() == f"{fingerprint(into)} {counted(into)}"


def fingerprint(of: Decoder) -> str:
    """Of everything that decoding leaves behind."""
    return sha256(b"".join(part.tobytes() for part in (*of.book, of.states, of.tops, of.market, of.counts))).hexdigest()
