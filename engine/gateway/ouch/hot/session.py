"""The SoupBinTCP session, client side: bytes out, bytes in, packets taken off the stream wherever TCP cut it.

Sending never waits: what the socket does not take stays in its template and goes first. Receiving stops while the reports ring has no
room, so the venue's bytes wait in the socket and nothing is lost. Anything that is not a packet of this protocol ends the session:
on a stream there is no telling where the next packet would begin.
"""

from numba import njit

from engine.gateway.hot.state import (
    BROKEN_PIPE,
    ENDING,
    EXPECTED,
    FD,
    HEARD_TSC,
    IN_BEGIN,
    IN_END,
    LOGIN_SENT,
    OVER,
    OWED,
    PENDING_AT,
    PENDING_BYTES,
    RECEIVED_TSC,
    REQUESTED,
    SENT_TSC,
    STATE,
    UP,
)
from engine.gateway.ouch.hot.encode import HEARTBEAT_AT, HEARTBEAT_BYTES, LOGIN_AT, LOGIN_BYTES
from engine.gateway.ouch.hot.venue import SET_FULL, TOO_SHORT, apply, tell_owed
from engine.messages.hot.stamp import now_tsc, ticks_of_ns
from engine.risk.hot.state import SESSION_UP
from engine.wire.hot.bytes import get_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, recv_bytes, send_bytes
from engine.wire.soupbintcp import (
    DEBUG,
    END_OF_SESSION,
    HEARTBEAT_NS,
    LENGTH_BYTES,
    LOGIN_ACCEPTED,
    LOGIN_REJECTED,
    NOT_AUTHORIZED,
    PAYLOAD_AT,
    SEQUENCED,
    SERVER_HEARTBEAT,
    SESSION_UNAVAILABLE,
    SILENCE_NS,
    TYPE_AT,
    UNSEQUENCED,
)
from shm.atomics import store_release
from shm.hot import has_room

# Reasons to leave the loop (engine/gateway/stage.py has the sentences).
SESSION_LOST = -2
LOGIN_NOT_AUTHORIZED = -3
LOGIN_SESSION_UNAVAILABLE = -4
LOGIN_REFUSED = -5
SERVER_SILENT = -6
MALFORMED = -7
SESSION_ENDED = -8
EXECUTIONS_EXHAUSTED = -9

# The largest packet that is taken for one, length bytes included. OUCH messages are below 200 bytes; debug text may be long.
PACKET_BYTES_MAX = 4096
PACKETS_PER_STEP = 64
# A message causes at most two reports: accepted and at once dead.
REPORTS_PER_MESSAGE = 2

SEQUENCE_AT = TYPE_AT + LOGIN_ACCEPTED["sequence"]
SEQUENCE_DIGITS = LOGIN_ACCEPTED.length - LOGIN_ACCEPTED["sequence"]
LOGIN_ACCEPTED_CODE, LOGIN_ACCEPTED_BYTES = LOGIN_ACCEPTED.code, TYPE_AT + LOGIN_ACCEPTED.length
LOGIN_REJECTED_CODE, LOGIN_REJECTED_BYTES = LOGIN_REJECTED.code, TYPE_AT + LOGIN_REJECTED.length
LOGIN_REASON_AT = TYPE_AT + LOGIN_REJECTED["reason"]

NOT_WHOLE = 0
NOT_A_PACKET = -1


@njit(cache=True, _nrt=False, forceinline=True)
def send(session, wire, stats, at, size, tsc):
    """Send wire[at:at + size], or as much as the socket takes: the rest is pending. Only with nothing pending."""
    sent = send_bytes(session[FD], wire, at, size)
    if sent < 0:
        if sent != AGAIN and sent != INTERRUPTED:
            session[BROKEN_PIPE] = 1
        sent = 0
    stats[0].bytes_sent += sent
    session[SENT_TSC] = tsc
    session[PENDING_AT] = at + sent
    session[PENDING_BYTES] = size - sent
    if sent != size:
        stats[0].partial_sends += 1


