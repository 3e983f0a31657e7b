"""A seeded synthetic ITCH day, as large as a benchmark wants it: numpy throughout, so millions of messages take seconds.

Every order is added, perhaps cut or partly executed, perhaps replaced, and then deleted, executed to its end, or left resting. Bids
stay below and asks above a fixed middle price, so no book crosses. Half of those that go live briefly, as most orders do on a real
day; the other half go at any time, so that the order looked up is rarely in a cache. Refs grow in steps of 1 to 4.
"""

from dataclasses import dataclass

import numpy as np

from engine.feed import itch
from engine.wire.table import Message

TICK_PX = 100
ROUND_LOT = 100
SESSION_START_NS = 34_200_000_000_000
SESSION_NS = 23_400_000_000_000
# What may happen to an order between its add and its end, in this order; and how it ends.
CUT_SHARE, PART_EXECUTED_SHARE, REPLACED_SHARE = 0.03, 0.05, 0.08
DELETED_SHARE, EXECUTED_SHARE = 0.85, 0.12
LENGTH_PREFIX = 2


@dataclass(frozen=True)
class Orders:
    """One row an order: where it rests, and when what happens to it (a share of the day; nan: never)."""

    locate: np.ndarray
    side: np.ndarray
    px: np.ndarray
    new_px: np.ndarray
    shares: np.ndarray
    added: np.ndarray
    cut: np.ndarray
    part: np.ndarray
    replaced: np.ndarray
    ended: np.ndarray
    ending: np.ndarray


def make_day(messages: int, *, live: int | None = None, symbols: int = 200, seed: int = 1) -> np.ndarray:
    """About `messages` framed ITCH messages as uint8, of which `live` orders (default: 60 %) still rest at the end.

    ValueError where that many orders cannot rest after that many messages.
    """
    live = messages * 6 // 10 if live is None else live
    if not 0 <= live <= messages - 2 * symbols or symbols > 65_535:
        raise ValueError(f"live={live} messages={messages} symbols={symbols}: expected 0 <= live <= messages - 2 x symbols")
    rng = np.random.default_rng(seed)
    extra = CUT_SHARE + PART_EXECUTED_SHARE + REPLACED_SHARE
    # messages = live * (1 + extra) + gone * (2 + extra): those that rest are touched as often as those that go.
    resting = min(live, int(messages / (1 + extra)))
    gone = max(0, int((messages - 2 * symbols - resting * (1 + extra)) / (2 + extra)))
    orders = _draw_orders(rng, resting, gone, symbols)
    return np.concatenate([_head(symbols), _encode(orders, rng)])


def _draw_orders(rng: np.random.Generator, resting: int, gone: int, symbols: int) -> Orders:
    count = resting + gone
    weights = 1 / (np.arange(symbols) + 5)
    locate = 1 + rng.choice(symbols, count, p=weights / weights.sum())
    middle = TICK_PX * rng.integers(1_500, 60_000, symbols + 1)
    scale = rng.choice([4.0, 40.0, 400.0], count, p=[0.7, 0.25, 0.05])
    buys = rng.random(count) < 0.5

    def price() -> np.ndarray:
        away = TICK_PX * np.minimum(1 + rng.exponential(scale).astype(np.int64), 1_400)
        return np.where(buys, middle[locate] - away, middle[locate] + away)

    added = np.sort(rng.random(count))
    goes = np.zeros(count, bool)
    goes[rng.choice(count, gone, replace=False)] = True
    rest = 1 - added
    brief = np.minimum(rng.exponential(2e-4, count), rest * rng.random(count))
    ended = added + np.where(rng.random(count) < 0.5, brief, rest * rng.random(count))
    between = np.sort(rng.random((count, 3)), axis=1) * (np.where(goes, ended, 1.0) - added)[:, None] + added[:, None]

    def some(step: int, share: float) -> np.ndarray:
        return np.where(rng.random(count) < share, between[:, step], np.nan)

    ending = rng.choice(np.frombuffer(b"DEC", np.uint8), count, p=[DELETED_SHARE, EXECUTED_SHARE, 1 - DELETED_SHARE - EXECUTED_SHARE])
    return Orders(
        locate, np.where(buys, ord("B"), ord("S")), price(), price(), ROUND_LOT * rng.integers(3, 12, count), added,
        some(0, CUT_SHARE), some(1, PART_EXECUTED_SHARE), some(2, REPLACED_SHARE), np.where(goes, ended, np.nan), ending,
    )  # fmt: skip


