"""Find data files and read them as numbered records: text, JSON in any layout, tables, parquet.

Each may be plain or packed (.gz, .zst, .xz, .bz2). A record that cannot be read is a `Fault` with its true
line, so that a caller may stop or go on. What damages a whole file (a cut gzip stream, say) is a DataError at
once: how many rows it hides is not known.
"""

from __future__ import annotations

import fnmatch
import glob
import lzma
import os
import re
import shutil
import stat
import tempfile
import unicodedata
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from adaptkit.data.byte_streams import (
    COMPRESSIONS,
    FREE_BYTES,
    MAX_RATIO,
    open_bytes,
    open_utf8,
    tell_encoding,
)
from adaptkit.data.json_files import read_json_records
from adaptkit.data.records import Fault, Place, Record
from adaptkit.data.table_files import is_spreadsheet_text, read_table_records
from adaptkit.errors import DataError
from adaptkit.notices import Tell, tell
from adaptkit.weight_files import kind_of_entry

HINTS = {
    ".xlsx": "save the sheet as CSV",
    ".xls": "save the sheet as CSV",
    ".ods": "save the sheet as CSV",
    ".zip": "unpack it",
    ".tar": "unpack it",
    ".7z": "unpack it",
    ".docx": "save its text as .txt",
    ".pdf": "export its text to .txt",
}
"""What to do about files of formats that are not read."""
TEXT_CELLS = (".csv", ".tsv")
MAX_TEXT_BYTES = 1 << 27
MAX_BATCH_BYTES = 1 << 27
"""Of 64 rows of a parquet table: a few bytes of it can stand for any number of equal long texts."""
UNSHOWN = ("Cc", "Cs", "Zl", "Zp")
"""Unicode's categories of control characters, half pairs, and what separates lines."""


def find_files(patterns: list[str]) -> tuple[list[Path], list[Path]]:
    """Files named by paths, folders and globs, sorted within each pattern, each file once.

    Returns: the files to read, and the files of named folders whose format is not a known one.
    Raises: DataError for a pattern that matches nothing, or a named file of an unknown format.
    """
    by_place: dict[Path, Path] = {}
    ignored: list[Path] = []
    for pattern in patterns:
        for path in _expand(pattern):
            readable, others = _in_folder(path) if path.is_dir() else ([_readable(path)], [])
            ignored += others
            for file in readable:
                by_place.setdefault(file.resolve(), file)
    if not by_place:
        raise DataError("no data files are named", where="files", fix="list files, folders or globs")
    return list(by_place.values()), ignored


def _in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """The files below a folder that can be read as data, and the others; hidden ones are in neither."""
    inside = sorted(
        path for path in folder.rglob("*") if not path.is_dir() and not _hidden(path.relative_to(folder))
    )
    readable = [_named_plainly(path) for path in inside if path.is_file() and format_of(path)]
    # beside other data a .json file describes it (dataset_info.json, state.json)
    readable = [path for path in readable if format_of(path) != ".json"] or readable
    if not readable:
        fix = f"put {_formats()} files in it"
        raise DataError("no readable file in this folder", where=str(folder), fix=fix)
    return readable, [path for path in inside if path not in readable]


def _readable(path: Path) -> Path:
    """`path`. Raises: DataError if its format is not a known one."""
    if not format_of(path):
        fix = f"give {_formats()} files, plain or packed ({', '.join(COMPRESSIONS)})"
        suffix = path.suffix.lower()
        if suffix in HINTS:
            fix = f"{HINTS[suffix]}; {fix}"
        raise DataError(f"unknown file format '{path.suffix}'", where=shown(path), fix=fix)
    mode = path.stat().st_mode
    if not stat.S_ISREG(mode):
        fix = "write what it gives into a file, and name that"
        raise DataError(f"is {kind_of_entry(mode)}, not a file", where=shown(path), fix=fix)
    return _named_plainly(path)


def _named_plainly(path: Path) -> Path:
    """`path`. Raises: DataError for a name that records and messages cannot hold on one line."""
    if shown(path) != str(path):
        what = "has a name that is not UTF-8, or holds a line break or control character"
        raise DataError(what, where=shown(path), fix="rename it")
    return path


