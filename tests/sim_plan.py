"""What a seed means: everything that will go wrong in one simulated run, drawn before it begins.

A plan holds numbers only; tests/sim_world.py makes a market, a venue and us of it, and tests/sim_run.py lets it happen.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from tests.sim_venue import Rules, drawn_rules

US = 1_000
MS = 1_000_000

# How a connection ends: closed at both ends, or silent at both while each takes the other for alive.
CLOSED, SILENT = "closed", "silent"
UP, DOWN = "up", "down"

# Who may stand still for some turns, as a process does that is stopped or has lost its core.
ACTORS = ("exchange", "feed", "strategy", "gateway")

USUAL: dict[str, Any] = {
    "order_qty_min": "off", "order_qty_max": 1_000, "order_qty_step": "off", "order_px_step": "tick", "order_notional_min": "off",
    "order_notional_max": 1e6, "notional_window_max": "off", "notional_window_ms": 1_000.0, "notional_session_max": "off",
    "collar_bps": 300.0, "collar_window_bps": "off", "collar_window_ms": 1_000.0, "reference_age_max_ms": 60_000.0,
    "position_max": 3_000, "gross_position_max": "off", "gross_exposure_max": "off", "net_exposure_max": "off", "credit_max": "off",
    "margin_pct": 50, "daily_loss_max": "off", "drawdown_max": "off", "losses_in_a_row_max": "off", "self_trade": "off",
    "duplicates_max": "off", "duplicates_window_ms": 100.0, "message_rate_per_s": 100_000, "message_burst": 10_000,
    "order_to_trade_max": "off", "order_to_trade_free": 1_000_000, "strategy_orders_max": "off", "strategy_window_ms": 1_000.0,
    "restricted": (),
}  # fmt: skip

# Each is in force in some seeds, from the start or from some turn on.
TIGHTER: tuple[dict[str, Any], ...] = (
    {"position_max": 400},
    {"position_max": 1_000, "gross_position_max": 1_200},
    {"gross_exposure_max": 300_000.0},
    {"net_exposure_max": 200_000.0},
    {"credit_max": 150_000.0},
    {"self_trade": "refuse"},
    {"message_rate_per_s": 500, "message_burst": 20},
    {"order_qty_max": 200, "order_notional_max": 30_000.0},
    {"order_qty_step": "lot"},
    {"collar_bps": 5.0},
    {"duplicates_max": 1},
    {"order_to_trade_max": 2, "order_to_trade_free": 50},
    {"notional_window_max": 500_000.0},
    {"daily_loss_max": 50.0},
    {"drawdown_max": 40.0},
    {"restricted": ("MSFT",)},
)


# Parts that are killed by themselves.
SCOPES: tuple[dict[str, Any], ...] = (
    {"strategy": 0}, {"strategy": 1}, {"symbol": "AAPL"}, {"symbol": "MSFT"}, {"strategy": 1, "symbol": "AAPL"}, {"venue": "XNAS"},
    {"venue": "OTHER"},
)  # fmt: skip
STRATEGIES = (0, 1)


@dataclass
class LinkFaults:
    """One connection. Bytes take delay_ns each way, from and to; chunk_bytes is the most that arrives in one turn (0: all that is due);
    in the windows of `stalls`, (turn after the connection began, turns), nothing moves; cut: after so many bytes in that direction
    the connection ends in that way. buffer_bytes is the gateway's send buffer, 0 the usual one."""

    delay_ns: tuple[int, int] = (0, 0)
    chunk_bytes: int = 0
    stalls: list[tuple[int, int]] = field(default_factory=list)
    cut: tuple[str, int, str] | None = None
    buffer_bytes: int = 0


@dataclass
class Plan:
    """Turns are counted from 0. refusals: how many attempts to connect are refused before each link; quiet: no order leaves the trader."""

    seed: int
    turns: int
    trader: str
    turn_ns: tuple[int, int]
    limits: dict[str, Any]
    activity: float
    weird: float
    rate_per_s: float
    orders_capacity: int
    reports_capacity: int
    orders_max: int
    executions_max: int
    pace_per_s: int = 0
    pace_burst: int = 1
    queue_max: int = 64
    links: list[LinkFaults] = field(default_factory=list)
    refusals: list[int] = field(default_factory=list)
    loss: float = 0.0
    repeats: float = 0.0
    swaps: float = 0.0
    pauses: list[tuple[str, int, int]] = field(default_factory=list)
    kills: list[tuple[int, bool]] = field(default_factory=list)
    scopes: list[tuple[int, bool, dict[str, Any]]] = field(default_factory=list)
    changes: list[tuple[int, dict[str, Any]]] = field(default_factory=list)
    states: list[tuple[int, str]] = field(default_factory=list)
    deaths: list[int] = field(default_factory=list)
    rules: Rules = field(default_factory=Rules)

    @property
    def faults(self) -> list[str]:
        """What will happen, a phrase each."""
        said = [f"{self.trader} for {self.turns} turns of {self.turn_ns[0] // US} to {self.turn_ns[1] // US} us"]
        said += [f"link {at}: {link}" for at, link in enumerate(self.links) if link != LinkFaults()]
        said += (
            [f"market data: loss={self.loss} repeats={self.repeats} swaps={self.swaps}"] if self.loss + self.repeats + self.swaps else []
        )
        said += [f"pace {self.pace_per_s} a second, {self.pace_burst} at once, queue of {self.queue_max}"] if self.pace_per_s else []
        said += [f"{actor} pauses at {at} for {turns}" for actor, at, turns in self.pauses]
        said += [f"{'kill' if killed else 'arm'} at {at}" for at, killed in self.kills]
        said += [f"{'kill' if killed else 'arm'} {scope} at {at}" for at, killed, scope in self.scopes]
        said += [f"limits at {at}: {change}" for at, change in self.changes] + [f"state at {at}: {state}" for at, state in self.states]
        said += [f"dies at {at}" for at in self.deaths] + self.rules.said
        return said


