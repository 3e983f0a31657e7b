"""`tickpath capture record`: one or two feed lines into a pcap file with the kernel's receive times, to the nanosecond.

Whole packets are written at a time, in the order of their stamps, so that the file is a capture at any moment. Only where the recorder is
killed in the middle of a write can the last packet be torn, which readers say and stop at. A recorder that cannot follow loses datagrams in
its socket: they are counted by the kernel and told.
"""

import os
import select
import signal
import socket
import struct
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from operator import itemgetter
from pathlib import Path
from types import FrameType
from typing import Any

from engine.feed import pcap
from engine.feed.frames import address_of, address_text, ethernet_frame
from engine.feed.source import SO_RXQ_OVFL, SO_TIMESTAMPNS, Line, open_line

# Datagrams taken from one line before the other is looked at.
BATCH = 256
# The largest datagram of IPv4.
DATAGRAM_BYTES = 65_535
NOTES_BYTES = socket.CMSG_SPACE(16) + socket.CMSG_SPACE(4)
FLUSH_BYTES = 1 << 20
FLUSH_S = 0.2
LOOK_UP_S = 0.1
STAMPS_PATIENCE_S = 1.0
NOT_ON_ARRIVAL = "the kernel was not seen to stamp packets as they arrive: some may have the time at which they were read"
TIMESPEC = struct.Struct("@qq")
COUNT = struct.Struct("@I")
COUNT_MASK = 0xFFFFFFFF


@dataclass
class Recorded:
    """One line's account: what was written, and what its socket dropped because it was not read in time."""

    address: str
    packets: int = 0
    bytes: int = 0
    drops: int = 0


@dataclass
class Recording:
    """What came of it. `ended` says why; `unstamped` counts packets that the kernel gave no time, which have ours."""

    path: str
    lines: list[Recorded] = field(default_factory=list)
    ended: str = ""
    unstamped: int = 0
    notes: list[str] = field(default_factory=list)

    @property
    def packets(self) -> int:
        return sum(line.packets for line in self.lines)

    @property
    def lost(self) -> int:
        return sum(line.drops for line in self.lines)

    def __str__(self) -> str:
        said = [f"{self.path}: {self.packets} packets, {self.ended}"]
        for line in self.lines:
            said.append(f"{line.address:<22}{line.packets:>10} packets{line.bytes:>14} bytes{line.drops:>10} dropped")
        if self.lost:
            said.append(f"{self.lost} datagrams were dropped before they could be read: give a larger --receive-buffer, or a faster disk")
        if self.unstamped:
            said.append(f"{self.unstamped} packets had no stamp of the kernel: they have the time at which they were read")
        return "\n".join(said + self.notes)

    def to_dict(self) -> dict[str, Any]:
        lines = [dict(vars(line)) for line in self.lines]
        return {
            "capture": self.path, "ended": self.ended, "packets": self.packets, "lost": self.lost, "unstamped": self.unstamped,
            "lines": lines, "notes": self.notes,
        }  # fmt: skip


class WholeRecords:
    """A new pcap file that only ever grows by whole records."""

    def __init__(self, path: Path, *, overwrite: bool) -> None:
        """OSError where it cannot be made; FileExistsError, which says what to do, where it is there and must not be replaced."""
        flags = os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC | (os.O_TRUNC if overwrite else os.O_EXCL)
        try:
            self.fd = os.open(path, flags, 0o644)
        except FileExistsError:
            raise ValueError(f"capture={path}: it exists; expected a new file (--overwrite replaces it)") from None
        self.path = path
        self._size = 0
        self._pending: list[bytes] = [pcap.file_header()]
        self._pending_bytes = len(self._pending[0])
        self._flushed_s = time.monotonic()
        self.flush()

    def add(self, ts_ns: int, frame: bytes) -> None:
        record = pcap.record(ts_ns, frame)
        self._pending.append(record)
        self._pending_bytes += len(record)
        if self._pending_bytes >= FLUSH_BYTES:
            self.flush()

    def flush_if_due(self) -> None:
        if time.monotonic() - self._flushed_s >= FLUSH_S:
            self.flush()

    def flush(self) -> None:
        """Write what is pending. Where it does not fit, the file is cut back to its last whole flush, and the OSError goes on."""
        whole = b"".join(self._pending)
        self._pending, self._pending_bytes = [], 0
        self._flushed_s = time.monotonic()
        rest = memoryview(whole)
        try:
            while rest:
                rest = rest[os.write(self.fd, rest) :]
        except OSError as error:
            os.ftruncate(self.fd, self._size)
            raise OSError(
                error.errno, f"capture={self.path}: {error.strerror}; what was written before, {self._size} bytes, is whole"
            ) from None
        self._size += len(whole)

    def close(self) -> None:
        """What is pending is dropped where it cannot be written: who closes after a failed flush has been told."""
        try:
            self.flush()
        finally:
            os.close(self.fd)


