from engine.strategy.api import *


class One(State):
    a: int = 0


class Two(State):
    a: int = 0


def on_book(ctx, params, state, quote):
    return


# says:
# two_states.py:8: One, Two: several State classes
#     class Two(State):
#   instead: one, with all the fields
