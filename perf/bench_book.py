"""Decode and full order book of every symbol, from memory, on one core: tickpath beside the C++ package itch-book.

    ITCH bytes in memory ──▶ decode every field ──▶ book by order, levels, best bid and offer          ours: engine.feed.hot.replay
                         ──▶ the same                                                                   peer: itch_book._core.Session

Passes alternate, each on a fresh book, timed in CPU seconds of the one pinned thread; figures are medians. After them the best bid
and offer of every symbol, price, size and number of orders, must be equal, or the exit code is 1. A file too short to measure is
measured as a row of copies (perf/itch_grow.py), and once more as it is.
"""

import gzip
import json
import os
import platform
import statistics
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np
from itch_book._core import Session

from engine.book.hot.book import best_level
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.hot.replay import INTERRUPTED, TICKS, TIMED, decode_only, look_ticks, replay, replay_timed, walk_frames
from engine.feed.pcap import GZIP_MAGIC
from engine.feed.records import records
from engine.layout import BUY, FEED_STATS, INSTRUMENTS_MAX, SELL
from engine.runtime.clock import calibrate
from perf.itch_day import make_day
from perf.itch_grow import grow

SHORT_MESSAGES = 1_000_000
GROWN_MESSAGES = 2_000_000
# More live orders than any day of a venue has had at once; a shorter input needs no more than it has messages.
ORDERS_MAX = 1 << 24
PEER_CHUNK_BYTES = 8 << 20
COUNTS = ("malformed", "unknown_types", "unknown_orders", "duplicate_orders", "capacity_drops")
EXIT_DIFFERENT = 1


@dataclass(frozen=True)
class Input:
    """What is measured, in memory, and where it came from in words."""

    day: np.ndarray
    messages: int
    source: str
    as_it_is: "Input | None" = None


@dataclass(frozen=True)
class Timed:
    """CPU seconds of each pass."""

    ours: list[float]
    peer: list[float]
    decode: list[float]
    walk: list[float]
    read: list[float]


@click.command(help="Time decode and order book of ITCHFILE (plain or gzip), or of a generated day, beside itch-book on the same bytes.")
@click.argument("itchfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="Where figures go; - is stdout."
)
@click.option("--generate", type=click.IntRange(min=10_000), help="Messages of a seeded synthetic day, measured instead of a file.")
@click.option("--live", type=click.IntRange(min=0), help="Orders that rest at the end of the generated day.  [default: 60 %]")
@click.option("--symbols", type=click.IntRange(1, 65_535), default=200, show_default=True, help="Symbols of the generated day.")
@click.option("--seed", default=1, show_default=True, help="Seed of the generated day.")
@click.option(
    "--grow", "copies", type=click.IntRange(min=1), help="Copies of the file.  [default: to 2 million messages, if below 1 million]"
)
@click.option("--passes", type=click.IntRange(min=1), default=7, show_default=True, help="Timed passes of each.")
@click.option("--cpu", type=int, help="CPU to run on.  [default: the last one allowed]")
def main(
    itchfile: Path | None, json_path: Path | None, generate: int | None, live: int | None, symbols: int, seed: int, copies: int | None,
    passes: int, cpu: int | None,
) -> None:  # fmt: skip
    if (itchfile is None) == (generate is None):
        raise click.UsageError("give an ITCH file or --generate MESSAGES")
    usable = sorted(os.sched_getaffinity(0))
    if cpu is not None and cpu not in usable:
        raise click.UsageError(f"--cpu {cpu}: expected one of {usable}")
    try:
        given = generated(generate, live, symbols, seed) if generate else loaded(itchfile, copies)
    except (OSError, EOFError, ValueError) as error:
        raise click.UsageError(str(error)) from None
    os.sched_setaffinity(0, {usable[-1] if cpu is None else cpu})
    figures = measure(given, passes)
    if given.as_it_is is not None:
        small = measure(given.as_it_is, passes * 5)
        figures["as_it_is"] = {key: small[key] for key in ("messages", "source", "decode_mps", "book_mps", "peer_book_mps", "book_ratio")}
    figures["machine"] = machine()
    show(figures, to_error=str(json_path) == "-")
    if json_path is not None:
        text = json.dumps(figures, indent=2) + "\n"
        sys.stdout.write(text) if str(json_path) == "-" else json_path.write_text(text)
    differences = figures["differences"]
    if differences:
        click.echo(f"the books differ: {differences[0]}", err=True)
        sys.exit(EXIT_DIFFERENT)


