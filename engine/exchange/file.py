"""Whether a file is worth replaying: a look at its first messages. It is opened for the kernel by engine/feed/source.py."""

import gzip
import zlib
from pathlib import Path
from typing import BinaryIO, cast

from engine.feed import itch
from engine.feed.source import GZIP_MAGIC

MESSAGES_CHECKED = 8
WANTED = "expected NASDAQ ITCH 5.0 messages, each after its two-byte length"


def check_itch(path: Path) -> None:
    """OSError where a file cannot be read, ValueError where its first messages are not ITCH 5.0 with two-byte lengths."""
    if path.is_dir():
        raise ValueError(f"path={path}: it is a directory; {WANTED}")
    with _open(path) as file:
        for number in range(MESSAGES_CHECKED):
            try:
                head = file.read(2)
                raw = file.read(int.from_bytes(head, "big"))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                raise ValueError(f"path={path}: not a readable gzip file: {error}; {WANTED}") from None
            if len(head) < 2 or len(raw) < int.from_bytes(head, "big") or not raw:
                if number == 0:
                    raise ValueError(f"path={path}: {'it is empty' if not head else 'it ends in its first message'}; {WANTED}")
                return
            _check_message(path, number, raw)


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb") if zipped else path.open("rb"))


def _check_message(path: Path, number: int, raw: bytes) -> None:
    """A type that is not in the table may be a newer one, but not at the start."""
    known = itch.BY_CODE.get(raw[0])
    if (known is None and number == 0) or (known is not None and known.length != len(raw)):
        raise ValueError(f"path={path}: message {number} has type={raw[:1]!r} and length={len(raw)}; {WANTED}")
