from engine.strategy.api import *


def on_book(ctx, params, quote):
    return


def on_trade(ctx, params, state, print):
    return


def on_report(ctx, params, state, report, more=1):
    return


async def on_timer(ctx, params, state, timer):
    return


# says:
# handler_arguments.py:4: on_book takes (ctx, params, quote): expected (ctx, params, state, quote)
#     def on_book(ctx, params, quote):
#   instead: def on_book(ctx, params, state, quote):
# handler_arguments.py:8: on_trade takes (ctx, params, state, print): expected (ctx, params, state, trade)
#     def on_trade(ctx, params, state, print):
#   instead: def on_trade(ctx, params, state, trade):
# handler_arguments.py:12: on_report takes its arguments plainly: no *, **, defaults or decorators
#     def on_report(ctx, params, state, report, more=1):
#   instead: def on_report(ctx, params, state, report):
# handler_arguments.py:16: on_timer is async
#     async def on_timer(ctx, params, state, timer):
#   instead: def on_timer(ctx, params, state, timer): events come to the handlers
