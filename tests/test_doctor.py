"""`tickpath doctor` on fake machines: each check in each of its states, nothing unreadable called ok, and this machine for real."""

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from engine.runtime.config import DEFAULT_PATH, load
from tests.running import ROOT
from tests.test_tuning import KNOBS, Box, amd, intel, laptop, machines, vm
from tools import doctor
from tools.checkup import ADVICE, OK, PROBLEM, UNKNOWN, Check, Machine
from tools.fitness import Need, checks, need_of, shm_bytes

GIB = 1 << 30
LIMITS = """Limit                     Soft Limit           Hard Limit           Units
Max core file size        {core}                    unlimited            bytes
Max locked memory         {memlock}              {memlock}              bytes
Max realtime priority     {rtprio}                    {rtprio}
"""
CAPABLE, BARE = "CapEff:\t000001ffffffffff", "CapEff:\t0000000000000000"


class Server(Machine):
    """A folder with room in its /dev/shm."""

    def free_bytes(self, path: str) -> int | None:
        return 8 * GIB if self.exists(path) else None


@pytest.fixture
def boxes(tmp_path: Path) -> Iterator[Any]:
    with machines(tmp_path) as make:
        yield make


def fit_for_all(box: Box) -> Box:
    """What the doctor looks at and the tuning tests do not: everything as one would wish it."""
    limits(box)
    box.put("proc/sys/kernel/osrelease", "6.12.9")
    box.put("proc/self/status", BARE)
    box.put("proc/stat", "cpu  0\n" + "\n".join(f"cpu{cpu} 100 0 100 800 0 0 0 0 0 0" for cpu in range(box.cpus)))
    box.put("proc/meminfo", "MemTotal: 1 kB\nHugePages_Total:     512\nHugePages_Free:      512\nHugepagesize:       2048 kB")
    box.put("proc/mounts", "tmpfs /dev/shm tmpfs rw,nosuid,size=8g 0 0\nhugetlbfs /dev/hugepages hugetlbfs rw 0 0")
    box.put("proc/swaps", "Filename Type Size Used Priority")
    box.put("proc/sys/vm/overcommit_memory", "0")
    box.put("proc/sys/kernel/core_pattern", "core")
    box.put("proc/self/cgroup", "0::/user.slice")
    box.put("etc/passwd", "root:x:0:0::/:/bin/sh\ntrader:x:1001:1001::/:/bin/sh")
    box.put("sys/devices/system/cpu/isolated", f"1-{box.cpus - 1}")
    box.put("sys/devices/system/cpu/nohz_full", "")
    box.put("sys/devices/system/clocksource/clocksource0/current_clocksource", "tsc")
    for cpu in range(box.cpus):
        box.put(f"sys/devices/system/cpu/cpu{cpu}/cpufreq/scaling_governor", "performance")
    (box.root / "dev/shm").mkdir(parents=True, exist_ok=True)
    return box


def limits(box: Box, memlock: str = "unlimited", rtprio: str = "49", core: str = "0") -> None:
    box.put("proc/self/limits", LIMITS.format(memlock=memlock, rtprio=rtprio, core=core))


def examine(box: Box, uid: int = 0, interfaces: list[str] | None = None) -> dict[str, Check]:
    machine = Server(box.root, uid)
    return {check.name: check for check in checks(machine, need_of(load(DEFAULT_PATH), machine, interfaces or []))}


def test_a_fit_server_has_nothing_to_complain_about(boxes: Any) -> None:
    found = examine(fit_for_all(boxes(amd)))
    assert {name: check.state for name, check in found.items()} == dict.fromkeys(found, OK)
    assert len(found) == 16


