"""The receive path: sockets as they are opened, what the kernel grants and notes, and packets as kernels find them."""

import errno
import json
import os
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import numpy as np
import pytest
from numba import config, njit

from engine.feed.hot import receive as hot
from engine.feed.hot.receive import (
    LINES_MAX,
    NOTE_WORDS,
    PACKET_BYTES,
    PACKETS_MAX,
    RECEIVE_FAILED,
    STAMP_NOTE,
    find_note,
    packet_at,
    packet_drops,
    packet_kernel_ns,
    packet_noted,
    packet_size,
    packet_waited_ns,
    receive,
)
from engine.feed.source import Line, PacketBuffers, open_line, open_requests
from engine.messages.hot.stamp import NOW
from engine.runtime.clock import simulated_clock
from engine.wire.hot.syscalls import wall_clock_ns
from tests.c.driver import ROOT, compiler
from tests.feed_house import feed_house, only
from tests.itch_flow import Flow, frame, in_packets
from tests.ports import free_port
from tests.private_mounts import in_a_private_network


def setting(name: str) -> int | None:
    """A setting of the kernel, None where this network namespace does not show it."""
    try:
        return int(Path(f"/proc/sys/net/core/{name}").read_text())
    except FileNotFoundError:
        return None


# What the kernel has where nobody changed it, if it does not tell.
RMEM_MAX = setting("rmem_max") or 212_992
BUSY_READ = setting("busy_read") or 0
GROUP = "239.195.1.10"
OTHER_GROUP = "239.195.1.11"


class Room:
    """Lines with their packet buffers, a clock that stands still, and a socket that sends."""

    def __init__(self, stack: ExitStack, lines: int = LINES_MAX) -> None:
        self.stack = stack
        self.buffers = PacketBuffers(lines)
        self.sockets = self.buffers.sockets
        self.clock = simulated_clock(1_000, base_ns=0)
        self.sender = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        self.sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))

    def line(self, number: int, address: tuple[str, int] | None = None, interface: str = "127.0.0.1", **options: object) -> Line:
        line = open_line(address or ("127.0.0.1", 0), interface, **{"receive_buffer_bytes": 1 << 18} | options)  # type: ignore[arg-type]
        self.stack.callback(line.close)
        self.buffers.attach(number, line.socket.fileno(), kernel_stamps=line.kernel_stamps)
        return line

    def send(self, line: Line, *packets: bytes) -> None:
        for packet in packets:
            self.sender.sendto(packet, line.socket.getsockname())

    def taken(self, number: int) -> list[bytes]:
        """The packets of one call."""
        count = receive(self.sockets, number, self.clock)
        assert count >= 0
        return [self.packet(number, packet) for packet in range(count)]

    def packet(self, number: int, packet: int) -> bytes:
        at = packet_at(number, packet)
        return self.buffers.buffer[at : at + packet_size(self.sockets, number, packet)].tobytes()

    def all_of(self, number: int) -> list[bytes]:
        found: list[bytes] = []
        while some := self.taken(number):
            found += some
        return found


@pytest.fixture
def room() -> Iterator[Room]:
    with ExitStack() as stack:
        yield Room(stack)


# Packets.


def test_every_line_has_its_own_packets(room: Room) -> None:
    lines = [room.line(number) for number in range(LINES_MAX)]
    sent = {number: [bytes([number, packet]) * (1 + packet + 7 * number) for packet in range(5)] for number in range(LINES_MAX)}
    for number, line in enumerate(lines):
        room.send(line, *sent[number])
    assert [receive(room.sockets, number, room.clock) for number in range(LINES_MAX)] == [5] * LINES_MAX
    # All are looked at after all came: no line wrote over another's.
    assert {number: [room.packet(number, packet) for packet in range(5)] for number in range(LINES_MAX)} == sent
    assert room.sockets.filled.tolist() == [5] * LINES_MAX
    assert room.sockets.troubles.tolist() == [0] * LINES_MAX


