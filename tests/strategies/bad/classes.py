from engine.strategy.api import *


class Fancy:
    pass


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    class Quoter:
        pass
    
    
    q = Memory()
    state.n = int(Fancy())


# says:
# classes.py:14: in on_book: a class cannot be compiled into the trading loop
#     class Quoter:
#   instead: Parameters and State at the top of the file hold all there is
# classes.py:18: in on_book: making a Memory cannot be compiled into the trading loop
#     q = Memory()
#   instead: the handler's own `state` and `params`: they are made before trading begins
# classes.py:19: in on_book: the class Fancy cannot be compiled into the trading loop
#     state.n = int(Fancy())
#   instead: the handler's own `state` and `params`: they are made before trading begins
