from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    sell(ctx, quote.instrument, quote.ask_px, quote.ask_sz * 0.1)


# says:
# fraction_as_quantity.py:10: in on_book: a quantity is given as a number with a fraction
#     sell(ctx, quote.instrument, quote.ask_px, quote.ask_sz * 0.1)
#   instead: a whole number: int(...) cuts a fraction off
