"""What a run is made of, read from TOML and checked whole before anything starts."""

import difflib
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta, Struct, field

from engine.exchange.hours import OWN_FLOWS, Halt, Hours, check_hours
from engine.layout import pack_symbol
from engine.risk.limits import Limits
from engine.runtime import cpus
from engine.runtime.latch import VENUE_PATTERN
from engine.runtime.venue_config import AccountConfig, FaultsConfig, Firm, LatencyConfig, Protocol, SelfTrade

DEFAULT_PATH = Path(__file__).with_name("default.toml")
# Characters of gateway.trader that a token of OUCH 4.2 has room for, and two of the venue's heartbeats.
TRADER_42_MAX = 4
SILENCE_42_MS_MIN = 2_000
STAGE_NAMES = ("feed", "strategy", "gateway", "exchange")

Name = Annotated[str, Meta(pattern=r"^[A-Za-z0-9_-]{1,32}$")]
Address = Annotated[str, Meta(pattern=r"^[0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5}$")]
Interface = Annotated[str, Meta(pattern=r"^[0-9A-Za-z._:@-]{1,15}$")]
OptionalInterface = Annotated[str, Meta(pattern=r"^[0-9A-Za-z._:@-]{0,15}$")]
OptionalAddress = Annotated[str, Meta(pattern=r"^([0-9]{1,3}(\.[0-9]{1,3}){3}:[0-9]{1,5})?$")]
Capacity = Annotated[int, Meta(ge=2, le=1 << 24)]
Count = Annotated[int, Meta(ge=1, le=1 << 30)]
Milliseconds = Annotated[int, Meta(ge=0, le=86_400_000)]
Seconds = Annotated[float, Meta(ge=0, le=7 * 86_400)]


class ConfigError(ValueError):
    """A config that must not start; the text names the key, what it is, and what was expected."""


class ProcessConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """One process: the stages it loops over, on which CPU, what it does when there is nothing to do, and before whom it runs."""

    name: Name
    stages: Annotated[list[Literal["feed", "strategy", "gateway", "exchange"]], Meta(min_length=1)]
    cpu: Annotated[int, Meta(ge=0, le=4095)] | Literal["auto"] = "auto"
    idle: Literal["auto", "spin", "yield", "sleep"] = "auto"
    # Threaded interrupts run at 50: a feed handler above them would wait for its own packets.
    fifo: Annotated[int, Meta(ge=0, le=49)] = 0
    nice: Annotated[int, Meta(ge=-20, le=19)] = 0
    numa: Annotated[int, Meta(ge=0, le=1023)] | Literal["any", "local"] = "any"


class MachineConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """What every process asks of the kernel. 0 and false ask for nothing."""

    when_refused: Literal["note", "stop"] = "note"
    prefault: bool = True
    stack_kib: Annotated[int, Meta(ge=64, le=4096)] = 512
    heap_kib: Annotated[int, Meta(ge=0, le=1 << 20)] = 4096
    lock_memory: bool = False
    timer_slack_ns: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    oom_score_adj: Annotated[int, Meta(ge=-1000, le=1000)] = 0


class RingsConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """Slots of each ring, powers of two."""

    ticks: Capacity = 65_536
    orders: Capacity = 4_096
    reports: Capacity = 65_536


class RecoveryConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """How the feed handler gets back what it lost: from the other line, from rewind servers, from a snapshot, in this order."""

    window_messages: Capacity = 1 << 16
    reorder_us: Annotated[int, Meta(ge=0, le=1_000_000)] = 500
    rewind: Annotated[list[Address], Meta(max_length=4)] = field(default_factory=list)
    request_messages_max: Annotated[int, Meta(ge=1, le=65_000)] = 1_000
    request_interval_us: Annotated[int, Meta(ge=1, le=1_000_000)] = 200
    request_timeout_ms: Annotated[int, Meta(ge=1, le=60_000)] = 20
    request_tries: Annotated[int, Meta(ge=1, le=1_000)] = 3
    gap_messages_max: Count = 1 << 15
    snapshot: OptionalAddress = ""
    snapshot_credentials: str = ""
    snapshot_timeout_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 10_000
    snapshot_tries: Annotated[int, Meta(ge=1, le=1_000_000)] = 10


