"""What the gateway sends first, and when: the venue's pace, the queue's lanes, and what becomes of an order that waits.

The clock stands still unless a test moves it, so a token comes when the test says so.
"""

import random
import select
import socket
from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest

from engine.gateway.hot.queue import AGGRESSIVE, PASSIVE, WAITING
from engine.gateway.hot.state import PENDING_AT, PENDING_BYTES
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot.encode import ENTER_BYTES, HEARTBEAT_AT, OUTBOX_AT, REPLACE_BYTES
from engine.gateway.stage import packet
from engine.layout import BOOK_VALID, BUY, MSG_CANCEL, PHASE_DRAINING, REJECTED_BY_RISK, SELL
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as risk
from engine.risk.hot.reasons import PASSED
from engine.runtime.kills import Scope
from engine.runtime.kills import put as put_kill
from engine.wire.soupbintcp import CLIENT_HEARTBEAT, SERVER_HEARTBEAT
from shm.histogram import Distribution
from tests.gateway_house import AAPL, LINES, MSFT, PLAIN, PX, SECOND, House, brief, build_houses

houses = pytest.fixture(build_houses)
ASK, BID = PX + 100, PX - 100
HOP_ORDER_RING, HOP_QUEUE = 3, 9


def paced(houses: Callable[..., House], *, burst: int = 1, per_s: int = 10, **options: Any) -> House:
    """A gateway whose venue takes ten messages a second, with an empty bucket: what was in it was sent and is forgotten."""
    house = houses(pace_per_s=per_s, pace_burst=burst, **options)
    for _ in range(burst):
        house.new(instrument=MSFT, qty=1)
    heard(house)
    house.told()
    return house


def heard(house: House) -> list[tuple[str, int]]:
    """Let the gateway do all that it can at this moment: what the venue heard of it, as (message, the strategy's id of the order)."""
    for _ in range(20):
        house.turn()
    sent = int(house.stats.sent)
    house.heard_so_far = getattr(house, "heard_so_far", 0)
    count = sent - house.heard_so_far
    house.turn_until(lambda: len(house.venue.heard) >= count and len(messages(house)) == count, "what was sent")
    said, house.venue.heard[:] = messages(house), []
    house.heard_so_far = sent
    ids = {int(entry.user_ref): int(entry.order_id) for entry in house.stage.state.table}
    return [(kind.split()[0], ids[fields["user_ref"]]) for kind, fields in said]


def messages(house: House) -> list[tuple[str, Any]]:
    return [said for said in house.venue.heard if said[0] != "heartbeat"]


def tick(house: House, tokens: int = 1) -> list[tuple[str, int]]:
    """A tenth of a second for each token, and what was heard in it."""
    said = []
    for _ in range(tokens):
        house.clock.words[NOW] += SECOND // 10
        house.quotes.records[AAPL].origin_tsc = house.quotes.records[MSFT].origin_tsc = house.clock.words[NOW]
        said += heard(house)
    return said


def waiting(house: House) -> int:
    return int(house.stage.state.queue.words[WAITING])


def told(house: House) -> list[tuple[str, int, int]]:
    return [(report["is"], report["order_id"], report["reason"]) for report in house.told()]


def test_without_a_pace_what_is_on_the_ring_goes_out_in_one_send(houses: Callable[..., House]) -> None:
    house = houses()
    ids = [house.new(side=BUY if number % 2 else SELL, px=PX + number) for number in range(16)]
    ids += [house.replace(ids[3], side=BUY, qty=50), house.new()]
    sends = int(house.stats.sends)
    house.turn()
    assert (house.stats.sends - sends, house.stats.sent) == (1, 16)
    assert heard(house) == [("enter", number) for number in ids[:16]] + [("replace", ids[16]), ("enter", ids[17])]
    assert house.stats.sends - sends == 2
    assert Distribution.of(house.hops.words()[HOP_QUEUE]).count == 0


