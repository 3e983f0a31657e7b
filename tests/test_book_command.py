"""`tickpath book`: every row equal to itch-book's and to a plain model's, every kind of input, and no file that is not whole."""

import csv
import datetime as dt
import gzip
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from decimal import Decimal
from pathlib import Path
from typing import Any

import itch_book.lobster
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from itch_book._core import Session
from rich.console import Console

from engine.feed import itch
from perf.itch_day import make_day
from perf.itch_grow import grow
from tests.book_model import lobster
from tests.itch_flow import Flow, frame, random_message, unframe
from tests.private_mounts import in_private_mounts
from tools import book, book_input, cli
from tools.book import Options, write_book
from tools.book_day import day_of_name, midnight_ns
from tools.book_output import OutputError

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data" / "itch"
AAPL = DATA / "aapl_20190130_093000.itch"
BOOK10 = DATA / "aapl_20190130_093000.book10.csv.gz"
HEAD_ONLY = DATA / "truncated_head.itch"
# Later, orders that rested before the file begins are missing in it: first far from the touch, in the end at it.
TEN_LEVELS_EXACT_TO = 3_138
# The first run on a machine compiles the kernels.
PATIENCE_S = 240

needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")
Rows = list[tuple[Any, ...]]


def write(folder: Path, raw: bytes, *, name: str = "day.itch", **asked: Any) -> dict[str, Any]:
    """Run the command's work on some bytes: its summary."""
    path = folder / name
    path.write_bytes(raw)
    return write_book(Options(file=str(path), **asked), Console(stderr=True))


def read(path: Path) -> Rows:
    """A Parquet file as tuples, prices as integers of 1/10000."""
    return list(zip(*(as_integers(column.combine_chunks()) for column in pq.read_table(path).columns), strict=True))


def as_integers(column: pa.Array) -> list[Any]:
    """Values, decimals as their integers: the low half of each, which is all of it at 10 digits."""
    if not pa.types.is_decimal(column.type):
        return list(column.to_pylist())
    low = np.frombuffer(column.buffers()[1], np.int64)[::2][column.offset : column.offset + len(column)].tolist()
    return [value if valid else None for value, valid in zip(low, column.is_valid().to_pylist(), strict=True)]


def peer(raw: bytes, table: str, depth: int = 0, symbols: list[str] | None = None) -> dict[str, np.ndarray]:
    session = Session(tables=[] if table == "depth" else [table], depth=depth, symbols=symbols or [])
    session.feed(np.frombuffer(raw, np.uint8))
    columns: dict[str, np.ndarray] = getattr(session, f"take_{table}")()
    return columns


def peer_quotes(raw: bytes, table: str = "bbo", levels: int = 1, symbols: list[str] | None = None) -> Rows:
    """(ts_ns, locate, bid_px, bid_sz, ask_px, ask_sz, ..., seq) whenever one of them changes; an empty side is None."""
    columns = peer(raw, table, levels if table == "depth" else 0, symbols)
    suffixes = [""] if table == "bbo" else [f"_{level:02}" for level in range(levels)]
    names = [f"{side}_{what}{suffix}" for suffix in suffixes for side in ("bid", "ask") for what in ("px", "sz")]
    values = zip(*(columns[name].tolist() for name in names), strict=True)
    rows, last = [], dict[int, tuple[Any, ...]]()
    for ts, seq, locate, value in zip(*(columns[name].tolist() for name in ("ts", "seq", "locate")), values, strict=True):
        # itch-book also says when only the number of orders at a price changes.
        if last.get(locate, (0,) * len(names)) != value:
            last[locate] = value
            shown = [part for px, sz in zip(value[::2], value[1::2], strict=True) for part in ((px, sz) if px else (None, None))]
            rows.append((ts, locate, *shown, seq))
    return rows


def flow(seed: int, count: int = 6_000, *, crossing: bool = False) -> bytes:
    made = Flow(seed, symbols=4, crossing=crossing)
    return frame(made.opening() + made.messages(count))


def day_of_trades(seed: int) -> bytes:
    """A flow with trades beside the book as a venue sends them: sides B or S, prices, and crosses of no shares."""
    made = Flow(seed, symbols=3)
    messages = made.opening()
    for _ in range(300):
        messages += [raw for raw in made.messages(10) if raw[0] not in b"PQB"]
        common: dict[str, Any] = {"locate": made.rng.randrange(1, 4), "timestamp": made.now_ns, "match": made.rng.randrange(1 << 60)}
        px = made.rng.randrange(1, 1 << 32)
        messages.append(random_message(itch.TRADE, made.rng, **common, side=made.rng.choice("BS"), shares=100, px=px, ref=0)[0])
        shares = made.rng.choice([0, 1, 1 << 40])
        messages.append(random_message(itch.CROSS_TRADE, made.rng, **common, shares=shares, px=px, cross=made.rng.choice("OCHI"))[0])
        messages.append(random_message(itch.BROKEN_TRADE, made.rng, **common)[0])
    return frame(messages)


DAYS: dict[str, Callable[[], bytes]] = {
    "flow": lambda: flow(1),
    "crossing flow": lambda: flow(2, crossing=True),
    "generated day": lambda: make_day(60_000, live=20_000, symbols=300, seed=5).tobytes(),
    "real": lambda: AAPL.read_bytes(),
    "real, four symbols": lambda: grow(np.frombuffer(AAPL.read_bytes(), np.uint8), 4).tobytes(),
}
real = [pytest.param(name, marks=needs_data) if "real" in name else name for name in DAYS]


