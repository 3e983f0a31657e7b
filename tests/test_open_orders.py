"""The order table as others see it: beside a gateway that writes it, and after one that died."""

import os
import random
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

from engine.gateway.hot import state as gateway_state
from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, INSTRUMENT, OPEN_ORDER, ORDER_STATE, SELL, STRATEGIES_MAX, pack_symbol
from engine.risk import rules
from engine.runtime import open_orders
from engine.runtime.open_orders import OpenOrder, OpenOrders
from shm.table import Board
from tests.c.driver import build
from tests.children import in_child, wait_for_exit
from tests.gateway_house import AAPL, MSFT, PLAIN, PX, START_TSC, House, build_houses, sequenced
from tests.inspecting import ROOT, said, tickpath

built_houses = pytest.fixture(build_houses)


@pytest.fixture
def houses(built_houses: Callable[..., House]) -> Callable[..., House]:
    """Every strategy may trade."""

    def build_one(**options: Any) -> House:
        house = built_houses(**options)
        found = rules.read(house.rules)
        assert found is not None
        rules.write(house.rules, replace(found, enabled=dict.fromkeys(range(STRATEGIES_MAX), rules.ENABLED)))
        return house

    return build_one


SECOND_HZ = 1e9


@pytest.fixture
def board(instance: str) -> Any:
    made = Board.create(f"{instance}.open_orders", OPEN_ORDER, 16)
    yield made
    made.unlink()
    made.detach()


def read(house: House, now_tsc: int = START_TSC) -> OpenOrders:
    assert house.open_orders is not None
    return open_orders.read(house.open_orders, house.instruments, now_tsc=now_tsc, tsc_hz=SECOND_HZ)


def written(board: Board, user_ref: int, place: int | None = None, **fields: int) -> None:
    """A line as the gateway would write it, or at another place."""
    line = np.zeros(1, OPEN_ORDER)
    usual = {"user_ref": user_ref, "order_id": 5, "px": PX, "open": 100, "state": ORDER_STATE["live"], "side": BUY, "instrument": 7}
    for name, value in (usual | fields).items():
        line[0][name] = value
    board.write(user_ref % len(board.records) if place is None else place, line[0])


def test_what_is_open_is_read_with_all_that_is_known_of_it(houses: Callable[..., House]) -> None:
    house = houses()
    first = house.live(qty=300, px=PX - 50, strategy=4)
    house.new(side=SELL, instrument=MSFT, qty=20)
    house.venue.say(ouch.EXECUTED, user_ref=1, quantity=40, px=PX, match=1)
    house.settle()
    house.replace(first, qty=500, px=PX - 40, strategy=4)
    house.settle()
    gone = house.live()
    house.venue.say(ouch.CANCELED, user_ref=house.ref_of(gone), quantity=100)
    house.settle()
    found = read(house, int(house.entry(first).sent_tsc) + 2_500_000_000)
    assert found.senseless == 0
    known, other, heir = found.orders
    assert replace(known, age_s=0) == OpenOrder("AAPL", "buy", 100.0, 260, 40, "pending_replace", first, 1, 4, 0, 0, True)
    assert replace(other, age_s=0) == OpenOrder("MSFT", "sell", 100.0, 20, 0, "pending_new", 2, 2, 0, 0, 0, True)
    assert replace(heir, age_s=0) == OpenOrder("AAPL", "buy", 99.996, 500, 40, "pending_new", 3, 3, 4, 1, 0, True)
    assert known.age_s == (found.orders[0].age_s and 2.5)
    assert found.sentences(2) == [
        "AAPL buy 260 at 100.0000 (pending replace, order 1, user_ref 1)", "MSFT sell 20 at 100.0000 (pending new, order 2, user_ref 2)",
        "and 1 more",
    ]  # fmt: skip
    assert found.sentences()[2] == "AAPL buy 500 at 99.9960 (pending new, order 3, user_ref 3, to replace user_ref 1)"
    assert found.to_dict()["count"] == 3


def test_a_line_that_was_being_written_is_told_with_that(board: Board) -> None:
    for user_ref in (1, 2, 3):
        written(board, user_ref)
    board.words()[2][0] += 1
    found = open_orders.read(board, None, now_tsc=0, tsc_hz=0)
    assert [(order.user_ref, order.whole, order.age_s, order.symbol) for order in found.orders] == [
        (1, True, None, "instrument 7"), (2, False, None, "instrument 7"), (3, True, None, "instrument 7"),
    ]  # fmt: skip
    assert [order.age_s for order in open_orders.read(board, None, now_tsc=9, tsc_hz=1.0).orders] == [None] * 3
    assert found.sentences()[1] == "instrument 7 buy 100 at 100.0000 (live, order 5, user_ref 2, its line was being written)"


