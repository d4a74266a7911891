"""Training examples with other labels than one a row: sets of labels, numbers, tags of words, pairs."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adaptkit.data.annotations import OUTSIDE, tags_of, words_of
from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import truth_of
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.supervised import TextRows
from adaptkit.data.tokenizers import pad_token
from adaptkit.models.batching import pad_right
from adaptkit.models.control_tokens import control_tokens, encode_rendered, frame
from adaptkit.ops import IGNORE_INDEX

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class LabelSetRows(TextRows):
    """Texts with any number of labels each, for a head with one output a label.

    Raises: DataError at `file:line` for a label that is not among `label_names`.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
        label_names: Sequence[str],
    ):
        check_labels(dataset, label_names)
        self.truth = torch.from_numpy(truth_of(dataset, label_names))
        super().__init__(dataset, tokenizer, max_length)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """As `TextRows`, and `labels`, float [B, L]."""
        return {**super().collate(indices, seed=seed, epoch=epoch), "labels": self.truth[indices]}


class ScoredRows(TextRows):
    """Texts with a number each, for a head with one output.

    Args:
        centre, scale: what the head learns is (score - centre) / scale.
    """

    def __init__(
        self,
        dataset: Dataset,
        tokenizer: PreTrainedTokenizerFast,
        max_length: int,
        centre: float,
        scale: float,
    ):
        scores = [row.values["score"] for row in dataset.rows]
        self.targets = (torch.tensor(scores, dtype=torch.float64) - centre) / scale
        super().__init__(dataset, tokenizer, max_length)

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """As `TextRows`, and `labels`, float [B]."""
        labels = self.targets[indices].float()
        return {**super().collate(indices, seed=seed, epoch=epoch), "labels": labels}


class WordTokens:
    """A text's token ids, and the place of each word's first token.

    A word whose first letters share a token with the word before has no place of its own (None), nor has one
    that `max_length` cuts off.
    """

    def __init__(self, row: Row, tokenizer: PreTrainedTokenizerFast, max_length: int):
        first, last = frame(tokenizer)
        pieces = encode_rendered(tokenizer, row.text, control_tokens(tokenizer).spans(row.text))
        self.num_tokens = len(first) + len(pieces) + len(last)
        pieces = pieces[: max_length - len(first) - len(last)]
        self.ids = [*first, *(token for token, _, _ in pieces), *last]
        self.words = words_of(row.text, row.values.get("tokens"))
        self.places: list[int | None] = []
        self.shared: list[bool] = []
        at, taken = 0, -1
        for start, end in self.words:
            while at < len(pieces) and pieces[at][2] <= start:
                at += 1
            found = at < len(pieces) and pieces[at][1] < end
            self.shared.append(found and at == taken)
            self.places.append(len(first) + at if found and at != taken else None)
            taken = at if found else taken


class SpanRows:
    """Texts with a tag for each word at its first token, for a head over tokens.

    Args:
        tag_names: the tags in the order of the head's outputs.
        max_length: tokens after which a text is cut; `cut` counts those.
    """

    def __init__(
        self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, tag_names: Sequence[str]
    ):
        self._pad = pad_token(tokenizer)
        self._where = [row.where for row in dataset.rows]
        number = {name: i for i, name in enumerate(tag_names)}
        self.texts: list[list[int]] = []
        self.labels: list[list[int]] = []
        lengths = []
        for row in dataset.rows:
            tokens = WordTokens(row, tokenizer, max_length)
            tags = tags_of(tokens.words, row.values["spans"])
            labels = [IGNORE_INDEX] * len(tokens.ids)
            for place, tag in zip(tokens.places, tags, strict=True):
                if place is not None:
                    labels[place] = number.get(tag, number[OUTSIDE])
            self.texts.append(tokens.ids)
            self.labels.append(labels)
            lengths.append(tokens.num_tokens)
        self.cut = CutTexts.of(lengths, max_length)

    def __len__(self) -> int:
        return len(self.texts)

    def where(self, index: int) -> str:
        return self._where[index]

    def length(self, index: int) -> int:
        """Tokens of a text."""
        return len(self.texts[index])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """`input_ids`, `attention_mask` and `labels` [B, T], padded on the right to the longest."""
        batch = pad_right([self.texts[i] for i in indices], self._pad)
        labels = np.full(tuple(batch["input_ids"].shape), IGNORE_INDEX, np.int64)
        for row, index in enumerate(indices):
            labels[row, : len(self.labels[index])] = self.labels[index]
        return {**batch, "labels": torch.from_numpy(labels)}


PAIR = ("prompt", "text1", "text2")
"""The roles of a pair that a model reads, in their order."""


def fit_pairs(
    dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int
) -> tuple[Dataset, list[int]]:
    """Pairs that are read whole: of long ones the longest parts are cut first, so that none is lost.

    Returns: the pairs, and how many tokens each had.
    """
    around = sum(map(len, frame(tokenizer)))
    rows, lengths = [], []
    for row in dataset.rows:
        parts = {name: row.values[name] for name in PAIR if name in row.values}
        pieces = {
            name: encode_rendered(tokenizer, text, control_tokens(tokenizer).spans(text))
            for name, text in parts.items()
        }
        breaks = len(parts) - 1
        sizes = {name: len(tokens) for name, tokens in pieces.items()}
        lengths.append(around + breaks + sum(sizes.values()))
        if lengths[-1] > max_length:
            # a line break and what it does to its neighbours takes two tokens at most
            limits = _shared_out(sizes, max(len(parts), max_length - around - 2 * breaks))
            cut = {name: text[: pieces[name][limits[name] - 1][2]] for name, text in parts.items()}
            row = dataclasses.replace(row, values={**row.values, **cut})
        rows.append(row)
    return dataset.with_rows(rows), lengths


def _shared_out(sizes: dict[str, int], room: int) -> dict[str, int]:
    """How much of each part is kept: the short ones whole, the long ones in equal parts."""
    limits: dict[str, int] = {}
    for number, name in enumerate(sorted(sizes, key=lambda name: sizes[name])):
        share = (room - sum(limits.values())) // (len(sizes) - number)
        limits[name] = max(1, min(sizes[name], share))
    return limits
