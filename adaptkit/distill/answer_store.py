"""A teacher's answers written once: the k largest log-probabilities of each token of each packed row.

    folder/
        part-00000.bin    ids, then log-probabilities, of up to ROWS_PER_PART rows: little-endian uint16
                          (uint32 from 65,537 tokens on) [rows, T, K], float16 [rows, T, K]
        part-00000.json   its number of rows and sha256, written after it: a killed writing goes on behind the
                          last one
        index.json        what it was made from (teacher, text, row length, temperature), bytes per token,
                          sha256 of itself

The mass of all tokens that are not among the k is what the k leave over, so it needs no place of its own.
Shape suffixes: B = rows of a batch, T = tokens of a row, K = kept tokens, V = vocabulary.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from adaptkit.disk import whole_file
from adaptkit.errors import DataError
from adaptkit.run import digest, file_digest, read_json, write_json
from adaptkit.trainer.distillation import STORED
from adaptkit.trainer.parallel import Ranks
from adaptkit.trainer.row_source import Source

TOP_K = 64
ROWS_PER_PART = 256
ROWS_AT_ONCE = 8
LEAST_LOGPROB = -65000.0  # float16 ends at 65504
Scorer = Callable[[dict[str, Tensor]], tuple[Tensor, Tensor]]
"""A batch of packed rows -> ids int64 and log-probabilities float [B, T, K] of what comes after each
position."""


@dataclass(frozen=True)
class StoreLayout:
    """Sizes of a store."""

    num_rows: int
    seq_len: int
    top_k: int
    vocab_size: int

    @property
    def id_type(self) -> str:
        if self.vocab_size <= 1 << 16:
            return "<u2"
        return "<u4"

    @property
    def bytes_per_token(self) -> int:
        return self.top_k * (np.dtype(self.id_type).itemsize + 2)


class SignalStore:
    """An opened, verified folder."""

    def __init__(self, folder: Path, layout: StoreLayout):
        self.folder, self.layout = folder, layout
        self._part = cache(self._mapped)

    @classmethod
    def open(cls, folder: str | Path) -> SignalStore:
        """Raises: DataError naming the file that is missing, cut or altered."""
        folder = Path(folder)
        index = read_json(folder / "index.json")
        if index.pop("sha256", None) != digest(index):
            what = "the index of the teacher's answers is damaged"
            raise DataError(what, where=str(folder / "index.json"), fix="delete the folder")
        for name, sha256 in index["parts"].items():
            path, fault = folder / name, ""
            if not path.is_file():
                fault = "is missing"
            elif file_digest(path) != sha256:
                fault = "differs from its sha256"
            if fault:
                what = f"a part of the teacher's answers {fault}"
                raise DataError(what, where=str(path), fix="delete the folder")
        return cls(folder, StoreLayout(**index["layout"]))

    def read(self, rows: list[int]) -> tuple[Tensor, Tensor]:
        """ids int64 and log-probabilities float32 [B, T, K]."""
        places = [(self._part(row // ROWS_PER_PART), row % ROWS_PER_PART) for row in rows]
        ids = np.stack([part_ids[place] for (part_ids, _), place in places])
        logprobs = np.stack([part_logprobs[place] for (_, part_logprobs), place in places])
        return torch.from_numpy(ids.astype(np.int64)), torch.from_numpy(logprobs.astype(np.float32))

    def _mapped(self, part: int) -> tuple[np.ndarray, np.ndarray]:
        layout = self.layout
        shape = (min(ROWS_PER_PART, layout.num_rows - part * ROWS_PER_PART), layout.seq_len, layout.top_k)
        path, size = _part_path(self.folder, part), int(np.prod(shape))
        ids = np.memmap(path, dtype=layout.id_type, mode="r", shape=shape)
        offset = size * np.dtype(layout.id_type).itemsize
        return ids, np.memmap(path, dtype="<f2", mode="r", offset=offset, shape=shape)


class WithTeacher:
    """Packed rows with what the teacher said about them."""

    def __init__(self, source: Source, store: SignalStore):
        self.source, self.store, self.where = source, store, source.where

    def __len__(self) -> int:
        return len(self.source)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        answers = dict(zip(STORED, self.store.read(indices), strict=True))
        return {**self.source.collate(indices, seed=seed, epoch=epoch), **answers}


def write_store(
    source: Source,
    score: Scorer,
    folder: Path,
    layout: StoreLayout,
    made_from: dict[str, Any],
    ranks: Ranks | None = None,
) -> SignalStore:
    """Ask the teacher about every row of `source`, or open what was written before from the same teacher and
    text.

    Of several ranks each writes every so many parts; all return when the last part is there.
    Raises: DataError where the folder holds something else, or is damaged.
    """
    if (folder / "index.json").exists():
        if read_json(folder / "index.json").get("made_from") != made_from:
            what = "holds the answers of another teacher or text"
            raise DataError(what, where=str(folder), fix="delete the folder")
        return SignalStore.open(folder)
    ranks = ranks or Ranks()
    folder.mkdir(parents=True, exist_ok=True)
    paths = [_part_path(folder, part) for part in range(-(-layout.num_rows // ROWS_PER_PART))]
    for part in range(ranks.rank, len(paths), ranks.world_size):
        info = paths[part].with_suffix(".json")
        if not info.exists():
            end = min((part + 1) * ROWS_PER_PART, layout.num_rows)
            rows = list(range(part * ROWS_PER_PART, end))
            _write_part(paths[part], source, score, rows, layout)
            write_json(info, {"rows": len(rows), "sha256": file_digest(paths[part])})
    ranks.sum(torch.zeros(()))  # which waits for all of them
    if ranks.rank == 0:
        parts = {path.name: read_json(path.with_suffix(".json"))["sha256"] for path in paths}
        index = {
            "made_from": made_from,
            "layout": vars(layout),
            "bytes_per_token": layout.bytes_per_token,
            "parts": parts,
        }
        write_json(folder / "index.json", {**index, "sha256": digest(index)})
    ranks.share(None)
    return SignalStore.open(folder)


def _write_part(path: Path, source: Source, score: Scorer, rows: list[int], layout: StoreLayout) -> None:
    groups = [rows[start : start + ROWS_AT_ONCE] for start in range(0, len(rows), ROWS_AT_ONCE)]
    answers = [score(source.collate(group, seed=0, epoch=0)) for group in groups]
    ids, logprobs = (torch.cat(side).cpu().numpy() for side in zip(*answers, strict=True))
    num_bytes = len(rows) * layout.seq_len * layout.bytes_per_token
    with whole_file(path, num_bytes) as temporary, temporary.open("wb") as file:
        ids.astype(layout.id_type).tofile(file)
        logprobs.clip(LEAST_LOGPROB, 0).astype("<f2").tofile(file)
    event = {
        "event": "the teacher was asked",
        "rows": rows[-1] + 1,
        "of": layout.num_rows,
        "bytes_per_token": layout.bytes_per_token,
    }
    print(json.dumps(event), file=sys.stderr, flush=True)


def _part_path(folder: Path, part: int) -> Path:
    return folder / f"part-{part:05d}.bin"
