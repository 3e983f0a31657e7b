"""`tickpath inspect`: any ring, board or table decoded by its own schema, at rest and while kernels write it."""

import json
import os
import random
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from engine.layout import MSG_QUOTE, MSG_TRADE, QUOTE, TICKS, TRADE, kinds_on
from shm import identity, segment
from shm.hot import board_close, board_open, claim, commit
from shm.layout import HISTOGRAM
from shm.ring import Ring
from shm.table import Board, Table
from tests.children import child, in_child, kill, until, wait_for_exit
from tests.inspecting import ROOT, running, said, sleeps, tickpath, wait_until_gone
from tests.ring_kernels import MESSAGE, fill, write_numbers
from tools import decode

TEXT = np.dtype({"names": ["sequence", "name", "share", "pair", "blob"], "formats": ["u8", ("u1", 8), "f8", ("i2", 2), ("u1", 4)],
                 "offsets": [0, 8, 16, 24, 28], "itemsize": 128}, align=True)  # fmt: skip


@pytest.fixture
def instance(instance: str) -> str:
    return f"tickpath-test-{instance}"


@pytest.fixture
def make(instance: str) -> Iterator:
    """Creates rings of the test's instance, and removes them."""
    made = []

    def create(name: str = "ring", capacity: int = 16, variants=None, readers=(), **options) -> Ring:
        made.append(Ring.create(f"{instance}.{name}", capacity, variants or {"message": MESSAGE}, readers, **options))
        return made[-1]

    yield create
    for ring in made:
        ring.unlink()
        ring.detach()


def numbers(ring: Ring, first: int, count: int):
    """Publish messages that hold the numbers from `first` on; the producer, still holding its role."""
    out = ring.producer(MESSAGE)
    for number in range(first, first + count):
        index = claim(out.end)
        fill(out.end.slots[index], number)
        commit(out.end, index)
    return out


def check_account(lines: list[dict], position: int) -> tuple[int, int, int]:
    """Every position once, in order, as a whole message or in a line that says it was lost: (next position, messages, lost)."""
    messages = lost = 0
    for line in lines:
        if line.get("event") == "lost":
            assert line["from"] == position, f"{line} at position {position}"
            assert line["lost"] > 0
            position += line["lost"]
            lost += line["lost"]
        elif "position" in line:
            assert line["position"] == position, f"{line} at position {position}"
            assert line["fields"]["a"] == position
            assert line["fields"]["d"] == -position
            position += 1
            messages += 1
    return position, messages, lost


def test_a_message_is_shown_by_the_variant_that_its_kind_says(make) -> None:
    ring = make(variants=TICKS, kinds=kinds_on(TICKS))
    out = ring.producer(QUOTE)
    quote, trade, odd = np.zeros(1, QUOTE), np.zeros(1, TRADE), np.zeros(1, QUOTE)
    quote[["kind", "instrument", "bid_px", "ask_sz"]] = (MSG_QUOTE, 7, 1_234_500, 300)
    trade[["kind", "px", "match_id"]] = (MSG_TRADE, -5, 2**64 - 1)
    odd["kind"], odd["instrument"] = 99, 3
    for record in (quote, trade, odd):
        assert out.push_many(record.view(np.uint8).reshape(1, -1)) == 1
    first, second, third = said("inspect", ring.name)
    assert (first["position"], first["variant"], second["variant"], third["variant"]) == (0, "quote", "trade", None)
    assert {name: first["fields"][name] for name in ("bid_px", "bid_sz", "ask_sz", "instrument")} == {
        "bid_px": 1_234_500, "bid_sz": 0, "ask_sz": 300, "instrument": 7,
    }  # fmt: skip
    assert (second["fields"]["px"], second["fields"]["match_id"]) == (-5, 2**64 - 1)
    assert third["fields"] == {"origin_tsc": 0, "ts_ns": 0, "kind": 99, "flags": 0, "instrument": 3, "age_tsc": 0}
    assert "sequence" not in first["fields"]
    text = tickpath("inspect", ring.name).stdout.splitlines()
    assert text[0].startswith("0 quote ")
    assert "bid_px=1234500" in text[0].split()
    assert text[1].startswith("1 trade ")
    assert text[2].startswith("2 ? ")


