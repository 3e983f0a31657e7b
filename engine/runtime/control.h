/* What the processes of one instance tell each other beside the rings: words and counters, each written by one process.
 *
 * Counters are signed, as numba would make a float of an unsigned one plus 1. They only grow, are written with plain stores by
 * their one writer, and may be read by anyone at any time.
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

#define TP_KILL_SCOPES      32

/* One record, a line for each writer.
 *
 *   0 phase        supervisor: TP_PHASE_*. DRAINING: no new orders, open ones are cancelled. STOPPED: every loop returns
 *   8 started_ns   supervisor  16 config_hash  24 tsc_hz  32 supervisor_pid  40 venue  the gateway's venue, packed as a symbol
 *  64 kill         whoever kills, one at a time: not 0 blocks every new order at the gateway; cancels still pass
 *  72 kill_ns, kill_tsc  when the last kill was made, whole or scoped     88 scoped  number of the last scoped kill while any holds, else 0
 *  96 kills        number of the last kill of all                        128 kill_reason
 * 320 session_up   gateway: 1 while the venue accepts orders      328 drained    gateway: 1 when no order of ours is open
 * 384 feed_sequence feed: next message expected                    392 feed_ended feed: 1 after the venue's end of session
 * 448 flow_done    exchange: 1 when its background flow has ended 456 published  exchange: messages published so far
 * 512 first_order_tsc strategy: TSC of its first order, 0 before
 * 576 scopes       whoever kills: TP_KILL_SCOPES lines of scoped kills, eight words each. The first is the kill's number and is written last;
 *                  0: the line is free. Then the strategy (-1: all), the packed symbol (0: all), the packed venue (0: all), kill_ns
 */
struct tp_control {
    uint64_t phase;
    uint64_t started_ns;
    uint64_t config_hash;
    double tsc_hz;
    uint64_t supervisor_pid;
    uint64_t venue;
    uint64_t supervisor_pad[2];
    uint64_t kill;
    uint64_t kill_ns;
    uint64_t kill_tsc;
    uint64_t scoped;
    uint64_t kills;
    uint64_t kill_pad[3];
    uint8_t kill_reason[192];
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
    int64_t scopes[256];
};

/* One record a process, written by that process alone. reason: what its loop returned when it ended (engine/runtime/hot.py).
 * minor_faults and major_faults count its whole life. The line below holds what the kernel was asked for, as read back from it.
 *
 * 104 fifo     SCHED_FIFO priority, 0: ordinary    105 locked  1: mlockall holds      106 nice    107 prefaulted  1: every page is there
 * 108 oom_score_adj    110 numa_node  -1: not bound    112 timer_slack_ns    116 cpus  CPUs it may run on    118 latency_set  1: in tune's
 * 128 loop_*   what happened between the first and the last turn of the loop. A wait is a system call that slept; forced: another ran
 */
struct tp_process {
    uint32_t pid;
    int32_t cpu;
    uint32_t idle;
    uint32_t state;
    int64_t heartbeat_tsc;
    int64_t loops;
    int64_t busy_loops;
    int64_t kernels_compiled;
    int64_t reason;
    int64_t minor_faults;
    int64_t major_faults;
    uint8_t name[32];
    uint8_t fifo;
    uint8_t locked;
    int8_t nice;
    uint8_t prefaulted;
    int16_t oom_score_adj;
    int16_t numa_node;
    uint32_t timer_slack_ns;
    uint16_t cpus;
    uint8_t latency_set;
    uint8_t set_pad;
    int64_t locked_kib;
    int64_t loop_minor_faults;
    int64_t loop_major_faults;
    int64_t loop_waits;
    int64_t loop_forced;
    uint8_t loop_pad[32];
};

/* The feed handler. A message is one of the venue's numbers: published = messages + lost, once all is heard of.
 *
 * lost        numbers that were passed over without their message; of those, covered: a snapshot brought what they did to the books
 * duplicates  messages that had been there before, from whatever line      foreign  packets of a session that is not ours
 * gaps        holes in the numbers that all lines together left; a hole is waited for, asked for, and only then lost
 * recovered   messages that a rewind server brought       waited  messages that came before those that precede them, and were kept
 * window_drops  of those, what found no room until their turn came, and had to be asked for again
 * wrong_books  books in which check_books found a contradiction       invalidated  times that a valid book became invalid
 */
