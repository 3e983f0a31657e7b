"""OUCH 4.2 in the layout of 5.0 and the other way round: which field of a message becomes which, from the two tables.

Fields of the same name are carried over, numbers zero-extended or cut at the left, text cut or filled with spaces at the right. What only
one of the two has is named below (LEFT_OUT, RIDERS), and a field that nobody says is a mistake found here, at import. What an order is
called (token, user_ref) is left to who translates: each end has its own way from one to the other.

PLANS[way, code] says for a message, by its code: the first of its MOVES and the one behind its last (0: there is no such message), its
length before and after, and where its names stand before and after (0: nowhere).
"""

import numpy as np

from engine.gateway.ouch import v42, v50
from engine.wire.table import Field, Message

# Ways, typed: numba would compile a kernel anew for each literal.
REPORTS_TO_50 = np.int64(0)
REPORTS_TO_42 = np.int64(1)
ORDERS_TO_50 = np.int64(2)
ORDERS_TO_42 = np.int64(3)

# Columns of PLANS.
FIRST, END, FROM_BYTES, TO_BYTES, NAME_FROM, NAME_TO, ORIG_FROM, ORIG_TO = range(8)

# Columns of MOVES, and what is done with a field.
KIND, FROM_AT, FROM_SIZE, TO_AT, TO_SIZE = range(5)
NUMBER, TEXT, FILL, TIF_TO_50, TIF_TO_42, REASON_TO_50, REASON_TO_42 = range(7)

# Reject reasons that both name. Others of 4.2 stay the letters that they are, and others of 5.0 are told as "other".
REJECT_OTHER_42 = ord("O")
REJECT_REASONS = (
    (ord("C"), v50.REJECT_CLOSED),
    (REJECT_OTHER_42, v50.REJECT_OTHER),
    (ord("Z"), v50.REJECT_INVALID_QUANTITY),
    (ord("S"), v50.REJECT_INVALID_SYMBOL),
    (ord("X"), v50.REJECT_INVALID_PRICE),
)

# The names of an order, and of the order that it replaces.
NAMES = {"token": "user_ref", "user_ref": "token", "orig_token": "orig_user_ref", "orig_user_ref": "orig_token"}
# Fields that one has and the other has not, with what they are filled with; 5.0's client_id carries 4.2's firm.
LEFT_OUT = {"firm", "customer", "quantity_min", "bbo_weight", "client_id", "appendage_length"}
RIDERS = {"firm": "client_id", "client_id": "firm"}
SPACE = ord(" ")

PAIRS = (
    (REPORTS_TO_50, v42.OUTBOUND, v50.OUTBOUND_BY_CODE),
    (REPORTS_TO_42, tuple(v50.OUTBOUND_BY_CODE[message.code] for message in v42.OUTBOUND), v42.OUTBOUND_BY_CODE),
    (ORDERS_TO_50, v42.INBOUND, v50.INBOUND_BY_CODE),
    (ORDERS_TO_42, tuple(v50.INBOUND_BY_CODE[message.code] for message in v42.INBOUND), v42.INBOUND_BY_CODE),
)


def _kind(before: Field, after: Field) -> int:
    """What is done with a field that both have."""
    if before.name == "tif":
        return TIF_TO_42 if before.text else TIF_TO_50
    if before.text != after.text:
        return REASON_TO_50 if before.text else REASON_TO_42
    return TEXT if before.text else NUMBER


def _move(before: Message, after: Message, field: Field) -> tuple[int, int, int, int, int] | None:
    """How a field of `after` comes about; None for a name."""
    fields = {entry.name: entry for entry in before.fields}
    to = (after[field.name], field.length)
    if field.name in NAMES:
        return None
    source = fields.get(field.name) or fields.get(RIDERS.get(field.name, ""))
    if source is not None:
        return (_kind(source, field), before[source.name], source.length, *to)
    assert field.name in LEFT_OUT, f"{after.name}: {field.name} comes from nowhere"
    return (FILL, SPACE if field.text else 0, 0, *to)


def _tables() -> tuple[np.ndarray, np.ndarray]:
    plans = np.zeros((len(PAIRS), 256, 8), np.int64)
    moves: list[tuple[int, int, int, int, int]] = []
    for way, messages, by_code in PAIRS:
        for before in messages:
            after = by_code[before.code]
            first = len(moves)
            moves += [move for field in after.fields if (move := _move(before, after, field)) is not None]
            names = [
                place
                for old in ("token", "orig_token")
                for name in ([old] if old in before.offsets else [NAMES[old]])
                for place in ((before[name], after[NAMES[name]]) if name in before.offsets else (0, 0))
            ]
            plans[way, before.code] = (first, len(moves), before.length, after.length, *names)
    return plans, np.array(moves, np.int64)


PLANS, MOVES = _tables()
# By a reason of 4.2: that of 5.0.
REASONS_TO_50 = np.arange(256)
for _old, _new in REJECT_REASONS:
    REASONS_TO_50[_old] = _new
# By a reason of 5.0: that of 4.2. Letters that are no number of 5.0's come back as they went.
REASONS_TO_42 = np.array([code if chr(code).isalpha() and code < 128 else REJECT_OTHER_42 for code in range(256)])
for _old, _new in REJECT_REASONS:
    REASONS_TO_42[_new] = _old
