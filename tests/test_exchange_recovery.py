"""What the simulated exchange offers to those who lost something: a second line, rewind servers and snapshots.

Everything is looked at through sockets, by a reader of its own (tests/market_reader.py).
"""

import os
import random
import socket
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from numba import config

from engine.exchange.hot.market import keep_market_alive
from engine.exchange.hot.rewind import REQUESTS_PER_STEP
from engine.exchange.hot.snapshot import UNITS_PER_STEP
from engine.exchange.hot.state import LINE_A, LINE_B, LINE_FD
from engine.feed import itch
from engine.layout import PHASE_DRAINING, PHASE_STARTING, PHASE_TRADING
from engine.messages.hot.stamp import NOW
from tests.exchange_rig import (
    AAPL,
    PATIENCE_S,
    Bench,
    Rig,
    SoupClient,
    add,
    bench,
    deleted,
    enter,
    executed,
    open_orders,
    reduced,
    replaced,
    rig,
    system_event,
)
from tests.exchange_rig import packet as soup
from tests.market_reader import Order, PlainBook, Snapshot, downstream, login, request, soup_packets

MS = 1_000_000
SECOND = 1_000_000_000
PACKET_MAX = 1_472
# A snapshot looks at every locate up to the highest, which plain Python takes its time for.
LAST_LOCATE = 600 if config.DISABLE_JIT else 65_535
LOCAL = ("127.0.0.1", 0)
OFFERS: dict[str, Any] = {
    "rewind_addresses": [LOCAL, LOCAL],
    "snapshot_address": LOCAL,
    "snapshot_username": "VIEW",
    "snapshot_password": "EVERYTHING",
}


@contextmanager
def offering(folder: Path, **changes: Any) -> Iterator[Rig]:
    with rig(folder, **(OFFERS | changes)) as made:
        yield made


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Rig]:
    """An exchange with generated flow and all that it can offer."""
    with offering(tmp_path, flow="generated", seed=7) as exchange:
        exchange.run()
        yield exchange


def flow_on(made: Rig, turns: int, turn_ns: int = MS) -> list[bytes]:
    """Let the market run. Returns what was published since this was last asked."""
    for _ in range(turns):
        made.step(after_ns=turn_ns)
    return made.messages()


# Lines.


def datagrams(receiver: socket.socket) -> list[bytes]:
    found = []
    receiver.setblocking(False)
    while True:
        try:
            found.append(receiver.recv(65_536))
        except BlockingIOError:
            return found


@contextmanager
def line_b(folder: Path, **changes: Any) -> Iterator[tuple[Rig, socket.socket]]:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        other.bind(LOCAL)
        with rig(folder, market_address_b=other.getsockname(), **changes) as made:
            yield made, other


def test_both_lines_carry_every_packet(tmp_path: Path) -> None:
    with line_b(tmp_path, flow="generated", rate_per_s=100_000) as (made, other):
        for _ in range(100):
            made.step(after_ns=MS)
        made.phase(PHASE_STARTING)
        made.step(after_ns=SECOND)
        made.phase(PHASE_DRAINING)
        made.control.records["drained"][0] = 1
        made.run()
        on_a, on_b = datagrams(made.listener), datagrams(other)
        assert on_a == on_b
        packets = [downstream(raw) for raw in on_a]
        assert sum(packet.count for packet in packets if packet.messages) == made.count("messages") > 3_000
        assert {packet.count for packet in packets if not packet.messages} == {0, 0xFFFF}
        full = sum(1 for packet in packets if packet.messages)
        assert made.count("packets") == made.count("packets_b") == full
        assert made.count("send_failures") == 0


