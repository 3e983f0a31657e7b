from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    try:
        state.n = 1 // quote.bid_sz
    except ZeroDivisionError:
        state.n = 0


# says:
# try_except.py:10: in on_book: try/except cannot be compiled into the trading loop
#     try:
#   instead: test before you act (`if qty > 0:`), and return early; the order functions never raise, they return 0
