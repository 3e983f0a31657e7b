"""What somebody who only looks on learns of a gateway: every order and every report, as they happen; and that the orders, done again, are
the same bytes to the venue and the same answers to the strategy."""

import random
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, MSG_CANCEL, MSG_NEW, MSG_REPLACE, SELL, TIF_DAY, TIF_IOC
from tests.gateway_house import AAPL, MSFT, PX, House, build_houses
from tests.inspecting import Running, running

houses = pytest.fixture(build_houses)

# Of some of them the gate says no.
LIMITS = {"order_qty_max": 900, "position_max": 4_000, "duplicates_max": 2}
ORDERS = 120
# Not of what was asked or answered, but of when.
TIMES = {"origin_tsc", "ts_ns", "age_tsc"}


def random_orders(chance: random.Random) -> Iterator[dict[str, Any]]:
    """New orders, replaces and cancels, as fields of the orders ring. A replace is for what it replaces, and that is one of the last."""
    made: dict[int, tuple[int, int]] = {}
    for number in range(1, ORDERS + 1):
        kind = chance.choice(["new", "new", "replace", "cancel"]) if len(made) > 1 else "new"
        target = chance.choice([*made][-3:]) if kind != "new" else 0
        instrument, side = made[target] if target else (chance.choice([AAPL, MSFT, 1]), chance.choice([BUY, SELL]))
        if kind != "cancel":
            made[number] = instrument, side
        order_id = target if kind == "cancel" else number
        yield {
            "kind": {"new": MSG_NEW, "replace": MSG_REPLACE, "cancel": MSG_CANCEL}[kind], "order_id": order_id,
            "instrument": instrument, "side": side, "tif": chance.choice([TIF_DAY, TIF_IOC]), "px": PX + 100 * chance.randint(-3, 3),
            "qty": 0 if kind == "cancel" else chance.randint(1, 1_000), "target_id": target if kind == "replace" else 0, "strategy": 0,
        }  # fmt: skip


def answer(house: House, heard: list[tuple[str, Any]], chance: random.Random) -> None:
    """The venue's word on everything it heard; some of it trades at once."""
    for kind, fields in heard:
        if kind == "cancel order":
            house.venue.say(ouch.CANCELED, user_ref=fields["user_ref"], quantity=50)
            continue
        names = {"user_ref": fields["user_ref"], "quantity": fields["quantity"], "px": fields["px"]}
        if kind == "replace order":
            house.venue.say(ouch.REPLACED, orig_user_ref=fields["orig_user_ref"], **names)
        else:
            house.venue.say(ouch.ACCEPTED, side=fields["side"], symbol=fields["symbol"], **names)
        if chance.random() < 0.4:
            house.venue.match += 1
            qty = chance.randint(1, fields["quantity"])
            house.venue.say(ouch.EXECUTED, user_ref=fields["user_ref"], quantity=qty, px=fields["px"], match=house.venue.match)


def trade(house: House, orders: Iterator[dict[str, Any]], seed: int) -> tuple[list[Any], list[dict[str, Any]]]:
    """Let the gateway take the orders one by one: what the venue heard, and what the strategy was told."""
    chance, heard, told = random.Random(seed), [], []
    for order in orders:
        house.put(**order)
        said = house.settle()
        heard += said
        answer(house, said, chance)
        house.settle()
        told += house.told()
    return heard, told


def seen(follower: Running, count: int) -> list[dict[str, int]]:
    """The fields of the next messages on a ring, of which none may be lost."""
    found = []
    while len(found) < count:
        line = follower.json()
        assert line.get("event") != "lost", line
        if "fields" in line:
            found.append(line["fields"])
    return found


@pytest.mark.statement(15)
def test_every_order_and_report_is_seen_as_it_happens_and_the_orders_can_be_done_again(houses: Callable[..., House]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    house = houses(limits=LIMITS)
    with (
        running("inspect", house.orders.name, "--follow", "--json", "--from", "0") as orders,
        running("inspect", house.reports.name, "--follow", "--json", "--from", "0") as reports,
    ):
        heard, told = trade(house, random_orders(random.Random(seed)), seed)
        recorded, reported = seen(orders, ORDERS), seen(reports, len(told))
    assert reported == [{name: one[name] for name in one.keys() - {"is", "sequence"}} for one in told]
    kinds = [kind for kind, _ in heard]
    print({kind: kinds.count(kind) for kind in sorted(set(kinds))})
    assert set(kinds) == {"enter order", "replace order", "cancel order"}
    assert {"rejected", "executed", "cancelled", "replaced", "accepted"} == {report["is"] for report in told}

    again = houses(limits=LIMITS)
    heard_again, told_again = trade(again, ({name: order[name] for name in order.keys() - TIMES} for order in recorded), seed)
    assert heard_again == heard
    untimed = [[{name: one[name] for name in one.keys() - TIMES} for one in side] for side in (told_again, told)]
    assert untimed[0] == untimed[1]
    assert (again.line(AAPL), again.line(MSFT)) == (house.line(AAPL), house.line(MSFT))
