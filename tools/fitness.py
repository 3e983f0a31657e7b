"""The checks of `tickpath doctor` that no tuning knob makes: what the engine stands on, is allowed, and shares with others."""

import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from engine.layout import INSTRUMENT, INSTRUMENTS_MAX, OPEN_ORDER, ORDERS, POSITION, QUOTE, REPORTS, SYMBOL, TICKS
from engine.runtime.config import Config
from engine.runtime.cpus import fold
from engine.runtime.placement import place
from shm.ring import round_up_capacity
from tools.checkup import ADVICE, CAP_IPC_LOCK, CAP_SYS_NICE, OK, PROBLEM, UNKNOWN, Check, Machine
from tools.cpus import isolated

MIB = 1 << 20
STEAL_SHARE_MAX = 0.01
# Control, statistics and cursors: small, and not worth adding up.
SMALL_SEGMENTS_BYTES = MIB
LIMITS_FILE = "/etc/security/limits.d/60-tickpath.conf"
TUNE = "sudo tuning/tune apply --only"


@dataclass(frozen=True)
class Need:
    """What a config asks of the machine: the CPUs its processes get, what they share, bytes of shared memory, interfaces."""

    cpus: list[int]
    notes: list[str]
    shm_bytes: int
    interfaces: list[str]


def need_of(config: Config, machine: Machine, interfaces: list[str]) -> Need:
    places, notes = place(config.process, machine.usable())
    return Need(sorted({where.cpu for where in places}), notes, shm_bytes(config), interfaces)


def shm_bytes(config: Config) -> int:
    """Shared memory of an instance: rings, boards, the order table, and the table by instrument."""
    rings = ((config.rings.ticks, TICKS), (config.rings.orders, ORDERS), (config.rings.reports, REPORTS))
    slots = sum(capacity * max(dtype.itemsize for dtype in variants.values()) for capacity, variants in rings)
    boards = INSTRUMENTS_MAX * (QUOTE.itemsize + INSTRUMENT.itemsize + 2 * POSITION.itemsize + SYMBOL.itemsize)
    return slots + boards + round_up_capacity(config.gateway.orders_max) * OPEN_ORDER.itemsize + SMALL_SEGMENTS_BYTES


def clock(machine: Machine, need: Need) -> Check:
    name, worth = "tsc", 100
    flags = machine.cpu_flags()
    if flags is None:
        return Check(name, UNKNOWN, "/proc/cpuinfo does not show the CPU's flags", "whether timestamps can be trusted", "", worth, True)
    missing = {"constant_tsc", "nonstop_tsc"} - flags
    if missing:
        return Check(
            name, PROBLEM, f"the CPU does not promise {', '.join(sorted(missing))}",
            "the engine refuses to start: its clock would change speed with the core, or stop",
            "on a virtual machine the host must pass invtsc through (libvirt: <feature policy='require' name='invtsc'/>); else another CPU",
            worth, True,
        )  # fmt: skip
    return Check(name, OK, "constant and non-stop", worth=worth, essential=True)


def clocksource(machine: Machine, need: Need) -> Check:
    name, worth = "clocksource", 85
    folder = "sys/devices/system/clocksource/clocksource0"
    current, available = machine.text(f"{folder}/current_clocksource"), machine.text(f"{folder}/available_clocksource")
    costs = "clock_gettime becomes a system call or a device read: a microsecond where 20 ns would do"
    if not current:
        return Check(name, UNKNOWN, f"/{folder}/current_clocksource cannot be read", costs, "", worth)
    if current == "tsc":
        return Check(name, OK, "tsc", worth=worth)
    if available is not None and "tsc" not in available.split():
        return Check(
            name, PROBLEM, f"{current}; the kernel has ruled the TSC out", f"{costs}; and the engine's own clock is that TSC",
            "dmesg | grep -i tsc says why: often firmware, or a host that does not pass it through", worth,
        )  # fmt: skip
    return Check(name, ADVICE, current, costs, f"{TUNE} clocksource", worth)


def cores(machine: Machine, need: Need) -> Check:
    found = f"CPU {fold(need.cpus)} of {fold(machine.usable())}"
    if need.notes:
        return Check(
            "cores", ADVICE, "; ".join(need.notes), "a process that waits for its turn is late by milliseconds, not microseconds",
            "a machine with more cores, or more stages in one process: tickpath config > my.toml, and edit [[process]]", 95,
        )  # fmt: skip
    return Check("cores", OK, f"each process has one: {found}", worth=95)


