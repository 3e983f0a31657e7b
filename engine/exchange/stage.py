"""The simulated exchange: everything around its kernel. It opens the sockets and the file, lists the symbols, makes the arrays.

stage = ExchangeStage(market_address=("127.0.0.1", 26400), order_address=("127.0.0.1", 26401), ...)
reason = loop(stage.state, ...)                          # engine.exchange.hot.step
stage.close()
"""

import itertools
import os
import socket
import time
from collections.abc import Collection, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np

from engine.book.book import make_book
from engine.exchange import books
from engine.exchange.arrays import (
    login_bytes,
    make_archive,
    make_clients,
    make_flow,
    make_glimpse,
    make_links,
    make_listing,
    make_market,
    make_paper,
    make_replay,
    make_rewind,
    words,
)
from engine.exchange.books import Execution, OpenOrder, Resting
from engine.exchange.conduct import make_conduct
from engine.exchange.hot.connection import LOGIN_PASSWORD, LOGIN_USERNAME
from engine.exchange.hot.core import EVENT, EVENTS, WALK_WORDS
from engine.exchange.hot.delays import ENTRIES_AT
from engine.exchange.hot.orders import PX_LIMIT
from engine.exchange.hot.paper import FROM_RING
from engine.exchange.hot.replay import READ_FAILED, UNZIPPING_FAILED
from engine.exchange.hot.state import (
    CANCEL_BOTH,
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    CLIENT_FD,
    COPIED,
    DELAYING,
    EXCHANGE_WORDS,
    FIRM,
    FIRST_MATCH,
    FIRST_REF,
    FLOW_GENERATED,
    FLOW_KIND,
    FLOW_NONE,
    FLOW_PAPER,
    FLOW_REPLAY,
    HEARD_NS,
    IGNORED,
    KEEPS_ORDERS,
    LINK,
    LINK_WORDS,
    LISTEN_FD,
    LOGGED,
    MIDNIGHT_NS,
    NEXT_MATCH,
    NEXT_REF,
    NOBODY,
    OWNER,
    REPLAY_WORDS,
    ROW,
    SELF_TRADE,
    SENT_NS,
    SILENCE_NS,
    SINCE_NS,
    SPEAKS_42,
    STATE,
    TRADES,
    UP,
    VENUE_WORDS,
    WINDOW,
    Client,
    Exchange,
    Venue,
)
from engine.exchange.hours import OWN_FLOWS, Hours, check_hours
from engine.exchange.menu import AT_ONCE, FAULT_NAMES, NO_FAULTS, Faults, Latency
from engine.exchange.sockets import Address, line_socket, listening_socket, request_socket
from engine.exchange.timetable import begin, make_schedule
from engine.feed.moldudp64 import SESSION_BYTES
from engine.feed.peek import check_itch
from engine.feed.source import ItchFile
from engine.layout import INSTRUMENTS_MAX, MARKET, pack_symbol
from engine.wire.credentials import Credentials
from shm.ring import Ring
from shm.roles import Role
from shm.table import Board, Table

FLOWS = {"none": FLOW_NONE, "generated": FLOW_GENERATED, "replay": FLOW_REPLAY, "paper": FLOW_PAPER}

# The reader of a market's ring.
READER = "exchange"

REWINDS_MAX = 4
ACCOUNTS_MAX = 64


PROTOCOLS = ("ouch42", "ouch50")
SELF_TRADES = {"trade": TRADES, "cancel_newest": CANCEL_NEWEST, "cancel_oldest": CANCEL_OLDEST, "cancel_both": CANCEL_BOTH}


