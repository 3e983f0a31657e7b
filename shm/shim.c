/* What neither Python nor numba can do by itself: the TSC's own description, memory locked and
 * touched ahead, timer slack, and a death pact. */

#include <alloca.h>
#include <cpuid.h>
#include <errno.h>
#include <malloc.h>
#include <signal.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <x86intrin.h>

#include "layout.h"
#include "shim.h"

_Static_assert(sizeof(struct tp_identity) == TP_SCHEMA_OFFSET, "the schema follows the identity");
_Static_assert(sizeof(struct tp_slot) == TP_LINE_BYTES, "a slot is one cache line");
_Static_assert(offsetof(struct tp_slot, sequence) == 0, "the sequence comes first");
_Static_assert(sizeof(struct tp_producer) == TP_BLOCK_BYTES, "producer and readers never share a pair of lines");
_Static_assert(sizeof(struct tp_reader) == TP_BLOCK_BYTES, "readers never share a pair of lines");
_Static_assert(offsetof(struct tp_reader, mode) == TP_LINE_BYTES, "the polled position has a line to itself");
_Static_assert(sizeof(struct tp_histogram) == 64 + 8 * TP_HISTOGRAM_BUCKETS, "no padding in a histogram");
_Static_assert(TP_HISTOGRAM_BUCKETS == (TP_HISTOGRAM_VALUE_BITS - TP_HISTOGRAM_SUB_BITS + 1) << TP_HISTOGRAM_SUB_BITS,
               "a bucket for every value below 2^TP_HISTOGRAM_VALUE_BITS");

uint64_t tp_rdtsc(void)
{
    return __rdtsc();
}

/* CPUID 8000_0007h, EDX bit 8: the TSC runs at one rate in every P-, C- and T-state (AMD64 APM vol. 3, Intel SDM vol. 3 17.17.1). */
int tp_tsc_is_invariant(void)
{
    unsigned eax, ebx, ecx, edx;
    return __get_cpuid(0x80000007, &eax, &ebx, &ecx, &edx) && (edx >> 8 & 1);
}

/* Lock present and future pages. Returns 0, or errno. MCL_ONFAULT is left out: it would move the faults into the hot path. */
int tp_lock_memory(void)
{
    return mlockall(MCL_CURRENT | MCL_FUTURE) == 0 ? 0 : errno;
}

/* Ask for `signal_number` when the parent dies. Returns 0, or errno. */
int tp_die_with_parent(int signal_number)
{
    return prctl(PR_SET_PDEATHSIG, signal_number, 0, 0, 0) == 0 ? 0 : errno;
}

/* How late the kernel may wake this process, so that it can wake several at once. Returns 0, or errno. */
int tp_set_timer_slack(unsigned long ns)
{
    return prctl(PR_SET_TIMERSLACK, ns, 0, 0, 0) == 0 ? 0 : errno;
}

/* Write to every page of the next `bytes` of the stack, which grows by a fault a page. */
__attribute__((noinline)) void tp_prefault_stack(size_t bytes)
{
    volatile uint8_t *room = alloca(bytes);
    for (size_t at = 0; at < bytes; at += 4096)
        room[at] = 0;
    __asm__ volatile("" : : "r"(room) : "memory");
}

/* Touch `bytes` of heap and keep them: what malloc is given back stays with the process. Returns 0, or errno. */
int tp_prefault_heap(size_t bytes)
{
    mallopt(M_TRIM_THRESHOLD, -1);
    mallopt(M_MMAP_MAX, 0);
    volatile uint8_t *room = malloc(bytes);
    if (!room)
        return ENOMEM;
    for (size_t at = 0; at < bytes; at += 4096)
        room[at] = 0;
    free((void *)room);
    return 0;
}
