"""A named piece of shared memory: created once, checked by everyone who attaches, removed by exactly one when nobody is left.

Creation is exclusive and allocates every page, so a full /dev/shm is an error here and never a SIGBUS later. The magic is
stored last: an attacher either sees a whole segment or is told that it is still being created.

Everyone attached holds byte 0 of the file with a shared lock (shm/locks.py), from creation or attachment until the mapping and every view
of it are gone; forked children hold it too. Whoever can lock it for writing knows that it is dead (shm/cleaner.py).

What cannot be promised: a file that its owner, or root, cuts short while it is mapped answers the next access with SIGBUS, in
every process. The kernel has no seal against it for named files. Attaching itself survives it, whenever it comes.
"""

import contextlib
import errno
import grp
import mmap
import os
import stat
import time
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import posix_ipc

from shm import identity
from shm._shim import ffi, lib
from shm.cleaner import attached_pids, is_attached, remove_dead, remove_if_dead, unlink, unlink_inode
from shm.identity import KIND_NAMES, Geometry, SegmentError, check_name, process_start
from shm.locks import try_lock
from shm.memory import Memory, Placement, advise, bind, bound_to, faults, huge_cure, lock, measure, node_free_bytes, populate
from shm.places import MODE_GROUP, MODE_OWN, SHM, Place, huge_places, names, normal_place, open_fd, open_in_place, places

__all__ = [
    "KIND_NAMES",
    "SHM",
    "Geometry",
    "Memory",
    "Placement",
    "Segment",
    "SegmentError",
    "attach",
    "attached_pids",
    "create",
    "describe",
    "is_attached",
    "names",
    "open_fd",
    "process_start",
    "remove_dead",
    "remove_if_dead",
    "unlink",
]

LIFE_BYTE = 0
LIFE_WAIT_S = 1.0


class Segment:
    """A mapped segment. `data` is its payload as bytes; views made of it keep the mapping, and its life lock, alive."""

    def __init__(
        self, geometry: Geometry, mapping: mmap.mmap, fd: int, *, writable: bool, path: Path, memory: Memory | None = None
    ) -> None:
        self.geometry = geometry
        self.fd = fd
        self.mapping = mapping
        self.writable = writable
        self.path = path
        self.memory = memory or Memory()
        self.data = np.frombuffer(mapping, np.uint8, geometry.payload_bytes, lib.TP_DATA_OFFSET)
        self._faults = faults()
        self._close = weakref.finalize(self, os.close, fd)
        self._close.atexit = False

    @property
    def name(self) -> str:
        return self.geometry.name

    def view(self, dtype: np.dtype) -> np.recarray:
        """The payload as a record array of `dtype`, whose size divides the payload."""
        return self.data.view(dtype).view(np.recarray)

    def words(self) -> np.ndarray:
        """The payload as int64 words."""
        return self.data.view(np.int64)

    def placement(self) -> Placement:
        """What this mapping is made of, read out of the kernel now. It takes milliseconds."""
        return measure(self.mapping, self.memory, self._faults)

    def open_fd(self, *, writable: bool = True) -> int:
        """A descriptor of its own (close it) of this very file, whatever its name stands for by now: for a role's lock."""
        try:
            return os.open(f"/proc/self/fd/{self.fd}", (os.O_RDWR if writable else os.O_RDONLY) | os.O_CLOEXEC)
        except OSError as error:
            raise SegmentError(f"segment={self.name}: cannot open it once more: {error.strerror}") from None

    def detach(self) -> None:
        """Let the mapping go, now or with the last view made of it. The segment itself stays."""
        mapping = self.mapping
        del self.data, self.mapping
        with contextlib.suppress(BufferError):
            mapping.close()
        self._close()

    def unlink(self) -> None:
        """Remove the name, if it still stands for this file. Whoever is attached keeps what is mapped. Call it before `detach`."""
        unlink_inode(self.path, self.fd)


Prepare = Callable[[np.ndarray], None]


def create(
    geometry: Geometry,
    *,
    mode: int = MODE_OWN,
    group: str | int | None = None,
    prepare: Prepare | None = None,
    memory: Memory | None = None,
) -> Segment:
    """Create, allocate, prefault and describe a segment. SegmentError where the name is taken or memory is short.

    `prepare` fills the zeroed payload (bytes) before anyone can attach. `mode` is 0600, or 0660 with a `group` (a name or a number)
    that this user is in, whatever the umask. `memory` is what it is made of: where the kernel gives less, `Segment.placement` says
    so, and a strict memory is an error.
    """
    check_name(geometry.name)
    identity.check_new(geometry)
    gid = _group_id(geometry.name, mode, group)
    memory = memory or Memory()
    for place in _candidates(geometry, memory):
        try:
            return _create_in(place, replace(geometry, page_bytes=place.page_bytes), mode, gid, prepare, memory)
        except _OutOfHugePages:
            continue
    raise SegmentError(f"segment={geometry.name}: cannot have pages=huge: {huge_cure(geometry.total_bytes)}")


