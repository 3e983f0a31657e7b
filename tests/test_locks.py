"""Life and death: locks that the kernel frees, and exactly one cleaner, that removes each dead segment and never a living one."""

import errno
import itertools
import os
import random
import signal
import time
import traceback
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import pytest

from shm import cleaner, segment
from shm._shim import lib
from shm.layout import schema_of
from shm.locks import is_locked, try_lock, unlock
from shm.segment import SHM, Geometry, Segment, SegmentError

RECORD = np.dtype([("word", "u8", (8,))])
SCHEMA = schema_of(record=RECORD)


@pytest.fixture
def file(instance: str) -> Iterator[Path]:
    path = SHM / instance
    path.write_bytes(b"")
    yield path
    path.unlink(missing_ok=True)


@pytest.fixture
def opened(file: Path) -> Iterator[Callable[[int], int]]:
    """Open the file once more: every call a description of its own."""
    descriptors = []

    def opened(flags: int = os.O_RDWR) -> int:
        descriptors.append(os.open(file, flags))
        return descriptors[-1]

    yield opened
    for fd in descriptors:
        os.close(fd)


def wait_for(condition: Callable[[], object], what: str, seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.001)


def child(work: Callable[[], object]) -> int:
    """Run `work` in a forked process that then leaves at once, with 0, or with 1 after an exception."""
    pid = os.fork()
    if pid == 0:
        try:
            work()
        except BaseException:
            traceback.print_exc()
            os._exit(1)
        os._exit(0)
    return pid


def ended(pid: int) -> int:
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def geometry(name: str, capacity: int = 8) -> Geometry:
    return Geometry(name, lib.TP_KIND_TABLE, capacity, RECORD.itemsize, SCHEMA)


# Locks


def test_a_write_lock_keeps_everyone_else_from_that_byte_alone(opened: Callable[[], int]) -> None:
    mine, other = opened(), opened()
    assert not is_locked(other, 8192)
    assert try_lock(mine, 8192)
    assert try_lock(mine, 8192), "what this description holds, it gets again"
    assert is_locked(other, 8192)
    assert not is_locked(mine, 8192), "its own lock is not seen"
    assert not try_lock(other, 8192)
    assert not try_lock(other, 8192, shared=True)
    assert try_lock(other, 8191)
    assert try_lock(other, 8193)
    unlock(mine, 8192)
    unlock(mine, 8192)
    assert not is_locked(other, 8192)
    assert try_lock(other, 8192)


def test_shared_locks_live_side_by_side_and_keep_writers_out(opened: Callable[[], int]) -> None:
    one, two, writer = opened(), opened(), opened()
    assert try_lock(one, 0, shared=True)
    assert try_lock(two, 0, shared=True)
    assert is_locked(writer, 0)
    assert not try_lock(writer, 0)
    assert not try_lock(one, 0), "it cannot become exclusive while another shares it"
    assert is_locked(two, 0), "and it is still shared after that refusal"
    unlock(one, 0)
    assert try_lock(two, 0), "the last one may become exclusive"
    assert not try_lock(one, 0, shared=True)


def test_a_lock_on_the_last_byte_that_there_can_be(opened: Callable[[], int]) -> None:
    one, two = opened(), opened()
    assert try_lock(one, (1 << 63) - 2)
    assert not try_lock(two, (1 << 63) - 2)


def test_a_descriptor_open_for_reading_shares_and_does_not_write(opened: Callable[[int], int]) -> None:
    reader, writer = opened(os.O_RDONLY), opened(os.O_RDWR)
    assert try_lock(reader, 0, shared=True)
    assert is_locked(writer, 0)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        try_lock(reader, 1)
    assert not is_locked(reader, 1), "asking takes no right to write"


def test_closing_another_descriptor_of_the_file_frees_nothing(opened: Callable[[], int], file: Path) -> None:
    """What a lock of the process (F_SETLK) would do: any close of the file in the process would free it."""
    mine, other = opened(), opened()
    assert try_lock(mine, 0)
    os.close(os.open(file, os.O_RDWR))
    assert is_locked(other, 0)


