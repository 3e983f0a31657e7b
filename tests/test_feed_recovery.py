"""What a feed handler does about messages that do not come: the other line, the window, rewind servers, a snapshot; and what it says of
its books meanwhile."""

import random
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import pytest
from numba import config

from engine.book.book import check_invariants
from engine.feed import itch
from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.feed.hot.state import (
    EXPECTED,
    FRONTIER,
    LINE_A,
    LINE_B,
    LINE_REWIND,
    LINE_SNAPSHOT,
    REPLAY_NEXT,
    SCOPE,
    SCOPE_SUSPECTS,
    SNAPSHOT,
    SNAPSHOT_FD,
    SNAPSHOT_REPLAYING,
    SNAPSHOT_TSC,
    TROUBLE,
)
from engine.feed.hot.step import step
from engine.feed.recovery import Recovery
from engine.layout import BOOK_CLOSED, BOOK_GAPPED, BOOK_OVERFLOW, BOOK_STALE, BOOK_SUSPECT, BOOK_VALID
from engine.messages.hot.stamp import NOW
from engine.wire.soupbintcp import SEQUENCED
from tests.feed_house import MIDNIGHT_NS, FeedHouse, feed_house, only
from tests.feed_servers import BookModel, RewindServer, SnapshotServer, model_at, queues, queues_of, soup
from tests.itch_flow import Flow, end_of_session, heartbeat, in_packets, packet
from tests.ports import free_port

US = 1_000
MS = 1_000_000
TOUCH = ("bid_px", "bid_sz", "ask_px", "ask_sz")
QUICK: dict[str, Any] = {"reorder_us": 100, "request_interval_us": 10, "request_timeout_ms": 1, "request_tries": 2}


