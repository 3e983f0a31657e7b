"""Which CPU each process gets, and what it does when idle: spinning needs a core of one's own."""

import os
from collections.abc import Collection
from dataclasses import dataclass

from engine.layout import IDLE_SLEEP, IDLE_SPIN, IDLE_YIELD
from engine.runtime.config import ProcessConfig

IDLE_WORDS = {"spin": IDLE_SPIN, "yield": IDLE_YIELD, "sleep": IDLE_SLEEP}
IDLE_NAMES = {word: name for name, word in IDLE_WORDS.items()}


@dataclass(frozen=True)
class Place:
    """Where one process runs. `shared_with` names the processes on the same CPU; `fifo` is the priority asked for, 0 for none."""

    name: str
    stages: tuple[str, ...]
    cpu: int
    idle: int
    shared_with: tuple[str, ...]
    fifo: int = 0


def place(
    processes: list[ProcessConfig], usable: Collection[int] | None = None, quiet: Collection[int] = ()
) -> tuple[list[Place], list[str]]:
    """A CPU and an idle strategy for each process, and sentences about what had to give.

    CPUs that are `quiet` (isolated) come first if there is one for each; CPU 0 is left to the operating system and the supervisor
    where there are cores enough.
    """
    cpus = sorted(os.sched_getaffinity(0) if usable is None else usable)
    pinned = {process.cpu for process in processes if process.cpu != "auto"}
    automatic = [process for process in processes if process.cpu == "auto"]
    free = [cpu for cpu in cpus if cpu not in pinned] or cpus
    set_aside = [cpu for cpu in free if cpu in quiet]
    if len(set_aside) >= len(automatic):
        free = set_aside
    elif len(free) > len(automatic):
        free = free[1:]
    given = {process.name: free[turn % len(free)] for turn, process in enumerate(automatic)}
    chosen = {process.name: given[process.name] if process.cpu == "auto" else int(process.cpu) for process in processes}

    places, notes = [], []
    for process in processes:
        sharing = tuple(other.name for other in processes if other is not process and chosen[other.name] == chosen[process.name])
        idle = process.idle if process.idle != "auto" else ("yield" if sharing else "spin")
        if process.idle == "spin" and sharing:
            idle = "yield"
            notes.append(
                f"{process.name}: idle=spin asked for, but CPU {chosen[process.name]} is shared with {', '.join(sharing)}: it yields"
            )
        places.append(Place(process.name, tuple(process.stages), chosen[process.name], IDLE_WORDS[idle], sharing, process.fifo))
    if len(processes) > len(cpus):
        notes.append(
            f"{len(processes)} processes on {len(cpus)} CPUs: cores are shared and idle processes yield; "
            "latencies include the time a process waits for its turn"
        )
    return places, notes
