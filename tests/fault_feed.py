"""The feed handler under test, on a clock that stands still, and everything that it says, kept as arrays to be judged at the end."""

import contextlib
import socket
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.book.hot.book import NONE, order_ref, worse_level
from engine.feed.hot.state import (
    ASKED,
    EXPECTED,
    FRONTIER,
    INSTRUMENTS_TOLD,
    LINE_ROWS,
    PREVIOUS_KNOWN,
    SESSION_HIGH,
    SESSION_LOW,
    SNAPSHOT,
    SNAPSHOT_IDLE,
    SWEEP_NEXT,
)
from engine.feed.hot.step import step
from engine.feed.recovery import Recovery
from engine.feed.stage import FeedStage
from engine.layout import CONTROL, FEED_LINE, FEED_STATS, INSTRUMENT, QUOTE, SYMBOL, TICKS
from engine.messages.hot.stamp import NOW
from engine.runtime.clock import simulated_clock
from shm.hot import POSITION, release
from shm.layout import HISTOGRAM
from shm.ring import Ring
from shm.table import Board, Table
from tests.fault_market import Order
from tests.feed_house import INSTRUMENTS, MIDNIGHT_NS, START_TSC
from tests.ports import free_port

SLOT_WORDS = 8
# Silence after which books are stale: some heartbeats lost in a row, and the exchange's own come once in a second.
STALE_MS = 1_500


@dataclass
class Seen:
    """The quotes board after a turn that changed it: its lines' bytes, and what the feed handler expected next, of which session.

    told is the sequence that it tells others (control.feed_sequence): of a session that it has just turned to, not yet one. sweeping:
    it has still to tell some instruments what all of them have become. ended: it tells that the session is over. lost: counted so far.
    """

    turn: int
    name: tuple[int, int]
    expected: int
    told: int
    sweeping: bool
    ended: bool
    lines: bytes
    lost: int

    @property
    def session(self) -> str:
        raw = self.name[0].to_bytes(8, "little", signed=True) + self.name[1].to_bytes(2, "big")
        return raw.decode("latin-1").rstrip()

    @property
    def board(self) -> np.ndarray:
        return np.frombuffer(self.lines, QUOTE)


