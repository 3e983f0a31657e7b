"""What a strategy's turn works on: named tuples of arrays (engine/strategy/stage.py makes them)."""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.book.hot.book import Book
from engine.layout import CONTROL
from engine.messages.hot.stamp import Clock
from shm.hot import ConsumerEnd, ProducerEnd

# Words of Context.words. All but LAST_ID and the timer's two are of the event being handled.
LAST_ID = 0
ORIGIN_TSC = 1
TS_NS = 2
NOW_NS = 3
POLLED_TSC = 4
SENT_TSC = 5
TIMER_TSC = 6
TIMER_NS = 7
# How many levels the last book_depth read.
LEVELS_READ = 8
# 1 once the session was up: what the gateway had reconciled by then is what positions begin with.
RECONCILED = 9
WORDS = 16

# The most levels that book_depth reads.
DEPTH_MAX = 64

# The sides of so many latest orders are remembered, for a replace or a cancel to carry the right one.
SIDES = 1 << 20

# Words of a control record.
PHASE = CONTROL.fields["phase"][1] // 8
SESSION_UP = CONTROL.fields["session_up"][1] // 8
FIRST_ORDER_TSC = CONTROL.fields["first_order_tsc"][1] // 8

# place_of an instrument that the strategy does not trade.
NOWHERE = -1


class Context(NamedTuple):
    """`ctx` of every handler: where orders go, and what they are judged by before they leave.

    orders the producer of the orders ring; places (n,) PLACE records; place_of (65536,) int32: an instrument's place or NOWHERE;
    sides (SIDES,) uint8 by order id; control (words,) int64; stats (1,) record; words (WORDS,) int64; book the feed handler's;
    levels_read (DEPTH_MAX, 3) int64: what book_depth read.
    """

    orders: ProducerEnd
    places: np.ndarray
    place_of: np.ndarray
    sides: np.ndarray
    control: np.ndarray
    stats: np.ndarray
    words: np.ndarray
    clock: Clock
    book: Book
    levels_read: np.ndarray


class Strategy(NamedTuple):
    """A strategy's state. ticks and reports are its ends of the rings; levels, trades, statuses and instruments are the slots of
    ticks under their other layouts; params (1,) and memory (n,) are records of the strategy's own; held is the gateway's board of
    positions; timer and status (1,) are what
    on_timer and on_status are given; tick_ring and decision are histogram words; the rest is in Context.
    """

    ticks: ConsumerEnd
    levels: np.ndarray
    trades: np.ndarray
    statuses: np.ndarray
    instruments: np.ndarray
    reports: ConsumerEnd
    orders: ProducerEnd
    places: np.ndarray
    place_of: np.ndarray
    sides: np.ndarray
    control: np.ndarray
    stats: np.ndarray
    words: np.ndarray
    params: np.ndarray
    memory: np.ndarray
    held: np.ndarray
    timer: np.ndarray
    status: np.ndarray
    tick_ring: np.ndarray
    decision: np.ndarray
    book: Book
    levels_read: np.ndarray


@njit(cache=True, forceinline=True, _nrt=False)
def context_of(stage, clock):
    return Context(
        stage.orders,
        stage.places,
        stage.place_of,
        stage.sides,
        stage.control,
        stage.stats,
        stage.words,
        clock,
        stage.book,
        stage.levels_read,
    )
