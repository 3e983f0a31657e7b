"""When a process may spin at SCHED_FIFO, which nothing of ordinary priority can interrupt.

What is bound to its CPU (the kernel's own threads for that CPU, and everything else, if there is no other CPU) then runs only in
what the kernel takes back by force: real-time throttling before Linux 6.12 and with RT_GROUP_SCHED, the fair server since.
"""

import os
import platform
import re
import resource
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from engine.layout import IDLE_SLEEP
from engine.runtime.cpus import ROOT, Cpus, fold
from engine.runtime.placement import Place

FAIR_SERVER_SINCE = (6, 12)


@dataclass(frozen=True)
class Throttle:
    """What the kernel takes back from real-time processes, of each period. `fair_server`: by CPU, where it could be read."""

    kernel: tuple[int, int] = (6, 12)
    runtime_us: int = 950_000
    period_us: int = 1_000_000
    group_scheduling: bool = False
    fair_server_ns: dict[int, int] = field(default_factory=dict)

    def spares(self, cpu: int) -> bool:
        """Whether ordinary processes get a share of this CPU from one that spins at FIFO."""
        return self._throttled() or self._served(cpu)

    def _throttled(self) -> bool:
        return (self.kernel < FAIR_SERVER_SINCE or self.group_scheduling) and 0 <= self.runtime_us < self.period_us

    def _served(self, cpu: int) -> bool:
        return self.kernel >= FAIR_SERVER_SINCE and self.fair_server_ns.get(cpu, 1) > 0

    def sentence(self, cpu: int) -> str:
        """What happens to a process that spins at FIFO on this CPU."""
        if self._throttled():
            lost_ms = (self.period_us - self.runtime_us) / 1e3
            return (
                f"RT throttling is on (sched_rt_runtime_us={self.runtime_us} of {self.period_us}): "
                f"one that spins loses up to {lost_ms:g} ms of every {self.period_us / 1e6:g} s"
            )
        if self._served(cpu):
            known = "is on" if cpu in self.fair_server_ns else "could not be read (debugfs, root) and is on by default"
            return f"the fair server of CPU {cpu} {known}: ordinary processes that wait there get 50 ms of every second"
        return f"nothing takes CPU {cpu} back: what the kernel binds to it starves (RCU stalls, hung tasks) for as long as we spin"


def read_throttle(root: Path = ROOT) -> Throttle:
    """How this kernel stands."""
    folder = root / "proc/sys/kernel"
    servers = (root / "sys/kernel/debug/sched/fair_server").glob("cpu*/runtime") if os.access(root / "sys/kernel/debug", os.X_OK) else []
    return Throttle(
        kernel_version(),
        _number(folder / "sched_rt_runtime_us", 950_000),
        _number(folder / "sched_rt_period_us", 1_000_000),
        group_scheduling(root),
        {int(path.parent.name[3:]): _number(path, 50_000_000) for path in servers},
    )


def kernel_version(release: str = "") -> tuple[int, int]:
    found = re.match(r"(\d+)\.(\d+)", release or platform.release())
    return (int(found[1]), int(found[2])) if found else (0, 0)


def group_scheduling(root: Path = ROOT) -> bool:
    """Whether real-time time is given out by cgroup (RT_GROUP_SCHED), as far as a cgroup v1 hierarchy shows it."""
    return any((root / "sys/fs/cgroup" / name / "cpu.rt_runtime_us").exists() for name in ("cpu", "cpu,cpuacct"))


def refusals(places: list[Place], cpus: Cpus, throttle: Throttle, supervisor: frozenset[int]) -> Iterator[str]:
    """Why processes may not spin at the FIFO priority that was asked for. `supervisor` are the CPUs that it may run on."""
    spinners = [place for place in places if place.fifo and place.idle != IDLE_SLEEP]
    for place in spinners:
        if reason := _reason(place, cpus, throttle):
            yield (
                f"process {place.name}: fifo={place.fifo} on CPU {place.cpu}, where it never sleeps: {reason}. "
                'Give it another CPU, idle = "sleep", or fifo = 0'
            )
    taken = {place.cpu for place in spinners}
    if spinners and supervisor <= taken:
        yield (
            f"CPUs {fold(supervisor)}: fifo takes all that the supervisor may run on, so nobody could stop the run; "
            "start it where it has another CPU (not from inside the latency cpuset: processes go there by themselves)"
        )


def _reason(place: Place, cpus: Cpus, throttle: Throttle) -> str:
    if len(cpus.online) == 1:
        return "it is the only CPU, and everything else on this machine needs it"
    if place.cpu == 0:
        return "the kernel keeps the machine's time and its unbound work there"
    if place.shared_with:
        return f"it is shared with {', '.join(place.shared_with)}, which would starve"
    if place.cpu not in cpus.quiet and not throttle.spares(place.cpu):
        return (
            f"it is not isolated, and with sched_rt_runtime_us={throttle.runtime_us} nothing gives others a turn; "
            "isolate it (tune, or isolcpus=) or let the kernel throttle again (sched_rt_runtime_us=950000)"
        )
    limit_us = resource.getrlimit(resource.RLIMIT_RTTIME)[0]
    if limit_us != resource.RLIM_INFINITY:
        return f"RLIMIT_RTTIME is {limit_us} us, after which the kernel would kill it (LimitRTTIME=infinity)"
    return ""


def notes(places: list[Place], cpus: Cpus, throttle: Throttle) -> Iterator[str]:
    """What whoever asked for FIFO should know."""
    spinners = [place for place in places if place.fifo and place.idle != IDLE_SLEEP]
    said: dict[str, list[str]] = {}
    for place in spinners:
        said.setdefault(throttle.sentence(place.cpu), []).append(place.name)
    for sentence, names in said.items():
        yield f"{', '.join(names)} at SCHED_FIFO: {sentence}"
    if loud := [place for place in spinners if place.cpu not in cpus.quiet]:
        where = ", ".join(f"CPU {place.cpu} ({place.name})" for place in loud)
        yield f"{where}: SCHED_FIFO on a CPU that is not isolated: the kernel's threads for it wait for their share"


def _number(path: Path, otherwise: int) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return otherwise
