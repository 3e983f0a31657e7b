"""What can be asked of the exchange's conduct: latencies and faults, as they stand in a config. No kernel is loaded for it."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import msgspec
import numpy as np

# Latencies that a measured distribution is drawn from: one for each part in so many.
DRAWS = 4096
LATENCY_NS_MAX = 60_000_000_000
# In the order of hot/faults.py.
FAULT_NAMES = ("reject", "silence", "delay", "duplicate", "disconnect", "blackhole")


class Latency(NamedTuple):
    """What an order waits from its bytes' arrival until it is done, and a report from its event until it is sent, in nanoseconds: one
    value, or several, each as likely (from_report). Drawn from `seed`. Within a connection nothing overtakes anything."""

    orders_ns: Sequence[int] = (0,)
    reports_ns: Sequence[int] = (0,)
    seed: int = 1


class Faults(NamedTuple):
    """The fault menu (hot/faults.py). rates: the probability of each fault by name, at every occasion; times: pairs of a name and when in
    seconds since the exchange's first turn it strikes, at the first occasion from then on. silence_ms: how long nothing is said; delay_ms:
    how much later reports are sent. Drawn from `seed`."""

    rates: Mapping[str, float] = {}
    times: Sequence[tuple[str, float]] = ()
    silence_ms: float = 1_000.0
    delay_ms: float = 50.0
    seed: int = 1


AT_ONCE = Latency()
NO_FAULTS = Faults()


def from_report(path: str | Path, hop: str) -> list[int]:
    """Latencies distributed as a hop was in the report that `tickpath run --json` wrote, in nanoseconds. ValueError names what is missing.

    Between two percentiles that the report tells the distribution is taken to be straight. A report that tells the median, p99, p99.9 and
    the maximum only, as older ones do, says nothing of what is faster than the median: half of what is drawn from it is the median.
    """
    try:
        report = msgspec.json.decode(Path(path).read_bytes())
        hops: dict[str, dict[str, Any]] = {entry["name"]: entry for entry in report["hops"]}
    except OSError as error:
        raise ValueError(f"latency report={path}: cannot read it: {error.strerror}") from None
    except (msgspec.DecodeError, KeyError, TypeError):
        raise ValueError(f"latency report={path}: expected a report of `tickpath run --json FILE`, which lists hops") from None
    if hop not in hops or not hops[hop].get("count"):
        measured = sorted(name for name, entry in hops.items() if entry.get("count"))
        raise ValueError(f"latency hop={hop!r}: not measured in {path}; expected one of {measured}")
    try:
        percents, points = _points(hops[hop])
    except (KeyError, TypeError, ValueError):
        raise ValueError(
            f"latency hop={hop!r}: {path} does not tell its percentiles in rising order; expected the file as `tickpath run --json` wrote"
        ) from None
    shares = (np.arange(DRAWS) + 0.5) / DRAWS
    return [round(value) for value in np.interp(shares * 100, percents, points).tolist()]


def _points(hop: Mapping[str, Any]) -> tuple[np.ndarray, np.ndarray]:
    """Percents and nanoseconds of a hop's distribution. ValueError where they do not rise."""
    told = hop.get("percentiles_ns") or [(50.0, hop["p50_ns"]), (99.0, hop["p99_ns"]), (99.9, hop["p999_ns"]), (100.0, hop["max_ns"])]
    percents, points = np.array(told, np.float64).reshape(len(told), 2).T
    if not (np.diff(percents) > 0).all() or not (np.diff(points) >= 0).all():
        raise ValueError("not in rising order")
    return percents, points
