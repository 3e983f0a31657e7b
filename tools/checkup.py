"""What one check of `tickpath doctor` is, and the machine it reads: paths below a root, so that a test's folder is a machine too."""

import os
from dataclasses import dataclass
from pathlib import Path

from tools import cpus
from tools.cpus import ROOT, read_list, read_text

OK, ADVICE, PROBLEM, UNKNOWN = "ok", "advice", "problem", "unknown"
# Bits of CapEff in /proc/PID/status (linux/capability.h).
CAP_IPC_LOCK, CAP_SYS_NICE = 14, 23


@dataclass(frozen=True)
class Check:
    """One answer. `worth` orders those of the same state, the most first; a box where an essential one is unknown is not fit."""

    name: str
    state: str
    found: str
    costs: str = ""
    cure: str = ""
    worth: int = 50
    essential: bool = False
    danger: str = ""


@dataclass(frozen=True)
class Machine:
    """A machine below `root`, and who asks: None stands for what cannot be read."""

    root: Path = ROOT
    uid: int = 0

    def text(self, path: str) -> str | None:
        """A file's text; None also where it is empty, which says as little as one that is missing."""
        return read_text(self.root / path) or None

    def cpu_list(self, path: str) -> list[int] | None:
        return read_list(self.root / path) or None

    def exists(self, path: str) -> bool:
        return (self.root / path).exists()

    def glob(self, pattern: str) -> list[Path]:
        return sorted(self.root.glob(pattern))

    def cpu_flags(self) -> set[str] | None:
        for line in (self.text("proc/cpuinfo") or "").splitlines():
            if line.startswith("flags"):
                return set(line.partition(":")[2].split())
        return None

    def meminfo(self, key: str) -> int | None:
        """A value of /proc/meminfo in its own unit: pages or kB."""
        for line in (self.text("proc/meminfo") or "").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return int(value.split()[0])
        return None

    def mounts(self) -> list[tuple[str, str, str]] | None:
        """Place, type and options of every mount, in their order."""
        text = self.text("proc/mounts")
        if text is None:
            return None
        words = [line.split() for line in text.splitlines()]
        return [(word[1], word[2], word[3]) for word in words if len(word) >= 4]

    def limit(self, name: str) -> int | None:
        """A soft limit of this process; -1 is unlimited."""
        for line in (self.text("proc/self/limits") or "").splitlines():
            if line.startswith(name):
                word = line[len(name) :].split()[0]
                return -1 if word == "unlimited" else int(word)
        return None

    def may(self, capability: int) -> bool | None:
        """Whether this process has a capability."""
        for line in (self.text("proc/self/status") or "").splitlines():
            if line.startswith("CapEff:"):
                return bool(int(line.split()[1], 16) >> capability & 1)
        return None

    def free_bytes(self, path: str) -> int | None:
        """What is left on a file system."""
        try:
            found = os.statvfs(self.root / path)
        except OSError:
            return None
        return found.f_bavail * found.f_frsize

    def usable(self) -> list[int]:
        """The CPUs that the engine would be placed on: those of this process, or of a folder all that it calls online."""
        if self.root == ROOT:
            return sorted(os.sched_getaffinity(0))
        return self.cpu_list("sys/devices/system/cpu/online") or [0]

    def siblings(self, cpu: int) -> list[int] | None:
        return cpus.siblings(cpu, self.root) or None
