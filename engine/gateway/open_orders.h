/* The gateway's order table, which is the board <instance>.open_orders: one line an order, found by its user_ref modulo the table's size.
 *
 * The gateway works on these very lines, so nothing is written twice and whoever looks sees what it goes by. Fields that say something
 * together (what is open and what was executed; all of a new order) are written with `version` odd, as every board's; a field that changes
 * alone (state, sent_tsc, replaces, replaced_by, marks) is not. Read a line twice, and again until both are one and of the same even
 * version: then it is a line as it was. A version that stays odd is one that the gateway died over.
 *
 * An order may trade while its state is one of PENDING_NEW to UNKNOWN and `open` is not 0. A place that is FREE, or of an order that has
 * ended, may be taken by another at any moment.
 */

#define TP_ORDER_FREE              0
#define TP_ORDER_PENDING_NEW       1
#define TP_ORDER_LIVE              2
#define TP_ORDER_PARTIALLY_FILLED  3
#define TP_ORDER_PENDING_REPLACE   4
#define TP_ORDER_PENDING_CANCEL    5
#define TP_ORDER_UNKNOWN           6
#define TP_ORDER_FILLED            7
#define TP_ORDER_CANCELLED         8
#define TP_ORDER_REJECTED          9
#define TP_ORDER_REPLACED          10

/*   0         8    16     24         32         40         44         48         52            56           58         60     61      62      63
 *   +---------+----+------+----------+----------+----------+----------+----------+-------------+------------+----------+------+-------+-------+-----+
 *   | version | px | open | executed | sent_tsc | user_ref | order_id | replaces | replaced_by | instrument | strategy | side | state | marks | tif |
 *   +---------+----+------+----------+----------+----------+----------+----------+-------------+------------+----------+------+-------+-------+-----+
 *
 *   user_ref      what the venue calls it             order_id  what its strategy calls it; 0: of an earlier life of the gateway
 *   open          what may still trade; of a replacement under way: what would be open if the venue took it now
 *   executed      what it and the orders before it in its chain of replacements executed: the venue counts it in a quantity
 *   replaces      user_ref of the order that this one is to replace, while that is under way     replaced_by  the other way round
 *   sent_tsc      when it was handed to the kernel; 0: it has not been, or is one of an earlier life
 *   marks         the gateway's own (engine/gateway/hot/state.py)
 */
struct tp_open_order {
    int64_t version;
    int64_t px;
    int64_t open;
    int64_t executed;
    int64_t sent_tsc;
    uint32_t user_ref;
    uint32_t order_id;
    uint32_t replaces;
    uint32_t replaced_by;
    uint16_t instrument;
    uint16_t strategy;
    uint8_t side;
    uint8_t state;
    uint8_t marks;
    uint8_t tif;
};
