"""`tickpath run` and `tickpath warm`: from a config to a report."""

import datetime
import os
import sys
import time
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import msgspec
import orjson
import psutil
from rich.console import Console

from engine.feed.pcap import is_capture
from engine.layout import pack_symbol
from engine.risk import rules
from engine.runtime import cpus, keeper, kills, latch, logins, realtime, report, standing
from engine.runtime.clock import Calibration, calibrate
from engine.runtime.config import Config, ConfigError, load, publishes, trades_on_paper
from engine.runtime.instance import Instance
from engine.runtime.placement import Place, place
from engine.runtime.supervisor import Outcome, Supervisor
from shm._shim import lib
from tools import onpaper, played, risk, show
from tools.machine import describe
from tools.survey import busiest

LIVE_EVERY_S = 0.2
SYMBOLS_PICKED = 3
PX_DECIMALS = 4
EXIT_LOST = 1


def run(config: Config, console: Console, notes: list[str], *, trade: bool = True) -> tuple[dict[str, Any], int]:
    """Run an instance from start to end and return its report and the exit code. SegmentError, ClockError, ConfigError, Killed."""
    places, placing_notes = _places(config)
    if os.environ.get("NUMBA_DISABLE_JIT", "0") != "0":
        placing_notes.append("NUMBA_DISABLE_JIT is set: kernels run as plain Python, to be stepped through and not to be timed")
    midnight_ns = _midnight_ns(played.first_ns(config) if config.feed.source == "pcap" else time.time_ns())
    found = logins.find(config)
    calibration = calibrate()
    started_tsc = _command_tsc(calibration)
    accounts = 1 + len(config.exchange.accounts) if config.exchange is not None else 1
    instance = Instance.create(config.instance, config.rings, accounts, paper=trades_on_paper(config), orders_max=config.gateway.orders_max)
    try:
        if trade:
            latch.check(config.instance)
        placing_notes += keeper.establish(instance, config)
        instance.control.records["venue"][0] = pack_symbol(config.gateway.venue)
        placing_notes += kills.establish(instance.control, config.instance)
        supervisor = Supervisor(config, instance, calibration, places, midnight_ns, found)
        with show.live(console) as line:
            outcome = supervisor.run(_shower(line, supervisor), trade=trade)
        result = _result(supervisor, outcome, started_tsc, notes + placing_notes + outcome.notes)
    finally:
        instance.unlink()
    return result, outcome.code or (EXIT_LOST if result["lost"] else 0)


def _places(config: Config) -> tuple[list[Place], list[str]]:
    """Where each process runs, and what to say of it. ConfigError where one must not spin at the priority asked for."""
    found, throttle = cpus.look(), realtime.read_throttle()
    places, notes = place(config.process, found.usable, found.quiet)
    if problems := list(realtime.refusals(places, found, throttle, found.own)):
        raise ConfigError("; ".join(problems))
    if found.latency_set is not None and not found.latency_set.enterable:
        notes.append(f"{found.latency_set.path}: this user may not enter it, so its CPUs {cpus.fold(found.latency_set.cpus)} stay idle")
    return places, notes + list(realtime.notes(places, found, throttle))


def config_for(
    path: Path, *, feed: Path | None, seconds: float | None, speed: float | None, symbols: list[str], paper: bool = False
) -> tuple[Config, list[str]]:
    """The config with the command line's words put into it, and sentences about what they changed."""
    overrides, notes = onpaper.overrides(path) if paper else ({}, [])
    if feed is not None and feed.is_file() and is_capture(feed):
        capture_overrides, capture_notes = played.overrides(path, feed, speed=speed, symbols=symbols)
        overrides = capture_overrides | overrides
        notes += capture_notes
    elif feed is not None:
        chosen = symbols or busiest(feed, SYMBOLS_PICKED)
        if paper:
            overrides |= onpaper.of_file(feed, 1.0 if speed is None else speed)
        else:
            overrides |= {"exchange.flow": "replay", "exchange.path": str(feed.resolve())}
        overrides |= {"strategy.symbols": chosen, "seconds": 0.0}
        if not chosen:
            raise ValueError(f"feed={feed}: no order is added at its start, so no symbol can be chosen by it; name some with --symbols")
        if not symbols:
            named = ", ".join(chosen)
            notes.append(f"trading {named}: most orders at the start of {feed.name}; --symbols chooses others")
    elif symbols:
        overrides["strategy.symbols"] = symbols
    if speed is not None and "feed.speed" not in overrides:
        overrides["exchange.speed"] = speed
    if seconds is not None:
        overrides["seconds"] = seconds
    return load(path, overrides), notes


