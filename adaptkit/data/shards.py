"""Write documents as one memory-mapped stream of token ids, and read it after its files were verified.

    folder/
        shard-00000.bin    little-endian uint16 (uint32 from 65,537 entries on), documents one after another
        documents.jsonl    [id, where, num_bytes, num_tokens] of each document, in stream order
        index.json         dtype, special ids, digests of tokenizer and data, sha256 of all files and itself

Documents stand in the order of their content hash, whatever the order of the rows. The folder is written
beside its place and renamed, so a killed write leaves nothing.
"""

from __future__ import annotations

import json
import os
import shutil
import sys
from collections.abc import Iterator
from dataclasses import astuple, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from rich.console import Console
from rich.progress import Progress

from adaptkit.data.readers import Dataset, Row
from adaptkit.data.tokenizers import end_token, pad_token, tokenizer_digest
from adaptkit.disk import whole_folder
from adaptkit.errors import DataError
from adaptkit.models.control_tokens import encode
from adaptkit.run import digest, file_digest, write_json

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast

FORMAT = 1
SHARD_TOKENS = 1 << 24  # 32 MiB as uint16
BATCH_BYTES = 1 << 20  # text encoded at a time


@dataclass(frozen=True)
class Document:
    """One document of a stream: its content id, its place in the files, UTF-8 bytes, tokens."""

    id: str
    where: str
    num_bytes: int
    num_tokens: int


class TokenShards:
    """An opened, verified shard folder."""

    def __init__(self, folder: Path, index: dict[str, Any], documents: list[Document]):
        self.folder, self.index, self.documents = folder, index, documents
        # [num_documents], stream position after each document
        self.ends = np.cumsum([d.num_tokens for d in documents], dtype=np.int64)
        self._maps = [
            np.memmap(folder / shard["file"], dtype=index["dtype"], mode="r") for shard in index["shards"]
        ]
        self._offsets = np.cumsum([0, *(len(m) for m in self._maps)])

    @classmethod
    def open(cls, folder: str | Path) -> TokenShards:
        """Open a folder, after comparing every file with its sha256.

        Raises: DataError naming the file that is missing, cut or altered.
        """
        folder = Path(folder)
        index = _read_index(folder)
        for item in [*index["shards"], index["documents"]]:
            path = folder / item["file"]
            if not path.is_file() or file_digest(path) != item["sha256"]:
                state = "differs from its sha256" if path.is_file() else "is missing"
                fix = "delete the folder; the next run writes it again"
                raise DataError(f"token shard file {state}", where=str(path), fix=fix)
        text = (folder / index["documents"]["file"]).read_text(encoding="utf-8")
        return cls(folder, index, [Document(*json.loads(line)) for line in text.splitlines()])

    @property
    def num_tokens(self) -> int:
        return int(self.ends[-1])

    @property
    def num_bytes(self) -> int:
        """UTF-8 bytes of the documents' text."""
        return sum(document.num_bytes for document in self.documents)

    @property
    def bytes_per_token(self) -> float:
        return self.num_bytes / self.num_tokens

    def read(self, start: int, stop: int) -> np.ndarray:
        """Tokens [start, stop) of the stream, int64; shorter at the end of the stream."""
        parts = [
            shard[max(start - at, 0) : stop - at]
            for shard, at, end in zip(self._maps, self._offsets[:-1], self._offsets[1:], strict=True)
            if at < stop and start < end
        ]
        return np.concatenate([np.empty(0, np.int64), *parts], dtype=np.int64)


def write_shards(
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    folder: str | Path,
    *,
    shard_tokens: int = SHARD_TOKENS,
) -> TokenShards:
    """Encode every row's text into `folder`, or open what is there when it was made from the same text and
    tokenizer.

    Each document is the tokenizer's own encoding (with its BOS, if it adds one) followed by EOS.
    Raises: DataError when `folder` holds something else; DiskFullError.
    """
    folder = Path(folder)
    made_from = {
        "data": dataset.digest,
        "tokenizer": tokenizer_digest(tokenizer),
        "shard_tokens": shard_tokens,
        "control_tokens": "as text",  # older shards obeyed those that texts spell
    }
    if folder.exists() and any(folder.iterdir()):
        index = _read_index(folder)
        if index["made_from"] == made_from:
            return TokenShards.open(folder)
        shutil.rmtree(folder)
    # another run may write the same text meanwhile: then its shards stay
    with whole_folder(folder, num_bytes=dataset.num_bytes, replace=False) as temporary:
        _write(temporary, dataset, tokenizer, made_from, shard_tokens)
    return TokenShards.open(folder)


