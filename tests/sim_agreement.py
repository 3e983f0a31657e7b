"""Whether the venue's truth is one: what it told each account, what it told the others, and what it showed to everybody."""

from collections import defaultdict
from collections.abc import Iterator

from engine.exchange.stage import ExchangeStage
from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY
from tests.sim_account import Account, Trade
from tests.sim_venue import Rules
from tests.sim_witness import Witness

CROSSES = (chr(ouch.LIQUIDITY_OPENING), chr(ouch.LIQUIDITY_CLOSING))
ADDED, REMOVED = chr(ouch.LIQUIDITY_ADDED), chr(ouch.LIQUIDITY_REMOVED)


class Agreement:
    """`problems` looks at all of a day; what it met of the venue's rules is added to `counts`."""

    def __init__(self, rules: Rules, accounts: list[Account], witness: Witness, counts: dict[str, int]) -> None:
        self.rules, self.accounts, self.witness, self.counts = rules, accounts, witness, counts
        self.sides: dict[int, list[tuple[int, Trade]]] = defaultdict(list)
        for number, account in enumerate(accounts):
            for (match, _), trade in account.trades.items():
                self.sides[match].append((number, trade))

    def problems(self, exchange: ExchangeStage) -> Iterator[str]:
        yield from self.witness.problems
        for match, sides in self.sides.items():
            if sides[0][1].liquidity in CROSSES:
                yield from self.judge_cross(match, sides)
            else:
                yield from self.judge_trade(match, sides)
        yield from self.judge_printed()
        for number in range(len(self.accounts)):
            yield from self.judge_open(number, exchange)

    def judge_trade(self, match: int, sides: list[tuple[int, Trade]]) -> Iterator[str]:
        """One seller and one buyer, one of whom came; the other rested, and everybody was told."""
        printed = self.witness.printed.get(match, [])
        rested = [trade for _, trade in sides if trade.liquidity == ADDED]
        facts = {(trade.instrument, trade.qty, trade.px) for _, trade in sides}
        if (
            len(facts) != 1
            or len({trade.side for _, trade in sides}) != len(sides)
            or len({trade.liquidity for _, trade in sides}) != len(sides)
        ):
            yield f"trade {match} is told otherwise to each: {sides}"
        elif len(printed) != 1 or (printed[0].qty, printed[0].px) != (sides[0][1].qty, sides[0][1].px):
            yield f"trade {match} is {sides}, and was published as {printed}"
        elif rested and rested[0].ref != printed[0].ref:
            yield f"trade {match} is of order {rested[0].ref}, and was published as {printed}"
        who = {trade.liquidity: number for number, trade in sides}
        if len(who) == 2:
            house = [self.rules.of(number) for number in (who[REMOVED], who[ADDED])]
            if house[0][0] == house[1][0] and house[0][1] != "trade":
                yield f"trade {match} is of one owner, whose newer order asked for {house[0][1]}: {sides}"
            if 0 in who.values():
                name = (
                    "traded with ourselves"
                    if who[ADDED] == who[REMOVED]
                    else "made for a rival"
                    if who[ADDED] == 0
                    else "took from a rival"
                )
                self.counts[name] += 1

    def judge_cross(self, match: int, sides: list[tuple[int, Trade]]) -> Iterator[str]:
        """All of a cross trades at one price, and no more on a side than was published."""
        cross = self.witness.crosses.get(match)
        if cross is None or {(trade.instrument, trade.px, trade.liquidity) for _, trade in sides} != {
            (cross.locate, cross.px, cross.letter)
        }:
            yield f"cross {match} is {sides}, and was published as {cross}"
            return
        self.counts["accounts in a cross"] += len(sides)
        bought = sum(trade.qty for _, trade in sides if trade.side == BUY)
        sold = sum(trade.qty for _, trade in sides if trade.side != BUY)
        if max(bought, sold) > cross.qty:
            yield f"cross {match} was of {cross.qty}, but accounts bought {bought} and sold {sold} in it"

    def judge_printed(self) -> Iterator[str]:
        """Whatever was published of an account's order, it was told of."""
        known = set().union(*(account.known for account in self.accounts))
        told = {(match, trade.ref, trade.qty) for match, sides in self.sides.items() for _, trade in sides}
        for match, prints in self.witness.printed.items():
            for printed in prints:
                if printed.ref in known and (match, printed.ref, printed.qty) not in told:
                    yield f"trade {match} was published as {printed}, and its account was not told"

    def judge_open(self, number: int, exchange: ExchangeStage) -> Iterator[str]:
        """What an account has open, by its session, by the venue's own list and by the market's book."""
        account = self.accounts[number]
        session = {ref: (order.side, order.px, order.open, order.executed) for ref, order in account.orders.items()}
        listed = {ref: (ord(order.side), order.px, order.qty, order.executed) for ref, order in exchange.open_orders(number).items()}
        if session != listed:
            yield f"account {number} has {session} open, the venue's list {listed}"
        visible = {order.ref: (order.side, order.px, order.open) for order in account.orders.values() if order.cross == "N"}
        shown = {
            ref: (ord(order.side), order.px, order.qty) for ref, order in self.witness.orders.items() if ref in account.known
        }  # fmt: skip
        if visible != shown:
            yield f"account {number} has {visible} displayed, and shown was {shown}"