@pytest.mark.parametrize(
    "wrong", [{"user_ref": 0, "place": 0}, {"user_ref": 6}, {"side": 0}, {"side": ord("b")}, {"open": -1}, {"open": 1 << 32},
              {"executed": -1}, {"executed": 1 << 32}, {"px": -1}],
    ids=str,
)  # fmt: skip
def test_a_line_that_cannot_be_is_counted_and_not_named(board: Board, wrong: dict[str, int]) -> None:
    written(board, 4)
    written(board, **{"user_ref": 5, "place": 5} | wrong)
    found = open_orders.read(board, None, now_tsc=0, tsc_hz=0)
    assert ([order.user_ref for order in found.orders], found.senseless) == ([4], 1)
    assert found.sentences()[-1] == "lines of the order table that make no sense: 1"


@pytest.mark.parametrize("state", sorted(ORDER_STATE))
def test_only_what_may_trade_is_open(board: Board, state: str) -> None:
    written(board, 3, state=ORDER_STATE[state])
    written(board, 4, state=ORDER_STATE[state], open=0)
    found = open_orders.read(board, None, now_tsc=0, tsc_hz=0)
    assert [order.state for order in found.orders] == ([state] if gateway_state.FREE < ORDER_STATE[state] < gateway_state.ENDED else [])


def test_an_order_that_ends_while_it_is_read_is_not_open(board: Board) -> None:
    class Ending(Board):
        def read(self, key: int) -> np.void | None:
            self.records[key]["state" if key == 3 else "open"] = ORDER_STATE["filled"] if key == 3 else 0
            return super().read(key)

    written(board, 3)
    written(board, 4)
    found = open_orders.read(Ending(board.segment, OPEN_ORDER), None, now_tsc=0, tsc_hz=0)
    assert (found.orders, found.senseless) == ([], 0)


# What is told of a line never was otherwise.


class Allowed:
    """By user_ref: every (px, open, executed, strategy) that the line of an order ever had between two messages."""

    def __init__(self, lines: dict[int, set[tuple[int, int, int, int]]]) -> None:
        self.lines = lines
        self.seen: dict[int, set[tuple[int, int, int, int]]] = {user_ref: set() for user_ref in lines}
        self.broken = 0

    def check(self, found: OpenOrders) -> None:
        assert found.senseless == 0
        for order in found.orders:
            line = (round(order.px * 10_000), order.open, order.executed, order.strategy)
            if order.whole:
                assert line in self.lines[order.user_ref], f"{order} never was"
                self.seen[order.user_ref].add(line)
            else:
                self.broken += 1


@pytest.mark.skipif(not PLAIN, reason="the interpreter stops between two lines of a kernel, and no compiled one does")
def test_line_by_line(houses: Callable[..., House]) -> None:
    """A gateway that stops, for good or for a moment, after any line of its source: no reader sees an order that never was."""
    p, r, q, s = PX - 100, PX - 200, PX - 300, PX - 400
    allowed = Allowed({
        1: {(p, 100, 0, 3), (r, 90, 0, 3), (r, 60, 30, 3), (r, 40, 50, 3)},
        2: {(p, 200, 0, 4), (p, 150, 0, 4)},
        3: {(q, 500, 30, 3), (q, 480, 50, 3), (s, 450, 50, 3), (s, 440, 60, 3)},
        65: {(p, 7, 0, 5)},
    })  # fmt: skip
    house = houses()

    def local(frame: FrameType, event: str, arg: object) -> Any:
        allowed.check(read(house))
        return local

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        return local if "engine/gateway" in frame.f_code.co_filename and frame.f_code.co_name not in QUIET else None

    sys.settrace(trace)
    try:
        house.new(px=p, strategy=3)
        house.new(px=p, qty=200, side=SELL, strategy=4)
        house.settle()
        for message in (
            sequenced(ouch.ACCEPTED, user_ref=1, quantity=90, px=r), sequenced(ouch.ACCEPTED, user_ref=2, quantity=200, px=p),
            sequenced(ouch.CANCELED, user_ref=2, quantity=50), sequenced(ouch.EXECUTED, user_ref=1, quantity=30, px=r, match=1),
        ):  # fmt: skip
            house.venue.send(message)
        house.settle()
        house.replace(1, px=q, qty=500, strategy=3)
        house.settle()
        for message in (
            sequenced(ouch.EXECUTED, user_ref=1, quantity=20, px=r, match=2),
            sequenced(ouch.REPLACED, orig_user_ref=1, user_ref=3, quantity=450, px=s),
            sequenced(ouch.EXECUTED, user_ref=3, quantity=10, px=s, match=3), sequenced(ouch.CANCELED, user_ref=2, quantity=150),
            sequenced(ouch.EXECUTED, user_ref=3, quantity=440, px=s, match=4),
        ):  # fmt: skip
            house.venue.send(message)
        house.settle()
        # The place of the first.
        house.session[gateway_state.NEXT_REF] = 65
        house.new(px=p, qty=7, strategy=5)
        house.settle()
    finally:
        sys.settrace(None)
    assert allowed.seen == allowed.lines
    assert allowed.broken > 0
    assert [order.user_ref for order in read(house).orders] == [65]


