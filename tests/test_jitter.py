"""`tickpath jitter`: what it counts, who it blames, and that no spinner outlives it."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.runtime.cpus import fold, parse_list
from shm._shim import lib
from shm.hot import HISTOGRAM_BUCKETS, HISTOGRAM_COUNT, HISTOGRAM_MAXIMUM, HISTOGRAM_SUM
from tests.running import ROOT, wait_for
from tools import blame, cpus
from tools.hot.jitter import LARGEST_KEPT, LOST, STOP, THRESHOLD, WATCHED, keep_largest, smallest_run, watch
from tools.jitter import make_slots, threshold_of

PATIENCE_S = 120
FOREVER = 1 << 62
EVERY = sorted(os.sched_getaffinity(0))


# ------------------------------------------------------------------------------------------------ the kernel


def test_with_a_threshold_below_everything_each_reading_is_a_gap() -> None:
    (slot,) = make_slots([0])
    meter = slot.meter
    meter.state[THRESHOLD] = -1
    assert watch(meter, FOREVER, 1_000)
    assert meter.histogram[HISTOGRAM_COUNT] == meter.histogram[HISTOGRAM_BUCKETS:].sum() == 1_000
    assert meter.state[LOST] == meter.histogram[HISTOGRAM_SUM]
    assert meter.state[LOST] <= meter.state[WATCHED]
    assert meter.largest[:, 0].max() == meter.histogram[HISTOGRAM_MAXIMUM]


def test_with_a_threshold_above_everything_none_is() -> None:
    (slot,) = make_slots([0])
    slot.meter.state[THRESHOLD] = FOREVER
    before = lib.tp_rdtsc()
    assert watch(slot.meter, FOREVER, 1_000)
    assert slot.meter.histogram[HISTOGRAM_COUNT] == slot.meter.state[LOST] == 0
    assert 0 < slot.meter.state[WATCHED] <= lib.tp_rdtsc() - before


def test_it_ends_at_its_time_at_its_turns_and_when_told() -> None:
    (slot,) = make_slots([0])
    meter = slot.meter
    meter.state[THRESHOLD] = -1
    assert watch(meter, 0, FOREVER)
    assert meter.histogram[HISTOGRAM_COUNT] == 1
    assert watch(meter, FOREVER, 5)
    assert meter.histogram[HISTOGRAM_COUNT] == 6
    until = lib.tp_rdtsc() + 100_000
    watch(meter, until, FOREVER)
    assert lib.tp_rdtsc() >= until
    meter.state[STOP] = 1
    assert not watch(meter, 0, 1)


@given(st.lists(st.tuples(st.integers(1, 50), st.integers(0, 1_000)), max_size=60))
def test_the_largest_gaps_are_kept(gaps: list[tuple[int, int]]) -> None:
    largest = np.zeros((LARGEST_KEPT, 2), np.int64)
    for ticks, at in gaps:
        keep_largest(largest, ticks, at)
    kept = sorted((tuple(row) for row in largest.tolist() if row[0]), reverse=True)
    assert [ticks for ticks, _ in kept] == sorted((ticks for ticks, _ in gaps), reverse=True)[:LARGEST_KEPT]
    assert all(gap in gaps for gap in kept)


def test_a_reading_takes_time() -> None:
    assert 0 < smallest_run(64, 1_000) <= smallest_run(6_400, 10)


# ------------------------------------------------------------------------------------------------ the command


def command(*arguments: str) -> list[str]:
    return [sys.executable, "-m", "tools.cli", "jitter", *arguments]


def jitter(*arguments: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "COLUMNS": "160"}
    return subprocess.run(command(*arguments), cwd=ROOT, capture_output=True, text=True, timeout=PATIENCE_S, env=environment)


def test_every_cpu_is_measured_and_the_figures_agree_with_each_other(tmp_path: Path) -> None:
    file = tmp_path / "jitter.json"
    finished = jitter("--cpus", fold(EVERY), "--seconds", "0.3", "--json", str(file))
    assert finished.returncode == 0, finished.stderr
    assert "gaps" in finished.stdout and "who took it" in finished.stdout
    result = json.loads(file.read_text())
    assert [one["cpu"] for one in result["cpus"]] == EVERY
    assert not result["interrupted"]
    for one in result["cpus"]:
        assert one["watched_s"] > 0 and 0 <= one["lost_share"] <= 1
        assert one["p50_ns"] <= one["p99_ns"] <= one["p999_ns"] <= one["max_ns"]
        assert abs(one["threshold_ns"] - 8 * one["smallest_ns"]) < 1
        assert one["gaps"] == 0 or one["max_ns"] + 1 >= one["threshold_ns"]
        assert len(one["largest"]) == min(one["gaps"], LARGEST_KEPT)
        assert one["max_ns"] == max((gap["ns"] for gap in one["largest"]), default=0)
        assert all(gap["at_s"] >= 0 for gap in one["largest"])
        assert one["lost_ns"] >= one["max_ns"]
        assert one["preempted"] >= 0 and one["yielded"] >= 0
        assert set(one) >= {"interrupts", "softirqs", "stolen_ns", "threads", "waited_for_threads_ns", "unseen_ns"}


def test_a_threshold_of_ones_own() -> None:
    finished = jitter("--cpus", str(EVERY[-1]), "--seconds", "0.1", "--threshold-ns", "1e9", "--json", "-")
    (one,) = json.loads(finished.stdout)["cpus"]
    assert finished.returncode == 0 and abs(one["threshold_ns"] - 1e9) < 10
    assert one["gaps"] == 0 and one["largest"] == [] and one["max_ns"] == one["lost_ns"] == 0


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--cpus", "8191"], "cpu=8191: a meter cannot run there"),
        (["--cpus", "3-1"], "expected a CPU list"),
        (["--cpus", ""], "expected a CPU list"),
        (["--cpus", "x"], "expected a CPU list"),
        (["--threshold-ns", "soon"], "expected auto, or nanoseconds"),
        (["--threshold-ns", "0"], "expected auto, or nanoseconds"),
        (["--seconds", "0"], "0.01"),
    ],
)
def test_unusable_arguments_are_refused(arguments: list[str], words: str) -> None:
    finished = jitter(*arguments)
    assert finished.returncode == 2 and not finished.stdout
    assert words in finished.stderr


def test_thresholds() -> None:
    assert threshold_of("auto") is None and threshold_of("250") == 250 and threshold_of("1.5") == 1.5
    for text in ("nan", "-1", "inf", "1e10", ""):
        with pytest.raises(ValueError, match="expected auto"):
            threshold_of(text)


# ------------------------------------------------------------------------------------------------ no spinner outlives it


def children_of(pid: int) -> list[int]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            words = stat.read_text().rpartition(")")[2].split()
            if int(words[1]) == pid and words[0] != "Z":
                found.append(int(stat.parent.name))
    return found


def is_running(pid: int) -> bool:
    """Neither gone nor a corpse that nobody has collected yet."""
    with suppress(OSError):
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    return False


def used_ticks(pid: int) -> int:
    with suppress(OSError):
        return int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[11])
    return 0


@contextmanager
def measuring(*arguments: str) -> Iterator[tuple[subprocess.Popen[str], list[int]]]:
    """The command in the middle of a measurement that would take an hour, and its spinners."""
    running = subprocess.Popen(
        command("--cpus", fold(EVERY), "--seconds", "3600", "--json", "-", *arguments),
        cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True,
        preexec_fn=lambda: lib.tp_die_with_parent(signal.SIGKILL),
    )  # fmt: skip
    spinners: list[int] = []

    def spinning() -> bool:
        spinners[:] = children_of(running.pid)
        # A few ticks of user time: it is past its calibration, in the loop.
        return len(spinners) == len(EVERY) and all(used_ticks(pid) > 30 for pid in spinners)

    try:
        wait_for(spinning, "the spinners to spin", PATIENCE_S)
        yield running, spinners
    finally:
        for pid in [*spinners, running.pid]:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        running.communicate()


@pytest.mark.parametrize("deadly", [signal.SIGKILL, signal.SIGTERM, signal.SIGHUP])
def test_when_the_parent_is_killed_every_spinner_ends(deadly: signal.Signals) -> None:
    with measuring() as (running, spinners):
        os.kill(running.pid, deadly)
        wait_for(lambda: not any(map(is_running, spinners)), "the spinners to end", 10)


def test_ctrl_c_ends_it_early_with_what_was_measured_until_then() -> None:
    with measuring() as (running, spinners):
        os.killpg(running.pid, signal.SIGINT)
        out, err = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 0, err
        result = json.loads(out)
        assert result["interrupted"] and all(0 < one["watched_s"] < 600 for one in result["cpus"])
        assert not any(map(is_running, spinners))


def test_a_spinner_that_is_killed_ends_the_others_and_is_told() -> None:
    with measuring() as (running, spinners):
        os.kill(spinners[-1], signal.SIGKILL)
        out, err = running.communicate(timeout=PATIENCE_S)
        assert running.returncode == 3 and not out
        assert "ended by signal 9: nothing is reported" in err
        assert not any(map(is_running, spinners))


def test_a_spinner_that_is_stopped_delays_the_end_and_does_not_prevent_it() -> None:
    with measuring() as (running, spinners):
        os.kill(spinners[0], signal.SIGSTOP)
        os.killpg(running.pid, signal.SIGTERM)
        wait_for(lambda: not any(map(is_running, spinners)), "the spinners to end", 10)


# ------------------------------------------------------------------------------------------------ who took it

INTERRUPTS = """            CPU0       CPU2       CPU11
   8:          1          0          0  IR-IO-APIC    8-edge      rtc0
  16:         10         20         30  IR-IO-APIC   16-fasteoi   ehci_hcd:usb1, i801_smbus
 129:          5          6          7  IR-PCI-MSIX-0000:17:00.0    3-edge      mlx5_comp2@pci:0000:17:00.0
 130:          5          6          7
 NMI:          0          1          2   Non-maskable interrupts
 LOC:        100        200        300   Local timer interrupts
 ERR:          4
 MIS:          0
