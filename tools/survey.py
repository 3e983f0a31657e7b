"""Which symbols are busy in an ITCH file, or in a packet capture of a feed."""

from collections import Counter
from collections.abc import Iterable
from itertools import islice
from pathlib import Path

from engine.feed import itch
from engine.feed.capture import Lines, messages_of
from engine.feed.peek import first_messages

# Enough to pass the directory of a whole market and see who trades.
MESSAGES_READ = 300_000


def busiest(path: Path, count: int) -> list[str]:
    """The `count` symbols with most new orders among the file's first messages, busiest first. OSError, ValueError as first_messages."""
    return _busiest(first_messages(path, MESSAGES_READ), count)


def busiest_captured(path: Path, lines: Lines, count: int) -> list[str]:
    """The same of the messages that a capture's lines carry. OSError, ValueError as Capture."""
    return _busiest(islice(messages_of(path, lines), MESSAGES_READ), count)


def _busiest(messages: Iterable[bytes], count: int) -> list[str]:
    symbols: dict[int, str] = {}
    orders: Counter[int] = Counter()
    for raw in messages:
        if not raw:
            continue
        message = itch.BY_CODE.get(raw[0])
        if message not in (itch.STOCK_DIRECTORY, itch.ADD_ORDER, itch.ADD_ORDER_MPID) or len(raw) != message.length:
            continue
        locate = int.from_bytes(raw[message["locate"] :][:2], "big")
        if message is itch.STOCK_DIRECTORY:
            symbols[locate] = _stock(raw, message)
        else:
            symbols.setdefault(locate, _stock(raw, message))
            orders[locate] += 1
    return [symbols[locate] for locate, _ in orders.most_common(count)]


def _stock(raw: bytes, message: itch.Message) -> str:
    return raw[message["stock"] :][:8].decode("ascii", "replace").rstrip()
