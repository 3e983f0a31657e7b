"""Everything in one process: exchange, feed handler, strategy, gate and gateway, on one clock that stands still until it is moved.

The stages and their kernels are the real ones; shared memory is this process's own, and the sockets between them are tests/sim_network's.
A life is what ends with our processes: rings, boards, strategy and gateway. The venue and the feed handler outlive it.
"""

import contextlib
import random
from typing import Any

import numpy as np

from engine.exchange.hot import step as exchange_step
from engine.exchange.hot.delays import PUSHED, TAKEN
from engine.exchange.hot.faults import NEVER_NS
from engine.exchange.hot.state import COPIED, DELAYING, HOLDING, LINK, LISTEN_FD, LOGGED, NEXT_NS, OUT_BEGIN, OUT_END, TURNS
from engine.exchange.hot.step import TURNS_PER_LOOK
from engine.exchange.stage import ExchangeStage
from engine.feed.hot import step as feed_step
from engine.feed.hot.state import LINE_ROWS
from engine.feed.recovery import Recovery
from engine.feed.stage import FeedStage
from engine.gateway.hot import step as gateway_step
from engine.gateway.hot.queue import WAITING
from engine.gateway.ouch.v50 import QUANTITY_MAX
from engine.gateway.stage import GatewayStage
from engine.layout import (
    CONTROL,
    EXCHANGE_STATS,
    FEED_LINE,
    FEED_STATS,
    GATEWAY_STATS,
    INSTRUMENT,
    INSTRUMENTS_MAX,
    ORDERS,
    PHASE_TRADING,
    POSITION,
    QUOTE,
    REPORTS,
    RISK_FACTS,
    RISK_RULES,
    STRATEGY_STATS,
    SYMBOL,
    TICKS,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW
from engine.risk.limits import Limits
from engine.risk.rules import STATES, Rules
from engine.risk.rules import write as write_rules
from engine.runtime import kills
from engine.runtime.clock import simulated_clock
from engine.runtime.instance import HOPS
from engine.runtime.latch import WHOLE, Scope
from engine.strategy.stage import StrategyStage
from engine.wire.credentials import Credentials
from shm._shim import lib
from shm.layout import HISTOGRAM, schema_of
from shm.private import PrivateRing, PrivateSegment, PrivateTable
from shm.segment import Geometry
from shm.table import Board
from tests.feed_house import free_port
from tests.sim_network import MarketLine, Network, Note, listening
from tests.sim_plan import STRATEGIES, Plan
from tests.sim_rival import Rival
from tests.sim_trader import Trader

LINES = 64
MIDNIGHT_NS = 1_700_000_000 * 10**9
START_TSC = 10**12
SYMBOLS = {"AAPL": 100.0, "MSFT": 50.0}
NUMBERS = {symbol: place + 1 for place, symbol in enumerate(SYMBOLS)}
VENUE = "XNAS"
STALE_MS = 3_000
ATTEND_TURNS = 3
FAR_NS = 1 << 62
ENABLED = dict.fromkeys(STRATEGIES, 1)
# Short enough to happen within a run; the venue says something once a second.
RECONNECT: dict[str, Any] = {"silence_ms": 2_500, "connect_ms": 100, "reconnect_ms": 2, "reconnect_ms_max": 40, "reconnect_tries": 200}


class PrivateBoard(Board):
    """A board of this process alone."""

    def __init__(self, dtype: np.dtype, capacity: int) -> None:
        geometry = Geometry("private", lib.TP_KIND_BOARD, capacity, dtype.itemsize, schema_of(record=dtype))
        super().__init__(PrivateSegment.of(geometry), dtype)


class Life:
    """Ours, from the start of our processes to their end: `number` counts them."""

    def __init__(self, number: int, world: "World") -> None:
        plan = world.plan
        self.number = number
        self.positions = PrivateBoard(POSITION, LINES)
        self.stats_table = PrivateTable(GATEWAY_STATS)
        self.facts_table = PrivateTable(RISK_FACTS)
        self.hops = PrivateTable(HISTOGRAM, len(HOPS))
        self.orders = PrivateRing(plan.orders_capacity, ORDERS, ["gateway"])
        self.reports = PrivateRing(plan.reports_capacity, REPORTS, ["strategy"])
        self.stats, self.facts = self.stats_table.records[0], self.facts_table.records[0]
        self.ending = 0
        control = world.control
        control["session_up"] = control["drained"] = 0
        control["phase"] = PHASE_TRADING
        world.enforce()
        self.maker: StrategyStage | None = None
        self.trader: Trader | None = None
        if plan.trader == "maker":
            self.maker = StrategyStage(
                ticks=world.ticks, orders=self.orders, reports=self.reports, stats=PrivateTable(STRATEGY_STATS),
                control=world.control_table, hops=self.hops, strategy="engine.strategy.market_maker", params={"backoff_ms": 1},
                symbols=list(SYMBOLS), timer_ms=100, positions=self.positions,
            )  # fmt: skip
        else:
            self.trader = Trader(
                random.Random(f"trader {plan.seed} {number}"), self.orders, self.reports, world.quotes, len(SYMBOLS),
                activity=plan.activity, weird=plan.weird,
            )  # fmt: skip
        self.gateway = GatewayStage(
            address=("", 0), connector=world.network.connect, jitter_seed=plan.seed, **RECONNECT,
            orders=self.orders, reports=self.reports, quotes=world.quotes, instruments=world.instruments, positions=self.positions,
            stats=self.stats_table, control=world.control_table, hops=self.hops, rules=world.rules_board, facts=self.facts_table,
            credentials=Credentials.of("TICK", "PATH"), limits=world.limits, midnight_ns=MIDNIGHT_NS, symbols=list(SYMBOLS),
            orders_max=plan.orders_max, executions_max=plan.executions_max, pace_per_s=plan.pace_per_s,
            pace_burst=plan.pace_burst, queue_max=plan.queue_max,
        )  # fmt: skip

    @property
    def put(self) -> int:
        """How many orders have been put on the ring."""
        end = self.maker.state.orders if self.maker is not None else self.trader.into  # type: ignore[union-attr]
        return int(end.local[0])

    @property
    def waits(self) -> bool:
        """Whether orders wait in the gateway, as they do for the venue's pace."""
        return bool(self.gateway.state.queue.words[WAITING])

    @property
    def told(self) -> int:
        return int(self.gateway.state.reports.local[0])

    def close(self) -> None:
        self.gateway.close()
        for part in (self.maker, self.trader):
            if part is not None:
                part.close()


class World:
    """`step` turns one of them. note(what, ...) is called with everything that happens."""

    def __init__(self, plan: Plan, note: Note) -> None:
        self.plan, self.note = plan, note
        self.clock = simulated_clock(START_TSC, base_ns=MIDNIGHT_NS)
        self.control_table = PrivateTable(CONTROL)
        self.control = self.control_table.records[0]
        self.control["phase"] = PHASE_TRADING
        self.control["venue"] = pack_symbol(VENUE)
        self.quotes, self.instruments = PrivateBoard(QUOTE, LINES), PrivateBoard(INSTRUMENT, LINES)
        self.ticks = PrivateRing(1024, TICKS, ["strategy"])
        self.rules_board = PrivateBoard(RISK_RULES, 1)
        self.given = dict(plan.limits)
        self.limits = Limits(**self.given)
        self.state = "active"
        self.listener = listening()
        self.network = Network(plan, note, self.listener)
        feed_address = ("127.0.0.1", free_port())
        self.market = MarketLine(plan, feed_address)
        self.exchange = self._exchange()
        self.rivals = [
            Rival(random.Random(f"rival {plan.seed} {number}"), account, NUMBERS, self.quotes, self.network.dial)
            for number, account in enumerate(plan.rules.rivals)
        ]
        self.feed = self._feed(feed_address)
        self.life = Life(0, self)

    def _exchange(self) -> ExchangeStage:
        self.exchange_stats = PrivateTable(EXCHANGE_STATS)
        rules = self.plan.rules
        self.exchange_positions = PrivateBoard(POSITION, INSTRUMENTS_MAX * (1 + len(rules.rivals)))
        made = ExchangeStage(
            control=self.control_table, stats=self.exchange_stats, positions=self.exchange_positions,
            market_address=self.market.inlet.getsockname(), order_address=("127.0.0.1", 0), username="TICK", password="PATH",
            session="SIM", flow="generated", symbols=SYMBOLS, rate_per_s=self.plan.rate_per_s, seed=self.plan.seed,
            rewind_addresses=[("127.0.0.1", 0)], rewind_messages=1 << 13, orders_max=1 << 12, levels_max=1 << 11,
            client_orders_max=1 << 12, reports_max=1 << 13, midnight_ns=MIDNIGHT_NS,
            cancel_on_disconnect=not rules.keeps_orders, self_trade=rules.self_trade, firm=rules.firm, accounts=rules.rivals,
            latency=rules.latency, faults=rules.faults, hours=rules.hours, pro_rata=rules.pro_rata,
            pro_rata_minimum=rules.pro_rata_minimum,
        )  # fmt: skip
        made.state.words[LISTEN_FD] = self.listener.fileno()
        return made

    def _feed(self, address: tuple[str, int]) -> FeedStage:
        return FeedStage(
            ticks=self.ticks, quotes=self.quotes, instruments=self.instruments, stats=PrivateTable(FEED_STATS),
            lines=PrivateTable(FEED_LINE, LINE_ROWS), tops=PrivateTable(SYMBOL, LINES), control=self.control_table,
            hops=PrivateTable(HISTOGRAM, len(HOPS)), source="udp", address=address, orders_max=1 << 12, levels_max=1 << 11,
            instruments_max=LINES, receive_buffer_bytes=1 << 20, midnight_ns=MIDNIGHT_NS, stale_after_ms=STALE_MS,
            recovery=Recovery(window_messages=1 << 10, reorder_us=500, rewind=[("127.0.0.1", self.exchange.rewind_ports[0])]),
        )  # fmt: skip

    @property
    def now(self) -> int:
        return int(self.clock.words[NOW])

    def pass_time(self, ns: int) -> None:
        self.clock.words[NOW] += ns

    def step(self, actor: str, turn: int, *, quoting: bool) -> None:
        life = self.life
        if actor == "exchange":
            if self.rivals:
                # A turn here stands for many of the exchange's, which looks for connections in one of so many while somebody is there.
                words = self.exchange.state.words
                words[TURNS] += TURNS_PER_LOOK - 1 - words[TURNS] % TURNS_PER_LOOK
            exchange_step.step(self.exchange.state, self.clock)
        elif actor == "feed":
            self.feed.attend()
            feed_step.step(self.feed.state, self.clock)
        elif actor == "strategy":
            if life.maker is not None:
                life.maker.step(life.maker.state, self.clock)
            elif life.trader is not None:
                life.trader.turn(self.now, quoting=quoting)
        elif life.ending == 0:
            if turn % ATTEND_TURNS == 0:
                life.gateway.attend()
            done = int(gateway_step.step(life.gateway.state, self.clock))
            if done < 0:
                life.ending = done
                self.note("gateway over", done)

    # What people do.

    def enforce(self) -> None:
        write_rules(
            self.rules_board,
            Rules(self.limits, symbols=len(SYMBOLS), venue_qty_max=QUANTITY_MAX, state=STATES[self.state], enabled=ENABLED),
        )

    def change_limits(self, change: dict[str, Any]) -> None:
        self.given |= change
        self.limits = Limits(**self.given)
        self.enforce()

    def change_state(self, state: str) -> None:
        self.state = state
        self.enforce()

    def kill(self, killed: bool, scope: Scope = WHOLE) -> None:
        if killed:
            kills.put(self.control_table, scope, "simulated")
        else:
            kills.lift(self.control_table, scope)

    def covers(self, strategy: int, symbol: str) -> bool:
        """Whether some kill that holds covers an order."""
        return any(
            (scope.strategy is None or scope.strategy == strategy) and scope.symbol in ("", symbol) and scope.venue in ("", VENUE)
            for scope in kills.held(self.control_table)
        )

    def die(self) -> None:
        """Our processes are gone at once, without a word to anybody, and are started again."""
        if self.network.last is not None:
            self.network.last.end(self.note, "our end died")
        self.life.close()
        self.life = Life(self.life.number + 1, self)

    def still_market(self) -> None:
        """No more flow of others, and no more faults of the venue's."""
        self.exchange.state.flow.words[NEXT_NS] = FAR_NS
        self.exchange.state.conduct.rates[:] = 0.0
        self.exchange.state.conduct.times[:] = NEVER_NS

    @property
    def venue_is_quiet(self) -> bool:
        """Whether the venue has done all that we asked, and said all that it has to say to us."""
        exchange = self.exchange.state
        row, conduct = int(exchange.venue.clients.words[0, LINK]) - 1, exchange.conduct
        if row < 0:
            return True
        link, account = exchange.links.words[row], exchange.venue.clients.words[0]
        said = link[COPIED] == account[LOGGED] and link[OUT_BEGIN] == link[OUT_END]
        heard = not conduct.words[DELAYING] or conduct.order_lines[row, PUSHED] == conduct.order_lines[row, TAKEN]
        return bool(said and heard and (not conduct.words[HOLDING] or conduct.report_lines[0, PUSHED] == conduct.report_lines[0, TAKEN]))

    def close(self) -> None:
        for part in (self.life, self.feed, self.exchange, self.network, self.market, self.listener, *self.rivals):
            with contextlib.suppress(OSError):
                part.close()
