"""Hostile bytes: whatever is in a segment, or in the place of one, is a named error or does no harm. No crash, and nothing leaks.

What is tried runs in a forked child, so a crash is a result. Each child notes what it is about to do, and what went otherwise than it may.
"""

import gc
import os
import random
import signal
import sys
import traceback
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shm import identity, segment
from shm._shim import lib
from shm.layout import BLOCK_BYTES, IDENTITY, schema_of
from shm.ring import Ring, cursor_name
from shm.segment import SHM, Geometry, SegmentError
from tests.private_mounts import in_private_mounts

QUOTE = np.dtype([("sequence", "u8"), ("px", "i8"), ("rest", "u8", (6,))])
SCHEMA = schema_of(quote=QUOTE)
CAPACITY = 4
# A geometry that only tells how much of the file is used, or who made it, or how a full ring is met, may say what it likes.
FREE_TO_DIFFER = {"creator_pid", "creator_start", "first_position", "when_full", "capacity", "build_hash"}

LOOP_CPU_S = 60


@pytest.fixture(autouse=True)
def nothing_leaks() -> Iterator[None]:
    gc.collect()
    before = held()
    yield
    gc.collect()
    assert held() == before


def held() -> tuple[int, int]:
    """How many descriptors, and how many mappings of shared memory, this process has."""
    return len(os.listdir("/proc/self/fd")), Path("/proc/self/maps").read_text().count(f"{SHM}/")  # noqa: PTH208


class Notes:
    """A few lines that outlive the child that writes them."""

    def __init__(self) -> None:
        self.fd = os.memfd_create("notes")

    def add(self, text: str) -> None:
        os.write(self.fd, f"{text}\n".encode())

    def doing(self, text: str) -> None:
        """Replaces what was noted as being done."""
        os.pwrite(self.fd, f"doing {text}".ljust(119).encode() + b"\n", 0)

    def read(self) -> str:
        return os.pread(self.fd, 100_000, 0).decode()


def survives(work: Callable[[Notes], object]) -> None:
    """Run `work` in a child; fail with what it noted where it dies, raises, or notes more than what it was doing."""
    notes = Notes()
    os.lseek(notes.fd, 120, os.SEEK_SET)
    sys.stdout.flush()
    pid = os.fork()
    if pid == 0:
        code = 1
        try:
            before = held()
            # An endless loop is a result too.
            signal.setitimer(signal.ITIMER_PROF, LOOP_CPU_S)
            work(notes)
            gc.collect()
            if held() != before:
                notes.add(f"leaked: descriptors and mappings are {held()}, were {before}")
            code = 0
        except BaseException:
            notes.add(traceback.format_exc())
        finally:
            os._exit(code)
    code = os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
    said = notes.read()
    os.close(notes.fd)
    doing, _, wrong = said.partition("\n")
    assert code == 0, f"exit code {code} while {doing.strip(chr(0) + ' ')}\n{wrong}"
    assert not wrong.strip("\0\n"), f"\n{wrong}"


def others(byte: int) -> set[int]:
    return {byte ^ 0x01, byte ^ 0x80, byte ^ 0xFF}


