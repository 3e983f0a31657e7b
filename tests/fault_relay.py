"""What stands between a feed handler and the servers of a real exchange: it passes on what they say, or does it badly.

The kinds are those of fault_plan that make sense for somebody who only passes on: nothing true is made up here.
"""

import contextlib
import heapq
import random
import socket
from dataclasses import dataclass

from tests import fault_plan as plans

Address = tuple[str, int]


class RewindRelay:
    """A rewind server at `address` that asks the one at `server`."""

    def __init__(self, kind: str, rng: random.Random, server: Address, slow_ns: int, address: Address = ("127.0.0.1", 0)) -> None:
        self.kind, self.rng, self.server, self.slow_ns = kind, rng, server, slow_ns
        self.socket = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.socket.bind(address)
        self.upstream = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        self.upstream.connect(server)
        for made in (self.socket, self.upstream):
            made.setblocking(False)
        self.address: Address = self.socket.getsockname()
        self.client: Address | None = None
        self.due: list[tuple[int, int, bytes]] = []
        self.answers = 0
        self.asked: list[tuple[int, int, int]] = []
        self.earlier = b""
        self.problems: list[str] = []

    def close(self) -> None:
        self.socket.close()
        self.upstream.close()

    def turn(self, now_ns: int) -> None:
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                raw, self.client = self.socket.recvfrom(2_048)
                self.asked.append((now_ns, int.from_bytes(raw[10:18], "big"), int.from_bytes(raw[18:20], "big")))
                if self.kind != plans.SILENT:
                    self.upstream.send(raw)
        with contextlib.suppress(BlockingIOError, ConnectionRefusedError):
            while True:
                self._pass_on(now_ns, self.upstream.recv(65_536))
        while self.due and self.due[0][0] <= now_ns and self.client is not None:
            with contextlib.suppress(OSError):
                self.socket.sendto(heapq.heappop(self.due)[2], self.client)

    def _pass_on(self, now_ns: int, raw: bytes) -> None:
        if self.kind == plans.CUT:
            raw = raw[: self.rng.randrange(len(raw) * 3 // 4, len(raw) + 1)]
        elif self.kind == plans.GARBAGE:
            raw = self.rng.randbytes(len(raw))
        elif self.kind == plans.OLD:
            raw, self.earlier = self.earlier or raw, raw
        self.answers += 1
        heapq.heappush(self.due, (now_ns + (self.slow_ns if self.kind == plans.SLOW else 0), self.answers, raw))


@dataclass
class Pair:
    """A client's connection, and the one to the server on its behalf."""

    client: socket.socket
    server: socket.socket
    kind: str
    left: int
    waiting: bytes = b""
    server_ended: bool = False


class SnapshotRelay:
    """A snapshot server at `address` that passes on the one at `server`. Connections go as the kinds say, the last one for ever."""

    def __init__(
        self, kinds: list[str], rng: random.Random, server: Address, bytes_per_turn: int, address: Address = ("127.0.0.1", 0)
    ) -> None:
        self.kinds, self.rng, self.server, self.bytes_per_turn = list(kinds), rng, server, bytes_per_turn
        self.listener = socket.create_server(address)
        self.listener.setblocking(False)
        self.address: Address = self.listener.getsockname()
        self.pairs: list[Pair] = []
        self.connections = 0

    def close(self) -> None:
        self.listener.close()
        for pair in self.pairs:
            pair.client.close()
            pair.server.close()

    def turn(self, now_ns: int) -> None:
        with contextlib.suppress(BlockingIOError):
            while True:
                client, _ = self.listener.accept()
                kind = self.kinds[min(self.connections, len(self.kinds) - 1)]
                self.connections += 1
                if kind == plans.CLOSED:
                    client.close()
                    continue
                server = socket.create_connection(self.server)
                for made in (client, server):
                    made.setblocking(False)
                self.pairs.append(Pair(client, server, kind, left=self.rng.randrange(5_000) if kind == plans.MIDDLE else 1 << 40))
        for pair in list(self.pairs):
            if not self._turn_pair(pair):
                pair.client.close()
                pair.server.close()
                self.pairs.remove(pair)

    def _turn_pair(self, pair: Pair) -> bool:
        try:
            with contextlib.suppress(BlockingIOError):
                got = pair.client.recv(65_536)
                if not got:
                    return False
                if pair.kind != plans.SILENT:
                    pair.server.sendall(got)
            if len(pair.waiting) < 1 << 18 and not pair.server_ended:
                with contextlib.suppress(BlockingIOError):
                    got = pair.server.recv(65_536)
                    pair.server_ended = not got
                    pair.waiting += self.rng.randbytes(len(got)) if pair.kind == plans.NOISY else got
            if pair.waiting:
                most = min(self.bytes_per_turn, pair.left, 300 if pair.kind == plans.SLOW else 1 << 20)
                with contextlib.suppress(BlockingIOError):
                    sent = pair.client.send(pair.waiting[:most])
                    pair.waiting = pair.waiting[sent:]
                    pair.left -= sent
        except OSError:
            return False
        return pair.left > 0 and not (pair.server_ended and not pair.waiting)
