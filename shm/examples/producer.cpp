/* Publish COUNT quotes on RING from C++.
 *
 *     g++ -std=c++17 -O2 -I.. producer.cpp -o producer_cpp && ./producer_cpp demo 1000000
 */
#include "ring.hpp"

#include "quote.h"

#include <cstdlib>
#include <iostream>
#include <memory>

using namespace std::chrono_literals;

static int run(const char *ring, uint64_t count)
{
    const auto out = std::make_unique<tickpath::Producer<quote>>(ring, QUOTE_SCHEMA_HASH);
    uint64_t published = 0;
    for (quote record{}; published < count; published++) {
        quote_fill(&record, published);
        if (!out->push(record, 10s))
            break;
    }
    std::cout << "published=" << published << std::endl;
    return published == count ? 0 : 1;
}

int main(int argc, char **argv)
{
    if (argc != 3) {
        std::cerr << "usage: " << argv[0] << " RING COUNT" << std::endl;
        return 2;
    }
    try {
        return run(argv[1], std::strtoull(argv[2], nullptr, 10));
    } catch (const std::exception &error) {
        std::cerr << error.what() << std::endl;
        return 1;
    }
}
