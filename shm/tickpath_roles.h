/* The roles of a ring. Included by tickpath.h; nothing here is on a hop's path.
 *
 *     tp_open_producer        the writing end: goes on where the slots show that the last one stopped
 *     tp_open_consumer        a registered gating reader, by name: goes on at what it last gave back, so what was not comes again
 *     tp_open_joining         a gating reader of any name, in a spare block
 *     tp_open_observer        never waited for; without a name it maps everything read-only and anyone may be one
 *
 * One process at a time holds a role, by a lock that the kernel frees when that process dies. A role opens the ring for itself, since
 * the lock belongs to its descriptor: do not share one with a forked child. A role must not be moved or copied: its end points into it.
 */
#ifndef TICKPATH_ROLES_H
#define TICKPATH_ROLES_H

#include <stdlib.h>

#ifdef __cplusplus
extern "C" {
#endif

#define TP_JOIN_BYTE     1
#define TP_JOIN_WAIT_NS  5000000000u

/* Where a reader begins: where it stood, at the next message, at the oldest that is still there, or at a position. */
enum tp_start { TP_RESUME, TP_NEWEST, TP_OLDEST, TP_AT };

/* Both files of a ring. */
struct tp_ring {
    char name[TP_NAME_BYTES_MAX + 1];
    struct tp_segment slots;
    struct tp_segment cursors;
};

/* `words` is the end's `local`, in lines of its own. */
struct tp_producer_role {
    struct tp_producer_end end;
    struct tp_ring ring;
    uint64_t pad_before[8];
    uint64_t words[TP_LOCAL_WORDS];
    uint64_t pad_after[8];
};

/* `private_block` stands for the block of an observer that has none. */
struct tp_reader_role {
    struct tp_reader_end end;
    struct tp_ring ring;
    uint64_t pad_before[8];
    uint64_t words[TP_LOCAL_WORDS];
    uint64_t pad_after[8];
    struct tp_reader private_block;
};

/* The ring */

/* Nothing happens to one that is closed, or all zeros. Its end must not be used any more. */
static inline void tp_ring_close(struct tp_ring *ring)
{
    if (ring->slots.memory == NULL)
        return;
    tp_segment_close(&ring->slots);
    tp_segment_close(&ring->cursors);
}

/* The two files must be of one life: a cleaner may have come between them. Slots are removed first and made last, so slots that still
 * have their name have the cursors that were opened after them. */
static inline int tp_check_pair(const struct tp_ring *ring, struct tp_error *error)
{
    const struct tp_identity *slots = &ring->slots.identity, *cursors = &ring->cursors.identity;
    if (cursors->readers != slots->readers || cursors->build_hash != slots->build_hash || cursors->creator_pid != slots->creator_pid ||
        cursors->creator_start != slots->creator_start || cursors->created_ns != slots->created_ns)
        return tp_fail(error, EPROTO, "ring=%s: its cursors have readers=%u created_ns=%llu, expected %u and %llu: of another ring",
                       ring->name, cursors->readers, (unsigned long long)cursors->created_ns, slots->readers,
                       (unsigned long long)slots->created_ns);
    if (!tp_is_linked(ring->slots.fd) || !tp_is_linked(ring->cursors.fd))
        return tp_fail(error, EAGAIN, "ring=%s: it was removed this moment", ring->name);
    return 0;
}

static inline int tp_ring_open(struct tp_ring *ring, const char *name, int write_slots, int write_cursors, const struct tp_expect *expect,
                               struct tp_error *error)
{
    const struct tp_expect blocks = {TP_BLOCK_BYTES, 0, 0};
    char cursors[sizeof ring->name + sizeof ".cursors"];
    ring->cursors.memory = NULL;
    ring->cursors.fd = -1;
    int problem = tp_segment_open(&ring->slots, name, TP_KIND_RING, write_slots, expect, error);
    if (problem)
        return problem;
    strcpy(ring->name, name);
    snprintf(cursors, sizeof cursors, "%s.cursors", name);
    problem = tp_segment_open(&ring->cursors, cursors, TP_KIND_CURSORS, write_cursors, &blocks, error);
    if (!problem)
        problem = tp_check_pair(ring, error);
    if (problem)
        tp_ring_close(ring);
    return problem;
}

static inline uint8_t *tp_ring_slots(const struct tp_ring *ring)
{
    return ring->slots.memory + TP_DATA_OFFSET;
}

static inline struct tp_producer *tp_ring_producer(const struct tp_ring *ring)
{
    return (struct tp_producer *)(void *)(ring->cursors.memory + TP_DATA_OFFSET);
}

static inline struct tp_reader *tp_ring_readers(const struct tp_ring *ring)
{
    return (struct tp_reader *)(void *)(ring->cursors.memory + TP_DATA_OFFSET + TP_BLOCK_BYTES);
}

/* The position after the newest published message, as far as the slots show after `start`. */
static inline uint64_t tp_ring_published_to(const struct tp_ring *ring, uint64_t start)
{
    return tp_published_to(tp_ring_slots(ring), ring->slots.identity.capacity, ring->slots.identity.record_bytes, start);
}

static inline uint64_t tp_ring_newest(const struct tp_ring *ring)
{
    return tp_ring_published_to(ring, tp_load_acquire(&tp_ring_producer(ring)->position));
}

/* The position that `start` stands for: nowhere past the newest message, nowhere before the ring's first. */
static inline uint64_t tp_ring_wanted(const struct tp_ring *ring, uint64_t oldest, uint64_t newest, enum tp_start start, uint64_t position)
{
    uint64_t first = ring->slots.identity.first_position;
    if (start != TP_AT)
        position = start == TP_OLDEST ? oldest : newest;
    if (tp_ahead(position, newest) > 0)
        position = newest;
    return tp_ahead(position, first) < 0 ? first : position;
}

/* Roles */

/* The byte of the cursor file that the holder of a block locks: the block's first. Block 0 is the producer's. */
static inline uint64_t tp_role_byte(uint64_t block)
{
    return TP_DATA_OFFSET + block * TP_BLOCK_BYTES;
}

static inline void tp_read_line(const char *path, char *line, size_t bytes)
{
    line[0] = '\0';
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0)
        return;
    ssize_t got = read(fd, line, bytes - 1);
    line[got > 0 ? got : 0] = '\0';
    line[strcspn(line, "\n")] = '\0';
    close(fd);
}