def test_what_waits_goes_by_urgency_and_then_by_age(houses: Callable[..., House]) -> None:
    house = paced(houses)
    house.positions.records[MSFT].position = -50
    passive, far = house.new(side=BUY, px=BID), house.new(side=SELL, px=PX + 300)
    lift, hit = house.new(side=BUY, px=ASK), house.new(side=SELL, px=BID)
    home, too_much = house.new(instrument=MSFT, side=BUY, px=BID, qty=49), house.new(instrument=MSFT, side=BUY, px=BID, qty=50)
    away = house.new(instrument=MSFT, side=SELL, px=PX + 100, qty=10)
    assert heard(house) == [] and waiting(house) == 7
    expected = [home, lift, hit, passive, far, too_much, away]
    assert [tick(house) for _ in expected] == [[("enter", number)] for number in expected]
    assert waiting(house) == 0 and house.stats.waiting_most == 7


@pytest.mark.parametrize("smaller", [None, 30])
def test_a_replace_is_as_urgent_as_what_it_adds(houses: Callable[..., House], smaller: int | None) -> None:
    """Of a position of 100, 60 are offered (and perhaps a replace by 30 is under way): 40 more only reduce it, and 41 do not."""
    house = paced(houses, burst=3)
    house.positions.records[MSFT].position = 100
    target = house.new(instrument=MSFT, side=SELL, px=PX + 300, qty=60)
    if smaller:
        target = house.replace(target, instrument=MSFT, side=SELL, px=PX + 300, qty=smaller)
    assert len(tick(house, 2 if smaller else 1)) == (2 if smaller else 1)
    assert house.positions.records[MSFT].open_sell == 60
    passive = house.new(px=BID)
    home = house.replace(target, instrument=MSFT, side=SELL, px=PX + 400, qty=100)
    assert heard(house) == []
    assert tick(house, 2) == [("replace", home), ("enter", passive)]
    away = house.new(px=BID), house.replace(home, instrument=MSFT, side=SELL, px=PX + 400, qty=101)
    assert tick(house, 2) == [("enter", away[0]), ("replace", away[1])]


def test_an_order_for_what_is_on_no_board_is_passive_and_refused_when_judged(houses: Callable[..., House]) -> None:
    house = paced(houses)
    ids = [house.new(instrument=number) for number in (LINES, 65_535)]
    lift = house.new(px=ASK)
    assert heard(house) == [] and waiting(house) == 3
    assert tick(house) == [("enter", lift)]
    assert tick(house) == []
    assert told(house) == [("rejected", number, risk.REASON_UNKNOWN_INSTRUMENT) for number in ids]


@pytest.mark.parametrize("quote", [{"ask_sz": 0, "ask_px": 0}, {"bid_sz": 0, "bid_px": PX + 500}])
def test_a_side_without_a_quote_makes_nobody_aggressive(houses: Callable[..., House], quote: dict[str, int]) -> None:
    house = paced(houses)
    for name, value in quote.items():
        house.quotes.records[AAPL][name] = value
    first = house.new(px=BID, side=SELL) if "ask_sz" in quote else house.new(px=ASK, side=BUY)
    second = house.new(px=BID, side=BUY) if "ask_sz" in quote else house.new(px=ASK, side=SELL)
    assert heard(house) == []
    lanes = house.stage.state.queue.links
    places = {int(order.order_id): place for place, order in enumerate(house.stage.state.queue.orders)}
    assert [int(lanes[places[number]].lane) for number in (first, second)] == [AGGRESSIVE, PASSIVE]


def test_before_a_quote_nobody_is_aggressive(houses: Callable[..., House]) -> None:
    house = paced(houses)
    house.quotes.words()[AAPL][0] = 0
    number = house.new(px=ASK)
    assert heard(house) == []
    (place,) = [place for place, order in enumerate(house.stage.state.queue.orders) if order.order_id == number]
    assert house.stage.state.queue.links[place].lane == PASSIVE


def test_a_burst_goes_at_once_and_time_brings_no_more_than_one(houses: Callable[..., House]) -> None:
    house = paced(houses, burst=3)
    ids = [house.new() for _ in range(9)]
    assert heard(house) == []
    house.clock.words[NOW] += 10 * SECOND
    house.quotes.records[AAPL].origin_tsc = house.clock.words[NOW]
    assert [number for kind, number in heard(house) if kind == "enter"] == ids[:3]
    house.clock.words[NOW] += SECOND // 10 - 1
    assert heard(house) == []
    house.clock.words[NOW] += 1
    assert heard(house) == [("enter", ids[3])]


