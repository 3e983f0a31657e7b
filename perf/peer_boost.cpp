/* boost::lockfree::spsc_queue beside which the ring is measured: 64-byte messages one way, every payload byte written and checked.
 *
 *     g++ -std=c++17 -O3 -march=native peer_boost.cpp -o peer_boost -pthread && ./peer_boost 0 1 4000000 16384
 *
 *     CPU_A CPU_B MESSAGES CAPACITY       the writer's core, the reader's, how many, and one of the capacities below
 *
 * The queue has a fixed capacity (boost::lockfree::capacity), lies in anonymous memory shared by two processes, one on each core, and is
 * written to whole before the clock starts. One line of JSON, messages per second of each way to use it, the best first to look at:
 *
 *     {"capacity": 16384, "messages": 4000000, "best_mps": 31.2, "best": "batch_in_place_64", "single_mps": ..., ...}
 *
 *     single              push(message), pop(message)
 *     batch_N             push(messages, N), pop(messages, N): N messages are written, pushed, popped and checked together
 *     in_place_N          push(messages, N), consume_all(check): popped without a copy
 *
 * A process that waits for 20 s ends the program; exit code 1 says so, or that a byte was wrong.
 */
#include <boost/lockfree/spsc_queue.hpp>

#include <algorithm>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <new>
#include <sched.h>
#include <string>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>
#include <vector>

namespace {

using Clock = std::chrono::steady_clock;
constexpr std::uint64_t words = 8;
constexpr std::uint64_t batch_max = 256;
constexpr std::uint64_t looks_max = std::uint64_t(1) << 14;
constexpr auto patience = std::chrono::seconds(20);

struct alignas(64) Message {
    std::uint64_t word[words];
};
static_assert(sizeof(Message) == 64, "a message is a cache line");

/* What both processes see beside the queue. */
struct alignas(64) Signals {
    alignas(64) std::atomic<std::uint64_t> ready{0};
    alignas(64) std::atomic<std::uint64_t> finished{0};
    alignas(64) std::atomic<std::uint64_t> wrong{0};
};

inline void fill(Message &message, std::uint64_t number)
{
    for (std::uint64_t k = 0; k < words; k++)
        message.word[k] = number + k;
}

inline std::uint64_t wrong_bits(const Message &message, std::uint64_t number)
{
    std::uint64_t wrong = 0;
    for (std::uint64_t k = 0; k < words; k++)
        wrong |= message.word[k] ^ (number + k);
    return wrong;
}

/* A spin that ends: the process, when nothing has happened for `patience`. */
class Spin {
public:
    void moved() { looks_ = 0; }
    void wait()
    {
        __builtin_ia32_pause();
        if (++looks_ % looks_max != 0)
            return;
        if (looks_ == looks_max)
            since_ = Clock::now();
        else if (Clock::now() - since_ > patience) {
            std::fprintf(stderr, "nothing moved for 20 s: the other process died, or has no core to run on\n");
            _exit(1);
        }
    }

private:
    std::uint64_t looks_ = 0;
    Clock::time_point since_;
};

template <typename Condition>
void wait_until(Condition condition)
{
    for (Spin spin; !condition();)
        spin.wait();
}

/* Ways to use a queue: `write` and `read` move `count` messages, the first of them `first`, and read returns bits that were wrong. */

struct Single {
    template <typename Queue>
    static void write(Queue &queue, std::uint64_t count)
    {
        Message message;
        Spin spin;
        for (std::uint64_t i = 0; i < count; i++) {
            fill(message, i);
            while (!queue.push(message))
                spin.wait();
            spin.moved();
        }
    }
    template <typename Queue>
    static std::uint64_t read(Queue &queue, std::uint64_t count)
    {
        Message message;
        Spin spin;
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < count; i++) {
            while (!queue.pop(message))
                spin.wait();
            spin.moved();
            wrong |= wrong_bits(message, i);
        }
        return wrong;
    }
};

template <std::uint64_t batch>
struct Batch {
    template <typename Queue>
    static void write(Queue &queue, std::uint64_t count)
    {
        static Message messages[batch_max];
        Spin spin;
        for (std::uint64_t i = 0; i < count;) {
            const std::uint64_t size = std::min(batch, count - i);
            for (std::uint64_t j = 0; j < size; j++)
                fill(messages[j], i + j);
            for (std::uint64_t pushed = 0; pushed < size;) {
                const std::uint64_t now = queue.push(messages + pushed, size - pushed);
                now ? spin.moved() : spin.wait();
                pushed += now;
            }
            i += size;
        }
    }
    template <typename Queue>
    static std::uint64_t read(Queue &queue, std::uint64_t count)
    {
        static Message messages[batch_max];
        Spin spin;
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < count;) {
            const std::uint64_t got = queue.pop(messages, batch);
            got ? spin.moved() : spin.wait();
            for (std::uint64_t j = 0; j < got; j++)
                wrong |= wrong_bits(messages[j], i + j);
            i += got;
        }
        return wrong;
    }
};

