/* What shm/shim.c offers to Python. cffi reads this file, so it holds plain prototypes only. */

uint64_t tp_rdtsc(void);
int tp_tsc_is_invariant(void);
int tp_lock_memory(void);
int tp_die_with_parent(int signal_number);
int tp_set_timer_slack(unsigned long ns);
void tp_prefault_stack(size_t bytes);
int tp_prefault_heap(size_t bytes);
