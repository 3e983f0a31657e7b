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
        if not stat.S_ISREG(os.fstat(fd).st_mode) or not try_lock(fd, 0) or not _is_the_file(path, fd):
            return False
        path.unlink()
        return True
    except PermissionError:
        return False
    finally:
        os.close(fd)


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
    try:
        named = path.lstat()
    except FileNotFoundError:
        return False
    opened = os.fstat(fd)
    return (named.st_dev, named.st_ino) == (opened.st_dev, opened.st_ino)
