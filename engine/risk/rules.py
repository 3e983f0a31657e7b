"""The rules record: limits, state, restrictions and who may fire, as one line that a command writes and the gate reads."""

from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from engine.layout import RISK_ACTIVE, RISK_HALTED, RISK_REDUCING, RISK_RULES, STRATEGIES_MAX, pack_symbol
from engine.risk.hot.state import LIMIT_WORDS
from engine.risk.limits import Limits
from engine.risk.words import limit_words
from shm.table import Board

STATES = {"active": RISK_ACTIVE, "reducing": RISK_REDUCING, "halted": RISK_HALTED}
STATE_NAMES = {number: name for name, number in STATES.items()}

UNKNOWN, DISABLED, ENABLED = -1, 0, 1


@dataclass(frozen=True)
class Rules:
    """enabled: by strategy, in the gate's terms (engine/risk/risk.h); venue_qty_max and symbols as limit_words takes them."""

    limits: Limits
    symbols: int
    venue_qty_max: int
    px_decimals: int = 4
    state: int = RISK_ACTIVE
    trip_cleared: int = 0
    enabled: dict[int, int] = field(default_factory=lambda: {0: ENABLED})


def record_of(rules: Rules) -> np.void:
    """The record of these rules. ValueError where a limit does not fit its smallest unit."""
    made = np.zeros(1, RISK_RULES)
    line = made[0]
    words = limit_words(rules.limits, px_decimals=rules.px_decimals, venue_qty_max=rules.venue_qty_max, symbols=rules.symbols)
    line["state"], line["trip_cleared"] = rules.state, rules.trip_cleared
    line["px_decimals"], line["venue_qty_max"], line["symbols"] = rules.px_decimals, rules.venue_qty_max, rules.symbols
    line["limits"][:LIMIT_WORDS] = words
    for place, symbol in enumerate(rules.limits.restricted):
        line["restricted"][place] = pack_symbol(symbol)
    line["enabled"][:] = UNKNOWN
    for strategy, number in rules.enabled.items():
        if not 0 <= strategy < STRATEGIES_MAX:
            raise ValueError(f"strategy={strategy}: expected 0 to {STRATEGIES_MAX - 1}")
        line["enabled"][strategy] = number
    text = msgspec.json.encode(rules.limits)
    if len(text) > line["text"].size:
        raise ValueError(f"limits of bytes={len(text)} as text: expected at most {line['text'].size}; shorten the restricted list")
    line["text_bytes"] = len(text)
    line["text"][: len(text)] = np.frombuffer(text, np.uint8)
    return line


def write(board: Board, rules: Rules) -> None:
    """Put the rules into force: the gate takes them over whole, with its next order or its next idle turn."""
    board.write(0, record_of(rules))


def read(board: Board) -> Rules | None:
    """The rules in force; None where there are none, or a writer died over them."""
    line: Any = board.read(0)
    if line is None:
        return None
    text = line["text"][: int(line["text_bytes"])].tobytes()
    return Rules(
        limits=msgspec.json.decode(text, type=Limits),
        symbols=int(line["symbols"]),
        px_decimals=int(line["px_decimals"]),
        venue_qty_max=int(line["venue_qty_max"]),
        state=int(line["state"]),
        trip_cleared=int(line["trip_cleared"]),
        enabled={strategy: int(number) for strategy, number in enumerate(line["enabled"]) if number != UNKNOWN},
    )
