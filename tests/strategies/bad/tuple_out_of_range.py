from engine.strategy.api import *


WEIGHTS = (1, 2, 3)


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = WEIGHTS[5]


# says:
# tuple_out_of_range.py:13: in on_book: the index is outside the tuple
#     state.n = WEIGHTS[5]
#   instead: an index from 0 to its length less 1