def test_bytes_that_are_text_are_shown_as_text(make) -> None:
    ring = make(variants={"text": TEXT})
    rows = np.zeros(3, TEXT)
    rows["name"] = [list(b"AAPL    "), list(b"A B\0\0\0\0\0"), list(b"\x1b[2J\xff\0\0\0")]
    rows["share"] = [0.5, np.nan, -1e300]
    rows["pair"][0] = [-1, 2]
    assert ring.producer(TEXT).push_many(rows) == 3
    fields = [line["fields"] for line in said("inspect", ring.name)]
    assert fields[0] == {"name": "AAPL", "share": 0.5, "pair": [-1, 2], "blob": ""}
    assert [fields[1]["name"], fields[2]["name"]] == ["A B", "0x1b5b324aff000000"]
    assert [fields[1]["share"], fields[2]["share"]] == [None, -1e300]
    text = tickpath("inspect", ring.name).stdout
    assert "name=AAPL share=0.5 pair=[-1,2] blob=''" in text
    assert "name='A B'" in text
    assert text.replace("\n", "").isprintable()


def test_without_kinds_every_record_is_the_first_variant(make) -> None:
    ring = make(variants={"one": MESSAGE, "other": QUOTE})
    numbers(ring, 0, 1)
    assert said("inspect", ring.name)[0]["variant"] == "one"


@pytest.mark.parametrize("first", [0, 2**32 - 3, 2**63 - 3, 2**64 - 3])
def test_positions_are_the_rings_wherever_they_wrap(make, first: int) -> None:
    ring = make(first_position=first)
    numbers(ring, 0, 6)
    assert [line["position"] for line in said("inspect", ring.name)] == [(first + n) % 2**64 for n in range(6)]
    assert [line["position"] for line in said("inspect", ring.name, "--from", str((first + 4) % 2**64))] == [
        (first + n) % 2**64 for n in (4, 5)
    ]


def test_where_to_begin(make) -> None:
    ring = make(capacity=32)
    out = numbers(ring, 0, 40)

    def positions(*arguments: str) -> list[int]:
        return [line["position"] for line in said("inspect", ring.name, *arguments) if "position" in line]

    assert positions() == list(range(30, 40))
    assert positions("--last", "3") == [37, 38, 39]
    assert positions("--last", "0") == []
    assert positions("--last", "1000") == list(range(16, 40)), "a quarter ahead of what a living producer overwrites"
    assert positions("--from", "oldest") == list(range(16, 40))
    assert positions("--from", "newest") == []
    assert positions("--from", "35") == list(range(35, 40))
    assert positions("--from", "40") == []
    out.close()
    assert positions("--from", "oldest") == list(range(8, 40)), "nobody overwrites what a dead producer left"
    assert positions("--last", "1000") == list(range(8, 40))
    assert positions("--from", "9") == list(range(9, 40))


def test_a_lap_is_a_line_that_says_what_was_lost(make) -> None:
    ring = make(capacity=32)
    numbers(ring, 0, 100)
    lines = said("inspect", ring.name, "--from", "5")
    assert lines[0]["event"] == "lost"
    assert check_account(lines, 5)[0] == 100
    assert tickpath("inspect", ring.name, "--from", "5").stdout.startswith(f"-- lost {lines[0]['lost']} messages from position 5 on\n")


def test_a_ring_that_was_never_written_shows_nothing(make) -> None:
    ring = make()
    assert (said("inspect", ring.name), said("inspect", ring.name, "--from", "0")) == ([], [])


def test_a_claimed_message_is_not_shown(make) -> None:
    ring = make()
    out = numbers(ring, 0, 2)
    claim(out.end)
    assert [line["position"] for line in said("inspect", ring.name)] == [0, 1]


