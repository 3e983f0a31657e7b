"""The SoupBinTCP session, server side: a client is let in, its packets are taken off the stream wherever TCP cut it, and its log is sent.

    NOBODY ──accept──▶ CONNECTED ──login──▶ UP ──logout, silence, garbage, a broken connection──▶ LEAVING ──all cancelled──▶ NOBODY

One client at a time: others wait in the listening socket's queue until it has left. Its account (order ids, log, positions) outlives
its connection, so a client that logs in again gets the sequenced packets that it missed, and finds its orders cancelled.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.market import market_has_room
from engine.exchange.hot.orders import cut_order, handle_message
from engine.exchange.hot.reports import CANCEL_BY_SYSTEM, copy_bytes
from engine.exchange.hot.state import (
    CLIENT_FD,
    CLOSED,
    CONNECTED,
    COPIED,
    GOODBYE,
    HEARD_NS,
    IN_BEGIN,
    IN_END,
    LEAVING,
    LOG_SLOT_BYTES,
    LOGGED,
    NOBODY,
    OPEN,
    OUT_BEGIN,
    OUT_END,
    SENT_NS,
    STATE,
    UP,
)
from engine.wire.hot.bytes import get_u16, put_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, accept_socket, close_fd, recv_bytes, send_bytes
from engine.wire.soupbintcp import (
    CLIENT_HEARTBEAT,
    DEBUG,
    END_OF_SESSION,
    HEARTBEAT_NS,
    LENGTH_BYTES,
    LOGIN_ACCEPTED,
    LOGIN_REJECTED,
    LOGIN_REQUEST,
    LOGOUT,
    NOT_AUTHORIZED,
    PAYLOAD_AT,
    SERVER_HEARTBEAT,
    SESSION_UNAVAILABLE,
    SILENCE_NS,
    TYPE_AT,
    UNSEQUENCED,
)

# The largest packet that is taken for one, length bytes included: the largest order with every option is below 200 bytes.
PACKET_BYTES_MAX = 1024
PACKETS_PER_STEP = 32
CANCELS_PER_STEP = 256

NOT_WHOLE = 0
NOT_A_PACKET = -1

USERNAME_AT, USERNAME_BYTES = LOGIN_REQUEST["username"], 6
PASSWORD_AT, PASSWORD_BYTES = LOGIN_REQUEST["password"], 10
SESSION_AT, SESSION_BYTES = LOGIN_REQUEST["session"], 10
SEQUENCE_AT, SEQUENCE_BYTES = LOGIN_REQUEST["sequence"], 20
LOGIN_BYTES = TYPE_AT + LOGIN_REQUEST.length
LOGIN_CODE = LOGIN_REQUEST.code

# Client.login: what the client must say, and the packet that lets it in.
LOGIN_USERNAME = 0
LOGIN_PASSWORD = LOGIN_USERNAME + USERNAME_BYTES
LOGIN_SESSION = LOGIN_PASSWORD + PASSWORD_BYTES
LOGIN_PACKET = LOGIN_SESSION + SESSION_BYTES
LOGIN_PACKET_BYTES = TYPE_AT + LOGIN_ACCEPTED.length
ACCEPTED_SEQUENCE_AT = TYPE_AT + LOGIN_ACCEPTED["sequence"]

REJECTED_CODE, REJECTED_REASON_AT = LOGIN_REJECTED.code, TYPE_AT + LOGIN_REJECTED["reason"]
REJECTED_PACKET_BYTES = TYPE_AT + LOGIN_REJECTED.length

SPACE = 32
ZERO = 48
NINE = 57


@njit(cache=True, _nrt=False)
def accept(client, stats, listen_fd, wall_ns):
    """Let the next one in, if somebody waits."""
    fd = accept_socket(listen_fd)
    if fd < 0:
        return 0
    words = client.words
    words[CLIENT_FD] = fd
    words[STATE] = CONNECTED
    words[IN_BEGIN] = 0
    words[IN_END] = 0
    words[OUT_BEGIN] = 0
    words[OUT_END] = 0
    words[HEARD_NS] = wall_ns
    words[SENT_NS] = wall_ns
    stats[0].clients += 1
    return 1


@njit(cache=True, _nrt=False)
def leave(client):
    """The connection is over. What it left open is cancelled by sweep."""
    close_fd(client.words[CLIENT_FD])
    client.words[CLIENT_FD] = -1
    client.words[STATE] = LEAVING


@njit(cache=True, _nrt=False)
def sweep(venue):
    """Cancel what a client that has left has open, some at a time. Returns how many."""
    client = venue.client
    cancelled = 0
    while client.words[OPEN] > 0 and cancelled < CANCELS_PER_STEP and market_has_room(venue.market):
        slot = client.live[client.words[OPEN] - 1]
        handle = np.int64(client.table[slot].handle)
        cut_order(venue, handle, np.int64(venue.book.orders[handle].qty), CANCEL_BY_SYSTEM)
        cancelled += 1
    if client.words[OPEN] == 0:
        client.words[STATE] = NOBODY
    return cancelled


@njit(cache=True, _nrt=False)
def packet_bytes(words, inbound):
    """The length of the packet at IN_BEGIN, NOT_WHOLE while more of it is to come, or NOT_A_PACKET."""
    waiting = words[IN_END] - words[IN_BEGIN]
    if waiting < LENGTH_BYTES:
        return NOT_WHOLE
    size = LENGTH_BYTES + get_u16(inbound, words[IN_BEGIN])
    if size < PAYLOAD_AT or size > PACKET_BYTES_MAX:
        return NOT_A_PACKET
    return size if size <= waiting else NOT_WHOLE


@njit(cache=True, _nrt=False)
def receive(client, stats, wall_ns):
    """Read what the socket has behind what is there; only while no whole packet waits. Returns the bytes read, or 0."""
    words, inbound = client.words, client.inbound
    waiting = words[IN_END] - words[IN_BEGIN]
    if waiting == 0 or inbound.shape[0] - words[IN_BEGIN] < PACKET_BYTES_MAX:
        for byte in range(waiting):
            inbound[byte] = inbound[words[IN_BEGIN] + byte]
        words[IN_BEGIN] = 0
        words[IN_END] = waiting
    got = recv_bytes(words[CLIENT_FD], inbound, words[IN_END], inbound.shape[0] - words[IN_END])
    if got > 0:
        words[IN_END] += got
        words[HEARD_NS] = wall_ns
        return got
    if got != AGAIN and got != INTERRUPTED:
        if waiting != 0:
            stats[0].malformed += 1
        leave(client)
    return 0


@njit(cache=True, inline="always", _nrt=False)
def take_packet(venue, wall_ns, at, size):
    """One packet of `size` bytes at inbound[at:]. False where the session cannot go on because it is malformed."""
    client = venue.client
    kind = client.inbound[at + TYPE_AT]
    state = client.words[STATE]
    if kind == UNSEQUENCED and state == UP:
        return handle_message(venue, client.inbound, at + PAYLOAD_AT, size - PAYLOAD_AT)
    if kind == LOGIN_CODE and state == CONNECTED and size == LOGIN_BYTES:
        return log_in(client, venue.stats, wall_ns, at + TYPE_AT)
    if kind == LOGOUT:
        leave(client)
        return True
    return kind == DEBUG or (kind == CLIENT_HEARTBEAT and size == PAYLOAD_AT)


@njit(cache=True, _nrt=False)
def upper(byte):
    return byte - 32 if 97 <= byte <= 122 else byte


@njit(cache=True, _nrt=False)
def same_text(given, at, wanted, start, length):
    """Whether two fields hold the same text, `wanted` being left-justified: neither case nor the spaces around it count."""
    end = at + length
    while at < end and given[at] == SPACE:
        at += 1
    for place in range(length):
        byte = given[at + place] if at + place < end else SPACE
        if upper(byte) != upper(wanted[start + place]):
            return False
    return True


@njit(cache=True, _nrt=False)
def is_blank(given, at, length):
    for place in range(length):  # noqa: SIM110
        if given[at + place] != SPACE:
            return False
    return True


@njit(cache=True, _nrt=False)
def number_at(given, at, length):
    """ASCII digits with spaces around them, 0 where there are only spaces; -1 for anything else."""
    value = 0
    digits = 0
    ended = False
    for place in range(length):
        byte = np.int64(given[at + place])
        if byte == SPACE:
            ended = digits > 0
        elif byte < ZERO or byte > NINE or ended or digits == 18:
            return -1
        else:
            value = value * 10 + (byte - ZERO)
            digits += 1
    return value


@njit(cache=True, inline="always", _nrt=False)
def log_in(client, stats, wall_ns, at):
    """Judge the login request at inbound[at:]. False where its sequence number is none."""
    given, words = client.inbound, client.words
    sequence = number_at(given, at + SEQUENCE_AT, SEQUENCE_BYTES)
    if sequence < 0:
        return False
    if not same_text(given, at + USERNAME_AT, client.login, LOGIN_USERNAME, USERNAME_BYTES):
        return refuse_login(client, np.int64(NOT_AUTHORIZED))
    if not same_text(given, at + PASSWORD_AT, client.login, LOGIN_PASSWORD, PASSWORD_BYTES):
        return refuse_login(client, np.int64(NOT_AUTHORIZED))
    ours = same_text(given, at + SESSION_AT, client.login, LOGIN_SESSION, SESSION_BYTES)
    first = sequence - 1 if sequence > 0 else words[LOGGED]
    if words[LOGGED] - first > client.log.shape[0] // LOG_SLOT_BYTES:
        # It asks for what the log has no more.
        stats[0].reports_lost += words[LOGGED] - first - client.log.shape[0] // LOG_SLOT_BYTES
        return refuse_login(client, np.int64(SESSION_UNAVAILABLE))
    if first > words[LOGGED] or not (ours or is_blank(given, at + SESSION_AT, SESSION_BYTES)):
        return refuse_login(client, np.int64(SESSION_UNAVAILABLE))
    words[COPIED] = first
    words[GOODBYE] = 0
    words[STATE] = UP
    stats[0].logins += 1
    start = words[OUT_END]
    copy_bytes(client.outbound, start, client.login, LOGIN_PACKET, LOGIN_PACKET_BYTES)
    write_number(client.outbound, start + ACCEPTED_SEQUENCE_AT, first + 1)
    words[OUT_END] = start + LOGIN_PACKET_BYTES
    return True


@njit(cache=True, _nrt=False)
def write_number(target, at, value):
    """A number as SEQUENCE_BYTES of ASCII, padded on the left with spaces."""
    for place in range(SEQUENCE_BYTES):
        target[at + place] = SPACE
    place = at + SEQUENCE_BYTES - 1
    while value > 0:
        target[place] = ZERO + value % 10
        value //= 10
        place -= 1


@njit(cache=True, _nrt=False)
def refuse_login(client, reason):
    """Say no, and hang up. A first packet always fits into the empty socket."""
    out = client.outbound
    put_u16(out, 0, REJECTED_PACKET_BYTES - LENGTH_BYTES)
    out[TYPE_AT] = REJECTED_CODE
    out[REJECTED_REASON_AT] = reason
    send_bytes(client.words[CLIENT_FD], out, 0, REJECTED_PACKET_BYTES)
    leave(client)
    return True


@njit(cache=True, _nrt=False)
def put_packet(client, kind):
    """A packet without payload behind what is to be sent. False where it has no room now."""
    words = client.words
    if words[OUT_END] + PAYLOAD_AT > client.outbound.shape[0]:
        return False
    put_u16(client.outbound, words[OUT_END], PAYLOAD_AT - TYPE_AT)
    client.outbound[words[OUT_END] + TYPE_AT] = kind
    words[OUT_END] += PAYLOAD_AT
    return True


@njit(cache=True, _nrt=False)
def copy_log(client, stats):
    """Copy the log's packets that are still to be sent to outbound, as far as they fit. A client too far behind is let go in time:
    the log still has everything that it missed when it comes back."""
    words, out = client.words, client.outbound
    slots = client.log.shape[0] // LOG_SLOT_BYTES
    if (words[LOGGED] - words[COPIED]) * 4 > slots * 3:
        stats[0].send_failures += 1
        leave(client)
        return
    while words[COPIED] < words[LOGGED] and out.shape[0] - words[OUT_END] >= LOG_SLOT_BYTES:
        at = (words[COPIED] % slots) * LOG_SLOT_BYTES
        size = LENGTH_BYTES + get_u16(client.log, at)
        copy_bytes(out, words[OUT_END], client.log, at, size)
        words[OUT_END] += size
        words[COPIED] += 1


@njit(cache=True, _nrt=False)
def send_waiting(client, wall_ns):
    """Send what waits, as far as the socket takes it. Returns the bytes that went."""
    words = client.words
    if words[OUT_END] == words[OUT_BEGIN]:
        return 0
    sent = send_bytes(words[CLIENT_FD], client.outbound, words[OUT_BEGIN], words[OUT_END] - words[OUT_BEGIN])
    if sent < 0:
        if sent != AGAIN and sent != INTERRUPTED:
            leave(client)
        return 0
    words[SENT_NS] = wall_ns
    words[OUT_BEGIN] += sent
    if words[OUT_BEGIN] == words[OUT_END]:
        words[OUT_BEGIN] = 0
        words[OUT_END] = 0
    return sent


@njit(cache=True, _nrt=False)
def speak(venue, wall_ns):
    """What the client is to hear now: its log, the end of the session, or a heartbeat after a second of silence. A client that was
    silent for too long is given up."""
    client = venue.client
    words = client.words
    if words[STATE] == UP:
        copy_log(client, venue.stats)
        if venue.words[CLOSED] != 0 and words[COPIED] == words[LOGGED]:
            say_goodbye(client)
    if words[STATE] != UP and words[STATE] != CONNECTED:
        return 0
    if wall_ns - words[HEARD_NS] > SILENCE_NS:
        leave(client)
        return 1
    if words[STATE] == UP and words[OUT_END] == words[OUT_BEGIN] and wall_ns - words[SENT_NS] >= HEARTBEAT_NS:
        put_packet(client, np.int64(SERVER_HEARTBEAT))
    return send_waiting(client, wall_ns)


@njit(cache=True, _nrt=False)
def all_told(client):
    """Whether nothing is left to be sent to the client that is connected, if any is."""
    words = client.words
    if words[STATE] != UP:
        return words[STATE] == NOBODY
    return words[COPIED] == words[LOGGED] and words[OUT_END] == words[OUT_BEGIN]


@njit(cache=True, _nrt=False)
def say_goodbye(client):
    """End of session, once."""
    if client.words[GOODBYE] == 0 and put_packet(client, np.int64(END_OF_SESSION)):
        client.words[GOODBYE] = 1
