"""Bytes to the venue's socket: the one file that hands it any. Sending never waits: what the socket does not take stays in its template,
and goes first."""

from numba import njit

from engine.gateway.hot.state import BROKEN_PIPE, FD, PENDING_AT, PENDING_BYTES, SENT_TSC
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, send_bytes


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
