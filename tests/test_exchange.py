"""The simulated exchange behind its sockets: sessions, market data, generated flow, replay, and how it ends."""

import gc
import gzip
import socket
from collections.abc import Iterator
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from numba import config

from engine.book.book import check_invariants
from engine.exchange import hot
from engine.exchange.hot.flow import LEVELS_MIN, OPENING_ORDERS, SLOTS, TICK_PX, random_bits
from engine.exchange.hot.replay import UNZIPPING_FAILED
from engine.exchange.hot.state import COPIED, LINE_A, LINE_FD, LOGGED, STATE, UP
from engine.exchange.hot.step import step
from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT
from engine.gateway.ouch import v50 as ouch
from engine.layout import PHASE_DRAINING, PHASE_STARTING, PHASE_TRADING
from engine.messages.hot.stamp import NOW
from engine.wire import soupbintcp
from tests.exchange_rig import (
    AAPL,
    DATA,
    Message,
    Rig,
    SoupClient,
    add,
    bench,
    cancel,
    decode_itch,
    deleted,
    enter,
    framed,
    open_orders,
    packet,
    replace,
    rig,
    system_event,
)

HOT = [path.stem for path in Path(hot.__file__).parent.glob("*.py") if path.stem != "__init__"]
MS = 1_000_000
SECOND = 1_000_000_000
OURS = 1 << 40


@pytest.fixture
def made(tmp_path: Path) -> Iterator[Rig]:
    """An exchange on which AAPL (1) and MSFT (2) are listed, and only clients trade."""
    with rig(tmp_path) as exchange:
        exchange.run()
        exchange.messages()
        yield exchange


@pytest.fixture
def client(made: Rig) -> SoupClient:
    logged_in = SoupClient(made)
    assert logged_in.login()[0] == soupbintcp.LOGIN_ACCEPTED.code
    return logged_in


def types(messages: list[Message]) -> list[str]:
    return [message["type"] for message in messages]


# The session.


def test_a_login_is_answered_with_session_and_next_sequence_number(made: Rig) -> None:
    kind, payload = SoupClient(made).login()
    assert kind == soupbintcp.LOGIN_ACCEPTED.code
    assert payload == b"       RIG" + b"                   1"
    assert (made.count("clients"), made.count("logins")) == (1, 1)


GOOD_LOGINS: dict[str, dict[str, Any]] = {
    "the session by name": {"session": "RIG"},
    "fields padded on the left": {"username": "  TICK", "password": "      PATH", "session": "       RIG", "sequence": "1".rjust(20)},
    "a user padded on the left": {"username": "  TICK"},
    "lower case": {"username": "tick", "password": "path", "session": "rig"},
    "from now on": {"sequence": 0},
    "no sequence number": {"sequence": ""},
}


@pytest.mark.parametrize("login", GOOD_LOGINS.values(), ids=GOOD_LOGINS)
def test_logins_that_are_accepted(made: Rig, login: dict[str, Any]) -> None:
    assert SoupClient(made).login(**login)[0] == soupbintcp.LOGIN_ACCEPTED.code


BAD_LOGINS: dict[str, tuple[dict[str, Any], bytes]] = {
    "another user": ({"username": "TOCK"}, b"A"),
    "a longer user": ({"username": "TICKS"}, b"A"),
    "another password": ({"password": "PATHS"}, b"A"),
    "no password": ({"password": ""}, b"A"),
    "another session": ({"session": "OTHER"}, b"S"),
    "a sequence number to come": ({"sequence": 2}, b"S"),
}


@pytest.mark.parametrize(("login", "reason"), BAD_LOGINS.values(), ids=BAD_LOGINS)
def test_logins_that_are_rejected(made: Rig, login: dict[str, Any], reason: bytes) -> None:
    client = SoupClient(made)
    assert client.login(**login) == (soupbintcp.LOGIN_REJECTED.code, reason)
    client.wait_closed()
    assert made.count("logins") == made.count("malformed") == 0
    assert SoupClient(made).login()[0] == soupbintcp.LOGIN_ACCEPTED.code


def test_an_order_a_fill_a_replace_and_a_cancel(made: Rig, client: SoupClient) -> None:
    client.order(enter(1, "B", 300, 1_500_000))
    client.order(enter(2, "S", 100, 1_490_000))
    client.order(replace(1, 3, 300, 1_500_100))
    client.order(cancel(3))
    accepted, second, removed, added, replaced, cancelled = client.reports(6)
    assert accepted == {
        "type": "A", "timestamp": 0, "user_ref": 1, "side": "B", "quantity": 300, "symbol": "AAPL", "px": 1_500_000, "tif": "0",
        "display": "Y", "order_ref": OURS, "capacity": "P", "sweep": "N", "cross": "N", "state": "L", "client_id": "ME",
        "appendage_length": 0,
    }  # fmt: skip
    assert (second["type"], second["user_ref"]) == ("A", 2)
    fill = {"type": "E", "timestamp": 0, "quantity": 100, "px": 1_500_000, "match": OURS, "appendage_length": 0}
    assert removed == {**fill, "user_ref": 2, "liquidity": "R"}
    assert added == {**fill, "user_ref": 1, "liquidity": "A"}
    assert (replaced["type"], replaced["quantity"], replaced["order_ref"]) == ("U", 200, OURS + 2)
    assert (cancelled["type"], cancelled["user_ref"], cancelled["quantity"], cancelled["reason"]) == ("C", 3, 200, "U")
    assert types(made.decoded()) == ["A", "E", "U", "D"]
    line = made.positions.records[1]
    assert [int(line[name]) for name in ("position", "bought", "sold", "cash", "fills", "open_buy", "open_sell")] == [
        0,
        100,
        100,
        0,
        2,
        0,
        0,
    ]
    counted = {
        name: made.count(name) for name in ("orders", "replaces", "cancels", "accepted", "executions", "client_executions", "reports")
    }
    assert counted == {"orders": 2, "replaces": 1, "cancels": 1, "accepted": 2, "executions": 1, "client_executions": 2, "reports": 6}


