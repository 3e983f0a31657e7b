"""The gateway's orders: their life, their races with what trades, the gate before them, and what must hold of the source."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from numba import njit

from engine.gateway.hot import state as gateway_state
from engine.gateway.hot.orders import move_to
from engine.gateway.hot.state import CHAIN_MAX, NEXT_REF, USER_REF_MAX
from engine.gateway.hot.step import step
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot.encode import SWEEP_CANCELS_MAX
from engine.gateway.ouch.hot.session import (
    EXECUTIONS_EXHAUSTED,
)
from engine.gateway.stage import packet
from engine.layout import (
    BUY,
    MSG_ACCEPTED,
    PHASE_DRAINING,
    PHASE_TRADING,
    REJECTED_BY_RISK,
    REJECTED_BY_VENUE,
    SELL,
    TIF_IOC,
)
from engine.messages.hot.stamp import NOW
from engine.risk.hot import reasons as risk
from engine.wire import soupbintcp
from shm.histogram import Distribution
from tests.gateway_house import (
    AAPL,
    MIDNIGHT_NS,
    MSFT,
    PLAIN,
    PROTOCOLS,
    PX,
    House,
    brief,
    build_houses_of_both,
)

houses = pytest.fixture(params=PROTOCOLS)(build_houses_of_both)


CLIENT_IDS = {"ouch50": "TICKPATH  /S00", "ouch42": "DESK      /S00"}


@pytest.fixture
def house(houses: Callable[..., House]) -> House:
    return houses()


def test_an_order_is_sent_accepted_filled_in_parts_and_done(house: House) -> None:
    order_id = house.new(qty=300, px=PX - 50, side=SELL, instrument=MSFT, tif=TIF_IOC)
    ((said, fields),) = house.settle()
    assert said == "enter order"
    assert fields == {
        "user_ref": 1, "side": "S", "quantity": 300, "symbol": "MSFT", "px": PX - 50, "tif": "3", "display": "Y", "capacity": "P",
        "sweep": "N", "cross": "N", "client_id": CLIENT_IDS[house.protocol], "appendage_length": 0,
    }  # fmt: skip
    assert house.state_of(order_id) == gateway_state.PENDING_NEW
    assert house.opens(MSFT) == (0, 300)
    house.venue.say(ouch.ACCEPTED, user_ref=1, quantity=300, px=PX - 50, timestamp=77, side="S", order_ref=1 << 40)
    house.settle()
    assert house.state_of(order_id) == gateway_state.LIVE
    (report,) = house.told()
    assert report | {"origin_tsc": 0, "sequence": 0} == {
        "is": "accepted", "sequence": 0, "origin_tsc": 0, "ts_ns": MIDNIGHT_NS + 77, "kind": MSG_ACCEPTED, "flags": 0, "instrument": MSFT,
        "age_tsc": 0, "px": PX - 50, "qty": 300, "order_id": 1, "reason": 0, "side": SELL, "liquidity": 0, "ref_id": 1 << 40,
    }  # fmt: skip
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=100, px=PX, match=11, liquidity="R")
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=200, px=PX - 50, match=12)
    house.settle()
    names = ("order_id", "instrument", "side", "qty", "px", "liquidity", "ref_id")
    assert brief(house.told(), *names) == [
        ("executed", 1, MSFT, SELL, 100, PX, ord("R"), 11),
        ("executed", 1, MSFT, SELL, 200, PX - 50, ord("A"), 12),
    ]
    assert house.state_of(order_id) == gateway_state.FILLED
    assert house.line(MSFT) == {
        "position": -300, "cash": 100 * PX + 200 * (PX - 50), "bought": 0, "sold": 300, "fills": 2, "open_buy": 0, "open_sell": 0,
    }  # fmt: skip
    assert house.stats.open_orders == 0
    assert (house.stats.orders, house.stats.sent, house.stats.accepted, house.stats.executed) == (1, 1, 1, 2)


def test_an_order_is_cancelled_in_part_and_then_whole(house: House) -> None:
    order_id = house.live(qty=500)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=100, match=1)
    house.settle()
    house.cancel(order_id, qty=150)
    assert house.settle() == [("cancel order", {"user_ref": order_id, "quantity": 250})]  # 100 executed and 150 to stay
    assert house.state_of(order_id) == gateway_state.PENDING_CANCEL
    house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=250)
    house.settle()
    assert house.state_of(order_id) == gateway_state.PARTIALLY_FILLED
    assert house.opens() == (150, 0)
    house.cancel(order_id)
    assert house.settle() == [("cancel order", {"user_ref": order_id, "quantity": 0})]
    house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=150, reason="U")
    house.settle()
    assert brief(house.told(), "qty", "reason") == [
        ("executed", 100, 0),
        ("cancelled", 250, 256 + ord("U")),
        ("cancelled", 150, 256 + ord("U")),
    ]
    assert house.state_of(order_id) == gateway_state.CANCELLED
    assert house.opens() == (0, 0)


def test_a_replace_asks_for_what_was_executed_and_what_is_wanted(house: House) -> None:
    first = house.live(qty=500)
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=100, match=1)
    house.settle()
    second = house.replace(first, qty=600, px=PX + 100)
    ((said, fields),) = house.settle()
    assert said == "replace order"
    assert (fields["orig_user_ref"], fields["user_ref"], fields["quantity"], fields["px"]) == (first, second, 700, PX + 100)
    assert house.state_of(first) == gateway_state.PENDING_REPLACE
    assert house.state_of(second) == gateway_state.PENDING_NEW
    assert house.opens() == (600, 0)  # one of the two: the larger
    house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=600, px=PX + 100)
    house.settle()
    assert brief(house.told(), "order_id", "ref_id", "qty", "px")[1:] == [("replaced", second, first, 600, PX + 100)]
    assert (house.state_of(first), house.state_of(second)) == (gateway_state.REPLACED, gateway_state.PARTIALLY_FILLED)
    house.venue.say(ouch.EXECUTED, user_ref=second, quantity=250, match=2)
    house.settle()
    third = house.replace(second, qty=10)
    ((_, fields),) = house.settle()
    assert fields["quantity"] == 100 + 250 + 10
    assert house.opens() == (350, 0)
    house.venue.say(ouch.REPLACED, orig_user_ref=second, user_ref=third, quantity=360)  # some venues name the whole size
    house.settle()
    assert house.opens() == (10, 0)
    assert house.stats.open_orders == 1


def test_the_venue_rejects_an_order(house: House) -> None:
    order_id = house.new()
    house.settle()
    house.venue.say(ouch.REJECTED, user_ref=order_id, reason=ouch.REJECT_INVALID_SYMBOL)
    house.settle()
    expected = [("rejected", order_id, 256 + ouch.REJECT_INVALID_SYMBOL, REJECTED_BY_VENUE, 0)]
    assert brief(house.told(), "order_id", "reason", "flags", "qty") == expected
    assert house.opens() == (0, 0)
    assert (house.stats.rejected_by_venue, house.stats.open_orders) == (1, 0)


def test_the_venue_rejects_a_replacement_and_the_order_lives_on(house: House) -> None:
    first = house.live()
    second = house.replace(first, qty=400)
    house.settle()
    assert house.opens() == (400, 0)
    house.venue.say(ouch.REJECTED, user_ref=second, reason=ouch.REJECT_INVALID_PRICE)
    house.settle()
    assert brief(house.told(), "order_id", "reason") == [("rejected", second, 256 + ouch.REJECT_INVALID_PRICE)]
    assert (house.state_of(first), house.state_of(second)) == (gateway_state.LIVE, gateway_state.REJECTED)
    assert house.opens() == (100, 0)
    house.replace(first, qty=50)
    assert house.settle()[0][1]["quantity"] == 50


def test_an_order_accepted_as_dead_is_done(house: House) -> None:
    order_id = house.new()
    house.settle()
    house.venue.say(ouch.ACCEPTED, user_ref=order_id, quantity=100, state="D")
    house.settle()
    assert brief(house.told(), "qty", "reason") == [("accepted", 100, 0), ("cancelled", 100, risk.REASON_DEAD_ON_ARRIVAL)]
    assert house.opens() == (0, 0)
    assert house.state_of(order_id) == gateway_state.CANCELLED


def test_a_replacement_that_arrives_dead_leaves_nothing_open(house: House) -> None:
    first = house.live()
    second = house.replace(first, qty=80)
    house.settle()
    house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=80, state="D")
    house.settle()
    assert brief(house.told(), "order_id", "qty") == [("replaced", second, 80), ("cancelled", second, 80)]
    assert house.opens() == (0, 0)
    assert house.stats.open_orders == 0


def test_a_venue_may_accept_less_and_at_a_better_price(house: House) -> None:
    order_id = house.new(qty=100)
    house.settle()
    house.venue.say(ouch.ACCEPTED, user_ref=order_id, quantity=60, px=PX - 5)
    house.settle()
    assert brief(house.told(), "qty", "px") == [("accepted", 60, PX - 5)]
    assert house.opens() == (60, 0)


def test_self_match_prevention_takes_quantity_off(house: House) -> None:
    order_id = house.live()
    house.venue.say(ouch.AIQ_CANCELED, user_ref=order_id, quantity=40, reason="Q")
    house.settle()
    assert brief(house.told(), "qty", "reason") == [("cancelled", 40, 256 + ord("Q"))]
    assert house.opens() == (60, 0)


def test_a_cancel_that_the_venue_cannot_do_now_leaves_the_order_live(house: House) -> None:
    order_id = house.live()
    house.cancel(order_id)
    house.settle()
    house.venue.say(ouch.CANCEL_PENDING_NOTICE, user_ref=order_id)
    house.venue.say(ouch.CANCEL_REJECTED, user_ref=order_id)
    house.venue.say(ouch.PRIORITY_UPDATE, user_ref=order_id)
    if house.protocol == "ouch50":
        house.venue.say(ouch.RESTATED, user_ref=order_id)
    house.settle()
    assert house.told() == []
    assert house.state_of(order_id) == gateway_state.LIVE
    assert house.stats.unknown_reports == 0


# Races: what was sent crosses what was traded.


def test_a_fill_while_a_cancel_is_under_way(house: House) -> None:
    order_id = house.live()
    house.cancel(order_id)
    house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=30, match=1)
    house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=70)
    house.settle()
    assert brief(house.told(), "qty") == [("executed", 30), ("cancelled", 70)]
    assert house.line()["position"] == 30
    assert house.opens() == (0, 0)


def test_filled_whole_while_a_cancel_is_under_way(house: House) -> None:
    order_id = house.live()
    house.cancel(order_id)
    house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=100, match=1)
    house.settle()
    assert house.state_of(order_id) == gateway_state.FILLED
    house.cancel(order_id)
    assert house.settle() == []
    assert brief(house.told(), "reason", "qty") == [("executed", 0, 100), ("rejected", risk.REASON_UNKNOWN_ORDER, 0)]


def test_a_fill_while_a_replace_is_under_way_counts_in_its_quantity(house: House) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=40, match=1)
    house.settle()
    assert house.opens() == (260, 0)
    house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=260)
    house.settle()
    assert brief(house.told(), "order_id", "qty") == [("executed", first, 40), ("replaced", second, 260)]
    assert house.opens() == (260, 0)
    house.replace(second, qty=10)
    assert house.settle()[0][1]["quantity"] == 50


@pytest.mark.parametrize("venue_says_so", [False, True], ids=["silently ignored", "rejected as well"])
def test_filled_whole_while_a_replace_is_under_way(house: House, venue_says_so: bool) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=100, match=1)
    house.settle()
    assert brief(house.told(), "order_id", "reason", "flags") == [
        ("executed", first, 0, 0),
        ("rejected", second, risk.REASON_REPLACED_ORDER_DONE, REJECTED_BY_VENUE),
    ]
    assert house.opens() == (0, 0)
    assert house.stats.open_orders == 0
    if venue_says_so:
        house.venue.say(ouch.REJECTED, user_ref=second, reason=ouch.REJECT_REPLACE_NOT_ALLOWED)
        house.settle()
    assert house.told() == []
    assert (house.stats.rejected_by_venue, house.stats.unknown_reports, house.stats.duplicates) == (1, 0, 0)


def test_a_replacement_wrongly_presumed_dead_is_believed_when_the_venue_says_it_lives(house: House) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    house.settle()
    house.venue.say(ouch.CANCELED, user_ref=first, quantity=100)
    house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=300)
    house.settle()
    assert brief(house.told(), "order_id") == [("cancelled", first), ("rejected", second), ("replaced", second)]
    assert house.state_of(second) == gateway_state.LIVE
    assert house.opens() == (300, 0)
    assert house.stats.open_orders == 1


def test_a_chain_of_replacements_under_way_counts_once(house: House) -> None:
    first = house.live(qty=100)
    second = house.replace(first, qty=300)
    third = house.replace(second, qty=50)
    assert [fields["quantity"] for _, fields in house.settle()] == [300, 50]
    assert house.opens() == (300, 0)
    assert house.stats.open_orders == 3
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=20, match=1)
    house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=280)
    house.settle()
    assert house.opens() == (280, 0)
    house.venue.say(ouch.REPLACED, orig_user_ref=second, user_ref=third, quantity=30)
    house.settle()
    assert house.opens() == (30, 0)
    assert house.stats.open_orders == 1


def test_a_whole_chain_dies_with_its_order(house: House) -> None:
    first = house.live(qty=100)
    chain = [first]
    for _ in range(CHAIN_MAX - 1):
        chain.append(house.replace(chain[-1], qty=200))
    refused = house.replace(chain[-1], qty=200)
    house.settle()
    assert brief(house.told(), "order_id", "reason") == [("rejected", refused, risk.REASON_REPLACE_PENDING)]
    assert house.stats.open_orders == CHAIN_MAX
    house.venue.say(ouch.CANCELED, user_ref=first, quantity=100)
    house.settle()
    assert brief(house.told(), "order_id") == [("cancelled", first)] + [("rejected", order_id) for order_id in chain[1:]]
    assert house.opens() == (0, 0)
    assert house.stats.open_orders == 0


def test_an_order_is_replaced_by_one_at_a_time(house: House) -> None:
    first = house.live()
    house.replace(first)
    other = house.replace(first)
    house.settle()
    assert brief(house.told(), "order_id", "reason") == [("rejected", other, risk.REASON_REPLACE_PENDING)]


@pytest.mark.parametrize("wrong", [{"side": SELL}, {"instrument": MSFT}])
def test_a_replace_cannot_change_side_or_instrument(house: House, wrong: dict[str, int]) -> None:
    house.replace(house.live(), **wrong)
    assert house.settle() == []
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_ILLEGAL)]


def test_an_order_and_its_cancel_may_be_under_way_together(house: House) -> None:
    order_id = house.new()
    house.cancel(order_id)
    assert [said for said, _ in house.settle()] == ["enter order", "cancel order"]
    house.venue.say(ouch.ACCEPTED, user_ref=order_id, quantity=100)
    house.settle()
    assert house.state_of(order_id) == gateway_state.PENDING_CANCEL
    house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=100)
    house.settle()
    assert house.opens() == (0, 0)


# Executions count once; what nobody knows is counted.


def test_an_execution_told_twice_counts_once(house: House) -> None:
    order_id = house.live()
    for _ in range(3):
        house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=30, match=7)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=30, match=8)
    house.settle()
    assert brief(house.told(), "ref_id") == [("executed", 7), ("executed", 8)]
    assert house.line()["position"] == 60
    assert (house.stats.executed, house.stats.duplicates) == (2, 2)


def test_both_sides_of_a_trade_with_ourselves_count(house: House) -> None:
    buy, sell = house.live(side=BUY), house.live(side=SELL)
    for order_id in (buy, sell):
        house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=100, match=7)
    house.settle()
    assert house.line() == {"position": 0, "cash": 0, "bought": 100, "sold": 100, "fills": 2, "open_buy": 0, "open_sell": 0}


def test_other_messages_told_twice_change_nothing(house: House) -> None:
    first = house.live(qty=100)
    house.venue.say(ouch.ACCEPTED, user_ref=first, quantity=100)
    second = house.replace(first, qty=50)
    house.settle()
    for _ in range(2):
        house.venue.say(ouch.REPLACED, orig_user_ref=first, user_ref=second, quantity=50)
    house.cancel(second)
    house.settle()
    for _ in range(2):
        house.venue.say(ouch.CANCELED, user_ref=second, quantity=50)
    house.venue.say(ouch.REJECTED, user_ref=second, reason=15)
    house.settle()
    assert [report["is"] for report in house.told()] == ["replaced", "cancelled"]
    assert house.stats.duplicates == 4
    assert house.opens() == (0, 0)
    assert house.stats.open_orders == 0


def test_reports_for_orders_that_are_not_ours_are_counted(house: House) -> None:
    house.live()
    for message, fields in (
        (ouch.ACCEPTED, {"user_ref": 999, "quantity": 5}),
        (ouch.EXECUTED, {"user_ref": 999, "quantity": 5, "match": 1}),
        (ouch.CANCELED, {"user_ref": 999, "quantity": 5}),
        (ouch.REPLACED, {"orig_user_ref": 1, "user_ref": 999, "quantity": 5}),
        (ouch.REJECTED, {"user_ref": 999, "reason": 1}),
        (ouch.BROKEN, {"user_ref": 999, "match": 1}),
        (ouch.CANCEL_REJECTED, {"user_ref": 999}),
    ):
        house.venue.say(message, **fields)
    house.venue.send(packet(soupbintcp.SEQUENCED, b"K" + bytes(60)))  # a message that these tables do not have
    house.settle()
    assert house.told() == []
    assert house.stats.unknown_reports == 8
    assert house.line() | {"open_buy": 0} == dict.fromkeys(house.line(), 0)


def test_a_rejection_of_an_order_that_was_accepted_changes_nothing(house: House) -> None:
    order_id = house.live()
    house.venue.say(ouch.REJECTED, user_ref=order_id, reason=15)
    house.settle()
    assert house.told() == []
    assert (house.stats.illegal_moves, house.stats.duplicates, house.stats.open_orders) == (1, 0, 1)
    assert house.opens() == (100, 0)


def test_a_replacement_in_the_wrong_place_is_counted_and_changes_nothing(house: House) -> None:
    other, first = house.live(), house.live()
    second = house.replace(first, qty=300)
    third = house.replace(second, qty=50)
    house.settle()
    house.venue.say(ouch.REPLACED, orig_user_ref=other, user_ref=second, quantity=300)
    house.venue.say(ouch.REPLACED, orig_user_ref=second, user_ref=third, quantity=50)
    house.venue.say(ouch.REPLACED, orig_user_ref=999, user_ref=second, quantity=300)
    house.settle()
    assert house.told() == []
    assert house.stats.unknown_reports == 3
    assert house.opens() == (400, 0)
    assert house.stats.open_orders == 4


def test_a_broken_trade_is_taken_back_once(house: House) -> None:
    order_id = house.live(qty=100)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=60, px=PX + 7, match=5)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=40, px=PX, match=6)
    house.settle()
    house.told()
    house.venue.say(ouch.BROKEN, user_ref=order_id, match=5, reason="E")
    house.venue.say(ouch.BROKEN, user_ref=order_id, match=5, reason="E")
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=60, px=PX + 7, match=5)  # a replay does not bring it back
    house.settle()
    names = ("order_id", "ref_id", "qty", "px", "reason", "side")
    assert brief(house.told(), *names) == [("broken", order_id, 5, 60, PX + 7, 256 + ord("E"), BUY)]
    assert house.line() == {"position": 40, "cash": -40 * PX, "bought": 40, "sold": 0, "fills": 1, "open_buy": 0, "open_sell": 0}
    assert (house.stats.broken, house.stats.duplicates) == (1, 2)


def test_a_fill_of_an_order_that_was_thought_done_still_counts(house: House) -> None:
    order_id = house.live()
    house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=100)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=10, match=1)
    house.settle()
    assert [report["is"] for report in house.told()] == ["cancelled", "executed"]
    assert house.line()["position"] == 10
    assert house.opens() == (0, 0)


# The order table and the set of executions are bounded.


def test_ids_must_grow(house: House) -> None:
    house.new(order_id=5)
    house.new(order_id=5)
    house.new(order_id=4)
    house.new(order_id=0)
    house.replace(5, order_id=5)
    assert len(house.settle()) == 1
    assert [report["reason"] for report in house.told()] == [risk.REASON_DUPLICATE_ID] * 4


def test_the_largest_id_works(house: House) -> None:
    house.live(order_id=(1 << 32) - 1)
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=10, match=(1 << 63) - 1)
    house.settle()
    assert brief(house.told(), "order_id", "ref_id") == [("executed", (1 << 32) - 1, (1 << 63) - 1)]


def test_what_the_venue_calls_an_order_is_not_what_its_strategy_calls_it(house: House) -> None:
    """Refused orders use up ids of the strategy, and no number of the venue's."""
    first = house.live(order_id=7)
    house.new(order_id=8, qty=0)
    second = house.replace(first, order_id=40)
    ((said, fields),) = house.settle()
    assert (said, fields["orig_user_ref"], fields["user_ref"]) == ("replace order", 1, 2)
    house.venue.say(ouch.REPLACED, orig_user_ref=1, user_ref=2, quantity=100)
    house.settle()
    house.cancel(first)
    house.settle()
    assert brief(house.told(), "order_id", "ref_id", "reason")[1:] == [
        ("replaced", 40, 7, 0),
        ("rejected", 7, 0, risk.REASON_UNKNOWN_ORDER),
    ]
    house.cancel(second)
    assert house.settle() == [("cancel order", {"user_ref": 2, "quantity": 0})]


