/* A line of the board: one writer, readers that copy and look at the version again. The writer dies in the middle of a line; the
 * next one finds its version odd, and readers see a busy line until it is whole again.
 */
#ifndef PROOF_BOARD_HPP
#define PROOF_BOARD_HPP

#include "words.hpp"

struct board : rl::test_suite<board, 3>
{
    enum { UPDATES = 3, TRIES = 4 };
    word version, halves[2];

    void before()
    {
        version.store(0, mo_relaxed, $);
        halves[0].store(0, mo_relaxed, $);
        halves[1].store(0, mo_relaxed, $);
    }

    void thread(unsigned index)
    {
        if (index == 0)
            write();
        else
            read();
    }

    u64 open()
    {
        u64 found = version.load(mo_acquire, $), whole = is(reopen_counts_on) ? found : found & ~1ull;
        if (!is(open_without_mark))
            version.store(whole + 1, mo_relaxed, $);
        if (!is(open_without_fence))
            FENCE(mo_release);
        return whole;
    }

    void write()
    {
        for (int update = 0; update != UPDATES; ++update)
        {
            if (rl::rand(3) == 0)
            {
                open();
                halves[0].store(1000, mo_relaxed, $);
            }
            u64 whole = open();
            halves[0].store(whole + 2, mo_relaxed, $);
            halves[1].store(whole + 2, mo_relaxed, $);
            version.store(whole + 2, unless(close_relaxed, mo_release), $);
        }
    }

    void read()
    {
        u64 last = 0;
        for (int again = 0; again != TRIES; ++again)
        {
            u64 seen = version.load(unless(read_relaxed, mo_acquire), $);
            if ((seen & 1) && !is(read_ignores_odd))
                continue;
            u64 first = halves[0].load(mo_relaxed, $);
            u64 second = halves[1].load(mo_relaxed, $);
            if (!is(read_without_fence))
                FENCE(mo_acquire);
            if (!is(read_without_recheck) && version.load(mo_acquire, $) != seen)
                continue;
            RL_ASSERT(first == seen);
            RL_ASSERT(second == seen);
            RL_ASSERT(seen >= last);
            last = seen;
        }
    }
};

#endif
