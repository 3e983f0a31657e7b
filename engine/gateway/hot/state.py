"""What the gateway's kernels work on. engine/gateway/stage.py makes the arrays; every word and flag has its name here."""

from typing import NamedTuple

import numpy as np

from engine.gateway.hot.queue import Queue
from engine.layout import ORDER_STATE
from engine.risk.hot.state import Risk
from shm.hot import ConsumerEnd, ProducerEnd

# Words of Gateway.session.
FD = 0  # -1 where there is no connection
STATE = 1
ENDING = 2  # why the session was lost last; what step returns once it is OVER
IN_BEGIN = 3  # inbound[IN_BEGIN:IN_END] was received and not yet read
IN_END = 4
RECEIVED_TSC = 5  # when the bytes that completed the packet now being read arrived
HEARD_TSC = 6  # when the venue was last heard
SENT_TSC = 7  # when it was last sent something
PENDING_AT = 8  # wire[PENDING_AT:][:PENDING_BYTES] is still to be sent
PENDING_BYTES = 9
BROKEN_PIPE = 10  # sending failed: read what has arrived, then give up
HEAD = 11  # where the venue's sequence was when it was last asked: an answer below it is to an earlier query, one just there may be
EXPECTED = 12  # the number of the next sequenced packet that was not applied yet: what a login asks for; 0: none of the past
LAST_ID = 13  # the highest order id seen: the strategy's own numbers
OWED = 14  # a replacement that died with its order, whose rejection is still to be told
SWEEP_NEXT = 15  # the sweep cancels what is open of the places of user_refs SWEEP_NEXT .. SWEEP_END
SWEEP_END = 16
DRAIN_SEEN = 17
KILL_SEEN = 18
DRAINED = 19
EXECUTIONS = 20  # unique executions remembered
MIDNIGHT_NS = 21
TURN = 22
NEXT_REF = 23  # the user_ref of the next order that is sent: the venue wants them to grow
SWEEP_ALL = 24  # the sweep is about everything, not only what a scoped kill covers
SWEEP_CANCELS = 25  # cancels written by it so far
SWEEP_KILL = 26  # the number of the kill that it is for, until that is told; 0: none
SWEPT_TSC = 27  # when the last of its cancels was written
SCOPED_SEEN = 28
UP_SEEN = 29
ARRIVING = 30  # the number of the next sequenced packet to come on this connection
PROTOCOL = 31  # what is spoken within the session: OUCH_50 or OUCH_42
PROBING = 32  # 1: the login under way only asks for HEAD
NAMED = 33  # 1: the login names the venue's session, which must be the same from then on
WANTED = 34  # what the kernel asks of the stage's attend, or hears from it
RETRY_TSC = 35  # when a connection is wanted again
CONNECT_BY_TSC = 36  # when one that is being made is given up
FAILURES = 37  # tries since a session was up
RANDOM = 38  # of the jitter
PROGRESS_TSC = 39  # when reconciliation last got on
RECONCILE = 40
QUERY_DUE = 41  # the account query is still to be sent
NEXT_TOLD = 42  # the venue's answer to it: no order at or above it ever arrived
LOOK_NEXT = 43  # the next place of the order table to look at, after a loss and again when the venue has told all
ADOPTED_OPEN = 44  # orders of an earlier life that may still trade
SILENCE_MAX_NS = 45  # after so much silence of the venue the session is lost
CONNECT_NS = 46  # how long a connection may take to be made
RETRY_NS = 47  # the wait before the first try, doubled with each
RETRY_NS_MAX = 48
TRIES_MAX = 49
OUTBOX_READY = 50  # orders that were in the outbox when it was last sent
REF_LAST = 51  # the highest user_ref, and the highest price, that the venue can be told
PX_LAST = 52
ASKED = 53  # 4.2: orders of which the venue did not speak, and of which a cancel was sent on this connection
ASKED_BEFORE = 54  # 4.2: orders from this user_ref on were sent after those cancels
ANSWERED = 55  # 4.2: the venue has answered one of them, so it has read those cancels
LATE_ANSWER = 56  # the account query was asked twice, and another answer may follow the one that was taken
SESSION_WORDS = 57

# Values of STATE.
#
#   DOWN ──connection made──▶ CONNECTED ──▶ LOGIN_SENT ──accepted──▶ RECONCILING ──▶ UP
#    ▲                                                                               │
#    └────── lost: closed, broken, silent or garbled, while tries are left ──────────┘        else OVER
CONNECTED = 0
LOGIN_SENT = 1
RECONCILING = 2
UP = 3
DOWN = 4
OVER = 5

# Values of RECONCILE.
REPLAYING = 0  # the venue tells again what we missed, until its answer to the account query
JUDGING = 1  # each order is looked at: what the venue never heard of is told to its strategy
CLEARING = 2  # orders of an earlier life are being cancelled

# Values of PROTOCOL.
OUCH_50 = 0
OUCH_42 = 1

# Values of WANTED.
NOTHING = 0
CONNECTION = 1  # the kernel asks for one
FAILED = 2  # it could not be made

# The highest user_ref that fits the wire of OUCH 5.0, and a price above all that the gate lets pass.
USER_REF_MAX = 0xFFFFFFFF
ANY_PX = 1 << 62

