"""A risk gate on boards of its own, for tests: one known instrument with a valid quote, a session, and a clock that stands still."""

from typing import Any

import numpy as np

from engine.gateway.ouch.v50 import QUANTITY_MAX
from engine.layout import (
    BOOK_VALID,
    BUY,
    CONTROL,
    INSTRUMENT,
    MSG_NEW,
    MSG_QUOTE,
    ORDER,
    PHASE_TRADING,
    POSITION,
    QUOTE,
    RISK_FACTS,
    RISK_RULES,
    TIF_DAY,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW
from engine.risk.hot.gate import check, watch
from engine.risk.hot.own import link, unlink
from engine.risk.hot.reasons import PASSED
from engine.risk.hot.stake import count_execution, position_changed
from engine.risk.limits import Limits
from engine.risk.make import make_risk
from engine.risk.rules import Rules, write
from engine.runtime.clock import simulated_clock
from shm.table import Board, Table

# Everything that can be off is; a test switches on what it is about.
GOOD: dict[str, Any] = {
    "order_qty_min": "off",
    "order_qty_max": 500,
    "order_qty_step": "off",
    "order_px_step": "off",
    "order_notional_min": "off",
    "order_notional_max": 100_000.0,
    "notional_window_max": "off",
    "notional_window_ms": 1_000.0,
    "notional_session_max": "off",
    "collar_bps": 50.0,
    "collar_window_bps": "off",
    "collar_window_ms": 1_000.0,
    "reference_age_max_ms": 250.0,
    "position_max": 1_000,
    "gross_position_max": "off",
    "gross_exposure_max": "off",
    "net_exposure_max": "off",
    "credit_max": "off",
    "margin_pct": 100,
    "daily_loss_max": "off",
    "drawdown_max": "off",
    "losses_in_a_row_max": "off",
    "self_trade": "off",
    "duplicates_max": "off",
    "duplicates_window_ms": 1_000.0,
    "message_rate_per_s": 100,
    "message_burst": 10,
    "order_to_trade_max": "off",
    "order_to_trade_free": 1_000,
    "strategy_orders_max": "off",
    "strategy_window_ms": 1_000.0,
    "restricted": (),
}

# As above, with a pace that no test reaches by accident.
CALM = GOOD | {"message_rate_per_s": 1_000_000, "message_burst": 1_000_000, "order_notional_max": 1e9, "order_qty_max": 1_000_000}

KNOWN, OTHER, UNNAMED, SECOND, BOARD_LINES = 3, 4, 5, 6, 8
ORDERS_MAX = 64
NOW_NS = 10_000_000_000
MS = 1_000_000
BID_PX, ASK_PX = 999_900, 1_000_100  # the middle is 100.0000, so a collar of 50 is 0.5000 on either side
PX = 1_000_000


class Boards:
    """KNOWN and SECOND may be traded, OTHER is named and may not, UNNAMED the feed has not named."""

    def __init__(self, prefix: str) -> None:
        self.quotes = Board.create(f"{prefix}.quotes", QUOTE, BOARD_LINES)
        self.instruments = Board.create(f"{prefix}.instruments", INSTRUMENT, BOARD_LINES)
        self.positions = Board.create(f"{prefix}.positions", POSITION, BOARD_LINES)
        self.control = Table.create(f"{prefix}.control", CONTROL)
        self.rules = Board.create(f"{prefix}.rules", RISK_RULES, 1)
        self.facts = Table.create(f"{prefix}.facts", RISK_FACTS)
        self.all = [self.quotes, self.instruments, self.positions, self.control, self.rules, self.facts]

    def reset(self) -> None:
        for table in self.all:
            table.words()[:] = 0
        for line, symbol in ((KNOWN, "AAPL"), (OTHER, "MSFT"), (SECOND, "NVDA")):
            self.set(self.instruments, line, symbol=pack_symbol(symbol), tick_px=100, lot_qty=100)
        for line in (KNOWN, OTHER, UNNAMED, SECOND):
            self.quote(line)
        self.control.records[0].phase = PHASE_TRADING
        self.control.records[0].session_up = 1

    def quote(self, line: int = KNOWN, **changed: Any) -> None:
        fields = {"flags": BOOK_VALID, "bid_px": BID_PX, "bid_sz": 1, "ask_px": ASK_PX, "ask_sz": 1, "origin_tsc": NOW_NS}
        self.set(self.quotes, line, kind=MSG_QUOTE, **(fields | changed))

    def set(self, board: Board, line: int, **fields: Any) -> None:
        for name, value in fields.items():
            board.records[line][name] = value
        board.words()[line][0] += 2

    def close(self) -> None:
        for table in self.all:
            table.unlink()
            table.detach()


class Desk:
    """A gate, and what a gateway does around it. The clock stands at NOW_NS and counts nanoseconds."""

    def __init__(self, boards: Boards, **limits: Any) -> None:
        self.clock = simulated_clock(NOW_NS)
        self.boards = boards
        boards.reset()
        self.rules = Rules(Limits(**GOOD | limits), symbols=2, venue_qty_max=QUANTITY_MAX)
        write(boards.rules, self.rules)
        self.risk = make_risk(
            self.rules.limits, ["AAPL", "NVDA"], quotes=boards.quotes, instruments=boards.instruments, positions=boards.positions,
            control=boards.control, rules=boards.rules, facts=boards.facts, orders_max=ORDERS_MAX,
        )  # fmt: skip
        self.order = np.zeros(1, ORDER).view(np.recarray)
        self.facts = boards.facts.records[0]

    def put(self, rules: Rules) -> None:
        """Change the rules while it runs."""
        self.rules = rules
        write(self.boards.rules, rules)

    def judge(self, standing: int = PASSED, counted: int = 0, executed: int = 0, **changed: Any) -> int:
        fields = {"kind": MSG_NEW, "instrument": KNOWN, "side": BUY, "qty": 100, "px": PX, "tif": TIF_DAY, "order_id": 1, "strategy": 0}
        for name, value in (fields | changed).items():
            self.order[name] = value
        return int(check(self.risk, self.clock, self.clock.words[NOW], self.order[0], standing, counted, executed))

    def enter(self, place: int, **changed: Any) -> int:
        """Judge a new order and, if it passes, let it be open at a place of the order table, as the gateway does."""
        verdict = self.judge(**changed)
        if verdict == PASSED:
            order = self.order[0]
            self.open(int(order.instrument), int(order.side), int(order.qty))
            link(self.risk, place, int(order.instrument), int(order.side), int(order.px))
        return verdict

    def open(self, instrument: int, side: int, change_qty: int) -> None:
        name = "open_buy" if side == BUY else "open_sell"
        self.boards.set(self.boards.positions, instrument, **{name: self.boards.positions.records[instrument][name] + change_qty})
        position_changed(self.risk, instrument)

    def leave(self, place: int, instrument: int, side: int, qty: int) -> None:
        """An order is gone, with so much of it open."""
        unlink(self.risk, place)
        self.open(instrument, side, -qty)

    def fill(self, side: int, qty: int, px: int, instrument: int = KNOWN, opened: int = 0) -> None:
        """An execution, and what it takes off what was open."""
        line = self.boards.positions.records[instrument]
        before, cash = int(line.position), int(line.cash)
        signed = qty if side == BUY else -qty
        name = "open_buy" if side == BUY else "open_sell"
        fields = {"position": before + signed, "cash": cash - signed * px, "fills": line.fills + 1, name: line[name] - opened}
        self.boards.set(self.boards.positions, instrument, **fields)
        count_execution(self.risk, instrument, px, before, cash, before + signed)
        position_changed(self.risk, instrument)

    def watch(self, turn: int = 0) -> None:
        watch(self.risk, self.clock, self.clock.words[NOW], turn)

    def after(self, ns: int) -> "Desk":
        """Let time pass, with fresh quotes."""
        self.clock.words[NOW] += ns
        for line in (KNOWN, OTHER, SECOND):
            self.boards.set(self.boards.quotes, line, origin_tsc=int(self.clock.words[NOW]))
        return self
