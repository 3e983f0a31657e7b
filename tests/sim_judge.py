"""What must be true of every simulated run, whatever went wrong in it. The judge believes bytes, and no kernel's account of them.

once      user_refs on the wire only grow, over all connections and lives; what the strategy asked for once leaves once, and unchanged
killed    no order and no replacement leaves while the kill word is set
let in    none leaves before the connection has said that we are let in, and that all it had to tell has been told
limits    what may come of all that rests, is under way or of unknown fate stays within each limit when an order is sent (sim_limits.py)
counted   what the gateway counts is never less than that
told      the strategy hears of every execution once, of every order's fate, and of nothing that did not happen
even      in the end positions, cash, open orders and P&L are the venue's
agreed    what the venue told each of its accounts is one truth, and what it published (sim_agreement.py)
"""

import os
import socket
from collections import defaultdict
from typing import Any

import numpy as np

from engine.exchange.hot.state import CLIENT_FD, LINK, LOG_SLOT_BYTES, LOGGED
from engine.gateway.hot import state as gateway_state
from engine.gateway.ouch import v50 as ouch
from engine.layout import (
    INSTRUMENTS_MAX,
    MSG_ACCEPTED,
    MSG_CANCEL,
    MSG_CANCELLED,
    MSG_EXECUTED,
    MSG_NEW,
    MSG_REJECTED,
    MSG_REPLACE,
    MSG_REPLACED,
    PHASE_TRADING,
    REJECTED_BY_RISK,
    TIF_IOC,
)
from engine.risk.hot.reasons import REASON_KILLED_SCOPE, REASON_WITHDRAWN
from engine.wire import soupbintcp as soup
from engine.wire.soupbintcp import PAYLOAD_AT
from tests.sim_account import CANCEL, NEW, REPLACE, Account
from tests.sim_agreement import Agreement
from tests.sim_limits import NAMES, Scale
from tests.sim_network import Link
from tests.sim_witness import Witness
from tests.sim_world import NUMBERS, World

KINDS = {MSG_ACCEPTED: "accepted", MSG_REPLACED: "replaced", MSG_CANCELLED: "cancelled", MSG_EXECUTED: "executed", MSG_REJECTED: "rejected"}


# Turns in which a kill that was lifted may still be carried out: its cancels wait for the socket.
SWEEP_TURNS = 100


ORDERS = (ouch.ENTER_ORDER.code, ouch.REPLACE_ORDER.code)
CROSSES = (chr(ouch.LIQUIDITY_OPENING), chr(ouch.LIQUIDITY_CLOSING))


class Stream:
    """SoupBinTCP packets off a byte stream that comes in pieces."""

    def __init__(self) -> None:
        self.raw = b""

    def packets(self, more: bytes) -> list[tuple[int, bytes]]:
        self.raw += more
        found = []
        while len(self.raw) >= 2 and len(self.raw) >= 2 + (length := int.from_bytes(self.raw[:2], "big")):
            found.append((self.raw[2], self.raw[3 : 2 + length]))
            self.raw = self.raw[2 + length :]
        return found


class Seen:
    """What the judge has heard of one connection: both directions as packets, and how much of what was judged has left."""

    def __init__(self) -> None:
        self.back = Stream()
        self.left = 0
        self.welcome = False
        self.next = 0
        # Packets that were judged and have not left whole, and how many bytes of the first one have.
        self.ready: list[bytes] = []
        self.begun = 0

    def leave(self, count: int) -> list[bytes]:
        """So many bytes have left. Returns the packets that have begun to."""
        begun = []
        self.left += count
        while count > 0:
            if self.begun == 0:
                begun.append(self.ready[0])
            rest = len(self.ready[0]) - self.begun
            if count < rest:
                self.begun += count
                break
            count -= rest
            self.begun = 0
            del self.ready[0]
        return begun


