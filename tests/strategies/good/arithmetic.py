"""The arithmetic on which plain Python and compiled code could differ: small unsigned fields, negatives, fractions, floors."""

import math

from engine.strategy.api import *

WEIGHTS = (0.5, 0.25, 0.125)


class Memory(State):
    total: int = 0
    mean: float = 0.0
    odd: bool = False
    last_id: int = 0


def on_book(ctx, params, state, quote):
    weighted = 0.0
    for weight in WEIGHTS:
        weighted += weight * (quote.bid_sz - quote.ask_sz)
    state.total += quote.instrument * 1_000_000 - quote.bid_sz * 3 // 7 + -quote.ask_sz // 5 % 11
    state.mean = (state.mean * 9 + weighted + math.sqrt(abs(weighted)) + quote.bid_px / 3) / 10
    state.odd = state.total & 1 == 1
    lean = math.floor(state.mean) % 700 if state.odd else int(-state.mean) // 7 % 300
    state.last_id = buy(ctx, quote.instrument, quote.bid_px - lean, 1 + abs(state.total) % 100)


def on_report(ctx, params, state, report):
    gap = report.order_id - state.last_id
    state.total -= gap * report.side + report.qty
    if gap < 0:
        replace(ctx, report.instrument, report.order_id, report.px - 100, report.qty + 1)
