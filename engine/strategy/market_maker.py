"""A market maker on every symbol it is given: one bid and one offer around the middle, leaning against what it holds.

Holding stock lowers both quotes and being short raises them, so the side that brings the position home is the nearer one. It never
crosses the spread, stops quoting the side that would pass position_max, and has nothing in a book that is not valid.
"""

import math

from engine.strategy.api import (
    ACCEPTED,
    BOOK_VALID,
    BUY,
    CANCELLED,
    EXECUTED,
    REJECTED,
    REPLACED,
    SELL,
    Annotated,
    Meta,
    Parameters,
    State,
    buy,
    cancel,
    now_ns,
    position,
    replace,
    sell,
    tick_px,
)


class Params(Parameters):
    """Set under [strategy.params]."""

    size: Annotated[int, Meta(ge=1)] = 100  # shares on each side
    edge_ticks: Annotated[float, Meta(ge=0)] = 0.5  # from the leaning middle to each quote; half a tick joins a market one tick wide
    skew_ticks: Annotated[float, Meta(ge=0)] = 0.5  # how far the middle leans for each `size` held
    position_max: Annotated[int, Meta(ge=1)] = 1000  # long or short
    requote_ticks: Annotated[int, Meta(ge=1)] = 1  # an order stays where it is until its price is off by so much
    backoff_ms: Annotated[int, Meta(ge=0)] = 100  # after a rejection, ask nothing new of that side for so long


class Side(State):
    """Our one order on a side. While id and live differ a request is under way, and nothing else is asked of the side."""

    id: int = 0  # the order asked for last, 0 for none
    live: int = 0  # the order that the venue has confirmed, 0 for none
    px: int = 0  # the price asked for last, GOING once the order has been told to go
    open: int = 0  # what is open of `live`
    quiet_until_ns: int = 0


class Memory(State):
    bid: Side
    ask: Side


GOING = 0
UNKNOWN = -1


def on_book(ctx, params, state, quote):
    instrument, tick = quote.instrument, tick_px(ctx, quote.instrument)
    if quote.bid_sz == 0 or quote.ask_sz == 0:
        pull(ctx, instrument, state.bid)
        pull(ctx, instrument, state.ask)
        return
    held = position(ctx, instrument)
    middle = (quote.bid_px + quote.ask_px) / 2 - params.skew_ticks * tick * held / params.size
    edge = params.edge_ticks * tick
    # Bids round down and offers up, away from each other, and neither reaches the other side of the market.
    bid_px = min(math.floor((middle - edge) / tick) * tick, quote.ask_px - tick)
    ask_px = max(math.ceil((middle + edge) / tick) * tick, quote.bid_px + tick)
    bid_qty = min(params.size, params.position_max - held) if bid_px > 0 else 0
    ask_qty = min(params.size, params.position_max + held)
    settle(ctx, params, instrument, BUY, state.bid, bid_px, bid_qty)
    settle(ctx, params, instrument, SELL, state.ask, ask_px, ask_qty)


def settle(ctx, params, instrument, side, order, px, qty):
    """Bring a side to `qty` at `px`, one request at a time. A request that does not leave is made again at the next quote."""
    if qty <= 0:
        pull(ctx, instrument, order)
    elif now_ns(ctx) < order.quiet_until_ns:
        return
    elif order.id == 0:
        order.id = buy(ctx, instrument, px, qty) if side == BUY else sell(ctx, instrument, px, qty)
        order.px = px
    elif order.id == order.live and order.px != GOING:
        moved = abs(px - order.px) >= params.requote_ticks * tick_px(ctx, instrument)
        if moved or order.open > qty:
            new_id = replace(ctx, instrument, order.id, px, qty)
            if new_id != 0:
                order.id = new_id
                order.px = px


def pull(ctx, instrument, order):
    """Tell a side's order to go. With a replace under way both are told, as either may turn out to be the one that stands."""
    if order.id != 0 and order.px != GOING:
        if order.live != 0 and order.live != order.id:
            cancel(ctx, instrument, order.live)
        if cancel(ctx, instrument, order.id):
            order.px = GOING


def on_report(ctx, params, state, report):
    order = state.bid if report.side == BUY else state.ask
    if report.kind == ACCEPTED or report.kind == REPLACED:
        if report.order_id == order.id:
            order.live = order.id
            order.open = report.qty
    elif report.kind == EXECUTED or report.kind == CANCELLED:
        if report.order_id == order.live:
            order.open -= report.qty
            if order.open <= 0:
                forget_live(order)
    elif report.kind == REJECTED:
        rejected(ctx, params, report, order)


def rejected(ctx, params, report, order):
    """A request was refused. A replace may be refused because its order was filled meanwhile: then nothing is left of either."""
    if report.qty > 0:
        # Only a cancel was refused, the order stands: ask again at the next quote.
        order.px = UNKNOWN
    elif report.order_id == order.live:
        # A cancel came too late for an order that is gone.
        forget_live(order)
    elif report.order_id == order.id:
        # What was to be replaced may still stand, at a price that is no longer wanted.
        order.id = order.live
        order.quiet_until_ns = now_ns(ctx) + params.backoff_ms * 1_000_000
        pull(ctx, report.instrument, order)


def forget_live(order):
    """The confirmed order is gone. A replace of it that is still under way will be rejected, and is waited for."""
    if order.id == order.live:
        order.id = 0
    order.live = 0


def on_status(ctx, params, state, status):
    if status.flags != BOOK_VALID:
        pull(ctx, status.instrument, state.bid)
        pull(ctx, status.instrument, state.ask)
