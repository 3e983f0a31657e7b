"""The venue of a real run, in a thread of the test: an exchange, and a relay between its port and the one that the gateway knows.

    tickpath run ──TCP──▶ relay ──TCP──▶ exchange ──UDP──▶ tickpath run
                            └── the judge hears both ways

The thread is the only one that touches the exchange, the links and the judge; others hand it what is to be done (`do`).
"""

import queue
import random
import socket
import threading
import time
import traceback
import uuid
from collections.abc import Callable
from typing import Any

from engine.exchange.hot.state import CLIENT_FD, LINK, LOG_SLOT_BYTES, LOGGED, NEXT_NS, NOW_NS
from engine.exchange.hot.step import step
from engine.exchange.stage import ExchangeStage
from engine.layout import CONTROL, EXCHANGE_STATS, ORDER, PHASE_TRADING, POSITION, REPORT
from engine.runtime.clock import calibrate
from shm.observer import Observer
from shm.ring import Ring
from shm.table import Board, Table
from tests.live_judge import LiveJudge
from tests.live_plan import LivePlan
from tests.ports import free_port
from tests.sim_judge import peer_of
from tests.sim_network import Link, Pipe
from tests.sim_plan import LinkFaults

HOST = "127.0.0.1"
SYMBOLS = {"AAPL": 100.0, "MSFT": 50.0}
NUMBERS = {symbol: place + 1 for place, symbol in enumerate(SYMBOLS)}
USERNAME, PASSWORD = "TICK", "PATH"
STEPS = 20
NAP_S = 0.0003
TURN_NS = 1_000_000
PATIENCE_S = 30.0
# What was on its way when the gateway had carried out a kill is here after this long.
ON_ITS_WAY_S = 0.1


class Tap(Pipe):
    """A direction of which somebody is told all that comes."""

    tell: Callable[[bytes], None]

    def read(self, now_ns: int) -> bytes:
        taken = super().read(now_ns)
        if taken:
            self.tell(taken)
        return taken


class TcpLink(Link):
    """A connection that the gateway made to the relay, and the relay's own to the exchange."""

    def __init__(self, number: int, faults: LinkFaults, seed: int, near: socket.socket, port: int, turn: int) -> None:
        self.number, self.faults, self.began = number, faults, turn
        self.near = self.theirs = near
        self.far = socket.create_connection((HOST, port))
        for made in (self.near, self.far):
            made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            made.setblocking(False)
        self.name = self.far.getsockname()
        chance = random.Random(f"link {seed} {number}")
        self.up, self.down = Tap(chance, faults, self.near, self.far), Pipe(chance, faults, self.far, self.near)
        self.alive, self.silent = True, False


