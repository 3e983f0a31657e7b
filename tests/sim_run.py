"""One seed: a whole day in miniature, everything that goes wrong in it, and the verdict.

python -m tests.sim_run SEED [LAST_SEED] [--plain] [--log]   replay seeds: what was wrong, what it came to, the hash of all that happened
"""

import random
import sys
from collections import Counter
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any

from engine.layout import PHASE_DRAINING
from engine.runtime.latch import Scope
from tests.sim_judge import Judge
from tests.sim_plan import ACTORS, MS, Plan, drawn, drawn_plain
from tests.sim_world import World

# Turns until everything must have come to rest once nothing goes wrong any more, and how long each of those is.
PATIENCE_TURNS = 3_000
PATIENT_NS = 10 * MS
# Turns in a row without an event after which nothing is under way.
QUIET_TURNS = 8
# What tells that something is still going on: not heartbeats, nor others' market data.
EVENTS = {"asked", "sent", "truth", "told", "connected", "link ends", "connection refused"}


@dataclass
class Verdict:
    plan: Plan
    problems: list[str] = field(default_factory=list)
    counted: dict[str, int] = field(default_factory=dict)
    digest: str = ""
    turns: int = 0
    events: int = 0

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {'; '.join(self.plan.faults)}", f"  {self.digest} turns={self.turns} {self.counted}"]
        return "\n".join([*lines, *(f"  PROBLEM {problem}" for problem in self.problems)])


