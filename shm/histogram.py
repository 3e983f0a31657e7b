"""Reading the log-linear histograms that kernels write (shm.hot.record): percentiles, merging, export in the HdrHistogram format."""

import math
from dataclasses import dataclass
from typing import Any, BinaryIO

import numpy as np

from shm.hot import HISTOGRAM_BUCKETS, HISTOGRAM_MAXIMUM, HISTOGRAM_MINIMUM, HISTOGRAM_SUM, LARGEST_VALUE, SUB_BITS

# Of an exported histogram: 128 buckets to each power of two, so it keeps more than ours has.
HDR_SIGNIFICANT_FIGURES = 2
# Values stay below 2^62, which the other implementations of the format can hold.
HDR_UNIT_MAX = (1 << 62) // (LARGEST_VALUE + 1)


@dataclass(frozen=True)
class Distribution:
    """A histogram copied out of shared memory. Values are in the unit that was recorded (TSC ticks)."""

    buckets: np.ndarray
    count: int
    total: int
    minimum: int
    maximum: int

    @classmethod
    def of(cls, words: np.ndarray) -> "Distribution":
        """Copy histogram words, shape (8 + buckets,) int64, while their writer may be at it.

        Count and extremes are those of the copied buckets, so they agree; `total` may lack what was recorded during the copy.
        """
        copied = words.copy()
        buckets = copied[HISTOGRAM_BUCKETS:]
        filled = np.flatnonzero(buckets)
        total = int(copied[HISTOGRAM_SUM])
        if not len(filled):
            return cls(buckets, 0, total, 0, 0)
        # A writer changes extremes and buckets one after the other, so those copied may be of different moments.
        minimum = _within(int(filled[0]), int(copied[HISTOGRAM_MINIMUM]))
        maximum = _within(int(filled[-1]), int(copied[HISTOGRAM_MAXIMUM]))
        return cls(buckets, int(buckets.sum()), total, minimum, maximum)

    def merged(self, other: "Distribution") -> "Distribution":
        """The distribution of the values of both, as if one histogram had recorded them."""
        return Distribution(
            self.buckets + other.buckets,
            self.count + other.count,
            self.total + other.total,
            min((each.minimum for each in (self, other) if each.count), default=0),
            max(self.maximum, other.maximum),
        )

    @property
    def mean(self) -> float:
        return self.total / self.count if self.count else 0.0

    def percentile(self, percent: float) -> int:
        """The highest value of the bucket that holds the given share of values, never above the maximum; 0 where empty."""
        if not self.count:
            return 0
        rank = max(1, math.ceil(self.count * percent / 100))
        bucket = int(np.searchsorted(np.cumsum(self.buckets), rank))
        return min(highest_value(bucket), self.maximum)

    def to_hdr(self, unit: float = 1.0) -> Any:
        """The same counts as an `hdrh.histogram.HdrHistogram` of 2 significant figures, every value times `unit`, rounded.

        `unit` 1e9 / tsc_hz makes nanoseconds of TSC ticks. A bucket is counted at its highest value, as `percentile` reads it, but for
        the extremes, which are exact. ValueError for a unit out of range; ImportError without the `hdrhistogram` package.
        """
        if not 0 < unit <= HDR_UNIT_MAX:
            raise ValueError(f"unit={unit}: expected how many of the wanted units a recorded one is, above 0 and at most {HDR_UNIT_MAX}")
        from hdrh.histogram import HdrHistogram

        histogram = HdrHistogram(1, max(2, _times(LARGEST_VALUE, unit)), HDR_SIGNIFICANT_FIGURES)
        for value, count in self._counted_values():
            histogram.record_value(_times(value, unit), count)
        return histogram

    def to_hdr_text(self, unit: float = 1.0) -> str:
        """The histogram as HdrHistogram tools exchange it: base64 of its compressed V2 encoding. Arguments and errors as `to_hdr`."""
        return self.to_hdr(unit).encode().decode("ascii")

    def write_hgrm(self, file: BinaryIO, unit: float = 1.0, *, ticks_per_half_distance: int = 5) -> None:
        """Write the percentile distribution as HdrHistogram's plotters read it (.hgrm). Arguments and errors as `to_hdr`."""
        self.to_hdr(unit).output_percentile_distribution(file, 1.0, ticks_per_half_distance)

    def _counted_values(self) -> list[tuple[int, int]]:
        """Each filled bucket as a value and its count. One of the lowest bucket's is the minimum."""
        counted = [
            (min(highest_value(bucket), self.maximum), int(self.buckets[bucket])) for bucket in np.flatnonzero(self.buckets).tolist()
        ]
        if counted:
            value, count = counted[0]
            counted[:1] = [(self.minimum, 1), (value, count - 1)]
        return [(value, count) for value, count in counted if count]


def highest_value(bucket: int) -> int:
    """The largest value that falls into a bucket: the inverse of shm.hot.bucket_of."""
    return lowest_value(bucket + 1) - 1


def lowest_value(bucket: int) -> int:
    """The smallest value that falls into a bucket."""
    if bucket < 1 << (SUB_BITS + 1):
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    leading = (bucket & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS)
    return leading << shift


def _within(bucket: int, value: int) -> int:
    return min(max(value, lowest_value(bucket)), highest_value(bucket))


def _times(value: int, unit: float) -> int:
    return value if unit == 1.0 else round(value * unit)
