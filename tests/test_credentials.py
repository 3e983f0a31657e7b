"""Credentials are nowhere but in the login: not in a config, a log, an error, the environment of any process, or a core file.

What must not be found is searched for as bytes, beside a word that must be found by the same search.
"""

import mmap
import os
import pickle
import re
import resource
import signal
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from engine.exchange.stage import Account
from engine.feed.recovery import Recovery
from engine.gateway.stage import templates
from engine.layout import CONTROL, PHASE_TRADING
from engine.runtime import logins
from engine.runtime.config import DEFAULT_PATH, ConfigError, check, load
from engine.wire.credentials import Credentials, CredentialsError, from_file, undumped
from engine.wire.soupbintcp import LOGIN_ACCEPTED
from shm.segment import SegmentError
from shm.table import Table
from tests.exchange_rig import SoupClient, rig
from tests.running import ROOT, Launcher, free_port, wait_for, without_exchange

# In two parts, for this file is on disk and in memory too.
USERNAME = "QX" + "ZJVW"
PASSWORD = "Kq7" + "uWz4Yv"
# What stands in the environment of every process of the run, and is no secret.
CONTROL_WORD = "in-every-environment-" + uuid.uuid4().hex


def shipped() -> dict[str, Any]:
    return msgspec.toml.decode(DEFAULT_PATH.read_bytes())


def live(credentials: str, snapshot: str = "env") -> dict[str, Any]:
    """The shipped config with a venue of the user's own."""
    raw = shipped()
    del raw["exchange"]
    raw["process"] = [entry for entry in raw["process"] if entry["stages"] != ["exchange"]]
    raw["gateway"]["credentials"] = credentials
    raw["feed"]["recovery"]["snapshot_credentials"] = snapshot
    return raw


def secret_file(folder: Path, text: str | None = None, mode: int = 0o600) -> Path:
    path = folder / "login.toml"
    path.touch(mode)
    path.write_text(f'username = "{USERNAME}"\npassword = "{PASSWORD}"\n' if text is None else text)
    path.chmod(mode)
    return path


# The config


OLD_KEYS = ["gateway.username", "gateway.password", "feed.recovery.snapshot_username", "feed.recovery.snapshot_password"]


@pytest.mark.parametrize("key", OLD_KEYS)
def test_a_config_that_holds_credentials_is_refused_and_not_quoted(key: str) -> None:
    raw = shipped()
    *sections, last = key.split(".")
    table = raw
    for section in sections:
        table = table[section]
    table[last] = PASSWORD
    with pytest.raises(ConfigError, match=f"{key}: no credentials in a config.*mode 0600.*TICKPATH_.*env") as refused:
        check(raw, "my.toml")
    assert PASSWORD not in str(refused.value)


def test_a_real_venue_needs_credentials_and_the_embedded_exchange_must_not_see_them() -> None:
    with pytest.raises(ConfigError, match=r"gateway\.credentials is missing.*; feed\.recovery\.snapshot_credentials is missing"):
        check(live("", ""), "my.toml")
    raw = shipped()
    raw["gateway"]["credentials"] = "env"
    with pytest.raises(ConfigError, match=r"gateway\.credentials='env': the embedded exchange makes a pair at each start"):
        check(raw, "my.toml")


def test_the_path_of_credentials_is_found_from_where_the_config_is(tmp_path: Path) -> None:
    (tmp_path / "my.toml").write_text(without_exchange(DEFAULT_PATH.read_text(), "login.toml", "env"))
    config = load(tmp_path / "my.toml")
    assert (config.gateway.credentials, config.feed.recovery.snapshot_credentials) == (str(tmp_path / "login.toml"), "env")


def test_the_embedded_exchange_gets_another_pair_at_each_start() -> None:
    starts = [logins.find(check(shipped(), "default")) for _ in range(2)]
    pairs = [found.texts() for start in starts for found in (start.gateway, start.snapshot)]
    assert len({password for _, password in pairs}) == 4
    assert all((len(username), len(password)) == (6, 10) for username, password in pairs)


# Files


def test_a_file_of_ours_that_nobody_else_may_read_is_taken(tmp_path: Path) -> None:
    found = from_file("gateway.credentials", secret_file(tmp_path))
    assert found.texts() == (USERNAME, PASSWORD)
    found.close()