def test_a_call_takes_as_many_as_there_are_places_and_the_next_one_goes_on(room: Room) -> None:
    line = room.line(2)
    sent = [bytes([packet]) * 100 for packet in range(2 * PACKETS_MAX + 3)]
    room.send(line, *sent)
    room.clock.words[NOW] = 7
    assert room.taken(2) == sent[:PACKETS_MAX]
    assert room.sockets.received_tsc[2] == 7
    room.sockets.taken[2] = PACKETS_MAX
    room.clock.words[NOW] = 8
    assert room.taken(2) == sent[PACKETS_MAX : 2 * PACKETS_MAX]
    assert room.sockets.taken[2] == 0
    assert room.taken(2) == sent[2 * PACKETS_MAX :]
    room.clock.words[NOW] = 9
    assert room.taken(2) == []
    assert (room.sockets.filled[2], room.sockets.received_tsc[2]) == (0, 8), "an empty call is not a packet's origin"
    assert room.sockets.calls.tolist() == [0, 0, 4, 0, 0, 0]


def test_a_line_that_is_not_open_has_nothing(room: Room) -> None:
    assert receive(room.sockets, 3, room.clock) == 0
    assert room.sockets.calls[3] == 0
    line = room.line(3)
    room.send(line, b"one")
    room.buffers.detach(3)
    assert room.taken(3) == []
    room.buffers.attach(3, line.socket.fileno())
    assert room.taken(3) == [b"one"]


@pytest.mark.parametrize("size", [0, PACKET_BYTES, PACKET_BYTES + 1, 2 * PACKET_BYTES])
def test_a_packet_longer_than_its_place_is_cut_and_the_next_is_whole(room: Room, size: int) -> None:
    line = room.line(1, receive_buffer_bytes=1 << 20)
    payload = np.random.default_rng(size).integers(0, 256, size, np.uint8).tobytes()
    room.send(line, payload, b"after")
    assert room.taken(1) == [payload[:PACKET_BYTES], b"after"]


def test_an_empty_datagram_is_a_packet_and_not_the_end(room: Room) -> None:
    line = room.line(0)
    room.send(line, b"", b"", b"x")
    assert room.taken(0) == [b"", b"", b"x"]


def test_a_broken_socket_is_a_reason_to_stop(room: Room) -> None:
    reading, writing = os.pipe()
    try:
        room.buffers.attach(0, reading)
        assert receive(room.sockets, 0, room.clock) == RECEIVE_FAILED
    finally:
        os.close(reading)
        os.close(writing)


