"""The SoupBinTCP session, client side: bytes in, packets taken off the stream wherever TCP cut it, heartbeats both ways.

Receiving stops while the reports ring has no room, so the venue's bytes wait in the socket and nothing is lost. Anything that is not a
packet of this protocol loses the session (life.py): on a stream there is no telling where the next packet would begin, but a new login
begins at one.
"""

from numba import njit

from engine.gateway.hot.state import (
    ARRIVING,
    BROKEN_PIPE,
    EXPECTED,
    FD,
    HEAD,
    HEARD_TSC,
    IN_BEGIN,
    IN_END,
    LOGIN_SENT,
    NAMED,
    OUCH_42,
    OUCH_50,
    OWED,
    PENDING_BYTES,
    PROBING,
    PROGRESS_TSC,
    PROTOCOL,
    QUERY_DUE,
    RECEIVED_TSC,
    RECONCILE,
    RECONCILING,
    REPLAYING,
    SENT_TSC,
    SILENCE_MAX_NS,
    STATE,
    UP,
)
from engine.gateway.ouch.hot.adopt import NOT_NAMED_YET, TABLE_FULL
from engine.gateway.ouch.hot.encode import HEARTBEAT_AT, HEARTBEAT_BYTES, LOGIN_AT
from engine.gateway.ouch.hot.life import (
    EXECUTIONS_EXHAUSTED,
    LOGIN_NOT_AUTHORIZED,
    LOGIN_REFUSED,
    LOGIN_SESSION_UNAVAILABLE,
    MALFORMED,
    ORDERS_EXHAUSTED,
    REPORTS_LOST,
    SEQUENCE_AT,
    SERVER_SILENT,
    SESSION_ENDED,
    SESSION_LOST,
    end,
    leave_probe,
    number_at,
)
from engine.gateway.ouch.hot.send import send
from engine.gateway.ouch.hot.told import SCRATCH_BYTES, apply_42, end_replay
from engine.gateway.ouch.hot.venue import SET_FULL, TOO_SHORT, apply, tell_owed
from engine.messages.hot.stamp import now_tsc, ticks_of_ns
from engine.risk.hot.rules import refresh
from engine.wire.hot.bytes import get_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, recv_bytes
from engine.wire.soupbintcp import (
    DEBUG,
    END_OF_SESSION,
    HEARTBEAT_NS,
    LENGTH_BYTES,
    LOGIN_ACCEPTED,
    LOGIN_REJECTED,
    LOGIN_REQUEST,
    NOT_AUTHORIZED,
    PAYLOAD_AT,
    SEQUENCED,
    SERVER_HEARTBEAT,
    SESSION_UNAVAILABLE,
    TYPE_AT,
    UNSEQUENCED,
)
from shm.hot import has_room

# The largest packet that is taken for one, length bytes included. OUCH messages are below 200 bytes; debug text may be long.
PACKET_BYTES_MAX = 4096
PACKETS_PER_STEP = 64
# A message causes at most two reports: accepted and at once dead.
REPORTS_PER_MESSAGE = 2

SESSION_AT = TYPE_AT + LOGIN_ACCEPTED["session"]
SESSION_BYTES = LOGIN_ACCEPTED["sequence"] - LOGIN_ACCEPTED["session"]
ASKED_SESSION_AT = LOGIN_AT + TYPE_AT + LOGIN_REQUEST["session"]
LOGIN_ACCEPTED_CODE, LOGIN_ACCEPTED_BYTES = LOGIN_ACCEPTED.code, TYPE_AT + LOGIN_ACCEPTED.length
LOGIN_REJECTED_CODE, LOGIN_REJECTED_BYTES = LOGIN_REJECTED.code, TYPE_AT + LOGIN_REJECTED.length
LOGIN_REASON_AT = TYPE_AT + LOGIN_REJECTED["reason"]

NOT_WHOLE = 0
NOT_A_PACKET = -1

# What take_packet says of a packet beside the reasons to end: it was taken, it must be read again later, or it was the last one here.
TAKEN = 0
NOT_YET = 1
LEFT = 2


