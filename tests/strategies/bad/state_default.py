from engine.strategy.api import *


class Memory(State):
    best: int = 1.5


def on_book(ctx, params, state, quote):
    return


# says:
# state_default.py:5: Memory.best=1.5: expected a whole number, got float
#     best: int = 1.5
#   instead: best: int = 0