def test_a_slot_that_says_otherwise_ends_the_view(make) -> None:
    """Scribbled on, a slot is published by what lies after it, and not by itself."""
    ring = make()
    numbers(ring, 0, 10).close()
    with open(f"/dev/shm/{ring.name}", "r+b") as file:  # noqa: PTH123
        file.seek(8192 + 3 * 64)
        file.write(bytes(8))
    assert [line.get("position", line) for line in said("inspect", ring.name)] == [0, 1, 2, {"event": "damaged", "from": 3}]


def test_a_name_may_do_without_its_instance_where_only_one_has_it(make, instance: str) -> None:
    own = f"only-{os.getpid()}"
    ring = make(name=own)
    assert said("inspect", own) == []
    twin = Ring.create(f"{instance}b.{own}", 2, {"message": MESSAGE})
    try:
        both = tickpath("inspect", own)
        assert (both.exit_code, both.stdout) == (2, "")
        assert f"it may be {ring.name} or {twin.name}: give the whole name" in both.stderr
        assert tickpath("inspect", ring.name).exit_code == 0
    finally:
        twin.unlink()
        twin.detach()
    missing = tickpath("inspect", f"{instance}.nothing")
    assert (missing.exit_code, missing.stderr) == (
        2,
        f"tickpath: segment={instance}.nothing: there is none; `tickpath rings` lists what there is\n",
    )


@pytest.mark.parametrize(
    ("arguments", "said_so"),
    [
        (["--from", "soon"], "expected 'oldest', 'newest' or a position"),
        (["--from", "-1"], "expected 'oldest', 'newest' or a position"),
        (["--from", str(2**64)], "expected 'oldest', 'newest' or a position"),
        (["--from", "12"], "the ring is at 5, expected no later position"),
        (["--from", "2", "--last", "2"], "expected one of them"),
        (["--last", "-1"], "not in the range"),
        (["--seconds", "x"], "not a valid float"),
    ],
)
def test_misuse_is_told_in_a_sentence(make, arguments: list[str], said_so: str) -> None:
    ring = make()
    numbers(ring, 0, 5)
    result = tickpath("inspect", ring.name, *arguments)
    assert (result.exit_code, result.stdout) == (2, "")
    assert said_so in result.stderr


def test_the_schema_is_a_table_of_fields(make) -> None:
    ring = make(variants=TICKS, kinds=kinds_on(TICKS))
    rows = [line.split() for line in tickpath("inspect", ring.name, "--schema").stdout.splitlines()]
    assert rows[0] == [f"{ring.name}:", "16", "records", "of", "64", "bytes"]
    assert rows[1] == ["variant", "field", "offset", "format"]
    assert ["quote", "(kind=2)", "bid_px", "32", "i8"] in rows
    assert len(rows) == 2 + sum(len(dtype.names or ()) for dtype in TICKS.values())
    assert json.loads(tickpath("inspect", ring.name, "--schema", "--json").stdout)["bytes"] == 64


def test_a_board_is_shown_by_key_and_an_unfinished_line_is_said_to_be_one(instance: str) -> None:
    board = Board.create(f"{instance}.board", QUOTE, 100)
    try:
        for key, price in ((3, 11), (99, 12), (50, 13)):
            version = board_open(board.records, key)
            board.records[key]["bid_px"] = price
            if key != 50:
                board_close(board.records, key, version)
        lines = said("inspect", board.segment.name)
        assert [(line.get("key"), line.get("event"), line.get("fields", {}).get("bid_px")) for line in lines] == [
            (3, None, 11), (50, "busy", None), (99, None, 12),
        ]  # fmt: skip
        assert lines[0]["fields"]["sequence"] == 2, "a board's version is a field like any other"
        refused = tickpath("inspect", board.segment.name, "--follow")
        assert refused.exit_code == 2
        assert "it is a board: --follow" in refused.stderr
    finally:
        board.unlink()


