"""Write prompts as token ids: instruction, examples, and a text cut to what the model reads.

    prompt = fit(writer, block, examples, context=2048, answer_tokens=3)     # drops what does not fit
    ids = prompt.ids(Question("a text"))

A prompt is encoded whole, as a server would encode it, by a chat template (`prompt_chat`) or plain ones.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from torch import nn

from adaptkit import models
from adaptkit.data.message_fields import content_texts, is_plain, message_text, taught_turns
from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.finetune.prompt_words import PASSAGES_HEAD
from adaptkit.models.control_tokens import control_tokens, encode, encode_rendered, frame
from adaptkit.models.positions import fitting_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHORTEST_TEXT = 8
"""Tokens of an example below which it is better left out."""
LONGEST_CONTEXT = 2048
SEPARATOR = "\n\n"
FRAME_TOKENS = 2
"""[CLS] and [SEP] of a masked LM."""


@dataclass(frozen=True)
class Question:
    """What an item asks.

    Attributes:
        text: all of it; the part that is cut where it is too long.
        before: earlier turns of a conversation, (role, text) each; not part of `text`.
        passages: what was looked up for it; stands before it, and is never cut here.
        whole: the text with the earlier turns, one a line.
    """

    text: str
    before: tuple[tuple[str, str], ...] = ()
    passages: tuple[str, ...] = ()

    @property
    def looked_up(self) -> str:
        """The passages as they stand in a prompt, numbered; empty without any."""
        numbered = [f"[{number}] {text}" for number, text in enumerate(self.passages, 1)]
        return "\n".join([PASSAGES_HEAD, *numbered]) if numbered else ""

    @property
    def whole(self) -> str:
        return "\n".join([*(text for _, text in self.before), self.text])


@dataclass(frozen=True)
class Sections:
    """The parts of one prompt.

    Attributes:
        block: the instruction and what belongs to it; may be empty.
        examples: what was asked and answered before.
    """

    block: str
    examples: tuple[tuple[str, str], ...]
    question: Question


class Writer(Protocol):
    """One style of writing prompts."""

    def text(self, sections: Sections) -> str:
        """The prompt in words."""

    def ids(self, sections: Sections) -> list[int]:
        """The prompt as token ids, with what begins a text."""

    def answer(self, answer: str) -> list[int]:
        """Token ids of an answer, as they follow a prompt."""

    def ending(self) -> list[int]:
        """The token that closes an answer; empty where nothing does."""

    def first_part(self, written: Sequence[int]) -> str:
        """The answer in what a model wrote."""


class PlainWriter:
    """Prompts as plain text: a template around each text, blank lines between examples."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, wording: str):
        self.tokenizer, self.wording = tokenizer, wording
        self.opening = opening(tokenizer)

    def text(self, sections: Sections) -> str:
        examples = [f"{self._around(asked)} {answer}" for asked, answer in sections.examples]
        question = sections.question
        parts = [sections.block, *examples, question.looked_up, self._around(question.whole)]
        return SEPARATOR.join(part for part in parts if part)

    def ids(self, sections: Sections) -> list[int]:
        return self.opening + encode(self.tokenizer, [self.text(sections)], special=False)[0]

    def answer(self, answer: str) -> list[int]:
        return encode(self.tokenizer, [" " + answer], special=False)[0]

    def ending(self) -> list[int]:
        line = encode(self.tokenizer, ["\n"], special=False)[0][-1:]
        end = self.tokenizer.eos_token_id
        return line or ([] if end is None else [end])

    def first_part(self, written: Sequence[int]) -> str:
        """An answer up to the blank line that ends an example."""
        text = str(self.tokenizer.decode(list(written), skip_special_tokens=True))
        return text.strip().split(SEPARATOR)[0].strip()

    def _around(self, text: str) -> str:
        return self.wording.replace("{text}", text)