@pytest.mark.statement(5)
def test_a_cancel_is_never_held_by_the_pace_and_the_orders_after_it_pay(houses: Callable[..., House]) -> None:
    house = paced(houses, burst=2)
    live = [1, 2]
    new = house.new()
    for order_id in live:
        house.cancel(order_id)
    assert heard(house) == [("cancel", 1), ("cancel", 2)]
    assert tick(house, 2) == []
    assert tick(house) == [("enter", new)]


def test_the_sweep_borrows_too(houses: Callable[..., House]) -> None:
    house = paced(houses, burst=4)
    house.control.kill = 1
    assert sorted(heard(house)) == [("cancel", number) for number in (1, 2, 3, 4)]
    house.control.kill = 0
    new = house.new()
    assert tick(house, 4) == []
    assert tick(house) == [("enter", new)]


def test_a_debt_is_no_deeper_than_a_burst(houses: Callable[..., House]) -> None:
    house = paced(houses, burst=30)
    for _ in range(2):
        for order_id in range(1, 31):
            house.cancel(order_id)
        assert len(heard(house)) == 30
    new = house.new()
    assert tick(house, 30) == []
    assert tick(house) == [("enter", new)]


def test_a_cancel_takes_a_waiting_order_out(houses: Callable[..., House]) -> None:
    house = paced(houses)
    first, second = house.new(qty=70), house.new()
    heard(house)
    house.cancel(first)
    assert heard(house) == []
    (report,) = house.told()
    assert (report["is"], report["order_id"], report["qty"], report["reason"]) == ("cancelled", first, 70, risk.REASON_WITHDRAWN)
    assert house.opens() == (0, 0) and house.stats.withdrawn == 1
    assert tick(house, 3) == [("enter", second)]
    house.cancel(first)
    heard(house)
    assert told(house) == [("rejected", first, risk.REASON_UNKNOWN_ORDER)]


def test_a_replace_stays_behind_the_order_that_it_replaces(houses: Callable[..., House]) -> None:
    house = paced(houses)
    first = house.new(px=BID)
    lift = house.new(px=ASK)
    better = house.replace(first, px=ASK)
    best = house.replace(better, px=ASK + 100)
    assert heard(house) == []
    assert tick(house, 4) == [("enter", lift), ("enter", first), ("replace", better), ("replace", best)]


def test_a_cancel_of_a_waiting_replace_goes_on_to_what_lives(houses: Callable[..., House]) -> None:
    house = paced(houses)
    better = house.replace(1, instrument=MSFT, qty=5)
    best = house.replace(better, instrument=MSFT, qty=6)
    heard(house)
    house.cancel(best)
    assert heard(house) == [("cancel", 1)]
    assert told(house) == [("rejected", best, risk.REASON_WITHDRAWN), ("rejected", better, risk.REASON_WITHDRAWN)]
    assert waiting(house) == 0 and tick(house, 5) == []


def test_a_cancel_of_a_waiting_replace_of_a_waiting_order_leaves_nothing(houses: Callable[..., House]) -> None:
    house = paced(houses)
    first = house.new()
    better = house.replace(first, qty=5)
    heard(house)
    house.cancel(better)
    assert heard(house) == []
    assert told(house) == [("rejected", better, risk.REASON_WITHDRAWN), ("cancelled", first, risk.REASON_WITHDRAWN)]
    assert waiting(house) == 0 and tick(house, 5) == []


def test_a_waiting_replace_of_an_order_cancelled_meanwhile_is_not_sent(houses: Callable[..., House]) -> None:
    house = paced(houses)
    better = house.replace(1, instrument=MSFT, qty=5)
    heard(house)
    house.cancel(1)
    assert heard(house) == [("cancel", 1)]
    assert tick(house, 5) == []
    assert told(house) == [("rejected", better, risk.REASON_WITHDRAWN)]


def test_a_partial_cancel_of_a_waiting_order_stays_behind_it(houses: Callable[..., House]) -> None:
    house = paced(houses)
    first, second = house.new(qty=100, px=BID), house.new(px=BID)
    house.cancel(first, qty=40)
    assert heard(house) == []
    assert tick(house, 4) == [("enter", first), ("enter", second), ("cancel", first)]


