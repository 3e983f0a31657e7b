from engine.strategy.api import *


import math

import numpy as np


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    window = np.zeros(10)
    state.mean = np.sqrt(window[0]) + math.cube(3)


# says:
# numpy_array.py:15: in on_book: numpy.zeros cannot be compiled into the trading loop
#     window = np.zeros(10)
#   instead: numpy's functions of single numbers, or math: an array would be allocated while trading
# numpy_array.py:16: in on_book: math has no cube
#     state.mean = np.sqrt(window[0]) + math.cube(3)
#   instead: a function or a number of math
