from engine.strategy.api import *


class Params(Parameters):
    sizes: int = 1


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.m = quote.bidpx
    if state.n > quote.price or params.size:
        state.n = 1


# says:
# unknown_field.py:14: in on_book: state has no field m
#     state.m = quote.bidpx
#   instead: one of n, mean, or add `m: int = 0` to the State class
# unknown_field.py:14: in on_book: quote has no field bidpx; did you mean bid_px?
#     state.m = quote.bidpx
#   instead: one of origin_tsc, ts_ns, kind, flags, instrument, bid_px, bid_sz, ask_px, ask_sz
# unknown_field.py:15: in on_book: quote has no field price
#     if state.n > quote.price or params.size:
#   instead: one of origin_tsc, ts_ns, kind, flags, instrument, bid_px, bid_sz, ask_px, ask_sz
# unknown_field.py:15: in on_book: params has no field size; did you mean sizes?
#     if state.n > quote.price or params.size:
#   instead: one of sizes, or add `size: int = 0` to the Parameters class
