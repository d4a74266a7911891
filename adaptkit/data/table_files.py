"""Read tables of text, csv and tsv, as numbered records.

What separates the cells is seen in the first rows: a comma, a semicolon (as spreadsheets write where numbers
have decimal commas), a tab or a bar. Cells may be quoted, and then hold line breaks.
"""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any

from adaptkit.data.byte_streams import open_utf8, read_head, tell_encoding
from adaptkit.data.records import Fault, Place, Record
from adaptkit.data.shapes import COLUMN_NAMES
from adaptkit.errors import DataError
from adaptkit.notices import Tell

HEAD_BYTES, HEAD_ROWS = 1 << 18, 50
"""Looked at to tell what separates the cells."""
DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
MAX_CELL_CHARS = 1 << 25
_DECLARED = re.compile(r'"?sep=(.)"?\r?\n')
"""The line that Excel reads as naming the delimiter."""


@dataclass(frozen=True)
class Dialect:
    """What separates cells, whether quotation marks enclose them, and how many lines come before the
    header."""

    delimiter: str
    quoted: bool = True
    num_skipped: int = 0

    def reader(self, lines: Iterable[str]) -> Any:
        if self.quoted:
            return csv.reader(lines, delimiter=self.delimiter, strict=True)
        return csv.reader(lines, delimiter=self.delimiter, quoting=csv.QUOTE_NONE, strict=True)


@dataclass(frozen=True)
class _Fit:
    """How well a dialect explains the first rows; larger is better.

    Attributes:
        share: of the rows that have as many cells as the header.
        num_known: names in the header that mean something.
    """

    has_columns: bool
    share: float
    num_known: int = 0
    is_usual: bool = False
    num_columns: int = 0

    @property
    def order(self) -> tuple[bool, float, int, bool, int]:
        return self.has_columns, self.share, self.num_known, self.is_usual, self.num_columns


def read_table_records(path: Path, suffix: str, tell: Tell) -> Iterator[tuple[Place, Record | Fault]]:
    """(line where the row begins, record) of every row under the header.

    Raises: DataError for a header without distinct names.
    """
    csv.field_size_limit(MAX_CELL_CHARS)
    usual = "," if suffix == ".csv" else "\t"
    dialect = dialect_of(*read_head(path, HEAD_BYTES), usual)
    if dialect.delimiter != usual:
        tell(f"{path}: cells are separated by {DELIMITERS.get(dialect.delimiter, repr(dialect.delimiter))}")
    if not dialect.quoted:
        tell(f"{path}: quotation marks are text, they do not enclose cells")
    # surrogateescape keeps a wrong byte inside its own row, where the role check names it
    with (
        open_utf8(path) as (stream, encoding),
        io.TextIOWrapper(stream, "utf-8", "surrogateescape", newline="") as lines,
    ):
        tell_encoding(path, encoding, tell)
        for _ in range(dialect.num_skipped):
            lines.readline()
        reader = dialect.reader(_lines(lines, path))
        header = _header(reader, path)
        while True:
            line = reader.line_num + 1 + dialect.num_skipped
            try:
                cells = next(reader)
            except StopIteration:
                return
            except csv.Error as error:
                fix = "quote cells that hold quotes, delimiters or line breaks"
                yield str(line), Fault(f"not valid CSV: {error}", fix)
                continue
            yield str(line), _row(header, cells)


def _lines(text: io.TextIOWrapper, path: Path) -> Iterator[str]:
    """The lines of a table. Raises: DataError for one that is longer than any row."""
    number = 0
    while line := text.readline(MAX_CELL_CHARS + 1):
        number += 1
        if len(line) > MAX_CELL_CHARS:
            what = f"a line of more than {MAX_CELL_CHARS:,} characters"
            raise DataError(what, where=f"{path}:{number}", fix="write one row a line")
        yield line


def is_spreadsheet_text(path: Path) -> bool:
    """Whether a .txt file is what spreadsheets call Unicode text: a table with tabs, in UTF-16 with a
    mark."""
    with open_utf8(path) as (_, encoding):
        if encoding == "utf-8":
            return False
    head, whole = read_head(path, HEAD_BYTES)
    fit = _fit(Dialect("\t"), head, whole, "\t")
    return fit.has_columns and fit.share == 1


def dialect_of(head: str, whole: bool, usual: str) -> Dialect:
    """The dialect that explains the first rows best; the usual one where others are no better.

    Args:
        whole: `head` is the whole file.
    """
    if declared := _DECLARED.match(head):
        return Dialect(declared[1], num_skipped=1)
    dialects = [Dialect(delimiter) for delimiter in (usual, *(mark for mark in DELIMITERS if mark != usual))]
    dialects += [Dialect("\t", quoted=False)]
    return max(dialects, key=lambda dialect: _fit(dialect, head, whole, usual).order)


def _fit(dialect: Dialect, head: str, whole: bool, usual: str) -> _Fit:
    lines = list(io.StringIO(head, newline=""))
    if not whole and len(lines) > 1:
        lines.pop()
    rows: list[list[str]] = []
    num_faults = 0
    try:
        rows += islice((row for row in dialect.reader(lines) if row), HEAD_ROWS + 1)
    except csv.Error:
        num_faults = 1
    if not rows:
        return _Fit(False, 0.0)
    header, *body = rows
    if not whole and len(rows) <= HEAD_ROWS and body:
        body.pop()  # may be cut
    fitting = sum(len(row) == len(header) for row in body)
    share = fitting / (len(body) + num_faults) if body or num_faults else 1.0
    is_usual = dialect.delimiter == usual and dialect.quoted
    num_known = len(COLUMN_NAMES.intersection(header))
    return _Fit(len(header) > 1, round(share, 2), num_known, is_usual, len(header))


def _header(reader: Any, path: Path) -> list[str]:
    """Column names; those of empty columns at the end are left out."""
    fix = "start the file with one line of distinct column names"
    header: list[str] = []
    try:
        while not header:
            header = next(reader)
    except StopIteration:
        raise DataError("no usable row: the file is empty", where=str(path), fix="check the file") from None
    except csv.Error as error:
        raise DataError(f"not a valid header: {error}", where=f"{path}:1", fix=fix) from None
    while len(header) > 1 and not header[-1].strip():
        header.pop()
    where = f"{path}:{reader.line_num}"
    if len(set(header)) < len(header):
        raise DataError("column names are missing or repeated", where=where, fix=fix)
    return header


def _row(header: list[str], cells: list[str]) -> Record | Fault:
    num_cells = len(cells)
    while num_cells > len(header) and not cells[num_cells - 1].strip():
        num_cells -= 1
    if num_cells != len(header):
        what = f"{num_cells} cells under {len(header)} columns"
        return Fault(what, "quote cells that hold the delimiter, or fill the row")
    return dict(zip(header, cells, strict=False))
