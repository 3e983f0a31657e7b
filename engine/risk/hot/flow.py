"""What orders amount to over time: money sent, messages, duplicates, trades for messages, how often a strategy fires.

Each is looked at before anything is counted, and everything is counted at once when the order has passed all: what was refused has
used up nothing. The one exception is meant: a strategy that fires too often is disabled by the order that was too much.
"""

import numpy as np
from numba import njit

from engine.layout import BUY, MSG_NEW
from engine.risk.hot.reasons import (
    PASSED,
    REASON_DUPLICATE,
    REASON_DUPLICATES_FULL,
    REASON_NOTIONAL_SESSION,
    REASON_NOTIONAL_WINDOW,
    REASON_ORDER_TO_TRADE,
    REASON_RATE,
    REASON_STRATEGY_FIRES,
)
from engine.risk.hot.rules import disable, refresh
from engine.risk.hot.state import (
    BUCKET_MAX,
    DUPLICATE_NS,
    DUPLICATES_NS,
    EXECUTIONS,
    FILLED_NS,
    FIRE_NS,
    FIRED_AT,
    FIRES_NS,
    LEVEL,
    MESSAGES,
    NOTIONAL_BUCKET_NS,
    NOTIONAL_SESSION_MAX,
    NOTIONAL_WINDOW_MAX,
    OFF,
    ORDER_TO_TRADE_FREE,
    ORDER_TO_TRADE_MAX,
    PIECES,
    RATE,
    REFILL_NS,
    SESSION_NOTIONAL,
    TOKEN,
    WAYS,
    WINDOW_END_NS,
    WINDOW_FIRST,
    WINDOW_PIECE,
    WINDOW_SUM,
)
from shm.atomics import prefetch_write

# What find_sent says instead of a place.
SENT_BEFORE = -1
NO_ROOM = -2


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_flow(risk, order, increase_qty, now_ns):
    """All checks over time, and all counts if the order passes."""
    rules, facts, window = risk.rules, risk.facts, risk.window
    # A replace to a lower quantity sends no money.
    amount = order.px * max(increase_qty, 0)
    # A window that was made shorter ends as the new one does.
    window[WINDOW_END_NS] = min(window[WINDOW_END_NS], now_ns + rules[NOTIONAL_BUCKET_NS])
    if now_ns >= window[WINDOW_END_NS]:
        advance_window(window, now_ns, rules[NOTIONAL_BUCKET_NS])
    if rules[NOTIONAL_WINDOW_MAX] != OFF and window[WINDOW_SUM] + amount > rules[NOTIONAL_WINDOW_MAX]:
        return REASON_NOTIONAL_WINDOW
    if rules[NOTIONAL_SESSION_MAX] != OFF and facts[SESSION_NOTIONAL] + amount > rules[NOTIONAL_SESSION_MAX]:
        return REASON_NOTIONAL_SESSION
    if rules[ORDER_TO_TRADE_MAX] != OFF and facts[MESSAGES] >= allowed_messages(rules, facts):
        return REASON_ORDER_TO_TRADE
    place = np.int64(0)
    if rules[DUPLICATE_NS] != OFF:
        place = find_sent(risk, order, now_ns)
        if place < 0:
            return REASON_DUPLICATE if place == SENT_BEFORE else REASON_DUPLICATES_FULL
    strategy = np.int64(order.strategy)
    fires_ns = max(risk.fires[strategy], now_ns) + rules[FIRE_NS]
    if rules[FIRE_NS] != OFF and fires_ns - now_ns > rules[FIRES_NS]:
        disable(risk, strategy)
        return REASON_STRATEGY_FIRES
    if take_token(rules, risk.bucket, now_ns) == 0:
        return REASON_RATE
    if rules[DUPLICATE_NS] != OFF:
        remember_sent(risk.sent[place], order, now_ns, rules[DUPLICATE_NS])
    risk.fires[strategy] = fires_ns
    facts[FIRED_AT + strategy] += 1
    if rules[NOTIONAL_WINDOW_MAX] != OFF:
        window[WINDOW_SUM] += amount
        window[WINDOW_FIRST + window[WINDOW_PIECE]] += amount
    # Two of the largest amounts would still fit; beyond that the sum has passed every limit there can be.
    facts[SESSION_NOTIONAL] = min(facts[SESSION_NOTIONAL] + amount, np.int64(1) << 61)
    facts[MESSAGES] += 1
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def count_cancels(risk, count, now_ns):
    """Cancels pass, and are messages all the same: what they take out of the bucket new orders must wait for."""
    risk.facts[MESSAGES] += count
    if refresh(risk) == 0:
        return
    fill_bucket(risk.rules, risk.bucket, now_ns)
    risk.bucket[LEVEL] = max(risk.bucket[LEVEL] - count * TOKEN, -risk.rules[BUCKET_MAX])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def allowed_messages(rules, facts):
    return rules[ORDER_TO_TRADE_FREE] + rules[ORDER_TO_TRADE_MAX] * facts[EXECUTIONS]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def advance_window(window, now_ns, piece_ns):
    """Let go of the amounts that are older than the window."""
    for _ in range(PIECES):
        if now_ns < window[WINDOW_END_NS]:
            return
        piece = (window[WINDOW_PIECE] + 1) & (PIECES - 1)
        window[WINDOW_PIECE] = piece
        window[WINDOW_SUM] -= window[WINDOW_FIRST + piece]
        window[WINDOW_FIRST + piece] = 0
        window[WINDOW_END_NS] += piece_ns
    window[WINDOW_END_NS] = now_ns + piece_ns


