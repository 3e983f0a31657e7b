"""`tickpath capture`: what show says against a plain count, what send sends, and that a recording is whole however it ends."""

import json
import random
import select
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from engine.feed import itch
from engine.feed.capture import Capture
from engine.feed.frames import Datagram, address_of, address_text
from engine.feed.pcap import CaptureFrames
from tests.capture_files import NS, A, B, pcap, udp_frame
from tests.itch_flow import end_of_session, heartbeat, packet
from tests.running import wait_for
from tools import capture_send
from tools.capture import Numbered
from tools.capture_record import BATCH, Recorder
from tools.cli import main

ROOT = Path(__file__).resolve().parent.parent
DATA = ROOT.parent / "shared" / "data"
CME = DATA / "cme" / "Cme.Mdp3.Sbe.v1.6.Example.pcap"
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")

# The recorder forgets nothing that a socket buffer of this size holds.
ROOMY = 4 << 20


def tickpath(*arguments: object) -> Result:
    return CliRunner().invoke(main, ["capture", *map(str, arguments)])


def read(path: Path) -> list[Datagram]:
    with Capture(path) as capture:
        found = list(capture.read())
    assert (capture.torn, capture.refused) == ("", {})
    return found


def sockets(count: int) -> list[socket.socket]:
    """Receivers on the loopback interface, whose ports are free to be used again once they are closed."""
    made = []
    for _ in range(count):
        made.append(socket.socket(socket.AF_INET, socket.SOCK_DGRAM))
        made[-1].bind(("127.0.0.1", 0))
    return made


def free_addresses(count: int) -> list[str]:
    made = sockets(count)
    addresses = [f"127.0.0.1:{one.getsockname()[1]}" for one in made]
    for one in made:
        one.close()
    return addresses


def target(address: str) -> tuple[str, int]:
    host, _, port = address.rpartition(":")
    return host, int(port)


# Show.


def test_numbers_seen_are_those_of_a_set() -> None:
    for seed in range(150):
        rng = random.Random(seed)
        numbered, seen, gaps = Numbered(), set[int](), 0
        at = base = rng.randint(1, 5)
        for _ in range(rng.randint(1, 40)):
            sequence = max(base, at + rng.choice([0, 0, 0, 1, 5, -1, -3, -12]))
            count = rng.randint(0, 6)
            wanted = set(range(sequence, sequence + count))
            if not seen and not numbered.next:
                base, at = sequence, sequence
            gaps += sequence > at
            assert numbered.take(sequence, count) == len(wanted - seen), seed
            seen |= wanted
            at = max(at, sequence + count)
            assert numbered.messages == len(seen), seed
            assert numbered.missing == at - base - len(seen), seed
            assert (numbered.first, numbered.next, numbered.gaps) == (base, at, gaps), seed


def two_lines(tmp_path: Path) -> Path:
    """Messages 1 to 8: line A loses 3 and 4, line B is second but for those, sends 7 and 8 twice, and message 6 reaches nobody."""
    one = {number: itch.SYSTEM_EVENT.encode(locate=1, tracking=0, timestamp=number - 1, event="Q") for number in range(1, 9)}
    sent = [
        (A, packet(1, [one[1], one[2]])), (B, packet(1, [one[1], one[2]])), (B, packet(3, [one[3], one[4]])), (A, packet(5, [one[5]])),
        (B, packet(5, [one[5]])), (A, heartbeat(7)), (A, packet(7, [one[7], one[8]])), (B, packet(7, [one[7], one[8]])),
        (B, packet(7, [one[7], one[8]])), (A, end_of_session(9)), (("10.0.0.1", 53), b"a name server"),
    ]  # fmt: skip
    frames = [(1_700_000_000 * NS + number * 1_000, udp_frame(payload, to, vlans=1)) for number, (to, payload) in enumerate(sent)]
    path = tmp_path / "lines.pcap"
    path.write_bytes(pcap([*frames, (1_700_000_001 * NS, b"no frame")]))
    return path


