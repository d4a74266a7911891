"""Label texts by a probe: logistic regression on the features of a model that is not trained."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from adaptkit import models
from adaptkit.data.label_names import check_labels
from adaptkit.data.labels import label_rows, label_scores
from adaptkit.finetune.frozen_answers import ForwardMeter, FrozenAnswers
from adaptkit.models.batching import batches_by_length, pad_right
from adaptkit.models.control_tokens import encode
from adaptkit.models.positions import fitting_length

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase

    from adaptkit.data import Dataset

BATCH_TOKENS = 8192
SMALLEST_C, LARGEST_C = -2.0, 2.0
"""log10 of the inverse regularisation."""
NEWTON_WEIGHTS = 4096
"""Weights up to which Newton steps, exact after five to ten, beat 500 of L-BFGS."""


def probe_rows(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    train: Dataset,
    dev: Dataset,
    test: Dataset,
    label_names: Sequence[str],
    *,
    trials: int = 3,
    max_length: int = 256,
    metric: str = "accuracy",
) -> FrozenAnswers:
    """Fit on train, choose C on dev among `trials` values, label the test split.

    Args:
        model: any language model, encoder or classifier; it is not changed.
        max_length: tokens after which a text is cut, at most as many as the model has positions for.
        metric: accuracy or macro_f1, what C is chosen by.
    Raises: DataError for a dev or test label that the training rows lack.
    """
    for split in (dev, test):
        check_labels(split, label_names)
    meter = ForwardMeter()
    with meter.running():
        on_train, on_dev, on_test = (
            features(model, tokenizer, _texts(d), max_length, meter) for d in (train, dev, test)
        )
        scaler = StandardScaler().fit(on_train)
        labels = [label_names.index(row.values["label"]) for row in train.rows]
        solver = "lbfgs"
        if on_train.shape[1] * len(label_names) <= NEWTON_WEIGHTS:
            solver = "newton-cholesky"
        fitted = []
        for strength in strengths(trials):
            head = LogisticRegression(C=strength, solver=solver, max_iter=500)
            head.fit(scaler.transform(on_train), labels)
            # each pass over the data costs a product with the weights and one for their gradient
            meter.flops += 4.0 * on_train.size * len(label_names) * float(np.max(head.n_iter_))
            rows = label_rows(dev, label_names, _spread(head, scaler.transform(on_dev), len(label_names)))
            fitted.append((head, {"C": strength, **label_scores(rows)}, rows))
        best, trial, dev_rows = max(fitted, key=lambda fit: fit[1][metric])
        rows = label_rows(test, label_names, _spread(best, scaler.transform(on_test), len(label_names)))
    dev_scores = {name: value for name, value in trial.items() if name != "C"}
    trials_tried = [row for _, row, _ in fitted]
    return FrozenAnswers(rows, dev_scores, {"C": trial["C"]}, trials_tried, meter.cost(model), dev_rows)


def strengths(trials: int) -> list[float]:
    """`trials` values of C, evenly spaced in the logarithm; a single one is the middle."""
    if trials == 1:
        return [10.0 ** ((SMALLEST_C + LARGEST_C) / 2)]
    return [10.0**exponent for exponent in np.linspace(SMALLEST_C, LARGEST_C, trials).tolist()]


def features(
    model: PreTrainedModel,
    tokenizer: PreTrainedTokenizerBase,
    texts: Sequence[str],
    max_length: int,
    meter: ForwardMeter,
) -> np.ndarray:
    """Last hidden states averaged over each text's tokens, float32 [num_texts, hidden_size]; no gradient."""
    max_length = fitting_length(max_length, models.unwrap(model).config)
    encoded = encode(tokenizer, texts, max_length=max_length)
    backbone = models.unwrap(model).base_model
    order: list[int] = []
    batches: list[np.ndarray] = []
    was_training = model.training
    model.eval()
    with torch.inference_mode():
        for items in batches_by_length([len(ids) for ids in encoded], BATCH_TOKENS):
            batch = pad_right([encoded[i] for i in items], tokenizer.pad_token_id, model.device)
            hidden_BTD = backbone(**batch).last_hidden_state.float()
            text_BT1 = batch["attention_mask"][..., None]
            mean_BD = (hidden_BTD * text_BT1).sum(1) / text_BT1.sum(1)
            order += items
            batches.append(mean_BD.cpu().numpy())
            meter.forward(backbone, batch["input_ids"].numel(), batch["input_ids"].shape[1])
    model.train(was_training)
    return np.concatenate(batches)[np.argsort(order)]


def _spread(head: LogisticRegression, inputs: np.ndarray, num_labels: int) -> np.ndarray:
    """Probabilities [num_rows, num_labels]; 0 for a label that no training row has."""
    chances = np.zeros((len(inputs), num_labels))
    chances[:, head.classes_] = head.predict_proba(inputs)
    return chances


def _texts(dataset: Dataset) -> list[str]:
    return [row.text for row in dataset.rows]
