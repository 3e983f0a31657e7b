"""The kill switch at the gateway: what it refuses, what it cancels, and that nobody else has to help."""

import random
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from engine.gateway.hot import state as gateway_state
from engine.gateway.ouch import v50 as ouch
from engine.gateway.ouch.hot.encode import CANCEL_42_BYTES, CANCEL_BYTES, SWEEP_CANCELS_MAX
from engine.layout import BUY, PHASE_DRAINING, PHASE_TRADING, SELL, TIF_IOC, pack_symbol
from engine.messages.hot.stamp import NOW
from engine.risk import rules
from engine.risk.hot import reasons as risk
from engine.runtime import kills
from engine.runtime.latch import WHOLE, Scope
from tests.gateway_house import AAPL, MSFT, SPOKEN, START_TSC, House, build_house, build_houses, parsed
from tests.ouch42_tongue import Tongue, our_token

house = pytest.fixture(build_house)
houses = pytest.fixture(build_houses)

SYMBOLS = {AAPL: "AAPL", MSFT: "MSFT"}
ALL = [
    Scope(strategy, symbol, venue) for strategy in (None, 0, 1) for symbol in ("", "AAPL", "MSFT", "ZZZZ") for venue in ("", "XNAS", "XLON")
]


def let_two_fire(house: House) -> None:
    """Two strategies, and a venue with a name."""
    found = rules.read(house.rules)
    assert found is not None
    rules.write(house.rules, replace(found, enabled={0: rules.ENABLED, 1: rules.ENABLED}))
    house.control.venue = pack_symbol("XNAS")


def covers(scope: Scope, strategy: int, instrument: int) -> bool:
    return scope.strategy in (None, strategy) and scope.symbol in ("", SYMBOLS[instrument]) and scope.venue in ("", "XNAS")


def cancelled(heard: list[tuple[str, Any]]) -> list[int]:
    assert {said for said, _ in heard} <= {"cancel order"}
    assert all(fields["quantity"] == 0 for _, fields in heard)
    return [fields["user_ref"] for _, fields in heard]


def fill(house: House, count: int) -> list[int]:
    """So many orders on their way to the venue, by two strategies in turn; their user_refs."""
    for number in range(count):
        house.new(qty=1, strategy=number % 2)
        house.turn()
        house.venue.hear()
        house.read()
    return sorted(fields["user_ref"] for said, fields in house.settle() if said == "enter order")


