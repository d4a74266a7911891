"""Write prompts as token ids: a template around a text, examples before it, cut to what the model reads."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import TYPE_CHECKING

from torch import nn

from adaptkit import models
from adaptkit.data.message_fields import message_text, taught_turns
from adaptkit.data.readers import Row
from adaptkit.errors import DataError
from adaptkit.models.control_tokens import encode, frame
from adaptkit.models.positions import fitting_length

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

SHORTEST_TEXT = 8
"""Tokens of an example below which it is better left out."""
LONGEST_CONTEXT = 2048
SEPARATOR = "\n\n"


class Template:
    """Token ids of prompts: pieces are encoded once and joined, the text alone is cut to fit."""

    def __init__(self, tokenizer: PreTrainedTokenizerBase, template: str, context: int):
        self.tokenizer, self.context = tokenizer, context
        head, _, tail = template.partition("{text}")
        self.head, self.tail, self.separator = self.encode([head, tail, SEPARATOR])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        """Token ids of each text, without special tokens."""
        return encode(self.tokenizer, texts, special=False)

    def query(self, text: list[int], room: int) -> list[int]:
        """The template around a text of which at most `room` tokens are kept."""
        return self.head + text[: max(0, room)] + self.tail

    def answer(self, answer: str) -> list[int]:
        """Token ids of an answer, with the blank before it."""
        return self.encode([" " + answer])[0]

    def room(self, before: Sequence[int], shots: int, answer: int) -> int:
        """Tokens left for each text when `shots` examples and a query follow `before`.

        Each of them has an answer of `answer` tokens behind it.
        """
        frame = len(self.head) + len(self.tail) + answer
        fixed = len(before) + shots * len(self.separator) + 2  # two: [CLS] and [SEP] of a masked LM
        return (self.context - fixed) // (shots + 1) - frame


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """What the tokenizer itself puts before a text (BOS or [CLS]), as a server would; often nothing."""
    return frame(tokenizer)[0]


def context_length(model: nn.Module) -> int:
    """Tokens the model can read at once, at most `LONGEST_CONTEXT`."""
    return fitting_length(LONGEST_CONTEXT, models.unwrap(model).config)


def question_and_answer(row: Row) -> tuple[str, str]:
    """What a row asks (the turns before the last taught answer, one a line) and the answer it holds.

    Raises: DataError for a row without an answer.
    """
    if "completion" in row.values:
        return row.values["prompt"], row.values["completion"].strip()
    messages = row.values.get("messages", [])
    answers = taught_turns(messages)
    if not answers:
        fix = "give prompt and completion, or messages"
        raise DataError("holds no answer to compare with", where=row.where, fix=fix)
    last = answers[-1]
    asked = [json.dumps(row.values["tools"], ensure_ascii=False)] if "tools" in row.values else []
    asked += map(message_text, messages[:last])
    return "\n".join(asked), message_text(messages[last]).strip()
