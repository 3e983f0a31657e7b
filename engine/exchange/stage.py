"""The simulated exchange: everything around its kernel. It opens the sockets and the file, lists the symbols, makes the arrays.

stage = ExchangeStage(market_address=("127.0.0.1", 26400), order_address=("127.0.0.1", 26401), ...)
reason = loop(stage.state, ...)                          # engine.exchange.hot.step
stage.close()
"""

import contextlib
import os
import socket
import time
from collections.abc import Mapping
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from engine.book.book import make_book
from engine.exchange.hot import flow as generated
from engine.exchange.hot import session as soup
from engine.exchange.hot.listing import NOT_LISTED, list_symbol
from engine.exchange.hot.orders import PX_LIMIT
from engine.exchange.hot.replay import READ_FAILED, UNZIPPING_FAILED
from engine.exchange.hot.state import (
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
    IGNORED,
    LISTEN_FD,
    LOG_SLOT_BYTES,
    MARKET_FD,
    MARKET_WORDS,
    MIDNIGHT_NS,
    NEXT_MATCH,
    NEXT_REF,
    PACKET_SIZE,
    REPLAY_WORDS,
    SILENCE_NS,
    SYMBOLS,
    VENUE_WORDS,
    WINDOW,
    Client,
    Exchange,
    Flow,
    Listing,
    Market,
    Replay,
    Venue,
)
from engine.feed.moldudp64 import HEADER_BYTES, PACKET_BYTES_MAX, SESSION_AT, SESSION_BYTES
from engine.feed.peek import check_itch
from engine.feed.source import ItchFile
from engine.layout import INSTRUMENTS_MAX, pack_symbol
from engine.wire.soupbintcp import LENGTH_BYTES, LOGIN_ACCEPTED, TYPE_AT
from shm.roles import Role
from shm.table import Board, Table

FLOWS = {"none": FLOW_NONE, "generated": FLOW_GENERATED, "replay": FLOW_REPLAY}

# Packets that may wait for the socket; a power of two. Half of them hold what one step can publish many times over.
PACKETS = 1024
SOCKET_SEND_BYTES = 4 << 20
INBOUND_BYTES = 1 << 16
OUTBOUND_BYTES = 1 << 16
FILE_BUFFER_BYTES = 1 << 20
LOOKUP_ENTRIES = 2 * INSTRUMENTS_MAX

#   0        4       8      an entry of the client's table: its live order's handle (0: none), and the entry's place in `live`
CLIENT_ENTRY = np.dtype([("handle", "u4"), ("place", "u4")])


