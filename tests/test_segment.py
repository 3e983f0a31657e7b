"""Segments: what is created is what is attached to, everything else is refused by name, and nothing stays behind."""

import errno
import grp
import os
import resource
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from hashlib import blake2b
from pathlib import Path

import numpy as np
import pytest

from shm import segment
from shm._shim import lib
from shm.layout import IDENTITY, schema_hash, schema_of
from shm.segment import SHM, Geometry, Segment, SegmentError
from shm.table import Board, Table
from tests.private_mounts import in_private_mounts

RECORD = np.dtype([("version", "u8"), ("px", "i8"), ("rest", "u8", (6,))])
SCHEMA = schema_of(record=RECORD)
BUILD = 0xB01D
ROOT = Path(__file__).parents[1]


@pytest.fixture
def made(instance: str) -> Iterator[Segment]:
    shared = segment.create(Geometry(instance, lib.TP_KIND_RING, 8, RECORD.itemsize, SCHEMA, BUILD, readers=3))
    yield shared
    segment.unlink(instance)


def attach(name: str, *, kind: int = lib.TP_KIND_RING, schema: str = SCHEMA, build_hash: int = BUILD, writable: bool = True) -> Segment:
    return segment.attach(name, kind, schema, build_hash=build_hash, writable=writable)


def rewrite(name: str, change: Callable[[np.void], None]) -> None:
    """Change the identity in the file itself."""
    with (SHM / name).open("r+b") as file:
        identity = np.frombuffer(bytearray(file.read(IDENTITY.itemsize)), IDENTITY)
        change(identity[0])
        file.seek(0)
        file.write(identity.tobytes())


def mappings(name: str) -> int:
    return Path("/proc/self/maps").read_text().count(f"{SHM / name}")


# What is created is what is attached to


def test_an_attached_segment_has_the_creator_s_geometry_and_bytes(made: Segment) -> None:
    made.view(RECORD)[7]["px"] = -5
    attached = attach(made.name)
    assert attached.geometry == made.geometry
    assert attached.view(RECORD)[7]["px"] == -5
    attached.view(RECORD)[0]["px"] = 9
    assert made.view(RECORD)[0]["px"] == 9
    assert len(attached.data) == 8 * RECORD.itemsize
    attached.detach()


def test_every_page_is_there_from_the_start(made: Segment) -> None:
    status = (SHM / made.name).stat()
    assert status.st_size == made.geometry.total_bytes == 3 * 4_096, "identity and schema, and one page of payload"
    assert status.st_blocks * 512 >= status.st_size, "a hole would be a SIGBUS when memory is short"
    assert status.st_mode & 0o777 == 0o600
    assert not made.data.any()


def test_who_created_it_is_written_down(made: Segment) -> None:
    identity = np.fromfile(SHM / made.name, IDENTITY, count=1)[0]
    assert identity["creator_pid"] == os.getpid()
    assert identity["creator_start"] == segment.process_start(os.getpid()) > 0
    assert segment.process_start(4_194_305) == 0, "above any pid"
    assert identity["readers"] == 3


def test_a_payload_is_prepared_before_anyone_can_attach(instance: str) -> None:
    refusals = []

    def prepare(data: np.ndarray) -> None:
        data[:] = 7
        with pytest.raises(SegmentError) as refusal:
            attach(instance)
        refusals.append(str(refusal.value))

    try:
        segment.create(Geometry(instance, lib.TP_KIND_RING, 8, 64, SCHEMA, BUILD), prepare=prepare)
        assert "magic=0: it is still being created" in refusals[0]
        assert attach(instance).data.tolist() == [7] * 512
    finally:
        segment.unlink(instance)


def test_a_read_only_attacher_cannot_write(made: Segment) -> None:
    attached = attach(made.name, writable=False)
    with pytest.raises(ValueError, match="read-only"):
        attached.view(RECORD)[0]["px"] = 1
    assert made.data[8] == 0


# Refusals


