/* One end of a ring, told by its caller what to do: a command a line (or, after `--`, an argument), an answer a line.
 *
 *     driver producer RING                          push N NS  fill N  commit  evict  drop  ask
 *     driver reader RING NAME                       poll NS  next NS  release  has N  skip N  conflate  restarts  leave
 *     driver joining RING NAME START POSITION       the same
 *     driver observer RING NAME|- START POSITION    observe NS  conflate  restarts  release
 *     always                                        local  capacity  beat  close
 *
 * START is resume, newest, oldest or at. Every message is whole or shown not to be: its words all follow from its number.
 *
 * Built with -DCRASH it ends by _exit(CRASH_CODE) after as many stores to the ring, or to its own words, as CRASH_AT in the environment
 * says, and counts them from the start of the program.
 */
#ifdef CRASH
void tp_crash_point(void);
#define TP_AFTER_STORE() tp_crash_point()
#endif

#include "tickpath.h"

#define CRASH_CODE  77
#define WORDS_MAX   64

#ifdef CRASH
static uint64_t stores_left;

void tp_crash_point(void)
{
    if (--stores_left == 0)
        _exit(CRASH_CODE);
}
#endif

static struct tp_producer_role producer;
static struct tp_reader_role reader;
static struct tp_error error;

static uint64_t word_of(uint64_t number, uint64_t k)
{
    return k == 0 ? number : (number + k) * 0x9e3779b97f4a7c15u ^ k;
}

static void fill(uint64_t *words, uint64_t count, uint64_t number)
{
    for (uint64_t k = 0; k < count; k++)
        words[k] = word_of(number, k);
}

static int is_whole(const uint64_t *words, uint64_t count)
{
    for (uint64_t k = 1; k < count; k++)
        if (words[k] != word_of(words[0], k))
            return 0;
    return 1;
}

/* What is said stays said, whenever the program dies. */
static void say(const char *what, uint64_t number)
{
    char line[64];
    int length = snprintf(line, sizeof line, "%s %llu\n", what, (unsigned long long)number);
    if (write(1, line, (size_t)length) != length)
        _exit(3);
}

static void say_message(const uint64_t *words, uint64_t count)
{
    if (words == NULL)
        say("empty", 0);
    else
        say(is_whole(words, count) ? "got" : "torn", words[0]);
}

static uint64_t number_after(const char *line, int skipped)
{
    const char *at = strchr(line, ' ');
    while (at != NULL && skipped-- > 0)
        at = strchr(at + 1, ' ');
    return at == NULL ? 0 : strtoull(at + 1, NULL, 10);
}

static int is(const char *line, const char *command)
{
    size_t length = strlen(command);
    return strncmp(line, command, length) == 0 && (line[length] == '\0' || line[length] == ' ');
}

static int as_producer(const char *line)
{
    uint64_t words[WORDS_MAX], count = producer.end.slot_bytes / 8 - 1;
    if (is(line, "push")) {
        fill(words, count, number_after(line, 0));
        int pushed = tp_push(&producer, words, 8 * count, number_after(line, 1));
        say(pushed == TP_GOT ? "pushed" : pushed == TP_FULL ? "full" : "too_long", number_after(line, 0));
    } else if (is(line, "bytes")) {
        int pushed = tp_push(&producer, words, number_after(line, 0), 0);
        say(pushed == TP_GOT ? "pushed" : pushed == TP_FULL ? "full" : "too_long", number_after(line, 0));
    } else if (is(line, "fill")) {
        uint8_t *slot = (uint8_t *)tp_claim(&producer.end);
        fill(words, count, number_after(line, 0));
        if (slot != NULL)
            tp_write_racing(slot + 8, words, 8 * count / 2);
        say(slot != NULL ? "filling" : "full", number_after(line, 0));
    } else if (is(line, "commit")) {
        tp_commit(&producer.end);
        say("committed", 0);
    } else if (is(line, "evict")) {
        say("evicted", tp_evict_dead(&producer));
    } else if (is(line, "ask")) {
        say("room", (uint64_t)tp_ask_readers(&producer.end, producer.words[TP_POSITION] + 1));
    } else if (is(line, "drop")) {
        tp_drop(&producer.end);
        say("dropped", producer.words[TP_DROPPED]);
    } else {
        return 0;
    }
    return 1;
}

