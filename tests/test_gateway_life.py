"""A session that is lost and made again: what nobody knows the fate of counts, nothing is sent before all is known, nothing twice."""

import socket
from collections.abc import Callable

import pytest

from engine.gateway.hot import state as gateway_state
from engine.gateway.hot.state import DOWN, FAILURES, NEXT_REF, RECONCILE, REPLAYING, RETRY_TSC, STATE
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot.life import (
    LOGIN_SESSION_UNAVAILABLE,
    NOT_CONNECTED,
    NOT_RECONCILED,
    ORDERS_EXHAUSTED,
    REPORTS_LOST,
    SESSION_ENDED,
)
from engine.gateway.stage import packet
from engine.layout import BUY, PHASE_DRAINING, SELL, pack_symbol
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as risk
from engine.wire import soupbintcp
from tests.gateway_house import AAPL, MSFT, PX, SECOND, House, brief, build_houses, login_accepted, sequenced

houses = pytest.fixture(build_houses)


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses(reconnect_tries=5)


def lose(house: House, *, reset: bool = False) -> None:
    house.venue.hang_up(reset=reset)
    house.turn_until(lambda: house.session[STATE] == DOWN, "the loss")


def answer(next_user_ref: int) -> bytes:
    return sequenced(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=next_user_ref)


# What was open is of unknown fate, and counts.


def test_what_was_open_is_unknown_and_goes_on_counting(houses: Callable[..., House]) -> None:
    house = houses(reconnect_tries=5, limits={"position_max": 250})
    acknowledged, under_way = house.live(), house.new()
    house.settle()
    lose(house)
    house.turn_until(lambda: house.stats.unknown_orders == 2, "both orders to be unknown")
    assert house.state_of(acknowledged) == house.state_of(under_way) == gateway_state.UNKNOWN
    assert house.control.session_up == 0
    assert house.opens() == (200, 0)
    house.new()
    house.cancel(acknowledged)
    for _ in range(3):
        house.turn()
    assert [report["reason"] for report in house.told()] == [risk.REASON_NO_SESSION] * 2
    assert house.reconnect(next_user_ref=3) == "3"
    # The venue heard of both and has said nothing of the second: it still may trade.
    assert (house.state_of(acknowledged), house.state_of(under_way)) == (gateway_state.LIVE, gateway_state.UNKNOWN)
    assert (house.opens(), house.stats.unknown_orders) == ((200, 0), 1)
    house.new(qty=51)
    house.new(qty=50)
    assert [fields["quantity"] for _, fields in house.settle()] == [50]
    assert [report["reason"] for report in house.told()] == [risk.REASON_POSITION]
    house.venue.say(ouch.CANCELED, user_ref=2, quantity=100)
    house.settle()
    assert (house.opens(), house.stats.unknown_orders) == ((150, 0), 0)


def test_orders_that_never_arrived_are_told_and_count_no_more(house: House) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    third = house.replace(second, qty=500)
    new = house.new(qty=70, side=SELL)
    house.settle()
    assert house.opens() == (500, 70)
    lose(house)
    house.reconnect(next_user_ref=2)
    never = risk.REASON_NEVER_ARRIVED
    told = brief(house.told(), "order_id", "reason", "qty")
    assert sorted(told) == sorted([("rejected", second, never, 0), ("rejected", third, never, 0), ("rejected", new, never, 0)])
    assert house.state_of(first) == gateway_state.LIVE
    assert (house.opens(), house.stats.open_orders, house.stats.never_arrived, house.stats.unknown_orders) == ((100, 0), 1, 3, 0)
    house.replace(first, qty=50)
    ((_, fields),) = house.settle()
    assert (fields["orig_user_ref"], fields["user_ref"]) == (1, 5), "a number is used once, whether it arrived or not"


