from engine.strategy.api import *


from numpy import vectorize


@vectorize
def on_book(ctx, params, state, quote):
    return


# says:
# handler_decorated.py:8: on_book takes its arguments plainly: no *, **, defaults or decorators
#     def on_book(ctx, params, state, quote):
#   instead: def on_book(ctx, params, state, quote):
