"""Encode a corpus: streamed, resumable, the same vectors whether it was interrupted or not.

    vectors/  documents.jsonl   the documents, and the passages that long ones are cut into
              vectors.npy       a row for each passage, in that order; or vectors.parquet, a table with texts
              encoding.json     what made them: the model, and the files with their digests
              canaries.json     fixed texts with their vectors, by which the model is known again

Documents are read and encoded a window at a time; each window is a part that appears whole or not at all. A
killed run goes on after the last part. At the end the parts become one file.
"""

from __future__ import annotations

import json
import shutil
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as parquet
from rich.console import Console
from rich.progress import MofNCompleteColumn, Progress, SpinnerColumn, TextColumn, TimeElapsedColumn

from adaptkit.data.cut_texts import CutTexts, tell_cuts
from adaptkit.data.files import find_files
from adaptkit.disk import allocate, whole_file
from adaptkit.embed.canary_noise import make_canaries
from adaptkit.embed.canary_vectors import CANARIES
from adaptkit.embed.config import OWN_LIMIT
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.passage_spans import PassageSpans
from adaptkit.embed.stored_documents import FILE as DOCUMENTS
from adaptkit.embed.stored_documents import Document, StoredDocuments, read_documents, write_documents
from adaptkit.errors import DataError
from adaptkit.run import digest, file_digest, read_jsonl, read_sealed, write_json, write_sealed
from adaptkit.seal import check_listed

Format = Literal["npy", "parquet"]
WINDOW, WINDOW_CHARS = 4096, 1 << 22
"""Documents, or characters of them, sorted by length together, and lost at most by a kill."""
SHOW_EVERY_S = 5.0
SHOWN_CHARS = 160
"""Of a document's text, shown beside its id to people who search."""
INFO = "encoding.json"
PAYLOAD = (DOCUMENTS, "vectors.npy", "vectors.parquet", CANARIES)


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
        if not (folder / DOCUMENTS).exists():
            what = "holds no texts: an earlier release made it"
            raise DataError(what, where=str(folder), fix="delete it and encode again")
        return cls(folder, info)

    def vectors(self) -> np.ndarray:
        """Float32 [N, D], a row for each passage; npy is mapped, not read."""
        if self.info["format"] == "npy":
            return np.load(self.folder / "vectors.npy", mmap_mode="r")
        table = parquet.read_table(self.folder / "vectors.parquet", columns=["vector"])
        column = table.column("vector").combine_chunks()
        return column.flatten().to_numpy().reshape(-1, self.info["dimensions"])

    def documents(self) -> StoredDocuments:
        """The documents, in the order of their passages' vectors."""
        return StoredDocuments(self.folder / DOCUMENTS)

    def ids(self) -> list[str]:
        return self.documents().ids


def documents(files: Sequence[Path]) -> Iterator[tuple[str, str]]:
    """(id, text) of every record, as the files stream by; a title stands before its text.

    Raises: as `read_documents`.
    """
    return ((document.id, document.passage((0, len(document.text)))) for document in read_documents(files))


def encode_files(
    encoder: Encoder,
    patterns: list[str],
    out: str | Path,
    *,
    prompt: str | None = None,
    dimensions: int = 0,
    format: Format = "npy",
    whole: bool = False,
) -> Encoding:
    """Encode all documents of some files into `out`; what is finished there already is not done again.

    Args:
        prompt: name of the prompt before each text; None is the model's default.
        whole: give each document one vector, of as much as the model reads; else long ones are cut.
    Raises: DataError for unreadable rows, ids that occur twice, or a folder that holds the vectors of
        something else.
    """
    files, _ = find_files(patterns)
    sources = [(str(file.absolute()), file_digest(file)) for file in files]
    made_of = digest([sha256 for _, sha256 in sources])
    return encode_documents(
        encoder,
        read_documents(files),
        out,
        made_of,
        sources=[{"file": file, "sha256": sha256} for file, sha256 in sources],
        prompt=prompt,
        dimensions=dimensions,
        format=format,
        whole=whole,
    )


