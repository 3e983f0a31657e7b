"""Records as plain Python sees them, for stepping through a handler with a debugger (NUMBA_DISABLE_JIT=1).

numpy gives a u4 field as np.uint32, whose arithmetic wraps or refuses where a compiled handler's is 64-bit. So a handler that
runs as plain Python is given the same record through a window whose numbers are Python's own. Compiled, the window is not there.
"""

from typing import Any

import numba
from numba import njit

if numba.config.DISABLE_JIT:  # type: ignore[attr-defined]

    class Window:
        """One record: fields read as int, float or bool, and written through."""

        __slots__ = ("_record",)

        def __init__(self, record: Any) -> None:
            object.__setattr__(self, "_record", record)

        def __getattr__(self, field: str) -> Any:
            value = self._record[field]
            return Window(value) if value.dtype.names else value.item()

        def __setattr__(self, field: str, value: Any) -> None:
            if field not in self._record.dtype.names:
                raise AttributeError(f"{field}: expected one of {', '.join(self._record.dtype.names)}")
            self._record[field] = value

        def __repr__(self) -> str:
            return ", ".join(f"{field}={getattr(self, field)}" for field in self._record.dtype.names)

    def readable(record: Any) -> Any:
        return Window(record)

else:

    @njit(forceinline=True, _nrt=False)  # type: ignore[call-overload]
    def readable(record: Any) -> Any:
        """The record itself."""
        return record
