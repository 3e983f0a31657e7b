"""Every limit that an order may have broken when it left, held against the truth: what rests, is under way, or of unknown fate.

The gate can only count for more than that. Where it values what it counts, its marks are taken, after the judge has seen that each was the
middle of a quote; they may be those of before its turn or of after it, whichever is milder.
"""

from collections import defaultdict, deque
from typing import Any

import numpy as np

from engine.layout import BOOK_VALID, BUY, SELL
from engine.risk.hot.state import VERSION
from engine.risk.limits import OFF_WORD, Limits
from tests.sim_account import NEW, Account
from tests.sim_world import NUMBERS, World

NAMES = {number: symbol for symbol, number in NUMBERS.items()}
PX_UNITS = 10_000

Reach = dict[int, tuple[int, int]]


class Scale:
    """`weigh` says which limit an order broke, if it did; `settle` is called after every turn of the gateway."""

    def __init__(self, world: World, account: Account) -> None:
        self.world, self.account = world, account
        self.seen_middles: dict[int, set[int]] = defaultdict(set)
        self.problems: list[str] = []
        self.begin_life()

    def begin_life(self) -> None:
        self.tokens: dict[str, tuple[float, int]] = {}
        self.marks: dict[int, int] = {}
        self.counted: Reach = {}
        self.held: dict[int, tuple[int, int]] = {}
        self.pnl = self.peak = 0
        self.judged_by: Limits | None = None
        self.lost = ""
        self.orders = 0
        self.amounts: deque[tuple[int, int]] = deque()
        self.session_amount = 0
        self.same: dict[tuple[Any, ...], int] = {}

    # What is kept of every turn.

    def see_quotes(self) -> None:
        """After the feed handler's turn: the middles that a mark may be."""
        for instrument in NAMES:
            quote = self.world.quotes.records[instrument]
            if int(quote["flags"]) == BOOK_VALID and quote["bid_sz"] and quote["ask_sz"]:
                self.seen_middles[instrument].add((int(quote["bid_px"]) + int(quote["ask_px"])) >> 1)

    def settle(self) -> None:
        """After the gateway's turn: its marks, and what the account is worth by them. What was lost by now holds orders from then on."""
        before = dict(self.marks)
        lines, facts = self.world.life.gateway.state.risk.lines, self.world.life.facts
        executed = {px for _, px in self.account.executions.values()}
        for place in range(int(facts["lines"])):
            instrument, mark = int(lines[place].instrument), int(lines[place].mark)
            self.marks[instrument] = mark
            # Before the gate has seen a quote of it, an instrument is worth what it last traded at.
            if mark not in (0, before.get(instrument)) and mark not in self.seen_middles[instrument] | executed:
                self.problems.append(f"instrument {instrument} is valued at {mark}, which no quote was the middle of")
        board = self.world.life.positions.records.view(np.ndarray)
        self.held = {number: (int(board[number]["cash"]), int(board[number]["position"])) for number in self.marks}
        self.counted = {instrument: self.count(instrument) for instrument in NAMES}
        was, self.pnl = self.pnl, sum(cash + position * self.marks[number] for number, (cash, position) in self.held.items())
        self.peak = max(self.peak, self.pnl)
        # The gate looks at losses whenever they change, by the rules that it has read by then.
        limits, risk = self.world.limits, self.world.life.gateway.state.risk
        if self.pnl != was and self.judged_by is limits:
            if limits.daily_loss_max != OFF_WORD and self.pnl < -limits.daily_loss_max * PX_UNITS:
                self.lost = self.lost or f"daily_loss_max={limits.daily_loss_max}"
            if limits.drawdown_max != OFF_WORD and self.peak - self.pnl > limits.drawdown_max * PX_UNITS:
                self.lost = self.lost or f"drawdown_max={limits.drawdown_max}"
        self.judged_by = limits if int(risk.rules[VERSION]) == int(risk.shared[VERSION]) else None

    # An order.

    def weigh(self, name: str, fields: dict[str, Any], order: dict[str, int], before: Reach) -> str | None:
        """`before` is the account's reach before this order, which is in the account by now. The limit that it broke, or None."""
        limits = self.world.limits
        return (
            self.weigh_standing(fields, order, limits)
            or self.weigh_size(order, limits)
            or self.price_problem(order)
            or self.weigh_flow(name, order, limits)
            or self.weigh_stake(fields, order, before, limits)
        )

    def weigh_standing(self, fields: dict[str, Any], order: dict[str, int], limits: Limits) -> str | None:
        world, instrument = self.world, order["instrument"]
        if world.state == "halted":
            return "the gate is halted"
        if world.covers(order["strategy"], NAMES.get(instrument, "")):
            return "its part is killed"
        if fields["client_id"] != f"TICKPATH  /S{order['strategy']:02}":
            return f"it does not name its strategy, {order['strategy']}"
        if instrument not in NAMES or NAMES[instrument] in limits.restricted:
            return "it may not be traded"
        if limits.self_trade == "refuse" and self.meets_our_own(order):
            return "it could trade with an order of ours"
        return None

    def weigh_size(self, order: dict[str, int], limits: Limits) -> str | None:
        if not 1 <= order["qty"] <= limits.order_qty_max:
            return f"order_qty_max={limits.order_qty_max}"
        if limits.order_qty_min != OFF_WORD and order["qty"] < limits.order_qty_min:
            return f"order_qty_min={limits.order_qty_min}"
        if limits.order_notional_min != OFF_WORD and order["qty"] * order["px"] < limits.order_notional_min * PX_UNITS:
            return f"order_notional_min={limits.order_notional_min}"
        if limits.order_qty_step == "lot" and order["qty"] % 100:
            return "not whole lots"
        if limits.order_px_step == "tick" and order["px"] % 100:
            return "not a whole tick"
        if order["qty"] * order["px"] > limits.order_notional_max * PX_UNITS:
            return f"order_notional_max={limits.order_notional_max}"
        return None

    def price_problem(self, order: dict[str, int]) -> str | None:
        quote = self.world.quotes.records[order["instrument"]]
        if int(quote["flags"]) != BOOK_VALID or not quote["bid_sz"] or not quote["ask_sz"]:
            return f"no valid quote (flags={int(quote['flags'])})"
        twice = int(quote["bid_px"]) + int(quote["ask_px"])
        if abs(2 * order["px"] - twice) * 10_000 > self.world.limits.collar_bps * twice:
            return f"collar_bps={self.world.limits.collar_bps} around {twice / 2}"
        return None

    def weigh_flow(self, name: str, order: dict[str, int], limits: Limits) -> str | None:
        """What orders come to over time. Only what was sent while a limit was in force counts against it."""
        now, plan = self.world.now, self.world.plan
        if not self.take_token("gate", limits.message_rate_per_s, limits.message_burst):
            return f"message_rate_per_s={limits.message_rate_per_s}"
        if plan.pace_per_s and not self.take_token("pace", plan.pace_per_s, plan.pace_burst):
            return f"pace_per_s={plan.pace_per_s} pace_burst={plan.pace_burst}"
        if limits.order_to_trade_max != OFF_WORD:
            allowed = limits.order_to_trade_free + limits.order_to_trade_max * len(self.account.executions)
            if self.orders >= allowed:
                return f"order_to_trade_max={limits.order_to_trade_max}: {self.orders} sent before it, {allowed} allowed"
        self.orders += 1
        if limits.duplicates_max == 1:
            key = name, order["instrument"], order["side"], order["px"], order["qty"], order["tif"]
            last, self.same[key] = self.same.get(key), now
            if last is not None and now - last < limits.duplicates_window_ms * 1e6:
                return f"duplicates_max=1: the same was sent {now - last} ns before"
        else:
            self.same.clear()
        return self.weigh_amounts(name, order, limits)

    def weigh_amounts(self, name: str, order: dict[str, int], limits: Limits) -> str | None:
        """New orders alone: what a replacement adds, the gate may see otherwise than the truth."""
        amount = order["qty"] * order["px"] if name == NEW else 0
        self.session_amount += amount
        if limits.notional_session_max != OFF_WORD and self.session_amount > limits.notional_session_max * PX_UNITS:
            return f"notional_session_max={limits.notional_session_max}, and {self.session_amount / PX_UNITS} were sent"
        if limits.notional_window_max == OFF_WORD:
            self.amounts.clear()
            return None
        since = self.world.now - limits.notional_window_ms * 1e6
        self.amounts.append((self.world.now, amount))
        while self.amounts[0][0] <= since:
            self.amounts.popleft()
        within = sum(sent for _, sent in self.amounts)
        if within > limits.notional_window_max * PX_UNITS:
            return f"notional_window_max={limits.notional_window_max}, and {within / PX_UNITS} were sent within it"
        return None

    def take_token(self, name: str, per_s: float, burst: float) -> bool:
        """A bucket that only new orders and replacements take from: cancels take more, so the gateway's own is never fuller."""
        now = self.world.now
        level, since = self.tokens.get(name, (float(burst), now))
        level = min(float(burst), level + (now - since) * per_s / 1e9)
        self.tokens[name] = level - 1.0, now
        return level >= 1.0 - 1e-6

    def meets_our_own(self, order: dict[str, int]) -> bool:
        buying = order["side"] == BUY
        against = SELL if buying else BUY
        for instrument, side, qty, prices in self.account.chains():
            if (instrument, side) == (order["instrument"], against) and qty > 0:
                nearest = min(prices) if buying else max(prices)
                if (nearest <= order["px"]) if buying else (nearest >= order["px"]):
                    return True
        return False

    def weigh_stake(self, fields: dict[str, Any], order: dict[str, int], before: Reach, limits: Limits) -> str | None:
        after, instrument, side = self.account.reach(), order["instrument"], 0 if order["side"] == BUY else 1
        reached, was = after[instrument][side], before[instrument][side]
        reducing = "reducing" if self.world.state == "reducing" else self.lost
        if reducing and reached - self.account.left_by(int(fields["user_ref"])) > 0:
            return f"{reducing}, but it may lead to {reached}"
        if reached <= was:
            return None
        if reached > limits.position_max:
            return f"position_max={limits.position_max}, but it may lead to {reached}"
        worse = reached > max(self.counted.get(instrument, (0, 0))[1 - side], self.count(instrument)[1 - side])
        gross = sum(map(max, after.values()))
        if worse and limits.gross_position_max != OFF_WORD and gross > limits.gross_position_max:
            return f"gross_position_max={limits.gross_position_max}, but it may lead to {gross}"
        return self.weigh_exposure(instrument, side, limits, worse=worse)

    def count(self, instrument: int) -> tuple[int, int]:
        """How long and how short the gateway counts for."""
        line = self.world.life.positions.records[instrument]
        position = int(line["position"])
        return position + int(line["open_buy"]), int(line["open_sell"]) - position

    def weigh_exposure(self, instrument: int, side: int, limits: Limits, *, worse: bool) -> str | None:
        """What the account may come to in money. Only an order that makes the worst side worse is held to the gross figures: where more is
        counted on the other side, and it was too much when the limit came, the order changes nothing."""
        after = self.account.reach()
        lines, quote = self.world.life.gateway.state.risk.lines, self.world.quotes.records[instrument]
        marks = {number: {mark} for number, mark in self.marks.items()}
        for place in range(int(self.world.life.facts["lines"])):
            marks.setdefault(int(lines[place].instrument), set()).add(int(lines[place].mark))
        marks[instrument] = {(int(quote["bid_px"]) + int(quote["ask_px"])) >> 1}
        gross = sum(min(max(after[number]) * mark for mark in each) for number, each in marks.items())
        net = sum(min(after[number][side] * mark for mark in each) for number, each in marks.items())
        if limits.net_exposure_max != OFF_WORD and net > limits.net_exposure_max * PX_UNITS:
            return f"net_exposure_max={limits.net_exposure_max}, but it may lead to {net / PX_UNITS}"
        if not worse:
            return None
        if limits.gross_exposure_max != OFF_WORD and gross > limits.gross_exposure_max * PX_UNITS:
            return f"gross_exposure_max={limits.gross_exposure_max}, but it may lead to {gross / PX_UNITS}"
        if limits.credit_max == OFF_WORD:
            return None
        worth = sum(max(cash + position * mark for mark in marks[number]) for number, (cash, position) in self.held.items())
        if gross * limits.margin_pct > (limits.credit_max * PX_UNITS + min(worth, 0)) * 100:
            return f"credit_max={limits.credit_max} less what is lost, but it may lead to {gross / PX_UNITS}"
        return None
