"""An ITCH day as gzip to Parquet, the whole process from its start to its end: `tickpath book` beside itch-book's own command.

    day.itch.gz ──▶ tickpath book day.itch.gz --out bbo.parquet                                       ours
                ──▶ python -m itch_book convert day.itch.gz FOLDER --tables bbo --no-md5              peer, asked for no more than we write

Runs alternate, after one of each that does not count (kernels are compiled, the file is in the page cache). Wall time is what a user
waits for; CPU time says more where others use the machine too. Afterwards every row of both must be equal, or the exit code is 1.
"""

import datetime as dt
import gzip
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from importlib.metadata import version
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
import pyarrow.parquet as pq

from perf.bench_book import generated, loaded, machine
from tools.book_day import MARKET_TZ, midnight_ns

ROOT = Path(__file__).resolve().parent.parent
DAY = "2019-01-30"
# What NASDAQ's own files are compressed with.
GZIP_LEVEL = 6
EXIT_DIFFERENT = 1


@click.command(
    help="Time `tickpath book` on ITCHFILE (plain or gzip), or on a generated day, beside itch-book's command on the same gzip file."
)
@click.argument("itchfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option("--generate", type=click.IntRange(min=10_000), help="Messages of a seeded synthetic day, instead of a file.")
@click.option("--live", type=click.IntRange(min=0), help="Orders that rest at the end of the generated day.  [default: 60 %]")
@click.option("--symbols", type=click.IntRange(1, 65_535), default=5_000, show_default=True, help="Symbols of the generated day.")
@click.option("--seed", default=1, show_default=True, help="Seed of the generated day.")
@click.option("--grow", "copies", type=click.IntRange(min=1), help="Copies of the file, of other instruments.")
@click.option("--runs", type=click.IntRange(min=1), default=5, show_default=True, help="Timed runs of each.")
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="Where figures go; - is stdout."
)
def main(
    itchfile: Path | None, generate: int | None, live: int | None, symbols: int, seed: int, copies: int | None, runs: int,
    json_path: Path | None,
) -> None:  # fmt: skip
    if (itchfile is None) == (generate is None):
        raise click.UsageError("give an ITCH file or --generate MESSAGES")
    with tempfile.TemporaryDirectory() as folder:
        where = Path(folder)
        # In a process of its own: Linux counts the memory of who starts a process as that process's.
        with ProcessPoolExecutor(1) as pool:
            try:
                figures = pool.submit(prepare, where, itchfile, copies, generate, live, symbols, seed).result()
            except (OSError, EOFError, ValueError) as error:
                raise click.UsageError(str(error)) from None
        figures |= measure(where, runs)
        figures["rows"], figures["differences"] = compare(where / "bbo.parquet", where / "peer" / "bbo.parquet")
        figures["parquet_bytes"] = {
            "ours": (where / "bbo.parquet").stat().st_size, "peer": (where / "peer" / "bbo.parquet").stat().st_size
        }  # fmt: skip
    figures["peer_is"] = f"itch-book {version('itch-book')}"
    figures["machine"] = machine()
    show(figures, to_error=str(json_path) == "-")
    if json_path is not None:
        text = json.dumps(figures, indent=2) + "\n"
        sys.stdout.write(text) if str(json_path) == "-" else json_path.write_text(text)
    if figures["differences"]:
        sys.exit(EXIT_DIFFERENT)


def prepare(
    where: Path, itchfile: Path | None, copies: int | None, generate: int | None, live: int | None, symbols: int, seed: int
) -> dict[str, Any]:
    """Write day.itch.gz: what it is."""
    given = generated(generate, live, symbols, seed) if generate else loaded(itchfile, copies)
    path = where / "day.itch.gz"
    with gzip.open(path, "wb", compresslevel=GZIP_LEVEL) as file:
        file.write(given.day.tobytes())
    return {"source": given.source, "messages": given.messages, "bytes": len(given.day), "gzip_bytes": path.stat().st_size}


def measure(where: Path, runs: int) -> dict[str, Any]:
    day = str(where / "day.itch.gz")
    ours = ["-m", "tools.cli", "book", day, "--out", str(where / "bbo.parquet")]
    peer = ["-m", "itch_book", "convert", day, str(where / "peer"), "--tables", "bbo", "--no-md5", "--date", DAY]
    timed: dict[str, list[tuple[float, float, int]]] = {"ours": [], "peer": []}
    for number in range(runs + 1):
        for name, arguments in (("ours", ours), ("peer", peer)):
            result = timed_run(arguments)
            if number:
                timed[name].append(result)
    median = {
        name: {what: statistics.median(run[at] for run in each) for at, what in enumerate(("wall_s", "cpu_s", "rss_mb"))}
        for name, each in timed.items()
    }
    ratios = [ours[0] / peer[0] for ours, peer in zip(timed["ours"], timed["peer"], strict=True)]
    return {
        **median,
        "wall_ratio": round(statistics.median(ratios), 3),
        "wall_ratio_range": [round(min(ratios), 3), round(max(ratios), 3)],
        "cpu_ratio": round(median["ours"]["cpu_s"] / median["peer"]["cpu_s"], 3),
        "runs": {name: [[round(value, 3) for value in run] for run in each] for name, each in timed.items()},
    }