/* When this process started, in clock ticks since boot: the 22nd word of its stat line, whose second, in brackets, is its name. */
static inline uint64_t tp_own_start(void)
{
    char line[1024];
    tp_read_line("/proc/self/stat", line, sizeof line);
    const char *at = strrchr(line, ')');
    for (int word = 2; at != NULL && word < 22; word++)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

static inline int tp_lock_role(const struct tp_ring *ring, uint64_t block, const char *kind, const char *title, const uint32_t *pid,
                               struct tp_error *error)
{
    if (tp_lock_byte(ring->cursors.fd, tp_role_byte(block), F_WRLCK))
        return 0;
    char path[64], name[64];
    uint32_t owner = __atomic_load_n(pid, __ATOMIC_RELAXED);
    snprintf(path, sizeof path, "/proc/%u/comm", owner);
    tp_read_line(path, name, sizeof name);
    return tp_fail(error, EBUSY, "%s%.30s of ring %.100s is taken by pid %u (%s): there is one at a time; stop that one, or use another",
                   kind, title, ring->name, owner, name[0] ? name : "not to be seen from here");
}

/* Begin a new epoch under this process' name: an end that somebody still holds from before finds out that it is no longer the one. */
static inline void tp_introduce(uint32_t *pid, uint64_t *start, uint64_t *epoch, uint64_t *heartbeat, uint64_t *local)
{
    tp_store_relaxed(heartbeat, 0);
    __atomic_store_n(pid, (uint32_t)getpid(), __ATOMIC_RELAXED);
    TP_AFTER_STORE();
    tp_store_relaxed(start, tp_own_start());
    tp_keep(local, TP_EPOCH, tp_load_acquire(epoch) + 1);
    tp_store_release(epoch, local[TP_EPOCH]);
}

/* A name as a block has it: at most 23 bytes, zero-filled. */
static inline void tp_store_name(uint8_t *to, const char *name)
{
    char padded[24];
    memset(padded, 0, sizeof padded);
    memcpy(padded, name, strnlen(name, sizeof padded - 1));
    tp_write_racing(to, padded, sizeof padded);
}

static inline int tp_has_name(const struct tp_reader *block, const char *name)
{
    char have[25];
    tp_copy_racing(have, block->name, 24);
    have[24] = '\0';
    return strcmp(have, name) == 0;
}

/* Whether a block stands for a reader that the producer waits for, or would if it came back. */
static inline int tp_is_gating_mode(uint32_t mode)
{
    return mode == TP_READER_GATING || mode == TP_READER_EVICTED || mode == TP_READER_JOINING;
}

/* Producer */

/* Take the writing end of ring `name`. EBUSY, naming the owner, where another process has it. */
static inline int tp_open_producer(struct tp_producer_role *role, const char *name, const struct tp_expect *expect, struct tp_error *error)
{
    struct tp_ring *ring = &role->ring;
    memset(role, 0, sizeof *role);
    int problem = tp_ring_open(ring, name, 1, 1, expect, error);
    if (problem)
        return problem;
    struct tp_producer *block = tp_ring_producer(ring);
    problem = tp_lock_role(ring, 0, "", "producer", &block->pid, error);
    if (problem) {
        tp_ring_close(ring);
        return problem;
    }
    char program[24];
    tp_read_line("/proc/self/comm", program, sizeof program);
    tp_store_name(block->name, program);
    tp_introduce(&block->pid, &block->start, &block->epoch, &block->heartbeat, role->words);
    /* A slot that the last one died in is this one's to write: its mark says that there was room for it. */
    uint64_t newest = tp_ring_newest(ring), capacity = ring->slots.identity.capacity, bytes = ring->slots.identity.record_bytes;
    int is_begun = tp_load_acquire(tp_slot_at(tp_ring_slots(ring), capacity, bytes, newest)) == newest;
    role->words[TP_POSITION] = newest;
    role->words[TP_LIMIT] = newest + (uint64_t)is_begun;
    role->words[TP_WAITS] = tp_load_acquire(&block->waits);
    role->words[TP_DROPPED] = tp_load_acquire(&block->dropped);
    role->end.slots = tp_ring_slots(ring);
    role->end.capacity = capacity;
    role->end.slot_bytes = bytes;
    role->end.readers = tp_ring_readers(ring);
    role->end.reader_count = ring->slots.identity.readers;
    role->end.block = block;
    role->end.local = role->words;
    return 0;
}

/* Give the role back; what was published stays readable. */
static inline void tp_close_producer(struct tp_producer_role *role)
{
    tp_ring_close(&role->ring);
}

/* Whether the producer has no room because of this reader. */
static inline int tp_holds_back(const struct tp_producer_end *end, const struct tp_reader *block)
{
    uint32_t mode = tp_mode_of(block);
    int64_t behind = tp_ahead(end->local[TP_POSITION], tp_load_acquire(&block->position));
    return mode == TP_READER_JOINING || (mode == TP_READER_GATING && behind >= (int64_t)end->capacity);
}

/* Let one reader go if it holds the ring up and its process is dead. Its lock is held meanwhile, so a reader that returns at this moment
 * comes before or after; what it was before the lock was had is looked at again. */
static inline int tp_evict_if_dead(struct tp_producer_role *role, uint64_t reader)
{
    struct tp_reader *block = &role->end.readers[reader];
    if (!tp_holds_back(&role->end, block) || !tp_lock_byte(role->ring.cursors.fd, tp_role_byte(1 + reader), F_WRLCK))
        return 0;
    int is_dead_weight = tp_holds_back(&role->end, block);
    if (is_dead_weight) {
        /* One that died while it joined has stored its losses and its position, or one of them: the sum is made whole. */
        if (tp_mode_of(block) == TP_READER_JOINING)
            tp_store_relaxed(&block->lost, tp_load_acquire(&block->base) + tp_load_acquire(&block->position));
        tp_store_release(&block->epoch, tp_load_acquire(&block->epoch) + 1);
        tp_set_mode(block, TP_READER_EVICTED);
        tp_store_relaxed(&role->end.block->evicted, tp_load_acquire(&role->end.block->evicted) + 1);
    }
    tp_lock_byte(role->ring.cursors.fd, tp_role_byte(1 + reader), F_UNLCK);
    return is_dead_weight;
}

/* Let every dead reader go that holds a full ring up, and return how many. One that merely hangs holds its lock, may be inside a slot, and
 * is left alone. */
static inline uint64_t tp_evict_dead(struct tp_producer_role *role)
{
    uint64_t gone = 0;
    for (uint64_t reader = 0; reader < role->end.reader_count; reader++)
        gone += (uint64_t)tp_evict_if_dead(role, reader);
    return gone;
}

/* Readers */

static inline void tp_reader_end_of(struct tp_reader_role *role, struct tp_reader *block, uint64_t position)
{
    const struct tp_ring *ring = &role->ring;
    role->words[TP_POSITION] = position;
    role->words[TP_PRODUCER_EPOCH_SEEN] = tp_load_acquire(&tp_ring_producer(ring)->epoch);
    role->end.slots = tp_ring_slots(ring);
    role->end.capacity = ring->slots.identity.capacity;
    role->end.slot_bytes = ring->slots.identity.record_bytes;
    role->end.producer = tp_ring_producer(ring);
    role->end.block = block;
    role->end.local = role->words;
}

/* Begin to gate while the producer runs, at the block's position or as near to it as is still there. `lost` is the same sum however often
 * a join was begun: what is counted twice in a crash is not a count. */
static inline uint64_t tp_begin_gating(struct tp_reader_role *role, struct tp_reader *block, int counts)
{
    const struct tp_ring *ring = &role->ring;
    uint64_t stood = tp_load_acquire(&block->position);
    uint64_t oldest = tp_join(tp_ring_producer(ring), block) - ring->slots.identity.capacity;
    uint64_t position = tp_ring_wanted(ring, oldest, tp_ring_newest(ring), TP_AT, stood);
    /* The oldest has the last word: what lies before it may be overwritten at any time. */
    if (tp_ahead(position, oldest) < 0)
        position = oldest;
    role->words[TP_LOST_FROM] = stood;
    role->words[TP_LOST_NOW] = position - stood;
    role->words[TP_LOST] = counts ? tp_load_acquire(&block->base) + position : 0;
    tp_store_relaxed(&block->lost, role->words[TP_LOST]);
    tp_gate(block, position);
    return position;
}

/* The role of a block that is locked: from where it stood where it gates still, else as one that joins. One that died half way through
 * joining left what it began with. */
static inline void tp_take_reader(struct tp_reader_role *role, struct tp_reader *block, int counts)
{
    tp_introduce(&block->pid, &block->start, &block->epoch, &block->heartbeat, role->words);
    uint64_t position = tp_load_acquire(&block->position);
    uint32_t mode = tp_mode_of(block);
    if (mode == TP_READER_EVICTED || mode == TP_READER_ABSENT)
        tp_store_relaxed(&block->base, tp_load_acquire(&block->lost) - position);
    role->words[TP_LOST] = tp_load_acquire(&block->lost);
    if (mode != TP_READER_GATING)
        position = tp_begin_gating(role, block, counts);
    tp_reader_end_of(role, block, position);
}

/* The number of the block that stands for `name`, or the count of blocks where none does. */
static inline uint64_t tp_find_reader(const struct tp_ring *ring, const char *name, int gating)
{
    uint64_t count = ring->slots.identity.readers, k = 0;
    for (; k < count; k++) {
        const struct tp_reader *block = &tp_ring_readers(ring)[k];
        uint32_t mode = tp_mode_of(block);
        if ((gating ? tp_is_gating_mode(mode) : mode == TP_READER_OBSERVER) && tp_has_name(block, name))
            break;
    }
    return k;
}

/* Find and lock the block of reader `name`; once it is locked nobody else changes what it stands for, so that is looked at again. */
static inline int tp_lock_reader(struct tp_reader_role *role, const char *name, int gating, uint64_t *found, struct tp_error *error)
{
    const struct tp_ring *ring = &role->ring;
    *found = tp_find_reader(ring, name, gating);
    if (*found == ring->slots.identity.readers)
        return tp_fail(error, ENOENT, "reader=%.40s of ring %.100s: expected the name of %s", name, ring->name,
                       gating ? "a gating reader" : "a registered observer");
    int problem = tp_lock_role(ring, 1 + *found, gating ? "reader " : "observer ", name, &tp_ring_readers(ring)[*found].pid, error);
    if (!problem && tp_find_reader(ring, name, gating) != *found)
        problem = tp_fail(error, EAGAIN, "reader=%.40s of ring %.100s: it left this moment", name, ring->name);
    return problem;
}

/* Take the end of registered gating reader `reader`. ENOENT for another name; EBUSY, naming the owner, where another process has it. */
static inline int tp_open_consumer(struct tp_reader_role *role, const char *name, const char *reader, const struct tp_expect *expect,
                                 struct tp_error *error)
{
    uint64_t found = 0;
    memset(role, 0, sizeof *role);
    int problem = tp_ring_open(&role->ring, name, 0, 1, expect, error);
    if (problem)
        return problem;
    problem = tp_lock_reader(role, reader, 1, &found, error);
    if (problem)
        tp_ring_close(&role->ring);
    else
        tp_take_reader(role, &tp_ring_readers(&role->ring)[found], 1);
    return problem;
}

/* Lock a block that stands for nobody, and write down who means to begin where: losses of whoever had it before are not this reader's. */
static inline int tp_lock_spare(struct tp_reader_role *role, const char *name, enum tp_start start, uint64_t position, uint64_t *found,
                                struct tp_error *error)
{
    const struct tp_ring *ring = &role->ring;
    uint64_t newest = tp_ring_newest(ring), oldest = newest - ring->slots.identity.capacity;
    for (uint64_t k = 0; k < ring->slots.identity.readers; k++) {
        struct tp_reader *block = &tp_ring_readers(ring)[k];
        if (tp_mode_of(block) != TP_READER_ABSENT || !tp_lock_byte(ring->cursors.fd, tp_role_byte(1 + k), F_WRLCK))
            continue;
        tp_store_relaxed(&block->lost, 0);
        /* SYNC POINT (tp_slowest_reader's acquire), as in tp_gate. */
        tp_store_release(&block->position, tp_ring_wanted(ring, oldest, newest, start, position));
        tp_store_name(block->name, name);
        *found = k;
        return 0;
    }
    return tp_fail(error, ENOSPC, "ring=%.100s: no spare block for another reader; create it with spare=, or let one leave", ring->name);
}

/* Readers join one at a time, so that two of one name do not take two blocks. */
static inline int tp_lock_joining(const struct tp_ring *ring, struct tp_error *error)
{
    uint64_t deadline = tp_now_ns() + TP_JOIN_WAIT_NS;
    while (!tp_lock_byte(ring->cursors.fd, TP_JOIN_BYTE, F_WRLCK)) {
        if (tp_now_ns() > deadline)
            return tp_fail(error, EAGAIN, "ring=%.100s: another process has been joining it for seconds: is it stopped?", ring->name);
        tp_sleep_ns(1000000);
    }
    return 0;
}

/* Become gating reader `reader` of a running ring, in a spare block, from `start` on or as near to it as is still there. One that is
 * registered already goes on where it stood. ENOSPC where no block is free; EINVAL for a name that no block can have. */
static inline int tp_open_joining(struct tp_reader_role *role, const char *name, const char *reader, enum tp_start start, uint64_t position,
                                  const struct tp_expect *expect, struct tp_error *error)
{
    uint64_t found = 0;
    memset(role, 0, sizeof *role);
    if (reader[0] == '\0' || strlen(reader) > 23 || start == TP_RESUME)
        return tp_fail(error, EINVAL, "reader=%.40s start=%d: expected a name of 1 to 23 characters, and where to begin", reader,
                       (int)start);
    int problem = tp_ring_open(&role->ring, name, 0, 1, expect, error);
    if (problem)
        return problem;
    problem = tp_lock_joining(&role->ring, error);
    if (!problem && tp_find_reader(&role->ring, reader, 1) < role->ring.slots.identity.readers) {
        problem = tp_lock_reader(role, reader, 1, &found, error);
        start = TP_AT;
    } else if (!problem) {
        problem = tp_lock_spare(role, reader, start, position, &found, error);
    }
    if (!problem) {
        tp_take_reader(role, &tp_ring_readers(&role->ring)[found], start == TP_AT);
        tp_lock_byte(role->ring.cursors.fd, TP_JOIN_BYTE, F_UNLCK);
    } else {
        tp_ring_close(&role->ring);
    }
    return problem;
}

/* Watch ring `name` from `start` on: without a `reader` name (NULL) as anyone, with it as that registered observer, which TP_RESUME
 * begins where it last called tp_release. */
static inline int tp_open_observer(struct tp_reader_role *role, const char *name, const char *reader, enum tp_start start,
                                   uint64_t position, const struct tp_expect *expect, struct tp_error *error)
{
    uint64_t found = 0;
    struct tp_reader *block = &role->private_block;
    memset(role, 0, sizeof *role);
    int problem = tp_ring_open(&role->ring, name, 0, reader != NULL, expect, error);
    if (problem)
        return problem;
    if (reader != NULL) {
        problem = tp_lock_reader(role, reader, 0, &found, error);
        if (problem) {
            tp_ring_close(&role->ring);
            return problem;
        }
        block = &tp_ring_readers(&role->ring)[found];
        tp_introduce(&block->pid, &block->start, &block->epoch, &block->heartbeat, role->words);
        role->words[TP_LOST] = tp_load_acquire(&block->lost);
    }
    uint64_t capacity = role->ring.slots.identity.capacity, newest = tp_ring_newest(&role->ring);
    if (start == TP_RESUME && reader != NULL)
        position = tp_load_acquire(&block->position);
    else
        position = tp_ring_wanted(&role->ring, newest - capacity + tp_headroom(capacity), newest, start, position);
    tp_reader_end_of(role, block, position);
    return 0;
}

/* Give the role back. The ring still waits for a gating reader, so that it misses nothing; tp_leave ends that too. */
static inline void tp_close_reader(struct tp_reader_role *role)
{
    tp_ring_close(&role->ring);
}

/* Give a gating reader's role back, and its block too: the producer no longer waits for it. Not where another has the role by now. */
static inline void tp_leave(struct tp_reader_role *role)
{
    if (tp_load_acquire(&role->end.block->epoch) == role->words[TP_EPOCH])
        tp_set_mode(role->end.block, TP_READER_ABSENT);
    tp_close_reader(role);
}

#ifdef __cplusplus
}
#endif

#endif