def test_a_replacement_that_arrived_and_one_that_did_not(house: House) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    third = house.replace(second, qty=50)
    house.settle()
    lose(house)
    house.reconnect(replay=sequenced(ouch.REPLACED, orig_user_ref=1, user_ref=2, quantity=300), next_user_ref=3)
    assert brief(house.told(), "order_id", "reason") == [("replaced", second, 0), ("rejected", third, risk.REASON_NEVER_ARRIVED)]
    assert house.state_of(second) == gateway_state.LIVE
    assert house.opens() == (300, 0)


def test_a_cancel_that_the_venue_never_did_is_told_and_can_be_asked_again(house: House) -> None:
    order_id = house.live()
    house.cancel(order_id)
    house.settle()
    lose(house)
    house.reconnect(next_user_ref=2)
    assert brief(house.told(), "order_id", "reason", "qty") == [("rejected", order_id, risk.REASON_NEVER_ARRIVED, 100)]
    assert house.state_of(order_id) == gateway_state.LIVE
    house.cancel(order_id)
    assert house.settle() == [("cancel order", {"user_ref": 1, "quantity": 0})]


def test_what_the_venue_cancelled_on_the_disconnect_is_told_from_its_replay(house: House) -> None:
    first, second = house.live(qty=100), house.live(qty=200, side=SELL)
    lose(house)
    replay = b"".join(
        (
            sequenced(ouch.EXECUTED, user_ref=1, quantity=30, match=7),
            sequenced(ouch.CANCELED, user_ref=1, quantity=70, reason="Z"),
            sequenced(ouch.CANCELED, user_ref=2, quantity=200, reason="Z"),
        )
    )
    assert house.reconnect(replay=replay, next_user_ref=3) == "4"
    assert brief(house.told(), "order_id", "qty") == [("executed", first, 30), ("cancelled", first, 70), ("cancelled", second, 200)]
    assert (house.opens(), house.line()["position"], house.stats.open_orders) == ((0, 0), 30, 0)


def test_packets_that_were_applied_are_passed_over_when_the_venue_begins_too_early(house: House) -> None:
    """A cancel in part takes its shares off again each time it is told: only its number says that it was heard."""
    order_id = house.live(qty=100)
    house.venue.say(ouch.CANCELED, user_ref=1, quantity=10)
    house.settle()
    lose(house)
    house.meet()
    assert house.heard("login")["sequence"].strip() == "4"
    house.venue.send(login_accepted(2) + sequenced(ouch.ACCEPTED, user_ref=1, quantity=100))
    house.venue.send(sequenced(ouch.CANCELED, user_ref=1, quantity=10) + sequenced(ouch.EXECUTED, user_ref=1, quantity=5, match=1))
    house.come_up(next_user_ref=2)
    assert brief(house.told(), "qty") == [("accepted", 100), ("cancelled", 10), ("executed", 5)][1:]
    assert (house.opens(), int(house.entry(order_id).open)) == ((85, 0), 85)


def test_nothing_is_sent_before_the_answer_to_the_account_query(house: House) -> None:
    house.live()
    lose(house)
    house.meet()
    asked = house.heard("login")["sequence"]
    house.venue.send(login_accepted(int(asked)))
    house.heard("account query")
    for _ in range(3):
        house.new()
        house.cancel(1)
    house.settle()
    assert [said for said, _ in house.venue.heard if said != "heartbeat"] == []
    assert {report["reason"] for report in house.told()} == {risk.REASON_NO_SESSION}
    house.venue.send(answer(2))
    house.turn_until(lambda: bool(house.control.session_up), "the session")
    house.new()
    assert [said for said, _ in house.settle()] == ["enter order"]


def test_the_sweep_of_a_kill_is_done_first_when_the_session_is_back(house: House) -> None:
    house.live()
    lose(house)
    house.control.kill = 1
    house.reconnect(next_user_ref=2)
    assert house.settle() == [("cancel order", {"user_ref": 1, "quantity": 0})]


def test_drained_with_nothing_open_though_the_session_is_down(house: House) -> None:
    lose(house)
    house.control.phase = PHASE_DRAINING
    for _ in range(2):
        house.turn()
    assert house.control.drained == 1


# Losing it at any moment of an order's life.

