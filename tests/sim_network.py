"""The network of a simulation: what stands between the gateway and the venue's listening socket, and between its market data and us.

A connection is two pairs of Unix sockets with a relay in the middle, which moves bytes when the plan says so. Nothing on the way has a
clock or a thread of its own, so the same plan moves the same bytes in the same turn, every time.
"""

import contextlib
import random
import socket
from collections import deque
from collections.abc import Callable

from tests.sim_plan import CLOSED, DOWN, SILENT, UP, LinkFaults, Plan

Note = Callable[..., None]


def listening() -> socket.socket:
    """A listening socket on an address that the kernel makes up: the venue accepts from it as it would from TCP."""
    made = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    made.bind("")
    made.listen(64)
    made.setblocking(False)
    return made


class Pipe:
    """One direction of a connection: bytes from `source`, each due at some time, to `target`."""

    def __init__(self, chance: random.Random, faults: LinkFaults, source: socket.socket, target: socket.socket) -> None:
        self.chance, self.faults, self.source, self.target = chance, faults, source, target
        self.waiting: deque[tuple[int, bytes]] = deque()
        self.due_ns = 0
        self.taken = 0
        self.passed = 0
        self.ended = False

    def read(self, now_ns: int) -> bytes:
        """Take all that the source has said. `ended` where it has hung up."""
        taken = b""
        while not self.ended:
            try:
                got = self.source.recv(1 << 16)
            except BlockingIOError:
                break
            except ConnectionError:
                got = b""
            self.ended = not got
            taken += got
        self.taken += len(taken)
        if taken:
            self.due_ns = max(self.due_ns, now_ns + self.chance.randint(*self.faults.delay_ns))
            self.waiting.append((self.due_ns, taken))
        return taken

    def deliver(self, now_ns: int, most: int) -> bytes:
        """Hand on what is due, `most` bytes at most. Returns what the target has taken."""
        given = b""
        while self.waiting and self.waiting[0][0] <= now_ns and len(given) < most:
            due_ns, raw = self.waiting.popleft()
            try:
                taken = self.target.send(raw[: most - len(given)])
            except BlockingIOError:
                taken = 0
            except OSError:
                self.waiting.clear()
                break
            given += raw[:taken]
            if taken < len(raw):
                self.waiting.appendleft((due_ns, raw[taken:]))
                break
        self.passed += len(given)
        return given

    @property
    def is_empty(self) -> bool:
        return not self.waiting


class Link:
    """One connection of the gateway's, from its beginning to its end. `number` counts them; `ordinal` counts those of others too, in the
    order in which the venue will take them in."""

    def __init__(self, number: int, plan: LinkFaults, chance: random.Random, venue: str | bytes, turn: int, ordinal: int) -> None:
        self.number, self.faults, self.began, self.ordinal = number, plan, turn, ordinal
        self.theirs, self.near = socket.socketpair(socket.AF_UNIX, socket.SOCK_STREAM)
        if plan.buffer_bytes:
            self.theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, plan.buffer_bytes)
        self.far = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        # A name of its own, by which the venue's end of this connection is known.
        self.far.bind("")
        self.far.connect(venue)
        self.name = self.far.getsockname()
        for made in (self.theirs, self.near, self.far):
            made.setblocking(False)
        self.up = Pipe(chance, plan, self.near, self.far)
        self.down = Pipe(chance, plan, self.far, self.near)
        self.alive = True
        self.silent = False

    def said(self, since: int) -> bytes:
        """What the gateway has written from byte number `since` on and the relay has not taken yet. It stays where it is."""
        if not self.alive or self.up.ended:
            return b""
        with contextlib.suppress(BlockingIOError, ConnectionError):
            return self.near.recv(1 << 20, socket.MSG_PEEK)[since - self.up.taken :]
        return b""

    def turn(self, turn: int, now_ns: int, note: Note) -> tuple[bytes, bytes]:
        """What has reached the venue, and what has reached the gateway, in this turn."""
        at = turn - self.began
        if not self.alive or any(begin <= at < begin + turns for begin, turns in self.faults.stalls):
            return b"", b""
        self.up.read(now_ns)
        heard = self.down.read(now_ns)
        if heard:
            note("venue says", heard.hex())
        if self.silent:
            # Whoever hangs up on a silent network is not heard either.
            if self.up.ended or self.down.ended:
                self.end(note, "hung up in silence")
            return b"", b""
        moved = {}
        for name, pipe in ((UP, self.up), (DOWN, self.down)):
            most = self.faults.chunk_bytes or 1 << 30
            cut = self.faults.cut
            if cut is not None and cut[0] == name:
                most = min(most, cut[1] - pipe.passed)
            moved[name] = pipe.deliver(now_ns, most)
            if cut is not None and cut[0] == name and pipe.passed >= cut[1]:
                self.break_off(cut[2], note)
                break
        if self.alive and ((self.up.ended and self.up.is_empty) or (self.down.ended and self.down.is_empty)):
            self.end(note, "hung up")
        return moved.get(UP, b""), moved.get(DOWN, b"")

    def break_off(self, how: str, note: Note) -> None:
        if how == SILENT:
            note("link falls silent", self.number)
            self.silent = True
            self.up.waiting.clear()
            self.down.waiting.clear()
            self.faults.cut = None
        else:
            self.end(note, "cut")

    def end(self, note: Note, why: str) -> None:
        """Both ends see the other one gone."""
        if self.alive:
            note("link ends", self.number, why)
            self.alive = False
            self.near.close()
            self.far.close()

    def close(self) -> None:
        for made in (self.theirs, self.near, self.far):
            made.close()


