"""What a process asks of the kernel: set for real in real children, read back from outside, refused in words that say what to grant."""

import dataclasses
import json
import os
import resource
import signal
import traceback
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.layout import CONTROL, IDLE_SLEEP, IDLE_SPIN, IDLE_YIELD, PROCESS
from engine.runtime import cpus, latch, prefault, realtime, settings
from engine.runtime.config import ConfigError, MachineConfig, ProcessConfig
from engine.runtime.cpus import Cpus, LatencySet
from engine.runtime.instance import remove_dead
from engine.runtime.placement import Place
from engine.runtime.process import Tuned
from engine.runtime.realtime import Throttle
from shm._shim import lib
from shm.segment import SegmentError
from shm.table import Table
from tests.running import Launcher, wait_for
from tools import killswitch
from tools import run as runner

IS_ROOT = os.geteuid() == 0
HAS_TWO_CPUS = len(os.sched_getaffinity(0)) >= 2
NOBODY = 65534

needs_root = pytest.mark.skipif(not IS_ROOT, reason="needs root: SCHED_FIFO, mlockall, cgroups")
needs_two_cpus = pytest.mark.skipif(not HAS_TWO_CPUS, reason="needs two CPUs")


def in_child(body: Callable[[], Any]) -> Any:
    """What `body` returns in a process of its own, so that nothing it sets outlives it."""
    readable, writable = os.pipe()
    pid = os.fork()
    if pid == 0:
        try:
            said = {"returned": body()}
        except BaseException:
            said = {"raised": traceback.format_exc()}
        os.write(writable, json.dumps(said).encode())
        os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        said = json.loads(pipe.read())
    os.waitpid(pid, 0)
    assert "raised" not in said, said["raised"]
    return said["returned"]


def as_nobody() -> None:
    """Without any right: no capability, no limit that would allow what is asked for."""
    for limit in (resource.RLIMIT_MEMLOCK, resource.RLIMIT_RTPRIO, resource.RLIMIT_NICE):
        resource.setrlimit(limit, (0, 0))
    os.setgroups([])
    os.setresgid(NOBODY, NOBODY, NOBODY)
    os.setresuid(NOBODY, NOBODY, NOBODY)


def process_of(**keys: Any) -> ProcessConfig:
    return ProcessConfig(name="p", stages=["feed"], **keys)


def settled(process: ProcessConfig, machine: MachineConfig, cpu: int) -> tuple[list[str], dict[str, Any]]:
    """Every setting asked for in this process: what was refused, and its record."""
    refused = [*settings.settle(settings.before_memory(process, machine, cpu)), *settings.settle(settings.before_loop(process, machine))]
    line = np.zeros(1, PROCESS)[0:1]
    settings.read_back(line[0], prefaulted=machine.prefault, latency_set=False)
    return refused, {name: int(line[0][name]) for name in PROCESS.names or () if line[0][name].ndim == 0}


@needs_root
def test_what_is_asked_for_is_set_and_reads_back() -> None:
    process = process_of(fifo=7, nice=3, numa=0 if Path("/sys/devices/system/node/node0").exists() else "any")
    machine = MachineConfig(lock_memory=True, timer_slack_ns=1234, oom_score_adj=100, stack_kib=256, heap_kib=1024)

    def body() -> Any:
        early = list(settings.settle(settings.before_memory(process, machine, 0)))
        slack_ns = int(Path("/proc/self/timerslack_ns").read_text())
        refused, line = settled(process, machine, 0)
        status = Path("/proc/self/status").read_text()
        return early + refused, slack_ns, line, os.sched_getscheduler(0), os.sched_getparam(0).sched_priority, status

    refused, slack_ns, line, policy, priority, status = in_child(body)
    assert refused == []
    assert (policy & ~os.SCHED_RESET_ON_FORK, priority) == (os.SCHED_FIFO, 7)
    assert (line["fifo"], line["nice"], line["oom_score_adj"], line["locked"]) == (7, 3, 100, 1)
    assert line["numa_node"] == (0 if process.numa == 0 else -1)
    # A real-time process has no slack, and the kernel says so.
    assert (slack_ns, line["timer_slack_ns"]) == (1234, 0)
    locked_kib = int(status.split("VmLck:")[1].split()[0])
    assert line["locked_kib"] == locked_kib > 10_000
    assert int(status.split("VmSize:")[1].split()[0]) - locked_kib < 10_000, "all is locked, but for a few of the kernel's own pages"


