"""`tuning/tune` on fake machines: every knob in every state, a power cut at every step, and one knob for real.

A fake machine is a folder with its own /sys, /proc and bin/ (stand-ins for taskset, mount, systemctl and ethtool, which edit
the folder). What cannot be faked: a file that answers a write with something else than was written, save through /dev/null.
"""

import json
import os
import re
import shutil
import signal
import struct
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

TUNING = Path(__file__).parents[1] / "tuning"
KNOBS = {path.stem.split("-", 1)[1]: path for path in sorted((TUNING / "knobs").glob("[0-9]*.sh"))}
BOOT_KNOBS = {"isolcpus", "nohz-full", "rcu-nocbs", "irqaffinity", "skew-tick", "rcu-boot", "tsc-reliable"}
DANGEROUS = {"tsc-reliable", "ignore-ce", "rt-runtime", "fair-server", "rings", "queues"}
KERNEL_THREAD, BOUND = 0x00200000, 0x04000000
DROPIN = "etc/default/grub.d/60-tickpath.cfg"
JOURNAL = "var/lib/tickpath/tuning.journal"
SSH = "10.9.0.7 55000 10.9.0.1 22"


# ------------------------------------------------------------------------------------------------ fake machines


@dataclass
class Box:
    """A folder that looks like a machine."""

    root: Path
    cpus: int
    cores: list[list[int]]

    def put(self, path: str, text: str) -> Path:
        file = self.root / path.lstrip("/")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text + "\n")
        return file

    def get(self, path: str) -> str:
        return (self.root / path.lstrip("/")).read_text().rstrip("\n")

    def process(self, pid: int, name: str, flags: int = KERNEL_THREAD, cpus: str = "", started: int = 24) -> None:
        words = ["S", "2", "0", "0", "0", "-1", str(flags), *["0"] * 12, str(started), "0", "0"]
        self.put(f"proc/{pid}/stat", f"{pid} ({name}) {' '.join(words)}")
        self.put(f"proc/{pid}/comm", name)
        self.put(f"proc/{pid}/status", f"Name:\t{name}\nCpus_allowed_list:\t{cpus or f'0-{self.cpus - 1}'}\nThreads:\t1")

    def tool(self, name: str, script: str) -> None:
        file = self.root / "bin" / name
        file.parent.mkdir(exist_ok=True)
        file.write_text('#!/bin/bash\nroot=$(cd "$(dirname "$0")/.." && pwd)\n' + script)
        file.chmod(0o755)


TASKSET = 'sed -i "s/^Cpus_allowed_list:.*/Cpus_allowed_list:\\t$2/" "$root/proc/$3/status"\n'
MOUNT = """
case "$*" in
  "-o remount,huge="*)
      option=,${2#remount,}
      [ "$option" = ,huge=never ] && option=
      sed -i -E "/ \\/dev\\/shm /{s/,huge=[a-z_]+//; s/( tmpfs [^ ]+)/\\1$option/}" "$root/proc/mounts" ;;
  "-t hugetlbfs"*) echo "hugetlbfs $6 hugetlbfs rw,pagesize=2M 0 0" >> "$root/proc/mounts" ;;
esac
"""
UMOUNT = 'sed -i "\\\\| $1 |d" "$root/proc/mounts"\n'
SYSTEMCTL = """
if [ "$1 $2" = "stop irqbalance" ]; then rm -r "$root/proc/900"; else mkdir "$root/proc/900"; echo irqbalance > "$root/proc/900/comm"; fi
"""
# One file a setting, so that a test can read it back and change it.
ETHTOOL = """
state=$root/nic/$2
[ -d "$state" ] || { echo "netlink error: No such device" >&2; exit 1; }
v() { cat "$state/$1"; }
table() { printf '    0:'; for entry in "$@" "$@" "$@" "$@"; do printf '  %s' "$entry"; done; echo; }
case $1 in
  -c) [ -e "$state/rx-usecs" ] || { echo "netlink error: Operation not supported" >&2; exit 1; }
      printf 'Coalesce parameters for %s:\\nAdaptive RX: %s  TX: off\\n' "$2" "$(v adaptive)"
      printf 'rx-usecs:\\t%s\\nrx-frames:\\tn/a\\n' "$(v rx-usecs)" ;;
  -C) if [ "$3" = adaptive-rx ]; then echo "$4" > "$state/adaptive"; else echo "$4" > "$state/$3"; fi ;;
  -g) printf 'Pre-set maximums:\\nRX:\\t4096\\nTX:\\t4096\\nCurrent hardware settings:\\nRX:\\t%s\\nTX:\\t512\\n' "$(v ring)" ;;
  -G) echo "$4" > "$state/ring" ;;
  -l) printf 'Pre-set maximums:\\nCombined:\\t8\\nCurrent hardware settings:\\nCombined:\\t%s\\n' "$(v combined)" ;;
  -L) echo "$4" > "$state/combined" ;;
  -x) printf 'RX flow hash indirection table for %s with 4 RX ring(s):\\n' "$2"; v table; printf 'RSS hash key:\\nab:cd\\n' ;;
  -n) printf '4 RX rings available\nTotal %s rules\n\n' "$(wc -l < "$state/rules")"
      while read -r id kind to port queue; do
        printf 'Filter: %s\n\tRule Type: %s over IPv4\n\tSrc IP addr: 0.0.0.0 mask: 255.255.255.255\n' "$id" "$kind"
        printf '\tDest IP addr: %s mask: 0.0.0.0\n\tTOS: 0x0 mask: 0xff\n\tSrc port: 0 mask: 0xffff\n' "$to"
        printf '\tDest port: %s mask: 0x0\n\tAction: Direct to queue %s\n\n' "$port" "$queue"
      done < "$state/rules" ;;
  -N) case $3 in
        delete) sed -i "/^$4 /d" "$state/rules" ;;
        flow-type) kind=${4%4}; echo "$((1023 - $(wc -l < "$state/rules"))) ${kind^^} $6 $8 ${10}" >> "$state/rules" ;;
      esac ;;
  -X) case $4 in 4) table 0 1 2 3 ;; 2) table 0 1 ;; esac > "$state/table" ;;
esac
"""


def machine(root: Path, *, kernel: str, sockets: int = 1, cores_per_socket: int, threads: int = 1) -> Box:
    """What every machine has: CPUs, clock, /proc, and the sysctls of any kernel."""
    cores = sockets * cores_per_socket
    box = Box(root, cores * threads, [[core + cores * thread for thread in range(threads)] for core in range(cores)])
    every = f"0-{box.cpus - 1}"
    cpu = "sys/devices/system/cpu"
    box.put(f"{cpu}/online", every)
    box.put(f"{cpu}/isolated", "")
    box.put(f"{cpu}/smt/control", "on" if threads > 1 else "notsupported")
    for number in range(box.cpus):
        core = next(core for core in box.cores if number in core)
        box.put(f"{cpu}/cpu{number}/topology/thread_siblings_list", ",".join(map(str, core)))
        box.put(f"{cpu}/cpu{number}/power/pm_qos_resume_latency_us", "0")
        box.put(f"{cpu}/cpu{number}/cpuidle/state1/latency", "2")
    box.put("proc/sys/kernel/osrelease", kernel)
    box.put("proc/sys/kernel/random/boot_id", "11111111-first-boot")
    box.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet")
    box.put("proc/cpuinfo", "processor\t: 0\nflags\t\t: fpu tsc constant_tsc nonstop_tsc rdtscp")
    box.put("proc/filesystems", "nodev\tsysfs\nnodev\thugetlbfs")
    box.put("proc/mounts", "sysfs /sys sysfs rw 0 0\ntmpfs /dev/shm tmpfs rw,nosuid 0 0")
    box.put("sys/devices/system/clocksource/clocksource0/available_clocksource", "tsc hpet acpi_pm ")
    box.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "hpet")
    mask = f"{(1 << box.cpus) - 1:x}"
    box.put("proc/irq/default_smp_affinity", mask)
    for irq, mode in ((20, 0o644), (21, 0o644), (24, 0o644), (25, 0o644), (30, 0o444)):
        box.put(f"proc/irq/{irq}/smp_affinity_list", every).chmod(mode)
        box.put(f"proc/irq/{irq}/effective_affinity_list", str(box.cpus - 1))
    for queue in ("", "writeback/"):
        box.put(f"sys/devices/virtual/workqueue/{queue}cpumask", mask)
    for name, value in {
        "kernel/nmi_watchdog": "1",
        "kernel/watchdog_cpumask": every,
        "kernel/timer_migration": "1",
        "kernel/numa_balancing": "1",
        "kernel/sched_rt_runtime_us": "950000",
        "vm/stat_interval": "1",
        "vm/compaction_proactiveness": "20",
        "vm/compact_unevictable_allowed": "1",
        "vm/swappiness": "60",
        "vm/zone_reclaim_mode": "1",
        "net/core/busy_read": "0",
        "net/core/busy_poll": "0",
        "net/core/rmem_max": "212992",
        "net/core/wmem_max": "212992",
        "net/ipv4/tcp_low_latency": "0",
    }.items():
        box.put(f"proc/sys/{name}", value)
    box.put("sys/kernel/rcu_normal", "0")
    box.put("sys/kernel/mm/transparent_hugepage/enabled", "[always] madvise never")
    box.put("sys/kernel/mm/transparent_hugepage/shmem_enabled", "always within_size advise [never] deny force")
    box.put("sys/kernel/mm/transparent_hugepage/khugepaged/defrag", "1")
    box.put("sys/kernel/mm/ksm/run", "1")
    for node in range(sockets):
        box.put(f"sys/devices/system/node/node{node}/hugepages/hugepages-2048kB/nr_hugepages", "0")
    (box.root / "dev").mkdir()
    (box.root / "dev/cpu_dma_latency").write_bytes(struct.pack("<i", 2_000_000_000))
    box.process(2, "kthreadd")
    box.process(14, "ksoftirqd/0", KERNEL_THREAD | BOUND, "0")
    box.process(45, "kswapd0")
    box.process(600, "trader (odd) name", 0x400000)
    box.tool("taskset", TASKSET)
    box.tool("mount", MOUNT)
    box.tool("umount", UMOUNT)
    box.tool("perl", 'exec perl "$@"\n')
    return box


