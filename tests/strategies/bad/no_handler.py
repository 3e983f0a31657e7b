from engine.strategy.api import *


def helper(x):
    return x


# says:
# no_handler.py: there is no handler in it
#   instead: at least one function, such as def on_book(ctx, params, state, quote):