def _write(
    folder: Path,
    dataset: Dataset,
    tokenizer: PreTrainedTokenizerFast,
    made_from: dict[str, Any],
    shard_tokens: int,
) -> None:
    dtype = "<u2" if len(tokenizer) <= 1 << 16 else "<u4"
    writer = _Writer(folder, dtype, shard_tokens)
    end = end_token(tokenizer)
    rows = sorted(dataset.rows, key=lambda row: (row.id, row.where))
    for batch in _progress(_batches(rows), dataset.num_bytes):
        for row, ids in zip(batch, encode(tokenizer, [row.text for row in batch]), strict=True):
            if end is not None and ids[-1:] != [end]:
                ids.append(end)
            writer.add(row, np.asarray(ids, dtype=dtype))
    index = {
        "format": FORMAT,
        "dtype": dtype,
        "vocab_size": len(tokenizer),
        "end_id": end,
        "pad_id": pad_token(tokenizer),
        "mask_id": tokenizer.mask_token_id,
        "special_ids": sorted(tokenizer.all_special_ids),
        "made_from": made_from,
        **writer.close(),
    }
    write_json(folder / "index.json", {**index, "sha256": digest(index)})


def _batches(rows: list[Row]) -> Iterator[list[Row]]:
    batch: list[Row] = []
    size = 0
    for row in rows:
        batch.append(row)
        size += len(row.text)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _progress(batches: Iterator[list[Row]], num_bytes: int) -> Iterator[list[Row]]:
    if not sys.stderr.isatty() or num_bytes < 16 * BATCH_BYTES:
        yield from batches
        return
    with Progress(console=Console(stderr=True), transient=True) as progress:
        task = progress.add_task("encoding", total=num_bytes)
        for batch in batches:
            yield batch
            progress.advance(task, sum(len(row.text.encode()) for row in batch))


class _Writer:
    """Appends documents; a shard ends at the first document boundary past its size."""

    def __init__(self, folder: Path, dtype: str, shard_tokens: int):
        self.folder, self.dtype, self.shard_tokens = folder, dtype, shard_tokens
        self.documents: list[Document] = []
        self._buffer: list[np.ndarray] = []
        self._size = 0
        self._shards: list[dict[str, Any]] = []

    def add(self, row: Row, ids: np.ndarray) -> None:
        self.documents.append(Document(row.id, row.where, len(row.text.encode()), len(ids)))
        self._buffer.append(ids)
        self._size += len(ids)
        if self._size >= self.shard_tokens:
            self._flush()

    def close(self) -> dict[str, Any]:
        """Write what is left; returns the index entries of all files."""
        if self._buffer:
            self._flush()
        path = self.folder / "documents.jsonl"
        lines = [json.dumps(list(astuple(document)), ensure_ascii=False) for document in self.documents]
        path.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
        return {"shards": self._shards, "documents": {"file": path.name, "sha256": file_digest(path)}}

    def _flush(self) -> None:
        path = self.folder / f"shard-{len(self._shards):05d}.bin"
        with path.open("wb") as file:
            np.concatenate(self._buffer).astype(self.dtype).tofile(file)
            os.fsync(file.fileno())
        self._shards.append({"file": path.name, "sha256": file_digest(path), "num_tokens": self._size})
        self._buffer, self._size = [], 0


def _read_index(folder: Path) -> dict[str, Any]:
    path = folder / "index.json"
    try:
        index = json.loads(path.read_text(encoding="utf-8"))
        stated = index.pop("sha256")
    except FileNotFoundError:
        fix = "name another folder, or remove this one"
        raise DataError("not a token shard folder: no index.json", where=str(folder), fix=fix) from None
    except (OSError, ValueError, KeyError, AttributeError):
        stated, index = None, {}
    if stated is None or stated != digest(index) or index.get("format") != FORMAT:
        what = "the index of the token shards is damaged or of another version"
        raise DataError(what, where=str(path), fix="delete the folder")
    return index
