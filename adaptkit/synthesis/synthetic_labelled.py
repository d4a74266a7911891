"""Labelled texts for a task, each asked for by its label, with a passage as the subject and real rows as the
style.

As in ZeroGen (arXiv 2202.07922), with examples. The round trip: word counts that learnt the real rows
must give the label that was asked for.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Sequence

from adaptkit.data.drawing import draw_hash
from adaptkit.data.readers import Row
from adaptkit.data.words import first_words
from adaptkit.errors import ConfigError, DataError, nearest
from adaptkit.study.tasks.classify import WordCountClassifier
from adaptkit.synthesis.generators import Written
from adaptkit.synthesis.kind import (
    COPIED,
    CUT,
    TOO_LONG,
    RowsKind,
    filled,
    num_english_words,
    stands_in,
    without_thoughts,
)
from adaptkit.synthesis.synthetic_rows import Candidate, Passage, Request

EXAMPLES, EXAMPLE_WORDS = 3, 80
"""Real rows of the label that a request shows, and words of each."""
TOKENS_PER_WORD = 2
OTHER_LABEL = "judged to have another label"
_NEXT = re.compile(r"^\s*(?:text|passage|examples?|label)\b[^\n:]{0,40}:", re.IGNORECASE | re.MULTILINE)


class LabelledTexts(RowsKind):
    """Texts with one label each.

    Args:
        train: real training rows, which examples are drawn from and the judge learns.
        meanings: label -> what it means; others are only named.
        hidden: ids of training rows that are never shown, as they overlap with a test.
    Raises: ConfigError for a meaning of an unknown label, DataError for rows of one label.
    """

    name, roles = "rows", ("text", "label")
    needs = ("text", "label")
    default_prompt = """\
Write one new text that belongs under the label "{label}"{meaning}. The labels are: {labels}.
Take its subject from the passage, its style and length from the examples; do not copy either, and do not name
the label. Write the text alone.

Passage:
{text}

{examples}Text:
"""

    def __init__(
        self,
        count: int,
        train: Sequence[Row],
        *,
        meanings: dict[str, str] | None = None,
        prompt: str | None = None,
        hidden: frozenset[str] = frozenset(),
    ):
        super().__init__(count, prompt)
        self.rows_per_answer = 1
        self.meanings, self.examples = meanings or {}, defaultdict[str, list[str]](list)
        self._train = [(row.text, str(row.values["label"])) for row in train]
        self.labels = sorted({label for _, label in self._train})
        if len(self.labels) < 2:
            what, fix = "the training rows have one label", "give rows of two labels or more"
            raise DataError(what, where=train[0].where, fix=fix)
        for label in self.meanings:
            if label not in self.labels:
                what = f"no training row has the label '{label}'{nearest(label, set(self.labels))}"
                raise ConfigError(what, where="--label", fix="name a label as the rows do")
        for row, (text, label) in zip(train, self._train, strict=True):
            if row.id not in hidden:
                self.examples[label].append(text)
        self._longest = max(num_english_words(text) for text, _ in self._train)
        self.judge = f"word counts of {len(train):,} training rows give the label"

    @property
    def tokens_per_row(self) -> int:  # type: ignore[override]  # of these texts, not of the kind
        return min(1024, max(32, round(TOKENS_PER_WORD * self._longest)))

    def requests(self, passage: Passage) -> list[Request]:
        order = sorted(self.labels, key=lambda label: draw_hash(f"{label} {passage.text}"))
        return [self._request(passage, order[turn % len(order)], turn) for turn in range(self.count)]

    def _request(self, passage: Passage, label: str, turn: int) -> Request:
        drawn = sorted(self.examples[label], key=lambda text: draw_hash(f"{turn} {passage.text} {text}"))
        shown = [f"Text:\n{first_words(text, EXAMPLE_WORDS)}\n\n" for text in drawn[:EXAMPLES]]
        meaning = f" ({self.meanings[label]})" if label in self.meanings else ""
        parts = {
            "text": passage.text,
            "label": label,
            "meaning": meaning,
            "labels": ", ".join(self.labels),
            "examples": "".join(shown),
        }
        return Request(passage, filled(self.prompt, parts), label)

    def candidates(self, request: Request, written: Written) -> list[Candidate]:
        text, ended = text_of(written.text)
        if not text:
            return []
        fault = ""
        if written.cut and not ended:
            fault = CUT
        elif num_english_words(text) > self._longest:
            fault = TOO_LONG
        elif stands_in(text, request.passage.text):
            fault = COPIED
        return [Candidate(request, {"text": text, "label": request.label}, text, fault)]

    def round_trip(self, candidates: Sequence[Candidate]) -> list[str]:
        if not candidates:
            return []
        judge = WordCountClassifier(self._train)
        chances_NC = judge.probabilities([row.values["text"] for row in candidates])
        said = [judge.labels[place] for place in chances_NC.argmax(axis=1)]
        pairs = zip(candidates, said, strict=True)
        return ["" if row.values["label"] == label else OTHER_LABEL for row, label in pairs]


def text_of(answer: str) -> tuple[str, bool]:
    """The text of an answer, and whether something behind it shows its end: a model that goes on writing
    begins the next example."""
    answer = re.sub(r"^\s*text\s*:", "", without_thoughts(answer), flags=re.IGNORECASE)
    end = _NEXT.search(answer)
    text = answer if end is None else answer[: end.start()]
    return text.strip().strip("\"'`").strip(), end is not None