def test_nothing_is_asked_for_by_default() -> None:
    process, machine = process_of(), MachineConfig()
    assert settings.before_memory(process, machine, 0) == []
    assert [setting.key for setting in settings.before_loop(process, machine)] == ["prefault"]


@needs_root
def test_an_ordinary_user_is_told_exactly_what_to_grant() -> None:
    process, machine = process_of(fifo=9, nice=-5, numa=900), MachineConfig(lock_memory=True, oom_score_adj=-300)

    def body() -> Any:
        as_nobody()
        return settled(process, machine, 0)

    refused, line = in_child(body)
    told = {sentence.split("=")[0]: sentence for sentence in refused}
    assert set(told) == {"numa", "nice", "oom_score_adj", "lock_memory", "fifo"}
    user = settings.grants.pwd.getpwuid(NOBODY).pw_name
    assert "RLIMIT_MEMLOCK is 0 KiB" in told["lock_memory"]
    for grant in ("LimitMEMLOCK=infinity", f"`{user} - memlock unlimited`", "CAP_IPC_LOCK"):
        assert grant in told["lock_memory"]
    for grant in (
        "fifo=9 refused (Operation not permitted)",
        "RLIMIT_RTPRIO is 0",
        "LimitRTPRIO=9",
        f"`{user} - rtprio 9`",
        "CAP_SYS_NICE",
    ):
        assert grant in told["fifo"]
    assert "RLIMIT_NICE allows down to 20" in told["nice"]
    assert "OOMScoreAdjust=" in told["oom_score_adj"]
    assert "node 900 must be one of" in told["numa"]
    assert (line["fifo"], line["locked"], line["nice"], line["oom_score_adj"], line["numa_node"]) == (0, 0, 0, 0, -1)


@needs_root
def test_too_small_a_limit_names_the_limit_and_the_need() -> None:
    def body() -> Any:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (1 << 20, 1 << 20))
        os.setresuid(NOBODY, NOBODY, NOBODY)
        return settled(process_of(), MachineConfig(lock_memory=True), 0)[0]

    (refused,) = in_child(body)
    assert refused.startswith("lock_memory=true refused (Cannot allocate memory): RLIMIT_MEMLOCK is 1024 KiB and this process has ")


RT_GROUPS = Path("/sys/fs/cgroup/cpu")


@needs_root
@pytest.mark.skipif(not (RT_GROUPS / "cpu.rt_runtime_us").exists(), reason="needs a kernel with RT_GROUP_SCHED, and cgroup v1")
def test_a_cgroup_without_real_time_time_is_named_with_its_file() -> None:
    group = RT_GROUPS / f"tickpath-test-{os.getpid()}"
    group.mkdir()

    def body() -> Any:
        (group / "cgroup.procs").write_text("0")
        return settled(process_of(fifo=5), MachineConfig(prefault=False), 0)[0]

    try:
        (refused,) = in_child(body)
    finally:
        group.rmdir()
    assert f"echo 950000 > {group}/cpu.rt_runtime_us (now 0)" in refused
    assert "RT_GROUP_SCHED" in refused


def test_what_does_not_read_back_does_not_count() -> None:
    lying = settings.Setting("fifo", 5, lambda: 0, lambda: None, lambda error: "ask somebody")
    assert lying.settle() == "fifo=5 refused (it reads back as 0): ask somebody"
    held = settings.Setting("fifo", 5, lambda: 5, lambda: pytest.fail("it was so already"), lambda error: "")
    assert held.settle() is None


# Prefault


def faults_of_touching(prepare: Callable[[], None]) -> int:
    """The page faults that writing to 64 MiB of fresh memory takes after `prepare`."""

    def body() -> int:
        memory = np.empty(64 << 20, np.uint8)
        prepare()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        memory[::4096] = 1
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    return in_child(body)


def test_populated_memory_takes_no_fault() -> None:
    assert faults_of_touching(lambda: None) >= 32, "the memory was there already, so this proves nothing"
    assert faults_of_touching(prefault.populate) == 0