# One change to a fit server (8 cores, no second threads), and what one check makes of it.
CHANGES: list[tuple[str, Callable[[Box], Any], str, str, str]] = [
    ("tsc", lambda box: box.put("proc/cpuinfo", "flags : fpu tsc constant_tsc"), PROBLEM, "nonstop_tsc", "invtsc"),
    ("clocksource", lambda box: box.put(CLOCK, "hpet"), ADVICE, "hpet", "--only clocksource"),
    ("clocksource", lambda box: (box.put(CLOCK, "hpet"), box.put(CLOCKS, "hpet acpi_pm")), PROBLEM, "ruled the TSC out", "dmesg"),
    ("cores", lambda box: box.put("sys/devices/system/cpu/online", "0-1"), ADVICE, "4 processes on 2 CPUs", "[[process]]"),
    ("siblings", lambda box: box.put(f"{CPU}/cpu2/topology/thread_siblings_list", "2,6"), ADVICE, "CPU 2 shares its core with 6", "smt"),
    ("isolation", lambda box: box.put(f"{CPU}/isolated", "1-2"), ADVICE, "3-4 is open", "tune apply"),
    ("governor", lambda box: box.put(f"{CPU}/cpu3/cpufreq/scaling_governor", "powersave"), ADVICE, "powersave", "--only epp,governor"),
    ("memlock", lambda box: limits(box, memlock="8388608"), ADVICE, "8,192 KiB", "trader - memlock unlimited"),
    ("rtprio", lambda box: limits(box, rtprio="0"), ADVICE, "no real-time priority", "trader - rtprio 49"),
    ("rtprio", lambda box: rt_group(box, "0"), ADVICE, "rt_runtime_us is 0", "echo"),
    ("shm", lambda box: box.put("proc/mounts", "sysfs /sys sysfs rw 0 0"), PROBLEM, "not mounted", "mount -t tmpfs"),
    ("shm", lambda box: box.put("proc/mounts", "/dev/sda /dev/shm ext4 rw 0 0"), PROBLEM, "ext4", "mount -t tmpfs"),
    ("shm", lambda box: box.put("proc/mounts", "tmpfs /dev/shm tmpfs ro 0 0"), PROBLEM, "read-only", "remount,rw"),
    ("hugepages", lambda box: box.put("proc/mounts", "tmpfs /dev/shm tmpfs rw 0 0"), ADVICE, "not mounted", "hugetlb-mount"),
    ("hugepages", lambda box: box.put("proc/meminfo", MEMINFO.format(free=3)), ADVICE, "3 of 512 free", "hugepages ="),
    ("remove-ipc", lambda box: logind(box), PROBLEM, "RemoveIPC=yes, and uid 1001", "RemoveIPC=no"),
    ("hypervisor", lambda box: virtual(box, 0), ADVICE, "0.000% of CPU", "bare metal"),
    ("hypervisor", lambda box: virtual(box, 11), PROBLEM, "of CPU 1 since boot", "bare metal"),
    ("kernel", lambda box: box.put("proc/sys/kernel/osrelease", "5.4.0-1"), ADVICE, "managed_irq", "6.1"),
    ("kernel", lambda box: (box.root / CPU / "nohz_full").unlink(), ADVICE, "NO_HZ_FULL", "CONFIG_NO_HZ_FULL"),
    ("numa-eth1", lambda box: nodes(box, "1"), ADVICE, "eth1 is on node 1, the engine's CPUs on 0", "4-7"),
    ("overcommit", lambda box: box.put("proc/sys/vm/overcommit_memory", "2"), ADVICE, "counts in full", "sysctl"),
    ("swap", lambda box: (limits(box, memlock="1"), box.put("proc/swaps", "Filename\n/dev/sda2 x")), ADVICE, "/dev/sda2, and", "memlock"),
    ("core-dumps", lambda box: box.put("proc/sys/kernel/core_pattern", "|/usr/share/apport"), ADVICE, "apport", "Storage=none"),
    ("core-dumps", lambda box: limits(box, core="unlimited"), ADVICE, "limit unlimited", "LimitCORE=0"),
]  # fmt: skip
CPU = "sys/devices/system/cpu"
CLOCK, CLOCKS = (f"sys/devices/system/clocksource/clocksource0/{which}_clocksource" for which in ("current", "available"))
MEMINFO = "HugePages_Total: 512\nHugePages_Free: {free}\nHugepagesize: 2048 kB"


