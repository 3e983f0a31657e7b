/* The system calls of an order's path and two hops to another core, and nothing else: what perf/bench_order_path.py measures against.
 *
 *     send ──loopback──▶ recvmmsg ──TSC──▶ word ══▶ other core ══▶ word ──▶ send (TCP) ──TSC
 *
 * Each turn of tp_path makes the calls of a turn of feed handler and gateway: a recvmmsg that mostly finds nothing, a send when the other
 * core has answered, a recv of the order session. The other core spins on one cache line and answers in another.
 *
 * Compiled by the benchmark with `gcc -O2 -shared -fPIC -pthread`.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdint.h>
#include <string.h>
#include <sys/socket.h>
#include <x86intrin.h>

#define PLACES 32
#define PLACE_BYTES 9216
#define NOTE_BYTES 64
#define PATIENCE 1000000

static struct mmsghdr headers[PLACES];
static struct iovec pieces[PLACES];
static _Alignas(64) uint8_t notes[PLACES][NOTE_BYTES];
static _Alignas(64) uint8_t buffer[PLACES][PLACE_BYTES];
static uint8_t inbound[1 << 16];

static _Alignas(128) _Atomic int64_t asked;
static _Alignas(128) _Atomic int64_t answered;

static void *answer(void *cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET((int)(intptr_t)cpu, &set);
    sched_setaffinity(0, sizeof set, &set);
    int64_t seen = 0;
    while (seen >= 0) {
        int64_t now = atomic_load_explicit(&asked, memory_order_acquire);
        if (now != seen) {
            seen = now;
            atomic_store_explicit(&answered, now, memory_order_release);
        } else
            _mm_pause();
    }
    return NULL;
}

static int receive(int socket)
{
    for (int i = 0; i < PLACES; i++)
        headers[i].msg_hdr.msg_controllen = NOTE_BYTES;
    return recvmmsg(socket, headers, PLACES, MSG_DONTWAIT, NULL);
}

/* `count` packets of the same bytes, one after another; ticks[i] from the return of the call that brought packet i to the return of the
 * call that sent its order. 0, or -errno, or -1 where something was lost. */
int64_t tp_path(int sending, int receiving, int session, int other_cpu, const uint8_t *packet, int64_t packet_bytes, const uint8_t *order,
                int64_t order_bytes, int64_t count, int64_t *ticks)
{
    for (int i = 0; i < PLACES; i++) {
        pieces[i] = (struct iovec){.iov_base = buffer[i], .iov_len = PLACE_BYTES};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1, .msg_control = notes[i]};
    }
    memset(buffer, 1, sizeof buffer);
    atomic_store(&asked, 0);
    atomic_store(&answered, 0);
    pthread_t other;
    if (pthread_create(&other, NULL, answer, (void *)(intptr_t)other_cpu))
        return -errno;
    int64_t result = 0;
    for (int64_t i = 0; i < count && result == 0; i++) {
        uint64_t came = 0;
        if (send(sending, packet, (size_t)packet_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
            result = -errno;
        for (int64_t turn = 0; result == 0; turn++) {
            if (receive(receiving) > 0) {
                came = __rdtsc();
                atomic_store_explicit(&asked, i + 1, memory_order_release);
            }
            if (atomic_load_explicit(&answered, memory_order_acquire) == i + 1) {
                if (send(session, order, (size_t)order_bytes, MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                    result = -errno;
                ticks[i] = (int64_t)(__rdtsc() - came);
                break;
            }
            recv(session, inbound, sizeof inbound, MSG_DONTWAIT);
            if (turn == PATIENCE)
                result = -1;
        }
    }
    atomic_store(&asked, -1);
    pthread_join(other, NULL);
    return result;
}
