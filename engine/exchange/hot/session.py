"""SoupBinTCP sessions, server side: clients are let in, their packets are taken off the streams wherever TCP cut them, logs are sent.

    a connection   NOBODY ──accept──▶ CONNECTED ──login──▶ UP ──logout, silence, garbage, a broken connection──▶ NOBODY
    its account                                   LINK ────────────────────────────────────────▶ TO_CANCEL ──all cancelled──▶ free

Whose a connection is, its login says: each account has a username and a password. An account (user_refs, log, positions) outlives its
connections, so a client that logs in again gets the sequenced packets that it missed, and finds its orders cancelled, unless the account
keeps them.

An account has one connection at a time. A second login takes over: the first connection is closed, what it had open is cancelled, and
then the second is let in. Were it refused instead, a client whose connection died without a word could not come back before its silence
is noticed, 15 seconds later, and its orders would stand that long.
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
from engine.exchange.hot.faults import bytes_before_cut, hold_reports, told_up_to
from engine.exchange.hot.listing import traded_instrument
from engine.exchange.hot.market import market_has_room
from engine.exchange.hot.orders import cut_order, handle_message
from engine.exchange.hot.ouch42 import PACKET_BYTES_MAX as PACKET_42_BYTES_MAX
from engine.exchange.hot.ouch42 import put_packet_42, speaks_42, take_42
from engine.exchange.hot.reports import CANCEL_BY_SYSTEM, copy_bytes
from engine.exchange.hot.state import (
    CANCEL_INSTRUMENT,
    CANCEL_REASON,
    CLOSED,
    CONNECTED,
    COPIED,
    CUT,
    DEAF,
    GOODBYE,
    HEARD_NS,
    HOLDING,
    IN_BEGIN,
    KEEPS_ORDERS,
    LEAVING,
    LINK,
    LOG_SLOT_BYTES,
    LOGGED,
    NO_OWNER,
    NOBODY,
    NUMBER,
    OPEN,
    OUT_BEGIN,
    OUT_END,
    OWNER,
    RECEIVED,
    ROW,
    SENT_NS,
    SILENT_UNTIL_NS,
    SINCE_NS,
    STATE,
    TO_CANCEL,
    UP,
    Connection,
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
# The largest packet that a client is told, in the protocol that has the larger ones.
TOLD_BYTES_MAX = PACKET_42_BYTES_MAX
CANCELS_PER_STEP = 256


@njit(cache=True, _nrt=False)
def connection_of(links, row):
    """One of the connections. Until its login is judged, its `login` is the first account's."""
    return Connection(links.words[row], links.inbound[row], links.outbound[row], links.logins[0])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def free_link(links):
    """A row for one more connection, or -1."""
    for row in range(links.words.shape[0]):
        if links.words[row, STATE] == NOBODY:
            return row
    return -1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_in(links, stats, listen_fd, wall_ns):
    """Let the next one in, if somebody waits and there is room: its row, or -1. Others wait in the listening socket's queue."""
    row = free_link(links)
    if row < 0:
        return -1
    fd = accept_socket(listen_fd)
    if fd < 0:
        return -1
    words = links.words[row]
    take_connection(words, fd, wall_ns)
    stats[0].clients += 1
    words[NUMBER] = stats[0].clients
    words[OWNER] = NO_OWNER
    words[RECEIVED:] = 0
    return row


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def clear_up(clients, words):
    """Clear up after a connection that is over: its account's orders are to be cancelled, unless it keeps them."""
    owner = words[OWNER]
    if owner != NO_OWNER:
        account = clients.words[owner - 1]
        account[LINK] = 0
        if account[KEEPS_ORDERS] == 0:
            account[TO_CANCEL] = account[OPEN]
            account[CANCEL_INSTRUMENT] = 0
            account[CANCEL_REASON] = CANCEL_BY_SYSTEM
    words[STATE] = NOBODY


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def cancel_open(venue, number):
    """Go on to cancel what an account has open, a bounded number of orders. Returns how many were looked at.

    The last of `live` are looked at first: whichever order ends, the one that takes its place there was looked at already, or will be.
    """
    clients = venue.clients
    account = clients.words[number]
    left = min(account[TO_CANCEL], account[OPEN])
    looked = 0
    while left > 0 and looked < CANCELS_PER_STEP and market_has_room(venue.market):
        left -= 1
        looked += 1
        handle = np.int64(clients.table[number, clients.live[number, left]].handle)
        order = venue.book.orders[handle]
        instrument = traded_instrument(np.int64(order.instrument), np.int64(order["flags"]))
        if account[CANCEL_INSTRUMENT] == 0 or instrument == account[CANCEL_INSTRUMENT]:
            cut_order(venue, handle, np.int64(order.qty), account[CANCEL_REASON])
    account[TO_CANCEL] = left
    return looked


