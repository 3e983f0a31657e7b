"""An exchange on a bench: its real stage and kernel, a clock that stands still until told, and the other ends of its sockets."""

import os
import socket
import time
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from engine.exchange.books import user_ref_of
from engine.exchange.hot.state import FILE_FD
from engine.exchange.hot.step import step
from engine.exchange.stage import ExchangeStage
from engine.feed import itch
from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, LENGTH_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT
from engine.gateway.ouch import v50 as ouch
from engine.layout import CONTROL, EXCHANGE_STATS, PHASE_TRADING, POSITION
from engine.messages.hot.stamp import NOW
from engine.runtime.clock import simulated_clock
from engine.wire import soupbintcp
from shm.table import Board, Table
from tests.ouch42_tongue import Tongue

DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
AAPL = DATA / "itch" / "aapl_20190130_093000.itch"

Message = dict[str, Any]

PATIENCE_S = 10.0


class Rig:
    """`step` turns the exchange once; `messages` and `decoded` are what it has published since they were last asked."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        name = f"test-{uuid.uuid4().hex[:12]}"
        self.control = Table.create(f"{name}.control", CONTROL)
        self.stats = Table.create(f"{name}.stats", EXCHANGE_STATS)
        self.positions = Board.create(f"{name}.positions", POSITION, 65_536 * (1 + len(changes.get("accounts", ()))))
        for table in (self.control, self.stats, self.positions):
            table.unlink()
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.listener.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        self.listener.bind(("127.0.0.1", 0))
        self.listener.settimeout(PATIENCE_S)
        options: dict[str, Any] = {
            "market_address": self.listener.getsockname(),
            "order_address": ("127.0.0.1", 0),
            "username": "TICK",
            "password": "PATH",
            "session": "RIG",
            "flow": "none",
            "symbols": {"AAPL": 150.0, "MSFT": 400.0},
            "orders_max": 1 << 16,
            "levels_max": 1 << 14,
        }
        self.stage = ExchangeStage(control=self.control, stats=self.stats, positions=self.positions, **(options | changes))
        self.clock = simulated_clock()
        self.folder = folder
        self.sequence = 1
        self.datagrams = 0
        self.closing: list[Callable[[], Any]] = []

    def close(self) -> None:
        self.stage.close()
        self.listener.close()
        for close in self.closing:
            close()
        for table in (self.control, self.stats, self.positions):
            table.detach()

    def room_for_events(self, count: int) -> None:
        """Let the matching core have room for so many events only."""
        state = self.stage.state
        self.stage.state = state._replace(venue=state.venue._replace(events=state.venue.events[:count]))

    def phase(self, phase: int) -> None:
        self.control.records["phase"][0] = phase

    def step(self, after_ns: int = 0) -> int:
        self.clock.words[NOW] += after_ns
        return int(step(self.stage.state, self.clock))

    def run(self, turns_max: int = 10_000) -> None:
        """Turn until there is nothing to do at this moment."""
        for _ in range(turns_max):
            if self.step() == 0:
                return
        raise AssertionError(f"still busy after {turns_max} turns")

    def count(self, name: str) -> int:
        return int(self.stats.records[0][name])

    def packets(self) -> list[bytes]:
        """The datagrams sent since this was last asked, heartbeats left out."""
        taken = []
        while self.datagrams < self.count("packets"):
            raw = self.listener.recv(65_536)
            assert len(raw) <= PACKET_BYTES_MAX
            if int.from_bytes(raw[COUNT_AT:HEADER_BYTES], "big") not in (0, 0xFFFF):
                self.datagrams += 1
                taken.append(raw)
        return taken

    def messages(self) -> list[bytes]:
        """The ITCH messages in them; their sequence numbers follow one another."""
        found = []
        for packet in self.packets():
            assert int.from_bytes(packet[SEQUENCE_AT:COUNT_AT], "big") == self.sequence
            inside = framed(packet[HEADER_BYTES:])
            assert len(inside) == int.from_bytes(packet[COUNT_AT:HEADER_BYTES], "big")
            self.sequence += len(inside)
            found += inside
        return found

    def decoded(self) -> list[Message]:
        return [decode_itch(raw) for raw in self.messages()]

    def wire_client(self, account: int = 0) -> socket.socket:
        """Put a client that is logged in at the other end of a socket pair, on which nothing is ever under way."""
        theirs, ours = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        for end in (theirs, ours):
            end.setblocking(False)
            end.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1 << 20)
        self.stage.adopt(theirs, account, int(self.clock.words[NOW]))
        self.closing.append(ours.close)
        return ours

    def wire_history(self) -> int:
        """Put a pipe where the file to be replayed was, and return its writing end."""
        readable, writable = os.pipe()
        os.set_blocking(readable, False)
        self.stage.state.replay.words[FILE_FD] = readable
        self.closing += [lambda: os.close(readable), lambda: os.close(writable)]
        return writable


@contextmanager
def rig(folder: Path, *, trading: bool = True, **changes: Any) -> Iterator[Rig]:
    made = Rig(folder, **changes)
    try:
        if trading:
            made.phase(PHASE_TRADING)
        yield made
    finally:
        made.close()


class Bench:
    """An exchange with one client and a history, both given by hand, one message at a time."""

    def __init__(self, made: Rig) -> None:
        self.rig = made
        self.client = made.wire_client()
        self.history = made.wire_history()
        self.heard = b""
        self.market: list[Message] = []
        self.reports: list[Message] = []

    def happen(self, raw: bytes) -> None:
        os.write(self.history, len(raw).to_bytes(2, "big") + raw)
        self._turn()

    def say(self, raw: bytes) -> None:
        self.client.send(packet(soupbintcp.UNSEQUENCED, raw))
        self._turn()

    def _turn(self) -> None:
        self.rig.step()
        self.market += self.rig.decoded()
        while True:
            try:
                self.heard += self.client.recv(65_536)
            except BlockingIOError:
                break
        packets, self.heard = soup_packets(self.heard)
        self.reports += [decode_ouch(payload) for kind, payload in packets if kind == soupbintcp.SEQUENCED]


@contextmanager
def bench(folder: Path, **changes: Any) -> Iterator[Bench]:
    """A bench whose history is at hand: flat out, as each message is written."""
    start = folder / "start.itch"
    raw = system_event("O")
    start.write_bytes(len(raw).to_bytes(2, "big") + raw)
    with rig(folder, flow="replay", path=start, speed=0, **changes) as made:
        yield Bench(made)


class SoupClient:
    """A plain SoupBinTCP client over a real socket, which turns the exchange while it waits."""

    def __init__(self, made: Rig, receive_bytes: int | None = None) -> None:
        self.rig = made
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", made.stage.order_port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        self.raw = b""
        self.closed = False
        self.inbox: list[tuple[int, bytes]] = []
        # How it speaks where its account has 4.2; None: 5.0. Tests say everything in 5.0.
        self.tongue: Tongue | None = None
        made.closing.append(self.socket.close)

    def send(self, raw: bytes) -> None:
        self.socket.sendall(raw)

    def order(self, raw: bytes) -> None:
        self.send(packet(soupbintcp.UNSEQUENCED, self.tongue.to_42(raw, inbound=True) if self.tongue else raw))

    def login(self, username: str = "TICK", password: str = "PATH", session: str = "", sequence: int | str = 1) -> tuple[int, bytes]:
        """Log in, and return the answer."""
        spoken = {account.username: account.protocol for account in self.rig.stage.accounts}
        self.tongue = Tongue(client_token) if spoken.get(username) == "ouch42" else None
        asked = soupbintcp.LOGIN_REQUEST.encode(username=username, password=password, session=session, sequence=str(sequence))
        self.send(packet(asked[0], asked[1:]))
        return self.receive(1)[0]

    def poll(self) -> None:
        self.rig.step()
        try:
            got = self.socket.recv(65_536)
        except BlockingIOError:
            return
        except ConnectionResetError:
            got = b""
        self.closed = self.closed or not got
        packets, self.raw = soup_packets(self.raw + got)
        self.inbox += packets

    def until(self, condition: Callable[[], Any], what: str) -> None:
        """Turn the exchange and read until it is so."""
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}; inbox={self.inbox}"
            self.poll()

    def receive(self, count: int) -> list[tuple[int, bytes]]:
        """The next `count` packets, as type and payload."""
        self.until(lambda: len(self.inbox) >= count, f"{count} packets")
        taken, self.inbox = self.inbox[:count], self.inbox[count:]
        return taken

    def reports(self, count: int) -> list[Message]:
        """The next `count` sequenced messages. Only heartbeats may stand between them."""
        taken: list[Message] = []
        while len(taken) < count:
            kind, payload = self.receive(1)[0]
            assert kind in (soupbintcp.SEQUENCED, soupbintcp.SERVER_HEARTBEAT), (kind, payload)
            taken += [self.decoded(payload)] if kind == soupbintcp.SEQUENCED else []
        return taken

    def decoded(self, payload: bytes) -> Message:
        return {"type": chr(payload[0]), **self.tongue.to_50(payload)} if self.tongue else decode_ouch(payload)

    def wait_closed(self) -> None:
        self.until(lambda: self.closed, "the connection to end")


def client_token(user_ref: int) -> str:
    """A token that is none of our gateway's."""
    return f"a-{user_ref:08}.Zz~"