def smt(machine: Machine, need: Need) -> Check:
    name, worth, costs = "siblings", 80, "what runs on a core's other thread takes half of its execution units and of its L1 and L2"
    beside: dict[int, list[int]] = {}
    for cpu in need.cpus:
        core = machine.siblings(cpu)
        if core is None:
            return Check(name, UNKNOWN, f"the kernel does not say which CPUs share the core of CPU {cpu}", costs, "", worth)
        if others := [other for other in core if other != cpu]:
            beside[cpu] = others
    if not beside:
        return Check(name, OK, f"CPU {fold(need.cpus)}: no other thread on these cores", worth=worth)
    shown = "; ".join(f"CPU {cpu} shares its core with {fold(others)}" for cpu, others in beside.items())
    return Check(
        name,
        ADVICE,
        shown,
        costs,
        "smt = off in a profile, and sudo tuning/tune apply --only smt --profile FILE; or leave those CPUs idle",
        worth,
    )


def isolation(machine: Machine, need: Need) -> Check:
    apart = isolated(machine.root)
    exposed = [cpu for cpu in need.cpus if cpu not in apart]
    if not exposed:
        return Check("isolation", OK, f"CPU {fold(need.cpus)} isolated", worth=98)
    if machine.cpu_list("sys/devices/system/cpu/online") is None:
        return Check("isolation", UNKNOWN, "/sys/devices/system/cpu cannot be read", "whatever the scheduler puts there", "", 98)
    return Check(
        "isolation", ADVICE, f"the engine gets CPU {fold(need.cpus)}, and of these {fold(exposed)} is open to every other process",
        "whatever the scheduler puts there takes the CPU for milliseconds",
        "sudo tuning/tune apply; for good: sudo tuning/tune apply --write-dropin, update-grub, reboot", 98,
    )  # fmt: skip


