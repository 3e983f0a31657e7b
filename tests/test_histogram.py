"""Histograms: every bucket's bounds, percentiles against numpy, merging, and the values at both ends."""

import math
import os
import random
from fractions import Fraction

import numpy as np
import pytest
from numba import njit

from shm.histogram import Distribution, highest_value
from shm.hot import HISTOGRAM_BUCKETS, HISTOGRAM_COUNT, LARGEST_VALUE, bucket_of, record
from shm.layout import HISTOGRAM
from shm.table import Table

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
BUCKETS = HISTOGRAM["buckets"].shape[0]


@njit
def record_all(histogram, values):
    for value in values:
        record(histogram, value)


def histogram_of(values: np.ndarray) -> np.ndarray:
    words = np.zeros(HISTOGRAM.itemsize // 8, np.int64)
    record_all(words, values.astype(np.int64))
    return words


@pytest.fixture
def random_values() -> dict[str, np.ndarray]:
    print(f"TICKPATH_SEED={SEED}")
    generator = np.random.default_rng(SEED)
    return {
        "lognormal": generator.lognormal(7, 1.5, 20_000).astype(np.int64),
        "uniform": generator.integers(0, 1 << 20, 10_000),
        "wide": (1 << generator.integers(0, 48, 5_000)) - generator.integers(0, 2, 5_000),
        "few": generator.integers(50, 300, 7),
        "one": generator.integers(0, 1 << 47, 1),
        "equal": np.full(1_000, 129),
    }


def test_the_bounds_of_every_bucket_are_exact() -> None:
    tops = [highest_value(bucket) for bucket in range(BUCKETS)]
    assert [bucket_of(top) for top in tops] == list(range(BUCKETS))
    assert [bucket_of(top + 1) for top in tops[:-1]] == list(range(1, BUCKETS))
    assert tops[-1] == LARGEST_VALUE
    assert tops[:130] == [*range(128), 129, 131], "exact below 128, then two values to a bucket"


def test_no_bucket_is_wider_than_a_sixty_fourth_of_its_values() -> None:
    tops = np.array([highest_value(bucket) for bucket in range(BUCKETS)])
    lowest = tops[:-1] + 1
    assert np.all((tops[1:] - lowest) * 64 <= lowest)


def test_percentiles_are_at_most_a_sixty_fourth_high(random_values: dict[str, np.ndarray]) -> None:
    for name, values in random_values.items():
        distribution = Distribution.of(histogram_of(values))
        for percent in (0, 0.01, 1, 25, 50, 90, 99, 99.9, 99.99, 100):
            rank = max(1, math.ceil(len(values) * Fraction(str(percent)) / 100))
            exact = int(np.sort(values)[rank - 1])
            read = distribution.percentile(percent)
            assert exact <= read <= exact + exact // 64, f"{name}: p{percent}={read}, exactly {exact}"


def test_counts_sums_and_extremes_are_exact(random_values: dict[str, np.ndarray]) -> None:
    for name, values in random_values.items():
        distribution = Distribution.of(histogram_of(values))
        found = (distribution.count, distribution.total, distribution.minimum, distribution.maximum)
        assert found == (len(values), values.sum(), values.min(), values.max()), name
        assert distribution.mean == pytest.approx(values.mean())
        assert distribution.percentile(100) == values.max()


def test_merged_histograms_are_the_histogram_of_both(random_values: dict[str, np.ndarray]) -> None:
    several = [*random_values.values(), np.zeros(0, np.int64)]
    for one in several:
        for other in several:
            merged = Distribution.of(histogram_of(one)).merged(Distribution.of(histogram_of(other)))
            both = Distribution.of(histogram_of(np.concatenate([one, other])))
            assert np.array_equal(merged.buckets, both.buckets)
            for field in ("count", "total", "minimum", "maximum"):
                assert getattr(merged, field) == getattr(both, field), field


def test_values_beyond_either_end_are_counted_at_that_end() -> None:
    words = histogram_of(np.array([-(1 << 62), -1, 0, LARGEST_VALUE, LARGEST_VALUE + 1, (1 << 63) - 1]))
    distribution = Distribution.of(words)
    assert words[HISTOGRAM_BUCKETS] == 3
    assert words[-1] == 3
    assert (distribution.minimum, distribution.maximum) == (0, LARGEST_VALUE)
    assert distribution.total == 3 * LARGEST_VALUE
    assert words[HISTOGRAM_COUNT] == distribution.count == 6


def test_a_percentile_that_falls_on_a_value_is_that_value() -> None:
    """99.9 % of 20,000 is 19,980 exactly, which binary fractions miss."""
    distribution = Distribution.of(histogram_of(np.repeat([10, 20], [19_980, 20])))
    assert distribution.percentile(99.9) == 10
    assert distribution.percentile(99.91) == 20


def test_an_empty_histogram_reads_as_zeros() -> None:
    empty = Distribution.of(np.zeros(HISTOGRAM.itemsize // 8, np.int64))
    assert (empty.count, empty.minimum, empty.maximum, empty.mean) == (0, 0, 0, 0.0)
    assert [empty.percentile(percent) for percent in (0, 50, 100)] == [0, 0, 0]


def test_a_copy_stands_still_while_the_histogram_goes_on() -> None:
    words = histogram_of(np.array([5]))
    copied = Distribution.of(words)
    record_all(words, np.array([9]))
    assert (copied.count, copied.percentile(100), int(copied.buckets.sum())) == (1, 5, 1)


def test_kernels_record_into_a_shared_table(instance: str) -> None:
    table = Table.create(instance, HISTOGRAM, 8)
    try:
        seen = Table.attach(instance, HISTOGRAM, writable=False)
        record(table.words()[3], 1_000)
        assert seen.records[3]["maximum"] == 1_000
        assert [Distribution.of(row).count for row in seen.words()] == [0, 0, 0, 1, 0, 0, 0, 0]
    finally:
        table.unlink()
