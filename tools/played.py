"""A run whose feed is a packet capture (`tickpath run --feed X.pcap`): its config, and what the report says of the file."""

from pathlib import Path
from typing import Any

from engine.feed.capture import chosen_lines, find_lines
from engine.feed.frames import REFUSALS, address_text
from engine.runtime.config import Config, load
from engine.runtime.supervisor import Supervisor
from tools.survey import busiest_captured

SYMBOLS_PICKED = 3
# What a listing needs; nobody trades on it while the exchange has no flow.
LISTED_PX = 1.0


def overrides(config: Path, capture: Path, *, speed: float | None, symbols: list[str]) -> tuple[dict[str, Any], list[str]]:
    """What of the config a capture changes, and sentences about it. OSError, ValueError, ConfigError.

    The first MoldUDP64 session in the capture is the feed. An embedded exchange has no flow then: it takes orders, and only they meet.
    """
    lines = find_lines(capture)
    chosen = symbols or busiest_captured(capture, lines, SYMBOLS_PICKED)
    if not chosen:
        raise ValueError(f"feed={capture}: no order is added at its start, so no symbol can be chosen by it; name some with --symbols")
    changed: dict[str, Any] = {
        "feed.source": "pcap", "feed.path": str(capture.resolve()), "feed.address": address_text(lines.a),
        "feed.address_b": "" if lines.b is None else address_text(lines.b), "feed.speed": 1.0 if speed is None else speed,
        "strategy.symbols": chosen, "seconds": 0.0,
    }  # fmt: skip
    if load(config).exchange is not None:
        changed |= {"exchange.flow": "none", "exchange.symbols": [{"symbol": symbol, "px": LISTED_PX} for symbol in chosen]}
    said = [f"{capture.name}: session {lines.session}; {lines}"]
    if lines.sequence != 1:
        said.append(
            f"{capture.name} begins with message {lines.sequence} of its session: what came before is not in it, so no book is proven "
            "unless a new session begins in it"
        )
    if not symbols:
        said.append(f"trading {', '.join(chosen)}: most orders at the start of {capture.name}; --symbols chooses others")
    return changed, said


def first_ns(config: Config) -> int:
    """When the capture of a run begins. ValueError where the run's lines are not in it."""
    return chosen_lines(Path(config.feed.path), config.feed.address, config.feed.address_b).first_ns


def report(supervisor: Supervisor) -> dict[str, Any]:
    """The report's `capture`: what was played of it. Nothing where the feed is none."""
    if supervisor.config.feed.source != "pcap":
        return {}
    line = supervisor.instance.capture.records[0]
    return {"capture": {"path": supervisor.config.feed.path} | {name: int(line[name]) for name in line.dtype.names}}


def notes(supervisor: Supervisor) -> list[str]:
    """Sentences about what a capture had that was not played."""
    counted = report(supervisor).get("capture")
    if counted is None or not supervisor.traded:
        return []
    name, frames = Path(counted["path"]).name, counted["frames"]
    said = [f"{counted[kind]} of {frames} packets {what}: skipped" for kind, what in REFUSALS.items() if counted[kind]]
    for kind, what in (
        ("elsewhere", "datagrams were sent to other addresses: skipped"),
        ("too_long", "datagrams are longer than a packet of the feed: skipped"),
        ("unreadable", "packets contradict their own block, name no interface, or have a time that cannot be: skipped"),
        ("untimed", "packets have no time: taken to be as late as the one before"),
    ):
        if counted[kind]:
            said.append(f"{counted[kind]} {what}")
    if counted["torn"]:
        said.append("it is damaged or cut short, and was played up to there (`tickpath capture show` tells where)")
    elif not counted["ended"]:
        said.append(f"the run ended before it did: {frames} packets were read")
    return [f"{name}: {sentence}" for sentence in said]
