"""Making a short ITCH file long enough to measure: copies of it one after another, each of other instruments and other orders.

A file of one symbol has refs far apart, because those between belong to other symbols. Shifted as they are they would leave gaps that
no venue's day has; so they are numbered anew in the order in which they first appear, and every copy continues where the last ended.
"""

import numpy as np

from engine.feed import itch
from engine.feed.moldudp64 import LENGTH_BYTES

LOCATE_MAX = 65_535


def frame_starts(day: np.ndarray) -> np.ndarray:
    """The offsets of all whole messages in framed bytes, those of their types."""
    raw = day.tobytes()
    starts = []
    at = 0
    while at + LENGTH_BYTES <= len(raw):
        after = at + LENGTH_BYTES + int.from_bytes(raw[at : at + LENGTH_BYTES], "big")
        if after == at + LENGTH_BYTES or after > len(raw):
            break
        starts.append(at + LENGTH_BYTES)
        at = after
    return np.array(starts, np.int64)


def grow(day: np.ndarray, copies: int) -> np.ndarray:
    """`copies` of the framed messages in `day`. ValueError where the instruments of so many do not fit the 16 bits of a locate code."""
    starts = frame_starts(day)
    end = int(starts[-1]) - LENGTH_BYTES + _integers(day, starts[-1:] - LENGTH_BYTES, LENGTH_BYTES)[0] + LENGTH_BYTES
    codes = day[starts]
    locates = _integers(day, starts + itch.ADD_ORDER["locate"], 2)
    highest = int(locates.max())
    if highest * copies > LOCATE_MAX:
        raise ValueError(f"copies={copies} of a file with locate codes up to {highest}: expected at most {LOCATE_MAX // highest} copies")
    about_orders, replaces = starts[itch.ABOUT_ORDER[codes]], starts[codes == itch.ORDER_REPLACE.code]
    places = np.sort(np.concatenate([about_orders + itch.ADD_ORDER["ref"], replaces + itch.ORDER_REPLACE["new_ref"]]))
    numbers, orders = _renumbered(_integers(day, places, 8))
    out = np.tile(day[:end], (copies, 1))
    for copy in range(copies):
        _put_integers(out[copy], places, 8, 1 + numbers + copy * orders)
        _put_integers(out[copy], starts + itch.ADD_ORDER["locate"], 2, np.where(locates > 0, locates + copy * highest, 0))
    return out.reshape(-1)


def _renumbered(refs: np.ndarray) -> tuple[np.ndarray, int]:
    """Every ref as its rank in the order of first appearance, and how many there are."""
    _, first, inverse = np.unique(refs, return_index=True, return_inverse=True)
    rank = np.empty(len(first), np.int64)
    rank[np.argsort(first)] = np.arange(len(first))
    return rank[inverse], len(first)


def _integers(raw: np.ndarray, places: np.ndarray, length: int) -> np.ndarray:
    values = np.zeros(len(places), np.int64)
    for byte in range(length):
        values = values << 8 | raw[places + byte]
    return values


def _put_integers(raw: np.ndarray, places: np.ndarray, length: int, values: np.ndarray) -> None:
    for byte in range(length):
        raw[places + byte] = values >> 8 * (length - 1 - byte) & 0xFF
