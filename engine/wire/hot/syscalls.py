"""System calls for kernels. libc's symbols are resolved by name, which keeps the kernels cacheable.

Each takes a uint8 array and an offset into it, and returns what the call returned, or -errno. Under NUMBA_DISABLE_JIT=1 the
same libc functions are called through ctypes.
"""

import ctypes
import errno
import os

from numba import config, njit, types

AGAIN = -errno.EAGAIN
INTERRUPTED = -errno.EINTR
CONNECTION_REFUSED = -errno.ECONNREFUSED
HOST_UNREACHABLE = -errno.EHOSTUNREACH
NETWORK_UNREACHABLE = -errno.ENETUNREACH
NETWORK_DOWN = -errno.ENETDOWN

MSG_DONTWAIT = 0x40
MSG_NOSIGNAL = 0x4000
SOCK_NONBLOCK = 0o4000
# A peer: struct sockaddr_in in two int64 words, and how many bytes of it there are.
ADDRESS_BYTES = 16
PEER_SIZE = 2
PEER_WORDS = 3
SOCK_CLOEXEC = 0o2000000
CLOCK_REALTIME = 0

if config.DISABLE_JIT:
    _LIBC = ctypes.CDLL(None, use_errno=True)
    for _name in ("recv", "send", "read", "recvfrom", "sendto"):
        getattr(_LIBC, _name).restype = ctypes.c_ssize_t

    def _result(value):
        return value if value >= 0 else -ctypes.get_errno()

    def recv_bytes(fd, buffer, at, size):
        return _result(_LIBC.recv(int(fd), ctypes.c_void_p(buffer.ctypes.data + int(at)), ctypes.c_size_t(int(size)), MSG_DONTWAIT))

    def send_bytes(fd, buffer, at, size):
        flags = MSG_DONTWAIT | MSG_NOSIGNAL
        return _result(_LIBC.send(int(fd), ctypes.c_void_p(buffer.ctypes.data + int(at)), ctypes.c_size_t(int(size)), flags))

    def recv_from(fd, buffer, at, size, peer):
        peer[PEER_SIZE] = ADDRESS_BYTES
        into, whom = ctypes.c_void_p(buffer.ctypes.data + int(at)), peer.ctypes.data
        size_at = ctypes.c_void_p(whom + 8 * PEER_SIZE)
        return _result(_LIBC.recvfrom(int(fd), into, ctypes.c_size_t(int(size)), MSG_DONTWAIT, ctypes.c_void_p(whom), size_at))

    def send_to(fd, buffer, at, size, peer):
        flags = MSG_DONTWAIT | MSG_NOSIGNAL
        what, whom = ctypes.c_void_p(buffer.ctypes.data + int(at)), ctypes.c_void_p(peer.ctypes.data)
        return _result(_LIBC.sendto(int(fd), what, ctypes.c_size_t(int(size)), flags, whom, int(peer[PEER_SIZE])))

    def read_bytes(fd, buffer, at, size):
        return _result(_LIBC.read(int(fd), ctypes.c_void_p(buffer.ctypes.data + int(at)), ctypes.c_size_t(int(size))))

    def recv_packets(fd, headers, count):
        return _result(_LIBC.recvmmsg(int(fd), ctypes.c_void_p(headers.ctypes.data), int(count), MSG_DONTWAIT, None))

    def wall_clock_ns(moment):
        _LIBC.clock_gettime(CLOCK_REALTIME, ctypes.c_void_p(moment.ctypes.data))
        return int(moment[0]) * 1_000_000_000 + int(moment[1])

    def accept_socket(fd):
        return _result(_LIBC.accept4(int(fd), None, None, SOCK_NONBLOCK | SOCK_CLOEXEC))

    def close_fd(fd):
        return _result(_LIBC.close(int(fd)))

    def yield_core():
        os.sched_yield()

    def sleep_us(microseconds):
        _LIBC.usleep(int(microseconds))

