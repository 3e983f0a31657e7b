"""NASDAQ TotalView-ITCH 5.0, every message (specification sections 1.1 to 1.9): one table, from which all offsets follow.

Prices are in 1/10000 dollars (MWCB levels in 1/100000000), times nanoseconds since midnight, market-local.
"""

import numpy as np

from engine.wire.table import Field, Message, by_code, number, text

PX_DECIMALS = 4


def _headed(name: str, code: str, *fields: Field) -> Message:
    """A message with the header that all of them share."""
    return Message(name, code, number("locate", 2), number("tracking", 2), number("timestamp", 6), *fields)


SYSTEM_EVENT = _headed("system event", "S", text("event", 1))
STOCK_DIRECTORY = _headed(
    "stock directory", "R",
    text("stock", 8), text("market_category", 1), text("financial_status", 1), number("round_lot_size", 4), text("round_lots_only", 1),
    text("issue_classification", 1), text("issue_subtype", 2), text("authenticity", 1), text("short_sale_threshold", 1),
    text("ipo_flag", 1), text("luld_tier", 1), text("etp_flag", 1), number("etp_leverage", 4), text("inverse", 1),
)  # fmt: skip
TRADING_ACTION = _headed("stock trading action", "H", text("stock", 8), text("state", 1), text("reserved", 1), text("reason", 4))
REG_SHO = _headed("Reg SHO restriction", "Y", text("stock", 8), text("action", 1))
PARTICIPANT_POSITION = _headed(
    "market participant position", "L",
    text("mpid", 4), text("stock", 8), text("primary_market_maker", 1), text("mode", 1), text("state", 1),
)  # fmt: skip
MWCB_DECLINE_LEVEL = _headed("MWCB decline level", "V", number("level_1", 8), number("level_2", 8), number("level_3", 8))
MWCB_STATUS = _headed("MWCB status", "W", text("breached_level", 1))
IPO_QUOTING_PERIOD = _headed(
    "IPO quoting period update", "K", text("stock", 8), number("release_time", 4), text("qualifier", 1), number("px", 4)
)
LULD_COLLAR = _headed(
    "LULD auction collar", "J",
    text("stock", 8), number("reference_px", 4), number("upper_px", 4), number("lower_px", 4), number("extension", 4),
)  # fmt: skip
OPERATIONAL_HALT = _headed("operational halt", "h", text("stock", 8), text("market_code", 1), text("action", 1))
ADD_ORDER = _headed("add order", "A", number("ref", 8), text("side", 1), number("shares", 4), text("stock", 8), number("px", 4))
ADD_ORDER_MPID = _headed(
    "add order with MPID", "F",
    number("ref", 8), text("side", 1), number("shares", 4), text("stock", 8), number("px", 4), text("attribution", 4),
)  # fmt: skip
ORDER_EXECUTED = _headed("order executed", "E", number("ref", 8), number("shares", 4), number("match", 8))
ORDER_EXECUTED_PRICE = _headed(
    "order executed with price", "C", number("ref", 8), number("shares", 4), number("match", 8), text("printable", 1), number("px", 4)
)
ORDER_CANCEL = _headed("order cancel", "X", number("ref", 8), number("shares", 4))
ORDER_DELETE = _headed("order delete", "D", number("ref", 8))
ORDER_REPLACE = _headed("order replace", "U", number("ref", 8), number("new_ref", 8), number("shares", 4), number("px", 4))
TRADE = _headed(
    "trade (non-cross)", "P",
    number("ref", 8), text("side", 1), number("shares", 4), text("stock", 8), number("px", 4), number("match", 8),
)  # fmt: skip
CROSS_TRADE = _headed("cross trade", "Q", number("shares", 8), text("stock", 8), number("px", 4), number("match", 8), text("cross", 1))
BROKEN_TRADE = _headed("broken trade", "B", number("match", 8))
NET_ORDER_IMBALANCE = _headed(
    "net order imbalance indicator", "I",
    number("paired", 8), number("imbalance", 8), text("direction", 1), text("stock", 8), number("far_px", 4), number("near_px", 4),
    number("reference_px", 4), text("cross", 1), text("variation", 1),
)  # fmt: skip
RETAIL_INTEREST = _headed("retail price improvement indicator", "N", text("stock", 8), text("interest", 1))
DIRECT_LISTING = _headed(
    "direct listing with capital raise", "O",
    text("stock", 8), text("open_eligible", 1), number("minimum_px", 4), number("maximum_px", 4), number("near_execution_px", 4),
    number("near_execution_time", 8), number("lower_collar_px", 4), number("upper_collar_px", 4),
)  # fmt: skip

MESSAGES = (
    SYSTEM_EVENT, STOCK_DIRECTORY, TRADING_ACTION, REG_SHO, PARTICIPANT_POSITION, MWCB_DECLINE_LEVEL, MWCB_STATUS, IPO_QUOTING_PERIOD,
    LULD_COLLAR, OPERATIONAL_HALT, ADD_ORDER, ADD_ORDER_MPID, ORDER_EXECUTED, ORDER_EXECUTED_PRICE, ORDER_CANCEL, ORDER_DELETE,
    ORDER_REPLACE, TRADE, CROSS_TRADE, BROKEN_TRADE, NET_ORDER_IMBALANCE, RETAIL_INTEREST, DIRECT_LISTING,
)  # fmt: skip
BY_CODE = by_code(MESSAGES)

# For kernels, by type byte: the length of its message (0: not a type we know), and whether it is about an order in the book.
LENGTHS = np.zeros(256, np.int64)
LENGTHS[list(BY_CODE)] = [message.length for message in BY_CODE.values()]
_ORDER_MESSAGES = (ADD_ORDER, ADD_ORDER_MPID, ORDER_EXECUTED, ORDER_EXECUTED_PRICE, ORDER_CANCEL, ORDER_DELETE, ORDER_REPLACE)
ABOUT_ORDER = np.zeros(256, np.bool_)
ABOUT_ORDER[[message.code for message in _ORDER_MESSAGES]] = True

# For a decoder without branches, by type byte, 0 for what is not about an order: the length in the lowest byte, then where its shares,
# px, second reference (a new ref or a match number) and letter (side or printable) are, then by how much to shift the first two away
# where there are none. The top bit: there is a second reference. What a type has not is read at its ref, a letter at its type.
SHARES_SHIFT, PX_SHIFT, SECOND_SHIFT, LETTER_SHIFT, NO_SHARES_SHIFT, NO_PX_SHIFT = 8, 16, 24, 32, 40, 48


def _order_fields(message: Message) -> int:
    def place(*names: str) -> int:
        return next((message[name] for name in names if name in message.offsets), message["ref"])

    has = message.offsets.keys()
    packed = message.length | place("shares") << SHARES_SHIFT | place("px") << PX_SHIFT | place("new_ref", "match") << SECOND_SHIFT
    packed |= (place("side", "printable") if has & {"side", "printable"} else message["type"]) << LETTER_SHIFT
    packed |= (0 if "shares" in has else 32) << NO_SHARES_SHIFT | (0 if "px" in has else 32) << NO_PX_SHIFT
    return packed - (1 << 63) if has & {"new_ref", "match"} else packed


ORDER_FIELDS = np.zeros(256, np.int64)
ORDER_FIELDS[[message.code for message in _ORDER_MESSAGES]] = [_order_fields(message) for message in _ORDER_MESSAGES]
