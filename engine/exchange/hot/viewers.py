"""The snapshot service, a Glimpse 5.0 server: whoever logs in is sent the market as it stands, and where the feed goes on from there.

    NOBODY ──accept──▶ CONNECTED ──login──▶ UP: asked ──▶ writing ──▶ written ──▶ sent ──logout, or a while later──▶ NOBODY

As many as there are viewers are served at once, others wait in the listening socket's queue. Snapshots are written one at a time, and
after each the market runs for at least as long as it has paused. Who does not take the snapshot in time is let go: its place is
another's.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.connection import (
    LOGIN_BYTES,
    LOGIN_CODE,
    NOT_A_PACKET,
    NOT_WHOLE,
    SEQUENCE_AT,
    SEQUENCE_BYTES,
    is_known,
    is_our_session,
    leave,
    number_at,
    packet_bytes,
    put_accepted,
    put_packet,
    receive,
    refuse_login,
    send_waiting,
    take_connection,
)
from engine.exchange.hot.snapshot import begin_snapshot, write_snapshot
from engine.exchange.hot.state import (
    ASKED,
    CONNECTED,
    HEARD_NS,
    IN_BEGIN,
    LEAVING,
    NEXT_WRITE_NS,
    NO_WRITER,
    NOBODY,
    NOTHING_ASKED,
    NUMBER,
    OUT_BEGIN,
    OUT_END,
    PROGRESS,
    SENT,
    SENT_NS,
    SINCE_NS,
    STATE,
    UP,
    VIEWERS_FD,
    WRITER,
    WRITING,
    WRITTEN,
    WROTE_FROM_NS,
)
from engine.feed.glimpse import FIRST_SEQUENCE
from engine.messages.hot.stamp import now_tsc, wall_ns
from engine.wire.hot.syscalls import accept_socket
from engine.wire.soupbintcp import (
    CLIENT_HEARTBEAT,
    DEBUG,
    END_OF_SESSION,
    HEARTBEAT_NS,
    LOGOUT,
    NOT_AUTHORIZED,
    PAYLOAD_AT,
    SERVER_HEARTBEAT,
    SESSION_UNAVAILABLE,
    SILENCE_NS,
    TYPE_AT,
)

PACKETS_PER_STEP = 4
# From the connection to the last byte of the snapshot.
SNAPSHOT_NS_MAX = 30_000_000_000
# A viewer who stays when all was sent is told that the session is over.
LINGER_NS = 5_000_000_000


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_paused(glimpse):
    """Whether a snapshot is being written, so that nothing may change."""
    return glimpse.words[WRITER] != NO_WRITER


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def serve_viewers(glimpse, venue, archive, clock, now_ns):
    """Some work for each viewer. Returns the number of things done."""
    if glimpse.words[VIEWERS_FD] < 0:
        return 0
    done = 0
    somebody_waits = True
    for viewer in glimpse.viewers:
        if viewer.words[STATE] != NOBODY:
            done += attend(glimpse, viewer, venue, archive, clock, now_ns)
        elif somebody_waits:
            somebody_waits = admit(glimpse, viewer, venue.stats, now_ns)
            done += 1 if somebody_waits else 0
    return done


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def admit(glimpse, viewer, stats, now_ns):
    """Let the next one in. False where nobody waits."""
    fd = accept_socket(glimpse.words[VIEWERS_FD])
    if fd < 0:
        return False
    take_connection(viewer.words, fd, now_ns)
    viewer.words[PROGRESS] = NOTHING_ASKED
    stats[0].snapshot_clients += 1
    return True


@njit(cache=True, _nrt=False)
def attend(glimpse, viewer, venue, archive, clock, now_ns):
    """A viewer's turn: hear it, write and send some of its snapshot, and see whether it must go."""
    words = viewer.words
    done = hear(viewer, venue.stats, now_ns)
    if words[STATE] == UP:
        done += write_some(glimpse, viewer, venue, archive, clock, now_ns)
        # Sending would make the pause longer.
        if words[PROGRESS] != WRITING:
            done += show(viewer, venue.stats, now_ns)
    if words[STATE] != LEAVING and is_overdue(words, now_ns):
        leave(viewer)
    if words[STATE] == LEAVING:
        forget(glimpse, viewer, venue.stats, clock)
        done += 1
    return done


