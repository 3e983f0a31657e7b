"""CPU numbers: lists as the kernel writes them, which CPUs are for latency, and getting onto one that a cpuset keeps for itself."""

import os
from pathlib import Path

from engine.runtime.cpus import parse_list

ROOT = Path("/")

# The sets that `tuning/tune apply` makes (knobs cpuset-v2 and cpuset-v1): only who is in them may run on their CPUs.
LATENCY_SETS = ("sys/fs/cgroup/tickpath.latency", "sys/fs/cgroup/cpuset/tickpath.latency")


def read_text(path: Path) -> str | None:
    """A small file's text without its ends, or None where it cannot be read."""
    try:
        return path.read_text(errors="replace").strip()
    except OSError:
        return None


def read_list(path: Path) -> list[int] | None:
    """The CPU list in a file; None where there is none to read."""
    text = read_text(path)
    try:
        return None if text is None else parse_list(text)
    except ValueError:
        return None


def siblings(cpu: int, root: Path = ROOT) -> list[int] | None:
    """The CPUs of a CPU's core, itself included; None where the kernel does not say."""
    return read_list(root / f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list")


def latency_set(cpu: int, root: Path = ROOT) -> Path | None:
    """The folder of the cpuset that keeps this CPU for the engine, if `tune apply` made one."""
    return next((root / name for name in LATENCY_SETS if cpu in (read_list(root / name / "cpuset.cpus") or [])), None)


def isolated(root: Path = ROOT) -> list[int]:
    """CPUs that the scheduler leaves alone: by isolcpus=, by an isolated partition, or in a latency set of ours."""
    files = ["sys/devices/system/cpu/isolated", "sys/fs/cgroup/cpuset.cpus.isolated", *(f"{name}/cpuset.cpus" for name in LATENCY_SETS)]
    return sorted({cpu for name in files for cpu in read_list(root / name) or []})


def worth_measuring(root: Path = ROOT) -> list[int]:
    """The CPUs a latency process would get: the isolated ones, or all of ours but CPU 0's core, or that as well if it is all."""
    if apart := isolated(root):
        return apart
    usable = sorted(os.sched_getaffinity(0))
    housekeeping = set(siblings(0, root) or [0])
    return [cpu for cpu in usable if cpu not in housekeeping] or usable


def run_on(cpu: int, root: Path = ROOT) -> Path | None:
    """Pin this process to a CPU, joining the latency set that keeps it if there is one; that set, or None. OSError where refused."""
    joined = latency_set(cpu, root)
    if joined is not None and cpu not in os.sched_getaffinity(0):
        (joined / "cgroup.procs").write_text(f"{os.getpid()}\n")
    else:
        joined = None
    os.sched_setaffinity(0, {cpu})
    return joined
