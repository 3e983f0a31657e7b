"""What must be true of every run, whatever went wrong in it.

safe      what was marked valid, on the board after any turn and on the ring, was the venue's own book at that sequence
alive     where there is help the feed handler finds its feet, and its book is the venue's, order by order
counted   every message is either applied or lost; what each line brought and did not is what the proxy let through and did not
"""

import itertools
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from engine.feed.hot.state import LINE_REWIND
from engine.layout import (
    BOOK_GAPPED,
    BOOK_OVERFLOW,
    BOOK_STALE,
    BOOK_SUSPECT,
    BOOK_VALID,
    MSG_QUOTE,
    MSG_STATUS,
    MSG_TRADE,
    QUOTE,
    STATUS,
    TRADE,
)
from tests.fault_feed import FeedUnderTest, Seen
from tests.fault_market import Session
from tests.fault_plan import REQUEST_INTERVAL_NS, Plan
from tests.fault_proxy import STRAY_MESSAGES_MAX, Line
from tests.feed_house import MIDNIGHT_NS

if TYPE_CHECKING:
    from tests.fault_run import Run

Say = Callable[[str], object]

# The reasons that are the feed handler's own, not the market's.
UNPROVEN = BOOK_STALE | BOOK_GAPPED | BOOK_SUSPECT | BOOK_OVERFLOW
TOUCH = ("bid_px", "bid_sz", "ask_px", "ask_sz")
# Ranges that a feed handler remembers of what a line did not bring; beyond them it may count too much as lost, and as repeated what
# comes after all.
RANGES_REMEMBERED = 64


@dataclass
class Verdict:
    plan: Plan
    problems: list[str] = field(default_factory=list)
    proven: bool = False
    had_to: bool = False
    counted: dict[str, int] = field(default_factory=dict)
    turns: int = 0

    def __str__(self) -> str:
        lines = [f"seed {self.plan.seed}: {'; '.join(self.plan.faults)}", f"  proven={self.proven} turns={self.turns} {self.counted}"]
        return "\n".join([*lines, *(f"  PROBLEM {problem}" for problem in self.problems)])


def judged(run: "Run") -> Verdict:
    """What the run came to, and everything about it that must not be."""
    verdict = Verdict(run.plan, proven=run.is_proven(), had_to=run.has_hope() or run.is_whole(), turns=run.turns)
    feed, say = run.feed, verdict.problems.append
    verdict.counted = {name: int(feed.stats[name]) for name in feed.stats.dtype.names if feed.stats[name]}
    if feed.failed:
        say(f"the feed handler ended: {feed.stage.reasons.get(feed.failed, feed.failed)}")
    judge_boards(feed, {session.name: session for session in run.venue.sessions}, say)
    judge_ticks(feed, run.venue.sessions, say, damaged=run.plan.damaged)
    judge_end(run, verdict, say)
    judge_counts(run, say)
    judge_requests(run, say)
    for problem in getattr(run.venue, "problems", []):
        say(f"venue: {problem}")
    return verdict


def judge_boards(feed: FeedUnderTest, sessions: dict[str, Session], say: Say) -> None:
    """After every turn: a line of the board that says VALID says what the venue's book was at that sequence.

    When another session begins, what was valid is still that of the old one, until the feed handler has told a sequence of the new one.
    """
    turned = feed.seen[0]
    for last, seen in itertools.pairwise(feed.seen):
        if seen.name != last.name:
            turned = seen
        valid = np.flatnonzero(seen.board["flags"][1:] == BOOK_VALID) + 1
        if len(valid) == 0:
            continue
        places = [(seen.session, seen.expected)]
        if seen.told == turned.told:
            places += [(name, seen.told) for name in sessions if name != seen.session]
        problems = [board_problem(seen, sessions.get(name), expected, valid.tolist()) for name, expected in places]
        if all(problems):
            say(problems[0])
            return


def board_problem(seen: Seen, session: Session | None, expected: int, valid: list[int]) -> str:
    """What is wrong with the valid lines of a board at a place in a session, or nothing."""
    if session is None or not 1 <= expected <= len(session.messages) + 1:
        return f"turn {seen.turn}: valid in session={seen.session!r} at {expected}, which the venue never published"
    board = seen.board
    # That the market has closed is told to one instrument after the other.
    tops, good = session.tops_after(expected - 1), session.good_after(expected - 1, open_=seen.sweeping)
    for locate in valid:
        line = tuple(int(board[locate][name]) for name in TOUCH)
        if line != tops[locate] or not good[locate]:
            return (
                f"turn {seen.turn}: board of instrument {locate} valid after {session.name} {expected - 1} with {line}; "
                f"the venue has {tops[locate]} good={good[locate]}"
            )
    return ""