def test_an_order_that_rests_all_day_holds_up_no_other(houses: Callable[..., House]) -> None:
    house = houses(orders_max=4)
    resting, refs = house.live(), []
    for _ in range(20):
        order_id = house.live()
        refs.append(house.ref_of(order_id))
        house.venue.say(ouch.CANCELED, user_ref=refs[-1], quantity=100)
        house.settle()
    assert refs == [ref for ref in range(2, 30) if ref % 4 != 1][:20]
    again = [house.live() for _ in range(3)]
    house.new()
    house.settle()
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_ORDER_TABLE_FULL)]
    wanted = [house.ref_of(order_id) for order_id in (*again, resting)]
    for order_id in (*again, resting):
        house.cancel(order_id)
    assert [fields["user_ref"] for _, fields in house.settle()] == wanted


def test_the_last_number_of_the_venue_is_used_and_no_other_after_it(house: House) -> None:
    house.stage.state.session[NEXT_REF] = 99_999_999 if house.protocol == "ouch42" else USER_REF_MAX
    house.live()
    house.new()
    assert house.settle() == []
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_REFS_EXHAUSTED)]


def test_every_move_that_is_not_legal_is_counted_and_not_made(house: House) -> None:
    """All pairs of states, against the same table written down a second time."""
    legal = {
        "PENDING_NEW": "LIVE PARTIALLY_FILLED PENDING_REPLACE PENDING_CANCEL UNKNOWN FILLED CANCELLED REJECTED REPLACED",
        "LIVE": "PARTIALLY_FILLED PENDING_REPLACE PENDING_CANCEL UNKNOWN FILLED CANCELLED REPLACED",
        "PARTIALLY_FILLED": "PENDING_REPLACE PENDING_CANCEL UNKNOWN FILLED CANCELLED REPLACED",
        "PENDING_REPLACE": "LIVE PARTIALLY_FILLED PENDING_CANCEL UNKNOWN FILLED CANCELLED REPLACED",
        "PENDING_CANCEL": "LIVE PARTIALLY_FILLED PENDING_REPLACE UNKNOWN FILLED CANCELLED REPLACED",
        "UNKNOWN": "LIVE PARTIALLY_FILLED PENDING_REPLACE PENDING_CANCEL FILLED CANCELLED REJECTED REPLACED",
        "REJECTED": "UNKNOWN",
    }
    names = ["FREE", *legal, "FILLED", "CANCELLED", "REPLACED"]
    number = {name: int(getattr(gateway_state, name)) for name in names}
    assert sorted(number.values()) == list(range(gateway_state.STATES))
    entry, stats = house.stage.state.table[5], house.stats_table.records
    refused = 0
    for before in names:
        for after in names:
            entry.state = number[before]
            may = before == after or after in legal.get(before, "").split()
            assert move_to(stats, entry, np.int64(number[after])) == may, (before, after)
            assert int(entry.state) == number[after if may else before]
            refused += not may
    entry.state = number["FREE"]
    assert int(house.stats.illegal_moves) == refused


