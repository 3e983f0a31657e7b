from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    for field in quote:
        state.n += 1


# says:
# record_looped_over.py:10: in on_book: the record `quote` cannot be looped over
#     for field in quote:
#   instead: range(...), or a tuple
