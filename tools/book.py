"""`tickpath book`: what happened to the books of an ITCH day, as tables in files.

    file ─▶ unzip thread ─▶ pieces ─▶ kernel: books, rows ─▶ writer thread ─▶ Parquet, CSV, LOBSTER

Each works on the piece or the rows that the one before has finished. All memory is made beforehand: the pieces, ROW_BYTES of rows
twice for each table, and the book, which grows with the orders that live at once (memory_bytes).
"""

import datetime as dt
import difflib
import queue
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numba.core import event
from rich.console import Console

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.records import records
from engine.layout import FEED_STATS, INSTRUMENTS_MAX, pack_symbol
from tools.book_day import MARKET_TZ, day_of, day_of_name, midnight_ns
from tools.book_input import HEAD_BYTES, BookInput, Piece
from tools.book_lobster import CLOSE_MS, NS_PER_MS, OPEN_MS, LobsterFiles
from tools.book_output import STDOUT, CsvFile, ParquetFile, RowFile, Writer
from tools.book_tables import BBO_TABLE, ORDERS_TABLE, TRADES_TABLE, Names, Table, depth_table
from tools.hot.book import (
    ALL,
    ASKED,
    FROM_NS,
    LEVEL_WORDS,
    LEVELS,
    LOBSTER,
    LOBSTER_HEAD,
    RENAMING,
    ROW_BYTES_MIN,
    ROWS,
    TAPE_WORDS,
    TO_NS,
    Tape,
    walk,
)

LEVELS_MOST = 50
LOBSTER_LEVELS = 10
# An add with its length has 38 bytes, so a file cannot have more live orders than its size says; what gzip makes of a real day is
# a third of it. A full day of NASDAQ has 2 to 4 million orders live at once.
ADD_BYTES = 38
UNZIPPED_MOST = 4
ORDERS_LEAST, ORDERS_MOST = 1 << 12, 1 << 23
# Rows of a table are handed to the writer when so many bytes of them are there, or when the longest message might not fit any more.
ROW_BYTES = 16 << 20
ROOM_LEAST = HEAD_BYTES // ROW_BYTES_MIN + 1
# Rows being filled, and rows being written.
BUFFERS = 2
PROGRESS_AFTER_S = 0.5


@dataclass(frozen=True)
class Options:
    """What was asked for; as the command line has it."""

    file: str
    out: Path | None = None
    bbo: bool = False
    trades: bool = False
    depth: int | None = None
    orders: bool = False
    lobster: Path | None = None
    symbols: list[str] = field(default_factory=list)
    date: str | None = None
    tz: str = MARKET_TZ
    seq: bool = False
    orders_max: int | None = None


@dataclass
class Output:
    """One table, its file, the rows that the kernel fills and those that the writer may give back."""

    table: Table
    file: RowFile
    rows: np.ndarray
    free: "queue.Queue[np.ndarray]"


def write_book(options: Options, console: Console, interrupted: Callable[[], bool] = lambda: False) -> dict[str, Any]:
    """Read the file, write the tables: what there was to see, as `tickpath book --json` gives it.

    ValueError or OSError for what the user can mend, OutputError where writing failed. Nothing is left under the names asked for
    unless all of it is whole. `interrupted` is asked now and then: an exception that a signal raises is lost where it meets numba's
    callbacks while a kernel is compiled.
    """
    began = time.perf_counter()
    tables = tables_of(options)
    midnight = midnight_of(options)
    symbols = np.array([packed(symbol) for symbol in options.symbols], np.int64)
    source = BookInput(options.file)
    outputs: list[Output] = []
    writer = Writer()
    try:
        open_outputs(options, tables, midnight, outputs)
        tape = make_tape(options, source, tables, symbols)
        with event.install_listener("numba:compile", Compiling(console)):
            left_over = run(tape, source, outputs, writer, console, interrupted)
        result = summary(options, source, tape, left_over)
        writer.join()
        metadata = {f"tickpath.{name}": str(result[name]) for name in ("file", "messages", "ts_ns", "px")}
        for output in outputs:
            output.file.finish(metadata, set(result["symbols_missing"]))
        stop_if(interrupted)
        for output in outputs:
            output.file.commit()
    except BaseException:
        writer.abandon()
        for output in outputs:
            output.file.abort()
        raise
    finally:
        source.close()
    result["tables"] = {output.table.name: {"rows": output.file.rows, "files": list(map(str, output.file.paths()))} for output in outputs}
    result["seconds"] = round(time.perf_counter() - began, 3)
    return result


