"""The state of a feed handler, and where everything in it is."""

from typing import NamedTuple

import numpy as np

from engine.feed.hot.decoder import Decoder
from engine.feed.hot.receive import LINES_MAX, PACKET_BYTES, PACKETS_MAX, Sockets
from engine.layout import CONTROL
from shm.hot import ProducerEnd

# Words of Feed.words.
SOURCE = 0
FD = 1
MIDNIGHT_NS = 2
PUBLISH_LEVELS = 3
# The sequence number of the next message to apply; of a file, the number of messages read plus 1.
EXPECTED = 4
# The highest number known to be in use, plus 1. Where it is not EXPECTED, a message is missing.
FRONTIER = 5
FRONTIER_TSC = 6
SESSION_KNOWN = 7
SESSION_HIGH = 8
SESSION_LOW = 9
# Where in the buffer the next message is, where its packet (or the file's bytes) end, and how many messages are still to be read there.
NEXT_AT = 10
END_AT = 11
LEFT = 12
ORIGIN_TSC = 13
# The line whose packet that is, or LINE_NONE for messages that waited in the window; and the line that is asked next for packets.
LINE = 14
# Reasons why no book is to be acted on: silence, messages missing, the market is closed.
STALE = 15
GAPPED = 16
CLOSED = 17
# The next instrument to be told of a new reason, or INSTRUMENTS_TOLD; and the highest that anything was published of.
SWEEP_NEXT = 18
HIGHEST = 19
ENDED = 20
# All of a file is in the buffer; how many bytes at its end are not a whole message; set by the thread that unzips, before it
# closes its end of the pipe.
FILE_READ = 21
LEFT_OVER_BYTES = 22
UNZIP_FAILED = 23
# Something needs looking after (engine/feed/hot/recovery.py): a hole, a suspect, a snapshot, a change of session.
TROUBLE = 24
# Until when the time in which books were gapped is counted; 0 while they are not.
TROUBLE_TSC = 25
# Nothing may be applied: the books are being cleared or filled from a snapshot. What arrives waits in the window.
BLOCKED = 26
# Messages were passed over and no snapshot has made it good: the books are not proven, whatever comes, until the session ends.
UNPROVEN = 27
# The number that the session's end named.
END_KNOWN = 28
END_SEQUENCE = 29
# The foremost hole: what is done about it (GAP_*), the number after its last, when it was first seen.
GAP = 30
HOLE_END = 31
HOLE_TSC = 32
# The request under way: 1 while it is not answered, when it was sent, the number it began with; failures in a row, the server's line.
ASKED = 33
ASKED_TSC = 34
ASKED_FROM = 35
TRIES = 36
SERVER = 37
# The session that was left, which nothing goes back to; and one that was named by another packet (CANDIDATE: whether there is one),
# with the line, size and time of the first such packet.
PREVIOUS_KNOWN = 38
PREVIOUS_HIGH = 39
PREVIOUS_LOW = 40
CANDIDATE = 41
CANDIDATE_HIGH = 42
CANDIDATE_LOW = 43
CANDIDATE_LINE = 44
CANDIDATE_BYTES = 45
CANDIDATE_TSC = 46
CANDIDATE_NS = 75
# Packets of our session that were not simply the next.
SLOW_PACKETS = 73
# What is being cleared (CLEAR_*), and the next instrument.
CLEARING = 47
CLEAR_NEXT = 48
# The snapshot's connection (SNAPSHOT_*), what it is for (SCOPE_*), its socket, the sequence number it ends with.
SNAPSHOT = 49
SCOPE = 50
SNAPSHOT_FD = 51
SNAPSHOT_SEQUENCE = 52
SNAPSHOT_TSC = 53
SNAPSHOT_HEARD_TSC = 54
SNAPSHOT_SENT_TSC = 55
STREAM_BEGIN = 56
STREAM_END = 57
# Failures in a row, and when the next attempt may begin.
SNAPSHOT_FAILURES = 58
SNAPSHOT_NEXT_TSC = 59
# When suspects may be refreshed again, and how long after a refresh that is.
REFRESH_NEXT_TSC = 72
REFRESH_WAIT_NS = 60
# Every message that is applied is also kept in the window: a snapshot under way may turn out to be older.
KEEP = 61
REPLAY_NEXT = 62
# The session changed: what the snapshot's connection brings is of the old one.
SNAPSHOT_VOID = 63
# Its login named our session.
SNAPSHOT_NAMED = 74
# Instruments that are suspect.
SUSPECTS = 64
# The highest instrument whose book is being made anew.
LOADED_HIGHEST = 71
# What was heard last and when; the watchdog's smallest age of a message, and whether messages are older than it by too much.
HEARD_TSC = 65
AGE_KNOWN = 66
AGE_LEAST_NS = 67
SILENT = 68
DRIFTED = 69
WATCHED_TSC = 70
# A capture is played (CAPTURE_*): the time of its last packet, and what that was when the foremost hole was seen.
CAPTURE = 76
CAPTURE_NS = 77
HOLE_NS = 78
# As configured.
REORDER_NS = 80
REQUEST_MESSAGES_MAX = 81
REQUEST_INTERVAL_NS = 82
REQUEST_TIMEOUT_NS = 83
REQUEST_TRIES = 84
GAP_MESSAGES_MAX = 85
SERVERS = 86
SNAPSHOT_AVAILABLE = 87
SNAPSHOT_TIMEOUT_NS = 88
SNAPSHOT_TRIES = 89
STALE_AFTER_NS = 90
DRIFT_NS_MAX = 91
CHECK_BOOKS = 92
# The line that packets were received from last.
POLLED = 93
LOGIN_BYTES = 94
# The next packet of a call whose messages' memory has not been asked for (engine/feed/hot/ahead.py).
AHEAD = 95
# When the session that was left was heard again, by our clock and a capture's, and how much had been heard of ours.
RETURN_TSC = 96
RETURN_NS = 97
RETURN_HEARD = 98
# 1: what is applied is also handed on to a venue on paper (engine/feed/hot/handover.py).
PAPER = 99
# A file that is paced: nanoseconds of ours for a million of its own, 0 as fast as it is taken; when its last message was due, and that
# one's own time, 0 before the first.
PACE = 100
PACE_TSC = 101
PACE_NS = 102
FEED_WORDS = 103