def timed_run(arguments: list[str]) -> tuple[float, float, int]:
    """Wall seconds, CPU seconds and the most memory (MB) of a whole Python process."""
    began = time.perf_counter()
    child = subprocess.Popen([sys.executable, *arguments], cwd=ROOT, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
    assert child.stderr is not None
    said = child.stderr.read()
    _, status, usage = os.wait4(child.pid, 0)
    wall = time.perf_counter() - began
    child.returncode = os.waitstatus_to_exitcode(status)
    if child.returncode != 0:
        raise click.ClickException(f"{' '.join(arguments)} ended with {child.returncode}: {said.decode(errors='replace')}")
    return wall, usage.ru_utime + usage.ru_stime, usage.ru_maxrss // 1024


def compare(ours: Path, peer: Path) -> tuple[int, list[str]]:
    """Rows, and the columns in which the two files differ: times, symbols, prices and sizes of every row, in the order of the file."""
    table, theirs = pq.read_table(ours), pq.read_table(peer)
    kept = changed(theirs)
    if table.num_rows != len(kept):
        return table.num_rows, [f"rows: ours={table.num_rows}, itch-book {len(kept)}"]
    differences = []
    midnight = midnight_ns(dt.date.fromisoformat(DAY), MARKET_TZ)
    if (table["ts_ns"].to_numpy() + midnight != theirs["ts_event"].to_numpy().view(np.int64)[kept]).any():
        differences.append("ts_ns")
    if table["symbol"].to_pylist() != theirs["symbol"].cast("string").take(kept).to_pylist():
        differences.append("symbol")
    for name in ("bid_px", "ask_px"):
        # Theirs are floating-point dollars and not a number for nothing.
        dollars = np.nan_to_num(theirs[name].to_numpy()[kept])
        exact = table[name].cast("float64").fill_null(0.0).to_numpy()
        if (np.rint(exact * 10_000) != np.rint(dollars * 10_000)).any():
            differences.append(name)
    for name in ("bid_sz", "ask_sz"):
        if (table[name].fill_null(0).to_numpy() != theirs[name].to_numpy()[kept]).any():
            differences.append(name)
    return table.num_rows, differences


def changed(theirs: Any) -> np.ndarray:
    """The rows of itch-book's table in which a price or size differs from the row before it of its instrument: it also has those in
    which only the number of orders does."""
    locates = theirs["locate"].to_numpy()
    order = np.argsort(locates, kind="stable")
    keep = np.ones(len(order), bool)
    same = locates[order][1:] == locates[order][:-1]
    for name in ("bid_px", "bid_sz", "ask_px", "ask_sz"):
        values = np.nan_to_num(theirs[name].to_numpy())[order]
        same &= values[1:] == values[:-1]
    keep[1:] = ~same
    rows: np.ndarray = np.sort(order[keep])
    return rows


def show(figures: dict[str, Any], *, to_error: bool) -> None:
    lines = [f"{figures['messages']:,} messages, {figures['bytes']:,} bytes, {figures['gzip_bytes']:,} as gzip: {figures['source']}"]
    lines.append(f"{'':12}{'wall s':>10}{'CPU s':>10}{'RSS MB':>10}{'Parquet MB':>12}")
    for name, label in (("ours", "tickpath"), ("peer", "itch-book")):
        each, size = figures[name], figures["parquet_bytes"][name] / 1e6
        lines.append(f"{label:12}{each['wall_s']:>10.2f}{each['cpu_s']:>10.2f}{each['rss_mb']:>10.0f}{size:>12.1f}")
    low, high = figures["wall_ratio_range"]
    lines.append(f"wall time, ours to theirs: {figures['wall_ratio']:.2f} ({low:.2f} to {high:.2f}); CPU time {figures['cpu_ratio']:.2f}")
    lines.append(
        f"{figures['rows']:,} rows: {'equal' if not figures['differences'] else 'DIFFERENT in ' + ', '.join(figures['differences'])}"
    )
    where = figures["machine"]
    lines.append(f"{where['cpu']}, {where['cpus']} CPUs, kernel {where['kernel']}, load {where['load_average']}")
    click.echo("\n".join(lines), err=to_error)


if __name__ == "__main__":
    main()