@njit(cache=True, _nrt=False)
def hear(viewer, stats, now_ns):
    """Take what the viewer says. Returns the number of packets."""
    words = viewer.words
    if packet_bytes(words, viewer.inbound) == NOT_WHOLE:
        receive(viewer, stats, now_ns)
    heard = 0
    while heard < PACKETS_PER_STEP and (words[STATE] == CONNECTED or words[STATE] == UP):
        size = packet_bytes(words, viewer.inbound)
        if size == NOT_WHOLE:
            break
        at = words[IN_BEGIN]
        words[IN_BEGIN] = at + size
        heard += 1
        if size == NOT_A_PACKET or not take_packet(viewer, stats, at, size):
            stats[0].malformed += 1
            leave(viewer)
    return heard


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def take_packet(viewer, stats, at, size):
    """One packet of `size` bytes at inbound[at:]. False where the session cannot go on because it is malformed."""
    kind = viewer.inbound[at + TYPE_AT]
    if kind == LOGIN_CODE and viewer.words[STATE] == CONNECTED and size == LOGIN_BYTES:
        return log_in(viewer, stats, at + TYPE_AT)
    if kind == LOGOUT:
        leave(viewer)
        return True
    return kind == DEBUG or (kind == CLIENT_HEARTBEAT and size == PAYLOAD_AT)


@njit(cache=True, _nrt=False)
def log_in(viewer, stats, at):
    """Judge the login request at inbound[at:]. False where its sequence number is none."""
    sequence = number_at(viewer.inbound, at + SEQUENCE_AT, SEQUENCE_BYTES)
    if sequence < 0:
        return False
    if not is_known(viewer, at):
        return refuse_login(viewer, np.int64(NOT_AUTHORIZED))
    if sequence > FIRST_SEQUENCE or not is_our_session(viewer, at):
        return refuse_login(viewer, np.int64(SESSION_UNAVAILABLE))
    viewer.words[STATE] = UP
    viewer.words[PROGRESS] = ASKED
    put_accepted(viewer, np.int64(FIRST_SEQUENCE))
    stats[0].snapshot_logins += 1
    return True


@njit(cache=True, _nrt=False)
def write_some(glimpse, viewer, venue, archive, clock, now_ns):
    """Begin to write its snapshot when it is its turn, or go on with it. Returns whether anything was written."""
    words = glimpse.words
    if viewer.words[PROGRESS] == ASKED and words[WRITER] == NO_WRITER and now_ns >= words[NEXT_WRITE_NS]:
        viewer.words[PROGRESS] = WRITING
        words[WRITER] = viewer.words[NUMBER]
        words[WROTE_FROM_NS] = now_ns
        begin_snapshot(words)
    if viewer.words[PROGRESS] != WRITING:
        return 0
    if write_snapshot(words, viewer, venue, archive):
        viewer.words[PROGRESS] = WRITTEN
        resume(glimpse, venue.stats, clock)
    return 1


@njit(cache=True, _nrt=False)
def resume(glimpse, stats, clock):
    """Let the market go on."""
    words = glimpse.words
    now_ns = wall_ns(clock, now_tsc(clock))
    paused_ns = now_ns - words[WROTE_FROM_NS]
    words[WRITER] = NO_WRITER
    words[NEXT_WRITE_NS] = now_ns + paused_ns
    stats[0].snapshot_pause_ns += paused_ns
    stats[0].snapshot_pause_ns_max = max(stats[0].snapshot_pause_ns_max, paused_ns)


@njit(cache=True, _nrt=False)
def show(viewer, stats, now_ns):
    """Send what waits for a viewer, or a heartbeat after a second of silence. Returns whether anything went."""
    words = viewer.words
    idle = words[OUT_END] == words[OUT_BEGIN]
    if idle and words[PROGRESS] == SENT and now_ns - words[SINCE_NS] >= LINGER_NS:
        put_packet(viewer, np.int64(END_OF_SESSION))
        send_waiting(viewer, now_ns)
        leave(viewer)
        return 1
    if idle and now_ns - words[SENT_NS] >= HEARTBEAT_NS:
        put_packet(viewer, np.int64(SERVER_HEARTBEAT))
    sent = send_waiting(viewer, now_ns)
    if words[PROGRESS] == WRITTEN and words[OUT_END] == words[OUT_BEGIN]:
        words[PROGRESS] = SENT
        words[SINCE_NS] = now_ns
        stats[0].snapshots += 1
    return 1 if sent > 0 else 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_overdue(words, now_ns):
    """Whether a viewer was silent for too long, or has not taken its snapshot, or what was sent behind it, in time."""
    return now_ns - words[HEARD_NS] > SILENCE_NS or now_ns - words[SINCE_NS] > SNAPSHOT_NS_MAX


@njit(cache=True, _nrt=False)
def forget(glimpse, viewer, stats, clock):
    """Clear up after a viewer whose connection is over."""
    if glimpse.words[WRITER] == viewer.words[NUMBER]:
        resume(glimpse, stats, clock)
    if viewer.words[PROGRESS] != SENT and viewer.words[PROGRESS] != NOTHING_ASKED:
        stats[0].snapshots_dropped += 1
    viewer.words[STATE] = NOBODY