INSTRUMENTS_TOLD = 1 << 20
# Locate code 0 is the market itself.
FIRST_INSTRUMENT = 1

SOURCE_UDP = 0
SOURCE_FILE = 1

# Packets come from a player of a capture, each with its line and time before it; or it has come to the capture's end.
CAPTURE_PLAYING = 1
CAPTURE_OVER = 2

# Rows of Feed.lines and lines of Feed.sockets.
LINE_A = 0
LINE_B = 1
LINE_REWIND = 2
LINE_SNAPSHOT = LINES_MAX
LINE_ROWS = LINES_MAX + 1
LINE_NONE = -1

# What is done about a hole.
GAP_NONE = 0
GAP_WAITING = 1
GAP_ASKING = 2
GAP_SNAPSHOT = 3

# The snapshot's connection: nothing is wanted; Python shall connect; the login waits to be sent, was sent; messages come, or wait until
# the books are cleared; all of them are there and the feed has to reach their number; what was kept since is applied.
SNAPSHOT_IDLE = 0
SNAPSHOT_WANTED = 1
SNAPSHOT_CONNECTING = 2
SNAPSHOT_LOGIN = 3
SNAPSHOT_CLEARING = 4
SNAPSHOT_LOADING = 5
SNAPSHOT_JOINING = 6
SNAPSHOT_REPLAYING = 7

# Whom it is for: all instruments, with the feed standing still; or the suspects alone, with the feed going on.
SCOPE_ALL = 0
SCOPE_SUSPECTS = 1

# What is being cleared: all of an old session, its directory too; the books; the books of suspects.
CLEAR_SESSION = 1
CLEAR_BOOKS = 2
CLEAR_SUSPECTS = 3

# Ranges of numbers that a line has not brought, kept for each line: first and end.
MISSING_MAX = 64

# A place of the window: a message with its length before it, cut where it is longer than any that is known.
SLOT_BYTES = 64
HELD_BYTES_MAX = SLOT_BYTES - 2
# Messages that leave the window in one piece.
STAGED_MAX = 32

# Behind the packets of all lines, the buffer has room for messages on their way out of the window, the first packet of a session that
# nobody else has named yet, a request, the snapshot's login, and the stream of its connection.
STAGING_AT = np.int64(LINES_MAX * PACKETS_MAX * PACKET_BYTES)
CANDIDATE_AT = STAGING_AT + STAGED_MAX * SLOT_BYTES
REQUEST_AT = CANDIDATE_AT + PACKET_BYTES
LOGIN_AT = REQUEST_AT + 64
LOGIN_HEARTBEAT_AT = LOGIN_AT + 56
STREAM_AT = LOGIN_AT + 64
STREAM_BYTES = 1 << 17
SPARE_BYTES = STREAM_AT + STREAM_BYTES - STAGING_AT


# Words of the control record that are the feed's.
FEED_SEQUENCE = CONTROL.fields["feed_sequence"][1] // 8
FEED_ENDED = CONTROL.fields["feed_ended"][1] // 8


class Window(NamedTuple):
    """Messages that wait for those before them, or are kept in case a snapshot is older: by their number's last bits.

    held (n x SLOT_BYTES,) uint8: each a message as a packet has it. sequences (n,) int64: its number; a place is empty where its
    number does not belong there. received (n,) int64: the TSC when its packet was received.
    """

    held: np.ndarray
    sequences: np.ndarray
    received: np.ndarray


class Feed(NamedTuple):
    """A feed handler. `ticks` writes the ring; the slot arrays beside it are the same slots as each kind of record.

    quotes and instruments are boards by instrument; hop and stamp_hop histograms, control its record; words (FEED_WORDS,), wanted (n,)
    packed symbols; lines (LINE_ROWS,) FEED_LINE records; missing (LINES_MAX x MISSING_MAX x 2,) int64; buffer uint8: packets by line,
    then as drawn above; of a file, its bytes. market and market_bytes, its slots as uint8, are the ring to a venue on paper.
    """

    decoder: Decoder
    ticks: ProducerEnd
    level_slots: np.ndarray
    trade_slots: np.ndarray
    status_slots: np.ndarray
    instrument_slots: np.ndarray
    quotes: np.ndarray
    instruments: np.ndarray
    hop: np.ndarray
    stamp_hop: np.ndarray
    control: np.ndarray
    words: np.ndarray
    wanted: np.ndarray
    buffer: np.ndarray
    sockets: Sockets
    lines: np.ndarray
    missing: np.ndarray
    window: Window
    market: ProducerEnd
    market_bytes: np.ndarray
