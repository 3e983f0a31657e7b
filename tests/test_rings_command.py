"""`tickpath rings` and `tickpath clean`: what is on this box, whatever state it is in, and the removal of what the dead left."""

import json
import os
import random
import signal
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from shm import segment
from shm._shim import lib
from shm.hot import claim, commit, producer_beat
from shm.layout import LINE_BYTES
from shm.ring import Ring
from shm.segment import SHM
from shm.table import Board, Table
from tests.children import child, in_child, kill, stopped, until, wait_for_exit
from tests.inspecting import ROOT, tickpath
from tests.ring_kernels import MESSAGE
from tools import decode
from tools.segments import segment_names

LINE = np.dtype({"names": ["value"], "formats": ["i8"], "offsets": [8], "itemsize": LINE_BYTES})
NOBODY = 65_534


@pytest.fixture
def instance(instance: str) -> Iterator[str]:
    name = f"tickpath-test-{instance}"
    yield name
    for left in segment.names(f"{name}."):
        path = SHM / left
        if path.is_dir() and not path.is_symlink():
            path.rmdir()
        else:
            path.unlink()


def ring_of(instance: str, name: str = "ticks", **options: Any) -> Ring:
    return Ring.create(f"{instance}.{name}", 16, {"message": MESSAGE}, ["strategy"], **options)


# Tests compile kernels while they hold a role, and give no sign of life meanwhile.
PATIENT = ("--hung-after", "1e9")


def listed(instance: str, *, code: int = 0) -> dict[str, Any]:
    result = tickpath("rings", "--instance", instance, "--json", *PATIENT)
    assert result.exit_code == code, result.output
    return json.loads(result.stdout)


def push(ring: Ring, count: int):
    out = ring.producer(MESSAGE)
    for _ in range(count):
        commit(out.end, claim(out.end))
    return out


def copied(instance: str, name: str = "ticks") -> bytes:
    """A ring's file as it was, the ring itself gone."""
    ring = ring_of(instance, name)
    raw = (SHM / ring.name).read_bytes()
    ring.unlink()
    ring.detach()
    return raw


# Listing


def test_every_ring_board_and_table_has_a_line(instance: str) -> None:
    ring, board, table = ring_of(instance), Board.create(f"{instance}.quotes", LINE, 100), Table.create(f"{instance}.a.stats", LINE)
    out = push(ring, 13)
    into = ring.consumer("strategy", MESSAGE)
    into.poll()
    into.release()
    lines = tickpath("rings", "--instance", instance).stdout.splitlines()
    assert lines[0].split()[:4] == ["name", "kind", "records", "bytes"]
    assert [line.split()[:4] for line in lines[1:]] == [
        [f"{instance}.a.stats", "table", "1", "64"],
        [f"{instance}.quotes", "board", "100", "64"],
        [f"{instance}.ticks", "ring", "16", "64"],
    ]
    assert "13" in lines[3].split()
    assert f"{os.getpid()}" in lines[3].split()
    assert "strategy 12 behind" in lines[3]
    said = listed(instance)
    assert [(each["name"], each["position"], each["readers"][0]["backlog"], each["trouble"]) for each in said["rings"]] == [
        (ring.name, 13, 12, [])
    ]
    assert [(each["name"], each["kind"], each["records"]) for each in said["tables"]] == [
        (f"{instance}.a.stats", "table", 1),
        (f"{instance}.quotes", "board", 100),
    ]
    assert said["rings"][0]["placement"]["page_bytes"] == 4096
    assert (said["unusable"], said["well"]) == ([], True)
    long = tickpath("rings", "--instance", instance, "--long").stdout
    assert f"{ring.name}: 16 slots of 64 bytes, when full wait" in long
    del out
    for made in (ring, board, table):
        made.unlink()


def test_without_an_instance_all_are_found_and_the_files_of_others_are_not(instance: str) -> None:
    ring, other = ring_of(instance), Table.create(f"{instance}b.stats", LINE)
    (SHM / f"{instance}c.foreign").write_bytes(os.urandom(9_000))
    (SHM / f"{instance}.half").write_bytes(b"")
    try:
        names = segment_names()
        assert {ring.name, f"{ring.name}.cursors", other.segment.name, f"{instance}.half"} <= set(names), "known by its company"
        assert f"{instance}c.foreign" not in names
        said = json.loads(tickpath("rings", "--json").stdout)
        assert ring.name in [each["name"] for each in said["rings"]]
        assert other.segment.name in [each["name"] for each in said["tables"]]
    finally:
        (SHM / f"{instance}c.foreign").unlink()
        other.unlink()
        ring.unlink()


