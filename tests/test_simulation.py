"""Exchange, feed handler, strategy, gate and gateway in one process, on a simulated clock and a network that fails by seed: whatever goes
wrong, no limit is exceeded, nothing is sent twice or while killed, and in the end what we believe is what the venue has.

A seed that fails is printed with the command that replays it. TICKPATH_PROOF=long tries thousands; TICKPATH_SEED=n begins elsewhere.
"""

import os
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from hashlib import blake2b
from typing import Any

import pytest
from numba import config

from engine.exchange.hot.state import KEEPS_ORDERS, SELF_TRADE, TRADES
from engine.exchange.hours import Hours
from engine.exchange.menu import FAULT_NAMES, Latency
from engine.exchange.stage import Account
from engine.gateway.hot.state import FD
from engine.layout import INSTRUMENTS_MAX
from engine.risk.hot import reasons as risk
from engine.risk.limits import Limits
from tests.sim_mutants import MUTANTS
from tests.sim_network import Pipe
from tests.sim_plan import MS, US, USUAL, LinkFaults, drawn_plain
from tests.sim_run import Run, Verdict, replay_command, verdict_of
from tests.sim_venue import Rules

PLAIN = bool(config.DISABLE_JIT)
LONG = os.environ.get("TICKPATH_PROOF") == "long"
FIRST_SEED = int(os.environ.get("TICKPATH_SEED", "0"))
SEEDS = 5_000 if LONG else 2 if PLAIN else 60
FAILURES_SHOWN = 5

# What the seeds of a test run must have met, so that they prove something: by what is drawn for them.
MET = {
    "orders": ("enter order", "replace order", "cancel order", "accepted", "replaced", "cancelled", "executed", "rejected"),
    "latency": ("orders held back", "reports held back"),
    "faults": (*(f"fault {name}" for name in FAULT_NAMES), "told again", "cut within a packet"),
    "hours": ("market action H", "market action Q", "market action T", "cross O", "cross C", "accounts in a cross"),
    "accounts": ("rivals let in", "takeovers", "made for a rival", "took from a rival"),
    "rules": ("self-trades prevented", "shared price", "kept over a loss"),
    "our own ends": ("adopted", "waited"),
    "refusals": tuple(
        f"reason {number}"
        for number in (
            risk.REASON_KILLED, risk.REASON_KILLED_SCOPE, risk.REASON_NO_SESSION, risk.REASON_BOOK_HALTED, risk.REASON_QUEUE_FULL,
            risk.REASON_POSITION, risk.REASON_REDUCING, risk.REASON_RATE, risk.REASON_SELF_TRADE, risk.REASON_COLLAR,
            risk.REASON_HALTED_BY_RISK, risk.REASON_RESTRICTED, risk.REASON_WITHDRAWN,
        )
    ),
}  # fmt: skip


def verdicts(first: int, count: int, *, plain: bool = False) -> list[Verdict]:
    """The verdicts of seeds, none of which may have a problem."""
    found, failed = [], []
    for seed in range(first, first + count):
        verdict = verdict_of(seed, plain=plain)
        found.append(verdict)
        if verdict.problems:
            failed.append(f"{verdict}\n  replay: {replay_command(seed, plain=plain)}")
            if len(failed) == FAILURES_SHOWN:
                break
    assert not failed, f"{len(failed)} of {len(found)} seeds from {first} on:\n" + "\n".join(failed)
    return found


def test_whatever_goes_wrong_no_limit_breaks_nothing_is_sent_twice_or_while_killed_and_all_is_even_in_the_end() -> None:
    found = verdicts(FIRST_SEED, SEEDS)
    total: Counter[str] = Counter()
    for verdict in found:
        total.update(verdict.counted)
    turns, events = sum(verdict.turns for verdict in found), sum(verdict.events for verdict in found)
    every = blake2b("".join(verdict.digest for verdict in found).encode(), digest_size=16).hexdigest()
    print(f"seeds={FIRST_SEED} to {FIRST_SEED + SEEDS - 1} turns={turns} events={events} all={every}\n{dict(sorted(total.items()))}")
    missing = {kind: [name for name in names if not total[name]] for kind, names in MET.items()}
    assert PLAIN or not any(missing.values()), f"the seeds do not try these any more: {missing}"


# Seeds that once found what only one in some dozens finds: an answer to an earlier query that ended a reconciliation, a position taken
# over from an earlier life that counted in no total.
RARE = (66, 125)


@pytest.mark.parametrize("seed", RARE)
def test_what_only_a_rare_seed_finds(seed: int) -> None:
    verdicts(seed, 1, plain=True)


@pytest.mark.parametrize("seed", [FIRST_SEED + 1, FIRST_SEED + 8])
def test_one_seed_is_one_run_here_and_in_another_process(seed: int) -> None:
    first = verdict_of(seed)
    assert verdict_of(seed).digest == first.digest
    assert verdict_of(seed + 100).digest != first.digest
    command = [sys.executable, "-m", "tests.sim_run", str(seed)]
    other = subprocess.run(command, capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"PYTHONHASHSEED": "7"})
    assert first.digest in other.stdout, other.stdout + other.stderr


