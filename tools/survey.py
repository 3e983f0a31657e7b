"""Which symbols are busy in an ITCH file."""

from collections import Counter
from pathlib import Path

from engine.feed import itch
from engine.feed.peek import first_messages

# Enough to pass the directory of a whole market and see who trades.
MESSAGES_READ = 300_000


def busiest(path: Path, count: int) -> list[str]:
    """The `count` symbols with most new orders among the file's first messages, busiest first. OSError, ValueError as first_messages."""
    symbols: dict[int, str] = {}
    orders: Counter[int] = Counter()
    for raw in first_messages(path, MESSAGES_READ):
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