def test_a_table_is_shown_by_key_and_long_arrays_by_their_length(instance: str) -> None:
    table = Table.create(f"{instance}.table", HISTOGRAM, 3)
    try:
        table.records[1]["maximum"] = 5
        table.records[1]["buckets"][5] = 2
        (line,) = said("inspect", table.segment.name)
        assert (line["key"], line["variant"], line["fields"]["maximum"], sum(line["fields"]["buckets"])) == (1, "record", 5, 2)
        assert "buckets=[2752 values, 1 of them not 0]" in tickpath("inspect", table.segment.name).stdout
    finally:
        table.unlink()


def test_a_table_that_is_read_is_not_kept_alive_by_it(instance: str) -> None:
    table = Table.create(f"{instance}.table", QUOTE, 3)
    table.records["bid_px"] = 1
    name = table.segment.name
    table.detach()
    reading = decode.records(name)
    assert next(reading).number == 0
    assert segment.remove_if_dead(name)
    assert [record.number for record in reading] == [1, 2]


def test_the_cursors_of_a_ring_are_shown_elsewhere(make) -> None:
    result = tickpath("inspect", f"{make().name}.cursors")
    assert result.exit_code == 2
    assert "tickpath rings --long" in result.stderr


def test_looking_holds_no_ring_alive_and_writes_nothing(make) -> None:
    ring = make(capacity=32)
    numbers(ring, 0, 20).close()
    files = [Path(f"/dev/shm/{name}") for name in (ring.name, f"{ring.name}.cursors")]
    before = [file.read_bytes() for file in files]
    ring.detach()
    with running("inspect", ring.name, "--follow", "--json", "--from", "oldest") as follower:
        assert check_account([follower.json() for _ in range(20)], 0)[0] == 20
        assert [file.read_bytes() for file in files] == before
        assert sorted(segment.remove_dead(ring.name)) == sorted(file.name for file in files)
        assert follower.json() == {"event": "removed", "ring": ring.name}
        assert follower.end() == (0, [], "")


@pytest.mark.parametrize(("capacity", "count"), [(1 << 16, 20_000), (64, 200_000)])
def test_following_a_live_ring_accounts_for_every_message(make, capacity: int, count: int) -> None:
    """A kernel writes at full speed: with room for all, all are shown; with room for few, the rest is told as lost."""
    ring = make(capacity=capacity)
    numbers(ring, 0, 1).close()

    def work() -> bool:
        return write_numbers_from(Ring.attach(ring.name), 1, count)

    with running("inspect", ring.name, "--follow", "--json", "--from", "0") as follower:
        lines = [follower.json()]
        pid = in_child(work)
        while lines[-1].get("position") != count:
            lines.append(follower.json())
        assert wait_for_exit(pid) == 0
        follower.interrupt()
        code, rest, errors = follower.end()
    assert (code, rest, errors) == (0, [], "")
    position, messages, lost = check_account(lines, 0)
    assert position == messages + lost == count + 1
    assert lost == 0 or capacity == 64
    assert [line["event"] for line in lines if "event" in line and line["event"] != "lost"] == ["restarted"]


def write_numbers_from(ring: Ring, first: int, count: int) -> bool:
    """Bursts of a kernel, each holding the numbers that are its positions; between two others may run."""
    out = ring.producer(MESSAGE)
    for number in range(first, first + count):
        index = claim(out.end)
        fill(out.end.slots[index], number)
        commit(out.end, index)
        if number % 500 == 0:
            os.sched_yield()
    return True


def test_a_producer_that_comes_back_is_an_event(make) -> None:
    ring = make()
    with running("inspect", ring.name, "--follow", "--json") as follower:
        # Running when it sleeps between two looks.
        until(lambda: segment_is_open(follower.process.pid, ring.name), "the follower has the ring open")
        with child(lambda: numbers(Ring.attach(ring.name), 0, 1) and signal.pause()) as pid:
            started, message = sorted((follower.json(), follower.json()), key=lambda line: line.get("event", "z"))
            assert (started["event"], started["epoch"], started["pid"], message["position"]) == ("started", 1, pid, 0)
            kill(pid)
        with child(lambda: numbers(Ring.attach(ring.name), 1, 1) and signal.pause()) as pid:
            restarted, message = sorted((follower.json(), follower.json()), key=lambda line: line.get("event", "z"))
            assert (restarted["event"], restarted["epoch"], restarted["pid"], message["position"]) == ("restarted", 2, pid, 1)
        follower.interrupt()
        assert follower.end() == (0, [], "")


