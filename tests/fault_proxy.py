"""The network between a venue and a feed handler, with everything that a network does: seeded, so that it does it again.

    venue ──packets──▶ Line A ──faults──▶ socket ─┐
                  └──▶ Line B ──faults──▶ socket ─┼──▶ feed handler ──requests──▶ RewindServer, SnapshotServer
                                                  └────────────────◀─────────────┘

Time is whatever the caller says it is: a simulated clock in one process (fault_run.py), a real one between real processes
(fault_process.py). What an intact packet says is never changed: UDP has a checksum, so what arrives is whole, cut, or something else.
"""

import contextlib
import heapq
import random
import socket
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Protocol

from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.feed.moldudp64 import COUNT_AT, END_OF_SESSION, HEADER_BYTES, LENGTH_BYTES, PACKET_BYTES_MAX, SEQUENCE_AT, SESSION_BYTES
from engine.wire import soupbintcp
from tests import fault_plan as plans
from tests.fault_plan import MS, US, LineFaults
from tests.itch_flow import packet, unframe

REQUEST_BYTES = 20
NUMBERS = 1 << 64
STRAY_MESSAGES_MAX = 3


class Venue(Protocol):
    """What a proxy must know of a venue to answer in its place."""

    def session_name(self) -> str: ...
    def published(self) -> int: ...
    def wire_number(self, sequence: int) -> int: ...
    def message(self, sequence: int) -> bytes: ...
    def snapshot(self, count: int) -> list[bytes]: ...


@dataclass(order=True)
class Due:
    at_ns: int
    number: int
    raw: bytes = field(compare=False)
    # The messages that the packet brings, by session and sequence number; of a cut one those that are whole.
    brings: tuple[tuple[str, int], ...] = field(compare=False, default=())
    cut: bool = field(compare=False, default=False)


class Line:
    """One line's way through the network. `brought` are the messages that arrived in whole packets, `maybe` those in cut ones."""

    def __init__(self, faults: LineFaults, rng: random.Random, send: Callable[[bytes], object]) -> None:
        self.faults, self.rng, self.send = faults, rng, send
        self.due: list[Due] = []
        self.number = 0
        self.burst_left = 0
        self.before = b""
        self.packets = 0
        self.brought: set[tuple[str, int]] = set()
        self.maybe: set[tuple[str, int]] = set()

    def offer(self, now_ns: int, raw: bytes) -> None:
        """A packet sets out."""
        faults, rng = self.faults, self.rng
        if rng.random() < faults.garbage:
            self._later(now_ns, garbage(rng))
        if rng.random() < faults.stray:
            strange = stray(rng)
            self._later(now_ns, strange)
            # The first packet of all is taken at its word, and its copies agree with it.
            while faults.copied and self.brought and rng.random() < faults.copied:
                self._later(now_ns + rng.randrange(2 * MS), strange)
        if faults.repacked:
            raw = self._repacked(raw)
        if self._is_lost(now_ns):
            return
        brings = messages_of(raw)
        if rng.random() < faults.truncate:
            kept = raw[: rng.randrange(len(raw))]
            self._later(now_ns, kept, messages_of(kept), cut=True)
            return
        self._later(now_ns, raw, brings)
        while rng.random() < faults.duplicate:
            self._later(now_ns + rng.randrange(2 * MS), raw, brings)

    def calm(self) -> None:
        """No more bursts: where there are only heartbeats, one would last for ever. No more copies either: time is let pass in longer
        turns, and what comes in two of them would be no copy."""
        self.faults.burst, self.burst_left, self.faults.copied = 0.0, 0, 0.0

    def _repacked(self, raw: bytes) -> bytes:
        """A packet that also has messages of the one before it, as of a venue whose lines are packed each in its own way."""
        before, self.before = self.before, raw
        if self.rng.random() >= self.faults.repacked or not messages_of(raw):
            return raw
        session, first = messages_of(raw)[0]
        if messages_of(before)[-1:] != ((session, (first - 1) % NUMBERS),):
            return raw
        mine, again = unframe(raw[HEADER_BYTES:]), unframe(before[HEADER_BYTES:])
        again = again[self.rng.randrange(len(again)) :]
        made = packet((first - len(again)) % NUMBERS, again + mine, session=session)
        return made if len(made) <= PACKET_BYTES_MAX else raw

    def _is_lost(self, now_ns: int) -> bool:
        faults, rng = self.faults, self.rng
        if self.burst_left:
            self.burst_left -= 1
            return True
        if rng.random() < faults.burst:
            self.burst_left = rng.randrange(faults.burst_length)
            return True
        return rng.random() < faults.loss or any(began <= now_ns < ended for began, ended in faults.dead)

    def _later(self, now_ns: int, raw: bytes, brings: tuple[tuple[str, int], ...] = (), *, cut: bool = False) -> None:
        faults, rng = self.faults, self.rng
        at = now_ns + faults.delay_ns
        if faults.jitter_ns:
            at += rng.randrange(faults.jitter_ns)
        if rng.random() < faults.reorder:
            at += rng.randrange(faults.reorder_ns)
        self.number += 1
        heapq.heappush(self.due, Due(at, self.number, raw, brings, cut))

    def deliver(self, now_ns: int) -> int:
        """Send what has arrived by now; how many packets that were."""
        sent = 0
        while self.due and self.due[0].at_ns <= now_ns:
            arrived = heapq.heappop(self.due)
            (self.maybe if arrived.cut else self.brought).update(arrived.brings)
            self.send(arrived.raw)
            sent += 1
        self.packets += sent
        return sent


