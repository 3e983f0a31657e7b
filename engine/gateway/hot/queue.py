"""Orders that wait: for a token of the venue's pace, or for bytes before them that the socket has not taken.

Four lanes, the first that has anything goes first, and within a lane it is first in, first out:

    cancels      they wait for bytes only, and there are places that only they may take
    reducing     orders that can only bring a position nearer to zero
    aggressive   orders that would trade with the quote as it was when they came
    passive      all others

    places   orders[3] ──next──▶ orders[0] ──next──▶ ...      a list for each lane, and one of free places
    by_id    order id & mask ─▶ place + 1                     of waiting orders and replaces; a cancel bears its order's id

Nothing here judges or sends (take.py does). Everything costs the same however many wait.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.layout import MSG_CANCEL

CANCELS = 0
REDUCING = 1
AGGRESSIVE = 2
PASSIVE = 3
LANES = 4

NOWHERE = -1

# Words of Queue.words. First and last of a lane: a place, or NOWHERE.
WAITING = 0
FREE_FIRST = 1
ORDERS_MAX = 2  # with so many waiting, none but cancels may join them
FIRST = 3
LAST = FIRST + LANES
QUEUE_WORDS = LAST + LANES

#   0             8      12     16     20    24
#   +-------------+------+------+------+-----+
#   | entered_tsc | next | prev | lane | pad |
#   +-------------+------+------+------+-----+
# next of a free place: the next free one.
LINK = np.dtype([("entered_tsc", "i8"), ("next", "i4"), ("prev", "i4"), ("lane", "i4"), ("pad", "i4")], align=True)

# Ids are the strategy's and grow by one: with so many entries for each place, two that wait share one only if thousands lie between.
IDS_PER_PLACE = 4


class Queue(NamedTuple):
    """orders (places,) ORDER copies of what came; links (places,) LINK; by_id (a power of two,) int64; words (QUEUE_WORDS,) int64."""

    orders: np.ndarray
    links: np.ndarray
    by_id: np.ndarray
    words: np.ndarray


@njit(cache=True, _nrt=False)
def enqueue(queue, order, lane, tsc):
    """Put a copy of an order last in a lane. Returns its place, or NOWHERE: all are taken, or one that waits has its entry in by_id."""
    words = queue.words
    place = words[FREE_FIRST]
    if place == NOWHERE:
        return place
    if order.kind != MSG_CANCEL:
        if words[WAITING] >= words[ORDERS_MAX]:
            return np.int64(NOWHERE)
        index = order.order_id & (queue.by_id.shape[0] - 1)
        if queue.by_id[index] != 0:
            return np.int64(NOWHERE)
        queue.by_id[index] = place + 1
    link = queue.links[place]
    words[FREE_FIRST] = link.next
    queue.orders[place] = order
    last = words[LAST + lane]
    link.entered_tsc = tsc
    link.next = NOWHERE
    link.prev = last
    link.lane = lane
    if last == NOWHERE:
        words[FIRST + lane] = place
    else:
        queue.links[last].next = place
    words[LAST + lane] = place
    words[WAITING] += 1
    return place


@njit(cache=True, _nrt=False)
def leave(queue, place):
    """Take what waits at a place out, from wherever in its lane it stands."""
    words, link = queue.words, queue.links[place]
    if link.prev == NOWHERE:
        words[FIRST + link.lane] = link.next
    else:
        queue.links[link.prev].next = link.next
    if link.next == NOWHERE:
        words[LAST + link.lane] = link.prev
    else:
        queue.links[link.next].prev = link.prev
    if queue.orders[place].kind != MSG_CANCEL:
        queue.by_id[queue.orders[place].order_id & (queue.by_id.shape[0] - 1)] = 0
    link.next = words[FREE_FIRST]
    words[FREE_FIRST] = place
    words[WAITING] -= 1


@njit(cache=True, _nrt=False)
def place_waiting(queue, order_id):
    """The place where the order or replace of this id waits, or NOWHERE."""
    place = queue.by_id[order_id & (queue.by_id.shape[0] - 1)] - 1
    if place >= 0 and queue.orders[place].order_id == order_id:
        return place
    return np.int64(NOWHERE)


@njit(cache=True, _nrt=False)
def most_urgent(queue):
    """The place of what goes next, or NOWHERE."""
    for lane in range(LANES):
        if queue.words[FIRST + lane] != NOWHERE:
            return queue.words[FIRST + lane]
    return np.int64(NOWHERE)
