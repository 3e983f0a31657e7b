from engine.strategy.api import *


def on_book(ctx, params, state, quote):
    state.seen = quote.bid_px
    if params.size > 0:
        return


# says:
# no_state.py:5: in on_book: state.seen, but this file has no State class
#     state.seen = quote.bid_px
#   instead: at the top of the file
#     class Memory(State):
#         seen: int = 0
# no_state.py:6: in on_book: params.size, but this file has no Parameters class
#     if params.size > 0:
#   instead: at the top of the file
#     class Params(Parameters):
#         size: int = 0
