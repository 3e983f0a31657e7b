"""The status of a ring: what it says of living, hung, left and dead ends, and that asking for it writes nothing and holds nothing up."""

import grp
import json
import os
import random
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import orjson
import pytest

from shm import segment
from shm._shim import lib
from shm.hot import advance, claim, commit, poll, producer_beat, reader_beat, release
from shm.ring import Ring
from shm.status import RingStatus, instance_of, printable, status, watch
from tests.children import child, in_child, kill, stopped, until, wait_for_exit
from tests.ring_kernels import MESSAGE

NOBODY = 65_534
# Ticks of a clock at 1 GHz would be nanoseconds; the true rate does not matter to whether a heartbeat is old.
HZ = 1e9
OLD_TICKS = 3 * 10**9


@pytest.fixture
def ring(instance: str) -> Iterator[Ring]:
    made = Ring.create(f"tickpath-test-{instance}.ring", 16, {"message": MESSAGE}, ["fast", "slow"], observers=["eye"], spare=1)
    yield made
    made.unlink()
    made.detach()


def push(out, count: int) -> None:
    for _ in range(count):
        commit(out.end, claim(out.end))


def read(into, count: int) -> None:
    for _ in range(count):
        assert poll(into.end) >= 0
        advance(into.end)
    release(into.end)


def reader(found: RingStatus, name: str):
    return next(reader for reader in found.readers if reader.name == name)


def test_a_new_ring_has_nobody_at_it(ring: Ring) -> None:
    found = status(ring, tsc_hz=HZ)
    assert (found.name, found.instance) == (ring.name, ring.name.split(".")[0])
    assert (found.capacity, found.record_bytes, found.when_full, found.position, found.first_position) == (16, 64, "wait", 0, 0)
    assert (found.creator, found.creator_alive, found.page_bytes) == (os.getpid(), True, 4096)
    assert 0 <= found.age_s < 600
    assert found.producer.state == "absent"
    assert [(each.name, each.mode, each.state, each.backlog) for each in found.readers] == [
        ("fast", "gating", "absent", 0),
        ("slow", "gating", "absent", 0),
        ("eye", "observer", "absent", 0),
    ]
    assert found.trouble == []
    assert found.placement is None


def test_positions_backlogs_and_counters_are_those_of_the_ends(ring: Ring) -> None:
    out, fast, slow = ring.producer(MESSAGE), ring.consumer("fast", MESSAGE), ring.consumer("slow", MESSAGE)
    push(out, 13)
    read(fast, 11)
    read(slow, 4)
    found = status(ring)
    assert found.position == 13
    assert [(each.name, each.position, each.backlog, each.pid) for each in found.readers] == [
        ("fast", 11, 2, os.getpid()),
        ("slow", 4, 9, os.getpid()),
        ("eye", 0, 13, 0),
    ]
    assert found.slowest is not None
    assert found.slowest.name == "slow"
    assert (found.producer.state, found.producer.pid, found.producer.process) == (
        "alive",
        os.getpid(),
        Path("/proc/self/comm").read_text().strip(),
    )
    assert claim(out.end) >= 0
    push(out, 7)
    assert claim(out.end) < 0
    assert (status(ring).producer.waits, status(ring).position) == (1, 20), "a claimed slot is not published"


@pytest.mark.parametrize("first", [0, 1, 2**32 - 5, 2**63 - 5, 2**64 - 5])
def test_positions_are_unsigned_wherever_they_wrap(instance: str, first: int) -> None:
    ring = Ring.create(f"tickpath-test-{instance}.wrap", 8, {"message": MESSAGE}, ["reader"], first_position=first)
    try:
        out, into = ring.producer(MESSAGE), ring.consumer("reader", MESSAGE)
        for _ in range(4):
            push(out, 5)
            read(into, 3)
            read(into, 2)
        push(out, 3)
        read(into, 1)
        found = status(ring)
        assert (found.first_position, found.position) == (first, (first + 23) % 2**64)
        assert (found.readers[0].position, found.readers[0].backlog) == ((first + 21) % 2**64, 2)
        orjson.dumps(found.to_dict())
    finally:
        ring.unlink()
        ring.detach()