def bare_metal(box: Box) -> Box:
    """What a server has and a virtual machine has not."""
    for number in range(box.cpus):
        box.put(f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_governor", "powersave")
        box.put(f"sys/devices/system/cpu/cpu{number}/cpufreq/scaling_available_governors", "performance powersave")
        box.put(f"sys/devices/system/machinecheck/machinecheck{number}/ignore_ce", "0")
        box.put(f"sys/kernel/debug/sched/fair_server/cpu{number}/runtime", "50000000")
    box.put("sys/devices/system/cpu/nohz_full", "")
    (box.root / "etc/default/grub.d").mkdir(parents=True)
    box.tool("systemctl", SYSTEMCTL)
    box.tool("irqbalance", "")
    box.put("proc/900/comm", "irqbalance")
    box.tool("ethtool", ETHTOOL)
    for name, address in (("eth0", 20), ("eth1", 24)):
        box.put(f"sys/class/net/{name}/device/msi_irqs/{address}", "msix")
        for queue in range(4):
            box.put(f"sys/class/net/{name}/queues/tx-{queue}/xps_cpus", "0")
        for setting, value in {"adaptive": "on", "rx-usecs": "50", "ring": "512", "combined": "4"}.items():
            box.put(f"nic/{name}/{setting}", value)
        (box.root / f"nic/{name}/rules").touch()
        box.put(f"nic/{name}/table", "    0:  0  1  2  3  0  1  2  3  0  1  2  3  0  1  2  3")
    route = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT"
    default = "eth0\t00000000\t0100000A\t0003\t0\t0\t0\t00000000\t0\t0\t0"
    local = "eth1\t0000090A\t00000000\t0001\t0\t0\t0\t0000FFFF\t0\t0\t0"
    box.put("proc/net/route", f"{route}\n{local}\n{default}")
    addresses = [f"fd00000000000000000000000000000{number + 1} 0{number + 2} 40 00 80     eth{number}" for number in (0, 1)]
    box.put("proc/net/if_inet6", "\n".join(addresses))
    return box


def cgroup2(box: Box) -> Box:
    box.put("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory")
    box.put("sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu memory")
    return box


def intel(root: Path) -> Box:
    """Two sockets of four cores with two threads each, cgroup v2, kernel 6.12."""
    box = cgroup2(bare_metal(machine(root, kernel="6.12.9", sockets=2, cores_per_socket=4, threads=2)))
    for number in range(box.cpus):
        box.put(f"sys/devices/system/cpu/cpu{number}/cpufreq/energy_performance_preference", "balance_performance")
        box.put(f"sys/devices/system/cpu/cpu{number}/power/energy_perf_bias", "6")
    box.put("sys/devices/system/cpu/intel_pstate/no_turbo", "1")
    box.put("sys/devices/system/cpu/intel_pstate/min_perf_pct", "30")
    return box


def amd(root: Path) -> Box:
    """Two sockets of four cores without second threads, acpi-cpufreq, kernel 5.14."""
    box = cgroup2(bare_metal(machine(root, kernel="5.14.0-503.el9", sockets=2, cores_per_socket=4)))
    box.put("sys/devices/system/cpu/cpufreq/boost", "0")
    shutil.rmtree(box.root / "sys/kernel/debug")
    return box


def laptop(root: Path) -> Box:
    """Two cores with two threads each, a battery's settings, kernel 6.8, no wired network and no ethtool."""
    box = cgroup2(bare_metal(machine(root, kernel="6.8.0", cores_per_socket=2, threads=2)))
    for number in range(box.cpus):
        box.put(f"sys/devices/system/cpu/cpu{number}/cpufreq/energy_performance_preference", "power")
    box.put("sys/devices/system/cpu/intel_pstate/no_turbo", "0")
    box.put("sys/devices/system/cpu/intel_pstate/min_perf_pct", "8")
    shutil.rmtree(box.root / "sys/kernel/debug")
    (box.root / "bin/ethtool").unlink()
    return box


def vm(root: Path) -> Box:
    """Two virtual CPUs, cgroup v1, no cpufreq, no grub, no irqbalance."""
    box = machine(root, kernel="6.18.44-fc", cores_per_socket=2)
    for name, value in {"cpus": "0-1", "mems": "0", "sched_load_balance": "1"}.items():
        box.put(f"sys/fs/cgroup/cpuset/cpuset.{name}", value)
    box.put("sys/fs/cgroup/cpuset/cgroup.procs", "2\n14\n45")
    box.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
    return box


def bare(root: Path) -> Box:
    """A kernel that shows next to nothing."""
    box = Box(root, 1, [[0]])
    box.put("sys/devices/system/cpu/online", "0")
    box.put("proc/sys/kernel/osrelease", "4.4.0")
    return box


FULL = """
latency_cpus = {latency}
interface = eth1
tsc_reliable = yes
smt = keep
resume_latency = 20
ignore_ce = yes
thp = never
hugepages = 64
rt_runtime = -1
fair_server = off
busy_read = 50
busy_poll = 50
nic_irqs = housekeeping
rings = max
queues = 2
rss = 2
flows = udp4:239.1.1.1:26400:2,tcp4:10.9.0.1:26401:0
xps = spread
"""


# ------------------------------------------------------------------------------------------------ running it


@dataclass
class Run:
    code: int
    out: str
    err: str
    report: dict[str, Any] = field(default_factory=dict)

    @property
    def states(self) -> dict[str, str]:
        return {knob["name"]: knob["state"] for knob in self.report["knobs"]}

    def knob(self, name: str) -> dict[str, Any]:
        return next(knob for knob in self.report["knobs"] if knob["name"] == name)


def run(box: Box, verb: str, *options: str, profile: str | None = None, env: dict[str, str] | None = None, as_json: bool = True) -> Run:
    command = [str(TUNING / "tune"), verb, "--root", str(box.root), *options]
    if profile is not None:
        file = box.root / "test.profile"
        file.write_text(profile)
        command += ["--profile", str(file)]
    if as_json:
        command.append("--json")
    clean = {name: value for name, value in os.environ.items() if not name.startswith(("SSH_", "TICKPATH_"))}
    done = subprocess.run(command, capture_output=True, text=True, env=clean | (env or {}), timeout=60, check=False)
    result = Run(done.returncode, done.stdout, done.stderr)
    if as_json and done.stdout:
        result.report = json.loads(done.stdout)
        assert result.report["exit"] == done.returncode
    return result


def picture(box: Box) -> dict[str, str]:
    """Every file of the tree but the profile, the lock, and the device that a holder has written to."""
    skip = {"test.profile", "dev/cpu_dma_latency", "run/tickpath-tuning.lock"}
    found = {}
    for path in sorted(box.root.rglob("*")):
        name = str(path.relative_to(box.root))
        if path.is_file() and not path.is_symlink() and name not in skip:
            # A mark in brackets is gone once something was written; the kernel's own file would keep it.
            text = path.read_text()
            found[name] = re.sub(r".*\[(\w+)\].*", r"\1", text)
        elif path.is_dir() and not any(path.iterdir()) and path.relative_to(box.root).parts[0] not in {"run", "var"}:
            found[name] = "(empty folder)"
    return found


@contextmanager
def machines(tmp_path: Path) -> Iterator[Any]:
    """Makes machines, and lets no holder process outlive them. In memory where that can hold programs: each write is synced."""
    memory = Path("/dev/shm")
    usable = os.access(memory, os.W_OK) and not os.statvfs(memory).f_flag & os.ST_NOEXEC
    place = Path(tempfile.mkdtemp(prefix="tickpath-tune-", dir=memory if usable else tmp_path))
    made: list[Box] = []

    def make(kind: Any) -> Box:
        root = place / f"{kind.__name__}{len(made)}"
        root.mkdir()
        made.append(kind(root))
        return made[-1]

    try:
        yield make
    finally:
        end_holders(place)
        shutil.rmtree(place)


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Any]:
    with machines(tmp_path) as make:
        yield make


def end_holders(place: Path) -> None:
    """Whatever holds a device below this folder, whether or not its pid file tells."""
    for device in Path("/proc").glob("[0-9]*/fd/3"):
        try:
            held = device.readlink()
        except OSError:
            continue
        if held.is_relative_to(place):
            os.kill(int(device.parts[2]), signal.SIGTERM)
    for number in place.glob("*/run/tickpath-timestamping.pid"):
        if stamps_holder(number):
            os.kill(int(number.read_text()), signal.SIGTERM)


def stamps_holder(number: Path) -> bool:
    """Whether the process in this file holds a socket for us."""
    comm = Path(f"/proc/{number.read_text().strip()}/comm")
    return comm.exists() and comm.read_text() == "tp-timestamping\n"


# ------------------------------------------------------------------------------------------------ every knob, every state


def scenario_drift(make: Any) -> Run:
    box = make(intel)
    return run(box, "audit", "--dangerous", profile=FULL.format(latency="1-7,9-15"))


def scenario_applied(make: Any) -> Run:
    box = make(intel)
    profile = FULL.format(latency="1-7,9-15")
    assert run(box, "apply", "--dangerous", "--write-dropin", profile=profile).code == 1  # The kernel arguments wait for a reboot.
    return run(box, "verify", "--dangerous", "--write-dropin", profile=profile)


