"""How long the kill switch takes: from the word that the command writes to the last of a thousand cancels written, strategy stopped.

    command ──word──▶ gateway ──1,000 cancels──▶ exchange        strategy: SIGSTOP before the word, so that nobody but the gateway helps
            └────────────── kill_to_last_cancel ─┘

Real processes, real sockets, as `tickpath run` starts them. Each round kills, checks that every open order got one cancel and that nothing
is open at the exchange, arms, and lets the strategy put its orders back. The same bytes sent down a loopback connection by as many sends,
measured in the same minute, are the floor.
"""

import json
import os
import signal
import socket
import statistics
import subprocess
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

from engine.gateway.ouch.hot.encode import CANCEL_BYTES, SWEEP_CANCELS_MAX
from engine.layout import CONTROL, EXCHANGE_STATS, GATEWAY_STATS, PHASE_TRADING, PROCESS
from engine.runtime.config import DEFAULT_PATH
from shm.segment import SegmentError
from shm.table import Table
from tools import killswitch
from tools.machine import describe, one_line

ROOT = Path(__file__).resolve().parent.parent
SYMBOLS = 3
PATIENCE_S = 900.0


STRATEGY = '''"""So many bids in each symbol, far below the market, put back whenever they are gone."""

from engine.strategy.api import CANCELLED, EXECUTED, REJECTED, Annotated, Meta, Parameters, State, buy, now_ns, tick_px


class Params(Parameters):
    count: Annotated[int, Meta(ge=1)] = 334
    ticks: Annotated[int, Meta(ge=1)] = 100  # from the bid to the first of them


class Memory(State):
    asked: int = 0
    quiet_until_ns: int = 0


def on_book(ctx, params, state, quote):
    if quote.bid_sz == 0 or now_ns(ctx) < state.quiet_until_ns:
        return
    for _ in range(16):
        if state.asked >= params.count:
            return
        px = quote.bid_px - (params.ticks + state.asked % 64) * tick_px(ctx, quote.instrument)
        if buy(ctx, quote.instrument, px, 1) == 0:
            return
        state.asked += 1


def on_report(ctx, params, state, report):
    if report.kind == CANCELLED or report.kind == EXECUTED or report.kind == REJECTED:
        state.asked -= 1
    if report.kind == REJECTED:
        state.quiet_until_ns = now_ns(ctx) + 50_000_000
'''


class Run:
    """A `tickpath run` of its own: ports, instance, state and strategy."""

    def __init__(self, folder: Path, cancels: int) -> None:
        self.name = f"bench-{uuid.uuid4().hex[:8]}"
        text = DEFAULT_PATH.read_text().replace('instance = "tickpath"', f'instance = "{self.name}"')
        for port, kind in ((26400, 2), (26401, 1), (26402, 2), (26403, 2), (26404, 1)):
            text = text.replace(f"127.0.0.1:{port}", f"127.0.0.1:{free_port(socket.SocketKind(kind))}")
        for old, new in (
            ('use = "engine.strategy.market_maker"', f'use = "{folder / "resting.py"}"'),
            ("[strategy.params]", f"[strategy.params]\ncount = {-(-cancels // SYMBOLS)}"),
            ("duplicates_max = 100", 'duplicates_max = "off"'),
            ("order_to_trade_max = 100", 'order_to_trade_max = "off"'),
        ):
            assert old in text, old
            text = text.replace(old, new)
        (folder / "resting.py").write_text(STRATEGY)
        config = folder / "run.toml"
        config.write_text(text)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tools.cli", "run", str(config), "--seconds", "100000", "--json", str(folder / "report.json")],
            cwd=ROOT, env=os.environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
        )  # fmt: skip
        try:
            wait_for(self.trades, "the instance to trade")
        except BaseException:
            self.close()
            raise
        self.gateway, self.exchange = (
            Table.attach(f"{self.name}.{name}", dtype, writable=False).records[0]
            for name, dtype in (("gateway.stats", GATEWAY_STATS), ("exchange.stats", EXCHANGE_STATS))
        )
        lines = Table.attach(f"{self.name}.processes", PROCESS, writable=False).records
        self.strategy = next(int(line["pid"]) for line in lines if bytes(line["name"]).startswith(b"strategy"))

    def trades(self) -> bool:
        assert self.process.poll() is None, "the run ended before it traded"
        try:
            return bool(Table.attach(f"{self.name}.control", CONTROL, writable=False).records[0]["phase"] == PHASE_TRADING)
        except SegmentError:
            return False

    def round(self, cancels: int) -> float:
        """One kill and what it took, in microseconds."""
        wait_for(lambda: self.exchange["open_orders"] >= cancels, f"{cancels} open orders")
        os.kill(self.strategy, signal.SIGSTOP)
        time.sleep(0.05)  # what was on its way arrives; nothing is measured here
        open_orders, before = int(self.gateway["open_orders"]), int(self.gateway["sent"])
        number = killswitch.set_kill(self.name, "bench")
        wait_for(lambda: self.gateway["kill_swept"] >= number, "the last cancel")
        found = killswitch.swept(self.name, number)
        assert found is not None and found.cancels == open_orders == int(self.gateway["sent"]) - before, (found, open_orders)
        wait_for(lambda: self.gateway["open_orders"] == 0 and self.exchange["open_orders"] == 0, "nothing to be open")
        killswitch.clear_kill(self.name, by="bench")
        os.kill(self.strategy, signal.SIGCONT)
        return found.last_us

    def close(self) -> None:
        self.process.send_signal(signal.SIGTERM)
        self.process.wait(60)


