"""Packets from sockets. One recvmmsg takes what waits on a line, up to PACKETS_MAX datagrams, and never waits itself.

Every line has PACKETS_MAX places, and every place a struct mmsghdr, room for the kernel's notes about the packet, and PACKET_BYTES:

    headers   | name, its length | iov, 1 | notes, their bytes | flags | bytes received |      HEADER_WORDS x int64, recvmmsg(2)
    notes     | length | level, type | value ... |                                              NOTE_WORDS x int64, cmsg(3)
    buffer    | the packet, cut where it is longer |                                            PACKET_BYTES x uint8

The notes are what the socket was asked to tell: how many datagrams it has dropped (SO_RXQ_OVFL; the kernel is silent while there are
none), and when the kernel took the packet from its driver (SO_TIMESTAMPNS). engine/feed/source.py opens the sockets and makes the arrays.
"""

from typing import NamedTuple

import numpy as np
from numba import njit

from engine.messages.hot.stamp import now_tsc
from engine.wire.hot.syscalls import (
    AGAIN,
    CONNECTION_REFUSED,
    HOST_UNREACHABLE,
    INTERRUPTED,
    NETWORK_DOWN,
    NETWORK_UNREACHABLE,
    recv_packets,
    wall_clock_ns,
)

LINES_MAX = 6
# A packet's place in the receive buffer: a jumbo frame fits; what is larger is cut, and is malformed as one that its sender cut would be.
PACKET_BYTES = 9216
PACKETS_MAX = 32
# struct mmsghdr: a struct msghdr (name, its length, iov, its length, control, its length, flags) and the bytes received.
HEADER_WORDS = 8
HEADER_CONTROL_BYTES = 5
HEADER_RECEIVED = 7
# Room for both notes: one of 24 bytes with a u32, one of 32 with a struct timespec.
NOTE_WORDS = 8
NOTE_BYTES = NOTE_WORDS * 8
NOTES_MAX = 2
NOTE_HEAD_WORDS = 2

# Level and type of a note as one word: SOL_SOCKET (1) with SO_RXQ_OVFL (40), and with SO_TIMESTAMPNS (35).
DROPS_NOTE = np.int64(1 | (40 << 32))
STAMP_NOTE = np.int64(1 | (35 << 32))
NS_PER_S = 1_000_000_000

# A reason to leave the loop: the socket itself is broken.
RECEIVE_FAILED = -2


class Sockets(NamedTuple):
    """Sockets by line, int64 arrays all.

    fds (lines,), -1 where nothing is open; headers, notes: as drawn above, line by line; filled, taken (lines,): the packets of the
    last call, and for the caller how many of them he has looked at; received_tsc (lines,): when the last call that brought packets
    returned. stamped (lines,): 1 where kernel stamps are asked for, and then received_ns (lines,) is the same moment by the kernel's
    clock. calls (lines,): calls made, those that found nothing included. troubles (lines,): errors that the network reported and that
    pass, such as a request server that is not there. moment (2,): a struct timespec to read the clock into.
    """

    fds: np.ndarray
    headers: np.ndarray
    notes: np.ndarray
    filled: np.ndarray
    taken: np.ndarray
    received_tsc: np.ndarray
    stamped: np.ndarray
    received_ns: np.ndarray
    calls: np.ndarray
    troubles: np.ndarray
    moment: np.ndarray


