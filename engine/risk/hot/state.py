"""What the gate looks at: its words, its records, and the handle that holds them all. engine/risk/make.py makes the arrays."""

from typing import NamedTuple

import numpy as np

from engine.layout import CONTROL, RISK_FACTS, RISK_RULES

# A limit that was switched off by name. 0 is a limit like any other: nothing passes it.
OFF = -1

# Words of Risk.rules, the gate's own copy of the rules record up to its text.
VERSION = 0
STATE = RISK_RULES.fields["state"][1] // 8
TRIP_CLEARED = RISK_RULES.fields["trip_cleared"][1] // 8
LIMITS_AT = RISK_RULES.fields["limits"][1] // 8
RESTRICTED_AT = RISK_RULES.fields["restricted"][1] // 8
ENABLED_AT = RISK_RULES.fields["enabled"][1] // 8
RULES_WORDS = RISK_RULES.fields["text"][1] // 8

# Places of the limits behind LIMITS_AT. Amounts are price units times quantity, times nanoseconds.
QTY_MIN = LIMITS_AT + 0
QTY_MAX = LIMITS_AT + 1
QTY_STEP = LIMITS_AT + 2  # 0: the instrument's round lot
PX_STEP = LIMITS_AT + 3  # 0: the instrument's tick
NOTIONAL_MIN = LIMITS_AT + 4
NOTIONAL_MAX = LIMITS_AT + 5
NOTIONAL_WINDOW_MAX = LIMITS_AT + 6
NOTIONAL_BUCKET_NS = LIMITS_AT + 7
NOTIONAL_SESSION_MAX = LIMITS_AT + 8
COLLAR = LIMITS_AT + 9
COLLAR_WINDOW = LIMITS_AT + 10
COLLAR_BUCKET_NS = LIMITS_AT + 11
REFERENCE_AGE_NS = LIMITS_AT + 12
POSITION_MAX = LIMITS_AT + 13
GROSS_POSITION_MAX = LIMITS_AT + 14
GROSS_EXPOSURE_MAX = LIMITS_AT + 15
NET_EXPOSURE_MAX = LIMITS_AT + 16
CREDIT_MAX = LIMITS_AT + 17
MARGIN_PCT = LIMITS_AT + 18
DAILY_LOSS_MAX = LIMITS_AT + 19
DRAWDOWN_MAX = LIMITS_AT + 20
LOSSES_MAX = LIMITS_AT + 21
SELF_TRADE = LIMITS_AT + 22
DUPLICATE_NS = LIMITS_AT + 23
DUPLICATES_NS = LIMITS_AT + 24
RATE = LIMITS_AT + 25
BUCKET_MAX = LIMITS_AT + 26
REFILL_NS = LIMITS_AT + 27
ORDER_TO_TRADE_MAX = LIMITS_AT + 28
ORDER_TO_TRADE_FREE = LIMITS_AT + 29
FIRE_NS = LIMITS_AT + 30
FIRES_NS = LIMITS_AT + 31
VENUE_QTY_MAX = LIMITS_AT + 32
VALUE_SAFE = LIMITS_AT + 33
LIMIT_WORDS = 34

# Words of Risk.facts.
TRIPS = RISK_FACTS.fields["trips"][1] // 8
TRIP_REASON = RISK_FACTS.fields["trip_reason"][1] // 8
PNL = RISK_FACTS.fields["pnl"][1] // 8
PEAK = RISK_FACTS.fields["peak"][1] // 8
LOSSES = RISK_FACTS.fields["losses"][1] // 8
GROSS = RISK_FACTS.fields["gross"][1] // 8
NET_LONG = RISK_FACTS.fields["net_long"][1] // 8
NET_SHORT = RISK_FACTS.fields["net_short"][1] // 8
GROSS_QTY = RISK_FACTS.fields["gross_qty"][1] // 8
SESSION_NOTIONAL = RISK_FACTS.fields["session_notional"][1] // 8
MESSAGES = RISK_FACTS.fields["messages"][1] // 8
EXECUTIONS = RISK_FACTS.fields["executions"][1] // 8
RULES_READ = RISK_FACTS.fields["rules_read"][1] // 8
LINES = RISK_FACTS.fields["lines"][1] // 8
DISABLED_AT = RISK_FACTS.fields["disabled"][1] // 8
FIRED_AT = RISK_FACTS.fields["fired"][1] // 8

# Words of Risk.bucket. A message costs TOKEN; a nanosecond brings RATE, up to BUCKET_MAX: exact, without a division.
LEVEL = 0
FILLED_NS = 1
BUCKET_WORDS = 2
TOKEN = 1_000_000_000

# Words of Risk.window, the amounts sent lately: so many pieces of time, the current one among them.
PIECES = 32
WINDOW_SUM = 0
WINDOW_END_NS = 1
WINDOW_PIECE = 2
WINDOW_FIRST = 3
WINDOW_WORDS = WINDOW_FIRST + PIECES

# The middles of an instrument's window: its lows, then its highs, by piece.
SWINGS = 8

# Words of a control record.
PHASE = CONTROL.fields["phase"][1] // 8
KILL = CONTROL.fields["kill"][1] // 8
SESSION_UP = CONTROL.fields["session_up"][1] // 8
SCOPED = CONTROL.fields["scoped"][1] // 8
VENUE = CONTROL.fields["venue"][1] // 8
SCOPES_AT = CONTROL.fields["scopes"][1] // 8

