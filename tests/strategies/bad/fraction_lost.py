from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = (quote.bid_px + quote.ask_px) / 2
    state.n += 1
    state.mean = 7


# says:
# fraction_lost.py:10: in on_book: a number with a fraction is put into n, which holds whole numbers
#     state.n = (quote.bid_px + quote.ask_px) / 2
#   instead: `n: float` where it is declared, or int(...) to cut the fraction off
