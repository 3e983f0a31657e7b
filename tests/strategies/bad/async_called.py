from engine.strategy.api import *


class Memory(State):
    n: int = 0


async def later(x):
    return x


def on_book(ctx, params, state, quote):
    state.n = later(quote.bid_px)


# says:
# async_called.py:13: in on_book: the async function later cannot be compiled into the trading loop
#     state.n = later(quote.bid_px)
#   instead: a plain function: events come to the handlers
