"""A trader for simulations: orders of every kind, sensible and not, by a seed, knowing only what the reports ring tells it.

It stands where the strategy's process stands, at both rings; what it asks for is judged by what leaves the gateway.
"""

import random
from typing import Any

import numpy as np

from engine.layout import (
    BUY,
    MSG_ACCEPTED,
    MSG_CANCEL,
    MSG_CANCELLED,
    MSG_EXECUTED,
    MSG_NEW,
    MSG_REJECTED,
    MSG_REPLACE,
    MSG_REPLACED,
    ORDER,
    REPORT,
    SELL,
    TIF_DAY,
    TIF_IOC,
)
from shm.hot import EMPTY, FULL, advance, claim, commit, poll, release
from shm.ring import Ring
from shm.table import Board

TICK = 100
WORKING_MAX = 60
USUAL_PX = 1_000_000


class Trader:
    """`turn` reads what was reported and asks for something, or nothing. roles: its ends of the rings."""

    def __init__(
        self, chance: random.Random, orders: Ring, reports: Ring, quotes: Board, instruments: int, *, activity: float, weird: float
    ):
        self.chance, self.quotes, self.instruments = chance, quotes, instruments
        self.activity, self.weird = activity, weird
        self.roles = (orders.producer(ORDER), reports.consumer("strategy", REPORT))
        self.into, self.out = self.roles[0].end, self.roles[1].end
        self.last_id = 0
        self.working: dict[int, tuple[int, int]] = {}
        self.seen: list[int] = []
        self.full = 0

    def close(self) -> None:
        for role in self.roles:
            role.close()

    def turn(self, now_tsc: int, *, quoting: bool) -> None:
        self.learn()
        if not quoting:
            return
        asked = int(self.activity) + (self.chance.random() < self.activity % 1.0)
        if self.chance.random() < 0.01:
            asked += 20
        for _ in range(asked):
            self.act(now_tsc)

    def learn(self) -> None:
        taken = 0
        slots = self.out.slots.view(np.ndarray)
        while (index := poll(self.out)) != EMPTY:
            report = slots[index]
            self.note(int(report["kind"]), int(report["order_id"]), int(report["qty"]), int(report["ref_id"]))
            advance(self.out)
            taken += 1
        if taken:
            release(self.out)

    def note(self, kind: int, order_id: int, qty: int, ref_id: int) -> None:
        if kind == MSG_REPLACED:
            self.working.pop(ref_id, None)
        # Now and then it forgets one too early, or asks for one that is long gone.
        if (kind == MSG_REJECTED and qty == 0) or (kind in (MSG_CANCELLED, MSG_EXECUTED) and self.chance.random() < 0.7):
            self.working.pop(order_id, None)
        if kind == MSG_ACCEPTED and self.chance.random() < 0.01:
            self.working.pop(order_id, None)

    def act(self, now_tsc: int) -> None:
        roll = self.chance.random()
        if self.chance.random() < self.weird:
            self.ask_nonsense(now_tsc)
        elif not self.working or (roll < 0.5 and len(self.working) < WORKING_MAX):
            instrument, side = self.chance.randint(1, self.instruments), self.chance.choice((BUY, SELL))
            px, tif = self.price(instrument, side)
            self.last_id += 1
            if self.put(
                now_tsc, kind=MSG_NEW, order_id=self.last_id, instrument=instrument, side=side, px=px, qty=self.quantity(), tif=tif
            ):
                self.working[self.last_id] = (instrument, side)
        else:
            target = self.chance.choice(list(self.working))
            instrument, side = self.working[target]
            if roll < 0.75:
                px, tif = self.price(instrument, side)
                self.last_id += 1
                if self.put(
                    now_tsc, kind=MSG_REPLACE, order_id=self.last_id, target_id=target, instrument=instrument, side=side, px=px,
                    qty=self.quantity(), tif=tif,
                ):  # fmt: skip
                    self.working[self.last_id] = (instrument, side)
            else:
                qty = 0 if self.chance.random() < 0.7 else self.chance.randint(1, 300)
                self.put(now_tsc, kind=MSG_CANCEL, order_id=target, instrument=instrument, side=side, qty=qty)

    def quantity(self) -> int:
        return self.chance.choice((100, 100, 200, 300, self.chance.randint(1, 400)))

    def price(self, instrument: int, side: int) -> tuple[int, int]:
        """Near the market as the board has it: mostly passive, sometimes to trade at once, seldom far away. And the time in force."""
        quote = self.quotes.records.view(np.ndarray)[instrument]
        bid, ask = int(quote["bid_px"]) or USUAL_PX, int(quote["ask_px"]) or USUAL_PX + TICK
        towards = 1 if side == BUY else -1
        roll = self.chance.random()
        if roll < 0.55:
            px = (bid if side == BUY else ask) - towards * TICK * self.chance.randint(-1, 5)
        elif roll < 0.95:
            px = (ask if side == BUY else bid) + towards * TICK * self.chance.randint(0, 3)
        else:
            px = bid + TICK * self.chance.randint(-300, 300)
        return max(px, TICK), TIF_IOC if self.chance.random() < 0.2 else TIF_DAY

    def ask_nonsense(self, now_tsc: int) -> None:
        """An order with one thing wrong with it."""
        instrument, side = self.chance.randint(1, self.instruments), self.chance.choice((BUY, SELL))
        px, tif = self.price(instrument, side)
        self.last_id += 1
        fields: dict[str, Any] = {
            "kind": self.chance.choice((MSG_NEW, MSG_REPLACE)), "order_id": self.last_id, "target_id": self.chance.randint(0, self.last_id),
            "instrument": instrument, "side": side, "px": px, "qty": self.quantity(), "tif": tif,
        }  # fmt: skip
        fields |= self.chance.choice(
            (
                {"qty": 0}, {"qty": -5}, {"qty": 10**9}, {"qty": 1 << 62}, {"px": 0}, {"px": -px}, {"px": 1 << 60}, {"px": px + 1},
                {"px": px * 3}, {"side": 0}, {"side": 200}, {"tif": 9}, {"kind": 99}, {"instrument": 63}, {"instrument": 65_535},
                {"instrument": 0}, {"order_id": max(self.last_id - self.chance.randint(1, 10), 0)}, {"order_id": 0},
                {"strategy": 7}, {"strategy": 65_535}, {"kind": MSG_CANCEL, "qty": 1 << 40}, {"kind": MSG_CANCEL, "qty": -1},
                {"kind": MSG_REPLACE, "side": BUY + SELL - side},
            )
        )  # fmt: skip
        self.put(now_tsc, **fields)

    def put(self, now_tsc: int, **fields: Any) -> bool:
        index = claim(self.into)
        if index == FULL:
            self.full += 1
            if fields["kind"] != MSG_CANCEL and fields["order_id"] == self.last_id:
                self.last_id -= 1
            return False
        usual = {
            "origin_tsc": now_tsc, "ts_ns": 0, "flags": 0, "age_tsc": 0, "px": 0, "qty": 0, "target_id": 0, "tif": TIF_DAY, "strategy": 0,
        }  # fmt: skip
        usual["strategy"] = 1 if self.chance.random() < 0.3 else 0
        order = self.into.slots.view(np.ndarray)[index]
        for name, value in (usual | fields).items():
            order[name] = value
        commit(self.into, index)
        return True
