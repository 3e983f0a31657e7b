from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    ctx.words[0] = 1


# says:
# ctx_used.py:10: in on_book: ctx.words is not yours to use
#     ctx.words[0] = 1
#   instead: ctx as the first argument of buy, sell, replace, cancel, position, tick_px, lot_qty, is_valid, now_ns