@dataclass
class Venue:
    """A feed handler on two lines with whatever recovers it, and the messages of the day."""

    house: FeedHouse
    messages: list[bytes]
    address_b: tuple[str, int]
    rewinds: list[RewindServer]
    snapshots: SnapshotServer | None

    def a(self, *packets: bytes | list[bytes]) -> list[dict[str, Any]]:
        return self.send(self.house.address, *packets)

    def b(self, *packets: bytes | list[bytes]) -> list[dict[str, Any]]:
        return self.send(self.address_b, *packets)

    def send(self, address: tuple[str, int], *packets: bytes | list[bytes]) -> list[dict[str, Any]]:
        for sent in packets:
            for raw in [sent] if isinstance(sent, bytes) else sent:
                self.house.sender.sendto(raw, address)
        return self.settle()

    def part(self, first: int, last: int) -> list[bytes]:
        """Packets with messages `first` to `last`."""
        return [packet(at, self.messages[at - 1 : min(at + 99, last)]) for at in range(first, last + 1, 100)]

    def settle(self) -> list[dict[str, Any]]:
        """Turn everybody until nobody has anything to do, with time standing still."""
        ticks = []
        for _ in range(3):
            ticks += self.house.settle()
            for server in self.rewinds:
                server.turn()
            if self.snapshots is not None:
                self.snapshots.turn()
        return ticks + self.house.settle()

    def wait(self, ns: int) -> list[dict[str, Any]]:
        """Let time pass, and everybody turn."""
        self.house.clock.words[NOW] += ns
        return self.settle()

    def wait_until_valid(self, locate: int = 1) -> list[dict[str, Any]]:
        words = self.house.stage.words if self.house.stage is not None else {}
        return self.wait_for(lambda: self.flags(locate) == BOOK_VALID and not words[TROUBLE])

    def wait_for(self, come: Callable[[], bool], steps: int = 200) -> list[dict[str, Any]]:
        ticks = []
        for _ in range(steps):
            if come():
                return ticks
            ticks += self.wait(MS // 4)
        raise AssertionError(f"it has not come after {steps} waits: {self.house.counted()}")

    def flags(self, locate: int) -> int:
        return self.house.quote_line(locate)["flags"]

    def line(self, number: int) -> dict[str, int]:
        row = self.house.lines_table.records[number]
        return {name: int(row[name]) for name in row.dtype.names}

    def assert_books_are(self, model: BookModel) -> None:
        assert self.house.stage is not None
        book = self.house.stage.state.decoder.book
        check_invariants(book)
        assert queues_of(book) == queues(model.orders)

    def assert_quotes_are(self, model: BookModel) -> None:
        for locate in range(1, 5):
            line = self.house.quote_line(locate)
            assert line == {"flags": BOOK_VALID} | model.touch(locate), f"locate={locate}"


@contextmanager
def venue(*, count: int = 400, seed: int = 1, rewinds: int = 0, snapshot: bool = False, **changes: Any) -> Iterator[Venue]:
    flow = Flow(seed)
    messages = flow.opening() + flow.messages(count)
    options = {name: changes.pop(name) for name in list(changes) if name not in Recovery.__dataclass_fields__}
    servers = [RewindServer(messages) for _ in range(rewinds)]
    snapshots = SnapshotServer(messages) if snapshot else None
    recovery = Recovery(
        **QUICK | {"rewind": [server.address for server in servers], "snapshot": snapshots.address if snapshots else None} | changes
    )
    address_b = ("127.0.0.1", free_port())
    try:
        with feed_house(recovery=recovery, address_b=address_b, **options) as house:
            yield Venue(house, messages, address_b, servers, snapshots)
    finally:
        for server in [*servers, *([snapshots] if snapshots else [])]:
            server.close()


# Two lines.


def test_whichever_line_is_first_wins_message_by_message() -> None:
    with venue() as at, feed_house() as alone:
        ticks = at.a(at.part(1, 10)) + at.b(at.part(1, 12)) + at.a(at.part(11, 14)) + at.b(at.part(15, 20), at.part(13, 20))
        expected = alone.send(packet(1, at.messages[:20]))
        assert [tick | {"sequence": 0} for tick in ticks] == [tick | {"sequence": 0} for tick in expected]
        a, b = at.line(LINE_A), at.line(LINE_B)
        assert (a["first"], a["duplicates"], a["messages"], a["lost"]) == (12, 2, 14, 0)
        assert (b["first"], b["duplicates"], b["messages"], b["repeated"]) == (8, 18, 26, 6)
        assert (b["gaps"], b["lost"]) == (1, 0)
        assert at.house.counted()["messages"] == a["first"] + b["first"] == 20
        assert "lost" not in at.house.counted()


def test_what_one_line_lost_and_the_other_brings_in_time_is_no_gap() -> None:
    with venue() as at:
        at.a(at.part(1, 50), at.part(61, 70))
        assert at.house.control.feed_sequence == 51
        assert at.flags(1) == BOOK_VALID
        at.house.clock.words[NOW] += 99 * US
        ticks = at.b(at.part(51, 60))
        assert {tick["flags"] for tick in ticks if tick["is"] in ("quote", "status")} <= {BOOK_VALID}
        assert at.house.control.feed_sequence == 71
        at.assert_books_are(model_at(at.messages, 70))
        assert {"lost", "requests", "invalidated", "gapped_ns"} & at.house.counted().keys() == set()
        assert at.line(LINE_A)["lost"] == 10
        assert at.line(LINE_B)["lost"] == 50


def test_what_waits_and_what_was_applied_is_a_duplicate_when_it_comes_again() -> None:
    with venue() as at:
        at.a(at.part(1, 50), at.part(61, 70))
        at.b(at.part(31, 50), at.part(65, 75))
        assert (at.line(LINE_B)["first"], at.line(LINE_B)["duplicates"]) == (5, 26)
        assert at.house.counted()["waited"] == 15
        assert "window_drops" not in at.house.counted()
        at.b(at.part(51, 60))
        at.assert_books_are(model_at(at.messages, 75))


def test_a_message_that_waited_says_when_it_was_received() -> None:
    with venue() as at:
        start = int(at.house.clock.words[NOW])
        at.a(at.part(1, 20), at.part(31, 60))
        at.house.clock.words[NOW] += 50 * US
        at.a(at.part(61, 90))
        at.house.clock.words[NOW] += 20 * US
        ticks = at.b(at.part(21, 30))
        number_of = {MIDNIGHT_NS + int.from_bytes(raw[5:11], "big"): number for number, raw in enumerate(at.messages[:90], 1)}
        origins = [(number_of[ts_ns], origin - start) for ts_ns, origin in only(ticks, "quote", "ts_ns", "origin_tsc")]
        assert len(origins) > 20
        for number, after in origins:
            assert after == (70 * US if number <= 30 else 0 if number <= 60 else 50 * US), f"number={number}"


def test_every_line_accounts_for_every_number() -> None:
    rng = random.Random(7)
    with venue(count=2_000) as at:
        packets = [(raw, int.from_bytes(raw[10:18], "big"), int.from_bytes(raw[18:20], "big")) for raw in in_packets(at.messages, rng)]
        brought: dict[str, set[int]] = {"a": set(), "b": set()}
        copies = {"a": 0, "b": 0}
        for line, lost in (("a", 0.2), ("b", 0.1)):
            sent = [entry for entry in packets[:-1] if rng.random() > lost]
            sent += [entry for entry in sent if rng.random() < 0.1]
            sent.sort(key=lambda entry: entry[1] + rng.randrange(60))
            for raw, first, count in [*sent, packets[-1]]:
                getattr(at, line)(raw)
                brought[line] |= set(range(first, first + count))
                copies[line] += count
        for line, number in (("a", LINE_A), ("b", LINE_B)):
            row = at.line(number)
            assert row["messages"] == copies[line]
            assert row["lost"] == len(at.messages) - len(brought[line])
            assert row["repeated"] == copies[line] - len(brought[line])
            assert row["messages"] == row["first"] + row["duplicates"]


# Holes.


def test_a_hole_is_waited_for_then_every_book_is_gapped_until_it_is_filled() -> None:
    with venue() as at:
        at.a(at.part(1, 50), at.part(52, 60))
        assert at.wait(99 * US) == []
        assert at.flags(1) == BOOK_VALID
        ticks = at.wait(1 * US)
        # Nobody is there to ask.
        assert at.house.counted()["lost"] == 1
        assert set(only(ticks, "status", "flags")) == {BOOK_GAPPED}
        assert {at.flags(locate) for locate in range(1, 5)} == {BOOK_GAPPED}
        assert at.house.control.feed_sequence == 61
        at.a(at.part(61, 70))
        assert {at.flags(locate) for locate in range(1, 5)} == {BOOK_GAPPED}


def test_a_rewind_server_fills_a_hole_and_the_ticks_are_those_of_a_whole_stream() -> None:
    with venue(rewinds=1) as at, feed_house() as alone:
        ticks = at.a(at.part(1, 50), at.part(121, 130)) + at.wait(100 * US)
        assert at.rewinds[0].requests[0] == (51, 70)
        ticks += at.wait_until_valid()
        expected = alone.send(packet(1, at.messages[:130]))
        for kind, fields in (("quote", TOUCH), ("trade", ("px", "qty", "match_id"))):
            assert (
                only(ticks, kind, "instrument", "origin_tsc" if kind == "x" else "ts_ns", *fields)[:40]
                == only(expected, kind, "instrument", "ts_ns", *fields)[:40]
            )
        at.assert_books_are(model_at(at.messages, 130))
        at.assert_quotes_are(model_at(at.messages, 130))
        counted = at.house.counted()
        assert (counted["messages"], counted["recovered"], counted["gaps"]) == (130, 70, 1)
        assert "lost" not in counted
        assert counted["gapped_ns"] > 0
        assert sum(count for _, count in at.rewinds[0].requests) >= 70
        row = at.line(LINE_REWIND)
        assert (row["first"], row["requests"]) == (70, len(at.rewinds[0].requests))


def test_books_are_valid_again_behind_a_filled_hole_though_a_new_one_has_just_opened() -> None:
    with venue(rewinds=1, gap_messages_max=20) as at:
        at.rewinds[0].silent = True
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait(100 * US)
        assert at.flags(1) == BOOK_GAPPED
        at.a(at.part(81, 90))
        at.b(at.part(51, 60))
        assert at.flags(1) == BOOK_VALID
        assert at.house.control.feed_sequence == 71
        assert "lost" not in at.house.counted()
        at.wait(100 * US)
        assert at.flags(1) == BOOK_GAPPED


def test_quotes_published_while_gapped_say_so() -> None:
    with venue(rewinds=1) as at:
        at.a(at.part(1, 50), at.part(121, 130))
        ticks = at.wait(100 * US)
        flags = only(ticks, "quote", "flags")
        assert flags
        assert set(flags[:-8]) == {BOOK_GAPPED}


def test_requests_are_bounded_and_not_too_often() -> None:
    with venue(rewinds=1, request_messages_max=7, request_interval_us=300) as at:
        at.a(at.part(1, 50), at.part(121, 130))
        at.wait(100 * US)
        assert at.rewinds[0].requests == [(51, 7)]
        for number in range(2, 11):
            at.wait(299 * US)
            assert len(at.rewinds[0].requests) == number - 1
            at.wait(1 * US)
            assert at.rewinds[0].requests[-1] == (51 + 7 * (number - 1), 7)
        assert at.house.control.feed_sequence == 131


def test_servers_are_asked_in_turn_and_then_the_hole_is_passed_over() -> None:
    with venue(rewinds=3) as at:
        for server in at.rewinds:
            server.silent = True
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait(100 * US)
        for _ in range(20):
            at.wait(MS)
        assert [len(server.requests) for server in at.rewinds] == [2, 2, 2]
        counted = at.house.counted()
        assert (counted["requests"], counted["request_failures"], counted["lost"]) == (6, 6, 10)
        assert at.house.control.feed_sequence == 71
        assert at.flags(1) == BOOK_GAPPED


def test_the_next_server_helps_where_one_is_dead() -> None:
    with venue(rewinds=2) as at:
        at.rewinds[0].close()
        at.rewinds[0].turn = lambda: None  # type: ignore[method-assign]
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 70))
        assert at.line(LINE_REWIND)["failures"] >= 1
        assert at.line(LINE_REWIND + 1)["first"] == 10


