from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def best(quote):
    if quote.bid_sz > 0:
        return quote.bid_px


def early(quote):
    if quote.bid_sz == 0:
        return
    return 1


def on_book(ctx, params, state, quote):
    state.n = best(quote) + early(quote)
    return state.n


# says:
# returns_sometimes.py:9: in best: it returns a value elsewhere, and none at its end
#     def best(quote):
#   instead: a value at every return, such as `return 0`
# returns_sometimes.py:16: in early: it returns a value elsewhere, and none here
#     return
#   instead: a value at every return, such as `return 0`
# returns_sometimes.py:22: in on_book: a handler returns nothing
#     return state.n
#   instead: `return`; what shall be remembered goes into `state`