class FeedConfig(Struct, forbid_unknown_fields=True, frozen=True):
    source: Literal["udp", "file", "pcap"]
    address: Address = "127.0.0.1:26400"
    address_b: OptionalAddress = ""
    interface: Interface = "127.0.0.1"
    interface_b: OptionalInterface = ""
    path: str = ""
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    symbols: list[str] = field(default_factory=list)
    publish_levels: bool = False
    receive_buffer_bytes: Annotated[int, Meta(ge=4096, le=1 << 30)] = 16 << 20
    busy_poll_us: Annotated[int, Meta(ge=0, le=10_000)] = 0
    kernel_stamps: bool = False
    check_books: bool = False
    stale_after_ms: Annotated[int, Meta(ge=0, le=3_600_000)] = 3_000
    clock_drift_ms_max: Annotated[int, Meta(ge=0, le=86_400_000)] = 0
    orders_max: Count = 1 << 21
    levels_max: Count = 1 << 18
    recovery: RecoveryConfig = field(default_factory=RecoveryConfig)


class StrategyConfig(Struct, forbid_unknown_fields=True, frozen=True):
    use: Annotated[str, Meta(min_length=1)]
    symbols: list[str]
    timer_ms: Annotated[int, Meta(ge=1, le=3_600_000)] = 100
    params: dict[str, Any] = field(default_factory=dict)


class GatewayConfig(Struct, forbid_unknown_fields=True, frozen=True):
    address: Address
    credentials: str = ""
    session: Annotated[str, Meta(max_length=10)] = ""
    venue: Annotated[str, Meta(pattern=VENUE_PATTERN)] = "XNAS"
    protocol: Protocol = "ouch50"
    trader: Annotated[str, Meta(pattern=r"^[A-Za-z0-9]{1,10}$")] = "TICKPATH"
    orders_max: Count = 1 << 18
    pace_per_s: Annotated[int, Meta(ge=0, le=1_000_000_000)] = 0
    pace_burst: Annotated[int, Meta(ge=1, le=1_000_000_000)] = 1
    queue_max: Annotated[int, Meta(ge=1, le=1 << 20)] = 1_024
    silence_ms: Annotated[int, Meta(ge=1, le=600_000)] = 15_000
    connect_ms: Annotated[int, Meta(ge=1, le=600_000)] = 5_000
    reconnect_ms: Annotated[int, Meta(ge=1, le=600_000)] = 50
    reconnect_ms_max: Annotated[int, Meta(ge=1, le=600_000)] = 2_000
    reconnect_tries: Annotated[int, Meta(ge=0, le=1_000_000)] = 30


class KillConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """What pulls the kill switch without a person, and whom it alerts. 0 ms: never."""

    on_loss: Literal["reduce", "kill"] = "reduce"
    on_death: Literal["end", "kill"] = "kill"
    on_mismatch: Literal["alert", "kill"] = "kill"
    stale_ms: Milliseconds = 30_000
    session_down_ms: Milliseconds = 30_000
    alert_command: Annotated[list[Annotated[str, Meta(min_length=1)]], Meta(max_length=64)] = field(default_factory=list)


class SymbolConfig(Struct, forbid_unknown_fields=True, frozen=True):
    symbol: Annotated[str, Meta(min_length=1, max_length=8)]
    px: Annotated[float, Meta(gt=0, le=199_999)]
    matching: Literal["", "fifo", "pro_rata"] = ""


class HaltConfig(Struct, forbid_unknown_fields=True, frozen=True):
    symbol: Annotated[str, Meta(min_length=1, max_length=8)]
    at_s: Seconds
    for_s: Seconds


