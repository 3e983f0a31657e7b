"""Our positions beside the venue's own account of us: the sum of the executions that we heard of must be the sum of those it made.

The venue's account is written before it reports an execution, and ours after we heard of it. So at the same count of executions both
must say the same; a venue that is ahead is heard of soon; and one that is behind us has never made what we count.
"""

from collections.abc import Callable, Iterable

import numpy as np

from shm.table import Board

# An execution takes microseconds to be reported, and a session that broke is not looked at: this long is no delay any more.
PATIENCE_S = 5.0

FIELDS = ("position", "cash")


class Accounts:
    """ours, theirs: boards of POSITION by instrument. `differing` is asked now and then, while the session with the venue is up."""

    def __init__(self, ours: Board, theirs: Board, clock: Callable[[], float]) -> None:
        self.ours = ours
        self.theirs = theirs
        self.clock = clock
        # By instrument: the count of executions that we have still to hear of, and since when.
        self.awaited: dict[int, tuple[int, float]] = {}

    def differing(self, instruments: Iterable[int]) -> dict[int, str]:
        """The instruments whose accounts contradict each other, with what each of them says."""
        return {instrument: told for instrument in instruments if (told := self._difference(int(instrument)))}

    def forget(self) -> None:
        """Nothing is waited for any more: the session is down, or what was missing is replayed."""
        self.awaited.clear()

    def _difference(self, instrument: int) -> str:
        # In this order: whatever the venue does in between puts it ahead of us, never behind.
        ours = self.ours.read(instrument)
        theirs = self.theirs.read(instrument)
        heard, made = fills(ours), fills(theirs)
        if heard < made and not self._overdue(instrument, heard, made):
            return ""
        if heard >= made:
            self.awaited.pop(instrument, None)
        if heard == made and all(field(ours, name) == field(theirs, name) for name in FIELDS):
            return ""
        return f"our position is {field(ours, 'position')} after executions={heard}, the venue's {field(theirs, 'position')} after {made}"

    def _overdue(self, instrument: int, heard: int, made: int) -> bool:
        awaited, since_s = self.awaited.setdefault(instrument, (made, self.clock()))
        if heard >= awaited:
            self.awaited[instrument] = (made, self.clock())
            return False
        return self.clock() - since_s >= PATIENCE_S


def field(line: np.void | None, name: str) -> int:
    """0 where the line was never written."""
    return 0 if line is None else int(line[name])


def fills(line: np.void | None) -> int:
    return field(line, "fills")
