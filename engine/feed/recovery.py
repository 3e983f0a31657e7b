"""How a feed handler gets back what it lost, as plain values: engine/runtime/config.py reads them from TOML."""

import errno
import socket
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from engine.feed.glimpse import FIRST_SEQUENCE
from engine.feed.hot import state
from engine.feed.hot.receive import LINES_MAX
from engine.wire.credentials import LOGIN_PAIR_AT, Credentials
from engine.wire.soupbintcp import CLIENT_HEARTBEAT, LENGTH_BYTES, LOGIN_REQUEST

Address = tuple[str, int]
REWIND_SERVERS_MAX = LINES_MAX - state.LINE_REWIND


@dataclass(frozen=True)
class Recovery:
    """window_messages, a power of two, is how many may wait for those before them. A hole is waited for reorder_us; then the rewind
    servers are asked for up to request_messages_max messages at a time, at most once in request_interval_us, each request_tries times
    in a row with request_timeout_ms for an answer. Above gap_messages_max, or when all that failed, the snapshot server is asked."""

    window_messages: int = 1 << 16
    reorder_us: int = 500
    rewind: Sequence[Address] = ()
    request_messages_max: int = 1_000
    request_interval_us: int = 200
    request_timeout_ms: int = 20
    request_tries: int = 3
    gap_messages_max: int = 1 << 15
    snapshot: Address | None = None
    snapshot_credentials: Credentials | None = None
    snapshot_timeout_ms: int = 10_000
    snapshot_tries: int = 10

    def __post_init__(self) -> None:
        """ValueError for what no feed handler can work with."""
        if self.window_messages < 2 or self.window_messages & (self.window_messages - 1):
            raise ValueError(f"feed.recovery window_messages={self.window_messages}: expected a power of two")
        if len(self.rewind) > REWIND_SERVERS_MAX:
            raise ValueError(f"feed.recovery rewind={list(self.rewind)}: expected at most {REWIND_SERVERS_MAX} servers")

    def write(self, words: np.ndarray, buffer: np.ndarray) -> None:
        """Set the words that the kernels go by, and put what they send where they look for it."""
        login = _packet(LOGIN_REQUEST.encode(username="", password="", session="", sequence=str(FIRST_SEQUENCE).rjust(20)))
        words[state.LOGIN_BYTES] = len(login)
        for at, raw in ((state.LOGIN_AT, login), (state.LOGIN_HEARTBEAT_AT, _packet(bytes([CLIENT_HEARTBEAT])))):
            buffer[at : at + len(raw)] = np.frombuffer(raw, np.uint8)
        if self.snapshot_credentials is not None:
            self.snapshot_credentials.put(buffer, int(state.LOGIN_AT) + LOGIN_PAIR_AT)
        words[state.REORDER_NS] = self.reorder_us * 1_000
        words[state.REQUEST_MESSAGES_MAX] = self.request_messages_max
        words[state.REQUEST_INTERVAL_NS] = self.request_interval_us * 1_000
        words[state.REQUEST_TIMEOUT_NS] = self.request_timeout_ms * 1_000_000
        words[state.REQUEST_TRIES] = self.request_tries
        words[state.GAP_MESSAGES_MAX] = self.gap_messages_max
        words[state.SERVERS] = len(self.rewind)
        words[state.SERVER] = state.LINE_REWIND
        words[state.SNAPSHOT_AVAILABLE] = self.snapshot is not None
        words[state.SNAPSHOT_TIMEOUT_NS] = self.snapshot_timeout_ms * 1_000_000
        words[state.SNAPSHOT_TRIES] = self.snapshot_tries


def _packet(payload: bytes) -> bytes:
    return len(payload).to_bytes(LENGTH_BYTES, "big") + payload


def begin_connection(address: Address) -> int:
    """The descriptor of a connection to a snapshot server that is on its way: whether it arrives, sending through it will tell. -1 where
    there is no way at all. The caller closes it."""
    made = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
    try:
        made.setblocking(False)
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if made.connect_ex(address) not in (0, errno.EINPROGRESS):
            return -1
        return made.detach()
    finally:
        made.close()
