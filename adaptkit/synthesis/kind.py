"""What kind of rows a generator is asked for: one class for each.

    kind = Questions(count=3, passages=passages)
    requests = kind.requests(passage)                 # what the generator is asked
    candidates = kind.candidates(request, written)    # rows, each with what its form forbids
    faults = kind.round_trip(candidates)              # empty for a row that comes back

A round trip asks of a row what it will teach, without the generator: does the question find its passage, do
the real rows give the text its label, does the passage hold the answer?
"""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from adaptkit.data.words import units_per_word, words
from adaptkit.errors import ConfigError
from adaptkit.synthesis.generators import Written
from adaptkit.synthesis.synthetic_rows import Candidate, Passage, Request

MARK = re.compile(r"^(?:[-*>\u2022]+|\(?\d{1,3}[.):]|q(?:uestion)?\s*\d*\s*[:.])\s*", re.IGNORECASE)
_THOUGHT = re.compile(r"<think>.*?(</think>|\Z)", re.DOTALL)
NOTHING, CUT = "answers without a row", "rows cut at the most tokens"
COPIED, TOO_LONG, BEYOND = "copied from the passage", "too long", "beyond the count"


class RowsKind(ABC):
    """One kind of rows.

    Attributes:
        name: as the command line names it.
        prompt: the request, with {text} and the other `needs` in it.
        roles: of its rows' columns.
        judge: how the round trip is made, in words.
    """

    name: ClassVar[str]
    roles: ClassVar[tuple[str, ...]]
    default_prompt: ClassVar[str]
    needs: ClassVar[tuple[str, ...]] = ("text",)
    tokens_per_row: ClassVar[int]
    rows_per_answer: int
    judge: str

    def __init__(self, count: int, prompt: str | None):
        """Raises: ConfigError for a prompt that does not say where its parts go."""
        self.count, self.prompt = count, prompt or self.default_prompt
        for need in self.needs:
            if f"{{{need}}}" not in self.prompt:
                what = f"the prompt does not say where the {need} goes"
                raise ConfigError(what, where="--prompt-file", fix=f"write {{{need}}} into it")

    @property
    def max_tokens(self) -> int:
        """Of an answer."""
        return self.tokens_per_row * self.rows_per_answer

    @abstractmethod
    def requests(self, passage: Passage) -> list[Request]:
        """What is asked about a passage."""

    @abstractmethod
    def candidates(self, request: Request, written: Written) -> list[Candidate]:
        """What an answer says, in rows; none where it says nothing."""

    @abstractmethod
    def round_trip(self, candidates: Sequence[Candidate]) -> list[str]:
        """Why each row does not come back; empty where it does."""


def without_thoughts(answer: str) -> str:
    return _THOUGHT.sub("", answer)


def filled(prompt: str, parts: dict[str, str]) -> str:
    """A prompt with its parts in place; braces in a part are text."""
    return re.sub(r"\{(\w+)\}", lambda match: parts.get(match[1], match[0]), prompt)


def num_english_words(text: str) -> float:
    """How long a text is, in words of English."""
    return sum(1 / units_per_word(word) for word in words(text))


def stands_in(text: str, passage: str) -> bool:
    """Whether a passage holds a text word for word."""
    return f" {' '.join(words(text))} " in f" {' '.join(words(passage))} "
