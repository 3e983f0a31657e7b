"""An exchange, and the network with faults in front of it, as processes of their own: `tickpath run` is pointed at the network.

    python -m tests.fault_process exchange PORTS SECONDS      told to, the exchange trades for so long; then it says what its book is
    python -m tests.fault_process proxy PORTS SEED            lines and servers with the faults of the seed

PORTS is the first of a block of free ones; who uses which is below. A process says READY when it can be reached, and ends when its
standard input does.
"""

import contextlib
import json
import random
import select
import sys
import time
import uuid

from engine.exchange.hot.step import step
from engine.exchange.stage import ExchangeStage
from engine.layout import CONTROL, EXCHANGE_STATS, PHASE_DRAINING, PHASE_TRADING, POSITION
from engine.runtime.clock import calibrate
from shm.table import Board, Table
from tests.exchange_rig import open_orders
from tests.fault_market import PlainBook
from tests.fault_plan import GOOD, MS, drawn
from tests.fault_proxy import Line
from tests.fault_relay import RewindRelay, SnapshotRelay
from tests.fault_venue import drained, tap_at

HOST = "127.0.0.1"
# Ports of a block: as the exchange has them, and as the feed handler is told.
LINE_A, LINE_B, REWIND, SNAPSHOT, ORDERS = range(5)
FACING = 5
PORTS = 10
SYMBOLS = ("AAPL", "MSFT", "NVDA")
# What is under way when the flow ends is on the book after this long.
SETTLING_S = 0.2
OVER = "over"


class Exchange:
    """What the exchange of a real run is made of."""

    def __init__(self, ports: int, seed: int) -> None:
        name = f"test-fault-process-{uuid.uuid4().hex[:12]}"
        self.control = Table.create(f"{name}.control", CONTROL)
        stats = Table.create(f"{name}.stats", EXCHANGE_STATS)
        positions = Board.create(f"{name}.positions", POSITION, 65_536)
        for table in (self.control, stats, positions):
            table.unlink()
        self.stage = ExchangeStage(
            control=self.control, stats=stats, positions=positions, market_address=(HOST, ports + LINE_A),
            market_address_b=(HOST, ports + LINE_B), order_address=(HOST, ports + ORDERS), username="TICK", password="PATH",
            flow="generated", symbols=dict.fromkeys(SYMBOLS, 150.0), seed=seed, rate_per_s=1_000,
            rewind_addresses=[(HOST, ports + REWIND)], snapshot_address=(HOST, ports + SNAPSHOT), snapshot_username="TICK",
            snapshot_password="PATH", orders_max=1 << 14, levels_max=1 << 13,
        )  # fmt: skip

    def tops(self) -> dict[str, list[int]]:
        """The best bid and offer of each symbol, from the exchange's own orders."""
        book = PlainBook()
        for order in open_orders(self):  # type: ignore[arg-type]
            book._add(order["ref"], order["locate"], ord(order["side"]), order["px"], order["qty"])
        return {symbol: list(book.top(locate)) for locate, symbol in enumerate(SYMBOLS, 1)}


def run_exchange(ports: int, seconds: float) -> None:
    made = Exchange(ports, seed=ports)
    phase = made.control.records["phase"]
    clock = calibrate().clock()
    say("READY")
    ends, told = 0.0, False
    while (heard := hear()) != OVER:
        for _ in range(100):
            step(made.stage.state, clock)
        time.sleep(0.0002)
        now = time.monotonic()
        if heard:
            phase[0], ends = PHASE_TRADING, now + seconds
        elif phase[0] == PHASE_TRADING and now > ends:
            phase[0], ends = PHASE_DRAINING, now + SETTLING_S
        elif phase[0] == PHASE_DRAINING and now > ends and not told:
            told = True
            say(json.dumps(made.tops()))
    made.stage.close()


def run_proxy(ports: int, seed: int) -> None:
    rng = random.Random(seed)
    plan = drawn(seed)
    taps = [tap_at((HOST, ports + LINE_A)), tap_at((HOST, ports + LINE_B))]
    out = tap_at((HOST, 0))
    faults = (plan.lines * 2)[:2]
    for line in faults:
        # Dead times are of the simulated clock's few milliseconds; here a line is either there or not.
        line.dead = [dark for dark in line.dead if line.is_dead_for_ever()]
    if all(line.is_dead_for_ever() for line in faults):
        faults[0].dead = []
    lines = [Line(line, rng, send_to(out, (HOST, ports + FACING + at))) for at, line in enumerate(faults)]
    rewind = RewindRelay((plan.rewind or [GOOD])[0], rng, (HOST, ports + REWIND), 30 * MS, (HOST, ports + FACING + REWIND))
    snapshot = SnapshotRelay(
        [*plan.snapshot[:-1], GOOD], rng, (HOST, ports + SNAPSHOT), plan.snapshot_bytes_per_turn, (HOST, ports + FACING + SNAPSHOT)
    )
    say("READY")
    while hear() != OVER:
        now_ns = time.monotonic_ns()
        for line, held in zip(lines, taps, strict=True):
            for raw in drained(held):
                line.offer(now_ns, raw)
            line.deliver(now_ns)
        rewind.turn(now_ns)
        snapshot.turn(now_ns)
        select.select([*taps, rewind.socket, rewind.upstream, snapshot.listener], [], [], 0.0005)
    rewind.close()
    snapshot.close()


def send_to(out, address):  # type: ignore[no-untyped-def]
    def send(raw: bytes) -> None:
        # A feed handler that is not there yet, or not any more.
        with contextlib.suppress(OSError):
            out.sendto(raw, address)

    return send


def say(text: str) -> None:
    print(text, flush=True)


def hear() -> str:
    """A line of standard input, nothing where there is none yet, or OVER."""
    if not select.select([sys.stdin], [], [], 0)[0]:
        return ""
    return sys.stdin.readline() or OVER


if __name__ == "__main__":
    role, first_port, value = sys.argv[1], int(sys.argv[2]), sys.argv[3]
    if role == "exchange":
        run_exchange(first_port, float(value))
    else:
        run_proxy(first_port, int(value))
