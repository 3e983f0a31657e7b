"""The feed handler behind a network that fails in every way there is, by seed: never wrong and called valid, right again in the end,
and every loss counted (fault_judge.py says what exactly).

A seed that fails is printed with the command that replays it. TICKPATH_PROOF=long tries thousands; TICKPATH_SEED=n begins elsewhere.
"""

import itertools
import os
from collections import Counter
from collections.abc import Callable

import numpy as np
import pytest
from numba import config

from engine.layout import BOOK_VALID, MSG_QUOTE, MSG_TRADE, QUOTE, TRADE
from tests.fault_feed import FeedUnderTest
from tests.fault_judge import Verdict, judged
from tests.fault_plan import EXCHANGE_SEEDS, FOR_EVER, LineFaults, drawn
from tests.fault_run import Run, replay_command, verdict_of

LONG = os.environ.get("TICKPATH_PROOF") == "long"
FIRST_SEED = int(os.environ.get("TICKPATH_SEED", "0"))
SCRIPTED = 20_000 if LONG else 300
EXCHANGED = 2_000 if LONG else 30
FAILURES_SHOWN = 5

compiled = pytest.mark.skipif(bool(config.DISABLE_JIT), reason="kernels are plain Python here: hundreds of seeds would take an hour")

# What the seeds of a test run must have met, so that they prove something.
MET = (
    "duplicates", "gaps", "lost", "malformed", "foreign", "waited", "window_drops", "requests", "request_failures", "recovered",
    "snapshots", "snapshot_failures", "covered", "session_changes", "ends_of_session", "heartbeats", "ring_waits",
    "invalidated", "suspects",
)  # fmt: skip


def verdicts(first: int, count: int) -> list[Verdict]:
    """The verdicts of seeds, none of which may have a problem."""
    found, failed = [], []
    for seed in range(first, first + count):
        verdict = verdict_of(seed)
        found.append(verdict)
        if verdict.problems:
            failed.append(f"{verdict}\n  replay: {replay_command(seed)}")
            if len(failed) == FAILURES_SHOWN:
                break
    assert not failed, f"{len(failed)} of {len(found)} seeds from {first} on:\n" + "\n".join(failed)
    return found


def counted(found: list[Verdict]) -> Counter[str]:
    total: Counter[str] = Counter()
    for verdict in found:
        total.update(verdict.counted)
        total["proven"] += verdict.proven
    return total


@compiled
def test_whatever_the_network_does_no_wrong_book_is_valid_and_every_loss_is_counted() -> None:
    found = verdicts(FIRST_SEED, SCRIPTED)
    total = counted(found)
    print(f"seeds={len(found)} turns={sum(verdict.turns for verdict in found)} {dict(total)}")
    assert [name for name in MET if not total[name]] == [], "the seeds do not try these any more"
    assert 0.3 < total["proven"] / len(found) < 0.98


# Seeds that once found what only one in thousands finds: a cut packet that came late on its line.
RARE = (21_002,)


@pytest.mark.parametrize("seed", RARE)
def test_what_only_a_rare_seed_finds(seed: int) -> None:
    verdicts(seed, 1)


@compiled
def test_the_exchange_its_two_lines_and_its_servers_behind_the_same_network() -> None:
    found = verdicts(EXCHANGE_SEEDS + FIRST_SEED, EXCHANGED)
    total = counted(found)
    print(f"seeds={len(found)} turns={sum(verdict.turns for verdict in found)} {dict(total)}")
    assert total["recovered"] and total["snapshots"] and total["lost"]


# The judge is no good if it cannot say no: a run in which all is well, and then one thing is not.


@pytest.fixture
def good_run() -> Run:
    plan = drawn(FIRST_SEED)
    plan.lines = [LineFaults(), LineFaults(loss=0.2)]
    plan.rewind, plan.snapshot, plan.later, plan.session, plan.ring_capacity = [], [], False, 4, 4096
    run = Run(plan)
    run.play()
    assert judged(run).problems == []
    return run


def wrong_board(feed: FeedUnderTest) -> None:
    for seen in feed.seen[len(feed.seen) // 2 :]:
        board = seen.board.copy()
        valid = np.flatnonzero(board["flags"][1:] == BOOK_VALID) + 1
        if len(valid):
            board["bid_sz"][valid[0]] += 1
            seen.lines = board.tobytes()
            return


def late_board(feed: FeedUnderTest) -> None:
    """A board that still says what was true a message ago."""
    for before, last in reversed(list(itertools.pairwise(feed.seen))):
        if before.lines != last.lines and (before.board["flags"][1:] == BOOK_VALID).all():
            last.lines = before.lines
            return
    raise AssertionError("no board changed while all was valid")


def wrong_quote(feed: FeedUnderTest) -> None:
    change(feed, MSG_QUOTE, QUOTE, "ask_px")


def wrong_trade(feed: FeedUnderTest) -> None:
    change(feed, MSG_TRADE, TRADE, "match_id")


def change(feed: FeedUnderTest, kind: int, dtype: np.dtype, name: str) -> None:
    for slots in reversed(feed.ticks):
        found = np.flatnonzero(slots.view(dtype)[:, 0]["kind"] == kind)
        if len(found):
            slots.view(dtype)[:, 0][name][found[-1]] += 1
            return


def trade_twice(feed: FeedUnderTest) -> None:
    traded = [slots[slots.view(TRADE)[:, 0]["kind"] == MSG_TRADE] for slots in feed.ticks]
    feed.ticks.append(np.concatenate(traded)[:1])


def quote_missing(feed: FeedUnderTest) -> None:
    feed.ticks = [slots[: -1 if number == 5 else None] for number, slots in enumerate(feed.ticks)]


def order_missing(feed: FeedUnderTest) -> None:
    whole = feed.resting()
    feed.resting = lambda: whole[1:]  # type: ignore[method-assign]


def loss_not_counted(feed: FeedUnderTest) -> None:
    feed.stats["messages"] -= 1


def line_loss_not_counted(feed: FeedUnderTest) -> None:
    feed.tables["lines"].records[1]["lost"] -= 1


def line_message_twice(feed: FeedUnderTest) -> None:
    feed.tables["lines"].records[0]["messages"] += 1


WRONGS = (
    wrong_board, late_board, wrong_quote, wrong_trade, trade_twice, quote_missing, order_missing, loss_not_counted, line_loss_not_counted,
    line_message_twice,
)  # fmt: skip


@pytest.mark.parametrize("wrong", WRONGS)
def test_the_judge_sees(good_run: Run, wrong: Callable[[FeedUnderTest], None]) -> None:
    try:
        wrong(good_run.feed)
        assert judged(good_run).problems
    finally:
        good_run.close()


def test_the_judge_sees_a_feed_handler_that_never_finds_its_feet(good_run: Run) -> None:
    plan = drawn(FIRST_SEED)
    plan.lines, plan.rewind, plan.snapshot, plan.later = [LineFaults(dead=[(0, FOR_EVER)]), LineFaults(loss=0.9)], [], [], False
    good_run.close()
    run = Run(plan)
    try:
        run.play()
        assert not run.is_proven()
        run.has_hope = lambda: True  # type: ignore[method-assign]
        assert any("not proven" in problem for problem in judged(run).problems)
    finally:
        run.close()