template <std::uint64_t batch>
struct InPlace : Batch<batch> {
    template <typename Queue>
    static std::uint64_t read(Queue &queue, std::uint64_t count)
    {
        Spin spin;
        std::uint64_t wrong = 0;
        for (std::uint64_t i = 0; i < count;) {
            const std::uint64_t got = queue.consume_all([&](const Message &message) { wrong |= wrong_bits(message, i++); });
            got ? spin.moved() : spin.wait();
        }
        return wrong;
    }
};

bool pin(int cpu)
{
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    return sched_setaffinity(0, sizeof set, &set) == 0;
}

template <typename Shared>
Shared *shared()
{
    void *memory = mmap(nullptr, sizeof(Shared), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        std::exit(1);
    }
    std::memset(memory, 0, sizeof(Shared));
    return new (memory) Shared();
}

/* A forked process has the memory, but not yet the pages in its table. */
template <typename Shared>
void touch(const Shared *shared)
{
    const auto *bytes = reinterpret_cast<const volatile unsigned char *>(shared);
    for (std::size_t at = 0; at < sizeof(Shared); at += 4096)
        (void)bytes[at];
}

struct Rig {
    int cpu_a;
    int cpu_b;
    std::uint64_t messages;
};

/* Millions of messages a second of one way to use a queue of one capacity; the writer's clock, from start to the last one checked. */
template <typename Way, std::size_t slots>
double measure(const Rig &rig)
{
    using Queue = boost::lockfree::spsc_queue<Message, boost::lockfree::capacity<slots>>;
    auto *queue = shared<Queue>();
    auto *signals = shared<Signals>();
    const pid_t reader = fork();
    if (reader < 0) {
        std::perror("fork");
        std::exit(1);
    }
    if (reader == 0) {
        if (!pin(rig.cpu_b))
            _exit(1);
        touch(queue);
        signals->ready = 1;
        signals->wrong = Way::read(*queue, rig.messages);
        signals->finished = 1;
        _exit(0);
    }
    wait_until([&] { return signals->ready == 1; });
    const auto start = Clock::now();
    Way::write(*queue, rig.messages);
    wait_until([&] { return signals->finished == 1; });
    const std::chrono::duration<double> seconds = Clock::now() - start;
    int status = 0;
    waitpid(reader, &status, 0);
    if (signals->wrong != 0 || status != 0) {
        std::fprintf(stderr, "a message arrived with a wrong byte, or the reader died\n");
        std::exit(1);
    }
    munmap(queue, sizeof(Queue));
    munmap(signals, sizeof(Signals));
    return static_cast<double>(rig.messages) / seconds.count() / 1e6;
}

struct Result {
    std::string way;
    double mps;
};

template <std::size_t slots>
int run(const Rig &rig)
{
    const std::vector<Result> results = {
        {"single", measure<Single, slots>(rig)},           {"batch_16", measure<Batch<16>, slots>(rig)},
        {"batch_64", measure<Batch<64>, slots>(rig)},      {"batch_256", measure<Batch<256>, slots>(rig)},
        {"in_place_64", measure<InPlace<64>, slots>(rig)}, {"in_place_256", measure<InPlace<256>, slots>(rig)},
    };
    const auto best = std::max_element(results.begin(), results.end(), [](const Result &a, const Result &b) { return a.mps < b.mps; });
    std::printf("{\"capacity\": %zu, \"messages\": %llu, \"best_mps\": %.3f, \"best\": \"%s\"", slots,
                static_cast<unsigned long long>(rig.messages), best->mps, best->way.c_str());
    for (const Result &result : results)
        std::printf(", \"%s_mps\": %.3f", result.way.c_str(), result.mps);
    std::printf("}\n");
    return 0;
}

int dispatch(const Rig &rig, unsigned long capacity)
{
    switch (capacity) {
    case 256:
        return run<256>(rig);
    case 1024:
        return run<1024>(rig);
    case 4096:
        return run<4096>(rig);
    case 16384:
        return run<16384>(rig);
    case 65536:
        return run<65536>(rig);
    case 262144:
        return run<262144>(rig);
    default:
        std::fprintf(stderr, "capacity=%lu: expected 256, 1024, 4096, 16384, 65536 or 262144\n", capacity);
        return 2;
    }
}

} // namespace

int main(int argc, char **argv)
{
    if (argc != 5) {
        std::fprintf(stderr, "usage: %s CPU_A CPU_B MESSAGES CAPACITY\n", argv[0]);
        return 2;
    }
    const Rig rig = {std::atoi(argv[1]), std::atoi(argv[2]), std::strtoull(argv[3], nullptr, 10)};
    if (!pin(rig.cpu_a)) {
        std::fprintf(stderr, "cpu=%d: cannot run there; expected one that `taskset -p $$` shows\n", rig.cpu_a);
        return 2;
    }
    return dispatch(rig, std::strtoul(argv[4], nullptr, 10));
}
