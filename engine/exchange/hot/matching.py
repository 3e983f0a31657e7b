"""The matching core on engine.book, and everything that follows from an order: ITCH for all, OUCH for the account it concerns.

An order meets the best of the other side first, there the oldest first or each by its share (hot/core.py), at the resting order's price;
what is left rests, or is cancelled where it was immediate-or-cancel. Where it meets an order of its own owner, what its account asks for
happens: they trade, or one of them or both are cancelled; where a price is shared, before it is. Orders for a cross only rest
(hot/listing.py).

The same kernels serve a replayed file, where history has already decided what trades with what. Then only client orders are met
(`clients_only`): history's own orders stay where history left them.

`user_ref` of an order record is the client's name for it; of one of history's orders it is the participant's, if it is attributed (ITCH
F): four bytes of text, 0 for none, which stay with it when it is replaced.

`executed` of an order record is what the chain of replacements of a client's order has executed; of one of history's orders it is
what our clients took from it, and history does not know of.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, add_order, order_ref, reduce_order, side_row, worse_level
from engine.exchange.hot.core import NOBODY_STOPS, NOT_STOPPED, WALK_ON, cross_book, crosses, is_met, other_side
from engine.exchange.hot.listing import FOR_CROSS, traded_instrument
from engine.exchange.hot.market import publish_add, publish_delete, publish_executed, publish_replace
from engine.exchange.hot.prorata import FIFO
from engine.exchange.hot.reports import (
    ADDED,
    CANCEL_BY_SYSTEM,
    IOC_CANCEL,
    REMOVED,
    book_fill,
    change_open,
    report_canceled,
    report_executed,
    report_prevented,
)
from engine.exchange.hot.state import (
    CANCEL_NEWEST,
    CANCEL_OLDEST,
    FIRM,
    NEXT_MATCH,
    NEXT_REF,
    NO_OWNER,
    NOTHING,
    NOW_NS,
    OPEN,
    SELF_TRADE,
    TRADES,
)
from engine.layout import BUY

NOT_FOUND = -1


# The book's kernels are inlined wherever they are called. Here they are called from many places: once each is enough.
@njit(cache=True, _nrt=False)
def add(book, ref, instrument, side, px, qty):
    return add_order(book, ref, instrument, side, px, qty)


@njit(cache=True, _nrt=False)
def take(book, handle, qty):
    return reduce_order(book, handle, qty)


@njit(cache=True, _nrt=False)
def next_ref(words):
    words[NEXT_REF] += 1
    return words[NEXT_REF] - 1


# An account's live orders: its table[user_ref modulo its size] has the handle, and the order's place in its `live`.


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_client_order(clients, owner, orders, user_ref):
    """The handle of an account's live order, or NOT_FOUND."""
    handle = np.int64(clients.table[owner - 1, user_ref & (clients.table.shape[1] - 1)].handle)
    return handle if handle != 0 and orders[handle].user_ref == user_ref else NOT_FOUND


@njit(cache=True, _nrt=False)
def remember(clients, owner, listing, stats, user_ref, handle, row):
    account = owner - 1
    slot = user_ref & (clients.table.shape[1] - 1)
    entry = clients.table[account, slot]
    entry.handle = handle
    entry.place = clients.words[account, OPEN]
    clients.live[account, clients.words[account, OPEN]] = slot
    clients.words[account, OPEN] += 1
    listing.resting[row] += 1
    stats[0].open_orders += 1


