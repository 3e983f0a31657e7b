from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    match quote.bid_sz:
        case 0:
            state.n = 1
    x = 1
    del x


# says:
# match_and_del.py:10: in on_book: match cannot be compiled into the trading loop
#     match quote.bid_sz:
#   instead: if and elif
# match_and_del.py:14: in on_book: del cannot be compiled into the trading loop
#     del x
#   instead: an assignment of 0