def judge_ticks(feed: FeedUnderTest, sessions: list[Session], say: Say, *, damaged: int = 0) -> None:
    """Every quote and status that says VALID is what the venue's book was after a message of that time; trades come once."""
    if not feed.ticks:
        return
    slots = np.concatenate(feed.ticks)
    kinds = slots.view(QUOTE)[:, 0]["kind"]
    quotes = slots[kinds == MSG_QUOTE].view(QUOTE)[:, 0]
    for quote in quotes[quotes["flags"] == BOOK_VALID]:
        locate, line = int(quote["instrument"]), tuple(int(quote[name]) for name in TOUCH)
        session, counts = found_at(sessions, int(quote["ts_ns"]))
        if counts and not any(session.tops_after(n)[locate] == line and session.good_after(n)[locate] for n in counts):
            say(
                f"quote of instrument {locate} valid after {session.name} {counts} with {line}; the venue has "
                f"{session.tops_after(counts[-1])[locate]} good={session.good_after(counts[-1])[locate]}"
            )
            break
    for status in slots[kinds == MSG_STATUS].view(STATUS)[:, 0]:
        locate = int(status["instrument"])
        session, counts = found_at(sessions, int(status["ts_ns"]))
        if locate and status["flags"] == BOOK_VALID and counts and not any(session.good_after(n)[locate] for n in counts):
            say(f"status of instrument {locate} valid after {session.name} {counts}, when its book was not to be acted on")
            break
    judge_trades(slots[kinds == MSG_TRADE].view(TRADE)[:, 0], sessions, say, again=bool(revisited(feed)))
    if len(sessions) == 1 and not damaged and not feed.count("snapshot_messages") and not feed.count("lost"):
        mine = [(int(quote["instrument"]), *(int(quote[name]) for name in TOUCH)) for quote in quotes]
        theirs = [(locate, *line) for locate, _, *line in sessions[0].quotes(feed.seen[-1].expected - 1)]
        if mine != theirs:
            at = next((n for n, (one, other) in enumerate(zip(mine, theirs, strict=False)) if one != other), min(len(mine), len(theirs)))
            pair = mine[at : at + 1], theirs[at : at + 1]
            say(f"nothing was lost, but quote {at} of {len(mine)} is {pair[0]}; the venue's, of {len(theirs)}, is {pair[1]}")


def found_at(sessions: list[Session], ts_ns: int) -> tuple[Session, list[int]]:
    """The messages of a venue time, as the numbers after which a book can be."""
    for session in sessions:
        if counts := session.by_ts.get(ts_ns - MIDNIGHT_NS):
            return session, counts
    return sessions[0], []


def judge_trades(trades: np.ndarray, sessions: list[Session], say: Say, *, again: bool) -> None:
    """Trades are the venue's, in its order, none twice but where a session is begun again."""
    at: list[tuple[int, int]] = []
    for trade in trades:
        key = int(trade["ts_ns"]) - MIDNIGHT_NS, int(trade["instrument"]), int(trade["match_id"])
        found = [(number, session.by_match[key]) for number, session in enumerate(sessions) if key in session.by_match]
        if not found:
            say(f"a trade that the venue never published: (time, instrument, match)={key}")
            return
        at += found
    if not again and any(after <= before for before, after in itertools.pairwise(at)):
        say("trades came twice, or out of their order")


def judge_end(run: "Run", verdict: Verdict, say: Say) -> None:
    feed, venue = run.feed, run.venue
    last = feed.seen[-1]
    lengths = {session.name: length for session, length in zip(venue.sessions, venue.lengths, strict=True)}
    for seen in feed.seen:
        if seen.ended and not (run.plan.says_end and seen.expected > lengths.get(seen.session, 0)):
            say(f"turn {seen.turn}: the session {seen.session} has ended at {seen.expected}, though the venue did not say so")
            break
    if verdict.had_to and not verdict.proven:
        say(
            f"not proven in the end: session={last.session} expected={last.expected} of {venue.session_name()} {venue.count + 1}, "
            f"flags={last.board['flags'][1:].tolist()}"
        )
    if verdict.proven:
        mine, theirs = feed.resting(), venue.resting()
        if mine != theirs:
            say(f"the final book differs: {len(mine)} orders, the venue has {len(theirs)}: {sorted(set(mine) ^ set(theirs))[:4]}")