@njit(cache=True, _nrt=False)
def send_pending(session, wire, stats, tsc):
    """Try again to send what is left of the last message. Returns the bytes that went."""
    if session[PENDING_BYTES] == 0 or session[BROKEN_PIPE] != 0:
        return 0
    sent = send_bytes(session[FD], wire, session[PENDING_AT], session[PENDING_BYTES])
    if sent < 0:
        if sent != AGAIN and sent != INTERRUPTED:
            session[BROKEN_PIPE] = 1
        return 0
    stats[0].bytes_sent += sent
    session[SENT_TSC] = tsc
    session[PENDING_AT] += sent
    session[PENDING_BYTES] -= sent
    return sent


@njit(cache=True, _nrt=False)
def end(session, stats, control, ending):
    """The session is over: no order can be sent, and step says why from now on."""
    session[STATE] = OVER
    session[ENDING] = ending
    if ending == MALFORMED:
        stats[0].malformed += 1
    if ending != SESSION_ENDED:
        stats[0].sessions_lost += 1
    store_release(control, SESSION_UP, 0)


@njit(cache=True, _nrt=False)
def begin(gateway, tsc):
    """Ask to be let in."""
    session = gateway.session
    session[HEARD_TSC] = tsc
    session[STATE] = LOGIN_SENT
    send(session, gateway.wire, gateway.stats, LOGIN_AT, LOGIN_BYTES, tsc)


@njit(cache=True, _nrt=False)
def keep_alive(gateway, clock, tsc):
    """A heartbeat after a second of our silence; the end after fifteen of the venue's. Call it after receiving."""
    session = gateway.session
    if tsc - session[HEARD_TSC] > ticks_of_ns(clock, SILENCE_NS):
        end(session, gateway.stats, gateway.control, SERVER_SILENT)
    elif tsc - session[SENT_TSC] >= ticks_of_ns(clock, HEARTBEAT_NS) and session[PENDING_BYTES] == 0 and session[STATE] == UP:
        gateway.stats[0].heartbeats_sent += 1
        send(session, gateway.wire, gateway.stats, HEARTBEAT_AT, HEARTBEAT_BYTES, tsc)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def packet_bytes(session, inbound):
    """The length of the packet at IN_BEGIN, NOT_WHOLE while more of it is to come, or NOT_A_PACKET."""
    waiting = session[IN_END] - session[IN_BEGIN]
    if waiting < LENGTH_BYTES:
        return NOT_WHOLE
    size = LENGTH_BYTES + get_u16(inbound, session[IN_BEGIN])
    if size < PAYLOAD_AT or size > PACKET_BYTES_MAX:
        return NOT_A_PACKET
    if size > waiting:
        return NOT_WHOLE
    return size


