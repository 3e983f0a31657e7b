"""How many orders the simulated exchange gets through on one core, everything included: matching, book, ITCH out, OUCH in and out.

    generated   flow from its seed: adds, cancels, marketable orders      ──┐
    replayed    an ITCH file flat out, without clients                    ──┼──▶ matching, book ──▶ ITCH in MoldUDP64 packets, sent
    client      OUCH orders that rest, are replaced, trade, are cancelled ──┘    over loopback to a socket that nobody reads
    snapshot    how long the market pauses while a snapshot of so many orders is written, and the longest turn of it

The clock is simulated, so nothing waits. Figures are CPU seconds of the one pinned thread, system calls included; medians of the
passes. The kernel drops what the unread socket has no room for, which costs the sender what a delivery does.
"""

import json
import os
import random
import socket
import statistics
import sys
import tempfile
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np

from engine.exchange.stage import ExchangeStage
from engine.feed import itch
from engine.gateway.ouch import v50 as ouch
from engine.layout import CONTROL, EXCHANGE_STATS, PHASE_TRADING, POSITION
from engine.runtime.clock import simulated_clock
from engine.wire.soupbintcp import LOGIN_REQUEST, UNSEQUENCED
from perf.hot.exchange import turn
from perf.itch_grow import grow
from shm.table import Board, Table
from tools.machine import describe

SYMBOLS = {"AAPL": 187.2, "MSFT": 402.5, "NVDA": 121.8}
RATE_PER_S = 1e6
# As many events as one turn does at most are due in each.
TURN_NS = 32_000
TURNS = 20_000
COPIES = 100
CLIENT_ROUNDS = 200
SNAPSHOT_ORDERS = 100_000
SNAPSHOT_SYMBOLS = 100


class Venue:
    """An exchange that trades, before a socket that nobody reads."""

    def __init__(self, **options: Any) -> None:
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self.tables = (
            Table.create(f"{name}.control", CONTROL),
            Table.create(f"{name}.stats", EXCHANGE_STATS),
            Board.create(f"{name}.positions", POSITION, 65_536),
        )
        for table in self.tables:
            table.unlink()
        control, self.stats, positions = self.tables
        self.unread = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.unread.bind(("127.0.0.1", 0))
        self.stage = ExchangeStage(
            control=control, stats=self.stats, positions=positions, market_address=self.unread.getsockname(),
            order_address=("127.0.0.1", 0), username="BENCH", password="BENCH", session="BENCH", **options,
        )  # fmt: skip
        self.clock = simulated_clock()
        control.records["phase"][0] = PHASE_TRADING

    def turn(self, turns: int, turn_ns: int = 0) -> None:
        turn(self.stage.state, self.clock, turn_ns, turns)

    def count(self, name: str) -> int:
        return int(self.stats.records[0][name])

    def close(self) -> None:
        self.stage.close()
        self.unread.close()
        for table in self.tables:
            table.detach()


def bench_generated() -> dict[str, float]:
    venue = Venue(flow="generated", symbols=SYMBOLS, rate_per_s=RATE_PER_S)
    venue.turn(2_000, TURN_NS)
    before = {name: venue.count(name) for name in ("flow_events", "executions", "messages")}
    seconds = cpu_seconds(lambda: venue.turn(TURNS, TURN_NS))
    events, executions, messages = (venue.count(name) - before[name] for name in before)
    venue.close()
    return {"orders": events, "seconds": seconds, "executions_share": executions / events, "messages": messages}