@pytest.mark.parametrize(
    ("field", "value", "complaint"),
    [
        ("magic", 0x1234, "magic=0x1234, expected 0x4854415031303354"),
        ("magic", 0, "magic=0: it is still being created, or its creator died"),
        ("layout_version", 99, f"layout_version=99, expected {lib.TP_LAYOUT_VERSION}"),
        ("kind", lib.TP_KIND_TABLE, "readers=3 first_position=0 when_full=0, expected 0 but for a ring"),
        ("kind", 77, r"kind=77, expected one of \['board', 'cursors', 'ring', 'table'\]"),
        ("total_bytes", 1 << 40, "total_bytes=1099511627776, expected 12288"),
        ("data_offset", 4096, "data_offset=4096, expected 8192"),
        ("page_bytes", 0, "page_bytes=0, expected 4096"),
        ("page_bytes", 2 << 20, "page_bytes=2097152, expected 4096"),
        ("capacity", 0, "capacity=0 x record_bytes=64, expected at least one record"),
        ("capacity", 1, "capacity=1, expected a power of two, at least 2"),
        ("capacity", 6, "capacity=6, expected a power of two"),
        ("capacity", 128, "total_bytes=12288, expected 16384"),
        ("capacity", 1 << 57, f"total_bytes=12288, expected {8192 + (1 << 63)}|less than 2\\^63"),
        ("capacity", 1 << 58, "capacity=288230376151711744 x record_bytes=64, expected .* less than 2\\^63"),
        ("capacity", 1 << 63, "capacity=9223372036854775808"),
        ("record_bytes", 0, "record_bytes=0, expected a multiple of 64"),
        ("record_bytes", 32, "record_bytes=32, expected a multiple of 64"),
        ("record_bytes", 128, "schema: bytes=64, expected record_bytes=128"),
        ("record_bytes", 1 << 63, "record_bytes=9223372036854775808, expected .* less than 2\\^63"),
        ("readers", 16, "readers=16, expected at most 15"),
        ("when_full", 3, r"when_full=3, expected one of \[0, 1, 2\]"),
        ("schema_hash", 5, "schema_hash=0x5 does not belong to its schema text"),
        ("schema_bytes", 3, "does not belong to its schema text"),
        ("schema_bytes", 8_065, "schema_bytes=8065, expected at most 8064"),
        ("schema_bytes", 0xFFFFFFFF, "schema_bytes=4294967295, expected at most 8064"),
        ("build_hash", 0xBAD, "build=0xbad, expected 0xb01d: processes of different builds"),
    ],
)
def test_a_wrong_identity_is_refused_by_its_field(made: Segment, field: str, value: int, complaint: str) -> None:
    def change(identity: np.void) -> None:
        identity[field] = value

    rewrite(made.name, change)
    with pytest.raises(SegmentError, match=f"segment={made.name}: .*{complaint}"):
        attach(made.name)


@pytest.mark.parametrize(
    ("geometry", "complaint"),
    [
        (Geometry("x", lib.TP_KIND_RING, 6, 64, SCHEMA), "capacity=6, expected a power of two"),
        (Geometry("x", lib.TP_KIND_RING, 8, 96, SCHEMA), "record_bytes=96, expected a multiple of 64"),
        (Geometry("x", lib.TP_KIND_CURSORS, 3, 128, SCHEMA, readers=3), "capacity=3, expected 4 blocks"),
        (Geometry("x", lib.TP_KIND_BOARD, 3, 64, SCHEMA, when_full=1), "when_full=1, expected 0 but for a ring"),
        (Geometry("x", 9, 3, 64, SCHEMA), "kind=9"),
    ],
)
def test_what_no_one_could_attach_to_is_not_created(instance: str, geometry: Geometry, complaint: str) -> None:
    with pytest.raises(SegmentError, match=complaint):
        segment.create(replace(geometry, name=instance))
    assert not (SHM / instance).exists()


def test_another_kind_is_refused(made: Segment) -> None:
    with pytest.raises(SegmentError, match="kind=ring, expected board"):
        attach(made.name, kind=lib.TP_KIND_BOARD)


