"""What the risk gate costs: all checks on, each check alone and left out, on one core, with orders that all pass.

    orders[i] ──▶ check ──▶ PASSED        1,024 different orders on 8 instruments, quotes and boards in shared memory

The order of a strategy's is in the cache because it was just polled, and so are these. p50 is of single orders, between two readings of
the TSC whose own cost is measured beside it and taken off; everything else is CPU time over many orders, medians of alternating runs.
"""

import json
import os
import statistics
import sys
import time
import uuid
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np

from engine.gateway.ouch.hot.encode import WIRE_BYTES
from engine.gateway.ouch.v50 import QUANTITY_MAX
from engine.layout import (
    BOOK_VALID,
    BUY,
    CONTROL,
    INSTRUMENT,
    MSG_NEW,
    ORDER,
    PHASE_TRADING,
    POSITION,
    QUOTE,
    RISK_FACTS,
    RISK_RULES,
    SELL,
    pack_symbol,
)
from engine.risk.limits import Limits, can_be_off
from engine.risk.make import make_risk, verdicts
from engine.risk.rules import Rules, write
from engine.runtime.clock import calibrate
from perf.hot.risk import idle, judge, judge_and_encode, judge_and_open, judge_each
from shm._shim import lib
from shm.histogram import Distribution
from shm.layout import HISTOGRAM
from shm.table import Board, Table
from tools.machine import describe

SYMBOLS = 8
ORDERS = 1_024
OPEN_ORDERS = 4_096
PX = 1_000_000

# Every check on, and none in the way of any order.
ON: dict[str, Any] = {
    "order_qty_min": 1,
    "order_qty_max": 1_000_000,
    "order_qty_step": "lot",
    "order_px_step": "tick",
    "order_notional_min": 1.0,
    "order_notional_max": 1e9,
    "notional_window_max": 1e11,
    "notional_window_ms": 10.0,
    "notional_session_max": 4e11,
    "collar_bps": 500.0,
    "collar_window_bps": 1_000.0,
    "collar_window_ms": 1_000.0,
    "reference_age_max_ms": 86_400_000.0,
    "position_max": 10**9,
    "gross_position_max": 10**9,
    "gross_exposure_max": 1e11,
    "net_exposure_max": 1e11,
    "credit_max": 1e11,
    "margin_pct": 50,
    "daily_loss_max": 1e9,
    "drawdown_max": 1e9,
    "losses_in_a_row_max": 1_000,
    "self_trade": "refuse",
    "duplicates_max": 1_000_000,
    "duplicates_window_ms": 1_000.0,
    "message_rate_per_s": 1_000_000_000,
    "message_burst": 1_000_000_000,
    "order_to_trade_max": 100,
    "order_to_trade_free": 1_000_000_000,
    "strategy_orders_max": 1_000_000_000,
    "strategy_window_ms": 86_400_000.0,
    "restricted": ["ZVZZT"],
}
OPTIONAL = [name for name in ON if can_be_off(name)]
ALL_OFF = ON | dict.fromkeys(OPTIONAL, "off") | {"restricted": []}


class Gate:
    """A gate on boards in shared memory, a live clock, and orders that it passes."""

    def __init__(self, limits: dict[str, Any], sized: dict[str, Any] | None = None) -> None:
        """sized: the limits by which the tables are sized, where those in force are beyond what anybody trades at."""
        name = f"bench-{uuid.uuid4().hex[:12]}"
        self.boards = {
            "quotes": Board.create(f"{name}.quotes", QUOTE, 64),
            "instruments": Board.create(f"{name}.instruments", INSTRUMENT, 64),
            "positions": Board.create(f"{name}.positions", POSITION, 64),
            "rules": Board.create(f"{name}.rules", RISK_RULES, 1),
        }
        control, facts = Table.create(f"{name}.control", CONTROL), Table.create(f"{name}.facts", RISK_FACTS)
        self.tables = [*self.boards.values(), control, facts]
        for table in self.tables:
            table.unlink()
        control.records[0].phase, control.records[0].session_up = PHASE_TRADING, 1
        symbols = [f"SYM{number}" for number in range(SYMBOLS)]
        for line, symbol in enumerate(symbols):
            self._set("instruments", line, symbol=pack_symbol(symbol), tick_px=100, lot_qty=100)
            bid, ask = PX - 200, PX + 200
            self._set("quotes", line, flags=BOOK_VALID, bid_px=bid, ask_px=ask, bid_sz=1, ask_sz=1, origin_tsc=lib.tp_rdtsc())
            self._set("positions", line, position=100, fills=1, cash=-100 * PX)
        checked = Limits(**limits)
        write(self.boards["rules"], Rules(checked, symbols=SYMBOLS, venue_qty_max=QUANTITY_MAX))
        self.risk = make_risk(Limits(**sized or limits), symbols, **self.boards, control=control, facts=facts, orders_max=OPEN_ORDERS)
        self.clock = calibrate().clock()
        self.orders = orders_that_pass()

    def _set(self, board: str, line: int, **fields: Any) -> None:
        for name, value in fields.items():
            self.boards[board].records[line][name] = value
        self.boards[board].words()[line][0] += 2

    def settle(self, passed: int, asked: int) -> None:
        if passed != asked:
            raise SystemExit(f"passed={passed} of {asked}: the figure would be of refusals: {verdicts(self.risk)}")

    def per_order_ns(self, kernel: Any, rounds: int, *more: Any) -> float:
        started = time.thread_time_ns()
        passed = kernel(self.risk, self.clock, self.orders, *more, rounds)
        taken = time.thread_time_ns() - started
        self.settle(passed, rounds * ORDERS)
        return taken / rounds / ORDERS

    def close(self) -> None:
        del self.risk
        for table in self.tables:
            table.detach()


