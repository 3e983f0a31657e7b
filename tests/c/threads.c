/* The ends of one ring as threads of one process, for ThreadSanitizer.
 *
 *     threads RING gate    COUNT      a producer that fills in place, a gating reader, and one that joins, reads and leaves, again and again
 *     threads RING observe COUNT      a producer that pushes, a gating reader, an observer, a named one, a conflating one
 *     threads RING evict   COUNT      a producer that lets the dead go, a reader, and one that dies and comes back, again and again
 *     threads RING board   COUNT      a writer and two readers of a board line in this process' own memory
 *
 * The sanitizer looks at addresses, so two mappings of one file would be two memories to it and every race between them unseen. Here all
 * roles are opened as ever, by name, and find one mapping. Locks are on descriptors, so they work between threads as between processes.
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/stat.h>

static void *the_only_mapping(void *address, size_t bytes, int access, int flags, int fd, long offset);
#define mmap the_only_mapping
#define munmap(address, bytes) ((void)(address), (void)(bytes))
#include "tickpath.h"
#undef mmap

#define MAPPINGS   4
#define PATIENCE   60000000000u
#define A_MOMENT   20000000u

static struct {
    ino_t inode;
    void *memory;
} mappings[MAPPINGS];
static pthread_mutex_t mappings_mutex = PTHREAD_MUTEX_INITIALIZER;

static void *the_only_mapping(void *address, size_t bytes, int access, int flags, int fd, long offset)
{
    struct stat status;
    void *memory = MAP_FAILED;
    (void)access;
    if (fstat(fd, &status) != 0)
        return memory;
    pthread_mutex_lock(&mappings_mutex);
    for (int i = 0; i < MAPPINGS && memory == MAP_FAILED; i++) {
        if (mappings[i].inode == 0) {
            mappings[i].inode = status.st_ino;
            mappings[i].memory = mmap(address, bytes, PROT_READ | PROT_WRITE, flags, fd, offset);
        }
        if (mappings[i].inode == status.st_ino)
            memory = mappings[i].memory;
    }
    pthread_mutex_unlock(&mappings_mutex);
    return memory;
}

static const char *ring_name;
static uint64_t count;
static struct tp_producer_role out;
static int wrong, finished;

static void complain(const char *what, uint64_t number)
{
    fprintf(stderr, "WRONG: %s %llu\n", what, (unsigned long long)number);
    __atomic_store_n(&wrong, 1, __ATOMIC_RELAXED);
}

static int is_over(void)
{
    return __atomic_load_n(&finished, __ATOMIC_RELAXED) || __atomic_load_n(&wrong, __ATOMIC_RELAXED);
}

static void check(const uint64_t *slot, uint64_t number)
{
    for (int k = 1; k < 8; k++)
        if (slot[k] != number * (uint64_t)k)
            complain("message", number);
}

/* Plain stores into the claimed slot, as a program does where nobody observes. */
static void *fill_in_place(void *unused)
{
    for (uint64_t i = 0; i < count && !is_over(); i++) {
        uint64_t *slot = (uint64_t *)tp_claim_or_drop(&out, PATIENCE);
        if (slot == NULL) {
            complain("no room for", i);
            break;
        }
        for (uint64_t k = 1; k < 8; k++)
            slot[k] = i * k;
        tp_commit(&out.end);
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELAXED);
    return unused;
}

static void *push(void *unused)
{
    uint64_t payload[7];
    for (uint64_t i = 0; i < count && !is_over(); i++) {
        for (uint64_t k = 1; k < 8; k++)
            payload[k - 1] = i * k;
        if (tp_push(&out, payload, sizeof payload, PATIENCE) != TP_GOT)
            complain("no room for", i);
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELAXED);
    return unused;
}

static void read_one(struct tp_reader_role *in)
{
    const uint64_t *slot = (const uint64_t *)tp_poll_within(&in->end, A_MOMENT);
    if (slot == NULL)
        return;
    check(slot, in->words[TP_POSITION]);
    tp_advance(&in->end);
    if (in->words[TP_POSITION] % 3 == 0)
        tp_release(&in->end);
}

static void *read_all(void *unused)
{
    static struct tp_reader_role in;
    struct tp_error error;
    if (tp_open_reader(&in, ring_name, "reader", NULL, &error) != 0) {
        complain(error.text, 0);
        return unused;
    }
    while (in.words[TP_POSITION] != count && !__atomic_load_n(&wrong, __ATOMIC_RELAXED)) {
        read_one(&in);
        if (tp_poll(&in.end) == NULL)
            tp_release(&in.end);
    }
    tp_release(&in.end);
    tp_close_reader(&in);
    return unused;
}