def packet(kind: int, payload: bytes = b"") -> bytes:
    return (1 + len(payload)).to_bytes(2, "big") + bytes([kind]) + payload


def framed(raw: bytes) -> list[bytes]:
    """What stands after two-byte lengths."""
    found = []
    while raw:
        length = int.from_bytes(raw[:LENGTH_BYTES], "big")
        found.append(raw[LENGTH_BYTES : LENGTH_BYTES + length])
        raw = raw[LENGTH_BYTES + length :]
    return found


def soup_packets(raw: bytes) -> tuple[list[tuple[int, bytes]], bytes]:
    """Whole packets as type and payload, and what is left."""
    found = []
    while len(raw) >= 2 and len(raw) >= 2 + int.from_bytes(raw[:2], "big"):
        length = int.from_bytes(raw[:2], "big")
        found.append((raw[2], raw[3 : 2 + length]))
        raw = raw[2 + length :]
    return found, raw


def decode_itch(raw: bytes) -> Message:
    return {"type": chr(raw[0]), **itch.BY_CODE[raw[0]].decode(raw)}


def decode_ouch(raw: bytes) -> Message:
    return {"type": chr(raw[0]), **ouch.OUTBOUND_BY_CODE[raw[0]].decode(raw)}


def enter(user_ref: int, side: str, qty: int, px: int, *, symbol: str = "AAPL", tif: str = "0", client_id: str = "ME") -> bytes:
    return ouch.ENTER_ORDER.encode(
        user_ref=user_ref, side=side, quantity=qty, symbol=symbol, px=px, tif=tif, display="Y", capacity="P", sweep="N", cross="N",
        client_id=client_id, appendage_length=0,
    )  # fmt: skip