def test_another_schema_is_refused_naming_the_field(made: Segment) -> None:
    other = schema_of(record=np.dtype([("version", "u8"), ("px", "f8"), ("rest", "u8", (6,))]))
    with pytest.raises(SegmentError, match=r"schema differs: field record.px=\['i8', 8\], expected \['f8', 8\]"):
        attach(made.name, schema=other)


def test_a_schema_text_that_was_changed_is_refused(made: Segment) -> None:
    with (SHM / made.name).open("r+b") as file:
        file.seek(lib.TP_SCHEMA_OFFSET + 3)
        file.write(b"X")
    with pytest.raises(SegmentError, match="does not belong to its schema text"):
        attach(made.name)
    assert schema_hash(SCHEMA) != schema_hash(SCHEMA.replace("px", "qx"))


def test_any_build_will_do_for_who_does_not_ask(made: Segment) -> None:
    attach(made.name, build_hash=0).detach()


@pytest.mark.parametrize(
    ("size", "complaint"),
    [
        (0, "bytes=0, expected at least 8192: it is still being created, or cut short"),
        (7, "bytes=7, expected at least 8192"),
        (8191, "bytes=8191"),
        (8192, "bytes=8192, expected 12288: cut short, or grown"),
        (12287, "bytes=12287, expected 12288"),
        (12289, "bytes=12289, expected 12288"),
    ],
)
def test_a_segment_cut_short_or_grown_is_refused(made: Segment, size: int, complaint: str) -> None:
    os.truncate(SHM / made.name, size)
    with pytest.raises(SegmentError, match=complaint):
        attach(made.name)


def test_a_file_that_is_half_created_is_refused(instance: str) -> None:
    path = SHM / instance
    path.touch(mode=0o600)
    try:
        with pytest.raises(SegmentError, match="bytes=0, expected at least 8192: it is still being created, or cut short"):
            attach(instance)
        os.truncate(path, 12288)
        with pytest.raises(SegmentError, match="magic=0: it is still being created"):
            attach(instance)
    finally:
        path.unlink()


def test_nothing_there_is_said_so(instance: str) -> None:
    with pytest.raises(SegmentError, match="there is none; is the instance running"):
        attach(instance)


def test_a_symbolic_link_is_refused(made: Segment) -> None:
    link = SHM / f"{made.name}-link"
    link.symlink_to(SHM / made.name)
    try:
        with pytest.raises(SegmentError, match="it is a symbolic link"):
            attach(link.name)
    finally:
        link.unlink()


def test_a_hard_link_is_refused(made: Segment) -> None:
    link = SHM / f"{made.name}-link"
    link.hardlink_to(SHM / made.name)
    try:
        for name in (made.name, link.name):
            with pytest.raises(SegmentError, match="links=2, expected 1"):
                attach(name)
    finally:
        link.unlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir], ids=["fifo", "folder"])
@pytest.mark.parametrize("writable", [True, False])
def test_what_is_no_file_is_refused_at_once(instance: str, make: Callable[[Path], None], writable: bool) -> None:
    path = SHM / instance
    make(path)
    try:
        with pytest.raises(SegmentError, match=r"it is not a regular file|Is a directory"):
            attach(instance, writable=writable)
    finally:
        path.rmdir() if path.is_dir() else path.unlink()


@pytest.mark.parametrize("mode", [0o602, 0o604, 0o666])
def test_a_segment_open_to_others_is_refused(made: Segment, mode: int) -> None:
    (SHM / made.name).chmod(mode)
    with pytest.raises(SegmentError, match=f"mode=0o{mode:o} lets others in"):
        attach(made.name)


@pytest.mark.skipif(os.geteuid() != 0, reason="giving a file away takes root")
def test_a_segment_of_another_owner_is_refused(made: Segment) -> None:
    os.chown(SHM / made.name, 12_345, -1)
    with pytest.raises(SegmentError, match=f"owner uid=12345, expected {os.geteuid()}, or mode=0o660 of a group of ours"):
        attach(made.name)