def rt_group(box: Box, runtime: str) -> None:
    box.put("proc/self/cgroup", "9:name=systemd:/\n3:cpuset:/elsewhere\n1:cpu,cpuacct:/users\n0::/")
    box.put("sys/fs/cgroup/cpu/users/cpu.rt_runtime_us", runtime)


def logind(box: Box, *drop_ins: str) -> None:
    box.put("usr/lib/systemd/systemd-logind", "")
    box.put("etc/systemd/logind.conf", "[Login]\n#RemoveIPC=no")
    for number, text in enumerate(drop_ins):
        box.put(f"etc/systemd/logind.conf.d/{number}.conf", f"[Login]\n{text}")


def virtual(box: Box, stolen: int) -> None:
    box.put("proc/cpuinfo", "flags : fpu tsc constant_tsc nonstop_tsc hypervisor")
    box.put("proc/stat", f"cpu1 100 0 100 {800 - stolen} 0 0 0 {stolen} 0 0\ncpu2 1 1 1 1 1 1 1 0 0 0\ncpu0 0 0 0 0 0 0 0 999 0 0")


def nodes(box: Box, of_the_card: str) -> None:
    box.put("sys/devices/system/node/node0/cpulist", "0-4")
    box.put("sys/devices/system/node/node1/cpulist", "4-7")
    box.put("sys/class/net/eth1/device/numa_node", of_the_card)


@pytest.mark.parametrize(
    ("name", "change", "state", "found", "cure"), CHANGES, ids=[f"{row[0]}-{row[2]}-{n}" for n, row in enumerate(CHANGES)]
)
def test_each_check_sees_what_is_wrong(boxes: Any, name: str, change: Callable[[Box], Any], state: str, found: str, cure: str) -> None:
    box = fit_for_all(boxes(amd))
    change(box)
    check = examine(box, uid=1001, interfaces=["eth1"] if name.startswith("numa") else [])[name]
    assert check.state == state
    assert found in check.found, check.found
    assert cure in check.cure, check.cure
    assert check.costs
    # The others are not moved by it, but for those that share its file.
    shared = {"shm": {"hugepages"}, "hugepages": {"shm"}, "tsc": {"hypervisor"}, "cores": {"isolation"}, "swap": {"memlock"}}
    others = {other.name: other.state for other in examine(box, uid=0).values() if other.name not in {name, *shared.get(name, ())}}
    assert set(others.values()) == {OK}, others


# What a check cannot read, and that it is then unknown: never ok.
UNREADABLE = {
    "tsc": ["proc/cpuinfo"],
    "clocksource": ["sys/devices/system/clocksource/clocksource0/current_clocksource"],
    "siblings": ["sys/devices/system/cpu/cpu2/topology/thread_siblings_list"],
    "isolation": ["sys/devices/system/cpu/isolated", "sys/devices/system/cpu/online"],
    "governor": ["sys/devices/system/cpu/cpu1/cpufreq/scaling_governor"],
    "memlock": ["proc/self/limits"],
    "rtprio": ["proc/self/limits"],
    "shm": ["proc/mounts"],
    "hugepages": ["proc/meminfo"],
    "hypervisor": ["proc/cpuinfo"],
    "kernel": ["proc/sys/kernel/osrelease"],
    "overcommit": ["proc/sys/vm/overcommit_memory"],
    "swap": ["proc/swaps"],
    "core-dumps": ["proc/sys/kernel/core_pattern"],
}