def attach(
    name: str,
    kind: int,
    schema: str | None = None,
    *,
    build_hash: int = 0,
    writable: bool = True,
    mode: int = MODE_GROUP,
    memory: Memory | None = None,
) -> Segment:
    """Map an existing segment after checking that it is what the caller expects. SegmentError names what differs.

    `schema` None takes the segment's own, which `geometry.schema` then has. `mode` is the widest that is accepted. `memory` says what
    to ask for this mapping (transparent pages, a lock) and what `Segment.placement` compares with.
    """
    fd, place = open_in_place(name, writable, mode=mode)
    try:
        if not _hold_life(name, fd):
            raise SegmentError(f"segment={name}: there is none; it was removed this moment")
        geometry = identity.read(name, fd, place.page_bytes)
        identity.expect_kind(geometry, kind)
        if schema is not None:
            identity.expect_schema(geometry, schema)
        identity.expect_build(geometry, build_hash)
        mapping = _map(geometry, fd, writable=writable, memory=memory or Memory())
        return Segment(geometry, mapping, fd, writable=writable, path=place.folder / name, memory=memory)
    except BaseException:
        os.close(fd)
        raise


def describe(name: str) -> Geometry:
    """What segment `name` holds, without attaching to it. SegmentError where it is none that could be attached to."""
    fd, place = open_in_place(name, False)
    try:
        return identity.read(name, fd, place.page_bytes)
    finally:
        os.close(fd)


# Creation


class _OutOfHugePages(Exception):
    """A pool of huge pages that has too few left: the next place is tried."""


def _candidates(geometry: Geometry, memory: Memory) -> list[Place]:
    """Where a new segment may go, best first."""
    if memory.pages != "huge":
        return [normal_place()]
    writable = [place for place in huge_places() if os.access(place.folder, os.W_OK | os.X_OK)]
    return writable if memory.strict else [*writable, normal_place()]


def _create_in(place: Place, geometry: Geometry, mode: int, gid: int, prepare: Prepare | None, memory: Memory) -> Segment:
    name = geometry.name
    fd = _new_file(place, name)
    path = place.folder / name
    try:
        _refuse_twin(name, place)
        _give_to_group(name, fd, mode, gid)
        mapping = _allocate(place, geometry, fd, memory)
        identity.describe_in(mapping, geometry)
        segment = Segment(geometry, mapping, fd, writable=True, path=path, memory=memory)
    except BaseException:
        unlink_inode(path, fd)
        os.close(fd)
        raise
    try:
        if prepare is not None:
            prepare(segment.data)
        if memory.strict and (shortfalls := segment.placement().shortfalls):
            raise SegmentError(f"segment={name}: {'; '.join(shortfalls)}")
        _publish(mapping)
    except BaseException:
        segment.unlink()
        segment.detach()
        raise
    return segment


def _publish(mapping: mmap.mmap) -> None:
    """SYNC POINT (shm.identity.read): who sees the magic sees everything that was written before it."""
    with ffi.from_buffer("uint64_t[]", mapping, require_writable=True) as words:
        lib.tp_store_release_u64(words, lib.TP_MAGIC)


def _new_file(place: Place, name: str) -> int:
    """A descriptor of a new, empty file that we hold the life of. A cleaner may come between the two: then again."""
    for _ in range(100):
        fd = _create_exclusively(place, name)
        try:
            if _hold_life(name, fd):
                return fd
        except BaseException:
            os.close(fd)
            raise
        os.close(fd)
    raise SegmentError(f"segment={name}: removed 100 times while it was being created: another process cleans without end")


def _create_exclusively(place: Place, name: str) -> int:
    if any(os.path.lexists(other.folder / name) for other in places()):
        raise _taken(name)
    try:
        if place.huge:
            flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
            return os.open(place.folder / name, flags, MODE_OWN)
        return posix_ipc.SharedMemory(f"/{name}", posix_ipc.O_CREX, mode=MODE_OWN).fd
    except (posix_ipc.ExistentialError, FileExistsError):
        raise _taken(name) from None
    except (PermissionError, posix_ipc.PermissionsError, OSError) as error:
        raise SegmentError(f"segment={name}: cannot create it in {place.folder}: {error}") from None


def _refuse_twin(name: str, place: Place) -> None:
    """Two creators may each have made the name in a place of its own; both see it here, so at most one goes on."""
    if any(os.path.lexists(other.folder / name) for other in places() if other != place):
        raise _taken(name)


def _taken(name: str) -> SegmentError:
    if is_attached(name):
        pids = ", ".join(map(str, attached_pids(name))) or "another user's"
        return SegmentError(f"segment={name}: it exists already, and is in use (pid {pids}): end that, or use another name")
    if any(_is_no_file(place.folder / name) for place in places()):
        return SegmentError(f"segment={name}: something that is not a regular file has this name: remove it by hand")
    return SegmentError(f"segment={name}: it exists already, and nobody is attached: one died; `tickpath clean` removes what the dead left")


def _is_no_file(path: Path) -> bool:
    try:
        return not stat.S_ISREG(path.lstat().st_mode)
    except OSError:
        return False


