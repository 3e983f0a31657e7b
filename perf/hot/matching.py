"""The kernel that perf/bench_matching.py times: orders as an array in, through the exchange's matching core, events as an array out."""

import numpy as np
from numba import njit

from engine.book.hot.book import add_order, remove_order
from engine.exchange.hot.core import NOBODY_STOPS, cross_book, is_met

# Kinds of orders.
NEW, CANCEL, MODIFY = 0, 1, 2
# Kinds of events; 1 is the core's TRADED.
ACCEPTED, CANCELED, MODIFIED, CANCEL_REJECTED, MODIFY_REJECTED, NO_ROOM = 2, 3, 4, 5, 6, 7
INSTRUMENT = np.int64(1)

#   0      1      2           3     4     8    12    16    24
#   +------+------+-----------+-----+-----+----+-----+-----+
#   | kind | side | immediate | pad | qty | id | pad | px  |
#   +------+------+-----------+-----+-----+----+-----+-----+
ORDER = np.dtype(
    [("kind", "u1"), ("side", "u1"), ("immediate", "u1"), ("pad", "u1"), ("qty", "u4"), ("id", "u4"), ("pad_2", "u4"), ("px", "i8")]
)


@njit(cache=True, forceinline=True, _nrt=False)
def tell(event, kind, number, qty, px):
    """An event about the order with that id."""
    event.ref = number
    event.taker = 0
    event.px = px
    event.qty = qty
    event.left = 0
    event.owner = 0
    event.user_ref = number
    event.kind = kind


@njit(cache=True, _nrt=False)
def run(book, handles, orders, events, walk, first_ref, minimum):
    """All orders in their order. handles (ids,) uint32: the live order of each id, as a session's table has it. events: room for
    all, so that `walk`, the core's own words, stays as it was made. Returns how many events there are.

    The book gives orders refs of its own, in the order of their arrival, as an exchange does; ids may come in any order. A modified
    order is taken off and comes anew, with its id and a new ref.
    """
    at = 0
    ref = first_ref
    for number in range(orders.shape[0]):
        order = orders[number]
        kind = order.kind
        key = np.int64(order.id)
        qty = np.int64(order.qty)
        px = order.px
        side = np.int64(order.side)
        if kind != NEW:
            handle = np.int64(handles[key])
            if handle == 0:
                tell(events[at], CANCEL_REJECTED if kind == CANCEL else MODIFY_REJECTED, key, 0, 0)
                at += 1
                continue
            there = np.int64(book.orders[handle].qty)
            remove_order(book, handle)
            handles[key] = 0
            tell(events[at], CANCELED if kind == CANCEL else MODIFIED, key, there if kind == CANCEL else qty, px)
            at += 1
            if kind == CANCEL:
                continue
        else:
            tell(events[at], ACCEPTED, key, qty, px)
            at += 1
        left = qty
        if is_met(book, INSTRUMENT, side, px):
            first = at
            at, left = cross_book(book, events, at, walk, INSTRUMENT, side, px, qty, key, minimum, False, NOBODY_STOPS)
            for event in range(first, at):
                if events[event].left == 0:
                    handles[events[event].user_ref] = 0
        if left == 0:
            continue
        if order.immediate != 0:
            tell(events[at], CANCELED, key, left, px)
            at += 1
            continue
        handle = add_order(book, ref, INSTRUMENT, side, px, left)
        ref += 1
        if handle < 0:
            tell(events[at], NO_ROOM, key, left, px)
            at += 1
            continue
        book.orders[handle].user_ref = key
        handles[key] = handle
    return at
