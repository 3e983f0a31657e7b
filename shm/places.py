"""Where segments are: /dev/shm, and the hugetlbfs mounts that this process sees. A name is in at most one of them.

Opening is where strangers are told apart: what is not a regular file with one link, of an owner and a mode that were asked for, is
refused by name before a byte of it is read.
"""

import errno
import os
import stat
from dataclasses import dataclass
from pathlib import Path

from shm.identity import PAGE_BYTES, SegmentError, check_name

SHM = Path("/dev/shm")

MODE_OWN = 0o600
MODE_GROUP = 0o660


@dataclass(frozen=True)
class Place:
    """A folder that holds segments, and the size of the pages that their files are made of."""

    folder: Path
    page_bytes: int

    @property
    def huge(self) -> bool:
        return self.folder != SHM


def normal_place() -> Place:
    return Place(SHM, PAGE_BYTES)


def huge_places() -> list[Place]:
    """The hugetlbfs mounts, the smallest pages first."""
    found = []
    for line in Path("/proc/self/mounts").read_text(errors="surrogateescape").splitlines():
        _, folder, kind, *_ = line.split(" ")
        if kind == "hugetlbfs":
            # Spaces and the like are written as octal escapes.
            path = Path(os.fsdecode(os.fsencode(folder).decode("unicode_escape").encode("latin-1")))
            try:
                found.append(Place(path, os.statvfs(path).f_bsize))
            except OSError:
                continue
    return sorted(set(found), key=lambda place: (place.page_bytes, place.folder))


def places() -> list[Place]:
    return [normal_place(), *huge_places()]


def names(prefix: str) -> list[str]:
    """Names that begin with `prefix`, in /dev/shm and in every hugetlbfs mount that can be listed."""
    found: set[str] = set()
    for place in places():
        try:
            found.update(name for name in os.listdir(place.folder) if name.startswith(prefix))  # noqa: PTH208
        except OSError:
            continue
    return sorted(found)


def find(name: str) -> Place | None:
    """The place that has `name`, whatever it is there; None where none has. SegmentError where two have."""
    having = [place for place in places() if os.path.lexists(place.folder / name)]
    if len(having) > 1:
        folders = " and ".join(str(place.folder) for place in having)
        raise SegmentError(f"segment={name}: it is in {folders}, and there is no telling which is meant: remove one of them")
    return having[0] if having else None


def open_fd(name: str, writable: bool, *, mode: int = MODE_GROUP) -> int:
    """A descriptor of its own (close it) of segment `name`: a description that shares no lock with any other.

    SegmentError where there is none, where it is not a regular file with one link, where its owner is neither this user nor root nor,
    with mode 0660, of a group of ours, and where its mode is wider than `mode`.
    """
    return open_in_place(name, writable, mode=mode)[0]


def open_in_place(name: str, writable: bool, *, mode: int = MODE_GROUP) -> tuple[int, Place]:
    check_name(name)
    place = find(name)
    if place is None:
        raise SegmentError(f"segment={name}: there is none; is the instance running?")
    # O_NONBLOCK does nothing to a file, and keeps a FIFO of this name from stopping us for ever.
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(place.folder / name, flags)
    except FileNotFoundError:
        raise SegmentError(f"segment={name}: there is none; it was removed this moment") from None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise SegmentError(f"segment={name}: cannot open it: {reason}") from None
    problem = _stranger(os.fstat(fd), mode)
    if problem:
        os.close(fd)
        raise SegmentError(f"segment={name}: {problem}")
    return fd, place


def _stranger(status: os.stat_result, mode: int) -> str | None:
    """Why a file is none that we should use; None where it is fine."""
    have = stat.S_IMODE(status.st_mode)
    if not stat.S_ISREG(status.st_mode):
        return "it is not a regular file"
    if status.st_nlink != 1:
        return f"links={status.st_nlink}, expected 1: it is linked under another name too, or was just removed"
    if have & ~mode:
        return f"mode={have:#o} lets others in, expected at most {mode:#o}"
    ours = status.st_uid in (os.geteuid(), 0)
    if not ours and not (have == MODE_GROUP and status.st_gid in {os.getegid(), *os.getgroups()}):
        return f"owner uid={status.st_uid}, expected {os.geteuid()}, or mode={MODE_GROUP:#o} of a group of ours"
    return None