def encode_documents(
    encoder: Encoder,
    documents: Iterable[Document],
    out: str | Path,
    made_of: str,
    *,
    sources: Sequence[dict[str, str]] = (),
    prompt: str | None = None,
    dimensions: int = 0,
    format: Format = "npy",
    whole: bool = False,
    total: int = 0,
) -> Encoding:
    """Encode documents as `encode_files` does.

    Args:
        made_of: a digest of them, by which a killed run knows that they are the same.
        sources: where they come from, for the record.
        total: their number, where it is known: for those who watch.
    Raises: as `encode_files`.
    """
    out, size = Path(out), dimensions or encoder.size
    settings = {
        "model": encoder.digest,
        "files": made_of,
        "prompt": encoder.layout.prompt(prompt),
        "prompt_name": prompt,
        "dimensions": size,
        "normalised": encoder.layout.normalised,
        "format": format,
        "whole": whole,
    }
    if not _is_finished(out, settings):
        write_sealed(out / INFO, {**settings, "finished": False})
        before, encoder.cut = encoder.cut, CutTexts()
        parts = _encode(encoder, documents, out, settings, total)
        tell_cuts({"texts": encoder.cut}, OWN_LIMIT)
        encoder.cut = encoder.cut.plus(before)
        made = {**_join(out, parts, format, size), "encoder": encoder.place, "sources": list(sources)}
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
    encoder: Encoder, documents: Iterable[Document], out: Path, settings: dict[str, Any], total: int
) -> list[Path]:
    """Write the parts that are missing; returns all of them in order."""
    prompt, size = settings["prompt_name"], settings["dimensions"]
    spans = None if settings["whole"] else PassageSpans(encoder, prompt)
    parts, seen = list[Path](), dict[str, str]()
    (out / "parts").mkdir(parents=True, exist_ok=True)
    with progress("encoded", total) as show:
        for window in _windows(documents):
            for document in window:
                if document.id in seen:
                    what = f"the id '{document.id}' is given twice, first at {seen[document.id]}"
                    raise DataError(what, where=document.where, fix="give every document an id of its own")
                seen[document.id] = document.where
            part = out / "parts" / f"{len(parts):06d}.npy"
            if not part.exists():
                cut = [
                    replace(each, spans=spans.of(each) if spans else ((0, len(each.text)),))
                    for each in window
                ]
                texts = [text for document in cut for text in document.passages()]
                _write_part(part, cut, encoder.encode(texts, prompt=prompt, dimensions=size))
            parts.append(part)
            show(len(seen))
    return parts


def _windows(documents: Iterable[Document]) -> Iterator[list[Document]]:
    window, num_chars = list[Document](), 0
    for document in documents:
        window.append(document)
        num_chars += len(document.text)
        if len(window) >= WINDOW or num_chars >= WINDOW_CHARS:
            yield window
            window, num_chars = [], 0
    if window:
        yield window


def beginning(text: str, most: int = SHOWN_CHARS) -> str:
    """The beginning of a text, on one line."""
    line = " ".join(text.split())
    if len(line) > most:
        line = line[: most - 3].rstrip() + "..."
    return line


def _write_part(part: Path, documents: list[Document], vectors_ND: np.ndarray) -> None:
    """The documents first: the vectors' file is what says that a part is there."""
    write_documents(part.with_suffix(".jsonl"), documents)
    with whole_file(part, vectors_ND.nbytes) as temporary, temporary.open("wb") as file:
        np.save(file, vectors_ND)


def _join(out: Path, parts: list[Path], format: Format, dimensions: int) -> dict[str, int]:
    """Make one file of vectors and one of documents, a part at a time in memory; returns their numbers."""
    for leftover in out.glob(".vectors.*.tmp"):  # of a killed process
        leftover.unlink()
    texts = [part.with_suffix(".jsonl") for part in parts]
    num_bytes = sum(path.stat().st_size for path in texts)
    with whole_file(out / DOCUMENTS, num_bytes) as temporary, temporary.open("wb") as file:
        for path in texts:
            file.write(path.read_bytes())
    passages = [len(spans) for spans in StoredDocuments(out / DOCUMENTS).spans]
    counts = {"count": sum(passages), "documents": len(passages), "cut": sum(num > 1 for num in passages)}
    if format == "npy":
        _join_npy(out, parts, counts["count"], dimensions)
    else:
        _join_parquet(out, parts, counts["count"], dimensions)
    return counts


def _join_npy(out: Path, parts: list[Path], count: int, dimensions: int) -> None:
    start = 0
    with whole_file(out / "vectors.npy", 4 * count * dimensions) as temporary:
        whole_ND = np.lib.format.open_memmap(
            temporary, mode="w+", dtype=np.float32, shape=(count, dimensions)
        )
        allocate(temporary)
        for part in parts:
            vectors_ND = np.load(part)
            whole_ND[start : start + len(vectors_ND)] = vectors_ND
            start += len(vectors_ND)
        whole_ND.flush()


def _join_parquet(out: Path, parts: list[Path], count: int, dimensions: int) -> None:
    """A table for other programs: of each passage its document's id, its characters, its text, its vector."""
    vector = pa.list_(pa.float32(), dimensions)
    columns = [("id", pa.string()), ("start", pa.int64()), ("end", pa.int64()), ("text", pa.string())]
    schema = pa.schema([*columns, ("vector", vector)])
    with (
        whole_file(out / "vectors.parquet", 4 * count * dimensions) as temporary,
        parquet.ParquetWriter(temporary, schema) as writer,
    ):
        for part in parts:
            documents = [Document.of(row) for row in read_jsonl(part.with_suffix(".jsonl"))]
            rows = [
                (each.id, *span, each.text[span[0] : span[1]]) for each in documents for span in each.spans
            ]
            values: Iterable[Any] = zip(*rows, strict=True) if rows else [[]] * len(columns)
            arrays = [pa.array(list(each), kind) for each, (_, kind) in zip(values, columns, strict=True)]
            flat = pa.array(np.load(part).reshape(-1), pa.float32())
            table = [*arrays, pa.FixedSizeListArray.from_arrays(flat, dimensions)]
            writer.write_table(pa.Table.from_arrays(table, schema=schema))


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