class ScheduleConfig(Struct, forbid_unknown_fields=True, frozen=True):
    """Seconds after the exchange opens; 0: no such auction."""

    open_auction_s: Seconds = 0.0
    close_auction_s: Seconds = 0.0
    imbalance_s: Seconds = 10.0
    halts: list[HaltConfig] = field(default_factory=list)

    def hours(self) -> Hours:
        halts = [Halt(halt.symbol, halt.at_s, halt.for_s) for halt in self.halts]
        return Hours(self.open_auction_s, self.close_auction_s, self.imbalance_s, halts)


class ExchangeConfig(Struct, forbid_unknown_fields=True, frozen=True):
    flow: Literal["generated", "replay", "paper", "none"]
    symbols: list[SymbolConfig] = field(default_factory=list)
    rate_per_s: Annotated[float, Meta(gt=0, le=10_000_000)] = 20_000
    seed: Annotated[int, Meta(ge=0, le=(1 << 62))] = 1
    path: str = ""
    speed: Annotated[float, Meta(ge=0, le=1_000_000)] = 1.0
    silence_ms_max: Annotated[int, Meta(ge=1, le=86_400_000)] = 250
    window_messages: Count = 8_192
    orders_max: Count = 1 << 20
    levels_max: Count = 1 << 17
    rewind_messages: Count = 1 << 18
    matching: Literal["fifo", "pro_rata"] = "fifo"
    pro_rata_minimum: Annotated[int, Meta(ge=1, le=1_000_000)] = 2
    schedule: ScheduleConfig = field(default_factory=ScheduleConfig)
    cancel_on_disconnect: bool = True
    self_trade: SelfTrade = "trade"
    firm: Firm = ""
    accounts: Annotated[list[AccountConfig], Meta(max_length=15)] = field(default_factory=list)
    latency: LatencyConfig = field(default_factory=LatencyConfig)
    faults: FaultsConfig = field(default_factory=FaultsConfig)

    def pro_rata_symbols(self) -> list[str]:
        return [listed.symbol for listed in self.symbols if (listed.matching or self.matching) == "pro_rata"]


class Config(Struct, forbid_unknown_fields=True, frozen=True):
    """A whole run. Keys without a default must be there."""

    instance: Name
    process: Annotated[list[ProcessConfig], Meta(min_length=1, max_length=8)]
    feed: FeedConfig
    strategy: StrategyConfig
    gateway: GatewayConfig
    risk: Limits
    exchange: ExchangeConfig | None = None
    rings: RingsConfig = field(default_factory=RingsConfig)
    machine: MachineConfig = field(default_factory=MachineConfig)
    kill: KillConfig = field(default_factory=KillConfig)
    seconds: Seconds = 0.0


def load(path: Path, overrides: dict[str, Any] | None = None) -> Config:
    """The config in TOML file `path`, with dotted keys overridden, checked. ConfigError names what is wrong."""
    try:
        raw = msgspec.toml.decode(path.read_bytes())
    except OSError as error:
        raise ConfigError(f"config={path}: cannot read it: {error.strerror}") from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise ConfigError(f"config={path}: not TOML: {error}") from None
    if path != DEFAULT_PATH:
        _anchor_paths(raw, path.resolve().parent)
    for key, value in (overrides or {}).items():
        _set(raw, key, value)
    return check(raw, str(path))


def check(raw: dict[str, Any], source: str) -> Config:
    """A decoded config as a Config, or ConfigError."""
    _refuse_secrets(raw, source)
    try:
        config = msgspec.convert(raw, Config)
    except msgspec.ValidationError as error:
        raise ConfigError(f"config={source}: {_explained(str(error), raw)}") from None
    except ValueError as error:
        raise ConfigError(f"config={source}: {error}") from None
    problems = list(_problems(config))
    if problems:
        raise ConfigError(f"config={source}: " + "; ".join(problems))
    return config


