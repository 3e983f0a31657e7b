"""Which CPUs a process of ours may run on, and which of them were set aside for it.

A CPU is quiet where nothing runs that was not put there: isolated at boot (isolcpus), or in the cpuset that `tune` makes of the
latency CPUs. Neither shows in the affinity that a process starts with, so both are looked up.
"""

import os
from dataclasses import dataclass
from pathlib import Path

ROOT = Path("/")
SET_NAME = "tickpath.latency"


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
    online = parse(_read(root / "sys/devices/system/cpu/online")) or own
    isolated = parse(_read(root / "sys/devices/system/cpu/isolated"))
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
        cpus = parse(_read(path / "cpuset.cpus.effective") or _read(path / "cpuset.cpus"))
        if cpus:
            # In cgroup v2 whoever moves a process needs the right to write at both ends' common root.
            doors = [folder / "cgroup.procs" for folder in [path, *gates]]
            return LatencySet(path, cpus, all(os.access(door, os.W_OK) for door in doors))
    return None


def parse(text: str) -> frozenset[int]:
    """The kernel's CPU list: `0-3,8` is {0, 1, 2, 3, 8}."""
    cpus: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        if first:
            cpus |= set(range(int(first), int(last or first) + 1))
    return frozenset(cpus)


def listed(cpus: frozenset[int] | set[int]) -> str:
    """CPUs as a person writes them: {0, 1, 2, 5} is `0-2,5`."""
    runs: list[list[int]] = []
    for cpu in sorted(cpus):
        if runs and cpu == runs[-1][-1] + 1:
            runs[-1].append(cpu)
        else:
            runs.append([cpu])
    return ",".join(str(run[0]) if len(run) == 1 else f"{run[0]}-{run[-1]}" for run in runs)


def _read(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return ""
