"""A username and a password that leave no trace: not in a config, a log, an error, the environment of a child, or a core file.

      0          6              16       a page of its own, as SoupBinTCP sends them: padded with spaces on the right
      +----------+--------------+
      | username | password     |
      +----------+--------------+

The page is left out of core files (MADV_DONTDUMP) and is shared with the processes that are forked later; each unmaps it once it has put
the pair into its login. Strings and bytes of Python cannot be wiped, so a file is read by a process that ends, and variables are copied
from where they stand and overwritten there, before anything else has looked at the environment. PR_SET_DUMPABLE is not cleared:
it would take the whole core file, and /proc from whoever watches the process, where leaving out a page is enough.
"""

import ctypes
import mmap
import os
import secrets
import stat
import string
from pathlib import Path
from typing import Any, NoReturn

import msgspec
import numpy as np

from engine.wire.soupbintcp import LOGIN_REQUEST, TYPE_AT

USERNAME_BYTES = LOGIN_REQUEST["password"] - LOGIN_REQUEST["username"]
PASSWORD_BYTES = LOGIN_REQUEST["session"] - LOGIN_REQUEST["password"]
PAIR_BYTES = USERNAME_BYTES + PASSWORD_BYTES
FIELDS = (("username", 0, USERNAME_BYTES), ("password", USERNAME_BYTES, PASSWORD_BYTES))
# Where in a login packet, length bytes included, the pair goes.
LOGIN_PAIR_AT = TYPE_AT + LOGIN_REQUEST["username"]

PREFIXES = ("TICKPATH_", "TICKPATH_SNAPSHOT_")
FILE_BYTES_MAX = 4096
FILE_SHAPE = 'expected two lines, username = "..." and password = "..."'
# In the page, behind the pair: what the process that reads a file found wrong, after its length in two bytes.
DONE_AT = 32
SAID_AT = 64
PR_SET_DUMPABLE = 4


class CredentialsError(ValueError):
    """Credentials that cannot be used; the text names where they were looked for and never what they are."""


class Credentials:
    """One username with its password. Its text says nothing of them."""

    def __init__(self) -> None:
        self._page = mmap.mmap(-1, mmap.PAGESIZE)
        self._page.madvise(mmap.MADV_DONTDUMP)
        self._page[:PAIR_BYTES] = b" " * PAIR_BYTES

    @classmethod
    def of(cls, username: str, password: str) -> "Credentials":
        """A pair that is no secret: a test's, or the embedded exchange's. ValueError where it does not fit."""
        made = cls()
        for (name, at, size), value in zip(FIELDS, (username, password), strict=True):
            if len(value) > size or not value.isascii():
                raise ValueError(f"{name}: expected at most {size} ASCII characters")
            made._page[at : at + len(value)] = value.encode()
        return made

    @classmethod
    def random(cls) -> "Credentials":
        drawn = ["".join(secrets.choice(string.ascii_uppercase + string.digits) for _ in range(size)) for _, _, size in FIELDS]
        return cls.of(*drawn)

    def put(self, target: np.ndarray, at: int) -> None:
        """Write the pair into target[at:], uint8, which should be `undumped`."""
        target[at : at + PAIR_BYTES] = np.frombuffer(self._page, np.uint8, PAIR_BYTES)

    def texts(self) -> tuple[str, str]:
        """Both as strings, which cannot be wiped: only for a pair made by `random` or `of`."""
        raw = self._page[:PAIR_BYTES].decode("ascii")
        return raw[:USERNAME_BYTES].rstrip(), raw[USERNAME_BYTES:].rstrip()

    def close(self) -> None:
        """Unmap the page from this process; the last one to do so gives it back to the kernel, which wipes it."""
        self._page.close()

    def __repr__(self) -> str:
        return "Credentials(...)"

    def __reduce__(self) -> NoReturn:
        raise TypeError("credentials are not pickled")