@njit(cache=True, _nrt=False)
def receive(gateway, clock):
    """Read what the socket has behind what is there. Only while no whole packet waits. Returns the bytes read, or 0."""
    session, inbound = gateway.session, gateway.inbound
    make_space(session, inbound)
    got = recv_bytes(session[FD], inbound, session[IN_END], inbound.shape[0] - session[IN_END])
    if got > 0:
        session[IN_END] += got
        session[RECEIVED_TSC] = now_tsc(clock)
        session[HEARD_TSC] = session[RECEIVED_TSC]
        return got
    if (got != AGAIN and got != INTERRUPTED) or session[BROKEN_PIPE] != 0:
        if session[IN_END] != session[IN_BEGIN]:
            gateway.stats[0].malformed += 1
        end(session, gateway.stats, gateway.control, SESSION_LOST)
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def make_space(session, inbound):
    """Move the beginning of a packet to the front where the largest one would not fit behind it."""
    waiting = session[IN_END] - session[IN_BEGIN]
    if waiting == 0:
        session[IN_BEGIN] = 0
        session[IN_END] = 0
    elif inbound.shape[0] - session[IN_BEGIN] < PACKET_BYTES_MAX:
        for byte in range(waiting):
            inbound[byte] = inbound[session[IN_BEGIN] + byte]
        session[IN_BEGIN] = 0
        session[IN_END] = waiting


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def read_packets(gateway, clock):
    """Take whole packets off the buffer while the reports that they cause have room. Returns how many."""
    session, inbound = gateway.session, gateway.inbound
    for taken in range(PACKETS_PER_STEP):
        if session[OWED] != 0:
            if not has_room(gateway.reports, 1):
                gateway.stats[0].ring_waits += 1
                return taken
            tell_owed(gateway, clock)
            continue
        size = packet_bytes(session, inbound)
        if size == NOT_WHOLE:
            return taken
        if size != NOT_A_PACKET and not has_room(gateway.reports, REPORTS_PER_MESSAGE):
            gateway.stats[0].ring_waits += 1
            return taken
        ending = take_packet(gateway, clock, session[IN_BEGIN], size) if size != NOT_A_PACKET else MALFORMED
        if ending != 0:
            end(session, gateway.stats, gateway.control, ending)
            return taken
        session[IN_BEGIN] += size
    return PACKETS_PER_STEP


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_packet(gateway, clock, at, size):
    """One packet of `size` bytes at inbound[at:]. Returns 0, or why the session is over."""
    session, stats = gateway.session, gateway.stats
    kind = gateway.inbound[at + TYPE_AT]
    if kind == SEQUENCED and session[STATE] == UP:
        session[EXPECTED] += 1
        outcome = apply(gateway, clock, at + PAYLOAD_AT, size - PAYLOAD_AT) if size > PAYLOAD_AT else TOO_SHORT
        if outcome == TOO_SHORT:
            return MALFORMED
        return EXECUTIONS_EXHAUSTED if outcome == SET_FULL else 0
    if kind == SERVER_HEARTBEAT:
        stats[0].heartbeats_received += 1
        return 0
    if kind == END_OF_SESSION:
        return SESSION_ENDED
    if kind == LOGIN_ACCEPTED_CODE and session[STATE] == LOGIN_SENT and size >= LOGIN_ACCEPTED_BYTES:
        return open_session(gateway, at)
    if kind == LOGIN_REJECTED_CODE and session[STATE] == LOGIN_SENT and size >= LOGIN_REJECTED_BYTES:
        return refusal(gateway.inbound[at + LOGIN_REASON_AT])
    if kind == DEBUG or (kind == UNSEQUENCED and session[STATE] == UP):
        return 0
    return MALFORMED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_session(gateway, at):
    """The login was accepted, and names the sequence number of the first packet to come. Returns 0, or MALFORMED."""
    session, stats = gateway.session, gateway.stats
    sequence = number_at(gateway.inbound, at + SEQUENCE_AT)
    if sequence < 0:
        return MALFORMED
    if session[REQUESTED] > 0 and sequence > session[REQUESTED]:
        stats[0].reports_lost += sequence - session[REQUESTED]
    session[EXPECTED] = sequence
    session[STATE] = UP
    stats[0].logins += 1
    store_release(gateway.control, SESSION_UP, 1)
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def number_at(inbound, at):
    """SEQUENCE_DIGITS of ASCII digits with spaces around them; -1 where there are others, or none."""
    value = 0
    digits = 0
    for place in range(SEQUENCE_DIGITS):
        byte = int(inbound[at + place])
        if 48 <= byte <= 57 and digits < 18:
            value = value * 10 + (byte - 48)
            digits += 1
        elif byte != 32:
            return -1
    return value if digits > 0 else -1


@njit(cache=True, _nrt=False)
def refusal(code):
    if code == NOT_AUTHORIZED:
        return LOGIN_NOT_AUTHORIZED
    if code == SESSION_UNAVAILABLE:
        return LOGIN_SESSION_UNAVAILABLE
    return LOGIN_REFUSED
