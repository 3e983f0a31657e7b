"""How the venue of a seed behaves: its latency, what goes wrong there on purpose, its hours, its rules, and who else trades there.

Drawn apart from the rest of a plan (tests/sim_plan.py), so that a seed's network and commands are the same with and without it.
"""

import random
from dataclasses import dataclass, field
from typing import Any

from engine.exchange.hours import Halt, Hours
from engine.exchange.menu import AT_ONCE, NO_FAULTS, Faults, Latency
from engine.exchange.stage import Account

US = 1_000
MS = 1_000_000

SELF_TRADES = ("trade", "cancel_newest", "cancel_oldest", "cancel_both")
PASSWORDS = {"BETA": "TWO", "GAMMA": "THREE"}
HOUSE = "HOUSE"
SYMBOLS = ("AAPL", "MSFT")

SELDOM: tuple[dict[str, Any], ...] = (
    {"notional_session_max": 1e6},
    {"losses_in_a_row_max": 2},
    {"strategy_orders_max": 20, "strategy_window_ms": 100.0},
    {"collar_window_bps": 8.0, "collar_window_ms": 500.0},
    {"order_qty_min": 100},
    {"order_notional_min": 10_000.0},
    {"position_max": 500, "gross_exposure_max": 60_000.0},
    {"credit_max": 40_000.0, "margin_pct": 100},
    {"duplicates_max": 1, "duplicates_window_ms": 20.0},
)


@dataclass
class Rules:
    """What the exchange is made with. keeps_orders, self_trade, firm: our own account's; rivals: the others'. calm_network: only the venue
    makes trouble; limits: some that are seldom set, beside the plan's."""

    latency: Latency = AT_ONCE
    faults: Faults = NO_FAULTS
    hours: Hours = field(default_factory=Hours)
    pro_rata: tuple[str, ...] = ()
    pro_rata_minimum: int = 2
    keeps_orders: bool = False
    self_trade: str = "trade"
    firm: str = ""
    rivals: tuple[Account, ...] = ()
    calm_network: bool = False
    limits: dict[str, Any] = field(default_factory=dict)

    @property
    def said(self) -> list[str]:
        """What is not as usual, a phrase each."""
        usual = Rules()
        return [f"{name}={value}" for name, value in vars(self).items() if value != getattr(usual, name)]

    def of(self, account: int) -> tuple[str, str]:
        """Whose an account is, and what it asks for where it meets itself."""
        if account == 0:
            return self.firm or "0", self.self_trade
        rival = self.rivals[account - 1]
        return rival.firm or str(account), rival.self_trade


def drawn_rules(seed: int, lasts_ns: int) -> Rules:
    """The rules of a seed, for a run that lasts about so long. One in five has none of all this."""
    chance = random.Random(f"venue {seed}")
    rules = Rules()
    if chance.random() < 0.2:
        return rules
    rules.calm_network = chance.random() < 0.45
    if chance.random() < 0.4:
        rules.limits = chance.choice(SELDOM)
    if chance.random() < 0.35:
        rules.latency = Latency(orders_ns=_latencies(chance), reports_ns=_latencies(chance), seed=seed)
    if chance.random() < 0.5:
        rules.faults = _faults(chance, seed, lasts_ns / 1e9)
    if chance.random() < 0.4:
        rules.hours = _hours(chance, lasts_ns / 1e9)
    if chance.random() < 0.3:
        rules.pro_rata = chance.choice((SYMBOLS, SYMBOLS[:1]))
        rules.pro_rata_minimum = chance.choice((1, 2, 20))
    rules.keeps_orders = chance.random() < 0.3
    rules.self_trade = chance.choice(SELF_TRADES)
    if chance.random() < 0.6:
        rules.firm = chance.choice(("", HOUSE))
        rules.rivals = tuple(
            Account(name, password, chance.random() < 0.5, chance.choice(SELF_TRADES), chance.choice(("", rules.firm)))
            for name, password in list(PASSWORDS.items())[: chance.choice((1, 1, 2))]
        )
    return rules


def _latencies(chance: random.Random) -> tuple[int, ...]:
    """None, always the same, or one of several."""
    roll = chance.random()
    if roll < 0.2:
        return (0,)
    if roll < 0.55:
        return (chance.choice((20 * US, 300 * US, 3 * MS)),)
    return tuple(sorted(chance.randint(0, 10 * MS) for _ in range(chance.choice((2, 16)))))


def _faults(chance: random.Random, seed: int, lasts_s: float) -> Faults:
    """Some of the menu, each by chance or at a time; seldom all of it."""
    menu = {"reject": 0.1, "silence": 0.02, "delay": 0.1, "duplicate": 0.2, "disconnect": 0.02, "blackhole": 0.3}
    chosen = list(menu) if chance.random() < 0.15 else chance.sample(list(menu), chance.choice((1, 2, 3)))
    rates, times = {}, []
    for name in chosen:
        if chance.random() < 0.5:
            rates[name] = menu[name] * chance.choice((0.3, 1.0, 2.0))
        else:
            times += [(name, chance.uniform(0.05, 0.8) * lasts_s) for _ in range(chance.choice((1, 3)))]
    # Silence is longer than we bear it in some runs, and shorter in others.
    return Faults(rates, times, silence_ms=chance.choice((20.0, 400.0, 3_000.0)), delay_ms=chance.choice((1.0, 20.0)), seed=seed)


def _hours(chance: random.Random, lasts_s: float) -> Hours:
    """An opening cross early, a closing cross late, halts in between: some of it."""
    opening = chance.uniform(0.02, 0.25) * lasts_s if chance.random() < 0.5 else 0.0
    closing = chance.uniform(0.5, 1.0) * lasts_s if chance.random() < 0.6 else 0.0
    halts = []
    for symbol in SYMBOLS:
        at_s = chance.uniform(0.26, 0.4) * lasts_s
        if chance.random() < 0.5:
            halts.append(Halt(symbol, at_s, chance.uniform(0.01, 0.09) * lasts_s))
    return Hours(open_auction_s=opening, close_auction_s=closing, imbalance_s=chance.choice((0.0, 10.0)), halts=halts)
