"""A first look at an ITCH file: is it one, and which symbols are busy in it."""

import gzip
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, cast

from engine.feed import itch

GZIP_MAGIC = b"\x1f\x8b"
# Enough to pass the directory of a whole market and see who trades.
MESSAGES_READ = 300_000


class NotItch(ValueError):
    """A file that is not ITCH 5.0 with two-byte lengths; the text says what was found."""


def busiest(path: Path, count: int) -> list[str]:
    """The `count` symbols with most new orders among the file's first messages, busiest first. NotItch, OSError."""
    symbols: dict[int, str] = {}
    orders: Counter[int] = Counter()
    for raw in messages(path, MESSAGES_READ):
        locate = int.from_bytes(raw[1:3], "big")
        if raw[0] == itch.STOCK_DIRECTORY.code:
            symbols[locate] = raw[itch.STOCK_DIRECTORY["stock"] :][:8].decode("ascii", "replace").rstrip()
        elif raw[0] in (itch.ADD_ORDER.code, itch.ADD_ORDER_MPID.code):
            symbols.setdefault(locate, raw[itch.ADD_ORDER["stock"] :][:8].decode("ascii", "replace").rstrip())
            orders[locate] += 1
    return [symbols[locate] for locate, _ in orders.most_common(count)]


def messages(path: Path, count: int) -> Iterator[bytes]:
    """The first messages of an ITCH file, gzip or plain. NotItch where the first ones are not ITCH; a torn end just ends."""
    with _open(path) as file:
        for number in range(count):
            try:
                head = file.read(2)
                raw = file.read(int.from_bytes(head, "big"))
            except (EOFError, gzip.BadGzipFile, zlib.error) as error:
                if number == 0:
                    raise NotItch(f"feed={path}: not a readable gzip file: {error}") from None
                return
            if number < 8:
                _check(path, number, head, raw)
            if len(head) < 2 or len(raw) < int.from_bytes(head, "big"):
                return
            if len(raw) > 11:
                yield raw


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        compressed = file.read(2) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb") if compressed else path.open("rb"))


def _check(path: Path, number: int, head: bytes, raw: bytes) -> None:
    if number == 0 and len(head) < 2:
        raise NotItch(f"feed={path}: the file is empty, expected NASDAQ ITCH 5.0 messages, each after its two-byte length")
    known = itch.BY_CODE.get(raw[0]) if raw else None
    if head and known is not None and known.length != int.from_bytes(head, "big"):
        raise NotItch(
            f"feed={path}: message {number} has type={chr(raw[0])!r} and length={int.from_bytes(head, 'big')}, expected {known.length}: "
            "not NASDAQ ITCH 5.0 with two-byte length framing"
        )
    if number == 0 and known is None:
        raise NotItch(f"feed={path}: first bytes {(head + raw[:6]).hex(' ')}: not NASDAQ ITCH 5.0 with two-byte length framing")
