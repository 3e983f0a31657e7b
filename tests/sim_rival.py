"""Others who trade at the simulation's exchange, each in an account of its own: orders of every kind by seed, often straight at ours.

A rival speaks OUCH 5.0 over a connection that nothing goes wrong with but by its own doing: it hangs up, and comes back for what it
missed. What it was told is held against its account's log (tests/sim_judge.py).
"""

import contextlib
import random
import socket
from collections.abc import Callable, Collection, Mapping
from typing import Any

import numpy as np

from engine.exchange.stage import Account
from engine.gateway.ouch import v50 as ouch
from engine.layout import BUY
from engine.wire import soupbintcp as soup
from shm.table import Board
from tests.exchange_rig import cancel, disable, mass_cancel, packet, query, replace, soup_packets
from tests.sim_account import Order

TICK = 100
WORKING_MAX = 30
# A venue that does not answer a login for so long is not listening.
PATIENCE_TURNS = 40


class Rival:
    """`turn` reads what it is told and asks for something, or nothing. dial says where the venue listens."""

    def __init__(
        self, chance: random.Random, account: Account, symbols: Mapping[str, int], quotes: Board, dial: Callable[[], str | bytes]
    ) -> None:
        self.chance, self.account, self.symbols, self.quotes, self.dial = chance, account, symbols, quotes, dial
        self.socket: socket.socket | None = None
        self.raw = b""
        self.up = False
        self.next_ref = 1
        self.heard: list[bytes] = []
        self.working: dict[int, tuple[str, int]] = {}
        self.logins = 0
        self.waited = 0
        self.leaning = chance.choice("BS")

    def close(self) -> None:
        if self.socket is not None:
            self.socket.close()
        self.socket, self.raw, self.up, self.waited = None, b"", False, 0

    def connect(self) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self.socket.connect(self.dial())
        self.socket.setblocking(False)
        asked = soup.LOGIN_REQUEST.encode(
            username=self.account.username, password=self.account.password, session="", sequence=str(len(self.heard) + 1)
        )
        self.say(packet(asked[0], asked[1:]))

    def say(self, raw: bytes) -> None:
        # A venue that does not read, or has hung up: what it does not take was never said.
        with contextlib.suppress(OSError):
            if self.socket is not None and self.socket.send(raw) < len(raw):
                self.close()

    def order(self, raw: bytes) -> None:
        self.say(packet(soup.UNSEQUENCED, raw))

    def listen(self) -> None:
        got = b"?"
        while got and self.socket is not None:
            try:
                got = self.socket.recv(1 << 16)
            except BlockingIOError:
                break
            except ConnectionError:
                got = b""
            self.raw += got
        packets, self.raw = soup_packets(self.raw)
        for kind, payload in packets:
            if kind == soup.LOGIN_ACCEPTED.code:
                assert int(payload[10:]) == len(self.heard) + 1, (payload, len(self.heard))
                self.up = True
                self.logins += 1
            elif kind == soup.SEQUENCED:
                self.heard.append(payload)
                self.learn(payload)
        if not got:
            self.close()

    def learn(self, payload: bytes) -> None:
        message = ouch.OUTBOUND_BY_CODE[payload[0]]
        fields: dict[str, Any] = message.decode(payload)
        if message is ouch.ACCEPTED:
            self.working[fields["user_ref"]] = fields["symbol"], ord(fields["side"])
        elif message is ouch.REPLACED:
            self.working.pop(fields["orig_user_ref"], None)
            self.working[fields["user_ref"]] = fields["symbol"], ord(fields["side"])
        elif message in (ouch.CANCELED, ouch.AIQ_CANCELED) and self.chance.random() < 0.8:
            self.working.pop(fields["user_ref"], None)

    def turn(self, targets: Collection[Order], crosses: str, *, quoting: bool) -> None:
        """targets: orders of ours, some of which it goes for; crosses: letters of those that there are today."""
        self.listen()
        if self.socket is None and quoting and self.chance.random() < 0.2:
            self.connect()
        if not self.up:
            self.waited += self.socket is not None
            if self.waited > PATIENCE_TURNS:
                self.close()
        if not self.up or not quoting:
            return
        if self.chance.random() < 0.003:
            self.close()
        elif self.chance.random() < 0.5:
            self.act(targets, crosses)

    def act(self, targets: Collection[Order], crosses: str) -> None:
        roll = self.chance.random()
        if targets and roll < 0.25:
            target = self.chance.choice(list(targets))
            symbol = next(name for name, number in self.symbols.items() if number == target.instrument)
            side = "S" if target.side == BUY else "B"
            self.enter(symbol, side, target.px, max(1, self.chance.choice((target.open, target.open // 2, target.open * 2))))
        elif roll < 0.6 and len(self.working) < WORKING_MAX:
            symbol, side = self.chance.choice(list(self.symbols)), self.chance.choice("BS")
            if crosses and self.chance.random() < 0.4:
                # Far through the market, and all on one side: so the cross reaches what is displayed on the other.
                px = self.price(symbol, self.leaning) + (20 if self.leaning == "B" else -20) * TICK
                self.enter(symbol, self.leaning, px, 10 * self.quantity(), cross=self.chance.choice(crosses))
            else:
                self.enter(symbol, side, self.price(symbol, side), self.quantity())
        elif roll < 0.75 and self.working:
            target_ref = self.chance.choice(list(self.working))
            symbol, number = self.working[target_ref]
            self.order(replace(target_ref, self.ref(), self.quantity(), self.price(symbol, chr(number))))
        elif roll < 0.92 and self.working:
            self.order(cancel(self.chance.choice(list(self.working)), self.chance.choice((0, 0, 50))))
        elif roll < 0.94:
            self.order(mass_cancel(self.ref(), self.chance.choice(("", *self.symbols))))
        elif roll < 0.96:
            self.order(disable(self.ref()))
            self.order(disable(self.ref(), enable=True))
        elif roll < 0.97:
            self.order(query())
        else:
            self.enter(self.chance.choice(("NONE", *self.symbols)), self.chance.choice("BSX"), self.chance.choice((0, 1 << 40)), 0)

    def ref(self) -> int:
        self.next_ref += 1
        return self.next_ref - 1

    def enter(self, symbol: str, side: str, px: int, qty: int, *, cross: str = "N") -> None:
        self.order(
            ouch.ENTER_ORDER.encode(
                user_ref=self.ref(), side=side, quantity=qty, symbol=symbol, px=px, tif=self.chance.choice("003"), display="Y",
                capacity="P", sweep="N", cross=cross, client_id="RIVAL", appendage_length=0,
            )
        )  # fmt: skip

    def quantity(self) -> int:
        return self.chance.choice((100, 200, 300, self.chance.randint(1, 400)))

    def price(self, symbol: str, side: str) -> int:
        """Near the market, as our own board has it: behind the best, at it, or through it."""
        quote = self.quotes.records.view(np.ndarray)[self.symbols[symbol]]
        bid, ask = int(quote["bid_px"]) or 1_000_000, int(quote["ask_px"]) or 1_000_100
        towards = 1 if side == "B" else -1
        near = bid if side == "B" else ask
        far = ask if side == "B" else bid
        through = self.chance.random() < 0.3
        px = far + towards * TICK * self.chance.randint(0, 2) if through else near - towards * TICK * self.chance.randint(-1, 3)
        return max(px, TICK)
