/* tickpath.h as functions that Python calls.
 *
 * A call costs some 60 ns with one argument and 100 ns with two (the interpreter's share), so a message goes by way of a staged record
 * or a row whose address is known beforehand. cffi lets the GIL go around every call. A wait is bounded, so that the interpreter is
 * back every few milliseconds to see to its signals.
 */

#include <sched.h>
#include <time.h>
#include <x86intrin.h>

#include "tickpath.h"
#include "face.h"

/* Some 0.4 ms: what tells a process that hangs from one that is idle need not be newer. */
#define TP_FACE_BEAT_TICKS   (1 << 20)
#define TP_FACE_LOOKS        64
#define TP_FACE_YIELD_NS     500000
#define TP_FACE_SLEEP_NS     50000
/* Some 0.5 ms: a writer is at a line for much less, unless it has died there. */
#define TP_FACE_BOARD_LOOKS  10000

/* Where a closed end looks: an epoch that it does not have. */
static uint64_t tp_face_nothing[TP_BLOCK_BYTES / 8];

uint64_t tp_face_published_to(uintptr_t slots, uint64_t capacity, uint64_t slot_bytes, uint64_t start)
{
    return tp_published_to((const uint8_t *)slots, capacity, slot_bytes, start);
}

uint64_t tp_face_join(uintptr_t producer, uintptr_t reader)
{
    return tp_join((const struct tp_producer *)producer, (struct tp_reader *)reader);
}

void tp_face_gate(uintptr_t reader, uint64_t position)
{
    tp_gate((struct tp_reader *)reader, position);
}

static inline struct tp_producer_end producer_end(const struct tp_face *face)
{
    return (struct tp_producer_end){(uint8_t *)face->slots,       face->capacity,     face->slot_bytes,
                                    (struct tp_reader *)face->readers, face->reader_count, (struct tp_producer *)face->block,
                                    (uint64_t *)face->local};
}

static inline struct tp_reader_end reader_end(const struct tp_face *face)
{
    return (struct tp_reader_end){(const uint8_t *)face->slots, face->capacity, face->slot_bytes,
                                  (const struct tp_producer *)face->producer, (struct tp_reader *)face->block, (uint64_t *)face->local};
}

static inline uint64_t *local_of(const struct tp_face *face)
{
    return (uint64_t *)face->local;
}

/* The size of most slots is worth a branch: the compiler copies a line in four moves. */
static inline void copy_slot(void *to, const void *from, uint64_t bytes)
{
    if (bytes == TP_LINE_BYTES)
        memcpy(to, from, TP_LINE_BYTES);
    else
        memcpy(to, from, bytes);
}

/* An observer may be copying what is overwritten here. */
static inline void write_payload(uint8_t *slot, const void *from, uint64_t slot_bytes)
{
    if (slot_bytes == TP_LINE_BYTES)
        tp_write_racing(slot + 8, from, TP_LINE_BYTES - 8);
    else
        tp_write_racing(slot + 8, from, slot_bytes - 8);
}

static inline void beat(struct tp_face *face)
{
    uint64_t now = __rdtsc();
    if (now - face->beaten < TP_FACE_BEAT_TICKS)
        return;
    face->beaten = now;
    uint64_t *heartbeat = face->kind == TP_FACE_WRITES ? &((struct tp_producer *)face->block)->heartbeat
                                                       : &((struct tp_reader *)face->block)->heartbeat;
    /* Only for a program that beats: one that has nothing to say for a second does not hang. */
    if (__atomic_load_n(heartbeat, __ATOMIC_RELAXED))
        __atomic_store_n(heartbeat, now, __ATOMIC_RELAXED);
}

static inline uint64_t now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000 + (uint64_t)now.tv_nsec;
}

/* Ask `ready` until it says something, for `ns` at most: spinning at first, then leaving the core to others, then asleep.
 * TP_FACE_EMPTY where it did not. */
static inline int wait_until(struct tp_face *face, uint64_t ns, int (*ready)(const struct tp_face *))
{
    uint64_t began = now_ns(), waited = 0;
    do {
        for (int look = 0; look < TP_FACE_LOOKS; look++) {
            int answer = ready(face);
            if (answer != TP_FACE_EMPTY) {
                face->idle_ns = 0;
                return answer;
            }
            tp_pause();
        }
        waited = now_ns() - began;
        beat(face);
        uint64_t idle = face->idle_ns + waited;
        if (idle < face->spin_ns)
            continue;
        if (idle - face->spin_ns < TP_FACE_YIELD_NS)
            sched_yield();
        else
            nanosleep(&(struct timespec){0, TP_FACE_SLEEP_NS}, NULL);
    } while (waited < ns);
    face->idle_ns += waited;
    return TP_FACE_EMPTY;
}