def as_somebody(uid: int, gid: int, *groups: int) -> None:
    """Give up being root, for good."""
    os.setgroups(groups)
    os.setresgid(gid, gid, gid)
    os.setresuid(uid, uid, uid)


needs_root = pytest.mark.skipif(os.geteuid() != 0, reason="being several users takes root")
GROUP = grp.getgrgid(max(entry.gr_gid for entry in grp.getgrall() if entry.gr_gid < 60_000))


@needs_root
@pytest.mark.parametrize("group", [GROUP.gr_name, GROUP.gr_gid])
def test_a_group_shares_a_segment_that_was_made_for_it_and_no_one_else_does(instance: str, group: str | int) -> None:
    before = os.umask(0o777)
    shared = segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA), mode=0o660, group=group)
    os.umask(before)
    status = (SHM / instance).stat()
    assert (status.st_mode & 0o7777, status.st_gid, status.st_uid) == (0o660, GROUP.gr_gid, 0)

    def member() -> None:
        as_somebody(12_345, 12_345, GROUP.gr_gid)
        segment.attach(instance, lib.TP_KIND_TABLE).data[:] = 4
        assert not segment.remove_if_dead(instance)

    def stranger() -> None:
        as_somebody(12_345, 12_345)
        for writable in (True, False):
            with pytest.raises(SegmentError, match="cannot open it: Permission denied"):
                segment.attach(instance, lib.TP_KIND_TABLE, writable=writable)

    in_private_mounts(work=member)
    in_private_mounts(work=stranger)
    assert shared.data.tolist() == [4] * 512
    with pytest.raises(SegmentError, match="mode=0o660 lets others in, expected at most 0o600"):
        segment.attach(instance, lib.TP_KIND_TABLE, mode=0o600)
    shared.unlink()


@needs_root
def test_a_segment_of_another_member_of_a_group_is_ours_to_use(instance: str) -> None:
    shared = segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA), mode=0o660, group=GROUP.gr_gid)
    os.chown(SHM / instance, 12_345, -1)

    def member() -> None:
        as_somebody(12_346, GROUP.gr_gid)
        segment.attach(instance, lib.TP_KIND_TABLE)

    def root_of_another_group() -> None:
        os.setgroups([])
        with pytest.raises(SegmentError, match="owner uid=12345, expected 0, or mode=0o660 of a group of ours"):
            segment.attach(instance, lib.TP_KIND_TABLE)

    in_private_mounts(work=member)
    in_private_mounts(work=root_of_another_group)
    (SHM / instance).chmod(0o600)
    with pytest.raises(SegmentError, match="owner uid=12345"):
        segment.attach(instance, lib.TP_KIND_TABLE)
    shared.unlink()


@needs_root
def test_a_group_that_this_user_is_not_in_is_an_error_that_leaves_nothing(instance: str) -> None:
    def work() -> None:
        as_somebody(12_345, 12_345)
        with pytest.raises(SegmentError, match=f"segment={instance}: group={GROUP.gr_name}: this user is not in it; `groups`"):
            segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA), mode=0o660, group=GROUP.gr_name)
        assert segment.names(instance) == []

    in_private_mounts(work=work)


@pytest.mark.parametrize("group", ["no-such-group", 4_000_000_000, -5, 1 << 70])
def test_a_group_that_does_not_exist_is_an_error_that_leaves_nothing(instance: str, group: str | int) -> None:
    with pytest.raises(SegmentError, match=f"segment={instance}: group={group}: there is no such group"):
        segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA), mode=0o660, group=group)
    assert segment.names(instance) == []


@pytest.mark.parametrize(
    ("mode", "group"), [(0o660, None), (0o600, GROUP.gr_name), (0o666, GROUP.gr_name), (0o640, GROUP.gr_name), (0o400, None)]
)
def test_a_mode_is_for_us_alone_or_for_a_group(instance: str, mode: int, group: str | None) -> None:
    with pytest.raises(ValueError, match=f"mode=0o{mode:o} group={group}: expected mode=0o600, or mode=0o660 and a group"):
        segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA), mode=mode, group=group)