def shown(path: str | Path) -> str:
    """A name for messages: bytes that are no UTF-8, line breaks and control characters as escapes."""
    return "".join(
        ascii(letter)[1:-1] if unicodedata.category(letter) in UNSHOWN else letter for letter in str(path)
    )


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _expand(pattern: str) -> list[Path]:
    path = os.path.expanduser(pattern)
    if os.path.exists(path):
        return [Path(path)]
    if os.path.islink(path):
        fix = "remove it, or let it lead to a file"
        raise DataError("a link that leads nowhere", where=shown(pattern), fix=fix)
    matches = [] if "\0" in path else sorted(_matches(path))
    if not matches:
        fix = "check the path; paths are relative to the current folder"
        raise DataError("nothing matches", where=shown(pattern), fix=fix)
    return [Path(match) for match in matches]


def _matches(pattern: str) -> list[str]:
    """What a glob matches; `**` goes into each folder once, wherever links lead."""
    parts = pattern.split(os.sep)
    if "**" not in parts:
        return glob.glob(pattern)
    first = parts.index("**")
    beginning = os.sep.join(parts[:first]) or (os.sep if pattern.startswith(os.sep) else "")
    wanted = re.compile("".join(map(_as_regex, parts[first:-1])) + _as_regex(parts[-1], last=True))
    seen: set[tuple[int, int]] = set()
    matches: list[str] = []
    for root in glob.glob(beginning) if beginning else ["."]:
        for folder, folders, files in os.walk(root, followlinks=True):
            held = os.stat(folder)
            if (held.st_dev, held.st_ino) in seen:
                folders.clear()
                continue
            seen.add((held.st_dev, held.st_ino))
            folders[:] = sorted(name for name in folders if not name.startswith("."))
            inside = os.path.relpath(folder, root)
            for name in [*files, *folders]:
                relative = os.path.normpath(os.path.join(inside, name))
                if wanted.fullmatch(relative):
                    matches.append(os.path.normpath(os.path.join(root, relative)))
    return matches


def _as_regex(part: str, last: bool = False) -> str:
    """One part of a glob between slashes; hidden names are matched by their own names alone."""
    if part == "**":
        return "(?:[^/.][^/]*/)*" + ("[^/.][^/]*" if last else "")
    visible = "" if part.startswith(".") else "(?![.])"
    inner = fnmatch.translate(part).removeprefix("(?s:").removesuffix(")\\Z").replace(".*", "[^/]*")
    return visible + inner + ("" if last else "/")


def format_of(path: Path) -> str | None:
    """`.jsonl` for `x.jsonl.gz`; None for a format that is not read."""
    name = path.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    suffix = os.path.splitext(name)[1]
    return suffix if suffix in _READERS else None


def values_are_typed(path: Path) -> bool:
    """Whether a file tells numbers from text; in tables of text every cell is text.

    Raises: DataError as `records` does.
    """
    suffix = format_of(path)
    with _read_errors(path, lambda: 0):
        return not (suffix in TEXT_CELLS or (suffix == ".txt" and is_spreadsheet_text(path)))


def records(path: Path, tell: Tell = tell) -> Iterator[tuple[Place, Record | Fault]]:
    """(place, record) pairs of a file. A place is a line, counted from 1, or `line:column` where it holds
    several.

    Of csv the line is where the row begins, of parquet it is the row's number.

    Args:
        tell: takes a sentence on what was guessed of the file's layout.
    Raises: DataError at `file:line` when the file cannot be opened or its stream is cut or damaged.
    """
    line = 0
    suffix = format_of(path) or ".txt"
    with _read_errors(path, lambda: line):
        for place, record in _READERS[suffix](path, suffix, tell):
            line = int(place.partition(":")[0])
            yield place, record


@contextmanager
def _read_errors(path: Path, line: Callable[[], int]) -> Iterator[None]:
    """Name the place of what goes wrong while a file is read; `line` is the last good one."""
    try:
        yield
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(path, line(), error) from None
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise for wrong bytes
            raise _damaged(path, line(), error) from None
        what = f"cannot be read: {error.strerror or error}"
        fix = "check that the file exists and its permissions"
        raise DataError(what, where=f"{path}:{line() + 1}", fix=fix) from None


