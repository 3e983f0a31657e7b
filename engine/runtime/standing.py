"""What a person or the gate decided about an instance's risk, kept on disk beyond its processes, and the log of all such decisions.

    FOLDER/<instance>.risk.json   what holds now: state, limits that were changed, overrides, strategies that are disabled
    FOLDER/<instance>.risk.log    one JSON line for each decision, appended and synced before it comes into force; never rewritten

FOLDER is the kill switch's (engine/runtime/latch.py). A start puts what holds on top of its config: a state, a limit or a disabled
strategy outlives a restart until a person takes it back.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.gateway.ouch.v50 import QUANTITY_MAX
from engine.risk.limits import Limits, to_dict
from engine.risk.rules import DISABLED, ENABLED, STATES, Rules
from engine.runtime import latch

GATE = "the gate"
CLOCK = "the clock"
STATE = "state"
LOCK_PATIENCE_S = 5.0
OVERRIDE_MINUTES_MAX = 1440


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """By whom, when and why; value is what was decided, before what it replaced.

    An override has also a second person, and until when it holds, in seconds since the epoch."""

    at: str
    by: str
    reason: str
    what: str
    value: Any = None
    before: Any = None
    user: str = ""
    second: str = ""
    until_s: float = 0.0


class Standing(Struct, forbid_unknown_fields=True):
    """What holds. limits: by name, those that differ from the config, with what was configured as `before`. overrides: by limit or
    "state", what holds above that for a while, with what it goes back to as `before`."""

    state: str = "active"
    state_decision: Decision | None = None
    limits: dict[str, Decision] = field(default_factory=dict)
    disabled: dict[int, Decision] = field(default_factory=dict)
    overrides: dict[str, Decision] = field(default_factory=dict)

    @property
    def state_now(self) -> str:
        return str(self.overrides[STATE].value) if STATE in self.overrides else self.state


def decision(what: str, value: Any, before: Any, by: str, reason: str) -> Decision:
    """ValueError where nobody is named, or nothing is given as the reason."""
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip() or not text.isprintable():
            raise ValueError(
                f"--{name}={text!r}: expected {'the name of a person' if name == 'by' else 'why, in words'}: it is kept in the log"
            )
    at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Decision(at=at, by=by, reason=reason, what=what, value=value, before=before, user=latch.who())


def override(made: Decision, minutes: float, second: str) -> Decision:
    """A decision that ends by itself and that two people answer for (RTS 6, article 15(6)). ValueError without an end or a second one."""
    if not 0 < minutes <= OVERRIDE_MINUTES_MAX:
        raise ValueError(f"--for={minutes}: expected minutes above 0, up to {OVERRIDE_MINUTES_MAX}")
    if not second.strip() or not second.isprintable():
        raise ValueError(f"--second={second!r}: expected the name of a second person: an override with --for takes two")
    if second.strip().casefold() == made.by.strip().casefold():
        raise ValueError(f"--second={second!r}: expected another person than --by: an override takes two")
    return msgspec.structs.replace(made, second=second, until_s=time.time() + 60 * minutes)


def end_overrides(instance: str, held: Standing, over: Callable[[Decision], bool]) -> list[Decision]:
    """Take out of `held` the overrides that are over, and log each end. The caller holds `alone`, and saves."""
    ended = []
    for name, made in list(held.overrides.items()):
        if over(made):
            why = f"the override of {made.by} and {made.second} ({made.reason}) is over"
            ended.append(decision(name, made.before, made.value, CLOCK, why))
            append(instance, ended[-1])
            del held.overrides[name]
    return ended


def state_path(instance: str) -> Path:
    return _path(instance, "risk.json")


def log_path(instance: str) -> Path:
    return _path(instance, "risk.log")


def load(instance: str) -> Standing:
    """What holds; everything as in the config where there is no file. ValueError where it cannot be read: that is no leave to start."""
    path = state_path(instance)
    try:
        raw = path.read_bytes()
    except FileNotFoundError:
        return Standing()
    try:
        found = msgspec.json.decode(raw, type=Standing)
    except msgspec.DecodeError as error:
        raise ValueError(f"{path}: {error}; it says which limits were changed: repair it, or remove it to go back to the config") from None
    if found.state not in STATES or found.state_now not in STATES:
        raise ValueError(f"{path}: state={found.state_now!r}: expected one of {', '.join(STATES)}")
    return found


def save(instance: str, standing: Standing) -> None:
    """On disk before this returns, whole or not at all."""
    path = state_path(instance)
    draft = path.with_name(f".{path.name}.{os.getpid()}")
    with draft.open("wb") as file:
        file.write(msgspec.json.format(msgspec.json.encode(standing)) + b"\n")
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    give_to_owner(draft)
    draft.replace(path)
    latch.sync(path.parent)


def append(instance: str, made: Decision) -> None:
    """One line more of the log, on disk before this returns."""
    fd = os.open(log_path(instance), os.O_RDWR | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        give_to_owner(log_path(instance))
        line = msgspec.json.encode(made) + b"\n"
        if not _ends_a_line(fd):
            # A crash tore the last one: it must not take this one with it.
            line = b"\n" + line
        if os.write(fd, line) != len(line):
            raise OSError(f"{log_path(instance)}: the log could not be written whole")
        os.fsync(fd)
    finally:
        os.close(fd)


def _ends_a_line(fd: int) -> bool:
    end = os.lseek(fd, 0, os.SEEK_END)
    return end == 0 or os.pread(fd, 1, end - 1) == b"\n"


def decisions(instance: str) -> list[Decision]:
    """The whole log. A line that was torn by a crash is left out: what it decided never came into force."""
    try:
        lines = log_path(instance).read_bytes().splitlines()
    except FileNotFoundError:
        return []
    found = []
    for line in lines:
        with contextlib.suppress(msgspec.DecodeError):
            found.append(msgspec.json.decode(line, type=Decision))
    return found


class Busy(OSError):
    """Another decision is being made, and does not come to an end."""


@contextlib.contextmanager
def alone(instance: str, suffix: str = "risk.lock", patience_s: float = LOCK_PATIENCE_S) -> Iterator[None]:
    """One decision at a time, whoever makes it. Busy where another does not come to an end: it was stopped, or its disk hangs."""
    path = _path(instance, suffix)
    fd = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
    try:
        give_to_owner(path)
        deadline = time.monotonic() + patience_s
        while not _locked(fd):
            if time.monotonic() > deadline:
                raise Busy(f"{path}: another command has held it for {patience_s:.0f} s; end that one")
            time.sleep(0.005)
        yield
    finally:
        os.close(fd)


def _locked(fd: int) -> bool:
    try:
        fcntl.flock(fd, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def configure(standing: Standing, config: Limits) -> bool:
    """Measure the changes of limits against the config as it is now, which may be another than when they were made: that is what
    "config" goes back to. One that says the same, or of a limit that there is no more, is none. Whether anything of it is new."""
    configured = to_dict(config)
    kept = {
        name: msgspec.structs.replace(made, before=configured[name])
        for name, made in standing.limits.items()
        if name in configured and made.value != configured[name]
    }
    is_new = kept != standing.limits
    standing.limits = kept
    return is_new


def rules_at_start(standing: Standing, config: Limits, symbols: int) -> tuple[Rules, list[str]]:
    """What a start puts into force, and a sentence for each thing that differs from the config. ValueError where it cannot hold."""
    configured = to_dict(config)
    known = {name: made for name, made in standing.limits.items() if name in configured and made.value != configured[name]}
    above = {name: made for name, made in standing.overrides.items() if name in configured}
    values = {name: made.value for name, made in (known | above).items()}
    limits = msgspec.convert(configured | values, Limits)
    enabled = {0: ENABLED} | dict.fromkeys(standing.disabled, DISABLED)
    rules = Rules(limits, symbols=symbols, venue_qty_max=QUANTITY_MAX, state=STATES[standing.state_now], enabled=enabled)
    notes = [f"risk.{name}={made.value}, not {configured[name]} as configured: {_told(made)}" for name, made in known.items()]
    notes += [f"risk: {name}={made.value} instead of {made.before} {until(made)}" for name, made in standing.overrides.items()]
    if standing.state_now != "active" and standing.state_decision is not None:
        notes.append(f"risk: the state is {standing.state.upper()}: {_told(standing.state_decision)}; `tickpath risk state active` ends it")
    for strategy, made in standing.disabled.items():
        notes.append(f"risk: strategy {strategy} is disabled: {_told(made)}; `tickpath risk enable {strategy}` ends it")
    return rules, notes


def until(made: Decision) -> str:
    """Of an override: until when, by whom and why."""
    ends = time.strftime("%Y-%m-%d %H:%M:%S %z", time.localtime(made.until_s))
    return f"until {ends}: {made.reason} ({made.by} and {made.second}, {made.at})"


def _told(made: Decision) -> str:
    return f"{made.reason} ({made.by}, {made.at})"


def give_to_owner(path: Path) -> None:
    """What root writes into the service's folder is the service's: its gate must be able to go on with it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _path(instance: str, suffix: str) -> Path:
    """Where the instance's file is, or where a new one belongs."""
    found = [folder / f"{instance}.{suffix}" for folder in latch.folders() if (folder / f"{instance}.{suffix}").exists()]
    return found[0] if found else latch.writable_folder() / f"{instance}.{suffix}"
