"""Look up passages for a prompt: by BM25, by an encoder, or by both fused.

Passages are those that text is judged in (`data.drawing`): at most 1,024 bytes, from line to line. One that
holds a tenth of an item, as overlap with a test is measured, or its question and its answer word for word, is
that item's own row and never found for it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence

import numpy as np

from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.data.drawing import passages
from adaptkit.data.overlap import overlap
from adaptkit.data.readers import DataConfig, Dataset, Row, read
from adaptkit.data.words import words
from adaptkit.embed.encoder import Encoder
from adaptkit.embed.fusion import FUSING
from adaptkit.errors import DataError
from adaptkit.finetune.prompt_passages import Lookup, Retriever
from adaptkit.finetune.prompt_template import question_and_answer
from adaptkit.notices import silent
from adaptkit.study.rag import Library

DEPTH = 50
"""Passages of a ranking that are looked at: the item's own are left out, and rankings are fused."""
SHORTEST_QUESTION = 3
"""Words of a question that make a passage with it and its answer a copy: of fewer, any text may hold both."""


class PassageFinder:
    """Passages of a library, found for questions; counts what encoding takes.

    Attributes:
        passages: all there are, each once.
    """

    def __init__(self, library: Library):
        rows = read(DataConfig(files=[str(library.collection)]), "text", tell=silent).rows
        self.passages = list(dict.fromkeys(text for row in rows for text in sorted(passages(row.text))))
        if not self.passages:
            raise DataError("no passage to look up", where=str(library.collection), fix="give more text")
        self._rows = [Row({"text": text}, "", str(i)) for i, text in enumerate(self.passages)]
        self._bm25 = Bm25(self.passages)
        self._encoder = Encoder.load(library.encoder) if library.encoder is not None else None
        self._vectors: np.ndarray | None = None
        self._rankings: dict[tuple[str, Retriever], list[int]] = {}
        self._spaced: dict[int, str] = {}
        self._suspects: dict[str, frozenset[int]] = {}

    @property
    def retrievers(self) -> Sequence[Retriever]:
        return ("bm25",) if self._encoder is None else ("fused", "bm25", "encoder")

    @property
    def flops(self) -> float:
        return 0.0 if self._encoder is None else self._encoder.flops

    def find(self, questions: Sequence[str], items: Sequence[Row], lookup: Lookup) -> list[list[str]]:
        """The passages of each question, best first; none that is part of the item itself."""
        self._rank(questions, lookup.retriever)
        suspects = self._held_by_any(items)
        found = []
        for question, item in zip(questions, items, strict=True):
            ranking = self._rankings[question, lookup.retriever]
            own = self._own(item, [number for number in ranking if number in suspects])
            own |= self._copies(item, ranking)
            others = [number for number in ranking if number not in own]
            found.append([self.passages[number] for number in others[: lookup.passages]])
        return found

    def _rank(self, questions: Sequence[str], retriever: Retriever) -> None:
        """Rank passages for the questions that are new."""
        new = [text for text in dict.fromkeys(questions) if (text, retriever) not in self._rankings]
        if not new:
            return
        if retriever == "fused":
            for part in ("bm25", "encoder"):
                self._rank(new, part)
            for text in new:
                rankings = [self._rankings[text, "bm25"], self._rankings[text, "encoder"]]
                self._rankings[text, retriever] = fused(rankings)
        elif retriever == "bm25":
            for text in new:
                self._rankings[text, retriever] = best(self._bm25.scores(content_terms(text)), above=0.0)
        else:
            for text, scores in zip(new, self._encoded(new), strict=True):
                self._rankings[text, retriever] = best(scores)

    def _encoded(self, questions: Sequence[str]) -> np.ndarray:
        """Products of questions and passages, float [num_questions, num_passages]."""
        encoder = self._encoder
        assert encoder is not None
        prompts = {name: encoder.layout.prompt_if_any(name) for name in ("query", "document")}
        if self._vectors is None:
            self._vectors = encoder.encode_to_rank(self.passages, prompt=prompts["document"])
        products: np.ndarray = encoder.encode_to_rank(questions, prompt=prompts["query"]) @ self._vectors.T
        return products

    def _held_by_any(self, items: Sequence[Row]) -> frozenset[int]:
        """The passages that hold a tenth of some of these items."""
        key = Dataset(list(items), "text", {}).digest
        if key not in self._suspects:
            held = overlap(self._rows, Dataset(list(items), "text", {})).train_ids
            self._suspects[key] = frozenset(map(int, held))
        return self._suspects[key]

    def _own(self, item: Row, suspects: Sequence[int]) -> frozenset[int]:
        """Those of a few passages that hold a tenth of this item."""
        if not suspects:
            return frozenset()
        rows = [self._rows[number] for number in suspects]
        return frozenset(map(int, overlap(rows, Dataset([item], "text", {})).train_ids))

    def _copies(self, item: Row, numbers: Sequence[int]) -> frozenset[int]:
        """Those of a few passages that hold an item's question and answer word for word, however short."""
        if "text" in item.values:
            return frozenset()
        question, answer = question_and_answer(item)
        asked, answered = (_spaced(text) for text in (question.text, answer))
        if len(asked.split()) < SHORTEST_QUESTION or not answered.strip():
            return frozenset()
        held = (number for number in numbers if asked in self._words(number))
        return frozenset(number for number in held if answered in self._words(number))

    def _words(self, number: int) -> str:
        """A passage's words between blanks."""
        if number not in self._spaced:
            self._spaced[number] = _spaced(self.passages[number])
        return self._spaced[number]


def _spaced(text: str) -> str:
    return f" {' '.join(words(text))} "


def best(scores: np.ndarray, above: float = -np.inf) -> list[int]:
    """Places of the DEPTH highest scores, highest first, equal ones in order; none that is not above a
    bound."""
    order = np.argsort(-scores, kind="stable")[:DEPTH]
    return [int(place) for place in order if scores[place] > above]


def fused(rankings: Sequence[Sequence[int]]) -> list[int]:
    """One ranking of several, by the sum of reciprocal ranks."""
    total: dict[int, float] = defaultdict(float)
    for ranking in rankings:
        for rank, place in enumerate(ranking, 1):
            total[place] += 1 / (FUSING + rank)
    return sorted(total, key=lambda place: (-total[place], place))[:DEPTH]
