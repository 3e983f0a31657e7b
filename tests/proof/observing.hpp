/* An observer beside a producer that waits for nobody: it copies, fences and looks at the sequence again. What it accepts is whole
 * and is the message of that position; what it did not get it knows by number. The producer dies in the middle of a slot, and the
 * next one writes that slot again.
 */
#ifndef PROOF_OBSERVING_HPP
#define PROOF_OBSERVING_HPP

#include "ring.hpp"

enum observed { GOT, EMPTY, LAPPED };

struct observer_end
{
    ring<copied>& shared;
    u64 position, lost;

    explicit observer_end(ring<copied>& shared) : shared(shared), position(FIRST), lost(0)
    {
        if (rl::rand(2))
            position = shared.newest(shared.producer_position.load(mo_acquire, $));
    }

    observed observe()
    {
        u64 index = shared.slot(position), wanted = position + 1;
        u64 seen = shared.sequence[index].load(unless(observe_relaxed, mo_acquire), $);
        if (seen == wanted)
        {
            u64 first = shared.payload[index].halves[0].load(mo_relaxed, $);
            u64 second = shared.payload[index].halves[1].load(mo_relaxed, $);
            if (!is(observe_without_fence))
                FENCE(mo_acquire);
            if (!is(observe_without_recheck))
                seen = shared.sequence[index].load(mo_acquire, $);
            if (seen == wanted)
            {
                RL_ASSERT(first == position * 3);
                RL_ASSERT(second == position * 3 + 1);
                position = wanted;
                return GOT;
            }
        }
        if (ahead(seen, wanted) < 0)
            return EMPTY;
        u64 headroom = is(lap_without_headroom) ? 0 : (CAPACITY >= 8 ? CAPACITY / 4 : 1);
        u64 oldest = shared.newest(seen) - CAPACITY + headroom;
        RL_ASSERT(ahead(oldest, position) > 0);
        lost += oldest - position;
        position = oldest;
        return LAPPED;
    }
};

struct observing : rl::test_suite<observing, 2>
{
    enum { MESSAGES = 3 * CAPACITY };
    ring<copied> shared;

    void before() { shared.create(ABSENT); }

    void thread(unsigned index)
    {
        if (index == 0)
            produce();
        else
            observe();
    }

    void produce()
    {
        unsigned dies_at = rl::rand(MESSAGES), halves = rl::rand(3);
        {
            producer_end<copied> out(shared);
            out.push_until(FIRST + dies_at);
            copied& slot = out.claim();
            for (unsigned half = 0; half != halves; ++half)
                slot.write_half(half, 1000 + half);
        }
        producer_end<copied> out(shared);
        RL_ASSERT(out.position == FIRST + dies_at);
        out.push_until(FIRST + MESSAGES);
    }

    void observe()
    {
        observer_end into(shared);
        u64 got = 0, before = into.position - FIRST;
        while (into.position != FIRST + MESSAGES)
        {
            observed what = into.observe();
            got += what == GOT;
            if (what == EMPTY)
                rl::yield(1, $);
        }
        RL_ASSERT(before + got + into.lost == MESSAGES);
    }
};

#endif
