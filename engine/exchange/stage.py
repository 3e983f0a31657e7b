"""The simulated exchange: everything around its kernel. It opens the sockets and the file, lists the symbols, makes the arrays.

stage = ExchangeStage(market_address=("127.0.0.1", 26400), order_address=("127.0.0.1", 26401), ...)
reason = loop(stage.state, ...)                          # engine.exchange.hot.step
stage.close()
"""

import os
import socket
import time
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np

from engine.book.book import make_book
from engine.exchange.hot import connection as soup
from engine.exchange.hot import flow as generated
from engine.exchange.hot import snapshot
from engine.exchange.hot.archive import NOTICE_BYTES
from engine.exchange.hot.listing import NOT_LISTED, list_symbol
from engine.exchange.hot.orders import PX_LIMIT
from engine.exchange.hot.replay import READ_FAILED, UNZIPPING_FAILED
from engine.exchange.hot.state import (
    ARCHIVE_SLOT_BYTES,
    ARCHIVE_WORDS,
    CLIENT_FD,
    CLIENT_WORDS,
    EXCHANGE_WORDS,
    FILE_FD,
    FIRST_MATCH,
    FIRST_REF,
    FLOW_GENERATED,
    FLOW_KIND,
    FLOW_NONE,
    FLOW_REPLAY,
    FLOW_WORDS,
    GLIMPSE_WORDS,
    IGNORED,
    LINE_FD,
    LINE_WORDS,
    LISTEN_FD,
    LOG_SLOT_BYTES,
    MARKET_WORDS,
    MIDNIGHT_NS,
    NEXT_MATCH,
    NEXT_REF,
    NO_WRITER,
    NUMBER,
    PACKET_SIZE,
    REPLAY_WORDS,
    SILENCE_NS,
    SYMBOLS,
    VENUE_WORDS,
    VIEWER_WORDS,
    VIEWERS_FD,
    WINDOW,
    WRITER,
    Archive,
    Client,
    Exchange,
    Flow,
    Glimpse,
    Listing,
    Market,
    Replay,
    Rewind,
    Venue,
    Viewer,
)
from engine.exchange.sockets import Address, line_socket, listening_socket, request_socket
from engine.feed.moldudp64 import HEADER_BYTES, PACKET_BYTES_MAX, SESSION_AT, SESSION_BYTES
from engine.feed.peek import check_itch
from engine.feed.source import ItchFile
from engine.layout import INSTRUMENTS_MAX, pack_symbol
from engine.wire.hot.syscalls import PEER_WORDS
from engine.wire.soupbintcp import LENGTH_BYTES, LOGIN_ACCEPTED, TYPE_AT
from shm.roles import Role
from shm.table import Board, Table

FLOWS = {"none": FLOW_NONE, "generated": FLOW_GENERATED, "replay": FLOW_REPLAY}

# Packets that may wait for the socket; a power of two. Half of them hold what one step can publish many times over.
PACKETS = 1024
INBOUND_BYTES = 1 << 16
OUTBOUND_BYTES = 1 << 16
# Snapshots that are served at the same time, and what a viewer may have said that was not read yet.
VIEWERS = 2
VIEWER_INBOUND_BYTES = 1 << 12
REWINDS_MAX = 4
# More than a request, so that a longer datagram is seen to be one.
REQUEST_BUFFER_BYTES = 64
FILE_BUFFER_BYTES = 1 << 20
LOOKUP_ENTRIES = 2 * INSTRUMENTS_MAX

#   0        4       8      an entry of the client's table: its live order's handle (0: none), and the entry's place in `live`
CLIENT_ENTRY = np.dtype([("handle", "u4"), ("place", "u4")])


