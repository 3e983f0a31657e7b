"""Counts every call, and keeps what it was last told."""

from engine.strategy.api import *


class Memory(State):
    books: int = 0
    trades: int = 0
    levels: int = 0
    reports: int = 0
    timers: int = 0
    statuses: int = 0
    bid_px: int = 0
    ask_sz: int = 0
    match_id: int = 0
    level_qty: int = 0
    report_kind: int = 0
    position_told: int = 0
    flags: int = -1
    now: int = 0
    period_ns: int = 0
    tick: int = 0
    lot: int = 0
    valid: bool = False


def on_book(ctx, params, state, quote):
    state.books += 1
    state.bid_px, state.ask_sz = quote.bid_px, quote.ask_sz
    state.now = now_ns(ctx)
    state.tick, state.lot = tick_px(ctx, quote.instrument), lot_qty(ctx, quote.instrument)
    state.valid = is_valid(ctx, quote.instrument)
    if state.books == 1:
        buy(ctx, quote.instrument, quote.bid_px, 10)


def on_trade(ctx, params, state, trade):
    state.trades += 1
    state.match_id = trade.qty


def on_level(ctx, params, state, level):
    state.levels += 1
    state.level_qty = level.qty


def on_report(ctx, params, state, report):
    state.reports += 1
    state.report_kind = report.kind
    state.position_told = position(ctx, report.instrument)


def on_timer(ctx, params, state, timer):
    state.timers += 1
    state.now = now_ns(ctx)
    state.period_ns = timer.period_ns


def on_status(ctx, params, state, status):
    state.statuses += 1
    state.flags = status.flags
    state.valid = is_valid(ctx, status.instrument)