static void *join_and_leave(void *unused)
{
    static struct tp_reader_role in;
    struct tp_error error;
    for (uint64_t round = 0; !is_over(); round++) {
        if (tp_open_joining(&in, ring_name, "late", round & 1 ? TP_NEWEST : TP_OLDEST, 0, NULL, &error) != 0) {
            complain(error.text, round);
            break;
        }
        for (int i = 0; i < 20 && !is_over(); i++)
            read_one(&in);
        tp_leave(&in);
    }
    return unused;
}

/* It dies with nothing read and not given back: the kernel orders a death before the eviction, but the sanitizer does not know that. */
static void *die_and_return(void *unused)
{
    static struct tp_reader_role in;
    struct tp_error error;
    for (uint64_t round = 0; !is_over(); round++) {
        if (tp_open_reader(&in, ring_name, "mortal", NULL, &error) != 0) {
            complain(error.text, round);
            break;
        }
        for (int i = 0; i < 20 && !is_over(); i++)
            read_one(&in);
        tp_release(&in.end);
        tp_close_reader(&in);
        while (tp_mode_of(in.end.block) != TP_READER_EVICTED && !is_over())
            sched_yield();
    }
    return unused;
}

static void *observe(void *name)
{
    struct tp_reader_role *in = (struct tp_reader_role *)calloc(1, sizeof *in);
    struct tp_error error;
    uint64_t copy[8], conflates = name != NULL && strcmp((const char *)name, "conflating") == 0, seen = 0;
    if (in == NULL || tp_open_observer(in, ring_name, (const char *)name, TP_NEWEST, 0, NULL, &error) != 0) {
        complain(error.text, 0);
        free(in);
        return NULL;
    }
    while (!is_over()) {
        if (tp_observe_within(&in->end, copy, A_MOMENT) != TP_GOT)
            continue;
        check(copy, copy[0] - 1);
        if (++seen % 8 == 0)
            tp_release(&in->end);
        if (conflates && seen % 8 == 0)
            tp_conflate(&in->end);
    }
    tp_close_reader(in);
    free(in);
    return NULL;
}

static uint64_t board[8] __attribute__((__aligned__(64)));

static void *write_board(void *unused)
{
    uint64_t line[7];
    for (uint64_t i = 1; i <= count; i++) {
        for (uint64_t k = 1; k < 8; k++)
            line[k - 1] = i * k;
        uint64_t version = tp_board_open(board);
        tp_write_racing(board + 1, line, sizeof line);
        tp_board_close(board, version);
        if (i % 8 == 0)
            sched_yield();
    }
    __atomic_store_n(&finished, 1, __ATOMIC_RELAXED);
    return unused;
}

static void *read_board(void *unused)
{
    uint64_t copy[8];
    while (!is_over()) {
        int64_t version = tp_board_read(board, copy, sizeof copy);
        if (version > 0)
            check(copy, (uint64_t)version / 2);
        else
            sched_yield();
    }
    return unused;
}

static void run(void *(*const *work)(void *), void *const *arguments)
{
    pthread_t threads[6];
    int started = 0;
    for (; work[started] != NULL; started++)
        pthread_create(&threads[started], NULL, work[started], arguments[started]);
    while (started > 0)
        pthread_join(threads[--started], NULL);
}

int main(int argc, char **argv)
{
    static char screen[] = "screen", conflating[] = "conflating";
    void *(*const gate[])(void *) = {fill_in_place, read_all, join_and_leave, NULL};
    void *(*const watch[])(void *) = {push, read_all, observe, observe, observe, NULL};
    void *(*const evict[])(void *) = {fill_in_place, read_all, die_and_return, NULL};
    void *(*const boards[])(void *) = {write_board, read_board, read_board, NULL};
    void *const nothing[] = {NULL, NULL, NULL, NULL}, *const names[] = {NULL, NULL, NULL, screen, conflating};
    struct tp_error error;
    if (argc != 4)
        return 2;
    ring_name = argv[1];
    count = strtoull(argv[3], NULL, 10);
    /* First of all, since the one mapping is made from a descriptor that may write. */
    if (strcmp(argv[2], "board") != 0 && tp_open_producer(&out, ring_name, NULL, &error) != 0) {
        fprintf(stderr, "WRONG: %s\n", error.text);
        return 1;
    }
    if (strcmp(argv[2], "gate") == 0)
        run(gate, nothing);
    else if (strcmp(argv[2], "observe") == 0)
        run(watch, names);
    else if (strcmp(argv[2], "evict") == 0)
        run(evict, nothing);
    else
        run(boards, nothing);
    printf("evicted=%llu\n", out.end.block == NULL ? 0 : (unsigned long long)tp_load_acquire(&out.end.block->evicted));
    return wrong;
}
