/* What shm/memory.c offers to Python. cffi reads this file, so it holds plain prototypes and structs only. */

/* A NUMA policy as the kernel keeps it: a mode (MPOL_*) and a bit for each of 1024 nodes. */
struct tp_policy {
    int32_t mode;
    int32_t mode_pad;
    uint64_t nodes[16];
};

void tp_store_release_u64(uint64_t *word, uint64_t value);
uint64_t tp_load_acquire_u64(const uint64_t *word);

int tp_policy_get(struct tp_policy *policy);
int tp_policy_set(const struct tp_policy *policy);
int tp_policy_bind(void *address, uint64_t bytes, const struct tp_policy *policy);
int tp_page_nodes(void *address, uint64_t pages, uint64_t page_bytes, int32_t *nodes);
int tp_populate(void *address, uint64_t bytes, int writable);
int tp_lock_range(void *address, uint64_t bytes);
