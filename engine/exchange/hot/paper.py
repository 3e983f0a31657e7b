"""Trading on paper: a real market, as the feed handler applied it, and our clients' orders beside it.

    feed handler ══ ring "market" ══▶ buffer ──▶ replay.py ──▶ history.py: the market's book, with our clients' orders in it

The rule by which they fill is history.py's, and what is assumed is this. A client's order stands in the queue of its price behind
every displayed order that was there when it came, by order reference, and moves up as those trade, are cancelled, or are replaced. It
fills when the market trades at its price behind it or beyond it, at a worse price, or when a displayed order arrives that crosses it.
Only displayed orders count: hidden ones, and trades against them (P), neither fill nor delay it. Nothing it does changes what the market
does later: a client that takes an order withdraws those shares from this book, and only from this one.

Where the feed handler does not vouch for a book there are no fills: history goes on, and new orders are rejected as in a halt. When the
book is good again, a client's order that it has run over is cancelled, since nobody knows what would have become of it; and so is all
that rests on a book that is made anew, for its place in the queue is lost. Nothing is published.
"""

import numpy as np
from numba import njit

from engine.book.hot.book import NONE, best_level, side_row
from engine.exchange.hot.core import crosses, other_side
from engine.exchange.hot.listing import NOT_LISTED
from engine.exchange.hot.matching import take
from engine.exchange.hot.orders import cut_order
from engine.exchange.hot.reports import CANCEL_BY_SYSTEM
from engine.exchange.hot.state import FROM, HEAD, NO_OWNER, PACKET_MESSAGES, PACKET_SIZE, TAIL, TO
from engine.feed.hot.handover import (
    LENGTH_AT,
    NOTICE_CLEAR,
    NOTICE_CLEAR_ONE,
    NOTICE_INSTRUMENT,
    NOTICE_VALIDITY,
    NOTICE_VALUE,
    SLOT_BYTES,
)
from engine.feed.itch import STOCK_DIRECTORY, TRADING_ACTION
from engine.feed.moldudp64 import HEADER_BYTES
from engine.layout import BOOK_GAPPED, BOOK_OVERFLOW, BOOK_STALE, BOOK_SUSPECT, BUY, SELL
from engine.wire.hot.bytes import get_u16
from shm.hot import EMPTY, advance, poll, release

# In place of a file's descriptor: messages come from the ring.
FROM_RING = -2
# The trading state of an instrument whose book is in doubt; no venue has it.
DOUBTFUL = ord("?")
# Of a book: it may not be what the market's is; and it may be late besides.
UNPROVEN = BOOK_GAPPED | BOOK_SUSPECT | BOOK_OVERFLOW
NOT_TRUSTED = UNPROVEN | BOOK_STALE

LOCATE = STOCK_DIRECTORY["locate"]
ACTION_CODE = TRADING_ACTION.code
ACTION_STATE = TRADING_ACTION["state"]
FRAME_BYTES_MAX = SLOT_BYTES - LENGTH_AT
TAKEN_PER_STEP = 64


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_messages(paper, words, buffer):
    """Move some messages from the ring into an empty buffer, where they lie as in a file."""
    if words[FROM] != words[TO]:
        return
    at = 0
    for _ in range(TAKEN_PER_STEP):
        index = poll(paper.ring)
        if index == EMPTY:
            break
        place = index * SLOT_BYTES + LENGTH_AT
        size = 2 + get_u16(paper.raw, place)
        for byte in range(min(size, FRAME_BYTES_MAX)):
            buffer[at + byte] = paper.raw[place + byte]
        at += size
        advance(paper.ring)
    words[FROM] = 0
    words[TO] = at
    if at != 0:
        release(paper.ring)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_unproven(paper, source, at):
    """Whether the message is of an instrument on whose book nothing may fill."""
    return paper.validity[get_u16(source, at + LOCATE)] & UNPROVEN != 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_state(paper, listing, source, at):
    """After a message was applied: a trading state told while the book is in doubt counts from when it is not."""
    if source[at] != ACTION_CODE:
        return
    instrument = get_u16(source, at + LOCATE)
    paper.told[instrument] = source[at + ACTION_STATE]
    if paper.validity[instrument] & NOT_TRUSTED != 0:
        listing.states[instrument] = DOUBTFUL


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def heed(paper, venue, source, at):
    """Do what the notice at source[at:] says (engine/feed/hot/handover.py)."""
    code = source[at]
    instrument = get_u16(source, at + NOTICE_INSTRUMENT)
    value = source[at + NOTICE_VALUE]
    if code == NOTICE_VALIDITY:
        change_validity(paper, venue, instrument, value)
    elif code == NOTICE_CLEAR_ONE:
        empty_instrument(venue, instrument)
    elif code == NOTICE_CLEAR:
        for number in range(venue.book.sides.shape[0] >> 1):
            empty_instrument(venue, number)
            paper.told[number] = 0
            venue.listing.states[number] = DOUBTFUL if paper.validity[number] & NOT_TRUSTED != 0 else 0
        if value != 0:
            venue.listing.symbols[:] = 0
            venue.listing.lookup[:] = NOT_LISTED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def change_validity(paper, venue, instrument, value):
    before = paper.validity[instrument]
    paper.validity[instrument] = value
    venue.listing.states[instrument] = DOUBTFUL if value & NOT_TRUSTED != 0 else paper.told[instrument]
    if before & UNPROVEN != 0 and value & UNPROVEN == 0:
        for side in (BUY, SELL):
            cancel_overrun(venue, instrument, np.int64(side))


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cancel_overrun(venue, instrument, side):
    """Cancel the clients' orders of a side that stand at or beyond the best of the other side."""
    book = venue.book
    while True:
        level = best_level(book, instrument, side)
        against = best_level(book, instrument, other_side(side))
        if level < 0 or against < 0 or not crosses(side, np.int64(book.levels[level].px), np.int64(book.levels[against].px)):
            return
        handle = np.int64(book.levels[level].head)
        while handle != NONE and book.orders[handle].owner == NO_OWNER:
            handle = np.int64(book.orders[handle].next)
        if handle == NONE:
            return
        cut_order(venue, handle, np.int64(book.orders[handle].qty), CANCEL_BY_SYSTEM)
        venue.stats[0].places_lost += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def empty_instrument(venue, instrument):
    """Take everything off an instrument's book. Clients are told that theirs is cancelled."""
    book = venue.book
    for side in (BUY, SELL):
        while book.sides[side_row(instrument, side)].count != 0:
            handle = np.int64(book.levels[best_level(book, instrument, np.int64(side))].head)
            qty = np.int64(book.orders[handle].qty)
            if book.orders[handle].owner == NO_OWNER:
                take(book, handle, qty)
            else:
                cut_order(venue, handle, qty, CANCEL_BY_SYSTEM)
                venue.stats[0].places_lost += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_nothing(market):
    """Give up what was written for the market: on paper there is nobody to tell."""
    market.words[PACKET_SIZE] = HEADER_BYTES
    market.words[PACKET_MESSAGES] = 0
    for line in range(market.lines.shape[0]):
        market.lines[line, TAIL] = market.words[HEAD]