@pytest.mark.parametrize("name", UNREADABLE)
@pytest.mark.parametrize("how", ["missing", "empty"])
def test_what_cannot_be_read_is_unknown(boxes: Any, name: str, how: str) -> None:
    box = fit_for_all(boxes(amd))
    for path in UNREADABLE[name]:
        (box.root / path).unlink()
        if how == "empty":
            (box.root / path).symlink_to("/dev/null")
    check = examine(box)[name]
    assert check.state == UNKNOWN, check


def test_nothing_on_an_empty_machine_is_ok_but_what_needs_no_file(tmp_path: Path) -> None:
    machine = Machine(tmp_path, 1001)
    found = {check.name: check.state for check in checks(machine, Need([1], [], GIB, ["eth0"]))}
    assert {name for name, state in found.items() if state == OK} == {"cores", "remove-ipc"}
    assert {name for name, state in found.items() if state == PROBLEM} == set()


def test_a_card_on_the_engines_node_is_fine_and_one_without_a_node_unknown(boxes: Any) -> None:
    box = fit_for_all(boxes(amd))
    nodes(box, "0")
    box.put("sys/devices/system/node/node1/cpulist", "5-7")
    assert examine(box, interfaces=["eth1"])["numa-eth1"].state == OK
    box.put("sys/class/net/eth1/device/numa_node", "-1")
    assert examine(box, interfaces=["eth1"])["numa-eth1"].state == UNKNOWN
    (box.root / "sys/devices/system/node/node1/cpulist").unlink()
    assert examine(box, interfaces=["eth1"])["numa-eth1"].state == OK


@pytest.mark.parametrize(
    ("drop_ins", "uid", "state"),
    [
        ((), 1001, PROBLEM),
        ((), 999, OK),
        ((), 0, OK),
        (("RemoveIPC=no",), 1001, OK),
        (("RemoveIPC = false",), 1001, OK),
        (("RemoveIPC=no", "RemoveIPC=yes"), 1001, PROBLEM),
        (("#RemoveIPC=no",), 1001, PROBLEM),
    ],
)
def test_remove_ipc(boxes: Any, drop_ins: tuple[str, ...], uid: int, state: str) -> None:
    box = fit_for_all(boxes(amd))
    logind(box, *drop_ins)
    assert examine(box, uid)["remove-ipc"].state == state
    box.put("etc/login.defs", "# x\nSYS_UID_MAX 1500")
    assert examine(box, uid)["remove-ipc"].state == OK


def test_capabilities_stand_for_limits(boxes: Any) -> None:
    box = fit_for_all(boxes(amd))
    limits(box, memlock="8388608", rtprio="0")
    box.put("proc/swaps", "Filename\n/dev/sda2 x")
    assert {examine(box)[name].state for name in ("memlock", "rtprio", "swap")} == {ADVICE}
    box.put("proc/self/status", CAPABLE)
    assert {examine(box)[name].state for name in ("memlock", "rtprio", "swap")} == {OK}
    rt_group(box, "950000")
    assert "950,000 us" in examine(box)["rtprio"].found


def test_too_little_shared_memory_is_a_problem(boxes: Any) -> None:
    box = fit_for_all(boxes(amd))
    wanted = shm_bytes(load(DEFAULT_PATH))
    for free, state in ((wanted, OK), (wanted - 1, PROBLEM), (0, PROBLEM)):
        machine = type("Tight", (Server,), {"free_bytes": lambda self, path, free=free: free})(box.root, 0)
        (check,) = [check for check in checks(machine, Need([1], [], wanted, [])) if check.name == "shm"]
        assert check.state == state
        assert state == OK or "remount,size=" in check.cure


def test_shared_memory_wanted_is_what_an_instance_takes(instance: str) -> None:
    """Within the little that is not added up."""
    from engine.runtime.instance import Instance

    config = load(DEFAULT_PATH)
    made = Instance.create(instance, config.rings, orders_max=config.gateway.orders_max)
    try:
        taken = sum(path.stat().st_size for path in Path("/dev/shm").iterdir() if path.name.startswith(f"{instance}."))
    finally:
        made.unlink()
    assert taken <= shm_bytes(config) < taken + (2 << 20)


