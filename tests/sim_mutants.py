"""The engine broken on purpose, one thing at a time: a judge that sees none of it is none.

python -m tests.sim_mutants NAME        plays the mutant's seeds until its judge complains; NAME@good: the same runs, unbroken

Kernels are replaced by other functions, so it has to be plain Python: NUMBA_DISABLE_JIT=1. A mutant and its runs take some seconds.
"""

import importlib
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from engine.exchange.hot.state import KEEPS_ORDERS
from engine.exchange.menu import Faults
from engine.gateway.hot.orders import is_open
from engine.gateway.hot.state import ACKNOWLEDGED
from engine.gateway.ouch.hot.encode import OUTBOX_AT
from engine.gateway.ouch.v50 import AIQ_CANCELED, ENTER_ORDER, LIQUIDITY_REMOVED
from engine.layout import BUY
from engine.risk.hot.reasons import PASSED, REASON_POSITION
from engine.risk.hot.state import KILL, POSITION_MAX
from engine.wire.soupbintcp import PAYLOAD_AT
from tests.sim_plan import MS, US, USUAL, LinkFaults, Plan, drawn_plain
from tests.sim_run import Run
from tests.sim_venue import Rules

Kernel = Callable[..., Any]
Change = tuple[str, str, Callable[[Kernel], Kernel]]

TAKE, VENUE, GATE = "engine.gateway.hot.take", "engine.gateway.ouch.hot.venue", "engine.risk.hot.gate"
LIFE, STEP, SESSION = "engine.gateway.ouch.hot.life", "engine.gateway.hot.step", "engine.gateway.ouch.hot.session"
SEEDS = 5
# Control words are few; the gate reads others of the same number elsewhere.
CONTROL_WORDS_MAX = 400


@dataclass
class Mutant:
    """What is broken, what a plan needs to show it, and what the judge says of it."""

    changes: tuple[Change, ...]
    says: str
    limits: dict[str, Any] = field(default_factory=dict)
    plan: dict[str, Any] = field(default_factory=dict)
    rules: dict[str, Any] = field(default_factory=dict)


def kernel(module: str, name: str) -> Kernel:
    """One that only kernels call: as plain Python it can be called like any other."""
    found: Kernel = getattr(importlib.import_module(module), name)
    return found


def passes(_: Kernel) -> Kernel:
    return lambda *_: PASSED


def always(_: Kernel) -> Kernel:
    return lambda *_: True


def blind_to_the_kill(load: Kernel) -> Kernel:
    return lambda words, at: 0 if at == KILL and len(words) < CONTROL_WORDS_MAX else load(words, at)


def only_position(_: Kernel) -> Kernel:
    """Of all that is at stake the position alone is held to its limit."""

    def judge(risk: Any, place: int, instrument: int, side: int, increase_qty: int) -> int:
        held = risk.positions[instrument]
        counted = held.position + held.open_buy if side == BUY else held.open_sell - held.position
        return REASON_POSITION if increase_qty > 0 and counted + increase_qty > risk.rules[POSITION_MAX] else PASSED

    return judge


def unknown_counts_for_nothing(mark: Kernel) -> Kernel:
    """What was not acknowledged when the session was lost is taken for gone."""

    def mark_unknown(gateway: Any, places: int) -> int:
        done = mark(gateway, places)
        for entry in gateway.table:
            if is_open(entry) and not int(entry.marks) & ACKNOWLEDGED and entry.open:
                kernel("engine.gateway.hot.orders", "change_open")(gateway, entry.instrument, entry.side, -int(entry.open))
        return int(done)

    return mark_unknown


def live_at_once(_: Kernel) -> Kernel:
    def reconcile(gateway: Any, clock: Any, tsc: int) -> int:
        kernel("engine.gateway.ouch.hot.reconcile", "go_live")(gateway)
        return 1

    return reconcile


def deaf_to_prevented(apply: Kernel) -> Kernel:
    return lambda gateway, clock, at, length: (
        0 if gateway.inbound[at] == AIQ_CANCELED.code else apply(gateway, clock, at, length)
    )  # fmt: skip


def always_new(_: Kernel) -> Kernel:
    return lambda executions, match, ref: int(np.flatnonzero(executions["state"] == 0)[0])


def a_share_less(book: Kernel) -> Kernel:
    return lambda risk, positions, instrument, side, qty, px, change: book(risk, positions, instrument, side, qty - 1, px, change)


def a_share_more(encode: Kernel) -> Kernel:
    return lambda wire, at, target, other, ref, qty, px, tif, strategy: encode(wire, at, target, other, ref, qty + 1, px, tif, strategy)


def twice(send: Kernel) -> Kernel:
    """One of the outboxes that begin with a new order leaves twice. (A cancel may: it asks for nothing new.)"""
    sent = []

    def send_again(session: Any, wire: Any, stats: Any, at: int, size: int, tsc: int) -> Any:
        done = send(session, wire, stats, at, size, tsc)
        if at == OUTBOX_AT and wire[at + PAYLOAD_AT] == ENTER_ORDER.code:
            sent.append(size)
            if len(sent) == 5:
                send(session, wire, stats, at, size, tsc)
        return done

    return send_again