def test_pages_shared_since_the_fork_are_our_own_after_populate() -> None:
    inherited = np.ones(16 << 20, np.uint8)

    def body() -> int:
        prefault.populate()
        before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        inherited[::4096] = 2
        return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

    assert in_child(body) == 0
    assert inherited[0] == 1


def test_the_stack_and_the_heap_are_touched_ahead() -> None:
    def body() -> tuple[int, int]:
        before = settings.grants.status_kib("VmStk")
        prefault.touch_ahead(2048, 8192)
        return before, settings.grants.status_kib("VmStk")

    before, after = in_child(body)
    assert after >= 2048 > before


# Where FIFO may spin


QUIET_BOX = Cpus(frozenset(range(4)), frozenset(range(4)), frozenset({2, 3}))
ONE_CPU = Cpus(frozenset({0}), frozenset({0}), frozenset())
THROTTLED = Throttle((6, 1))
UNTHROTTLED = Throttle((6, 1), runtime_us=-1)


def spinner(cpu: int, idle: int = IDLE_SPIN, shared_with: tuple[str, ...] = (), fifo: int = 10) -> Place:
    return Place("feed", ("feed",), cpu, idle, shared_with, fifo)


REFUSED = {
    "the only CPU": (spinner(0), ONE_CPU, THROTTLED, "it is the only CPU"),
    "CPU 0": (spinner(0), QUIET_BOX, THROTTLED, "CPU 0, where it never sleeps: the kernel keeps the machine's time"),
    "shared": (spinner(2, IDLE_YIELD, ("strategy",)), QUIET_BOX, THROTTLED, "shared with strategy, which would starve"),
    "not isolated, not throttled": (spinner(1), QUIET_BOX, UNTHROTTLED, "it is not isolated, and with sched_rt_runtime_us=-1"),
    "new kernel, no fair server": (spinner(1), QUIET_BOX, Throttle((6, 12), fair_server_ns={1: 0}), "it is not isolated"),
    "new kernel, the sysctl means nothing": (
        spinner(1),
        QUIET_BOX,
        Throttle((6, 12), fair_server_ns={1: 0}, runtime_us=950_000),
        "isolate",
    ),
}
ALLOWED = {
    "isolated": (spinner(2), QUIET_BOX, THROTTLED),
    "isolated, not throttled": (spinner(3), QUIET_BOX, UNTHROTTLED),
    "throttled": (spinner(1), QUIET_BOX, THROTTLED),
    "new kernel": (spinner(1), QUIET_BOX, Throttle((6, 12))),
    "new kernel with group scheduling": (spinner(1), QUIET_BOX, Throttle((6, 12), group_scheduling=True, fair_server_ns={1: 0})),
    "it sleeps": (spinner(0, IDLE_SLEEP), ONE_CPU, UNTHROTTLED),
    "not FIFO": (spinner(0, fifo=0), ONE_CPU, UNTHROTTLED),
}


@pytest.mark.parametrize(("place", "found", "throttle", "expected"), REFUSED.values(), ids=REFUSED)
def test_fifo_is_refused_where_others_need_the_cpu(place: Place, found: Cpus, throttle: Throttle, expected: str) -> None:
    (refused,) = list(realtime.refusals([place], found, throttle, frozenset({0, 1}) - {place.cpu} | {99}))
    assert refused.startswith(f"process feed: fifo=10 on CPU {place.cpu}")
    assert expected in refused


@pytest.mark.parametrize(("place", "found", "throttle"), ALLOWED.values(), ids=ALLOWED)
def test_fifo_is_allowed_where_it_harms_nobody(place: Place, found: Cpus, throttle: Throttle) -> None:
    assert list(realtime.refusals([place], found, throttle, frozenset({0, 99}))) == []


def test_fifo_must_leave_the_supervisor_a_cpu() -> None:
    (refused,) = list(realtime.refusals([spinner(2), dataclasses.replace(spinner(3), name="b")], QUIET_BOX, THROTTLED, frozenset({2, 3})))
    assert refused.startswith("CPUs 2-3: fifo takes all that the supervisor may run on")


