"""The arrays of the gateway's queue and of its token bucket (hot/queue.py, hot/pacing.py)."""

import numpy as np

from engine.gateway.hot import pacing
from engine.gateway.hot.queue import FIRST, IDS_PER_PLACE, LANES, LAST, LINK, NOWHERE, ORDERS_MAX, QUEUE_WORDS, Queue
from engine.layout import ORDER

# Places that only cancels may take: while bytes flow they are sent in the turn in which they come, a ring's batch at a time.
CANCEL_PLACES = 64


def make_queue(orders_max: int) -> Queue:
    """An empty queue for at most `orders_max` orders and some more cancels. ValueError where that is none, or more than is of use."""
    if not 1 <= orders_max <= 1 << 20:
        raise ValueError(f"queue_max={orders_max}: expected 1 to {1 << 20} orders that may wait at once")
    places = orders_max + CANCEL_PLACES
    links = np.zeros(places, LINK).view(np.recarray)
    links.next = np.arange(1, places + 1)
    links.next[-1] = NOWHERE
    words = np.zeros(QUEUE_WORDS, np.int64)
    words[FIRST : LAST + LANES] = NOWHERE
    words[ORDERS_MAX] = orders_max
    ids = 1 << (IDS_PER_PLACE * places - 1).bit_length()
    return Queue(orders=np.zeros(places, ORDER).view(np.recarray), links=links, by_id=np.zeros(ids, np.int64), words=words)


def make_pace(pace_per_s: int, burst: int) -> np.ndarray:
    """A full token bucket; pace_per_s=0 is none. ValueError where a pace could never let a message pass, or does not fit."""
    if not 0 <= pace_per_s <= 1_000_000_000:
        raise ValueError(f"pace_per_s={pace_per_s}: expected 0 (no pace) to 1000000000 messages a second")
    if not 1 <= burst <= 1_000_000_000:
        raise ValueError(f"pace_burst={burst}: expected 1 to 1000000000 messages")
    pace = np.zeros(pacing.PACE_WORDS, np.int64)
    pace[pacing.PACE_PER_S] = pace_per_s
    pace[pacing.PACE_MAX] = pace[pacing.PACE_LEVEL] = burst * pacing.TOKEN
    pace[pacing.PACE_DEBT_MAX] = max(pace_per_s, burst) * pacing.TOKEN
    return pace
