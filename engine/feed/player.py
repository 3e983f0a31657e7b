"""A packet capture as a source of the feed handler: a thread plays it into a socket, from which a kernel takes packets as from UDP.

     0            8              16
     +------------+--------------+----------------------
     | line       | capture time | the datagram's bytes
     +------------+--------------+----------------------

Both are int64, little-endian; END_OF_CAPTURE in place of a line says that nothing follows, UNREADABLE_CAPTURE that it cannot be read.
One socket for both lines keeps the order in which the capture has them. It is a SOCK_SEQPACKET pair: packets stay packets, and the
thread waits when the feed handler is behind, so nothing is dropped (a datagram pair would wait as well, but holds no more than
net.unix.max_dgram_qlen packets).

Times are kept to about a tenth of a millisecond: the thread sleeps, it does not spin beside the kernels.
"""

import contextlib
import os
import socket
import struct
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np

from engine.feed.capture import Capture, Lines
from engine.feed.hot.capture import END_OF_CAPTURE, UNREADABLE_CAPTURE
from engine.feed.hot.receive import PACKET_BYTES

PREFIX = struct.Struct("<qq")
SO_SNDBUFFORCE = 32
SEND_BUFFER_BYTES = 4 << 20
# Shorter waits than this are not worth a sleep, which takes as long.
SLEEP_NS_MIN = 60_000
HOLD_POLL_S = 0.001
# A stop is looked for at least so often in a long silence.
SLEEP_S_MAX = 0.05
# Counters go to shared memory once in so many packets.
COUNTED_EVERY = 1_024


class CapturePlayer:
    """A capture being played to `fd`, which a kernel reads. `line` is a record CAPTURE that counts what the file had.

    speed 1 keeps the capture's times, N is N times as fast, 0 waits for nothing but the reader. Nothing is played before `held` says
    False.
    """

    def __init__(
        self, path: Path, lines: Lines, speed: float, line: np.record, *, held: Callable[[], bool], on_error: Callable[[str], None]
    ) -> None:
        """OSError where the file cannot be read, ValueError where it is no capture."""
        self._capture = Capture(path)
        self._lines = lines
        self._speed = speed
        self._line = line
        self._held = held
        self._on_error = on_error
        self._stop = threading.Event()
        self._reader, self._writer = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._reader.setblocking(False)
        self.fd = self._reader.fileno()
        self._writer.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, SEND_BUFFER_BYTES)
        with contextlib.suppress(PermissionError):
            self._writer.setsockopt(socket.SOL_SOCKET, SO_SNDBUFFORCE, SEND_BUFFER_BYTES)
        self._thread = threading.Thread(target=self._play, name="capture", daemon=True)
        self._thread.start()

    def close(self) -> None:
        self._stop.set()
        # Ends a send that waits for the reader.
        self._reader.close()
        self._thread.join()
        self._writer.close()

    def _play(self) -> None:
        # Not where the kernel spins: any other CPU of the machine.
        with contextlib.suppress(OSError):
            os.sched_setaffinity(0, range(os.cpu_count() or 1))
        try:
            while self._held():
                if self._stop.wait(HOLD_POLL_S):
                    return
            self._send_all()
        except ConnectionError:
            # The feed handler has closed its end.
            pass
        except OSError as error:
            self._give_up(error.strerror or str(error))
        except Exception as error:
            # A fault of ours must not leave the kernel waiting for packets that never come.
            self._give_up(repr(error))
        finally:
            self._count()
            self._capture.close()

    def _give_up(self, why: str) -> None:
        """Nothing follows, and not because the capture has ended: the feed handler ends with this reason."""
        self._on_error(f"feed path={self._capture.path}: reading the capture failed: {why}")
        with contextlib.suppress(ConnectionError):
            self._hand_over(UNREADABLE_CAPTURE, 0, b"")

    def _send_all(self) -> None:
        counted = self._line
        began_ns, first_ns, last_ns = time.monotonic_ns(), -1, 0
        for number, (ts_ns, _, destination, payload) in enumerate(self._capture.read()):
            if self._stop.is_set():
                return
            line = self._lines.of(destination)
            if line < 0:
                counted["elsewhere"] += 1
                continue
            if len(payload) > PACKET_BYTES - PREFIX.size:
                counted["too_long"] += 1
                continue
            if first_ns < 0:
                first_ns = ts_ns
            last_ns = max(last_ns, ts_ns)
            if self._speed and not self._wait_until(began_ns + int((last_ns - first_ns) / self._speed)):
                return
            self._hand_over(line, ts_ns, payload)
            counted["packets_b" if line else "packets_a"] += 1
            if number % COUNTED_EVERY == 0:
                self._count()
        # SYNC POINT: who has taken the end of the capture finds all that is counted of it.
        self._line["ended"] = 1
        self._count()
        self._hand_over(END_OF_CAPTURE, last_ns, b"")

    def _hand_over(self, line: int, ts_ns: int, payload: bytes) -> None:
        self._writer.send(PREFIX.pack(line, ts_ns) + payload)

    def _wait_until(self, due_ns: int) -> bool:
        """Sleep until the monotonic clock says due_ns. False where the player is closed meanwhile."""
        while (ahead_ns := due_ns - time.monotonic_ns()) > SLEEP_NS_MIN:
            if self._stop.is_set():
                return False
            time.sleep(min(ahead_ns / 1e9, SLEEP_S_MAX))
        late_ns = -ahead_ns
        if late_ns > self._line["late_ns_max"]:
            self._line["late_ns_max"] = late_ns
        return True

    def _count(self) -> None:
        """Put into shared memory what the file has had so far."""
        capture, line = self._capture, self._line
        line["frames"] = capture.frames
        for kind, count in capture.refused.items():
            line[kind] = count
        line["unreadable"] = capture.unreadable
        line["untimed"] = capture.untimed
        line["torn"] = bool(capture.torn)
