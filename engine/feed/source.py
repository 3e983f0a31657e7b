"""Opening what a feed handler reads: a UDP socket with its receive buffers, or an ITCH file, plain or through gzip."""

import contextlib
import gzip
import os
import socket
import threading
import zlib
from collections.abc import Callable
from ipaddress import IPv4Address
from pathlib import Path

import numpy as np

from engine.feed.hot.state import (
    CONTROL_WORDS,
    HEADER_CONTROL_BYTES,
    HEADER_WORDS,
    PACKET_BYTES,
    PACKETS_MAX,
    UNZIP_FAILED,
)

# Not in the socket module of Python 3.11.
SO_RCVBUFFORCE = 33
SO_RXQ_OVFL = 40
F_SETPIPE_SZ = 1031
PIPE_BYTES = 1 << 20
FILE_BUFFER_BYTES = 4 << 20
GZIP_MAGIC = b"\x1f\x8b"
UNZIP_BYTES = 1 << 18


def open_socket(address: tuple[str, int], interface: str, receive_buffer_bytes: int) -> tuple[socket.socket, int]:
    """A bound, non-blocking UDP socket, joined to its group on `interface` where the address is multicast.

    Returns it with the receive buffer it really got, in bytes: without root the kernel gives at most net.core.rmem_max. OSError
    names the address that cannot be bound or joined.
    """
    host, port = address
    udp = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    try:
        udp.setblocking(False)
        _enlarge(udp, receive_buffer_bytes)
        udp.setsockopt(socket.SOL_SOCKET, SO_RXQ_OVFL, 1)
        if IPv4Address(host).is_multicast:
            udp.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            udp.bind((host, port))
            udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(host) + socket.inet_aton(interface))
        else:
            udp.bind((host, port))
    except OSError as error:
        udp.close()
        raise OSError(error.errno, f"feed address={host}:{port} interface={interface}: cannot receive there: {error.strerror}") from None
    # The kernel reports twice what it was asked for, half of it for its own bookkeeping.
    return udp, udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2


def _enlarge(udp: socket.socket, wanted: int) -> None:
    udp.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, wanted)
    if udp.getsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF) // 2 < wanted:
        # Only root may have more than net.core.rmem_max.
        with contextlib.suppress(PermissionError):
            udp.setsockopt(socket.SOL_SOCKET, SO_RCVBUFFORCE, wanted)


class PacketBuffers:
    """Memory that recvmmsg fills: `buffer` uint8, a place of PACKET_BYTES for each packet; `headers`, struct mmsghdr as int64 words;
    `notes`, a control message for each packet, in which the kernel counts what the socket dropped."""

    def __init__(self) -> None:
        self.buffer = np.zeros(PACKETS_MAX * PACKET_BYTES, np.uint8)
        self.notes = np.zeros(PACKETS_MAX * CONTROL_WORDS, np.int64)
        self.headers = np.zeros(PACKETS_MAX * HEADER_WORDS, np.int64)
        self._pieces = np.zeros(PACKETS_MAX * 2, np.int64)
        for packet in range(PACKETS_MAX):
            self._pieces[2 * packet] = self.buffer.ctypes.data + packet * PACKET_BYTES
            self._pieces[2 * packet + 1] = PACKET_BYTES
            header = self.headers[packet * HEADER_WORDS :]
            header[2] = self._pieces.ctypes.data + packet * 16
            header[3] = 1
            header[4] = self.notes.ctypes.data + packet * CONTROL_WORDS * 8
            header[HEADER_CONTROL_BYTES] = CONTROL_WORDS * 8


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
