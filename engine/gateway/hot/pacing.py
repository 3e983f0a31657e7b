"""The venue's pace as a token bucket: so many messages a second, and a burst of them. Exact, in integers.

A message costs TOKEN, a nanosecond brings `pace_per_s`, and no more than the burst is kept. New orders and replaces wait for a token;
cancels and the sweep take theirs at once and leave a debt if need be, which the orders after them wait for: over any span of time the
venue sees no more than its pace and one burst, unless what is beyond them is cancels.

The debt ends at a second's messages, or at a burst's where that is more: as long as it takes to pay that back, and a token more, no order
follows the last of the cancels. To a venue that counts what came in the last second, or for as long as a burst takes to come back, they
are forgotten by then. One that counts for longer, or lets what is too much wait on its side, sees more than its pace after a sweep of
more than that: our orders are then late there, or refused by it, as after any burst of cancels that it was not asked to allow.
"""

from numba import njit

# Words of Gateway.pace. engine/gateway/stage.py fills in the first two: a pace of 0 is none.
PACE_PER_S = 0
PACE_MAX = 1  # what the burst amounts to
PACE_LEVEL = 2
PACE_FILLED_NS = 3
PACE_DEBT_MAX = 4  # engine/gateway/waiting.py fills it in too
PACE_WORDS = 5

TOKEN = 1_000_000_000


@njit(cache=True, _nrt=False, forceinline=True)
def fill_pace(pace, now_ns):
    """Count what the time since the last look has brought. A clock that steps back brings nothing, and is waited for."""
    elapsed_ns = now_ns - pace[PACE_FILLED_NS]
    if pace[PACE_PER_S] == 0 or elapsed_ns <= 0:
        return
    pace[PACE_FILLED_NS] = now_ns
    if elapsed_ns > (pace[PACE_MAX] - pace[PACE_LEVEL]) // pace[PACE_PER_S]:
        pace[PACE_LEVEL] = pace[PACE_MAX]
    else:
        pace[PACE_LEVEL] += elapsed_ns * pace[PACE_PER_S]


@njit(cache=True, _nrt=False, forceinline=True)
def has_token(pace):
    """Whether an order may be sent, as of the last fill. Always without a pace: nothing is spent then."""
    return pace[PACE_LEVEL] >= TOKEN


@njit(cache=True, _nrt=False, forceinline=True)
def spend(pace, messages):
    """So many messages go out: they take their tokens, or leave a debt, as far as one grows."""
    if pace[PACE_PER_S] != 0:
        pace[PACE_LEVEL] = max(pace[PACE_LEVEL] - messages * TOKEN, -pace[PACE_DEBT_MAX])
