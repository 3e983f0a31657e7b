"""What a feed handler hands on to a venue on paper: every message that it applied, where it was applied, and what its books are worth.

A second book is kept from the ring alone; after every way of losing and getting back it is the feed handler's own.
"""

import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from engine.feed import itch
from engine.feed.hot.handover import NOTICE_CLEAR, NOTICE_CLEAR_ONE, NOTICE_VALIDITY, SLOT_BYTES
from engine.layout import BOOK_GAPPED, BOOK_SUSPECT, BOOK_VALID, MARKET, PHASE_TRADING
from engine.messages.hot.stamp import NOW
from shm.hot import EMPTY, advance, poll, release
from shm.ring import Ring
from tests.feed_house import feed_house
from tests.feed_servers import BookModel, queues, queues_of
from tests.itch_flow import frame, packet, unframe
from tests.running import AAPL
from tests.test_feed_recovery import MS, unknown_order, venue


class Listener:
    """The venue's end of the ring: what it was handed, in order, and the books that follow from it."""

    def __init__(self, capacity: int) -> None:
        self.ring = Ring.create(f"test-handover-{uuid.uuid4().hex[:12]}.market", capacity, {"market": MARKET}, ["exchange"])
        self.role = self.ring.consumer("exchange", MARKET)
        self.raw = self.role.end.slots.view(np.ndarray).view(np.uint8).reshape(-1, SLOT_BYTES)
        self.messages: list[bytes] = []
        self.notices: list[tuple[int, int, int]] = []
        self.validity: dict[int, list[int]] = {}
        self.book = BookModel()

    def read(self, most: int = 1 << 30) -> int:
        """Take up to so many; how many there were."""
        end = self.role.end
        for number in range(most):
            index = poll(end)
            if index == EMPTY:
                return number
            slot = bytes(self.raw[index])
            self._hear(slot[10 : 10 + int.from_bytes(slot[8:10], "big")])
            advance(end)
            release(end)
        return most

    def _hear(self, raw: bytes) -> None:
        if raw[0] in (NOTICE_VALIDITY, NOTICE_CLEAR, NOTICE_CLEAR_ONE):
            code, locate, value = raw[0], int.from_bytes(raw[1:3], "big"), raw[3]
            self.notices.append((code, locate, value))
            if code == NOTICE_VALIDITY:
                self.validity.setdefault(locate, []).append(value)
            else:
                kept = {ref: order for ref, order in self.book.orders.items() if code == NOTICE_CLEAR_ONE and order[0] != locate}
                self.book.orders = kept
            return
        self.messages.append(raw)
        fields: dict[str, Any] = itch.BY_CODE[raw[0]].decode(raw)
        if raw[0] in b"AF" or fields.get("ref") in self.book.orders:
            self.book.apply(raw)

    def close(self) -> None:
        self.role.close()
        self.ring.unlink()


@contextmanager
def listening(capacity: int = 1 << 13) -> Iterator[Listener]:
    made = Listener(capacity)
    try:
        yield made
    finally:
        made.close()


def test_every_message_is_handed_on_in_its_place_whichever_line_or_server_brought_it() -> None:
    with listening() as heard, venue(count=900, rewinds=1, market=heard.ring) as at:
        at.a(at.part(1, 300), at.part(401, 500))
        at.b(at.part(301, 350), at.part(201, 420))
        at.a(at.part(601, 900))
        at.wait_until_valid()
        heard.read()
        assert heard.messages == at.messages[:900]
        assert {code for code, _, _ in heard.notices} == {NOTICE_VALIDITY}
        at.assert_books_are(heard.book)
        assert [values[-1] for _, values in sorted(heard.validity.items()) if _ in (1, 2, 3, 4)] == [BOOK_VALID] * 4


def test_what_is_missing_for_long_makes_every_book_doubtful_until_it_is_there() -> None:
    with listening() as heard, venue(count=600, rewinds=1, market=heard.ring) as at:
        at.rewinds[0].silent = True
        at.a(at.part(1, 300), at.part(401, 500))
        at.wait(MS)
        heard.read()
        assert (len(heard.messages), heard.validity[1][-1] & BOOK_GAPPED) == (300, BOOK_GAPPED)
        at.rewinds[0].silent = False
        at.b(at.part(301, 400))
        at.wait_until_valid()
        heard.read()
        assert (heard.messages, heard.validity[1][-1]) == (at.messages[:500], BOOK_VALID)


