"""From a packet that waits in the kernel's socket buffer to its quote on the ring, beside a C program that receives and throws away.

    sender ──loopback──▶ socket buffer ──recvmmsg──▶ sequence, decode, book, quote ══▶ ring         the feed handler, whole
              "               "        ──recvmmsg──▶ nothing                                        perf/receive.c

Both run in one pinned thread, in turns of a few hundred packets. Each sends itself the packets of a batch, and is timed by the TSC from
before the call that receives them; so what is timed is what the receiving core spends. The C program makes the calls that the feed
handler makes: the same places, the same notes, and as many calls that find nothing.

quote_ratio   one packet waits: until its quote is published, over until the C program's call has returned
turn_ratio    until the feed handler is done with all that waited, calls that find nothing included, over the same of the C program

Figures are means over a turn of packets (messages differ: an average pays for all of them), ratios of turns beside each other, medians
of those.
"""

import ctypes
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import uuid
from contextlib import closing
from dataclasses import dataclass, field
from itertools import chain
from pathlib import Path
from typing import Any

if not __package__:
    sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import click
import numpy as np

from engine.book.book import make_book
from engine.feed.decoder import make_decoder
from engine.feed.hot.decoder import Decoder
from engine.feed.hot.replay import replay
from engine.feed.moldudp64 import HEADER_BYTES, LENGTH_BYTES, PACKET_BYTES_MAX
from engine.feed.records import records
from engine.feed.source import open_line
from engine.feed.stage import FeedStage
from engine.layout import BUY, FEED_STATS, INSTRUMENTS_MAX, QUOTE, SELL
from engine.runtime.clock import Calibration, calibrate
from engine.runtime.config import DEFAULT_PATH, load
from engine.runtime.instance import Instance
from engine.runtime.logins import Logins
from engine.runtime.stages import Run, build_feed
from engine.wire.credentials import Credentials
from perf.bench_book import our_side
from perf.hot.receive import ALL, FIRST_QUOTE, LAST_QUOTE, LOST, NOT_SENT, NOTED, follow
from perf.itch_day import make_day
from perf.itch_grow import frame_starts, grow
from tools.machine import describe, one_line

SESSION = b"BENCH00001"
MESSAGES_PER_PACKET = (1, 4, 16, 38)
WAITING = (1, 32)
TURN_PACKETS = 512
# The first turn compiles, and touches memory for the first time.
WARMING_TURNS = 1
GENERATED_SYMBOLS = 200
EXIT_DIFFERENT = 1
RECEIVE_BUFFER_BYTES = 8 << 20
ORDERS_MAX = 1 << 20
# One line and nothing beside it: the C program has one, too.
CONFIG: dict[str, Any] = {
    "feed.source": "udp",
    "feed.address_b": "",
    "feed.receive_buffer_bytes": RECEIVE_BUFFER_BYTES,
    "feed.orders_max": ORDERS_MAX,
    "feed.levels_max": ORDERS_MAX,
    "feed.stale_after_ms": 0,
    "feed.recovery.rewind": [],
    "feed.recovery.snapshot": "",
}


@dataclass(frozen=True)
class Packets:
    """MoldUDP64 packets, one after another in `raw`: packet i is raw[offsets[i]:offsets[i + 1]], and behind it comes message targets[i]."""

    raw: np.ndarray
    offsets: np.ndarray
    targets: np.ndarray

    @property
    def count(self) -> int:
        return len(self.targets)


def in_packets(day: np.ndarray, messages_per_packet: int) -> Packets:
    """Framed messages in packets of so many each, or of as many as a frame of Ethernet holds."""
    starts = frame_starts(day) - LENGTH_BYTES
    ends = np.append(starts[1:], len(day)).tolist()
    raw, offsets, targets = bytearray(), [0], []
    whole = day.tobytes()
    first = 0
    while first < len(starts):
        after = min(first + messages_per_packet, len(starts))
        while ends[after - 1] - starts[first] > PACKET_BYTES_MAX - HEADER_BYTES:
            after -= 1
        raw += SESSION + (first + 1).to_bytes(8, "big") + (after - first).to_bytes(2, "big") + whole[starts[first] : ends[after - 1]]
        offsets.append(len(raw))
        targets.append(after + 1)
        first = after
    return Packets(np.frombuffer(bytes(raw), np.uint8), np.array(offsets, np.int64), np.array(targets, np.int64))


