from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    pair = (1, 2)
    if quote.bid_sz > 5:
        pair = (1, 2, 3)
    state.n = pair[0]


# says:
# two_kinds.py:13: in on_book: pair is a tuple of 2 on one way here and a tuple of 3 on another
#     state.n = pair[0]
#   instead: one kind of value for pair on every way
