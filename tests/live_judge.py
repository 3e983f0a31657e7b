"""What must be true of a run of real processes, whatever is done to them. The judge believes bytes, and the venue's own log.

once      user_refs on the wire only grow, over all connections and lives; each new order is one that the strategy asked for, once
killed    no order and no replacement arrives once the gateway has taken note of a kill, until it is lifted
let in    none leaves before the connection has said that we are let in, and that all it had to tell has been told
limits    what may come of all that rests, is under way or of unknown fate stays within each limit when an order is sent
told      the strategy hears of every execution once, and of none that did not happen
even      in the end positions, cash and open orders are the venue's

An order is judged when its bytes come to the relay, a little after they left. What may come of what the venue has only shrinks meanwhile,
so no order is blamed for what it could not know. The moment of a kill is known less exactly than in the simulation (tests/sim_judge.py):
what left while the word was being set is on its way, and is let pass.
"""

from collections import Counter, defaultdict
from typing import Any

from engine.gateway.ouch import v50 as ouch
from engine.layout import MSG_EXECUTED, MSG_NEW, MSG_REPLACE, TIF_IOC
from engine.wire import soupbintcp as soup
from tests.exchange_rig import soup_packets
from tests.live_plan import LivePlan
from tests.sim_account import NEW, REPLACE, Account

PROBLEMS_MAX = 20


class Heard:
    """What the judge has heard of one connection: the beginnings of packets, both ways, and how far the venue has told."""

    def __init__(self) -> None:
        self.up, self.down = b"", b""
        self.next = 0
        self.welcome = False


