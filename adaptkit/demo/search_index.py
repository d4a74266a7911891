"""Search a sample of the domain's passages: by their words, or by vectors of any served embedding model."""

from __future__ import annotations

import hashlib
import threading
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.client.openai import CUT, Client, prompt_option
from adaptkit.data import DataConfig, read
from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.disk import whole_file
from adaptkit.errors import DataError
from adaptkit.prompt_names import DOCUMENT, QUERY
from adaptkit.serve import api_keys

MOST_PASSAGES, MAX_PASSAGE_CHARS, BATCH = 400, 600, 32
PROBE = "The same sentence always gets the same vector from the same model."

Passages = Sequence[tuple[str, str]]
"""(name, text)."""


@dataclass(frozen=True)
class Hit:
    """A passage near to the query; `similarity` is a cosine, or a BM25 score where words were searched."""

    name: str
    text: str
    similarity: float


def from_file(path: Path) -> Passages:
    """Read passages of a text, JSONL, Parquet or CSV file.

    Raises: DataError or ConfigError where it holds no text.
    """
    rows = read(DataConfig(files=[str(path)]), "text").rows
    if not rows:
        raise DataError("holds no text", where=str(path), fix="give a file with text to search in")
    return [(row.where, row.text) for row in rows]


def sample(documents: Passages) -> Passages:
    """Draw at most 400 passages evenly, and cut them to 600 characters."""
    step = max(1.0, len(documents) / MOST_PASSAGES)
    picked = [documents[int(i * step)] for i in range(min(len(documents), MOST_PASSAGES))]
    return [(name, text.strip()[:MAX_PASSAGE_CHARS]) for name, text in picked if text.strip()]


@dataclass
class Index:
    """Vectors of the passages, per model, kept in memory and in the user's state folder.

    The name of a file is a digest of what it was made from: the passages, and the model's vector of a fixed
    sentence, so that another model behind the same name gets vectors of its own.

    Attributes:
        num_all: passages that these were drawn from.
        num_cut: of these, how many are longer than what is searched of them.
    """

    passages: Passages
    num_all: int = 0
    num_cut: int = 0
    _vectors: dict[str, np.ndarray] = field(default_factory=dict)
    _words: Bm25 | None = None
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @classmethod
    def of(cls, documents: Passages) -> Index:
        """Take at most 400 passages of some documents, evenly drawn, each by its first 600 characters."""
        passages = sample(documents)
        kept = {name for name, _ in passages}
        num_cut = sum(name in kept and len(text.strip()) > MAX_PASSAGE_CHARS for name, text in documents)
        return cls(passages, len(documents), num_cut)

    def sampled(self) -> str:
        """What is not searched, a clause; empty where all is."""
        parts = []
        if self.num_all > len(self.passages):
            parts.append(f"drawn evenly from {self.num_all:,}")
        if self.num_cut:
            parts.append(f"{self.num_cut:,} of them by their first {MAX_PASSAGE_CHARS} characters alone")
        return "".join(f", {part}" for part in parts)

    def fill(self, client: Client, model: str, prompts: Sequence[str] = ()) -> Iterator[int]:
        """Make the vectors of all passages; yields how many there are. Nothing is made twice.

        Args:
            prompts: names of the model's prompts, as its server lists them.
        Raises: ServerError.
        """
        with self._lock:
            options = {**CUT, **prompt_option(DOCUMENT, prompts)}
            key = self._key(client, model, options)
            if key in self._vectors:
                return
            stored = _load(key, len(self.passages))
            if stored is not None:
                self._vectors[key] = stored
                return
            rows: list[list[float]] = []
            for start in range(0, len(self.passages), BATCH):
                texts = [text for _, text in self.passages[start : start + BATCH]]
                rows += client.embed(model, texts, **options)
                yield len(rows)
            self._vectors[key] = _unit(np.array(rows, np.float32))
            _save(key, self._vectors[key])

    def nearest(
        self, client: Client, model: str, query: str, prompts: Sequence[str] = (), count: int = 5
    ) -> list[Hit]:
        """Find the passages closest to `query`, best first; `fill` with the same prompts comes first."""
        of_documents, of_query = prompt_option(DOCUMENT, prompts), prompt_option(QUERY, prompts)
        vectors_ND = self._vectors[self._key(client, model, {**CUT, **of_documents})]
        embedded = client.embed(model, [query], **CUT, **of_query)
        similar_N = vectors_ND @ _unit(np.array(embedded, np.float32))[0]
        order = np.argsort(-similar_N, kind="stable")[:count]
        return [self._hit(int(i), float(similar_N[i])) for i in order]

    def by_words(self, query: str, count: int = 5) -> list[Hit]:
        """Find the passages that share the most telling words with `query`, best first; none without any."""
        with self._lock:
            if self._words is None:
                self._words = Bm25([text for _, text in self.passages])
        scores_N = self._words.scores(content_terms(query))
        order = np.argsort(-scores_N, kind="stable")[:count]
        return [self._hit(int(i), float(scores_N[i])) for i in order if scores_N[i] > 0]

    def _hit(self, place: int, similarity: float) -> Hit:
        name, text = self.passages[place]
        return Hit(name, text, similarity)

    def _key(self, client: Client, model: str, options: Mapping[str, Any]) -> str:
        digest = hashlib.sha256(f"{model}\n".encode())
        digest.update(np.round(np.array(client.embed(model, [PROBE], **options), np.float32), 3).tobytes())
        for name, text in self.passages:
            digest.update(f"{name}\n{text}\n".encode("utf-8", "replace"))
        return digest.hexdigest()[:24]


def _unit(vectors_ND: np.ndarray) -> np.ndarray:
    return vectors_ND / np.maximum(np.linalg.norm(vectors_ND, axis=1, keepdims=True), 1e-12)


def _path(key: str) -> Path:
    return api_keys.state_folder() / "vectors" / f"{key}.npy"


def _load(key: str, count: int) -> np.ndarray | None:
    """Read vectors stored by an earlier start; None where there are none, or not as many as there must be."""
    try:
        vectors_ND = np.load(_path(key), allow_pickle=False)
    except (OSError, ValueError):
        return None
    if vectors_ND.ndim != 2 or len(vectors_ND) != count:
        return None
    return vectors_ND


def _save(key: str, vectors_ND: np.ndarray) -> None:
    path = _path(key)
    path.parent.mkdir(exist_ok=True, mode=0o700)
    with whole_file(path, vectors_ND.nbytes) as temporary, temporary.open("wb") as file:
        np.save(file, vectors_ND, allow_pickle=False)


def in_both(left: Sequence[Hit], right: Sequence[Hit]) -> set[str]:
    """Name the passages that stand in both lists."""
    return {hit.name for hit in left} & {hit.name for hit in right}