struct tp_feed_stats {
    int64_t packets;
    int64_t bytes;
    int64_t messages;
    int64_t heartbeats;
    int64_t gaps;
    int64_t lost;
    int64_t duplicates;
    int64_t malformed;
    int64_t unknown_types;
    int64_t session_changes;
    int64_t foreign;
    int64_t socket_drops;
    int64_t ring_waits;
    int64_t instruments;
    int64_t quotes;
    int64_t levels;
    int64_t trades;
    int64_t statuses;
    int64_t orders_live;
    int64_t unknown_orders;
    int64_t duplicate_orders;
    int64_t capacity_drops;
    int64_t ends_of_session;
    int64_t requests;
    int64_t request_failures;
    int64_t recovered;
    int64_t waited;
    int64_t window_drops;
    int64_t covered;
    int64_t snapshots;
    int64_t snapshot_failures;
    int64_t snapshots_too_old;
    int64_t snapshot_messages;
    int64_t suspects;
    int64_t refreshes;
    int64_t wrong_books;
    int64_t stales;
    int64_t invalidated;
    int64_t gapped_ns;
    int64_t stale_ns;
    int64_t reserved[8];
};

/* One record for each line that packets come on: A, B, up to four rewind servers, and last the snapshot's connection.
 *
 * messages = first + duplicates (but for what the window drops). repeated: of the duplicates, those that this line itself had brought
 * before. lost: numbers below `next` that it never brought, so published on it = messages - repeated + lost.
 * requests and failures: of rewind servers and of snapshots. troubles: errors that the network told.
 */
struct tp_feed_line {
    int64_t packets;
    int64_t bytes;
    int64_t messages;
    int64_t first;
    int64_t duplicates;
    int64_t repeated;
    int64_t gaps;
    int64_t lost;
    int64_t heartbeats;
    int64_t malformed;
    int64_t foreign;
    int64_t socket_drops;
    int64_t next;
    int64_t heard_tsc;
    int64_t requests;
    int64_t failures;
};

/* One record an instrument, the feed handler's own: the best bid and offer as last published, why its book may not be acted on, and
 * what it did so far.
 *
 *  32 validity  TP_BOOK_* flags as last published    publish  1: somebody asked for it    known  1: it is in the directory
 *     state     trading state as ASCII, 0 none seen  halts    a bit for each market that has halted it operationally
 *     overflow  1: an order of it found no room      suspect  1: a message did not fit its book
 *     refreshing  1: its book is being made anew     reloaded 1: it was, and its quote has not been published since
 *  48 last_ns   time of its last message             56 messages
 *  64 invalid_tsc  since when its book is invalid, where it is
 */
struct tp_symbol {
    int64_t bid_px;
    int64_t bid_sz;
    int64_t ask_px;
    int64_t ask_sz;
    uint8_t validity;
    uint8_t publish;
    uint8_t known;
    uint8_t state;
    uint8_t halts;
    uint8_t overflow;
    uint8_t suspect;
    uint8_t refreshing;
    uint8_t reloaded;
    uint8_t pad[7];
    int64_t last_ns;
    int64_t messages;
    int64_t invalid_tsc;
    int64_t invalid_ns;
    int64_t invalidated;
    int64_t quotes;
    int64_t trades;
    int64_t volume;
    int64_t suspects;
    int64_t refreshes;
};

struct tp_strategy_stats {
    int64_t ticks;
    int64_t quotes;
    int64_t levels;
    int64_t trades;
    int64_t statuses;
    int64_t reports;
    int64_t timers;
    int64_t withheld;
    int64_t orders;
    int64_t replaces;
    int64_t cancels;
    int64_t refused_invalid;
    int64_t refused_full;
    int64_t refused_phase;
    int64_t conflated;
    int64_t reserved;
};

/* The order gateway. sent counts messages, open_orders and unknown_orders what is so now; the others only grow.
 *
 * illegal_moves    what the venue said that no order of ours could do from where it was; nothing was changed by it
 * adopted          orders of an earlier life of this gateway, known from the venue's replay
 * never_arrived    orders lost with a session, told to their strategy     unknown_orders  orders of unknown fate
 * connects, connect_failures   connections made and not made              reconciliations  sessions that came up reconciled
 * kill_swept  number of the last kill whose cancels are all written: kill_cancels of them, the last so long after the word of the command
 * sends            system calls that orders were handed over in        withdrawn  orders that waited and were never sent
 * waiting_most     most orders that ever waited at once
 * unknown_executions  of orders that the gateway does not know: our positions lack them
 */