@pytest.mark.parametrize("pieces", [1 << 20, 997])
def test_a_snapshot_is_handed_on_behind_a_notice_that_the_books_are_empty(pieces: int) -> None:
    with listening() as heard, venue(count=1_000, snapshot=True, gap_messages_max=100, market=heard.ring) as at:
        assert at.snapshots is not None
        at.snapshots.sequence, at.snapshots.pieces = 640, pieces
        at.a(at.part(1, 200), at.part(601, 620), at.part(621, 650))
        at.wait_until_valid()
        heard.read()
        assert [notice[0] for notice in heard.notices if notice[0] != NOTICE_VALIDITY] == [NOTICE_CLEAR]
        at.assert_books_are(heard.book)
        listed = {raw for raw in at.messages[:640] if raw[0] == itch.STOCK_DIRECTORY.code}
        assert {raw for raw in heard.messages[200:] if raw[0] == itch.STOCK_DIRECTORY.code} == listed
        assert BOOK_GAPPED in [flags & BOOK_GAPPED for flags in heard.validity[1]]
        at.a(at.part(651, 1_000))
        heard.read()
        at.assert_books_are(heard.book)


@pytest.mark.parametrize("lag", [-40, 0, 15])
def test_a_book_that_is_made_anew_alone_is_handed_on_alone(lag: int) -> None:
    with listening() as heard, venue(count=1_000, snapshot=True, market=heard.ring) as at:
        assert at.snapshots is not None
        stray = unknown_order(2)
        at.a(at.part(1, 500))
        at.messages.insert(500, stray)
        at.snapshots.messages = [raw if raw != stray else at.messages[0] for raw in at.messages]
        at.snapshots.sequence, at.snapshots.pieces = 560 + lag, 50
        for first in range(501, 701, 10):
            at.a(at.part(first, first + 9))
            at.wait(MS // 10)
        at.snapshots.pieces = 1 << 20
        at.wait_until_valid(2)
        heard.read()
        assert [notice[:2] for notice in heard.notices if notice[0] != NOTICE_VALIDITY] == [(NOTICE_CLEAR_ONE, 2)]
        assert BOOK_SUSPECT in [flags & BOOK_SUSPECT for flags in heard.validity[2]]
        at.assert_books_are(heard.book)


def test_a_ring_that_is_full_is_waited_for() -> None:
    with listening(64) as heard, venue(count=600, market=heard.ring) as at:
        at.a(at.part(1, 600))
        assert at.house.counted()["messages"] <= 64
        assert at.house.counted()["ring_waits"] > 0
        while heard.read(7):
            at.settle()
        assert heard.messages == at.messages[:600]
        at.assert_books_are(heard.book)
        assert {"lost", "capacity_drops", "gaps"} & at.house.counted().keys() == set()


def test_a_snapshot_waits_for_a_ring_that_is_full() -> None:
    with listening(64) as heard, venue(count=600, snapshot=True, gap_messages_max=100, market=heard.ring) as at:
        assert at.snapshots is not None
        at.snapshots.sequence = 590
        at.a(at.part(571, 580), at.part(581, 600))
        at.wait_for(lambda: heard.read(7) == 0 and at.flags(1) == BOOK_VALID, 400)
        at.assert_books_are(heard.book)
        assert heard.validity[1][-1] == BOOK_VALID
        assert "capacity_drops" not in at.house.counted()


def test_a_new_session_ends_the_directory_too() -> None:
    with listening() as heard, venue(count=400, market=heard.ring) as at:
        at.a(at.part(1, 200))
        for first in range(1, 301, 100):
            at.a(packet(first, at.messages[first - 1 : first + 99], session="TEST000002"))
            at.wait(100 * MS)
        heard.read()
        assert (NOTICE_CLEAR, 0, 1) in heard.notices
        at.assert_books_are(heard.book)


@pytest.mark.skipif(not AAPL.exists(), reason="the data folder is not here")
def test_a_file_is_handed_on_whole() -> None:
    messages = unframe(AAPL.read_bytes())
    with listening(1 << 15) as heard, feed_house(source="file", path=AAPL, market=heard.ring, ring_capacity=1 << 16) as house:
        house.turn_to_the_end()
        heard.read()
        assert heard.messages == messages
        assert house.stage is not None
        assert queues_of(house.stage.state.decoder.book) == queues(heard.book.orders)


@pytest.mark.parametrize(("speed", "after_ms"), [(1.0, [0, 100, 350, 600]), (4.0, [0, 25, 225, 475]), (0.0, [0, 0, 0, 0])])
def test_a_paced_file_is_read_at_its_times_and_not_before_the_instance_trades(tmp_path: Path, speed: float, after_ms: list[int]) -> None:
    """Messages at 0, 100, 900 ms and 10 s of the file's time: no silence is kept for longer than 250 ms of ours."""
    path = tmp_path / "paced.itch"
    times_ns = [34_200 * 10**9 + at * MS for at in (0, 100, 900, 10_900)]
    path.write_bytes(frame([itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=at, event="Q") for at in times_ns]))
    with feed_house(source="file", path=path, speed=speed, paced=True) as house:
        if speed:
            house.settle()
            assert "messages" not in house.counted()
        house.control.phase = PHASE_TRADING
        seen, now = [], 0
        while len(seen) < 4:
            house.settle()
            seen += [now] * (house.counted().get("messages", 0) - len(seen))
            now += 5
            house.clock.words[NOW] += 5 * MS
            assert now < 1_000
        assert seen == after_ms
