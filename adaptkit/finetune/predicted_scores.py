"""Texts with a number each, such as ratings: a head with one output, and a ridge regression on features."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import Ridge
from sklearn.preprocessing import StandardScaler
from torch import nn

from adaptkit import models
from adaptkit.data.annotated_rows import ScoredRows
from adaptkit.data.drawing import draw_from
from adaptkit.data.readers import Dataset
from adaptkit.data.score_table import ItemRow, mean_absolute_error_table, spearman_table
from adaptkit.errors import DataError
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers, goodness
from adaptkit.finetune.probe import features, strengths
from adaptkit.finetune.task_protocol import Classify, Examples
from adaptkit.models.batching import head_outputs, pad_right
from adaptkit.models.control_tokens import encode
from adaptkit.trainer.objective import Objective
from adaptkit.trainer.objective import Regression as SquaredError

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

OUTPUT = "score"
NUM_FIRST_ROWS = 32
"""Training rows by which a head without a bias is brought to the mean."""


class Regression(Classify):
    """A head with one output. It learns in units of the training scores' spread and answers in their own."""

    want = "scored"
    problem_type = "regression"

    @property
    def output_names(self) -> list[str]:
        return [OUTPUT]

    def look_at(self, train: Dataset) -> None:
        scores = spread_scores(train)
        self.mean, self.scale = float(np.mean(scores)), float(np.std(scores))
        self.centre = self.mean
        self._first = [row.text for row in draw_from(train, NUM_FIRST_ROWS).rows]

    def start_head(self, model: nn.Module) -> None:
        """Begin at the mean: a head with a bias learns what is left of it, one without is turned there."""
        heads = _heads(model)
        if heads[0].bias is not None:
            return
        self.centre = 0.0
        state_D = self._mean_state(models.unwrap(model))
        turned_D = (self.mean / self.scale) * state_D / state_D.square().sum()
        with torch.no_grad():
            for head in heads:
                head.weight += turned_D.to(head.weight)

    def finish_head(self, model: nn.Module) -> None:
        """Bring the head from units of the spread to those of the scores."""
        with torch.no_grad():
            for head in _heads(model):
                head.weight *= self.scale
                if head.bias is not None:
                    head.bias.mul_(self.scale).add_(self.centre)

    def objective(self) -> Objective:
        return SquaredError()

    def source(self, dataset: Dataset) -> Examples:
        return ScoredRows(dataset, self.tokenizer, self.max_length, self.centre, self.scale)

    def rows(self, model: PreTrainedModel, dataset: Dataset) -> list[ItemRow]:
        texts = [row.text for row in dataset.rows]
        return score_rows(dataset, head_outputs(model, self.tokenizer, texts, self.max_length)[:, 0])

    def score(self, rows: Sequence[ItemRow]) -> dict[str, float]:
        return rank_scores(rows)

    def _mean_state(self, model: PreTrainedModel) -> torch.Tensor:
        """The mean over some training rows of the state that a causal model's head reads, [D]."""
        encoded = encode(self.tokenizer, self._first, max_length=self.max_length)
        batch = pad_right(encoded, self.tokenizer.pad_token_id or 0, model.device)
        was_training = model.training
        model.eval()
        with torch.no_grad():
            states_BTD = model.base_model(**batch).last_hidden_state.float()
        model.train(was_training)
        last_B = batch["attention_mask"].sum(1) - 1
        return states_BTD[torch.arange(len(last_B), device=last_B.device), last_B].mean(0)


def _heads(model: nn.Module) -> list[nn.Linear]:
    """The layer that gives the one number; an adapter keeps its first state beside it."""
    return [part for part in model.modules() if isinstance(part, nn.Linear) and part.out_features == 1]


def spread_scores(train: Dataset) -> list[float]:
    """The scores of training rows. Raises: DataError where they are all the same."""
    scores = [row.values["score"] for row in train.rows]
    if len(set(scores)) < 2:
        what = f"every training row has the score {scores[0]:g}: there is nothing to learn"
        raise DataError(what, where=train.rows[0].where, fix="name the column: {score: <column>}")
    return scores


def score_rows(dataset: Dataset, predicted: np.ndarray) -> list[ItemRow]:
    """Item rows of a task with a number to predict."""
    return [
        {"id": row.id, "score": row.values["score"], "predicted_score": round(float(number), 6)}
        for row, number in zip(dataset.rows, predicted, strict=True)
    ]


def rank_scores(rows: Sequence[ItemRow]) -> dict[str, float]:
    """Spearman's rank correlation and the mean absolute error."""
    predicted, actual = [row["predicted_score"] for row in rows], [row["score"] for row in rows]
    return {
        "spearman": spearman_table(predicted, actual).value,
        "mae": mean_absolute_error_table(predicted, actual).value,
    }


def probe_scores(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    parts: dict[str, Dataset],
    *,
    trials: int,
    max_length: int,
    metric: str,
) -> FrozenAnswers:
    """Ridge regression on frozen features; its strength is chosen on dev.

    Args:
        parts: train, dev and test.
        metric: spearman or mae, what the strength is chosen by.
    """
    scores = np.asarray(spread_scores(parts["train"]))
    meter = ForwardMeter()
    with meter.running():
        inputs = {
            part: features(model, tokenizer, [row.text for row in data.rows], max_length, meter)
            for part, data in parts.items()
        }
        scaler = StandardScaler().fit(inputs["train"])
        inputs = {part: scaler.transform(values) for part, values in inputs.items()}
        tried = []
        for strength in strengths(trials):
            head = Ridge(alpha=len(scores) / (100 * strength)).fit(inputs["train"], scores)
            rows = {part: score_rows(parts[part], head.predict(inputs[part])) for part in ("dev", "test")}
            meter.flops += 2.0 * inputs["train"].size * inputs["train"].shape[1]
            tried.append(({"C": strength}, rank_scores(rows["dev"]), rows["test"]))
        chosen, dev, rows_of_test = max(tried, key=lambda trial: goodness(trial[1], metric))
    settings = [{**setting, **result} for setting, result, _ in tried]
    return FrozenAnswers(rows_of_test, dev, chosen, settings, meter.cost(model))