def test_a_partial_cancel_outlives_its_waiting_order_and_is_told_so(houses: Callable[..., House]) -> None:
    """A kill takes the order out, of which the cancel then finds nothing: each is told once."""
    house = paced(houses)
    first = house.new(qty=100)
    house.cancel(first, qty=40)
    assert heard(house) == []
    house.control.kill = 1
    assert [said for said in heard(house) if said[1] == first] == []
    assert told(house) == [("cancelled", first, risk.REASON_WITHDRAWN), ("rejected", first, risk.REASON_UNKNOWN_ORDER)]
    assert waiting(house) == 0


def test_a_number_used_twice_is_refused_when_it_comes(houses: Callable[..., House]) -> None:
    house = paced(houses)
    first = house.new()
    house.new(order_id=first)
    assert heard(house) == []
    assert told(house) == [("rejected", first, risk.REASON_DUPLICATE_ID)]
    assert tick(house, 3) == [("enter", first)]


def test_too_many_are_refused_and_cancels_still_find_a_place(houses: Callable[..., House]) -> None:
    house = paced(houses, queue_max=3)
    ids = [house.new() for _ in range(5)]
    house.cancel(1)
    assert heard(house) == [("cancel", 1)]
    assert told(house) == [("rejected", number, risk.REASON_QUEUE_FULL) for number in ids[3:]]
    assert tick(house, 7) == [("enter", number) for number in ids[:3]]


def test_more_cancels_than_places_wait_on_the_ring_and_none_is_lost(houses: Callable[..., House]) -> None:
    house = paced(houses, burst=100, queue_max=1, orders_max=128)
    new = [house.new() for _ in range(1)]
    block(house)
    for number in range(1, 101):
        house.cancel(number)
    for _ in range(50):
        house.turn()
    assert house.orders.backlog()["gateway"] > 0 and waiting(house) == 1 + 64
    unblock(house)
    assert heard(house)[-100:] == [("cancel", number) for number in range(1, 101)]
    assert told(house) == [] and waiting(house) == len(new)


def block(house: House) -> None:
    """Fill the socket with heartbeats; what it does not take of the last one is pending, as if the gateway had sent them."""
    words, beat = house.stage.state.session, packet(CLIENT_HEARTBEAT)
    house.venue.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1)
    sent = fill(house.stage.socket, beat)
    words[PENDING_AT] = HEARTBEAT_AT + sent % len(beat)
    words[PENDING_BYTES] = len(beat) - sent % len(beat)


def fill(ours: socket.socket, beat: bytes) -> int:
    """Until there is no room even for one more, since what the other side's kernel could take it has taken. Returns the bytes."""
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 1)
    sent, room = 0, True
    while room:
        select.select([], [ours], [], 0.05)
        try:
            sent += ours.send(beat[sent % len(beat) :])
            sent += ours.send((beat * 1_000)[sent % len(beat) :])
        except BlockingIOError:
            room = bool(select.select([], [ours], [], 0.05)[1])
    return sent


