"""More of what is fuzzed: the servers a feed handler gets back from what it lost, from both sides of the wire."""

import contextlib
import random
import socket
from collections.abc import Iterator

from engine.book.book import check_invariants
from engine.feed.glimpse import END_OF_SNAPSHOT
from engine.feed.moldudp64 import HEADER_BYTES
from engine.wire import soupbintcp
from tests.exchange_rig import packet as soup_packet
from tests.exchange_rig import soup_packets
from tests.fault_mutate import mutated
from tests.fault_plan import GOOD, MS, drawn
from tests.fault_proxy import RewindServer, SnapshotServer
from tests.fault_run import Run
from tests.fault_venue import ExchangeVenue
from tests.itch_flow import unframe

SEQUENCED = soupbintcp.SEQUENCED
ROUNDS_PER_VENUE = 20
STEP_NS = MS // 10


class LyingRewind(RewindServer):
    """Answers that are changed anywhere, their headers too."""

    def _answers(self, session: str, first: int, count: int) -> Iterator[bytes]:
        for raw in super()._answers(session, first, count):
            yield mutated(self.rng, raw) if self.rng.random() < 0.6 else raw


class LyingGlimpse(SnapshotServer):
    """A stream that is changed anywhere: lengths, types, messages, the number at its end."""

    def _spoken(self, stream: bytes) -> bytes:
        return mutated(self.rng, stream) if self.rng.random() < 0.8 else stream


class LiedTo(Run):
    rewind_kind = LyingRewind
    glimpse_kind = LyingGlimpse

    def has_hope(self) -> bool:
        return False


class FeedRecovery:
    """What rewind and snapshot servers answer. Their lies can make a book wrong, which nothing tells; they may not make it unsound."""

    def round(self, seed: int) -> None:
        plan = drawn(seed)
        for line in plan.lines:
            line.loss = max(line.loss, 0.1)
        plan.rewind = plan.rewind or [GOOD]
        plan.snapshot = plan.snapshot or [GOOD]
        run = LiedTo(plan)
        with contextlib.closing(run):
            run.play()
            assert not run.feed.failed, run.feed.stage.reasons.get(run.feed.failed)
            check_invariants(run.feed.stage.state.decoder.book)

    def close(self) -> None:
        pass


class ExchangeServers:
    """Requests to the exchange's rewind servers, and what viewers say to its snapshot server; good ones must be served as ever."""

    def __init__(self) -> None:
        self.venue: ExchangeVenue | None = None
        self.now_ns = 0

    def round(self, seed: int) -> None:
        rng = random.Random(seed)
        if self.venue is None or seed % ROUNDS_PER_VENUE == 0:
            self.close()
            plan = drawn(seed)
            plan.rewind = [GOOD, GOOD]
            self.venue, self.now_ns = ExchangeVenue(plan, rng), 0
            self._turn(20)
        venue = self.venue
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            for _ in range(20):
                raw = request(venue.name, rng.choice([0, 1, venue.count, (1 << 64) - 1]), rng.choice([0, 1, 10, 65_535]))
                with contextlib.suppress(OSError):
                    asking.sendto(mutated(rng, raw) if rng.random() < 0.7 else raw, rng.choice(venue.rewind_addresses))
                self._turn(1)
        viewers = [self._viewer(rng, login_to(rng)) for _ in range(rng.randrange(1, 5))]
        self._turn(30)
        for viewer in viewers:
            viewer.close()
        self._turn(30)
        self._check_rewind(rng)
        self._check_snapshot(rng)
        assert not venue.problems, venue.problems

    def _turn(self, turns: int) -> None:
        assert self.venue is not None
        for _ in range(turns):
            self.now_ns += STEP_NS
            self.venue.step(self.now_ns)

    def _viewer(self, rng: random.Random, said: bytes) -> socket.socket:
        assert self.venue is not None
        viewer = socket.create_connection(("127.0.0.1", self.venue.stage.snapshot_port))
        viewer.setblocking(False)
        with contextlib.suppress(OSError):
            viewer.send(said)
        self._turn(rng.randrange(4))
        if rng.random() < 0.5:
            with contextlib.suppress(OSError):
                viewer.send(mutated(rng, said))
        return viewer

    def _check_rewind(self, rng: random.Random) -> None:
        venue = self.venue
        assert venue is not None
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as asking:
            asking.settimeout(0.01)
            first = rng.randrange(1, venue.count + 1)
            asking.sendto(request(venue.name, first, 3), venue.rewind_addresses[0])
            for _ in range(50):
                self._turn(1)
                with contextlib.suppress(TimeoutError):
                    answer = asking.recv(65_536)
                    assert unframe(answer[HEADER_BYTES:]) == venue.sessions[0].messages[first - 1 : first + 2]
                    return
        raise AssertionError(f"the rewind server does not answer any more: {first} of {venue.count}")

    def _check_snapshot(self, rng: random.Random) -> None:
        venue = self.venue
        assert venue is not None
        with self._viewer(random.Random(1), login()) as viewer:
            heard, closed = b"", False
            for _ in range(20_000):
                self._turn(1)
                with contextlib.suppress(BlockingIOError):
                    got = viewer.recv(1 << 16)
                    heard, closed = heard + got, not got
                messages = [payload for kind, payload in soup_packets(heard)[0] if kind == SEQUENCED]
                if messages and messages[-1][:1] == b"G":
                    count = int(END_OF_SNAPSHOT.decode(messages[-1])["sequence"]) - 1
                    assert [raw for raw in messages if raw[:1] in b"AF"].__len__() == len(venue.sessions[0].book_after(count).orders)
                    return
                assert not closed, f"the snapshot server hung up: {heard[:100]!r}"
        raise AssertionError("the snapshot server does not serve any more")

    def close(self) -> None:
        if self.venue is not None:
            self.venue.close()
            self.venue = None


def request(session: str, first: int, count: int) -> bytes:
    return session.encode().ljust(10) + first.to_bytes(8, "big") + count.to_bytes(2, "big")


def login(password: str = "PATH") -> bytes:
    raw = soupbintcp.LOGIN_REQUEST.encode(username="TICK", password=password, session="", sequence="1".rjust(20))
    return soup_packet(raw[0], raw[1:])


def login_to(rng: random.Random) -> bytes:
    draw = rng.random()
    if draw < 0.3:
        return login()
    if draw < 0.5:
        return login("WRONG")
    return mutated(rng, login()) if draw < 0.8 else rng.randbytes(rng.randrange(200))
