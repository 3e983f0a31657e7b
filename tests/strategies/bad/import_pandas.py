import pandas
from engine.strategy.api import *


def on_book(ctx, params, state, quote):
    return


# says:
# import_pandas.py:1: imports pandas, which a strategy cannot be compiled from
#     import pandas
#   instead: engine.strategy.api, math, numpy, or a file beside this one (pandas.py), which is compiled with it