BAD_FILES: dict[str, tuple[str | None, int, str]] = {
    "the group may read it": (None, 0o640, "mode 0640: others may read or change it: chmod 600"),
    "all may read it": (None, 0o604, "mode 0604: others may"),
    "all may write it": (None, 0o602, "mode 0602: others may"),
    "not TOML": (f'username = "{USERNAME}"\npassword = {PASSWORD}\n', 0o600, "not TOML"),
    "a key too few": (f'password = "{PASSWORD}"\n', 0o600, "expected two lines"),
    "a key too many": (f'username = "A"\npassword = "B"\n{PASSWORD} = "C"\n', 0o600, "expected two lines"),
    "a number": (f'username = "{USERNAME}"\npassword = 123456789\n', 0o600, "expected two lines"),
    "too long": (f'username = "{USERNAME}"\npassword = "{PASSWORD}{PASSWORD}"\n', 0o600, "password: expected 1 to 10 printable"),
    "a space": (f'username = " {USERNAME[1:]}"\npassword = "{PASSWORD}"\n', 0o600, "username: expected 1 to 6 printable"),
    "not ASCII": (f'username = "{USERNAME}"\npassword = "{PASSWORD[:5]}\u00e9"\n', 0o600, "password: expected 1 to 10 printable"),
    "nothing in it": ('username = ""\npassword = ""\n', 0o600, "username: expected 1 to 6"),
    "too large": (f'username = "{USERNAME}"\npassword = "{PASSWORD}"\n{"#" * 5000}', 0o600, "expected at most 4096"),
}


@pytest.mark.parametrize("what", BAD_FILES)
def test_a_file_that_cannot_be_used_is_refused_without_being_quoted(tmp_path: Path, what: str) -> None:
    text, mode, expected = BAD_FILES[what]
    path = secret_file(tmp_path, text, mode)
    with pytest.raises(CredentialsError) as refused:
        from_file("gateway.credentials", path)
    assert str(refused.value).startswith(f"gateway.credentials={path}: ")
    assert expected in str(refused.value)
    assert not any(secret in str(refused.value) for secret in (USERNAME, PASSWORD, PASSWORD[:5], "123456789"))