def _hold_life(name: str, fd: int) -> bool:
    """Lock byte 0 for as long as the descriptor lives. False where the file was removed before we could."""
    deadline = time.monotonic() + LIFE_WAIT_S
    while not try_lock(fd, LIFE_BYTE, shared=True):
        # A cleaner has it, for a moment: it removes the file, or dies and leaves it to us.
        if time.monotonic() > deadline:
            raise SegmentError(f"segment={name}: a process that removes it has stopped half way; end it and try again")
        time.sleep(0.001)
    return os.fstat(fd).st_nlink == 1


def _group_id(name: str, mode: int, group: str | int | None) -> int:
    if mode not in (MODE_OWN, MODE_GROUP) or (mode == MODE_GROUP) != (group is not None):
        raise ValueError(f"segment={name}: mode={mode:#o} group={group}: expected mode=0o600, or mode=0o660 and a group")
    try:
        return -1 if group is None else grp.getgrgid(group).gr_gid if isinstance(group, int) else grp.getgrnam(group).gr_gid
    except (KeyError, OverflowError):
        raise SegmentError(f"segment={name}: group={group}: there is no such group; `groups` shows those of this user") from None


def _give_to_group(name: str, fd: int, mode: int, gid: int) -> None:
    try:
        # The group first: no moment at which a group that was not asked for may read.
        if gid != -1:
            os.fchown(fd, -1, gid)
        os.fchmod(fd, mode)
    except PermissionError:
        raise SegmentError(
            f"segment={name}: group={grp.getgrgid(gid).gr_name}: this user is not in it; `groups` shows those it is in"
        ) from None


def _allocate(place: Place, geometry: Geometry, fd: int, memory: Memory) -> mmap.mmap:
    """Give the file all its pages, where and how they were asked for, and map them.

    The policy is set before the first page is made, on the thread (for the allocation) and on the file (for whoever touches it
    first). Transparent huge pages are made by a write through the mapping alone, so that comes before the allocation.
    """
    _refuse_too_much(place, geometry, memory)
    try:
        with bound_to(memory.node):
            os.ftruncate(fd, geometry.total_bytes)
            mapping = mmap.mmap(fd, geometry.total_bytes, flags=mmap.MAP_SHARED)
            bind(mapping, memory.node)
            if memory.pages == "transparent":
                advise(mapping, memory)
                populate(mapping, writable=True)
            os.posix_fallocate(fd, 0, geometry.total_bytes)
            populate(mapping, writable=True)
    except OSError as error:
        raise _no_memory(place, geometry, os.strerror(error.errno or 0)) from None
    lock(mapping, memory)
    return mapping


def _refuse_too_much(place: Place, geometry: Geometry, memory: Memory) -> None:
    """What cannot fit is refused before it fills the memory of those who trade, or has the kernel end one of them."""
    if place.huge:
        return
    if geometry.total_bytes > _free_bytes():
        raise _no_memory(place, geometry, os.strerror(errno.ENOSPC))
    if memory.node is not None and geometry.total_bytes > node_free_bytes(memory.node):
        raise _no_memory(place, geometry, f"node={memory.node} has free bytes={node_free_bytes(memory.node)}")


def _free_bytes() -> int:
    """What a new file in /dev/shm may take: of the mount, and of the machine's memory."""
    status = os.statvfs(SHM)
    mount = status.f_bavail * status.f_frsize if status.f_blocks else 1 << 62
    for line in Path("/proc/meminfo").read_text().splitlines():
        if line.startswith("MemAvailable:"):
            return min(mount, int(line.split()[1]) * 1024)
    return mount


def _no_memory(place: Place, geometry: Geometry, reason: str) -> Exception:
    if place.huge:
        return _OutOfHugePages()
    return SegmentError(
        f"segment={geometry.name}: cannot allocate bytes={geometry.total_bytes} in {place.folder} (free bytes={_free_bytes()}): {reason}; "
        f"make rings smaller, or `mount -o remount,size=... {place.folder}`"
    )


# Attachment


def _map(geometry: Geometry, fd: int, *, writable: bool, memory: Memory) -> mmap.mmap:
    """Map all of a checked file. Nothing is touched: the page table is filled by a call that answers an error for a page not there."""
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    try:
        mapping = mmap.mmap(fd, geometry.total_bytes, flags=mmap.MAP_SHARED, prot=access)
    except (OSError, ValueError) as error:
        raise SegmentError(f"segment={geometry.name}: cannot map bytes={geometry.total_bytes}: {error}") from None
    try:
        advise(mapping, memory)
        populate(mapping, writable=writable)
        if os.fstat(fd).st_size != geometry.total_bytes:
            raise OSError(errno.EFAULT, os.strerror(errno.EFAULT))
    except OSError as error:
        mapping.close()
        reason = "it was cut short this moment" if error.errno == errno.EFAULT else error.strerror
        raise SegmentError(f"segment={geometry.name}: cannot map bytes={geometry.total_bytes}: {reason}") from None
    lock(mapping, memory)
    return mapping
