"""`tune prove` on fake machines, interrupted wherever it can be, and for real; and the bounded ring benchmark that it uses."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from perf import prove
from perf.bench_tuned_ring import WARM_UP, Kind, Run, busy, figures, run_pair
from perf.hot.bounded import await_until, ping_until, pong_until
from shm._shim import lib
from tests.running import ROOT, wait_for
from tests.test_tuning import JOURNAL, TUNING, Box, machines, picture, vm

TWO = sorted(os.sched_getaffinity(0))[:2]
SWAPPINESS = "proc/sys/vm/swappiness"
ONLY = "swappiness,stat-interval,shm-huge,governor,isolcpus,ksm"

METER = {"cpus": [{"cpu": 1, "gaps_per_s": 250.0, "p99_ns": 9000, "p999_ns": 20000, "max_ns": 90000, "lost_share": 0.001,
                   "waited_for_threads_ns": 500_000_000, "watched_s": 2.0}],
         "unknown": ["a tracer is missing"], "machine": {"cpu": "fake", "cpus": [0, 1], "hypervisor": True, "l3": "1K", "kernel": "6.1",
                                                         "isolated": None}}  # fmt: skip
RING = {"p50_ns": 150.0, "p99_ns": 200.0, "p999_ns": 900.0, "max_ns": 5000.0}

# Stands in for the interpreter with the package: measures nothing, notes what the machine was like, and prints the table for real.
PYTHON = f"""
[ "$1" = -c ] && exit 0
[ "$3" = table ] && exec {sys.executable} "$@"
for file; do :; done
name=${{file##*/}}
echo "$name $(cat "$root/{SWAPPINESS}") $*" >> "$root/measured"
[ -e "$root/stall.$name" ] && exec sleep 60
[ -e "$root/fail.$name" ] && exit 3
[ -e "$root/meddle.$name" ] && echo 33 > "$root/{SWAPPINESS}"
cp "$root/canned.${{name##*.}}" "$file"
"""


def proving(root: Path) -> Box:
    box = vm(root)
    box.tool("python3", PYTHON)
    box.put("canned.jitter", json.dumps(METER))
    box.put("canned.ring", json.dumps(RING))
    return box


@pytest.fixture
def box(tmp_path: Path) -> Iterator[Box]:
    with machines(tmp_path) as make:
        yield make(proving)


def command(box: Box, *options: str) -> list[str]:
    return [str(TUNING / "tune"), "prove", "--root", str(box.root), "--only", ONLY, "--seconds", "0.2", *options]


def run(box: Box, *options: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command(box, *options), capture_output=True, text=True, timeout=120)


def settings(box: Box) -> dict[str, str]:
    return {name: text for name, text in picture(box).items() if not name.startswith(("run", "var", "measured", "stall", "fail", "meddle"))}


def measured(box: Box) -> list[list[str]]:
    return [line.split() for line in box.get("measured").splitlines()] if (box.root / "measured").exists() else []


# ------------------------------------------------------------------------------------------------ on a fake machine


def test_it_measures_three_times_and_puts_everything_back(box: Box) -> None:
    before = settings(box)
    done = run(box)
    assert done.returncode == 0, done.stderr
    assert [line[:2] for line in measured(box)] == [
        ["before.jitter", "60"], ["before.ring", "60"], ["applied.jitter", "10"], ["applied.ring", "10"], ["reverted.jitter", "60"],
        ["reverted.ring", "60"],
    ]  # fmt: skip
    assert " --cpus 1 --seconds 0.2 " in box.get("measured") and " --cpus 1,0 --seconds 0.2 " in box.get("measured")
    assert settings(box) == before and not (box.root / JOURNAL).exists()
    for words in (
        "CPU 1 gap p99.9 ns",
        "round trip p99.9 ns",
        "no difference",
        "60 -> 10 -> 60",
        "all is back as it was",
        "governor: unsupported: needs a cpufreq driver",
        "isolcpus: act after a reboot only",
        "this machine is virtual",
        "other threads had up to 25% of a measured CPU",
        "a tracer is missing",
        "a third of the lines say better",
    ):
        assert words in done.stdout, words


def test_json(box: Box) -> None:
    done = run(box, "--json")
    result = json.loads(done.stdout)
    assert (result["verb"], result["exit"], done.returncode, result["not_back"]) == ("prove", 0, 0, [])
    knob = next(knob for knob in result["knobs"] if knob["name"] == "swappiness")
    assert (knob["before"], knob["applied"], knob["reverted"], knob["back"]) == ("drift", "ok", "drift", True)
    assert (knob["was"], knob["got"], knob["is"]) == ("60", "10", "60")
    assert {row["figure"]: row["says"] for row in result["figures"]}["round trip p50 ns"] == "no difference"
    assert set(result["phases"]) == {"before", "applied", "reverted"}


@pytest.mark.parametrize("phase", ["before", "applied", "reverted"])
@pytest.mark.parametrize("kind", ["jitter", "ring"])
@pytest.mark.parametrize(("deadly", "code"), [(signal.SIGTERM, 143), (signal.SIGHUP, 129), (signal.SIGINT, 130)])
def test_interrupted_while_measuring_it_puts_everything_back(box: Box, phase: str, kind: str, deadly: signal.Signals, code: int) -> None:
    before = settings(box)
    box.put(f"stall.{phase}.{kind}", "")
    running = subprocess.Popen(command(box), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: any(line[0] == f"{phase}.{kind}" for line in measured(box)), "the measurement to begin", 60)
        assert box.get(SWAPPINESS) == ("10" if phase == "applied" else "60")
        # Ctrl-C reaches everything in the foreground, the others only tune.
        (os.killpg if deadly == signal.SIGINT else os.kill)(running.pid, deadly)
        _, err = running.communicate(timeout=60)
        assert running.returncode == code, err
        assert ("nothing had been changed" if phase != "applied" else "has been put back") in err
        assert settings(box) == before and not (box.root / JOURNAL).exists()
        assert not alive_in_session(running.pid)
    finally:
        end_session(running)


def alive_in_session(leader: int) -> list[str]:
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            words = stat.read_text().rpartition(")")[2].split()
        except OSError:
            continue
        if int(words[3]) == leader and words[0] != "Z":
            found.append(stat.read_text()[:60])
    return found


def end_session(running: subprocess.Popen[str]) -> None:
    if alive_in_session(running.pid):
        os.killpg(running.pid, signal.SIGKILL)
    running.communicate()


@pytest.mark.parametrize("deadly", [signal.SIGTERM, signal.SIGINT])
def test_interrupted_while_applying_it_puts_everything_back(box: Box, deadly: signal.Signals) -> None:
    before = settings(box)
    mount = (box.root / "bin/mount").read_text().split("\n", 2)[2]
    box.tool("mount", f'touch "$root/measured.mounting"; sleep 0.5\n{mount}')
    tool = {"bin/mount": settings(box)["bin/mount"]}
    running = subprocess.Popen(command(box), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for((box.root / "measured.mounting").exists, "apply to be in the middle", 60)
        (os.killpg if deadly == signal.SIGINT else os.kill)(running.pid, deadly)
        _, err = running.communicate(timeout=60)
        assert running.returncode == 128 + deadly, err
        assert "has been put back" in err
        assert settings(box) == before | tool and not (box.root / JOURNAL).exists()
    finally:
        end_session(running)


def test_killed_it_leaves_a_journal_that_revert_understands(box: Box) -> None:
    before = settings(box)
    box.put("stall.applied.jitter", "")
    running = subprocess.Popen(command(box), stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, start_new_session=True)
    try:
        wait_for(lambda: any(line[0] == "applied.jitter" for line in measured(box)), "the measurement to begin", 60)
        os.killpg(running.pid, signal.SIGKILL)
        running.communicate(timeout=60)
    finally:
        end_session(running)
    again = run(box)
    assert again.returncode == 2 and "tuned already" in again.stderr and "tune revert first" in again.stderr
    assert subprocess.run([TUNING / "tune", "revert", "--root", box.root], capture_output=True).returncode == 0
    assert settings(box) == before


@pytest.mark.parametrize("name", ["before.jitter", "applied.jitter", "applied.ring", "reverted.jitter"])
def test_when_a_measurement_fails_everything_is_put_back_and_it_is_said(box: Box, name: str) -> None:
    before = settings(box)
    box.put(f"fail.{name}", "")
    done = run(box)
    assert done.returncode == (0 if name == "applied.ring" else 3), done.stderr
    assert "what measures failed" in done.stderr
    assert settings(box) == before and not (box.root / JOURNAL).exists()
    if name == "applied.ring":
        assert "not measured" in done.stdout


def test_what_somebody_changed_meanwhile_is_left_and_named(box: Box) -> None:
    box.put("meddle.applied.jitter", "")
    done = run(box)
    assert done.returncode == 1
    assert "NOT as it was: swappiness" in done.stdout and "somebody changed it" in done.stdout
    assert box.get(SWAPPINESS) == "33"


def test_without_the_package_it_says_so(box: Box) -> None:
    box.tool("python3", '[ "$1" = -c ] && { echo "ModuleNotFoundError: No module named tickpath" >&2; exit 1; }\n')
    done = run(box)
    assert done.returncode == 2 and not done.stdout
    assert (
        "the tickpath package, and it is not installed" in done.stderr and "No module named" in done.stderr and "make build" in done.stderr
    )
    (box.root / "bin/python3").unlink()
    assert "no python3 was found" in run(box).stderr
    assert not (box.root / JOURNAL).exists()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--seconds", "0"], "--seconds 0"),
        (["--seconds", "-1"], "--seconds -1"),
        (["--seconds", "1;2"], "--seconds 1;2"),
        (["--write-dropin"], "which prove does not make"),
        (["--only", "frob"], "no such knob"),
    ],
)
def test_wrong_usage(box: Box, options: list[str], words: str) -> None:
    done = run(box, *options)
    assert done.returncode == 2 and words in done.stderr and not done.stdout
    assert not measured(box)


def test_one_cpu_has_no_ring_to_measure(box: Box) -> None:
    box.put("sys/devices/system/cpu/online", "0")
    done = run(box)
    assert done.returncode == 0, done.stderr
    assert {line[0] for line in measured(box)} == {"before.jitter", "applied.jitter", "reverted.jitter"}
    assert "it needs two CPUs" in done.stdout


# ------------------------------------------------------------------------------------------------ the table


@pytest.mark.parametrize(
    ("values", "says"),
    [
        ([5, 3, 4], "better than both"),
        ([5, 6, 4], "worse than both"),
        ([5, 4, 4], "between the two"),
        ([4, 4, 4], "no difference"),
        ([4, 4.5, 5], "between the two"),
        ([None, 4, 5], "not measured"),
        ([4, None, 5], "not measured"),
        ([4, 5, None], "not measured"),
    ],
)
def test_what_three_figures_say(values: list[float | None], says: str) -> None:
    assert prove.compare(values) == says


def test_of_many_cpus_the_worst_is_shown(tmp_path: Path) -> None:
    for phase in prove.PHASES:
        one = METER["cpus"][0]
        many = [{**one, "cpu": cpu, "max_ns": 1000 * cpu} for cpu in (1, 2, 3)]
        (tmp_path / f"{phase}.jitter").write_text(json.dumps({**METER, "cpus": many}))
    found = {row["figure"]: row for row in prove.rows(tmp_path)}
    assert found["worst of CPUs gap max ns"]["applied"] == 3000 and len(found) == 5


def test_a_knob_that_does_not_read_as_before_is_not_back_whatever_revert_says(tmp_path: Path) -> None:
    knob = {"name": "ksm", "state": "drift", "got": "1", "changes": [{}], "lasts": "runtime", "reason": ""}
    for name, state in (("audit.before", "drift"), ("apply", "ok"), ("revert", "ok"), ("audit.after", "ok")):
        (tmp_path / name).write_text(json.dumps({"exit": 0, "knobs": [{**knob, "state": state}]}))
    assert [known["back"] for known in prove.knobs(tmp_path)] == [False]
    (tmp_path / "audit.after").write_text((tmp_path / "audit.before").read_text())
    assert [known["back"] for known in prove.knobs(tmp_path)] == [True]
    (tmp_path / "revert").write_text((tmp_path / "audit.before").read_text())
    assert [known["back"] for known in prove.knobs(tmp_path)] == [False]


def test_a_table_of_nothing_is_a_failure(tmp_path: Path) -> None:
    result = prove.result_of(tmp_path)
    assert result["exit"] == 3 and result["figures"] == [] and prove.text(result)
    (tmp_path / "apply").write_text('{"verb": "apply", "kno')
    assert prove.result_of(tmp_path)["exit"] == 3


# ------------------------------------------------------------------------------------------------ the bounded ping-pong

needs_two = pytest.mark.skipif(len(TWO) < 2, reason="a hop needs two CPUs")


@needs_two
def test_a_run_times_every_trip_after_the_warm_up() -> None:
    run_ = run_pair(Kind(pinned=True), (TWO[0], TWO[1]), 500, 1e9)
    # Where others want these CPUs as well it may be cut short.
    assert len(run_.ticks) == 500 if run_.whole else len(run_.ticks) <= 500
    assert (run_.ticks > 0).all()


def test_it_ends_at_its_time_without_a_partner() -> None:
    from perf.bench_tuned_ring import MESSAGE, Ring, ends

    name = f"tickpath-test-{os.getpid()}-bounded"
    rings = [Ring.create(f"{name}-{way}", 64, {"message": MESSAGE}, ["reader"], first_position=1) for way in ("out", "back")]
    try:
        (into, _), (_, to) = ends(rings[1], rings[1]), ends(rings[0], rings[0])
        ticks = np.zeros(10, np.int64)
        until = lib.tp_rdtsc() + 1_000_000
        assert ping_until(to, into, 1, ticks, until) == 0
        assert lib.tp_rdtsc() > until and ticks[0] > 0 and not ticks[1:].any()
        assert pong_until(to, into, 1, 10, until) == 0
        assert await_until(into, until) == -1
    finally:
        for ring in rings:
            ring.unlink()


def test_figures() -> None:
    runs = [Run(np.array([10, 20, 30]), whole=True), Run(np.array([1000]), whole=False)]
    found = figures(runs, 1e9)
    assert (found["round_trips"], found["runs"], found["runs_cut_short"], found["max_ns"]) == (4, 2, 1, 1000)
    assert found["p50_ns"] == 25


def test_busy_processes_end_with_their_context() -> None:
    def own() -> set[int]:
        return {int(stat.parent.name) for stat in Path("/proc").glob("[0-9]*/stat") if parent_of(stat) == os.getpid()}

    before = own()
    with pytest.raises(KeyError), busy(2):
        assert len(own() - before) == 2
        raise KeyError
    assert own() == before
    assert WARM_UP > 0


def parent_of(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except OSError:
        return 0


@needs_two
def test_the_benchmark_gives_every_figure() -> None:
    if os.geteuid() != 0:
        pytest.skip("SCHED_FIFO and mlockall need root here")
    options = ["--turns", "1", "--rounds", "200", "--load", "1", "--json", "-"]
    done = subprocess.run([sys.executable, "perf/bench_tuned_ring.py", *options], cwd=ROOT, capture_output=True, text=True, timeout=120,
                          env={**os.environ, "PYTHONPATH": str(ROOT)})  # fmt: skip
    assert done.returncode == 0, done.stderr
    result = json.loads(done.stdout)
    assert [measured_["busy_processes"] for measured_ in result["measured"]] == [0, 1]
    for measured_ in result["measured"]:
        assert measured_["none"]["p999_ratio"] == 1
        assert all(measured_[kind]["p999_ns"] > 0 and measured_[kind]["runs"] == 1 for kind in ("none", "pinned", "tuned"))
    assert result["rt_runtime_us"] == Path("/proc/sys/kernel/sched_rt_runtime_us").read_text().strip()


# ------------------------------------------------------------------------------------------------ for real


def test_for_real() -> None:
    """On this machine, as root: two harmless settings applied, measured, put back."""
    watched = [Path("/proc/sys/vm/stat_interval"), Path("/proc/sys/vm/swappiness")]
    if os.geteuid() != 0 or not all(os.access(path, os.W_OK) for path in watched) or not shutil.which("bash"):
        pytest.skip("needs root and writable /proc/sys/vm")
    if Path("/var/lib/tickpath/tuning.journal").exists() or Path("/run/tickpath-tuning.lock").exists():
        pytest.skip("this machine is tuned already; its journal is not a test's to touch")
    before = [path.read_text() for path in watched]
    options = ["--only", "stat-interval,swappiness", "--seconds", "0.2", "--json"]
    environment = {**os.environ, "TICKPATH_PYTHON": sys.executable}
    try:
        done = subprocess.run([TUNING / "tune", "prove", *options], capture_output=True, text=True, timeout=240, env=environment)
        assert done.returncode == 0, done.stderr
        result: dict[str, Any] = json.loads(done.stdout)
        assert result["not_back"] == [] and len(result["figures"]) >= 5
        assert all(row["says"] != "not measured" for row in result["figures"])
        assert [path.read_text() for path in watched] == before
        assert not Path("/var/lib/tickpath/tuning.journal").exists()
    finally:
        for path, text in zip(watched, before, strict=True):
            if path.read_text() != text:
                path.write_text(text)
