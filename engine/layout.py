"""The records that tickpath's processes share, as dtypes made from the C headers, with their named constants."""

import numpy as np

from engine._layout import ffi, lib
from shm.layout import Kinds, record_dtype

INSTRUMENT = record_dtype(ffi, "tp_instrument")
QUOTE = record_dtype(ffi, "tp_quote")
LEVEL = record_dtype(ffi, "tp_level")
TRADE = record_dtype(ffi, "tp_trade")
STATUS = record_dtype(ffi, "tp_status")
MARKET = record_dtype(ffi, "tp_market")
ORDER = record_dtype(ffi, "tp_order")
REPORT = record_dtype(ffi, "tp_report")

CONTROL = record_dtype(ffi, "tp_control")
PROCESS = record_dtype(ffi, "tp_process")
FEED_STATS = record_dtype(ffi, "tp_feed_stats")
FEED_LINE = record_dtype(ffi, "tp_feed_line")
SYMBOL = record_dtype(ffi, "tp_symbol")
STRATEGY_STATS = record_dtype(ffi, "tp_strategy_stats")
GATEWAY_STATS = record_dtype(ffi, "tp_gateway_stats")
EXCHANGE_STATS = record_dtype(ffi, "tp_exchange_stats")
POSITION = record_dtype(ffi, "tp_position")
RISK_RULES = record_dtype(ffi, "tp_risk_rules")
RISK_FACTS = record_dtype(ffi, "tp_risk_facts")
CAPTURE = record_dtype(ffi, "tp_capture")
OPEN_ORDER = record_dtype(ffi, "tp_open_order")

MSG_INSTRUMENT: int = lib.TP_MSG_INSTRUMENT
MSG_QUOTE: int = lib.TP_MSG_QUOTE
MSG_LEVEL: int = lib.TP_MSG_LEVEL
MSG_TRADE: int = lib.TP_MSG_TRADE
MSG_STATUS: int = lib.TP_MSG_STATUS
MSG_TIMER: int = lib.TP_MSG_TIMER
MSG_NEW: int = lib.TP_MSG_NEW
MSG_REPLACE: int = lib.TP_MSG_REPLACE
MSG_CANCEL: int = lib.TP_MSG_CANCEL
MSG_ACCEPTED: int = lib.TP_MSG_ACCEPTED
MSG_REPLACED: int = lib.TP_MSG_REPLACED
MSG_CANCELLED: int = lib.TP_MSG_CANCELLED
MSG_EXECUTED: int = lib.TP_MSG_EXECUTED
MSG_REJECTED: int = lib.TP_MSG_REJECTED
MSG_BROKEN: int = lib.TP_MSG_BROKEN

# What lies on each ring, by the name of the message: the ring's schema.
TICKS: dict[str, np.dtype] = {"instrument": INSTRUMENT, "quote": QUOTE, "level": LEVEL, "trade": TRADE, "status": STATUS}
ORDERS: dict[str, np.dtype] = dict.fromkeys(("new", "replace", "cancel"), ORDER)
REPORTS: dict[str, np.dtype] = dict.fromkeys(("accepted", "replaced", "cancelled", "executed", "rejected", "broken"), REPORT)


def kinds_on(ring: dict[str, np.dtype]) -> Kinds:
    """Which of a ring's messages a record is: TP_MSG_<NAME> in its kind byte says so, to those who decode the ring from its schema."""
    return "kind", {int(getattr(lib, f"TP_MSG_{name.upper()}")): name for name in ring}


BOOK_VALID: int = lib.TP_BOOK_VALID
BOOK_STALE: int = lib.TP_BOOK_STALE
BOOK_HALTED: int = lib.TP_BOOK_HALTED
BOOK_CROSSED: int = lib.TP_BOOK_CROSSED
BOOK_CLOSED: int = lib.TP_BOOK_CLOSED
BOOK_OVERFLOW: int = lib.TP_BOOK_OVERFLOW
BOOK_GAPPED: int = lib.TP_BOOK_GAPPED
BOOK_SUSPECT: int = lib.TP_BOOK_SUSPECT

REJECTED_BY_RISK: int = lib.TP_REJECTED_BY_RISK
REJECTED_BY_VENUE: int = lib.TP_REJECTED_BY_VENUE

BUY: int = lib.TP_BUY
SELL: int = lib.TP_SELL
TIF_DAY: int = lib.TP_TIF_DAY
TIF_IOC: int = lib.TP_TIF_IOC

PHASE_STARTING: int = lib.TP_PHASE_STARTING
PHASE_TRADING: int = lib.TP_PHASE_TRADING
PHASE_DRAINING: int = lib.TP_PHASE_DRAINING
PHASE_STOPPED: int = lib.TP_PHASE_STOPPED

# What may become of an order, by name. It may trade from pending_new to unknown.
ORDER_STATES = (
    "free", "pending_new", "live", "partially_filled", "pending_replace", "pending_cancel", "unknown", "filled", "cancelled", "rejected",
    "replaced",
)  # fmt: skip
ORDER_STATE: dict[str, int] = {name: getattr(lib, f"TP_ORDER_{name.upper()}") for name in ORDER_STATES}

RISK_ACTIVE: int = lib.TP_RISK_ACTIVE
RISK_REDUCING: int = lib.TP_RISK_REDUCING
RISK_HALTED: int = lib.TP_RISK_HALTED
STRATEGIES_MAX: int = lib.TP_STRATEGIES_MAX
RESTRICTED_MAX: int = lib.TP_RESTRICTED_MAX

STATE_NEW: int = lib.TP_STATE_NEW
STATE_COMPILING: int = lib.TP_STATE_COMPILING
STATE_READY: int = lib.TP_STATE_READY
STATE_LOOPING: int = lib.TP_STATE_LOOPING
STATE_ENDED: int = lib.TP_STATE_ENDED

KILL_SCOPES: int = lib.TP_KILL_SCOPES

IDLE_SPIN: int = lib.TP_IDLE_SPIN
IDLE_YIELD: int = lib.TP_IDLE_YIELD
IDLE_SLEEP: int = lib.TP_IDLE_SLEEP

# Any instrument index fits the u16 of a record: boards and tables by instrument have this many lines.
INSTRUMENTS_MAX = 65_536


def pack_symbol(text: str) -> int:
    """A symbol as the u64 of an instrument record: eight ASCII bytes in memory order, space-filled."""
    raw = text.encode("ascii", "strict")
    if not 0 < len(raw) <= 8:
        raise ValueError(f"symbol={text!r}: expected 1 to 8 ASCII characters")
    return int.from_bytes(raw.ljust(8), "little")


def unpack_symbol(packed: int) -> str:
    return int(packed).to_bytes(8, "little").decode("ascii", "replace").rstrip(" \0")
