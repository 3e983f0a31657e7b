"""Opening what a feed handler reads: a UDP socket with its receive buffers, or an ITCH file, plain or through gzip."""

import contextlib
import errno
import gzip
import os
import socket
import struct
import threading
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from engine.feed.hot.receive import (
    HEADER_CONTROL_BYTES,
    HEADER_WORDS,
    NOTE_BYTES,
    NOTE_WORDS,
    PACKET_BYTES,
    PACKETS_MAX,
    Sockets,
)
from engine.feed.hot.state import UNZIP_FAILED
from engine.feed.pcap import GZIP_MAGIC
from engine.wire.credentials import undumped

# Not in the socket module of Python 3.11.
SO_BINDTODEVICE = 25
SO_RCVBUFFORCE = 33
SO_TIMESTAMPNS = 35
SO_RXQ_OVFL = 40
SO_BUSY_POLL = 46
SO_MEMINFO = 55
IP_ADD_SOURCE_MEMBERSHIP = 39
MCAST_JOIN_SOURCE_GROUP = 46
IP_MULTICAST_ALL = 49
SOCKADDR_STORAGE_BYTES = 128
# Nine u32, the last of which counts the drops (linux/sock_diag.h, SK_MEMINFO_DROPS).
MEMINFO_BYTES = 36
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
FILE_BUFFER_BYTES = 4 << 20
UNZIP_BYTES = 1 << 18


@dataclass(frozen=True)
class Line:
    """An open socket that packets come from, and what the kernel really granted it.

    receive_buffer_bytes and busy_poll_us are read back from the socket; kernel_stamps says whether they come. `shortfalls` are
    sentences about what is less than was asked for, each with what cures it.
    """

    socket: socket.socket
    address: str
    receive_buffer_bytes: int
    busy_poll_us: int
    kernel_stamps: bool
    shortfalls: tuple[str, ...]

    def drops(self) -> int:
        """How many datagrams the socket has dropped up to now, modulo 2^32, or -1 where its stack does not say."""
        try:
            told = self.socket.getsockopt(socket.SOL_SOCKET, SO_MEMINFO, MEMINFO_BYTES)
        except OSError:
            return -1
        return int.from_bytes(told[-4:], "little") if len(told) == MEMINFO_BYTES else -1

    def close(self) -> None:
        self.socket.close()


def open_line(
    address: tuple[str, int],
    interface: str,
    receive_buffer_bytes: int,
    busy_poll_us: int = 0,
    kernel_stamps: bool = False,
    sender: str = "",
) -> Line:
    """A bound, non-blocking UDP socket. Where its address is multicast it joins that group on `interface`, an address of this box or
    the name of a network interface, and takes nothing of other groups or other interfaces; `sender` takes only what this source sends.

    A unicast address says by itself where it is; an interface that is named is then the only one that packets are taken from.
    Several sockets may join one group and port; each gets every packet. OSError names what cannot be bound or joined.
    """
    host, port = address
    label = f"{host}:{port}"
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        shortfalls = _ask_for_all(udp, label, receive_buffer_bytes, busy_poll_us, kernel_stamps)
        if IPv4Address(host).is_multicast:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if not _asked(udp, socket.IPPROTO_IP, IP_MULTICAST_ALL, 0):
                shortfalls.append(f"feed address={label}: this stack also hands over what other sockets joined (IP_MULTICAST_ALL)")
            udp.bind((host, port))
            _join(udp, host, interface, sender)
        else:
            if not _is_address(interface):
                udp.setsockopt(socket.SOL_SOCKET, SO_BINDTODEVICE, interface.encode())
            udp.bind((host, port))
    except OSError as error:
        udp.close()
        text = f"feed address={label} interface={interface}: cannot receive there: {_because(error)}"
        raise OSError(error.errno or errno.ENODEV, text) from None
    return _granted(udp, label, shortfalls)


def open_requests(address: tuple[str, int], receive_buffer_bytes: int = 4 << 20) -> Line:
    """A non-blocking UDP socket connected to a rewind server: requests are sent through it, and only that server's answers arrive.

    A server that is not there is not an error: it may come. OSError where the address has no route.
    """
    host, port = address
    label = f"{host}:{port}"
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        shortfalls = _ask_for_all(udp, label, receive_buffer_bytes, 0, False)
        udp.connect((host, port))
    except OSError as error:
        udp.close()
        raise OSError(error.errno, f"feed.recovery rewind={label}: cannot send there: {error.strerror}") from None
    return _granted(udp, label, shortfalls)


