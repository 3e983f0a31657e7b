"""What a config says of how the simulated exchange treats its clients: further accounts, latencies, faults. All of it is off by default."""

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Literal

from msgspec import Meta, Struct, field

from engine.exchange.menu import FAULT_NAMES, Faults, Latency, from_report

SelfTrade = Literal["trade", "cancel_newest", "cancel_oldest", "cancel_both"]
Firm = Annotated[str, Meta(max_length=4)]
Protocol = Literal["ouch50", "ouch42"]
Share = Annotated[float, Meta(ge=0, le=1)]
Microseconds = Annotated[float, Meta(ge=0, le=60_000_000)]
Milliseconds = Annotated[float, Meta(ge=0, le=86_400_000)]
Seed = Annotated[int, Meta(ge=0, le=1 << 62)]


class AccountConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """An account at the embedded exchange beside the gateway's: who logs in with what stands in the file `credentials`."""

    credentials: Annotated[str, Meta(min_length=1)]
    cancel_on_disconnect: bool = True
    self_trade: SelfTrade = "trade"
    firm: Firm = ""
    protocol: Protocol = "ouch50"


class LatencyConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """Fixed times, or those of a hop of a report that `tickpath run --json` wrote."""

    orders_us: Microseconds = 0.0
    reports_us: Microseconds = 0.0
    report: str = ""
    orders_hop: str = ""
    reports_hop: str = ""
    seed: Seed = 1


class FaultTime(Struct, forbid_unknown_fields=True, frozen=True):
    fault: Literal["reject", "silence", "delay", "duplicate", "disconnect", "blackhole"]
    at_s: Annotated[float, Meta(ge=0, le=86_400)]


class FaultsConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """The probability of each fault at every occasion, and when it strikes in any case."""

    reject: Share = 0.0
    silence: Share = 0.0
    delay: Share = 0.0
    duplicate: Share = 0.0
    disconnect: Share = 0.0
    blackhole: Share = 0.0
    times: Sequence[FaultTime] = field(default_factory=list)
    silence_ms: Milliseconds = 1_000.0
    delay_ms: Milliseconds = 50.0
    seed: Seed = 1


def latency_of(config: LatencyConfig) -> Latency:
    """ValueError where the report does not have the hop."""
    drawn = [
        from_report(Path(config.report), hop) if hop else [round(fixed_us * 1_000)]
        for hop, fixed_us in ((config.orders_hop, config.orders_us), (config.reports_hop, config.reports_us))
    ]
    return Latency(orders_ns=drawn[0], reports_ns=drawn[1], seed=config.seed)


def faults_of(config: FaultsConfig) -> Faults:
    return Faults(
        rates={name: getattr(config, name) for name in FAULT_NAMES},
        times=[(entry.fault, entry.at_s) for entry in config.times],
        silence_ms=config.silence_ms,
        delay_ms=config.delay_ms,
        seed=config.seed,
    )
