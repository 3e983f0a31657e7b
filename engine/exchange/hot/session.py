"""The SoupBinTCP session, server side: a client is let in, its packets are taken off the stream wherever TCP cut it, and its log is sent.

    NOBODY ──accept──▶ CONNECTED ──login──▶ UP ──logout, silence, garbage, a broken connection──▶ LEAVING ──all cancelled──▶ NOBODY

One client at a time: others wait in the listening socket's queue until it has left. Its account (order ids, log, positions) outlives
its connection, so a client that logs in again gets the sequenced packets that it missed, and finds its orders cancelled.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.connection import (
    LOGIN_BYTES,
    LOGIN_CODE,
    SEQUENCE_AT,
    SEQUENCE_BYTES,
    is_known,
    is_our_session,
    leave,
    number_at,
    put_accepted,
    put_packet,
    refuse_login,
    send_waiting,
    take_connection,
)
from engine.exchange.hot.market import market_has_room
from engine.exchange.hot.orders import cut_order, handle_message
from engine.exchange.hot.reports import CANCEL_BY_SYSTEM, copy_bytes
from engine.exchange.hot.state import (
    CLOSED,
    CONNECTED,
    COPIED,
    GOODBYE,
    HEARD_NS,
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
from engine.wire.hot.bytes import get_u16
from engine.wire.hot.syscalls import accept_socket
from engine.wire.soupbintcp import (
    CLIENT_HEARTBEAT,
    DEBUG,
    END_OF_SESSION,
    HEARTBEAT_NS,
    LENGTH_BYTES,
    LOGOUT,
    NOT_AUTHORIZED,
    PAYLOAD_AT,
    SERVER_HEARTBEAT,
    SESSION_UNAVAILABLE,
    SILENCE_NS,
    TYPE_AT,
    UNSEQUENCED,
)

PACKETS_PER_STEP = 32
CANCELS_PER_STEP = 256


@njit(cache=True, _nrt=False)
def accept(client, stats, listen_fd, wall_ns):
    """Let the next one in, if somebody waits."""
    fd = accept_socket(listen_fd)
    if fd < 0:
        return 0
    take_connection(client.words, fd, wall_ns)
    stats[0].clients += 1
    return 1


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


@njit(cache=True, inline="always", _nrt=False)
def take_packet(venue, wall_ns, at, size):
    """One packet of `size` bytes at inbound[at:]. False where the session cannot go on because it is malformed."""
    client = venue.client
    kind = client.inbound[at + TYPE_AT]
    state = client.words[STATE]
    if kind == UNSEQUENCED and state == UP:
        return handle_message(venue, client.inbound, at + PAYLOAD_AT, size - PAYLOAD_AT)
    if kind == LOGIN_CODE and state == CONNECTED and size == LOGIN_BYTES:
        return log_in(client, venue.stats, at + TYPE_AT)
    if kind == LOGOUT:
        leave(client)
        return True
    return kind == DEBUG or (kind == CLIENT_HEARTBEAT and size == PAYLOAD_AT)


@njit(cache=True, inline="always", _nrt=False)
def log_in(client, stats, at):
    """Judge the login request at inbound[at:]. False where its sequence number is none."""
    words = client.words
    sequence = number_at(client.inbound, at + SEQUENCE_AT, SEQUENCE_BYTES)
    if sequence < 0:
        return False
    if not is_known(client, at):
        return refuse_login(client, np.int64(NOT_AUTHORIZED))
    first = sequence - 1 if sequence > 0 else words[LOGGED]
    if words[LOGGED] - first > client.log.shape[0] // LOG_SLOT_BYTES:
        # It asks for what the log has no more.
        stats[0].reports_lost += words[LOGGED] - first - client.log.shape[0] // LOG_SLOT_BYTES
        return refuse_login(client, np.int64(SESSION_UNAVAILABLE))
    if first > words[LOGGED] or not is_our_session(client, at):
        return refuse_login(client, np.int64(SESSION_UNAVAILABLE))
    words[COPIED] = first
    words[GOODBYE] = 0
    words[STATE] = UP
    stats[0].logins += 1
    put_accepted(client, first + 1)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
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


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def all_told(client):
    """Whether nothing is left to be sent to the client that is connected, if any is."""
    words = client.words
    if words[STATE] != UP:
        return words[STATE] == NOBODY
    return words[COPIED] == words[LOGGED] and words[OUT_END] == words[OUT_BEGIN]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def say_goodbye(client):
    """End of session, once."""
    if client.words[GOODBYE] == 0 and put_packet(client, np.int64(END_OF_SESSION)):
        client.words[GOODBYE] = 1