@pytest.mark.parametrize("name", ["EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "ECONNREFUSED"])
def test_what_the_network_reports_passes_and_is_counted(room: Room, name: str) -> None:
    assert hot.missed(room.sockets, 4, -getattr(errno, name)) == 0
    assert room.sockets.troubles.tolist() == [0, 0, 0, 0, 1, 0]


@pytest.mark.parametrize("name", ["EAGAIN", "EINTR"])
def test_nothing_there_is_no_trouble(room: Room, name: str) -> None:
    assert hot.missed(room.sockets, 4, -getattr(errno, name)) == 0
    assert not room.sockets.troubles.any()


# What the kernel notes.


def test_every_dropped_packet_is_counted(room: Room) -> None:
    """Numbered packets into a buffer far too small: what did not come through is what the kernel says it dropped."""
    line = room.line(5, receive_buffer_bytes=4096, kernel_stamps=True)
    room.send(line, b"first")
    assert room.taken(5) == [b"first"]
    assert (packet_drops(room.sockets, 5, 0), line.drops()) == (-1, 0), "the kernel says nothing while there is nothing to say"
    sent = 0
    received = 0
    for _ in range(3):
        burst = [number.to_bytes(4, "big") * 64 for number in range(sent, sent + 200)]
        sent += len(burst)
        room.send(line, *burst)
        received += len(room.all_of(5))
        assert line.drops() == sent - received
        room.send(line, b"next")
        assert room.taken(5) == [b"next"]
        assert packet_drops(room.sockets, 5, 0) == sent - received == line.drops()
    assert sent - received > 400
    # The stamp is noted beside it, whichever the kernel wrote first.
    assert packet_kernel_ns(room.sockets, 5, 0) > 0


def test_the_kernel_s_stamp_lies_between_sending_and_receiving(room: Room) -> None:
    line = room.line(1, kernel_stamps=True)
    plain = room.line(2)
    assert not line.socket.getblocking()
    assert line.kernel_stamps
    assert not plain.kernel_stamps
    before = time.time_ns()
    room.send(line, b"a")
    between = time.time_ns()
    room.send(line, b"b")
    room.send(plain, b"c")
    sent = time.time_ns()
    assert (room.taken(1), room.taken(2)) == ([b"a", b"b"], [b"c"])
    after = time.time_ns()
    stamps = [packet_kernel_ns(room.sockets, 1, packet) for packet in (0, 1)]
    # A machine under load was seen to read its clock 40 us apart on two CPUs.
    slack_ns = 5_000_000
    assert before - slack_ns <= stamps[0] <= between + slack_ns
    assert between - slack_ns <= stamps[1] <= sent + slack_ns
    received = int(room.sockets.received_ns[1])
    assert sent - slack_ns <= received <= after + slack_ns
    assert [packet_waited_ns(room.sockets, 1, packet) for packet in (0, 1)] == [max(received - stamp, 0) for stamp in stamps]
    assert (packet_kernel_ns(room.sockets, 2, 0), packet_waited_ns(room.sockets, 2, 0), room.sockets.received_ns[2]) == (0, -1, 0)
    assert not packet_noted(room.sockets, 2, 0)
    assert packet_noted(room.sockets, 1, 1)
    room.sockets.received_ns[1] = stamps[1] - 5
    assert packet_waited_ns(room.sockets, 1, 1) == 0, "a clock that was set back"


def test_the_room_for_notes_is_offered_anew_to_every_packet(room: Room) -> None:
    """The call leaves in its header how much it noted; a place that was not put right would get no stamp the second time."""
    line = room.line(0, kernel_stamps=True)
    for count in (PACKETS_MAX, 3, PACKETS_MAX, 1):
        room.send(line, *[b"x"] * count)
        assert len(room.taken(0)) == count
        assert all(packet_kernel_ns(room.sockets, 0, packet) for packet in range(count))


@pytest.mark.parametrize(
    ("words", "used", "found"),
    [
        ([20, 99, 5, 0], 24, -1),
        ([32, int(STAMP_NOTE), 1, 2], 32, 2),
        ([20, 99, 5, 20, int(STAMP_NOTE), 1, 2], 64, 5),
        ([20, 99, 5, 20, int(STAMP_NOTE), 1, 2], 32, -1),
        ([0, 99, 0, int(STAMP_NOTE), 0, 0], 64, 4),
        ([-8, 99, int(STAMP_NOTE), 0, 0], 64, -1),
        ([1 << 62, 99, 5], 64, -1),
        ([32, int(STAMP_NOTE), 1, 2], 1 << 40, 2),
        ([64, 99, 0, 0, 0, 0, 0, 0, 32, int(STAMP_NOTE), 1, 2], 1 << 40, -1),
        ([32, int(STAMP_NOTE), 1, 2], 0, -1),
        ([32, int(STAMP_NOTE), 1, 2], 16, -1),
    ],
)
def test_notes_of_any_shape_are_walked_within_their_place(room: Room, words: list[int], used: int, found: int) -> None:
    line, packet = 1, 3
    place = (line * PACKETS_MAX + packet) * NOTE_WORDS
    room.sockets.notes[place : place + len(words)] = words
    room.sockets.headers[(line * PACKETS_MAX + packet) * hot.HEADER_WORDS + hot.HEADER_CONTROL_BYTES] = used
    at = find_note(room.sockets, line, packet, STAMP_NOTE)
    assert at == (-1 if found < 0 else place + found)


def test_the_clock_of_kernels_is_the_clock_of_stamps() -> None:
    moment = np.zeros(2, np.int64)
    assert abs(wall_clock_ns(moment) - time.time_ns()) < 50_000_000


# Opening.


def test_the_receive_buffer_is_what_the_kernel_says_and_less_than_asked_is_told(room: Room) -> None:
    small = room.line(0, receive_buffer_bytes=65_536)
    assert (small.receive_buffer_bytes, small.shortfalls) == (65_536, ())
    more = 2 * RMEM_MAX
    large = room.line(1, receive_buffer_bytes=more)
    if os.geteuid() == 0:
        assert (large.receive_buffer_bytes, large.shortfalls) == (more, ())
    else:
        assert large.receive_buffer_bytes == RMEM_MAX


def test_busy_polling_is_what_the_kernel_says(room: Room) -> None:
    """Loopback has no queue to poll: what can be seen here is that the socket was told."""
    assert room.line(0).busy_poll_us == BUSY_READ
    line = room.line(1, busy_poll_us=75)
    if os.geteuid() == 0:
        assert (line.busy_poll_us, line.shortfalls) == (75, ())
    room.send(line, b"polled")
    assert room.taken(1) == [b"polled"]


def test_a_receive_buffer_that_is_not_granted_is_told_with_its_cure() -> None:
    """Somebody without rights gets what net.core.rmem_max allows."""
    asked = RMEM_MAX + 65_536

    def as_nobody() -> None:
        os.setresuid(65_534, 65_534, 65_534)
        line = open_line(("127.0.0.1", 0), "127.0.0.1", asked)
        assert line.receive_buffer_bytes == RMEM_MAX
        (told,) = line.shortfalls
        assert told.startswith("feed address=127.0.0.1:0: ")
        assert f"receive_buffer_bytes={RMEM_MAX}, {asked} were asked for: sysctl -w net.core.rmem_max={asked}" in told
        line.close()

    in_a_private_network(work=as_nobody)


def test_what_can_not_be_is_named(room: Room) -> None:
    port = free_port()
    room.line(0, ("127.0.0.1", port))
    for address, interface, problem in [
        (
            ("127.0.0.1", port),
            "127.0.0.1",
            f"feed address=127.0.0.1:{port} interface=127.0.0.1: cannot receive there: Address already",
        ),
        (("192.0.2.1", 9), "127.0.0.1", "feed address=192.0.2.1:9 .* cannot receive there: Cannot assign"),
        ((GROUP, 9), "192.0.2.1", f"feed address={GROUP}:9 interface=192.0.2.1: .* no interface has this name or address; `ip address`"),
        ((GROUP, 9), "nosuch0", "interface=nosuch0: cannot receive there: no interface has this name or address"),
        (("127.0.0.1", 0), "nosuch0", "interface=nosuch0: cannot receive there: no interface has this name or address"),
    ]:
        with pytest.raises(OSError, match=problem):
            open_line(address, interface, 1 << 16)


def test_requests_and_their_answers(room: Room) -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", 0))
        asking = open_requests(server.getsockname())
        room.stack.callback(asking.close)
        room.buffers.attach(2, asking.socket.fileno())
        asking.socket.send(b"request")
        request, client = server.recvfrom(100)
        assert request == b"request"
        server.sendto(b"answer", client)
        # Nobody else can answer.
        room.sender.sendto(b"another", client)
        assert room.all_of(2) == [b"answer"]
    asking.socket.send(b"to nobody")
    assert room.taken(2) == []
    assert room.sockets.troubles[2] == 1
    assert room.taken(2) == []
    assert room.sockets.troubles[2] == 1


# Multicast.


def test_a_group_is_joined_by_address_or_by_name_and_every_socket_gets_every_packet(room: Room) -> None:
    port = free_port()
    room.line(0, (GROUP, port), "127.0.0.1")
    room.line(1, (GROUP, port), "lo")
    room.line(2, (OTHER_GROUP, port), "lo")
    room.sender.sendto(b"to the group", (GROUP, port))
    room.sender.sendto(b"to the other", (OTHER_GROUP, port))
    room.sender.sendto(b"to the port alone", ("127.0.0.1", port))
    assert [room.all_of(number) for number in range(3)] == [[b"to the group"], [b"to the group"], [b"to the other"]]


@pytest.mark.parametrize("interface", ["127.0.0.1", "lo"])
def test_one_sender_of_a_group_can_be_chosen(room: Room, interface: str) -> None:
    port = free_port()
    room.line(0, (GROUP, port), interface, sender="127.0.0.1")
    room.line(1, (GROUP, port), interface, sender="127.0.0.9")
    room.line(2, (GROUP, port), interface)
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind(("127.0.0.9", 0))
        other.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton("127.0.0.1"))
        room.sender.bind(("127.0.0.1", 0))
        room.sender.sendto(b"one", (GROUP, port))
        other.sendto(b"nine", (GROUP, port))
    assert [room.all_of(number) for number in range(3)] == [[b"one"], [b"nine"], [b"one", b"nine"]]


def test_lines_of_one_group_and_port_on_two_interfaces_are_two_lines() -> None:
    """A venue's A and B lines may have the same group and port on two networks; so may another program's feed on a third."""

    def listen() -> None:
        with ExitStack() as stack:
            room = Room(stack)
            room.line(0, (GROUP, 5000), "line_a")
            room.line(1, (GROUP, 5000), "192.0.2.20")
            room.line(2, (GROUP, 5000), "line_b", sender="192.0.2.20")
            room.line(3, (GROUP, 5000), "line_b", sender="192.0.2.10")
            foreign = stack.enter_context(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
            foreign.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton(GROUP) + socket.inet_aton("192.0.2.30"))
            for number in (10, 20, 30):
                room.sender.setsockopt(socket.IPPROTO_IP, socket.IP_MULTICAST_IF, socket.inet_aton(f"192.0.2.{number}"))
                room.sender.sendto(b"on %d" % number, (GROUP, 5000))
            assert [room.all_of(number) for number in range(4)] == [[b"on 10"], [b"on 20"], [b"on 20"], []]

    in_a_private_network(interface("line_a", 10), interface("line_b", 20), interface("foreign", 30), work=listen)


def interface(name: str, number: int) -> str:
    """The command that makes a network interface with address 192.0.2.number."""
    return (
        f"ip link add {name} type veth peer name to_{name} && ip address add 192.0.2.{number}/32 dev {name} && "
        f"ip link set {name} up && ip link set to_{name} up"
    )


def test_a_unicast_line_on_a_named_interface_takes_nothing_from_others() -> None:
    def listen() -> None:
        with ExitStack() as stack:
            room = Room(stack)
            # What a machine sends to itself counts as come in by the interface that has the address.
            there = room.line(0, ("192.0.2.10", 5000), "line_a")
            elsewhere = room.line(1, ("192.0.2.10", 5001), "lo")
            room.send(there, b"one")
            room.send(elsewhere, b"two")
            assert [room.all_of(number) for number in range(2)] == [[b"one"], []]

    in_a_private_network(interface("line_a", 10), work=listen)


# A stack in place of the kernel's.


@pytest.mark.skipif(not compiler("gcc"), reason="gcc is not installed")
def test_a_stack_loaded_before_libc_serves_the_feed(tmp_path: Path) -> None:
    """No packet of this feed goes through the kernel, and no option that only the kernel has is needed."""
    flow = Flow(7)
    packets = list(in_packets(flow.opening() + flow.messages(400), flow.rng))
    (tmp_path / "packets").write_bytes(frame(packets))
    stack = tmp_path / "bypass.so"
    subprocess.run(["gcc", "-O2", "-Wall", "-Werror", "-shared", "-fPIC", "-o", stack, ROOT / "tests/c/bypass.c"], check=True)
    answers = []
    for changes in ({}, {"LD_PRELOAD": str(stack), "BYPASS_PACKETS": str(tmp_path / "packets")}):
        command = [sys.executable, "-m", "tests.bypassed"]
        run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=300, env=os.environ | changes)
        answers.append((run.returncode, run.stdout, run.stderr))
    assert answers[0][0] != 0
    code, said, complaint = answers[1]
    assert code == 0, complaint
    told = json.loads(said)
    with feed_house() as house:
        assert told["quotes"] == [list(quote) for quote in only(house.send(*packets), "quote", "bid_px", "bid_sz")]
    assert len(told["quotes"]) > 100
    assert (told["packets"], told["bindings"]) == (len(packets), 1)
    assert told["calls"] > len(packets) / PACKETS_MAX
    # RCVBUFFORCE, RXQ_OVFL, BUSY_POLL, TIMESTAMPNS, MULTICAST_ALL; each that matters is told.
    assert told["refused"] == 5
    assert (told["granted"], told["drops"]) == ([0, False], -1)
    reasons = ("receive_buffer_bytes=", "SO_RXQ_OVFL", "busy_poll_us=0, 75", "SO_TIMESTAMPNS", "IP_MULTICAST_ALL")
    assert all(reason in sentence for reason, sentence in zip(reasons, told["shortfalls"], strict=True)), told["shortfalls"]


@pytest.mark.skipif(bool(config.DISABLE_JIT), reason="NUMBA_DISABLE_JIT=1: nothing is compiled")
def test_receiving_calls_no_allocator(room: Room) -> None:
    fresh = njit(_nrt=False)(receive.py_func)
    assert fresh(room.sockets, 0, room.clock) == 0
    (text,) = fresh.inspect_llvm().values()
    assert "NRT_Allocate" not in text
    assert "NRT_incref" not in text