def test_show_counts_lines_gaps_and_who_was_first(tmp_path: Path) -> None:
    shown = tickpath("show", two_lines(tmp_path), "--json")
    assert shown.exit_code == 0, shown.output
    told: dict[str, Any] = json.loads(shown.output)
    assert (told["format"], told["packets"], told["datagrams"], told["torn"], told["skipped"]["cut_short"]) == ("pcap", 12, 11, "", 1)
    assert (told["first_ns"], told["last_ns"]) == (1_700_000_000 * NS, 1_700_000_000 * NS + 10_000)
    a, b, other = told["destinations"]
    assert a["sessions"]["TEST000001"] == {"first": 1, "last": 8, "messages": 5, "duplicates": 0, "gaps": 2, "missing": 3}
    assert b["sessions"]["TEST000001"] == {"first": 1, "last": 8, "messages": 7, "duplicates": 2, "gaps": 1, "missing": 1}
    assert (a["heartbeats"], a["ends"], other["not_mold"], other["address"]) == (1, 1, 1, "10.0.0.1:53")
    (union,) = told["sessions"]
    assert union["first_with"] == {f"{A[0]}:{A[1]}": 5, f"{B[0]}:{B[1]}": 2}
    assert (union["messages"], union["missing"], sum(union["types"].values())) == (7, 1, 14)
    text = tickpath("show", two_lines(tmp_path)).output
    assert "lines.pcap: pcap, 12 packets, 11 UDP datagrams, 2023-11-14T22:13:20.000000000Z to 2023-11-14T22:13:20.000010000Z" in text
    assert "5 messages from 1 to 8, 3 missing in 2 gaps" in text
    assert (
        "its lines together have 7 messages, 1 missing; 233.54.12.111:26477 was first with 5, 233.49.196.111:26477 was first with 2" in text
    )
    assert "1 of 12 packets were captured in part only" in text


def test_show_believes_a_heartbeat_that_more_was_sent(tmp_path: Path) -> None:
    path = tmp_path / "tail.pcap"
    sent = [packet(1, [bytes(12), bytes(12)]), heartbeat(5)]
    path.write_bytes(pcap([(number, udp_frame(payload, A)) for number, payload in enumerate(sent)]))
    told = json.loads(tickpath("show", path, "--json").output)
    expected = {"first": 1, "last": 4, "messages": 2, "duplicates": 0, "gaps": 1, "missing": 2}
    assert told["destinations"][0]["sessions"]["TEST000001"] == expected
    assert {name: told["sessions"][0][name] for name in expected} == expected


def test_show_decodes_messages(tmp_path: Path) -> None:
    shown = tickpath("show", two_lines(tmp_path), "--messages", 100)
    lines = shown.output.splitlines()
    assert lines[0].startswith(
        "2023-11-14T22:13:20.000000000Z 233.54.12.111:26477 TEST000001 1 system event locate=1 tracking=0 timestamp=0"
    )
    assert [line.split()[3] for line in lines[:5]] == ["1", "2", "1", "2", "3"]
    assert any(line.endswith("TEST000001 7 heartbeat") for line in lines)
    assert any(line.endswith("TEST000001 9 end of session") for line in lines)
    assert "10.0.0.1:53 13 bytes, not MoldUDP64: 61 20 6e 61 6d 65" in lines[-2]
    assert "captured in part only" in lines[-1]
    assert len(tickpath("show", two_lines(tmp_path), "--messages", 3).output.splitlines()) == 3


def test_show_says_no_where_nothing_is_in_it(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    path.write_bytes(pcap([]))
    assert tickpath("show", path).exit_code == 1
    whole = two_lines(tmp_path).read_bytes()
    path.write_bytes(whole[:-1])
    torn = tickpath("show", path)
    assert torn.exit_code == 1
    assert "it ends inside a packet at byte" in torn.output
    path.write_text("a readme")
    for arguments in (("show", path), ("send", path, "--to", "127.0.0.1:1"), ("show", tmp_path), ("show", tmp_path / "nothing")):
        refused = tickpath(*arguments)
        assert refused.exit_code == 2
        assert refused.stderr.startswith("tickpath: ")
        assert refused.stderr.count("\n") == 1


# Send.


@pytest.fixture
def receivers() -> Iterator[list[socket.socket]]:
    made = sockets(2)
    for one in made:
        one.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, ROOMY)
    yield made
    for one in made:
        one.close()