def orders_that_pass() -> np.recarray:
    """Bids below the middle and offers above it, on every instrument, no two alike."""
    orders = np.zeros(ORDERS, ORDER).view(np.recarray)
    for number in range(ORDERS):
        side = BUY if number % 2 else SELL
        away = 100 * (1 + number // 16)
        order = orders[number]
        order.kind, order.side, order.qty, order.order_id, order.instrument = MSG_NEW, side, 100, number + 1, number // 2 % SYMBOLS
        order.px = PX - away if side == BUY else PX + away
    return orders


def each_ns(rounds: int, ns_per_tick: float) -> dict[str, float]:
    """Percentiles of single orders, all checks on: as read, less what two readings of the clock cost at the median."""
    gate = Gate(ON)
    histograms = [np.zeros(HISTOGRAM.itemsize // 8, np.int64) for _ in range(2)]
    for last in (1, rounds):
        for histogram in histograms:
            histogram[:] = 0
        judge_each(gate.risk, gate.clock, gate.orders, last, *histograms)
    full, empty = (Distribution.of(histogram) for histogram in histograms)
    gate.settle(int(gate.risk.counts[0]), (rounds + 1) * ORDERS)
    gate.close()
    clock_ns = empty.percentile(50) * ns_per_tick
    found = {name: round(full.percentile(share) * ns_per_tick - clock_ns, 1) for name, share in (("p50", 50), ("p99", 99), ("p99.9", 99.9))}
    return found | {"two_clock_readings": round(clock_ns, 1)}


def batches_ns(rounds: int, runs: int) -> tuple[dict[str, float], dict[str, dict[str, float]]]:
    """Medians of runs that take turns: everything on, off, and encoded; and for each check: left out, and alone."""
    settings = {"all": ON, "least": ALL_OFF}
    settings |= {f"without {name}": ON | {name: "off"} for name in OPTIONAL} | {
        f"only {name}": ALL_OFF | {name: ON[name]} for name in OPTIONAL
    }
    gates = {name: Gate(limits) for name, limits in settings.items()}
    wire = np.zeros(WIRE_BYTES, np.uint8)
    opening, encoding = Gate(ON), Gate(ON)
    found: dict[str, list[float]] = {}

    def note(name: str, ns: float) -> None:
        found.setdefault(name, []).append(ns)

    for run in range(runs + 1):
        for name, gate in gates.items():
            ns = gate.per_order_ns(judge, rounds)
            if run:
                note(name, ns)
        opened, encoded = opening.per_order_ns(judge_and_open, rounds), encoding.per_order_ns(judge_and_encode, rounds, wire)
        started = time.thread_time_ns()
        idle(opening.clock, opening.orders, rounds)
        if run:
            note("loop", (time.thread_time_ns() - started) / rounds / ORDERS)
            note("open", opened)
            note("encode", encoded)
    for gate in (*gates.values(), opening, encoding):
        gate.close()
    median = {name: statistics.median(values) for name, values in found.items()}
    base = median["loop"]
    whole = {
        "all_checks": median["all"] - base,
        "those_never_off": median["least"] - base,
        "all_checks_and_what_sending_keeps": median["open"] - base,
        "all_that_and_encoding": median["encode"] - base,
    }
    checks = {
        name: {"left_out": median["all"] - median[f"without {name}"], "alone": median[f"only {name}"] - median["least"]}
        for name in OPTIONAL
    }
    return {name: round(ns, 1) for name, ns in whole.items()}, {
        name: {how: round(ns, 1) for how, ns in costs.items()} for name, costs in checks.items()
    }


@click.command()
@click.option("--rounds", default=200, show_default=True, help=f"Of {ORDERS} orders in each run.")
@click.option("--runs", default=15, show_default=True, help="Of which the medians are.")
@click.option("--cpu", default=-1, help="Pin to this CPU (default: the last one).")
@click.option("--json", "json_path", metavar="FILE", help="Write the result as JSON; '-' is standard output.")
def main(rounds: int, runs: int, cpu: int, json_path: str | None) -> None:
    """Measure the risk gate."""
    os.sched_setaffinity(0, {cpu if cpu >= 0 else max(os.sched_getaffinity(0))})
    single = each_ns(rounds, 1e9 / calibrate().hz)
    whole, checks = batches_ns(rounds, runs)
    result = {"single_order_ns": single, "per_order_ns": whole, "check_ns": checks, "machine": describe()}
    if json_path == "-":
        click.echo(json.dumps(result, indent=2))
        return
    if json_path:
        Path(json_path).write_text(json.dumps(result, indent=2))
    click.echo("one order, all checks on, ns: " + "  ".join(f"{name} {ns}" for name, ns in single.items()))
    for name, ns in whole.items():
        click.echo(f"{name.replace('_', ' '):<40}{ns:>7.1f} ns an order")
    click.echo(f"{'check':<28}{'left out, saves':>16}{'alone, costs':>16}")
    for name, costs in checks.items():
        click.echo(f"{name:<28}{costs['left_out']:>13.1f} ns{costs['alone']:>13.1f} ns")


if __name__ == "__main__":
    main()
