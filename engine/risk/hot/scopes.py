"""Scoped kills: whether one that holds covers an order of a strategy, in a symbol, at this instance's venue.

Looked at only while the word `scoped` says that there are any, so an instance without one pays for a load.
"""

from numba import njit

from engine.layout import KILL_SCOPES
from engine.risk.hot.state import (
    ANY_NAME,
    ANY_STRATEGY,
    SCOPE_NUMBER,
    SCOPE_STRATEGY,
    SCOPE_SYMBOL,
    SCOPE_VENUE,
    SCOPE_WORDS,
    SCOPES_AT,
    VENUE,
)
from shm.atomics import load_acquire


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def covered(control, strategy, symbol):
    """1 where a scoped kill covers the order, else 0. A symbol of 0 is not known yet: any symbol that is killed could be its own."""
    venue = control[VENUE]
    for scope in range(KILL_SCOPES):
        at = SCOPES_AT + scope * SCOPE_WORDS
        # SYNC POINT (engine/runtime/kills.py, `put`): the number is written last, and taken away first.
        number = load_acquire(control, at + SCOPE_NUMBER)
        if number == 0:
            continue
        of_strategy, of_symbol, of_venue = control[at + SCOPE_STRATEGY], control[at + SCOPE_SYMBOL], control[at + SCOPE_VENUE]
        if of_strategy != ANY_STRATEGY and of_strategy != strategy:
            continue
        if of_symbol != ANY_NAME and of_symbol != symbol and symbol != ANY_NAME:
            continue
        if of_venue != ANY_NAME and of_venue != venue:
            continue
        return 1
    return 0
