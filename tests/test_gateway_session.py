"""The gateway's session with its venue: login, heartbeats, endings, and streams that are cut anywhere and full anywhere."""

import random
import socket
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from engine.gateway.hot import state as gateway_state
from engine.gateway.hot.queue import WAITING
from engine.gateway.hot.state import EXPECTED, OVER, PENDING_AT, PENDING_BYTES, STATE
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot.life import (
    LOGIN_NOT_AUTHORIZED,
    LOGIN_REFUSED,
    LOGIN_SESSION_UNAVAILABLE,
    MALFORMED,
    REPORTS_LOST,
    SERVER_SILENT,
    SESSION_ENDED,
    SESSION_LOST,
)
from engine.gateway.ouch.hot.send import send, send_pending
from engine.gateway.ouch.hot.session import PACKET_BYTES_MAX
from engine.gateway.stage import packet
from engine.layout import PHASE_DRAINING, REJECTED_BY_RISK
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as risk
from engine.wire import soupbintcp
from tests.gateway_house import PATIENCE_S, SECOND, START_TSC, House, brief, build_house, build_houses, login_accepted, sequenced

houses = pytest.fixture(build_houses)
house = pytest.fixture(build_house)


def test_login_asks_for_the_session_and_is_accepted(houses: Callable[..., House]) -> None:
    house = houses(login=False, session="S1", sequence=5)
    asked = {"username": "TICK", "password": "PATH", "session": "S1".rjust(10), "sequence": "0".rjust(20)}
    assert house.heard("login") == asked
    house.venue.send(login_accepted(8))
    house.heard("logout")
    house.venue.hang_up()
    house.meet()
    assert house.heard("login") == asked | {"sequence": "5".rjust(20)}
    house.venue.send(login_accepted(5))
    house.heard("account query")
    assert house.control.session_up == 0
    for event in "SQME":
        house.venue.say(ouch.SYSTEM_EVENT, event=event)
    house.venue.say(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=1)
    house.turn_until(lambda: bool(house.control.session_up), "the login")
    assert (house.stats.connects, house.stats.logins, house.stats.reconciliations, house.stats.reports_lost) == (2, 1, 1, 0)
    house.venue.say(ouch.SYSTEM_EVENT, event="S")
    house.settle()
    assert house.session[EXPECTED] == 11


def test_packets_that_the_venue_has_no_more_are_counted_and_nothing_is_traded(houses: Callable[..., House]) -> None:
    house = houses(login=False, sequence=5, reconnect_tries=9)
    house.probe(9)
    house.answer_login(9)
    assert house.turn_to_the_end() == REPORTS_LOST
    assert house.stats.reports_lost == 4
    assert "cannot be reconciled" in house.stage.reasons[REPORTS_LOST]


@pytest.mark.parametrize(
    ("code", "reason", "words"),
    [
        ("A", LOGIN_NOT_AUTHORIZED, "not authorized; check what gateway.credentials names"),
        ("S", LOGIN_SESSION_UNAVAILABLE, "session asked for is not available"),
        ("?", LOGIN_REFUSED, "does not define"),
    ],
)
def test_a_rejected_login_says_why(houses: Callable[..., House], code: str, reason: int, words: str) -> None:
    house = houses(login=False)
    house.venue.send(packet(ord("J"), code.encode()))
    assert house.turn_to_the_end() == reason
    assert words in house.stage.reasons[reason]
    assert house.stats.logins == 0


def test_a_sequence_number_that_is_none_ends_the_session(houses: Callable[..., House]) -> None:
    for bad in (b"x".rjust(20), b" " * 20, b"9" * 20, b"-1".rjust(20)):
        house = houses(login=False)
        house.venue.send(packet(ord("A"), b"S1".rjust(10) + bad))
        assert house.turn_to_the_end() == MALFORMED


def test_orders_before_the_login_are_refused(houses: Callable[..., House]) -> None:
    house = houses(login=False)
    house.new()
    house.turn_until(lambda: house.stats.rejected_by_risk == 1, "the refusal")
    assert brief(house.told(), "order_id", "reason", "flags") == [("rejected", 1, risk.REASON_NO_SESSION, REJECTED_BY_RISK)]