def test_a_full_order_table_refuses_and_has_room_again_when_the_old_order_is_done(houses: Callable[..., House]) -> None:
    house = houses(orders_max=4)
    ids = [house.new() for _ in range(5)]
    assert len(house.settle()) == 4
    assert brief(house.told(), "order_id", "reason") == [("rejected", ids[4], risk.REASON_ORDER_TABLE_FULL)]
    house.venue.say(ouch.REJECTED, user_ref=ids[1], reason=15)
    house.settle()
    sixth = house.new()
    assert [fields["user_ref"] for _, fields in house.settle()] == [sixth]
    house.venue.say(ouch.EXECUTED, user_ref=ids[1], quantity=5, match=1)  # its place has another order now
    house.venue.say(ouch.CANCELED, user_ref=ids[1], quantity=5)
    house.settle()
    assert (house.stats.unknown_reports, house.stats.unknown_executions) == (2, 1)


def test_executions_nearly_full_refuses_new_orders_and_keeps_counting(houses: Callable[..., House]) -> None:
    house = houses(executions_max=16)
    order_id = house.live(qty=1_000)
    for match in range(12):
        house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=1, match=match * 16)
    house.settle()
    house.told()
    house.new()
    house.cancel(order_id, qty=980)
    assert [said for said, _ in house.settle()] == ["cancel order"]
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_EXECUTIONS_FULL)]
    for match in range(12, 16):
        house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=1, match=match * 16)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=1, match=0)  # full, and still it knows its own
    house.settle()
    assert (house.line()["position"], house.stats.duplicates) == (16, 1)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=1, match=99)
    assert house.turn_to_the_end() == EXECUTIONS_EXHAUSTED
    assert house.line()["position"] == 16


