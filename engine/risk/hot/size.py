"""What an order is by itself: quantity, price, their steps, and their product. Each is bounded before it is multiplied: none can wrap."""

from numba import njit

from engine.risk.hot.reasons import (
    PASSED,
    REASON_NOTIONAL,
    REASON_NOTIONAL_MIN,
    REASON_PRICE,
    REASON_PRICE_STEP,
    REASON_QUANTITY,
    REASON_QUANTITY_MIN,
    REASON_QUANTITY_STEP,
    REASON_VENUE_QUANTITY,
)
from engine.risk.hot.state import (
    NOTIONAL_MAX,
    NOTIONAL_MIN,
    NOTIONAL_SAFE,
    OFF,
    PX_MAX,
    PX_STEP,
    QTY_MAX,
    QTY_MIN,
    QTY_STEP,
    VENUE_QTY_MAX,
)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_size(rules, line, qty, px, executed_qty):
    if qty <= 0 or qty > rules[QTY_MAX]:
        return REASON_QUANTITY
    if rules[QTY_MIN] != OFF and qty < rules[QTY_MIN]:
        return REASON_QUANTITY_MIN
    if rules[QTY_STEP] != OFF and is_whole(qty, rules[QTY_STEP] if rules[QTY_STEP] != 0 else line.lot_qty) == 0:
        return REASON_QUANTITY_STEP
    if qty + executed_qty > rules[VENUE_QTY_MAX]:
        return REASON_VENUE_QUANTITY
    if px <= 0 or px > PX_MAX:
        return REASON_PRICE
    if rules[PX_STEP] != OFF and is_whole(px, rules[PX_STEP] if rules[PX_STEP] != 0 else line.tick_px) == 0:
        return REASON_PRICE_STEP
    if float(qty) * float(px) > NOTIONAL_SAFE or qty * px > rules[NOTIONAL_MAX]:
        return REASON_NOTIONAL
    if rules[NOTIONAL_MIN] != OFF and qty * px < rules[NOTIONAL_MIN]:
        return REASON_NOTIONAL_MIN
    return PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def is_whole(value, step):
    """Whether a positive value is a multiple of a step; of a step that is not one, nothing is."""
    if step <= 0:
        return 0
    return 1 if value % step == 0 else 0
