"""`tickpath risk`: the limits of an instance as they are, and their change while it runs, by a named person and with a reason.

A decision is logged first, then kept for the next start, then put into force; the gate takes it over whole. Two people never decide at
the same time. Where the instance does not run, a decision holds from its next start.
"""

import re
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np

from engine.layout import RISK_FACTS, RISK_RULES
from engine.risk import rules
from engine.risk.limits import Limits, kinds_of_limits, to_dict
from engine.risk.make import verdicts_of
from engine.risk.rules import STATE_NAMES, STATES, Rules
from engine.runtime import latch, standing
from engine.runtime.standing import Decision, Standing
from shm.segment import SegmentError
from shm.table import Board, Table
from tools.killswitch import as_owner

TAKEN_OVER_S = 1.0

CONFIG_WORD = "config"


class Running:
    """The two records of a running instance."""

    def __init__(self, instance: str) -> None:
        with as_owner(instance):
            self.board = Board.attach(f"{instance}.risk.rules", RISK_RULES)
            self.table = Table.attach(f"{instance}.risk.facts", RISK_FACTS, writable=False)
        self.facts = self.table.records[0]

    def rules(self) -> Rules:
        found = rules.read(self.board)
        if found is None:
            raise SegmentError("the limits in force cannot be read: their writer died over them; nothing passes. Stop the instance")
        return found

    def put(self, changed: Rules) -> bool:
        """Write, and wait a little for the gate: whether it has taken them over."""
        before = int(self.facts["rules_read"])
        rules.write(self.board, changed)
        deadline = time.monotonic() + TAKEN_OVER_S
        while time.monotonic() < deadline:
            if int(self.facts["rules_read"]) != before:
                return True
            time.sleep(0.001)
        return False


def running(instance: str) -> Running | None:
    """The running instance, or None. ValueError where that is no instance's name."""
    if not re.fullmatch(r"[A-Za-z0-9_-]{1,32}", instance):
        raise ValueError(f"--instance={instance!r}: expected 1 to 32 letters, digits, - or _")
    try:
        return Running(instance)
    except SegmentError:
        return None


@dataclass(frozen=True)
class For:
    """A change that ends by itself, and the second person who answers for it."""

    minutes: float
    second: str


def set_limit(instance: str, name: str, text: str, by: str, reason: str, lasting: For | None = None) -> str:
    """Change one limit, for good or for a while; "config" takes a change back. ValueError names what cannot be. Returns what came of it."""
    if name not in kinds_of_limits():
        raise ValueError(f"limit={name!r}: expected one of {', '.join(kinds_of_limits())}")

    def change(held: Standing, found: Running | None) -> tuple[Decision, Rules | None]:
        kept = held.limits.get(name)
        if found is None:
            if text != CONFIG_WORD or (kept is None and name not in held.overrides):
                raise ValueError(
                    f"instance={instance}: it does not run: set risk.{name} in its config (a change can be taken back: config)"
                )
            before = held.overrides.pop(name, kept)
            held.limits.pop(name, None)
            return standing.decision(name, CONFIG_WORD, before.value if before else None, by, reason), None
        current = to_dict(found.rules().limits)
        lower = held.overrides[name].before if name in held.overrides else current[name]
        configured = lower if kept is None else kept.before
        limits = msgspec.convert(current | {name: configured if text == CONFIG_WORD else value_of(text)}, Limits)
        made = standing.decision(name, to_dict(limits)[name], current[name], by, reason)
        changed = replace(found.rules(), limits=limits)
        rules.record_of(changed)
        if lasting is not None:
            made = standing.override(msgspec.structs.replace(made, before=lower), lasting.minutes, lasting.second)
            held.overrides[name] = made
            return made, changed
        held.overrides.pop(name, None)
        held.limits.pop(name, None)
        if made.value != configured:
            held.limits[name] = msgspec.structs.replace(made, before=configured)
        return made, changed

    try:
        return _decide(instance, change)
    except msgspec.ValidationError as error:
        raise ValueError(f"{name}={text}: {error}") from None


def set_state(instance: str, state: str, by: str, reason: str, lasting: For | None = None) -> str:
    """ACTIVE, REDUCING or HALTED from now on, or for a while. ACTIVE clears what a loss has tripped."""

    def change(held: Standing, found: Running | None) -> tuple[Decision, Rules | None]:
        made = standing.decision(standing.STATE, state, held.state if lasting else held.state_now, by, reason)
        if lasting is not None:
            made = held.overrides[standing.STATE] = standing.override(made, lasting.minutes, lasting.second)
        else:
            held.overrides.pop(standing.STATE, None)
            held.state, held.state_decision = state, made
        cleared = int(found.facts["trips"]) if found and state == "active" else 0
        if found is None:
            return made, None
        cleared = max(cleared, found.rules().trip_cleared)
        return made, replace(found.rules(), state=STATES[state], trip_cleared=cleared)

    return _decide(instance, change)


