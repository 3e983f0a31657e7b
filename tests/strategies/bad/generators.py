from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def helper(x):
    yield x


async def later(x):
    await x


def on_book(ctx, params, state, quote):
    state.n = helper(3)
    state.mean = later(1)


# says:
# generators.py:10: in helper: yield cannot be compiled into the trading loop
#     yield x
#   instead: a plain function that returns its value; keep what it must remember in State
# generators.py:19: in on_book: the async function later cannot be compiled into the trading loop
#     state.mean = later(1)
#   instead: a plain function: events come to the handlers