def test_an_instance_that_is_not_there_is_a_no(instance: str) -> None:
    result = tickpath("rings", "--instance", instance)
    assert (result.exit_code, result.stdout) == (1, f"{instance}: no rings, boards or tables\n")


def test_a_dead_producer_and_what_is_left_behind_are_told(instance: str) -> None:
    ring = ring_of(instance)
    with child(lambda: push(Ring.attach(ring.name), 3) and signal.pause()) as pid:
        until(lambda: ring.position() == 3, "the child writes")
        assert listed(instance)["well"]
        kill(pid)
    said = listed(instance, code=1)
    assert (said["rings"][0]["trouble"], said["rings"][0]["producer"]["pid"]) == (["producer dead"], pid)
    assert f"{pid} dead" in tickpath("rings", "--instance", instance).stdout
    ring.detach()
    assert listed(instance, code=1)["rings"][0]["trouble"] == ["left behind"]
    Table.create(f"{instance}.stats", LINE).detach()
    assert listed(instance, code=1)["tables"][0]["trouble"] == ["left behind"]


def test_a_stopped_producer_hangs_until_it_goes_on(instance: str) -> None:
    ring = ring_of(instance)

    def work() -> None:
        out = Ring.attach(ring.name).producer(MESSAGE)
        while True:
            producer_beat(out.end, int(lib.tp_rdtsc()))
            os.sched_yield()

    def state() -> list[str]:
        result = tickpath("rings", "--instance", instance, "--json", "--hung-after", "3000")
        said = json.loads(result.stdout)["rings"][0]
        assert result.exit_code == bool(said["trouble"])
        return [said["producer"]["state"], *said["trouble"]]

    with child(work) as pid:
        until(lambda: listed(instance)["rings"][0]["producer"]["heartbeat_age_ms"] is not None, "it beats")
        os.kill(pid, signal.SIGSTOP)
        until(lambda: stopped(pid), "it stops")
        until(lambda: state() == ["hung", "producer hung"], "its heartbeat grows old")
        assert f"{pid}" in tickpath("rings", "--instance", instance).stdout
        os.kill(pid, signal.SIGCONT)
        until(lambda: state() == ["alive"], "it goes on")


def make_odd_files(instance: str) -> dict[str, str]:
    """Files that stand where segments should, by their name what is to be said of them."""
    whole = copied(instance)
    wrong = {
        "empty": (b"", "still being created"),
        "zeros": (bytes(20_000), "magic=0: it is still being created"),
        "random": (random.Random(1).randbytes(20_000), "magic="),
        "short": (whole[:-1], "cut short"),
        "headless": (whole[:100], "still being created, or cut short"),
        "long": (whole + bytes(4096), "cut short, or grown"),
        "older": (whole[:8] + (1).to_bytes(4, "little") + whole[12:], "layout_version=1, expected 2"),
        "newer": (whole[:8] + (3).to_bytes(4, "little") + whole[12:], "layout_version=3, expected 2"),
        "schemaless": (whole[:128] + b"?" + whole[129:], "schema_hash="),
        "cursorless": (whole, "there is none"),
    }
    for name, (raw, _) in wrong.items():
        path = SHM / f"{instance}.{name}"
        path.write_bytes(raw)
        path.chmod(0o600)
    return {name: reason for name, (_, reason) in wrong.items()}


def make_odd_inodes(instance: str) -> dict[str, str]:
    base = SHM / f"{instance}.zeros"
    (SHM / f"{instance}.link").symlink_to(base)
    (SHM / f"{instance}.nowhere").symlink_to("/nowhere")
    (SHM / f"{instance}.folder").mkdir()
    os.mkfifo(SHM / f"{instance}.pipe", 0o600)
    Table.create(f"{instance}.open", LINE).detach()
    (SHM / f"{instance}.open").chmod(0o666)
    Table.create(f"{instance}.twice", LINE).detach()
    os.link(SHM / f"{instance}.twice", SHM / f"{instance}.again")
    Ring.create(f"{instance}.orphan", 2, {"message": MESSAGE}).detach()
    (SHM / f"{instance}.orphan").unlink()
    Table.create(f"{instance}.\x1b[31m\n", LINE).detach()
    (SHM / f"{instance}.\x1b[31m\n").chmod(0o666)
    nameless = Path(os.fsdecode(os.fsencode(SHM / f"{instance}.") + b"\xff"))
    nameless.touch(0o600)
    return {
        "link": "symbolic link", "nowhere": "symbolic link", "folder": "not a regular file", "pipe": "not a regular file",
        "open": "mode=0o666 lets others in", "twice": "links=2", "again": "links=2", "orphan.cursors": "cursors of a ring that is not",
        "\\x1b[31m\\n": "lets others in", "\\udcff": "still being created",
    }  # fmt: skip


