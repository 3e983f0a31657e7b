from engine.strategy.api import *


class Side(State):
    px: int = 0


class Memory(State):
    bid: Side
    ask: Side


def on_book(ctx, params, state, quote):
    state.bid = state.ask
    state.ask.pxx = 1
    order = state.bid if quote.bid_sz > 0 else state.ask
    order.price = 5


# says:
# record_replaced.py:14: in on_book: state.bid is a record of its own
#     state.bid = state.ask
#   instead: its fields one by one: state.bid.px = ...
# record_replaced.py:15: in on_book: state.ask has no field pxx; did you mean px?
#     state.ask.pxx = 1
#   instead: one of px, or add `pxx: int = 0` to the State class
# record_replaced.py:17: in on_book: order has no field price
#     order.price = 5
#   instead: one of px, or add `price: int = 0` to the State class
