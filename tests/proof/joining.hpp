/* Readers that join while the producer runs. The one order in the ring that needs stores before loads (Dekker): the producer
 * announces the highest limit that its look at the readers may end with, then looks; the joiner announces itself, then looks at
 * the limit. Each puts a full fence between the two, so at least one sees the other.
 *
 * Until it knows where it begins, the producer gets no room (JOINING). One that dies in that state leaves no position worth resuming
 * from: the next of its name joins again.
 */
#ifndef PROOF_JOINING_HPP
#define PROOF_JOINING_HPP

#include "gating.hpp"

struct joiner
{
    ring<in_place>& shared;
    int self;

    joiner(ring<in_place>& shared, int self) : shared(shared), self(self) {}

    u64 newest() { return shared.newest(shared.producer_position.load(mo_acquire, $)); }

    u64 at_least(u64 position, u64 least) { return ahead(position, least) < 0 ? least : position; }

    /* False where it died before it knew its position. */
    bool join(u64 wanted, bool dies)
    {
        shared.reader_mode[self].store(JOINING, mo_release, $);
        if (!is(join_without_fence))
            FENCE(mo_seq_cst);
        if (dies)
            return false;
        u64 oldest = shared.producer_limit.load(mo_acquire, $) - CAPACITY, latest = newest();
        if (is(join_ignores_the_limit))
            oldest = latest - CAPACITY;
        u64 position = ahead(wanted, latest) > 0 ? latest : wanted;
        gate(at_least(at_least(position, oldest), FIRST));
        return true;
    }

    void gate(u64 position)
    {
        shared.reader_position[self].store(position, mo_relaxed, $);
        shared.reader_mode[self].store(GATING, unless(gate_relaxed, mo_release), $);
    }

    /* The role, as whoever has its lock takes it: where it stood if it gates still, else by joining. The first may die at that. */
    void take(u64 wanted)
    {
        if (shared.reader_mode[self].load(mo_relaxed, $) == GATING || join(wanted, rl::rand(4) == 0))
            return;
        if (is(take_trusts_a_joiner))
            gate(shared.reader_position[self].load(mo_relaxed, $));
        else
            join(wanted, false);
    }
};

struct joining : rl::test_suite<joining, 3>
{
    enum { MESSAGES = 3 * CAPACITY };
    ring<in_place> shared;

    void before() { shared.create(ABSENT); }

    void thread(unsigned index)
    {
        if (index == 0)
            produce();
        else
            come_and_go(index - 1);
    }

    /* A producer dies: between two messages, or having announced a limit that it never used, or inside a slot. */
    void produce()
    {
        {
            producer_end<in_place> out(shared);
            out.push_until(FIRST + rl::rand(MESSAGES));
            unsigned where = rl::rand(3);
            if (where == 1)
                out.announce();
            else if (where == 2)
                out.claim().write(0);
        }
        producer_end<in_place>(shared).push_until(FIRST + MESSAGES);
    }

    /* Join, read to the end or a little, leave, and join again. */
    void come_and_go(int self)
    {
        for (int life = 0; life != 2; ++life)
        {
            joiner(shared, self).take(FIRST + rl::rand(MESSAGES + 1));
            gating_reader into(shared, self);
            u64 left = FIRST + MESSAGES - into.position;
            RL_ASSERT(left <= MESSAGES);
            into.read_until(into.position + rl::rand((unsigned)left + 1), 1 + rl::rand(2));
            into.leave();
        }
    }
};

#endif