def test_an_answer_is_believed_only_where_it_was_asked_for() -> None:
    with venue(rewinds=1) as at:
        server = at.rewinds[0]
        server.most = 5
        lies = [
            packet(61, at.messages[60:62]),
            packet(500, [at.messages[0]]),
            packet(51, at.messages[50:55], session="ANOTHER001"),
            heartbeat(900),
            end_of_session(900),
            b"?" * 30,
        ]
        server.answer = lambda sequence, found, sender: [  # type: ignore[method-assign]
            server.socket.sendto(raw, sender) for raw in (*lies, packet(sequence, found))
        ]
        at.a(at.part(1, 50), at.part(56, 58))
        at.wait_until_valid()
        assert at.house.control.feed_sequence == 59
        assert int(at.house.stage.words[FRONTIER]) == 59  # type: ignore[union-attr]
        at.assert_books_are(model_at(at.messages, 58))
        assert at.house.control.feed_ended == 0
        assert "session_changes" not in at.house.counted()


def test_messages_lost_at_the_end_are_asked_for_before_it_ends() -> None:
    with venue(rewinds=1) as at:
        last = len(at.messages)
        at.a(at.part(1, last - 10), end_of_session(last + 1))
        assert at.house.control.feed_ended == 0
        at.wait_until_valid()
        assert at.house.control.feed_ended == 1
        at.assert_books_are(model_at(at.messages, last))


