"""Removing what the dead left: exactly one cleaner removes a segment, and never one that a living process is attached to.

A segment is dead when its byte 0 can be locked for writing: everyone attached, its creator first of all, holds a shared lock there. With
that lock in hand nobody can attach or remove it any more, so what the name stands for is looked at once more and then unlinked. A
creator that had not yet locked its new file finds it without a link, and starts over.
"""

import contextlib
import os
import stat
from pathlib import Path

from shm.identity import check_name
from shm.locks import is_locked, try_lock
from shm.places import names, places


def remove_if_dead(name: str) -> bool:
    """Remove segment `name` if nobody is attached to it, half-created ones included. Whether this very call removed it.

    What is no regular file, or is not ours to remove, is left alone.
    """
    check_name(name)
    removed = [_remove_if_dead(place.folder / name) for place in places()]
    return any(removed)


def remove_dead(prefix: str) -> list[str]:
    """Remove every dead segment whose name begins with `prefix`; the names of those that this call removed."""
    return [name for name in names(prefix) if remove_if_dead(name)]


def is_attached(name: str) -> bool:
    """Whether any process, this one too, is attached to segment `name`, or creating it. False where there is none."""
    check_name(name)
    return any(_is_attached(place.folder / name) for place in places())


def attached_pids(name: str) -> list[int]:
    """The processes that have segment `name` open, as far as this user may see them: for a message, not for a decision."""
    files = {_key(status) for place in places() if (status := _stat(place.folder / name))}
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if any(_key(status) in files for link in (process / "fd").iterdir() if (status := _stat(link, follow=True))):
                found.append(int(process.name))
    return sorted(found)


def unlink(name: str) -> None:
    """Remove the name, whoever is attached; mappings live on until they are let go. No error where it is gone already."""
    for place in places():
        with contextlib.suppress(FileNotFoundError):
            (place.folder / name).unlink()


def unlink_inode(path: Path, fd: int) -> None:
    """Remove `path` if it still is the file that is open as `fd`. Who holds that file's life lock meets no other cleaner."""
    if _is_the_file(path, fd):
        path.unlink(missing_ok=True)


def _remove_if_dead(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDWR | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not try_lock(fd, 0) or not _is_the_file(path, fd) or _has_slots(path):
            return False
        path.unlink()
        return True
    except PermissionError:
        return False
    finally:
        os.close(fd)


def _has_slots(cursors: Path) -> bool:
    """Whether these are the cursors of a ring whose slots still have their name: the slots go first, so that those who find slots
    find their own cursors beside them. Nobody can make new slots while the cursors' name is there.
    """
    ring = cursors.name.removesuffix(".cursors")
    return ring != cursors.name and any(os.path.lexists(place.folder / ring) for place in places())


def _is_attached(path: Path) -> bool:
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        return stat.S_ISREG(os.fstat(fd).st_mode) and is_locked(fd, 0)
    finally:
        os.close(fd)


def _is_the_file(path: Path, fd: int) -> bool:
    named = _stat(path)
    return named is not None and _key(named) == _key(os.fstat(fd))


def _stat(path: Path, *, follow: bool = False) -> os.stat_result | None:
    try:
        return path.stat(follow_symlinks=follow)
    except OSError:
        return None


def _key(status: os.stat_result) -> tuple[int, int]:
    return status.st_dev, status.st_ino
