from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def deeper(n):
    return deeper(n - 1)


def on_book(ctx, params, state, quote):
    state.n = deeper(3)


# says:
# endless_recursion.py:10: in deeper: a function calls itself without end
#     return deeper(n - 1)
#   instead: a loop, or a return before it calls itself
