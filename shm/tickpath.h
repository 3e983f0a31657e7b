/* The ring for C and C++: one header to include, no library. C11 or C++17, gcc or clang, x86-64 Linux.
 *
 *     struct tp_producer_role out;                         struct tp_reader_role in;
 *     tp_open_producer(&out, "demo", NULL, &error);        tp_open_consumer(&in, "demo", "desk", NULL, &error);
 *
 *     void *slot = tp_claim(&out.end);                     const void *slot = tp_poll(&in.end);
 *     if (slot) { fill it from byte 8 on;                  if (slot) { read it;
 *                 tp_commit(&out.end); }                               tp_advance(&in.end); tp_release(&in.end); }
 *
 * Four parts: what a hop is made of (this file), a segment found, checked and mapped (tickpath_open.h), the roles
 * (tickpath_roles.h), and whatever waits (tickpath_wait.h). shm/examples has a program of each kind. A ring is created by Python,
 * shm.ring.Ring.create, which knows the record's schema; from then on a C program needs no Python.
 *
 * It is the protocol of shm/hot.py, name by name: any end of a ring may be a numba kernel, plain Python or C. The layout of
 * everything shared is in layout.h. `local` words are private to whoever holds the role; shm/README.md says what is promised.
 *
 * Nothing here wakes a sleeper: there is no such call in the protocol, so that a commit is one store. Who waits looks again, first
 * at once, then each time the scheduler comes round, then every TP_SLEEP_NS.
 */
#ifndef TICKPATH_H
#define TICKPATH_H

/* The locks of tickpath_open.h are behind this in libc. Where another header came first, compile with -D_GNU_SOURCE. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE
#endif

#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "layout.h"

#ifdef __cplusplus
extern "C" {
#endif

#define TP_GOT      0
#define TP_FULL    (-1)
#define TP_EMPTY   (-1)
#define TP_LAPPED  (-2)
#define TP_TOO_LONG (-3)

/* Words of `local`, as in shm/hot.py. */
enum { TP_POSITION = 0, TP_LIMIT = 1, TP_WAITS = 2, TP_EPOCH = 3, TP_DROPPED = 4, TP_FENCED = 5 };
enum { TP_LOST_FROM = 1, TP_LOST_NOW = 2, TP_LOST = 4, TP_PRODUCER_EPOCH_SEEN = 6, TP_LOCAL_WORDS = 8 };

/* The writing end. */
struct tp_producer_end {
    uint8_t *slots;
    uint64_t capacity;
    uint64_t slot_bytes;
    struct tp_reader *readers;
    uint64_t reader_count;
    struct tp_producer *block;
    uint64_t *local;
};

/* A reading end, of a gating reader or an observer. */
struct tp_reader_end {
    const uint8_t *slots;
    uint64_t capacity;
    uint64_t slot_bytes;
    const struct tp_producer *producer;
    struct tp_reader *block;
    uint64_t *local;
};

/* A hop makes no call, wherever it stands and however often; what a hop seldom needs stays out of its way. */
#define TP_HOT  static inline __attribute__((always_inline))
#define TP_COLD static __attribute__((noinline, cold, unused))

/* A test build dies after each store in turn: it says here what is to happen after one. */
#ifndef TP_AFTER_STORE
#define TP_AFTER_STORE()
#endif

/* Eight bytes of shared memory, whatever the struct is that a program sees them through. */
typedef uint64_t __attribute__((__may_alias__)) tp_word;

TP_HOT uint64_t tp_load_acquire(const void *word)
{
    return __atomic_load_n((const tp_word *)word, __ATOMIC_ACQUIRE);
}

TP_HOT uint64_t tp_load_relaxed(const void *word)
{
    return __atomic_load_n((const tp_word *)word, __ATOMIC_RELAXED);
}

TP_HOT void tp_store_release(void *word, uint64_t value)
{
    __atomic_store_n((tp_word *)word, value, __ATOMIC_RELEASE);
    TP_AFTER_STORE();
}

TP_HOT void tp_store_relaxed(void *word, uint64_t value)
{
    __atomic_store_n((tp_word *)word, value, __ATOMIC_RELAXED);
    TP_AFTER_STORE();
}

TP_HOT uint32_t tp_mode_of(const struct tp_reader *block)
{
    return __atomic_load_n(&block->mode, __ATOMIC_ACQUIRE);
}

static inline void tp_set_mode(struct tp_reader *block, uint32_t mode)
{
    __atomic_store_n(&block->mode, mode, __ATOMIC_RELEASE);
    TP_AFTER_STORE();
}

TP_HOT void tp_keep(uint64_t *local, int word, uint64_t value)
{
    local[word] = value;
    TP_AFTER_STORE();
}

TP_HOT void tp_pause(void)
{
    __builtin_ia32_pause();
}

