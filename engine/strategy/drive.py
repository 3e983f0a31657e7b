"""A strategy on a script: what it is told in, what it sends out. The same compiled turn as live, over rings of this process.

    orders = drive("./mine.py", [quote(999_900, 1_000_100), accepted(1), executed(1, 40), wait(100)], params={"size": 100})
    assert orders == [Buy(1, 999_900, 100)]

Time is simulated: each event happens a microsecond after the one before, and wait(ms) lets timers fire. A Driver does the same step
by step, for a look at counters and positions in between. Under NUMBA_DISABLE_JIT=1 the handlers run as plain Python, for a debugger.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.book.hot.book import Book
from engine.layout import (
    BOOK_VALID,
    BUY,
    CONTROL,
    MSG_ACCEPTED,
    MSG_BROKEN,
    MSG_CANCEL,
    MSG_CANCELLED,
    MSG_EXECUTED,
    MSG_INSTRUMENT,
    MSG_LEVEL,
    MSG_NEW,
    MSG_QUOTE,
    MSG_REJECTED,
    MSG_REPLACE,
    MSG_REPLACED,
    MSG_STATUS,
    MSG_TRADE,
    ORDERS,
    PHASE_TRADING,
    REJECTED_BY_RISK,
    REPORTS,
    STRATEGY_STATS,
    TICKS,
    TIF_DAY,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW, SIMULATED, Clock
from engine.strategy.hot.state import FIRST_ORDER_TSC, PHASE, SESSION_UP
from engine.strategy.layout import INSTRUMENT, LEVEL, ORDER, QUOTE, REPORT, STATUS, TRADE
from engine.strategy.stage import StrategyStage
from shm.hot import EMPTY, advance, claim, commit, poll, release
from shm.layout import HISTOGRAM
from shm.private import PrivateRing, PrivateTable
from shm.ring import Ring

SYMBOL = "TEST"
START_NS = 1_000_000_000
EVENT_NS = 1_000
HOPS = 8


@dataclass(frozen=True)
class Buy:
    """A new order to buy."""

    order_id: int
    px: int
    qty: int
    tif: int = TIF_DAY
    symbol: str = SYMBOL


@dataclass(frozen=True)
class Sell:
    """A new order to sell."""

    order_id: int
    px: int
    qty: int
    tif: int = TIF_DAY
    symbol: str = SYMBOL


@dataclass(frozen=True)
class Replace:
    """Order `target_id` shall be `order_id`, at px, with qty open."""

    order_id: int
    target_id: int
    px: int
    qty: int
    symbol: str = SYMBOL


@dataclass(frozen=True)
class Cancel:
    """Order `order_id` shall go."""

    order_id: int
    symbol: str = SYMBOL


Order = Buy | Sell | Replace | Cancel


@dataclass(frozen=True)
class Event:
    """One line of a script; the functions below make them. symbol None: the first one."""

    kind: int
    symbol: str | None = None
    order_id: int = 0
    values: dict[str, int] = field(default_factory=dict)


TICK_LAYOUTS = {MSG_QUOTE: QUOTE, MSG_LEVEL: LEVEL, MSG_TRADE: TRADE, MSG_STATUS: STATUS, MSG_INSTRUMENT: INSTRUMENT}
REPORTED = (MSG_ACCEPTED, MSG_REPLACED, MSG_CANCELLED, MSG_EXECUTED, MSG_REJECTED, MSG_BROKEN)
REPORT_LAYOUTS = dict.fromkeys(REPORTED, REPORT)

# Lines of a script that are no message.
WAIT = -1
SET_PHASE = -2
SET_SESSION = -3


def quote(bid_px: int, ask_px: int, bid_sz: int = 100, ask_sz: int = 100, *, flags: int = BOOK_VALID, symbol: str | None = None) -> Event:
    """A best bid and offer. A side of size 0 is empty."""
    return Event(MSG_QUOTE, symbol, 0, {"bid_px": bid_px, "ask_px": ask_px, "bid_sz": bid_sz, "ask_sz": ask_sz, "flags": flags})


def trade(px: int, qty: int, side: int = 0, *, symbol: str | None = None) -> Event:
    return Event(MSG_TRADE, symbol, 0, {"px": px, "qty": qty, "side": side, "printable": 1})


def level(px: int, qty: int, side: int, orders: int = 1, *, symbol: str | None = None) -> Event:
    return Event(MSG_LEVEL, symbol, 0, {"px": px, "qty": qty, "side": side, "orders": orders})


def status(flags: int, state: str = "T", *, symbol: str | None = None) -> Event:
    """The book's flags (BOOK_VALID, BOOK_STALE, ...) and the venue's trading state."""
    return Event(MSG_STATUS, symbol, 0, {"flags": flags, "state": ord(state)})


def accepted(order_id: int) -> Event:
    return Event(MSG_ACCEPTED, None, order_id)


def replaced(order_id: int) -> Event:
    """The replacement `order_id` stands in place of its target."""
    return Event(MSG_REPLACED, None, order_id)


def executed(order_id: int, qty: int | None = None, px: int | None = None) -> Event:
    """An execution: of all that is open where qty is not given, at the order's own price where px is not."""
    return Event(MSG_EXECUTED, None, order_id, _given(qty=qty, px=px))