@njit(cache=True, _nrt=False)
def forget(clients, owner, listing, stats, user_ref, row):
    account = owner - 1
    entry = clients.table[account, user_ref & (clients.table.shape[1] - 1)]
    clients.words[account, OPEN] -= 1
    last = clients.live[account, clients.words[account, OPEN]]
    clients.live[account, entry.place] = last
    clients.table[account, last].place = entry.place
    entry.handle = 0
    listing.resting[row] -= 1
    stats[0].open_orders -= 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def tell_executions(venue, count, instrument, side, owner, user_ref):
    """Tell everybody of venue.events[:count]: what an order of `side` traded with."""
    now_ns = venue.words[NOW_NS]
    for at in range(count):
        event = venue.events[at]
        qty, px = np.int64(event.qty), event.px
        number = venue.words[NEXT_MATCH]
        venue.words[NEXT_MATCH] = number + 1
        if owner != NO_OWNER:
            report_executed(venue.clients, owner, venue.stats, now_ns, user_ref, qty, px, REMOVED, number)
            book_fill(venue.positions, owner, instrument, side, qty, px, NOTHING)
        publish_executed(venue.market, now_ns, instrument, event.ref, qty, number, NOTHING)
        maker = np.int64(event.owner)
        if maker != NO_OWNER:
            against = other_side(side)
            report_executed(venue.clients, maker, venue.stats, now_ns, np.int64(event.user_ref), qty, px, ADDED, number)
            book_fill(venue.positions, maker, instrument, against, qty, px, -qty)
            if event.left == 0:
                forget(venue.clients, maker, venue.listing, venue.stats, np.int64(event.user_ref), side_row(instrument, against))
    venue.stats[0].executions += count


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def meets_own(clients, taker, maker):
    """What becomes of an order of account `taker` that meets a resting one of `maker`, which may be nobody's: the newer order's account
    has the say, as with NASDAQ's anti-internalization. TRADES where they have different owners."""
    if maker == NO_OWNER:
        return TRADES
    firm = clients.words[taker - 1, FIRM]
    if maker != taker and (firm == 0 or firm != clients.words[maker - 1, FIRM]):
        return TRADES
    return clients.words[taker - 1, SELF_TRADE]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def prevent(venue, verdict, handle, owner, user_ref, left, px):
    """Cancel what the verdict says instead of a trade at px: all that is left of the new order, or all of the resting one, or both.
    Returns what is left of the new order."""
    order = venue.book.orders[handle]
    now_ns = venue.words[NOW_NS]
    resting = np.int64(order.qty)
    prevented = min(left, resting)
    venue.stats[0].self_trades_prevented += 1
    if verdict != CANCEL_OLDEST:
        report_prevented(venue.clients, owner, venue.stats, now_ns, user_ref, left, prevented, px, REMOVED)
        left = NOTHING
    if verdict != CANCEL_NEWEST:
        publish_delete(venue.market, now_ns, np.int64(order.instrument), order_ref(venue.book, handle), NOTHING)
        report_prevented(venue.clients, np.int64(order.owner), venue.stats, now_ns, np.int64(order.user_ref), resting, prevented, px, ADDED)
        withdraw(venue, handle, resting)
    return left


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def first_own(venue, instrument, side, px, qty, owner, minimum):
    """The handle of the first order that an order of `owner` may not trade with, among those that it would reach; NOBODY_STOPS where
    there is none. Where prices are shared it reaches all orders of a price."""
    book = venue.book
    against = other_side(side)
    if venue.clients.words[owner - 1, SELF_TRADE] == TRADES or venue.listing.resting[side_row(instrument, against)] == 0:
        return NOBODY_STOPS
    reached = 0
    depth = 0
    while reached < qty:
        level = worse_level(book, instrument, against, depth)
        if level < 0 or not crosses(side, px, book.levels[level].px):
            break
        handle = np.int64(book.levels[level].head)
        while handle != NONE and (reached < qty or minimum != FIFO):
            if meets_own(venue.clients, owner, np.int64(book.orders[handle].owner)) != TRADES:
                return handle
            reached += np.int64(book.orders[handle].qty)
            handle = np.int64(book.orders[handle].next)
        depth += 1
    return NOBODY_STOPS


@njit(cache=True, _nrt=False)
def match(venue, instrument, side, px, qty, owner, user_ref, clients_only, stop):
    """Trade up to `qty` for an order of `side` that pays up to px (a sale: asks no less). Returns what is left of it.

    stop: the handle of a resting order at px, before which it ends, or NOBODY_STOPS. What history decided knows no pro-rata.
    """
    minimum = NOTHING if clients_only else np.int64(venue.listing.minimums[instrument])
    left = qty
    while left > 0:
        limit, own = px, stop
        if owner != NO_OWNER:
            own = first_own(venue, instrument, side, px, left, owner, minimum)
        own_px = limit
        if owner != NO_OWNER and own != NOBODY_STOPS:
            own_px = np.int64(venue.book.levels[venue.book.orders[own].level].px)
            limit = own_px
            if minimum != FIFO:
                limit += -1 if side == BUY else 1
        more = True
        while more:
            count, left = cross_book(
                venue.book, venue.events, NOTHING, venue.walk, instrument, side, limit, left, NOTHING, minimum, clients_only, own
            )
            tell_executions(venue, count, instrument, side, owner, user_ref)
            more = venue.walk[WALK_ON] != NOT_STOPPED
        if owner == NO_OWNER or own == NOBODY_STOPS:
            break
        if left > 0:
            left = prevent(venue, venue.clients.words[owner - 1, SELF_TRADE], own, owner, user_ref, left, own_px)
    return left


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def would_trade(venue, instrument, side, px, clients_only):
    """Whether the best of the other side is within px. With clients_only: and some client order rests there."""
    if clients_only and venue.listing.resting[side_row(instrument, other_side(side))] == 0:
        return False
    return is_met(venue.book, instrument, side, px)


