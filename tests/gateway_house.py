"""A gateway and everything around it for tests: a scripted venue on the other end of a real socket, and a clock that stands still.

The venue is plain Python and speaks SoupBinTCP and OUCH through the tables of engine/gateway; nothing is replaced or patched. Nothing
sleeps: `settle` sends a heartbeat each way through the streams, and when both have arrived everything before them has.
"""

import socket
import time
import uuid
from collections.abc import Callable, Iterator
from functools import cache
from typing import Any

import pytest
from numba import config

from engine.gateway.hot.state import ENDED, EXPECTED, FREE, LOGIN_SENT, STATE
from engine.gateway.hot.step import step
from engine.gateway.ouch import v50 as ouch
from engine.gateway.stage import GatewayStage, packet
from engine.layout import (
    BOOK_VALID,
    BUY,
    CONTROL,
    GATEWAY_STATS,
    INSTRUMENT,
    MSG_ACCEPTED,
    MSG_BROKEN,
    MSG_CANCEL,
    MSG_CANCELLED,
    MSG_EXECUTED,
    MSG_NEW,
    MSG_REJECTED,
    MSG_REPLACE,
    MSG_REPLACED,
    OPEN_ORDER,
    ORDER,
    ORDERS,
    PHASE_TRADING,
    POSITION,
    QUOTE,
    REPORT,
    REPORTS,
    RISK_FACTS,
    RISK_RULES,
    SELL,
    TIF_DAY,
    pack_symbol,
)
from engine.messages.hot.stamp import NOW
from engine.risk.limits import Limits
from engine.risk.rules import Rules
from engine.risk.rules import write as write_rules
from engine.runtime.clock import simulated_clock
from engine.wire import soupbintcp
from engine.wire.credentials import Credentials
from shm.hot import EMPTY, advance, claim, commit, poll, release
from shm.layout import HISTOGRAM
from shm.ring import Ring, round_up_capacity
from shm.table import Board, Table
from tests.ouch42_tongue import TRADER, Tongue

PROTOCOLS = ("ouch50", "ouch42")
PLAIN = bool(config.DISABLE_JIT)
PATIENCE_S = 60.0
LINES = 16
AAPL, MSFT = 3, 9
PX = 1_000_000
MIDNIGHT_NS = 1_700_000_000 * 10**9
START_TSC = 10**12
SECOND = 10**9
LIMITS: dict[str, Any] = {
    "order_qty_min": "off",
    "order_qty_max": 100_000,
    "order_qty_step": "off",
    "order_px_step": "off",
    "order_notional_min": "off",
    "order_notional_max": 1e9,
    "notional_window_max": "off",
    "notional_window_ms": 1_000.0,
    "notional_session_max": "off",
    "collar_bps": 500.0,
    "collar_window_bps": "off",
    "collar_window_ms": 1_000.0,
    "reference_age_max_ms": 86_400_000.0,
    "position_max": 10**9,
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
    "message_rate_per_s": 1_000_000,
    "message_burst": 1_000_000,
    "order_to_trade_max": "off",
    "order_to_trade_free": 1_000_000,
    "strategy_orders_max": "off",
    "strategy_window_ms": 1_000.0,
    "restricted": (),
}
KINDS = {
    MSG_ACCEPTED: "accepted",
    MSG_REPLACED: "replaced",
    MSG_CANCELLED: "cancelled",
    MSG_EXECUTED: "executed",
    MSG_REJECTED: "rejected",
    MSG_BROKEN: "broken",
}


# How the house under test speaks 4.2; None: it speaks 5.0. Tests say everything in 5.0.
SPOKEN: dict[str, Tongue | None] = {"tongue": None}


class Venue:
    """The other end: a listening socket, one client, and what it said, parsed as it comes."""

    def __init__(self) -> None:
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.client: socket.socket | None = None
        self.stream = b""
        self.heard: list[tuple[str, Any]] = []
        self.match = 1_000

    @property
    def address(self) -> tuple[str, int]:
        host, port = self.listener.getsockname()
        return host, port

    def take(self, connections: list[socket.socket]) -> None:
        """The newest connection: of those made in another way, or of our listener."""
        if not connections:
            self.accept()
            return
        self.client = connections.pop()
        self.client.settimeout(PATIENCE_S)
        self.stream = b""

    def accept(self) -> None:
        self.listener.settimeout(PATIENCE_S)
        self.client, _ = self.listener.accept()
        self.client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.client.settimeout(PATIENCE_S)
        self.stream = b""

    def send(self, raw: bytes) -> None:
        assert self.client is not None
        self.client.sendall(raw)

    def say(self, message: Any, **fields: Any) -> None:
        self.send(sequenced(message, **fields))

    def hear(self) -> None:
        """Read and parse whatever has arrived."""
        if self.client is None:
            return
        self.client.setblocking(False)
        try:
            while got := self.client.recv(1 << 16):
                self.stream += got
        except BlockingIOError:
            pass
        finally:
            self.client.settimeout(PATIENCE_S)
        while len(self.stream) >= 2 and len(self.stream) >= 2 + (length := int.from_bytes(self.stream[:2], "big")):
            self.heard.append(parsed(self.stream[2 : 2 + length]))
            self.stream = self.stream[2 + length :]

    def hang_up(self, *, reset: bool = False) -> None:
        assert self.client is not None
        if reset:
            self.client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\x01\0\0\0\0\0\0\0")
        self.client.close()
        self.client = None

    def close(self) -> None:
        self.listener.close()
        if self.client is not None:
            self.hang_up()