def messages_of(raw: bytes) -> tuple[tuple[str, int], ...]:
    """The session and sequence number of every whole message of a packet, which may be cut."""
    if len(raw) < HEADER_BYTES or raw[COUNT_AT:HEADER_BYTES] == END_OF_SESSION.to_bytes(2, "big"):
        return ()
    session, first = raw[:SESSION_BYTES].decode("latin-1").rstrip(), int.from_bytes(raw[SEQUENCE_AT:COUNT_AT], "big")
    return tuple((session, (first + place) % NUMBERS) for place in range(len(unframe(raw[HEADER_BYTES:]))))


def garbage(rng: random.Random) -> bytes:
    """Bytes that are no packet of any session: random ones, or a session's header before random ones."""
    raw = rng.randbytes(rng.choice([0, 1, 19, 20, 21, rng.randrange(1, 1_400)]))
    if rng.random() < 0.3:
        raw = b"GARBAGE%03d" % rng.randrange(2) + raw
    return raw


def stray(rng: random.Random) -> bytes:
    """A whole packet of a session that is not ours, once: a late one of yesterday's, or of a neighbour's."""
    sequence = rng.choice([1, rng.randrange(1, 1_000), 1 << 40])
    messages = [rng.randbytes(rng.randrange(1, 50)) for _ in range(rng.randrange(STRAY_MESSAGES_MAX + 1))]
    return packet(sequence, messages, session=f"S{rng.randrange(10**9):09d}")


