"""The ring's benchmark: it runs, checks what it moves, and tells where."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from perf.machine import distance

ROOT = Path(__file__).parents[1]
SHORT = ["--quick"]


def bench(*arguments: str, before: Callable[[], None] | None = None) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "perf/bench_ring.py", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, preexec_fn=before)


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="a hop needs two CPUs")
def test_a_short_run_gives_every_figure() -> None:
    finished = bench("--json", "-", *SHORT)
    assert finished.returncode == 0, finished.stderr
    result = json.loads(finished.stdout)
    for key in (
        "rtt_ns", "limit_rtt_ns", "rtt_ratio", "line_rtt_ns", "lines_rtt_ns", "lines_rtt_ratio", "observed_rtt_ns", "observed_rtt_ratio",
        "throughput_mps", "limit_throughput_mps", "throughput_ratio", "python_rtt_ns", "python_batch_mps",
    ):  # fmt: skip
        assert result[key] > 0, key
    assert 0 < result["p50_ns"] <= result["p99_ns"] <= result["p999_ns"] <= result["max_ns"]
    assert result["round_trips"] == 3 * 200
    assert result["message_bytes"] == 64
    assert result["capacity"] in [row["capacity"] for row in result["by_capacity"]]
    assert all(row["rtt_ns"] > 0 and row["throughput_mps"] > 0 for row in result["by_capacity"])
    assert [row["record_bytes"] for row in result["records"]] == [128, 192, 256]
    assert all(row["rtt_ns"] > 0 and row["throughput_mps"] > 0 for row in result["records"])
    assert set(result["costs"]) == {"full_claim_ns", "absent_readers_ns", "restart_ms", "join_ms", "evict_ms"}
    assert set(result["peers"]) == {"boost", "iceoryx2"}
    assert all("absent" in peer or peer["ratio"] > 0 for peer in result["peers"].values())
    assert result["machine"]["pair"] == sorted(os.sched_getaffinity(0))[:2]
    assert result["machine"]["cpu"]


def test_one_cpu_is_said_to_be_too_few() -> None:
    one = {min(os.sched_getaffinity(0))}
    finished = bench(*SHORT, before=lambda: os.sched_setaffinity(0, one))
    assert finished.returncode == 2
    assert f"cpus={sorted(one)}: a hop needs two CPUs" in finished.stderr


@pytest.mark.parametrize("arguments", [["--cpus", "0,0"], ["--cpus", "0,9999"], ["--cpus", "x"], ["--messages", "1000"]])
def test_unusable_arguments_are_refused(arguments: list[str]) -> None:
    finished = bench(*arguments)
    assert finished.returncode == 2
    assert "expected" in finished.stderr or "a hop needs two CPUs" in finished.stderr


@pytest.fixture
def topology(tmp_path: Path) -> Path:
    """Two packages of four CPUs: CPUs 0 and 1 are one core, 0 to 1 share an L2, 0 to 2 an L3."""
    shared = {0: ("0-1", "0-1", "0-2", "0-3"), 4: ("4", "4", "4-7", "4-7")}
    for cpu, (siblings, second, third, package) in shared.items():
        files = {
            "topology/thread_siblings_list": siblings,
            "topology/package_cpus_list": package,
            "cache/index0/level": "1",
            "cache/index0/shared_cpu_list": siblings,
            "cache/index2/level": "2",
            "cache/index2/shared_cpu_list": second,
            "cache/index3/level": "3",
            "cache/index3/shared_cpu_list": third,
        }
        for name, text in files.items():
            path = tmp_path / f"cpu{cpu}" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{text}\n")
    return tmp_path


@pytest.mark.parametrize(
    ("cpu", "other", "label"),
    [
        (0, 0, "same CPU"),
        (0, 1, "same core (siblings)"),
        (0, 2, "same L3"),
        (0, 3, "across L3, same package"),
        (0, 4, "across packages"),
        (4, 5, "same L3"),
        (9, 4, "unknown"),
    ],
)
def test_how_far_two_cpus_are_apart(topology: Path, cpu: int, other: int, label: str) -> None:
    assert distance(cpu, other, topology) == label
