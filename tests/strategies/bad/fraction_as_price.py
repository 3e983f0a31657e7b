from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    middle = (quote.bid_px + quote.ask_px) / 2
    buy(ctx, quote.instrument, middle, 100)


# says:
# fraction_as_price.py:11: in on_book: a price is given as a number with a fraction
#     buy(ctx, quote.instrument, middle, 100)
#   instead: a whole number: `int(...) // tick * tick` rounds down to a price step
