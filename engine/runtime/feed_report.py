"""What came of the market data: its lines, what was missing and how it came back, which books could not be acted on and why."""

from typing import Any

import numpy as np

from engine.feed.hot.state import LINE_A, LINE_B, LINE_REWIND, LINE_SNAPSHOT
from engine.layout import (
    BOOK_CLOSED,
    BOOK_CROSSED,
    BOOK_GAPPED,
    BOOK_HALTED,
    BOOK_OVERFLOW,
    BOOK_STALE,
    BOOK_SUSPECT,
    BOOK_VALID,
    unpack_symbol,
)
from engine.runtime.instance import Instance
from shm._shim import lib

REASONS = {
    BOOK_GAPPED: "gapped", BOOK_SUSPECT: "suspect", BOOK_STALE: "stale", BOOK_OVERFLOW: "overflow", BOOK_HALTED: "halted",
    BOOK_CROSSED: "crossed", BOOK_CLOSED: "closed",
}  # fmt: skip
NS_PER_MS = 1_000_000
BUSIEST = 10
NAMED = 20


def line_name(number: int) -> str:
    named = {LINE_A: "A", LINE_B: "B", LINE_SNAPSHOT: "snapshot"}
    return named.get(number, f"rewind {number - LINE_REWIND + 1}")


def describe(instance: Instance, ns_per_tick: float) -> dict[str, Any]:
    """Everything about the feed that is not one number of counters.feed."""
    stats = instance.feed_stats.records[0]
    return {
        "lines": lines(instance),
        "recovery": {
            name: int(stats[name])
            for name in (
                "gaps", "waited", "requests", "request_failures", "recovered", "snapshots", "snapshot_failures", "snapshots_too_old",
                "snapshot_messages", "refreshes", "suspects", "lost", "covered",
            )
        },
        "invalid_ms": {reason: round(int(stats[f"{reason}_ns"]) / NS_PER_MS, 3) for reason in ("gapped", "stale")},
        "invalidated": int(stats["invalidated"]),
        "invalid_now": invalid_now(instance),
        "busiest": busiest(instance, ns_per_tick),
    }  # fmt: skip


def lines(instance: Instance) -> list[dict[str, Any]]:
    """Every line that anything came on, or that was asked for anything."""
    described = []
    for number, row in enumerate(instance.feed_lines.records):
        if row["packets"] or row["requests"] or row["bytes"]:
            names = [name for name in row.dtype.names or () if name not in ("next", "heard_tsc")]
            described.append({"line": line_name(number)} | {name: int(row[name]) for name in names})
    return described


def invalid_now(instance: Instance) -> dict[str, list[str]]:
    """The symbols whose book may not be acted on, by reason: at most NAMED of them, then how many more."""
    records = instance.symbols.records
    told: dict[str, list[str]] = {}
    for index in np.flatnonzero((records["validity"] & ~np.uint8(BOOK_VALID)) != 0).tolist():
        if index == 0:
            continue
        for flag, reason in REASONS.items():
            if int(records[index]["validity"]) & flag:
                told.setdefault(reason, []).append(symbol(instance, index))
    return {reason: [*named[:NAMED], f"and {len(named) - NAMED} more"] if len(named) > NAMED else named for reason, named in told.items()}


def symbol(instance: Instance, index: int) -> str:
    packed = int(instance.instruments.records[index]["symbol"])
    return unpack_symbol(packed) if packed else f"instrument {index}"


def busiest(instance: Instance, ns_per_tick: float) -> list[dict[str, Any]]:
    """The instruments with the most messages about their orders, of those that are published."""
    records = instance.symbols.records
    published = np.flatnonzero((records["publish"] != 0) & (records["messages"] > 0))
    most = published[np.argsort(records["messages"][published], kind="stable")[::-1][:BUSIEST]]
    now_tsc = lib.tp_rdtsc()
    described = []
    for index in most.tolist():
        record = records[index]
        invalid_ns = int(record["invalid_ns"])
        if int(record["validity"]) not in (0, BOOK_VALID):
            invalid_ns += max(0, round((now_tsc - int(record["invalid_tsc"])) * ns_per_tick))
        counted = {name: int(record[name]) for name in ("messages", "quotes", "trades", "volume", "suspects", "refreshes", "invalidated")}
        described.append({"symbol": symbol(instance, index)} | counted | {"invalid_ms": round(invalid_ns / NS_PER_MS, 3)})
    return described
