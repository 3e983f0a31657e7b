"""How a venue's binary messages are written down once: a table of fields, from which offsets and codecs follow.

Kernels take offsets out of these tables as constants; the cold codecs here serve tests, captures and tools. Integers are
unsigned and big-endian; text is ASCII, left-justified and space-filled, as all of NASDAQ's protocols have it.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Value = int | str


@dataclass(frozen=True)
class Field:
    """One field: its name, its length in bytes, and whether it is text."""

    name: str
    length: int
    text: bool = False


def number(name: str, length: int) -> Field:
    return Field(name, length)


def text(name: str, length: int) -> Field:
    return Field(name, length, text=True)


class Message:
    """One message type: `code` is its first byte; offsets count from there."""

    def __init__(self, name: str, code: str, *fields: Field) -> None:
        self.name = name
        self.code = ord(code)
        self.fields = (text("type", 1), *fields)
        self.offsets: dict[str, int] = {}
        length = 0
        for field in self.fields:
            self.offsets[field.name] = length
            length += field.length
        self.length = length

    def __getitem__(self, field: str) -> int:
        """The offset of a field."""
        return self.offsets[field]

    def encode(self, **values: Value) -> bytes:
        """The message with every field given by name. ValueError names a field that is missing, unknown or does not fit."""
        known = {field.name for field in self.fields} - {"type"}
        if values.keys() != known:
            raise ValueError(f"{self.name}: missing fields {sorted(known - values.keys())}, unknown fields {sorted(values.keys() - known)}")
        return b"".join(_encode(self.name, field, {"type": chr(self.code), **values}[field.name]) for field in self.fields)

    def decode(self, raw: bytes) -> dict[str, Value]:
        """Every field by name. ValueError where the length or the type is not this message's."""
        if len(raw) != self.length or raw[0] != self.code:
            raise ValueError(f"{self.name}: length={len(raw)} type={raw[:1]!r}, expected length={self.length} type={chr(self.code)!r}")
        return {
            field.name: _decode(field, raw[self.offsets[field.name] :][: field.length]) for field in self.fields if field.name != "type"
        }


def by_code(messages: tuple[Message, ...]) -> Mapping[int, Message]:
    return {message.code: message for message in messages}


def _encode(message: str, field: Field, value: Any) -> bytes:
    if field.text:
        raw = str(value).encode("ascii")
        if len(raw) > field.length:
            raise ValueError(f"{message}: {field.name}={value!r}, expected at most {field.length} characters")
        return raw.ljust(field.length)
    if not 0 <= value < 1 << 8 * field.length:
        raise ValueError(f"{message}: {field.name}={value}, expected 0 to {(1 << 8 * field.length) - 1}")
    return int(value).to_bytes(field.length, "big")


def _decode(field: Field, raw: bytes) -> Value:
    return raw.decode("ascii", "replace").rstrip(" ") if field.text else int.from_bytes(raw, "big")
