from .helpers import f
from engine.strategy.api import *


def on_book(ctx, params, state, quote):
    return


# says:
# import_relative.py:1: imports .helpers relative to a package
#     from .helpers import f
#   instead: `import helpers`: a file beside this one
