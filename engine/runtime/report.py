"""What a run did, gathered from shared memory into plain data: the JSON report, and what the terminal shows of it."""

from decimal import Decimal
from typing import Any

import numpy as np

from engine.layout import unpack_symbol
from engine.runtime import feed_report
from engine.runtime.instance import HOPS, Instance
from engine.runtime.placement import IDLE_NAMES, Place
from shm.histogram import Distribution

# Every counter that means "something was given up". Their sum is the report's `lost`.
LOSSES = {
    "feed": ("lost", "capacity_drops", "socket_drops"),
    "strategy": ("refused_full", "conflated"),
    "gateway": ("reports_lost",),
    "exchange": ("capacity_drops", "reports_lost", "send_failures"),
}

# Of which a hop's distribution is told in full: the first is the minimum.
PERCENTS = (0, 1, 5, 10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 99, 99.9, 99.99, 100)


def counters(instance: Instance) -> dict[str, dict[str, int]]:
    """Every counter of every stage, by stage and name."""
    tables = {
        "feed": instance.feed_stats,
        "strategy": instance.strategy_stats,
        "gateway": instance.gateway_stats,
        "exchange": instance.exchange_stats,
    }
    return {stage: {name: int(table.records[0][name]) for name in table.records.dtype.names or ()} for stage, table in tables.items()}


def losses(counted: dict[str, dict[str, int]], unread: dict[str, int]) -> dict[str, int]:
    """Every loss by name; `unread` are messages still on a ring when its reader stopped."""
    named = {f"{stage}.{name}": counted[stage][name] for stage, names in LOSSES.items() for name in names}
    return named | {f"{ring}.unread": count for ring, count in unread.items()}


def hops(instance: Instance, ns_per_tick: float) -> list[dict[str, Any]]:
    """Count and percentiles of every hop, in nanoseconds, from the full histograms."""
    described = []
    for (name, what), words in zip(HOPS, instance.hops.words(), strict=True):
        measured = Distribution.of(words)
        described.append(
            {
                "name": name,
                "what": what,
                "count": measured.count,
                "p50_ns": round(measured.percentile(50) * ns_per_tick),
                "p99_ns": round(measured.percentile(99) * ns_per_tick),
                "p999_ns": round(measured.percentile(99.9) * ns_per_tick),
                "max_ns": round(measured.maximum * ns_per_tick),
                "mean_ns": round(measured.mean * ns_per_tick),
                "percentiles_ns": _percentiles(measured, ns_per_tick),
            }
        )
    return described


def _percentiles(measured: Distribution, ns_per_tick: float) -> list[list[float]]:
    """[percent, nanoseconds], from the minimum to the maximum: enough to draw latencies like these again (exchange.latency)."""
    if not measured.count:
        return []
    ticks = [measured.minimum, *map(measured.percentile, PERCENTS[1:])]
    return [[percent, round(value * ns_per_tick)] for percent, value in zip(PERCENTS, ticks, strict=True)]


def positions(instance: Instance, px_decimals: int, *, embedded: bool) -> list[dict[str, Any]]:
    """One entry for each instrument that was traded: position, cash, mark and P&L, and what the exchange says of the position."""
    ours, theirs = instance.positions.records, instance.exchange_positions.records[: len(instance.positions.records)]
    traded = np.flatnonzero((ours["fills"] != 0) | ((theirs["fills"] != 0) & embedded))
    return [_position(instance, int(index), px_decimals, embedded=embedded) for index in traded]


def _position(instance: Instance, index: int, px_decimals: int, *, embedded: bool) -> dict[str, Any]:
    ours = instance.positions.records[index]
    theirs = instance.exchange_positions.records[index]
    mark_px = mark(instance.quotes.records[index])
    entry: dict[str, Any] = {
        "symbol": unpack_symbol(instance.instruments.records[index]["symbol"]),
        "position": int(ours["position"]),
        "bought": int(ours["bought"]),
        "sold": int(ours["sold"]),
        "fills": int(ours["fills"]),
        "cash": money(int(ours["cash"]), px_decimals),
        "mark": None if mark_px is None else money(mark_px, px_decimals),
        "pnl": None if mark_px is None else money(int(ours["cash"]) + int(ours["position"]) * mark_px, px_decimals),
    }
    if embedded:
        entry["exchange_position"] = int(theirs["position"])
        entry["agrees"] = all(int(ours[name]) == int(theirs[name]) for name in ("position", "cash", "fills", "bought", "sold"))
    return entry


def mark(quote: np.record) -> int | None:
    """The middle of the last quote, or the side there is; None where there is none."""
    sides = [int(quote[px]) for px, size in (("bid_px", "bid_sz"), ("ask_px", "ask_sz")) if quote[size]]
    return sum(sides) // len(sides) if sides else None