def scenario_rebooted(make: Any) -> Run:
    """The boot line has been taken by the kernel, which shows it."""
    box = make(intel)
    profile = FULL.format(latency="1-7,9-15")
    run(box, "apply", "--dangerous", "--write-dropin", "--only", "boot-dropin", profile=profile)
    line = re.findall(r'DEFAULT (.*)"', box.get(DROPIN))[0]
    box.put("proc/cmdline", f"BOOT_IMAGE=/vmlinuz ro {line} -- isolcpus=3")
    box.put("sys/devices/system/cpu/isolated", "1-7,9-15")
    box.put("sys/devices/system/cpu/nohz_full", "1-7,9-15")
    box.process(70, "rcuog/1")
    return run(box, "audit", "--dangerous", "--write-dropin", profile=profile)


def scenario_ignored(make: Any) -> Run:
    """On the kernel line, but the kernel does not show it."""
    box = make(intel)
    isolation = "isolcpus=domain,managed_irq,1-7,9-15 nohz_full=1-7,9-15 rcu_nocbs=1-7,9-15 irqaffinity=0,8"
    box.put("proc/cmdline", f"ro {isolation} skew_tick=1 rcupdate.rcu_normal_after_boot=1 rcutree.nohz_full_patience_delay=1000")
    return run(box, "audit")


def scenario_foreign(make: Any) -> Run:
    """Somebody else's kernel line says something different."""
    box = make(intel)
    line = "isolcpus=1-3 nohz_full=1-3 rcu_nocbs=1-3 irqaffinity=0-3 skew_tick=0 rcupdate.rcu_normal_after_boot=0 tsc=unstable"
    box.put("proc/cmdline", f"ro {line} idle=poll mce=off mitigations=off")
    box.put(DROPIN, "# by hand")
    return run(box, "audit", "--dangerous", "--write-dropin", profile="tsc_reliable = yes\nsmt = keep")


def scenario_undangerous(make: Any) -> Run:
    return run(make(intel), "audit", profile=FULL.format(latency="1-7,9-15"))


def scenario_login(make: Any) -> Run:
    return run(make(intel), "audit", "--dangerous", profile=FULL.format(latency="1-7,9-15"), env={"SSH_CONNECTION": SSH})


def scenario_unsupported(make: Any) -> Run:
    profile = FULL.format(latency="auto").replace("interface = eth1", "").replace("tsc_reliable = yes", "").replace("= keep", "= off")
    return run(make(bare), "audit", "--dangerous", "--write-dropin", profile=profile)


def scenario_kept(make: Any) -> Run:
    keys = re.findall(r"^([a-z_0-9]+) *=", (TUNING / "default.profile").read_text(), re.M)[4:]
    return run(make(intel), "audit", profile="\n".join(f"{key} = keep" for key in keys))


def scenario_unreadable(make: Any) -> Run:
    """Every file there, none of them with an answer. /dev/null takes any write as well."""
    box = make(intel)
    keep = {"osrelease", "online", "thread_siblings_list", "cgroup.controllers", "filesystems", "latency", "cmdline", "stat", "comm"}
    for path in [*box.root.joinpath("sys").rglob("*"), *box.root.joinpath("proc").rglob("*")]:
        if path.is_file() and path.name not in keep and "msi_irqs" not in path.parts:
            path.unlink()
            path.symlink_to("/dev/null")
    (box.root / "dev/cpu_dma_latency").write_bytes(b"")
    return run(box, "apply", "--dangerous", profile=FULL.format(latency="1-7,9-15"))


def scenario_vm(make: Any) -> Run:
    return run(make(vm), "audit")


def scenario_vm_applied(make: Any) -> Run:
    box = make(vm)
    run(box, "apply")
    return run(box, "verify")


def scenario_single(make: Any) -> Run:
    """One core with two threads: no CPU can be spared."""
    box = make(vm)
    for number in (0, 1):
        box.put(f"sys/devices/system/cpu/cpu{number}/topology/thread_siblings_list", "0-1")
    return run(box, "audit", profile="resume_latency = 5\nfair_server = off")


def scenario_isolated_at_boot(make: Any) -> Run:
    box = make(intel)
    box.put("sys/devices/system/cpu/isolated", "1-7,9-15")
    return run(box, "audit")


def scenario_smt(make: Any) -> Run:
    return run(make(intel), "audit", profile="smt = off")


def scenario_smt_applied(make: Any) -> Run:
    box = make(intel)
    run(box, "apply", "--only", "smt", profile="smt = off")
    return run(box, "verify", profile="smt = off")


def scenario_smt_gone(make: Any) -> Run:
    box = make(intel)
    box.put("sys/devices/system/cpu/smt/control", "forceoff")
    return run(box, "audit", profile="smt = off")


def scenario_untrusted(make: Any) -> Run:
    """A TSC that the kernel has ruled out, a governor that the driver lacks, a queue count beyond the card, a table by hand."""
    box = make(intel)
    box.put("sys/devices/system/clocksource/clocksource0/available_clocksource", "hpet acpi_pm ")
    box.put("proc/cpuinfo", "flags\t: fpu tsc")
    box.put("nic/eth1/table", "    0:      0     0     0     1     0     1     2     3")
    (box.root / "bin/systemctl").unlink()
    (box.root / "bin/mount").unlink()
    wishes = "governor = ondemand\ntsc_reliable = yes\ninterface = eth1\nqueues = 9\nrss = 2\nhugepages = 4"
    return run(box, "audit", "--dangerous", profile=wishes)


SCENARIOS = {name.removeprefix("scenario_"): function for name, function in list(globals().items()) if name.startswith("scenario_")}
ORDINARY = set(KNOBS) - BOOT_KNOBS - {"cpuset-v1", "smt", "tcp-low-latency", "dead-sysctls", "harmful-boot", "boot-dropin"}
NIC_KNOBS = {"nic-irqs", "coalesce", "rings", "queues", "rss", "flows", "xps"}
CPU_KNOBS = {"isolcpus", "nohz-full", "rcu-nocbs", "irqaffinity", "cpuset-v1", "irq-default", "irqs", "workqueues", "kthreads"}
CPU_KNOBS |= {"watchdog-cpus", "resume-latency"}
READ_FROM_FILES = ORDINARY - {"irqbalance", "shm-huge", "hugetlb-mount", "kthreads", "coalesce", "rings", "queues", "rss", "cpuset-v2"}
READ_FROM_FILES -= {"timestamping", "flows"}

# Which knobs are in which state, by scenario.
EXPECTED: dict[str, dict[str, set[str]]] = {
    "drift": {"drift": ORDINARY | BOOT_KNOBS, "no-op": {"boot-dropin", "smt", "tcp-low-latency", "dead-sysctls"}},
    "applied": {"ok": ORDINARY | {"boot-dropin", "harmful-boot"}, "pending-reboot": BOOT_KNOBS, "unsupported": {"cpuset-v1"}},
    "rebooted": {"ok": BOOT_KNOBS | {"boot-dropin"}, "no-op": {"cpuset-v2"}},
    "ignored": {"unsupported": {"isolcpus", "nohz-full", "rcu-nocbs"}, "ok": {"irqaffinity", "skew-tick", "rcu-boot"}},
    "foreign": {"refused": BOOT_KNOBS | {"boot-dropin", "harmful-boot"}},
    "undangerous": {"refused": DANGEROUS},
    "login": {"refused": NIC_KNOBS, "drift": ORDINARY - NIC_KNOBS},
    "unsupported": {
        "unsupported": set(KNOBS) - NIC_KNOBS - {"tsc-reliable", "irqbalance", "hugetlb-mount", "tcp-low-latency", "dead-sysctls"},
        "no-op": {"tsc-reliable", "irqbalance", "tcp-low-latency", "dead-sysctls", "coalesce"},
    },
    "kept": {"no-op": set(KNOBS) - {"harmful-boot"}, "ok": {"harmful-boot"}},
    "unreadable": {"refused": READ_FROM_FILES},
    "vm": {
        "unsupported": {"nohz-full", "cpuset-v2", "epp", "governor", "min-perf", "boost", "energy-bias"},
        "drift": {"cpuset-v1", "irqs", "irq-default", "dma-latency", "kthreads", "isolcpus"},
        "ok": {"clocksource"},
        "no-op": {"irqbalance", "boot-dropin"},
    },
    "vm_applied": {"ok": {"cpuset-v1", "irqs", "irq-default", "dma-latency", "kthreads", "swappiness"}},
    "single": {"unsupported": CPU_KNOBS | {"fair-server"}, "drift": {"swappiness"}},
    "isolated_at_boot": {"no-op": {"cpuset-v2"}},
    "smt": {"drift": {"smt"}},
    "smt_applied": {"ok": {"smt"}},
    "smt_gone": {"no-op": {"smt"}},
    "untrusted": {"refused": {"clocksource", "governor", "tsc-reliable", "queues", "rss", "irqbalance", "shm-huge", "hugetlb-mount"}},
}


