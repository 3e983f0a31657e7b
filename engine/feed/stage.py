"""The feed handler: everything around its kernel. It opens the source, makes the books, and says how it ended.

stage = FeedStage(ticks=..., quotes=..., instruments=..., stats=..., control=..., hops=..., source="udp", address=(host, port))
reason = loop(stage.state, ...)                          # engine.feed.hot.step, until a reason below 0
stage.close()
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np

from engine.book.book import make_book, prefault
from engine.book.hot.book import Book
from engine.feed.capture import chosen_lines
from engine.feed.decoder import decoder_on
from engine.feed.hot.capture import CAPTURE_FAILED
from engine.feed.hot.publish import RECORDS_PER_MESSAGE
from engine.feed.hot.receive import LINES_MAX, RECEIVE_FAILED
from engine.feed.hot.source import READ_FAILED, UNZIPPING_FAILED
from engine.feed.hot.state import (
    CAPTURE,
    CAPTURE_PLAYING,
    CHECK_BOOKS,
    DRIFT_NS_MAX,
    EXPECTED,
    FD,
    FEED_WORDS,
    FRONTIER,
    INSTRUMENTS_TOLD,
    LEFT_OVER_BYTES,
    LINE_A,
    LINE_B,
    LINE_REWIND,
    MIDNIGHT_NS,
    MISSING_MAX,
    PACE,
    PAPER,
    PUBLISH_LEVELS,
    SLOT_BYTES,
    SNAPSHOT,
    SNAPSHOT_CONNECTING,
    SNAPSHOT_FD,
    SNAPSHOT_WANTED,
    SOURCE,
    SOURCE_FILE,
    SOURCE_UDP,
    SPARE_BYTES,
    STALE_AFTER_NS,
    SWEEP_NEXT,
    Feed,
    Window,
)
from engine.feed.hot.window import empty_window
from engine.feed.player import CapturePlayer
from engine.feed.records import records
from engine.feed.recovery import Address, Recovery, begin_connection
from engine.feed.source import FILE_BUFFER_BYTES, ItchFile, Line, PacketBuffers, open_line, open_requests
from engine.layout import CAPTURE as CAPTURE_RECORD
from engine.layout import INSTRUMENT, INSTRUMENTS_MAX, LEVEL, MARKET, PHASE_STARTING, QUOTE, STATUS, TRADE, pack_symbol, unpack_symbol
from shm.ring import Ring
from shm.roles import Role
from shm.table import Board, Table

HOP_PACKET_TO_TICK = 0
HOP_KERNEL_TO_PACKET = 8

REASONS = {
    RECEIVE_FAILED: "receiving from the market data socket failed: is the network interface still up?",
    READ_FAILED: "reading the ITCH file failed: a damaged disk, or a file system that went away",
    UNZIPPING_FAILED: "unzipping the ITCH file failed",
    CAPTURE_FAILED: "reading the capture failed",
}


def make_window(messages: int) -> Window:
    """An empty window for `messages` messages, a power of two."""
    window = Window(
        held=np.zeros(messages * SLOT_BYTES, np.uint8), sequences=np.zeros(messages, np.int64), received=np.zeros(messages, np.int64)
    )
    empty_window(window)
    return window


class FeedStage:
    """One feed handler. `state` is what the kernel in `step_module` works on; `reasons` say why it stopped.

    Books are kept of every instrument; ticks are published of those in `symbols` (None: of all). `lines` are the sockets that it
    opened, by number, with what the kernel granted each.
    """

    step_module = "engine.feed.hot.step"

    def __init__(
        self,
        *,
        ticks: Ring,
        quotes: Board,
        instruments: Board,
        stats: Table,
        lines: Table,
        tops: Table,
        control: Table,
        hops: Table,
        source: str,
        address: Address = ("127.0.0.1", 0),
        address_b: Address | None = None,
        interface: str = "127.0.0.1",
        interface_b: str = "",
        path: str | Path = "",
        speed: float = 1.0,
        capture: Table | None = None,
        hold: bool = False,
        symbols: Sequence[str] | None = None,
        publish_levels: bool = False,
        orders_max: int = 1 << 21,
        levels_max: int = 1 << 18,
        instruments_max: int = INSTRUMENTS_MAX,
        receive_buffer_bytes: int = 16 << 20,
        busy_poll_us: int = 0,
        kernel_stamps: bool = False,
        stale_after_ms: int = 0,
        clock_drift_ms_max: int = 0,
        check_books: bool = False,
        recovery: Recovery | None = None,
        midnight_ns: int = 0,
        book: Book | None = None,
        market: Ring | None = None,
        paced: bool = False,
    ) -> None:
        """source is 'udp' (MoldUDP64 at `address`, (host, port), on `interface`, and the same again at address_b on interface_b where
        there is a second line), 'file' (`path`, plain or gzip ITCH with 2-byte lengths), or 'pcap': `path` is a packet capture whose
        datagrams to address and address_b are the lines, at its own times, `speed` times as fast, or with speed 0 as fast as they are
        taken; of files nothing is asked of rewind and snapshot servers. `capture`, a table CAPTURE, counts what the file had; with `hold`
        nothing is played before control.phase leaves STARTING.

        lines (LINE_ROWS,) FEED_LINE and tops (instruments_max,) SYMBOL are the tables that are counted into. midnight_ns, since the
        epoch, is the venue's midnight, from which its time stamps count. After stale_after_ms without a packet no book may be acted
        on, nor while messages are clock_drift_ms_max older than the youngest was (0: these are not watched). check_books looks for
        contradictions in every book that a packet touched, which takes longer than the packet. book, empty, is
        kept in place of one of these sizes of the stage's own. What is applied is also handed on to `market`, a ring MARKET, where it is
        given: one that is full is waited for. A file that is `paced` is read at `speed` like a capture, from when control.phase leaves
        STARTING on, without silences of more than 250 ms. ValueError and OSError name what cannot be used."""
        _check(source, ticks, quotes, instruments, len(book.sides) // 2 if book else instruments_max)
        self.reasons = dict(REASONS)
        self.words = np.zeros(FEED_WORDS, np.int64)
        self.words[EXPECTED] = self.words[FRONTIER] = 1
        self.words[MIDNIGHT_NS] = midnight_ns
        self.words[PUBLISH_LEVELS] = publish_levels
        self.words[SWEEP_NEXT] = INSTRUMENTS_TOLD
        self.words[STALE_AFTER_NS] = stale_after_ms * 1_000_000
        self.words[CHECK_BOOKS] = check_books
        self.words[DRIFT_NS_MAX] = clock_drift_ms_max * 1_000_000
        self.words[PACE] = round(1e6 / speed) if paced and speed else 0
        self.recovery = recovery or Recovery()
        if source != "udp":
            self.recovery = replace(self.recovery, rewind=(), snapshot=None)
        lines.records["next"] = 1
        self.wanted = np.array([pack_symbol(symbol) for symbol in symbols or []], np.int64)
        self.lines: dict[int, Line] = {}
        self.packets = PacketBuffers(LINES_MAX, int(SPARE_BYTES))
        self.recovery.write(self.words, self.packets.buffer)
        self.words[SNAPSHOT_FD] = -1
        self._closers: list[Callable[[], None]] = []
        try:
            if source == "udp":
                options = (receive_buffer_bytes, busy_poll_us, kernel_stamps)
                self._open_lines(address, interface, address_b, interface_b or interface, options)
            elif source == "pcap":
                self._open_capture(Path(path), address, address_b, speed, capture, control if hold else None)
            else:
                self._open_file(Path(path))
        except BaseException:
            self._close_all()
            raise
        if book is None:
            book = make_book(orders_max=orders_max, levels_max=levels_max, instruments_max=instruments_max)
        decoder = decoder_on(book, stats.records, tops.records)
        buffer = self.packets.buffer if source != "file" else np.zeros(FILE_BUFFER_BYTES, np.uint8)
        window = make_window(self.recovery.window_messages)
        prefault([*decoder.book[:-1], decoder.tops, decoder.states, buffer, window.held, window.received])
        decoder.tops["publish"] = symbols is None
        out = ticks.producer(QUOTE)
        self.roles: tuple[Role, ...] = (out,)
        # The kernels are compiled for one type of ring, and see this one's records as bytes.
        market_end = out.end
        if market is not None:
            handed = market.producer(MARKET)
            self.roles += (handed,)
            market_end = handed.end._replace(slots=handed.end.slots.view(QUOTE))
            self.words[PAPER] = 1
        self.state = Feed(
            decoder=decoder,
            ticks=out.end,
            level_slots=out.slots.view(LEVEL),
            trade_slots=out.slots.view(TRADE),
            status_slots=out.slots.view(STATUS),
            instrument_slots=out.slots.view(INSTRUMENT),
            quotes=quotes.records,
            instruments=instruments.records,
            hop=hops.words()[HOP_PACKET_TO_TICK],
            stamp_hop=hops.words()[HOP_KERNEL_TO_PACKET],
            control=control.words()[0],
            words=self.words,
            wanted=self.wanted,
            buffer=buffer,
            sockets=self.packets.sockets,
            lines=lines.records,
            missing=np.zeros(LINES_MAX * MISSING_MAX * 2, np.int64),
            window=window,
            market=market_end,
            market_bytes=market_end.slots.view(np.ndarray).view(np.uint8),
        )

    def _open_lines(
        self, address: Address, interface: str, address_b: Address | None, interface_b: str, options: tuple[int, int, bool]
    ) -> None:
        self.words[SOURCE] = SOURCE_UDP
        self._attach(LINE_A, open_line(address, interface, *options))
        if address_b is not None:
            self._attach(LINE_B, open_line(address_b, interface_b, *options))
        for number, server in enumerate(self.recovery.rewind):
            self._attach(LINE_REWIND + number, open_requests(server))

    def _attach(self, number: int, line: Line) -> None:
        self._closers.append(line.close)
        self.lines[number] = line
        self.packets.attach(number, line.socket.fileno(), kernel_stamps=line.kernel_stamps)

    def _open_file(self, path: Path) -> None:
        self.file = ItchFile(path, self.words, self._note_unzip_error)
        self._closers.append(self.file.close)
        self.words[SOURCE] = SOURCE_FILE
        self.words[FD] = self.file.fd

    def _open_capture(
        self, path: Path, address: Address, address_b: Address | None, speed: float, counted: Table | None, control: Table | None
    ) -> None:
        lines = chosen_lines(path, "{}:{}".format(*address), "{}:{}".format(*address_b) if address_b else "")
        self.words[SOURCE] = SOURCE_UDP
        self.words[CAPTURE] = CAPTURE_PLAYING
        self.player = CapturePlayer(
            path,
            lines,
            speed,
            records(1, CAPTURE_RECORD)[0] if counted is None else counted.records[0],
            held=lambda: control is not None and control.records["phase"][0] == PHASE_STARTING,
            on_error=self._note_capture_error,
        )
        self._closers.append(self.player.close)
        self.packets.attach(LINE_A, self.player.fd)

    def attend(self) -> None:
        """What the kernel cannot do itself, and asks for by a word: begin a connection to the snapshot server. It never waits; the process
        calls it between two turns of its loop."""
        if self.words[SNAPSHOT] == SNAPSHOT_WANTED and self.recovery.snapshot is not None:
            self.words[SNAPSHOT_FD] = begin_connection(self.recovery.snapshot)
            self.words[SNAPSHOT] = SNAPSHOT_CONNECTING

    def _close_all(self) -> None:
        while self._closers:
            self._closers.pop()()

    def close(self) -> None:
        """Close the sockets or file, and give the ring back. The state must not be stepped after it."""
        if self._closers:
            self.words[FD] = -1
            if self.words[SNAPSHOT_FD] >= 0:
                os.close(int(self.words[SNAPSHOT_FD]))
                self.words[SNAPSHOT_FD] = -1
            for number, line in self.lines.items():
                self._count_drops(number, line)
            for number in range(LINES_MAX):
                self.packets.detach(number)
            self._close_all()
            for role in self.roles:
                role.close()

    def _count_drops(self, number: int, line: Line) -> None:
        """What a socket dropped after its last packet, nobody has been told yet."""
        dropped = line.drops()
        if dropped >= 0:
            row = self.state.lines[number]
            more = (dropped - int(row["socket_drops"])) & 0xFFFFFFFF
            row["socket_drops"] += more
            self.state.decoder.stats[0]["socket_drops"] += more

    @property
    def receive_buffer_bytes(self) -> int:
        """What line A's socket was granted; 0 without one."""
        return self.lines[LINE_A].receive_buffer_bytes if LINE_A in self.lines else 0

    @property
    def shortfalls(self) -> list[str]:
        """Sentences about what the kernel granted less of than was asked for, each with what cures it."""
        return [sentence for line in self.lines.values() for sentence in line.shortfalls]

    @property
    def left_over_bytes(self) -> int:
        """Bytes at the end of a file that are not a whole message."""
        return int(self.words[LEFT_OVER_BYTES])

    @property
    def counts_by_type(self) -> dict[str, int]:
        """Messages by their type byte, unknown types included."""
        counts = self.state.decoder.counts
        return {chr(code): int(counts[code]) for code in np.flatnonzero(counts)}

    def unseen_symbols(self) -> list[str]:
        """Symbols asked for that the venue's directory has not named so far."""
        seen = set(self.state.decoder.states["symbol"][self.state.decoder.tops["known"] != 0].tolist())
        return [unpack_symbol(packed) for packed in self.wanted.tolist() if packed not in seen]

    def _note_unzip_error(self, text: str) -> None:
        self.reasons[UNZIPPING_FAILED] = text

    def _note_capture_error(self, text: str) -> None:
        self.reasons[CAPTURE_FAILED] = text


def _check(source: str, ticks: Ring, quotes: Board, instruments: Board, instruments_max: int) -> None:
    if source not in ("udp", "file", "pcap"):
        raise ValueError(f"feed source={source!r}: expected 'udp', 'file' or 'pcap'")
    if ticks.capacity < RECORDS_PER_MESSAGE:
        raise ValueError(f"ring {ticks.slots.name}: capacity={ticks.capacity}, expected at least {RECORDS_PER_MESSAGE}")
    for board in (quotes, instruments):
        if len(board.records) < instruments_max:
            raise ValueError(
                f"board {board.segment.name}: lines={len(board.records)}, expected one for each of {instruments_max} instruments"
            )
