"""Search vectors: exactly by default, approximately by FAISS; an index answers only the model that made it.

    index = build(Encoding.open("vectors"), "index")          # or build(..., faiss="HNSW32")
    index.search(encoder, ["a question"], 10)                 # [[(id, score), ...]]

Vectors of two models live in unrelated spaces: their products are numbers that look like scores and mean
nothing. So a model must have the digest that is kept with the index, and repeat its canaries, before anything
is searched. What is open is one version of the index, and stays that one whatever happens to its folder.

Shape suffixes: Q = queries, N = vectors, D = size of a vector, K = hits.
"""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from weakref import WeakSet

import numpy as np

from adaptkit.disk import whole_folder
from adaptkit.doctor import extras
from adaptkit.embed.canary_vectors import FIRST, Canaries, Embedder, check_canaries, compare_canaries
from adaptkit.embed.encoding import CANARIES, Encoding
from adaptkit.embed.index_folder import INFO, check_replaceable, current, drop_others, switch, version_folder
from adaptkit.embed.retrieval_metrics import ranked
from adaptkit.errors import DataError, ModelError
from adaptkit.run import digest, file_digest, read_json, read_jsonl, read_sealed, write_jsonl, write_sealed
from adaptkit.seal import check_listed

FAISS, EXACT = "index.faiss", "vectors.npy"
BLOCK_SCORES = 1 << 24
"""Scores held at once by an exact search: 64 MB."""


