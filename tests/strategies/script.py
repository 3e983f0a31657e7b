"""A long script of events made from a seed, for running one strategy in two ways: python -m tests.strategies.script STRATEGY SEED"""

import random
import sys
from collections.abc import Iterator

from engine.layout import BOOK_STALE, BOOK_VALID, BUY
from engine.strategy.drive import (
    Buy,
    Cancel,
    Driver,
    Event,
    Order,
    Replace,
    Sell,
    accepted,
    cancelled,
    executed,
    quote,
    rejected,
    replaced,
    status,
    trade,
    wait,
)


def market(seed: int, events: int) -> Iterator[Event]:
    """Quotes, trades, waits and gaps around a wandering price."""
    random_number = random.Random(seed)
    middle = 1_000_000
    for _ in range(events):
        middle += random_number.choice((-300, -100, -50, 0, 0, 50, 100, 300))
        spread = random_number.choice((100, 200, 500))
        kind = random_number.random()
        if kind < 0.8:
            bid_px = (middle - spread // 2) // 100 * 100
            yield quote(bid_px, bid_px + spread, random_number.choice((0, 1, 100, 700)), random_number.choice((1, 100, 900)))
        elif kind < 0.9:
            yield trade(middle, 100, BUY)
        elif kind < 0.95:
            yield wait(random_number.choice((1, 150)))
        else:
            yield status(random_number.choice((BOOK_VALID, BOOK_STALE)))


def answer(random_number: random.Random, order: Order) -> list[Event]:
    """What a venue might say to an order: a model only of the words, not of a market."""
    if isinstance(order, Cancel):
        return random_number.choice(([cancelled(order.order_id)], [rejected(order.order_id)]))
    if random_number.random() < 0.1:
        return [rejected(order.order_id)]
    first = replaced(order.order_id) if isinstance(order, Replace) else accepted(order.order_id)
    return [first, *random_number.choice(([], [], [executed(order.order_id, 1)], [executed(order.order_id)]))]


def play(strategy: str, seed: int, events: int = 400, **options: object) -> list[Order]:
    """The orders of a strategy over a seeded market, with a seeded venue."""
    random_number = random.Random(seed)
    driver = Driver(strategy, **options)  # type: ignore[arg-type]
    for event in market(seed, events):
        pending = driver.happen(event)
        for _ in range(3):
            pending = [more for order in pending for reply in answer(random_number, order) for more in driver.happen(reply)]
    return driver.orders


if __name__ == "__main__":
    for line in play(sys.argv[1], int(sys.argv[2])):
        assert isinstance(line, Buy | Sell | Replace | Cancel)
        print(line)
