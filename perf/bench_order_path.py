"""The order path beside what it cannot do without.

    ring     orders ring ──▶ gate ──▶ encode ──┤ send        beside gate and encoding alone, on one core
    packet   UDP ──▶ feed ══▶ strategy ══▶ gateway ──▶ TCP   beside a C program with the same system calls and two hops (order_path.c)

ring: from the order's being found on its ring to the call of `send`. The same orders pass the gate and are encoded without ring, order
table and session; once in a loop that does nothing else, and once with the same send behind each, since a system call leaves colder
caches behind for whatever comes next. One order a turn, and as many as a turn takes.

packet: from the return of the call that brought a packet to the return of the call that sent its order, both by the TSC of one core: feed
handler and gateway are turned on one, the strategy spins on another. What our kernels do is measured alone and added to the C
program's time: one message from memory through decoder and book, the strategy's handler, gate and encoding.

Ratios are of medians that were taken in turn, round by round; the median of the rounds' ratios is told.
"""

import contextlib
import ctypes
import json
import os
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import traceback
import uuid
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np

from engine.book.book import make_book
from engine.feed import itch
from engine.feed.hot.state import EXPECTED
from engine.feed.hot.step import step as step_feed
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.feed.source import open_line
from engine.gateway.hot.state import FD, HEARD_TSC, STATE, UP
from engine.gateway.hot.take import HOP_RISK_ENCODE, HOP_SEND, HOP_TICK_TO_ORDER
from engine.gateway.ouch.hot.encode import ENTER_BYTES, OUTBOX_ORDERS, WIRE_BYTES
from engine.gateway.ouch.v50 import QUANTITY_MAX
from engine.gateway.stage import GatewayStage
from engine.layout import GATEWAY_STATS, ORDER, PHASE_STOPPED, PHASE_TRADING, REPORTS
from engine.layout import ORDERS as RINGS_ORDERS
from engine.risk.limits import Limits
from engine.risk.make import verdicts
from engine.risk.rules import Rules
from engine.risk.rules import write as write_rules
from engine.runtime.clock import Calibration, calibrate
from engine.runtime.config import DEFAULT_PATH, load
from engine.runtime.instance import Instance
from engine.runtime.logins import Logins
from engine.runtime.loop import loop_for
from engine.runtime.stages import Run, build_feed, build_gateway, build_strategy
from engine.wire.credentials import Credentials
from perf.bench_risk import ON, ORDERS, SYMBOLS, Gate
from perf.hot.order_path import follow_packets, judge_between_sends, take_in_batches
from perf.hot.risk import idle, judge_and_encode
from perf.machine import describe_pair
from shm._shim import lib
from shm.histogram import Distribution
from shm.hot import HISTOGRAM_SUM
from shm.layout import HISTOGRAM
from shm.ring import Ring
from shm.table import Table
from tools.machine import one_line

BATCHES = (1, 4, OUTBOX_ORDERS)
# Tables as the shipped config sizes them; in force is a rate that a benchmark does not reach.
SIZED = ON | {"message_rate_per_s": 20_000, "message_burst": 2_000, "duplicates_window_ms": 100.0}
SESSION = b"BENCH00001"
PACKETS = 2_000
OPENING_TURNS = 100_000
SYMBOL = "AAPL"
HOP_PACKET_TO_TICK, HOP_DECISION = 0, 2


class OrderPath:
    """A gateway with its rings, a session that is up, and a socket whose other end is emptied between the runs."""

    def __init__(self, gate: Gate) -> None:
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self.rings = (
            Ring.create(f"{name}.orders", ORDERS, RINGS_ORDERS, ["gateway"]),
            Ring.create(f"{name}.reports", ORDERS, REPORTS, ["strategy"]),
        )
        self.more = Table.create(f"{name}.stats", GATEWAY_STATS), Table.create(f"{name}.hops", HISTOGRAM, 10)
        self.gate, self.last_id = gate, 0
        try:
            self._build()
        finally:
            for made in (*self.rings, *self.more):
                made.unlink()

    def _build(self) -> None:
        gate = self.gate
        quotes, instruments, positions, rules = (gate.boards[key] for key in ("quotes", "instruments", "positions", "rules"))
        with socket.create_server(("127.0.0.1", 0)) as listener:
            self.stage = GatewayStage(
                orders=self.rings[0], reports=self.rings[1], quotes=quotes, instruments=instruments, positions=positions,
                stats=self.more[0], control=gate.tables[4], hops=self.more[1], rules=rules, facts=gate.tables[5],
                address=listener.getsockname(), credentials=Credentials.of("A", "B"), limits=Limits(**SIZED), midnight_ns=0,
                orders_max=1 << 18, symbols=[f"SYM{number}" for number in range(SYMBOLS)],
            )  # fmt: skip
            self.far, _ = listener.accept()
        self.far.setblocking(False)
        self.stage.state.session[STATE] = UP
        gate.tables[4].records[0].session_up = 1
        self.into = self.rings[0].producer(ORDER)

    def run(self, batch: int) -> tuple[float, float]:
        """Ticks an order from the ring to the call of `send`, the median; and of all that a turn takes but for the call, the mean."""
        state = self.stage.state
        state.hops[:] = 0
        sent = int(state.stats[0].sent)
        taking = take_in_batches(state, self.gate.clock, self.into.end, self.gate.orders, self.last_id + 1, batch)
        self.last_id += ORDERS
        if int(state.stats[0].sent) - sent != ORDERS:
            raise SystemExit(f"sent={int(state.stats[0].sent) - sent} of {ORDERS}: {verdicts(self.stage.risk)}")
        self.drain()
        encoded = Distribution.of(state.hops[HOP_RISK_ENCODE]).percentile(50) / batch
        return encoded, (taking - int(state.hops[HOP_SEND][HISTOGRAM_SUM])) / ORDERS

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.far.recv(1 << 20):
                pass

    def close(self) -> None:
        self.into.close()
        self.stage.close()
        self.far.close()


