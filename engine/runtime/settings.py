"""What a process asks of the kernel for itself: set, read back, and put into its record as it really is.

A setting counts only as what it reads back as. What the kernel refuses is a sentence that says what to grant.
"""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from engine.runtime import grants
from engine.runtime.config import MachineConfig, ProcessConfig
from engine.runtime.prefault import populate, touch_ahead
from shm._shim import ffi, lib

MPOL_BIND = 2


@dataclass(frozen=True)
class Setting:
    """One thing to ask for. `put` raises OSError; `grant` says what would make it possible."""

    key: str
    wanted: Any
    got: Callable[[], Any]
    put: Callable[[], None]
    grant: Callable[[OSError | None], str]

    def settle(self) -> str | None:
        """Ask, unless it is so already, and read back: None where it holds now, else why not and what to grant."""
        error = None
        try:
            if self.got() != self.wanted:
                self.put()
        except OSError as refused:
            error = refused
        found = self.got()
        if found == self.wanted:
            return None
        why = error.strerror if error is not None else f"it reads back as {found}"
        return f"{self.key}={_toml(self.wanted)} refused ({why}): {self.grant(error)}"


def before_memory(process: ProcessConfig, machine: MachineConfig, cpu: int) -> list[Setting]:
    """What must hold before the first page is touched, and what may as well."""
    asked = []
    node = node_of(cpu) if process.numa == "local" else process.numa
    if isinstance(node, int):
        asked.append(Setting("numa", node, bound_node, lambda: _bind(node), grants.for_numa(node)))
    if process.nice:
        asked.append(Setting("nice", process.nice, _nice, lambda: os.setpriority(os.PRIO_PROCESS, 0, process.nice), grants.for_nice))
    if machine.oom_score_adj:
        asked.append(
            Setting(
                "oom_score_adj", machine.oom_score_adj, _oom_score_adj,
                lambda: _write("/proc/self/oom_score_adj", machine.oom_score_adj), grants.for_oom_score_adj,
            )
        )  # fmt: skip
    if machine.timer_slack_ns:
        ns = machine.timer_slack_ns
        asked.append(Setting("timer_slack_ns", ns, _timer_slack_ns, _checked(lib.tp_set_timer_slack, ns), grants.for_timer_slack))
    return asked


def before_loop(process: ProcessConfig, machine: MachineConfig) -> list[Setting]:
    """What waits until everything is built and compiled: memory is touched and locked as it is then, and FIFO never compiles."""
    asked = []
    if machine.lock_memory:
        asked.append(Setting("lock_memory", True, locked, _checked(lib.tp_lock_memory), grants.for_locking))
    if machine.prefault:
        touched: list[bool] = []
        asked.append(Setting("prefault", True, lambda: bool(touched), lambda: _touch(machine, touched), grants.for_prefault))
    if process.fifo:
        asked.append(Setting("fifo", process.fifo, fifo, lambda: _set_fifo(process.fifo), grants.for_fifo(process.fifo)))
    return asked


def settle(asked: list[Setting]) -> Iterator[str]:
    """Ask for each; a sentence for each that was refused."""
    for setting in asked:
        if refused := setting.settle():
            yield refused


def read_back(line: np.record, *, prefaulted: bool, latency_set: bool) -> None:
    """Write into the process's record how it really stands."""
    line["fifo"] = fifo()
    line["nice"] = _nice()
    line["locked_kib"] = _locked_kib()
    line["locked"] = locked()
    line["prefaulted"] = prefaulted
    line["oom_score_adj"] = _oom_score_adj()
    line["numa_node"] = bound_node()
    line["timer_slack_ns"] = min(_timer_slack_ns(), 0xFFFF_FFFF)
    line["cpus"] = len(os.sched_getaffinity(0))
    line["latency_set"] = latency_set


def fifo() -> int:
    """The SCHED_FIFO priority this process runs at; 0 for any other policy."""
    policy = os.sched_getscheduler(0) & ~os.SCHED_RESET_ON_FORK
    return os.sched_getparam(0).sched_priority if policy == os.SCHED_FIFO else 0


def locked() -> bool:
    """Whether memory of this process is locked, all of it but the kernel's own pages."""
    return _locked_kib() > 0


def bound_node() -> int:
    """The first NUMA node that this process's memory comes from alone; -1 where it is not bound."""
    policy = ffi.new("struct tp_policy *")
    if lib.tp_policy_get(policy) or policy.mode != MPOL_BIND:
        return -1
    nodes = sum(word << 64 * place for place, word in enumerate(policy.nodes))
    return (nodes & -nodes).bit_length() - 1


def _bind(node: int) -> None:
    policy = ffi.new("struct tp_policy *")
    policy.mode = MPOL_BIND
    policy.nodes[node // 64] = 1 << node % 64
    _checked(lib.tp_policy_set, policy)()


def node_of(cpu: int, root: Path = Path("/")) -> int | str:
    """The NUMA node of a CPU; "any" on a kernel that knows no nodes."""
    found = sorted((root / f"sys/devices/system/cpu/cpu{cpu}").glob("node[0-9]*"))
    return int(found[0].name[4:]) if found else "any"


def _touch(machine: MachineConfig, touched: list[bool]) -> None:
    """What mlockall has touched already is not touched again."""
    touch_ahead(machine.stack_kib, machine.heap_kib)
    if not locked():
        populate()
    touched.append(True)


def _set_fifo(priority: int) -> None:
    # What a hot process might start is ordinary again.
    os.sched_setscheduler(0, os.SCHED_FIFO | os.SCHED_RESET_ON_FORK, os.sched_param(priority))


def _nice() -> int:
    return os.getpriority(os.PRIO_PROCESS, 0)


def _oom_score_adj() -> int:
    return int(Path("/proc/self/oom_score_adj").read_text())


def _timer_slack_ns() -> int:
    """As the kernel tells it; it tells 0 of a real-time process, which never waits longer than it asked to."""
    return int(Path("/proc/self/timerslack_ns").read_text())


def _locked_kib() -> int:
    return grants.status_kib("VmLck")


def _write(path: str, value: int) -> None:
    with Path(path).open("w") as file:
        file.write(str(value))


def _checked(function: Callable[..., int], *arguments: Any) -> Callable[[], None]:
    """A shim function that returns errno, as one that raises."""

    def call() -> None:
        if failed := function(*arguments):
            raise OSError(failed, os.strerror(failed))

    return call


def _toml(value: Any) -> str:
    return str(value).lower() if isinstance(value, bool) else str(value)
