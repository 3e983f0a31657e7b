"""The shared memory of one instance: every ring, table and board, made together and removed together."""

from typing import TypeVar

import numpy as np

import engine
from engine.feed.hot.state import LINE_ROWS
from engine.layout import (
    CAPTURE,
    CONTROL,
    EXCHANGE_STATS,
    FEED_LINE,
    FEED_STATS,
    GATEWAY_STATS,
    INSTRUMENT,
    INSTRUMENTS_MAX,
    MARKET,
    OPEN_ORDER,
    ORDERS,
    POSITION,
    PROCESS,
    QUOTE,
    REPORTS,
    RISK_FACTS,
    RISK_RULES,
    STRATEGY_STATS,
    SYMBOL,
    TICKS,
    kinds_on,
)
from engine.runtime.config import RingsConfig
from shm import segment
from shm.layout import HISTOGRAM
from shm.ring import Ring, round_up_capacity
from shm.segment import SegmentError
from shm.table import Board, Table

PROCESSES_MAX = 8
MARKET_SLOTS = 1 << 16

Made = TypeVar("Made", Table, Board, Ring)

# Where each latency is measured, in the order of the path (the row of the hops table).
HOPS = (
    ("packet_to_tick", "packet received to tick published: decode, book"),
    ("tick_ring", "tick published to tick polled by the strategy"),
    ("decision", "tick polled to order published: the strategy's handler"),
    ("order_ring", "order published to order polled by the gateway"),
    ("risk_encode", "order polled to bytes ready: every risk check, encoding"),
    ("send", "the send system call"),
    ("exchange_to_report", "order sent to its first report received"),
    ("tick_to_order", "packet received to order sent: the whole path"),
    ("kernel_to_packet", "packet taken by the kernel to packet received; with feed.kernel_stamps"),
    ("queue", "order polled to taken up again, where the venue's pace or its socket held it back"),
)


class Instance:
    """One instance's segments, alive as long as this process or a child forked from it is attached to them."""

    def __init__(self, name: str, rings: RingsConfig, accounts: int = 1, *, paper: bool = False, orders_max: int = 1 << 16) -> None:
        self.name = name
        # The market as it was applied, for a venue that trades against it on paper.
        self.market: Ring | None = None
        self.build = engine.build_hash()
        self._made: list[Table | Board | Ring] = []
        try:
            self._make(rings, accounts, orders_max)
            if paper:
                self.market = self._keep(
                    Ring.create(f"{name}.market", MARKET_SLOTS, {"market": MARKET}, ["exchange"], build_hash=self.build)
                )
        except BaseException:
            self.unlink()
            raise

    def _make(self, rings: RingsConfig, accounts: int, orders_max: int) -> None:
        self.control = self._table("control", CONTROL)
        self.processes = self._table("processes", PROCESS, PROCESSES_MAX)
        self.feed_stats = self._table("feed.stats", FEED_STATS)
        self.feed_lines = self._table("feed.lines", FEED_LINE, LINE_ROWS)
        self.symbols = self._table("symbols", SYMBOL, INSTRUMENTS_MAX)
        self.capture = self._table("feed.capture", CAPTURE)
        self.strategy_stats = self._table("strategy.stats", STRATEGY_STATS)
        self.gateway_stats = self._table("gateway.stats", GATEWAY_STATS)
        self.exchange_stats = self._table("exchange.stats", EXCHANGE_STATS)
        self.rules = self._keep(Board.create(f"{self.name}.risk.rules", RISK_RULES, 1, build_hash=self.build))
        self.facts = self._table("risk.facts", RISK_FACTS)
        self.hops = self._table("hops", HISTOGRAM, len(HOPS))
        self.quotes = self._board("quotes", QUOTE)
        self.instruments = self._board("instruments", INSTRUMENT)
        self.positions = self._board("positions", POSITION)
        self.exchange_positions = self._board("exchange.positions", POSITION, accounts * INSTRUMENTS_MAX)
        self.open_orders = self._board("open_orders", OPEN_ORDER, round_up_capacity(orders_max))
        self.ticks = self._ring("ticks", rings.ticks, TICKS, "strategy")
        self.orders = self._ring("orders", rings.orders, ORDERS, "gateway")
        self.reports = self._ring("reports", rings.reports, REPORTS, "strategy")

    @classmethod
    def create(cls, name: str, rings: RingsConfig, accounts: int = 1, *, paper: bool = False, orders_max: int = 1 << 16) -> "Instance":
        """Make every segment of instance `name`, whose exchange has so many accounts and whose gateway so many orders open at once, after
        removing what a dead one left. SegmentError where it is alive."""
        remove_dead(name)
        return cls(name, rings, accounts, paper=paper, orders_max=orders_max)

    def unlink(self) -> None:
        """Remove the names of what this instance made, and of nothing that another made since."""
        for made in self._made:
            made.unlink()

    def _table(self, name: str, dtype: np.dtype, capacity: int = 1) -> Table:
        return self._keep(Table.create(f"{self.name}.{name}", dtype, capacity, build_hash=self.build))

    def _board(self, name: str, dtype: np.dtype, lines: int = INSTRUMENTS_MAX) -> Board:
        return self._keep(Board.create(f"{self.name}.{name}", dtype, lines, build_hash=self.build))

    def _ring(self, name: str, capacity: int, variants: dict[str, np.dtype], reader: str) -> Ring:
        return self._keep(Ring.create(f"{self.name}.{name}", capacity, variants, [reader], build_hash=self.build, kinds=kinds_on(variants)))

    def _keep(self, made: Made) -> Made:
        self._made.append(made)
        return made


def remove_dead(name: str) -> list[str]:
    """Remove what a dead instance of this name left behind and return the names. SegmentError where it is alive."""
    if owner := living_owner(name):
        raise SegmentError(
            f"instance={name}: it is running already (pid {owner}); stop it, or give this one another `instance` name in its config"
        )
    return segment.remove_dead(f"{name}.")


def living_owner(name: str) -> int:
    """The pid of the oldest process attached to an instance's control segment: its supervisor, or a child that outlived it.

    0 where nobody is attached; -1 where it is someone whose processes this user may not look at.
    """
    control = f"{name}.control"
    if not segment.is_attached(control):
        return 0
    return min(segment.attached_pids(control), key=lambda pid: (segment.process_start(pid), pid), default=-1)