class ExchangeStage:
    """The simulated exchange. `state` is what the kernel in `step_module` works on; `order_port` is where orders are accepted."""

    step_module = "engine.exchange.hot.step"

    def __init__(
        self,
        *,
        control: Table,
        stats: Table,
        positions: Board,
        market_address: tuple[str, int],
        order_address: tuple[str, int],
        username: str,
        password: str,
        session: str = "",
        interface: str = "127.0.0.1",
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
        session          name of both sessions, at most 10 characters; empty: one that no other run has
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
        _check(self.name, flow, listed, rate_per_s, seed, speed, str(path), silence_ms_max, window_messages, client_orders_max, reports_max)
        book = make_book(orders_max=orders_max, levels_max=levels_max)
        login = login_bytes(username, password, self.name)
        replay_words = words(REPLAY_WORDS, {SILENCE_NS: silence_ms_max * 1_000_000})
        # A client that goes is waited for again: only a file can make the exchange leave its loop.
        # It talks to the others over sockets only.
        self.roles: tuple[Role, ...] = ()
        self.reasons = {
            READ_FAILED: f"path={path}: reading it failed; check the disk and the file",
            UNZIPPING_FAILED: f"path={path}: the gzip stream is damaged or cut short",
        }
        self.market_socket: socket.socket | None = None
        self.order_socket: socket.socket | None = None
        self.file: ItchFile | None = None
        try:
            self.market_socket = market_socket(market_address, interface)
            self.order_socket = order_socket(order_address)
            if flow == "replay":
                check_itch(Path(path))
                self.file = ItchFile(Path(path), replay_words, self._note_unzip_error)
        except BaseException:
            self._close_descriptors()
            raise
        self.order_port: int = self.order_socket.getsockname()[1]
        venue = Venue(
            book=book,
            market=make_market(self.name, self.market_socket.fileno()),
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
        """Let go of the sockets and the file. A client that is connected sees its connection end."""
        fd = int(self.state.venue.client.words[CLIENT_FD])
        if fd >= 0:
            os.close(fd)
            self.state.venue.client.words[CLIENT_FD] = -1
        self._close_descriptors()

    def _note_unzip_error(self, text: str) -> None:
        self.reasons[UNZIPPING_FAILED] = text

    def _close_descriptors(self) -> None:
        for held in (self.market_socket, self.order_socket, self.file):
            if held is not None:
                held.close()


def words(count: int, values: Mapping[int, int] | None = None) -> np.ndarray:
    made = np.zeros(count, np.int64)
    for index, value in (values or {}).items():
        made[index] = value
    return made


def make_market(session: str, fd: int) -> Market:
    """A publisher for the Mold session: its name stands in every packet, and in the one without messages behind them."""
    packets = np.zeros(PACKETS * PACKET_BYTES_MAX + HEADER_BYTES, np.uint8)
    name = np.frombuffer(session.encode("ascii").ljust(SESSION_BYTES), np.uint8)
    for place in range(PACKETS + 1):
        packets[place * PACKET_BYTES_MAX + SESSION_AT :][:SESSION_BYTES] = name
    return Market(packets, np.zeros(PACKETS, np.int64), words(MARKET_WORDS, {MARKET_FD: fd, PACKET_SIZE: HEADER_BYTES}))


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


def login_bytes(username: str, password: str, session: str) -> np.ndarray:
    """Client.login: what a client must say, and the packet that lets it in. ValueError names a field that does not fit."""
    made = bytearray()
    for name, value, length in (
        ("username", username, soup.USERNAME_BYTES),
        ("password", password, soup.PASSWORD_BYTES),
        ("session", session, soup.SESSION_BYTES),
    ):
        if len(value) > length or not value.isascii() or value != value.strip():
            raise ValueError(f"{name}={value!r}: expected at most {length} ASCII characters without spaces around them")
        made += value.encode("ascii").ljust(length)
    accepted = LOGIN_ACCEPTED.encode(session=session.rjust(soup.SESSION_BYTES), sequence="")
    made += len(accepted).to_bytes(LENGTH_BYTES, "big") + accepted
    assert len(made) == soup.LOGIN_PACKET + TYPE_AT + LOGIN_ACCEPTED.length
    return np.frombuffer(bytes(made), np.uint8).copy()


def market_socket(address: tuple[str, int], interface: str) -> socket.socket:
    """A connected UDP socket. OSError names the address."""
    host, port = address
    made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SOCKET_SEND_BYTES)
        if IPv4Address(host).is_multicast:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(interface))
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        made.connect((host, port))
        made.setblocking(False)
    except (OSError, ValueError, OverflowError) as error:
        made.close()
        raise OSError(
            f"market_address={host}:{port} interface={interface}: {error}; expected an IPv4 address that packets can be sent to from here"
        ) from None
    return made


def order_socket(address: tuple[str, int]) -> socket.socket:
    """A listening socket whose connections send at once. OSError names the address."""
    host, port = address
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((host, port))
        made.listen(8)
        made.setblocking(False)
    except (OSError, OverflowError) as error:
        made.close()
        with contextlib.suppress(AttributeError):
            if error.errno == 98:  # type: ignore[union-attr]
                raise OSError(
                    f"order_address={host}:{port}: in use by another program; stop it, or choose another port (0 picks one)"
                ) from None
        raise OSError(f"order_address={host}:{port}: {error}; expected an IPv4 address of this machine and a free port") from None
    return made


def _check(
    session: str, flow: str, symbols: dict[str, float], rate_per_s: float, seed: int, speed: float, path: str, silence_ms_max: int,
    window_messages: int, client_orders_max: int, reports_max: int,
) -> None:  # fmt: skip
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
    for name, value, least, most in (
        ("rate_per_s", rate_per_s, 1e-3, 1e8),
        ("speed", speed, 0.0, 1e6),
        ("silence_ms_max", silence_ms_max, 1, 86_400_000),
        ("seed", seed, 0, (1 << 64) - 1),
        ("window_messages", window_messages, 1, 1 << 30),
        ("client_orders_max", client_orders_max, 1, 1 << 26),
        ("reports_max", reports_max, 16, 1 << 26),
    ):
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: expected {least} to {most}")
    if len(session) > SESSION_BYTES or not session.isascii():
        raise ValueError(f"session={session!r}: expected at most {SESSION_BYTES} ASCII characters")
