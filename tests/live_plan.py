"""What a seed means for a run of real processes: everything that will be done to them, drawn before it begins.

A day is lives, each from a start of `tickpath run` to its end, and a life is steps, one after another:

    trade N           until the gateway has sent N messages more
    cut               the connection ends, with whatever is under way on it
    silence           nothing moves on the connection any more, until the gateway gives it up
    stop WHO MS       SIGSTOP, then SIGCONT; the venue stands still instead
    kill              `tickpath kill`, a while, `tickpath arm`
    look              the strategy is stopped: what we believe must become what the venue has
    die WHO           SIGKILL, which is the end of this life
    end               SIGINT: what is open is cancelled, and the report is compared
"""

import random
from dataclasses import dataclass, field
from typing import NamedTuple

from tests.sim_plan import CLOSED, DOWN, MS, SILENT, UP, US, LinkFaults

TRADE, CUT, SILENCE, STOP, KILL, LOOK, DIE, END = "trade", "cut", "silence", "stop", "kill", "look", "die", "end"
PROCESSES = ("feed_handler", "strategy", "order_gateway")
VENUE, SUPERVISOR = "venue", "supervisor"


class Step(NamedTuple):
    do: str
    who: str = ""
    number: int = 0

    def __str__(self) -> str:
        return " ".join(str(word) for word in self if word)


@dataclass
class LivePlan:
    """keeps_orders: the venue does not cancel what is open when a connection ends. links: of the connections, in the order they are made;
    those after them are faultless."""

    seed: int
    position_max: int
    gross_position_max: int
    keeps_orders: bool
    links: list[LinkFaults] = field(default_factory=list)
    lives: list[list[Step]] = field(default_factory=list)

    def __str__(self) -> str:
        lives = " | ".join(", ".join(map(str, life)) for life in self.lives)
        faulty = [f"link {at}: {link}" for at, link in enumerate(self.links) if link != LinkFaults()]
        limits = f"position_max={self.position_max} gross_position_max={self.gross_position_max} keeps_orders={self.keeps_orders}"
        return "; ".join([f"seed {self.seed}: {lives}", limits, *faulty])


def drawn(seed: int, *, lives: int = 2, steps: int = 3) -> LivePlan:
    chance = random.Random(f"live {seed}")
    plan = LivePlan(seed, chance.choice((300, 600, 2_000)), chance.choice((500, 10_000)), chance.random() < 0.5)
    plan.links = [_link(chance) for _ in range(4)]
    for life in range(lives):
        done = [Step(TRADE, number=20)]
        for _ in range(steps):
            done += [_step(chance), Step(TRADE, number=chance.randint(5, 40))]
        last = life == lives - 1
        done += [Step(LOOK), Step(END)] if last else [Step(DIE, chance.choice((*PROCESSES, "order_gateway", SUPERVISOR)))]
        plan.lives.append(done)
    return plan


def _step(chance: random.Random) -> Step:
    do = chance.choice((CUT, CUT, SILENCE, STOP, STOP, KILL, LOOK))
    return Step(STOP, chance.choice((*PROCESSES, VENUE)), chance.choice((50, 300))) if do == STOP else Step(do)


def _link(chance: random.Random) -> LinkFaults:
    link = LinkFaults(delay_ns=chance.choice(((0, 0), (0, 200 * US), (50 * US, 5 * MS))))
    link.chunk_bytes = chance.choice((0, 0, 0, 7, 60))
    if chance.random() < 0.5:
        # Within the login, or some orders later; mostly in the middle of a message.
        most = chance.choice((60, 1_500, 6_000))
        link.cut = chance.choice((UP, DOWN)), chance.randint(1, most), chance.choice((CLOSED, CLOSED, CLOSED, SILENT))
    return link
