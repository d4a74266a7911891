"""Read files as numbered records: .txt .jsonl .parquet .csv .tsv, each plain, .gz or .zst.

A record that cannot be read is a `Fault` with its true line, so that a caller may stop or go on. What damages
a whole file (a cut gzip stream, say) is a DataError at once: how many rows it hides is not known.
"""

from __future__ import annotations

import csv
import glob
import gzip
import io
import json
import os
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

import zstandard

from adaptkit.errors import DataError

Record = dict[str, Any]
COMPRESSIONS = (".gz", ".zst")


@dataclass(frozen=True)
class Fault:
    """Why one record cannot be used, and what to do about it."""

    what: str
    fix: str


class _Refused(ValueError):
    """Valid for Python's json module, not for us."""


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
    """The files below a folder that can be read, and the others; hidden ones are in neither."""
    inside = sorted(
        path for path in folder.rglob("*") if path.is_file() and not _hidden(path.relative_to(folder))
    )
    readable = [path for path in inside if format_of(path)]
    if not readable:
        fix = f"put {_formats()} files in it"
        raise DataError("no readable file in this folder", where=str(folder), fix=fix)
    return readable, [path for path in inside if not format_of(path)]


def _readable(path: Path) -> Path:
    """`path`. Raises: DataError if its format is not a known one."""
    if not format_of(path):
        fix = f"give {_formats()} files, plain, .gz or .zst"
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


def records(path: Path) -> Iterator[tuple[int, Record | Fault]]:
    """(line, record) pairs of a file, lines counted from 1.

    Of csv the line is where the row begins, of parquet it is the row's number.
    Raises: DataError at `file:line` when the file cannot be opened or its stream is cut or damaged.
    """
    line = 0
    try:
        for line, record in _READERS[format_of(path) or ".txt"](path):  # noqa: B007 - `line` is read below
            yield line, record
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        what, fix = f"compressed data is cut or damaged: {error}", "fetch or compress the file again"
        raise DataError(what, where=f"{path}:{line + 1}", fix=fix) from None
    except OSError as error:
        what = f"cannot be read: {error.strerror or error}"
        fix = "check that the file exists and its permissions"
        raise DataError(what, where=f"{path}:{line + 1}", fix=fix) from None


@contextmanager
def _opened(path: Path) -> Iterator[BinaryIO]:
    suffix = path.suffix.lower()
    with path.open("rb") as raw:
        if suffix == ".gz":
            with gzip.open(raw) as stream:
                yield stream  # type: ignore[misc]
        elif suffix == ".zst":
            yield io.BufferedReader(_ZstdStream(raw), 1 << 20)
        else:
            yield raw


class _ZstdStream(io.RawIOBase):
    """Zstandard frames as a readable stream that raises where a frame is cut; the library's own just ends."""

    def __init__(self, raw: BinaryIO):
        self._raw = raw
        self._frame: zstandard.ZstdDecompressionObj | None = None
        self._pending, self._ready = b"", b""

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        while not self._ready:
            if not self._pending and not (chunk := self._raw.read(1 << 16)):
                if self._frame is not None:
                    raise EOFError("the last frame is incomplete")
                return 0
            self._decode(self._pending or chunk)
        size = min(len(buffer), len(self._ready))
        buffer[:size], self._ready = self._ready[:size], self._ready[size:]
        return size

    def _decode(self, data: bytes) -> None:
        frame = self._frame or zstandard.ZstdDecompressor().decompressobj()
        self._frame = frame
        try:
            self._ready, self._pending = frame.decompress(data), b""
        except zstandard.ZstdError as error:
            raise EOFError(str(error)) from None
        if frame.eof:
            self._pending, self._frame = frame.unused_data, None


def _jsonl(path: Path) -> Iterator[tuple[int, Record | Fault]]:
    with _opened(path) as stream:
        for line, raw in enumerate(stream, start=1):
            yield line, parse_object(raw.removeprefix(b"\xef\xbb\xbf") if line == 1 else raw)


