"""What a venue said, and what its book was after every message of it: the oracle of the fault tests, in plain Python.

It shares no code with the feed handler but the table of the wire format. A session is made once and kept: thousands of seeds are tried
on a few of them.
"""

import random
from dataclasses import dataclass, field
from functools import cache

from engine.feed import itch
from tests.itch_flow import Flow

BUY, SELL = ord("B"), ord("S")
ADDS = (itch.ADD_ORDER.code, itch.ADD_ORDER_MPID.code)
TAKES = (itch.ORDER_EXECUTED.code, itch.ORDER_EXECUTED_PRICE.code, itch.ORDER_CANCEL.code)
TRADING = "T"
# Events that end market hours, and those that begin them or the day.
CLOSING, OPENING = "MEC", "OSQ"

Order = tuple[int, int, int, int, int]
Top = tuple[int, int, int, int]
MATCHED = {message.code: message for message in (itch.ORDER_EXECUTED, itch.ORDER_EXECUTED_PRICE, itch.TRADE, itch.CROSS_TRADE)}


def get(raw: bytes, message: itch.Message, name: str) -> int:
    """A number in a message, or the first byte of a text."""
    at = message[name]
    for known in message.fields:
        if known.name == name:
            return raw[at] if known.text else int.from_bytes(raw[at : at + known.length], "big")
    raise KeyError(name)


@dataclass
class PlainBook:
    """Orders in dictionaries, which keep their order of arrival. What halts and market hours say is kept beside them."""

    orders: dict[int, list[int]] = field(default_factory=dict)
    levels: dict[tuple[int, int], dict[int, dict[int, None]]] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    listed: dict[int, bytes] = field(default_factory=dict)
    event: str = ""
    closed: bool = False

    def apply(self, raw: bytes) -> int:
        """Apply a message of a stream that is whole: the locate code of the instrument that it is about, 0 for none."""
        code, locate = raw[0], get(raw, itch.ADD_ORDER, "locate")
        if code in ADDS:
            self._add(
                get(raw, itch.ADD_ORDER, "ref"), locate, raw[itch.ADD_ORDER["side"]], get(raw, itch.ADD_ORDER, "px"),
                get(raw, itch.ADD_ORDER, "shares"),
            )  # fmt: skip
        elif code in TAKES:
            self._take(get(raw, itch.ORDER_CANCEL, "ref"), get(raw, itch.ORDER_CANCEL, "shares"))
        elif code == itch.ORDER_DELETE.code:
            self._remove(get(raw, itch.ORDER_DELETE, "ref"))
        elif code == itch.ORDER_REPLACE.code:
            side = self._remove(get(raw, itch.ORDER_REPLACE, "ref"))
            values = [get(raw, itch.ORDER_REPLACE, name) for name in ("new_ref", "px", "shares")]
            self._add(values[0], locate, side, values[1], values[2])
        else:
            return self._note(code, locate, raw)
        return locate

    def _note(self, code: int, locate: int, raw: bytes) -> int:
        if code == itch.TRADING_ACTION.code:
            self.states[locate] = chr(raw[itch.TRADING_ACTION["state"]])
            return locate
        if code == itch.STOCK_DIRECTORY.code:
            self.listed[locate] = raw
        elif code == itch.SYSTEM_EVENT.code:
            self.event = chr(raw[itch.SYSTEM_EVENT["event"]])
            self.closed = self.event in CLOSING or (self.closed and self.event not in OPENING)
        return 0

    def _add(self, ref: int, locate: int, side: int, px: int, qty: int) -> None:
        assert ref not in self.orders
        self.orders[ref] = [locate, side, px, qty]
        self.levels.setdefault((locate, side), {}).setdefault(px, {})[ref] = None

    def _take(self, ref: int, qty: int) -> None:
        order = self.orders[ref]
        order[3] -= qty
        assert order[3] >= 0
        if order[3] == 0:
            self._remove(ref)

    def _remove(self, ref: int) -> int:
        locate, side, px, _ = self.orders.pop(ref)
        levels = self.levels[locate, side]
        del levels[px][ref]
        if not levels[px]:
            del levels[px]
        return side

    def top(self, locate: int) -> Top:
        """Best bid and offer as a quote has them: px, sz, px, sz."""
        found = []
        for side, best in ((BUY, max), (SELL, min)):
            levels = self.levels.get((locate, side))
            px = best(levels) if levels else 0
            found += [px, sum(self.orders[ref][3] for ref in levels[px]) if levels else 0]
        return found[0], found[1], found[2], found[3]

    def is_good(self, locate: int) -> bool:
        """Whether a quote of this book may be called valid while the market is open."""
        bid, _, ask, _ = self.top(locate)
        return self.states.get(locate, TRADING) == TRADING and not (bid and ask and bid >= ask)

    def resting(self) -> list[Order]:
        """(locate, side, px, ref, qty) of every order: sides in order, best price first, first come first."""
        found = []
        for (locate, side), levels in sorted(self.levels.items()):
            for px in sorted(levels, reverse=side == BUY):
                found += [(locate, side, px, ref, self.orders[ref][3]) for ref in levels[px]]
        return found