def test_a_line_that_takes_nothing_for_a_while_gets_everything_later(tmp_path: Path) -> None:
    """A datagram pair takes a handful. The other line does not wait for it until half of the queue does, and then the flow waits."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)
    with line_b(tmp_path, flow="generated", rate_per_s=20_000) as (made, _), reader, writer:
        market = made.stage.state.venue.market
        market.lines[LINE_B, LINE_FD] = writer.fileno()
        for _ in range(100):
            made.step(after_ns=MS)
        assert made.count("packets") > 2 * made.count("packets_b") > 0
        for _ in range(600):
            made.step(after_ns=MS)
        stalled = made.count("flow_events")
        for _ in range(100):
            made.step(after_ns=MS)
        assert made.count("flow_events") == stalled, "flow goes on with half of the queue waiting"
        made.phase(PHASE_STARTING)
        on_b = datagrams(reader)
        keep_market_alive(market, int(made.clock.words[NOW]) + 10 * SECOND)
        assert datagrams(reader) == [], "a heartbeat overtook packets"
        while made.step() > 0:
            on_b += datagrams(reader)
        on_b += datagrams(reader)
        on_a = [raw for raw in datagrams(made.listener) if downstream(raw).messages]
        assert [raw for raw in on_b if downstream(raw).messages] == on_a
        assert made.count("packets_b") == made.count("packets") == len(on_a)
        assert made.count("send_failures") == 0


def test_a_line_that_is_overrun_counts_what_it_lost(tmp_path: Path) -> None:
    """One client's order that trades with thousands publishes more packets than the queue holds. Here the queue is made small."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with line_b(tmp_path, **OFFERS) as (made, _), reader, writer:
        made.run()
        client = SoupClient(made)
        client.login()
        for number in range(1, 1_001):
            client.order(enter(number, "S", 1, 1_500_000))
        client.until(lambda: made.count("accepted") == 1_000, "the orders")
        market = made.stage.state.venue.market
        small = market._replace(sizes=market.sizes[:8])
        made.stage.state = made.stage.state._replace(venue=made.stage.state.venue._replace(market=small))
        small.lines[LINE_B, LINE_FD] = writer.fileno()
        while True:
            try:
                writer.send(b"full", socket.MSG_DONTWAIT)
            except BlockingIOError:
                break
        before = made.count("messages")
        client.order(enter(2_000, "B", 1_000, 1_500_000))
        client.until(lambda: made.count("messages") == before + 1_000, "the trades")
        lost = made.count("send_failures")
        datagrams(reader)
        made.run()
        closed = made.count("packets") + made.count("packets_b") + lost
        assert lost > 0
        assert closed % 2 == 0, "each packet was sent on a line or counted as lost there"
        # What the queue lost before it was archived is not to be had either, and nothing else is given out for it.
        requester = Requester(made)
        asked = {number: requester.ask(before + number, 1) for number in range(1, 1_001, 7)}
        refs = {number: int.from_bytes(downstream(got[0]).messages[0][11:19], "big") for number, got in asked.items() if got}
        assert 0 < len(refs) < len(asked)
        assert refs == {number: (1 << 40) + number - 1 for number in refs}


# Rewind servers.


class Requester:
    """Somebody with a socket of his own at one of the rewind servers."""

    def __init__(self, made: Rig, server: int = 0) -> None:
        self.rig = made
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 8 << 20)
        # Connected: an answer from anywhere else would not come through.
        self.socket.connect(("127.0.0.1", made.stage.rewind_ports[server]))
        made.closing.append(self.socket.close)

    def ask(self, sequence: int, count: int, session: bytes = b"RIG") -> list[bytes]:
        self.socket.send(request(session, sequence, count))
        self.rig.step()
        return datagrams(self.socket)


def test_what_is_asked_for_is_sent_again_byte_for_byte(made: Rig) -> None:
    published = flow_on(made, 200)
    requesters = [Requester(made, server) for server in (0, 1)]
    rng = random.Random(1)
    whole = cut = 0
    for _ in range(300):
        first = rng.randint(1, len(published))
        count = rng.choice([1, 2, 10, 100, 0xFFFF])
        (raw,) = rng.choice(requesters).ask(first, count)
        packet = downstream(raw)
        assert (packet.session, packet.sequence) == (b"RIG       ", first)
        assert packet.messages == published[first - 1 :][: packet.count]
        assert 0 < packet.count <= count and len(raw) <= PACKET_MAX
        last = first + packet.count - 1
        if last == min(first + count - 1, len(published)):
            whole += 1
        else:
            cut += 1
            assert len(raw) + 2 + len(published[last]) > PACKET_MAX, "another message would have fitted"
    assert whole > 50 and cut > 50
    assert made.count("rewind_requests") == 300
    assert made.count("rewind_refused") == made.count("rewind_unsent") == 0


def test_messages_of_every_turn_can_be_had_at_once(made: Rig) -> None:
    """Also those of the turn that has just ended, and none that was not published."""
    requester = Requester(made)
    for _ in range(20):
        made.step(after_ns=MS)
        published = made.count("messages")
        assert downstream(requester.ask(published, 10)[0]).count == 1
        assert requester.ask(published + 1, 10) == []
    # In the very turn that publishes it.
    requester.socket.send(request(b"RIG", made.count("messages") + 1, 1))
    made.step(after_ns=MS)
    assert len(datagrams(requester.socket)) == 1


REFUSED: dict[str, bytes] = {
    "another session": request(b"OTHER", 1, 1),
    "the session in lower case": request(b"rig", 1, 1),
    "no messages": request(b"RIG", 1, 0),
    "message 0": request(b"RIG", 0, 1),
    "what is to come": request(b"RIG", 1_000_000, 1),
    "the highest sequence numbers": request(b"RIG", (1 << 64) - 1, 0xFFFF),
    "the sign": request(b"RIG", 1 << 63, 2),
    "the last positive": request(b"RIG", (1 << 63) - 1, 2),
    "nothing": b"",
    "half a request": request(b"RIG", 1, 1)[:10],
    "a byte too few": request(b"RIG", 1, 1)[:-1],
    "a byte too many": request(b"RIG", 1, 1) + b"\0",
    "much too much": request(b"RIG", 1, 1) * 100,
}


