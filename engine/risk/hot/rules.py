"""Limits, states and restrictions as they are now: the rules record, copied whenever a command has changed it.

The copy is judged by only while it is of one piece: a record that is being written, or whose writer died over it, lets nothing pass.
"""

from numba import njit

from engine.layout import RISK_ACTIVE, RISK_HALTED, RISK_REDUCING, STRATEGIES_MAX
from engine.risk.hot.reasons import (
    PASSED,
    REASON_HALTED_BY_RISK,
    REASON_RULES,
    REASON_STRATEGY_DISABLED,
    REASON_UNKNOWN_STRATEGY,
)
from engine.risk.hot.state import (
    BOARD_TRIES,
    DISABLED_AT,
    ENABLED_AT,
    FIRE_NS,
    FIRES_NS,
    LOSSES,
    PEAK,
    PNL,
    RULES_READ,
    RULES_WORDS,
    STATE,
    TRIP_CLEARED,
    TRIP_REASON,
    TRIPS,
    VERSION,
)
from shm.atomics import fence_acquire, load_acquire, pause, store_release


@njit(cache=True, _nrt=False, forceinline=True)
def refresh(risk):
    """Take over the rules if they have changed. 1, or 0 where they are torn or were never written."""
    version = load_acquire(risk.shared, VERSION)
    if version == risk.rules[VERSION] and version > 0:
        return 1
    return take_over(risk)


@njit(cache=True, _nrt=False)
def take_over(risk):
    # Nothing is judged by a copy that is not whole.
    risk.rules[VERSION] = -1
    fire_ns, fires_ns = risk.rules[FIRE_NS], risk.rules[FIRES_NS]
    for _ in range(BOARD_TRIES):
        if copy_rules(risk) != 0:
            risk.facts[RULES_READ] += 1
            if risk.rules[FIRE_NS] != fire_ns or risk.rules[FIRES_NS] != fires_ns:
                # What was fired by another measure must not disable a strategy by this one.
                risk.fires[:] = 0
            if risk.facts[TRIPS] <= risk.rules[TRIP_CLEARED]:
                forget_losses(risk)
            return 1
        pause()
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def copy_rules(risk):
    # SYNC POINT (shm/hot.py, board_close's release): the protocol of board_read, over words.
    version = load_acquire(risk.shared, VERSION)
    if version <= 0 or version & 1:
        return 0
    for word in range(1, RULES_WORDS):
        risk.rules[word] = risk.shared[word]
    fence_acquire()
    if load_acquire(risk.shared, VERSION) != version:
        return 0
    risk.rules[VERSION] = version
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def forget_losses(risk):
    """Whoever clears a trip begins the count of losses and the fall from the peak anew; a daily loss stays what it is."""
    if risk.facts[TRIP_REASON] != PASSED:
        risk.facts[LOSSES] = 0
        risk.facts[PEAK] = risk.facts[PNL]
        risk.facts[TRIP_REASON] = PASSED


@njit(cache=True, _nrt=False, forceinline=True)
def state_of(risk):
    """ACTIVE, REDUCING or HALTED: the stricter of what was ordered and what losses made of it. What is none of them is HALTED."""
    state = risk.rules[STATE]
    if state != RISK_ACTIVE and state != RISK_REDUCING:
        return RISK_HALTED
    if risk.facts[TRIPS] > risk.rules[TRIP_CLEARED]:
        return RISK_REDUCING
    return state


@njit(cache=True, _nrt=False)
def trip(risk, reason):
    """A limit of losses was passed: nothing but what reduces passes until a person says otherwise."""
    if risk.facts[TRIPS] <= risk.rules[TRIP_CLEARED]:
        risk.facts[TRIP_REASON] = reason
        store_release(risk.facts, TRIPS, risk.rules[TRIP_CLEARED] + 1)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_state(risk):
    """Whether there are rules, and whether they let any order pass at all."""
    if refresh(risk) == 0:
        return REASON_RULES
    if state_of(risk) == RISK_HALTED:
        return REASON_HALTED_BY_RISK
    return PASSED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True, forceinline=True)
def judge_strategy(risk, strategy):
    """Whether a strategy is known and enabled."""
    if strategy >= STRATEGIES_MAX or risk.rules[ENABLED_AT + strategy] < 0:
        return REASON_UNKNOWN_STRATEGY
    if risk.rules[ENABLED_AT + strategy] <= risk.facts[DISABLED_AT + strategy]:
        return REASON_STRATEGY_DISABLED
    return PASSED


@njit(cache=True, _nrt=False)
def disable(risk, strategy):
    """It fired too often: it is out until a person enables it again."""
    store_release(risk.facts, DISABLED_AT + strategy, risk.rules[ENABLED_AT + strategy])
