"""Rows that say how likely each label is, for a head that learns these and not one label.

The loss of a row is the cross-entropy between its probabilities and the head's; for a row that is sure of its
label that is the loss of the label alone.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from adaptkit.data.column_roles import SOFT
from adaptkit.data.readers import Dataset, Row
from adaptkit.data.supervised import LabelledRows

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerFast


class SoftLabelledRows(LabelledRows):
    """Texts with a probability for each label; a row without any is sure of its one label.

    Args:
        label_names: the classes, in the order of the head's outputs. What a row gives to others is left out,
            and the rest is scaled to 1.
    """

    def __init__(
        self, dataset: Dataset, tokenizer: PreTrainedTokenizerFast, max_length: int, label_names: list[str]
    ):
        super().__init__(dataset, tokenizer, max_length, label_names)
        self.soft_NC = np.stack([_chances(row, label_names) for row in dataset.rows])

    def collate(self, indices: list[int], *, seed: int, epoch: int) -> dict[str, Tensor]:
        """As `LabelledRows`, with `labels` float32 [B, C]."""
        batch = super().collate(indices, seed=seed, epoch=epoch)
        return {**batch, "labels": torch.from_numpy(self.soft_NC[indices])}


def has_soft_labels(dataset: Dataset) -> bool:
    """Whether any row says how likely each label is."""
    return any(SOFT in row.values for row in dataset.rows)


def _chances(row: Row, label_names: list[str]) -> np.ndarray:
    given = row.values.get(SOFT, {row.values["label"]: 1.0})
    chances_C = np.array([given.get(name, 0.0) for name in label_names], np.float32)
    soft_C: np.ndarray = chances_C / chances_C.sum()
    return soft_C
