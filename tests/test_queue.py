"""The gateway's queue against four deques, and its token bucket against one in exact fractions."""

import random
from collections import deque
from fractions import Fraction

import numpy as np
import pytest
from numba import config

from engine.gateway.hot.pacing import PACE_LEVEL, TOKEN, fill_pace, has_token, spend
from engine.gateway.hot.queue import LANES, NOWHERE, WAITING, enqueue, leave, most_urgent, place_waiting
from engine.gateway.waiting import CANCEL_PLACES, make_pace, make_queue
from engine.layout import MSG_CANCEL, MSG_NEW, MSG_REPLACE, ORDER

PLAIN = bool(config.DISABLE_JIT)
STEPS = 400 if PLAIN else 4_000
KINDS = (MSG_NEW, MSG_REPLACE, MSG_CANCEL)


class ModelQueue:
    """Four deques of places, and what is at each: (order id, mark, is it a cancel)."""

    def __init__(self, orders_max: int, ids: int) -> None:
        self.orders_max, self.ids = orders_max, ids
        self.lanes: list[deque[int]] = [deque() for _ in range(LANES)]
        self.orders: dict[int, tuple[int, int, bool]] = {}

    def takes(self, order_id: int, cancel: bool) -> bool:
        if cancel:
            return len(self.orders) < self.orders_max + CANCEL_PLACES
        known = {number % self.ids for number, _, is_cancel in self.orders.values() if not is_cancel}
        return len(self.orders) < self.orders_max and order_id % self.ids not in known

    def enter(self, place: int, lane: int, order: tuple[int, int, bool]) -> None:
        assert 0 <= place < self.orders_max + CANCEL_PLACES and place not in self.orders
        self.lanes[lane].append(place)
        self.orders[place] = order

    def leave(self, place: int) -> tuple[int, int]:
        next(lane for lane in self.lanes if place in lane).remove(place)
        return self.orders.pop(place)[:2]

    def most_urgent(self) -> int:
        return next((lane[0] for lane in self.lanes if lane), NOWHERE)

    def place_of(self, order_id: int) -> int:
        return next((place for place, (number, _, cancel) in self.orders.items() if number == order_id and not cancel), NOWHERE)


@pytest.mark.parametrize("seed", range(4))
def test_the_queue_is_four_deques_with_places_and_an_index(seed: int) -> None:
    chance = random.Random(seed)
    orders_max = chance.choice((1, 2, 7, 32))
    queue = make_queue(orders_max)
    model = ModelQueue(orders_max, len(queue.by_id))
    order = np.zeros(1, ORDER).view(np.recarray)
    full = out = 0
    for step in range(STEPS):
        what = chance.random()
        if what < 0.55:
            lane, order_id, kind = chance.randrange(LANES), chance.randrange(1, 4 * len(queue.by_id)), chance.choice(KINDS)
            order[0].order_id, order[0].px, order[0].kind = order_id, step, kind
            place = enqueue(queue, order[0], lane, step)
            if model.takes(order_id, kind == MSG_CANCEL):
                model.enter(place, lane, (order_id, step, kind == MSG_CANCEL))
                assert queue.links[place].entered_tsc == step and queue.links[place].lane == lane
            else:
                assert place == NOWHERE
                full += 1
        elif what < 0.9:
            anywhere = chance.random() < 0.3 and model.orders
            place = chance.choice(list(model.orders)) if anywhere else most_urgent(queue)
            if place != NOWHERE:
                assert model.leave(place) == (queue.orders[place].order_id, queue.orders[place].px)
                leave(queue, place)
                out += 1
        else:
            wanted = chance.choice([number for number, _, _ in model.orders.values()] or [1]) + chance.choice((0, 0, 1, len(queue.by_id)))
            assert place_waiting(queue, wanted) == model.place_of(wanted)
        assert queue.words[WAITING] == len(model.orders)
        assert most_urgent(queue) == model.most_urgent()
    assert full > 10 and out > STEPS // 10


def test_places_are_kept_for_cancels() -> None:
    queue = make_queue(2)
    order = np.zeros(1, ORDER).view(np.recarray)
    order[0].kind = MSG_NEW
    for order[0].order_id in (1, 2):
        assert enqueue(queue, order[0], LANES - 1, 0) != NOWHERE
    order[0].order_id = 3
    assert enqueue(queue, order[0], 0, 0) == NOWHERE
    order[0].kind = MSG_CANCEL
    for _ in range(CANCEL_PLACES):
        assert enqueue(queue, order[0], 0, 0) != NOWHERE
    assert enqueue(queue, order[0], 0, 0) == NOWHERE