class ExchangeStage:
    """The simulated exchange. `state` is what the kernel in `step_module` works on; `order_port`, `snapshot_port` and `rewind_ports` are
    where orders, viewers and requests are accepted."""

    step_module = "engine.exchange.hot.step"

    def __init__(
        self,
        *,
        control: Table,
        stats: Table,
        positions: Board,
        market_address: Address,
        order_address: Address,
        username: str,
        password: str,
        session: str = "",
        interface: str = "127.0.0.1",
        market_address_b: Address | None = None,
        interface_b: str = "",
        rewind_addresses: Sequence[Address] = (),
        rewind_messages: int = 1 << 18,
        snapshot_address: Address | None = None,
        snapshot_username: str = "",
        snapshot_password: str = "",
        flow: str = "generated",
        symbols: Mapping[str, float] | None = None,
        rate_per_s: float = 20_000.0,
        seed: int = 1,
        path: str | Path = "",
        speed: float = 1.0,
        silence_ms_max: int = 86_400_000,
        follow_feed: bool = False,
        window_messages: int = 8_192,
        orders_max: int = 1 << 20,
        levels_max: int = 1 << 17,
        client_orders_max: int = 1 << 20,
        reports_max: int = 1 << 18,
        midnight_ns: int = 0,
    ) -> None:
        """Open the sockets and the file, and make the kernel's state. Flow starts when control.phase is TRADING.

        market_address   where MoldUDP64 packets go, a multicast group is sent to on `interface`
        order_address    where OUCH over SoupBinTCP is accepted; port 0 picks one (`order_port`)
        session          name of all its sessions, at most 10 characters; empty: one that no other run has
        market_address_b where every packet goes once more, on `interface_b` (as `interface` where empty); None: there is no line B
        rewind_addresses where at most 4 rewind servers take MoldUDP64 requests for the last rewind_messages messages, or a few more
        snapshot_address where a Glimpse server takes viewers, who log in as snapshot_username with snapshot_password; None: nowhere
        flow             "generated": symbols and their start prices in dollars, rate_per_s events in all, from `seed`;
                         "replay": the ITCH file `path` (plain or gzip), speed 1 its own times, N times faster, 0 flat out, no
                         silence longer than silence_ms_max; "none": the symbols are listed, and only clients trade
        follow_feed      wait for the feed handler: at most window_messages between control.published and control.feed_sequence
        orders_max       orders on the book; client_orders_max: user_refs between the oldest live order and the newest
        reports_max      sequenced packets kept for a client that comes back
        midnight_ns      the exchange's midnight in nanoseconds since the epoch: its times count from there

        OSError for an address or a file that cannot be used; ValueError for any other value. Each names what to change.
        """
        listed = dict(symbols or {})
        self.name = session or f"{time.time_ns() // 1_000_000 % 10**SESSION_BYTES:0{SESSION_BYTES}d}"
        _check_flow(flow, listed, str(path))
        _check_ranges(
            rate_per_s=rate_per_s, speed=speed, silence_ms_max=silence_ms_max, seed=seed, window_messages=window_messages,
            client_orders_max=client_orders_max, reports_max=reports_max, rewind_messages=rewind_messages,
        )  # fmt: skip
        if len(self.name) > SESSION_BYTES or not self.name.isascii():
            raise ValueError(f"session={self.name!r}: expected at most {SESSION_BYTES} ASCII characters")
        if len(rewind_addresses) > REWINDS_MAX:
            raise ValueError(f"rewind_addresses={len(rewind_addresses)} of them: expected at most {REWINDS_MAX}")
        book = make_book(orders_max=orders_max, levels_max=levels_max)
        login = login_bytes("", username, password, self.name)
        snapshot_login = login_bytes("snapshot_", snapshot_username, snapshot_password, self.name)
        replay_words = words(REPLAY_WORDS, {SILENCE_NS: silence_ms_max * 1_000_000})
        # A client that goes is waited for again: only a file can make the exchange leave its loop.
        # It talks to the others over sockets only.
        self.roles: tuple[Role, ...] = ()
        self.reasons = {
            READ_FAILED: f"path={path}: reading it failed; check the disk and the file",
            UNZIPPING_FAILED: f"path={path}: the gzip stream is damaged or cut short",
        }
        self.held: list[socket.socket | ItchFile] = []
        self.file: ItchFile | None = None
        try:
            lines = [self._hold(line_socket("market_address", market_address, interface))]
            if market_address_b is not None:
                lines.append(self._hold(line_socket("market_address_b", market_address_b, interface_b or interface)))
            self.order_socket = self._hold(listening_socket("order_address", order_address))
            rewinds = [self._hold(request_socket("rewind_addresses", address)) for address in rewind_addresses]
            viewing = self._hold(listening_socket("snapshot_address", snapshot_address)) if snapshot_address is not None else None
            if flow == "replay":
                check_itch(Path(path))
                self.file = ItchFile(Path(path), replay_words, self._note_unzip_error)
                self.held.append(self.file)
        except BaseException:
            self._close_descriptors()
            raise
        self.order_port: int = self.order_socket.getsockname()[1]
        self.rewind_ports: list[int] = [server.getsockname()[1] for server in rewinds]
        self.snapshot_port: int = viewing.getsockname()[1] if viewing is not None else 0
        venue = Venue(
            book=book,
            market=make_market(self.name, [line.fileno() for line in lines]),
            client=make_client(login, client_orders_max, reports_max),
            listing=make_listing(list(listed) if flow != "replay" else []),
            positions=positions.records,
            stats=stats.records,
            words=words(VENUE_WORDS, {NEXT_REF: FIRST_REF, NEXT_MATCH: FIRST_MATCH}),
        )
        self.state = Exchange(
            venue=venue,
            flow=make_flow(list(listed.values()), rate_per_s if flow == "generated" else 0.0, seed),
            replay=make_replay(replay_words, self.file.fd if self.file else -1, speed),
            archive=make_archive(rewind_messages if rewinds else 0, snapshots=viewing is not None),
            rewind=make_rewind(self.name, [server.fileno() for server in rewinds]),
            glimpse=make_glimpse(viewing.fileno() if viewing is not None else -1, snapshot_login, orders_max),
            control=control.words()[0],
            words=words(
                EXCHANGE_WORDS,
                {
                    LISTEN_FD: self.order_socket.fileno(),
                    FLOW_KIND: FLOWS[flow],
                    MIDNIGHT_NS: midnight_ns,
                    WINDOW: window_messages if follow_feed else 0,
                },
            ),
        )

    @property
    def ignored(self) -> int:
        """Orders and replaces that OUCH ignores silently: their user_ref was not above the last one."""
        return int(self.state.venue.words[IGNORED])

    def close(self) -> None:
        """Let go of the sockets and the file. Clients and viewers who are connected see their connections end."""
        connections: list[Client | Viewer] = [self.state.venue.client, *self.state.glimpse.viewers]
        for connection in connections:
            fd = int(connection.words[CLIENT_FD])
            if fd >= 0:
                os.close(fd)
                connection.words[CLIENT_FD] = -1
        self._close_descriptors()

    def _hold(self, made: socket.socket) -> socket.socket:
        self.held.append(made)
        return made

    def _note_unzip_error(self, text: str) -> None:
        self.reasons[UNZIPPING_FAILED] = text

    def _close_descriptors(self) -> None:
        for held in self.held:
            held.close()


