"""From a captured frame to the UDP datagram in it, and back: link layers, VLAN tags, IPv4, UDP.

What is not a whole UDP datagram over IPv4 is one of REFUSALS, to be counted, never guessed at. Checksums are not looked at: a
capture made on the sending machine holds them as the card had not filled them in yet.
"""

import struct
from collections.abc import Callable
from typing import NamedTuple

# Link types of the tcpdump registry.
LINK_NULL = 0
LINK_ETHERNET = 1
LINK_RAW = (12, 14, 101, 228)
LINK_LOOP = 108
LINK_COOKED = 113
LINK_COOKED_2 = 276

TYPE_IPV4 = 0x0800
TYPES_VLAN = (0x8100, 0x88A8, 0x9100, 0x9200)
TAG_BYTES = 4
UDP = 17
UDP_HEADER_BYTES = 8
IP_HEADER_BYTES = 20
# More fragments, or an offset other than 0.
FRAGMENT_MASK = 0x3FFF

NOT_IP = "not_ipv4"
NOT_UDP = "not_udp"
FRAGMENT = "fragments"
CUT = "cut_short"
DAMAGED = "damaged"
UNKNOWN_LINK = "unknown_links"
REFUSALS = {
    NOT_IP: "are not IPv4",
    NOT_UDP: "are not UDP",
    FRAGMENT: "are fragments of a datagram, which are not put together here",
    CUT: "were captured in part only (a snapshot length too small for them)",
    DAMAGED: "have lengths that contradict each other",
    UNKNOWN_LINK: "are of a link type that is not read here (Ethernet, Linux cooked, loopback and raw IP are)",
}


class Datagram(NamedTuple):
    """One UDP datagram. source and destination are addresses as numbers: the host's 32 bits, then the port's 16."""

    ts_ns: int
    source: int
    destination: int
    payload: bytes


def address_of(text: str) -> int:
    """'host:port' as a number. ValueError names what is not one."""
    host, _, port = text.rpartition(":")
    parts = host.split(".")
    if len(parts) != 4 or not all(part.isdecimal() and int(part) < 256 for part in parts) or not port.isdecimal() or int(port) > 0xFFFF:
        raise ValueError(f"address={text}: expected an IPv4 address and a port, as in 233.54.12.111:26477")
    return int.from_bytes(bytes(map(int, parts)), "big") << 16 | int(port)


def address_text(address: int) -> str:
    return f"{'.'.join(map(str, (address >> 16).to_bytes(4, 'big')))}:{address & 0xFFFF}"


def datagram_in(ts_ns: int, link: int, raw: bytes) -> Datagram | str:
    """The UDP datagram in a frame, or which of REFUSALS it is."""
    found = LINKS.get(link)
    if found is None:
        return UNKNOWN_LINK
    at = found(raw)
    if at < 0:
        return NOT_IP if at == -1 else CUT
    size = len(raw)
    if size - at < IP_HEADER_BYTES:
        return CUT
    if raw[at] >> 4 != 4:
        return NOT_IP
    length, fragment = struct.unpack_from(">HxxH", raw, at + 2)
    header = (raw[at] & 15) * 4
    # What the card is to cut into packets yet has no length: it reaches to the frame's end.
    length = length or size - at
    if header < IP_HEADER_BYTES:
        return DAMAGED
    if raw[at + 9] != UDP:
        return NOT_UDP
    if fragment & FRAGMENT_MASK:
        return FRAGMENT
    if at + length > size:
        return CUT
    udp = at + header
    if length < header + UDP_HEADER_BYTES:
        return DAMAGED
    from_port, to_port, udp_length = struct.unpack_from(">HHH", raw, udp)
    if not UDP_HEADER_BYTES <= udp_length <= length - header:
        return DAMAGED
    source = int.from_bytes(raw[at + 12 : at + 16], "big") << 16 | from_port
    destination = int.from_bytes(raw[at + 16 : at + 20], "big") << 16 | to_port
    return Datagram(ts_ns, source, destination, raw[udp + UDP_HEADER_BYTES : udp + udp_length])


def _after_tags(raw: bytes, kind: int, at: int) -> int:
    """Where IPv4 begins behind VLAN tags, the first of which would be at `at`: -1 where it is something else, -2 where the frame ends."""
    while kind in TYPES_VLAN:
        if len(raw) < at + TAG_BYTES:
            return -2
        kind = raw[at + 2] << 8 | raw[at + 3]
        at += TAG_BYTES
    return at if kind == TYPE_IPV4 else -1


def _ethernet(raw: bytes) -> int:
    return _after_tags(raw, raw[12] << 8 | raw[13], 14) if len(raw) >= 14 else -2


def _cooked(raw: bytes) -> int:
    return _after_tags(raw, raw[14] << 8 | raw[15], 16) if len(raw) >= 16 else -2


def _cooked_2(raw: bytes) -> int:
    return _after_tags(raw, raw[0] << 8 | raw[1], 20) if len(raw) >= 20 else -2


def _loopback(raw: bytes) -> int:
    """Four bytes of address family in the byte order of who captured; AF_INET is 2 everywhere."""
    if len(raw) < 4:
        return -2
    return 4 if raw[:4] in (b"\0\0\0\2", b"\2\0\0\0") else -1


def _bare(raw: bytes) -> int:
    return 0


LINKS: dict[int, Callable[[bytes], int]] = {
    LINK_NULL: _loopback,
    LINK_ETHERNET: _ethernet,
    LINK_LOOP: _loopback,
    LINK_COOKED: _cooked,
    LINK_COOKED_2: _cooked_2,
    **dict.fromkeys(LINK_RAW, _bare),
}


def ethernet_frame(source: int, destination: int, payload: bytes, number: int) -> bytes:
    """A UDP datagram as the Ethernet frame that would have carried it; `number` becomes the IP identification.

    The sender's MAC address is made up (locally administered), as is that of a unicast receiver; UDP has no checksum, as IPv4 allows.
    """
    length = IP_HEADER_BYTES + UDP_HEADER_BYTES + len(payload)
    to_host, from_host = destination >> 16, source >> 16
    head = struct.pack(
        ">BBHHHBBHII", 0x45, 0, length & 0xFFFF, number & 0xFFFF, 0x4000, 64, UDP, 0, from_host, to_host
    )  # fmt: skip
    head = head[:10] + _checksum(head).to_bytes(2, "big") + head[12:]
    # RFC 1112, 6.4: a group's MAC address ends in the low 23 bits of its IP address.
    to_mac = b"\x01\x00\x5e" + (to_host & 0x7FFFFF).to_bytes(3, "big") if to_host >> 28 == 14 else b"\x02\x00" + to_host.to_bytes(4, "big")
    from_mac = b"\x02\x00" + from_host.to_bytes(4, "big")
    udp = struct.pack(">HHHH", source & 0xFFFF, destination & 0xFFFF, UDP_HEADER_BYTES + len(payload), 0)
    return to_mac + from_mac + TYPE_IPV4.to_bytes(2, "big") + head + udp + payload


def _checksum(header: bytes) -> int:
    """The internet checksum (RFC 1071) of a header whose own checksum field is 0."""
    total = sum(struct.unpack(f">{len(header) // 2}H", header))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return total ^ 0xFFFF
