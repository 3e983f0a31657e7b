"""The risk gate as a kernel: an order in, 0 or the reason to refuse it out. Nothing is sent that this did not pass.

The checks run from cheap to dear and stop at the first that fails; each has its own counter. A limit is a word that was checked
to be positive before the loop (engine/risk/limits.py), so nothing here can be off by accident. All arithmetic is in int64 and
cannot wrap: prices are bounded before they are multiplied, and quantities by their limit.

The reference of the collar is the middle of the live best bid and offer. Without both sides, or on a book whose flags are anything
but VALID, or torn, or older than the limit, there is no reference and the order is refused. A cancel only ever lowers what is at
stake: it needs a session and an open order, and neither phase, kill word, book nor rate can hold it up.

The kernels are inlined and compiled without numba's reference counts (_nrt=False), which would cost more than all checks together.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.layout import BOOK_VALID, BUY, CONTROL, MSG_CANCEL, MSG_NEW, MSG_REPLACE, PHASE_TRADING, SELL, TIF_DAY, TIF_IOC
from engine.messages.hot.stamp import wall_ns
from shm.atomics import load_acquire
from shm.hot import board_read

# Reasons to refuse. engine/risk/limits.py has a sentence for each; a venue's own reasons begin at VENUE_REASONS.
PASSED = 0
REASON_ILLEGAL = 1
REASON_KILLED = 2
REASON_PHASE = 3
REASON_NO_SESSION = 4
REASON_UNKNOWN_ORDER = 5
REASON_REPLACE_PENDING = 6
REASON_DUPLICATE_ID = 7
REASON_ORDER_TABLE_FULL = 8
REASON_EXECUTIONS_FULL = 9
REASON_UNKNOWN_INSTRUMENT = 10
REASON_QUANTITY = 11
REASON_VENUE_QUANTITY = 12
REASON_PRICE = 13
REASON_NOTIONAL = 14
REASON_NO_REFERENCE = 15
REASON_BOOK_NOT_VALID = 16
REASON_REFERENCE_OLD = 17
REASON_COLLAR = 18
REASON_POSITION = 19
REASON_RATE = 20
# Not refusals of the gate: what became of an order that no message of the venue spells out.
REASON_REPLACED_ORDER_DONE = 21
REASON_DEAD_ON_ARRIVAL = 22
REASONS = 32
VENUE_REASONS = 256

# Words of Risk.limits (engine/risk/limits.py fills them).
QTY_MAX = 0
NOTIONAL_MAX = 1
COLLAR = 2
POSITION_MAX = 3
RATE = 4
BUCKET_MAX = 5
REFILL_NS = 6
REFERENCE_AGE_NS = 7
VENUE_QTY_MAX = 8
LIMIT_WORDS = 9

# The collar is kept in hundredths of a basis point, so that a fraction of one can be asked for.
COLLAR_UNITS = 1_000_000

# Above this a price is not one: 2^40 leaves room to double it and multiply it by COLLAR_UNITS.
PX_MAX = 1 << 40

# The largest product of quantity and price: beyond it the limit was passed long ago, below it int64 holds it exactly.
NOTIONAL_SAFE = float(1 << 62)

# Words of Risk.bucket. A message costs TOKEN; a nanosecond brings RATE, up to BUCKET_MAX: exact, without a division.
LEVEL = 0
FILLED_NS = 1
BUCKET_WORDS = 2
TOKEN = 1_000_000_000

# A board line is written in a few nanoseconds: one that is torn this often in a row is not being written by a feed handler.
BOARD_TRIES = 8

# Words of a control record.
PHASE = CONTROL.fields["phase"][1] // 8
KILL = CONTROL.fields["kill"][1] // 8
SESSION_UP = CONTROL.fields["session_up"][1] // 8


class Risk(NamedTuple):
    """What the gate looks at; engine/risk/limits.py makes it.

    limits (LIMIT_WORDS,) and bucket (BUCKET_WORDS,) int64; counts (REASONS,) int64: orders by reason, those that passed at 0;
    allowed (n,) int64 packed symbols; known (instruments,) records: the instrument line seen last, and its symbol if allowed;
    quotes, instruments, positions boards; quote, instrument (1,) records to copy into; control (words,) int64.
    """

    limits: np.ndarray
    bucket: np.ndarray
    counts: np.ndarray
    allowed: np.ndarray
    known: np.ndarray
    quotes: np.ndarray
    quote: np.ndarray
    instruments: np.ndarray
    instrument: np.ndarray
    positions: np.ndarray
    control: np.ndarray


@njit(cache=True, _nrt=False, forceinline=True)
def check(risk, clock, now_tsc, order, standing, counted_qty, executed_qty):
    """Judge an order, and count the verdict.

    standing is what the gateway's order table says of it (a reason, or PASSED). counted_qty is the quantity that already counts
    against the limits: 0 for a new order, for a replace what may be open of the order it replaces, for a cancel what is open.
    executed_qty is what the chain of a replaced order has executed, which the venue counts as part of the new quantity.
    """
    if order.kind == MSG_CANCEL:
        reason = judge_cancel(risk, order, standing, counted_qty)
    else:
        reason = judge_order(risk, clock, now_tsc, order, standing, counted_qty, executed_qty)
    risk.counts[reason] += 1
    return reason


@njit(cache=True, _nrt=False, forceinline=True)
def judge_cancel(risk, order, standing, open_qty):
    if load_acquire(risk.control, SESSION_UP) == 0:
        return REASON_NO_SESSION
    if standing != PASSED:
        return standing
    if order.qty < 0 or order.qty >= open_qty:
        return REASON_QUANTITY
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def judge_order(risk, clock, now_tsc, order, standing, counted_qty, executed_qty):
    if order.kind != MSG_NEW and order.kind != MSG_REPLACE:
        return REASON_ILLEGAL
    if (order.side != BUY and order.side != SELL) or (order.tif != TIF_DAY and order.tif != TIF_IOC):
        return REASON_ILLEGAL
    if load_acquire(risk.control, KILL) != 0:
        return REASON_KILLED
    if load_acquire(risk.control, PHASE) != PHASE_TRADING:
        return REASON_PHASE
    if load_acquire(risk.control, SESSION_UP) == 0:
        return REASON_NO_SESSION
    if standing != PASSED:
        return standing
    if symbol_of(risk, order.instrument) == 0:
        return REASON_UNKNOWN_INSTRUMENT
    reason = judge_size(risk.limits, order.qty, order.px, executed_qty)
    if reason != PASSED:
        return reason
    reason = judge_reference(risk, clock, now_tsc, order.instrument, order.px)
    if reason != PASSED:
        return reason
    if passes_position(risk.limits, risk.positions[order.instrument], order.side, order.qty - counted_qty) == 0:
        return REASON_POSITION
    if take_token(risk.limits, risk.bucket, wall_ns(clock, now_tsc)) == 0:
        return REASON_RATE
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def judge_size(limits, qty, px, executed_qty):
    """Quantity, price, and their product."""
    if qty <= 0 or qty > limits[QTY_MAX]:
        return REASON_QUANTITY
    if qty + executed_qty > limits[VENUE_QTY_MAX]:
        return REASON_VENUE_QUANTITY
    if px <= 0 or px > PX_MAX:
        return REASON_PRICE
    if float(qty) * float(px) > NOTIONAL_SAFE or qty * px > limits[NOTIONAL_MAX]:
        return REASON_NOTIONAL
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def judge_reference(risk, clock, now_tsc, instrument, px):
    """The live quote, and how far from its middle the price is."""
    version = -1
    for _ in range(BOARD_TRIES):
        version = board_read(risk.quotes, instrument, risk.quote)
        if version >= 0:
            break
    if version <= 0:
        return REASON_NO_REFERENCE
    quote = risk.quote[0]
    # By name: in plain Python `quote.flags` is numpy's own attribute of a record and not its field.
    if quote["flags"] != BOOK_VALID:
        return REASON_BOOK_NOT_VALID
    if quote.bid_sz <= 0 or quote.ask_sz <= 0:
        return REASON_NO_REFERENCE
    if quote.bid_px <= 0 or quote.ask_px <= 0 or quote.bid_px > PX_MAX or quote.ask_px > PX_MAX:
        return REASON_NO_REFERENCE
    age_ticks = now_tsc - np.int64(quote.origin_tsc)
    if age_ticks * clock.ns_per_tick[0] > risk.limits[REFERENCE_AGE_NS]:
        return REASON_REFERENCE_OLD
    twice_middle = quote.bid_px + quote.ask_px
    if abs(2 * px - twice_middle) * COLLAR_UNITS > risk.limits[COLLAR] * twice_middle:
        return REASON_COLLAR
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def passes_position(limits, line, side, increase_qty):
    """Whether the position stays within the limit if everything that is open on this side, and this, trades.

    An order on the side that leads back towards zero passes even where the position is beyond the limit already.
    """
    if increase_qty <= 0:
        return 1
    if side == BUY:
        return 1 if line.position + line.open_buy + increase_qty <= limits[POSITION_MAX] else 0
    return 1 if line.open_sell - line.position + increase_qty <= limits[POSITION_MAX] else 0


@njit(cache=True, _nrt=False, forceinline=True)
def take_token(limits, bucket, now_ns):
    """Take one message out of the token bucket: 1, or 0 where it is empty. A clock that steps back brings nothing."""
    elapsed_ns = min(max(now_ns - bucket[FILLED_NS], 0), limits[REFILL_NS])
    level = min(bucket[LEVEL] + elapsed_ns * limits[RATE], limits[BUCKET_MAX])
    bucket[FILLED_NS] = max(now_ns, bucket[FILLED_NS])
    if level < TOKEN:
        bucket[LEVEL] = level
        return 0
    bucket[LEVEL] = level - TOKEN
    return 1


@njit(cache=True, _nrt=False, forceinline=True)
def symbol_of(risk, instrument):
    """The packed symbol of an instrument that may be traded, or 0. Looked up again whenever its line on the board has changed."""
    if instrument >= risk.instruments.shape[0] or instrument >= risk.quotes.shape[0]:
        return 0
    known = risk.known[instrument]
    version = load_acquire(risk.instruments, instrument)
    if version != known.version:
        known.symbol = 0
        known.version = 0
        for _ in range(BOARD_TRIES):
            version = board_read(risk.instruments, instrument, risk.instrument)
            if version >= 0:
                break
        if version <= 0:
            return 0
        symbol = np.int64(risk.instrument[0].symbol)
        for allowed in range(risk.allowed.shape[0]):
            if risk.allowed[allowed] == symbol:
                known.symbol = symbol
        known.version = version
    return known.symbol