"""


def test_interrupts_by_cpu_and_name() -> None:
    counts = blame.per_cpu_counts(INTERRUPTS)
    assert sorted(counts) == [0, 2, 11]
    assert counts[2] == {
        "8 rtc0": 0,
        "16 ehci_hcd:usb1, i801_smbus": 20,
        "129 mlx5_comp2@pci:0000:17:00.0": 6,
        "130": 6,
        "NMI Non-maskable interrupts": 1,
        "LOC Local timer interrupts": 200,
    }
    softirqs = blame.per_cpu_counts("                    CPU0       CPU1\n          HI:          1          2\n       TIMER:       3   4\n")
    assert softirqs == {0: {"HI": 1, "TIMER": 3}, 1: {"HI": 2, "TIMER": 4}}
    for text in ("", "nonsense", "CPU0\n\n"):
        assert not any(blame.per_cpu_counts(text).values())


def test_stolen_time() -> None:
    tick_ns = 10**9 // os.sysconf("SC_CLK_TCK")
    text = "cpu  9 9 9 9 9 9 9 99 0 0\ncpu0 1 2 3 4 5 6 7 8 0 0\ncpu11 1 2 3 4 5 6 7 0 0 0\nintr 5 5\n"
    assert blame.stolen(text) == {0: 8 * tick_ns, 11: 0}
    assert blame.stolen("cpu0 1 2 3\n") == {}


class Fake:
    """A /proc of our own."""

    def __init__(self, root: Path) -> None:
        self.root = root

    def put(self, path: str, text: str) -> None:
        file = self.root / path
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)

    def thread(self, pid: int, name: str, cpu: int, ran_ns: int, started: int = 5, tid: int | None = None) -> None:
        words = ["S", "1", *["0"] * 17, str(started), *["0"] * 16, str(cpu), "0", "0"]
        folder = f"proc/{pid}/task/{tid or pid}"
        self.put(f"{folder}/stat", f"{tid or pid} ({name}) {' '.join(words)}\n")
        self.put(f"{folder}/schedstat", f"{ran_ns} 17 3\n")


def test_what_happened_between_two_looks(tmp_path: Path) -> None:
    box = Fake(tmp_path)
    box.put("proc/interrupts", INTERRUPTS)
    box.put("proc/softirqs", "  CPU0 CPU2 CPU11\n RCU: 1 1 1\n NET_RX: 0 0 0\n")
    box.put("proc/stat", "cpu2 0 0 0 0 0 0 0 1\n")
    box.thread(10, "kworker/2:1", 2, 1_000)
    box.thread(11, "odd) (name", 2, 500, tid=12)
    box.thread(13, "elsewhere", 0, 500)
    box.thread(14, "idle", 2, 700)
    box.thread(15, "gone", 2, 700)
    before = blame.look(tmp_path)
    assert before.unknown == []

    box.put("proc/interrupts", INTERRUPTS.replace("        200 ", "        450 ").replace("         20 ", "         21 "))
    box.put("proc/softirqs", "  CPU0 CPU2 CPU11\n RCU: 9 4 9\n NET_RX: 9 0 9\n")
    box.put("proc/stat", "cpu2 0 0 0 0 0 0 0 3\n")
    box.thread(10, "kworker/2:1", 2, 4_000)
    box.thread(11, "odd) (name", 2, 600, tid=12)
    box.thread(13, "elsewhere", 0, 90_000)
    box.thread(15, "another with its number", 2, 800, started=99)
    box.thread(16, "meter", 2, 800_000)
    took = blame.between(before, blame.look(tmp_path), 2, own={16})
    assert took == {
        "interrupts": {"LOC Local timer interrupts": 250, "16 ehci_hcd:usb1, i801_smbus": 1},
        "softirqs": {"RCU": 3},
        "stolen_ns": 2 * 10**9 // os.sysconf("SC_CLK_TCK"),
        "threads": [
            {"name": "kworker/2:1", "tid": 10, "ran_ns": 3_000},
            {"name": "another with its number", "tid": 15, "ran_ns": 800},
            {"name": "odd) (name", "tid": 12, "ran_ns": 100},
        ],
    }
    assert list(took["interrupts"]) == ["LOC Local timer interrupts", "16 ehci_hcd:usb1, i801_smbus"]


def test_what_cannot_be_read_is_unknown_and_not_nothing(tmp_path: Path) -> None:
    nothing = blame.look(tmp_path)
    assert len(nothing.unknown) == 4 and any("/proc/interrupts" in sentence for sentence in nothing.unknown)
    assert blame.between(nothing, nothing, 0, set()) == {"interrupts": None, "softirqs": None, "stolen_ns": None, "threads": None}


def test_this_kernel_is_read() -> None:
    here = blame.look()
    assert set(EVERY) <= set(here.interrupts) and set(EVERY) <= set(here.softirqs)
    assert any("imer" in name for name in here.interrupts[EVERY[0]])


# ------------------------------------------------------------------------------------------------ CPUs


@given(st.sets(st.integers(0, 200)))
def test_lists_of_cpus_go_both_ways(wanted: set[int]) -> None:
    assert parse_list(fold(wanted)) == sorted(wanted)


@pytest.mark.parametrize("text", ["1-", "-1", "3-1", "a", "1,,2", "8192", "1;2"])
def test_what_is_no_list_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected a CPU list"):
        parse_list(text)


def tree(root: Path, files: dict[str, str]) -> Path:
    for name, text in files.items():
        Fake(root).put(name, text + "\n")
    return root


@pytest.mark.parametrize(
    ("files", "wanted"),
    [
        ({"sys/devices/system/cpu/isolated": "2-3"}, [2, 3]),
        ({"sys/fs/cgroup/cpuset.cpus.isolated": "5"}, [5]),
        ({"sys/fs/cgroup/cpuset/tickpath.latency/cpuset.cpus": "1,3", "sys/devices/system/cpu/isolated": ""}, [1, 3]),
        ({"sys/fs/cgroup/tickpath.latency/cpuset.cpus": "7"}, [7]),
    ],
)
def test_what_is_isolated_is_measured(tmp_path: Path, files: dict[str, str], wanted: list[int]) -> None:
    assert cpus.worth_measuring(tree(tmp_path, files)) == wanted


def test_without_isolation_the_housekeeping_core_is_left_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    root = tree(tmp_path, {"sys/devices/system/cpu/cpu0/topology/thread_siblings_list": "0,4"})
    for usable, wanted in (({0, 1, 4, 5}, [1, 5]), ({0, 4}, [0, 4]), ({2}, [2]), ({0}, [0])):
        monkeypatch.setattr(os, "sched_getaffinity", lambda _, usable=usable: usable)
        assert cpus.worth_measuring(root) == wanted
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: {0, 1})
    assert cpus.worth_measuring(tmp_path / "nothing") == [1]


def test_a_cpu_that_a_set_keeps_is_reached_through_the_set() -> None:
    """For real: two cpusets of our own, one for the parent and one for the meter, as `tune apply` would make them."""
    sets = Path("/sys/fs/cgroup/cpuset")
    if os.geteuid() != 0 or not os.access(sets / "cgroup.procs", os.W_OK) or len(EVERY) < 2:
        pytest.skip("needs root, cgroup v1 cpusets and two CPUs")
    here, there = (sets / f"tickpath-test-{os.getpid()}-{name}" for name in ("here", "there"))
    code = f"""
