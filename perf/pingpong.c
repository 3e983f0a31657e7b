/* The bare coherence hop, which no ring can beat: what perf/bench_ring.py measures the ring against.
 *
 *     ping                            pong
 *      |--- stores i in line `there` -->|       two lines, one a direction; nothing else is shared
 *      |<-- stores i in line `back` ----|
 *
 * tp_ping/tp_pong      one word a line: the limit of a round trip
 * tp_ping_line/...     all 64 bytes written and checked, as a message has it, on `lines` lines a direction in turn (a power of two):
 *                      one, which stays in both cores' nearest caches, or as many as a ring has slots
 * tp_write/tp_read     64-byte messages one way through a buffer of lines, with the word that counts them last: the limit of throughput
 *
 * Compiled by the benchmark with `gcc -O2 -shared -fPIC`. `polite` puts a PAUSE into the spin loops.
 */

#include <immintrin.h>
#include <stdatomic.h>
#include <stdint.h>

#define WORDS 8

typedef _Atomic uint64_t word;

static inline void await_value(word *at, uint64_t value, int polite)
{
    while (atomic_load_explicit(at, memory_order_acquire) != value)
        if (polite)
            _mm_pause();
}

void tp_ping(word *there, word *back, uint64_t first, uint64_t rounds, int polite)
{
    for (uint64_t i = first; i < first + rounds; i++) {
        atomic_store_explicit(there, i, memory_order_release);
        await_value(back, i, polite);
    }
}

void tp_pong(word *there, word *back, uint64_t first, uint64_t rounds, int polite)
{
    for (uint64_t i = first; i < first + rounds; i++) {
        await_value(there, i, polite);
        atomic_store_explicit(back, i, memory_order_release);
    }
}

static inline void fill(word *line, uint64_t sequence, uint64_t value)
{
    uint64_t *words = (uint64_t *)line;
    for (int k = 1; k < WORDS; k++)
        words[k] = value + k;
    atomic_store_explicit(line, sequence, memory_order_release);
}

static inline uint64_t wrong_bits(const word *line, uint64_t value)
{
    const uint64_t *words = (const uint64_t *)line;
    uint64_t wrong = 0;
    for (int k = 1; k < WORDS; k++)
        wrong |= words[k] ^ (value + k);
    return wrong;
}

int tp_ping_line(word *there, word *back, uint64_t lines, uint64_t first, uint64_t rounds)
{
    uint64_t wrong = 0;
    for (uint64_t i = first; i < first + rounds; i++) {
        uint64_t at = (i & (lines - 1)) * WORDS;
        fill(there + at, i, i);
        await_value(back + at, i, 1);
        wrong |= wrong_bits(back + at, i);
    }
    return wrong != 0;
}

int tp_pong_line(word *there, word *back, uint64_t lines, uint64_t first, uint64_t rounds)
{
    uint64_t wrong = 0;
    for (uint64_t i = first; i < first + rounds; i++) {
        uint64_t at = (i & (lines - 1)) * WORDS;
        await_value(there + at, i, 1);
        wrong |= wrong_bits(there + at, i); /* before the answer: ping overwrites the line as soon as it has it */
        fill(back + at, i, i);
    }
    return wrong != 0;
}

/* `chunk` and `batch` divide `count` and `capacity`; `given_back` is the reader's position, on a line of its own. */
void tp_write(word *lines, uint64_t capacity, word *given_back, uint64_t first, uint64_t count, uint64_t chunk)
{
    for (uint64_t i = first; i < first + count; i += chunk) {
        while (i + chunk - atomic_load_explicit(given_back, memory_order_acquire) > capacity)
            _mm_pause();
        for (uint64_t j = i; j < i + chunk; j++)
            fill(lines + (j & (capacity - 1)) * WORDS, j + 1, j);
    }
    await_value(given_back, first + count, 1);
}

int tp_read(word *lines, uint64_t capacity, word *given_back, uint64_t first, uint64_t count, uint64_t batch)
{
    uint64_t wrong = 0;
    for (uint64_t i = first; i < first + count; i += batch) {
        await_value(lines + ((i + batch - 1) & (capacity - 1)) * WORDS, i + batch, 1);
        for (uint64_t j = i; j < i + batch; j++)
            wrong |= wrong_bits(lines + (j & (capacity - 1)) * WORDS, j);
        atomic_store_explicit(given_back, i + batch, memory_order_release);
    }
    return wrong != 0;
}
