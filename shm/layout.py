"""layout.h as numpy dtypes: one drawing, three readers (C, numpy, numba)."""

import json
from hashlib import blake2b
from typing import Any

import numpy as np

from shm._shim import ffi, lib

LINE_BYTES: int = lib.TP_LINE_BYTES
BLOCK_BYTES: int = lib.TP_BLOCK_BYTES
READER_GATING: int = lib.TP_READER_GATING
READER_JOINING: int = lib.TP_READER_JOINING
HISTOGRAM_SUB_BITS: int = lib.TP_HISTOGRAM_SUB_BITS
HISTOGRAM_VALUE_BITS: int = lib.TP_HISTOGRAM_VALUE_BITS

PRIMITIVES = {
    "uint8_t": "u1",
    "uint16_t": "u2",
    "uint32_t": "u4",
    "uint64_t": "u8",
    "int8_t": "i1",
    "int16_t": "i2",
    "int32_t": "i4",
    "int64_t": "i8",
    "double": "f8",
}


def is_pad(name: str) -> bool:
    """Pads and reserved words have names in C, and are left out of the dtype so that nobody uses them."""
    return name.endswith("pad") or name == "reserved"


def field_format(ctype: Any) -> Any:
    if ctype.kind == "array":
        return (PRIMITIVES[ctype.item.cname], (ctype.length,))
    return PRIMITIVES[ctype.cname]


def record_dtype(struct_ffi: Any, name: str) -> np.dtype:
    """The dtype of C struct `name` as the compiled cffi module `struct_ffi` laid it out, without its pads."""
    struct = struct_ffi.typeof(f"struct {name}")
    fields = [(field, described) for field, described in struct.fields if not is_pad(field)]
    return np.dtype(
        {
            "names": [field for field, _ in fields],
            "formats": [field_format(described.type) for _, described in fields],
            "offsets": [described.offset for _, described in fields],
            "itemsize": struct_ffi.sizeof(struct),
        },
        align=True,
    )


# The field that says which variant a record is, and the variant for each of its values.
Kinds = tuple[str, dict[int, str]]

IDENTITY = record_dtype(ffi, "tp_identity")
SLOT = record_dtype(ffi, "tp_slot")
PRODUCER = record_dtype(ffi, "tp_producer")
READER = record_dtype(ffi, "tp_reader")
HISTOGRAM = record_dtype(ffi, "tp_histogram")


def word_of(dtype: np.dtype, field: str) -> int:
    """The 8-byte word of a record that `field` begins in: its index where the record is seen as int64 words."""
    return int(_fields(dtype)[field][1]) // 8


def schema_of(kinds: Kinds | None = None, /, **variants: np.dtype) -> str:
    """The layout of a segment's records as JSON text: {variant: {field: [format, offset]}}, and the record's size.

    `kinds` says which variant a record is: the field to look at, and the variant for each of its values. Without it every
    record may be read as the first variant.
    """
    described = {
        variant: {name: [_format_text(field[0]), int(field[1])] for name, field in _fields(dtype).items()}
        for variant, dtype in variants.items()
    }
    sizes = {dtype.itemsize for dtype in variants.values()}
    if len(sizes) != 1:
        raise ValueError(f"variants of one segment differ in size: sizes={sorted(sizes)}")
    schema: dict[str, Any] = {"bytes": sizes.pop(), "variants": described}
    if kinds is not None:
        schema["kinds"] = [kinds[0], {str(value): variant for value, variant in kinds[1].items()}]
    return json.dumps(schema, separators=(",", ":"))


def dtypes_of(schema: str) -> dict[str, np.dtype]:
    """The record layouts that a schema describes, by variant. ValueError where it describes none."""
    try:
        described = json.loads(schema)
        return {variant: _dtype_of(fields, int(described["bytes"])) for variant, fields in described["variants"].items()}
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"schema={schema[:60]!r}...: not one of a segment: {error}") from None


def kinds_of(schema: str) -> Kinds | None:
    """Which variant a record is, as schema_of was told. ValueError where the schema says it wrongly."""
    try:
        kinds = json.loads(schema).get("kinds")
        return None if kinds is None else (str(kinds[0]), {int(value): str(variant) for value, variant in kinds[1].items()})
    except (KeyError, TypeError, ValueError, AttributeError, IndexError, RecursionError) as error:
        raise ValueError(f"schema={schema[:60]!r}...: its kinds are not a field and variants by value: {error}") from None


def schema_hash(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), "little")


def schema_difference(have: str, want: str) -> str:
    """The first field in which two schemas differ, as a sentence; empty where records are laid out alike."""
    ours, theirs = json.loads(want), json.loads(have)
    if ours["bytes"] != theirs["bytes"]:
        return f"record bytes={theirs['bytes']}, expected {ours['bytes']}"
    for variant, fields in ours["variants"].items():
        found = theirs["variants"].get(variant)
        if found is None:
            return f"variant {variant} is missing"
        for name, place in fields.items():
            if found.get(name) != place:
                return f"field {variant}.{name}={found.get(name)}, expected {place}"
        for name in found.keys() - fields.keys():
            return f"field {variant}.{name}={found[name]}, expected none"
    extra = sorted(theirs["variants"].keys() - ours["variants"].keys())
    return f"unexpected variants {extra}" if extra else ""


def _fields(dtype: np.dtype) -> dict[str, Any]:
    assert dtype.fields is not None
    return dict(dtype.fields)


def _format_text(dtype: np.dtype) -> str:
    base, shape = (dtype.subdtype[0], dtype.subdtype[1]) if dtype.subdtype else (dtype, ())
    return base.str.lstrip("<|") + ("".join(f"[{n}]" for n in shape))


def _dtype_of(fields: dict[str, Any], itemsize: int) -> np.dtype:
    names = list(fields)
    formats = [_format_of(fields[name][0]) for name in names]
    return np.dtype(
        {"names": names, "formats": formats, "offsets": [int(fields[name][1]) for name in names], "itemsize": itemsize}, align=True
    )


def _format_of(text: str) -> Any:
    base, *lengths = text.replace("]", "").split("[")
    return (base, tuple(int(length) for length in lengths)) if lengths else base
