"""Arrays of a process's own that its kernels work on: from a cache line on, so that no record has more lines than it needs."""

import numpy as np

from shm.layout import LINE_BYTES


def line_aligned(count: int, dtype: np.dtype) -> np.recarray:
    """So many zeroed records, from a cache line on. Their pages are touched now and not in the loop."""
    size = count * dtype.itemsize
    raw = np.empty(size + LINE_BYTES, np.uint8)
    raw.fill(0)
    offset = -raw.ctypes.data % LINE_BYTES
    return raw[offset : offset + size].view(dtype).view(np.recarray)
