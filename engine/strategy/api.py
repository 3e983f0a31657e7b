"""What a strategy is written with. Everything a strategy's file needs comes from here: `from engine.strategy.api import *`.

A strategy is one file: parameters, memory, and a function for each event it cares about. No decorators; the loop compiles it.

    from engine.strategy.api import *

    class Params(Parameters):           # from [strategy.params] of the config; a key that is unknown, missing or mistyped is refused
        size: int = 100

    class Memory(State):                # one record for each instrument, at its defaults when trading begins
        order_id: int = 0

    def on_book(ctx, params, state, quote): ...      the best bid or offer changed      quote.bid_px bid_sz ask_px ask_sz
    def on_trade(ctx, params, state, trade): ...     somebody traded                    trade.px qty side match_id printable cross
    def on_level(ctx, params, state, level): ...     a price level changed, where the feed publishes levels   level.px qty side orders
    def on_report(ctx, params, state, report): ...   something became of an order       report.kind order_id px qty side reason ref_id
    def on_timer(ctx, params, state, timer): ...     every timer_ms, for each instrument                      timer.period_ns
    def on_status(ctx, params, state, status): ...   the book became valid or ceased to be, the venue halted  status.flags state

Every record also has `instrument`, a small whole number that the order functions take, `ts_ns` (the venue's time) and `kind`.

    buy(ctx, instrument, px, qty, tif=TIF_DAY)       the order's id, or 0 if it did not leave
    sell(ctx, instrument, px, qty, tif=TIF_DAY)
    replace(ctx, instrument, order_id, px, qty)      the id the order will have, or 0; qty is what shall be open
    cancel(ctx, instrument, order_id)                True if the request left
    position(ctx, instrument)                        bought less sold today, from executions; before the session is up, 0
    tick_px(ctx, instrument), lot_qty(ctx, instrument)
    is_valid(ctx, instrument)                        whether the book may be acted on
    now_ns(ctx)                                      when this event reached this machine

Questions about the whole book, every order of it as the feed handler has it this moment (it may be ahead of the event in hand):

    best = book_best(ctx, instrument)                best.bid_px bid_qty bid_orders ask_px ask_qty ask_orders
    there = book_depth(ctx, instrument, side, 10)    reads the 10 best levels (64 at most); how many there were, below 0: none could be read
    level = book_level(ctx, n)                       level.px qty orders of what book_depth read, the best at 0
    place = queue_ahead(ctx, instrument, ref_id)     where an order stands: place.ahead_qty ahead_orders side px qty level_qty level_orders;
                                                     ref_id is the venue's, as report.ref_id of ACCEPTED gives it. A replaced order
                                                     rests under a new one that no report tells: it is not found (NOT_THERE)
    mid = weighted_mid(ctx, instrument)              mid.px_milli: (bid_px x ask_qty + ask_px x bid_qty) / both, in thousandths
    cost = sweep_cost(ctx, instrument, BUY, qty)     cost.average_px worst_px filled_qty missing_qty cost levels of taking qty at once

Each has `told`: TOLD, or why there is no answer and all else is 0: TORN (the book changed while it was read; ask at the next event),
NOT_VALID (it may not be acted on), NOT_THERE (no such order, no such book, or a side is empty where both are needed), TOO_LONG (more
than 65,536 orders ahead, more than 4,096 levels), REFUSED_QTY (a sweep of less than 1 or more than 2^30). `version` grows with each
change of the book. An answer is of this moment and of no event, so a replay of recorded events asks another book: a strategy whose
orders must come out the same again decides by its events. Our own resting orders are in the book, and so in the answers.

Prices are whole numbers in the venue's fixed point (four decimals for NASDAQ: 1872000 is 187.20). on_book, on_trade, on_level and
on_timer are only called for an instrument whose book is valid; on_status tells when that changes. An order does not leave on a book
that is not valid, nor before trading or while it drains: it returns 0, and is counted.
"""

from typing import Annotated

from msgspec import Meta

from engine.book.hot.query import NOT_THERE, NOT_VALID, REFUSED_QTY, TOLD, TOO_LONG, TORN
from engine.layout import (
    BOOK_CLOSED,
    BOOK_CROSSED,
    BOOK_GAPPED,
    BOOK_HALTED,
    BOOK_OVERFLOW,
    BOOK_STALE,
    BOOK_SUSPECT,
    BOOK_VALID,
    BUY,
    MSG_ACCEPTED,
    MSG_BROKEN,
    MSG_CANCELLED,
    MSG_EXECUTED,
    MSG_REJECTED,
    MSG_REPLACED,
    REJECTED_BY_RISK,
    REJECTED_BY_VENUE,
    SELL,
    TIF_DAY,
    TIF_IOC,
)
from engine.strategy.fields import Parameters, State
from engine.strategy.hot.api import buy, cancel, is_valid, lot_qty, now_ns, position, replace, sell, tick_px
from engine.strategy.hot.queries import book_best, book_depth, book_level, queue_ahead, sweep_cost, weighted_mid

# report.kind
ACCEPTED = MSG_ACCEPTED
REPLACED = MSG_REPLACED
CANCELLED = MSG_CANCELLED
EXECUTED = MSG_EXECUTED
REJECTED = MSG_REJECTED
BROKEN = MSG_BROKEN

__all__ = [
    "ACCEPTED",
    "BOOK_CLOSED",
    "BOOK_CROSSED",
    "BOOK_GAPPED",
    "BOOK_HALTED",
    "BOOK_OVERFLOW",
    "BOOK_STALE",
    "BOOK_SUSPECT",
    "BOOK_VALID",
    "BROKEN",
    "BUY",
    "CANCELLED",
    "EXECUTED",
    "NOT_THERE",
    "NOT_VALID",
    "REFUSED_QTY",
    "REJECTED",
    "REJECTED_BY_RISK",
    "REJECTED_BY_VENUE",
    "REPLACED",
    "SELL",
    "TIF_DAY",
    "TIF_IOC",
    "TOLD",
    "TOO_LONG",
    "TORN",
    "Annotated",
    "Meta",
    "Parameters",
    "State",
    "book_best",
    "book_depth",
    "book_level",
    "buy",
    "cancel",
    "is_valid",
    "lot_qty",
    "now_ns",
    "position",
    "queue_ahead",
    "replace",
    "sell",
    "sweep_cost",
    "tick_px",
    "weighted_mid",
]