def test_a_forked_child_shares_the_lock_until_both_are_gone(opened: Callable[[], int], file: Path) -> None:
    watcher, mine = opened(), os.open(file, os.O_RDWR)
    ours, theirs = os.pipe()
    assert try_lock(mine, 0)
    pid = child(lambda: (os.close(theirs), os.read(ours, 1)))
    os.close(mine)
    assert is_locked(watcher, 0), "the child has it still"
    os.close(theirs)
    assert ended(pid) == 0
    os.close(ours)
    assert not is_locked(watcher, 0)


def test_what_a_child_unlocks_is_unlocked_for_its_parent(opened: Callable[[], int]) -> None:
    watcher, mine = opened(), opened()
    assert try_lock(mine, 0)
    assert ended(child(lambda: unlock(mine, 0))) == 0
    assert not is_locked(watcher, 0)


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_death_frees_the_lock_however_it_comes(opened: Callable[[], int], file: Path, how: signal.Signals) -> None:
    watcher = opened()

    def hold() -> None:
        assert try_lock(os.open(file, os.O_RDWR), 0)
        time.sleep(600)

    pid = child(hold)
    wait_for(lambda: is_locked(watcher, 0), "the child to hold the lock")
    os.kill(pid, how)
    assert ended(pid) == -how
    assert not is_locked(watcher, 0)


# A segment's life


def test_a_segment_lives_while_anything_of_it_is_mapped(instance: str) -> None:
    made = segment.create(geometry(instance))
    try:
        attached = segment.attach(instance, lib.TP_KIND_TABLE, writable=False)
        assert segment.is_attached(instance)
        made.detach()
        assert segment.is_attached(instance), "one who only reads counts"
        view = attached.words()
        attached.detach()
        assert segment.is_attached(instance), "a view of the bytes counts"
        assert not segment.remove_if_dead(instance)
        del view
        assert not segment.is_attached(instance)
        assert segment.remove_if_dead(instance)
        assert not segment.remove_if_dead(instance)
        assert not segment.is_attached(instance)
    finally:
        segment.unlink(instance)


def test_a_segment_that_is_forgotten_is_let_go(instance: str) -> None:
    segment.create(geometry(instance))
    assert segment.remove_if_dead(instance), "with no reference left it holds nothing"


def test_a_forked_child_keeps_its_parent_s_segments_alive(instance: str) -> None:
    made = segment.create(geometry(instance))
    ours, theirs = os.pipe()
    pid = child(lambda: (os.close(theirs), os.read(ours, 1)))
    made.detach()
    assert segment.is_attached(instance)
    assert segment.attached_pids(instance) == [pid]
    assert not segment.remove_if_dead(instance)
    os.close(theirs)
    assert ended(pid) == 0
    os.close(ours)
    assert segment.attached_pids(instance) == []
    assert segment.remove_if_dead(instance)


def test_a_descriptor_of_its_own_is_of_the_same_file_and_shares_no_lock(instance: str) -> None:
    made = segment.create(geometry(instance))
    made.unlink()
    fd, reader = made.open_fd(), segment.Segment.open_fd(made, writable=False)
    assert os.path.sameopenfile(fd, made.fd), "though the name is gone"
    assert try_lock(fd, 8192)
    assert is_locked(made.fd, 8192)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        try_lock(reader, 8193)
    os.close(fd)
    os.close(reader)


def test_an_unlink_takes_the_file_it_means_and_no_other(instance: str) -> None:
    old = segment.create(geometry(instance))
    old.unlink()
    new = segment.create(geometry(instance))
    try:
        old.unlink()
        assert (SHM / instance).exists()
    finally:
        new.unlink()
    assert not (SHM / instance).exists()
    new.unlink()


# The cleaner


def test_what_a_dead_creator_left_half_done_is_removed(instance: str) -> None:
    def die(_: np.ndarray) -> None:
        os.kill(os.getpid(), signal.SIGKILL)

    assert ended(child(lambda: segment.create(geometry(instance), prepare=die))) == -signal.SIGKILL
    with pytest.raises(SegmentError, match="magic=0: it is still being created, or its creator died"):
        segment.attach(instance, lib.TP_KIND_TABLE)
    assert segment.remove_dead(instance) == [instance]
    assert segment.remove_dead(instance) == []


