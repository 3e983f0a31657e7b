/* Where a segment's pages are: made before the first use, on the node that was asked for, locked, and looked at afterwards.
 *
 * The NUMA calls are raw system calls, since glibc has none of them and libnuma would be one more library to have.
 * Every function that returns int returns 0, or errno.
 */

#include <errno.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "memory.h"

#ifndef MADV_POPULATE_READ
#define MADV_POPULATE_READ  22
#define MADV_POPULATE_WRITE 23
#endif

#define TP_NODES_MAX   1024
#define TP_PAGES_ASKED 512

/* Everything stored before it is seen by whoever loads `value` with acquire. */
void tp_store_release_u64(uint64_t *word, uint64_t value)
{
    __atomic_store_n(word, value, __ATOMIC_RELEASE);
}

uint64_t tp_load_acquire_u64(const uint64_t *word)
{
    return __atomic_load_n(word, __ATOMIC_ACQUIRE);
}

/* The calling thread's policy. */
int tp_policy_get(struct tp_policy *policy)
{
    int mode = 0;
    if (syscall(SYS_get_mempolicy, &mode, policy->nodes, TP_NODES_MAX, 0, 0) != 0)
        return errno;
    policy->mode = mode;
    return 0;
}

/* The calling thread's next pages follow `policy`. The kernel reads one bit less than it is told of. */
int tp_policy_set(const struct tp_policy *policy)
{
    return syscall(SYS_set_mempolicy, policy->mode, policy->nodes, TP_NODES_MAX + 1) == 0 ? 0 : errno;
}

/* The pages of a mapping follow `policy`, whoever touches them first; a file in shared memory keeps it. */
int tp_policy_bind(void *address, uint64_t bytes, const struct tp_policy *policy)
{
    return syscall(SYS_mbind, address, bytes, policy->mode, policy->nodes, TP_NODES_MAX + 1, 0) == 0 ? 0 : errno;
}

/* Write each page's node to `nodes`, or -errno: -ENOENT for a page that is not there. Moves nothing. */
int tp_page_nodes(void *address, uint64_t pages, uint64_t page_bytes, int32_t *nodes)
{
    void *asked[TP_PAGES_ASKED];
    for (uint64_t done = 0; done < pages;) {
        uint64_t count = pages - done < TP_PAGES_ASKED ? pages - done : TP_PAGES_ASKED;
        for (uint64_t i = 0; i < count; i++)
            asked[i] = (char *)address + (done + i) * page_bytes;
        if (syscall(SYS_move_pages, 0, count, asked, (void *)0, nodes + done, 0) != 0)
            return errno;
        done += count;
    }
    return 0;
}

/* Give every page of the mapping to this process's page table, for writing where it may write, without changing a byte.
 *
 * EFAULT where the file is shorter than the mapping: the kernel answers what would have been a SIGBUS. Kernels before 5.14 do
 * not know the call, and have each page touched, which answers with the signal. Others may be writing, so a touch is an
 * atomic that adds nothing.
 */
int tp_populate(void *address, uint64_t bytes, int writable)
{
    int result;
    do
        result = madvise(address, bytes, writable ? MADV_POPULATE_WRITE : MADV_POPULATE_READ);
    while (result != 0 && errno == EINTR);
    if (result == 0 || errno != EINVAL)
        return result == 0 ? 0 : errno;
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t at = 0; at < bytes; at += page) {
        uint64_t *word = (uint64_t *)((char *)address + at);
        if (writable)
            __atomic_fetch_or(word, 0, __ATOMIC_RELAXED);
        else
            (void)__atomic_load_n(word, __ATOMIC_RELAXED);
    }
    return 0;
}

/* Keep the mapping's pages in memory until it is unmapped. */
int tp_lock_range(void *address, uint64_t bytes)
{
    return mlock(address, bytes) == 0 ? 0 : errno;
}