def test_a_limit_on_real_time_cpu_time_would_kill_a_spinner() -> None:
    def body() -> list[str]:
        resource.setrlimit(resource.RLIMIT_RTTIME, (200_000, 200_000))
        return list(realtime.refusals([spinner(2)], QUIET_BOX, THROTTLED, frozenset({0})))

    assert "RLIMIT_RTTIME is 200000 us" in in_child(body)[0]


def test_how_the_kernel_throttles_is_said() -> None:
    (said,) = realtime.notes([spinner(2)], QUIET_BOX, THROTTLED)
    assert said == (
        "feed at SCHED_FIFO: RT throttling is on (sched_rt_runtime_us=950000 of 1000000): one that spins loses up to 50 ms of every 1 s"
    )
    said, loud = realtime.notes([spinner(1)], QUIET_BOX, Throttle((6, 12)))
    assert "the fair server of CPU 1 could not be read" in said
    assert "CPU 1 (feed): SCHED_FIFO on a CPU that is not isolated" in loud
    (said,) = realtime.notes([spinner(3)], QUIET_BOX, UNTHROTTLED)
    assert "nothing takes CPU 3 back" in said
    assert list(realtime.notes([spinner(3, IDLE_SLEEP)], QUIET_BOX, UNTHROTTLED)) == []


def test_the_throttle_is_read_from_the_kernel(tmp_path: Path) -> None:
    for name, text in {
        "proc/sys/kernel/sched_rt_runtime_us": "-1\n",
        "proc/sys/kernel/sched_rt_period_us": "500000\n",
        "sys/kernel/debug/sched/fair_server/cpu3/runtime": "0\n",
        "sys/fs/cgroup/cpu,cpuacct/cpu.rt_runtime_us": "950000\n",
    }.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(text)
    read = realtime.read_throttle(tmp_path)
    assert (read.runtime_us, read.period_us, read.group_scheduling, read.fair_server_ns) == (-1, 500_000, True, {3: 0})
    assert realtime.kernel_version("6.12.0-rc1") == (6, 12)
    assert realtime.kernel_version("odd") == (0, 0)


# CPUs and the latency cpuset


@given(st.frozensets(st.integers(0, 300)))
def test_a_cpu_list_is_read_as_it_is_written(found: frozenset[int]) -> None:
    assert cpus.parse_list(cpus.fold(found)) == sorted(found)


def fake_set(root: Path, version: int) -> Path:
    group = root / "sys/fs/cgroup" / ("" if version == 2 else "cpuset") / cpus.SET_NAME
    group.mkdir(parents=True)
    (group / ("cpuset.cpus.effective" if version == 2 else "cpuset.cpus")).write_text("2-3\n")
    (group / "cgroup.procs").write_text("")
    (root / "sys/fs/cgroup/cgroup.procs").write_text("")
    online = root / "sys/devices/system/cpu/online"
    online.parent.mkdir(parents=True)
    online.write_text("0-3\n")
    return group


@pytest.mark.parametrize("version", [1, 2])
def test_the_cpus_that_tune_set_aside_are_usable(tmp_path: Path, version: int) -> None:
    group = fake_set(tmp_path, version)
    found = cpus.look(tmp_path)
    assert found.latency_set == LatencySet(group, frozenset({2, 3}), True)
    assert found.online == frozenset(range(4))
    assert found.quiet == {2, 3} <= found.usable
    assert not found.closed(2)


def test_a_set_that_may_not_be_entered_does_not_lend_its_cpus() -> None:
    found = Cpus(frozenset(range(4)), frozenset({0, 1}), frozenset(), LatencySet(Path("/x"), frozenset({2, 3}), False))
    assert (found.usable, found.quiet) == ({0, 1}, frozenset())
    assert found.closed(2)
    assert not found.closed(1)
    assert not found.closed(7)


CPUSETS = Path("/sys/fs/cgroup/cpuset")


