from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def helper(qty):
    qty = qty + 1


def on_book(ctx, params, state, quote):
    state.n = helper(quote.bid_sz) + 1


# says:
# nothing_added.py:14: in on_book: `+` between nothing and a whole number
#     state.n = helper(quote.bid_sz) + 1
#   instead: a function that returns a number on every way