def test_times_count_from_the_exchanges_midnight(tmp_path: Path) -> None:
    with rig(tmp_path, midnight_ns=3 * SECOND) as made:
        made.step(after_ns=5 * SECOND)
        client = SoupClient(made)
        client.login()
        made.clock.words[NOW] += 7
        client.order(enter(1, "B", 1, 100))
        assert client.reports(1)[0]["timestamp"] == 2 * SECOND + 7
        assert [message["timestamp"] for message in made.decoded()][-1] == 2 * SECOND + 7


def test_one_byte_at_a_time(made: Rig) -> None:
    client = SoupClient(made)
    login = soupbintcp.LOGIN_REQUEST.encode(username="TICK", password="PATH", session="", sequence="1")
    orders = packet(ord("U"), enter(1, "B", 300, 1_500_000)) + packet(ord("R")) + packet(ord("U"), cancel(1))
    for byte in packet(login[0], login[1:]) + orders:
        client.send(bytes([byte]))
        client.poll()
    assert client.receive(1)[0][0] == soupbintcp.LOGIN_ACCEPTED.code
    assert types(client.reports(2)) == ["A", "C"]


def test_many_packets_in_one_piece(made: Rig, client: SoupClient) -> None:
    client.send(b"".join(packet(ord("U"), enter(number, "B", 1, 100 * number)) for number in range(1, 501)))
    assert [report["user_ref"] for report in client.reports(500)] == list(range(1, 501))
    assert made.count("open_orders") == 500


UNSEQUENCED = soupbintcp.UNSEQUENCED
GARBAGE = {
    "a packet without a type": b"\0\0",
    "a packet too long": b"\xff\xff",
    "an unknown packet": packet(ord("?")),
    "a server's packet": packet(soupbintcp.SEQUENCED, b"A"),
    "a heartbeat with a payload": packet(soupbintcp.CLIENT_HEARTBEAT, b"x"),
    "no message": packet(UNSEQUENCED),
    "an unknown message": packet(UNSEQUENCED, b"?" * 47),
    "an order cut short": packet(UNSEQUENCED, enter(1, "B", 1, 100)[:-1]),
    "an order with less behind it than it says": packet(UNSEQUENCED, enter(1, "B", 1, 100)[:-1] + b"\5"),
    "a replace with more behind it than it says": packet(UNSEQUENCED, replace(1, 2, 1, 100) + b"x"),
    "a cancel cut short": packet(UNSEQUENCED, cancel(1)[:-1]),
    "a second login": packet(ord("L"), soupbintcp.LOGIN_REQUEST.encode(username="TICK", password="PATH", session="", sequence="1")[1:]),
}


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_garbage_is_counted_and_ends_the_connection(made: Rig, client: SoupClient, raw: bytes) -> None:
    client.order(enter(5, "B", 100, 1_500_000))
    client.send(raw)
    client.wait_closed()
    assert made.count("malformed") == 1
    made.run()
    assert made.count("open_orders") == 0
    assert SoupClient(made).login()[0] == soupbintcp.LOGIN_ACCEPTED.code


def test_a_connection_that_ends_inside_a_packet_is_malformed(made: Rig, client: SoupClient) -> None:
    client.send(packet(UNSEQUENCED, enter(1, "B", 1, 100))[:-1])
    client.poll()
    client.socket.close()
    made.run()
    client = SoupClient(made)
    client.login()
    assert made.count("malformed") == 1
    assert made.count("orders") == 0


def test_an_order_may_have_options_behind_it(made: Rig, client: SoupClient) -> None:
    client.order(enter(1, "B", 1, 100)[:-2] + b"\0\3" + b"\2\1x")
    client.order(cancel(1) + b"\0\0")
    assert types(client.reports(2)) == ["A", "C"]


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(pieces=st.lists(st.one_of(st.binary(max_size=80), st.sampled_from(list(GARBAGE.values())), st.just(packet(ord("R")))), max_size=6))
@example(pieces=[b"\0\1"])
def test_any_bytes_are_survived(tmp_path: Path, pieces: list[bytes]) -> None:
    with rig(tmp_path) as made:
        for log_in_first in (False, True):
            client = SoupClient(made)
            if log_in_first:
                client.login()
            for piece in pieces:
                try:
                    client.send(piece)
                except OSError:
                    break
                client.poll()
            client.socket.close()
            made.run()
        check_invariants(made.stage.state.venue.book)
        client = SoupClient(made)
        assert client.login()[0] == soupbintcp.LOGIN_ACCEPTED.code


