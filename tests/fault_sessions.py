"""More of what is fuzzed: sessions of orders, from both sides, in each of their states and with peers of every manner.

What a peer says is garbled as ever. How it says it differs too: at once, a byte at a time, or only half of it and then nothing.
"""

import contextlib
import random
import socket
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from engine.book.book import check_invariants
from engine.exchange.hot.state import STATE as LINK_STATE
from engine.exchange.hours import Halt, Hours
from engine.exchange.menu import FAULT_NAMES, Faults, Latency
from engine.exchange.stage import Account
from engine.gateway.hot.state import CLEARING, DOWN, LOGIN_SENT, OVER, RECONCILE, RECONCILING, STATE, UP
from engine.gateway.ouch import v50 as ouch
from engine.layout import PHASE_DRAINING, PHASE_TRADING
from engine.messages.hot.stamp import NOW
from engine.wire import soupbintcp
from engine.wire.table import Message
from tests.exchange_rig import Rig, cancel, enter, replace
from tests.exchange_rig import packet as soup_packet
from tests.fault_mutate import mutated
from tests.gateway_house import PX, SECOND, House, login_accepted, sequenced
from tests.itch_flow import random_message

MS = 1_000_000
WHOLE, BY_BYTES, HALF = "whole", "a byte at a time", "half"
MANNERS = (WHOLE, WHOLE, BY_BYTES, HALF)
SILENCE_S = 15


def any_message(rng: random.Random, by_code: object) -> bytes:
    messages: list[Message] = list(by_code.values())  # type: ignore[attr-defined]
    return random_message(rng.choice(messages), rng)[0]


def in_manner(rng: random.Random, manner: str, said: list[bytes]) -> list[bytes]:
    """What is said, as it comes out of the peer's socket call by call."""
    raw = b"".join(said)
    if manner == BY_BYTES:
        return [raw[at : at + 1] for at in range(min(len(raw), 200))]
    if manner == HALF:
        raw = raw[: rng.randrange(len(raw) + 1)]
    pieces = sorted(rng.randrange(len(raw) + 1) for _ in range(rng.randrange(6)))
    return [raw[begin:end] for begin, end in zip([0, *pieces], [*pieces, len(raw)], strict=True) if end > begin]


# The gateway, in each of its states.


def probing(rng: random.Random, house: House) -> None:
    if rng.random() < 0.5:
        house.heard("login")


def replaying(rng: random.Random, house: House) -> None:
    house.probe(rng.choice([1, 5, 1 << 40]))
    if rng.random() < 0.7:
        house.answer_login()


def clearing(rng: random.Random, house: House) -> None:
    """Orders of an earlier life are open, and are being cancelled."""
    earlier = [sequenced(ouch.ACCEPTED, user_ref=ref, quantity=100, side=rng.choice("BS"), symbol="AAPL") for ref in range(1, 5)]
    house.probe(len(earlier))
    house.answer_login()
    house.heard("account query")
    house.venue.send(b"".join([*earlier, sequenced(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=5)]))
    house.turn_until(lambda: house.session[RECONCILE] == CLEARING, "the cancels")


def up(rng: random.Random, house: House) -> None:
    house.login()
    for _ in range(rng.randrange(1, 6)):
        house.new(qty=rng.randrange(1, 1_000))
    house.settle()


def killed(rng: random.Random, house: House) -> None:
    up(rng, house)
    house.venue.say(ouch.ACCEPTED, user_ref=1, quantity=100)
    house.turn()
    house.control.kills += 1
    house.control.kill = 1


def draining(rng: random.Random, house: House) -> None:
    up(rng, house)
    house.control.phase = PHASE_DRAINING


def lost(rng: random.Random, house: House) -> None:
    """It was up, and comes again with orders of unknown fate."""
    up(rng, house)
    house.venue.hang_up(reset=rng.random() < 0.5)
    house.turn_until(lambda: house.session[STATE] == DOWN, "the loss")
    house.meet()


STATES: dict[str, Callable[[random.Random, House], None]] = {
    "probing": probing, "replaying": replaying, "clearing": clearing, "up": up, "killed": killed, "draining": draining, "lost": lost,
}  # fmt: skip


