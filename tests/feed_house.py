"""A feed handler and everything around it for tests: its shared memory, its strategy's end of the ring, a clock that stands still.

Packets go through a real socket on the loopback interface: a datagram that was sent there has arrived when the call returns.
"""

import socket
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from engine.feed.hot.state import LINE_ROWS
from engine.feed.hot.step import step
from engine.feed.recovery import Recovery
from engine.feed.stage import FeedStage
from engine.layout import (
    CONTROL,
    FEED_LINE,
    FEED_STATS,
    INSTRUMENT,
    LEVEL,
    MSG_INSTRUMENT,
    MSG_LEVEL,
    MSG_QUOTE,
    MSG_STATUS,
    MSG_TRADE,
    QUOTE,
    STATUS,
    SYMBOL,
    TICKS,
    TRADE,
)
from engine.runtime.clock import simulated_clock
from engine.runtime.instance import HOPS
from shm.hot import EMPTY, advance, poll, release
from shm.layout import HISTOGRAM
from shm.ring import Ring
from shm.table import Board, Table
from tests.ports import free_port

INSTRUMENTS = 64
MIDNIGHT_NS = 1_700_000_000 * 10**9
START_TSC = 10**12
KINDS = {
    MSG_INSTRUMENT: ("instrument", INSTRUMENT),
    MSG_QUOTE: ("quote", QUOTE),
    MSG_LEVEL: ("level", LEVEL),
    MSG_TRADE: ("trade", TRADE),
    MSG_STATUS: ("status", STATUS),
}


class FeedHouse:
    """A feed handler, whoever sends to it, and whoever reads its ticks."""

    def __init__(self, *, ring_capacity: int = 4096, **options: Any) -> None:
        prefix = f"test-feed-{uuid.uuid4().hex[:12]}"
        self.made: list[Any] = []
        self.ticks = self._keep(Ring.create(f"{prefix}.ticks", ring_capacity, TICKS, ["strategy"]))
        self.quotes = self._keep(Board.create(f"{prefix}.quotes", QUOTE, INSTRUMENTS))
        self.instruments = self._keep(Board.create(f"{prefix}.instruments", INSTRUMENT, INSTRUMENTS))
        self.stats_table = self._keep(Table.create(f"{prefix}.stats", FEED_STATS))
        self.lines_table = self._keep(Table.create(f"{prefix}.lines", FEED_LINE, LINE_ROWS))
        self.tops_table = self._keep(Table.create(f"{prefix}.symbols", SYMBOL, INSTRUMENTS))
        self.control_table = self._keep(Table.create(f"{prefix}.control", CONTROL))
        self.hops = self._keep(Table.create(f"{prefix}.hops", HISTOGRAM, len(HOPS)))
        self.control = self.control_table.records[0]
        self.stats = self.stats_table.records[0]
        self.clock = simulated_clock(START_TSC, base_ns=MIDNIGHT_NS)
        self.reader = self.ticks.consumer("strategy", QUOTE).end
        self.views = {kind: (name, self.ticks.view(dtype)) for kind, (name, dtype) in KINDS.items()}
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.address = ("127.0.0.1", free_port())
        usual: dict[str, Any] = {
            "source": "udp", "address": self.address, "orders_max": 20_000, "levels_max": 10_000, "instruments_max": INSTRUMENTS,
            "midnight_ns": MIDNIGHT_NS, "receive_buffer_bytes": 4 << 20,
            "recovery": Recovery(reorder_us=0),
        }  # fmt: skip
        self.stage: FeedStage | None = None
        try:
            self.stage = FeedStage(
                ticks=self.ticks, quotes=self.quotes, instruments=self.instruments, stats=self.stats_table, lines=self.lines_table,
                tops=self.tops_table, control=self.control_table, hops=self.hops, **usual | options,
            )  # fmt: skip
        except BaseException:
            self.close()
            raise

    def _keep(self, made: Any) -> Any:
        self.made.append(made)
        return made

    def close(self) -> None:
        self.sender.close()
        if self.stage is not None:
            self.stage.close()
        for made in self.made:
            made.unlink()

    def turn(self) -> int:
        assert self.stage is not None
        self.stage.attend()
        return step(self.stage.state, self.clock)

    def send(self, *packets: bytes) -> list[dict[str, Any]]:
        """Send packets, let the feed handler take them all, and return the ticks that they caused."""
        ticks = []
        for raw in packets:
            self.sender.sendto(raw, self.address)
            ticks += self.settle()
        return ticks

    def settle(self) -> list[dict[str, Any]]:
        """Turn until there is nothing left to do; the ticks that were published."""
        ticks = self.read()
        while True:
            done = self.turn()
            assert done >= 0, f"the feed handler ended: {self.reason(done)}"
            published = self.read()
            ticks += published
            if done == 0 and not published:
                return ticks

    def reason(self, done: int) -> str:
        assert self.stage is not None
        return self.stage.reasons[done]

    def turn_to_the_end(self) -> int:
        """Turn until the kernel gives a reason to leave the loop, or the file has ended (0)."""
        while True:
            done = self.turn()
            self.read()
            if done < 0:
                return done
            if self.control.feed_ended:
                return 0

    def read(self) -> list[dict[str, Any]]:
        """The ticks that nobody has read yet: {"is": kind, field: value}."""
        found = []
        while (index := poll(self.reader)) != EMPTY:
            name, view = self.views[int(self.reader.slots[index]["kind"])]
            record = view[index]
            found.append({"is": name} | {field: int(record[field]) for field in record.dtype.names})
            advance(self.reader)
        release(self.reader)
        return found

    def counted(self) -> dict[str, int]:
        """The counters that are not 0."""
        return {name: int(self.stats[name]) for name in self.stats.dtype.names if self.stats[name]}

    def quote_line(self, instrument: int) -> dict[str, int]:
        record = self.quotes.records[instrument]
        assert record["sequence"] % 2 == 0, "the line was left open"
        return {name: int(record[name]) for name in ("flags", "bid_px", "bid_sz", "ask_px", "ask_sz")}


@contextmanager
def feed_house(**options: Any) -> Iterator[FeedHouse]:
    house = FeedHouse(**options)
    try:
        yield house
    finally:
        house.close()


def only(ticks: list[dict[str, Any]], kind: str, *fields: str) -> list[Any]:
    """Ticks of a kind, as tuples of these fields (one field: bare values)."""
    found = [tuple(tick[field] for field in fields) for tick in ticks if tick["is"] == kind]
    return [values[0] for values in found] if len(fields) == 1 else found
