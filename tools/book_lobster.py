"""LOBSTER's two files of a symbol, from the rows that the kernel wrote (https://lobsterdata.com/info/DataStructure.php).

    AAPL_2019-01-30_34200000_57600000_message_10.csv     seconds after midnight, event type, order id, size, price, direction
    AAPL_2019-01-30_34200000_57600000_orderbook_10.csv   ask price 1, ask size 1, bid price 1, bid size 1, ask price 2, ...

Line n of one belongs to line n of the other: the book after the event. Prices are in 1/10000 dollars; a level that is not there is
9999999999 or -9999999999 with size 0. Events that change none of the levels looked at are in neither file.
"""

import datetime as dt
from pathlib import Path

import numpy as np
import pyarrow as pa

from tools.book_output import Place, as_csv
from tools.book_tables import Names, decimals
from tools.hot.book import LEVEL_WORDS, LOBSTER_HEAD, ROW_LOCATE, ROW_TS

OPEN_MS = 34_200_000
CLOSE_MS = 57_600_000
NO_ASK = 9_999_999_999
NO_BID = -9_999_999_999
NS_PER_MS = 1_000_000
TIME_TYPE = pa.decimal128(18, 9)


class LobsterFiles:
    """The files of all symbols in a folder. Each is made, empty if need be, as soon as its symbol is known."""

    def __init__(self, folder: Path, symbols: list[str], levels: int, day: dt.date) -> None:
        """ValueError where the folder is not there; OutputError where a file cannot be made."""
        self.rows = 0
        self._levels = levels
        self._places: dict[str, tuple[Place, Place]] = {}
        try:
            for symbol in symbols:
                head = f"{symbol.replace('/', '_')}_{day.isoformat()}_{OPEN_MS}_{CLOSE_MS}"
                messages = Place(folder / f"{head}_message_{levels}.csv")
                self._places[symbol] = messages, messages
                self._places[symbol] = messages, Place(folder / f"{head}_orderbook_{levels}.csv")
        except BaseException:
            self.abort()
            raise

    def write(self, rows: np.ndarray, names: Names) -> None:
        for locate in np.unique(rows[:, ROW_LOCATE]).tolist():
            own = rows[rows[:, ROW_LOCATE] == locate]
            messages, books = self._places[names.name(locate)]
            messages.append(as_csv(_messages(own)))
            books.append(as_csv(_books(own, self._levels)))
        self.rows += len(rows)

    def finish(self, metadata: dict[str, str], missing: set[str]) -> None:
        for symbol in missing:
            for place in self._places.pop(symbol):
                place.abort()
        for pair in self._places.values():
            for place in pair:
                place.close()

    def commit(self) -> None:
        for pair in self._places.values():
            for place in pair:
                place.commit()

    def abort(self) -> None:
        for pair in self._places.values():
            for place in pair:
                place.abort()

    def paths(self) -> list[Path]:
        return [place.path for pair in self._places.values() for place in pair]


def _messages(rows: np.ndarray) -> pa.Table:
    event, ref, size, px, direction = (pa.array(rows[:, LOBSTER_HEAD - 5 + word]) for word in range(5))
    ref = pa.array(np.ascontiguousarray(rows[:, LOBSTER_HEAD - 4]).view(np.uint64))
    return pa.table([decimals(rows[:, ROW_TS], TIME_TYPE), event, ref, size, px, direction], names=list("tersxd"))


def _books(rows: np.ndarray, levels: int) -> pa.Table:
    columns = []
    for level in range(levels):
        bid_px, bid_sz, ask_px, ask_sz = (rows[:, LOBSTER_HEAD + LEVEL_WORDS * level + word] for word in range(4))
        columns += [np.where(ask_px == 0, NO_ASK, ask_px), ask_sz, np.where(bid_px == 0, NO_BID, bid_px), bid_sz]
    return pa.table([pa.array(column) for column in columns], names=[str(number) for number in range(len(columns))])