def keep(house: House, orders: Callable[[], list[int]]) -> list[int]:
    """Orders that the socket takes no byte of in the turn that they are for. Then there is room again, but no turn was made."""
    ours, beat = house.stage.socket, packet(CLIENT_HEARTBEAT)
    house.venue.client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 13)
    sent = fill(ours, beat)
    ids = orders()
    house.turn()
    assert (house.stage.state.session[PENDING_AT], told(house)) == (OUTBOX_AT, [])
    whole = -(-sent // len(beat))
    while len(house.venue.heard) < whole:
        house.venue.hear()
        if len(house.venue.stream) + len(house.venue.heard) * len(beat) == sent < whole * len(beat):
            sent += ours.send(beat[sent % len(beat) :])
    assert house.venue.stream == b""
    return ids


def unblock(house: House) -> None:
    """Let the venue read, and forget the heartbeats."""
    house.turn_until(lambda: house.stage.state.session[PENDING_BYTES] == 0, "the socket to take bytes again")


@pytest.mark.parametrize("what", ["kill", "drain", "session"])
def test_what_may_not_be_sent_any_more_does_not_wait(houses: Callable[..., House], what: str) -> None:
    house = paced(houses)
    first, better = house.new(qty=30), house.replace(1, instrument=MSFT, qty=5)
    house.positions.records[AAPL].position = -10
    home = house.new(qty=10)
    assert heard(house) == []
    if what == "kill":
        house.control.kill = 1
    elif what == "drain":
        house.control.phase = PHASE_DRAINING
    else:
        house.control.session_up = 0
    assert [said for said in heard(house) if said[0] != "cancel"] == []
    assert sorted(told(house)) == [
        ("cancelled", first, risk.REASON_WITHDRAWN),
        ("cancelled", home, risk.REASON_WITHDRAWN),
        ("rejected", better, risk.REASON_WITHDRAWN),
    ]
    assert waiting(house) == 0
    house.control.kill, house.control.session_up = 0, 1
    assert [said for said in tick(house, 3) if said[0] != "cancel"] == []


@pytest.mark.statement(10)
@pytest.mark.parametrize("what", ["kill", "drain", "part"])
@pytest.mark.parametrize("gone", [0, 1, 50, 60, 401, 443])
def test_an_order_that_the_socket_kept_does_not_leave_after_a_kill(houses: Callable[..., House], what: str, gone: int) -> None:
    """Ten orders, of whose bytes the socket took `gone`: of the message that it took a part of the rest follows, and nothing else."""
    house = houses()
    session, wire = house.stage.state.session, house.stage.state.wire
    ids = keep(house, lambda: [*(new := [house.new(qty=number + 1) for number in range(8)]), house.replace(new[3], qty=30), house.new()])
    house.venue.stream += bytes(wire[OUTBOX_AT : OUTBOX_AT + gone])
    session[PENDING_AT] += gone
    session[PENDING_BYTES] -= gone
    begun = sum(begin < gone for begin in [*range(0, 9 * ENTER_BYTES, ENTER_BYTES), 8 * ENTER_BYTES + REPLACE_BYTES])
    if what == "drain":
        house.control.phase = PHASE_DRAINING
    elif what == "kill":
        house.control.kill = 1
    else:
        put_kill(house.control_table, Scope(symbol="AAPL"), "a test")
    said = heard(house)
    reports = told(house)
    assert [number for kind, number in said if kind != "cancel"] == ids[:begun]
    assert sorted(number for kind, number in said if kind == "cancel") == ids[:begun]
    assert sorted(number for _, number, _ in reports) == ids[begun:]
    assert {reason for _, _, reason in reports} <= {risk.REASON_WITHDRAWN, risk.REASON_REPLACED_ORDER_DONE}
    assert (house.stats.withdrawn, house.stats.open_orders, house.stats.sent) == (10 - begun, begun, 2 * begun)
    house.check_gate()


@pytest.mark.statement(10)
def test_a_cancel_that_the_socket_kept_leaves_after_a_kill_and_what_was_taken_back_is_told_whole(houses: Callable[..., House]) -> None:
    house = houses()
    whole, part, other = house.live(qty=70), house.live(qty=30), house.live(instrument=MSFT, side=SELL, qty=20, px=PX + 300)
    house.heard_so_far = int(house.stats.sent)
    new, replacement = 4, 5

    def orders() -> list[int]:
        return [
            house.new(qty=40, px=PX - 200), house.cancel(whole), house.replace(other, instrument=MSFT, side=SELL, qty=25, px=PX + 100),
            house.cancel(part, qty=10),
        ]  # fmt: skip

    keep(house, orders)
    assert house.opens() == (140, 0) and house.opens(MSFT) == (0, 25)
    house.control.kill = 1
    # Of the part that was kept, and then, by the sweep, of all of it.
    assert sorted(heard(house)) == [("cancel", whole), ("cancel", part), ("cancel", part), ("cancel", other)]
    assert brief(house.told(), "order_id", "qty", "px", "side", "flags", "reason") == [
        ("cancelled", new, 40, PX - 200, BUY, 0, risk.REASON_WITHDRAWN),
        ("rejected", replacement, 0, PX + 100, SELL, REJECTED_BY_RISK, risk.REASON_WITHDRAWN),
    ]
    assert house.opens() == (100, 0) and house.opens(MSFT) == (0, 20)
    assert house.stats.withdrawn == 2
    house.check_gate()


def test_what_a_scoped_kill_is_not_about_goes_on(houses: Callable[..., House]) -> None:
    house = houses()
    ids = keep(house, lambda: [house.new(), house.new(instrument=MSFT), house.new(), house.new(instrument=MSFT, qty=7)])
    put_kill(house.control_table, Scope(symbol="AAPL"), "a test")
    assert heard(house) == [("enter", ids[1]), ("enter", ids[3])]
    assert sorted(told(house)) == [("cancelled", ids[0], risk.REASON_WITHDRAWN), ("cancelled", ids[2], risk.REASON_WITHDRAWN)]
    house.check_gate()


def test_what_cannot_be_told_is_not_sent_either(houses: Callable[..., House]) -> None:
    house = houses(reports_capacity=4)
    ids = keep(house, lambda: [house.new(qty=number + 1) for number in range(6)])
    house.control.kill = 1
    for _ in range(20):
        house.turn()
    assert house.stage.state.session[PENDING_BYTES] == 2 * ENTER_BYTES
    assert [number for _, number, _ in told(house)] == ids[:4]
    assert heard(house) == []
    assert [number for _, number, _ in told(house)] == ids[4:]


def test_an_order_is_judged_when_it_is_sent(houses: Callable[..., House]) -> None:
    house = paced(houses)
    ids = [house.new(), house.new(px=PX - 90_000), house.new(instrument=MSFT)]
    assert heard(house) == [] and house.opens() == (0, 0)
    house.quotes.records[AAPL].flags = BOOK_VALID | 2
    assert tick(house) == [("enter", ids[2])]
    assert told(house) == [("rejected", ids[0], risk.REASON_BOOK_NOT_VALID), ("rejected", ids[1], risk.REASON_BOOK_NOT_VALID)]


def test_nothing_is_drained_while_an_order_waits(houses: Callable[..., House]) -> None:
    house = paced(houses, reports_capacity=4)
    house.venue.say(ouch.CANCELED, user_ref=1, quantity=1)
    house.turn_until(lambda: house.stats.open_orders == 0, "the only order's end")
    house.told()
    first = house.new()
    for _ in range(4):
        house.new(order_id=first)
    for _ in range(20):
        house.turn()
    house.control.phase = PHASE_DRAINING
    for _ in range(20):
        house.turn()
    assert waiting(house) == 1 and house.control.drained == 0
    assert told(house) == [("rejected", first, risk.REASON_DUPLICATE_ID)] * 4
    house.turn()
    assert told(house) == [("cancelled", first, risk.REASON_WITHDRAWN)]
    assert waiting(house) == 0 and house.control.drained == 1


def test_a_cancel_overtakes_what_the_socket_holds_back(houses: Callable[..., House]) -> None:
    house = houses()
    live = house.new()
    assert heard(house) == [("enter", live)]
    block(house)
    ids = [house.new() for _ in range(3)]
    house.cancel(live)
    house.cancel(ids[1])
    house.turn()
    assert waiting(house) == 3
    unblock(house)
    assert heard(house) == [("cancel", live), ("enter", ids[0]), ("enter", ids[2])]
    assert told(house) == [("cancelled", ids[1], risk.REASON_WITHDRAWN)]


def test_the_time_in_the_queue_is_a_hop(houses: Callable[..., House]) -> None:
    house = paced(houses)
    house.new()
    house.new()
    heard(house)
    tick(house, 2)
    hop = Distribution.of(house.hops.words()[HOP_QUEUE])
    assert (hop.count, hop.maximum, hop.total) == (2, 2 * SECOND // 10, 3 * SECOND // 10)


def test_what_is_taken_off_the_ring_to_wait_is_given_back_and_counted_once(houses: Callable[..., House]) -> None:
    house = paced(houses)
    orders, rings = int(house.stats.orders), Distribution.of(house.hops.words()[HOP_ORDER_RING])
    house.clock.words[NOW] += 70
    for _ in range(3):
        house.new(origin_tsc=house.clock.words[NOW] - 70)
    assert house.turn() == 3, "a turn that did something is not idle"
    assert (waiting(house), house.orders.backlog()["gateway"]) == (3, 0)
    counted = Distribution.of(house.hops.words()[HOP_ORDER_RING])
    assert (counted.count - rings.count, counted.total - rings.total) == (3, 3 * 70)
    assert len(tick(house, 3)) == 3
    house.new()
    assert heard(house) == []
    assert (house.stats.orders - orders, house.stats.waiting_most) == (4, 3)
    assert Distribution.of(house.hops.words()[HOP_ORDER_RING]).count - rings.count == 4
    house.control.session_up = 0
    assert house.turn() >= 1


def test_each_refusal_without_a_look_is_counted_by_its_reason(houses: Callable[..., House]) -> None:
    house = paced(houses, queue_max=2)
    first = house.new(px=BID)
    replaced = house.replace(1, instrument=MSFT, qty=5)
    house.new(order_id=first)
    house.new()
    house.cancel(first)
    house.cancel(replaced)
    assert heard(house) == [("cancel", 1)]
    counts = house.stage.risk.counts
    assert [int(counts[reason]) for reason in (risk.REASON_DUPLICATE_ID, risk.REASON_QUEUE_FULL, risk.REASON_WITHDRAWN)] == [1, 1, 2]
    (cancelled,) = [report for report in house.told() if report["is"] == "cancelled"]
    assert (cancelled["order_id"], cancelled["px"]) == (first, BID)


def test_refusals_of_what_would_wait_stay_on_the_ring_while_nobody_reads(houses: Callable[..., House]) -> None:
    house = paced(houses, reports_capacity=4)
    first = house.new()
    for _ in range(7):
        house.new(order_id=first)
    waits = int(house.stats.ring_waits)
    house.turn()
    assert house.stats.ring_waits == waits + 1
    for _ in range(3):
        house.turn()
    assert house.orders.backlog()["gateway"] == 3
    assert told(house) == [("rejected", first, risk.REASON_DUPLICATE_ID)] * 4
    assert heard(house) == []
    assert told(house) == [("rejected", first, risk.REASON_DUPLICATE_ID)] * 3
    assert waiting(house) == 1


def test_a_cancel_that_could_not_be_told_ends_with_its_order(houses: Callable[..., House]) -> None:
    house = paced(houses, reports_capacity=2)
    first = house.new()
    heard(house)
    house.new(order_id=first)
    house.new(order_id=first)
    house.turn()
    house.control.session_up = 1
    waits = house.stage.state.queue
    house.cancel(first)
    told_now = told(house)[:1]
    house.turn()
    house.turn()
    assert told_now == [("rejected", first, risk.REASON_DUPLICATE_ID)]
    assert heard(house) == [] and waits.words[WAITING] == 0
    assert told(house)[-1:] == [("cancelled", first, risk.REASON_WITHDRAWN)]
    assert told(house) == [] and tick(house, 2) == []


def test_a_cancel_of_which_only_a_part_can_be_told_goes_on_when_somebody_reads(houses: Callable[..., House]) -> None:
    """It stays ahead of what it is about, which must not leave before it."""
    house = paced(houses, reports_capacity=2)
    better = house.replace(1, instrument=MSFT, qty=5)
    best = house.replace(better, instrument=MSFT, qty=6)
    assert heard(house) == [] and waiting(house) == 2
    house.new(order_id=best)
    house.cancel(best)
    for _ in range(3):
        house.turn()
    assert waiting(house) == 2, "the second replace is withdrawn, and the cancel waits to be about the first"
    house.clock.words[NOW] += SECOND
    house.quotes.records[MSFT].origin_tsc = house.clock.words[NOW]
    for _ in range(3):
        house.turn()
    assert told(house) == [("rejected", best, risk.REASON_DUPLICATE_ID), ("rejected", best, risk.REASON_WITHDRAWN)]
    assert heard(house) == [("cancel", 1)]
    assert told(house) == [("rejected", better, risk.REASON_WITHDRAWN)]
    assert waiting(house) == 0 and tick(house, 3) == []


class Model:
    """The gateway's outer behaviour in plain Python: a bucket in fractions, lanes as lists, and nothing else."""

    def __init__(self, per_s: int, burst: int, queue_max: int) -> None:
        self.per_s, self.burst, self.level = per_s, burst, Fraction(burst)
        self.queue_max = queue_max
        self.lanes: list[list[dict[str, Any]]] = [[], [], [], []]
        self.sent: list[tuple[str, int]] = []
        self.told: list[tuple[str, int]] = []
        self.all: set[tuple[str, int]] = set()

    def pass_ns(self, ns: int) -> None:
        self.level = min(Fraction(self.burst), self.level + Fraction(ns * self.per_s, 10**9))

    def waits(self, order_id: int) -> dict[str, Any] | None:
        return next((order for lane in self.lanes for order in lane if order["id"] == order_id and order["what"] != "cancel"), None)

    def send(self, order: dict[str, Any]) -> None:
        if order["what"] == "cancel" and not {("enter", order["id"]), ("replace", order["id"])} & self.all:
            self.told.append(("rejected", order["id"]))
            return
        self.level = max(self.level - 1, Fraction(-max(self.per_s, self.burst)))
        self.all.add((order["what"], order["id"]))
        self.sent.append((order["what"], order["id"]))

    def run(self, asked: list[dict[str, Any]]) -> None:
        """What is on the ring at one moment, and all that follows from it at that moment."""
        while asked and not any(self.lanes) and (asked[0]["what"] == "cancel" or self.level >= 1):
            self.send(asked.pop(0))
        for order in asked:
            self.put(order)
        while (lane := next((lane for lane in self.lanes if lane), None)) and (lane[0]["what"] == "cancel" or self.level >= 1):
            self.send(lane.pop(0))

    def put(self, order: dict[str, Any]) -> None:
        if order["what"] == "cancel":
            while (other := self.waits(order["id"])) is not None:
                next(lane for lane in self.lanes if other in lane).remove(other)
                self.told.append(("cancelled" if other["what"] == "enter" else "rejected", other["id"]))
                if other["what"] == "enter":
                    return
                order = order | {"id": other["target"]}
            self.lanes[0].append(order)
        elif sum(map(len, self.lanes)) >= self.queue_max:
            self.told.append(("rejected", order["id"]))
        else:
            target = self.waits(order["target"]) if order["what"] == "replace" else None
            lane = next(number for number, lane in enumerate(self.lanes) if target in lane) if target else order["lane"]
            self.lanes[lane].append(order)


@pytest.mark.parametrize("number", range(3))
def test_random_orders_meet_a_pace_as_they_meet_the_model(houses: Callable[..., House], number: int) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    per_s, burst, queue_max = chance.choice((3, 10, 70)), chance.choice((1, 4, 20)), chance.choice((3, 20, 200))
    house = houses(pace_per_s=per_s, pace_burst=burst, queue_max=queue_max, orders_max=1 << 12)
    model = Model(per_s, burst, queue_max)
    gone: set[int] = set()
    for _ in range(8 if PLAIN else 60):
        asked: list[dict[str, Any]] = []
        for _ in range(chance.randrange(30)):
            order_id = house.last_id + 1
            may_go = [number for number in range(1, house.last_id + 1) if number not in gone]
            if chance.random() < 0.6 or not may_go:
                lane, px = chance.choice(((2, ASK), (3, BID)))
                house.new(px=px, qty=1)
                asked.append({"what": "enter", "id": order_id, "lane": lane})
            elif chance.random() < 0.3 and (waiters := [order["id"] for lane in model.lanes for order in lane if order["id"] not in gone]):
                # Of orders that wait: those at the venue would refuse a second one before it has answered.
                target = chance.choice(waiters)
                house.replace(target, px=ASK, qty=1)
                gone.add(target)
                asked.append({"what": "replace", "id": order_id, "target": target, "lane": 2})
            else:
                target = chance.choice(may_go)
                gone.add(target)
                house.put(MSG_CANCEL, order_id=target, qty=0)
                asked.append({"what": "cancel", "id": target})
        model.run(asked)
        beats = int(house.stats.heartbeats_received)
        house.venue.send(packet(SERVER_HEARTBEAT))
        said = heard(house)
        house.turn_until(lambda beats=beats: house.stats.heartbeats_received > beats, "the venue's heartbeat")
        assert (said, [report[:2] for report in told(house)]) == (model.sent, model.told)
        # What was refused has nothing left to cancel.
        gone |= {order_id for _, order_id in model.told}
        model.sent, model.told = [], []
        assert waiting(house) == sum(map(len, model.lanes))
        ns = chance.choice((0, SECOND // per_s, chance.randrange(3 * SECOND // per_s), 10 * SECOND // per_s))
        house.clock.words[NOW] += ns
        house.quotes.records[AAPL].origin_tsc = house.clock.words[NOW]
        model.pass_ns(ns)
    assert house.facts.counts[PASSED] == house.stats.sent
