"""The gate as the gateway feeds it: our open orders from sent to done, executions, broken trades, and rules that change under way."""

from dataclasses import replace

import pytest

from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, RISK_HALTED, SELL
from engine.risk.hot import reasons as risk
from engine.risk.hot.state import BUCKET_MAX, LEVEL, TOKEN
from engine.risk.rules import Rules
from engine.risk.rules import write as write_rules
from tests.gateway_house import MSFT, PX, House, brief, build_houses

houses = pytest.fixture(build_houses)


@pytest.fixture
def house(houses) -> House:
    return houses(limits={"self_trade": "refuse"})


def refusals(house: House) -> list[int]:
    return [report["reason"] for report in house.told() if report["is"] == "rejected"]


def test_an_order_is_ours_from_sent_to_done(house: House) -> None:
    offer = house.new(side=SELL, px=PX + 100)
    house.new(side=BUY, px=PX + 100)  # the offer was not even accepted
    house.settle()
    assert refusals(house) == [risk.REASON_SELF_TRADE]
    house.venue.say(ouch.ACCEPTED, user_ref=offer, quantity=100, px=PX + 100, side="S")
    house.cancel(offer)
    house.new(side=BUY, px=PX + 100)  # nor is it gone while its cancel is under way
    house.settle()
    assert refusals(house) == [risk.REASON_SELF_TRADE]
    house.venue.say(ouch.CANCELED, user_ref=offer, quantity=100)
    house.settle()
    house.new(side=BUY, px=PX + 100)
    assert [kind for kind, _ in house.settle()] == ["enter order"]


def test_a_replacement_counts_beside_its_order_until_the_venue_has_spoken(house: House) -> None:
    offer = house.live(side=SELL, px=PX + 100)
    better = house.replace(offer, side=SELL, px=PX + 300)
    house.new(side=BUY, px=PX + 200)
    house.settle()
    assert refusals(house) == [risk.REASON_SELF_TRADE]
    house.venue.say(ouch.REPLACED, orig_user_ref=offer, user_ref=better, quantity=100, px=PX + 300, side="S")
    house.settle()
    house.new(side=BUY, px=PX + 200)
    house.new(side=BUY, px=PX + 300)
    assert len(house.settle()) == 1
    assert refusals(house) == [risk.REASON_SELF_TRADE]


def test_a_price_the_venue_accepted_at_is_the_one_that_counts(house: House) -> None:
    offer = house.new(side=SELL, px=PX + 300)
    house.settle()
    house.venue.say(ouch.ACCEPTED, user_ref=offer, quantity=100, px=PX + 100, side="S")
    house.settle()
    house.new(side=BUY, px=PX + 100)
    house.settle()
    assert refusals(house) == [risk.REASON_SELF_TRADE]


def test_a_filled_and_a_rejected_order_are_gone(house: House) -> None:
    first, second = house.live(side=SELL, px=PX + 100), house.new(side=SELL, px=PX + 100)
    house.settle()
    house.venue.say(ouch.EXECUTED, user_ref=first, quantity=100, px=PX + 100, match=1)
    house.venue.say(ouch.REJECTED, user_ref=second, reason=ouch.REJECT_OTHER)
    house.settle()
    house.told()
    house.new(side=BUY, px=PX + 100)
    assert len(house.settle()) == 1


def test_executions_make_the_profit_and_a_broken_one_takes_it_back(house: House) -> None:
    order = house.live(side=BUY, px=PX + 100)
    house.venue.say(ouch.EXECUTED, user_ref=order, quantity=60, px=PX + 50, match=7)
    house.settle()
    assert (house.facts.pnl, house.facts.gross, house.facts.executions) == (-60 * 50, 100 * PX, 1)
    house.venue.say(ouch.BROKEN, user_ref=order, match=7)
    house.settle()
    assert (house.facts.pnl, house.facts.gross, house.facts.executions) == (0, 40 * PX, 0)


@pytest.mark.statement(15)
def test_an_execution_is_reported_in_the_turn_in_which_it_comes(house: House) -> None:
    order = house.live(side=BUY)
    house.told()
    house.venue.say(ouch.EXECUTED, user_ref=order, quantity=60, px=PX, match=7)
    house.turn()
    assert brief(house.told(), "qty", "px", "ref_id") == [("executed", 60, PX, 7)]
    assert (house.line()["position"], int(house.facts.executions)) == (60, 1)


def test_the_cancels_of_a_sweep_are_messages_too(house: House) -> None:
    """What they take out of the bucket new orders wait for, and they count for the ratio of orders to trades."""
    for _ in range(3):
        house.live()
    before = int(house.facts.messages)
    house.control.kill = 1
    assert len(house.settle()) == 3
    assert int(house.facts.messages) == before + 3
    gate = house.stage.risk
    assert int(gate.bucket[LEVEL]) == int(gate.rules[BUCKET_MAX]) - 3 * TOKEN


def test_losses_in_a_row_are_counted_from_executions(houses) -> None:
    house = houses(limits={"losses_in_a_row_max": 2})
    for match in range(0, 6, 2):
        bought, sold = house.live(side=BUY), house.live(side=SELL)
        house.venue.say(ouch.EXECUTED, user_ref=bought, quantity=100, px=PX + 100, match=match + 1)
        house.venue.say(ouch.EXECUTED, user_ref=sold, quantity=100, px=PX, match=match + 2)
        house.settle()
    assert (house.facts.losses, house.facts.trips) == (3, 1)
    house.told()
    house.new()
    house.settle()
    assert refusals(house) == [risk.REASON_LOSSES_IN_A_ROW]


def test_the_watch_of_idle_turns_finds_a_loss(houses) -> None:
    house = houses(limits={"daily_loss_max": 100.0})
    order = house.live(side=BUY, instrument=MSFT)
    house.venue.say(ouch.EXECUTED, user_ref=order, quantity=100, px=PX, match=1)
    house.settle()
    quote = house.quotes.records[MSFT]
    quote.bid_px, quote.ask_px = PX - 20_100, PX - 19_900
    house.quotes.words()[MSFT][0] += 2
    house.turn_until(lambda: bool(house.facts.trips), "the trip")
    assert house.facts.pnl == -100 * 20_000


def test_rules_change_between_two_orders_and_cancels_pass_a_halt(house: House) -> None:
    order = house.live(px=PX - 100)
    write_rules(house.rules, replace(Rules(house.limits, symbols=2, venue_qty_max=ouch.QUANTITY_MAX), state=RISK_HALTED))
    house.new()
    house.cancel(order)
    assert [kind for kind, _ in house.settle()] == ["cancel order"]
    assert brief(house.told(), "reason") == [("rejected", risk.REASON_HALTED_BY_RISK)]
    write_rules(house.rules, Rules(house.limits, symbols=2, venue_qty_max=ouch.QUANTITY_MAX))
    house.new()
    assert [kind for kind, _ in house.settle()] == ["enter order"]
