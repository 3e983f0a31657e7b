"""Generated flow: Poisson arrivals of adds, cancels and marketable orders around a mean-reverting price for each symbol.

    reference price    an Ornstein-Uhlenbeck process around the start price
    add                a limit order below (buy) or above (sell) the reference, at an exponential distance, never one that trades
    cancel             of an order that flow has placed, all of it or half
    marketable         an immediate-or-cancel order at the best price, at random; towards the reference where quotes lag behind it

In the pre-opening flow places orders for the opening cross around the reference, and now and then one for a closing cross that is to
come; in a halt it does nothing.

Flow holds at most SLOTS orders a side. An event looks at one slot: empty, or its order gone, and it adds; otherwise it cancels. So the
number of orders balances itself, and depth is bounded. Nothing takes the last levels of a side away but clients, and an empty side is
filled first. Everything random comes from one splitmix64 state, times included: one seed, one flow.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import best_level, find_order, level_at, side_row
from engine.exchange.hot.listing import CLOSING, FOR_CROSS, OPENING, QUOTING, is_halted, shadow_of
from engine.exchange.hot.market import publish_cancel, publish_delete, publish_directory, publish_event
from engine.exchange.hot.matching import next_ref, rest_for_cross, submit, take
from engine.exchange.hot.orders import PX_LIMIT
from engine.exchange.hot.state import HAS_CLOSING, HAS_OPENING, NEXT_NS, NO, NO_OWNER, NOTHING, NOW_NS, SCRIPT, SYMBOLS, YES
from engine.layout import BUY, SELL

TICK_PX = 100
LOT_QTY = 100
SLOTS = 64
# Orders on each side of a symbol that the opening places.
OPENING_ORDERS = 24
# A side with fewer levels is not reduced by flow.
LEVELS_MIN = 3

MEAN_REVERSION_PER_S = 0.1
VOLATILITY_PER_SQRT_S = 2e-4
REFERENCE_RANGE = 0.5

MARKETABLE_SHARE = 0.08
CORRECTING_SHARE = 0.5
HALF_CANCEL_SHARE = 0.2
ODD_LOT_SHARE = 0.15
MEAN_DEPTH_TICKS = 4.0
DEPTH_TICKS_MAX = 60
MEAN_EXTRA_LOTS = 1.5
LOTS_MAX = 20

EVENT_MESSAGES_START = np.int64(ord("O"))
EVENT_SYSTEM_START = np.int64(ord("S"))
EVENT_MARKET_START = np.int64(ord("Q"))

# Of the events while a closing cross is ahead: an order for it. How far beyond the reference orders for a cross may reach, and how many
# of flow's there are at a price.
CLOSING_SHARE = 0.02
CROSS_REACH_TICKS = 3
CROSS_ORDERS_MAX = 4

MASK = 0xFFFFFFFFFFFFFFFF


@njit(cache=True, _nrt=False)
def random_bits(random):
    """splitmix64 (Steele, Lea, Flood 2014), wrapping spelled out so that plain Python draws the same."""
    state = (int(random[0]) + 0x9E3779B97F4A7C15) & MASK
    random[0] = state
    state = ((state ^ (state >> 30)) * 0xBF58476D1CE4E5B9) & MASK
    state = ((state ^ (state >> 27)) * 0x94D049BB133111EB) & MASK
    return state ^ (state >> 31)


@njit(cache=True, _nrt=False)
def uniform(random):
    """In [0, 1)."""
    return float(random_bits(random) >> 11) * (1.0 / (1 << 53))


@njit(cache=True, _nrt=False)
def exponential(random):
    return -np.log(1.0 - uniform(random))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def pick(random, count):
    """In 0 to count - 1."""
    return int(uniform(random) * count)


@njit(cache=True, _nrt=False)
def normal(random):
    """Near enough to a standard normal deviate: four uniform ones."""
    return (uniform(random) + uniform(random) + uniform(random) + uniform(random) - 2.0) * np.sqrt(3.0)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def draw_qty(random):
    if uniform(random) < ODD_LOT_SHARE:
        return 1 + pick(random, LOT_QTY - 1)
    return LOT_QTY * (1 + min(int(exponential(random) * MEAN_EXTRA_LOTS), LOTS_MAX))


@njit(cache=True, _nrt=False)
def drift(flow, symbol, now_ns):
    """Move a symbol's reference price on to now, and return it."""
    elapsed_s = max(now_ns - flow.moved_ns[symbol], 0) * 1e-9
    flow.moved_ns[symbol] = now_ns
    anchor = flow.anchor[symbol]
    reference = flow.reference[symbol]
    pull = 1.0 - np.exp(-MEAN_REVERSION_PER_S * elapsed_s)
    reference += (anchor - reference) * pull + anchor * VOLATILITY_PER_SQRT_S * np.sqrt(elapsed_s) * normal(flow.random)
    reference = min(max(reference, anchor * (1.0 - REFERENCE_RANGE)), anchor * (1.0 + REFERENCE_RANGE))
    flow.reference[symbol] = reference
    return reference


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def passive_px(book, random, instrument, side, reference):
    """A price for an order that rests: at some distance from the reference, and behind the other side's best."""
    distance = TICK_PX * min(int(exponential(random) * MEAN_DEPTH_TICKS), DEPTH_TICKS_MAX)
    if side == BUY:
        px = int(reference / TICK_PX) * TICK_PX - distance
        ask = best_level(book, instrument, SELL)
        if ask >= 0:
            px = min(px, (np.int64(book.levels[ask].px) - 1) // TICK_PX * TICK_PX)
    else:
        px = (int(reference / TICK_PX) + 1) * TICK_PX + distance
        bid = best_level(book, instrument, BUY)
        if bid >= 0:
            px = max(px, np.int64(book.levels[bid].px) // TICK_PX * TICK_PX + TICK_PX)
    return min(max(px, TICK_PX), PX_LIMIT - TICK_PX)


@njit(cache=True, inline="always", _nrt=False)
def place_order(venue, flow, symbol, side, slot, reference):
    """Add an order and remember it in the slot."""
    instrument = symbol + 1
    px = passive_px(venue.book, flow.random, instrument, side, reference)
    qty = draw_qty(flow.random)
    ref = next_ref(venue.words)
    if submit(venue, ref, instrument, side, px, qty, NO, NO_OWNER, NOTHING, NOTHING, NOTHING, NO, NOTHING, NOTHING) < 0:
        venue.stats[0].capacity_drops += 1
    flow.refs[slot] = ref


@njit(cache=True, inline="always", _nrt=False)
def cancel_placed(venue, flow, instrument, slot, handle):
    """Cancel a live order of flow's, or half of it."""
    ref = flow.refs[slot]
    qty = np.int64(venue.book.orders[handle].qty)
    if uniform(flow.random) < HALF_CANCEL_SHARE and qty > 1:
        publish_cancel(venue.market, venue.words[NOW_NS], instrument, ref, qty // 2, NOTHING)
        take(venue.book, handle, qty // 2)
    else:
        publish_delete(venue.market, venue.words[NOW_NS], instrument, ref, NOTHING)
        take(venue.book, handle, qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def place_for_cross(venue, flow, instrument, cross, reference):
    """An order for a cross, which is never cancelled: it trades or ends there."""
    side = BUY if uniform(flow.random) < 0.5 else SELL
    ticks = CROSS_REACH_TICKS - min(int(exponential(flow.random) * MEAN_DEPTH_TICKS), DEPTH_TICKS_MAX)
    px = int(reference / TICK_PX) * TICK_PX + (ticks if side == BUY else -ticks) * TICK_PX
    px = min(max(px, TICK_PX), PX_LIMIT - TICK_PX)
    qty = draw_qty(flow.random)
    shadow = shadow_of(instrument, cross)
    level = level_at(venue.book, shadow, side, px)
    if level >= 0 and venue.book.levels[level].orders >= CROSS_ORDERS_MAX:
        return
    if rest_for_cross(venue, next_ref(venue.words), shadow, side, px, qty, NO_OWNER, NOTHING, NOTHING, FOR_CROSS) < 0:
        venue.stats[0].capacity_drops += 1


@njit(cache=True, _nrt=False)
def levels_of(book, instrument, side):
    return np.int64(book.sides[side_row(instrument, side)].count)


@njit(cache=True, inline="always", _nrt=False)
def marketable_side(book, random, instrument, reference):
    """The side of an aggressive order now, or 0: rarely at random, often where the best quote is on the wrong side of the reference."""
    bid_px = np.int64(book.levels[best_level(book, instrument, BUY)].px)
    ask_px = np.int64(book.levels[best_level(book, instrument, SELL)].px)
    roll = uniform(random)
    if reference > ask_px:
        side = BUY if roll < CORRECTING_SHARE else 0
    elif reference < bid_px:
        side = SELL if roll < CORRECTING_SHARE else 0
    elif roll < MARKETABLE_SHARE:
        side = BUY if roll < MARKETABLE_SHARE / 2 else SELL
    else:
        side = 0
    return side


@njit(cache=True, inline="always", _nrt=False)
def take_best(venue, flow, instrument, side):
    """An immediate-or-cancel order at the best price of the other side."""
    level = best_level(venue.book, instrument, BUY + SELL - side)
    px = np.int64(venue.book.levels[level].px)
    qty = draw_qty(flow.random)
    submit(venue, next_ref(venue.words), instrument, side, px, qty, YES, NO_OWNER, NOTHING, NOTHING, NOTHING, NO, NOTHING, NOTHING)


@njit(cache=True, inline="always", _nrt=False)
def add_or_cancel(venue, flow, symbol, side, reference):
    """Look at one of the side's slots. A side that must not shrink looks on for an empty one."""
    first = (2 * symbol + (side & 1)) * SLOTS
    chosen = pick(flow.random, SLOTS)
    may_shrink = levels_of(venue.book, symbol + 1, side) > LEVELS_MIN
    for offset in range(SLOTS):
        slot = first + (chosen + offset) % SLOTS
        handle = find_order(venue.book, flow.refs[slot])
        if handle < 0:
            place_order(venue, flow, symbol, side, slot, reference)
            return
        if may_shrink:
            cancel_placed(venue, flow, symbol + 1, slot, handle)
            return


@njit(cache=True, inline="always", _nrt=False)
def happen(venue, flow, now_ns):
    """One event of the flow."""
    random = flow.random
    symbol = pick(random, flow.words[SYMBOLS])
    instrument = symbol + 1
    reference = drift(flow, symbol, now_ns)
    if is_halted(venue.listing, instrument):
        if venue.listing.states[instrument] == QUOTING and venue.words[HAS_OPENING] != 0:
            place_for_cross(venue, flow, instrument, OPENING, reference)
        return
    if venue.words[HAS_CLOSING] != 0 and uniform(random) < CLOSING_SHARE:
        place_for_cross(venue, flow, instrument, CLOSING, reference)
        return
    bids = levels_of(venue.book, instrument, BUY)
    asks = levels_of(venue.book, instrument, SELL)
    side = BUY if uniform(random) < 0.5 else SELL
    if bids == 0:
        side = BUY
    elif asks == 0:
        side = SELL
    else:
        aggressor = marketable_side(venue.book, random, instrument, reference)
        if (aggressor == BUY and asks >= LEVELS_MIN) or (aggressor == SELL and bids >= LEVELS_MIN):
            take_best(venue, flow, instrument, aggressor)
            return
    add_or_cancel(venue, flow, symbol, side, reference)


@njit(cache=True, inline="always", _nrt=False)
def open_directory(venue, flow):
    """The next message of the opening: start of messages, the directory, start of system and market hours. False when all is said."""
    words = flow.words
    symbols = words[SYMBOLS]
    at = words[SCRIPT]
    now_ns = venue.words[NOW_NS]
    if at == 0:
        publish_event(venue.market, now_ns, EVENT_MESSAGES_START)
    elif at <= symbols:
        publish_directory(venue.market, now_ns, at, venue.listing.symbols[at])
    elif at == symbols + 1:
        publish_event(venue.market, now_ns, EVENT_SYSTEM_START)
    elif at == symbols + 2:
        publish_event(venue.market, now_ns, EVENT_MARKET_START)
    else:
        return False
    words[SCRIPT] += 1
    return True


@njit(cache=True, inline="always", _nrt=False)
def open_books(venue, flow):
    """The next of the first orders, side by side and symbol by symbol. False when all are there."""
    words = flow.words
    number = words[SCRIPT] - words[SYMBOLS] - 3
    if number >= words[SYMBOLS] * OPENING_ORDERS * 2:
        return False
    symbol = number // (OPENING_ORDERS * 2)
    side = BUY if number & 1 else SELL
    slot = (2 * symbol + (side & 1)) * SLOTS + number // 2 % OPENING_ORDERS
    flow.moved_ns[symbol] = venue.words[NOW_NS]
    place_order(venue, flow, symbol, side, slot, flow.reference[symbol])
    words[SCRIPT] += 1
    return True


@njit(cache=True, inline="always", _nrt=False)
def generate_next(flow, venue, now_ns):
    """Do what is due by now_ns, one thing at a time. False when nothing is. Without a rate there is only the opening."""
    words = flow.words
    if words[SCRIPT] == 0:
        venue.words[NOW_NS] = max(venue.words[NOW_NS], now_ns)
    if open_directory(venue, flow):
        return True
    if words[SYMBOLS] == 0 or flow.mean_ns[0] == 0.0:
        return False
    if open_books(venue, flow):
        words[NEXT_NS] = venue.words[NOW_NS]
        return True
    if words[NEXT_NS] > now_ns:
        return False
    # Its own time, however late it comes to be done: times depend on the seed only. Ours never go back.
    venue.words[NOW_NS] = max(venue.words[NOW_NS], words[NEXT_NS])
    happen(venue, flow, words[NEXT_NS])
    venue.stats[0].flow_events += 1
    words[NEXT_NS] += 1 + int(exponential(flow.random) * flow.mean_ns[0])
    return True
