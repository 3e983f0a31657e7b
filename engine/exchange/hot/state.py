"""What the exchange's kernels work on. engine/exchange/stage.py makes the arrays; every word has its name here.

A venue is 25 arrays, and an array is seven words to pass. So kernels that are called from one place only, or that are small, are put
into their callers as source (inline="always"); that is also what keeps the step's compilation short.
"""

from typing import NamedTuple

import numpy as np

from engine.book.hot.book import Book
from engine.feed.hot.state import UNZIP_FAILED as FEED_UNZIP_FAILED
from shm.hot import ConsumerEnd

# Constants that kernels hand to other kernels are typed: numba compiles a kernel once more for every literal that it is called with.
NOTHING = np.int64(0)
NO = np.bool_(False)
YES = np.bool_(True)

# Refs and match numbers below this are history's own; those of our clients and of generated flow are dense from here on.
FIRST_REF = 1 << 40
FIRST_MATCH = 1 << 40

# Words of Venue.words.
NOW_NS = 0  # nanoseconds since midnight: stamped on everything published and reported; never goes back
NEXT_REF = 1
NEXT_MATCH = 2
IGNORED = 3  # orders and replaces whose user_ref is not above the last one: OUCH ignores them silently
CLOSED = 4  # the session has ended: no more orders
HAS_OPENING = 5  # whether there is an opening, or closing, cross today
HAS_CLOSING = 6
VENUE_WORDS = 8

# Words of Market.words.
HEAD = 0  # number of the packet that is being filled
PACKET_SIZE = 1  # bytes in the packet that is being filled, its header included
PACKET_MESSAGES = 2
PUBLISHED = 3  # messages so far: the next one's sequence number is PUBLISHED + 1
MARKET_SENT_NS = 4  # when something was last sent, on the wall clock
MARKET_WORDS = 8

# Words of a row of Market.lines: A, and B where there is one.
LINE_FD = 0
TAIL = 1  # packets from TAIL to before HEAD wait to be sent on this line
DROPPED = 2  # packets given up because the queue was full
STUCK = 3  # the socket takes no more in this turn
LINE_PACKETS = 4
LINE_WORDS = 8
LINE_A = np.int64(0)
LINE_B = np.int64(1)

# Words of Connection.words, whatever it carries.
CLIENT_FD = 0
STATE = 1
IN_BEGIN = 2  # inbound[IN_BEGIN:IN_END] was received and not yet read
IN_END = 3
OUT_BEGIN = 4  # outbound[OUT_BEGIN:OUT_END] is still to be sent
OUT_END = 5
HEARD_NS = 6  # on the wall clock
SENT_NS = 7
SINCE_NS = 8  # when the connection was accepted, on the wall clock
NUMBER = 9  # of a connection that carries orders: the how many-th it was; of a viewer's: its own, from 0
# Further words of a connection that carries orders.
OWNER = 10  # whose it is since its login: an account's number, NO_OWNER before
COPIED = 11  # messages of its account's log that have been copied to outbound
GOODBYE = 12  # the end of session has been put into outbound
ROW = 13  # its own, in Links
RECEIVED = 14  # bytes of it in all, where orders are delayed
HAS_ENDED = 15  # its end has been read, behind what is still delayed
DEAF = 16  # a fault: it is neither heard nor spoken to
CUT = 17  # a fault: it ends in the middle of what it is told next
SILENT_UNTIL_NS = 18  # a fault: it is told nothing before this, on the wall clock
LINK_WORDS = 24

# Values of STATE.
NOBODY = 0
CONNECTED = 1
UP = 2
LEAVING = 3  # the connection is closed; who had it has still to clear up

# Words of a row of Client.words: an account.
LOGGED = 0  # sequenced messages so far, connected or not
LAST_USER_REF = 1
OPEN = 2  # live orders
LINK = 3  # its connection's row in Links and one more, 0: none
TO_CANCEL = 4  # of its open orders so many, the first ones of `live`, have still to be looked at by a mass cancel
CANCEL_INSTRUMENT = 5  # which of them it cancels, 0: all
CANCEL_REASON = 6
ENTRY_OFF = 7  # its client has disabled order entry
KEEPS_ORDERS = 8  # they stay when its connection ends
SELF_TRADE = 9  # what becomes of an order of its own that meets another one of its owner
FIRM = 10  # accounts with the same number, not 0, have one owner
TOLD = 11  # messages of its log that have been through latency and faults
SPEAKS_42 = 12  # its client speaks OUCH 4.2: translated where messages come in and go out (hot/ouch42.py)
CLIENT_WORDS = 16

# Values of SELF_TRADE.
TRADES = np.int64(0)
CANCEL_NEWEST = np.int64(1)
CANCEL_OLDEST = np.int64(2)
CANCEL_BOTH = np.int64(3)

# The owner of an order: nobody's (history, generated flow), or an account's number, which is its row and one more.
NO_OWNER = np.int64(0)
FIRST_OWNER = np.int64(1)

#   A SoupBinTCP packet of the largest OUCH message (71 bytes) fits a slot of the client's log.
LOG_SLOT_BYTES = 72


