"""Keeps what the gate decides by itself: a loss that made it reduce, a strategy that it disabled. The supervisor calls it every tick.

What holds at a start is put into force here too, before anything can be ordered.
"""

import time
from collections.abc import Callable
from dataclasses import replace

import msgspec

from engine.layout import STRATEGIES_MAX
from engine.risk import rules
from engine.risk.hot.reasons import REASON_STRATEGY_FIRES
from engine.risk.limits import Limits, to_dict
from engine.risk.rules import STATES, UNKNOWN
from engine.risk.sentences import SENTENCES
from engine.runtime import standing
from engine.runtime.config import Config
from engine.runtime.instance import Instance
from engine.runtime.standing import Decision, Standing


def establish(shared: Instance, config: Config) -> list[str]:
    """Write the rules that this run begins with, and return a sentence for each that the config does not say. ValueError, OSError.

    The shared memory is there before what is kept is read: a command that comes in between finds the one or is found in the other.
    """
    held = standing.load(shared.name)
    if held.limits or held.overrides:
        with standing.alone(shared.name):
            held = standing.load(shared.name)
            ended = standing.end_overrides(shared.name, held, lambda made: made.until_s <= time.time())
            if standing.configure(held, config.risk) or ended:
                standing.save(shared.name, held)
    begun, notes = standing.rules_at_start(held, config.risk, len(config.strategy.symbols))
    rules.write(shared.rules, begun)
    return notes


class Keeper:
    """`look` finds what is new and puts it on disk; what it said is in `notes`."""

    def __init__(self, shared: Instance) -> None:
        self.shared = shared
        self.notes: list[str] = []
        self.trip = 0
        self.disabled: dict[int, int] = {}
        self.version = -1
        # By override: when it ends at the latest by the clock that nobody sets, too.
        self.ends: dict[str, tuple[Decision, float]] = {}

    def look(self) -> None:
        facts, line = self.shared.facts.records[0], self.shared.rules.records[0]
        trip = int(facts["trips"])
        if trip > max(self.trip, int(line["trip_cleared"])):
            self.trip = trip
            self._keep_trip(int(facts["trip_reason"]))
        self._look_at_overrides(int(line["version"]))
        used = facts["disabled"]
        if used.any():
            for strategy in range(STRATEGIES_MAX):
                number = int(used[strategy])
                if number > self.disabled.get(strategy, 0) and int(line["enabled"][strategy]) not in (UNKNOWN, number + 1):
                    self.disabled[strategy] = number
                    self._keep_disabled(strategy)

    def _look_at_overrides(self, version: int) -> None:
        """Whoever changes what holds writes the rules last: what was decided is on disk when their version changes."""
        if version != self.version:
            try:
                held = standing.load(self.shared.name)
            except (OSError, ValueError) as error:
                self.notes.append(f"risk: what holds cannot be read, so overrides could outlast their time: {error}")
                held = Standing()
            known, self.ends = self.ends, {}
            for name, made in held.overrides.items():
                seen = known.get(name)
                ends = time.monotonic() + made.until_s - time.time()
                self.ends[name] = seen if seen is not None and seen[0] == made else (made, ends)
            self.version = version
        if self.ends and any(self._over(made) for made, _ in self.ends.values()):
            self._end_overrides()

    def _over(self, made: Decision) -> bool:
        known = self.ends.get(made.what)
        return made.until_s <= time.time() or (known is not None and known[0] == made and known[1] <= time.monotonic())

    def _end_overrides(self) -> None:
        """Put back what held before, in the run and for the next start. Where the disk does not take it, in the run all the same."""
        over = [made for made, _ in self.ends.values() if self._over(made)]
        try:
            with standing.alone(self.shared.name):
                held = standing.load(self.shared.name)
                over = [made for made in held.overrides.values() if self._over(made)]
                standing.end_overrides(self.shared.name, held, self._over)
                standing.save(self.shared.name, held)
                self._put_back(over)
        except (OSError, ValueError) as error:
            self.notes.append(f"risk: an override is over, and that could not be kept: {error}")
            self._put_back(over)
        self.ends = {name: known for name, known in self.ends.items() if known[0] not in over}

    def _put_back(self, over: list[Decision]) -> None:
        found = rules.read(self.shared.rules)
        if found is None:
            return
        limits = {made.what: made.before for made in over if made.what != standing.STATE}
        state = next((STATES[made.before] for made in over if made.what == standing.STATE), found.state)
        rules.write(self.shared.rules, replace(found, limits=msgspec.convert(to_dict(found.limits) | limits, Limits), state=state))
        for made in over:
            self.notes.append(f"risk: {made.what}: {made.value} -> {made.before}: the override of {made.by} and {made.second} is over")

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
