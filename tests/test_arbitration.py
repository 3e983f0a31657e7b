"""A real pair of lines: CME's A and B multicast of the same data, in the order in which their packets were captured.

The payload is not decoded. Each becomes a MoldUDP64 packet with one message that can be told from all others when it comes out: a trade
whose match number is CME's sequence number and whose price and quantity are made of the payload's bytes.
"""

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from engine.feed import itch
from engine.feed.recovery import Recovery
from tests.feed_house import feed_house, only
from tests.itch_flow import packet
from tests.ports import free_port

CAPTURE = Path(__file__).resolve().parents[1].parent / "shared" / "data" / "cme" / "Cme.Mdp3.Sbe.v1.6.Example.pcap"
needs_data = pytest.mark.skipif(not CAPTURE.exists(), reason=f"no real market data: {CAPTURE} is absent")

ENHANCED_PACKET = 6
ETHERNET_BYTES, UDP_BYTES = 14, 8
PACKETS = 5_000
FIRST_BY_LINE = [4_250, 750]


def captured() -> Iterator[tuple[str, bytes]]:
    """(destination, UDP payload) of every packet of a little-endian pcapng file, in its order."""
    raw = CAPTURE.read_bytes()
    at = 0
    while at < len(raw):
        kind, size = struct.unpack_from("<II", raw, at)
        if kind == ENHANCED_PACKET:
            (kept,) = struct.unpack_from("<I", raw, at + 20)
            ip = raw[at + 28 + ETHERNET_BYTES : at + 28 + kept]
            udp = ip[(ip[0] & 15) * 4 :]
            port, length = struct.unpack_from(">HH", udp, 2)
            yield f"{'.'.join(map(str, ip[16:20]))}:{port}", udp[UDP_BYTES:length]
        at += size


def as_trade(payload: bytes) -> bytes:
    """A message that says which payload it stands for."""
    (sequence,) = struct.unpack_from("<I", payload)
    return itch.TRADE.encode(
        locate=1, tracking=0, timestamp=sequence, ref=0, side="B", shares=1 + (zlib.adler32(payload) & 0x7FFFFFFF), stock="CME",
        px=zlib.crc32(payload), match=sequence,
    )  # fmt: skip


@needs_data
def test_two_real_lines_give_their_gapless_union_first_come_first_taken() -> None:
    packets = list(captured())
    lines = list(dict.fromkeys(destination for destination, _ in packets))
    sequences = [struct.unpack_from("<I", payload)[0] for _, payload in packets]
    begin = min(sequences)
    whole = {}
    first = [0, 0]
    for (destination, payload), sequence in zip(packets, sequences, strict=True):
        first[lines.index(destination)] += sequence not in whole
        assert whole.setdefault(sequence, payload) == payload, "the lines differ"
    assert len(lines) == 2 and sorted(whole) == list(range(begin, begin + PACKETS)) and first == FIRST_BY_LINE

    addresses = [("127.0.0.1", free_port()), ("127.0.0.1", free_port())]
    ticks = []
    with feed_house(address=addresses[0], address_b=addresses[1], recovery=Recovery(reorder_us=1_000_000)) as house:
        for (destination, payload), sequence in zip(packets, sequences, strict=True):
            house.sender.sendto(packet(sequence - begin + 1, [as_trade(payload)]), addresses[lines.index(destination)])
            ticks += house.settle()
        counted = house.counted()
        by_line = [{name: int(row[name]) for name in row.dtype.names} for row in house.lines_table.records[:2]]
    expected = [(sequence, zlib.crc32(whole[sequence]), 1 + (zlib.adler32(whole[sequence]) & 0x7FFFFFFF)) for sequence in sorted(whole)]
    assert only(ticks, "trade", "match_id", "px", "qty") == expected
    assert [line["first"] for line in by_line] == FIRST_BY_LINE
    assert [line["duplicates"] for line in by_line] == [PACKETS - count for count in FIRST_BY_LINE]
    assert (counted["messages"], counted["duplicates"]) == (PACKETS, PACKETS)
    assert [line["lost"] + line["repeated"] for line in by_line] == [0, 0]
    assert not any(counted.get(name) for name in ("lost", "malformed", "foreign", "requests"))
