"""Pro-rata allocation: what each order of a price gets of an aggressive order that is smaller than all of them together.

The rule is that of CME Globex's algorithm C ("CME Globex Matching Algorithm Steps", Client Systems Wiki: pro rata, then FIFO; no TOP
order), with the minimum that CME sets for its pro-rata step:

    share     its quantity x the aggressor's / all quantity at the price, rounded down; nothing where that is below the minimum
    rest      what rounding and the minimum left over goes to the orders in the order of their arrival, each up to what it has

An order gets both in one execution. An aggressor that takes a whole price takes it in the order of arrival, as there is nothing to share.
"""

from numba import njit

from engine.book.hot.book import NONE

# The minimum that stands for price-time priority.
FIFO = 0


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def share_of(qty, wanted, pool, minimum):
    """What an order of `qty` gets of the `wanted` in the first step, `pool` being all that rests at the price. Both below 2^31."""
    share = qty * wanted // pool
    return share if share >= minimum else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def unshared(orders, head, wanted, pool, minimum):
    """What the first step does not give away, from the level that begins with order `head`."""
    spare = wanted
    handle = head
    while handle != NONE:
        spare -= share_of(int(orders[handle].qty), wanted, pool, minimum)
        handle = int(orders[handle].next)
    return spare