def test_what_a_living_creator_has_half_done_is_not_removed(instance: str) -> None:
    answers: list[bool] = []
    made = segment.create(geometry(instance), prepare=lambda _: answers.append(segment.remove_if_dead(instance)))
    assert answers == [False]
    made.unlink()


def test_several_are_removed_by_their_beginning(instance: str) -> None:
    for name in ("a", "b", "c"):
        (SHM / f"{instance}.{name}").write_bytes(b"\0" * 8192)
    alive = segment.create(geometry(f"{instance}.alive"))
    assert segment.remove_dead(f"{instance}.") == [f"{instance}.{name}" for name in ("a", "b", "c")]
    assert segment.names(f"{instance}.") == [alive.name]
    alive.unlink()


@pytest.mark.parametrize("make", [os.mkfifo, Path.mkdir, lambda path: path.symlink_to("/etc/passwd")], ids=["fifo", "folder", "symlink"])
def test_what_is_no_file_is_left_to_its_owner(instance: str, make: Callable[[Path], None]) -> None:
    path = SHM / instance
    make(path)
    try:
        assert not segment.is_attached(instance)
        assert segment.remove_dead(instance) == []
        with pytest.raises(SegmentError, match="something that is not a regular file has this name: remove it by hand"):
            segment.create(geometry(instance))
        assert os.path.lexists(path)
    finally:
        path.rmdir() if path.is_dir() and not path.is_symlink() else path.unlink()