class Run:
    """A run of a plan, turn by turn. Everything that happens goes into `digest`, and where it is asked for onto the terminal."""

    def __init__(self, plan: Plan, *, log: bool = False) -> None:
        self.plan, self.log = plan, log
        self.digest = blake2b(digest_size=16)
        self.turn = 0
        self.events = 0
        self.happened = 0
        self.chance = random.Random(f"run {plan.seed}")
        self.world = World(plan, self.note)
        self.judge = Judge(self.world)
        self.calm = False

    def note(self, what: str, *values: Any) -> None:
        line = f"{self.turn} {what} {' '.join(map(str, values))}\n"
        self.digest.update(line.encode())
        self.events += 1
        if what in EVENTS and values[1:2] != ("R",):
            self.happened = self.turn
        if self.log and what != "market":
            sys.stdout.write(line)

    def close(self) -> None:
        self.world.close()

    def play(self) -> None:
        for _ in range(self.plan.turns):
            self.command()
            self.take_turn(self.chance.randint(*self.plan.turn_ns))
        self.settle()
        if self.world.life.ending == 0:
            self.judge.judge_end(drained=False)
            self.world.control["phase"] = PHASE_DRAINING
            self.settle(drained=True)
            self.judge.judge_end(drained=True)
        else:
            self.judge.judge_loss()

    def command(self) -> None:
        """What people do in this turn."""
        plan, world = self.plan, self.world
        for at, killed in plan.kills:
            if at == self.turn:
                self.note("kill" if killed else "arm")
                world.kill(killed)
        for at, killed, scope in plan.scopes:
            if at == self.turn:
                self.note("kill" if killed else "arm", scope)
                world.kill(killed, Scope(**scope))
        for at, change in plan.changes:
            if at == self.turn:
                self.note("limits", change)
                world.change_limits(change)
        for at, state in plan.states:
            if at == self.turn:
                self.note("state", state)
                world.change_state(state)
        if self.turn in plan.deaths:
            self.note("we die and are started again")
            world.die()
            self.judge.begin_life()

    def take_turn(self, ns: int) -> None:
        world, judge = self.world, self.judge
        judge.turn = world.network.now = self.turn
        world.pass_time(ns)
        order = list(ACTORS)
        self.chance.shuffle(order)
        for actor in order:
            if not self.calm and any(who == actor and at <= self.turn < at + turns for who, at, turns in self.plan.pauses):
                continue
            self.act(actor)
        self.rival_turn()
        world.market.turn(self.note)
        self.turn += 1

    def rival_turn(self) -> None:
        """The others at the venue, who see our orders there and go for them."""
        world, hours = self.world, self.plan.rules.hours
        crosses = "O" * bool(hours.open_auction_s) + "C" * bool(hours.close_auction_s)
        for rival in world.rivals:
            rival.turn(list(self.judge.account.orders.values()), crosses, quoting=not self.calm)

    def act(self, actor: str) -> None:
        world, judge = self.world, self.judge
        killed = bool(world.control["kill"])
        world.step(actor, self.turn, quoting=not self.calm)
        if actor == "strategy":
            judge.after_strategy()
        elif actor == "feed":
            judge.scale.see_quotes()
        elif actor == "exchange":
            judge.after_exchange()
            self.relay()
        elif actor == "gateway":
            judge.after_gateway(killed=killed)
            self.relay()

    def relay(self) -> None:
        """Let the network move."""
        for link in self.world.network.links:
            if link.alive:
                arrived, delivered = link.turn(self.turn, self.world.now, self.note)
                if arrived:
                    self.note("arrived", link.number, arrived.hex())
                    self.judge.hear_arrival(link, arrived)
                if delivered:
                    self.note("delivered", link.number, delivered.hex())
                    self.judge.hear_venue(link, delivered)

    def met(self) -> Counter[str]:
        """What happened, by name: how often."""
        world, judge, rules = self.world, self.judge, self.plan.rules
        found = Counter(judge.counts)
        found.update({f"fault {name}": count for name, count in world.exchange.struck.items()})
        found.update({f"market action {state}": count for state, count in judge.witness.actions.items()})
        found.update(f"cross {cross.letter}" for cross in judge.witness.crosses.values() if cross.qty)
        found.update({"told again": judge.account.retold, "self-trades prevented": judge.account.prevented})
        found.update({"shared price": judge.witness.shared, "rivals let in": sum(rival.logins for rival in world.rivals)})
        found["reports held back"] = max(rules.latency.reports_ns) > 0
        found["takeovers"] = int(world.exchange_stats.records[0]["takeovers"])
        found["cut within a packet"] = sum(not link.alive and bool(judge.seen[link.number].back.raw) for link in world.network.links)
        found["waited"] = int(world.life.stats["waiting_most"] > 0)
        found["adopted"] = int(world.life.stats["adopted"])
        return found

    def settle(self, *, drained: bool = False) -> None:
        """Nothing goes wrong any more, nobody asks for anything: until all is told."""
        self.calm = True
        self.world.network.heal()
        self.world.market.calm = True
        self.world.still_market()
        self.happened = self.turn
        for _ in range(PATIENCE_TURNS):
            self.take_turn(PATIENT_NS)
            if not self.world.venue_is_quiet or self.world.life.waits:
                self.happened = self.turn
            if self.turn - self.happened > QUIET_TURNS and self.at_rest(drained):
                return
        self.judge.say(f"never came to rest: {self.world.life.stats}")

    def at_rest(self, drained: bool) -> bool:
        world = self.world
        if world.life.ending != 0:
            return True
        return world.network.is_quiet and bool(world.control["drained" if drained else "session_up"])


def verdict_of(seed: int, *, plain: bool = False, log: bool = False) -> Verdict:
    """What a seed comes to; plain: at a venue where nothing goes wrong and nobody else trades by name."""
    draw = drawn_plain if plain else drawn
    run = Run(draw(seed), log=log)
    try:
        run.play()
    finally:
        run.close()
    counted = {name: int(count) for name, count in sorted(run.met().items()) if count}
    return Verdict(draw(seed), run.judge.problems, counted, run.digest.hexdigest(), run.turn, run.events)


def replay_command(seed: int, *, plain: bool = False) -> str:
    return f"python -m tests.sim_run {seed}{' --plain' * plain}"


def main() -> None:
    numbers = [int(word) for word in sys.argv[1:] if word.isdigit()]
    bad = []
    every = blake2b(digest_size=16)
    for seed in range(numbers[0], numbers[-1] + 1):
        verdict = verdict_of(seed, plain="--plain" in sys.argv, log="--log" in sys.argv)
        every.update(verdict.digest.encode())
        print(verdict, flush=True)
        if verdict.problems:
            bad.append(seed)
    print(f"seeds={numbers[-1] - numbers[0] + 1} all={every.hexdigest()} bad={bad}")
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
