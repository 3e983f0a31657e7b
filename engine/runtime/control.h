/* What the processes of one instance tell each other beside the rings: words and counters, each written by one process.
 *
 * Counters only grow, are written with plain stores by their one writer, and may be read by anyone at any time.
 */

#define TP_PHASE_STARTING   0
#define TP_PHASE_TRADING    1
#define TP_PHASE_DRAINING   2
#define TP_PHASE_STOPPED    3

#define TP_STATE_NEW        0
#define TP_STATE_COMPILING  1
#define TP_STATE_READY      2
#define TP_STATE_LOOPING    3
#define TP_STATE_ENDED      4

#define TP_IDLE_SPIN        0
#define TP_IDLE_YIELD       1
#define TP_IDLE_SLEEP       2

/* One record, a line for each writer.
 *
 *   0 phase        supervisor: TP_PHASE_*. DRAINING: no new orders, open ones are cancelled. STOPPED: every loop returns
 *   8 started_ns   supervisor  16 config_hash  24 tsc_hz  32 supervisor_pid
 *  64 kill         whoever kills: not 0 blocks every new order at the gateway; cancels still pass
 *  72 kill_ns      80 kill_reason
 * 128 session_up   gateway: 1 while the venue accepts orders      136 drained    gateway: 1 when no order of ours is open
 * 192 feed_sequence feed: next message expected                    200 feed_ended feed: 1 after the venue's end of session
 * 256 flow_done    exchange: 1 when its background flow has ended 264 published  exchange: messages published so far
 * 320 first_order_tsc strategy: TSC of its first order, 0 before
 */
struct tp_control {
    uint64_t phase;
    uint64_t started_ns;
    uint64_t config_hash;
    double tsc_hz;
    uint64_t supervisor_pid;
    uint64_t supervisor_pad[3];
    uint64_t kill;
    uint64_t kill_ns;
    uint8_t kill_reason[48];
    uint64_t session_up;
    uint64_t drained;
    uint64_t gateway_pad[6];
    uint64_t feed_sequence;
    uint64_t feed_ended;
    uint64_t feed_pad[6];
    uint64_t flow_done;
    uint64_t published;
    uint64_t exchange_pad[6];
    uint64_t first_order_tsc;
    uint64_t strategy_pad[7];
};

/* One record a process. reason: what its loop returned when it ended (engine/runtime/hot.py). */
struct tp_process {
    uint32_t pid;
    int32_t cpu;
    uint32_t idle;
    uint32_t state;
    uint64_t heartbeat_tsc;
    uint64_t loops;
    uint64_t busy_loops;
    uint64_t kernels_compiled;
    int64_t reason;
    uint64_t minor_faults;
    uint64_t major_faults;
    uint8_t name[32];
    uint8_t fifo;
    uint8_t locked;
    uint8_t flags_pad[22];
};

struct tp_feed_stats {
    uint64_t packets;
    uint64_t bytes;
    uint64_t messages;
    uint64_t heartbeats;
    uint64_t gaps;
    uint64_t lost;
    uint64_t duplicates;
    uint64_t malformed;
    uint64_t unknown_types;
    uint64_t session_changes;
    uint64_t socket_drops;
    uint64_t ring_waits;
    uint64_t instruments;
    uint64_t quotes;
    uint64_t levels;
    uint64_t trades;
    uint64_t statuses;
    uint64_t books_stale;
    uint64_t orders_live;
    uint64_t unknown_orders;
    uint64_t duplicate_orders;
    uint64_t capacity_drops;
    uint64_t ends_of_session;
    uint64_t reserved;
};

struct tp_strategy_stats {
    uint64_t ticks;
    uint64_t quotes;
    uint64_t levels;
    uint64_t trades;
    uint64_t statuses;
    uint64_t reports;
    uint64_t timers;
    uint64_t withheld;
    uint64_t orders;
    uint64_t replaces;
    uint64_t cancels;
    uint64_t refused_invalid;
    uint64_t refused_full;
    uint64_t refused_phase;
    uint64_t conflated;
    uint64_t reserved;
};

struct tp_gateway_stats {
    uint64_t orders;
    uint64_t sent;
    uint64_t bytes_sent;
    uint64_t accepted;
    uint64_t replaced;
    uint64_t cancelled;
    uint64_t executed;
    uint64_t broken;
    uint64_t rejected_by_risk;
    uint64_t rejected_by_venue;
    uint64_t duplicates;
    uint64_t unknown_reports;
    uint64_t malformed;
    uint64_t reports_lost;
    uint64_t heartbeats_sent;
    uint64_t heartbeats_received;
    uint64_t logins;
    uint64_t sessions_lost;
    uint64_t partial_sends;
    uint64_t ring_waits;
    uint64_t open_orders;
    uint64_t cancels_on_drain;
    uint64_t reserved[2];
};

struct tp_exchange_stats {
    uint64_t packets;
    uint64_t messages;
    uint64_t flow_events;
    uint64_t replayed;
    uint64_t diverged;
    uint64_t clients;
    uint64_t orders;
    uint64_t replaces;
    uint64_t cancels;
    uint64_t accepted;
    uint64_t rejected;
    uint64_t executions;
    uint64_t client_executions;
    uint64_t malformed;
    uint64_t reports;
    uint64_t reports_lost;
    uint64_t send_failures;
    uint64_t capacity_drops;
    uint64_t throttled;
    uint64_t open_orders;
    uint64_t logins;
    uint64_t reserved[3];
};

/* A board line per instrument: version is the seqlock's word. cash is what sales brought less what purchases cost, in
 * price units times quantity; P&L is cash + position x mark. */
struct tp_position {
    uint64_t version;
    int64_t position;
    int64_t bought;
    int64_t sold;
    int64_t cash;
    int64_t open_buy;
    int64_t open_sell;
    uint64_t fills;
};