def sequenced(message: Any, **fields: Any) -> bytes:
    """A sequenced packet holding an OUCH message whose unimportant fields are filled in."""
    usual: dict[str, Any] = {
        "timestamp": 5, "side": "B", "symbol": "AAPL", "px": PX, "tif": "0", "display": "Y", "order_ref": 1, "capacity": "P", "sweep": "N",
        "cross": "N", "state": "L", "client_id": "", "appendage_length": 0, "liquidity": "A", "reason": "U", "quantity_prevented": 0,
    }  # fmt: skip
    wanted = {entry.name for entry in message.fields} - {"type"}
    assert fields.keys() <= wanted, fields.keys() - wanted
    raw = message.encode(**{name: value for name, value in usual.items() if name in wanted} | fields)
    tongue = SPOKEN["tongue"]
    return packet(soupbintcp.SEQUENCED, tongue.to_42(raw) if tongue else raw)


def parsed(raw: bytes) -> tuple[str, Any]:
    """A client's packet as (kind, fields)."""
    kind, payload = raw[0], raw[1:]
    if kind == soupbintcp.UNSEQUENCED:
        message = ouch.INBOUND_BY_CODE[payload[0]]
        tongue = SPOKEN["tongue"]
        return message.name, tongue.to_50(payload, inbound=True) if tongue else message.decode(payload)
    if kind == soupbintcp.LOGIN_REQUEST.code:
        return "login", soupbintcp.LOGIN_REQUEST.decode(raw)
    assert payload == b""
    return {soupbintcp.CLIENT_HEARTBEAT: "heartbeat", soupbintcp.LOGOUT: "logout"}[kind], None


