"""What goes wrong in a run, drawn from its seed: every line, rewind server and snapshot server has its own troubles.

A fault is off in most plans and mild in most of the others, so that each is also met alone, and so that what one hides another run shows.
"""

import random
from dataclasses import dataclass, field

US, MS = 1_000, 1_000_000
# Seeds from here on are runs of the simulated exchange.
EXCHANGE_SEEDS = 1_000_000_000
REQUEST_INTERVAL_NS = 200 * US
FOR_EVER = 1 << 62

# How a rewind server answers. SILENT takes the request and says nothing, CLOSED has no socket there (the kernel says so), SLOW answers
# after the feed handler gave it up, and the others answer with a packet that is true but is not what was asked for, or is none.
GOOD, SILENT, CLOSED, SLOW = "good", "silent", "closed", "slow"
OTHER_SESSION, OTHER_SEQUENCE, OLD, CUT, EMPTY, GARBAGE, FEW = "other session", "other sequence", "old", "cut", "empty", "garbage", "few"
REWIND_KINDS = (GOOD, SILENT, CLOSED, SLOW, OTHER_SESSION, OTHER_SEQUENCE, OLD, CUT, EMPTY, GARBAGE, FEW)
# Those that answer so that a feed handler gets on, though some take their time.
REWIND_HELPS = (GOOD, FEW, CUT, SLOW)

# How a snapshot server treats a connection: REJECTED by its login, broken off in the MIDDLE, STALE (older than all that is buffered),
# SLOW (but in time), NOISY: bytes that are no SoupBinTCP.
REJECTED, MIDDLE, STALE, NOISY, LIST_ONLY = "rejected", "middle", "stale", "noisy", "no end"
SNAPSHOT_KINDS = (GOOD, SLOW, SILENT, CLOSED, REJECTED, MIDDLE, STALE, NOISY, LIST_ONLY)

# What somebody can do who stands before a real server.
RELAYED_REWINDS = (GOOD, SILENT, SLOW, CUT, GARBAGE, OLD)
RELAYED_SNAPSHOTS = (GOOD, SLOW, SILENT, CLOSED, MIDDLE, NOISY)


@dataclass
class LineFaults:
    """Chances are per packet, times in nanoseconds of the simulated clock. dead: from, to."""

    loss: float = 0.0
    burst: float = 0.0
    burst_length: int = 1
    duplicate: float = 0.0
    reorder: float = 0.0
    reorder_ns: int = 0
    delay_ns: int = 10 * US
    jitter_ns: int = 0
    truncate: float = 0.0
    garbage: float = 0.0
    stray: float = 0.0
    # Of a stray packet to come once more, soon; of a packet to have messages of the one before it as well.
    copied: float = 0.0
    repacked: float = 0.0
    dead: list[tuple[int, int]] = field(default_factory=list)

    def is_dead_for_ever(self) -> bool:
        return any(ended == FOR_EVER for _, ended in self.dead)


@dataclass
class Plan:
    """One run. hurt_ns: when the troubles of the snapshot server end, so that all can be well in the end where there is one."""

    seed: int
    session: int
    later: bool
    # Messages of the first session that are published before the second one takes its place; None: all.
    cut_short: int | None
    says_end: bool
    packet_messages_max: int
    pace_ns: int
    lines: list[LineFaults]
    rewind: list[str]
    # How each connection is treated, the last one for ever; empty: there is no snapshot server.
    snapshot: list[str]
    snapshot_bytes_per_turn: int
    turn_ns: int
    # Turns in one moment; a feed handler that has few is too slow for its packets, which then wait in its sockets.
    turns_per_moment: int
    window_messages: int
    gap_messages_max: int
    request_messages_max: int
    ring_capacity: int
    # Order messages of the venue that bear a wrong length: what they did is in its book, and in nobody else's.
    damaged: int = 0
    # The number before the first message's: sessions are not that long, but what is counted in 64 bits must get past the last of them.
    before_first: int = 0
    # Faults by name, for whoever reads a failure.
    faults: list[str] = field(default_factory=list)

    @property
    def last_ns(self) -> int:
        """About when the last packet is published."""
        return self.pace_ns * 1_000