def with_names(rows: Rows, raw: bytes) -> Rows:
    """Rows with symbols for locate codes, as the directory has them."""
    names = {
        fields["locate"]: fields["stock"] for fields in (itch.STOCK_DIRECTORY.decode(one) for one in unframe(raw) if one[0] == ord("R"))
    }
    return [(row[0], names[row[1]], *row[2:]) for row in rows]


@pytest.mark.parametrize("name", real)
def test_best_bids_and_offers_are_itch_books(tmp_path: Path, name: str) -> None:
    raw = DAYS[name]()
    out = tmp_path / "bbo.parquet"
    result = write(tmp_path, raw, out=out, seq=True)
    expected = with_names(peer_quotes(raw), raw)
    assert read(out) == expected
    assert len(expected) == result["tables"]["bbo"]["rows"] > 100
    assert result["messages"] == len(unframe(raw))


@pytest.mark.parametrize(
    ("name", "levels"), [(name, 3) for name in DAYS] + [("flow", 1), ("crossing flow", 50), ("generated day", 10), ("real", 10)]
)
def test_depth_is_itch_books(tmp_path: Path, name: str, levels: int) -> None:
    if "real" in name and not DATA.exists():
        pytest.skip(f"no real market data: {DATA} is absent")
    raw = flow(5, 1_500, crossing=True) if levels == 50 else DAYS[name]()
    out = tmp_path / "depth.parquet"
    write(tmp_path, raw, out=out, depth=levels, seq=True)
    names = [f"{side}_{what}_{level}" for level in range(1, levels + 1) for side in ("bid", "ask") for what in ("px", "sz")]
    assert pq.read_schema(out).names == ["ts_ns", "symbol", *names, "seq"]
    assert read(out) == with_names(peer_quotes(raw, "depth", levels), raw)


@needs_data
def test_depth_is_another_authors_ten_level_book(tmp_path: Path) -> None:
    out = tmp_path / "depth.parquet"
    write(tmp_path, AAPL.read_bytes(), out=out, depth=10, seq=True)
    table = pq.read_table(out).to_pydict()
    at = compared = 0
    with gzip.open(BOOK10, "rt") as lines:
        for line in csv.DictReader(lines):
            number = int(line["file_msg_index"])
            if number > TEN_LEVELS_EXACT_TO:
                break
            # seq counts from 1, their index from 0: the last row that is due to this message or one before it.
            while at + 1 < len(table["seq"]) and table["seq"][at + 1] <= number + 1:
                at += 1
            for level in range(1, 11):
                for side in ("bid", "ask"):
                    assert int(table[f"{side}_px_{level}"][at] * 10_000) == int(line[f"{side}_px_{level}"]), (number, level)
                    assert table[f"{side}_sz_{level}"][at] == int(line[f"{side}_sz_{level}"]), (number, level)
                    compared += 1
    assert compared > 60_000


@pytest.mark.parametrize("name", [*real, "trades beside the book"])
def test_trades_are_itch_books(tmp_path: Path, name: str) -> None:
    raw = DAYS[name]() if name in DAYS else day_of_trades(3)
    out = tmp_path / "trades.parquet"
    write(tmp_path, raw, out=out, trades=True, seq=True)
    if name in ("flow", "crossing flow"):
        # Its trades beside the book have nothing in them that makes sense, and itch-book leaves some of them out.
        raw_kinds, peer_kinds = "EC", b"EC"
    else:
        raw_kinds, peer_kinds = "ECPQB", b"ECPQB"
    columns = peer(raw, "trades")
    messages = unframe(raw)
    expected: Rows = []
    for row in range(len(columns["seq"])):
        kind = chr(columns["kind"][row])
        if kind.encode() in peer_kinds:
            ts, seq, locate, px, size, ref, match = (
                int(columns[n][row]) for n in ("ts", "seq", "locate", "px", "size", "order_id", "match")
            )
            side, cross = (chr(columns[n][row]).replace("N", "") or None for n in ("side", "cross_type"))
            if kind == "P":
                side = str(itch.TRADE.decode(messages[seq - 1])["side"])
            expected.append((ts, locate, kind, side, px or None, None if kind == "B" else size, ref or None, match, cross, seq))
    assert [row[3] for row in read(out)].count(None) == [row[2] in "QB" for row in read(out)].count(True)
    # What is not to be counted in a volume, itch-book leaves out.
    ours = [(*row[:8], *row[9:]) for row in read(out) if row[2] in raw_kinds and (row[8] or row[2] == "B")]
    assert ours == with_names(expected, raw)
    assert pq.read_schema(out).names == ["ts_ns", "symbol", "kind", "side", "px", "sz", "ref", "match", "printable", "cross", "seq"]


