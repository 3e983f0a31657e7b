"""Reading the log-linear histograms that kernels write (shm.hot.record): percentiles, merging."""

import math
from dataclasses import dataclass

import numpy as np

from shm.hot import HISTOGRAM_BUCKETS, HISTOGRAM_COUNT, HISTOGRAM_MAXIMUM, HISTOGRAM_MINIMUM, HISTOGRAM_SUM, SUB_BITS


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
        """Copy histogram words, shape (8 + buckets,) int64. The count is that of the copied buckets, so they agree."""
        copied = words.copy()
        buckets = copied[HISTOGRAM_BUCKETS:]
        return cls(
            buckets=buckets,
            count=int(buckets.sum()),
            total=int(copied[HISTOGRAM_SUM]),
            minimum=int(copied[HISTOGRAM_MINIMUM]) if copied[HISTOGRAM_COUNT] else 0,
            maximum=int(copied[HISTOGRAM_MAXIMUM]),
        )

    def merged(self, other: "Distribution") -> "Distribution":
        minimum = min(d.minimum for d in (self, other) if d.count) if self.count or other.count else 0
        return Distribution(
            self.buckets + other.buckets, self.count + other.count, self.total + other.total, minimum, max(self.maximum, other.maximum)
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


def highest_value(bucket: int) -> int:
    """The largest value that falls into a bucket: the inverse of shm.hot.bucket_of."""
    if bucket < 1 << (SUB_BITS + 1):
        return bucket
    shift = (bucket >> SUB_BITS) - 1
    leading = (bucket & ((1 << SUB_BITS) - 1)) + (1 << SUB_BITS)
    return ((leading + 1) << shift) - 1
