/* Publish COUNT quotes on RING, in place: claim a slot, fill it, commit it.
 *
 *     gcc -O2 -I.. producer.c -o producer && ./producer demo 1000000
 */
#include "tickpath.h"

#include "quote.h"

int main(int argc, char **argv)
{
    static struct tp_producer_role out;
    const struct tp_expect expect = {sizeof(struct quote), QUOTE_SCHEMA_HASH, 0};
    struct tp_error error;
    if (argc != 3) {
        fprintf(stderr, "usage: %s RING COUNT\n", argv[0]);
        return 2;
    }
    if (tp_open_producer(&out, argv[1], &expect, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    uint64_t count = strtoull(argv[2], NULL, 10), published = 0;
    for (; published < count; published++) {
        struct quote *quote = (struct quote *)tp_claim_within(&out.end, 10000000000u);
        if (quote == NULL) /* the ring is full, and its slowest reader stood still for 10 s */
            break;
        quote_fill(quote, published);
        tp_commit(&out.end);
    }
    printf("published=%llu\n", (unsigned long long)published);
    tp_close_producer(&out);
    return published == count ? 0 : 1;
}
