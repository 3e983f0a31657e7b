"""Orders a second through the matching core alone, on one core: orders as an array in, events as an array out.

    orders ──▶ engine.exchange.hot.core on engine.book ──▶ events        ours
           ──▶ std::map of prices, linked orders (matching.cpp) ──▶ the same   the yardstick, g++ -O3 -march=native

The flow is that of the public matching-engine challenge in kind (perf/order_flow.py), in its five scenarios; as there, the figure is
the worst scenario's. Unlike there, events are not handed on to another thread, and orders do not come one call at a time. Passes
alternate, each on a fresh book; figures are CPU seconds of the one pinned thread, medians. Both must tell the same events to the
byte, and those of the first orders must be what plain Python says (perf/plain_matching.py), or the exit code is 1.
"""

import ctypes
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np

from engine.book.book import make_book
from engine.book.hot.book import LEVELS_LIVE, ORDERS_LIVE
from engine.exchange.hot.core import EVENT, TRADED, WALK_WORDS
from engine.exchange.hot.prorata import FIFO
from perf.hot.matching import NO_ROOM, run
from perf.order_flow import SCENARIOS, make_flow, mix_of
from perf.plain_matching import PlainEngine, told
from tools.machine import describe

FIRST_REF = 1 << 40
LEVELS_MAX = 1 << 16
# Every order tells of itself at most twice, and of every order that it trades with; one that trades with several took as many off.
EVENTS_PER_ORDER = 3
PRO_RATA_MINIMUM = 2
EXIT_DIFFERENT = 1


class Ours:
    """A fresh book, and what the core does with the orders on it."""

    def __init__(self, orders: np.ndarray, ids: int) -> None:
        self.orders = orders.view(np.recarray)
        self.ids = ids
        self.events = np.zeros(EVENTS_PER_ORDER * len(orders), EVENT).view(np.recarray)
        self.count = 0
        self.fresh()

    def fresh(self) -> None:
        self.book = make_book(orders_max=self.ids, levels_max=LEVELS_MAX, instruments_max=2)
        self.handles = np.zeros(self.ids + 1, np.uint32)
        self.walk = np.zeros(WALK_WORDS, np.int64)

    def run(self, minimum: int = FIFO) -> None:
        self.count = int(run(self.book, self.handles, self.orders, self.events, self.walk, FIRST_REF, minimum))

    def told(self) -> np.ndarray:
        return self.events[: self.count]


class Yardstick:
    def __init__(self, orders: np.ndarray, ids: int, library: ctypes.CDLL) -> None:
        self.orders, self.ids, self.library = orders, ids, library
        self.events = np.zeros(EVENTS_PER_ORDER * len(orders), EVENT)
        self.count = 0

    def run(self) -> None:
        self.count = self.library.tp_match(self.orders.ctypes.data, len(self.orders), self.ids + 1, FIRST_REF, self.events.ctypes.data)

    def told(self) -> np.ndarray:
        return self.events[: self.count]


def compile_yardstick(folder: Path) -> ctypes.CDLL | None:
    """matching.cpp as a library, or None where there is no g++. CalledProcessError where it does not compile."""
    library = folder / "matching.so"
    source = Path(__file__).with_name("matching.cpp")
    command = ["g++", "-std=c++20", "-O3", "-march=native", "-Wall", "-Werror", "-shared", "-fPIC", str(source), "-o", str(library)]
    try:
        subprocess.run(command, check=True)
    except FileNotFoundError:
        return None
    loaded = ctypes.CDLL(str(library))
    loaded.tp_match.argtypes = [ctypes.c_void_p, ctypes.c_size_t, ctypes.c_size_t, ctypes.c_int64, ctypes.c_void_p]
    loaded.tp_match.restype = ctypes.c_int64
    return loaded


def measure(scenario: str, new_orders: int, seed: int, passes: int, library: ctypes.CDLL | None, plain_orders: int) -> dict[str, Any]:
    orders = make_flow(scenario, new_orders, seed)
    ours = Ours(orders, new_orders)
    peer = Yardstick(orders, new_orders, library) if library is not None else None
    times: dict[str, list[float]] = {"ours": [], "pro_rata": [], "peer": []}
    for _ in range(passes + 1):
        ours.fresh()
        times["pro_rata"].append(cpu_seconds(lambda: ours.run(PRO_RATA_MINIMUM)))
        ours.fresh()
        times["ours"].append(cpu_seconds(ours.run))
        if peer is not None:
            times["peer"].append(cpu_seconds(peer.run))
    # The first pass of each touches memory that the machine may not have touched before: it does not count.
    rates = {name: [len(orders) / seconds / 1e6 for seconds in taken[1:]] for name, taken in times.items() if taken}
    best = {name: round(statistics.median(each), 3) for name, each in rates.items()}
    said = ours.told()
    trades = int((said["kind"] == TRADED).sum())
    return {
        "scenario": scenario,
        "orders": len(orders),
        "mix": mix_of(orders),
        "trades": trades,
        "events": len(said),
        "resting_at_end": int(ours.book.counts[ORDERS_LIVE]),
        "levels_at_end": int(ours.book.counts[LEVELS_LIVE]),
        "mps": best["ours"],
        "order_ns": round(1e3 / best["ours"], 1),
        "pro_rata_mps": best["pro_rata"],
        "peer_mps": best.get("peer"),
        "ratio": round(best["ours"] / best["peer"], 3) if "peer" in best else None,
        "pass_mps": {name: [round(rate, 3) for rate in each] for name, each in rates.items()},
        "differences": list(differences(said, peer, orders, plain_orders)),
    }