struct tp_gateway_stats {
    int64_t orders;
    int64_t sent;
    int64_t bytes_sent;
    int64_t accepted;
    int64_t replaced;
    int64_t cancelled;
    int64_t executed;
    int64_t broken;
    int64_t rejected_by_risk;
    int64_t rejected_by_venue;
    int64_t duplicates;
    int64_t unknown_reports;
    int64_t malformed;
    int64_t reports_lost;
    int64_t heartbeats_sent;
    int64_t heartbeats_received;
    int64_t logins;
    int64_t sessions_lost;
    int64_t partial_sends;
    int64_t ring_waits;
    int64_t open_orders;
    int64_t cancels_on_drain;
    int64_t illegal_moves;
    int64_t adopted;
    int64_t never_arrived;
    int64_t unknown_orders;
    int64_t connects;
    int64_t connect_failures;
    int64_t reconciliations;
    int64_t kill_swept;
    int64_t kill_cancels;
    int64_t kill_to_last_cancel_tsc;
    int64_t sends;
    int64_t withdrawn;
    int64_t waiting_most;
    int64_t unknown_executions;
    int64_t reserved[4];
};

/* packets: sent on line A, packets_b: on line B. The rewind servers answer with rewind_messages messages in all. snapshots: sent whole;
 * snapshots_dropped: given up because their viewer left or was too slow. The market pauses while a snapshot is written. takeovers:
 * connections that were closed because their account logged in again. faults: those of the fault menu that struck. On paper, doubted:
 * messages of books that were not proven, on which nothing fills; places_lost: clients' orders cancelled as their place in a queue was not
 * known any more. */
struct tp_exchange_stats {
    int64_t packets;
    int64_t messages;
    int64_t flow_events;
    int64_t replayed;
    int64_t diverged;
    int64_t clients;
    int64_t orders;
    int64_t replaces;
    int64_t cancels;
    int64_t accepted;
    int64_t rejected;
    int64_t executions;
    int64_t client_executions;
    int64_t malformed;
    int64_t reports;
    int64_t reports_lost;
    int64_t send_failures;
    int64_t capacity_drops;
    int64_t throttled;
    int64_t open_orders;
    int64_t logins;
    int64_t packets_b;
    int64_t rewind_requests;
    int64_t rewind_messages;
    int64_t rewind_refused;
    int64_t rewind_unsent;
    int64_t snapshot_clients;
    int64_t snapshot_logins;
    int64_t snapshots;
    int64_t snapshots_dropped;
    int64_t snapshot_orders;
    int64_t snapshot_pause_ns;
    int64_t snapshot_pause_ns_max;
    int64_t takeovers;
    int64_t mass_cancels;
    int64_t self_trades_prevented;
    int64_t doubted;
    int64_t places_lost;
    int64_t faults;
    int64_t reserved[1];
};

/* A board line per instrument: version is the seqlock's word. cash is what sales brought less what purchases cost, in
 * price units times quantity; P&L is cash + position x mark. */
struct tp_position {
    int64_t version;
    int64_t position;
    int64_t bought;
    int64_t sold;
    int64_t cash;
    int64_t open_buy;
    int64_t open_sell;
    int64_t fills;
};

/* What a packet capture had that is played to the feed handler; the thread that plays it writes it. frames: records of the file;
 * of them packets_a and packets_b were handed over as lines A and B, elsewhere had another destination, too_long do not fit a packet
 * buffer, and the rest is no UDP datagram over IPv4, by what it is (engine/feed/frames.py). late_ns_max: how late a packet was handed
 * over at most, by its own time. torn: 1, the file ends inside a packet or is damaged. ended: 1, all of it was played.
 */
struct tp_capture {
    int64_t frames;
    int64_t packets_a;
    int64_t packets_b;
    int64_t elsewhere;
    int64_t too_long;
    int64_t not_ipv4;
    int64_t not_udp;
    int64_t fragments;
    int64_t cut_short;
    int64_t damaged;
    int64_t unknown_links;
    int64_t unreadable;
    int64_t untimed;
    int64_t late_ns_max;
    int64_t torn;
    int64_t ended;
};