def _ask_for_all(udp: socket.socket, label: str, receive_buffer_bytes: int, busy_poll_us: int, kernel_stamps: bool) -> list[str]:
    """Set the options that make a socket faster or more talkative. None of them is worth not starting for: a stack that bypasses the
    kernel knows few of them. Sentences about those it refused."""
    shortfalls = []
    _enlarge(udp, receive_buffer_bytes)
    got = _receive_buffer_bytes(udp)
    if got < receive_buffer_bytes:
        shortfalls.append(
            f"feed address={label}: receive_buffer_bytes={got}, {receive_buffer_bytes} were asked for: "
            f"sysctl -w net.core.rmem_max={receive_buffer_bytes}, or start with CAP_NET_ADMIN"
        )
    if not _asked(udp, socket.SOL_SOCKET, SO_RXQ_OVFL, 1):
        shortfalls.append(f"feed address={label}: this stack does not tell what a socket dropped (SO_RXQ_OVFL): only gaps show losses")
    if busy_poll_us and not _asked(udp, socket.SOL_SOCKET, SO_BUSY_POLL, busy_poll_us):
        shortfalls.append(
            f"feed address={label}: busy_poll_us={_busy_poll_us(udp)}, {busy_poll_us} were asked for: "
            f"sysctl -w net.core.busy_read={busy_poll_us}, or start with CAP_NET_ADMIN"
        )
    if kernel_stamps and not _asked(udp, socket.SOL_SOCKET, SO_TIMESTAMPNS, 1):
        shortfalls.append(f"feed address={label}: this stack does not stamp packets (SO_TIMESTAMPNS): the first hop stays empty")
    return shortfalls


def _asked(udp: socket.socket, level: int, option: int, value: int) -> bool:
    """Whether an option was taken."""
    try:
        udp.setsockopt(level, option, value)
    except OSError:
        return False
    return True


def _enlarge(udp: socket.socket, wanted: int) -> None:
    _asked(udp, socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    if _receive_buffer_bytes(udp) < wanted:
        # Only CAP_NET_ADMIN may have more than net.core.rmem_max.
        _asked(udp, socket.SOL_SOCKET, SO_RCVBUFFORCE, wanted)


def _receive_buffer_bytes(udp: socket.socket) -> int:
    # The kernel reports twice what it was asked for, half of it for its own bookkeeping.
    return udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _busy_poll_us(udp: socket.socket) -> int:
    try:
        return udp.getsockopt(socket.SOL_SOCKET, SO_BUSY_POLL)
    except OSError:
        return 0


def _is_address(interface: str) -> bool:
    try:
        IPv4Address(interface)
    except ValueError:
        return False
    return True


def _join(udp: socket.socket, group: str, interface: str, sender: str) -> None:
    """Join a group: struct ip_mreqn (group, address of an interface, its index), or with one sender struct ip_mreq_source."""
    if _is_address(interface):
        local, index = socket.inet_aton(interface), 0
    else:
        local, index = bytes(4), socket.if_nametoindex(interface)
    if not sender:
        udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(group) + local + struct.pack("=i", index))
    elif index == 0:
        udp.setsockopt(socket.IPPROTO_IP, IP_ADD_SOURCE_MEMBERSHIP, socket.inet_aton(group) + local + socket.inet_aton(sender))
    else:
        request = struct.pack("=I4x", index) + _storage(group) + _storage(sender)
        udp.setsockopt(socket.IPPROTO_IP, MCAST_JOIN_SOURCE_GROUP, request)


def _storage(host: str) -> bytes:
    """An IPv4 address as a struct sockaddr_storage."""
    return struct.pack("=H2x", socket.AF_INET) + socket.inet_aton(host) + bytes(SOCKADDR_STORAGE_BYTES - 8)


def _because(error: OSError) -> str:
    if error.errno == errno.ENODEV or "interface" in str(error):
        return "no interface has this name or address; `ip address` lists those there are"
    return error.strerror or str(error)


def _granted(udp: socket.socket, label: str, shortfalls: list[str]) -> Line:
    try:
        stamps = udp.getsockopt(socket.SOL_SOCKET, SO_TIMESTAMPNS) == 1
    except OSError:
        stamps = False
    return Line(
        socket=udp,
        address=label,
        receive_buffer_bytes=_receive_buffer_bytes(udp),
        busy_poll_us=_busy_poll_us(udp),
        kernel_stamps=stamps,
        shortfalls=tuple(shortfalls),
    )