def test_heartbeats_after_a_second_of_silence(house: House) -> None:
    house.clock.words[NOW] += SECOND - 1
    house.turn()
    assert house.stats.heartbeats_sent == 0
    house.clock.words[NOW] += 1
    house.turn()
    house.turn()
    assert house.stats.heartbeats_sent == 1
    house.turn_until(lambda: house.venue.heard == [("heartbeat", None)], "the heartbeat")
    house.clock.words[NOW] += SECOND // 2
    house.new()
    house.turn()
    house.clock.words[NOW] += SECOND // 2  # an order was sent since
    house.turn()
    assert house.stats.heartbeats_sent == 1


def test_a_venue_silent_for_fifteen_seconds_is_lost(house: House) -> None:
    house.clock.words[NOW] += 15 * SECOND
    assert house.turn() >= 0
    house.venue.send(packet(soupbintcp.SERVER_HEARTBEAT))
    house.turn_until(lambda: house.stats.heartbeats_received == 1, "a heartbeat")
    house.clock.words[NOW] += 15 * SECOND
    assert house.turn() >= 0
    house.clock.words[NOW] += 1
    assert house.turn() == SERVER_SILENT
    assert house.turn_to_the_end() == SERVER_SILENT
    assert house.stats.sessions_lost == 1


def test_the_end_of_the_session_is_told_and_is_no_loss(house: House) -> None:
    house.venue.send(packet(soupbintcp.END_OF_SESSION))
    assert house.turn_to_the_end() == SESSION_ENDED
    assert house.stats.sessions_lost == 0


@pytest.mark.parametrize("pace", [0, 1])
def test_an_order_that_comes_after_the_drained_end_of_the_session_is_refused_and_not_left_on_its_ring(
    houses: Callable[..., House], pace: int
) -> None:
    """The strategy was not running when the drain began, and sends what it had in hand."""
    house = houses(pace_per_s=pace)
    order_id = house.live()
    house.told()
    house.control.phase = PHASE_DRAINING
    house.settle()
    house.venue.say(ouch.CANCELED, user_ref=house.ref_of(order_id), quantity=100)
    house.venue.send(packet(soupbintcp.END_OF_SESSION))
    house.turn_until(lambda: house.session[STATE] == OVER, "the end of the session")
    assert (house.control.drained, house.ending) == (1, 0)
    late = [house.new(), house.cancel(order_id), house.new()]
    house.turn_until(lambda: not house.orders.backlog()["gateway"] and house.stage.state.queue.words[WAITING] == 0, "all to be taken")
    assert sorted(said[:2] for said in brief(house.told(), "order_id"))[1:] == sorted([("rejected", number) for number in late])
    assert (house.ending, house.control.drained, house.stats.open_orders) == (0, 1, 0)


def test_a_closed_connection_is_a_lost_session_after_its_last_bytes_were_read(house: House) -> None:
    order_id = house.live()
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=100, match=1)
    house.venue.hang_up()
    assert house.turn_to_the_end() == SESSION_LOST
    assert brief(house.told(), "qty") == [("executed", 100)]
    assert house.stats.sessions_lost == 1
    assert house.stats.malformed == 0


def test_a_connection_cut_inside_a_packet_counts_it(house: House) -> None:
    house.venue.send(sequenced(ouch.SYSTEM_EVENT, event="S")[:-1])
    house.venue.hang_up()
    assert house.turn_to_the_end() == SESSION_LOST
    assert house.stats.malformed == 1


def test_sending_into_a_closed_connection_is_noticed(house: House) -> None:
    house.venue.hang_up(reset=True)
    house.new()
    assert house.turn_to_the_end() == SESSION_LOST
    # Whether it arrived nobody knows: it counts against the limits.
    assert house.stats.open_orders in (0, 1)
    assert house.opens() == (100 * int(house.stats.open_orders), 0)


def test_a_connection_that_takes_no_more_bytes_is_lost(house: House) -> None:
    house.stage.socket.shutdown(socket.SHUT_WR)
    order_id = house.new()
    assert house.turn_to_the_end() == SESSION_LOST
    assert house.told() == []
    assert house.state_of(order_id) == gateway_state.UNKNOWN
    assert house.stats.unknown_orders == 1
    assert house.opens() == (100, 0)


GARBAGE = {
    "no length": b"\x00\x00",
    "no length, then what could be a heartbeat": b"\x00\x00H",
    "oversize": (PACKET_BYTES_MAX - 1).to_bytes(2, "big"),
    "text": b"HTTP/1.1 400 Bad Request\r\n\r\n",
    "unknown packet": packet(ord("?"), b"abc"),
    "a client's packet": packet(soupbintcp.UNSEQUENCED + 32, b"abc"),
    "empty sequenced": packet(soupbintcp.SEQUENCED),
    "second login": login_accepted(),
    **{f"short {message.name}": packet(soupbintcp.SEQUENCED, bytes([message.code]) + bytes(message.length - 2)) for message in (
        ouch.ACCEPTED, ouch.REPLACED, ouch.CANCELED, ouch.EXECUTED, ouch.BROKEN, ouch.REJECTED, ouch.AIQ_CANCELED, ouch.CANCEL_REJECTED)},
}  # fmt: skip


