"""What a config may say of the exchange's accounts, latencies and faults, and what comes of it."""

import json
import uuid
from pathlib import Path
from typing import Any

import pytest

from engine.exchange.menu import Faults, Latency
from engine.layout import INSTRUMENTS_MAX
from engine.runtime import logins
from engine.runtime.config import DEFAULT_PATH, ConfigError, RingsConfig, load
from engine.runtime.instance import Instance
from engine.runtime.venue_config import faults_of, latency_of


def test_by_default_there_is_one_account_and_nothing_waits_or_fails() -> None:
    exchange = load(DEFAULT_PATH).exchange
    assert exchange is not None
    assert (exchange.accounts, exchange.cancel_on_disconnect, exchange.self_trade, exchange.firm) == ([], True, "trade", "")
    assert latency_of(exchange.latency) == Latency([0], [0])
    faults = faults_of(exchange.faults)
    assert (faults.times, set(faults.rates.values())) == ([], {0.0})


def test_accounts_log_in_with_what_stands_in_files_of_theirs(tmp_path: Path) -> None:
    path = tmp_path / "beta.toml"
    path.write_text('username = "BETA"\npassword = "TWO"\n')
    path.chmod(0o600)
    account = {"credentials": str(path), "self_trade": "cancel_both", "firm": "F", "cancel_on_disconnect": False}
    config = load(DEFAULT_PATH, {"exchange.accounts": [account]})
    found = logins.find(config)
    assert [pair.texts() for pair in found.accounts] == [("BETA", "TWO")]
    found.close()
    path.chmod(0o644)
    with pytest.raises(ConfigError, match=r"exchange\.accounts\[0\]\.credentials"):
        logins.find(config)


def test_every_account_has_lines_on_the_positions_board() -> None:
    made = Instance(f"test-{uuid.uuid4().hex[:12]}", RingsConfig(ticks=64, orders=64, reports=64), 3)
    made.unlink()
    assert len(made.exchange_positions.records) == 3 * INSTRUMENTS_MAX
    assert len(made.positions.records) == INSTRUMENTS_MAX


def test_latencies_and_faults_are_what_the_config_says(tmp_path: Path) -> None:
    report = tmp_path / "run.json"
    hop = {"name": "h", "count": 9, "p50_ns": 5, "p99_ns": 5, "p999_ns": 5, "max_ns": 5}
    report.write_text(json.dumps({"hops": [hop]}))
    changes: dict[str, Any] = {
        "exchange.latency": {"report": str(report), "orders_hop": "h", "reports_us": 2.5, "seed": 4},
        "exchange.faults": {"silence": 0.25, "times": [{"fault": "delay", "at_s": 1.5}], "delay_ms": 7, "seed": 9},
    }
    exchange = load(DEFAULT_PATH, changes).exchange
    assert exchange is not None
    latency = latency_of(exchange.latency)
    assert (set(latency.orders_ns), latency.reports_ns, latency.seed) == ({5}, [2_500], 4)
    faults = faults_of(exchange.faults)
    assert faults == Faults(
        rates={"reject": 0.0, "silence": 0.25, "delay": 0.0, "duplicate": 0.0, "disconnect": 0.0, "blackhole": 0.0},
        times=[("delay", 1.5)],
        delay_ms=7,
        seed=9,
    )


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"exchange.self_trade": "maybe"}, "self_trade"),
        ({"exchange.faults.reject": 1.5}, "reject"),
        ({"exchange.faults.times": [{"fault": "fire", "at_s": 1}]}, "times"),
        ({"exchange.accounts": [{"firm": "F"}]}, "credentials"),
        ({"exchange.latency.orders_hop": "h"}, "expected a report together with orders_hop"),
        ({"exchange.latency.report": "x.json"}, "expected a report together with orders_hop"),
    ],
)
def test_what_cannot_be_is_one_sentence(changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(ConfigError, match=expected):
        load(DEFAULT_PATH, changes)
