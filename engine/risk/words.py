"""Limits as the gate's kernel reads them: words in the smallest unit, -1 where a check was switched off by name."""

import math
from decimal import Decimal
from typing import Any

import numpy as np

from engine.layout import RISK_RULES
from engine.risk.hot import state
from engine.risk.hot.state import COLLAR_UNITS, LIMIT_WORDS, LIMITS_AT, OFF, PIECES, SWINGS, TOKEN, TOTAL_SAFE
from engine.risk.limits import OFF_WORD, Limits

# Instruments that may come to have a line: each symbol, and again where a new session of the venue numbers them anew.
NUMBERINGS = 4

assert RISK_RULES["limits"].shape[0] >= LIMIT_WORDS


def limit_words(limits: Limits, *, px_decimals: int, venue_qty_max: int, symbols: int) -> np.ndarray:
    """Shape (LIMIT_WORDS,) int64, by place less LIMITS_AT. ValueError where a limit is 0 or too large in its smallest unit.

    symbols is how many may be traded. What is held of each is counted up to value_safe, so that the sum over all of them, under every
    number that a feed has given them (NUMBERINGS), stays within TOTAL_SAFE. A limit on such a sum is below value_safe: one symbol alone
    must be able to pass it. What orders send is one sum for all.
    """
    value_safe = TOTAL_SAFE // (NUMBERINGS * max(symbols, 1))
    words = np.full(LIMIT_WORDS, 0, np.int64)

    def put(place: int, value: int) -> None:
        assert value > 0 or value == OFF or place in (state.QTY_STEP, state.PX_STEP)
        words[place - LIMITS_AT] = value

    def money(name: str) -> int:
        return money_word(limits, name, px_decimals, TOTAL_SAFE if "notional" in name else value_safe - 1)

    put(state.QTY_MIN, count(limits.order_qty_min))
    put(state.QTY_MAX, limits.order_qty_max)
    put(state.QTY_STEP, 0 if limits.order_qty_step == "lot" else count(limits.order_qty_step))
    put(state.PX_STEP, 0 if limits.order_px_step == "tick" else OFF)
    for place, name in MONEY.items():
        put(place, money(name))
    put(state.NOTIONAL_BUCKET_NS, piece_ns(limits.notional_window_ms, PIECES))
    put(state.COLLAR, bps_word(limits.collar_bps))
    put(state.COLLAR_WINDOW, OFF if limits.collar_window_bps == OFF_WORD else bps_word(limits.collar_window_bps))
    put(state.COLLAR_BUCKET_NS, piece_ns(limits.collar_window_ms, SWINGS))
    put(state.REFERENCE_AGE_NS, window_ns(limits.reference_age_max_ms))
    put(state.POSITION_MAX, limits.position_max)
    put(state.GROSS_POSITION_MAX, count(limits.gross_position_max))
    put(state.MARGIN_PCT, limits.margin_pct)
    put(state.LOSSES_MAX, count(limits.losses_in_a_row_max))
    put(state.SELF_TRADE, OFF if limits.self_trade == OFF_WORD else 1)
    put_shares(put, limits.duplicates_max, limits.duplicates_window_ms, state.DUPLICATE_NS, state.DUPLICATES_NS)
    put_shares(put, limits.strategy_orders_max, limits.strategy_window_ms, state.FIRE_NS, state.FIRES_NS)
    put(state.RATE, limits.message_rate_per_s)
    put(state.BUCKET_MAX, limits.message_burst * TOKEN)
    # A debt of cancels may be as deep as the bucket is high.
    put(state.REFILL_NS, -(-2 * limits.message_burst * TOKEN // limits.message_rate_per_s))
    put(state.ORDER_TO_TRADE_MAX, count(limits.order_to_trade_max))
    put(state.ORDER_TO_TRADE_FREE, limits.order_to_trade_free)
    put(state.VENUE_QTY_MAX, venue_qty_max)
    put(state.VALUE_SAFE, value_safe)
    return words


MONEY = {
    state.NOTIONAL_MIN: "order_notional_min",
    state.NOTIONAL_MAX: "order_notional_max",
    state.NOTIONAL_WINDOW_MAX: "notional_window_max",
    state.NOTIONAL_SESSION_MAX: "notional_session_max",
    state.GROSS_EXPOSURE_MAX: "gross_exposure_max",
    state.NET_EXPOSURE_MAX: "net_exposure_max",
    state.CREDIT_MAX: "credit_max",
    state.DAILY_LOSS_MAX: "daily_loss_max",
    state.DRAWDOWN_MAX: "drawdown_max",
}


def count(value: Any) -> int:
    return OFF if value == OFF_WORD else int(value)


def money_word(limits: Limits, name: str, px_decimals: int, most: int) -> int:
    """An amount in price units times shares, rounded to the stricter side: down, but a least amount up."""
    value = getattr(limits, name)
    if value == OFF_WORD:
        return OFF
    exact = Decimal(str(value)).scaleb(px_decimals)
    word = math.ceil(exact) if name.endswith("_min") else math.floor(exact)
    if not 0 < word <= most:
        raise ValueError(f"{name}={value}: with px_decimals={px_decimals} expected 1 to {most} price units")
    return word


def bps_word(value: Any) -> int:
    return math.floor(Decimal(str(value)) * (COLLAR_UNITS // 10_000))


def window_ns(value_ms: float) -> int:
    return max(1, math.floor(value_ms * 1e6))


def piece_ns(value_ms: float, pieces: int) -> int:
    """The pieces that are over cover the window by themselves: what is in it is never let go of."""
    return -(-window_ns(value_ms) // (pieces - 1))


def put_shares(put: Any, most: Any, window_ms: float, share: int, whole: int) -> None:
    """At most so many at once, and one more for each share of the window that passes: over time no more than `most` in each window. What
    follows a quiet time is both, up to 2 x most - 1 within one window."""
    if most == OFF_WORD:
        put(share, OFF)
        put(whole, OFF)
        return
    share_ns = -(-window_ns(window_ms) // most)
    put(share, share_ns)
    put(whole, share_ns * most)