# The gate, as the strategy meets it.


def test_a_refusal_is_reported_and_nothing_is_sent(house: House) -> None:
    order_id = house.new(qty=0, px=77, side=SELL)
    assert house.settle() == []
    (report,) = house.told()
    assert (report["is"], report["order_id"], report["reason"], report["flags"]) == (
        "rejected",
        order_id,
        risk.REASON_QUANTITY,
        REJECTED_BY_RISK,
    )
    assert (report["px"], report["side"], report["instrument"], report["qty"]) == (77, SELL, AAPL, 0)
    assert (house.stats.orders, house.stats.sent, house.stats.rejected_by_risk) == (1, 0, 1)
    assert house.opens() == (0, 0)
    assert list(house.stage.verdicts().values()) == [1]


def test_what_is_open_counts_against_the_position(houses: Callable[..., House]) -> None:
    house = houses(limits={"position_max": 250})
    first = house.live(qty=100)
    house.new(qty=150)
    house.settle()
    house.new(qty=1)
    house.replace(first, qty=101)
    house.settle()
    assert [report["reason"] for report in house.told()] == [risk.REASON_POSITION] * 2
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=100, match=1)
    house.settle()
    house.new(qty=1)
    house.new(qty=350, side=SELL)
    house.new(qty=1, side=SELL)
    assert [fields["side"] for _, fields in house.settle()] == ["S"]
    assert [report["reason"] for report in house.told()][1:] == [risk.REASON_POSITION] * 2


