"""Writing a snapshot: Glimpse messages, as sequenced packets, into the buffer from which its viewer is sent them.

    S, all R ──▶ each instrument's H, Y, N, h ──▶ each instrument's orders, A or F ──▶ G: where the feed goes on

Nothing is published while a snapshot is written, so that all of it is as of one sequence number. That pause is what it costs; it is
spread over steps of UNITS_PER_STEP orders, notices or turns to the next price, so that no step is long. Sending begins when it is over
(perf/bench_exchange.py measures it).
A side's levels come from the worst to the best, so that whoever builds a book keeps adding where books have their best.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, order_ref
from engine.exchange.hot.archive import DIRECTORY_PLACE, NOTICE_BYTES, NOTICE_PLACES, NOTICES, copy_to
from engine.exchange.hot.connection import ZERO, write_number
from engine.exchange.hot.market import ADD_BYTES, ADD_MPID_BYTES, LENGTHS, write_add
from engine.exchange.hot.state import (
    AT_INSTRUMENT,
    AT_LEVEL,
    AT_ORDER,
    AT_SIDE,
    LOCATE_MAX,
    NO_OWNER,
    NOTHING,
    NOW_NS,
    OUT_END,
    PART,
    PUBLISHED,
)
from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.wire.hot.bytes import put_u16
from engine.wire.soupbintcp import LENGTH_BYTES, PAYLOAD_AT, SEQUENCED, TYPE_AT

UNITS_PER_STEP = 1024

PART_DIRECTORY = 0
PART_STATES = 1
PART_ORDERS = 2
PART_END = 3

# What one instrument's notices, one order, and what comes before and after them, take at most.
INSTRUMENT_BYTES = sum(PAYLOAD_AT + message.length for message in NOTICES)
ORDER_BYTES = PAYLOAD_AT + int(ADD_MPID_BYTES)
OTHER_BYTES = 1024

END_CODE, END_BYTES, END_SEQUENCE = END_OF_SNAPSHOT.code, np.int64(END_OF_SNAPSHOT.length), END_OF_SNAPSHOT["sequence"]
STATE_PLACES = tuple(np.int64(NOTICE_PLACES[message.code]) for message in NOTICES[1:])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def begin_snapshot(words):
    words[PART] = PART_DIRECTORY
    words[AT_INSTRUMENT] = 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def write_snapshot(words, viewer, venue, archive):
    """Write on where `words` say the snapshot stands. True when it is whole."""
    for _ in range(UNITS_PER_STEP):
        if words[PART] == PART_ORDERS:
            write_order(words, viewer, venue)
        elif words[PART] == PART_END:
            at = open_packet(viewer, END_BYTES)
            viewer.outbound[at] = END_CODE
            write_number(viewer.outbound, at + END_SEQUENCE, venue.market.words[PUBLISHED] + 1, ZERO)
            return True
        elif words[PART] == PART_DIRECTORY:
            write_notice(viewer, archive, words[AT_INSTRUMENT], DIRECTORY_PLACE)
            words[AT_INSTRUMENT] += 1
        else:
            for place in STATE_PLACES:
                write_notice(viewer, archive, words[AT_INSTRUMENT], place)
            words[AT_INSTRUMENT] += 1
        if words[AT_INSTRUMENT] > archive.words[LOCATE_MAX]:
            words[PART] += 1
            words[AT_INSTRUMENT] = 0
            words[AT_SIDE] = 0
            words[AT_LEVEL] = -1
            words[AT_ORDER] = NONE
    return False


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_packet(viewer, length):
    """Begin a sequenced packet for a message of `length` bytes: where in outbound it goes."""
    at = viewer.words[OUT_END]
    put_u16(viewer.outbound, at, PAYLOAD_AT - LENGTH_BYTES + length)
    viewer.outbound[at + TYPE_AT] = SEQUENCED
    viewer.words[OUT_END] = at + PAYLOAD_AT + length
    return at + PAYLOAD_AT


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def write_notice(viewer, archive, instrument, place):
    """The notice in that place of the instrument's line, if there has been one."""
    start = instrument * NOTICE_BYTES + place
    length = LENGTHS[archive.notices[start]]
    if length != 0:
        copy_to(viewer.outbound, open_packet(viewer, length), archive.notices, start, length)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def write_order(words, viewer, venue):
    """The next order of the level, or go to the next level, side or instrument."""
    book = venue.book
    handle = words[AT_ORDER]
    if handle != NONE:
        put_order(viewer, venue, handle)
        words[AT_ORDER] = np.int64(book.orders[handle].next)
        return
    side = book.sides[2 * words[AT_INSTRUMENT] + words[AT_SIDE]]
    words[AT_LEVEL] += 1
    if words[AT_LEVEL] < side.count:
        words[AT_ORDER] = np.int64(book.levels[book.ids[np.int64(side.start) + words[AT_LEVEL]]].head)
        return
    words[AT_LEVEL] = -1
    words[AT_SIDE] += 1
    if words[AT_SIDE] == 2:
        words[AT_SIDE] = 0
        words[AT_INSTRUMENT] += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_order(viewer, venue, handle):
    """An order as it stands: A, or F with the participant's name where history gave one."""
    order = venue.book.orders[handle]
    instrument = np.int64(order.instrument)
    attribution = np.int64(order.user_ref) if order.owner == NO_OWNER else NOTHING
    at = open_packet(viewer, ADD_BYTES if attribution == 0 else ADD_MPID_BYTES)
    write_add(
        viewer.outbound, at, venue.words[NOW_NS], instrument, venue.listing.symbols[instrument], order_ref(venue.book, handle),
        np.int64(order.side), np.int64(order.qty), np.int64(venue.book.levels[order.level].px), NOTHING, attribution,
    )  # fmt: skip
    venue.stats[0].snapshot_orders += 1