def received(one: socket.socket) -> list[bytes]:
    found = []
    while select.select([one], [], [], 0)[0]:
        found.append(one.recv(65_535))
    return found


def test_send_sends_each_line_where_it_is_told(tmp_path: Path, receivers: list[socket.socket]) -> None:
    path = two_lines(tmp_path)
    to, to_b = (f"127.0.0.1:{one.getsockname()[1]}" for one in receivers)
    with Capture(path) as capture:
        datagrams = list(capture.read())
    payloads = {line: [one.payload for one in datagrams if address_text(one.destination) == f"{line[0]}:{line[1]}"] for line in (A, B)}
    sent = tickpath("send", path, "--to", to, "--to-b", to_b, "--speed", 0, "--json")
    assert sent.exit_code == 0, sent.output
    assert [received(one) for one in receivers] == [payloads[A], payloads[B]]
    told = json.loads(sent.output)
    assert (told["packets"], told["elsewhere"], told["bytes"]) == (10, 1, sum(map(len, payloads[A] + payloads[B])))
    assert "captured in part only" in told["notes"][1]
    alone = tickpath("send", path, "--to", to, "--line-a", f"{B[0]}:{B[1]}", "--speed", 0)
    assert received(receivers[0]) == payloads[B]
    assert "sent 5 packets" in alone.output
    assert "6 datagrams to other destinations: not sent" in alone.output


class StoppedClock:
    """Time that passes only where somebody sleeps."""

    def __init__(self) -> None:
        self.now_ns = 5 * NS

    def monotonic_ns(self) -> int:
        # Whoever looks at a clock again and again sees it go on.
        self.now_ns += 1_000
        return self.now_ns

    def sleep(self, seconds: float) -> None:
        assert seconds > 0
        self.now_ns += round(seconds * NS)


@pytest.mark.parametrize("speed", [1.0, 10.0, 0.5])
def test_send_keeps_the_times_of_the_capture(
    tmp_path: Path, receivers: list[socket.socket], monkeypatch: pytest.MonkeyPatch, speed: float
) -> None:
    """A time that lies before the one it follows is sent at once."""
    offsets_ns = [0, 1_000_000, 1_020_000, 900_000, 700_000_000, 3_000_000_000]
    path = tmp_path / "timed.pcap"
    path.write_bytes(pcap([(NS + offset, udp_frame(packet(1 + number, [bytes(12)]), A)) for number, offset in enumerate(offsets_ns)]))
    clock = StoppedClock()
    monkeypatch.setattr(capture_send, "time", clock)
    began_ns, sent_ns = clock.now_ns, []
    monkeypatch.setattr(capture_send, "_socket", lambda *_: Noting(lambda: sent_ns.append(clock.now_ns - began_ns)))
    routed = [capture_send.Route(address_of(f"{A[0]}:{A[1]}"), ("127.0.0.1", 1))]
    sent = capture_send.Sent()
    assert list(capture_send.send(path, routed, speed=speed, interface="", ttl=1, sent=sent)) == []
    due_ns = [round(max(offsets_ns[: number + 1]) / speed) for number in range(len(offsets_ns))]
    for due, was in zip(due_ns, sent_ns, strict=True):
        assert due <= was <= due + 20_000
    assert 0 < sent.late_ns_max <= 20_000
    assert sent.packets == len(offsets_ns)


class Noting:
    """A socket that only says when something is sent."""

    def __init__(self, note: Any) -> None:
        self.note = note

    def __enter__(self) -> "Noting":
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def sendto(self, payload: bytes, where: tuple[str, int]) -> None:
        self.note()


