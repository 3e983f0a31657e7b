"""The gateway against a model: a small venue that does what OUCH says, at random, with everything crossing everything."""

import os
import random
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import pytest

from engine.gateway.hot import state as gateway_state
from engine.gateway.hot.state import DOWN, STATE
from engine.gateway.ouch import v50 as ouch
from engine.layout import (
    BUY,
    SELL,
)
from tests.gateway_house import AAPL, MSFT, PLAIN, PROTOCOLS, PX, House, build_houses_of_both, login_accepted, sequenced

houses = pytest.fixture(params=PROTOCOLS)(build_houses_of_both)


@dataclass
class Resting:
    instrument: int
    side: int
    open: int
    executed: int


@dataclass
class ModelVenue:
    """The venue's truth. It takes our messages when it pleases, in order, and trades what rests in between."""

    house: House
    chance: random.Random
    explicit: bool
    inbox: list[tuple[str, Any]] = field(default_factory=list)
    resting: dict[int, Resting] = field(default_factory=dict)
    traded: list[tuple[int, int, int, int, int, int]] = field(default_factory=list)
    positions: dict[int, dict[str, int]] = field(
        default_factory=lambda: {line: dict.fromkeys(("position", "cash", "bought", "sold", "fills"), 0) for line in (AAPL, MSFT)}
    )
    outbox: bytes = b""
    match: int = 0
    # The day's sequence. In 5.0 it begins with the answer to the account query of the house's first login.
    log: list[bytes] = field(default_factory=list)
    last_ref: int = 0

    def __post_init__(self) -> None:
        self.answer_query()

    def answer_query(self) -> None:
        if self.house.protocol == "ouch50":
            self.log.append(sequenced(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=self.last_ref + 1))

    def say(self, message: Any, **fields: Any) -> None:
        self.log.append(sequenced(message, **fields))
        self.outbox += self.log[-1]

    def lose(self) -> None:
        """The connection breaks, at any byte of what the venue says and behind any message that it took; and is made again."""
        house = self.house
        house.venue.hear()
        self.inbox += [said for said in house.venue.heard if said[0] != "heartbeat"]
        house.venue.heard.clear()
        for _ in range(self.chance.randint(0, len(self.inbox))):
            self.take()
        self.inbox.clear()
        house.venue.send(self.outbox[: self.chance.randint(0, len(self.outbox))])
        self.outbox = b""
        if self.chance.random() < 0.5:
            for user_ref, order in self.resting.items():
                self.say(ouch.CANCELED, user_ref=user_ref, quantity=order.open, reason="Z")
            self.resting.clear()
        house.venue.hang_up(reset=self.chance.random() < 0.3)
        house.turn_until(lambda: house.session[STATE] == DOWN, "the loss")
        check_busy(house, self)
        house.meet()
        if house.protocol == "ouch42":
            house.probe(len(self.log) + 1)
        asked = int(house.heard("login")["sequence"])
        house.venue.send(login_accepted(asked) + b"".join(self.log[asked - 1 :]))
        self.outbox = b""
        check_busy(house, self)
        self.answer_query()
        house.come_up(self.last_ref + 1)

    def flush(self) -> None:
        """Send what was said, cut wherever it falls."""
        while self.outbox:
            cut = self.chance.choice((1, 7, 60, 5_000))
            self.house.venue.send(self.outbox[:cut])
            self.outbox = self.outbox[cut:]
            if self.chance.random() < 0.3:
                self.house.turn()

    def take(self) -> None:
        """Process one message of the client."""
        said, fields = self.inbox.pop(0)
        if said != "cancel order":
            assert fields["user_ref"] > self.last_ref, "sent twice, or out of order"
            self.last_ref = fields["user_ref"]
        {"enter order": self.enter, "replace order": self.replace, "cancel order": self.cancel}[said](fields)

    def enter(self, fields: dict[str, Any]) -> None:
        order_id, qty = fields["user_ref"], fields["quantity"]
        if self.chance.random() < 0.1:
            self.say(ouch.REJECTED, user_ref=order_id, reason=ouch.REJECT_OTHER)
        elif self.chance.random() < 0.05:
            self.say(ouch.ACCEPTED, user_ref=order_id, quantity=qty, state="D")
        else:
            line = AAPL if fields["symbol"] == "AAPL" else MSFT
            self.resting[order_id] = Resting(line, BUY if fields["side"] == "B" else SELL, qty, 0)
            self.say(ouch.ACCEPTED, user_ref=order_id, quantity=qty)

    def replace(self, fields: dict[str, Any]) -> None:
        old, new = self.resting.get(fields["orig_user_ref"]), fields["user_ref"]
        if old is None:
            if self.explicit:
                self.say(ouch.REJECTED, user_ref=new, reason=ouch.REJECT_REPLACE_NOT_ALLOWED)
            return
        if self.chance.random() < 0.1:
            self.say(ouch.REJECTED, user_ref=new, reason=ouch.REJECT_OTHER)
            return
        left = fields["quantity"] - old.executed
        del self.resting[fields["orig_user_ref"]]
        if left <= 0:
            self.say(ouch.CANCELED, user_ref=fields["orig_user_ref"], quantity=old.open)
            if self.explicit:
                self.say(ouch.REJECTED, user_ref=new, reason=ouch.REJECT_INVALID_QUANTITY)
            return
        self.resting[new] = Resting(old.instrument, old.side, left, old.executed)
        self.say(ouch.REPLACED, orig_user_ref=fields["orig_user_ref"], user_ref=new, quantity=left)

    def cancel(self, fields: dict[str, Any]) -> None:
        order = self.resting.get(fields["user_ref"])
        if order is None:
            return
        left = max(0, min(order.open, fields["quantity"] - order.executed))
        if left < order.open:
            self.say(ouch.CANCELED, user_ref=fields["user_ref"], quantity=order.open - left)
            order.open = left
        if not left:
            del self.resting[fields["user_ref"]]

    def trade(self) -> None:
        order_id, order = self.chance.choice(list(self.resting.items()))
        qty = order.open if self.chance.random() < 0.3 else self.chance.randint(1, order.open)
        px = PX + self.chance.randint(-50, 50)
        self.match += self.chance.choice((1, 1, 1, 4096))
        order.open -= qty
        order.executed += qty
        if not order.open:
            del self.resting[order_id]
        self.count(order.instrument, order.side, qty, px, 1)
        self.traded.append((self.match, order_id, order.instrument, order.side, qty, px))
        self.say(ouch.EXECUTED, user_ref=order_id, quantity=qty, px=px, match=self.match)

    def count(self, line: int, side: int, qty: int, px: int, sign: int) -> None:
        position, direction = self.positions[line], 1 if side == BUY else -1
        position["position"] += sign * direction * qty
        position["cash"] -= sign * direction * qty * px
        position["bought" if side == BUY else "sold"] += sign * qty
        position["fills"] += sign

    def repeat(self) -> None:
        match, order_id, _, _, qty, px = self.chance.choice(self.traded[-50:])
        self.say(ouch.EXECUTED, user_ref=order_id, quantity=qty, px=px, match=match)

    def break_trade(self) -> None:
        match, order_id, line, side, qty, px = self.traded.pop(self.chance.randrange(len(self.traded)))
        self.count(line, side, qty, px, -1)
        self.say(ouch.BROKEN, user_ref=order_id, match=match)

    def open_on(self, line: int, side: int) -> int:
        return sum(order.open for order in self.resting.values() if (order.instrument, order.side) == (line, side))