@dataclass(frozen=True)
class Prompt:
    """Prompts of one format that fit a model: what stands before the text, and the room left for it.

    Attributes:
        room: tokens of a text at most.
        limit: tokens of a whole prompt at most.
    """

    writer: Writer
    tokenizer: PreTrainedTokenizerBase = field(repr=False)
    block: str
    examples: tuple[tuple[str, str], ...]
    room: int
    limit: int

    def ids(self, question: Question) -> list[int]:
        """The prompt with a question in it, its text cut so that all fits."""
        return self._fitted(question)[1]

    def fitted(self, question: Question) -> Question:
        """A question as a prompt without passages cuts it; earlier turns that do not fit are part of its
        text."""
        return self._fitted(replace(question, passages=()))[0]

    def fits(self, question: Question) -> bool:
        """Whether nothing of a question and its passages would have to be cut."""
        return len(self.writer.ids(Sections(self.block, self.examples, question))) <= self.limit

    def _fitted(self, question: Question) -> tuple[Question, list[int]]:
        if question.before:
            ids = self._conversation(question)
            if ids is not None:
                return question, ids
            question = replace(question, text=question.whole, before=())
        room = self.room
        sections = Sections(self.block, self.examples, self._cut(question, room))
        ids = self.writer.ids(sections)
        while len(ids) > self.limit and room > 0:
            room -= max(1, len(ids) - self.limit)
            sections = replace(sections, question=self._cut(question, room))
            ids = self.writer.ids(sections)
        return sections.question, ids

    def _conversation(self, question: Question) -> list[int] | None:
        """The prompt with earlier turns as they are; None where they do not fit, or are refused."""
        try:
            ids = self.writer.ids(Sections(self.block, self.examples, question))
        except DataError:
            return None
        return ids if len(ids) <= self.limit else None

    def shown(self) -> str:
        """The prompt in words, with {text} where a text stands."""
        return self.writer.text(Sections(self.block, self.examples, Question("{text}")))

    def _cut(self, question: Question, room: int) -> Question:
        return replace(question, text=cut(self.tokenizer, question.text, room))


def fit(
    writer: Writer,
    tokenizer: PreTrainedTokenizerBase,
    blocks: Sequence[str],
    examples: Sequence[tuple[str, str]],
    *,
    context: int,
    answer_tokens: int,
    max_length: int = 0,
    passages: int = 0,
) -> Prompt:
    """The fullest prompt that leaves room for a text.

    Examples are left out one by one, the last first, and then what the blocks say more than the next one.

    Args:
        blocks: the instruction, the fullest first.
        context: tokens the model reads, its answer's included.
        max_length: tokens of each text at most; 0 is no limit.
        passages: texts that stand beside the question; each is left as much room as an example.
    """
    limit = context - answer_tokens - FRAME_TOKENS
    for block in [*dict.fromkeys(blocks), ""]:
        for count in range(len(examples), -1, -1):
            bare = tuple(("", answer) for _, answer in examples[:count])
            fixed = len(writer.ids(Sections(block, bare, Question(""))))
            share = (limit - fixed) // (count + 1 + passages)
            if share >= SHORTEST_TEXT:
                share = min(share, max_length or share)
                shots = tuple((cut(tokenizer, text, share), answer) for text, answer in examples[:count])
                room = limit - len(writer.ids(Sections(block, shots, Question(""))))
                return Prompt(writer, tokenizer, block, shots, min(room, max_length or room), limit)
    room = max(0, limit - len(writer.ids(Sections("", (), Question("")))))
    return Prompt(writer, tokenizer, "", (), room, limit)


def cut(tokenizer: PreTrainedTokenizerBase, text: str, room: int) -> str:
    """The beginning of a text that has at most `room` tokens."""
    if room <= 0:
        return ""
    if len(text.encode()) <= room:  # a token stands for one byte at least
        return text
    pieces = encode_rendered(tokenizer, text, control_tokens(tokenizer).spans(text))
    if len(pieces) <= room:
        return text
    return text[: pieces[room - 1][2]]


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text (BOS or [CLS]), as a server would; often nothing."""
    return frame(tokenizer)[0]


def context_length(model: nn.Module) -> int:
    """Tokens the model can read at once, at most `LONGEST_CONTEXT`."""
    return fitting_length(LONGEST_CONTEXT, models.unwrap(model).config)


def shared_prefix(rows: Sequence[Sequence[int]]) -> list[int]:
    """The tokens that all rows begin with, short of the last token of the shortest."""
    if not rows:
        return []
    ordered = sorted(map(list, rows))
    first, last = ordered[0], ordered[-1]  # what these two share, all rows between them share
    most = min(map(len, rows)) - 1
    count = next((i for i in range(most) if first[i] != last[i]), most)
    return first[: max(0, count)]


def question_and_answer(row: Row) -> tuple[Question, str]:
    """What a row asks (the turns before the last taught answer) and the answer it holds.

    Turns that hold more than text, and rows with tools, are one text, a turn a line.

    Raises: DataError for a row without an answer.
    """
    if "completion" in row.values:
        return Question(row.values["prompt"]), row.values["completion"].strip()
    messages = row.values.get("messages", [])
    answers = taught_turns(messages)
    if not answers:
        fix = "give prompt and completion, or messages"
        raise DataError("holds no answer to compare with", where=row.where, fix=fix)
    turns, answer = messages[: answers[-1]], message_text(messages[answers[-1]]).strip()
    plain = "tools" not in row.values and all(map(is_plain, turns))
    if turns and plain and turns[-1]["role"] == "user":
        before = tuple((turn["role"], content_texts(turn)[0]) for turn in turns[:-1])
        return Question(content_texts(turns[-1])[0], before), answer
    tools = [json.dumps(row.values["tools"], ensure_ascii=False)] if "tools" in row.values else []
    return Question("\n".join([*tools, *map(message_text, turns)])), answer