def test_a_process_that_ended_is_dead_and_one_that_gave_its_end_back_has_left(ring: Ring) -> None:
    def work() -> None:
        own = Ring.attach(ring.name)
        push(own.producer(MESSAGE), 3)
        own.consumer("fast", MESSAGE)
        signal.pause()

    with child(work) as pid:
        until(lambda: reader(status(ring), "fast").alive, "the child is a reader")
        assert (status(ring).producer.state, reader(status(ring), "fast").state) == ("alive", "alive")
        kill_without_waiting(pid)
        # Killed and not waited for, it is still in the process table.
        until(lambda: not status(ring).producer.alive, "the kernel frees the lock of the dead")
        found = status(ring)
        assert (found.producer.state, found.producer.pid, found.producer.process) == ("dead", pid, None)
        assert found.trouble == ["producer dead", "reader fast dead"]
    found = status(ring)
    assert (found.producer.state, found.position, reader(found, "fast").backlog) == ("dead", 3, 3)
    out = ring.producer(MESSAGE)
    assert (status(ring).producer.state, status(ring).producer.epoch) == ("alive", 2)
    out.close()
    assert status(ring).producer.state == "left"
    assert status(ring).trouble == ["reader fast dead"]


def test_another_process_that_has_the_pid_by_now_is_not_taken_for_it(ring: Ring) -> None:
    out = ring.producer(MESSAGE)
    out.record["start"] -= 1
    out.close()
    assert (status(ring).producer.pid, status(ring).producer.state) == (os.getpid(), "dead")


def kill_without_waiting(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)


def test_an_old_heartbeat_of_a_held_end_is_hung_and_a_missing_one_is_not(ring: Ring) -> None:
    out, into = ring.producer(MESSAGE), ring.consumer("slow", MESSAGE)
    now = int(lib.tp_rdtsc())
    producer_beat(out.end, 0)
    found = status(ring, tsc_hz=HZ)
    assert (found.producer.state, found.producer.heartbeat_age_ms) == ("alive", None), "an end that never beats"
    producer_beat(out.end, now - OLD_TICKS)
    reader_beat(into.end, now + OLD_TICKS)
    found = status(ring, tsc_hz=HZ)
    assert (found.producer.state, reader(found, "slow").state) == ("hung", "alive")
    assert found.producer.heartbeat_age_ms is not None
    assert found.producer.heartbeat_age_ms >= 3_000
    assert reader(found, "slow").heartbeat_age_ms == 0, "a core whose counter is ahead"
    assert found.trouble == ["producer hung"]
    assert status(ring).producer.state == "alive", "without the TSC's rate nobody is called hung"
    assert status(ring, tsc_hz=HZ, hung_after_ms=1e12).producer.state == "alive"
    reader_beat(into.end, now - OLD_TICKS)
    assert status(ring, tsc_hz=HZ).trouble == ["producer hung", "reader slow hung"]
    out.close()
    assert not status(ring, tsc_hz=HZ).producer.hung, "nobody holds it, so nobody hangs"


def test_a_stopped_process_is_hung_and_then_alive_again(ring: Ring) -> None:
    def work() -> None:
        out = Ring.attach(ring.name).producer(MESSAGE)
        while True:
            producer_beat(out.end, int(lib.tp_rdtsc()))
            os.sched_yield()

    def state() -> str:
        # 200 ms at the least: the rate that is given is below the true one of any machine that runs this.
        return status(ring, tsc_hz=5e8, hung_after_ms=2_000).producer.state

    with child(work) as pid:
        until(lambda: status(ring, tsc_hz=5e8).producer.heartbeat_age_ms is not None, "the child beats")
        assert state() == "alive"
        os.kill(pid, signal.SIGSTOP)
        until(lambda: stopped(pid), "SIGSTOP arrives")
        until(lambda: state() == "hung", "the heartbeat grows old")
        os.kill(pid, signal.SIGCONT)
        until(lambda: state() == "alive", "it beats again")
        kill(pid)
        assert state() == "dead"


def test_an_evicted_reader_is_trouble_and_a_dead_observer_is_not(ring: Ring) -> None:
    def work() -> None:
        own = Ring.attach(ring.name)
        own.consumer("fast", MESSAGE)
        own.observer(MESSAGE, "eye")
        signal.pause()

    with child(work) as pid:
        until(lambda: reader(status(ring), "eye").alive, "the child observes")
        kill(pid)
    assert reader(status(ring), "eye").state == "dead"
    out = ring.producer(MESSAGE)
    ring.consumer("slow", MESSAGE)
    push(out, 16)
    assert out.evict_dead() == ["fast"]
    found = status(ring)
    assert (reader(found, "fast").mode, found.producer.evicted) == ("evicted", 1)
    assert found.trouble == ["reader fast evicted"]
    assert found.slowest is not None
    assert found.slowest.name == "slow"