@pytest.mark.parametrize("umask", [0o000, 0o077, 0o777])
def test_the_umask_decides_nothing(instance: str, umask: int) -> None:
    before = os.umask(umask)
    try:
        shared = segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA))
    finally:
        os.umask(before)
    assert (SHM / instance).stat().st_mode & 0o7777 == 0o600
    shared.unlink()


# Schemas that are none


HOSTILE_SCHEMAS = [
    (b"", "expected JSON"),
    (b"\xff\xfe{}", "is not UTF-8 at byte=0"),
    (b"{", "expected JSON"),
    (b"[" * 8_000, "expected JSON"),
    (b"1" * 5_000, "expected JSON"),
    (b"null", 'expected {"bytes": n'),
    (b"[]", 'expected {"bytes": n'),
    (b'"text"', 'expected {"bytes": n'),
    (b'{"bytes":64}', 'expected {"bytes": n'),
    (b'{"bytes":64,"variants":[]}', 'expected {"bytes": n'),
    (b'{"bytes":64,"variants":{},"more":1}', 'expected {"bytes": n'),
    (b'{"bytes":63,"variants":{}}', "bytes=63, expected record_bytes=64"),
    (b'{"bytes":true,"variants":{}}', "bytes=True"),
    (b'{"bytes":64.0,"variants":{}}', "bytes=64.0"),
    (b'{"bytes":"64","variants":{}}', "bytes='64'"),
    (b'{"bytes":NaN,"variants":{}}', "bytes=nan"),
    (b'{"bytes":64,"variants":{"a":1}}', "variant 'a': expected a printable name, and its fields"),
    (b'{"bytes":64,"variants":{"a\\u001b[2J":{}}}', "variant 'a\\\\x1b"),
    (b'{"bytes":64,"variants":{"\\ud800":{}}}', "variant '\\\\ud800'"),
    (b'{"bytes":64,"variants":{"a":{"x":1}}}', "field 'x'=1: expected a printable name, and .format, offset. within 64 bytes"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8"]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8",-8]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8",true]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8",57]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8[9]",0]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8[9999][9999][9999]",0]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["U9999",0]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["O",0]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["O8",0]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x":["i8",{"y":0}]}}}', "field 'x'"),
    (b'{"bytes":64,"variants":{"a":{"x\\n":["i8",0]}}}', "printable"),
    (b'{"bytes":64,"variants":{"a":{}},"kinds":7}', "kinds=7: expected .field, {value: variant}."),
    (b'{"bytes":64,"variants":{"a":{}},"kinds":["x",{"one":"a"}]}', "kinds="),
    (b'{"bytes":64,"variants":{"a":{}},"kinds":["x",{"1":"b"}]}', "kinds="),
    (b'{"bytes":64,"variants":{"a":{}},"kinds":["x",{"1":["a"]}]}', "kinds="),
    (b'{"bytes":64,"variants":{"a":{}},"kinds":[{},{}]}', "kinds="),
]


@pytest.mark.parametrize(("text", "complaint"), HOSTILE_SCHEMAS, ids=range(len(HOSTILE_SCHEMAS)))
def test_a_schema_that_is_none_is_refused_by_what_it_says(made: Segment, text: bytes, complaint: str) -> None:
    """Written by someone who knows how to make its hash fit."""

    def change(identity: np.void) -> None:
        identity["schema_bytes"] = len(text)
        identity["schema_hash"] = int.from_bytes(blake2b(text, digest_size=8).digest(), "little")

    rewrite(made.name, change)
    with (SHM / made.name).open("r+b") as file:
        file.seek(lib.TP_SCHEMA_OFFSET)
        file.write(text)
    for schema in (SCHEMA, None):
        with pytest.raises(SegmentError, match=f"segment={made.name}: schema.*{complaint}") as refusal:
            segment.attach(made.name, lib.TP_KIND_RING, schema)
        assert str(refusal.value).isprintable()
        assert len(str(refusal.value)) < 400


