"""Questions that a passage answers: pairs to learn retrieval from where nobody has asked yet.

Such pairs are doc2query's (arXiv 1904.08375) and GPL's (2112.07577); that a question must find its own
passage again is Promptagator's filter (2209.11755).
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from adaptkit.data.bm25 import Bm25, content_terms
from adaptkit.data.words import words
from adaptkit.embed.encoder import Encoder
from adaptkit.synthesis.generators import Written
from adaptkit.synthesis.kind import (
    BEYOND,
    COPIED,
    CUT,
    MARK,
    TOO_LONG,
    RowsKind,
    filled,
    num_english_words,
    stands_in,
    without_thoughts,
)
from adaptkit.synthesis.synthetic_rows import Candidate, Passage, Request

LONGEST = 40
"""Words of a question; more are no question."""


class Questions(RowsKind):
    """Pairs of a question and its passage, which `embed train` and kind `retrieve` read.

    Args:
        passages: all that a question could find.
        top: among so many found first its own passage must be.
        encoder: finds passages in place of BM25.
    """

    name, roles = "questions", ("anchor", "positive")
    tokens_per_row = 60
    default_prompt = """\
Write {count} different questions that a person might type into a search engine and that the text below
answers. Use other words than the text where you can. One question per line, nothing else.

Text:
{text}

Questions:
"""

    def __init__(
        self,
        count: int,
        passages: Sequence[Passage],
        *,
        prompt: str | None = None,
        top: int = 10,
        encoder: Encoder | None = None,
    ):
        super().__init__(count, prompt)
        self.rows_per_answer, self.top, self.encoder = count, top, encoder
        self._texts = [passage.text for passage in passages]
        self._places = {text: place for place, text in enumerate(self._texts)}
        by = "BM25" if encoder is None else "the encoder"
        self.judge = f"{by} finds the passage among the first {top} of {len(passages):,}"

    def requests(self, passage: Passage) -> list[Request]:
        parts = {"count": str(self.count), "text": passage.text}
        return [Request(passage, filled(self.prompt, parts))]

    def candidates(self, request: Request, written: Written) -> list[Candidate]:
        questions = questions_of(written.text)
        rows = []
        for number, question in enumerate(questions):
            fault = ""
            if number >= self.count:
                fault = BEYOND
            elif written.cut and number == len(questions) - 1:
                fault = CUT
            elif num_english_words(question) > LONGEST:
                fault = TOO_LONG
            elif stands_in(question, request.passage.text):
                fault = COPIED
            values = {"anchor": question, "positive": request.passage.text}
            rows.append(Candidate(request, values, question, fault))
        return rows

    def round_trip(self, candidates: Sequence[Candidate]) -> list[str]:
        questions = [candidate.values["anchor"] for candidate in candidates]
        faults = []
        for candidate, scores in zip(candidates, self._scores(questions), strict=True):
            own = scores[self._places[candidate.request.passage.text]]
            better = int((scores > own).sum())
            lost = better >= self.top or (self.encoder is None and own <= 0)
            faults.append("do not find their passage" if lost else "")
        return faults

    def _scores(self, questions: Sequence[str]) -> list[np.ndarray]:
        """Of every passage, for each question."""
        if not questions:
            return []
        if self.encoder is None:
            index = Bm25(self._texts)
            return [index.scores(content_terms(question)) for question in questions]
        prompts = {name: self.encoder.layout.prompt_if_any(name) for name in ("query", "document")}
        vectors = self.encoder.encode_to_rank(self._texts, prompt=prompts["document"])
        return list(self.encoder.encode_to_rank(questions, prompt=prompts["query"]) @ vectors.T)


def questions_of(answer: str) -> list[str]:
    """The lines of an answer without numbers, bullets, quotes and thoughts."""
    lines = (
        MARK.sub("", line.strip()).strip().strip("\"'`") for line in without_thoughts(answer).splitlines()
    )
    return [line.strip() for line in lines if words(line)]
