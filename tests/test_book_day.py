"""Whole days: every best bid and offer and ten levels of depth as itch-book has them, in memory that is stated and not asked for again.

TICKPATH_PROOF=long makes the generated days full-size: 10,000 symbols, millions of messages and of live orders.
"""

import csv
import gzip
import os
import resource
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
from itch_book._core import Session
from numba import config
from numba.core.runtime import _nrt_python as _nrt
from numba.core.runtime import rtsys

from engine.book.book import book_bytes, check_invariants
from engine.book.hot.book import ORDERS_LIVE, worse_level
from engine.book.hot.clear import clear_book
from engine.feed.capture import Capture, mold_packet
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.hot.replay import replay
from engine.feed.records import records
from engine.layout import BUY, FEED_STATS, SELL
from perf.itch_day import make_day
from perf.itch_grow import frame_starts
from tests.itch_flow import frame, unframe

DATA = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "itch"
AAPL = DATA / "aapl_20190130_093000.itch"
LONG = os.environ.get("TICKPATH_PROOF") == "long"
LEVELS = 10
AAPL_LOCATE = 14
BEST_EXACT_TO = 9_430

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")


def make_empty(symbols: int, orders: int) -> Decoder:
    return make_decoder(orders_max=orders, levels_max=orders, instruments_max=symbols + 1, stats=records(1, FEED_STATS))


def side_levels(of: Decoder, locate: int, side: int, most: int) -> list[tuple[int, int, int]]:
    """(px, qty, orders), best first."""
    found = []
    for depth in range(most):
        level = worse_level(of.book, locate, side, depth)
        if level < 0:
            break
        record = of.book.levels[level]
        found.append((int(record["px"]), int(record["qty"]), int(record["orders"])))
    return found


def pieces(day: np.ndarray, messages: int) -> Iterator[np.ndarray]:
    """The day in pieces of so many whole messages."""
    cuts = [*(frame_starts(day)[::messages] - 2).tolist(), len(day)]
    yield from (day[start:end] for start, end in pairwise(cuts))


def assert_equal_to_the_peer(day: np.ndarray, symbols: int, piece: int) -> int:
    """Feed both the same pieces; after each, every instrument it touched has the same levels. How many were compared."""
    ours = make_empty(symbols, len(frame_starts(day)))
    peer = Session(tables=[], depth=LEVELS, symbols=[])
    compared = 0
    for part in pieces(day, piece):
        assert replay(ours, part, 0, len(part)) == len(part)
        peer.feed(part)
        rows = peer.take_depth()
        locates, last = np.unique(rows["locate"][::-1], return_index=True)
        for locate, row in zip(locates.tolist(), (len(rows["locate"]) - 1 - last).tolist(), strict=True):
            for side, name in ((BUY, "bid"), (SELL, "ask")):
                theirs = [tuple(int(rows[f"{name}_{what}_{depth:02d}"][row]) for what in ("px", "sz", "ct")) for depth in range(LEVELS)]
                levels = side_levels(ours, locate, side, LEVELS)
                assert levels == [level for level in theirs if level[1]], f"locate={locate} {name}"
                compared += len(levels)
    check_invariants(ours.book)
    stats = peer.stats()
    assert int(ours.book.counts[ORDERS_LIVE]) == stats["live_orders"]
    assert [int(ours.stats[0][name]) for name in ("malformed", "unknown_orders", "duplicate_orders", "capacity_drops")] == [0] * 4
    return compared