@pytest.fixture(scope="module")
def scenario(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """Each scenario is played once, whatever the number of knobs that look at it."""
    played: dict[str, Run] = {}
    with machines(tmp_path_factory.mktemp("machines")) as make:

        def play(name: str) -> Run:
            if name not in played:
                played[name] = SCENARIOS[name](make)
            return played[name]

        yield play


@pytest.mark.parametrize("name", EXPECTED)
def test_states(scenario: Any, name: str) -> None:
    result = scenario(name)
    expected = {knob: state for state, knobs in EXPECTED[name].items() for knob in knobs}
    assert {knob: result.states[knob] for knob in expected} == expected


def test_every_knob_is_seen_in_every_state_it_has() -> None:
    """What the table above covers: a new knob has to be put into it."""
    seen: dict[str, set[str]] = {knob: set() for knob in KNOBS}
    for states in EXPECTED.values():
        for state, knobs in states.items():
            for knob in knobs:
                seen[knob].add(state)
    needed = {knob: {"ok", "drift", "unsupported", "no-op"} for knob in KNOBS}
    # Some cannot be missing from a machine, or are only ever read.
    needed |= {knob: {"ok", "drift", "no-op"} for knob in {"tsc-reliable", "irqbalance", "hugetlb-mount"} | NIC_KNOBS}
    needed |= {"boot-dropin": {"ok", "refused", "unsupported", "no-op"}, "harmful-boot": {"ok", "refused", "unsupported"}}
    needed |= {"tcp-low-latency": {"no-op"}, "dead-sysctls": {"no-op"}}
    for knob, had in seen.items():
        assert had >= needed[knob], f"{knob} is never seen as {needed[knob] - had}"
    assert all("pending-reboot" in seen[knob] for knob in BOOT_KNOBS)


def test_nothing_unreadable_is_ok(scenario: Any) -> None:
    result = scenario("unreadable")
    assert result.code == 1
    answered = {"harmful-boot", "irqbalance", "kthreads", "shm-huge", "coalesce", "rings", "queues", "rss", "flows", "timestamping"}
    assert {name for name, state in result.states.items() if state == "ok"} <= answered


def test_reasons_are_given(scenario: Any) -> None:
    """A state that is not a plain yes or no says why, and every knob says what it is for and what it risks."""
    for name in EXPECTED:
        for knob in scenario(name).report["knobs"]:
            assert {"name", "state", "want", "got", "why", "reason", "danger", "source", "changes"} <= set(knob)
            assert knob["why"] and knob["danger"] and knob["source"]
            if knob["state"] in {"refused", "unsupported", "no-op", "pending-reboot"}:
                assert knob["reason"], f"{name}: {knob}"
            if knob["state"] == "drift" and knob["lasts"] == "boot":
                assert "needs the boot line and a reboot" in knob["reason"]
            if knob["state"] == "drift" and scenario(name).report["verb"] == "audit":
                assert knob["changes"], f"{name}: {knob}"


def test_exit_codes(scenario: Any, boxes: Any) -> None:
    assert scenario("drift").code == 1
    assert scenario("applied").code == 1  # pending-reboot
    assert scenario("kept").code == 0
    assert scenario("undangerous").code == 1
    box = boxes(vm)
    assert run(box, "audit", "--only", "clocksource").code == 0
    assert run(box, "audit", "--only", "governor").code == 2
    assert run(box, "audit", "--only", "governor,clocksource").code == 0
    assert run(box, "audit", "--only", "stat-interval").code == 1
    assert run(box, "apply", "--only", "stat-interval").code == 0
    assert run(box, "verify", "--only", "stat-interval").code == 0
    for wrong in (["frob"], ["audit", "--frob"], ["audit", "plan"], ["audit", "--only", "frob"], ["audit", "--profile"], []):
        done = subprocess.run([TUNING / "tune", *wrong], capture_output=True, text=True, check=False)
        assert done.returncode == 2 and done.stderr and not done.stdout, wrong
    assert run(box, "audit", "--root", str(box.root / "nowhere")).code == 2


# ------------------------------------------------------------------------------------------------ what is wanted, exactly


def test_intel_is_set_as_documented(boxes: Any) -> None:
    box = boxes(intel)
    result = run(box, "apply", "--dangerous", profile=FULL.format(latency="1-7,9-15"))
    assert not result.err
    cpu = "sys/devices/system/cpu"
    wanted = {
        f"{cpu}/cpu0/cpufreq/scaling_governor": "performance",
        f"{cpu}/cpu15/cpufreq/scaling_governor": "performance",
        f"{cpu}/cpu15/cpufreq/energy_performance_preference": "performance",
        f"{cpu}/cpu9/power/energy_perf_bias": "0",
        f"{cpu}/cpu9/power/pm_qos_resume_latency_us": "20",
        f"{cpu}/cpu8/power/pm_qos_resume_latency_us": "0",
        f"{cpu}/intel_pstate/no_turbo": "0",
        f"{cpu}/intel_pstate/min_perf_pct": "100",
        "sys/fs/cgroup/tickpath.latency/cpuset.cpus": "1-7,9-15",
        "sys/fs/cgroup/tickpath.latency/cpuset.cpus.partition": "isolated",
        "proc/irq/default_smp_affinity": "101",
        "proc/irq/20/smp_affinity_list": "0,8",
        "proc/irq/30/smp_affinity_list": "0-15",
        "sys/devices/virtual/workqueue/writeback/cpumask": "101",
        "proc/sys/kernel/watchdog_cpumask": "0,8",
        "sys/kernel/debug/sched/fair_server/cpu9/runtime": "0",
        "sys/kernel/debug/sched/fair_server/cpu8/runtime": "50000000",
        "sys/devices/system/machinecheck/machinecheck3/ignore_ce": "1",
        "sys/devices/system/node/node1/hugepages/hugepages-2048kB/nr_hugepages": "64",
        "sys/kernel/mm/transparent_hugepage/enabled": "never",
        "proc/sys/kernel/sched_rt_runtime_us": "-1",
        "proc/sys/vm/zone_reclaim_mode": "0",
        "proc/sys/net/core/rmem_max": "16777216",
        "nic/eth1/adaptive": "off",
        "nic/eth1/rx-usecs": "0",
        "nic/eth0/rx-usecs": "50",
        "nic/eth1/ring": "4096",
        "nic/eth1/combined": "2",
        "sys/class/net/eth1/queues/tx-0/xps_cpus": "4422",
        "sys/class/net/eth0/queues/tx-0/xps_cpus": "0",
        "proc/sys/net/ipv4/tcp_low_latency": "0",
    }
    assert {path: box.get(path) for path in wanted} == wanted
    assert "Cpus_allowed_list:\t0,8\n" in box.get("proc/45/status")
    assert "Cpus_allowed_list:\t0-15\n" in box.get("proc/600/status")  # Not a kernel thread.
    assert "Cpus_allowed_list:\t0\n" in box.get("proc/14/status")  # Bound to its CPU.
    assert not (box.root / "proc/900").exists()
    mounts = box.get("proc/mounts")
    assert "/dev/shm tmpfs rw,nosuid,huge=advise 0 0" in mounts and "/dev/hugepages hugetlbfs" in mounts
    assert struct.unpack("<i", (box.root / "dev/cpu_dma_latency").read_bytes()) == (2,)
    assert "1 more, 1 of them on latency CPUs" in result.knob("irqs")["reason"]


def test_amd_boosts_through_cpufreq_and_is_too_old_for_some(boxes: Any) -> None:
    box = boxes(amd)
    result = run(box, "apply", "--dangerous", profile=FULL.format(latency="1-7"))
    assert box.get("sys/devices/system/cpu/cpufreq/boost") == "1"
    assert box.get("proc/irq/default_smp_affinity") == "1"
    unsupported = {name for name, state in result.states.items() if state == "unsupported"}
    assert unsupported == {"epp", "min-perf", "energy-bias", "fair-server", "cpuset-v1"}
    assert "nohz_full_patience_delay" not in result.report["boot_line"]  # Since 6.11.


def test_laptop_needs_no_network_card(boxes: Any) -> None:
    box = boxes(laptop)
    result = run(box, "apply")
    assert (result.report["latency_cpus"], result.report["housekeeping_cpus"]) == ("1,3", "0,2")
    assert result.states["coalesce"] == "no-op" and result.states["epp"] == "ok"
    assert run(box, "audit", "--only", "coalesce", profile="interface = eth1").states == {"coalesce": "unsupported"}


def test_feed_interrupts_go_where_the_profile_says(boxes: Any) -> None:
    box = boxes(amd)
    profile = "interface = eth1\nnic_irqs = 3"
    run(box, "apply", "--only", "irqs,nic-irqs", profile=profile)
    assert run(box, "verify", "--only", "irqs,nic-irqs", profile=profile).code == 0
    assert [box.get(f"proc/irq/{irq}/smp_affinity_list") for irq in (20, 24, 25)] == ["0", "3", "0"]


def test_a_better_value_is_left_alone(boxes: Any) -> None:
    box = boxes(amd)
    better = {
        "proc/sys/net/core/rmem_max": "67108864",
        "proc/sys/vm/swappiness": "1",
        "proc/irq/20/smp_affinity_list": "0",
        "sys/kernel/mm/ksm/run": "2",
        "sys/kernel/mm/transparent_hugepage/enabled": "always madvise [never]",
    }
    for path, value in better.items():
        box.put(path, value)
    result = run(box, "apply", "--only", "rmem-max,swappiness,ksm,irqs,thp", profile="housekeeping_cpus = 0-1")
    assert set(result.states.values()) == {"ok"}
    assert {path: box.get(path) for path in better} == better
    assert box.get("proc/irq/21/smp_affinity_list") == "0-1"


def test_a_partition_that_the_kernel_calls_invalid_is_not_ok(boxes: Any) -> None:
    box = boxes(intel)
    run(box, "apply", "--only", "cpuset-v2")
    box.put("sys/fs/cgroup/tickpath.latency/cpuset.cpus.partition", "isolated invalid (Cpu list in cpuset.cpus not exclusive)")
    knob = run(box, "verify", "--only", "cpuset-v2").knob("cpuset-v2")
    assert knob["state"] == "drift" and "not exclusive" in knob["got"]


def test_cpuset_controller_is_switched_on_for_the_partition(boxes: Any) -> None:
    """The kernel adds the word to the list; here it replaces the list, and so the partition does not read back."""
    box = boxes(intel)
    box.put("sys/fs/cgroup/cgroup.subtree_control", "cpu memory")
    assert run(box, "apply", "--only", "cpuset-v2").states == {"cpuset-v2": "drift"}
    assert box.get("sys/fs/cgroup/cgroup.subtree_control") == "+cpuset"
    box.put("sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu memory")
    assert run(box, "audit", "--only", "cpuset-v2").states == {"cpuset-v2": "ok"}
    assert run(box, "revert").states == {"cpuset-v2": "ok"}
    assert box.get("sys/fs/cgroup/cgroup.subtree_control") == "-cpuset"


def test_fewer_hugepages_than_asked_for_is_drift_and_still_ours(boxes: Any) -> None:
    box = boxes(amd)
    pages = "sys/devices/system/node/node0/hugepages/hugepages-2048kB/nr_hugepages"
    run(box, "apply", "--only", "hugepages", profile="hugepages = 0:64,1:8")
    box.put(pages, "50")
    again = run(box, "verify", "--only", "hugepages", profile="hugepages = 0:64,1:8")
    assert (again.code, again.knob("hugepages")["got"]) == (1, "50")
    assert run(box, "revert").code == 0
    assert box.get(pages) == "0"


def test_a_write_that_does_not_take_is_said(boxes: Any) -> None:
    """Written without an error, reading otherwise; and a file that does not take writes at all."""
    box = boxes(amd)
    nic = box.root / "bin/ethtool"
    nic.write_text(nic.read_text().replace('-G) echo "$4" > "$state/ring" ;;', "-G) ;;"))
    result = run(box, "apply", "--dangerous", "--only", "rings", profile="interface = eth1\nrings = max")
    assert (result.code, result.states["rings"]) == (1, "drift")
    assert "reads back otherwise" in result.knob("rings")["reason"]

    nic.write_text(nic.read_text().replace("-G) ;;", '-G) echo "netlink error: Invalid argument" >&2; exit 1 ;;'))
    result = run(box, "apply", "--dangerous", "--only", "rings", profile="interface = eth1\nrings = max")
    assert (result.code, result.states["rings"]) == (3, "refused")
    assert "Invalid argument: the kernel does not take this value" in result.knob("rings")["reason"]


def test_what_the_kernel_will_not_move_is_reported_and_no_failure(boxes: Any) -> None:
    box = boxes(amd)
    refusal = "taskset: failed to set pid 45's affinity: Invalid argument"
    box.tool("taskset", f'if [ "$3" = 45 ]; then echo "{refusal}" >&2; exit 1; fi\n{TASKSET}')
    result = run(box, "apply", "--only", "kthreads")
    assert (result.code, result.states["kthreads"]) == (0, "ok")
    assert "will not move 1 of 2" in result.knob("kthreads")["reason"]
    assert run(box, "verify", "--only", "kthreads").code == 0
    box.put("proc/sys/kernel/random/boot_id", "22222222-second-boot")  # What could not be moved then may be now.
    assert run(box, "verify", "--only", "kthreads").code == 1


def test_warnings(boxes: Any) -> None:
    box = boxes(intel)
    assert len(run(box, "audit", "--only", "tcp-low-latency,dead-sysctls,harmful-boot").report["warnings"]) == 0
    box.put("proc/sys/net/ipv4/tcp_low_latency", "1")
    box.put("etc/sysctl.d/99-fast.conf", "# from a guide\nnet.ipv4.tcp_nodelay = 1\nnet/ipv4/tcp_tw_recycle=1\nvm.swappiness = 1")
    box.put("proc/cmdline", "ro idle=poll mce=off mitigations=off quiet")
    warnings = run(box, "audit").report["warnings"]
    said = [
        "tcp_low_latency is 1",
        "tcp_nodelay in /etc/sysctl.d/99-fast.conf",
        "tcp_tw_recycle",
        "zone_reclaim_mode is 1",
        "idle=poll mce",
    ]
    for words in said:
        assert sum(words in warning for warning in warnings) == 1, words
    assert any("mitigations=off" in warning for warning in warnings)
    assert box.get("proc/sys/net/ipv4/tcp_low_latency") == "1"
    assert run(box, "apply", "--only", "zone-reclaim").states == {"zone-reclaim": "ok"}


# ------------------------------------------------------------------------------------------------ boot line


def test_dropin_is_printed_or_written_and_removed(boxes: Any) -> None:
    box = boxes(intel)
    assert "isolcpus=managed_irq,domain,1-7,9-15 nohz_full=1-7,9-15" in run(box, "plan", as_json=False).out
    assert not (box.root / DROPIN).exists()
    before = picture(box)
    run(box, "apply", "--only", "boot-dropin", "--write-dropin")
    mark, line = box.get(DROPIN).split("\n")
    assert "tickpath" in mark
    assert line.startswith('GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT isolcpus=managed_irq,domain,1-7,9-15 ')
    assert "tsc=reliable" not in line
    assert subprocess.run(["bash", "-n", box.root / DROPIN], check=False).returncode == 0

    # Another profile rewrites it; what the running kernel already has from us is not somebody else's.
    box.put("proc/cmdline", "ro " + line.split("DEFAULT ")[1].rstrip('"'))
    assert run(box, "audit", "--only", "isolcpus", profile="latency_cpus = 2,10").states == {"isolcpus": "drift"}
    run(box, "apply", "--only", "boot-dropin", "--write-dropin", profile="latency_cpus = 2,10")
    assert "isolcpus=managed_irq,domain,2,10 " in box.get(DROPIN)

    box.put("proc/sys/kernel/random/boot_id", "22222222-second-boot")  # A file of ours outlives the boot.
    result = run(box, "revert")
    assert (result.code, result.states) == (0, {"boot-dropin": "ok"})
    assert "update-grub" in result.report["warnings"][0]
    box.put("proc/cmdline", "BOOT_IMAGE=/vmlinuz root=/dev/sda1 ro quiet")
    box.put("proc/sys/kernel/random/boot_id", "11111111-first-boot")
    assert picture(box) == before


# ------------------------------------------------------------------------------------------------ profile


@pytest.mark.parametrize(
    ("profile", "words"),
    [
        ("latency_cpus = 0-3,8-11", "CPU 0 boots the machine"),
        ("latency_cpus = 1-99", "CPU 16-99 is offline"),
        ("latency_cpus = 1,2,9,10\nhousekeeping_cpus = 2", "CPU 2 is in both"),
        ("latency_cpus = 1", "CPU 1 is for latency but its core's other thread is not (core: 1,9)"),
        ("latency_cpus = 8", "CPU 8 is for latency but its core's other thread is not"),
        ("latency_cpus = all", "latency_cpus = 'all' is not one of: auto, none, a CPU list"),
        ("latency_cpus = 3-1", "latency_cpus = '3-1'"),
        ("latency_cpus =", "latency_cpus = ''"),
        ("housekeeping_cpus = 0-15\nlatency_cpus = 1,9", "is in both"),
        ("housekeeping_cpus = 40", "CPU 40 is offline"),
        ("latency_cpus = 1,9\nlatency_cpus = 2,10", ":2: latency_cpus is set twice, first on line 1"),
        ("swapiness = 10", "unknown key 'swapiness'"),
        ("net.ipv4.tcp_nodelay = 1", "TCP_NODELAY"),
        ("tcp_low_latency = 1", "ignored it since 4.14"),
        ("swappiness = ten", "swappiness = 'ten' is not one of: keep, a number from 0 to 200"),
        ("swappiness = 201", "swappiness"),
        ("swappiness = 010", "swappiness"),
        ("swappiness = $(id)", "swappiness"),
        ("swappiness = 10; reboot", "swappiness"),
        ("governor = performance powersave", "governor"),
        ("governor", "is not 'key = value'"),
        ("zone_reclaim = 1", "zone_reclaim"),
        ("hugepages = 0:8,", "hugepages"),
        ("hugetlb_mount = /dev/../etc", "hugetlb_mount"),
        ("interface = eth9", "no such network interface"),
        ("interface = ../../etc", "interface"),
        ("interface = ..", "interface"),
        ("flows = udp4:239.1.1.1:26400", "rules PROTOCOL:ADDRESS:PORT:QUEUE"),
        ("flows = udp6:239.1.1.1:26400:1", "flows"),
        ("flows = udp4:239.1.1.1:0:1", "flows"),
        ("flows = udp4:a:1:1", "flows"),
        ("smt = off\nlatency_cpus = 9", "CPU 9 is offline"),
    ],
)
def test_profile_is_refused(boxes: Any, profile: str, words: str) -> None:
    box = boxes(intel)
    before = picture(box)
    result = run(box, "apply", profile=profile)
    assert (result.code, result.out) == (2, "")
    assert words in result.err and "test.profile" in result.err
    assert picture(box) == before


def test_profile_without_housekeeping_is_refused(boxes: Any) -> None:
    """Only a machine without CPU 0 gets as far as this."""
    box = boxes(amd)
    box.put("sys/devices/system/cpu/online", "1-7")
    result = run(box, "audit", profile="latency_cpus = 1-7")
    assert result.code == 2 and "leaves no housekeeping CPU" in result.err


def test_profile_is_read_as_text(boxes: Any) -> None:
    box = boxes(intel)
    profile = "# comment\r\n  latency_cpus = 1-3,9-11   # three cores\r\n\r\nhousekeeping_cpus=0,8\r\n\tswappiness\t=\t5\nksm = keep"
    report = run(box, "audit", "--only", "swappiness,ksm", profile=profile).report
    assert (report["latency_cpus"], report["housekeeping_cpus"]) == ("1-3,9-11", "0,8")
    assert [(knob["want"], knob["state"]) for knob in report["knobs"]] == [("", "no-op"), ("5", "drift")]


@pytest.mark.parametrize(
    ("profile", "latency", "housekeeping"),
    [
        ("", "1-7,9-15", "0,8"),
        ("housekeeping_cpus = 0,1", "2-7,10-15", "0-1"),
        ("latency_cpus = 10,2", "2,10", "0-1,3-9,11-15"),
        ("latency_cpus = 9\nsplit_siblings = yes", "9", "0-8,10-15"),
        ("latency_cpus = none", "", "0-15"),
        ("smt = off", "1-7", "0"),
        ("smt = off\nlatency_cpus = 3", "3", "0-2,4-7"),
    ],
)
def test_cpus_are_divided(boxes: Any, profile: str, latency: str, housekeeping: str) -> None:
    report = run(boxes(intel), "audit", "--only", "ksm", profile=profile).report
    assert (report["latency_cpus"], report["housekeeping_cpus"]) == (latency, housekeeping)


def test_default_profile_names_every_knob_and_nothing_else() -> None:
    keys = re.findall(r"^([a-z_0-9]+) *=", (TUNING / "default.profile").read_text(), re.M)
    taking = {name.replace("-", "_") for name, path in KNOBS.items() if "\ntakes=" in path.read_text()}
    assert set(keys) == taking | {"latency_cpus", "housekeeping_cpus", "split_siblings", "interface"}


@pytest.mark.parametrize(
    ("connection", "interface"),
    [
        (SSH, "eth1"),
        ("::ffff:10.9.0.7 5 ::ffff:10.9.0.1 22", "eth1"),
        ("192.0.2.1 55000 10.0.0.2 22", "eth0"),
        ("fd00::99 5 fd00::2 22", "eth1"),
        ("fe80::1%eth0 5 fd00::1%eth0 22", "eth0"),
        ("nonsense", ""),
        ("", ""),
    ],
)
def test_login_interface(boxes: Any, connection: str, interface: str) -> None:
    box = boxes(intel)
    result = run(box, "apply", "--only", "coalesce", profile="interface = eth0,eth1", env={"SSH_CONNECTION": connection})
    knob = result.knob("coalesce")
    if interface:
        assert knob["state"] == "refused" and f"logged in through {interface}" in knob["reason"]
        assert box.get("nic/eth0/rx-usecs") == box.get("nic/eth1/rx-usecs") == "50"
        options = ["--only", "coalesce", "--login-interface"]
        allowed = run(box, "apply", *options, profile="interface = eth1", env={"SSH_CONNECTION": connection})
        assert allowed.states == {"coalesce": "ok"}
    else:
        assert knob["state"] == "ok"


# ------------------------------------------------------------------------------------------------ journal


@pytest.mark.parametrize("kind", [intel, amd, laptop, vm])
def test_apply_and_revert_leave_the_machine_as_it_was(boxes: Any, kind: Any) -> None:
    box = boxes(kind)
    latency = {"intel": "1-7,9-15", "amd": "1-7", "laptop": "1,3", "vm": "1"}[kind.__name__]
    profile = FULL.format(latency=latency)
    if kind is vm:
        profile = profile.replace("interface = eth1", "")
    before = picture(box)
    assert run(box, "apply", "--dangerous", "--write-dropin", profile=profile).code in (0, 1)
    applied = picture(box)
    assert applied != before
    again = run(box, "apply", "--dangerous", "--write-dropin", profile=profile)
    assert not any(knob["changes"] for knob in again.report["knobs"])
    assert picture(box) == applied
    result = run(box, "revert")
    assert (result.code, set(result.states.values())) == (0, {"ok"})
    assert picture(box) == before
    assert run(box, "revert").states == {}


def test_first_original_is_never_lost(boxes: Any) -> None:
    box = boxes(amd)
    setting = "proc/sys/vm/stat_interval"
    run(box, "apply", "--only", "stat-interval", profile="stat_interval = 10")
    run(box, "apply", "--only", "stat-interval", profile="stat_interval = 20")
    box.put(setting, "3")
    run(box, "apply", "--only", "stat-interval", profile="stat_interval = 30")
    assert box.get(setting) == "30"
    assert run(box, "revert").code == 0
    assert box.get(setting) == "1"


def test_revert_leaves_what_somebody_changed(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "stat-interval,swappiness,irqs")
    box.put("proc/sys/vm/swappiness", "33")
    box.put("proc/irq/21/smp_affinity_list", "4")
    verify = run(box, "verify", "--only", "swappiness")
    assert "somebody changed it since" in verify.knob("swappiness")["reason"]
    result = run(box, "revert")
    assert (result.code, result.states) == (1, {"irqs": "drift", "swappiness": "drift", "stat-interval": "ok"})
    assert "'33'" in result.knob("swappiness")["reason"] and "it was '60' before" in result.knob("swappiness")["reason"]
    assert (box.get("proc/sys/vm/swappiness"), box.get("proc/sys/vm/stat_interval")) == ("33", "1")
    assert box.get("proc/irq/21/smp_affinity_list") == "4"
    assert box.get("proc/irq/20/smp_affinity_list") == "0-7"
    box.put("proc/sys/vm/swappiness", "10")
    box.put("proc/irq/21/smp_affinity_list", "0")
    assert run(box, "revert").code == 0
    assert box.get("proc/sys/vm/swappiness") == "60"


def test_revert_of_one_knob(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "stat-interval,swappiness")
    assert run(box, "revert", "--only", "swappiness").states == {"swappiness": "ok"}
    assert (box.get("proc/sys/vm/swappiness"), box.get("proc/sys/vm/stat_interval")) == ("60", "10")
    assert run(box, "revert").states == {"stat-interval": "ok"}


def test_revert_goes_backwards(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "hugetlb-mount,swappiness,stat-interval", profile="hugepages = 4")
    order = [knob["name"] for knob in run(box, "revert").report["knobs"]]
    assert order == ["swappiness", "hugetlb-mount", "stat-interval"]
    assert not (box.root / "dev/hugepages").exists()


def test_another_boot_ends_what_was_set_in_this_one(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "stat-interval")
    box.put("proc/sys/kernel/random/boot_id", "22222222-second-boot")
    box.put("proc/sys/vm/stat_interval", "5")
    assert run(box, "revert").states == {}
    run(box, "apply", "--only", "stat-interval")
    assert run(box, "revert").code == 0
    assert box.get("proc/sys/vm/stat_interval") == "5"


def test_reused_thread_number_is_not_touched(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "kthreads")
    box.process(45, "another", 0x400000, "0", started=99)
    result = run(box, "revert")
    assert result.code == 0
    assert "Cpus_allowed_list:\t0\n" in box.get("proc/45/status")
    assert "Cpus_allowed_list:\t0-7\n" in box.get("proc/2/status")


def test_damaged_journals(boxes: Any) -> None:
    box = boxes(amd)
    run(box, "apply", "--only", "stat-interval,swappiness")
    whole = (box.root / JOURNAL).read_bytes()
    # Cut anywhere, it either still knows an entry or never wrote what the entry speaks of.
    start = whole.index(b"set\truntime\tswappiness")
    for cut in (start, start + 1, start + 20, len(whole) - 3, len(whole) - 2, len(whole) - 1):
        box.put("proc/sys/vm/stat_interval", "10")
        box.put("proc/sys/vm/swappiness", "10" if cut >= len(whole) - 1 else "60")
        (box.root / JOURNAL).write_bytes(whole[:cut])
        assert run(box, "revert").code == 0, cut
        assert (box.get("proc/sys/vm/stat_interval"), box.get("proc/sys/vm/swappiness")) == ("1", "60"), cut
        (box.root / JOURNAL).parent.mkdir(parents=True, exist_ok=True)
    # A file system may leave zeros where the last write should be.
    box.put("proc/sys/vm/stat_interval", "10")
    (box.root / JOURNAL).write_bytes(whole[:start] + b"\0" * 40 + b"\n")
    assert run(box, "revert").code == 0
    assert box.get("proc/sys/vm/stat_interval") == "1"

    (box.root / JOURNAL).parent.mkdir(parents=True, exist_ok=True)
    (box.root / JOURNAL).write_text("something else\n")
    for verb in ("apply", "revert", "audit"):
        result = run(box, verb)
        assert result.code == 3 and "does not begin with" in result.err
    (box.root / JOURNAL).unlink()
    (box.root / JOURNAL).symlink_to(box.root / "elsewhere")
    (box.root / "elsewhere").write_bytes(whole)
    result = run(box, "revert")
    assert result.code == 3 and "is a link" in result.err


def test_journal_that_cannot_be_written_changes_nothing(boxes: Any) -> None:
    box = boxes(amd)
    (box.root / "var").mkdir()
    (box.root / "var/lib").write_text("not a folder")
    before = picture(box)
    result = run(box, "apply")
    assert result.code == 3 and "nothing has been changed" in result.err
    assert picture(box) == before


def test_journal_holds_odd_values(boxes: Any) -> None:
    box = boxes(amd)
    box.put("sys/devices/system/cpu/cpufreq/boost", 'back\\slash\ttab "quoted" $(id) \\t')
    run(box, "apply", "--only", "boost")
    assert run(box, "audit", "--only", "boost").code == 0
    assert run(box, "revert").code == 0
    assert box.get("sys/devices/system/cpu/cpufreq/boost") == 'back\\slash\ttab "quoted" $(id) \\t'


def test_one_writer_at_a_time(boxes: Any) -> None:
    box = boxes(amd)
    box.put("run/tickpath-tuning.lock", str(os.getpid()))
    result = run(box, "apply", "--only", "stat-interval")
    assert result.code == 3 and f"process {os.getpid()}" in result.err
    assert run(box, "audit", "--only", "stat-interval").code == 1
    box.put("run/tickpath-tuning.lock", "")
    assert run(box, "apply", "--only", "stat-interval").code == 0


def test_holder_ends_with_revert_and_is_missed_when_it_dies(boxes: Any) -> None:
    box = boxes(vm)
    run(box, "apply", "--only", "dma-latency", profile="dma_latency = 3")
    pid = int(box.get("run/tickpath-dma-latency.pid"))
    assert Path(f"/proc/{pid}/fd/3").resolve() == box.root / "dev/cpu_dma_latency"
    run(box, "apply", "--only", "dma-latency", profile="dma_latency = 0")
    second = int(box.get("run/tickpath-dma-latency.pid"))
    assert second != pid and not Path(f"/proc/{pid}/fd/3").exists()
    assert struct.unpack("<i", (box.root / "dev/cpu_dma_latency").read_bytes()) == (0,)
    # A process that only has the holder's number is not the holder, and not ours to end.
    with subprocess.Popen(["bash", "-c", "exec sleep 60 3< /dev/null"]) as stranger:
        box.put("run/tickpath-dma-latency.pid", str(stranger.pid))
        assert run(box, "revert").states == {"dma-latency": "drift"}
        assert stranger.poll() is None
        stranger.kill()
    box.put("run/tickpath-dma-latency.pid", str(second))
    assert run(box, "revert").states == {"dma-latency": "ok"}
    assert not Path(f"/proc/{second}/fd/3").exists()
    assert not (box.root / "run/tickpath-dma-latency.pid").exists()


def test_socket_is_held_until_revert_and_missed_when_its_holder_dies(boxes: Any) -> None:
    box = boxes(vm)
    number = box.root / "run/tickpath-timestamping.pid"
    for tool in ("perl", "python3"):
        box.tool(tool, f'exec {tool} "$@"\n')
        assert run(box, "apply", "--only", "timestamping").states == {"timestamping": "ok"}
        assert stamps_holder(number)
        pid = int(number.read_text())
        assert Path(f"/proc/{pid}/fd/3").readlink().name.startswith("socket:")
        assert run(box, "apply", "--only", "timestamping").states == {"timestamping": "ok"}
        assert int(number.read_text()) == pid
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(pid)
        assert run(box, "verify", "--only", "timestamping").states == {"timestamping": "drift"}
        assert run(box, "apply", "--only", "timestamping").states == {"timestamping": "ok"}
        pid = int(number.read_text())
        assert run(box, "revert").states == {"timestamping": "ok"}
        assert not Path(f"/proc/{pid}/fd/3").exists() and not number.exists()
        (box.root / "bin" / tool).unlink()
    assert run(box, "audit", "--only", "timestamping").states == {"timestamping": "unsupported"}
    # Whoever has the holder's number is not the holder, and a program that cannot hold is no holder either.
    box.tool("perl", "exec sleep 60")
    result = run(box, "apply", "--only", "timestamping")
    assert (result.code, result.states) == (3, {"timestamping": "refused"})
    code = "import os, socket; s = socket.socket(); os.dup2(s.fileno(), 3); print(flush=True); input()"
    with subprocess.Popen([sys.executable, "-c", code], stdin=subprocess.PIPE, stdout=subprocess.PIPE) as stranger:
        assert stranger.stdout and stranger.stdout.readline()
        box.put("run/tickpath-timestamping.pid", str(stranger.pid))
        assert run(box, "audit", "--only", "timestamping").states == {"timestamping": "drift"}
        run(box, "revert")
        assert stranger.poll() is None
        stranger.kill()


def wait_until_gone(pid: int) -> None:
    deadline = time.monotonic() + 10
    while Path(f"/proc/{pid}/fd/3").exists() and time.monotonic() < deadline:
        time.sleep(0.01)


def test_flow_rules_are_added_and_only_ours_removed(boxes: Any) -> None:
    box = boxes(amd)
    rules = "nic/eth1/rules"
    theirs = "6 UDP 239.1.1.1 26499 2\n7 UDP 239.1.1.1 26400 3\n8 UDP 239.1.1.2 26400 2\n9 TCP 239.1.1.1 26400 2"
    box.put(rules, theirs)
    profile = "interface = eth1\nflows = udp4:239.1.1.1:26400:2"
    assert run(box, "audit", "--only", "flows", profile=profile).states == {"flows": "drift"}
    assert run(box, "apply", "--only", "flows", profile=profile).states == {"flows": "ok"}
    assert box.get(rules) == f"{theirs}\n1019 UDP 239.1.1.1 26400 2"
    assert run(box, "verify", "--only", "flows", profile=profile).code == 0
    assert run(box, "revert").states == {"flows": "ok"}
    assert box.get(rules) == theirs
    (box.root / "nic/eth1/rules").unlink()
    box.tool("ethtool", "echo 'netlink error: Operation not supported' >&2; exit 1")
    assert run(box, "audit", "--only", "flows", profile=profile).states == {"flows": "unsupported"}


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (["etc/default/grub.d/x", "bin/grubby"], "--write-dropin && sudo update-grub"),
        (["bin/grubby", "boot/loader/loader.conf"], "sudo grubby --update-kernel=ALL --args='isolcpus="),
        (["boot/loader/loader.conf", "bin/kernel-install"], "append the line to that one line; sudo kernel-install add"),
        (["efi/loader/entries/a.conf", "etc/default/grub"], "the entry in /efi/loader/entries"),
        (["etc/default/grub"], "GRUB_CMDLINE_LINUX_DEFAULT in /etc/default/grub"),
        (["boot/extlinux/extlinux.conf"], "the append line in /boot/extlinux/extlinux.conf"),
        ([], "the kernel line of this machine's boot loader"),
    ],
)
def test_how_the_boot_line_gets_in_is_said_for_each_boot_loader(boxes: Any, files: list[str], words: str) -> None:
    box = boxes(vm)
    for file in files:
        box.put(file, "").chmod(0o755)
    before = picture(box)
    assert words in run(box, "plan").report["boot_how"]
    assert f"how: {run(box, 'plan').report['boot_how']}" in run(box, "plan", as_json=False).out
    knob = run(box, "apply", "--only", "boot-dropin", "--write-dropin").knob("boot-dropin")
    if "etc/default/grub.d/x" in files:
        assert knob["state"] == "ok"
    else:
        assert knob["state"] == "unsupported" and words in knob["reason"]
        assert picture(box) == before