class RewindServer:
    """A server of lost packets at `address`, of one of the kinds in fault_plan. `asked` is when, and what for: (ns, first, count)."""

    def __init__(self, kind: str, rng: random.Random, venue: Venue, slow_ns: int) -> None:
        self.kind, self.rng, self.venue, self.slow_ns = kind, rng, venue, slow_ns
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(("127.0.0.1", 0))
        self.socket.setblocking(False)
        self.address: tuple[str, int] = self.socket.getsockname()
        self.asked: list[tuple[int, int, int]] = []
        self.due: list[tuple[int, int, bytes, tuple[str, int]]] = []
        self.brought: set[tuple[str, int]] = set()
        self.problems: list[str] = []
        if kind == plans.CLOSED:
            self.socket.close()

    def close(self) -> None:
        self.socket.close()

    def turn(self, now_ns: int) -> None:
        if self.kind == plans.CLOSED:
            return
        with contextlib.suppress(BlockingIOError):
            while True:
                raw, sender = self.socket.recvfrom(65_536)
                self._hear(now_ns, raw, sender)
        while self.due and self.due[0][0] <= now_ns:
            _, _, raw, sender = heapq.heappop(self.due)
            if self.kind not in (plans.CUT, plans.GARBAGE):
                self.brought.update(messages_of(raw))
            with contextlib.suppress(OSError):
                self.socket.sendto(raw, sender)

    def _hear(self, now_ns: int, raw: bytes, sender: tuple[str, int]) -> None:
        if len(raw) != REQUEST_BYTES:
            self.problems.append(f"a request of {len(raw)} bytes")
            return
        session = raw[:SESSION_BYTES].decode("latin-1").rstrip()
        first, count = int.from_bytes(raw[SEQUENCE_AT:COUNT_AT], "big"), int.from_bytes(raw[COUNT_AT:], "big")
        first = (first - self.venue.wire_number(0)) % NUMBERS
        self.asked.append((now_ns, first, count))
        if count == 0 or first < 1:
            self.problems.append(f"a request for {count} messages from {first}")
        if session != self.venue.session_name():
            return
        for answer in self._answers(session, first, count):
            after = 50 * US + (self.slow_ns if self.kind == plans.SLOW else 0)
            heapq.heappush(self.due, (now_ns + after, len(self.asked), answer, sender))

    def _answers(self, session: str, first: int, count: int) -> Iterator[bytes]:
        rng, kind = self.rng, self.kind
        if kind == plans.SILENT or first > self.venue.published():
            return
        if kind == plans.GARBAGE:
            yield garbage(rng)
        elif kind == plans.EMPTY:
            yield packet(self.venue.wire_number(first), [], session=session)
        elif kind == plans.OTHER_SESSION:
            yield self._packet("YESTERDAY", first, count)
        elif kind == plans.OTHER_SEQUENCE:
            yield self._packet(session, rng.randrange(1, self.venue.published() + 1), count)
        elif kind == plans.OLD:
            yield self._packet(session, max(1, first - rng.randrange(1, 50)), 1)
        elif kind == plans.FEW:
            yield self._packet(session, first, min(count, 2))
        elif kind == plans.CUT:
            whole = self._packet(session, first, count)
            yield whole[: rng.randrange(len(whole) * 3 // 4, len(whole) + 1)]
        else:
            yield self._packet(session, first, count)

    def _packet(self, session: str, first: int, count: int) -> bytes:
        """As many of the messages as fit."""
        messages: list[bytes] = []
        size = HEADER_BYTES
        for sequence in range(first, min(first + count, self.venue.published() + 1)):
            raw = self.venue.message(sequence)
            size += LENGTH_BYTES + len(raw)
            if size > PACKET_BYTES_MAX:
                break
            messages.append(raw)
        return packet(self.venue.wire_number(first), messages, session=session)


@dataclass
class Talk:
    """One client of a snapshot server."""

    socket: socket.socket
    kind: str
    heard: bytes = b""
    queue: bytes = b""
    told: bool = False
    ends: bool = False
    from_ns: int = 0


class SnapshotServer:
    """A Glimpse server whose connections go as the plan says, one after the other; the last kind stays. `served` are whole snapshots
    by what they hold: (session, count)."""

    def __init__(self, kinds: list[str], rng: random.Random, venue: Venue, bytes_per_turn: int) -> None:
        self.kinds, self.rng, self.venue, self.bytes_per_turn = list(kinds), rng, venue, bytes_per_turn
        self.listener = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self.listener.bind(("127.0.0.1", 0))
        self.address: tuple[str, int] = self.listener.getsockname()
        self.listener.setblocking(False)
        self.talks: list[Talk] = []
        self.connections = 0
        self.served: list[tuple[str, int]] = []
        self.logins: list[dict[str, object]] = []
        self.listener.listen(8)

    def close(self) -> None:
        self.listener.close()
        for talk in self.talks:
            talk.socket.close()

    def turn(self, now_ns: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                accepted, _ = self.listener.accept()
                accepted.setblocking(False)
                kind = self.kinds[min(self.connections, len(self.kinds) - 1)]
                self.connections += 1
                if kind == plans.CLOSED:
                    # As near as a listener that others still need comes to refusing.
                    accepted.close()
                    continue
                self.talks.append(Talk(accepted, kind))
        for talk in list(self.talks):
            if not self._serve(talk, now_ns):
                talk.socket.close()
                self.talks.remove(talk)

    def _serve(self, talk: Talk, now_ns: int) -> bool:
        try:
            got = talk.socket.recv(65_536)
            talk.heard += got
            if not got:
                return False
        except BlockingIOError:
            pass
        except OSError:
            return False
        if not talk.told and len(talk.heard) >= LENGTH_BYTES + soupbintcp.LOGIN_REQUEST.length:
            self._answer(talk)
        if talk.queue:
            most = self.bytes_per_turn if talk.kind != plans.SLOW else 200
            try:
                sent = talk.socket.send(talk.queue[:most])
            except BlockingIOError:
                sent = 0
            except OSError:
                return False
            talk.queue = talk.queue[sent:]
        return bool(talk.queue) or not talk.ends

    def _answer(self, talk: Talk) -> None:
        talk.told = True
        self.logins.append(soupbintcp.LOGIN_REQUEST.decode(talk.heard[LENGTH_BYTES:][: soupbintcp.LOGIN_REQUEST.length]))
        if talk.kind == plans.SILENT:
            return
        if talk.kind == plans.NOISY:
            talk.queue, talk.ends = self.rng.randbytes(3_000), True
            return
        if talk.kind == plans.REJECTED:
            talk.queue, talk.ends = soup(soupbintcp.LOGIN_REJECTED.encode(reason="A")), True
            return
        session, count = self.venue.session_name(), self.venue.published()
        if talk.kind == plans.STALE:
            count = min(count, self.rng.randrange(1 + count // 2))
        accepted = soupbintcp.LOGIN_ACCEPTED.encode(session=session.rjust(SESSION_BYTES), sequence="1".rjust(20))
        whole = b"".join(soup(bytes([soupbintcp.SEQUENCED]) + raw) for raw in self.venue.snapshot(count))
        if talk.kind == plans.MIDDLE:
            whole, talk.ends = whole[: self.rng.randrange(len(whole) + 1)], True
        elif talk.kind != plans.LIST_ONLY:
            whole += soup(bytes([soupbintcp.SEQUENCED]) + END_OF_SNAPSHOT.encode(sequence=f"{self.venue.wire_number(count + 1):020d}"))
            whole += soup(bytes([soupbintcp.END_OF_SESSION]))
            talk.ends = True
            self.served.append((session, count))
        talk.queue = self._spoken(soup(accepted) + whole)

    def _spoken(self, stream: bytes) -> bytes:
        return stream


def soup(raw: bytes) -> bytes:
    return len(raw).to_bytes(LENGTH_BYTES, "big") + raw