/* The writing end. */

int tp_face_push(struct tp_face *face)
{
    struct tp_producer_end end = producer_end(face);
    uint8_t *slot = tp_claim(&end);
    if (!slot)
        return 0;
    write_payload(slot, (const uint8_t *)face->stage + 8, face->slot_bytes);
    tp_commit(&end);
    beat(face);
    return 1;
}

uint64_t tp_face_push_many(struct tp_face *face, const char *rows, uint64_t row_bytes, uint64_t count)
{
    struct tp_producer_end end = producer_end(face);
    const char *from = rows + (row_bytes - (face->slot_bytes - 8));
    uint64_t done = 0;
    for (; done < count; done++, from += row_bytes) {
        uint8_t *slot = tp_claim(&end);
        if (!slot)
            break;
        write_payload(slot, from, face->slot_bytes);
        tp_commit(&end);
    }
    beat(face);
    return done;
}

/* Without asking as a claim does, which counts every time that there is no room. */
static int has_room_now(const struct tp_face *face)
{
    struct tp_producer_end end = producer_end(face);
    if (tp_load_acquire(&end.block->epoch) != end.local[TP_EPOCH])
        return TP_FACE_REFUSED;
    uint64_t position = end.local[TP_POSITION];
    uint64_t limit = tp_slowest_reader(end.readers, end.reader_count, position, end.capacity) + end.capacity;
    return tp_ahead(position + 1, limit) <= 0 ? 1 : TP_FACE_EMPTY;
}

int tp_face_await_room(struct tp_face *face, uint64_t ns)
{
    return wait_until(face, ns, has_room_now);
}

void tp_face_drop(struct tp_face *face, uint64_t count)
{
    struct tp_producer_end end = producer_end(face);
    end.local[TP_DROPPED] += count - 1;
    tp_drop(&end);
}

/* The reading ends. */

/* What has been read goes back, where there is something; 0: the role is lost. */
static inline int give_back(struct tp_reader_end *end)
{
    if (end->block->epoch != end->local[TP_EPOCH] || end->block->position != end->local[TP_POSITION])
        tp_release(end);
    return !tp_is_fenced(end->local);
}

static void note_lost(struct tp_face *face)
{
    const uint64_t *local = local_of(face);
    if (face->pending == 0)
        face->pending_from = local[TP_LOST_FROM];
    face->pending += local[TP_LOST_NOW];
}

/* What the call before has read goes back, and what it told of losses is forgotten. */
static inline int turn_page(struct tp_face *face, struct tp_reader_end *end)
{
    if (!give_back(end))
        return 0;
    beat(face);
    face->lost_now = 0;
    return 1;
}

/* The first message of a call tells what is missing before it. */
static inline void tell_lost(struct tp_face *face)
{
    face->lost_now = face->pending;
    face->lost_from = face->pending_from;
    face->pending = 0;
}

/* The next message, the whole slot, into `to`: TP_GOT, TP_EMPTY or TP_LAPPED. */
static inline int take(const struct tp_face *face, struct tp_reader_end *end, void *to)
{
    if (face->kind == TP_FACE_OBSERVES)
        return tp_observe(end, to);
    const void *slot = tp_poll(end);
    if (!slot)
        return TP_EMPTY;
    copy_slot(to, slot, face->slot_bytes);
    tp_advance(end);
    return TP_GOT;
}

/* As `take`; an observer that was lapped goes on with what is there. */
static inline int take_first(struct tp_face *face, struct tp_reader_end *end, void *to)
{
    int answer;
    while ((answer = take(face, end, to)) == TP_LAPPED)
        note_lost(face);
    if (answer == TP_GOT)
        tell_lost(face);
    return answer;
}

static inline int take_one(struct tp_face *face, void *to)
{
    struct tp_reader_end end = reader_end(face);
    if (!turn_page(face, &end))
        return TP_FACE_REFUSED;
    return take_first(face, &end, to) == TP_GOT ? 1 : TP_FACE_EMPTY;
}