@pytest.mark.parametrize("raw", REFUSED.values(), ids=REFUSED)
def test_what_cannot_be_answered_is_not(made: Rig, raw: bytes) -> None:
    requester = Requester(made)
    requester.socket.send(raw)
    made.step()
    assert datagrams(requester.socket) == []
    assert (made.count("rewind_requests"), made.count("rewind_refused"), made.count("rewind_messages")) == (1, 1, 0)
    assert len(requester.ask(1, 1)) == 1
    assert (made.count("rewind_requests"), made.count("rewind_refused"), made.count("rewind_messages")) == (2, 1, 1)


def test_the_newest_messages_are_kept(tmp_path: Path) -> None:
    with offering(tmp_path, flow="generated", rewind_messages=1_000) as made:
        made.run()
        published = flow_on(made, 200)
        requester = Requester(made)
        assert len(published) > 3_000
        (raw,) = requester.ask(len(published) - 1_000 + 1, 1)
        assert downstream(raw).messages == [published[-1_000]]
        # Slots are a power of two: a few more than were asked for.
        assert requester.ask(len(published) - 1_024, 1) == []
        assert requester.ask(1, 10) == []


def test_without_rewind_servers_nothing_is_kept(tmp_path: Path) -> None:
    with rig(tmp_path, flow="generated") as made:
        made.run()
        archive = made.stage.state.archive
        assert len(archive.log) == len(archive.sequences) == len(archive.notices) == 0
        assert made.stage.rewind_ports == []


def test_requests_are_bounded_in_a_turn_and_the_market_goes_on(made: Rig) -> None:
    requester = Requester(made)
    for _ in range(10 * REQUESTS_PER_STEP):
        requester.socket.send(request(b"RIG", 1, 0xFFFF))
    published = made.count("messages")
    for turn in range(1, 11):
        made.step(after_ns=MS)
        assert made.count("rewind_requests") == turn * REQUESTS_PER_STEP
    assert made.count("messages") > published
    assert len(datagrams(requester.socket)) == 10 * REQUESTS_PER_STEP


# Snapshots.


class Viewer:
    """A SoupBinTCP client of the snapshot service. `turn` turns the exchange once and reads what has come."""

    def __init__(self, made: Rig, receive_bytes: int = 0) -> None:
        self.rig = made
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.socket.connect(("127.0.0.1", made.stage.snapshot_port))
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.setblocking(False)
        made.closing.append(self.socket.close)
        self.raw = b""
        self.closed = False
        self.packets: list[tuple[bytes, bytes]] = []
        self.snapshot = Snapshot()

    def read(self) -> None:
        try:
            got = self.socket.recv(1 << 20)
        except BlockingIOError:
            return
        except ConnectionResetError:
            got = b""
        self.closed = self.closed or not got
        found, self.raw = soup_packets(self.raw + got)
        self.packets += found
        for kind, payload in found:
            if kind == b"S":
                self.snapshot.take(payload)

    def turn(self, after_ns: int = 0) -> None:
        self.rig.step(after_ns)
        self.read()

    def until(self, condition: Callable[[], Any], what: str, after_ns: int = 0) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not condition():
            assert time.monotonic() < deadline, f"waited {PATIENCE_S} s for {what}"
            self.turn(after_ns)

    def log_in(self, username: str = "VIEW", password: str = "EVERYTHING", session: str = "", sequence: str = "1") -> tuple[bytes, bytes]:
        """Log in, and return the answer."""
        self.socket.send(login(username, password, session, sequence))
        self.until(lambda: self.packets or self.closed, "an answer")
        return self.packets[0]

    def take(self, after_ns: int = 0, *, stay: bool = False) -> Snapshot:
        """Take a whole snapshot, and leave."""
        assert self.log_in() == (b"A", b"       RIG" + b"1".rjust(20))
        self.until(lambda: self.snapshot.sequence, "the end of the snapshot", after_ns)
        if not stay:
            self.socket.close()
        return self.snapshot

    def wait_closed(self) -> None:
        self.until(lambda: self.closed, "the connection to end")


def state_of(messages: list[bytes]) -> PlainBook:
    book = PlainBook()
    for raw in messages:
        book.apply(raw)
    return book


def queues_on(made: Rig) -> dict[tuple[int, bytes, int], list[Order]]:
    """The exchange's own book, as the reader keeps one."""
    found: dict[tuple[int, bytes, int], list[Order]] = {}
    for order in open_orders(made):
        mpid = order["mpid"].ljust(4).encode() if order["mpid"] else b""
        found.setdefault((order["locate"], order["side"].encode(), order["px"]), []).append(Order(order["ref"], order["qty"], mpid))
    return found