def dearer_for_who_comes(report: Kernel) -> Kernel:
    def tell(*said: Any) -> Any:
        *rest, px, liquidity, match = said
        return report(*rest, px + 100 if liquidity == LIQUIDITY_REMOVED else px, liquidity, match)

    return tell


def keeps_all_orders(clear: Kernel) -> Kernel:
    def forgive(clients: Any, words: Any) -> Any:
        clients.words[:, KEEPS_ORDERS] = 1
        return clear(clients, words)

    return forgive


LOST: dict[str, Any] = {"links": [LinkFaults(), LinkFaults(delay_ns=(500 * US, 3 * MS), cut=("down", 1_500, "closed"))]}

MUTANTS: dict[str, Mutant] = {
    "the gate judges no position": Mutant(((GATE, "judge_stake", passes),), "position_max=", {"position_max": 300}),
    "the gate judges no exposure": Mutant(((GATE, "judge_stake", only_position),), "gross_exposure_max=", {"gross_exposure_max": 60_000.0}),
    "the gate does not see the kill": Mutant(
        ((GATE, "load_acquire", blind_to_the_kill),), "killed, and yet sent", plan={"kills": [(40, True), (80, False)]}
    ),
    "the gate does not see what part is killed": Mutant(
        ((GATE, "covered", passes),), "its part is killed", plan={"scopes": [(30, True, {"strategy": 0})]}
    ),
    "the gate judges no price": Mutant(((GATE, "judge_collar", passes),), "collar_bps=", {"collar_bps": 2.0}),
    "the gate lets us meet ourselves": Mutant(
        ((GATE, "crosses_own", passes),), "it could trade with an order of ours", {"self_trade": "refuse"}
    ),
    "the gate counts no messages": Mutant(
        ((GATE, "judge_flow", passes),), "message_rate_per_s=", {"message_rate_per_s": 500, "message_burst": 10}
    ),
    "the pace is not kept": Mutant(((TAKE, "has_token", always),), "pace_per_s=", plan={"pace_per_s": 200, "pace_burst": 1}),
    "orders of unknown fate do not count": Mutant(
        ((LIFE, "mark_unknown", unknown_counts_for_nothing),), "but the gateway counts for", plan=LOST, rules={"keeps_orders": True}
    ),
    "up before all is told": Mutant(((STEP, "reconcile", live_at_once),), "sent before the connection was ready"),
    "an execution counts each time that it is told": Mutant(
        ((VENUE, "find_execution", always_new),), "told twice", rules={"faults": Faults({"duplicate": 0.5})}
    ),
    "a prevented trade is not heard of": Mutant(
        ((SESSION, "apply", deaf_to_prevented),), "open orders are", {"collar_bps": 20.0}, rules={"self_trade": "cancel_both"}
    ),
    "executions are booked a share short": Mutant(((VENUE, "book_execution", a_share_less),), "but the gateway counts for"),
    "a replacement asks for a share more": Mutant(((TAKE, "encode_replace", a_share_more),), "asked for"),
    "an outbox leaves twice": Mutant(((TAKE, "send", twice),), "user_ref="),
    "the venue tells who comes another price": Mutant(
        (("engine.exchange.hot.matching", "report_executed", dearer_for_who_comes),), "the venue's board says"
    ),
    "the venue keeps the orders of who left": Mutant(
        (("engine.exchange.hot.session", "clear_up", keeps_all_orders), ("engine.exchange.hot.step", "clear_up", keeps_all_orders)),
        "the orders of before rest still", plan=LOST,
    ),
}  # fmt: skip


def plan_of(mutant: Mutant, seed: int) -> Plan:
    """A busy, short run in which nothing goes wrong but what the mutant needs."""
    plan = drawn_plain(seed)
    plan.trader, plan.turns, plan.activity, plan.weird, plan.turn_ns, plan.rate_per_s = "random", 140, 1.0, 0.0, (200 * US, 2 * MS), 1_000.0
    plan.links, plan.refusals, plan.loss, plan.repeats, plan.swaps, plan.pace_per_s = [], [], 0.0, 0.0, 0.0, 0
    plan.pauses, plan.kills, plan.changes, plan.states, plan.deaths, plan.scopes = [], [], [], [], [], []
    plan.orders_capacity, plan.reports_capacity, plan.orders_max, plan.executions_max = 64, 256, 64, 1 << 10
    plan.limits = USUAL | mutant.limits
    for name, value in mutant.plan.items():
        setattr(plan, name, value)
    plan.rules = Rules(**mutant.rules)
    return plan


def complaints(mutant: Mutant, *, broken: bool) -> list[str]:
    """What the judge says of the first seed that it does not like, or of none."""
    for module, name, make in mutant.changes if broken else ():
        here = importlib.import_module(module)
        setattr(here, name, make(getattr(here, name)))
    for seed in range(SEEDS if broken else 1):
        run = Run(plan_of(mutant, seed))
        try:
            run.play()
        finally:
            run.close()
        if run.judge.problems:
            return run.judge.problems
    return []


def main() -> None:
    name, _, good = sys.argv[1].partition("@")
    mutant = MUTANTS[name]
    said = complaints(mutant, broken=not good)
    print("\n".join(said))
    sys.exit(0 if (not said if good else any(mutant.says in line for line in said)) else 1)


if __name__ == "__main__":
    main()
