"""The records as a strategy sees them: the rings' own bytes, with every 64-bit field signed.

numba makes a float of an int64 and a uint64 together, and a price or an id that became a float is silently rounded. No 64-bit field
of ours uses its top bit, so a strategy reads all of them as int64 and its arithmetic stays whole.
"""

import numpy as np

from engine import layout


def signed(dtype: np.dtype) -> np.dtype:
    """The same record with int64 in place of uint64."""
    assert dtype.fields is not None and dtype.names is not None
    places = [dtype.fields[name] for name in dtype.names]
    return np.dtype(
        {
            "names": list(dtype.names),
            "formats": [np.dtype("i8") if kind == np.dtype("u8") else kind for kind, *_ in places],
            "offsets": [offset for _, offset, *_ in places],
            "itemsize": dtype.itemsize,
        },
        align=True,
    )


INSTRUMENT = signed(layout.INSTRUMENT)
QUOTE = signed(layout.QUOTE)
LEVEL = signed(layout.LEVEL)
TRADE = signed(layout.TRADE)
STATUS = signed(layout.STATUS)
ORDER = signed(layout.ORDER)
REPORT = signed(layout.REPORT)

# What on_timer receives: the head that every record has, and the period.
TIMER = np.dtype(
    {
        "names": ["origin_tsc", "ts_ns", "kind", "instrument", "period_ns"],
        "formats": ["i8", "i8", "u1", "u2", "i8"],
        "offsets": [8, 16, 24, 26, 32],
        "itemsize": 64,
    },
    align=True,
)

# What the loop keeps of each instrument the strategy trades: its place. instrument is -1 until the venue has named it.
#
#   0 symbol   8 instrument  16 flags (of the last quote or status)  24 position  32 tick_px  40 lot_qty
#  48 px_decimals  56 state   57 session_event (of the last status)
PLACE = np.dtype(
    {
        "names": ["symbol", "instrument", "flags", "position", "tick_px", "lot_qty", "px_decimals", "state", "session_event"],
        "formats": ["i8", "i8", "i8", "i8", "i8", "i8", "i8", "u1", "u1"],
        "offsets": [0, 8, 16, 24, 32, 40, 48, 56, 57],
        "itemsize": 64,
    },
    align=True,
)