ORDERS = ["enter order", "enter order", "replace order", "cancel order"]
# What the venue says to each of them, and what then happens.
REPLIES = [
    [sequenced(ouch.ACCEPTED, user_ref=1, quantity=100)],
    [sequenced(ouch.ACCEPTED, user_ref=2, quantity=200, side="S"), sequenced(ouch.EXECUTED, user_ref=1, quantity=40, match=1)],
    [sequenced(ouch.REPLACED, orig_user_ref=1, user_ref=3, quantity=260), sequenced(ouch.EXECUTED, user_ref=3, quantity=60, match=2)],
    [sequenced(ouch.CANCELED, user_ref=2, quantity=200)],
]
# With so many of our messages taken: the next user_ref, what rests by user_ref, and the position.
TRUTH: list[tuple[int, dict[int, int], int]] = [
    (1, {}, 0), (2, {1: 100}, 0), (3, {1: 60, 2: 200}, 40), (4, {3: 200, 2: 200}, 100), (4, {3: 200}, 100),
]  # fmt: skip


def ask(house: House) -> None:
    first = house.new(qty=100)
    second = house.new(qty=200, side=SELL)
    house.replace(first, qty=300)
    house.cancel(second, side=SELL)
    assert [kind for kind, _ in house.settle()] == ORDERS


@pytest.mark.parametrize("cancels", [False, True], ids=["what rests goes on", "what rests is cancelled"])
@pytest.mark.parametrize("taken", range(len(ORDERS) + 1))
def test_lost_at_any_point_of_an_orders_life(houses: Callable[..., House], taken: int, cancels: bool) -> None:
    """The venue took so many of our messages, and we heard so much of what it said."""
    said = [raw for replies in REPLIES[:taken] for raw in replies]
    next_ref, rests, position = TRUTH[taken]
    swept = [sequenced(ouch.CANCELED, user_ref=ref, quantity=qty, reason="Z") for ref, qty in rests.items()] if cancels else []
    for heard in range(len(said) + 1):
        house = houses(reconnect_tries=5)
        ask(house)
        house.venue.send(b"".join(said[:heard]))
        house.settle()
        lose(house)
        assert house.opens()[0] + house.line()["position"] >= position + sum(qty for ref, qty in rests.items() if ref != 2)
        house.reconnect(replay=b"".join(said[heard:] + swept), next_user_ref=next_ref)
        assert house.settle() == [], "nothing is sent again"
        left = {} if cancels else rests
        table = house.stage.state.table
        alive = {int(entry.user_ref): int(entry.open) for entry in table if 0 < entry.state < gateway_state.ENDED}
        assert alive == left, (taken, heard)
        assert house.line()["position"] == position
        assert house.opens() == (left.get(1, 0) + left.get(3, 0), left.get(2, 0))
        assert (house.stats.unknown_orders, house.stats.illegal_moves, house.stats.unknown_reports) == (0, 0, 0)
        ended = [report["order_id"] for report in house.told() if report["is"] in ("rejected", "cancelled")]
        assert house.session[NEXT_REF] == 4
        told_dead = {order_id for order_id in ended if order_id not in {int(entry.order_id) for entry in table if entry.user_ref in left}}
        # Every order is at rest, was replaced, or its end was told.
        assert {1, 2, 3} == told_dead | {int(entry.order_id) for entry in table if entry.user_ref in left} | ({1} if taken >= 3 else set())