@njit(cache=True, _nrt=False)
def keep_alive(gateway, clock, tsc):
    """A heartbeat after a second of our silence; a lost session after too much of the venue's. Call it after receiving."""
    session = gateway.session
    if tsc - session[HEARD_TSC] > ticks_of_ns(clock, session[SILENCE_MAX_NS]):
        end(gateway, clock, SERVER_SILENT)
    elif tsc - session[SENT_TSC] < ticks_of_ns(clock, HEARTBEAT_NS) or session[PENDING_BYTES] != 0:
        return
    elif session[STATE] == UP or session[STATE] == RECONCILING:
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
    got = recv_bytes(session[FD], inbound, session[IN_END], inbound.shape[0] - SCRATCH_BYTES - session[IN_END])
    if got > 0:
        session[IN_END] += got
        session[RECEIVED_TSC] = now_tsc(clock)
        session[HEARD_TSC] = session[RECEIVED_TSC]
        return got
    if (got != AGAIN and got != INTERRUPTED) or session[BROKEN_PIPE] != 0:
        if session[IN_END] != session[IN_BEGIN]:
            gateway.stats[0].malformed += 1
        end(gateway, clock, SESSION_LOST)
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def make_space(session, inbound):
    """Move the beginning of a packet to the front where the largest one would not fit behind it."""
    waiting = session[IN_END] - session[IN_BEGIN]
    if waiting == 0:
        session[IN_BEGIN] = 0
        session[IN_END] = 0
    elif inbound.shape[0] - SCRATCH_BYTES - session[IN_BEGIN] < PACKET_BYTES_MAX:
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
            # It is we who do not listen, and not the venue that does not get on.
            session[PROGRESS_TSC] = session[HEARD_TSC]
            return taken
        outcome = take_packet(gateway, clock, session[IN_BEGIN], size) if size != NOT_A_PACKET else MALFORMED
        if outcome < 0:
            end(gateway, clock, outcome)
        if outcome != TAKEN:
            return taken
        session[IN_BEGIN] += size
    return PACKETS_PER_STEP


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_packet(gateway, clock, at, size):
    """One packet of `size` bytes at inbound[at:]. TAKEN, NOT_YET, LEFT, or why the session is lost."""
    session, stats = gateway.session, gateway.stats
    kind = gateway.inbound[at + TYPE_AT]
    if kind == SEQUENCED and (session[STATE] == UP or session[STATE] == RECONCILING):
        return take_sequenced(gateway, clock, at, size)
    if kind == SERVER_HEARTBEAT:
        stats[0].heartbeats_received += 1
        if session[PROTOCOL] == OUCH_42:
            end_replay(session)
        return TAKEN
    if kind == END_OF_SESSION:
        return SESSION_ENDED
    if kind == LOGIN_ACCEPTED_CODE and session[STATE] == LOGIN_SENT and size >= LOGIN_ACCEPTED_BYTES:
        return open_session(gateway, clock, at)
    if kind == LOGIN_REJECTED_CODE and session[STATE] == LOGIN_SENT and size >= LOGIN_REJECTED_BYTES:
        return refusal(gateway.inbound[at + LOGIN_REASON_AT])
    if kind == DEBUG or (kind == UNSEQUENCED and session[STATE] != LOGIN_SENT):
        return TAKEN
    return MALFORMED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_message(gateway, clock, at, length):
    if gateway.session[PROTOCOL] == OUCH_42:
        return apply_42(gateway, clock, at, length)
    return apply(gateway, clock, at, length)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_sequenced(gateway, clock, at, size):
    """The next packet of the venue's sequence. One that was applied before, on an earlier connection, is passed over."""
    session = gateway.session
    if session[ARRIVING] < session[EXPECTED]:
        gateway.stats[0].duplicates += 1
        session[ARRIVING] += 1
        return TAKEN
    outcome = take_message(gateway, clock, at + PAYLOAD_AT, size - PAYLOAD_AT) if size > PAYLOAD_AT else TOO_SHORT
    if outcome == NOT_NAMED_YET:
        return NOT_YET
    if outcome == TOO_SHORT:
        return MALFORMED
    if outcome == SET_FULL:
        return EXECUTIONS_EXHAUSTED
    if outcome == TABLE_FULL:
        return ORDERS_EXHAUSTED
    session[ARRIVING] += 1
    session[EXPECTED] = session[ARRIVING]
    session[PROGRESS_TSC] = session[RECEIVED_TSC]
    return TAKEN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def open_session(gateway, clock, at):
    """The login was accepted, and names the session and the number of the first packet to come."""
    session, stats = gateway.session, gateway.stats
    sequence = number_at(gateway.inbound, at + SEQUENCE_AT)
    if sequence < 0:
        return MALFORMED
    if session[NAMED] != 0 and not is_named_session(gateway, at):
        # Another session counts anew: what it tells is not what we missed.
        return LOGIN_SESSION_UNAVAILABLE
    if session[PROBING] != 0:
        name_session(gateway, at)
        session[HEAD] = sequence
        leave_probe(gateway, now_tsc(clock))
        return LEFT
    if session[EXPECTED] == 0:
        session[EXPECTED] = sequence
    if sequence > session[EXPECTED]:
        stats[0].reports_lost += sequence - session[EXPECTED]
        return REPORTS_LOST
    name_session(gateway, at)
    # What the venue tells again is valued by the rules, which the gate otherwise reads with its first order.
    refresh(gateway.risk)
    session[ARRIVING] = sequence
    session[STATE] = RECONCILING
    session[RECONCILE] = REPLAYING
    session[QUERY_DUE] = 1 if session[PROTOCOL] == OUCH_50 else 0
    session[PROGRESS_TSC] = session[RECEIVED_TSC]
    stats[0].logins += 1
    return TAKEN


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def name_session(gateway, at):
    """From now on we log into this session and into no other, lest another one's packets be taken for those that we missed."""
    gateway.session[NAMED] = 1
    for byte in range(SESSION_BYTES):
        gateway.wire[ASKED_SESSION_AT + byte] = gateway.inbound[at + SESSION_AT + byte]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_named_session(gateway, at):
    for byte in range(SESSION_BYTES):  # noqa: SIM110
        if gateway.wire[ASKED_SESSION_AT + byte] != gateway.inbound[at + SESSION_AT + byte]:
            return False
    return True


@njit(cache=True, _nrt=False)
def refusal(code):
    if code == NOT_AUTHORIZED:
        return LOGIN_NOT_AUTHORIZED
    if code == SESSION_UNAVAILABLE:
        return LOGIN_SESSION_UNAVAILABLE
    return LOGIN_REFUSED