def test_looking_changes_no_byte_and_keeps_nothing_alive(ring: Ring) -> None:
    out = ring.producer(MESSAGE)
    push(out, 5)
    files = [Path(f"/dev/shm/{name}") for name in (ring.name, f"{ring.name}.cursors")]
    before = [file.read_bytes() for file in files]
    name = ring.name
    ring.detach()
    seen = watch(name)
    assert not seen.slots.writable
    assert status(seen).position == 5
    assert [file.read_bytes() for file in files] == before
    assert not segment.is_attached(name)
    assert sorted(segment.remove_dead(name)) == sorted(file.name for file in files), "a watcher does not stop the cleaner"
    assert status(seen, placement=True).position == 5, "what is mapped stays"
    seen.detach()


def test_a_user_of_the_group_may_look_and_one_outside_may_not(instance: str) -> None:
    if os.getuid() != 0:
        pytest.skip("needs root, to become somebody else")
    group, name = next(each.gr_gid for each in grp.getgrall() if each.gr_gid not in (0, NOBODY)), f"tickpath-test-{instance}.group"
    os.setgroups([*os.getgroups(), group])
    ring = Ring.create(name, 8, {"message": MESSAGE}, ["reader"], mode=0o660, group=group)
    try:
        push(ring.producer(MESSAGE), 2)

        def look_as(groups: list[int]) -> bool:
            os.setgroups(groups)
            os.setgid(NOBODY)
            os.setuid(NOBODY)
            return status(watch(name), tsc_hz=HZ).producer.alive

        assert exit_code(lambda: look_as([group])) == 0
        assert exit_code(lambda: refused(lambda: look_as([]))) == 0
    finally:
        ring.unlink()
        ring.detach()
        os.setgroups([each for each in os.getgroups() if each != group])


def exit_code(work) -> int:
    return wait_for_exit(in_child(work))


def refused(work) -> bool:
    try:
        work()
    except segment.SegmentError as error:
        return "cannot open it" in str(error)
    return False


def test_the_report_is_plain_json_and_the_text_names_everyone(ring: Ring) -> None:
    out = ring.producer(MESSAGE)
    push(out, 3)
    producer_beat(out.end, int(lib.tp_rdtsc()) - OLD_TICKS)
    ring.consumer("fast", MESSAGE)
    found = status(ring, tsc_hz=HZ, placement=True)
    said = json.loads(orjson.dumps(found.to_dict()))
    assert said["producer"]["state"] == "hung"
    assert [(each["name"], each["state"], each["backlog"]) for each in said["readers"]] == [
        ("fast", "alive", 3),
        ("slow", "absent", 3),
        ("eye", "absent", 3),
    ]
    assert said["trouble"] == ["producer hung"]
    assert sum(said["placement"]["nodes"].values()) == said["placement"]["resident_bytes"] > 0
    text = str(found)
    for word in (ring.name, "position 3", "hung", "fast", "slow: absent", "observer", f"pid {os.getpid()}", "3 behind", "node 0"):
        assert word in text, f"{word!r} is not in:\n{text}"


def test_scribbled_blocks_are_reported_and_break_nothing(ring: Ring) -> None:
    """Whatever stands in the cursor segment: an answer, one that can be printed, and no exception."""
    seed = random.randrange(1 << 30)
    print(f"seed={seed}")
    generator = np.random.default_rng(seed)
    with open(f"/dev/shm/{ring.name}.cursors", "r+b") as file:  # noqa: PTH123
        for _ in range(200):
            file.seek(8192)
            file.write(generator.integers(0, 256, 128 * 5, np.uint8).tobytes())
            for block in range(1, 5):
                file.seek(8192 + 128 * block + 64)
                file.write(int(generator.integers(0, 5)).to_bytes(4, "little"))
            file.flush()
            found = status(ring, tsc_hz=HZ)
            orjson.dumps(found.to_dict())
            assert str(found).replace("\n", "").isprintable()
            assert all(each.backlog >= 0 for each in found.readers)


@pytest.mark.parametrize(
    ("text", "shown"), [("plain", "plain"), ("é", "é"), ("\x1b[2J", "\\x1b[2J"), ("a\nb", "a\\nb"), ("\udcff", "\\udcff")]
)
def test_names_that_are_no_text_are_escaped(text: str, shown: str) -> None:
    assert printable(text) == shown


def test_an_instance_is_what_stands_before_the_first_dot() -> None:
    assert [instance_of(name) for name in ("a.b", "a.b.cursors", "lone")] == ["a", "a", ""]