class RandomTrader:
    """Asks for anything, sensible or not, knowing only what it was told."""

    def __init__(self, house: House, chance: random.Random) -> None:
        self.house, self.chance = house, chance
        self.working: dict[int, tuple[int, int]] = {}

    def act(self) -> None:
        roll = self.chance.random()
        if roll < 0.45 or not self.working:
            side, line = self.chance.choice((BUY, SELL)), self.chance.choice((AAPL, MSFT))
            self.working[self.house.new(side=side, instrument=line, qty=self.chance.randint(1, 300))] = (side, line)
        else:
            target = self.chance.choice(list(self.working))
            side, line = self.working[target]
            if roll < 0.75:
                self.working[self.house.replace(target, side=side, instrument=line, qty=self.chance.randint(1, 300))] = (side, line)
            else:
                self.house.cancel(target, side=side, instrument=line, qty=self.chance.choice((0, 0, 0, self.chance.randint(1, 200))))

    def learn(self) -> None:
        for report in self.house.told():
            if report["is"] == "replaced":
                self.working.pop(report["ref_id"], None)
            if (report["is"] in ("rejected", "cancelled") and report["qty"] == 0) or self.chance.random() < 0.02:
                self.working.pop(report["order_id"], None)


def check_quiet(house: House, venue: ModelVenue) -> None:
    """With nothing under way, what the gateway believes is the venue's truth."""
    for line in (AAPL, MSFT):
        believed = house.line(line)
        assert {name: believed[name] for name in venue.positions[line]} == venue.positions[line]
        assert (believed["open_buy"], believed["open_sell"]) == (venue.open_on(line, BUY), venue.open_on(line, SELL))
    table = house.stage.state.table
    alive = table[(table.state != gateway_state.FREE) & (table.state < gateway_state.ENDED)]
    assert {int(entry.user_ref): (int(entry.open), int(entry.executed)) for entry in alive} == {
        order_id: (order.open, order.executed) for order_id, order in venue.resting.items()
    }
    assert house.stats.open_orders == len(venue.resting)
    assert house.stats.unknown_reports == house.stats.illegal_moves == 0
    # A packet that a loss cut in two is one.
    assert house.stats.malformed <= house.stats.sessions_lost


