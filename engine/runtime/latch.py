"""The kill switch's memory: files that outlive the processes, so that nothing restarts into a kill.

    FOLDER/<instance>.killed                              the whole instance: it does not start
    FOLDER/<instance>.killed@strategy=3,symbol=AAPL       a part of it: it starts, and that part stays killed

What a file says is for people (JSON: when, by whom, why). That it is there is the kill, and its name is the scope: a torn one holds.

Whoever may write /var/lib/tickpath/state (root, and the service's own user) latches there, others in their own state folder; a start
looks into both. Killing blocks the running instance, latches, and blocks again; a start makes its shared memory first and then
looks: so either the kill finds the memory, or the start finds the latch.
"""

import contextlib
import getpass
import json
import os
import re
import time
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

from engine.layout import STRATEGIES_MAX

SYSTEM_FOLDER = Path("/var/lib/tickpath/state")
VENUE_PATTERN = r"^[A-Z0-9]{1,8}$"


class Killed(RuntimeError):
    """The instance was killed, and nobody has armed it since."""


@dataclass(frozen=True)
class Scope:
    """What a kill covers: orders of a strategy, in a symbol, at a venue, all that are named; with none named, everything.

    ValueError for what no order can have.
    """

    strategy: int | None = None
    symbol: str = ""
    venue: str = ""

    def __post_init__(self) -> None:
        if self.strategy is not None and not 0 <= self.strategy < STRATEGIES_MAX:
            raise ValueError(f"--strategy={self.strategy}: expected 0 to {STRATEGIES_MAX - 1}")
        if len(self.symbol) > 8 or not self.symbol.isascii() or not self.symbol.isprintable() or self.symbol != self.symbol.strip():
            raise ValueError(f"--symbol={self.symbol!r}: expected 1 to 8 ASCII characters")
        if self.venue and not re.fullmatch(VENUE_PATTERN, self.venue):
            raise ValueError(f"--venue={self.venue!r}: expected 1 to 8 capital letters and digits, as gateway.venue in the config")

    @property
    def named(self) -> dict[str, str]:
        strategy = "" if self.strategy is None else str(self.strategy)
        return {name: value for name, value in (("strategy", strategy), ("symbol", self.symbol), ("venue", self.venue)) if value}

    @property
    def whole(self) -> bool:
        return not self.named

    def __str__(self) -> str:
        return ", ".join(f"{name} {value}" for name, value in self.named.items()) or "everything"

    @property
    def options(self) -> str:
        """As it is said on a command line, with a space before each."""
        return "".join(f" --{name} {value}" for name, value in self.named.items())

    @property
    def suffix(self) -> str:
        """The end of its latch's name."""
        named = ",".join(f"{name}={quote(value, safe='').replace('.', '%2E')}" for name, value in self.named.items())
        return "killed" + (f"@{named}" if named else "")


WHOLE = Scope()


def folders() -> list[Path]:
    """Where latches may be, the widest first. $TICKPATH_STATE takes the place of all."""
    if given := os.environ.get("TICKPATH_STATE"):
        return [Path(given)]
    own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tickpath"
    return [SYSTEM_FOLDER, own]


def latch(instance: str, reason: str, scope: Scope = WHOLE, by: str = "") -> Path:
    """Keep what is killed so until it is armed, on disk before this returns. OSError where no folder can be written."""
    folder = writable_folder()
    path = folder / f"{instance}.{scope.suffix}"
    draft = folder / f".{instance}.{os.getpid()}"
    text = json.dumps({"at": time.strftime("%Y-%m-%d %H:%M:%S %z"), "by": by or who(), "reason": reason})
    with draft.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    draft.replace(path)
    sync(folder)
    return path


def marks(instance: str, scope: Scope = WHOLE) -> dict[Path, tuple[int, int]]:
    """The latches of the scope that there are, each with what another kill's would not have."""
    found = {}
    for path in _paths(instance, scope):
        with contextlib.suppress(FileNotFoundError):
            status = path.stat()
            found[path] = status.st_ino, status.st_mtime_ns
    return found


def release(instance: str, scope: Scope = WHOLE, seen: dict[Path, tuple[int, int]] | None = None) -> bool:
    """Take the latches of the scope away, or of those only what was `seen`; whether there was one. OSError where one may not be removed."""
    found = [path for path, mark in marks(instance, scope).items() if seen is None or seen.get(path) == mark]
    for path in found:
        path.unlink()
        sync(path.parent)
    return bool(found)


def is_latched(instance: str, scope: Scope = WHOLE) -> bool:
    return any(path.exists() for path in _paths(instance, scope))


def check(instance: str) -> None:
    """Killed where the whole instance is latched. OSError where that cannot be told, which is no leave to start either."""
    for path in _paths(instance, WHOLE):
        if path.exists():
            raise Killed(f"instance={instance}: killed {_told(path)}; `tickpath arm --instance {instance}` lets it start again ({path})")


def parts(instance: str) -> dict[Scope, str]:
    """The scoped kills that are latched, each with when, by whom and why. OSError where that cannot be told.

    ValueError for a latch whose name is no scope: what it kills is not known, so nothing may start beside it.
    """
    found = {}
    for folder in folders():
        with contextlib.suppress(FileNotFoundError):
            for path in sorted(entry for entry in folder.iterdir() if entry.name.startswith(f"{instance}.killed@")):
                found[_scope_of(path)] = _told(path)
    return found


def latched(instance: str) -> dict[Scope, str]:
    """All that is latched, the whole first. As `parts`."""
    whole = [_told(path) for path in _paths(instance, WHOLE) if path.exists()]
    return ({WHOLE: "; ".join(whole)} if whole else {}) | parts(instance)


def _scope_of(path: Path) -> Scope:
    named = dict(part.partition("=")[::2] for part in path.name.partition("@")[2].split(","))
    try:
        strategy = int(named.pop("strategy")) if "strategy" in named else None
        scope = Scope(strategy, **{name: unquote(value) for name, value in named.items()})
    except (ValueError, TypeError):
        scope = WHOLE
    if scope.whole:
        raise ValueError(f"{path}: its name is no scope of a kill; remove it, or repair its name")
    return scope


def _paths(instance: str, scope: Scope) -> list[Path]:
    return [folder / f"{instance}.{scope.suffix}" for folder in folders()]


def writable_folder() -> Path:
    *wider, last = folders()
    for folder in wider:
        with contextlib.suppress(OSError):
            folder.mkdir(parents=True, exist_ok=True)
            if os.access(folder, os.W_OK):
                return folder
    last.mkdir(parents=True, exist_ok=True)
    return last


def _told(path: Path) -> str:
    """What the latch says of itself. A torn or strange one is a latch all the same."""
    try:
        said = json.loads(path.read_text())
        return f"{said['at']} by {said['by']} ({said['reason']})"
    except (OSError, ValueError, KeyError, TypeError):
        return "at an unknown time"


def who() -> str:
    return os.environ.get("SUDO_USER") or getpass.getuser()


def sync(folder: Path) -> None:
    fd = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        os.fsync(fd)
    finally:
        os.close(fd)
