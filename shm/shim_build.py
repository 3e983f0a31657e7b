"""The cffi recipe of `shm._shim`: layout.h for the types, shim.c for the code."""

from pathlib import Path

from cffi import FFI

HERE = Path(__file__).parent

PROTOTYPES = """
uint64_t tp_rdtsc(void);
int tp_tsc_is_invariant(void);
int tp_lock_memory(void);
int tp_die_with_parent(int signal_number);
int tp_set_timer_slack(unsigned long ns);
int tp_bind_memory(int node);
int tp_bound_node(void);
void tp_prefault_stack(size_t bytes);
int tp_prefault_heap(size_t bytes);
int tp_populate(uint64_t address, uint64_t bytes, int to_write);
"""

ffi = FFI()
ffi.cdef((HERE / "layout.h").read_text() + PROTOTYPES)
ffi.set_source(
    "shm._shim",
    (HERE / "shim.c").read_text(),
    include_dirs=[str(HERE)],
    depends=[str(HERE / "layout.h"), str(HERE / "shim.c")],
    extra_compile_args=["-O2", "-Wall", "-Wextra", "-Werror", "-Wno-unused-parameter", "-Wno-missing-field-initializers"],
)

if __name__ == "__main__":
    ffi.compile(verbose=True)