def leave_by_closing(client: SoupClient) -> None:
    client.socket.close()


def leave_by_logout(client: SoupClient) -> None:
    client.send(packet(soupbintcp.LOGOUT))
    client.wait_closed()


def leave_by_silence(client: SoupClient) -> None:
    client.rig.step(after_ns=15 * SECOND)
    client.rig.step(after_ns=1)
    client.wait_closed()


@pytest.mark.parametrize("leave", [leave_by_closing, leave_by_logout, leave_by_silence])
def test_who_leaves_has_its_orders_cancelled_and_may_come_back_for_the_news(made: Rig, client: SoupClient, leave: Any) -> None:
    for number in range(1, 4):
        client.order(enter(number, "B", 100, 1_500_000 - number))
    client.reports(3)
    made.decoded()
    leave(client)
    back = SoupClient(made)
    kind, payload = back.login(sequence=3)
    assert (kind, payload[10:]) == (soupbintcp.LOGIN_ACCEPTED.code, b"                   3")
    third, *cancelled = back.reports(4)
    assert (third["type"], third["user_ref"]) == ("A", 3)
    assert {(report["type"], report["user_ref"], report["quantity"], report["reason"]) for report in cancelled} == {
        ("C", number, 100, "Z") for number in (1, 2, 3)
    }
    assert types(made.decoded()) == ["D"] * 3
    assert made.count("open_orders") == int(made.positions.records[1]["open_buy"]) == 0
    back.order(enter(3, "B", 100, 1_500_000))
    back.order(enter(4, "B", 100, 1_500_000))
    assert back.reports(1)[0]["user_ref"] == 4, "user_refs go on where they were"
    assert made.stage.ignored == 1


def test_heartbeats_to_the_client_after_a_second_of_silence(made: Rig, client: SoupClient) -> None:
    made.step(after_ns=SECOND - 1)
    client.send(packet(soupbintcp.CLIENT_HEARTBEAT))
    for _ in range(20):
        client.poll()
    assert client.inbox == []
    made.step(after_ns=1)
    assert client.receive(1) == [(soupbintcp.SERVER_HEARTBEAT, b"")]


def slow_reader(made: Rig) -> SoupClient:
    """A client, logged in, between which and the exchange the sockets hold little."""
    made.stage.order_socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    client = SoupClient(made, receive_bytes=4096)
    client.login()
    return client


def order_without_reading(client: SoupClient, first: int, count: int) -> None:
    """Each of these orders causes two reports."""
    for number in range(first, first + count):
        client.order(enter(number, "S", 1, 100, tif="3"))
        if number % 50 == 0:
            client.rig.run()


def test_a_client_that_does_not_read_gets_everything_in_the_end(made: Rig) -> None:
    """The socket takes part of a packet: the rest is kept, and goes first."""
    client = slow_reader(made)
    order_without_reading(client, 1, 3_000)
    state = made.stage.state
    row = int(np.flatnonzero(state.links.words[:, STATE] == UP)[0])
    assert state.links.words[row, COPIED] < state.venue.clients.words[0, LOGGED] == 6_000, "the socket took everything: nothing was tested"
    reports = client.reports(6_000)
    assert [(report["type"], report["user_ref"]) for report in reports] == [(kind, number) for number in range(1, 3_001) for kind in "AC"]
    assert made.count("send_failures") == made.count("reports_lost") == 0


def test_a_client_too_far_behind_is_let_go_and_finds_its_log_when_it_returns(tmp_path: Path) -> None:
    with rig(tmp_path, reports_max=2_000) as made:
        client = slow_reader(made)
        number = 1
        while made.count("send_failures") == 0 and number < 20_000:
            order_without_reading(client, number, 50)
            number += 50
        made.run()
        logged = made.count("reports")
        assert logged > 2_000
        back = SoupClient(made)
        assert back.login(sequence=logged - 1_199)[0] == soupbintcp.LOGIN_ACCEPTED.code
        assert [report["type"] for report in back.reports(1_200)] == ["A", "C"] * 600
        leave_by_logout(back)
        assert SoupClient(made).login(sequence=logged - 2_000) == (soupbintcp.LOGIN_REJECTED.code, b"S")
        assert made.count("reports_lost") == 1


# Market data.


def test_market_heartbeats_name_the_next_sequence_number(made: Rig) -> None:
    made.step(after_ns=SECOND)
    made.listener.setblocking(False)
    while True:
        try:
            last = made.listener.recv(65_536)
        except BlockingIOError:
            break
    assert last[:SEQUENCE_AT] == b"RIG       "
    assert len(last) == HEADER_BYTES
    assert int.from_bytes(last[COUNT_AT:], "big") == 0
    assert int.from_bytes(last[SEQUENCE_AT:COUNT_AT], "big") == made.count("messages") + 1


