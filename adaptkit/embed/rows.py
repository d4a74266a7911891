"""Batches of texts that belong together, with next to no padding.

A batch's texts, anchors and the others alike, are sorted by length and cut into a few tensors,
`00.input_ids`, `01.input_ids`, ...; `order` [B, K] says where each example's texts are among them.

Shape suffixes: B = examples, K = texts of an example.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from adaptkit.embed.encoder import Encoder
from adaptkit.models.batching import batches_by_length, fast_batch_tokens, pad_right


@dataclass(frozen=True)
class Example:
    """Texts that stand in a relation: (anchor, positive, negatives...) or a scored pair.

    Attributes:
        target: what the relation is worth, where a loss asks for it.
        where: `file:line`.
    """

    texts: tuple[str, ...]
    where: str
    target: float = 1.0


class TextRows:
    """A trainer's source of examples that all have the same number of texts.

    Args:
        encoder: gives token ids.
        prompts: the words before an example's first text, and before the others.
        groups: a number per distinct text; texts with the same number answer the same anchors (see
            `groups_of`).
    """

    def __init__(
        self, examples: Sequence[Example], encoder: Encoder, prompts: tuple[str, str], groups: dict[str, int]
    ):
        self.examples = examples
        self._padding = encoder.tokenizer.pad_token_id or 0
        first, others = prompts
        anchors = {example.texts[0] for example in examples}
        documents = {text for example in examples for text in example.texts[1:]}
        self._queries = _tokens(encoder, anchors, first)
        self._documents = _tokens(encoder, documents, others)
        self._groups = groups

    def __len__(self) -> int:
        return len(self.examples)

    def where(self, index: int) -> str:
        return self.examples[index].where

    def length(self, index: int) -> int:
        """Tokens of an example's texts."""
        return sum(map(len, self._ids(index)))

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """The texts' tensors, `order` and `groups` int64 [B, K], `targets` float32 [B]."""
        rows = [ids for index in indices for ids in self._ids(index)]
        parts = like_lengths([len(ids) for ids in rows])
        batch: dict[str, Tensor] = {}
        for number, part in enumerate(parts):
            padded = pad_right([rows[i] for i in part], self._padding)
            batch |= {f"{number:02d}.{name}": value for name, value in padded.items()}
        order = torch.empty(len(rows), dtype=torch.int64)
        order[torch.tensor([i for part in parts for i in part])] = torch.arange(len(rows))
        chosen = [self.examples[index] for index in indices]
        batch["order"] = order.view(len(indices), -1)
        batch["groups"] = torch.tensor([[self._groups[text] for text in example.texts] for example in chosen])
        batch["targets"] = torch.tensor([example.target for example in chosen], dtype=torch.float32)
        return batch

    def _ids(self, index: int) -> list[list[int]]:
        first, *others = self.examples[index].texts
        return [self._queries[first], *(self._documents[text] for text in others)]


def like_lengths(lengths: Sequence[int]) -> list[list[int]]:
    """Places of texts of like lengths, in parts that this machine's encoder reads fast."""
    device_type = "cuda" if torch.cuda.is_available() else "cpu"
    return list(batches_by_length(lengths, fast_batch_tokens(device_type)))


def groups_of(examples: Sequence[Example]) -> dict[str, int]:
    """A number for every text, equal for an anchor and its positive and so for all that hang together through
    them.

    Two questions with one answer, or two answers to one question, must not be each other's negatives.
    """
    parent: dict[str, str] = {}

    def root(text: str) -> str:
        while parent.setdefault(text, text) != text:
            parent[text] = parent[parent[text]]
            text = parent[text]
        return text

    for example in examples:
        parent[root(example.texts[1])] = root(example.texts[0])
        for negative in example.texts[2:]:
            root(negative)
    numbers: dict[str, int] = {}
    return {text: numbers.setdefault(root(text), len(numbers)) for text in parent}


def _tokens(encoder: Encoder, texts: set[str], prompt: str) -> dict[str, list[int]]:
    distinct = sorted(texts)
    return dict(zip(distinct, encoder.tokens(distinct, prompt), strict=True))
