"""Prompts to begin with: the study's own test texts, which no model was trained on, and what follows there.

What a model writes can then be held against what the text itself says.
"""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field

from adaptkit.data.words import first_words, num_words

PROMPT_WORDS, FOLLOWING_WORDS, MOST, FEWEST_CHARS = 14, 60, 12, 20


@dataclass
class SamplePrompts:
    """Beginnings of held-out texts to continue, and the study's questions to answer.

    Args:
        documents: (name, text) of held-out passages.
        questions: (question, answer) of test rows.
    """

    documents: Sequence[tuple[str, str]] = ()
    questions: Sequence[tuple[str, str]] = ()
    _following: dict[str, str] = field(default_factory=dict)
    _turns: dict[bool, Iterator[str]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        begun = [(_beginning(text, _first_part(text)), text) for _, text in self.documents[:MOST]]
        beginnings = [(start, text.partition(start)[2]) for start, text in begun]
        beginnings = [(start, rest) for start, rest in beginnings if len(start) > FEWEST_CHARS]
        asked = [(question.strip(), answer) for question, answer in self.questions[:MOST]]
        for start, rest in [*asked, *beginnings]:
            self._following[start] = shortened(rest)
        starts = [start for start, _ in beginnings] or [start for start, _ in asked]
        self._turns = {False: itertools.cycle(starts), True: itertools.cycle([q for q, _ in asked] or starts)}

    def __bool__(self) -> bool:
        return bool(self._following)

    def next(self, chat: bool) -> str:
        """Take the next prompt; empty where the study keeps no texts.

        Args:
            chat: a question rather than the beginning of a text, where there are questions.
        """
        return next(self._turns[chat], "")

    def following(self, prompt: str) -> str:
        """What the text itself says after this prompt; empty for a prompt of the visitor's own."""
        return self._following.get(prompt.strip(), "") or self._following.get(prompt, "")


def shortened(text: str) -> str:
    """The first words of a text with its lines, and three dots where more follows."""
    start = _beginning(text, FOLLOWING_WORDS)
    if len(start) < len(text.strip()):
        return f"{start} \u2026"
    return start


def _first_part(text: str) -> int:
    """Words of a prompt: not more than half of the text, so that something follows."""
    return max(1, min(PROMPT_WORDS, int(num_words(text) / 2)))


def _beginning(text: str, words: int) -> str:
    """The first words of a text, on lines as they stand there."""
    start = first_words(text, words).split()
    as_written = re.match(r"\s*" + r"\s+".join(map(re.escape, start)), text)
    if as_written is None:
        return " ".join(start)
    return as_written.group().strip("\n").rstrip()