def test_an_order_that_the_socket_held_back_does_not_leave_after_a_kill() -> None:
    """The network takes nothing from turn 60 to 100; the kill comes at 80, with orders ready that have not left."""
    plan = drawn_plain(GOOD_SEED)
    plan.trader, plan.turns, plan.activity, plan.weird, plan.pace_per_s, plan.turn_ns = "random", 120, 3.0, 0.0, 0, (200 * US, 2 * MS)
    plan.links = [LinkFaults(stalls=[(60, 40)], buffer_bytes=2_304) for _ in range(4)]
    plan.refusals, plan.pauses, plan.states, plan.changes, plan.deaths, plan.scopes = [], [], [], [], [], []
    plan.kills, plan.limits = [(80, True)], dict(USUAL)
    plan.orders_capacity, plan.reports_capacity, plan.orders_max = 256, 1_024, 1_024
    run = Run(plan)
    try:
        run.play()
    finally:
        run.close()
    assert run.judge.problems == []
    assert run.judge.counts["taken back"] > 0


CROSSING_SEEDS = (13, 15, 17)


def test_what_we_have_resting_trades_in_the_closing_cross() -> None:
    """Others come to the cross with much on one side, and so it reaches our orders on the other."""
    rules = Rules(hours=Hours(close_auction_s=0.1, imbalance_s=0.0), rivals=(Account("BETA", "TWO"), Account("GAMMA", "THREE")))
    traded = 0
    for seed in CROSSING_SEEDS:
        run = good_run(rules, seed)
        run.plan.turn_ns, run.plan.activity = (200 * US, 2 * MS), 3.0
        try:
            run.play()
        finally:
            run.close()
        assert run.judge.problems == []
        traded += run.judge.counts["ours in a cross"]
    assert traded > 0


# The judge is no good if it cannot say no: a run in which all is well, and then one thing is not.

Spoil = Callable[[Run], Any]
GOOD_SEED = 7


def good_run(rules: Rules | None = None, seed: int = GOOD_SEED) -> Run:
    """A run with a calm network and usual limits."""
    plan = drawn_plain(FIRST_SEED + seed)
    plan.rules = rules or Rules()
    plan.trader, plan.turns, plan.activity, plan.weird = "random", 200, 1.0, 0.0
    plan.links, plan.refusals, plan.pauses, plan.kills, plan.changes, plan.states, plan.deaths = [], [], [], [], [], [], []
    plan.limits |= {"position_max": 100_000, "message_rate_per_s": 100_000, "message_burst": 10_000}
    return Run(plan)


HOUSE = Rules(
    self_trade="cancel_newest",
    firm="HOUSE",
    rivals=(Account("BETA", "TWO", self_trade="cancel_newest", firm="HOUSE"),),
    latency=Latency(orders_ns=(300 * US,), seed=1),
)


@pytest.mark.parametrize("rules", [Rules(), HOUSE])
def test_the_run_that_is_spoiled_is_a_good_one(rules: Rules) -> None:
    run = good_run(rules)
    try:
        run.play()
    finally:
        run.close()
    assert run.judge.problems == []


def say_again(run: Run) -> None:
    """The bytes of an order leave once more."""
    gateway = run.world.life.gateway.state
    raw = gateway.wire[:50].tobytes()
    os.write(int(gateway.session[FD]), raw)


def forget_the_kill(run: Run) -> None:
    """The gateway does not see that it is killed; people, and the judge, do."""
    step = run.world.step

    def blind(actor: str, turn: int, *, quoting: bool) -> None:
        run.world.control["kill"] = 0
        step(actor, turn, quoting=quoting)
        run.world.control["kill"] = 1

    run.world.step = blind  # type: ignore[method-assign]


def loosen(**limits: Any) -> Spoil:
    """The gate judges by other limits than those in force."""

    def spoil(run: Run) -> None:
        run.world.limits = Limits(**run.world.given | limits)

    return spoil


def lose_a_message(run: Run) -> None:
    """What the venue said is lost on the way, and the connection goes on."""
    # The first connection was only asked how far the day had come.
    pipe: Pipe = run.world.network.links[-1].down
    read = pipe.read

    def deaf(now_ns: int) -> bytes:
        taken = read(now_ns)
        if len(taken) > 40 and taken[0] == 0 and taken[2] == ord("S") and not pipe.faults.cut:
            pipe.faults.cut = ("nowhere", 0, "")
            pipe.waiting.pop()
        return taken

    pipe.read = deaf  # type: ignore[method-assign]


def miscount(run: Run) -> None:
    run.world.life.positions.records[1].cash += 1


def forget_open(run: Run) -> None:
    run.world.life.positions.records[1].open_buy -= 500


def tell_again(run: Run) -> None:
    """The strategy is told of an execution that there was, again."""
    judge = run.judge
    execution = next(report for report in reversed(judge.reports) if report["kind"] == 35)
    judge.judge_report(execution)


