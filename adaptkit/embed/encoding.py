"""Encode a corpus: streamed, resumable, the same vectors whether it was interrupted or not.

    vectors/  vectors.npy + ids.jsonl (ids, and how each text begins), or vectors.parquet
              encoding.json   what made them: the model, and the files with their digests
              canaries.json   fixed texts with their vectors, by which the model is known again

Documents are read and encoded a window at a time; each window is a part that appears whole or not at all. A
killed run goes on after the last part. At the end the parts become one file.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from adaptkit.data.beir import titled_text
from adaptkit.data.files import find_files, records
from adaptkit.data.records import Fault
from adaptkit.disk import allocate, whole_file
from adaptkit.embed.canary_vectors import make_canaries
from adaptkit.embed.encoder import Encoder
from adaptkit.errors import DataError
from adaptkit.run import digest, file_digest, read_jsonl, read_sealed, write_json, write_jsonl, write_sealed
from adaptkit.seal import check_listed

Format = Literal["npy", "parquet"]
WINDOW = 4096
"""Documents sorted by length together, and lost at most by a kill."""
SHOW_EVERY_S = 5.0
SHOWN_CHARS = 160
"""Of a document's text, kept beside its id for people who search."""
INFO = "encoding.json"
CANARIES = "canaries.json"
PAYLOAD = ("ids.jsonl", "vectors.npy", "vectors.parquet", CANARIES)
_ID_NAMES = ("_id", "id")


@dataclass(frozen=True)
class Encoding:
    """A finished encoding: where it lies and what made it."""

    folder: Path
    info: dict[str, Any]

    @classmethod
    def open(cls, folder: str | Path) -> Encoding:
        """Raises: DataError for a folder without a finished encoding."""
        folder = Path(folder)
        info, fix = {}, "give the folder that encode wrote"
        if (folder / INFO).exists():
            info = read_sealed(folder / INFO)
            fix = "run `adaptkit embed encode` with this --out: it goes on where it stopped"
        if not info.get("finished"):
            raise DataError("holds no finished encoding", where=str(folder), fix=fix)
        check_listed(folder, info, "delete it and encode again")
        return cls(folder, info)

    def vectors(self) -> np.ndarray:
        """Float32 [N, D]; npy is mapped, not read."""
        if self.info["format"] == "npy":
            return np.load(self.folder / "vectors.npy", mmap_mode="r")
        column = self._table(["vector"]).column("vector").combine_chunks()
        return column.flatten().to_numpy().reshape(-1, self.info["dimensions"])

    def ids(self) -> list[str]:
        return [row["id"] for row in self.documents()]

    def documents(self) -> list[dict[str, str]]:
        """The id of each document, and how its text begins; encodings of earlier releases lack that."""
        if self.info["format"] == "npy":
            return list(read_jsonl(self.folder / "ids.jsonl"))
        names = parquet.read_schema(self.folder / "vectors.parquet").names
        return self._table([name for name in ("id", "text") if name in names]).to_pylist()

    def _table(self, columns: list[str]) -> Any:
        return parquet.read_table(self.folder / "vectors.parquet", columns=columns)


