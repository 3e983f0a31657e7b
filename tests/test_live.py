"""The simulation's promises with real processes: killed, stopped and disconnected by seed, and compared with the venue's own account.

A seed says what is done, not when the scheduler lets it happen, so a seed that failed may have to be run more than once. It is printed
with what replays it. TICKPATH_PROOF=long plays many more, and longer days.
"""

import os
from pathlib import Path

import pytest
from numba import config

from tests.live_plan import CUT, DIE, END, KILL, LOOK, SILENCE, STOP, TRADE, LivePlan, drawn
from tests.live_run import play

LONG = os.environ.get("TICKPATH_PROOF") == "long"
FIRST_SEED = int(os.environ.get("TICKPATH_SEED", "1"))
LONG_SEEDS = 30
# Holds every kind of step, a gateway that is killed at a venue that keeps its orders, a tight limit, and a cut within the first login.
SEED = 236

pytestmark = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="real processes at a real pace: kernels are compiled")


def assert_all_true(plan: LivePlan, folder: Path, replay: str) -> None:
    venue = play(plan, folder)
    said = f"{plan}\nreplay: python -m tests.live_run {replay}"
    assert venue.judge.problems == [], "\n".join([said, *venue.judge.problems])
    for what in ("enter order", "cancel order", "replace order"):
        assert venue.judge.counts[what] > 0, f"never seen: {what}\n{said}"
    assert venue.judge.truly_executed(), f"nothing was executed\n{said}"


@pytest.mark.statement(6)
@pytest.mark.statement(10)
def test_a_day_of_processes_killed_stopped_and_disconnected_keeps_every_promise(tmp_path: Path) -> None:
    plan = drawn(SEED)
    assert {step.do for life in plan.lives for step in life} == {TRADE, CUT, SILENCE, STOP, KILL, LOOK, DIE, END}
    assert (plan.lives[0][-1].who, plan.keeps_orders, plan.links[0].cut is not None) == ("order_gateway", True, True)
    assert_all_true(plan, tmp_path, str(SEED))


@pytest.mark.skipif(not LONG, reason="TICKPATH_PROOF=long plays it")
@pytest.mark.parametrize("seed", range(FIRST_SEED, FIRST_SEED + LONG_SEEDS))
def test_longer_days_keep_every_promise(tmp_path: Path, seed: int) -> None:
    assert_all_true(drawn(seed, lives=3, steps=5), tmp_path, f"{seed} --lives 3 --steps 5")