class Judge:
    def __init__(self, world: World) -> None:
        self.world = world
        rules = world.plan.rules
        # Ours is the first; the others are known as the venue knows them.
        self.accounts = [Account(NUMBERS) for _ in range(1 + len(rules.rivals))]
        self.account = self.accounts[0]
        self.rejected_before = 0
        self.inside: Any = None
        self.scale = Scale(world, self.account)
        self.witness = Witness({NUMBERS[symbol] for symbol in rules.pro_rata})
        world.market.heard = self.witness.hear
        self.said_to: list[list[bytes]] = [[] for _ in self.accounts]
        self.reached_venue: dict[int, Stream] = defaultdict(Stream)
        self.arrived: dict[int, int] = {}
        self.problems: list[str] = []
        self.seen: dict[int, Seen] = defaultdict(Seen)
        self.logged = [0] * len(self.accounts)
        self.known_dead: set[int] = set()
        self.answers: dict[int, Any] = {}
        self.killed_before = False
        self.swept_until = 0
        self.counts: dict[str, int] = defaultdict(int)
        self.begin_life()

    def say(self, problem: str) -> None:
        if len(self.problems) < 20:
            self.problems.append(f"turn {self.turn}: {problem}")

    turn = 0

    def begin_life(self) -> None:
        """Our processes have started anew: what they were asked for and told begins again."""
        self.asked: dict[int, dict[str, int]] = {}
        self.gone: dict[int, int] = {}
        self.cancels_asked: set[int] = set()
        self.put, self.told = 0, 0
        self.reports: list[dict[str, int]] = []
        self.executed: dict[tuple[int, int], dict[str, int]] = {}
        self.traded: dict[int, int] = {}
        self.came: dict[int, list[str]] = defaultdict(list)
        self.last_ref = 0
        self.rejected_before = self.account.rejections
        self.scale.begin_life()
        self.was_up = False

    # After the strategy: what it asked for.

    def after_strategy(self) -> None:
        life = self.world.life
        slots, begin = life.gateway.state.orders.slots, self.put
        self.put = life.put
        for position in range(begin, self.put):
            order = fields_of(slots, position)
            self.world.note("asked", *order.values())
            if order["kind"] in (MSG_NEW, MSG_REPLACE):
                # Of an id that comes again the first one counts: the others are refused.
                self.asked.setdefault(order["order_id"], order)
            elif order["kind"] == MSG_CANCEL:
                # Where it is still to replace another that one may be cancelled in its place.
                order_id = order["order_id"]
                while order_id and order_id not in self.cancels_asked:
                    self.cancels_asked.add(order_id)
                    order_id = self.asked.get(order_id, {}).get("target_id", 0)

    # After the venue: what is true.

    def after_exchange(self) -> None:
        for number in range(len(self.accounts)):
            self.read_log(number)
        if (name := self.let_in()) not in (None, self.inside):
            # Whoever comes back finds what it left, or nothing.
            if self.inside is not None and self.account.orders and not self.world.plan.rules.keeps_orders:
                self.say(f"let in again, and the orders of before rest still: {self.account.orders}")
            self.inside = name
        for link in self.world.network.links:
            if not link.alive and link.number not in self.known_dead and self.is_forgotten(link):
                self.known_dead.add(link.number)
                self.account.lose(link.number)
                self.counts["kept over a loss"] += self.world.plan.rules.keeps_orders and bool(self.account.orders)

    def read_log(self, number: int) -> None:
        """What the venue has decided to tell an account, told or not."""
        account, clients = self.accounts[number], self.world.exchange.state.venue.clients
        log, logged = clients.log[number], int(clients.words[number, LOGGED])
        slots = log.shape[0] // LOG_SLOT_BYTES
        for place in range(self.logged[number], logged):
            at = place % slots * LOG_SLOT_BYTES
            length = int(log[at]) << 8 | int(log[at + 1])
            raw = log[at + 3 : at + 2 + length].tobytes()
            self.said_to[number].append(raw)
            told = account.hear(raw)
            if number == 0 and raw[0] == ouch.REJECTED.code and ouch.REJECTED.decode(raw)["user_ref"] not in self.gone.values():
                self.rejected_before += 1
            self.world.note("truth" if number == 0 else f"truth of {number}", place + 1, told)
            if number == 0:
                self.judge_latency(raw)
                if raw[0] == ouch.ACCOUNT_QUERY_RESPONSE.code:
                    self.answers[place + 1] = self.let_in()
        self.logged[number] = logged
        if account.problems:
            self.say(account.problems.pop())

    def hear_arrival(self, link: Link, arrived: bytes) -> None:
        """What has reached the venue's end of a connection: it is done only after the latency of the day."""
        for kind, payload in self.reached_venue[link.number].packets(arrived):
            if kind == soup.UNSEQUENCED and payload[0] in ORDERS:
                ref = ouch.INBOUND_BY_CODE[payload[0]].decode(payload)["user_ref"]
                self.arrived[int(ref)] = self.world.now

    def judge_latency(self, raw: bytes) -> None:
        if raw[0] not in (ouch.ACCEPTED.code, ouch.REPLACED.code):
            return
        fields: dict[str, Any] = ouch.OUTBOUND_BY_CODE[raw[0]].decode(raw)
        waited = fields["timestamp"] - self.arrived[fields["user_ref"]]
        latencies = self.world.plan.rules.latency.orders_ns
        self.counts["orders held back"] += 0 < min(latencies) <= waited
        if waited < min(latencies):
            self.say(f"the venue did user_ref={fields['user_ref']} {waited} ns after it came, too early: {fields}")

    def is_forgotten(self, link: Link) -> bool:
        """Whether nothing that was said on a connection can reach the venue's book any more: it was let in, and let go."""
        if int(self.world.exchange_stats.records[0]["clients"]) <= link.ordinal:
            return False
        held = self.world.exchange.state.links.words[:, CLIENT_FD]
        return link.name not in {peer_of(int(fd)) for fd in held if fd >= 0}

    def let_in(self) -> Any:
        """The name of the connection that the venue takes for ours."""
        exchange = self.world.exchange.state
        row = int(exchange.venue.clients.words[0, LINK]) - 1
        return peer_of(int(exchange.links.words[row, CLIENT_FD])) if row >= 0 else None

    # After the gateway: what left, and what it counts.

    def after_gateway(self, *, killed: bool) -> None:
        for link in self.world.network.links:
            if link.alive:
                seen = self.seen[link.number]
                said = link.said(seen.left)
                before = set(seen.ready)
                self.hear_us(link, seen, said + self.pending(link), killed=killed)
                begun = seen.leave(len(said))
                if killed and self.killed_before and any(raw in before and raw[PAYLOAD_AT] in ORDERS for raw in begun):
                    self.say(f"an order that was held back left on connection {link.number} after the kill")
        self.killed_before = killed
        self.hear_reports()
        self.compare_counts()
        self.scale.settle()
        for problem in self.scale.problems:
            self.say(problem)
        self.scale.problems.clear()

    def pending(self, link: Link) -> bytes:
        """What the gateway has made ready for a connection and could not send yet."""
        life = self.world.life
        session = life.gateway.state.session
        if link is not self.world.network.last or life.ending != 0 or session[gateway_state.PENDING_BYTES] <= 0:
            return b""
        at = int(session[gateway_state.PENDING_AT])
        return life.gateway.state.wire[at : at + int(session[gateway_state.PENDING_BYTES])].tobytes()

    def hear_us(self, link: Link, seen: Seen, stream: bytes, *, killed: bool) -> None:
        """`stream` begins with what has left since this was last called, and ends with what is still to leave: all of it was judged."""
        at, kept = 0, []
        for place, raw in enumerate(seen.ready):
            rest = raw[seen.begun :] if place == 0 else raw
            if stream[at : at + len(rest)] == rest:
                at += len(rest)
                kept.append(raw)
            else:
                self.never_left(raw)
        seen.begun = seen.begun if kept and kept[0] == seen.ready[0] else 0
        seen.ready = kept
        for kind, payload in Stream().packets(stream[at:]):
            seen.ready.append((1 + len(payload)).to_bytes(2, "big") + bytes([kind]) + payload)
            if kind == soup.UNSEQUENCED:
                message = ouch.INBOUND_BY_CODE[payload[0]]
                fields = message.decode(payload)
                self.world.note("sent", link.number, message.name, *fields.values())
                self.counts[message.name] += 1
                if message.name in (NEW, REPLACE):
                    self.weigh_order(link, seen, message.name, fields, killed=killed)
                elif message.name == CANCEL:
                    self.weigh_cancel(fields)
            else:
                self.world.note("sent", link.number, chr(kind), payload.hex())
                self.counts[f"packet {chr(kind)}"] += 1

    def never_left(self, raw: bytes) -> None:
        """A packet that was ready has not left and never will: it was withdrawn, or its connection is over."""
        if raw[2] != soup.UNSEQUENCED or raw[PAYLOAD_AT] not in ORDERS:
            return
        ref = int(ouch.INBOUND_BY_CODE[raw[PAYLOAD_AT]].decode(raw[PAYLOAD_AT:])["user_ref"])
        self.world.note("taken back", ref)
        self.counts["taken back"] += 1
        self.account.never_left(ref)
        self.gone = {order_id: other for order_id, other in self.gone.items() if other != ref}

    def hear_venue(self, link: Link, delivered: bytes) -> None:
        """What has reached the gateway's end of a connection."""
        seen = self.seen[link.number]
        for kind, payload in seen.back.packets(delivered):
            if kind == soup.LOGIN_ACCEPTED.code:
                seen.next = int(payload[10:])
            elif kind == soup.SEQUENCED:
                # All that there was to tell has been told when the answer to the query of this very login is here.
                seen.welcome = seen.welcome or self.answers.get(seen.next) == link.name
                seen.next += 1

    def weigh_cancel(self, fields: dict[str, Any]) -> None:
        order_id = next((order_id for order_id, ref in self.gone.items() if ref == fields["user_ref"]), 0)
        if order_id and order_id not in self.cancels_asked and not self.may_sweep(self.asked[order_id]):
            self.say(f"order {order_id} was cancelled and nobody asked for that: {fields}")
        if fields["user_ref"] > max(self.last_ref, *self.account.answered, 0, 0):
            self.say(f"a cancel of user_ref={fields['user_ref']}, which was never sent: {fields}")

    def may_sweep(self, order: dict[str, int]) -> bool:
        """Whether the gateway may cancel an order of its own accord. A kill that was lifted a moment ago may still be carried out."""
        control = self.world.control
        killed_here = self.world.covers(order["strategy"], NAMES.get(order["instrument"], ""))
        if killed_here or control["phase"] != PHASE_TRADING:
            self.swept_until = self.turn + SWEEP_TURNS
        return killed_here or control["phase"] != PHASE_TRADING or self.turn < self.swept_until

    def weigh_order(self, link: Link, seen: Seen, name: str, fields: dict[str, Any], *, killed: bool) -> None:
        ref = int(fields["user_ref"])
        what = f"{name} {fields}"
        if killed:
            self.say(f"killed, and yet sent: {what}")
        if not seen.welcome:
            self.say(f"sent before the connection was ready: {what}")
        # A later life goes on where the venue stands: what an earlier one sent and never arrived has used up no number.
        if ref <= self.last_ref or ref in self.account.answered or ref in self.account.sent:
            self.say(f"user_ref={ref} after {self.last_ref}: {what}")
        self.last_ref = max(self.last_ref, ref)
        order = self.find_asked(ref)
        before = self.account.reach()
        self.account.say(name, fields, link.number)
        if order is None:
            self.say(f"nobody asked for {what}")
            return
        if order["order_id"] in self.gone:
            self.say(f"order {order['order_id']} was sent twice, as user_ref {self.gone[order['order_id']]} and {ref}")
        self.gone[order["order_id"]] = ref
        self.judge_likeness(name, fields, order, what)
        if (problem := self.scale.weigh(name, fields, order, before)) is not None:
            self.say(f"{problem}: {what}")

    def find_asked(self, ref: int) -> dict[str, int] | None:
        """What the strategy asked for that left under this user_ref."""
        table = self.world.life.gateway.state.table
        entry = table[ref & (len(table) - 1)]
        return self.asked.get(int(entry.order_id)) if user_ref_of(entry) == ref else None

    def judge_likeness(self, name: str, fields: dict[str, Any], order: dict[str, int], what: str) -> None:
        """It says what was asked for."""
        told = {"px": fields["px"], "ioc": fields["tif"] == chr(ouch.TIF_IOC)}
        wanted = {"px": order["px"], "ioc": order["tif"] == TIF_IOC}
        if name == NEW:
            told |= {"side": ord(fields["side"]), "qty": fields["quantity"], "symbol": fields["symbol"]}
            wanted |= {"side": order["side"], "qty": order["qty"], "symbol": NAMES.get(order["instrument"], "")}
        elif fields["quantity"] != order["qty"] + self.traded_by(order["target_id"]):
            self.say(f"asked for {order['qty']} open, of a chain that has traded {self.traded_by(order['target_id'])}: {what}")
        elif self.gone.get(order["target_id"]) != fields["orig_user_ref"]:
            self.say(f"it replaces another order than {order['target_id']}, {self.gone.get(order['target_id'])}: {what}")
        if told != wanted:
            self.say(f"asked for {wanted}, sent {told}: {what}")

    def traded_by(self, order_id: int) -> int:
        """What an order and those that it replaced have traded, as far as the strategy has been told."""
        traded = 0
        while order_id in self.asked and order_id in self.gone:
            ref, order_id = self.gone[order_id], self.asked[order_id]["target_id"]
            traded += self.traded.get(ref, 0)
        return traded

    def compare_counts(self) -> None:
        """The gateway counts for at least what may come: from when it was first let in until its life ends."""
        life = self.world.life
        self.was_up = self.was_up or bool(self.world.control["session_up"])
        if not self.was_up:
            return
        lines = life.positions.records.view(np.ndarray)
        for instrument, (long, short) in self.account.reach().items():
            _, position, _, _, _, open_buy, open_sell, _ = lines[instrument].item()
            believed = position + open_buy, open_sell - position
            if believed[0] < long or believed[1] < short:
                self.say(f"instrument {instrument} may come to {long} long, {short} short, but the gateway counts for {believed}")

    # What the strategy is told.

    def hear_reports(self) -> None:
        life = self.world.life
        slots, begin = life.gateway.state.reports.slots, self.told
        self.told = life.told
        for position in range(begin, self.told):
            report = fields_of(slots, position)
            self.world.note("told", *report.values())
            self.reports.append(report)
            self.counts[KINDS.get(report["kind"], "other")] += 1
            self.judge_report(report)

    def judge_report(self, report: dict[str, int]) -> None:
        order_id, kind = report["order_id"], report["kind"]
        came = self.came[order_id]
        if kind == MSG_EXECUTED:
            key = report["ref_id"], self.gone.get(order_id, 0)
            if key in self.executed:
                self.say(f"an execution told twice: {report}")
            self.executed[key] = report
            self.traded[key[1]] = self.traded.get(key[1], 0) + report["qty"]
            if self.account.executions.get(key) != (report["qty"], report["px"]):
                self.say(f"an execution that never was: {report}")
            self.counts["ours in a cross"] += chr(report["liquidity"]) in CROSSES
        elif kind in (MSG_ACCEPTED, MSG_REPLACED):
            name = KINDS[kind]
            if name in came or order_id not in self.gone:
                self.say(f"order {order_id} {name}, after {came}: {report}")
            came.append(name)
        elif kind == MSG_REJECTED and not report["flags"] & REJECTED_BY_RISK:
            if "rejected" in came:
                self.say(f"order {order_id} rejected by the venue twice: {report}")
            came.append("rejected")
        elif kind == MSG_REJECTED:
            came.append("refused")
            self.counts[f"reason {report['reason']}"] += 1
            strategy = self.asked.get(order_id, {}).get("strategy", 0)
            killed_here = self.world.covers(strategy, NAMES.get(report["instrument"], ""))
            if report["reason"] == REASON_KILLED_SCOPE and not killed_here:
                self.say(f"refused as part of what is killed, which it is not: {report}")
        elif kind == MSG_CANCELLED and report["reason"] == REASON_WITHDRAWN:
            came.append("withdrawn")

    # In the end.

    def judge_loss(self) -> None:
        """The gateway has given up: it says so, and counts what may be open."""
        if self.world.control["session_up"]:
            self.say("the gateway is over, but says that its session is up")
        self.compare_counts()

    def judge_end(self, *, drained: bool) -> None:
        """All is told and nothing is under way: what we believe is what the venue has."""
        world, life = self.world, self.world.life
        # What was to replace an order that was done before may be ignored without a word.
        under_way = {
            ref: sent for ref, sent in self.account.sent.items() if not sent.target or self.account.root(ref) in self.account.orders
        }
        if under_way:
            self.say(f"still under way: {under_way}")
        for instrument in NAMES:
            truth = self.account.line(instrument)
            for whose, board in (("ours", life.positions), ("the venue's", world.exchange_positions)):
                line = {name: int(board.records[instrument][name]) for name in truth}
                if line != truth:
                    self.say(f"instrument {instrument}: {whose} board says {line}, the session {truth}")
        self.judge_pnl()
        table = life.gateway.state.table
        alive = [entry for entry in table if is_open(entry)]
        believed = {user_ref_of(entry): (int(entry.open), int(entry.px)) for entry in alive}
        truth_open = {ref: (order.open, order.px) for ref, order in self.account.orders.items()}
        if believed != truth_open:
            self.say(f"open orders are {believed}, the venue's {truth_open}")
        if int(life.stats["open_orders"]) != len(truth_open):
            self.say(f"open_orders={int(life.stats['open_orders'])}, the venue has {len(truth_open)}")
        if drained and truth_open:
            self.say(f"drained, but the venue has {truth_open}")
        self.judge_told()
        self.judge_killed()
        self.judge_others()
        # A place may be taken again before the venue has spelled out what was clear already: that a replacement died with its order. What
        # was rejected in an earlier life is told again, and nobody knows it.
        if int(life.stats["unknown_reports"]) > self.account.late_rejections + self.rejected_before:
            self.say(f"unknown_reports={int(life.stats['unknown_reports'])}")
        # A connection that ends within a packet is counted as malformed.
        if int(life.stats["malformed"]) > sum(not link.alive for link in world.network.links):
            self.say(f"malformed={int(life.stats['malformed'])}")
        for name in ("reports_lost", "illegal_moves"):
            if int(life.stats[name]):
                self.say(f"{name}={int(life.stats[name])}")

    def judge_killed(self) -> None:
        """Of what is killed nothing is open any more."""
        asked = {ref: self.asked[order_id] for order_id, ref in self.gone.items()}
        for ref, order in self.account.orders.items():
            if ref in asked and self.world.covers(asked[ref]["strategy"], NAMES[order.instrument]):
                self.say(f"killed, and yet open: {ref}: {order}")

    def judge_others(self) -> None:
        """The venue's accounts are even with one another, with what it published, and with what the others were told."""
        world = self.world
        agreed = Agreement(world.plan.rules, self.accounts, self.witness, self.counts)
        for problem in agreed.problems(world.exchange):
            self.say(problem)
        for number, rival in enumerate(world.rivals, start=1):
            for instrument in NAMES:
                truth = self.accounts[number].line(instrument)
                record = world.exchange_positions.records[number * INSTRUMENTS_MAX + instrument]
                if (line := {name: int(record[name]) for name in truth}) != truth:
                    self.say(f"account {number}, instrument {instrument}: the venue's board says {line}, its session {truth}")
            if rival.heard != self.said_to[number][: len(rival.heard)]:
                self.say(f"account {number} was told something else than its log has")

    def judge_pnl(self) -> None:
        life, risk = self.world.life, self.world.life.gateway.state.risk
        pnl = 0
        for place in range(int(life.facts["lines"])):
            line = risk.lines[place]
            held = self.account.holdings[int(line.instrument)]
            pnl += held.cash + held.position * int(line.mark)
        if int(life.facts["pnl"]) != pnl:
            self.say(f"pnl={int(life.facts['pnl'])}, but by the venue's account it is {pnl}")

    def judge_told(self) -> None:
        ours = set(self.gone.values())
        truth = {key: value for key, value in self.account.executions.items() if key[1] in ours}
        told = {key: (report["qty"], report["px"]) for key, report in self.executed.items()}
        if truth != told:
            self.say(f"executions told {len(told)}, there were {len(truth)}: {sorted(set(truth) ^ set(told))[:5]}")
        for order_id, order in self.asked.items():
            came = self.came[order_id]
            if not came:
                self.say(f"nothing was ever told of order {order_id}: {order}")
            elif order_id in self.gone and not {"accepted", "replaced", "rejected"} & set(came):
                self.say(f"order {order_id} left as {self.gone[order_id]}, but its fate was not told: {came}")


def fields_of(slots: np.ndarray, position: int) -> dict[str, int]:
    """The record at a ring's position, without what the ring keeps in it."""
    plain = slots.view(np.ndarray)
    return dict(zip(plain.dtype.names[1:], plain[position & (len(plain) - 1)].item()[1:], strict=True))


def peer_of(fd: int) -> Any:
    """The name of the other end of a socket that is somebody else's."""
    with socket.socket(fileno=os.dup(fd)) as copied:
        return copied.getpeername()


def user_ref_of(entry: Any) -> int:
    return int(entry["user_ref"])


def is_open(entry: Any) -> bool:
    return gateway_state.FREE < int(entry["state"]) < gateway_state.ENDED
