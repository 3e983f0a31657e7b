"""Histograms: every bucket's bounds, percentiles against numpy, merging, and the values at both ends."""

import io
import math
import os
import random
import threading
from fractions import Fraction

import numpy as np
import pytest
from hdrh.histogram import HdrHistogram
from numba import njit

from shm.histogram import HDR_UNIT_MAX, Distribution, highest_value, lowest_value
from shm.hot import HISTOGRAM_BUCKETS, HISTOGRAM_COUNT, HISTOGRAM_MAXIMUM, HISTOGRAM_MINIMUM, LARGEST_VALUE, bucket_of, record
from shm.layout import HISTOGRAM
from shm.table import Table

SEED = int(os.environ.get("TICKPATH_SEED", random.randrange(1 << 30)))
BUCKETS = HISTOGRAM["buckets"].shape[0]


@njit(nogil=True)
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
        "close": generator.integers(10_001, 10_400, 1_000),
    }


def test_the_bounds_of_every_bucket_are_exact() -> None:
    tops = [highest_value(bucket) for bucket in range(BUCKETS)]
    assert [bucket_of(top) for top in tops] == list(range(BUCKETS))
    assert [bucket_of(top + 1) for top in tops[:-1]] == list(range(1, BUCKETS))
    assert [lowest_value(bucket) for bucket in range(BUCKETS)] == [0, *(top + 1 for top in tops[:-1])]
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


def test_a_copy_made_while_the_writer_writes_agrees_with_itself() -> None:
    words = np.zeros(HISTOGRAM.itemsize // 8, np.int64)
    generator = np.random.default_rng(SEED)
    print(f"TICKPATH_SEED={SEED}")
    # Extremes that keep moving: each value beyond all before it, up and down in turn.
    values = np.concatenate([[int(30_000 * 1.001**n), max(0, 30_000 - n)] for n in range(20_000)])
    record_all(words, values[:2])
    writer = threading.Thread(target=lambda: [record_all(words, generator.permutation(values)) for _ in range(200)])
    writer.start()
    copies = 0
    while writer.is_alive() or not copies:
        seen = Distribution.of(words)
        copies += 1
        filled = np.flatnonzero(seen.buckets)
        assert seen.count == int(seen.buckets.sum()) > 0
        assert bucket_of(seen.minimum) == filled[0]
        assert bucket_of(seen.maximum) == filled[-1]
        assert seen.percentile(0) <= seen.percentile(50) <= seen.percentile(100) == seen.maximum
    writer.join()


@pytest.mark.parametrize(("minimum", "maximum"), [(0, 0), (5, 70), (1_000, 1_000), (LARGEST_VALUE, LARGEST_VALUE)])
def test_extremes_of_another_moment_are_put_right_by_the_buckets(minimum: int, maximum: int) -> None:
    """What a copy sees that came between a writer's store of an extreme and the one of its bucket."""
    words = histogram_of(np.array([50, 60, 700]))
    words[HISTOGRAM_MINIMUM], words[HISTOGRAM_MAXIMUM], words[HISTOGRAM_COUNT] = minimum, maximum, 0
    seen = Distribution.of(words)
    assert (seen.count, seen.minimum) == (3, 50)
    assert bucket_of(seen.maximum) == bucket_of(700)


def read_back(distribution: Distribution, unit: float = 1.0) -> HdrHistogram:
    return HdrHistogram.decode(distribution.to_hdr_text(unit).encode())


@pytest.mark.parametrize("unit", [1.0, 0.4, 1 / 2.9999, 1.7, 1000.0])
def test_an_export_read_back_has_every_count_and_its_percentiles(unit: float, random_values: dict[str, np.ndarray]) -> None:
    for name, values in random_values.items():
        distribution = Distribution.of(histogram_of(values))
        back = read_back(distribution, unit)
        assert back.get_total_count() == distribution.count == sum(item.count_added_in_this_iter_step for item in back)
        for percent in (0.01, 1, 25, 50, 90, 99, 99.9, 99.99, 100):
            # They count to the rank nearest to the share, we to the one that reaches it: held against what we read of theirs.
            rank = max(1, int(distribution.count * percent / 100 + 0.5))
            bucket = int(np.searchsorted(np.cumsum(distribution.buckets), rank))
            theirs, highest = back.get_value_at_percentile(percent), min(highest_value(bucket), distribution.maximum) * unit
            lowest = max(lowest_value(bucket), distribution.minimum) * unit if rank == 1 else highest
            assert lowest - 0.5 <= theirs <= highest + highest / 128 + 1.5, f"{name}: p{percent}={theirs}, ours {lowest}..{highest}"


def test_an_export_keeps_the_extremes(random_values: dict[str, np.ndarray]) -> None:
    for name, values in random_values.items():
        exported = Distribution.of(histogram_of(values)).to_hdr()
        assert (exported.min_value, exported.max_value) == (values.min(), values.max()), name


def test_exported_values_are_those_recorded_where_both_are_exact() -> None:
    values = np.array([0, 0, 3, 3, 3, 127])
    counted = {item.value_iterated_to: item.count_added_in_this_iter_step for item in read_back(Distribution.of(histogram_of(values)))}
    assert counted == {0: 2, 3: 3, 127: 1}


def test_ticks_become_nanoseconds() -> None:
    hz = 2_500_000_000
    exported = Distribution.of(histogram_of(np.full(10, 2_500))).to_hdr(1e9 / hz)
    assert (exported.min_value, exported.get_value_at_percentile(50)) == (1_000, exported.get_highest_equivalent_value(1_000))


def test_the_largest_values_survive_the_largest_unit() -> None:
    back = read_back(Distribution.of(histogram_of(np.array([LARGEST_VALUE, LARGEST_VALUE]))), HDR_UNIT_MAX)
    assert back.get_total_count() == 2
    assert back.get_max_value() >= LARGEST_VALUE * HDR_UNIT_MAX


def test_an_empty_histogram_is_exported_empty() -> None:
    empty = Distribution.of(np.zeros(HISTOGRAM.itemsize // 8, np.int64))
    assert read_back(empty).get_total_count() == 0
    file = io.BytesIO()
    empty.write_hgrm(file)
    assert b"TotalCount     =         0.00" in file.getvalue()


@pytest.mark.parametrize("unit", [0, -1.0, math.nan, math.inf, HDR_UNIT_MAX + 1])
def test_a_unit_that_scales_nothing_is_refused(unit: float) -> None:
    with pytest.raises(ValueError, match=r"unit=.*: expected how many"):
        Distribution.of(histogram_of(np.array([1]))).to_hdr(unit)


def test_the_percentile_file_reads_as_percentiles() -> None:
    file = io.BytesIO()
    Distribution.of(histogram_of(np.arange(1, 101))).write_hgrm(file)
    lines = file.getvalue().decode().splitlines()
    assert lines[0].split() == ["Value", "Percentile", "TotalCount", "1/(1-Percentile)"]
    rows = [line.split() for line in lines[2:] if line and not line.startswith("#")]
    assert len(rows) > 20
    assert all(float(value) == int(at_or_below) for value, _, at_or_below, *_ in rows)
    assert (float(rows[-1][0]), float(rows[-1][1])) == (100, 1)
