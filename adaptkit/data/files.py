"""Find data files and read them as numbered records: text, JSON in any layout, tables, parquet.

Each may be plain or packed (.gz, .zst, .xz, .bz2). A record that cannot be read is a `Fault` with its true
line, so that a caller may stop or go on. What damages a whole file (a cut gzip stream, say) is a DataError at
once: how many rows it hides is not known.
"""

from __future__ import annotations

import glob
import lzma
import os
import shutil
import tempfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

from adaptkit.data.byte_streams import COMPRESSIONS, open_bytes, open_utf8, tell_encoding
from adaptkit.data.json_files import read_json_records
from adaptkit.data.records import Fault, Place, Record
from adaptkit.data.table_files import is_spreadsheet_text, read_table_records
from adaptkit.errors import DataError
from adaptkit.notices import Tell, tell

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
        path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder))
    )
    readable = [path for path in inside if format_of(path)]
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
        raise DataError(f"unknown file format '{path.suffix}'", where=str(path), fix=fix)
    return path


def _hidden(path: Path) -> bool:
    return any(part.startswith(".") for part in path.parts)


def _expand(pattern: str) -> list[Path]:
    path = os.path.expanduser(pattern)
    if os.path.exists(path):
        return [Path(path)]
    matches = [] if "\0" in path else sorted(glob.glob(path, recursive=True))
    if not matches:
        raise DataError(
            "nothing matches", where=pattern, fix="check the path; paths are relative to the current folder"
        )
    return [Path(match) for match in matches]


def format_of(path: Path) -> str | None:
    """`.jsonl` for `x.jsonl.gz`; None for a format that is not read."""
    name = path.name.lower()
    for ending in COMPRESSIONS:
        name = name.removesuffix(ending)
    suffix = os.path.splitext(name)[1]
    return suffix if suffix in _READERS else None


def values_are_typed(path: Path) -> bool:
    """Whether a file tells numbers from text; in tables of text every cell is text."""
    suffix = format_of(path)
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
    try:
        for place, record in _READERS[suffix](path, suffix, tell):
            line = int(place.partition(":")[0])
            yield place, record
    except (EOFError, zlib.error, lzma.LZMAError) as error:
        raise _damaged(path, line, error) from None
    except OSError as error:
        if error.errno is None:  # what gzip and bz2 raise for wrong bytes
            raise _damaged(path, line, error) from None
        what = f"cannot be read: {error.strerror or error}"
        fix = "check that the file exists and its permissions"
        raise DataError(what, where=f"{path}:{line + 1}", fix=fix) from None


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
        raw = stream.read()
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
            if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
                fix = "write the table with distinct column names"
                raise DataError("column names are repeated", where=f"{path}:1", fix=fix)
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    row += 1
                    yield str(row), record
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            what = f"not readable as parquet: {str(error).splitlines()[0]}"
            raise DataError(what, where=f"{path}:{row + 1}", fix="write the file again") from None


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