def segment_is_open(pid: int, name: str) -> bool:
    """Both files: the observer's end is made right after."""
    links = []
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            links.append(str(link.readlink()))
        except OSError:
            continue
    return f"/dev/shm/{name}.cursors" in links and sleeps(pid) > 0 and asleep(pid)


def asleep(pid: int) -> bool:
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] == "S"


def test_an_idle_follower_sleeps_and_ends_after_its_seconds(make) -> None:
    ring = make()
    numbers(ring, 0, 1)
    with running("inspect", ring.name, "--follow") as follower:
        assert follower.line().startswith("0 message a=0 ")
        before = sleeps(follower.process.pid)
        until(lambda: sleeps(follower.process.pid) > before + 5, "it waits between two looks")
        follower.interrupt()
        assert follower.end() == (0, [], "")
    with running("inspect", ring.name, "--seconds", "0.2", "--last", "1") as follower:
        code, lines, errors = follower.end()
        assert (code, len(lines), errors) == (0, 1, "")


def test_a_reader_that_goes_away_ends_it_without_a_word(make) -> None:
    ring = make(capacity=1 << 14)
    numbers(ring, 0, 12_000)
    command = f"{sys.executable} -m tools.cli inspect {ring.name} --from oldest --follow | head -n 1; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", command], cwd=ROOT, capture_output=True, text=True, timeout=60, check=False)
    assert done.stdout.splitlines()[0].startswith("0 message a=0 ")
    assert (done.stdout.splitlines()[1:], done.stderr) == (["0"], "")


def test_a_schema_of_anything_is_decoded_or_refused_by_name(instance: str) -> None:
    """Schemas with a byte changed, with the hash that belongs to them: what gets past the checks must not break the decoder."""
    seed = random.randrange(1 << 30)
    print(f"seed={seed}")
    chosen = random.Random(seed)
    ring = Ring.create(f"{instance}.fuzz", 4, TICKS, kinds=kinds_on(TICKS))
    schema, record = ring.geometry.schema, bytes(chosen.randrange(256) for _ in range(64))
    ring.unlink()
    decoded = 0
    for _ in range(3_000):
        raw = bytearray(schema.encode())
        for _ in range(chosen.choice((1, 1, 2))):
            raw[chosen.randrange(len(raw))] = chosen.choice((chosen.randrange(32, 127), *b'0123456789"[]{}iufcSUVb'))
        text = raw.decode("ascii")
        if identity._schema_problem(text, 64):
            continue
        geometry = identity.replace(ring.geometry, schema=text)
        try:
            decoder = decode.Decoder(geometry)
        except ValueError as error:
            assert "\n" not in str(error)
            continue
        for kind in range(7):
            message = decode.Message(0, *decoder.fields(record[:24] + bytes([kind]) + record[25:]))
            assert str(message).isprintable()
            json.loads(message.to_json())
            decoded += 1
        decode.schema_lines(geometry)
    assert decoded > 1_000
    ring.detach()
    wait_until_gone(Path(f"/dev/shm/{instance}.fuzz"))


def test_kernels_may_write_while_it_is_read(make) -> None:
    """The shipped kernel, as fast as it goes, under a command that looks once: whole messages, in order, or a gap that is told."""
    ring = make(capacity=256)
    count = 3_000_000

    def work() -> bool:
        return write_numbers(Ring.attach(ring.name).producer(MESSAGE).end, count) == count

    with child(work):
        until(lambda: ring.position() > 1_000, "the kernel writes")
        for _ in range(5):
            lines = said("inspect", ring.name, "--from", "oldest")
            first = next((line for line in lines if "position" in line or line.get("event") == "lost"), None)
            assert first is not None
            check_account(lines, first.get("position", first.get("from")))
