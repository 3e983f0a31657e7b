from engine.strategy.api import *


class Params(Parameters):
    size: int = 1


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    quote.bid_px = 1
    params.size = 2
    state.n = 1


# says:
# read_only.py:14: in on_book: quote.bid_px is read-only
#     quote.bid_px = 1
#   instead: a State field, or a local variable: records stay as they came
# read_only.py:15: in on_book: params.size is read-only
#     params.size = 2
#   instead: a State field, or a local variable: parameters stay as the config gave them