def test_trades_not_for_the_volume_are_there_and_say_so(tmp_path: Path) -> None:
    raw = day_of_trades(4)
    write(tmp_path, raw, out=tmp_path / "trades.parquet", trades=True, seq=True)
    messages = unframe(raw)
    seen = {row[-1]: row for row in read(tmp_path / "trades.parquet")}
    told = [number for number, one in enumerate(messages, 1) if one[0] in b"ECPQB"]
    assert sorted(seen) == told
    for number in told:
        message = itch.BY_CODE[messages[number - 1][0]]
        fields = message.decode(messages[number - 1])
        if message is itch.ORDER_EXECUTED_PRICE:
            assert seen[number][8] == (fields["printable"] == "Y")
        if message is itch.CROSS_TRADE:
            assert seen[number][5:7] == (fields["shares"], None)


@pytest.mark.parametrize("name", real)
def test_orders_are_itch_books(tmp_path: Path, name: str) -> None:
    raw = DAYS[name]()
    out = tmp_path / "orders.parquet"
    write(tmp_path, raw, out=out, orders=True, seq=True)
    columns = peer(raw, "messages")
    prices: dict[int, int] = {}
    expected: Rows = []
    for row in range(len(columns["seq"])):
        ts, seq, locate, px, size, left, ref, old = (
            int(columns[n][row]) for n in ("ts", "seq", "locate", "px", "size", "remaining", "order_id", "old_order_id")
        )
        kind, side = chr(columns["type"][row]), chr(columns["side"][row])
        if kind not in "AFECXDU":
            continue
        # For an execution at another price itch-book gives that one: ours is in the table of trades.
        px = prices.setdefault(ref, px)
        expected.append((ts, locate, kind, old or ref, ref if old else None, side, px, size, left, seq))
    assert [(*row[:9], row[10]) for row in read(out)] == with_names(expected, raw)
    mpids = {row[9] for row in read(out) if row[2] == "F"}
    given = {one[36:40].decode().strip() for one in unframe(raw) if one[0] == ord("F")}
    assert mpids == given
    assert {row[9] for row in read(out) if row[2] != "F"} == {None}


def lobster_files(folder: Path, symbol: str, day: str, levels: int) -> tuple[list[str], list[list[int]]]:
    head = f"{symbol}_{day}_34200000_57600000"
    messages = (folder / f"{head}_message_{levels}.csv").read_text().splitlines()
    books = [[int(part) for part in line.split(",")] for line in (folder / f"{head}_orderbook_{levels}.csv").read_text().splitlines()]
    assert len(messages) == len(books)
    return messages, books


def with_notices(seed: int) -> bytes:
    """Before the open, halts, trades beside the book, and after the close."""
    made = Flow(seed, symbols=2)
    made.now_ns = 34_199_999_990_000
    messages = made.opening()
    for number in range(40):
        messages += made.messages(60)
        common: dict[str, Any] = {"locate": 1 + number % 2, "timestamp": made.now_ns}
        messages.append(random_message(itch.TRADING_ACTION, made.rng, **common, state="HPQT"[number % 4])[0])
        messages.append(random_message(itch.TRADE, made.rng, **common, side="BS"[number % 2])[0])
        messages.append(random_message(itch.CROSS_TRADE, made.rng, **common)[0])
    made.now_ns = 57_599_999_980_000
    return frame(messages + made.messages(40))


@pytest.mark.parametrize("levels", [1, 5, 20])
def test_lobster_is_what_its_definition_says(tmp_path: Path, levels: int) -> None:
    raw = with_notices(levels)
    result = write(tmp_path, raw, lobster=tmp_path, symbols=["SYM1", "SYM2"], depth=levels, date="2019-01-30")
    total = 0
    for locate in (1, 2):
        messages, books = lobster_files(tmp_path, f"SYM{locate}", "2019-01-30", levels)
        expected = lobster(unframe(raw), locate, levels)
        assert [line.split(",") for line in messages] == [
            [f"{row[0] // 10**9}.{row[0] % 10**9:09}", *map(str, row[1:])] for row, _ in expected
        ]
        assert books == [book for _, book in expected]
        total += len(expected)
        assert {int(row[1]) for row, _ in expected} == {1, 2, 3, 4, 5, 6, 7}
    assert result["tables"]["lobster"]["rows"] == total


@needs_data
def test_lobster_of_the_real_file_is_its_definition_and_itch_books(tmp_path: Path) -> None:
    """itch-book writes events beyond the levels too, and after the first half of a replacement the book after both halves."""
    write(tmp_path, AAPL.read_bytes(), name=AAPL.name, lobster=tmp_path, symbols=["AAPL"], depth=3)
    messages, books = lobster_files(tmp_path, "AAPL", "2019-01-30", 3)
    theirs_in = tmp_path / "theirs"
    theirs_in.mkdir()
    itch_book.lobster.export(str(AAPL), str(theirs_in), "AAPL", levels=3, date=dt.date(2019, 1, 30))
    their_messages, their_books = lobster_files(theirs_in, "AAPL", "2019-01-30", 3)
    known: dict[tuple[Any, ...], list[list[int]]] = {}
    for line, levels in zip(their_messages, their_books, strict=True):
        seconds, *rest = line.split(",")
        known.setdefault((round(float(seconds) * 1e9), *rest), []).append(levels)
    replaced = {str(itch.ORDER_REPLACE.decode(one)["ref"]) for one in unframe(AAPL.read_bytes()) if one[0] == ord("U")}
    compared = 0
    for line, ours in zip(messages, books, strict=True):
        seconds, event, *rest = line.split(",")
        ns = int(Decimal(seconds) * 10**9)
        # A cancel of all that is left is a deletion in LOBSTER, and a cancel in itch-book.
        candidates = known.get((ns, event, *rest)) or known[ns, "2", *rest]
        theirs = candidates.pop(0)
        if event == "3" and rest[0] in replaced:
            continue
        assert ours == theirs, line
        compared += 1
    assert compared > 2_000
    first = itch.ADD_ORDER.decode(next(one for one in unframe(AAPL.read_bytes()) if one[0] == ord("A")))
    assert first["timestamp"] < 34_200 * 10**9, "the file begins before the open, and LOBSTER's do not"