class LiveVenue:
    """`close` it in the end. problem: what ended the thread, if anything did."""

    def __init__(self, plan: LivePlan) -> None:
        self.plan, self.judge = plan, LiveJudge(plan, NUMBERS)
        self.ports = {name: free_port(socket.SOCK_DGRAM) for name in ("market", "rewind")}
        self.ports["snapshot"] = free_port(socket.SOCK_STREAM)
        self.listener = socket.create_server((HOST, free_port(socket.SOCK_STREAM)))
        self.listener.setblocking(False)
        self.ports["orders"] = self.listener.getsockname()[1]
        self.stage = self._exchange()
        self.clock = calibrate().clock()
        self.links: list[TcpLink] = []
        self.over: set[int] = set()
        self.logged = 0
        self.turns = 0
        self.rings: list[Ring] = []
        self.watched: list[tuple[Observer, Callable[[Any], None]]] = []
        self.stalled_until = 0.0
        self.wishes: queue.Queue[Callable[[], None]] = queue.Queue()
        self.problem = ""
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self._run, name="venue")
        self.thread.start()

    def _exchange(self) -> ExchangeStage:
        name = f"test-live-{uuid.uuid4().hex[:12]}"
        self.control, self.stats = Table.create(f"{name}.control", CONTROL), Table.create(f"{name}.stats", EXCHANGE_STATS)
        positions = Board.create(f"{name}.positions", POSITION, 65_536)
        for table in (self.control, self.stats, positions):
            table.unlink()
        self.control.records[0]["phase"] = PHASE_TRADING
        return ExchangeStage(
            control=self.control, stats=self.stats, positions=positions, market_address=(HOST, self.ports["market"]),
            order_address=(HOST, 0), username=USERNAME, password=PASSWORD, session="LIVE", flow="generated", symbols=SYMBOLS,
            seed=self.plan.seed, rate_per_s=500.0, rewind_addresses=[(HOST, self.ports["rewind"])], rewind_messages=1 << 14,
            snapshot_address=(HOST, self.ports["snapshot"]), snapshot_username=USERNAME, snapshot_password=PASSWORD,
            cancel_on_disconnect=not self.plan.keeps_orders, orders_max=1 << 14, levels_max=1 << 13, client_orders_max=1 << 14,
            reports_max=1 << 16,
        )  # fmt: skip

    # What others ask for.

    def do(self, wish: Callable[[], Any]) -> Any:
        """Have the thread do it between two turns, and hand back what it returns."""
        done: queue.Queue[Any] = queue.Queue()
        self.wishes.put(lambda: done.put(wish()))
        deadline = time.monotonic() + PATIENCE_S
        while True:
            try:
                return done.get(timeout=0.1)
            except queue.Empty:
                assert not self.problem, self.problem
                assert time.monotonic() < deadline, "the venue's thread does not turn"

    def watch(self, orders: Ring, reports: Ring) -> None:
        """A new life: look at its rings from their beginning."""

        def begin() -> None:
            self.drop()
            self.judge.begin_life()
            self.rings = [orders, reports]
            self.watched = [
                (orders.observer(ORDER, at="oldest"), self.judge.ask), (reports.observer(REPORT, at="oldest"), self.judge.tell),
            ]  # fmt: skip

        self.do(begin)

    def drop(self) -> None:
        for observer, _ in self.watched:
            if observer.lost:
                self.judge.say(f"messages lost on the way to the judge: {observer.lost}")
            observer.close()
        for ring in self.rings:
            ring.detach()
        self.watched, self.rings = [], []

    def cut(self, how: str) -> bool:
        """End the newest connection in that way; whether there was one."""
        alive = [link for link in self.links if link.alive and not link.silent]
        if alive:
            alive[-1].break_off(how, self._note)
        return bool(alive)

    def stall(self, seconds: float) -> None:
        self.stalled_until = time.monotonic() + seconds

    def flow(self, *, on: bool) -> None:
        """Whether others trade too."""
        self.stage.state.flow.words[NEXT_NS] = self.stage.state.venue.words[NOW_NS] if on else 1 << 62

    # What the thread does.

    def _note(self, what: str, *values: Any) -> None:
        self.judge.counts[what] += 1

    def _run(self) -> None:
        try:
            while not self.ending.is_set():
                while not self.wishes.empty():
                    self.wishes.get()()
                if time.monotonic() >= self.stalled_until:
                    self._turn()
                time.sleep(NAP_S)
        except BaseException:
            self.problem = traceback.format_exc()

    def _turn(self) -> None:
        self._let_in()
        self.turns = time.monotonic_ns() // TURN_NS
        for link in self.links:
            if link.alive:
                _, delivered = link.turn(self.turns, time.monotonic_ns(), self._note)
                if delivered:
                    self.judge.hear_delivered(link.number, link.name, delivered)
        for _ in range(STEPS):
            step(self.stage.state, self.clock)
        self._read_log()
        for link in self.links:
            if not link.alive and link.number not in self.over and self._is_forgotten(link):
                self.over.add(link.number)
                self.judge.account.lose(link.number)

    def _let_in(self) -> None:
        try:
            near, _ = self.listener.accept()
        except BlockingIOError:
            return
        number = len(self.links)
        faults = self.plan.links[number] if number < len(self.plan.links) else LinkFaults()
        link = TcpLink(number, faults, self.plan.seed, near, self.stage.order_port, self.turns)
        link.up.tell = lambda raw: self._hear_us(number, raw)  # type: ignore[attr-defined]
        self.links.append(link)

    def _hear_us(self, number: int, raw: bytes) -> None:
        self.look_at_rings()
        self.judge.hear_us(number, raw)

    def look_at_rings(self) -> None:
        """An order is on its ring before its bytes leave, so whoever looks here first has seen what they come from."""
        for observer, note in self.watched:
            while (message := observer.poll()) is not None:
                note(message)

    def _read_log(self) -> None:
        clients = self.stage.state.venue.clients
        log, logged = clients.log[0], int(clients.words[0, LOGGED])
        slots = log.shape[0] // LOG_SLOT_BYTES
        for number in range(self.logged, logged):
            at = number % slots * LOG_SLOT_BYTES
            length = int(log[at]) << 8 | int(log[at + 1])
            self.judge.hear_venue(log[at + 3 : at + 2 + length].tobytes(), number + 1, self._ours())
        self.logged = logged

    def _ours(self) -> Any:
        """The connection that the venue takes for ours."""
        row = int(self.stage.state.venue.clients.words[0, LINK]) - 1
        return peer_of(int(self.stage.state.links.words[row, CLIENT_FD])) if row >= 0 else None

    def _is_forgotten(self, link: Link) -> bool:
        """Whether nothing that was said on a connection can reach the venue's book any more: it was let in, and let go."""
        if int(self.stats.records[0]["clients"]) <= link.number:
            return False
        held = self.stage.state.links.words[:, CLIENT_FD]
        return link.name not in {peer_of(int(fd)) for fd in held if fd >= 0}

    def close(self) -> None:
        self.ending.set()
        self.thread.join(PATIENCE_S)
        self.drop()
        for link in self.links:
            link.close()
        self.listener.close()
        self.stage.close()
        for table in (self.control, self.stats):
            table.detach()