def test_what_cannot_be_looked_into_is_listed_with_its_reason(instance: str) -> None:
    expected = make_odd_files(instance) | make_odd_inodes(instance)
    said = listed(instance, code=1)
    reasons = {each["name"].removeprefix(f"{instance}."): each["reason"] for each in said["unusable"]}
    assert reasons.keys() == expected.keys()
    for name, reason in expected.items():
        assert reason in reasons[name], f"{name}: {reasons[name]!r}, expected {reason!r} in it"
    assert (said["rings"], said["tables"]) == ([], [])
    result = tickpath("rings", "--instance", instance)
    assert result.exit_code == 1
    assert result.stdout.count("cannot be looked into: ") == len(expected)
    assert all(line.isprintable() for line in result.stdout.splitlines())


def test_what_cannot_be_looked_into_cannot_be_inspected_and_that_is_told_too(instance: str) -> None:
    for name, reason in (make_odd_files(instance) | make_odd_inodes(instance)).items():
        if name.startswith("\\"):
            continue
        result = tickpath("inspect", f"{instance}.{name}")
        assert (result.exit_code, result.stdout) == (2, ""), name
        if name != "orphan.cursors":
            assert reason in result.stderr, name


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to make files of another user")
def test_what_another_user_owns_is_listed_and_is_not_our_trouble(instance: str) -> None:
    table = Table.create(f"{instance}.theirs", LINE)
    os.chown(SHM / table.segment.name, NOBODY, NOBODY)
    said = listed(instance, code=0)
    (each,) = said["unusable"]
    assert each["foreign"]
    assert f"owner uid={NOBODY}, expected 0" in each["reason"]

    def look_as_nobody() -> bool:
        """The other way round: a user who may not even open root's ring, and is told so."""
        ring = ring_of(instance)
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        seen = listed(instance, code=0)
        reasons = {found["name"]: (found["foreign"], found["reason"]) for found in seen["unusable"]}
        foreign, reason = reasons[ring.name]
        return foreign and "Permission denied" in reason and seen["tables"][0]["name"] == table.segment.name

    assert wait_for_exit(in_child(look_as_nobody)) == 0


def test_any_bytes_in_a_segments_place_are_an_answer(instance: str) -> None:
    """Rings whose files were scribbled on: each is shown or refused in a sentence, by rings and by inspect."""
    seed = random.randrange(1 << 30)
    print(f"seed={seed}")
    chosen = random.Random(seed)
    ring = ring_of(instance)
    push(ring, 10)
    pristine = {name: (SHM / name).read_bytes() for name in (ring.name, f"{ring.name}.cursors")}
    shown = 0
    for _ in range(120):
        for name, raw in pristine.items():
            changed = bytearray(raw)
            for _ in range(chosen.choice((0, 1, 4))):
                at = chosen.choice((chosen.randrange(128), chosen.randrange(128, 500), chosen.randrange(8192, len(raw))))
                changed[at] = chosen.randrange(256)
            (SHM / name).write_bytes(changed)
        said = json.loads(tickpath("rings", "--instance", instance, "--json").stdout)
        assert len(said["rings"]) + len(said["tables"]) + len(said["unusable"]) == 1
        try:
            with decode.Tail(ring.name) as tail:
                for items in tail.batches(tail.begin(last=100, start=None), follow=False, seconds=None):
                    shown += sum(str(item).isprintable() for item in items)
        except (segment.SegmentError, ValueError) as error:
            assert "\n" not in str(error)
    assert shown > 40


# Cleaning


def left_behind(instance: str) -> list[str]:
    """What a process leaves that dies with an instance: the names."""

    def work() -> bool:
        ring_of(instance)
        Table.create(f"{instance}.control", LINE)
        os.kill(os.getpid(), signal.SIGKILL)
        return True

    assert wait_for_exit(in_child(work)) == -signal.SIGKILL
    return segment.names(f"{instance}.")


def test_clean_removes_what_the_dead_left(instance: str) -> None:
    names = left_behind(instance)
    assert len(names) == 3
    (SHM / f"{instance}.half").write_bytes(b"")
    names = sorted([*names, f"{instance}.half"])
    dry = tickpath("clean", "--instance", instance, "--dry-run")
    assert (dry.exit_code, dry.stdout.splitlines()) == (0, [f"would remove {name}" for name in names])
    assert segment.names(f"{instance}.") == names
    done = tickpath("clean", "--instance", instance)
    assert (done.exit_code, done.stdout.splitlines()) == (0, [f"removed {name}" for name in names])
    assert segment.names(f"{instance}.") == []
    again = tickpath("clean", "--instance", instance)
    assert (again.exit_code, again.stdout) == (0, f"{instance}: nothing was left behind\n")


