from engine.strategy.api import *


import math


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = math.comb(5, 2)


# says:
# not_in_compiled_math.py:13: in on_book: math.comb is not there in compiled code
#     state.n = math.comb(5, 2)
#   instead: sqrt, exp, log, floor, ceil, pow, hypot and their like are there; write the others out