def test_a_loss_after_every_byte_of_the_replay(houses: Callable[..., House]) -> None:
    """Each connection breaks one byte later than the one before; each login asks for the first packet that was not whole."""
    said = [raw for replies in REPLIES for raw in replies]
    house = houses()
    ask(house)
    house.venue.send(b"".join(said))
    house.settle()
    expected = house.told(), house.line()
    house = houses(reconnect_tries=10_000, reconnect_ms=1, reconnect_ms_max=1)
    ask(house)
    lose(house)
    ends = [sum(map(len, said[: count + 1])) for count in range(len(said))]
    for cut in range(1, ends[-1] + 1):
        whole = sum(1 for end in ends if end < cut)
        house.meet()
        if cut > 1:
            # The answer to the query of the connection before could stand in the sequence.
            house.probe(1 + len(said))
        # 2 is the first number after the answer to the first account query.
        assert house.heard("login")["sequence"].strip() == str(2 + whole)
        house.venue.send(login_accepted(2 + whole) + b"".join(said)[ends[whole - 1] if whole else 0 : cut])
        lose(house)
    house.meet()
    house.probe(1 + len(said))
    assert house.heard("login")["sequence"].strip() == str(2 + len(said))
    house.venue.send(login_accepted(2 + len(said)))
    house.come_up(4)
    strip = {"origin_tsc": 0, "age_tsc": 0, "sequence": 0}
    assert [report | strip for report in house.told()] == [report | strip for report in expected[0]]
    assert house.line() == expected[1]
    assert house.stats.duplicates == house.stats.illegal_moves == 0
    assert house.stats.malformed == sum(1 for cut in range(1, ends[-1] + 1) if cut not in ends)


def test_an_answer_to_a_query_before_the_loss_ends_no_reconciliation(houses: Callable[..., House]) -> None:
    """The venue answered, the connection broke before that was read, and what traded since stands behind the answer."""
    house = houses(reconnect_tries=5)
    order_id = house.live()
    lose(house)
    house.meet()
    house.answer_login(3)
    house.heard("account query")
    lose(house)
    house.meet()
    house.probe(head=4)
    assert house.heard("login")["sequence"].strip() == "3"
    traded = sequenced(ouch.EXECUTED, user_ref=1, quantity=40, match=9)
    house.venue.send(login_accepted(3) + answer(2))
    house.heard("account query")
    assert house.control.session_up == 0
    house.venue.send(traded + answer(2))
    house.turn_until(lambda: bool(house.control.session_up), "the session")
    assert (house.line()["position"], house.entry(order_id).open) == (40, 60)


EARLIER_ANSWER = [sequenced(ouch.ACCEPTED, user_ref=1, quantity=100), answer(2)]


def replaying(house: House, head: int) -> None:
    """A first login at a venue whose sequence ends with the answer to a query of before, and which has traded since."""
    house.probe(head)
    house.answer_login()
    house.heard("account query")
    house.venue.send(b"".join(EARLIER_ANSWER))
    for _ in range(20):
        house.turn()
    assert (house.control.session_up, house.stats.adopted) == (0, 1)


@pytest.mark.parametrize("head", [2, 3], ids=["the last one's number", "the next one's number"])
def test_an_answer_just_where_the_sequence_was_is_asked_for_once_more(houses: Callable[..., House], head: int) -> None:
    """What a login that asks for nothing is answered: by one kind of venue the earlier answer stands there, by the other ours."""
    house = houses(login=False, reconnect_tries=5)
    replaying(house, head)
    traded = sequenced(ouch.EXECUTED, user_ref=1, quantity=100, match=9)
    house.venue.send(answer(2) if head == 3 else traded)
    for _ in range(20):
        house.turn()
    assert (house.control.session_up, house.session[RECONCILE]) == (0, REPLAYING)
    house.heard("account query")
    house.venue.send(traded + answer(2) if head == 3 else answer(2))
    house.turn_until(lambda: bool(house.control.session_up), "the session")
    assert (house.line()["position"], house.stats.open_orders) == (100, 0)
    assert [said for said in house.settle() if said[0] == "account query"] == []


@pytest.mark.parametrize("since", ["nothing", "another answer", "an order that was accepted", "an order that was not answered"])
def test_an_answer_that_may_still_come_is_looked_out_for_after_a_loss(houses: Callable[..., House], since: str) -> None:
    house = houses(login=False, reconnect_tries=5)
    replaying(house, 2)
    house.venue.send(sequenced(ouch.CANCELED, user_ref=1, quantity=100) + answer(2))
    house.turn_until(lambda: bool(house.control.session_up), "the session")
    if since == "another answer":
        house.venue.send(answer(2))
    elif since == "an order that was accepted":
        house.live()
    elif since != "nothing":
        house.new()
    house.settle()
    house.venue.heard.clear()
    lose(house)
    house.meet()
    probes = since in ("nothing", "an order that was not answered")
    assert (house.heard("login")["sequence"].strip() == "0") == probes


