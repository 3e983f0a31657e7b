"""The venues of the fault tests: one that follows a script and is asked by fault_proxy's servers, and the simulated exchange itself.

Both say what they publish packet by packet, and both have an oracle beside them: the sessions of fault_market.
"""

import contextlib
import random
import socket
import uuid
from dataclasses import dataclass

from engine.exchange.hot.step import step
from engine.exchange.stage import ExchangeStage
from engine.feed.itch import ABOUT_ORDER, LENGTHS
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES
from engine.layout import CONTROL, EXCHANGE_STATS, PHASE_DRAINING, PHASE_TRADING, POSITION
from engine.messages.hot.stamp import NOW
from engine.runtime.clock import simulated_clock
from shm.table import Board, Table
from tests.exchange_rig import open_orders
from tests.fault_market import Order, Session, made_session
from tests.fault_plan import MS, US, Plan
from tests.fault_proxy import NUMBERS
from tests.feed_house import MIDNIGHT_NS, START_TSC
from tests.itch_flow import end_of_session, heartbeat, packet, unframe
from tests.ports import free_port

HEARTBEAT_NS = 1 * MS


@dataclass
class Published:
    at_ns: int
    session: int
    first: int
    messages: list[bytes]


class ScriptVenue:
    """Sessions made beforehand, in packets at their times; then heartbeats, or ends of session."""

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        self.sessions = [made_session(plan.session)] + ([made_session(plan.session, later=True)] if plan.later else [])
        self.lengths = [len(session.messages) for session in self.sessions]
        if plan.cut_short is not None:
            self.lengths[0] = min(self.lengths[0], plan.cut_short)
        self.sent = [list(session.messages) for session in self.sessions]
        for _ in range(plan.damaged):
            damage(rng.choice(self.sent), rng)
        self.script = scripted(plan, self.sent, self.lengths, rng)
        self.says_end = plan.says_end
        self.before_first = plan.before_first
        self.at = 0
        self.session = 0
        self.count = 0
        self.spoke_ns = 0

    def close(self) -> None:
        pass

    def step(self, now_ns: int) -> list[bytes]:
        """The packets that are published by now."""
        said: list[bytes] = []
        while not self.is_over() and self.script[self.at].at_ns <= now_ns:
            next_one = self.script[self.at]
            if next_one.session != self.session and self.says_end:
                said.append(named(end_of_session(self.wire_number(self.count + 1)), self.session_name()))
            self.at += 1
            self.session, self.count = next_one.session, next_one.first + len(next_one.messages) - 1
            said.append(packet(self.wire_number(next_one.first), next_one.messages, session=self.session_name()))
        if not said and now_ns - self.spoke_ns >= HEARTBEAT_NS:
            last = end_of_session if self.is_over() and self.says_end else heartbeat
            said.append(named(last(self.wire_number(self.count + 1)), self.session_name()))
        if said:
            self.spoke_ns = now_ns
        return said

    def is_over(self) -> bool:
        return self.at == len(self.script)

    def session_name(self) -> str:
        return self.sessions[self.session].name

    def published(self) -> int:
        return self.count

    def wire_number(self, sequence: int) -> int:
        return (self.before_first + sequence) % NUMBERS

    def message(self, sequence: int) -> bytes:
        return self.sent[self.session][sequence - 1]

    def snapshot(self, count: int) -> list[bytes]:
        return self.sessions[self.session].snapshot(count)

    def resting(self) -> list[Order]:
        return self.sessions[self.session].book_after(self.count).resting()


def scripted(plan: Plan, sent: list[list[bytes]], lengths: list[int], rng: random.Random) -> list[Published]:
    script, now_ns = [], 0
    for number, messages in enumerate(sent):
        first = 1
        while first <= lengths[number]:
            now_ns += int(rng.expovariate(1 / plan.pace_ns)) + 1
            last = min(first + rng.randrange(plan.packet_messages_max), lengths[number])
            script.append(Published(now_ns, number, first, messages[first - 1 : last]))
            first = last + 1
        now_ns += rng.choice([1, 300 * US, 8 * MS])
    return script


def damage(messages: list[bytes], rng: random.Random) -> None:
    """Send one of the messages about an order with a byte too few or too many; its head can be read."""
    about_orders = [at for at, raw in enumerate(messages) if ABOUT_ORDER[raw[0]] and len(raw) == LENGTHS[raw[0]]]
    at = rng.choice(about_orders)
    messages[at] = messages[at][:-1] if rng.random() < 0.5 else messages[at] + b"\0"