def test_a_schema_that_is_one_is_taken_where_none_is_asked_for(instance: str) -> None:
    for text in (
        SCHEMA,
        '{"bytes":64,"variants":{}}',
        '{"bytes":64,"variants":{"a":{"x":["u1[24]",40],"y":["f8[2][2]",8],"z":["S8",0]},"b":{}},"kinds":["x",{"1":"a","-2":"b"}]}',
    ):
        shared = segment.create(Geometry(instance, lib.TP_KIND_RING, 8, 64, text))
        attached = segment.attach(instance, lib.TP_KIND_RING)
        assert attached.geometry.schema == text
        attached.detach()
        shared.unlink()
        shared.detach()


def test_a_refused_attacher_keeps_no_file_and_no_mapping(made: Segment) -> None:
    open_before, mapped_before = len(os.listdir("/proc/self/fd")), mappings(made.name)  # noqa: PTH208
    for _ in range(3):
        with pytest.raises(SegmentError):
            attach(made.name, kind=lib.TP_KIND_TABLE)
        with pytest.raises(SegmentError):
            attach(made.name, build_hash=1)
    assert len(os.listdir("/proc/self/fd")) == open_before  # noqa: PTH208
    assert mappings(made.name) == mapped_before


# Creation


def test_a_name_that_is_taken_is_refused_and_left_alone(made: Segment) -> None:
    made.data[:] = 3
    with pytest.raises(SegmentError, match=rf"it exists already, and is in use \(pid {os.getpid()}\)"):
        segment.create(made.geometry)
    assert attach(made.name).data.tolist() == [3] * 512


def test_a_name_that_a_dead_process_left_is_refused_with_the_cure(instance: str) -> None:
    (SHM / instance).write_bytes(b"left")
    with pytest.raises(SegmentError, match=r"it exists already, and nobody is attached.*`tickpath clean`"):
        segment.create(Geometry(instance, lib.TP_KIND_TABLE, 1, 64, SCHEMA))
    assert (SHM / instance).read_bytes() == b"left"
    assert segment.remove_if_dead(instance)


@pytest.mark.parametrize("name", ["", "a/b", "../x", ".hidden", "x" * 201])
def test_names_that_are_no_names_are_refused(name: str) -> None:
    with pytest.raises(SegmentError, match="expected a name of 1 to 200 characters"):
        segment.create(Geometry(name, lib.TP_KIND_TABLE, 1, 64, SCHEMA))
    with pytest.raises(SegmentError, match="expected a name"):
        attach(name)


def test_a_schema_that_does_not_fit_is_refused_and_leaves_nothing(instance: str) -> None:
    with pytest.raises(SegmentError, match="schema of bytes=9000: expected at most 8064"):
        segment.create(Geometry(instance, lib.TP_KIND_TABLE, 1, 64, "x" * 9_000))
    assert not (SHM / instance).exists()


@pytest.mark.parametrize("capacity", [1 << 40, 1 << 58])
def test_more_than_there_is_is_an_error_and_leaves_nothing(instance: str, capacity: int) -> None:
    with pytest.raises(SegmentError, match=r"cannot allocate bytes=\d+ .*free bytes=.*make rings smaller|less than 2\^63"):
        segment.create(Geometry(instance, lib.TP_KIND_TABLE, capacity, 64, SCHEMA))
    assert not (SHM / instance).exists()


def test_an_allocation_that_the_kernel_refuses_is_an_error_and_leaves_nothing(instance: str) -> None:
    """A limit on file sizes is the refusal that a test can have without filling the machine."""
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, limits[1]))
    try:
        with pytest.raises(SegmentError, match=os.strerror(errno.EFBIG)):
            segment.create(Geometry(instance, lib.TP_KIND_TABLE, 4_096, 64, SCHEMA))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert not (SHM / instance).exists()


