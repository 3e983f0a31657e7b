"""The order gateway: everything around its kernel. It connects, fills the templates, and says why a session ended.

stage = GatewayStage(orders=..., reports=..., ...)       # connects; the kernel logs in
reason = loop(stage.state, ...)                          # engine.gateway.hot.step, until a reason below 0
stage.attend()                                           # now and then: makes the connection that the kernel asks for
stage.close()
"""

import contextlib
import errno
import os
import select
import socket
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from engine.gateway.hot.state import (
    ANY_PX,
    CONNECT_NS,
    CONNECTED,
    CONNECTION,
    DOWN,
    EXECUTION_ENTRY,
    EXPECTED,
    FAILED,
    FD,
    MIDNIGHT_NS,
    NEXT_REF,
    NOTHING,
    OUCH_42,
    OUCH_50,
    PROBING,
    PROTOCOL,
    PX_LAST,
    RANDOM,
    REF_LAST,
    RETRY_NS,
    RETRY_NS_MAX,
    SESSION_WORDS,
    SILENCE_MAX_NS,
    STAMPS,
    STATE,
    SWEEP_NEXT,
    TRIES_MAX,
    USER_REF_MAX,
    WANTED,
    Gateway,
)
from engine.gateway.ouch import v42
from engine.gateway.ouch.hot import encode, life, translate
from engine.gateway.ouch.v50 import ACCOUNT_QUERY, CANCEL_ORDER, ENTER_ORDER, REPLACE_ORDER
from engine.gateway.waiting import make_pace, make_queue
from engine.layout import OPEN_ORDER, ORDER, REPORT, TIF_DAY
from engine.risk.hot import state as gate_state
from engine.risk.limits import Limits
from engine.risk.make import make_risk, verdicts
from engine.wire.credentials import LOGIN_PAIR_AT, Credentials, undumped
from engine.wire.soupbintcp import CLIENT_HEARTBEAT, LENGTH_BYTES, LOGIN_REQUEST, LOGOUT, SILENCE_NS, UNSEQUENCED
from shm.aligned import line_aligned
from shm.ring import Ring, round_up_capacity
from shm.table import Board, Table

READER = "gateway"
PROTOCOLS = {"ouch50": OUCH_50, "ouch42": OUCH_42}
CONNECT_PATIENCE_S = 5.0
INBOUND_BYTES = 1 << 16
NAMED_SYMBOLS = 1 << 10

AGAIN = "it was tried again gateway.reconnect_tries times"
FATE_UNKNOWN = "orders that were open may still be open there"
REASONS = {
    life.SESSION_LOST: f"the venue closed the connection, or it broke; {AGAIN}; {FATE_UNKNOWN}",
    life.LOGIN_NOT_AUTHORIZED: "login rejected (A): not authorized; check what gateway.credentials names",
    life.LOGIN_SESSION_UNAVAILABLE: (
        "login rejected (S): the session asked for is not available; check gateway.session, or leave it empty for the current one; "
        "where there was a session before, the venue has begun another one since, which does not know what became of our orders"
    ),
    life.LOGIN_REFUSED: "login rejected, with a reason that SoupBinTCP does not define",
    life.SERVER_SILENT: f"the venue was silent for gateway.silence_ms, heartbeats included; {AGAIN}; {FATE_UNKNOWN}",
    life.MALFORMED: f"the venue sent bytes that are not SoupBinTCP with OUCH; {AGAIN}; {FATE_UNKNOWN}",
    life.SESSION_ENDED: "the venue ended the session (Z)",
    life.EXECUTIONS_EXHAUSTED: "the table of executions is full: a repeated one could not be told from a new one; raise executions_max",
    life.NOT_CONNECTED: f"no connection to gateway.address could be made again; {AGAIN}; {FATE_UNKNOWN}",
    life.REPORTS_LOST: "the venue does not have all reports of today any more: positions and open orders cannot be reconciled with it",
    life.NOT_RECONCILED: (
        "the session was accepted and could not be reconciled within gateway.silence_ms: the venue did not answer the account query (in "
        "OUCH 4.2: never fell silent), did not cancel an order of an earlier life of this gateway, or told of one for a symbol that the "
        "feed has not named; "
        f"{AGAIN}; {FATE_UNKNOWN}"
    ),
    life.ORDERS_EXHAUSTED: "an order of an earlier life of this gateway has no place in the order table; raise gateway.orders_max",
}