def judge_counts(run: "Run", say: Say) -> None:
    """published = messages + lost; and of each line, what it brought and what it did not."""
    feed = run.feed
    ends = visits(feed)
    known = {session.name: length for session, length in zip(run.venue.sessions, run.venue.lengths, strict=True)}
    last = feed.seen[-1]
    for (before, _), (after, _) in itertools.pairwise(ends):
        if before in known and after not in known:
            say(f"it left the session {before} for {after}, which was in no two packets that agree")
    # Where the first packet ever heard is of a session that is not ours, it is taken for ours until another one is agreed on.
    strange = sum(end - 1 for session, end in ends if session not in known)
    named = {seen.session for seen in feed.seen if any(seen.name)}
    if feed.has_left() and len(named) == 1:
        # It came and went within a turn.
        strange += STRAY_MESSAGES_MAX
    least = sum(end - 1 for session, end in ends if session in known)
    # Of a session that is over, more may be known to be lost than the messages that were passed.
    most = strange + last.expected - 1 + sum(length for session, length in known.items() if session != last.session)
    most += sum(known[session] for session in revisited(feed) if session in known)
    if not least <= feed.count("messages") + feed.count("lost") <= most:
        say(f"messages={feed.count('messages')} lost={feed.count('lost')}, but the sequence numbers passed are {least} to {most}: {ends}")
    # What comes before its session is believed may be dropped, and is foreign.
    if len(known) > 1 or strange or len(named) > 1 or last.session not in known:
        return
    judge_first(run, say)
    if run.plan.before_first:
        # A late packet that begins at number 0 is refused, as one that came before any other would be: numbers begin at 1.
        return
    for number, line in enumerate(run.lines):
        judge_line(feed.line(number), line, f"line {'AB'[number]}", say)


def visits(feed: FeedUnderTest) -> list[tuple[str, int]]:
    """The sessions that the feed handler was in, one after the other, and what it expected next when it left each."""
    stays = [list(stay) for _, stay in itertools.groupby(feed.seen, key=lambda seen: seen.session)]
    return [(stay[-1].session, stay[-1].expected) for stay in stays]


def revisited(feed: FeedUnderTest) -> list[str]:
    """Sessions that the feed handler was in more than once, each as often as it came back: it begins them at their first message again."""
    names = [session for session, _ in visits(feed)]
    return [name for at, name in enumerate(names) if name in names[:at]]


def judge_first(run: "Run", say: Say) -> None:
    """Where nothing was dropped or passed over, and nothing waits, each message that was applied was brought first by one line, once;
    what else came was a duplicate."""
    feed = run.feed
    rows = [feed.line(number) for number in range(LINE_REWIND + len(run.rewind))]
    first = sum(row["first"] for row in rows)
    if not feed.count("lost") and not feed.count("window_drops") and not feed.waits() and first != feed.count("messages"):
        say(f"the lines were first with {first} messages, but {feed.count('messages')} were applied")
    for number, line in enumerate(rows[: len(run.lines)]):
        if line["messages"] != line["first"] + line["duplicates"]:
            say(f"line {'AB'[number]}: messages={line['messages']} are not first={line['first']} and duplicates={line['duplicates']}")


def judge_line(row: dict[str, int], line: Line, name: str, say: Say) -> None:
    least, most = len(line.brought), len(line.brought | line.maybe)
    distinct = row["messages"] - row["repeated"]
    forgotten = row["gaps"] > RANGES_REMEMBERED
    if not least - forgotten * row["repeated"] <= distinct <= most + forgotten * row["lost"]:
        say(f"{name}: messages={row['messages']} repeated={row['repeated']}, but {least} to {most} different ones arrived")
    heard = max((number for _, number in line.brought | line.maybe), default=0)
    missing = row["next"] - 1 - distinct
    if row["gaps"] <= RANGES_REMEMBERED and row["lost"] != missing:
        say(f"{name}: lost={row['lost']}, but of {row['next'] - 1} numbers {distinct} came (the highest that arrived is {heard})")


def judge_requests(run: "Run", say: Say) -> None:
    """Requests are bounded in size and rate, all servers together."""
    asked = []
    for server in run.rewind:
        for problem in server.problems:
            say(f"rewind server: {problem}")
        asked += server.asked
    times = sorted(now_ns for now_ns, _, _ in asked)
    # They are heard once a turn, so two can look closer than they are by up to one.
    limit = (times[-1] - times[0]) / REQUEST_INTERVAL_NS + 2 if times else 0
    if len(times) > limit + run.plan.turn_ns / REQUEST_INTERVAL_NS:
        say(f"{len(times)} requests in {(times[-1] - times[0]) / 1e6:.2f} ms, more often than one in {REQUEST_INTERVAL_NS} ns")
    if any(count > run.plan.request_messages_max for _, _, count in asked):
        say(f"a request for {max(count for _, _, count in asked)} messages, more than {run.plan.request_messages_max}")
