"""A named piece of shared memory: created once, checked by everyone who attaches, unlinked at the end.

Creation is exclusive and allocates every page, so a full /dev/shm is an error here and never a SIGBUS later. The magic is
stored last: an attacher either sees a whole segment or is told that it is still being created.
"""

import contextlib
import errno
import mmap
import os
import stat
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import posix_ipc

from shm._shim import lib
from shm.layout import IDENTITY, schema_difference, schema_hash

SHM = Path("/dev/shm")
KIND_NAMES = {lib.TP_KIND_RING: "ring", lib.TP_KIND_CURSORS: "cursors", lib.TP_KIND_TABLE: "table", lib.TP_KIND_BOARD: "board"}


class SegmentError(Exception):
    """A segment that cannot be created or must not be used; the text says which value is wrong and what to do."""


@dataclass(frozen=True)
class Geometry:
    """What a segment holds, copied out of its identity once and never read from shared memory again."""

    name: str
    kind: int
    capacity: int
    record_bytes: int
    schema: str
    build_hash: int = 0
    readers: int = 0

    @property
    def total_bytes(self) -> int:
        return lib.TP_DATA_OFFSET + self.capacity * self.record_bytes


class Segment:
    """A mapped segment. `data` is its payload as bytes; views made of it keep the mapping alive."""

    def __init__(self, geometry: Geometry, mapping: mmap.mmap, fd: int, *, writable: bool) -> None:
        self.geometry = geometry
        self.fd = fd
        self.mapping = mapping
        self.writable = writable
        self.data = np.frombuffer(mapping, np.uint8, offset=lib.TP_DATA_OFFSET)

    @property
    def name(self) -> str:
        return self.geometry.name

    def view(self, dtype: np.dtype) -> np.recarray:
        """The payload as a record array of `dtype`, whose size divides the payload."""
        return self.data.view(dtype).view(np.recarray)

    def words(self) -> np.ndarray:
        """The payload as int64 words."""
        return self.data.view(np.int64)

    def detach(self) -> None:
        """Let the mapping go, now or with the last view made of it. The segment itself stays."""
        mapping = self.mapping
        del self.data, self.mapping
        with contextlib.suppress(BufferError):
            mapping.close()
        os.close(self.fd)


Prepare = Callable[[np.ndarray], None]


def create(geometry: Geometry, *, mode: int = 0o600, prepare: Prepare | None = None) -> Segment:
    """Create, allocate, prefault and describe a segment. SegmentError where the name is taken or memory is short.

    `prepare` fills the zeroed payload (bytes) before anyone can attach.
    """
    _check_name(geometry.name)
    try:
        handle = posix_ipc.SharedMemory(f"/{geometry.name}", posix_ipc.O_CREX, mode=mode)
    except posix_ipc.ExistentialError:
        raise SegmentError(
            f"segment={geometry.name}: it exists already: another instance uses this name, or one died; "
            "`tickpath clean` removes what the dead left"
        ) from None
    except (PermissionError, posix_ipc.PermissionsError, OSError) as error:
        raise SegmentError(f"segment={geometry.name}: cannot create it in {SHM}: {error}") from None
    try:
        return _fill(geometry, handle.fd, prepare)
    except BaseException:
        os.close(handle.fd)
        unlink(geometry.name)
        raise


def unlink(name: str) -> None:
    """Remove the name; mappings live on until they are let go. No error where it is gone already."""
    with contextlib.suppress(FileNotFoundError):
        (SHM / name).unlink()


def attach(name: str, kind: int, schema: str, *, build_hash: int = 0, writable: bool = True) -> Segment:
    """Map an existing segment after checking that it is what the caller expects. SegmentError names what differs."""
    _check_name(name)
    fd = _open(name, writable=writable)
    try:
        mapping, identity = _map_checked(name, fd, kind, writable=writable)
        text = _schema_text(mapping, identity)
        if schema_hash(text) != identity["schema_hash"]:
            raise SegmentError(f"segment={name}: schema_hash={int(identity['schema_hash']):#x} does not belong to its schema text")
        if text != schema:
            raise SegmentError(f"segment={name}: schema differs: {schema_difference(text, schema)}")
        if build_hash and int(identity["build_hash"]) != build_hash:
            raise SegmentError(
                f"segment={name}: build={int(identity['build_hash']):#x}, expected {build_hash:#x}: "
                "processes of different builds do not trade together"
            )
    except BaseException:
        os.close(fd)
        raise
    geometry = Geometry(
        name=name,
        kind=kind,
        capacity=int(identity["capacity"]),
        record_bytes=int(identity["record_bytes"]),
        schema=text,
        build_hash=int(identity["build_hash"]),
        readers=int(identity["readers"]),
    )
    return Segment(geometry, mapping, fd, writable=writable)


def names(prefix: str) -> list[str]:
    """Names in /dev/shm that begin with `prefix`."""
    return sorted(entry.name for entry in SHM.iterdir() if entry.name.startswith(prefix))


def _check_name(name: str) -> None:
    if not name or "/" in name or name.startswith(".") or len(name) > 200:
        raise SegmentError(f"segment={name!r}: expected a name of 1 to 200 characters without '/', not beginning with '.'")


