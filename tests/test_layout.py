"""One drawing, three readers: the C compiler, numpy and numba put every field of every shared struct in the same place."""

import re
import subprocess
from functools import cache
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest

import engine.layout
import shm.layout
from engine._layout import ffi as engine_ffi
from shm import hot
from shm._shim import ffi as shm_ffi
from shm._shim import lib as shm_lib
from shm.layout import record_dtype, schema_difference, schema_of, word_of

ROOT = Path(__file__).parents[1]
HEADERS = {"shm/layout.h": shm_ffi} | dict.fromkeys(
    ("engine/messages/messages.h", "engine/runtime/control.h", "engine/risk/risk.h", "engine/gateway/open_orders.h"), engine_ffi
)
# What these declare is one process's own, or, in the examples, a user's.
PRIVATE = {
    f"shm/{name}.h" for name in ("face", "memory", "shim", "tickpath", "tickpath_open", "tickpath_roles", "tickpath_wait", "examples/quote")
}
STRUCTS = [
    pytest.param(header, name, id=name)
    for header in HEADERS
    for name in re.findall(r"^struct (tp_\w+) \{", (ROOT / header).read_text(), flags=re.MULTILINE)
]
ON_A_RING = {**engine.layout.TICKS, **engine.layout.ORDERS, **engine.layout.REPORTS}


@pytest.fixture(scope="session")
def c_layout(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, tuple[int, int]]]:
    """{struct: {field: (offset, size)}} as gcc lays the headers out, with the struct's own size under ''."""
    lines = []
    for header, ffi in HEADERS.items():
        for name in re.findall(r"^struct (tp_\w+) \{", (ROOT / header).read_text(), flags=re.MULTILINE):
            lines.append(f'printf("{name}  0 %zu\\n", sizeof(struct {name}));')
            for field, _ in ffi.typeof(f"struct {name}").fields:
                place = f"offsetof(struct {name}, {field}), sizeof(((struct {name} *)0)->{field})"
                lines.append(f'printf("{name} {field} %zu %zu\\n", {place});')
    includes = "\n".join(f'#include "{ROOT / header}"' for header in HEADERS)
    folder = tmp_path_factory.mktemp("layout")
    source, program = folder / "layout.c", folder / "layout"
    source.write_text(f"#include <stddef.h>\n#include <stdint.h>\n#include <stdio.h>\n{includes}\nint main(void) {{ {' '.join(lines)} }}\n")
    subprocess.run(["gcc", "-Wall", "-Werror", "-o", str(program), str(source)], check=True)
    layout: dict[str, dict[str, tuple[int, int]]] = {}
    for line in subprocess.run([str(program)], capture_output=True, text=True, check=True).stdout.splitlines():
        name, field, offset, size = line.split(" ")[0], line.split(" ")[1], *map(int, line.split()[-2:])
        layout.setdefault(name, {})[field] = (offset, size)
    return layout


@cache
def dtype_of(header: str, name: str) -> np.dtype:
    return record_dtype(HEADERS[header], name)


def test_every_struct_is_tested() -> None:
    text = "".join((ROOT / header).read_text() for header in HEADERS)
    assert len(STRUCTS) == len(re.findall(r"\bstruct\s+\w+\s*\{", text)) >= 19
    assert {path.relative_to(ROOT).as_posix() for room in ("shm", "engine") for path in (ROOT / room).rglob("*.h")} == set(
        HEADERS
    ) | PRIVATE


