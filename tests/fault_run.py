"""One seed: a venue, a network with faults, a feed handler; and the verdict.

    python -m tests.fault_run SEED [LAST_SEED]        replay seeds, with what was wrong and what it came to

A seed of EXCHANGE_SEEDS and above is one of the simulated exchange; below, of a venue that follows a script.
"""

import random
import sys

from engine.layout import BOOK_VALID
from engine.wire.credentials import Credentials
from tests import fault_plan as plans
from tests.fault_feed import FeedUnderTest
from tests.fault_judge import UNPROVEN, Verdict, judged
from tests.fault_plan import EXCHANGE_SEEDS, MS, Plan
from tests.fault_proxy import Line, RewindServer, SnapshotServer
from tests.fault_relay import RewindRelay, SnapshotRelay
from tests.fault_venue import ExchangeVenue, ScriptVenue

REQUEST_TIMEOUT_MS = 2
# Refreshes of books that are suspect are further and further apart.
DAMAGED_PATIENCE_NS = 10_000 * MS
# How long one without hope is watched; PATIENCE_NS is when one with hope must have found its feet, after the last packet.
HOPELESS_NS = 60 * MS
SETTLED_TURNS = 4
# Turns in one moment, at most.
TURNS_MAX = 1_000
# The end, as it comes nearer, is waited for in longer turns.
WAITED_SHARE = 20
SNAPSHOT_TIMEOUT_MS = 100
# The exchange says once a second that it is there, and so do its heartbeats what is missing at the end.
PATIENCE_NS = {ScriptVenue: 3_000 * MS, ExchangeVenue: 15_000 * MS}


