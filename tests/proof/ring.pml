/* The ring's life and death: locks that the kernel frees when a process dies, epochs, restarts, joins and evictions.
 *
 * Spin runs every interleaving of one store at a time, so memory orders are no matter here (Relacy has them). What is checked: whoever
 * dies, after whatever store, the others go on; a gating reader reads an exact sequence, nothing torn, nothing skipped but what it is told
 * of; no slot is written that a living reader may be in; there is one producer. Positions count from 0; a ring of two slots.
 *
 * PRODUCERS processes want to be the producer. Reader 0 is registered; reader 1 (READERS=2) joins a spare block. A producer that dies
 * comes back; a reader that dies may, and the producer lets those go that do not (the evict policy).
 *
 * MUTANT, a number from the environment, takes one thing out of the protocol, so that one compilation serves all of them.
 */
c_decl { \#include <stdlib.h> }

#ifndef MESSAGES
#define MESSAGES 4
#endif
#ifndef DEATHS
#define DEATHS 2
#endif
#ifndef PRODUCERS
#define PRODUCERS 2
#endif
#ifndef READERS
#define READERS 2
#endif
#define CAPACITY 2
#define NOWHERE (-9)
#define SLOT(position) ((position) % CAPACITY)

mtype = { ABSENT, GATING, EVICTED, JOINING };

/* Mutants. */
#define producer_without_lock     1
#define restart_trusts_its_word   2
#define restart_counts_the_mark   3
#define restart_has_room          4
#define restart_forgets_the_mark  5
#define ask_takes_a_limit_back    6
#define ask_ignores_joining       7
#define evict_without_lock        8
#define evict_unlocks_early       9
#define evict_without_second_look 10
#define reader_without_lock       11
#define reader_starts_at_newest   12
#define release_before_the_read   13
#define take_trusts_a_joiner      14
#define join_ignores_the_limit    15
byte mutant;

/* Shared memory. */
short sequence[CAPACITY];
byte first_half[CAPACITY], second_half[CAPACITY];
short producer_position, producer_limit;
byte producer_epoch;
short reader_position[READERS];
mtype reader_mode[READERS];
byte reader_epoch[READERS];

/* The kernel's locks: 0, or who holds it. */
byte producer_lock, reader_lock[READERS];

/* What only the checks know. */
byte committed, producers;
byte deaths = DEATHS;
short inside[READERS];      /* the position that a reader is reading now, or NOWHERE */
short expected[READERS];    /* the next position that this name has never read */
bool left[READERS];         /* it gave its block back, and no one has joined there since */

#define IS(which) (mutant == which)
/* One store, or death before it. */
#define STEP(what) if :: atomic { what } :: atomic { deaths > 0 -> deaths--; goto dead } fi

#define NEWEST(into, from) \
    d_step { \
        into = from; \
        do \
        :: into < from + CAPACITY && sequence[SLOT(into)] >= into + (IS(restart_counts_the_mark) -> 0 : 1) -> into++ \
        :: else -> break \
        od \
    }

#define MAX(a, b) ((a) > (b) -> (a) : (b))
#define MIN(a, b) ((a) < (b) -> (a) : (b))

#define BEHIND(k) ( \
    reader_mode[k] == GATING -> producer_position - reader_position[k] : \
    (reader_mode[k] == JOINING && !IS(ask_ignores_joining) -> CAPACITY : 0))

#define WAITED_FOR(k) (reader_mode[k] == GATING || reader_mode[k] == JOINING)
#define IS_FREE(k) (reader_lock[k] == 0 || IS(evict_without_lock))
/* Something has changed for a producer at a full ring. */
#define ROOM_OR_DEAD(position) \
    ((MAX(BEHIND(0), BEHIND(READERS - 1)) < CAPACITY) || (WAITED_FOR(0) && IS_FREE(0)) || (WAITED_FOR(READERS - 1) && IS_FREE(READERS - 1)))

/* No reader may be in the slot of `position`, one lap earlier. */
#define NOBODY_INSIDE(position) ((inside[0] != position - CAPACITY) && (inside[READERS - 1] != position - CAPACITY))

