/* The records on the rings: one cache line each, drawn once for C, numpy and numba.
 *
 * Every record begins alike:
 *
 *   0                   8                  16                  24   25    26         28        32
 *   +-------------------+-------------------+-------------------+----+-----+----------+---------+
 *   | sequence          | origin_tsc        | ts_ns             |kind|flags|instrument| age_tsc | ...
 *   +-------------------+-------------------+-------------------+----+-----+----------+---------+
 *
 *   sequence    the ring's own word (shm/layout.h)
 *   origin_tsc  TSC when the packet that caused this record was received
 *   ts_ns       the venue's own time, int64 nanoseconds since the epoch: a label, never a latency
 *   kind        TP_MSG_*
 *   flags       per kind, below
 *   instrument  small integer; the venue's locate code where it has one
 *   age_tsc     TSC ticks from origin_tsc to publication here; 2^32 - 1 means "that or more"
 *
 * Prices are int64 in the venue's own fixed point (px_decimals on the instrument record), quantities int64.
 */

#define TP_MSG_INSTRUMENT   1
#define TP_MSG_QUOTE        2
#define TP_MSG_LEVEL        3
#define TP_MSG_TRADE        4
#define TP_MSG_STATUS       5
#define TP_MSG_TIMER        6

#define TP_MSG_NEW          16
#define TP_MSG_REPLACE      17
#define TP_MSG_CANCEL       18

#define TP_MSG_ACCEPTED     32
#define TP_MSG_REPLACED     33
#define TP_MSG_CANCELLED    34
#define TP_MSG_EXECUTED     35
#define TP_MSG_REJECTED     36
#define TP_MSG_BROKEN       37

/* flags of a quote and a status: VALID alone means a strategy may act on the book; any other bit is a reason not to.
 * STALE: nothing was heard for too long, or the venue's clock runs away from ours. GAPPED: messages are missing, so no book is
 * proven. SUSPECT: a message did not fit this instrument's book, which is not proven until a snapshot made it anew.
 */
#define TP_BOOK_VALID       1
#define TP_BOOK_STALE       2
#define TP_BOOK_HALTED      4
#define TP_BOOK_CROSSED     8
#define TP_BOOK_CLOSED      16
#define TP_BOOK_OVERFLOW    32
#define TP_BOOK_GAPPED      64
#define TP_BOOK_SUSPECT     128

/* flags of a rejected report: who said no. */
#define TP_REJECTED_BY_RISK     1
#define TP_REJECTED_BY_VENUE    2

#define TP_BUY              66
#define TP_SELL             83
#define TP_TIF_DAY          0
#define TP_TIF_IOC          1

/*  32  symbol        eight ASCII bytes, space-filled, in memory order
 *  40  lot_qty       round lot
 *  44  px_decimals   a price of 1234500 with 4 decimals is 123.45
 *  48  tick_px       smallest price step
 */
struct tp_instrument {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    uint64_t symbol;
    uint32_t lot_qty;
    uint8_t px_decimals;
    uint8_t pad[3];
    int64_t tick_px;
    uint64_t reserved;
};

/*  32  bid_px   40  bid_sz   48  ask_px   56  ask_sz      an empty side has size 0 and price 0 */
struct tp_quote {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    int64_t bid_px;
    int64_t bid_sz;
    int64_t ask_px;
    int64_t ask_sz;
};

/*  32  px   40  qty (what now rests there, 0: the level is gone)   48  orders   52  side */
struct tp_level {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    int64_t px;
    int64_t qty;
    uint32_t orders;
    uint8_t side;
    uint8_t pad[3];
    uint64_t reserved;
};

/*  32  px   40  qty   48  match_id (the venue's)   56  side of the resting order, 0 unknown
 *  57  printable   58  cross: the venue's cross type as ASCII, 0 for continuous trading
 */
struct tp_trade {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    int64_t px;
    int64_t qty;
    uint64_t match_id;
    uint8_t side;
    uint8_t printable;
    uint8_t cross;
    uint8_t pad[5];
};

/*  32  feed_sequence   next message expected of the feed
 *  40  lost            messages of the feed counted lost so far
 *  48  state           the venue's trading state as ASCII ('T' trading, 'H' halted, 'P' paused, 'Q' quotation only)
 *  49  session_event   last system event as ASCII ('Q' start of market hours, 'M' end, ...), 0 none
 */
struct tp_status {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    uint64_t feed_sequence;
    uint64_t lost;
    uint8_t state;
    uint8_t session_event;
    uint8_t pad[6];
    uint64_t reserved;
};

/* A message of the market as the feed handler applied it, for a venue that trades against it on paper (engine/feed/hot/handover.py).
 *
 *   8 length   of the message, big-endian       10 message   as ITCH has it, or a notice
 */
struct tp_market {
    uint64_t sequence;
    uint8_t length[2];
    uint8_t message[54];
};

/* What a strategy asks for. Ids are the strategy's own, grow by one, and never repeat in a session.
 *
 *  32  px         new, replace: limit price
 *  40  qty        new: quantity; replace: new total open quantity; cancel: quantity to leave open (0: all of it goes)
 *  48  order_id   new, replace: the id this order will have; cancel: the order to cancel
 *  52  target_id  replace: the order that is replaced
 *  56  side       TP_BUY or TP_SELL   57  tif   58  strategy
 */
struct tp_order {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    int64_t px;
    int64_t qty;
    uint32_t order_id;
    uint32_t target_id;
    uint8_t side;
    uint8_t tif;
    uint16_t strategy;
    uint32_t pad;
};

/* What became of it.
 *
 *  32  px         executed: the price it traded at; accepted, replaced: the limit
 *  40  qty        executed: traded now; cancelled: taken off the book now; accepted, replaced: open quantity
 *  48  order_id   the order this is about (replaced: its new id)
 *  52  reason     rejected, cancelled: why (TP_REASON_* of engine/risk below 256, or 256 + the venue's code)
 *  54  side       55  liquidity: executed: ASCII 'A' added (maker), 'R' removed (taker)
 *  56  ref_id     executed, broken: the venue's match number; replaced: the id it had before; accepted: the venue's reference of the
 *                 order, which is its ref in the venue's market data
 */
struct tp_report {
    uint64_t sequence;
    uint64_t origin_tsc;
    int64_t ts_ns;
    uint8_t kind;
    uint8_t flags;
    uint16_t instrument;
    uint32_t age_tsc;
    int64_t px;
    int64_t qty;
    uint32_t order_id;
    uint16_t reason;
    uint8_t side;
    uint8_t liquidity;
    uint64_t ref_id;
};
