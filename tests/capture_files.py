"""Capture files for tests, written from the file formats' descriptions and not with the code that reads them."""

import struct
from collections.abc import Sequence
from dataclasses import dataclass

NS = 1_000_000_000
A = ("233.54.12.111", 26477)
B = ("233.49.196.111", 26477)
SENDER = ("206.200.127.138", 49653)


def pcap(
    records: Sequence[tuple[int, bytes]], *, order: str = "<", nanoseconds: bool = True, link: int = 1, snaplen: int = 262144
) -> bytes:
    """A pcap file of (time in ns, frame)."""
    magic, unit = (0xA1B23C4D, 1) if nanoseconds else (0xA1B2C3D4, 1000)
    parts = [struct.pack(order + "IHHiIII", magic, 2, 4, 0, 0, snaplen, link)]
    for ts_ns, frame in records:
        kept = frame[:snaplen]
        parts += [struct.pack(order + "IIII", ts_ns // NS, ts_ns % NS // unit, len(kept), len(frame)), kept]
    return b"".join(parts)


@dataclass
class NgWriter:
    """A pcapng file, block by block, in one byte order a section."""

    order: str = "<"
    raw: bytes = b""

    def block(self, kind: int, body: bytes) -> "NgWriter":
        body += bytes(-len(body) % 4)
        length = struct.pack(self.order + "I", len(body) + 12)
        self.raw += struct.pack(self.order + "I", kind) + length + body + length
        return self

    def section(self, order: str, options: bytes = b"") -> "NgWriter":
        self.order = order
        return self.block(0x0A0D0D0A, struct.pack(order + "IHHq", 0x1A2B3C4D, 1, 0, -1) + options)

    def option(self, code: int, value: bytes) -> bytes:
        return struct.pack(self.order + "HH", code, len(value)) + value + bytes(-len(value) % 4)

    def interface(self, link: int = 1, *, snaplen: int = 0, resolution: int | None = None, offset_s: int | None = None) -> "NgWriter":
        options = self.option(2, b"eth0")
        if resolution is not None:
            options += self.option(9, bytes([resolution]))
        if offset_s is not None:
            options += self.option(14, struct.pack(self.order + "q", offset_s))
        return self.block(1, struct.pack(self.order + "HHI", link, 0, snaplen) + options + bytes(4))

    def enhanced(self, interface: int, units: int, frame: bytes, *, wire: int | None = None) -> "NgWriter":
        head = struct.pack(
            self.order + "IIIII", interface, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame) if wire is None else wire
        )
        return self.block(6, head + frame + bytes(-len(frame) % 4) + self.option(1, b"a comment") + bytes(4))

    def obsolete(self, interface: int, units: int, frame: bytes) -> "NgWriter":
        head = struct.pack(self.order + "HHIIII", interface, 7, units >> 32, units & 0xFFFFFFFF, len(frame), len(frame))
        return self.block(2, head + frame)

    def simple(self, frame: bytes, *, wire: int | None = None) -> "NgWriter":
        return self.block(3, struct.pack(self.order + "I", len(frame) if wire is None else wire) + frame)


def ip_bytes(address: str) -> bytes:
    return bytes(map(int, address.split(".")))


def udp_frame(payload: bytes, to: tuple[str, int] = A, source: tuple[str, int] = SENDER, *, vlans: int = 0, padding: int = 0) -> bytes:
    """An Ethernet frame with a UDP datagram. Checksums are 0: nobody looks at them."""
    udp = struct.pack(">HHHH", source[1], to[1], 8 + len(payload), 0) + payload
    ip = struct.pack(">BBHHHBBH", 0x45, 0, 20 + len(udp), 1, 0x4000, 8, 17, 0) + ip_bytes(source[0]) + ip_bytes(to[0])
    tags = b"".join(bytes.fromhex("88a80064" if tag + 1 < vlans else "8100008d") for tag in range(vlans))
    return bytes(12) + tags + b"\x08\x00" + ip + udp + bytes(padding)