# Words of a scoped kill behind SCOPES_AT.
SCOPE_NUMBER = 0
SCOPE_STRATEGY = 1
SCOPE_SYMBOL = 2
SCOPE_VENUE = 3
SCOPE_NS = 4
SCOPE_WORDS = 8
ANY_STRATEGY = -1
ANY_NAME = 0

# The collar is kept in hundredths of a basis point, so that a fraction of one can be asked for.
COLLAR_UNITS = 1_000_000

# Above this a price is not one: 2^40 leaves room to double it and multiply it by COLLAR_UNITS.
PX_MAX = 1 << 40

# The largest product of quantity and price: beyond it the limit was passed long ago, below it int64 holds it exactly.
NOTIONAL_SAFE = float(1 << 62)

# The sum of all instruments' amounts stays within this: it may be multiplied by 100 (a percentage) and still fit.
TOTAL_SAFE = 1 << 55

# Duplicates are looked for in so many places; none being free refuses the order.
WAYS = 4

# A self-trade is looked for in so many open orders of one side; a longer list than that refuses the order.
SCAN_MAX = 4096

# A board line is written in a few nanoseconds: one that is torn this often in a row is not being written by a feed handler.
BOARD_TRIES = 8

#   0         8       16       24      28           32
#   +---------+-------+--------+-------+------------+
#   | version | rules | symbol | place | restricted |     by instrument number
#   +---------+-------+--------+-------+------------+
# version, rules   of the instrument's line and of the rules that were looked at
# symbol           packed, 0: may not be traded          place   of its line in Risk.lines + 1, 0 before it has one
KNOWN = np.dtype([("version", "i8"), ("rules", "i8"), ("symbol", "i8"), ("place", "i4"), ("restricted", "i4")], align=True)

# What the gate keeps of an instrument that was ordered, three cache lines.
#   instrument  its number           mark          middle of the last good quote, 0 before one
#   gross, net_long, net_short, gross_qty, pnl     what it adds to the totals
#   trip_cash   cash when its position was last flat
#   low, high (of the window's earlier pieces), low_now, high_now: twice the middle      swing_end_ns, swing: the current piece
#   bids, asks  the first of our open orders on each side, as place in Risk.own + 1       bid_count, ask_count
#   highest_bid, lowest_ask   bounds: no open order of ours is beyond them, one may be less far
LINE = np.dtype(
    [
        ("instrument", "i8"), ("mark", "i8"), ("tick_px", "i8"), ("lot_qty", "i8"),
        ("gross", "i8"), ("net_long", "i8"), ("net_short", "i8"), ("gross_qty", "i8"),
        ("pnl", "i8"), ("trip_cash", "i8"), ("low", "i8"), ("high", "i8"),
        ("low_now", "i8"), ("high_now", "i8"), ("swing_end_ns", "i8"), ("swing", "i8"),
        ("bids", "i8"), ("asks", "i8"), ("bid_count", "i8"), ("ask_count", "i8"),
        ("highest_bid", "i8"), ("lowest_ask", "i8"), ("pad0", "i8"), ("pad1", "i8"),
    ],
    align=True,
)  # fmt: skip

#   0    8      12     16      20     21       22    24
#   +----+------+------+-------+------+--------+-----+
#   | px | next | prev | place | side | linked | pad |     by place in the gateway's order table
#   +----+------+------+-------+------+--------+-----+
# An open order in the list of its instrument's side. next, prev: a place + 1, 0 for none.
OWN = np.dtype([("px", "i8"), ("next", "i4"), ("prev", "i4"), ("place", "i4"), ("side", "u1"), ("linked", "u1"), ("pad", "u2")], align=True)

#   0     8          16     24    32
#   +-----+----------+------+-----+
#   | who | how_much | tat  | pad |     price, side, kind and time in force; quantity and instrument; when it counts no more
#   +-----+----------+------+-----+
SENT = np.dtype([("who", "i8"), ("how_much", "i8"), ("tat_ns", "i8"), ("pad", "i8")], align=True)


class Risk(NamedTuple):
    """What the gate looks at.

    shared (words,) int64 the rules' board line; rules (RULES_WORDS,) int64 the copy that is judged by; facts (words,) int64 and
    counts (REASONS,) int64, both of the shared record; allowed (n,) int64 packed symbols; known (instruments,) KNOWN;
    lines (places,) LINE; swings (places, 2 x SWINGS) int64; own (orders,) OWN; bucket (BUCKET_WORDS,), window (WINDOW_WORDS,) int64;
    sent (sets x WAYS,) SENT; fires (strategies,) int64; quotes, instruments, positions boards; quote, instrument (1,) records to
    copy into; control (words,) int64.
    """

    shared: np.ndarray
    rules: np.ndarray
    facts: np.ndarray
    counts: np.ndarray
    allowed: np.ndarray
    known: np.ndarray
    lines: np.ndarray
    swings: np.ndarray
    own: np.ndarray
    bucket: np.ndarray
    window: np.ndarray
    sent: np.ndarray
    fires: np.ndarray
    quotes: np.ndarray
    quote: np.ndarray
    instruments: np.ndarray
    instrument: np.ndarray
    positions: np.ndarray
    control: np.ndarray
