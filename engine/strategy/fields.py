"""Parameters and State: what a strategy's author declares, as msgspec structs, and the flat records that kernels read and write."""

import difflib
import math
import re
from typing import Annotated, Any, get_args, get_origin, get_type_hints

import msgspec
import numpy as np

from engine.strategy.errors import FieldError, StrategyError

FORMATS: dict[type, str] = {int: "i8", float: "f8", bool: "?"}
INT_MAX = (1 << 63) - 1

# A record needs at least one field; this one stands in an empty class.
EMPTY = "nothing"


class _ByName(type(msgspec.Struct)):  # type: ignore[misc]
    """Fields are given by name, so those without a default may follow those with one. msgspec does not inherit kw_only."""

    def __new__(cls, name: str, bases: tuple[type, ...], namespace: dict[str, Any], **config: Any) -> Any:
        return super().__new__(cls, name, bases, namespace, **{"kw_only": True, **config})


class Parameters(msgspec.Struct, metaclass=_ByName, forbid_unknown_fields=True, frozen=True):
    """What a strategy is told once, by [strategy.params] of the config: int, float and bool fields, with defaults where there are any."""


class State(msgspec.Struct, metaclass=_ByName):
    """What a strategy remembers of each instrument: int, float and bool fields, 0 at the start unless the default says otherwise.

    A field may itself be a State class, for what comes in pairs: `bid: Side` and `ask: Side`, used as `state.bid.px`.
    """


def field_types(kind: type[msgspec.Struct]) -> dict[str, type]:
    """The plain type of every field. StrategyError names one that no record can hold."""
    hints = get_type_hints(kind, include_extras=True)
    types = {}
    for name in kind.__struct_fields__:
        hint = hints[name]
        plain = get_args(hint)[0] if get_origin(hint) is Annotated else hint
        if plain not in FORMATS and not (_is_state(plain) and issubclass(kind, State)):
            shown = getattr(plain, "__name__", str(plain))
            raise FieldError(
                kind.__name__, name, f": {shown} cannot live in a compiled record", f"int, float or bool, such as `{name}: int = 0`"
            )
        types[name] = plain
    return types


def record_dtype(kind: type[msgspec.Struct] | None) -> np.dtype:
    """The record of a Parameters or State class: eight bytes for an int or a float, one for a bool, aligned."""
    types = field_types(kind) if kind is not None else {}
    fields: list[Any] = [(name, record_dtype(plain) if _is_state(plain) else FORMATS[plain]) for name, plain in types.items()]
    return np.dtype(fields or [(EMPTY, "i8")], align=True)


def make_records(values: msgspec.Struct | None, count: int, dtype: np.dtype) -> np.recarray:
    """`count` records, each with these values."""
    records = np.zeros(count, dtype).view(np.recarray)
    if values is not None:
        _fill(records, values)
    return records


def _fill(records: np.ndarray, values: msgspec.Struct) -> None:
    for name in values.__struct_fields__:
        value = getattr(values, name)
        if isinstance(value, State):
            _fill(records[name], value)
        else:
            records[name] = value


def initial(kind: type[msgspec.Struct] | None) -> msgspec.Struct | None:
    """A State with every default, 0 where there is none. StrategyError where one does not fit."""
    if kind is None:
        return None
    types = field_types(kind)
    values: dict[str, Any] = {}
    for field in msgspec.structs.fields(kind):
        plain = types[field.name]
        if _is_state(plain):
            values[field.name] = initial(plain)
        else:
            value = plain() if field.default is msgspec.NODEFAULT else field.default
            try:
                values[field.name] = checked(plain, value)
            except ValueError as error:
                raise FieldError(
                    kind.__name__, field.name, f"={value!r}: {error}", f"{field.name}: {plain.__name__} = {plain()!r}"
                ) from None
    return kind(**values)


def _is_state(plain: Any) -> bool:
    return isinstance(plain, type) and issubclass(plain, State)


def parameters(kind: type[msgspec.Struct] | None, given: dict[str, Any]) -> msgspec.Struct | None:
    """[strategy.params] as the strategy's Parameters. StrategyError names what is unknown, missing, mistyped or out of range."""
    if kind is None:
        if given:
            raise StrategyError(
                f"strategy.params: {', '.join(given)}: this strategy has no parameters\n"
                f"  instead: remove them, or declare them in the strategy: class Params(Parameters): {next(iter(given))}: int = 0"
            )
        return None
    types = field_types(kind)
    try:
        values = msgspec.convert(given, kind)
    except msgspec.ValidationError as error:
        raise StrategyError(_explained(str(error), list(types), given)) from None
    for name, plain in types.items():
        try:
            checked(plain, getattr(values, name))
        except ValueError as error:
            raise StrategyError(f"strategy.params.{name}={getattr(values, name)!r}: {error}") from None
    return values


def checked(plain: type, value: Any) -> Any:
    """A value that a record can hold, or ValueError."""
    if plain is float and isinstance(value, int) and not isinstance(value, bool):
        value = float(value)
    got: type = type(value)
    if got is not plain:
        raise ValueError(f"expected {_described(plain)}, got {type(value).__name__}")
    if plain is float and not math.isfinite(value):
        raise ValueError("expected a finite number: a limit that is not a number never holds")
    if plain is int and abs(value) > INT_MAX:
        raise ValueError(f"expected at most {INT_MAX}")
    return value


def _explained(message: str, names: list[str], given: dict[str, Any]) -> str:
    text, _, where = message.partition(" - at `$.")
    name = where.rstrip("`")
    if unknown := re.search(r"unknown field `(.+?)`", text):
        near = difflib.get_close_matches(unknown[1], names, 1)
        return f"strategy.params: unknown parameter {unknown[1]!r}" + (
            f"; did you mean {near[0]!r}?" if near else f"; known: {', '.join(names) or 'none'}"
        )
    if missing := re.search(r"missing required field `(.+?)`", text):
        return f"strategy.params: missing parameter {missing[1]!r}: it has no default, so the config must give it"
    return f"strategy.params.{name}={given.get(name)!r}: {text[0].lower()}{text[1:]}"


def _described(plain: type) -> str:
    return {int: "a whole number", float: "a number", bool: "true or false"}[plain]
