/* Every byte that two processes share, drawn once.
 *
 * The C compiler, cffi (and through it numpy and numba) read this one file, so an offset is stated nowhere else. It holds
 * integer #defines, plain structs and named pads, because that is what both readers understand; shm/shim.c asserts the sizes.
 *
 * A segment is a file in /dev/shm:
 *
 *        0  identity      who made it, what it holds, how large it is       (struct tp_identity)
 *      128  schema        the record layout as JSON, so any tool decodes it (schema_bytes long)
 *     8192  data          ring slots, cursor blocks, table records or board lines
 */

#define TP_MAGIC            0x4854415031303354
#define TP_LAYOUT_VERSION   1
#define TP_LINE_BYTES       64
#define TP_BLOCK_BYTES      128
#define TP_SCHEMA_OFFSET    128
#define TP_DATA_OFFSET      8192
#define TP_READERS_MAX      15

#define TP_KIND_RING        1
#define TP_KIND_CURSORS     2
#define TP_KIND_TABLE       3
#define TP_KIND_BOARD       4

#define TP_READER_ABSENT    0
#define TP_READER_GATING    1
#define TP_READER_OBSERVER  2

/*   0                   8                  16                  24
 *   +-------------------+---------+---------+-------------------+-------------------+
 *   | magic             | version | kind    | total bytes       | data offset       |
 *  32-------------------+---------+---------+-------------------+-------------------+
 *   | capacity          | record bytes      | schema hash       | build hash        |
 *  64-------------------+-------------------+-------------------+-------------------+
 *   | creator pid       | creator start     | created ns        | schema B | readers|
 *  96-------------------+-------------------+-------------------+-------------------+
 *   | reserved                                                                      |
 *   +-------------------------------------------------------------------------------+
 *
 * The magic is stored last, with release: a segment without it is still being created.
 * creator_start is the process start time in clock ticks since boot, since a pid alone may be another process by now.
 */
struct tp_identity {
    uint64_t magic;
    uint32_t layout_version;
    uint32_t kind;
    uint64_t total_bytes;
    uint64_t data_offset;
    uint64_t capacity;
    uint64_t record_bytes;
    uint64_t schema_hash;
    uint64_t build_hash;
    uint64_t creator_pid;
    uint64_t creator_start;
    uint64_t created_ns;
    uint32_t schema_bytes;
    uint32_t readers;
    uint64_t reserved[4];
};

/* A ring slot: one cache line (or several), the sequence first, so a hop costs one coherence miss.
 *
 *   0                   8                                                          64
 *   +-------------------+-----------------------------------------------------------+
 *   | sequence          | payload                                                   |
 *   +-------------------+-----------------------------------------------------------+
 *
 * The slot of position p holds p + 1 once published, and 0 while it is being written: an observer that copied
 * a slot re-reads the sequence and knows by it whether the copy is whole.
 */
struct tp_slot {
    uint64_t sequence;
    uint8_t payload[56];
};

/* The producer's block in the cursor segment. Nothing in it is read on a hop's path.
 *
 *   0        epoch       bumped when a producer takes the ring over
 *   8        position    next position to claim, published now and then for those who watch
 *  16        heartbeat   TSC of the last sign of life
 *  24        waits       times a claim found the ring full
 *  32        dropped     messages given up because the ring was full
 *  40        evicted     gating readers found dead and let go
 *  48..127   reserved
 */
struct tp_producer {
    uint64_t epoch;
    uint64_t position;
    uint64_t heartbeat;
    uint64_t waits;
    uint64_t dropped;
    uint64_t evicted;
    uint64_t reserved[10];
};

/* A reader's block. The position has a line to itself: the producer polls it when the ring is full.
 *
 *   0        position    everything below it has been read; stored with release once per batch
 *   8..63    line pad
 *  64        mode        TP_READER_*
 *  68        pid
 *  72        heartbeat   TSC of the last sign of life
 *  80        lost        messages an observer was lapped by
 *  88        name        up to 23 ASCII bytes, zero-filled
 * 112..127   reserved
 */
struct tp_reader {
    uint64_t position;
    uint64_t line_pad[7];
    uint32_t mode;
    uint32_t pid;
    uint64_t heartbeat;
    uint64_t lost;
    uint8_t name[24];
    uint64_t reserved[2];
};

/* A latency histogram, log-linear: 64 buckets to each power of two, so a reading is at most 1/64 (1.6 %) high.
 *
 *   0  count    8  sum    16  maximum    24  minimum    32..63  reserved    64  buckets
 *
 * Values are TSC ticks below 2^48; larger ones are counted in the last bucket.
 */
#define TP_HISTOGRAM_SUB_BITS    6
#define TP_HISTOGRAM_VALUE_BITS  48
#define TP_HISTOGRAM_BUCKETS     2752

struct tp_histogram {
    uint64_t count;
    uint64_t sum;
    uint64_t maximum;
    uint64_t minimum;
    uint64_t reserved[4];
    uint64_t buckets[2752];
};
