"""Bring an index to another model while the old version answers, and switch when the new one is whole.

    prepared = prepare("index", Encoder.load("models/new"))        # encodes; goes on after a kill
    overlap = overlap_of(prepared.old, prepared.new)               # how much both find in common
    switch(prepared.folder, prepared.new.folder)                   # one step

The documents are those that the index holds, cut anew for the new model where they are long. Overlap says how
much a change of models changes, not which of them is better: that takes judged queries (`adaptkit embed
evaluate`).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from adaptkit.data.files import find_files
from adaptkit.disk import remove
from adaptkit.embed.canary_vectors import Embedder
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import beginning, documents, encode_documents
from adaptkit.embed.index import Hit, Index
from adaptkit.embed.index_folder import next_folder, versions
from adaptkit.embed.index_writing import write_version
from adaptkit.errors import DataError, ModelError
from adaptkit.run import digest

SAMPLE = 200
"""Documents whose neighbours are compared where no questions are given."""
DEPTH = 10
"""Of each result, what is compared."""
DRAWS = 1000


@dataclass(frozen=True)
class Prepared:
    """An index with a whole version of another model, which does not answer yet.

    Attributes:
        num_encoded: documents that were encoded for it; 0 where that version was there.
    """

    folder: Path
    old: Index
    new: Index
    num_encoded: int


@dataclass(frozen=True)
class Overlap:
    """How much two versions find in common.

    Attributes:
        asked: what was asked for, in words.
        shares: of each question, the part of the best that both found, 0 to 1.
        questions: in the order of `shares`.
        depth: documents of a result that were compared.
        by_chance: the part that two random choices of so many documents have in common.
    """

    asked: str
    shares: tuple[float, ...]
    questions: tuple[str, ...]
    depth: int
    by_chance: float

    @property
    def mean(self) -> float:
        return float(np.mean(self.shares))

    @property
    def beyond_chance(self) -> float:
        """What is in common of what need not be: 1 for the same results, 0 for chance, and for less."""
        if self.by_chance >= 1:
            return 1.0
        return max(0.0, (self.mean - self.by_chance) / (1 - self.by_chance))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over questions like these (bootstrap)."""
        draws = np.random.default_rng(0).choice(self.shares, (DRAWS, len(self.shares))).mean(axis=1)
        low, high = np.quantile(draws, (0.025, 0.975))
        return float(low), float(high)

    def least(self, count: int = 3) -> list[tuple[str, float]]:
        """The questions whose results have least in common."""
        order = np.argsort(self.shares, kind="stable")[:count]
        return [(self.questions[place], self.shares[place]) for place in order]


def prepare(folder: str | Path, encoder: Encoder, *, dimensions: int = 0) -> Prepared:
    """Encode an index's documents with another model into a version beside the one that answers.

    Args:
        dimensions: Matryoshka size of the new vectors; 0 is what the model gives.
    Raises: DataError for an index of an earlier release, which holds no documents; ModelError for a model
        whose vectors cannot be searched.
    """
    folder = Path(folder).resolve()
    old, size = Index.open(folder), dimensions or encoder.size
    encoder.check_products()
    if _is_of(old, encoder, size):
        return Prepared(folder, old, old, 0)
    for version in versions(folder):
        try:
            kept = Index.open_version(version)
        except DataError:  # damaged: encoded again
            continue
        if _is_of(kept, encoder, size) and kept.info.get("files") == old.info.get("files"):
            kept.check(encoder)
            return Prepared(folder, old, kept, 0)
    check_keeps_texts(old)
    out = next_folder(folder, digest([encoder.digest, size, old.info["files"]]))
    encoding = encode_documents(
        encoder,
        old.documents(),
        out,
        old.info["files"],
        sources=old.info["sources"],
        prompt=encoder.layout.prompt_if_any("document"),
        dimensions=size,
        whole=old.info["whole"],
        total=len(old.ids),
    )
    kind = {name: old.info[name] for name in ("faiss", "words")}
    new = Index.open_version(write_version(encoding, folder, **kind))
    new.check(encoder)
    remove(out)
    return Prepared(folder, old, new, len(new.ids))


