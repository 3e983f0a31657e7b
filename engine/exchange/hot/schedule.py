"""What the exchange does by the clock: crosses, what is said before them, halts.

    pre-opening ──opening cross──▶ trading ──closing cross──▶ closed           H: Q, T, H
                                    │    ▲
                                    └halt┘                                     H: H, T

In the pre-opening and in a halt orders for continuous trading are rejected and all may be cancelled; orders for the opening cross are
taken in the pre-opening, those for the closing cross while the instrument trades. A cross (hot/auction.py) trades at one price. Who is
first is decided by price, then by arrival, displayed or not. Of a displayed order that trades ITCH says C, not printable, and of the
cross as a whole Q; OUCH says E with the liquidity flag of the cross. All of a cross has one match number. What was entered for the
cross and did not trade is cancelled; displayed orders stay. Before a cross I tells its imbalance once a second.

A large cross takes several turns, so that what it says can leave between them. While it is under way nobody is heard, and there is no
flow: it is of the books as they were when its price was found.

Nothing of a cross is refused for meeting an order of the same account.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, best_level, order_ref, side_row
from engine.exchange.hot.auction import NO_INSTRUMENT, clearing_px, quantity_within, reference_px
from engine.exchange.hot.listing import CLOSING, HALTED, OPENING, QUOTING, TRADING, shadow_of
from engine.exchange.hot.market import market_has_room, publish_action, publish_cross, publish_event, publish_executed_at, publish_imbalance
from engine.exchange.hot.matching import forget, take, withdraw
from engine.exchange.hot.reports import IOC_CANCEL, book_fill, report_canceled, report_executed
from engine.exchange.hot.state import (
    BASE_NS,
    CROSS_LEFT,
    CROSS_NUMBER,
    CROSS_PX,
    CROSS_VOLUME,
    CROSSING,
    NEXT_DUE,
    NEXT_MATCH,
    NO_OWNER,
    NOTHING,
    NOW_NS,
    SCRIPT,
    SYMBOLS,
)
from engine.gateway.ouch.v50 import LIQUIDITY_CLOSING, LIQUIDITY_OPENING
from engine.layout import BUY, SELL

# Values of Schedule.kinds.
QUOTE = 1  # the pre-opening begins
TELL_OPENING, TELL_CLOSING = 2, 3
CROSS_OPENING, CROSS_CLOSING = 4, 5
HALT, RESUME = 6, 7
END_HOURS = 8

# A BASE_NS before the directory is out.
NOT_YET = -1

# At most this many in a turn.
EVENTS_PER_STEP = 16
# Of a cross, so many orders in a turn.
CROSS_ORDERS_PER_STEP = 256

# Values of CROSSING.
NO_CROSS = 0
CROSS_BIDS, CROSS_OFFERS = 1, 2
CROSS_REST = 3  # what was entered for the cross and did not trade is cancelled

EVENT_MARKET_END = np.int64(ord("M"))
NOT_PRINTABLE = np.int64(ord("N"))
NEWS_PENDING = np.int64(int.from_bytes(b"T1  ", "big"))
NO_REASON = np.int64(int.from_bytes(b"    ", "big"))
CROSS_LETTERS = np.array([LIQUIDITY_OPENING, LIQUIDITY_CLOSING], np.int64)

# ITCH 5.0, section 1.6: the direction of an imbalance.
BUYS, SELLS, NEITHER, NOT_ENOUGH = ord("B"), ord("S"), ord("N"), ord("O")
# How far the near price is from the reference: L below 1 %, 1 to 9 by whole percents, A from 10, B from 20, C from 30.
VARIATIONS = np.frombuffer(b"L123456789AAAAAAAAAABBBBBBBBBBC", np.uint8)
CANNOT_TELL = np.uint8(ord(" "))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def first_of(book, own, shadow, side):
    """The handle of the order that is first on a side of both books together, or NONE: by price, then by its ref, which is its arrival."""
    here, there = best_level(book, own, side), best_level(book, shadow, side)
    if here < 0 and there < 0:
        return np.int64(NONE)
    if there < 0:
        return np.int64(book.levels[here].head)
    if here < 0:
        return np.int64(book.levels[there].head)
    displayed, hidden = np.int64(book.levels[here].head), np.int64(book.levels[there].head)
    px, other_px = book.levels[here].px, book.levels[there].px
    if px == other_px:
        return displayed if order_ref(book, displayed) < order_ref(book, hidden) else hidden
    return displayed if (px > other_px) == (side == BUY) else hidden


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def trade_at(venue, handle, instrument, qty, px, number, liquidity):
    """An order trades `qty` of what it has in a cross at px; tell those concerned."""
    book = venue.book
    order = book.orders[handle]
    now_ns = venue.words[NOW_NS]
    owner, user_ref, side = np.int64(order.owner), np.int64(order.user_ref), np.int64(order.side)
    if order.instrument == instrument:
        publish_executed_at(venue.market, now_ns, instrument, order_ref(book, handle), qty, number, NOTHING, NOT_PRINTABLE, px)
    order.executed += np.uint32(qty)
    if owner != NO_OWNER:
        report_executed(venue.clients, owner, venue.stats, now_ns, user_ref, qty, px, liquidity, number)
        book_fill(venue.positions, owner, instrument, side, qty, px, -qty)
        if order.qty == qty:
            forget(venue.clients, owner, venue.listing, venue.stats, user_ref, side_row(np.int64(order.instrument), side))
    venue.stats[0].executions += 1
    take(book, handle, qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cancel_side(venue, shadow, side, count):
    """Cancel what is left on a shadow's side, at most `count` orders. Returns how many more there might have been."""
    level = best_level(venue.book, shadow, side)
    while level >= 0 and count > 0:
        handle = np.int64(venue.book.levels[level].head)
        order = venue.book.orders[handle]
        owner, qty = np.int64(order.owner), np.int64(order.qty)
        if owner != NO_OWNER:
            report_canceled(venue.clients, owner, venue.stats, venue.words[NOW_NS], np.int64(order.user_ref), qty, IOC_CANCEL)
        withdraw(venue, handle, qty)
        level = best_level(venue.book, shadow, side)
        count -= 1
    return count


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def trade_side(venue, words, instrument, shadow, side, letter, count):
    """Trade what is left of the cross on a side, with at most `count` orders. Returns how many more there might have been."""
    while words[CROSS_LEFT] > 0 and count > 0:
        handle = first_of(venue.book, instrument, shadow, side)
        qty = min(words[CROSS_LEFT], np.int64(venue.book.orders[handle].qty))
        trade_at(venue, handle, instrument, qty, words[CROSS_PX], words[CROSS_NUMBER], letter)
        words[CROSS_LEFT] -= qty
        count -= 1
    return count


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_cross(venue, schedule, instrument, shadow):
    """Where a cross takes place, and its match number."""
    words = schedule.words
    reference = reference_px(venue.book, instrument, schedule.last_px[instrument])
    words[CROSS_PX], words[CROSS_VOLUME] = clearing_px(venue.book, instrument, shadow, reference)
    words[CROSS_NUMBER] = venue.words[NEXT_MATCH]
    venue.words[NEXT_MATCH] += 1
    words[CROSS_LEFT] = words[CROSS_VOLUME]
    words[CROSSING] = CROSS_BIDS