# States of an order, typed: numba would compile a kernel anew for each literal. FREE places and those of ended orders (`state >= ENDED`)
# may be taken by a new one.
FREE = np.int64(ORDER_STATE["free"])
PENDING_NEW = np.int64(ORDER_STATE["pending_new"])
LIVE = np.int64(ORDER_STATE["live"])
PARTIALLY_FILLED = np.int64(ORDER_STATE["partially_filled"])
PENDING_REPLACE = np.int64(ORDER_STATE["pending_replace"])
PENDING_CANCEL = np.int64(ORDER_STATE["pending_cancel"])
UNKNOWN = np.int64(ORDER_STATE["unknown"])  # it was open when the session was lost, and the venue has not spoken of it since
FILLED = np.int64(ORDER_STATE["filled"])
CANCELLED = np.int64(ORDER_STATE["cancelled"])
REJECTED = np.int64(ORDER_STATE["rejected"])
REPLACED = np.int64(ORDER_STATE["replaced"])
STATES = len(ORDER_STATE)
ENDED = FILLED

# LEGAL[from, to] is 1 where an order may pass from one state to another. Nothing leads out of an end, but for a replacement that was
# presumed dead and of which the venue says that it lives: it is of unknown fate until that is read to its end.
LEGAL = np.zeros((STATES, STATES), np.uint8)
LEGAL[PENDING_NEW, [LIVE, PARTIALLY_FILLED, PENDING_REPLACE, PENDING_CANCEL, UNKNOWN, FILLED, CANCELLED, REJECTED, REPLACED]] = 1
LEGAL[LIVE, [PARTIALLY_FILLED, PENDING_REPLACE, PENDING_CANCEL, UNKNOWN, FILLED, CANCELLED, REPLACED]] = 1
LEGAL[PARTIALLY_FILLED, [PENDING_REPLACE, PENDING_CANCEL, UNKNOWN, FILLED, CANCELLED, REPLACED]] = 1
LEGAL[PENDING_REPLACE, [LIVE, PARTIALLY_FILLED, PENDING_CANCEL, UNKNOWN, FILLED, CANCELLED, REPLACED]] = 1
LEGAL[PENDING_CANCEL, [LIVE, PARTIALLY_FILLED, PENDING_REPLACE, UNKNOWN, FILLED, CANCELLED, REPLACED]] = 1
LEGAL[UNKNOWN, [LIVE, PARTIALLY_FILLED, PENDING_REPLACE, PENDING_CANCEL, FILLED, CANCELLED, REJECTED, REPLACED]] = 1
LEGAL[REJECTED, UNKNOWN] = 1

# Marks of an order (a record's `flags` would be numpy's own under NUMBA_DISABLE_JIT).
ACKNOWLEDGED = 1  # the venue has accepted it
CANCEL_PENDING = 2  # some cancel of it is under way
CANCEL_SENT = 4  # a cancel of all of it has been sent
REPORTED = 8  # its first report has been timed
PRESUMED_DEAD = 16  # a replacement that died with its order: the venue may say so too, or be silent
ADOPTED = 32  # of an earlier life of this gateway: no strategy knows it
QUESTIONED = 64  # 4.2: the venue did not speak of it, and a cancel of it was sent on this connection

# States of an execution.
COUNTED = 1
BROKEN = 2

#   0       8    16         20    24           26     27      28         32
#   +-------+----+----------+-----+------------+------+-------+----------+
#   | match | px | user_ref | qty | instrument | side | state | order_id |
#   +-------+----+----------+-----+------------+------+-------+----------+
EXECUTION_ENTRY = np.dtype(
    [
        ("match", "i8"),
        ("px", "i8"),
        ("user_ref", "u4"),
        ("qty", "u4"),
        ("instrument", "u2"),
        ("side", "u1"),
        ("state", "u1"),
        ("order_id", "u4"),
    ],
    align=True,
)

#   0            8               16      24    32
#   +------------+---------------+-------+-----+
#   | origin_tsc | published_tsc | place | end |
#   +------------+---------------+-------+-----+
# Of an order in the outbox, for when it has been sent: where it came from, when (-1: that is recorded), its place in the table (-1: it is
# a cancel), and where its bytes end.
STAMPS = np.dtype([("origin_tsc", "i8"), ("published_tsc", "i8"), ("place", "i8"), ("end", "i8")], align=True)

# How many replacements of one order may be under way one after another.
CHAIN_MAX = 8


class Gateway(NamedTuple):
    """orders, reports: rings; risk: the gate; session (SESSION_WORDS,) int64; inbound, wire: uint8 buffers;
    table (a power of two,) OPEN_ORDER, a board; ids (as many,) uint32: the user_ref of an open order, in a place of its order_id, 0 where
    there is none; named (a power of two, 2) int64: symbols and their instruments, as looked up on the board;
    executions (a power of two,) EXECUTION_ENTRY; positions: board; stats (1,) GATEWAY_STATS;
    hops (words,) int64 histograms by hop; control (words,) int64;
    queue: orders that wait; pace (PACE_WORDS,) int64, the token bucket; batch (OUTBOX_ORDERS,) STAMPS of the orders in the outbox."""

    orders: ConsumerEnd
    reports: ProducerEnd
    risk: Risk
    session: np.ndarray
    inbound: np.ndarray
    wire: np.ndarray
    table: np.ndarray
    ids: np.ndarray
    named: np.ndarray
    executions: np.ndarray
    positions: np.ndarray
    stats: np.ndarray
    hops: np.ndarray
    control: np.ndarray
    queue: Queue
    pace: np.ndarray
    batch: np.ndarray