class GatewayStage:
    """The gateway of one venue session. `state` is what the kernel in `step_module` works on; `reasons` say why it stopped."""

    step_module = "engine.gateway.hot.step"
    reasons = REASONS

    def __init__(
        self,
        *,
        orders: Ring,
        reports: Ring,
        quotes: Board,
        instruments: Board,
        positions: Board,
        stats: Table,
        control: Table,
        hops: Table,
        rules: Board,
        facts: Table,
        open_orders: Board | None = None,
        address: tuple[str, int],
        credentials: Credentials,
        limits: Limits,
        midnight_ns: int,
        symbols: Sequence[str],
        session: str = "",
        sequence: int = 1,
        trader: str = "TICKPATH",
        protocol: str = "ouch50",
        orders_max: int = 1 << 16,
        executions_max: int = 1 << 20,
        pace_per_s: int = 0,
        pace_burst: int = 1,
        queue_max: int = 1_024,
        silence_ms: int = SILENCE_NS // 1_000_000,
        connect_ms: int = 5_000,
        reconnect_ms: int = 50,
        reconnect_ms_max: int = 2_000,
        reconnect_tries: int = 30,
        jitter_seed: int = 1,
        connector: Callable[[], socket.socket] | None = None,
    ) -> None:
        """Connect to `address` and make the kernel's state; the kernel logs in on its first step.

        rules, facts  the gate's two records; whoever makes the instance has written the rules (engine/risk/rules.py)
        open_orders   the order table, for others to read; None: memory of this process's own, for orders_max
        credentials   who logs in; not needed any more once this is made
        limits        those at the start, by which the gate's tables are sized
        symbols       what may be traded; an order for another is refused, as is any until the feed has named its instrument
        session       the session to log into, empty for the current one
        sequence      the first of its sequenced packets that is wanted; 0: none of the past
        trader        who answers for the orders: told to the venue with each, beside its strategy; up to 10 characters, in 4.2 up to 4
        protocol      "ouch50" or "ouch42"
        midnight_ns   the venue's midnight in nanoseconds since the epoch: its times count from there
        orders_max    orders that may be open or under way at once, counted from the oldest open one; rounded up to a power of two. With
                      open_orders it is that board's size
        executions_max  places for unique executions; with three quarters of them taken new orders are refused
        pace_per_s, pace_burst  messages a second, and at once, that the venue takes; a pace of 0: as many as there are
        queue_max   orders that may wait for that, or for the socket; more are refused
        silence_ms      after so much silence of the venue the session is lost, and after so much without an acknowledgement of TCP
        connect_ms      how long a connection may take to be made
        reconnect_ms    the longest wait before the first try after a loss; it doubles up to reconnect_ms_max, and each wait is between
                        a half and the whole of it, by jitter_seed
        reconnect_tries tries in a row that may lead to no session; 0: a lost session is over
        connector       gives a non-blocking socket that is connected or about to be, or raises OSError; in place of `address`

        Until it has reconciled, the kernel sends no order: the gateway's lines of `positions` begin at zero, and are what the venue tells.

        ConnectionError where nobody listens at `address`; ValueError for a value that cannot be used.
        """
        host, port = address
        for name, value, most in (("orders_max", orders_max, 1 << 30), ("executions_max", executions_max, 1 << 30)):
            if not 1 <= value <= most:
                raise ValueError(f"{name}={value}: expected 1 to {most}")
        table = line_aligned(round_up_capacity(orders_max), OPEN_ORDER) if open_orders is None else open_orders.records
        self.risk = make_risk(
            limits,
            symbols,
            quotes=quotes,
            instruments=instruments,
            positions=positions,
            control=control,
            rules=rules,
            facts=facts,
            orders_max=len(table),
        )
        if protocol not in PROTOCOLS:
            raise ValueError(f"protocol={protocol!r}: expected one of {sorted(PROTOCOLS)}")
        wire = templates(credentials, session, sequence, trader, protocol)
        self.silence_ms = silence_ms
        self.connector = connector or (lambda: open_connection(host, port, silence_ms))
        self.socket = None if connector else connect(host, port, silence_ms)
        self.opening: socket.socket | None = None
        words = np.zeros(SESSION_WORDS, np.int64)
        words[FD] = self.socket.fileno() if self.socket else -1
        words[STATE] = CONNECTED if self.socket else DOWN
        words[EXPECTED] = sequence
        words[PROBING] = 1 if sequence > 0 else 0
        words[SILENCE_MAX_NS] = silence_ms * 1_000_000
        words[CONNECT_NS] = connect_ms * 1_000_000
        words[RETRY_NS] = reconnect_ms * 1_000_000
        words[RETRY_NS_MAX] = reconnect_ms_max * 1_000_000
        words[TRIES_MAX] = reconnect_tries
        words[RANDOM] = 1 + jitter_seed % 2_147_483_646
        words[MIDNIGHT_NS] = midnight_ns
        words[SWEEP_NEXT] = 1
        words[NEXT_REF] = 1
        words[PROTOCOL] = PROTOCOLS[protocol]
        words[REF_LAST], words[PX_LAST] = (translate.NUMBER_MAX, v42.PX_MAX) if protocol == "ouch42" else (USER_REF_MAX, ANY_PX)
        table[:] = np.zeros((), OPEN_ORDER)
        begin_anew(positions, stats, facts, control)
        self.roles = (orders.consumer(READER, ORDER), reports.producer(REPORT))
        self.state = Gateway(
            orders=self.roles[0].end,
            reports=self.roles[1].end,
            risk=self.risk,
            session=words,
            inbound=np.zeros(INBOUND_BYTES, np.uint8),
            wire=wire,
            table=table,
            ids=np.zeros(len(table), np.uint32),
            named=np.zeros((NAMED_SYMBOLS, 2), np.int64),
            executions=line_aligned(round_up_capacity(executions_max), EXECUTION_ENTRY),
            positions=positions.records,
            stats=stats.records,
            hops=hops.words(),
            control=control.words()[0],
            queue=make_queue(queue_max),
            pace=make_pace(pace_per_s, pace_burst),
            batch=line_aligned(encode.OUTBOX_ORDERS, STAMPS),
        )

    def verdicts(self) -> dict[str, int]:
        """What the risk gate decided so far: orders by sentence, most frequent first."""
        return verdicts(self.risk)

    def attend(self) -> None:
        """Make the connection that the kernel asks for, as far as that goes without waiting; close what it has let go of."""
        words = self.state.session
        if words[FD] < 0 and self.socket is not None:
            self.socket.close()
            self.socket = None
        if words[WANTED] != CONNECTION:
            if self.opening is not None:
                self.opening.close()
                self.opening = None
            return
        try:
            self.opening = self.opening or self.connector()
            if not is_connected(self.opening):
                return
        except OSError:
            if self.opening is not None:
                self.opening.close()
                self.opening = None
            words[WANTED] = FAILED
            return
        self.socket, self.opening = self.opening, None
        words[FD] = self.socket.fileno()
        words[WANTED] = NOTHING
        words[STATE] = CONNECTED

    def close(self) -> None:
        """Say goodbye to the venue, as far as the socket takes it, and let go of the socket and of both ring ends."""
        for held in (self.socket, self.opening):
            if held is not None:
                with contextlib.suppress(OSError):
                    held.send(packet(LOGOUT), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
                held.close()
        for role in self.roles:
            role.close()


def connect(host: str, port: int, silence_ms: int) -> socket.socket:
    """A non-blocking connection, waited for. ConnectionError names the address and what to do."""
    try:
        made = socket.create_connection((host, port), timeout=CONNECT_PATIENCE_S)
    except OSError as error:
        raise ConnectionError(
            f"gateway.address={host}:{port}: {error.strerror or error}; expected a venue that listens there: "
            "start it first, or check the address"
        ) from None
    made.setblocking(False)
    return tuned(made, silence_ms)


def open_connection(host: str, port: int, silence_ms: int) -> socket.socket:
    """A non-blocking connection that is about to be made. OSError where that fails at once."""
    made = tuned(socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK), silence_ms)
    failure = made.connect_ex((host, port))
    if failure not in (0, errno.EINPROGRESS):
        made.close()
        raise OSError(failure, os.strerror(failure))
    return made


