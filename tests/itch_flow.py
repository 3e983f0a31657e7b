"""A small seeded flow of ITCH messages for tests: plausible, valid, every type of the specification, in plain Python.

It keeps what rests in a dict, so that executions, cancels and replaces are of orders that are there and of quantities they have.
"""

import random
from collections.abc import Iterator

from engine.feed import itch
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, LENGTH_BYTES, SEQUENCE_AT, SESSION_BYTES
from engine.wire.table import Field, Message, Value

MIDDLE_PX = 1_000_000
TICK_PX = 100
SESSION = "TEST000001"


def frame(messages: list[bytes]) -> bytes:
    """Messages as a file has them: each behind its length."""
    return b"".join(len(raw).to_bytes(LENGTH_BYTES, "big") + raw for raw in messages)


def unframe(raw: bytes) -> list[bytes]:
    """The whole messages of a file."""
    messages = []
    at = 0
    while at + LENGTH_BYTES <= len(raw):
        end = at + LENGTH_BYTES + int.from_bytes(raw[at : at + LENGTH_BYTES], "big")
        if end > len(raw):
            break
        messages.append(raw[at + LENGTH_BYTES : end])
        at = end
    return messages


def packet(sequence: int, messages: list[bytes], *, session: str = SESSION, count: int | None = None) -> bytes:
    """A MoldUDP64 packet. count says something else than how many messages there are: 0 is a heartbeat, END_OF_SESSION the end."""
    head = session.encode().ljust(SESSION_BYTES) + sequence.to_bytes(COUNT_AT - SEQUENCE_AT, "big")
    said = len(messages) if count is None else count
    return head + said.to_bytes(HEADER_BYTES - COUNT_AT, "big") + frame(messages)


def heartbeat(sequence: int) -> bytes:
    return packet(sequence, [])


def end_of_session(sequence: int) -> bytes:
    return packet(sequence, [], count=END_OF_SESSION)


def random_value(field: Field, rng: random.Random) -> Value:
    """Any value of a field, the highest and lowest among them. Numbers of 8 bytes keep their top bit free, as venues do."""
    if field.text:
        return "".join(rng.choice("ABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789") for _ in range(field.length))
    most = (1 << 8 * field.length - (field.length == 8)) - 1
    return rng.choice([0, most, rng.randint(0, most)])


def random_message(message: Message, rng: random.Random, **given: Value) -> tuple[bytes, dict[str, Value]]:
    """A message of a type with any value in every field but those given: its bytes, and all values."""
    values = {field.name: random_value(field, rng) for field in message.fields if field.name != "type"} | given
    return message.encode(**values), values