def test_a_window_that_is_too_small_asks_again_for_what_it_dropped() -> None:
    with venue(rewinds=1, window_messages=64, gap_messages_max=1_000) as at:
        at.a(at.part(1, 50))
        at.rewinds[0].silent = True
        at.a(at.part(61, 70))
        at.wait(100 * US)
        at.a(*[at.part(first, first + 9) for first in range(71, 391, 10)])
        assert at.house.counted()["window_drops"] > 200
        at.rewinds[0].silent = False
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 390))
        assert "lost" not in at.house.counted()


def test_the_numbers_wrap_around() -> None:
    first = (1 << 64) - 25
    with venue(rewinds=1) as at:
        assert at.house.stage is not None
        words = at.house.stage.words
        words[EXPECTED] = words[FRONTIER] = first - (1 << 64)
        at.house.lines_table.records["next"] = first - (1 << 64)
        at.rewinds[0].first = first

        def part(begin: int, end: int) -> bytes:
            return packet((first + begin) % (1 << 64), at.messages[begin:end])

        at.a(part(0, 10), part(0, 12), part(20, 30), heartbeat(15))
        at.wait_until_valid()
        assert int(words[EXPECTED]) == 15 == int(at.house.control.feed_sequence)
        at.assert_books_are(model_at(at.messages, 40))
        assert {"lost", "malformed"} & at.house.counted().keys() == set()


# Snapshots.


def test_a_late_start_is_made_good_by_a_snapshot() -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=100) as at:
        assert at.snapshots is not None
        at.snapshots.sequence = 640
        at.a(at.part(601, 620), at.part(621, 650))
        ticks = at.wait_until_valid()
        assert at.snapshots.logins == 1
        at.assert_books_are(model_at(at.messages, 650))
        at.assert_quotes_are(model_at(at.messages, 650))
        assert set(only(ticks, "instrument", "instrument")) == {1, 2, 3, 4}
        counted = at.house.counted()
        assert (counted["snapshots"], counted["lost"], counted["covered"], counted["messages"]) == (1, 639, 639, 11)
        assert "suspects" not in counted
        assert at.line(LINE_SNAPSHOT)["messages"] == counted["snapshot_messages"] > 0
        at.a(at.part(651, 700))
        at.assert_quotes_are(model_at(at.messages, 700))


def test_a_snapshot_comes_in_pieces_while_the_feed_goes_on() -> None:
    with venue(count=2_000, snapshot=True, gap_messages_max=10) as at:
        assert at.snapshots is not None
        at.snapshots.pieces = 997
        at.a(at.part(1, 500), at.part(601, 700))
        at.snapshots.sequence = 720
        for first in range(701, 1_901, 30):
            at.a(at.part(first, first + 29))
            assert at.flags(1) in (BOOK_VALID, BOOK_GAPPED)
            at.wait(MS // 4)
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 1_900))
        at.assert_quotes_are(model_at(at.messages, 1_900))
        counted = at.house.counted()
        assert counted["messages"] + counted["lost"] == 1_900
        assert counted["lost"] == counted["covered"] == 719 - 500


def test_a_snapshot_of_our_session_says_itself_what_nobody_has_sent_us() -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=10) as at:
        assert at.snapshots is not None
        at.a(at.part(1, 500), at.part(601, 700))
        at.snapshots.sequence = 800
        at.wait_until_valid()
        assert at.house.control.feed_sequence == 800
        at.assert_books_are(model_at(at.messages, 799))
        assert at.house.counted()["lost"] == at.house.counted()["covered"] == 299


def test_a_snapshot_of_who_knows_what_session_waits_for_the_feed() -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=10) as at:
        assert at.snapshots is not None
        at.snapshots.session = "OTHER"
        at.a(at.part(1, 500), at.part(601, 700))
        at.snapshots.sequence = 800
        for _ in range(10):
            at.wait(MS)
        assert at.flags(1) == BOOK_GAPPED
        at.a(at.part(701, 750))
        assert at.flags(1) == BOOK_GAPPED
        at.a(at.part(751, 810))
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 810))


def test_a_snapshot_older_than_the_window_is_fetched_again() -> None:
    with venue(count=1_000, snapshot=True, window_messages=64, gap_messages_max=10) as at:
        assert at.snapshots is not None
        at.snapshots.sequence = 520
        at.a(at.part(1, 500))
        at.a(*[at.part(first, first + 9) for first in range(601, 701, 10)])
        for _ in range(10):
            at.wait(MS)
        assert at.house.counted()["snapshots_too_old"] >= 1
        at.snapshots.sequence = 660
        for _ in range(100):
            at.wait(20 * MS)
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 700))


@pytest.mark.parametrize("trouble", ["refused", "cut", "closed", "ended", "dead", "silent"])
def test_a_snapshot_that_fails_is_tried_again_and_then_given_up(trouble: str) -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=10, snapshot_tries=3, snapshot_timeout_ms=200) as at:
        server = at.snapshots
        assert server is not None
        server.refusing = trouble == "refused"
        server.cut = 500 if trouble == "cut" else None
        if trouble == "closed":
            server.cut = -len(soup(bytes([SEQUENCED]) + bytes(END_OF_SNAPSHOT.length)))
        server.endless = trouble == "ended"
        server.pieces = 0 if trouble == "silent" else server.pieces
        if trouble == "dead":
            server.listener.close()
            server.turn = lambda: None  # type: ignore[method-assign]
        at.a(at.part(1, 500), at.part(601, 700))
        for _ in range(60):
            at.wait(20 * MS)
        counted = at.house.counted()
        assert (counted["snapshot_failures"], counted["lost"]) == (3, 100)
        assert "snapshots" not in counted
        assert at.house.control.feed_sequence == 701
        assert at.flags(1) == BOOK_GAPPED
        at.a(at.part(701, 800))
        assert at.flags(1) == BOOK_GAPPED
        assert at.house.counted()["messages"] == 700
        if trouble in ("refused", "cut"):
            server.refusing, server.cut = False, None
            server.hang_up()
            server.sequence = 801
            at.wait(31_000 * MS)
            at.wait_until_valid()
            at.assert_books_are(model_at(at.messages, 800))
            at.assert_quotes_are(model_at(at.messages, 800))


