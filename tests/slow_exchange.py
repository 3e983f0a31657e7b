"""The exchange written the obvious way: lists, sorted by price and then by time, and everything said out loud as dictionaries.

What tests/test_matching.py compares the kernels with. It shares no code with them but the tables of the wire formats.
"""

from dataclasses import dataclass, field
from typing import Any

from engine.feed import itch
from engine.gateway.ouch import v50 as ouch

FIRST = 1 << 40
OTHER = {"B": "S", "S": "B"}

Message = dict[str, Any]


@dataclass
class Resting:
    """An order on the book. `executed`: what a client's chain has executed, or what clients took from one of history's orders. `mpid`:
    the participant to whom history attributes it."""

    ref: int
    locate: int
    side: str
    px: int
    qty: int
    arrival: int
    user_ref: int = 0
    executed: int = 0
    capacity: str = ""
    mpid: str = ""

    @property
    def is_clients(self) -> bool:
        return self.user_ref != 0


@dataclass
class Account:
    position: int = 0
    bought: int = 0
    sold: int = 0
    cash: int = 0
    fills: int = 0

    def trade(self, side: str, qty: int, px: int) -> None:
        self.fills += 1
        if side == "B":
            self.position, self.bought, self.cash = self.position + qty, self.bought + qty, self.cash - qty * px
        else:
            self.position, self.sold, self.cash = self.position - qty, self.sold + qty, self.cash + qty * px


