"""Twice the highest volume that was seen: nothing is lost of it, and nobody waits for a strategy that stands still.

The peaks are those of the recorded market data (its README). What a venue of yours came to in six months is given as
TICKPATH_PEAK_PER_S and TICKPATH_PEAK_PER_10_MS. Time is the test's own: what is shown is that rings, sockets and books have the room,
not how fast this machine is.
"""

import os

import pytest

from engine.book.book import check_invariants
from engine.layout import BOOK_VALID
from engine.messages.hot.stamp import NOW
from engine.runtime.config import DEFAULT_PATH, load
from tests.feed_house import FeedHouse, feed_house
from tests.feed_servers import model_at
from tests.itch_flow import Flow, packet

PEAK_PER_S = int(os.environ.get("TICKPATH_PEAK_PER_S", "2466"))
PEAK_PER_10_MS = int(os.environ.get("TICKPATH_PEAK_PER_10_MS", "593"))
# What the kernel charges a receive buffer for a datagram of one message.
CHARGED_BYTES = 1_280
SYMBOLS = 4


def turn_until_idle(house: FeedHouse) -> None:
    """The feed handler works on what has come; the strategy reads nothing."""
    while (done := house.turn()) != 0:
        assert done > 0, house.reason(done)


@pytest.mark.statement(14)
def test_twice_the_highest_volume_is_taken_whole_while_the_strategy_stands_still() -> None:
    shipped = load(DEFAULT_PATH)
    burst, second = 2 * PEAK_PER_10_MS, 2 * PEAK_PER_S
    flow = Flow(14, symbols=SYMBOLS)
    messages = flow.opening()
    messages += flow.messages(second - len(messages))
    with feed_house(ring_capacity=shipped.rings.ticks, receive_buffer_bytes=shipped.feed.receive_buffer_bytes) as house:
        assert house.stage is not None
        if house.stage.receive_buffer_bytes < burst * CHARGED_BYTES:
            pytest.skip(
                f"receive buffer of bytes={house.stage.receive_buffer_bytes}: a burst needs {burst * CHARGED_BYTES} (net.core.rmem_max)"
            )
        for first in range(0, second, burst):
            # The worst that 10 ms can bring: all at once, a packet for each message, before the feed handler gets a turn.
            for number in range(first, min(first + burst, second)):
                house.sender.sendto(packet(1 + number, [messages[number]]), house.address)
            turn_until_idle(house)
            house.clock.words[NOW] += 10_000_000
        counted = house.counted()
        assert counted["messages"] == counted["packets"] == second
        assert {"lost", "gaps", "ring_waits", "window_drops", "socket_drops", "capacity_drops", "malformed"} & counted.keys() == set()
        # The strategy comes back: every tick of that second is there, in order, and the last of each symbol is what the book is.
        ticks = house.read()
        last = {tick["instrument"]: tick for tick in ticks if tick["is"] == "quote"}
        assert [tick["sequence"] for tick in ticks] == list(range(1, len(ticks) + 1))
        assert sum(tick["is"] == "trade" for tick in ticks) == counted["trades"] > 0
        model = model_at(messages, second)
        for symbol in range(1, SYMBOLS + 1):
            assert house.quote_line(symbol) == {"flags": BOOK_VALID} | model.touch(symbol)
            assert {name: last[symbol][name] for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")} == model.touch(symbol)
        check_invariants(house.stage.state.decoder.book)