def test_a_cancel_refused_tells_what_stays_open(house: House) -> None:
    order_id = house.live(qty=100)
    house.cancel(order_id, qty=100)
    house.cancel(77)
    assert house.settle() == []
    assert brief(house.told(), "order_id", "reason", "qty") == [
        ("rejected", order_id, risk.REASON_QUANTITY, 100),
        ("rejected", 77, risk.REASON_UNKNOWN_ORDER, 0),
    ]


def test_the_rate_limit_lets_cancels_pass(houses: Callable[..., House]) -> None:
    house = houses(limits={"message_burst": 2, "message_rate_per_s": 1})
    first = house.live()
    house.new()
    for _ in range(5):
        house.new()
    house.cancel(first)
    house.cancel(2)
    for _ in range(200):
        house.turn()
    reasons = [report["reason"] for report in house.told()]
    assert reasons.count(risk.REASON_RATE) == len(reasons) >= 3
    assert [said for said, _ in house.settle()][-2:] == ["cancel order"] * 2


def test_the_venue_cannot_be_told_a_million_along_a_chain(houses: Callable[..., House]) -> None:
    house = houses(limits={"order_qty_max": 999_999})
    order_id = house.live(qty=999_999)
    house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=999_000, match=1)
    house.settle()
    house.told()
    house.replace(order_id, qty=1_000)
    house.replace(order_id, qty=999)
    assert [fields["quantity"] for _, fields in house.settle()] == [999_999]
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_VENUE_QUANTITY)]