@dataclass
class SlowExchange:
    """`market` and `reports` are everything that was published and reported, in order, as decoded messages with their type."""

    market: list[Message] = field(default_factory=list)
    reports: list[Message] = field(default_factory=list)
    book: list[Resting] = field(default_factory=list)
    symbols: dict[int, str] = field(default_factory=dict)
    states: dict[int, str] = field(default_factory=dict)
    accounts: dict[int, Account] = field(default_factory=dict)
    now: int = 0
    arrivals: int = 0
    refs: int = FIRST
    matches: int = FIRST
    last_user_ref: int = 0
    ignored: int = 0
    diverged: int = 0

    # What it says.

    def publish(self, message: itch.Message, locate: int, tracking: int = 0, **values: Any) -> None:
        self.market.append({"type": chr(message.code), "locate": locate, "tracking": tracking, "timestamp": self.now, **values})

    def report(self, message: ouch.Message, **values: Any) -> None:
        self.reports.append({"type": chr(message.code), "timestamp": self.now, **values})

    # The book.

    def find(self, ref: int) -> Resting | None:
        return next((order for order in self.book if order.ref == ref), None)

    def find_clients(self, user_ref: int) -> Resting | None:
        return next((order for order in self.book if order.user_ref == user_ref and order.is_clients), None)

    def in_priority(self, locate: int, side: str) -> list[Resting]:
        orders = [order for order in self.book if order.locate == locate and order.side == side]
        return sorted(orders, key=lambda order: (-order.px if side == "B" else order.px, order.arrival))

    def take(self, order: Resting, qty: int) -> None:
        order.qty -= qty
        if order.qty == 0:
            self.book.remove(order)

    def rest(self, **values: Any) -> Resting:
        self.arrivals += 1
        order = Resting(arrival=self.arrivals, **values)
        self.book.append(order)
        return order

    # Trading.

    def partners(self, locate: int, side: str, px: int, clients_only: bool) -> list[Resting]:
        """The resting orders that an order of `side` at px trades with, first to last."""
        crossing = [order for order in self.in_priority(locate, OTHER[side]) if (order.px <= px if side == "B" else order.px >= px)]
        return [order for order in crossing if order.is_clients or not clients_only]

    def trade(self, partners: list[Resting], side: str, qty: int, user_ref: int) -> int:
        """Trade with these, first to last. Returns what is left."""
        for order in partners:
            if qty == 0:
                break
            traded = min(qty, order.qty)
            match, self.matches = self.matches, self.matches + 1
            if user_ref:
                self.executed(order.locate, user_ref, side, traded, order.px, "R", match)
            self.publish(itch.ORDER_EXECUTED, order.locate, ref=order.ref, shares=traded, match=match)
            if order.is_clients:
                self.executed(order.locate, order.user_ref, order.side, traded, order.px, "A", match)
            order.executed += traded
            self.take(order, traded)
            qty -= traded
        return qty

    def executed(self, locate: int, user_ref: int, side: str, qty: int, px: int, liquidity: str, match: int) -> None:
        self.report(ouch.EXECUTED, user_ref=user_ref, quantity=qty, px=px, liquidity=liquidity, match=match, appendage_length=0)
        self.accounts.setdefault(locate, Account()).trade(side, qty, px)

    # The client.

    def new_ref(self) -> int:
        self.refs += 1
        return self.refs - 1

    def is_new(self, user_ref: int) -> bool:
        if user_ref <= self.last_user_ref:
            self.ignored += 1
            return False
        self.last_user_ref = user_ref
        return True

    def fault(self, locate: int, quantity: int, px: int, tif: str) -> int:
        if not 1 <= quantity < 1_000_000:
            return ouch.REJECT_INVALID_QUANTITY
        if not 0 < px < 2_000_000_000:
            return ouch.REJECT_INVALID_PRICE
        if tif not in ("0", "3"):
            return ouch.REJECT_OTHER
        return ouch.REJECT_CLOSED if self.states.get(locate, "T") != "T" else 0

    def enter(self, asked: Message) -> None:
        if not self.is_new(asked["user_ref"]):
            return
        locate = next((locate for locate, symbol in self.symbols.items() if symbol == asked["symbol"]), -1)
        if locate < 0:
            reason = ouch.REJECT_INVALID_SYMBOL
        elif asked["side"] not in OTHER:
            reason = ouch.REJECT_INVALID_SIDE
        else:
            reason = self.fault(locate, asked["quantity"], asked["px"], asked["tif"])
        if reason:
            self.report(ouch.REJECTED, user_ref=asked["user_ref"], reason=reason, client_id=asked["client_id"])
            return
        ref = self.new_ref()
        self.report(ouch.ACCEPTED, order_ref=ref, state="L", **asked)
        order = {"locate": locate, "side": asked["side"], "px": asked["px"], "qty": asked["quantity"], "executed": 0}
        self.go(ref, asked["tif"], asked["user_ref"], asked["capacity"], **order)

    def go(self, ref: int, tif: str, user_ref: int, capacity: str, *, locate: int, side: str, px: int, qty: int, executed: int) -> None:
        left = self.trade(self.partners(locate, side, px, False), side, qty, user_ref)
        if left and tif == "3":
            self.report(ouch.CANCELED, user_ref=user_ref, quantity=left, reason="I")
        elif left:
            self.rest(
                ref=ref, locate=locate, side=side, px=px, qty=left, user_ref=user_ref, executed=executed + qty - left, capacity=capacity
            )
            self.publish(itch.ADD_ORDER, locate, ref=ref, side=side, shares=left, stock=self.symbols[locate], px=px)

    def replace(self, asked: Message) -> None:
        user_ref, quantity, px, tif = asked["user_ref"], asked["quantity"], asked["px"], asked["tif"]
        if not self.is_new(user_ref):
            return
        order = self.find_clients(asked["orig_user_ref"])
        reason = self.fault(order.locate, quantity, px, tif) if order else ouch.REJECT_REPLACE_NOT_ALLOWED
        if reason or order is None:
            self.report(ouch.REJECTED, user_ref=user_ref, reason=reason, client_id=asked["client_id"])
            return
        left = quantity - order.executed
        if left <= 0:
            self.cut(order, order.qty, "U")
            return
        ref = self.new_ref()
        same = {"order_ref": ref, "state": "L", "side": order.side, "symbol": self.symbols[order.locate], "cross": "N"}
        self.report(ouch.REPLACED, **{**asked, **same, "quantity": left, "capacity": order.capacity})
        self.book.remove(order)
        if tif == "3" or self.partners(order.locate, order.side, px, False):
            self.publish(itch.ORDER_DELETE, order.locate, ref=order.ref)
            what = {"locate": order.locate, "side": order.side, "px": px, "qty": left, "executed": order.executed}
            self.go(ref, tif, user_ref, order.capacity, **what)
            return
        self.publish(itch.ORDER_REPLACE, order.locate, ref=order.ref, new_ref=ref, shares=left, px=px)
        self.rest(
            ref=ref, locate=order.locate, side=order.side, px=px, qty=left, user_ref=user_ref, executed=order.executed,
            capacity=order.capacity,
        )  # fmt: skip

    def cancel(self, user_ref: int, total: int) -> None:
        """`total` limits what may execute in all; 0 cancels what is open."""
        order = self.find_clients(user_ref)
        if order is None:
            return
        keep = max(total - order.executed, 0)
        if keep < order.qty:
            self.cut(order, order.qty - keep, "U")

    def cut(self, order: Resting, qty: int, reason: str) -> None:
        if qty == order.qty:
            self.publish(itch.ORDER_DELETE, order.locate, ref=order.ref)
        else:
            self.publish(itch.ORDER_CANCEL, order.locate, ref=order.ref, shares=qty)
        self.report(ouch.CANCELED, user_ref=order.user_ref, quantity=qty, reason=reason)
        self.take(order, qty)

    # History.

    def happen(self, raw: bytes) -> None:
        """A message of history's."""
        message = itch.BY_CODE[raw[0]].decode(raw)
        self.now = max(self.now, message["timestamp"])
        kind = chr(raw[0])
        if kind in "AF":
            self.history_adds(kind, message)
        elif kind in "ECXDU":
            order = self.find(message["ref"])
            if order is None or order.is_clients:
                self.diverged += 1
            else:
                getattr(self, f"history_{kind}")(order, message)
        else:
            if kind == "R":
                self.symbols.setdefault(message["locate"], message["stock"])
            elif kind == "H":
                self.states[message["locate"]] = message["state"]
            self.market.append({"type": kind, **message})

    def history_adds(self, kind: str, message: Message) -> None:
        locate, side, px, shares = (message[name] for name in ("locate", "side", "px", "shares"))
        self.symbols.setdefault(locate, message["stock"])
        if self.find(message["ref"]) is not None:
            self.diverged += 1
            return
        left = self.trade(self.partners(locate, side, px, True), side, shares, 0)
        if left:
            self.rest(
                ref=message["ref"], locate=locate, side=side, px=px, qty=left, executed=shares - left, mpid=message.get("attribution", "")
            )
            self.market.append({"type": kind, **message, "shares": left})

    def clamp(self, qty: int, order: Resting) -> int:
        if qty > order.qty:
            self.diverged += 1
        return min(qty, order.qty)

    def history_D(self, order: Resting, message: Message) -> None:
        self.take(order, order.qty)
        self.market.append({"type": "D", **message})

    def history_X(self, order: Resting, message: Message) -> None:
        shares = self.clamp(message["shares"], order)
        self.take(order, shares)
        self.market.append({"type": "X", **message, "shares": shares})

    def history_E(self, order: Resting, message: Message) -> None:
        self.history_executes("E", order, message)

    def history_C(self, order: Resting, message: Message) -> None:
        self.history_executes("C", order, message)

    def history_executes(self, kind: str, order: Resting, message: Message) -> None:
        """Clients before the order trade first; it executes the rest; what clients took is cancelled from it."""
        queue = self.in_priority(order.locate, order.side)
        before = [other for other in queue[: queue.index(order)] if other.is_clients]
        left = self.trade(before, OTHER[order.side], message["shares"], 0)
        ours = message["shares"] - left
        theirs = self.clamp(left, order)
        if theirs:
            self.market.append({"type": kind, **message, "shares": theirs})
            self.take(order, theirs)
        if ours and order.qty == 0:
            self.diverged += 1
        elif ours:
            ours = self.clamp(ours, order)
            if ours == order.qty:
                self.publish(itch.ORDER_DELETE, order.locate, ref=order.ref)
            else:
                self.publish(itch.ORDER_CANCEL, order.locate, ref=order.ref, shares=ours)
            self.take(order, ours)

    def history_U(self, order: Resting, message: Message) -> None:
        shares = message["shares"] - order.executed
        if order.executed:
            self.diverged += 1
        self.book.remove(order)
        if shares <= 0:
            self.publish(itch.ORDER_DELETE, order.locate, message["tracking"], ref=order.ref)
            return
        partners = self.partners(order.locate, order.side, message["px"], True)
        same: Message = {"locate": order.locate, "side": order.side, "px": message["px"], "mpid": order.mpid}
        if partners:
            self.publish(itch.ORDER_DELETE, order.locate, message["tracking"], ref=order.ref)
            left = self.trade(partners, order.side, shares, 0)
            if left:
                stock = self.symbols[order.locate]
                said = {"ref": message["new_ref"], "side": order.side, "shares": left, "stock": stock, "px": message["px"]}
                if order.mpid:
                    self.publish(itch.ADD_ORDER_MPID, order.locate, message["tracking"], attribution=order.mpid, **said)
                else:
                    self.publish(itch.ADD_ORDER, order.locate, message["tracking"], **said)
                self.rest(ref=message["new_ref"], qty=left, executed=order.executed + shares - left, **same)
            return
        self.market.append({"type": "U", **message, "shares": shares})
        self.rest(ref=message["new_ref"], qty=shares, executed=order.executed, **same)

    def positions(self) -> dict[int, Account]:
        return {locate: account for locate, account in self.accounts.items() if account.fills}