def test_a_cancel_that_leaves_takes_nothing_else_out_of_the_index() -> None:
    """Its number leads to the order that it is about, or to one that shares its entry."""
    queue = make_queue(3)
    order = np.zeros(1, ORDER).view(np.recarray)
    order[0].order_id, order[0].kind = 5, MSG_NEW
    new = enqueue(queue, order[0], LANES - 1, 0)
    order[0].kind = MSG_CANCEL
    for order[0].order_id in (5, 5 + len(queue.by_id)):
        leave(queue, enqueue(queue, order[0], 0, 0))
        assert place_waiting(queue, 5) == new


def test_what_left_the_queue_has_left_the_index() -> None:
    queue = make_queue(3)
    order = np.zeros(1, ORDER).view(np.recarray)
    order[0].kind = MSG_NEW
    for order_id in range(1, 200):
        order[0].order_id = order_id
        place = enqueue(queue, order[0], LANES - 1, 0)
        assert place_waiting(queue, order_id) == place
        leave(queue, place)
    assert not queue.by_id.any()


class ModelBucket:
    """A bucket in fractions of a message."""

    def __init__(self, per_s: int, burst: int) -> None:
        self.per_s, self.burst = per_s, Fraction(burst)
        self.level, self.seen_ns = Fraction(burst), 0

    def fill(self, now_ns: int) -> None:
        if now_ns > self.seen_ns:
            self.level = min(self.burst, self.level + Fraction((now_ns - self.seen_ns) * self.per_s, 10**9))
            self.seen_ns = now_ns


@pytest.mark.parametrize("seed", range(6))
def test_the_bucket_is_exact(seed: int) -> None:
    chance = random.Random(seed)
    per_s, burst = chance.choice((1, 7, 100, 33_333, 10**6, 10**9)), chance.choice((1, 2, 50, 10**9))
    pace, model = make_pace(per_s, burst), ModelBucket(per_s, burst)
    now_ns = chance.choice((0, 1_700_000_000 * 10**9))
    held = 0
    for _ in range(STEPS):
        now_ns += chance.choice(
            (0, 1, 1, 10**9 // per_s, chance.randrange(3 * 10**9 // per_s + 2), 10**18 if chance.random() < 0.01 else 5, -3)
        )
        fill_pace(pace, now_ns)
        model.fill(now_ns)
        assert Fraction(int(pace[PACE_LEVEL]), TOKEN) == model.level
        assert bool(has_token(pace)) == (model.level >= 1)
        cancel = chance.random() < 0.3
        for _ in range(chance.choice((1, 1, min(burst, 60)))):
            if cancel or has_token(pace):
                spend(pace, 1)
                model.level = max(model.level - 1, Fraction(-max(per_s, burst)))
            else:
                held += 1
        assert Fraction(int(pace[PACE_LEVEL]), TOKEN) == model.level
    assert held or burst == 10**9


def test_no_pace_holds_nothing_and_counts_nothing() -> None:
    pace = make_pace(0, 1)
    before = pace.tolist()
    for now_ns in range(0, 1_000, 100):
        fill_pace(pace, now_ns)
        assert has_token(pace)
        spend(pace, 1)
    assert pace.tolist() == before


@pytest.mark.parametrize("per_s, burst, most", [(1, 1, 1), (10, 3, 10), (3, 10, 10), (10**9, 1, 10**9), (1, 10**9, 10**9)])
def test_a_debt_ends_at_a_seconds_messages_or_a_bursts(per_s: int, burst: int, most: int) -> None:
    """However much is cancelled, an order follows once that is paid back, and not a nanosecond before."""
    pace = make_pace(per_s, burst)
    for _ in range(3):
        spend(pace, 1 << 32)
        assert pace[PACE_LEVEL] == -most * TOKEN
    due_ns = -(-(most + 1) * TOKEN // per_s)
    assert due_ns - TOKEN // per_s >= TOKEN
    fill_pace(pace, due_ns - 1)
    assert not has_token(pace)
    fill_pace(pace, due_ns)
    assert has_token(pace)


@pytest.mark.parametrize("make, what", [
    (lambda: make_queue(0), "queue_max=0"), (lambda: make_queue((1 << 20) + 1), "queue_max=1048577"),
    (lambda: make_pace(-1, 1), "pace_per_s=-1"), (lambda: make_pace(5, 0), "pace_burst=0"), (lambda: make_pace(10**10, 1), "pace_per_s="),
])  # fmt: skip
def test_values_that_cannot_be_used_are_refused(make, what: str) -> None:
    with pytest.raises(ValueError, match=what):
        make()
