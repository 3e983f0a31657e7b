"""Asks everything there is to ask of a book, at every event that lets it, and keeps the answers."""

from engine.strategy.api import *


class Params(Parameters):
    side: int = BUY
    qty: int = 100
    levels: int = 3
    ref_id: int = 0


class Memory(State):
    asked: int = 0
    best_told: int = 1
    bid_px: int = 0
    bid_qty: int = 0
    bid_orders: int = 0
    ask_px: int = 0
    ask_qty: int = 0
    ask_orders: int = 0
    there: int = 0
    last_px: int = 0
    last_qty: int = 0
    last_orders: int = 0
    beyond_px: int = 0
    before_px: int = 0
    queue_told: int = 1
    ahead_qty: int = 0
    ahead_orders: int = 0
    level_qty: int = 0
    mid_told: int = 1
    px_milli: int = 0
    sweep_told: int = 1
    average_px: int = 0
    worst_px: int = 0
    missing_qty: int = 0
    ref_id: int = 0


def on_book(ctx, params, state, quote):
    state.asked += 1
    best = book_best(ctx, quote.instrument)
    state.best_told = best.told
    state.bid_px, state.bid_qty, state.bid_orders = best.bid_px, best.bid_qty, best.bid_orders
    state.ask_px, state.ask_qty, state.ask_orders = best.ask_px, best.ask_qty, best.ask_orders
    state.there = book_depth(ctx, quote.instrument, params.side, params.levels)
    last = book_level(ctx, state.there - 1)
    state.last_px, state.last_qty, state.last_orders = last.px, last.qty, last.orders
    state.beyond_px = book_level(ctx, state.there).px
    state.before_px = book_level(ctx, -1).px
    place = queue_ahead(ctx, quote.instrument, params.ref_id)
    state.queue_told = place.told
    state.ahead_qty, state.ahead_orders, state.level_qty = place.ahead_qty, place.ahead_orders, place.level_qty
    mid = weighted_mid(ctx, quote.instrument)
    state.mid_told, state.px_milli = mid.told, mid.px_milli
    cost = sweep_cost(ctx, quote.instrument, params.side, params.qty)
    state.sweep_told, state.average_px, state.worst_px, state.missing_qty = cost.told, cost.average_px, cost.worst_px, cost.missing_qty


def on_report(ctx, params, state, report):
    if report.kind == ACCEPTED:
        state.ref_id = report.ref_id