@pytest.mark.parametrize("raw", GARBAGE.values(), ids=GARBAGE)
def test_garbage_ends_the_session(house: House, raw: bytes) -> None:
    house.venue.send(raw)
    assert house.turn_to_the_end() == MALFORMED
    assert house.stats.malformed == 1
    assert house.stats.sessions_lost == 1
    assert house.stats.heartbeats_received == 0
    assert house.told() == []


def test_random_bytes_never_crash(houses: Callable[..., House]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    for _ in range(12):
        house = houses()
        house.live()
        house.venue.send(chance.randbytes(chance.choice((3, 50, 5_000, 200_000))) + bytes(2 * PACKET_BYTES_MAX))
        assert house.turn_to_the_end() in (MALFORMED, SESSION_ENDED)


def test_debug_packets_and_unsequenced_ones_mean_nothing(house: House) -> None:
    house.venue.send(
        packet(soupbintcp.DEBUG, b"x" * (PACKET_BYTES_MAX - 3)) + packet(soupbintcp.UNSEQUENCED, b"abc") + packet(soupbintcp.DEBUG)
    )
    assert house.settle() == []
    assert house.told() == []
    assert house.stats.malformed == house.stats.unknown_reports == 0


def test_nobody_listening_is_said_with_the_address(house: House) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(ConnectionError, match=rf"gateway\.address=127\.0\.0\.1:{port}: Connection refused; expected a venue that listens"):
        house.gateway(address=("127.0.0.1", port))


@pytest.mark.parametrize("option", ["orders_max", "executions_max"])
def test_a_capacity_of_nothing_is_refused(house: House, option: str) -> None:
    with pytest.raises(ValueError, match=f"{option}=0: expected 1 to"):
        house.gateway(**{option: 0})


def test_one_byte_at_a_time(house: House) -> None:
    order_id = house.new()
    house.settle()
    stream = (
        sequenced(ouch.ACCEPTED, user_ref=order_id, quantity=100)
        + packet(soupbintcp.DEBUG, b"hello")
        + sequenced(ouch.EXECUTED, user_ref=order_id, quantity=60, match=1)
        + sequenced(ouch.CANCELED, user_ref=order_id, quantity=40)
    )
    for byte in stream:
        house.venue.send(bytes([byte]))
        house.turn()
    house.settle()
    assert [report["is"] for report in house.told()] == ["accepted", "executed", "cancelled"]
    assert house.line()["position"] == 60


def test_many_messages_in_one_segment_and_buffers_that_wrap(houses: Callable[..., House]) -> None:
    house = houses(reports_capacity=1 << 13)
    order_id = house.live(qty=5_000)
    # Debug packets of odd lengths move the messages over every place in the receive buffer, its end included.
    stream = b"".join(
        sequenced(ouch.EXECUTED, user_ref=order_id, quantity=1, match=match) + packet(soupbintcp.DEBUG, b"x" * (match * 37 % 300))
        for match in range(3_000)
    )
    house.venue.send(stream)
    house.settle()
    assert [report["ref_id"] for report in house.told()] == list(range(3_000))
    assert house.line()["position"] == 3_000


def test_an_appendage_is_skipped(house: House) -> None:
    order_id = house.new()
    house.settle()
    raw = sequenced(ouch.ACCEPTED, user_ref=order_id, quantity=100, appendage_length=9)[2:] + b"\x05\x02FIRM\x02\x120"
    house.venue.send(len(raw).to_bytes(2, "big") + raw)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=100, match=1)
    house.settle()
    assert [report["is"] for report in house.told()] == ["accepted", "executed"]


