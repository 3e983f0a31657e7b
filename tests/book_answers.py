"""What a book answers, worked out from a dict of its orders: the independent side of tests of queries."""

from fractions import Fraction

from engine.layout import BUY, SELL

# ref -> (side, px, qty) of one instrument, in the order of arrival.
Orders = dict[int, tuple[int, int, int]]


def levels(orders: Orders, side: int) -> list[tuple[int, int, int]]:
    """(px, qty, orders), best first."""
    found: dict[int, list[int]] = {}
    for which, px, qty in orders.values():
        if which == side:
            found.setdefault(px, []).append(qty)
    return [(px, sum(found[px]), len(found[px])) for px in sorted(found, reverse=side == BUY)]


def best(orders: Orders) -> tuple[int, ...]:
    return (*(levels(orders, BUY) or [(0, 0, 0)])[0], *(levels(orders, SELL) or [(0, 0, 0)])[0])


def queue(orders: Orders, ref: int) -> tuple[int, ...]:
    side, px, qty = orders[ref]
    there = [(other, size) for other, (which, at, size) in orders.items() if (which, at) == (side, px)]
    ahead = [size for _, size in there[: [other for other, _ in there].index(ref)]]
    return side, px, qty, sum(ahead), len(ahead), sum(size for _, size in there), len(there)


def weighted_mid_milli(orders: Orders) -> int:
    bid_px, bid_qty, _, ask_px, ask_qty, _ = best(orders)
    return int(1000 * Fraction(bid_px * ask_qty + ask_px * bid_qty, bid_qty + ask_qty) // 1)


def sweep(orders: Orders, side: int, qty: int) -> tuple[int, ...]:
    """Share by share, as the definition has it."""
    shares = [(px, at) for at, (px, there, _) in enumerate(levels(orders, BUY + SELL - side)) for _ in range(there)][:qty]
    cost = sum(px for px, _ in shares)
    if not shares:
        return 0, qty, 0, 0, 0, 0
    exact = Fraction(cost, len(shares))
    average = -(-exact.numerator // exact.denominator) if side == BUY else exact.numerator // exact.denominator
    return len(shares), qty - len(shares), cost, average, shares[-1][0], shares[-1][1] + 1
