from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    px = quote.bid_px
    state.n = px.cents


# says:
# field_of_a_number.py:11: in on_book: a whole number has no cents
#     state.n = px.cents
#   instead: a field of quote, trade, report, params or state