int tp_face_poll(struct tp_face *face)
{
    if (face->row == face->row_count)
        return TP_FACE_USED_UP;
    int got = take_one(face, (uint8_t *)face->rows + face->row * face->slot_bytes);
    return got == 1 ? (int)face->row++ : got;
}

int tp_face_poll_stage(struct tp_face *face)
{
    return take_one(face, (void *)face->stage);
}

int64_t tp_face_poll_many(struct tp_face *face, char *rows, uint64_t row_bytes, uint64_t count)
{
    struct tp_reader_end end = reader_end(face);
    if (!turn_page(face, &end))
        return TP_FACE_REFUSED;
    int whole = row_bytes == face->slot_bytes;
    int answer = TP_GOT;
    uint64_t done = 0;
    for (; done < count; done++, rows += row_bytes) {
        void *to = whole ? rows : (void *)face->stage;
        answer = done == 0 ? take_first(face, &end, to) : take(face, &end, to);
        if (answer != TP_GOT)
            break;
        if (!whole)
            memcpy(rows, (const uint8_t *)face->stage + 8, row_bytes);
    }
    if (answer == TP_LAPPED)
        note_lost(face);
    return (int64_t)done;
}

static int has_news(const struct tp_face *face)
{
    struct tp_reader_end end = reader_end(face);
    if (tp_load_acquire(&end.block->epoch) != end.local[TP_EPOCH])
        return TP_FACE_REFUSED;
    uint64_t position = end.local[TP_POSITION];
    uint64_t sequence = tp_load_acquire(tp_slot_at(end.slots, end.capacity, end.slot_bytes, position));
    return tp_ahead(sequence, position + 1) >= 0 ? 1 : TP_FACE_EMPTY;
}

int tp_face_poll_within(struct tp_face *face, uint64_t ns)
{
    return wait_until(face, ns, has_news) == TP_FACE_EMPTY ? TP_FACE_EMPTY : tp_face_poll(face);
}

int tp_face_poll_stage_within(struct tp_face *face, uint64_t ns)
{
    return wait_until(face, ns, has_news) == TP_FACE_EMPTY ? TP_FACE_EMPTY : tp_face_poll_stage(face);
}

int tp_face_await(struct tp_face *face, uint64_t ns)
{
    return wait_until(face, ns, has_news);
}

int tp_face_release(struct tp_face *face)
{
    struct tp_reader_end end = reader_end(face);
    return give_back(&end);
}

uint64_t tp_face_conflate(struct tp_face *face)
{
    struct tp_reader_end end = reader_end(face);
    uint64_t skipped = tp_conflate(&end);
    if (skipped)
        note_lost(face);
    return skipped;
}

uint64_t tp_face_restarts(struct tp_face *face)
{
    struct tp_reader_end end = reader_end(face);
    return tp_restarts(&end);
}

uint64_t tp_face_backlog(struct tp_face *face)
{
    struct tp_reader_end end = reader_end(face);
    uint64_t position = end.local[TP_POSITION], known = tp_load_acquire(&end.producer->position);
    uint64_t start = tp_ahead(known, position) > 0 ? known : position;
    return tp_published_to(end.slots, end.capacity, end.slot_bytes, start) - position;
}

/* Either end. */

int tp_face_is_fenced(struct tp_face *face)
{
    return tp_is_fenced(local_of(face));
}

void tp_face_close(struct tp_face *face)
{
    uint64_t *local = local_of(face);
    local[TP_EPOCH] = ~(uint64_t)0;
    if (face->kind == TP_FACE_WRITES)
        local[TP_LIMIT] = local[TP_POSITION];
    face->slots = face->readers = face->producer = face->block = (uint64_t)(uintptr_t)tp_face_nothing;
    face->capacity = 1;
    face->reader_count = 0;
}

/* Boards. */

void tp_face_board_write(uintptr_t line, const char *record, uint64_t bytes)
{
    uint64_t version = tp_board_open((void *)line);
    tp_write_racing((uint8_t *)line + 8, record + 8, bytes - 8);
    tp_board_close((void *)line, version);
}

int tp_face_board_read(uintptr_t line, char *copy, uint64_t bytes)
{
    for (int look = 0; look < TP_FACE_BOARD_LOOKS; look++) {
        int64_t version = tp_board_read((const void *)line, copy, bytes);
        if (version >= 0)
            return version > 0;
        tp_pause();
    }
    return 0;
}
