"""Killing and arming: the words that the gateway reads before every order, the latches on disk, and the log of both.

Killing is blocking first: whatever the disk does, no order passes any more. Arming is writing down first: nothing passes again that the
log does not explain.
"""

import contextlib
import time
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from engine.layout import KILL_SCOPES, pack_symbol, unpack_symbol
from engine.risk.hot.state import ANY_NAME, ANY_STRATEGY, SCOPE_NS, SCOPE_NUMBER, SCOPE_STRATEGY, SCOPE_SYMBOL, SCOPE_VENUE, SCOPE_WORDS
from engine.runtime import latch, standing
from engine.runtime.latch import WHOLE, Scope
from engine.runtime.standing import Decision
from shm._shim import lib
from shm.table import Table

LOCK_PATIENCE_S = 2.0


def put(control: Table, scope: Scope, reason: str) -> int:
    """Block new orders of the scope; the gateway cancels its open ones. Returns the kill's number. ValueError where no line is free."""
    record = control.records[0]
    line = None if scope.whole else _line_for(record, scope)
    raw = reason.encode()[: record["kill_reason"].size]
    record["kill_reason"][:] = 0
    record["kill_reason"][: len(raw)] = np.frombuffer(raw, np.uint8)
    number = int(record["kills"]) + 1
    record["kills"] = number
    record["kill_ns"] = time.time_ns()
    record["kill_tsc"] = lib.tp_rdtsc()
    if line is None:
        record["kill"] = 1
        return number
    line[SCOPE_NUMBER] = 0
    line[SCOPE_STRATEGY] = ANY_STRATEGY if scope.strategy is None else scope.strategy
    line[SCOPE_SYMBOL] = pack_symbol(scope.symbol) if scope.symbol else ANY_NAME
    line[SCOPE_VENUE] = pack_symbol(scope.venue) if scope.venue else ANY_NAME
    line[SCOPE_NS] = time.time_ns()
    # SYNC POINT (engine/risk/hot/scopes.py, `covered`): x86-64 keeps the order of plain stores, and the interpreter does not move them.
    line[SCOPE_NUMBER] = number
    record["scoped"] = number
    return number


def lift(control: Table, scope: Scope) -> bool:
    """Let new orders of the scope pass; whether it was killed."""
    record = control.records[0]
    if scope.whole:
        was = bool(record["kill"])
        record["kill"] = 0
        return was
    lines = _lines(record)
    mine = [line for line in lines if line[SCOPE_NUMBER] and _scope(line) == scope]
    for line in mine:
        line[SCOPE_NUMBER] = 0
    if not lines[:, SCOPE_NUMBER].any():
        record["scoped"] = 0
    return bool(mine)


def held(control: Table) -> list[Scope]:
    """What is killed now, the whole first."""
    record = control.records[0]
    return ([WHOLE] if record["kill"] else []) + [_scope(line) for line in _lines(record) if line[SCOPE_NUMBER]]


def establish(control: Table, instance: str) -> list[str]:
    """At a start: put the parts that are latched into force, and return a sentence for each. ValueError, OSError."""
    notes = []
    for scope, told in latch.parts(instance).items():
        put(control, scope, told)
        notes.append(f"kill: {scope} stays killed: {told}; `tickpath arm --instance {instance}{scope.options}` ends it")
    return notes


def kill(control: Table | None, instance: str, scope: Scope, reason: str, by: str = "") -> int:
    """Block, latch and log. Returns the kill's number, 0 where nothing runs. OSError where it could not be kept; it is blocked anyhow."""
    number = put(control, scope, reason) if control is not None else 0
    latch.latch(instance, reason, scope, by)
    standing.append(instance, _decision("kill", scope, "armed", by or latch.who(), reason))
    return number


def arm(control: Table | None, instance: str, scope: Scope, by: str, reason: str) -> bool:
    """Log, take the latch away and let orders pass; whether there was a kill. ValueError where nobody is named. OSError.

    Overtaken where another kill came meanwhile: a kill of everything waits for nobody, and whoever arms cannot have known of it.
    """
    made = standing.decision(f"kill of {scope}", "armed", "killed", by, reason)
    number, seen = _kills(control), latch.marks(instance, scope)
    if not seen and (control is None or scope not in held(control)):
        return False
    standing.append(instance, made)
    if scope.whole:
        # A kill of a part asks for the lock that the armer holds (`alone`); a kill of everything does not.
        _let_go(control, instance, number, seen)
    else:
        latch.release(instance, scope)
        if control is not None:
            lift(control, scope)
    return True


def _let_go(control: Table | None, instance: str, number: int, seen: dict[Path, tuple[int, int]]) -> None:
    """Undo the kill of everything whose latches were `seen` when `number` was the last kill, and no later one."""
    latch.release(instance, WHOLE, seen)
    if latch.is_latched(instance) or _kills(control) != number:
        _stay_killed(control, instance)
    if control is not None:
        lift(control, WHOLE)
        # Between that look and this store there is next to nothing; a kill that came just there is put again.
        if _kills(control) != number:
            _stay_killed(control, instance)


class Overtaken(ValueError):
    """It was killed again while it was being armed, and stays killed."""


def _stay_killed(control: Table | None, instance: str) -> NoReturn:
    """In the words, on disk and in the log, whatever of it the other kill has done by now."""
    why = "killed again while it was being armed"
    if control is not None and not control.records[0]["kill"]:
        put(control, WHOLE, why)
    if not latch.is_latched(instance):
        latch.latch(instance, why, WHOLE, "tickpath")
    standing.append(instance, _decision("kill", WHOLE, "armed", "tickpath", why))
    raise Overtaken(f"instance={instance}: it was {why}, and stays killed; see why, and arm it again")


def _kills(control: Table | None) -> int:
    return int(control.records[0]["kills"]) if control is not None else 0


def alone(instance: str) -> contextlib.AbstractContextManager[None]:
    """One at a time. standing.Busy (OSError) where another does not come to an end: whoever kills everything need not ask."""
    return standing.alone(instance, "kill.lock", LOCK_PATIENCE_S)


def _decision(what: str, scope: Scope, before: str, by: str, reason: str) -> Decision:
    """A kill is never refused for its wording: what cannot be printed is left out."""
    said = "".join(letter for letter in reason if letter.isprintable()).strip() or "no reason given"
    return standing.decision(f"{what} of {scope}", "killed", before, by, said)


def _lines(record: np.record) -> Any:
    return record["scopes"].reshape(KILL_SCOPES, SCOPE_WORDS)


def _scope(line: Any) -> Scope:
    strategy, symbol, venue = (int(line[word]) for word in (SCOPE_STRATEGY, SCOPE_SYMBOL, SCOPE_VENUE))
    return Scope(
        None if strategy == ANY_STRATEGY else strategy,
        unpack_symbol(symbol) if symbol != ANY_NAME else "",
        unpack_symbol(venue) if venue != ANY_NAME else "",
    )


def _line_for(record: np.record, scope: Scope) -> Any:
    """The line that holds the scope, or a free one."""
    free = None
    for line in _lines(record):
        if line[SCOPE_NUMBER] and _scope(line) == scope:
            return line
        if not line[SCOPE_NUMBER] and free is None:
            free = line
    if free is None:
        raise ValueError(f"scoped kills={KILL_SCOPES} hold already: expected fewer; arm some, or kill everything")
    return free