def test_a_snapshot_is_the_market_at_its_sequence_number(made: Rig) -> None:
    """The orders and their queues are those of the messages before G's number, and with the messages from there on they become what the
    exchange has at the end. The market goes on all the while."""
    published = flow_on(made, 100)
    for _ in range(5):
        snapshot = Viewer(made).take(after_ns=MS)
        published += flow_on(made, 30)
        assert snapshot.sequence <= len(published), "the market did not go on"
        book = snapshot.book()
        assert book.queues == state_of(published[: snapshot.sequence - 1]).queues
        for raw in published[snapshot.sequence - 1 :]:
            book.apply(raw)
        assert book.queues == queues_on(made)
    assert made.count("snapshots") == made.count("snapshot_logins") == 5
    assert made.count("snapshots_dropped") == made.count("malformed") == 0


def test_a_snapshot_begins_with_the_directory_and_ends_with_its_end(made: Rig) -> None:
    published = flow_on(made, 10)
    snapshot = Viewer(made).take()
    kinds = b"".join(raw[:1] for raw in snapshot.messages)
    assert kinds == b"SRR" + b"A" * (len(kinds) - 3)
    assert snapshot.messages[0] == [raw for raw in published if raw[:1] == b"S"][-1]
    assert snapshot.messages[1:3] == [raw for raw in published if raw[:1] == b"R"]
    assert made.count("snapshot_orders") == len(kinds) - 3


def test_levels_come_from_the_worst_to_the_best(made: Rig) -> None:
    flow_on(made, 50)
    seen: dict[tuple[int, bytes], list[int]] = {}
    for place in Viewer(made).take().book().queues:
        seen.setdefault(place[:2], []).append(place[2])
    assert len(seen) == 4
    assert all(prices == sorted(prices, reverse=side == b"S") for (_, side), prices in seen.items())


def directory(locate: int, symbol: str) -> bytes:
    values = {field.name: "" if field.text else 0 for field in itch.STOCK_DIRECTORY.fields if field.name != "type"}
    return itch.STOCK_DIRECTORY.encode(**(values | {"locate": locate, "stock": symbol, "round_lot_size": 100}))


def action(locate: int, symbol: str, state: str, reason: str = "") -> bytes:
    return itch.TRADING_ACTION.encode(locate=locate, tracking=3, timestamp=9, stock=symbol, state=state, reserved="", reason=reason)


def restriction(locate: int, symbol: str, level: str) -> bytes:
    return itch.REG_SHO.encode(locate=locate, tracking=3, timestamp=9, stock=symbol, action=level)


def interest(locate: int, symbol: str, side: str) -> bytes:
    return itch.RETAIL_INTEREST.encode(locate=locate, tracking=3, timestamp=9, stock=symbol, interest=side)


def halted(locate: int, symbol: str, what: str) -> bytes:
    return itch.OPERATIONAL_HALT.encode(locate=locate, tracking=3, timestamp=9, stock=symbol, market_code="Q", action=what)


def test_the_last_word_on_every_instrument_is_in_a_snapshot(tmp_path: Path) -> None:
    """Each line: what was said before, and what stands in the snapshot, in its order."""
    low, high = directory(1, "AAPL"), directory(LAST_LOCATE, "ZZZZ")
    told = [
        [system_event("O"), system_event("S"), system_event("Q")],
        [low],
        [high],
        [action(1, "AAPL", "H", "T1"), action(1, "AAPL", "Q"), action(1, "AAPL", "T")],
        [restriction(1, "AAPL", "1"), restriction(1, "AAPL", "0")],
        [interest(1, "AAPL", "B")],
        [halted(1, "AAPL", "H"), halted(1, "AAPL", "T")],
        [action(7, "MSFT", "H", "LUDP")],
        [halted(LAST_LOCATE, "ZZZZ", "H")],
    ]
    said = [raw for lines in told for raw in lines] + [itch.BROKEN_TRADE.encode(locate=1, tracking=0, timestamp=0, match=5), high]
    with bench(tmp_path, **OFFERS) as exchange:
        for raw in said:
            exchange.happen(raw)
        snapshot = Viewer(exchange.rig).take()
    assert snapshot.messages == [lines[-1] for lines in told]
    assert snapshot.sequence == len(said) + 1


