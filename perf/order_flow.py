"""Order flow like that of the public matching-engine challenge (flash1-dev/matching-engine-benchmark, docs/METHODOLOGY.md), in numpy.

One liquid stock at 167.52 dollars, ticks of half a cent. The middle walks at random; every new order is passive beside it, at a distance
of a power law (exponent 2.23) with a hump 8 ticks out; quantities are uniform from 1 to 100. Buys follow the first half of the walk,
sells the second, and arrivals are shuffled, so that orders meet where the halves overlap. Of the new orders 15 % are
immediate-or-cancel; of the others 20 % are modified once (one share more, mostly a tick nearer) and 95 % cancelled after an exponential
time (median 0.431 ms, longer further out). 2 % of cancels, and of modifies of what is gone, come twice.

The model is theirs, its constants too; the random numbers are numpy's, so a seed here is another flow than theirs, and figures
compare in kind and not to the digit.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from engine.layout import BUY, SELL
from perf.hot.matching import CANCEL, MODIFY, NEW, ORDER

# Yearly volatility, and how far the middle typically goes in a run.
SCENARIOS = {"static": (0.0, 0.0), "normal": (0.15, 0.02), "swing-25": (0.5, 0.25), "swing-40": (0.5, 0.4), "flash-crash": (0.5, 0.6)}

TICK = 0.005
START_PX = 167.52
DEPTH_MAX = 799
DEPTH_EXPONENT = 2.23
HUMP_TICKS, HUMP_WEIGHT = 8.0, 5.0
IMMEDIATE_SHARE = 0.15
MODIFY_SHARE = 0.2
REPRICE_SHARE = 0.8
CANCEL_SHARE = 0.95
AGAIN_SHARE = 0.02
MEDIAN_LIFE_US = 431.0


@dataclass(frozen=True)
class Lives:
    """What becomes of each new order, by its arrival: bools, and microseconds after what came before it in its life."""

    immediate: np.ndarray
    modified: np.ndarray
    repriced: np.ndarray
    cancelled: np.ndarray
    cancelled_again: np.ndarray
    modified_again: np.ndarray
    modify_us: np.ndarray
    life_us: np.ndarray
    cancel_again_us: np.ndarray
    modify_again_us: np.ndarray


def make_flow(scenario: str, new_orders: int, seed: int) -> np.ndarray:
    """The messages, about twice as many as new orders, as ORDER records: ids 1 to new_orders, prices in ticks.

    KeyError for a scenario that is none.
    """
    volatility, swing = SCENARIOS[scenario]
    rng = np.random.default_rng(seed)
    step = swing / np.sqrt(new_orders) if volatility else 0.0
    middle = np.rint(START_PX / TICK * np.exp(np.cumsum(step * rng.standard_normal(new_orders) - step * step / 2))).astype(np.int64)
    weights = np.arange(1.0, DEPTH_MAX + 2) ** -DEPTH_EXPONENT
    weights += HUMP_WEIGHT * np.exp(-0.5 * (np.arange(DEPTH_MAX + 1) - HUMP_TICKS) ** 2)
    depth = rng.choice(DEPTH_MAX + 1, size=new_orders, p=weights / weights.sum())
    is_buy = np.arange(new_orders) < new_orders // 2
    px = np.maximum(middle + np.where(is_buy, -1, 1) * (depth + 1), 1)
    qty = rng.integers(1, 101, new_orders)
    arrival = rng.permutation(new_orders)
    return expand(arrival + 1, is_buy[arrival], px[arrival], qty[arrival], draw_lives(rng, depth[arrival]))


def draw_lives(rng: np.random.Generator, depth: np.ndarray) -> Lives:
    def happens(share: float) -> np.ndarray:
        return rng.random(len(depth)) < share

    immediate = happens(IMMEDIATE_SHARE)
    modified = ~immediate & happens(MODIFY_SHARE)
    cancelled = ~immediate & happens(CANCEL_SHARE)
    return Lives(
        immediate=immediate,
        modified=modified,
        repriced=happens(REPRICE_SHARE),
        cancelled=cancelled,
        cancelled_again=cancelled & happens(AGAIN_SHARE),
        modified_again=modified & cancelled & happens(AGAIN_SHARE),
        modify_us=30 + rng.integers(0, 70, len(depth)),
        life_us=(rng.exponential(MEDIAN_LIFE_US / np.log(2.0), len(depth)) * np.sqrt(1.0 + depth)).astype(np.int64),
        cancel_again_us=1 + rng.integers(0, 20, len(depth)),
        modify_again_us=1 + rng.integers(0, 20, len(depth)),
    )


def expand(ids: np.ndarray, is_buy: np.ndarray, px: np.ndarray, qty: np.ndarray, lives: Lives) -> np.ndarray:
    """Every message of every order's life, in the order of their times; those of one time by order, and within one order's life."""
    modify_us = np.where(lives.modified, lives.modify_us, 0)
    cancel_us = modify_us + np.where(lives.cancelled, lives.life_us, 0)
    again_us = cancel_us + np.where(lives.cancelled_again, lives.cancel_again_us, 0)
    last_us = again_us + np.where(lives.modified_again, lives.modify_again_us, 0)
    begin_us = np.concatenate([[0], np.cumsum(last_us + 1)[:-1]])
    nearer = px + np.where(is_buy, 1, -1) * lives.repriced
    everyone = np.ones(len(ids), np.bool_)
    parts: list[dict[str, Any]] = [
        {"kind": NEW, "who": everyone, "us": begin_us, "qty": qty, "px": px},
        {"kind": MODIFY, "who": lives.modified, "us": begin_us + modify_us, "qty": qty + 1, "px": nearer},
        {"kind": CANCEL, "who": lives.cancelled, "us": begin_us + cancel_us, "qty": qty, "px": px},
        {"kind": CANCEL, "who": lives.cancelled_again, "us": begin_us + again_us, "qty": qty, "px": px},
        {"kind": MODIFY, "who": lives.modified_again, "us": begin_us + last_us, "qty": qty + 1, "px": nearer},
    ]
    rows = [np.flatnonzero(part["who"]) for part in parts]
    times = np.concatenate([part["us"][row] for part, row in zip(parts, rows, strict=True)])
    places = np.concatenate([len(parts) * row + number for number, row in enumerate(rows)])
    made = np.zeros(len(times), ORDER)
    made["kind"] = np.concatenate([np.full(len(row), part["kind"]) for part, row in zip(parts, rows, strict=True)])
    for name in ("qty", "px"):
        made[name] = np.concatenate([part[name][row] for part, row in zip(parts, rows, strict=True)])
    order = np.concatenate(rows)
    made["id"], made["side"] = ids[order], np.where(is_buy[order], BUY, SELL)
    made["immediate"] = (made["kind"] == NEW) & lives.immediate[order]
    return made[np.lexsort((places, times))]


def mix_of(orders: np.ndarray) -> dict[str, float]:
    """Shares of the messages, by what they ask for."""
    new = orders["kind"] == NEW
    immediate = new & (orders["immediate"] != 0)
    shares = {
        "new_limit": new & ~immediate, "new_immediate": immediate, "modify": orders["kind"] == MODIFY, "cancel": orders["kind"] == CANCEL,
    }  # fmt: skip
    return {name: round(float(chosen.mean()), 4) for name, chosen in shares.items()}
