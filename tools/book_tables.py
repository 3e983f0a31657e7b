"""The tables of `tickpath book`: which columns each has, and how the rows that the kernel wrote become Arrow arrays.

Prices are decimal128(10, 4): what the venue sent, in 1/10000 dollars, and nothing rounded. An empty side of a book has null as its
price and as its size.
"""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa

from engine.feed.itch import PX_DECIMALS
from engine.layout import unpack_symbol
from tools.hot.book import (
    BBO,
    BBO_WORDS,
    BROKEN,
    DEPTH,
    LEVEL_WORDS,
    ORDER_WORDS,
    ORDERS,
    ROW_HEAD,
    ROW_LOCATE,
    ROW_SEQUENCE,
    ROW_TS,
    TRADE_WORDS,
    TRADES,
)

# 4294967295 / 10000 is the highest price that ITCH can say.
PX_TYPE = pa.decimal128(10, PX_DECIMALS)
SYMBOLS = pa.dictionary(pa.int32(), pa.string())
LETTERS = pa.dictionary(pa.int32(), pa.string())

LOCATES = 1 << 16


@dataclass(frozen=True)
class Column:
    """A column, and the word of a row that it is made of. It is null where the word `by` of the row (0: none) is `absent`."""

    name: str
    type: pa.DataType
    word: int
    by: int = 0
    absent: int = 0


TS_NS = Column("ts_ns", pa.int64(), ROW_TS)
SEQ = Column("seq", pa.int64(), ROW_SEQUENCE)
SYMBOL = Column("symbol", SYMBOLS, ROW_LOCATE)


def _px(name: str, word: int) -> Column:
    return Column(name, PX_TYPE, word, by=word)


def _level(first: int, suffix: str = "") -> list[Column]:
    return [
        _px(f"bid_px{suffix}", first), Column(f"bid_sz{suffix}", pa.int64(), first + 1, by=first),
        _px(f"ask_px{suffix}", first + 2), Column(f"ask_sz{suffix}", pa.int64(), first + 3, by=first + 2),
    ]  # fmt: skip


@dataclass(frozen=True)
class Table:
    """A table: its number in the kernel, how many words its rows have, its columns without `seq`, what it is for whoever asks."""

    name: str
    number: int
    words: int
    columns: list[Column]

    def schema(self, *, seq: bool) -> pa.Schema:
        return pa.schema([(column.name, column.type) for column in self.shown(seq=seq)])

    def shown(self, *, seq: bool) -> list[Column]:
        return [*self.columns, SEQ] if seq else self.columns


def depth_table(levels: int) -> Table:
    """A row whenever a price or size of the best `levels` of either side changes."""
    columns = [TS_NS, SYMBOL]
    for level in range(levels):
        columns += _level(ROW_HEAD + LEVEL_WORDS * level, f"_{level + 1}")
    return Table("depth", DEPTH, ROW_HEAD + LEVEL_WORDS * levels, columns)


BBO_TABLE = Table("bbo", BBO, BBO_WORDS, [TS_NS, SYMBOL, *_level(ROW_HEAD)])
TRADES_TABLE = Table(
    "trades",
    TRADES,
    TRADE_WORDS,
    [
        TS_NS, SYMBOL, Column("kind", LETTERS, 3), Column("side", LETTERS, 4), _px("px", 5),
        Column("sz", pa.int64(), 6, by=3, absent=BROKEN),
        Column("ref", pa.uint64(), 7, by=7), Column("match", pa.uint64(), 8), Column("printable", pa.bool_(), 9),
        Column("cross", LETTERS, 10),
    ],
)  # fmt: skip
ORDERS_TABLE = Table(
    "orders",
    ORDERS,
    ORDER_WORDS,
    [
        TS_NS, SYMBOL, Column("kind", LETTERS, 3), Column("ref", pa.uint64(), 5), Column("new_ref", pa.uint64(), 6, by=6),
        Column("side", LETTERS, 4), _px("px", 7), Column("sz", pa.int64(), 8), Column("left", pa.int64(), 9),
        Column("mpid", pa.string(), 10, by=10),
    ],
)  # fmt: skip