def test_lobster_of_a_symbol_that_is_not_there_is_no_file(tmp_path: Path) -> None:
    result = write(tmp_path, flow(1, 200), lobster=tmp_path, symbols=["SYM1", "NONE"], date="2019-01-30")
    assert result["symbols_missing"].keys() == {"NONE"}
    assert sorted(path.name.split("_")[0] for path in tmp_path.iterdir()) == ["SYM1", "SYM1", "day.itch"]


def test_the_columns_of_the_interface(tmp_path: Path) -> None:
    out = tmp_path / "bbo.parquet"
    write(tmp_path, flow(1), out=out)
    px = pa.decimal128(10, 4)
    expected = [
        ("ts_ns", pa.int64()),
        ("symbol", pa.string()),
        ("bid_px", px),
        ("bid_sz", pa.int64()),
        ("ask_px", px),
        ("ask_sz", pa.int64()),
    ]
    assert pq.read_schema(out).remove_metadata() == pa.schema(expected)
    said = pq.read_schema(out).metadata
    assert said[b"tickpath.ts_ns"] == b"nanoseconds since midnight, America/New_York"
    assert said[b"tickpath.table"] == b"bbo"


@pytest.mark.parametrize("asked", [{}, {"trades": True}, {"depth": 5}, {"orders": True}, {"seq": True}], ids=str)
def test_csv_says_what_parquet_says(tmp_path: Path, asked: dict[str, Any]) -> None:
    raw = flow(7)
    write(tmp_path, raw, out=tmp_path / "t.parquet", **asked)
    write(tmp_path, raw, out=tmp_path / "t.csv", **asked)
    table = pq.read_table(tmp_path / "t.parquet")
    with (tmp_path / "t.csv").open() as file:
        lines = list(csv.reader(file))
    assert lines[0] == table.column_names
    columns = [
        ["" if value is None else str(value).lower() if isinstance(value, bool) else str(value) for value in column.to_pylist()]
        for column in table
    ]
    assert lines[1:] == [list(row) for row in zip(*columns, strict=True)]
    assert '"' not in (tmp_path / "t.csv").read_text()


def test_prices_are_exact_in_csv(tmp_path: Path) -> None:
    common: dict[str, Any] = {"locate": 1, "tracking": 0, "timestamp": 5, "stock": "A"}
    adds = [
        itch.ADD_ORDER.encode(**common, ref=ref, side="B", shares=1, px=px) for ref, px in enumerate((1, 10_000, 1_234_567, 4_294_967_295))
    ]
    write(tmp_path, frame(adds), out=tmp_path / "t.csv")
    assert (tmp_path / "t.csv").read_text().splitlines()[1:] == [
        "5,#1,0.0001,1,,", "5,#1,1.0000,1,,", "5,#1,123.4567,1,,", "5,#1,429496.7295,1,,",
    ]  # fmt: skip


def test_a_symbol_that_would_break_a_csv_file_is_quoted(tmp_path: Path) -> None:
    listed = random_message(itch.STOCK_DIRECTORY, Flow(1).rng, locate=1, timestamp=0, stock='A,"B')[0]
    add = itch.ADD_ORDER.encode(locate=1, tracking=0, timestamp=5, stock="A", ref=1, side="B", shares=1, px=10_000)
    write(tmp_path, frame([listed, add]), out=tmp_path / "t.csv")
    with (tmp_path / "t.csv").open() as file:
        assert list(csv.reader(file))[1] == ["5", 'A,"B', "1.0000", "1", "", ""]


def test_only_the_symbols_asked_for(tmp_path: Path) -> None:
    raw = flow(8)
    for asked in ({"bbo": True}, {"trades": True}, {"depth": 2}, {"orders": True}):
        write(tmp_path, raw, out=tmp_path / "all.parquet", **asked)
        result = write(tmp_path, raw, out=tmp_path / "two.parquet", symbols=["SYM2", "SYM4", "SYM9"], **asked)
        assert read(tmp_path / "two.parquet") == [row for row in read(tmp_path / "all.parquet") if row[1] in ("SYM2", "SYM4")]
        assert result["symbols_missing"].keys() == {"SYM9"}
        assert result["symbols_missing"]["SYM9"]