def check_busy(house: House, venue: ModelVenue) -> None:
    """At any moment the gateway counts for at least what may trade: nothing that rests is missing, whatever is under way."""
    for line in (AAPL, MSFT):
        believed, truth = house.line(line), venue.positions[line]["position"]
        assert believed["position"] + believed["open_buy"] >= truth + venue.open_on(line, BUY)
        assert believed["position"] - believed["open_sell"] <= truth - venue.open_on(line, SELL)


@pytest.mark.parametrize("losses", [False, True], ids=["one session", "sessions that are lost"])
@pytest.mark.parametrize("explicit", [False, True], ids=["a venue that ignores", "a venue that rejects"])
def test_positions_and_open_orders_equal_a_model(houses: Callable[..., House], explicit: bool, losses: bool) -> None:
    seed = random.randrange(1 << 32)
    print(f"seed={seed}")
    chance = random.Random(seed)
    house = houses(orders_max=1 << 10, executions_max=1 << 17, reconnect_tries=9, reconnect_ms=1)
    venue, trader = ModelVenue(house, chance, explicit), RandomTrader(house, chance)
    broken = False
    happened = ("accepted", "replaced", "cancelled", "executed", "broken", "rejected_by_venue", "duplicates")
    long = os.environ.get("TICKPATH_PROOF") == "long"
    # The kernels behind the translation are the same: TICKPATH_PROOF=long plays as many rounds in 4.2.
    share = 6 if house.protocol == "ouch42" and not long else 1
    # What rests is cancelled with a session, and can be replaced no more: it takes longer to see enough of that.
    rounds = 60 if PLAIN else (2_400 if losses else 1_000) // share
    for sequence in range(rounds):
        for _ in range(chance.randint(3, 15)):
            roll = chance.random()
            if losses and roll < (0.02 if PLAIN else 0.003) and not broken:
                venue.lose()
                trader.learn()
            elif roll < 0.4:
                trader.act()
            elif roll < 0.6 and venue.inbox:
                venue.take()
            elif roll < 0.8 and venue.resting:
                venue.trade()
            elif roll < 0.83 and venue.traded:
                venue.repeat()
            elif roll < 0.84 and venue.traded:
                venue.break_trade()
                broken = True
            elif roll < 0.9:
                venue.flush()
            else:
                house.turn()
                trader.learn()
                house.venue.hear()
                venue.inbox += [said for said in house.venue.heard if said[0] != "heartbeat"]
                house.venue.heard.clear()
                if not broken:
                    check_busy(house, venue)
        if sequence % 3 == 0:
            while True:
                venue.flush()
                venue.inbox += house.settle()
                trader.learn()
                if not venue.inbox and house.protocol == "ouch42" and house.stats.unknown_orders:
                    # Only the answer to something later says what became of them.
                    house.new(qty=1)
                    venue.inbox += house.settle()
                if not venue.inbox:
                    break
                while venue.inbox:
                    venue.take()
            check_quiet(house, venue)
            broken = False
            enough = min(house.stats[name] for name in happened) > 50 // share and house.stats.sessions_lost > (1 if losses else -1)
            if not long and sequence > rounds // 3 and enough:
                break
    if losses:
        assert house.stats.reconciliations == house.stats.sessions_lost + 1 > 2
    print({name: int(house.stats[name]) for name in (*happened, "sessions_lost")})
    assert PLAIN or min(house.stats[name] for name in happened) > 50 // share
