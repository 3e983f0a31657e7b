"""The exchange's hours: crosses at the opening and the close, halts in between. timetable.py makes events of them."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

# Flows that leave it to the exchange when it trades, and by which rule.
OWN_FLOWS = ("generated", "none")
# The book has shadows for so many (hot/listing.py).
AUCTION_SYMBOLS_MAX = (1 << 14) - 1


class Halt(NamedTuple):
    """A symbol's trading stops at_s, and goes on for_s later."""

    symbol: str
    at_s: float
    for_s: float


class Hours(NamedTuple):
    """Seconds after the market opens for messages. open_auction_s, close_auction_s: when the crosses are, 0 none; imbalance_s: how long
    before a cross its imbalance is told, once a second."""

    open_auction_s: float = 0.0
    close_auction_s: float = 0.0
    imbalance_s: float = 10.0
    halts: Sequence[Halt] = ()


def check_hours(hours: Hours, symbols: Mapping[str, float], flow: str) -> None:
    """ValueError names what does not fit: the schedule is ours to make only where history has none, and everything lies between the
    crosses."""
    opening, closing = hours.open_auction_s, hours.close_auction_s
    if (opening or closing or hours.halts) and flow not in OWN_FLOWS:
        raise ValueError(f"schedule: flow={flow!r}: expected 'generated' or 'none'; history has its own crosses and halts")
    if (opening or closing) and len(symbols) > AUCTION_SYMBOLS_MAX:
        raise ValueError(f"schedule: symbols={len(symbols)} of them: expected at most {AUCTION_SYMBOLS_MAX} where there are auctions")
    if closing and closing <= opening:
        raise ValueError(f"schedule.close_auction_s={closing}: expected after open_auction_s={opening}")
    ends: dict[str, float] = {}
    for halt in sorted(hours.halts, key=lambda halt: halt.at_s):
        if halt.symbol not in symbols:
            raise ValueError(f"schedule.halts: symbol={halt.symbol!r}: expected one of {sorted(symbols)}")
        if halt.at_s < ends.get(halt.symbol, opening):
            raise ValueError(
                f"schedule.halts: symbol={halt.symbol!r} at_s={halt.at_s}: expected from {ends.get(halt.symbol, opening)} on: after the "
                "opening cross and any halt before it"
            )
        if halt.for_s <= 0 or (closing and halt.at_s + halt.for_s >= closing):
            raise ValueError(
                f"schedule.halts: symbol={halt.symbol!r} for_s={halt.for_s}: expected above 0"
                + (f", and its end before close_auction_s={closing}" if closing else "")
            )
        ends[halt.symbol] = halt.at_s + halt.for_s