@njit(cache=True, forceinline=True, _nrt=False)
def rest(venue, ref, instrument, side, px, qty, owner, user_ref, executed, flags):
    """Put what is left of an order on the book, and say nothing yet. Its handle, or what add_order said."""
    handle = add(venue.book, ref, instrument, side, px, qty)
    if handle < 0:
        return handle
    order = venue.book.orders[handle]
    order.executed = executed
    order.user_ref = user_ref
    order["flags"] = flags
    if owner != NO_OWNER:
        order.owner = owner
        remember(venue.clients, owner, venue.listing, venue.stats, user_ref, handle, side_row(instrument, side))
        change_open(venue.positions, owner, traded_instrument(instrument, flags), side, qty)
    return handle


@njit(cache=True, _nrt=False)
def submit(venue, ref, instrument, side, px, qty, immediate, owner, user_ref, executed, flags, clients_only, tracking, attribution):
    """A new order: trade what can be traded, rest the rest. Returns its handle where it rests, 0 where it is done, or why it cannot
    rest (add_order). `executed` is what its chain had executed before."""
    left = qty
    if would_trade(venue, instrument, side, px, clients_only):
        left = match(venue, instrument, side, px, qty, owner, user_ref, clients_only, NOBODY_STOPS)
    if left == 0:
        return 0
    now_ns = venue.words[NOW_NS]
    if immediate:
        if owner != NO_OWNER:
            report_canceled(venue.clients, owner, venue.stats, now_ns, user_ref, left, IOC_CANCEL)
        return 0
    kept = user_ref if owner != NO_OWNER else attribution
    handle = rest(venue, ref, instrument, side, px, left, owner, kept, executed + qty - left, flags)
    if handle >= 0:
        publish_add(venue.market, now_ns, instrument, venue.listing.symbols[instrument], ref, side, left, px, tracking, attribution)
    elif owner != NO_OWNER:
        report_canceled(venue.clients, owner, venue.stats, now_ns, user_ref, left, CANCEL_BY_SYSTEM)
    return handle


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def withdraw(venue, handle, qty):
    """Take `qty` off a resting order, at most what it has, and say nothing yet. Returns what is left of it."""
    order = venue.book.orders[handle]
    owner = np.int64(order.owner)
    if owner != NO_OWNER:
        instrument = np.int64(order.instrument)
        side = np.int64(order.side)
        if qty >= order.qty:
            forget(venue.clients, owner, venue.listing, venue.stats, np.int64(order.user_ref), side_row(instrument, side))
        traded = traded_instrument(instrument, np.int64(order["flags"]))
        change_open(venue.positions, owner, traded, side, -min(qty, np.int64(order.qty)))
    return take(venue.book, handle, qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def rest_for_cross(venue, ref, shadow, side, px, qty, owner, user_ref, executed, flags):
    """Put an order on a shadow's side, where it waits for the cross and nobody is shown it. Returns as rest does."""
    handle = rest(venue, ref, shadow, side, px, qty, owner, user_ref, executed, flags)
    if handle < 0 and owner != NO_OWNER:
        report_canceled(venue.clients, owner, venue.stats, venue.words[NOW_NS], user_ref, qty, CANCEL_BY_SYSTEM)
    return handle


@njit(cache=True, _nrt=False)
def move(venue, handle, ref, px, qty, immediate, user_ref, executed, clients_only, tracking):
    """Replace a resting order by one with another ref, behind all others of its price; `qty` is what is to be open, not 0. One for a cross
    stays one.

    Returns as submit does. Published as U where nothing trades, otherwise as the old order's end and what becomes of the new one.
    """
    order = venue.book.orders[handle]
    instrument = np.int64(order.instrument)
    side = np.int64(order.side)
    owner = np.int64(order.owner)
    flags = np.int64(order["flags"])
    attribution = NOTHING if owner != NO_OWNER else np.int64(order.user_ref)
    old_ref = order_ref(venue.book, handle)
    now_ns = venue.words[NOW_NS]
    withdraw(venue, handle, np.int64(order.qty))
    if flags & FOR_CROSS != 0:
        return rest_for_cross(venue, ref, instrument, side, px, qty, owner, user_ref, executed, flags)
    if immediate or would_trade(venue, instrument, side, px, clients_only):
        publish_delete(venue.market, now_ns, instrument, old_ref, tracking)
        return submit(
            venue, ref, instrument, side, px, qty, immediate, owner, user_ref, executed, flags, clients_only, tracking, attribution
        )
    kept = user_ref if owner != NO_OWNER else attribution
    handle = rest(venue, ref, instrument, side, px, qty, owner, kept, executed, flags)
    if handle >= 0:
        publish_replace(venue.market, now_ns, instrument, old_ref, ref, qty, px, tracking)
        return handle
    publish_delete(venue.market, now_ns, instrument, old_ref, tracking)
    if owner != NO_OWNER:
        report_canceled(venue.clients, owner, venue.stats, now_ns, user_ref, qty, CANCEL_BY_SYSTEM)
    return handle