def enable(instance: str, strategy: int, by: str, reason: str) -> str:
    """Let a strategy fire again that was disabled. ValueError where it was not."""

    def change(held: Standing, found: Running | None) -> tuple[Decision, Rules | None]:
        enabled = found.rules().enabled if found else {}
        made = standing.decision(f"strategy {strategy}", "enabled", "disabled", by, reason)
        used = int(found.facts["disabled"][strategy]) if found and strategy in enabled else 0
        if strategy not in held.disabled and (strategy not in enabled or enabled[strategy] > used):
            raise ValueError(f"strategy={strategy}: it is not disabled")
        held.disabled.pop(strategy, None)
        return made, None if found is None else replace(found.rules(), enabled=enabled | {strategy: used + 1})

    return _decide(instance, change)


def _decide(instance: str, change: Callable[[Standing, Running | None], tuple[Decision, Rules | None]]) -> str:
    found = running(instance)
    with standing.alone(instance):
        held = standing.load(instance)
        made, changed = change(held, found)
        standing.append(instance, made)
        standing.save(instance, held)
        taken = found.put(changed) if found and changed else False
    became = f"{made.what}: {_short(made.before)} -> {_short(made.value)}" + (f" {standing.until(made)}" if made.until_s else "")
    if found is None and running(instance):
        return f"{became}; {instance} was starting meanwhile: say it again"
    if found is None:
        return f"{became}; {instance} does not run: it holds from its next start"
    return f"{became}; the gate judges by it" if taken else f"{became}; written, but the gate has not taken it over: is the gateway alive?"


def value_of(text: str) -> Any:
    """A limit as typed on a command line: a number, a word, or a list of symbols between commas."""
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    if text in ("[]", "none"):
        return []
    return text if text.islower() else [symbol for symbol in text.split(",") if symbol]


def describe(instance: str) -> dict[str, Any]:
    """What holds and what came of it, as plain data. Where the instance does not run: what it would begin with beside its config."""
    found, held = running(instance), standing.load(instance)
    if found is None:
        limits = {name: made.value for name, made in (held.limits | held.overrides).items() if name != standing.STATE}
        state: dict[str, Any] = {"running": False, "state": held.state_now, "limits": limits}
        return state | {"changed": _changed(held), "disabled": sorted(held.disabled), "killed": _killed(instance)}
    return described(found.rules(), found.facts) | {"running": True, "changed": _changed(held), "killed": _killed(instance)}


def described(found: Rules, facts: np.record) -> dict[str, Any]:
    """The rules and the gate's record, for the report too."""
    scale = 10.0**-found.px_decimals
    used = facts["disabled"]
    return {
        "state": "reducing" if _tripped(found, facts) and found.state == STATES["active"] else STATE_NAMES.get(found.state, "halted"),
        "limits": to_dict(found.limits),
        "disabled": sorted(strategy for strategy, number in found.enabled.items() if number <= int(used[strategy])),
        "verdicts": verdicts_of(facts["counts"]),
        "pnl": round(int(facts["pnl"]) * scale, found.px_decimals),
        "peak": round(int(facts["peak"]) * scale, found.px_decimals),
        "losses_in_a_row": int(facts["losses"]),
        "gross_exposure": round(int(facts["gross"]) * scale, found.px_decimals),
        "net_exposure": round(max(int(facts["net_long"]), int(facts["net_short"])) * scale, found.px_decimals),
        "gross_position": int(facts["gross_qty"]),
        "notional_sent": round(int(facts["session_notional"]) * scale, found.px_decimals),
        "messages": int(facts["messages"]),
        "executions": int(facts["executions"]),
        "orders_by_strategy": {str(strategy): int(count) for strategy, count in enumerate(facts["fired"]) if count},
    }


def _tripped(found: Rules, facts: np.record) -> bool:
    return int(facts["trips"]) > found.trip_cleared


def _changed(held: Standing) -> dict[str, Any]:
    return {name: msgspec.structs.asdict(made) for name, made in (held.limits | held.overrides).items()}


def _killed(instance: str) -> list[str]:
    """What is killed, and when, by whom and why."""
    return [f"{scope}: {told}" for scope, told in latch.latched(instance).items()]


def _short(value: Any) -> str:
    return ",".join(value) or "none" if isinstance(value, list) else str(value)
