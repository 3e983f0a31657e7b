"""A look at the beginning of an ITCH file, with plain Python: is it one, and what is in it. Kernels read through source.py."""

import gzip
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from engine.feed import itch
from engine.feed.pcap import GZIP_MAGIC

MESSAGES_CHECKED = 8
WANTED = "expected NASDAQ ITCH 5.0 messages, each after its two-byte length"


def check_itch(path: Path) -> None:
    """OSError where a file cannot be read, ValueError where its first messages are not ITCH 5.0 with two-byte lengths."""
    for _ in first_messages(path, MESSAGES_CHECKED):
        pass


def first_messages(path: Path, count: int) -> Iterator[bytes]:
    """Up to `count` messages from the beginning of an ITCH file, gzip or plain, without their lengths.

    A torn end just ends them. OSError where the file cannot be read, ValueError where it does not begin as ITCH 5.0.
    """
    if path.is_dir():
        raise ValueError(f"path={path}: it is a directory; {WANTED}")
    with _open(path) as file:
        for number in range(count):
            try:
                head = file.read(2)
                raw = file.read(int.from_bytes(head, "big"))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                if number < MESSAGES_CHECKED:
                    raise ValueError(f"path={path}: not a readable gzip file: {error}; {WANTED}") from None
                return
            if len(head) < 2 or len(raw) < int.from_bytes(head, "big") or not raw:
                if number == 0:
                    raise ValueError(f"path={path}: {'it is empty' if not head else 'it ends in its first message'}; {WANTED}")
                return
            if number < MESSAGES_CHECKED:
                _check_message(path, number, raw)
            yield raw


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb") if zipped else path.open("rb"))


def _check_message(path: Path, number: int, raw: bytes) -> None:
    """A type that is not in the table may be a newer one, but not at the start."""
    known = itch.BY_CODE.get(raw[0])
    if (known is None and number == 0) or (known is not None and known.length != len(raw)):
        raise ValueError(f"path={path}: message {number} has type={raw[:1]!r} and length={len(raw)}; {WANTED}")