def loaded(path: Path | None, copies: int | None) -> Input:
    """A file, and copies of it where it is short or they are asked for. ValueError where it holds no ITCH messages."""
    assert path is not None
    raw = path.read_bytes()
    day = np.frombuffer(gzip.decompress(raw) if raw.startswith(GZIP_MAGIC) else raw, np.uint8)
    messages = walk(day)
    if messages == 0:
        raise ValueError(f"file={path}: no whole message: expected ITCH 5.0 with 2-byte lengths")
    plain = Input(day, messages, path.name)
    if copies is None:
        copies = -(-GROWN_MESSAGES // messages) if messages < SHORT_MESSAGES else 1
    if copies == 1:
        return plain
    grown = grow(day, copies)
    return Input(grown, walk(grown), f"{path.name}, {copies} copies of other instruments, refs numbered anew", plain)


def generated(messages: int, live: int | None, symbols: int, seed: int) -> Input:
    day = make_day(messages, live=live, symbols=symbols, seed=seed)
    return Input(day, walk(day), f"generated: symbols={symbols} seed={seed} live={live if live is not None else 'default'}")


def walk(day: np.ndarray) -> int:
    return int(decode_only(day, 0, len(day))[0])


def fresh(given: Input) -> Decoder:
    orders = min(given.messages, ORDERS_MAX)
    return make_decoder(orders_max=orders, levels_max=orders, instruments_max=INSTRUMENTS_MAX, stats=records(1, FEED_STATS))


def measure(given: Input, passes: int) -> dict[str, Any]:
    """Time both on the same bytes, compare their books, and put the figures together."""
    timed = Timed([], [], [], [], [])
    words = given.day[: len(given.day) // 8 * 8].view(np.uint64)
    decoder = fresh(given)
    for number in range(passes + 1):
        # The first pass of each touches memory that the machine may not have touched before: it does not count.
        del decoder
        decoder = fresh(given)
        ours = cpu_seconds(lambda decoder=decoder: replay(decoder, given.day, 0, len(given.day)))
        peer = Session(tables=[], depth=0, symbols=[])
        theirs = cpu_seconds(lambda peer=peer: peer.feed(given.day))
        decoding = cpu_seconds(lambda: decode_only(given.day, 0, len(given.day)))
        walking = cpu_seconds(lambda: walk_frames(given.day, 0, len(given.day)))
        reading = cpu_seconds(words.sum)
        if number:
            timed.ours.append(ours)
            timed.peer.append(theirs)
            timed.decode.append(decoding)
            timed.walk.append(walking)
            timed.read.append(reading)
    lists = (timed.ours, timed.peer, timed.decode, timed.walk, timed.read)
    book, peer_book, decode, walk_s, read_s = (statistics.median(times) for times in lists)
    stats = decoder.stats[0]
    return {
        "messages": given.messages,
        "bytes": len(given.day),
        "source": given.source,
        "decode_mps": round(given.messages / decode / 1e6, 3),
        "peer_decode_mps": None,
        "book_mps": round(given.messages / book / 1e6, 3),
        "peer_book_mps": round(given.messages / peer_book / 1e6, 3),
        "book_ratio": round(peer_book / book, 3),
        "walk_ns": round(walk_s / given.messages * 1e9, 2),
        "read_ns": round(read_s / given.messages * 1e9, 2),
        "by_type": by_type(given),
        "decode_ns": round(decode / given.messages * 1e9, 2),
        "book_ns": round(book / given.messages * 1e9, 2),
        "peer_book_ns": round(peer_book / given.messages * 1e9, 2),
        "passes": passes,
        "pass_seconds": {"book": timed.ours, "peer_book": timed.peer, "decode": timed.decode},
        "clock": "CPU seconds of the one thread, median of the passes",
        "peer": f"itch-book {version('itch-book')}; its package cannot decode without keeping orders, hence no peer_decode_mps",
        "counts": {name: int(stats[name]) for name in COUNTS},
        "differences": differences(decoder, peer_touch(given.day)),
    }


def by_type(given: Input) -> dict[str, dict[str, float]]:
    """Of each type of message: how many there are, and the mean ns from decoding its fields to its book being right.

    Measured message by message on a fresh book that another pass has warmed the machine for, less what looking at the clock takes;
    what is read ahead for later messages comes on top.
    """
    ticks_a_look = look_ticks(1_000_000)
    decoder = fresh(given)
    replay(decoder, given.day, 0, len(given.day))
    kept = np.zeros(3 * 256, np.int64)
    decoder = fresh(given)
    replay_timed(decoder, given.day, 0, len(given.day), kept)
    ns_a_tick = 1e9 / calibrate().hz
    rows = kept.reshape(-1, 3)
    found: dict[str, dict[str, float]] = {}
    for code in np.argsort(-rows[:, TIMED]).tolist():
        count, spent, interrupted = (int(rows[code, column]) for column in (TIMED, TICKS, INTERRUPTED))
        if count:
            ns = max(spent / count - ticks_a_look, 0) * ns_a_tick
            found[chr(code)] = {"messages": count + interrupted, "ns": round(ns, 1), "interrupted": interrupted}
    return found


def cpu_seconds(work: Any) -> float:
    began = time.thread_time()
    work()
    return time.thread_time() - began


def peer_touch(day: np.ndarray) -> dict[int, tuple[int, ...]]:
    """What the peer has as best bid and offer at the end, by locate code: (bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct)."""
    session = Session(tables=["bbo"], depth=0, symbols=[])
    columns = ("bid_px", "bid_sz", "bid_ct", "ask_px", "ask_sz", "ask_ct")
    touch: dict[int, tuple[int, ...]] = {}
    for at in range(0, len(day), PEER_CHUNK_BYTES):
        session.feed(day[at : at + PEER_CHUNK_BYTES])
        rows = session.take_bbo()
        locates, last = np.unique(rows["locate"][::-1], return_index=True)
        for locate, row in zip(locates.tolist(), (len(rows["locate"]) - 1 - last).tolist(), strict=True):
            touch[locate] = tuple(int(rows[column][row]) for column in columns)
    return touch


def differences(decoder: Decoder, peer: dict[int, tuple[int, ...]]) -> list[str]:
    """Where the two disagree about a best bid or offer, as sentences; a book that was never touched is an empty one."""
    nothing = (0,) * 6
    found = []
    for locate in range(INSTRUMENTS_MAX):
        ours = our_side(decoder, locate, BUY) + our_side(decoder, locate, SELL)
        theirs = peer.get(locate, nothing)
        if ours != theirs:
            found.append(f"locate={locate}: (bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct) ours={ours}, itch-book {theirs}")
    return found


def our_side(decoder: Decoder, locate: int, side: int) -> tuple[int, ...]:
    if not decoder.book.sides[2 * locate + (side & 1)]["count"]:
        return (0, 0, 0)
    level = decoder.book.levels[best_level(decoder.book, locate, side)]
    return int(level["px"]), int(level["qty"]), int(level["orders"])


def machine() -> dict[str, Any]:
    names = [line.partition(":")[2].strip() for line in Path("/proc/cpuinfo").read_text().splitlines() if line.startswith("model name")]
    return {
        "cpu": names[0] if names else platform.processor(),
        "cpus": os.cpu_count(),
        "cpu_used": min(os.sched_getaffinity(0)),
        "kernel": platform.release(),
        "python": platform.python_version(),
        "numba": version("numba"),
        "load_average": round(os.getloadavg()[0], 2),
    }


def show(figures: dict[str, Any], *, to_error: bool) -> None:
    lines = [f"{figures['messages']:,} messages, {figures['bytes']:,} bytes: {figures['source']}"]
    lines.append(f"{'':24}{'M msg/s':>10}{'ns/msg':>10}")
    for label, mps, ns in (
        ("tickpath decode", "decode_mps", "decode_ns"),
        ("tickpath decode + book", "book_mps", "book_ns"),
        ("itch-book decode + book", "peer_book_mps", "peer_book_ns"),
    ):
        lines.append(f"{label:24}{figures[mps]:>10.2f}{figures[ns]:>10.1f}")
    lines.append(f"{'ratio':24}{figures['book_ratio']:>10.2f}")
    lines.append(f"{'walking the lengths':24}{1e3 / figures['walk_ns']:>10.2f}{figures['walk_ns']:>10.2f}   no decoder in order is faster")
    lines.append(f"{'reading the bytes':24}{1e3 / figures['read_ns']:>10.2f}{figures['read_ns']:>10.2f}   memory, a sum of 8-byte words")
    lines.append("ns to apply, by type: " + "  ".join(f"{code} {told['ns']:.0f}" for code, told in figures["by_type"].items()))
    if small := figures.get("as_it_is"):
        lines.append(
            f"as it is, {small['messages']:,} messages: {small['book_mps']:.2f} against {small['peer_book_mps']:.2f} M msg/s, "
            f"ratio {small['book_ratio']:.2f} (both begin on memory not yet touched)"
        )
    lines.append(f"best bid and offer of all symbols: {'equal' if not figures['differences'] else 'DIFFERENT'}")
    where = figures["machine"]
    lines.append(
        f"{where['cpu']}, {where['cpus']} CPUs, on CPU {where['cpu_used']}, kernel {where['kernel']}, load {where['load_average']}"
    )
    click.echo("\n".join(lines), err=to_error)


if __name__ == "__main__":
    main()
