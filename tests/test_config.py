"""A config with anything wrong in it does not start, and says which key and why."""

from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.runtime import cpus
from engine.runtime.config import DEFAULT_PATH, ConfigError, MachineConfig, ProcessConfig, check, load


@pytest.fixture
def raw() -> dict[str, Any]:
    return msgspec.toml.decode(DEFAULT_PATH.read_bytes())


def put(raw: dict[str, Any], dotted: str, value: Any) -> dict[str, Any]:
    *parents, last = dotted.split(".")
    place: Any = raw
    for parent in parents:
        place = place[int(parent)] if parent.isdigit() else place.setdefault(parent, {})
    if value is None:
        del place[last]
    else:
        place[last] = value
    return raw


def test_the_shipped_config_is_valid(raw: dict[str, Any]) -> None:
    config = check(raw, "default")
    assert [process.name for process in config.process] == ["feed_handler", "strategy", "order_gateway", "exchange"]


def test_ouch42_with_what_it_takes_is_valid_and_a_silence_of_less_than_two_heartbeats_is_not(raw: dict[str, Any]) -> None:
    put(put(raw, "gateway.protocol", "ouch42"), "gateway.trader", "DESK")
    assert check(raw, "default").gateway.protocol == "ouch42"
    with pytest.raises(ConfigError, match=r"gateway\.silence_ms=1999: expected at least 2000 with gateway.protocol=ouch42"):
        check(put(raw, "gateway.silence_ms", 1_999), "default")


