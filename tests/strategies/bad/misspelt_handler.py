from engine.strategy.api import *


def on_books(ctx, params, state, quote):
    return


def on_tick(ctx, params, state, quote):
    return


def on_fill(ctx):
    return


# says:
# misspelt_handler.py:4: on_books is not a handler: did you mean on_book?
#     def on_books(ctx, params, state, quote):
#   instead: on_book, or a name that does not begin with on_ if it is no handler
# misspelt_handler.py:8: on_tick is not a handler: did you mean on_book?
#     def on_tick(ctx, params, state, quote):
#   instead: on_book, or a name that does not begin with on_ if it is no handler
# misspelt_handler.py:12: on_fill is not a handler: did you mean on_report?
#     def on_fill(ctx):
#   instead: on_report, or a name that does not begin with on_ if it is no handler
