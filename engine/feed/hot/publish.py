"""Ticks onto the ring and the boards. The caller has seen that there is room: a claim here never fails.

A board line is written before the ring record that tells of it, so whoever acts on the record finds the board at least as new.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import best_level, level_at, tell_flags
from engine.feed.hot.decoder import LOCATE, OFFSET_MASK, TIMESTAMP
from engine.feed.hot.handover import NOTICE_VALIDITY, give_notice
from engine.feed.hot.orders import EXECUTED_PRICE, OVERFLOWED
from engine.feed.hot.state import CLOSED, EXPECTED, GAPPED, HIGHEST, MIDNIGHT_NS, PAPER, PUBLISH_LEVELS, STALE
from engine.feed.itch import CROSS_TRADE, ORDER_EXECUTED_PRICE, PX_DECIMALS, TRADE
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
    MSG_INSTRUMENT,
    MSG_LEVEL,
    MSG_QUOTE,
    MSG_STATUS,
    MSG_TRADE,
)
from engine.messages.hot.stamp import age_at, now_tsc
from engine.wire.hot.bytes import get_u16, get_u32, get_u48, get_u64
from shm.atomics import wrap_add
from shm.hot import board_close, board_open, claim, commit, record

# The most that one message publishes: a trade, two levels, a quote; or a trade, a level, a quote, and that its book is suspect.
RECORDS_PER_MESSAGE = 4

EXECUTED_MATCH = ORDER_EXECUTED_PRICE["match"]
EXECUTED_PRINTABLE = ORDER_EXECUTED_PRICE["printable"]
EXECUTED_PX = ORDER_EXECUTED_PRICE["px"]
NON_CROSS_CODE = TRADE.code
TRADE_SHARES = TRADE["shares"]
TRADE_PX = TRADE["px"]
TRADE_MATCH = TRADE["match"]
CROSS_SHARES = CROSS_TRADE["shares"]
CROSS_PX = CROSS_TRADE["px"]
CROSS_MATCH = CROSS_TRADE["match"]
CROSS_TYPE = CROSS_TRADE["cross"]

PRINTABLE = ord("Y")
TRADING = ord("T")
# Smallest price step of a US equity, in 1/10000: a cent.
TICK_PX = 100


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def stamp_head(slot, kind, flags, instrument, origin, tsc, ts_ns):
    """The fields that every record begins with, but for the sequence."""
    slot.origin_tsc = origin
    slot.ts_ns = ts_ns
    slot.kind = kind
    slot.flags = flags
    slot.instrument = instrument
    slot.age_tsc = age_at(origin, tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def book_flags(top, words):
    """VALID, or every reason why the book must not be acted on. A book locked or crossed by one venue's own orders is not a market."""
    flags = 0
    if words[STALE]:
        flags |= BOOK_STALE
    if words[GAPPED]:
        flags |= BOOK_GAPPED
    if words[CLOSED]:
        flags |= BOOK_CLOSED
    if top.halts != 0 or (top.state != 0 and top.state != TRADING):
        flags |= BOOK_HALTED
    if top.bid_sz != 0 and top.ask_sz != 0 and top.bid_px >= top.ask_px:
        flags |= BOOK_CROSSED
    if top.overflow:
        flags |= BOOK_OVERFLOW
    if top.suspect:
        flags |= BOOK_SUSPECT
    return flags if flags else BOOK_VALID


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def settle_validity(feed, clock, instrument, tsc):
    top = feed.decoder.tops[instrument]
    flags = book_flags(top, feed.words)
    if flags != top.validity:
        change_validity(feed, clock, instrument, flags, tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def change_validity(feed, clock, instrument, flags, tsc):
    """Take over another validity, and account for the time without one. Instrument 0 is the market, which has no book."""
    top = feed.decoder.tops[instrument]
    before = top.validity
    top.validity = flags
    tell_flags(feed.decoder.book, instrument, flags)
    if feed.words[PAPER] and not give_notice(feed.market, feed.market_bytes, NOTICE_VALIDITY, instrument, flags):
        feed.decoder.stats[0].capacity_drops += 1
    if before == 0:
        feed.words[HIGHEST] = max(feed.words[HIGHEST], instrument)
    if flags == BOOK_VALID:
        if before != 0:
            top.invalid_ns += int((tsc - top.invalid_tsc) * clock.ns_per_tick[0])
    elif before in (0, BOOK_VALID):
        top.invalid_tsc = tsc
        if before == BOOK_VALID and instrument != 0:
            top.invalidated += 1
            feed.decoder.stats[0].invalidated += 1


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fill_quote(line, top, instrument, origin, tsc, ts_ns):
    stamp_head(line, MSG_QUOTE, top.validity, instrument, origin, tsc, ts_ns)
    line.bid_px = top.bid_px
    line.bid_sz = top.bid_sz
    line.ask_px = top.ask_px
    line.ask_sz = top.ask_sz


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_quote(feed, clock, instrument, origin, ts_ns):
    """The best bid and offer as feed.decoder.tops has them."""
    top = feed.decoder.tops[instrument]
    tsc = now_tsc(clock)
    settle_validity(feed, clock, instrument, tsc)
    version = board_open(feed.quotes, instrument)
    fill_quote(feed.quotes[instrument], top, instrument, origin, tsc, ts_ns)
    board_close(feed.quotes, instrument, version)
    index = claim(feed.ticks)
    fill_quote(feed.ticks.slots[index], top, instrument, origin, tsc, ts_ns)
    commit(feed.ticks, index)
    record(feed.hop, tsc - origin)
    top.quotes += 1
    feed.decoder.stats[0].quotes += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_level(feed, clock, instrument, side, px, origin, ts_ns):
    level = level_at(feed.decoder.book, instrument, side, px)
    index = claim(feed.ticks)
    slot = feed.level_slots[index]
    stamp_head(slot, MSG_LEVEL, 0, instrument, origin, now_tsc(clock), ts_ns)
    slot.px = px
    slot.qty = 0
    slot.orders = 0
    slot.side = side
    if level >= 0:
        rests = feed.decoder.book.levels[level]
        slot.qty = rests.qty
        slot.orders = rests.orders
    commit(feed.ticks, index)
    feed.decoder.stats[0].levels += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_trade(feed, clock, instrument, px, qty, match, side, printable, cross, origin, ts_ns):
    index = claim(feed.ticks)
    slot = feed.trade_slots[index]
    stamp_head(slot, MSG_TRADE, 0, instrument, origin, now_tsc(clock), ts_ns)
    slot.px = px
    slot.qty = qty
    slot.match_id = match
    slot.side = side
    slot.printable = printable
    slot.cross = cross
    commit(feed.ticks, index)
    top = feed.decoder.tops[instrument]
    top.trades += 1
    top.volume = wrap_add(top.volume, qty)
    feed.decoder.stats[0].trades += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_status(feed, clock, instrument, origin, ts_ns):
    """What the book's validity is now, on the ring and in its line of the quotes board."""
    top = feed.decoder.tops[instrument]
    tsc = now_tsc(clock)
    settle_validity(feed, clock, instrument, tsc)
    version = board_open(feed.quotes, instrument)
    fill_quote(feed.quotes[instrument], top, instrument, origin, tsc, ts_ns)
    board_close(feed.quotes, instrument, version)
    index = claim(feed.ticks)
    slot = feed.status_slots[index]
    stamp_head(slot, MSG_STATUS, top.validity, instrument, origin, tsc, ts_ns)
    slot.feed_sequence = feed.words[EXPECTED]
    slot.lost = feed.decoder.stats[0].lost
    slot.state = top.state
    slot.session_event = feed.decoder.market[0].event
    commit(feed.ticks, index)
    feed.decoder.stats[0].statuses += 1


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def fill_instrument(line, state, instrument, origin, tsc, ts_ns):
    stamp_head(line, MSG_INSTRUMENT, 0, instrument, origin, tsc, ts_ns)
    line.symbol = state.symbol
    line.lot_qty = state.lot_qty
    line.px_decimals = PX_DECIMALS
    line.tick_px = TICK_PX


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_instrument(feed, clock, instrument, origin, ts_ns):
    state = feed.decoder.states[instrument]
    tsc = now_tsc(clock)
    version = board_open(feed.instruments, instrument)
    fill_instrument(feed.instruments[instrument], state, instrument, origin, tsc, ts_ns)
    board_close(feed.instruments, instrument, version)
    index = claim(feed.ticks)
    fill_instrument(feed.instrument_slots[index], state, instrument, origin, tsc, ts_ns)
    commit(feed.ticks, index)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_change(feed, clock, buffer, at, code, change, origin):
    """What an order message did, as apply_order told it: a trade, the levels, the quote if the best bid or offer is another now."""
    did, instrument, side, px, new_px, traded = change
    top = feed.decoder.tops[instrument]
    at = at & OFFSET_MASK
    ts_ns = feed.words[MIDNIGHT_NS] + get_u48(buffer, at + TIMESTAMP)
    top.messages += 1
    top.last_ns = ts_ns
    if not top.publish:
        return
    if traded:
        match = get_u64(buffer, at + EXECUTED_MATCH)
        trade_px = px
        printable = 1
        if code == EXECUTED_PRICE:
            trade_px = get_u32(buffer, at + EXECUTED_PX)
            printable = 1 if buffer[at + EXECUTED_PRINTABLE] == PRINTABLE else 0
        publish_trade(feed, clock, instrument, trade_px, traded, match, side, printable, 0, origin, ts_ns)
    if feed.words[PUBLISH_LEVELS]:
        if px:
            publish_level(feed, clock, instrument, side, px, origin, ts_ns)
        if new_px and new_px != px:
            publish_level(feed, clock, instrument, side, new_px, origin, ts_ns)
    if touch_moved(feed.decoder.book, top, instrument, side) or did == OVERFLOWED:
        publish_quote(feed, clock, instrument, origin, ts_ns)


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def touch_moved(book, top, instrument, side):
    """Take over the best level of a side into `top`; whether it is another price or quantity than before."""
    level = best_level(book, instrument, side)
    px = 0
    qty = 0
    if level >= 0:
        px = np.int64(book.levels[level].px)
        qty = np.int64(book.levels[level].qty)
    if side == BUY:
        if px == top.bid_px and qty == top.bid_sz:
            return False
        top.bid_px = px
        top.bid_sz = qty
    else:
        if px == top.ask_px and qty == top.ask_sz:
            return False
        top.ask_px = px
        top.ask_sz = qty
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_print(feed, clock, buffer, at, code, origin):
    """A trade that touches no displayed order (P), or a cross (Q)."""
    at = at & OFFSET_MASK
    instrument = get_u16(buffer, at + LOCATE)
    if instrument >= feed.decoder.tops.shape[0]:
        feed.decoder.stats[0].capacity_drops += 1
        return
    if not feed.decoder.tops[instrument].publish:
        return
    ts_ns = feed.words[MIDNIGHT_NS] + get_u48(buffer, at + TIMESTAMP)
    # NASDAQ sends side B in every P, whatever it was (specification 1.5.1), so no side is known of either.
    if code == NON_CROSS_CODE:
        qty = get_u32(buffer, at + TRADE_SHARES)
        px = get_u32(buffer, at + TRADE_PX)
        match = get_u64(buffer, at + TRADE_MATCH)
        cross = 0
    else:
        qty = get_u64(buffer, at + CROSS_SHARES)
        px = get_u32(buffer, at + CROSS_PX)
        match = get_u64(buffer, at + CROSS_MATCH)
        cross = np.int64(buffer[at + CROSS_TYPE])
    # A cross in which nothing traded is announced too; it is not a trade.
    if qty > 0:
        publish_trade(feed, clock, instrument, px, qty, match, 0, 1, cross, origin, ts_ns)