def split_address(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


def _anchor_paths(raw: dict[str, Any], folder: Path) -> None:
    """Files named in a config are found from where the config is, so it can be run from anywhere."""
    for section, key in (("feed", "path"), ("exchange", "path"), ("strategy", "use"), ("gateway", "credentials")):
        value = raw.get(section, {}).get(key) if isinstance(raw.get(section), dict) else None
        if isinstance(value, str) and value not in ("", "env") and (key != "use" or value.endswith(".py")):
            raw[section][key] = str(folder / value)
    venue = raw.get("exchange")
    if isinstance(venue, dict):
        latency, accounts = venue.get("latency"), venue.get("accounts")
        _anchor(latency, "report", folder)
        for account in accounts if isinstance(accounts, list) else []:
            _anchor(account, "credentials", folder)
    recovery = raw["feed"].get("recovery") if isinstance(raw.get("feed"), dict) else None
    value = recovery.get("snapshot_credentials") if isinstance(recovery, dict) else None
    if isinstance(recovery, dict) and isinstance(value, str) and value not in ("", "env"):
        recovery["snapshot_credentials"] = str(folder / value)


def _anchor(table: Any, key: str, folder: Path) -> None:
    if isinstance(table, dict) and isinstance(table.get(key), str) and table[key]:
        table[key] = str(folder / table[key])


SECRETS = (("gateway", ("username", "password")), ("feed.recovery", ("snapshot_username", "snapshot_password")))


def _refuse_secrets(raw: dict[str, Any], source: str) -> None:
    """A config is passed around, printed and kept: what must stay secret is not in it. Their values are not told."""
    for section, keys in SECRETS:
        table: Any = raw
        for part in section.split("."):
            table = table.get(part, {}) if isinstance(table, dict) else {}
        if found := [f"{section}.{key}" for key in keys if isinstance(table, dict) and key in table]:
            prefix = keys[0].removesuffix("username")
            raise ConfigError(
                f"config={source}: {', '.join(found)}: no credentials in a config. Put username and password into a TOML file with mode "
                f"0600 and its path into {section}.{prefix}credentials; or set TICKPATH_{prefix.upper()}USERNAME and "
                f'TICKPATH_{prefix.upper()}PASSWORD and let it be "env"; the embedded exchange needs none'
            )


def _set(raw: dict[str, Any], dotted: str, value: Any) -> None:
    *parents, last = dotted.split(".")
    for parent in parents:
        raw = raw.setdefault(parent, {})
    raw[last] = value


def _problems(config: Config) -> Iterator[str]:
    """Everything that types and ranges cannot say."""
    yield from _process_problems(config)
    for key, capacity in (("ticks", config.rings.ticks), ("orders", config.rings.orders), ("reports", config.rings.reports)):
        if capacity & (capacity - 1):
            yield f"rings.{key}={capacity}: expected a power of two"
    for key, address in _addresses(config):
        yield from _address_problems(key, address)
    yield from _place_problems(config)
    if config.feed.source != "udp" and not config.feed.path:
        what = "an ITCH file" if config.feed.source == "file" else "a packet capture (pcap or pcapng)"
        yield f"feed.path is missing: feed.source={config.feed.source} reads {what}"
    for key, symbols in (("feed.symbols", config.feed.symbols), ("strategy.symbols", config.strategy.symbols)):
        yield from _symbol_problems(key, symbols)
    yield from _credentials_problems(config)
    gateway = config.gateway
    if gateway.reconnect_ms_max < gateway.reconnect_ms:
        yield f"gateway.reconnect_ms_max={gateway.reconnect_ms_max}: expected at least gateway.reconnect_ms={gateway.reconnect_ms}"
    if gateway.protocol == "ouch42":
        yield from _ouch42_problems(gateway)
    if config.exchange is not None:
        yield from _exchange_problems(config, config.exchange)


def _ouch42_problems(gateway: GatewayConfig) -> Iterator[str]:
    """What OUCH 4.2 has no place for, and what it takes to reconcile without an account query."""
    if len(gateway.trader) > TRADER_42_MAX:
        yield (
            f"gateway.trader={gateway.trader}: expected at most {TRADER_42_MAX} characters with gateway.protocol=ouch42: they stand in "
            "each order's token, beside its strategy and its number"
        )
    if gateway.silence_ms < SILENCE_42_MS_MIN:
        yield (
            f"gateway.silence_ms={gateway.silence_ms}: expected at least {SILENCE_42_MS_MIN} with gateway.protocol=ouch42: a session is up "
            "when the venue's first heartbeat has come, and it sends one after a second of silence"
        )


def _process_problems(config: Config) -> Iterator[str]:
    names = [process.name for process in config.process]
    if len(set(names)) != len(names):
        yield f"process names={names}: expected different ones"
    placed: list[str] = [stage for process in config.process for stage in process.stages]
    for stage in STAGE_NAMES:
        wanted = 1 if stage != "exchange" or config.exchange is not None else 0
        if placed.count(stage) != wanted:
            yield f"stage {stage} is in {placed.count(stage)} processes: expected {wanted}" + (
                "" if stage != "exchange" else " (with an [exchange] section 1, without one 0)"
            )
    found = cpus.look()
    for process in config.process:
        if process.cpu != "auto" and found.closed(process.cpu):
            yield f"process {process.name}: cpu={process.cpu}: {_closed(found)}"
        elif process.cpu != "auto" and process.cpu not in found.usable and process.cpu not in (reachable := cpus.reachable()):
            usable = cpus.fold(found.usable | reachable)
            yield f"process {process.name}: cpu={process.cpu}: expected one of {usable}, the CPUs this user may run on"


def trades_on_paper(config: Config) -> bool:
    """Whether the embedded exchange stands beside a real market, instead of being one."""
    return config.exchange is not None and config.exchange.flow == "paper"


def publishes(config: Config) -> bool:
    """Whether the embedded exchange is the market that the feed handler receives, with its rewind and snapshot servers."""
    return config.exchange is not None and config.feed.source == "udp" and not trades_on_paper(config)


def _credentials_problems(config: Config) -> Iterator[str]:
    """A real login is never shown to the embedded exchange, and a real venue is never tried without one."""
    recovery = config.feed.recovery
    asked = [("gateway.credentials", config.gateway.credentials, config.exchange is not None)]
    if recovery.snapshot and config.feed.source == "udp":
        asked.append(("feed.recovery.snapshot_credentials", recovery.snapshot_credentials, publishes(config)))
    for key, value, embedded in asked:
        if embedded and value:
            yield f"{key}={value!r}: the embedded exchange makes a pair at each start; leave it empty"
        elif not embedded and not value:
            yield f'{key} is missing: for a real venue expected "env" or the path of a file with mode 0600'


def _closed(found: cpus.Cpus) -> str:
    assert found.latency_set is not None
    return (
        f"tune has put it into the cpuset {found.latency_set.path}, which this user may not enter; start as root, or isolate at boot "
        "(isolcpus=, tune's cpuset_v2 = keep or cpuset_v1 = keep), where pinning alone is enough"
    )


def _exchange_problems(config: Config, exchange: ExchangeConfig) -> Iterator[str]:
    if exchange.flow == "generated" and not exchange.symbols:
        yield "exchange.symbols is missing: generated flow needs at least one {symbol, px}"
    if exchange.flow == "replay" and not exchange.path:
        yield "exchange.path is missing: flow=replay needs an ITCH file (or `tickpath run --feed FILE`)"
    if exchange.flow == "paper" and not config.gateway.address.startswith("127."):
        yield f"gateway.address={config.gateway.address}: expected one of this machine's own (127.0.0.1:PORT): no order on paper leaves it"
    latency = exchange.latency
    if bool(latency.report) != bool(latency.orders_hop or latency.reports_hop):
        yield f"exchange.latency.report={latency.report!r}: expected a report together with orders_hop, reports_hop or both"
    yield from _symbol_problems("exchange.symbols", [listed.symbol for listed in exchange.symbols])
    if exchange.flow == "generated":
        listed = {entry.symbol for entry in exchange.symbols}
        if missing := [symbol for symbol in config.strategy.symbols if symbol not in listed]:
            yield f"strategy.symbols={missing}: not among exchange.symbols {sorted(listed)}"
    if (exchange.matching == "pro_rata" or exchange.pro_rata_symbols()) and exchange.flow not in OWN_FLOWS:
        yield f"exchange.matching=pro_rata with flow={exchange.flow}: expected fifo, as what history traded was decided by price and time"
    try:
        check_hours(exchange.schedule.hours(), {listed.symbol: listed.px for listed in exchange.symbols}, exchange.flow)
    except ValueError as error:
        yield f"exchange.{error}"


def _symbol_problems(key: str, symbols: list[str]) -> Iterator[str]:
    for symbol in symbols:
        try:
            pack_symbol(symbol)
        except (ValueError, UnicodeEncodeError):
            yield f"{key}: symbol={symbol!r}: expected 1 to 8 ASCII characters"
    if len(set(symbols)) != len(symbols):
        yield f"{key}={symbols}: expected each symbol once"


def _addresses(config: Config) -> Iterator[tuple[str, str]]:
    """Every address there is, by its key."""
    yield "feed.address", config.feed.address
    yield "gateway.address", config.gateway.address
    for key, address in (("feed.address_b", config.feed.address_b), ("feed.recovery.snapshot", config.feed.recovery.snapshot)):
        if address:
            yield key, address
    for address in config.feed.recovery.rewind:
        yield "feed.recovery.rewind", address


def _place_problems(config: Config) -> Iterator[str]:
    """Two that are served or received in one place: UDP and TCP ports are different things."""
    tcp = ("gateway.address", "feed.recovery.snapshot")
    for these in (True, False):
        taken: dict[str, str] = {}
        for key, address in _addresses(config):
            if (key in tcp) == these and taken.setdefault(address, key) != key:
                yield f"{key}={address}: {taken[address]} is there already; expected an address of its own"
    if len(set(config.feed.recovery.rewind)) != len(config.feed.recovery.rewind):
        yield f"feed.recovery.rewind={config.feed.recovery.rewind}: expected each address once"


def _address_problems(key: str, address: str) -> Iterator[str]:
    host, port = split_address(address)
    if any(int(part) > 255 for part in host.split(".")) or port > 65_535:
        yield f"{key}={address}: expected an IPv4 address and a port up to 65535"


def _explained(message: str, raw: dict[str, Any]) -> str:
    """msgspec's message with the key in front, and the nearest key where one is unknown."""
    text, _, where = message.partition(" - at `$")
    place = where.rstrip("`").lstrip(".") or "top level"
    if unknown := re.search(r"unknown field `(.+?)`", text):
        near = difflib.get_close_matches(unknown[1], _keys_at(place), 1)
        return f"{place}: unknown key {unknown[1]!r}" + (
            f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(_keys_at(place))}"
        )
    if missing := re.search(r"missing required field `(.+?)`", text):
        return f"{place}: missing key {missing[1]!r}"
    return f"{place}={_value_at(raw, place)!r}: {text[0].lower()}{text[1:]}"


def _keys_at(place: str) -> list[str]:
    kind: Any = Config
    for part in [] if place == "top level" else re.sub(r"\[[^]]*\]", "", place).split("."):
        kind = {"process": ProcessConfig, "feed": FeedConfig, "strategy": StrategyConfig, "gateway": GatewayConfig, "risk": Limits}.get(
            part,
            {
                "exchange": ExchangeConfig,
                "rings": RingsConfig,
                "symbols": SymbolConfig,
                "machine": MachineConfig,
                "kill": KillConfig,
                "recovery": RecoveryConfig,
                "schedule": ScheduleConfig,
                "halts": HaltConfig,
            }.get(part, kind),
        )
    return list(kind.__struct_fields__)


def _value_at(raw: Any, place: str) -> Any:
    for part in re.findall(r"[^.\[\]]+", place):
        try:
            raw = raw[int(part)] if part.isdigit() else raw[part]
        except (KeyError, IndexError, TypeError):
            return "?"
    return raw
