"""One message of OUCH 4.2 or 5.0 in the other's layout, field by field as engine/gateway/ouch/bridge.py has it; and our tokens of 4.2.

A token of ours has 14 characters, and the number in it is unique for the day whatever stands around it:

      0          2        10       14
      +----------+--------+--------+
      | strategy | number | trader |      two digits, eight digits (an order's user_ref), up to four characters
      +----------+--------+--------+

So an order says whose it is, as the client_id of 5.0 does, in every message about it.
"""

import numpy as np
from numba import njit

from engine.gateway.ouch.bridge import (
    END,
    FILL,
    FIRST,
    FROM_AT,
    FROM_SIZE,
    KIND,
    MOVES,
    NUMBER,
    PLANS,
    REASON_TO_50,
    REASONS_TO_42,
    REASONS_TO_50,
    TEXT,
    TIF_TO_42,
    TIF_TO_50,
    TO_AT,
    TO_SIZE,
)
from engine.gateway.ouch.v42 import TIF_IOC as IOC_42
from engine.gateway.ouch.v42 import TIF_MARKET_HOURS
from engine.gateway.ouch.v50 import TIF_DAY, TIF_IOC, TIF_OTHER

SPACE = np.int64(32)
ZERO = np.int64(48)

STRATEGY_DIGITS = 2
NUMBER_AT = STRATEGY_DIGITS
NUMBER_DIGITS = 8
TRADER_AT = NUMBER_AT + NUMBER_DIGITS
TRADER_BYTES = 4
NUMBER_MAX = 10**NUMBER_DIGITS - 1

NOT_DIGITS = -1


@njit(cache=True, _nrt=False)
def translate(way, code, source, at, target, to):
    """The message at source[at:] as target[to:], without its names; PLANS[way, code] has to have it."""
    for step in range(PLANS[way, code, FIRST], PLANS[way, code, END]):
        begin, size = MOVES[step, FROM_AT], MOVES[step, FROM_SIZE]
        place, room = to + MOVES[step, TO_AT], MOVES[step, TO_SIZE]
        kind = MOVES[step, KIND]
        if kind == TEXT:
            for byte in range(room):
                target[place + byte] = source[at + begin + byte] if byte < size else SPACE
        elif kind == FILL:
            for byte in range(room):
                target[place + byte] = begin
        else:
            value = np.int64(0)
            for byte in range(size):
                value = (value << 8) | np.int64(source[at + begin + byte])
            value = carried_over(kind, value)
            for byte in range(room):
                target[place + room - 1 - byte] = (value >> (8 * byte)) & 0xFF


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def carried_over(kind, value):
    """A field's value as the other version has it."""
    if kind == NUMBER:
        return value
    if kind == TIF_TO_50:
        if value == IOC_42:
            return np.int64(TIF_IOC)
        return np.int64(TIF_DAY if value == TIF_MARKET_HOURS else TIF_OTHER)
    if kind == TIF_TO_42:
        return np.int64(IOC_42 if value == TIF_IOC else TIF_MARKET_HOURS)
    if kind == REASON_TO_50:
        return np.int64(REASONS_TO_50[value])
    return np.int64(REASONS_TO_42[value & 0xFF])


@njit(cache=True, _nrt=False, forceinline=True)
def put_digits(target, at, digits, value):
    """So many decimal digits, zeros before them."""
    for place in range(digits - 1, -1, -1):
        target[at + place] = ZERO + value % 10
        value //= 10


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def digits_at(source, at, digits):
    """The number in so many decimal digits, or NOT_DIGITS."""
    value = np.int64(0)
    for place in range(digits):
        digit = np.int64(source[at + place]) - ZERO
        if digit < 0 or digit > 9:
            return np.int64(NOT_DIGITS)
        value = value * 10 + digit
    return value


@njit(cache=True, _nrt=False, forceinline=True)
def put_token(target, at, user_ref, strategy):
    """A token of ours, but for its trader, who stands in the template."""
    put_digits(target, at, np.int64(STRATEGY_DIGITS), strategy)
    put_digits(target, at + NUMBER_AT, np.int64(NUMBER_DIGITS), user_ref)