def free_port(kind: socket.SocketKind) -> int:
    with socket.socket(socket.AF_INET, kind) as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(reached: Callable[[], Any], what: str) -> None:
    deadline = time.monotonic() + PATIENCE_S
    while not reached():
        assert time.monotonic() < deadline, f"waited {PATIENCE_S:.0f} s for {what}"
        time.sleep(0.001)


def floor_us(cancels: int, rounds: int) -> float:
    """The sends alone: the same bytes, cut as the sweep cuts them, down a loopback connection whose other end has room."""
    listener = socket.create_server(("127.0.0.1", 0))
    ours = socket.create_connection(listener.getsockname())
    theirs, _ = listener.accept()
    ours.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    batch, last = bytes(SWEEP_CANCELS_MAX * CANCEL_BYTES), bytes(cancels % SWEEP_CANCELS_MAX * CANCEL_BYTES)
    pieces = [batch] * (cancels // SWEEP_CANCELS_MAX) + [last] * bool(last)
    took = []
    for _ in range(rounds):
        began = time.perf_counter_ns()
        for piece in pieces:
            ours.send(piece)
        took.append((time.perf_counter_ns() - began) / 1e3)
        left = sum(map(len, pieces))
        while left:
            left -= len(theirs.recv(1 << 16))
    for end in (ours, theirs, listener):
        end.close()
    return statistics.median(took)


@click.command(help=__doc__.splitlines()[0])
@click.option("--rounds", default=20, show_default=True)
@click.option("--cancels", default=1000, show_default=True)
@click.option("--json", "as_json", is_flag=True)
def main(rounds: int, cancels: int, as_json: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        os.environ["TICKPATH_STATE"] = f"{folder}/state"
        run = Run(Path(folder), cancels)
        try:
            took = sorted(run.round(cancels) for _ in range(rounds))
        finally:
            run.close()
    result: dict[str, Any] = {
        "cancels_at_least": cancels,
        "rounds": rounds,
        "p50_us": round(statistics.median(took), 1),
        "min_us": round(took[0], 1),
        "max_us": round(took[-1], 1),
        "floor_us": round(floor_us(cancels, 200), 1),
        "machine": describe(),
    }
    if as_json:
        print(json.dumps(result, indent=2))
        return
    print(one_line(result["machine"]))
    print(f"kill to the last of at least {cancels:,} cancels written, strategy stopped, {rounds} rounds:")
    print("  " + "   ".join(f"{name} {result[f'{name}_us']:,} us" for name in ("p50", "min", "max")))
    print(f"  the sends alone {result['floor_us']:,} us")


if __name__ == "__main__":
    main()
