"""Prompts as token ids: a template around a text, examples before it, all within what the model can read."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from adaptkit import models

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

SHORTEST_TEXT = 8  # tokens of an example below which it is better left out
LONGEST_CONTEXT = 2048
SEPARATOR = "\n\n"


class Template:
    """Token ids of prompts: pieces are encoded once and joined, the text alone is cut to fit."""

    def __init__(self, tokenizer: Any, template: str, context: int):
        self.tokenizer, self.context = tokenizer, context
        head, _, tail = template.partition("{text}")
        self.head, self.tail, self.separator = self.encode([head, tail, SEPARATOR])

    def encode(self, texts: Sequence[str]) -> list[list[int]]:
        return (
            self.tokenizer(list(texts), add_special_tokens=False, verbose=False)["input_ids"] if texts else []
        )

    def query(self, text: list[int], room: int) -> list[int]:
        return self.head + text[: max(0, room)] + self.tail

    def answer(self, words: str) -> list[int]:
        return self.encode([" " + words])[0]

    def room(self, before: Sequence[int], shots: int, answer: int) -> int:
        """Tokens left for each text when `shots` examples and a query, each with `answer` tokens behind,
        follow `before`."""
        frame = len(self.head) + len(self.tail) + answer
        fixed = len(before) + shots * len(self.separator) + 2  # two: [CLS] and [SEP] of a masked LM
        return (self.context - fixed) // (shots + 1) - frame


def opening(tokenizer: PreTrainedTokenizerBase) -> list[int]:
    """BOS or [CLS] if the tokenizer itself puts one before a text, as a server would; nothing otherwise."""
    first = tokenizer("a")["input_ids"][:1]
    return first if first[0] in (tokenizer.bos_token_id, tokenizer.cls_token_id) else []


def context_length(model: PreTrainedModel) -> int:
    """Tokens the model can read at once, at most `LONGEST_CONTEXT`."""
    config = models.unwrap(model).config.get_text_config()
    return min(LONGEST_CONTEXT, getattr(config, "max_position_embeddings", LONGEST_CONTEXT))
