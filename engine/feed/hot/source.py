"""Where messages come from: packets of UDP sockets, or the bytes of a file or pipe."""

import numpy as np
from numba import njit

from engine.feed.hot.ahead import look_ahead
from engine.feed.hot.capture import CAPTURE_FAILED, END_OF_CAPTURE, PREFIX_BYTES, captured_line
from engine.feed.hot.decoder import OFFSET_MASK, TIMESTAMP
from engine.feed.hot.mold import end_session, open_packet
from engine.feed.hot.receive import packet_at, packet_drops, packet_noted, packet_size, packet_waited_ns, receive
from engine.feed.hot.state import (
    AHEAD,
    ASKED,
    BLOCKED,
    CAPTURE,
    END_AT,
    ENDED,
    EXPECTED,
    FD,
    FILE_READ,
    FRONTIER,
    HEARD_TSC,
    LEFT,
    LEFT_OVER_BYTES,
    LINE_A,
    LINE_B,
    LINE_REWIND,
    NEXT_AT,
    ORIGIN_TSC,
    PACE,
    PACE_NS,
    PACE_TSC,
    POLLED,
    SERVER,
    SILENT,
    UNZIP_FAILED,
)
from engine.feed.hot.watchdog import end_silence
from engine.feed.hot.window import stage_held
from engine.feed.itch import SYSTEM_EVENT
from engine.feed.moldudp64 import LENGTH_BYTES
from engine.layout import CONTROL, PHASE_STARTING
from engine.messages.hot.stamp import now_tsc, ticks_of_ns
from engine.wire.hot.bytes import get_u16, get_u48
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, read_bytes
from shm.atomics import load_acquire
from shm.hot import record

# Reasons to leave the loop, beside RECEIVE_FAILED of receive.py.
READ_FAILED = -3
UNZIPPING_FAILED = -4

# A file is taken in turns of so many messages, so that the loop looks at its stop word now and then.
FILE_MESSAGES = 128
# Read more when a turn's messages might not be in the buffer.
REFILL_BYTES = 1 << 16
# The shortest message of ITCH, and the longest silence of a paced file that is kept.
ADMIN_BYTES = SYSTEM_EVENT.length
SILENCE_NS_MAX = np.int64(250_000_000)
PHASE = CONTROL.fields["phase"][1] // 8


