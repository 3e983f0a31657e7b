/* Read COUNT quotes of RING as its gating reader READER, in place, and give them back in batches. The producer never laps this one.
 *
 *     gcc -O2 -I.. consumer.c -o consumer && ./consumer demo strategy 1000000
 */
#include "tickpath.h"

#include "quote.h"

#define BATCH 64

int main(int argc, char **argv)
{
    static struct tp_reader_role in;
    const struct tp_expect expect = {sizeof(struct quote), QUOTE_SCHEMA_HASH, 0};
    struct tp_error error;
    if (argc != 4) {
        fprintf(stderr, "usage: %s RING READER COUNT\n", argv[0]);
        return 2;
    }
    if (tp_open_reader(&in, argv[1], argv[2], &expect, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    uint64_t count = strtoull(argv[3], NULL, 10), read = 0, wrong = 0;
    while (read < count) {
        const struct quote *quote = (const struct quote *)tp_poll(&in.end);
        if (quote == NULL) {
            tp_release(&in.end); /* before waiting: a full ring waits for us */
            quote = (const struct quote *)tp_poll_within(&in.end, 10000000000u);
        }
        if (quote == NULL) /* nothing came for 10 s */
            break;
        wrong += quote->number != read || quote->checksum != quote_checksum(quote);
        tp_advance(&in.end);
        if (++read % BATCH == 0)
            tp_release(&in.end);
    }
    tp_release(&in.end);
    printf("read=%llu wrong=%llu\n", (unsigned long long)read, (unsigned long long)wrong);
    tp_close_reader(&in);
    return read == count && wrong == 0 ? 0 : 1;
}
