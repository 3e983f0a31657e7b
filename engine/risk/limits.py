"""The limits an order is held to: typed, all of them required, checked before anything starts.

A limit that is missing, zero, negative, infinite or not a number stops the start. A check that is not wanted is switched off by the word
"off", where that is allowed at all: what keeps one order from being a disaster (its quantity, its value, its price, the position it leads
to, the pace of messages) cannot be.
"""

import math
from collections.abc import Iterator
from functools import cache
from typing import Annotated, Any, Literal, get_args, get_origin, get_type_hints

from msgspec import Meta, Struct, structs

from engine.layout import RESTRICTED_MAX, pack_symbol

OFF_WORD = "off"
Off = Literal["off"]

Shares = Annotated[int, Meta(ge=1, le=1_000_000_000)]
Position = Annotated[int, Meta(ge=1, le=1_000_000_000_000)]
Money = Annotated[float, Meta(gt=0, le=1e12)]
BasisPoints = Annotated[float, Meta(ge=0.01, le=10_000)]
Milliseconds = Annotated[float, Meta(gt=0, le=86_400_000)]
Count = Annotated[int, Meta(ge=1, le=1_000_000_000)]


class Limits(Struct, forbid_unknown_fields=True, frozen=True):
    """What orders, positions, losses and the flow of messages may amount to. Every field is required; default.toml is their manual.

    Quantities are shares, money is whole units of the currency with a fraction, basis points are hundredths of a percent.
    """

    order_qty_min: Shares | Off
    order_qty_max: Shares
    order_qty_step: Shares | Literal["lot", "off"]
    order_px_step: Literal["tick", "off"]
    order_notional_min: Money | Off
    order_notional_max: Money
    notional_window_max: Money | Off
    notional_window_ms: Milliseconds
    notional_session_max: Money | Off
    collar_bps: BasisPoints
    collar_window_bps: BasisPoints | Off
    collar_window_ms: Milliseconds
    reference_age_max_ms: Milliseconds
    position_max: Position
    gross_position_max: Position | Off
    gross_exposure_max: Money | Off
    net_exposure_max: Money | Off
    credit_max: Money | Off
    margin_pct: Annotated[int, Meta(ge=1, le=100)]
    daily_loss_max: Money | Off
    drawdown_max: Money | Off
    losses_in_a_row_max: Count | Off
    self_trade: Literal["refuse", "off"]
    duplicates_max: Annotated[int, Meta(ge=1, le=1_000_000)] | Off
    duplicates_window_ms: Milliseconds
    message_rate_per_s: Count
    message_burst: Count
    order_to_trade_max: Annotated[int, Meta(ge=1, le=1_000_000)] | Off
    order_to_trade_free: Count
    strategy_orders_max: Annotated[int, Meta(ge=1, le=1_000_000_000)] | Off
    strategy_window_ms: Milliseconds
    restricted: tuple[str, ...]

    def __post_init__(self) -> None:
        """The same for limits that were not decoded, and what only several together can say. ValueError names value and expectation."""
        for name, kinds in kinds_of_limits().items():
            _check(name, getattr(self, name), kinds)
        if problem := next(_contradictions(self), None):
            raise ValueError(problem)


@cache
def kinds_of_limits() -> dict[str, tuple[Any, ...]]:
    """By name: the words that a limit may be, and the number."""
    hints = get_type_hints(Limits, include_extras=True)
    return {name: (hint,) if get_origin(hint) in (Annotated, Literal, tuple) else get_args(hint) for name, hint in hints.items()}


def can_be_off(name: str) -> bool:
    return any(OFF_WORD in get_args(kind) for kind in kinds_of_limits()[name] if get_origin(kind) is Literal)


def _check(name: str, value: Any, kinds: tuple[Any, ...]) -> None:
    expected: list[str] = []
    for kind in kinds:
        if get_origin(kind) is Literal:
            words = get_args(kind)
            expected.append(" or ".join(f'"{word}"' for word in words))
            if isinstance(value, str) and value in words:
                return
        elif get_origin(kind) is tuple:
            _check_symbols(name, value)
            return
        else:
            number, (meta,) = get_args(kind)[0], kind.__metadata__
            least = meta.ge if meta.ge is not None else math.ulp(0.0)
            expected.append(f"{'a whole number' if number is int else 'a number'} from {least} to {meta.le}")
            allowed: Any = int if number is int else (int, float)
            if isinstance(value, allowed) and not isinstance(value, bool) and least <= value <= meta.le:
                return
    raise ValueError(f"{name}={value!r}: expected {', or '.join(expected)}")


def _check_symbols(name: str, value: Any) -> None:
    if not isinstance(value, (list, tuple)) or len(value) > RESTRICTED_MAX or len(set(value)) != len(value):
        raise ValueError(f"{name}={value!r}: expected a list of at most {RESTRICTED_MAX} symbols, each once; [] for none")
    for symbol in value:
        try:
            pack_symbol(symbol)
        except (ValueError, UnicodeEncodeError, AttributeError):
            raise ValueError(f"{name}={list(value)!r}: symbol={symbol!r}: expected 1 to 8 ASCII characters") from None


def _contradictions(limits: Limits) -> Iterator[str]:
    """Limits under which no order could pass at all are a mistake, and better told than met."""
    for small, large in (
        ("order_qty_min", "order_qty_max"),
        ("order_notional_min", "order_notional_max"),
        ("order_qty_min", "position_max"),
        ("order_notional_min", "notional_window_max"),
        ("order_notional_min", "notional_session_max"),
    ):
        least, most = getattr(limits, small), getattr(limits, large)
        if OFF_WORD not in (least, most) and least > most:
            yield f"{small}={least}: expected at most {large}={most}: no order could pass"


def to_dict(limits: Limits) -> dict[str, Any]:
    return structs.asdict(limits) | {"restricted": list(limits.restricted)}
