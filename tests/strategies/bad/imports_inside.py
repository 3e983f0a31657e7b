from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    import math
    from math import sqrt
    
    state.mean = sqrt(2)


# says:
# imports_inside.py:10: in on_book: an import inside a function cannot be compiled into the trading loop
#     import math
#   instead: the import at the top of the file
# imports_inside.py:11: in on_book: an import inside a function cannot be compiled into the trading loop
#     from math import sqrt
#   instead: the import at the top of the file
