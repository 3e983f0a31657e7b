"""Packet captures read: every container, link layer and field, against scapy, the formats' descriptions and the real captures."""

import datetime
import gzip
import random
import struct
import tracemalloc
from collections import Counter
from pathlib import Path
from zoneinfo import ZoneInfo

import pytest
import scapy.all as scapy
from scapy.utils import RawPcapNgReader, RawPcapReader

from engine.feed import itch
from engine.feed.capture import Capture, NotTheFeed, chosen_lines, find_lines, is_itch, messages_of, mold_packet
from engine.feed.frames import (
    CUT,
    DAMAGED,
    FRAGMENT,
    NOT_IP,
    NOT_UDP,
    REFUSALS,
    UNKNOWN_LINK,
    Datagram,
    address_of,
    address_text,
    datagram_in,
    ethernet_frame,
)
from engine.feed.pcap import RECORD_BYTES_MAX, TS_NS_MAX, CaptureFrames, file_header, is_capture, record
from tests.capture_files import NS, A, B, NgWriter, pcap, udp_frame
from tests.itch_flow import end_of_session, heartbeat, packet, random_message

DATA = Path(__file__).resolve().parent.parent.parent / "shared" / "data"
CME = DATA / "cme" / "Cme.Mdp3.Sbe.v1.6.Example.pcap"
ITCH_CAPTURES = sorted((DATA / "itch" / "pcap").glob("*.pcap"))
OUCH_CAPTURES = sorted((DATA / "ouch").glob("*.pcap"))
needs_data = pytest.mark.skipif(not DATA.exists(), reason=f"no real market data: {DATA} is absent")

# NASDAQ TotalView-ITCH 5.0, sections 1.2 to 1.7, as struct reads it. What has 6 bytes is the time.
SPECIFIED = {
    "A": ">cHH6sQcI8sI", "F": ">cHH6sQcI8sI4s", "D": ">cHH6sQ", "E": ">cHH6sQIQ", "U": ">cHH6sQQII", "H": ">cHH6s8scc4s",
    "I": ">cHH6sQQc8sIIIcc", "L": ">cHH6s4s8sccc",
}  # fmt: skip
NEW_YORK = ZoneInfo("America/New_York")
# Between an exchange's own stamp and the capture of the packet.
WIRE_NS_MAX = 5_000_000
# 2^32 seconds are over in 2106.
TIMES_END_NS = (1 << 32) * NS


def written(tmp_path: Path, raw: bytes, name: str = "a.pcap") -> Path:
    path = tmp_path / name
    path.write_bytes(raw)
    return path


def frames_of(path: Path) -> tuple[list[tuple[int, int, bytes]], CaptureFrames]:
    with CaptureFrames(path) as capture:
        return [(frame.ts_ns, frame.link, frame.raw) for frame in capture], capture


def datagrams_of(path: Path) -> tuple[list[Datagram], Capture]:
    with Capture(path) as capture:
        return list(capture.read()), capture


def field_of(value: int | bytes) -> int | str:
    if isinstance(value, int):
        return value
    return int.from_bytes(value, "big") if len(value) == 6 else value.decode().rstrip()


# Real captures.


