"""The ring against what it must be: a deque for each reader. Runs compiled or as plain Python (python -m tests.ring_model SEED)."""

import random
import sys
from collections import deque
from dataclasses import dataclass, field

import engine  # noqa: F401  (names the kernel cache before numba is imported)
from shm.hot import EMPTY, FULL, POSITION, ConsumerEnd, advance, claim, commit, has_messages, has_room, poll, release
from shm.ring import Ring
from shm.roles import wrapped
from tests.ring_kernels import MESSAGE


@dataclass
class ModelReader:
    """Values not read yet; values read but not given back."""

    unread: deque[int] = field(default_factory=deque)
    held: int = 0


class Comparison:
    """One ring and its model, driven by one random sequence of operations and compared after each."""

    def __init__(self, name: str, seed: int, capacity: int, readers: int, first_position: int) -> None:
        self.random = random.Random(f"{seed} {capacity} {readers} {first_position}")
        self.capacity = capacity
        self.first_position = first_position
        self.names = [f"reader-{number}" for number in range(readers)]
        self.ring = Ring.create(name, capacity, {"message": MESSAGE}, self.names, first_position=first_position)
        self.out = self.ring.producer(MESSAGE).end
        self.into = {name: self.ring.consumer(name, MESSAGE).end for name in self.names}
        self.model = {name: ModelReader() for name in self.names}
        self.published = 0
        self.claimed: int | None = None

    def run(self, operations: int) -> None:
        # Long one-sided stretches reach the full and the empty ring; even odds would hover in between.
        for step in range(operations):
            if step % (2 * self.capacity) == 0:
                eagerness = self.random.choice((0.1, 0.5, 0.9))
            if self.random.random() < eagerness:
                self.random.choice((self.write, self.write, self.write, self.ask_room, self.claim_only))()
            else:
                self.random.choice((self.read, self.read, self.read, self.give_back, self.ask_messages))()
            self.compare()

    def free(self) -> int:
        return self.capacity - max((len(reader.unread) + reader.held for reader in self.model.values()), default=0)

    def slot_of(self, published: int) -> int:
        return (self.first_position + published) % self.capacity

    def claim_only(self) -> None:
        self.claimed = claim(self.out)
        expected = self.slot_of(self.published) if self.free() else FULL
        assert self.claimed == expected, f"claim={self.claimed}, expected {expected}"
        if self.claimed == FULL:
            self.claimed = None

    def write(self) -> None:
        self.claim_only()
        if self.claimed is None:
            return
        value = self.random.getrandbits(62)
        self.out.slots[self.claimed]["a"] = value
        for reader in self.model:
            if not self.model[reader].unread:
                assert poll(self.into[reader]) == EMPTY, "a claimed slot is visible before its commit"
        commit(self.out, self.claimed)
        self.claimed = None
        self.published += 1
        for reader in self.model.values():
            reader.unread.append(value)

    def read(self) -> None:
        """Most of the readers poll; most of those that found something are done with it."""
        for name in self.names:
            if self.random.random() < 0.8:
                self.read_one(self.into[name], self.model[name])

    def read_one(self, into: ConsumerEnd, model: ModelReader) -> None:
        index = poll(into)
        if not model.unread:
            assert index == EMPTY, f"poll={index} of an empty ring"
            return
        expected = self.slot_of(self.published - len(model.unread))
        assert index == expected, f"poll={index}, expected {expected}"
        assert into.slots[index]["a"] == model.unread[0], "another value than the one written"
        if self.random.random() < 0.9:
            advance(into)
            model.unread.popleft()
            model.held += 1

    def give_back(self) -> None:
        for name in self.names:
            if self.random.random() < 0.8:
                release(self.into[name])
                self.model[name].held = 0

    def ask_room(self) -> None:
        count = self.random.randint(1, self.capacity)
        assert has_room(self.out, count) == (count <= self.free()), f"has_room({count}) with {self.free()} free"

    def ask_messages(self) -> None:
        if self.names:
            name = self.random.choice(self.names)
            count, unread = self.random.randint(1, self.capacity), len(self.model[name].unread)
            assert has_messages(self.into[name], count) == (count <= unread), f"has_messages({count}) with {unread} unread"

    def compare(self) -> None:
        assert self.ring.position() == wrapped(self.first_position + self.published)
        assert self.ring.backlog() == {name: len(reader.unread) + reader.held for name, reader in self.model.items()}
        assert self.out.local[POSITION] == wrapped(self.first_position + self.published)
        for name, reader in self.model.items():
            read = self.published - len(reader.unread)
            assert self.into[name].local[POSITION] == wrapped(self.first_position + read)

    def close(self) -> None:
        self.ring.unlink()
        self.ring.detach()


def compare_with_model(name: str, seed: int, capacity: int, readers: int, first_position: int, operations: int) -> Comparison:
    comparison = Comparison(name, seed, capacity, readers, first_position)
    try:
        comparison.run(operations)
    except AssertionError as error:
        raise AssertionError(f"seed={seed} capacity={capacity} readers={readers} first_position={first_position}: {error}") from error
    finally:
        comparison.close()
    return comparison


def main() -> None:
    name, seed = sys.argv[1], int(sys.argv[2])
    for capacity in (2, 4, 64):
        for first_position in (0, 2**63 - 100):
            compare_with_model(name, seed, capacity, readers=2, first_position=first_position, operations=1_500)
    print("agreed")


if __name__ == "__main__":
    main()