@needs_root
@needs_two_cpus
@pytest.mark.skipif(not (CPUSETS / "cpuset.cpus").exists(), reason="needs cgroup v1 cpusets")
def test_a_process_enters_the_latency_set_by_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    name = f"tickpath-test-{os.getpid()}"
    monkeypatch.setattr(cpus, "SET_NAME", f"{name}.latency")
    groups = {CPUSETS / f"{name}.latency": "1", CPUSETS / f"{name}.housekeeping": "0"}
    try:
        for group, cpu in groups.items():
            group.mkdir()
            (group / "cpuset.mems").write_text((CPUSETS / "cpuset.mems").read_text())
            (group / "cpuset.cpus").write_text(cpu)

        def body() -> Any:
            (CPUSETS / f"{name}.housekeeping/cgroup.procs").write_text("0")
            shut_out = sorted(os.sched_getaffinity(0))
            found = cpus.look()
            tuned = Tuned(process_of(), MachineConfig(), spinner(1, fifo=0), 2)
            tuned.settle_in()
            return shut_out, sorted(found.usable), tuned.entered, sorted(os.sched_getaffinity(0)), Path("/proc/self/cgroup").read_text()

        shut_out, usable, entered, affinity, where = in_child(body)
    finally:
        for group in groups:
            if group.exists():
                group.rmdir()
    assert (shut_out, usable, entered, affinity) == ([0], [0, 1], True, [1])
    assert f"/{name}.latency" in where


# Whole runs


@pytest.fixture
def launcher(tmp_path: Path) -> Iterator[Launcher]:
    made = Launcher(tmp_path, f"tickpath-test-{uuid.uuid4().hex[:12]}", {"TICKPATH_STATE": str(tmp_path / "state")})
    yield made
    left = made.segments()
    remove_dead(made.instance)
    assert left == [], "shared memory was left behind"


def with_processes(launcher: Launcher, processes: str) -> None:
    text = launcher.config.read_text()
    launcher.config.write_text(text[: text.index("# A process is a loop")] + processes + text[text.index("# What every process asks") :])


FIFO_ON_CPU_1 = """
[[process]]
name = "trading"
stages = ["feed", "strategy", "gateway"]
cpu = 1
fifo = 10

[[process]]
name = "venue"
stages = ["exchange"]
cpu = 0
nice = 1

"""


def test_the_loop_takes_no_page_fault(launcher: Launcher) -> None:
    """One page that the kernel moves or maps again is a fault too, and not ours: so a handful over all, of a run's many thousands."""
    report, finished = launcher.trade("--seconds", "2")
    assert finished.returncode == 0, finished.stdout + finished.stderr
    assert all(process["settings"]["prefaulted"] and process["settings"]["pinned"] for process in report["processes"])
    loops = {process["name"]: process["loop"] for process in report["processes"]}
    assert sum(loop["minor_faults"] for loop in loops.values()) <= 4, loops
    assert sum(loop["major_faults"] for loop in loops.values()) == 0, loops


def test_the_counted_faults_are_real_ones(launcher: Launcher) -> None:
    launcher.replace("prefault = true", "prefault = false")
    report, _ = launcher.trade("--seconds", "1")
    assert sum(process["loop"]["minor_faults"] for process in report["processes"]) > 20
    assert not any(process["settings"]["prefaulted"] for process in report["processes"])


@needs_root
@needs_two_cpus
def test_a_run_at_fifo_with_locked_memory_is_what_the_report_says(launcher: Launcher) -> None:
    with_processes(launcher, FIFO_ON_CPU_1)
    launcher.replace("lock_memory = false", "lock_memory = true")
    path = launcher.folder / "report.json"
    with launcher.background("--seconds", "60", "--json", str(path)) as running:
        pid = wait_for(lambda: fifo_child(running.pid), "a child at SCHED_FIFO")
        assert os.sched_getparam(pid).sched_priority == 10
        assert os.sched_getaffinity(pid) == {1}
        assert 1 not in os.sched_getaffinity(running.pid), "the supervisor stays off the CPU that nobody else gets"
        assert int(Path(f"/proc/{pid}/status").read_text().split("VmLck:")[1].split()[0]) > 100_000
        wait_for(lambda: traded(launcher), "an order")
        running.send_signal(signal.SIGTERM)
        output, errors = running.communicate(timeout=60)
    assert running.returncode == 0, output + errors
    report = json.loads(path.read_text())
    trading, venue = report["processes"]
    assert (trading["settings"]["fifo"], trading["settings"]["locked"], venue["settings"]["fifo"]) == (10, True, 0)
    assert trading["settings"]["locked_kib"] > 100_000
    assert trading["loop"]["minor_faults"] == trading["loop"]["major_faults"] == 0
    assert any("trading at SCHED_FIFO: " in note for note in report["notes"])
    assert "FIFO 10, " in output


