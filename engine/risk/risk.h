/* What the risk gate and those who set its limits tell each other: one record written by people's commands, one by the gate.
 *
 * Limits are words in the smallest unit (engine/risk/hot/state.py names them, engine/risk/words.py fills them from text). -1 is a
 * check that was switched off by name; 0 is never that: a record of zeros refuses every order.
 */

#define TP_RISK_ACTIVE      0
#define TP_RISK_REDUCING    1
#define TP_RISK_HALTED      2

#define TP_STRATEGIES_MAX   64
#define TP_RESTRICTED_MAX   64

/* A board line, written by the start of an instance and by `tickpath risk`, one writer at a time; the gate copies it when its version
 * changes, and lets nothing pass while it is torn.
 *
 *    0 version      8 state  TP_RISK_*   16 trip_cleared  trips of the gate up to this one no longer hold
 *   24 px_decimals  32 venue_qty_max     40 symbols  how many may be traded   48 text_bytes
 *   64 limits       448 restricted  packed symbols, 0: none
 *  960 enabled      by strategy: below zero where it is not known; it may fire while this is above its number in tp_risk_facts.disabled
 * 1472 text         the limits as JSON, as they were set
 */
struct tp_risk_rules {
    int64_t version;
    int64_t state;
    int64_t trip_cleared;
    int64_t px_decimals;
    int64_t venue_qty_max;
    int64_t symbols;
    int64_t text_bytes;
    int64_t pad;
    int64_t limits[48];
    int64_t restricted[64];
    int64_t enabled[64];
    uint8_t text[2112];
};

/* One record, written by the gate alone. Amounts are price units times quantity.
 *
 *   0 trips     the number of the last trip: a limit of losses put the gate into REDUCING      8 trip_reason     16 lines  looked after
 *  24 pnl       cash and positions at the last good quote                32 peak         40 losses   lost round trips in a row
 *  48 gross     what positions and open orders may come to, worst side   56 net_long     64 net_short
 *  72 gross_qty the same in shares                                       80 session_notional  sent so far
 *  88 messages  new orders, replaces and cancels sent                    96 executions
 * 104 rules_read  times a change of the rules was taken over
 * 128 disabled  by strategy: the `enabled` that it used up               640 fired        orders by strategy
 * 1152 counts   verdicts by reason; the first are those that passed
 */
struct tp_risk_facts {
    int64_t trips;
    int64_t trip_reason;
    int64_t lines;
    int64_t pnl;
    int64_t peak;
    int64_t losses;
    int64_t gross;
    int64_t net_long;
    int64_t net_short;
    int64_t gross_qty;
    int64_t session_notional;
    int64_t messages;
    int64_t executions;
    int64_t rules_read;
    int64_t pad[2];
    int64_t disabled[64];
    int64_t fired[64];
    int64_t counts[64];
};
