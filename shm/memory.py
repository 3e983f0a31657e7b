"""What memory a segment is asked to be made of, and what it was found to be made of.

Pages are made before the first use, so that no process meets a page fault while it trades: on the node that was asked for, in pages of
the size that was asked for, locked where that was asked for. The kernel may grant less without a word: a policy is a wish, a madvise is
a hint. `Placement` is therefore read back out of the kernel afterwards, and what was asked and not got is a sentence in `shortfalls`
that says what to do about it.
"""

import contextlib
import errno
import mmap
import os
import re
import resource
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from shm._shim import ffi, lib
from shm.identity import SegmentError
from shm.places import SHM, huge_places

PAGES = ("normal", "transparent", "huge")
MPOL_BIND = 2
NODES = Path("/sys/devices/system/node")
HUGE_POOLS = Path("/sys/kernel/mm/hugepages")


@dataclass(frozen=True)
class Memory:
    """What a segment should be made of.

    `pages` is "normal" (4096 bytes), "transparent" (the kernel joins pages to huge ones where /dev/shm's mount allows it) or "huge" (a
    file in a hugetlbfs mount, out of the pool of huge pages). `node` is the NUMA node, None for the one that the creator runs on.
    `lock` keeps the pages from being swapped out. `strict` makes an error of what cannot be had; otherwise the next best is taken,
    and `Placement.shortfalls` says so.
    """

    pages: str = "normal"
    node: int | None = None
    lock: bool = False
    strict: bool = False

    def __post_init__(self) -> None:
        if self.pages not in PAGES:
            raise ValueError(f"pages={self.pages!r}: expected one of {', '.join(PAGES)}")
        if self.node is not None and self.node not in nodes():
            raise ValueError(f"node={self.node}: expected one of this machine's NUMA nodes {nodes()}")


@dataclass(frozen=True)
class Placement:
    """What this process's mapping of a segment is made of, as the kernel tells it. Sizes in bytes.

    `nodes` is {NUMA node: bytes there}. Huge pages of a pool are never swapped and count as locked. The faults are those of the whole
    process since it mapped the segment: in a loop that trades they stay what they are.
    """

    asked: Memory
    bytes: int
    page_bytes: int
    huge_bytes: int
    resident_bytes: int
    locked_bytes: int
    nodes: dict[int, int]
    minor_faults: int
    major_faults: int
    shortfalls: tuple[str, ...]


def nodes() -> list[int]:
    """The NUMA nodes of this machine that have memory or could; [0] where the kernel knows no nodes."""
    found = sorted(int(path.name[4:]) for path in NODES.glob("node[0-9]*"))
    return found or [0]


# Making


@contextlib.contextmanager
def bound_to(node: int | None) -> Iterator[None]:
    """This thread's new pages come from `node` while the context lasts, and as before afterwards."""
    if node is None:
        yield
        return
    before = ffi.new("struct tp_policy *")
    _check(lib.tp_policy_get(before), f"node={node}: cannot ask for this thread's NUMA policy")
    _check(lib.tp_policy_set(_policy(node)), f"node={node}: cannot bind this thread's memory to it")
    try:
        yield
    finally:
        _check(lib.tp_policy_set(before), f"node={node}: cannot restore this thread's NUMA policy")


def bind(mapping: mmap.mmap, node: int | None) -> None:
    """The pages of `mapping` come from `node`, whoever touches them first."""
    if node is not None:
        with _address(mapping) as address:
            _check(lib.tp_policy_bind(address, len(mapping), _policy(node)), f"node={node}: cannot bind bytes={len(mapping)} to it")


def populate(mapping: mmap.mmap, *, writable: bool) -> None:
    """Have every page in this process's page table. OSError: EFAULT where the file is shorter than the mapping, ENOMEM, EHWPOISON."""
    with _address(mapping) as address:
        error = lib.tp_populate(address, len(mapping), writable)
    if error:
        raise OSError(error, os.strerror(error))


def advise(mapping: mmap.mmap, memory: Memory) -> None:
    """Ask for transparent huge pages. A kernel without them is found out by `measure`."""
    if memory.pages == "transparent":
        with contextlib.suppress(OSError):
            mapping.madvise(mmap.MADV_HUGEPAGE)


def lock(mapping: mmap.mmap, memory: Memory) -> None:
    """Lock the pages into memory. A limit that is too low is found out by `measure`."""
    if memory.lock:
        with _address(mapping) as address:
            lib.tp_lock_range(address, len(mapping))


