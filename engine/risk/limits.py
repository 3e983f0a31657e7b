"""The limits an order is held to: typed, all of them required, checked before anything starts.

A limit that is missing, zero, negative, infinite or not a number stops the start: there is no value that means "off".
"""

import math
from collections.abc import Sequence
from typing import Annotated

import numpy as np
from msgspec import Meta, Struct

from engine.layout import INSTRUMENT, INSTRUMENTS_MAX, QUOTE, pack_symbol
from engine.risk.hot import (
    BUCKET_MAX,
    BUCKET_WORDS,
    COLLAR,
    COLLAR_UNITS,
    LEVEL,
    LIMIT_WORDS,
    NOTIONAL_MAX,
    NOTIONAL_SAFE,
    PASSED,
    POSITION_MAX,
    QTY_MAX,
    RATE,
    REASON_BOOK_NOT_VALID,
    REASON_COLLAR,
    REASON_DEAD_ON_ARRIVAL,
    REASON_DUPLICATE_ID,
    REASON_EXECUTIONS_FULL,
    REASON_ILLEGAL,
    REASON_KILLED,
    REASON_NO_REFERENCE,
    REASON_NO_SESSION,
    REASON_NOTIONAL,
    REASON_ORDER_TABLE_FULL,
    REASON_PHASE,
    REASON_POSITION,
    REASON_PRICE,
    REASON_QUANTITY,
    REASON_RATE,
    REASON_REFERENCE_OLD,
    REASON_REPLACE_PENDING,
    REASON_REPLACED_ORDER_DONE,
    REASON_UNKNOWN_INSTRUMENT,
    REASON_UNKNOWN_ORDER,
    REASON_VENUE_QUANTITY,
    REASONS,
    REFERENCE_AGE_NS,
    REFILL_NS,
    TOKEN,
    VENUE_QTY_MAX,
    Risk,
)
from shm.table import Board, Table

SENTENCES = {
    PASSED: "it passed",
    REASON_ILLEGAL: "its kind, side or time in force is none that exists, or a replace names another side or instrument than its order",
    REASON_KILLED: "the kill switch is on (`tickpath arm` lets orders through again)",
    REASON_PHASE: "the instance is not trading: it starts, drains or has stopped; only cancels pass",
    REASON_NO_SESSION: "there is no session with the venue",
    REASON_UNKNOWN_ORDER: "no order with the id to replace or to cancel is open",
    REASON_REPLACE_PENDING: "the order to replace is being replaced already",
    REASON_DUPLICATE_ID: "its id is not above every id before it",
    REASON_ORDER_TABLE_FULL: "the order table is full: the order that has its place is still open (orders_max)",
    REASON_EXECUTIONS_FULL: "the table of executions is nearly full: what is open may still trade, nothing is added (executions_max)",
    REASON_UNKNOWN_INSTRUMENT: "its instrument is not among the symbols that may be traded, or the feed has not named it yet",
    REASON_QUANTITY: "its quantity is not above 0 or above order_qty_max; of a cancel: it leaves no less than what is open",
    REASON_VENUE_QUANTITY: "its quantity, with what its chain of replacements executed, is more than the venue can be told",
    REASON_PRICE: "its price is not above 0 or not a price",
    REASON_NOTIONAL: "its quantity times its price is above order_notional_max",
    REASON_NO_REFERENCE: "there is no quote with a bid and an offer to hold its price against",
    REASON_BOOK_NOT_VALID: "the book is stale, halted, crossed, closed or incomplete",
    REASON_REFERENCE_OLD: "the quote is older than reference_age_max_ms",
    REASON_COLLAR: "its price is further than collar_bps from the middle of the quote",
    REASON_POSITION: "the position could pass position_max if this and all that is open on its side trades",
    REASON_RATE: "more than message_burst messages at once, or message_rate_per_s over time",
    REASON_REPLACED_ORDER_DONE: "the order it was to replace was done before the venue saw the replacement",
    REASON_DEAD_ON_ARRIVAL: "the venue accepted it as already dead",
}