def documents(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(id, text) of every record, as the files stream by: `_id` or `id`, else `file:line`; a title stands
    before its text.

    Raises: DataError at `file:line` for a record without text.
    """
    return ((name, text) for name, text, _ in _placed(files))


def _placed(files: Sequence[Path]) -> Iterator[tuple[str, str, str]]:
    """(id, text, `file:line`) of every record."""
    for file in files:
        for line, record in records(file):
            where = f"{file}:{line}"
            if isinstance(record, Fault):
                raise DataError(record.what, where=where, fix=record.fix)
            text = record.get("text")
            if not isinstance(text, str):
                fix = "give rows with `text`, and `_id` or `id`"
                raise DataError("no column 'text'", where=where, fix=fix)
            name = next((str(record[key]) for key in _ID_NAMES if key in record), f"{file.name}:{line}")
            yield name, titled_text(record, text), where


def encode_files(
    encoder: Encoder,
    patterns: list[str],
    out: str | Path,
    *,
    prompt: str | None = None,
    dimensions: int = 0,
    format: Format = "npy",
    total: int = 0,
) -> Encoding:
    """Encode all documents of some files into `out`; what is finished there already is not done again.

    Args:
        prompt: name of the prompt before each text; None is the model's default.
        total: documents, where their number is known: for those who watch.
    Raises: DataError for unreadable rows, ids that occur twice, or a folder that holds the vectors of
        something else.
    """
    out = Path(out)
    files, _ = find_files(patterns)
    sources = [(str(file.absolute()), file_digest(file)) for file in files]
    size = dimensions or encoder.size
    settings = {
        "model": encoder.digest,
        "files": digest([sha256 for _, sha256 in sources]),
        "prompt": encoder.layout.prompt(prompt),
        "dimensions": size,
        "normalised": encoder.layout.normalised,
        "format": format,
    }
    if not _is_finished(out, settings):
        write_sealed(out / INFO, {**settings, "finished": False})
        parts = _encode(encoder, files, out, prompt, dimensions, total)
        made = {"count": _join(out, parts, format, size), "encoder": encoder.place}
        made["sources"] = [{"file": file, "sha256": sha256} for file, sha256 in sources]
        write_json(out / CANARIES, make_canaries(encoder, size).model_dump(mode="json"))
        listed = {name: file_digest(out / name) for name in PAYLOAD if (out / name).exists()}
        write_sealed(out / INFO, {**settings, **made, "files_written": listed, "finished": True})
        shutil.rmtree(out / "parts")
    return Encoding.open(out)


def _is_finished(out: Path, settings: dict[str, Any]) -> bool:
    """Whether a folder holds all vectors of an encoding with these settings.

    Raises: DataError if it holds an encoding with others.
    """
    if not (out / INFO).exists():
        return False
    begun = read_sealed(out / INFO)
    for key, value in settings.items():
        if begun.get(key) != value:
            fix = "choose another --out, or delete it"
            raise DataError(f"holds an encoding with another {key}", where=str(out), fix=fix)
    return bool(begun.get("finished"))


def _encode(
    encoder: Encoder, files: list[Path], out: Path, prompt: str | None, dimensions: int, total: int
) -> list[Path]:
    """Write the parts that are missing; returns all of them in order."""
    stream, parts, seen = _placed(files), list[Path](), dict[str, str]()
    (out / "parts").mkdir(parents=True, exist_ok=True)
    with progress("encoded", total) as show:
        while window := list(islice(stream, WINDOW)):
            for name, _, where in window:
                if name in seen:
                    what = f"the id '{name}' is given twice, first at {seen[name]}"
                    raise DataError(what, where=where, fix="give every document an id of its own")
                seen[name] = where
            part = out / "parts" / f"{len(parts):06d}.npy"
            if not part.exists():
                texts = [text for _, text, _ in window]
                rows = [{"id": name, "text": beginning(text)} for name, text, _ in window]
                _write_part(part, rows, encoder.encode(texts, prompt=prompt, dimensions=dimensions))
            parts.append(part)
            show(len(seen))
    return parts


def beginning(text: str, most: int = SHOWN_CHARS) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    if len(line) > most:
        line = line[: most - 3].rstrip() + "..."
    return line


def _write_part(part: Path, rows: list[dict[str, str]], vectors_ND: np.ndarray) -> None:
    """The documents first: the vectors' file is what says that a part is there."""
    write_jsonl(part.with_suffix(".jsonl"), rows)
    with whole_file(part, vectors_ND.nbytes) as temporary, temporary.open("wb") as file:
        np.save(file, vectors_ND)


def _join(out: Path, parts: list[Path], format: Format, dimensions: int) -> int:
    """Make one file of vectors with their ids, a part at a time in memory; returns the number of vectors."""
    for leftover in out.glob(".vectors.*.tmp"):  # of a killed process
        leftover.unlink()
    rows = [list(read_jsonl(part.with_suffix(".jsonl"))) for part in parts]
    if format == "npy":
        _join_npy(out, parts, rows, dimensions)
    else:
        _join_parquet(out, parts, rows, dimensions)
    return sum(map(len, rows))


def _join_npy(out: Path, parts: list[Path], rows: list[list[dict[str, str]]], dimensions: int) -> None:
    shape, start = (sum(map(len, rows)), dimensions), 0
    with whole_file(out / "vectors.npy", 4 * shape[0] * dimensions) as temporary:
        whole_ND = np.lib.format.open_memmap(temporary, mode="w+", dtype=np.float32, shape=shape)
        allocate(temporary)
        for part in parts:
            vectors_ND = np.load(part)
            whole_ND[start : start + len(vectors_ND)] = vectors_ND
            start += len(vectors_ND)
        whole_ND.flush()
    write_jsonl(out / "ids.jsonl", (row for part in rows for row in part))


def _join_parquet(out: Path, parts: list[Path], rows: list[list[dict[str, str]]], dimensions: int) -> None:
    vector = pa.list_(pa.float32(), dimensions)
    schema = pa.schema([("id", pa.string()), ("text", pa.string()), ("vector", vector)])
    num_bytes = 4 * dimensions * sum(map(len, rows))
    with (
        whole_file(out / "vectors.parquet", num_bytes) as temporary,
        parquet.ParquetWriter(temporary, schema) as writer,
    ):
        for part, documents_of_part in zip(parts, rows, strict=True):
            flat = pa.array(np.load(part).reshape(-1), pa.float32())
            words = [
                pa.array([row.get(name, "") for row in documents_of_part], pa.string())
                for name in ("id", "text")
            ]
            columns = [*words, pa.FixedSizeListArray.from_arrays(flat, dimensions)]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))


@contextmanager
def progress(what: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """A counter on a terminal, JSON lines every few seconds elsewhere; both on stderr."""
    if not sys.stderr.isatty():
        shown_at, of = -SHOW_EVERY_S, {"of": total} if total else {}

        def show(done: int) -> None:
            nonlocal shown_at
            if time.monotonic() - shown_at >= SHOW_EVERY_S:
                print(json.dumps({what: done, **of}), file=sys.stderr, flush=True)
                shown_at = time.monotonic()

        yield show
        return
    columns = (SpinnerColumn(), TextColumn(what), MofNCompleteColumn(), TimeElapsedColumn())
    with Progress(*columns, console=Console(stderr=True), transient=True) as bar:
        task = bar.add_task("", total=total or None)
        yield lambda done: bar.update(task, completed=done)