class Recorder:
    """Records until told to stop. Open it before anything is sent: it takes what arrives from then on."""

    def __init__(
        self, path: Path, lines: list[tuple[str, str]], *, receive_buffer_bytes: int, overwrite: bool = False, kernel_stamps: bool = True
    ) -> None:
        """lines are (address, interface). OSError and ValueError name what cannot be joined or written."""
        if len({address for address, _ in lines}) < len(lines):
            raise ValueError(f"--address-b={lines[-1][0]}: it is line A's address too; expected another, or none")
        self.result = Recording(str(path))
        self._numbers = 0
        self._held: list[tuple[int, int, int, bytes]] = []
        with ExitStack() as stack:
            self._lines: list[Line] = []
            self._destinations: list[int] = []
            for address, interface in lines:
                host, _, port = address_text(address_of(address)).rpartition(":")
                line = open_line((host, int(port)), interface, receive_buffer_bytes, 0, kernel_stamps)
                stack.callback(line.close)
                self._lines.append(line)
                self._destinations.append(address_of(address))
                self.result.lines.append(Recorded(address))
                self.result.notes += line.shortfalls
            if kernel_stamps and not stamps_on_arrival(STAMPS_PATIENCE_S):
                self.result.notes.append(NOT_ON_ARRIVAL)
            self._file = WholeRecords(path, overwrite=overwrite)
            stack.callback(self._file.close)
            self._opened = stack.pop_all()

    def __enter__(self) -> "Recorder":
        return self

    def __exit__(self, *_: object) -> None:
        self._opened.close()

    def record(self, *, seconds: float = 0.0, packets: int = 0) -> Recording:
        """Until so many seconds or packets (0: no such end), SIGINT or SIGTERM."""
        result = self.result
        deadline = time.monotonic() + seconds if seconds else None
        with _signals() as asked:
            while not result.ended:
                self._take(packets or None, self._wait(deadline))
                self._file.flush_if_due()
                if asked:
                    result.ended = f"{signal.Signals(asked[0]).name} received"
                elif packets and result.packets >= packets:
                    result.ended = f"{packets} packets are recorded"
                elif deadline is not None and time.monotonic() >= deadline:
                    result.ended = f"{seconds:g} s are over"
            self._take_rest(packets or None)
        for line, recorded in zip(self._lines, result.lines, strict=True):
            recorded.drops = max(recorded.drops, line.drops())
        self._file.flush()
        return result

    def _wait(self, deadline: float | None) -> set[int]:
        """The lines that have something, after a short wait at most."""
        if self._held:
            return set(range(len(self._lines)))
        patience_s = LOOK_UP_S if deadline is None else min(LOOK_UP_S, max(deadline - time.monotonic(), 0))
        ready = select.select([line.socket for line in self._lines], [], [], patience_s)[0]
        return {number for number, line in enumerate(self._lines) if line.socket in ready}

    def _take_rest(self, most: int | None) -> None:
        """What had arrived when the recording was ended still waits in the sockets, and belongs to it."""
        ended_ns = time.time_ns()
        everyone = set(range(len(self._lines)))
        while (most is None or self.result.packets < most) and self._take(most, everyone) < ended_ns:
            pass
        self._write(most, len(self._held))

    def _take(self, most: int | None, ready: set[int]) -> int:
        """Take what waits, and write what is known to be next by its stamp: nothing that is still waiting can be older than the time
        that is returned."""
        limit_ns = time.time_ns()
        for number in ready:
            taken, newest_ns = self._drain(number)
            if taken == BATCH:
                limit_ns = min(limit_ns, newest_ns)
        self._held.sort(key=itemgetter(0))
        self._write(most, sum(1 for held in self._held if held[0] <= limit_ns))
        return limit_ns

    def _write(self, most: int | None, due: int) -> None:
        for ts_ns, number, source, payload in self._held[:due]:
            if most is not None and self.result.packets >= most:
                break
            recorded = self.result.lines[number]
            recorded.packets += 1
            recorded.bytes += len(payload)
            self._numbers += 1
            self._file.add(ts_ns, ethernet_frame(source, self._destinations[number], payload, self._numbers))
        del self._held[:due]

    def _drain(self, number: int) -> tuple[int, int]:
        """Up to BATCH datagrams of a line: how many there were, and the time of the newest."""
        line, recorded = self._lines[number], self.result.lines[number]
        ts_ns = 0
        for taken in range(BATCH):
            try:
                payload, notes, _, sender = line.socket.recvmsg(DATAGRAM_BYTES, NOTES_BYTES)
            except BlockingIOError:
                return taken, ts_ns
            ts_ns = 0
            for _, kind, value in notes:
                if kind == SO_TIMESTAMPNS and len(value) == TIMESPEC.size:
                    ts_ns = _time_of(value)
                elif kind == SO_RXQ_OVFL and len(value) == COUNT.size:
                    recorded.drops = COUNT.unpack(value)[0] & COUNT_MASK
            if not ts_ns:
                self.result.unstamped += 1
                ts_ns = time.time_ns()
            host, port = sender
            self._held.append((ts_ns, number, address_of(f"{host}:{port}"), payload))
        return BATCH, ts_ns


def stamps_on_arrival(patience_s: float) -> bool:
    """Wait until the kernel stamps datagrams as they arrive. It begins a moment after the first socket has asked for it, and what comes
    before is stamped when it is read, which may be in another order. False where that was not seen in time."""
    deadline = time.monotonic() + patience_s
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS, 1)
        probe.settimeout(patience_s)
        try:
            probe.bind(("127.0.0.1", 0))
            while time.monotonic() < deadline:
                probe.sendto(b"", probe.getsockname())
                sent_ns = time.time_ns()
                _, notes, _, _ = probe.recvmsg(1, NOTES_BYTES)
                if any(_time_of(value) < sent_ns for _, kind, value in notes if kind == SO_TIMESTAMPNS):
                    return True
        except OSError:
            pass
    return False


def _time_of(stamp: bytes) -> int:
    seconds, fraction = TIMESPEC.unpack(stamp)
    return seconds * pcap.NS_PER_S + fraction


@contextmanager
def _signals() -> Iterator[list[int]]:
    """SIGINT and SIGTERM as a list of those that came."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        asked.append(number)

    previous = {number: signal.signal(number, note) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield asked
    finally:
        for number, handler in previous.items():
            signal.signal(number, handler)