# Few knobs, but one of each kind: a file of ours, folders, a process, ordinary writes.
CUT_KNOBS = "boot-dropin,cpuset-v2,irqs,dma-latency,stat-interval"


def cut_machine(root: Path) -> Box:
    box = laptop(root)
    shutil.rmtree(root / "proc/irq/24")
    shutil.rmtree(root / "proc/irq/25")
    box.put("sys/fs/cgroup/cgroup.subtree_control", "cpuset cpu")
    return box


def copy(box: Box, root: Path) -> Box:
    shutil.copytree(box.root, root, symlinks=True, dirs_exist_ok=True)
    return Box(root, box.cpus, box.cores)


def after_revert(box: Box) -> dict[str, str]:
    return {name: text for name, text in picture(box).items() if not name.startswith(("run", "var"))}


def test_power_cut_at_every_step(boxes: Any) -> None:
    """Killed after any step of apply: in the same boot, and in the next, revert restores everything."""
    steps = 0
    first = boxes(cut_machine)
    original = after_revert(first)
    while True:
        steps += 1
        box = boxes(lambda root: copy(first, root))
        cut = run(box, "apply", "--write-dropin", "--only", CUT_KNOBS, env={"TICKPATH_TUNE_STOP_AFTER": str(steps)}, as_json=False)
        assert cut.code in (-9, 0, 1)
        rebooted = boxes(lambda root, box=box: copy(box, root))

        assert run(box, "revert").code == 0, f"step {steps}"
        assert after_revert(box) == original, f"step {steps}"
        assert not (box.root / JOURNAL).exists() or "\nset\t" not in box.get(JOURNAL)

        # What a power cut leaves: the disk as it is, everything else as a boot makes it.
        for name in ("sys", "proc", "run"):
            shutil.rmtree(rebooted.root / name, ignore_errors=True)
        for name in ("sys", "proc"):
            shutil.copytree(first.root / name, rebooted.root / name, symlinks=True)
        rebooted.put("proc/sys/kernel/random/boot_id", "22222222-second-boot")
        assert run(rebooted, "revert").code == 0, f"step {steps}, rebooted"
        assert not (rebooted.root / DROPIN).exists(), f"step {steps}, rebooted"
        assert not (rebooted.root / JOURNAL).exists() or "\nset\t" not in rebooted.get(JOURNAL)
        if cut.code != -9:
            break
    assert steps > 20


