"""The feed handler: everything around its kernel. It opens the source, makes the books, and says how it ended.

stage = FeedStage(ticks=..., quotes=..., instruments=..., stats=..., control=..., hops=..., source="udp", address=(host, port))
reason = loop(stage.state, ...)                          # engine.feed.hot.step, until a reason below 0
stage.close()
"""

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from engine.book.book import make_book, prefault
from engine.book.hot.book import Book
from engine.feed.hot.decoder import ROW_WORDS, WINDOW_ROWS, Decoder
from engine.feed.hot.publish import RECORDS_PER_MESSAGE
from engine.feed.hot.source import READ_FAILED, RECEIVE_FAILED, UNZIPPING_FAILED
from engine.feed.hot.state import (
    EXPECTED,
    FD,
    FEED_WORDS,
    INSTRUMENTS_TOLD,
    LEFT_OVER_BYTES,
    MIDNIGHT_NS,
    PUBLISH_LEVELS,
    SOURCE,
    SOURCE_FILE,
    SOURCE_UDP,
    SWEEP_NEXT,
    Feed,
)
from engine.feed.records import MARKET_RECORD, STATE_RECORD, TOP_RECORD, records
from engine.feed.source import FILE_BUFFER_BYTES, ItchFile, PacketBuffers, open_socket
from engine.layout import INSTRUMENT, INSTRUMENTS_MAX, LEVEL, QUOTE, STATUS, TRADE, pack_symbol, unpack_symbol
from shm.ring import Ring
from shm.table import Board, Table

HOP_PACKET_TO_TICK = 0

REASONS = {
    RECEIVE_FAILED: "receiving from the market data socket failed: is the network interface still up?",
    READ_FAILED: "reading the ITCH file failed: a damaged disk, or a file system that went away",
    UNZIPPING_FAILED: "unzipping the ITCH file failed",
}


def make_decoder(*, orders_max: int, levels_max: int, instruments_max: int, stats: np.recarray, shared: bool = False) -> Decoder:
    """Empty books and states for instruments 0 to `instruments_max` - 1; counters go to `stats`, shape (1,) FEED_STATS.

    shared: processes forked from here later see the books too.
    """
    return decoder_on(make_book(orders_max=orders_max, levels_max=levels_max, instruments_max=instruments_max, shared=shared), stats)


def decoder_on(book: Book, stats: np.recarray) -> Decoder:
    """A decoder that keeps `book`, which is empty, with states for as many instruments."""
    instruments_max = len(book.sides) // 2
    return Decoder(
        book=book,
        tops=records(instruments_max, TOP_RECORD),
        states=records(instruments_max, STATE_RECORD),
        market=records(1, MARKET_RECORD),
        stats=stats,
        counts=np.zeros(256, np.int64),
        window=np.zeros(WINDOW_ROWS * ROW_WORDS, np.int64),
    )


class FeedStage:
    """One feed handler. `state` is what the kernel in `step_module` works on; `reasons` say why it stopped.

    Books are kept of every instrument; ticks are published of those in `symbols` (None: of all). receive_buffer_bytes is what the
    socket has once made, which may be less than was asked for.
    """

    step_module = "engine.feed.hot.step"

    def __init__(
        self,
        *,
        ticks: Ring,
        quotes: Board,
        instruments: Board,
        stats: Table,
        control: Table,
        hops: Table,
        source: str,
        address: tuple[str, int] = ("127.0.0.1", 0),
        interface: str = "127.0.0.1",
        path: str | Path = "",
        symbols: Sequence[str] | None = None,
        publish_levels: bool = False,
        orders_max: int = 1 << 21,
        levels_max: int = 1 << 18,
        instruments_max: int = INSTRUMENTS_MAX,
        receive_buffer_bytes: int = 16 << 20,
        midnight_ns: int = 0,
        book: Book | None = None,
    ) -> None:
        """source is 'udp' (MoldUDP64 at `address`, (host, port), on `interface`) or 'file' (`path`, plain or gzip ITCH with 2-byte
        lengths). midnight_ns, since the epoch, is the venue's midnight, from which its time stamps count. book, empty, is kept in place
        of one of these sizes of the stage's own. ValueError and OSError name what cannot be used."""
        _check(source, ticks, quotes, instruments, len(book.sides) // 2 if book else instruments_max)
        self.reasons = dict(REASONS)
        self.words = np.zeros(FEED_WORDS, np.int64)
        self.words[EXPECTED] = 1
        self.words[MIDNIGHT_NS] = midnight_ns
        self.words[PUBLISH_LEVELS] = publish_levels
        self.words[SWEEP_NEXT] = INSTRUMENTS_TOLD
        self.wanted = np.array([pack_symbol(symbol) for symbol in symbols or []], np.int64)
        self.receive_buffer_bytes = 0
        self.packets = PacketBuffers()
        self._open(source, address, interface, Path(path), receive_buffer_bytes)
        if book is None:
            book = make_book(orders_max=orders_max, levels_max=levels_max, instruments_max=instruments_max)
        decoder = decoder_on(book, stats.records)
        buffer = self.packets.buffer if source == "udp" else np.zeros(FILE_BUFFER_BYTES, np.uint8)
        prefault([*decoder.book[:-1], decoder.tops, decoder.states, buffer])
        decoder.tops["publish"] = symbols is None
        out = ticks.producer(QUOTE)
        self.roles = (out,)
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
            control=control.words()[0],
            words=self.words,
            wanted=self.wanted,
            buffer=buffer,
            headers=self.packets.headers,
            notes=self.packets.notes,
        )

    def _open(self, source: str, address: tuple[str, int], interface: str, path: Path, receive_buffer_bytes: int) -> None:
        if source == "udp":
            self.socket, self.receive_buffer_bytes = open_socket(address, interface, receive_buffer_bytes)
            self.words[SOURCE] = SOURCE_UDP
            self.words[FD] = self.socket.fileno()
            self._close = self.socket.close
        else:
            self.file = ItchFile(path, self.words, self._note_unzip_error)
            self.words[SOURCE] = SOURCE_FILE
            self.words[FD] = self.file.fd
            self._close = self.file.close

    def close(self) -> None:
        """Close the socket or file, and give the ring back. The state must not be stepped after it."""
        if self.words[FD] >= 0:
            self.words[FD] = -1
            self._close()
            for role in self.roles:
                role.close()

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


def _check(source: str, ticks: Ring, quotes: Board, instruments: Board, instruments_max: int) -> None:
    if source not in ("udp", "file"):
        raise ValueError(f"feed source={source!r}: expected 'udp' or 'file'")
    if ticks.capacity < RECORDS_PER_MESSAGE:
        raise ValueError(f"ring {ticks.slots.name}: capacity={ticks.capacity}, expected at least {RECORDS_PER_MESSAGE}")
    for board in (quotes, instruments):
        if len(board.records) < instruments_max:
            raise ValueError(
                f"board {board.segment.name}: lines={len(board.records)}, expected one for each of {instruments_max} instruments"
            )
