"""The machine behind a figure, with what matters to a hop: where its two CPUs stand to each other, and what may interrupt them."""

from pathlib import Path
from typing import Any

from engine.runtime.cpus import parse_list
from tools.machine import describe

CPU = Path("/sys/devices/system/cpu")


def distance(cpu: int, other: int, root: Path = CPU) -> str:
    """How two CPUs share caches, as the kernel (on a virtual machine: the hypervisor) tells it."""
    if cpu == other:
        return "same CPU"
    if other in _list(root / f"cpu{cpu}/topology/thread_siblings_list"):
        return "same core (siblings)"
    for level, label in ((2, "same L2"), (3, "same L3")):
        if other in _shared_with(root / f"cpu{cpu}/cache", level):
            return label
    package = _list(root / f"cpu{cpu}/topology/package_cpus_list")
    if not package:
        return "unknown"
    return "across L3, same package" if other in package else "across packages"


def describe_pair(cpu: int, other: int) -> dict[str, Any]:
    """The machine, and the two CPUs that a benchmark is pinned to."""
    return {
        **describe(),
        "pair": [cpu, other],
        "distance": distance(cpu, other),
        "pair_isolated": {cpu, other} <= _list(CPU / "isolated"),
        "shmem_hugepages": _text(Path("/sys/kernel/mm/transparent_hugepage/shmem_enabled")),
    }


def _shared_with(caches: Path, level: int) -> set[int]:
    for cache in sorted(caches.glob("index*")):
        if _text(cache / "level") == str(level):
            return _list(cache / "shared_cpu_list")
    return set()


def _list(path: Path) -> set[int]:
    return set(parse_list(_text(path) or ""))


def _text(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None