def is_connected(opening: socket.socket) -> bool:
    """Whether a connection has been made; False while it is under way. OSError where it failed."""
    writable = select.poll()
    writable.register(opening, select.POLLOUT)
    if not writable.poll(0):
        return False
    if failure := opening.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR):
        raise OSError(failure, os.strerror(failure))
    return True


def tuned(made: socket.socket, silence_ms: int) -> socket.socket:
    """Without Nagle's delay, and given up by the kernel when what we sent is not acknowledged for as long as the venue may be silent."""
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, silence_ms)
    return made


# Words of the gate's facts that are sums over what it keeps of instruments and executions, which begin anew with it.
SUMS = ("PNL", "PEAK", "LOSSES", "GROSS", "NET_LONG", "NET_SHORT", "GROSS_QTY", "SESSION_NOTIONAL", "MESSAGES", "EXECUTIONS", "LINES")


def begin_anew(positions: Board, stats: Table, facts: Table, control: Table) -> None:
    """What an earlier life of this gateway left on its boards is told again by the venue: counted twice it would be wrong."""
    control.records["session_up"][0] = control.records["drained"][0] = 0
    for key in np.flatnonzero(positions.words()[:, 0]):
        positions.write(int(key), np.zeros(1, positions.records.dtype)[0])
    for name in ("open_orders", "unknown_orders"):
        stats.records[name][0] = 0
    for name in SUMS:
        facts.words()[0][getattr(gate_state, name)] = 0