/* How far position a is ahead of position b, even where one of them has wrapped. */
TP_HOT int64_t tp_ahead(uint64_t a, uint64_t b)
{
    return (int64_t)(a - b);
}

TP_HOT uint8_t *tp_slot_at(const uint8_t *slots, uint64_t capacity, uint64_t slot_bytes, uint64_t position)
{
    return (uint8_t *)(uintptr_t)slots + (position & (capacity - 1)) * slot_bytes;
}

/* The lowest position of the gating readers, or `position` where there is none. One that joins stands a whole lap behind. */
static inline uint64_t tp_slowest_reader(const struct tp_reader *readers, uint64_t count, uint64_t position, uint64_t capacity)
{
    int64_t furthest_behind = 0;
    for (uint64_t k = 0; k < count; k++) {
        uint32_t mode = tp_mode_of(&readers[k]);
        if (mode == TP_READER_JOINING)
            furthest_behind = (int64_t)capacity;
        if (mode != TP_READER_GATING)
            continue;
        /* SYNC POINT (tp_release's store): slots below this position have been read. */
        int64_t behind = tp_ahead(position, tp_load_acquire(&readers[k].position));
        if (behind > furthest_behind)
            furthest_behind = behind;
    }
    return position - (uint64_t)furthest_behind;
}

/* Move the cached limit to where the readers are now, and say whether slots below `wanted` are free. A producer whose role another
 * one has taken since is never given room again. */
TP_COLD int tp_ask_readers(struct tp_producer_end *end, uint64_t wanted)
{
    uint64_t *local = end->local;
    if (tp_load_acquire(&end->block->epoch) != local[TP_EPOCH]) {
        tp_keep(local, TP_FENCED, 1);
        return 0;
    }
    uint64_t position = local[TP_POSITION];
    tp_store_relaxed(&end->block->position, position);
    /* SYNC POINT (a joining reader): either this look sees it, or it sees the highest limit that this look may end with. */
    tp_store_relaxed(&end->block->limit, position + end->capacity);
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    uint64_t limit = tp_slowest_reader(end->readers, end->reader_count, position, end->capacity) + end->capacity;
    /* Room that was had once is never given back: a slot in it may have been begun, and a joining reader trusts the published limit. */
    if (tp_ahead(limit, local[TP_LIMIT]) < 0)
        limit = local[TP_LIMIT];
    tp_keep(local, TP_LIMIT, limit);
    tp_store_release(&end->block->limit, limit);
    if (tp_ahead(wanted, limit) <= 0)
        return 1;
    tp_keep(local, TP_WAITS, local[TP_WAITS] + 1);
    tp_store_relaxed(&end->block->waits, local[TP_WAITS]);
    return 0;
}

/* Whether `count` slots, at most the capacity, can be claimed in a row. */
TP_HOT int tp_has_room(struct tp_producer_end *end, uint64_t count)
{
    uint64_t wanted = end->local[TP_POSITION] + count;
    return tp_ahead(wanted, end->local[TP_LIMIT]) <= 0 || tp_ask_readers(end, wanted);
}

/* The next slot to fill from byte 8 on, marked as being written, or NULL where the ring is full. Nothing is visible until tp_commit. */
TP_HOT void *tp_claim(struct tp_producer_end *end)
{
    if (!tp_has_room(end, 1))
        return NULL;
    uint64_t position = end->local[TP_POSITION];
    uint8_t *slot = tp_slot_at(end->slots, end->capacity, end->slot_bytes, position);
    /* SYNC POINT (tp_observe's re-check): whoever copies payload written below this mark sees the mark or what comes after it. */
    tp_store_relaxed(slot, position);
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return slot;
}

/* Publish the slot that tp_claim returned. */
TP_HOT void tp_commit(struct tp_producer_end *end)
{
    uint64_t position = end->local[TP_POSITION];
    uint8_t *slot = tp_slot_at(end->slots, end->capacity, end->slot_bytes, position);
    tp_keep(end->local, TP_POSITION, position + 1);
    /* SYNC POINT (acquire in tp_poll and tp_observe): the payload is visible to whoever reads this sequence. */
    tp_store_release(slot, position + 1);
}

/* Count a message given up because the ring was full. */
static inline void tp_drop(struct tp_producer_end *end)
{
    tp_keep(end->local, TP_DROPPED, end->local[TP_DROPPED] + 1);
    tp_store_relaxed(&end->block->dropped, end->local[TP_DROPPED]);
}

/* The next unread slot, or NULL. It stays readable until tp_release gives it back. Gating readers only. */
TP_HOT const void *tp_poll(struct tp_reader_end *end)
{
    uint64_t position = end->local[TP_POSITION];
    const uint8_t *slot = tp_slot_at(end->slots, end->capacity, end->slot_bytes, position);
    /* SYNC POINT (tp_commit's release). */
    return tp_load_acquire(slot) == position + 1 ? slot : NULL;
}