def ask_otherwise(run: Run) -> None:
    """What leaves is not what was asked for."""
    find = run.judge.find_asked

    def wrong(ref: int) -> dict[str, int] | None:
        order = find(ref)
        return order and order | {"px": order["px"] + 100}

    run.judge.find_asked = wrong  # type: ignore[method-assign]


def print_nothing(run: Run) -> None:
    """The market is not told of what trades."""
    run.world.market.heard = None


def tell_another(run: Run) -> None:
    """Another account was told something else than its log has."""
    heard = run.world.rivals[0].heard
    heard[-1] = heard[-1][::-1]


def miscount_another(run: Run) -> None:
    run.world.exchange_positions.records[INSTRUMENTS_MAX + 1]["cash"] += 1


def hurry(run: Run) -> None:
    """The venue does at once what it was to hold back."""
    run.world.exchange.state.conduct.orders_ns[:] = 0


def trade_with_ourselves(run: Run) -> None:
    """The venue forgets what its accounts ask for where they meet themselves."""
    run.world.exchange.state.venue.clients.words[:, SELF_TRADE] = TRADES


def share_prices(run: Run) -> None:
    """The venue shares prices that are to go to the first."""
    run.world.exchange.state.venue.listing.minimums[1:3] = 1


def keep_orders(run: Run) -> None:
    """The venue keeps the orders of who left, and we leave."""
    run.world.exchange.state.venue.clients.words[:, KEEPS_ORDERS] = 1
    run.world.network.links[-1].end(run.note, "spoiled")


def mark_otherwise(run: Run) -> None:
    """What we hold is valued at what nothing was quoted at."""
    step = run.world.step

    def wrong(actor: str, turn: int, *, quoting: bool) -> None:
        step(actor, turn, quoting=quoting)
        if actor == "gateway":
            run.world.life.gateway.state.risk.lines[0].mark += 50

    run.world.step = wrong  # type: ignore[method-assign]


# These need others at the venue.
IN_COMPANY = (tell_another, miscount_another, hurry, trade_with_ourselves)


@pytest.mark.skipif(PLAIN, reason="kernels are plain Python here: each takes half a minute")
@pytest.mark.parametrize(
    ("spoil", "what"),
    [
        (say_again, "user_ref="),
        (forget_the_kill, "killed, and yet sent"),
        (loosen(position_max=200), "position_max=200, but it may lead to"),
        (loosen(gross_exposure_max=30_000.0), "gross_exposure_max=30000.0, but it may lead to"),
        (loosen(net_exposure_max=20_000.0), "net_exposure_max=20000.0, but it may lead to"),
        (loosen(credit_max=20_000.0), "credit_max=20000.0 less what is lost, but it may lead to"),
        (loosen(notional_window_max=30_000.0), "notional_window_max=30000.0, and"),
        (loosen(notional_session_max=30_000.0), "notional_session_max=30000.0, and"),
        (loosen(order_to_trade_max=1, order_to_trade_free=1), "order_to_trade_max=1:"),
        (loosen(order_qty_min=150), "order_qty_min=150"),
        (loosen(message_rate_per_s=10, message_burst=1), "message_rate_per_s=10"),
        (lose_a_message, "board says"),
        (miscount, "ours board says"),
        (forget_open, "but the gateway counts for"),
        (tell_again, "told twice"),
        (ask_otherwise, "asked for {"),
        (print_nothing, "was published as []"),
        (tell_another, "account 1 was told something else"),
        (miscount_another, "account 1, instrument 1: the venue's board says"),
        (hurry, "too early"),
        (trade_with_ourselves, "is of one owner"),
        (share_prices, "which was there first"),
        (keep_orders, "the orders of before rest still"),
        (mark_otherwise, "which no quote was the middle of"),
    ],
)
def test_the_judge_says_no(spoil: Spoil, what: str) -> None:
    run = good_run(HOUSE if spoil in IN_COMPANY else None)
    try:
        for _ in range(100):
            run.command()
            run.take_turn(run.chance.randint(*run.plan.turn_ns))
        assert run.judge.problems == []
        spoil(run)
        for _ in range(60):
            run.take_turn(run.chance.randint(*run.plan.turn_ns))
        run.settle()
        run.judge.judge_end(drained=False)
    finally:
        run.close()
    assert [problem for problem in run.judge.problems if what in problem], run.judge.problems


@pytest.mark.skipif(not LONG, reason="TICKPATH_PROOF=long runs it: each takes some seconds, in plain Python")
@pytest.mark.parametrize("name", [*MUTANTS, *(f"{name}@good" for name in MUTANTS)])
def test_an_engine_that_is_broken_in_one_place_is_caught(name: str) -> None:
    command = [sys.executable, "-m", "tests.sim_mutants", name]
    played = subprocess.run(
        command, capture_output=True, text=True, timeout=600, check=False, env=os.environ | {"NUMBA_DISABLE_JIT": "1"}
    )  # fmt: skip
    assert played.returncode == 0, played.stdout + played.stderr