def test_power_cut_at_every_step_of_revert(boxes: Any) -> None:
    steps = 0
    first = boxes(cut_machine)
    original = after_revert(first)
    run(first, "apply", "--write-dropin", "--only", CUT_KNOBS.replace("dma-latency,", ""))
    while True:
        steps += 1
        box = boxes(lambda root: copy(first, root))
        cut = run(box, "revert", env={"TICKPATH_TUNE_STOP_AFTER": str(steps)}, as_json=False)
        assert cut.code in (-9, 0)
        assert run(box, "revert").code == 0, f"step {steps}"
        assert after_revert(box) == original, f"step {steps}"
        if cut.code == 0:
            break
    assert steps > 15


def test_previous_value_is_on_disk_before_the_write(boxes: Any) -> None:
    """Whatever has been changed when the power goes is in the journal."""
    for steps in range(1, 8):
        box = boxes(amd)
        run(box, "apply", "--only", "stat-interval", env={"TICKPATH_TUNE_STOP_AFTER": str(steps)}, as_json=False)
        if box.get("proc/sys/vm/stat_interval") != "1":
            assert "\nset\truntime\tstat-interval\t/proc/sys/vm/stat_interval\t=1\t=10\t.\n" in box.get(JOURNAL) + "\n"
            assert steps > 3
            break
    else:
        pytest.fail("it was never written")


