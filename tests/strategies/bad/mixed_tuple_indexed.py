from engine.strategy.api import *


WEIGHTS = (1, 2.5, 3)


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.mean = WEIGHTS[state.n]


# says:
# mixed_tuple_indexed.py:13: in on_book: a tuple of 3 cannot be indexed by a whole number
#     state.mean = WEIGHTS[state.n]
#   instead: a number known when the file is written (W[2]), or a loop over it (for w in W)