@pytest.mark.parametrize(("header", "name"), STRUCTS)
def test_numpy_has_the_fields_where_c_has_them(header: str, name: str, c_layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    dtype, fields = dtype_of(header, name), c_layout[name]
    assert dtype.itemsize == fields[""][1]
    named = {field: place for field, place in fields.items() if field and not re.fullmatch(r"(\w+_)?pad|reserved", field)}
    assert dtype.fields is not None
    assert {field: (place[1], place[0].itemsize) for field, place in dtype.fields.items()} == named


@pytest.mark.parametrize(("header", "name"), STRUCTS)
def test_no_byte_of_a_struct_is_without_a_name(header: str, name: str, c_layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    end = 0
    for field, (offset, size) in sorted(((f, p) for f, p in c_layout[name].items() if f), key=lambda item: item[1]):
        assert offset == end, f"{name}.{field}: the compiler left a hole of {offset - end} bytes before it"
        end = offset + size
    assert end == c_layout[name][""][1]


@pytest.mark.parametrize(("header", "name"), STRUCTS)
def test_a_kernel_reads_and_writes_the_fields_where_c_has_them(
    header: str, name: str, c_layout: dict[str, dict[str, tuple[int, int]]]
) -> None:
    """Small numbers are placed with struct offsets from C; a kernel reads each by its name, and writes it back one higher."""
    dtype, fields = dtype_of(header, name), c_layout[name]
    assert dtype.names is not None
    raw = np.zeros(dtype.itemsize, np.uint8)
    places = [(fields[field][0], np.dtype(dtype[field].base)) for field in dtype.names]
    for number, (offset, kind) in enumerate(places, start=1):
        raw[offset : offset + kind.itemsize] = np.array([number], kind).view(np.uint8)
    out = np.zeros(len(places))
    kernel_over(dtype)(raw.view(dtype).view(np.recarray), out)
    assert out.tolist() == list(range(1, len(places) + 1))
    written = [raw[offset : offset + kind.itemsize].view(kind)[0] for offset, kind in places]
    assert written == list(range(2, len(places) + 2))
    for offset, kind in places:
        raw[offset : offset + kind.itemsize] = 0
    assert not raw.any(), "a byte outside the fields was written"


def kernel_over(dtype: np.dtype) -> Any:
    """A kernel that copies every field of records[0] into out, and adds one to the field. Of array fields, the first element."""
    assert dtype.names is not None
    places = [f"records[0].{field}" + ("[0]" if dtype[field].shape else "") for field in dtype.names]
    body = "".join(f"    out[{number}] = {place}\n    {place} += 1\n" for number, place in enumerate(places))
    scope: dict[str, Any] = {}
    exec(f"def kernel(records, out):\n{body}", scope)
    return numba.njit(scope["kernel"])


@pytest.mark.parametrize(("header", "name"), STRUCTS)
def test_offsets_drawn_above_a_struct_are_true(header: str, name: str, c_layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    """Where the comment says `48  match_id`, the field is there."""
    text = (ROOT / header).read_text()
    comments = re.findall(r"/\*((?:(?!\*/).)*)\*/\s*struct " + name + r" \{", text, flags=re.DOTALL)
    drawn = [(int(offset), word) for comment in comments for offset, word in re.findall(r"(?<!\S)(\d+)(?:\.\.\d+)? +([a-z_]+)", comment)]
    for offset, word in drawn:
        if word in c_layout[name]:
            assert c_layout[name][word][0] == offset, f"{header}: {name} draws {word} at {offset}"


def test_drawings_are_found_at_all() -> None:
    text = (ROOT / "engine/runtime/control.h").read_text()
    assert re.findall(r"(?<!\S)(\d+)(?:\.\.\d+)? +([a-z_]+)", text)[:3] == [("0", "phase"), ("8", "started_ns"), ("16", "config_hash")]


# What the ring's kernels rely on


def test_records_on_a_ring_are_one_line_and_begin_alike() -> None:
    head = ["sequence", "origin_tsc", "ts_ns", "kind", "flags", "instrument", "age_tsc"]
    for name, dtype in ON_A_RING.items():
        assert dtype.itemsize == shm.layout.LINE_BYTES, name
        assert dtype.names is not None
        assert list(dtype.names[: len(head)]) == head, name
        assert dtype.fields is not None
        assert [dtype.fields[field][1] for field in head] == [0, 8, 16, 24, 25, 26, 28], name


def test_tables_and_boards_are_whole_lines() -> None:
    tables = [value for value in vars(engine.layout).values() if isinstance(value, np.dtype)]
    assert len(tables) >= 14
    assert not [dtype for dtype in tables if dtype.itemsize % shm.layout.LINE_BYTES]


def test_words_written_by_different_processes_lie_on_different_lines() -> None:
    block = shm.layout.BLOCK_BYTES
    assert shm.layout.PRODUCER.itemsize == shm.layout.READER.itemsize == block == 2 * shm.layout.LINE_BYTES
    fields = dtype_of("engine/runtime/control.h", "tp_control").fields
    assert fields is not None
    writers = {
        "supervisor": ["phase", "started_ns", "config_hash", "tsc_hz", "supervisor_pid", "venue"],
        "killer": ["kill", "kill_ns", "kill_tsc", "scoped", "kills", "kill_reason", "scopes"],
        "gateway": ["session_up", "drained"],
        "feed": ["feed_sequence", "feed_ended"],
        "exchange": ["flow_done", "published"],
        "strategy": ["first_order_tsc"],
    }
    assert sorted(field for names in writers.values() for field in names) == sorted(fields)
    lines = {writer: {fields[name][1] // 64 for name in names} for writer, names in writers.items()}
    assert sum(len(mine) for mine in lines.values()) == len(set().union(*lines.values())), lines


def test_the_position_that_a_producer_polls_has_a_line_to_itself() -> None:
    assert hot.READER_POSITION == 0
    assert min(word_of(shm.layout.READER, field) for field in ("mode", "pid", "heartbeat", "lost", "name")) >= 8
    assert word_of(shm.layout.READER, "pid") == hot.READER_MODE, "the kernels mask the pid off the mode's word"


def test_kernels_take_their_word_numbers_from_the_layout(c_layout: dict[str, dict[str, tuple[int, int]]]) -> None:
    words = {
        "tp_producer": {"position": hot.PRODUCER_POSITION, "heartbeat": hot.PRODUCER_HEARTBEAT, "waits": hot.PRODUCER_WAITS},
        "tp_reader": {"position": hot.READER_POSITION, "mode": hot.READER_MODE, "heartbeat": hot.READER_HEARTBEAT},
        "tp_histogram": {
            "count": hot.HISTOGRAM_COUNT,
            "sum": hot.HISTOGRAM_SUM,
            "maximum": hot.HISTOGRAM_MAXIMUM,
            "minimum": hot.HISTOGRAM_MINIMUM,
            "buckets": hot.HISTOGRAM_BUCKETS,
        },
    }
    for struct, numbers in words.items():
        assert {field: 8 * number for field, number in numbers.items()} == {field: c_layout[struct][field][0] for field in numbers}
    assert c_layout["tp_reader"][""][1] == 8 * hot.BLOCK_WORDS
    assert shm_lib.TP_READER_GATING == hot.GATING
    assert hot.bucket_of(hot.LARGEST_VALUE) == shm_lib.TP_HISTOGRAM_BUCKETS - 1


# Schemas


def test_a_difference_between_schemas_is_named() -> None:
    base = [("sequence", "u8"), ("px", "i8"), ("qty", "i8")]
    ours = schema_of(quote=np.dtype(base))
    cases = {
        "field quote.qty=['u8', 16], expected ['i8', 16]": {"quote": np.dtype([*base[:2], ("qty", "u8")])},
        "field quote.px=None, expected ['i8', 8]": {"quote": np.dtype([base[0], ("price", "i8"), base[2]])},
        "record bytes=32, expected 24": {"quote": np.dtype([*base, ("more", "i8")])},
        "variant quote is missing": {"trade": np.dtype(base)},
        "unexpected variants ['trade']": {"quote": np.dtype(base), "trade": np.dtype(base)},
        "field quote.half=['u4', 20], expected none": {
            "quote": np.dtype(
                {"names": ["sequence", "px", "qty", "half"], "formats": ["u8", "i8", "i8", "u4"], "offsets": [0, 8, 16, 20], "itemsize": 24}
            )
        },
    }
    for sentence, variants in cases.items():
        assert schema_difference(schema_of(**variants), ours) == sentence


def test_variants_of_one_ring_are_equally_large() -> None:
    with pytest.raises(ValueError, match=r"sizes=\[8, 16\]"):
        schema_of(small=np.dtype([("a", "u8")]), large=np.dtype([("a", "u8"), ("b", "u8")]))
