/* A segment by name: found, told apart from a stranger's, checked in full, mapped. Included by tickpath.h; nothing here is on a hop's path.
 *
 * A segment may have been made by another build, cut short, scribbled on, or put there by someone who wants us to crash. Every value
 * in it is compared with what it must be, in arithmetic that cannot overflow, and copied once: nobody reads it from shared memory again.
 * What shm.segment.attach refuses is refused here, but for the schema's text, which C does not read: it compares the schema's hash with
 * the one that the caller was built with.
 *
 * No function prints, exits or aborts. Each that can fail returns 0, or an errno that tp_error has too, beside a text that says
 * name=value and what was expected.
 */
#ifndef TICKPATH_OPEN_H
#define TICKPATH_OPEN_H

#include <errno.h>
#include <fcntl.h>
#include <mntent.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/statvfs.h>
#include <time.h>
#include <unistd.h>

#ifndef F_OFD_SETLK
#error "tickpath.h: include it before the first system header, or compile with -D_GNU_SOURCE"
#endif

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#ifdef __cplusplus
extern "C" {
#endif

#define TP_NAME_BYTES_MAX   200
#define TP_PATH_BYTES       4096
#define TP_GROUPS_MAX       256
#define TP_LIFE_BYTE        0
#define TP_LIFE_WAIT_NS     1000000000u

/* `code` is an errno: ENOENT no such segment or reader, EBUSY the role is taken, EAGAIN half-made or half-removed, try again,
 * EPERM not ours to use, EPROTO made by another build or damaged, EINVAL a bad argument, ENOSPC no spare block. */
struct tp_error {
    int code;
    char text[320];
};

/* What a program was built for. A zero is not looked at. */
struct tp_expect {
    uint64_t record_bytes;
    uint64_t schema_hash;
    uint64_t build_hash;
};

/* A checked and mapped segment. `identity` is the copy that was checked. */
struct tp_segment {
    struct tp_identity identity;
    uint8_t *memory;
    uint64_t bytes;
    int fd;
};

__attribute__((__format__(__printf__, 3, 4))) static inline int tp_fail(struct tp_error *error, int code, const char *format, ...)
{
    if (error != NULL) {
        va_list arguments;
        va_start(arguments, format);
        vsnprintf(error->text, sizeof error->text, format, arguments);
        va_end(arguments);
        error->code = code;
    }
    return code;
}

static inline uint64_t tp_now_ns(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000000u + (uint64_t)now.tv_nsec;
}

static inline void tp_sleep_ns(uint64_t ns)
{
    struct timespec time;
    time.tv_sec = (time_t)(ns / 1000000000u);
    time.tv_nsec = (long)(ns % 1000000000u);
    nanosleep(&time, NULL);
}

/* Locks of an open file description: shm/locks.py says why. `kind` is F_RDLCK, F_WRLCK or F_UNLCK. Never waits; whether it was done. */
static inline int tp_lock_byte(int fd, uint64_t byte, short kind)
{
    struct flock lock;
    memset(&lock, 0, sizeof lock);
    lock.l_type = kind;
    lock.l_whence = SEEK_SET;
    lock.l_start = (off_t)byte;
    lock.l_len = 1;
    return fcntl(fd, F_OFD_SETLK, &lock) == 0;
}

/* Where segments are */

struct tp_place {
    char path[TP_PATH_BYTES];
    uint64_t page_bytes;
    dev_t device;
    ino_t inode;
    int found;
};

/* Look for `name` in `folder`; what is found twice under one number is one file, in a file system that is mounted twice. */
static inline int tp_look_in(struct tp_place *place, const char *folder, const char *name, uint64_t page_bytes, struct tp_error *error)
{
    char path[TP_PATH_BYTES];
    struct stat status;
    int length = snprintf(path, sizeof path, "%s/%s", folder, name);
    if (length < 0 || (size_t)length >= sizeof path || lstat(path, &status) != 0)
        return 0;
    if (place->found && (status.st_dev != place->device || status.st_ino != place->inode))
        return tp_fail(error, EEXIST, "segment=%s: it is in %.80s too, and there is no telling which is meant: remove one of them", name,
                       folder);
    if (place->found)
        return 0;
    memcpy(place->path, path, (size_t)length + 1);
    place->page_bytes = page_bytes;
    place->device = status.st_dev;
    place->inode = status.st_ino;
    place->found = 1;
    return 0;
}

/* The one place that has `name`: /dev/shm, or a hugetlbfs mount that this process sees. */
static inline int tp_find(struct tp_place *place, const char *name, struct tp_error *error)
{
    place->found = 0;
    size_t length = strlen(name);
    if (length == 0 || length > TP_NAME_BYTES_MAX || name[0] == '.' || strchr(name, '/') != NULL)
        return tp_fail(error, EINVAL, "segment=%.*s: expected a name of 1 to %d characters without '/', not beginning with '.'",
                       TP_NAME_BYTES_MAX, name, TP_NAME_BYTES_MAX);
    int problem = tp_look_in(place, "/dev/shm", name, (uint64_t)sysconf(_SC_PAGESIZE), error);
    FILE *mounts = setmntent("/proc/self/mounts", "re");
    if (mounts != NULL) {
        struct mntent entry;
        char text[TP_PATH_BYTES];
        while (!problem && getmntent_r(mounts, &entry, text, sizeof text) != NULL) {
            struct statvfs pages;
            if (strcmp(entry.mnt_type, "hugetlbfs") == 0 && statvfs(entry.mnt_dir, &pages) == 0)
                problem = tp_look_in(place, entry.mnt_dir, name, pages.f_bsize, error);
        }
        endmntent(mounts);
    }
    if (!problem && !place->found)
        return tp_fail(error, ENOENT, "segment=%s: there is none; is the instance running?", name);
    return problem;
}

/* Whose it is */

static inline int tp_is_our_group(gid_t group)
{
    gid_t groups[TP_GROUPS_MAX];
    int count = getgroups(TP_GROUPS_MAX, groups);
    for (int i = 0; i < count; i++)
        if (groups[i] == group)
            return 1;
    return group == getegid();
}

/* Refuse a file that others may have put there, or may write to. */
static inline int tp_check_file(const char *name, int fd, struct tp_error *error)
{
    struct stat status;
    if (fstat(fd, &status) != 0)
        return tp_fail(error, errno, "segment=%s: cannot look at it: %s", name, strerror(errno));
    unsigned mode = (unsigned)status.st_mode & 07777u;
    int is_ours = status.st_uid == geteuid() || status.st_uid == 0;
    if (!S_ISREG(status.st_mode))
        return tp_fail(error, EPERM, "segment=%s: it is not a regular file", name);
    if (status.st_nlink != 1)
        return tp_fail(error, EPERM, "segment=%s: links=%lu, expected 1: it is linked under another name too, or was just removed", name,
                       (unsigned long)status.st_nlink);
    if (mode & ~0660u)
        return tp_fail(error, EPERM, "segment=%s: mode=0o%o lets others in, expected at most 0o660", name, mode);
    if (!is_ours && !(mode == 0660 && tp_is_our_group(status.st_gid)))
        return tp_fail(error, EPERM, "segment=%s: owner uid=%lu, expected %lu, or mode=0o660 of a group of ours", name,
                       (unsigned long)status.st_uid, (unsigned long)geteuid());
    return 0;
}

static inline int tp_is_linked(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 && status.st_nlink == 1;
}

/* Hold byte 0 for as long as the descriptor lives: a cleaner leaves alone what is held. */
static inline int tp_hold_life(const char *name, int fd, struct tp_error *error)
{
    uint64_t deadline = tp_now_ns() + TP_LIFE_WAIT_NS;
    while (!tp_lock_byte(fd, TP_LIFE_BYTE, F_RDLCK)) {
        if (errno != EAGAIN && errno != EACCES)
            return tp_fail(error, errno, "segment=%s: cannot lock it: %s", name, strerror(errno));
        if (tp_is_linked(fd) && tp_now_ns() > deadline)
            return tp_fail(error, EAGAIN, "segment=%s: a process that removes it has stopped half way; end it and try again", name);
        if (!tp_is_linked(fd))
            break;
        tp_sleep_ns(1000000);
    }
    return tp_is_linked(fd) ? 0 : tp_fail(error, ENOENT, "segment=%s: there is none; it was removed this moment", name);
}

/* What it says it is */

static inline int tp_expect_value(const char *name, const char *field, uint64_t value, uint64_t expected, struct tp_error *error)
{
    if (value == expected)
        return 0;
    return tp_fail(error, EPROTO, "segment=%s: %s=%llu, expected %llu", name, field, (unsigned long long)value,
                   (unsigned long long)expected);
}

static inline uint64_t tp_file_bytes(int fd)
{
    struct stat status;
    return fstat(fd, &status) == 0 ? (uint64_t)status.st_size : 0;
}

/* Read through the descriptor and not through a mapping: a file that is cut short meanwhile is a short answer, not a SIGBUS. */
static inline int tp_read_identity(const char *name, int fd, struct tp_identity *identity, struct tp_error *error)
{
    uint64_t magic = 0;
    ssize_t first = pread(fd, &magic, sizeof magic, 0);
    /* SYNC POINT (the creator's last store): the magic is looked at, by a call of its own, before anything that it vouches for. */
    ssize_t got = pread(fd, identity, sizeof *identity, 0);
    if (first != (ssize_t)sizeof magic || got != (ssize_t)sizeof *identity || tp_file_bytes(fd) < TP_DATA_OFFSET)
        return tp_fail(error, EAGAIN, "segment=%s: bytes=%llu, expected at least %d: it is still being created, or cut short", name,
                       (unsigned long long)tp_file_bytes(fd), TP_DATA_OFFSET);
    if (magic == 0)
        return tp_fail(error, EAGAIN, "segment=%s: magic=0: it is still being created, or its creator died; try again", name);
    if (identity->magic != TP_MAGIC)
        return tp_fail(error, EPROTO, "segment=%s: magic=%#llx, expected %#llx", name, (unsigned long long)identity->magic,
                       (unsigned long long)TP_MAGIC);
    return 0;
}

/* Whether capacity and record size can be, and multiply to something that fits a file. */
static inline int tp_check_shape(const char *name, const struct tp_identity *identity, struct tp_error *error)
{
    uint64_t capacity = identity->capacity, record_bytes = identity->record_bytes;
    uint64_t room = (uint64_t)INT64_MAX - TP_DATA_OFFSET - identity->page_bytes;
    if (record_bytes < TP_LINE_BYTES || record_bytes % TP_LINE_BYTES)
        return tp_fail(error, EPROTO, "segment=%s: record_bytes=%llu, expected a multiple of %d", name, (unsigned long long)record_bytes,
                       TP_LINE_BYTES);
    if (capacity < 1 || capacity > room / record_bytes)
        return tp_fail(error, EPROTO, "segment=%s: capacity=%llu x record_bytes=%llu, expected at least one record, and less than 2^63",
                       name, (unsigned long long)capacity, (unsigned long long)record_bytes);
    if (identity->kind == TP_KIND_RING && (capacity < 2 || (capacity & (capacity - 1))))
        return tp_fail(error, EPROTO, "segment=%s: capacity=%llu, expected a power of two, at least 2", name, (unsigned long long)capacity);
    if (identity->readers > TP_READERS_MAX)
        return tp_fail(error, EPROTO, "segment=%s: readers=%u, expected at most %d", name, identity->readers, TP_READERS_MAX);
    if (identity->kind == TP_KIND_CURSORS && capacity != (uint64_t)identity->readers + 1)
        return tp_fail(error, EPROTO, "segment=%s: capacity=%llu, expected %u blocks: the producer's and readers=%u", name,
                       (unsigned long long)capacity, identity->readers + 1, identity->readers);
    if (identity->when_full > TP_WHEN_FULL_EVICT)
        return tp_fail(error, EPROTO, "segment=%s: when_full=%u, expected at most %d", name, identity->when_full, TP_WHEN_FULL_EVICT);
    if (identity->schema_bytes > TP_DATA_OFFSET - TP_SCHEMA_OFFSET)
        return tp_fail(error, EPROTO, "segment=%s: schema_bytes=%u, expected at most %d", name, identity->schema_bytes,
                       TP_DATA_OFFSET - TP_SCHEMA_OFFSET);
    return 0;
}

static inline uint64_t tp_total_bytes(const struct tp_identity *identity)
{
    uint64_t bytes = TP_DATA_OFFSET + identity->capacity * identity->record_bytes, page = identity->page_bytes;
    return (bytes + page - 1) / page * page;
}

static inline int tp_check_identity(const char *name, int fd, const struct tp_identity *identity, uint32_t kind, uint64_t page_bytes,
                                    struct tp_error *error)
{
    int problem = tp_expect_value(name, "layout_version", identity->layout_version, TP_LAYOUT_VERSION, error);
    if (!problem)
        problem = tp_expect_value(name, "kind", identity->kind, kind, error);
    if (!problem)
        problem = tp_expect_value(name, "data_offset", identity->data_offset, TP_DATA_OFFSET, error);
    if (!problem)
        problem = tp_expect_value(name, "page_bytes", identity->page_bytes, page_bytes, error);
    if (!problem)
        problem = tp_check_shape(name, identity, error);
    if (!problem)
        problem = tp_expect_value(name, "total_bytes", identity->total_bytes, tp_total_bytes(identity), error);
    if (!problem && tp_file_bytes(fd) != identity->total_bytes)
        problem = tp_fail(error, EPROTO, "segment=%s: bytes=%llu, expected %llu: cut short, or grown", name,
                          (unsigned long long)tp_file_bytes(fd), (unsigned long long)identity->total_bytes);
    return problem;
}

/* What the caller was built for. */
static inline int tp_check_expected(const char *name, const struct tp_identity *identity, const struct tp_expect *expect,
                                    struct tp_error *error)
{
    int problem = 0;
    if (expect->record_bytes)
        problem = tp_expect_value(name, "record_bytes", identity->record_bytes, expect->record_bytes, error);
    if (!problem && expect->schema_hash && identity->schema_hash != expect->schema_hash)
        problem = tp_fail(error, EPROTO, "segment=%s: schema_hash=%#llx, expected %#llx: its records are laid out otherwise", name,
                          (unsigned long long)identity->schema_hash, (unsigned long long)expect->schema_hash);
    if (!problem && expect->build_hash && identity->build_hash != expect->build_hash)
        problem = tp_fail(error, EPROTO, "segment=%s: build=%#llx, expected %#llx: processes of different builds do not trade together",
                          name, (unsigned long long)identity->build_hash, (unsigned long long)expect->build_hash);
    return problem;
}

/* Mapping */

/* Map a checked file and fill the page table, by a call that answers an error for a page that is not there. */
static inline int tp_map(const char *name, struct tp_segment *segment, int writable, struct tp_error *error)
{
    uint64_t bytes = segment->identity.total_bytes;
    void *memory = mmap(NULL, bytes, PROT_READ | (writable ? PROT_WRITE : 0), MAP_SHARED, segment->fd, 0);
    if (memory == MAP_FAILED)
        return tp_fail(error, errno, "segment=%s: cannot map bytes=%llu: %s", name, (unsigned long long)bytes, strerror(errno));
    int result;
    do
        result = madvise(memory, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (result != 0 && errno == EINTR);
    /* EINVAL: a kernel before 5.14, whose pages come at the first touch. */
    if (result != 0 && errno != EINVAL) {
        int code = errno;
        munmap(memory, bytes);
        return tp_fail(error, code, "segment=%s: cannot map bytes=%llu: %s", name, (unsigned long long)bytes,
                       code == EFAULT ? "it was cut short this moment" : strerror(code));
    }
    segment->memory = (uint8_t *)memory;
    segment->bytes = bytes;
    return 0;
}

static inline void tp_segment_close(struct tp_segment *segment)
{
    if (segment->memory != NULL)
        munmap(segment->memory, segment->bytes);
    if (segment->fd >= 0)
        close(segment->fd);
    segment->memory = NULL;
    segment->fd = -1;
}

static inline int tp_open_file(const char *name, struct tp_segment *segment, uint64_t *page_bytes, int writable, struct tp_error *error)
{
    struct tp_place place;
    int problem = tp_find(&place, name, error);
    if (problem)
        return problem;
    *page_bytes = place.page_bytes;
    /* O_NONBLOCK does nothing to a file, and keeps a FIFO of this name from stopping us for ever. */
    segment->fd = open(place.path, (writable ? O_RDWR : O_RDONLY) | O_NOFOLLOW | O_CLOEXEC | O_NONBLOCK);
    if (segment->fd < 0)
        return tp_fail(error, errno, "segment=%s: cannot open it: %s", name, errno == ELOOP ? "it is a symbolic link" : strerror(errno));
    problem = tp_check_file(name, segment->fd, error);
    return problem ? problem : tp_hold_life(name, segment->fd, error);
}

/* Open segment `name`, which must be of `kind` and as `expect` (or NULL) says. On error it is closed again. */
static inline int tp_segment_open(struct tp_segment *segment, const char *name, uint32_t kind, int writable, const struct tp_expect *expect,
                                  struct tp_error *error)
{
    uint64_t page_bytes = 0;
    segment->memory = NULL;
    segment->fd = -1;
    int problem = tp_open_file(name, segment, &page_bytes, writable, error);
    if (!problem)
        problem = tp_read_identity(name, segment->fd, &segment->identity, error);
    if (!problem)
        problem = tp_check_identity(name, segment->fd, &segment->identity, kind, page_bytes, error);
    if (!problem && expect != NULL)
        problem = tp_check_expected(name, &segment->identity, expect, error);
    if (!problem)
        problem = tp_map(name, segment, writable, error);
    if (problem)
        tp_segment_close(segment);
    return problem;
}

#ifdef __cplusplus
}
#endif

#endif