def _encode(orders: Orders, rng: np.random.Generator) -> np.ndarray:
    """All events of all orders in the order of time, framed."""
    count = len(orders.added)
    kinds = (("A", orders.added), ("X", orders.cut), ("E", orders.part), ("U", orders.replaced), (" ", orders.ended))
    times = np.concatenate([time for _, time in kinds])
    order = np.tile(np.arange(count), len(kinds))
    code = np.repeat(np.frombuffer("".join(kind for kind, _ in kinds).encode(), np.uint8), count)
    last = code == ord(" ")
    code[last] = orders.ending
    attributed = (code == ord("A")) & (rng.random(len(code)) < 0.02)
    code[attributed] = ord("F")
    happens = np.flatnonzero(~np.isnan(times))
    events = happens[np.argsort(times[happens], kind="stable")]
    order, code, last, times = order[events], code[events], last[events], times[events]

    gives_ref = np.isin(code, [ord("A"), ord("F"), ord("U")])
    numbers = np.cumsum(np.where(gives_ref, rng.integers(1, 5, len(code)), 0))
    first_ref, second_ref = np.zeros(count, np.int64), np.zeros(count, np.int64)
    first_ref[order[gives_ref & (code != ord("U"))]] = numbers[gives_ref & (code != ord("U"))]
    second_ref[order[code == ord("U")]] = numbers[code == ord("U")]
    was_replaced = ~np.isnan(orders.replaced)
    left = orders.shares - np.where(np.isnan(orders.cut), 0, ROUND_LOT) - np.where(np.isnan(orders.part), 0, ROUND_LOT)
    fields = {
        "locate": orders.locate[order],
        "tracking": np.zeros(len(order), np.int64),
        "timestamp": SESSION_START_NS + (times * SESSION_NS).astype(np.int64),
        "ref": np.where(last & was_replaced[order], second_ref[order], first_ref[order]),
        "new_ref": second_ref[order],
        "side": orders.side[order],
        "px": np.where((code == ord("U")) | (code == ord("C")), orders.new_px[order], orders.px[order]),
        "stock": orders.locate[order],
        "attribution": np.zeros(len(order), np.int64),
        "match": np.arange(1, len(order) + 1),
        "printable": np.full(len(order), ord("Y")),
        "shares": np.select(
            [gives_ref & (code != ord("U")), code == ord("U"), last], [orders.shares[order], left[order], left[order]], ROUND_LOT
        ),
    }
    return _scatter(code, fields)


def _scatter(code: np.ndarray, fields: dict[str, np.ndarray]) -> np.ndarray:
    """Frame every message and put each where the lengths of those before it say."""
    lengths = np.zeros(256, np.int64)
    for letter in np.unique(code):
        lengths[letter] = LENGTH_PREFIX + itch.BY_CODE[int(letter)].length
    ends = np.cumsum(lengths[code])
    starts = ends - lengths[code]
    out = np.empty(int(ends[-1]) if len(ends) else 0, np.uint8)
    for letter in np.unique(code):
        message = itch.BY_CODE[int(letter)]
        rows = np.flatnonzero(code == letter)
        for part in np.array_split(rows, 1 + len(rows) // 100_000):
            body = _rows(message, {name: fields[name][part] for name in message.offsets if name != "type"})
            out[starts[part][:, None] + np.arange(body.shape[1])] = body
    return out


def _rows(message: Message, values: dict[str, np.ndarray]) -> np.ndarray:
    """Framed messages of one type, shape (n, 2 + length) uint8. A text of 8 is a symbol, given as its number."""
    count = len(next(iter(values.values())))
    out = np.zeros((count, LENGTH_PREFIX + message.length), np.uint8)
    out[:, 0], out[:, 1] = divmod(message.length, 256)
    out[:, LENGTH_PREFIX] = message.code
    for field in message.fields[1:]:
        at = LENGTH_PREFIX + message[field.name]
        value = values[field.name].astype(np.int64)
        if field.text and field.length > 1:
            texts = np.char.add("S", value.astype("U7")) if field.length == 8 else np.full(count, "NSDQ")
            padded = np.char.ljust(texts.astype("S8"), field.length).astype(f"S{field.length}")
            out[:, at : at + field.length] = padded.view(np.uint8).reshape(count, -1)
        else:
            for byte in range(field.length):
                out[:, at + byte] = value >> 8 * (field.length - 1 - byte) & 0xFF
    return out


def _head(symbols: int) -> np.ndarray:
    """Start of market hours, and the directory."""
    head = [itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=SESSION_START_NS, event="Q")]
    head += [
        itch.STOCK_DIRECTORY.encode(
            locate=locate, tracking=0, timestamp=SESSION_START_NS, stock=f"S{locate}", market_category="Q", financial_status="N",
            round_lot_size=ROUND_LOT, round_lots_only="N", issue_classification="C", issue_subtype="Z", authenticity="P",
            short_sale_threshold="N", ipo_flag="N", luld_tier="1", etp_flag="N", etp_leverage=0, inverse="N",
        )
        for locate in range(1, symbols + 1)
    ]  # fmt: skip
    return np.frombuffer(b"".join(len(raw).to_bytes(LENGTH_PREFIX, "big") + raw for raw in head), np.uint8)
