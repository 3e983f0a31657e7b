"""Ports for tests: below those that the kernel hands out by itself, and for each test worker from a range of its own.

A port is looked for before the process that will open it has started. One that the kernel chose could be chosen again meanwhile, by
the tests beside us or by a connection that somebody opens.
"""

import itertools
import os
import socket
from contextlib import ExitStack

FIRST = 10_000
# Where the kernel's own begin (net.ipv4.ip_local_port_range) on a machine that nobody changed.
END = 32_000
WORKERS_MAX = 16
RANGE = (END - FIRST) // WORKERS_MAX

_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % WORKERS_MAX
# Two sessions on one machine begin at different places.
_NEXT = itertools.count(os.getpid() * 37)


def free_port(kind: socket.SocketKind = socket.SOCK_DGRAM) -> int:
    """A port of 127.0.0.1 that nobody has open, and that no other test is told of."""
    return free_block(1, (kind,))


def free_block(count: int, kinds: tuple[socket.SocketKind, ...] = (socket.SOCK_DGRAM, socket.SOCK_STREAM)) -> int:
    """The first of so many free ports in a row."""
    for _ in range(RANGE):
        first = FIRST + _WORKER * RANGE + next(_NEXT) % (RANGE - count + 1)
        try:
            with ExitStack() as held:
                for port, kind in itertools.product(range(first, first + count), kinds):
                    held.enter_context(socket.socket(socket.AF_INET, kind)).bind(("127.0.0.1", port))
        except OSError:
            continue
        for _ in range(count - 1):
            next(_NEXT)
        return first
    raise AssertionError(f"no {count} free ports in a row")
