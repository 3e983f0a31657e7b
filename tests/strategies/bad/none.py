from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    best = None
    if quote.bid_sz > 0:
        best = quote.bid_px
    state.n = best


# says:
# none.py:10: in on_book: None cannot be compiled into the trading loop
#     best = None
#   instead: 0, or another number that means nothing is there
