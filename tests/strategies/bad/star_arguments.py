from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def helper(*values):
    return values[0]


def named(**values):
    return 1


def on_book(ctx, params, state, quote):
    state.n = helper(1) + named(a=1)
    more = (1, 2)
    buy(ctx, quote.instrument, *more)


# says:
# star_arguments.py:9: in helper: *args and **kwargs cannot be compiled into the trading loop
#     def helper(*values):
#   instead: each argument by its name
# star_arguments.py:13: in named: *args and **kwargs cannot be compiled into the trading loop
#     def named(**values):
#   instead: each argument by its name
# star_arguments.py:20: in on_book: *arguments cannot be compiled into the trading loop
#     buy(ctx, quote.instrument, *more)
#   instead: each argument by itself