def cancelled(order_id: int, qty: int | None = None) -> Event:
    """Taken off the book: all that is open where qty is not given."""
    return Event(MSG_CANCELLED, None, order_id, _given(qty=qty))


def rejected(order_id: int, open_qty: int = 0, *, by: int = REJECTED_BY_RISK, reason: int = 1) -> Event:
    """A request refused. open_qty is what stays open of the order named: not 0 where only a cancel of it was refused."""
    return Event(MSG_REJECTED, None, order_id, {"qty": open_qty, "flags": by, "reason": reason})


def broken(order_id: int, qty: int, px: int | None = None) -> Event:
    """The venue takes a trade of this order back."""
    return Event(MSG_BROKEN, None, order_id, {"qty": qty, **_given(px=px)})


def wait(ms: float) -> Event:
    """Nothing happens for so long."""
    return Event(WAIT, None, 0, {"ns": round(ms * 1_000_000)})


def phase(value: int) -> Event:
    """The supervisor moves to PHASE_STARTING, PHASE_TRADING, PHASE_DRAINING or PHASE_STOPPED."""
    return Event(SET_PHASE, None, 0, {"value": value})


def session(up: bool) -> Event:
    """The venue's session comes up, or goes."""
    return Event(SET_SESSION, None, 0, {"value": int(up)})


def drive(strategy: str, events: Iterable[Event], **options: Any) -> list[Order]:
    """The orders that a strategy sends when these events happen. Options are those of Driver. StrategyError where it cannot run."""
    driver = Driver(strategy, **options)
    for event in events:
        driver.happen(event)
    return driver.orders


@dataclass
class _Known:
    """What a script's reports need to know of an order that was sent."""

    symbol: str
    side: int
    px: int
    open_qty: int
    target_id: int = 0


class Inbox:
    """One ring into the strategy: what is put here waits for its next turn."""

    def __init__(self, ring: Ring, layouts: dict[int, np.dtype]) -> None:
        role = ring.producer(next(iter(layouts.values())))
        self._producer = role.end
        self._slots = {kind: role.slots.view(dtype) for kind, dtype in layouts.items()}

    def put(self, kind: int, instrument: int, tsc: int, values: dict[str, int]) -> None:
        index = claim(self._producer)
        slot = self._slots[kind][index]
        for name in slot.dtype.names[1:]:
            slot[name] = 0
        for name, value in {"kind": kind, "instrument": instrument, "origin_tsc": tsc, "ts_ns": tsc, **values}.items():
            slot[name] = value
        commit(self._producer, index)