# ------------------------------------------------------------------------------------------------ tune's knobs


def test_every_knob_has_a_worth() -> None:
    assert set(doctor.WORTH) | doctor.OWN == set(KNOBS)


KNOB = {"name": "irqs", "want": "0", "got": "0-1", "why": "why", "danger": "danger", "reason": "because", "lasts": "runtime",
        "changes": [{"target": "irqaffinity", "got": "absent", "want": "0"}]}  # fmt: skip


@pytest.mark.parametrize(
    ("knob", "state", "cure"),
    [
        ({"state": "ok"}, OK, ""),
        ({"state": "drift"}, ADVICE, "sudo tuning/tune apply --only irqs --profile p"),
        ({"state": "drift", "lasts": "boot"}, ADVICE, "irqaffinity=0 on the kernel line: how to boot"),
        ({"state": "pending-reboot", "lasts": "boot"}, ADVICE, "sudo update-grub && sudo reboot"),
        ({"state": "unsupported"}, UNKNOWN, ""),
        ({"state": "refused"}, ADVICE, "tuning/tune plan --only irqs --profile p"),
        ({"state": "refused", "reason": "/x cannot be read, so nothing is known"}, UNKNOWN, "sudo tickpath doctor"),
        ({"state": "refused", "name": "harmful-boot", "got": "idle=poll"}, PROBLEM, "because"),
    ],
)
def test_what_a_knobs_state_means(knob: dict[str, str], state: str, cure: str) -> None:
    check = doctor.of_knob(KNOB | knob, " --profile p", "how to boot")
    assert check is not None and check.state == state and cure in check.cure
    assert (state == UNKNOWN) <= ("because" in check.found or "cannot be read" in check.found)


def test_a_knob_that_is_left_alone_is_no_check() -> None:
    assert doctor.of_knob(KNOB | {"state": "no-op"}, "", "") is None


# ------------------------------------------------------------------------------------------------ the command


def command(*options: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "150"}
    return subprocess.run(
        [sys.executable, "-m", "tools.cli", "doctor", *options], cwd=ROOT, capture_output=True, text=True, timeout=120, env=environment
    )


def states(result: dict[str, Any]) -> dict[str, str]:
    return {check["name"]: check["state"] for check in result["checks"]}


@pytest.mark.parametrize("kind", [intel, amd, laptop, vm])
def test_machines(boxes: Any, kind: Any) -> None:
    """Four machines as their tuning tests have them: fit apart from what their folder does not hold."""
    box = boxes(kind)
    (box.root / "dev/shm").mkdir()
    finished = command("--root", str(box.root), "--json", "-")
    result = json.loads(finished.stdout)
    assert (finished.returncode, result["exit"]) == (0, 0), finished.stderr
    found = states(result)
    assert found["tsc"] == OK and found["irqs"] == ADVICE and found["memlock"] == UNKNOWN
    assert found["governor"] == (UNKNOWN if kind is vm else ADVICE)
    assert found["siblings"] == (ADVICE if kind in (intel, laptop) else OK)
    order = [doctor.ORDER.index(check["state"]) for check in result["checks"]]
    assert order == sorted(order)
    advice = [check["worth"] for check in result["checks"] if check["state"] == ADVICE]
    assert advice == sorted(advice, reverse=True)
    assert all(check["cure"] for check in result["checks"] if check["state"] in (ADVICE, PROBLEM))
    assert sum(result["counts"].values()) == len(result["checks"])


def test_an_unfit_machine_is_told_first_what_makes_it_so(boxes: Any) -> None:
    box = boxes(intel)
    box.put("proc/cpuinfo", "flags : fpu tsc")
    box.put("proc/cmdline", "ro idle=poll")
    (box.root / "dev/shm").mkdir()
    finished = command("--root", str(box.root))
    assert finished.returncode == 1
    lines = finished.stdout.splitlines()
    assert lines[0].split()[:2] == ["problem", "tsc"] and "NOT fit" in lines[-1]
    assert any(line.split()[:2] == ["problem", "harmful-boot"] for line in lines)