@njit(cache=True, _nrt=False)
def receive(sockets, line, clock):
    """Take what waits on a line into its places: how many packets (0: nothing was there), or RECEIVE_FAILED.

    What the last call brought is overwritten: the caller has dealt with all of it.
    """
    fd = sockets.fds[line]
    if fd < 0:
        return 0
    first = line * PACKETS_MAX
    for packet in range(sockets.filled[line]):
        # The call left here how much it noted about the last packet in this place.
        sockets.headers[(first + packet) * HEADER_WORDS + HEADER_CONTROL_BYTES] = NOTE_BYTES
    sockets.filled[line] = 0
    sockets.taken[line] = 0
    sockets.calls[line] += 1
    got = recv_packets(fd, sockets.headers[first * HEADER_WORDS :], PACKETS_MAX)
    if got <= 0:
        return missed(sockets, line, got)
    sockets.received_tsc[line] = now_tsc(clock)
    if sockets.stamped[line]:
        sockets.received_ns[line] = wall_clock_ns(sockets.moment)
    sockets.filled[line] = got
    return got


@njit(cache=True, _nrt=False)
def missed(sockets, line, error):
    """0 for what passes by itself: one dead line or server must not end a feed that has another. Only a broken socket is a reason."""
    if error in (AGAIN, INTERRUPTED, 0):
        return 0
    if error in (CONNECTION_REFUSED, HOST_UNREACHABLE, NETWORK_UNREACHABLE, NETWORK_DOWN):
        sockets.troubles[line] += 1
        return 0
    return RECEIVE_FAILED


@njit(cache=True, forceinline=True, _nrt=False)
def packet_at(line, packet):
    """Where in the buffer a packet begins."""
    return (line * PACKETS_MAX + packet) * PACKET_BYTES


@njit(cache=True, forceinline=True, _nrt=False)
def packet_size(sockets, line, packet):
    """How many bytes of it are in the buffer."""
    return sockets.headers[(line * PACKETS_MAX + packet) * HEADER_WORDS + HEADER_RECEIVED] & 0xFFFFFFFF


@njit(cache=True, forceinline=True, _nrt=False)
def packet_noted(sockets, line, packet):
    """Whether the kernel noted anything about it. Mostly it did not, and then nobody needs to look."""
    return sockets.headers[(line * PACKETS_MAX + packet) * HEADER_WORDS + HEADER_CONTROL_BYTES] != 0


@njit(cache=True, _nrt=False)
def find_note(sockets, line, packet, kind):
    """The word of `notes` that holds the value of a kind of note about a packet, or -1."""
    place = line * PACKETS_MAX + packet
    at = place * NOTE_WORDS
    end = at + (min(sockets.headers[place * HEADER_WORDS + HEADER_CONTROL_BYTES], NOTE_BYTES) >> 3)
    for _ in range(NOTES_MAX):
        if at + NOTE_HEAD_WORDS >= end:
            return -1
        if sockets.notes[at + 1] == kind:
            return at + NOTE_HEAD_WORDS
        at += max((sockets.notes[at] + 7) >> 3, NOTE_HEAD_WORDS)
    return -1


@njit(cache=True, _nrt=False)
def packet_drops(sockets, line, packet):
    """How many datagrams the socket had dropped in all when it took this one, modulo 2^32; -1 where it told nothing.

    What is dropped after the last packet is told with the next one; Line.drops() asks for it.
    """
    at = find_note(sockets, line, packet, DROPS_NOTE)
    return -1 if at < 0 else sockets.notes[at] & 0xFFFFFFFF


@njit(cache=True, _nrt=False)
def packet_kernel_ns(sockets, line, packet):
    """When the kernel took the packet from its driver, in nanoseconds since the epoch by CLOCK_REALTIME; 0 where it told nothing."""
    at = find_note(sockets, line, packet, STAMP_NOTE)
    if at < 0 or at + 1 >= sockets.notes.shape[0]:
        return 0
    return sockets.notes[at] * NS_PER_S + sockets.notes[at + 1]


@njit(cache=True, _nrt=False)
def packet_waited_ns(sockets, line, packet):
    """From the kernel's stamp to the return of the call that brought the packet, by one clock; -1 where there is no stamp.

    A clock that was set back between the two makes it 0.
    """
    stamp = packet_kernel_ns(sockets, line, packet)
    return -1 if stamp == 0 else max(sockets.received_ns[line] - stamp, 0)
