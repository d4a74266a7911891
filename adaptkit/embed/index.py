"""Search documents by vectors, exactly by default; an index answers only the model that made it.

    index = Index.open("index")                               # made by `embed.index_writing.build`
    for hit in index.search(encoder, ["a question"], 10)[0]:
        hit.id, hit.score, hit.start, hit.end, hit.text       # a document, and its characters that match

Vectors of two models live in unrelated spaces: their products are numbers that look like scores and mean
nothing. So a model must have the digest that is kept with the index, and repeat its canaries, before anything
is searched. What is open is one version of the index, and stays that one whatever happens to its folder.
Imports no torch.

Shape suffixes: Q = queries, N = passages (rows of vectors), M = documents, D = size of a vector, K = hits.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any, NamedTuple
from weakref import WeakSet

import numpy as np

from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.embed.canary_vectors import (
    CANARIES,
    FIRST,
    Canaries,
    Embedder,
    check_canaries,
    compare_canaries,
)
from adaptkit.embed.faiss_vectors import read_faiss, vectors_from_faiss
from adaptkit.embed.field_values import FieldValues, Filter
from adaptkit.embed.fusion import Fusion
from adaptkit.embed.index_folder import ADDED, ADDED_DOCUMENTS, EXACT, FAISS, GONE, INFO, current
from adaptkit.embed.retrieval_metrics import ranked_places
from adaptkit.embed.stored_documents import FILE, OLD_FILE, Document, StoredDocuments
from adaptkit.errors import DataError, ModelError
from adaptkit.run import read_json, read_sealed
from adaptkit.seal import check_listed

BLOCK_SCORES = 1 << 24
"""Scores held at once by an exact search: 64 MB."""
WORDS_AND_VECTORS = Fusion("reciprocal rank")
"""How an index with words ranks: no scale of scores has to be learnt."""


class Hit(NamedTuple):
    """A passage that was found.

    Attributes:
        id: its document's.
        score: product of the vectors; with words, the sum of reciprocal ranks.
        start, end: its characters of the document's text.
        text: `text[start:end]`; of an index of an earlier release, how the document begins.
        fields: what is kept of the document to filter by.
    """

    id: str
    score: float
    start: int = 0
    end: int = 0
    text: str = ""
    title: str = ""
    fields: Mapping[str, Any] = {}

    @property
    def passage(self) -> str:
        """What was encoded."""
        return Document(self.id, self.text, self.title).passage((0, len(self.text)))


@dataclass(frozen=True)
class Index:
    """One version of an index: passages that can be searched, mapped from disk or held by FAISS.

    Attributes:
        folder: the version's own.
        info: digest of the model, size of the vectors, kind of index, files that were encoded.
        base, added: documents with vectors of the version that was written whole, and those that came later.
        vectors, added_vectors: float32 [N, D] of their passages; the first may be FAISS's index.
        gone: places of documents of the base that were deleted or replaced.
        canaries: None for an index of an earlier release.
    """

    folder: Path
    info: dict[str, Any]
    base: StoredDocuments
    added: StoredDocuments
    vectors: Any
    added_vectors: np.ndarray
    gone: tuple[int, ...]
    canaries: Canaries | None
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
        stored = folder / FILE
        base = StoredDocuments(stored if stored.exists() else folder / OLD_FILE)
        vectors = read_faiss(folder / FAISS) if info["faiss"] else np.load(folder / EXACT, mmap_mode="r")
        added, added_vectors = StoredDocuments(), np.zeros((0, info["dimensions"]), np.float32)
        gone: tuple[int, ...] = ()
        if (folder / ADDED).exists():
            added, added_vectors = StoredDocuments(folder / ADDED_DOCUMENTS), np.load(folder / ADDED)
            gone = tuple(read_json(folder / GONE))
        canaries = None
        if (folder / CANARIES).exists():
            canaries = Canaries.model_validate(read_json(folder / CANARIES))
        return cls(folder, info, base, added, vectors, added_vectors, gone, canaries)

    @cached_property
    def all_ids(self) -> list[str]:
        """Of all documents [M], those that are gone among them."""
        return [*self.base.ids, *self.added.ids]

    @cached_property
    def field_values(self) -> FieldValues:
        """Of all documents."""
        return FieldValues([*self.base.fields, *self.added.fields])

    @cached_property
    def there(self) -> np.ndarray:
        """Which documents are not gone, bool [M]."""
        there_M = np.ones(len(self.all_ids), bool)
        there_M[list(self.gone)] = False
        return there_M

    @cached_property
    def first_rows(self) -> np.ndarray:
        """The first passage of each document, and the number of passages, int [M + 1]."""
        counts = [len(spans) for spans in (*self.base.spans, *self.added.spans)]
        return np.concatenate([[0], np.cumsum(counts, dtype=np.int64)]).astype(np.int64)

    @cached_property
    def documents_of_rows(self) -> np.ndarray:
        """The document of each passage, int [N]."""
        return np.repeat(np.arange(len(self.all_ids)), np.diff(self.first_rows))

    @cached_property
    def places(self) -> dict[str, int]:
        """id -> place among all documents, of those that are not gone."""
        ids = self.all_ids
        return {ids[place]: int(place) for place in np.flatnonzero(self.there)}

    @property
    def ids(self) -> list[str]:
        """Of the documents that can be found."""
        return list(self.places)

    @property
    def num_base_passages(self) -> int:
        """Those that are gone among them."""
        return int(self.first_rows[len(self.base)])

    @property
    def keeps_texts(self) -> bool:
        """Whether it holds whole documents; one of an earlier release does not."""
        return (self.folder / FILE).exists()

    def document(self, place: int) -> Document:
        """The document at a place among all."""
        return self.base[place] if place < len(self.base) else self.added[place - len(self.base)]

    def documents(self) -> Iterator[Document]:
        """Those that can be found."""
        return (self.document(place) for place in self.places.values())

    def search(
        self,
        embedder: Embedder,
        queries: Sequence[str],
        k: int = 10,
        *,
        filter: Filter | None = None,
        every_passage: bool = False,
    ) -> list[list[Hit]]:
        """The k best documents of each query, each by its best passage; equal scores by descending id.

        Args:
            embedder: an Encoder, or a server's model.
            filter: field -> values, one of which a document must have; all fields must fit.
            every_passage: rank passages, so that a document may be found several times.
        Raises: ModelError as `check`, DataError for a field that no document has.
        """
        self.check(embedder)
        size, texts = self.info["dimensions"], list(queries)
        allowed_M = self.there & self.field_values.allowed(filter or {})
        if embedder.digest or self.canaries is None:
            vectors_QD = embedder.encode_queries(texts, size)
        else:
            # Behind a server's name another model may stand by now: one request, one model, which shows
            # itself.
            shown_QD = embedder.encode_queries([self.canaries.texts[FIRST], *texts], size)
            compare_canaries(self.canaries, [FIRST], shown_QD[:1], embedder, str(self.folder))
            vectors_QD = shown_QD[1:]
        scored = self._scored(vectors_QD, k, allowed_M)
        if self.info.get("words"):
            scored = map(self._with_words, texts, scored)
        return [self._hits(scores_N, k, every_passage) for scores_N in scored]

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

    def nearest(self, queries_QD: np.ndarray, k: int) -> list[list[Hit]]:
        """The k best documents of each query vector, by vectors alone."""
        return [self._hits(scores_N, k) for scores_N in self._scored(queries_QD, k, self.there)]

    def vectors_of(self, place: int) -> np.ndarray:
        """The vectors of the document at a place among all, float32 [passages, D].

        Raises: DataError for a kind of FAISS index that cannot give them back.
        """
        first, last = self.first_rows[place : place + 2].tolist()
        split = self.num_base_passages
        if first >= split:
            return self.added_vectors[first - split : last - split]
        if not self.info["faiss"]:
            return np.asarray(self.vectors[first:last])
        return vectors_from_faiss(self.vectors, range(first, last), self.info["faiss"], str(self.folder))

    def _scored(self, queries_QD: np.ndarray, k: int, allowed_M: np.ndarray) -> Iterator[np.ndarray]:
        """The score of every passage [N] for each query; -inf where a document is not allowed, or FAISS has
        not found it."""
        allowed_N = allowed_M[self.documents_of_rows]
        block = max(1, BLOCK_SCORES // max(1, len(allowed_N)))
        for start in range(0, len(queries_QD), block):
            block_QD = np.ascontiguousarray(queries_QD[start : start + block], np.float32)
            added = block_QD @ self.added_vectors.T
            if self.info["faiss"]:
                base = (self._by_faiss(query_D, k, allowed_N) for query_D in block_QD)
            else:
                base = iter(block_QD @ self.vectors.T)
            for scores_N, more_N in zip(base, added, strict=True):
                yield np.where(allowed_N, np.concatenate([scores_N, more_N]), -np.inf)

    def _by_faiss(self, query_D: np.ndarray, k: int, allowed_N: np.ndarray) -> np.ndarray:
        """Scores of the base's passages: FAISS is asked for more until k documents are among the allowed."""
        num = self.num_base_passages
        scores_N, depth = np.full(num, -np.inf, np.float32), min(num, 2 * k)
        while num:
            found, places = self.vectors.search(query_D[None], depth)
            rows = places[0][places[0] >= 0]
            scores_N[rows] = found[0][places[0] >= 0]
            allowed = rows[allowed_N[rows]]
            if depth == num or len(np.unique(self.documents_of_rows[allowed])) >= k:
                break
            depth = min(num, 4 * depth)
        return scores_N

    @cached_property
    def _bm25(self) -> tuple[Bm25, np.ndarray]:
        """The words of all passages that are there, and which rows these are."""
        rows_N = np.flatnonzero(self.there[self.documents_of_rows])
        return Bm25([text for document in self.documents() for text in document.passages()]), rows_N

    def _with_words(self, query: str, vectors_N: np.ndarray) -> np.ndarray:
        """Fuse the scores of the passages that are allowed with those of their words."""
        index, rows = self._bm25
        words_N = np.zeros(len(vectors_N))
        words_N[rows] = index.scores(content_terms(query))
        fused_N, allowed = np.full(len(vectors_N), -np.inf), np.isfinite(vectors_N)
        fused_N[allowed] = WORDS_AND_VECTORS.scores(words_N[allowed], vectors_N[allowed])
        return fused_N

    def _hits(self, scores_N: np.ndarray, k: int, every_passage: bool = False) -> list[Hit]:
        if every_passage:
            rows = [int(row) for row in np.argsort(-scores_N, kind="stable")[:k]]
        else:
            rows = self._best_rows(scores_N, k)
        found = [row for row in rows if scores_N[row] > -np.inf]
        return [self._hit(row, float(scores_N[row])) for row in found]

    def _best_rows(self, scores_N: np.ndarray, k: int) -> list[int]:
        """The best passage of each of the k best documents."""
        first = self.first_rows
        if not len(scores_N):
            return []
        places = ranked_places(np.maximum.reduceat(scores_N, first[:-1]), self.all_ids, k)
        return [int(first[at] + scores_N[first[at] : first[at + 1]].argmax()) for at in places]

    def _hit(self, row: int, score: float) -> Hit:
        place = int(np.searchsorted(self.first_rows, row, side="right")) - 1
        document = self.document(place)
        start, end = document.spans[row - int(self.first_rows[place])]
        text = document.text[start:end] if self.keeps_texts else document.text
        return Hit(document.id, score, start, end, text, document.title, document.fields)
