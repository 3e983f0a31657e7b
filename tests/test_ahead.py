"""Looking ahead over packets: whose messages' memory is asked for, and whose is not. What comes of them is tested everywhere else."""

from collections.abc import Iterator

import pytest

from engine.feed import itch
from engine.feed.hot.ahead import MESSAGES_MAX, look_ahead
from engine.feed.hot.decoder import ORDER_REF, ROW_WORDS, WINDOW_ROWS
from engine.feed.hot.receive import PACKETS_MAX, receive
from engine.feed.hot.state import AHEAD, EXPECTED, LINE_A
from tests.feed_house import FeedHouse, feed_house, only
from tests.itch_flow import heartbeat, packet


@pytest.fixture
def house() -> Iterator[FeedHouse]:
    with feed_house() as made:
        yield made


def add(ref: int) -> bytes:
    return itch.ADD_ORDER.encode(locate=3, tracking=0, timestamp=7, ref=ref, side="B", shares=1, stock="ABC", px=1_000_000 + ref)


def asked(house: FeedHouse, *packets: bytes, since: int = 0) -> tuple[list[int], int]:
    """The refs that are asked for when these packets come with one call, from packet `since` on; and the first packet left out."""
    assert house.stage is not None
    feed = house.stage.state
    for raw in packets:
        house.sender.sendto(raw, house.address)
    assert receive(feed.sockets, LINE_A, house.clock) == len(packets)
    feed.decoder.window[:] = 0
    look_ahead(feed, LINE_A, since)
    refs = feed.decoder.window[ORDER_REF::ROW_WORDS].tolist()
    used = WINDOW_ROWS - next((row for row, ref in enumerate(reversed(refs)) if ref), WINDOW_ROWS)
    return refs[:used], int(feed.words[AHEAD])


def test_small_packets_are_looked_into_until_the_rows_are_used(house: FeedHouse) -> None:
    singles = [packet(1 + number, [add(100 + number)]) for number in range(PACKETS_MAX)]
    room = WINDOW_ROWS - MESSAGES_MAX
    assert asked(house, *singles) == ([100 + number for number in range(room + 1)], room + 1)
    assert asked(house, *singles, since=room + 1) == ([100 + number for number in range(room + 1, PACKETS_MAX)], PACKETS_MAX)


def test_whole_packets_only_and_never_more_than_there_are_rows(house: FeedHouse) -> None:
    sevens = [packet(1 + 7 * number, [add(100 + 7 * number + turn) for turn in range(7)]) for number in range(8)]
    assert asked(house, *sevens) == ([100 + number for number in range(28)], 4)
    eights = [packet(1 + 8 * number, [add(100 + 8 * number + turn) for turn in range(8)]) for number in range(8)]
    assert asked(house, *eights) == ([100 + number for number in range(32)], 4)


def test_what_is_old_or_large_or_cut_or_empty_is_passed_over(house: FeedHouse) -> None:
    assert house.stage is not None
    house.stage.words[EXPECTED] = 10
    large = packet(11, [add(1_000 + number) for number in range(MESSAGES_MAX + 1)])
    cut = packet(10, [add(21), add(22)])[:-1]
    packets = [packet(9, [add(1)]), large, cut, heartbeat(30), b"x" * 19, b"", packet(10, [add(2)]), packet(12, [b"", add(3)])]
    refs, ahead = asked(house, *packets)
    assert refs == [21, 2, 0, 3]
    assert ahead == len(packets)


def test_a_burst_is_looked_ahead_over_and_comes_out_the_same(house: FeedHouse) -> None:
    assert house.stage is not None
    count = 2 * PACKETS_MAX
    for number in range(count):
        house.sender.sendto(packet(1 + number, [add(100 + number)]), house.address)
    house.turn()
    assert house.stage.words[AHEAD] == WINDOW_ROWS - MESSAGES_MAX + 1
    ticks = house.settle()
    assert house.stage.words[AHEAD] == PACKETS_MAX
    assert only(ticks, "quote", "bid_px") == [1_000_100 + number for number in range(count)]
    house.send(packet(count + 1, [add(99)]))
    assert house.stage.words[AHEAD] == 0, "one packet has nothing to look ahead to"