@needs_data
@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--to", "127.0.0.1"], "address=127.0.0.1: expected an IPv4 address and a port"),
        (["--to", "127.0.0.1:0"], "--to=127.0.0.1:0: expected a port from 1 to 65535"),
        (["--to", "127.0.0.1:9"], "choose among them with --line-a"),
        (["--to", "127.0.0.1:9", "--line-b", "224.0.31.64:14340"], "expected --line-a as well"),
        (["--to", "127.0.0.1:9", "--line-a", "1.2.3.4:5"], "--line-a=1.2.3.4:5: nothing in the capture"),
        (["--to", "127.0.0.1:9", "--to-b", "127.0.0.1:9", "--line-a", "224.0.31.64:14340"], "has one line only, 224.0.31.64:14340"),
        (["--to", "239.0.0.1:9", "--line-a", "224.0.31.64:14340", "--interface", "nope0"], "interface=nope0: cannot send there"),
    ],
)
def test_send_explains_what_it_cannot_do(arguments: list[str], told: str) -> None:
    refused = tickpath("send", CME, *arguments)
    assert refused.exit_code == 2
    assert told in refused.stderr, refused.output
    assert refused.stderr.count("\n") == 1


# Record.


@needs_data
def test_a_real_capture_sent_and_recorded_is_the_same_in_the_same_order(tmp_path: Path) -> None:
    """Both lines out of one thread, in the capture's order: so the kernel's stamps have that order too."""
    addresses = free_addresses(2)
    path = tmp_path / "recorded.pcap"
    lines = ["224.0.32.64:15340", "224.0.31.64:14340"]
    with Recorder(path, [(address, "127.0.0.1") for address in addresses], receive_buffer_bytes=64 << 20) as recorder:
        routed = capture_send.routes(CME, *addresses, *lines)
        sent = capture_send.Sent()
        assert list(capture_send.send(CME, routed, speed=0, interface="127.0.0.1", ttl=1, sent=sent)) == []
        recorded = recorder.record(packets=10_000, seconds=60)
    assert (recorded.packets, recorded.lost, recorded.unstamped, recorded.ended) == (10_000, 0, 0, "10000 packets are recorded")
    assert recorded.notes == []
    of_line = dict(zip(addresses, lines, strict=True))
    found, original = read(path), read(CME)
    assert [(of_line[address_text(one.destination)], one.payload) for one in found] == [
        (address_text(one.destination), one.payload) for one in original
    ]
    times = [one.ts_ns for one in found]
    assert times == sorted(times)
    assert {address_text(one.source).rpartition(":")[0] for one in found} == {"127.0.0.1"}
    assert [line.packets for line in recorded.lines] == [5_000, 5_000]


def test_what_the_socket_drops_is_counted(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Recorder(tmp_path / "a.pcap", [(address, "127.0.0.1")], receive_buffer_bytes=4_096) as recorder,
    ):
        for number in range(500):
            sender.sendto(number.to_bytes(4, "big") * 50, target(address))
        recorded = recorder.record(seconds=0.01)
    (line,) = recorded.lines
    assert 0 < line.packets < 500
    assert line.packets + line.drops == 500 == recorded.packets + recorded.lost
    assert len(read(tmp_path / "a.pcap")) == line.packets
    assert f"{recorded.lost} datagrams were dropped before they could be read" in str(recorded)


def test_two_lines_are_written_in_the_order_of_their_stamps(tmp_path: Path) -> None:
    """More waits on each line than is taken at a time."""
    addresses = free_addresses(2)
    rng, path = random.Random(8), tmp_path / "a.pcap"
    order = [rng.randrange(2) for _ in range(3 * BATCH)] + [0] * BATCH + [1] * BATCH
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Recorder(path, [(address, "127.0.0.1") for address in addresses], receive_buffer_bytes=ROOMY) as recorder,
    ):
        for number, line in enumerate(order):
            sender.sendto(number.to_bytes(4, "big"), target(addresses[line]))
        recorder.record(packets=len(order), seconds=60)
    found = read(path)
    assert [addresses.index(address_text(one.destination)) for one in found] == order
    assert [int.from_bytes(one.payload, "big") for one in found] == list(range(len(order)))


def test_a_number_of_packets_is_that_number(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Recorder(tmp_path / "a.pcap", [(address, "127.0.0.1")], receive_buffer_bytes=ROOMY) as recorder,
    ):
        for number in range(20):
            sender.sendto(bytes([number]), target(address))
        assert recorder.record(packets=7, seconds=60).packets == 7
    assert [one.payload[0] for one in read(tmp_path / "a.pcap")] == list(range(7))