class Market(NamedTuple):
    """The market data publisher: packets (n x PACKET_BYTES_MAX + one header,) uint8, n a power of two, each with its session filled
    in; sizes (n,) int64; words (MARKET_WORDS,) int64; lines (1 or 2, LINE_WORDS) int64: every packet goes out on each."""

    packets: np.ndarray
    sizes: np.ndarray
    words: np.ndarray
    lines: np.ndarray


class Connection(NamedTuple):
    """The server's end of a connection (hot/connection.py): words (LINK_WORDS,) int64; inbound, outbound: uint8 buffers; login (uint8,):
    username 6, password 10, session 10, then the login accepted packet. Who takes a snapshot has an outbound for the largest one."""

    words: np.ndarray
    inbound: np.ndarray
    outbound: np.ndarray
    login: np.ndarray


class Links(NamedTuple):
    """The connections that carry orders, a row each: words (links, LINK_WORDS) int64; inbound, outbound (links, bytes) uint8; and logins
    (accounts, bytes) uint8: what lets in the owner of each account, as Connection.login has it."""

    words: np.ndarray
    inbound: np.ndarray
    outbound: np.ndarray
    logins: np.ndarray


class Client(NamedTuple):
    """The accounts, a row each: words (accounts, CLIENT_WORDS) int64; table (accounts, a power of two) records (handle, place) by
    user_ref; live (as many,) uint32: slots of the table that hold a live order; log (accounts, slots x LOG_SLOT_BYTES) uint8: the newest
    sequenced packets. An account outlives its connections.

    Of those that speak OUCH 4.2 (hot/ouch42.py): tokens (accounts, a power of two) records (first, rest, firm, next, number) by user_ref;
    chains (accounts, a power of two) uint32: the user_ref of the newest token of each chain, 0 none; scratch (bytes,) uint8."""

    words: np.ndarray
    table: np.ndarray
    live: np.ndarray
    log: np.ndarray
    tokens: np.ndarray
    chains: np.ndarray
    scratch: np.ndarray


class Listing(NamedTuple):
    """What is listed, by instrument: symbols (65,536,) int64 as packed text, 0 none; lookup (131,072,) int32: instruments hashed by
    symbol, -1 none; states (65,536,) uint8: trading state as ASCII, 0 not told; resting (131,072,) int64: live client orders by side;
    minimums (65,536,) uint32: the smallest share of the pro-rata rule (hot/prorata.py), 0: price-time priority."""

    symbols: np.ndarray
    lookup: np.ndarray
    states: np.ndarray
    resting: np.ndarray
    minimums: np.ndarray


class Venue(NamedTuple):
    """All that matching touches: positions is a board of POSITION, 65,536 lines for each account, one after the other; stats one
    EXCHANGE_STATS record; words (VENUE_WORDS,) int64; events (EVENTS,) EVENT records and walk (WALK_WORDS,) int64: the matching
    core's."""

    book: Book
    market: Market
    clients: Client
    listing: Listing
    positions: np.ndarray
    stats: np.ndarray
    words: np.ndarray
    events: np.ndarray
    walk: np.ndarray


# Words of Flow.words.
SYMBOLS = 0  # how many; they are instruments 1 to SYMBOLS
SCRIPT = 1  # how far the opening has come: directory, system events, first orders
NEXT_NS = 2  # when the next event is due, since midnight
FLOW_WORDS = 4


class Flow(NamedTuple):
    """Generated flow: words (FLOW_WORDS,) int64; random (1,) uint64; mean_ns (1,) float64: mean time between events; anchor and
    reference (symbols,) float64 prices; moved_ns (symbols,) int64; refs (symbols x 2 x SLOTS,) int64: the orders that flow has placed."""

    words: np.ndarray
    random: np.ndarray
    mean_ns: np.ndarray
    anchor: np.ndarray
    reference: np.ndarray
    moved_ns: np.ndarray
    refs: np.ndarray


# Words of Schedule.words.
NEXT_DUE = 0  # the next of its events
BASE_NS = 1  # when the market opened for messages, from which the schedule counts; since midnight
CROSSING = 2  # how far a cross is (hot/schedule.py), and what it has found: its price, its shares, its match number
CROSS_PX = 3
CROSS_VOLUME = 4
CROSS_NUMBER = 5
CROSS_LEFT = 6  # shares of this side that are still to trade
SCHEDULE_WORDS = 7


class Schedule(NamedTuple):
    """What happens by the clock, in the order of its times: times (n,) int64 nanoseconds, kinds (n,) uint8, instruments (n,) int64; last_px
    (65,536,) int64: an instrument's last cross, before it the first price of its listing; words (SCHEDULE_WORDS,) int64."""

    times: np.ndarray
    kinds: np.ndarray
    instruments: np.ndarray
    last_px: np.ndarray
    words: np.ndarray


# Words of Replay.words.
FILE_FD = 0
FROM = 1  # buffer[FROM:TO] has been read and not yet applied
TO = 2
FILE_ENDED = 3
STARTED = 4
LAST_TS_NS = 5  # the last message's time, and when it was due on the wall clock
DUE_NS = 6
SILENCE_NS = 7
# Set by the thread that unzips the file (engine/feed/source.py), which knows this place.
UNZIP_FAILED = FEED_UNZIP_FAILED
REPLAY_WORDS = UNZIP_FAILED + 1