def words(count: int, values: Mapping[int, int] | None = None) -> np.ndarray:
    made = np.zeros(count, np.int64)
    for index, value in (values or {}).items():
        made[index] = value
    return made


def make_market(session: str, fds: Sequence[int]) -> Market:
    """A publisher for the Mold session on the lines `fds`: the session's name stands in every packet, and in the one without messages
    behind them."""
    packets = np.zeros(PACKETS * PACKET_BYTES_MAX + HEADER_BYTES, np.uint8)
    for place in range(PACKETS + 1):
        packets[place * PACKET_BYTES_MAX + SESSION_AT :][:SESSION_BYTES] = _session_bytes(session)
    return Market(
        packets=packets,
        sizes=np.zeros(PACKETS, np.int64),
        words=words(MARKET_WORDS, {PACKET_SIZE: HEADER_BYTES}),
        lines=np.stack([words(LINE_WORDS, {LINE_FD: fd}) for fd in fds]),
    )


def make_archive(messages: int, *, snapshots: bool) -> Archive:
    """Room for the last `messages` published, none for 0, and for the notices that a snapshot begins with."""
    slots = 1 << (messages - 1).bit_length() if messages else 0
    return Archive(
        log=np.zeros(slots * ARCHIVE_SLOT_BYTES, np.uint8),
        sequences=np.zeros(slots, np.int64),
        notices=np.zeros(INSTRUMENTS_MAX * NOTICE_BYTES if snapshots else 0, np.uint8),
        words=words(ARCHIVE_WORDS),
    )


def make_rewind(session: str, fds: Sequence[int]) -> Rewind:
    answer = np.zeros(PACKET_BYTES_MAX, np.uint8)
    answer[SESSION_AT:][:SESSION_BYTES] = _session_bytes(session)
    return Rewind(np.array(fds, np.int64), np.zeros(PEER_WORDS, np.int64), np.zeros(REQUEST_BUFFER_BYTES, np.uint8), answer)


def make_glimpse(fd: int, login: np.ndarray, orders_max: int) -> Glimpse:
    """The snapshot service behind listening socket `fd`, -1 for none. A viewer's buffer holds a snapshot of everything there can be."""
    room = soup.LOGIN_PACKET_BYTES + INSTRUMENTS_MAX * snapshot.INSTRUMENT_BYTES + orders_max * snapshot.ORDER_BYTES + snapshot.OTHER_BYTES
    viewers = tuple(
        Viewer(
            words=words(VIEWER_WORDS, {CLIENT_FD: -1, NUMBER: number}),
            inbound=np.zeros(VIEWER_INBOUND_BYTES, np.uint8),
            outbound=np.zeros(room if fd >= 0 else 0, np.uint8),
            login=login,
        )
        for number in range(VIEWERS)
    )
    return Glimpse(words(GLIMPSE_WORDS, {VIEWERS_FD: fd, WRITER: NO_WRITER}), viewers)


def _session_bytes(session: str) -> np.ndarray:
    return np.frombuffer(session.encode("ascii").ljust(SESSION_BYTES), np.uint8)


