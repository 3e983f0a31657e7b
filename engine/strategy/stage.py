"""The strategy: everything around its turn. It loads the strategy, lays out its state, and compiles.

stage = StrategyStage(ticks=..., orders=..., reports=..., strategy="./mine.py", params={...}, symbols=["AAPL"], timer_ms=100)
loop(stage.state, ...)          # module stage.step_module
"""

from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.book.book import make_book
from engine.book.hot.book import Book
from engine.layout import INSTRUMENTS_MAX, POSITION, pack_symbol
from engine.messages.hot.stamp import Clock
from engine.strategy import layout
from engine.strategy.errors import StrategyError
from engine.strategy.hot.state import DEPTH_MAX, NOWHERE, SIDES, TIMER_NS, WORDS, Strategy
from engine.strategy.load import load
from shm.ring import Ring
from shm.table import Board, Table

READER = "strategy"

# A strategy never ends the loop by itself.
REASONS: dict[int, str] = {}

# Rows of the hops table.
HOP_TICK_RING = 1
HOP_DECISION = 2


class StrategyStage:
    """One strategy on its symbols. `state` is what the kernel `step` of module `step_module` works on; it never ends by itself.

    strategy names a module or a path; params are its parameters; symbols what it trades; on_timer runs every timer_ms. Where the
    venue gives no price step, px_decimals does: two digits less (a cent at four decimals). StrategyError says what is wrong with any.
    """

    reasons = REASONS

    def __init__(
        self,
        *,
        ticks: Ring,
        orders: Ring,
        reports: Ring,
        stats: Table,
        control: Table,
        hops: Table,
        strategy: str,
        params: dict[str, Any],
        symbols: Sequence[str],
        timer_ms: int,
        px_decimals: int = 4,
        book: Book | None = None,
        positions: Board | None = None,
    ) -> None:
        """book is the feed handler's, in memory shared with it; without one every question about it is answered NOT_THERE. positions is the
        gateway's board: each position begins with what that says when the session comes up first; without one, with 0."""
        if not symbols:
            raise StrategyError("strategy.symbols is empty: expected at least one symbol to trade")
        if timer_ms < 1:
            raise StrategyError(f"strategy.timer_ms={timer_ms}: expected at least 1")
        self.loaded = load(strategy)
        self.step_module = self.loaded.turn
        self.step = self.loaded.step
        self.roles = (ticks.consumer(READER, layout.QUOTE), reports.consumer(READER, layout.REPORT), orders.producer(layout.ORDER))
        words = np.zeros(WORDS, np.int64)
        words[TIMER_NS] = timer_ms * 1_000_000
        self.state = Strategy(
            ticks=self.roles[0].end,
            levels=ticks.view(layout.LEVEL),
            trades=ticks.view(layout.TRADE),
            statuses=ticks.view(layout.STATUS),
            instruments=ticks.view(layout.INSTRUMENT),
            reports=self.roles[1].end,
            orders=self.roles[2].end,
            places=make_places(symbols, px_decimals),
            place_of=np.full(INSTRUMENTS_MAX, NOWHERE, np.int32),
            sides=np.full(SIDES, 0, np.uint8),
            control=control.words()[0],
            stats=stats.records,
            words=words,
            params=self.loaded.params(params),
            memory=self.loaded.memory(len(symbols)),
            held=np.zeros(INSTRUMENTS_MAX, POSITION).view(np.recarray) if positions is None else positions.records,
            timer=np.zeros(1, layout.TIMER).view(np.recarray),
            status=np.zeros(1, layout.STATUS).view(np.recarray),
            tick_ring=hops.words()[HOP_TICK_RING],
            decision=hops.words()[HOP_DECISION],
            book=book or make_book(orders_max=1, levels_max=1, instruments_max=1),
            levels_read=np.zeros((DEPTH_MAX, 3), np.int64),
        )
        self.loaded.compile(self.state, Clock(np.zeros(4, np.int64), np.ones(1)))

    def close(self) -> None:
        """Let go of shared memory and give the ring ends back."""
        del self.state
        for role in self.roles:
            role.close()


def make_places(symbols: Sequence[str], px_decimals: int) -> np.recarray:
    """The strategy's instruments, not yet named by the venue, shape (symbols,)."""
    places = np.zeros(len(symbols), layout.PLACE).view(np.recarray)
    # A packed symbol is a u64; as a signed one it is compared with what lies on the ring, bit for bit.
    places["symbol"] = np.array([pack_symbol(symbol) for symbol in symbols], np.uint64).view(np.int64)
    places["instrument"] = -1
    places["tick_px"] = 10 ** max(px_decimals - 2, 0)
    places["lot_qty"] = 100
    places["px_decimals"] = px_decimals
    return places
