from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = (1, 2)


# says:
# tuple_stored.py:10: in on_book: a tuple of 2 is put where a whole number belongs
#     state.n = (1, 2)
#   instead: a value of the kind that the field was declared with
