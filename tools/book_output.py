"""The files that `tickpath book` writes: rows from the kernel go to a thread, through Arrow, into Parquet or CSV.

A file has its name only once it is whole. Until then it is .NAME.PID.part beside it, and goes away if anything fails.
"""

import contextlib
import errno
import os
import queue
import stat
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Protocol

import numpy as np
import pyarrow as pa
from pyarrow import csv, parquet

from tools.book_tables import Names, Table, arrow_table

COMPRESSION = "zstd"
STDOUT = Path("-")
# What would end a field of a CSV file: a text with one of them is put into quotes.
STRUCTURAL = frozenset(',"\r\n')


class OutputError(RuntimeError):
    """The system would not take what was to be written."""


class RowFile(Protocol):
    """Where the rows of one table go. `rows` were written; write raises OutputError; finish ends the file, of whose symbols some may
    have turned out to be `missing`; commit gives it its name."""

    rows: int

    def write(self, rows: np.ndarray, names: Names) -> None: ...
    def finish(self, metadata: dict[str, str], missing: set[str]) -> None: ...
    def commit(self) -> None: ...
    def abort(self) -> None: ...
    def paths(self) -> list[Path]: ...


class Place:
    """A file that has its name only once it is whole; `fd` is open for writing. What is no regular file (a pipe, a device, `-`) is
    written as it comes."""

    def __init__(self, path: Path) -> None:
        """OutputError where it cannot be made; ValueError where it is a folder, or in one that is not there."""
        self.path = path
        self._part: Path | None = None
        if path == STDOUT:
            self.fd = os.dup(sys.stdout.fileno())
            return
        target = Path(os.path.realpath(path))
        if target.is_dir():
            raise ValueError(f"--out={path}: it is a folder, expected the name of a file")
        if not target.parent.is_dir():
            raise ValueError(f"--out={path}: the folder {target.parent} does not exist; make it first")
        self._target = target
        try:
            if target.exists() and not stat.S_ISREG(target.stat().st_mode):
                self.fd = os.open(target, os.O_WRONLY)
                return
            self._part = target.with_name(f".{target.name}.{os.getpid()}.part")
            self.fd = os.open(self._part, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o666)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written: {error.strerror}") from None

    def append(self, data: memoryview) -> None:
        """BrokenPipeError where the reader of a pipe has gone, OutputError for all else. After abort nothing happens."""
        if self.fd < 0:
            return
        try:
            while data:
                data = data[os.write(self.fd, data) :]
        except BrokenPipeError:
            raise
        except OSError as error:
            raise OutputError(f"{self.path}: {_why(error)}") from None

    def close(self) -> None:
        if self.fd >= 0:
            fd, self.fd = self.fd, -1
            try:
                os.close(fd)
            except OSError as error:
                raise OutputError(f"{self.path}: {_why(error)}") from None

    def commit(self) -> None:
        if self._part is not None:
            try:
                self._part.replace(self._target)
            except OSError as error:
                raise OutputError(f"{self.path}: {_why(error)}") from None
            self._part = None

    def abort(self) -> None:
        if self.fd >= 0:
            os.close(self.fd)
            self.fd = -1
        if self._part is not None:
            self._part.unlink(missing_ok=True)
            self._part = None


def _why(error: OSError) -> str:
    if error.errno in (errno.ENOSPC, errno.EDQUOT):
        return "no space left there; nothing was written under this name"
    return f"writing failed: {error.strerror or error}; nothing was written under this name"


class _Bytes:
    """A Place as the file object that pyarrow's Parquet writer wants."""

    closed = False

    def __init__(self, place: Place) -> None:
        self._place = place
        self._size = 0

    def write(self, data: bytes) -> int:
        view = memoryview(data).cast("B")
        self._place.append(view)
        self._size += len(view)
        return len(view)

    def tell(self) -> int:
        return self._size

    def flush(self) -> None: ...

    def close(self) -> None: ...

    def writable(self) -> bool:
        return True

    def readable(self) -> bool:
        return False

    def seekable(self) -> bool:
        return False