def _fill(geometry: Geometry, fd: int, prepare: Prepare | None) -> Segment:
    text = geometry.schema.encode()
    room = lib.TP_DATA_OFFSET - lib.TP_SCHEMA_OFFSET
    if len(text) > room:
        raise SegmentError(f"segment={geometry.name}: schema of bytes={len(text)}: expected at most {room}")
    _allocate(geometry, fd)
    mapping = mmap.mmap(fd, geometry.total_bytes, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE)
    mapping[lib.TP_SCHEMA_OFFSET : lib.TP_SCHEMA_OFFSET + len(text)] = text
    identity = np.frombuffer(mapping, IDENTITY, count=1)
    identity["layout_version"] = lib.TP_LAYOUT_VERSION
    identity["kind"] = geometry.kind
    identity["total_bytes"] = geometry.total_bytes
    identity["data_offset"] = lib.TP_DATA_OFFSET
    identity["capacity"] = geometry.capacity
    identity["record_bytes"] = geometry.record_bytes
    identity["schema_hash"] = schema_hash(geometry.schema)
    identity["build_hash"] = geometry.build_hash
    identity["creator_pid"] = os.getpid()
    identity["creator_start"] = process_start(os.getpid())
    identity["created_ns"] = time.time_ns()
    identity["schema_bytes"] = len(text)
    identity["readers"] = geometry.readers
    segment = Segment(geometry, mapping, fd, writable=True)
    if prepare is not None:
        prepare(segment.data)
    # Stored last. The interpreter orders its own stores on x86-64, and attach re-checks every other field anyway.
    identity["magic"] = lib.TP_MAGIC
    return segment


def _allocate(geometry: Geometry, fd: int) -> None:
    """Give the file all its pages. What cannot fit is refused before it fills the memory of those who trade."""
    free = os.statvfs(SHM).f_bavail * os.statvfs(SHM).f_frsize
    try:
        if geometry.total_bytes > free:
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        os.posix_fallocate(fd, 0, geometry.total_bytes)
    except OSError as error:
        raise SegmentError(
            f"segment={geometry.name}: cannot allocate bytes={geometry.total_bytes} in {SHM} (free bytes={free}): {error.strerror}; "
            f"make rings smaller or `mount -o remount,size=... {SHM}`"
        ) from None


def process_start(pid: int) -> int:
    """When process `pid` started, in clock ticks since boot; 0 where there is no such process."""
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return 0
    return int(text.rpartition(")")[2].split()[19])


def _open(name: str, *, writable: bool) -> int:
    # O_NONBLOCK does nothing to a file, and keeps a FIFO of this name from stopping us for ever.
    flags = (os.O_RDWR if writable else os.O_RDONLY) | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK
    try:
        fd = os.open(SHM / name, flags)
    except FileNotFoundError:
        raise SegmentError(f"segment={name}: there is none; is the instance running?") from None
    except OSError as error:
        reason = "it is a symbolic link" if error.errno == errno.ELOOP else error.strerror
        raise SegmentError(f"segment={name}: cannot open it: {reason}") from None
    status = os.fstat(fd)
    problem = None
    if not stat.S_ISREG(status.st_mode):
        problem = "it is not a regular file"
    elif status.st_uid not in (os.geteuid(), 0):
        problem = f"owner uid={status.st_uid}, expected {os.geteuid()}"
    elif status.st_mode & 0o007:
        problem = f"mode={stat.S_IMODE(status.st_mode):#o} lets others in, expected at most 0o660"
    elif status.st_nlink != 1:
        problem = f"links={status.st_nlink}, expected 1: it is linked under another name too, or was just removed"
    if problem:
        os.close(fd)
        raise SegmentError(f"segment={name}: {problem}")
    return fd


def _map_checked(name: str, fd: int, kind: int, *, writable: bool) -> tuple[mmap.mmap, np.void]:
    size = os.fstat(fd).st_size
    if size < lib.TP_DATA_OFFSET:
        raise SegmentError(f"segment={name}: bytes={size}, expected at least {lib.TP_DATA_OFFSET}: it is still being created, or cut short")
    access = mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0)
    mapping = mmap.mmap(fd, size, flags=mmap.MAP_SHARED | mmap.MAP_POPULATE, prot=access)
    shared = np.frombuffer(mapping, IDENTITY, count=1)[0]
    # SYNC POINT (_fill's last store): the magic is looked at before anything that it vouches for.
    if shared["magic"] == 0:
        raise SegmentError(f"segment={name}: magic=0: it is still being created, or its creator died; try again, then `tickpath clean`")
    identity = shared.copy()
    expected = {
        "magic": lib.TP_MAGIC,
        "layout_version": lib.TP_LAYOUT_VERSION,
        "kind": kind,
        "total_bytes": size,
        "data_offset": lib.TP_DATA_OFFSET,
    }
    for field, value in expected.items():
        if int(identity[field]) != value:
            raise SegmentError(f"segment={name}: {field}={_shown(field, int(identity[field]))}, expected {_shown(field, value)}")
    capacity, record_bytes = int(identity["capacity"]), int(identity["record_bytes"])
    payload = size - lib.TP_DATA_OFFSET
    if capacity < 1 or record_bytes < 8 or capacity * record_bytes != payload:
        raise SegmentError(f"segment={name}: capacity={capacity} x record_bytes={record_bytes}, expected {payload} bytes in all")
    if kind == lib.TP_KIND_RING and capacity & (capacity - 1):
        raise SegmentError(f"segment={name}: capacity={capacity}, expected a power of two")
    return mapping, identity


def _shown(field: str, value: int) -> str:
    return f"{value:#x}" if field == "magic" else KIND_NAMES.get(value, str(value)) if field == "kind" else str(value)


def _schema_text(mapping: mmap.mmap, identity: np.void) -> str:
    length = min(int(identity["schema_bytes"]), lib.TP_DATA_OFFSET - lib.TP_SCHEMA_OFFSET)
    return mapping[lib.TP_SCHEMA_OFFSET : lib.TP_SCHEMA_OFFSET + length].decode("utf-8", "replace")