class FeedUnderTest:
    """One feed handler. `ticks` are the slots it published, `seen` its board after each turn."""

    def __init__(self, *, lines: int, symbols: int, ring_capacity: int, options: dict[str, Any], before_first: int = 0) -> None:
        name = f"test-fault-{uuid.uuid4().hex[:12]}"
        self.symbols = symbols
        with contextlib.ExitStack() as made:
            self.ring = Ring.create(f"{name}.ticks", ring_capacity, TICKS, ["strategy"])
            made.callback(self.ring.unlink)
            self.quotes = Board.create(f"{name}.quotes", QUOTE, INSTRUMENTS)
            made.callback(self.quotes.unlink)
            instruments = Board.create(f"{name}.instruments", INSTRUMENT, INSTRUMENTS)
            made.callback(instruments.unlink)
            tables = {part: Table.create(f"{name}.{part}", dtype, count) for part, dtype, count in TABLES}
            for table in tables.values():
                made.callback(table.unlink)
            self.tables = tables
            self.addresses = [("127.0.0.1", free_port()) for _ in range(lines)]
            self.stage = FeedStage(
                ticks=self.ring, quotes=self.quotes, instruments=instruments, source="udp", orders_max=4_096, levels_max=4_096,
                instruments_max=INSTRUMENTS, midnight_ns=MIDNIGHT_NS, receive_buffer_bytes=4 << 20, **tables,
                stale_after_ms=STALE_MS, recovery=Recovery(**options), **addressed(self.addresses),
            )  # fmt: skip
            made.callback(self.stage.close)
            self.reader = self.ring.consumer("strategy", QUOTE).end
            self.made = made.pop_all()
        self.before_first = before_first
        if before_first:
            # As if all the messages before it had been heard.
            self.stage.words[[EXPECTED, FRONTIER]] = self.tables["lines"].records["next"] = signed(before_first + 1)
        self.sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.clock = simulated_clock(START_TSC, base_ns=MIDNIGHT_NS)
        self.words = self.ring.slots.view(np.int64).reshape(-1, SLOT_WORDS)
        self.stats = tables["stats"].records[0]
        self.ticks: list[np.ndarray] = []
        self.seen: list[Seen] = [Seen(-1, (0, 0), 1, 0, False, False, self.quotes.records[: symbols + 1].tobytes(), 0)]
        self.board = self.quotes.records[: symbols + 1].view(np.uint8)
        self.last: tuple[tuple[int, int], int, int, bool, bool, bytes] | None = None
        self.control = tables["control"].records[0]
        self.turns = 0
        self.failed = 0
        self.work = 0

    def close(self) -> None:
        self.sender.close()
        self.made.close()

    def send_on(self, line: int) -> Any:
        address = self.addresses[line]
        return lambda raw: self.sender.sendto(raw, address)

    def turn(self, now_ns: int) -> int:
        """One step at this moment, and what it said. Below 0 it ended."""
        self.clock.words[NOW] = START_TSC + now_ns
        self.stage.attend()
        done = int(step(self.stage.state, self.clock))
        self._take()
        if done < 0:
            self.failed = done
        self.work += done
        return done

    def _take(self) -> None:
        begin, end = int(self.reader.local[POSITION]), int(self.stage.state.ticks.local[POSITION])
        if begin != end:
            mask = len(self.words) - 1
            self.ticks.append(self.words[np.arange(begin, end) & mask])
            self.reader.local[POSITION] = end
            release(self.reader)
        words = self.stage.words
        name, told = (int(words[SESSION_HIGH]), int(words[SESSION_LOW])), self._counted(self.control["feed_sequence"])
        sweeping, ended = bool(words[SWEEP_NEXT] != INSTRUMENTS_TOLD), bool(self.control["feed_ended"])
        now = name, self._counted(words[EXPECTED]), told, sweeping, ended, self.board.tobytes()
        if now != self.last:
            self.last = now
            self.seen.append(Seen(self.turns, *now, self.count("lost")))
        self.turns += 1

    def _counted(self, sequence: Any) -> int:
        """A number of the session, counted from its first message."""
        return signed(int(sequence) - self.before_first)

    def count(self, name: str) -> int:
        return int(self.stats[name])

    def asks(self) -> bool:
        """Whether a request is under way."""
        return bool(self.stage.words[ASKED])

    def has_left(self) -> bool:
        """Whether it was in another session before."""
        return bool(self.stage.words[PREVIOUS_KNOWN])

    def waits(self) -> bool:
        """Whether messages wait for those before them."""
        return bool(self.stage.words[EXPECTED] != self.stage.words[FRONTIER])

    def loads(self) -> bool:
        """Whether a snapshot is under way."""
        return bool(self.stage.words[SNAPSHOT] != SNAPSHOT_IDLE)

    def line(self, number: int) -> dict[str, int]:
        """What is counted of a line."""
        row = self.tables["lines"].records[number]
        return {name: int(row[name]) for name in row.dtype.names} | {"next": self._counted(row["next"])}

    def resting(self) -> list[Order]:
        """(locate, side, px, ref, qty) of every order, as PlainBook.resting has them."""
        book = self.stage.state.decoder.book
        found: list[Order] = []
        for row in np.flatnonzero(book.sides["count"]).tolist():
            side = 83 if row & 1 else 66
            for depth in range(int(book.sides[row]["count"])):
                level = worse_level(book, row >> 1, side, depth)
                found += [(row >> 1, side, int(book.levels[level]["px"]), ref, qty) for ref, qty in queue_at(book, level)]
        return found


TABLES = (
    ("stats", FEED_STATS, 1),
    ("control", CONTROL, 1),
    ("hops", HISTOGRAM, 16),
    ("lines", FEED_LINE, LINE_ROWS),
    ("tops", SYMBOL, INSTRUMENTS),
)


def signed(number: int) -> int:
    """A number of 64 bits as kernels have it."""
    return (number + (1 << 63)) % (1 << 64) - (1 << 63)


def queue_at(book: Any, level: int) -> Iterator[tuple[int, int]]:
    handle = int(book.levels[level]["head"])
    while handle != NONE:
        yield int(order_ref(book, handle)), int(book.orders[handle]["qty"])
        handle = int(book.orders[handle]["next"])


def addressed(addresses: list[tuple[str, int]]) -> dict[str, Any]:
    return dict(zip(("address", "address_b"), addresses, strict=False))
