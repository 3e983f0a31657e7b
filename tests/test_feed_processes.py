"""The real thing: an exchange, a network with faults and a whole `tickpath run` as processes of their own, on real clocks.

fault_run.py tries the same faults by the thousand on a simulated clock; a few seeds here show that nothing is lost between the kernels
and the processes around them: sockets that are opened, a snapshot's connection that Python makes, reports that add up.
"""

import json
import os
import signal
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.layout import BOOK_VALID, FEED_STATS, QUOTE
from engine.runtime.config import DEFAULT_PATH
from shm.segment import SegmentError
from shm.table import Board, Table
from tests.fault_process import FACING, LINE_A, LINE_B, ORDERS, PORTS, REWIND, SNAPSHOT, SYMBOLS
from tests.ports import free_block
from tests.running import ROOT, Launcher, wait_for

LONG = os.environ.get("TICKPATH_PROOF") == "long"
# Of plans with losses, a rewind server that is no good, a line that is dead.
SEEDS = range(40, 60) if LONG else (41,)
SECONDS = 3
PATIENCE_S = 30

WATCHER = """from engine.strategy.api import *


class Seen(State):
    quotes: int = 0


def on_book(ctx, params, state, quote):
    state.quotes += 1
"""


@contextmanager
def process(*arguments: object) -> Iterator[subprocess.Popen[str]]:
    """A process of fault_process.py that is ready; it ends with the block."""
    made = subprocess.Popen(
        [sys.executable, "-m", "tests.fault_process", *map(str, arguments)], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    assert made.stdin is not None and made.stdout is not None and made.stderr is not None
    try:
        assert made.stdout.readline() == "READY\n", made.stderr.read()
        yield made
        made.stdin.close()
        assert made.wait(30) == 0, made.stderr.read()
    finally:
        made.kill()
        made.wait()
        made.stdout.close()
        made.stderr.close()


def write_config(launcher: Launcher, ports: int) -> None:
    """The shipped config without its exchange, pointed at the network."""
    raw = msgspec.toml.decode(DEFAULT_PATH.read_bytes())
    del raw["exchange"]
    raw["process"] = [entry for entry in raw["process"] if entry["stages"] != ["exchange"]]
    raw["instance"] = launcher.instance
    raw["feed"] |= {"address": at(ports + FACING + LINE_A), "address_b": at(ports + FACING + LINE_B), "stale_after_ms": 2_500}
    raw["feed"]["recovery"] = raw["feed"].get("recovery", {}) | {
        "rewind": [at(ports + FACING + REWIND)], "snapshot": at(ports + FACING + SNAPSHOT), "snapshot_credentials": "login.toml",
        "gap_messages_max": 2_000,
    }  # fmt: skip
    raw["gateway"] |= {"address": at(ports + ORDERS), "credentials": "login.toml"}
    login = launcher.folder / "login.toml"
    login.touch(0o600)
    login.write_text('username = "TICK"\npassword = "PATH"\n')
    strategy = launcher.folder / "watcher.py"
    strategy.write_text(WATCHER)
    raw["strategy"] |= {"use": str(strategy), "symbols": list(SYMBOLS), "params": {}}
    launcher.config.write_text("\n".join(as_toml(raw, "")))


def at(port: int) -> str:
    return f"127.0.0.1:{port}"


def as_toml(values: dict[str, Any], name: str) -> Iterator[str]:
    """Lines of TOML; JSON writes strings, numbers, booleans and lists of them alike."""
    tables = {key: value for key, value in values.items() if isinstance(value, dict)}
    lists = {key: value for key, value in values.items() if isinstance(value, list) and value and isinstance(value[0], dict)}
    yield from (f"{key} = {json.dumps(value)}" for key, value in values.items() if key not in tables and key not in lists)
    for key, entries in lists.items():
        for entry in entries:
            yield f"[[{name}{key}]]"
            yield from as_toml(entry, f"{name}{key}.")
    for key, value in tables.items():
        yield f"[{name}{key}]"
        yield from as_toml(value, f"{name}{key}.")


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path, f"test-{uuid.uuid4().hex[:12]}", {"TICKPATH_STATE": str(tmp_path / "state")})
    yield made
    assert made.segments() == [], "shared memory was left behind"


def board_of(launcher: Launcher) -> Board | None:
    try:
        return Board.attach(f"{launcher.instance}.quotes", QUOTE, writable=False)
    except SegmentError:
        return None


def stats_of(launcher: Launcher) -> dict[str, int]:
    table = Table.attach(f"{launcher.instance}.feed.stats", FEED_STATS, writable=False)
    found = {name: int(table.records[0][name]) for name in FEED_STATS.names or () if table.records[0][name]}
    table.detach()
    return found


def lines_of(board: Board) -> list[tuple[int, list[int]]]:
    """Flags and best bid and offer of each symbol."""
    records = board.records[1 : len(SYMBOLS) + 1]
    return [(int(record["flags"]), [int(record[name]) for name in ("bid_px", "bid_sz", "ask_px", "ask_sz")]) for record in records]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_whole_run_behind_a_network_with_faults_ends_with_the_exchanges_book(launcher: Launcher, seed: int) -> None:
    ports = free_block(PORTS)
    write_config(launcher, ports)
    report_path = launcher.folder / "report.json"
    with process("proxy", ports, seed), process("exchange", ports, SECONDS) as exchange:
        assert exchange.stdin is not None and exchange.stdout is not None
        # Compiled before the exchange begins to publish, so that this is no late start; fault_run.py tries those.
        warmed = launcher.run("warm", str(launcher.config))
        assert warmed.returncode == 0, warmed.stderr
        with launcher.background("--seconds", "0", "--json", str(report_path)) as running:
            board = wait_for(lambda: board_of(launcher) or running.poll(), "the quotes board")
            assert isinstance(board, Board), running.communicate()
            wait_for(lambda: stats_of(launcher).get("packets"), "the exchange's heartbeats")
            exchange.stdin.write("trade\n")
            exchange.stdin.flush()
            wanted = [(BOOK_VALID, top) for top in json.loads(exchange.stdout.readline()).values()]
            try:
                wait_for(lambda: lines_of(board) == wanted or running.poll() is not None, f"{wanted}", PATIENCE_S)
            except AssertionError as error:
                raise AssertionError(f"{error}; the board has {lines_of(board)}; {stats_of(launcher)}") from None
            finally:
                board.detach()
            running.send_signal(signal.SIGTERM)
            said = running.communicate(timeout=60)
    report = json.loads(report_path.read_text())
    feed = report["counters"]["feed"]
    print(f"seed {seed}: {feed}")
    assert feed["lost"] == feed["covered"], said
    assert feed["messages"] > 100