@pytest.mark.parametrize("seed", [1, 2] if LONG else [1])
def test_ten_levels_of_every_symbol_of_a_generated_day_are_the_peers(seed: int) -> None:
    print(f"seed={seed}")
    messages, symbols = (5_000_000, 10_000) if LONG else (60_000, 300)
    day = make_day(messages, symbols=symbols, seed=seed)
    assert assert_equal_to_the_peer(day, symbols, messages // 20) > messages // 40


@needs_data
def test_ten_levels_of_the_real_day_are_the_peers() -> None:
    assert assert_equal_to_the_peer(np.fromfile(AAPL, np.uint8), AAPL_LOCATE, 100) > 1_500


@needs_data
def test_every_real_sample_gives_what_the_peer_makes_of_it() -> None:
    """The head of a day, cut within a message, and every message of the packet captures: counts, and what rests."""
    head = (DATA / "truncated_head.itch").read_bytes()
    captured = [message for path in sorted((DATA / "pcap").glob("*.pcap")) for message in captured_messages(path)]
    assert len(unframe(head)) == 101
    assert len(captured) >= 38
    for raw in (head, frame(captured)):
        ours, peer = make_empty(65_534, 1_000), Session(tables=["bbo"], depth=0, symbols=[])
        day = np.frombuffer(raw, np.uint8)
        end = replay(ours, day, 0, len(day))
        peer.feed(day)
        stats = peer.stats()
        assert (int(ours.stats[0]["messages"]), len(raw) - end) == (stats["messages"], stats["pending_bytes"])
        assert int(ours.book.counts[ORDERS_LIVE]) == stats["live_orders"]
        check_invariants(ours.book)
        rows = peer.take_bbo()
        for row, locate in enumerate(rows["locate"].tolist()):
            if locate not in rows["locate"][row + 1 :]:
                theirs = [
                    (int(rows[f"{side}_px"][row]), int(rows[f"{side}_sz"][row]), int(rows[f"{side}_ct"][row])) for side in ("bid", "ask")
                ]
                sides = [(side_levels(ours, locate, side, 1) or [(0, 0, 0)])[0] for side in (BUY, SELL)]
                assert sides == theirs, f"locate={locate}"


def captured_messages(path: Path) -> list[bytes]:
    packets = [mold_packet(datagram.payload) for datagram in Capture(path).read()]
    return [message for packet in packets if packet is not None for message in packet.messages]


@needs_data
def test_all_ten_levels_of_the_oracle_hold_ours_to_the_end() -> None:
    """It has orders that rested before the file begins, we cannot: so at each of its prices we have its quantity or less, at none
    between them have we any, and the best is equal."""
    ours = make_empty(AAPL_LOCATE, 20_000)
    messages = unframe(AAPL.read_bytes())
    fed = compared = equal = 0
    with gzip.open(DATA / "aapl_20190130_093000.book10.csv.gz", "rt") as rows:
        for row in csv.DictReader(rows):
            number = int(row["file_msg_index"])
            if number > BEST_EXACT_TO:
                break
            raw = np.frombuffer(frame(messages[fed : number + 1]), np.uint8)
            replay(ours, raw, 0, len(raw))
            fed = number + 1
            for side, name in ((BUY, "bid"), (SELL, "ask")):
                theirs = {int(row[f"{name}_px_{depth}"]): int(row[f"{name}_sz_{depth}"]) for depth in range(1, LEVELS + 1)}
                prices = list(theirs)
                levels = side_levels(ours, AAPL_LOCATE, side, LEVELS)
                assert levels[0][:2] == (prices[0], theirs[prices[0]]), f"best {name} after message {number}"
                for px, qty, _ in levels:
                    if min(prices) <= px <= max(prices):
                        assert qty <= theirs.get(px, 0), f"{name} {px} after message {number}"
                        compared += 1
                        equal += qty == theirs[px]
    assert compared > 150_000
    assert equal > compared * 0.95, f"{equal} of {compared}"


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: the interpreter allocates")
def test_a_second_day_takes_no_memory() -> None:
    """After one day every page is there and every kernel compiled: the next one asks the system for nothing."""
    day = make_day(100_000, symbols=500, seed=5)
    into = make_empty(500, 100_000)
    for _ in range(2):
        replay(into, day, 0, len(day))
        assert clear_book(into.book, 0, 1 << 30) == 501
    _nrt.memsys_enable_stats()
    before = rtsys.get_allocation_stats(), resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    replay(into, day, 0, len(day))
    after = rtsys.get_allocation_stats(), resource.getrusage(resource.RUSAGE_THREAD).ru_minflt
    assert after[0] == before[0]
    # The interpreter's own few; a day of new memory would be thousands.
    assert after[1] - before[1] <= 8
    check_invariants(into.book)


def test_the_memory_of_a_day_is_within_the_formula() -> None:
    """What a day makes resident, measured: within book_bytes of that many orders, levels and instruments."""
    messages, live, symbols = (6_000_000, 3_000_000, 10_000) if LONG else (60_000, 30_000, 500)
    day = make_day(messages, live=live, symbols=symbols, seed=6)
    orders, levels = live + live // 10, 400 * symbols
    before = resident_bytes()
    into = make_decoder(orders_max=orders, levels_max=levels, instruments_max=symbols + 1, stats=records(1, FEED_STATS))
    replay(into, day, 0, len(day))
    taken = resident_bytes() - before
    assert int(into.book.counts[ORDERS_LIVE]) == live
    assert int(into.stats[0]["capacity_drops"]) == 0
    stated = book_bytes(orders_max=orders, levels_max=levels, instruments_max=symbols + 1)
    print(f"live={live} symbols={symbols}: resident {taken:,} bytes, stated {stated:,}")
    # States and tops are not the book's; transparent huge pages round up.
    assert taken <= stated + 600 * symbols + (32 << 20)


def resident_bytes() -> int:
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