BAD = [
    ("seconds", -1.0, "seconds=-1.0: expected `float` >= 0.0"),
    ("seconds", "ten", "seconds='ten': expected `float`, got `str`"),
    ("secconds", 1, "top level: unknown key 'secconds'; did you mean 'seconds'?"),
    ("instance", None, "top level: missing key 'instance'"),
    ("instance", "../etc", "instance='../etc': expected `str` matching regex"),
    ("feed.adress", "127.0.0.1:1", "feed: unknown key 'adress'; did you mean 'address'?"),
    ("feed.address", "127.0.0.1:99999", "feed.address=127.0.0.1:99999: expected an IPv4 address and a port up to 65535"),
    ("feed.address", "localhost:1", "feed.address='localhost:1': expected `str` matching regex"),
    ("feed.source", "tape", "feed.source='tape': invalid enum value 'tape'"),
    ("feed.source", "file", "feed.path is missing"),
    ("feed.symbols", ["TOOLONGNAME"], "feed.symbols: symbol='TOOLONGNAME': expected 1 to 8 ASCII characters"),
    ("rings.ticks", 1000, "rings.ticks=1000: expected a power of two"),
    ("rings.orders", 1, "rings.orders=1: expected `int` >= 2"),
    ("strategy.use", None, "strategy: missing key 'use'"),
    ("strategy.symbols", ["AAPL", "ZZZZ"], "strategy.symbols=['ZZZZ']: not among exchange.symbols"),
    ("gateway.password", "far too long a password", "gateway.password: no credentials in a config"),
    ("gateway.reconnect_ms_max", 49, "gateway.reconnect_ms_max=49: expected at least gateway.reconnect_ms=50"),
    ("gateway.silence_ms", 0, "gateway.silence_ms=0"),
    ("gateway.protocol", "ouch43", "gateway.protocol='ouch43': invalid enum value 'ouch43'"),
    ("gateway.protocol", "ouch42", "gateway.trader=TICKPATH: expected at most 4 characters with gateway.protocol=ouch42"),
    ("risk.position_max", None, "risk: missing key 'position_max'"),
    ("risk.collar_pbs", 5, "risk: unknown key 'collar_pbs'; did you mean 'collar_bps'?"),
    ("process.0.stages", [], "process[0].stages=[]: expected `array` of length >= 1"),
    ("process.0.stages", ["feed", "gateway"], "stage gateway is in 2 processes: expected 1"),
    ("process.0.cpu", 4000, "process feed_handler: cpu=4000: expected one of"),
    ("process.0.name", "strategy", "expected different ones"),
    ("process.1.idle", "doze", "process[1].idle='doze': invalid enum value 'doze'"),
    ("process.0.fifo", 50, "process[0].fifo=50: expected `int` <= 49"),
    ("process.0.fifo", -1, "process[0].fifo=-1: expected `int` >= 0"),
    ("process.0.nice", 20, "process[0].nice=20: expected `int` <= 19"),
    ("process.0.numa", "near", "process[0].numa='near': invalid enum value 'near'"),
    ("process.0.fifos", 1, "process[0]: unknown key 'fifos'; did you mean 'fifo'?"),
    ("machine.lock_memry", True, "machine: unknown key 'lock_memry'; did you mean 'lock_memory'?"),
    ("machine.lock_memory", 1, "machine.lock_memory=1: expected `bool`, got `int`"),
    ("machine.when_refused", "ask", "machine.when_refused='ask': invalid enum value 'ask'"),
    ("machine.stack_kib", 8192, "machine.stack_kib=8192: expected `int` <= 4096"),
    ("machine.oom_score_adj", -1001, "machine.oom_score_adj=-1001: expected `int` >= -1000"),
    ("exchange.flow", "replay", "exchange.path is missing"),
    ("exchange.symbols", [], "exchange.symbols is missing"),
    ("exchange.speed", float("nan"), "exchange.speed"),
    ("exchange.matching", "lifo", "exchange.matching='lifo': invalid enum value 'lifo'"),
    ("exchange.symbols.0.matching", "lifo", "exchange.symbols[0].matching='lifo': invalid enum value 'lifo'"),
    ("exchange.pro_rata_minimum", 0, "exchange.pro_rata_minimum=0: expected `int` >= 1"),
    ("exchange.schedule.open_s", 1, "exchange.schedule: unknown key 'open_s'; did you mean 'open_auction_s'?"),
    ("exchange.schedule.close_auction_s", float("nan"), "exchange.schedule.close_auction_s=nan"),
    ("exchange.schedule.halts", [{"symbol": "ZZZZ", "at_s": 1.0, "for_s": 1.0}], "exchange.schedule.halts: symbol='ZZZZ': expected one of"),
    ("exchange.schedule.halts", [{"symbol": "AAPL", "at": 1.0, "for_s": 1.0}], "exchange.schedule.halts[0]: unknown key 'at'; did"),
    ("exchange.rewind_messages", 0, "exchange.rewind_messages=0: expected `int` >= 1"),
    ("feed.address_b", "127.0.0.1:99999", "feed.address_b=127.0.0.1:99999: expected an IPv4 address and a port up to 65535"),
    ("feed.address_b", "127.0.0.1:26400", "feed.address_b=127.0.0.1:26400: feed.address is there already; expected an address of its own"),
    ("feed.recovery.rewind", ["300.0.0.1:1"], "feed.recovery.rewind=300.0.0.1:1: expected an IPv4 address"),
    ("feed.recovery.rewind", ["127.0.0.1:26400"], "feed.recovery.rewind=127.0.0.1:26400: feed.address is there already"),
    ("feed.recovery.rewind", ["127.0.0.1:1", "127.0.0.1:1"], "expected each address once"),
    ("feed.recovery.snapshot", "1.2.3.4:70000", "feed.recovery.snapshot=1.2.3.4:70000: expected an IPv4 address"),
    ("feed.recovery.snapshot", "127.0.0.1:26401", "feed.recovery.snapshot=127.0.0.1:26401: gateway.address is there already"),
]


@pytest.mark.parametrize(("key", "value", "expected"), BAD, ids=[f"{key}={value!r}"[:40] for key, value, _ in BAD])
def test_a_bad_key_is_named_with_the_reason(raw: dict[str, Any], key: str, value: Any, expected: str) -> None:
    with pytest.raises(ConfigError) as refused:
        check(put(raw, key, value), "my.toml")
    assert str(refused.value).startswith("config=my.toml: ")
    assert expected in str(refused.value)


def test_history_keeps_its_own_rule_and_hours(raw: dict[str, Any]) -> None:
    put(put(raw, "exchange.flow", "replay"), "exchange.path", "day.itch")
    put(put(raw, "exchange.matching", "pro_rata"), "exchange.schedule.close_auction_s", 5.0)
    with pytest.raises(ConfigError) as refused:
        check(raw, "my.toml")
    assert "exchange.matching=pro_rata with flow=replay: expected fifo" in str(refused.value)
    assert "exchange.schedule: flow='replay': expected 'generated' or 'none'" in str(refused.value)