class ParquetFile:
    """A table as Parquet. Text columns are dictionaries in the file and read back as plain text; prices as decimal128(10, 4)."""

    def __init__(self, path: Path, table: Table, *, midnight_ns: int, seq: bool) -> None:
        self.rows = 0
        self._table, self._midnight_ns, self._seq = table, midnight_ns, seq
        self._place = Place(path)
        schema = table.schema(seq=seq)
        self._writer = parquet.ParquetWriter(
            pa.PythonFile(_Bytes(self._place), "w"),
            schema,
            compression=COMPRESSION,
            use_dictionary=[field.name for field in schema if not _is_number(field)],
            # Differences are small where values are sorted or near each other: less to compress, and less left.
            column_encoding={field.name: "DELTA_BINARY_PACKED" for field in schema if _is_number(field)},
            store_schema=False,
            store_decimal_as_integer=True,
        )

    def write(self, rows: np.ndarray, names: Names) -> None:
        self._writer.write_table(arrow_table(self._table, rows, names, midnight_ns=self._midnight_ns, seq=self._seq))
        self.rows += len(rows)

    def finish(self, metadata: dict[str, str], missing: set[str]) -> None:
        self._writer.add_key_value_metadata(metadata | {"tickpath.table": self._table.name})
        self._writer.close()
        self._place.close()

    def commit(self) -> None:
        self._place.commit()

    def abort(self) -> None:
        self._place.abort()
        # Its end goes nowhere now; left to the interpreter's end it would be tried then, and complain.
        with contextlib.suppress(Exception):
            self._writer.close()

    def paths(self) -> list[Path]:
        return [self._place.path]


def _is_number(field: pa.Field) -> bool:
    return pa.types.is_integer(field.type) or pa.types.is_decimal(field.type)


class CsvFile:
    """A table as CSV with a line of names first; what is null is empty."""

    def __init__(self, path: Path, table: Table, *, midnight_ns: int, seq: bool) -> None:
        self.rows = 0
        self._table, self._midnight_ns, self._seq = table, midnight_ns, seq
        self._place = Place(path)
        self._begun = False

    def write(self, rows: np.ndarray, names: Names) -> None:
        self._begin()
        self._place.append(as_csv(arrow_table(self._table, rows, names, midnight_ns=self._midnight_ns, seq=self._seq)))
        self.rows += len(rows)

    def finish(self, metadata: dict[str, str], missing: set[str]) -> None:
        self._begin()
        self._place.close()

    def _begin(self) -> None:
        """Not before it is known to be ITCH: standard output cannot be taken back."""
        if not self._begun:
            self._begun = True
            self._place.append(memoryview((",".join(self._table.schema(seq=self._seq).names) + "\n").encode()))

    def commit(self) -> None:
        self._place.commit()

    def abort(self) -> None:
        self._place.abort()

    def paths(self) -> list[Path]:
        return [self._place.path]


def as_csv(table: pa.Table) -> memoryview:
    """Lines without a header. Text is quoted only where it has to be."""
    quoting = "none"
    for number, field in enumerate(table.schema):
        if pa.types.is_dictionary(field.type):
            column = table.column(number).combine_chunks()
            if any(STRUCTURAL & set(text) for text in column.dictionary.to_pylist()):
                quoting = "needed"
            table = table.set_column(number, field.name, column.dictionary_decode())
    lines = pa.BufferOutputStream()
    csv.write_csv(table, lines, csv.WriteOptions(include_header=False, quoting_style=quoting))
    return memoryview(lines.getvalue())


class Writer:
    """A thread that writes rows to their files, in the order in which they are put. `error` is what stopped it."""

    def __init__(self) -> None:
        self._work: queue.Queue[Callable[[], None] | None] = queue.Queue()
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, name="write", daemon=True)
        self._thread.start()

    def put(self, work: Callable[[], None]) -> None:
        if self.error is not None:
            raise self.error
        self._work.put(work)

    def join(self) -> None:
        """Wait until everything is written, and raise what went wrong."""
        self._work.put(None)
        self._thread.join()
        if self.error is not None:
            raise self.error

    def abandon(self) -> None:
        """Write nothing more."""
        self.error = self.error or OutputError("abandoned")
        self._work.put(None)
        self._thread.join()

    def _run(self) -> None:
        while (work := self._work.get()) is not None:
            try:
                if self.error is None:
                    work()
            except BaseException as error:  # raised where the next rows are put
                self.error = error
