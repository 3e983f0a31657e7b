"""Capture files: the frames in a pcap or pcapng file, plain or through gzip, with their times to the nanosecond.

    pcap     magic, version, zone, sigfigs, snaplen, link | seconds, fraction, captured, on the wire, frame | ...
    pcapng   type, length, body, length                   | ...   section headers, interfaces, packets; all else is passed over

Both byte orders; fractions of a microsecond or a nanosecond (pcap), any resolution and offset an interface declares (pcapng:
draft-ietf-opsawg-pcapng, sections 4.1 to 4.4 and the obsolete packet block of appendix A). Where a file stops being a capture, reading
ends and `torn` says where; what was whole before it has been yielded. No length that a file claims is believed beyond RECORD_BYTES_MAX.
"""

import gzip
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO, NamedTuple, Self, cast

NS_PER_S = 1_000_000_000
# In the year 2262: the last time that an int64 tells in nanoseconds, which is how packets carry theirs.
TS_NS_MAX = (1 << 63) - 1

# The largest snapshot length that tcpdump and Wireshark write: what claims more is damage.
RECORD_BYTES_MAX = 262_144
# A block that is passed over is never held whole.
PASSED_BYTES = 1 << 16
READ_AHEAD_BYTES = 1 << 18

# Magic numbers as they lie in the file: byte order, and nanoseconds in one unit of a time's fraction.
PCAP_MAGICS = {
    b"\xa1\xb2\xc3\xd4": (">", 1_000),
    b"\xd4\xc3\xb2\xa1": ("<", 1_000),
    b"\xa1\xb2\x3c\x4d": (">", 1),
    b"\x4d\x3c\xb2\xa1": ("<", 1),
}
PCAPNG_MAGIC = b"\x0a\x0d\x0d\x0a"
GZIP_MAGIC = b"\x1f\x8b"
ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
MAGIC_BYTES = 4
WANTED = "expected a packet capture: pcap or pcapng, plain or gzip"

INTERFACE = 1
OBSOLETE_PACKET = 2
SIMPLE_PACKET = 3
ENHANCED_PACKET = 6
KNOWN_BLOCKS = (INTERFACE, OBSOLETE_PACKET, SIMPLE_PACKET, ENHANCED_PACKET)
ORDER_MAGICS = {b"\x1a\x2b\x3c\x4d": ">", b"\x4d\x3c\x2b\x1a": "<"}
OPTION_RESOLUTION = 9
OPTION_OFFSET = 14

LINK_ETHERNET = 1
# Above the link type's 16 bits some writers say how long the frame check sequence is.
LINK_MASK = 0xFFFF


class Frame(NamedTuple):
    """One captured frame: its time (0: none in the file so far), link type, bytes, and how many there were on the wire."""

    ts_ns: int
    link: int
    raw: bytes
    wire_bytes: int


class _Torn(Exception):
    """The file stops being a capture here."""


class _Interface(NamedTuple):
    link: int
    snaplen: int
    numerator: int
    denominator: int
    offset_ns: int


def is_capture(path: Path) -> bool:
    """Whether a file begins as a capture does, plain or in gzip. OSError where it cannot be read."""
    try:
        with _open(path) as file:
            head = file.read(MAGIC_BYTES)
    except (EOFError, gzip.BadGzipFile, zlib.error):
        return False
    return head in PCAP_MAGICS or head == PCAPNG_MAGIC