def make_client(login: np.ndarray, orders_max: int, reports_max: int) -> Client:
    places = 1 << max(1, (orders_max - 1).bit_length())
    return Client(
        words=words(CLIENT_WORDS, {CLIENT_FD: -1}),
        table=np.zeros(places, CLIENT_ENTRY).view(np.recarray),
        live=np.zeros(places, np.uint32),
        log=np.zeros(reports_max * LOG_SLOT_BYTES, np.uint8),
        inbound=np.zeros(INBOUND_BYTES, np.uint8),
        outbound=np.zeros(OUTBOUND_BYTES, np.uint8),
        login=login,
    )


def make_listing(symbols: list[str]) -> Listing:
    """Instruments 1 to n are the symbols, in their order."""
    listing = Listing(
        symbols=np.zeros(INSTRUMENTS_MAX, np.int64),
        lookup=np.full(LOOKUP_ENTRIES, NOT_LISTED, np.int32),
        states=np.zeros(INSTRUMENTS_MAX, np.uint8),
        resting=np.zeros(2 * INSTRUMENTS_MAX, np.int64),
    )
    for number, symbol in enumerate(symbols):
        list_symbol(listing, number + 1, pack_symbol(symbol))
    return listing


def make_flow(prices: list[float], rate_per_s: float, seed: int) -> Flow:
    anchor = np.array([round(price * 10_000) for price in prices], np.float64)
    return Flow(
        words=words(FLOW_WORDS, {SYMBOLS: len(prices)}),
        random=np.array([seed], np.uint64),
        mean_ns=np.array([1e9 / rate_per_s if rate_per_s else 0.0]),
        anchor=anchor,
        reference=anchor.copy(),
        moved_ns=np.zeros(len(prices), np.int64),
        refs=np.full(len(prices) * 2 * generated.SLOTS, FIRST_REF - 1, np.int64),
    )


def make_replay(replay_words: np.ndarray, fd: int, speed: float) -> Replay:
    replay_words[FILE_FD] = fd
    return Replay(
        words=replay_words,
        buffer=np.zeros(FILE_BUFFER_BYTES if fd >= 0 else 0, np.uint8),
        pace=np.array([1.0 / speed if speed else 0.0]),
    )


def login_bytes(prefix: str, username: str, password: str, session: str) -> np.ndarray:
    """A connection's login: what must be said, and the packet that lets in who says it. ValueError names the option that does not fit,
    with `prefix` before it."""
    made = bytearray()
    for name, value, length in (
        (f"{prefix}username", username, soup.USERNAME_BYTES),
        (f"{prefix}password", password, soup.PASSWORD_BYTES),
        ("session", session, soup.SESSION_BYTES),
    ):
        if len(value) > length or not value.isascii() or value != value.strip():
            raise ValueError(f"{name}={value!r}: expected at most {length} ASCII characters without spaces around them")
        made += value.encode("ascii").ljust(length)
    accepted = LOGIN_ACCEPTED.encode(session=session.rjust(soup.SESSION_BYTES), sequence="")
    made += len(accepted).to_bytes(LENGTH_BYTES, "big") + accepted
    assert len(made) == soup.LOGIN_PACKET + TYPE_AT + LOGIN_ACCEPTED.length
    return np.frombuffer(bytes(made), np.uint8).copy()


def _check_flow(flow: str, symbols: dict[str, float], path: str) -> None:
    if flow not in FLOWS:
        raise ValueError(f"flow={flow!r}: expected one of {sorted(FLOWS)}")
    if flow == "generated" and not symbols:
        raise ValueError("symbols={}: generated flow needs at least one symbol and its start price")
    if flow == "replay" and not path:
        raise ValueError("path='': flow='replay' needs an ITCH file")
    if len(symbols) >= INSTRUMENTS_MAX:
        raise ValueError(f"symbols={len(symbols)} of them: expected below {INSTRUMENTS_MAX}")
    for symbol, price in symbols.items():
        pack_symbol(symbol)
        if not 1 <= price < PX_LIMIT / 10_000:
            raise ValueError(f"symbols: {symbol}={price}: expected a price from 1 to below {PX_LIMIT // 10_000} dollars")


RANGES: dict[str, tuple[float, float]] = {
    "rate_per_s": (1e-3, 1e8),
    "speed": (0.0, 1e6),
    "silence_ms_max": (1, 86_400_000),
    "seed": (0, (1 << 64) - 1),
    "window_messages": (1, 1 << 30),
    "client_orders_max": (1, 1 << 26),
    "reports_max": (16, 1 << 26),
    "rewind_messages": (1, 1 << 30),
}


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        least, most = RANGES[name]
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: expected {least} to {most}")
