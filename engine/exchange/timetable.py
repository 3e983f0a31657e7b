"""The exchange's hours as the events that hot/schedule.py carries out."""

from collections.abc import Mapping

import numpy as np

from engine.exchange.hot.listing import QUOTING, SHADOWS
from engine.exchange.hot.schedule import (
    CROSS_CLOSING,
    CROSS_OPENING,
    END_HOURS,
    HALT,
    NOT_YET,
    QUOTE,
    RESUME,
    TELL_CLOSING,
    TELL_OPENING,
)
from engine.exchange.hot.state import BASE_NS, HAS_CLOSING, HAS_OPENING, SCHEDULE_WORDS, Schedule, Venue
from engine.exchange.hours import AUCTION_SYMBOLS_MAX, Hours
from engine.layout import INSTRUMENTS_MAX

NS_PER_S = 1_000_000_000

assert AUCTION_SYMBOLS_MAX < SHADOWS


def make_schedule(hours: Hours, symbols: Mapping[str, float]) -> Schedule:
    """The events in their order. Instruments 1 to n are the symbols, in their order."""
    numbers = {symbol: number for number, symbol in enumerate(symbols, start=1)}
    events: list[tuple[float, int, int]] = []
    for at_s, tell, cross in (
        (hours.open_auction_s, TELL_OPENING, CROSS_OPENING),
        (hours.close_auction_s, TELL_CLOSING, CROSS_CLOSING),
    ):
        if at_s:
            first_s = max(at_s - hours.imbalance_s, hours.open_auction_s if cross == CROSS_CLOSING else 0.0)
            told = np.arange(at_s - 1.0, first_s - 1e-9, -1.0).tolist() if hours.imbalance_s else []
            events += [(when, tell, number) for when in told for number in numbers.values()]
            events += [(at_s, cross, number) for number in numbers.values()]
    if hours.open_auction_s:
        events += [(0.0, QUOTE, number) for number in numbers.values()]
    if hours.close_auction_s:
        events.append((hours.close_auction_s, END_HOURS, 0))
    for halt in hours.halts:
        events += [(halt.at_s, HALT, numbers[halt.symbol]), (halt.at_s + halt.for_s, RESUME, numbers[halt.symbol])]
    # A halt that begins where another ends comes after it; END_HOURS is the last of its moment.
    events.sort(key=lambda event: (event[0], event[1] == END_HOURS, event[1] != RESUME))
    words = np.zeros(SCHEDULE_WORDS, np.int64)
    words[BASE_NS] = NOT_YET
    last_px = np.zeros(INSTRUMENTS_MAX, np.int64)
    last_px[1 : len(symbols) + 1] = [round(price * 10_000) for price in symbols.values()]
    return Schedule(
        times=np.array([round(at_s * NS_PER_S) for at_s, _, _ in events], np.int64),
        kinds=np.array([kind for _, kind, _ in events], np.uint8),
        instruments=np.array([instrument for _, _, instrument in events], np.int64),
        last_px=last_px,
        words=words,
    )


def begin(hours: Hours, venue: Venue, symbols: Mapping[str, float]) -> None:
    """What holds before the first event: with an opening cross nothing trades before it."""
    if hours.open_auction_s:
        venue.words[HAS_OPENING] = 1
        venue.listing.states[1 : len(symbols) + 1] = QUOTING
    if hours.close_auction_s:
        venue.words[HAS_CLOSING] = 1
