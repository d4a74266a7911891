"""Pairs of texts with a label: is one a copy of the other, which of two answers is better."""

from __future__ import annotations

from typing import TYPE_CHECKING

from adaptkit.data.annotated_rows import fit_pairs
from adaptkit.data.cut_texts import CutTexts
from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import ItemRow
from adaptkit.finetune.task_protocol import Classify, Examples

if TYPE_CHECKING:
    from transformers import PreTrainedModel


class Pairs(Classify):
    """A classification head that reads both texts as one, line after line; of a long pair both are cut."""

    want = "labelled_pairs"

    def source(self, dataset: Dataset) -> Examples:
        fitting, lengths = fit_pairs(dataset, self.tokenizer, self.max_length)
        source = super().source(fitting)
        source.cut = CutTexts.of(lengths, self.max_length)  # its own count finds pairs that are cut already
        return source

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        return super().rows(model, fit_pairs(dataset, self.tokenizer, self.max_length)[0])