class Network:
    """All connections there were. `connect` is what the gateway calls for another one."""

    def __init__(self, plan: Plan, note: Note, venue: socket.socket) -> None:
        self.plan, self.note = plan, note
        self.venue = venue
        self.links: list[Link] = []
        self.refused = 0
        self.calm = False
        self.now = 0
        self.dialled = 0

    def dial(self) -> str | bytes:
        """Where the venue listens; whoever asks connects at once."""
        self.dialled += 1
        return self.venue.getsockname()  # type: ignore[no-any-return]

    def connect(self) -> socket.socket:
        """A socket that does not wait, as a connection would give it. ConnectionRefusedError where the plan has it so."""
        number = len(self.links)
        refusals = self.plan.refusals[number] if number < len(self.plan.refusals) else 0
        if not self.calm and self.refused < refusals:
            self.refused += 1
            self.note("connection refused", number)
            raise ConnectionRefusedError(111, "Connection refused")
        self.refused = 0
        faults = self.plan.links[number] if number < len(self.plan.links) and not self.calm else LinkFaults()
        link = Link(number, faults, random.Random(f"link {self.plan.seed} {number}"), self.dial(), self.now, self.dialled - 1)
        self.links.append(link)
        self.note("connected", number)
        return link.theirs

    @property
    def last(self) -> Link | None:
        return self.links[-1] if self.links else None

    def heal(self) -> None:
        """From now on nothing is lost or late; a connection that was silenced is cut, as somebody pulls the plug."""
        self.calm = True
        for link in self.links:
            if link.silent:
                link.end(self.note, "unplugged")
            link.faults.cut, link.faults.stalls, link.faults.chunk_bytes, link.faults.delay_ns = None, [], 0, (0, 0)

    @property
    def is_quiet(self) -> bool:
        return all(not link.alive or (link.up.is_empty and link.down.is_empty) for link in self.links)

    def close(self) -> None:
        for link in self.links:
            link.close()


class MarketLine:
    """Market data on its way to the feed handler: datagrams that are lost, come twice, or behind the next."""

    def __init__(self, plan: Plan, target: tuple[str, int]) -> None:
        self.plan, self.chance = plan, random.Random(f"market {plan.seed}")
        self.calm = False
        self.heard: Callable[[bytes], None] | None = None
        self.late: list[bytes] = []
        self.target = target
        self.inlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.inlet.bind(("127.0.0.1", 0))
        self.inlet.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 1 << 22)
        self.inlet.setblocking(False)
        self.outlet = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)

    def turn(self, note: Note) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                self.offer(self.inlet.recv(65_536), note)

    def offer(self, raw: bytes, note: Note) -> None:
        note("market", raw.hex())
        if self.heard is not None:
            self.heard(raw)
        roll = 1.0 if self.calm else self.chance.random()
        late, self.late = self.late, []
        if roll < self.plan.loss:
            note("market lost")
        elif roll < self.plan.loss + self.plan.swaps:
            self.late.append(raw)
        else:
            self.outlet.sendto(raw, self.target)
            if roll < self.plan.loss + self.plan.swaps + self.plan.repeats:
                self.outlet.sendto(raw, self.target)
        for held in late:
            self.outlet.sendto(held, self.target)

    def close(self) -> None:
        self.inlet.close()
        self.outlet.close()


__all__ = ["CLOSED", "Link", "MarketLine", "Network", "listening"]
