"""The shared memory of one instance: every ring, table and board, made together and removed together."""

import contextlib
import fcntl
import os
import struct
import time

import numpy as np

import engine
from engine.layout import (
    CONTROL,
    EXCHANGE_STATS,
    FEED_STATS,
    GATEWAY_STATS,
    INSTRUMENT,
    INSTRUMENTS_MAX,
    ORDERS,
    POSITION,
    PROCESS,
    QUOTE,
    REPORTS,
    STRATEGY_STATS,
    TICKS,
)
from engine.runtime.config import RingsConfig
from shm import segment
from shm.layout import HISTOGRAM, IDENTITY
from shm.ring import Ring
from shm.segment import SegmentError
from shm.table import Board, Table

PROCESSES_MAX = 8

# Where each latency is measured, in the order of the path (the row of the hops table).
HOPS = (
    ("packet_to_tick", "packet received to tick published: decode, book"),
    ("tick_ring", "tick published to tick polled by the strategy"),
    ("decision", "tick polled to order published: the strategy's handler"),
    ("order_ring", "order published to order polled by the gateway"),
    ("risk_encode", "order polled to bytes ready: every risk check, encoding"),
    ("send", "the send system call"),
    ("exchange_to_report", "order sent to its first report received"),
    ("tick_to_order", "packet received to order sent: the whole path"),
)


class Instance:
    """One instance's segments. `create` owns the name until `unlink`; the kernel frees it when every process is gone."""

    def __init__(self, name: str, rings: RingsConfig) -> None:
        self.name = name
        self.build = engine.build_hash()
        self.control = self._table("control", CONTROL)
        lock_owner(self.control.segment.fd)
        self.processes = self._table("processes", PROCESS, PROCESSES_MAX)
        self.feed_stats = self._table("feed.stats", FEED_STATS)
        self.strategy_stats = self._table("strategy.stats", STRATEGY_STATS)
        self.gateway_stats = self._table("gateway.stats", GATEWAY_STATS)
        self.exchange_stats = self._table("exchange.stats", EXCHANGE_STATS)
        self.hops = self._table("hops", HISTOGRAM, len(HOPS))
        self.quotes = self._board("quotes", QUOTE)
        self.instruments = self._board("instruments", INSTRUMENT)
        self.positions = self._board("positions", POSITION)
        self.exchange_positions = self._board("exchange.positions", POSITION)
        self.ticks = self._ring("ticks", rings.ticks, TICKS, "strategy")
        self.orders = self._ring("orders", rings.orders, ORDERS, "gateway")
        self.reports = self._ring("reports", rings.reports, REPORTS, "strategy")

    @classmethod
    def create(cls, name: str, rings: RingsConfig) -> "Instance":
        """Make every segment of instance `name`, after removing what a dead one left. SegmentError where it is alive."""
        remove_dead(name)
        try:
            return cls(name, rings)
        except BaseException:
            remove(name)
            raise

    def unlink(self) -> None:
        remove(self.name)

    def _table(self, name: str, dtype: np.dtype, capacity: int = 1) -> Table:
        return Table.create(f"{self.name}.{name}", dtype, capacity, build_hash=self.build)

    def _board(self, name: str, dtype: np.dtype) -> Board:
        return Board.create(f"{self.name}.{name}", dtype, INSTRUMENTS_MAX, build_hash=self.build)

    def _ring(self, name: str, capacity: int, variants: dict[str, np.dtype], reader: str) -> Ring:
        return Ring.create(f"{self.name}.{name}", capacity, variants, [reader], build_hash=self.build)


def remove(name: str) -> None:
    """Unlink every segment of instance `name`."""
    for found in segment.names(f"{name}."):
        segment.unlink(found)


def remove_dead(name: str) -> list[str]:
    """Unlink what a dead instance of this name left behind and return the names. SegmentError where it is alive."""
    left = segment.names(f"{name}.")
    if left and (owner := living_owner(name)):
        raise SegmentError(
            f"instance={name}: it is running already (pid {owner}); stop it, or give this one another `instance` name in its config"
        )
    for found in left:
        segment.unlink(found)
    return left


def living_owner(name: str) -> int:
    """The supervisor's pid of a living instance; 0 where nobody holds it.

    An instance is created a moment before it is locked, so one that looks dead is looked at again before it is believed.
    """
    path = segment.SHM / f"{name}.control"
    deadline = time.monotonic() + 0.2
    while path.exists():
        with contextlib.suppress(OSError), path.open("rb") as file:
            if is_locked(file.fileno()):
                return _supervisor(file.fileno()) or -1
        if time.monotonic() > deadline:
            return 0
        time.sleep(0.02)
    return 0


def lock_owner(fd: int) -> None:
    """Hold the instance by an OFD lock on its control segment: shared with forked children, freed when the last of them dies."""
    try:
        fcntl.fcntl(fd, fcntl.F_OFD_SETLK, _whole_file(fcntl.F_WRLCK))
    except OSError as error:
        raise SegmentError(
            f"cannot lock the control segment: {error.strerror}; another process took the instance at the same moment"
        ) from None


def is_locked(fd: int) -> bool:
    answer = fcntl.fcntl(fd, fcntl.F_OFD_GETLK, _whole_file(fcntl.F_WRLCK))
    return struct.unpack("hhqqi4x", answer)[0] != fcntl.F_UNLCK


def _whole_file(kind: int) -> bytes:
    return struct.pack("hhqqi4x", kind, os.SEEK_SET, 0, 0, 0)


def _supervisor(fd: int) -> int:
    """The pid of whoever created the control segment, out of its identity block."""
    raw = os.pread(fd, IDENTITY.itemsize, 0)
    return int(np.frombuffer(raw, IDENTITY)[0]["creator_pid"]) if len(raw) == IDENTITY.itemsize else 0
