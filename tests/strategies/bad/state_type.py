from engine.strategy.api import *


class Memory(State):
    prices: list[int]


def on_book(ctx, params, state, quote):
    return


# says:
# state_type.py:5: Memory.prices: list cannot live in a compiled record
#     prices: list[int]
#   instead: int, float or bool, such as `prices: int = 0`
