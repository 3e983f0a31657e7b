"""Which CPUs a process of ours may run on, and which of them were set aside for it.

A CPU is quiet where nothing runs that was not put there: isolated at boot (isolcpus), or in the cpuset that `tune` makes of the
latency CPUs. Neither shows in the affinity that a process starts with, so both are looked up.
"""

import os
import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
SET_NAME = "tickpath.latency"
CPU_MAX = 8191


@dataclass(frozen=True)
class LatencySet:
    """The cpuset that `tune apply` made. `enterable`: whether this user may put a process into it."""

    path: Path
    cpus: frozenset[int]
    enterable: bool

    def enter(self) -> None:
        """Move this process into the set. OSError where it may not."""
        (self.path / "cgroup.procs").write_text("0")


@dataclass(frozen=True)
class Cpus:
    """The CPUs of this machine as this process finds them."""

    online: frozenset[int]
    own: frozenset[int]
    isolated: frozenset[int]
    latency_set: LatencySet | None = None

    @property
    def quiet(self) -> frozenset[int]:
        """Set aside, and open to us."""
        entered = self.latency_set.cpus if self.latency_set is not None and self.latency_set.enterable else frozenset()
        return self.isolated | entered

    @property
    def usable(self) -> frozenset[int]:
        return self.own | self.quiet

    def closed(self, cpu: int) -> bool:
        """Whether the CPU is in a latency set that this user may not enter."""
        return cpu not in self.usable and self.latency_set is not None and cpu in self.latency_set.cpus


def look(root: Path = ROOT) -> Cpus:
    """The CPUs as they are now."""
    own = frozenset(os.sched_getaffinity(0))
    online = frozenset(parse_list(_read(root / "sys/devices/system/cpu/online"))) or own
    isolated = frozenset(parse_list(_read(root / "sys/devices/system/cpu/isolated")))
    return Cpus(online, own, isolated & reachable() if isolated else isolated, latency_set(root))


def reachable() -> frozenset[int]:
    """Every CPU this process could pin itself to: the kernel cuts a request for all of them down to those."""
    before = os.sched_getaffinity(0)
    try:
        os.sched_setaffinity(0, range(os.sysconf("SC_NPROCESSORS_CONF")))
        return frozenset(os.sched_getaffinity(0))
    finally:
        os.sched_setaffinity(0, before)


def latency_set(root: Path = ROOT) -> LatencySet | None:
    """The cpuset of `tune`, cgroup v2 or v1; None where it was not applied."""
    groups = root / "sys/fs/cgroup"
    for path, gates in ((groups / SET_NAME, [groups]), (groups / "cpuset" / SET_NAME, [])):
        cpus = frozenset(parse_list(_read(path / "cpuset.cpus.effective") or _read(path / "cpuset.cpus")))
        if cpus:
            # In cgroup v2 whoever moves a process needs the right to write at both ends' common root.
            doors = [folder / "cgroup.procs" for folder in [path, *gates]]
            return LatencySet(path, cpus, all(os.access(door, os.W_OK) for door in doors))
    return None


def parse_list(text: str) -> list[int]:
    """The CPUs of a list such as "0-3,8", each once, ascending; none of an empty one. ValueError where it is no list."""
    cpus: set[int] = set()
    for part in text.strip().split(",") if text.strip() else []:
        found = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        first, last = (int(found[1]), int(found[2] or found[1])) if found else (1, 0)
        if not first <= last <= CPU_MAX:
            raise ValueError(f"cpus={text}: expected a CPU list such as 2-5,8")
        cpus.update(range(first, last + 1))
    return sorted(cpus)


def fold(cpus: Iterable[int]) -> str:
    """The shortest list of some CPUs, as the kernel writes it: {0, 1, 2, 5} is `0-2,5`."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{first}" if first == last else f"{first}-{last}" for first, last in runs)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
