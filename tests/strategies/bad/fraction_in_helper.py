from engine.strategy.api import *


def send(ctx, quote, order_id):
    cancel(ctx, quote.instrument, order_id)


def on_book(ctx, params, state, quote):
    send(ctx, quote, 0.5)


# says:
# fraction_in_helper.py:5: in send: an order's id is given as a number with a fraction
#     cancel(ctx, quote.instrument, order_id)
#   instead: a whole number: int(...) cuts a fraction off
