"""The order gateway: everything around its kernel. It connects, fills the templates, and says why a session ended.

stage = GatewayStage(orders=..., reports=..., ...)       # connects; the kernel logs in
reason = loop(stage.state, ...)                          # engine.gateway.hot.step, until a reason below 0
stage.close()
"""

import contextlib
import socket
from collections.abc import Sequence
from typing import Any

import numpy as np

from engine.gateway.hot.state import (
    EXECUTION_ENTRY,
    FD,
    MIDNIGHT_NS,
    NEXT_REF,
    ORDER_ENTRY,
    REQUESTED,
    SESSION_WORDS,
    STAMPS,
    SWEEP_NEXT,
    Gateway,
)
from engine.gateway.ouch.hot import encode
from engine.gateway.ouch.hot import session as venue_session
from engine.gateway.ouch.v50 import CANCEL_ORDER, ENTER_ORDER, REPLACE_ORDER
from engine.gateway.waiting import make_pace, make_queue
from engine.layout import ORDER, REPORT, TIF_DAY
from engine.risk.limits import Limits
from engine.risk.make import make_risk, verdicts
from engine.wire.credentials import LOGIN_PAIR_AT, Credentials, undumped
from engine.wire.soupbintcp import CLIENT_HEARTBEAT, LENGTH_BYTES, LOGIN_REQUEST, LOGOUT, UNSEQUENCED
from shm.layout import LINE_BYTES
from shm.ring import Ring, round_up_capacity
from shm.table import Board, Table

READER = "gateway"
CONNECT_PATIENCE_S = 5.0
INBOUND_BYTES = 1 << 16