def test_orders_of_clients_and_participants_stand_in_their_queues(tmp_path: Path) -> None:
    with bench(tmp_path, **OFFERS) as exchange:
        exchange.happen(add(1, "B", 100, 1_500_000, mpid="GSCO"))
        exchange.say(enter(1, "B", 300, 1_500_000))
        exchange.happen(add(3, "B", 50, 1_500_000))
        exchange.happen(add(4, "B", 50, 1_500_000, mpid="MS"))
        exchange.happen(executed(1, 40, 9))
        exchange.happen(replaced(4, 5, 70, 1_499_900))
        exchange.happen(add(6, "S", 80, 1_500_100))
        exchange.happen(reduced(6, 30))
        exchange.happen(add(7, "S", 80, 1_500_200))
        exchange.happen(deleted(7))
        book = Viewer(exchange.rig).take().book()
    assert book.queues == {
        (1, b"B", 1_499_900): [Order(5, 70, b"MS  ")],
        (1, b"B", 1_500_000): [Order(1, 60, b"GSCO"), Order(1 << 40, 300, b""), Order(3, 50, b"")],
        (1, b"S", 1_500_100): [Order(6, 50, b"")],
    }


@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_snapshots_of_a_real_morning(tmp_path: Path) -> None:
    with offering(tmp_path, flow="replay", path=AAPL, speed=0) as made:
        published: list[bytes] = []
        for _ in range(4):
            for _ in range(40):
                made.step()
            published += made.messages()
            snapshot = Viewer(made).take()
            published += made.messages()
            assert snapshot.book().queues == state_of(published[: snapshot.sequence - 1]).queues
        assert {raw[:1] for raw in snapshot.messages} == {b"S", b"R", b"A", b"F"}
        assert len(published) > 4_000


def test_an_empty_market_has_a_snapshot(tmp_path: Path) -> None:
    with offering(tmp_path, flow="generated", trading=False) as made:
        snapshot = Viewer(made).take()
        assert (snapshot.messages, snapshot.sequence) == ([], 1)


@contextmanager
def crowded(folder: Path, orders: int) -> Iterator[Bench]:
    """A bench with as many orders of history's on its book, 1 to `orders`."""
    with bench(folder, **OFFERS) as exchange:
        for first in range(1, orders + 1, 500):
            some = [
                add(ref, "BS"[ref % 2], 10, 1_000_000 + (100 if ref % 2 else -100) * (1 + ref % 50))
                for ref in range(first, min(first + 500, orders + 1))
            ]
            os.write(exchange.history, b"".join(len(raw).to_bytes(2, "big") + raw for raw in some))
            exchange.rig.run()
            exchange.rig.messages()
        assert exchange.rig.count("messages") == orders
        yield exchange


def happen_unseen(exchange: Bench, raw: bytes) -> None:
    """History's next message, without a turn."""
    os.write(exchange.history, len(raw).to_bytes(2, "big") + raw)


def test_a_large_snapshot_is_written_in_bounded_turns_while_nothing_changes(tmp_path: Path) -> None:
    orders = 5 * UNITS_PER_STEP
    with crowded(tmp_path, orders) as exchange:
        made = exchange.rig
        viewer = Viewer(made)
        viewer.socket.send(login("VIEW", "EVERYTHING"))
        made.step()
        made.step()
        happen_unseen(exchange, deleted(1))
        exchange.client.send(soup(ord("U"), enter(1, "B", 10, 100)))
        written = made.count("snapshot_orders")
        turns = 0
        while made.count("snapshot_orders") < orders:
            made.step(after_ns=MS)
            turns += 1
            fresh = made.count("snapshot_orders") - written
            assert fresh <= UNITS_PER_STEP
            written += fresh
            assert made.count("messages") == orders, "the market went on"
            viewer.read()
        assert turns >= 4
        made.step()
        made.step()
        assert made.count("snapshot_pause_ns") == made.count("snapshot_pause_ns_max") == turns * MS
        assert made.count("messages") == orders + 2, "the market does not go on"
        viewer.until(lambda: viewer.snapshot.sequence, "the end")
        assert viewer.snapshot.sequence == orders + 1
        assert len(viewer.snapshot.messages) == written == orders


def test_heartbeats_and_answers_go_on_while_a_snapshot_is_written(tmp_path: Path) -> None:
    with crowded(tmp_path, 3 * UNITS_PER_STEP) as exchange:
        made = exchange.rig
        viewer = Viewer(made)
        viewer.socket.send(login("VIEW", "EVERYTHING"))
        made.step()
        made.step()
        assert 0 < made.count("snapshot_orders") < 3 * UNITS_PER_STEP
        datagrams(made.listener)
        made.step(after_ns=SECOND)
        assert [downstream(raw).count for raw in datagrams(made.listener)] == [0]
        assert len(Requester(made).ask(1, 1)) == 1


def test_two_viewers_at_once_and_a_third_when_one_has_left(made: Rig) -> None:
    flow_on(made, 20)
    viewers = [Viewer(made) for _ in range(3)]
    for viewer in viewers:
        viewer.socket.send(login("VIEW", "EVERYTHING"))
    for _ in range(100):
        for viewer in viewers:
            viewer.turn()
    assert [bool(viewer.snapshot.sequence) for viewer in viewers] == [True, True, False]
    assert viewers[2].packets == []
    viewers[0].socket.close()
    viewers[2].until(lambda: viewers[2].snapshot.sequence, "its snapshot")
    assert made.count("snapshot_clients") == made.count("snapshots") == 3


