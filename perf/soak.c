/* The C face's share of perf/soak.py: compiled there, and called on the ends that its processes hold. */

#include "tickpath.h"

#define TORN     (-1)
#define WORDS    7

static uint64_t word_of(uint64_t number, uint64_t k)
{
    return k == 0 ? number : ((number + k) * 0x9E3779B97F4A7C15u) ^ k;
}

static int is_whole(const uint64_t *slot, uint64_t number)
{
    for (uint64_t k = 0; k < WORDS; k++)
        if (slot[1 + k] != word_of(number, k))
            return 0;
    return 1;
}

int64_t soak_write(struct tp_producer_end *end, int64_t count, int64_t spins)
{
    for (int64_t done = 0; done < count; done++) {
        uint64_t *slot = (uint64_t *)tp_claim(end);
        for (int64_t look = 0; slot == NULL && look < spins; look++) {
            tp_pause();
            slot = (uint64_t *)tp_claim(end);
        }
        if (slot == NULL)
            return done;
        uint64_t words[WORDS];
        for (uint64_t k = 0; k < WORDS; k++)
            words[k] = word_of(end->local[TP_POSITION], k);
        tp_write_racing(slot + 1, words, sizeof words);
        tp_commit(end);
    }
    return count;
}

int64_t soak_read(struct tp_reader_end *end, int64_t count, int64_t spins)
{
    int64_t done = 0;
    for (; done < count; done++) {
        const uint64_t *slot = (const uint64_t *)tp_poll(end);
        for (int64_t look = 0; slot == NULL && look < spins; look++) {
            tp_pause();
            slot = (const uint64_t *)tp_poll(end);
        }
        if (slot == NULL)
            break;
        if (!is_whole(slot, end->local[TP_POSITION]))
            return TORN;
        tp_advance(end);
    }
    tp_release(end);
    return done;
}

int64_t soak_observe(struct tp_reader_end *end, int64_t count)
{
    uint64_t copy[1 + WORDS];
    int64_t seen = 0;
    for (int64_t look = 0; look < count; look++) {
        uint64_t position = end->local[TP_POSITION];
        int answer = tp_observe(end, copy);
        if (answer == TP_EMPTY)
            break;
        if (answer == TP_GOT ? !is_whole(copy, position)
                             : end->local[TP_LOST_FROM] != position || end->local[TP_POSITION] != position + end->local[TP_LOST_NOW])
            return TORN;
        seen += answer == TP_GOT;
    }
    return seen;
}
