from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    size = quote.bid_sz
    state.n = size(3)


# says:
# number_called.py:11: in on_book: a whole number is called like a function
#     state.n = size(3)
#   instead: a function of this file, of the API, or of math