def test_a_hole_that_is_filled_while_the_snapshot_connects_needs_none() -> None:
    with venue(snapshot=True, gap_messages_max=5) as at:
        assert at.snapshots is not None
        at.snapshots.pieces = 0
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait(100 * US)
        assert at.flags(1) == BOOK_GAPPED
        at.b(at.part(51, 60))
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 70))
        assert {"snapshots", "snapshot_failures", "lost"} & at.house.counted().keys() == set()


def test_a_hole_that_is_filled_as_its_last_snapshot_fails_is_not_gone_back_to() -> None:
    """Behind it there is another, so that the feed is not whole either; and the two happen in one turn."""
    with venue(snapshot=True, gap_messages_max=5, snapshot_tries=1, snapshot_timeout_ms=200) as at:
        assert at.snapshots is not None
        at.snapshots.pieces = 0
        at.a(at.part(1, 50), at.part(61, 70), at.part(81, 90))
        at.wait(100 * US)
        at.house.sender.sendto(at.part(51, 60)[0], at.address_b)
        at.house.turn()
        at.house.turn()
        assert at.house.control.feed_sequence == 71
        at.house.clock.words[NOW] += 201 * MS
        at.settle()
        assert at.house.control.feed_sequence == 71
        at.b(at.part(71, 80))
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 90))
        assert {"lost", "duplicate_orders", "unknown_orders"} & at.house.counted().keys() == set()
        assert at.house.counted()["messages"] == 90


def test_a_hole_that_is_filled_while_the_books_are_being_loaded_changes_nothing() -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=5) as at:
        assert at.snapshots is not None
        at.snapshots.pieces = 500
        at.snapshots.sequence = 620
        at.a(at.part(1, 500), at.part(601, 650))
        at.wait_for(lambda: at.house.counted().get("snapshot_messages", 0) > 20)
        at.b(at.part(501, 600))
        at.snapshots.pieces = 1 << 20
        at.wait_until_valid()
        at.assert_books_are(model_at(at.messages, 650))
        at.assert_quotes_are(model_at(at.messages, 650))
        assert {"unknown_orders", "duplicate_orders", "suspects"} & at.house.counted().keys() == set()


# Suspects.


def unknown_order(locate: int) -> bytes:
    return itch.ORDER_DELETE.encode(locate=locate, tracking=0, timestamp=1, ref=1 << 50)