# Draining and the kill switch.


def test_draining_cancels_everything_once_and_says_when_it_is_done(house: House) -> None:
    ids = [house.live(side=side, instrument=line) for side in (BUY, SELL) for line in (AAPL, MSFT)]
    under_way = house.new()
    replaced_by = house.replace(ids[0], qty=50)
    house.settle()
    house.cancel(ids[1])
    house.settle()
    house.control.phase = PHASE_DRAINING
    cancelled = [fields["user_ref"] for said, fields in house.settle() if said == "cancel order"]
    assert cancelled == [replaced_by, under_way, ids[3], ids[2], ids[0]]  # one is on its way out already
    assert house.state_of(ids[0]) == gateway_state.PENDING_CANCEL
    assert house.control.drained == 0
    house.new()
    assert house.settle() == []
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_PHASE)]
    house.venue.say(ouch.EXECUTED, user_ref=ids[1], quantity=100, match=1)
    house.venue.say(ouch.REPLACED, orig_user_ref=ids[0], user_ref=replaced_by, quantity=50)
    house.venue.say(ouch.ACCEPTED, user_ref=under_way, quantity=100)
    for order_id, left in ((ids[2], 100), (ids[3], 100), (under_way, 100)):
        house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=left)
    house.settle()
    assert (house.control.drained, house.stats.open_orders) == (0, 1)
    house.venue.say(ouch.CANCELED, user_ref=replaced_by, quantity=50)
    house.settle()
    assert (house.control.drained, house.stats.open_orders) == (1, 0)
    assert house.stats.cancels_on_drain == 5
    house.control.phase = PHASE_TRADING
    house.turn()
    assert house.control.drained == 0


