/* The ring's protocol in C++ with every order named, as shm/hot.py and shm/tickpath.h have it. */
#ifndef PROOF_RING_HPP
#define PROOF_RING_HPP

#include "words.hpp"

/* Two slots are the least a ring can have, and wrap soonest. Positions begin three before 2^64, so they wrap too. */
#ifndef CAPACITY
#define CAPACITY 2
#endif
enum { READERS = 2 };
static u64 const FIRST = 0ull - 3;

enum { ABSENT, GATING, OBSERVER, EVICTED, JOINING };

/* Payload that may never be read while it is written: Relacy reports the race. */
struct in_place
{
    rl::var<u64> value;

    void write(u64 position) { value($) = position * 3; }
    void check(u64 position) { RL_ASSERT(value($) == position * 3); }
};

/* Payload that an observer may copy while it is overwritten: two words, so that a torn copy shows. */
struct copied
{
    word halves[2];

    void write_half(int half, u64 position) { halves[half].store(position * 3 + half, mo_relaxed, $); }
    void write(u64 position) { write_half(0, position); write_half(1, position); }
};

template <typename payload_t> struct ring
{
    word sequence[CAPACITY];
    payload_t payload[CAPACITY];
    word producer_position, producer_limit;
    word reader_position[READERS], reader_mode[READERS];

    void create(u64 mode)
    {
        for (u64 position = FIRST; position != FIRST + CAPACITY; ++position)
        {
            sequence[slot(position)].store(position - CAPACITY, mo_relaxed, $);
            payload[slot(position)].write(position - CAPACITY);
        }
        producer_position.store(FIRST, mo_relaxed, $);
        producer_limit.store(FIRST, mo_relaxed, $);
        for (int reader = 0; reader != READERS; ++reader)
        {
            reader_position[reader].store(FIRST, mo_relaxed, $);
            reader_mode[reader].store(mode, mo_relaxed, $);
        }
    }

    static u64 slot(u64 position) { return position & (CAPACITY - 1); }

    /* The position after the newest published message at or after `from`, by bisection over one lap. */
    u64 newest(u64 from)
    {
        u64 low = 0, high = CAPACITY;
        while (low < high)
        {
            u64 middle = (low + high) / 2, position = from + middle;
            u64 published = is(restart_counts_the_mark) ? position : position + 1;
            if (ahead(sequence[slot(position)].load(mo_acquire, $), published) >= 0)
                low = middle + 1;
            else
                high = middle;
        }
        return from + low;
    }
};

template <typename payload_t> struct producer_end
{
    ring<payload_t>& shared;
    u64 position, limit;

    /* Take the role: after creation, or after the one before died with a slot half written. Its lock is not part of this model. */
    explicit producer_end(ring<payload_t>& shared) : shared(shared)
    {
        position = shared.producer_position.load(mo_acquire, $);
        if (!is(restart_trusts_its_word))
            position = shared.newest(position);
        /* Whoever left its mark here had room for it. Else nothing is known: the first claim asks. */
        bool marked = shared.sequence[shared.slot(position)].load(mo_acquire, $) == position;
        limit = position + (marked && !is(restart_forgets_the_mark));
    }

    u64 slowest_reader()
    {
        i64 furthest_behind = 0;
        for (int reader = 0; reader != READERS; ++reader)
        {
            u64 mode = shared.reader_mode[reader].load(unless(ask_mode_relaxed, mo_acquire), $);
            if (mode == JOINING && !is(ask_ignores_joining) && !is(ask_trusts_a_joiner))
                furthest_behind = CAPACITY;
            if (mode != GATING && !(mode == JOINING && is(ask_trusts_a_joiner)))
                continue;
            i64 behind = ahead(position, shared.reader_position[reader].load(unless(ask_position_relaxed, mo_acquire), $));
            if (behind > furthest_behind)
                furthest_behind = behind;
        }
        if (furthest_behind > CAPACITY)
            furthest_behind = CAPACITY;
        return position - furthest_behind;
    }

    /* The highest limit that the look which follows may end with. */
    void announce()
    {
        shared.producer_position.store(position, mo_relaxed, $);
        if (!is(ask_announces_nothing))
            shared.producer_limit.store(position + CAPACITY, mo_relaxed, $);
    }

    bool ask(u64 wanted)
    {
        announce();
        if (!is(ask_without_fence))
            FENCE(mo_seq_cst);
        u64 free = slowest_reader() + CAPACITY + is(room_for_one_too_many);
        /* A limit once given is never taken back: there may be a slot half written below it. */
        if (ahead(free, limit) > 0 || is(ask_takes_a_limit_back))
            limit = free;
        shared.producer_limit.store(limit, mo_release, $);
        return ahead(wanted, limit) <= 0;
    }

    /* Wait for room, and mark the slot as being written. */
    payload_t& claim()
    {
        while (ahead(position + 1, limit) > 0 && !ask(position + 1))
            rl::yield(1, $);
        u64 index = shared.slot(position);
        if (!is(mark_missing))
            shared.sequence[index].store(position, mo_relaxed, $);
        if (!is(mark_without_fence))
            FENCE(mo_release);
        return shared.payload[index];
    }

    void commit()
    {
        u64 index = shared.slot(position++);
        shared.sequence[index].store(position, unless(publish_relaxed, mo_release), $);
    }

    void push()
    {
        claim().write(position);
        commit();
    }

    /* Go on to `end`, now and then asking earlier than need be, as one does who wants room for several. */
    void push_until(u64 end)
    {
        while (position != end)
        {
            if (rl::rand(4) == 0)
                ask(position + 1);
            push();
        }
    }
};

#endif