def drawn(seed: int) -> Plan:
    """The plan of a seed, and of the venue's part in it."""
    plan = drawn_plain(seed)
    plan.rules = drawn_rules(seed, plan.turns * sum(plan.turn_ns) // 2)
    plan.limits |= plan.rules.limits
    if plan.rules.calm_network:
        plan.links, plan.refusals = [LinkFaults() for _ in plan.links], [0 for _ in plan.refusals]
    return plan


def drawn_plain(seed: int) -> Plan:
    """The plan of a seed at a venue where nothing goes wrong and nobody else trades by name. A third of all runs have a calm network, so
    that what else goes wrong is seen by itself."""
    chance = random.Random(f"plan {seed}")
    turns = chance.choice((200, 300, 500))
    calm = chance.random() < 0.35
    plan = Plan(
        seed=seed,
        turns=turns,
        trader="maker" if chance.random() < 0.25 else "random",
        turn_ns=chance.choice(((20 * US, 200 * US), (200 * US, 2 * MS), (MS, 5 * MS))),
        limits=_limits(chance),
        activity=chance.choice((0.3, 1.0, 3.0)),
        weird=chance.choice((0.0, 0.05, 0.3)),
        rate_per_s=chance.choice((500.0, 2_000.0)),
        orders_capacity=chance.choice((16, 64, 256)),
        reports_capacity=chance.choice((16, 64, 1024)),
        orders_max=chance.choice((32, 256, 1024)),
        executions_max=1 << 12,
    )
    plan.links = [LinkFaults() if calm else _link(chance, turns) for _ in range(12)]
    plan.refusals = [0 if calm or chance.random() < 0.6 else chance.randint(1, 3) for _ in plan.links]
    if chance.random() < 0.3:
        plan.pace_per_s, plan.pace_burst, plan.queue_max = chance.choice((200, 2_000)), chance.choice((1, 10)), chance.choice((4, 64))
    if chance.random() < 0.4:
        plan.loss, plan.repeats, plan.swaps = (chance.choice((0.0, 0.02, 0.1)) for _ in range(3))
    for _ in range(chance.choice((0, 0, 1, 2, 4))):
        plan.pauses.append((chance.choice(ACTORS), chance.randrange(turns), chance.randint(1, 60)))
    _draw_commands(plan, chance)
    return plan


def _draw_commands(plan: Plan, chance: random.Random) -> None:
    """What people do while it runs."""
    if chance.random() < 0.4:
        at = sorted(chance.sample(range(plan.turns), chance.choice((1, 2, 3, 4))))
        plan.kills = [(turn, number % 2 == 0) for number, turn in enumerate(at)]
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        scope, at = chance.choice(SCOPES), chance.randrange(plan.turns)
        plan.scopes += [(at, True, scope)] + [(at + chance.randint(1, 200), False, scope)] * (chance.random() < 0.7)
    for _ in range(chance.choice((0, 0, 1, 2))):
        plan.changes.append((chance.randrange(plan.turns), chance.choice(TIGHTER)))
    for _ in range(chance.choice((0, 0, 0, 1, 2))):
        plan.states.append((chance.randrange(plan.turns), chance.choice(("active", "reducing", "halted"))))
    if chance.random() < 0.3:
        plan.deaths = sorted(chance.sample(range(20, plan.turns), chance.choice((1, 1, 2))))


def _limits(chance: random.Random) -> dict[str, Any]:
    made = dict(USUAL)
    for _ in range(chance.choice((0, 0, 1, 2, 3))):
        made |= chance.choice(TIGHTER)
    return made


def _link(chance: random.Random, turns: int) -> LinkFaults:
    link = LinkFaults(delay_ns=chance.choice(((0, 0), (0, 200 * US), (50 * US, 5 * MS), (0, 50 * MS))))
    link.chunk_bytes = chance.choice((0, 0, 0, 1, 7, 60, 200))
    if chance.random() < 0.4:
        link.stalls = [(chance.randrange(turns), chance.randint(2, 80)) for _ in range(chance.choice((1, 2)))]
    if chance.random() < 0.7:
        # Most cuts come early in a connection's life: at its login, its first orders and their reports.
        most = chance.choice((60, 300, 1_500, 6_000))
        link.cut = chance.choice((UP, DOWN)), chance.randint(1, most), chance.choice((CLOSED, CLOSED, SILENT))
    link.buffer_bytes = chance.choice((0, 0, 2_304))
    return link
