"""What was published, kept for those who missed it: the newest messages by sequence number, and the last word on every instrument.

The rewind servers answer from the log (hot/rewind.py); a snapshot begins with the notices (hot/snapshot.py). A notice is a message that
says something until the next of its type does: an instrument has one place for each type, and line 0, no instrument's, has the last
system event where the others have their directory entry.
"""

import numpy as np
from numba import njit

from engine.exchange.hot.market import LENGTHS, LOCATE
from engine.exchange.hot.state import ARCHIVE_SLOT_BYTES, ARCHIVED, HEAD, LOCATE_MAX
from engine.feed.itch import OPERATIONAL_HALT, REG_SHO, RETAIL_INTEREST, STOCK_DIRECTORY, SYSTEM_EVENT, TRADING_ACTION
from engine.feed.moldudp64 import COUNT_AT, HEADER_BYTES, LENGTH_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT
from engine.wire.hot.bytes import get_u16, get_u64

# Where in its line of NOTICE_BYTES each type has its place, -1: it is no notice.
NOTICE_BYTES = 128
NOTICES = (STOCK_DIRECTORY, TRADING_ACTION, REG_SHO, RETAIL_INTEREST, OPERATIONAL_HALT)
NOTICE_PLACES = np.full(256, -1, np.int64)
_end = 0
for _message in NOTICES:
    NOTICE_PLACES[_message.code] = _end
    _end += _message.length
assert _end <= NOTICE_BYTES and LENGTHS.max() + LENGTH_BYTES <= ARCHIVE_SLOT_BYTES
EVENT_CODE, DIRECTORY_CODE = SYSTEM_EVENT.code, STOCK_DIRECTORY.code
DIRECTORY_PLACE = np.int64(NOTICE_PLACES[DIRECTORY_CODE])


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def copy_to(target, at, source, start, size):
    for byte in range(size):
        target[at + byte] = source[start + byte]


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def archive_packets(market, archive):
    """Keep the messages of every packet that was closed since the last call. Where the queue was overrun, a place has a later packet than
    was looked for: that one is kept twice, and what it has replaced is not kept."""
    words = archive.words
    places = market.sizes.shape[0]
    head = market.words[HEAD]
    if archive.log.shape[0] == 0 and archive.notices.shape[0] == 0:
        words[ARCHIVED] = head
        return
    for number in range(words[ARCHIVED], head):
        start = (number & (places - 1)) * PACKET_BYTES_MAX
        sequence = get_u64(market.packets, start + SEQUENCE_AT)
        at = start + HEADER_BYTES
        for message in range(get_u16(market.packets, start + COUNT_AT)):
            keep_message(archive, market.packets, at, sequence + message)
            at += LENGTH_BYTES + get_u16(market.packets, at)
    words[ARCHIVED] = head


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def keep_message(archive, source, at, sequence):
    """Keep the message after the length at source[at:]."""
    length = get_u16(source, at)
    slots = archive.sequences.shape[0]
    if slots != 0:
        slot = (sequence - 1) & (slots - 1)
        archive.sequences[slot] = sequence
        copy_to(archive.log, slot * ARCHIVE_SLOT_BYTES, source, at, LENGTH_BYTES + length)
    if archive.notices.shape[0] == 0:
        return
    at += LENGTH_BYTES
    code = np.int64(source[at])
    locate = get_u16(source, at + LOCATE)
    archive.words[LOCATE_MAX] = max(archive.words[LOCATE_MAX], locate)
    if code == EVENT_CODE:
        copy_to(archive.notices, DIRECTORY_PLACE, source, at, length)
    elif NOTICE_PLACES[code] >= 0 and locate != 0:
        copy_to(archive.notices, locate * NOTICE_BYTES + NOTICE_PLACES[code], source, at, length)


@njit(cache=True, _nrt=False, no_cpython_wrapper=True, no_cfunc_wrapper=True)
def find_message(archive, sequence):
    """Where in the log the length of a message is, its message behind it; -1 where the log does not have it."""
    slots = archive.sequences.shape[0]
    if slots == 0 or sequence <= 0:
        return -1
    slot = (sequence - 1) & (slots - 1)
    return slot * ARCHIVE_SLOT_BYTES if archive.sequences[slot] == sequence else -1