def differences(said: np.ndarray, peer: Yardstick | None, orders: np.ndarray, plain_orders: int) -> list[str]:
    """What contradicts our events, as sentences."""
    found = []
    if (said["kind"] == NO_ROOM).any():
        found.append("the book had no room for an order; the figures are of another flow")
    if peer is not None and said.tobytes() != peer.told().tobytes():
        same = min(len(said), len(peer.told()))
        unequal = np.flatnonzero(said[:same] != peer.told()[:same])
        at = int(unequal[0]) if len(unequal) else same
        found.append(f"event={at}: ours={said[at : at + 1].tolist()}, std::map engine {peer.told()[at : at + 1].tolist()}")
    plain = PlainEngine(FIRST_REF).run(orders[:plain_orders])
    if told(said[: len(plain)]) != plain:
        found.append(f"the first {plain_orders} orders: plain Python says otherwise")
    return found


def cpu_seconds(work: Callable[[], None]) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def show(figures: dict[str, Any], *, to_error: bool) -> None:
    rows = figures["scenarios"]
    mix = "  ".join(f"{name} {share:.1%}" for name, share in rows[0]["mix"].items())
    lines = [f"{rows[0]['orders']:,} orders each, seed {figures['seed']}: {mix}"]
    lines.append(
        f"{'':12}{'M orders/s':>12}{'ns/order':>10}{'std::map':>10}{'ratio':>8}{'pro-rata':>10}{'trades':>10}{'resting':>9}{'levels':>8}"
    )
    for row in rows:
        peer = f"{row['peer_mps']:>10.2f}{row['ratio']:>8.2f}" if row["peer_mps"] else f"{'no g++':>10}{'':8}"
        lines.append(
            f"{row['scenario']:12}{row['mps']:>12.2f}{row['order_ns']:>10.1f}{peer}{row['pro_rata_mps']:>10.2f}"
            f"{row['trades']:>10,}{row['resting_at_end']:>9,}{row['levels_at_end']:>8,}"
        )
    lines.append(f"worst scenario: {figures['worst_mps']:.2f} M orders/s ({figures['worst']})")
    told_same = not any(row["differences"] for row in rows)
    lines.append("events: " + ("equal to the byte, and plain Python's" if told_same else "DIFFERENT"))
    lines.append(json.dumps(figures["machine"]))
    click.echo("\n".join(lines), err=to_error)


@click.command(help="Time the matching core on the challenge's kind of flow, beside a std::map engine in C++ on the same orders.")
@click.option("--orders", default=1_000_000, show_default=True, type=click.IntRange(min=1_000), help="New orders of each scenario.")
@click.option("--seed", default=23, show_default=True, help="Seed of the flow.")
@click.option("--passes", default=7, show_default=True, type=click.IntRange(min=1), help="Timed passes of each.")
@click.option("--scenario", "chosen", multiple=True, type=click.Choice(list(SCENARIOS)), help="Only this one; may be given again.")
@click.option("--plain-orders", default=100_000, show_default=True, help="Messages that plain Python checks.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="Where figures go; - is stdout."
)
def main(orders: int, seed: int, passes: int, chosen: tuple[str, ...], plain_orders: int, json_path: Path | None) -> None:
    usable = os.sched_getaffinity(0)
    os.sched_setaffinity(0, {max(usable)})
    try:
        with tempfile.TemporaryDirectory() as folder:
            library = compile_yardstick(Path(folder))
            rows = [measure(scenario, orders, seed, passes, library, plain_orders) for scenario in chosen or SCENARIOS]
    finally:
        os.sched_setaffinity(0, usable)
    worst = min(rows, key=lambda row: float(row["mps"]))
    figures = {"scenarios": rows, "worst": worst["scenario"], "worst_mps": worst["mps"], "seed": seed, "machine": describe()}
    to_error = str(json_path) == "-"
    show(figures, to_error=to_error)
    if json_path is not None:
        text = json.dumps(figures, indent=2) + "\n"
        sys.stdout.write(text) if to_error else json_path.write_text(text)
    problems = [problem for row in rows for problem in row["differences"]]
    if problems:
        click.echo(f"the engines differ: {problems[0]}", err=True)
        sys.exit(EXIT_DIFFERENT)


if __name__ == "__main__":
    main()