def test_what_is_not_a_file_of_ours_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    link = tmp_path / "link.toml"
    link.symlink_to(path)
    pipe = tmp_path / "pipe.toml"
    os.mkfifo(pipe, 0o600)
    for place, expected in (
        (link, "it is a symbolic link"), (pipe, "it is not a file"), (tmp_path, "it is not a file"),
        (tmp_path / "none", "cannot open it: No such"),
    ):  # fmt: skip
        with pytest.raises(CredentialsError, match=expected):
            from_file("gateway.credentials", place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root may give a file away")
def test_a_file_of_another_user_is_refused(tmp_path: Path) -> None:
    path = secret_file(tmp_path)
    os.chown(path, 12_345, -1)
    with pytest.raises(CredentialsError, match=r"belongs to user 12345, not to us \(0\)"):
        from_file("gateway.credentials", path)


# Texts


def test_no_text_of_an_object_shows_credentials(tmp_path: Path) -> None:
    config = check(live(str(secret_file(tmp_path)), str(tmp_path / "login.toml")), "my.toml")
    found = logins.find(config)
    recovery = Recovery(snapshot_credentials=found.snapshot)
    said = "".join(f"{thing!r}{thing!s}" for thing in (config, found, *found, recovery, vars(found.gateway)))
    assert PASSWORD not in said
    assert USERNAME not in said
    with pytest.raises(TypeError):
        pickle.dumps(found.gateway)
    found.close()


# Memory


def flags_at(address: int) -> list[str]:
    """The kernel's flags (VmFlags of proc(5)) of the mapping of this process that an address is in."""
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if bounds := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            inside = int(bounds[1], 16) <= address < int(bounds[2], 16)
        elif inside and line.startswith("VmFlags:"):
            return line.split()[1:]
    return []


@pytest.mark.parametrize(("size", "begin"), [(256, 0), (1, 0), (4 * mmap.PAGESIZE, 2 * mmap.PAGESIZE + 5)])
def test_undumped_bytes_are_marked_and_those_before_them_are_not(size: int, begin: int) -> None:
    made = undumped(size, begin)
    assert made.shape == (size,)
    assert not made.any()
    assert "dd" in flags_at(made.ctypes.data + begin)
    assert "dd" in flags_at(made.ctypes.data + size - 1)
    if begin >= mmap.PAGESIZE:
        assert "dd" not in flags_at(made.ctypes.data)


def test_the_login_of_the_gateway_is_where_no_core_file_looks() -> None:
    wire = templates(Credentials.of("TICK", "PATH"), "", 1)
    at = bytes(wire).index(b"PATH")
    assert "dd" in flags_at(wire.ctypes.data + at)


def test_the_logins_of_an_exchanges_accounts_and_what_its_clients_say_are_where_no_core_file_looks(tmp_path: Path) -> None:
    found = from_file("exchange.accounts[0].credentials", secret_file(tmp_path))
    with rig(tmp_path, accounts=[Account("", "", login=found)]) as made:
        found.close()
        links = made.stage.state.links
        at = bytes(links.logins[1]).index(PASSWORD.encode())
        assert "dd" in flags_at(links.logins[1].ctypes.data + at)
        for row in links.inbound:
            assert {"dd"} <= set(flags_at(row.ctypes.data)) & set(flags_at(row.ctypes.data + row.size - 1))
        client = SoupClient(made)
        assert client.login(USERNAME, PASSWORD)[0] == LOGIN_ACCEPTED.code
        assert PASSWORD not in f"{made.stage.accounts}"


def test_an_option_that_does_not_fit_is_named_and_a_password_not_quoted(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="password: expected at most 10 ASCII") as refused, rig(tmp_path, password=PASSWORD * 2):
        pass
    assert PASSWORD not in str(refused.value)


def test_accounts_of_one_username_are_refused_by_their_places(tmp_path: Path) -> None:
    pairs = [Credentials.of(name, "X") for name in ("ALICE", "alice")]
    accounts = [Account("", "", login=pair) for pair in pairs]
    with pytest.raises(ValueError, match=r"accounts 1 and 2 .*expected different usernames") as refused, rig(tmp_path, accounts=accounts):
        pass
    assert "alice" not in str(refused.value).lower()


HOLDER = """
import os, subprocess, sys
from engine.wire.credentials import take_environment, from_environment
take_environment()
import engine.gateway.stage, engine.feed.recovery, engine.feed.source, numpy
gateway = from_environment("gateway.credentials", "TICKPATH_")
snapshot = from_environment("feed.recovery.snapshot_credentials", "TICKPATH_SNAPSHOT_")
wire = engine.gateway.stage.templates(gateway, "", 1)
import engine.feed.stage, engine.feed.hot.state as state
from engine.gateway.ouch.hot import encode
packets = engine.feed.source.PacketBuffers(engine.feed.stage.LINES_MAX, int(state.SPARE_BYTES))
engine.feed.recovery.Recovery(snapshot_credentials=snapshot).write(numpy.zeros(state.FEED_WORDS, numpy.int64), packets.buffer)
import engine.exchange.stage as exchange, engine.layout as layout, shm.table as table
name = f"test-holder-{os.getpid()}"
made = table.Table.create(name + ".control", layout.CONTROL), table.Table.create(name + ".stats", layout.EXCHANGE_STATS)
board = table.Board.create(name + ".positions", layout.POSITION, 2 * 65_536)
for each in (*made, board):
    each.unlink()
venue = exchange.ExchangeStage(control=made[0], stats=made[1], positions=board, market_address=("127.0.0.1", 9),
    order_address=("127.0.0.1", 0), username="A", password="B", flow="none", symbols={"AAPL": 1.0}, orders_max=1 << 10, levels_max=1 << 10,
    client_orders_max=1 << 10, reports_max=1 << 10, accounts=[exchange.Account("", "", login=gateway)])
ends = wire[encode.LOGIN_AT + 9 :], packets.buffer[int(state.LOGIN_AT) + 9 :], venue.state.links.logins[1, 6:]
print(all(int(end[at]) == ord(letter) for end in ends for at, letter in enumerate(reversed(sys.argv[1]))), flush=True)
print(subprocess.run(["env"], capture_output=True, text=True).stdout, flush=True)
os.abort()
"""


def test_a_core_file_has_no_credentials_and_a_child_process_neither(tmp_path: Path) -> None:
    """Both pairs are where the gateway and the feed handler keep them when the process dies; the kernel writes what it dumps."""
    pattern = Path("/proc/sys/kernel/core_pattern").read_text().strip()
    if "/" in pattern or pattern.startswith("|"):
        pytest.skip(f"core_pattern={pattern}: core files go elsewhere")
    variables = {"TICKPATH_USERNAME": USERNAME, "TICKPATH_PASSWORD": PASSWORD, "TEST_CONTROL": CONTROL_WORD}
    variables |= {"TICKPATH_SNAPSHOT_USERNAME": USERNAME, "TICKPATH_SNAPSHOT_PASSWORD": PASSWORD}
    ended = subprocess.run(
        # Backwards, for what is on the command line is in the core file.
        [sys.executable, "-c", HOLDER, PASSWORD[::-1]], cwd=tmp_path, capture_output=True, text=True,
        env={**os.environ, "PYTHONPATH": str(ROOT), **variables},
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_CORE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY)),
    )  # fmt: skip
    assert ended.returncode == -signal.SIGABRT, ended.stderr
    assert ended.stdout.startswith("True\n"), "the pair is not in the logins"
    assert CONTROL_WORD in ended.stdout
    assert "TICKPATH_PASSWORD" not in ended.stdout
    cores = [path.read_bytes() for path in tmp_path.glob("core*")]
    assert len(cores) == 1
    assert CONTROL_WORD.encode() in cores[0], "the search does not find what is there"
    for secret in (USERNAME, PASSWORD):
        assert secret.encode() not in cores[0]
        assert secret not in ended.stdout + ended.stderr


