from engine.strategy.api import *


class Memory(State):
    n: int = 0
    mean: float = 0.0


def on_book(ctx, params, state, quote):
    state.n = midle(quote) + quot.bid_px
    by(ctx, quote.instrument, quote.bid_px, 1)
    os.remove(1)


# says:
# undefined_name.py:10: in on_book: midle is not defined
#     state.n = midle(quote) + quot.bid_px
#   instead: a name of this file, of `from engine.strategy.api import *`, or of math
# undefined_name.py:10: in on_book: quot is not defined; did you mean quote?
#     state.n = midle(quote) + quot.bid_px
#   instead: a name of this file, of `from engine.strategy.api import *`, or of math
# undefined_name.py:11: in on_book: by is not defined; did you mean buy?
#     by(ctx, quote.instrument, quote.bid_px, 1)
#   instead: a name of this file, of `from engine.strategy.api import *`, or of math
# undefined_name.py:12: in on_book: os is not defined
#     os.remove(1)
#   instead: a name of this file, of `from engine.strategy.api import *`, or of math
