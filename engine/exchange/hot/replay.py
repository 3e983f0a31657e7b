"""A file of ITCH messages, each after its two-byte length, read and paced: history's clock, or N times as fast, or flat out.

The file is a descriptor: a plain file, or a pipe that a thread of engine/feed/source.py fills from gzip. A pipe that has nothing now
is asked again at the next step. A message of length 0 ends the session of a file (NASDAQ BinaryFILE), and nothing after it counts. On
paper (hot/paper.py) messages come from a ring instead, at once.
"""

from numba import njit

from engine.book.hot.book import side_row
from engine.exchange.hot.history import apply_history, is_whole, timestamp_of
from engine.exchange.hot.paper import FROM_RING, LOCATE, heed, is_unproven, note_state, take_messages
from engine.exchange.hot.state import DUE_NS, FILE_ENDED, FILE_FD, FROM, LAST_TS_NS, NOW_NS, SILENCE_NS, STARTED, TO, UNZIP_FAILED
from engine.wire.hot.bytes import get_u16
from engine.wire.hot.syscalls import AGAIN, INTERRUPTED, read_bytes

LENGTH_BYTES = 2

# What next_message returns instead of a length. The last two are reasons to leave the loop (engine/exchange/stage.py).
NOTHING_NOW = 0
ENDED = -1
READ_FAILED = -2
UNZIPPING_FAILED = -3


@njit(cache=True, _nrt=False)
def fill(replay):
    """Read on: the bytes read, NOTHING_NOW, or why there will be no more."""
    words, buffer = replay.words, replay.buffer
    waiting = words[TO] - words[FROM]
    for byte in range(waiting):
        buffer[byte] = buffer[words[FROM] + byte]
    words[FROM] = 0
    words[TO] = waiting
    got = read_bytes(words[FILE_FD], buffer, waiting, buffer.shape[0] - waiting)
    if got > 0:
        words[TO] += got
        return got
    if got in (AGAIN, INTERRUPTED):
        return NOTHING_NOW
    if got < 0:
        return READ_FAILED
    words[FILE_ENDED] = 1
    return UNZIPPING_FAILED if words[UNZIP_FAILED] != 0 else ENDED


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def next_message(replay, stats):
    """The length of the message at buffer[FROM + LENGTH_BYTES:], or NOTHING_NOW, or why there is none. What is cut off at the end of a
    file is malformed."""
    words = replay.words
    while True:
        waiting = words[TO] - words[FROM]
        if waiting >= LENGTH_BYTES:
            length = get_u16(replay.buffer, words[FROM])
            if length == 0:
                return ENDED
            if waiting >= LENGTH_BYTES + length:
                return length
        if words[FILE_FD] == FROM_RING:
            return NOTHING_NOW
        if words[FILE_ENDED] == 0:
            got = fill(replay)
            if got > 0:
                continue
            if got != ENDED:
                return got
        if waiting != 0:
            stats[0].malformed += 1
            words[FROM] = words[TO]
        return ENDED


@njit(cache=True, _nrt=False)
def due_ns(replay, ts_ns, wall_ns):
    """When on the wall clock a message of history's time ts_ns is due. A silence longer than SILENCE_NS is shortened to it."""
    words = replay.words
    if words[STARTED] == 0:
        return wall_ns
    silence_ns = int(max(ts_ns - words[LAST_TS_NS], 0) * replay.pace[0])
    return words[DUE_NS] + min(silence_ns, words[SILENCE_NS])


@njit(cache=True, inline="always", _nrt=False)
def replay_next(replay, paper, venue, wall_ns):
    """Apply the next message if it is due. Returns 1 when it was, NOTHING_NOW, or why there are no more."""
    words = replay.words
    from_ring = words[FILE_FD] == FROM_RING
    if from_ring:
        take_messages(paper, words, replay.buffer)
    length = next_message(replay, venue.stats)
    if length <= 0:
        return length
    at = words[FROM] + LENGTH_BYTES
    if not is_whole(replay.buffer, at, length):
        # Framing says how long it is, so what is not ITCH 5.0 can be stepped over.
        if from_ring:
            heed(paper, venue, replay.buffer, at)
        else:
            venue.stats[0].malformed += 1
        words[FROM] = at + length
        return 1
    ts_ns = timestamp_of(replay.buffer, at)
    due = due_ns(replay, ts_ns, wall_ns)
    if due > wall_ns:
        return NOTHING_NOW
    words[STARTED] = 1
    words[LAST_TS_NS] = max(words[LAST_TS_NS], ts_ns)
    words[DUE_NS] = due
    # History fills nobody while nobody is seen to rest there.
    row = side_row(get_u16(replay.buffer, at + LOCATE), NOTHING_NOW)
    buyers, sellers = venue.listing.resting[row], venue.listing.resting[row + 1]
    unproven = from_ring and is_unproven(paper, replay.buffer, at)
    if unproven:
        venue.listing.resting[row] = venue.listing.resting[row + 1] = 0
        venue.stats[0].doubted += 1
    apply_history(venue, replay.buffer, at, length)
    if unproven:
        venue.listing.resting[row], venue.listing.resting[row + 1] = buyers, sellers
    if from_ring:
        note_state(paper, venue.listing, replay.buffer, at)
    words[FROM] = at + length
    return 1


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def history_now(replay, venue, wall_ns):
    """Let the venue's clock run on between history's messages, at history's pace, and never past the next one's time."""
    words = replay.words
    if words[STARTED] == 0 or replay.pace[0] == 0.0:
        return
    now_ns = words[LAST_TS_NS] + int((wall_ns - words[DUE_NS]) / replay.pace[0])
    waiting = words[TO] - words[FROM]
    at = words[FROM] + LENGTH_BYTES
    if waiting >= LENGTH_BYTES:
        length = get_u16(replay.buffer, words[FROM])
        if waiting >= LENGTH_BYTES + length and is_whole(replay.buffer, at, length):
            now_ns = min(now_ns, timestamp_of(replay.buffer, at))
    venue.words[NOW_NS] = max(venue.words[NOW_NS], now_ns)