class Bytes:
    """The bytes of a segment's file as they should be, written back before every change. Descriptors are opened and closed each time."""

    def __init__(self, name: str) -> None:
        self.path = SHM / name
        self.whole = self.path.read_bytes()

    def put(self, at: int = 0, raw: bytes = b"") -> None:
        with self.path.open("r+b", buffering=0) as file:
            file.write(self.whole)
            file.truncate()
            os.pwrite(file.fileno(), raw, at)

    def byte_changes(self, offsets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        return ((at, bytes([value])) for at in offsets for value in sorted(others(self.whole[at])))

    def word_changes(self, offsets: Iterable[int]) -> Iterator[tuple[int, bytes]]:
        edges = (0, 1, (1 << 31) - 1, 1 << 31, (1 << 32) - 1, (1 << 63) - 1, 1 << 63, (1 << 64) - 1)
        return ((at, value.to_bytes(8, "little")) for at in offsets for value in edges)


def field_at(offset: int) -> str:
    for name, (dtype, start, *_) in (IDENTITY.fields or {}).items():
        if start <= offset < start + dtype.itemsize:
            return name
    return "reserved"


# A segment alone


@pytest.fixture
def table(instance: str) -> Iterator[Bytes]:
    made = segment.create(Geometry(instance, lib.TP_KIND_TABLE, 8, 64, SCHEMA, 0xB01D))
    made.data[:] = 7
    made.detach()
    yield Bytes(instance)
    segment.unlink(instance)


def test_every_byte_of_an_identity_is_checked_or_does_no_harm(table: Bytes) -> None:
    name = table.path.name
    good = segment.describe(name)

    def work(notes: Notes) -> None:
        passed = set()
        for at, raw in (*table.byte_changes(range(lib.TP_SCHEMA_OFFSET)), *table.word_changes(range(0, lib.TP_SCHEMA_OFFSET, 8))):
            notes.doing(f"{field_at(at)} at {at}: {raw.hex()}")
            table.put(at, raw)
            for schema, build in ((SCHEMA, 0xB01D), (None, 0)):
                try:
                    attached = segment.attach(name, lib.TP_KIND_TABLE, schema, build_hash=build)
                except SegmentError as error:
                    if not str(error).startswith(f"segment={name}: ") or not str(error).isprintable():
                        notes.add(f"at {at} {raw.hex()}: {error}")
                    continue
                if build and attached.geometry != good:
                    passed.add(field_at(at))
                if attached.data[: 8 * 64].tolist() != [7] * min(8 * 64, len(attached.data)):
                    notes.add(f"at {at} {raw.hex()}: other data")
                attached.detach()
        if passed - FREE_TO_DIFFER:
            notes.add(f"not refused: {passed - FREE_TO_DIFFER}")

    survives(work)


def test_every_byte_of_a_schema_is_vouched_for(table: Bytes) -> None:
    name = table.path.name

    def work(notes: Notes) -> None:
        for at, raw in table.byte_changes(range(lib.TP_SCHEMA_OFFSET, lib.TP_SCHEMA_OFFSET + len(SCHEMA))):
            notes.doing(f"schema at {at}: {raw.hex()}")
            table.put(at, raw)
            try:
                segment.attach(name, lib.TP_KIND_TABLE)
                notes.add(f"at {at}: {raw.hex()} was believed")
            except SegmentError as error:
                if "schema" not in str(error):
                    notes.add(f"at {at}: {raw.hex()}: {error}")

    survives(work)


def test_a_table_with_only_noise_is_refused(table: Bytes) -> None:
    seed = int.from_bytes(os.urandom(4), "little")
    print(f"seed={seed}")
    chance = random.Random(seed)

    def work(notes: Notes) -> None:
        magic = lib.TP_MAGIC.to_bytes(8, "little") + lib.TP_LAYOUT_VERSION.to_bytes(4, "little")
        for round_ in range(300):
            notes.doing(f"round {round_}")
            table.put(0, magic[: chance.choice([0, 8, 12])] + chance.randbytes(chance.choice([120, 4_000])))
            try:
                segment.attach(table.path.name, lib.TP_KIND_TABLE)
                notes.add(f"round {round_}: noise was believed")
            except SegmentError:
                pass

    survives(work)


def test_every_length_that_is_not_the_right_one_is_refused(table: Bytes) -> None:
    whole = len(table.whole)
    lengths = {0, 1, 7, 8, 9, 127, 128, 129, 4095, 4096, 4097, 8191, 8192, 8193, whole - 4096, whole - 1, whole + 1, whole + 4096, 1 << 40}

    def work(notes: Notes) -> None:
        for length in sorted(lengths):
            notes.doing(f"length {length}")
            table.put()
            os.truncate(table.path, length)
            for attempt in (lambda: segment.attach(table.path.name, lib.TP_KIND_TABLE), lambda: segment.describe(table.path.name)):
                try:
                    attempt()
                    notes.add(f"length {length} was accepted")
                except SegmentError as error:
                    if f"bytes={length}, expected" not in str(error):
                        notes.add(str(error))

    survives(work)


# Cut short under our hands


@pytest.mark.parametrize("length", [0, 4096, 8192])
@pytest.mark.parametrize("writable", [False, True])
@pytest.mark.parametrize("moment", ["hold", "read", "map", "populate"])
def test_a_file_cut_at_any_moment_of_attaching_is_an_error_and_no_signal(
    table: Bytes, monkeypatch: pytest.MonkeyPatch, moment: str, writable: bool, length: int
) -> None:
    def work(_: Notes) -> None:
        def then_cut(owner: object, name: str) -> None:
            real = getattr(owner, name)

            def cutting(*args: object, **kwargs: object) -> object:
                result = real(*args, **kwargs)
                os.truncate(table.path, length)
                return result

            monkeypatch.setattr(owner, name, cutting)

        then_cut(
            *{"hold": (segment, "_hold_life"), "read": (identity, "read"), "map": (segment, "advise"), "populate": (segment, "populate")}[
                moment
            ]
        )
        with pytest.raises(SegmentError, match=r"segment=.*: (bytes=|cannot map bytes=)"):
            segment.attach(table.path.name, lib.TP_KIND_TABLE, writable=writable)

    survives(work)


def test_attaching_survives_a_file_that_is_cut_and_mended_all_the_time(table: Bytes) -> None:
    saboteur = os.fork()
    if saboteur == 0:
        try:
            while True:
                for length in (0, 4096, 8192, 12287):
                    os.truncate(table.path, length)
                    table.put()
        finally:
            os._exit(1)

    def work(notes: Notes) -> None:
        for round_ in range(3_000):
            notes.doing(f"round {round_}")
            try:
                segment.attach(table.path.name, lib.TP_KIND_TABLE, writable=bool(round_ % 2)).detach()
            except SegmentError as error:
                if not str(error).startswith("segment="):
                    notes.add(str(error))

    try:
        survives(work)
    finally:
        os.kill(saboteur, signal.SIGKILL)
        os.waitpid(saboteur, 0)


def test_what_cannot_be_survived_is_a_cut_under_a_mapping_in_use(table: Bytes) -> None:
    """Nobody but the owner and root can do it. It is written down in shm/segment.py; this is the proof that it is so."""
    pid = os.fork()
    if pid == 0:
        attached = segment.attach(table.path.name, lib.TP_KIND_TABLE)
        os.truncate(table.path, 4096)
        signal.signal(signal.SIGBUS, signal.SIG_DFL)
        os._exit(int(attached.data[0]))
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == -signal.SIGBUS


# A ring


@pytest.fixture
def ring(instance: str) -> Iterator[tuple[Bytes, Bytes]]:
    """A ring of four slots with two messages in it, of which its reader has given back one: slots and cursors."""
    made = Ring.create(instance, CAPACITY, {"quote": QUOTE}, ["reader"], observers=["watcher"], spare=1, when_full="drop")
    producer, consumer = made.producer(QUOTE), made.consumer("reader", QUOTE)
    for px in (11, 22):
        assert producer.push(payload(px))
    assert consumer.poll()["px"] == 11  # type: ignore[index]
    consumer.release()
    del producer, consumer
    made.detach()
    yield Bytes(instance), Bytes(cursor_name(instance))
    segment.unlink(instance)
    segment.unlink(cursor_name(instance))


def payload(px: int) -> bytes:
    return np.array([px, 0, 0, 0, 0, 0, 0], np.int64).tobytes()


def use(name: str) -> None:
    """Every role of a ring, each for a few messages: SegmentError or ValueError where it is not as it should be."""
    ring = Ring.attach(name)
    try:
        dtype = next(iter(ring.variants.values()))
        watcher, anyone = ring.observer(dtype, "watcher"), ring.observer(dtype, at="oldest")
        reader = ring.consumer("reader", dtype)
        late = ring.join("late", dtype, at="oldest")
        producer = ring.producer(dtype)
        for px in range(CAPACITY + 2):
            producer.push(payload(px), timeout=0)
            for end in (watcher, anyone, reader, late):
                end.poll(timeout=0)
            reader.release()
        producer.evict_dead()
        ring.backlog()
    finally:
        ring.detach()


def try_all(notes: Notes, name: str, target: Bytes, others: Bytes, changes: Iterable[tuple[int, bytes]]) -> int:
    """Use the ring after every change alone; how many were refused. What is no named error is noted."""
    refused = 0
    for at, raw in changes:
        notes.doing(f"{target.path.name} at {at}: {raw.hex()}")
        others.put()
        target.put(at, raw)
        try:
            use(name)
        except (SegmentError, ValueError) as error:
            refused += 1
            if not str(error).isprintable() or ("=" not in str(error) and "ring" not in str(error)):
                notes.add(f"at {at} {raw.hex()}: {type(error).__name__}: {error}")
        except Exception as error:
            where = traceback.extract_tb(error.__traceback__)[-1]
            notes.add(f"at {at} {raw.hex()}: {type(error).__name__}: {error} ({where.filename}:{where.lineno})")
    return refused


def test_a_ring_that_is_as_it_should_be_is_used(ring: tuple[Bytes, Bytes]) -> None:
    """What the tests below change a byte of."""
    slots, _ = ring
    survives(lambda _: use(slots.path.name))


def test_every_byte_of_a_ring_s_two_identities_is_checked_or_does_no_harm(ring: tuple[Bytes, Bytes]) -> None:
    slots, cursors = ring

    def work(notes: Notes) -> None:
        for target, other in ((slots, cursors), (cursors, slots)):
            refused = try_all(notes, slots.path.name, target, other, target.byte_changes(range(lib.TP_SCHEMA_OFFSET)))
            if refused < 128:
                notes.add(f"only {refused} changes of {target.path.name} were refused")

    survives(work)


def blocks_of(cursors: Bytes) -> range:
    return range(lib.TP_DATA_OFFSET, lib.TP_DATA_OFFSET + 4 * BLOCK_BYTES)


def test_every_byte_of_the_cursor_blocks_may_be_anything(ring: tuple[Bytes, Bytes]) -> None:
    slots, cursors = ring
    survives(lambda notes: try_all(notes, slots.path.name, cursors, slots, cursors.byte_changes(blocks_of(cursors))))


def test_every_word_of_the_cursor_blocks_may_be_anything(ring: tuple[Bytes, Bytes]) -> None:
    slots, cursors = ring
    survives(lambda notes: try_all(notes, slots.path.name, cursors, slots, cursors.word_changes(blocks_of(cursors)[::8])))


def test_every_sequence_of_the_slots_may_be_anything(ring: tuple[Bytes, Bytes]) -> None:
    slots, cursors = ring
    sequences = range(lib.TP_DATA_OFFSET, lib.TP_DATA_OFFSET + CAPACITY * 64, 64)
    survives(lambda notes: try_all(notes, slots.path.name, slots, cursors, slots.word_changes(sequences)))
    low_bytes = [at + n for at in sequences for n in range(3)]
    survives(lambda notes: try_all(notes, slots.path.name, slots, cursors, slots.byte_changes(low_bytes)))


# Squatters


def squat_symlink(path: Path, victim: Path) -> None:
    path.symlink_to(victim)


def squat_dangling(path: Path, victim: Path) -> None:
    path.symlink_to(f"{victim}-not-there")


def squat_hard_link(path: Path, victim: Path) -> None:
    path.hardlink_to(victim)


def squat_fifo(path: Path, _: Path) -> None:
    os.mkfifo(path, 0o600)


def squat_folder(path: Path, _: Path) -> None:
    path.mkdir()


def squat_device(path: Path, _: Path) -> None:
    os.mknod(path, 0o020600, os.makedev(1, 5))


def squat_file(path: Path, _: Path) -> None:
    path.write_bytes(b"somebody's")
    path.chmod(0o600)


def squat_stranger(path: Path, victim: Path) -> None:
    path.write_bytes(victim.read_bytes())
    path.chmod(0o666)
    os.chown(path, 12_345, 12_345)


SQUATTERS = [squat_symlink, squat_dangling, squat_hard_link, squat_fifo, squat_folder, squat_device, squat_file, squat_stranger]


@pytest.mark.parametrize("squat", SQUATTERS)
@pytest.mark.parametrize("which", ["", ".cursors"], ids=["slots", "cursors"])
def test_a_name_that_is_squatted_is_neither_used_nor_created_over(
    ring: tuple[Bytes, Bytes], instance: str, squat: Callable[[Path, Path], None], which: str
) -> None:
    if squat in (squat_device, squat_stranger) and os.geteuid() != 0:
        pytest.skip("takes root")
    victim = ring[0] if not which else ring[1]
    name = f"{instance}-squatted"
    path = SHM / f"{name}{which}"
    squat(path, victim.path)
    before = os.lstat(path)
    try:
        with pytest.raises(SegmentError, match=f"segment={path.name}: .*exists already|something that is not a regular file"):
            Ring.create(name, CAPACITY, {"quote": QUOTE})
        assert segment.names(name) == [path.name], "and what was made before the squatter was met is gone"
        for writable in (True, False):
            with pytest.raises(SegmentError, match=f"segment={path.name}: "):
                segment.attach(path.name, lib.TP_KIND_CURSORS if which else lib.TP_KIND_RING, writable=writable)
        with pytest.raises(SegmentError):
            segment.describe(path.name)
        after = os.lstat(path)
        assert (after.st_ino, after.st_mode, after.st_size, after.st_uid) == (before.st_ino, before.st_mode, before.st_size, before.st_uid)
        segment.remove_dead(name)
        assert victim.path.read_bytes() == victim.whole
    finally:
        if os.path.lexists(path):
            path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


@pytest.mark.skipif(os.geteuid() != 0, reason="being several users takes root")
def test_another_user_can_neither_use_nor_clean_what_is_ours(ring: tuple[Bytes, Bytes]) -> None:
    slots, cursors = ring

    def work() -> None:
        os.setgroups([])
        os.setresgid(12_345, 12_345, 12_345)
        os.setresuid(12_345, 12_345, 12_345)
        with pytest.raises(SegmentError, match="Permission denied"):
            Ring.attach(slots.path.name)
        assert segment.remove_dead(slots.path.name) == []
        with pytest.raises(SegmentError, match="exists already"):
            Ring.create(slots.path.name, CAPACITY, {"quote": QUOTE})

    in_private_mounts(work=work)
    assert (slots.path.read_bytes(), cursors.path.read_bytes()) == (slots.whole, cursors.whole)


@pytest.mark.skipif(os.geteuid() != 0, reason="being several users takes root")
def test_root_s_cleaning_meets_a_user_s_dead_segments(instance: str) -> None:
    squat_stranger(SHM / instance, Path("/etc/hostname"))
    assert segment.remove_dead(instance) == [instance]


# No room


@pytest.mark.parametrize("left", [0, 4096, 8192, 12_288, 20_480])
def test_a_ring_that_does_not_fit_leaves_nothing(instance: str, left: int, monkeypatch: pytest.MonkeyPatch) -> None:
    def work() -> None:
        room = os.statvfs(SHM).f_bavail * 4096 - left
        (SHM / "filler").write_bytes(b"\1" * room)
        monkeypatch.setattr(segment, "_free_bytes", lambda: 1 << 40)
        for capacity in (2, 1024):
            with pytest.raises(SegmentError, match=r"cannot allocate bytes=\d+ in /dev/shm \(free bytes=.*No space left on device"):
                Ring.create(instance, capacity, {"quote": QUOTE}, ["reader"])
            assert os.listdir(SHM) == ["filler"]  # noqa: PTH208
        assert (SHM / "filler").read_bytes() == b"\1" * room
        (SHM / "filler").unlink()
        use_made(instance)

    in_private_mounts(f"mount -t tmpfs -o size=256k none {SHM}", work=work)


def use_made(name: str) -> None:
    ring = Ring.create(name, 4, {"quote": QUOTE}, ["reader"])
    assert ring.producer(QUOTE).push(payload(1))
    ring.unlink()


def test_no_names_left_is_an_error_that_leaves_nothing(instance: str) -> None:
    """A mount with room for one more file: the cursors are made, and are gone when the slots cannot be."""

    def work() -> None:
        with pytest.raises(SegmentError, match=f"segment={instance}: cannot create it in /dev/shm: .*No space left on device"):
            Ring.create(instance, 4, {"quote": QUOTE}, ["reader"])
        assert segment.names("") == []

    in_private_mounts(f"mount -t tmpfs -o nr_inodes=2 none {SHM}", work=work)