class Replay(NamedTuple):
    """A file's replay: words (REPLAY_WORDS,) int64; buffer uint8; pace (1,) float64: wall nanoseconds for one of history's, 0 flat out."""

    words: np.ndarray
    buffer: np.ndarray
    pace: np.ndarray


class Paper(NamedTuple):
    """A market that is traded on paper (hot/paper.py): its ring, and the slots as uint8; by instrument, uint8: validity (65,536,) what
    its book is worth, told (65,536,) the trading state that the market told."""

    ring: ConsumerEnd
    raw: np.ndarray
    validity: np.ndarray
    told: np.ndarray


# Words of Archive.words.
ARCHIVED = 0  # number of the first packet that is not in the archive yet
LOCATE_MAX = 1  # the highest locate that was published
ARCHIVE_WORDS = 2

# A message of the log after its length: the largest of ITCH 5.0 has 50 bytes.
ARCHIVE_SLOT_BYTES = 64


class Archive(NamedTuple):
    """What was published, for those who ask later: log (slots x ARCHIVE_SLOT_BYTES,) uint8, slots a power of two or none: message s at
    slot (s - 1) modulo slots, after its length; sequences (slots,) int64: whose message it is, 0 nobody's; notices (65,536 x
    NOTICE_BYTES or none,) uint8: the last word on each instrument's listing and trading state (hot/archive.py); words."""

    log: np.ndarray
    sequences: np.ndarray
    notices: np.ndarray
    words: np.ndarray


class Rewind(NamedTuple):
    """The rewind servers: fds (servers,) int64; peer (PEER_WORDS,) int64: whom the request came from; request, uint8; answer
    (PACKET_BYTES_MAX,) uint8, with its session filled in."""

    fds: np.ndarray
    peer: np.ndarray
    request: np.ndarray
    answer: np.ndarray


# Further words of a viewer's connection.
PROGRESS = 10

# Values of PROGRESS: what has become of a viewer's snapshot, which it asks for by logging in.
NOTHING_ASKED = 0
ASKED = 1
WRITING = 2
WRITTEN = 3
SENT = 4


# Words of Glimpse.words.
VIEWERS_FD = 0  # the listening socket, -1: no snapshots are offered
WRITER = 1  # the viewer whose snapshot is being written, NO_WRITER: nobody's
WROTE_FROM_NS = 2
NEXT_WRITE_NS = 3  # not before this is another snapshot written
# Where the writing stands.
PART = 4
AT_INSTRUMENT = 5
AT_SIDE = 6
AT_LEVEL = 7
AT_ORDER = 8
GLIMPSE_WORDS = 16

NO_WRITER = -1


class Glimpse(NamedTuple):
    """The snapshot service: words (GLIMPSE_WORDS,) int64; viewers: as many as are served at once."""

    words: np.ndarray
    viewers: tuple[Connection, ...]


# Words of Conduct.words.
DELAYING = 0  # orders are delayed
HOLDING = 1  # reports are held: latency, or faults
STRIKING = 2  # there are faults
SILENT_NS = 3
DELAYED_NS = 4
STARTED_NS = 5  # when the first turn was: times of faults count from there
CONDUCT_WORDS = 8


class Conduct(NamedTuple):
    """How the exchange treats those who are connected: words (CONDUCT_WORDS,) int64; random, fault_random (1,) uint64; orders_ns,
    reports_ns: int64 latencies, each as likely; order_lines, report_lines: a delay line (hot/delays.py) for each connection and for each
    account, none where nothing is delayed; and by fault (hot/faults.py): rates float64, times int64 in rising order, the last one never,
    struck_at and struck int64, the next of its times and how often it struck."""

    words: np.ndarray
    random: np.ndarray
    fault_random: np.ndarray
    orders_ns: np.ndarray
    reports_ns: np.ndarray
    order_lines: np.ndarray
    report_lines: np.ndarray
    rates: np.ndarray
    times: np.ndarray
    struck_at: np.ndarray
    struck: np.ndarray


# Words of Exchange.words.
LISTEN_FD = 0
FLOW_KIND = 1
MIDNIGHT_NS = 2
WINDOW = 3  # messages that may be under way to the feed handler; 0: do not look
THROTTLED = 4  # whether it is being waited for
FLOW_OVER = 5
GOODBYES = 6  # end of session packets sent
TURNS = 7  # so far
EXCHANGE_WORDS = 8

# Values of FLOW_KIND.
FLOW_NONE = 0
FLOW_GENERATED = 1
FLOW_REPLAY = 2
FLOW_PAPER = 3


class Exchange(NamedTuple):
    """The state of the exchange's step: control and words (EXCHANGE_WORDS,) are int64 words."""

    venue: Venue
    flow: Flow
    schedule: Schedule
    replay: Replay
    archive: Archive
    rewind: Rewind
    glimpse: Glimpse
    links: Links
    paper: Paper
    conduct: Conduct
    control: np.ndarray
    words: np.ndarray
