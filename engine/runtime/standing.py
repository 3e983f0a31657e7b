"""What a person or the gate decided about an instance's risk, kept on disk beyond its processes, and the log of all such decisions.

    FOLDER/<instance>.risk.json   what holds now: state, limits that were changed, strategies that are disabled
    FOLDER/<instance>.risk.log    one JSON line for each decision, appended and synced before it comes into force; never rewritten

FOLDER is the kill switch's (engine/runtime/latch.py). A start puts what holds on top of its config: a state, a limit or a disabled
strategy outlives a restart until a person takes it back.
"""

import contextlib
import fcntl
import os
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from msgspec import Struct, field

from engine.risk.limits import Limits, to_dict
from engine.risk.rules import DISABLED, ENABLED, STATES, Rules
from engine.runtime import latch

GATE = "the gate"


class Decision(Struct, frozen=True, forbid_unknown_fields=True):
    """By whom, when and why; value is what was decided, before what it replaced."""

    at: str
    by: str
    reason: str
    what: str
    value: Any = None
    before: Any = None
    user: str = ""


class Standing(Struct, forbid_unknown_fields=True):
    """What holds. limits: by name, those that differ from the config, with what was configured as `before`."""

    state: str = "active"
    state_decision: Decision | None = None
    limits: dict[str, Decision] = field(default_factory=dict)
    disabled: dict[int, Decision] = field(default_factory=dict)


def decision(what: str, value: Any, before: Any, by: str, reason: str) -> Decision:
    """ValueError where nobody is named, or nothing is given as the reason."""
    for name, text in (("by", by), ("reason", reason)):
        if not text.strip() or not text.isprintable():
            raise ValueError(
                f"--{name}={text!r}: expected {'the name of a person' if name == 'by' else 'why, in words'}: it is kept in the log"
            )
    at = time.strftime("%Y-%m-%d %H:%M:%S %z")
    return Decision(at=at, by=by, reason=reason, what=what, value=value, before=before, user=latch.who())


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
    if found.state not in STATES:
        raise ValueError(f"{path}: state={found.state!r}: expected one of {', '.join(STATES)}")
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
    _give_to_owner(draft)
    draft.replace(path)
    latch.sync(path.parent)


def append(instance: str, made: Decision) -> None:
    """One line more of the log, on disk before this returns."""
    fd = os.open(log_path(instance), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
    try:
        _give_to_owner(log_path(instance))
        line = msgspec.json.encode(made) + b"\n"
        if os.write(fd, line) != len(line):
            raise OSError(f"{log_path(instance)}: the log could not be written whole")
        os.fsync(fd)
    finally:
        os.close(fd)


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


@contextlib.contextmanager
def alone(instance: str) -> Iterator[None]:
    """One decision at a time, whoever makes it."""
    fd = os.open(_path(instance, "risk.lock"), os.O_RDWR | os.O_CREAT, 0o644)
    try:
        _give_to_owner(_path(instance, "risk.lock"))
        fcntl.flock(fd, fcntl.LOCK_EX)
        yield
    finally:
        os.close(fd)


def rules_at_start(standing: Standing, config: Limits, symbols: int) -> tuple[Rules, list[str]]:
    """What a start puts into force, and a sentence for each thing that differs from the config. ValueError where it cannot hold."""
    configured = to_dict(config)
    known = {name: made for name, made in standing.limits.items() if name in configured and made.value != configured[name]}
    limits = msgspec.convert(configured | {name: made.value for name, made in known.items()}, Limits)
    enabled = {0: ENABLED} | dict.fromkeys(standing.disabled, DISABLED)
    rules = Rules(limits, symbols=symbols, state=STATES[standing.state], enabled=enabled)
    notes = [f"risk.{name}={made.value}, not {configured[name]} as configured: {_told(made)}" for name, made in known.items()]
    if standing.state != "active" and standing.state_decision is not None:
        notes.append(f"risk: the state is {standing.state.upper()}: {_told(standing.state_decision)}; `tickpath risk state active` ends it")
    for strategy, made in standing.disabled.items():
        notes.append(f"risk: strategy {strategy} is disabled: {_told(made)}; `tickpath risk enable {strategy}` ends it")
    return rules, notes


def _told(made: Decision) -> str:
    return f"{made.reason} ({made.by}, {made.at})"


def _give_to_owner(path: Path) -> None:
    """What root writes into the service's folder is the service's: its gate must be able to go on with it."""
    if os.geteuid() == 0:
        owner = path.parent.stat()
        os.chown(path, owner.st_uid, owner.st_gid)


def _path(instance: str, suffix: str) -> Path:
    """Where the instance's file is, or where a new one belongs."""
    found = [folder / f"{instance}.{suffix}" for folder in latch.folders() if (folder / f"{instance}.{suffix}").exists()]
    return found[0] if found else latch.writable_folder() / f"{instance}.{suffix}"