class Account(NamedTuple):
    """Somebody who may trade at the exchange.

    cancel_on_disconnect  whether its open orders are cancelled when its connection ends
    self_trade            what happens when an order of its own meets another one of its owner: "trade", "cancel_newest", "cancel_oldest"
                          or "cancel_both"; the newer order's account has the say
    firm                  its owner: accounts that name the same one have one owner; an account that names none is an owner by itself
    protocol              what it speaks: "ouch50" or "ouch42"
    login                 its username and password where they are a secret; then the two above are empty
    """

    username: str
    password: str
    cancel_on_disconnect: bool = True
    self_trade: str = "trade"
    firm: str = ""
    protocol: str = "ouch50"
    login: Credentials | None = None


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
        cancel_on_disconnect: bool = True,
        self_trade: str = "trade",
        firm: str = "",
        protocol: str = "ouch50",
        accounts: Sequence[Account] = (),
        latency: Latency = AT_ONCE,
        faults: Faults = NO_FAULTS,
        market: Ring | None = None,
        flow: str = "generated",
        symbols: Mapping[str, float] | None = None,
        pro_rata: Collection[str] = (),
        pro_rata_minimum: int = 2,
        hours: Hours = Hours(),  # noqa: B008
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
        accounts         who else may log in: each has orders, reports and positions of its own. The first account is username's, and has
                         cancel_on_disconnect, self_trade, firm, protocol; account n (from 0) has lines n x 65,536 on of the positions board
        latency, faults  how long orders and reports take, and what goes wrong on purpose (engine/exchange/conduct.py)
        flow             "generated": symbols and their start prices in dollars, rate_per_s events in all, from `seed`;
                         "replay": the ITCH file `path` (plain or gzip), speed 1 its own times, N times faster, 0 flat out, no
                         silence longer than silence_ms_max; "none": the symbols are listed, and only clients trade;
                         "paper": what the feed handler hands on in ring `market`, with orders beside it that nobody else sees
        pro_rata         symbols whose orders share what is traded at a price (hot/prorata.py), none below pro_rata_minimum at first;
                         all others have price-time priority
        hours            crosses and halts by the clock
        follow_feed      wait for the feed handler: at most window_messages between control.published and control.feed_sequence
        orders_max       orders on the book; client_orders_max: user_refs between the oldest live order and the newest
        reports_max      sequenced packets kept for a client that comes back
        midnight_ns      the exchange's midnight in nanoseconds since the epoch: its times count from there

        OSError for an address or a file that cannot be used; ValueError for any other value. Each names what to change.
        """
        listed = dict(symbols or {})
        self.name = session or f"{time.time_ns() // 1_000_000 % 10**SESSION_BYTES:0{SESSION_BYTES}d}"
        _check_flow(flow, listed, str(path))
        if (market is None) == (flow == "paper"):
            raise ValueError(f"flow={flow!r}, market={market!r}: flow='paper' and the ring of a market expected together")
        check_hours(hours, listed, flow)
        _check_pro_rata(pro_rata, listed, flow)
        _check_ranges(
            rate_per_s=rate_per_s, speed=speed, silence_ms_max=silence_ms_max, seed=seed, window_messages=window_messages,
            client_orders_max=client_orders_max, reports_max=reports_max, rewind_messages=rewind_messages,
            pro_rata_minimum=pro_rata_minimum,
        )  # fmt: skip
        if len(self.name) > SESSION_BYTES or not self.name.isascii():
            raise ValueError(f"session={self.name!r}: expected at most {SESSION_BYTES} ASCII characters")
        if len(rewind_addresses) > REWINDS_MAX:
            raise ValueError(f"rewind_addresses={len(rewind_addresses)} of them: expected at most {REWINDS_MAX}")
        book = make_book(orders_max=orders_max, levels_max=levels_max)
        self.accounts = (Account(username, password, cancel_on_disconnect, self_trade, firm, protocol), *accounts)
        _check_accounts(self.accounts, len(positions.records))
        logins = [login_bytes("", account.username, account.password, self.name) for account in self.accounts]
        snapshot_login = login_bytes("snapshot_", snapshot_username, snapshot_password, self.name)
        links = make_links(logins, [account.login for account in self.accounts])
        _check_usernames(links.logins)
        conduct = make_conduct(latency, faults, len(links.words), len(logins))
        replay_words = words(REPLAY_WORDS, {SILENCE_NS: silence_ms_max * 1_000_000})
        # A client that goes is waited for again: only a file can make the exchange leave its loop.
        # But for a market on paper it talks to the others over sockets only.
        consumer = market.consumer(READER, MARKET) if market is not None else None
        self.roles: tuple[Role, ...] = () if consumer is None else (consumer,)
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
            clients=_account_rows(
                self.accounts,
                make_clients(
                    len(logins), client_orders_max, reports_max, tokens=any(account.protocol == "ouch42" for account in self.accounts)
                ),
            ),
            listing=make_listing(list(listed) if flow not in ("replay", "paper") else []),
            positions=positions.records,
            stats=stats.records,
            words=words(VENUE_WORDS, {NEXT_REF: FIRST_REF, NEXT_MATCH: FIRST_MATCH}),
            events=np.zeros(EVENTS, EVENT).view(np.recarray),
            walk=words(WALK_WORDS, {}),
        )
        begin(hours, venue, listed)
        venue.listing.minimums[[number for number, symbol in enumerate(listed, start=1) if symbol in pro_rata]] = pro_rata_minimum
        self.state = Exchange(
            venue=venue,
            flow=make_flow(list(listed.values()), rate_per_s if flow == "generated" else 0.0, seed),
            schedule=make_schedule(hours, listed),
            replay=make_replay(replay_words, self.file.fd if self.file else FROM_RING if market else -1, speed if self.file else 0.0),
            paper=make_paper(None if consumer is None else consumer.end),
            archive=make_archive(rewind_messages if rewinds else 0, snapshots=viewing is not None),
            rewind=make_rewind(self.name, [server.fileno() for server in rewinds]),
            glimpse=make_glimpse(viewing.fileno() if viewing is not None else -1, snapshot_login, orders_max),
            links=links,
            conduct=conduct,
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

    def book_of(self, symbol: str) -> list[Resting]:
        """A symbol's orders, bids and then asks, in priority order. KeyError where it is not listed."""
        return books.book_of(self.state.venue, symbol)

    def open_orders(self, account: int = 0) -> dict[int, OpenOrder]:
        """An account's open orders by user_ref."""
        return books.open_orders(self.state.venue, account)

    def executions(self, account: int = 0) -> list[Execution]:
        """The executions among an account's newest reports, oldest first."""
        return books.executions(self.state.venue, account)

    @property
    def struck(self) -> dict[str, int]:
        """How often each fault has struck."""
        return dict(zip(FAULT_NAMES, self.state.conduct.struck.tolist(), strict=True))

    def adopt(self, made: socket.socket, account: int, wall_ns: int) -> None:
        """Let an account in on a connected socket without a login, from its next report on; the socket is the exchange's from now on.
        For whoever builds an exchange into a process."""
        links, clients = self.state.links, self.state.venue.clients
        row = int(np.flatnonzero(links.words[:, STATE] == NOBODY)[0])
        made.setblocking(False)
        link = words(
            LINK_WORDS,
            {
                CLIENT_FD: made.detach(), STATE: UP, HEARD_NS: wall_ns, SENT_NS: wall_ns, SINCE_NS: wall_ns, OWNER: account + 1,
                COPIED: int(clients.words[account, LOGGED]), ROW: row,
            },
        )  # fmt: skip
        links.words[row] = link
        if self.state.conduct.words[DELAYING]:
            self.state.conduct.order_lines[row, :ENTRIES_AT] = 0
        clients.words[account, LINK] = row + 1

    def close(self) -> None:
        """Let go of the sockets and the file. Clients and viewers who are connected see their connections end."""
        for connection in (*self.state.links.words, *(viewer.words for viewer in self.state.glimpse.viewers)):
            if connection[CLIENT_FD] >= 0:
                os.close(int(connection[CLIENT_FD]))
                connection[CLIENT_FD] = -1
        self._close_descriptors()

    def _hold(self, made: socket.socket) -> socket.socket:
        self.held.append(made)
        return made

    def _note_unzip_error(self, text: str) -> None:
        self.reasons[UNZIPPING_FAILED] = text

    def _close_descriptors(self) -> None:
        for held in self.held:
            held.close()