def governor(machine: Machine, need: Need) -> Check:
    name, worth, costs = "governor", 75, "a core at a low frequency when the packet comes takes tens of microseconds to speed up"
    found = {machine.text(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor") for cpu in need.cpus}
    if None in found:
        return Check(
            name,
            UNKNOWN,
            "no cpufreq here (on a virtual machine the host decides)",
            costs,
            "on the host: cpupower frequency-set -g performance",
            worth,
        )
    others = sorted(word for word in found if word and word != "performance")
    if others:
        return Check(name, ADVICE, ", ".join(others), costs, f"{TUNE} epp,governor", worth)
    return Check(name, OK, "performance", worth=worth)


def locked_memory(machine: Machine, need: Need) -> Check:
    name, worth = "memlock", 88
    limit, capable = machine.limit("Max locked memory"), machine.may(CAP_IPC_LOCK)
    costs = "mlockall is refused, so a page that was reclaimed faults in the hot path: microseconds, or milliseconds from swap"
    if capable or limit == -1:
        return Check(name, OK, "unlimited" if limit == -1 else "CAP_IPC_LOCK", worth=worth)
    if limit is None or capable is None:
        return Check(name, UNKNOWN, "/proc/self/limits or /proc/self/status cannot be read", costs, "", worth)
    return Check(
        name, ADVICE, f"{limit // 1024:,} KiB, and the rings alone take {need.shm_bytes // 1024:,} KiB", costs,
        f"echo '{_user(machine)} - memlock unlimited' | sudo tee -a {LIMITS_FILE}, log in again; in a unit LimitMEMLOCK=infinity", worth,
    )  # fmt: skip


def real_time(machine: Machine, need: Need) -> Check:
    name, worth = "rtprio", 60
    limit, capable = machine.limit("Max realtime priority"), machine.may(CAP_SYS_NICE)
    costs = "SCHED_FIFO is refused: any ordinary process that wakes up may take the hot process's CPU"
    if (runtime := _group_runtime(machine)) == "0":
        return Check(
            name, ADVICE, "RT_GROUP_SCHED: this cgroup's cpu.rt_runtime_us is 0", costs,
            "start from the root cgroup, or give the group time: echo 100000 | sudo tee /sys/fs/cgroup/cpu/GROUP/cpu.rt_runtime_us", worth,
        )  # fmt: skip
    if capable or (limit is not None and limit > 0):
        by = "CAP_SYS_NICE" if capable else f"priority up to {limit}"
        return Check(name, OK, by + (f"; {int(runtime):,} us of each second for the group" if runtime else ""), worth=worth)
    if limit is None or capable is None:
        return Check(name, UNKNOWN, "/proc/self/limits or /proc/self/status cannot be read", costs, "", worth)
    return Check(
        name, ADVICE, "no real-time priority is allowed", costs,
        f"echo '{_user(machine)} - rtprio 49' | sudo tee -a {LIMITS_FILE}, log in again; in a systemd unit LimitRTPRIO=49", worth,
    )  # fmt: skip


def _user(machine: Machine) -> str:
    for line in (machine.text("etc/passwd") or "").splitlines():
        words = line.split(":")
        if len(words) > 2 and words[2] == str(machine.uid):
            return words[0]
    return str(machine.uid)


def _group_runtime(machine: Machine) -> str | None:
    """Of a kernel with RT_GROUP_SCHED the real-time budget of our cgroup, in us of each second; None elsewhere."""
    for line in (machine.text("proc/self/cgroup") or "").splitlines():
        _, controllers, path = line.split(":", 2)
        if "cpu" in controllers.split(","):
            return machine.text(f"sys/fs/cgroup/cpu{path.rstrip('/')}/cpu.rt_runtime_us")
    return None


def shared_memory(machine: Machine, need: Need) -> Check:
    name, worth = "shm", 97
    wanted, mounts, free = need.shm_bytes, machine.mounts(), machine.free_bytes("dev/shm")
    costs = "the rings live there: without room for them the engine does not start"
    if mounts is None or free is None:
        return Check(name, UNKNOWN, "/proc/mounts or /dev/shm cannot be read", costs, "", worth, True)
    mounted = [(kind, options) for where, kind, options in mounts if where == "/dev/shm"]
    if not mounted or mounted[-1][0] != "tmpfs":
        found = "not mounted" if not mounted else f"a {mounted[-1][0]}, not a tmpfs"
        return Check(name, PROBLEM, f"/dev/shm is {found}", "a ring on a disk's file system is written to the disk",
                     "sudo mount -t tmpfs -o mode=1777,nosuid,nodev tmpfs /dev/shm", worth, True)  # fmt: skip
    options = mounted[-1][1]
    if "ro" in options.split(","):
        return Check(name, PROBLEM, "/dev/shm is mounted read-only", costs, "sudo mount -o remount,rw /dev/shm", worth, True)
    found = f"{free // MIB:,} MiB free, {wanted // MIB + 1:,} MiB wanted; {options}"
    if free < wanted:
        size = f"{2 * (wanted // MIB) + 64}M"
        return Check(
            name, PROBLEM, found, costs, f"sudo mount -o remount,size={size} /dev/shm (docker: --shm-size={size.lower()})", worth, True
        )
    return Check(name, OK, found, worth=worth, essential=True)


def huge_pages(machine: Machine, need: Need) -> Check:
    name, worth = "hugepages", 45
    total, free, size_kb = (machine.meminfo(key) for key in ("HugePages_Total", "HugePages_Free", "Hugepagesize"))
    mounts = machine.mounts()
    costs = "4 KiB pages: rings and books miss the TLB, tens of nanoseconds each time"
    if total is None or free is None or not size_kb or mounts is None:
        return Check(name, UNKNOWN, "/proc/meminfo shows no huge pages, or /proc/mounts cannot be read", costs, "", worth)
    where = [place_ for place_, kind, _ in mounts if kind == "hugetlbfs"]
    pages = -(-need.shm_bytes // (size_kb * 1024))
    found = f"{free} of {total} free, hugetlbfs {'on ' + ', '.join(where) if where else 'not mounted'}; {pages} would hold the rings"
    if free >= pages and where:
        return Check(name, OK, found, worth=worth)
    cure = f"hugepages = {pages + pages // 4} in a profile, and {TUNE} hugepages,hugetlb-mount --profile FILE"
    return Check(name, ADVICE, found, costs, cure, worth)


def remove_ipc(machine: Machine, need: Need) -> Check:
    name, worth = "remove-ipc", 90
    if not any(machine.exists(f"{folder}/systemd/systemd-logind") for folder in ("usr/lib", "lib")):
        return Check(name, OK, "no systemd-logind here", worth=worth)
    value = _logind(machine, "RemoveIPC", "yes")
    last_system = _login_defs(machine, "SYS_UID_MAX", 999)
    if value.lower() in ("no", "false", "0", "off"):
        return Check(name, OK, f"RemoveIPC={value}", worth=worth)
    if machine.uid <= last_system:
        return Check(name, OK, f"RemoveIPC={value}, which spares system users (uid {machine.uid})", worth=worth)
    return Check(
        name, PROBLEM, f"RemoveIPC={value}, and uid {machine.uid} is a login user",
        "logind deletes this user's shared memory at logout, under the running engine",
        "run the engine as a system user; or: printf '[Login]\\nRemoveIPC=no\\n' | sudo tee /etc/systemd/logind.conf.d/60-tickpath.conf, "
        "sudo systemctl restart systemd-logind", worth,
    )  # fmt: skip


def _logind(machine: Machine, key: str, value: str) -> str:
    """A logind setting, or `value`. Drop-ins are read by their names, one in /etc hides that of /usr, and the last word counts."""
    folders = ("usr/lib", "run", "etc")
    drop_ins = {path.name: path for folder in folders for path in machine.glob(f"{folder}/systemd/logind.conf.d/*.conf")}
    for path in (machine.root / "etc/systemd/logind.conf", *(drop_ins[name] for name in sorted(drop_ins))):
        for line in (machine.text(str(path.relative_to(machine.root))) or "").splitlines():
            word, equals, said = line.partition("=")
            if equals and word.strip() == key:
                value = said.strip()
    return value


def _login_defs(machine: Machine, key: str, otherwise: int) -> int:
    for line in (machine.text("etc/login.defs") or "").splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == key and words[1].isdigit():
            return int(words[1])
    return otherwise


def host(machine: Machine, need: Need) -> Check:
    name, worth = "hypervisor", 70
    flags, shares = machine.cpu_flags(), dict(_stolen_shares(machine))
    if flags is None:
        return Check(name, UNKNOWN, "/proc/cpuinfo does not show the CPU's flags", "whether a host may take the CPU", "", worth)
    if "hypervisor" not in flags:
        return Check(name, OK, "bare metal", worth=worth)
    costs = "the host takes the CPU whenever it likes, for milliseconds, and no setting in here changes that"
    cure = "virtual CPUs of one's own, pinned by the host (virsh vcpupin, a dedicated instance type), or bare metal"
    of_ours = {cpu: shares[cpu] for cpu in need.cpus if cpu in shares}
    if not of_ours:
        return Check(name, UNKNOWN, "a virtual machine, and /proc/stat does not show what its host takes", costs, cure, worth)
    cpu, share = max(of_ours.items(), key=lambda item: item[1])
    found = f"a virtual machine; its host admits to {share:.3%} of CPU {cpu} since boot"
    return Check(name, PROBLEM if share > STEAL_SHARE_MAX else ADVICE, found, costs, cure, worth)


def _stolen_shares(machine: Machine) -> Iterator[tuple[int, float]]:
    """Of each CPU the share of time since boot that a host took."""
    for line in (machine.text("proc/stat") or "").splitlines():
        words = line.split()
        if words and words[0].startswith("cpu") and words[0][3:].isdigit() and len(words) > 8:
            ticks = [int(word) for word in words[1:9]]
            yield int(words[0][3:]), ticks[7] / max(1, sum(ticks))


def kernel(machine: Machine, need: Need) -> Check:
    name, worth = "kernel", 40
    release = machine.text("proc/sys/kernel/osrelease")
    try:
        version = tuple(int(part) for part in (release or "").split("-")[0].split("+")[0].split(".")[:2])
    except ValueError:
        version = ()
    if len(version) < 2:
        return Check(name, UNKNOWN, "/proc/sys/kernel/osrelease cannot be read", "what this kernel lacks", "", worth)
    lacks = [
        what for lacking, what in (
            (version < (5, 6), "isolcpus=managed_irq (5.6)"),
            (version < (5, 14), "prefaulting that reports failure, MADV_POPULATE_WRITE (5.14)"),
            (version < (6, 1), "isolated cpuset partitions, CPU isolation without a reboot (6.1)"),
            (not machine.exists("sys/devices/system/cpu/nohz_full"), "NO_HZ_FULL, no tick beside a lone task (not built)"),
        ) if lacking
    ]  # fmt: skip
    if lacks:
        return Check(name, ADVICE, f"Linux {release} lacks {'; '.join(lacks)}", "interruptions that a newer or other kernel would spare",
                     "a kernel of the distribution from 6.1 on, built with CONFIG_NO_HZ_FULL=y", worth)  # fmt: skip
    return Check(name, OK, f"Linux {release}", worth=worth)


def network_nodes(machine: Machine, need: Need) -> Iterator[Check]:
    """Is each named interface's card on the memory node of the engine's CPUs?"""
    nodes = {path.parent.name.removeprefix("node"): machine.cpu_list(str(path.relative_to(machine.root))) or []
             for path in machine.glob("sys/devices/system/node/node[0-9]*/cpulist")}  # fmt: skip
    ours = sorted(node for node, members in nodes.items() if set(members) & set(need.cpus))
    for interface in need.interfaces:
        name, worth = f"numa-{interface}", 78
        costs = "every packet crosses the link between the sockets: 100 ns and more"
        node = machine.text(f"sys/class/net/{interface}/device/numa_node")
        if len(nodes) == 1:
            yield Check(name, OK, "one memory node", worth=worth)
        elif node is None or node == "-1" or not ours:
            yield Check(name, UNKNOWN, f"neither the kernel nor the firmware says which node {interface} is on", costs, "", worth)
        elif ours == [node]:
            yield Check(name, OK, f"{interface} and CPU {fold(need.cpus)} on node {node}", worth=worth)
        else:
            yield Check(
                name, ADVICE, f"{interface} is on node {node}, the engine's CPUs on {', '.join(ours)}", costs,
                f"cpu = one of {fold(nodes.get(node, []))} for each [[process]], and latency_cpus of the profile among them", worth,
            )  # fmt: skip


def overcommit(machine: Machine, need: Need) -> Check:
    name, worth = "overcommit", 30
    mode = machine.text("proc/sys/vm/overcommit_memory")
    if mode is None:
        return Check(name, UNKNOWN, "/proc/sys/vm/overcommit_memory cannot be read", "whether large mappings are refused", "", worth)
    if mode != "2":
        return Check(name, OK, f"vm.overcommit_memory={mode}", worth=worth)
    return Check(
        name, ADVICE, "vm.overcommit_memory=2: every mapping counts in full",
        "forks and large mappings are refused while memory is free: kernels cannot be compiled, processes cannot be started",
        "sudo sysctl vm.overcommit_memory=0", worth,
    )  # fmt: skip


def swap(machine: Machine, need: Need) -> Check:
    name, worth = "swap", 50
    text = machine.text("proc/swaps")
    if text is None:
        return Check(name, UNKNOWN, "/proc/swaps cannot be read", "whether pages may go to a disk", "", worth)
    devices = [line.split()[0] for line in text.splitlines()[1:] if line.split()]
    if not devices:
        return Check(name, OK, "none", worth=worth)
    if machine.may(CAP_IPC_LOCK) or machine.limit("Max locked memory") == -1:
        return Check(name, OK, f"{', '.join(devices)}, and memory can be locked", worth=worth)
    return Check(
        name, ADVICE, f"{', '.join(devices)}, and memory cannot be locked", "a page that comes back from a disk takes milliseconds",
        "grant memlock (see there); swapoff can stall a full box for minutes", worth,
    )  # fmt: skip


def core_dumps(machine: Machine, need: Need) -> Check:
    name, worth = "core-dumps", 20
    pattern, limit = machine.text("proc/sys/kernel/core_pattern"), machine.limit("Max core file size")
    if pattern is None or limit is None:
        return Check(name, UNKNOWN, "/proc/sys/kernel/core_pattern or /proc/self/limits cannot be read", "what a crash writes", "", worth)
    # A handler behind a pipe gets the dump whatever the limit says (core(5)).
    if limit == 0 and not pattern.startswith("|"):
        return Check(name, OK, f"off (core_pattern={pattern})", worth=worth)
    return Check(
        name, ADVICE, f"core_pattern={pattern[:60]}, limit {'unlimited' if limit < 0 else limit}",
        "a crash writes the process's memory out before its CPU, sockets and locks are free: seconds in which nothing restarts",
        "Storage=none in /etc/systemd/coredump.conf; or a pattern without a pipe, and LimitCORE=0 in the unit", worth,
    )  # fmt: skip


SINGLE: tuple[Callable[[Machine, Need], Check], ...] = (
    clock, clocksource, cores, smt, isolation, governor, locked_memory, real_time, shared_memory, huge_pages, remove_ipc, host, kernel,
    overcommit, swap, core_dumps,
)  # fmt: skip


def checks(machine: Machine, need: Need) -> list[Check]:
    return [check(machine, need) for check in SINGLE] + list(network_nodes(machine, need))


def current_machine() -> Machine:
    return Machine(Path("/"), os.getuid())
