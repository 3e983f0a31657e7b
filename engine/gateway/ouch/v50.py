"""NASDAQ OUCH 5.0, the messages of continuous trading: one table, from which all offsets follow.

Prices are u64 with four decimals, times nanoseconds since midnight. UserRefNum grows strictly within a session. The quantity
of a replace is the whole intended size, what has been executed along the chain of replacements included: to replace 500 of which
100 traded by 500 leaves 400 open (section 2.2). That of a cancel limits likewise what may execute in all, and 0 cancels what is
open (section 2.3). Each message may end in an appendage of options; tickpath sends none and skips what it receives.
"""

from engine.wire.table import Message, by_code, number, text

PX_DECIMALS = 4

ENTER_ORDER = Message(
    "enter order", "O",
    number("user_ref", 4), text("side", 1), number("quantity", 4), text("symbol", 8), number("px", 8), text("tif", 1), text("display", 1),
    text("capacity", 1), text("sweep", 1), text("cross", 1), text("client_id", 14), number("appendage_length", 2),
)  # fmt: skip
REPLACE_ORDER = Message(
    "replace order", "U",
    number("orig_user_ref", 4), number("user_ref", 4), number("quantity", 4), number("px", 8), text("tif", 1), text("display", 1),
    text("sweep", 1), text("client_id", 14), number("appendage_length", 2),
)  # fmt: skip
CANCEL_ORDER = Message("cancel order", "X", number("user_ref", 4), number("quantity", 4))
MASS_CANCEL = Message("mass cancel", "C", number("user_ref", 4), text("firm", 4), text("symbol", 8), number("appendage_length", 2))
DISABLE_ENTRY = Message("disable order entry", "D", number("user_ref", 4), text("firm", 4), number("appendage_length", 2))
ENABLE_ENTRY = Message("enable order entry", "E", number("user_ref", 4), text("firm", 4), number("appendage_length", 2))
# Its appendage length may be left out.
ACCOUNT_QUERY = Message("account query", "Q", number("appendage_length", 2))

SYSTEM_EVENT = Message("system event", "S", number("timestamp", 8), text("event", 1))
ACCEPTED = Message(
    "order accepted", "A",
    number("timestamp", 8), number("user_ref", 4), text("side", 1), number("quantity", 4), text("symbol", 8), number("px", 8),
    text("tif", 1), text("display", 1), number("order_ref", 8), text("capacity", 1), text("sweep", 1), text("cross", 1), text("state", 1),
    text("client_id", 14), number("appendage_length", 2),
)  # fmt: skip
REPLACED = Message(
    "order replaced", "U",
    number("timestamp", 8), number("orig_user_ref", 4), number("user_ref", 4), text("side", 1), number("quantity", 4), text("symbol", 8),
    number("px", 8), text("tif", 1), text("display", 1), number("order_ref", 8), text("capacity", 1), text("sweep", 1), text("cross", 1),
    text("state", 1), text("client_id", 14), number("appendage_length", 2),
)  # fmt: skip
CANCELED = Message("order canceled", "C", number("timestamp", 8), number("user_ref", 4), number("quantity", 4), text("reason", 1))
EXECUTED = Message(
    "order executed", "E",
    number("timestamp", 8), number("user_ref", 4), number("quantity", 4), number("px", 8), text("liquidity", 1), number("match", 8),
    number("appendage_length", 2),
)  # fmt: skip
BROKEN = Message(
    "broken trade", "B", number("timestamp", 8), number("user_ref", 4), number("match", 8), text("reason", 1), text("client_id", 14)
)
REJECTED = Message("rejected", "J", number("timestamp", 8), number("user_ref", 4), number("reason", 2), text("client_id", 14))
AIQ_CANCELED = Message(
    "AIQ canceled", "D",
    number("timestamp", 8), number("user_ref", 4), number("quantity", 4), text("reason", 1), number("quantity_prevented", 4),
    number("px", 8), text("liquidity", 1),
)  # fmt: skip
CANCEL_PENDING_NOTICE = Message("cancel pending", "P", number("timestamp", 8), number("user_ref", 4))
CANCEL_REJECTED = Message("cancel reject", "I", number("timestamp", 8), number("user_ref", 4))
PRIORITY_UPDATE = Message(
    "order priority update", "T", number("timestamp", 8), number("user_ref", 4), number("px", 8), text("display", 1), number("order_ref", 8)
)
RESTATED = Message("order restated", "R", number("timestamp", 8), number("user_ref", 4), text("reason", 1), number("appendage_length", 2))
MASS_CANCEL_RESPONSE = Message(
    "mass cancel response", "X",
    number("timestamp", 8), number("user_ref", 4), text("firm", 4), text("symbol", 8), number("appendage_length", 2),
)  # fmt: skip
DISABLE_ENTRY_RESPONSE = Message(
    "disable order entry response", "G",
    number("timestamp", 8), number("user_ref", 4), text("firm", 4), number("appendage_length", 2),
)  # fmt: skip
ENABLE_ENTRY_RESPONSE = Message(
    "enable order entry response", "K",
    number("timestamp", 8), number("user_ref", 4), text("firm", 4), number("appendage_length", 2),
)  # fmt: skip
# An appendage length and an appendage may follow: what is here is what every version of the message has.
ACCOUNT_QUERY_RESPONSE = Message("account query response", "Q", number("timestamp", 8), number("next_user_ref", 4))

INBOUND = (ENTER_ORDER, REPLACE_ORDER, CANCEL_ORDER, MASS_CANCEL, DISABLE_ENTRY, ENABLE_ENTRY, ACCOUNT_QUERY)
OUTBOUND = (
    SYSTEM_EVENT, ACCEPTED, REPLACED, CANCELED, EXECUTED, BROKEN, REJECTED, AIQ_CANCELED, CANCEL_PENDING_NOTICE, CANCEL_REJECTED,
    PRIORITY_UPDATE, RESTATED, MASS_CANCEL_RESPONSE, DISABLE_ENTRY_RESPONSE, ENABLE_ENTRY_RESPONSE, ACCOUNT_QUERY_RESPONSE,
)  # fmt: skip
INBOUND_BY_CODE = by_code(INBOUND)
OUTBOUND_BY_CODE = by_code(OUTBOUND)

# An order's quantity is below a million (section 2.1).
QUANTITY_MAX = 999_999

TIF_DAY = ord("0")
TIF_IOC = ord("3")
# Good until a time: what 4.2 gives as a number of seconds.
TIF_OTHER = ord("6")
STATE_LIVE = ord("L")
STATE_DEAD = ord("D")
LIQUIDITY_ADDED = ord("A")
LIQUIDITY_REMOVED = ord("R")

# What an order trades in, and what became of it there: the opening cross, the closing cross, or continuous trading.
NO_CROSS = ord("N")
OPENING_CROSS = LIQUIDITY_OPENING = ord("O")
CLOSING_CROSS = LIQUIDITY_CLOSING = ord("C")

CANCEL_BY_USER = ord("U")
CANCEL_IOC = ord("I")

# Reject reasons (OUCH 5.0, appendix on reject reasons): those that the simulated exchange gives.
REJECT_CLOSED = 0x0007
REJECT_INVALID_SIDE = 0x0009
REJECT_OTHER = 0x000F
REJECT_INVALID_QUANTITY = 0x0013
REJECT_REPLACE_NOT_ALLOWED = 0x0015
REJECT_INVALID_SYMBOL = 0x0017
REJECT_INVALID_PRICE = 0x001D
