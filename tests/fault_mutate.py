"""Bytes that nobody meant: real and valid ones changed at random, as fuzzers do it. Seeded, so that what was found is found again."""

import random

# Values at which lengths, counts and offsets go wrong.
EXTREMES = (
    0,
    1,
    2,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0x8000,
    0xFFFE,
    0xFFFF,
    0x7FFFFFFF,
    0x80000000,
    0xFFFFFFFF,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)


def mutated(rng: random.Random, raw: bytes, others: list[bytes] | None = None) -> bytes:
    """`raw` after one to eight changes: bits, bytes, numbers at their limits, pieces cut out, doubled, moved or taken from another."""
    made = bytearray(raw)
    for _ in range(rng.choice([1, 1, 1, 2, 4, 8])):
        change = rng.randrange(9)
        at = rng.randrange(len(made) + 1)
        if change == 0 and made:
            made[at % len(made)] ^= 1 << rng.randrange(8)
        elif change == 1 and made:
            made[at % len(made)] = rng.randrange(256)
        elif change == 2:
            width = rng.choice([1, 2, 4, 8])
            made[at : at + width] = (rng.choice(EXTREMES) & ((1 << 8 * width) - 1)).to_bytes(width, rng.choice(["big", "little"]))
        elif change == 3:
            del made[at : at + rng.randrange(1, 40)]
        elif change == 4:
            made[at:at] = rng.randbytes(rng.randrange(1, 40))
        elif change == 5:
            made[at:at] = made[at : at + rng.randrange(1, 200)]
        elif change == 6:
            del made[at:]
        elif change == 7 and others:
            other = rng.choice(others)
            begin = rng.randrange(len(other) + 1)
            made[at:at] = other[begin : begin + rng.randrange(1, 200)]
        elif change == 8:
            made[at:] += rng.choice([b"\0", b"\xff", b" "]) * rng.randrange(1, 60)
    return bytes(made)