/* Whether the next `count` messages, at most the capacity, are all readable: the last one is, and none is published before another. */
TP_HOT int tp_has_messages(const struct tp_reader_end *end, uint64_t count)
{
    uint64_t stop = end->local[TP_POSITION] + count;
    /* SYNC POINT (tp_commit's release). */
    return tp_load_acquire(tp_slot_at(end->slots, end->capacity, end->slot_bytes, stop - 1)) == stop;
}

/* Done with the slot that tp_poll returned; the producer learns of it at the next tp_release. */
TP_HOT void tp_advance(struct tp_reader_end *end)
{
    tp_keep(end->local, TP_POSITION, end->local[TP_POSITION] + 1);
}

/* Give everything read so far back to the producer, once per batch. A reader that was let go, or replaced, gives nothing back. */
TP_HOT void tp_release(struct tp_reader_end *end)
{
    if (tp_load_acquire(&end->block->epoch) != end->local[TP_EPOCH]) {
        tp_keep(end->local, TP_FENCED, 1);
        return;
    }
    /* SYNC POINT (tp_slowest_reader's acquire). */
    tp_store_release(&end->block->position, end->local[TP_POSITION]);
}

/* Whether another process has taken this end's role since: found by a producer at a full ring, by a reader at tp_release. */
static inline int tp_is_fenced(const uint64_t *local)
{
    return local[TP_FENCED] != 0;
}

/* The position after the newest published message at or after `start`, at most a lap away. `start` was published up to before. */
static inline uint64_t tp_published_to(const uint8_t *slots, uint64_t capacity, uint64_t slot_bytes, uint64_t start)
{
    uint64_t low = 0, high = capacity;
    while (low < high) {
        uint64_t middle = (low + high) >> 1, position = start + middle;
        if (tp_ahead(tp_load_acquire(tp_slot_at(slots, capacity, slot_bytes, position)), position + 1) >= 0)
            low = middle + 1;
        else
            high = middle;
    }
    return start + low;
}

/* A reader that becomes a gating one while the producer runs. Returns the limit that the producer may still write up to without
 * looking at the readers: what lies less than a lap below it, and above, is safe to read. The producer gets no room until the caller
 * has stored the position it begins at and called tp_gate. */
static inline uint64_t tp_join(const struct tp_producer *producer, struct tp_reader *block)
{
    tp_set_mode(block, TP_READER_JOINING);
    /* SYNC POINT (tp_ask_readers): either the producer's next look sees this reader, or the load below sees the highest limit that
     * the producer's last look may have ended with. */
    __atomic_thread_fence(__ATOMIC_SEQ_CST);
    return tp_load_acquire(&producer->limit);
}

/* The end of a join: from now on the producer waits for this reader, at `position`. */
static inline void tp_gate(struct tp_reader *block, uint64_t position)
{
    /* SYNC POINT (tp_slowest_reader's acquire): a look that began before this reader last left may meet this position under that mode. */
    tp_store_release(&block->position, position);
    /* SYNC POINT (tp_slowest_reader's acquire): whoever sees the mode sees the position. */
    tp_set_mode(block, TP_READER_GATING);
}

/* Leave the next `count` messages unread, and account for them as lost. */
static inline void tp_skip(struct tp_reader_end *end, uint64_t count)
{
    uint64_t *local = end->local;
    tp_keep(local, TP_LOST_FROM, local[TP_POSITION]);
    tp_keep(local, TP_LOST_NOW, count);
    tp_keep(local, TP_LOST, local[TP_LOST] + count);
    tp_keep(local, TP_POSITION, local[TP_POSITION] + count);
    tp_store_relaxed(&end->block->lost, local[TP_LOST]);
}

/* Go on to the newest message where more than one waits, and return how many were skipped. For gating readers and observers. */
static inline uint64_t tp_conflate(struct tp_reader_end *end)
{
    uint64_t position = end->local[TP_POSITION], known = tp_load_acquire(&end->producer->position);
    uint64_t start = tp_ahead(known, position) > 0 ? known : position;
    uint64_t waiting = tp_published_to(end->slots, end->capacity, end->slot_bytes, start) - position;
    if (waiting < 2)
        return 0;
    tp_skip(end, waiting - 1);
    return waiting - 1;
}

/* How far from what is overwritten next a lapped observer goes on. */
static inline uint64_t tp_headroom(uint64_t capacity)
{
    return capacity >> 2 ? capacity >> 2 : 1;
}

/* An observer was overtaken: go on a quarter of the ring ahead of what is overwritten next, and account for what is lost.
 * 0 where the slot holds no sequence that a producer stores there: somebody scribbled on it, and there is nothing to go on to. */
