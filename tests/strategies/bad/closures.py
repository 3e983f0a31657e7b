from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    f = lambda x: x + 1
    
    def g(x):
        return x
    
    state.n = g(1)


# says:
# closures.py:10: in on_book: lambda cannot be compiled into the trading loop
#     f = lambda x: x + 1
#   instead: an `if` or a loop in a plain function at the top of the file
# closures.py:12: in on_book: a function inside a function cannot be compiled into the trading loop
#     def g(x):
#   instead: a plain function at the top of the file