class Session:
    """One session of a venue. Message n (from 1) takes book n - 1 to book n.

    by_ts finds the messages of a venue time, by_match that of a trade: its time, instrument and match number.
    """

    def __init__(self, name: str, symbols: int, messages: list[bytes]) -> None:
        self.name = name
        self.symbols = symbols
        self.messages: list[bytes] = []
        self.book = PlainBook()
        self.by_ts: dict[int, list[int]] = {}
        self.by_match: dict[tuple[int, int, int], int] = {}
        self._tops: list[list[Top]] = [[(0, 0, 0, 0)] * (symbols + 1)]
        self._good = [[True] * (symbols + 1)]
        self._closed = [False]
        self._books: dict[int, PlainBook] = {}
        for raw in messages:
            self.append(raw)

    def append(self, raw: bytes) -> None:
        self.messages.append(raw)
        changed = self.book.apply(raw)
        tops, good = list(self._tops[-1]), list(self._good[-1])
        for locate in [changed] if changed else range(1, self.symbols + 1):
            tops[locate] = self.book.top(locate)
            good[locate] = self.book.is_good(locate)
        self._tops.append(tops)
        self._good.append(good)
        self._closed.append(self.book.closed)
        now_ns = get(raw, itch.ADD_ORDER, "timestamp")
        self.by_ts.setdefault(now_ns, []).append(len(self.messages))
        if message := MATCHED.get(raw[0]):
            self.by_match[now_ns, get(raw, itch.ADD_ORDER, "locate"), get(raw, message, "match")] = len(self.messages)

    def tops_after(self, count: int) -> list[Top]:
        """What a quote of each instrument is after `count` messages."""
        return self._tops[count]

    def good_after(self, count: int, *, open_: bool = False) -> list[bool]:
        """Whether a quote of each instrument may then be called valid; `open_` takes the market to be open, whatever it is."""
        return self._good[count] if open_ or not self._closed[count] else [False] * (self.symbols + 1)

    def quotes(self, count: int) -> list[tuple[int, ...]]:
        """(instrument, n, bid_px, bid_sz, ask_px, ask_sz) for each of the first `count` messages that changes a best bid or offer."""
        found: list[tuple[int, ...]] = []
        for n in range(1, count + 1):
            before, after = self._tops[n - 1], self._tops[n]
            found += [(locate, n, *after[locate]) for locate in range(1, self.symbols + 1) if before[locate] != after[locate]]
        return found

    def book_after(self, count: int) -> PlainBook:
        if count not in self._books:
            book = PlainBook()
            for raw in self.messages[:count]:
                book.apply(raw)
            self._books[count] = book
        return self._books[count]

    def snapshot(self, count: int) -> list[bytes]:
        """What a Glimpse server sends of the book after `count` messages, the end of the snapshot left out."""
        book = self.book_after(count)
        now = get(self.messages[count - 1], itch.ADD_ORDER, "timestamp") if count else 0
        found = [itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=now, event=book.event)] if book.event else []
        found += list(book.listed.values())
        names = {locate: raw[itch.STOCK_DIRECTORY["stock"] :][:8].decode().rstrip() for locate, raw in book.listed.items()}
        for locate, state in sorted(book.states.items()):
            found.append(action(locate, names[locate], state, now))
        for locate, side, px, ref, qty in book.resting():
            found.append(
                itch.ADD_ORDER.encode(
                    locate=locate, tracking=0, timestamp=now, ref=ref, side=chr(side), shares=qty, stock=names[locate], px=px
                )
            )
        return found


def action(locate: int, stock: str, state: str, now: int) -> bytes:
    return itch.TRADING_ACTION.encode(locate=locate, tracking=0, timestamp=now, stock=stock, state=state, reserved="", reason="")


# What a session's messages are drawn from; the proof takes one of SESSIONS of them for each seed.
SESSIONS = 24
SYMBOLS = 4


@cache
def made_session(number: int, *, later: bool = False) -> Session:
    """Session `number`: a few hundred messages of a seeded flow, in which stocks are halted and sometimes the market closes. A later one
    begins after the first, under another name."""
    rng = random.Random(number * 2 + later)
    flow = Flow(number * 2 + later + 1_000, symbols=SYMBOLS)
    if later:
        # Its times are its own, and so are its references.
        flow.now_ns += 3_600_000_000_000
    flow.now_ns += 1
    messages = flow.opening()
    if later and rng.random() < 0.5:
        # A day that says nothing of its hours.
        messages = messages[2:]
    states = dict.fromkeys(range(1, SYMBOLS + 1), TRADING)
    for locate in states:
        messages.append(action(locate, f"SYM{locate}", TRADING, flow.now_ns))
    for _ in range(rng.choice([60, 150, 300, 500])):
        if rng.random() < 0.02:
            locate = rng.randrange(1, SYMBOLS + 1)
            states[locate] = rng.choice("HPQ") if states[locate] == TRADING else TRADING
            flow.now_ns += 1
            messages.append(action(locate, f"SYM{locate}", states[locate], flow.now_ns))
        messages.append(flow.next())
    if rng.random() < 0.2:
        flow.now_ns += 1
        messages.append(itch.SYSTEM_EVENT.encode(locate=0, tracking=0, timestamp=flow.now_ns, event="M"))
        messages += [flow.next() for _ in range(rng.randrange(10))]
    return Session(f"{'NIGHT' if later else 'DAY'}{number:05d}", SYMBOLS, messages)