def tables_of(options: Options) -> list[Table]:
    """The tables asked for: best bid and offer where none is named. ValueError where they contradict each other."""
    if options.depth is not None and not 1 <= options.depth <= LEVELS_MOST:
        raise ValueError(f"--depth={options.depth}: expected 1 to {LEVELS_MOST} levels")
    if options.lobster is not None:
        if options.out is not None or options.bbo or options.trades or options.orders:
            raise ValueError("--lobster writes its own two files for each symbol: give no --out, --bbo, --trades or --orders with it")
        if not options.symbols:
            raise ValueError("--lobster writes two files for each symbol: name them with --symbols")
        levels = options.depth or LOBSTER_LEVELS
        return [Table("lobster", LOBSTER, LOBSTER_HEAD + LEVEL_WORDS * levels, [])]
    tables = [BBO_TABLE] if options.bbo or not (options.trades or options.orders or options.depth) else []
    tables += [TRADES_TABLE] * options.trades + ([depth_table(options.depth)] if options.depth else []) + [ORDERS_TABLE] * options.orders
    if len(tables) > 1 and (options.out is None or options.out == STDOUT):
        raise ValueError(f"{len(tables)} tables do not go to one standard output: name files with --out, or ask for one table")
    return tables


def midnight_of(options: Options) -> int:
    """What ts_ns counts from, in nanoseconds since the epoch; 0: the market's midnight itself."""
    day = day_of(options.date, options.file)
    return 0 if day is None else midnight_ns(day, options.tz)