else:
    _recv = types.ExternalFunction("recv", types.intp(types.int32, types.voidptr, types.uintp, types.int32))
    _send = types.ExternalFunction("send", types.intp(types.int32, types.voidptr, types.uintp, types.int32))
    _recvfrom = types.ExternalFunction(
        "recvfrom", types.intp(types.int32, types.voidptr, types.uintp, types.int32, types.voidptr, types.voidptr)
    )
    _sendto = types.ExternalFunction(
        "sendto", types.intp(types.int32, types.voidptr, types.uintp, types.int32, types.voidptr, types.uint32)
    )
    _read = types.ExternalFunction("read", types.intp(types.int32, types.voidptr, types.uintp))
    _recvmmsg = types.ExternalFunction("recvmmsg", types.int32(types.int32, types.voidptr, types.uint32, types.int32, types.uintp))
    _accept4 = types.ExternalFunction("accept4", types.int32(types.int32, types.uintp, types.uintp, types.int32))
    _clock_gettime = types.ExternalFunction("clock_gettime", types.int32(types.int32, types.voidptr))
    _close = types.ExternalFunction("close", types.int32(types.int32))
    _usleep = types.ExternalFunction("usleep", types.int32(types.uint32))
    _sched_yield = types.ExternalFunction("sched_yield", types.int32())
    _errno_location = types.ExternalFunction("__errno_location", types.CPointer(types.int32)())

    @njit(cache=True, _nrt=False)
    def _errno():
        return int(_errno_location()[0])

    @njit(cache=True, _nrt=False)
    def recv_bytes(fd, buffer, at, size):
        """Receive up to `size` bytes into buffer[at:], without waiting."""
        got = _recv(fd, buffer[at:].ctypes, size, MSG_DONTWAIT)
        return got if got >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def send_bytes(fd, buffer, at, size):
        """Send buffer[at:at + size], without waiting; what did not fit is the caller's to keep."""
        sent = _send(fd, buffer[at:].ctypes, size, MSG_DONTWAIT | MSG_NOSIGNAL)
        return sent if sent >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def recv_from(fd, buffer, at, size, peer):
        """recv_bytes, with the sender's IPv4 address put into `peer`, PEER_WORDS of int64, for send_to."""
        peer[PEER_SIZE] = ADDRESS_BYTES
        got = _recvfrom(fd, buffer[at:].ctypes, size, MSG_DONTWAIT, peer.ctypes, peer[PEER_SIZE:].ctypes)
        return got if got >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def send_to(fd, buffer, at, size, peer):
        """Send buffer[at:at + size] as a datagram to whom recv_from heard."""
        sent = _sendto(fd, buffer[at:].ctypes, size, MSG_DONTWAIT | MSG_NOSIGNAL, peer.ctypes, peer[PEER_SIZE])
        return sent if sent >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def read_bytes(fd, buffer, at, size):
        """Read up to `size` bytes of a file or pipe into buffer[at:]. 0 at its end."""
        got = _read(fd, buffer[at:].ctypes, size)
        return got if got >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def recv_packets(fd, headers, count):
        """Receive up to `count` datagrams into the struct mmsghdr array `headers` (uint64 words), without waiting."""
        got = _recvmmsg(fd, headers.ctypes, count, MSG_DONTWAIT, 0)
        return got if got >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def wall_clock_ns(moment):
        """CLOCK_REALTIME in nanoseconds, read into `moment` (2,) int64, a struct timespec. No system call: the vDSO answers."""
        _clock_gettime(CLOCK_REALTIME, moment.ctypes)
        return moment[0] * 1_000_000_000 + moment[1]

    @njit(cache=True, _nrt=False)
    def accept_socket(fd):
        """Accept one connection as a non-blocking socket."""
        got = _accept4(fd, 0, 0, SOCK_NONBLOCK | SOCK_CLOEXEC)
        return got if got >= 0 else -_errno()

    @njit(cache=True, _nrt=False)
    def close_fd(fd):
        return _close(fd)

    @njit(cache=True, _nrt=False)
    def yield_core():
        """Let another thread of this core run."""
        _sched_yield()

    @njit(cache=True, _nrt=False)
    def sleep_us(microseconds):
        _usleep(microseconds)
