"""The kill switch as a person's command: it finds the instance, and engine/runtime/kills.py does it."""

import contextlib
import os
import time
from collections.abc import Iterator
from dataclasses import dataclass

from engine.layout import CONTROL, GATEWAY_STATS, INSTRUMENT, pack_symbol, unpack_symbol
from engine.runtime import kills, latch
from engine.runtime.latch import WHOLE, Scope
from shm.segment import SHM, SegmentError
from shm.table import Board, Table

# What a gateway that lives needs to cancel everything; a slow venue may take longer, and is not waited for.
SWEPT_PATIENCE_S = 1.0

NOTHING_KILLED = "nothing is killed"


@dataclass(frozen=True)
class Swept:
    """What the gateway made of a kill: the cancels it wrote, and how long after the command's word the last of them was written."""

    cancels: int
    last_us: float


def set_kill(instance: str, reason: str, scope: Scope = WHOLE) -> int:
    """Block, latch, log. Returns the kill's number. SegmentError where the instance does not run: it is latched all the same.

    Killing everything waits for nobody. ValueError for a venue or a symbol that is not the instance's, or where too many scoped kills hold.
    """
    if scope.whole:
        return _kill(instance, scope, reason)
    with kills.alone(instance):
        return _kill(instance, scope, reason)


def _kill(instance: str, scope: Scope, reason: str) -> int:
    control = running(instance)
    if control is not None:
        _check_venue(control, instance, scope)
        _check_symbol(instance, scope)
    try:
        number = kills.kill(control, instance, scope, reason)
    except OSError as error:
        blocked = "new orders are blocked, but" if control is not None else "it does not run, and"
        raise OSError(f"instance={instance}: {blocked} the kill could not be kept for the next start: {error}") from None
    try:
        # An instance that started meanwhile may have looked for latches before there was one.
        late = attach(instance)
    except SegmentError as error:
        holds = "It cannot start now" if scope.whole else f"{scope} stays killed"
        raise SegmentError(f"{error} {holds} until `tickpath arm --instance {instance}{scope.options}`") from None
    return number if control is not None and scope in kills.held(late) else kills.put(late, scope, reason)


def clear_kill(instance: str, scope: Scope = WHOLE, by: str = "", reason: str = "by hand") -> bool:
    """Log, take the latch away and let a running instance's orders pass; whether one runs.

    SegmentError where nothing runs and nothing is latched; ValueError where a part is named that is not killed.
    """
    with kills.alone(instance):
        control = running(instance)
        if not kills.arm(control, instance, scope, by or latch.who(), reason):
            if control is None:
                attach(instance)
            if not scope.whole:
                raise ValueError(f"instance={instance}: {scope} is not killed; {described(instance)}")
        return control is not None


def described(instance: str) -> str:
    """What is killed, in a sentence."""
    control = running(instance)
    found = kills.held(control) if control is not None else list(latch.latched(instance))
    return "killed: " + "; ".join(str(scope) for scope in found) if found else NOTHING_KILLED


def swept(instance: str, number: int) -> Swept | None:
    """What became of the cancels of a kill; None where the gateway has not written the last of them within a moment."""
    with as_owner(instance):
        stats = Table.attach(f"{instance}.gateway.stats", GATEWAY_STATS, writable=False).records[0]
    hz = float(attach(instance).records[0]["tsc_hz"])
    deadline = time.monotonic() + SWEPT_PATIENCE_S
    while int(stats["kill_swept"]) < number:
        if time.monotonic() > deadline:
            return None
        time.sleep(0.001)
    return Swept(int(stats["kill_cancels"]), int(stats["kill_to_last_cancel_tsc"]) * 1e6 / hz)


def running(instance: str) -> Table | None:
    """The control record of the running instance, or None."""
    try:
        return attach(instance)
    except SegmentError:
        return None


def attach(instance: str) -> Table:
    with as_owner(instance):
        return Table.attach(f"{instance}.control", CONTROL)


def _check_venue(control: Table, instance: str, scope: Scope) -> None:
    own = int(control.records[0]["venue"])
    if scope.venue and own and scope.venue != unpack_symbol(own):
        raise ValueError(f"--venue={scope.venue}: instance={instance} trades at {unpack_symbol(own)} alone; expected that")


def _check_symbol(instance: str, scope: Scope) -> None:
    """A symbol in other letters than the venue's would kill nothing. One that nobody has named yet may still come."""
    if not scope.symbol:
        return
    with as_owner(instance):
        named = Board.attach(f"{instance}.instruments", INSTRUMENT, writable=False).records["symbol"]
    meant = [symbol for symbol in {scope.symbol.upper(), scope.symbol.lower()} if pack_symbol(symbol) in named]
    if meant and pack_symbol(scope.symbol) not in named:
        raise ValueError(f"--symbol={scope.symbol}: instance={instance} knows none of that name, but {meant[0]}; expected that")


@contextlib.contextmanager
def as_owner(instance: str) -> Iterator[None]:
    """Root acts as the instance's user, whose shared memory nobody else may attach, and with no more rights than that user has."""
    path = SHM / f"{instance}.control"
    owner = path.stat().st_uid if os.geteuid() == 0 and path.exists() else os.geteuid()
    before = os.geteuid()
    if owner == before:
        yield
        return
    os.seteuid(owner)
    try:
        yield
    finally:
        os.seteuid(before)
