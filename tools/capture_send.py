"""`tickpath capture send`: the datagrams of a capture out of a socket again, with their own timing, scaled, or flat out."""

import errno
import socket
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path

from engine.feed.capture import Capture, NotTheFeed, chosen_lines, find_lines
from engine.feed.frames import address_of, address_text

# Nearer than this, waiting is spinning: a sleep takes as long.
SPIN_NS = 100_000
SLEEP_S_MAX = 0.05


@dataclass
class Sent:
    """What came of it: datagrams and bytes sent, those that went elsewhere in the capture, and how late the latest one was."""

    packets: int = 0
    bytes: int = 0
    elsewhere: int = 0
    late_ns_max: int = 0
    seconds: float = 0.0
    interrupted: bool = False

    def __str__(self) -> str:
        late = f", at most {self.late_ns_max / 1e3:.0f} us late" if self.late_ns_max else ""
        return f"sent {self.packets} packets, {self.bytes} bytes in {self.seconds:.3f} s{late}" + "; interrupted" * self.interrupted

    def to_dict(self) -> dict[str, int | float | bool]:
        return dict(vars(self))


@dataclass(frozen=True)
class Route:
    """Where a line of the capture goes: (line's destination in the capture, where to send it)."""

    line: int
    target: tuple[str, int]


def routes(path: Path, to: str, to_b: str, line_a: str, line_b: str) -> list[Route]:
    """Which destination of the capture goes where. ValueError names what is not in it, or what does not go together."""
    if line_b and not line_a:
        raise ValueError(f"--line-b={line_b}: expected --line-a as well, so that both lines are named")
    to_address, to_address_b = _target("--to", to), _target("--to-b", to_b) if to_b else None
    try:
        lines = chosen_lines(path, line_a, line_b, ("--line-a", "--line-b")) if line_a else find_lines(path)
    except NotTheFeed as error:
        raise ValueError(f"{error}; choose among them with --line-a") from None
    if to_b and lines.b is None:
        raise ValueError(f"--to-b={to_b}: the capture {path} has one line only, {address_text(lines.a)}; name a second one with --line-b")
    found = [Route(lines.a, to_address)]
    if to_address_b is not None and lines.b is not None:
        found.append(Route(lines.b, to_address_b))
    return found


def send(path: Path, routed: list[Route], *, speed: float, interface: str, ttl: int, sent: Sent) -> Iterator[str]:
    """Send, counting into `sent`; then sentences about what was not sent. OSError where the network refuses."""
    targets = {route.line: route.target for route in routed}
    began_ns, first_ns, last_ns = time.monotonic_ns(), -1, 0
    with ExitStack() as stack:
        capture = stack.enter_context(Capture(path))
        out = stack.enter_context(_socket(interface, ttl, [route.target for route in routed]))
        try:
            for ts_ns, _, destination, payload in capture.read():
                target = targets.get(destination)
                if target is None:
                    sent.elsewhere += 1
                    continue
                first_ns = ts_ns if first_ns < 0 else first_ns
                last_ns = max(last_ns, ts_ns)
                if speed:
                    sent.late_ns_max = max(sent.late_ns_max, _wait_until(began_ns + int((last_ns - first_ns) / speed)))
                out.sendto(payload, target)
                sent.packets += 1
                sent.bytes += len(payload)
        except KeyboardInterrupt:
            sent.interrupted = True
        except OSError as error:
            raise OSError(error.errno, f"sending packet {sent.packets + 1} of {path}: {error.strerror}") from None
        finally:
            sent.seconds = (time.monotonic_ns() - began_ns) / 1e9
    if sent.elsewhere:
        yield f"{sent.elsewhere} datagrams to other destinations: not sent (--line-a and --line-b choose)"
    yield from capture.passed_over()


def _wait_until(due_ns: int) -> int:
    """Wait for the monotonic clock: how late it was then, in ns."""
    while (ahead_ns := due_ns - time.monotonic_ns()) > 0:
        if ahead_ns > SPIN_NS:
            time.sleep(min((ahead_ns - SPIN_NS) / 1e9, SLEEP_S_MAX))
    return -ahead_ns


def _target(option: str, text: str) -> tuple[str, int]:
    host, _, port = address_text(address_of(text)).rpartition(":")
    if int(port) == 0:
        raise ValueError(f"{option}={text}: expected a port from 1 to 65535")
    return host, int(port)


def _socket(interface: str, ttl: int, targets: list[tuple[str, int]]) -> socket.socket:
    out = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    if any(IPv4Address(host).is_multicast for host, _ in targets):
        out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, ttl)
        try:
            out.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _leaving_by(interface))
        except OSError as error:
            out.close()
            raise OSError(
                error.errno or errno.ENODEV,
                f"interface={interface}: cannot send there: {error.strerror or error}; expected the name or an address of an interface",
            ) from None
    return out


def _leaving_by(interface: str) -> bytes:
    """struct ip_mreqn for an interface given by name or address."""
    try:
        return bytes(4) + IPv4Address(interface).packed + bytes(4)
    except AddressValueError:
        return bytes(8) + socket.if_nametoindex(interface).to_bytes(4, sys.byteorder)