FILL_A_SMALL_SHM = """
import os, sys
from shm import segment
from shm.segment import SHM, SegmentError
from shm.table import Table
from shm.layout import READER
first = Table.create("first", READER, 4_000)
first.records["heartbeat"] = 1
try:
    Table.create("second", READER, 4_000)
except SegmentError as error:
    print(error)
segment._free_bytes = lambda: 1 << 40
try:
    Table.create("third", READER, 4_000)
except SegmentError as error:
    print(error)
print(sorted(os.listdir(SHM)), int(first.records["heartbeat"].sum()))
"""


def test_a_full_dev_shm_is_an_error_and_never_a_signal() -> None:
    mount = f'mount -t tmpfs -o size=800k tmpfs {SHM} && exec "$0" -c "$1"'
    command = ["unshare", "--mount", "sh", "-c", mount, sys.executable, FILL_A_SMALL_SHM]
    finished = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, timeout=60)
    if "unshare" in finished.stderr or "mount" in finished.stderr:
        pytest.skip(f"a small {SHM} of its own takes root and mount namespaces: {finished.stderr.strip()}")
    assert finished.returncode == 0, finished.stderr
    assert f"segment=second: cannot allocate bytes={-(-(8192 + 4_000 * 128) // 4096) * 4096} in {SHM} (free bytes=" in finished.stdout
    assert "segment=third: cannot allocate" in finished.stdout, "memory that is gone between the look and the allocation"
    assert finished.stdout.endswith("['first'] 4000\n")


# The end


def test_unlinking_leaves_nothing_and_takes_nothing_from_who_is_attached(made: Segment) -> None:
    attached = attach(made.name)
    segment.unlink(made.name)
    segment.unlink(made.name)
    assert made.name not in segment.names("")
    made.data[0] = 5
    assert attached.data[0] == 5


def test_detaching_gives_back_the_mapping_and_the_file(made: Segment) -> None:
    attached = attach(made.name)
    assert mappings(made.name) == 2
    os.fstat(attached.fd)
    attached.detach()
    assert mappings(made.name) == 1
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        os.fstat(attached.fd)


def test_a_view_keeps_its_bytes_until_it_is_let_go(made: Segment) -> None:
    attached = attach(made.name)
    view = attached.words()
    attached.detach()
    made.data[0] = 9
    assert view[0] == 9
    del view
    assert mappings(made.name) == 1


def test_names_are_found_by_their_beginning(made: Segment) -> None:
    assert segment.names(made.name) == [made.name]
    assert segment.names(f"{made.name}.") == []


def test_a_description_is_read_without_attaching(made: Segment) -> None:
    mapped = mappings(made.name)
    assert segment.describe(made.name) == made.geometry
    assert mappings(made.name) == mapped
    with pytest.raises(SegmentError, match="there is none"):
        segment.describe(f"{made.name}-not")


def test_a_geometry_survives_the_round_trip_whole(instance: str) -> None:
    whole = Geometry(instance, lib.TP_KIND_RING, 64, 64, SCHEMA, (1 << 64) - 1, 15, (1 << 64) - 3, lib.TP_WHEN_FULL_EVICT)
    shared = segment.create(whole)
    try:
        attached = segment.attach(instance, lib.TP_KIND_RING)
        assert attached.geometry == whole
        assert whole.total_bytes == 8192 + 4096
        attached.detach()
    finally:
        shared.unlink()


# Tables and boards


def test_a_table_is_attached_to_as_what_it_is(instance: str) -> None:
    table = Table.create(instance, RECORD, 3, build_hash=BUILD)
    try:
        attached = Table.attach(instance, RECORD, build_hash=BUILD)
        attached.records[2].px = 11
        assert table.words()[2].tolist() == [0, 11, 0, 0, 0, 0, 0, 0]
        with pytest.raises(SegmentError, match="kind=table, expected board"):
            Board.attach(instance, RECORD)
        attached.detach()
        assert mappings(instance) == 1
    finally:
        table.unlink()
    with pytest.raises(ValueError, match="bytes=8: expected a multiple of 64"):
        Table.create(instance, np.dtype([("x", "u8")]))