def test_a_session_that_asked_once_is_made_again_without_a_look(house: House) -> None:
    lose(house)
    house.meet()
    assert house.heard("login")["sequence"].strip() == "2"


# How it is tried again.


def test_a_silent_venue_is_left_and_tried_again(houses: Callable[..., House]) -> None:
    house = houses(reconnect_tries=5, silence_ms=3_000)
    order_id = house.live()
    house.clock.words[NOW] += 3 * SECOND + 1
    house.turn()
    assert (house.session[STATE], house.control.session_up) == (DOWN, 0)
    house.turn_until(lambda: house.stage.socket is None, "the old socket to be closed")
    house.reconnect(next_user_ref=2)
    assert house.state_of(order_id) == gateway_state.LIVE
    assert (house.stats.sessions_lost, house.stats.reconciliations) == (1, 2)


def test_the_kernel_gives_up_what_is_not_acknowledged(house: House) -> None:
    assert house.stage.socket is not None
    assert house.stage.socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT) == 15_000


def test_waits_double_with_jitter_to_a_bound_and_tries_are_counted(houses: Callable[..., House]) -> None:
    asked: list[int] = []

    def refuse() -> socket.socket:
        asked.append(1)
        raise ConnectionRefusedError

    house = houses(reconnect_tries=8, reconnect_ms=100, reconnect_ms_max=1_000)
    house.stage.connector = refuse
    house.live()
    house.venue.hang_up()
    waits = []
    house.turn_until(lambda: house.session[STATE] == DOWN, "the loss")
    while not house.ending:
        waits.append((int(house.session[RETRY_TSC]) - int(house.clock.words[NOW])) / 1e6)
        tries = int(house.session[FAILURES])
        house.clock.words[NOW] = house.session[RETRY_TSC] - 1
        before = len(asked)
        for _ in range(3):
            house.turn()
        assert len(asked) == before
        house.clock.words[NOW] += 1
        house.turn_until(lambda tries=tries: house.session[FAILURES] > tries or bool(house.ending), "the next failure")
    assert house.ending == NOT_CONNECTED
    assert "orders that were open may still be open there" in house.stage.reasons[NOT_CONNECTED]
    assert len(waits) == len(asked) == house.stats.connect_failures == 8
    for wait, due in zip(waits, (100, 200, 400, 800, 1_000, 1_000, 1_000, 1_000), strict=True):
        assert due / 2 <= wait <= due
    assert len(set(waits)) == 8
    assert house.stats.unknown_orders == 1


def test_a_connection_that_is_never_made_is_given_up(houses: Callable[..., House]) -> None:
    house = houses(reconnect_tries=5, connect_ms=700)
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    full = [socket.create_connection(listener.getsockname()) for _ in range(1)]
    house.stage.connector = lambda: pending(listener.getsockname())
    lose(house)
    house.clock.words[NOW] = house.session[RETRY_TSC]
    house.turn_until(lambda: house.stage.opening is not None, "a connection under way")
    for _ in range(10):
        house.turn()
    assert house.session[STATE] == DOWN
    house.clock.words[NOW] += SECOND
    house.turn_until(lambda: house.stats.connect_failures == 1, "the end of its time")
    house.turn()
    assert house.stage.opening is None
    for made in (*full, listener):
        made.close()