FATE_UNKNOWN = "orders that were open may still be open there"
REASONS = {
    venue_session.SESSION_LOST: f"the venue closed the connection, or it broke; {FATE_UNKNOWN}",
    venue_session.LOGIN_NOT_AUTHORIZED: "login rejected (A): not authorized; check what gateway.credentials names",
    venue_session.LOGIN_SESSION_UNAVAILABLE: (
        "login rejected (S): the session asked for is not available; check gateway.session, or leave it empty for the current one"
    ),
    venue_session.LOGIN_REFUSED: "login rejected, with a reason that SoupBinTCP does not define",
    venue_session.SERVER_SILENT: f"the venue was silent for 15 s, heartbeats included; {FATE_UNKNOWN}",
    venue_session.MALFORMED: f"the venue sent bytes that are not SoupBinTCP with OUCH 5.0; {FATE_UNKNOWN}",
    venue_session.SESSION_ENDED: "the venue ended the session (Z)",
    venue_session.EXECUTIONS_EXHAUSTED: (
        "the table of executions is full: a repeated one could not be told from a new one; raise executions_max"
    ),
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
        address: tuple[str, int],
        credentials: Credentials,
        limits: Limits,
        midnight_ns: int,
        symbols: Sequence[str],
        session: str = "",
        sequence: int = 1,
        trader: str = "TICKPATH",
        orders_max: int = 1 << 16,
        executions_max: int = 1 << 20,
        pace_per_s: int = 0,
        pace_burst: int = 1,
        queue_max: int = 1_024,
    ) -> None:
        """Connect to `address` and make the kernel's state; the kernel logs in on its first step.

        rules, facts  the gate's two records; whoever makes the instance has written the rules (engine/risk/rules.py)
        credentials   who logs in; not needed any more once this is made
        limits        those at the start, by which the gate's tables are sized
        symbols       what may be traded; an order for another is refused, as is any until the feed has named its instrument
        session       the session to log into, empty for the current one
        sequence      the first of its sequenced packets that is wanted; 0: none of the past
        trader        who answers for the orders, up to 10 characters: told to the venue with each, beside its strategy
        midnight_ns   the venue's midnight in nanoseconds since the epoch: its times count from there
        orders_max    orders that may be open or under way at once, counted from the oldest open one; rounded up to a power of two
        executions_max  places for unique executions; with three quarters of them taken new orders are refused
        pace_per_s, pace_burst  messages a second, and at once, that the venue takes; a pace of 0: as many as there are
        queue_max   orders that may wait for that, or for the socket; more are refused

        ConnectionError where nobody listens at `address`; ValueError for a value that cannot be used.
        """
        host, port = address
        for name, value, most in (("orders_max", orders_max, 1 << 30), ("executions_max", executions_max, 1 << 30)):
            if not 1 <= value <= most:
                raise ValueError(f"{name}={value}: expected 1 to {most}")
        self.risk = make_risk(
            limits,
            symbols,
            quotes=quotes,
            instruments=instruments,
            positions=positions,
            control=control,
            rules=rules,
            facts=facts,
            orders_max=round_up_capacity(orders_max),
        )
        wire = templates(credentials, session, sequence, trader)
        self.socket = connect(host, port)
        words = np.zeros(SESSION_WORDS, np.int64)
        words[FD] = self.socket.fileno()
        words[REQUESTED] = sequence
        words[MIDNIGHT_NS] = midnight_ns
        words[SWEEP_NEXT] = 1
        words[NEXT_REF] = 1
        self.roles = (orders.consumer(READER, ORDER), reports.producer(REPORT))
        self.state = Gateway(
            orders=self.roles[0].end,
            reports=self.roles[1].end,
            risk=self.risk,
            session=words,
            inbound=np.zeros(INBOUND_BYTES, np.uint8),
            wire=wire,
            table=line_aligned(orders_max, ORDER_ENTRY),
            ids=np.zeros(round_up_capacity(orders_max), np.uint32),
            executions=line_aligned(executions_max, EXECUTION_ENTRY),
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

    def close(self) -> None:
        """Say goodbye to the venue, as far as the socket takes it, and let go of the socket and of both ring ends."""
        with contextlib.suppress(OSError):
            self.socket.send(packet(LOGOUT), socket.MSG_DONTWAIT | socket.MSG_NOSIGNAL)
        self.socket.close()
        for role in self.roles:
            role.close()


def connect(host: str, port: int) -> socket.socket:
    """A non-blocking connection without Nagle's delay. ConnectionError names the address and what to do."""
    try:
        made = socket.create_connection((host, port), timeout=CONNECT_PATIENCE_S)
    except OSError as error:
        raise ConnectionError(
            f"gateway.address={host}:{port}: {error.strerror or error}; expected a venue that listens there: "
            "start it first, or check the address"
        ) from None
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    made.setsockopt(socket.IPPROTO_TCP, socket.TCP_QUICKACK, 1)
    made.setblocking(False)
    return made


def packet(kind: int, payload: bytes = b"") -> bytes:
    """A SoupBinTCP packet."""
    return (1 + len(payload)).to_bytes(LENGTH_BYTES, "big") + bytes([kind]) + payload


def templates(credentials: Credentials, session: str, sequence: int, trader: str = "TICKPATH") -> np.ndarray:
    """Every packet that the gateway sends, at its place in `wire` (hot/encode.py). An order fills in only what is its own.

    ValueError names a login field, or a trader, that does not fit. Orders are displayed, for our own account (capacity P), not swept, not
    for a cross.
    """
    if not 1 <= len(trader) <= encode.TRADER_MAX:
        raise ValueError(f"trader={trader!r}: expected 1 to {encode.TRADER_MAX} characters")
    client_id = f"{trader:<{encode.TRADER_MAX}}/S00"
    common: dict[str, Any] = {"display": "Y", "sweep": "N", "client_id": client_id, "appendage_length": 0}
    day = chr(encode.venue_tif(TIF_DAY))
    enter = ENTER_ORDER.encode(user_ref=0, side="B", quantity=0, symbol="", px=0, tif=day, capacity="P", cross="N", **common)
    replace = REPLACE_ORDER.encode(orig_user_ref=0, user_ref=0, quantity=0, px=0, tif=day, **common)
    cancel = CANCEL_ORDER.encode(user_ref=0, quantity=0)
    login = LOGIN_REQUEST.encode(username="", password="", session=session.rjust(10), sequence=str(sequence).rjust(20))
    # The login stays in it, to log in again: no core file has it.
    wire = undumped(encode.WIRE_BYTES)
    for at, raw in (
        (encode.ENTER_AT, packet(UNSEQUENCED, enter)),
        (encode.REPLACE_AT, packet(UNSEQUENCED, replace)),
        (encode.CANCEL_AT, packet(UNSEQUENCED, cancel)),
        (encode.HEARTBEAT_AT, packet(CLIENT_HEARTBEAT)),
        (encode.LOGIN_AT, packet(login[0], login[1:])),
        (encode.SWEEP_AT, packet(UNSEQUENCED, cancel) * encode.SWEEP_CANCELS_MAX),
    ):
        wire[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
    credentials.put(wire, encode.LOGIN_AT + LOGIN_PAIR_AT)
    return wire


def line_aligned(count: int, dtype: np.dtype) -> np.recarray:
    """At least `count` zeroed records, a power of two of them, from a cache line on. Their pages are touched now and not in the loop."""
    capacity = round_up_capacity(count)
    raw = np.empty(capacity * dtype.itemsize + LINE_BYTES, np.uint8)
    raw.fill(0)
    offset = -raw.ctypes.data % LINE_BYTES
    return raw[offset : offset + capacity * dtype.itemsize].view(dtype).view(np.recarray)
