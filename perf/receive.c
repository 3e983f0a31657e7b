/* A receiver that throws away what it receives: what perf/bench_receive.py measures the feed handler against.
 *
 *     send `waiting` packets to a socket of this machine ──▶ they wait in its buffer ──▶ recvmmsg ... ──▶ nothing
 *                                              the TSC is read here ─┘         and here ─┘ └─ and here, after the calls that found nothing
 *
 * tp_discard makes the calls that the feed handler makes: as many places of as many bytes, room for the same notes, the same flags; and
 * after the packets as many calls that find nothing.
 *
 * Compiled by the benchmark with `gcc -O2 -shared -fPIC`.
 */

#define _GNU_SOURCE
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <x86intrin.h>

#define PLACES 32
#define PLACE_BYTES 9216
#define NOTE_BYTES 64
/* Calls that find nothing before a batch is given up. */
#define PATIENCE 100000

static struct mmsghdr headers[PLACES];
static struct iovec pieces[PLACES];
static _Alignas(64) uint8_t notes[PLACES][NOTE_BYTES];
static _Alignas(64) uint8_t buffer[PLACES][PLACE_BYTES];

static void make_places(void)
{
    memset(buffer, 1, sizeof buffer);
    for (int i = 0; i < PLACES; i++) {
        pieces[i] = (struct iovec){.iov_base = buffer[i], .iov_len = PLACE_BYTES};
        headers[i].msg_hdr = (struct msghdr){.msg_iov = &pieces[i], .msg_iovlen = 1, .msg_control = notes[i]};
    }
}

static int receive(int socket)
{
    for (int i = 0; i < PLACES; i++)
        headers[i].msg_hdr.msg_controllen = NOTE_BYTES;
    return recvmmsg(socket, headers, PLACES, MSG_DONTWAIT, NULL);
}

/* `packets` packets, packet i at bytes[offsets[i]] up to offsets[i + 1], in batches of `waiting`. ticks[2 * batch] until the last packet
 * of a batch is here, ticks[2 * batch + 1] until `empty_calls` more have found nothing. 0, or -errno, or -1 where a packet was lost. */
int64_t tp_discard(int sending, int receiving, const uint8_t *bytes, const int64_t *offsets, int64_t packets, int64_t waiting,
                   int64_t empty_calls, int64_t *ticks)
{
    if (headers[0].msg_hdr.msg_iovlen == 0)
        make_places();
    for (int64_t packet = 0; packet < packets; packet += waiting) {
        int64_t batch = packet + waiting < packets ? waiting : packets - packet;
        for (int64_t i = packet; i < packet + batch; i++)
            if (send(sending, bytes + offsets[i], (size_t)(offsets[i + 1] - offsets[i]), MSG_DONTWAIT | MSG_NOSIGNAL) < 0)
                return -errno;
        int64_t got = 0, patience = PATIENCE;
        uint64_t began = __rdtsc();
        while (got < batch) {
            int count = receive(receiving);
            if (count > 0)
                got += count;
            else if (errno != EAGAIN && errno != EINTR)
                return -errno;
            else if (--patience == 0)
                return -1;
        }
        ticks[2 * (packet / waiting)] = (int64_t)(__rdtsc() - began);
        for (int64_t call = 0; call < empty_calls; call++)
            if (receive(receiving) > 0)
                return -1;
        ticks[2 * (packet / waiting) + 1] = (int64_t)(__rdtsc() - began);
    }
    return 0;
}