TP_COLD int tp_lap(struct tp_reader_end *end, uint64_t sequence)
{
    uint64_t position = end->local[TP_POSITION];
    if (((sequence - position) & (end->capacity - 1)) > 1)
        return 0;
    uint64_t newest = tp_published_to(end->slots, end->capacity, end->slot_bytes, sequence);
    int64_t missed = tp_ahead(newest - end->capacity + tp_headroom(end->capacity), position);
    if (missed <= 0)
        return 0;
    tp_skip(end, (uint64_t)missed);
    return 1;
}

/* Copy `bytes` (whole 8-byte words) that may change meanwhile: word by word, so that the race is one the language allows. */
TP_HOT void tp_copy_racing(void *to, const void *from, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = tp_load_relaxed((const uint8_t *)from + i);
        memcpy((uint8_t *)to + i, &word, 8);
    }
}

/* The same for whoever writes what others may copy meanwhile. The last word is filled up with zeros. */
TP_HOT void tp_write_racing(void *to, const void *from, uint64_t bytes)
{
    for (uint64_t i = 0; i < bytes; i += 8) {
        uint64_t word = 0;
        memcpy(&word, (const uint8_t *)from + i, bytes - i < 8 ? bytes - i : 8);
        tp_store_relaxed((uint8_t *)to + i, word);
    }
}

/* Copy the next message, slot_bytes of it, and go on: TP_GOT, TP_EMPTY, or TP_LAPPED where messages were overwritten before they
 * were read: local[TP_LOST_NOW] of them from position local[TP_LOST_FROM] on. For observers. */
TP_HOT int tp_observe(struct tp_reader_end *end, void *copy)
{
    uint64_t position = end->local[TP_POSITION], wanted = position + 1;
    const uint8_t *slot = tp_slot_at(end->slots, end->capacity, end->slot_bytes, position);
    /* SYNC POINT (tp_commit's release). */
    uint64_t sequence = tp_load_acquire(slot);
    if (sequence == wanted) {
        tp_copy_racing(copy, slot, end->slot_bytes);
        /* SYNC POINT (tp_claim's mark): whoever copied what was written below a newer mark sees that mark here. */
        __atomic_thread_fence(__ATOMIC_ACQUIRE);
        sequence = tp_load_acquire(slot);
        if (sequence == wanted) {
            tp_keep(end->local, TP_POSITION, wanted);
            return TP_GOT;
        }
    }
    return tp_ahead(sequence, wanted) < 0 || !tp_lap(end, sequence) ? TP_EMPTY : TP_LAPPED;
}

/* How many times a producer has taken the ring over since this reader last asked. It reads the producer's line: ask when idle. */
static inline uint64_t tp_restarts(struct tp_reader_end *end)
{
    uint64_t epoch = tp_load_acquire(&end->producer->epoch), news = epoch - end->local[TP_PRODUCER_EPOCH_SEEN];
    tp_keep(end->local, TP_PRODUCER_EPOCH_SEEN, epoch);
    return news;
}

/* Sign of life, as the TSC: what tells a process that hangs from one that is idle. One that has begun to beat goes on, a few times a
 * second at least; while it waits (tickpath_wait.h) that is done for it. One that never beats is never called hung. */
static inline void tp_producer_beat(struct tp_producer_end *end)
{
    tp_store_relaxed(&end->block->heartbeat, __builtin_ia32_rdtsc());
}

static inline void tp_reader_beat(struct tp_reader_end *end)
{
    tp_store_relaxed(&end->block->heartbeat, __builtin_ia32_rdtsc());
}

/* Begin to overwrite a board line, whose first word is its version, and return what tp_board_close needs. */
TP_HOT uint64_t tp_board_open(void *line)
{
    uint64_t version = tp_load_acquire(line) & ~(uint64_t)1;
    tp_store_relaxed(line, version + 1);
    /* SYNC POINT (tp_board_read's second look). */
    __atomic_thread_fence(__ATOMIC_RELEASE);
    return version;
}

/* Publish what was written since tp_board_open returned `version`. */
TP_HOT void tp_board_close(void *line, uint64_t version)
{
    tp_store_release(line, version + 2);
}

/* Copy a board line of `bytes` and return its version: 0 if it was never written, -1 if the writer was at it. */
TP_HOT int64_t tp_board_read(const void *line, void *copy, uint64_t bytes)
{
    uint64_t version = tp_load_acquire(line);
    if (version & 1)
        return -1;
    tp_copy_racing(copy, line, bytes);
    __atomic_thread_fence(__ATOMIC_ACQUIRE);
    return tp_load_acquire(line) == version ? (int64_t)version : -1;
}

#ifdef __cplusplus
}
#endif

#include "tickpath_open.h"
#include "tickpath_roles.h"
#include "tickpath_wait.h"

#endif