def money(value: int, px_decimals: int) -> float:
    """A fixed-point amount as a number with two to `px_decimals` exact decimals (a double holds it exactly enough to print)."""
    return float(Decimal(value).scaleb(-px_decimals))


def processes(instance: Instance, places: list[Place], endings: list[str]) -> list[dict[str, Any]]:
    described = []
    for place, line, ending in zip(places, instance.processes.records, endings, strict=False):
        described.append(
            {
                "name": place.name,
                "stages": list(place.stages),
                "pid": int(line["pid"]),
                "cpu": place.cpu,
                "shares_cpu_with": list(place.shared_with),
                "idle": IDLE_NAMES[place.idle],
                "kernels_compiled": int(line["kernels_compiled"]),
                "loops": int(line["loops"]),
                "busy": round(int(line["busy_loops"]) / max(1, int(line["loops"])), 4),
                "minor_faults": int(line["minor_faults"]),
                "major_faults": int(line["major_faults"]),
                "loop": {name: int(line[f"loop_{name}"]) for name in ("minor_faults", "major_faults", "waits", "forced")},
                "settings": settings(line),
                "ending": ending,
            }
        )
    return described


def settings(line: np.record) -> dict[str, Any]:
    """How a process really stood with the kernel while it traded. numa_node: None where memory was not bound."""
    node = int(line["numa_node"])
    return {
        "fifo": int(line["fifo"]),
        "nice": int(line["nice"]),
        "locked": bool(line["locked"]),
        "locked_kib": int(line["locked_kib"]),
        "prefaulted": bool(line["prefaulted"]),
        "pinned": int(line["cpus"]) == 1,
        "latency_set": bool(line["latency_set"]),
        "numa_node": None if node < 0 else node,
        "timer_slack_ns": int(line["timer_slack_ns"]),
        "oom_score_adj": int(line["oom_score_adj"]),
    }


def gather(
    instance: Instance, places: list[Place], endings: list[str], *, ns_per_tick: float, px_decimals: int, embedded: bool
) -> dict[str, Any]:
    """Everything of the run that lies in shared memory."""
    counted = counters(instance)
    unread = {name: sum(ring.backlog().values()) for name, ring in _rings(instance).items()}
    lost_by = losses(counted, unread)
    held = positions(instance, px_decimals, embedded=embedded)
    described = processes(instance, places, endings)
    feed, strategy, gateway = counted["feed"], counted["strategy"], counted["gateway"]
    return {
        "lost": sum(lost_by.values()),
        "lost_by": {name: count for name, count in lost_by.items() if count},
        "messages": feed["messages"],
        "gaps": feed["gaps"],
        "feed": feed_report.describe(instance, ns_per_tick),
        "malformed": feed["malformed"],
        "quotes": feed["quotes"],
        "trades": feed["trades"],
        "orders": {
            "asked": strategy["orders"] + strategy["replaces"] + strategy["cancels"],
            "sent": gateway["sent"],
            "accepted": gateway["accepted"],
            "replaced": gateway["replaced"],
            "cancelled": gateway["cancelled"],
            "rejected_by_risk": gateway["rejected_by_risk"],
            "rejected_by_exchange": gateway["rejected_by_venue"],
        },
        "fills": gateway["executed"],
        "positions": held,
        "positions_agree": all(entry["agrees"] for entry in held) if embedded else None,
        "pnl": round(sum(entry["pnl"] or 0 for entry in held), px_decimals),
        "hops": hops(instance, ns_per_tick),
        "processes": described,
        "kernels_compiled": sum(entry["kernels_compiled"] for entry in described),
        "counters": counted,
    }


def kill(instance: Instance, hz: float) -> dict[str, Any] | None:
    """What became of the last kill: the cancels it took, and microseconds from the command's word to the last of them; None without one.

    swept is False where the gateway had not written all of them: cancels are then all that were ever sent by sweeps.
    """
    number, stats = int(instance.control.records[0]["kills"]), instance.gateway_stats.records[0]
    if number == 0:
        return None
    if int(stats["kill_swept"]) < number:
        return {"number": number, "swept": False, "cancels": int(stats["cancels_on_drain"]), "kill_to_last_cancel_us": None}
    cancels = int(stats["kill_cancels"])
    took = round(int(stats["kill_to_last_cancel_tsc"]) * 1e6 / hz, 1) if cancels else None
    return {"number": number, "swept": True, "cancels": cancels, "kill_to_last_cancel_us": took}


def first_order_ms(instance: Instance, hz: float, started_tsc: int) -> float | None:
    """Milliseconds from `started_tsc` to the strategy's first order; None if it sent none."""
    first = int(instance.control.records["first_order_tsc"][0])
    return round((first - started_tsc) * 1e3 / hz, 1) if first else None


def _rings(instance: Instance) -> dict[str, Any]:
    return {"ticks": instance.ticks, "orders": instance.orders, "reports": instance.reports}
