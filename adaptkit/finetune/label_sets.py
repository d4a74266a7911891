"""Texts with any number of labels each: a head with a yes or no for every label, and a probe that has one."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from adaptkit.data.annotated_rows import LabelSetRows
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import best_threshold, label_set_rows, label_set_scores, truth_of
from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import ItemRow
from adaptkit.errors import DataError
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.finetune.probe import features, strengths
from adaptkit.finetune.task_protocol import Classify, Examples
from adaptkit.models.batching import head_outputs
from adaptkit.trainer.objective import LabelSets, Objective

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

THRESHOLD = "decision_threshold"
"""In the record's facts and in the model's config.json: from which probability on a label applies."""


class MultiLabel(Classify):
    """A sigmoid for every label, and one threshold for all, chosen on development rows."""

    want = "multi_label"
    problem_type = "multi_label_classification"
    threshold = 0.5

    def look_at(self, train: Dataset) -> None:
        check_labelled(train)

    def objective(self) -> Objective:
        return LabelSets()

    def source(self, dataset: Dataset) -> Examples:
        return LabelSetRows(dataset, self.tokenizer, self.max_length, self.label_names)

    def settle(self, model: PreTrainedModel, dev: Dataset) -> None:
        truth = truth_of(dev, self.label_names)
        self.threshold = round(best_threshold(self._probabilities(model, dev), truth), 6)
        setattr(model.config, THRESHOLD, self.threshold)

    def facts(self) -> dict[str, Any]:
        return {THRESHOLD: self.threshold}

    def recall(self, facts: dict[str, Any]) -> None:
        self.threshold = facts[THRESHOLD]

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        probabilities = self._probabilities(model, dataset)
        return label_set_rows(dataset, self.label_names, probabilities, self.threshold)

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return label_set_scores(rows)

    def _probabilities(self, model: PreTrainedModel, dataset: Dataset) -> np.ndarray:
        texts = [row.text for row in dataset.rows]
        outputs = head_outputs(model, self.tokenizer, texts, self.max_length)
        return torch.from_numpy(outputs).sigmoid().numpy()


def check_labelled(train: Dataset) -> None:
    """Raises: DataError where no training row has a label."""
    if not train.labels:
        where = train.rows[0].where if train.rows else None
        raise DataError("no training row has a label", where=where, fix="name the column: {labels: <column>}")


def probe_label_sets(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, Dataset],
    *,
    trials: int,
    max_length: int,
    metric: str,
) -> FrozenAnswers:
    """One logistic regression a label on frozen features; C and the threshold are chosen on dev.

    Args:
        parts: train, dev and test.
        metric: micro_f1 or macro_label_f1, what C is chosen by.
    """
    names = parts["train"].labels
    for part in ("dev", "test"):
        check_labels(parts[part], names)
    meter = ForwardMeter()
    with meter.running():
        inputs = {
            part: features(model, tokenizer, [row.text for row in data.rows], max_length, meter)
            for part, data in parts.items()
        }
        scaler = StandardScaler().fit(inputs["train"])
        inputs = {part: scaler.transform(values) for part, values in inputs.items()}
        truth = {part: truth_of(data, names) for part, data in parts.items()}
        tried = []
        for strength in strengths(trials):
            heads = [OneAgainstRest(inputs["train"], column, strength) for column in truth["train"].T]
            meter.flops += 4.0 * inputs["train"].size * sum(head.num_passes for head in heads)
            chances = {part: np.stack([head(inputs[part]) for head in heads], 1) for part in ("dev", "test")}
            threshold = best_threshold(chances["dev"], truth["dev"])
            rows = {part: label_set_rows(parts[part], names, chances[part], threshold) for part in chances}
            setting = {"C": strength, THRESHOLD: round(threshold, 6)}
            tried.append((setting, label_set_scores(rows["dev"]), rows["test"]))
        chosen, scores, rows_of_test = max(tried, key=lambda trial: trial[1][metric])
    settings = [{**setting, **result} for setting, result, _ in tried]
    return FrozenAnswers(rows_of_test, scores, chosen, settings, meter.cost(model))


class OneAgainstRest:
    """The probability of one label; of a label that all rows have, or none, it is a constant."""

    def __init__(self, inputs: Any, truth: np.ndarray, strength: float, solver: str = "lbfgs"):
        self._constant = float(truth[0])
        self._head: LogisticRegression | None = None
        self.num_passes = 0.0
        if len(np.unique(truth)) > 1:
            self._head = LogisticRegression(C=strength, max_iter=500, solver=solver, random_state=0)
            self._head.fit(inputs, truth.astype(int))
            self.num_passes = float(np.max(self._head.n_iter_))

    def __call__(self, inputs: Any) -> np.ndarray:
        if self._head is None:
            return np.full(inputs.shape[0], self._constant)
        return np.asarray(self._head.predict_proba(inputs)[:, 1])