def test_a_symbol_s_rule_comes_before_the_exchange_s(raw: dict[str, Any]) -> None:
    put(raw, "exchange.symbols.0.matching", "pro_rata")
    exchange = check(raw, "my.toml").exchange
    assert exchange is not None
    assert exchange.pro_rata_symbols() == ["AAPL"]
    put(put(raw, "exchange.matching", "pro_rata"), "exchange.symbols.1.matching", "fifo")
    exchange = check(raw, "my.toml").exchange
    assert exchange is not None
    assert exchange.pro_rata_symbols() == ["AAPL", "NVDA"]


@pytest.mark.parametrize(
    "limit",
    ["order_qty_max", "order_notional_max", "collar_bps", "position_max", "message_rate_per_s", "message_burst", "reference_age_max_ms"],
)
@pytest.mark.parametrize("value", [0, -1, float("nan"), float("inf"), "100", None, True])
def test_a_limit_that_is_zero_missing_or_not_a_number_never_starts(raw: dict[str, Any], limit: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=limit):
        check(put(raw, f"risk.{limit}", value), "my.toml")


def test_the_shipped_config_asks_for_nothing_that_a_user_may_not(raw: dict[str, Any]) -> None:
    config = check(raw, "default")
    assert config.machine == MachineConfig()
    assert not config.machine.lock_memory
    assert all((process.fifo, process.nice, process.numa) == (0, 0, "any") for process in config.process)


def test_every_key_of_a_process_and_of_the_machine_is_in_the_shipped_config(raw: dict[str, Any]) -> None:
    assert set(raw["machine"]) == set(MachineConfig.__struct_fields__)
    assert set(raw["process"][0]) == set(ProcessConfig.__struct_fields__)


def test_without_the_machine_section_the_config_is_the_same(raw: dict[str, Any]) -> None:
    whole = check(raw, "default")
    del raw["machine"]
    assert check(raw, "default") == whole


def test_a_cpu_outside_of_our_affinity_may_be_named(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    """A unit's CPUAffinity= is where the supervisor stays, and no bound on where its processes are pinned."""
    monkeypatch.setattr(cpus, "look", lambda: cpus.Cpus(frozenset({0, 1}), frozenset({0}), frozenset()))
    monkeypatch.setattr(cpus, "reachable", lambda: frozenset({0, 1}))
    assert check(put(raw, "process.0.cpu", 1), "my.toml").process[0].cpu == 1
    with pytest.raises(ConfigError, match="cpu=2: expected one of 0-1"):
        check(put(raw, "process.0.cpu", 2), "my.toml")


def test_a_cpu_in_a_set_that_is_closed_to_us_is_explained(raw: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    shut = cpus.LatencySet(Path("/sys/fs/cgroup/tickpath.latency"), frozenset({1}), False)
    monkeypatch.setattr(cpus, "look", lambda: cpus.Cpus(frozenset({0, 1}), frozenset({0}), frozenset(), shut))
    with pytest.raises(ConfigError, match=r"cpu=1: tune has put it into the cpuset /sys/fs/cgroup/tickpath\.latency, which this user"):
        check(put(raw, "process.0.cpu", 1), "my.toml")


def test_without_an_exchange_section_no_process_may_hold_one(raw: dict[str, Any]) -> None:
    del raw["exchange"]
    with pytest.raises(ConfigError, match="stage exchange is in 1 processes: expected 0"):
        check(raw, "my.toml")
    raw["process"].pop()
    raw["gateway"]["credentials"] = raw["feed"]["recovery"]["snapshot_credentials"] = "env"
    assert check(raw, "my.toml").exchange is None


def test_several_problems_are_told_at_once(raw: dict[str, Any]) -> None:
    put(raw, "rings.ticks", 1000)
    put(raw, "feed.source", "file")
    with pytest.raises(ConfigError) as refused:
        check(raw, "my.toml")
    assert "rings.ticks=1000" in str(refused.value)
    assert "feed.path is missing" in str(refused.value)


def test_a_file_that_is_not_there_or_not_toml(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read it: No such file"):
        load(tmp_path / "none.toml")
    broken = tmp_path / "broken.toml"
    broken.write_text("instance = \n")
    with pytest.raises(ConfigError, match="not TOML"):
        load(broken)


def test_files_named_in_a_config_are_found_from_where_it_is(tmp_path: Path) -> None:
    path = tmp_path / "my.toml"
    path.write_text(DEFAULT_PATH.read_text().replace('"engine.strategy.market_maker"', '"./mine.py"'))
    assert load(path).strategy.use == str(tmp_path / "mine.py")
