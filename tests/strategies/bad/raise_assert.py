from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    assert quote.bid_sz > 0
    raise ValueError


# says:
# raise_assert.py:10: in on_book: assert cannot be compiled into the trading loop
#     assert quote.bid_sz > 0
#   instead: test before you act (`if qty > 0:`), and return early; the order functions never raise, they return 0
# raise_assert.py:11: in on_book: raise cannot be compiled into the trading loop
#     raise ValueError
#   instead: test before you act (`if qty > 0:`), and return early; the order functions never raise, they return 0