def test_the_market_runs_for_as_long_as_it_has_paused(tmp_path: Path) -> None:
    with crowded(tmp_path, 3 * UNITS_PER_STEP) as exchange:
        made = exchange.rig
        viewers = [Viewer(made), Viewer(made)]
        for viewer in viewers:
            viewer.socket.send(login("VIEW", "EVERYTHING"))
        for _ in range(10):
            made.step(after_ns=MS)
            if made.count("snapshot_pause_ns"):
                break
        written, paused = made.count("snapshot_orders"), made.count("snapshot_pause_ns")
        assert paused >= 3 * MS
        for turn in range(paused // MS):
            assert made.count("snapshot_orders") == written, f"the next was begun {turn} ms after {paused // MS} ms of pause"
            made.step(after_ns=MS)
        assert made.count("snapshot_orders") > written


GOOD_LOGINS: dict[str, dict[str, str]] = {
    "the session by name": {"session": "RIG"},
    "lower case, padded on the left": {"username": "  view", "password": "everything", "session": "       rig"},
    "from now on": {"sequence": "0"},
    "no sequence number": {"sequence": ""},
}


@pytest.mark.parametrize("asked", GOOD_LOGINS.values(), ids=GOOD_LOGINS)
def test_logins_that_are_accepted(made: Rig, asked: dict[str, str]) -> None:
    viewer = Viewer(made)
    assert viewer.log_in(**asked) == (b"A", b"       RIG" + b"1".rjust(20))
    viewer.until(lambda: viewer.snapshot.sequence, "the end of the snapshot")


BAD_LOGINS: dict[str, tuple[dict[str, str], bytes]] = {
    "another user": ({"username": "TICK"}, b"A"),
    "no user": ({"username": ""}, b"A"),
    "another password": ({"password": "SOMETHING"}, b"A"),
    "another session": ({"session": "OTHER"}, b"S"),
    "the middle": ({"sequence": "2"}, b"S"),
}


@pytest.mark.parametrize(("asked", "reason"), BAD_LOGINS.values(), ids=BAD_LOGINS)
def test_logins_that_are_rejected(made: Rig, asked: dict[str, str], reason: bytes) -> None:
    viewer = Viewer(made)
    assert viewer.log_in(**asked) == (b"J", reason)
    viewer.wait_closed()
    assert made.count("snapshot_logins") == made.count("malformed") == made.count("snapshots_dropped") == 0
    assert Viewer(made).take().sequence > 1


GARBAGE: dict[str, bytes] = {
    "a packet without a type": b"\0\0",
    "a packet too long": b"\xff\xff",
    "an unknown packet": b"\0\1?",
    "an order": soup(ord("U"), enter(1, "B", 1, 100)),
    "a heartbeat with a payload": b"\0\2Rx",
    "a login cut short": b"\0\x2e" + login("VIEW", "EVERYTHING")[2:-1],
    "a login for sequence number x": login("VIEW", "EVERYTHING", "", "x"),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
@pytest.mark.parametrize("logged_in", [False, True], ids=["before", "after"])
def test_garbage_ends_the_connection_and_is_counted(made: Rig, raw: bytes, *, logged_in: bool) -> None:
    viewer = Viewer(made)
    if logged_in:
        viewer.take(stay=True)
    viewer.socket.send(raw)
    viewer.wait_closed()
    assert made.count("malformed") == 1
    assert made.count("snapshots_dropped") == 0
    assert Viewer(made).take().sequence > 1


def test_a_second_login_is_malformed(made: Rig) -> None:
    viewer = Viewer(made)
    viewer.take(stay=True)
    viewer.socket.send(login("VIEW", "EVERYTHING"))
    viewer.wait_closed()
    assert (made.count("malformed"), made.count("snapshot_logins")) == (1, 1)


def test_a_login_one_byte_at_a_time(made: Rig) -> None:
    viewer = Viewer(made)
    for byte in soup(ord("+"), b"hello") + soup(ord("R")) + login("VIEW", "EVERYTHING"):
        viewer.socket.send(bytes([byte]))
        viewer.turn()
    viewer.until(lambda: viewer.snapshot.sequence, "the snapshot")


def test_a_viewer_hears_heartbeats_and_the_end_of_its_session(made: Rig) -> None:
    viewer = Viewer(made)
    viewer.turn()
    viewer.turn(after_ns=3 * SECOND)
    viewer.take(stay=True)
    before = len(viewer.packets)
    for _ in range(5):
        viewer.turn(after_ns=SECOND - 1)
        viewer.turn(after_ns=1)
    viewer.wait_closed()
    assert viewer.packets[before:] == [(b"H", b"")] * 4 + [(b"Z", b"")]
    assert made.count("snapshots_dropped") == 0


def test_a_viewer_who_waits_for_its_turn_hears_heartbeats(tmp_path: Path) -> None:
    """Its snapshot cannot be begun before the market has run as long as it paused: here for 3 s."""
    with crowded(tmp_path, 3 * UNITS_PER_STEP) as exchange:
        made = exchange.rig
        first = Viewer(made)
        first.socket.send(login("VIEW", "EVERYTHING"))
        first.turn()
        first.turn()
        first.turn(after_ns=3 * SECOND)
        first.until(lambda: first.snapshot.sequence, "the snapshot")
        assert made.count("snapshot_pause_ns") == 3 * SECOND
        second = Viewer(made)
        assert second.log_in()[0] == b"A"
        second.turn(after_ns=SECOND)
        second.turn(after_ns=SECOND - 1)
        assert [kind for kind, _ in second.packets] == [b"A", b"H"]
        second.turn(after_ns=SECOND + 1)
        second.until(lambda: second.snapshot.sequence, "the snapshot")


@pytest.mark.parametrize("logged_in", [False, True], ids=["before", "after"])
def test_a_silent_viewer_is_let_go(made: Rig, *, logged_in: bool) -> None:
    viewer = Viewer(made)
    if logged_in:
        viewer.take(stay=True)
    viewer.turn()
    viewer.turn(after_ns=15 * SECOND + 1)
    viewer.wait_closed()
    assert made.count("snapshots_dropped") == 0
    assert Viewer(made).take().sequence > 1


def test_a_viewer_who_only_says_that_it_is_there_is_let_go(made: Rig) -> None:
    viewer = Viewer(made)
    viewer.turn()
    for _ in range(30):
        viewer.socket.send(soup(ord("R")))
        viewer.turn(after_ns=SECOND)
    assert not viewer.closed
    viewer.turn(after_ns=1)
    viewer.wait_closed()


def narrow(made: Rig) -> None:
    """Let the exchange's end of the viewers' connections hold little."""
    (listening,) = (
        held for held in made.stage.held if isinstance(held, socket.socket) and held.getsockname()[1] == made.stage.snapshot_port
    )
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4_096)


def test_a_viewer_who_does_not_read_is_let_go_and_holds_up_nobody(tmp_path: Path) -> None:
    orders = 8 * UNITS_PER_STEP
    with crowded(tmp_path, orders) as exchange:
        made = exchange.rig
        narrow(made)
        slow = Viewer(made, receive_bytes=4_096)
        slow.socket.send(login("VIEW", "EVERYTHING"))
        for _ in range(30):
            made.step()
        assert made.count("snapshot_orders") == orders, "it is not written while it is not read"
        exchange.happen(deleted(1))
        assert made.count("messages") == orders + 1, "the market waits for a slow viewer"
        assert len(Viewer(made).take().messages) == orders - 1
        for _ in range(30):
            slow.socket.send(soup(ord("R")))
            made.step(after_ns=SECOND)
        assert made.count("snapshots_dropped") == 0
        made.step(after_ns=1)
        assert made.count("snapshots_dropped") == 1
        slow.wait_closed()
        assert slow.snapshot.sequence == 0


def test_a_viewer_who_reads_slowly_gets_all_of_it(tmp_path: Path) -> None:
    with crowded(tmp_path, 2 * UNITS_PER_STEP) as exchange:
        narrow(exchange.rig)
        snapshot = Viewer(exchange.rig, receive_bytes=4_096).take()
        assert snapshot.book().queues == queues_on(exchange.rig)


@pytest.mark.parametrize("leave", ["by closing", "by logging out"])
def test_a_viewer_who_leaves_in_the_middle_leaves_the_market_running(tmp_path: Path, leave: str) -> None:
    orders = 3 * UNITS_PER_STEP
    with crowded(tmp_path, orders) as exchange:
        made = exchange.rig
        viewer = Viewer(made)
        viewer.socket.send(login("VIEW", "EVERYTHING"))
        made.step()
        made.step()
        assert 0 < made.count("snapshot_orders") < orders
        if leave == "by closing":
            viewer.socket.close()
        else:
            viewer.socket.send(soup(ord("O")))
        for _ in range(10):
            made.step()
        assert made.count("snapshots_dropped") == 1
        assert made.count("snapshot_orders") < orders
        passer_by = Viewer(made)
        passer_by.turn()
        passer_by.socket.close()
        made.run()
        assert made.count("snapshots_dropped") == 1, "one who asked for nothing counts as dropped"
        exchange.happen(deleted(1))
        assert made.count("messages") == orders + 1, "the market is still paused"
        assert len(Viewer(made).take().messages) == orders - 1


def test_a_viewer_who_leaves_does_not_end_the_pause_for_another(tmp_path: Path) -> None:
    orders = 3 * UNITS_PER_STEP
    with crowded(tmp_path, orders) as exchange:
        made = exchange.rig
        viewer, other = Viewer(made), Viewer(made)
        viewer.socket.send(login("VIEW", "EVERYTHING"))
        made.step()
        made.step()
        other.socket.send(soup(ord("O")))
        happen_unseen(exchange, deleted(1))
        made.step()
        assert 0 < made.count("snapshot_orders") < orders
        assert made.count("messages") == orders
        viewer.until(lambda: viewer.snapshot.sequence, "the snapshot")
        assert len(viewer.snapshot.messages) == orders


def test_all_is_offered_before_trading_and_after_the_end(tmp_path: Path) -> None:
    with offering(tmp_path, flow="generated") as made:
        flow_on(made, 10)
        made.phase(PHASE_DRAINING)
        made.control.records["drained"][0] = 1
        for _ in range(10):
            made.step()
        last = made.count("messages")
        assert downstream(Requester(made).ask(last, 1)[0]).count == 1
        snapshot = Viewer(made).take()
        assert snapshot.sequence == last + 1
        assert snapshot.book().queues == queues_on(made)
    with offering(tmp_path, trading=False) as made:
        assert Viewer(made).take().sequence == made.count("messages") + 1
        made.phase(PHASE_TRADING)
        assert Viewer(made).take().sequence == made.count("messages") + 1


@settings(max_examples=25, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    pieces=st.lists(st.one_of(st.binary(max_size=120), st.sampled_from([*GARBAGE.values(), login("VIEW", "EVERYTHING")])), max_size=6),
    asked=st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(list(REFUSED.values()))), max_size=6),
)
def test_any_bytes_are_survived(tmp_path: Path, pieces: list[bytes], asked: list[bytes]) -> None:
    with offering(tmp_path, flow="generated") as made:
        made.run()
        viewer, requester = Viewer(made), Requester(made)
        for raw in asked:
            requester.socket.send(raw)
        for piece in pieces:
            try:
                viewer.socket.send(piece)
            except OSError:
                break
            viewer.turn()
        viewer.socket.close()
        made.run()
        assert made.count("rewind_requests") == len(asked)
        snapshot = Viewer(made).take()
        assert snapshot.book().queues == queues_on(made)
        assert downstream(requester.ask(1, 1)[-1]).sequence == 1