class House:
    """A gateway with everything around it, its strategy's end of the rings, and its venue."""

    def __init__(
        self,
        *,
        login: bool = True,
        reports_capacity: int = 1024,
        limits: dict[str, Any] | None = None,
        protocol: str = "ouch50",
        **options: Any,
    ) -> None:
        self.protocol = protocol
        SPOKEN["tongue"] = Tongue() if protocol == "ouch42" else None
        self.prefix = prefix = f"test-gateway-{uuid.uuid4().hex[:12]}"
        self.made: list[Any] = []
        self.open_orders: Board | None = None
        self.orders = self._keep(Ring.create(f"{prefix}.orders", 1024, ORDERS, ["gateway"]))
        self.reports = self._keep(Ring.create(f"{prefix}.reports", reports_capacity, REPORTS, ["strategy"]))
        self.quotes = self._keep(Board.create(f"{prefix}.quotes", QUOTE, LINES))
        self.instruments = self._keep(Board.create(f"{prefix}.instruments", INSTRUMENT, LINES))
        self.positions = self._keep(Board.create(f"{prefix}.positions", POSITION, LINES))
        self.stats_table = self._keep(Table.create(f"{prefix}.stats", GATEWAY_STATS))
        self.control_table = self._keep(Table.create(f"{prefix}.control", CONTROL))
        self.hops = self._keep(Table.create(f"{prefix}.hops", HISTOGRAM, 10))
        self.rules = self._keep(Board.create(f"{prefix}.rules", RISK_RULES, 1))
        self.facts_table = self._keep(Table.create(f"{prefix}.facts", RISK_FACTS))
        self.facts = self.facts_table.records[0]
        self.control = self.control_table.records[0]
        self.stats = self.stats_table.records[0]
        self.clock = simulated_clock(START_TSC, base_ns=MIDNIGHT_NS)
        self.venue = Venue()
        self.prepare_boards()
        self.limits = Limits(**LIMITS | (limits or {}))
        write_rules(self.rules, Rules(self.limits, symbols=2, venue_qty_max=ouch.QUANTITY_MAX))
        self.stage = self.gateway(limits=self.limits, **options)
        if self.stage.socket is not None:
            self.venue.accept()
        self.into = self.orders.producer(ORDER).end
        self.out = self.reports.consumer("strategy", REPORT).end
        self.last_id = 0
        self.ending = 0
        self.pings = 0
        # Those that a connector of the test's own made.
        self.connections: list[socket.socket] = []
        self.kept: list[dict[str, Any]] = []
        if login:
            self.login()

    def gateway(self, **options: Any) -> GatewayStage:
        usual: dict[str, Any] = {
            "address": self.venue.address, "credentials": Credentials.of("TICK", "PATH"), "limits": Limits(**LIMITS),
            "midnight_ns": MIDNIGHT_NS,
            "symbols": ["AAPL", "MSFT"], "executions_max": 1 << 12, "reconnect_tries": 0,
        }  # fmt: skip
        if self.protocol == "ouch42":
            usual |= {"protocol": "ouch42", "trader": TRADER}
        places = round_up_capacity(options.setdefault("orders_max", 64))
        if self.open_orders is None or len(self.open_orders.records) != places:
            self.open_orders = self._keep(Board.create(f"{self.prefix}-{places}.open_orders", OPEN_ORDER, places))
        return GatewayStage(
            open_orders=self.open_orders,
            orders=self.orders, reports=self.reports, quotes=self.quotes, instruments=self.instruments, positions=self.positions,
            stats=self.stats_table, control=self.control_table, hops=self.hops, rules=self.rules, facts=self.facts_table, **usual | options,
        )  # fmt: skip

    def rebuild(self, **options: Any) -> None:
        """Another life of the gateway, on the same rings and boards."""
        self.stage.close()
        self.venue.hang_up()
        self.stats.executed = 0
        self.stage = self.gateway(limits=self.limits, **options)
        self.venue.accept()

    def _keep(self, made: Any) -> Any:
        self.made.append(made)
        return made

    def prepare_boards(self) -> None:
        for line, symbol in ((AAPL, "AAPL"), (MSFT, "MSFT")):
            self.instruments.records[line].symbol = pack_symbol(symbol)
            self.instruments.records[line].tick_px = 100
            self.instruments.records[line].lot_qty = 100
            quote = self.quotes.records[line]
            quote.flags, quote.bid_px, quote.bid_sz, quote.ask_px, quote.ask_sz = BOOK_VALID, PX - 100, 100, PX + 100, 100
            quote.origin_tsc = START_TSC
            self.instruments.words()[line][0] = self.quotes.words()[line][0] = 2
        self.control.phase = PHASE_TRADING

    def close(self) -> None:
        self.stage.close()
        self.venue.close()
        for made in self.made:
            made.unlink()

    # The gateway's turns.

    def turn(self) -> int:
        self.stage.attend()
        done = step(self.stage.state, self.clock)
        if done < 0:
            self.ending = done
        return done

    def turn_until(self, reached: Callable[[], bool], what: str, *, drained: bool = True) -> None:
        """Turn, with the venue and (unless not `drained`) the strategy reading what comes, until `reached` is true."""
        deadline = time.monotonic() + PATIENCE_S
        while not reached():
            self.turn()
            self.venue.hear()
            if drained:
                self.kept += self.read()
            assert time.monotonic() < deadline, f"never came: {what}; stats={self.stats}"

    def turn_to_the_end(self) -> int:
        self.turn_until(lambda: self.ending != 0, "the end of the session")
        assert self.turn() == self.ending
        assert self.control.session_up == 0
        return self.ending

    def login(self, *, replay: bytes = b"", next_user_ref: int = 1, head: int = 0) -> None:
        """The first login of this gateway: it asks how far the sequence has come, then for the day, and for the end of it."""
        self.probe(head)
        self.answer_login()
        self.venue.send(replay)
        self.come_up(next_user_ref)

    def probe(self, head: int = 0) -> None:
        """The login that only asks where the venue's sequence is, which this one answers with the number of its last packet, so that no
        query has to be asked twice. Afterwards the next login is under way."""
        self.heard("login")
        self.venue.send(login_accepted(head))
        self.heard("logout")
        self.venue.hang_up()
        self.meet()

    def meet(self) -> None:
        """Take the connection that the gateway makes."""
        if self.venue.client is not None:
            self.venue.hang_up()
        self.turn_until(lambda: self.session[STATE] == LOGIN_SENT or self.let_time_pass(), "a connection")
        self.venue.take(self.connections)

    def answer_login(self, sequence: int = 1) -> None:
        self.heard("login")
        self.venue.send(login_accepted(sequence))

    def come_up(self, next_user_ref: int = 1) -> None:
        """Answer the account query, which ends the reconciliation unless an order of an earlier life is open. In 4.2 a heartbeat does."""
        if self.protocol == "ouch42":
            self.pings = int(self.stats.heartbeats_received) + 1
            self.venue.send(packet(soupbintcp.SERVER_HEARTBEAT))
            self.turn_until(lambda: bool(self.control.session_up), "the session")
            return
        self.heard("account query")
        self.venue.say(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=next_user_ref)
        self.turn_until(lambda: bool(self.control.session_up), "the session")

    def reconnect(self, *, replay: bytes = b"", next_user_ref: int = 1) -> str:
        """A lost session is made again, with what the venue tells again. Returns the number of the packet that was asked for."""
        self.meet()
        if self.protocol == "ouch42":
            self.probe(int(self.session[EXPECTED]) + len(soup_lengths(replay)))
        asked: str = self.heard("login")["sequence"]
        self.venue.send(login_accepted(int(asked)) + replay)
        self.come_up(next_user_ref)
        return asked.strip()

    def heard(self, kind: str) -> Any:
        """Turn until the venue has heard this; what it was. What was heard before is forgotten."""
        self.turn_until(lambda: any(said == kind for said, _ in self.venue.heard), f"the {kind}")
        place = next(place for place, (said, _) in enumerate(self.venue.heard) if said == kind)
        found = self.venue.heard[place][1]
        del self.venue.heard[: place + 1]
        return found

    @property
    def session(self) -> Any:
        return self.stage.state.session

    def settle(self) -> list[tuple[str, Any]]:
        """Let everything that is under way arrive, both ways. Returns what the venue heard since it was last asked."""
        self.turn_until(lambda: not self.orders.backlog()["gateway"], "all orders to be taken")
        self.pings += 1
        self.venue.send(packet(soupbintcp.SERVER_HEARTBEAT))
        self.turn_until(lambda: self.stats.heartbeats_received >= self.pings, "a heartbeat")
        beats = int(self.stats.heartbeats_sent)
        self.turn_until(lambda: self.stats.heartbeats_sent > beats or self.let_time_pass(), "our heartbeat")
        self.turn_until(lambda: bool(self.venue.heard) and self.venue.heard[-1][0] == "heartbeat", "our heartbeat there")
        self.check_gate()
        heard = [said for said in self.venue.heard if said[0] != "heartbeat"]
        self.venue.heard.clear()
        return heard

    def check_gate(self) -> None:
        """What the gate keeps is what it would be if counted anew: the totals from the positions, its lists from the order table."""
        risk, table = self.stage.risk, self.stage.state.table
        totals = dict.fromkeys(("gross", "net_long", "net_short", "gross_qty", "pnl"), 0)
        for line in risk.lines[: int(self.facts.lines)]:
            held = self.positions.records[line.instrument]
            long, short = int(held.position + held.open_buy), int(held.open_sell - held.position)
            totals["gross"] += max(long, short) * int(line.mark)
            totals["net_long"] += long * int(line.mark)
            totals["net_short"] += short * int(line.mark)
            totals["gross_qty"] += max(long, short)
            totals["pnl"] += int(held.cash) + int(held.position) * int(line.mark)
        assert totals == {name: int(self.facts[name]) for name in totals}
        assert int(self.facts.executions) == int(self.stats.executed) - int(self.stats.broken)
        listed = {place: own for place, own in enumerate(risk.own) if own.linked}
        assert sorted(listed) == [place for place, entry in enumerate(table) if FREE < entry.state < ENDED]
        for place, own in listed.items():
            entry = table[place]
            assert (own.px, own.side, risk.lines[own.place].instrument) == (entry.px, entry.side, entry.instrument)
        for place, line in enumerate(risk.lines[: int(self.facts.lines)]):
            for side, head, count in ((BUY, line.bids, line.bid_count), (SELL, line.asks, line.ask_count)):
                walked = []
                while head:
                    walked.append(int(head) - 1)
                    head = risk.own[head - 1].next
                assert sorted(walked) == sorted(at for at, own in listed.items() if own.place == place and own.side == side)
                assert len(walked) == count
            bids = [own.px for own in listed.values() if own.place == place and own.side == BUY]
            asks = [own.px for own in listed.values() if own.place == place and own.side == SELL]
            assert not bids or line.highest_bid >= max(bids)
            assert not asks or line.lowest_ask <= min(asks)

    def let_time_pass(self) -> bool:
        """A tenth of a second, once nothing is left to do. Always False."""
        if self.turn() == 0:
            self.clock.words[NOW] += SECOND // 10
        return False

    # The strategy's end.

    def put(self, kind: int, **fields: Any) -> int:
        index = claim(self.into)
        assert index >= 0
        order = self.into.slots[index]
        usual = {
            "origin_tsc": int(self.clock.words[NOW]), "ts_ns": 0, "kind": kind, "flags": 0, "instrument": AAPL, "age_tsc": 0, "px": PX,
            "qty": 100, "order_id": 0, "target_id": 0, "side": BUY, "tif": TIF_DAY, "strategy": 0,
        }  # fmt: skip
        for name, value in (usual | fields).items():
            order[name] = value
        commit(self.into, index)
        return int(order.order_id)

    def new(self, **fields: Any) -> int:
        self.last_id += 1
        return self.put(MSG_NEW, **{"order_id": self.last_id} | fields)

    def replace(self, target: int, **fields: Any) -> int:
        self.last_id += 1
        return self.put(MSG_REPLACE, **{"order_id": self.last_id, "target_id": target} | fields)

    def cancel(self, order_id: int, **fields: Any) -> int:
        return self.put(MSG_CANCEL, **{"order_id": order_id, "qty": 0} | fields)

    def live(self, **fields: Any) -> int:
        """An order that the venue has accepted; what was said on the way is forgotten."""
        order_id = self.new(**fields)
        self.settle()
        self.venue.say(ouch.ACCEPTED, user_ref=self.ref_of(order_id), quantity=fields.get("qty", 100))
        self.settle()
        self.told()
        return order_id

    def told(self) -> list[dict[str, Any]]:
        """The reports since the strategy was last asked."""
        found, self.kept = self.kept + self.read(), []
        return found

    def read(self) -> list[dict[str, Any]]:
        found = []
        while (index := poll(self.out)) != EMPTY:
            record = self.out.slots[index]
            found.append({"is": KINDS[int(record["kind"])]} | {name: int(record[name]) for name in record.dtype.names})
            advance(self.out)
        release(self.out)
        return found

    # What the gateway believes.

    def entry(self, order_id: int) -> Any:
        """The newest entry of an order that its strategy calls by this number."""
        found = [entry for entry in self.stage.state.table if entry.order_id == order_id and entry.state != FREE]
        return max(found, key=lambda entry: int(entry.user_ref))

    def ref_of(self, order_id: int) -> int:
        """What the venue calls it."""
        return int(self.entry(order_id).user_ref)

    def state_of(self, order_id: int) -> int:
        return int(self.entry(order_id).state)

    def line(self, instrument: int = AAPL) -> dict[str, int]:
        record = self.positions.records[instrument]
        assert record.version % 2 == 0
        return {name: int(record[name]) for name in ("position", "cash", "bought", "sold", "fills", "open_buy", "open_sell")}

    def opens(self, instrument: int = AAPL) -> tuple[int, int]:
        line = self.line(instrument)
        return line["open_buy"], line["open_sell"]


