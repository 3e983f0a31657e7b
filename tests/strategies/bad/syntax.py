from engine.strategy.api import *


def on_book(ctx, params, state, quote):
    if quote.bid_px > 5
        return


# says:
# syntax.py:5: this is not Python: expected ':'
#     if quote.bid_px > 5
#   instead: correct the syntax
