"""What may be open at the venue: the gateway's order table, as those read it who stand beside the gateway, and those who come after it.

    found = read(instance.open_orders, instance.instruments, now_tsc=..., tsc_hz=...)
    found.sentences()          # ["AAPL buy 100 at 187.5000 (live, order 12, user_ref 17)", ..., "and 25 more"]

Nobody waits for a reader. How a line is read is said in engine/gateway/open_orders.h; a gateway that died in the middle of one leaves it
as it stands, and it is told with that.
"""

from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from engine.layout import BUY, ORDER_STATE, ORDER_STATES, SELL, unpack_symbol
from shm.table import Board

# How often a line is read again that changes under the reader.
LOOKS = 1_000
NAMED_MAX = 20
# What a report holds of them: it is read by scripts, which may want more than a person.
REPORTED_MAX = 1_000
PX_UNITS = 10_000
MAY_TRADE = range(ORDER_STATE["pending_new"], ORDER_STATE["unknown"] + 1)
QTY_MAX = (1 << 32) - 1


@dataclass(frozen=True)
class OpenOrder:
    """An order that may trade. executed: by it and those it replaced. order_id 0: of an earlier life of the gateway. replaces: the user_ref
    of the order that it is to replace, which may be the one that trades; 0: none. age_s: since it was handed to the kernel; None: it is not
    known to have been. whole: False where its line was being written, and the one who wrote it has stopped."""

    symbol: str
    side: str
    px: float
    open: int
    executed: int
    state: str
    order_id: int
    user_ref: int
    strategy: int
    replaces: int
    age_s: float | None
    whole: bool

    def __str__(self) -> str:
        known = [self.state.replace("_", " "), f"order {self.order_id}", f"user_ref {self.user_ref}"]
        known += [f"to replace user_ref {self.replaces}"] if self.replaces else []
        known += [] if self.whole else ["its line was being written"]
        return f"{self.symbol} {self.side} {self.open} at {self.px:.4f} ({', '.join(known)})"


@dataclass(frozen=True)
class OpenOrders:
    """orders: by user_ref, oldest first. senseless: lines that say of an order that it is open, and something else that cannot be."""

    orders: list[OpenOrder]
    senseless: int

    def sentences(self, most: int = NAMED_MAX) -> list[str]:
        """An order a sentence, and how many more there are."""
        said = [str(order) for order in self.orders[:most]]
        said += [f"and {len(self.orders) - most:,} more"] if len(self.orders) > most else []
        return said + ([f"lines of the order table that make no sense: {self.senseless:,}"] if self.senseless else [])

    def to_dict(self) -> dict[str, Any]:
        return {
            "count": len(self.orders),
            "senseless": self.senseless,
            "orders": [asdict(order) for order in self.orders[:REPORTED_MAX]],
        }


def read(board: Board, instruments: Board | None, *, now_tsc: int, tsc_hz: float) -> OpenOrders:
    """Every order of the table that may trade, each as it was at one moment; of different orders the moments differ.

    instruments names the symbols, where it is there. tsc_hz 0: ages are not known.
    """
    table = board.records
    found, senseless = [], 0
    for place in np.flatnonzero((table["state"] >= MAY_TRADE.start) & (table["state"] < MAY_TRADE.stop) & (table["open"] != 0)).tolist():
        entry, whole = _look(board, place)
        if int(entry["state"]) not in MAY_TRADE or not entry["open"]:
            continue
        if not _makes_sense(entry, place, len(table)):
            senseless += 1
            continue
        sent_tsc = int(entry["sent_tsc"])
        found.append(
            OpenOrder(
                symbol=_symbol(instruments, int(entry["instrument"])),
                side="buy" if entry["side"] == BUY else "sell",
                px=int(entry["px"]) / PX_UNITS,
                open=int(entry["open"]),
                executed=int(entry["executed"]),
                state=ORDER_STATES[int(entry["state"])],
                order_id=int(entry["order_id"]),
                user_ref=int(entry["user_ref"]),
                strategy=int(entry["strategy"]),
                replaces=int(entry["replaces"]),
                age_s=round((now_tsc - sent_tsc) / tsc_hz, 6) if sent_tsc and tsc_hz else None,
                whole=whole,
            )
        )
    return OpenOrders(sorted(found, key=lambda order: order.user_ref), senseless)


def _look(board: Board, place: int) -> tuple[np.void, bool]:
    """A line as it was at one moment, and True; or as it stands, and False: its writer stopped in the middle, or never rests."""
    for _ in range(LOOKS):
        first, second = board.read(place), board.read(place)
        if first is None or second is None:
            break
        # The board's version answers for what is written together; what changes alone is seen to stand still.
        if first.tobytes() == second.tobytes():
            return first, True
    return board.records[place].copy(), False


def _makes_sense(entry: np.void, place: int, places: int) -> bool:
    return (
        entry["user_ref"] != 0
        and int(entry["user_ref"]) % places == place
        and entry["side"] in (BUY, SELL)
        and 0 < entry["open"] <= QTY_MAX
        and 0 <= entry["executed"] <= QTY_MAX
        and entry["px"] >= 0
    )


def _symbol(instruments: Board | None, instrument: int) -> str:
    """What an instrument is called; by its number where nobody has named it."""
    named = instruments is not None and instrument < len(instruments.records) and unpack_symbol(instruments.records[instrument]["symbol"])
    return named or f"instrument {instrument}"