def test_sync_comes_before_the_write(boxes: Any) -> None:
    if not shutil.which("strace"):
        pytest.skip("strace is not installed: the order of fsync and write is looked at with it")
    box = boxes(amd)
    trace = box.root / "trace"
    command = ["strace", "-f", "-o", str(trace), "-e", "trace=fsync,openat", str(TUNING / "tune"), "apply", "--root", str(box.root)]
    subprocess.run([*command, "--only", "stat-interval"], capture_output=True, check=False)
    calls = [line.split(maxsplit=1)[1] for line in trace.read_text().splitlines()]
    write = next(i for i, call in enumerate(calls) if "stat_interval" in call and "O_WRONLY" in call)
    append = max(i for i, call in enumerate(calls[:write]) if "tuning.journal" in call and "O_APPEND" in call)
    assert any(call.startswith("fsync") for call in calls[append:write])


def test_stopping_is_for_fake_machines_only() -> None:
    """Without --root the power cut's variable is not looked at."""
    script = f'source "{TUNING}/lib.sh"; root=$1; step; echo alive'
    for root, expected in (("", "alive\n"), ("/fake", "")):
        command = ["bash", "-c", script, "bash", root]
        environment = os.environ | {"TICKPATH_TUNE_STOP_AFTER": "1"}
        assert subprocess.run(command, env=environment, capture_output=True, text=True, check=False).stdout == expected


