"""Which files are segments: found by what they say of themselves, and by the company of those that cannot say it."""

import os
import stat
from collections.abc import Iterator
from pathlib import Path

from shm._shim import lib
from shm.places import names, places
from shm.status import instance_of

CURSORS = ".cursors"


def segment_names(instance: str | None = None) -> list[str]:
    """The names of an instance's segments, or of everyone's: what has our magic, and what has a name beside one that has.

    Another program's files are in /dev/shm too. One of ours that is not whole, or may not be read, is known by its company: a ring
    by its cursors, any other by the instance that it is named after.
    """
    if instance is not None:
        return names(f"{instance}.")
    every = [name for name in names("") if not name.startswith(".")]
    ours = {name for name in every if head(name) == lib.TP_MAGIC}
    pairs = {name for name in every if name.endswith(CURSORS) and name.removesuffix(CURSORS) in every}
    ours |= pairs | {name.removesuffix(CURSORS) for name in pairs}
    instances = {instance_of(name) for name in ours} - {""}
    return [name for name in every if name in ours or instance_of(name) in instances]


def head(name: str) -> int | None:
    """The first word of a file, 0 where it is empty or not yet written; None where it cannot be read."""
    try:
        fd = os.open(path(name), os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return None
    try:
        return int.from_bytes(os.pread(fd, 8, 0), "little") if stat.S_ISREG(os.fstat(fd).st_mode) else None
    except OSError:
        return None
    finally:
        os.close(fd)


def _paths(name: str) -> Iterator[Path]:
    return (place.folder / name for place in places() if os.path.lexists(place.folder / name))


def path(name: str) -> Path:
    """Where a segment is, or would be."""
    return next(_paths(name), places()[0].folder / name)


def exists(name: str) -> bool:
    """Whether there is anything of that name, a link that leads nowhere included."""
    return next(_paths(name), None) is not None


def is_foreign(name: str) -> bool:
    """Whether another user owns it."""
    try:
        return path(name).lstat().st_uid != os.geteuid()
    except OSError:
        return False
