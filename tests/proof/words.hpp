/* What the models share: the words of Relacy's memory model, and the mutants.
 *
 * A mutant is the protocol with one thing taken out. Each is chosen by name when the program starts, so that one compilation
 * serves them all; `none` is the protocol itself.
 */
#ifndef PROOF_WORDS_HPP
#define PROOF_WORDS_HPP

#include <relacy/relacy_std.hpp>

#define MUTANTS(X)               \
    X(none)                      \
    X(publish_relaxed)           \
    X(poll_relaxed)              \
    X(batch_poll_relaxed)        \
    X(release_relaxed)           \
    X(release_before_the_read)   \
    X(leave_relaxed)             \
    X(ask_position_relaxed)      \
    X(ask_mode_relaxed)          \
    X(room_for_one_too_many)     \
    X(ask_without_fence)         \
    X(ask_announces_nothing)     \
    X(ask_trusts_a_joiner)       \
    X(join_without_fence)        \
    X(join_ignores_the_limit)    \
    X(ask_ignores_joining)       \
    X(gate_relaxed)              \
    X(take_trusts_a_joiner)      \
    X(mark_missing)              \
    X(mark_without_fence)        \
    X(observe_relaxed)           \
    X(observe_without_fence)     \
    X(observe_without_recheck)   \
    X(lap_without_headroom)      \
    X(restart_trusts_its_word)   \
    X(restart_counts_the_mark)   \
    X(restart_forgets_the_mark)  \
    X(ask_takes_a_limit_back)    \
    X(open_without_mark)         \
    X(open_without_fence)        \
    X(close_relaxed)             \
    X(read_relaxed)              \
    X(read_ignores_odd)          \
    X(read_without_fence)        \
    X(read_without_recheck)      \
    X(reopen_counts_on)

#define MUTANT_NAME(name) name,
enum mutant_t { MUTANTS(MUTANT_NAME) };
#undef MUTANT_NAME

static mutant_t mutant = none;

static bool is(mutant_t which) { return mutant == which; }

typedef unsigned long long u64;
typedef long long i64;
typedef rl::atomic<u64> word;

using rl::memory_order;
using rl::mo_acquire;
using rl::mo_relaxed;
using rl::mo_release;
using rl::mo_seq_cst;

/* The order that the protocol asks for, or none in the mutant that forgot it. */
static memory_order unless(mutant_t which, memory_order order) { return is(which) ? mo_relaxed : order; }

/* How far position a is ahead of position b, of which one may have wrapped. */
static i64 ahead(u64 a, u64 b) { return (i64)(a - b); }

#define FENCE(order) rl::atomic_thread_fence(order, $)

#endif
