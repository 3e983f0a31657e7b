from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = state.mean >> 2


# says:
# shifted_fraction.py:10: in on_book: `>>` between a number with a fraction and a whole number
#     state.n = state.mean >> 2
#   instead: numbers, and whole ones for & | ^ << >>