def undumped(size: int, begin: int = 0) -> np.ndarray:
    """`size` zeroed bytes of which no core file has those from `begin` on, nor those before them in the same page."""
    pages = mmap.mmap(-1, max(size, 1), flags=mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
    page = begin // mmap.PAGESIZE * mmap.PAGESIZE
    if page < len(pages):
        pages.madvise(mmap.MADV_DONTDUMP, page, len(pages) - page)
    return np.frombuffer(pages, np.uint8)[:size]


# From the environment


_taken: dict[str, Credentials] = {}
_missing: dict[str, list[str]] = {}


def take_environment() -> None:
    """Copy the variables, and overwrite them where they stand: in this process's environment, which /proc shows and children inherit,
    and in the interpreter's copy. What comes to be set later is taken by the next call."""
    for prefix in PREFIXES:
        names = [prefix + name.upper() for name, _, _ in FIELDS]
        if not any(name.encode() in os.environb for name in names):
            continue
        taken = _taken[prefix] = Credentials()
        _missing[prefix] = [_take(name, taken, at, size) for name, (_, at, size) in zip(names, FIELDS, strict=True)]


def _take(name: str, into: Credentials, at: int, size: int) -> str:
    """Move one variable. What is wrong with it, or nothing."""
    value = os.environb.get(name.encode())
    if value is None:
        return f"{name} is not set"
    wrong = _fault_of(value, size)
    if not wrong:
        into._page[at : at + len(value)] = value
    libc = ctypes.CDLL(None)
    libc.getenv.restype = ctypes.c_void_p
    if found := libc.getenv(name.encode()):
        ctypes.memset(found, 0, len(value))
    del os.environ[name]
    # Bytes of one character are shared by the whole interpreter.
    if len(value) > 1:
        address = ctypes.cast(ctypes.c_char_p(value), ctypes.c_void_p).value
        assert address is not None
        ctypes.memset(address, 0, len(value))
    return f"{name}: {wrong}" if wrong else ""


def from_environment(key: str, prefix: str) -> Credentials:
    """What `prefix` + USERNAME and PASSWORD said when they were taken. CredentialsError names a variable that cannot be used."""
    take_environment()
    names = [prefix + name.upper() for name, _, _ in FIELDS]
    faults = [fault for fault in _missing.get(prefix, [f"{name} is not set" for name in names]) if fault]
    if faults:
        raise CredentialsError(f"{key}='env': {'; '.join(faults)}")
    return _taken[prefix]


def _fault_of(value: bytes, size: int) -> str:
    if 1 <= len(value) <= size and value.isascii() and all(32 <= byte < 127 for byte in value) and value == value.strip():
        return ""
    return f"expected 1 to {size} printable ASCII characters without spaces around them"


# From a file


def from_file(key: str, path: Path) -> Credentials:
    """The pair in a TOML file that nobody else may read. CredentialsError says what is wrong with the file."""
    made = Credentials()
    page = made._page
    child = os.fork()
    if child == 0:
        try:
            ctypes.CDLL(None).prctl(PR_SET_DUMPABLE, 0)
            said = _read_file(path, page)
            page[SAID_AT : SAID_AT + 2 + len(said)] = len(said).to_bytes(2, "big") + said
            page[DONE_AT] = 1
        finally:
            os._exit(0)
    os.waitpid(child, 0)
    wrong = page[SAID_AT + 2 :][: int.from_bytes(page[SAID_AT : SAID_AT + 2], "big")].decode()
    if not page[DONE_AT] or wrong:
        raise CredentialsError(f"{key}={path}: {wrong or 'it could not be read'}")
    return made


def _read_file(path: Path, page: Any) -> bytes:
    """Put the file's pair into the page. What is wrong, or nothing. Only in a process that ends: what is read stays in its memory."""
    try:
        fd = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC | os.O_NONBLOCK)
    except OSError as error:
        linked = path.is_symlink()
        return b"it is a symbolic link; expected the file itself" if linked else f"cannot open it: {error.strerror}".encode()
    refused = refusal(os.fstat(fd))
    if refused:
        return refused.encode()
    try:
        found = msgspec.toml.decode(os.read(fd, FILE_BYTES_MAX))
    except (OSError, ValueError):
        return f"not TOML; {FILE_SHAPE}".encode()
    if set(found) != {name for name, _, _ in FIELDS} or not all(isinstance(value, str) for value in found.values()):
        return FILE_SHAPE.encode()
    for name, at, size in FIELDS:
        value = found[name].encode()
        if wrong := _fault_of(value, size):
            return f"{name}: {wrong}".encode()
        page[at : at + len(value)] = value
    return b""


def refusal(status: os.stat_result) -> str:
    """Why a file with this status keeps no secret; nothing where it may."""
    if not stat.S_ISREG(status.st_mode):
        return "it is not a file; expected a file with mode 0600"
    if status.st_uid != os.geteuid():
        return f"it belongs to user {status.st_uid}, not to us ({os.geteuid()}): chown it"
    if status.st_mode & 0o077:
        return f"mode {stat.S_IMODE(status.st_mode):04o}: others may read or change it: chmod 600, and change the password"
    if status.st_size > FILE_BYTES_MAX:
        return f"bytes={status.st_size}: expected at most {FILE_BYTES_MAX}; {FILE_SHAPE}"
    return ""