def _account_rows(accounts: Sequence[Account], clients: Client) -> Client:
    """The accounts' rows with what each account asked for."""
    firms = sorted({account.firm for account in accounts if account.firm})
    for account, row in zip(accounts, clients.words, strict=True):
        row[KEEPS_ORDERS] = not account.cancel_on_disconnect
        row[SPEAKS_42] = account.protocol == "ouch42"
        row[SELF_TRADE] = SELF_TRADES[account.self_trade]
        row[FIRM] = firms.index(account.firm) + 1 if account.firm else 0
    return clients


def _check_accounts(accounts: Sequence[Account], lines: int) -> None:
    if len(accounts) > ACCOUNTS_MAX:
        raise ValueError(f"accounts={len(accounts)} of them with the first: expected at most {ACCOUNTS_MAX}")
    for account in accounts:
        if account.self_trade not in SELF_TRADES:
            raise ValueError(f"self_trade={account.self_trade!r}: expected one of {sorted(SELF_TRADES)}")
        if account.protocol not in PROTOCOLS:
            raise ValueError(f"protocol={account.protocol!r}: expected one of {sorted(PROTOCOLS)}")
    if lines < len(accounts) * INSTRUMENTS_MAX:
        raise ValueError(f"positions={lines} lines: expected {INSTRUMENTS_MAX} for each of {len(accounts)} accounts")


def _check_usernames(logins: np.ndarray) -> None:
    """Told by their places: a username may be a secret, and no copy of one is made."""
    names = logins[:, LOGIN_USERNAME:LOGIN_PASSWORD]
    letters = ((names >= ord("A")) & (names <= ord("Z"))) | ((names >= ord("a")) & (names <= ord("z")))
    for first, second in itertools.combinations(range(len(names)), 2):
        differ = names[first] ^ names[second]
        if ((differ == 0) | ((differ == ord(" ")) & letters[first])).all():
            raise ValueError(
                f"accounts {first} and {second} (0 is the gateway's) have one username: expected different usernames, which differ not "
                "only in upper and lower case"
            )


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


def _check_pro_rata(pro_rata: Collection[str], symbols: Mapping[str, float], flow: str) -> None:
    if unknown := sorted(set(pro_rata) - symbols.keys()):
        raise ValueError(f"pro_rata={unknown}: expected symbols of {sorted(symbols)}")
    if pro_rata and flow not in OWN_FLOWS:
        raise ValueError(
            f"pro_rata={sorted(pro_rata)}: expected none with flow={flow!r}: what history traded was decided by price and time"
        )


RANGES: dict[str, tuple[float, float]] = {
    "rate_per_s": (1e-3, 1e8),
    "speed": (0.0, 1e6),
    "silence_ms_max": (1, 86_400_000),
    "seed": (0, (1 << 64) - 1),
    "window_messages": (1, 1 << 30),
    "client_orders_max": (1, 1 << 26),
    "reports_max": (16, 1 << 26),
    "rewind_messages": (1, 1 << 30),
    "pro_rata_minimum": (1, 1_000_000),
}


def _check_ranges(**values: float) -> None:
    for name, value in values.items():
        least, most = RANGES[name]
        if not least <= value <= most:
            raise ValueError(f"{name}={value}: expected {least} to {most}")