# A run


class Found(msgspec.Struct):
    """One process of a run, as a core file would have it: where the words were found."""

    name: str
    secret: bool
    control: bool
    environment: bytes


def would_be_dumped(pid: int) -> Iterator[bytes]:
    """Every mapping of a process that can be written and is not marked "dd", as its memory is now: more than any core file holds."""
    bounds = None
    with Path(f"/proc/{pid}/mem").open("rb", 0) as memory:
        for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
            if begun := re.match(r"([0-9a-f]+)-([0-9a-f]+) (....)", line):
                bounds = (int(begun[1], 16), int(begun[2], 16), begun[3])
            elif line.startswith("VmFlags:") and bounds is not None and "w" in bounds[2] and not {"dd", "io"} & set(line.split()):
                yield from pieces(memory, bounds[0], bounds[1])


def pieces(memory: Any, begin: int, end: int, size: int = 1 << 24) -> Iterator[bytes]:
    """Overlapping pieces of a mapping: no word is cut."""
    for at in range(begin, end, size):
        memory.seek(at)
        with_overlap = min(end, at + size + 64) - at
        try:
            yield memory.read(with_overlap)
        except OSError:
            continue


def look_into(pid: int) -> Found:
    secret, control = False, False
    for piece in would_be_dumped(pid):
        secret |= PASSWORD.encode() in piece or USERNAME.encode() in piece
        control |= CONTROL_WORD.encode() in piece
    name = Path(f"/proc/{pid}/comm").read_text().strip()
    return Found(name, secret, control, Path(f"/proc/{pid}/environ").read_bytes())


@contextmanager
def venue(port: int) -> Iterator[None]:
    made = subprocess.Popen(
        [sys.executable, "-m", "tests.login_venue", str(port), USERNAME, PASSWORD], cwd=ROOT, stdin=subprocess.PIPE, stdout=subprocess.PIPE,
        text=True,
    )  # fmt: skip
    try:
        assert made.stdout is not None
        assert made.stdout.readline() == "READY\n"
        yield
    finally:
        made.kill()
        made.communicate()


def live_config(launcher: Launcher, orders: int, snapshot: str) -> None:
    """The test's config without its exchange: a silent market, and a venue that takes orders at `orders`."""
    launcher.replace('symbols = ["AAPL", "MSFT", "NVDA"]', 'symbols = ["AAPL"]')
    launcher.replace("orders_max = 2097152", "orders_max = 1024")
    launcher.replace("levels_max = 262144", "levels_max = 1024")
    text = without_exchange(launcher.config.read_text(), "env", snapshot)
    text = re.sub(r'(\[gateway\]\naddress = )"[^"]*"', rf'\1"127.0.0.1:{orders}"', text)
    launcher.config.write_text(text)


def processes_of(running: subprocess.Popen[str], instance: str) -> list[int]:
    """The supervisor and its children, once they trade."""

    def trading() -> bool:
        assert running.poll() is None, running.communicate()
        try:
            control = Table.attach(f"{instance}.control", CONTROL, writable=False)
        except SegmentError:
            return False
        phase = int(control.records["phase"][0])
        control.detach()
        return phase == PHASE_TRADING

    wait_for(trading, "the run to trade")
    children = Path(f"/proc/{running.pid}/task/{running.pid}/children").read_text().split()
    return [running.pid, *map(int, children)]


def test_no_process_of_a_run_shows_its_credentials(tmp_path: Path, instance: str) -> None:
    """A live run logs in, with one pair from the environment and one from a file; then its processes are searched, their memory as a
    core file has it and their environments."""
    launcher = Launcher(tmp_path, instance)
    orders = free_port(socket.SOCK_STREAM)
    live_config(launcher, orders, str(secret_file(tmp_path)))
    launcher.variables = {"TEST_CONTROL": CONTROL_WORD, "TICKPATH_USERNAME": USERNAME, "TICKPATH_PASSWORD": PASSWORD}
    with venue(orders), launcher.background("--json", str(tmp_path / "report.json")) as running:
        found = [look_into(pid) for pid in processes_of(running, instance)]
        running.send_signal(signal.SIGINT)
        said = "".join(running.communicate(timeout=30))
    assert len(found) == 4
    assert all(process.control for process in found), "the search does not find what is there"
    assert [process.name for process in found if process.secret] == []
    for process in found:
        assert CONTROL_WORD.encode() in process.environment
        assert PASSWORD.encode() not in process.environment
        assert USERNAME.encode() not in process.environment
    written = [path for path in tmp_path.rglob("*") if path.is_file() and path.name != "login.toml"]
    assert (tmp_path / "report.json") in written
    for text in [said.encode(), *(path.read_bytes() for path in written)]:
        assert PASSWORD.encode() not in text
        assert USERNAME.encode() not in text