class CaptureFrames:
    """The frames of a capture, once, in the file's order.

    `format` is "pcap" or "pcapng"; `torn` a sentence where the file ends inside a record or is damaged ("" while it is well);
    `unreadable` counts pcapng packets that contradict their own block, name no interface, or a time before 1970 or beyond TS_NS_MAX;
    `untimed` those that have no time.
    """

    def __init__(self, path: Path) -> None:
        """OSError where the file cannot be read, ValueError where it is no capture."""
        if path.is_dir():
            raise ValueError(f"capture={path}: it is a directory; {WANTED}")
        self.path = path
        self.torn = ""
        self.frames = 0
        self.unreadable = 0
        self.untimed = 0
        self._at = 0
        self._record_at = 0
        self._last_ns = 0
        self._interfaces: list[_Interface] = []
        self._file = _open(path)
        try:
            head = self._file.read(MAGIC_BYTES)
            self._at = len(head)
            if head in PCAP_MAGICS:
                self.format = "pcap"
                self._order, self._unit_ns = PCAP_MAGICS[head]
                self._link = self._read_pcap_header()
            elif head == PCAPNG_MAGIC:
                self.format = "pcapng"
                self._order = "<"
                self._read_section()
            else:
                raise ValueError(f"capture={path}: {_what(head)}; {WANTED}")
        except _Torn as torn:
            self._file.close()
            raise ValueError(f"capture={path}: {torn} in its header; {WANTED}") from None
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self._file.close()
            raise ValueError(f"capture={path}: not a readable gzip file: {error}; {WANTED}") from None
        except BaseException:
            self._file.close()
            raise

    def close(self) -> None:
        self._file.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __iter__(self) -> Iterator[Frame]:
        try:
            for frame in self._pcap() if self.format == "pcap" else self._pcapng():
                self.frames += 1
                yield frame
        except _Torn as torn:
            self.torn = f"{torn} at byte {self._record_at}, after {self.frames} whole packets: nothing behind it was read"
        except (EOFError, gzip.BadGzipFile, zlib.error) as error:
            self.torn = f"the gzip stream is damaged or cut short ({error}), after {self.frames} whole packets"

    def _read(self, size: int) -> bytes:
        """Exactly `size` bytes; nothing at the file's end."""
        raw = self._file.read(size)
        self._at += len(raw)
        if len(raw) != size and raw:
            raise _Torn("it ends inside a packet")
        return raw

    def _read_on(self, size: int) -> bytes:
        """Exactly `size` bytes of a record that has begun."""
        raw = self._read(size)
        if len(raw) != size:
            raise _Torn("it ends inside a packet")
        return raw

    def _read_pcap_header(self) -> int:
        major, _, _, _, _, link = struct.unpack(self._order + "HHiIII", self._read_on(20))
        if major != 2:
            raise ValueError(f"capture={self.path}: pcap version={major}, expected 2")
        return int(link) & LINK_MASK

    def _pcap(self) -> Iterator[Frame]:
        head = struct.Struct(self._order + "IIII")
        unit_ns, link = self._unit_ns, self._link
        while True:
            self._record_at = self._at
            raw = self._read(head.size)
            if not raw:
                return
            seconds, fraction, captured, wire_bytes = head.unpack(raw)
            if captured > RECORD_BYTES_MAX:
                raise _Torn(f"a packet claims {captured} bytes, more than any capture holds ({RECORD_BYTES_MAX}): damaged")
            yield Frame(seconds * NS_PER_S + fraction * unit_ns, link, self._read_on(captured) if captured else b"", wire_bytes)

    def _pcapng(self) -> Iterator[Frame]:
        while True:
            self._record_at = self._at
            raw = self._read(4)
            if not raw:
                return
            if raw == PCAPNG_MAGIC:
                self._read_section()
                continue
            kind = int.from_bytes(raw, "little" if self._order == "<" else "big")
            body = self._read_block(kind)
            if kind == INTERFACE:
                self._interfaces.append(self._interface(body))
            elif body:
                frame = self._packet(kind, body)
                if frame is not None:
                    yield frame

    def _read_section(self) -> None:
        """A section begins: its byte order holds from here, and no interface is known any more."""
        head = self._read_on(8)
        order = ORDER_MAGICS.get(head[4:])
        if order is None:
            raise _Torn("a section header without its byte-order magic: damaged")
        self._order = order
        self._interfaces = []
        (length,) = struct.unpack(order + "I", head[:4])
        if length < 28:
            raise _Torn(f"a section header claims length={length}, expected at least 28: damaged")
        major, _ = struct.unpack(order + "HH", self._read_on(4))
        if major != 1:
            raise _Torn(f"pcapng version={major}, expected 1")
        self._pass_over(length - 20)
        self._check_trailer(length)

    def _read_block(self, kind: int) -> bytes:
        """The body of a block of a known kind; other kinds are passed over, however long they are, and give nothing."""
        (length,) = struct.unpack(self._order + "I", self._read_on(4))
        if length < 12 or length % 4:
            raise _Torn(f"a block claims length={length}, expected a multiple of 4 from 12 on: damaged")
        if kind not in KNOWN_BLOCKS:
            self._pass_over(length - 12)
            self._check_trailer(length)
            return b""
        if length > 2 * RECORD_BYTES_MAX:
            raise _Torn(f"a packet's block claims {length} bytes, more than any capture holds: damaged")
        body = self._read_on(length - 12) if length > 12 else b""
        self._check_trailer(length)
        return body

    def _check_trailer(self, length: int) -> None:
        (again,) = struct.unpack(self._order + "I", self._read_on(4))
        if again != length:
            raise _Torn(f"a block begins with length={length} and ends with {again}: damaged")

    def _pass_over(self, size: int) -> None:
        while size > 0:
            size -= len(self._read_on(min(size, PASSED_BYTES)))

    def _interface(self, body: bytes) -> _Interface:
        if len(body) < 8:
            raise _Torn("an interface without link type and snapshot length: damaged")
        link, _, snaplen = struct.unpack_from(self._order + "HHI", body)
        numerator, denominator, offset_ns = 1_000, 1, 0
        for code, value in _options(body[8:], self._order):
            if code == OPTION_RESOLUTION and value:
                base, power = (2, value[0] & 0x7F) if value[0] & 0x80 else (10, value[0])
                numerator, denominator = NS_PER_S, base**power
            elif code == OPTION_OFFSET and len(value) == 8:
                offset_ns = struct.unpack(self._order + "q", value)[0] * NS_PER_S
        return _Interface(link, snaplen, numerator, denominator, offset_ns)

    def _packet(self, kind: int, body: bytes) -> Frame | None:
        if kind == SIMPLE_PACKET:
            return self._simple_packet(body)
        if len(body) < 20:
            self.unreadable += 1
            return None
        number, high, low, captured, wire_bytes = struct.unpack_from(
            self._order + ("IIIII" if kind == ENHANCED_PACKET else "HxxIIII"), body
        )
        if number >= len(self._interfaces) or captured > len(body) - 20:
            self.unreadable += 1
            return None
        on = self._interfaces[number]
        ts_ns = ((high << 32 | low) * on.numerator) // on.denominator + on.offset_ns
        if not 0 <= ts_ns <= TS_NS_MAX:
            self.unreadable += 1
            return None
        self._last_ns = ts_ns
        return Frame(self._last_ns, on.link, body[20 : 20 + captured], wire_bytes)

    def _simple_packet(self, body: bytes) -> Frame | None:
        """A packet without a time or an interface: it came on the section's first, and when the one before it did."""
        if len(body) < 4 or not self._interfaces:
            self.unreadable += 1
            return None
        self.untimed += 1
        on = self._interfaces[0]
        (wire_bytes,) = struct.unpack_from(self._order + "I", body)
        captured = min(wire_bytes, on.snaplen or wire_bytes, len(body) - 4)
        return Frame(self._last_ns, on.link, body[4 : 4 + captured], wire_bytes)