@pytest.mark.parametrize("lag", [-40, 0, 15])
def test_a_suspect_book_is_made_anew_while_the_others_go_on(lag: int) -> None:
    with venue(count=1_000, snapshot=True) as at:
        assert at.snapshots is not None
        stray = unknown_order(2)
        at.a(at.part(1, 500))
        at.messages.insert(500, stray)
        at.snapshots.messages = [raw if raw != stray else at.messages[0] for raw in at.messages]
        at.snapshots.pieces = 50
        at.snapshots.sequence = 560 + lag
        ticks = at.a(at.part(501, 501))
        assert only(ticks, "status", "instrument", "flags") == [(2, BOOK_SUSPECT)]
        for first in range(502, 702, 10):
            at.a(at.part(first, first + 9))
            assert [at.flags(locate) for locate in (1, 3, 4)] == [BOOK_VALID] * 3
            at.wait(MS // 10)
        at.snapshots.pieces = 1 << 20
        at.wait_until_valid(2)
        model = model_at(at.snapshots.messages, 701)
        at.assert_books_are(model)
        at.assert_quotes_are(model)
        counted = at.house.counted()
        assert (counted["suspects"], counted["refreshes"], counted["messages"]) == (1, 1, 701)
        assert {"lost", "gaps", "duplicate_orders"} & counted.keys() == set()
        top = at.house.tops_table.records[2]
        assert (int(top["suspects"]), int(top["refreshes"]), int(top["invalidated"])) == (1, 1, 1)
        assert int(top["invalid_ns"]) > 0


def test_a_snapshot_from_before_anything_was_kept_makes_no_book_anew() -> None:
    with venue(count=1_000, snapshot=True) as at:
        assert at.snapshots is not None
        at.a(at.part(1, 500))
        at.snapshots.sequence = 400
        at.a(packet(501, [unknown_order(2)]))
        at.wait(MS)
        assert at.house.counted()["snapshots_too_old"] >= 1
        assert at.flags(2) == BOOK_SUSPECT
        at.snapshots.messages = [*at.messages[:500], at.messages[0]]
        at.snapshots.sequence = 502
        for _ in range(30):
            at.wait(50 * MS)
        at.wait_until_valid(2)
        at.assert_books_are(model_at(at.messages, 500))


def test_what_did_not_fit_a_book_is_forgotten_when_it_is_made_anew() -> None:
    with venue(snapshot=True, orders_max=8) as at:
        assert at.snapshots is not None
        flow = [raw for raw in at.messages if chr(raw[0]) in "SRH"]
        adds = [
            itch.ADD_ORDER.encode(locate=2, tracking=0, timestamp=1, ref=ref, side="B", shares=1, stock="SYM2", px=10_000)
            for ref in range(1, 10)
        ]
        deletes = [itch.ORDER_DELETE.encode(locate=2, tracking=0, timestamp=1, ref=ref) for ref in range(1, 10)]
        at.a(packet(1, flow + adds))
        assert at.flags(2) == BOOK_OVERFLOW
        at.snapshots.messages = flow + adds + deletes
        # The last of them is of an order that there was no room for.
        at.a(packet(1 + len(flow + adds), deletes))
        at.wait_until_valid(2)
        at.assert_books_are(BookModel())
        assert at.house.counted()["refreshes"] == 1


def test_what_newer_messages_took_the_place_of_is_not_applied_to_a_book_that_is_made_anew() -> None:
    with venue(snapshot=True) as at:
        assert at.house.stage is not None
        at.a(at.part(1, 50))
        words = at.house.stage.words
        words[TROUBLE], words[SNAPSHOT], words[SCOPE], words[REPLAY_NEXT] = 1, SNAPSHOT_REPLAYING, SCOPE_SUSPECTS, 41
        words[SNAPSHOT_TSC], words[SNAPSHOT_FD] = at.house.clock.words[NOW], -1
        at.house.turn()
        counted = at.house.counted()
        assert (counted.get("snapshots_too_old"), counted.get("snapshot_failures"), counted.get("refreshes")) == (1, 1, None)
        at.assert_books_are(model_at(at.messages, 50))


def test_a_book_that_the_snapshot_itself_contradicts_stays_suspect() -> None:
    with venue(count=1_000, snapshot=True, gap_messages_max=10) as at:
        assert at.snapshots is not None
        at.snapshots.sequence = 640
        at.snapshots.extra = [unknown_order(2)]
        at.a(at.part(601, 620), at.part(621, 650))
        at.wait_for(lambda: at.flags(1) == BOOK_VALID)
        assert [at.flags(locate) for locate in range(1, 5)] == [BOOK_VALID, BOOK_SUSPECT, BOOK_VALID, BOOK_VALID]
        at.snapshots.extra = []
        at.snapshots.sequence = 651
        at.wait(1_000 * MS)
        at.wait_until_valid(2)
        at.assert_quotes_are(model_at(at.messages, 650))


def test_a_book_made_anew_stays_suspect_where_a_message_since_the_snapshot_cannot_be_read() -> None:
    with venue(count=1_000, snapshot=True) as at:
        server = at.snapshots
        assert server is not None
        at.a(at.part(1, 500))
        ref = next(ref for ref, (locate, *_) in model_at(at.messages, 500).orders.items() if locate == 2)
        delete = itch.ORDER_DELETE.encode(locate=2, tracking=0, timestamp=1, ref=ref)
        server.messages = [*at.messages[:500], at.messages[0], delete]
        server.sequence, server.pieces = 502, 50
        at.a(packet(501, [unknown_order(2)]))
        at.a(packet(502, [delete[:-1]]))
        server.pieces = 1 << 20
        at.wait_for(lambda: at.house.counted().get("refreshes") == 1)
        assert [at.flags(locate) for locate in range(1, 5)] == [BOOK_VALID, BOOK_SUSPECT, BOOK_VALID, BOOK_VALID]
        server.sequence = 503
        at.wait(1_000 * MS)
        at.wait_until_valid(2)
        at.assert_books_are(model_at(server.messages, 502))
        at.assert_quotes_are(model_at(server.messages, 502))


def test_suspects_are_refreshed_ever_less_often() -> None:
    with venue(count=400, snapshot=True) as at:
        assert at.snapshots is not None
        at.a(at.part(1, 300))
        logins = []
        for number in range(100):
            at.snapshots.messages = at.messages[:300] + [at.messages[0]] * (number + 1)
            at.a(packet(301 + number, [unknown_order(1)]))
            at.wait(100 * MS)
            logins.append(at.snapshots.logins)
        # At once, and then after 1, 2 and 4 s.
        assert [(logins.index(number) + 1) // 10 for number in (1, 2, 3, 4)] == [0, 1, 3, 7]
        assert logins[-1] == 4


# Sessions.


def test_one_packet_of_another_session_changes_nothing_and_two_do() -> None:
    with venue() as at:
        at.a(at.part(1, 50))
        at.a(packet(1, at.messages[:3], session="TEST000002"))
        at.a(packet(1, at.messages[:3], session="TEST000002"))
        assert at.house.counted()["foreign"] == 2
        assert at.flags(1) == BOOK_VALID
        at.a(at.part(51, 60))
        assert at.house.control.feed_sequence == 61
        at.a(packet(4, at.messages[3:40], session="TEST000002"))
        assert at.house.counted()["session_changes"] == 1
        assert at.house.control.feed_sequence == 41
        at.assert_books_are(model_at(at.messages, 40))
        at.assert_quotes_are(model_at(at.messages, 40))
        at.b(at.part(61, 70), at.part(71, 90))
        assert at.house.control.feed_sequence == 41
        assert at.house.counted()["session_changes"] == 1


def test_a_session_of_which_nothing_but_heartbeats_is_heard_is_believed_when_they_are_no_copies() -> None:
    with venue() as at:
        at.a(at.part(1, 50))
        beat, late = packet(7, [], session="TEST000002"), packet(1, at.messages[:3], session="TEST000003")
        at.a(beat, beat, beat)
        at.wait(99 * MS)
        at.a(beat)
        assert "session_changes" not in at.house.counted()
        at.wait(1 * MS)
        at.a(beat)
        assert at.house.counted()["session_changes"] == 1
        # What has messages comes but once in its life.
        at.a(late)
        at.wait(1_000 * MS)
        at.a(late)
        assert at.house.counted()["session_changes"] == 1


def test_a_session_that_was_left_is_gone_back_to_when_nothing_else_is_heard() -> None:
    with venue() as at:
        at.a(at.part(1, 50))
        at.a(*[packet(first, at.messages[first - 1 : first + 2], session="TEST000002") for first in (1, 4)])
        at.b(at.part(51, 60))
        at.wait(1_499 * MS)
        at.b(at.part(61, 70))
        at.a(packet(7, [], session="TEST000002"))
        at.wait(1 * MS)
        # It is heard, and so is ours.
        at.b(at.part(71, 80))
        at.wait(1_499 * MS)
        at.b(at.part(81, 90))
        assert at.house.counted()["session_changes"] == 1
        at.assert_books_are(model_at(at.messages, 6))
        at.wait(1 * MS)
        at.b(at.part(1, 100))
        assert at.house.counted()["session_changes"] == 2
        at.assert_books_are(model_at(at.messages, 100))
        at.assert_quotes_are(model_at(at.messages, 100))


def test_how_long_one_left_session_was_heard_says_nothing_of_the_next() -> None:
    with venue() as at:
        at.a(at.part(1, 50))
        for left, session in (("TEST000001", "TEST000002"), ("TEST000002", "TEST000003")):
            at.a(*[packet(first, at.messages[first - 1 : first + 2], session=session) for first in (1, 4)])
            at.b(packet(51, at.messages[50:60], session=left))
            at.wait(2_000 * MS)
        assert at.house.counted()["session_changes"] == 2


def test_what_is_no_whole_packet_names_no_session() -> None:
    with venue() as at:
        at.a(at.part(1, 50))
        other = packet(1, at.messages[:3], session="TEST000002")
        at.a(other[:-1], other + b"\0", other[:-20], heartbeat(51))
        assert at.house.counted()["malformed"] == 3
        assert {"session_changes", "foreign"} & at.house.counted().keys() == set()
        assert at.flags(1) == BOOK_VALID


def test_a_session_knows_nothing_of_the_hours_and_the_losses_of_the_one_before() -> None:
    with venue() as at:
        closing = itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=1, event="M")
        at.a(at.part(1, 50), at.part(61, 70), packet(71, [closing]))
        at.wait(100 * US)
        assert at.flags(1) == BOOK_GAPPED | BOOK_CLOSED
        # This day says nothing of its hours.
        day = at.messages[2:]
        for first in (1, 21):
            at.a(packet(first, day[first - 1 : first + 19], session="TEST000002"))
        at.assert_books_are(model_at(day, 40))
        at.assert_quotes_are(model_at(day, 40))


def test_what_a_snapshot_still_brings_when_the_session_changes_is_of_the_past() -> None:
    with venue(snapshot=True, gap_messages_max=10) as at:
        server = at.snapshots
        assert server is not None
        # More orders than are cleared in one turn, so that the snapshot could go on in between.
        adds = [
            itch.ADD_ORDER.encode(
                locate=1 + ref % 4, tracking=0, timestamp=ref, ref=1_000_000 + ref, side="B", shares=1, stock=f"SYM{1 + ref % 4}", px=10_000
            )
            for ref in range(1_900)
        ]
        server.messages = at.messages[:100] + adds
        server.pieces = 10_000
        at.a(packet(1, at.messages[:20]), at.part(101, 120))
        at.wait_for(lambda: at.house.counted().get("snapshot_messages", 0) > 1_100)
        server.pieces = 1 << 20
        server.turn()
        at.a(*[packet(first, at.messages[first - 1 : first + 19], session="TEST000002") for first in (1, 21)])
        assert at.house.control.feed_sequence == 41
        at.assert_books_are(model_at(at.messages, 40))
        at.assert_quotes_are(model_at(at.messages, 40))
        assert {"snapshots", "unknown_orders", "duplicate_orders", "suspects"} & at.house.counted().keys() == set()


def test_a_session_that_changes_in_a_hole_forgets_it() -> None:
    with venue(rewinds=1) as at:
        at.rewinds[0].silent = True
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait(100 * US)
        assert at.flags(1) == BOOK_GAPPED
        for raw in in_packets(at.messages[:200], random.Random(1)):
            at.a(packet(int.from_bytes(raw[10:18], "big"), [], session="TEST000002", count=0)[:18] + raw[18:])
        at.wait(MS)
        at.assert_books_are(model_at(at.messages, 200))
        at.assert_quotes_are(model_at(at.messages, 200))
        assert at.house.counted()["lost"] == 20


# The watchdog.


def test_silence_makes_every_book_stale_until_the_next_packet() -> None:
    with venue(stale_after_ms=50) as at:
        at.a(at.part(1, 50))
        at.wait(49 * MS)
        assert at.flags(1) == BOOK_VALID
        ticks = at.wait(1 * MS)
        assert set(only(ticks, "status", "flags")) == {BOOK_STALE}
        at.wait(7 * MS)
        ticks = at.b(heartbeat(51))
        assert set(only(ticks, "status", "flags")) == {BOOK_VALID}
        assert at.house.counted()["stales"] == 1
        assert at.house.counted()["stale_ns"] == 7 * MS
        at.a(end_of_session(51))
        at.wait(100 * MS)
        assert at.house.counted()["stales"] == 1


def test_messages_that_come_ever_later_make_every_book_stale() -> None:
    flow = Flow(1)
    with venue(clock_drift_ms_max=10) as at:
        start = int(at.house.clock.words[NOW])
        sent: list[int] = []

        def add(late_ms: int) -> None:
            at.house.clock.words[NOW] = start + (len(sent) + 1) * 1_000 * MS + late_ms * MS
            stamp = (len(sent) + 1) * 1_000 * MS + 5
            raw = itch.ADD_ORDER.encode(
                locate=1, tracking=0, timestamp=stamp, ref=len(sent) + 1, side="B", shares=1, stock="SYM1", px=10_000
            )
            sent.append(late_ms)
            at.a(packet(len(sent), [raw]))

        assert flow
        for late_ms, flags in ((3, BOOK_VALID), (12, BOOK_VALID), (1, BOOK_VALID), (11, BOOK_VALID), (12, BOOK_STALE), (2, BOOK_VALID)):
            add(late_ms)
            assert at.flags(1) == flags, f"late_ms={late_ms}"


# All of it.


@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_lost_the_books_end_up_right_and_no_valid_quote_is_wrong(seed: int) -> None:
    print(f"seed={seed}")
    rng = random.Random(seed)
    with venue(count=1_500, seed=seed, rewinds=2, snapshot=True, gap_messages_max=rng.choice([5, 100])) as at:
        assert at.snapshots is not None
        model, applied = BookModel(), 0
        sent = 0
        for raw in in_packets(at.messages, rng, most=12):
            sent = int.from_bytes(raw[10:18], "big") + int.from_bytes(raw[18:20], "big") - 1
            for server in at.rewinds:
                server.silent = rng.random() < 0.3
            at.snapshots.sequence = max(2, sent + 1 - rng.choice([0, 0, 10]))
            at.snapshots.cut = rng.choice([None, None, None, 300])
            for send in (at.a, at.b):
                for _ in range(rng.choices([0, 1, 2], [5, 12, 1])[0]):
                    send(raw if rng.random() < 0.97 else raw[: rng.randrange(len(raw))])
            at.wait(rng.choice([0, 20 * US, 300 * US]))
            applied = check_valid_quotes(at, model, applied)
        at.a(end_of_session(len(at.messages) + 1))
        for _ in range(300):
            if at.flags(1) == BOOK_VALID and at.house.control.feed_ended:
                break
            at.snapshots.cut = None
            at.wait(40 * MS)
        at.assert_books_are(model_at(at.messages, len(at.messages)))
        at.assert_quotes_are(model_at(at.messages, len(at.messages)))
        counted = at.house.counted()
        assert counted["messages"] + counted.get("lost", 0) == len(at.messages)
        assert counted.get("lost", 0) == counted.get("covered", 0)
        assert counted["gaps"] > 0


def check_valid_quotes(at: Venue, model: BookModel, applied: int) -> int:
    upto = int(at.house.control.feed_sequence) - 1
    for raw in at.messages[applied:upto]:
        model.apply(raw)
    for locate in range(1, 5):
        line = at.house.quote_line(locate)
        if line["flags"] == BOOK_VALID:
            assert line == {"flags": BOOK_VALID} | model.touch(locate)
    return max(applied, upto)


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_recovery_compiles_nothing_after_the_start() -> None:
    with venue(count=1_000, rewinds=1, snapshot=True, gap_messages_max=100) as at:
        at.house.turn()
        before = len(step.signatures)
        at.a(at.part(1, 50), at.part(61, 70))
        at.wait_until_valid()
        at.snapshots.sequence = 710  # type: ignore[union-attr]
        at.a(at.part(500, 720))
        at.wait_until_valid()
        at.a(packet(721, [unknown_order(1)]))
        at.wait(100 * MS)
        assert at.house.counted()["snapshots"] >= 1
        assert len(step.signatures) == before == 1


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"window_messages": 100}, "window_messages=100: expected a power of two"),
        ({"rewind": [("127.0.0.1", port) for port in range(1, 6)]}, "expected at most 4 servers"),
    ],
)
def test_what_cannot_work_is_refused(changes: dict[str, Any], problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        Recovery(**changes)


def test_line_b_that_cannot_be_opened_leaves_nothing_open() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as taken:
        taken.bind(("127.0.0.1", 0))
        with pytest.raises(OSError, match="cannot receive there"):
            FeedHouse(address_b=taken.getsockname())