def measure_ring(runs: int, calibration: Calibration) -> list[dict[str, float]]:
    """For each size of batch: nanoseconds an order on the path, alone, and their ratios."""
    path, alone, between = OrderPath(Gate(ON, SIZED)), Gate(ON, SIZED), Gate(ON, SIZED)
    ns = 1e9 / calibration.hz
    wire = np.zeros(WIRE_BYTES, np.uint8)
    histogram = np.zeros(HISTOGRAM.itemsize // 8, np.int64)
    fd = int(path.stage.state.session[FD])
    rows: dict[int, list[dict[str, float]]] = {batch: [] for batch in BATCHES}
    for run in range(runs + 1):
        for batch in BATCHES:
            to_send, whole = path.run(batch)
            histogram[:] = 0
            judge_between_sends(between.risk, between.clock, between.orders, wire, fd, batch, histogram)
            path.drain()
            looped = alone.per_order_ns(judge_and_encode, 20, wire)
            started = time.thread_time_ns()
            idle(alone.clock, alone.orders, 20)
            looped -= (time.thread_time_ns() - started) / 20 / ORDERS
            row = {
                "ring_to_send": to_send * ns, "whole_turn_but_send": whole * ns, "alone": looped,
                "alone_between_sends": Distribution.of(histogram).percentile(50) / batch * ns,
            }  # fmt: skip
            if run:
                rows[batch].append(row)
    path.close()
    found = []
    for batch, taken in rows.items():
        middle = {name: round(statistics.median(row[name] for row in taken), 1) for name in taken[0]}
        ratios = {
            f"over_{other}": round(statistics.median(row["ring_to_send"] / row[other] for row in taken), 2)
            for other in ("alone", "alone_between_sends")
        }
        found.append({"orders_a_turn": batch} | middle | ratios)
    return found


class Market:
    """Packets of one message each: the first open the market, and every one after them adds to the best bid."""

    def __init__(self, count: int) -> None:
        usual: dict[str, Any] = {"tracking": 0, "timestamp": 1_000}
        directory = itch.STOCK_DIRECTORY.encode(
            locate=1, stock=SYMBOL, market_category="Q", financial_status="N", round_lot_size=100, round_lots_only="N",
            issue_classification="C", issue_subtype="Z", authenticity="P", short_sale_threshold="N", ipo_flag="N", luld_tier="1",
            etp_flag="N", etp_leverage=0, inverse="N", **usual,
        )  # fmt: skip
        messages = [
            itch.SYSTEM_EVENT.encode(locate=0, event="Q", **usual),
            directory,
            itch.TRADING_ACTION.encode(locate=1, stock=SYMBOL, state="T", reserved=" ", reason="", **usual),
            itch.ADD_ORDER.encode(locate=1, ref=1, side="S", shares=100, stock=SYMBOL, px=1_000_200, **usual),
        ]
        self.opening = len(messages)
        messages += [
            itch.ADD_ORDER.encode(locate=1, ref=10 + number, side="B", shares=100, stock=SYMBOL, px=1_000_000, **usual)
            for number in range(count)
        ]
        raw = [
            SESSION + number.to_bytes(8, "big") + (1).to_bytes(2, "big") + len(message).to_bytes(LENGTH_BYTES, "big") + message
            for number, message in enumerate(messages, 1)
        ]
        self.bytes = np.frombuffer(b"".join(raw), np.uint8)
        self.offsets = np.cumsum([0, *(len(packet) for packet in raw)])


class PacketPath:
    """Feed handler and gateway in this process, the strategy in a child on another CPU, and a venue's socket that nobody reads.

    `close` it however it ends: its shared memory has names until then.
    """

    def __init__(self, calibration: Calibration, count: int, other_cpu: int) -> None:
        self.closing = contextlib.ExitStack()
        try:
            self._build(calibration, count, other_cpu)
        except BaseException:
            self.closing.close()
            raise

    def _build(self, calibration: Calibration, count: int, other_cpu: int) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            host, port = probe.getsockname()
        self.listener = socket.create_server(("127.0.0.1", 0))
        venue = ":".join(map(str, self.listener.getsockname()))
        limits = {f"risk.{name}": value for name, value in ON.items()}
        config = load(DEFAULT_PATH, {
            "feed.source": "udp", "feed.address": f"{host}:{port}", "feed.address_b": "", "feed.stale_after_ms": 0,
            "gateway.address": venue,
            "feed.recovery.rewind": [], "feed.recovery.snapshot": "", "strategy.use": str(Path(__file__).with_name("quoter.py")),
            "strategy.symbols": [SYMBOL], "strategy.params": {}, "feed.symbols": [SYMBOL], **limits,
        })  # fmt: skip
        self.instance = Instance(f"bench-{uuid.uuid4().hex[:12]}", config.rings)
        self.closing.callback(self.instance.unlink)
        book = make_book(orders_max=config.feed.orders_max, levels_max=config.feed.levels_max, shared=True)
        run = Run(config, self.instance, calibration, 0, book, Logins(Credentials.of("A", "B"), Credentials()))
        write_rules(self.instance.rules, Rules(config.risk, symbols=1, venue_qty_max=QUANTITY_MAX))
        self.control = self.instance.control.records[0]
        self.control.phase = PHASE_TRADING
        self.clock = calibration.clock()
        self.market = Market(count)
        self._start_strategy(run, other_cpu)
        self.feed = build_feed(run)
        self.closing.callback(self.feed.close)
        self.gateway = build_gateway(run)
        self.closing.callback(self.gateway.close)
        self.far, _ = self.listener.accept()
        self.far.setblocking(False)
        self.gateway.state.session[STATE] = UP
        self.control.session_up = 1
        self.sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sending.connect((host, port))
        self.at = 0

    def _start_strategy(self, run: Run, cpu: int) -> None:
        """Fork the strategy, and wait until it is compiled and spins."""
        ready, told = os.pipe()
        pid = os.fork()
        if pid == 0:
            try:
                os.sched_setaffinity(0, {cpu})
                lib.tp_die_with_parent(signal.SIGKILL)
                stage = build_strategy(run)
                loop = loop_for([stage.step_module])
                arguments = run.instance.processes.records[:1], run.instance.control.words()[0], run.calibration.clock(), 0
                loop(*arguments, 0, stage.state)
                os.write(told, b"r")
                loop(*arguments, 1 << 62, stage.state)
            except BaseException:
                traceback.print_exc()
            finally:
                os._exit(0)
        self.closing.callback(self._end_strategy, pid)
        os.close(told)
        with os.fdopen(ready, "rb") as said:
            if said.read(1) != b"r":
                raise SystemExit("the strategy's process ended: see above")

    def _end_strategy(self, pid: int) -> None:
        self.control.phase = PHASE_STOPPED
        os.waitpid(pid, 0)

    def open(self) -> None:
        """Let the market open: packets that cause no order."""
        turns = 0
        for number in range(self.market.opening):
            self.sending.send(self.market.bytes[self.market.offsets[number] : self.market.offsets[number + 1]].tobytes())
        while self.feed.state.words[EXPECTED] <= self.market.opening:
            step_feed(self.feed.state, self.clock)
            turns += 1
            if turns == OPENING_TURNS:
                raise SystemExit(f"the market did not open: {self.instance.feed_stats.records[0]}")
        self.at = self.market.opening

    def run(self, count: int) -> tuple[float, float, float]:
        """Median ticks from packet to order, of the handler, and from packet to tick."""
        hops = self.instance.hops.words()
        hops[:] = 0
        raw, offsets = self.market.bytes, self.market.offsets
        # The venue of this benchmark says nothing, and is not to be taken for a silent one.
        self.gateway.state.session[HEARD_TSC] = lib.tp_rdtsc()
        got = follow_packets(self.feed.state, self.gateway.state, self.clock, self.sending.fileno(), raw, offsets, self.at, count)
        self.at += count
        if got != 0:
            raise SystemExit(
                f"result={got} at packet {self.at}: {verdicts(self.gateway.state.risk)}; {self.instance.feed_stats.records[0]}"
            )
        self.drain()
        whole, decision, decode = (
            Distribution.of(hops[hop]).percentile(50) for hop in (HOP_TICK_TO_ORDER, HOP_DECISION, HOP_PACKET_TO_TICK)
        )
        return whole, decision, decode

    def drain(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while self.far.recv(1 << 20):
                pass

    def close(self) -> None:
        self.closing.close()


class CPath:
    """The C program, with sockets like those of the feed handler and the gateway."""

    def __init__(self, folder: Path) -> None:
        library = folder / "order_path.so"
        source = Path(__file__).with_name("order_path.c")
        flags = ["-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-pthread"]
        subprocess.run(["gcc", *flags, "-o", str(library), str(source)], check=True)
        self.call = ctypes.CDLL(str(library)).tp_path
        self.call.restype = ctypes.c_int64
        number, pointer = ctypes.c_int64, ctypes.c_void_p
        self.call.argtypes = [ctypes.c_int] * 4 + [pointer, number, pointer, number, number, pointer]
        self.receiving = open_line(("127.0.0.1", 0), "127.0.0.1", 1 << 20).socket
        self.sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sending.connect(self.receiving.getsockname())
        listener = socket.create_server(("127.0.0.1", 0))
        self.session = socket.create_connection(listener.getsockname())
        self.session.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.far, _ = listener.accept()
        self.far.setblocking(False)
        listener.close()

    def run(self, packet: bytes, count: int, other_cpu: int) -> float:
        """Median ticks from packet to order."""
        ticks = np.zeros(count, np.int64)
        descriptors = self.sending.fileno(), self.receiving.fileno(), self.session.fileno(), other_cpu
        got = self.call(*descriptors, packet, len(packet), b"." * ENTER_BYTES, ENTER_BYTES, count, ticks.ctypes.data)
        if got != 0:
            raise SystemExit(f"order_path.c: result={got}: {os.strerror(-got) if got < -1 else 'a packet was lost'}")
        with contextlib.suppress(BlockingIOError):
            while self.far.recv(1 << 20):
                pass
        return float(np.median(ticks))


def measure_packets(runs: int, calibration: Calibration, other_cpu: int, gate_ns: float) -> dict[str, float]:
    """Nanoseconds from packet to order, of the C program, of our kernels, and the ratio to the sum of the latter two."""
    ns = 1e9 / calibration.hz
    with tempfile.TemporaryDirectory() as folder:
        c = CPath(Path(folder))
    rows = []
    with contextlib.closing(PacketPath(calibration, PACKETS * (runs + 1) + 64, other_cpu)) as path:
        path.open()
        market = path.market
        packet = market.bytes[market.offsets[-2] : market.offsets[-1]].tobytes()
        for run in range(runs + 1):
            whole, decision, decode = (ticks * ns for ticks in path.run(PACKETS))
            calls = c.run(packet, PACKETS, other_cpu) * ns
            if run:
                kernels = decode + decision + gate_ns
                rows.append({"packet_to_order": whole, "c_calls_and_hops": calls, "feed": decode, "strategy": decision,
                             "gate_and_encoding": gate_ns,
                             "ratio": whole / (calls + kernels)})  # fmt: skip
    return {name: round(statistics.median(row[name] for row in rows), 2 if name == "ratio" else 1) for name in rows[0]}


@click.command()
@click.option("--runs", default=15, show_default=True, help="Of which the medians are.")
@click.option("--only", type=click.Choice(["ring", "packet"]), help="One of the two.")
@click.option("--cpus", default="", metavar="A,B", help="Ours and the strategy's CPU (default: the last two).")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is standard output.")
def main(runs: int, only: str | None, cpus: str, json_path: str | None) -> None:
    """Measure the order path."""
    usable = sorted(os.sched_getaffinity(0))
    ours, other = (int(cpu) for cpu in cpus.split(",")) if cpus else (usable[-1], usable[-2] if len(usable) > 1 else usable[-1])
    if ours == other:
        raise click.UsageError("the strategy needs a CPU of its own: two CPUs are expected")
    os.sched_setaffinity(0, {ours})
    calibration = calibrate()
    result: dict[str, Any] = {"machine": describe_pair(ours, other)}
    to_error = json_path == "-"
    click.echo(one_line(result["machine"]), err=to_error)
    result["ring_ns"] = measure_ring(runs if only != "packet" else 2, calibration)
    for row in result["ring_ns"] if only != "packet" else []:
        click.echo("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in row.items()), err=to_error)
    if only != "ring":
        result["packet_ns"] = measure_packets(runs, calibration, other, result["ring_ns"][0]["alone"])
        click.echo("  ".join(f"{name.replace('_', ' ')} {value}" for name, value in result["packet_ns"].items()), err=to_error)
    if json_path == "-":
        click.echo(json.dumps(result, indent=2))
    elif json_path:
        Path(json_path).write_text(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