def over_small_pipe(house: House) -> None:
    """The rest of the session over a socket whose buffer holds some hundred cancels."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
    ours.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    ours.setblocking(False)
    assert house.venue.client is not None
    house.venue.client.detach()
    house.venue.client = theirs
    house.stage.state.session[gateway_state.FD] = ours.fileno()
    house.made.append(Closing(ours))


class Closing:
    def __init__(self, end: socket.socket) -> None:
        self.unlink = end.close


@pytest.mark.statement(10)
@pytest.mark.parametrize("scope", [scope for scope in ALL if not scope.whole], ids=str)
def test_a_kill_of_a_part_cancels_and_blocks_exactly_that_part(house: House, scope: Scope) -> None:
    let_two_fire(house)
    parts = [(strategy, line) for strategy in (0, 1) for line in (AAPL, MSFT)]
    ids = {part: house.live(strategy=part[0], instrument=part[1]) for part in parts}
    number = kills.put(house.control_table, scope, "test")
    hit = [part for part in parts if covers(scope, *part)]
    assert sorted(cancelled(house.settle())) == [ids[part] for part in hit]
    for strategy, line in parts:
        house.new(strategy=strategy, instrument=line)
    assert [said for said, _ in house.settle()] == ["enter order"] * (4 - len(hit))
    assert [report["reason"] for report in house.told()] == [risk.REASON_KILLED_SCOPE] * len(hit)
    for part in parts:
        house.replace(ids[part], strategy=part[0], instrument=part[1], qty=50)
    assert [said for said, _ in house.settle()] == ["replace order"] * (4 - len(hit))
    house.told()
    for part in parts:
        house.cancel(ids[part])
    assert [said for said, _ in house.settle()] == ["cancel order"] * 4, "a cancel always passes"
    assert (int(house.stats.kill_swept), int(house.stats.kill_cancels)) == (number, len(hit))
    kills.lift(house.control_table, scope)
    for strategy, line in parts:
        house.new(strategy=strategy, instrument=line)
    assert [said for said, _ in house.settle()] == ["enter order"] * 4


@pytest.mark.statement(10)
@pytest.mark.parametrize("seed", range(6))
def test_whatever_is_killed_and_armed_exactly_what_is_covered_is_cancelled_and_blocked(houses: Callable[..., House], seed: int) -> None:
    """Random orders, kills and arms against a model: a set of scopes."""
    print(f"seed={seed}")
    chance = random.Random(seed)
    house = houses(orders_max=1 << 10)
    let_two_fire(house)
    held: set[Scope] = set()
    live: dict[int, tuple[int, int]] = {}
    for _ in range(60):
        done = chance.random()
        if done < 0.5:
            part = (chance.randrange(2), chance.choice((AAPL, MSFT)))
            blocked = any(covers(scope, *part) for scope in held)
            if blocked:
                house.new(strategy=part[0], instrument=part[1])
                assert house.settle() == []
                [report] = house.told()
                assert report["reason"] == (risk.REASON_KILLED if WHOLE in held else risk.REASON_KILLED_SCOPE)
            else:
                order_id = house.new(strategy=part[0], instrument=part[1], side=chance.choice((BUY, SELL)))
                [(said, fields)] = house.settle()
                assert said == "enter order"
                house.venue.say(ouch.ACCEPTED, user_ref=fields["user_ref"], quantity=100)
                house.settle()
                live[fields["user_ref"]] = part
                assert house.told()[0]["order_id"] == order_id
        elif done < 0.8 or not held:
            scope = chance.choice(ALL)
            if len(held) > 4:
                continue
            held.add(scope)
            kills.put(house.control_table, scope, "model")
            gone = [ref for ref, part in live.items() if any(covers(each, *part) for each in held)]
            assert cancelled(house.settle()) == sorted(gone, reverse=True)
            for ref in gone:
                house.venue.say(ouch.CANCELED, user_ref=ref, quantity=100)
                del live[ref]
            house.settle()
            house.told()
        else:
            scope = chance.choice(sorted(held, key=str))
            held.discard(scope)
            assert kills.lift(house.control_table, scope) is True
            assert house.settle() == []
        assert set(kills.held(house.control_table)) == held
        assert house.stats.open_orders == len(live)


@pytest.mark.statement(10)
@pytest.mark.parametrize("protocol", ["ouch50", "ouch42"])
def test_a_sweep_of_many_orders_is_one_send(houses: Callable[..., House], protocol: str) -> None:
    house = houses(orders_max=1 << 11, protocol=protocol)
    size = CANCEL_42_BYTES if protocol == "ouch42" else CANCEL_BYTES
    refs = [house.new(qty=1) for _ in range(SWEEP_CANCELS_MAX)]
    house.settle()
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    ours.setblocking(False)
    theirs.setblocking(False)
    words = house.stage.state.session
    tcp, words[gateway_state.FD] = int(words[gateway_state.FD]), ours.fileno()
    kills.put(house.control_table, WHOLE, "test")
    house.turn()
    words[gateway_state.FD] = tcp
    sent = theirs.recv(1 << 16)
    assert len(sent) == SWEEP_CANCELS_MAX * size
    with pytest.raises(BlockingIOError):
        theirs.recv(1 << 16)
    packets = [sent[at : at + size] for at in range(0, len(sent), size)]
    assert {packet[:3] for packet in packets} == {(size - 2).to_bytes(2, "big") + b"U"}
    decoded = [parsed(packet[2:])[1] for packet in packets]
    assert decoded == [{"user_ref": ref, "quantity": 0} for ref in reversed(refs)]
    ours.close()
    theirs.close()


@pytest.mark.statement(10)
def test_a_kill_comes_before_what_is_on_the_orders_ring_and_with_the_reports_ring_full(houses: Callable[..., House]) -> None:
    """The strategy hangs: it reads no report, and has left its ring full of orders."""
    house = houses(reports_capacity=4, orders_max=1 << 11)
    live = [house.new(qty=1) for _ in range(3)]
    house.settle()
    for ref in live:
        house.venue.say(ouch.ACCEPTED, user_ref=ref, quantity=1)
    house.turn_until(lambda: house.stats.accepted >= 2 and house.turn() == 0, "the reports ring to be full", drained=False)
    for _ in range(1024):
        house.new(qty=1)
    kills.put(house.control_table, WHOLE, "test")
    house.venue.heard.clear()
    house.turn()
    assert house.stats.cancels_on_drain == 3
    house.turn_until(lambda: len(house.venue.heard) == 3, "the cancels there", drained=False)
    assert cancelled(house.venue.heard) == live[::-1]
    for _ in range(200):
        house.turn()
    house.venue.hear()
    assert cancelled(house.venue.heard) == live[::-1], "nothing else was sent"
    assert house.orders.backlog()["gateway"] > 1000


@pytest.mark.statement(10)
@pytest.mark.parametrize("count", [3 * SWEEP_CANCELS_MAX, 2 * SWEEP_CANCELS_MAX - 1])
def test_a_venue_that_reads_slowly_gets_every_cancel_once_and_the_figure_waits_for_the_last(
    houses: Callable[..., House], count: int
) -> None:
    house = houses(orders_max=1 << 12)
    let_two_fire(house)
    refs = fill(house, count)
    over_small_pipe(house)
    house.control.kills, house.control.kill_tsc, house.control.kill = 7, START_TSC, 1
    for _ in range(50):
        house.turn()
    assert (int(house.stats.kill_swept), house.stats.partial_sends > 0) == (0, True)
    house.new(qty=1)
    for _ in range(50):
        house.turn()
    house.clock.words[NOW] = START_TSC + 123_456
    house.turn_until(lambda: house.stats.kill_swept == 7, "all cancels to be written")
    assert (int(house.stats.kill_cancels), int(house.stats.kill_to_last_cancel_tsc)) == (len(refs), 123_456)
    assert cancelled(house.settle()) == refs[::-1]


def test_a_kill_is_told_once_and_a_drain_after_it_is_not(house: House) -> None:
    live = [house.live() for _ in range(4)]
    house.control.kills, house.control.kill_tsc, house.control.kill = 1, START_TSC, 1
    house.settle()
    told = int(house.stats.kill_to_last_cancel_tsc)
    assert (int(house.stats.kill_swept), int(house.stats.kill_cancels)) == (1, 4)
    house.control.kill = 0
    for ref in live:
        house.venue.say(ouch.CANCELED, user_ref=ref, quantity=100)
    house.settle()
    house.live()
    house.clock.words[NOW] += 10**9
    house.control.phase = PHASE_DRAINING
    house.settle()
    assert (int(house.stats.kill_cancels), int(house.stats.kill_to_last_cancel_tsc)) == (4, told)
    assert house.stats.cancels_on_drain == 5
    house.control.phase = PHASE_TRADING
    house.live(side=SELL)
    house.control.kills, house.control.kill = 2, 1
    house.settle()
    assert (int(house.stats.kill_swept), int(house.stats.kill_cancels)) == (2, 1)


def test_a_second_kill_while_the_first_is_swept_is_one_sweep_of_both(houses: Callable[..., House]) -> None:
    house = houses(orders_max=1 << 12)
    let_two_fire(house)
    refs = fill(house, 2 * SWEEP_CANCELS_MAX + 50)
    kills.put(house.control_table, Scope(strategy=1), "first")
    house.turn()
    assert 0 < house.stats.cancels_on_drain <= SWEEP_CANCELS_MAX
    kills.put(house.control_table, WHOLE, "second")
    assert sorted(cancelled(house.settle())) == refs
    assert (int(house.stats.kill_swept), int(house.stats.kill_cancels)) == (2, len(refs))


def test_an_order_of_an_instrument_that_is_not_named_is_cancelled_by_a_kill_of_any_symbol(house: House) -> None:
    """Nobody knows whether it is the one: cancelling it puts nothing at stake."""
    ref = house.live()
    house.instruments.records[AAPL].symbol = 0
    kills.put(house.control_table, Scope(symbol="MSFT"), "test")
    assert cancelled(house.settle()) == [ref]


@pytest.mark.statement(11)
@pytest.mark.parametrize("protocol", ["ouch50", "ouch42"])
@pytest.mark.parametrize("strategy", [0, 1, 7, 63])
def test_every_order_names_its_trader_and_strategy_on_the_wire(houses: Callable[..., House], strategy: int, protocol: str) -> None:
    house = houses(trader="ADA", protocol=protocol)
    if protocol == "ouch42":
        SPOKEN["tongue"] = Tongue(lambda ref: our_token(ref, strategy, "ADA"))
    found = rules.read(house.rules)
    assert found is not None
    rules.write(house.rules, replace(found, enabled={strategy: rules.ENABLED, 2: rules.ENABLED}))
    ref = house.live(strategy=strategy)
    house.replace(ref, strategy=strategy, qty=50)
    house.new(strategy=2, tif=TIF_IOC)
    house.venue.heard.clear()
    [(_, replaced), (_, other)] = house.settle()
    assert replaced["client_id"].rstrip() == f"ADA       /S{strategy:02}"
    assert other["client_id"].rstrip() == "ADA       /S02"
    assert int(house.facts.fired[strategy]) == (2 if strategy != 2 else 3)
    assert int(house.facts.fired[2]) == 1
    assert [int(entry.strategy) for entry in house.stage.state.table if entry.state != gateway_state.FREE] == [strategy, strategy, 2]


def test_a_trader_that_does_not_fit_is_a_sentence(house: House) -> None:
    for trader in ("", "ELEVENCHARS"):
        with pytest.raises(ValueError, match=f"trader='{trader}': expected 1 to 10 characters"):
            house.gateway(trader=trader)
