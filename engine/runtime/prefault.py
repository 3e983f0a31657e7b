"""Every page that the loop will touch, touched before it: no fault is left for the loop to take.

A fork shares its parent's pages until the first write, a fresh mapping has none, and code is mapped page by page as it runs.
Walking /proc/self/maps and populating each mapping settles all three without any right; mlockall then keeps them.
"""

import errno
import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from shm._shim import ffi, lib

# The kernel's own pages in every process; there is nothing to fault in.
KERNEL_PAGES = ("[vvar]", "[vvar_vclock]", "[vdso]", "[vsyscall]")


@dataclass(frozen=True)
class Mapping:
    address: int
    length: int
    writable: bool
    name: str


# Of another device's memory there is nothing to fault in (EINVAL); a mapping may be longer than its file (EFAULT).
PASSABLE = (errno.EINVAL, errno.EFAULT)


def touch_ahead(stack_kib: int, heap_kib: int) -> None:
    """Touch the stack below and a piece of heap, and keep both. OSError where there is no memory."""
    lib.tp_prefault_stack(stack_kib << 10)
    if failed := lib.tp_prefault_heap(heap_kib << 10) if heap_kib else 0:
        raise OSError(failed, os.strerror(failed))


def populate() -> None:
    """Fault in what is mapped now. OSError where a page cannot be had, or is not there."""
    seen = set(mappings())
    _populate(seen)
    # Looking made pages of its own.
    _populate(set(mappings()) - seen)


def _populate(found: Iterable[Mapping]) -> None:
    for mapping in found:
        failed = lib.tp_populate(ffi.cast("void *", mapping.address), mapping.length, mapping.writable)
        if failed and (failed not in PASSABLE or mapping.name == "[heap]"):
            raise OSError(failed, f"{os.strerror(failed)}: {mapping.name or 'anonymous memory'}, {mapping.length >> 10} KiB")


def mappings() -> Iterator[Mapping]:
    """What this process has mapped and may read, as /proc/self/maps lists it."""
    for line in Path("/proc/self/maps").read_text().splitlines():
        span, rights, _, _, _, *name = line.split(maxsplit=5)
        first, _, end = span.partition("-")
        start = int(first, 16)
        if rights[0] == "r" and not (name and name[0] in KERNEL_PAGES):
            yield Mapping(start, int(end, 16) - start, rights[1] == "w", name[0] if name else "")