static int as_reader(const char *line)
{
    uint64_t words[WORDS_MAX], count = reader.end.slot_bytes / 8;
    if (is(line, "poll") || is(line, "next")) {
        const uint64_t *slot = (const uint64_t *)tp_poll_within(&reader.end, number_after(line, 0));
        say_message(slot == NULL ? NULL : slot + 1, count - 1);
        if (slot != NULL && is(line, "next"))
            tp_advance(&reader.end);
    } else if (is(line, "observe")) {
        int got = tp_observe_within(&reader.end, words, number_after(line, 0));
        if (got == TP_LAPPED)
            say("lapped", reader.words[TP_LOST_NOW]);
        else
            say_message(got == TP_GOT ? words + 1 : NULL, count - 1);
    } else if (is(line, "release")) {
        tp_release(&reader.end);
        say(tp_is_fenced(reader.words) ? "fenced" : "released", reader.words[TP_POSITION]);
    } else if (is(line, "has")) {
        say("has", (uint64_t)tp_has_messages(&reader.end, number_after(line, 0)));
    } else if (is(line, "skip")) {
        tp_skip(&reader.end, number_after(line, 0));
        say("skipped", number_after(line, 0));
    } else if (is(line, "conflate")) {
        say("skipped", tp_conflate(&reader.end));
    } else if (is(line, "restarts")) {
        say("restarts", tp_restarts(&reader.end));
    } else if (is(line, "leave")) {
        tp_leave(&reader);
        say("left", 0);
    } else {
        return 0;
    }
    return 1;
}

static void obey(const char *line, int writes)
{
    const uint64_t *local = writes ? producer.words : reader.words;
    if (writes ? as_producer(line) : as_reader(line))
        return;
    if (is(line, "beat") && writes) {
        tp_producer_beat(&producer.end);
        say("beaten", 0);
    } else if (is(line, "beat")) {
        tp_reader_beat(&reader.end);
        say("beaten", 0);
    } else if (is(line, "local")) {
        for (int k = 0; k < TP_LOCAL_WORDS; k++)
            say("word", local[k]);
    } else if (is(line, "capacity")) {
        say("capacity", writes ? producer.end.capacity : reader.end.capacity);
    } else {
        say("what", 0);
    }
}

static enum tp_start start_of(const char *text)
{
    return is(text, "newest") ? TP_NEWEST : is(text, "oldest") ? TP_OLDEST : is(text, "at") ? TP_AT : TP_RESUME;
}

static uint64_t number_in(const char *variable)
{
    const char *text = getenv(variable);
    return text == NULL ? 0 : strtoull(text, NULL, 0);
}

static int open_end(const char *kind, char **argv)
{
    const struct tp_expect expect = {number_in("RECORD_BYTES"), number_in("SCHEMA_HASH"), number_in("BUILD_HASH")};
    if (is(kind, "producer"))
        return tp_open_producer(&producer, argv[0], &expect, &error);
    if (is(kind, "reader"))
        return tp_open_consumer(&reader, argv[0], argv[1], &expect, &error);
    if (is(kind, "joining"))
        return tp_open_joining(&reader, argv[0], argv[1], start_of(argv[2]), strtoull(argv[3], NULL, 10), &expect, &error);
    return tp_open_observer(&reader, argv[0], is(argv[1], "-") ? NULL : argv[1], start_of(argv[2]), strtoull(argv[3], NULL, 10), &expect,
                            &error);
}

int main(int argc, char **argv)
{
    char line[128];
#ifdef CRASH
    stores_left = number_in("CRASH_AT");
#endif
    if (argc < 3)
        return 2;
    int writes = is(argv[1], "producer"), given = 3;
    if (open_end(argv[1], argv + 2) != 0) {
        printf("error %d %s\n", error.code, error.text);
        return 1;
    }
    say("ok", (uint64_t)getpid());
    while (given < argc && strcmp(argv[given - 1], "--") != 0)
        given++;
    for (; given < argc; given++)
        obey(argv[given], writes);
    while (strcmp(argv[argc - 1], "--") == 0 && fgets(line, sizeof line, stdin) != NULL) {
        line[strcspn(line, "\n")] = '\0';
        if (is(line, "close"))
            break;
        obey(line, writes);
    }
    if (writes)
        tp_close_producer(&producer);
    else
        tp_close_reader(&reader);
    return 0;
}