def test_a_cleaner_that_opened_a_file_before_it_was_replaced_removes_nothing(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Between its open and its lock the dead file is removed by another, and a new one made under the same name."""
    (SHM / instance).write_bytes(b"dead")
    made: list[Segment] = []

    def late(fd: int, byte: int, *, shared: bool = False) -> bool:
        monkeypatch.setattr(cleaner, "try_lock", try_lock)
        assert segment.remove_if_dead(instance)
        made.append(segment.create(geometry(instance)))
        return try_lock(fd, byte, shared=shared)

    monkeypatch.setattr(cleaner, "try_lock", late)
    assert not segment.remove_if_dead(instance)
    assert (SHM / instance).stat().st_ino == os.fstat(made[0].fd).st_ino
    made[0].unlink()


def test_a_creator_whose_new_file_was_cleaned_starts_over(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A cleaner comes between the creation of the file and its lock, twice."""
    cleaned = []

    def late(fd: int, byte: int, *, shared: bool = False) -> bool:
        if len(cleaned) < 2:
            cleaned.append(segment.remove_if_dead(instance))
        return try_lock(fd, byte, shared=shared)

    monkeypatch.setattr(segment, "try_lock", late)
    made = segment.create(geometry(instance))
    assert cleaned == [True, True]
    assert (SHM / instance).stat().st_ino == os.fstat(made.fd).st_ino
    made.unlink()


def test_a_creator_waits_for_a_cleaner_that_dies_half_way(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """The cleaner has the lock and goes without unlinking: the file is the creator's after all."""
    cleaners: list[int] = []

    def late(fd: int, byte: int, *, shared: bool = False) -> bool:
        if not cleaners:
            cleaners.append(os.open(SHM / instance, os.O_RDWR))
            assert try_lock(cleaners[0], 0)
            refused = not try_lock(fd, byte, shared=shared)
            os.close(cleaners[0])
            return not refused
        return try_lock(fd, byte, shared=shared)

    monkeypatch.setattr(segment, "try_lock", late)
    made = segment.create(geometry(instance))
    assert len(cleaners) == 1
    assert segment.is_attached(instance)
    made.unlink()


def test_a_cleaner_that_stands_still_is_an_error_that_leaves_nothing(instance: str, monkeypatch: pytest.MonkeyPatch) -> None:
    stopped: list[int] = []

    def late(fd: int, byte: int, *, shared: bool = False) -> bool:
        if not stopped:
            stopped.append(os.open(SHM / instance, os.O_RDWR))
            assert try_lock(stopped[0], 0)
        return try_lock(fd, byte, shared=shared)

    monkeypatch.setattr(segment, "try_lock", late)
    monkeypatch.setattr(segment, "LIFE_WAIT_S", 0.01)
    with pytest.raises(SegmentError, match="a process that removes it has stopped half way"):
        segment.create(geometry(instance))
    with pytest.raises(SegmentError, match="a process that removes it has stopped half way"):
        segment.attach(instance, lib.TP_KIND_TABLE)
    os.close(stopped[0])
    assert segment.remove_if_dead(instance)


# Many at once

LIVES = int(os.environ.get("TICKPATH_LIVES", "120"))
NAMES = 3


class Log:
    """Lines that many processes append to, whole, and that survive them."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)

    def note(self, word: str, inode: int) -> None:
        os.write(self.fd, f"{word} {inode}\n".encode())

    def inodes(self, word: str) -> list[int]:
        return [int(line.split()[1]) for line in self.path.read_text().splitlines() if line.startswith(f"{word} ")]


def create_and_die(prefix: str, log: Log, seed: int) -> None:
    """Create segments, look that they stay, leave some without unlinking, until a timer ends it at any instruction."""
    chance = random.Random(seed)
    # Naming who is in the way takes a walk through /proc, and would be most of what these do.
    segment.attached_pids = lambda name: []  # type: ignore[assignment]
    signal.setitimer(signal.ITIMER_PROF, chance.uniform(0.0005, 0.02))
    while True:
        name = f"{prefix}.{chance.randrange(NAMES)}"
        try:
            made = segment.create(geometry(name, chance.choice([8, 2_000])))
        except SegmentError as error:
            if "exists already" not in str(error):
                raise
            continue
        inode = os.fstat(made.fd).st_ino
        log.note("made", inode)
        for _ in range(chance.randrange(200)):
            if os.fstat(made.fd).st_nlink != 1 or (SHM / name).stat().st_ino != inode:
                log.note("lost", inode)
        made.detach()


def clean_and_die(prefix: str, log: Log, seed: int, lives: float = 0.02) -> None:
    """Remove what is dead, and note each file right after it was unlinked, under its lock."""
    chance = random.Random(seed)
    unlink = Path.unlink

    def noted(path: Path, missing_ok: bool = False) -> None:
        inode = path.lstat().st_ino
        unlink(path, missing_ok)
        log.note("gone", inode)

    Path.unlink = noted  # type: ignore[method-assign]
    if lives:
        signal.setitimer(signal.ITIMER_PROF, chance.uniform(0.0005, lives))
    while True:
        segment.remove_dead(prefix)
        if not lives and not segment.names(prefix):
            return


def test_each_dead_segment_is_removed_once_and_no_living_one_ever(instance: str, tmp_path: Path) -> None:
    """Creators and cleaners at once, on few names, each killed at a random moment of its work and replaced."""
    seed = int(os.environ.get("TICKPATH_SEED", str(time.time_ns() % 1_000_000)))
    print(f"seed={seed} lives={LIVES}")
    log = Log(tmp_path / "log")
    numbers = itertools.count(seed)
    running: dict[int, Callable[[str, Log, int], None]] = {}

    def start(work: Callable[[str, Log, int], None]) -> None:
        number = next(numbers)
        running[child(lambda: work(f"{instance}.", log, number))] = work

    try:
        for work in (create_and_die, create_and_die, create_and_die, clean_and_die, clean_and_die, clean_and_die):
            start(work)
        for _ in range(LIVES):
            pid, status = os.wait()
            assert os.waitstatus_to_exitcode(status) == -signal.SIGPROF, "every one of them is killed; none may fail by itself"
            start(running.pop(pid))
    finally:
        for pid in running:
            os.kill(pid, signal.SIGKILL)
        for pid in running:
            os.waitpid(pid, 0)
    assert ended(child(lambda: clean_and_die(f"{instance}.", log, 0, 0))) == 0
    assert segment.names(f"{instance}.") == []
    made, gone = log.inodes("made"), log.inodes("gone")
    print(f"made={len(made)} gone={len(gone)}")
    assert log.inodes("lost") == [], "a segment that a living process was attached to was removed"
    assert len(made) > LIVES // 10, "they came to work"
    assert len(gone) == len(set(gone)), "removed twice"
    assert len(set(made) - set(gone)) <= 3 * LIVES // 10, "removed, but for cleaners killed before they could write it down"
