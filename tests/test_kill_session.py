"""A kill while there is no session: it stays due, and is the first thing that the next session hears."""

from collections.abc import Callable

import pytest

from engine.gateway.ouch import v50 as ouch
from engine.risk.hot import reasons as risk
from engine.runtime import kills
from engine.runtime.latch import WHOLE, Scope
from tests.gateway_house import MSFT, House, build_houses

houses = pytest.fixture(build_houses)


def cancelled(heard: list) -> list[int]:
    assert {said for said, _ in heard} <= {"cancel order"}
    return [fields["user_ref"] for _, fields in heard]


@pytest.mark.statement(10)
@pytest.mark.parametrize("scope", [WHOLE, Scope(symbol="MSFT")], ids=str)
def test_a_kill_without_a_session_is_the_first_thing_that_the_next_one_hears(houses: Callable[..., House], scope: Scope) -> None:
    house = houses(reconnect_tries=10)
    refs = [house.live(), house.live(instrument=MSFT), house.live(instrument=MSFT)]
    house.venue.hang_up()
    house.turn_until(lambda: not house.control.session_up, "the loss of the session")
    number = kills.put(house.control_table, scope, "while it was down")
    for _ in range(20):
        house.new(instrument=MSFT)
        house.turn()
    assert (int(house.stats.cancels_on_drain), int(house.stats.kill_swept)) == (0, 0)
    assert {report["reason"] for report in house.told()} <= {risk.REASON_NO_SESSION, risk.REASON_KILLED}
    house.reconnect(next_user_ref=4)
    house.new(instrument=MSFT)
    hit = refs[::-1] if scope.whole else refs[:0:-1]
    assert cancelled(house.settle()) == hit
    assert (int(house.stats.kill_swept), int(house.stats.kill_cancels)) == (number, len(hit))
    assert house.told()[-1]["reason"] in (risk.REASON_KILLED, risk.REASON_KILLED_SCOPE)


@pytest.mark.statement(10)
def test_cancels_that_were_lost_with_the_session_are_sent_again(houses: Callable[..., House]) -> None:
    house = houses(reconnect_tries=10)
    refs = [house.live() for _ in range(3)]
    kills.put(house.control_table, WHOLE, "test")
    assert cancelled(house.settle()) == refs[::-1]
    house.venue.hang_up()
    house.turn_until(lambda: not house.control.session_up, "the loss of the session")
    house.reconnect(next_user_ref=4)
    assert cancelled(house.settle()) == refs[::-1]
    for ref in refs:
        house.venue.say(ouch.CANCELED, user_ref=ref, quantity=100)
    house.settle()
    assert house.stats.open_orders == 0