class GatewayStates:
    """Whatever a venue says, in whatever state and manner: the gateway ends with a reason or goes on, what it counts adds up, its numbers
    only grow, and nothing new leaves while it is killed, drains, or is not reconciled."""

    def __init__(self) -> None:
        self.seen: dict[str, int] = {}

    def round(self, seed: int) -> None:
        rng = random.Random(f"state {seed}")
        state, manner = rng.choice(list(STATES)), rng.choice(MANNERS)
        house = House(login=False, reconnect_tries=rng.choice([0, 3]) if state != "lost" else 3, reconnect_ms=1)
        with contextlib.closing(house):
            STATES[state](rng, house)
            self.seen[state] = self.seen.get(state, 0) + 1
            self.begin(house, state)
            for raw in in_manner(rng, manner, self.said(rng)):
                with contextlib.suppress(OSError):
                    if house.venue.client is not None:
                        house.venue.send(raw)
                if rng.random() < 0.2:
                    house.new(qty=rng.randrange(1, 1_000))
                self.turn(house)
                house.clock.words[NOW] += MS
                if house.ending:
                    assert house.ending in house.stage.reasons, house.ending
                    return
            house.check_gate()
            if manner == HALF:
                self.wait_in_vain(house)

    def begin(self, house: House, state: str) -> None:
        self.state, self.last_ref = state, 0
        self.hear(house)

    def said(self, rng: random.Random) -> list[bytes]:
        found = [login_accepted(rng.choice([0, 1, 5, 1 << 40]))] if rng.random() < 0.6 else []
        for _ in range(rng.randrange(1, 20)):
            draw = rng.random()
            if draw < 0.3:
                found.append(sequenced(ouch.ACCEPTED, user_ref=rng.randrange(8), quantity=rng.randrange(1 << 20)))
            elif draw < 0.4:
                found.append(
                    sequenced(ouch.EXECUTED, user_ref=rng.randrange(8), quantity=rng.randrange(1, 200), px=PX, match=rng.randrange(9))
                )
            elif draw < 0.5:
                found.append(sequenced(ouch.ACCOUNT_QUERY_RESPONSE, next_user_ref=rng.choice([0, 1, 5, 100, (1 << 32) - 1])))
            elif draw < 0.7:
                found.append(soup_packet(soupbintcp.SEQUENCED, any_message(rng, ouch.OUTBOUND_BY_CODE)))
            elif draw < 0.9:
                found.append(mutated(rng, sequenced(ouch.ACCEPTED, user_ref=1, quantity=100), found or None))
            else:
                found.append(soup_packet(rng.randrange(256), rng.randbytes(rng.randrange(100))))
        return found

    def turn(self, house: House) -> None:
        for _ in range(2):
            house.turn()
            house.read()
            self.hear(house)

    def hear(self, house: House) -> None:
        """All that the gateway says: of orders, what may be said in this state."""
        with contextlib.suppress(OSError):
            house.venue.hear()
        for kind, fields in house.venue.heard:
            if kind in ("enter order", "replace order"):
                assert fields["user_ref"] > self.last_ref, (fields, self.last_ref)
                self.last_ref = fields["user_ref"]
                assert not house.control.kill, f"killed, and yet sent: {fields}"
                assert house.control.phase == PHASE_TRADING, f"draining, and yet sent: {fields}"
                assert house.session[STATE] in (UP, DOWN, OVER), f"not reconciled, and yet sent: {fields}"
        house.venue.heard.clear()

    def wait_in_vain(self, house: House) -> None:
        """Half of something, and then nothing: the gateway does not wait for ever."""
        before = int(house.stats.sessions_lost)
        waiting = house.session[STATE] in (LOGIN_SENT, RECONCILING, UP)
        for _ in range(4):
            house.clock.words[NOW] += SILENCE_S * SECOND // 2
            house.turn()
            house.read()
        assert not waiting or house.ending or house.stats.sessions_lost > before, f"{self.state}: still waiting for a silent venue"

    def close(self) -> None:
        pass


# The exchange, whatever its conduct, its hours and its clients.


