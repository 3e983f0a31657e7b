from engine.strategy.api import *


def on_book(ctx, params, state, quote):
    return


def on_book(ctx, params, state, quote):
    return


# says:
# handler_twice.py:8: on_book is defined a second time
#     def on_book(ctx, params, state, quote):
#   instead: one: Python would keep the last and forget the first
