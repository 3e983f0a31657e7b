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

#pragma once

#define TP_MAGIC            0x4854415031303354
#define TP_LAYOUT_VERSION   2
#define TP_LINE_BYTES       64
#define TP_BLOCK_BYTES      128
#define TP_SCHEMA_OFFSET    128
#define TP_DATA_OFFSET      8192
#define TP_READERS_MAX      15

#define TP_KIND_RING        1
#define TP_KIND_CURSORS     2
#define TP_KIND_TABLE       3
#define TP_KIND_BOARD       4

/* What a reader's block stands for. EVICTED: its reader died and the producer let it go; the next one of that name is told.
 * JOINING: it becomes a gating one; the producer gets no room until it is. */
#define TP_READER_ABSENT    0
#define TP_READER_GATING    1
#define TP_READER_OBSERVER  2
#define TP_READER_EVICTED   3
#define TP_READER_JOINING   4

/* What a producer does at a full ring: wait for the slowest gating reader, give the message up and count it,
 * or let dead gating readers go (one that merely hangs is waited for, then dropped on, never lapped). */
#define TP_WHEN_FULL_WAIT   0
#define TP_WHEN_FULL_DROP   1
#define TP_WHEN_FULL_EVICT  2

/*   0                   8                  16                  24
 *   +-------------------+---------+---------+-------------------+-------------------+
 *   | magic             | version | kind    | total bytes       | data offset       |
 *  32-------------------+---------+---------+-------------------+-------------------+
 *   | capacity          | record bytes      | schema hash       | build hash        |
 *  64-------------------+-------------------+-------------------+-------------------+
 *   | creator pid       | creator start     | created ns        | schema B | readers|
 *  96-------------------+---------+---------+-------------------+-------------------+
 *   | first position    | when full | rsvd  | page bytes        | reserved          |
 *   +-------------------+---------+---------+-------------------+-------------------+
 *
 * The magic is stored last, with release: a segment without it is still being created.
 * creator_start is the process start time in clock ticks since boot, since a pid alone may be another process by now.
 * readers is the number of reader blocks in the cursor segment. page_bytes is what the file is made of: 4096, or a huge page;
 * total_bytes, the file's size, is whole pages.
 *
 * LOCKS. Who is alive is answered by the kernel: an open file description lock (fcntl F_OFD_SETLK) on one byte, freed when the
 * process dies, however it dies. Byte 0 of every segment is held for reading by everyone attached to it; whoever can take it for
 * writing knows that nobody is, and may remove it. In a cursor segment the first byte of each block is held for writing by the
 * process that has that role: producer, or reader k.
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
    uint64_t first_position;
    uint32_t when_full;
    uint32_t reserved_pad;
    uint64_t page_bytes;
    uint64_t reserved;
};

/* A ring slot: one cache line (or several), the sequence first, so a hop costs one coherence miss.
 *
 *   0                   8                                                          64
 *   +-------------------+-----------------------------------------------------------+
 *   | sequence          | payload                                                   |
 *   +-------------------+-----------------------------------------------------------+
 *
 * Positions count messages, modulo 2^64. The slot of position p is slot p mod capacity. Its sequence is p while p is being
 * written and p + 1 once it is published. A reader of p waits for p + 1; nothing that the slot holds at any other time is
 * equal to that, for every other value that slot can hold differs from p + 1 modulo the capacity, or by whole laps. An observer
 * that copied a slot re-reads the sequence and knows by it whether the copy is whole. A new ring's slots hold
 * p - capacity, for the first p to be written there: claimed a lap ago, never published.
 */
struct tp_slot {
    uint64_t sequence;
    uint8_t payload[56];
};

/* The producer's block in the cursor segment. Nothing in it is read on a hop's path.
 *
 *   0        epoch       bumped whenever a producer takes the role
 *   8        position    next position to claim, published now and then for those who watch: at least once a lap
 *  16        limit       no slot at or above it is written before the readers' positions are looked at again
 *  24        heartbeat   TSC of the last sign of life
 *  32        waits       times a claim found the ring full
 *  40        dropped     messages given up because the ring was full
 *  48        evicted     gating readers found dead and let go
 *  56        pid         of the process that has or last had the role
 *  64        start       when that process started, in clock ticks since boot
 *  72        name        of that process: up to 23 ASCII bytes, zero-filled
 *  96..127   reserved
 */
struct tp_producer {
    uint64_t epoch;
    uint64_t position;
    uint64_t limit;
    uint64_t heartbeat;
    uint64_t waits;
    uint64_t dropped;
    uint64_t evicted;
    uint32_t pid;
    uint32_t pid_pad;
    uint64_t start;
    uint8_t name[24];
    uint64_t reserved[4];
};

/* A reader's block. The position has a line to itself: the producer polls it when the ring is full.
 *
 *   0        position    everything below it has been read; stored with release once per batch
 *   8        epoch       bumped whenever a process takes the role; one that finds another epoch here has lost the role
 *  16..63    line pad
 *  64        mode        TP_READER_*
 *  68        pid         of the process that has or last had the role
 *  72        heartbeat   TSC of the last sign of life
 *  80        lost        messages never read: an observer was lapped, or chose to skip, or a reader was evicted
 *  88        name        up to 23 ASCII bytes, zero-filled
 * 112        start       when that process started, in clock ticks since boot
 * 120        base        lost minus position when a join began: one that died half way is redone from it, and counts nothing twice
 */
struct tp_reader {
    uint64_t position;
    uint64_t epoch;
    uint64_t line_pad[6];
    uint32_t mode;
    uint32_t pid;
    uint64_t heartbeat;
    uint64_t lost;
    uint8_t name[24];
    uint64_t start;
    uint64_t base;
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