def test_something_essential_that_cannot_be_read_is_not_fit(boxes: Any) -> None:
    box = boxes(amd)
    (box.root / "proc/cpuinfo").unlink()
    (box.root / "dev/shm").mkdir()
    finished = command("--root", str(box.root), "--json", "-")
    assert finished.returncode == 1 and states(json.loads(finished.stdout))["tsc"] == UNKNOWN


def test_profile_and_config_are_used(boxes: Any, tmp_path: Path) -> None:
    box = boxes(amd)
    (box.root / "dev/shm").mkdir()
    profile, config = tmp_path / "my.profile", tmp_path / "my.toml"
    profile.write_text("interface = eth1  # the feed\nlatency_cpus = 5-7\n")
    config.write_text(DEFAULT_PATH.read_text().replace("ticks = 65536", "ticks = 16777216"))
    for node, members in (("0", "0-3"), ("1", "4-7")):
        box.put(f"sys/devices/system/node/node{node}/cpulist", members)
    box.put("sys/class/net/eth1/device/numa_node", "1")
    finished = command("--root", str(box.root), "--json", "-", "--profile", str(profile), "--config", str(config))
    result = json.loads(finished.stdout)
    assert states(result)["numa-eth1"] == ADVICE and states(result)["coalesce"] == ADVICE
    assert result["config"] == str(config)
    assert any("1,0" in check["found"] and "MiB wanted" in check["found"] for check in result["checks"] if check["name"] == "shm")
    assert any(f"--profile {profile}" in check["cure"] for check in result["checks"] if check["name"] == "irqs")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--profile", "/nowhere"], "does not exist"),
        (["--config", "/nowhere.toml"], "config=/nowhere.toml"),
        (["--frob"], "No such option"),
    ],
)
def test_wrong_usage(options: list[str], words: str) -> None:
    finished = command(*options)
    assert finished.returncode == 2 and words in finished.stderr and not finished.stdout


def test_a_profile_that_tune_refuses_is_wrong_usage(boxes: Any, tmp_path: Path) -> None:
    profile = tmp_path / "bad.profile"
    profile.write_text("swapiness = 10\n")
    finished = command("--root", str(boxes(amd).root), "--profile", str(profile))
    assert finished.returncode == 2 and "unknown key 'swapiness'" in finished.stderr


def test_a_tune_that_fails_is_a_failure_and_one_that_is_missing_unknown(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    tune = tmp_path / "tune"
    for script in (
        "echo nonsense",
        "echo 'tune: broken' >&2; exit 3",
        'echo \'{"knobs": 1, "exit": 0}\'',
        'echo \'{"knobs": [], "exit": 1}\'',
    ):
        tune.write_text(f"#!/bin/sh\n{script}\n")
        tune.chmod(0o755)
        monkeypatch.setattr(doctor, "TUNE", tune)
        with pytest.raises(doctor.TuneError, match="tune audit"):
            doctor.tune_audit(None, tmp_path)
    monkeypatch.setattr(doctor, "TUNE", tmp_path / "missing")
    result = doctor.examine(DEFAULT_PATH, None, Machine(tmp_path, 0))
    assert states(result)["tune"] == UNKNOWN


def test_this_machine_is_examined(tmp_path: Path) -> None:
    file = tmp_path / "doctor.json"
    finished = command("--json", str(file))
    result = json.loads(file.read_text())
    assert finished.returncode == result["exit"] in (0, 1), finished.stderr
    assert result["checks"] and finished.stdout.rstrip().splitlines()[-1].startswith("fit" if result["fit"] else "NOT fit")


def test_checks_are_data() -> None:
    check = Check("a", OK, "b")
    assert replace(check, state=PROBLEM).state == PROBLEM and not check.essential
