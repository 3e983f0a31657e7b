"""ITCH 5.0 out, packed into MoldUDP64 packets: what the exchange publishes, and the queue of packets to send.

A packet is closed when the next message would not fit, and all are sent at the end of a step, each on every line (A, and B where
there is one) before the next. What a line's socket does not take waits in the queue; work that publishes is only begun while at most
half of the queue waits for either. Only one message's doing that filled the other half would lose packets, which is counted. Tracking
numbers are 0 except where history gave one.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.state import (
    DROPPED,
    HEAD,
    LINE_A,
    LINE_B,
    LINE_FD,
    LINE_PACKETS,
    MARKET_SENT_NS,
    NOTHING,
    PACKET_MESSAGES,
    PACKET_SIZE,
    PUBLISHED,
    STUCK,
    TAIL,
)
from engine.feed.itch import (
    ADD_ORDER,
    ADD_ORDER_MPID,
    CROSS_TRADE,
    MESSAGES,
    NET_ORDER_IMBALANCE,
    ORDER_CANCEL,
    ORDER_DELETE,
    ORDER_EXECUTED,
    ORDER_EXECUTED_PRICE,
    ORDER_REPLACE,
    STOCK_DIRECTORY,
    SYSTEM_EVENT,
    TRADING_ACTION,
)
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, LENGTH_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT
from engine.wire.hot.bytes import put_raw64, put_u16, put_u32, put_u48, put_u64
from engine.wire.hot.syscalls import AGAIN, CONNECTION_REFUSED, INTERRUPTED, send_bytes

# -ENOBUFS: the network device's queue is full.
NO_BUFFERS = -105

MARKET_HEARTBEAT_NS = 1_000_000_000

LOCATE, TRACKING, TIMESTAMP = ADD_ORDER["locate"], ADD_ORDER["tracking"], ADD_ORDER["timestamp"]

# The length of every message by its type, 0 where there is none.
LENGTHS = np.zeros(256, np.int64)
for _message in MESSAGES:
    LENGTHS[_message.code] = _message.length

# Typed, as NOTHING is.
ADD_CODE, ADD_MPID_CODE = np.int64(ADD_ORDER.code), np.int64(ADD_ORDER_MPID.code)
ADD_BYTES, ADD_MPID_BYTES = np.int64(ADD_ORDER.length), np.int64(ADD_ORDER_MPID.length)
EXECUTED_CODE, PRICED_CODE = np.int64(ORDER_EXECUTED.code), np.int64(ORDER_EXECUTED_PRICE.code)
CANCEL_CODE, DELETE_CODE, REPLACE_CODE = np.int64(ORDER_CANCEL.code), np.int64(ORDER_DELETE.code), np.int64(ORDER_REPLACE.code)
EVENT_CODE, DIRECTORY_CODE = np.int64(SYSTEM_EVENT.code), np.int64(STOCK_DIRECTORY.code)
ACTION_CODE, CROSS_CODE, IMBALANCE_CODE = np.int64(TRADING_ACTION.code), np.int64(CROSS_TRADE.code), np.int64(NET_ORDER_IMBALANCE.code)

ADD_REF, ADD_SIDE, ADD_SHARES = ADD_ORDER["ref"], ADD_ORDER["side"], ADD_ORDER["shares"]
ADD_STOCK, ADD_PX, ADD_ATTRIBUTION = ADD_ORDER["stock"], ADD_ORDER["px"], ADD_ORDER_MPID["attribution"]

EXECUTED_REF, EXECUTED_SHARES, EXECUTED_MATCH = ORDER_EXECUTED["ref"], ORDER_EXECUTED["shares"], ORDER_EXECUTED["match"]
PRICED_PRINTABLE, PRICED_PX = ORDER_EXECUTED_PRICE["printable"], ORDER_EXECUTED_PRICE["px"]

CANCEL_REF, CANCEL_SHARES = ORDER_CANCEL["ref"], ORDER_CANCEL["shares"]
DELETE_REF = ORDER_DELETE["ref"]
REPLACE_REF, REPLACE_NEW_REF = ORDER_REPLACE["ref"], ORDER_REPLACE["new_ref"]
REPLACE_SHARES, REPLACE_PX = ORDER_REPLACE["shares"], ORDER_REPLACE["px"]

EVENT_AT = SYSTEM_EVENT["event"]
DIRECTORY_STOCK = STOCK_DIRECTORY["stock"]
# The text fields of a directory message that are one character: where, and what we say of every generated symbol.
DIRECTORY_TEXT = tuple(
    (STOCK_DIRECTORY[name], ord(character))
    for name, character in (
        ("market_category", "Q"), ("financial_status", "N"), ("round_lots_only", "N"), ("issue_classification", "C"), ("authenticity", "T"),
        ("short_sale_threshold", "N"), ("ipo_flag", "N"), ("luld_tier", "1"), ("etp_flag", "N"), ("inverse", "N"),
    )
)  # fmt: skip
DIRECTORY_LOT, DIRECTORY_SUBTYPE = STOCK_DIRECTORY["round_lot_size"], STOCK_DIRECTORY["issue_subtype"]
DIRECTORY_LEVERAGE = STOCK_DIRECTORY["etp_leverage"]
ROUND_LOT = 100

ACTION_STOCK, ACTION_STATE, ACTION_RESERVED = TRADING_ACTION["stock"], TRADING_ACTION["state"], TRADING_ACTION["reserved"]
ACTION_REASON = TRADING_ACTION["reason"]
BLANK = ord(" ")

CROSS_SHARES, CROSS_STOCK, CROSS_PX = CROSS_TRADE["shares"], CROSS_TRADE["stock"], CROSS_TRADE["px"]
CROSS_MATCH, CROSS_KIND = CROSS_TRADE["match"], CROSS_TRADE["cross"]

PAIRED, IMBALANCE, DIRECTION = NET_ORDER_IMBALANCE["paired"], NET_ORDER_IMBALANCE["imbalance"], NET_ORDER_IMBALANCE["direction"]
IMBALANCE_STOCK, FAR_PX, NEAR_PX = NET_ORDER_IMBALANCE["stock"], NET_ORDER_IMBALANCE["far_px"], NET_ORDER_IMBALANCE["near_px"]
REFERENCE_PX, IMBALANCE_CROSS = NET_ORDER_IMBALANCE["reference_px"], NET_ORDER_IMBALANCE["cross"]
VARIATION = NET_ORDER_IMBALANCE["variation"]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def close_packet(market):
    """Finish the packet that is being filled and begin the next. With no place left in the queue the oldest packet is lost."""
    words = market.words
    places = market.sizes.shape[0]
    place = words[HEAD] & (places - 1)
    at = place * PACKET_BYTES_MAX
    put_u64(market.packets, at + SEQUENCE_AT, words[PUBLISHED] - words[PACKET_MESSAGES] + 1)
    put_u16(market.packets, at + COUNT_AT, words[PACKET_MESSAGES])
    market.sizes[place] = words[PACKET_SIZE]
    words[HEAD] += 1
    words[PACKET_SIZE] = HEADER_BYTES
    words[PACKET_MESSAGES] = 0
    for line in range(market.lines.shape[0]):
        if words[HEAD] - market.lines[line, TAIL] == places:
            market.lines[line, TAIL] += 1
            market.lines[line, DROPPED] += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def packets_waiting(market):
    """How many packets the line that is furthest behind has still to send."""
    waiting = NOTHING
    for line in range(market.lines.shape[0]):
        waiting = max(waiting, market.words[HEAD] - market.lines[line, TAIL])
    return waiting


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def market_has_room(market):
    """Whether work that publishes may begin: at most half of the queue is waiting."""
    return packets_waiting(market) * 2 < market.sizes.shape[0]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_bytes(market, length):
    """Where in packets to write a message of `length` bytes."""
    words = market.words
    if words[PACKET_SIZE] + LENGTH_BYTES + length > PACKET_BYTES_MAX:
        close_packet(market)
    at = (words[HEAD] & (market.sizes.shape[0] - 1)) * PACKET_BYTES_MAX + words[PACKET_SIZE]
    put_u16(market.packets, at, length)
    words[PACKET_SIZE] += LENGTH_BYTES + length
    words[PACKET_MESSAGES] += 1
    words[PUBLISHED] += 1
    return at + LENGTH_BYTES


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_message(market, code, instrument, tracking, now_ns):
    """Begin a message: where its fields go, with the header written."""
    at = open_bytes(market, LENGTHS[code])
    write_header(market.packets, at, code, instrument, tracking, now_ns)
    return at


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def write_header(target, at, code, instrument, tracking, now_ns):
    target[at] = code
    put_u16(target, at + LOCATE, instrument)
    put_u16(target, at + TRACKING, tracking)
    put_u48(target, at + TIMESTAMP, now_ns)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_add(market, now_ns, instrument, symbol, ref, side, qty, px, tracking, attribution):
    """A, or F where attribution (four raw bytes) is not 0."""
    at = open_bytes(market, ADD_BYTES if attribution == 0 else ADD_MPID_BYTES)
    write_add(market.packets, at, now_ns, instrument, symbol, ref, side, qty, px, tracking, attribution)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def write_add(target, at, now_ns, instrument, symbol, ref, side, qty, px, tracking, attribution):
    """A or F at target[at:], where there is room for it."""
    if attribution == 0:
        write_header(target, at, ADD_CODE, instrument, tracking, now_ns)
    else:
        write_header(target, at, ADD_MPID_CODE, instrument, tracking, now_ns)
        put_u32(target, at + ADD_ATTRIBUTION, attribution)
    put_u64(target, at + ADD_REF, ref)
    target[at + ADD_SIDE] = side
    put_u32(target, at + ADD_SHARES, qty)
    put_raw64(target, at + ADD_STOCK, symbol)
    put_u32(target, at + ADD_PX, px)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_executed(market, now_ns, instrument, ref, qty, match, tracking):
    at = open_message(market, EXECUTED_CODE, instrument, tracking, now_ns)
    put_u64(market.packets, at + EXECUTED_REF, ref)
    put_u32(market.packets, at + EXECUTED_SHARES, qty)
    put_u64(market.packets, at + EXECUTED_MATCH, match)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_executed_at(market, now_ns, instrument, ref, qty, match, tracking, printable, px):
    """C: executed at another price than the order's own."""
    at = open_message(market, PRICED_CODE, instrument, tracking, now_ns)
    put_u64(market.packets, at + EXECUTED_REF, ref)
    put_u32(market.packets, at + EXECUTED_SHARES, qty)
    put_u64(market.packets, at + EXECUTED_MATCH, match)
    market.packets[at + PRICED_PRINTABLE] = printable
    put_u32(market.packets, at + PRICED_PX, px)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_cancel(market, now_ns, instrument, ref, qty, tracking):
    """X: `qty` shares less."""
    at = open_message(market, CANCEL_CODE, instrument, tracking, now_ns)
    put_u64(market.packets, at + CANCEL_REF, ref)
    put_u32(market.packets, at + CANCEL_SHARES, qty)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_delete(market, now_ns, instrument, ref, tracking):
    at = open_message(market, DELETE_CODE, instrument, tracking, now_ns)
    put_u64(market.packets, at + DELETE_REF, ref)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_replace(market, now_ns, instrument, ref, new_ref, qty, px, tracking):
    at = open_message(market, REPLACE_CODE, instrument, tracking, now_ns)
    put_u64(market.packets, at + REPLACE_REF, ref)
    put_u64(market.packets, at + REPLACE_NEW_REF, new_ref)
    put_u32(market.packets, at + REPLACE_SHARES, qty)
    put_u32(market.packets, at + REPLACE_PX, px)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_event(market, now_ns, event):
    at = open_message(market, EVENT_CODE, NOTHING, NOTHING, now_ns)
    market.packets[at + EVENT_AT] = event


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_directory(market, now_ns, instrument, symbol):
    at = open_message(market, DIRECTORY_CODE, instrument, NOTHING, now_ns)
    put_raw64(market.packets, at + DIRECTORY_STOCK, symbol)
    put_u32(market.packets, at + DIRECTORY_LOT, np.int64(ROUND_LOT))
    for place, character in DIRECTORY_TEXT:
        market.packets[at + place] = character
    # Issue subtype Z: not applicable.
    put_u16(market.packets, at + DIRECTORY_SUBTYPE, np.int64(0x5A20))
    put_u32(market.packets, at + DIRECTORY_LEVERAGE, NOTHING)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_action(market, now_ns, instrument, symbol, state, reason):
    """H: from now on the instrument's trading state is `state`; `reason` is four bytes of text."""
    at = open_message(market, ACTION_CODE, instrument, NOTHING, now_ns)
    put_raw64(market.packets, at + ACTION_STOCK, symbol)
    market.packets[at + ACTION_STATE] = state
    market.packets[at + ACTION_RESERVED] = BLANK
    put_u32(market.packets, at + ACTION_REASON, reason)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_cross(market, now_ns, instrument, symbol, qty, px, match, cross):
    """Q: so many shares traded in a cross, all at px; 0 where orders did not suffice for one."""
    at = open_message(market, CROSS_CODE, instrument, NOTHING, now_ns)
    put_u64(market.packets, at + CROSS_SHARES, qty)
    put_raw64(market.packets, at + CROSS_STOCK, symbol)
    put_u32(market.packets, at + CROSS_PX, px)
    put_u64(market.packets, at + CROSS_MATCH, match)
    market.packets[at + CROSS_KIND] = cross


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_imbalance(market, now_ns, instrument, symbol, paired, imbalance, direction, far_px, near_px, reference, cross, variation):
    """I: what would trade in the cross that is to come, and what would be left over."""
    at = open_message(market, IMBALANCE_CODE, instrument, NOTHING, now_ns)
    put_u64(market.packets, at + PAIRED, paired)
    put_u64(market.packets, at + IMBALANCE, imbalance)
    market.packets[at + DIRECTION] = direction
    put_raw64(market.packets, at + IMBALANCE_STOCK, symbol)
    put_u32(market.packets, at + FAR_PX, far_px)
    put_u32(market.packets, at + NEAR_PX, near_px)
    put_u32(market.packets, at + REFERENCE_PX, reference)
    market.packets[at + IMBALANCE_CROSS] = cross
    market.packets[at + VARIATION] = variation


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def publish_copy(market, source, start, length):
    """A message of history, byte for byte."""
    at = open_bytes(market, length)
    for byte in range(length):
        market.packets[at + byte] = source[start + byte]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def send_packet(fd, packets, at, size):
    """Send a datagram. A refusal is the answer to an earlier one that nobody listened to: this one has not been sent yet."""
    sent = send_bytes(fd, packets, at, size)
    if sent in (CONNECTION_REFUSED, INTERRUPTED):
        sent = send_bytes(fd, packets, at, size)
    return sent