def bench_replayed(path: Path) -> dict[str, float]:
    venue = Venue(flow="replay", path=path, speed=0)
    seconds = cpu_seconds(lambda: venue.turn(os.path.getsize(path) // 600))  # noqa: PTH202
    replayed, executions = venue.count("replayed"), venue.count("executions")
    venue.close()
    return {"orders": replayed, "seconds": seconds, "executions_share": executions / replayed, "messages": replayed}


def bench_client() -> dict[str, float]:
    """Rounds of 80: 20 orders rest, 20 replace them, 20 trade with them, 20 cancel what is left, all read from a socket pair."""
    venue = Venue(flow="none", symbols=SYMBOLS)
    theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    for end in (theirs, ours):
        end.setblocking(False)
        end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
    venue.stage.adopt(theirs, 0, 0)
    venue.turn(10)
    seconds = 0.0
    user_ref = 0
    for _ in range(CLIENT_ROUNDS):
        raw, user_ref = client_round(user_ref)
        ours.send(raw)
        seconds += cpu_seconds(lambda: venue.turn(4))
        while True:
            try:
                ours.recv(1 << 20)
            except BlockingIOError:
                break
    orders = sum(venue.count(name) for name in ("orders", "replaces", "cancels"))
    share, messages = venue.count("executions") / orders, venue.count("messages")
    ours.close()
    venue.close()
    return {"orders": orders, "seconds": seconds, "executions_share": share, "messages": messages}


def bench_snapshot(seed: int) -> dict[str, float]:
    """A book through which twice as many orders have gone in random order, so that neighbours in a queue are none in memory."""
    rng = random.Random(seed)
    adds = [_add(ref, rng) for ref in range(1, 2 * SNAPSHOT_ORDERS + 1)]
    gone = rng.sample(range(1, 2 * SNAPSHOT_ORDERS + 1), SNAPSHOT_ORDERS)
    raw = adds + [itch.ORDER_DELETE.encode(locate=1 + ref % SNAPSHOT_SYMBOLS, tracking=0, timestamp=0, ref=ref) for ref in gone]
    with tempfile.NamedTemporaryFile(suffix=".itch") as file:
        file.write(b"".join(len(message).to_bytes(2, "big") + message for message in raw))
        file.flush()
        venue = Venue(flow="replay", path=file.name, speed=0, snapshot_address=("127.0.0.1", 0))
        while venue.count("replayed") < len(raw):
            venue.turn(1_000)
    # The first one touches memory that a process of tickpath touches before its loop.
    pause_of(venue)
    turns = pause_of(venue)
    venue.close()
    return {"seconds": sum(turns), "turn_seconds_max": max(turns)}


def pause_of(venue: Venue) -> list[float]:
    """CPU seconds of every turn that wrote some of a snapshot."""
    viewer = socket.create_connection(("127.0.0.1", venue.stage.snapshot_port))
    asked = LOGIN_REQUEST.encode(username="", password="", session="", sequence="1")
    viewer.send(len(asked).to_bytes(2, "big") + asked)
    turns = []
    due = venue.count("snapshot_orders") + SNAPSHOT_ORDERS
    while venue.count("snapshot_orders") < due:
        written = venue.count("snapshot_orders")
        seconds = cpu_seconds(lambda: venue.turn(1))
        if venue.count("snapshot_orders") > written:
            turns.append(seconds)
    viewer.close()
    venue.turn(1_000)
    return turns


def _add(ref: int, rng: random.Random) -> bytes:
    locate, side = 1 + ref % SNAPSHOT_SYMBOLS, rng.choice("BS")
    px = 1_000_000 + 100 * min(round(rng.expovariate(0.05)), 500) * (1 if side == "S" else -1)
    return itch.ADD_ORDER.encode(locate=locate, tracking=0, timestamp=0, ref=ref, side=side, shares=100, stock=f"S{locate}", px=px)


def client_round(last: int) -> tuple[bytes, int]:
    common: dict[str, Any] = {"display": "Y", "sweep": "N", "client_id": "", "appendage_length": 0}
    enter = {**common, "symbol": "AAPL", "capacity": "P", "cross": "N"}
    said = []
    for number in range(1, 21):
        said.append(ouch.ENTER_ORDER.encode(user_ref=last + number, side="B", quantity=200, px=1_000_000 - 100 * number, tif="0", **enter))
    for number in range(1, 21):
        px = 1_000_100 - 100 * number
        said.append(
            ouch.REPLACE_ORDER.encode(orig_user_ref=last + number, user_ref=last + 20 + number, quantity=300, px=px, tif="0", **common)
        )
    for number in range(1, 21):
        said.append(ouch.ENTER_ORDER.encode(user_ref=last + 40 + number, side="S", quantity=150, px=990_000, tif="3", **enter))
    for number in range(1, 21):
        said.append(ouch.CANCEL_ORDER.encode(user_ref=last + 20 + number, quantity=0))
    return b"".join((1 + len(raw)).to_bytes(2, "big") + bytes([UNSEQUENCED]) + raw for raw in said), last + 60


def cpu_seconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def figures_of(passes: list[dict[str, float]]) -> dict[str, Any]:
    """Medians; the first pass touched memory that the machine may not have touched before, and does not count."""
    rates = [figures["orders"] / figures["seconds"] for figures in passes[1:]]
    last = passes[-1]
    return {
        "orders": int(last["orders"]),
        "orders_mps": round(statistics.median(rates) / 1e6, 3),
        "order_ns": round(1e9 / statistics.median(rates)),
        "executions_share": round(last["executions_share"], 3),
        "messages": int(last["messages"]),
        "pass_mps": [round(rate / 1e6, 3) for rate in rates],
    }


def pauses_of(passes: list[dict[str, float]]) -> dict[str, Any]:
    """Medians, without the first pass."""
    pause, turn_max = (statistics.median(figures[name] for figures in passes[1:]) for name in ("seconds", "turn_seconds_max"))
    return {
        "orders": SNAPSHOT_ORDERS,
        "pause_ms": round(pause * 1e3, 3),
        "order_ns": round(pause * 1e9 / SNAPSHOT_ORDERS),
        "turn_us_max": round(turn_max * 1e6, 1),
    }


@click.command(help="Time the simulated exchange on generated flow, on a client's orders, and on ITCHFILE (plain) if given.")
@click.argument("itchfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="Where figures go; - is stdout."
)
@click.option("--passes", type=click.IntRange(min=1), default=5, show_default=True, help="Timed passes of each.")
def main(itchfile: Path | None, json_path: Path | None, passes: int) -> None:
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    figures: dict[str, Any] = {
        "generated": figures_of([bench_generated() for _ in range(passes + 1)]),
        "client": figures_of([bench_client() for _ in range(passes + 1)]),
    }
    if itchfile is not None:
        with tempfile.NamedTemporaryFile(suffix=".itch") as grown:
            grow(np.fromfile(itchfile, np.uint8), COPIES).tofile(grown.name)
            figures["replayed"] = figures_of([bench_replayed(Path(grown.name)) for _ in range(passes + 1)])
    to_error = str(json_path) == "-"
    pauses = pauses_of([bench_snapshot(seed) for seed in range(passes + 1)])
    click.echo(
        f"{'snapshot':10} {pauses['pause_ms']:6.2f} ms of pause  {pauses['order_ns']:7} ns each  longest turn {pauses['turn_us_max']} us  "
        f"{pauses['orders']:,} orders",
        err=to_error,
    )
    for name, row in figures.items():
        click.echo(
            f"{name:10} {row['orders_mps']:6.2f} M orders/s  {row['order_ns']:5} ns each  "
            f"{row['executions_share']:5.1%} executions  {row['orders']:,} orders  {row['messages']:,} messages",
            err=to_error,
        )
    figures["snapshot"] = pauses
    figures["machine"] = describe()
    if json_path is not None:
        text = json.dumps(figures, indent=2) + "\n"
        sys.stdout.write(text) if to_error else json_path.write_text(text)


if __name__ == "__main__":
    main()
