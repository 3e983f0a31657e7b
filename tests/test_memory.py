"""What memory is asked for is had, or it is said what was not and what to do. Huge pages, nodes and locks are the kernel's own here."""

import errno
import mmap
import os
import re
import resource
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shm import memory, segment
from shm._shim import ffi, lib
from shm.layout import schema_of
from shm.memory import Memory, bind, bound_to, faults, measure, populate
from shm.places import huge_places
from shm.ring import Ring
from shm.segment import SHM, Geometry, Segment, SegmentError
from tests.private_mounts import in_private_mounts

RECORD = np.dtype([("word", "u8", (8,))])
SCHEMA = schema_of(record=RECORD)
HUGE = 2 << 20
POOL = Path("/sys/kernel/mm/hugepages/hugepages-2048kB")
BIG = 3 * HUGE


def geometry(name: str, payload: int = 1 << 20) -> Geometry:
    return Geometry(name, lib.TP_KIND_TABLE, payload // RECORD.itemsize, RECORD.itemsize, SCHEMA)


@pytest.fixture
def creating(instance: str) -> Iterator[Callable[..., Segment]]:
    made: list[Segment] = []

    def create(payload: int = 1 << 20, **options: object) -> Segment:
        made.append(segment.create(geometry(instance, payload), **options))  # type: ignore[arg-type]
        return made[-1]

    yield create
    for shared in made:
        shared.unlink()


@pytest.fixture
def pool() -> Iterator[Callable[[int], None]]:
    """Set the size of the pool of huge pages. It is put back as it was."""
    knob = POOL / "nr_hugepages"
    if os.geteuid() != 0 or not os.access(knob, os.W_OK):
        pytest.skip("setting the pool of huge pages takes root, and a kernel that has one")
    before = knob.read_text()

    def fill(pages: int) -> None:
        """`pages` free ones, beside those that others use."""
        used = int(knob.read_text()) - int((POOL / "free_hugepages").read_text())
        knob.write_text(str(used + pages))
        if int((POOL / "free_hugepages").read_text()) != pages:
            pytest.skip(f"this machine has no {pages} huge pages to give")

    yield fill
    knob.write_text(before)


def touched(shared: Segment, *, write: bool) -> int:
    """Page faults that touching every page of a payload takes."""
    pages = shared.data[::4096]
    minor, major = faults()
    if write:
        pages[:] = 1
    else:
        pages.max()
    return sum(faults()) - minor - major


# Asking


@pytest.mark.parametrize("pages", ["", "HUGE", "large"])
def test_pages_that_are_none_are_refused(pages: str) -> None:
    with pytest.raises(ValueError, match=f"pages='{pages}': expected one of normal, transparent, huge"):
        Memory(pages)


@pytest.mark.parametrize("node", [-1, 1023, 1 << 70])
def test_a_node_that_this_machine_has_not_is_refused(node: int) -> None:
    with pytest.raises(ValueError, match=rf"node={node}: expected one of this machine's NUMA nodes \[0"):
        Memory(node=node)


def test_nodes_are_those_that_the_kernel_names() -> None:
    assert 0 in memory.nodes()


# Pages are there before the first use


def test_no_page_fault_is_left_for_those_who_trade(creating: Callable[..., Segment]) -> None:
    shared = creating(8 << 20)
    # The interpreter has a few of its own.
    assert touched(shared, write=True) < 50
    reader = segment.attach(shared.name, lib.TP_KIND_TABLE, writable=False)
    assert touched(reader, write=False) < 50
    writer = segment.attach(shared.name, lib.TP_KIND_TABLE)
    assert touched(writer, write=True) < 50


def test_what_populate_spares_is_there_to_be_spared() -> None:
    """The measure of the test above: a mapping that is not populated does fault."""
    fd = os.memfd_create("unpopulated")
    os.ftruncate(fd, 8 << 20)
    mapping = mmap.mmap(fd, 8 << 20)
    pages = np.frombuffer(mapping, np.uint8)[::4096]
    before = sum(faults())
    pages[:] = 1
    assert sum(faults()) - before >= 100


@pytest.mark.parametrize("writable", [False, True])
def test_populating_changes_no_byte(writable: bool) -> None:
    fd = os.memfd_create("populated")
    os.write(fd, bytes(range(256)) * 64)
    mapping = mmap.mmap(fd, 16384, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
    populate(mapping, writable=writable)
    assert mapping[:] == bytes(range(256)) * 64


@pytest.mark.parametrize("writable", [False, True])
def test_populating_beyond_the_end_of_a_file_is_an_error_and_no_signal(writable: bool) -> None:
    fd = os.memfd_create("cut")
    os.ftruncate(fd, 3 * 4096)
    mapping = mmap.mmap(fd, 3 * 4096, prot=mmap.PROT_READ | (mmap.PROT_WRITE if writable else 0))
    os.ftruncate(fd, 4096)
    with pytest.raises(OSError, match=os.strerror(errno.EFAULT)):
        populate(mapping, writable=writable)


def test_a_word_is_stored_with_release_and_loaded_with_acquire() -> None:
    word = ffi.new("uint64_t *")
    lib.tp_store_release_u64(word, (1 << 64) - 2)
    assert lib.tp_load_acquire_u64(word) == word[0] == (1 << 64) - 2


# Placement


def test_normal_memory_is_found_to_be_what_was_asked(creating: Callable[..., Segment]) -> None:
    shared = creating()
    found = shared.placement()
    total = shared.geometry.total_bytes
    assert (found.asked, found.bytes, found.page_bytes, found.resident_bytes) == (Memory(), total, 4096, total)
    assert (found.huge_bytes, found.locked_bytes, found.shortfalls) == (0, 0, ())
    assert sum(found.nodes.values()) == total
    assert found.nodes.keys() <= set(memory.nodes())


def test_faults_are_counted_from_when_it_was_mapped(creating: Callable[..., Segment]) -> None:
    shared = creating()
    before = shared.placement()
    room = mmap.mmap(-1, 4 << 20)
    for at in range(0, 4 << 20, 4096):
        room[at] = 1
    after = shared.placement()
    assert after.minor_faults >= before.minor_faults + 2
    assert before.minor_faults >= 0


def test_what_is_not_there_is_not_counted() -> None:
    fd = os.memfd_create("holes")
    os.ftruncate(fd, 1200 * 4096)
    mapping = mmap.mmap(fd, 1200 * 4096)
    for page in (0, 511, 512, 1199):
        mapping[page * 4096] = 1
    found = measure(mapping, Memory(node=0, lock=True), faults())
    assert sum(found.nodes.values()) == found.resident_bytes == 4 * 4096
    assert found.locked_bytes == 0
    if memory.nodes() == [0]:
        assert found.shortfalls[0].startswith(f"node=0: bytes={4 * 4096} of {1200 * 4096} are there, all of them by node: {{0: 16384}}")
    assert re.match(rf"lock: locked bytes=0 of {1200 * 4096}: RLIMIT_MEMLOCK=.* bytes: raise it \(`ulimit -l", found.shortfalls[-1])


# Nodes


def policy_of(path: Path) -> str:
    """The NUMA policy of this process's mapping of a file, as the kernel writes it."""
    lines = [line.split() for line in Path("/proc/self/numa_maps").read_text().splitlines() if f"file={path}" in line]
    return lines[0][1]


@pytest.mark.skipif(not Path("/proc/self/numa_maps").exists(), reason="this kernel knows no NUMA")
def test_a_segment_is_bound_to_its_node_and_the_thread_is_not(creating: Callable[..., Segment]) -> None:
    shared = creating(memory=Memory(node=0))
    assert policy_of(SHM / shared.name) == "bind:0"
    assert shared.placement().nodes == {0: shared.geometry.total_bytes}
    assert shared.placement().shortfalls == ()
    assert thread_policy() == (0, 0), "the creator's other memory goes where it did"
    segment.attach(shared.name, lib.TP_KIND_TABLE)
    segment.unlink(shared.name)
    assert policy_of(Path(f"{SHM / creating().name}")) == "default"


def thread_policy() -> tuple[int, int]:
    policy = ffi.new("struct tp_policy *")
    assert lib.tp_policy_get(policy) == 0
    return policy.mode, policy.nodes[0]


def test_a_thread_s_policy_is_restored_after_an_error_too() -> None:
    with pytest.raises(RuntimeError), bound_to(0):
        assert thread_policy() == (memory.MPOL_BIND, 1)
        raise RuntimeError
    assert thread_policy() == (0, 0)
    with bound_to(None):
        assert thread_policy() == (0, 0)


def test_a_policy_that_was_set_before_is_set_again() -> None:
    preferred = ffi.new("struct tp_policy *")
    preferred.mode, preferred.nodes[0] = 1, 1
    assert lib.tp_policy_set(preferred) == 0
    try:
        with bound_to(0):
            assert thread_policy() == (memory.MPOL_BIND, 1)
        assert thread_policy() == (1, 1)
    finally:
        assert lib.tp_policy_set(ffi.new("struct tp_policy *")) == 0


def test_a_node_that_goes_away_is_an_error_of_the_kernel_s(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(memory, "nodes", lambda: [0, 900])
    with (
        pytest.raises(SegmentError, match="node=900: cannot bind this thread's memory to it: Invalid argument"),
        bound_to(Memory(node=900).node),
    ):
        pass
    with pytest.raises(SegmentError, match="node=900: cannot bind bytes=4096 to it: Invalid argument"):
        bind(mmap.mmap(-1, 4096), 900)
    assert thread_policy() == (0, 0)


def test_more_than_a_node_has_is_refused_before_the_kernel_ends_someone(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segment, "node_free_bytes", lambda node: 5_000)
    with pytest.raises(SegmentError, match=r"cannot allocate bytes=.*: node=0 has free bytes=5000"):
        segment.create(geometry(instance), memory=Memory(node=0))
    assert segment.names(instance) == []
    segment.create(geometry(instance)).unlink()


def test_a_node_s_free_memory_is_read() -> None:
    assert 1 << 20 < memory.node_free_bytes(0) <= 1 << 62
    assert memory.node_free_bytes(1_000) == 1 << 62, "unknown is no reason to refuse"


# Locks


@pytest.mark.skipif(os.geteuid() != 0, reason="a limit that is high enough takes root here")
def test_memory_is_locked(creating: Callable[..., Segment]) -> None:
    shared = creating(memory=Memory(lock=True))
    assert shared.placement().locked_bytes == shared.geometry.total_bytes
    assert shared.placement().shortfalls == ()
    reader = segment.attach(shared.name, lib.TP_KIND_TABLE, writable=False)
    assert reader.placement().locked_bytes == 0, "each process locks its own"
    locking = segment.attach(shared.name, lib.TP_KIND_TABLE, writable=False, memory=Memory(lock=True))
    assert locking.placement().locked_bytes == shared.geometry.total_bytes, "whole, and not a share of it for each who maps it"


@pytest.mark.skipif(os.geteuid() != 0, reason="a limit that is high enough takes root here")
def test_every_mapping_of_a_ring_is_locked_and_says_what_was_asked(instance: str) -> None:
    dtype = np.dtype([("sequence", "u8"), ("payload", "u1", 56)])
    ring = Ring.create(instance, 64, {"message": dtype}, ["reader"], memory=Memory(lock=True))
    try:
        out, into = ring.producer(dtype), ring.consumer("reader", dtype)
        for mapped in (ring.slots, ring.cursors, out.slots, out.cursors, into.cursors):
            placed = mapped.placement()
            assert (placed.asked.lock, placed.locked_bytes, placed.shortfalls) == (True, mapped.geometry.total_bytes, ())
        other = Ring.attach(instance, memory=Memory(lock=True))
        assert other.slots.placement().locked_bytes == other.slots.geometry.total_bytes
        other.detach()
    finally:
        ring.unlink()
        ring.detach()


@pytest.mark.skipif(os.geteuid() != 0, reason="becoming someone else takes root")
def test_a_limit_that_is_too_low_is_told_with_its_cure(instance: str) -> None:
    def work() -> None:
        resource.setrlimit(resource.RLIMIT_MEMLOCK, (65_536, 65_536))
        os.setgroups([])
        os.setresgid(65_534, 65_534, 65_534)
        os.setresuid(65_534, 65_534, 65_534)
        shared = segment.create(geometry(instance), memory=Memory(lock=True))
        total = shared.geometry.total_bytes
        assert shared.placement().shortfalls == (
            f"lock: locked bytes=0 of {total}: RLIMIT_MEMLOCK=65536 bytes: raise it "
            "(`ulimit -l unlimited`, LimitMEMLOCK=infinity in a unit) or grant CAP_IPC_LOCK",
        )
        shared.unlink()
        with pytest.raises(SegmentError, match=f"segment={instance}: lock: locked bytes=0 of {total}: RLIMIT_MEMLOCK=65536"):
            segment.create(geometry(instance), memory=Memory(lock=True, strict=True))
        assert segment.names(instance) == []

    in_private_mounts(work=work)


# Huge pages

NO_HUGE = "for at in $(awk '$3 == \"hugetlbfs\" {print $2}' /proc/mounts); do umount $at; done"
HUGE_MOUNT = f"{NO_HUGE}; mount -t hugetlbfs -o pagesize=2M none /mnt"


def test_a_huge_segment_is_made_of_huge_pages_and_is_found_by_its_name(instance: str, pool: Callable[[int], None]) -> None:
    def work() -> None:
        shared = segment.create(geometry(instance, BIG), memory=Memory("huge", node=0, lock=True, strict=True))
        assert shared.path == Path("/mnt") / instance
        assert not (SHM / instance).exists()
        assert shared.geometry.page_bytes == HUGE
        assert shared.geometry.total_bytes == 4 * HUGE == shared.path.stat().st_size
        assert len(shared.data) == BIG
        shared.data[:] = 7
        found = shared.placement()
        assert (found.page_bytes, found.huge_bytes, found.resident_bytes, found.locked_bytes) == (HUGE, *[4 * HUGE] * 3)
        assert (found.nodes, found.shortfalls) == ({0: 4 * HUGE}, ())
        assert touched(shared, write=True) < 10
        assert segment.names(instance) == [instance]
        assert segment.describe(instance) == shared.geometry
        assert int((POOL / "free_hugepages").read_text()) == 0

        attached = segment.attach(instance, lib.TP_KIND_TABLE, SCHEMA, writable=False)
        assert attached.geometry == shared.geometry
        assert attached.data.min() == 1
        assert touched(attached, write=False) < 10
        for huge in (True, False):
            with pytest.raises(SegmentError, match="it exists already, and is in use"):
                segment.create(geometry(instance), memory=Memory("huge" if huge else "normal"))

        assert not segment.remove_if_dead(instance)
        attached.detach()
        shared.detach()
        assert segment.remove_if_dead(instance)
        assert int((POOL / "free_hugepages").read_text()) == 4

    pool(4)
    in_private_mounts(HUGE_MOUNT, work=work)


def test_a_pool_that_is_too_small_is_an_error_or_a_sentence_and_leaves_nothing(instance: str, pool: Callable[[int], None]) -> None:
    def work() -> None:
        have = int((POOL / "nr_hugepages").read_text())
        cure = re.escape(f"the pool of huge pages has free=1 of {have}, 4 needed: as root, `echo {have + 3} > {POOL}/nr_hugepages`")
        with pytest.raises(SegmentError, match=f"segment={instance}: cannot have pages=huge: {cure}"):
            segment.create(geometry(instance, BIG), memory=Memory("huge", strict=True))
        assert segment.names(instance) == []
        assert int((POOL / "free_hugepages").read_text()) == 1

        shared = segment.create(geometry(instance, BIG), memory=Memory("huge"))
        (sentence,) = shared.placement().shortfalls
        assert re.fullmatch(f"pages=huge: page_bytes=4096: {cure}", sentence)
        assert (shared.path, shared.geometry.page_bytes) == (SHM / instance, 4096)
        assert os.listdir("/mnt") == []  # noqa: PTH208
        shared.unlink()

    pool(1)
    in_private_mounts(HUGE_MOUNT, work=work)


def test_no_hugetlbfs_mount_is_an_error_or_a_sentence(instance: str) -> None:
    def work() -> None:
        assert huge_places() == []
        with pytest.raises(SegmentError, match="cannot have pages=huge: no hugetlbfs mount: as root, `mkdir -p /dev/hugepages && mount -t"):
            segment.create(geometry(instance), memory=Memory("huge", strict=True))
        shared = segment.create(geometry(instance), memory=Memory("huge"))
        assert shared.placement().shortfalls[0].startswith("pages=huge: page_bytes=4096: no hugetlbfs mount: as root,")
        shared.unlink()

    in_private_mounts(NO_HUGE, work=work)


def test_a_hugetlbfs_mount_that_is_not_ours_is_named(instance: str) -> None:
    def work() -> None:
        os.setresuid(65_534, 65_534, 65_534)
        with pytest.raises(SegmentError, match=r"no hugetlbfs mount \(there is /mnt, and this user may not write to it\)"):
            segment.create(geometry(instance), memory=Memory("huge", strict=True))

    in_private_mounts(HUGE_MOUNT, "chmod 755 /mnt", work=work)


def test_a_mount_s_name_is_read_as_it_was_given() -> None:
    def work() -> None:
        assert [str(place.folder) for place in huge_places()] == ["/mnt/a b\\c"]

    in_private_mounts(NO_HUGE, "mount -t tmpfs none /mnt", "mkdir '/mnt/a b\\c'", "mount -t hugetlbfs none '/mnt/a b\\c'", work=work)


def test_a_name_is_never_in_two_places(instance: str, pool: Callable[[int], None], monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        normal = segment.create(geometry(instance))
        with pytest.raises(SegmentError, match="it exists already"):
            segment.create(geometry(instance), memory=Memory("huge", strict=True))
        normal.unlink()

        # Another creator takes the name in the other place, after we looked and before our own file is there.
        exclusively = segment._create_exclusively

        def late(place: object, name: str) -> int:
            fd = exclusively(place, name)  # type: ignore[arg-type]
            (SHM / name).write_bytes(b"theirs")
            return fd

        monkeypatch.setattr(segment, "_create_exclusively", late)
        with pytest.raises(SegmentError, match="it exists already"):
            segment.create(geometry(instance), memory=Memory("huge", strict=True))
        assert (SHM / instance).read_bytes() == b"theirs"
        assert os.listdir("/mnt") == []  # noqa: PTH208

        (Path("/mnt") / instance).touch()
        with pytest.raises(SegmentError, match=r"it is in /dev/shm and /mnt, and there is no telling which is meant"):
            segment.attach(instance, lib.TP_KIND_TABLE)
        assert segment.names(instance) == [instance]
        assert segment.remove_dead(instance) == [instance]
        assert segment.names(instance) == []

    pool(4)
    in_private_mounts(HUGE_MOUNT, work=work)


# Transparent huge pages

THP = Path("/sys/kernel/mm/transparent_hugepage/enabled")


def tmpfs(*options: str) -> str:
    return f"mount -t tmpfs -o size=64m,{','.join(options)} none {SHM}"


@pytest.mark.skipif(not THP.exists() or "[never]" in THP.read_text(), reason="this kernel gives no transparent huge pages")
def test_transparent_pages_are_huge_where_the_mount_allows_them(instance: str) -> None:
    def work() -> None:
        shared = segment.create(geometry(instance, BIG), memory=Memory("transparent", lock=True, strict=True))
        found = shared.placement()
        assert found.page_bytes == 4096
        assert found.huge_bytes == BIG
        assert found.locked_bytes == found.resident_bytes == shared.geometry.total_bytes
        assert touched(shared, write=True) < 10
        attached = segment.attach(instance, lib.TP_KIND_TABLE, memory=Memory("transparent"))
        assert attached.placement().shortfalls == ()

        small = segment.create(geometry(f"{instance}.small"), memory=Memory("transparent"))
        assert "it is smaller than a huge page of bytes=2097152: make the ring larger" in small.placement().shortfalls[0]

    in_private_mounts(tmpfs("huge=advise"), work=work)


def test_a_mount_without_transparent_pages_is_told_with_its_cure(instance: str) -> None:
    def work() -> None:
        shared = segment.create(geometry(instance, BIG), memory=Memory("transparent"))
        (sentence,) = shared.placement().shortfalls
        assert re.match(rf"pages=transparent: huge bytes=0 of {shared.geometry.total_bytes}: ", sentence)
        if THP.exists():
            assert (
                "/dev/shm is mounted without huge pages: as root, `mount -o remount,huge=advise /dev/shm`, then create it anew" in sentence
            )
        shared.unlink()
        with pytest.raises(SegmentError, match=f"segment={instance}: pages=transparent"):
            segment.create(geometry(instance, BIG), memory=Memory("transparent", strict=True))
        assert segment.names(instance) == []

    in_private_mounts(tmpfs("huge=never"), work=work)


@pytest.mark.parametrize("pages", ["normal", "transparent"])
def test_a_full_mount_is_an_error_whatever_the_pages(instance: str, pages: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        first = segment.create(geometry(instance, 40 << 20))
        first.data[:] = 5
        monkeypatch.setattr(segment, "_free_bytes", lambda: 1 << 40)
        for _ in range(3):
            with pytest.raises(SegmentError, match=r"cannot allocate bytes=.* in /dev/shm"):
                segment.create(geometry(f"{instance}.more", 40 << 20), memory=Memory(pages))
        assert segment.names(instance) == [instance]
        assert first.data.min() == 5
        segment.create(geometry(f"{instance}.less", 10 << 20), memory=Memory(pages))

    in_private_mounts(tmpfs("huge=advise"), work=work)
