"""Passages in a prompt: which retriever finds them, how many are tried, and how many fit.

Question and answer get their room first. Passages follow in the order in which they were found; one that does
not fit whole is cut where a sentence ends, and nothing is looked at behind it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from typing import Any, Literal, Protocol

from adaptkit.data.bm25 import content_terms
from adaptkit.data.cutting import sentence_starts
from adaptkit.data.readers import Row
from adaptkit.finetune.prompt_formats import Choices, Format, formats
from adaptkit.finetune.prompt_template import Prompt, Question

Retriever = Literal["bm25", "encoder", "fused"]
NUM_PASSAGES = (3, 1, 5)
"""Passages tried, in this order."""
LINE = 160
"""Characters of a passage's first line that an item row shows."""


@dataclass(frozen=True)
class Lookup:
    """One way to look things up: the retriever, and how many passages it gives at most."""

    retriever: Retriever
    passages: int


@dataclass(frozen=True)
class Setting:
    """What a trial of a prompted arm tries: a format, and a way to look things up where it does."""

    fmt: Format
    lookup: Lookup | None = None

    @property
    def num_passages(self) -> int:
        return self.lookup.passages if self.lookup else 0

    @property
    def fields(self) -> dict[str, Any]:
        """For the record of trials."""
        return asdict(self.fmt) if self.lookup is None else {**asdict(self.fmt), **asdict(self.lookup)}


class Finder(Protocol):
    """Finds passages."""

    @property
    def retrievers(self) -> Sequence[Retriever]:
        """What it finds them by, the one that is tried first before the others."""

    @property
    def flops(self) -> float:
        """What encoding has taken until now."""

    def find(self, questions: Sequence[str], items: Sequence[Row], lookup: Lookup) -> list[list[str]]:
        """The passages of each question, best first; none that is part of the item itself.

        Args:
            items: the rows that the questions come from.
        """


def settings(trials: int, choices: Choices, finder: Finder | None) -> list[Setting]:
    """The first `trials` settings of a prompted arm."""
    return with_lookups(formats(trials, choices), trials, finder)


def with_lookups(tried: Sequence[Format], trials: int, finder: Finder | None) -> list[Setting]:
    """Formats in their own order, and where passages are looked up, numbers of passages and retrievers in
    turns with them, as many as `trials`."""
    if finder is None:
        return [Setting(fmt) for fmt in tried]
    lookups = list(_lookups(finder.retrievers))
    distinct: dict[Setting, None] = {}
    for turn in range(len(lookups)):
        for number, fmt in enumerate(tried):
            distinct[Setting(fmt, lookups[(turn + number) % len(lookups)])] = None
            if len(distinct) == trials:
                return list(distinct)
    return list(distinct)


def first_lookup(finder: Finder) -> Lookup:
    """The way to look things up that is tried first."""
    return next(_lookups(finder.retrievers))


def _lookups(retrievers: Sequence[Retriever]) -> Iterator[Lookup]:
    """Every number with every retriever, such that neighbours differ in both."""
    for turn in range(len(retrievers)):
        for number, count in enumerate(NUM_PASSAGES):
            yield Lookup(retrievers[(turn + number) % len(retrievers)], count)


def with_passages(prompt: Prompt, question: Question, passages: Sequence[str]) -> Question:
    """A question with as many of these passages before it as its prompt has room for."""
    question = prompt.fitted(question)
    for passage in passages:
        text = fitting_part(passage, partial(_fits_behind, prompt, question))
        if text:
            question = replace(question, passages=(*question.passages, text))
        if text != passage:
            break
    return question


def asked_with_passages(
    prompt: Prompt,
    questions: Sequence[Question],
    items: Sequence[Row],
    finder: Finder | None,
    setting: Setting,
) -> list[Question]:
    """Questions with what the setting looks up for them; as they are where it looks nothing up."""
    if finder is None or setting.lookup is None:
        return list(questions)
    found = finder.find([question.whole for question in questions], items, setting.lookup)
    pairs = zip(questions, found, strict=True)
    return [with_passages(prompt, question, passages) for question, passages in pairs]


def _fits_behind(prompt: Prompt, question: Question, text: str) -> bool:
    """Whether a prompt has room for one more passage behind those of its question."""
    return prompt.fits(replace(question, passages=(*question.passages, text)))


def fitting_part(passage: str, fits: Callable[[str], bool]) -> str:
    """A passage, or as many of its first sentences as fit; empty where not one does."""
    if fits(passage):
        return passage
    parts = [passage[:start].strip() for start in sentence_starts(passage)]
    fitting, too_long = 0, len(parts)  # parts[0] is empty
    while too_long - fitting > 1:
        middle = (fitting + too_long) // 2
        if fits(parts[middle]):
            fitting = middle
        else:
            too_long = middle
    return parts[fitting]


def support(text: str, passages: Sequence[str]) -> float:
    """Share of a text's distinct content words that stand in one of the passages; 0 for a text without any.

    Content words are those that a search looks at: English stop words and single letters do not count.
    """
    words = set(content_terms(text))
    seen = {word for passage in passages for word in content_terms(passage)}
    return len(words & seen) / len(words) if words else 0.0


def passage_facts(question: str, passages: Sequence[str], reference: str, prediction: str) -> dict[str, Any]:
    """What an item row says of its passages: first lines, how far they support the answer (`support`), and
    how much of the reference was to be found in them (`found`)."""
    return {
        "question": question,
        "passages": [passage.strip().partition("\n")[0][:LINE] for passage in passages],
        "support": support(prediction, passages),
        "found": support(reference, passages),
    }
