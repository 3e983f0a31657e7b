/* Read COUNT quotes of RING as its gating reader READER from C++, and give them back in batches.
 *
 *     g++ -std=c++17 -O2 -I.. consumer.cpp -o consumer_cpp && ./consumer_cpp demo strategy 1000000
 */
#include "ring.hpp"

#include "quote.h"

#include <cstdlib>
#include <iostream>
#include <memory>

using namespace std::chrono_literals;

static int run(const char *ring, const char *reader, uint64_t count)
{
    constexpr uint64_t batch = 64;
    const auto in = std::make_unique<tickpath::Consumer<quote>>(ring, reader, QUOTE_SCHEMA_HASH);
    uint64_t read = 0, wrong = 0;
    while (read < count) {
        const quote *next = in->poll();
        if (next == nullptr) {
            in->release(); // before waiting: a full ring waits for us
            next = in->poll(10s);
        }
        if (next == nullptr)
            break;
        wrong += next->number != read || next->checksum != quote_checksum(next);
        in->advance();
        if (++read % batch == 0)
            in->release();
    }
    in->release();
    std::cout << "read=" << read << " wrong=" << wrong << std::endl;
    return read == count && wrong == 0 ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 4) {
        std::cerr << "usage: " << argv[0] << " RING READER COUNT" << std::endl;
        return 2;
    }
    try {
        return run(argv[1], argv[2], std::strtoull(argv[3], nullptr, 10));
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