class Flow:
    """Seeded messages, one after another. `resting` is what a book of them must hold: ref -> [locate, side, px, shares]."""

    def __init__(self, seed: int, *, symbols: int = 4, crossing: bool = False, first_ref: int = 1) -> None:
        self.rng = random.Random(seed)
        self.symbols = symbols
        self.crossing = crossing
        self.resting: dict[int, list[int]] = {}
        self.refs: list[int] = []
        self.next_ref = first_ref
        self.now_ns = 34_200_000_000_000
        self.match = 0

    def messages(self, count: int) -> list[bytes]:
        return [self.next() for _ in range(count)]

    def opening(self) -> list[bytes]:
        """Start of the day, and the directory."""
        head = [self._head(itch.SYSTEM_EVENT, 0, event="O"), self._head(itch.SYSTEM_EVENT, 0, event="Q")]
        return head + [
            random_message(itch.STOCK_DIRECTORY, self.rng, locate=locate, timestamp=self.now_ns, stock=symbol, round_lot_size=100)[0]
            for locate, symbol in enumerate(self.names(), 1)
        ]

    def names(self) -> list[str]:
        return [f"SYM{number}" for number in range(1, self.symbols + 1)]

    def next(self) -> bytes:
        self.now_ns += self.rng.randrange(1, 10_000)
        draw = self.rng.random()
        if draw < 0.48 or len(self.refs) < 5:
            return self._add()
        if draw < 0.98:
            return self._act()
        return self._other()

    def _head(self, message: Message, locate: int, **values: Value) -> bytes:
        return message.encode(locate=locate, tracking=0, timestamp=self.now_ns, **values)

    def _price(self, side: int) -> int:
        away = TICK_PX * (1 + int(self.rng.expovariate(0.05)))
        if self.crossing:
            away -= 10 * TICK_PX
        return MIDDLE_PX + (away if side == ord("S") else -away)

    def _fresh_ref(self) -> int:
        self.next_ref += self.rng.choice([1, 1, 1, 2, 3, 17, 1_000])
        return self.next_ref

    def _add(self) -> bytes:
        locate, side = self.rng.randrange(1, self.symbols + 1), self.rng.choice(b"BS")
        ref, px, shares = self._fresh_ref(), self._price(side), self.rng.randrange(1, 1_000)
        self.resting[ref] = [locate, side, px, shares]
        self.refs.append(ref)
        values: dict[str, Value] = {"ref": ref, "side": chr(side), "shares": shares, "stock": self.names()[locate - 1], "px": px}
        if self.rng.random() < 0.1:
            return self._head(itch.ADD_ORDER_MPID, locate, **values, attribution="NSDQ")
        return self._head(itch.ADD_ORDER, locate, **values)

    def _pick(self) -> int:
        """A resting order: the last in a list that is kept by swapping."""
        place = self.rng.randrange(len(self.refs))
        self.refs[place], self.refs[-1] = self.refs[-1], self.refs[place]
        return self.refs[-1]

    def _take(self, ref: int, shares: int) -> None:
        self.resting[ref][3] -= shares
        if self.resting[ref][3] == 0:
            del self.resting[ref]
            self.refs.pop()

    def _act(self) -> bytes:
        ref = self._pick()
        locate, side, px, shares = self.resting[ref]
        kind = self.rng.choices("DECXU", weights=[50, 20, 5, 10, 15])[0]
        part = self.rng.choice([shares, self.rng.randrange(1, shares + 1)])
        self.match += 1
        if kind == "D":
            self._take(ref, shares)
            return self._head(itch.ORDER_DELETE, locate, ref=ref)
        if kind == "U":
            self._take(ref, shares)
            new_ref, new_px, new_shares = self._fresh_ref(), self._price(side), self.rng.randrange(1, 1_000)
            self.resting[new_ref] = [locate, side, new_px, new_shares]
            self.refs.append(new_ref)
            return self._head(itch.ORDER_REPLACE, locate, ref=ref, new_ref=new_ref, shares=new_shares, px=new_px)
        self._take(ref, part)
        if kind == "X":
            return self._head(itch.ORDER_CANCEL, locate, ref=ref, shares=part)
        if kind == "E":
            return self._head(itch.ORDER_EXECUTED, locate, ref=ref, shares=part, match=self.match)
        printable = self.rng.choice("YN")
        return self._head(itch.ORDER_EXECUTED_PRICE, locate, ref=ref, shares=part, match=self.match, printable=printable, px=px + TICK_PX)

    def _other(self) -> bytes:
        """A message about no order in the book; those that would halt a stock or close the market are not for a flow."""
        harmless = [
            itch.REG_SHO, itch.PARTICIPANT_POSITION, itch.MWCB_DECLINE_LEVEL, itch.IPO_QUOTING_PERIOD, itch.LULD_COLLAR, itch.TRADE,
            itch.CROSS_TRADE, itch.BROKEN_TRADE, itch.NET_ORDER_IMBALANCE, itch.RETAIL_INTEREST, itch.DIRECT_LISTING,
        ]  # fmt: skip
        locate = self.rng.randrange(1, self.symbols + 1)
        return random_message(self.rng.choice(harmless), self.rng, locate=locate, timestamp=self.now_ns)[0]


def in_packets(messages: list[bytes], rng: random.Random, *, first: int = 1, most: int = 20) -> Iterator[bytes]:
    """Messages in MoldUDP64 packets of 1 to `most` of them."""
    at = 0
    while at < len(messages):
        size = rng.randrange(1, most + 1)
        yield packet(first + at, messages[at : at + size])
        at += size
