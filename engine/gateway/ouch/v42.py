"""NASDAQ OUCH 4.2, the messages of continuous trading: one table, from which all offsets follow.

Source: NASDAQ's "O*U*C*H Version 4.2" (OUCH4.2.pdf, July 2019), sections 4 (inbound) and 5 (outbound), field by field as the Open Markets
Initiative's machine-readable definition of it has them. Prices are u32 with four decimals, times nanoseconds since midnight. An order is
named by a token of 14 characters, unique for the day: ours has the user_ref of OUCH 5.0 in it (hot/translate.py). What is "time in force"
there is here a number of seconds, with special values. A replace and a cancel count quantities as in 5.0.
"""

from engine.wire.table import Message, by_code, number, text

ENTER_ORDER = Message(
    "enter order", "O",
    text("token", 14), text("side", 1), number("quantity", 4), text("symbol", 8), number("px", 4), number("tif", 4), text("firm", 4),
    text("display", 1), text("capacity", 1), text("sweep", 1), number("quantity_min", 4), text("cross", 1), text("customer", 1),
)  # fmt: skip
REPLACE_ORDER = Message(
    "replace order", "U",
    text("orig_token", 14), text("token", 14), number("quantity", 4), number("px", 4), number("tif", 4), text("display", 1),
    text("sweep", 1), number("quantity_min", 4),
)  # fmt: skip
CANCEL_ORDER = Message("cancel order", "X", text("token", 14), number("quantity", 4))

SYSTEM_EVENT = Message("system event", "S", number("timestamp", 8), text("event", 1))
ACCEPTED = Message(
    "order accepted", "A",
    number("timestamp", 8), text("token", 14), text("side", 1), number("quantity", 4), text("symbol", 8), number("px", 4),
    number("tif", 4), text("firm", 4), text("display", 1), number("order_ref", 8), text("capacity", 1), text("sweep", 1),
    number("quantity_min", 4), text("cross", 1), text("state", 1), text("bbo_weight", 1),
)  # fmt: skip
REPLACED = Message(
    "order replaced", "U",
    number("timestamp", 8), text("token", 14), text("side", 1), number("quantity", 4), text("symbol", 8), number("px", 4),
    number("tif", 4), text("firm", 4), text("display", 1), number("order_ref", 8), text("capacity", 1), text("sweep", 1),
    number("quantity_min", 4), text("cross", 1), text("state", 1), text("orig_token", 14), text("bbo_weight", 1),
)  # fmt: skip
CANCELED = Message("order canceled", "C", number("timestamp", 8), text("token", 14), number("quantity", 4), text("reason", 1))
AIQ_CANCELED = Message(
    "AIQ canceled", "D",
    number("timestamp", 8), text("token", 14), number("quantity", 4), text("reason", 1), number("quantity_prevented", 4),
    number("px", 4), text("liquidity", 1),
)  # fmt: skip
EXECUTED = Message(
    "order executed", "E",
    number("timestamp", 8), text("token", 14), number("quantity", 4), number("px", 4), text("liquidity", 1), number("match", 8),
)  # fmt: skip
BROKEN = Message("broken trade", "B", number("timestamp", 8), text("token", 14), number("match", 8), text("reason", 1))
REJECTED = Message("rejected", "J", number("timestamp", 8), text("token", 14), text("reason", 1))
CANCEL_PENDING_NOTICE = Message("cancel pending", "P", number("timestamp", 8), text("token", 14))
CANCEL_REJECTED = Message("cancel reject", "I", number("timestamp", 8), text("token", 14))
PRIORITY_UPDATE = Message(
    "order priority update", "T",
    number("timestamp", 8), text("token", 14), number("px", 4), text("display", 1), number("order_ref", 8),
)  # fmt: skip

INBOUND = (ENTER_ORDER, REPLACE_ORDER, CANCEL_ORDER)
OUTBOUND = (
    SYSTEM_EVENT, ACCEPTED, REPLACED, CANCELED, AIQ_CANCELED, EXECUTED, BROKEN, REJECTED, CANCEL_PENDING_NOTICE, CANCEL_REJECTED,
    PRIORITY_UPDATE,
)  # fmt: skip
INBOUND_BY_CODE = by_code(INBOUND)
OUTBOUND_BY_CODE = by_code(OUTBOUND)

# Messages of kinds of orders that tickpath does not send, by their codes: executed at a reference price, a trade corrected.
EXECUTED_AT_REFERENCE = ord("G")
TRADE_CORRECTED = ord("F")

# Time in force, in seconds: at once or not at all, and until the market closes.
TIF_IOC = 0
TIF_MARKET_HOURS = 99_998

# The highest price that four bytes hold.
PX_MAX = (1 << 32) - 1