class Run:
    """A run of a plan, turn by turn."""

    rewind_kind = RewindServer
    glimpse_kind = SnapshotServer

    def __init__(self, plan: Plan) -> None:
        self.plan = plan
        rng = random.Random(f"run {plan.seed}")
        self.lines: list[Line] = []
        self.rewind: list[RewindServer | RewindRelay] = []
        self.glimpse: SnapshotServer | SnapshotRelay | None = None
        self.venue: ScriptVenue | ExchangeVenue = (ExchangeVenue if plan.seed >= EXCHANGE_SEEDS else ScriptVenue)(plan, rng)
        self._open_servers(rng)
        self.feed = FeedUnderTest(
            lines=len(plan.lines),
            symbols=self.venue.sessions[0].symbols,
            ring_capacity=plan.ring_capacity,
            options=self._options(),
            before_first=plan.before_first,
        )
        self.lines = [Line(faults, random.Random(rng.random()), self.feed.send_on(at)) for at, faults in enumerate(plan.lines)]
        self.now_ns = 0
        self.turns = 0

    def _open_servers(self, rng: random.Random) -> None:
        plan, venue = self.plan, self.venue
        slow_ns = (REQUEST_TIMEOUT_MS + 1) * MS
        if isinstance(venue, ScriptVenue):
            self.rewind += [self.rewind_kind(kind, rng, venue, slow_ns) for kind in plan.rewind]
            if plan.snapshot:
                self.glimpse = self.glimpse_kind(plan.snapshot, rng, venue, plan.snapshot_bytes_per_turn)
            return
        self.rewind += [RewindRelay(kind, rng, address, slow_ns) for kind, address in zip(plan.rewind, venue.rewind_addresses, strict=True)]
        if plan.snapshot:
            self.glimpse = SnapshotRelay(plan.snapshot, rng, ("127.0.0.1", venue.stage.snapshot_port), plan.snapshot_bytes_per_turn)

    def _options(self) -> dict[str, object]:
        plan = self.plan
        return {
            "window_messages": plan.window_messages,
            "reorder_us": 500,
            "rewind": [server.address for server in self.rewind],
            "request_messages_max": plan.request_messages_max,
            "request_interval_us": plans.REQUEST_INTERVAL_NS // 1_000,
            "request_timeout_ms": REQUEST_TIMEOUT_MS,
            "request_tries": 3,
            "gap_messages_max": plan.gap_messages_max,
            "snapshot": self.glimpse.address if self.glimpse else None,
            "snapshot_credentials": Credentials.of("TICK", "PATH"),
            "snapshot_timeout_ms": SNAPSHOT_TIMEOUT_MS,
            "snapshot_tries": 10,
        }

    def close(self) -> None:
        self.feed.close()
        for server in [*self.rewind, *([self.glimpse] if self.glimpse else [])]:
            server.close()
        self.venue.close()

    def play(self) -> None:
        """Everything is published and arrives, and heartbeats go on until the feed handler has come to rest, with all taken."""
        self._play()
        self._turn(TURNS_MAX)

    def _play(self) -> None:
        quiet = 0
        over_ns = None
        patience_ns = (DAMAGED_PATIENCE_NS if self.plan.damaged else PATIENCE_NS[type(self.venue)]) if self.has_hope() else HOPELESS_NS
        while True:
            self.now_ns += self.plan.turn_ns if over_ns is None else self._waiting_ns(over_ns)
            for raw in self.venue.step(self.now_ns):
                for line in self.lines:
                    line.offer(self.now_ns, raw)
            for line in self.lines:
                line.deliver(self.now_ns)
            self._turn(self.plan.turns_per_moment)
            if not self.venue.is_over():
                continue
            if over_ns is None:
                over_ns = self.now_ns
                for line in self.lines:
                    line.calm()
            quiet = quiet + 1 if self.at_rest() else 0
            if quiet >= SETTLED_TURNS or self.feed.failed:
                return
            if self.now_ns - over_ns > patience_ns:
                return

    def _waiting_ns(self, over_ns: int) -> int:
        """How long the next turn is when all is published: not so long that what is under way would time out."""
        longest = (self.now_ns - over_ns) // WAITED_SHARE
        if self.feed.asks():
            longest = min(longest, REQUEST_TIMEOUT_MS * MS // 4)
        if self.feed.loads():
            longest = min(longest, SNAPSHOT_TIMEOUT_MS * MS // 100)
        return max(self.plan.turn_ns, longest)

    def _turn(self, most: int) -> None:
        """Turn until nothing is left to do at this moment, or `most` times; a full ring does not count as a turn."""
        turns = 0
        for _ in range(TURNS_MAX):
            waits = self.feed.count("ring_waits")
            done = self.feed.turn(self.now_ns)
            self.turns += 1
            for server in self.rewind:
                server.turn(self.now_ns)
            if self.glimpse:
                self.glimpse.turn(self.now_ns)
            turns += self.feed.count("ring_waits") == waits
            if done <= 0 or turns >= most:
                return

    def has_hope(self) -> bool:
        """Whether there is help that always gets a feed handler on its feet again in the end."""
        plan = self.plan
        if all(line.is_dead_for_ever() for line in plan.lines):
            return False
        if plan.snapshot and plan.snapshot[-1] == plans.GOOD:
            return True
        if plan.damaged:
            return False
        total = max(self.venue.lengths)
        roomy = min(plan.window_messages, plan.gap_messages_max) > total
        return plans.GOOD in plan.rewind and roomy

    def at_rest(self) -> bool:
        """The feed handler is where the venue is, and calls valid whatever is."""
        return not any(arriving.brings for line in self.lines for arriving in line.due) and self.is_proven()

    def is_proven(self) -> bool:
        venue, last = self.venue, self.feed.seen[-1]
        good = venue.sessions[venue.session].good_after(venue.count)
        flags = last.board["flags"][1:]
        return (
            last.session == venue.session_name()
            and last.expected == venue.count + 1
            and all((flag == BOOK_VALID) == is_good for flag, is_good in zip(flags, good[1:], strict=True))
            # An instrument that was never heard of has no flags at all.
            and (flags != 0).all()
            and not (flags & UNPROVEN).any()
        )

    def is_whole(self) -> bool:
        """Whether nothing of the last session was lost to the feed handler, whatever it was like before: nothing stands in its way."""
        last = self.feed.seen[-1]
        began = next(seen for seen in self.feed.seen if seen.name == last.name)
        return (
            not self.plan.damaged
            and last.session == self.venue.session_name()
            and last.expected == self.venue.count + 1
            and self.feed.count("lost") == began.lost
        )


def verdict_of(seed: int) -> Verdict:
    run = Run(plans.drawn(seed))
    try:
        run.play()
        return judged(run)
    finally:
        run.close()


def replay_command(seed: int) -> str:
    return f"python -m tests.fault_run {seed}"


def main() -> int:
    first = int(sys.argv[1])
    bad = 0
    for seed in range(first, int(sys.argv[2]) + 1 if len(sys.argv) > 2 else first + 1):
        verdict = verdict_of(seed)
        bad += bool(verdict.problems)
        if verdict.problems or len(sys.argv) == 2:
            print(verdict, flush=True)
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main())