def test_draining_cancels_what_was_only_cancelled_in_part(house: House) -> None:
    order_id = house.live()
    house.cancel(order_id, qty=40)
    house.settle()
    house.control.phase = PHASE_DRAINING
    assert house.settle() == [("cancel order", {"user_ref": order_id, "quantity": 0})]


def test_draining_with_nothing_open_is_done_at_once(house: House) -> None:
    house.control.phase = PHASE_DRAINING
    house.turn()
    assert house.control.drained == 1


def test_draining_many_orders_takes_several_turns(houses: Callable[..., House]) -> None:
    house = houses(orders_max=1 << 12)
    ids = [house.new(qty=1) for _ in range(SWEEP_CANCELS_MAX + 100)]
    house.settle()
    house.control.phase = PHASE_DRAINING
    house.turn()
    assert house.stats.cancels_on_drain == SWEEP_CANCELS_MAX
    assert [fields["user_ref"] for _, fields in house.settle()] == ids[::-1]
    assert house.stats.cancels_on_drain == SWEEP_CANCELS_MAX + 100


def test_the_kill_word_blocks_new_orders_and_cancels_what_is_open(house: House) -> None:
    first, second = house.live(), house.live(side=SELL)
    house.control.kill = 1
    assert [(said, fields["user_ref"]) for said, fields in house.settle()] == [("cancel order", second), ("cancel order", first)]
    house.new()
    house.replace(first)
    house.cancel(first)
    assert [said for said, _ in house.settle()] == ["cancel order"]
    assert [report["reason"] for report in house.told()] == [risk.REASON_KILLED] * 2
    assert house.control.drained == 0
    for order_id in (first, second):
        house.venue.say(ouch.CANCELED, user_ref=order_id, quantity=100)
    house.settle()
    house.control.kill = 0
    third = house.live()
    house.control.kill = 1
    assert [fields["user_ref"] for _, fields in house.settle()] == [house.ref_of(third)]
    assert house.stats.cancels_on_drain == 3


