from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    name = "AAPL"
    label = f"{quote.bid_px}"
    print(quote.bid_px)
    state.n = len(str(quote.bid_px))


# says:
# text.py:10: in on_book: text ('AAPL') cannot be compiled into the trading loop
#     name = "AAPL"
#   instead: numbers: BUY, SELL, EXECUTED and their like are numbers already
# text.py:11: in on_book: an f-string cannot be compiled into the trading loop
#     label = f"{quote.bid_px}"
#   instead: numbers: text is not made while trading; reports and counters show what happened
# text.py:12: in on_book: print cannot be compiled into the trading loop
#     print(quote.bid_px)
#   instead: nothing here: printing waits for the interpreter; under NUMBA_DISABLE_JIT=1, with engine.strategy.drive, a handler may print
# text.py:13: in on_book: str cannot be compiled into the trading loop
#     state.n = len(str(quote.bid_px))
#   instead: numbers: text is not made while trading