class Names:
    """Symbols by locate code, as the directory of the file has them up to some moment."""

    def __init__(self, packed: np.ndarray) -> None:
        """packed (instruments,) uint64: 0 where the directory has not named the instrument."""
        self._packed = packed
        self._names: dict[int, str] = {}

    def name(self, locate: int) -> str:
        """An instrument without a name is #14, by its locate code: rows are never lost, nor put under a symbol that is not theirs."""
        packed = int(self._packed[locate])
        if packed not in self._names:
            self._names[packed] = unpack_symbol(packed) if packed else ""
        return self._names[packed] or f"#{locate}"

    def all(self) -> list[str]:
        """Every symbol of the directory."""
        return [unpack_symbol(int(packed)) for packed in np.unique(self._packed) if packed]

    def column(self, locates: np.ndarray) -> pa.DictionaryArray:
        """The symbols of locate codes, shape (n,)."""
        present = np.flatnonzero(np.bincount(locates, minlength=LOCATES))
        # Two locate codes may have one symbol, and a dictionary may not have one text twice.
        numbers: dict[str, int] = {}
        places = np.zeros(LOCATES, np.int32)
        places[present] = [numbers.setdefault(self.name(locate), len(numbers)) for locate in present.tolist()]
        return pa.DictionaryArray.from_arrays(places[locates], pa.array(list(numbers), pa.string()))


def arrow_table(table: Table, rows: np.ndarray, names: Names, *, midnight_ns: int, seq: bool) -> pa.Table:
    """Rows of int64 words, shape (n, words), as an Arrow table. Times count from `midnight_ns`, 0: from midnight."""
    arrays = [_array(column, rows, names, midnight_ns) for column in table.shown(seq=seq)]
    return pa.Table.from_arrays(arrays, schema=table.schema(seq=seq))


def _array(column: Column, rows: np.ndarray, names: Names, midnight_ns: int) -> pa.Array:
    words = rows[:, column.word]
    missing = rows[:, column.by] == column.absent if column.by else None
    if column is TS_NS:
        return pa.array(words + midnight_ns)
    if column is SYMBOL:
        return names.column(words)
    if column.type is PX_TYPE:
        return decimals(words, PX_TYPE, missing)
    if column.type is LETTERS:
        return _letters(words)
    if column.type == pa.string():
        return _texts(words)
    if column.type == pa.bool_():
        return pa.array(words != 0)
    return pa.array(np.ascontiguousarray(words).view(np.uint64) if column.type == pa.uint64() else words, mask=missing)


def decimals(words: np.ndarray, kind: pa.Decimal128Type, missing: np.ndarray | None = None) -> pa.Array:
    """Integers in the unit of the last decimal, shape (n,), none below 0, as decimals; null where `missing`."""
    halves = np.empty((len(words), 2), np.int64)
    halves[:, 0] = words
    halves[:, 1] = 0
    valid = None if missing is None or not missing.any() else pa.py_buffer(np.packbits(~missing, bitorder="little"))
    return pa.Array.from_buffers(kind, len(words), [valid, pa.py_buffer(halves)])


def _letters(words: np.ndarray) -> pa.DictionaryArray:
    """ASCII codes as text of one letter; 0 is null."""
    present = np.flatnonzero(np.bincount(words, minlength=256)[1:]) + 1
    places = np.zeros(256, np.int32)
    places[present] = np.arange(len(present))
    texts = pa.array([chr(code) for code in present.tolist()], pa.string())
    return pa.DictionaryArray.from_arrays(pa.array(places[words], mask=words == 0), texts)


def _texts(words: np.ndarray) -> pa.Array:
    """Four letters in a big-endian word as text; 0 is null."""
    found, places = np.unique(words, return_inverse=True)
    texts = [int(word).to_bytes(4, "big").decode("ascii", "replace").rstrip(" \0") if word else None for word in found.tolist()]
    return pa.array(texts, pa.string()).take(pa.array(places))
