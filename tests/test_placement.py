"""Cores are given out so that whoever spins has one alone, and whoever cannot is told so."""

from engine.layout import IDLE_SLEEP, IDLE_SPIN, IDLE_YIELD
from engine.runtime.config import ProcessConfig
from engine.runtime.placement import place

THREE = [ProcessConfig(name=name, stages=[stage]) for name, stage in (("feed", "feed"), ("strat", "strategy"), ("gate", "gateway"))]


def test_with_cores_enough_each_spins_alone_and_the_first_cpu_stays_free() -> None:
    places, notes = place(THREE, usable=[0, 1, 2, 3])
    assert [(where.cpu, where.idle, where.shared_with) for where in places] == [(1, IDLE_SPIN, ()), (2, IDLE_SPIN, ()), (3, IDLE_SPIN, ())]
    assert notes == []


def test_on_two_cores_three_processes_share_and_yield_and_it_is_said() -> None:
    places, notes = place(THREE, usable=[0, 1])
    assert [(where.cpu, where.idle) for where in places] == [(0, IDLE_YIELD), (1, IDLE_SPIN), (0, IDLE_YIELD)]
    assert places[0].shared_with == ("gate",)
    assert "3 processes on 2 CPUs" in notes[0]


def test_two_processes_on_two_cores_spin() -> None:
    pair = [ProcessConfig(name="market", stages=["feed", "gateway"]), ProcessConfig(name="strat", stages=["strategy"])]
    places, notes = place(pair, usable=[0, 1])
    assert [(where.cpu, where.idle) for where in places] == [(0, IDLE_SPIN), (1, IDLE_SPIN)]
    assert notes == []


def test_spinning_on_a_shared_core_is_refused_with_a_word() -> None:
    greedy = [
        ProcessConfig(name="a", stages=["feed"], cpu=1, idle="spin"),
        ProcessConfig(name="b", stages=["strategy"], cpu=1, idle="sleep"),
    ]
    places, notes = place(greedy, usable=[0, 1])
    assert [where.idle for where in places] == [IDLE_YIELD, IDLE_SLEEP]
    assert notes == ["a: idle=spin asked for, but CPU 1 is shared with b: it yields"]


def test_automatic_processes_keep_off_the_cpus_that_others_name() -> None:
    mixed = [
        ProcessConfig(name="a", stages=["feed"], cpu=1),
        ProcessConfig(name="b", stages=["strategy"]),
        ProcessConfig(name="c", stages=["gateway"]),
    ]
    places, _ = place(mixed, usable=[0, 1, 2, 3])
    assert [where.cpu for where in places] == [1, 2, 3]


def test_isolated_cpus_come_first_if_there_is_one_for_each() -> None:
    places, _ = place(THREE, usable=range(8), quiet={4, 5, 6, 7})
    assert [where.cpu for where in places] == [4, 5, 6]


def test_too_few_isolated_cpus_are_cpus_like_others() -> None:
    places, _ = place(THREE, usable=range(4), quiet={3})
    assert [where.cpu for where in places] == [1, 2, 3]


def test_the_priority_asked_for_goes_with_the_place() -> None:
    places, _ = place([ProcessConfig(name="a", stages=["feed"], cpu=1, fifo=12)], usable=[0, 1])
    assert places[0].fifo == 12