class Driver:
    """One strategy on simulated time, trading, with its session up and its instruments (1, 2, ... in order) named."""

    def __init__(
        self,
        strategy: str,
        *,
        params: dict[str, Any] | None = None,
        symbols: Sequence[str] = (SYMBOL,),
        timer_ms: int = 100,
        tick_px: int = 100,
        orders_max: int = 4096,
        book: Book | None = None,
        held: dict[str, int] | None = None,
    ) -> None:
        """book is what the strategy's questions are asked of (engine/book/book.py makes one); held what there is of each symbol."""
        self.symbols = list(symbols)
        self.orders: list[Order] = []
        self.control, self.stats_table, self.hops = PrivateTable(CONTROL), PrivateTable(STRATEGY_STATS), PrivateTable(HISTOGRAM, HOPS)
        ticks, orders, reports = (
            PrivateRing(256, TICKS, ["strategy"]),
            PrivateRing(orders_max, ORDERS, ["gateway"]),
            PrivateRing(256, REPORTS, ["strategy"]),
        )
        self.ticks, self.reports, self._outbox = (
            Inbox(ticks, TICK_LAYOUTS),
            Inbox(reports, REPORT_LAYOUTS),
            orders.consumer("gateway", ORDER).end,
        )
        self._known: dict[int, _Known] = {}
        self._timer_ns = timer_ms * 1_000_000
        self.clock = Clock(np.zeros(4, np.int64), np.ones(1))
        self.clock.words[SIMULATED], self.clock.words[NOW] = 1, START_NS
        self._control = self.control.words()[0]
        self._control[PHASE], self._control[SESSION_UP] = PHASE_TRADING, 1
        self.stage = StrategyStage(
            ticks=ticks, orders=orders, reports=reports, stats=self.stats_table, control=self.control, hops=self.hops,
            strategy=strategy, params=params or {}, symbols=symbols, timer_ms=timer_ms, book=book,
        )  # fmt: skip
        for symbol, qty in (held or {}).items():
            self.stage.state.held[self._instrument(symbol)].position = qty
        for symbol in self.symbols:
            packed = int(np.uint64(pack_symbol(symbol)).view(np.int64))
            self.ticks.put(MSG_INSTRUMENT, self._instrument(symbol), self.now_ns, {"symbol": packed, "tick_px": tick_px, "lot_qty": 100})
        self.turn()

    @property
    def stats(self) -> dict[str, int]:
        """The strategy's counters that are not 0."""
        line = self.stats_table.records[0]
        return {name: int(line[name]) for name in line.dtype.names if line[name]}

    @property
    def now_ns(self) -> int:
        return int(self.clock.words[NOW])

    @property
    def first_order_tsc(self) -> int:
        return int(self._control[FIRST_ORDER_TSC])

    def position(self, symbol: str | None = None) -> int:
        """What the strategy's loop holds it to have."""
        return int(self.stage.state.places[self.symbols.index(symbol or self.symbols[0])].position)

    def state(self, symbol: str | None = None) -> np.record:
        """The strategy's own State record of a symbol."""
        return self.stage.state.memory[self.symbols.index(symbol or self.symbols[0])]

    def happen(self, event: Event) -> list[Order]:
        """Let one event happen; the orders that the strategy sends because of it."""
        before = len(self.orders)
        if event.kind == WAIT:
            self._pass(event.values["ns"])
        elif event.kind == SET_PHASE:
            self._control[PHASE] = event.values["value"]
        elif event.kind == SET_SESSION:
            self._control[SESSION_UP] = event.values["value"]
        else:
            self.clock.words[NOW] += EVENT_NS
            if event.kind in TICK_LAYOUTS:
                self.ticks.put(event.kind, self._instrument(event.symbol or self.symbols[0]), self.now_ns, event.values)
            else:
                self._put_report(event)
        self.turn()
        return self.orders[before:]

    def turn(self) -> None:
        """Turns of the strategy until it has nothing to do, and its orders off the ring."""
        while self.stage.step(self.stage.state, self.clock):
            pass
        while (index := poll(self._outbox)) != EMPTY:
            self.orders.append(self._sent(self._outbox.slots[index]))
            advance(self._outbox)
        release(self._outbox)

    def _pass(self, ns: int) -> None:
        """Time passes as a loop that spins sees it: it is there whenever a timer falls due."""
        until = self.now_ns + ns
        while self.now_ns < until:
            self.clock.words[NOW] = min(self.now_ns + self._timer_ns, until)
            self.turn()

    def _instrument(self, symbol: str) -> int:
        return self.symbols.index(symbol) + 1

    def _put_report(self, event: Event) -> None:
        known = self._known.get(event.order_id)
        if known is None:
            raise ValueError(f"order_id={event.order_id}: the strategy has sent no such order; it has sent {sorted(self._known)}")
        values = {"order_id": event.order_id, "side": known.side, "px": known.px, "qty": known.open_qty, **event.values}
        if event.kind == MSG_REPLACED:
            values["ref_id"] = known.target_id
            self._known[known.target_id].open_qty = 0
        elif event.kind in (MSG_EXECUTED, MSG_CANCELLED):
            known.open_qty -= values["qty"]
        self.reports.put(event.kind, self._instrument(known.symbol), self.now_ns, values)

    def _sent(self, order: np.record) -> Order:
        symbol = self.symbols[int(order.instrument) - 1]
        order_id, target_id, px, qty = (int(order[name]) for name in ("order_id", "target_id", "px", "qty"))
        if order.kind != MSG_CANCEL:
            self._known[order_id] = _Known(symbol, int(order.side), px, qty, target_id)
        if order.kind == MSG_NEW:
            return (Buy if order.side == BUY else Sell)(order_id, px, qty, int(order.tif), symbol)
        if order.kind == MSG_REPLACE:
            return Replace(order_id, target_id, px, qty, symbol)
        return Cancel(order_id, symbol)


def _given(**values: int | None) -> dict[str, int]:
    return {name: value for name, value in values.items() if value is not None}