def write_json(result: dict[str, Any], target: str) -> None:
    """The report as JSON, to a file or to standard output ('-')."""
    text = orjson.dumps(result, option=orjson.OPT_INDENT_2 | orjson.OPT_APPEND_NEWLINE)
    if target == "-":
        sys.stdout.buffer.write(text)
    else:
        Path(target).write_bytes(text)


def _shower(line: Any, supervisor: Supervisor) -> Any:
    shown = [0.0]
    names = [placed.name for placed in supervisor.places]

    def draw(running: Supervisor) -> None:
        now = time.monotonic()
        if now - shown[0] >= LIVE_EVERY_S:
            shown[0] = now
            line.update(show.live_line(running.instance, names, running.traded_s, running.config.seconds), refresh=True)

    return draw


def _result(supervisor: Supervisor, outcome: Outcome, started_tsc: int, notes: list[str]) -> dict[str, Any]:
    calibration = supervisor.calibration
    gathered = report.gather(
        supervisor.instance,
        supervisor.places,
        [child.ending for child in supervisor.children],
        ns_per_tick=1e9 / calibration.hz,
        px_decimals=PX_DECIMALS,
        # Beside a file or a capture the exchange numbers its instruments by itself: there is nothing to compare them with. On paper they
        # are those of the market itself.
        embedded=publishes(supervisor.config) or trades_on_paper(supervisor.config),
    )
    return {
        "instance": supervisor.config.instance,
        "paper": trades_on_paper(supervisor.config),
        "traded": supervisor.traded,
        "seconds": round(supervisor.traded_s, 3),
        "ended": outcome.why,
        "failures": outcome.failures,
        "notes": notes + _unseen(supervisor) + _unread(supervisor) + played.notes(supervisor),
        **gathered,
        "open_orders": supervisor.open_orders().to_dict(),
        "risk": _risk(supervisor),
        "kill": report.kill(supervisor.instance, calibration.hz),
        "trader": supervisor.config.gateway.trader,
        "alerts": [{"at": at, "text": text} for at, text in supervisor.alerts.said],
        **played.report(supervisor),
        "first_order_ms": report.first_order_ms(supervisor.instance, calibration.hz, started_tsc),
        "tsc_hz": round(calibration.hz),
        "machine": describe(),
    }


def _risk(supervisor: Supervisor) -> dict[str, Any]:
    """What the gate decided, by which limits, and who changed them meanwhile."""
    shared = supervisor.instance
    found = rules.read(shared.rules)
    said: dict[str, Any] = {} if found is None else risk.described(found, shared.facts.records[0])
    return said | {"decisions": [msgspec.structs.asdict(made) for made in standing.decisions(shared.name)[supervisor.decided :]]}


def _unread(supervisor: Supervisor) -> list[str]:
    """A sentence about what a replayed file held and could not be replayed."""
    exchange, malformed = supervisor.config.exchange, int(supervisor.instance.exchange_stats.records["malformed"][0])
    if exchange is None or exchange.flow != "replay" or not malformed:
        return []
    return [f"{exchange.path}: malformed={malformed}: messages that are not whole ITCH 5.0, or a file cut short; all others were replayed"]


def _unseen(supervisor: Supervisor) -> list[str]:
    """A sentence about symbols that the feed never named: they could not be traded."""
    named = set(supervisor.instance.instruments.records["symbol"].tolist())
    unseen = [symbol for symbol in supervisor.config.strategy.symbols if pack_symbol(symbol) not in named]
    return [f"{', '.join(unseen)}: never named by the feed, so never traded"] if unseen and supervisor.traded else []


def _command_tsc(calibration: Calibration) -> int:
    """The TSC when this process was started, so that interpreter and imports count."""
    age_s = time.time() - psutil.Process().create_time()
    return int(lib.tp_rdtsc() - age_s * calibration.hz)


def _midnight_ns(of_ns: int) -> int:
    """The venue's last midnight before a time: NASDAQ counts nanoseconds from it, in New York's time."""
    now = datetime.datetime.fromtimestamp(of_ns // 1_000_000_000, ZoneInfo("America/New_York"))
    return int(now.replace(hour=0, minute=0, second=0, microsecond=0).timestamp()) * 1_000_000_000
