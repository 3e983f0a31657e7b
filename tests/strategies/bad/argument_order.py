from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    buy(quote.instrument, ctx, quote.bid_px, 100)


# says:
# argument_order.py:10: in on_book: buy is not given what it takes, in this order
#     buy(quote.instrument, ctx, quote.bid_px, 100)
#   instead: buy(ctx, instrument, px, qty, tif=TIF_DAY)
