"""The server's end of one SoupBinTCP connection, whatever it carries: bytes in, packets out, and what stands in a login.

Orders come on such connections, and snapshots go out on others; both are the same Connection to these kernels.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.state import (
    CLIENT_FD,
    CONNECTED,
    HEARD_NS,
    IN_BEGIN,
    IN_END,
    LEAVING,
    OUT_BEGIN,
    OUT_END,
    SENT_NS,
    SINCE_NS,
    STATE,
)
from engine.wire.hot.bytes import get_u16, put_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, close_fd, recv_bytes, send_bytes
from engine.wire.soupbintcp import LENGTH_BYTES, LOGIN_ACCEPTED, LOGIN_REJECTED, LOGIN_REQUEST, PAYLOAD_AT, TYPE_AT

# The largest packet that is taken for one, length bytes included: the largest order with every option is below 200 bytes.
PACKET_BYTES_MAX = 1024
# What one call hands to the socket: copying more would make a turn long.
SEND_BYTES_MAX = np.int64(1 << 16)

NOT_WHOLE = 0
NOT_A_PACKET = -1

USERNAME_AT, USERNAME_BYTES = LOGIN_REQUEST["username"], 6
PASSWORD_AT, PASSWORD_BYTES = LOGIN_REQUEST["password"], 10
SESSION_AT, SESSION_BYTES = LOGIN_REQUEST["session"], 10
SEQUENCE_AT, SEQUENCE_BYTES = LOGIN_REQUEST["sequence"], 20
LOGIN_BYTES = TYPE_AT + LOGIN_REQUEST.length
LOGIN_CODE = LOGIN_REQUEST.code

# What `login` holds: what must be said, and the packet that lets in who says it.
LOGIN_USERNAME = 0
LOGIN_PASSWORD = LOGIN_USERNAME + USERNAME_BYTES
LOGIN_SESSION = LOGIN_PASSWORD + PASSWORD_BYTES
LOGIN_PACKET = LOGIN_SESSION + SESSION_BYTES
LOGIN_PACKET_BYTES = TYPE_AT + LOGIN_ACCEPTED.length
ACCEPTED_SEQUENCE_AT = TYPE_AT + LOGIN_ACCEPTED["sequence"]

REJECTED_CODE, REJECTED_REASON_AT = LOGIN_REJECTED.code, TYPE_AT + LOGIN_REJECTED["reason"]
REJECTED_PACKET_BYTES = TYPE_AT + LOGIN_REJECTED.length

SPACE = np.int64(32)
ZERO = np.int64(48)
NINE = 57


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_connection(words, fd, wall_ns):
    """Begin with an accepted socket."""
    words[CLIENT_FD] = fd
    words[STATE] = CONNECTED
    words[IN_BEGIN] = 0
    words[IN_END] = 0
    words[OUT_BEGIN] = 0
    words[OUT_END] = 0
    words[HEARD_NS] = wall_ns
    words[SENT_NS] = wall_ns
    words[SINCE_NS] = wall_ns


@njit(cache=True, _nrt=False)
def leave(client):
    """The connection is over. What it leaves behind is its owner's to clear up."""
    close_fd(client.words[CLIENT_FD])
    client.words[CLIENT_FD] = -1
    client.words[STATE] = LEAVING


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_packet(client, kind):
    """A packet without payload behind what is to be sent. False where it has no room now."""
    words = client.words
    if words[OUT_END] + PAYLOAD_AT > client.outbound.shape[0]:
        return False
    put_u16(client.outbound, words[OUT_END], PAYLOAD_AT - TYPE_AT)
    client.outbound[words[OUT_END] + TYPE_AT] = kind
    words[OUT_END] += PAYLOAD_AT
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def send_waiting(client, wall_ns):
    """Send some of what waits, as far as the socket takes it. Returns the bytes that went."""
    words = client.words
    if words[OUT_END] == words[OUT_BEGIN]:
        return 0
    size = min(words[OUT_END] - words[OUT_BEGIN], SEND_BYTES_MAX)
    sent = send_bytes(words[CLIENT_FD], client.outbound, words[OUT_BEGIN], size)
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
def upper(byte):
    return byte - 32 if 97 <= byte <= 122 else byte


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_blank(given, at, length):
    for place in range(length):  # noqa: SIM110
        if given[at + place] != SPACE:
            return False
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(cache=True, _nrt=False)
def write_number(target, at, value, fill):
    """A number as SEQUENCE_BYTES of ASCII, padded on the left with `fill`."""
    for place in range(SEQUENCE_BYTES):
        target[at + place] = fill
    place = at + SEQUENCE_BYTES - 1
    while value > 0:
        target[place] = ZERO + value % 10
        value //= 10
        place -= 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_known(client, at):
    """Whether the login request at inbound[at:] has the right username and password."""
    given = client.inbound
    if not same_text(given, at + USERNAME_AT, client.login, LOGIN_USERNAME, USERNAME_BYTES):
        return False
    return same_text(given, at + PASSWORD_AT, client.login, LOGIN_PASSWORD, PASSWORD_BYTES)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_our_session(client, at):
    """Whether it asks for our session, by name or by leaving it blank."""
    given = client.inbound
    ours = same_text(given, at + SESSION_AT, client.login, LOGIN_SESSION, SESSION_BYTES)
    return ours or is_blank(given, at + SESSION_AT, SESSION_BYTES)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def put_accepted(client, sequence):
    """Put the packet that lets the client in behind what is to be sent."""
    start = client.words[OUT_END]
    for byte in range(LOGIN_PACKET_BYTES):
        client.outbound[start + byte] = client.login[LOGIN_PACKET + byte]
    write_number(client.outbound, start + ACCEPTED_SEQUENCE_AT, sequence, SPACE)
    client.words[OUT_END] = start + LOGIN_PACKET_BYTES


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def refuse_login(client, reason):
    """Say no, and hang up. A first packet always fits into the empty socket."""
    out = client.outbound
    put_u16(out, 0, REJECTED_PACKET_BYTES - LENGTH_BYTES)
    out[TYPE_AT] = REJECTED_CODE
    out[REJECTED_REASON_AT] = reason
    send_bytes(client.words[CLIENT_FD], out, 0, REJECTED_PACKET_BYTES)
    leave(client)
    return True
