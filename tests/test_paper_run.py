"""`tickpath run --paper`: what becomes of a config, and a whole run beside a real market."""

import random
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import pytest

from engine.layout import FEED_STATS, PROCESS, STATE_LOOPING
from engine.runtime.config import DEFAULT_PATH, ConfigError, check, publishes, trades_on_paper
from shm.segment import SHM
from shm.table import Table
from tests.itch_flow import Flow, in_packets
from tests.running import AAPL, Launcher, wait_for
from tests.test_credentials import live, without_exchange
from tools import onpaper
from tools.run import config_for


@pytest.fixture
def launcher(tmp_path: Path, instance: str) -> Iterator[Launcher]:
    made = Launcher(tmp_path, instance)
    yield made
    assert made.segments() == [], "shared memory was left behind"


def test_no_order_of_a_live_config_leaves_the_machine(tmp_path: Path) -> None:
    """A config with a real venue: on paper its address and its login are not used, and a process for ours is added."""
    path = tmp_path / "live.toml"
    text = without_exchange(DEFAULT_PATH.read_text(), "env", "env").replace('"127.0.0.1:26401"', '"192.0.2.7:26401"')
    path.write_text(text)
    config, notes = config_for(path, feed=None, seconds=None, speed=None, symbols=[], paper=True)
    assert config.gateway.address.startswith("127.0.0.1:")
    assert config.gateway.credentials == ""
    assert config.feed.address == "127.0.0.1:26400"
    assert [process.stages for process in config.process][-1] == ["exchange"]
    assert trades_on_paper(config)
    assert not publishes(config)
    assert notes[0].startswith("PAPER")


def test_a_venue_on_paper_is_on_this_machine() -> None:
    raw = live("", "env") | {"exchange": {"flow": "paper"}}
    raw["process"].append({"name": "venue", "stages": ["exchange"]})
    raw["gateway"]["address"] = "192.0.2.7:26401"
    with pytest.raises(ConfigError, match=r"gateway\.address=192\.0\.2\.7:26401: expected one of this machine's own"):
        check(raw, "my.toml")
    raw["gateway"]["address"] = "127.0.0.1:26401"
    assert check(raw, "my.toml").exchange is not None


def test_a_config_that_cannot_be_read_is_said(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot read it: No such file"):
        onpaper.overrides(tmp_path / "none.toml")
    (tmp_path / "bad.toml").write_text("instance =")
    with pytest.raises(ConfigError, match="not TOML"):
        onpaper.overrides(tmp_path / "bad.toml")


@pytest.mark.skipif(not AAPL.exists(), reason="the data folder is not here")
def test_a_file_is_traded_on_paper(launcher: Launcher) -> None:
    report, finished = launcher.trade("--paper", "--feed", str(AAPL), "--speed", "20")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert finished.stdout.splitlines()[0].startswith("PAPER: ")
    assert report["paper"] is True
    assert (report["messages"], report["lost"]) == (10_056, 0)
    counted = report["counters"]["exchange"]
    assert (counted["replayed"], counted["packets"], counted["doubted"], counted["malformed"]) == (10_056, 0, 0, 0)
    assert report["orders"]["sent"] > 0
    assert report["positions_agree"] is True


def test_a_market_on_the_network_is_traded_on_paper(launcher: Launcher) -> None:
    """A packet to the feed's address arrives at the paper venue; a run ends by a signal, and nothing is sent back to the market."""
    raw: dict[str, Any] = msgspec.toml.decode(launcher.config.read_bytes())
    host, port = raw["feed"]["address"].split(":")
    launcher.replace('rewind = ["', 'rewind = [] # ["')
    launcher.config.write_text(launcher.config.read_text().replace(f'snapshot = "{raw["feed"]["recovery"]["snapshot"]}"', 'snapshot = ""'))
    flow = Flow(3)
    packets = list(in_packets(flow.opening() + flow.messages(500), random.Random(3)))
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        launcher.background("--paper", "--symbols", "SYM1", "--seconds", "1", "--json", str(launcher.folder / "report.json")) as running,
    ):
        heard = wait_for_feed(launcher.instance)
        sent = 0
        while running.poll() is None:
            # No more at once than the socket holds, however busy the machine is: nothing could bring a lost packet back.
            if int(heard.records["packets"][0]) >= sent:
                for raw in packets:
                    sender.sendto(raw, (host, int(port)))
                sent += len(packets)
        said = running.communicate()
    report = msgspec.json.decode((launcher.folder / "report.json").read_bytes())
    assert running.returncode == 0, said
    assert report["counters"]["exchange"]["replayed"] == report["messages"] > 0


def wait_for_feed(instance: str) -> Table:
    """The feed handler's counters, once all processes run their loops."""
    # The last of its segments.
    wait_for((SHM / f"{instance}.reports.cursors").exists, "the instance")
    processes, counters = (
        Table.attach(f"{instance}.{name}", dtype, writable=False) for name, dtype in (("processes", PROCESS), ("feed.stats", FEED_STATS))
    )
    wait_for(lambda: np.count_nonzero(processes.records["state"] == STATE_LOOPING) == 4, "all loops")
    return counters