class PacketBuffers:
    """Memory that recvmmsg fills, for `lines` lines: `buffer` uint8, and `sockets`, as engine/feed/hot/receive.py draws them. Behind the
    packets the buffer has spare_bytes for whoever wants to put something beside them."""

    def __init__(self, lines: int = 1, spare_bytes: int = 0) -> None:
        places = lines * PACKETS_MAX
        # A login stands in the spare bytes (engine/feed/recovery.py).
        self.buffer = undumped(places * PACKET_BYTES + spare_bytes, places * PACKET_BYTES)
        self.notes = np.zeros(places * NOTE_WORDS, np.int64)
        self.headers = np.zeros(places * HEADER_WORDS, np.int64)
        self._pieces = np.zeros(places * 2, np.int64)
        for place in range(places):
            self._pieces[2 * place] = self.buffer.ctypes.data + place * PACKET_BYTES
            self._pieces[2 * place + 1] = PACKET_BYTES
            header = self.headers[place * HEADER_WORDS :]
            header[2] = self._pieces.ctypes.data + place * 16
            header[3] = 1
            header[4] = self.notes.ctypes.data + place * NOTE_BYTES
            header[HEADER_CONTROL_BYTES] = NOTE_BYTES
        self.sockets = Sockets(
            fds=np.full(lines, -1, np.int64),
            headers=self.headers,
            notes=self.notes,
            filled=np.zeros(lines, np.int64),
            taken=np.zeros(lines, np.int64),
            received_tsc=np.zeros(lines, np.int64),
            stamped=np.zeros(lines, np.int64),
            received_ns=np.zeros(lines, np.int64),
            calls=np.zeros(lines, np.int64),
            troubles=np.zeros(lines, np.int64),
            moment=np.zeros(2, np.int64),
        )

    def attach(self, number: int, fd: int, *, kernel_stamps: bool = False) -> None:
        """Let line `number` receive from a socket, which stays the caller's to close."""
        self.sockets.fds[number] = fd
        self.sockets.stamped[number] = kernel_stamps

    def detach(self, number: int) -> None:
        self.sockets.fds[number] = -1


class ItchFile:
    """An ITCH file opened for a kernel to read from `fd`. `on_error` is called, from a thread, when unzipping fails."""

    def __init__(self, path: Path, words: np.ndarray, on_error: Callable[[str], None]) -> None:
        """OSError where it cannot be read, ValueError where its name says gzip and its bytes do not."""
        self._stop = threading.Event()
        self._thread: threading.Thread | None = None
        if path.is_dir():
            raise ValueError(f"feed path={path}: it is a directory, expected an ITCH file")
        with path.open("rb") as file:
            zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
        if path.suffix == ".gz" and not zipped:
            raise ValueError(f"feed path={path}: expected gzip, as its name says, and it does not begin with 1f 8b")
        if not zipped:
            self.fd = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
            return
        self.fd, into = os.pipe2(os.O_CLOEXEC)
        os.set_blocking(self.fd, False)
        with contextlib.suppress(OSError):
            import fcntl

            fcntl.fcntl(self.fd, F_SETPIPE_SZ, PIPE_BYTES)
        self._thread = threading.Thread(target=self._unzip, args=(path, into, words, on_error), name="unzip", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        os.close(self.fd)
        if self._thread is not None:
            self._thread.join()

    def _unzip(self, path: Path, into: int, words: np.ndarray, on_error: Callable[[str], None]) -> None:
        """Unzip into the pipe. It ends with the file, with the reader (EPIPE), or with an error that is told before the pipe closes."""
        try:
            # Not where the kernel spins: any other CPU of the machine.
            with contextlib.suppress(OSError):
                os.sched_setaffinity(0, range(os.cpu_count() or 1))
            with gzip.open(path, "rb") as file:
                while not self._stop.is_set() and (piece := file.read(UNZIP_BYTES)):
                    _write_all(into, piece)
        except BrokenPipeError:
            pass
        except (OSError, EOFError, zlib.error) as error:
            on_error(f"feed path={path}: the gzip stream is damaged or cut short: {error}")
            words[UNZIP_FAILED] = 1
        finally:
            os.close(into)


def _write_all(fd: int, piece: bytes) -> None:
    rest = memoryview(piece)
    while rest:
        rest = rest[os.write(fd, rest) :]