import os, sys
from pathlib import Path
from tools import cpus
cpus.LATENCY_SETS = ("{there.relative_to("/")}",)
Path("{here}/cgroup.procs").write_text(str(os.getpid()))
assert os.sched_getaffinity(0) == {{{EVERY[0]}}}
assert cpus.run_on({EVERY[1]}) == Path("{there}")
print(sorted(os.sched_getaffinity(0)))
"""
    try:
        for folder, cpu in ((here, EVERY[0]), (there, EVERY[1])):
            folder.mkdir()
            (folder / "cpuset.mems").write_text((sets / "cpuset.mems").read_text())
            (folder / "cpuset.cpus").write_text(str(cpu))
        finished = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, timeout=60)
        assert (finished.stdout, finished.returncode) == (f"[{EVERY[1]}]\n", 0), finished.stderr
    finally:
        for folder in (here, there):
            if folder.exists():
                wait_for(lambda folder=folder: not (folder / "cgroup.procs").read_text().strip(), "the set to be empty", 10)
                folder.rmdir()


def test_a_report_without_knowledge_can_be_printed() -> None:
    """Everything the kernel may not tell is None, and says unknown."""
    from rich.console import Console

    from tools import jitter_show

    nothing: dict[str, Any] = dict.fromkeys(("p50_ns", "p99_ns", "p999_ns", "max_ns", "lost_ns", "gaps", "preempted", "yielded"), 0)
    nothing |= dict.fromkeys(("interrupts", "softirqs", "stolen_ns", "threads", "waited_for_threads_ns", "unseen_ns"))
    nothing |= {"cpu": 3, "watched_s": 0.0, "threshold_ns": 74.0, "gaps_per_s": 0.0, "lost_share": 0.0, "largest": []}
    machine = {"cpu": "some CPU", "cpus": [0], "hypervisor": False, "l3": None, "kernel": "6.1", "isolated": None}
    console = Console(width=160, record=True, file=open(os.devnull, "w"))  # noqa: SIM115, PTH123
    console.print(jitter_show.report({"interrupted": True, "cpus": [nothing], "unknown": ["a reason"], "machine": machine}))
    text = console.export_text()
    assert text.count("unknown") == 6 and "ended early" in text