def packet(kind: int, payload: bytes = b"") -> bytes:
    """A SoupBinTCP packet."""
    return (1 + len(payload)).to_bytes(LENGTH_BYTES, "big") + bytes([kind]) + payload


def templates(credentials: Credentials, session: str, sequence: int, trader: str = "TICKPATH", protocol: str = "ouch50") -> np.ndarray:
    """Every packet that the gateway sends, at its place in `wire` (hot/encode.py). An order fills in only what is its own.

    ValueError names a login field, or a trader, that does not fit. Orders are displayed, for our own account (capacity P), not swept, not
    for a cross.
    """
    enter, replace, cancel = _orders_42(trader) if protocol == "ouch42" else _orders_50(trader)
    login = LOGIN_REQUEST.encode(username="", password="", session=session.rjust(10), sequence=str(sequence).rjust(20))
    # The login stays in it, to log in again: no core file has it.
    wire = undumped(encode.WIRE_BYTES)
    for at, raw in (
        (encode.ENTER_AT, packet(UNSEQUENCED, enter)),
        (encode.REPLACE_AT, packet(UNSEQUENCED, replace)),
        (encode.CANCEL_AT, packet(UNSEQUENCED, cancel)),
        (encode.HEARTBEAT_AT, packet(CLIENT_HEARTBEAT)),
        (encode.LOGOUT_AT, packet(LOGOUT)),
        (encode.QUERY_AT, packet(UNSEQUENCED, ACCOUNT_QUERY.encode(appendage_length=0))),
        (encode.LOGIN_AT, packet(login[0], login[1:])),
        (encode.SWEEP_AT, packet(UNSEQUENCED, cancel) * encode.SWEEP_CANCELS_MAX),
    ):
        wire[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
    credentials.put(wire, encode.LOGIN_AT + LOGIN_PAIR_AT)
    return wire


def _orders_50(trader: str) -> tuple[bytes, bytes, bytes]:
    """A new order, a replace and a cancel of OUCH 5.0."""
    if not 1 <= len(trader) <= encode.TRADER_MAX:
        raise ValueError(f"trader={trader!r}: expected 1 to {encode.TRADER_MAX} characters")
    client_id = f"{trader:<{encode.TRADER_MAX}}/S00"
    common: dict[str, Any] = {"display": "Y", "sweep": "N", "client_id": client_id, "appendage_length": 0}
    day = chr(encode.venue_tif(TIF_DAY))
    enter = ENTER_ORDER.encode(user_ref=0, side="B", quantity=0, symbol="", px=0, tif=day, capacity="P", cross="N", **common)
    replace = REPLACE_ORDER.encode(orig_user_ref=0, user_ref=0, quantity=0, px=0, tif=day, **common)
    return enter, replace, CANCEL_ORDER.encode(user_ref=0, quantity=0)


def _orders_42(trader: str) -> tuple[bytes, bytes, bytes]:
    """The same of OUCH 4.2, where trader and strategy stand in the order's token (hot/translate.py)."""
    if not 1 <= len(trader) <= translate.TRADER_BYTES:
        raise ValueError(
            f"trader={trader!r}: expected 1 to {translate.TRADER_BYTES} characters with protocol=ouch42: each order's token has to hold it"
        )
    token = "0" * translate.TRADER_AT + trader
    common: dict[str, Any] = {"quantity": 0, "px": 0, "tif": v42.TIF_MARKET_HOURS, "display": "Y", "sweep": "N", "quantity_min": 0}
    enter = v42.ENTER_ORDER.encode(token=token, side="B", symbol="", firm="", capacity="P", cross="N", customer="", **common)
    replace = v42.REPLACE_ORDER.encode(orig_token=token, token=token, **common)
    return enter, replace, v42.CANCEL_ORDER.encode(token=token, quantity=0)
