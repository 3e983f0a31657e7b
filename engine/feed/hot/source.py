"""Where messages come from: packets of a UDP socket, or the bytes of a file or pipe."""

from numba import njit

from engine.feed.hot.decoder import OFFSET_MASK
from engine.feed.hot.mold import end_session, open_packet
from engine.feed.hot.state import (
    CONTROL_WORDS,
    END_AT,
    ENDED,
    FD,
    FILE_READ,
    HEADER_CONTROL_BYTES,
    HEADER_RECEIVED,
    HEADER_WORDS,
    LEFT,
    LEFT_OVER_BYTES,
    NEXT_AT,
    ORIGIN_TSC,
    PACKET,
    PACKET_BYTES,
    PACKETS,
    PACKETS_MAX,
    UNZIP_FAILED,
)
from engine.messages.hot.stamp import now_tsc
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, read_bytes, recv_packets

# Reasons to leave the loop.
RECEIVE_FAILED = -2
READ_FAILED = -3
UNZIPPING_FAILED = -4

# What a control message has to begin with to hold the socket's count of dropped packets: SOL_SOCKET (1) and SO_RXQ_OVFL (40).
OVERFLOW_NOTE = 1 | (40 << 32)
NOTE_BYTES = CONTROL_WORDS * 8

# A file is taken in turns of so many messages, so that the loop looks at its stop word now and then.
FILE_MESSAGES = 128
# Read more when a turn's messages might not be in the buffer.
REFILL_BYTES = 1 << 16


@njit(cache=True, _nrt=False)
def next_packet(words, control, stats, buffer, headers, notes, clock):
    """Open the next packet, receiving when none is left. 1: one was there; 0: none; below 0: a reason to leave the loop."""
    if words[PACKET] == words[PACKETS]:
        got = receive(words, headers, clock)
        if got <= 0:
            return got
    packet = words[PACKET]
    words[PACKET] = packet + 1
    header = packet * HEADER_WORDS
    if headers[header + HEADER_CONTROL_BYTES] != 0 and notes[packet * CONTROL_WORDS + 1] == OVERFLOW_NOTE:
        stats[0].socket_drops = notes[packet * CONTROL_WORDS + 2] & 0xFFFFFFFF
    headers[header + HEADER_CONTROL_BYTES] = NOTE_BYTES
    open_packet(words, control, stats, buffer, packet * PACKET_BYTES, headers[header + HEADER_RECEIVED] & 0xFFFFFFFF)
    return 1


@njit(cache=True, _nrt=False)
def receive(words, headers, clock):
    """Fill the packet buffers. The origin of all that they cause is the moment the call returned."""
    got = recv_packets(words[FD], headers, PACKETS_MAX)
    words[ORIGIN_TSC] = now_tsc(clock)
    if got <= 0:
        return 0 if got in (AGAIN, INTERRUPTED, 0) else RECEIVE_FAILED
    words[PACKET] = 0
    words[PACKETS] = got
    return got


@njit(cache=True, _nrt=False)
def next_piece(words, control, stats, buffer):
    """Let a turn's messages of a file be read, refilling the buffer when it runs low. 1: go on; 0: nothing there; below 0: a reason."""
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
    words[LEFT] = FILE_MESSAGES
    return 1


@njit(cache=True, _nrt=False)
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


@njit(cache=True, _nrt=False)
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