def named(raw: bytes, session: str) -> bytes:
    return session.encode().ljust(10) + raw[10:]


class ExchangeVenue:
    """The simulated exchange, its kernels and its sockets. Its packets are taken from its line A; line B must say the same."""

    SYMBOLS = ("AAPL", "MSFT", "NVDA")

    def __init__(self, plan: Plan, rng: random.Random) -> None:
        name = f"test-fault-venue-{uuid.uuid4().hex[:12]}"
        self.name = f"EX{plan.seed % 10**8:08d}"
        self.control, self.stats = Table.create(f"{name}.control", CONTROL), Table.create(f"{name}.stats", EXCHANGE_STATS)
        positions = Board.create(f"{name}.positions", POSITION, 65_536)
        for table in (self.control, self.stats, positions):
            table.unlink()
        self.taps = [tap(), tap()]
        self.rewind_addresses = [("127.0.0.1", free_port()) for _ in plan.rewind]
        self.stage = ExchangeStage(
            control=self.control, stats=self.stats, positions=positions, market_address=self.taps[0].getsockname(),
            market_address_b=self.taps[1].getsockname(), order_address=("127.0.0.1", 0), username="TICK", password="PATH",
            session=self.name, flow="generated", symbols=dict.fromkeys(self.SYMBOLS, 150.0), seed=plan.seed,
            rate_per_s=1e9 / plan.pace_ns, orders_max=1 << 12, levels_max=1 << 11, client_orders_max=16, reports_max=16,
            rewind_addresses=self.rewind_addresses, rewind_messages=1 << 14, snapshot_address=("127.0.0.1", 0), snapshot_username="TICK",
            snapshot_password="PATH", midnight_ns=MIDNIGHT_NS,
        )  # fmt: skip
        self.clock = simulated_clock(START_TSC, base_ns=MIDNIGHT_NS)
        self.sessions = [Session(self.name, len(self.SYMBOLS), [])]
        self.session = 0
        self.lengths = [0]
        self.over_ns = rng.randrange(2, 40) * MS
        self.control.records["phase"][0] = PHASE_TRADING
        self.now_ns = 0
        self.problems: list[str] = []

    def close(self) -> None:
        self.stage.close()
        for socket_ in self.taps:
            socket_.close()

    def step(self, now_ns: int) -> list[bytes]:
        self.now_ns = now_ns
        self.clock.words[NOW] = START_TSC + now_ns
        if self.is_over():
            self.control.records["phase"][0] = PHASE_DRAINING
        for _ in range(1_000):
            if step(self.stage.state, self.clock) == 0:
                break
        said, again = drained(self.taps[0]), drained(self.taps[1])
        if said != again:
            self.problems.append(f"line A says {len(said)} packets, line B {len(again)}, and they differ")
        for raw in said:
            self._learn(raw)
        return said

    def _learn(self, raw: bytes) -> None:
        """The oracle hears every packet before anything happens to it."""
        first, count = int.from_bytes(raw[10:COUNT_AT], "big"), int.from_bytes(raw[COUNT_AT:HEADER_BYTES], "big")
        session = self.sessions[0]
        if first != len(session.messages) + 1:
            self.problems.append(f"the exchange published {first} after {len(session.messages)}")
        if count != END_OF_SESSION:
            for message in unframe(raw[HEADER_BYTES:]):
                session.append(message)
        self.lengths[0] = len(session.messages)

    @property
    def count(self) -> int:
        return len(self.sessions[0].messages)

    def is_over(self) -> bool:
        return self.now_ns >= self.over_ns

    def session_name(self) -> str:
        return self.name

    def resting(self) -> list[Order]:
        """Read from the exchange's own book."""
        side = {"B": 66, "S": 83}
        found = [(order["locate"], side[order["side"]], order["px"], order["ref"], order["qty"]) for order in open_orders(self)]  # type: ignore[arg-type]
        return sorted(found, key=lambda order: order[:2])


def tap() -> socket.socket:
    return tap_at(("127.0.0.1", 0))


def tap_at(address: tuple[str, int]) -> socket.socket:
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4 << 20)
    made.bind(address)
    made.setblocking(False)
    return made


def drained(held: socket.socket) -> list[bytes]:
    found = []
    with contextlib.suppress(BlockingIOError):
        while True:
            found.append(held.recv(65_536))
    return found
