/* One producer and two gating readers of a ring that wraps: every reader reads every message, in place, and no slot is
 * written while a reader may be in it. Readers poll one by one, or for a batch, release after one or after two, die and come back
 * to what they had not released, and one of them may leave for good in the middle.
 */
#ifndef PROOF_GATING_HPP
#define PROOF_GATING_HPP

#include "ring.hpp"

struct gating_reader
{
    ring<in_place>& shared;
    int self;
    u64 position;

    gating_reader(ring<in_place>& shared, int self) : shared(shared), self(self)
    {
        position = shared.reader_position[self].load(mo_acquire, $);
    }

    bool poll(memory_order order, int count)
    {
        u64 end = position + count;
        return shared.sequence[shared.slot(end - 1)].load(order, $) == end;
    }

    void wait(memory_order order, int count)
    {
        while (!poll(order, count))
            rl::yield(1, $);
    }

    void read() { shared.payload[shared.slot(position)].check(position); ++position; }

    void release() { shared.reader_position[self].store(position, unless(release_relaxed, mo_release), $); }

    void leave() { shared.reader_mode[self].store(ABSENT, unless(leave_relaxed, mo_release), $); }

    /* Read up to `end`, at most `batch` messages to a release. */
    void read_until(u64 end, u64 batch)
    {
        while (position != end)
        {
            u64 count = 0;
            for (; count != batch && position != end; ++count)
            {
                wait(unless(poll_relaxed, mo_acquire), 1);
                if (is(release_before_the_read))
                    shared.reader_position[self].store(position + 1, mo_release, $);
                read();
            }
            release();
        }
    }
};

struct gating : rl::test_suite<gating, 3>
{
    enum { MESSAGES = 2 * CAPACITY + 1 };
    ring<in_place> shared;

    void before() { shared.create(GATING); }

    void thread(unsigned index)
    {
        if (index == 0)
            producer_end<in_place>(shared).push_until(FIRST + MESSAGES);
        else if (index == 1)
            read_one_by_one();
        else
            read_and_go();
    }

    void read_one_by_one()
    {
        gating_reader into(shared, 0);
        into.read_until(FIRST + 2, 1 + rl::rand(2));
        if (rl::rand(2))
        {
            into.wait(mo_acquire, 1);
            into.read();
        }
        /* It dies. What it read and did not release comes again. */
        gating_reader back(shared, 0);
        back.read_until(FIRST + MESSAGES, 1 + rl::rand(2));
    }

    void read_and_go()
    {
        gating_reader into(shared, 1);
        into.wait(unless(batch_poll_relaxed, mo_acquire), 2);
        into.read();
        into.read();
        if (rl::rand(2))
        {
            into.leave();
            return;
        }
        into.release();
        into.read_until(FIRST + MESSAGES, 1);
    }
};

#endif