def drawn(seed: int) -> Plan:
    """The plan of a seed."""
    rng = random.Random(f"plan {seed}")
    plan = Plan(
        seed=seed,
        session=rng.randrange(24),
        later=rng.random() < 0.2,
        cut_short=None,
        says_end=rng.random() < 0.5,
        packet_messages_max=rng.choice([1, 3, 8, 30]),
        pace_ns=rng.choice([20, 60, 200]) * US,
        lines=[LineFaults() for _ in range(rng.choice([1, 2, 2]))],
        rewind=[],
        snapshot=[],
        snapshot_bytes_per_turn=rng.choice([500, 5_000, 1 << 20]),
        turn_ns=rng.choice([20, 100, 400]) * US,
        turns_per_moment=rng.choice([1, 1_000]),
        window_messages=rng.choice([32, 256, 4096, 4096]),
        gap_messages_max=rng.choice([8, 64, 1 << 15, 1 << 15]),
        request_messages_max=rng.choice([5, 40, 1_000]),
        ring_capacity=rng.choice([16, 256, 4096, 4096]),
    )
    if plan.later and rng.random() < 0.6:
        plan.cut_short = rng.randrange(20, 300)
    if rng.random() < 0.75:
        plan.rewind = [rng.choice([GOOD, rng.choice(REWIND_KINDS)]) for _ in range(rng.choice([1, 1, 2, 3]))]
    if rng.random() < 0.6:
        plan.snapshot = [rng.choice(SNAPSHOT_KINDS) for _ in range(rng.choice([0, 0, 1, 2, 4]))]
        plan.snapshot.append(GOOD if rng.random() < 0.9 else rng.choice(SNAPSHOT_KINDS))
    # What waits behind a hole while it is filled must have room.
    plan.gap_messages_max = min(plan.gap_messages_max, plan.window_messages)
    for line in plan.lines:
        hurt_line(line, rng)
    hurt_all(plan, rng)
    for line in plan.lines:
        line.copied = rng.choice([0.0, 0.0, 0.3, 0.8])
        line.repacked = rng.choice([0.0, 0.0, 0.0, 0.1, 0.5])
    if rng.random() < 0.12:
        plan.damaged = rng.choice([1, 1, 3])
    if not plan.later and rng.random() < 0.15:
        plan.before_first = (1 << 64) - rng.randrange(1, 300)
        # A session that is taken for another one's begins at 1.
        for line in plan.lines:
            line.stray = 0.0
    if seed >= EXCHANGE_SEEDS:
        fit_for_exchange(plan, rng)
    plan.faults = named(plan)
    return plan


def fit_for_exchange(plan: Plan, rng: random.Random) -> None:
    """The real exchange has one session, and servers that can only be kept from answering well."""
    plan.later, plan.cut_short, plan.says_end, plan.damaged, plan.before_first = False, None, False, 0, 0
    plan.rewind = [kind if kind in RELAYED_REWINDS else GOOD for kind in plan.rewind]
    plan.snapshot = [kind if kind in RELAYED_SNAPSHOTS else GOOD for kind in plan.snapshot]
    plan.window_messages = max(plan.window_messages, 256)


def hurt_line(line: LineFaults, rng: random.Random) -> None:
    """Faults of one line alone."""

    def sometimes(chance: float, *most: float) -> float:
        return rng.random() * rng.choice(most) if rng.random() < chance else 0.0

    line.loss = sometimes(0.5, 0.02, 0.1, 0.5)
    line.burst = sometimes(0.3, 0.01, 0.05)
    line.burst_length = rng.choice([3, 10, 40])
    line.duplicate = sometimes(0.3, 0.05, 0.5)
    line.reorder = sometimes(0.4, 0.05, 0.3)
    line.reorder_ns = rng.choice([100 * US, 600 * US, 5 * MS])
    line.delay_ns = rng.choice([5 * US, 30 * US, 2 * MS])
    line.jitter_ns = rng.choice([0, 10 * US, 300 * US]) if rng.random() < 0.5 else 0
    line.truncate = sometimes(0.2, 0.02, 0.2)
    line.garbage = sometimes(0.25, 0.02, 0.3)
    line.stray = sometimes(0.2, 0.02, 0.1)
    if rng.random() < 0.1:
        line.dead.append((0, FOR_EVER))


def hurt_all(plan: Plan, rng: random.Random) -> None:
    """Faults that both lines have at once: silence for a while, a late start, a lost tail."""
    last = plan.last_ns
    if rng.random() < 0.15:
        began = rng.randrange(last // 4)
        dark = (began, began + rng.randrange(1, last // 4))
        for line in plan.lines:
            line.dead.append(dark)
    if rng.random() < 0.15:
        late = (0, rng.randrange(1, last // 6))
        for line in plan.lines:
            line.dead.append(late)


def named(plan: Plan) -> list[str]:
    """What is wrong in a plan, by name."""
    found = []
    for letter, line in zip("AB", plan.lines, strict=False):
        for name in ("loss", "burst", "duplicate", "reorder", "truncate", "garbage", "stray", "copied", "repacked", "jitter_ns"):
            if value := getattr(line, name):
                found.append(f"{letter} {name}={value:.3g}")
        found += [f"{letter} dead {began / MS:.2f}..{min(ended, 10**12) / MS:.2f} ms" for began, ended in line.dead]
    found += [f"damaged={plan.damaged}"] * bool(plan.damaged)
    found += [f"before_first={plan.before_first}"] * bool(plan.before_first)
    found.append(f"rewind={plan.rewind}")
    found.append(f"snapshot={plan.snapshot}")
    return found
