"""The arrays that the exchange's kernels work on (hot/state.py says what each is): made here, with nothing in them yet."""

from collections.abc import Mapping, Sequence

import numpy as np

from engine.exchange.hot import connection as soup
from engine.exchange.hot import flow as generated
from engine.exchange.hot import ouch42, snapshot
from engine.exchange.hot.archive import NOTICE_BYTES
from engine.exchange.hot.listing import NOT_LISTED, list_symbol
from engine.exchange.hot.state import (
    ARCHIVE_SLOT_BYTES,
    ARCHIVE_WORDS,
    CLIENT_FD,
    CLIENT_WORDS,
    FILE_FD,
    FIRST_REF,
    FLOW_WORDS,
    GLIMPSE_WORDS,
    LINE_FD,
    LINE_WORDS,
    LINK_WORDS,
    LOG_SLOT_BYTES,
    MARKET_WORDS,
    NO_WRITER,
    NUMBER,
    PACKET_SIZE,
    ROW,
    SYMBOLS,
    VIEWERS_FD,
    WRITER,
    Archive,
    Client,
    Connection,
    Flow,
    Glimpse,
    Links,
    Listing,
    Market,
    Paper,
    Replay,
    Rewind,
)
from engine.feed.moldudp64 import HEADER_BYTES, PACKET_BYTES_MAX, SESSION_AT, SESSION_BYTES
from engine.layout import INSTRUMENTS_MAX, MARKET, pack_symbol
from engine.wire.credentials import Credentials, undumped
from engine.wire.hot.syscalls import PEER_WORDS
from engine.wire.soupbintcp import LENGTH_BYTES, LOGIN_ACCEPTED, TYPE_AT
from shm.hot import ConsumerEnd
from shm.layout import PRODUCER
from shm.ring import round_up_capacity

# Packets that may wait for the socket; a power of two. Half of them hold what one step can publish many times over.
PACKETS = 1024
INBOUND_BYTES = 1 << 16
OUTBOUND_BYTES = 1 << 16
# Connections that may be there without having logged in, or while others of their account end.
STRANGERS = 8
# Snapshots that are served at the same time, and what a viewer may have said that was not read yet.
VIEWERS = 2
VIEWER_INBOUND_BYTES = 1 << 12
# More than a request, so that a longer datagram is seen to be one.
REQUEST_BUFFER_BYTES = 64
FILE_BUFFER_BYTES = 1 << 20
LOOKUP_ENTRIES = 2 * INSTRUMENTS_MAX

#   0        4       8      an entry of an account's table: its live order's handle (0: none), and the entry's place in `live`
CLIENT_ENTRY = np.dtype([("handle", "u4"), ("place", "u4")])
#   0       8      16     20     24       28     32     14 characters, their firm, the next in their chain, their number
TOKEN_ENTRY = np.dtype([("first", "i8"), ("rest", "i8"), ("firm", "u4"), ("next", "u4"), ("number", "u4"), ("pad", "u4")])


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
        Connection(
            words=words(LINK_WORDS, {CLIENT_FD: -1, NUMBER: number}),
            inbound=np.zeros(VIEWER_INBOUND_BYTES, np.uint8),
            outbound=np.zeros(room if fd >= 0 else 0, np.uint8),
            login=login,
        )
        for number in range(VIEWERS)
    )
    return Glimpse(words(GLIMPSE_WORDS, {VIEWERS_FD: fd, WRITER: NO_WRITER}), viewers)


def _session_bytes(session: str) -> np.ndarray:
    return np.frombuffer(session.encode("ascii").ljust(SESSION_BYTES), np.uint8)


def make_clients(accounts: int, orders_max: int, reports_max: int, *, tokens: bool = False) -> Client:
    """Rows for so many accounts; `tokens`: some of them speak OUCH 4.2."""
    places = round_up_capacity(orders_max)
    named = places if tokens else 1
    return Client(
        words=np.zeros((accounts, CLIENT_WORDS), np.int64),
        table=np.zeros((accounts, places), CLIENT_ENTRY).view(np.recarray),
        live=np.zeros((accounts, places), np.uint32),
        log=np.zeros((accounts, reports_max * LOG_SLOT_BYTES), np.uint8),
        tokens=np.zeros((accounts, named), TOKEN_ENTRY).view(np.recarray),
        chains=np.zeros((accounts, named), np.uint32),
        scratch=np.zeros(ouch42.SCRATCH_BYTES, np.uint8),
    )


def make_links(logins: list[np.ndarray], secrets: Sequence[Credentials | None]) -> Links:
    """A connection for each account, and some more for those who have not logged in yet. An account's secret, where it has one, takes the
    place of the pair in its login. No core file has the logins, nor what clients say, which begins with theirs."""
    rows = len(logins) + STRANGERS
    kept = undumped(sum(login.size for login in logins)).reshape(len(logins), -1)
    for row, login, secret in zip(kept, logins, secrets, strict=True):
        row[:] = login
        if secret is not None:
            secret.put(row, soup.LOGIN_USERNAME)
    links = Links(
        words=np.zeros((rows, LINK_WORDS), np.int64),
        inbound=undumped(rows * INBOUND_BYTES).reshape(rows, INBOUND_BYTES),
        outbound=np.zeros((rows, OUTBOUND_BYTES), np.uint8),
        logins=kept,
    )
    links.words[:, CLIENT_FD] = -1
    links.words[:, ROW] = np.arange(rows)
    return links


def make_listing(symbols: list[str]) -> Listing:
    """Instruments 1 to n are the symbols, in their order."""
    listing = Listing(
        symbols=np.zeros(INSTRUMENTS_MAX, np.int64),
        lookup=np.full(LOOKUP_ENTRIES, NOT_LISTED, np.int32),
        states=np.zeros(INSTRUMENTS_MAX, np.uint8),
        resting=np.zeros(2 * INSTRUMENTS_MAX, np.int64),
        minimums=np.zeros(INSTRUMENTS_MAX, np.uint32),
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
        buffer=np.zeros(0 if fd == -1 else FILE_BUFFER_BYTES, np.uint8),
        pace=np.array([1.0 / speed if speed else 0.0]),
    )


def make_paper(end: ConsumerEnd | None) -> Paper:
    """What trades beside the market in a ring; without one, arrays of the same types that nobody looks at."""
    if end is None:
        slots = np.zeros(2, MARKET)
        slots.setflags(write=False)
        end = ConsumerEnd(slots, *(np.zeros(PRODUCER.itemsize // 8, np.int64) for _ in range(3)))
    return Paper(
        ring=end,
        raw=end.slots.view(np.ndarray).view(np.uint8),
        validity=np.zeros(INSTRUMENTS_MAX, np.uint8),
        told=np.zeros(INSTRUMENTS_MAX, np.uint8),
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
            shown = name if name.endswith("password") else f"{name}={value!r}"
            raise ValueError(f"{shown}: expected at most {length} ASCII characters without spaces around them")
        made += value.encode("ascii").ljust(length)
    accepted = LOGIN_ACCEPTED.encode(session=session.rjust(soup.SESSION_BYTES), sequence="")
    made += len(accepted).to_bytes(LENGTH_BYTES, "big") + accepted
    assert len(made) == soup.LOGIN_PACKET + TYPE_AT + LOGIN_ACCEPTED.length
    return np.frombuffer(bytes(made), np.uint8).copy()