@njit(cache=True, _nrt=False, forceinline=True)
def take_token(rules, bucket, now_ns):
    """Take one message out of the token bucket: 1, or 0 where it is empty. A clock that steps back brings nothing."""
    fill_bucket(rules, bucket, now_ns)
    if bucket[LEVEL] < TOKEN:
        return 0
    bucket[LEVEL] -= TOKEN
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def fill_bucket(rules, bucket, now_ns):
    elapsed_ns = min(max(now_ns - bucket[FILLED_NS], 0), rules[REFILL_NS])
    bucket[LEVEL] = min(bucket[LEVEL] + elapsed_ns * rules[RATE], rules[BUCKET_MAX])
    bucket[FILLED_NS] = max(now_ns, bucket[FILLED_NS])


# Who and how much of an order, exactly: a price has 41 bits, what stands beside it 10; a quantity 31, an instrument 16.
@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def who_of(order):
    side = 1 if order.side == BUY else 2
    kind = 4 if order.kind == MSG_NEW else 0
    return order.px << 10 | side | kind | np.int64(order.tif) << 3


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def how_much_of(order):
    return order.qty << 16 | np.int64(order.instrument)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def first_of(sent, who, how_much):
    """The first of the places in which an order like this may be noted."""
    mixed = ((who >> 12) & 0xFFFFF) * 0x9E3779B1 + (how_much & 0xFFFFFFF) * 0x85EBCA6B + (who & 7) * 0xC2B2AE35
    return ((mixed >> 22) & (sent.shape[0] // WAYS - 1)) * WAYS


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def expect_sent(risk, order):
    """An order like this will be looked for: ask for the lines where one is noted. Where messages are many they are far away."""
    first = first_of(risk.sent, who_of(order), how_much_of(order))
    prefetch_write(risk.sent, first)
    prefetch_write(risk.sent, first + WAYS // 2)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def find_sent(risk, order, now_ns):
    """The place to note an order at, SENT_BEFORE where it was sent too often lately, or NO_ROOM to tell.

    An entry counts until its tat: every order adds one share of the window to it, and it may not run ahead of now by more than all.
    """
    who, how_much = who_of(order), how_much_of(order)
    first = first_of(risk.sent, who, how_much)
    free = np.int64(NO_ROOM)
    for place in range(first, first + WAYS):
        entry = risk.sent[place]
        if entry.tat_ns <= now_ns:
            free = np.int64(place)
        elif entry.who == who and entry.how_much == how_much:
            # What a longer window noted counts no longer than this one.
            entry.tat_ns = min(entry.tat_ns, now_ns + risk.rules[DUPLICATES_NS])
            if entry.tat_ns + risk.rules[DUPLICATE_NS] - now_ns > risk.rules[DUPLICATES_NS]:
                return np.int64(SENT_BEFORE)
            return np.int64(place)
    return free


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def remember_sent(entry, order, now_ns, share_ns):
    entry.who = who_of(order)
    entry.how_much = how_much_of(order)
    entry.tat_ns = max(entry.tat_ns, now_ns) + share_ns