def _damaged(path: Path, line: int, error: Exception) -> DataError:
    what, fix = f"data is cut or damaged: {error}", "fetch, save or compress the file again"
    return DataError(what, where=f"{path}:{line + 1}", fix=fix)


def _text(path: Path, suffix: str, tell: Tell) -> Iterator[tuple[Place, Record | Fault]]:
    """A file of text is one row; what spreadsheets call Unicode text is a table."""
    if is_spreadsheet_text(path):
        tell(f"{path}: is a table with tabs, as spreadsheets write it")
        yield from read_table_records(path, ".tsv", tell)
        return
    with open_utf8(path) as (stream, encoding):
        tell_encoding(path, encoding, tell)
        raw = stream.read(MAX_TEXT_BYTES + 1)
    wide = re.search(rb"[\xf0-\xff]", raw) is not None  # then Python holds four bytes a character
    most = MAX_TEXT_BYTES // 2 if wide else MAX_TEXT_BYTES
    if len(raw) > most:
        what, fix = f"one text of more than {most >> 20} MiB", "split it into files, or write rows as .jsonl"
        raise DataError(what, where=str(path), fix=fix)
    try:
        yield "1", {"text": raw.decode("utf-8")}
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        yield str(line), Fault("not UTF-8", "save the file as UTF-8")


def _parquet(path: Path, suffix: str, tell: Tell) -> Iterator[tuple[Place, Record | Fault]]:
    import pyarrow
    from pyarrow import parquet

    row = 0
    with open_bytes(path) as stream, tempfile.TemporaryFile() as unpacked:
        source = stream
        if path.suffix.lower() in COMPRESSIONS:
            shutil.copyfileobj(stream, unpacked, 1 << 20)
            source = unpacked
        try:
            file = parquet.ParquetFile(source)
            _check_sizes(file, path)
            flat = [field.name for field in file.schema_arrow if pyarrow.types.is_string(field.type)]
            if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
                fix = "write the table with distinct column names"
                raise DataError("column names are repeated", where=f"{path}:1", fix=fix)
            file = parquet.ParquetFile(source, read_dictionary=flat)
            for batch in file.iter_batches(batch_size=64):
                _check_batch(batch, f"{path}:{row + 1}")
                for record in batch.to_pylist():
                    row += 1
                    yield str(row), record
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            what = f"not readable as parquet: {str(error).splitlines()[0]}"
            raise DataError(what, where=f"{path}:{row + 1}", fix="write the file again") from None


def _check_sizes(file: Any, path: Path) -> None:
    """Refuse a table whose columns unpack to more than text can, by what it says of them itself.

    Columns are not asked one by one: pyarrow 26 ends the process where the histogram of one is damaged.
    """
    groups = [file.metadata.row_group(number) for number in range(file.metadata.num_row_groups)]
    unpacked = sum(group.total_byte_size for group in groups)
    if unpacked > max(FREE_BYTES, MAX_RATIO * path.stat().st_size):
        what = f"unpacks to {unpacked >> 20:,} MiB, more than {MAX_RATIO} times its size, as no text does"
        raise DataError(what, where=str(path), fix="look at what is in it, or write it as .jsonl")


def _check_batch(batch: Any, where: str) -> None:
    """Refuse rows that are far longer than the file that they stand in."""
    import pyarrow
    from pyarrow import compute

    num_bytes = batch.nbytes
    for column in batch.columns:
        if pyarrow.types.is_dictionary(column.type):
            lengths = compute.binary_length(column.dictionary)
            num_bytes += compute.sum(lengths.take(column.indices)).as_py() or 0
    if num_bytes > MAX_BATCH_BYTES:
        what = f"{len(batch)} rows of {num_bytes >> 20:,} MiB together"
        raise DataError(what, where=where, fix="write shorter rows, or the table as .jsonl")


_Read = Callable[[Path, str, Tell], Iterator[tuple[Place, Record | Fault]]]
_READERS: dict[str, _Read] = {
    ".txt": _text,
    ".jsonl": read_json_records,
    ".json": read_json_records,
    ".ndjson": read_json_records,
    ".parquet": _parquet,
    ".csv": read_table_records,
    ".tsv": read_table_records,
}


def _formats() -> str:
    return ", ".join(_READERS)
