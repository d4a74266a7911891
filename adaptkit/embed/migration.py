"""Bring an index to another model while the old version answers, and switch when the new one is whole.

    prepared = prepare("index", Encoder.load("models/new"))        # encodes; goes on after a kill
    overlap = overlap_of(prepared.old, prepared.new)               # how much both find in common
    switch(prepared.folder, prepared.new.folder)                   # one step

The documents are read again from the files that were indexed, which must be the same to the byte. Overlap
says how much a change of models changes, not which of them is better: that takes judged queries
(`adaptkit embed evaluate`).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from adaptkit.data.files import find_files
from adaptkit.disk import remove
from adaptkit.embed.canary_vectors import Embedder
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.encoding import documents, encode_files
from adaptkit.embed.index import Index, write_version
from adaptkit.embed.index_folder import next_folder, versions
from adaptkit.errors import DataError, ModelError
from adaptkit.run import digest, file_digest

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
    """

    asked: str
    shares: tuple[float, ...]
    questions: tuple[str, ...]
    depth: int

    @property
    def mean(self) -> float:
        return float(np.mean(self.shares))

    def interval(self) -> tuple[float, float]:
        """95 % interval of the mean over questions like these (bootstrap)."""
        draws = np.random.default_rng(0).choice(self.shares, (DRAWS, len(self.shares))).mean(axis=1)
        low, high = np.quantile(draws, (0.025, 0.975))
        return float(low), float(high)

    def least(self, count: int = 3) -> list[tuple[str, float]]:
        """The questions whose results have least in common."""
        order = np.argsort(self.shares, kind="stable")[:count]
        return [(self.questions[place], self.shares[place]) for place in order]


def prepare(
    folder: str | Path, encoder: Encoder, *, files: Sequence[str] = (), dimensions: int = 0
) -> Prepared:
    """Encode an index's documents with another model into a version beside the one that answers.

    Args:
        files: where the indexed files lie now, if they were moved.
        dimensions: Matryoshka size of the new vectors; 0 is what the model gives.
    Raises: DataError where a file is gone or was changed since, or the index does not say which files it was
        made of; ModelError for a model whose vectors cannot be searched.
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
    sources = find_sources(old, files)
    out = next_folder(folder, digest([encoder.digest, size]))
    prompt = encoder.layout.prompt_if_any("document")
    encoding = encode_files(encoder, sources, out, prompt=prompt, dimensions=size, total=len(old.ids))
    if encoding.ids() != old.ids:
        fix = "let them have the names that they had, or encode and index them again"
        raise DataError("the files give other ids than those of the index", where=str(folder), fix=fix)
    new = Index.open_version(write_version(encoding, folder, faiss=old.info["faiss"]))
    new.check(encoder)
    remove(out)
    return Prepared(folder, old, new, len(new.ids))


def _is_of(index: Index, encoder: Encoder, size: int) -> bool:
    return index.info["model"] == encoder.digest and index.info["dimensions"] == size


def find_sources(index: Index, named: Sequence[str] = ()) -> list[str]:
    """The files that an index was made of, where they are the same to the byte.

    Args:
        named: files among which they are looked for by their digests; none: where they lay.
    Raises: DataError that names the file which is not as it was.
    """
    recorded: list[dict[str, Any]] = index.info.get("sources") or []
    if not recorded:
        what = "does not say which files it was made of: an earlier release made it"
        fix = "encode and index them once more with this release: adaptkit embed encode, then index"
        raise DataError(what, where=str(index.folder), fix=fix)
    by_digest = {}
    if named:
        by_digest = {file_digest(file): file for file in find_files(list(named))[0]}
    again = "or index what there is now: adaptkit embed encode, then index"
    found = []
    for row in recorded:
        place = by_digest.get(row["sha256"]) if named else Path(row["file"])
        if place is None:
            what = "is none of the files that --files names: no digest is this one's"
            raise DataError(what, where=row["file"], fix=f"name it too, {again}")
        if not place.exists():
            what = "is not there any more, and the index was made of it"
            fix = f"say by --files where it lies now, {again}"
            raise DataError(what, where=str(place), fix=fix)
        if not named and file_digest(place) != row["sha256"]:
            what = "has changed since the index was made of it"
            raise DataError(what, where=str(place), fix=f"bring back what it was, {again}")
        found.append(str(place))
    return found


def overlap_of(old: Index, new: Index) -> Overlap:
    """Compare the neighbours of a sample of documents, found by their own vectors: that needs neither model.

    Raises: DataError for an index of one document, or a FAISS index that does not give vectors back.
    """
    depth = min(DEPTH, len(old.ids) - 1)
    if depth < 1:
        fix = "give questions: --queries FILE"
        raise DataError("holds one document, which has no neighbours", where=str(old.folder), fix=fix)
    places = np.unique(np.linspace(0, len(old.ids) - 1, min(SAMPLE, len(old.ids))).astype(int)).tolist()
    names = [old.ids[place] for place in places]
    found = [
        [_without(row, name, depth) for row, name in zip(hits, names, strict=True)]
        for hits in (index.nearest(index.vectors_of(places), depth + 1) for index in (old, new))
    ]
    asked = f"{len(names):,} documents, each asking by its own vector"
    questions = [old.texts.get(name, name) for name in names]
    return _overlap(asked, questions, *found, depth=depth)


def _without(hits: list[tuple[str, float]], name: str, depth: int) -> list[str]:
    """What was found but the document that asked."""
    return [found for found, _ in hits if found != name][:depth]


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
        [[name for name, _ in row] for row in index.search(embedder, questions, depth)]
        for index, embedder in ((old, old_embedder), (new, new_embedder))
    ]
    return _overlap(f"{len(questions):,} questions", questions, *found, depth=depth)


def _overlap(
    asked: str, questions: Sequence[str], old: list[list[str]], new: list[list[str]], *, depth: int
) -> Overlap:
    shares = [len(set(one) & set(other)) / depth for one, other in zip(old, new, strict=True)]
    return Overlap(asked, tuple(shares), tuple(questions), depth)


def check_overlap(overlap: Overlap, least: float, folder: Path) -> None:
    """Raises: ModelError where two versions have so little in common that nobody should switch unasked."""
    if overlap.mean >= least:
        return
    what = (
        f"the new version finds {overlap.mean:.0%} of what the old one finds, less than --overlap {least:g}: "
        "the old one goes on answering"
    )
    below = int(100 * overlap.mean) / 100
    fix = f"look at what has least in common (above), then switch with --overlap {below:.2f}"
    raise ModelError(what, where=str(folder), fix=f"{fix}: nothing is encoded again")