@dataclass(frozen=True)
class Index:
    """One version of an index: vectors that can be searched, mapped from disk or held by FAISS.

    Attributes:
        folder: the version's own.
        info: digest of the model, size of the vectors, kind of index, files that were encoded.
        texts: how each document begins, by id; empty for an index of an earlier release.
        vectors: float32 [N, D], or FAISS's index.
        canaries: None for an index of an earlier release.
    """

    folder: Path
    info: dict[str, Any]
    ids: list[str]
    texts: dict[str, str]
    vectors: Any
    canaries: Canaries | None
    _place: dict[str, int]
    _known: WeakSet[Embedder] = field(default_factory=WeakSet)

    @classmethod
    def open(cls, folder: str | Path) -> Index:
        """The version that answers now.

        Raises: DataError for a folder that holds no index.
        """
        folder = Path(folder)
        while True:
            version = current(folder)
            try:
                return cls.open_version(version)
            except (DataError, OSError):
                if current(folder) == version:
                    raise
                # Another process has switched to a newer one, and dropped this one while it was being opened.

    @classmethod
    def open_version(cls, folder: Path) -> Index:
        """Raises: DataError for a version that is damaged."""
        info = read_sealed(folder / INFO)
        check_listed(folder, info, "make the index again: `adaptkit embed index`")
        rows = list(read_jsonl(folder / "ids.jsonl"))
        ids, texts = [row["id"] for row in rows], {row["id"]: row["text"] for row in rows if row.get("text")}
        canaries = None
        if (folder / CANARIES).exists():
            canaries = Canaries.model_validate(read_json(folder / CANARIES))
        place = {name: i for i, name in enumerate(ids)}
        return cls(folder, info, ids, texts, _read_vectors(folder, info["faiss"]), canaries, place)

    def search(
        self, embedder: Embedder, queries: Sequence[str], k: int = 10
    ) -> list[list[tuple[str, float]]]:
        """The k best (id, score) of each query; equal scores by descending id.

        Args:
            embedder: an Encoder, or a server's model.
        Raises: ModelError as `check`.
        """
        self.check(embedder)
        size, texts = self.info["dimensions"], list(queries)
        if embedder.digest or self.canaries is None:
            return self.nearest(embedder.encode_queries(texts, size), k)
        # Behind a server's name another model may stand by now: one request, one model, which shows itself.
        vectors_QD = embedder.encode_queries([self.canaries.texts[FIRST], *texts], size)
        compare_canaries(self.canaries, [FIRST], vectors_QD[:1], embedder, str(self.folder))
        return self.nearest(vectors_QD[1:], k)

    def check(self, embedder: Embedder) -> None:
        """Know the model: by its digest each time, by all canaries the first time.

        Raises: ModelError for one that did not make these vectors, or whose vectors cannot be searched.
        """
        where = str(self.folder)
        if embedder.digest and embedder.digest != self.info["model"]:
            ours, theirs = self.info["model"][:12], embedder.digest[:12]
            made_by = f" ({self.info['encoder']})" if self.info.get("encoder") else ""
            what = f"these vectors are of model {ours}{made_by}, the queries' model is {theirs}"
            fix = (
                "search with the model that made the index, or bring it to this one: `adaptkit embed migrate`"
            )
            raise ModelError(what, where=where, fix=fix)
        if embedder in self._known:
            return
        embedder.check_products()
        if self.canaries is not None:
            check_canaries(self.canaries, embedder, where)
        elif not embedder.digest:
            what = f"keeps no vectors by which {embedder.name} could be known: an earlier release made it"
            raise ModelError(
                what, where=where, fix="encode and index the documents again, or search with the folder"
            )
        self._known.add(embedder)

    def nearest(self, queries_QD: np.ndarray, k: int) -> list[list[tuple[str, float]]]:
        """The k best (id, score) of each query vector."""
        if self.info["faiss"]:
            scores_QK, places_QK = self.vectors.search(np.ascontiguousarray(queries_QD, np.float32), k)
            rows = zip(places_QK, scores_QK, strict=True)
            return [[(self.ids[i], float(s)) for i, s in zip(*row, strict=True) if i >= 0] for row in rows]
        block, hits = max(1, BLOCK_SCORES // max(1, len(self.ids))), []
        for start in range(0, len(queries_QD), block):
            for scores_N in queries_QD[start : start + block] @ self.vectors.T:
                ranking = ranked(scores_N, self.ids, k)
                hits.append([(name, float(scores_N[self._place[name]])) for name in ranking])
        return hits

    def vectors_of(self, places: Sequence[int]) -> np.ndarray:
        """The documents' own vectors, float32 [N, D].

        Raises: DataError for a kind of FAISS index that cannot give them back.
        """
        if not self.info["faiss"]:
            return np.asarray(self.vectors[list(places)])
        try:
            cells = _faiss().try_extract_index_ivf(self.vectors)
            if cells is not None:
                cells.make_direct_map()
            return np.stack([self.vectors.reconstruct(int(place)) for place in places])
        except RuntimeError:
            what = f"a FAISS index '{self.info['faiss']}' does not give its vectors back"
            raise DataError(
                what, where=str(self.folder), fix="compare by questions: --queries FILE"
            ) from None


def build(encoding: Encoding, folder: str | Path, *, faiss: str = "") -> Index:
    """Write an index of an encoding's vectors, in place of an older index.

    Args:
        faiss: a FAISS factory string such as HNSW32 or IVF256,Flat; empty: exact, nothing but a matrix
            product.
    Raises: MissingDependency without FAISS, DataError for a string it does not know, or a folder that holds
        something else.
    """
    folder = Path(folder).resolve()
    check_replaceable(folder)
    switch(folder, write_version(encoding, folder, faiss=faiss))
    drop_others(folder)
    return Index.open(folder)


def write_version(encoding: Encoding, folder: Path, *, faiss: str = "") -> Path:
    """Write the vectors of an encoding as a version of an index, which does not answer yet.

    Returns: its folder. One that is there already, whole, is not written again.
    Raises: as `build`.
    """
    told = ("model", "encoder", "dimensions", "normalised", "count", "prompt", "files", "sources")
    info = {key: encoding.info[key] for key in told if key in encoding.info} | {"faiss": faiss}
    version = version_folder(folder, digest({**encoding.info, "faiss": faiss}))
    if (version / INFO).exists():
        try:
            return Index.open_version(version).folder
        except DataError:  # damaged: it is written again
            pass
    vectors_ND = np.ascontiguousarray(encoding.vectors(), np.float32)
    with whole_folder(version, num_bytes=vectors_ND.nbytes) as temporary:
        if faiss:
            _write_faiss(temporary / FAISS, vectors_ND, faiss)
        else:
            np.save(temporary / EXACT, vectors_ND)
        write_jsonl(temporary / "ids.jsonl", encoding.documents())
        if (encoding.folder / CANARIES).exists():
            shutil.copyfile(encoding.folder / CANARIES, temporary / CANARIES)
        listed = {path.name: file_digest(path) for path in sorted(temporary.iterdir())}
        write_sealed(temporary / INFO, {**info, "files_written": listed})
    return version


def _read_vectors(folder: Path, faiss: str) -> Any:
    if faiss:
        return _faiss().read_index(str(folder / FAISS))
    return np.load(folder / EXACT, mmap_mode="r")


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