def test_clean_leaves_an_instance_whole_while_one_process_has_any_part_of_it(instance: str) -> None:
    names = left_behind(instance)

    def work() -> None:
        held = segment.attach(f"{instance}.control", lib.TP_KIND_TABLE)
        signal.pause()
        held.detach()

    with child(work) as pid:
        until(lambda: segment.is_attached(f"{instance}.control"), "the child is attached")
        for dry in ([], ["--dry-run"]):
            result = tickpath("clean", "--instance", instance, *dry)
            assert result.exit_code == 3
            assert result.stdout.startswith(f"kept {instance}: pid {pid} (")
        said = json.loads(tickpath("clean", "--instance", instance, "--json").stdout)
        assert (said["removed"], said["kept"][0]["name"], said["kept"][0]["alive"]) == ([], instance, True)
        assert segment.names(f"{instance}.") == names
    assert json.loads(tickpath("clean", "--instance", instance, "--json").stdout) == {"removed": names, "kept": []}


def test_clean_touches_no_neighbour(instance: str) -> None:
    left_behind(instance)
    neighbour = left_behind(f"{instance}x")
    try:
        assert tickpath("clean", "--instance", instance).exit_code == 0
        assert segment.names(f"{instance}x.") == neighbour
    finally:
        assert segment.remove_dead(f"{instance}x.") == neighbour


def test_without_an_instance_every_dead_one_would_go_and_no_file_of_another_program(instance: str) -> None:
    names = left_behind(instance)
    (SHM / f"{instance}c.foreign").write_bytes(b"other")
    alive = ring_of(f"{instance}d")
    try:
        result = tickpath("clean", "--dry-run")
        assert result.exit_code == 0
        assert {f"would remove {name}" for name in names} <= set(result.stdout.splitlines())
        assert "c.foreign" not in result.stdout
        assert f"kept {instance}d: pid {os.getpid()} (" in result.stdout
    finally:
        (SHM / f"{instance}c.foreign").unlink()
        alive.unlink()


def test_clean_keeps_what_is_no_segment_and_says_so(instance: str) -> None:
    make_odd_files(instance)
    (SHM / f"{instance}.folder").mkdir()
    (SHM / f"{instance}.link").symlink_to("/nowhere")
    result = tickpath("clean", "--instance", instance, "--json")
    assert result.exit_code == 1
    kept = {each["name"].removeprefix(f"{instance}."): each["reason"] for each in json.loads(result.stdout)["kept"]}
    assert kept.keys() == {"random", "folder", "link"}
    assert "does not begin as a segment does" in kept["random"]
    assert "not a regular file" in kept["folder"]
    assert sorted(segment.names(f"{instance}.")) == [f"{instance}.{name}" for name in ("folder", "link", "random")]


@pytest.mark.skipif(os.getuid() != 0, reason="needs root, to become somebody else")
def test_clean_leaves_what_belongs_to_another(instance: str) -> None:
    names = left_behind(instance)

    def clean_as_nobody() -> bool:
        os.setgroups([])
        os.setgid(NOBODY)
        os.setuid(NOBODY)
        result = tickpath("clean", "--instance", instance, "--json")
        said = json.loads(result.stdout)
        return result.exit_code == 1 and said["removed"] == [] and all("belongs to uid=0" in each["reason"] for each in said["kept"])

    assert wait_for_exit(in_child(clean_as_nobody)) == 0
    assert segment.names(f"{instance}.") == names


def test_of_several_cleaners_exactly_one_removes_each(instance: str, tmp_path: Path) -> None:
    names = left_behind(instance)
    gate = tmp_path / "go"

    def work(number: int) -> bool:
        from tools.clean import clean

        until(gate.exists, "all are there")
        (tmp_path / f"{number}.json").write_text(json.dumps(clean(instance).to_dict()))
        return True

    pids = [in_child(lambda number=number: work(number)) for number in range(4)]
    gate.touch()
    assert [wait_for_exit(pid) for pid in pids] == [0] * 4
    removed = [name for number in range(4) for name in json.loads((tmp_path / f"{number}.json").read_text())["removed"]]
    assert sorted(removed) == names


def test_the_commands_work_as_programs(instance: str) -> None:
    """Started as an operator does, with the exit code that a script sees."""
    left_behind(instance)

    def run(*arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            [sys.executable, "-m", "tools.cli", *arguments], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False
        )

    rings = run("rings", "--instance", instance)
    assert (rings.returncode, rings.stderr) == (1, "")
    assert rings.stdout.count("left behind") == 2
    assert run("clean", "--instance", instance).stdout.count("removed ") == 3
    assert run("rings", "--no-such-option").returncode == 2
    assert stat.S_ISDIR(SHM.stat().st_mode)