def test_nobody_listening_is_no_failure(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.bind(("127.0.0.1", 0))
        address = probe.getsockname()
    with rig(tmp_path, market_address=address, flow="generated") as made:
        for _ in range(100):
            made.step(after_ns=MS)
        assert made.count("messages") > 1_000
        assert made.count("send_failures") == 0


def test_whoever_begins_to_listen_gets_the_next_packet(tmp_path: Path) -> None:
    """A refusal that the socket still has to tell is an earlier packet's: the one at hand must be sent all the same."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        late.bind(("127.0.0.1", 0))
        address = late.getsockname()
    with rig(tmp_path, market_address=address) as made, socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as late:
        made.run()
        packets = made.count("packets")
        late.bind(address)
        late.settimeout(10)
        client = SoupClient(made)
        client.login()
        client.order(enter(1, "B", 1, 100))
        client.reports(1)
        assert made.count("packets") == packets + 1
        assert types([decode_itch(raw) for raw in framed(late.recv(65_536)[HEADER_BYTES:])]) == ["A"]


def test_packets_are_filled_and_never_overfilled(tmp_path: Path) -> None:
    """Messages of many lengths in one turn: some packet ends where the next message would not have fitted by a byte or two."""
    sizes: list[int] = []
    with rig(tmp_path, flow="generated", rate_per_s=1e6) as made:
        made.run()
        client = SoupClient(made)
        client.login()
        for turn in range(400):
            orders = [enter(32 * turn + number, "B", 1, 100 + number) for number in range(1, 33)]
            client.send(b"".join(packet(UNSEQUENCED, raw) for raw in orders))
            made.step(after_ns=MS)
            found = made.packets()
            sizes += [len(raw) for raw in found]
            assert all(sum(2 + len(raw) for raw in framed(sent[HEADER_BYTES:])) == len(sent) - HEADER_BYTES for sent in found)
    assert max(sizes) >= PACKET_BYTES_MAX - 2


def test_packets_that_the_socket_does_not_take_wait(tmp_path: Path) -> None:
    """A datagram pair takes a handful; the rest must come later, whole and in order."""
    reader, writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with rig(tmp_path, flow="generated", rate_per_s=1e6) as made, reader, writer:
        made.stage.state.venue.market.lines[LINE_A, LINE_FD] = writer.fileno()
        for _ in range(2_000):
            made.step(after_ns=MS)
        stalled = made.count("flow_events")
        for _ in range(100):
            made.step(after_ns=MS)
        assert made.count("flow_events") == stalled, "flow goes on with half of the queue waiting"
        made.phase(PHASE_STARTING)
        got = 0
        reader.setblocking(False)
        while True:
            try:
                raw = reader.recv(65_536)
            except BlockingIOError:
                if made.step() == 0:
                    break
                continue
            count = int.from_bytes(raw[COUNT_AT:HEADER_BYTES], "big")
            assert int.from_bytes(raw[SEQUENCE_AT:COUNT_AT], "big") == got + 1
            assert len(framed(raw[HEADER_BYTES:])) == count
            got += count
        assert got == made.count("messages") > 10_000
        assert made.count("send_failures") == 0


def test_multicast_reaches_a_group(tmp_path: Path) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as group:
        group.bind(("239.255.17.3", 0))
        group.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("239.255.17.3") + socket.inet_aton("127.0.0.1"))
        group.settimeout(10)
        with rig(tmp_path, market_address=group.getsockname(), interface="127.0.0.1") as made:
            made.run()
            packets = [group.recv(65_536) for _ in range(made.count("packets"))]
    messages = [decode_itch(raw) for sent in packets for raw in framed(sent[HEADER_BYTES:])]
    assert types(messages) == ["S", "R", "R", "S", "S"]


# Generated flow.


def generated(folder: Path, *, turn_ns: int, turns: int, **changes: Any) -> list[bytes]:
    with rig(folder, flow="generated", **changes) as made:
        packets = []
        for _ in range(turns):
            made.run()
            packets += made.packets()
            made.step(after_ns=turn_ns)
        return packets


def messages_in(packets: list[bytes]) -> list[bytes]:
    return [message for raw in packets for message in framed(raw[HEADER_BYTES:])]


def test_one_seed_is_one_byte_stream(tmp_path: Path) -> None:
    first, again, other = (generated(tmp_path, turn_ns=5 * MS, turns=100, seed=seed) for seed in (42, 42, 43))
    assert first == again != other
    # However often the exchange is turned, the messages are the same; only the packets around them differ.
    in_smaller_steps = messages_in(generated(tmp_path, turn_ns=MS, turns=496, seed=42))
    assert in_smaller_steps == messages_in(first)


def test_the_random_numbers_are_splitmix64() -> None:
    """The first outputs for seed 1234567, as published with the algorithm."""
    state = np.array([1234567], np.uint64)
    drawn = [int(random_bits(state)) for _ in range(3)]
    assert drawn == [6457827717110365317, 3203168211198807973, 9817491932198370423]


def test_generated_flow_opens_with_the_directory(tmp_path: Path) -> None:
    with rig(tmp_path, flow="generated", symbols={"AAPL": 187.2, "BRK.A": 199_000.0, "F": 10.01}) as made:
        made.run()
        opening = made.decoded()
    assert types(opening)[:6] == ["S", "R", "R", "R", "S", "S"]
    assert [message["event"] for message in opening if message["type"] == "S"] == ["O", "S", "Q"]
    assert [(message["locate"], message["stock"]) for message in opening if message["type"] == "R"] == [(1, "AAPL"), (2, "BRK.A"), (3, "F")]
    assert types(opening)[6:].count("A") >= 3 * 2 * OPENING_ORDERS


class Watch:
    """A book by order, kept the obvious way, which insists that executions respect price and time, that flow's limit orders never
    trade at once, and that it cancels nothing on a side that is thin."""

    def __init__(self) -> None:
        self.orders: dict[int, list[Any]] = {}
        self.executed_ns = -1

    def side(self, locate: int, side: str) -> list[tuple[int, int]]:
        """(price, ref) in price-time priority: refs are dense, so the older order has the lower one."""
        rows = [(px if side == "S" else -px, ref) for ref, (where, which, px, _) in self.orders.items() if (where, which) == (locate, side)]
        return sorted(rows)

    def apply(self, message: Message) -> None:
        kind = message["type"]
        if kind in "XD":
            locate, side, *_ = self.orders[message["ref"]]
            assert len({px for px, _ in self.side(locate, side)}) > LEVELS_MIN, "a thin side was reduced"
        if kind == "A":
            assert message["timestamp"] != self.executed_ns, "a limit order of flow's traded"
            self.orders[message["ref"]] = [message["locate"], message["side"], message["px"], message["shares"]]
        elif kind == "E":
            locate, side, *_ = self.orders[message["ref"]]
            assert self.side(locate, side)[0][1] == message["ref"], "executed out of turn"
            self.reduce(message["ref"], message["shares"])
            self.executed_ns = message["timestamp"]
        elif kind == "X":
            self.reduce(message["ref"], message["shares"])
        elif kind == "D":
            del self.orders[message["ref"]]

    def reduce(self, ref: int, qty: int) -> None:
        self.orders[ref][3] -= qty
        assert self.orders[ref][3] >= 0
        if self.orders[ref][3] == 0:
            del self.orders[ref]


@pytest.mark.parametrize("seed", [1, 2])
def test_generated_flow_makes_a_market(tmp_path: Path, seed: int) -> None:
    print(f"{seed=}")
    watch = Watch()
    spreads: list[int] = []
    last_ns = 0
    prices = {"AAPL": 187.2, "MSFT": 402.5, "PENNY": 1.5}
    with rig(tmp_path, flow="generated", symbols=prices, rate_per_s=5_000, seed=seed) as made:
        for _ in range(300):
            made.step(after_ns=5 * MS)
            made.run()
            for message in made.decoded():
                assert message["timestamp"] >= last_ns
                last_ns = message["timestamp"]
                watch.apply(message)
            for locate in (1, 2, 3):
                bids, asks = watch.side(locate, "B"), watch.side(locate, "S")
                assert bids and asks, "an empty side"
                assert len(bids) <= SLOTS and len(asks) <= SLOTS
                spreads.append((asks[0][0] + bids[0][0]) // TICK_PX)
        events = made.count("flow_events")
        book = made.stage.state.venue.book
        check_invariants(book)
        assert int(book.counts[0]) == len(watch.orders)
        kinds = {name: made.count(name) for name in ("messages", "executions", "capacity_drops", "diverged")}
    assert min(spreads) >= 1, "crossed or locked"
    assert sorted(spreads)[len(spreads) // 2] <= 3, "the spread is one to a few cents"
    assert all(px % TICK_PX == 0 for _, _, px, _ in watch.orders.values())
    # 1.5 s at 5,000 a second: a Poisson count, five standard deviations either way.
    assert abs(events - 7_500) < 5 * 7_500**0.5
    assert kinds["executions"] > 200
    assert kinds["capacity_drops"] == kinds["diverged"] == 0


def test_a_side_that_a_client_sweeps_is_built_up_again(tmp_path: Path) -> None:
    watch = Watch()
    with rig(tmp_path, flow="generated", symbols={"AAPL": 150.0}, rate_per_s=20_000) as made:
        made.run()
        client = SoupClient(made)
        client.login()
        for number in range(1, 201):
            side, px = ("B", 1_999_999_900) if number % 2 else ("S", 100)
            client.order(enter(number, side, 999_999, px, tif="3"))
            client.until(lambda number=number: made.count("orders") == number, "the order to arrive")
            made.step(after_ns=MS)
            made.run()
            for message in made.decoded():
                watch.apply(message)
        assert made.count("client_executions") > 400


def test_flow_trades_with_a_client_and_refills_what_it_sweeps(tmp_path: Path) -> None:
    with rig(tmp_path, flow="generated", symbols={"AAPL": 150.0}, rate_per_s=20_000) as made:
        made.run()
        client = SoupClient(made)
        client.login()
        client.order(enter(1, "B", 999_999, 2_000_000, tif="3"))
        client.order(enter(2, "S", 100, 100, tif="3"))
        client.until(lambda: made.count("client_executions") > OPENING_ORDERS, "the book to be swept")
        for _ in range(50):
            made.step(after_ns=MS)
        bids, asks = (int(made.stage.state.venue.book.sides[2 + side]["count"]) for side in (0, 1))
        assert bids > 2 and asks > 2
        best_bid = max(order["px"] for order in open_orders(made) if order["side"] == "B")
        client.order(enter(3, "B", 500, best_bid + TICK_PX * 3))
        executed = made.count("client_executions")
        while made.count("client_executions") == executed:
            made.step(after_ns=MS)
            assert made.clock.words[NOW] < 60 * SECOND


def test_flow_waits_for_trading_and_stops_for_draining(tmp_path: Path) -> None:
    with rig(tmp_path, flow="generated", trading=False) as made:
        for _ in range(10):
            made.step(after_ns=MS)
        assert made.count("messages") == 0
        made.phase(PHASE_TRADING)
        made.step(after_ns=10 * MS)
        assert made.count("messages") > 0
        assert int(made.control.records["flow_done"][0]) == 0
        made.phase(PHASE_DRAINING)
        before = made.count("messages")
        for _ in range(10):
            made.step(after_ns=MS)
        assert made.count("messages") == before == int(made.control.records["published"][0])
        assert int(made.control.records["flow_done"][0]) == 1


def test_flow_does_not_run_away_from_the_feed_handler(tmp_path: Path) -> None:
    with rig(tmp_path, flow="generated", rate_per_s=1e6, follow_feed=True, window_messages=500) as made:
        for _ in range(200):
            made.step(after_ns=MS)
        assert 500 <= made.count("messages") < 520
        assert made.count("throttled") == 1
        made.control.records["feed_sequence"][0] = made.count("messages") + 1
        for _ in range(200):
            made.step(after_ns=MS)
        assert 1_000 <= made.count("messages") < 1_040
        assert made.count("throttled") == 2


# Replay.


def write_itch(path: Path, *messages: bytes) -> Path:
    path.write_bytes(b"".join(len(raw).to_bytes(2, "big") + raw for raw in messages))
    return path


def timed(*times_ms: int) -> list[bytes]:
    return [add(100 + number, "B", 10, 1_000_000, now=at * MS) for number, at in enumerate(times_ms)]


PACES: dict[str, tuple[float, int, list[int]]] = {
    "its own times": (1.0, 10_000, [0, 5, 5, 25, 2_025]),
    "ten times faster": (10.0, 10_000, [0, 1, 1, 3, 203]),
    "half as fast": (0.5, 10_000, [0, 10, 10, 50, 4_050]),
    "silence shortened": (1.0, 100, [0, 5, 5, 25, 125]),
    "flat out": (0.0, 10_000, [0, 0, 0, 0, 0]),
}


@pytest.mark.parametrize(("speed", "silence_ms", "due_ms"), PACES.values(), ids=PACES)
def test_a_file_is_replayed_at_its_pace(tmp_path: Path, speed: float, silence_ms: int, due_ms: list[int]) -> None:
    """Messages at 1,000, 1,005, 1,005, 1,025 and 3,025 ms of history; looked at every millisecond."""
    path = write_itch(tmp_path / "day.itch", *timed(1_000, 1_005, 1_005, 1_025, 3_025))
    with rig(tmp_path, flow="replay", path=path, speed=speed, silence_ms_max=silence_ms) as made:
        seen: list[int] = []
        for at_ms in range(due_ms[-1] + 2):
            made.run()
            found = made.decoded()
            seen += [at_ms] * len(found)
            made.step(after_ns=MS)
        assert seen == due_ms
        assert int(made.control.records["flow_done"][0]) == 1


def test_the_exchanges_clock_runs_on_between_historys_messages(tmp_path: Path) -> None:
    """At history's pace, and never past what history has still to say."""
    path = write_itch(tmp_path / "day.itch", *timed(1_000, 1_100))
    with rig(tmp_path, flow="replay", path=path, speed=2.0) as made:
        made.run()
        wire = made.wire_client()
        wire.send(packet(UNSEQUENCED, enter(1, "B", 10, 100)))
        made.step(after_ns=20 * MS)
        wire.send(packet(UNSEQUENCED, enter(2, "B", 10, 100)))
        made.step(after_ns=1_000 * MS)
        published = [(message["ref"], message["timestamp"]) for message in made.decoded()]
    assert published == [(100, 1_000 * MS), (OURS, 1_040 * MS), (OURS + 1, 1_100 * MS), (101, 1_100 * MS)]


@pytest.mark.skipif(not AAPL.exists(), reason="the shared data folder is not beside the project")
def test_gzip_is_replayed_as_the_plain_file_is(tmp_path: Path) -> None:
    zipped = tmp_path / "day.itch.gz"
    zipped.write_bytes(gzip.compress(AAPL.read_bytes()))
    streams = []
    for path in (AAPL, zipped):
        with rig(tmp_path, flow="replay", path=path, speed=0) as made:
            found = []
            while not made.control.records["flow_done"][0]:
                made.step()
                found += made.messages()
            streams.append(found)
            assert made.count("replayed") == 10_056
            assert made.count("malformed") == 0
    assert streams[0] == streams[1]
    assert len(streams[0]) > 10_000


@pytest.mark.skipif(not DATA.exists(), reason="the shared data folder is not beside the project")
def test_a_file_that_ends_inside_a_message(tmp_path: Path) -> None:
    with rig(tmp_path, flow="replay", path=DATA / "itch" / "truncated_head.itch", speed=0) as made:
        made.run()
        assert len(made.messages()) == made.count("replayed") == 101
        assert made.count("malformed") == 1
        assert int(made.control.records["flow_done"][0]) == 1


def test_what_is_not_itch_in_a_file_is_stepped_over(tmp_path: Path) -> None:
    good = timed(*range(9))
    path = write_itch(
        tmp_path / "day.itch",
        *good[:8],
        b"~new type",
        add(7, "B", 1, 1)[:-1],
        b"A",
        add(8, "?", 1, 1),
        add(9, "B", 0, 1),
        good[8],
        deleted(5),
    )
    with rig(tmp_path, flow="replay", path=path, speed=0) as made:
        made.run()
        assert made.messages() == good
        assert made.count("malformed") == 5
        assert made.count("diverged") == 1
    with path.open("ab") as file:
        file.write(b"\0\0" + b"after the end of the session")
    with rig(tmp_path, flow="replay", path=path, speed=0) as made:
        made.run()
        assert made.messages() == good
        assert made.count("malformed") == 5
        assert int(made.control.records["flow_done"][0]) == 1


def test_a_torn_gzip_file_ends_the_loop_with_a_reason(tmp_path: Path) -> None:
    path = tmp_path / "day.itch.gz"
    whole = gzip.compress(b"".join(len(raw).to_bytes(2, "big") + raw for raw in timed(*range(50_000))), compresslevel=0)
    path.write_bytes(whole[: len(whole) // 2])
    with rig(tmp_path, flow="replay", path=path, speed=0) as made:
        while (outcome := made.step()) >= 0:
            made.packets()
        assert outcome == UNZIPPING_FAILED
        assert "the gzip stream is damaged or cut short" in made.stage.reasons[outcome]
        assert made.count("replayed") > 1_000


def test_names_of_history_can_be_traded(tmp_path: Path) -> None:
    """A symbol is known from its directory message, or from its first order where the file has none."""
    with bench(tmp_path) as made:
        made.say(enter(1, "B", 10, 100, symbol="ZVZZT"))
        made.happen(add(1, "B", 10, 100, locate=77, symbol="ZVZZT"))
        made.say(enter(2, "B", 10, 100, symbol="ZVZZT"))
    assert [(report["type"], report["user_ref"]) for report in made.reports] == [("J", 1), ("A", 2)]
    assert made.market[-1]["locate"] == 77


# The end.


def test_both_sessions_end_when_all_is_drained(made: Rig, client: SoupClient) -> None:
    client.order(enter(1, "B", 100, 1_500_000))
    client.reports(1)
    made.phase(PHASE_DRAINING)
    for _ in range(20):
        client.poll()
    client.order(cancel(1))
    assert types(client.reports(1)) == ["C"]
    messages = made.count("messages")
    made.messages()
    made.control.records["drained"][0] = 1
    assert client.receive(1) == [(soupbintcp.END_OF_SESSION, b"")]
    for _ in range(20):
        client.poll()
    made.step(after_ns=SECOND - 1)
    made.step(after_ns=1)
    made.step(after_ns=SECOND)
    made.listener.setblocking(False)
    ends = []
    while True:
        try:
            raw = made.listener.recv(65_536)
        except BlockingIOError:
            break
        assert len(raw) == HEADER_BYTES
        ends.append((int.from_bytes(raw[SEQUENCE_AT:COUNT_AT], "big"), int.from_bytes(raw[COUNT_AT:], "big")))
    assert ends == [(messages + 1, 0xFFFF)] * (3 + 2), "three at once, then one in place of each heartbeat"
    client.order(enter(2, "B", 100, 1_500_000))
    client.until(lambda: len(client.inbox) >= 1, "an answer")
    answers = [payload for kind, payload in client.inbox if kind == soupbintcp.SEQUENCED]
    assert [ouch.REJECTED.decode(payload)["reason"] for payload in answers] == [ouch.REJECT_CLOSED]
    assert [kind for kind, _ in client.inbox].count(soupbintcp.END_OF_SESSION) == 0


# What cannot be used.

UNUSABLE: dict[str, tuple[dict[str, Any], str]] = {
    "flow": ({"flow": "random"}, "flow='random': expected one of"),
    "no symbols": ({"flow": "generated", "symbols": {}}, "generated flow needs at least one symbol"),
    "a long symbol": ({"symbols": {"TOOLONGNAME": 1.0}}, "symbol='TOOLONGNAME'"),
    "a price": ({"symbols": {"A": 0.0}}, "A=0.0: expected a price"),
    "no path": ({"flow": "replay"}, "flow='replay' needs an ITCH file"),
    "a rate": ({"rate_per_s": float("nan")}, "rate_per_s=nan"),
    "a speed": ({"speed": -1.0}, "speed=-1.0"),
    "a seed": ({"seed": -1}, "seed=-1"),
    "a session": ({"session": "ELEVEN CHARS"}, "session='ELEVEN CHARS'"),
    "a user": ({"username": "SEVENCH"}, "username='SEVENCH'"),
    "orders": ({"orders_max": 0}, "orders_max=0"),
    "an address": ({"market_address": ("not.an.address", 1)}, "market_address=not.an.address:1"),
    "an order address": ({"order_address": ("203.0.113.7", 0)}, "order_address=203.0.113.7:0"),
}


@pytest.mark.parametrize(("changes", "expected"), UNUSABLE.values(), ids=UNUSABLE)
def test_what_cannot_be_used_is_named(tmp_path: Path, changes: dict[str, Any], expected: str) -> None:
    held = descriptors()
    with pytest.raises((ValueError, OSError)) as raised, rig(tmp_path, **changes):
        pass
    assert expected in str(raised.value)
    del raised
    assert descriptors() <= held + 4, "descriptors were left open"


UNUSABLE_FILES: dict[str, tuple[bytes | None, str]] = {
    "missing": (None, "No such file"),
    "empty": (b"", "it is empty"),
    "text": (b"hello, this is not market data at all", "expected NASDAQ ITCH 5.0"),
    "another protocol": (b"\0\5Axxxx", "message 0 has type=b'A' and length=5"),
    "broken gzip": (b"\x1f\x8b\x08\x00garbage", "not a readable gzip file"),
}


@pytest.mark.parametrize(("raw", "expected"), UNUSABLE_FILES.values(), ids=UNUSABLE_FILES)
def test_a_file_that_cannot_be_replayed_is_explained(tmp_path: Path, raw: bytes | None, expected: str) -> None:
    path = tmp_path / "day.itch"
    if raw is not None:
        path.write_bytes(raw)
    with pytest.raises((ValueError, OSError)) as raised, rig(tmp_path, flow="replay", path=path):
        pass
    assert expected in str(raised.value)


def test_a_port_in_use_is_named(made: Rig, tmp_path: Path) -> None:
    address = ("127.0.0.1", made.stage.order_port)
    with pytest.raises(OSError, match="in use by another program"), rig(tmp_path, order_address=address):
        pass


def descriptors() -> int:
    return len(list(Path("/proc/self/fd").iterdir()))


def test_closing_leaves_no_descriptor(tmp_path: Path) -> None:
    path = tmp_path / "day.itch.gz"
    raw = timed(1)[0]
    # More than the pipe holds: the thread that unzips is still at it when the exchange is closed.
    path.write_bytes(gzip.compress((len(raw).to_bytes(2, "big") + raw) * 100_000))
    gc.collect()
    held = descriptors()
    with rig(tmp_path, flow="replay", path=path, speed=0) as made:
        SoupClient(made).login()
    # The views of its tables end with it.
    del made
    gc.collect()
    assert descriptors() == held


@pytest.mark.skipif(config.DISABLE_JIT, reason="nothing is compiled")
def test_the_step_allocates_nothing(made: Rig) -> None:
    """No kernel is compiled with numba's runtime, without which nothing can be allocated, and none calls it."""
    made.step()
    kernels = [
        kernel for name in HOT for kernel in vars(import_module(f"engine.exchange.hot.{name}")).values() if hasattr(kernel, "overloads")
    ]
    assert step in kernels
    for kernel in kernels:
        if kernel.__module__.startswith("engine.exchange"):
            assert kernel.targetoptions.get("_nrt") is False, kernel
        for compiled in kernel.overloads.values():
            assert "NRT_Allocate" not in str(compiled.library._get_module_for_linking()), kernel


def test_refs_match_numbers_and_sequence_are_dense(made: Rig, client: SoupClient) -> None:
    for number in range(1, 11):
        client.order(enter(number, "BS"[number % 2], 100, 1_500_000))
    client.until(lambda: made.count("accepted") == 10, "ten orders")
    reports = client.reports(20)
    refs = [report["order_ref"] for report in reports if report["type"] == "A"]
    assert refs == [OURS + number for number in range(10)]
    matches = [message["match"] for message in made.decoded() if message["type"] == "E"]
    assert matches == [OURS + number for number in range(5)]


def test_system_events_pass_through(tmp_path: Path) -> None:
    with bench(tmp_path) as made:
        made.happen(system_event("Q", 5))
    assert made.market == [{"type": "S", "locate": 0, "tracking": 0, "timestamp": 5, "event": "Q"}]