def test_orders_on_the_ring_when_the_kill_word_is_set_do_not_pass(house: House) -> None:
    for _ in range(40):
        house.new()
    house.control.kill = 1
    assert house.settle() == []
    assert [report["reason"] for report in house.told()] == [risk.REASON_KILLED] * 40


# Stamps.


def test_hops_are_measured_where_they_are_named(house: House) -> None:
    now = int(house.clock.words[NOW])
    house.new(origin_tsc=now - 5_000, age_tsc=2_000)
    house.new(origin_tsc=now - 5_000, age_tsc=0xFFFFFFFF)
    house.new(qty=0, origin_tsc=now - 5_000, age_tsc=2_000)
    house.turn()
    hops = [Distribution.of(words) for words in house.hops.words()]
    assert [hop.count for hop in hops] == [0, 0, 0, 2, 2, 1, 0, 2, 0, 0]
    assert (hops[3].maximum, hops[3].total) == (3_000, 6_000)
    assert (hops[7].maximum, hops[7].total) == (5_000, 10_000)
    house.clock.words[NOW] += 700
    house.venue.say(ouch.ACCEPTED, user_ref=1, quantity=100)
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=10, match=1)
    house.turn_until(lambda: house.stats.executed == 1, "the fill")
    first_report = Distribution.of(house.hops.words()[6])
    assert (first_report.count, first_report.maximum) == (1, 700)
    reports = house.told()
    assert [report["origin_tsc"] for report in reports[-2:]] == [now + 700] * 2
    assert reports[0]["origin_tsc"] == now - 5_000
    assert reports[0]["age_tsc"] == 5_000


# What must hold of the source.


HOT = Path(gateway_state.__file__).parent
GATEWAY_TESTS = sorted(str(path) for path in Path(__file__).parent.glob("test_gateway*.py"))


@pytest.mark.skipif(PLAIN, reason="there is no machine code to look at")
@pytest.mark.parametrize("houses", ["ouch50"], indirect=True)
def test_a_turn_counts_no_references_and_allocates_nothing(house: House) -> None:
    fresh = njit(_nrt=False)(step.py_func)
    fresh(house.stage.state, house.clock)
    (code,) = fresh.inspect_llvm().values()
    assert "define" in code
    assert "NRT_" not in code


@pytest.mark.skipif(PLAIN, reason="this is that run")
def test_all_of_this_holds_in_plain_python() -> None:
    """Under NUMBA_DISABLE_JIT a trader can step through a turn with a debugger: no kernel may need the compiler to be right."""
    finished = subprocess.run(
        [sys.executable, "-W", "error::RuntimeWarning", "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", *GATEWAY_TESTS],
        env=os.environ | {"NUMBA_DISABLE_JIT": "1"},
        cwd=Path(__file__).parents[1],
        capture_output=True,
        text=True,
        timeout=300,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout + finished.stderr
