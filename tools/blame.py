"""Who had a CPU meanwhile, as far as the kernel counts it: two looks at /proc, and what lies between them.

Interrupts and softirqs are counted, not timed; stolen time comes in ticks of 10 ms; threads are timed to the nanosecond, but one
that ended between the looks, or ended up on another CPU, is not found.
"""

import contextlib
import os
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tools.cpus import ROOT, read_text

STAT_FIELDS = ("user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal")
THREADS_SHOWN = 8


@dataclass(frozen=True)
class Thread:
    name: str
    cpu: int
    ran_ns: int


@dataclass(frozen=True)
class Look:
    """Counters by CPU, and threads by (number, start time). What could not be read is empty, and named in `unknown`."""

    interrupts: dict[int, dict[str, int]]
    softirqs: dict[int, dict[str, int]]
    stolen_ns: dict[int, int]
    threads: dict[tuple[int, int], Thread]
    unknown: list[str] = field(default_factory=list)


def look(root: Path = ROOT) -> Look:
    interrupts = per_cpu_counts(read_text(root / "proc/interrupts") or "")
    softirqs = per_cpu_counts(read_text(root / "proc/softirqs") or "")
    stolen_ns = stolen(read_text(root / "proc/stat") or "")
    running = threads(root)
    readings = (("interrupts", interrupts), ("softirqs", softirqs), ("stat", stolen_ns), ("PID/task/TID/schedstat", running))
    return Look(
        interrupts, softirqs, stolen_ns, running,
        [f"/proc/{name} cannot be read, so what it counts is unknown" for name, reading in readings if not reading],
    )  # fmt: skip


def per_cpu_counts(text: str) -> dict[int, dict[str, int]]:
    """/proc/interrupts or /proc/softirqs: by CPU, by name. Only online CPUs have a column, and some rows have none of them."""
    lines = text.splitlines()
    cpus = [int(number) for number in re.findall(r"CPU(\d+)", lines[0])] if lines else []
    counts: dict[int, dict[str, int]] = {cpu: {} for cpu in cpus}
    for line in lines[1:]:
        label, _, rest = line.partition(":")
        words = rest.split(maxsplit=len(cpus))
        if len(words) < len(cpus) or not all(word.isdigit() for word in words[: len(cpus)]):
            continue
        # A device's row ends with the names of who asked for it, after two spaces; the others are a description as a whole.
        described = words[len(cpus)] if len(words) > len(cpus) else ""
        label = label.strip()
        if label.isdigit():
            described = re.split(r"\s{2,}", described)[-1]
        name = f"{label} {described}".strip()
        for cpu, word in zip(cpus, words, strict=False):
            counts[cpu][name] = int(word)
    return counts


def stolen(text: str) -> dict[int, int]:
    """Nanoseconds that the host took from each CPU, from /proc/stat."""
    tick_ns = 1_000_000_000 // os.sysconf("SC_CLK_TCK")
    found = {}
    for line in text.splitlines():
        words = line.split()
        if words and (number := re.fullmatch(r"cpu(\d+)", words[0])) and len(words) > len(STAT_FIELDS):
            found[int(number[1])] = int(words[1 + STAT_FIELDS.index("steal")]) * tick_ns
    return found


def threads(root: Path) -> dict[tuple[int, int], Thread]:
    """Every thread's name, the CPU it was last on, and how long it has run. Empty where the kernel does not count that."""
    found: dict[tuple[int, int], Thread] = {}
    for task in (root / "proc").glob("[0-9]*/task/[0-9]*"):
        # Threads end while one looks.
        with contextlib.suppress(OSError, ValueError, IndexError):
            head, _, tail = (task / "stat").read_text(errors="replace").rpartition(")")
            words = tail.split()
            ran_ns = int((task / "schedstat").read_text().split()[0])
            found[int(task.name), int(words[19])] = Thread(head.partition("(")[2], int(words[36]), ran_ns)
    return found


def between(before: Look, after: Look, cpu: int, own: set[int]) -> dict[str, Any]:
    """What happened on a CPU between two looks; threads numbered in `own` are ours. None: the kernel did not say."""
    ran: list[dict[str, Any]] = [
        {"name": thread.name, "tid": key[0], "ran_ns": thread.ran_ns - (before.threads[key].ran_ns if key in before.threads else 0)}
        for key, thread in after.threads.items()
        if thread.cpu == cpu and key[0] not in own
    ]
    ran.sort(key=lambda thread: -thread["ran_ns"])
    stolen_ns = after.stolen_ns[cpu] - before.stolen_ns[cpu] if cpu in after.stolen_ns and cpu in before.stolen_ns else None
    return {
        "interrupts": _rise(before.interrupts.get(cpu), after.interrupts.get(cpu)),
        "softirqs": _rise(before.softirqs.get(cpu), after.softirqs.get(cpu)),
        "stolen_ns": stolen_ns,
        "threads": [thread for thread in ran if thread["ran_ns"] > 0][:THREADS_SHOWN] if after.threads else None,
    }


def _rise(before: dict[str, int] | None, after: dict[str, int] | None) -> dict[str, int] | None:
    """What was counted between, the most first; None where one of the two is missing."""
    if before is None or after is None:
        return None
    rise = {name: count - before.get(name, 0) for name, count in after.items()}
    return dict(sorted(((name, count) for name, count in rise.items() if count > 0), key=lambda item: -item[1]))
