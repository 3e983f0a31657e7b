from engine.strategy.api import *


LIMITS = (1, 2)
THIRD = LIMITS[2]


def on_book(ctx, params, state, quote):
    return


# says:
# top_level_fails.py:5: IndexError: tuple index out of range
#     THIRD = LIMITS[2]
#   instead: correct it: the top of a file runs at the start