proctype Producer(byte me)
{
    short position, limit, behind;
    byte epoch, k;
    bool asked;
take:
    atomic {
        producer_lock == 0 || committed == MESSAGES || IS(producer_without_lock);
        if
        :: committed == MESSAGES -> goto done
        :: else -> producer_lock = me; producers++; assert(producers == 1)
        fi
    }
    STEP(producer_epoch++; epoch = producer_epoch);
    if
    :: IS(restart_trusts_its_word) -> position = producer_position
    :: else -> NEWEST(position, producer_position)
    fi;
    assert(position == committed);
    /* Whoever left its mark here had room for it. */
    limit = position + (sequence[SLOT(position)] == position && !IS(restart_forgets_the_mark) -> 1 : 0);
    if
    :: IS(restart_has_room) -> limit = position + CAPACITY
    :: else
    fi;
    do
    :: position == MESSAGES -> break
    :: position < MESSAGES && (position + 1 > limit || !asked) ->
        /* Ask: where there is no room, or once more often, as one does who wants room for several. */
        asked = true;
        if
        :: producer_epoch != epoch -> assert(IS(producer_without_lock)); break
        :: else
        fi;
        STEP(producer_position = position);
        STEP(producer_limit = position + CAPACITY);
        do
        :: k < READERS -> STEP(behind = MAX(behind, BEHIND(k)); k++)
        :: else -> break
        od;
        /* A limit once given is never taken back: there may be a slot half written below it. */
        limit = MAX(position - MIN(behind, CAPACITY) + CAPACITY, (IS(ask_takes_a_limit_back) -> 0 : limit));
        STEP(producer_limit = limit; behind = 0; k = 0);
        if
        :: position + 1 > limit ->
            ROOM_OR_DEAD(position);
            do
            :: k < READERS && WAITED_FOR(k) && IS_FREE(k) ->
                /* Let it go, if it can be locked: it is dead, and cannot come back meanwhile. */
                if
                :: atomic { IS_FREE(k) -> if :: !IS(evict_without_lock) -> reader_lock[k] = me :: else fi }
                    if
                    :: WAITED_FOR(k) || IS(evict_without_second_look) ->
                        STEP(reader_epoch[k] = reader_epoch[k] + 1);
                        if
                        :: IS(evict_unlocks_early) -> reader_lock[k] = 0
                        :: else
                        fi;
                        STEP(assert(!left[k]); reader_mode[k] = EVICTED)
                    :: else
                    fi;
                    atomic { if :: reader_lock[k] == me -> reader_lock[k] = 0 :: else fi }
                :: atomic { !IS_FREE(k) -> skip }
                fi;
                k++
            :: k < READERS && !(WAITED_FOR(k) && IS_FREE(k)) -> k++
            :: k == READERS -> k = 0; break
            od
        :: else
        fi
    :: position < MESSAGES && position + 1 <= limit ->
        /* Claim, fill, commit. */
        STEP(assert(NOBODY_INSIDE(position)); sequence[SLOT(position)] = position);
        STEP(assert(NOBODY_INSIDE(position)); first_half[SLOT(position)] = position + 1);
        STEP(assert(NOBODY_INSIDE(position)); second_half[SLOT(position)] = position + 1);
        STEP(assert(position == committed); sequence[SLOT(position)] = position + 1; committed++);
        position++
    od;
done:
    atomic { if :: producer_lock == me -> producer_lock = 0; producers-- :: else fi };
    goto end;
dead:
    /* The kernel frees what it had locked. A slot half written stays. */
    atomic {
        position = 0;
        limit = 0;
        behind = 0;
        k = 0;
        epoch = 0;
        asked = false;
        producer_lock = 0;
        producers--;
        if :: reader_lock[0] == me -> reader_lock[0] = 0 :: else fi;
        if :: reader_lock[READERS - 1] == me -> reader_lock[READERS - 1] = 0 :: else fi;
    }
    goto take;
end:
    skip
}