def test_a_locate_code_that_gets_another_symbol_is_that_symbols_from_there_on(tmp_path: Path) -> None:
    """Two days in one file may do so: what came before keeps its name, and who asked for one symbol gets nothing of the other."""
    now = iter(range(34_200 * 10**9, 57_600 * 10**9))

    def listed(stock: str) -> bytes:
        return random_message(itch.STOCK_DIRECTORY, random.Random(1), locate=1, timestamp=next(now), stock=stock)[0]

    def adds(first: int, stock: str) -> list[bytes]:
        return [
            itch.ADD_ORDER.encode(locate=1, tracking=0, timestamp=next(now), ref=ref, side="B", shares=1, stock=stock, px=10_000 + ref)
            for ref in range(first, first + 3)
        ]

    raw = frame(
        [listed("OLD"), *adds(1, "OLD"), listed("OLD"), *adds(4, "OLD"), listed("NEW"), *adds(7, "NEW"), listed("OLD"), *adds(10, "OLD")]
    )
    for asked in ({"bbo": True}, {"orders": True}, {"depth": 2}):
        write(tmp_path, raw, out=tmp_path / "all.parquet", **asked)
        assert [row[1] for row in read(tmp_path / "all.parquet")] == ["OLD"] * 6 + ["NEW"] * 3 + ["OLD"] * 3
        write(tmp_path, raw, out=tmp_path / "one.parquet", symbols=["OLD"], **asked)
        assert read(tmp_path / "one.parquet") == [row for row in read(tmp_path / "all.parquet") if row[1] == "OLD"]
    write(tmp_path, raw, lobster=tmp_path, symbols=["OLD"], date="2019-01-30")
    told, _ = lobster_files(tmp_path, "OLD", "2019-01-30", 10)
    assert [line.split(",")[2] for line in told] == [str(ref) for ref in (*range(1, 7), *range(10, 13))]


def test_times_count_from_the_epoch_where_the_day_is_given(tmp_path: Path) -> None:
    raw = flow(1, 200)
    since_midnight = write_and_read(tmp_path, raw)
    midnight = int(dt.datetime(2019, 1, 30, 5, tzinfo=dt.UTC).timestamp()) * 10**9
    assert write_and_read(tmp_path, raw, date="2019-01-30") == [(row[0] + midnight, *row[1:]) for row in since_midnight]
    assert write_and_read(tmp_path, raw, date="name", name="01302019.NASDAQ_ITCH50") == write_and_read(tmp_path, raw, date="2019-01-30")
    tokyo = midnight - 14 * 3_600 * 10**9
    assert write_and_read(tmp_path, raw, date="2019-01-30", tz="Asia/Tokyo")[0][0] == since_midnight[0][0] + tokyo
    summer = int(dt.datetime(2019, 7, 30, 4, tzinfo=dt.UTC).timestamp()) * 10**9
    assert midnight_ns(dt.date(2019, 7, 30), "America/New_York") == summer


def write_and_read(folder: Path, raw: bytes, **asked: Any) -> Rows:
    write(folder, raw, out=folder / "t.parquet", **asked)
    return read(folder / "t.parquet")


@pytest.mark.parametrize(
    ("name", "day"),
    [
        ("01302019.NASDAQ_ITCH50.gz", "2019-01-30"),
        ("S013019-v50.txt.gz", "2019-01-30"),
        ("20190730.BX_ITCH_50.gz", "2019-07-30"),
        ("aapl_20190130_093000.itch", "2019-01-30"),
        ("day-2024-02-29.itch", "2024-02-29"),
        ("day-2023-02-29.itch", None),
        ("120190130.itch", None),
        ("20191330.itch", None),
        ("day.itch", None),
        ("-", None),
    ],
)
def test_the_day_in_a_files_name(name: str, day: str | None) -> None:
    assert day_of_name(f"/somewhere/20200101/{name}") == (day and dt.date.fromisoformat(day))


