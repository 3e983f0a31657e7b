"""perf/bench_order_path.py leaves no shared memory behind where it ends with an error, whenever that comes."""

from typing import Any, NoReturn

import pytest

from engine.runtime.clock import calibrate
from perf import bench_order_path
from perf.bench_order_path import OrderPath, PacketPath, measure_packets
from perf.bench_risk import Gate
from shm.segment import SHM


@pytest.fixture
def failing(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Makes something of the benchmark fail. No strategy is forked and no C program compiled."""
    monkeypatch.setattr(PacketPath, "_start_strategy", lambda self, run, cpu: None)
    monkeypatch.setattr(bench_order_path, "CPath", lambda folder: None)

    def fail(owner: Any, name: str) -> None:
        def never(*arguments: Any, **options: Any) -> NoReturn:
            raise SystemExit(f"{name} failed")

        monkeypatch.setattr(owner, name, never)

    return fail


def left_behind() -> list[str]:
    return sorted(path.name for path in SHM.iterdir() if path.name.startswith("bench-"))


def test_a_path_of_packets_that_cannot_be_built_leaves_nothing(failing: Any) -> None:
    failing(bench_order_path, "build_feed")
    before = left_behind()
    with pytest.raises(SystemExit, match="build_feed failed"):
        PacketPath(calibrate(), 10, 0)
    assert left_behind() == before


def test_a_measurement_of_packets_that_fails_leaves_nothing(failing: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(PacketPath, "open", lambda self: None)
    failing(PacketPath, "run")
    before = left_behind()
    with pytest.raises(SystemExit, match="run failed"):
        measure_packets(1, calibrate(), 0, 1.0)
    assert left_behind() == before


def test_a_path_of_orders_that_cannot_be_built_leaves_nothing(failing: Any) -> None:
    failing(bench_order_path, "GatewayStage")
    before = left_behind()
    with pytest.raises(SystemExit, match="GatewayStage failed"):
        OrderPath(Gate(bench_order_path.ON, bench_order_path.SIZED))
    assert left_behind() == before
