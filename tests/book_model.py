"""A plain order book in dicts, and LOBSTER's files by their definition: slow, obvious, and of nobody else's making."""

from engine.feed import itch
from engine.wire.table import Value

NO_ASK, NO_BID = 9_999_999_999, -9_999_999_999
OPEN_NS, CLOSE_NS = 34_200 * 10**9, 57_600 * 10**9


class Ledger:
    """Orders by ref: [locate, side, px, qty]."""

    def __init__(self) -> None:
        self.orders: dict[int, list[int]] = {}

    def add(self, fields: dict[str, Value], ref: str = "ref", side: int | None = None) -> None:
        shown = ord(str(fields["side"])) if side is None else side
        self.orders[int(fields[ref])] = [int(fields["locate"]), shown, int(fields["px"]), int(fields["shares"])]

    def take(self, ref: int, shares: int | None = None) -> list[int]:
        """Take shares (None: all) off an order: what it was before."""
        order = self.orders[ref]
        before = list(order)
        order[3] -= order[3] if shares is None else shares
        if order[3] == 0:
            del self.orders[ref]
        return before

    def levels(self, locate: int, side: str, depth: int) -> list[tuple[int, int]]:
        """The best prices of a side with what rests at each."""
        found: dict[int, int] = {}
        for owner, which, px, qty in self.orders.values():
            if (owner, which) == (locate, ord(side)):
                found[px] = found.get(px, 0) + qty
        return sorted(found.items(), reverse=side == "B")[:depth]

    def book(self, locate: int, depth: int) -> list[int]:
        """A line of LOBSTER's orderbook file."""
        bids, asks = (self.levels(locate, side, depth) for side in "BS")
        line: list[int] = []
        for level in range(depth):
            line += asks[level] if level < len(asks) else (NO_ASK, 0)
            line += bids[level] if level < len(bids) else (NO_BID, 0)
        return line


def lobster(messages: list[bytes], locate: int, depth: int) -> list[tuple[list[int], list[int]]]:
    """The lines of both files: [time_ns, type, id, size, price, direction] and the book after it."""
    ledger = Ledger()
    lines: list[tuple[list[int], list[int]]] = []
    last = ledger.book(locate, depth)

    def note(fields: dict[str, Value], event: int, ref: int, size: int, px: int, side: int) -> None:
        nonlocal last
        book = ledger.book(locate, depth)
        if (event >= 5 or book != last) and OPEN_NS <= int(fields["timestamp"]) < CLOSE_NS:
            lines.append(([int(fields["timestamp"]), event, ref, size, px, 1 if side == ord("B") else -1], book))
        last = book

    for raw in messages:
        message = itch.BY_CODE[raw[0]]
        fields = message.decode(raw)
        own = int(fields["locate"]) == locate
        if message in (itch.ADD_ORDER, itch.ADD_ORDER_MPID):
            ledger.add(fields)
            if own:
                note(fields, 1, int(fields["ref"]), int(fields["shares"]), int(fields["px"]), ord(str(fields["side"])))
        elif message is itch.ORDER_REPLACE:
            _, side, px, qty = ledger.take(int(fields["ref"]))
            if own:
                note(fields, 3, int(fields["ref"]), qty, px, side)
            ledger.add(fields, "new_ref", side)
            if own:
                note(fields, 1, int(fields["new_ref"]), int(fields["shares"]), int(fields["px"]), side)
        elif itch.ABOUT_ORDER[raw[0]]:
            ref = int(fields["ref"])
            shares = int(fields["shares"]) if "shares" in fields else None
            _, side, px, qty = ledger.take(ref, shares)
            if own:
                executed = message in (itch.ORDER_EXECUTED, itch.ORDER_EXECUTED_PRICE)
                event = 4 if executed else 3 if ref not in ledger.orders else 2
                told = int(fields["px"]) if message is itch.ORDER_EXECUTED_PRICE else px
                note(fields, event, ref, qty if shares is None else shares, told, side)
        elif own and message is itch.TRADE:
            note(fields, 5, 0, int(fields["shares"]), int(fields["px"]), ord(str(fields["side"])))
        elif own and message is itch.CROSS_TRADE:
            note(fields, 6, 0, int(fields["shares"]), int(fields["px"]), ord("S"))
        elif own and message is itch.TRADING_ACTION:
            note(fields, 7, 0, 0, {"T": 1, "Q": 0}.get(str(fields["state"]), -1), ord("S"))
    return lines