@njit(cache=True, inline="always", _nrt=False)
def take_packet(venue, links, link, at, size):
    """One packet of `size` bytes at inbound[at:]. False where the connection cannot go on because it is malformed."""
    kind = link.inbound[at + TYPE_AT]
    state = link.words[STATE]
    if kind == UNSEQUENCED and state == UP:
        owner = link.words[OWNER]
        length = size - PAYLOAD_AT
        if speaks_42(venue.clients, owner):
            length = take_42(venue.clients, owner, link.inbound, at + PAYLOAD_AT, length)
        return handle_message(venue, owner, link.inbound, at + PAYLOAD_AT, length)
    if kind == LOGIN_CODE and state == CONNECTED and size == LOGIN_BYTES:
        return judge_login(venue.clients, links, link, venue.stats, at)
    if kind == LOGOUT:
        leave(link)
        return True
    return kind == DEBUG or (kind == CLIENT_HEARTBEAT and size == PAYLOAD_AT)


@njit(cache=True, _nrt=False)
def owner_of(links, link, at):
    """Whose username and password the login request at inbound[at:] has, or NO_OWNER."""
    for account in range(links.logins.shape[0]):
        if is_known(Connection(link.words, link.inbound, link.outbound, links.logins[account]), at):
            return account + 1
    return NO_OWNER


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def judge_login(clients, links, link, stats, start):
    """Judge the login request at inbound[start:]. False where its sequence number is none. Where the account has still to be cleared up
    after its last connection, the packet stays where it is, to be judged again."""
    at = start + TYPE_AT
    sequence = number_at(link.inbound, at + SEQUENCE_AT, SEQUENCE_BYTES)
    if sequence < 0:
        return False
    owner = owner_of(links, link, at)
    if owner == NO_OWNER:
        return refuse_login(link, np.int64(NOT_AUTHORIZED))
    account = clients.words[owner - 1]
    slots = clients.log.shape[1] // LOG_SLOT_BYTES
    first = sequence - 1 if sequence > 0 else account[LOGGED]
    if account[LOGGED] - first > slots:
        # It asks for what the log has no more.
        stats[0].reports_lost += account[LOGGED] - first - slots
        return refuse_login(link, np.int64(SESSION_UNAVAILABLE))
    if first > account[LOGGED] or not is_our_session(link, at):
        return refuse_login(link, np.int64(SESSION_UNAVAILABLE))
    if account[LINK] != 0:
        leave(connection_of(links, account[LINK] - 1))
        clear_up(clients, links.words[account[LINK] - 1])
        stats[0].takeovers += 1
    if account[TO_CANCEL] != 0:
        link.words[IN_BEGIN] = start
        return True
    words = link.words
    account[LINK] = words[ROW] + 1
    words[OWNER] = owner
    words[COPIED] = first
    words[GOODBYE] = 0
    words[STATE] = UP
    stats[0].logins += 1
    put_accepted(link, first + 1)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def copy_log(conduct, clients, link, stats):
    """Copy the log's packets that are still to be sent to outbound, as far as they fit. A client too far behind is let go in time:
    the log still has everything that it missed when it comes back."""
    words, out = link.words, link.outbound
    account = words[OWNER] - 1
    log = clients.log[account]
    logged = told_up_to(conduct, account, clients.words[account, LOGGED])
    slots = log.shape[0] // LOG_SLOT_BYTES
    if (logged - words[COPIED]) * 4 > slots * 3:
        stats[0].send_failures += 1
        leave(link)
        return
    translated = speaks_42(clients, words[OWNER])
    while words[COPIED] < logged and out.shape[0] - words[OUT_END] >= TOLD_BYTES_MAX:
        at = (words[COPIED] % slots) * LOG_SLOT_BYTES
        if translated:
            size = put_packet_42(clients, account, log, at, out, words[OUT_END])
        else:
            size = LENGTH_BYTES + get_u16(log, at)
            copy_bytes(out, words[OUT_END], log, at, size)
        words[OUT_END] += size
        words[COPIED] += 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_overdue(words, wall_ns):
    """Whether a client was silent for too long, or has not logged in in that time, whatever it sent."""
    return wall_ns - words[HEARD_NS] > SILENCE_NS or (words[STATE] == CONNECTED and wall_ns - words[SINCE_NS] > SILENCE_NS)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def speak(conduct, clients, link, stats, closed, wall_ns):
    """What a client is to hear now: its log, the end of the session, or a heartbeat after a second of silence. A client that was
    silent for too long is given up. Returns whether anything was done."""
    words = link.words
    if is_overdue(words, wall_ns):
        leave(link)
        return 1
    if words[DEAF] != 0 or wall_ns < words[SILENT_UNTIL_NS]:
        return 0
    if words[STATE] == UP:
        copy_log(conduct, clients, link, stats)
        if words[STATE] != UP:
            return 1
        if closed != 0 and words[COPIED] == clients.words[words[OWNER] - 1, LOGGED]:
            say_goodbye(link)
        if words[OUT_END] == words[OUT_BEGIN] and wall_ns - words[SENT_NS] >= HEARTBEAT_NS:
            put_packet(link, np.int64(SERVER_HEARTBEAT))
        if words[CUT] != 0 and words[OUT_END] - words[OUT_BEGIN] > 1:
            words[OUT_END] = words[OUT_BEGIN] + bytes_before_cut(conduct, words[OUT_END] - words[OUT_BEGIN])
            send_waiting(link, wall_ns)
            if words[STATE] == UP:
                leave(link)
            return 1
    return 1 if send_waiting(link, wall_ns) > 0 else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def speak_to_all(venue, links, conduct, wall_ns):
    """Every client's turn to hear something; who is gone is cleared up after. Returns the number of things done."""
    done = 0
    if conduct.words[HOLDING] != 0:
        hold_reports(conduct, venue.clients, links, venue.stats, wall_ns)
    for row in range(links.words.shape[0]):
        words = links.words[row]
        if words[STATE] != NOBODY:
            if words[STATE] != LEAVING:
                done += speak(conduct, venue.clients, connection_of(links, row), venue.stats, venue.words[CLOSED], wall_ns)
            if words[STATE] == LEAVING:
                clear_up(venue.clients, words)
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def all_told(clients, links):
    """Whether nothing is left to be cancelled or to be sent to any client."""
    for account in range(clients.words.shape[0]):
        if clients.words[account, TO_CANCEL] != 0:
            return False
    for row in range(links.words.shape[0]):
        words = links.words[row]
        if words[STATE] == UP and (words[COPIED] != clients.words[words[OWNER] - 1, LOGGED] or words[OUT_END] != words[OUT_BEGIN]):
            return False
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def say_goodbye(link):
    """End of session, once."""
    if link.words[GOODBYE] == 0 and put_packet(link, np.int64(END_OF_SESSION)):
        link.words[GOODBYE] = 1