@pytest.mark.parametrize("capacity", [2, 4, 16])
def test_a_full_reports_ring_loses_nothing(houses: Callable[..., House], capacity: int) -> None:
    house = houses(reports_capacity=capacity, executions_max=1 << 14)
    first = house.live(qty=100_000)
    house.told()
    fills = 9_000  # more bytes than the receive buffer holds, so that they wait in the socket
    for match in range(fills):
        house.venue.say(ouch.EXECUTED, user_ref=first, quantity=1, match=match)
    for _ in range(200):
        house.turn()
    assert house.stats.ring_waits > 0
    assert house.reports.backlog()["strategy"] >= capacity - 1
    assert house.stats.executed < fills
    refused = [house.new(qty=0) for _ in range(3)]  # their rejections have no room either, or one of them has
    house.clock.words[NOW] += 20 * SECOND  # longer than a venue may be silent: but we do not listen
    for _ in range(50):
        assert house.turn() >= 0
    assert house.stats.heartbeats_sent > 0
    assert house.orders.backlog()["gateway"] >= 2
    told: list[dict[str, Any]] = []
    deadline = time.monotonic() + PATIENCE_S
    while len(told) < fills + 3:
        assert house.turn() >= 0
        told += house.told()
        assert time.monotonic() < deadline
    assert [report["ref_id"] for report in told if report["is"] == "executed"] == list(range(fills))
    assert [report["order_id"] for report in told if report["is"] == "rejected"] == refused
    assert house.line()["position"] == fills


def test_a_full_reports_ring_holds_back_the_deaths_of_a_chain(houses: Callable[..., House]) -> None:
    house = houses(reports_capacity=2)
    first = house.live()
    chain = [first]
    for _ in range(4):
        chain.append(house.replace(chain[-1]))
        house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=40, match=1)
    house.venue.say(ouch.CANCELED, user_ref=first, quantity=60)
    told: list[dict[str, Any]] = []
    for _ in range(2_000):
        house.turn()
    while got := house.told():
        told += got
        for _ in range(20):
            house.turn()
    assert brief(told, "order_id") == [("executed", first), ("cancelled", first)] + [("rejected", order_id) for order_id in chain[1:]]


def test_a_message_sent_in_parts_goes_on_where_it_stopped(house: House) -> None:
    """A template is too short for a socket to take only part of it, as a rule: sixteen megabytes are not."""
    session, stats = house.stage.state.session, house.stats_table.records
    wire = np.frombuffer(random.Random(1).randbytes(1 << 24), np.uint8).copy()
    send(session, wire, stats, 100, len(wire) - 100, START_TSC)
    assert 0 < session[PENDING_BYTES] < len(wire) - 100
    assert (session[PENDING_AT] + session[PENDING_BYTES], house.stats.partial_sends) == (len(wire), 1)
    assert house.venue.client is not None
    arrived = b""
    while len(arrived) < len(wire) - 100:
        send_pending(session, wire, stats, START_TSC)
        arrived += house.venue.client.recv(1 << 20)
    assert arrived == wire[100:].tobytes()
    assert session[PENDING_BYTES] == 0


def test_a_place_is_not_given_away_before_its_orders_death_is_told(houses: Callable[..., House]) -> None:
    house = houses(reports_capacity=2, orders_max=4)
    chain = [house.live()]
    for _ in range(2):
        chain.append(house.replace(chain[-1]))
        house.settle()
    house.venue.say(ouch.CANCELED, user_ref=chain[0], quantity=100)
    for _ in range(2_000):
        house.turn()
    heir = house.new(order_id=chain[2] + 4)
    told = house.told()
    house.settle()
    assert brief(told + house.told(), "order_id") == [("cancelled", chain[0]), ("rejected", chain[1]), ("rejected", chain[2])]
    assert house.state_of(heir) == gateway_state.PENDING_NEW


def test_partial_sends_are_kept_and_go_out_in_order(houses: Callable[..., House]) -> None:
    house = houses(orders_max=1 << 15)
    house.stage.socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    wanted: list[int] = []
    deadline = time.monotonic() + PATIENCE_S
    # The venue reads nothing, until its receive buffer and our send buffer are full and orders wait behind them.
    while house.stage.state.queue.words[WAITING] < 64:
        wanted += [house.new(qty=1) for _ in range(16)]
        house.turn()
        assert time.monotonic() < deadline
    assert house.stats.partial_sends > 0
    assert house.stage.state.session[PENDING_BYTES] > 0
    held = wanted[-int(house.stage.state.queue.words[WAITING])]
    house.cancel(wanted[0])
    said = house.settle()
    assert [fields["user_ref"] for kind, fields in said if kind == "enter order"] == wanted
    # The cancel waited for the bytes that were under way, and for no order that was not.
    assert said[held - 1] == ("cancel order", {"user_ref": wanted[0], "quantity": 0})
    assert house.stats.bytes_sent > 50 * len(wanted)
