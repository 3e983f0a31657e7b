from engine.strategy.api import *


WEIGHTS = (1, 2, 3)


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = WEIGHTS[state.n] + 2**state.n
    for i in range(0, 10, state.n):
        state.mean += i


# says:
# index_can_fail.py:13: in on_book: WEIGHTS[state.n] fails where the index is outside the tuple
#     state.n = WEIGHTS[state.n] + 2**state.n
#   instead: a loop over the tuple, or if and elif
# index_can_fail.py:13: in on_book: 2 ** state.n fails for 0 and a negative exponent
#     state.n = WEIGHTS[state.n] + 2**state.n
#   instead: math.pow, or the multiplication or division written out
# index_can_fail.py:14: in on_book: range(0, 10, state.n) fails where the step is 0
#     for i in range(0, 10, state.n):
#   instead: a step that is a number written out