class LiveJudge:
    """asked, told: rings that it looks at before it judges what has come from the gateway; see LiveVenue.watch."""

    def __init__(self, plan: LivePlan, numbers: dict[str, int]) -> None:
        self.plan = plan
        self.account = Account(numbers)
        self.names = {number: symbol for symbol, number in numbers.items()}
        self.heard: dict[int, Heard] = defaultdict(Heard)
        self.answers: dict[int, Any] = {}
        self.problems: list[str] = []
        self.counts: Counter[str] = Counter()
        self.killed = False
        self.begin_life()

    def say(self, problem: str) -> None:
        if len(self.problems) < PROBLEMS_MAX:
            self.problems.append(problem)

    def begin_life(self) -> None:
        """Our processes start anew: what the strategy asks for and is told begins again."""
        self.asked: Counter[tuple[Any, ...]] = Counter()
        self.replaces_asked = 0
        self.told: Counter[tuple[int, int, int]] = Counter()
        self.refs: set[int] = set()
        self.last_ref = 0

    # What passes on the rings.

    def ask(self, order: Any) -> None:
        kind = int(order["kind"])
        if kind == MSG_NEW:
            symbol = self.names.get(int(order["instrument"]), "")
            self.asked[symbol, int(order["side"]), int(order["px"]), int(order["qty"]), int(order["tif"]) == TIF_IOC] += 1
        self.replaces_asked += kind == MSG_REPLACE

    def tell(self, report: Any) -> None:
        if int(report["kind"]) == MSG_EXECUTED:
            told = int(report["ref_id"]), int(report["qty"]), int(report["px"])
            self.told[told] += 1
            if self.told[told] > 1:
                self.say(f"an execution told twice: match, quantity and price {told}")

    # What passes on the wire.

    def hear_venue(self, message: bytes, number: int, connection: Any) -> None:
        """Message `number` of the venue's log; `connection` is the one that it takes for ours."""
        self.account.hear(message)
        if message[0] == ouch.ACCOUNT_QUERY_RESPONSE.code:
            self.answers[number] = connection
        if self.account.problems:
            self.say(self.account.problems.pop())

    def hear_delivered(self, link: int, name: Any, raw: bytes) -> None:
        """What has reached the gateway's end of a connection, which the venue calls `name`."""
        heard = self.heard[link]
        packets, heard.down = soup_packets(heard.down + raw)
        for kind, payload in packets:
            if kind == soup.LOGIN_ACCEPTED.code:
                heard.next = int(payload[10:])
            elif kind == soup.SEQUENCED:
                heard.welcome = heard.welcome or self.answers.get(heard.next) == name
                heard.next += 1

    def hear_us(self, link: int, raw: bytes) -> None:
        heard = self.heard[link]
        packets, heard.up = soup_packets(heard.up + raw)
        for kind, payload in packets:
            if kind != soup.UNSEQUENCED:
                continue
            message = ouch.INBOUND_BY_CODE[payload[0]]
            self.counts[message.name] += 1
            if message.name in (NEW, REPLACE):
                self.weigh(link, heard, message.name, message.decode(payload))

    def weigh(self, link: int, heard: Heard, name: str, fields: dict[str, Any]) -> None:
        what, ref = f"{name} {fields}", int(fields["user_ref"])
        if self.killed:
            self.say(f"killed, and yet sent: {what}")
        if not heard.welcome:
            self.say(f"sent before the connection was ready: {what}")
        # A later life goes on where the venue stands: what an earlier one sent and never arrived has used up no number.
        if ref <= self.last_ref or ref in self.account.answered or ref in self.account.sent:
            self.say(f"user_ref={ref} after {self.last_ref}: {what}")
        self.last_ref = max(self.last_ref, ref)
        self.refs.add(ref)
        self.weigh_likeness(name, fields, what)
        before = self.account.reach()
        self.account.say(name, fields, link)
        self.weigh_limits(before, what)

    def weigh_likeness(self, name: str, fields: dict[str, Any], what: str) -> None:
        if name == REPLACE:
            self.replaces_asked -= 1
            if self.replaces_asked < 0:
                self.say(f"replaced more often than asked: {what}")
            return
        order = fields["symbol"], ord(fields["side"]), fields["px"], fields["quantity"], fields["tif"] == chr(ouch.TIF_IOC)
        self.asked[order] -= 1
        if self.asked[order] < 0:
            self.say(f"nobody asked for it, or not so often: {what}")

    def weigh_limits(self, before: dict[int, tuple[int, int]], what: str) -> None:
        """Of what an order adds to. A kept order of an earlier life may stand beyond a limit already."""
        after, plan = self.account.reach(), self.plan
        for instrument, reached in after.items():
            for now, was in zip(reached, before[instrument], strict=True):
                if now > was and now > plan.position_max:
                    self.say(f"position_max={plan.position_max}, but it may lead to {now}: {what}")
        gross, gross_was = sum(map(max, after.values())), sum(map(max, before.values()))
        if gross > max(plan.gross_position_max, gross_was):
            self.say(f"gross_position_max={plan.gross_position_max}, but it may lead to {gross}: {what}")
        near = any(max(reached) > plan.position_max * 8 // 10 for reached in after.values()) or gross > plan.gross_position_max * 8 // 10
        self.counts["near a limit"] += near

    # In the end.

    def differences(self, boards: Any) -> list[str]:
        """Where a positions board differs from what the venue's messages come to."""
        found = []
        for instrument, symbol in self.names.items():
            truth = self.account.line(instrument)
            line = {name: int(boards[instrument][name]) for name in truth}
            if line != truth:
                found.append(f"{symbol}: our board says {line}, the venue's session {truth}")
        return found

    def truly_executed(self) -> Counter[tuple[int, int, int]]:
        """Executions of this life's own orders: match, quantity, price."""
        executions = self.account.executions.items()
        return Counter({(match, qty, px): 1 for (match, ref), (qty, px) in executions if ref in self.refs})

    def judge_told(self, *, all_of_them: bool) -> None:
        truth = self.truly_executed()
        if extra := self.told - truth:
            self.say(f"executions told that never were: {sorted(extra)[:5]}")
        if all_of_them and (missing := truth - self.told):
            self.say(f"executions never told: {sorted(missing)[:5]}")

    def judge_report(self, report: dict[str, Any]) -> None:
        """The report of `tickpath run` at the end of a life that ended well. What the market told a feed handler that stood still may be
        lost, and what it told after the strategy had ended, for it goes on; nothing else."""
        if report["failures"] or any(not name.startswith("feed.") and name != "ticks.unread" for name in report["lost_by"]):
            self.say(f"failures={report['failures']} lost_by={report['lost_by']}")
        told = {entry["symbol"]: entry for entry in report["positions"]}
        for instrument, symbol in self.names.items():
            truth = self.account.line(instrument)
            wanted = {name: truth[name] for name in ("position", "bought", "sold", "fills")} | {"cash": truth["cash"] / 10_000}
            said = {name: told.get(symbol, {}).get(name, 0) for name in wanted}
            if said != wanted:
                self.say(f"{symbol}: the report says {said}, the venue's session {wanted}")
            if symbol in told and (mark := told[symbol]["mark"]) is not None:
                pnl = truth["cash"] + truth["position"] * round(mark * 10_000)
                if round(told[symbol]["pnl"] * 10_000) != pnl:
                    self.say(f"{symbol}: the report says pnl={told[symbol]['pnl']}, by the venue's session it is {pnl / 10_000}")
        if self.account.orders:
            self.say(f"ended, and yet open at the venue: {self.account.orders}")
        if report["counters"]["gateway"]["open_orders"]:
            self.say(f"ended, and yet open for the gateway: {report['counters']['gateway']['open_orders']}")
