"""One of everything, in turn: buy, sell, replace, cancel, an IOC; `times` orders a quote."""

from engine.strategy.api import *


class Params(Parameters):
    times: Annotated[int, Meta(ge=1, le=100)] = 1
    scale: float = 1.0
    loud: bool = False
    required: int


class Memory(State):
    turn: int = 0
    first_id: int = 0
    last_id: int = -1
    cancelled: bool = False


def on_book(ctx, params, state, quote):
    for _ in range(params.times):
        one(ctx, params, state, quote)


def one(ctx, params, state, quote):
    qty = int(params.required * params.scale)
    if state.turn % 5 == 0:
        state.last_id = buy(ctx, quote.instrument, quote.bid_px, qty)
        state.first_id = state.last_id
    elif state.turn % 5 == 1:
        state.last_id = sell(ctx, quote.instrument, quote.ask_px, qty, TIF_DAY)
    elif state.turn % 5 == 2:
        state.last_id = replace(ctx, quote.instrument, state.first_id, quote.bid_px - 100, qty + 1)
    elif state.turn % 5 == 3:
        state.cancelled = cancel(ctx, quote.instrument, state.last_id)
    else:
        state.last_id = buy(ctx, quote.instrument, quote.ask_px, qty, tif=TIF_IOC)
    state.turn += 1