def replace(orig: int, user_ref: int, qty: int, px: int, *, tif: str = "0") -> bytes:
    return ouch.REPLACE_ORDER.encode(
        orig_user_ref=orig, user_ref=user_ref, quantity=qty, px=px, tif=tif, display="N", sweep="Y", client_id="AGAIN", appendage_length=0
    )


def cancel(user_ref: int, qty: int = 0) -> bytes:
    return ouch.CANCEL_ORDER.encode(user_ref=user_ref, quantity=qty)


def mass_cancel(user_ref: int, symbol: str = "", firm: str = "HERE") -> bytes:
    return ouch.MASS_CANCEL.encode(user_ref=user_ref, firm=firm, symbol=symbol, appendage_length=0)


def disable(user_ref: int, *, enable: bool = False) -> bytes:
    return (ouch.ENABLE_ENTRY if enable else ouch.DISABLE_ENTRY).encode(user_ref=user_ref, firm="HERE", appendage_length=0)


def query() -> bytes:
    return ouch.ACCOUNT_QUERY.encode(appendage_length=0)


def system_event(event: str, now: int = 0) -> bytes:
    return itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=now, event=event)


def add(ref: int, side: str, qty: int, px: int, *, now: int = 0, locate: int = 1, symbol: str = "AAPL", mpid: str = "") -> bytes:
    values: dict[str, Any] = {
        "locate": locate,
        "tracking": 7,
        "timestamp": now,
        "ref": ref,
        "side": side,
        "shares": qty,
        "stock": symbol,
        "px": px,
    }
    return itch.ADD_ORDER_MPID.encode(attribution=mpid, **values) if mpid else itch.ADD_ORDER.encode(**values)


def executed(ref: int, qty: int, match: int, *, now: int = 0, locate: int = 1, px: int | None = None) -> bytes:
    values: dict[str, Any] = {"locate": locate, "tracking": 8, "timestamp": now, "ref": ref, "shares": qty, "match": match}
    return itch.ORDER_EXECUTED.encode(**values) if px is None else itch.ORDER_EXECUTED_PRICE.encode(printable="Y", px=px, **values)


def reduced(ref: int, qty: int, *, now: int = 0, locate: int = 1) -> bytes:
    return itch.ORDER_CANCEL.encode(locate=locate, tracking=9, timestamp=now, ref=ref, shares=qty)


def deleted(ref: int, *, now: int = 0, locate: int = 1) -> bytes:
    return itch.ORDER_DELETE.encode(locate=locate, tracking=10, timestamp=now, ref=ref)


def replaced(ref: int, new_ref: int, qty: int, px: int, *, now: int = 0, locate: int = 1) -> bytes:
    return itch.ORDER_REPLACE.encode(locate=locate, tracking=11, timestamp=now, ref=ref, new_ref=new_ref, shares=qty, px=px)


def open_orders(made: Rig) -> list[Message]:
    """Every order on the exchange's book, read from its arrays in priority order."""
    from engine.book.hot.book import NONE, order_ref, worse_level

    venue = made.stage.state.venue
    book = venue.book
    found = []
    for row in np.flatnonzero(book.sides["count"]).tolist():
        for depth in range(int(book.sides[row]["count"])):
            level = worse_level(book, row >> 1, 83 if row & 1 else 66, depth)
            handle = int(book.levels[level]["head"])
            while handle != NONE:
                order = book.orders[handle]
                found.append(
                    {
                        "ref": int(order_ref(book, handle)),
                        "locate": row >> 1,
                        "side": "S" if row & 1 else "B",
                        "px": int(book.levels[level]["px"]),
                        "qty": int(order["qty"]),
                        "user_ref": user_ref_of(venue, int(order["owner"]) - 1, int(order["user_ref"])) if order["owner"] else 0,
                        "mpid": "" if order["owner"] else int(order["user_ref"]).to_bytes(4, "big").decode().rstrip("\0 "),
                        "executed": int(order["executed"]),
                    }
                )
                handle = int(order["next"])
    return found