def fifo_child(supervisor: int) -> int:
    """A child of the supervisor that runs at FIFO; 0 while there is none."""
    try:
        children = Path(f"/proc/{supervisor}/task/{supervisor}/children").read_text().split()
        policies = {int(pid): os.sched_getscheduler(int(pid)) & ~os.SCHED_RESET_ON_FORK for pid in children}
    except OSError:
        return 0
    return next((pid for pid, policy in policies.items() if policy == os.SCHED_FIFO), 0)


def traded(launcher: Launcher) -> bool:
    try:
        return bool(Table.attach(f"{launcher.instance}.control", CONTROL, writable=False).records[0]["first_order_tsc"])
    except SegmentError:
        return False


WITHOUT_RIGHTS = ("setpriv", "--bounding-set=-sys_nice,-ipc_lock", "prlimit", "--memlock=65536:65536", "--rtprio=0:0", "--")


@needs_root
@needs_two_cpus
def test_a_run_without_the_rights_goes_on_and_says_what_it_lacks(launcher: Launcher) -> None:
    with_processes(launcher, FIFO_ON_CPU_1)
    launcher.replace("lock_memory = false", "lock_memory = true")
    path = launcher.folder / "report.json"
    finished = launcher.run("run", str(launcher.config), "--seconds", "0.3", "--json", str(path), prefix=WITHOUT_RIGHTS)
    assert finished.returncode == 0, finished.stdout + finished.stderr
    report = json.loads(path.read_text())
    assert [(process["settings"]["fifo"], process["settings"]["locked"]) for process in report["processes"]] == [(0, False)] * 2
    notes = "\n".join(report["notes"])
    assert "trading: fifo=10 refused (Operation not permitted): RLIMIT_RTPRIO is 0; grant LimitRTPRIO=10" in notes
    assert "trading, venue: lock_memory=true refused" in notes or "venue: lock_memory=true refused" in notes
    assert "LimitMEMLOCK=infinity" in notes


@needs_root
@needs_two_cpus
def test_a_run_that_must_have_the_rights_does_not_start_without(launcher: Launcher) -> None:
    with_processes(launcher, FIFO_ON_CPU_1)
    launcher.replace('when_refused = "note"', 'when_refused = "stop"')
    finished = launcher.run("run", str(launcher.config), prefix=WITHOUT_RIGHTS)
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "process trading: fifo=10 refused" in finished.stderr
    assert "machine.when_refused=stop" in finished.stderr
    assert "Traceback" not in finished.stderr


@needs_two_cpus
def test_fifo_on_cpu_0_does_not_start(launcher: Launcher) -> None:
    with_processes(launcher, FIFO_ON_CPU_1.replace("cpu = 0\nnice = 1", "cpu = 0\nfifo = 5"))
    finished = launcher.run("run", str(launcher.config))
    assert finished.returncode == 2, finished.stdout + finished.stderr
    assert "process venue: fifo=5 on CPU 0, where it never sleeps" in finished.stderr
    assert "process trading" not in finished.stderr


# The latch of the kill switch


@pytest.fixture
def state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("TICKPATH_STATE", str(tmp_path / "state"))
    return tmp_path / "state"


def test_a_latch_holds_until_it_is_released(state: Path) -> None:
    latch.check("a")
    path = latch.latch("a", 'he said "stop"')
    assert list(state.iterdir()) == [path]
    latch.check("b")
    with pytest.raises(latch.Killed, match=r'instance=a: killed .* by .* \(he said "stop"\); `tickpath arm --instance a`'):
        latch.check("a")
    assert latch.release("a") is True
    assert latch.release("a") is False
    latch.check("a")


@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00", b"[]", b'{"at": 1'], ids=["empty", "binary", "a list", "torn"])
def test_a_latch_that_cannot_be_read_is_a_latch(state: Path, content: bytes) -> None:
    state.mkdir()
    (state / "a.killed").write_bytes(content)
    with pytest.raises(latch.Killed, match="at an unknown time"):
        latch.check("a")


