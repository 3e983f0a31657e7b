from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    a = {1: 2}
    b = {1, 2}
    c = [1, 2]
    d = [x for x in c]
    e = {x: 1 for x in c}
    f = {x for x in c}
    state.n = sum(x for x in c)


# says:
# containers.py:10: in on_book: a dict {...} cannot be compiled into the trading loop
#     a = {1: 2}
#   instead: numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length
# containers.py:11: in on_book: a set {...} cannot be compiled into the trading loop
#     b = {1, 2}
#   instead: numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length
# containers.py:12: in on_book: a list [...] cannot be compiled into the trading loop
#     c = [1, 2]
#   instead: numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length
# containers.py:13: in on_book: a list comprehension cannot be compiled into the trading loop
#     d = [x for x in c]
#   instead: a `for` loop that adds up what you need, or a tuple of fixed length
# containers.py:14: in on_book: a dict comprehension cannot be compiled into the trading loop
#     e = {x: 1 for x in c}
#   instead: numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length
# containers.py:15: in on_book: a set comprehension cannot be compiled into the trading loop
#     f = {x for x in c}
#   instead: numbers in the fields of your State class (one record for each instrument), or a tuple of fixed length
# containers.py:16: in on_book: sum cannot be compiled into the trading loop
#     state.n = sum(x for x in c)
#   instead: a `for` loop
# containers.py:16: in on_book: a generator expression cannot be compiled into the trading loop
#     state.n = sum(x for x in c)
#   instead: a `for` loop that adds up what you need