def parse_object(raw: bytes) -> Record | Fault:
    """One JSONL line as a dict; duplicate keys, NaN and infinities are faults, unlike in Python's json."""
    try:
        text = raw.decode("utf-8")
    except UnicodeDecodeError as error:
        return Fault(f"not UTF-8 at byte {error.start + 1} of the line", "save the file as UTF-8")
    if not text.strip():
        return Fault("empty line", "remove it")
    if "\0" in text:
        return Fault("holds a NUL byte", "remove it; the file may be damaged")
    try:
        value = json.loads(text, object_pairs_hook=_unique_keys, parse_constant=_no_constant)
    except _Refused as error:
        return Fault(str(error), "write each key once and numbers as finite decimals")
    except json.JSONDecodeError as error:
        what = f"not valid JSON: {error.msg} at column {error.colno}"
        return Fault(what, "write one complete JSON object a line")
    except (RecursionError, ValueError):
        what = "not usable JSON: nested too deeply or a number too long"
        return Fault(what, "write one flat JSON object a line")
    if not isinstance(value, dict):
        return Fault(f"a JSON {_json_type(value)}, not an object", "write one JSON object a line")
    return value


def _unique_keys(pairs: list[tuple[str, Any]]) -> Record:
    value = dict(pairs)
    if len(value) < len(pairs):
        keys = [key for key, _ in pairs]
        raise _Refused(f"key '{next(k for k in keys if keys.count(k) > 1)}' is given twice")
    return value


def _no_constant(name: str) -> Any:
    raise _Refused(f"{name} is not a JSON number")


def _json_type(value: Any) -> str:
    return {list: "list", str: "string", bool: "boolean", type(None): "null"}.get(type(value), "number")


def _text(path: Path) -> Iterator[tuple[int, Record | Fault]]:
    with _opened(path) as stream:
        raw = stream.read().removeprefix(b"\xef\xbb\xbf")
    try:
        yield 1, {"text": raw.decode("utf-8")}
    except UnicodeDecodeError as error:
        line = raw.count(b"\n", 0, error.start) + 1
        yield line, Fault("not UTF-8", "save the file as UTF-8")


def _table(delimiter: str) -> Callable[[Path], Iterator[tuple[int, Record | Fault]]]:
    def read(path: Path) -> Iterator[tuple[int, Record | Fault]]:
        csv.field_size_limit(1 << 30)
        # surrogateescape keeps a wrong byte inside its own row, where the role check names it.
        with (
            _opened(path) as stream,
            io.TextIOWrapper(stream, "utf-8-sig", "surrogateescape", newline="") as lines,
        ):
            reader = csv.reader(lines, delimiter=delimiter, strict=True)
            header = _header(reader, path)
            while True:
                line = reader.line_num + 1
                try:
                    cells = next(reader)
                except StopIteration:
                    return
                except csv.Error as error:
                    fix = "quote cells that hold quotes, delimiters or line breaks"
                    yield line, Fault(f"not valid CSV: {error}", fix)
                    continue
                yield line, _table_row(header, cells)

    return read


def _header(reader: Any, path: Path) -> list[str]:
    fix = "start the file with one line of distinct column names"
    try:
        header: list[str] = next(reader, [])
    except csv.Error as error:
        raise DataError(f"not a valid header: {error}", where=f"{path}:1", fix=fix) from None
    if not header or len(set(header)) < len(header):
        raise DataError("column names are missing or repeated", where=f"{path}:1", fix=fix)
    return header


def _table_row(header: list[str], cells: list[str]) -> Record | Fault:
    if len(cells) != len(header):
        what = f"{len(cells)} cells under {len(header)} columns"
        return Fault(what, "quote cells that hold the delimiter, or fill the row")
    return dict(zip(header, cells, strict=True))


def _parquet(path: Path) -> Iterator[tuple[int, Record | Fault]]:
    import pyarrow
    from pyarrow import parquet

    row = 0
    with _opened(path) as stream:
        source = io.BytesIO(stream.read()) if path.suffix.lower() in COMPRESSIONS else stream
        try:
            file = parquet.ParquetFile(source)
            if len(set(file.schema_arrow.names)) < len(file.schema_arrow.names):
                fix = "write the table with distinct column names"
                raise DataError("column names are repeated", where=f"{path}:1", fix=fix)
            for batch in file.iter_batches(batch_size=1024):
                for record in batch.to_pylist():
                    row += 1
                    yield row, record
        except (pyarrow.ArrowException, UnicodeDecodeError) as error:
            what = f"not readable as parquet: {str(error).splitlines()[0]}"
            raise DataError(what, where=f"{path}:{row + 1}", fix="write the file again") from None


_READERS: dict[str, Callable[[Path], Iterator[tuple[int, Record | Fault]]]] = {
    ".txt": _text,
    ".jsonl": _jsonl,
    ".parquet": _parquet,
    ".csv": _table(","),
    ".tsv": _table("\t"),
}


def _formats() -> str:
    return ", ".join(_READERS)