@needs_data
@pytest.mark.parametrize("path", ITCH_CAPTURES, ids=lambda path: path.stem)
def test_every_field_of_the_real_itch_captures(path: Path) -> None:
    datagrams, capture = datagrams_of(path)
    assert (capture.format, capture.torn, capture.refused) == ("pcap", "", Counter())
    found: list[bytes] = []
    for ts_ns, source, destination, payload in datagrams:
        assert (address_text(source), address_text(destination)) == ("206.200.127.138:49653", "233.54.12.111:26477")
        session, sequence, count = struct.unpack_from(">10sQH", payload)
        taken = mold_packet(payload)
        assert taken is not None
        assert is_itch(taken)
        assert (taken.session, taken.sequence, taken.count, len(taken.messages)) == (session.decode(), sequence, count, count)
        assert 20 + sum(2 + len(raw) for raw in taken.messages) == len(payload)
        midnight = datetime.datetime.fromtimestamp(ts_ns // NS, NEW_YORK).replace(hour=0, minute=0, second=0)
        found += taken.messages
        for raw in taken.messages:
            values = itch.BY_CODE[raw[0]].decode(raw)
            assert [*values.values()] == [field_of(value) for value in struct.unpack(SPECIFIED[chr(raw[0])], raw)[1:]]
            on_the_wire_ns = ts_ns - int(midnight.timestamp()) * NS
            assert 0 < on_the_wire_ns - int(values["timestamp"]) < WIRE_NS_MAX
    assert len(found) == (39 if "Multiple" in path.name else 1)
    assert list(messages_of(path, find_lines(path))) == found


@needs_data
@pytest.mark.parametrize("path", OUCH_CAPTURES, ids=lambda path: path.stem)
def test_tcp_is_counted_and_skipped(path: Path) -> None:
    datagrams, capture = datagrams_of(path)
    assert (datagrams, capture.refused, capture.frames) == ([], Counter({NOT_UDP: 1}), 1)
    with pytest.raises(ValueError, match=r"no UDP datagram: 1 of 1 packets are not UDP"):
        find_lines(path)


@needs_data
def test_the_two_lines_of_a_real_pcapng_and_their_order() -> None:
    datagrams, capture = datagrams_of(CME)
    assert (capture.format, capture.frames, capture.torn, capture.refused) == ("pcapng", 10_000, "", Counter())
    with RawPcapNgReader(str(CME)) as reader:
        theirs = [(raw, meta) for raw, meta in reader]
    for ours, (raw, meta) in zip(datagrams, theirs, strict=True):
        assert meta.tsresol == NS
        assert ours.ts_ns == meta.tshigh << 32 | meta.tslow
        # Untagged Ethernet and an IP header without options: the datagram is behind 42 bytes and ends with its IP length.
        assert ours.payload == raw[42 : 14 + int.from_bytes(raw[16:18], "big")]
        assert ours.destination == int.from_bytes(raw[30:34] + raw[36:38], "big")
    by_line: dict[int, list[bytes]] = {}
    first: Counter[int] = Counter()
    seen: set[int] = set()
    for datagram in datagrams:
        by_line.setdefault(datagram.destination, []).append(datagram.payload)
        sequence = int.from_bytes(datagram.payload[:4], "little")
        first[datagram.destination] += sequence not in seen
        seen.add(sequence)
    a, b = by_line
    assert by_line[a] == by_line[b]
    assert sorted(seen) == list(range(min(seen), min(seen) + 5_000))
    assert sorted(first.values()) == [750, 4_250]
    with pytest.raises(NotTheFeed, match=r"10000 UDP datagrams went to 224.0.32.64:15340 \(5000\), 224.0.31.64:14340 \(5000\)"):
        find_lines(CME)
    lines = chosen_lines(CME, "224.0.31.64:14340", "224.0.32.64:15340")
    assert (address_text(lines.a), lines.of(lines.a), lines.of(lines.b or 0), lines.of(1)) == ("224.0.31.64:14340", 0, 1, -1)
    assert lines.first_ns == datagrams[0].ts_ns


# Containers.


def random_frames(rng: random.Random, count: int, unit_ns: int) -> list[tuple[int, bytes]]:
    sizes = [rng.choice([0, 1, 2, 3, 4, 60, 1514, rng.randint(0, 3_000)]) for _ in range(count)]
    return [(rng.randrange(0, TIMES_END_NS, unit_ns), rng.randbytes(size)) for size in sizes]


@pytest.mark.parametrize("zipped", [False, True], ids=["plain", "gzip"])
@pytest.mark.parametrize("nanoseconds", [True, False], ids=["ns", "us"])
@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_pcap_of_either_order_and_resolution(tmp_path: Path, order: str, nanoseconds: bool, zipped: bool) -> None:
    frames = random_frames(random.Random(f"{order}{nanoseconds}"), 200, 1 if nanoseconds else 1_000)
    raw = pcap(frames, order=order, nanoseconds=nanoseconds, link=113)
    path = written(tmp_path, gzip.compress(raw) if zipped else raw)
    found, capture = frames_of(path)
    assert found == [(ts_ns, 113, frame) for ts_ns, frame in frames]
    assert (capture.format, capture.torn, capture.frames) == ("pcap", "", 200)
    assert is_capture(path)
    with RawPcapReader(str(path)) as reader:
        theirs = [(meta.sec * NS + meta.usec * (1 if nanoseconds else 1_000), data) for data, meta in reader]
    assert theirs == frames


def test_a_pcap_tells_what_was_on_the_wire_when_it_kept_less(tmp_path: Path) -> None:
    with CaptureFrames(written(tmp_path, pcap([(5, bytes(100))], snaplen=64, link=1 | 0x5400_0000))) as capture:
        assert [(frame.raw, frame.wire_bytes, frame.link) for frame in capture] == [(bytes(64), 100, 1)]


# Units of a second and an offset: how an interface declares them, and its times in ns.
RESOLUTIONS = {
    "default": (None, lambda units: units * 1_000),
    "ms": (3, lambda units: units * 1_000_000),
    "us": (6, lambda units: units * 1_000),
    "ns": (9, lambda units: units),
    "ps": (12, lambda units: units // 1_000),
    "2^-10": (0x80 | 10, lambda units: units * NS >> 10),
    "2^-30": (0x80 | 30, lambda units: units * NS >> 30),
}


@pytest.mark.parametrize("order", ["<", ">"], ids=["little", "big"])
def test_pcapng_of_either_order_resolution_and_offset(tmp_path: Path, order: str) -> None:
    rng = random.Random(order)
    file = NgWriter().section(order, NgWriter(order).option(4, b"a capturing program"))
    expected = []
    for number, (resolution, _) in enumerate(RESOLUTIONS.values()):
        file.interface(1 + number, resolution=resolution, offset_s=None if number % 2 else -number)
    for _ in range(300):
        number = rng.randrange(len(RESOLUTIONS))
        to_ns = [*RESOLUTIONS.values()][number][1]
        bits = next(bits for bits in range(60, 0, -1) if to_ns(1 << bits) <= TS_NS_MAX)
        units, frame = rng.getrandbits(bits), rng.randbytes(rng.randint(0, 200))
        getattr(file, rng.choice(["enhanced", "obsolete"]))(number, units, frame)
        if rng.random() < 0.2:
            file.block(rng.choice([4, 5, 0xBAD, 0x40000BAD]), rng.randbytes(rng.randint(0, 300)))
        expected.append((to_ns(units) - (0 if number % 2 else number * NS), 1 + number, frame))
    path = written(tmp_path, file.raw)
    found, capture = frames_of(path)
    assert found == expected
    assert (capture.format, capture.torn, capture.unreadable, capture.untimed) == ("pcapng", "", 0, 0)
    with RawPcapNgReader(str(path)) as reader:
        theirs = [(meta.linktype, data) for data, meta in reader]
    assert theirs == [(link, frame) for _, link, frame in expected]


def test_a_pcapng_section_begins_anew(tmp_path: Path) -> None:
    """Files are joined by writing one behind the other: another byte order, and interfaces of their own."""
    file = NgWriter().section("<").interface(1, resolution=9).enhanced(0, 7 * NS, b"first")
    file.section(">").interface(101).enhanced(0, 9_000_000, b"second").enhanced(1, 1, b"of no interface")
    found, capture = frames_of(written(tmp_path, file.raw))
    assert found == [(7 * NS, 1, b"first"), (9 * NS, 101, b"second")]
    assert (capture.unreadable, capture.torn) == (1, "")


def test_simple_packets_have_no_time_and_no_padding(tmp_path: Path) -> None:
    file = NgWriter().section("<").interface(1, snaplen=6).simple(b"abc").enhanced(0, 5, b"xy").simple(b"abcdef", wire=100)
    found, capture = frames_of(written(tmp_path, file.raw))
    assert found == [(0, 1, b"abc"), (5_000, 1, b"xy"), (5_000, 1, b"abcdef")]
    assert capture.untimed == 2


def test_packets_that_contradict_their_block_are_counted(tmp_path: Path) -> None:
    file = NgWriter().section("<").simple(b"before any interface").interface(1)
    file.block(6, struct.pack("<IIIII", 0, 0, 1, 999, 999) + b"short").block(6, b"shorter").enhanced(0, 1, b"good")
    found, capture = frames_of(written(tmp_path, file.raw))
    assert found == [(1_000, 1, b"good")]
    assert capture.unreadable == 3
    with Capture(written(tmp_path, file.raw)) as told:
        assert list(told.read()) == []
    assert "3 packets contradict their own block, name no interface, or have a time that cannot be: skipped" in told.passed_over()


def small_captures() -> dict[str, tuple[bytes, list[int]]]:
    """Files by format, each with the offsets at which a packet has just ended."""
    frames = [udp_frame(bytes(size)) for size in (0, 1, 7)]
    whole = [pcap([(number, frame) for number, frame in enumerate(frames[:count])]) for count in range(4)]
    ng = NgWriter().section("<").interface(1)
    ends = [len(ng.raw)]
    for number, frame in enumerate(frames):
        ends.append(len(ng.enhanced(0, number, frame).raw))
    return {"pcap": (whole[3], [len(part) for part in whole]), "pcapng": (ng.raw, ends)}


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_file_cut_anywhere_keeps_what_was_whole_and_is_told(tmp_path: Path, kind: str) -> None:
    raw, ends = small_captures()[kind]
    for size in range(ends[0], len(raw)):
        found, capture = frames_of(written(tmp_path, raw[:size]))
        assert len(found) == sum(end <= size for end in ends[1:]), size
        assert bool(capture.torn) == (size not in ends), size
        if capture.torn:
            assert capture.torn.startswith("it ends inside a packet at byte "), capture.torn
            assert f"after {len(found)} whole packets" in capture.torn
    assert frames_of(written(tmp_path, raw))[1].torn == ""


@pytest.mark.parametrize("kind", ["pcap", "pcapng"])
def test_a_file_cut_in_its_header_is_no_capture(tmp_path: Path, kind: str) -> None:
    raw, ends = small_captures()[kind]
    section = 24 if kind == "pcap" else 28
    for size in range(section):
        with pytest.raises(ValueError, match="expected a packet capture"):
            CaptureFrames(written(tmp_path, raw[:size]))
    assert section <= ends[0]


def test_a_torn_gzip_is_told(tmp_path: Path) -> None:
    rng = random.Random(1)
    raw = gzip.compress(pcap([(number, rng.randbytes(500)) for number in range(400)]))
    found, capture = frames_of(written(tmp_path, raw[: len(raw) // 2]))
    assert 0 < len(found) < 400
    assert "gzip stream is damaged or cut short" in capture.torn
    for damage in (b"\x10", b"\xff" * 40):
        # Text is packed as codes, of which some cannot be.
        raw = gzip.compress(pcap([(number, b"the quick brown fox %d" % number) for number in range(30_000)]))
        at = len(raw) * 9 // 10
        found, capture = frames_of(written(tmp_path, raw[:at] + damage + raw[at + len(damage) :]))
        assert len(found) > 400
        assert "gzip stream is damaged or cut short" in capture.torn or "damaged at byte" in capture.torn


HOSTILE = {
    "a packet of 4 GiB": (pcap([(1, b"good")]) + struct.pack("<IIII", 0, 0, 0xFFFFFFFF, 0xFFFFFFFF), "claims 4294967295 bytes"),
    "a packet one byte too long": (pcap([]) + struct.pack("<IIII", 0, 0, RECORD_BYTES_MAX + 1, 1) + bytes(300_000), "claims 262145 bytes"),
    "a block of length 0": (NgWriter().section("<").interface().raw + bytes(64), "a block claims length=0"),
    "a block of length 8": (NgWriter().section("<").raw + struct.pack("<II", 6, 8) + bytes(64), "a block claims length=8"),
    "a block of odd length": (NgWriter().section("<").raw + struct.pack("<II", 6, 33) + bytes(64), "a block claims length=33"),
    "a packet block of 4 GiB": (NgWriter().section("<").raw + struct.pack("<II", 6, 0xFFFFFFFC) + bytes(64), "claims 4294967292 bytes"),
    "an unknown block of 4 GiB": (NgWriter().section("<").raw + struct.pack("<II", 99, 0xFFFFFFFC) + bytes(64), "it ends inside"),
    "a block that ends with another length": (
        NgWriter().section("<").raw + struct.pack("<III", 99, 12, 16), "begins with length=12 and ends with 16",
    ),
    "a section without its magic": (NgWriter().section("<").raw + b"\x0a\x0d\x0d\x0a" + bytes(40), "without its byte-order magic"),
    "a short section": (NgWriter().section("<").raw + struct.pack("<IIIHH", 0x0A0D0D0A, 16, 0x1A2B3C4D, 1, 0), "claims length=16"),
    "a section of a later version": (
        NgWriter().section("<").raw + struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 2, 0, -1, 28), "pcapng version=2, expected 1",
    ),
    "an interface of 4 bytes": (NgWriter().section("<").block(1, bytes(4)).raw, "an interface without link type"),
}  # fmt: skip


@pytest.mark.parametrize(("raw", "told"), HOSTILE.values(), ids=HOSTILE)
def test_a_damaged_file_is_read_up_to_the_damage(tmp_path: Path, raw: bytes, told: str) -> None:
    path = written(tmp_path, raw)
    tracemalloc.start()
    try:
        _, capture = frames_of(path)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20
    finally:
        tracemalloc.stop()
    assert told in capture.torn


NO_CAPTURES = {
    "nothing": (b"", "it is empty"),
    "text": (b"# a readme", "it begins with 23 20 61 20"),
    "zstd": (b"\x28\xb5\x2f\xfd....", "run zstd -d"),
    "an old pcap": (struct.pack("<IHHiIII", 0xA1B2C3D4, 1, 2, 0, 0, 96, 1), "pcap version=1, expected 2"),
    "a newer pcapng": (struct.pack("<IIIHHqI", 0x0A0D0D0A, 28, 0x1A2B3C4D, 2, 0, -1, 28), "pcapng version=2, expected 1"),
    "a gzip of text": (gzip.compress(b"# a readme"), "it begins with 23 20 61 20"),
    "a gzip without its end": (gzip.compress(b"")[:4], "not a readable gzip file"),
}


@pytest.mark.parametrize(("raw", "told"), NO_CAPTURES.values(), ids=NO_CAPTURES)
def test_what_is_no_capture_is_said_in_a_sentence(tmp_path: Path, raw: bytes, told: str) -> None:
    path = written(tmp_path, raw)
    with pytest.raises(ValueError, match=r"^capture=") as refused:
        CaptureFrames(path)
    assert told in str(refused.value)


@pytest.mark.parametrize(("resolution", "offset_s", "units"), [(0, None, 1 << 62), (None, 1 << 60, 0), (None, -1, 0)])
def test_a_packet_of_no_time_there_is_is_skipped_and_counted(
    tmp_path: Path, resolution: int | None, offset_s: int | None, units: int
) -> None:
    writer = NgWriter().section("<").interface(resolution=resolution, offset_s=offset_s).interface()
    frames, capture = frames_of(written(tmp_path, writer.enhanced(0, units, b"never").enhanced(1, 7_000_000, b"good").raw))
    assert [raw for _, _, raw in frames] == [b"good"]
    assert (capture.unreadable, capture.torn) == (1, "")


def test_random_damage_never_ends_in_an_exception(tmp_path: Path) -> None:
    rng = random.Random(20_260)
    bases = [raw for raw, _ in small_captures().values()]
    for turn in range(600):
        raw = bytearray(rng.choice(bases))
        for _ in range(rng.randint(1, 8)):
            raw[rng.randrange(len(raw))] = rng.choice([0, 1, 0x7F, 0xFF, rng.randrange(256)])
        path = written(tmp_path, bytes(raw[: rng.randint(0, len(raw))] if rng.random() < 0.2 else raw))
        try:
            CaptureFrames(path).close()
        except ValueError as refused:
            assert str(refused).startswith("capture="), turn
            continue
        datagrams, capture = datagrams_of(path)
        assert len(datagrams) + sum(capture.refused.values()) == capture.frames, turn
        assert set(capture.refused) <= set(REFUSALS), turn


# Frames.

IP = scapy.IP(src="10.0.0.1", dst="233.54.12.111")
UDP = scapy.UDP(sport=5, dport=26477)
PAYLOAD = b"0123456789ABCDEFGHIJ"
EXPECTED = Datagram(7, address_of("10.0.0.1:5"), address_of("233.54.12.111:26477"), PAYLOAD)
WHOLE = IP / UDP / PAYLOAD
NO_LENGTH = b"\x45\0\0\0"
MAC = scapy.Ether(src="02:00:00:00:00:01", dst="01:00:5e:36:0c:6f")

CARRIERS = {
    "Ethernet": (1, MAC / WHOLE),
    "a VLAN": (1, MAC / scapy.Dot1Q(vlan=141) / WHOLE),
    "QinQ": (1, MAC / scapy.Dot1AD(vlan=5) / scapy.Dot1Q(vlan=6) / WHOLE),
    "Linux cooked": (113, scapy.CookedLinux(proto=0x0800) / WHOLE),
    "Linux cooked, VLAN": (113, scapy.CookedLinux(proto=0x8100) / scapy.Dot1Q(vlan=7) / WHOLE),
    "Linux cooked 2": (276, scapy.CookedLinuxV2(proto=0x0800) / WHOLE),
    "raw IP": (101, WHOLE),
    "raw IPv4": (228, WHOLE),
    "loopback, little-endian": (0, b"\2\0\0\0" + bytes(WHOLE)),
    "loopback, big-endian": (108, b"\0\0\0\2" + bytes(WHOLE)),
    "IP options": (1, MAC / scapy.IP(src="10.0.0.1", dst="233.54.12.111", options=[scapy.IPOption_Router_Alert()]) / UDP / PAYLOAD),
    "bytes behind the packet": (1, bytes(MAC / WHOLE) + b"a frame check sequence, a card's time"),
    "no length, as a card is to fill it in": (1, MAC / scapy.IP(src="10.0.0.1", dst="233.54.12.111", len=0) / UDP / PAYLOAD),
}


@pytest.mark.parametrize(("link", "frame"), CARRIERS.values(), ids=CARRIERS)
def test_a_datagram_is_found_in_every_carrier_and_a_cut_one_never(link: int, frame: object) -> None:
    raw = bytes(frame)  # type: ignore[call-overload]
    assert datagram_in(7, link, raw) == EXPECTED
    for size in range(raw.index(PAYLOAD) + len(PAYLOAD)):
        # Without an IP length, only the UDP length says that something is missing.
        assert datagram_in(7, link, raw[:size]) in (CUT, DAMAGED if NO_LENGTH in raw else CUT), size


REFUSED = {
    "TCP": (1, MAC / IP / scapy.TCP(), NOT_UDP),
    "IPv6": (1, MAC / scapy.IPv6() / UDP / PAYLOAD, NOT_IP),
    "IPv6, raw": (101, scapy.IPv6() / UDP / PAYLOAD, NOT_IP),
    "IPv6, loopback": (0, b"\x1e\0\0\0" + bytes(scapy.IPv6() / UDP), NOT_IP),
    "ARP": (1, MAC / scapy.ARP(), NOT_IP),
    "ARP in a VLAN": (1, MAC / scapy.Dot1Q() / scapy.ARP(), NOT_IP),
    "a first fragment": (1, MAC / scapy.IP(flags="MF") / UDP / PAYLOAD, FRAGMENT),
    "a later fragment": (1, MAC / scapy.IP(frag=185, proto=17) / PAYLOAD, FRAGMENT),
    "the frame of a snapshot length": (1, bytes(MAC / WHOLE)[:-1], CUT),
    "a VLAN tag cut off": (1, bytes(MAC / scapy.Dot1Q() / WHOLE)[:16], CUT),
    "an IP header of 16 bytes": (101, b"\x44" + bytes(IP / scapy.UDP(sport=28, dport=26477) / PAYLOAD)[1:], DAMAGED),
    "an IP length within its header": (101, bytes(WHOLE)[:2] + b"\0\x13" + bytes(WHOLE)[4:], DAMAGED),
    "no room for a UDP header": (101, scapy.IP(proto=17) / b"1234567", DAMAGED),
    "a UDP length over the IP length": (101, IP / scapy.UDP(len=29) / PAYLOAD, DAMAGED),
    "a UDP length of 7": (101, IP / scapy.UDP(len=7) / PAYLOAD, DAMAGED),
    "token ring": (6, MAC / WHOLE, UNKNOWN_LINK),
}


@pytest.mark.parametrize(("link", "frame", "kind"), REFUSED.values(), ids=REFUSED)
def test_what_is_no_whole_datagram_is_named(link: int, frame: object, kind: str, tmp_path: Path) -> None:
    raw = bytes(frame)  # type: ignore[call-overload]
    assert datagram_in(7, link, raw) == kind
    _, capture = datagrams_of(written(tmp_path, pcap([(1, raw)], link=link)))
    assert capture.passed_over() == [f"1 of 1 packets {REFUSALS[kind]}: skipped"]


@pytest.mark.parametrize("to", ["239.255.129.7:26400", "127.0.0.1:65535", "224.0.0.1:1"])
def test_a_recorded_frame_is_one_that_could_have_come(to: str) -> None:
    rng = random.Random(to)
    for size in (0, 1, 1_472, 40_000):
        payload = rng.randbytes(size)
        source = rng.getrandbits(32) << 16 | rng.getrandbits(16)
        raw = ethernet_frame(source, address_of(to), payload, 70_000)
        assert datagram_in(3, 1, raw) == Datagram(3, source, address_of(to), payload)
        theirs = scapy.Ether(raw)
        assert f"{theirs[scapy.IP].dst}:{theirs[scapy.UDP].dport}" == to
        assert f"{theirs[scapy.IP].src}:{theirs[scapy.UDP].sport}" == address_text(source)
        again = scapy.IP(bytes(theirs[scapy.IP]))
        told = again.chksum
        del again.chksum
        assert scapy.IP(bytes(again)).chksum == told
        if theirs[scapy.IP].dst != "127.0.0.1":
            assert theirs.dst == scapy.getmacbyip(theirs[scapy.IP].dst)


def test_what_is_written_is_read_by_scapy(tmp_path: Path) -> None:
    frames = random_frames(random.Random(9), 50, 1)
    path = written(tmp_path, file_header() + b"".join(record(ts_ns, frame) for ts_ns, frame in frames))
    assert frames_of(path)[0] == [(ts_ns, 1, frame) for ts_ns, frame in frames]
    with RawPcapReader(str(path)) as reader:
        assert reader.nano
        assert reader.linktype == 1
        assert [(meta.sec * NS + meta.usec, data) for data, meta in reader] == frames


@pytest.mark.parametrize("text", ["", "1.2.3.4", "1.2.3:5", "1.2.3.256:5", "1.2.3.4:65536", "1.2.3.4:", "::1:5", "1.2.3.-4:5", "a.b.c.d:5"])
def test_what_is_no_address_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected an IPv4 address and a port"):
        address_of(text)
    assert address_text(address_of("233.54.12.111:26477")) == "233.54.12.111:26477"


# Lines.


def feed_file(tmp_path: Path, sent: list[tuple[tuple[str, int], bytes]]) -> Path:
    return written(tmp_path, pcap([(number, udp_frame(payload, to)) for number, (to, payload) in enumerate(sent)]))


def test_lines_are_the_first_session_with_itch_and_where_else_it_goes(tmp_path: Path) -> None:
    rng = random.Random(4)
    raw = [random_message(rng.choice(itch.MESSAGES), rng)[0] for _ in range(6)]
    other, third = ("10.0.0.9", 53), ("239.0.0.1", 1)
    sent = [
        (other, b"no feed at all"), (other, packet(1, [b"not itch"])), (other, packet(1, raw)[:-1]), (A, heartbeat(1)),
        (third, packet(1, raw[:1], session="OTHER")), (A, packet(1, raw[:2])), (B, packet(1, raw[:2])), (B, packet(3, raw[2:5])),
        (A, packet(4, raw[3:5])), (B, packet(1, raw[:2])), (A, packet(3, raw[2:4])), (A, end_of_session(6)),
    ]  # fmt: skip
    path = feed_file(tmp_path, sent)
    lines = find_lines(path)
    assert (address_text(lines.a), address_text(lines.b or 0)) == (f"{A[0]}:{A[1]}", f"{B[0]}:{B[1]}")
    assert (lines.session, lines.sequence) == ("TEST000001", 1)
    assert str(lines) == f"line A is {A[0]}:{A[1]}, line B {B[0]}:{B[1]}"
    assert list(messages_of(path, lines)) == raw[:5]
    alone = chosen_lines(path, "239.0.0.1:1", "")
    assert alone.b is None
    assert list(messages_of(path, alone)) == raw[:1]
    with pytest.raises(ValueError, match=r"^feed.address_b=1.2.3.4:5: nothing in the capture .* went to 10.0.0.9:53 \(3\)|233") as refused:
        chosen_lines(path, "239.0.0.1:1", "1.2.3.4:5")
    assert "10.0.0.9:53 (3)" in str(refused.value)
    with pytest.raises(ValueError, match="it is line A's address too"):
        chosen_lines(path, "239.0.0.1:1", "239.0.0.1:1")


def test_a_feed_begins_with_the_lower_of_its_lines_first_numbers(tmp_path: Path) -> None:
    raw = [random_message(itch.SYSTEM_EVENT, random.Random(number))[0] for number in range(2)]
    assert find_lines(feed_file(tmp_path, [(A, packet(8, raw)), (B, packet(7, raw))])).sequence == 7
    assert find_lines(feed_file(tmp_path, [(A, packet(8, raw)), (B, packet(9, raw))])).sequence == 8


def test_a_later_session_begins_its_numbers_anew(tmp_path: Path) -> None:
    raw = [random_message(itch.SYSTEM_EVENT, random.Random(number))[0] for number in range(4)]
    sent = [
        (A, packet(10, raw[:2])),
        (A, packet(10, raw[:2])),
        (A, packet(3, raw[2:3], session="NEXT")),
        (A, packet(4, raw[3:], session="NEXT")),
    ]
    path = feed_file(tmp_path, sent)
    assert list(messages_of(path, find_lines(path))) == raw


def test_mold_packets_are_taken_only_whole() -> None:
    raw = packet(5, [b"abc", b"", b"defg"])
    taken = mold_packet(raw)
    assert taken is not None
    assert (taken.session, taken.sequence, taken.count, taken.messages) == ("TEST000001", 5, 3, [b"abc", b"", b"defg"])
    assert not is_itch(taken)
    ended = mold_packet(end_of_session(9))
    assert ended is not None
    assert (ended.sequence, ended.count, ended.messages) == (9, 0xFFFF, [])
    for damaged in (*(raw[:size] for size in range(len(raw))), raw + b"x", b"\xff" + raw[1:], packet(5, [b"abc"], count=0)):
        assert mold_packet(damaged) is None