@njit(cache=True, _nrt=False)
def seal(market):
    """Close the packet that is being filled, if there is anything in it."""
    if market.words[PACKET_MESSAGES] != 0:
        close_packet(market)


@njit(cache=True, _nrt=False)
def flush(market, stats, wall_ns):
    """Send all that waits, as far as the sockets take it: each packet on all lines, then the next. Returns how many were sent."""
    lines = market.lines
    for line in range(lines.shape[0]):
        lines[line, STUCK] = 0
    packets = 0
    while True:
        sent = 0
        for line in range(lines.shape[0]):
            sent += send_next(market, lines[line], stats, wall_ns)
        if sent == 0:
            break
        packets += sent
    stats[0].messages = market.words[PUBLISHED]
    stats[0].packets = lines[LINE_A, LINE_PACKETS]
    if lines.shape[0] > LINE_B:
        stats[0].packets_b = lines[LINE_B, LINE_PACKETS]
    for line in range(lines.shape[0]):
        stats[0].send_failures += lines[line, DROPPED]
        lines[line, DROPPED] = 0
    return packets


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def send_next(market, line, stats, wall_ns):
    """Send the next packet that waits for a line. Returns 1, or 0 where there is none or the socket takes no more now."""
    while line[STUCK] == 0 and line[TAIL] != market.words[HEAD]:
        place = line[TAIL] & (market.sizes.shape[0] - 1)
        sent = send_packet(line[LINE_FD], market.packets, place * PACKET_BYTES_MAX, market.sizes[place])
        if sent in (AGAIN, NO_BUFFERS):
            line[STUCK] = 1
            break
        line[TAIL] += 1
        if sent < 0 and sent != CONNECTION_REFUSED:
            stats[0].send_failures += 1
            continue
        line[LINE_PACKETS] += 1
        market.words[MARKET_SENT_NS] = wall_ns
        return 1
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def send_header(market, wall_ns, count):
    """A packet without messages on every line: a heartbeat or the end of session. A line on which packets wait is left out, as the
    sequence number says that they were sent. True when it went out on all."""
    at = market.sizes.shape[0] * PACKET_BYTES_MAX
    put_u64(market.packets, at + SEQUENCE_AT, market.words[PUBLISHED] + 1)
    put_u16(market.packets, at + COUNT_AT, count)
    everywhere = True
    for line in range(market.lines.shape[0]):
        if market.lines[line, TAIL] != market.words[HEAD]:
            everywhere = False
            continue
        sent = send_packet(market.lines[line, LINE_FD], market.packets, at, HEADER_BYTES)
        if sent in (AGAIN, NO_BUFFERS):
            everywhere = False
        else:
            market.words[MARKET_SENT_NS] = wall_ns
    return everywhere


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def market_is_silent(market, wall_ns):
    """Whether a second has passed without a packet."""
    return wall_ns - market.words[MARKET_SENT_NS] >= MARKET_HEARTBEAT_NS


@njit(cache=True, _nrt=False)
def keep_market_alive(market, wall_ns):
    """A heartbeat after a second without a packet."""
    if market_is_silent(market, wall_ns):
        send_header(market, wall_ns, NOTHING)


@njit(cache=True, _nrt=False)
def end_session(market, wall_ns):
    return send_header(market, wall_ns, np.int64(END_OF_SESSION))
