"""How the exchange treats its clients: how long orders and reports take, and what goes wrong on purpose. Everything is off by default."""

import numpy as np

from engine.exchange.hot.delays import DELAY_WORDS
from engine.exchange.hot.faults import FAULTS, NEVER_NS
from engine.exchange.hot.state import CONDUCT_WORDS, DELAYED_NS, DELAYING, HOLDING, SILENT_NS, STRIKING, Conduct
from engine.exchange.menu import FAULT_NAMES, LATENCY_NS_MAX, Faults, Latency


def make_conduct(latency: Latency, faults: Faults, connections: int, accounts: int) -> Conduct:
    """ValueError for what cannot be, naming what to change."""
    _check(latency, faults)
    striking = bool(faults.times) or any(faults.rates.values())
    delaying = any(latency.orders_ns)
    holding = striking or any(latency.reports_ns)
    times = [sorted(round(at_s * 1e9) for name, at_s in faults.times if name == fault) for fault in FAULT_NAMES]
    rows = np.full((FAULTS, 1 + max(map(len, times))), NEVER_NS, np.int64)
    for row, due in zip(rows, times, strict=True):
        row[: len(due)] = due
    words = np.zeros(CONDUCT_WORDS, np.int64)
    words[DELAYING], words[HOLDING], words[STRIKING] = delaying, holding, striking
    words[SILENT_NS], words[DELAYED_NS] = round(faults.silence_ms * 1e6), round(faults.delay_ms * 1e6)
    return Conduct(
        words=words,
        random=np.array([latency.seed], np.uint64),
        fault_random=np.array([faults.seed], np.uint64),
        orders_ns=np.array(latency.orders_ns, np.int64),
        reports_ns=np.array(latency.reports_ns, np.int64),
        order_lines=np.zeros((connections if delaying else 1, DELAY_WORDS), np.int64),
        report_lines=np.zeros((accounts if holding else 1, DELAY_WORDS), np.int64),
        rates=np.array([faults.rates.get(name, 0.0) for name in FAULT_NAMES]),
        times=rows,
        struck_at=np.zeros(FAULTS, np.int64),
        struck=np.zeros(FAULTS, np.int64),
    )


def _check(latency: Latency, faults: Faults) -> None:
    for name, values in (("orders_ns", latency.orders_ns), ("reports_ns", latency.reports_ns)):
        if not len(values) or not all(0 <= value <= LATENCY_NS_MAX for value in values):
            raise ValueError(f"latency.{name}={list(values)[:4]}: expected one value or more from 0 to {LATENCY_NS_MAX}")
    for name in [*faults.rates, *(name for name, _ in faults.times)]:
        if name not in FAULT_NAMES:
            raise ValueError(f"faults: {name!r} is none: expected one of {sorted(FAULT_NAMES)}")
    for name, rate in faults.rates.items():
        if not 0 <= rate <= 1:
            raise ValueError(f"faults.{name}={rate}: expected a probability, 0 to 1")
    for name, at_s in faults.times:
        if not 0 <= at_s <= 86_400:
            raise ValueError(f"faults: {name} at {at_s} s: expected 0 to 86400 seconds")
    for name, value in (("silence_ms", faults.silence_ms), ("delay_ms", faults.delay_ms)):
        if not 0 <= value <= 86_400_000:
            raise ValueError(f"faults.{name}={value}: expected 0 to 86400000")
    for name, seed in (("latency.seed", latency.seed), ("faults.seed", faults.seed)):
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"{name}={seed}: expected 0 to {(1 << 64) - 1}")