def faults() -> tuple[int, int]:
    """Minor and major page faults of this process so far."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    return used.ru_minflt, used.ru_majflt


# Looking


def measure(mapping: mmap.mmap, asked: Memory, faults_before: tuple[int, int]) -> Placement:
    """What `mapping` is made of, and how that falls short of what was asked."""
    minor, major = faults()
    with _address(mapping) as address:
        start = int(ffi.cast("uintptr_t", address))
        areas = _areas(start, start + len(mapping))
        page_bytes = min((area["KernelPageSize"] for area in areas), default=0)
        where = _nodes_of(address, len(mapping), page_bytes or mmap.PAGESIZE)
    pooled = sum(area.get("Shared_Hugetlb", 0) + area.get("Private_Hugetlb", 0) for area in areas)
    joined = sum(area.get("ShmemPmdMapped", 0) + area.get("FilePmdMapped", 0) for area in areas)
    # The line Locked is a share, divided by the processes that map a page; the flag is not.
    locked = sum(area["Rss"] for area in areas if area["locked"])
    shortfalls = _shortfalls(asked, len(mapping), page_bytes, pooled + joined, locked + pooled, where)
    return Placement(
        asked=asked,
        bytes=len(mapping),
        page_bytes=page_bytes,
        huge_bytes=pooled + joined,
        resident_bytes=max(pooled, sum(area["Rss"] for area in areas)),
        locked_bytes=locked + pooled,
        nodes=where,
        minor_faults=minor - faults_before[0],
        major_faults=major - faults_before[1],
        shortfalls=tuple(shortfalls),
    )


def _areas(start: int, end: int) -> list[dict[str, int]]:
    """The lines of /proc/self/smaps on every area between two addresses, in bytes, with "locked" as 0 or 1."""
    areas: list[dict[str, int]] = []
    inside = False
    for line in Path("/proc/self/smaps").read_text().splitlines():
        if header := re.match(r"([0-9a-f]+)-([0-9a-f]+) ", line):
            low, high = (int(text, 16) for text in header.groups())
            inside = low < end and high > start
            if inside:
                areas.append({"locked": 0})
        elif inside:
            name, _, value = line.partition(":")
            if value.endswith(" kB"):
                areas[-1][name] = int(value[:-3]) * 1024
            elif name == "VmFlags":
                areas[-1]["locked"] = int("lo" in value.split())
    return areas


def _nodes_of(address: Any, size: int, page_bytes: int) -> dict[int, int]:
    count = size // page_bytes
    found = np.full(count, -errno.ENOENT, np.int32)
    if lib.tp_page_nodes(address, count, page_bytes, ffi.from_buffer("int32_t[]", found)):
        return {}
    return {node: pages * page_bytes for node, pages in sorted(Counter(found.tolist()).items()) if node >= 0}


def _shortfalls(asked: Memory, size: int, page_bytes: int, huge: int, locked: int, where: dict[int, int]) -> Iterator[str]:
    if asked.pages == "huge" and page_bytes == mmap.PAGESIZE:
        yield f"pages=huge: page_bytes={page_bytes}: {huge_cure(size)}"
    whole = size // huge_page_bytes() * huge_page_bytes()
    if asked.pages == "transparent" and not 0 < whole <= huge:
        yield f"pages=transparent: huge bytes={huge} of {size}: {_transparent_cure(size)}"
    if asked.node is not None and where != {asked.node: size}:
        there = where.get(asked.node, 0)
        yield f"node={asked.node}: bytes={there} of {size} are there, all of them by node: {where}; free memory there, then create it anew"
    if asked.lock and locked < size:
        yield f"lock: locked bytes={locked} of {size}: {_lock_cure()}"


# Cures


def huge_cure(size: int) -> str:
    """What to do so that a segment of `size` bytes gets huge pages."""
    mounts = [place for place in huge_places() if os.access(place.folder, os.W_OK | os.X_OK)]
    if not mounts:
        there = f" (there is {huge_places()[0].folder}, and this user may not write to it)" if huge_places() else ""
        return (
            f"no hugetlbfs mount{there}: as root, `mkdir -p /dev/hugepages && mount -t hugetlbfs -o uid=$(id -u USER) none /dev/hugepages`"
        )
    page = mounts[0].page_bytes
    pool = HUGE_POOLS / f"hugepages-{page // 1024}kB"
    have, free = (_number(pool / name) for name in ("nr_hugepages", "free_hugepages"))
    need = -(-size // page)
    return f"the pool of huge pages has free={free} of {have}, {need} needed: as root, `echo {have + need - free} > {pool}/nr_hugepages`"


def huge_page_bytes() -> int:
    """The size of a transparent huge page."""
    return _number(Path("/sys/kernel/mm/transparent_hugepage/hpage_pmd_size")) or 2 << 20


def node_free_bytes(node: int) -> int:
    """What node `node` could give without taking it from a process: free memory and files that can be read again."""
    text = (NODES / f"node{node}/meminfo").read_text() if (NODES / f"node{node}/meminfo").exists() else ""
    kilobytes = {name: int(value) for name, value in re.findall(r"(\w+): +(\d+) kB", text)}
    if not kilobytes:
        return 1 << 62
    return (kilobytes["MemFree"] + kilobytes.get("FilePages", 0) - kilobytes.get("Shmem", 0)) * 1024


def _transparent_cure(size: int) -> str:
    if size < huge_page_bytes():
        return f"it is smaller than a huge page of bytes={huge_page_bytes()}: make the ring larger"
    if not Path("/sys/kernel/mm/transparent_hugepage").exists():
        return "this kernel has no transparent huge pages"
    options = _mount_options(SHM)
    if not any(option in ("huge=advise", "huge=within_size", "huge=always") for option in options):
        return f"{SHM} is mounted without huge pages: as root, `mount -o remount,huge=advise {SHM}`, then create it anew"
    return "memory is too fragmented: reserve pages at boot and ask for pages=huge"


def _lock_cure() -> str:
    soft = resource.getrlimit(resource.RLIMIT_MEMLOCK)[0]
    limit = "unlimited" if soft == resource.RLIM_INFINITY else soft
    return f"RLIMIT_MEMLOCK={limit} bytes: raise it (`ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit) or grant CAP_IPC_LOCK"


def _mount_options(folder: Path) -> list[str]:
    options: list[str] = []
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, at, _, given, *_ = line.split(" ")
        if at == str(folder):
            options = given.split(",")
    return options


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0


def _policy(node: int) -> Any:
    policy = ffi.new("struct tp_policy *")
    policy.mode = MPOL_BIND
    policy.nodes[node // 64] = 1 << node % 64
    return policy


@contextlib.contextmanager
def _address(mapping: mmap.mmap) -> Iterator[Any]:
    """The mapping's first byte; released at once, since a mapping that is pointed at cannot be closed."""
    with ffi.from_buffer("char[]", mapping) as address:
        yield address


def _check(error: int, what: str) -> None:
    if error:
        raise SegmentError(f"{what}: {os.strerror(error)}")
