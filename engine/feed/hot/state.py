"""The state of a feed handler, and where everything in it is."""

from typing import NamedTuple

import numpy as np

from engine.feed.hot.decoder import Decoder
from engine.layout import CONTROL
from shm.hot import ProducerEnd

# Words of Feed.words.
SOURCE = 0
FD = 1
MIDNIGHT_NS = 2
PUBLISH_LEVELS = 3
# The sequence number of the next message to apply; of a file, the number of messages read plus 1.
EXPECTED = 4
SESSION_KNOWN = 5
SESSION_HIGH = 6
SESSION_LOW = 7
# Where in the buffer the next message is, where its packet (or the file's bytes) end, and how many messages are still to be read there.
NEXT_AT = 8
END_AT = 9
LEFT = 10
ORIGIN_TSC = 11
# Packets that the last recvmmsg filled, and which of them is next.
PACKETS = 12
PACKET = 13
# Reasons why no book is to be acted on: a gap (for the rest of the session), and the market is closed.
STALE = 14
CLOSED = 15
# The next instrument to be told of a new reason, or INSTRUMENTS_TOLD; and the highest that has been listed.
SWEEP_NEXT = 16
HIGHEST = 17
ENDED = 18
# All of a file is in the buffer; how many bytes at its end are not a whole message; set by the thread that unzips, before it
# closes its end of the pipe.
FILE_READ = 19
LEFT_OVER_BYTES = 20
UNZIP_FAILED = 21
FEED_WORDS = 32

INSTRUMENTS_TOLD = 1 << 20
# Locate code 0 is the market itself.
FIRST_INSTRUMENT = 1

SOURCE_UDP = 0
SOURCE_FILE = 1

# Words of the control record that are the feed's.
FEED_SEQUENCE = CONTROL.fields["feed_sequence"][1] // 8
FEED_ENDED = CONTROL.fields["feed_ended"][1] // 8

# A packet's place in the receive buffer: a jumbo frame fits; what is larger is cut, and counted malformed.
PACKET_BYTES = 9216
PACKETS_MAX = 32
# struct mmsghdr: a struct msghdr (name, its length, iov, its length, control, its length, flags) and the bytes received.
HEADER_WORDS = 8
HEADER_CONTROL_BYTES = 5
HEADER_RECEIVED = 7
# Control messages: length, level and type, value.
CONTROL_WORDS = 8


class Feed(NamedTuple):
    """A feed handler. `ticks` writes the ring; the slot arrays beside it are the same slots as each kind of record.

    quotes and instruments are boards by instrument; hop is a histogram, control the control record, words (FEED_WORDS,), wanted (n,)
    packed symbols, headers (PACKETS_MAX x 8,) and notes (PACKETS_MAX x 4,) for recvmmsg: int64 words; buffer uint8.
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
    control: np.ndarray
    words: np.ndarray
    wanted: np.ndarray
    buffer: np.ndarray
    headers: np.ndarray
    notes: np.ndarray