def open_outputs(options: Options, tables: Iterable[Table], midnight: int, outputs: list[Output]) -> None:
    """Make every file, before anything is read. One table goes to the name given, several each to that name with their own in it."""
    tables = list(tables)
    out = options.out or STDOUT
    if out != STDOUT and out.suffix not in (".parquet", ".csv"):
        raise ValueError(f"--out={out}: expected a name that ends in .parquet or .csv")
    if out != STDOUT and out.exists() and options.file != "-" and out.samefile(options.file):
        raise ValueError(f"--out={out}: it is the file that is read")
    if options.lobster is not None and not options.lobster.is_dir():
        raise ValueError(f"--lobster={options.lobster}: there is no such folder; make it first")
    kind = ParquetFile if out.suffix == ".parquet" else CsvFile
    for table in tables:
        file: RowFile
        if options.lobster is not None:
            file = LobsterFiles(options.lobster, options.symbols, options.depth or LOBSTER_LEVELS, lobster_day(options))
        else:
            path = out if len(tables) == 1 else out.with_name(f"{out.stem}.{table.name}{out.suffix}")
            file = kind(path, table, midnight_ns=midnight, seq=options.seq)
        capacity = max(ROW_BYTES // (8 * table.words), 2 * ROOM_LEAST)
        free: queue.Queue[np.ndarray] = queue.Queue()
        for _ in range(BUFFERS):
            free.put(np.empty((capacity, table.words), np.int64))
        outputs.append(Output(table, file, free.get(), free))


def lobster_day(options: Options) -> dt.date:
    day = day_of(options.date, options.file) or day_of_name(options.file)
    if day is None:
        raise ValueError(f"--lobster: its files carry the day in their names, and {options.file} does not say it; give --date YYYY-MM-DD")
    return day


def orders_max_of(options: Options, source: BookInput) -> int:
    if options.orders_max is not None:
        return options.orders_max
    if not source.total_bytes:
        return ORDERS_MOST
    return min(max(source.total_bytes * (UNZIPPED_MOST if source.zipped else 1) // ADD_BYTES, ORDERS_LEAST), ORDERS_MOST)


def make_tape(options: Options, source: BookInput, tables: Iterable[Table], symbols: np.ndarray) -> Tape:
    """An empty book and what the walk writes down; the tables not asked for get a row that is never written."""
    levels = options.depth or (LOBSTER_LEVELS if options.lobster is not None else 0)
    words = np.zeros(TAPE_WORDS, np.int64)
    words[ASKED] = sum(1 << table.number for table in tables)
    words[LEVELS] = levels
    words[ALL] = not options.symbols
    words[FROM_NS], words[TO_NS] = OPEN_MS * NS_PER_MS, CLOSE_MS * NS_PER_MS
    nothing = np.zeros((1, 1), np.int64)
    orders_max = orders_max_of(options, source)
    return Tape(
        decoder=make_decoder(
            orders_max=orders_max, levels_max=orders_max, instruments_max=INSTRUMENTS_MAX, stats=records(1, FEED_STATS)
        ),
        words=words,
        chosen=np.zeros(INSTRUMENTS_MAX, np.uint8),
        symbols=symbols,
        found=np.zeros(len(options.symbols), np.uint8),
        bests=np.zeros((INSTRUMENTS_MAX, LEVEL_WORDS), np.int64),
        depths=np.zeros((INSTRUMENTS_MAX if levels else 1, LEVEL_WORDS * levels), np.int64),
        bbo=nothing,
        trades=nothing,
        depth=nothing,
        orders=nothing,
        lobster=nothing,
    )  # fmt: skip


def packed(symbol: str) -> int:
    try:
        return pack_symbol(symbol)
    except (ValueError, UnicodeEncodeError):
        raise ValueError(f"--symbols: symbol={symbol!r}: expected 1 to 8 ASCII characters, several separated by commas") from None


def stop_if(interrupted: Callable[[], bool]) -> None:
    if interrupted():
        raise KeyboardInterrupt


def run(
    tape: Tape, source: BookInput, outputs: list[Output], writer: Writer, console: Console, interrupted: Callable[[], bool]
) -> int:  # fmt: skip
    """All of the file, through the kernel, to the writer: bytes at its end that are not a whole message."""
    for output in outputs:
        tape = with_rows(tape, output)
    progress = Progress(source, console)
    rest = np.empty(0, np.uint8)
    try:
        while (piece := source.take()) is not None:
            at = HEAD_BYTES - len(rest)
            piece.buffer[at:HEAD_BYTES] = rest
            tape, at = walk_piece(tape, piece, at, outputs, writer)
            rest = piece.buffer[at : HEAD_BYTES + piece.size].copy()
            source.give_back(piece)
            check(tape, source)
            stop_if(interrupted)
            progress.show(int(tape.decoder.stats[0].messages))
    finally:
        progress.close()
    check(tape, source, ended=True)
    for output in outputs:
        hand_over(tape, output, writer)
    return len(rest)


def walk_piece(tape: Tape, piece: Piece, at: int, outputs: list[Output], writer: Writer) -> tuple[Tape, int]:
    end = HEAD_BYTES + piece.size
    while True:
        room = min(len(output.rows) - int(tape.words[ROWS + output.table.number]) for output in outputs)
        stop = min(end, at + room * ROW_BYTES_MIN)
        at = walk(tape, piece.buffer, at, stop)
        renaming = tape.words[RENAMING] != 0
        for output in outputs:
            if renaming or len(output.rows) - tape.words[ROWS + output.table.number] < ROOM_LEAST:
                tape = hand_over(tape, output, writer)
        if stop == end and not renaming:
            return tape, at


def hand_over(tape: Tape, output: Output, writer: Writer) -> Tape:
    """Give the rows of a table to the writer, and the kernel others to fill."""
    count = int(tape.words[ROWS + output.table.number])
    tape.words[ROWS + output.table.number] = 0
    filled = output.rows
    if count == 0:
        return tape

    def write(names: Names) -> None:
        output.file.write(filled[:count], names)
        output.free.put(filled)

    writer.put(partial(write, Names(tape.decoder.states["symbol"].copy())))
    while True:
        try:
            output.rows = output.free.get(timeout=0.1)
        except queue.Empty:
            if writer.error is not None:
                raise writer.error from None
            continue
        return with_rows(tape, output)


def with_rows(tape: Tape, output: Output) -> Tape:
    fields: dict[str, Any] = {output.table.name: output.rows}
    return tape._replace(**fields)


def recognized(decoder: Decoder) -> int:
    """Messages of a type and length of the specification."""
    stats = decoder.stats[0]
    return int(stats.messages - stats.unknown_types - stats.malformed)


def check(tape: Tape, source: BookInput, *, ended: bool = False) -> None:
    """ValueError where this is not ITCH, or the book has no room for it."""
    stats = tape.decoder.stats[0]
    known, messages = recognized(tape.decoder), int(stats.messages)
    if known * 2 < messages or (ended and not messages):
        told = f"{source.cut_short}; " if source.cut_short else ""
        raise ValueError(
            f"{source.name}: {told}expected NASDAQ ITCH 5.0, each message behind its length in 2 bytes, plain or gzip; "
            + (f"read so, {known} of its {messages} messages are of a known type and length" if messages else "there is no whole message")
        )
    if stats.capacity_drops:
        orders_max = len(tape.decoder.book.orders) - 1
        raise ValueError(f"--orders-max={orders_max}: more orders than that are live at once; give --orders-max {2 * orders_max}")


def summary(options: Options, source: BookInput, tape: Tape, left_over: int) -> dict[str, Any]:
    """Everything that a person or a script should know about what was read."""
    stats, states, counts = tape.decoder.stats[0], tape.decoder.states, tape.decoder.counts
    known = {str(name) for name in Names(states["symbol"]).all()}
    missing = [symbol for symbol, found in zip(options.symbols, tape.found, strict=True) if not found]
    return {
        "file": source.name,
        "messages": int(stats.messages),
        "messages_by_type": {chr(code): int(counts[code]) for code in np.flatnonzero(counts)},
        "unknown_types": int(stats.unknown_types),
        "malformed": int(stats.malformed),
        "unknown_orders": int(stats.unknown_orders),
        "duplicate_orders": int(stats.duplicate_orders),
        "left_over_bytes": left_over,
        "cut_short": source.cut_short,
        "symbols": len(known),
        "symbols_missing": {symbol: difflib.get_close_matches(symbol.upper(), known, 3) for symbol in missing},
        "ts_ns": f"nanoseconds since {'the epoch' if options.date else 'midnight, ' + MARKET_TZ}",
        "px": "decimals of the venue's scale, 1/10000 dollars",
        "whole": not left_over and not source.cut_short,
    }


class Compiling(event.Listener):
    """Says once why nothing seems to happen."""

    def __init__(self, console: Console) -> None:
        self._console: Console | None = console

    def on_start(self, event: event.Event) -> None:
        if self._console is not None:
            self._console.print("compiling kernels: this takes up to a minute, the first time only")
            self._console = None

    def on_end(self, event: event.Event) -> None: ...


class Progress:
    """A bar on a terminal, once it takes longer than a moment; nothing elsewhere."""

    def __init__(self, source: BookInput, console: Console) -> None:
        self._source, self._console = source, console
        self._due = time.perf_counter() + PROGRESS_AFTER_S
        self._bar: Any = None

    def show(self, messages: int) -> None:
        if not self._console.is_terminal or time.perf_counter() < self._due:
            return
        if self._bar is None:
            from rich import progress

            columns = [progress.TextColumn("{task.description}"), progress.BarColumn(), progress.DownloadColumn()]
            columns += [progress.TimeRemainingColumn(), progress.TextColumn("{task.fields[messages]:,} messages")]
            self._bar = progress.Progress(*columns, console=self._console, transient=True)
            self._task = self._bar.add_task(Path(self._source.name).name, total=self._source.total_bytes or None, messages=0)
            self._bar.start()
        self._bar.update(self._task, completed=self._source.read_bytes, messages=messages)

    def close(self) -> None:
        if self._bar is not None:
            self._bar.stop()
