"""The kill switch's memory: a file that outlives the processes, so that nothing restarts into a kill.

    FOLDER/<instance>.killed     JSON: when, by whom, why. That the file is there is the kill; what it says is for people.

Whoever may write /var/lib/tickpath/state (root, and the service's own user) latches there, others in their own state folder; a start
looks into both. Killing latches first and then blocks the running instance; a start makes its shared memory first and then
looks: so either the kill finds the memory, or the start finds the latch.
"""

import contextlib
import getpass
import json
import os
import time
from pathlib import Path

SYSTEM_FOLDER = Path("/var/lib/tickpath/state")


class Killed(RuntimeError):
    """The instance was killed, and nobody has armed it since."""


def folders() -> list[Path]:
    """Where latches may be, the widest first. $TICKPATH_STATE takes the place of all."""
    if given := os.environ.get("TICKPATH_STATE"):
        return [Path(given)]
    own = Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local/state") / "tickpath"
    return [SYSTEM_FOLDER, own]


def latch(instance: str, reason: str) -> Path:
    """Keep the instance from starting until it is armed, on disk before this returns. OSError where no folder can be written."""
    folder = writable_folder()
    path = folder / f"{instance}.killed"
    draft = folder / f".{instance}.{os.getpid()}"
    text = json.dumps({"at": time.strftime("%Y-%m-%d %H:%M:%S %z"), "by": who(), "reason": reason})
    with draft.open("w") as file:
        file.write(text + "\n")
        file.flush()
        os.fsync(file.fileno())
    draft.chmod(0o644)
    draft.replace(path)
    sync(folder)
    return path


def release(instance: str) -> bool:
    """Take every latch of the instance away; whether there was one. OSError where one may not be removed."""
    found = [path for path in _paths(instance) if path.exists()]
    for path in found:
        path.unlink()
        sync(path.parent)
    return bool(found)


def check(instance: str) -> None:
    """Killed where the instance is latched. OSError where that cannot be told, which is no leave to start either."""
    for path in _paths(instance):
        if path.exists():
            raise Killed(f"instance={instance}: killed {_told(path)}; `tickpath arm --instance {instance}` lets it start again ({path})")


def _paths(instance: str) -> list[Path]:
    return [folder / f"{instance}.killed" for folder in folders()]


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
