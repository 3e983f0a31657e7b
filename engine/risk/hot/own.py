"""Our own open orders, so that no order of ours can trade with another: a list for each side of an instrument, and its best price.

    lines[place].asks ──▶ own[7] ──▶ own[3] ──▶ own[9]        lowest_ask: no offer of ours is below it

The bound only gets nearer while orders come; it is put right by a walk along the list when an order would be refused by it, so an order
that meets none of ours costs one comparison. An order is in its list from the moment it is sent until nothing of it can trade any
more: what waits for its acceptance, its cancel or its replacement counts, and so does what nobody knows the fate of.
"""

from numba import njit

from engine.layout import BUY
from engine.risk.hot.state import SCAN_MAX


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def crosses_own(risk, line, side, px):
    """Whether an order at this price could trade with one of ours."""
    if side == BUY:
        if line.ask_count == 0 or px < line.lowest_ask:
            return 0
        return 1 if px >= nearest_ask(risk, line) else 0
    if line.bid_count == 0 or px > line.highest_bid:
        return 0
    return 1 if px <= nearest_bid(risk, line) else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def nearest_ask(risk, line):
    """The lowest offer of ours, by a walk; the bound as it was where the list is too long to walk."""
    index = line.asks
    lowest = risk.own[index - 1].px
    for _ in range(SCAN_MAX):
        lowest = min(lowest, risk.own[index - 1].px)
        index = risk.own[index - 1].next
        if index == 0:
            line.lowest_ask = lowest
            break
    return line.lowest_ask


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def nearest_bid(risk, line):
    index = line.bids
    highest = risk.own[index - 1].px
    for _ in range(SCAN_MAX):
        highest = max(highest, risk.own[index - 1].px)
        index = risk.own[index - 1].next
        if index == 0:
            line.highest_bid = highest
            break
    return line.highest_bid


@njit(cache=True, _nrt=False, forceinline=True)
def link(risk, index, instrument, side, px):
    """Put the order at place `index` of the order table into its list. The instrument has passed the gate, so it has a line."""
    entry = risk.own[index]
    entry.place = risk.known[instrument].place - 1
    entry.side = side
    entry.linked = 0
    relink(risk, index, px)


@njit(cache=True, _nrt=False, forceinline=True)
def relink(risk, index, px):
    """Put an order back into its list, or tell it a price that the venue has made another of."""
    entry = risk.own[index]
    line = risk.lines[entry.place]
    entry.px = px
    if entry.side == BUY:
        line.highest_bid = max(line.highest_bid, px) if line.bid_count != 0 else px
    else:
        line.lowest_ask = min(line.lowest_ask, px) if line.ask_count != 0 else px
    if entry.linked != 0:
        return
    entry.linked = 1
    entry.prev = 0
    if entry.side == BUY:
        entry.next = line.bids
        line.bids = index + 1
        line.bid_count += 1
    else:
        entry.next = line.asks
        line.asks = index + 1
        line.ask_count += 1
    if entry.next != 0:
        risk.own[entry.next - 1].prev = index + 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def relist(risk, index, px):
    """Tell the list a price that the venue has made another of. Orders that are in no list, as those of an earlier life in what may not
    be traded any more, stay out of it."""
    if risk.own[index].linked != 0:
        relink(risk, index, px)


@njit(cache=True, _nrt=False, forceinline=True)
def unlink(risk, index):
    """Take an order that can trade no more out of its list."""
    entry = risk.own[index]
    if entry.linked == 0:
        return
    entry.linked = 0
    line = risk.lines[entry.place]
    if entry.next != 0:
        risk.own[entry.next - 1].prev = entry.prev
    if entry.prev != 0:
        risk.own[entry.prev - 1].next = entry.next
    elif entry.side == BUY:
        line.bids = entry.next
    else:
        line.asks = entry.next
    if entry.side == BUY:
        line.bid_count -= 1
    else:
        line.ask_count -= 1