def check_keeps_texts(index: Index) -> None:
    """Raises: DataError for an index of an earlier release, which can be searched and no more."""
    if not index.keeps_texts:
        what = "holds no documents: an earlier release made it"
        fix = "encode and index them once more with this release: adaptkit embed encode, then index"
        raise DataError(what, where=str(index.folder), fix=fix)


def _is_of(index: Index, encoder: Encoder, size: int) -> bool:
    return index.info["model"] == encoder.digest and index.info["dimensions"] == size


def overlap_of(old: Index, new: Index) -> Overlap:
    """Compare the neighbours of a sample of documents, found by the vectors of their first passages: that
    needs neither model.

    Raises: DataError for an index of one document, or a FAISS index that does not give vectors back.
    """
    names = old.ids
    depth = min(DEPTH, len(names) - 1)
    if depth < 1:
        fix = "give questions: --queries FILE"
        raise DataError("holds one document, which has no neighbours", where=str(old.folder), fix=fix)
    places = np.unique(np.linspace(0, len(names) - 1, min(SAMPLE, len(names))).astype(int)).tolist()
    asking = [names[place] for place in places]
    found = []
    for index in (old, new):
        vectors_QD = np.stack([index.vectors_of(index.places[name])[0] for name in asking])
        hits = index.nearest(vectors_QD, depth + 1)
        found.append([_without(row, name, depth) for row, name in zip(hits, asking, strict=True)])
    asked = f"{len(asking):,} documents, each asking by its own vector"
    questions = [beginning(old.document(old.places[name]).passages()[0]) or name for name in asking]
    return _overlap(asked, questions, *found, depth=depth, others=len(names) - 1)


def _without(hits: list[Hit], name: str, depth: int) -> list[str]:
    """What was found but the document that asked."""
    return [hit.id for hit in hits if hit.id != name][:depth]


def overlap_on(
    old: Index, old_embedder: Embedder, new: Index, new_embedder: Embedder, files: Sequence[str]
) -> Overlap:
    """Compare what both versions find for the questions of some files (`text`, as in BEIR's queries.jsonl).

    Raises: DataError for files without questions; ModelError where an embedder is not its version's.
    """
    questions = [text for _, text in documents(find_files(list(files))[0])]
    if not questions:
        fix = "give rows with `text`, a question each"
        raise DataError("holds no questions", where=", ".join(files), fix=fix)
    depth = min(DEPTH, len(old.ids))
    found = [
        [[hit.id for hit in row] for row in index.search(embedder, questions, depth)]
        for index, embedder in ((old, old_embedder), (new, new_embedder))
    ]
    asked = f"{len(questions):,} questions"
    return _overlap(asked, questions, *found, depth=depth, others=len(old.ids))


def _overlap(
    asked: str,
    questions: Sequence[str],
    old: list[list[str]],
    new: list[list[str]],
    *,
    depth: int,
    others: int,
) -> Overlap:
    shares = [len(set(one) & set(other)) / depth for one, other in zip(old, new, strict=True)]
    return Overlap(asked, tuple(shares), tuple(questions), depth, by_chance=depth / others)


def check_overlap(overlap: Overlap, least: float, folder: Path) -> None:
    """Raises: ModelError where two versions have so little in common that nobody should switch unasked."""
    if overlap.beyond_chance >= least:
        return
    what = (
        f"the new version finds {overlap.mean:.0%} of what the old one finds, and chance "
        f"{overlap.by_chance:.0%}: {overlap.beyond_chance:.2f} beyond chance is less than --overlap {least:g}"
        ", and the old one goes on answering"
    )
    below = math.floor(100 * overlap.beyond_chance) / 100
    fix = f"look at what has least in common (above), then switch with --overlap {below:.2f}"
    raise ModelError(what, where=str(folder), fix=f"{fix}: nothing is encoded again")
