"""What the gateway's kernels work on. engine/gateway/stage.py makes the arrays; every word and flag has its name here."""

from typing import NamedTuple

import numpy as np

from engine.risk.hot.state import Risk
from shm.hot import ConsumerEnd, ProducerEnd

# Words of Gateway.session.
FD = 0
STATE = 1
ENDING = 2  # why the session is over: what step returns from then on
IN_BEGIN = 3  # inbound[IN_BEGIN:IN_END] was received and not yet read
IN_END = 4
RECEIVED_TSC = 5  # when the bytes that completed the packet now being read arrived
HEARD_TSC = 6  # when the venue was last heard
SENT_TSC = 7  # when it was last sent something
PENDING_AT = 8  # wire[PENDING_AT:][:PENDING_BYTES] is still to be sent
PENDING_BYTES = 9
BROKEN_PIPE = 10  # sending failed: read what has arrived, then give up
REQUESTED = 11  # the sequence number that the login asks for, 0: from now on
EXPECTED = 12  # the number of the next sequenced packet
LAST_ID = 13  # the highest order id seen
OWED = 14  # a replacement that died with its order, whose rejection is still to be told
SWEEP_NEXT = 15  # the sweep cancels what is open of SWEEP_NEXT .. SWEEP_END
SWEEP_END = 16
DRAIN_SEEN = 17
KILL_SEEN = 18
DRAINED = 19
EXECUTIONS = 20  # unique executions remembered
MIDNIGHT_NS = 21
TURN = 22
SESSION_WORDS = 23

# Values of STATE.
CONNECTED = 0
LOGIN_SENT = 1
UP = 2
OVER = 3

# States of an order. DONE and FREE places may be taken by a new order.
FREE = 0
PENDING_NEW = 1
LIVE = 2
PENDING_REPLACE = 3
PENDING_CANCEL = 4
DONE = 5

# Marks of an order (a record's `flags` would be numpy's own under NUMBA_DISABLE_JIT).
ACKNOWLEDGED = 1  # the venue has accepted it
CANCEL_PENDING = 2  # some cancel of it is under way
CANCEL_SENT = 4  # a cancel of all of it has been sent
REPORTED = 8  # its first report has been timed
PRESUMED_DEAD = 16  # a replacement that died with its order: the venue may say so too, or be silent

# States of an execution.
COUNTED = 1
BROKEN = 2

#   0          8    16     24         32         40         48            56           58     59      60      61    62     64
#   +----------+----+------+----------+----------+----------+-------------+------------+------+-------+-------+-----+------+
#   | order_id | px | open | executed | sent_tsc | replaces | replaced_by | instrument | side | state | marks | tif | pad  |
#   +----------+----+------+----------+----------+----------+-------------+------------+------+-------+-------+-----+------+
# One line an order, found by its id modulo the table's size.
#   open          what may still trade; of a replacement under way: what would be open if the venue took it now
#   executed      what it and the orders before it in its chain of replacements executed: the venue counts it in a quantity
#   replaces      the order that this one is to replace, while that is under way     replaced_by  the other way round
ORDER_ENTRY = np.dtype(
    [
        ("order_id", "i8"), ("px", "i8"), ("open", "i8"), ("executed", "i8"), ("sent_tsc", "i8"), ("replaces", "i8"), ("replaced_by", "i8"),
        ("instrument", "u2"), ("side", "u1"), ("state", "u1"), ("marks", "u1"), ("tif", "u1"), ("pad", "u2"),
    ],
    align=True,
)  # fmt: skip
#   0       8    16         20    24           26     27      28    32
#   +-------+----+----------+-----+------------+------+-------+-----+
#   | match | px | order_id | qty | instrument | side | state | pad |
#   +-------+----+----------+-----+------------+------+-------+-----+
EXECUTION_ENTRY = np.dtype(
    [
        ("match", "i8"),
        ("px", "i8"),
        ("order_id", "u4"),
        ("qty", "u4"),
        ("instrument", "u2"),
        ("side", "u1"),
        ("state", "u1"),
        ("pad", "u4"),
    ],
    align=True,
)

# How many replacements of one order may be under way one after another.
CHAIN_MAX = 8


class Gateway(NamedTuple):
    """orders, reports: rings; risk: the gate; session (SESSION_WORDS,) int64; inbound, wire: uint8 buffers;
    table (a power of two,) ORDER_ENTRY; executions (a power of two,) EXECUTION_ENTRY; positions: board; stats (1,) GATEWAY_STATS;
    hops (8, words) int64 histograms; control (words,) int64."""

    orders: ConsumerEnd
    reports: ProducerEnd
    risk: Risk
    session: np.ndarray
    inbound: np.ndarray
    wire: np.ndarray
    table: np.ndarray
    executions: np.ndarray
    positions: np.ndarray
    stats: np.ndarray
    hops: np.ndarray
    control: np.ndarray
