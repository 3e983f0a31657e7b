from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    if quote.bid_sz > 0:
        px = quote.bid_px
    for i in range(quote.bid_sz):
        last = i
    state.n = px + last
    while True:
        other = 1
        break
    state.n += other


# says:
# local_without_value.py:14: in on_book: px may have no value here
#     state.n = px + last
#   instead: a value for px on every way to this line
# local_without_value.py:14: in on_book: last may have no value here
#     state.n = px + last
#   instead: a value for last on every way to this line
