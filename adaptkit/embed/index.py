"""Search vectors: exactly by default, approximately by FAISS; an index answers only the model that made it.

    index = build(Encoding.open("vectors"), "index")          # or build(..., faiss="HNSW32")
    index.search(encoder, ["a question"], 10)                 # [[(id, score), ...]]

Vectors of two models live in unrelated spaces: their products are numbers that look like scores and mean
nothing. So the model's digest is kept with the index and compared before anything is searched.

Shape suffixes: Q = queries, N = vectors, D = size of a vector.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.disk import whole_folder
from adaptkit.doctor import extras
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import Encoding
from adaptkit.embed.retrieval_metrics import ranked
from adaptkit.errors import DataError, ModelError
from adaptkit.run import file_digest, read_jsonl, read_sealed, write_jsonl, write_sealed
from adaptkit.seal import check_listed

INFO = "index.json"
FILES = {INFO, "ids.jsonl", "vectors.npy", "index.faiss"}
BLOCK_SCORES = 1 << 24
"""Scores held at once by an exact search: 64 MB."""


@dataclass(frozen=True)
class Index:
    """Vectors that can be searched, mapped from disk.

    Attributes:
        info: digest of the model, size of the vectors, kind of index.
        texts: how each document begins, by id; empty for an index of an earlier release.
    """

    folder: Path
    info: dict[str, Any]
    ids: list[str]
    texts: dict[str, str]

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """Raises: DataError for a folder that holds no index."""
        folder = Path(folder)
        if not (folder / INFO).exists():
            fix = "give the folder that `adaptkit embed index` wrote"
            raise DataError("holds no index", where=str(folder), fix=fix)
        info = read_sealed(folder / INFO)
        check_listed(folder, info, "make the index again: `adaptkit embed index`")
        rows = list(read_jsonl(folder / "ids.jsonl"))
        texts = {row["id"]: row["text"] for row in rows if row.get("text")}
        return cls(folder, info, [row["id"] for row in rows], texts)

    def search(self, encoder: Encoder, queries: Sequence[str], k: int = 10) -> list[list[tuple[str, float]]]:
        """The k best (id, score) of each query; equal scores by descending id.

        Raises: ModelError for another model than the one that made the vectors, or one whose vectors are not
            compared by their product.
        """
        if encoder.digest != self.info["model"]:
            ours, theirs = self.info["model"][:12], encoder.digest[:12]
            what = f"these vectors are of model {ours}, the queries' model is {theirs}"
            fix = "search with the model that made the index, or index again with this one"
            raise ModelError(what, where=str(self.folder), fix=fix)
        encoder.check_products()
        prompt = encoder.layout.prompt_if_any("query")
        return self.nearest(encoder.encode(queries, prompt=prompt, dimensions=self.info["dimensions"]), k)

    def nearest(self, queries_QD: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        """The k best (id, score) of each query vector."""
        if self.info["faiss"]:
            index = _faiss().read_index(str(self.folder / "index.faiss"))
            scores_QK, places_QK = index.search(queries_QD, k)
            rows = zip(places_QK, scores_QK, strict=True)
            return [[(self.ids[i], float(s)) for i, s in zip(*row, strict=True) if i >= 0] for row in rows]
        vectors_ND = np.load(self.folder / "vectors.npy", mmap_mode="r")
        place = {name: i for i, name in enumerate(self.ids)}
        block, hits = max(1, BLOCK_SCORES // max(1, len(vectors_ND))), []
        for start in range(0, len(queries_QD), block):
            for scores_N in queries_QD[start : start + block] @ vectors_ND.T:
                ranking = ranked(scores_N, self.ids, k)
                hits.append([(name, float(scores_N[place[name]])) for name in ranking])
        return hits


def build(encoding: Encoding, folder: str | Path, *, faiss: str = "") -> Index:
    """Write an index of an encoding's vectors, in place of an older index.

    Args:
        faiss: a FAISS factory string such as HNSW32 or IVF256,Flat; empty: exact, nothing but a matrix
            product.
    Raises: MissingDependency without FAISS, DataError for a string it does not know, or a folder that holds
        something else.
    """
    folder = Path(folder).resolve()
    _check_replaceable(folder)
    vectors_ND = np.ascontiguousarray(encoding.vectors(), np.float32)
    with whole_folder(folder, num_bytes=vectors_ND.nbytes) as temporary:
        if faiss:
            _write_faiss(temporary / "index.faiss", vectors_ND, faiss)
        else:
            np.save(temporary / "vectors.npy", vectors_ND)
        write_jsonl(temporary / "ids.jsonl", encoding.documents())
        info = {key: encoding.info[key] for key in ("model", "dimensions", "normalised", "count")}
        listed = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        write_sealed(temporary / INFO, {**info, "faiss": faiss, "files_written": listed})
    return Index.open(folder)


def _check_replaceable(folder: Path) -> None:
    """Raises: DataError for a folder with files that no index has: they would be gone."""
    if not folder.is_dir():
        return
    foreign = sorted({path.name for path in folder.iterdir()} - FILES)
    if foreign:
        what = f"holds {foreign[0]}, which is no part of an index"
        raise DataError(what, where=str(folder), fix="choose another --out")


def _write_faiss(path: Path, vectors_ND: np.ndarray, factory: str) -> None:
    library = _faiss()
    try:
        index = library.index_factory(vectors_ND.shape[1], factory, library.METRIC_INNER_PRODUCT)
        index.train(vectors_ND)
    except RuntimeError as error:
        first = next(iter(str(error).splitlines()), "refused")
        what = f"FAISS cannot build '{factory}': {first}"
        raise DataError(what, where="--faiss", fix="try HNSW32, or leave it out") from None
    index.add(vectors_ND)
    library.write_index(index, str(path))


def _faiss() -> Any:
    try:
        import faiss
    except ImportError:
        what = "approximate search needs FAISS (the exact one does not)"
        raise extras.missing_extra("faiss", what, where="--faiss") from None
    return faiss
