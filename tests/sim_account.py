"""The venue's truth, kept in plain Python from every message of its session and every byte that has left the gateway.

It knows what no gateway can: what rests at the venue this moment, and what is on its way there. What could come of both, at the worst, is
what limits are held against.
"""

from dataclasses import dataclass, field
from typing import Any, NamedTuple

from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY, SELL

NEW, REPLACE, CANCEL = ouch.ENTER_ORDER.name, ouch.REPLACE_ORDER.name, ouch.CANCEL_ORDER.name


@dataclass
class Order:
    """What the venue has of an order: `executed` is that of its whole chain of replacements. ref: as the market knows it, if it is shown;
    cross: what it waits for, N for nothing."""

    side: int
    instrument: int
    px: int
    open: int
    executed: int = 0
    ref: int = 0
    cross: str = "N"


class Trade(NamedTuple):
    """An execution as one side was told of it."""

    side: int
    instrument: int
    qty: int
    px: int
    liquidity: str
    ref: int


@dataclass
class Sent:
    """An order or replacement that has left the gateway and of which the venue has not spoken yet. root: the order that it began as."""

    side: int
    instrument: int
    px: int
    total: int
    link: int
    target: int = 0


@dataclass
class Holding:
    position: int = 0
    cash: int = 0
    bought: int = 0
    sold: int = 0
    fills: int = 0