def _options(raw: bytes, order: str) -> Iterator[tuple[int, bytes]]:
    at = 0
    while at + 4 <= len(raw):
        code, length = struct.unpack_from(order + "HH", raw, at)
        if code == 0:
            return
        yield code, raw[at + 4 : at + 4 + length]
        at += 4 + (length + 3) // 4 * 4


def _open(path: Path) -> BinaryIO:
    with path.open("rb") as file:
        zipped = file.read(len(GZIP_MAGIC)) == GZIP_MAGIC
    return cast(BinaryIO, gzip.open(path, "rb") if zipped else path.open("rb", buffering=READ_AHEAD_BYTES))


def _what(head: bytes) -> str:
    if not head:
        return "it is empty"
    if head == ZSTD_MAGIC:
        return "it is compressed with zstd, which is not read here: run zstd -d on it first"
    return f"it begins with {head.hex(' ')}"


def file_header() -> bytes:
    """The header of a pcap file of Ethernet frames, little-endian, with nanoseconds."""
    return struct.pack("<IHHiIII", 0xA1B23C4D, 2, 4, 0, 0, RECORD_BYTES_MAX, LINK_ETHERNET)


def record(ts_ns: int, frame: bytes) -> bytes:
    """A frame as a record of such a file."""
    seconds, fraction = divmod(ts_ns, NS_PER_S)
    return struct.pack("<IIII", seconds, fraction, len(frame), len(frame)) + frame
