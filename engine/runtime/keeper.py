"""Keeps what the gate decides by itself: a loss that made it reduce, a strategy that it disabled. The supervisor calls it every tick.

What holds at a start is put into force here too, before anything can be ordered.
"""

from engine.layout import STRATEGIES_MAX
from engine.risk import rules
from engine.risk.hot.reasons import REASON_STRATEGY_FIRES
from engine.risk.limits import to_dict
from engine.risk.rules import UNKNOWN
from engine.risk.sentences import SENTENCES
from engine.runtime import standing
from engine.runtime.config import Config
from engine.runtime.instance import Instance


def establish(shared: Instance, config: Config) -> list[str]:
    """Write the rules that this run begins with, and return a sentence for each that the config does not say. ValueError, OSError."""
    with standing.alone(shared.name):
        held = standing.load(shared.name)
        begun, notes = standing.rules_at_start(held, config.risk, len(config.strategy.symbols))
        rules.write(shared.rules, begun)
        held.config = to_dict(config.risk)
        standing.save(shared.name, held)
    return notes


class Keeper:
    """`look` finds what is new and puts it on disk; what it said is in `notes`."""

    def __init__(self, shared: Instance) -> None:
        self.shared = shared
        self.notes: list[str] = []
        self.trip = 0
        self.disabled: dict[int, int] = {}

    def look(self) -> None:
        facts, line = self.shared.facts.records[0], self.shared.rules.records[0]
        trip = int(facts["trips"])
        if trip > max(self.trip, int(line["trip_cleared"])):
            self.trip = trip
            self._keep_trip(int(facts["trip_reason"]))
        used = facts["disabled"]
        if used.any():
            for strategy in range(STRATEGIES_MAX):
                number = int(used[strategy])
                if number > self.disabled.get(strategy, 0) and int(line["enabled"][strategy]) not in (UNKNOWN, number + 1):
                    self.disabled[strategy] = number
                    self._keep_disabled(strategy)

    def _keep_trip(self, reason: int) -> None:
        why = SENTENCES.get(reason, f"reason={reason}").split(":")[0]
        with standing.alone(self.shared.name):
            held = standing.load(self.shared.name)
            made = standing.decision("state", "reducing", held.state, standing.GATE, why)
            standing.append(self.shared.name, made)
            if held.state != "halted":
                held.state, held.state_decision = "reducing", made
            standing.save(self.shared.name, held)
        self.notes.append(f"risk: the state became REDUCING: {why}; `tickpath risk state active` ends it")

    def _keep_disabled(self, strategy: int) -> None:
        why = SENTENCES[REASON_STRATEGY_FIRES].split(",")[0]
        with standing.alone(self.shared.name):
            held = standing.load(self.shared.name)
            made = standing.decision(f"strategy {strategy}", "disabled", "enabled", standing.GATE, why)
            standing.append(self.shared.name, made)
            held.disabled[strategy] = made
            standing.save(self.shared.name, held)
        self.notes.append(f"risk: strategy {strategy} was disabled: {why}; `tickpath risk enable {strategy}` ends it")