def pending(address: tuple[str, int]) -> socket.socket:
    """A connection that nobody takes: the queue behind the address is full."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM | socket.SOCK_NONBLOCK)
    made.connect_ex(address)
    return made


def test_a_gateway_may_begin_without_a_connection(houses: Callable[..., House]) -> None:
    pairs: list[socket.socket] = []

    def connector() -> socket.socket:
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        pairs.append(theirs)
        return ours

    house = houses(login=False, connector=connector, reconnect_tries=3)
    house.connections = pairs
    assert (int(house.session[STATE]), house.stage.socket) == (DOWN, None)
    house.meet()
    house.login()
    order_id = house.live()
    lose(house)
    house.reconnect(next_user_ref=2)
    assert (house.stats.connects, house.state_of(order_id)) == (3, gateway_state.LIVE)


def test_another_session_is_not_taken_for_ours(house: House) -> None:
    house.live()
    lose(house)
    house.meet()
    assert house.heard("login")["session"] == "S1".rjust(10)
    house.venue.send(login_accepted(3, session="S2"))
    house.turn_until(lambda: house.session[STATE] == DOWN, "the refusal")
    while not house.ending:
        house.meet()
        house.venue.send(packet(ord("J"), b"S"))
        house.turn_until(lambda: house.session[STATE] != gateway_state.LOGIN_SENT, "the refusal")
        house.turn()
    assert house.turn_to_the_end() == LOGIN_SESSION_UNAVAILABLE


def test_reports_that_the_venue_has_no_more_end_it(house: House) -> None:
    house.live()
    lose(house)
    house.meet()
    house.venue.send(login_accepted(9))
    assert house.turn_to_the_end() == REPORTS_LOST
    assert house.stats.reports_lost == 6


def test_the_end_of_the_session_is_not_tried_again(house: House) -> None:
    house.venue.send(packet(soupbintcp.END_OF_SESSION))
    assert house.turn_to_the_end() == SESSION_ENDED


def test_a_venue_that_does_not_answer_is_left(houses: Callable[..., House]) -> None:
    house = houses(login=False, silence_ms=5_000)
    house.probe()
    house.answer_login()
    house.heard("account query")
    for _ in range(6):
        house.clock.words[NOW] += SECOND
        house.venue.send(packet(soupbintcp.SERVER_HEARTBEAT))
        beats = int(house.stats.heartbeats_received)
        house.turn_until(lambda beats=beats: house.stats.heartbeats_received > beats or bool(house.ending), "a heartbeat")
    assert house.turn_to_the_end() == NOT_RECONCILED


# Orders of an earlier life.

EARLIER = [
    sequenced(ouch.SYSTEM_EVENT, event="S"),
    answer(1),
    sequenced(ouch.ACCEPTED, user_ref=1, quantity=100, side="B", symbol="AAPL"),
    sequenced(ouch.ACCEPTED, user_ref=2, quantity=500, side="T", symbol="MSFT"),
    sequenced(ouch.EXECUTED, user_ref=1, quantity=100, px=PX, match=1),
    sequenced(ouch.REPLACED, orig_user_ref=2, user_ref=3, quantity=700, side="T", symbol="MSFT"),
    sequenced(ouch.EXECUTED, user_ref=3, quantity=200, px=PX + 5, match=2),
    answer(4),
    sequenced(ouch.ACCEPTED, user_ref=4, quantity=50, side="B", symbol="AAPL"),
    sequenced(ouch.REJECTED, user_ref=5, reason=15),
    sequenced(ouch.ACCEPTED, user_ref=6, quantity=50, side="B", symbol="AAPL", state="D"),
]


def test_a_new_life_adopts_the_day_and_cancels_what_is_open(houses: Callable[..., House]) -> None:
    """The answers that the earlier life asked for are in the replay: they are not taken for ours, which stands behind all."""
    house = houses(login=False, reconnect_tries=3)
    house.probe(len(EARLIER))
    house.answer_login()
    house.heard("account query")
    house.venue.send(b"".join(EARLIER))
    house.settle()
    assert house.control.session_up == 0
    assert (house.opens(), house.opens(MSFT)) == ((50, 0), (0, 500))
    assert house.venue.heard == []
    house.venue.send(answer(7))
    cancelled = [fields["user_ref"] for kind, fields in house.settle() if kind == "cancel order"]
    assert sorted(cancelled) == [3, 4]
    assert house.control.session_up == 0
    house.new()
    house.venue.send(sequenced(ouch.CANCELED, user_ref=3, quantity=500))
    house.settle()
    assert house.control.session_up == 0
    house.venue.send(sequenced(ouch.EXECUTED, user_ref=4, quantity=50, px=PX, match=3))
    house.settle()
    assert house.control.session_up == 1
    assert [report["reason"] for report in house.told()] == [risk.REASON_NO_SESSION], "its orders are no strategy's"
    assert (house.line()["position"], house.line()["cash"]) == (150, -150 * PX)
    assert (house.line(MSFT)["position"], house.line(MSFT)["cash"]) == (-200, 200 * (PX + 5))
    assert (house.stats.adopted, house.stats.open_orders, house.stats.executed, house.stats.unknown_reports) == (5, 0, 3, 1)
    order_id = house.new()
    assert [fields["user_ref"] for _, fields in house.settle()] == [7]
    assert house.ref_of(order_id) == 7


def test_what_counts_of_the_day_counts_at_the_gate(houses: Callable[..., House]) -> None:
    house = houses(login=False, limits={"position_max": 160, "daily_loss_max": "off"})
    house.probe(6)
    house.answer_login()
    house.venue.send(b"".join(EARLIER[:5]) + sequenced(ouch.CANCELED, user_ref=2, quantity=500))
    house.come_up(3)
    house.new(qty=61)
    house.new(qty=60)
    assert [fields["quantity"] for _, fields in house.settle()] == [60]
    assert [report["reason"] for report in house.told()] == [risk.REASON_POSITION]


def test_an_order_for_a_symbol_that_is_not_named_yet_waits_for_its_name(houses: Callable[..., House]) -> None:
    house = houses(login=False)
    line = house.instruments.records[12]
    house.probe(9)
    house.answer_login()
    house.venue.send(sequenced(ouch.ACCEPTED, user_ref=1, quantity=10, symbol="IBM"))
    house.venue.send(sequenced(ouch.EXECUTED, user_ref=1, quantity=10, match=1))
    for _ in range(20):
        house.turn()
    assert (house.stats.adopted, house.stats.executed) == (0, 0)
    line.symbol, line.tick_px, line.lot_qty = pack_symbol("IBM"), 100, 100
    house.instruments.words()[12][0] = 2
    house.turn_until(lambda: house.stats.executed == 1, "the execution")
    assert house.line(12)["position"] == 10


def test_a_symbol_that_is_never_named_is_said(houses: Callable[..., House]) -> None:
    house = houses(login=False, silence_ms=2_000)
    house.probe(9)
    house.answer_login()
    house.venue.send(sequenced(ouch.ACCEPTED, user_ref=1, quantity=10, symbol="IBM"))
    for _ in range(20):
        house.turn()
    house.clock.words[NOW] += 3 * SECOND
    assert house.turn_to_the_end() == NOT_RECONCILED


def test_an_earlier_order_without_a_place_ends_it(houses: Callable[..., House]) -> None:
    house = houses(login=False, orders_max=4)
    house.probe(9)
    house.answer_login()
    for user_ref in (1, 5):
        house.venue.send(sequenced(ouch.ACCEPTED, user_ref=user_ref, quantity=10))
    assert house.turn_to_the_end() == ORDERS_EXHAUSTED


def test_what_an_earlier_life_left_on_the_boards_is_not_counted_twice(houses: Callable[..., House]) -> None:
    house = houses()
    house.live()
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=100, match=1)
    house.settle()
    house.rebuild(reconnect_tries=3)
    assert (house.line()["position"], house.stats.open_orders, house.facts.pnl) == (0, 0, 0)
    house.login(head=3, next_user_ref=2, replay=answer(1) + sequenced(ouch.ACCEPTED, user_ref=1, quantity=100)
                + sequenced(ouch.EXECUTED, user_ref=1, quantity=100, match=1))  # fmt: skip
    assert (house.line()["position"], house.line()["fills"]) == (100, 1)
    house.last_id = 50
    house.new(side=BUY, instrument=AAPL)
    assert [fields["user_ref"] for _, fields in house.settle()] == [2]
