/* Watch RING until quote LAST has passed: everything is mapped read-only, nobody waits for us, and what we miss is told.
 *
 *     gcc -O2 -I.. observer.c -o observer && ./observer demo 999999
 */
#include "tickpath.h"

#include "quote.h"

int main(int argc, char **argv)
{
    static struct tp_reader_role in;
    const struct tp_expect expect = {sizeof(struct quote), QUOTE_SCHEMA_HASH, 0};
    struct tp_error error;
    struct quote quote;
    if (argc != 3) {
        fprintf(stderr, "usage: %s RING LAST\n", argv[0]);
        return 2;
    }
    if (tp_open_observer(&in, argv[1], NULL, TP_OLDEST, 0, &expect, &error) != 0) {
        fprintf(stderr, "%s\n", error.text);
        return 1;
    }
    uint64_t last = strtoull(argv[2], NULL, 10), seen = 0, wrong = 0, position = in.words[TP_POSITION];
    quote.number = 0;
    for (int got; quote.number < last || seen == 0;) {
        got = tp_observe_within(&in.end, &quote, 10000000000u);
        if (got == TP_EMPTY) /* nothing came for 10 s */
            break;
        if (got == TP_LAPPED) { /* in.words[TP_LOST_NOW] were lost, from position in.words[TP_LOST_FROM] on */
            position += in.words[TP_LOST_NOW];
            continue;
        }
        wrong += quote.sequence != ++position || quote.checksum != quote_checksum(&quote);
        seen++;
    }
    printf("seen=%llu lost=%llu wrong=%llu last=%llu\n", (unsigned long long)seen, (unsigned long long)in.words[TP_LOST],
           (unsigned long long)wrong, (unsigned long long)quote.number);
    tp_close_reader(&in);
    return seen > 0 && quote.number >= last && wrong == 0 ? 0 : 1;
}