class Limits(Struct, forbid_unknown_fields=True, frozen=True):
    """What one order, one instrument's position, and the flow of messages may amount to. Every field is required.

    order_qty_max          shares of one order
    order_notional_max     price times quantity of one order, in whole units of the currency
    collar_bps             distance of the limit price from the middle of the live quote, in basis points, not below 0.01
    position_max           shares, long or short, that one instrument may reach if everything open trades
    message_rate_per_s     new orders and replaces a second, over time
    message_burst          new orders and replaces at once
    reference_age_max_ms   age of the quote that the collar is measured from
    """

    order_qty_max: Annotated[int, Meta(gt=0, le=1_000_000_000)]
    order_notional_max: Annotated[float, Meta(gt=0, le=1e12)]
    collar_bps: Annotated[float, Meta(ge=0.01, le=10_000)]
    position_max: Annotated[int, Meta(gt=0, le=1_000_000_000_000)]
    message_rate_per_s: Annotated[int, Meta(gt=0, le=1_000_000_000)]
    message_burst: Annotated[int, Meta(gt=0, le=1_000_000_000)]
    reference_age_max_ms: Annotated[float, Meta(gt=0, le=86_400_000)]

    def __post_init__(self) -> None:
        """The same ranges for limits that were not decoded. ValueError as name=value and what was expected."""
        for name, (least, most, whole) in RANGES.items():
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int if whole else (int, float)) or not least <= value <= most:
                raise ValueError(f"{name}={value!r}: expected {'a whole number' if whole else 'a number'} from {least} to {most}")


# Least, most, and whether it must be whole. The smallest positive float stands for "above 0".
RANGES: dict[str, tuple[float, float, bool]] = {
    "order_qty_max": (1, 1_000_000_000, True),
    "order_notional_max": (math.ulp(0.0), 1e12, False),
    "collar_bps": (0.01, 10_000, False),
    "position_max": (1, 1_000_000_000_000, True),
    "message_rate_per_s": (1, 1_000_000_000, True),
    "message_burst": (1, 1_000_000_000, True),
    "reference_age_max_ms": (math.ulp(0.0), 86_400_000, False),
}

#   0         8        16     which version of the instrument's line was looked at, and its packed symbol (0: may not be traded)
#   +---------+--------+
#   | version | symbol |
#   +---------+--------+
KNOWN = np.dtype([("version", "i8"), ("symbol", "i8")], align=True)


def limit_words(limits: Limits, *, px_decimals: int, venue_qty_max: int) -> np.ndarray:
    """The limits as the kernel reads them, shape (LIMIT_WORDS,). ValueError where one is 0 or too large in its smallest unit."""
    notional = math.floor(limits.order_notional_max * 10**px_decimals)
    if not 0 < notional <= NOTIONAL_SAFE:
        raise ValueError(f"order_notional_max={limits.order_notional_max}: with px_decimals={px_decimals} expected 1 to 2^62 price units")
    words = np.zeros(LIMIT_WORDS, np.int64)
    words[QTY_MAX] = limits.order_qty_max
    words[NOTIONAL_MAX] = notional
    words[COLLAR] = math.floor(limits.collar_bps * (COLLAR_UNITS // 10_000) + 1e-9)
    words[POSITION_MAX] = limits.position_max
    words[RATE] = limits.message_rate_per_s
    words[BUCKET_MAX] = limits.message_burst * TOKEN
    words[REFILL_NS] = -(-limits.message_burst * TOKEN // limits.message_rate_per_s)
    words[REFERENCE_AGE_NS] = max(1, math.floor(limits.reference_age_max_ms * 1e6))
    words[VENUE_QTY_MAX] = venue_qty_max
    assert (words > 0).all()
    return words


def make_risk(
    limits: Limits,
    symbols: Sequence[str],
    *,
    quotes: Board,
    instruments: Board,
    positions: Board,
    control: Table,
    px_decimals: int = 4,
    venue_qty_max: int = 999_999,
) -> Risk:
    """The gate's state. Only `symbols` may be traded; venue_qty_max is the largest quantity the venue's messages can name."""
    words = limit_words(limits, px_decimals=px_decimals, venue_qty_max=venue_qty_max)
    bucket = np.zeros(BUCKET_WORDS, np.int64)
    bucket[LEVEL] = words[BUCKET_MAX]
    return Risk(
        limits=words,
        bucket=bucket,
        counts=np.zeros(REASONS, np.int64),
        allowed=np.array(sorted(pack_symbol(symbol) for symbol in symbols), np.int64),
        known=np.zeros(INSTRUMENTS_MAX, KNOWN).view(np.recarray),
        quotes=quotes.records,
        quote=np.zeros(1, QUOTE).view(np.recarray),
        instruments=instruments.records,
        instrument=np.zeros(1, INSTRUMENT).view(np.recarray),
        positions=positions.records,
        control=control.words()[0],
    )


def verdicts(risk: Risk) -> dict[str, int]:
    """How many orders met which verdict, by its sentence, most frequent first; those that never happened are left out."""
    counted = {SENTENCES[reason]: int(count) for reason, count in enumerate(risk.counts) if count}
    return dict(sorted(counted.items(), key=lambda item: -item[1]))
