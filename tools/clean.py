"""`tickpath clean`: the removal of what the dead left, and an account of what was kept."""

import os
import stat
from dataclasses import dataclass
from typing import Any

from shm import segment
from shm._shim import lib
from shm.roles import described
from shm.status import instance_of, printable
from tools.segments import exists, head, path, segment_names


@dataclass(frozen=True)
class Kept:
    """An instance, a ring or a file that was left alone, and why. `alive`: because a process is attached to it."""

    name: str
    reason: str
    alive: bool


@dataclass(frozen=True)
class Cleaned:
    removed: list[str]
    kept: list[Kept]

    def to_dict(self) -> dict[str, Any]:
        return {"removed": self.removed, "kept": [vars(each) for each in self.kept]}


def clean(instance: str | None = None, *, dry_run: bool = False) -> Cleaned:
    """Remove the segments of dead instances, or of one that is named; with `dry_run` only say which.

    An instance that one process is still attached to is kept whole. Of several cleaners exactly one removes a segment.
    """
    cleaned = Cleaned([], [])
    groups: dict[str, list[str]] = {}
    for name in segment_names(instance):
        groups.setdefault(instance_of(name) or name, []).append(name)
    for group, members in groups.items():
        if pids := _attached(members):
            who = ", ".join(map(described, pids)) if pids != {0} else "processes of another user"
            cleaned.kept.append(Kept(printable(group), printable(f"{who} attached"), True))
            continue
        for name in members:
            problem = _why_not(name) or (None if dry_run or segment.remove_if_dead(name) else _why_not_now(name))
            if problem is None:
                cleaned.removed.append(printable(name))
            elif exists(name):
                cleaned.kept.append(Kept(printable(name), problem, False))
    return cleaned


def _attached(members: list[str]) -> set[int]:
    """The pids of those attached to any of the segments; {0} where there are some, and this user may not see them."""
    held = [name for name in members if segment.is_attached(name)]
    return {pid for name in held for pid in segment.attached_pids(name)} - {os.getpid()} or {0} if held else set()


def _why_not(name: str) -> str | None:
    """Why a file that nobody is attached to is not for us to remove; None where it is."""
    place = path(name)
    try:
        found = place.lstat()
    except OSError:
        return "it is gone"
    if not stat.S_ISREG(found.st_mode):
        return f"{printable(str(place))} is not a regular file: remove it by hand"
    if os.geteuid() not in (0, found.st_uid):
        return f"it belongs to uid={found.st_uid}"
    if head(name) not in (0, lib.TP_MAGIC):
        return f"{printable(str(place))} does not begin as a segment does: remove it by hand if it is nobody's"
    return None


def _why_not_now(name: str) -> str:
    return "somebody attached to it this moment" if segment.is_attached(name) else "another process removed it, or holds it; try again"
