/* The examples' record: a quote of one cache line. The first word is the ring's; the rest is yours.
 *
 * In Python, whoever creates the ring says the same:
 *
 *     QUOTE = np.dtype([("sequence", "u8"), ("number", "u8"), ("bid_price", "i8"), ("ask_price", "i8"), ("bid_quantity", "u4"),
 *                       ("ask_quantity", "u4"), ("sent_tsc", "u8"), ("venue", "u4"), ("flags", "u4"), ("checksum", "u8")])
 *     Ring.create("demo", 4096, {"quote": QUOTE}, readers=["strategy"])
 *
 * QUOTE_SCHEMA_HASH is `shm.layout.schema_hash(shm.layout.schema_of(quote=QUOTE))`, with the `kinds` that the ring was created with, if
 * any. A ring whose records are laid out otherwise is refused.
 */
#ifndef QUOTE_H
#define QUOTE_H

#include <stddef.h>
#include <stdint.h>

#define QUOTE_SCHEMA_HASH 0xd4e37050caaab335u

struct quote {
    uint64_t sequence;
    uint64_t number;
    int64_t bid_price;
    int64_t ask_price;
    uint32_t bid_quantity;
    uint32_t ask_quantity;
    uint64_t sent_tsc;
    uint32_t venue;
    uint32_t flags;
    uint64_t checksum;
};

/* Every byte of the payload counts, so one that is torn shows. */
static inline uint64_t quote_checksum(const struct quote *quote)
{
    uint64_t sizes = (uint64_t)quote->bid_quantity << 32 | quote->ask_quantity, marks = (uint64_t)quote->venue << 32 | quote->flags;
    return quote->number ^ 3 * (uint64_t)quote->bid_price ^ 5 * (uint64_t)quote->ask_price ^ 7 * sizes ^ 11 * quote->sent_tsc ^ 13 * marks;
}

static inline void quote_fill(struct quote *quote, uint64_t number)
{
    quote->number = number;
    quote->bid_price = (int64_t)(1000000 + number % 1000);
    quote->ask_price = quote->bid_price + 100;
    quote->bid_quantity = (uint32_t)number;
    quote->ask_quantity = ~(uint32_t)number;
    quote->sent_tsc = __builtin_ia32_rdtsc();
    quote->venue = 7;
    quote->flags = (uint32_t)(number >> 3);
    quote->checksum = quote_checksum(quote);
}

#endif
