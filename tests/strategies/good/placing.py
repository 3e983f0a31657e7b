"""Rests one bid, looks where it stands in the venue's book, and offers once it has found itself there as it should be."""

from engine.strategy.api import *


class Memory(State):
    seen: int = 0
    order_id: int = 0
    px: int = 0
    ref_id: int = 0
    found: int = 0


def on_book(ctx, params, state, quote):
    state.seen += 1
    if state.seen < 100:
        # The venue's book is only filling.
        return
    if state.order_id == 0:
        state.px = quote.bid_px - 2 * tick_px(ctx, quote.instrument)
        state.order_id = buy(ctx, quote.instrument, state.px, 100)
    elif state.ref_id != 0 and state.found == 0:
        place = queue_ahead(ctx, quote.instrument, state.ref_id)
        best = book_best(ctx, quote.instrument)
        if place.told == TOLD and best.told == TOLD and best.bid_px >= place.px:
            ours = place.side == BUY and place.px == state.px and place.qty == 100
            if ours and place.ahead_qty + 100 <= place.level_qty and place.ahead_orders < place.level_orders:
                state.found = sell(ctx, quote.instrument, quote.ask_px + 500 * tick_px(ctx, quote.instrument), 100)


def on_report(ctx, params, state, report):
    if report.kind == ACCEPTED and report.order_id == state.order_id:
        state.ref_id = report.ref_id