def test_without_kernel_stamps_the_time_is_ours_and_that_is_told(tmp_path: Path) -> None:
    (address,) = free_addresses(1)
    with (
        socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender,
        Recorder(tmp_path / "a.pcap", [(address, "127.0.0.1")], receive_buffer_bytes=ROOMY, kernel_stamps=False) as recorder,
    ):
        sender.sendto(b"x", target(address))
        recorded = recorder.record(packets=1, seconds=60)
    assert recorded.unstamped == 1
    assert "1 packets had no stamp of the kernel" in str(recorded)


@pytest.mark.parametrize("end", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=lambda end: end.name)
def test_a_recording_is_whole_packets_however_it_ends(tmp_path: Path, end: signal.Signals) -> None:
    (address,) = free_addresses(1)
    path = tmp_path / "a.pcap"
    command = [sys.executable, "-m", "tools.cli", "capture", "record", str(path), "--address", address, "--json"]
    running = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    try:
        wait_for(path.exists, "the recording to begin", 60)
        with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sender:
            for number in range(2_000):
                sender.sendto(number.to_bytes(4, "big") * 100, target(address))
            # Something has been written: it is in the middle of it.
            wait_for(lambda: path.stat().st_size > 24, "the first packets", 60)
        running.send_signal(end)
        output, errors = running.communicate(timeout=60)
    finally:
        running.kill()
        running.communicate()
    with CaptureFrames(path) as capture:
        frames = list(capture)
    # Killed in the middle of a write, the kernel writes no more than whole pages of it.
    assert capture.torn == "" or (end == signal.SIGKILL and "it ends inside a packet" in capture.torn)
    assert [frame.raw[-400:] for frame in frames] == [number.to_bytes(4, "big") * 100 for number in range(len(frames))]
    assert frames
    if end != signal.SIGKILL:
        told = json.loads(output)
        assert running.returncode == 0, errors
        assert (told["packets"], told["lost"], told["ended"]) == (2_000, 0, f"{end.name} received")
        assert len(frames) == 2_000


FULL_DISK = """
import sys
from pathlib import Path
import resource
from tools.capture_record import WholeRecords
path = Path(sys.argv[1])
file = WholeRecords(path, overwrite=False)
file.add(1, bytes(100)); file.flush()
resource.setrlimit(resource.RLIMIT_FSIZE, (200, 200))
file.add(2, bytes(100))
try:
    file.flush()
except OSError as error:
    print(error.strerror)
"""


def test_a_full_disk_leaves_whole_packets_and_is_told(tmp_path: Path) -> None:
    path = tmp_path / "a.pcap"
    finished = subprocess.run([sys.executable, "-c", FULL_DISK, str(path)], cwd=ROOT, capture_output=True, text=True, timeout=60)
    assert finished.stdout == f"capture={path}: File too large; what was written before, 140 bytes, is whole\n", finished.stderr
    with CaptureFrames(path) as capture:
        assert len(list(capture)) == 1
    assert capture.torn == ""


def test_record_explains_what_it_cannot_do(tmp_path: Path) -> None:
    path, (address,) = tmp_path / "a.pcap", free_addresses(1)
    refused = [
        (["--address", "127.0.0.1"], "expected an IPv4 address and a port"),
        (["--address", "192.0.2.1:4000"], "cannot receive there"),
        (["--address", "239.0.0.1:4000", "--interface", "nope0"], "no interface has this name"),
        (["--address", address, "--address-b", address], "it is line A's address too"),
    ]
    for arguments, told in refused:
        result = tickpath("record", path, *arguments)
        assert result.exit_code == 2
        assert told in result.stderr, result.output
        assert result.stderr.count("\n") == 1
        assert not path.exists(), "a file was left by a recording that did not begin"
    assert "No such file or directory" in tickpath("record", tmp_path / "no" / "a.pcap", "--address", address).stderr
    path.write_bytes(b"precious")
    kept = tickpath("record", path, "--address", address, "--seconds", 0.01)
    assert (kept.exit_code, path.read_bytes()) == (2, b"precious")
    assert "--overwrite replaces it" in kept.stderr
    replaced = tickpath("record", path, "--address", address, "--seconds", 0.01, "--overwrite")
    assert replaced.exit_code == 0
    assert read(path) == []
    assert "a.pcap: 0 packets, 0.01 s are over" in replaced.output
