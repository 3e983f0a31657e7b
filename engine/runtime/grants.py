"""What to grant when the kernel refuses: the limit or the capability that is missing, as it stands and where it is given."""

import errno
import os
import pwd
import resource
from collections.abc import Callable
from pathlib import Path

CAP_SYS_NICE = 23
CAP_SYS_RESOURCE = 24

LIMITS_FILE = "/etc/security/limits.d/tickpath.conf"
KEEP_RT_US = 950_000


def for_locking(error: OSError | None) -> str:
    return (
        f"RLIMIT_MEMLOCK is {_bytes(resource.RLIMIT_MEMLOCK)} and this process has {status_kib('VmSize') >> 10} MiB mapped; grant "
        f"LimitMEMLOCK=infinity in the systemd unit, or `{user()} - memlock unlimited` in {LIMITS_FILE}, or CAP_IPC_LOCK"
    )


def for_fifo(priority: int) -> Callable[[OSError | None], str]:
    def grant(error: OSError | None) -> str:
        allowed = resource.getrlimit(resource.RLIMIT_RTPRIO)[0]
        if has(CAP_SYS_NICE) or allowed == resource.RLIM_INFINITY or allowed >= priority:
            return _group_budget()
        return (
            f"RLIMIT_RTPRIO is {allowed}; grant LimitRTPRIO={priority} in the systemd unit, or `{user()} - rtprio {priority}` in "
            f"{LIMITS_FILE}, or CAP_SYS_NICE"
        )

    return grant


def for_nice(error: OSError | None) -> str:
    # RLIMIT_NICE counts upwards from nice 20.
    lowest = 20 - resource.getrlimit(resource.RLIMIT_NICE)[0]
    return (
        f"RLIMIT_NICE allows down to {lowest}; grant LimitNICE= in the systemd unit, or `{user()} - nice -20` in {LIMITS_FILE}, "
        "or CAP_SYS_NICE"
    )


def for_oom_score_adj(error: OSError | None) -> str:
    return "to lower it takes CAP_SYS_RESOURCE; or let the systemd unit say OOMScoreAdjust=, which children inherit"


def for_timer_slack(error: OSError | None) -> str:
    return "the kernel's prctl(PR_SET_TIMERSLACK) did not take it"


def for_prefault(error: OSError | None) -> str:
    return "the loop may take page faults; it needs as much memory as is mapped"


def for_numa(node: int) -> Callable[[OSError | None], str]:
    def grant(error: OSError | None) -> str:
        if error is not None and error.errno == errno.ENOSYS:
            return "this kernel is built without NUMA; take the key out"
        return f"node {node} must be one of {_nodes()} and among the cpuset's memory nodes ({status('Mems_allowed_list')})"

    return grant


def has(capability: int) -> bool:
    """Whether this process has the capability in effect."""
    return bool(int(status("CapEff") or "0", 16) >> capability & 1)


def status(key: str) -> str:
    """A line of /proc/self/status; empty where there is none."""
    for line in Path("/proc/self/status").read_text().splitlines():
        name, _, value = line.partition(":")
        if name == key:
            return value.strip()
    return ""


def status_kib(key: str) -> int:
    return int((status(key) or "0").split()[0])


def user() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_name
    except KeyError:
        return str(os.geteuid())


def _group_budget() -> str:
    """Allowed by every limit, and refused: a kernel with RT_GROUP_SCHED wants real-time time for the cgroup."""
    group = _cpu_group()
    if group is None:
        return "no limit forbids it: a kernel with RT_GROUP_SCHED on cgroup v2 runs real-time processes in the root cgroup only"
    budget = group / "cpu.rt_runtime_us"
    return (
        f"this kernel gives real-time time to cgroups (RT_GROUP_SCHED), and ours has none: "
        f"echo {KEEP_RT_US} > {budget} (now {_text(budget)}), in each group above it first; or start outside of it"
    )


def _cpu_group() -> Path | None:
    """The cgroup v1 folder that this process's cpu controller is at, where it hands out real-time time."""
    for line in Path("/proc/self/cgroup").read_text().splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            for name in (controllers, "cpu"):
                folder = Path("/sys/fs/cgroup") / name / path.lstrip("/")
                if (folder / "cpu.rt_runtime_us").exists():
                    return folder
    return None


def _nodes() -> str:
    return _text(Path("/sys/devices/system/node/has_memory"))


def _bytes(limit: int) -> str:
    value = resource.getrlimit(limit)[0]
    return "unlimited" if value == resource.RLIM_INFINITY else f"{value >> 10} KiB"


def _text(path: Path) -> str:
    try:
        return path.read_text().strip()
    except OSError:
        return "unreadable"