def touch(decoder: Decoder, instrument: int) -> tuple[int, ...]:
    return our_side(decoder, instrument, BUY) + our_side(decoder, instrument, SELL)


class Handler:
    """A feed handler with its ring, a reader of it, and a socket that sends to it."""

    def __init__(self, calibration: Calibration) -> None:
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
            probe.bind(("127.0.0.1", 0))
            host, port = probe.getsockname()
        config = load(DEFAULT_PATH, {**CONFIG, "feed.address": f"{host}:{port}"})
        self.instance = Instance(f"bench-{uuid.uuid4().hex[:12]}", config.rings)
        # As live: strategies may ask the books, which therefore are in shared memory.
        book = make_book(orders_max=config.feed.orders_max, levels_max=config.feed.levels_max, shared=True)
        stage = build_feed(Run(config, self.instance, calibration, 0, book, Logins(Credentials(), Credentials())))
        assert isinstance(stage, FeedStage)
        self.stage = stage
        self.reader = self.instance.ticks.consumer("strategy", QUOTE)
        self.instance.unlink()
        self.clock = calibration.clock()
        self.sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sending.connect((host, port))

    @property
    def calls(self) -> int:
        """Calls of recvmmsg up to now."""
        return int(self.stage.packets.sockets.calls.sum())

    def follow(self, packets: Packets, first: int, waiting: int) -> np.ndarray:
        """A turn of packets, `waiting` at a time: the ticks of each batch, shape (batches, NOTED)."""
        ticks = np.zeros((TURN_PACKETS // waiting, NOTED), np.int64)
        done = follow(
            self.stage.state, self.reader.end, self.clock, self.sending.fileno(), packets.raw, packets.offsets, packets.targets,
            first, TURN_PACKETS, waiting, ticks.reshape(-1),
        )  # fmt: skip
        if done < 0:
            raise RuntimeError({LOST: "a packet was lost", NOT_SENT: "a packet could not be sent"}.get(done) or self.stage.reasons[done])
        return ticks

    def problems(self, day: np.ndarray, messages: int) -> list[str]:
        """What is wrong after the day's first `messages` messages, as sentences: a counter that is not 0, a book that another way of
        reading the same bytes does not end with."""
        stats = self.instance.feed_stats.records[0]
        found = [f"{name}={int(stats[name])}, expected 0" for name in ("gaps", "malformed", "duplicates") if stats[name]]
        if stats["messages"] != messages:
            found.append(f"messages={int(stats['messages'])}, expected {messages}")
        decoder = make_decoder(orders_max=ORDERS_MAX, levels_max=ORDERS_MAX, instruments_max=INSTRUMENTS_MAX, stats=records(1, FEED_STATS))
        starts = frame_starts(day)
        replay(decoder, day, 0, int(starts[messages] - LENGTH_BYTES) if messages < len(starts) else len(day))
        for instrument in range(INSTRUMENTS_MAX):
            ours, theirs = (
                our_side(made, instrument, BUY) + our_side(made, instrument, SELL) for made in (self.stage.state.decoder, decoder)
            )
            if ours != theirs:
                found.append(f"instrument={instrument}: (bid_px, bid_sz, bid_ct, ask_px, ask_sz, ask_ct) {ours}, expected {theirs}")
        return found

    def close(self) -> None:
        self.sending.close()
        self.stage.close()
        self.reader.close()


class Discarder:
    """The C program, its socket, and one that sends to it."""

    def __init__(self, c: ctypes.CDLL) -> None:
        self.c = c
        # The same options as the feed handler's.
        self.socket = open_line(("127.0.0.1", 0), "127.0.0.1", RECEIVE_BUFFER_BYTES).socket
        self.sending = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.sending.connect(self.socket.getsockname())

    def discard(self, packets: Packets, first: int, waiting: int, empty_calls: int) -> np.ndarray:
        """The same: the ticks of each batch, shape (batches, 2): until the packets were here, and until the empty calls were over."""
        ticks = np.zeros((TURN_PACKETS // waiting, 2), np.int64)
        done = self.c.tp_discard(
            self.sending.fileno(), self.socket.fileno(), packets.raw.ctypes.data, packets.offsets[first:].ctypes.data, TURN_PACKETS,
            waiting, empty_calls, ticks.ctypes.data,
        )  # fmt: skip
        if done < 0:
            raise RuntimeError(f"receive.c: {os.strerror(-done) if done < -1 else 'a packet was lost'}")
        return ticks

    def close(self) -> None:
        self.sending.close()
        self.socket.close()


@dataclass
class Turns:
    """Of each turn, in ticks: a packet of the feed handler and of the C program, mean; a batch until its quotes, and until it was here."""

    packet: list[float] = field(default_factory=list)
    discarded: list[float] = field(default_factory=list)
    first_quote: list[float] = field(default_factory=list)
    last_quote: list[float] = field(default_factory=list)
    here: list[float] = field(default_factory=list)
    single: list[np.ndarray] = field(default_factory=list)

    def note(self, ours: np.ndarray, theirs: np.ndarray) -> None:
        quoting = ours[:, FIRST_QUOTE] > 0
        if not quoting.any():
            return
        self.packet.append(ours[:, ALL].sum() / TURN_PACKETS)
        self.discarded.append(theirs[:, 1].sum() / TURN_PACKETS)
        self.first_quote.append(ours[quoting, FIRST_QUOTE].mean())
        self.last_quote.append(ours[quoting, LAST_QUOTE].mean())
        self.here.append(theirs[:, 0].mean())
        self.single.append(ours[quoting, FIRST_QUOTE])


def ratio(ours: list[float], theirs: list[float]) -> float:
    """The median of the ratios of turns beside each other."""
    return round(float(statistics.median(mine / other for mine, other in zip(ours, theirs, strict=True))), 3)


def measure(c: ctypes.CDLL, day: np.ndarray, messages_per_packet: int, waiting: int, calibration: Calibration) -> dict[str, Any]:
    packets = in_packets(day, messages_per_packet)
    turns = packets.count // TURN_PACKETS
    timed = Turns()
    with closing(Handler(calibration)) as handler, closing(Discarder(c)) as discarder:
        for turn in range(turns):
            before = handler.calls
            ours = handler.follow(packets, turn * TURN_PACKETS, waiting)
            empty_calls = max(round((handler.calls - before) / len(ours)) - 1, 0)
            theirs = discarder.discard(packets, turn * TURN_PACKETS, waiting, empty_calls)
            if turn >= WARMING_TURNS:
                timed.note(ours, theirs)
        messages = int(packets.targets[turns * TURN_PACKETS - 1]) - 1
        problems = handler.problems(day, messages)
        quotes = int(handler.instance.feed_stats.records[0]["quotes"])

    def ns(ticks: list[float]) -> float:
        return float(statistics.median(ticks)) * 1e9 / calibration.hz

    per_packet = messages / turns / TURN_PACKETS
    single = np.concatenate(timed.single) * 1e9 / calibration.hz
    return {
        "messages_per_packet": round(per_packet, 1),
        "waiting": waiting,
        "empty_calls": empty_calls,
        "packet_ns": round(ns(timed.packet)),
        "discarded_ns": round(ns(timed.discarded)),
        "turn_ratio": ratio(timed.packet, timed.discarded),
        "message_ns": round((ns(timed.packet) - ns(timed.discarded)) / per_packet, 1),
        "first_quote_ns": round(ns(timed.first_quote)),
        "last_quote_ns": round(ns(timed.last_quote)),
        "call_ns": round(ns(timed.here)),
        "quote_ratio": ratio(timed.first_quote, timed.here),
        "last_quote_ratio": ratio(timed.last_quote, timed.here),
        "quote_ns_percentiles": {f"p{q:g}": round(float(np.percentile(single, q))) for q in (50, 99, 99.9)},
        "turns": len(timed.packet),
        "messages": messages,
        "quotes": quotes,
        "problems": problems,
    }


def compile_c(folder: Path) -> ctypes.CDLL:
    library = folder / "receive.so"
    source = Path(__file__).with_name("receive.c")
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", str(library), str(source)], check=True)
    loaded = ctypes.CDLL(str(library))
    loaded.tp_discard.restype = ctypes.c_int64
    loaded.tp_discard.argtypes = [ctypes.c_int] * 2 + [ctypes.c_void_p] * 2 + [ctypes.c_int64] * 3 + [ctypes.c_void_p]
    return loaded


def show(name: str, row: dict[str, Any], to_error: bool) -> None:
    click.echo(
        f"{name:10}{row['messages_per_packet']:8}{row['waiting']:9}{row['call_ns']:10,}{row['first_quote_ns']:10,}{row['quote_ratio']:8.2f}"
        f"{row['last_quote_ratio']:8.2f}{row['discarded_ns']:10,}{row['packet_ns']:10,}{row['turn_ratio']:8.2f}{row['message_ns']:8.1f}",
        err=to_error,
    )


HEADLINE = (
    f"{'':10}{'msgs a':>8}{'packets':>9}{'C call':>10}{'quote':>10}{'quote':>8}{'last':>8}{'C':>10}{'ours':>10}{'turn':>8}{'ns a':>8}\n"
    f"{'':10}{'packet':>8}{'waiting':>9}{'ns':>10}{'ns':>10}{'ratio':>8}{'ratio':>8}{'ns/packet':>10}{'ns/packet':>10}{'ratio':>8}{'msg':>8}"
)


@click.command(help="Time the feed handler's receive path beside a C program that receives and discards: on ITCHFILE, and a generated day.")
@click.argument("itchfile", type=click.Path(exists=True, dir_okay=False, path_type=Path), required=False)
@click.option(
    "--json", "json_path", type=click.Path(dir_okay=False, allow_dash=True, path_type=Path), help="Where figures go; - is stdout."
)
@click.option("--messages", type=click.IntRange(min=10_000), default=400_000, show_default=True, help="Messages of each day, at least.")
@click.option("--quick", is_flag=True, help="One message a packet only.")
@click.option("--cpu", type=int, help="CPU to run on.  [default: the last one allowed]")
def main(itchfile: Path | None, json_path: Path | None, messages: int, quick: bool, cpu: int | None) -> None:
    usable = sorted(os.sched_getaffinity(0))
    if cpu is not None and cpu not in usable:
        raise click.UsageError(f"--cpu {cpu}: expected one of {usable}")
    machine = describe()
    os.sched_setaffinity(0, {usable[-1] if cpu is None else cpu})
    days = {"generated": make_day(messages, symbols=GENERATED_SYMBOLS, seed=1)}
    if itchfile is not None:
        day = np.fromfile(itchfile, np.uint8)
        days[itchfile.name.split("_")[0]] = grow(day, -(-messages // len(frame_starts(day))))
    to_error = str(json_path) == "-"
    rows: dict[str, list[dict[str, Any]]] = {name: [] for name in days}
    calibration = calibrate()
    with tempfile.TemporaryDirectory() as folder:
        try:
            c = compile_c(Path(folder))
        except (OSError, subprocess.CalledProcessError) as error:
            raise click.UsageError(f"receive.c cannot be compiled, is gcc installed? {error}") from None
        click.echo(HEADLINE, err=to_error)
        for name, day in days.items():
            for messages_per_packet in MESSAGES_PER_PACKET[:1] if quick else MESSAGES_PER_PACKET:
                for waiting in WAITING:
                    row = measure(c, day, messages_per_packet, waiting, calibration)
                    rows[name].append(row)
                    show(name, row, to_error)
    click.echo(one_line(machine), err=to_error)
    if json_path is not None:
        text = json.dumps({"days": rows, "machine": machine}, indent=2) + "\n"
        sys.stdout.write(text) if to_error else json_path.write_text(text)
    problems = [problem for row in chain.from_iterable(rows.values()) for problem in row["problems"]]
    if problems:
        click.echo(f"the feed handler was wrong: {problems[0]}", err=True)
        sys.exit(EXIT_DIFFERENT)


if __name__ == "__main__":
    main()