@dataclass
class Account:
    """orders: by user_ref, those that rest; sent: those under way; executions: (match, user_ref) -> (quantity, price), and trades likewise;
    known: every order as the market knows it; retold: executions that were told once more."""

    instruments: dict[str, int]
    orders: dict[int, Order] = field(default_factory=dict)
    sent: dict[int, Sent] = field(default_factory=dict)
    holdings: dict[int, Holding] = field(default_factory=dict)
    executions: dict[tuple[int, int], tuple[int, int]] = field(default_factory=dict)
    trades: dict[tuple[int, int], Trade] = field(default_factory=dict)
    known: set[int] = field(default_factory=set)
    retold: int = 0
    prevented: int = 0
    answered: dict[int, str] = field(default_factory=dict)
    problems: list[str] = field(default_factory=list)
    messages: int = 0
    rejections: int = 0
    late_rejections: int = 0
    reached: dict[int, tuple[int, int]] | None = None

    def __post_init__(self) -> None:
        self.holdings = {number: Holding() for number in self.instruments.values()}

    # What the venue says.

    def hear(self, raw: bytes) -> str:
        """A message of the venue's session, as it stands in its log. Returns a line about it."""
        self.messages += 1
        self.reached = None
        message = ouch.OUTBOUND_BY_CODE[raw[0]]
        fields = message.decode(raw)
        handler = {
            ouch.ACCEPTED.name: self.accepted, ouch.REPLACED.name: self.replaced, ouch.CANCELED.name: self.canceled,
            ouch.AIQ_CANCELED.name: self.canceled, ouch.EXECUTED.name: self.executed, ouch.REJECTED.name: self.rejected,
        }.get(message.name)  # fmt: skip
        if handler is not None:
            handler(fields)
        return f"{message.name} {fields}"

    def accepted(self, fields: dict[str, Any]) -> None:
        ref = fields["user_ref"]
        self.sent.pop(ref, None)
        self.answered[ref] = "accepted"
        instrument = self.instruments[fields["symbol"]]
        if fields["state"] == "L":
            shown = fields["order_ref"]
            self.orders[ref] = Order(ord(fields["side"]), instrument, fields["px"], fields["quantity"], 0, shown, fields["cross"])
            self.known.add(shown)

    def replaced(self, fields: dict[str, Any]) -> None:
        ref = fields["user_ref"]
        self.sent.pop(ref, None)
        self.answered[ref] = "replaced"
        old = self.orders.pop(fields["orig_user_ref"])
        if fields["state"] == "L":
            shown = fields["order_ref"]
            self.orders[ref] = Order(old.side, old.instrument, fields["px"], fields["quantity"], old.executed, shown, fields["cross"])
            self.known.add(shown)

    def canceled(self, fields: dict[str, Any]) -> None:
        self.prevented += "quantity_prevented" in fields
        order = self.orders[fields["user_ref"]]
        order.open -= fields["quantity"]
        self.let_go(fields["user_ref"])

    def executed(self, fields: dict[str, Any]) -> None:
        ref, qty, px = fields["user_ref"], fields["quantity"], fields["px"]
        if (fields["match"], ref) in self.executions:
            # A report that the venue tells again is no second trade.
            self.retold += 1
            return
        self.executions[fields["match"], ref] = qty, px
        order = self.orders[ref]
        self.trades[fields["match"], ref] = Trade(order.side, order.instrument, qty, px, fields["liquidity"], order.ref)
        order.open -= qty
        order.executed += qty
        held, direction = self.holdings[order.instrument], 1 if order.side == BUY else -1
        held.position += direction * qty
        held.cash -= direction * qty * px
        held.fills += 1
        if order.side == BUY:
            held.bought += qty
        else:
            held.sold += qty
        self.let_go(ref)

    def rejected(self, fields: dict[str, Any]) -> None:
        sent = self.sent.pop(fields["user_ref"], None)
        self.rejections += 1
        self.late_rejections += sent is None or sent.target != 0
        self.answered[fields["user_ref"]] = "rejected"

    def let_go(self, ref: int) -> None:
        if self.orders[ref].open < 0:
            self.problems.append(f"the venue took more off order {ref} than it had: {self.orders[ref]}")
        if self.orders[ref].open <= 0:
            del self.orders[ref]

    # What we say.

    def say(self, name: str, fields: dict[str, Any], link: int) -> None:
        """An order or replacement leaves the gateway on connection number `link`."""
        self.reached = None
        if name == NEW:
            instrument = self.instruments.get(fields["symbol"], 0)
            self.sent[fields["user_ref"]] = Sent(ord(fields["side"]), instrument, fields["px"], fields["quantity"], link)
        elif name == REPLACE:
            target = self.root(fields["orig_user_ref"])
            first = self.orders.get(target) or self.sent.get(target)
            if first is not None:
                kept = fields["orig_user_ref"]
                self.sent[fields["user_ref"]] = Sent(first.side, first.instrument, fields["px"], fields["quantity"], link, kept)

    def never_left(self, ref: int) -> None:
        """An order that was ready never leaves."""
        self.reached = None
        self.sent.pop(ref, None)

    def root(self, ref: int) -> int:
        """The first of a chain of replacements under way: an order that rests, or a new one that is under way itself."""
        while ref in self.sent and self.sent[ref].target:
            ref = self.sent[ref].target
        return ref

    def lose(self, link: int) -> None:
        """A connection is over at the venue's end too: what it has not spoken of by now never arrived."""
        self.reached = None
        self.sent = {ref: sent for ref, sent in self.sent.items() if sent.link != link}

    # What may come of it.

    def chains(self) -> list[tuple[int, int, int, list[int]]]:
        """(instrument, side, the most that may be open, prices) of each order with the replacements that are on their way to it."""
        worst: dict[int, list[Any]] = {}
        for ref, order in self.orders.items():
            worst[ref] = [order.instrument, order.side, order.open, [order.px]]
        for ref, sent in self.sent.items():
            if not sent.target:
                worst[ref] = [sent.instrument, sent.side, sent.total, [sent.px]]
        for ref, sent in self.sent.items():
            root = self.root(ref)
            if sent.target and root in worst:
                executed = self.orders[root].executed if root in self.orders else 0
                worst[root][2] = max(worst[root][2], sent.total - executed)
                worst[root][3].append(sent.px)
        return [(instrument, side, qty, prices) for instrument, side, qty, prices in worst.values()]

    def reach(self) -> dict[int, tuple[int, int]]:
        """By instrument: how long and how short the account may come to be, if all that is open or under way trades on one side."""
        if self.reached is not None:
            return self.reached
        found = {number: [held.position, -held.position] for number, held in self.holdings.items()}
        for instrument, side, qty, _ in self.chains():
            if instrument in found:
                found[instrument][0 if side == BUY else 1] += qty
        self.reached = {number: (long, short) for number, (long, short) in found.items()}
        return self.reached

    def left_by(self, ref: int) -> int:
        """How much less than `reach` has it is open on its side once the venue has done what order `ref` asks: 0 but for a replacement that
        asks for less than what it replaces may have open."""
        root = self.root(ref)
        if ref not in self.sent or (root not in self.orders and root not in self.sent):
            return 0
        executed = self.orders[root].executed if root in self.orders else 0
        first = self.orders[root].open if root in self.orders else self.sent[root].total
        totals = [sent.total - executed for other, sent in self.sent.items() if sent.target and self.root(other) == root]
        return max([first, *totals]) - (self.sent[ref].total - executed)

    def open_on(self, instrument: int, side: int) -> int:
        return sum(order.open for order in self.orders.values() if (order.instrument, order.side) == (instrument, side))

    def line(self, instrument: int) -> dict[str, int]:
        """As a positions board has it."""
        held = self.holdings[instrument]
        return {
            "position": held.position, "cash": held.cash, "bought": held.bought, "sold": held.sold, "fills": held.fills,
            "open_buy": self.open_on(instrument, BUY), "open_sell": self.open_on(instrument, SELL),
        }  # fmt: skip
