"""The sockets of the simulated exchange. Each OSError names the option of ExchangeStage whose address cannot be used, and why."""

import errno
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from ipaddress import IPv4Address

Address = tuple[str, int]

SEND_BYTES = 4 << 20
# Whoever asks for a gap of thousands of messages does so in a burst.
REQUEST_BYTES = 1 << 20


def line_socket(option: str, address: Address, interface: str) -> socket.socket:
    """A connected UDP socket that market data is sent on, to a group through `interface` (a name, or an address of it)."""
    host, port = address
    with _opening(
        socket.SOCK_DGRAM, f"{option}={host}:{port} interface={interface}", "an IPv4 address that can be sent to from here"
    ) as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        if IPv4Address(host).is_multicast:
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, _interface(interface))
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_LOOP, 1)
            made.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_TTL, 1)
        made.connect((host, port))
    return made


def request_socket(option: str, address: Address) -> socket.socket:
    """A UDP socket that requests come to, and from which they are answered."""
    host, port = address
    with _opening(socket.SOCK_DGRAM, f"{option}={host}:{port}", "an IPv4 address of this machine and a free port") as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, REQUEST_BYTES)
        made.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BYTES)
        made.bind((host, port))
    return made


def listening_socket(option: str, address: Address) -> socket.socket:
    """A listening TCP socket whose connections send at once."""
    host, port = address
    with _opening(socket.SOCK_STREAM, f"{option}={host}:{port}", "an IPv4 address of this machine and a free port") as made:
        made.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Accepted sockets inherit it.
        made.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        made.bind((host, port))
        made.listen(64)
    return made


@contextmanager
def _opening(kind: int, what: str, expected: str) -> Iterator[socket.socket]:
    """A socket that does not wait, closed where it cannot be made ready."""
    made = socket.socket(socket.AF_INET, kind)
    try:
        yield made
        made.setblocking(False)
    except (OSError, ValueError, OverflowError) as error:
        made.close()
        if isinstance(error, OSError) and error.errno == errno.EADDRINUSE:
            raise OSError(f"{what}: in use by another program; stop it, or choose another port (0 picks one)") from None
        raise OSError(f"{what}: {error}; expected {expected}") from None


def _interface(interface: str) -> bytes:
    """The value of IP_MULTICAST_IF: an address of the interface, or struct ip_mreqn with its number where it is named."""
    try:
        return socket.inet_aton(interface)
    except OSError:
        return struct.pack("@4s4si", b"", b"", socket.if_nametoindex(interface))
