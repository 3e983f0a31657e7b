"""Keeps what the gate decides by itself: a loss that made it reduce, a strategy that it disabled. The supervisor calls it every tick.

What holds at a start is put into force here too, before anything can be ordered.
"""

from collections.abc import Callable

from engine.layout import STRATEGIES_MAX
from engine.risk import rules
from engine.risk.hot.reasons import REASON_STRATEGY_FIRES
from engine.risk.rules import UNKNOWN
from engine.risk.sentences import SENTENCES
from engine.runtime import standing
from engine.runtime.config import Config
from engine.runtime.instance import Instance
from engine.runtime.standing import Decision, Standing


def establish(shared: Instance, config: Config) -> list[str]:
    """Write the rules that this run begins with, and return a sentence for each that the config does not say. ValueError, OSError.

    The shared memory is there before what is kept is read: a command that comes in between finds the one or is found in the other.
    """
    begun, notes = standing.rules_at_start(standing.load(shared.name), config.risk, len(config.strategy.symbols))
    rules.write(shared.rules, begun)
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

        def keep(held: Standing) -> Decision:
            made = standing.decision("state", "reducing", held.state, standing.GATE, why)
            if held.state != "halted":
                held.state, held.state_decision = "reducing", made
            return made

        self._keep(keep)
        self.notes.append(f"risk: the state became REDUCING: {why}; `tickpath risk state active` ends it")

    def _keep_disabled(self, strategy: int) -> None:
        why = SENTENCES[REASON_STRATEGY_FIRES].split(",")[0]

        def keep(held: Standing) -> Decision:
            held.disabled[strategy] = standing.decision(f"strategy {strategy}", "disabled", "enabled", standing.GATE, why)
            return held.disabled[strategy]

        self._keep(keep)
        self.notes.append(f"risk: strategy {strategy} was disabled: {why}; `tickpath risk enable {strategy}` ends it")

    def _keep(self, change: Callable[[Standing], Decision]) -> None:
        """On disk, if it can be written; what was decided holds in this run anyhow."""
        try:
            with standing.alone(self.shared.name):
                held = standing.load(self.shared.name)
                standing.append(self.shared.name, change(held))
                standing.save(self.shared.name, held)
        except (OSError, ValueError) as error:
            self.notes.append(f"risk: the following could not be kept for the next start: {error}")