@njit(cache=True, _nrt=False, forceinline=True)
def is_crossing(schedule):
    """Whether a cross is under way of which there is more to do."""
    return schedule.words[CROSSING] != NO_CROSS


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def hold_cross(venue, schedule, instrument, cross):
    """Some of the OPENING or CLOSING cross of an instrument. Returns whether it is over. What does not suffice for one is said as one of no
    shares."""
    words = schedule.words
    shadow = shadow_of(instrument, cross)
    letter = CROSS_LETTERS[cross]
    if words[CROSSING] == NO_CROSS:
        find_cross(venue, schedule, instrument, shadow)
    count = CROSS_ORDERS_PER_STEP
    if words[CROSSING] == CROSS_BIDS:
        count = trade_side(venue, words, instrument, shadow, np.int64(BUY), letter, count)
        if words[CROSS_LEFT] == 0:
            words[CROSSING] = CROSS_OFFERS
            words[CROSS_LEFT] = words[CROSS_VOLUME]
    if words[CROSSING] == CROSS_OFFERS:
        count = trade_side(venue, words, instrument, shadow, np.int64(SELL), letter, count)
        if words[CROSS_LEFT] == 0:
            symbol = venue.listing.symbols[instrument]
            now_ns, volume, px, number = venue.words[NOW_NS], words[CROSS_VOLUME], words[CROSS_PX], words[CROSS_NUMBER]
            publish_cross(venue.market, now_ns, instrument, symbol, volume, px, number, letter)
            if volume > 0:
                schedule.last_px[instrument] = px
            words[CROSSING] = CROSS_REST
    if words[CROSSING] == CROSS_REST:
        count = cancel_side(venue, shadow, np.int64(BUY), count)
        count = cancel_side(venue, shadow, np.int64(SELL), count)
        if count > 0:
            words[CROSSING] = NO_CROSS
    return words[CROSSING] == NO_CROSS


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_imbalance(venue, schedule, instrument, cross):
    """I: shares that pair at the reference price, those that do not, and where the cross would be now, of all orders and of those for the
    cross only."""
    book = venue.book
    shadow = shadow_of(instrument, cross)
    reference = reference_px(book, instrument, schedule.last_px[instrument])
    near_px, volume = clearing_px(book, instrument, shadow, reference)
    far_px, _ = clearing_px(book, shadow, NO_INSTRUMENT, reference)
    demand = quantity_within(book, instrument, BUY, reference) + quantity_within(book, shadow, BUY, reference)
    supply = quantity_within(book, instrument, SELL, reference) + quantity_within(book, shadow, SELL, reference)
    direction = NEITHER
    variation = CANNOT_TELL
    if demand != supply:
        direction = BUYS if demand > supply else SELLS
    if volume == 0:
        direction = NOT_ENOUGH
    else:
        variation = VARIATIONS[min(abs(near_px - reference) * 100 // reference, VARIATIONS.shape[0] - 1)]
    publish_imbalance(
        venue.market, venue.words[NOW_NS], instrument, venue.listing.symbols[instrument], min(demand, supply), abs(demand - supply),
        direction, far_px, near_px, reference, CROSS_LETTERS[cross], variation,
    )  # fmt: skip


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def enter_state(venue, instrument, state, reason):
    venue.listing.states[instrument] = state
    publish_action(venue.market, venue.words[NOW_NS], instrument, venue.listing.symbols[instrument], state, reason)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def carry_out(venue, schedule, kind, instrument):
    """One event of the schedule. Returns whether it is over."""
    if kind == QUOTE:
        enter_state(venue, instrument, np.int64(QUOTING), NO_REASON)
    elif kind in (TELL_OPENING, TELL_CLOSING):
        tell_imbalance(venue, schedule, instrument, OPENING if kind == TELL_OPENING else CLOSING)
    elif kind in (CROSS_OPENING, CROSS_CLOSING):
        opens = kind == CROSS_OPENING
        if not hold_cross(venue, schedule, instrument, OPENING if opens else CLOSING):
            return False
        enter_state(venue, instrument, np.int64(TRADING if opens else HALTED), NO_REASON)
    elif kind == HALT:
        enter_state(venue, instrument, np.int64(HALTED), NEWS_PENDING)
    elif kind == RESUME:
        enter_state(venue, instrument, np.int64(TRADING), NO_REASON)
    else:
        publish_event(venue.market, venue.words[NOW_NS], EVENT_MARKET_END)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def keep_schedule(schedule, venue, script, now_ns):
    """Do what the schedule has by now_ns, since midnight, some at a time, each at its own time. It begins when the directory is out, which
    Flow.words (script) tell. Returns how much was done."""
    words = schedule.words
    events = schedule.times.shape[0]
    if words[NEXT_DUE] == events or script[SCRIPT] <= script[SYMBOLS] + 2:
        return 0
    if words[BASE_NS] == NOT_YET:
        words[BASE_NS] = now_ns
    done = 0
    while done < EVENTS_PER_STEP and words[NEXT_DUE] < events and market_has_room(venue.market):
        at = words[NEXT_DUE]
        due_ns = words[BASE_NS] + schedule.times[at]
        if due_ns > now_ns:
            break
        venue.words[NOW_NS] = max(venue.words[NOW_NS], due_ns)
        done += 1
        if not carry_out(venue, schedule, schedule.kinds[at], schedule.instruments[at]):
            break
        words[NEXT_DUE] = at + 1
    return done
