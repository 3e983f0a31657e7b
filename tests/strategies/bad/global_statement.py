from engine.strategy.api import *


LAST = 0


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    global LAST
    LAST = quote.bid_px


# says:
# global_statement.py:13: in on_book: global cannot be compiled into the trading loop
#     global LAST
#   instead: a State field: what a strategy remembers lives there, for each instrument
