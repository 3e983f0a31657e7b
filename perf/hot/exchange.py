"""The kernel that perf/bench_exchange.py times: turns of the exchange on a clock that the kernel moves itself."""

from numba import njit

from engine.exchange.hot.step import step
from engine.messages.hot.stamp import NOW


@njit(cache=True, _nrt=False)
def turn(exchange, clock, turn_ns, turns):
    """Turn the exchange `turns` times, turn_ns apart, or until it leaves. Returns what the last turn did."""
    done = 0
    for _ in range(turns):
        clock.words[NOW] += turn_ns
        done = step(exchange, clock)
        if done < 0:
            break
    return done
