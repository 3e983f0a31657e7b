"""A venue's recovery services in plain Python, stepped by the test that owns them, and a book of its messages to compare with."""

import contextlib
import socket
from typing import Any

from engine.book.book import Book
from engine.book.hot.book import NONE, order_ref
from engine.feed import itch
from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.layout import BUY, SELL
from engine.wire.soupbintcp import END_OF_SESSION, LOGIN_ACCEPTED, LOGIN_REJECTED, SEQUENCED
from tests.itch_flow import SESSION, packet

Orders = dict[int, tuple[int, int, int, int]]


class BookModel:
    """Every live order of a stream of ITCH messages: ref -> (locate, side, px, shares), those of a level in their order of priority."""

    def __init__(self) -> None:
        self.orders: Orders = {}

    def apply(self, raw: bytes) -> None:
        message = itch.BY_CODE[raw[0]]
        values: dict[str, Any] = message.decode(raw)
        if message in (itch.ADD_ORDER, itch.ADD_ORDER_MPID):
            self.orders[values["ref"]] = (values["locate"], ord(values["side"]), values["px"], values["shares"])
        elif message in (itch.ORDER_EXECUTED, itch.ORDER_EXECUTED_PRICE, itch.ORDER_CANCEL):
            locate, side, px, shares = self.orders[values["ref"]]
            if shares == values["shares"]:
                del self.orders[values["ref"]]
            else:
                self.orders[values["ref"]] = (locate, side, px, shares - values["shares"])
        elif message is itch.ORDER_DELETE:
            del self.orders[values["ref"]]
        elif message is itch.ORDER_REPLACE:
            locate, side, _, _ = self.orders.pop(values["ref"])
            self.orders[values["new_ref"]] = (locate, side, values["px"], values["shares"])

    def touch(self, locate: int) -> dict[str, int]:
        found = {}
        for side, px_name, size_name, best in ((BUY, "bid_px", "bid_sz", max), (SELL, "ask_px", "ask_sz", min)):
            rests = [(px, shares) for where, of, px, shares in self.orders.values() if (where, of) == (locate, side)]
            found[px_name] = best((px for px, _ in rests), default=0)
            found[size_name] = sum(shares for px, shares in rests if px == found[px_name])
        return found


def model_at(messages: list[bytes], count: int) -> BookModel:
    model = BookModel()
    for raw in messages[:count]:
        model.apply(raw)
    return model


def queues(orders: Orders) -> dict[tuple[int, int, int], list[tuple[int, int]]]:
    """(ref, shares) of every level, first in, first out."""
    found: dict[tuple[int, int, int], list[tuple[int, int]]] = {}
    for ref, (locate, side, px, shares) in orders.items():
        found.setdefault((locate, side, px), []).append((ref, shares))
    return found


def queues_of(book: Book) -> dict[tuple[int, int, int], list[tuple[int, int]]]:
    """The same of a real book."""
    found = {}
    for row, record in enumerate(book.sides):
        for level in book.ids[int(record["start"]) : int(record["start"]) + int(record["count"])].tolist():
            place = book.levels[level]
            queue, handle = [], int(place["head"])
            while handle != NONE:
                queue.append((int(order_ref(book, handle)), int(book.orders[handle]["qty"])))
                handle = int(book.orders[handle]["next"])
            found[row // 2, int(place["side"]), int(place["px"])] = queue
    return found


class RewindServer:
    """Answers requests for what `messages` has, number 1 first, with up to `most` messages; or stays silent."""

    def __init__(self, messages: list[bytes], *, most: int = 20, first: int = 1, session: str = SESSION) -> None:
        self.messages = messages
        self.most = most
        self.first = first
        self.session = session
        self.silent = False
        self.requests: list[tuple[int, int]] = []
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()

    def turn(self) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                raw, sender = self.socket.recvfrom(2048)
                assert len(raw) == 20
                assert raw[:10] == SESSION.encode().ljust(10)
                sequence, count = int.from_bytes(raw[10:18], "big"), int.from_bytes(raw[18:], "big")
                self.requests.append((sequence, count))
                begin = (sequence - self.first) % (1 << 64)
                found = self.messages[begin : begin + min(count, self.most)]
                if found and not self.silent:
                    self.answer(sequence, found, sender)

    def answer(self, sequence: int, found: list[bytes], sender: Any) -> None:
        self.socket.sendto(packet(sequence, found, session=self.session), sender)

    def close(self) -> None:
        self.socket.close()


class SnapshotServer:
    """Sends every client the book as of the message before number `sequence`, a few packets a turn."""

    def __init__(self, messages: list[bytes], *, pieces: int = 1 << 20) -> None:
        self.messages = messages
        self.sequence = 0
        self.session = SESSION
        self.refusing = False
        self.cut: int | None = None
        self.endless = False
        self.extra: list[bytes] = []
        self.pieces = pieces
        self.logins = 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.listener.setblocking(False)
        self.address: tuple[str, int] = self.listener.getsockname()
        self.client: socket.socket | None = None
        self.out = b""

    def turn(self) -> None:
        if self.client is None:
            with contextlib.suppress(BlockingIOError):
                self.client = self.listener.accept()[0]
                self.client.setblocking(False)
                self.out = b""
        if self.client is not None:
            self._serve(self.client)

    def _serve(self, client: socket.socket) -> None:
        try:
            raw = client.recv(4096)
            if raw and raw[2:3] == b"L":
                assert len(raw) == 49
                self.logins += 1
                self.out = soup(LOGIN_REJECTED.encode(reason="A")) if self.refusing else self.snapshot()
        except BlockingIOError:
            raw = b"?"
        except ConnectionError:
            raw = b""
        if not raw:
            self.hang_up()
            return
        with contextlib.suppress(BlockingIOError, ConnectionError):
            self.out = self.out[client.send(self.out[: self.pieces]) :]
        if not self.out and self.cut is not None and self.logins:
            self.hang_up()

    def hang_up(self) -> None:
        if self.client is not None:
            self.client.close()
            self.client = None

    def snapshot(self) -> bytes:
        sequence = self.sequence or len(self.messages) + 1
        kept = [raw for raw in self.messages[: sequence - 1] if chr(raw[0]) in "SRHYNh"]
        sent = soup(LOGIN_ACCEPTED.encode(session=self.session.rjust(10), sequence="1".rjust(20)))
        for ref, (locate, side, px, shares) in model_at(self.messages, sequence - 1).orders.items():
            kept.append(itch.ADD_ORDER.encode(
                locate=locate, tracking=0, timestamp=1, ref=ref, side=chr(side), shares=shares, stock=f"SYM{locate}", px=px
            ))  # fmt: skip
        sent += b"".join(soup(bytes([SEQUENCED]) + raw) for raw in kept + self.extra)
        if self.endless:
            return sent + soup(bytes([END_OF_SESSION]))
        sent += soup(bytes([SEQUENCED]) + END_OF_SNAPSHOT.encode(sequence=f"{sequence:020d}"))
        return sent if self.cut is None else sent[: self.cut]

    def close(self) -> None:
        self.hang_up()
        self.listener.close()


def soup(payload: bytes) -> bytes:
    return len(payload).to_bytes(2, "big") + payload
