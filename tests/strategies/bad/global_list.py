from engine.strategy.api import *


LEVELS = [1, 2, 3]
NAMES = {"a": 1}


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = LEVELS[0] + len(NAMES)


# says:
# global_list.py:14: in on_book: LEVELS, a list at the top of the file, cannot be compiled into the trading loop
#     state.n = LEVELS[0] + len(NAMES)
#   instead: a number or a tuple of numbers there, or parameters in the config
# global_list.py:14: in on_book: NAMES, a dict at the top of the file, cannot be compiled into the trading loop
#     state.n = LEVELS[0] + len(NAMES)
#   instead: a number or a tuple of numbers there, or parameters in the config
