from engine.strategy.api import *


class Params(Parameters):
    venue: str = "X"


def on_book(ctx, params, state, quote):
    return


# says:
# params_type.py:5: Params.venue: str cannot live in a compiled record
#     venue: str = "X"
#   instead: int, float or bool, such as `venue: int = 0`