def soup_lengths(raw: bytes) -> list[int]:
    """The lengths of the packets that stand one behind the other."""
    found = []
    while raw:
        found.append(2 + int.from_bytes(raw[:2], "big"))
        raw = raw[found[-1] :]
    return found


def login_accepted(sequence: int = 1, session: str = "S1") -> bytes:
    message = soupbintcp.LOGIN_ACCEPTED.encode(session=session.rjust(10), sequence=str(sequence).rjust(20))
    return packet(message[0], message[1:])


@cache
def compile_kernels() -> None:
    """Compile before the first test's patience begins to run out."""
    house = House(login=False)
    house.turn()
    house.close()


def build_houses(protocol: str = "ouch50") -> Iterator[Callable[..., House]]:
    """A fixture in the making (`houses = pytest.fixture(build_houses)`): builds houses, and takes them down after the test."""
    compile_kernels()
    built: list[House] = []

    def build(**options: Any) -> House:
        built.append(House(**{"protocol": protocol} | options))
        return built[-1]

    yield build
    for house in built:
        house.close()
    SPOKEN["tongue"] = None


def build_houses_of_both(request: pytest.FixtureRequest) -> Iterator[Callable[..., House]]:
    """The same for `pytest.fixture(params=PROTOCOLS)`: the test is run with OUCH 5.0 and with 4.2."""
    yield from build_houses(request.param)


def build_house() -> Iterator[House]:
    """One house of the usual make, logged in."""
    for build in build_houses():
        yield build()


def brief(reports: list[dict[str, Any]], *names: str) -> list[tuple[Any, ...]]:
    return [tuple(report[name] for name in ("is", *names)) for report in reports]