class ExchangeConduct:
    """Clients of several accounts who garble, dribble, read nothing or stop in the middle, at an exchange with latencies, faults, crosses
    and halts. Its book stays sound, its positions add up, and a client whom no fault strikes is served."""

    def round(self, seed: int) -> None:
        rng = random.Random(f"conduct {seed}")
        with tempfile.TemporaryDirectory() as folder:
            made = Rig(Path(folder), **options(rng, seed))
            try:
                self.play(rng, made)
            finally:
                made.close()

    def play(self, rng: random.Random, made: Rig) -> None:
        made.phase(PHASE_TRADING)
        clients = [made.wire_client(account) for account in range(len(made.stage.accounts))]
        clients += [socket.create_connection(("127.0.0.1", made.stage.order_port)) for _ in range(2)]
        reads = [rng.random() < 0.7 for _ in clients]
        for _ in range(4):
            for client, is_read in zip(clients, reads, strict=True):
                client.setblocking(False)
                for raw in in_manner(rng, rng.choice(MANNERS), self.said(rng, client in clients[-2:])):
                    self.pass_on(client, raw, read=is_read)
                    assert made.step(rng.randrange(MS)) >= 0
            for _ in range(20):
                assert made.step(rng.choice([MS, 50 * MS])) >= 0
        check_invariants(made.stage.state.venue.book)
        self.check_sums(made)
        # All who are silent are let go: nobody is waited for, and nothing of theirs is kept.
        for _ in range(40):
            made.step(SECOND)
        assert not (made.stage.state.links.words[:, LINK_STATE] > 0).any(), "a silent client is still there"
        for client in clients[-2:]:
            client.close()

    def pass_on(self, client: socket.socket, raw: bytes, *, read: bool) -> None:
        with contextlib.suppress(OSError):
            client.send(raw)
        with contextlib.suppress(OSError):
            if read:
                client.recv(1 << 16)

    def said(self, rng: random.Random, stranger: bool) -> list[bytes]:
        found = [mutated(rng, login()) if rng.random() < 0.5 else login()] if stranger else []
        for number in range(rng.randrange(1, 25)):
            draw = rng.random()
            if draw < 0.5:
                tif = rng.choice("03")
                raw = enter(
                    rng.randrange(number + 1, 60), rng.choice("BS"), rng.randrange(1, 500), 1_500_000 + rng.randrange(-5, 5) * 100, tif=tif
                )
            elif draw < 0.65:
                raw = cancel(rng.randrange(60), rng.choice([0, 10]))
            elif draw < 0.8:
                raw = replace(rng.randrange(60), rng.randrange(60), rng.randrange(1, 500), 1_500_000)
            else:
                raw = any_message(rng, ouch.INBOUND_BY_CODE)
            found.append(soup_packet(soupbintcp.UNSEQUENCED, raw))
        if rng.random() < 0.3:
            found[rng.randrange(len(found))] = mutated(rng, rng.choice(found), found)
        return found

    def check_sums(self, made: Rig) -> None:
        """Nobody else trades: what accounts hold of a symbol adds up to nothing, and each one's line to its own executions."""
        lines = made.positions.records
        for locate in (1, 2):
            rows = [lines[account * 65_536 + locate] for account in range(len(made.stage.accounts))]
            assert sum(int(row["position"]) for row in rows) == 0
            assert sum(int(row["cash"]) for row in rows) == 0
            for row in rows:
                assert int(row["position"]) == int(row["bought"]) - int(row["sold"])

    def close(self) -> None:
        pass


def options(rng: random.Random, seed: int) -> dict[str, Any]:
    """An exchange's conduct, hours and accounts, of any kind together."""
    latency = Latency([rng.choice([0, 300_000])], [rng.choice([0, 2 * MS])], seed)
    rates = {name: rng.choice([0.0, 0.0, 0.05, 0.5]) for name in FAULT_NAMES}
    opening = rng.choice([0.0, 0.0, 0.05])
    closing = rng.choice([0.0, 0.0, 0.6])
    halts = [Halt("AAPL", 0.1, 0.2)] if rng.random() < 0.3 else []
    how = ["trade", "cancel_newest", "cancel_oldest", "cancel_both"]
    accounts = tuple(
        Account(f"ACC{n}", "PW", rng.random() < 0.5, rng.choice(how), rng.choice(["", "FIRM"])) for n in range(rng.randrange(4))
    )
    return {
        "orders_max": 400, "levels_max": 100, "client_orders_max": 1 << 8, "reports_max": 64, "latency": latency, "accounts": accounts,
        "faults": Faults(rates=rates, silence_ms=20, delay_ms=5, seed=seed), "self_trade": rng.choice(how),
        "cancel_on_disconnect": rng.random() < 0.5, "hours": Hours(opening, closing, 0.02, halts),
        "pro_rata": ["AAPL"] if rng.random() < 0.3 else [],
    }  # fmt: skip


def login() -> bytes:
    raw = soupbintcp.LOGIN_REQUEST.encode(username="TICK", password="PATH", session="", sequence="1".rjust(20))
    return soup_packet(raw[0], raw[1:])


SESSION_TARGETS: dict[str, Callable[[], Any]] = {"states": GatewayStates, "conduct": ExchangeConduct}