@needs_root
def test_a_folder_that_cannot_be_searched_is_no_leave_to_start(state: Path) -> None:
    latch.latch("a", "x")
    state.chmod(0o700)

    def body() -> str:
        os.chdir("/")
        os.setresuid(NOBODY, NOBODY, NOBODY)
        try:
            latch.check("a")
        except OSError:
            return "OSError"
        return "started"

    # The folders above a test's own are closed to others already.
    assert in_child(body) == "OSError"


def test_both_folders_count(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TICKPATH_STATE", raising=False)
    monkeypatch.setattr(latch, "SYSTEM_FOLDER", tmp_path / "system")
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "home"))
    for folder in latch.folders():
        folder.mkdir(parents=True)
        (folder / "a.killed").write_text("")
        with pytest.raises(latch.Killed):
            latch.check("a")
        latch.release("a")
        latch.check("a")
    assert latch.latch("a", "root may write everywhere, so the widest").parent == (tmp_path / "system" if IS_ROOT else latch.folders()[0])


def test_a_start_looks_for_the_latch_when_its_memory_is_there(launcher: Launcher, monkeypatch: pytest.MonkeyPatch, state: Path) -> None:
    """A kill that comes after the look finds the memory, one that came before it is found: nothing fits between."""
    seen = []

    def check(instance: str) -> None:
        seen.append(launcher.segments())
        killswitch.set_kill(instance, "now")
        raise latch.Killed("the test says so")

    monkeypatch.setattr(latch, "check", check)
    config, notes = runner.config_for(launcher.config, feed=None, seconds=None, speed=None, symbols=[])
    with pytest.raises(latch.Killed):
        runner.run(config, runner.Console(quiet=True), notes)
    assert f"{launcher.instance}.control" in seen[0]
    assert launcher.segments() == []


def test_a_kill_latches_before_it_looks_for_the_instance_again(state: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    looked = []

    def attach(name: str, dtype: np.dtype) -> None:
        looked.append((state / "a.killed").exists())
        raise SegmentError(f"{name}: there is none")

    monkeypatch.setattr(killswitch.Table, "attach", staticmethod(attach))
    with pytest.raises(SegmentError, match="there is none It cannot start now"):
        killswitch.set_kill("a", "test")
    assert looked == [False, True]


@needs_root
def test_root_kills_an_instance_of_another_user(instance: str, state: Path) -> None:
    control = Table.create(f"{instance}.control", CONTROL)
    path = Path(f"/dev/shm/{instance}.control")
    try:
        os.chown(path, NOBODY, NOBODY)
        killswitch.set_kill(instance, "by root")
        assert os.geteuid() == 0
        assert (control.records[0]["kill"], bytes(control.records[0]["kill_reason"]).rstrip(b"\0")) == (1, b"by root")
        assert killswitch.clear_kill(instance) is True
        assert control.records[0]["kill"] == 0
    finally:
        path.unlink()


def test_a_cpu_that_cannot_be_had_is_a_sentence() -> None:
    with pytest.raises(ConfigError, match=r"process p: cpu=4000: it cannot be pinned there \(Invalid argument\)"):
        Tuned(process_of(), MachineConfig(), spinner(4000, fifo=0), 2).settle_in()


def test_settings_that_must_be_and_are_not_end_the_process() -> None:
    readable, writable = os.pipe()
    refused = ["fifo=5 refused (no): grant it"]
    Tuned(process_of(), MachineConfig(), spinner(0), writable)._say(refused)
    assert os.read(readable, 1000) == b"fifo=5 refused (no): grant it\n"
    with pytest.raises(ConfigError, match="process p: fifo=5 refused"):
        Tuned(process_of(), MachineConfig(when_refused="stop"), spinner(0), writable)._say(refused)
    os.close(readable)
    os.close(writable)


def test_timer_slack_of_a_child_is_its_own() -> None:
    before = Path("/proc/self/timerslack_ns").read_text()

    def body() -> str:
        assert lib.tp_set_timer_slack(777) == 0
        return Path("/proc/self/timerslack_ns").read_text().strip()

    assert in_child(body) == "777"
    assert Path("/proc/self/timerslack_ns").read_text() == before