# ------------------------------------------------------------------------------------------------ pieces


LISTS = {
    "0": "0",
    "0-3,8": "0 1 2 3 8",
    "8,0-3": "0 1 2 3 8",
    "0-1,1-2": "0 1 2",
    "0-10:2/4": "0 1 4 5 8 9",
    "5-5": "5",
    "007": "7",
    "8191": "8191",
    "": "",
}
NOT_LISTS = ["a", "1,", ",1", "1,,2", "1-", "-1", "3-1", "1 2", "0-8192", "99999999999", "*", "0-3:0/2", "0-3:3/2", "0x1", "1;2", "0-3:1"]
MASKS = {
    "1": "0",
    "3": "0-1",
    "101": "0,8",
    "80000001": "0,31",
    "1,00000000": "32",
    "ff,00000001": "0,32-39",
    "1,3": "0-1,32",
    "0x3": "0-1",
    "0": "",
}


def library(code: str, *arguments: str) -> list[str]:
    """What lib.sh makes of each argument, a line each."""
    script = f'source "{TUNING}/lib.sh"; for text in "$@"; do {code}; done'
    environment = {"LC_ALL": "C", "PATH": os.environ["PATH"]}
    done = subprocess.run(["bash", "-c", script, "bash", *arguments], capture_output=True, text=True, env=environment, check=False)
    assert not done.stderr, done.stderr
    return done.stdout.splitlines()


def test_cpu_lists() -> None:
    out = library('cpulist_expand "$text" && echo "$REPLY" || echo bad', *LISTS, *NOT_LISTS)
    assert out == [*LISTS.values(), *["bad"] * len(NOT_LISTS)]
    folded = {"0-3,8": "0-3,8", "1,2,3": "1-3", "4,6,8": "4,6,8", "": "", "0-10:2/4": "0-1,4-5,8-9"}
    assert library('cpulist_expand "$text"; cpulist_fold $REPLY; echo "$REPLY"', *folded) == list(folded.values())
    inside = {"0-3": "2-3", "3": "3", "6-7": "", "0-9": "2-5"}
    assert library('cpulist_pick in "$text" 2-5; echo "$REPLY"', *inside) == list(inside.values())
    outside = {"0-3": "0-1", "3": "", "6-7": "6-7", "0-9": "0-1,6-9"}
    assert library('cpulist_pick out "$text" 2-5; echo "$REPLY"', *outside) == list(outside.values())
    within = {"2": "yes", "2-5": "yes", "1-2": "no", "": "no", "6": "no", "x": "no"}
    assert library('cpulist_within "$text" 2-5 && echo yes || echo no', *within) == list(within.values())


def test_cpu_masks() -> None:
    lists = {**MASKS, "zz": "bad", "": "bad", "1,": "bad", "1,123456789": "bad"}
    assert library('cpumask_list "$text" && echo "$REPLY" || echo bad', *lists) == list(lists.values())
    masks = {"0": "1", "0-1": "3", "31": "80000000", "32": "1,00000000", "0,64": "1,00000000,00000001", "0-63": "ffffffff,ffffffff"}
    assert library('cpumask_of "$text"; echo "$REPLY"', *masks) == list(masks.values())


def test_json_strings() -> None:
    odd = ["plain", 'a"b', "back\\slash", "tab\there", "line\nbreak", "\x01\x1f", "[*]?", "$(id) `id`", "\\u0041"]
    for text in odd:
        assert json.loads(library('json_string "$text"; echo "$REPLY"', text)[0]) == text
    assert json.loads(library('json_string "$text"; echo "$REPLY"', "caf\u00e9")[0]) == "caf??"


def test_versions() -> None:
    cases = ["6.12 6.12", "6.18.44-fc 6.12", "5.14.0-503.el9 6.1", "6.9 6.12", "10.0 6.12", "6-rc1 6.0", "4.4.0 2.6"]
    out = library("version_at_least $text && echo yes || echo no", *cases)
    assert out == ["yes", "yes", "no", "no", "yes", "yes", "yes"]


# ------------------------------------------------------------------------------------------------ what a person sees


def test_plan_says_what_why_and_what_it_risks_and_writes_nothing(boxes: Any) -> None:
    box = boxes(intel)
    before = picture(box)
    result = run(box, "plan", "--dangerous", profile=FULL.format(latency="1-7,9-15"), as_json=False)
    assert (result.code, picture(box)) == (1, before)
    for words in (
        "write /proc/sys/vm/swappiness: 60 -> 10",
        "danger: with -1 a spinning FIFO thread starves",
        "write ethtool:eth1:c:rx-usecs: 50 -> 0",
        "and 10 more; --json lists all",
        "kernel line of the boot knobs",
    ):
        assert words in result.out, words
    assert not result.err


def test_audit_as_a_person_sees_it(boxes: Any) -> None:
    box = boxes(vm)
    lines = run(box, "audit", as_json=False).out.splitlines()
    assert lines[0] == "audit: Linux 6.18.44-fc, CPUs 0-1 online: latency 1, housekeeping 0; profile default"
    assert "drift          swappiness           60 -> 10" in lines
    assert "ok             clocksource          tsc" in lines
    assert re.fullmatch(r"\d+ ok, \d+ drift, \d+ unsupported, \d+ no-op", lines[-1])
    verify = run(box, "verify", as_json=False).out
    assert "clocksource" not in verify and "swappiness" in verify


COREUTILS = ["dirname", "env", "mkdir", "mv", "od", "readlink", "rm", "rmdir", "sleep", "stat", "sync"]


def test_bash_and_coreutils_are_enough(boxes: Any, tmp_path: Path) -> None:
    """From help to revert with nothing else to be found."""
    for name in ("bash", *COREUTILS):
        (tmp_path / name).symlink_to(str(shutil.which(name)))
    box = boxes(intel)
    before = picture(box)
    only = "boot-dropin,isolcpus,cpuset-v2,irqs,workqueues,governor,dma-latency,hugepages,dead-sysctls"
    for verb in ("--help", "list", "audit", "plan", "apply", "verify", "revert"):
        options = [] if verb == "--help" else ["--root", str(box.root), "--only", only]
        options += ["--write-dropin"] if verb == "apply" else []
        done = subprocess.run(
            [TUNING / "tune", verb, *options], env={"PATH": str(tmp_path)}, capture_output=True, text=True, timeout=60, check=False
        )
        assert done.returncode in (0, 1) and not done.stderr, f"{verb}: {done.stderr}"
        assert done.stdout
    assert picture(box) == before


def test_help_and_list() -> None:
    text = subprocess.run([TUNING / "tune", "--help"], capture_output=True, text=True, check=True).stdout
    assert "audit" in text and "Exit: 0" in text
    listed = json.loads(subprocess.run([TUNING / "tune", "list", "--json"], capture_output=True, text=True, check=True).stdout)
    assert [knob["name"] for knob in listed["knobs"]] == list(KNOBS)


@pytest.mark.parametrize("name", KNOBS)
def test_knob_is_complete(name: str) -> None:
    text = KNOBS[name].read_text()
    data = dict(re.findall(r'^([a-z]+)="?(.*?)"?$', text, re.M))
    assert data["name"] == name
    assert text.startswith(f"# {name} - ")
    for key in ("why", "danger", "source"):
        assert len(data[key]) >= 4, key
    assert data.get("tier", "normal") == ("dangerous" if name in DANGEROUS else "normal")
    assert data.get("lasts", "runtime") == ("boot" if name in BOOT_KNOBS else "disk" if name == "boot-dropin" else "runtime")
    assert "eval" not in text
    row = next(line for line in (TUNING / "README.md").read_text().splitlines() if line.startswith(f"| `{name}` |"))
    assert data["why"].replace('\\"', '"') in row and data["danger"].replace('\\"', '"') in row


def test_no_file_names_this_machine() -> None:
    for path in [TUNING / "tune", *TUNING.rglob("*.sh"), TUNING / "README.md", TUNING / "default.profile"]:
        assert not re.search(r"/(work|root|home)/", path.read_text()), path


def test_shellcheck() -> None:
    if not shutil.which("shellcheck"):
        pytest.skip("shellcheck is not installed (Debian: apt-get install shellcheck)")
    files = [TUNING / "tune", *sorted(TUNING.glob("*.sh")), *KNOBS.values()]
    done = subprocess.run(["shellcheck", *files], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout


# ------------------------------------------------------------------------------------------------ for real


def test_one_knob_for_real() -> None:
    """On this machine, as root: one harmless setting applied, verified, put back."""
    setting = Path("/proc/sys/vm/stat_interval")
    if os.geteuid() != 0 or not os.access(setting, os.W_OK):
        pytest.skip("needs root and a writable /proc/sys/vm/stat_interval")
    if Path("/var/lib/tickpath/tuning.journal").exists() or Path("/run/tickpath-tuning.lock").exists():
        pytest.skip("this machine is tuned already; its journal is not a test's to touch")
    before = setting.read_text()
    if int(before) >= 10:
        pytest.skip("vm.stat_interval is already what the profile wants")

    def tune(verb: str) -> int:
        return subprocess.run([TUNING / "tune", verb, "--only", "stat-interval"], capture_output=True, check=False).returncode

    try:
        assert tune("audit") == 1
        assert tune("apply") == 0
        assert int(setting.read_text()) == 10
        assert tune("verify") == 0
        assert tune("revert") == 0
        assert setting.read_text() == before
        assert not Path("/var/lib/tickpath/tuning.journal").exists()
    finally:
        if setting.read_text() != before:
            setting.write_text(before)