@njit(cache=True, forceinline=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def next_packet(feed, clock):
    """Open the next packet, receiving when none is left. 1: one was there; 0: none; below 0: a reason to leave the loop.

    What waited in the window and is next goes before anything new.
    """
    words = feed.words
    if words[FRONTIER] != words[EXPECTED] and not words[BLOCKED] and stage_held(feed):
        return 1
    sockets = feed.sockets
    line = words[POLLED]
    if sockets.taken[line] == sockets.filled[line]:
        got = receive_any(feed, clock)
        if got <= 0:
            return got
        line = words[POLLED]
        words[AHEAD] = 0
    packet = sockets.taken[line]
    if packet == words[AHEAD] and sockets.filled[line] > packet + 1 and not words[CAPTURE]:
        look_ahead(feed, line, packet)
    sockets.taken[line] = packet + 1
    words[ORIGIN_TSC] = sockets.received_tsc[line]
    if packet_noted(sockets, line, packet):
        read_notes(feed, line, packet, clock)
    at = packet_at(line, packet)
    size = packet_size(sockets, line, packet)
    if words[CAPTURE]:
        line = captured_line(feed, at, size)
        if line < 0:
            return 1 if line == END_OF_CAPTURE else CAPTURE_FAILED
        at += PREFIX_BYTES
        size -= PREFIX_BYTES
    open_packet(feed, clock, line, at, size)
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def receive_any(feed, clock):
    """Receive from the lines in turn, beginning with the one after the last that brought something; from a rewind server only while it
    has been asked. POLLED is the line that did. The origin of all that its packets cause is the moment the call returned."""
    words = feed.words
    line = words[POLLED]
    for _ in range(LINE_REWIND + 1):
        if line == LINE_A:
            line = LINE_B
        elif line == LINE_B and words[ASKED]:
            line = words[SERVER]
        else:
            line = LINE_A
        got = receive(feed.sockets, line, clock)
        if got != 0:
            words[POLLED] = line
            if got > 0:
                note_life(feed, line)
            return got
    return 0


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def note_life(feed, line):
    received = feed.sockets.received_tsc[line]
    feed.lines[line].heard_tsc = received
    if line < LINE_REWIND:
        feed.words[HEARD_TSC] = received
        if feed.words[SILENT]:
            end_silence(feed.words, feed.decoder.stats)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def read_notes(feed, line, packet, clock):
    """Take over what the kernel noted: how many packets the socket dropped, modulo 2^32, and how long this one waited in it."""
    waited_ns = packet_waited_ns(feed.sockets, line, packet)
    if waited_ns >= 0:
        record(feed.stamp_hop, ticks_of_ns(clock, waited_ns))
    told = packet_drops(feed.sockets, line, packet)
    if told >= 0:
        row = feed.lines[line]
        more = (told - row.socket_drops) & 0xFFFFFFFF
        row.socket_drops += more
        feed.decoder.stats[0].socket_drops += more


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def next_piece(words, control, stats, buffer, clock):
    """Let a turn's messages of a file be read, refilling the buffer when it runs low. 1: go on; 0: nothing there, or not due yet; below 0:
    a reason."""
    if words[ENDED]:
        return 0
    if words[END_AT] - words[NEXT_AT] < REFILL_BYTES and not words[FILE_READ]:
        got = refill(words, buffer)
        if got > 0:
            stats[0].bytes += got
        elif got == 0:
            words[FILE_READ] = 1
        elif got not in (AGAIN, INTERRUPTED):
            return READ_FAILED
    if words[NEXT_AT] == words[END_AT]:
        return end_file(words, control, stats) if words[FILE_READ] else 0
    if words[PACE] != 0:
        words[LEFT] = 1 if is_due(words, control, buffer, clock) else 0
        return words[LEFT]
    words[LEFT] = FILE_MESSAGES
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def is_due(words, control, buffer, clock):
    """Whether the next message of a paced file is due: none is before the instance trades. A long silence is shortened."""
    if load_acquire(control, PHASE) == PHASE_STARTING:
        return False
    at = words[NEXT_AT] & OFFSET_MASK
    if words[END_AT] - at < LENGTH_BYTES + ADMIN_BYTES or get_u16(buffer, at) < ADMIN_BYTES:
        return True
    tsc = now_tsc(clock)
    ts_ns = get_u48(buffer, at + LENGTH_BYTES + TIMESTAMP)
    if words[PACE_NS] == 0:
        words[PACE_TSC] = tsc
        words[PACE_NS] = ts_ns
    silence_ns = min(max(ts_ns - words[PACE_NS], 0) * words[PACE] // 1_000_000, SILENCE_NS_MAX)
    due_tsc = words[PACE_TSC] + ticks_of_ns(clock, silence_ns)
    if tsc < due_tsc:
        return False
    words[PACE_TSC] = due_tsc
    words[PACE_NS] = max(words[PACE_NS], ts_ns)
    return True


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def refill(words, buffer):
    """Move what is left to the front and read behind it: the bytes read, 0 at the end, or an error below 0."""
    at = words[NEXT_AT] & OFFSET_MASK
    kept = words[END_AT] - at
    if at > 0:
        for byte in range(kept):
            buffer[byte] = buffer[at + byte]
    words[NEXT_AT] = 0
    words[END_AT] = kept
    got = read_bytes(words[FD], buffer, kept, buffer.shape[0] - kept)
    if got > 0:
        words[END_AT] = kept + got
    return got


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def end_file(words, control, stats):
    """Nothing whole is left of a file. Bytes of a message that it ends inside are counted, not guessed at."""
    if words[UNZIP_FAILED]:
        return UNZIPPING_FAILED
    words[LEFT_OVER_BYTES] = words[END_AT] - words[NEXT_AT]
    if words[LEFT_OVER_BYTES] != 0:
        stats[0].malformed += 1
    words[NEXT_AT] = words[END_AT]
    end_session(words, control, stats)
    return 0