/* `k` is the name. Two processes of one name are never both the reader; the second is refused, which needs no model. */
proctype Reader(byte k)
{
    short position, oldest, newest, batch;
    byte epoch, me = 10 + k;
take:
    atomic {
        reader_lock[k] == 0 || IS(reader_without_lock);
        if :: reader_lock[k] == 0 -> reader_lock[k] = me :: else fi
    }
    STEP(reader_epoch[k] = reader_epoch[k] + 1; epoch = reader_epoch[k]);
    if
    :: reader_mode[k] == GATING || (IS(take_trusts_a_joiner) && reader_mode[k] == JOINING) ->
        STEP(position = reader_position[k]);
        if
        :: IS(reader_starts_at_newest) -> NEWEST(position, producer_position)
        :: else
        fi;
        assert(position <= expected[k]);
        STEP(reader_mode[k] = GATING)
    :: else ->
        STEP(reader_mode[k] = JOINING; left[k] = false);
        STEP(oldest = producer_limit - CAPACITY);
        NEWEST(newest, producer_position);
        if
        :: IS(join_ignores_the_limit) -> oldest = newest - CAPACITY
        :: else
        fi;
        /* It asks for the oldest, for the newest, or for where it stood. */
        if
        :: position = oldest
        :: position = newest
        :: position = MIN(reader_position[k], newest)
        fi;
        position = MAX(position, MAX(oldest, 0));
        STEP(reader_position[k] = position; oldest = 0; newest = 0);
        /* From here on it is owed every message. */
        STEP(reader_mode[k] = GATING; expected[k] = position)
    fi;
    do
    :: position == MESSAGES -> break
    :: position < MESSAGES ->
        /* Poll. A living reader that is never reached by a message would be stuck here, and Spin says so. */
        atomic { sequence[SLOT(position)] == position + 1 -> inside[k] = position };
        if
        :: IS(release_before_the_read) -> reader_position[k] = position + 1
        :: else
        fi;
        STEP(assert(first_half[SLOT(position)] == position + 1));
        STEP(assert(second_half[SLOT(position)] == position + 1));
        atomic {
            inside[k] = NOWHERE;
            assert(position <= expected[k]);
            expected[k] = MAX(expected[k], position + 1);
            position++
        };
        if
        :: batch == 0 && position < committed -> batch = 1
        :: else ->
            batch = 0;
            if
            :: reader_epoch[k] != epoch -> assert(IS(evict_without_lock) || IS(reader_without_lock)); goto done
            :: else
            fi;
            STEP(reader_position[k] = position)
        fi
    :: position > 0 && position < MESSAGES ->
        /* Leave for good. */
        STEP(reader_mode[k] = ABSENT; left[k] = true);
        goto done
    od;
    /* All is read: it gives its block back, so that nobody waits for it. */
    STEP(reader_position[k] = position);
    STEP(reader_mode[k] = ABSENT; left[k] = true);
done:
    atomic { if :: reader_lock[k] == me -> reader_lock[k] = 0 :: else fi };
    goto end;
dead:
    atomic {
        inside[k] = NOWHERE;
        batch = 0;
        position = 0;
        oldest = 0;
        newest = 0;
        epoch = 0;
        if :: reader_lock[k] == me -> reader_lock[k] = 0 :: else fi
    }
    if
    :: goto take
    :: goto end
    fi;
end:
    skip
}

init {
    atomic {
        c_code {
            char *number = getenv("MUTANT");
            now.mutant = number ? atoi(number) : 0;
        };
        sequence[0] = 0 - CAPACITY;
        sequence[1] = 1 - CAPACITY;
        inside[READERS - 1] = NOWHERE;
        reader_mode[READERS - 1] = ABSENT;
        left[READERS - 1] = true;
        inside[0] = NOWHERE;
        reader_mode[0] = GATING;
        left[0] = false;
        run Producer(1);
        if :: PRODUCERS == 2 -> run Producer(2) :: else fi;
        run Reader(0);
        if :: READERS == 2 -> run Reader(1) :: else fi
    }
}