@pytest.mark.parametrize("piece", [1, 37])
def test_pieces_of_any_size_give_the_same(tmp_path: Path, piece: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raw = flow(9, 60 * piece)
    expected = write_and_read(tmp_path, raw, orders=True)
    monkeypatch.setattr(book_input, "PIECE_BYTES", piece)
    assert write_and_read(tmp_path, raw, orders=True) == expected
    monkeypatch.setattr(book_input, "UNZIPPED_BYTES", 100)
    monkeypatch.setattr(book_input, "ZIPPED_BYTES", 10)
    assert write_and_read(tmp_path, gzip.compress(raw), orders=True) == expected


def test_many_rows_and_long_messages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Rows are handed over many times, and a message longer than many rows never waits for room for ever."""
    raw = make_day(40_000, live=10_000, symbols=10, seed=3).tobytes()
    messages = unframe(raw)
    for number in range(0, len(messages), 3_000):
        messages[number] += b"z" * (65_535 - len(messages[number]))
    raw = frame(messages)
    expected = write_and_read(tmp_path, raw, orders=True, seq=True)
    monkeypatch.setattr(book, "ROW_BYTES", 1)
    assert write_and_read(tmp_path, raw, orders=True, seq=True) == expected
    assert pq.ParquetFile(tmp_path / "t.parquet").num_row_groups > 2
    assert len(expected) > 30_000
    assert [row[-1] for row in expected] == sorted(row[-1] for row in expected)


@pytest.mark.parametrize("how", ["plain", "gzip", "two members", "padded with zeros"])
def test_gzip_is_read_as_it_comes(tmp_path: Path, how: str) -> None:
    raw = flow(10, 2_000)
    half = len(raw) // 2
    stored = {
        "plain": raw,
        "gzip": gzip.compress(raw),
        "two members": gzip.compress(raw[:half]) + gzip.compress(raw[half:]),
        "padded with zeros": gzip.compress(raw[:half]) + b"\0" * 300_000 + gzip.compress(raw[half:]) + b"\0" * 1_000_000,
    }[how]
    expected = with_names(peer_quotes(raw), raw)
    assert write_and_read(tmp_path, stored, seq=True) == expected
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.itch", "t.parquet"]


@pytest.mark.parametrize(("how", "said"), [("cut", "cut short"), ("flipped", "damaged"), ("trailing", "damaged")])
def test_a_broken_gzip_gives_what_came_before_and_is_told(tmp_path: Path, how: str, said: str) -> None:
    raw = flow(11, 20_000)
    zipped = bytearray(gzip.compress(raw))
    if how == "cut":
        del zipped[-len(zipped) // 3 :]
    elif how == "flipped":
        zipped[-6] ^= 0xFF
    else:
        zipped += b"hello, world"
    result = write(tmp_path, bytes(zipped), out=tmp_path / "t.parquet", seq=True)
    assert said in result["cut_short"]
    assert not result["whole"]
    expected = with_names(peer_quotes(raw), raw)
    got = read(tmp_path / "t.parquet")
    assert got == expected[: len(got)]
    # What a checksum is wrong about is not written: the last piece of it.
    least = {"cut": len(raw) // 2, "flipped": len(raw) - book_input.UNZIPPED_BYTES, "trailing": len(raw)}[how]
    assert result["messages"] >= len(unframe(raw[:least])) > 3_000


@pytest.mark.parametrize("cut", [1, 2, 3, 20])
def test_a_torn_end_is_told_and_what_was_whole_is_written(tmp_path: Path, cut: int) -> None:
    raw = flow(12, 500)
    torn = raw[:-cut]
    result = write(tmp_path, torn, out=tmp_path / "t.parquet", orders=True, seq=True)
    whole = frame(unframe(torn))
    assert result["left_over_bytes"] == len(torn) - len(whole) > 0
    assert read(tmp_path / "t.parquet") == write_and_read(tmp_path, whole, orders=True, seq=True)


@needs_data
def test_the_real_head_of_a_day_that_ends_inside_a_message(tmp_path: Path) -> None:
    result = write(tmp_path, HEAD_ONLY.read_bytes(), out=tmp_path / "t.parquet")
    assert (result["messages"], result["left_over_bytes"], result["whole"]) == (101, 15, False)
    assert pq.read_table(tmp_path / "t.parquet").num_rows == 0
    assert pq.read_schema(tmp_path / "t.parquet").names == ["ts_ns", "symbol", "bid_px", "bid_sz", "ask_px", "ask_sz"]


@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"", "expected NASDAQ ITCH 5.0, each message behind its length in 2 bytes, plain or gzip; there is no whole message"),
        (b"\0" * 100_000, "0 of its 50000 messages are of a known type"),
        (b"ts_ns,symbol,bid_px\n" * 10_000, "messages are of a known type and length"),
        (gzip.compress(b"time,price\n" * 100_000), "messages are of a known type and length"),
        (b"\xd4\xc3\xb2\xa1" + b"\0" * 100, "a packet capture"),
        (b"\x0a\x0d\x0d\x0a" + b"\0" * 100, "a packet capture"),
        (b"PK\x03\x04" + b"\0" * 100, "unzip -p"),
        (b"\x28\xb5\x2f\xfd" + b"\0" * 100, "zstd -dc"),
        (b"\x1f\x8b\x08", "the gzip stream is cut short"),
    ],
    ids=["empty", "zeros", "csv", "csv.gz", "pcap", "pcapng", "zip", "zstd", "gzip head"],
)
def test_what_is_no_itch_is_refused_and_nothing_is_written(tmp_path: Path, raw: bytes, said: str) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("as it was")
    with pytest.raises(ValueError, match=said):
        write(tmp_path, raw, out=out)
    assert out.read_text() == "as it was"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["day.itch", "t.parquet"]


@pytest.mark.parametrize("out", ["t.parquet", "t.csv"])
def test_random_bytes_end_in_a_sentence_or_in_a_file(tmp_path: Path, out: str) -> None:
    rng = np.random.default_rng(17)
    valid = np.frombuffer(flow(13, 3_000), np.uint8)
    for trial in range(40):
        raw = valid.copy() if trial % 2 else rng.integers(0, 256, rng.integers(1, 20_000), np.uint8)
        if trial % 2:
            places = rng.integers(0, len(raw), rng.integers(1, 200))
            raw[places] = rng.integers(0, 256, len(places))
        to: dict[str, Any] = {"out": tmp_path / out}
        asked: list[dict[str, Any]] = [to | {"bbo": True}, to | {"trades": True}, to | {"depth": 3}, to | {"orders": True}]
        asked.append({"lobster": tmp_path, "symbols": ["SYM1"], "date": "2019-01-30"})
        try:
            result = write(tmp_path, raw.tobytes(), **asked[trial // 2 % 5])
            assert sum(result["messages_by_type"].values()) == result["messages"] == len(unframe(raw.tobytes()))
            if out == "t.parquet" and trial // 2 % 5 < 4:
                pq.read_table(tmp_path / out).validate(full=True)
        except ValueError as error:
            assert "expected" in str(error)


def test_more_live_orders_than_there_is_room_for(tmp_path: Path) -> None:
    raw = flow(14)
    for asked in ({}, {"lobster": tmp_path, "symbols": ["SYM1"], "date": "2019-01-30"}):
        asked = asked or {"out": tmp_path / "t.parquet"}
        with pytest.raises(ValueError, match="give --orders-max 40"):
            write(tmp_path, raw, orders_max=20, **asked)
    assert [path.name for path in tmp_path.iterdir()] == ["day.itch"]


def test_several_tables_at_once_are_those_alone(tmp_path: Path) -> None:
    raw = flow(15)
    write(tmp_path, raw, out=tmp_path / "all.parquet", bbo=True, trades=True, depth=3, orders=True)
    for asked in ({"bbo": True}, {"trades": True}, {"depth": 3}, {"orders": True}):
        write(tmp_path, raw, out=tmp_path / "one.parquet", **asked)
        assert read(tmp_path / f"all.{next(iter(asked))}.parquet") == read(tmp_path / "one.parquet")


def command(*arguments: str, prefix: tuple[str, ...] = (), **more: Any) -> subprocess.CompletedProcess[bytes]:
    ours = [*prefix, sys.executable, "-m", "tools.cli", "book", *arguments]
    return subprocess.run(ours, capture_output=True, cwd=ROOT, timeout=PATIENCE_S, **more)


def test_the_command_reads_standard_input_and_writes_standard_output(tmp_path: Path) -> None:
    raw = flow(16, 1_000)
    write(tmp_path, raw, out=tmp_path / "t.csv")
    for given in (raw, gzip.compress(raw)):
        done = command("-", input=given)
        assert done.returncode == 0, done.stderr
        assert done.stdout.decode() == (tmp_path / "t.csv").read_text()
        assert b"rows of bbo: standard output" in done.stderr


def test_what_is_no_itch_puts_nothing_on_standard_output() -> None:
    done = command("-", input=b"\0" * 1_000)
    assert (done.returncode, done.stdout) == (2, b"")


def test_a_pipe_whose_reader_has_enough_ends_it_quietly(tmp_path: Path) -> None:
    (tmp_path / "day.itch").write_bytes(make_day(200_000, symbols=5).tobytes())
    line = f"{sys.executable} -m tools.cli book {tmp_path}/day.itch --orders | head -2; echo ${{PIPESTATUS[0]}}"
    done = subprocess.run(["bash", "-c", line], capture_output=True, cwd=ROOT, timeout=PATIENCE_S, text=True)
    assert done.stdout.splitlines()[0].startswith("ts_ns,symbol,kind")
    assert done.stdout.splitlines()[-1] == "0"
    assert done.stderr == ""


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["nothing.itch"], 2, "nothing.itch: No such file"),
        (["."], 2, "it is a directory"),
        (["day.itch", "--out", "t.txt"], 2, "expected a name that ends in .parquet or .csv"),
        (["day.itch", "--out", "no/t.csv"], 2, "does not exist; make it first"),
        (["day.itch", "--depth", "51", "--out", "t.csv"], 2, "expected 1 to 50"),
        (["day.itch", "--trades", "--orders"], 2, "name files with --out"),
        (["day.itch", "--lobster", "."], 2, "name them with --symbols"),
        (["day.itch", "--lobster", ".", "--symbols", "SYM1"], 2, "give --date"),
        (["day.itch", "--lobster", ".", "--symbols", "SYM1", "--out", "t.csv"], 2, "give no --out"),
        (["day.itch", "--lobster", "no", "--symbols", "SYM1", "--date", "2019-01-30"], 2, "there is no such folder; make it first"),
        (["day.csv", "--out", "day.csv"], 2, "it is the file that is read"),
        (["day.itch", "--date", "30.1.2019"], 2, "expected YYYY-MM-DD"),
        (["day.itch", "--date", "name"], 2, "does not say its day"),
        (["day.itch", "--date", "2019-01-30", "--tz", "Mars"], 2, "expected a time zone"),
        (["day.itch", "--symbols", "TOOLONGNAME"], 2, "expected 1 to 8 ASCII"),
        (["day.itch", "--json", "-"], 2, "name a file for one of the two"),
        (["plain.gz"], 2, "expected gzip, as its name says"),
        (["day.itch", "--symbols", "SYM1,sym2", "--out", "t.csv"], 1, "sym2 is not in the file's directory; did you mean SYM2"),
        (["torn.itch", "--out", "t.csv"], 1, "it ends inside a message, 3 bytes are left over"),
        (["day.itch", "--out", "/proc/t.csv"], 3, "cannot be written"),
        (["day.itch", "--out", "full.csv"], 3, "no space left there"),
        (["day.itch", "--out", "full.parquet"], 3, "no space left there"),
    ],
)
def test_what_goes_wrong_is_one_sentence(
    tmp_path: Path, arguments: list[str], code: int, said: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    raw = flow(18, 300)
    (tmp_path / "day.itch").write_bytes(raw)
    (tmp_path / "plain.gz").write_bytes(raw)
    (tmp_path / "torn.itch").write_bytes(raw + b"\0\x24A")
    (tmp_path / "day.csv").write_bytes(raw)
    for name in ("full.csv", "full.parquet"):
        (tmp_path / name).symlink_to("/dev/full")
    before = set(tmp_path.iterdir())
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(cli.main, ["book", *arguments])
    assert done.exit_code == code, done.output
    assert said in done.stderr
    assert len(done.stderr.splitlines()) <= (1 if code > 1 else 3)
    assert set(tmp_path.iterdir()) - before == ({tmp_path / "t.csv"} if code == 1 else set())


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_interrupted_it_leaves_nothing_behind(tmp_path: Path, how: signal.Signals) -> None:
    out = tmp_path / "t.parquet"
    out.write_text("as it was")
    ours = [sys.executable, "-m", "tools.cli", "book", "-", "--out", str(out), "--orders"]
    child = subprocess.Popen(ours, stdin=subprocess.PIPE, stderr=subprocess.PIPE, cwd=ROOT)
    assert child.stdin is not None and child.stderr is not None
    # It reads ahead a few pieces and no more: when so much has been taken, the first rows have been written.
    child.stdin.write(make_day(600_000, symbols=5).tobytes())
    child.stdin.flush()
    assert [path for path in tmp_path.iterdir() if path.name.endswith(".part")]
    child.send_signal(how)
    # Its input stays open, and idle: whoever waits for more of it must not keep the command from ending.
    assert child.wait(timeout=PATIENCE_S) == 1
    child.stdin.close()
    with child.stderr as said:
        assert said.read().decode() == "tickpath: interrupted; nothing was written\n"
    assert [path.name for path in tmp_path.iterdir()] == ["t.parquet"]
    assert out.read_text() == "as it was"


@pytest.mark.parametrize("kind", ["parquet", "csv", "lobster"])
def test_a_full_disk_leaves_nothing_behind(tmp_path: Path, kind: str) -> None:
    disk = tmp_path / "disk"
    disk.mkdir()
    raw = make_day(100_000, symbols=3).tobytes()

    def work() -> None:
        where = (
            {"lobster": disk, "symbols": ["S1"], "date": "2019-01-30"} if kind == "lobster" else {"out": disk / f"t.{kind}", "orders": True}
        )
        with pytest.raises(OutputError, match="no space left there; nothing was written"):
            write(tmp_path, raw, **where)
        assert list(disk.iterdir()) == []

    in_private_mounts(f"mount -t tmpfs -o size=256k tmpfs {disk}", work=work)


def test_the_summary_for_a_script(tmp_path: Path) -> None:
    (tmp_path / "day.itch").write_bytes(
        flow(19, 500) + frame([b"?", b"D", itch.ORDER_DELETE.encode(locate=1, tracking=0, timestamp=0, ref=1 << 50)])
    )
    done = command(f"{tmp_path}/day.itch", "--out", f"{tmp_path}/t.csv", "--json", "-")
    result = json.loads(done.stdout)
    assert done.returncode == 0
    assert (result["messages"], result["unknown_types"], result["malformed"], result["unknown_orders"]) == (509, 1, 1, 1)
    assert result["tables"]["bbo"]["files"] == [f"{tmp_path}/t.csv"]
    assert result["tables"]["bbo"]["rows"] == len((tmp_path / "t.csv").read_text().splitlines()) - 1
    assert result["whole"] is True
    for said in ("1 messages of types", "1 messages do not have the length", "1 messages are about orders that were never added"):
        assert said in done.stderr.decode()


MEASURED = """
import resource, sys
from pathlib import Path
from rich.console import Console
from tools.book import Options, write_book
write_book(Options(file=sys.argv[1], out=Path(sys.argv[2]), orders=True, bbo=True, orders_max=20_000), Console(stderr=True))
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)
"""


def test_memory_does_not_grow_with_the_file(tmp_path: Path) -> None:
    """Four times the messages and rows, as many live orders."""
    used = []
    for copies in (2, 8):
        path = tmp_path / "day.itch"
        day = make_day(200_000, live=0, symbols=20, seed=2)
        path.write_bytes(np.tile(day, copies).tobytes())
        run = subprocess.run(
            [
                sys.executable,
                "-c",
                MEASURED,
                str(path),
                str(tmp_path / "t.parquet"),
            ],
            capture_output=True,
            cwd=ROOT,
            timeout=PATIENCE_S,
            check=True,
        )
        used.append(int(run.stdout))
    assert used[1] < used[0] * 1.15, used


def test_the_tables_are_written_while_the_file_is_read(tmp_path: Path) -> None:
    """Standard input still open, and rows of what came so far already beside the name."""
    out = tmp_path / "t.csv"
    ours = [sys.executable, "-m", "tools.cli", "book", "-", "--out", str(out), "--orders"]
    with subprocess.Popen(ours, stdin=subprocess.PIPE, stderr=subprocess.DEVNULL, cwd=ROOT) as child:
        assert child.stdin is not None
        child.stdin.write(make_day(1_200_000, symbols=5).tobytes())
        child.stdin.flush()
        deadline = time.monotonic() + PATIENCE_S
        while not any(path.stat().st_size > 1_000_000 for path in tmp_path.glob(".*.part")):
            assert time.monotonic() < deadline
            os.sched_yield()
        assert not out.exists()
        child.stdin.close()
        assert child.wait(timeout=PATIENCE_S) == 0
    assert [path.name for path in tmp_path.iterdir()] == ["t.csv"]