# What cannot be used.

UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "line B": ({"market_address_b": ("not.an.address", 1)}, "market_address_b=not.an.address:1"),
    "its interface": ({"market_address_b": ("239.255.17.3", 9), "interface_b": "nowhere0"}, "interface=nowhere0"),
    "a rewind server": ({"rewind_addresses": [("203.0.113.7", 0)]}, "rewind_addresses=203.0.113.7:0"),
    "too many": ({"rewind_addresses": [LOCAL] * 5}, "rewind_addresses=5 of them: expected at most 4"),
    "no messages": ({"rewind_messages": 0}, "rewind_messages=0: expected 1"),
    "the snapshot server": ({"snapshot_address": ("203.0.113.7", 0)}, "snapshot_address=203.0.113.7:0"),
    "its user": ({"snapshot_username": "SEVENCH"}, "snapshot_username='SEVENCH'"),
    # What it is, is not said.
    "its password": ({"snapshot_password": "ELEVEN CHARS"}, "snapshot_password: expected at most 10 ASCII characters"),
}


@pytest.mark.parametrize(("changes", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises((ValueError, OSError)) as raised, rig(tmp_path, **changes):
        pass
    assert expected in str(raised.value)
    assert changes.get("snapshot_password", "no such") not in str(raised.value)


def test_addresses_in_use_are_named(made: Rig, tmp_path: Path) -> None:
    for name, port in (("rewind_addresses", made.stage.rewind_ports[0]), ("snapshot_address", made.stage.snapshot_port)):
        address: Any = ("127.0.0.1", port)
        with (
            pytest.raises(OSError, match=f"{name}=127.0.0.1:{port}: in use by another program"),
            rig(tmp_path, **{name: [address] if name == "rewind_addresses" else address}),
        ):
            pass


def test_a_group_is_sent_to_through_a_named_interface(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as group:
        group.bind(("239.255.17.4", 0))
        group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.255.17.4") + socket.inet_aton("127.0.0.1"))
        group.settimeout(PATIENCE_S)
        with rig(tmp_path, market_address_b=group.getsockname(), interface_b="lo") as made:
            made.run()
            assert downstream(group.recv(65_536)).sequence == 1
            assert made.stage.state.venue.market.lines[LINE_A, LINE_FD] != made.stage.state.venue.market.lines[LINE_B, LINE_FD]