# They leave the table alone, and are most of what a turn runs.
QUIET = {
    "step",
    "take_in",
    "receive",
    "make_space",
    "packet_bytes",
    "watch_for_sweep",
    "tell_swept",
    "tell_drained",
    "attend",
    "keep_alive",
}


@pytest.mark.skipif(PLAIN, reason="it is run as it is")
def test_no_reader_sees_a_line_that_never_was_wherever_the_gateway_stops() -> None:
    finished = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", f"{Path(__file__)}::test_line_by_line"],
        env={**os.environ, "NUMBA_DISABLE_JIT": "1"}, cwd=ROOT, capture_output=True, text=True, timeout=120,
    )  # fmt: skip
    assert (finished.returncode, finished.stdout[:1]) == (0, "."), finished.stdout


def terms(order_id: int) -> dict[str, int]:
    """What an order with this number is."""
    return {
        "side": BUY if order_id % 3 else SELL, "instrument": AAPL if order_id % 2 else MSFT, "px": PX - order_id % 89,
        "qty": 100 + order_id % 53, "strategy": order_id % STRATEGIES_MAX,
    }  # fmt: skip


def test_a_reader_beside_a_gateway_at_full_speed_sees_whole_lines(houses: Callable[..., House]) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    house = houses(orders_max=64, executions_max=1 << 20)
    wanted = 30 if PLAIN else 600

    def watch() -> bool:
        lines, changed = 0, set()
        while lines < wanted or len(changed) < wanted // 20:
            for order in read(house).orders:
                if not order.whole:
                    continue
                asked = terms(order.order_id)
                side, symbol = "buy" if asked["side"] == BUY else "sell", "AAPL" if asked["instrument"] == AAPL else "MSFT"
                assert (order.side, order.symbol, order.strategy) == (side, symbol, asked["strategy"])
                assert (round(order.px * 10_000), order.open + order.executed) == (asked["px"], asked["qty"])
                lines += 1
                if order.executed:
                    changed.add((order.user_ref, order.executed))
        return True

    pid, match = in_child(watch), 0
    deadline = time.monotonic() + 60
    while os.waitid(os.P_PID, pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is None:
        assert time.monotonic() < deadline, "the reader saw too little"
        ids = [house.last_id + 1 + number for number in range(16)]
        for order_id in ids:
            house.new(**terms(order_id))
        house.turn_until(lambda: not house.orders.backlog()["gateway"], "the orders to be taken")
        first = {order_id: chance.randint(1, 99) for order_id in ids}
        rest = {order_id: terms(order_id)["qty"] - qty for order_id, qty in first.items()}
        for order_id in ids:
            asked = terms(order_id)
            house.venue.say(ouch.ACCEPTED, user_ref=order_id, quantity=asked["qty"], px=asked["px"])
        # What is executed in part stands for as long as a reader may take to come by.
        for part in (first, rest):
            executed = int(house.stats.executed)
            for order_id, qty in part.items():
                match += 1
                house.venue.say(ouch.EXECUTED, user_ref=order_id, quantity=qty, px=terms(order_id)["px"], match=match)
            house.turn_until(lambda executed=executed: house.stats.executed == executed + 16, "the executions")
        house.kept.clear()
        house.venue.heard.clear()
    assert wait_for_exit(pid) == 0


# The command.


def test_inspect_shows_what_may_be_open_by_name_and_as_json(houses: Callable[..., House]) -> None:
    house = houses()
    assert house.open_orders is not None
    name = house.open_orders.segment.name
    assert tickpath("inspect", name).stdout == "no order may be open\n"
    assert said("inspect", name) == []
    house.live(qty=300, strategy=4)
    house.new(side=SELL, instrument=MSFT, qty=1_020)
    house.settle()
    head, first, second = tickpath("inspect", name).stdout.splitlines()
    assert head.split() == ["symbol", "side", "px", "open", "executed", "state", "order_id", "user_ref", "strategy", "age"]
    # Nothing beside this board has its instance's name.
    assert first.split() == ["instrument", "3", "buy", "100.0000", "300", "0", "live", "1", "1", "4", "-"]
    assert second.split() == ["instrument", "9", "sell", "100.0000", "1,020", "0", "pending", "new", "2", "2", "0", "-"]
    assert [(line["symbol"], line["side"], line["open"], line["state"], line["whole"]) for line in said("inspect", name)] == [
        ("instrument 3", "buy", 300, "live", True), ("instrument 9", "sell", 1_020, "pending_new", True),
    ]  # fmt: skip
    assert "are for rings" in tickpath("inspect", name, "--last", "3").stderr


def test_what_a_dead_instance_left_is_shown(instance: str) -> None:
    def leave() -> bool:
        table = Board.create(f"{instance}.open_orders", OPEN_ORDER, 16)
        named = Board.create(f"{instance}.instruments", INSTRUMENT, 16)
        line = np.zeros(1, INSTRUMENT)
        line["symbol"] = pack_symbol("MSFT")
        named.write(7, line[0])
        written(table, 17, state=ORDER_STATE["unknown"])
        return True

    assert wait_for_exit(in_child(leave)) == 0
    try:
        row = tickpath("inspect", f"{instance}.open_orders").stdout.splitlines()[1]
        assert row.split() == ["MSFT", "buy", "100.0000", "100", "0", "unknown", "5", "17", "0", "-"]
    finally:
        assert sorted(tickpath("clean", "--instance", instance).stdout.split()).count(f"{instance}.open_orders") <= 1
    assert not list(Path("/dev/shm").glob(f"{instance}.*"))


C_READER = """
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <tickpath.h>
#include <open_orders.h>

int main(int argc, char **argv)
{
    int fd = open(argv[1], O_RDONLY);
    size_t places = (size_t)atoi(argv[2]);
    char *whole = (char *)mmap(NULL, TP_DATA_OFFSET + places * sizeof(struct tp_open_order), PROT_READ, MAP_SHARED, fd, 0);
    if (argc != 3 || whole == MAP_FAILED)
        return 1;
    for (size_t place = 0; place < places; place++) {
        struct tp_open_order first, second;
        const char *line = whole + TP_DATA_OFFSET + place * sizeof first;
        do {
            if (tp_board_read(line, &first, sizeof first) <= 0)
                break;
        } while (tp_board_read(line, &second, sizeof second) <= 0 || memcmp(&first, &second, sizeof first) != 0);
        if (first.version != 0 && first.state >= TP_ORDER_PENDING_NEW && first.state <= TP_ORDER_UNKNOWN && first.open != 0)
            printf("%" PRIu32 " %c %" PRId64 " %" PRId64 " %u\\n", first.user_ref, first.side, first.px, first.open, first.state);
    }
    return 0;
}
"""


@pytest.mark.parametrize("suffix", ["c", "cpp"])
def test_c_and_cpp_read_it(houses: Callable[..., House], tmp_path: Path, suffix: str) -> None:
    house = houses()
    assert house.open_orders is not None
    house.live(qty=300)
    house.new(side=SELL, instrument=MSFT, qty=20)
    house.settle()
    source = tmp_path / f"reader.{suffix}"
    source.write_text(C_READER)
    program = build(source, tmp_path / "reader", f"-I{ROOT / 'engine' / 'gateway'}", cc="gcc" if suffix == "c" else "g++")
    run = subprocess.run([program, f"/dev/shm/{house.open_orders.segment.name}", "64"], capture_output=True, text=True, check=True)
    assert run.stdout == f"1 B {PX} 300 2\n2 S {PX} 20 1\n"
