/* What waits, never longer than it is told: spin, then yield, then sleep a little. Included by tickpath.h.
 *
 *     tp_push                 publish by the ring's own rule for a full one
 *     tp_claim_within, tp_poll_within, tp_observe_within        tp_claim, tp_poll and tp_observe, tried again for so many nanoseconds
 *
 * A timeout of 0 looks once and never reads a clock.
 */
#ifndef TICKPATH_WAIT_H
#define TICKPATH_WAIT_H

#include <sched.h>

#ifdef __cplusplus
extern "C" {
#endif

/* Looks before the scheduler is asked, and then before sleeping; what is slept between two looks. */
#define TP_SPINS         4000
#define TP_YIELDS        200
#define TP_SLEEP_NS      50000

struct tp_wait {
    uint64_t deadline_ns;
    uint32_t looks;
};

static inline struct tp_wait tp_wait_for(uint64_t timeout_ns)
{
    struct tp_wait wait;
    uint64_t now = tp_now_ns();
    wait.deadline_ns = now + timeout_ns < now ? UINT64_MAX : now + timeout_ns;
    wait.looks = 0;
    return wait;
}

/* Between two looks: spin, then yield, then sleep a little. 0 when the time is over. */
static inline int tp_wait_a_little(struct tp_wait *wait)
{
    wait->looks++;
    if (wait->looks < TP_SPINS && wait->looks % 64 != 0) {
        tp_pause();
        return 1;
    }
    uint64_t now = tp_now_ns();
    if (now >= wait->deadline_ns)
        return 0;
    if (wait->looks >= TP_SPINS + TP_YIELDS) {
        wait->looks = TP_SPINS + TP_YIELDS;
        tp_sleep_ns(wait->deadline_ns - now < TP_SLEEP_NS ? wait->deadline_ns - now : TP_SLEEP_NS);
    } else if (wait->looks >= TP_SPINS) {
        sched_yield();
    }
    return 1;
}

/* A program that beats is not to be called hung because it waits here. */
static inline void tp_beat_on(const struct tp_wait *wait, uint64_t *heartbeat)
{
    if (wait->looks >= TP_SPINS && tp_load_relaxed(heartbeat) != 0)
        tp_store_relaxed(heartbeat, __builtin_ia32_rdtsc());
}

/* tp_poll, again and again for `timeout_ns` at most. */
static inline const void *tp_poll_within(struct tp_reader_end *end, uint64_t timeout_ns)
{
    const void *slot = tp_poll(end);
    if (slot != NULL || timeout_ns == 0)
        return slot;
    struct tp_wait wait = tp_wait_for(timeout_ns);
    while ((slot = tp_poll(end)) == NULL && tp_wait_a_little(&wait))
        tp_beat_on(&wait, &end->block->heartbeat);
    return slot;
}

/* tp_observe, again and again for `timeout_ns` at most. */
static inline int tp_observe_within(struct tp_reader_end *end, void *copy, uint64_t timeout_ns)
{
    int got = tp_observe(end, copy);
    if (got != TP_EMPTY || timeout_ns == 0)
        return got;
    struct tp_wait wait = tp_wait_for(timeout_ns);
    while ((got = tp_observe(end, copy)) == TP_EMPTY && tp_wait_a_little(&wait))
        tp_beat_on(&wait, &end->block->heartbeat);
    return got;
}

/* tp_claim, again and again for `timeout_ns` at most. */
static inline void *tp_claim_within(struct tp_producer_end *end, uint64_t timeout_ns)
{
    void *slot = tp_claim(end);
    if (slot != NULL || timeout_ns == 0)
        return slot;
    struct tp_wait wait = tp_wait_for(timeout_ns);
    while (!tp_is_fenced(end->local) && tp_wait_a_little(&wait) && (slot = tp_claim(end)) == NULL)
        tp_beat_on(&wait, &end->block->heartbeat);
    return slot;
}

/* tp_claim, again and again for `timeout_ns` at most, letting readers go that are dead, or die meanwhile, and hold the ring up. */
static inline void *tp_claim_evicting(struct tp_producer_role *role, uint64_t timeout_ns)
{
    struct tp_wait wait = tp_wait_for(timeout_ns);
    for (;;) {
        if (wait.looks >= TP_SPINS || wait.looks % 64 == 0)
            tp_evict_dead(role);
        void *slot = tp_claim(&role->end);
        if (slot != NULL || tp_is_fenced(role->words) || !tp_wait_a_little(&wait))
            return slot;
        tp_beat_on(&wait, &role->end.block->heartbeat);
    }
}

/* A slot by the ring's own rule for a full one: wait; give up at once, counted; or let the dead go, wait for the living, then give up,
 * counted. */
static inline void *tp_claim_or_drop(struct tp_producer_role *role, uint64_t timeout_ns)
{
    uint32_t when_full = role->ring.slots.identity.when_full;
    if (when_full == TP_WHEN_FULL_WAIT)
        return tp_claim_within(&role->end, timeout_ns);
    void *slot = tp_claim(&role->end);
    if (slot == NULL && when_full == TP_WHEN_FULL_EVICT)
        slot = tp_claim_evicting(role, timeout_ns);
    if (slot == NULL && !tp_is_fenced(role->words))
        tp_drop(&role->end);
    return slot;
}

/* Publish `bytes` of payload, at most the slot's less 8 for its sequence; the rest of the slot keeps what it had. TP_GOT, TP_TOO_LONG, or
 * TP_FULL after `timeout_ns`, which may also mean that the role is another's (tp_is_fenced). */
static inline int tp_push(struct tp_producer_role *role, const void *payload, uint64_t bytes, uint64_t timeout_ns)
{
    if (bytes > role->end.slot_bytes - 8)
        return TP_TOO_LONG;
    uint8_t *slot = (uint8_t *)tp_claim_or_drop(role, timeout_ns);
    if (slot == NULL)
        return TP_FULL;
    tp_write_racing(slot + 8, payload, bytes);
    tp_commit(&role->end);
    return TP_GOT;
}

#ifdef __cplusplus
}
#endif

#endif
