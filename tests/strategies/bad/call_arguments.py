from engine.strategy.api import *


def twice(x):
    return 2 * x


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    buy(ctx, quote.instrument, quote.bid_px)
    sell(ctx, quote.instrument, quote.ask_px, 1, TIF_DAY, 5)
    cancel(ctx, order=3)
    state.n = twice()


# says:
# call_arguments.py:14: in on_book: buy: missing a required argument: 'qty'
#     buy(ctx, quote.instrument, quote.bid_px)
#   instead: buy(ctx, instrument, px, qty, tif=TIF_DAY)
# call_arguments.py:15: in on_book: sell: too many positional arguments
#     sell(ctx, quote.instrument, quote.ask_px, 1, TIF_DAY, 5)
#   instead: sell(ctx, instrument, px, qty, tif=TIF_DAY)
# call_arguments.py:16: in on_book: cancel: missing a required argument: 'instrument'
#     cancel(ctx, order=3)
#   instead: cancel(ctx, instrument, order_id)
# call_arguments.py:17: in on_book: twice: missing a required argument: 'x'
#     state.n = twice()
#   instead: twice(x)
