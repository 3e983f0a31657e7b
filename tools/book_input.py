"""What `tickpath book` reads: an ITCH file or standard input, plain or gzip, in pieces that a thread reads ahead.

file ─▶ (unzip) ─▶ piece of PIECE_BYTES ─▶ kernel       PIECES of them go round; nothing is written anywhere
"""

import contextlib
import os
import queue
import stat
import sys
import threading
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import IO, Any, NamedTuple

import numpy as np

from engine.feed.moldudp64 import LENGTH_BYTES
from engine.feed.pcap import GZIP_MAGIC, PCAP_MAGICS, PCAPNG_MAGIC, ZSTD_MAGIC

unzipping: Any
try:
    # Twice as fast as the zlib of Python's own library, and used the same way.
    from isal import isal_zlib as unzipping
except ImportError:  # pragma: no cover - a platform for which there is no wheel
    unzipping = zlib

# To zlib: a gzip header is expected, and its checksum tested.
GZIP_WINDOW = 31
ZIPPED_BYTES = 1 << 18
UNZIPPED_BYTES = 1 << 19
# As many as are unzipped while the kernels are loaded.
PIECES = 12
PIECE_BYTES = 2 << 20
# The longest message with its length: what may be left over of one piece, and is put before the next.
HEAD_BYTES = LENGTH_BYTES + 0xFFFF
# Of the kinds of file that are taken for ITCH by mistake, what each begins with, and what to do with it.
MISTAKEN = {
    **dict.fromkeys((*PCAP_MAGICS, PCAPNG_MAGIC), "a packet capture: see `tickpath capture` and `tickpath run --feed`"),
    b"PK\x03\x04": "a zip archive: give `unzip -p FILE | tickpath book -`",
    ZSTD_MAGIC: "compressed with zstd: give `zstd -dc FILE | tickpath book -`",
    b"BZh": "compressed with bzip2: give `bzip2 -dc FILE | tickpath book -`",
    b"\xfd7zXZ": "compressed with xz: give `xz -dc FILE | tickpath book -`",
    b"PAR1": "a Parquet file",
}


class Piece(NamedTuple):
    """buffer[HEAD_BYTES:HEAD_BYTES + size] are the bytes; room for what was left over lies before them."""

    buffer: np.ndarray
    size: int


class BookInput:
    """An ITCH file being read. `total_bytes` is its size on disk (0: not known), `read_bytes` how much of that has been read.

    OSError where it cannot be opened, ValueError where it is a directory, an empty terminal, or plainly of another kind.
    """

    def __init__(self, path: str) -> None:
        self.name = "standard input" if path == "-" else path
        self._file = _open(path)
        status = os.fstat(self._file.fileno())
        self.total_bytes = status.st_size if stat.S_ISREG(status.st_mode) else 0
        self.read_bytes = 0
        self.cut_short = ""
        head = self._file.peek(8)[:8]  # type: ignore[attr-defined]
        self.zipped = head.startswith(GZIP_MAGIC)
        for magic, what in MISTAKEN.items():
            if head.startswith(magic):
                raise ValueError(f"{self.name}: it is {what}; expected NASDAQ ITCH 5.0 with 2-byte lengths, plain or gzip")
        if path.endswith(".gz") and not self.zipped:
            raise ValueError(f"{self.name}: expected gzip, as its name says, and it does not begin with 1f 8b")
        self._free: queue.Queue[np.ndarray] = queue.Queue()
        for _ in range(PIECES):
            self._free.put(np.empty(HEAD_BYTES + PIECE_BYTES, np.uint8))
        self._read: queue.Queue[Piece | BaseException | None] = queue.Queue()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="unzip", daemon=True)
        self._thread.start()

    def take(self) -> Piece | None:
        """The next piece, or None at the end. OSError where reading fails."""
        item = self._read.get()
        if isinstance(item, BaseException):
            raise item
        return item

    def give_back(self, piece: Piece) -> None:
        self._free.put(piece.buffer)

    def close(self) -> None:
        """Stop reading. The thread is a daemon: one that waits for standard input is not waited for."""
        self._stop.set()
        self._free.put(np.empty(0, np.uint8))

    def _run(self) -> None:
        try:
            read = Unzipped(self._file).read if self.zipped else self._read_plain
            rest = memoryview(b"")
            while not self._stop.is_set():
                buffer = self._free.get()
                size = 0
                while size < PIECE_BYTES and not self._stop.is_set():
                    if not rest and not (rest := memoryview(self._next(read))):
                        break
                    part = rest[: PIECE_BYTES - size]
                    buffer[HEAD_BYTES + size : HEAD_BYTES + size + len(part)] = np.frombuffer(part, np.uint8)
                    size += len(part)
                    rest = rest[len(part) :]
                if size:
                    self._read.put(Piece(buffer, size))
                if size < PIECE_BYTES:
                    break
            self._read.put(None)
        except BaseException as error:  # told to whoever takes the next piece
            self._read.put(error)

    def _read_plain(self) -> bytes:
        return self._file.read(UNZIPPED_BYTES)

    def _next(self, read: Callable[[], bytes]) -> bytes:
        """Some more bytes, none at the end. A gzip stream that breaks ends there, and says so in cut_short."""
        try:
            data = read()
        except (EOFError, zlib.error, unzipping.error) as error:
            self.cut_short = str(error)
            return b""
        if self.total_bytes:
            self.read_bytes = self._file.tell()
        return data


class Unzipped:
    """A gzip file as bytes, one member after the other. Unlike gzip.open it gives all that came before a fault, and then tells it."""

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._member = unzipping.decompressobj(GZIP_WINDOW)

    def read(self) -> bytes:
        """At most UNZIPPED_BYTES, b"" at the end. EOFError where the stream is cut short, zlib's or isal's error where it is damaged."""
        while True:
            zipped = self._member.unconsumed_tail or self._file.read(ZIPPED_BYTES)
            if self._member.eof:
                # Zeros may fill up the last block of a tape or a disk.
                zipped = (self._member.unused_data + zipped).lstrip(b"\0")
                while not zipped and (more := self._file.read(ZIPPED_BYTES)):
                    zipped = more.lstrip(b"\0")
                if not zipped:
                    return b""
                self._member = unzipping.decompressobj(GZIP_WINDOW)
            if not zipped:
                raise EOFError("the gzip stream is cut short")
            try:
                data: bytes = self._member.decompress(zipped, UNZIPPED_BYTES)
            except (zlib.error, unzipping.error) as error:
                raise unzipping.error(f"the gzip stream is damaged: {error}") from None
            if data:
                return data


def _open(path: str) -> IO[bytes]:
    if path == "-":
        if sys.stdin.isatty():
            raise ValueError("standard input is a terminal: pipe an ITCH file into it, as in `zcat FILE.gz | tickpath book -`")
        # An object of our own: the thread may be reading it when the interpreter ends, which takes sys.stdin with it.
        return open(0, "rb", closefd=False)
    if Path(path).is_dir():
        raise ValueError(f"{path}: it is a directory, expected an ITCH file")
    file = Path(path).open("rb")  # noqa: SIM115
    with contextlib.suppress(OSError):
        os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
    return file
